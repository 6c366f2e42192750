"""Learn by predictive coding along a graph: Z-IL, fixed prediction and inference learning.

`value_and_grad` runs one of the three methods; `settle` shows where inference comes to rest, and
`activities`, `predictions` and `errors` return what predictive coding reads and writes at each
vertex.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pcbook.core.arguments import Count, Positive, checked
from pcbook.core.checks import check_count, check_number, check_share, lookup
from pcbook.core.energy import CHATTER, Inference, rose
from pcbook.core.models import Model
from pcbook.core.network import LOSSES
from pcbook.core.pickling import picklable
from pcbook.core.relaxation import Settled, relax_towards
from pcbook.core.rules import Rule, stateless
from pcbook.foundations.graph.cut import Graph
from pcbook.foundations.graph.inference import INFERENCES, Landscape, stable_rate

MOST_STEPS = 200  # of inference, with a tolerance
RATES = {"errors": 0.1, "activities": 0.1, "gauss-newton": 1.0}


@checked
def value_and_grad(
    loss: Callable,
    *,
    method: str = "z-il",
    inference: str = "errors",
    steps: Count | None = None,
    rate: Positive | None = None,
    tolerance: float | None = None,
    precision: Positive = 1.0,
    vertices: str | Sequence[str] = "products",
    has_aux: bool = False,
    argnums: int | Sequence[int] = 0,
) -> Callable:
    """Like `jax.value_and_grad(loss)`, with predictive coding in place of backprop.

    The function that comes back takes what `loss` takes and returns its value, at the
    forward pass, and the update in the place of the gradient: shaped as the arguments
    `argnums`, to be descended by any optimiser. Functions among them, such as the activation of
    an equinox module, are not learned: the update holds None for them, as `equinox` does.

    Args:
        loss: function of pytrees that returns a number, or one for each sample, (batch,). Of
            samples value and update are the mean. With `has_aux` it returns `(loss, aux)`.
        method: `"z-il"`: the error front passes once, and each vertex settles when the
            errors of all its children are there; backprop at rate 1, and on a chain
            `rate**k` of it k vertices below the top. `"fixed-prediction"`: all errors relax
            together for `steps` Euler steps; backprop at the end, and exactly after as many
            steps of rate 1 as the graph is deep (the default). `"inference-learning"`: the
            activities descend the energy, derivatives and all. That is not backprop.
        inference: how inference learning descends. `"errors"`: the errors are the coordinates,
            and each step is as long as the curvature allows (`core.descent`); the energy does
            not end above where it began, and no rate is to be found. `"gauss-newton"`: by
            conjugate gradients to the minimum of a quadratic, and again. `"activities"`: by
            Euler steps, which diverge at a large rate; outside of `jax.jit` a warning says so.
        steps: of inference, at least 1; with a tolerance at most so many. Z-IL takes no number of
            them.
        tolerance: inference ends when the slope of the energy, in each sample, is this share of
            what it was at the start; 1e-3 if no `steps` are given either.
        rate: Euler step size, 1 if it is not given, and 0.1 for activities. Of errors the first
            step, 0.1, and of Gauss-Newton the share of a jump, 1.
        precision: what the loss is multiplied by in the energy of inference learning.
        vertices: `"products"`: each matrix product and convolution, with the bias added to
            it straight away; `"named"`: the values that `checkpoint_name` gave a name; or
            some of these names.
        has_aux: whether `loss` returns `(loss, aux)`; then so does the new function.
        argnums: which of the positional arguments are learned: a number, or several.

    Inference learning needs the sum over the samples: the energy adds the loss to a sum of squares
    over everything, so a mean over a batch of B is a precision of 1/B, nearly backprop. A loss
    that returns a number for each sample is summed, and if every vertex has the samples along
    its first axis, each sample is inferred apart; else all take the same steps.

    Raises ValueError for arguments that do not fit and for a computation that no error can
    pass, naming the operation and the line that asked for it.

    >>> import jax, jax.numpy as jnp
    >>> from pcbook import graph
    >>> loss = lambda W, x: (jnp.tanh(x @ W) ** 2).sum()
    >>> W, x = jnp.eye(3), jnp.ones((2, 3))
    >>> value, update = graph.value_and_grad(loss)(W, x)
    >>> bool(jnp.allclose(update, jax.grad(loss)(W, x)))
    True
    """
    settings = _settings(method, inference, steps, rate, tolerance, precision)
    learn = METHODS[method]

    def value_and_gradient(*args, **kwargs):
        graph = Graph(loss, args, kwargs, vertices, has_aux, argnums)
        value, aux, gradient = learn(graph, settings)
        if graph.samples is not None:
            gradient = [g / graph.samples for g in gradient]
        value = value.mean()
        return ((value, aux) if has_aux else value), graph.as_learned(gradient)

    return value_and_gradient


@checked
def settle(
    loss: Callable,
    *,
    inference: str = "errors",
    steps: Count | None = None,
    rate: Positive | None = None,
    tolerance: float | None = None,
    precision: Positive = 1.0,
    vertices: str | Sequence[str] = "products",
    has_aux: bool = False,
    argnums: int | Sequence[int] = 0,
) -> Callable:
    """Where the inference of inference learning ends, and how it went.

    Returns a function of what `loss` takes. It returns an `Inference`: `activities` is a list of
    arrays in the order of `trace`, `energy` and `velocity` are the energy, of a sample in the
    mean, and the norm of its slope in the coordinates that move, after each step; `sweeps` counts
    the passes, forward and backward, until then. Warns (RuntimeWarning) if the energy of a
    sample ended above its first value, with the largest rate at which Euler steps are stable.
    The arguments are those of `value_and_grad`, and so are the errors raised. Under `jax.jit` and
    `jax.vmap` nobody is warned, and what is recorded of the moments is padded with NaN.

    >>> import jax.numpy as jnp
    >>> from pcbook import graph
    >>> loss = lambda W, x: (jnp.tanh(jnp.tanh(x @ W) @ W) ** 2).sum(-1)
    >>> found = graph.settle(loss)(jnp.eye(3), jnp.ones((2, 3)))
    >>> bool(found.converged), bool(found.energy[-1] < found.energy[0])
    (True, True)
    """
    settings = _settings("inference-learning", inference, steps, rate, tolerance, precision)

    def settled(*args, **kwargs):
        graph = Graph(loss, args, kwargs, vertices, has_aux, argnums)
        land = Landscape(graph, settings.precision)
        first = land.forward()[0][0]
        vs, found = _infer(land, settings, record=True)
        energy, slope, sweeps, count = found.record
        if not isinstance(count, jax.core.Tracer):
            moments = (np.asarray(m)[: int(count)] for m in (energy, slope, sweeps))
            energy, slope, sweeps = moments
        start = settings.precision * (first if land.samples.axes is not None else first.sum())
        diverged = rose(start, found.memory.energy, CHATTER).any()
        _warn_if_diverged(diverged, land, settings, start, found.memory.energy)
        last = jnp.sqrt(found.memory.square.sum())
        residual = last / jnp.where(slope[0] > 0, slope[0], 1)
        return Inference(
            _with_tops(land, vs),
            found.steps,
            found.converged,
            diverged,
            energy,
            slope,
            residual,
            sweeps=sweeps,
        )

    return settled


def _infer(land: Landscape, settings, record: bool = False):
    """The free activities where inference ends, and how it went."""
    options = {"steps": settings.steps, "tolerance": settings.tolerance, "record": record}
    return INFERENCES[settings.inference](land, rate=settings.rate, **options)


def _with_tops(land: Landscape, vs: list) -> list:
    """The activities of all vertices; those that are not inferred are at their predictions."""
    feed = iter(vs)
    fed = [next(feed) if free else None for free in land.free]
    visit = lambda mu, v: (mu, mu) if v is None else (v, v)  # noqa: E731
    return land.graph.walk(land.graph.values, fed, visit)[1]


def _warn_if_diverged(diverged, land: Landscape, settings, first, last) -> None:
    """Warn (RuntimeWarning) if inference diverged, with the largest rate that does not."""
    if isinstance(diverged, jax.core.Tracer) or not diverged:
        return
    if not np.isfinite(first).all():
        message = f"the energy is {np.mean(first)} at the start: look for it in the arguments"
    else:
        message = (
            f"inference = {settings.inference!r} at rate {settings.rate:g} diverged: the energy "
            f"went from {np.mean(first):.3g} to {np.mean(last):.3g}; at the forward pass the "
            f"largest stable rate of Euler steps in the activities is {stable_rate(land):.3g}"
        )
    warnings.warn(message, RuntimeWarning, stacklevel=3)


@checked
def largest_stable_rate(
    loss: Callable,
    *,
    precision: Positive = 1.0,
    vertices: str | Sequence[str] = "products",
    has_aux: bool = False,
    argnums: int | Sequence[int] = 0,
) -> Callable:
    """The rate above which Euler steps in the activities leave the forward pass: 2 / lambda.

    Returns a function of what `loss` takes. lambda is the largest curvature of the energy, found
    by power iteration (`energy.largest_stable_rate`, the same for chains). The arguments are those
    of `value_and_grad`, and so are the errors raised.
    """

    def found(*args, **kwargs):
        graph = Graph(loss, args, kwargs, vertices, has_aux, argnums)
        return stable_rate(Landscape(graph, precision))

    return found


@checked
@picklable
def rule(
    model: Model,
    loss: str | Callable = "squared error",
    *,
    method: str = "inference-learning",
    **options,
) -> Rule:
    """The rule that trains a model by predictive coding along its graph.

    The model is any `Model(name, init, apply)`: one of `pcbook.models`, or one of equinox,
    flax or plain JAX, whose `init(key)` draws a pytree of arrays. `loss` is a name or a function
    (prediction, y) -> (batch, ...), summed over all but the first axis. Each sample is inferred
    apart, as `value_and_grad` says, and the update is the mean. The `options` are those of
    `value_and_grad`, and so are the errors raised.

    >>> import jax, optax
    >>> from pcbook import data, graph, models, rules
    >>> model = models.cnn((1, 4, 8))
    >>> rule = graph.rule(model, "cross entropy", method="z-il")
    >>> found = rules.fit(rule, model.init(jax.random.key(0)), data.digits(), epochs=1,
    ...                   batch_size=32, optimizer=optax.adam(0.01), key=jax.random.key(1))
    >>> bool(found.history.score[-1] > 0.5)
    True
    """
    of_each = lookup(LOSSES, loss=loss) if isinstance(loss, str) else loss

    def losses(params, x, y):
        values = of_each(model.apply(params, x), y)
        return values.reshape(len(values), -1).sum(1)

    learn = value_and_grad(losses, method=method, **options)

    def gradient(params, state, x, y, key):
        return *learn(params, x, y), state

    return Rule(f"{method}, {model.name}", stateless, gradient, model.apply)


@checked
def activities(
    loss: Callable, *, vertices: str | Sequence[str] = "products", **options
) -> Callable:
    """The activities of the vertices at the forward pass: a function of what `loss` takes.

    It returns a list of arrays in the order of `trace`; a vertex in a scan has a leading time
    axis. The `options` are `has_aux` and `argnums`, as for `value_and_grad`.
    """

    def at_the_forward_pass(*args, **kwargs):
        graph = Graph(loss, args, kwargs, vertices, **options)
        return graph.walk(graph.values, [None] * len(graph.shapes), lambda mu, _: (mu, mu))[1]

    return at_the_forward_pass


@checked
def predictions(
    loss: Callable, *, vertices: str | Sequence[str] = "products", **options
) -> Callable:
    """What each vertex is predicted to be by the activities of its parents, whatever these are.

    Returns a function of the activities (as `activities` gives them) and of what `loss` takes.
    It returns the loss and a list of predictions mu_i: everything that predictive coding reads.
    """

    def piece_by_piece(vs, *args, **kwargs):
        graph = Graph(loss, args, kwargs, vertices, **options)
        outs, mus = graph.walk(graph.values, vs, lambda mu, v: (v, mu))
        return outs[0], mus

    return piece_by_piece


@checked
def errors(
    loss: Callable,
    *,
    steps: Count | None = None,
    rate: Positive = 1.0,
    vertices: str | Sequence[str] = "products",
    **options,
) -> Callable:
    """The errors as fixed prediction relaxes them, at each of the `steps` + 1 moments.

    Returns a function of what `loss` takes. It returns a list of arrays in the order of
    `trace`, the moments along the first axis. At the end they are minus the gradients of the
    loss in the activities.
    """
    settings = _settings("fixed-prediction", "errors", steps, rate, None, 1.0)

    def relaxed(*args, **kwargs):
        graph = Graph(loss, args, kwargs, vertices, **options)
        return _relax_errors(_hold(graph), graph, settings, trajectory=True).path

    return relaxed


def _z_il(graph, settings):
    """One reverse pass, and at every vertex it stops: the errors arrive, the activity moves.

    Each takes one Euler step from where it began: from the error that the loss itself gives it
    (none, if the loss does not read it), towards the sum of what its children send.
    """
    rate = settings.rate
    start = [None] * len(graph.shapes) if rate == 1 else _hold(graph).start

    def loss(inputs):
        outs, _ = graph.walk(inputs, start, lambda mu, e: (_vertex(mu, e, rate), None))
        value, aux = graph.split(outs)
        return value.sum(), (value, aux)

    (_, (value, aux)), gradient = jax.value_and_grad(loss, has_aux=True)(graph.values)
    return value, aux, gradient


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _vertex(mu, start, rate):
    """A vertex on the way up: the prediction passes. `_settle` is the same on the way down."""
    return mu


def _settle(rate, start, arrived):
    """The error with which a vertex settles; JAX's reverse pass carries -e."""
    if start is None:
        return arrived, None
    return -start + rate * (arrived + start), jnp.zeros_like(start)


