"""Four networks, three ways to learn: accuracy under equal tuning, over five seeds.

    python experiments/graph_training.py [--only convolutional] [--again]    # minutes to hours

Every network is trained by backprop, fixed prediction and inference learning through
`pcbook.graph.value_and_grad`, nothing else changed, with Adam at each learning rate of the grid.
A fifth of the training data chooses the rate; the test data chooses nothing.

Convolutional: 8x8 digits. Recurrent: the same, a row a step, named after the last. LSTM and
transformer: the next letter of a text, in windows of 12; the last fifth of the text is the test.
"""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax, random

from pcbook import data, graph, models, rules
from pcbook.runs.parts import run

RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
SEEDS = 5
METHODS = {
    "backprop": None,
    "fixed prediction": {"method": "fixed-prediction"},
    "inference learning": {"method": "inference-learning", "steps": 20, "rate": 0.1},
    "inference learning, short steps": {"method": "inference-learning", "steps": 20, "rate": 0.01},
}
SETTINGS = {
    "seeds": SEEDS,
    "grid": RATES,
    "optimizer": "adam, batch 32",
    "methods": {
        name: options or {"method": "jax.value_and_grad"} for name, options in METHODS.items()
    },
}
TEXT = Path(__file__).with_name("graph_text.txt")


def digits(rows):
    d = data.digits()
    x, x_test = (
        jnp.asarray(x).reshape(-1, 8, 8, *([] if rows else [1])) for x in (d.x_train, d.x_test)
    )
    n = len(x) * 4 // 5
    y = jnp.asarray(d.y_train)
    return (x[:n], y[:n]), (x[n:], y[n:]), (x_test, jnp.asarray(d.y_test))


def letters(length=12):
    """Windows of the text as integers, the next letters as labels; how many letters there are."""
    text = " ".join(TEXT.read_text(encoding="utf-8").lower().split())
    alphabet = sorted(set(text))
    codes = np.array([alphabet.index(c) for c in text])
    parts = np.split(codes, [len(codes) * 16 // 25, len(codes) * 20 // 25])
    windows = [np.lib.stride_tricks.sliding_window_view(p, length + 1) for p in parts]
    return [(jnp.asarray(w[:, :-1]), jnp.asarray(w[:, 1:])) for w in windows], len(alphabet)


def networks():
    """Name, parameters of a key, scores of params and x, the data in three parts, steps."""
    cnn = models.cnn((1, 6, 12))
    yield "convolutional", cnn.init, cnn.apply, digits(rows=False), 200
    rnn = models.rnn(8, 32, 10)
    yield "recurrent", rnn.init, lambda p, x: rnn.apply(p, x)[:, -1], digits(rows=True), 300
    parts, n = letters()
    lstm = models.lstm(n, 32, n)
    yield "LSTM", lstm.init, lambda p, x: lstm.apply(p, jax.nn.one_hot(x, n)), parts, 300
    small = models.transformer(n, 12, 16)
    yield "transformer", small.init, small.apply, parts, 300


def trained(init, scores, options, steps, parts, batch=32, checks=5):
    """A function of a rate and a key: accuracy on validation and test data along the way."""
    (x, y), *held_out = parts

    def loss(params, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(scores(params, x), y).sum()

    if options is None:
        learn = jax.value_and_grad(loss)
    else:
        learn = graph.value_and_grad(loss, inference="activities", **options)

    def gradient(params, state, x, y, key):
        return *learn(params, x, y), state

    def accuracy(params, part):
        return (scores(params, part[0]).argmax(-1) == part[1]).mean()

    def train(setting):
        rate, key = setting
        init_key, key = random.split(key)
        optimizer = optax.adam(rate)
        params = init(init_key)
        learn_from = rules.step(gradient, optimizer)

        def draw(carry, key):
            rows = random.randint(key, (batch,), 0, len(x))
            return learn_from(carry, (x[rows], y[rows], key))

        def stretch(carry, keys):
            carry, _ = lax.scan(draw, carry, keys)
            return carry, jnp.stack([accuracy(carry[0], part) for part in held_out])

        keys = random.split(key, (checks, steps // checks))
        return lax.scan(stretch, (params, (), optimizer.init(params)), keys)[1]

    return train


def measure(init, scores, data_parts, steps, options):
    """Accuracy on validation and test data along the way, (seeds, moments), at each rate."""
    keys = random.split(random.key(0), SEEDS)
    train = jax.jit(partial(lax.map, trained(init, scores, options, steps, data_parts)))
    settings = jnp.repeat(jnp.array(RATES), SEEDS), jnp.tile(keys, len(RATES))
    curves = np.asarray(train(settings), float).reshape(len(RATES), SEEDS, -1, 2).round(4)
    return {
        str(rate): {"validation": curve[..., 0].tolist(), "test": curve[..., 1].tolist()}
        for rate, curve in zip(RATES, curves)
    }


def parts():
    found = {}
    for name, *network, steps in networks():
        found["networks", name, "training steps"] = lambda steps=steps: steps
        for method, options in METHODS.items():
            found["networks", name, "accuracy", method] = partial(measure, *network, steps, options)
    return found


def report(numbers):
    for name, network in numbers["networks"].items():
        for method, have in network.get("accuracy", {}).items():
            best = max(have, key=lambda rate: np.mean(have[rate]["validation"], 0)[-1])
            final = 100 * np.array(have[best]["test"])[:, -1]
            print(f"{name:14}{method:34}{final.mean():5.1f} ± {final.std():.1f} % at rate {best}")


if __name__ == "__main__":
    run(__file__, __doc__, SETTINGS, parts, report, inputs=(TEXT,))
