"""Two tasks in turns, five tasks behind a gate, and a pole to balance, beside backprop.

    python experiments/queries_and_forgetting.py [--only turns] [--again]    # minutes

Every rule is tried at each learning rate of the grid, from five seeds, which both rules share.
A fifth of the training images is held out to choose the rate; the test images choose nothing.

Turns: digits 0 to 4 and 5 to 9 on the same five outputs, ten turns each (Song et al. 2024,
fig. 4). Gates: five tasks of two digits, one after the other, on the same two outputs. Pole:
Q-learning from 5,000 moves.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import random

from pcbook import backprop, data, network, rules
from pcbook import predictive_coding as pc
from pcbook import queries_and_forgetting as qf
from pcbook.runs.parts import run

SEEDS, HELD_OUT = 5, 259
TURNS, PER_TURN = 20, 40
TASKS, PER_TASK, HIDDEN, ON = 5, 150, 200, 40
MOVES, STRETCH = 5000, 500
GRIDS = {
    "turns": (0.03, 0.1, 0.3, 1.0),
    "gates": (0.003, 0.01, 0.03, 0.1, 0.3),
    "pole": (0.001, 0.003, 0.01, 0.03, 0.1),
}
SETTINGS = {"seeds": SEEDS, "grids": GRIDS}
RULES = {
    "turns": {
        "backprop": rules.without_biases(backprop.rule(activation="sigmoid")),
        "inference learning": rules.without_biases(pc.rule(steps=64, activation="sigmoid")),
    },
    "gates": {
        "backprop": qf.keeping_gates(backprop.rule(activation="relu"), TASKS),
        "inference learning": qf.keeping_gates(pc.rule(steps=20, activation="relu"), TASKS),
    },
    "pole": {
        "backprop": backprop.rule(activation="sigmoid"),
        "inference learning": pc.rule(steps=32, rate=0.05, activation="sigmoid"),
    },
}


def images(key):
    """Images and labels to learn from, and those to watch: held out, then test."""
    digits = data.digits()
    order = np.asarray(random.permutation(key, len(digits.x_train)))
    x, y = digits.x_train[order], digits.y_train[order]
    watched = [
        np.concatenate(pair)
        for pair in ((x[:HELD_OUT], digits.x_test), (y[:HELD_OUT], digits.y_test))
    ]
    return (x[HELD_OUT:], y[HELD_OUT:]), watched


def drawn(key, y, tasks, batches, batch):
    """Rows of images of each task in order, (tasks * batches, batch)."""
    keys = random.split(key, len(tasks))
    return np.concatenate(
        [
            np.asarray(random.choice(k, np.flatnonzero(np.isin(y, task)), (batches, batch)))
            for k, task in zip(keys, tasks)
        ]
    )


def shares(right, where):
    """Mean of `right` on held-out and on test images, of those `where`."""
    return [
        right[..., part][..., where[part]].mean(-1)
        for part in (slice(HELD_OUT), slice(HELD_OUT, None))
    ]


def turns(rule, rate, keys):
    """Accuracy on each task, before and after each turn: (parts, seeds, turns + 1, tasks)."""
    tasks = [range(5), range(5, 10)]
    results = []
    for key in keys:
        data_key, draw_key, param_key, key = random.split(key, 4)
        (x, y), (shown, labels) = images(data_key)
        rows = drawn(draw_key, y, tasks * (TURNS // 2), PER_TURN, 32)
        params = network.init(param_key, (64, 32, 32, 32, 5))
        answers = learn(
            rule, rate, params, x[rows], np.eye(5, dtype=np.float32)[y[rows] % 5], shown, PER_TURN
        )
        right = answers == labels % 5
        results.append(np.stack([shares(right, np.isin(labels, task)) for task in tasks], -1))
    return np.stack(results, 1)


def gates(rule, rate, keys, gate):
    """Accuracy on each task after each: (parts, seeds, stages, tasks)."""
    tasks = np.arange(10).reshape(TASKS, 2)
    results = []
    for key in keys:
        data_key, draw_key, param_key, gate_key, key = random.split(key, 5)
        (x, y), (shown, labels) = images(data_key)
        rows = drawn(draw_key, y, tasks, PER_TASK, 32)
        on = qf.winners(random.normal(gate_key, (TASKS, HIDDEN)), ON)
        params = qf.gated(network.init(param_key, (64, HIDDEN, 2)), on)
        chance = np.random.default_rng(int(random.randint(key, (), 0, 2**31 - 1)))
        taught, asked = contexts(gate, x, y, rows, shown, labels, chance)
        inputs = np.concatenate([x[rows], taught], -1)
        every = np.eye(TASKS, dtype=np.float32) * (gate != "none")
        views = np.concatenate(
            [np.concatenate([shown, np.tile(c, (len(shown), 1))], 1) for c in every]
        )
        targets = np.eye(2, dtype=np.float32)[y[rows] % 2]
        answers = learn(rule, rate, params, inputs, targets, views, PER_TASK)
        answers = answers[1:].reshape(TASKS, TASKS, len(shown))
        chosen = np.take_along_axis(answers, asked[:, None], 1)[:, 0]
        right = chosen == labels % 2
        results.append(np.stack([shares(right, np.isin(labels, task)) for task in tasks], -1))
    return np.stack(results, 1)


def contexts(gate, x, y, rows, shown, labels, chance):
    """Context that each image is learned in, one hot, and the one it is asked in at each stage."""
    told, own = y[rows] // 2, np.tile(labels // 2, (TASKS, 1))
    if gate == "shuffled":
        told, own = chance.integers(0, TASKS, told.shape), chance.integers(0, TASKS, own.shape)
    if gate == "learned":
        memories = [qf.memorise(jnp.asarray(x[y // 2 == task])) for task in range(TASKS)]
        own = np.stack(
            [qf.select(memories[: stage + 1], jnp.asarray(shown)) for stage in range(TASKS)]
        )
    return np.eye(TASKS, dtype=np.float32)[told] * (gate != "none"), own


@partial(jax.jit, static_argnames=("rule", "every"))
def learn(rule, rate, params, x, y, shown, every):
    """What the network answers to the images `shown`, before learning and after each stage."""
    return rules.learn(
        rule,
        params,
        x,
        y,
        optimizer=optax.sgd(rate),
        every=every,
        key=random.key(0),
        watch=lambda params: rule.predict(params, shown).argmax(-1),
    )[1]


def pole(rule, rates, keys):
    """Mean length of the episodes that end in each stretch of moves: (rates, seeds, stretches)."""

    def play(rate, key):
        param_key, key = random.split(key)
        params = network.init(param_key, (4, 128, 2))
        return qf.practise(rule, params, optimizer=optax.adam(rate), moves=MOVES, key=key)[1]

    lengths = jax.jit(jax.vmap(jax.vmap(play, (None, 0)), (0, None)))(jnp.array(rates), keys)
    lengths = lengths.reshape(len(rates), len(keys), -1, STRETCH)
    return lengths.sum(-1) / np.maximum((lengths > 0).sum(-1), 1)


def balanced(rule):
    """The lengths of a pole's episodes at each rate."""
    lengths = np.asarray(pole(rule, GRIDS["pole"], seeds()), float).round(1)
    return {str(rate): found.tolist() for rate, found in zip(GRIDS["pole"], lengths)}


