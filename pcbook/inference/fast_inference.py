"""Fast inference: what an equilibrium costs, and how to reach it sooner.

Predictive coding learns at the equilibrium of its energy, and gets there by many small
steps: a hundred times the work of backprop, its critics say. But the equilibrium is a
place, and there are quicker ways to it. Instead of the activities, move the *errors*: with
e_1..e_{L-1} given, one pass up makes the activities, and one pass down the slope,

    x_l = mu_l + e_l,        dF/de_l = e_l - d_l,        d_l = (d_{l+1} W_{l+1}) * phi'(x_l),

with d_L = e_L: backprop's blame, arriving at every layer at once (Goemaere et al. 2025). In
these coordinates the curvature is nearly the identity, and Gauss-Newton solves

    (I + pi J^T J) de = -dF/de,        J = dmu_L/de,

by a few conjugate gradients, each no dearer than an Euler step. The unit of work here is
the *sweep*: one pass up and one down through the layers 2..L.

Chapter: book/inference/fast_inference.ipynb
"""

import math
import warnings
from collections.abc import Callable
from functools import cache, partial
from numbers import Integral
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax, random
from jax.ad_checkpoint import checkpoint_name
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Key

from pcbook.core import network
from pcbook.core.network import ACTIVATIONS, LOSSES, Activities, Layer, Params, Table, predict
from pcbook.core.rules import Rule, stateless
from pcbook.foundations import predictive_coding as pc

KINKED = ("relu", "leaky relu")  # what has one slope below zero and another above


class Inference(NamedTuple):
    """Where inference ended, and how it got there.

    `xs` are the activities x_0..x_{L-1}. One number a moment: the `sweeps` done so far, the
    norm of the `velocity` of all activities, the mean `energy` of a sample, and the relative
    `distance` of the weight update from the reference, NaN without one. `converged`: the
    velocity fell to the tolerance. `diverged`: the energy ended above where it began.
    """

    xs: Activities
    sweeps: Float[np.ndarray, " moments"]
    velocity: Float[np.ndarray, " moments"]
    energy: Float[np.ndarray, " moments"]
    distance: Float[np.ndarray, " moments"]
    converged: bool
    diverged: bool


def infer(
    params: Params,
    x: Float[Array, "batch n_0"],
    y: Float[Array, "batch n_L"],
    *,
    method: str = "gauss-newton",
    rate: float | int | None = None,
    tolerance: float | int = 1e-3,
    most: int = 200,
    activation: str = "tanh",
    precision: float | int = 1.0,
    start: Activities | None = None,
    reference: list[Layer] | None = None,
) -> Inference:
    """Bring the activities to the equilibrium of the energy, and say what it cost.

    Input and target are clamped; the loss is the squared error. Inference stops when the
    velocity of the activities is at most `tolerance` times that of the forward pass, after
    `most` steps, or when the energy explodes. Warns (RuntimeWarning) if the energy was ever
    above where it began.

    The method, one of `METHODS`, has a step size of its own that `rate` replaces. `start` =
    x_0..x_{L-1} are activities to start from, such as those of the last visit, in place of the
    forward pass; that costs one sweep more, to know the yardstick. A weight update `reference`
    is what `distance` is measured from.

    Raises ValueError for an unknown name, a shape that does not fit, rate <= 0, tolerance < 0,
    most < 1, precision <= 0, or the closed form of a network that is not linear.
    """
    rate = METHODS[method].rate if rate is None else rate
    pc.check_inference(1, float(rate), float(precision))
    if not isinstance(most, Integral) or most < 1:
        raise ValueError(f"most = {most}: must be an integer of at least 1")
    network.check_width("y", y, len(params[-1].b), "output", len(x))
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance = {tolerance}: must be from 0 to 1, 1 excluded")
    if method == "closed form" and activation != "identity":
        raise ValueError(f"activation = {activation!r}: must be 'identity' for the closed form")
    xs, moments, record = _settle(
        params, x, y, start, rate, tolerance, precision, reference, method, most, activation
    )
    sweeps, velocity, energy, distance, first = np.asarray(record)[:, : int(moments)]
    diverged = not energy[-1] <= energy[0] * (1 + 1e-5)
    if not (energy <= energy[0] * (1 + 1e-5)).all():
        warnings.warn(
            f"the energy rose from {energy[0]:.3g} to {np.max(energy):.3g} with method "
            f"{method!r} at rate {rate:g}: try a smaller rate, or 'gauss-newton', which never "
            "lets it rise",
            RuntimeWarning,
            stacklevel=2,
        )
    converged = bool(velocity[-1] <= tolerance * first[-1])
    return Inference(xs, sweeps, velocity, energy, distance, converged, diverged)


