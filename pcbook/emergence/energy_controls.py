"""Energy controls: which conclusions of the emergence experiment survive a control?

A measure shows prediction only if a network that cannot predict fails it. Three cannot: one
without recurrence (W = 0), an untrained one, one that was trained on images in random order.
The published test for error units passes all three, because it compares different *images*.
The sound test changes nothing but the context,

    surprise = mean |a| of an image after a history that led elsewhere
             - mean |a| of the same image after its own,

and is read as an effect size: with thousands of images every difference is significant.
The same measures then ask other networks, other orders and other ways to stop training
(after Ali, Ahmad, de Groot, van Gerven & Kietzmann 2022).

Chapter: book/emergence/energy_controls.ipynb
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, nn, random
from jaxtyping import Array, Bool, Float, Int

from pcbook.emergence.energy_efficiency import (
    RECURRENT,
    Measures,
    Network,
    Numbers,
    Probe,
    elsewhere,
    in_wrong_context,
    init,
    measure_all,
    preactivations,
    probe,
    run,
    sequences,
    train,
)
from pcbook.store.data import Dataset

# --- the published test for error units, and the sound one in its place ---


def swapped(test: Probe, step: int) -> Int[Array, "steps n"]:
    """The rows of `test` with the image at `step` (from 0) exchanged for one of another class."""
    return test.rows.at[step].set(test.rows[step, elsewhere(test.classes[step])])


def error_units(
    W: Float[Numbers, "units units"], test: Probe, step: int = 8, threshold: float = 2.576
) -> Bool[Array, "classes units"]:
    """Which units "signal errors" by the published test: it is confounded, and says little.

    Unit i is one for class c if it fires more at `step` (from 0) when the image is of another
    class than when it is of class c, by a two-sample z of at least `threshold`. But other
    classes are other images: pixels alone pass.
    """
    usual, odd = (
        nn.relu(preactivations(W, test.images[rows])[step])
        for rows in (test.rows, swapped(test, step))
    )

    def of_class(c):
        mine = (test.classes[step] == c)[:, None]
        n = mine.sum()
        mean = [jnp.where(mine, h, 0).sum(0) / n for h in (usual, odd)]
        variance = [
            jnp.where(mine, (h - m) ** 2, 0).sum(0) / (n - 1) for h, m in zip((usual, odd), mean)
        ]
        spread = jnp.sqrt((variance[0] + variance[1]) / n)
        return (mean[1] - mean[0]) >= threshold * jnp.where(spread > 0, spread, jnp.inf)

    return lax.map(of_class, jnp.arange(len(test.medians)))


class Surprise(NamedTuple):
    """The same images in the wrong and in the right context.

    `percent` more preactivation in the wrong one; `effect` the mean difference of an image
    over its standard deviation (Cohen's d of pairs): below .2 nothing to speak of, from .8
    large.
    """

    percent: Float[Array, ""]
    effect: Float[Array, ""]


def surprise(params, test: Probe, network: Network = RECURRENT) -> Surprise:
    """What it costs that an image comes where another class was due."""
    wrong = test.images[in_wrong_context(test.rows, test.classes[-1])]
    right, wrong = (jnp.abs(run(network, params, x)[-1]).mean(1) for x in (test.x, wrong))
    extra = wrong - right
    spread = extra.std()
    effect = jnp.where(spread > 0, extra.mean() / jnp.where(spread > 0, spread, 1), 0)
    return Surprise(100 * extra.mean() / right.mean(), effect)


class Conclusions(NamedTuple):
    """The experiment's four conclusions, a number a network.

    `fast` is the share of the preactivation, in %, that is gone at the second image; `slow`
    what goes from the second to the last; `slow_lesioned` the same without the prediction
    units (negative: it rises); `lesion` how much more the last image costs without them;
    `surprise` how much more it costs in the wrong context; `decoded` the share, in %, of
    last classes that the drive announces; `units` the number of prediction units above zero.
    """

    fast: Float[np.ndarray, " networks"]
    slow: Float[np.ndarray, " networks"]
    slow_lesioned: Float[np.ndarray, " networks"]
    lesion: Float[np.ndarray, " networks"]
    surprise: Float[np.ndarray, " networks"]
    decoded: Float[np.ndarray, " networks"]
    units: Float[np.ndarray, " networks"]


def conclude(found: Measures) -> Conclusions:
    """The conclusions for the networks along the leading axis of `found`."""
    a, lesioned = np.asarray(found.preactivation), np.asarray(found.lesioned)

    def percent(part, whole):
        return 100 * np.asarray(part) / np.asarray(whole)

    return Conclusions(
        percent(a[:, 0] - a[:, 1], a[:, 0]),
        percent(a[:, 1] - a[:, -1], a[:, 1]),
        percent(lesioned[:, 1] - lesioned[:, -1], lesioned[:, 1]),
        percent(lesioned[:, -1] - a[:, -1], a[:, -1]),
        percent(found.unexpected - found.expected, found.expected),
        100 * np.asarray(found.decoded)[:, -1],
        (np.asarray(found.units) > 0).any(1).sum(1).astype(float),
    )


# --- stopping ---


class Stop(NamedTuple):
    """Where training stops, and where it was best: places in the list of losses."""

    stopped: int
    best: int


def early_stop(losses: Float[Numbers, " evaluations"], patience: int) -> Stop:
    """Stop once the held-out loss has not been lower for `patience` evaluations in a row.

    Without a stop, the last place. Raises ValueError for a patience below 1.
    """
    if patience < 1:
        raise ValueError(f"patience = {patience}: must be an integer of at least 1")
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


def watch(
    dataset: Dataset, *, epochs: int, rate: float, every: int = 5, seeds: Sequence[int] = (0,)
) -> Stopping:
    """Train on four fifths of the training images; the fifth is watched, the test images judge."""
    fitted, held_out = _split(dataset)
    trained = train(*fitted, epochs=epochs, rate=rate, every=every, seeds=seeds)
    test = probe(dataset, random.key(0), times=4)

    @jax.jit
    def loss(weights, key):
        x = held_out[0][sequences(key, held_out[1])]
        return lax.map(lambda W: jnp.abs(preactivations(W, x)).mean((1, 2)).sum(), weights)

    keys = random.split(random.key(1), len(trained.path))
    redrawn = [loss(weights, key) for weights, key in zip(trained.path, keys)]
    fixed = [loss(weights, keys[0]) for weights in trained.path]
    judged = [conclude(measure_all(weights, test, random.key(2))) for weights in trained.path]
    return Stopping(
        trained.epochs,
        np.array(redrawn),
        np.array(fixed),
        jax.tree.map(lambda *x: np.stack(x), *judged),
    )


def _split(dataset):
    """Training images and labels, four fifths to fit and every fifth of a class held out."""
    x, y = dataset.x_train, dataset.y_train
    order = np.argsort(y, kind="stable")
    out = order[::5]
    rest = np.setdiff1d(order, out)
    return (x[rest], y[rest]), (jnp.asarray(x[out]), y[out])


# --- other networks, with the same fixed input: pixel i drives unit i ---


def _weights(key, names: str, units: int, pixels: int | None = None):
    """Weights between the same `units`, as many as there are names."""
    return {name: init(k, units) for name, k in zip(names, random.split(key, len(names)))}


def _silence(width):
    """The state of a network of `width(params)` units that have not fired yet."""
    return lambda params, batch: jnp.zeros((batch, width(params)))


def _biased_step(params, h, x, transmit):
    a = (h * transmit) @ params["W"] + params["b"] + x
    return a, nn.relu(a)


BIASED = Network(
    "bias",
    lambda key, pixels: {"W": init(key, pixels), "b": jnp.zeros(pixels)},
    _silence(lambda params: len(params["b"])),
    _biased_step,
)


def _bias_only_step(params, h, x, transmit):
    # The units reach nobody: what is left is the best fixed guess, made also at the first image.
    a = params["b"] + x
    return a, nn.relu(a)


BIAS_ONLY = Network(
    "bias only",
    lambda key, pixels: {"b": jnp.zeros(pixels)},
    _silence(lambda params: len(params["b"])),
    _bias_only_step,
)


def latent(units: int) -> Network:
    """The recurrent network with so many units more that no pixel drives."""

    def step(W, h, x, transmit):
        a = (h * transmit) @ W + jnp.pad(x, ((0, 0), (0, units)))
        return a, nn.relu(a)

    return Network(
        f"{units} latent units",
        lambda key, pixels: init(key, pixels + units),
        _silence(len),
        step,
    )


def _two_layers_step(params, h, x, transmit):
    # The second layer hears the first at once and answers it one image later.
    W, pixels = params, x.shape[1]
    lower, upper = jnp.split(h * transmit, 2, axis=1)
    transmit = jnp.broadcast_to(transmit, (2 * pixels,))
    a1 = lower @ W["a"] + upper @ W["b"] + x
    a2 = (nn.relu(a1) * transmit[:pixels]) @ W["c"] + upper @ W["d"]
    a = jnp.concatenate([a1, a2], axis=1)
    return a, nn.relu(a)


TWO_LAYERS = Network(
    "two layers",
    lambda key, pixels: _weights(key, "abcd", pixels),
    _silence(lambda params: 2 * len(params["a"])),
    _two_layers_step,
)


def _gru_step(params, h, x, transmit):
    sent = h * transmit
    z, r = (nn.sigmoid(sent @ params[gate]) for gate in "zr")
    a = (r * sent) @ params["W"] + x
    return a, (1 - z) * h + z * nn.relu(a)


GRU = Network(
    "GRU",
    lambda key, pixels: _weights(key, "Wzr", pixels),
    _silence(lambda params: len(params["W"])),
    _gru_step,
)


def _lstm_step(params, state, x, transmit):
    h, cell = state
    sent = h * transmit
    i, f, o = (nn.sigmoid(sent @ params[gate]) for gate in "ifo")
    a = sent @ params["W"] + x
    cell = f * cell + i * nn.relu(a)
    return a, (o * cell, cell)


LSTM = Network(
    "LSTM",
    lambda key, pixels: _weights(key, "Wifo", pixels),
    lambda params, batch: (jnp.zeros((batch, len(params["W"]))),) * 2,
    _lstm_step,
)


def leaky(leak: float) -> Network:
    """Units in continuous time, one Euler step an image: a = (1 - leak) a + h W + x.

    At leak 1 nothing stays and it is the recurrent network.
    """

    def step(W, a, x, transmit):
        a = (1 - leak) * a + (nn.relu(a) * transmit) @ W + x
        return a, a

    return Network(f"leak {leak:g}", init, _silence(len), step)


def _inhibitory_step(W, h, x, transmit):
    a = (h * transmit) @ -jnp.abs(W) + x
    return a, nn.relu(a)


# Our own: every synapse inhibits. No unit can be raised above its pixel, so none can stand
# for a digit that is not there.
INHIBITORY = Network("inhibition only", init, _silence(len), _inhibitory_step)

OTHERS = BIASED, BIAS_ONLY, latent(32), TWO_LAYERS, GRU, LSTM, leaky(0.5), INHIBITORY

# A network and the order of its images, by name.
VARIANTS: dict[str, tuple[Network, str]] = {
    "recurrent": (RECURRENT, "ascending"),
    "recurrent, random": (RECURRENT, "random"),
    "recurrent, either way": (RECURRENT, "either way"),
    **{network.name: (network, "ascending") for network in OTHERS},
}


def vary(
    dataset: Dataset,
    network: Network,
    order: str = "ascending",
    *,
    epochs: int,
    rate: float,
    seeds: Sequence[int] = (0,),
) -> Conclusions:
    """Train another network, or on another order, and draw the same conclusions."""
    trained = train(
        dataset.x_train,
        dataset.y_train,
        network=network,
        order=order,
        epochs=epochs,
        rate=rate,
        seeds=seeds,
    )
    test = probe(dataset, random.key(0), times=4, order=order)
    return conclude(measure_all(trained.params, test, random.key(2), network))


def table(rows: dict[str, Conclusions]) -> str:
    """The conclusions, mean ± sd over networks, a line a variant."""
    width = max(map(len, rows))
    heads = zip(*([*name.split("_"), ""][:2] for name in Conclusions._fields))
    lines = [f"{'':{width}}{''.join(f'{word:>10}' for word in words)}".rstrip() for words in heads]
    for name, found in rows.items():
        cells = "".join(f"{f'{round(v.mean())} ± {round(v.std())}':>10}" for v in found)
        lines.append(f"{name:{width}}{cells}")
    return "\n".join(lines)
