"""Spiking neurons, plasticity by spike timing, and a layer that learns by it without labels.

A leaky integrate-and-fire neuron (Gerstner et al. 2014, sec. 1.3) with V in mV above rest,

    tau dV/dt = -V + R I,        V >= V_th: spike, V <- 0 for the refractory time.

Spike-timing-dependent plasticity (Song et al. 2000): a pair of spikes, d = t_post - t_pre apart,
changes the weight between their neurons by

    dW = up exp(-d / tau) for d > 0,        dW = -down exp(d / tau) for d < 0.

`present_image` puts both into competing neurons with adaptive thresholds (Diehl & Cook 2015).
"""

from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax, random
from jaxtyping import Array, Bool, Float, Int, Key

from pcbook.core.arguments import (
    Count,
    NotNegative,
    Positive,
    Share,
    checked,
    finite,
    positive,
    share,
)
from pcbook.core.checks import check_labels, check_length, check_width
from pcbook.core.relaxation import Number

Current = Annotated[Float[Array, "..."], finite]  # nA
Step = Annotated[float | int, positive]  # ms


class Neuron(NamedTuple):
    """A leaky integrate-and-fire neuron, tau dV/dt = -V + R I, with V in mV above rest.

    It fires when V reaches the threshold, and stays at rest for the refractory time.
    """

    tau: Positive = 20.0  # ms
    resistance: Positive = 10.0  # megaohm: mV per nA
    threshold: Positive = 15.0  # mV
    refractory: NotNegative = 2.0  # ms


NEURON = Neuron()


@checked
def firing_rate(current: Current, neuron: Neuron = NEURON) -> Float[Array, "..."]:
    """Spikes a second at a constant current (nA): 1000 / (t_ref + tau ln(RI / (RI - V_th))).

    Zero up to the current that just reaches the threshold (Gerstner et al. 2014, sec. 1.3).
    """
    drive = neuron.resistance * jnp.asarray(current)
    above = jnp.where(drive > neuron.threshold, drive, jnp.inf)
    interval = neuron.refractory - neuron.tau * jnp.log1p(-neuron.threshold / above)
    return jnp.where(drive > neuron.threshold, 1000 / interval, 0.0)


@checked
@partial(jax.jit, static_argnames=("steps", "dt"))
def integrate_and_fire(
    current: Current, *, steps: Count, dt: Step, neuron: Neuron = NEURON
) -> tuple[Float[Array, "steps ..."], Bool[Array, "steps ..."]]:
    """Voltage (mV above rest) and spikes at a constant current (nA), in `steps` of `dt` ms.

    Between spikes the step is exact, V <- RI + (V - RI) exp(-dt / tau). A spike, and the end of
    the refractory time, may each come up to dt late.
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
    """Spike-timing-dependent plasticity: how a pair of spikes changes the weight between them.

    Pre before post by d ms adds up exp(-d / tau), post before pre subtracts down exp(-d / tau).
    """

    up: Number = 0.01
    down: Number = 0.012
    tau: Positive = 20.0  # ms


TIMING = Timing()


def stdp_step(traces, pre, post, timing: Timing = TIMING, dt: float = 1.0):
    """New traces of the spikes before (n,) and after (m,), and the change of the weights (m, n).

    A trace is the sum of the earlier spikes of a neuron, each decayed, and known at the synapse.
    Spikes in the same step do not pair.
    """
    before, after = (trace * jnp.exp(-dt / timing.tau) for trace in traces)
    change = timing.up * post[:, None] * before - timing.down * after[:, None] * pre
    return (before + pre, after + post), change


@checked
def stdp(
    pre: Float[Array, "steps n"],
    post: Float[Array, "steps m"],
    timing: Timing = TIMING,
    dt: Step = 1.0,
) -> Float[Array, "m n"]:
    """The change of every weight by two trains of spikes, in steps of `dt` ms (Song et al. 2000).

    It equals the sum over all pairs of spikes, and is computed from traces.
    """

    def step(traces, spikes):
        return stdp_step(traces, *spikes, timing, dt)

    silent = (jnp.zeros(pre.shape[1]), jnp.zeros(post.shape[1]))
    return lax.scan(step, silent, (pre, post))[1].sum(0)


class Cortex(NamedTuple):
    """Neurons that compete: weights of input spikes and rises of thresholds, in mV."""

    W: Float[Array, "neurons pixels"]
    tired: Float[Array, " neurons"]


class Habits(NamedTuple):
    """Settings of `present_image`, after Diehl & Cook (2015), with steps of 1 ms."""

    steps: Count = 50  # ms an image
    peak: Share = 0.2  # spikes a ms from a white pixel
    tau: Positive = 20.0  # ms, of the voltage
    threshold: float = 13.0  # mV above rest
    fatigue: Number = 0.3  # mV a spike
    total: float = 20.0  # mV, of all weights onto a neuron together
    largest: float = 1.0  # mV, of one weight
    timing: Timing = Timing(0.03, 0.0003, 20.0)


HABITS = Habits()


@checked
def present_image(
    cortex: Cortex,
    image: Annotated[Float[Array, " pixels"], share],
    key: Key[Array, ""],
    habits: Habits = HABITS,
) -> tuple[Cortex, Float[Array, " neurons"]]:
    """Present one image as random spikes and learn by STDP: new weights, and spikes per neuron.

    At most one neuron fires in a step, the one furthest above its threshold, and it resets all
    others. Each spike raises the threshold of its neuron. The weights onto each neuron are
    normalised to a constant sum.
    """
    check_length(cortex.W.shape[1], "a pixel for each column of cortex.W", image=image)
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


@checked
def init_cortex(
    key: Key[Array, ""], neurons: Count, pixels: Count, habits: Habits = HABITS
) -> Cortex:
    """Random weights of the sum that `present_image` keeps, and thresholds that have not risen."""
    W = random.uniform(key, (neurons, pixels))
    return Cortex(habits.total * W / W.sum(1, keepdims=True), jnp.zeros(neurons))


@checked
def responses(
    cortex: Cortex,
    images: Annotated[Float[Array, "n pixels"], share],
    key: Key[Array, ""],
    habits: Habits = HABITS,
) -> Float[Array, "n neurons"]:
    """How often each neuron fires for each image, without learning."""
    check_width("images", images, cortex.W.shape[1], "input")
    keys = random.split(key, len(images))
    return jax.vmap(lambda image, k: present_image(cortex, image, k, habits)[1])(images, keys)


@checked
def classify_by_vote(
    known: Annotated[Float[Array, "n neurons"], finite],
    labels: Int[Array, " n"],
    asked: Annotated[Float[Array, "m neurons"], finite],
) -> Int[Array, " m"]:
    """Label each neuron by the class it fires most for in the `known` responses, and classify.

    The score of a class is the mean response of its neurons.
    """
    check_labels(10, labels=labels)
    classes = jax.nn.one_hot(labels, 10)
    habit = (classes / jnp.maximum(classes.sum(0), 1)).T @ known
    members = jax.nn.one_hot(habit.argmax(0), 10)
    return (asked @ (members / jnp.maximum(members.sum(0), 1))).argmax(1)
