"""What a learning rule is, and the one loop that trains with any of them.

A rule is a pair of pure functions, in the manner of optax:

    state = init(key, params)                                       synapses of its own
    loss, update, state = gradient(params, state, x, y, key)        as jax.value_and_grad

Backprop, feedback alignment, predictive coding: each is one of these, so `fit` trains
them all, `compare` puts them into one table, and nothing but the rule changes.

`rule` says what a rule is and takes its step, `pairs` reads data, `training` fits, `comparison`
compares, and `recording` keeps JAX from compiling the same program twice.
"""

from pcbook.core.rules.comparison import Comparison, Interval, compare, exceeds, interval
from pcbook.core.rules.rule import (
    Rule,
    accuracy,
    angle,
    begin,
    r_squared,
    stateless,
    step,
    verify,
    without_biases,
)
from pcbook.core.rules.training import Fit, History, fit, learn

__all__ = [
    "Comparison",
    "Fit",
    "History",
    "Interval",
    "Rule",
    "accuracy",
    "angle",
    "begin",
    "compare",
    "exceeds",
    "fit",
    "interval",
    "learn",
    "r_squared",
    "stateless",
    "step",
    "verify",
    "without_biases",
]
