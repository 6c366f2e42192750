"""Sample by sample, in a changing world, from few images, and incrementally, beside backprop.

    python experiments/inference_learning.py [--only online] [--again]    # minutes

Every rule is tried at each learning rate of the grid, from five seeds: the same weights, the same
images in the same order. A fifth of the training images is held out to choose the rate; the test
images choose nothing.

Online: one image at a time (Song et al. 2024, fig. 4). Drift: batches of 32 of 120 images; every
64 batches the classes 5 to 9 are permuted. Few: batches of 10, of a given number of images. All
three are sigmoid networks without biases. Incremental: tanh, batches of 32, and 1,600 updates of
the weights whatever the rule.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import random

from pcbook import backprop, data, inference_learning, network, rules
from pcbook import predictive_coding as pc
from pcbook.runs.parts import run

SIZES = (64, 32, 32, 10)
RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
SEEDS = 5
HELD_OUT = 259
T = 64
SETTINGS = {"seeds": SEEDS, "grid": RATES, "sizes": SIZES, "optimizer": "sgd"}


class Experiment(NamedTuple):
    """Rules by name, the rule and optimiser at a rate, and `lessons(key, images)`.

    The lessons are the rows of the images to learn from, (batches, batch), and the name that
    each class has meanwhile, (batches, classes).
    """

    learners: dict[str, Callable]
    lessons: Callable
    every: dict[str, int]


def plain(steps=T):
    """Backprop and inference learning, sigmoid, without biases, plain gradient descent."""
    chosen = (backprop.rule(activation="sigmoid"), pc.rule(steps=steps, activation="sigmoid"))
    names = ("backprop", "inference learning")
    return {
        name: lambda rate, rule=rule: (rules.without_biases(rule), optax.sgd(rate))
        for name, rule in zip(names, chosen)
    }


def draws(batches, batch, images=None):
    """Rows drawn at random from the first `images`, all by default; names never change."""

    def lessons(key, n):
        rows = random.randint(key, (batches, batch), 0, images or n)
        return rows, jnp.tile(jnp.arange(10), (batches, 1))

    return lessons


def drifting(periods, length, batch, images):
    """As `draws`, and in every period but the first the classes 5 to 9 have other names."""

    def lessons(key, n):
        rows_key, key = random.split(key)
        rows = random.randint(rows_key, (periods * length, batch), 0, images)
        later = jax.vmap(lambda k: random.permutation(k, jnp.arange(5, 10)))(
            random.split(key, periods - 1)
        )
        names = jnp.concatenate([jnp.arange(5, 10)[None], later])
        names = jnp.concatenate([jnp.tile(jnp.arange(5), (periods, 1)), names], 1)
        return rows, jnp.repeat(names, length, 0)

    return lessons


def incremental():
    """Rules that update the weights once a batch, and one that does so 20 times."""
    return {
        "backprop": lambda rate: (backprop.rule(), optax.sgd(rate)),
        "inference learning": lambda rate: (pc.rule(steps=20), optax.sgd(rate)),
        "incremental": lambda rate: (
            inference_learning.incremental_rule(optax.sgd(rate), steps=20),
            optax.sgd(1.0),
        ),
    }


def experiments():
    yield "online", Experiment(plain(), draws(3000, 1), {"": 150})
    yield "drift", Experiment(plain(128), drifting(8, 64, 32, 120), {"": 8})
    for images in (30, 100, 300, 1000):
        yield f"{images} images", Experiment(plain(), draws(1000, 10, images), {"": 100})
    yield "incremental", Experiment(incremental(), draws(1600, 32), {"": 80, "incremental": 4})


def error(learner, lessons, every, batches, rate, key):
    """Share of held-out and of test images that are misnamed along the way, (moments,) each."""
    split_key, param_key, lesson_key, key = random.split(key, 4)
    digits = data.digits()
    x, labels = jnp.asarray(digits.x_train), jnp.asarray(digits.y_train)
    held_out, rest = jnp.split(random.permutation(split_key, len(x)), [HELD_OUT])
    rows, names = lessons(lesson_key, len(rest))
    rows, names = rows[:batches], names[:batches]
    taught = jax.vmap(lambda name, row: name[labels[rest[row]]])(names, rows)
    rule, optimizer = learner(rate)
    shown = jnp.concatenate([x[held_out], jnp.asarray(digits.x_test)])
    _, answers = rules.learn(
        rule,
        network.init(param_key, SIZES),
        x[rest[rows]],
        jax.nn.one_hot(taught, 10),
        optimizer=optimizer,
        watch=lambda params: rule.predict(params, shown).argmax(-1),
        every=every,
        key=key,
    )
    now = jnp.concatenate([names[:1], names[every - 1 :: every]])
    right = now[:, jnp.concatenate([labels[held_out], jnp.asarray(digits.y_test)])]
    wrong = answers != right
    return wrong[:, :HELD_OUT].mean(1), wrong[:, HELD_OUT:].mean(1)


def measure(name, learner, lessons, every):
    """Share of held-out and of test images misnamed, (seeds, moments), at each rate."""
    keys = random.split(random.key(0), SEEDS)
    stride = every.get(name, every[""])
    moments = jax.eval_shape(lessons, keys[0], 1)[0].shape[0] // every[""]

    def one(rate, key):
        return error(learner, lessons, stride, moments * stride, rate, key)

    grid = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))
    validation, test = (np.asarray(part, float).round(3) for part in grid(jnp.array(RATES), keys))
    return {
        str(rate): {"validation": validation[i].tolist(), "test": test[i].tolist()}
        for i, rate in enumerate(RATES)
    }


def parts():
    return {
        ("error", title, name): partial(measure, name, learner, lessons, every)
        for title, (learners, lessons, every) in experiments()
        for name, learner in learners.items()
    }


def report(numbers):
    print(f"{'mean over seeds and moments':40}{'rate':>6}{'held out':>10}{'test':>8}{'at last':>8}")
    for title, rules_ in numbers["error"].items():
        for name, have in rules_.items():
            for rate, found in have.items():
                held_out, test = (np.array(found[part]) for part in ("validation", "test"))
                means = f"{held_out.mean():10.3f}{test.mean():8.3f}{test[:, -1].mean():8.3f}"
                print(f"{f'{title}, {name}':40}{rate:>6}{means}")


if __name__ == "__main__":
    run(__file__, __doc__, SETTINGS, parts, report)
