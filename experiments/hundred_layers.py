"""A hundred layers trained on digits by predictive coding, beside backprop.

    python benchmarks/hundred_layers.py     # minutes

A residual tanh network under the scalings of muPC, 64-32-...-32-10 with 100 layers of weights.
Predictive coding settles by 8 steps of 0.3, or by 20 of 0.1, in the errors; all rules learn by
Adam at the rates of a grid, from the same weights and batches. One seed. Goes on where it was
stopped.
"""

import time

import optax
from jax import random
from stored import load, save

from pcbook import data, fast_inference, graph, rules

NAME = "hundred_layers"
DEPTH, WIDTH, EPOCHS, BATCH, RATES = 100, 32, 15, 32, (0.1, 0.03)


def main():
    results = load(NAME, setting={"depth": DEPTH, "width": WIDTH, "batch": BATCH, "seed": 0})
    runs = results.setdefault("runs", {})
    key = random.key(0)
    model = fast_inference.residual(64, WIDTH, DEPTH, 10, "tanh")
    params = model.init(key)
    backprop = graph.rule(model, method="z-il")._replace(name="backprop")
    settled = fast_inference.residual_rule(8, 0.3), fast_inference.residual_rule(20, 0.1)
    for rule in (*settled, backprop):
        for rate in RATES:
            name = f"{rule.name}, rate {rate}"
            if name in runs:
                continue
            start = time.perf_counter()
            training = {"optimizer": optax.adam(rate), "epochs": EPOCHS, "batch_size": BATCH}
            history = rules.fit(rule, params, data.digits(), key=key, **training).history
            runs[name] = {
                "loss": [round(float(loss), 4) for loss in history.loss],
                "test accuracy": [round(float(share), 3) for share in history.accuracy],
                "seconds": round(time.perf_counter() - start),
            }
            save(NAME, results)
    for name, run in runs.items():
        print(f"{name:40} {run['test accuracy'][-1]:.3f} in {run['seconds']} s")


if __name__ == "__main__":
    main()
