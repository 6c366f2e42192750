"""Energies: what settles, what is clamped, and what is learned from it.

An energy F(parameters, state, clamps) gives rise to two flows. The state relaxes down F
with the clamps held, and then the parameters take a step down it,

    dx/dt = -dF/dx,        dW ~ -dF/dW    at rest.

Predictive coding, associative memories and Hopfield networks learn like that. Others
compare two states of rest, one nudged towards the target and one nudged away from it, or
free: equilibrium propagation, contrastive Hebbian learning and Boltzmann machines.
"""

from collections.abc import Callable
from functools import cache, partial, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from pcbook.core.relaxation import Number, Settled, relax
from pcbook.core.rules import Rule, stateless


class Clamps(NamedTuple):
    """What is held from outside: the input `x`, and the target `y` with its `precision`.

    With no target, `y` None, the output is free. What is learned from a sample is multiplied
    by its `weight`, (batch,), which does not change where the sample comes to rest.
    """

    x: Any
    y: Any
    precision: Any = 1.0
    weight: Any = None


class Energy(NamedTuple):
    """An energy, and the two flows down it.

    `value(params, state, clamps)` is F of each sample, (batch,), and `start(params, clamps)`
    the state to begin from. `velocity(params, state, clamps)` is -dF/dstate, with None for a
    part of the state that is clamped. `update(params, state, clamps)` is dF/dparams, the mean
    over the batch, for an optimiser to descend. `define` derives what is not given by hand.
    """

    value: Callable[..., Array]
    start: Callable[..., Any]
    velocity: Callable[..., Any]
    update: Callable[..., Any]


def define(
    value: Callable[..., Array],
    start: Callable[..., Any],
    velocity: Callable[..., Any] | None = None,
    update: Callable[..., Any] | None = None,
) -> Energy:
    """An energy whose velocity and update are those given, or else by `jax.grad` of its value."""

    def downhill(params, state, clamps):
        slope = jax.grad(lambda state: value(params, state, clamps).sum())(state)
        return jax.tree.map(lambda s: -s, slope)

    def slope(params, state, clamps):
        def mean(params):
            return weighted(value(params, state, clamps), clamps.weight).mean()

        return jax.grad(mean)(params)

    return Energy(value, start, velocity or downhill, update or slope)


def settle(
    energy: Energy, params: Any, clamps: Clamps, *, start: Any = None, **relaxation
) -> Settled:
    """Relax the state down the energy, from `start` or the energy's own.

    The other arguments, `steps`, `rate`, `tolerance` and `trajectory`, are those of `relax`.
    """
    start = energy.start(params, clamps) if start is None else start
    return relax(lambda state: energy.velocity(params, state, clamps), start, **relaxation)


def settle_then_learn(
    name: str,
    energy: Energy,
    predict: Callable[..., Array],
    loss: Callable[..., Array] | None = None,
    *,
    precision: Any = 1.0,
    sample_weight: Callable[..., Array] | None = None,
    **relaxation,
) -> Rule:
    """The rule that settles with input and target clamped, and learns where it comes to rest.

    It returns the mean of `loss(prediction, y)` for the prediction made before the target was
    seen, or without a loss the mean energy at rest. With `sample_weight(x, y)` -> (batch,),
    loss and update are means of the samples times their weights. The other arguments are
    those of `relax`.
    """

    def gradient(params, state, x, y, key):
        clamps = Clamps(x, y, precision, weigh(sample_weight, x, y))
        rest = settle(energy, params, clamps, **relaxation).state
        value = energy.value(params, rest, clamps) if loss is None else loss(predict(params, x), y)
        value = weighted(value, clamps.weight).mean()
        return value, energy.update(params, rest, clamps), state

    return Rule(name, stateless, gradient, predict)


def contrast(
    name: str,
    energy: Energy,
    predict: Callable[..., Array],
    loss: Callable[..., Array],
    *,
    nudged: Callable[..., Clamps],
    nudge: Number,
    symmetric: bool = True,
    sample_weight: Callable[..., Array] | None = None,
    **relaxation,
) -> Rule:
    """The rule that learns from the difference between two states of rest.

        dW ~ [dF/dW(beta) - dF/dW(-beta)] / (2 beta),    or [dF/dW(beta) - dF/dW(0)] / beta

    unless it is `symmetric`. `nudged(x, y, beta)` are the clamps of a phase that is nudged
    towards the target by beta. The other arguments are those of `settle_then_learn`.
    """
    betas = (nudge, -nudge if symmetric else 0.0)

    def phase(params, x, y, beta):
        clamps = nudged(x, y, beta)._replace(weight=weigh(sample_weight, x, y))
        return energy.update(params, settle(energy, params, clamps, **relaxation).state, clamps)

    def gradient(params, state, x, y, key):
        towards, away = map(partial(phase, params, x, y), betas)
        update = jax.tree.map(lambda a, b: (a - b) / (betas[0] - betas[1]), towards, away)
        value = weighted(loss(predict(params, x), y), weigh(sample_weight, x, y))
        return value.mean(), update, state

    return Rule(name, stateless, gradient, predict)


def weigh(sample_weight: Callable[..., Array] | None, x, y) -> Array | None:
    """The weight of each sample, (batch,). Raises ValueError for weights of another shape."""
    if sample_weight is None:
        return None
    weight = sample_weight(x, y)
    if jnp.shape(weight) != (len(x),):
        raise ValueError(
            f"sample_weight returns the shape {jnp.shape(weight)}: must be ({len(x)},), "
            "one a sample"
        )
    return weight


def weighted(values, weight):
    """The values of the samples times their weights, if they have any."""
    return values if weight is None else weight * values


def cache_hashable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Cache `function`, except for a call with what has no hash, such as an array or a list."""
    cached = cache(function)

    @wraps(function)
    def call(*args, **kwargs):
        try:
            hash((args, tuple(kwargs.values())))
        except TypeError:
            return function(*args, **kwargs)
        return cached(*args, **kwargs)

    return call