@cache
def rule(
    method: str = "gauss-newton",
    rate: float | int | None = None,
    tolerance: float | int = 1e-2,
    most: int = 50,
    activation: str = "tanh",
    precision: float | int = 1.0,
) -> Rule:
    """Learn by predictive coding, at an equilibrium that one of the `METHODS` has found."""
    rate = METHODS[method].rate if rate is None else rate
    pc.check_inference(1, float(rate), float(precision))
    loss = LOSSES["squared error"]

    def gradient(params, state, x, y, key):
        xs, *_ = _settle(
            params, x, y, None, rate, tolerance, precision, None, method, most, activation
        )
        es = pc.errors(params, xs, y, activation, precision=precision)
        value = loss(network.forward(params, x, activation), y).mean()
        return value, pc.weight_gradients(xs, es, activation), state

    return Rule(f"predictive coding, {method}", stateless, gradient, network.predictor(activation))


def backprops(params: Params, sweeps: float | Float[np.ndarray, "..."]):
    """The matrix products of inference, in units of those of one gradient by backprop.

    A sweep is two products a layer from the second on, the first layer predicts once, and
    backprop makes three products a layer, without the blame for the input.
    """
    first, *rest = (layer.W.size for layer in params)
    return (first + 2 * sum(rest) * sweeps) / (2 * first + 3 * sum(rest))


def init(key: Key[Array, ""], sizes: tuple[int, ...], activation: str = "tanh") -> Params:
    """`network.init`; for the relus, which pass half, hidden weights larger by sqrt 2 (He 2015)."""
    first, *rest = network.init(key, sizes)
    gain = math.sqrt(2) if activation in KINKED else 1.0
    return [first, *(layer._replace(W=gain * layer.W) for layer in rest)]


