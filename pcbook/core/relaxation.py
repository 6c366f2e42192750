"""Relaxation: follow the dynamics of a state until it comes to rest.

    dx/dt = velocity(x),        x <- x + rate * velocity(x)

Every inference of the book is this loop with a velocity of its own: predictive coding
descends an energy in its activities, a memory completes a picture, errors relax along a
graph, neurons move in spikes or without a clock.
"""

from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from pcbook.core.arguments import Index, Positive, Tolerance, checked

__all__ = [
    "Settled",
    "relax",
    "relax_towards",
]

Number = float | int | Float[Array, ""]  # a constant, or one of many under jax.vmap

# On a CPU, XLA runs a convolution in a loop slowly: so few steps are unrolled.
UNROLLED = 4


class Settled(NamedTuple):
    """Where a relaxation ended.

    `state` is shaped as the start, `memory` as the memory at the start. `steps` is how many
    were taken, and `converged` whether every sample came to rest: never, without a tolerance.
    `path` holds the steps + 1 states along a leading axis, if it was asked for.
    """

    state: Any
    memory: Any
    steps: Int[Array, ""] | int
    converged: Bool[Array, ""] | bool
    path: Any


@checked
def relax(
    velocity: Callable[..., Any],
    start: Any,
    *,
    steps: Index,
    rate: Positive,
    tolerance: Tolerance | None = None,
    memory: Any = None,
    trajectory: bool = False,
    measure: Callable[..., Array] | None = None,
) -> Settled:
    """Take Euler steps of size `rate` along `velocity` from the state `start`.

    `velocity(state)` has the structure of the state, with None for a part that is held where
    it is. With a `memory`, it is `velocity(state, memory)` and returns the new memory too:
    a random key, messages under way, weights that move along.

    Takes `steps` of them, or with a `tolerance` at most so many: it ends when the speed
    |velocity| of each sample, a row of the state, is at most that share of what it was at the
    start, and when a speed is not finite. `measure(velocity, memory)`, (batch,), takes the
    place of the speed. Raises ValueError for steps < 0, rate <= 0, a
    tolerance outside [0, 1), or a trajectory with a tolerance.
    """
    if trajectory and tolerance is not None:
        raise ValueError("trajectory = True: must be False with a tolerance")
    _check_state(start)
    start = _as_floats(start)

    def flow(state, memory):
        return (velocity(state), None) if memory is None else velocity(state, memory)

    def move(state, vs):
        return jax.tree.map(lambda x, v: x if v is None else x + rate * v, state, vs)

    if tolerance is not None:
        measure = measure or (lambda vs, _: speed(vs))
        return _until_rest(flow, move, measure, start, memory, steps, tolerance)

    def step(state, memory):
        vs, memory = flow(state, memory)
        return move(state, vs), memory

    return _repeat(step, start, memory, steps, trajectory)


@checked
def relax_towards(
    target: Callable[[Any], Any],
    start: Any,
    *,
    steps: Index,
    rate: Positive,
    trajectory: bool = False,
) -> Settled:
    """Relax with the velocity target(x) - x: a step of rate 1 ends on the target, exactly.

    `target(state)` has the structure of the state. Raises ValueError for steps < 0 or rate <= 0.
    """
    _check_state(start)
    whole = isinstance(rate, Real) and rate == 1
    start = start if whole else _as_floats(start)

    def step(state, memory):
        end = target(state)
        return end if whole else jax.tree.map(lambda x, y: x + rate * (y - x), state, end), memory

    return _repeat(step, start, None, steps, trajectory)


def _check_state(start) -> None:
    if start is None or not all(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(start)):
        raise ValueError(f"start = {start!r}: must be an array, or a pytree of arrays")


def _as_floats(state):
    def read(leaf):
        return leaf if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf.astype(float)

    return jax.tree.map(read, state)


def _repeat(step, start, memory, steps, trajectory) -> Settled:
    def one(carry, _):
        state, memory = step(*carry)
        return (state, memory), state if trajectory else None

    (state, memory), path = lax.scan(one, (start, memory), length=steps, unroll=steps <= UNROLLED)
    if trajectory:
        path = jax.tree.map(lambda a, rest: jnp.concatenate([a[None], rest]), start, path)
    return Settled(state, memory, steps, False, path)


def _until_rest(flow, move, measure, start, memory, steps, tolerance) -> Settled:
    vs, memory = flow(start, memory)
    rest = tolerance * measure(vs, memory)

    def moving(carry):
        _, vs, memory, taken = carry
        now = measure(vs, memory)
        return (taken < steps) & jnp.isfinite(now).all() & (now > rest).any()

    def step(carry):
        state, vs, memory, taken = carry
        state = move(state, vs)
        return state, *flow(state, memory), taken + 1

    state, vs, memory, taken = lax.while_loop(moving, step, (start, vs, memory, 0))
    return Settled(state, memory, taken, (measure(vs, memory) <= rest).all(), None)


def speed(velocities: Any) -> Float[Array, " batch"]:
    """The norm |dx/dt| of each sample's velocities, over all parts of the state."""
    return jnp.sqrt(sum((v**2).reshape(len(v), -1).sum(1) for v in jax.tree.leaves(velocities)))
