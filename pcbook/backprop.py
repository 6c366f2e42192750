"""Backprop: who is to blame, and by how much?

The loss is a function of the last layer, yet every synapse must change. Backprop
passes the blame down through the same weights that passed the activity up,

    delta_L = dLoss/dmu_L,        delta_l = (delta_{l+1} W_{l+1}) * phi'(x_l),
    dLoss/dW_l = delta_l r_{l-1}^T,        r_0 = x_0,  r_l = phi(x_l)

(Rumelhart, Hinton & Williams 1986, eqs. 4 to 7). The update of a synapse is the
product of what its two ends know, but delta had to travel: through a transpose, in a
phase of its own, while every layer waits.

Chapter: book/foundations/backprop.ipynb
"""

import jax
from jaxtyping import Array, Float

from pcbook.network import (
    ACTIVATIONS,
    LOSSES,
    Activities,
    Layer,
    Params,
    activities,
    check_width,
    firing,
    forward,
    hebbian,
)
from pcbook.rules import Rule, stateless


def rule(activation: str = "tanh", loss: str = "squared error") -> Rule:
    """Learn by backprop: up with the activity, down with the blame, then update.

    Raises ValueError for an unknown activation or loss.
    """
    ACTIVATIONS[activation]
    output_loss = LOSSES[loss]

    def gradient(params, state, x, y, key):
        xs = activities(params, x, activation)
        check_width("y", y, xs[-1].shape[1], "output")
        ds = deltas(params, xs, output_loss.slope(xs[-1], y), activation)
        return output_loss(xs[-1], y).mean(), weight_gradients(xs, ds, activation), state

    return Rule("backprop", stateless, gradient, lambda params, x: forward(params, x, activation))


def deltas(params: Params, xs: Activities, delta: Float[Array, "batch n_L"], activation: str = "tanh") -> Activities:
    """Backward pass: the blame dLoss/dx_l of the layers l = 1..L, given that of the output."""
    phi = ACTIVATIONS[activation]
    ds = [delta]
    for layer, x in zip(params[:0:-1], xs[-2:0:-1], strict=True):
        ds.insert(0, (ds[0] @ layer.W) * phi.slope(x))
    return ds


def weight_gradients(xs: Activities, ds: Activities, activation: str = "tanh") -> list[Layer]:
    """dLoss/dW_l and dLoss/db_l, means over the batch: the blame above times the firing below."""
    return [hebbian(d, r) for d, r in zip(ds, firing(xs[:-1], activation), strict=True)]


def cost(function, *args) -> dict[str, float]:
    """What a call of `function` costs, by XLA's own count of the compiled program.

    `flops` are additions and multiplications, `bytes` what is read and written.
    """
    analysis = jax.jit(function).lower(*args).compile().cost_analysis()
    return {"flops": analysis["flops"], "bytes": analysis["bytes accessed"]}
