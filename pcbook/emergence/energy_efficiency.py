"""Energy efficiency: a network that only saves energy learns to predict.

One recurrent layer. Each pixel drives one unit, every unit reaches every unit, and there
is neither bias nor input weight:

    a_t = h_{t-1} W + x_t,        h_t = relu(a_t),        h_0 = 0,

with W[i, j] the synapse from i to j. Training lowers what it costs to run, the mean of
|a| over units, summed over ten steps, and nothing else: there is no target. The images
come in an order (0, 1, 2, ...), so the cheapest thing to send to a unit is minus the
input that is about to arrive. Prediction is not asked for; it is what saving looks like
(Ali, Ahmad, de Groot, van Gerven & Kietzmann 2022).

    trained = train(images, labels, epochs=400, rate=1e-3, seeds=range(5))
    a = preactivations(trained.params[0], images[sequences(key, labels)])

Arrays of a sequence are (steps, batch, units).

Chapter: book/emergence/energy_efficiency.ipynb
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax, random
from jaxtyping import Array, Bool, Float, Int, Key
from tqdm import tqdm

from pcbook.core.checks import lookup
from pcbook.core.network import Function
from pcbook.store import data
from pcbook.store.data import Dataset

Numbers = Array | np.ndarray
Weights = Float[Numbers, "units units"]
Steps = Float[Numbers, "steps batch units"]

# --- images ---


class Size(NamedTuple):
    """Images to train on, with the settings that are known to suffice for them."""

    load: Callable[[], Dataset]
    rate: float
    epochs: int


def pooled(dataset: Dataset, side: int, channels: int = 1) -> Dataset:
    """The same images, square ones, averaged down to `side` x `side` pixels.

    Raises ValueError if `side` does not divide theirs.
    """

    def pool(x):
        width = round((x.shape[1] / channels) ** 0.5)
        if side < 1 or width % side:
            raise ValueError(f"side = {side}: must divide {width}, the side of the images")
        block = width // side
        x = x.reshape(len(x), side, block, side, block, channels)
        return x.mean((2, 4), dtype=np.float32).reshape(len(x), -1)

    return Dataset(pool(dataset.x_train), dataset.y_train, pool(dataset.x_test), dataset.y_test)


SIZES = {
    "digits": Size(data.digits, 3e-3, 1500),
    "mnist14": Size(lambda: pooled(data.mnist(), 14), 1e-3, 150),
    "mnist": Size(data.mnist, 1e-4, 200),
    "fashion14": Size(lambda: pooled(data.fashion_mnist(), 14), 1e-3, 150),
    "fashion": Size(data.fashion_mnist, 1e-4, 200),
    "cifar8": Size(lambda: pooled(data.cifar10(), 8, 3), 1e-3, 150),
    "cifar16": Size(lambda: pooled(data.cifar10(), 16, 3), 1e-4, 300),
}

# --- sequences ---

ORDERS = ("ascending", "either way", "random")


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
    return _deal(key, *deck(labels, steps, order))


class Deck(NamedTuple):
    """Images by class, ready to be dealt: `rows` (classes, most), with -1 where there is none."""

    rows: Int[Numbers, "classes most"]
    steps: int
    order: str
    n: int


def deck(labels: Int[Numbers, " images"], steps: int = 10, order: str = "ascending") -> Deck:
    """Sort the images by class, once; see `sequences`."""
    labels = np.asarray(labels)
    if order not in ORDERS:
        raise ValueError(f"order = {order!r}: must be one of {', '.join(map(repr, ORDERS))}")
    if steps < 1:
        raise ValueError(f"steps = {steps}: must be an integer of at least 1")
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


@partial(jax.jit, static_argnames=("steps", "order", "n"))
def _deal(key, rows, steps, order, n):
    shuffle_key, start_key, way_key = random.split(key, 3)
    if order == "random":
        return _shuffled(shuffle_key, rows.reshape(1, -1))[0, : steps * n].reshape(steps, n)
    classes = len(rows)
    start = random.permutation(start_key, n) % classes
    up = random.permutation(way_key, n) % 2 if order == "either way" else 1
    time = jnp.arange(steps)[:, None]
    label = (start + (2 * up - 1) * time) % classes
    # A sequence that goes round more than once takes a new image of the class each time.
    turn = jnp.arange(n) * -(-steps // classes) + time // classes
    return _shuffled(shuffle_key, rows)[label, turn]


def _shuffled(key, rows):
    """Each row in random order, its -1 last."""
    rows = jnp.asarray(rows)
    return jnp.take_along_axis(
        rows, jnp.where(rows < 0, 2.0, random.uniform(key, rows.shape)).argsort(1), 1
    )


# --- the network ---


class Network(NamedTuple):
    """A recurrent network whose units are driven by pixels.

    `init(key, pixels)` draws the parameters. `step(params, state, x, transmit)` takes the
    network one image further and returns the preactivations (batch, units), the pixels' own
    units first, and the new state; the state before the first image is `rest(params, batch)`.
    What the units send is multiplied by `transmit`, 0 for a lesioned one.
    `gradient(params, x, loss)` is that of the loss, by hand; where it is None, JAX finds it.
    """

    name: str
    init: Callable[..., Any]
    rest: Callable[..., Any]
    step: Callable[..., tuple[Array, Any]]
    gradient: Callable[..., tuple[Array, Any]] | None = None


def init(key: Key[Array, ""], pixels: int) -> Weights:
    """Weights between -1 and 1 over the root of the number of units, all equally likely."""
    bound = pixels**-0.5
    return random.uniform(key, (pixels, pixels), minval=-bound, maxval=bound)


def preactivations(W: Weights, x: Steps, transmit: Float[Numbers, "..."] | float = 1.0) -> Steps:
    """What enters each unit, a_t = h_{t-1} W + x_t: the prediction from within plus the image.

    `transmit` multiplies what each unit sends to the others: 0 silences it.
    """
    a = [jnp.asarray(x[0])]
    for x_t in x[1:]:
        a.append((jax.nn.relu(a[-1]) * transmit) @ W + x_t)
    return jnp.stack(a)


def drive(W: Weights, x: Steps) -> Steps:
    """What the network sends to its own units before each image: a_t - x_t = h_{t-1} W."""
    return preactivations(W, x) - x


# What a unit's preactivation costs, and its slope.
_COSTS = (
    Function("pre", jnp.abs, jnp.sign),
    Function("post", jax.nn.relu, lambda a: (a > 0).astype(a.dtype)),
    Function("post+weights", jax.nn.relu, lambda a: (a > 0).astype(a.dtype)),
)
COSTS = {cost.name: cost for cost in _COSTS}
WEIGHT_COST = {"pre": 0.0, "post": 0.0, "post+weights": 3708.0}


def energy(a: Steps, params, loss: str = "pre") -> Float[Array, ""]:
    """The loss: the mean cost of a unit, summed over the steps.

    "pre" mean|a|; "post" mean|h|; "post+weights" mean|h| + 3708 mean(W^2).
    """
    cost = lookup(COSTS, loss=loss)(a).mean((1, 2)).sum()
    if weight := WEIGHT_COST[loss]:
        cost += weight * len(a) * sum((W**2).mean() for W in jax.tree.leaves(params))
    return cost


def gradient(
    W: Weights, x: Steps, loss: str = "pre"
) -> tuple[Float[Array, ""], Float[Array, "units units"]]:
    """The loss and dLoss/dW, by backprop through time, written by hand.

    With c the cost of a unit, the blame of a preactivation is its own cost and what it does
    to the next step,

        delta_t = c'(a_t) / (batch units) + (delta_{t+1} W^T) * relu'(a_t),
        dLoss/dW = sum_t h_{t-1}^T delta_t,

    and that sum over steps and batch is one matrix product. Samples stand in columns here,
    in which order a CPU multiplies fastest.
    """
    x = jnp.asarray(x).mT
    forth = lax.optimization_barrier(W.T)  # transposed once, and not in every product
    a = [x[0]]
    for x_t in x[1:]:
        a.append(forth @ jax.nn.relu(a[-1]) + x_t)
    own = [lookup(COSTS, loss=loss).slope(a_t) / a_t.size for a_t in a]
    delta = own[-1:]
    for a_t, own_t in zip(a[-2:0:-1], own[-2:0:-1]):
        delta.insert(0, own_t + (W @ delta[0]) * (a_t > 0))
    dW = jnp.zeros_like(W)
    if len(a) > 1:
        dW = jax.nn.relu(jnp.hstack(a[:-1])) @ jnp.hstack(delta).T
    if weight := WEIGHT_COST[loss]:
        dW += weight * len(a) * 2 * W / W.size
    return energy(jnp.stack(a), W, loss), dW


def _step(W, h, x, transmit):
    a = (h * transmit) @ W + x
    return a, jax.nn.relu(a)


RECURRENT = Network("recurrent", init, lambda W, batch: jnp.zeros((batch, len(W))), _step, gradient)


def run(
    network: Network, params, x: Steps, transmit: Float[Numbers, "..."] | float = 1.0
) -> Float[Array, "steps batch all_units"]:
    """The preactivations of any network; `preactivations` is the main network's, unrolled."""

    def step(state, x_t):
        a, state = network.step(params, state, x_t, transmit)
        return state, a

    return lax.scan(step, network.rest(params, x.shape[1]), x)[1]