def measured(measure, kind, rule):
    """Accuracy on held-out and test images at each rate."""
    found = {}
    for rate in GRIDS[kind]:
        validation, test = np.asarray(measure(rule, rate, seeds()), float).round(3)
        found[str(rate)] = {"validation": validation.tolist(), "test": test.tolist()}
    return found


def seeds():
    return random.split(random.key(0), SEEDS)


def parts():
    found = {}
    for name, rule in RULES["turns"].items():
        found["turns", name] = partial(measured, turns, "turns", rule)
    for name, rule in RULES["pole"].items():
        found["pole", name] = partial(balanced, rule)
    for gate in ("none", "learned", "oracle", "shuffled"):
        for name, rule in RULES["gates"].items():
            measure = partial(gates, gate=gate)
            found[f"gate: {gate}", name] = partial(measured, measure, "gates", rule)
    return found


def report(numbers):
    for title, rules_ in numbers.items():
        for name, have in rules_.items():
            for rate, found in have.items():
                lengths = title == "pole"
                last = np.mean(found if lengths else found["test"], 0)[-1].round(
                    0 if lengths else 2
                )
                print(f"{title:16}{name:20}{rate:>6}  at last {last}")


if __name__ == "__main__":
    run(__file__, __doc__, SETTINGS, parts, report)
