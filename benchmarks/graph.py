"""What predictive coding along a graph costs, in multiples of `jax.value_and_grad`.

    python benchmarks/graph.py [rounds] [part of a title]

Each call of a contender follows a call of backprop on the same loss in the same process, and a
ratio is that of these two neighbours in time, its median over the rounds. *Compile* is the ratio
of the times to lower and compile, each the best of two from an empty cache. *Memory* is what the
compiled step takes for the time that it runs, by XLA's own account.
"""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import random
from steps import machine

from pcbook import graph, models

KEY = random.key(0)
ROUNDS = 30
COMPILE_LIMIT, TRACE_LIMIT = 3.0, 5.0


def contenders(loss, depth):
    """Name, function and the most that its ratio may be."""
    yield "z-il", graph.value_and_grad(loss), 1.3
    held = graph.value_and_grad(loss, method="fixed-prediction")
    yield "fixed-prediction", held, 0.6 * depth + 1
    free = graph.value_and_grad(loss, method="inference-learning", steps=20, rate=0.1)
    yield "inference-learning, 20 steps", free, np.inf


def cases():
    """Title, loss and arguments of what is timed, in single precision."""
    mlp, deep = models.mlp((784, 256, 256, 10)), models.mlp((256,) * 9 + (10,))
    cnn, lstm = models.cnn((1, 16, 32), size=28), models.lstm(32, 128, 32)
    yield "MLP 784-256-256-10, batch 64", *labelled(mlp, (64, 784), (64,))
    yield "MLP of 9 layers, 256 units, batch 64", *labelled(deep, (64, 256), (64,))
    yield "CNN 28x28, 16 and 32 filters, batch 32", *labelled(cnn, (32, 28, 28, 1), (32,))
    yield "LSTM 128 units, 20 steps, batch 32", *labelled(lstm, (32, 20, 32), (32, 20))


def labelled(model, x_shape, y_shape):
    def loss(params, x, y):
        scores = model.apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(scores, y).mean()

    return loss, model.init(KEY), random.normal(KEY, x_shape), random.randint(KEY, y_shape, 0, 10)


def compiled(function, args):
    """The compiled function, and the seconds that it took."""
    best = np.inf
    for _ in range(2):
        jax.clear_caches()
        start = time.perf_counter()
        step = jax.jit(function).lower(*args).compile()
        best = min(best, time.perf_counter() - start)
    return step, best


def seconds(step, args):
    start = time.perf_counter()
    jax.block_until_ready(step(*args))
    return time.perf_counter() - start


def megabytes(step):
    return step.memory_analysis().temp_size_in_bytes / 1e6


def contest(title, loss, *args, rounds=ROUNDS) -> bool:
    """Print one table; whether every ratio is within its limit."""
    depth = graph.trace(loss)(*args).depth
    backprop, compile_time = compiled(jax.value_and_grad(loss), args)
    own = np.median([seconds(backprop, args) for _ in range(rounds)])
    print(f"\n{title}; depth {depth}")
    print(f"{'':30}{'time':>6}{'limit':>7}{'compile':>9}{'limit':>7}{'memory':>10}")
    print(
        f"{'backprop':30}{1e3 * own:>10.2f} ms{compile_time:>9.2f} s{megabytes(backprop):>10.2f} MB"
    )
    fine = True
    for name, function, limit in contenders(loss, depth):
        step, slower = compiled(function, args)
        seconds(step, args)
        pairs = np.array([(seconds(backprop, args), seconds(step, args)) for _ in range(rounds)])
        ratio, slower = np.median(pairs[:, 1] / pairs[:, 0]), slower / compile_time
        within = ratio <= limit and slower <= COMPILE_LIMIT
        fine &= within
        print(
            f"{name:30}{ratio:6.2f}{limit:7.1f}{slower:9.2f}{COMPILE_LIMIT:7.1f}"
            f"{megabytes(step):10.2f} MB{'' if within else '  TOO SLOW'}"
        )
    return fine


def trace_thousand() -> bool:
    """Print how long the tracing of a thousand vertices takes; whether that is within the limit."""

    def deep(W, x):
        for _ in range(1000):
            x = jnp.tanh(x @ W)
        return (x**2).sum()

    start = time.perf_counter()
    found = graph.trace(deep)(jnp.ones((3, 3)), jnp.ones((2, 3)))
    took = time.perf_counter() - start
    print(f"\na graph of {len(found)} vertices traced in {took:.2f} s; limit {TRACE_LIMIT:g} s")
    return took <= TRACE_LIMIT


def main(rounds: int = ROUNDS, only: str = "") -> bool:
    """Print every table; whether everything is within its limit."""
    print(machine())
    done = [contest(*case, rounds=rounds) for case in cases() if only in case[0]]
    return all([*done, trace_thousand()])


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    sys.exit(not main(rounds, " ".join(sys.argv[2:])))