_vertex.defvjp(lambda mu, start, rate: (mu, start), _settle)


def _fixed_prediction(graph, settings):
    """All errors at once take `steps` steps towards what their children send."""
    held = _hold(graph)
    es = _relax_errors(held, graph, settings).state
    return held.value, held.aux, [-dw for dw in held.update(es)]


def _relax_errors(held, graph, settings, trajectory=False) -> Settled:
    """Relax all errors towards what their children send, de/dt = -e + sent."""
    steps = graph.depth if settings.steps is None else settings.steps
    options = {"steps": steps, "rate": settings.rate, "trajectory": trajectory}
    return relax_towards(held.send, held.start, **options)


class _Held(NamedTuple):
    """The forward pass, with the derivative of every piece between two cuts held where it is.

    `send(es)` is what reaches each vertex from its children, the loss among them, when the
    errors are `es`; `start` is what the loss alone sends; `update(es)` is (dmu/dW)^T e.
    """

    value: Any
    aux: Any
    send: Callable
    start: list
    update: Callable


def _hold(graph) -> _Held:
    """Run the forward pass, and keep the derivatives."""

    def pieces(inputs, activities):
        outs, mus = graph.walk(inputs, activities, lambda mu, v: (_cut_at(mu, v), mu))
        value, aux = graph.split(outs)
        return (value, mus), aux

    none = [jnp.zeros(shape.shape, shape.dtype) for shape in graph.shapes]
    (value, _), back, aux = jax.vjp(pieces, graph.values, none, has_aux=True)

    def passed(es):
        return back((-jnp.ones_like(value), es))

    def send(es):
        return passed(es)[1]

    return _Held(value, aux, send, send(none), lambda es: passed(es)[0])