# --- training ---


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


def train(
    images: Float[Numbers, "images pixels"],
    labels: Int[Numbers, " images"],
    *,
    epochs: int,
    rate: float | Sequence[float],
    loss: str = "pre",
    order: str = "ascending",
    steps: int = 10,
    batch_size: int = 32,
    seeds: Sequence[int] = (0,),
    every: int | None = None,
    network: Network = RECURRENT,
) -> Training:
    """Train a network a seed, all at once, to save energy on sequences of images.

    Adam with step size `rate`, or one for each seed; new sequences every epoch; those that do
    not fill the last batch sit the epoch out. The path keeps the parameters after `every` so
    many epochs.
    Raises ValueError for images that are not finite rows of pixels, labels that do not fit
    them, an unknown loss or order, and sizes below 1.
    """
    every = every or epochs
    trainer = Trainer(network, loss, batch_size, deck(labels, steps, order))
    rates = np.broadcast_to(np.asarray(rate, np.float32), len(seeds))
    check_training(images, labels, trainer, rates, epochs, every)
    keys = seed_keys(seeds)
    images = jnp.asarray(images)
    state = init_state(network, images.shape[1], keys)
    path, losses = [state[0]], []
    with tqdm(total=epochs, desc=network.name, unit="epoch", leave=False) as bar:
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


