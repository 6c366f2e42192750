"""Substrate: what changes when a network is a thing and not a program.

A program runs on any machine that can hold its numbers. A body cannot be copied: the
synapses of a chip depart from what was written to them by gains that nobody knows,

    W_effective = g * W,        log g ~ N(0, spread^2),

so weights learned on one chip mean something else on the next, and what can be passed on
is behaviour (Hinton 2022, sec. 9). A body may also grow. The energy of predictive coding
has a slope at a synapse that is not there, and its two ends know it,

    dF/dW_ij = -e_i phi(x_j),        W_ij = 0.

And a body may talk in spikes, each sent when a neuron's listeners are wrong about it by
more than half a `threshold`, and move without a clock: the equilibrium of an energy does
not depend on the order in which its parts go down.

Chapter: book/mortal/substrate.ipynb
"""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax, random
from jaxtyping import Array, Bool, Float, Int, Key

from pcbook.core import network
from pcbook.core.checks import check_count, check_number, check_positive, lookup
from pcbook.core.network import (
    ACTIVATIONS,
    LOSSES,
    Activities,
    Params,
    firing,
    hebbian,
    predict,
)
from pcbook.core.relaxation import Number, relax
from pcbook.core.rules import Rule, accuracy, learn, stateless
from pcbook.foundations.predictive_coding import (
    errors,
    errors_from_firing,
    velocities,
)
from pcbook.store.data import Dataset

# --- chips that differ


def device(key: Key[Array, ""], params: Params, spread: Number) -> Params:
    """A chip: the gain of each of its synapses and biases, exp(spread N(0, 1)), without a unit.

    Half of the gains are above 1; at a spread of 0.5, two thirds are between 0.6 and 1.6.
    Raises ValueError for a spread < 0.
    """
    check_number("a number of at least 0", lambda value: 0 <= value < math.inf, spread=spread)
    leaves, tree = jax.tree.flatten(params)
    keys = random.split(key, len(leaves))
    return tree.unflatten(
        [jnp.exp(spread * random.normal(k, leaf.shape)) for k, leaf in zip(keys, leaves)]
    )


def on(chip: Params, params: Params) -> Params:
    """What the chip makes of the parameters written to it."""
    return jax.tree.map(jnp.multiply, chip, params)


def in_the_loop(rule: Rule, chip: Params) -> Rule:
    """The same rule where it sees what the chip does, and never the chip's gains.

    The update is that of the effective parameters and is written to the nominal ones. The
    true slope is gain x update: every gain is positive, so if the update goes downhill
    synapse by synapse, it still does.
    """

    def gradient(params, *others):
        return rule.gradient(on(chip, params), *others)

    return rule._replace(
        gradient=gradient, predict=lambda params, x: rule.predict(on(chip, params), x)
    )


class Generations(NamedTuple):
    """Test accuracy (0 to 1) of each generation on its own chip.

    `learned` is after its own schooling. `inherited` is with the weights of the generation
    before written to the chip as they are; for the first, with untrained ones.
    """

    inherited: Float[Array, " generations"]
    learned: Float[Array, " generations"]


def generations(
    rule: Rule,
    dataset: Dataset,
    sizes: tuple[int, ...],
    *,
    spread: Number,
    count: int,
    optimizer: optax.GradientTransformation,
    updates: int,
    batch_size: int,
    key: Key[Array, ""],
) -> Generations:
    """Let the first chip learn from labels, and each later one from the chip before it.

    Distillation (Hinton et al. 2015): the targets of a later generation are the
    probabilities that its teacher gives to each class of each training image, and no labels.
    All start from new weights and see `updates` batches. Raises ValueError for count < 2
    or spread < 0.
    """
    if count < 2:
        raise ValueError(f"count = {count}: must be at least 2 generations")
    x, labels = jnp.asarray(dataset.x_train), jnp.asarray(dataset.y_train)
    shown = jnp.asarray(dataset.x_test), jnp.asarray(dataset.y_test)

    def generation(carry, key):
        targets, inherited = carry
        chip_key, param_key, draw_key, key = random.split(key, 4)
        params = network.init(param_key, sizes)
        here = in_the_loop(rule, device(chip_key, params, spread))
        rows = random.randint(draw_key, (updates, batch_size), 0, len(x))
        params, _ = learn(
            here,
            params,
            x[rows],
            targets[rows],
            optimizer=optimizer,
            watch=lambda params: (),
            every=updates,
            key=key,
        )
        scores = [accuracy(here.predict, weights, *shown) for weights in (inherited, params)]
        return (jax.nn.softmax(here.predict(params, x)), params), Generations(*scores)

    start = (jax.nn.one_hot(labels, sizes[-1]), network.init(key, sizes))
    return lax.scan(generation, start, random.split(key, count))[1]