@jax.custom_jvp
def _cut_at(mu, v):
    """A cut at the forward pass: the value of the prediction, the derivative of the activity."""
    return mu


_cut_at.defjvp(lambda primals, tangents: (primals[0], tangents[1]))


def _inference_learning(graph, settings):
    """The activities descend the energy, and then the weights do, once."""
    land = Landscape(graph, settings.precision)
    value, aux = graph.split(land.forward()[0])
    vs, _ = _infer(land, settings)

    def energy(values):
        energies = land.of_activities(values, vs)
        return energies.sum(), energies

    (_, last), gradient = jax.value_and_grad(energy, has_aux=True)(graph.values)
    first = settings.precision * (value if land.samples.axes is not None else value.sum())
    _warn_if_diverged(rose(first, last, CHATTER).any(), land, settings, first, last)
    return value, aux, gradient


METHODS = {
    "z-il": _z_il,
    "fixed-prediction": _fixed_prediction,
    "inference-learning": _inference_learning,
}


class _Settings(NamedTuple):
    """What `value_and_grad` was asked for, with the defaults of the method."""

    inference: str
    steps: int | None
    rate: Any
    tolerance: float | None
    precision: Any


def _settings(method, inference, steps, rate, tolerance, precision) -> _Settings:
    """Raise ValueError unless the method is known and its numbers make sense for it."""
    lookup(METHODS, method=method)
    learns = method == "inference-learning"
    default = lookup(RATES, inference=inference) if learns else 1.0
    if method == "z-il":
        allowed = "left out for z-il, whose front passes once"
        check_number(allowed, lambda given: given is None, steps=steps)
    elif steps is not None:
        check_count(steps=steps)
    if tolerance is not None:
        allowed = f"left out for {method}, which takes steps"
        check_number(allowed, lambda given: learns, tolerance=tolerance)
        check_share(tolerance=tolerance)
    if learns and steps is None:
        steps, tolerance = MOST_STEPS, 1e-3 if tolerance is None else tolerance
    rate = default if rate is None else rate
    rate = rate if isinstance(rate, jax.Array) else float(rate)
    return _Settings(inference, steps, rate, tolerance, precision)
