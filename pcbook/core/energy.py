"""Energies: what settles, what is clamped, and what is learned from it.

An energy F(parameters, state, clamps) gives rise to two flows. The state relaxes down F
with the clamps held, and then the parameters take a step down it,

    dx/dt = -dF/dx,        dW ~ -dF/dW    at rest.

Predictive coding, associative memories and Hopfield networks learn like that. Others
compare two states of rest, one nudged towards the target and one nudged away from it, or
free: equilibrium propagation, contrastive Hebbian learning and Boltzmann machines.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial, wraps
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pcbook.core.arguments import Allowed, Index, Positive, Scalar, Tolerance, checked, not_negative
from pcbook.core.pickling import picklable
from pcbook.core.relaxation import Settled, relax, speed
from pcbook.core.rules import Rule, stateless

__all__ = [
    "Clamps",
    "Energy",
    "Inference",
    "Precision",
    "contrast",
    "define",
    "largest_stable_rate",
    "settle",
    "settle_then_learn",
]

# Of the outputs: one number, or (n_L,) or (batch, n_L), where 0 masks an output. Of all layers: a
# tuple or list with one such entry for each of the layers 1..L.
_Each = Annotated[
    Float[Array, "... _"], Allowed("an array of finite numbers of at least 0", not_negative.holds)
]
Precision = Sequence[Positive | _Each] | Positive | _Each


class Clamps(NamedTuple):
    """What is held from outside: the input `x`, and the target `y` with its `precision`.

    With no target, `y` None, the output is free. What is learned from a sample is multiplied
    by its `weight`, (batch,), which does not change where the sample comes to rest.
    """

    x: Any
    y: Any
    precision: Any = 1.0
    weight: Any = None


class Inference(NamedTuple):
    """What inference found, and how it went.

    `activities` is the state at the end, shaped as the start, after `steps` steps. `energy` and
    `velocity` hold two numbers, of the start and of the end, or one for each moment that was
    recorded: the mean energy of a sample, and the norm of the velocity of all activities.
    `residual` is the velocity at the end as a share of that which the tolerance is of.
    `converged`: every sample came to rest, which is never so without a tolerance. `diverged`:
    the energy of a sample ended above its first value, by over 1% of the largest of the batch,
    or is not finite (in `fast_inference`: the mean energy, by more than rounding). `path` holds
    the state at every moment, if it was asked for; `sweeps` and `distance` are those of
    `fast_inference`.
    """

    activities: Any
    steps: Any
    converged: Any
    diverged: Any
    energy: Any
    velocity: Any
    residual: Any
    path: Any = None
    sweeps: Any = None
    distance: Any = None


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


@checked
@picklable
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


@checked
def settle(
    energy: Energy, params: Any, clamps: Clamps, *, start: Any = None, **relaxation: Any
) -> Settled:
    """Relax the state down the energy, from `start` or the energy's own.

    The other arguments, `steps`, `rate`, `tolerance` and `trajectory`, are those of `relax`.
    """
    start = energy.start(params, clamps) if start is None else start
    return relax(lambda state: energy.velocity(params, state, clamps), start, **relaxation)


def report(settled: Settled, energy: Energy, params: Any, clamps: Clamps, start: Any) -> Inference:
    """How a relaxation down the energy went, from `start` to where it ended."""
    moments = settled.path
    if moments is None:
        moments = jax.tree.map(lambda a, b: jnp.stack([a, b]), start, settled.state)

    def look(state):
        velocity = jax.tree.leaves(energy.velocity(params, state, clamps))
        return energy.value(params, state, clamps), sum((v**2).sum() for v in velocity)

    energies, squares = jax.lax.map(look, moments)
    velocity = jnp.sqrt(squares)
    return Inference(
        settled.state,
        settled.steps,
        settled.converged,
        rose(energies[0], energies[-1], CHATTER).any(),
        energies.mean(1),
        velocity,
        velocity[-1] / jnp.where(velocity[0] > 0, velocity[0], 1),
        settled.path,
    )


ROUNDING = 1e-5  # a rise of the energy, relative to that of all samples, that does not count
CHATTER = 1e-2  # the same of a single sample, which Euler steps leave moving about a kink


def rose(first, last, share=ROUNDING):
    """Whether energies rose by more than a share of the largest at first, or are not finite."""
    eps = jnp.finfo(jnp.result_type(first, float)).eps
    return ~(last <= first + share * jnp.abs(first).max() + eps)


def warn_if_diverged(
    found: Inference, energy: Energy, params: Any, clamps: Clamps, start: Any, rate: Scalar
) -> None:
    """Warn (RuntimeWarning) if inference diverged, with the largest rate that does not.

    Under `jax.jit` and `jax.vmap`, where nobody can be told, it says nothing.
    """
    if isinstance(found.diverged, jax.core.Tracer) or not found.diverged:
        return
    first, last = found.energy[0], found.energy[-1]
    if not jnp.isfinite(first):
        message = f"the energy is {first} at the start: look for it in x, y, params and start"
    else:
        stable = largest_stable_rate(energy, params, clamps, start)
        message = (
            f"inference at rate {rate:g} diverged: the mean energy went from {first:.3g} to "
            f"{last:.3g}; at the start the largest stable rate is {stable:.3g}"
        )
    warnings.warn(message, RuntimeWarning, stacklevel=3)


@partial(jax.jit, static_argnames=("energy", "products"))
def largest_stable_rate(
    energy: Energy, params: Any, clamps: Clamps, state: Any = None, *, products: int = 100
) -> Float[Array, ""]:
    """The rate above which Euler steps leave the state, by default the start: 2 / lambda.

    lambda is the largest curvature of the energy along any direction, in any sample, by power
    iteration with `products` of the Hessian and a vector: first for the largest in size, and
    then, with all curvatures raised by it, for the largest. Infinite if none is positive.
    """
    state = energy.start(params, clamps) if state is None else state

    def bend(direction):
        velocity = lambda state: energy.velocity(params, state, clamps)  # noqa: E731
        rises = jax.jvp(velocity, (state,), (direction,))[1]
        return jax.tree.map(lambda d, r: jnp.zeros_like(d) if r is None else -r, direction, rises)

    def largest(times):
        def step(direction, _):
            bent = times(direction)
            size = speed(bent)
            size = jnp.where(size > 0, size, 1)
            return jax.tree.map(lambda b: (b.T / size).T, bent), _dot(direction, bent)

        keys = jax.random.split(jax.random.key(0), len(jax.tree.leaves(state)))
        leaves = [
            jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, jax.tree.leaves(state))
        ]
        drawn = jax.tree.unflatten(jax.tree.structure(state), leaves)
        length = speed(drawn)
        drawn = jax.tree.map(lambda d: (d.T / length).T, drawn)
        return jax.lax.scan(step, drawn, length=products)[1][-1]

    size = jnp.abs(largest(bend))
    raised = lambda d: jax.tree.map(lambda b, d: b + (size * d.T).T, bend(d), d)  # noqa: E731
    curvature = (largest(raised) - size).max()
    return jnp.where(curvature > 0, 2 / curvature, jnp.inf)


def _dot(a: Any, b: Any) -> Float[Array, " batch"]:
    """The inner product of each sample."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b))
    return sum((u * v).reshape(len(u), -1).sum(1) for u, v in pairs)


