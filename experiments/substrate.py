"""Chips that differ, synapses that come and go, and spikes: digits, five seeds.

    python experiments/substrate.py [--only chips] [--again]    # minutes

Each rule is tried at every learning rate of the grid; a fifth of the training images is held out
to choose the rate, the test images choose nothing.

Chips: three generations on three chips, the later ones taught by the one before. Structure: two
rules at a few densities, with synapses that stay, or are regrown by chance or by the slope.
Spikes: predictive coding by spikes of several sizes. Timing: neurons that learn by STDP alone.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import random
from sklearn.cluster import KMeans

from pcbook import backprop, data, network, rules, substrate
from pcbook import predictive_coding as pc
from pcbook.runs.parts import run

SEEDS, BATCH = 5, 32
RATES = (0.003, 0.01, 0.03)
CHIPS = {
    "sizes": (64, 32, 32, 10),
    "spreads": (0.0, 0.2, 0.5, 0.8, 1.2),
    "generations": 3,
    "updates": 600,
}
STRUCTURE = {"sizes": (64, 128, 10), "densities": (0.1, 0.05, 0.02), "rounds": 10, "updates": 400}
SPIKES = {
    "sizes": (64, 32, 10),
    "thresholds": (0.05, 0.1, 0.2, 0.4, 0.8),
    "updates": 500,
}
TIMING = {"neurons": (10, 25, 50, 100), "fatigues": (0.0, 0.05, 0.3, 1.0), "ups": (0.01, 0.03, 0.1)}
SETTINGS = {
    "seeds": SEEDS,
    "grid": RATES,
    "batch": BATCH,
    "chips": CHIPS,
    "structure": STRUCTURE,
    "spikes": SPIKES,
    "timing": TIMING,
}
GROWTH = ("none", "by chance", "by slope")

digits = data.digits()
cut = len(digits.x_train) * 4 // 5
trial = data.Dataset(
    digits.x_train[:cut], digits.y_train[:cut], digits.x_train[cut:], digits.y_train[cut:]
)
keys = random.split(random.key(0), SEEDS)


def over(function, *axes):
    """The function of one value of each axis and a key, over all of them and the seeds."""
    function = jax.vmap(function, (None,) * len(axes) + (0,))
    for place in reversed(range(len(axes))):
        only = [None] * (len(axes) + 1)
        only[place] = 0
        function = jax.vmap(function, tuple(only))
    found = jax.jit(function)(*map(jnp.array, axes), keys)
    return jax.tree.map(lambda a: np.asarray(a, float).round(3), found)


def chips():
    ways = {
        "backprop": backprop.rule(loss="cross entropy"),
        "random feedback": backprop.rule_with_feedback(0.0, loss="cross entropy"),
        "predictive coding": pc.rule(loss="cross entropy"),
    }
    for name, rule in ways.items():

        def lives(rate, spread, key, dataset=digits, rule=rule):
            return substrate.generations(
                rule,
                dataset,
                CHIPS["sizes"],
                spread=spread,
                count=CHIPS["generations"],
                optimizer=optax.adam(rate),
                updates=CHIPS["updates"],
                batch_size=BATCH,
                key=key,
            )

        tried = over(lambda rate, key, f=lives: f(rate, 0.5, key, trial).learned[0], RATES)
        rate = RATES[tried.mean(1).argmax()]
        found = over(lambda spread, key, f=lives, r=rate: f(r, spread, key), CHIPS["spreads"])
        yield (
            name,
            {
                "validation": tried.tolist(),
                "rate": rate,
                "inherited": found.inherited.tolist(),
                "learned": found.learned.tolist(),
            },
        )


def structure():
    rounds, each = STRUCTURE["rounds"], STRUCTURE["updates"] // STRUCTURE["rounds"]
    shares = 0.3 * (1 - jnp.arange(1, rounds + 1) / rounds)
    for name, rule in (("backprop", backprop.rule()), ("predictive coding", pc.rule())):

        def grown(growth, density, rate, key, rule=rule):
            param_key, wire_key, draw_key, key = random.split(key, 4)
            params = network.init(param_key, STRUCTURE["sizes"])
            x, y = jnp.asarray(trial.x_train), jax.nn.one_hot(trial.y_train, 10)
            rows = random.randint(draw_key, (rounds, each, BATCH), 0, len(x))
            params, _ = substrate.select_structure(
                rule,
                params,
                substrate.draw_mask(wire_key, params, density),
                x[rows],
                y[rows],
                score=lambda key, slope: jnp.where(
                    growth == 2, substrate.by_slope(key, slope), substrate.by_chance(key, slope)
                ),
                shares=shares * (growth > 0),
                optimizer=optax.adam(rate),
                key=key,
            )
            return [
                rules.accuracy(rule.predict, params, jnp.asarray(images), jnp.asarray(labels))
                for images, labels in (
                    (trial.x_test, trial.y_test),
                    (digits.x_test, digits.y_test),
                )
            ]

        found = over(grown, range(len(GROWTH)), (1.0, *STRUCTURE["densities"]), RATES)
        validation, test = (part.tolist() for part in found)
        yield name, {"validation": validation, "test": test}


def spikes():
    """Accuracy and additions a sample, dense first: (thresholds, rates, seeds)."""
    images, labels = jnp.asarray(digits.x_test), jnp.asarray(digits.y_test)

    def school(rule, rate, key, dataset):
        x, y = jnp.asarray(dataset.x_train), jax.nn.one_hot(dataset.y_train, 10)
        param_key, draw_key, key = random.split(key, 3)
        rows = random.randint(draw_key, (SPIKES["updates"], BATCH), 0, len(x))
        params = network.init(param_key, SPIKES["sizes"])
        return rules.learn(
            rule,
            params,
            x[rows],
            y[rows],
            optimizer=optax.adam(rate),
            watch=lambda params: (),
            every=len(rows),
            key=key,
        )[0]

    def score(rule, params, dataset):
        x, y = jnp.asarray(dataset.x_test), jnp.asarray(dataset.y_test)
        return rules.accuracy(rule.predict, params, x, y)

    def dense(rate, key):
        params = school(pc.rule(), rate, key, trial)
        return [score(pc.rule(), params, d) for d in (trial, digits)]

    validation, test = over(dense, RATES)
    yield "dense", {"validation": validation.tolist(), "test": test.tolist()}

    def spiking(threshold, rate, key):
        rule = substrate.spiking.__wrapped__(threshold=threshold)
        params = school(rule, rate, key, trial)
        bills = [
            substrate.additions(
                params,
                substrate.settle_by_spikes(params, images, y, threshold=threshold),
            ).mean()
            for y in (None, jax.nn.one_hot(labels, 10))
        ]
        return [*(score(rule, params, d) for d in (trial, digits)), *bills]

    validation, test, asking, learning = over(spiking, SPIKES["thresholds"], RATES)
    yield (
        "spiking",
        {
            "validation": validation.tolist(),
            "test": test.tolist(),
            "additions to predict": asking.round().astype(int).tolist(),
            "additions to learn": learning.round().astype(int).tolist(),
        },
    )


def timing():
    """Accuracy of the vote before and after one look at each training image, and of k-means."""
    x, y = jnp.asarray(trial.x_train), jnp.asarray(trial.y_train)

    def school(neurons, fatigue, up, key):
        timing = substrate.Timing(up, up / 100)
        habits = substrate.Habits(fatigue=fatigue, timing=timing)
        born_key, order_key, look_key, known_key, test_key = random.split(key, 5)
        cortex = substrate.init_cortex(born_key, neurons, 64)
        order = random.permutation(order_key, len(x))

        def see(cortex, drawn):
            cortex, fired = substrate.present_image(cortex, *drawn, habits)
            return cortex, fired.sum()

        grown, fired = jax.lax.scan(see, cortex, (x[order], random.split(look_key, len(x))))

        def named(cortex, images, labels):
            known = substrate.responses(cortex, x, known_key, habits)
            asked = substrate.responses(cortex, jnp.asarray(images), test_key, habits)
            return (substrate.classify_by_vote(known, y, asked) == labels).mean()

        held_out, test = (trial.x_test, trial.y_test), (digits.x_test, digits.y_test)
        return {
            "untrained": named(cortex, *test),
            "validation": named(grown, *held_out),
            "test": named(grown, *test),
            "spikes an image": fired.mean(),
        }, grown.W

    search, _ = over(partial(school, 50), TIMING["fatigues"], TIMING["ups"])
    yield "search", jax.tree.map(np.ndarray.tolist, search)
    best = np.unravel_index(search["validation"].mean(-1).argmax(), search["validation"].shape[:2])
    fatigue, up = TIMING["fatigues"][best[0]], TIMING["ups"][best[1]]
    yield "chosen", {"fatigue": fatigue, "up": up}
    for n in TIMING["neurons"]:
        found, W = over(partial(school, n, fatigue, up))
        centres = [k_means(n, seed) for seed in range(SEEDS)]
        yield f"{n} neurons", jax.tree.map(np.ndarray.tolist, found) | {"k-means": centres}
        if n == 50:
            yield "receptive fields", W[0, :20].tolist()


def k_means(n, seed):
    """Test accuracy of n centres, each labelled by most of its training images."""
    centres = KMeans(n, n_init=1, random_state=seed).fit(trial.x_train)
    own = np.eye(10)[trial.y_train].T @ np.eye(n)[centres.labels_]
    return round(float((own.argmax(0)[centres.predict(digits.x_test)] == digits.y_test).mean()), 3)


def parts():
    return {(part.__name__,): partial(collect, part) for part in (chips, timing, structure, spikes)}


def collect(part):
    return dict(part())


if __name__ == "__main__":
    run(__file__, __doc__, SETTINGS, parts)