def residual_init(key: Key[Array, ""], n_in: int, width: int, depth: int, n_out: int) -> dict:
    """Weights ~ N(0, 1) of a residual network of `depth` weight layers, at least 3 of them.

    The hidden ones are one array (depth - 2, width, width): a scan goes through them.
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
    """x_1..x_{L-1} with errors `es` under the scalings of muPC (Innocenti et al. 2025).

    x_1 = W_1 x / sqrt(n_in) + e_1,  x_l = x_{l-1} + W_l phi(x_{l-1}) / sqrt(N L) + e_l.
    """

    def block(below, layer):
        W, e = layer
        return (above := _above(below, W, depth, activation) + e), above

    depth = len(params["hidden"]) + 2
    first = _first(params, x) + es[0]
    return jnp.concatenate([first[None], lax.scan(block, first, (params["hidden"], es[1:]))[1]])


def _first(params, x):
    return checkpoint_name(x @ params["first"].T / math.sqrt(x.shape[1]), "activity")


def _above(x, W, depth, activation):
    """What the activities x predict for the next layer: themselves, and a little more."""
    step = ACTIVATIONS[activation](x) @ jnp.swapaxes(W, -1, -2) / math.sqrt(W.shape[-1] * depth)
    return checkpoint_name(x + step, "activity")


def residual_output(params: dict, x: Float[Array, "batch n_in"], activation: str = "identity"):
    """mu_L = W_L x_{L-1} / N, all errors nought."""
    xs = residual_activities(params, x, jnp.zeros(len(params["hidden"]) + 1), activation)
    return _last(params, xs[-1])


def _last(params, x):
    return x @ params["last"].T / x.shape[-1]


def residual_loss(params: dict, x, y, activation: str = "identity") -> Float[Array, ""]:
    """Squared error of `residual_output`, summed over the batch: what `graph` asks for."""
    return LOSSES["squared error"](residual_output(params, x, activation), y).sum()


@cache
def residual_rule(steps: int = 8, rate: float = 0.3, activation: str = "tanh") -> Rule:
    """Train a residual network by predictive coding: `steps` down the slope in the errors."""
    pc.check_inference(steps, rate, 1.0)
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


class Problem(NamedTuple):
    """What is to be settled: activities `xs` = x_0..x_{L-1} with errors `es` = e_1..e_L."""

    params: Params
    y: Array
    activation: str
    precision: Any

    def errors(self, xs: Activities) -> Activities:
        return pc.errors(self.params, xs, self.y, self.activation, precision=self.precision)

    def energy(self, es: Activities) -> Float[Array, " batch"]:
        """F of each sample, from its errors: e_L = pi (y - mu_L)."""
        return (_dot(es[:-1], es[:-1]) + (es[-1] ** 2).sum(-1) / self.precision) / 2

    def velocities(self, xs: Activities, es: Activities) -> Activities:
        """-dF/dx_l for l = 1..L-1: of a unit that a kink holds, zero."""
        vs = []
        for layer, x, e, above in zip(self.params[1:], xs[1:], es, es[1:]):
            push = above @ layer.W
            bend = self.bend(x, e, push)
            vs.append(jnp.where(bend.held, 0, push * bend.slope - e))
        return vs

    def bend(self, x: Array, e: Array, push: Array) -> "Bend":
        """How phi bends at x, for a unit with the error e that the layer above pushes.

        With a relu many units come to rest at x = 0 exactly: pushed up from below it, pulled
        down from above. Both one-sided slopes of the energy are large there, yet the unit has
        nowhere to go: it is held. If it has, phi's slope is the one on that side.
        """
        slope = ACTIVATIONS[self.activation].slope
        if self.activation not in KINKED:
            return Bend(jnp.ones_like(x), slope(x))
        tiny = jnp.finfo(x.dtype).tiny
        above, below = slope(x + tiny), slope(x - tiny)
        up, down = push * above - e > 0, push * below - e < 0
        to = jnp.where(up, 1, jnp.where(down, -1, 0)).astype(x.dtype)
        return Bend(jnp.where(x == 0, to, jnp.sign(x)), jnp.where(up, above, below))

    def arrive(self, side: Array, new: Array) -> Array:
        """The new activity of a layer: a unit that would leave its side stops on the kink."""
        return jnp.where(side * new > 0, new, 0) if self.activation in KINKED else new

    def up(self, xs: Activities, zs: Activities, bends: list) -> tuple[Activities, Activities]:
        """One pass up: the activities whose errors are `zs`, and all errors e_1..e_L."""
        phi, new, es, r = ACTIVATIONS[self.activation], [xs[0]], [], xs[0]
        for layer, z, bend in zip(self.params, zs, bends):
            mu = predict(layer, r)
            new.append(self.arrive(bend.side, mu + z))
            es.append(new[-1] - mu)
            r = phi(new[-1])
        return new, [*es, self.precision * (self.y - predict(self.params[-1], r))]

    def down(self, xs: Activities, es: Activities) -> tuple[Activities, list]:
        """One pass down: dF/de_l = e_l - d_l for l = 1..L-1, and how each layer bends.

        A unit that is held hands down its own error, whatever pushes it.
        """
        d, slopes, bends = es[-1], [], []
        for layer, x, e in zip(self.params[:0:-1], xs[:0:-1], es[-2::-1]):
            push = d @ layer.W
            bend = self.bend(x, e, push)
            d = jnp.where(bend.held, e, push * bend.slope)
            slopes.insert(0, e - d)
            bends.insert(0, bend)
        return slopes, bends

    def curvature(self, bends: list, moves: Activities) -> Activities:
        """(I + pi J^T J) times `moves` of the errors: a pass up, how all errors move, and down."""
        rise, es = jnp.zeros_like(moves[0]), []
        for layer, move, bend in zip(self.params[1:], moves, bends):
            step = jnp.where(bend.held, 0, rise + move)
            es.append(step - rise)
            rise = (bend.slope * step) @ layer.W.T
        d, out = -self.precision * rise, []
        for layer, e, bend in zip(self.params[:0:-1], es[::-1], bends[::-1]):
            d = jnp.where(bend.held, e, (d @ layer.W) * bend.slope)
            out.insert(0, e - d)
        return out


class Bend(NamedTuple):
    """On which side of zero each unit of a layer is or may go, 0 if held, and the slope of phi."""

    side: Float[Array, "batch _"]
    slope: Float[Array, "batch _"]

    @property
    def held(self) -> Bool[Array, "batch _"]:
        return self.side == 0


class Method(NamedTuple):
    """A way to the equilibrium.

    `step(problem, xs, es, vs, memory, rate)` returns the new activities, errors and memory,
    and the sweeps done. `init(xs, rate)` is the memory at first.
    """

    name: str
    rate: float
    init: Callable[..., Any]
    step: Callable[..., tuple[Activities, Activities, Any, Any]]


def _descent(name: str, optimiser: Callable, coordinates: str = "activities") -> Method:
    """An optax optimiser that descends the energy in the activities or in the errors."""

    def in_activities(problem, xs, es, vs, memory, rate):
        moves, memory = optimiser(rate).update([-v for v in vs], memory)
        new = [
            problem.arrive(jnp.where(x == 0, jnp.sign(v), jnp.sign(x)), x + move)
            for x, v, move in zip(xs[1:], vs, moves)
        ]
        new = [xs[0], *new]
        return new, problem.errors(new), memory, 0.5

    def in_errors(problem, xs, es, vs, memory, rate):
        slopes, bends = problem.down(xs, es)
        moves, memory = optimiser(rate).update(slopes, memory)
        new, es = problem.up(xs, _along(1.0, moves, es[:-1]), bends)
        return new, es, memory, 1.0

    step = {"activities": in_activities, "errors": in_errors}[coordinates]
    return Method(name, 0.1, lambda xs, rate: optimiser(rate).init(xs[1:]), step)


def _gauss_newton(problem, xs, es, vs, memory, rate):
    """Solve for the step by conjugate gradients; halve a sample's step until its energy falls."""
    slopes, bends = problem.down(xs, es)
    moves, products = conjugate_gradients(
        partial(problem.curvature, bends), [-slope for slope in slopes]
    )
    ceiling = problem.energy(es) * (1 + 16 * jnp.finfo(xs[0].dtype).eps)

    def attempt(state):
        *_, lengths, _, trials = state
        new, new_es = problem.up(xs, _along(lengths, moves, es[:-1]), bends)
        fine = problem.energy(new_es) <= ceiling
        return new, new_es, jnp.where(fine, lengths, lengths / 2), fine, trials + 1

    def unfinished(state):
        *_, fine, trials = state
        return (trials < 8) & ~fine.all()

    lengths = jnp.full(len(xs[0]), rate, xs[0].dtype)
    nobody = jnp.zeros(len(xs[0]), bool)
    new, new_es, _, fine, trials = lax.while_loop(unfinished, attempt, (xs, es, lengths, nobody, 0))
    keep = partial(jax.tree.map, lambda new, old: jnp.where(fine[:, None], new, old))
    return keep(new, xs), keep(new_es, es), memory, 0.5 + products + trials / 2


