"""Barzilai-Borwein descent: each step is as long as the curvature along the last one allows.

    x <- x - a g,        a = s.y / y.y    or    s.s / s.y,

s and y being the last changes of x and of the gradient g (Barzilai & Borwein 1988, eqs. 5, 6). The
first, shorter step is taken unless the second is over twice as long: then the gradient has
changed mostly across the step, as it does where an activation has a kink, and the curvature along
it is what counts. A step needs one gradient, no line search and no rate. It may
raise the energy, but not above a running average of what it has been (Zhang & Hager 2004), which
begins at the first energy: a step that would is taken back, and a shorter one tried. So the
energy never ends above where it began.

The samples of a batch descend apart, each with steps of its own, and one that has come to rest
stays there: where it rests does not depend on the others. Conjugate gradients solve the linear
equations of methods that know the curvature.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from pcbook.core.relaxation import Number, relax

SHORTEST, LONGEST = 0.02, 1.0  # steps that the curvature may ask for
MEMORY = 0.85  # what the running average of the energy keeps of the past at each step
ROUNDING = 16  # a rise of the energy that does not count, in units of its last digit


class Samples(NamedTuple):
    """Arithmetic for each sample of a list of arrays: `axes[i]` is the samples' axis of array i.

    With `axes` None the arrays do not fall apart into samples, and are one.
    """

    axes: tuple[int, ...] | None

    def dot(self, a: list, b: list) -> Float[Array, "..."]:
        """The inner product of each sample, (batch,), or () of all.

        Products of arrays of one shape are added before they are summed, since XLA adds arrays
        faster than it sums the rows of one.
        """
        alike: dict[Any, Any] = {}
        for u, v, axis in zip(a, b, self.axes or [None] * len(a)):
            exact = jnp.promote_types(u.dtype, jnp.float32)
            product = u.astype(exact) * v.astype(exact)
            kind = axis, product.shape, exact
            alike[kind] = alike[kind] + product if kind in alike else product
        totals = [self.total(product, axis) for (axis, *_), product in alike.items()]
        return sum(totals, start=jnp.zeros(()))

    @staticmethod
    def total(array: Array, axis: int | None) -> Array:
        """The sum of each sample."""
        return array.sum([i for i in range(array.ndim) if i != axis])

    def spread(self, numbers: Array, arrays: list) -> list:
        """A number of each sample, in a shape that broadcasts with each of the arrays."""

        def shaped(array, axis):
            shape = [1] * array.ndim
            if axis is not None:
                shape[axis] = -1
            return jnp.reshape(numbers, shape)

        return [shaped(a, axis) for a, axis in zip(arrays, self.axes or [None] * len(arrays))]

    def times(self, lengths: Float[Array, "..."], arrays: list) -> list:
        """Each sample of the arrays times a length of its own."""
        pairs = zip(self.spread(lengths, arrays), arrays)
        return [(length * array).astype(array.dtype) for length, array in pairs]

    def choose(self, which: Bool[Array, "..."], new: list, old: list) -> list:
        """The new arrays of the samples `which`, and the old ones of the others."""
        return [jnp.where(w, n, o) for w, n, o in zip(self.spread(which, new), new, old)]


class Progress(NamedTuple):
    """What a descent remembers, each number one of a sample.

    The last trial began at a base, where the gradient was `slope`, its square `square`, and the
    energy `energy`; `back` times the slope leads there from here, 0 if the trial was accepted
    and the base is here. `step` is the length of the next trial, `average` the running average
    of the energies, of so much `weight`, and `rest` the square at which a sample has come to rest.
    `sweeps` counts the gradients.
    """

    slope: list
    square: Array
    energy: Array
    back: Array
    step: Array
    average: Array
    weight: Array
    rest: Array
    sweeps: Any


class Followed(NamedTuple):
    """Where a way down ended: the state and what its velocity remembers there.

    `record` holds all moments, if it was asked for.
    """

    state: list
    memory: Any
    steps: Any
    converged: Any
    record: Any


def descend(
    slope: Callable[[list], tuple[Array, list]],
    start: list,
    samples: Samples,
    *,
    first: Number = 0.1,
    tolerance: Number | None = None,
    **options,
) -> Followed:
    """Descend the energy whose values and gradients `slope(state)` returns.

    The first step is `first` long. The other arguments are those of `follow`. A step computes one
    gradient, and so does the start.
    """
    velocity = barzilai_borwein(slope, samples, 0.0 if tolerance is None else tolerance)
    found = follow(velocity, start, begin(start, samples, first), tolerance=tolerance, **options)
    last = found.memory
    back = samples.times(last.back, last.slope)
    return found._replace(state=[x + v for x, v in zip(found.state, back)])


def follow(
    velocity: Callable,
    start: list,
    memory: Any,
    *,
    steps: int,
    rate: Number = 1.0,
    tolerance: Number | None = None,
    record: bool = False,
) -> Followed:
    """Follow a velocity that remembers the `energy` and the squared slope, `square`, it has seen.

    Takes `steps` steps, or with a `tolerance` at most so many, until the slope of each sample is
    that share of what it was at the start. What is remembered at the end is of the end. Raises
    ValueError as `relax` does.
    """
    if record:
        velocity, memory = _recording(velocity, memory, steps)

    def slopes(_, memory):
        return jnp.sqrt((memory[0] if record else memory).square)

    options = {"steps": steps, "rate": rate, "tolerance": tolerance, "measure": slopes}
    found = relax(velocity, start, memory=memory, **options)
    memory = found.memory if tolerance is not None else velocity(found.state, found.memory)[1]
    last, moments = memory if record else (memory, None)
    return Followed(found.state, last, found.steps, found.converged, moments)


class Record(NamedTuple):
    """The mean energy, the norm of all slopes and the sweeps done at each moment.

    The first `count` moments are written; the others are NaN.
    """

    energy: Array
    slope: Array
    sweeps: Array
    count: Any


def _recording(velocity: Callable, memory: Any, steps: int):
    """A velocity that writes a record of `steps` + 1 moments, and its first memory."""
    empty = jnp.full(steps + 1, jnp.nan, memory.square.dtype)

    def recorded(state, memory):
        now, record = memory
        v, now = velocity(state, now)
        i = record.count
        record = Record(
            record.energy.at[i].set(now.energy.mean()),
            record.slope.at[i].set(jnp.sqrt(now.square.sum())),
            record.sweeps.at[i].set(now.sweeps),
            i + 1,
        )
        return v, (now, record)

    return recorded, (memory, Record(empty, empty, empty, 0))


def begin(start: list, samples: Samples, first: Number) -> Progress:
    """What is remembered before anything was computed."""
    zeros = jax.tree.map(jnp.zeros_like, start)
    none = samples.dot(zeros, zeros)
    most = jnp.full_like(none, jnp.finfo(none.dtype).max)
    return Progress(zeros, none, none, none, jnp.full_like(none, first), most, none, none, 0)


def barzilai_borwein(
    slope: Callable[[list], tuple[Array, list]], samples: Samples, tolerance: Number
) -> Callable:
    """The next step from a state, and what to remember, as `relax` wants it."""

    def velocity(state, now: Progress):
        energy, new = slope(state)
        energy = energy.astype(now.energy.dtype)
        square, mixed = samples.dot(new, new), samples.dot(now.slope, new)
        slack = ROUNDING * jnp.finfo(energy.dtype).eps * jnp.abs(now.average)
        accepted = (energy <= now.average + slack) | (now.weight == 0)

        # s = -a g and y = g' - g, so s.s = a^2 g.g, s.y = a (g.g - g.g') and
        # y.y = g'.g' - 2 g.g' + g.g.
        bend, change = now.square - mixed, square - 2 * mixed + now.square
        short, long = _ratio(bend, change), _ratio(now.square, bend)
        ideal = now.step * jnp.where(2 * short > long, short, long)
        step = jnp.where(bend > 0, jnp.clip(ideal, SHORTEST, LONGEST), now.step)
        step = jnp.where(accepted, step, jnp.minimum(step, now.step / 2))

        weight = MEMORY * now.weight + 1
        average = (MEMORY * now.weight * now.average + energy) / weight
        rest = jnp.where(now.weight == 0, tolerance**2 * square, now.rest)
        back = jnp.where(accepted, 0, now.step)
        keep = lambda new, old: jnp.where(accepted, new, old)  # noqa: E731
        base = samples.choose(accepted, new, now.slope)
        then = Progress(
            base,
            keep(square, now.square),
            keep(energy, now.energy),
            back,
            step,
            keep(average, now.average),
            keep(weight, now.weight),
            rest,
            now.sweeps + 1,
        )
        ahead = jnp.where(then.square > rest, step, 0)
        return samples.times(back - ahead, base), then

    return velocity


def _ratio(a: Array, b: Array) -> Array:
    """Compute a / b where b > 0, and a elsewhere."""
    return a / jnp.where(b > 0, b, 1)


def conjugate_gradients(
    times: Callable, b: list, samples: Samples, tolerance: float = 0.3, steps: int = 12
) -> tuple[list, Array]:
    """Solve times(d) = b for every sample at once, and count the products.

    `times` is a symmetric positive definite linear map. Stops when the norm of the residual,
    over all samples, is at most `tolerance` times that of b, or after `steps` products.
    """

    def along(lengths, direction, start):
        return [s + d for s, d in zip(start, samples.times(lengths, direction))]

    def ratio(a, b):
        return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)

    first = samples.dot(b, b)

    def unfinished(state):
        *_, rr, count = state
        return (count < steps) & (rr.sum() > tolerance**2 * first.sum())

    def step(state):
        d, residual, p, rr, count = state
        Ap = times(p)
        a = ratio(rr, samples.dot(p, Ap))
        d, residual = along(a, p, d), along(-a, Ap, residual)
        new = samples.dot(residual, residual)
        return d, residual, along(ratio(new, rr), p, residual), new, count + 1

    zero = jax.tree.map(jnp.zeros_like, b)
    d, *_, count = lax.while_loop(unfinished, step, (zero, b, b, first, 0))
    return d, count
