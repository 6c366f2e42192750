"""Models: a pair of pure functions for each kind of network that a rule can train.

`init(key)` draws the parameters, a pytree, and `apply(params, x)` is the output of a batch.
The multilayer network of the book is one of them, `mlp`; convolution, recurrence, gates and
attention are others. All hold their weights in the one layout of `network.Layer`,
W (n_out, n_in); a filter is (n_out, n_in, height, width).
"""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax, random

from pcbook.core.arguments import Allowed, Count, checked
from pcbook.core.network import Layer, Named, Sizes, init, predict, predictor
from pcbook.core.pickling import picklable

Channels = Annotated[
    Sequence[Count], Allowed("at least the channels of the images", lambda n: len(n) > 0)
]


class Model(NamedTuple):
    """A network: `init(key)` makes `params`, `apply(params, x)` the output of a batch."""

    name: str
    init: Callable[..., Any]
    apply: Callable[..., Any]


def _dense(key, n_in: int, n_out: int) -> Layer:
    """A layer with weights W ~ N(0, 1/n_in), (n_out, n_in), and a bias of zero."""
    return Layer(random.normal(key, (n_out, n_in)) / math.sqrt(n_in), jnp.zeros(n_out))


@checked
@picklable
def mlp(sizes: Sizes, activation: Named = "tanh") -> Model:
    """The multilayer network of `pcbook.network`: (batch, n_0) -> (batch, n_L).

    Raises ValueError for fewer than two layers, an empty one, or an unknown activation.
    """
    return Model("multilayer", lambda key: init(key, sizes), predictor(activation))


@checked
@picklable
def residual(n_in: Count, width: Count, blocks: Count, n_out: Count) -> Model:
    """Blocks x + W' relu(W x) on a stream of `width` units: (batch, n_in) -> (batch, n_out)."""

    def init(key):
        first, last, *keys = random.split(key, 2 + 2 * blocks)
        inner = [
            (_dense(a, width, width), _dense(b, width, width))
            for a, b in zip(keys[::2], keys[1::2])
        ]
        return {
            "in": _dense(first, n_in, width),
            "blocks": inner,
            "out": _dense(last, width, n_out),
        }

    def apply(params, x):
        x = predict(params["in"], x)
        for up, down in params["blocks"]:
            x = x + predict(down, jax.nn.relu(predict(up, x))) / blocks
        return predict(params["out"], x)

    return Model("residual", init, apply)


@checked
@picklable
def cnn(channels: Channels = (1, 16, 32), classes: Count = 10, size: Count = 8) -> Model:
    """3x3 convolutions, relu and 2x2 max pooling: images -> (batch, classes).

    Images are (batch, size, size, channels), or flattened to rows of pixels. Raises ValueError
    for a size that is less than a pixel when it has been halved for each layer.
    """
    side = size // 2 ** (len(channels) - 1)
    if side < 1:
        raise ValueError(
            f"size = {size}: must be at least {2 ** (len(channels) - 1)}, to be halved "
            f"{len(channels) - 1} times"
        )

    def init(key):
        *keys, last = random.split(key, len(channels))
        filters = [
            Layer(random.normal(k, (b, a, 3, 3)) / math.sqrt(9 * a), jnp.zeros(b))
            for k, a, b in zip(keys, channels, channels[1:])
        ]
        return {"filters": filters, "out": _dense(last, side * side * channels[-1], classes)}

    def apply(params, x):
        params, x = _promoted(params, x.reshape(len(x), size, size, channels[0]))
        for layer in params["filters"]:
            x = lax.conv_general_dilated(
                x, layer.W, (1, 1), "SAME", dimension_numbers=("NHWC", "OIHW", "NHWC")
            )
            x = jax.nn.relu(x + layer.b)
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return predict(params["out"], x.reshape(len(x), -1))

    return Model("convolutional", init, apply)


@checked
@picklable
def rnn(n_in: Count, units: Count, n_out: Count) -> Model:
    """h_t = tanh(W [x_t, h_{t-1}] + b), read at every step.

    (batch, T, n_in) -> (batch, T, n_out).
    """

    def init(key):
        a, b = random.split(key)
        return {"cell": _dense(a, n_in + units, units), "out": _dense(b, units, n_out)}

    def apply(params, x):
        def step(h, x):
            h = jnp.tanh(predict(params["cell"], jnp.concatenate([x, h], -1)))
            return h, predict(params["out"], h)

        params, x = _promoted(params, x)
        return _over_time(step, jnp.zeros((len(x), units), x.dtype), x)

    return Model("recurrent", init, apply)


@checked
@picklable
def lstm(n_in: Count, units: Count, n_out: Count) -> Model:
    """Memory cells with input, forget and output gates (Hochreiter & Schmidhuber 1997).

    (batch, T, n_in) -> (batch, T, n_out).
    """

    def init(key):
        a, b = random.split(key)
        return {"cell": _dense(a, n_in + units, 4 * units), "out": _dense(b, units, n_out)}

    def apply(params, x):
        def step(state, x):
            h, c = state
            i, f, o, g = jnp.split(predict(params["cell"], jnp.concatenate([x, h], -1)), 4, -1)
            c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), predict(params["out"], h)

        params, x = _promoted(params, x)
        zero = jnp.zeros((len(x), units), x.dtype)
        return _over_time(step, (zero, zero), x)

    return Model("LSTM", init, apply)


def _promoted(params, x):
    """Parameters and inputs in their common type of floats, as convolutions and loops need it."""
    common = jnp.result_type(x, *jax.tree.leaves(params))
    return jax.tree.map(lambda leaf: leaf.astype(common), (params, x))


def _over_time(step, state, x):
    """Scan `step` over the second axis of `x`."""
    return jnp.swapaxes(lax.scan(step, state, jnp.swapaxes(x, 0, 1))[1], 0, 1)


@checked
@picklable
def transformer(
    tokens: Count, length: Count, width: Count = 32, heads: Count = 2, layers: Count = 2
) -> Model:
    """A causal transformer with layer norm; one table of tokens reads them in and out.

    (batch, T) integers -> (batch, T, tokens), T at most `length`. Raises ValueError unless
    `heads` divides `width`.
    """
    if width % heads:
        raise ValueError(f"heads = {heads}: must divide {width}, the width")

    def init(key):
        table, places, *keys = random.split(key, 2 + 4 * layers)
        return {
            "tokens": random.normal(table, (tokens, width)) / math.sqrt(width),
            "places": random.normal(places, (length, width)) / math.sqrt(width),
            "layers": [
                {
                    "attend": _dense(k[0], width, 3 * width),
                    "mix": _dense(k[1], width, width),
                    "up": _dense(k[2], width, 4 * width),
                    "down": _dense(k[3], 4 * width, width),
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
