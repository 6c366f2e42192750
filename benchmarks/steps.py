"""What a training step costs, against the least that it could cost.

The reference step: a network 784-256-256-10, batches of 64, float32, and for
predictive coding 20 inference steps. All programs run in one process, in turns, and
what counts is the ratio of two of them: it says more about the code than about the
machine, or about who else is using it.

    python benchmarks/steps.py [rounds]
"""

import os
import platform
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random

from pcbook import backprop, network, predictive_coding

SIZES, BATCH, STEPS = (784, 256, 256, 10), 64, 20
ROUNDS = 300

# Ours, what it is measured against, and the most that the median ratio may be.
PRODUCTS = "its matrix products alone"
CONTESTS = [
    ("predictive coding, identity", PRODUCTS, 1.03),
    ("predictive coding, relu", PRODUCTS, 1.05),
    ("predictive coding, tanh", PRODUCTS, 1.15),
    ("backprop", "jax.value_and_grad", 1.1),
]


def matrix_products(params, x, y):
    """The products of a predictive-coding step, each the operand of another, and nothing else.

    Three for the forward pass; four for each inference step (that of the clamped input is
    made once); two for the last errors; three for the weights.
    """
    W1, W2, W3 = (layer.W for layer in params)

    def step(ab, _):
        a, b = ab
        up, top = a @ W2.T, b @ W3.T
        return (up @ W2, top @ W3), None

    a = x @ W1.T
    b = a @ W2.T
    top = b @ W3.T
    (a, b), _ = lax.scan(step, (a, b), length=STEPS)
    e2, e3 = a @ W2.T, b @ W3.T
    return top, a.T @ x, e2.T @ a, e3.T @ b


def plain_backprop(params, x, y):
    """The mean squared error of a tanh network, and its gradient, as one writes it in JAX."""

    def loss(params):
        r = x
        for W, b in params[:-1]:
            r = jnp.tanh(r @ W.T + b)
        W, b = params[-1]
        return ((r @ W.T + b - y) ** 2).sum(-1).mean() / 2

    return jax.value_and_grad(loss)(params)


def ours(rule):
    return lambda params, x, y: rule.gradient(params, (), x, y, None)[:2]


PROGRAMS = {
    **{
        f"predictive coding, {activation}": ours(
            predictive_coding.rule(steps=STEPS, activation=activation)
        )
        for activation in ("identity", "relu", "tanh")
    },
    PRODUCTS: matrix_products,
    "backprop": ours(backprop.rule()),
    "jax.value_and_grad": plain_backprop,
}


def reference():
    """The arguments of a step: a network and a batch."""
    params_key, x_key, y_key = random.split(random.key(0), 3)
    params = network.init(params_key, SIZES)
    labels = random.randint(y_key, (BATCH,), 0, SIZES[-1])
    return params, random.uniform(x_key, (BATCH, SIZES[0])), jax.nn.one_hot(labels, SIZES[-1])


def times(programs, args, rounds):
    """Seconds of a call, by program: an array of `rounds`, in each of which all take a turn.

    They do so in an order drawn anew, since each finds the caches as the last one left them.
    """
    programs = {name: jax.jit(program) for name, program in programs.items()}
    for program in programs.values():
        jax.block_until_ready(program(*args))
    seconds = {name: [] for name in programs}
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for name in order.permutation(list(programs)):
            start = time.perf_counter()
            jax.block_until_ready(programs[name](*args))
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def machine() -> str:
    """Where and on what this was measured, and how busy it was."""
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    return (
        f"Python {platform.python_version()}, JAX {jax.__version__} on {jax.default_backend()}, "
        f"{os.cpu_count()} cores, load {load} (1, 5, 15 minutes)"
    )


def main(rounds: int = ROUNDS) -> bool:
    """Print the times and the ratios; whether every ratio is within its limit."""
    print(machine())
    seconds = times(PROGRAMS, reference(), rounds)
    print(f"\n{'ms a step':<28}{'best':>8}{'median':>8}")
    for name, values in seconds.items():
        print(f"{name:<28}{1e3 * values.min():8.2f}{1e3 * np.median(values):8.2f}")
    print(f"\n{'ratio':<48}{'best':>8}{'median':>8}{'limit':>8}")
    within = True
    for mine, other, limit in CONTESTS:
        best = seconds[mine].min() / seconds[other].min()
        median = np.median(seconds[mine] / seconds[other])
        within &= bool(median <= limit)
        verdict = "" if median <= limit else "  TOO SLOW"
        print(f"{f'{mine} / {other}':<48}{best:8.2f}{median:8.2f}{limit:8.2f}{verdict}")
    return within


if __name__ == "__main__":
    sys.exit(not main(*map(int, sys.argv[1:])))