def conjugate_gradients(
    times: Callable, b: Activities, tolerance: float = 0.3, most: int = 12
) -> tuple[Activities, Array]:
    """Solve times(d) = b for every sample at once, and count the products.

    `times` is symmetric and positive definite. Stops when what is left of b is below the
    `tolerance`, a share of its norm, or after `most` products.
    """

    def unfinished(state):
        *_, rr, count = state
        return (count < most) & (rr.sum() > tolerance**2 * _dot(b, b).sum())

    def step(state):
        d, left, p, rr, count = state
        Ap = times(p)
        a = _ratio(rr, _dot(p, Ap))
        d, left = _along(a, p, d), _along(-a, Ap, left)
        new = _dot(left, left)
        return d, left, _along(_ratio(new, rr), p, left), new, count + 1

    zero = jax.tree.map(jnp.zeros_like, b)
    d, *_, count = lax.while_loop(unfinished, step, (zero, b, b, _dot(b, b), 0))
    return d, count


def _closed_form(problem, xs, es, vs, memory, rate):
    """The equilibrium of a linear network: e_L = S^-1 (y - mu_L), e_l = e_L P_l, once up."""
    S, chains = pc.lent_variance(problem.params, problem.precision)
    bends = [Bend(jnp.ones_like(x), jnp.ones_like(x)) for x in xs[1:]]
    _, at_prediction = problem.up(xs, [jnp.zeros_like(x) for x in xs[1:]], bends)
    top = jnp.linalg.solve(S, at_prediction[-1].T / problem.precision).T
    new, es = problem.up(xs, [top @ P for P in chains], bends)
    return new, es, memory, 1.0 + len(S) / len(top) / 2


