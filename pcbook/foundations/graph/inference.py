"""Inference on a graph: bring its activities to the equilibrium of the energy.

    F = precision * loss + sum_i |e_i|^2 / 2,        v_i = mu_i(parents) + e_i

The coordinates are the activities v, or the errors e, from which one walk through the program
makes the activities. The energy and the equilibrium are the same. In activities news of the loss
goes one vertex a step; in errors one reverse pass takes it to every vertex at once, and the
curvature is the identity and what comes from the loss (Goemaere et al. 2025). A vertex that the
loss alone reads is not inferred: it rests at its prediction, and its error is the loss's.

The samples of a loss that returns a number for each are inferred apart.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from pcbook.core.descent import Followed, Samples, conjugate_gradients, descend, follow
from pcbook.core.energy import Clamps, Energy, largest_stable_rate
from pcbook.foundations.graph import program
from pcbook.foundations.graph.cut import Graph

HALVINGS = 8  # trials of a Gauss-Newton step before a sample keeps its errors


class Landscape:
    """The energy of a graph over what is inferred: a list of arrays, one for each free vertex.

    The energy is that of each sample, (batch,), or of all, (). It falls apart into samples if
    the loss returns a number for each and every free vertex has the samples along its first axis.
    """

    def __init__(self, graph: Graph, precision):
        """Choose what is inferred. Raises ValueError if some of it is complex."""
        self.graph, self.precision = graph, precision
        self.free = [depth > 0 for depth in graph.depths]
        self.shapes = [shape for shape, free in zip(graph.shapes, self.free) if free]
        if any(jnp.issubdtype(shape.dtype, jnp.complexfloating) for shape in self.shapes):
            raise ValueError(
                "method = 'inference-learning': complex activities have no energy here; "
                "cut elsewhere"
            )
        self.samples = Samples(self._axes())

    def _axes(self) -> tuple[int, ...] | None:
        """The samples' axis in each free vertex, after those of time; None if there is none."""
        slots = program.slots(self.graph.program, self.graph.vertices)
        axes = [len(times) for (_, times), free in zip(slots, self.free) if free]
        split = (
            axes
            and self.graph.samples is not None
            and all(
                shape.shape[axis : axis + 1] == (self.graph.samples,)
                for shape, axis in zip(self.shapes, axes)
            )
        )
        return tuple(axes) if split else None

    def of_errors(self, es: list) -> Array:
        """The energy where the errors are `es`."""
        outs, _ = self._walk(self.graph.values, es, lambda mu, e: (mu + e, None))
        return self._sum(outs[0], es)

    def of_activities(self, values: list, vs: list) -> Array:
        """The energy where the activities are `vs`, and the learned `values` what they are."""
        outs, mus = self._walk(values, vs, lambda mu, v: (v, mu))
        return self._sum(outs[0], [v - mu for v, mu in zip(vs, mus)])

    def activities(self, es: list) -> list:
        """The activities whose errors are `es`."""
        return self._walk(self.graph.values, es, lambda mu, e: (mu + e, mu + e))[1]

    def forward(self) -> tuple[list, list]:
        """The outputs of the program and the free activities, where all errors are zero."""
        none = [None] * len(self.shapes)
        return self._walk(self.graph.values, none, lambda mu, _: (mu, mu))

    def no_errors(self) -> list:
        return [jnp.zeros(shape.shape, shape.dtype) for shape in self.shapes]

    def tops(self, es: list) -> list:
        """The predictions of the vertices that the loss alone reads, where the errors are `es`."""
        feed = iter(es)
        fed = [next(feed) if free else None for free in self.free]
        visit = lambda mu, e: (mu, mu) if e is None else (mu + e, None)  # noqa: E731
        _, kept = self.graph.walk(self.graph.values, fed, visit)
        return [mu for mu, free in zip(kept, self.free) if not free]

    def loss_of(self, es: list, tops: list) -> Array:
        """The loss times the precision, summed, where these vertices hold `tops`."""
        feed, above = iter(es), iter(tops)
        fed = [(next(feed), None) if free else (None, next(above)) for free in self.free]
        visit = lambda mu, et: (mu + et[0] if et[1] is None else et[1], None)  # noqa: E731
        outs, _ = self.graph.walk(self.graph.values, fed, visit)
        return (self.precision * outs[0]).sum()

    def _walk(self, values, feed, visit) -> tuple[list, list]:
        """Walk the graph and `visit` its free vertices; the others rest at their predictions."""
        feed = iter(feed)
        fed = [(next(feed),) if free else None for free in self.free]

        def each(mu, given):
            return (mu, None) if given is None else visit(mu, *given)

        outs, kept = self.graph.walk(values, fed, each)
        return outs, [k for k, free in zip(kept, self.free) if free]

    def _sum(self, loss, es) -> Array:
        """The energy from the loss and the errors."""
        loss = loss if self.samples.axes is not None else loss.sum()
        return self.precision * loss + self.samples.dot(es, es) / 2


