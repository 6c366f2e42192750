"""What an equilibrium costs: every way of inference, in units of one gradient by backprop.

    python benchmarks/fast_inference.py [--depths 3 10 20 50]    # about ten minutes a core

Networks 64-...-64-10 on a batch of 64 digits, squared error, float32, three seeds, before and after
training by backprop. Each method goes at the rate of the grid that needs the fewest sweeps.
Two criteria: the velocity of the activities at most 1e-3 of its first value, and the weight
update within 1% of the one where the same method comes to rest. Goes on where it was stopped:
what results/fast_inference.json holds is not run again.
"""

import argparse
import sys
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import random
from stored import load, save
from tqdm import tqdm

from pcbook import backprop, data, fast_inference, predictive_coding, rules

NAME = "fast_inference"
METHODS = [name for name in fast_inference.METHODS if name != "closed form"][::-1]  # quickest first
RATES, SEEDS, MOST, ROUNDS = (0.01, 0.03, 0.1, 0.3), 3, 1500, 5
DIGITS = data.digits()
X, Y = jnp.asarray(DIGITS.x_train[:64]), jax.nn.one_hot(DIGITS.y_train[:64], 10)


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

    def run(p, rate, reference):
        options = {"most": MOST, "activation": activation, "reference": reference}
        return fast_inference.infer(p, X, Y, method=method, rate=rate, **options)

    first = [gradient(p, (), X, Y, None)[1] for p in params]
    grid = {}
    for rate in RATES if method != "gauss-newton" else (1.0,):
        ends = [run(p, rate, reference) for p, reference in zip(params, first)]
        grid[rate] = [float(end.sweeps[-1]) if end.converged else None for end in ends]
    arrived = {rate: np.mean(sweeps) for rate, sweeps in grid.items() if None not in sweeps}
    result = {"grid": {str(rate): sweeps for rate, sweeps in grid.items()}}
    if not arrived:
        return result
    rate = min(arrived, key=arrived.get)
    updates, ratios = [], []
    for p, reference in zip(params, first):
        end = run(p, rate, reference)
        errors = predictive_coding.errors(p, end.xs, Y, activation)
        rest = predictive_coding.weight_gradients(end.xs, errors, activation)
        path = run(p, rate, rest)
        updates.append(float(path.sweeps[np.argmax(path.distance <= 0.01)]))
        for _ in range(ROUNDS):
            ours = seconds(run, p, rate, rest)
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


def main(depths):
    warnings.simplefilter("ignore", RuntimeWarning)  # a rate too large says so itself
    results = load(
        NAME, setting={"rates": RATES, "seeds": SEEDS, "most steps": MOST, "batch": len(X)}
    )
    cases = results.setdefault("cases", {})
    for depth in depths:
        for activation in ("tanh", "relu"):
            for state in ("untrained", "trained"):
                case = cases.setdefault(f"{activation} {depth} {state}", {})
                todo = [method for method in METHODS if method not in case]
                if not todo:
                    continue
                params, case["accuracy"] = networks(depth, activation, state == "trained")
                for method in tqdm(todo, desc=f"{activation} {depth} {state}", leave=False):
                    case[method] = study(params, activation, method)
                    save(NAME, results)
    for name, case in cases.items():
        print(f"\n{name}, accuracy {case['accuracy']:.2f}")
        for method in (method for method in METHODS if method in case):
            found = {k: v for k, v in case[method].items() if k != "grid"}
            print(f"  {method:18}", found or "did not arrive")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depths", type=int, nargs="+", default=[3, 10, 20, 50])
    sys.exit(main(parser.parse_args().depths))
