"""What is measured of a trained network: its costs, and whether it predicts."""

from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array, Bool, Float, Int, Key

from pcbook.core.arguments import Count, Index, NotNegative, checked, finite, some
from pcbook.core.checks import check_labels, check_number
from pcbook.emergence.energy_efficiency.arrays import Numbers, Steps, Weights
from pcbook.emergence.energy_efficiency.network import RECURRENT, Network, preactivations, run
from pcbook.emergence.energy_efficiency.orders import deal, deck
from pcbook.store.data import Dataset


class Bounds(NamedTuple):
    """What the preactivation would be if the drive were minus the best fixed guess.

    `none`: no drive at all. `median`: the median image. `category`: the median image of the
    class that comes, which only a network that predicts the class could send.
    """

    none: float
    median: float
    category: float


@checked
def medians(
    images: Float[Numbers, "images pixels"], labels: Int[Numbers, " images"]
) -> Float[np.ndarray, "classes pixels"]:
    """The median image of each class."""
    images, labels = np.asarray(images), np.asarray(labels)
    check_number("labels from 0", lambda labels: (labels >= 0).all(), labels=labels)
    return np.stack([np.median(images[labels == c], axis=0) for c in range(labels.max() + 1)])


@checked
def bounds(dataset: Dataset) -> Bounds:
    """Mean |x|, |x - median| and |x - median of its class|, medians of train, x of test.

    Every class counts alike, as it does in the sequences.
    """
    x, y = dataset.x_test, dataset.y_test
    guesses = (0, np.median(dataset.x_train, axis=0), medians(dataset.x_train, dataset.y_train)[y])
    counts = np.bincount(y)
    weights = 1 / (counts[y] * (counts > 0).sum())
    return Bounds(*(float(weights @ np.abs(x - guess).mean(1)) for guess in guesses))


class Energies(NamedTuple):
    """What each step costs, mean over units and sequences; (steps,) each."""

    preactivation: Float[Array, " steps"]
    activity: Float[Array, " steps"]
    transmission: Float[Array, " steps"]
    total: Float[Array, " steps"]


@checked
def energies(W: Weights, x: Steps) -> Energies:
    """Preactivation |a|; activity AP = h; synaptic transmission ST_j = sum_i h_i |W_ij|.

    The total is AP / 3 + 2 ST / 3: synapses take two thirds of what signals cost
    (Ali et al. 2022, after Sengupta et al. 2010).
    """
    a = preactivations(W, x)
    h = jax.nn.relu(a)
    parts = jnp.abs(a).mean((1, 2)), h.mean((1, 2)), (h @ jnp.abs(W)).mean((1, 2))
    return Energies(*parts, parts[1] / 3 + 2 * parts[2] / 3)


@checked
def prediction_units(
    a: Annotated[Float[Numbers, "batch units"], finite],
    classes: Int[Numbers, " batch"],
    count: Count = 10,
    threshold: NotNegative = 2.576,
) -> Int[Array, "classes units"]:
    """Which units predict which class, by the preactivations `a` at a sequence's last image.

    Unit i does so for class c if, over the sequences that end in c, the median of a_i is more
    than `threshold` median absolute deviations (scaled as for a normal) from zero: 1 above,
    -1 below, 0 not. Only those above zero send anything: "below" is a silent unit.
    """
    check_labels(count, classes=classes)

    def units_of(c):
        mine = jnp.where((classes == c)[:, None], a, jnp.nan)
        median = jnp.nanmedian(mine, axis=0)
        deviation = 1.4826 * jnp.nanmedian(jnp.abs(mine - median), axis=0)
        return jnp.where(jnp.abs(median) > threshold * deviation, jnp.sign(median), 0).astype(int)

    return lax.map(units_of, jnp.arange(count))


@checked
def lesion(units: Bool[Numbers, " units"]) -> Float[Array, " units"]:
    """The `transmit` of a network in which these units send nothing."""
    return jnp.where(units, 0.0, 1.0)


@checked
def lesion_others(key: Key[Array, ""], units: Bool[Numbers, " units"]) -> Float[Array, " units"]:
    """The control: as many units, drawn from all the others, send nothing."""
    rank = jnp.where(units, 2.0, random.uniform(key, units.shape)).argsort().argsort()
    return lesion(rank < jnp.minimum(units.sum(), (~units).sum()))


@checked
def decode(
    drive: Annotated[Float[Numbers, "batch units"], finite],
    medians: Annotated[Float[Numbers, "classes units"], finite, some],
) -> Int[Array, " batch"]:
    """The class that a drive announces: that whose median image is most nearly its negative."""
    return correlation(drive, -medians).argmax(1)


@checked
def correlation(a: Float[Numbers, "n units"], b: Float[Numbers, "m units"]) -> Float[Array, "n m"]:
    """Pearson's r between each row of `a` and each row of `b`; 0 where a row is constant."""

    def standard(x):
        x = x - x.mean(1, keepdims=True)
        norm = jnp.linalg.norm(x, axis=1, keepdims=True)
        return x / jnp.where(norm > 0, norm, 1)

    return standard(a) @ standard(b).T


