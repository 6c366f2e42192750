"""Chips that differ: each multiplies the weights written to it by gains that nobody knows.

    W_effective = g * W,        log g ~ N(0, spread^2).

Weights learned on one chip compute something else on the next. A rule can learn in the loop, from
what the chip computes, without knowing its gains; and a chip can teach the next one by its
outputs alone (distillation: Hinton et al. 2015; Hinton 2022, sec. 9).
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax, random
from jaxtyping import Array, Float, Key

from pcbook.core import network
from pcbook.core.arguments import Count, checked
from pcbook.core.checks import check_alike, check_number
from pcbook.core.network import Params
from pcbook.core.pickling import picklable
from pcbook.core.relaxation import Number
from pcbook.core.rules import Rule, accuracy, learn
from pcbook.store.data import Dataset


@checked
def device(key: Key[Array, ""], params: Params, spread: Number) -> Params:
    """Draw a chip: the gain exp(spread N(0, 1)) of each of its synapses and biases.

    Half of the gains are above 1; at a spread of 0.5, two thirds are between 0.6 and 1.6.
    Raises ValueError for a spread < 0.
    """
    _check_spread(spread)
    leaves, tree = jax.tree.flatten(params)
    keys = random.split(key, len(leaves))
    return tree.unflatten(
        [jnp.exp(spread * random.normal(k, leaf.shape)) for k, leaf in zip(keys, leaves)]
    )


@checked
def apply_gains(chip: Params, params: Params) -> Params:
    """The effective parameters: gains times the parameters written to the chip."""
    check_alike("params", params, chip=chip)
    return jax.tree.map(jnp.multiply, chip, params)


@checked
@picklable
def in_the_loop(rule: Rule, chip: Params) -> Rule:
    """The rule that learns from what the chip computes, without knowing its gains.

    The update for the effective parameters is applied to the nominal ones. Their true gradient
    is gain times update; as every gain is positive, each synapse keeps the sign of its update.
    """

    def gradient(params, *others):
        return rule.gradient(apply_gains(chip, params), *others)

    return rule._replace(
        gradient=gradient, predict=lambda params, x: rule.predict(apply_gains(chip, params), x)
    )


class Generations(NamedTuple):
    """Test accuracy (0 to 1) of each generation on its own chip.

    `learned` is after its own training. `inherited` is with the weights of the generation
    before, copied to the chip unchanged; for the first, with untrained weights.
    """

    inherited: Float[Array, " generations"]
    learned: Float[Array, " generations"]


@checked
def generations(
    rule: Rule,
    dataset: Dataset,
    sizes: tuple[Count, ...],
    *,
    spread: Number,
    count: int,
    optimizer: optax.GradientTransformation,
    updates: Count,
    batch_size: Count,
    key: Key[Array, ""],
) -> Generations:
    """Train the first chip on labels, and each later one on the outputs of the chip before it.

    Distillation: the targets of a later generation are the probabilities that its teacher gives
    to each class of each training image. Every generation starts from new weights and learns
    from `updates` batches. The data set is an argument of the compiled program; inside an outer
    `jax.jit` it would be a constant, so map over keys by `jax.vmap` alone. Raises ValueError for
    count < 2 or spread < 0.
    """
    if count < 2:
        raise ValueError(f"count = {count}: must be at least 2 generations")
    _check_spread(spread)
    return _generations(
        dataset.x_train,
        dataset.y_train,
        (dataset.x_test, dataset.y_test),
        spread,
        key,
        rule=rule,
        sizes=sizes,
        count=count,
        optimizer=optimizer,
        updates=updates,
        batch_size=batch_size,
    )


@partial(jax.jit, static_argnames=("rule", "sizes", "count", "optimizer", "updates", "batch_size"))
def _generations(
    x, labels, test, spread, key, *, rule, sizes, count, optimizer, updates, batch_size
):
    def generation(carry, key):
        targets, inherited = carry
        chip_key, param_key, draw_key, key = random.split(key, 4)
        params = network.init(param_key, sizes)
        here = in_the_loop(rule, device(chip_key, params, spread))
        rows = random.randint(draw_key, (updates, batch_size), 0, len(x))
        params, _ = learn(
            here,
            params,
            x[rows],
            targets[rows],
            optimizer=optimizer,
            watch=lambda params: (),
            every=updates,
            key=key,
        )
        scores = [accuracy(here.predict, weights, *test) for weights in (inherited, params)]
        return (jax.nn.softmax(here.predict(params, x)), params), Generations(*scores)

    start = (jax.nn.one_hot(labels, sizes[-1]), network.init(key, sizes))
    return lax.scan(generation, start, random.split(key, count))[1]


def _check_spread(spread):
    check_number("a number of at least 0", lambda value: 0 <= value < math.inf, spread=spread)
