"""The recurrent network, what its activity costs, and the gradient of that cost."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax, random
from jaxtyping import Array, Float, Key

from pcbook.core.arguments import Count, checked
from pcbook.core.checks import check_alike, lookup
from pcbook.core.network import Function
from pcbook.emergence.energy_efficiency.arrays import Numbers, Steps, Weights


class Network(NamedTuple):
    """A recurrent network whose units are driven by pixels.

    `init(key, pixels)` draws the parameters. `step(params, state, x, transmit)` takes the
    network one image further and returns the preactivations (batch, units), the pixels' own
    units first, and the new state; the state before the first image is `rest(params, batch)`.
    What the units send is multiplied by `transmit`, 0 for a lesioned one.
    `gradient(params, x, loss)` is that of the loss, by hand; where it is None, JAX finds it.
    """

    name: str
    init: Callable[..., Any]
    rest: Callable[..., Any]
    step: Callable[..., tuple[Array, Any]]
    gradient: Callable[..., tuple[Array, Any]] | None = None


@checked
def init(key: Key[Array, ""], pixels: Count) -> Weights:
    """Weights between -1 and 1 over the root of the number of units, all equally likely."""
    bound = pixels**-0.5
    return random.uniform(key, (pixels, pixels), minval=-bound, maxval=bound)


@checked
def preactivations(W: Weights, x: Steps, transmit: Float[Numbers, "..."] | float = 1.0) -> Steps:
    """What enters each unit, a_t = h_{t-1} W + x_t: the prediction from within plus the image.

    `transmit` multiplies what each unit sends to the others: 0 silences it.
    """
    a = [jnp.asarray(x[0])]
    for x_t in x[1:]:
        a.append((jax.nn.relu(a[-1]) * transmit) @ W + x_t)
    return jnp.stack(a)


@checked
def drive(W: Weights, x: Steps) -> Steps:
    """What the network sends to its own units before each image: a_t - x_t = h_{t-1} W."""
    return preactivations(W, x) - x


def _fires(a):
    return (a > 0).astype(a.dtype)


# What a unit's preactivation costs, and its slope, by the name of the loss.
COSTS = {
    "pre": Function("|a|", jnp.abs, jnp.sign),
    "post": Function("h", jax.nn.relu, _fires),
    "post+weights": Function("h", jax.nn.relu, _fires),
}
_WEIGHT_COST = {"pre": 0.0, "post": 0.0, "post+weights": 3708.0}


@checked
def energy(
    a: Steps | Sequence[Float[Array, "batch all_units"]], params, loss: str = "pre"
) -> Float[Array, ""]:
    """The loss: the mean cost of a unit, summed over the steps of `a`.

    "pre" mean|a|; "post" mean|h|; "post+weights" mean|h| + 3708 mean(W^2). Raises ValueError
    for any other.
    """
    cost = lookup(COSTS, loss=loss)
    total = sum(cost(a_t).mean() for a_t in a)
    if weight := _WEIGHT_COST[loss]:
        total += weight * len(a) * sum((W**2).mean() for W in jax.tree.leaves(params))
    return total


@checked
def gradient(
    W: Weights, x: Steps, loss: str = "pre"
) -> tuple[Float[Array, ""], Float[Array, "units units"]]:
    """The loss and dLoss/dW, by backprop through time, written by hand.

    With c the cost of a unit, the blame of a preactivation is its own cost and what it does
    to the next step,

        delta_t = c'(a_t) / (batch units) + (delta_{t+1} W^T) * relu'(a_t),
        dLoss/dW = sum_t h_{t-1}^T delta_t,

    and that sum over steps and batch is one matrix product. Samples stand in columns here,
    in which order a CPU multiplies fastest; `_once` keeps XLA from computing an array again
    for each of its uses. Raises ValueError for an unknown loss.
    """
    cost = lookup(COSTS, loss=loss)
    x, W_T = _once(jnp.asarray(x).mT), _once(W.T)
    a, h = [x[0]], []
    for x_t in x[1:]:
        h.append(jax.nn.relu(a[-1]))
        a.append(_once(W_T @ h[-1] + x_t))
    own = [cost.slope(a_t) / a_t.size for a_t in a]
    delta = own[-1:]
    for a_t, own_t in zip(a[-2:0:-1], own[-2:0:-1]):
        delta.insert(0, own_t + (W @ delta[0]) * (a_t > 0))
    dW = jnp.zeros_like(W)
    if h:
        dW = jnp.hstack(h) @ jnp.hstack(delta).T
    if weight := _WEIGHT_COST[loss]:
        dW += weight * len(a) * 2 * W / W.size
    return energy(a, W, loss), dW


_once = lax.optimization_barrier


def _rest(W, batch):
    return jnp.zeros((batch, len(W)))


def _step(W, h, x, transmit):
    a = (h * transmit) @ W + x
    return a, jax.nn.relu(a)


RECURRENT = Network("recurrent", init, _rest, _step, gradient)


@checked
def run(
    network: Network, params, x: Steps, transmit: Float[Numbers, "..."] | float = 1.0
) -> Float[Array, "steps batch all_units"]:
    """The preactivations of any network; `preactivations` is the main network's, unrolled."""
    expected = jax.eval_shape(partial(network.init, pixels=x.shape[2]), random.key(0))
    check_alike(f"the network {network.name!r}", expected, params=params)

    def step(state, x_t):
        a, state = network.step(params, state, x_t, transmit)
        return state, a

    return lax.scan(step, network.rest(params, x.shape[1]), x)[1]
