"""The methods that minimise the energy, one step each, and the sweeps that a step takes."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float

from pcbook.core.descent import Samples, conjugate_gradients
from pcbook.core.network import Activities
from pcbook.foundations import predictive_coding as pc
from pcbook.inference.fast_inference.problem import Branch, Problem
from pcbook.inference.fast_inference.vectors import along

HALVINGS = 8  # trials of a Gauss-Newton step before a sample keeps its activities


class State(NamedTuple):
    """The current activities x_0..x_{L-1}, errors, velocities, and the method's own memory."""

    xs: Activities
    es: Activities
    vs: Activities
    memory: Any


class Method(NamedTuple):
    """A method of inference.

    `rate` is its default step size, `init(xs, rate)` its first memory, and
    `step(problem, state, rate)` returns the new activities, errors and memory, and the number
    of sweeps done.
    """

    name: str
    rate: float
    init: Callable[..., Any]
    step: Callable[..., tuple[Activities, Activities, Any, Any]]


def _descent(name: str, optimiser: Callable, step: Callable) -> Method:
    """Gradient descent by an optax optimiser."""
    return Method(
        name, 0.1, lambda xs, rate: optimiser(rate).init(xs[1:]), partial(step, optimiser)
    )


def _in_activities(optimiser, problem: Problem, state: State, rate):
    """Descend the energy in the activities."""
    xs = state.xs
    moves, memory = optimiser(rate).update([-v for v in state.vs], state.memory)
    hidden = [
        problem.stop_at_kink(jnp.where(x == 0, jnp.sign(v), jnp.sign(x)), x + move)
        for x, v, move in zip(xs[1:], state.vs, moves)
    ]
    xs = [xs[0], *hidden]
    return xs, problem.errors(xs), memory, 0.5


def _in_errors(optimiser, problem: Problem, state: State, rate):
    """Descend the energy in the errors."""
    slopes, branches = problem.down(state.xs, state.es)
    moves, memory = optimiser(rate).update(slopes, state.memory)
    xs, es = problem.up(state.xs, along(1.0, moves, problem.unweighted(state.es)), branches)
    return xs, es, memory, 1.0


def _gauss_newton(problem: Problem, state: State, rate):
    """Solve for the step by conjugate gradients; halve a sample's step until its energy falls."""
    slopes, branches = problem.down(state.xs, state.es)
    moves, products = conjugate_gradients(
        partial(problem.curvature, branches, bend=problem.bend(state.xs)),
        [-slope for slope in slopes],
        Samples((0,) * len(slopes)),
    )
    xs, es, trials = _backtrack(problem, state, branches, moves, rate)
    return xs, es, state.memory, 0.5 + products + trials / 2


class _Trial(NamedTuple):
    """The activities and errors of a trial, the next step lengths, and who accepted."""

    xs: Activities
    es: Activities
    lengths: Float[Array, " batch"]
    accepted: Bool[Array, " batch"]
    count: Any


def _backtrack(problem: Problem, state: State, branches: list[Branch], moves: Activities, rate):
    """Move the errors along `moves`, halving each sample's step until its energy does not rise.

    A sample whose energy still rises after `HALVINGS` trials stays. Returns the activities, the
    errors and the number of trials.
    """
    xs, es = state.xs, state.es
    ceiling = problem.energy(xs, es) * (1 + 16 * jnp.finfo(xs[0].dtype).eps)

    def attempt(trial):
        lengths = trial.lengths
        new_xs, new_es = problem.up(xs, along(lengths, moves, problem.unweighted(es)), branches)
        accepted = problem.energy(new_xs, new_es) <= ceiling
        lengths = jnp.where(accepted, lengths, lengths / 2)
        return _Trial(new_xs, new_es, lengths, accepted, trial.count + 1)

    def unfinished(trial):
        return (trial.count < HALVINGS) & ~trial.accepted.all()

    n, dtype = len(xs[0]), xs[0].dtype
    first = _Trial(xs, es, jnp.full(n, rate, dtype), jnp.zeros(n, bool), 0)
    last = lax.while_loop(unfinished, attempt, first)
    keep = partial(jax.tree.map, lambda new, old: jnp.where(last.accepted[:, None], new, old))
    return keep(last.xs, xs), keep(last.es, es), last.count


def _closed_form(problem: Problem, state: State, rate):
    """The equilibrium of a linear network: e_L = S^-1 (y - mu_L), e_l = e_L P_l, once up."""
    S, chains = pc.lent_variance(problem.params, problem.precision)
    hidden = state.xs[1:]
    branches = [Branch(jnp.ones_like(x), jnp.ones_like(x)) for x in hidden]
    _, at_prediction = problem.up(state.xs, [jnp.zeros_like(x) for x in hidden], branches)
    *_, pi = problem.precisions
    top = jnp.linalg.solve(S, (at_prediction[-1] / pi).T).T
    hidden = problem.unweighted([*(top @ P for P in chains), top])
    xs, es = problem.up(state.xs, hidden, branches)
    return xs, es, state.memory, 1.0 + len(S) / len(top) / 2


def _no_memory(xs, rate) -> tuple:
    return ()


_nesterov = partial(optax.sgd, momentum=0.9, nesterov=True)

_ALL = (
    _descent("euler", optax.sgd, _in_activities),
    _descent("momentum", partial(optax.sgd, momentum=0.9), _in_activities),
    _descent("nesterov", _nesterov, _in_activities),
    _descent("adam", optax.adam, _in_activities),
    _descent("errors", optax.sgd, _in_errors),
    _descent("errors, nesterov", _nesterov, _in_errors),
    Method("gauss-newton", 1.0, _no_memory, _gauss_newton),
    Method("closed form", 1.0, _no_memory, _closed_form),
)
METHODS = {method.name: method for method in _ALL}