class Trainer(NamedTuple):
    """What stays the same throughout a training."""

    network: Network
    loss: str
    batch_size: int
    deck: Deck


def check_training(images, labels, trainer: Trainer, rates, epochs: int, every: int) -> None:
    """Raise the ValueError that names what does not fit."""
    images, labels = np.asarray(images), np.asarray(labels)
    Dataset(images, labels, images, labels)
    lookup(COSTS, loss=trainer.loss)
    if not 1 <= trainer.batch_size <= trainer.deck.n:
        raise ValueError(
            f"batch_size = {trainer.batch_size}: must be 1 to {trainer.deck.n}, "
            "the number of sequences that the images make"
        )
    for rate in rates:
        if not 0 < rate < float("inf"):
            raise ValueError(f"rate = {rate:g}: must be a positive number")
    if epochs < 1:
        raise ValueError(f"epochs = {epochs}: must be at least 1")
    if every < 1 or epochs % every:
        raise ValueError(f"every = {every}: must divide epochs = {epochs}")


def seed_keys(seeds: Sequence[int]) -> Key[Array, " seeds"]:
    """One key a seed: what a seed gives does not depend on which others run beside it."""
    if len(seeds) < 1:
        raise ValueError("seeds = (): must be at least one integer")
    return jnp.stack([random.key(seed) for seed in seeds])


ADAM = optax.scale_by_adam()


@partial(jax.jit, static_argnums=(0, 1))
def init_state(network: Network, pixels: int, keys: Key[Array, " seeds"]):
    """The state before training, over seeds: the parameters and the optimiser's memory."""

    def one(key):
        params = network.init(random.fold_in(key, 0), pixels)
        return params, ADAM.init(params)

    return jax.vmap(one)(keys)


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
    rows, *dealing = trainer.deck
    static = trainer._replace(deck=None), tuple(dealing), epochs
    return _advance(*static, state, images, keys, rates, first, jnp.asarray(rows))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _advance(trainer, dealing, epochs, state, images, keys, rates, first, rows):
    def one(state, key, rate):
        def epoch(state, number):
            order = _deal(random.fold_in(key, number + 1), rows, *dealing)
            batch = partial(_batch, trainer, images, rate)
            return lax.scan(batch, state, _batches(trainer, order))

        state, losses = lax.scan(epoch, state, first + jnp.arange(epochs))
        return state, losses.mean(1)

    return jax.vmap(one, out_axes=(0, 1))(state, keys, rates)