# --- synapses that come and go

Mask = list[Bool[Array, "_ _"]]


def wire(key: Key[Array, ""], params: Params, density: Number) -> Mask:
    """Draw which synapses there are: in each layer, a share `density` of all, at random.

    Raises ValueError unless 0 < density <= 1.
    """
    check_number("above 0, and at most 1", lambda value: 0 < value <= 1, density=density)
    keys = random.split(key, len(params))
    shapes = [layer.W.shape for layer in params]
    return [
        _ranks(random.uniform(k, shape)) < jnp.round(density * shape[0] * shape[1])
        for k, shape in zip(keys, shapes)
    ]


def within(params: Params, mask: Mask) -> Params:
    """The parameters, or an update of them, with the weights of absent synapses at zero."""
    return [layer._replace(W=layer.W * there) for layer, there in zip(params, mask)]


def rewire(
    W: Float[Array, "n_out n_in"],
    there: Bool[Array, "n_out n_in"],
    score: Float[Array, "n_out n_in"],
    share: Number,
) -> tuple[Float[Array, "n_out n_in"], Bool[Array, "n_out n_in"]]:
    """Drop a share of the synapses, the weakest; grow as many, the absent ones of highest score.

    New synapses start at zero. No more are exchanged than are absent.
    """
    present = there.sum()
    exchanged = jnp.round(share * jnp.minimum(present, there.size - present))
    kept = there & (_ranks(jnp.where(there, jnp.abs(W), jnp.inf)) >= exchanged)
    grown = _ranks(jnp.where(there, jnp.inf, -score)) < exchanged
    return W * kept, kept | grown


def _ranks(score):
    """The place of each number when all are put in order, from 0, the lowest."""
    return jnp.argsort(jnp.argsort(score.ravel())).reshape(score.shape)


def by_chance(key: Key[Array, ""], slope: Float[Array, "n_out n_in"]) -> Float[Array, "n_out n_in"]:
    """SET: every absent synapse is as good as any other (Mocanu et al. 2018)."""
    return random.uniform(key, slope.shape)


def by_slope(key: Key[Array, ""], slope: Float[Array, "n_out n_in"]) -> Float[Array, "n_out n_in"]:
    """The synapse that would help most at once (Evci et al. 2020).

    With backprop's slope this is RigL. With predictive coding's, -e_post phi(pre), it is
    known to the synapse's two ends.
    """
    return jnp.abs(slope)


