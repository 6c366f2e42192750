"""What an equilibrium costs: every way of inference, in units of one gradient by backprop.

    python experiments/fast_inference.py [--only "tanh 10 trained"] [--again]    # tens of minutes

Networks 64-...-64-10 on a batch of 64 digits, squared error, float32, three seeds, before and after
training by backprop. Each method goes at the rate of the grid that needs the fewest sweeps.
Two criteria: the velocity of the activities at most 1e-3 of its first value, and the weight
update within 1% of the one where the same method comes to rest.
"""

import math
import time
import warnings
from functools import cache, partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import random

from pcbook import backprop, data, fast_inference, predictive_coding, rules
from pcbook.runs.parts import run

METHODS = [name for name in fast_inference.METHODS if name != "closed form"][::-1]  # quickest first
RATES, SEEDS, MOST, ROUNDS, BATCH = (0.01, 0.03, 0.1, 0.3), 3, 1500, 5, 64
SETTINGS = {"rates": RATES, "seeds": SEEDS, "most steps": MOST, "batch": BATCH}
DIGITS = data.digits()
X, Y = jnp.asarray(DIGITS.x_train[:BATCH]), jax.nn.one_hot(DIGITS.y_train[:BATCH], 10)


@cache
def networks(depth, activation, trained):
    """A network for each seed, and their mean test accuracy."""
    found, scores = [], []
    rule = backprop.rule(activation)
    for key in random.split(random.key(depth), SEEDS):
        params = fast_inference.init(key, (64,) * depth + (10,), activation)
        if trained:
            training = {"optimizer": optax.adam(1e-3), "epochs": 5, "batch_size": 32}
            params = rules.fit(rule, params, DIGITS, key=key, **training).params
        found.append(params)
        scores.append(rules.accuracy(rule.predict, params, DIGITS.x_test, DIGITS.y_test))
    return found, float(np.mean(scores))


def study(params, activation, method):
    """One method on the networks `params`: its best rate, and what it needs there."""
    gradient = jax.jit(backprop.rule(activation).gradient)

    def infer(p, rate, reference):
        options = {"steps": MOST, "activation": activation, "reference": reference}
        return fast_inference.infer(p, X, Y, method=method, rate=rate, **options)

    first = [gradient(p, (), X, Y, None)[1] for p in params]
    grid = {}
    for rate in RATES if method != "gauss-newton" else (1.0,):
        ends = [infer(p, rate, reference) for p, reference in zip(params, first)]
        grid[rate] = [float(end.sweeps[-1]) if end.converged else None for end in ends]
    arrived = {rate: np.mean(sweeps) for rate, sweeps in grid.items() if None not in sweeps}
    result = {"grid": {str(rate): sweeps for rate, sweeps in grid.items()}}
    if not arrived:
        return result
    rate = min(arrived, key=arrived.get)
    updates, ratios = [], []
    for p, reference in zip(params, first):
        end = infer(p, rate, reference)
        errors = predictive_coding.errors(p, end.activities, Y, activation)
        rest = predictive_coding.weight_gradients(end.activities, errors, activation)
        path = infer(p, rate, rest)
        updates.append(float(path.sweeps[np.argmax(path.distance <= 0.01)]))
        for _ in range(ROUNDS):
            ours = seconds(infer, p, rate, rest)
            ratios.append(ours / seconds(gradient, p, (), X, Y, None))
    price = fast_inference.backprops(params[0], np.array([arrived[rate], np.mean(updates)]))
    return result | {
        "rate": rate,
        "backprops": round(float(price[0]), 1),
        "backprops to 1% of the update": round(float(price[1]), 1),
        "times backprop's time": round(float(np.median(ratios)), 1),
        "energy": round(float(end.energy[-1]), 4),
    }


def seconds(function, *args):
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start


def measure(depth, activation, trained, method):
    """What one method needs on the networks of a case."""
    warnings.simplefilter("ignore", RuntimeWarning)  # a rate too large says so itself
    return study(networks(depth, activation, trained)[0], activation, method)


def parts():
    found = {}
    for depth in (3, 10, 20, 50):
        for activation, state in product(("tanh", "relu"), ("untrained", "trained")):
            name, case = f"{activation} {depth} {state}", (depth, activation, state == "trained")
            found["cases", name, "accuracy"] = lambda case=case: networks(*case)[1]
            for method in METHODS:
                found["cases", name, method] = partial(measure, *case, method)
    return found


def report(numbers):
    for name, case in numbers["cases"].items():
        print(f"\n{name}, accuracy {case.get('accuracy', math.nan):.2f}")
        for method in (method for method in METHODS if method in case):
            found = {k: v for k, v in case[method].items() if k != "grid"}
            print(f"  {method:18}", found or "did not arrive")


if __name__ == "__main__":
    run(__file__, __doc__, SETTINGS, parts, report)