def _slope(energy: Callable[[list], Array]) -> Callable:
    """The energies at a state, and the gradient of their sum."""

    def summed(state):
        energies = energy(state)
        return energies.sum(), energies

    def values_and_slope(state):
        (_, energies), slope = jax.value_and_grad(summed, has_aux=True)(state)
        return energies, slope

    return values_and_slope


class Look(NamedTuple):
    """The energy and the squared slope of each sample where a velocity was last computed."""

    energy: Array
    square: Array
    sweeps: Any


def _seen_nothing(land: Landscape) -> Look:
    none = land.samples.dot(zeros := land.no_errors(), zeros)
    return Look(none, none, jnp.asarray(0))


def in_activities(land: Landscape, **options) -> tuple[list, Followed]:
    """Move the activities down the energy by Euler steps."""
    slope_at = _slope(partial(land.of_activities, land.graph.values))

    def velocity(vs, look):
        energy, slope = slope_at(vs)
        seen = Look(
            energy.astype(look.energy.dtype), land.samples.dot(slope, slope), look.sweeps + 1
        )
        return [-s for s in slope], seen

    found = follow(velocity, land.forward()[1], _seen_nothing(land), **options)
    return found.state, found


def in_errors(land: Landscape, rate, **options) -> tuple[list, Followed]:
    """Move the errors by Barzilai-Borwein descent, the first step being `rate`."""
    start, slope = land.no_errors(), _slope(land.of_errors)
    found = descend(slope, start, land.samples, first=rate, **options)
    return land.activities(found.state), found


def by_gauss_newton(land: Landscape, rate, **options) -> tuple[list, Followed]:
    """Jump to the minimum of (I + J^T H J) in the errors, and halve a jump that does not descend.

    J is the derivative of the vertices that the loss alone reads, and H the curvature of the loss.
    A sweep is a product with this matrix, or a trial.
    """
    slope_at, samples = _slope(land.of_errors), land.samples

    def velocity(es, look):
        energy, slope = slope_at(es)
        downhill = [-s for s in slope]
        jump, products = conjugate_gradients(_curvature(land, es), downhill, samples)
        uphill = samples.dot(jump, slope) >= 0  # where the loss is not convex
        jump = samples.choose(uphill, downhill, jump)
        lengths, trials = _halve(land, es, jump, energy, rate)
        sweeps = look.sweeps + 1 + products + trials / 2
        seen = Look(energy.astype(look.energy.dtype), samples.dot(slope, slope), sweeps)
        return samples.times(lengths, jump), seen

    start = _seen_nothing(land)._replace(sweeps=jnp.asarray(0.0))
    found = follow(velocity, land.no_errors(), start, **options)
    return land.activities(found.state), found


def _curvature(land: Landscape, es: list) -> Callable[[list], list]:
    """The product of I + J^T H J with a change of the errors."""
    tops, push = jax.linearize(land.tops, es)
    pull = jax.linear_transpose(push, es)
    bend = jax.linearize(jax.grad(partial(land.loss_of, es)), tops)[1]
    return lambda d: [a + b for a, b in zip(d, pull(bend(push(d)))[0])]


def _halve(land: Landscape, es, jump, energy, rate) -> tuple[Array, Array]:
    """The length of each sample's jump at which its energy does not rise, or 0; and the trials."""
    slack = 16 * jnp.finfo(energy.dtype).eps * jnp.abs(energy)

    def attempt(trial):
        lengths, _, count = trial
        moved = [e + d for e, d in zip(es, land.samples.times(lengths, jump))]
        accepted = land.of_errors(moved) <= energy + slack
        return jnp.where(accepted, lengths, lengths / 2), accepted, count + 1

    def unfinished(trial):
        return (trial[2] < HALVINGS) & ~trial[1].all()

    first = jnp.full_like(energy, rate), jnp.zeros(energy.shape, bool), 0
    lengths, accepted, count = lax.while_loop(unfinished, attempt, first)
    return jnp.where(accepted, lengths, 0), count


INFERENCES = {
    "errors": in_errors,
    "activities": in_activities,
    "gauss-newton": by_gauss_newton,
}


def stable_rate(land: Landscape) -> Array:
    """The largest rate at which Euler steps in the activities are stable at the forward pass."""

    def velocity(_, state, __):
        slope = jax.grad(lambda vs: land.of_activities(land.graph.values, vs).sum())
        return [-s[None] for s in slope([v[0] for v in state])]

    none = lambda *_: None  # noqa: E731
    energy = Energy(none, none, velocity, none)
    clamps = Clamps(None, None)
    return largest_stable_rate(energy, None, clamps, [v[None] for v in land.forward()[1]])
