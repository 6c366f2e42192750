"""An epoch of the energy-efficiency experiment at 28x28, against the least that it could cost.

One network, batches of 32, ten images, Adam: 169 steps. It takes turns with the matrix
products of these steps alone, and with a plain PyTorch loop of the same training where
PyTorch is installed (`pip install pcbook[bench]`). The two trainings start from the same
weights and see the same sequences, and their losses are compared epoch by epoch.

Before that, one network trains on the 8x8 digits for five seconds: has it begun to predict?

    PCBOOK_DATA=... python benchmarks/energy.py [rounds]
"""

import os
import platform
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import block_until_ready, lax, random

from pcbook import data
from pcbook.emergence.energy_efficiency import (
    RECURRENT,
    measure_all,
    probe,
    sequences,
)
from pcbook.emergence.energy_efficiency.orders import deck
from pcbook.emergence.energy_efficiency.training import (
    Trainer,
    advance,
    init_state,
    seed_keys,
)

BATCH, STEPS, RATE = 32, 10, 1e-4
ROUNDS = 10
LIMITS = {"its 26 matrix products": 1.15, "PyTorch": 1 / 1.6}
AGREE = 0.005
PATIENCE = 5  # seconds in which prediction must emerge on the digits


def matrix_products(batches):
    """The products of an epoch and nothing else: 9 forward, 8 of blame, 9 for the weights a batch.

    In the order in which they are fastest: samples in columns, the last nine as one. Each is
    an operand of another, so that the compiler can drop none.
    """

    def batch(W, x):
        h, hs, forth = x.T, [], lax.optimization_barrier(W.T)
        for _ in range(9):
            hs.append(h)
            h = forth @ h
        blame = [h]
        for _ in range(8):
            blame.insert(0, W @ blame[0])
        return W + 1e-9 * (jnp.hstack(hs) @ jnp.hstack(blame).T), None

    return jax.jit(lambda W, x: lax.scan(batch, W, x, length=batches)[0])


class Ours:
    """The package's own training."""

    def __init__(self, images, labels, rate):
        self.trainer = Trainer(RECURRENT, "pre", BATCH, deck(labels))
        self.keys, self.images, self.rate = seed_keys([0]), jnp.asarray(images), rate
        self.state = init_state(RECURRENT, images.shape[1], self.keys)
        self.first = np.asarray(self.state[0][0])
        self.epochs = 0

    def epoch(self, epochs=1):
        now = self.images, self.keys, np.float32([self.rate]), self.epochs
        self.state, loss = advance(self.trainer, self.state, *now, epochs)
        self.epochs += epochs
        return float(loss[-1, 0])


class Torch:
    """The same training as one writes it in PyTorch: autograd and torch.optim.Adam."""

    def __init__(self, images, labels, first):
        import torch

        self.torch = torch
        self.images, self.labels = torch.from_numpy(np.array(images)), labels
        self.W = torch.nn.Parameter(torch.from_numpy(np.array(first)))
        self.adam = torch.optim.Adam([self.W], lr=RATE)
        self.epochs = 0
        self.deal()

    def deal(self):
        """The sequences that ours sees in this epoch; dealing is not timed."""
        key = random.fold_in(random.key(0), self.epochs + 1)
        self.rows = self.torch.from_numpy(np.array(sequences(key, self.labels))).long()

    def epoch(self):
        torch, losses = self.torch, []
        for first in range(0, self.rows.shape[1] - BATCH + 1, BATCH):
            x = self.images[self.rows[:, first : first + BATCH]]
            h = torch.zeros(BATCH, x.shape[2])
            loss = 0.0
            for x_t in x:
                a = h @ self.W + x_t
                h = torch.relu(a)
                loss = loss + a.abs().mean()
            self.adam.zero_grad()
            loss.backward()
            self.adam.step()
            losses.append(loss.item())
        self.epochs += 1
        return float(np.mean(losses))


def emergence() -> bool:
    """Train on the digits for some seconds, compiled beforehand; whether it predicts."""
    digits = data.digits()
    ours = Ours(digits.x_train, digits.y_train, 3e-3)
    first = ours.state
    ours.epoch(25)
    ours.state, ours.epochs = first, 0
    began = time.perf_counter()
    while time.perf_counter() - began < PATIENCE:
        ours.epoch(25)
    seconds = time.perf_counter() - began
    found = measure_all(ours.state[0], probe(digits, random.key(1), times=4), random.key(2))
    slope = float(found.preactivation[0, 1] - found.preactivation[0, 9])
    units = int((found.units[0] > 0).any(0).sum())
    print(
        f"digits, {ours.epochs} epochs in {seconds:.1f} s: preactivation falls by {slope:.3f} from "
        f"the second image to the tenth; {units} prediction units"
    )
    return slope > 0.01 and units > 0


def main(rounds: int = ROUNDS) -> bool:
    """Time, compare and print; whether every ratio is within its limit."""
    fine = emergence()
    mnist = data.mnist()
    x, y = mnist.x_train, mnist.y_train
    ours = Ours(x, y, RATE)
    programs = {"ours": ours.epoch}
    batches = ours.trainer.deck.n // BATCH
    products = matrix_products(batches)
    W = jnp.asarray(ours.first) / 10
    stack = jnp.asarray(x[: batches * BATCH].reshape(batches, BATCH, -1))
    programs["its 26 matrix products"] = lambda: block_until_ready(products(W, stack))
    try:
        torch = Torch(x, y, ours.first)
        torch.torch.set_num_threads(os.cpu_count())
        programs["PyTorch"] = torch.epoch
    except ImportError as error:
        print(f"PyTorch is not timed: {error}")
        torch = None
    seconds, losses = {name: [] for name in programs}, {name: [] for name in programs}
    for _ in range(rounds + 1):  # the first compiles, and is not counted
        for name, run in programs.items():
            if name == "PyTorch":
                torch.deal()
            began = time.perf_counter()
            losses[name].append(run())
            seconds[name].append(time.perf_counter() - began)
    best = {name: min(times[1:]) for name, times in seconds.items()}
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"seconds an epoch, best of {rounds} in turns")
    for name, least in best.items():
        line = f"{name:24}{least:8.2f}"
        if name in LIMITS:
            ratio = best["ours"] / least
            slow = ratio > LIMITS[name]
            fine &= not slow
            line += f"   ours is {ratio:.2f} of it, limit {LIMITS[name]:.3g}"
            line += "  TOO SLOW" * slow
        print(line)
    if torch:
        apart = np.abs(np.subtract(losses["ours"], losses["PyTorch"])).max()
        fine &= bool(apart <= AGREE)
        print(f"losses of ours and PyTorch differ by {apart:.4f} at most, limit {AGREE}")
    return fine


if __name__ == "__main__":
    sys.exit(not main(*map(int, sys.argv[1:])))
