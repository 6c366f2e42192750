"""Inference by one of the methods, what it costs, and the learning rule that uses it."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from pcbook.core import network
from pcbook.core.arguments import Count, NotNegative, Positive, Tolerance, checked
from pcbook.core.checks import check_number, check_width, lookup
from pcbook.core.descent import Followed, Samples, descend
from pcbook.core.energy import Clamps, Inference, cache_hashable, rose, weigh, weighted
from pcbook.core.network import (
    ACTIVATIONS,
    LOSSES,
    Activities,
    Layer,
    Named,
    Params,
    as_float,
    find_activation,
    find_loss,
    like_biases,
)
from pcbook.core.rules import Rule, stateless
from pcbook.foundations import predictive_coding as pc
from pcbook.foundations.predictive_coding import Precision
from pcbook.inference.fast_inference.methods import METHODS, State
from pcbook.inference.fast_inference.problem import KINKED, Branch, Problem
from pcbook.inference.fast_inference.vectors import dot

DESCENT = "barzilai-borwein"
RATES = {name: method.rate for name, method in METHODS.items()} | {DESCENT: 0.1}
EXPLODED = 100.0  # times the energy at the start: inference stops


@checked
def infer(
    params: Params,
    x: Float[Array, "batch n_0"],
    y: Float[Array, "batch n_L"],
    *,
    method: str = "gauss-newton",
    rate: Positive | None = None,
    tolerance: Tolerance = 1e-3,
    steps: Count = 200,
    activation: Named = "tanh",
    loss: Named = "squared error",
    precision: Precision = 1.0,
    start: Activities | None = None,
    reference: list[Layer] | None = None,
) -> Inference:
    """Bring the activities to the equilibrium of the energy, and report what it cost.

    Input and target are clamped. Inference stops when the
    velocity of the activities is at most `tolerance` times that of the forward pass, after
    `steps` steps, or when the energy explodes. Warns (RuntimeWarning) if the energy was ever
    above its first value. Under `jax.jit` and `jax.vmap` nobody is warned, and what is recorded
    of the moments is padded with NaN.

    The method, one of `METHODS` or `"barzilai-borwein"`, has a default step size that `rate`
    replaces. `"barzilai-borwein"` descends in the errors by steps as long as the curvature allows
    (`core.descent`; `rate` is the first), each sample apart, and costs a sweep a step: what moves
    are the errors, so it is their slope that is measured and has to fall. It takes neither a
    `start` nor a `reference`, and no activation with a kink. `start` =
    x_0..x_{L-1} are activities to start from, such as those of the last visit, in place of the
    forward pass; that costs one sweep more, since the velocity of the forward pass is needed
    too. A weight update `reference` is what `distance` is measured from.

    Raises ValueError for an unknown name, a shape that does not fit, rate <= 0,
    tolerance outside [0, 1), steps < 1, precision <= 0, or the closed form of a network that is
    not linear; a start, a reference or a kink for barzilai-borwein.
    """
    settings = _settings(method, rate, tolerance, steps, activation, loss, precision)
    if method == DESCENT:
        allowed = f"left out for {DESCENT}"
        check_number(allowed, lambda given: given is None, start=start, reference=reference)
        return _report(_descend(params, x, y, **settings, record=True))
    search, yardstick = _settle(params, x, y, start, reference, **settings)
    traced = isinstance(search.count, jax.core.Tracer)
    record = search.record
    if not traced:
        record = Moment(*(np.asarray(numbers)[: int(search.count)] for numbers in record))
        _warn_if_it_rose(record.energy, method, settings["rate"])
    last = search.now
    return Inference(
        search.state.xs,
        search.count - 1,
        last.velocity <= tolerance * yardstick,
        rose(record.energy[:1], last.energy).any(),
        record.energy,
        record.velocity,
        last.velocity / jnp.where(yardstick > 0, yardstick, 1),
        sweeps=record.sweeps,
        distance=record.distance,
    )


def _report(descended) -> Inference:
    """How a descent in the errors went."""
    xs, found = descended
    energy, slope, sweeps, count = found.record
    if not isinstance(count, jax.core.Tracer):
        energy, slope, sweeps = (np.asarray(m)[: int(count)] for m in (energy, slope, sweeps))
    last = jnp.sqrt(found.memory.square.sum())
    return Inference(
        xs,
        found.steps,
        found.converged,
        rose(energy[0], found.memory.energy.mean()),
        energy,
        slope,
        last / jnp.where(slope[0] > 0, slope[0], 1),
        sweeps=sweeps,
    )


def _warn_if_it_rose(energy, method, rate) -> None:
    """Warn (RuntimeWarning) if the energy was above its first value at any moment."""
    if not np.isfinite(energy[0]):
        message = f"the energy is {energy[0]} at the start: look for it in x, y, params and start"
    elif not rose(energy[0], energy).any():
        return
    else:
        message = (
            f"the energy rose from {energy[0]:.3g} to {np.max(energy):.3g} with method "
            f"{method!r} at rate {rate:g}: try a smaller rate, or 'gauss-newton', "
            "which never lets it rise"
        )
    warnings.warn(message, RuntimeWarning, stacklevel=3)


@checked
@cache_hashable
def rule(
    method: str = "gauss-newton",
    rate: Positive | None = None,
    tolerance: Tolerance = 1e-2,
    steps: Count = 50,
    activation: Named = "tanh",
    loss: Named = "squared error",
    precision: Precision = 1.0,
    *,
    sample_weight: Callable[..., Array] | None = None,
) -> Rule:
    """Learn by predictive coding at the equilibrium that one of the `METHODS` finds.

    The arguments are those of `infer` and of `predictive_coding.rule`, and so are the errors
    raised.
    """
    settings = _settings(method, rate, tolerance, steps, activation, loss, precision)
    energy = pc.chain(activation, loss)

    def gradient(params, state, x, y, key):
        if method == DESCENT:
            xs, _ = _descend(params, x, y, **settings)
        else:
            xs = _settle(params, x, y, None, None, **settings)[0].state.xs
        clamps = Clamps(x, y, precision, weigh(sample_weight, x, y))
        value = find_loss(loss)(network.forward(params, x, activation), y)
        update = energy.update(params, xs, clamps)
        return weighted(value, clamps.weight).mean(), update, state

    return Rule(f"predictive coding, {method}", stateless, gradient, network.predictor(activation))


@checked
def backprops(params: Params, sweeps: NotNegative | Float[np.ndarray, "..."]):
    """The matrix products of inference, in units of those of one gradient by backprop.

    A sweep is two products per layer from the second on, the first layer predicts once, and
    backprop makes three products per layer, but none to send an error to the input.
    """
    first, *rest = (layer.W.size for layer in params)
    return (first + 2 * sum(rest) * sweeps) / (2 * first + 3 * sum(rest))


def _settings(method, rate, tolerance, steps, activation, loss, precision) -> dict[str, Any]:
    """Check the settings of an inference, and give `rate` its default.

    Raises ValueError for what `infer` says.
    """
    default = lookup(RATES, method=method)
    rate = default if rate is None else rate
    pc.check_precision(precision)
    if method == "closed form":
        if find_activation(activation) is not ACTIVATIONS["identity"]:
            raise ValueError(f"activation = {activation!r}: must be 'identity' for the closed form")
        if find_loss(loss) is not LOSSES["squared error"]:
            raise ValueError(f"loss = {loss!r}: must be 'squared error' for the closed form")
    if method == DESCENT and find_activation(activation) in KINKED:
        raise ValueError(
            f"activation = {activation!r}: must have no kink for {DESCENT}, over which its steps "
            "go back and forth; take 'gauss-newton'"
        )
    find_activation(activation)
    find_loss(loss)
    return {
        "method": method,
        "rate": rate,
        "tolerance": tolerance,
        "steps": steps,
        "activation": activation,
        "loss": loss,
        "precision": precision,
    }


class Moment(NamedTuple):
    """What is recorded of a moment of inference; in a record, arrays over the moments."""

    sweeps: Array
    velocity: Array
    energy: Array
    distance: Array


class Search(NamedTuple):
    """Inference in progress: the state, what is recorded of it, and the record of all moments.

    The first `count` moments of the record are written; the others are NaN.
    """

    state: State
    now: Moment
    record: Moment
    count: Any


@partial(jax.jit, static_argnames=("method", "steps", "activation", "loss"))
def _settle(
    params, x, y, start, reference, *, method, rate, tolerance, steps, activation, loss, precision
) -> tuple[Search, Array]:
    """Run a method until it converges; also return the velocity of the forward pass."""
    check_width("y", y, len(params[-1].W), "output", len(x))
    x, y = as_float(x, params), as_float(y, params)
    problem, chosen = Problem(params, y, activation, loss, precision), METHODS[method]
    observe = partial(_observe, problem, None if reference is None else ravel_pytree(reference)[0])

    xs = network.activities(params, x, activation)[:-1]
    es = problem.errors(xs)
    vs, now = observe(xs, es, 1.0)
    yardstick = now.velocity
    if start is not None:
        xs = pc.checked_start(start, xs)
        es = problem.errors(xs)
        vs, now = observe(xs, es, 2.0)
    ceiling = EXPLODED * now.energy

    def unfinished(search):
        now = search.now
        moving = now.velocity > tolerance * yardstick
        return (search.count <= steps) & moving & (now.energy <= ceiling)

    def step(search):
        xs, es, memory, sweeps = chosen.step(problem, search.state, rate)
        vs, now = observe(xs, es, search.now.sweeps + sweeps + 0.5)
        record = _write(search.record, search.count, now)
        return Search(State(xs, es, vs, memory), now, record, search.count + 1)

    empty = jnp.full(steps + 1, jnp.nan, x.dtype)
    record = _write(Moment(empty, empty, empty, empty), 0, now)
    first = Search(State(xs, es, vs, chosen.init(xs, rate)), now, record, 1)
    return lax.while_loop(unfinished, step, first), yardstick


@partial(jax.jit, static_argnames=("method", "steps", "activation", "loss", "record"))
def _descend(
    params, x, y, *, method, rate, tolerance, steps, activation, loss, precision, record=False
) -> tuple[Activities, Followed]:
    """Descend in the errors; return the activities and how it went."""
    check_width("y", y, len(params[-1].W), "output", len(x))
    x, y = as_float(x, params), as_float(y, params)
    problem = Problem(params, y, activation, loss, precision)
    none = [jnp.zeros((len(x), len(layer.W)), x.dtype) for layer in params[:-1]]
    smooth = [Branch(jnp.ones_like(zeros), jnp.ones_like(zeros)) for zeros in none]

    def slope(zs):
        xs, es = problem.up([x], zs, smooth)
        return problem.energy(xs, es), problem.down(xs, es)[0]

    limits = {"steps": steps, "tolerance": tolerance, "record": record}
    found = descend(slope, none, Samples((0,) * len(none)), first=rate, **limits)
    return problem.up([x], found.state, smooth)[0], found


def _observe(problem: Problem, wanted, xs, es, sweeps) -> tuple[Activities, Moment]:
    """Compute the velocities and what is recorded; `wanted` is the reference as a flat array."""
    vs = problem.velocities(xs, es)
    distance = jnp.nan
    if wanted is not None:
        update = like_biases(problem.params, pc.weight_gradients(xs, es, problem.activation))
        update = ravel_pytree(update)[0]
        distance = jnp.linalg.norm(update - wanted) / jnp.linalg.norm(wanted)
    moment = Moment(sweeps, jnp.sqrt(dot(vs, vs).sum()), problem.energy(xs, es).mean(), distance)
    return vs, Moment(*(jnp.asarray(number, xs[0].dtype) for number in moment))


def _write(record: Moment, index, now: Moment) -> Moment:
    return Moment(*(numbers.at[index].set(number) for numbers, number in zip(record, now)))