def select_structure(
    rule: Rule,
    params: Params,
    mask: Mask,
    x: Float[Array, "rounds batches batch n_0"],
    y: Float[Array, "rounds batches batch n_L"],
    *,
    score: Callable[..., Array],
    shares: Float[Array, " rounds"],
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
) -> tuple[Params, list[Bool[Array, "moments _ _"]]]:
    """Learn with the synapses there are for a round of batches; then exchange some; and so on.

    `score(key, slope)` says how good each absent synapse would be, from the slope of the
    rule at it over the batches of the round. `shares` of the synapses are exchanged after each
    round: 0 keeps the structure. For rules that have no synapses of their own. Returns the
    parameters and the masks at the start and after each round.
    """

    def round(carry, drawn):
        params, mask = carry
        x, y, share, key = drawn
        learn_key, key = random.split(key)

        def gradient(*arguments):
            loss, update, state = rule.gradient(*arguments)
            return loss, within(update, mask), state

        params, _ = learn(
            rule._replace(gradient=gradient),
            params,
            x,
            y,
            optimizer=optimizer,
            watch=lambda params: (),
            every=len(x),
            key=learn_key,
        )
        flat = [a.reshape(-1, a.shape[-1]) for a in (x, y)]
        _, slopes, _ = rule.gradient(params, (), *flat, key)
        exchanged = [
            rewire(layer.W, there, score(k, slope.W), share)
            for layer, there, slope, k in zip(params, mask, slopes, random.split(key, len(mask)))
        ]
        params = [layer._replace(W=W) for layer, (W, _) in zip(params, exchanged)]
        mask = [there for _, there in exchanged]
        return (params, mask), mask

    carry = (within(params, mask), mask)
    (params, _), masks = lax.scan(round, carry, (x, y, shares, random.split(key, len(x))))
    return params, [jnp.concatenate([first[None], later]) for first, later in zip(mask, masks)]


class Planted(NamedTuple):
    """A task with a structure to find, and the network that made it."""

    params: Params
    mask: Mask
    x: Float[Array, "*batches batch n_0"]
    y: Float[Array, "*batches batch n_L"]


def plant(key: Key[Array, ""], shape: tuple[int, ...], units: int = 24, fan_in: int = 3) -> Planted:
    """A network of three layers of `units`, in which `fan_in` inputs reach each hidden unit.

    The upper weights are full, drawn by lot, and no secret: they give the hidden units names,
    so that an edge of the lower layer can be said to be found. Weights of planted synapses
    are +1 or -1. `shape` is that of the batches to draw, x ~ N(0, I).
    """
    edge_key, sign_key, top_key, x_key = random.split(key, 4)
    order = jnp.argsort(random.uniform(edge_key, (units, units)), axis=1)
    there = order < fan_in
    W = there * random.rademacher(sign_key, there.shape, jnp.float32)
    top = random.normal(top_key, (units, units)) / units**0.5
    params = [network.Layer(W, jnp.zeros(units)), network.Layer(top, jnp.zeros(units))]
    x = random.normal(x_key, (*shape, units))
    y = network.forward(params, x.reshape(-1, units)).reshape(x.shape)
    return Planted(params, [there, jnp.ones_like(there)], x, y)


# --- spikes


class Neuron(NamedTuple):
    """A leaky integrate-and-fire neuron, tau dV/dt = -V + R I, V in mV above rest.

    It fires when V reaches the threshold, goes back to rest and stays there while refractory.
    """

    tau: Number = 20.0  # ms
    resistance: Number = 10.0  # megaohm: mV per nA
    threshold: Number = 15.0  # mV
    refractory: Number = 2.0  # ms


NEURON = Neuron()


def firing_rate(current: Float[Array, "..."], neuron: Neuron = NEURON) -> Float[Array, "..."]:
    """Spikes a second at a constant current (nA): 1000 / (t_ref + tau ln(RI / (RI - V_th))).

    Zero up to the current that just reaches the threshold (Gerstner et al. 2014, sec. 1.3).
    """
    drive = neuron.resistance * jnp.asarray(current)
    above = jnp.where(drive > neuron.threshold, drive, jnp.inf)
    interval = neuron.refractory - neuron.tau * jnp.log1p(-neuron.threshold / above)
    return jnp.where(drive > neuron.threshold, 1000 / interval, 0.0)


