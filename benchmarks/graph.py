"""What predictive coding along a graph costs, in multiples of `jax.value_and_grad`.

    python benchmarks/graph.py [--rounds 30] [--only LSTM]

All contenders of a row run in turn, round after round, in one process; a ratio is the median
over rounds of a round's time over backprop's in that round, so that a busy machine slows both;
beside it the ratio of the fastest rounds, which a busy machine disturbs least.
Compile time is that of lowering and compiling together, from a cold cache each. Memory is the
temporary memory of the compiled step (XLA's own account). Limits are those of the project.
"""

import argparse
import os
import platform
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import random

from pcbook import graph, models

KEY = random.key(0)


def cases():
    """Name, loss and arguments of what is timed, in single precision."""

    def labelled(model):
        def loss(params, x, y):
            return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x), y).mean()

        return loss

    def normal(*shape):
        return random.normal(KEY, shape)

    def labels(*shape, classes=10):
        return random.randint(KEY, shape, 0, classes)

    mlp, deep = models.mlp((784, 256, 256, 10)), models.mlp((256,) * 9 + (10,))
    cnn, lstm = models.cnn((1, 16, 32), size=28), models.lstm(32, 128, 32)
    yield "MLP 784-256-256-10, batch 64", labelled(mlp), mlp.init(KEY), normal(64, 784), labels(64)
    yield (
        "MLP 9 layers of 256, batch 64",
        labelled(deep),
        deep.init(KEY),
        normal(64, 256),
        labels(64),
    )
    yield (
        "CNN 28x28, 16 and 32 filters, batch 32",
        labelled(cnn),
        cnn.init(KEY),
        normal(32, 28, 28, 1),
        labels(32),
    )
    yield (
        "LSTM 128 units, 20 steps, batch 32",
        labelled(lstm),
        lstm.init(KEY),
        normal(32, 20, 32),
        labels(32, 20, classes=32),
    )


def contenders(loss):
    yield "backprop", jax.value_and_grad(loss)
    yield "z-il", graph.value_and_grad(loss)
    yield "fixed-prediction", graph.value_and_grad(loss, method="fixed-prediction")
    yield (
        "inference-learning, 20 steps",
        graph.value_and_grad(loss, method="inference-learning", steps=20, rate=0.1),
    )


def compiled(function, args):
    """The compiled function and the seconds that it took."""
    jax.clear_caches()
    start = time.perf_counter()
    done = jax.jit(function).lower(*args).compile()
    return done, time.perf_counter() - start


def seconds(function, args):
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start


def limit(name, depth):
    return {"z-il": 1.3, "fixed-prediction": 0.6 * depth + 1}.get(name, float("inf"))


def main(rounds, only):
    load = " ".join(f"{x:.1f}" for x in os.getloadavg())
    print(
        f"JAX {jax.__version__} on {platform.machine()}, {os.cpu_count()} cores, "
        f"{jax.devices()[0].device_kind}, load {load}"
    )
    for title, loss, *args in cases():
        if only not in title:
            continue
        depth = graph.trace(loss)(*args).depth
        print(f"\n{title} (depth {depth})\n{'':30}median fastest limit  compile   memory")
        names, steps, compile_times, memory = [], [], [], []
        for name, function in contenders(loss):
            functions = [compiled(function, args) for _ in range(3)]
            names.append(name)
            steps.append(functions[0][0])
            compile_times.append(min(t for _, t in functions))
            memory.append(functions[0][0].memory_analysis().temp_size_in_bytes)
        for step in steps:
            seconds(step, args)
        times = np.array([[seconds(step, args) for step in steps] for _ in range(rounds)])
        ratios = np.median(times / times[:, :1], axis=0)
        fastest = times.min(0) / times[:, 0].min()
        rows = zip(names, ratios, fastest, compile_times, memory)
        for name, ratio, best, compile_time, bytes_ in rows:
            allowed = limit(name, depth)
            bound = (
                f"{allowed:5.1f}{' ' if ratio <= allowed else '!'}" if allowed < 1e9 else "     -"
            )
            print(
                f"{name:30}{ratio:6.2f} {best:6.2f} {bound}{compile_time / compile_times[0]:9.2f}"
                f"{bytes_ / 1e6:7.2f} MB"
            )
        print(f"{'(backprop)':30}{1e3 * np.median(times[:, 0]):6.2f} ms{compile_times[0]:12.2f} s")

    def deep(W, x):
        for _ in range(1000):
            x = jnp.tanh(x @ W)
        return (x**2).sum()

    start = time.perf_counter()
    found = graph.trace(deep)(jnp.ones((3, 3)), jnp.ones((2, 3)))
    print(
        f"\na graph of {len(found)} vertices traced "
        f"in {time.perf_counter() - start:.2f} s (limit 5 s)"
    )
    print("load at the end " + " ".join(f"{x:.1f}" for x in os.getloadavg()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--only", default="")
    main(**vars(parser.parse_args()))