@checked
@picklable
def settle_then_learn(
    name: str,
    energy: Energy,
    predict: Callable[..., Array],
    loss: Callable[..., Array] | None = None,
    *,
    steps: Index,
    rate: Positive,
    tolerance: Tolerance | None = None,
    precision: Precision = 1.0,
    sample_weight: Callable[..., Array] | None = None,
) -> Rule:
    """The rule that settles with input and target clamped, and learns where it comes to rest.

    It returns the mean of `loss(prediction, y)` for the prediction made before the target was
    seen, or without a loss the mean energy at rest. With `sample_weight(x, y)` -> (batch,),
    loss and update are means of the samples times their weights. The other arguments are
    those of `relax`.
    """
    relaxation = {"steps": steps, "rate": rate, "tolerance": tolerance}

    def gradient(params, state, x, y, key):
        clamps = Clamps(x, y, precision, weigh(sample_weight, x, y))
        rest = settle(energy, params, clamps, **relaxation).state
        value = energy.value(params, rest, clamps) if loss is None else loss(predict(params, x), y)
        value = weighted(value, clamps.weight).mean()
        return value, energy.update(params, rest, clamps), state

    return Rule(name, stateless, gradient, predict)


@checked
@picklable
def contrast(
    name: str,
    energy: Energy,
    predict: Callable[..., Array],
    loss: Callable[..., Array],
    *,
    steps: Index,
    rate: Positive,
    tolerance: Tolerance | None = None,
    nudged: Callable[..., Clamps],
    nudge: Positive,
    symmetric: bool = True,
    sample_weight: Callable[..., Array] | None = None,
) -> Rule:
    """The rule that learns from the difference between two states of rest.

        dW ~ [dF/dW(beta) - dF/dW(-beta)] / (2 beta),    or [dF/dW(beta) - dF/dW(0)] / beta

    unless it is `symmetric`. `nudged(x, y, beta)` are the clamps of a phase that is nudged
    towards the target by beta. The other arguments are those of `settle_then_learn`.
    """
    relaxation = {"steps": steps, "rate": rate, "tolerance": tolerance}
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