@partial(jax.jit, static_argnames=("steps", "dt"))
def integrate_and_fire(
    current: Float[Array, "..."], *, steps: int, dt: float, neuron: Neuron = NEURON
) -> tuple[Float[Array, "steps ..."], Bool[Array, "steps ..."]]:
    """Voltage (mV above rest) and spikes at a constant current (nA), in `steps` of `dt` ms.

    Between spikes the step is exact, V <- RI + (V - RI) exp(-dt / tau), so all that is wrong
    is that a spike may come up to dt late.
    """
    drive, decay = neuron.resistance * jnp.asarray(current), jnp.exp(-dt / neuron.tau)

    def step(state, _):
        V, rest = state
        V = jnp.where(rest > dt / 2, 0.0, drive + (V - drive) * decay)
        fired = neuron.threshold <= V
        rest = jnp.where(fired, neuron.refractory, rest - dt)
        return (jnp.where(fired, 0.0, V), rest), (V, fired)

    quiet = jnp.zeros_like(drive)
    return lax.scan(step, (quiet, quiet), length=steps)[1]


class Timing(NamedTuple):
    """Spike-timing-dependent plasticity: what a pair of spikes does to the synapse between them.

    Pre before post by d ms adds up exp(-d / tau), post before pre takes away down exp(-d / tau).
    """

    up: Number = 0.01
    down: Number = 0.012
    tau: Number = 20.0  # ms


TIMING = Timing()


def stdp_step(traces, pre, post, timing: Timing = TIMING, dt: float = 1.0):
    """New traces of the spikes before (n,) and after (m,), and the change of the weights (m, n).

    A trace is what is left of a side's earlier spikes, each decayed: the synapse needs
    nothing but the two traces and the two ends. Spikes in the same step do not pair.
    """
    before, after = (trace * jnp.exp(-dt / timing.tau) for trace in traces)
    change = timing.up * post[:, None] * before - timing.down * after[:, None] * pre
    return (before + pre, after + post), change


def stdp(
    pre: Float[Array, "steps n"],
    post: Float[Array, "steps m"],
    timing: Timing = TIMING,
    dt: float = 1.0,
) -> Float[Array, "m n"]:
    """The change of every weight by two trains of spikes, in steps of `dt` ms (Song et al. 2000).

    It is the sum over all pairs of spikes, though no pair is ever looked at.
    """

    def step(traces, spikes):
        return stdp_step(traces, *spikes, timing, dt)

    silent = (jnp.zeros(pre.shape[1]), jnp.zeros(post.shape[1]))
    return lax.scan(step, silent, (pre, post))[1].sum(0)


class Cortex(NamedTuple):
    """Neurons that compete: the weight of each input spike (mV), and thresholds that tire (mV)."""

    W: Float[Array, "neurons pixels"]
    tired: Float[Array, " neurons"]


class Habits(NamedTuple):
    """How `look` works: after Diehl & Cook (2015), with steps of 1 ms."""

    steps: int = 50  # ms an image
    peak: float = 0.2  # spikes a ms from a white pixel
    tau: float = 20.0  # ms, of the voltage
    threshold: float = 13.0  # mV above rest
    fatigue: Number = 0.3  # mV a spike
    total: float = 20.0  # mV, of all weights onto a neuron together
    largest: float = 1.0  # mV, of one weight
    timing: Timing = Timing(0.03, 0.0003, 20.0)


HABITS = Habits()


def look(
    cortex: Cortex, image: Float[Array, " pixels"], key: Key[Array, ""], habits: Habits = HABITS
) -> tuple[Cortex, Float[Array, " neurons"]]:
    """See one image as random spikes: what was learned from it by STDP, and who fired how often.

    At most one neuron fires in a step, the one furthest above its threshold, and it silences
    all others. Who fires often gets a higher threshold, and the weights onto each neuron
    keep their sum.
    """
    seen = random.bernoulli(key, habits.peak * image, (habits.steps, len(image))).astype(float)

    def step(state, pre):
        W, tired, V, traces = state
        V = V * jnp.exp(-1 / habits.tau) + W @ pre
        excess = V - habits.threshold - tired
        post = (jnp.arange(len(V)) == excess.argmax()) * jnp.where(excess.max() >= 0, 1.0, 0.0)
        traces, change = stdp_step(traces, pre, post, habits.timing)
        W = jnp.clip(W + change, 0, habits.largest)
        return (W, tired + habits.fatigue * post, V * (1 - post.sum()), traces), post

    W, tired = cortex
    rest = jnp.zeros_like(tired)
    (W, tired, *_), spikes = lax.scan(step, (W, tired, rest, (jnp.zeros(len(image)), rest)), seen)
    return Cortex(habits.total * W / W.sum(1, keepdims=True), tired), spikes.sum(0)


