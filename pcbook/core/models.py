"""Models: a pair of pure functions for each kind of network that a rule can train.

`init(key)` draws the parameters, a pytree, and `apply(params, x)` is the output of a batch.
The multilayer network of the book is one of them, `mlp`; convolution, recurrence, gates and
attention are others. All hold their weights in the one layout of `network.Layer`,
W (n_out, n_in); a filter is (n_out, n_in, height, width).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax, random
from jaxtyping import Array, Key

from pcbook.core.network import Layer, check_sizes, init, predict, predictor


class Model(NamedTuple):
    """A network: `init(key)` makes `params`, `apply(params, x)` the output of a batch."""

    name: str
    init: Callable
    apply: Callable


def dense(key: Key[Array, ""], n_in: int, n_out: int) -> Layer:
    """A layer with weights W ~ N(0, 1/n_in), (n_out, n_in), and a bias of zero."""
    return Layer(random.normal(key, (n_out, n_in)) / math.sqrt(n_in), jnp.zeros(n_out))


def mlp(sizes: Sequence[int], activation: str = "tanh") -> Model:
    """The multilayer network of `pcbook.network`: (batch, n_0) -> (batch, n_L).

    Raises ValueError for fewer than two layers, an empty one, or an unknown activation.
    """
    check_sizes(sizes)
    return Model("multilayer", lambda key: init(key, sizes), predictor(activation))


def residual(n_in: int, width: int, blocks: int, n_out: int) -> Model:
    """Blocks x + W' relu(W x) on a stream of `width` units: (batch, n_in) -> (batch, n_out)."""

    def init(key):
        first, last, *keys = random.split(key, 2 + 2 * blocks)
        inner = [
            (dense(a, width, width), dense(b, width, width)) for a, b in zip(keys[::2], keys[1::2])
        ]
        return {"in": dense(first, n_in, width), "blocks": inner, "out": dense(last, width, n_out)}

    def apply(params, x):
        x = predict(params["in"], x)
        for up, down in params["blocks"]:
            x = x + predict(down, jax.nn.relu(predict(up, x))) / blocks
        return predict(params["out"], x)

    return Model("residual", init, apply)


def cnn(channels: Sequence[int] = (1, 16, 32), classes: int = 10, size: int = 8) -> Model:
    """3x3 convolutions, relu and 2x2 max pooling: images -> (batch, classes).

    Images are (batch, size, size, channels), or flattened to rows of pixels.
    """
    side = size // 2 ** (len(channels) - 1)

    def init(key):
        *keys, last = random.split(key, len(channels))
        filters = [
            Layer(random.normal(k, (b, a, 3, 3)) / math.sqrt(9 * a), jnp.zeros(b))
            for k, a, b in zip(keys, channels, channels[1:])
        ]
        return {"filters": filters, "out": dense(last, side * side * channels[-1], classes)}

    def apply(params, x):
        x = x.reshape(len(x), size, size, channels[0])
        for layer in params["filters"]:
            x = lax.conv_general_dilated(
                x, layer.W, (1, 1), "SAME", dimension_numbers=("NHWC", "OIHW", "NHWC")
            )
            x = jax.nn.relu(x + layer.b)
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return predict(params["out"], x.reshape(len(x), -1))

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
            h = jnp.tanh(predict(params["cell"], jnp.concatenate([x, h], -1)))
            return h, predict(params["out"], h)

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
            i, f, o, g = jnp.split(predict(params["cell"], jnp.concatenate([x, h], -1)), 4, -1)
            c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), predict(params["out"], h)

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
        q, k, v = jnp.moveaxis(
            predict(layer["attend"], x).reshape(*x.shape[:2], 3, heads, -1), 2, 0
        )
        scores = jnp.einsum("bthd,bshd->bhts", q, k) / math.sqrt(width / heads)
        scores = jnp.where(jnp.tri(x.shape[1], dtype=bool), scores, -jnp.inf)
        mixed = jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores), v)
        return predict(layer["mix"], mixed.reshape(x.shape))

    def apply(params, x):
        x = params["tokens"][x] + params["places"][: x.shape[1]]
        for layer in params["layers"]:
            x = x + attention(layer, norm(layer["scale"][0], x))
            x = x + predict(
                layer["down"], jax.nn.gelu(predict(layer["up"], norm(layer["scale"][1], x)))
            )
        return norm(params["scale"], x) @ params["tokens"].T

    return Model("transformer", init, apply)
