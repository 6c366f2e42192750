"""The picture of a graph, and of the errors at its vertices."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from pcbook.foundations.graph.describe import Trace
from pcbook.show import explore


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
