"""What inference costs on a chain, against a plain loop in errors and against its products.

    python benchmarks/inference.py [rounds]

Networks of 64 tanh units a layer on a batch of 64 digits, in single precision, untrained and
trained. Inference ends when the slope in the errors of every sample is 1e-3 of what it was at the
start. *Plain* is gradient descent in the errors (Goemaere et al. 2025, algorithm 1) in one jitted
loop, at the best of the rates below, with the same rule for its end; *products* are the forward
and backward products of as many passes as Barzilai-Borwein descent takes, each the operand of
another.
All take turns in an order drawn anew.
"""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax, random
from steps import machine, times

from pcbook import backprop, data, fast_inference, network, rules

ROUNDS = 30
RATES = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4)
MOST, TOLERANCE = 400, 1e-3
DEPTHS = (3, 10, 20)


def loop(params, x, y, rate):
    """Gradient descent in the errors by `jax.value_and_grad`; also the number of passes."""

    def energy(es):
        r = x
        for (W, b), e in zip(params[:-1], es):
            r = jnp.tanh(r @ W.T + b + e)
        W, b = params[-1]
        return (((r @ W.T + b - y) ** 2).sum() + sum((e**2).sum() for e in es)) / 2

    slope = jax.grad(energy)

    def square(g):
        return sum((u**2).sum(1) for u in g)

    def unfinished(carry):
        _, g, count = carry
        return (count < MOST) & (square(g) > TOLERANCE**2 * first).any()

    def step(carry):
        es, g, count = carry
        es = [e - rate * u for e, u in zip(es, g)]
        return es, slope(es), count + 1

    es = [jnp.zeros((len(x), len(layer.W)), x.dtype) for layer in params[:-1]]
    g = slope(es)
    first = square(g)
    es, _, count = lax.while_loop(unfinished, step, (es, g, 1))
    return es, count


def barzilai_borwein(params, x, y):
    infer = fast_inference.infer(
        params, x, y, method="barzilai-borwein", tolerance=TOLERANCE, steps=MOST
    )
    return infer.activities, infer.steps


def gauss_newton(params, x, y):
    found = fast_inference.infer(params, x, y, tolerance=TOLERANCE, steps=MOST)
    return found.activities, found.sweeps


def products(passes, params, x, y):
    """The forward and backward products of so many passes."""

    def one(h, _):
        a = h
        for W, _ in params[1:]:
            a = a @ W.T
        for W, _ in params[:0:-1]:
            a = a @ W
        return a, None

    return lax.scan(one, x @ params[0].W.T, length=passes)[0], passes


def networks():
    """Title and parameters of each network; trained ones by backprop for ten epochs."""
    digits = data.digits()
    for depth in DEPTHS:
        params = network.init(random.key(0), (64,) * depth + (10,))
        yield f"{depth} layers, untrained", params
        fitted = rules.fit(
            backprop.rule(), params, digits, epochs=10, batch_size=64,
            optimizer=optax.adam(1e-3), key=random.key(1),
        )  # fmt: skip
        yield f"{depth} layers, trained", fitted.params


def best_rate(args):
    """The rate at which the plain loop takes the fewest passes, and these."""
    run = jax.jit(loop)
    passes = {rate: int(run(*args, rate)[1]) for rate in RATES}
    return min(passes.items(), key=lambda item: item[1])


def main(rounds: int = ROUNDS) -> bool:
    """Print the table; whether Barzilai-Borwein is nowhere slower than the plain loop."""
    print(machine())
    digits = data.digits()
    x = jnp.asarray(digits.x_train[:64], jnp.float32)
    y = jax.nn.one_hot(digits.y_train[:64], 10)
    print(f"\n{'ms (passes)':22}{'Barzilai-B.':>15}{'plain, its best rate':>24}{'Gauss-Newton':>14}"
          f"{'plain / B.-B.':>15}{'B.-B. / products':>18}")  # fmt: skip
    fine = True
    for title, params in networks():
        args = params, x, y
        rate, passes = best_rate(args)
        own = int(jax.jit(barzilai_borwein)(*args)[1]) + 1
        programs = {
            "ours": barzilai_borwein,
            "plain": partial(loop, rate=rate),
            "newton": gauss_newton,
            "products": partial(products, own),
        }
        taken = times(programs, args, rounds)
        ms = {name: 1e3 * np.median(values) for name, values in taken.items()}
        ahead = np.median(taken["plain"] / taken["ours"])
        over = np.median(taken["ours"] / taken["products"])
        arrived = f"{passes}" if passes < MOST else "never"
        plain = f"{ms['plain']:8.2f} ({arrived:>5}, {rate:4.2f})"
        print(f"{title:22}{ms['ours']:8.2f} ({own:3d}) {plain}"
              f"{ms['newton']:12.2f}{ahead:15.2f}{over:18.2f}")  # fmt: skip
        fine &= ahead >= 1
    return bool(fine)


if __name__ == "__main__":
    sys.exit(not main(*map(int, sys.argv[1:])))
