"""Predictive coding along any graph: one line instead of backprop.

Cut a computation at some of its values, the vertices. Vertex i holds an activity v_i, its
prediction mu_i = f_i(activities of its parents), and the error of that prediction,

    e_i = v_i - mu_i,        F = loss + sum_i |e_i|^2 / 2.

What lies between two cuts is one local operation, and an error passes it backwards by that
operation's own derivative. With the derivatives held where the forward pass left them,

    de_i/dt = -e_i + sum_{children j} (dmu_j/dv_i)^T e_j,        dW = (dmu_i/dW)^T e_i,

rests exactly where backprop would have put it (Millidge et al. 2020, sec. 3). No vertex
waits for a signal from the far end of the graph, and none knows that there is one.

    loss, gradient = jax.value_and_grad(loss)(params, x, y)          before
    loss, gradient = graph.value_and_grad(loss)(params, x, y)        after

Chapter: book/foundations/graph.ipynb
"""

import math
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from matplotlib.figure import Figure

from pcbook.foundations.graph import program as _program
from pcbook.show import explore

# XLA has no fast convolution for a CPU inside a loop: so few steps are written out.
WRITTEN_OUT = 4


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
    `argnums`, to be descended by any optimiser.

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
    """
    _check(method, steps, rate)
    learn = METHODS[method]

    def value_and_gradient(*args, **kwargs):
        graph = _Graph(loss, args, kwargs, vertices, has_aux, argnums)
        value, aux, gradient = learn(graph, steps, float(rate))
        return ((value, aux) if has_aux else value), jax.tree.unflatten(graph.inputs, gradient)

    return value_and_gradient


def activities(
    loss: Callable, *, vertices: str | Sequence[str] = "products", **options
) -> Callable:
    """The activities of the vertices at the forward pass: a function of what `loss` takes.

    It returns a list of arrays in the order of `trace`; a vertex in a scan has a leading time
    axis. The `options` are `has_aux` and `argnums`, as for `value_and_grad`.
    """

    def at_the_forward_pass(*args, **kwargs):
        graph = _Graph(loss, args, kwargs, vertices, **options)
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
        graph = _Graph(loss, args, kwargs, vertices, **options)
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
        graph = _Graph(loss, args, kwargs, vertices, **options)
        held = _hold(graph)

        def step(es, _):
            es = [_euler(e, sent, rate) for e, sent in zip(es, held.send(es))]
            return es, es

        _, path = lax.scan(step, held.start, length=graph.depth if steps is None else steps)
        return [jnp.concatenate([first[None], rest]) for first, rest in zip(held.start, path)]

    return relaxed


class Trace(list):
    """The vertices of a graph in the order in which they are computed; printed, a table.

    `parents[i]` are the places in this list of the vertices that vertex i reads, and
    `read_by_loss` of those that the loss reads. `depth` is the number of steps of rate 1 after
    which fixed prediction is complete.
    """

    parents: list[tuple[int, ...]]
    read_by_loss: tuple[int, ...]

    @property
    def depth(self) -> int:
        return max(vertex.depth for vertex in self)

    def __repr__(self):
        rows = [("vertex", "shape", "depth", "line")]
        for v in self:
            shape = " x ".join(map(str, v.shape)) or "1"
            rows.append(
                (
                    v.name,
                    shape + (f", {v.steps} times" if v.steps > 1 else ""),
                    str(v.depth),
                    f"{v.line}: {v.code}",
                )
            )
        widths = [max(map(len, column)) for column in zip(*rows)]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows
        )


def trace(loss: Callable, *, vertices: str | Sequence[str] = "products", **options) -> Callable:
    """Where `loss` is cut: a function of what `loss` takes that returns its `Trace`.

    Nothing is computed, and every `Vertex` tells its name, shape, depth below the loss, and the
    line of code that made it.
    """

    def traced(*args, **kwargs):
        graph = _Graph(loss, args, kwargs, vertices, **options)
        return graph.described()

    return traced


def draw(graph: Trace, errors: Sequence | None = None, *, most: float | None = None) -> Figure:
    """The picture of a graph: a disc for each vertex, the loss at the right, arrows between.

    A vertex in a scan is a row of discs, one a time step. The larger a disc, the larger the
    error in `errors` (one array a vertex, as from `errors` at one moment): its area goes with the
    root mean square over `most`, by default that of the largest.
    """
    places, times = _places(graph)
    rows = 1 + 2 * max(abs(y) for _, y in places.values())
    figure, axes = explore.figure(height=1.4 + 0.4 * rows)
    for (a, b), bend in _edges(graph, times):
        style = {
            "arrowstyle": "-|>",
            "connectionstyle": f"arc3,rad={bend}",
            "shrinkA": 4,
            "shrinkB": 4,
        }
        axes.annotate("", places[b], places[a], arrowprops={"color": "0.46", "alpha": 0.5, **style})
    axes.scatter(*zip(*places.values()), s=14, color="0.46", zorder=3)
    if errors is not None:
        sizes = {}
        for i, e in enumerate(errors):
            squares = np.square(np.asarray(e, float)).reshape(times[i], -1).mean(1)
            sizes |= {places[i, t]: math.sqrt(square) for t, square in enumerate(squares)}
        most = most or max(sizes.values()) or 1.0
        area = [260 * min(1.0, size / most) for size in sizes.values()]
        axes.scatter(*zip(*sizes), s=area, color="C1", zorder=4)
    axes.plot(*places[None], marker="s", color="C0", markersize=9, zorder=5)
    axes.annotate("loss", places[None], (0, 10), textcoords="offset points", ha="center")
    axes.margins(0.06, 0.3)
    axes.axis("off")
    return figure


def _places(graph):
    """Where each vertex stands at each of its times (the loss: None), and how often it is."""
    times = [v.steps for v in graph]
    last = max(times) if max(times) > 1 else 0
    columns = {}
    for i, v in enumerate(graph):
        columns.setdefault("times" if last else v.depth, []).append(i)
    places = {None: (last + 1 if last else 1, 0.0)}
    for members in columns.values():
        for row, i in enumerate(members):
            for t in range(times[i]):
                places[i, t] = (
                    t if times[i] > 1 else last - graph[i].depth,
                    (len(members) - 1) / 2 - row,
                )
    return places, times


def _edges(graph, times):
    """Pairs of places, from parent to child, and how much the arrow between them bends."""
    for child, parents in [*enumerate(graph.parents), (None, graph.read_by_loss)]:
        for parent in parents:
            n, m = times[parent], 1 if child is None else times[child]
            bend = 0.0
            if child is None:
                pairs = [((parent, t), None) for t in range(n)]
                bend = 0.15 if graph[parent].depth else 0.0
            elif n > 1 and m == n:
                late = int(parent >= child)
                pairs = [((parent, t), (child, t + late)) for t in range(n - late)]
            else:
                pairs = [((parent, n - 1), (child, 0))]
                bend = 0.25 if graph[parent].depth - graph[child].depth > 1 else 0.0
            for pair in pairs:
                yield pair, bend


# ---------------------------------------------------------------------------- the three methods


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
    return _euler(-start, arrived, rate), jnp.zeros_like(start)


_vertex.defvjp(lambda mu, start, rate: (mu, start), _settle)


def _euler(e, target, rate):
    return target if rate == 1 else e + rate * (target - e)


def _fixed_prediction(graph, steps, rate):
    """All errors at once take `steps` steps towards what their children send."""
    held = _hold(graph)

    def step(_, es):
        return [_euler(e, sent, rate) for e, sent in zip(es, held.send(es))]

    steps = graph.depth if steps is None else steps
    es = lax.fori_loop(0, steps, step, held.start, unroll=steps <= WRITTEN_OUT)
    return held.value, held.aux, [-dw for dw in held.update(es)]


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

    def step(_, vs):
        return jax.tree.map(
            lambda v, slope: v - rate * slope, vs, jax.grad(_energy(graph), 1)(graph.values, vs)
        )

    vs = lax.fori_loop(0, steps, step, inferred)
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
    if method not in METHODS:
        raise ValueError(f"method = {method!r}: must be one of {', '.join(map(repr, METHODS))}")
    if not isinstance(rate, (int, float, np.number)) or not 0 < rate < math.inf:
        raise ValueError(f"rate = {rate!r}: must be a positive number")
    if method == "z-il" and steps is not None:
        raise ValueError(f"steps = {steps!r}: must be left out for z-il, whose front passes once")
    if method == "inference-learning" and steps is None:
        raise ValueError(
            "steps = None: must be given for inference-learning; 20 is usual, at rate=0.1"
        )
    if steps is not None and (
        isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1
    ):
        raise ValueError(f"steps = {steps!r}: must be an integer of at least 1")


# ---------------------------------------------------------------------------- the graph


class _Graph:
    """A loss at its arguments, as a program, with its vertices."""

    def __init__(self, loss, args, kwargs, vertices="products", has_aux=False, argnums=0):
        if not callable(loss):
            raise ValueError(f"loss = {loss!r}: must be a function")
        if vertices not in ("products", "named") and (isinstance(vertices, str) or not vertices):
            raise ValueError(
                f"vertices = {vertices!r}: must be 'products', 'named' or a tuple of names"
            )
        learned, join = _learned(argnums, args)
        self.values, self.inputs = jax.tree.flatten(learned)
        for value in self.values:
            if not jnp.issubdtype(jnp.result_type(value), jnp.inexact):
                raise ValueError(
                    f"argnums = {argnums!r}: what is learned must be real numbers, not {value!r}"
                )

        def flat(*values):
            out = loss(*join(jax.tree.unflatten(self.inputs, values)), **kwargs)
            if has_aux and not (isinstance(out, tuple) and len(out) == 2):
                raise ValueError(
                    f"has_aux = True: loss must return a pair (value, aux), not {out!r}"
                )
            value, aux = out if has_aux else (out, None)
            if not _is_number(value):
                raise ValueError(f"loss: must return one real number, not {value!r}")
            return value, aux

        closed, (_, aux) = jax.make_jaxpr(flat, return_shape=True)(*self.values)
        self.aux = jax.tree.structure(aux)
        self.program = _program.read(closed)
        self.vertices = _program.choose(self.program, vertices)
        self.shapes = _program.shapes(self.program, self.vertices)

    def walk(self, inputs, feed, visit):
        return _program.walk(self.program, self.vertices, inputs, feed, visit)

    def split(self, outs):
        """The loss, and what came beside it."""
        return outs[0], jax.tree.unflatten(self.aux, outs[1:])

    @cached_property
    def depths(self) -> list[int]:
        """How many vertices lie between each vertex and the loss, on the longest way."""
        found = _program.depths(self.program, self.vertices)
        return [found[number] for number, _ in _program.slots(self.program, self.vertices)]

    @property
    def depth(self) -> int:
        return max(self.depths)

    def described(self) -> Trace:
        numbers = [number for number, _ in _program.slots(self.program, self.vertices)]
        read = _program.parents(self.program, self.vertices)
        places = {who: tuple(sorted(numbers.index(n) for n in read[who])) for who in read}
        described = Trace(_program.describe(self.program, self.vertices))
        described.parents = [places[number] for number in numbers]
        described.read_by_loss = places[None]
        return described


def _is_number(value) -> bool:
    known = isinstance(value, (jax.Array, np.ndarray, np.generic, float))
    return known and np.shape(value) == () and jnp.issubdtype(jnp.result_type(value), jnp.floating)


def _learned(argnums, args):
    """The arguments that are learned, and the function that puts them back among the others."""
    numbers = (argnums,) if isinstance(argnums, (int, np.integer)) else tuple(argnums)
    if not numbers or not all(
        isinstance(n, (int, np.integer)) and -len(args) <= n < len(args) for n in numbers
    ):
        raise ValueError(
            f"argnums = {argnums!r}: must name some of the {len(args)} positional arguments"
        )

    def join(learned):
        full = list(args)
        for n, value in zip(
            numbers, (learned,) if isinstance(argnums, (int, np.integer)) else learned
        ):
            full[n] = value
        return full

    picked = tuple(args[n] for n in numbers)
    return (picked[0] if isinstance(argnums, (int, np.integer)) else picked), join
