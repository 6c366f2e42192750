"""Training: all seeds at once, so many epochs at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax, random
from jaxtyping import Array, Float, Int, Key
from tqdm import tqdm

from pcbook.core.arguments import Count, Index, Positive, checked
from pcbook.core.checks import check_count, check_number, check_positive, lookup
from pcbook.core.rules import Rule, begin, stateless, step
from pcbook.emergence.energy_efficiency.arrays import Numbers
from pcbook.emergence.energy_efficiency.network import COSTS, RECURRENT, Network, energy, run
from pcbook.emergence.energy_efficiency.orders import Deck, deal, deck
from pcbook.store.data import check_split


class Training(NamedTuple):
    """What training leaves behind.

    `params` has a leading axis over seeds, `path` over moments and seeds: the parameters
    before training (epoch 0) and after each of the `epochs`. `loss` is the mean training
    loss of every epoch and seed.
    """

    params: Any
    path: Any
    epochs: Int[np.ndarray, " moments"]
    loss: Float[np.ndarray, "epochs seeds"]


@checked
def train(
    images: Float[Numbers, "images pixels"],
    labels: Int[Numbers, " images"],
    *,
    epochs: Count,
    rate: Positive | Sequence[Positive],
    loss: str = "pre",
    order: str = "ascending",
    steps: Count = 10,
    batch_size: Count = 32,
    seeds: Sequence[Index] = (0,),
    every: Count | None = None,
    network: Network = RECURRENT,
) -> Training:
    """Train a network for each seed, all at once, to save energy on sequences of images.

    Adam with step size `rate`, or one for each seed; new sequences every epoch, of which those
    that do not fill the last batch are left out. The path keeps the parameters after `every`
    so many epochs.

    Raises ValueError for images that are not finite rows of pixels, labels that do not fit
    them, an unknown loss or order, and sizes below 1.
    """
    every = epochs if every is None else every
    trainer = Trainer(network, loss, batch_size, deck(labels, steps, order))
    rates = np.broadcast_to(np.asarray(rate, np.float32), len(seeds))
    check_training(images, labels, trainer, rates, epochs, every)
    keys = seed_keys(seeds)
    images = jnp.asarray(images)
    state = init_state(network, images.shape[1], keys)
    path, losses = [state[0]], []
    with tqdm(total=epochs, desc=network.name, unit="epoch", leave=False, disable=None) as bar:
        for first in range(0, epochs, every):
            state, loss_here = advance(trainer, state, images, keys, rates, first, every)
            path.append(state[0])
            losses.append(loss_here)
            bar.update(every)
    return Training(
        state[0],
        jax.tree.map(lambda *moments: np.stack(moments), *path),
        np.arange(0, epochs + 1, every),
        np.concatenate(losses),
    )


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["deck"],
    meta_fields=["network", "loss", "batch_size"],
)
@dataclass(frozen=True)
class Trainer:
    """What stays the same throughout a training; static under `jax.jit`, but for the deck."""

    network: Network
    loss: str
    batch_size: int
    deck: Deck


def check_training(images, labels, trainer: Trainer, rates, epochs: int, every: int) -> None:
    """Raise a ValueError that names what does not fit."""
    check_split("train", images, labels)
    lookup(COSTS, loss=trainer.loss)
    check_number(
        f"1 to {trainer.deck.n}, the number of sequences that the images make",
        lambda value: 1 <= value <= trainer.deck.n,
        batch_size=trainer.batch_size,
    )
    for rate in rates:
        check_positive(rate=float(rate))
    check_count(epochs=epochs)
    check_number(
        f"a divisor of epochs = {epochs}",
        lambda value: value >= 1 and epochs % value == 0,
        every=every,
    )


def seed_keys(seeds: Sequence[int]) -> Key[Array, " seeds"]:
    """One key a seed: what a seed gives does not depend on which others run beside it."""
    if len(seeds) < 1:
        raise ValueError("seeds = (): must be at least one integer")
    return jnp.stack([random.key(seed) for seed in seeds])


@checked
@cache
def rule(network: Network, loss: str = "pre") -> Rule:
    """The learning rule that saves energy: backprop through time, by hand where there is one.

    Its `x` are sequences, (steps, batch, pixels), and `y` is None, for there is no target. Its
    output are the preactivations, (steps, batch, units). Raises ValueError for an unknown loss.
    """
    lookup(COSTS, loss=loss)

    def gradient(params, state, x, y, key):
        if network.gradient:
            return *network.gradient(params, x, loss), state
        value, slope = jax.value_and_grad(lambda p: energy(run(network, p, x), p, loss))(params)
        return value, slope, state

    return Rule(network.name, stateless, gradient, partial(run, network))


@partial(jax.jit, static_argnames=("network", "pixels"))
def init_state(network: Network, pixels: int, keys: Key[Array, " seeds"]):
    """What training starts from, over seeds: parameters, the rule's state, Adam's memory."""

    def init_one(key):
        params = network.init(random.fold_in(key, 0), pixels)
        return begin(rule(network), optax.adam(1.0), params, key)  # Adam's memory is 0 at any rate

    return jax.vmap(init_one)(keys)


@partial(jax.jit, static_argnames="epochs")
def advance(
    trainer: Trainer,
    state,
    images: Array,
    keys: Key[Array, " seeds"],
    rates: Float[Numbers, " seeds"],
    first: Int[Numbers, ""] | int,
    epochs: int,
):
    """Train for so many `epochs` from epoch `first` on: the new state, and losses (epochs, seeds).

    An epoch's sequences depend on the seed and on the number of the epoch alone.
    """
    gradient = rule(trainer.network, trainer.loss).gradient

    def train_one(state, key, rate):
        learn_from = step(gradient, optax.adam(rate))

        def batch(state, rows):
            return learn_from(state, (images[rows], None, None))

        def epoch(state, number):
            rows = deal(random.fold_in(key, number + 1), trainer.deck)
            return lax.scan(batch, state, _batches(rows, trainer.batch_size))

        state, losses = lax.scan(epoch, state, first + jnp.arange(epochs))
        return state, losses.mean(1)

    if len(keys) > 1:
        return jax.vmap(train_one, out_axes=(0, 1))(state, keys, rates)
    # XLA multiplies matrices faster on a CPU than batches of a single matrix.
    state, losses = train_one(*jax.tree.map(lambda a: a[0], (state, keys, rates)))
    return jax.tree.map(lambda a: a[None], state), losses[:, None]


def _batches(rows, size):
    """Cut (steps, n) into (batches, steps, size)."""
    steps, n = rows.shape
    return rows[:, : n // size * size].reshape(steps, -1, size).swapaxes(0, 1)
