"""Fast inference: what the equilibrium costs, and methods that reach it sooner.

Predictive coding learns at the equilibrium of its energy. Gradient descent on the activities
needs many small steps to get there, and costs a hundred times what backprop does. Other methods
need fewer. Descend the energy in the *errors* instead of the activities: given e_1..e_{L-1}, one
pass up computes the activities, and one pass down the gradient,

    x_l = mu_l + e_l,        dF/de_l = e_l - d_l,        d_l = (d_{l+1} W_{l+1}) * phi'(x_l),

with d_L = e_L, so that the target acts on every layer at once (Goemaere et al. 2025). In these
coordinates the curvature is close to the identity, and Gauss-Newton solves

    (I + pi J^T J) de = -dF/de,        J = dmu_L/de,

by a few conjugate gradients, each about the cost of an Euler step. Barzilai-Borwein descent
(`core.descent`) reads the curvature along its way off its last step, at one sweep a step. The
unit of work is the *sweep*: one pass up and one pass down through the layers 2..L.

`problem` holds the energy and its derivatives, `solver` conjugate gradients, `methods` the
methods, `inference` runs them and makes a learning rule of them, `mupc` holds a residual network
that can be deep, and `claims` the criteria of the chapter's claims.

Chapter: book/inference/fast_inference.ipynb
"""

from pcbook.inference.fast_inference import claims
from pcbook.inference.fast_inference.inference import backprops, infer, rule
from pcbook.inference.fast_inference.methods import METHODS
from pcbook.inference.fast_inference.mupc import (
    residual,
    residual_activities,
    residual_energy,
    residual_rule,
)
from pcbook.inference.fast_inference.problem import Problem, init

__all__ = [
    "METHODS",
    "Problem",
    "backprops",
    "claims",
    "infer",
    "init",
    "residual",
    "residual_activities",
    "residual_energy",
    "residual_rule",
    "rule",
]
