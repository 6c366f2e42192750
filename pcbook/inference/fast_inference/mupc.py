"""A residual network that can be deep, with the scalings of muPC (Innocenti et al. 2025).

    x_1 = W_1 x / sqrt(n_in) + e_1,
    x_l = x_{l-1} + W_l phi(x_{l-1}) / sqrt(N L) + e_l,        mu_L = W_L x_{L-1} / N,

with N units in each of the layers 1..L-1. The hidden weights are one array
(L - 2, N, N), and a scan goes through them.
"""

import math
from functools import cache
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import lax, random
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from pcbook.core.arguments import Allowed, Count, Positive, checked
from pcbook.core.checks import lookup
from pcbook.core.energy import Energy, define, settle_then_learn
from pcbook.core.models import Model
from pcbook.core.network import ACTIVATIONS, LOSSES
from pcbook.core.rules import Rule

Depth = Annotated[int, Allowed("an integer of at least 3", lambda value: value >= 3)]


@checked
def residual(
    n_in: Count, width: Count, depth: Depth, n_out: Count, activation: str = "identity"
) -> Model:
    """A residual network of `depth` weight layers with weights ~ N(0, 1).

    Raises ValueError for depth < 3 or an unknown activation.
    """
    lookup(ACTIVATIONS, activation=activation)
    shapes = {"first": (width, n_in), "hidden": (depth - 2, width, width), "last": (n_out, width)}

    def init(key):
        keys = random.split(key, len(shapes))
        return {name: random.normal(k, shape) for k, (name, shape) in zip(keys, shapes.items())}

    return Model("residual, muPC", init, _output(activation))


@checked
def residual_activities(
    params: dict,
    x: Float[Array, "batch n_in"],
    es: Float[Array, "layers batch width"] | Float[Array, " layers"],
    activation: str = "identity",
) -> Float[Array, "layers batch width"]:
    """The activities x_1..x_{L-1} whose errors are `es`."""

    def block(below, layer):
        W, e = layer
        return (above := _above(below, W, depth, activation) + e), above

    depth = len(params["hidden"]) + 2
    first = _first(params, x) + es[0]
    return jnp.concatenate([first[None], lax.scan(block, first, (params["hidden"], es[1:]))[1]])


@cache
def _output(activation: str):
    """The output mu_L of the forward pass, where all errors are zero."""

    def output(params, x):
        es = jnp.zeros(len(params["hidden"]) + 1)
        return _last(params, residual_activities(params, x, es, activation)[-1])

    return output


@checked
@cache
def residual_energy(activation: str = "identity") -> Energy:
    """The energy of predictive coding with the errors e_1..e_{L-1} as its state.

    The state is (layers, batch, width), and the loss the squared error. Raises ValueError for an
    unknown activation.
    """
    lookup(ACTIVATIONS, activation=activation)
    loss = LOSSES["squared error"]

    def value(params, es, clamps):
        top = residual_activities(params, clamps.x, es, activation)[-1]
        return (es**2).sum((0, 2)) / 2 + loss(_last(params, top), clamps.y)

    def start(params, clamps):
        depth, width = len(params["hidden"]) + 2, len(params["first"])
        return jnp.zeros((depth - 1, len(clamps.x), width), clamps.x.dtype)

    def update(params, es, clamps):
        xs = residual_activities(params, clamps.x, es, activation)

        def local(params):
            above = _above(xs[:-1], params["hidden"], len(xs) + 1, activation)
            mus = jnp.concatenate([_first(params, clamps.x)[None], above])
            return ((xs - mus) ** 2).sum() / 2 + loss(_last(params, xs[-1]), clamps.y).sum()

        return jax.tree.map(lambda g: g / len(clamps.x), jax.grad(local)(params))

    return define(value, start, update=update)


@checked
@cache
def residual_rule(steps: Count = 8, rate: Positive = 0.3, activation: str = "tanh") -> Rule:
    """Train a residual network by predictive coding: `steps` of gradient descent in the errors.

    Raises ValueError for steps < 1, rate <= 0 or an unknown activation.
    """
    lookup(ACTIVATIONS, activation=activation)
    return settle_then_learn(
        f"predictive coding, {steps} steps of {rate:g}",
        residual_energy(activation),
        _output(activation),
        LOSSES["squared error"],
        steps=steps,
        rate=rate,
    )


def _first(params, x):
    """The prediction of layer 1."""
    return checkpoint_name(x @ params["first"].T / math.sqrt(x.shape[1]), "activity")


def _above(x, W, depth, activation):
    """The prediction of the next layer: x + W phi(x) / sqrt(N L)."""
    step = (
        lookup(ACTIVATIONS, activation=activation)(x)
        @ jnp.swapaxes(W, -1, -2)
        / math.sqrt(W.shape[-1] * depth)
    )
    return checkpoint_name(x + step, "activity")


def _last(params, x):
    """The prediction of the output."""
    return x @ params["last"].T / x.shape[-1]
