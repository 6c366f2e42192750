"""When to stop training: early stopping on held-out sequences, and what it leads to."""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Float, Int

from pcbook.core.arguments import Allowed, checked
from pcbook.core.checks import check_count
from pcbook.emergence.energy_controls.conclusions import Conclusions, conclude
from pcbook.emergence.energy_efficiency import (
    Numbers,
    energy,
    measure_all,
    preactivations,
    probe,
    sequences,
    train,
)
from pcbook.store.data import Dataset

_known = Allowed("at least one number, and none NaN", lambda x: (x.size > 0) & (x == x).all())


class Stop(NamedTuple):
    """Where training stops, and where it was best: places in the list of losses."""

    stopped: int
    best: int


@checked
def early_stop(losses: Annotated[Float[Numbers, " evaluations"], _known], patience: int) -> Stop:
    """Stop once the held-out loss has not been lower for `patience` evaluations in a row.

    Without a stop, the last place. Raises ValueError for a patience below 1.
    """
    check_count(patience=patience)
    best = 0
    for place, loss in enumerate(losses):
        if loss < losses[best]:
            best = place
        if place - best >= patience:
            return Stop(place, best)
    return Stop(len(losses) - 1, best)


class Stopping(NamedTuple):
    """A training without a stop, watched so that any rule for stopping can be tried on it.

    At each of the `epochs`: the loss on held-out sequences, drawn anew each time (`redrawn`)
    or once (`fixed`), and the conclusions that a stop there would lead to.
    """

    epochs: Int[np.ndarray, " evaluations"]
    redrawn: Float[np.ndarray, "evaluations seeds"]
    fixed: Float[np.ndarray, "evaluations seeds"]
    conclusions: Conclusions


@checked
def watch(
    dataset: Dataset, *, epochs: int, rate: float, every: int = 5, seeds: Sequence[int] = (0,)
) -> Stopping:
    """Train on four fifths of the training images, and evaluate every so many epochs.

    The held-out loss is that of the other fifth; the conclusions are those of the test images.
    """
    fitted, held_out = split(dataset)
    trained = train(*fitted, epochs=epochs, rate=rate, every=every, seeds=seeds)
    evaluate = evaluator(dataset, held_out, len(trained.path))
    seen = [evaluate(weights, moment) for moment, weights in enumerate(trained.path)]
    redrawn, fixed, conclusions = zip(*seen)
    return Stopping(
        trained.epochs,
        np.array(redrawn),
        np.array(fixed),
        jax.tree.map(lambda *x: np.stack(x), *conclusions),
    )


def evaluator(dataset: Dataset, held_out, moments: int):
    """Return the function (weights, moment) -> losses on redrawn and fixed sequences, conclusions.

    The weights have a leading axis of networks; the sequences are of the `held_out` images and
    labels.
    """
    test = probe(dataset, random.key(0), times=4)
    keys = random.split(random.key(1), moments)
    images, labels = held_out

    @jax.jit
    def loss(weights, key):
        x = images[sequences(key, labels)]
        return lax.map(lambda W: energy(preactivations(W, x), W), weights)

    def evaluate(weights, moment):
        found = measure_all(weights, test, random.key(2))
        return loss(weights, keys[moment]), loss(weights, keys[0]), conclude(found)

    return evaluate


def split(dataset: Dataset):
    """Training images and labels, four fifths to fit and every fifth of a class held out."""
    x, y = dataset.x_train, dataset.y_train
    order = np.argsort(y, kind="stable")
    out = order[::5]
    rest = np.setdiff1d(order, out)
    return (x[rest], y[rest]), (jnp.asarray(x[out]), y[out])
