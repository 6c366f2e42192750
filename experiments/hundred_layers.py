"""A hundred layers trained on digits by predictive coding, beside backprop.

    python experiments/hundred_layers.py [--again]    # minutes

A residual tanh network under the scalings of muPC, 64-32-...-32-10 with 100 layers of weights.
Predictive coding settles by 8 steps of 0.3, or by 20 of 0.1, in the errors; all rules learn by
Adam at the rates of a grid, from the same weights and batches. One seed.
"""

from functools import partial
from itertools import product

import optax
from jax import random

from pcbook import data, fast_inference, graph, rules
from pcbook.runs.parts import run

DEPTH, WIDTH, EPOCHS, BATCH, RATES = 100, 32, 15, 32, (0.1, 0.03)
SETTINGS = {"depth": DEPTH, "width": WIDTH, "batch": BATCH, "seed": 0}
MODEL = fast_inference.residual(64, WIDTH, DEPTH, 10, "tanh")


def train(rule, rate):
    """Loss and test accuracy after each epoch."""
    key = random.key(0)
    training = {"optimizer": optax.adam(rate), "epochs": EPOCHS, "batch_size": BATCH}
    history = rules.fit(rule, MODEL.init(key), data.digits(), key=key, **training).history
    return {
        "loss": [round(float(loss), 4) for loss in history.loss],
        "test accuracy": [round(float(share), 3) for share in history.score],
    }


def parts():
    settled = fast_inference.residual_rule(8, 0.3), fast_inference.residual_rule(20, 0.1)
    backprop = graph.rule(MODEL, method="z-il")._replace(name="backprop")
    pairs = product((*settled, backprop), RATES)
    return {
        ("runs", f"{rule.name}, rate {rate}"): partial(train, rule, rate) for rule, rate in pairs
    }


def report(numbers):
    for name, found in numbers["runs"].items():
        print(f"{name:46} {found['test accuracy'][-1]:.3f}")


if __name__ == "__main__":
    run(__file__, __doc__, SETTINGS, parts, report)
