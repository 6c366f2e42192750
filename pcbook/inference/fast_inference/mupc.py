"""A residual network that can be deep, with the scalings of muPC (Innocenti et al. 2025).

    x_1 = W_1 x / sqrt(n_in) + e_1,
    x_l = x_{l-1} + W_l phi(x_{l-1}) / sqrt(N L) + e_l,        mu_L = W_L x_{L-1} / N,

with N units in each of the layers 1..L-1. The hidden weights are one array
(L - 2, N, N), and a scan goes through them.
"""

import math
from functools import cache
from numbers import Integral

import jax
import jax.numpy as jnp
from jax import lax, random
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Key

from pcbook.core import network
from pcbook.core.network import ACTIVATIONS, LOSSES
from pcbook.core.rules import Rule, stateless


def residual_init(key: Key[Array, ""], n_in: int, width: int, depth: int, n_out: int) -> dict:
    """Draw the weights ~ N(0, 1) of a residual network of `depth` weight layers.

    Raises ValueError for depth < 3.
    """
    if depth < 3:
        raise ValueError(f"depth = {depth}: must be at least 3")
    shapes = {"first": (width, n_in), "hidden": (depth - 2, width, width), "last": (n_out, width)}
    keys = random.split(key, len(shapes))
    return {name: random.normal(k, shape) for k, (name, shape) in zip(keys, shapes.items())}


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


def residual_output(params: dict, x: Float[Array, "batch n_in"], activation: str = "identity"):
    """The output mu_L of the forward pass, where all errors are zero."""
    xs = residual_activities(params, x, jnp.zeros(len(params["hidden"]) + 1), activation)
    return _last(params, xs[-1])


def residual_loss(params: dict, x, y, activation: str = "identity") -> Float[Array, ""]:
    """Squared error of `residual_output`, summed over the batch as `graph` needs it."""
    return LOSSES["squared error"](residual_output(params, x, activation), y).sum()


@cache
def residual_rule(steps: int = 8, rate: float = 0.3, activation: str = "tanh") -> Rule:
    """Train a residual network by predictive coding: `steps` of gradient descent in the errors.

    Raises ValueError for steps < 1 or rate <= 0.
    """
    network.check_number(
        "an integer of at least 1", lambda n: isinstance(n, Integral) and n >= 1, steps=steps
    )
    network.check_positive(rate=rate)
    loss = LOSSES["squared error"]

    def gradient(params, state, x, y, key):
        depth, (_, width) = len(params["hidden"]) + 2, params["first"].T.shape

        def energy(es):
            top = residual_activities(params, x, es, activation)[-1]
            return (es**2).sum() / 2 + loss(_last(params, top), y).sum()

        def step(es, _):
            return es - rate * jax.grad(energy)(es), None

        es, _ = lax.scan(step, jnp.zeros((depth - 1, len(x), width)), length=steps)
        xs = residual_activities(params, x, es, activation)

        def local(params):
            above = _above(xs[:-1], params["hidden"], depth, activation)
            mus = jnp.concatenate([_first(params, x)[None], above])
            return ((xs - mus) ** 2).sum() / 2 + loss(_last(params, xs[-1]), y).sum()

        update = jax.tree.map(lambda g: g / len(x), jax.grad(local)(params))
        return residual_loss(params, x, y, activation) / len(x), update, state

    def predict(params, x):
        return residual_output(params, x, activation)

    return Rule(f"predictive coding, {steps} steps of {rate:g}", stateless, gradient, predict)


def _first(params, x):
    """The prediction of layer 1."""
    return checkpoint_name(x @ params["first"].T / math.sqrt(x.shape[1]), "activity")


def _above(x, W, depth, activation):
    """The prediction of the next layer: x + W phi(x) / sqrt(N L)."""
    step = ACTIVATIONS[activation](x) @ jnp.swapaxes(W, -1, -2) / math.sqrt(W.shape[-1] * depth)
    return checkpoint_name(x + step, "activity")


def _last(params, x):
    """The prediction of the output."""
    return x @ params["last"].T / x.shape[-1]
