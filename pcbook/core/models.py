"""Networks that are no stack of layers: convolution, recurrence, gates, attention.

Plain JAX, a pair of functions each: `init(key)` draws the parameters, a pytree, and
`apply(params, x)` is the network's output. They are what `pcbook.graph` is tried on.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax, random


class Model(NamedTuple):
    """A network: `init(key)` makes `params`, `apply(params, x)` the output of a batch."""

    name: str
    init: Callable
    apply: Callable


def dense(key, n_in: int, n_out: int) -> dict:
    """Weights W ~ N(0, 1/n_in), (n_in, n_out), and a bias of zero."""
    return {"W": random.normal(key, (n_in, n_out)) / math.sqrt(n_in), "b": jnp.zeros(n_out)}


def affine(layer: dict, x):
    """The product x W + b."""
    return x @ layer["W"] + layer["b"]


def mlp(sizes: Sequence[int]) -> Model:
    """Layers of `sizes` units with tanh between them: (batch, n_0) -> (batch, n_L)."""

    def init(key):
        return [
            dense(k, *pair) for k, *pair in zip(random.split(key, len(sizes) - 1), sizes, sizes[1:])
        ]

    def apply(params, x):
        for layer in params[:-1]:
            x = jnp.tanh(affine(layer, x))
        return affine(params[-1], x)

    return Model("multilayer", init, apply)


def residual(n_in: int, width: int, blocks: int, n_out: int) -> Model:
    """Blocks x + W' relu(W x) on a stream of `width` units: (batch, n_in) -> (batch, n_out)."""

    def init(key):
        first, last, *keys = random.split(key, 2 + 2 * blocks)
        inner = [
            (dense(a, width, width), dense(b, width, width)) for a, b in zip(keys[::2], keys[1::2])
        ]
        return {"in": dense(first, n_in, width), "blocks": inner, "out": dense(last, width, n_out)}

    def apply(params, x):
        x = affine(params["in"], x)
        for up, down in params["blocks"]:
            x = x + affine(down, jax.nn.relu(affine(up, x))) / blocks
        return affine(params["out"], x)

    return Model("residual", init, apply)


def cnn(channels: Sequence[int] = (1, 16, 32), classes: int = 10, size: int = 8) -> Model:
    """3x3 convolutions, relu and 2x2 max pooling: (batch, size, size, 1) -> (batch, classes)."""
    side = size // 2 ** (len(channels) - 1)

    def init(key):
        *keys, last = random.split(key, len(channels))
        filters = [
            {"W": random.normal(k, (3, 3, a, b)) / math.sqrt(9 * a), "b": jnp.zeros(b)}
            for k, a, b in zip(keys, channels, channels[1:])
        ]
        return {"filters": filters, "out": dense(last, side * side * channels[-1], classes)}

    def apply(params, x):
        for layer in params["filters"]:
            x = lax.conv_general_dilated(
                x, layer["W"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.relu(x + layer["b"])
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return affine(params["out"], x.reshape(len(x), -1))

    return Model("convolutional", init, apply)


def rnn(n_in: int, units: int, n_out: int) -> Model:
    """h_t = tanh(W [x_t, h_{t-1}] + b), read at every step.

    (batch, T, n_in) -> (batch, T, n_out).
    """

    def init(key):
        a, b = random.split(key)
        return {"cell": dense(a, n_in + units, units), "out": dense(b, units, n_out)}

    def apply(params, x):
        def step(h, x):
            h = jnp.tanh(affine(params["cell"], jnp.concatenate([x, h], -1)))
            return h, affine(params["out"], h)

        return over_time(step, jnp.zeros((len(x), units), x.dtype), x)

    return Model("recurrent", init, apply)


def lstm(n_in: int, units: int, n_out: int) -> Model:
    """Memory cells with input, forget and output gates (Hochreiter & Schmidhuber 1997).

    (batch, T, n_in) -> (batch, T, n_out).
    """

    def init(key):
        a, b = random.split(key)
        return {"cell": dense(a, n_in + units, 4 * units), "out": dense(b, units, n_out)}

    def apply(params, x):
        def step(state, x):
            h, c = state
            i, f, o, g = jnp.split(affine(params["cell"], jnp.concatenate([x, h], -1)), 4, -1)
            c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), affine(params["out"], h)

        zero = jnp.zeros((len(x), units), x.dtype)
        return over_time(step, (zero, zero), x)

    return Model("LSTM", init, apply)


def over_time(step, state, x):
    """Scan `step` over the second axis of `x`."""
    return jnp.swapaxes(lax.scan(step, state, jnp.swapaxes(x, 0, 1))[1], 0, 1)


def transformer(
    tokens: int, length: int, width: int = 32, heads: int = 2, layers: int = 2
) -> Model:
    """A causal transformer with layer norm; one table of tokens reads them in and out.

    (batch, T) integers -> (batch, T, tokens), T at most `length`.
    """

    def init(key):
        table, places, *keys = random.split(key, 2 + 4 * layers)
        return {
            "tokens": random.normal(table, (tokens, width)) / math.sqrt(width),
            "places": random.normal(places, (length, width)) / math.sqrt(width),
            "layers": [
                {
                    "attend": dense(k[0], width, 3 * width),
                    "mix": dense(k[1], width, width),
                    "up": dense(k[2], width, 4 * width),
                    "down": dense(k[3], 4 * width, width),
                    "scale": jnp.ones((2, width)),
                }
                for k in zip(*[iter(keys)] * 4)
            ],
            "scale": jnp.ones(width),
        }

    def norm(scale, x):
        x = x - x.mean(-1, keepdims=True)
        return scale * x * lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-5)

    def attention(layer, x):
        q, k, v = jnp.moveaxis(affine(layer["attend"], x).reshape(*x.shape[:2], 3, heads, -1), 2, 0)
        scores = jnp.einsum("bthd,bshd->bhts", q, k) / math.sqrt(width / heads)
        scores = jnp.where(jnp.tri(x.shape[1], dtype=bool), scores, -jnp.inf)
        mixed = jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores), v)
        return affine(layer["mix"], mixed.reshape(x.shape))

    def apply(params, x):
        x = params["tokens"][x] + params["places"][: x.shape[1]]
        for layer in params["layers"]:
            x = x + attention(layer, norm(layer["scale"][0], x))
            x = x + affine(
                layer["down"], jax.nn.gelu(affine(layer["up"], norm(layer["scale"][1], x)))
            )
        return norm(params["scale"], x) @ params["tokens"].T

    return Model("transformer", init, apply)
