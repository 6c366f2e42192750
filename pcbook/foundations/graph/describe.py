"""A description of a graph: its vertices, where each comes from, and who reads it."""

import math
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pcbook.core.arguments import checked
from pcbook.foundations.graph.cut import Graph
from pcbook.foundations.graph.dependencies import parents
from pcbook.foundations.graph.program import every_aval, slots, where


class Vertex(NamedTuple):
    """A place where the graph is cut: it holds an activity and a prediction error.

    `depth` counts the vertices on the longest way from this one to the loss: 0 is read by the
    loss alone, and at rate 1 an error needs `depth` steps to come down here complete.
    `steps` is how often a scan goes through it (1 outside a scan); the shape is that of one time.
    """

    name: str
    shape: tuple
    depth: int
    steps: int
    line: int
    code: str
    file: str


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
        rows = [("vertex", "shape", "depth", "line"), *map(_row, self)]
        widths = [max(map(len, column)) for column in zip(*rows)]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows
        )


def _row(vertex: Vertex) -> tuple[str, str, str, str]:
    """The cells of a vertex in the table."""
    shape = " x ".join(map(str, vertex.shape)) or "1"
    times = f", {vertex.steps} times" if vertex.steps > 1 else ""
    return vertex.name, shape + times, str(vertex.depth), f"{vertex.line}: {vertex.code}"


@checked
def trace(loss: Callable, *, vertices: str | Sequence[str] = "products", **options) -> Callable:
    """Where `loss` is cut: a function of what `loss` takes that returns its `Trace`.

    Nothing is computed, and every `Vertex` tells its name, shape, depth below the loss, and the
    line of code that made it. The `options` are `has_aux` and `argnums`, as for `value_and_grad`.
    """

    def traced(*args, **kwargs):
        return _describe(Graph(loss, args, kwargs, vertices, **options))

    return traced


def _describe(graph: Graph) -> Trace:
    numbers = [number for number, _ in slots(graph.program, graph.vertices)]
    read = parents(graph.program, graph.vertices)
    places = {who: tuple(sorted(numbers.index(n) for n in read[who])) for who in read}
    described = Trace(_vertices(graph))
    described.parents = [places[number] for number in numbers]
    described.read_by_loss = places[None]
    return described


def _vertices(graph: Graph) -> list[Vertex]:
    avals = every_aval(graph.program)
    described = []
    for (number, times), depth in zip(slots(graph.program, graph.vertices), graph.depths):
        name, op = graph.vertices[number]
        file, line, code = where(op.eqn)
        shape, steps = tuple(avals[number].shape), math.prod(times)
        described.append(Vertex(name, shape, depth, steps, line, code, os.path.basename(file)))
    return described
