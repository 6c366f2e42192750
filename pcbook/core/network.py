"""The multilayer network that every learning rule of the book trains.

Layers are numbered l = 0..L. Each predicts the activity of the next,

    mu_l = W_l phi(x_{l-1}) + b_l,        phi the identity on the input x_0,

and the forward pass sets every activity to its prediction, x_l = mu_l. So an
activity is what enters a neuron; its nonlinearity phi acts when the next layer reads
it. Arrays are (batch, features), and W_l is (n_l, n_{l-1}).

Conventions: book/conventions.md
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from pcbook.core.arguments import Allowed, Count, checked
from pcbook.core.checks import check_width, lookup
from pcbook.core.pickling import picklable

__all__ = [
    "ACTIVATIONS",
    "LOSSES",
    "Function",
    "Layer",
    "Params",
    "activities",
    "firing",
    "forward",
    "init",
    "predict",
    "predictor",
]


class Layer(NamedTuple):
    """The synapses that predict one layer: weights `W` (n_l, n_{l-1}) and biases `b` (n_l,).

    A layer without biases has `b` None.
    """

    W: Float[Array, "n_out n_in"]
    b: Float[Array, " n_out"] | None


def _is_chain(layers: Sequence[Layer]) -> bool:
    """Whether there are layers, and each reads as many units as the one below has."""
    return len(layers) > 0 and all(len(a.W) == b.W.shape[1] for a, b in pairwise(layers))


Params = Annotated[
    list[Layer], Allowed("layers of which each reads as many units as the last has", _is_chain)
]
Sizes = Annotated[
    Sequence[Count], Allowed("two or more layers of at least one unit", lambda n: len(n) > 1)
]
Activities = list[Float[Array, "batch _"]]
Named = str | Callable[..., Array]  # a function, or the name of one in a table


class Function(NamedTuple):
    """A function with its name and its slope: the derivative in its first argument, by hand."""

    name: str
    value: Callable[..., Array]
    slope: Callable[..., Array]

    def __call__(self, *args):
        return self.value(*args)

    def __reduce__(self):
        """One of a table is pickled by its name."""
        named = (ACTIVATIONS | LOSSES).get(self.name) is self
        return (_known, (self.name,)) if named else (Function, tuple(self))


def _known(name: str) -> Function:
    return (ACTIVATIONS | LOSSES)[name]


def _by_name(*functions: Function) -> dict[str, Function]:
    return {function.name: function for function in functions}


ACTIVATIONS = _by_name(
    Function("identity", lambda x: x, jnp.ones_like),
    Function("tanh", jnp.tanh, lambda x: 1 - jnp.tanh(x) ** 2),
    Function("sigmoid", jax.nn.sigmoid, lambda x: jax.nn.sigmoid(x) * (1 - jax.nn.sigmoid(x))),
    Function("relu", jax.nn.relu, lambda x: jnp.where(x > 0, 1.0, 0.0).astype(x.dtype)),
    Function(
        "leaky relu", jax.nn.leaky_relu, lambda x: jnp.where(x >= 0, 1.0, 0.01).astype(x.dtype)
    ),
)

# The loss of each sample: prediction (batch, n), target (batch, n) -> (batch,).
LOSSES = _by_name(
    Function("squared error", lambda mu, y: ((y - mu) ** 2).sum(-1) / 2, lambda mu, y: mu - y),
    Function(
        "cross entropy",
        lambda mu, y: -(y * jax.nn.log_softmax(mu)).sum(-1),
        lambda mu, y: jax.nn.softmax(mu) * y.sum(-1, keepdims=True) - y,
    ),
)


@checked
def find_activation(activation: Named) -> Function:
    """The activation of that name, or a function of each element alone, with its slope.

    A `Function` brings its slope along; that of any other is its derivative by JAX. Raises
    ValueError for an unknown name, or a function that mixes elements.
    """
    if isinstance(activation, str):
        return lookup(ACTIVATIONS, activation=activation)
    return _as_activation(activation)


@checked
def find_loss(loss: Named) -> Function:
    """The loss of that name, or a function `loss(mu, y)` -> (batch,), with its slope in mu.

    A `Function` brings its slope along; that of any other is its gradient by JAX. Raises
    ValueError for an unknown name, and, where it is used, for a loss of another shape.
    """
    return lookup(LOSSES, loss=loss) if isinstance(loss, str) else _as_loss(loss)


@cache
def _as_activation(function: Callable[..., Array]) -> Function:
    for known in ACTIVATIONS.values():
        if function in (known, known.value):
            return known
    _check_elementwise(function)
    if isinstance(function, Function):
        return function
    slope = lambda x: jax.jvp(function, (x,), (jnp.ones_like(x),))[1]  # noqa: E731
    return Function(getattr(function, "__name__", "activation"), function, slope)


def _check_elementwise(activation: Callable[..., Array]) -> None:
    with jax.ensure_compile_time_eval():
        x = jnp.array([[0.3, -0.7, 1.1]])
        together, alone = activation(x), [activation(x[:, i : i + 1]) for i in range(x.shape[1])]
        mixes = together.shape != x.shape or not jnp.allclose(together, jnp.hstack(alone))
    if mixes:
        raise ValueError(f"activation = {activation!r}: must act on each element alone")


@cache
def _as_loss(function: Callable[..., Array]) -> Function:
    def value(mu, y):
        loss = function(mu, y)
        if loss.shape != mu.shape[:-1]:
            raise ValueError(
                f"loss returns the shape {loss.shape}: must be {mu.shape[:-1]}, one a sample"
            )
        return loss

    for known in LOSSES.values():
        if function in (known, known.value):
            return known
    if isinstance(function, Function):
        return function
    slope = jax.grad(lambda mu, y: value(mu, y).sum())
    return Function(getattr(function, "__name__", "loss"), value, slope)


@checked
def init(key: Key[Array, ""], sizes: Sizes) -> Params:
    """Draw a network with layers of `sizes` units: W ~ N(0, 1/n_{l-1}), b = 0.

    The scale keeps the variance of an activity the same from layer to layer
    (LeCun et al. 1998, sec. 4.6). Raises ValueError unless there are two layers or
    more, of one unit or more.
    """
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        Layer(jax.random.normal(k, (n_out, n_in)) / math.sqrt(n_in), jnp.zeros(n_out))
        for k, n_in, n_out in zip(keys, sizes[:-1], sizes[1:])
    ]


@checked
def firing(xs: Activities, activation: Named = "tanh") -> Activities:
    """What the layers above read: the input x_0 itself, and phi(x_l) from there on."""
    phi = find_activation(activation)
    return [xs[0], *(phi(x) for x in xs[1:])]


@checked
def predict(layer: Layer, r: Float[Array, "*batch n_in"]) -> Float[Array, "*batch n_out"]:
    """The prediction mu = W r + b that a layer makes from the firing `r` below it."""
    mu = r @ layer.W.T
    return mu if layer.b is None else mu + layer.b


def as_float(array: Array, params: Params) -> Array:
    """An array of integers or truth values as numbers of the type of the weights."""
    inexact = jnp.issubdtype(jnp.result_type(array), jnp.inexact)
    return array if inexact else jnp.asarray(array, params[0].W.dtype)


@checked
def activities(
    params: Params, x: Float[Array, "batch n_0"], activation: Named = "tanh"
) -> Activities:
    """Forward pass: the activities x_0..x_L, each set to its prediction.

    Raises ValueError if `x` does not fit the first layer, or for an unknown activation.
    """
    phi = find_activation(activation)
    check_width("x", x, params[0].W.shape[1], "input")
    xs = [x, predict(params[0], x)]
    for layer in params[1:]:
        xs.append(predict(layer, phi(xs[-1])))
    return xs


@checked
def forward(
    params: Params, x: Float[Array, "batch n_0"], activation: Named = "tanh"
) -> Float[Array, "batch n_L"]:
    """The network's prediction mu_L of its output."""
    return activities(params, x, activation)[-1]


@checked
@cache
@picklable
def predictor(activation: Named):
    """`forward` for one activation: the same function at each call, so JAX compiles it once."""
    find_activation(activation)
    return lambda params, x: forward(params, x, activation)


@checked
def hebbian(delta: Float[Array, "batch n_out"], r: Float[Array, "batch n_in"]) -> Layer:
    """Product of what a synapse's two ends know, `delta` after it and firing `r` before it.

    The mean over the batch of delta r^T for W, and of delta for b.
    """
    return Layer((delta / len(r)).T @ r, delta.mean(0))


def like_biases(params: Params, update: Params) -> Params:
    """The update without the biases that the layers of `params` do not have."""
    return [u if layer.b is not None else u._replace(b=None) for layer, u in zip(params, update)]
