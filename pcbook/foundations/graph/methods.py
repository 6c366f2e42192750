"""Learn by predictive coding along a graph: Z-IL, fixed prediction and inference learning.

`value_and_grad` runs one of the three methods; `activities`, `predictions` and `errors` return
what predictive coding reads and writes at each vertex.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pcbook.core.checks import check_count, check_number, check_positive, lookup
from pcbook.core.models import Model
from pcbook.core.network import LOSSES
from pcbook.core.pickling import picklable
from pcbook.core.relaxation import Settled, relax, relax_towards
from pcbook.core.rules import Rule, stateless
from pcbook.foundations.graph.cut import Graph


def value_and_grad(
    loss: Callable,
    *,
    method: str = "z-il",
    steps: int | None = None,
    rate: float | int = 1.0,
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
        loss: function of pytrees that returns a number, or `(number, aux)` with `has_aux`.
        method: `"z-il"`: the error front passes once, and each vertex settles when the
            errors of all its children are there; backprop at rate 1, and on a chain
            `rate**k` of it k vertices below the top. `"fixed-prediction"`: all errors relax
            together for `steps` Euler steps; backprop at the end, and exactly after as many
            steps of rate 1 as the graph is deep (the default). `"inference-learning"`: the
            activities descend the energy, derivatives and all. That is not backprop.
        steps: Euler steps, at least 1. Z-IL takes no number of them, inference learning needs one.
        rate: Euler step size, above 0. At rate 1 inference learning mostly diverges: try 0.1.
        vertices: `"products"`: each matrix product and convolution, with the bias added to
            it straight away; `"named"`: the values that `checkpoint_name` gave a name; or
            some of these names.
        has_aux: whether `loss` returns `(number, aux)`; then so does the new function.
        argnums: which of the positional arguments are learned: a number, or several.

    Scale matters to inference learning: its energy adds the loss to a sum of squares over
    everything, so a mean over a batch of B is the limit lambda = 1/B, nearly backprop. Give
    it the sum over the batch, or one sample under `jax.vmap`.

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
    _check(method, steps, rate)
    learn = METHODS[method]

    def value_and_gradient(*args, **kwargs):
        graph = Graph(loss, args, kwargs, vertices, has_aux, argnums)
        value, aux, gradient = learn(graph, steps, float(rate))
        return ((value, aux) if has_aux else value), graph.as_learned(gradient)

    return value_and_gradient


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
    (prediction, y) -> (batch,). The energy adds the sum of the loss over the batch, and the
    update is the mean. The `options` are those of `value_and_grad`, and so are the errors raised.

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
    learn = value_and_grad(
        lambda params, x, y: of_each(model.apply(params, x), y).sum(), method=method, **options
    )

    def gradient(params, state, x, y, key):
        value, update = learn(params, x, y)
        return value / len(x), jax.tree.map(lambda u: u / len(x), update), state

    return Rule(f"{method}, {model.name}", stateless, gradient, model.apply)


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


def errors(
    loss: Callable,
    *,
    steps: int | None = None,
    rate: float | int = 1.0,
    vertices: str | Sequence[str] = "products",
    **options,
) -> Callable:
    """The errors as fixed prediction relaxes them, at each of the `steps` + 1 moments.

    Returns a function of what `loss` takes. It returns a list of arrays in the order of
    `trace`, the moments along the first axis. At the end they are minus the gradients of the
    loss in the activities.
    """
    _check("fixed-prediction", steps, rate)

    def relaxed(*args, **kwargs):
        graph = Graph(loss, args, kwargs, vertices, **options)
        return _relax_errors(_hold(graph), graph, steps, rate, trajectory=True).path

    return relaxed


def _z_il(graph, steps, rate):
    """One reverse pass, and at every vertex it stops: the errors arrive, the activity moves.

    Each takes one Euler step from where it began: from the error that the loss itself gives it
    (none, if the loss does not read it), towards the sum of what its children send.
    """
    start = [None] * len(graph.shapes) if rate == 1 else _hold(graph).start

    def loss(inputs):
        outs, _ = graph.walk(inputs, start, lambda mu, e: (_vertex(mu, e, rate), None))
        return graph.split(outs)

    (value, aux), gradient = jax.value_and_grad(loss, has_aux=True)(graph.values)
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


def _fixed_prediction(graph, steps, rate):
    """All errors at once take `steps` steps towards what their children send."""
    held = _hold(graph)
    es = _relax_errors(held, graph, steps, rate).state
    return held.value, held.aux, [-dw for dw in held.update(es)]


def _relax_errors(held, graph, steps, rate, trajectory=False) -> Settled:
    """Relax all errors towards what their children send, de/dt = -e + sent."""
    steps = graph.depth if steps is None else steps
    return relax_towards(held.send, held.start, steps=steps, rate=rate, trajectory=trajectory)


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


def _inference_learning(graph, steps, rate):
    """The activities descend the energy, and then the weights do, once.

    Where the loss alone reads a vertex there is nothing to infer: its error is the loss's.
    """
    outs, mus = graph.walk(graph.values, [None] * len(graph.shapes), lambda mu, _: (mu, mu))
    inferred = [mu if depth > 0 else None for mu, depth in zip(mus, graph.depths)]
    if any(jnp.iscomplexobj(v) for v in inferred):
        raise ValueError(
            "method = 'inference-learning': complex activities have no energy here; cut elsewhere"
        )

    def velocity(vs):
        return jax.tree.map(jnp.negative, jax.grad(_energy(graph), 1)(graph.values, vs))

    vs = relax(velocity, inferred, steps=steps, rate=rate).state
    return *graph.split(outs), jax.grad(_energy(graph))(graph.values, vs)


def _energy(graph):
    """F = loss + sum_i |v_i - mu_i|^2 / 2; a vertex without an activity takes its prediction."""

    def energy(inputs, vs):
        outs, mus = graph.walk(inputs, vs, lambda mu, v: (mu if v is None else v, mu))
        return outs[0] + sum(((v - mu) ** 2).sum() / 2 for v, mu in zip(vs, mus) if v is not None)

    return energy


METHODS = {
    "z-il": _z_il,
    "fixed-prediction": _fixed_prediction,
    "inference-learning": _inference_learning,
}


def _check(method, steps, rate):
    """Raise ValueError unless the method is known and its numbers make sense for it."""
    lookup(METHODS, method=method)
    check_positive(rate=rate)
    if method == "z-il":
        allowed = "left out for z-il, whose front passes once"
        check_number(allowed, lambda given: given is None, steps=steps)
    elif method == "inference-learning" or steps is not None:
        check_count(steps=steps)