@checked
def elsewhere(classes: Int[Numbers, " n"]) -> Int[Array, " n"]:
    """For each sequence another one, of another class; each is used once.

    Sorted by class, the one half the list away: of another class as long as none has half.
    """
    by_class = jnp.argsort(classes)
    return jnp.zeros_like(by_class).at[by_class].set(jnp.roll(by_class, len(by_class) // 2))


@checked
def in_wrong_context(
    rows: Int[Numbers, "steps n"], classes: Int[Numbers, " n"]
) -> Int[Array, "steps n"]:
    """The same last images, of these `classes`, after histories that lead up to other classes."""
    return jnp.concatenate([rows[:-1, elsewhere(classes)], rows[-1:]])


class Measures(NamedTuple):
    """What one network does on test sequences, or each of several along a leading axis.

    `preactivation` is the mean |a| at each step: of the network as it is, `lesioned` with its
    prediction units (those above zero) silenced, `control` with as many others silenced.
    `units` says which unit predicts from which class, +1, -1 or 0. `expected` is the mean |a|
    of the last images in their own context, `unexpected` that of the same images in others.
    `decoded` is the share of drives that announce the class that comes, step by step; the
    first, where there is no drive, is 0. `likeness` is Pearson's r of the mean drive before
    class c (rows) and minus the median image of class k (columns).
    """

    preactivation: Float[Array, "*networks steps"]
    lesioned: Float[Array, "*networks steps"]
    control: Float[Array, "*networks steps"]
    units: Int[Array, "*networks classes units"]
    expected: Float[Array, "*networks"]
    unexpected: Float[Array, "*networks"]
    decoded: Float[Array, "*networks steps"]
    likeness: Float[Array, "*networks classes classes"]


class Probe(NamedTuple):
    """Test sequences, dealt once: `rows` of `images`, with the class of each, and medians."""

    images: Float[Numbers, "images pixels"]
    rows: Int[Numbers, "steps n"]
    classes: Int[Numbers, "steps n"]
    medians: Float[Numbers, "classes pixels"]

    @property
    def x(self) -> Float[Array, "steps n pixels"]:
        return self.images[self.rows]


@checked
def probe(
    dataset: Dataset,
    key: Key[Array, ""],
    *,
    times: Count = 1,
    steps: int = 10,
    order: str = "ascending",
) -> Probe:
    """Deal the test images into sequences, several `times` over, with the medians of train."""
    images, labels = jnp.asarray(dataset.x_test), jnp.asarray(dataset.y_test)
    test = deck(dataset.y_test, steps, order)
    rows = jnp.concatenate([deal(k, test) for k in random.split(key, times)], 1)
    return Probe(images, rows, labels[rows], jnp.asarray(medians(dataset.x_train, dataset.y_train)))


@checked
@partial(jax.jit, static_argnames="network")
def measure(params, test: Probe, key: Key[Array, ""], network: Network = RECURRENT) -> Measures:
    """Measure one trained network on test sequences; `key` draws the lesion's control."""
    x, last, classes = test.x, test.classes[-1], len(test.medians)
    forward = partial(run, network, params)
    a = forward(x)
    drives = a[..., : x.shape[-1]] - x
    units = prediction_units(a[-1], last, classes)
    predict = (units > 0).any(0)
    preactivation = _mean_cost(a)
    wrong = test.images[in_wrong_context(test.rows, last)]
    decoded = [(decode(d, test.medians) == c).mean() for d, c in zip(drives, test.classes)]
    return Measures(
        preactivation=preactivation,
        lesioned=_mean_cost(forward(x, lesion(predict))),
        control=_mean_cost(forward(x, lesion_others(key, predict))),
        units=units,
        expected=preactivation[-1],
        unexpected=jnp.abs(forward(wrong)[-1]).mean(),
        decoded=jnp.stack(decoded).at[0].set(0),
        likeness=correlation(_class_means(drives[-1], last, classes), -test.medians),
    )


def _mean_cost(a):
    """The mean |a| at each step."""
    return jnp.abs(a).mean((1, 2))


def _class_means(values, classes, count):
    """The mean of the `values` (n, units) of each class; (count, units)."""
    sums = jax.ops.segment_sum(values, classes, count)
    return sums / jnp.bincount(classes, length=count).reshape(-1, 1)


@checked
@partial(jax.jit, static_argnames="network")
def measure_all(params, test: Probe, key: Key[Array, ""], network: Network = RECURRENT) -> Measures:
    """`measure` of every network along the leading axis of `params`, one after another."""
    return lax.map(lambda p: measure(p, test, key, network), params)


@checked
def interval(
    values: Float[Numbers, "networks ..."],
    level: float = 0.95,
    draws: Count = 10_000,
    seed: Index = 0,
) -> Float[np.ndarray, "two ..."]:
    """Bootstrap interval of the mean over networks: its lower and upper end."""
    check_number("between 0 and 1", lambda value: 0 < value < 1, level=level)
    values = np.asarray(values)
    again = np.random.default_rng(seed).integers(len(values), size=(draws, len(values)))
    means = np.stack([values[rows].mean(0) for rows in again])
    return np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