def newborn(key: Key[Array, ""], neurons: int, pixels: int, habits: Habits = HABITS) -> Cortex:
    """Random weights that sum to the total that is kept, and no fatigue."""
    W = random.uniform(key, (neurons, pixels))
    return Cortex(habits.total * W / W.sum(1, keepdims=True), jnp.zeros(neurons))


def responses(
    cortex: Cortex, images: Float[Array, "n pixels"], key: Key[Array, ""], habits: Habits = HABITS
) -> Float[Array, "n neurons"]:
    """How often each neuron fires for each image, with nothing learned from it."""
    keys = random.split(key, len(images))
    return jax.vmap(lambda image, k: look(cortex, image, k, habits)[1])(images, keys)


def vote(
    known: Float[Array, "n neurons"], labels: Int[Array, " n"], asked: Float[Array, "m neurons"]
) -> Int[Array, " m"]:
    """Label each neuron by the class it fires most for in the `known` responses; let them vote.

    A class's votes are the mean response of its neurons.
    """
    classes = jax.nn.one_hot(labels, 10)
    habit = (classes / jnp.maximum(classes.sum(0), 1)).T @ known
    members = jax.nn.one_hot(habit.argmax(0), 10)
    return (asked @ (members / jnp.maximum(members.sum(0), 1))).argmax(1)


# --- predictive coding in spikes


class Spiking(NamedTuple):
    """Where spiking inference ended.

    `sent` is what the listeners of each layer x_0..x_{L-1} have been told of its firing, `es`
    are the errors e_1..e_L of what was told, and the spikes are those of each layer's
    activities and of each layer's errors, a count for each sample.
    """

    xs: Activities
    sent: Activities
    es: Activities
    spikes: list[Float[Array, " batch"]]
    error_spikes: list[Float[Array, " batch"]]


