"""The orders in which images are shown: sequences of images, drawn anew every epoch."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Int, Key

from pcbook.core.arguments import checked
from pcbook.core.checks import check_count, check_number
from pcbook.emergence.energy_efficiency.arrays import Numbers

ORDERS = ("ascending", "either way", "random")


@checked
def sequences(
    key: Key[Array, ""],
    labels: Int[Numbers, " images"],
    *,
    steps: int = 10,
    order: str = "ascending",
) -> Int[Array, "steps n"]:
    """Deal the images into sequences: which image each sequence shows at each step.

    "ascending": the classes in their order, from every class equally often, and after the
    last the first again. "either way": up or down, so that it takes two images to know the
    third. "random": any image after any. No image is dealt twice, and the dealing ends when
    the rarest class is used up. Raises ValueError for an unknown order or labels that leave
    a class out.
    """
    return deal(key, deck(labels, steps, order))


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["rows"],
    meta_fields=["steps", "order", "n"],
)
@dataclass(frozen=True)
class Deck:
    """Images by class, to be dealt into `n` sequences of so many `steps` in an `order`.

    `rows` (classes, most) holds the images of each class, and -1 where there are no more.
    Under `jax.jit` the rows are traced and the rest is static.
    """

    rows: Int[Numbers, "classes most"]
    steps: int
    order: str
    n: int


@checked
def deck(labels: Int[Numbers, " images"], steps: int = 10, order: str = "ascending") -> Deck:
    """Sort the images by class, once for many dealings.

    Raises ValueError for an unknown order, and for labels or steps that make no sequence.
    """
    labels = np.asarray(labels)
    check_number(f"one of {', '.join(map(repr, ORDERS))}", ORDERS.__contains__, order=order)
    check_count(steps=steps)
    if labels.size == 0 or labels.min() < 0:
        raise ValueError("labels: must be at least one integer from 0")
    counts = np.bincount(labels)
    n = counts.min() // -(-steps // len(counts))
    if n < 1:
        raise ValueError(
            f"labels show class {counts.argmin()} {counts.min()} times: must be at least "
            f"{-(-steps // len(counts))} for sequences of {steps} steps"
        )
    rows = np.full((len(counts), counts.max()), -1)
    for label, count in enumerate(counts):
        rows[label, :count] = np.flatnonzero(labels == label)
    return Deck(rows, steps, order, int(n))


@checked
@jax.jit
def deal(key: Key[Array, ""], deck: Deck) -> Int[Array, "steps n"]:
    """Deal a deck into sequences; see `sequences`."""
    rows, steps, n = deck.rows, deck.steps, deck.n
    shuffle_key, start_key, way_key = random.split(key, 3)
    if deck.order == "random":
        return _shuffled(shuffle_key, rows.reshape(1, -1))[0, : steps * n].reshape(steps, n)
    classes = len(rows)
    start = random.permutation(start_key, n) % classes
    up = random.permutation(way_key, n) % 2 if deck.order == "either way" else 1
    time = jnp.arange(steps)[:, None]
    label = (start + (2 * up - 1) * time) % classes
    # A sequence that goes round more than once takes a new image of the class each time.
    turn = jnp.arange(n) * -(-steps // classes) + time // classes
    return _shuffled(shuffle_key, rows)[label, turn]


def _shuffled(key, rows):
    """Each row in random order, its -1 last."""
    place = jnp.where(rows < 0, 2.0, random.uniform(key, rows.shape))
    return jnp.take_along_axis(rows, place.argsort(1), 1)