def _batches(trainer, order):
    """Cut (steps, n) into (batches, steps, batch)."""
    size = trainer.batch_size
    steps, n = order.shape
    return order[:, : n // size * size].reshape(steps, -1, size).swapaxes(0, 1)


def _batch(trainer, images, rate, state, rows):
    params, memory = state
    loss, slope = _gradient(trainer, params, images[rows])
    step, memory = ADAM.update(slope, memory)
    return (jax.tree.map(lambda p, s: p - rate * s, params, step), memory), loss


def _gradient(trainer, params, x):
    network = trainer.network
    if network.gradient:
        return network.gradient(params, x, trainer.loss)
    return jax.value_and_grad(lambda p: energy(run(network, p, x), p, trainer.loss))(params)


# --- measures ---


class Bounds(NamedTuple):
    """What the preactivation would be if the drive were minus the best fixed guess.

    `none`: no drive at all. `median`: the median image. `category`: the median image of the
    class that comes, which only a network that predicts the class could send.
    """

    none: float
    median: float
    category: float


def medians(
    images: Float[Numbers, "images pixels"], labels: Int[Numbers, " images"]
) -> Float[np.ndarray, "classes pixels"]:
    """The median image of each class."""
    images, labels = np.asarray(images), np.asarray(labels)
    return np.stack([np.median(images[labels == c], axis=0) for c in range(labels.max() + 1)])


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


def energies(W: Weights, x: Steps) -> Energies:
    """Preactivation |a|; activity AP = h; synaptic transmission ST_j = sum_i h_i |W_ij|.

    The total is AP / 3 + 2 ST / 3: synapses take two thirds of what signals cost
    (Ali et al. 2022, after Sengupta et al. 2010).
    """
    a = preactivations(W, x)
    h = jax.nn.relu(a)
    parts = jnp.abs(a).mean((1, 2)), h.mean((1, 2)), (h @ jnp.abs(W)).mean((1, 2))
    return Energies(*parts, parts[1] / 3 + 2 * parts[2] / 3)


def prediction_units(
    a: Float[Numbers, "batch units"],
    classes: Int[Numbers, " batch"],
    count: int = 10,
    threshold: float = 2.576,
) -> Int[Array, "classes units"]:
    """Which units say which class, by the preactivations `a` at a sequence's last image.

    Unit i is one for class c if, over the sequences that end in c, the median of a_i is more
    than `threshold` median absolute deviations (scaled as for a normal) from zero: 1 above,
    -1 below, 0 not. Only those above zero send anything: "below" is a silent unit.
    """

    def of_class(c):
        mine = jnp.where((classes == c)[:, None], a, jnp.nan)
        median = jnp.nanmedian(mine, axis=0)
        deviation = 1.4826 * jnp.nanmedian(jnp.abs(mine - median), axis=0)
        return jnp.where(jnp.abs(median) > threshold * deviation, jnp.sign(median), 0).astype(int)

    return lax.map(of_class, jnp.arange(count))


def lesion(units: Bool[Numbers, " units"]) -> Float[Array, " units"]:
    """The `transmit` of a network in which these units send nothing."""
    return jnp.where(units, 0.0, 1.0)


def lesion_others(key: Key[Array, ""], units: Bool[Numbers, " units"]) -> Float[Array, " units"]:
    """The control: as many units, drawn from all the others, send nothing."""
    rank = jnp.where(units, 2.0, random.uniform(key, units.shape)).argsort().argsort()
    return lesion(rank < jnp.minimum(units.sum(), (~units).sum()))


def decode(
    drive: Float[Numbers, "batch units"], medians: Float[Numbers, "classes units"]
) -> Int[Array, " batch"]:
    """The class that a drive announces: that whose median image is most nearly its negative."""
    return correlation(drive, -medians).argmax(1)


def correlation(a: Float[Numbers, "n units"], b: Float[Numbers, "m units"]) -> Float[Array, "n m"]:
    """Pearson's r between each row of `a` and each row of `b`; 0 where a row is constant."""

    def standard(x):
        x = x - x.mean(1, keepdims=True)
        norm = jnp.linalg.norm(x, axis=1, keepdims=True)
        return x / jnp.where(norm > 0, norm, 1)

    return standard(a) @ standard(b).T


def elsewhere(classes: Int[Numbers, " n"]) -> Int[Array, " n"]:
    """For each sequence another one, of another class; each serves once.

    Sorted by class, the one half the list away: of another class as long as none has half.
    """
    by_class = jnp.argsort(classes)
    return jnp.zeros_like(by_class).at[by_class].set(jnp.roll(by_class, len(by_class) // 2))


def in_wrong_context(
    rows: Int[Numbers, "steps n"], classes: Int[Numbers, " n"]
) -> Int[Array, "steps n"]:
    """The same last images, of these `classes`, after histories that lead up to other classes."""
    return jnp.concatenate([rows[:-1, elsewhere(classes)], rows[-1:]])


class Measures(NamedTuple):
    """What one network does on test sequences.

    `preactivation` is the mean |a| at each step: of the network as it is, `lesioned` with its
    prediction units (those above zero) silenced, `control` with as many others silenced.
    `units` says which unit predicts from which class, +1, -1 or 0. `expected` is the mean |a|
    of the last images in their own context, `unexpected` that of the same images in others.
    `decoded` is the share of drives that announce the class that comes, step by step; the
    first, where there is no drive, is 0. `likeness` is Pearson's r of the mean drive before
    class c (rows) and minus the median image of class k (columns).
    """

    preactivation: Float[Array, " steps"]
    lesioned: Float[Array, " steps"]
    control: Float[Array, " steps"]
    units: Int[Array, "classes units"]
    expected: Float[Array, ""]
    unexpected: Float[Array, ""]
    decoded: Float[Array, " steps"]
    likeness: Float[Array, "classes classes"]


class Probe(NamedTuple):
    """Test sequences, dealt once: `rows` of `images`, with the class of each, and medians."""

    images: Float[Numbers, "images pixels"]
    rows: Int[Numbers, "steps n"]
    classes: Int[Numbers, "steps n"]
    medians: Float[Numbers, "classes pixels"]

    @property
    def x(self) -> Float[Array, "steps n pixels"]:
        return self.images[self.rows]


def probe(
    dataset: Dataset,
    key: Key[Array, ""],
    *,
    times: int = 1,
    steps: int = 10,
    order: str = "ascending",
) -> Probe:
    """Deal the test images into sequences, several `times` over, with the medians of train."""
    images, labels = jnp.asarray(dataset.x_test), jnp.asarray(dataset.y_test)
    deals = [
        sequences(k, dataset.y_test, steps=steps, order=order) for k in random.split(key, times)
    ]
    rows = jnp.concatenate(deals, 1)
    return Probe(images, rows, labels[rows], jnp.asarray(medians(dataset.x_train, dataset.y_train)))


@partial(jax.jit, static_argnames="network")
def measure(params, test: Probe, key: Key[Array, ""], network: Network = RECURRENT) -> Measures:
    """Everything that is asked of one trained network; `key` draws the lesion's control."""
    x, last, classes = test.x, test.classes[-1], len(test.medians)

    def of(x, transmit=1.0):
        return run(network, params, x, transmit)

    a = of(x)
    pixels = x.shape[-1]
    drives = a[..., :pixels] - x
    units = prediction_units(a[-1], last, classes)
    predict = (units > 0).any(0)
    cost = [
        jnp.abs(each).mean((1, 2))
        for each in (a, of(x, lesion(predict)), of(x, lesion_others(key, predict)))
    ]
    wrong = test.images[in_wrong_context(test.rows, last)]
    decoded = [(decode(d, test.medians) == c).mean() for d, c in zip(drives, test.classes)]
    mean_drive = jax.ops.segment_sum(drives[-1], last, classes) / jnp.bincount(
        last, length=classes
    ).reshape(-1, 1)
    return Measures(
        *cost,
        units,
        cost[0][-1],
        jnp.abs(of(wrong)[-1]).mean(),
        jnp.stack(decoded).at[0].set(0),
        correlation(mean_drive, -test.medians),
    )


@partial(jax.jit, static_argnames="network")
def measure_all(params, test: Probe, key: Key[Array, ""], network: Network = RECURRENT) -> Measures:
    """`measure` of every network along the leading axis of `params`, one after another."""
    return lax.map(lambda p: measure(p, test, key, network), params)


def interval(
    values: Float[Numbers, "networks ..."], level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> Float[np.ndarray, "two ..."]:
    """Bootstrap interval of the mean over networks: its lower and upper end."""
    values = np.asarray(values)
    again = np.random.default_rng(seed).integers(len(values), size=(draws, len(values)))
    means = np.stack([values[rows].mean(0) for rows in again])
    return np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