def send(
    value: Float[Array, "..."], told: Float[Array, "..."], threshold: Number, leak: Number = 0.0
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Tell a value by spikes: what the listeners hold after this step, and the spike, -1, 0 or 1.

    The voltage is what the listeners have wrong, value - told. Beyond half the threshold it
    fires, which moves what was told by the threshold and so resets the voltage. The
    listeners forget a share `leak` each step (Boerlin et al. 2013).
    """
    told = (1 - leak) * told
    spike = jnp.clip(jnp.round((value - told) / threshold), -1, 1)
    return told + threshold * spike, spike


def settle_by_spikes(
    params: Params,
    x: Float[Array, "batch n_0"],
    y: Float[Array, "batch n_L"] | None,
    *,
    steps: int = 60,
    rate: Number = 0.2,
    threshold: Number = 0.1,
    leak: Number = 0.0,
    activation: str = "tanh",
    loss: str = "squared error",
) -> Spiking:
    """Descend the energy where all that passes between neurons is spikes, from silence.

    Activities and errors are each told by `send`, at most one spike a step, and every
    neuron moves by what it was told. As the threshold vanishes, and the steps grow with
    it, this is predictive coding. Raises ValueError for steps < 1, rate <= 0 or
    threshold <= 0.
    """
    check_count(steps=steps)
    check_positive(rate=rate, threshold=threshold)
    lookup(ACTIVATIONS, activation=activation)
    return _settle_by_spikes(
        params,
        x,
        y,
        rate,
        threshold,
        leak,
        steps=steps,
        activation=activation,
        loss=loss,
    )


@partial(jax.jit, static_argnames=("steps", "activation", "loss"))
def _settle_by_spikes(params, x, y, rate, threshold, leak, *, steps, activation, loss):
    def tell(values, told):
        pairs = [send(v, t, threshold, leak) for v, t in zip(values, told)]
        return [t for t, _ in pairs], [jnp.abs(s).sum(-1) for _, s in pairs]

    def velocity(xs, messages):
        sent, told, counts = messages
        sent, spikes = tell(firing(xs, activation), sent)
        es = errors_from_firing(params, xs, sent, y, loss)
        told, error_spikes = tell(es, told)
        _, *vs = velocities(params, xs, es, activation, heard=told)
        counts = jax.tree.map(jnp.add, counts, (spikes, error_spikes))
        return [None, *vs], (sent, told, counts)

    layers = [jnp.zeros((len(x), len(layer.b)), x.dtype) for layer in params]
    silent = [jnp.zeros(len(x), x.dtype)] * len(params)
    messages = ([jnp.zeros_like(x), *layers[:-1]], layers, (silent, silent))
    settled = relax(velocity, [x, *layers[:-1]], steps=steps, rate=rate, memory=messages)
    xs, (sent, _, counts) = settled.state, settled.memory
    return Spiking(xs, sent, errors_from_firing(params, xs, sent, y, loss), *counts)


@cache
def spiking(
    steps: int = 60,
    rate: float = 0.2,
    threshold: float = 0.1,
    leak: float = 0.0,
    activation: str = "tanh",
) -> Rule:
    """Learn by predictive coding in spikes, dW = e_post x what the synapse was told.

    Predictions too are made by spikes, with the output free: all hidden errors vanish. The
    loss is that of such a prediction.
    """
    settings = {
        "steps": steps,
        "rate": rate,
        "threshold": threshold,
        "leak": leak,
        "activation": activation,
    }

    def output(params, x):
        settled = settle_by_spikes(params, x, None, **settings)
        return predict(params[-1], settled.sent[-1])

    def gradient(params, state, x, y, key):
        settled = settle_by_spikes(params, x, y, **settings)
        update = [hebbian(-e, r) for e, r in zip(settled.es, settled.sent)]
        return LOSSES["squared error"](output(params, x), y).mean(), update, state

    return Rule("spiking predictive coding", stateless, gradient, output)


def additions(params: Params, settled: Spiking) -> Float[Array, " batch"]:
    """How many synapses the spikes of a sample reached, each of which adds its weight once.

    A spike of x_l goes up to all of layer l + 1; one of e_l goes down to all of layer l - 1,
    except to the input, which is clamped.
    """
    up = sum(len(layer.b) * count for layer, count in zip(params, settled.spikes))
    down = sum(
        layer.W.shape[1] * count for layer, count in zip(params[1:], settled.error_spikes[1:])
    )
    return up + down


# --- no clock


def infer_without_clock(
    params: Params,
    x: Float[Array, "batch n_0"],
    y: Float[Array, "batch n_L"],
    *,
    ticks: int,
    chance: Number,
    rate: Number,
    activation: str = "tanh",
    key: Key[Array, ""],
) -> list[Float[Array, "moments batch _"]]:
    """Descend the energy where each neuron moves when it likes: at a tick, with a `chance`.

    At a chance of 1 all move at once, which is a clock. Small chances are one neuron after
    the other, in random order. Returns x_0..x_{L-1} at the ticks + 1 moments. Raises
    ValueError for ticks < 1, rate <= 0 or a chance outside (0, 1].
    """
    check_count(ticks=ticks)
    check_positive(rate=rate)
    check_number("above 0, and at most 1", lambda value: 0 < value <= 1, chance=chance)

    def velocity(xs, key):
        _, *vs = velocities(params, xs, errors(params, xs, y, activation), activation)
        key, *keys = random.split(key, len(vs) + 1)
        moves = [random.bernoulli(k, chance, v.shape) * v for k, v in zip(keys, vs)]
        return [None, *moves], key

    start = network.activities(params, x, activation)[:-1]
    return relax(velocity, start, steps=ticks, rate=rate, memory=key, trajectory=True).path