def _nothing(xs, rate) -> tuple:
    """The memory of a method that has none."""
    return ()


METHODS = Table(
    "method",
    _descent("euler", optax.sgd),
    _descent("momentum", partial(optax.sgd, momentum=0.9)),
    _descent("nesterov", partial(optax.sgd, momentum=0.9, nesterov=True)),
    _descent("adam", optax.adam),
    _descent("errors", optax.sgd, "errors"),
    _descent("errors, nesterov", partial(optax.sgd, momentum=0.9, nesterov=True), "errors"),
    Method("gauss-newton", 1.0, _nothing, _gauss_newton),
    Method("closed form", 1.0, _nothing, _closed_form),
)


@partial(jax.jit, static_argnums=(8, 9, 10))
def _settle(params, x, y, start, rate, tolerance, precision, reference, method, most, activation):
    """The activities, the number of moments, and a row of the record for each number kept."""
    problem, way = Problem(params, y, activation, precision), METHODS[method]
    wanted = None if reference is None else ravel_pytree(reference)[0]

    def look(xs, es):
        """The velocities, and what is kept of a moment."""
        vs = problem.velocities(xs, es)
        distance = jnp.nan
        if wanted is not None:
            update = ravel_pytree(pc.weight_gradients(xs, es, activation))[0]
            distance = jnp.linalg.norm(update - wanted) / jnp.linalg.norm(wanted)
        return vs, (jnp.sqrt(_dot(vs, vs).sum()), problem.energy(es).mean(), distance)

    xs = network.activities(params, x, activation)[:-1]
    es = problem.errors(xs)
    vs, kept = look(xs, es)
    first, sweeps = kept[0], 1.0
    if start is not None:
        xs = [x, *start[1:]]
        es = problem.errors(xs)
        vs, kept = look(xs, es)
        sweeps = 2.0
    ceiling = 100 * kept[1]

    def write(record, n, sweeps, kept):
        return record.at[:, n].set(jnp.stack([sweeps, *kept, first]))

    def unfinished(state):
        *_, record, n = state
        _, velocity, energy, *_ = record[:, n - 1]
        return (n <= most) & (velocity > tolerance * first) & (energy <= ceiling)

    def step(state):
        xs, es, vs, memory, record, n = state
        xs, es, memory, work = way.step(problem, xs, es, vs, memory, rate)
        vs, kept = look(xs, es)
        return xs, es, vs, memory, write(record, n, record[0, n - 1] + work + 0.5, kept), n + 1

    record = write(jnp.full((5, most + 1), jnp.nan, x.dtype), 0, sweeps, kept)
    state = (xs, es, vs, way.init(xs, rate), record, 1)
    xs, *_, record, n = lax.while_loop(unfinished, step, state)
    return xs, n, record


def _dot(a: Activities, b: Activities) -> Float[Array, " batch"]:
    return sum((u * v).sum(-1) for u, v in zip(a, b))


def _along(length, direction: Activities, start: Activities) -> Activities:
    """From `start`, each sample by its own `length`."""
    return [s + jnp.reshape(length, (-1, 1)) * d for s, d in zip(start, direction)]


def _ratio(a, b):
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)
