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

`program` reads and runs a computation, `dependencies` follows what depends on what, `choose` and
`cut` make a graph of a loss, `inference` finds the equilibrium of its energy, `methods` learn
along it, `describe` and `drawing` show it, `claims`
are judged in the chapter.

Chapter: book/foundations/graph.ipynb
"""

from pcbook.foundations.graph import claims
from pcbook.foundations.graph.describe import Trace, Vertex, trace
from pcbook.foundations.graph.drawing import draw
from pcbook.foundations.graph.methods import (
    METHODS,
    activities,
    errors,
    largest_stable_rate,
    predictions,
    rule,
    settle,
    value_and_grad,
)

__all__ = [
    "METHODS",
    "Trace",
    "Vertex",
    "activities",
    "claims",
    "draw",
    "errors",
    "largest_stable_rate",
    "predictions",
    "rule",
    "settle",
    "trace",
    "value_and_grad",
]
