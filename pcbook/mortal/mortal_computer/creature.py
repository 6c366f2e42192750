"""A creature that regulates its temperature: its clocks, its mind, its body and its life.

The mind has a belief x about the outer heat, synapses w from clocks of periods P_k, and the
sizes m of these synapses. They descend one free energy, each at a pace of its own,

    F = (s - x)^2 / 2 + (x - mu)^2 / 2 + c sum_k (m_k + |w_k|^2 / 2),
    mu = sum_k m_k w_k . (cos 2 pi t / P_k, sin 2 pi t / P_k),

with s the heat that is sensed: inference dx/dt = -a dF/dx is fast, learning dw/dt = -b dF/dw
slower, and selection dm/dt = -g dF/dm slowest (Ororbia & Friston 2023).

The body is T degrees off its set point. With d the outer heat and u the heat that was commanded
LAG steps before,

    T(t + 1) = (1 - 1 / tau) T(t) + d(t) + u(t - LAG),
    u(t) = -(gain T + x + mu(t + LAG) - mu(t)).

It eats, pays for being alive, for heating and for its synapses, and its wall wears off while
|T| is too large. It is dead when the energy or the wall is gone.
"""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array, Bool, Float, Key

from pcbook.core.arguments import (
    Count,
    Finite,
    NotNegative,
    Positive,
    Scalar,
    above_zero,
    checked,
    finite,
    some,
)
from pcbook.core.checks import check_length, check_number
from pcbook.core.relaxation import Number

AboveZero = Annotated[Scalar, above_zero]  # infinity included

# Clocks and weather
PERIODS = jnp.array([300.0, 200.0, 130.0, 100.0, 64.0, 48.0, 36.0, 25.0])  # steps
CLOCKS = len(PERIODS)
DAY, TIDE = 3, 6  # the clocks whose periods the weather has
HEIGHTS = (0.45, 0.2)  # mean amplitudes of day and tide, in degrees a step
HEIGHT_RANGE = (0.7, 1.3)  # a creature's own amplitudes, relative to the mean
MEMORY = 20  # steps in which irregular weather is forgotten

# Mind
PRICE = 0.005  # c: free energy of a synapse of size 1
SMALLEST = 0.05  # size of an absent synapse: it still measures its slope, and hardly acts
SIZE_AT_BIRTH = 0.5

# Body
LAG = 8  # steps from a command to its heat
TAU = 20.0  # steps in which the body cools
STRONGEST = 2.0  # degrees a step: the most that the heater can do
COMFORT = 1.5  # degrees: the width of the range in which digestion works
LETHAL = 3.0  # degrees: beyond it the wall wears off
REPAIR = 0.01  # of the wall in a step at the set point

# Energy a step
COST_OF_LIVING = 1
COST_OF_HEATING = 0.2  # for each degree
COST_OF_SYNAPSE = 0.2  # of size 1


class Paces(NamedTuple):
    """Step size of each of the three flows; 0 switches it off."""

    inference: Number = 0.3
    learning: Number = 0.04
    selection: Number = 0.05


PACES = Paces()


class Mind(NamedTuple):
    """The belief x, the synapses w of each clock, and their sizes m from SMALLEST to 1."""

    x: Float[Array, ""]
    w: Float[Array, "clocks 2"]
    m: Float[Array, " clocks"]


class Body(NamedTuple):
    """Degrees off the set point, energy, wall (0 to 1), and the heat that is on its way."""

    T: Float[Array, ""]
    energy: Float[Array, ""]
    wall: Float[Array, ""]
    heat: Float[Array, " lag"]

    @property
    def alive(self) -> Bool[Array, ""]:
        """Whether energy and wall are left."""
        return (self.energy > 0) & (self.wall > 0)


# --- mind


def clocks(t: Number | Float[Array, ""]) -> Float[Array, "clocks 2"]:
    """Cosine and sine of every clock at step `t`."""
    angle = 2 * jnp.pi * t / PERIODS
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)


def predict_heat(mind: Mind, hands: Float[Array, "clocks 2"]) -> Float[Array, ""]:
    """Predict the heat, mu, from the `hands` of the clocks (their cosines and sines)."""
    return ((mind.w * hands).sum(-1) * mind.m).sum()


@checked
def free_energy(
    mind: Mind, s: Finite, hands: Float[Array, "clocks 2"], price: NotNegative = PRICE
) -> Float[Array, ""]:
    """F: the errors of the belief and of the prediction, and the price of the synapses."""
    check_length(len(mind.m), "one for each synapse of the mind", hands=hands)
    upkeep = mind.m.sum() + (mind.w**2).sum() / 2
    return (s - mind.x) ** 2 / 2 + (mind.x - predict_heat(mind, hands)) ** 2 / 2 + price * upkeep


def flow(mind: Mind, s: Number, hands: Float[Array, "clocks 2"], paces: Paces) -> Mind:
    """Take one step of inference, learning and selection down the free energy."""
    e = mind.x - predict_heat(mind, hands)
    x = mind.x + paces.inference * (s - mind.x - e)
    w = mind.w + paces.learning * (e * mind.m[:, None] * hands - PRICE * mind.w)
    m = mind.m + paces.selection * (e * (mind.w * hands).sum(-1) - PRICE)
    return Mind(x, w, jnp.clip(m, SMALLEST, 1))


def control(body: Body, mind: Mind, t: Float[Array, ""], gain: Number) -> Float[Array, ""]:
    """Command heat: u = -(gain T + x + mu(t + LAG) - mu(t)), within what the heater can do."""
    change = predict_heat(mind, clocks(t + LAG)) - predict_heat(mind, clocks(t))
    return jnp.clip(-(gain * body.T + mind.x + change), -STRONGEST, STRONGEST)


def remove_synapses(mind: Mind, cut: Float[Array, " clocks"]) -> Mind:
    """Set the synapses where `cut` is 1 to zero, and their sizes to the smallest."""
    return Mind(mind.x, mind.w * (1 - cut[:, None]), jnp.where(cut > 0, SMALLEST, mind.m))


# --- body


@checked
def regulate(body: Body, heat: Finite, command: Finite, lethal: AboveZero = LETHAL) -> Body:
    """Warm the body by the outer `heat` and the heat commanded LAG steps ago; wear the wall."""
    T = body.T * (1 - 1 / TAU) + heat + body.heat[0]
    wall = jnp.minimum(1, body.wall + REPAIR * (1 - (T / lethal) ** 2))
    return Body(T, body.energy, wall, jnp.append(body.heat[1:], command))


def metabolise(body: Body, meal: Number, u: Number, m: Array, budget: Number) -> Body:
    """Digest a meal, the worse the further T is off, and pay for living, heating and synapses."""
    digested = meal * jnp.exp(-((body.T / COMFORT) ** 2) / 2)
    spent = COST_OF_LIVING + COST_OF_HEATING * jnp.abs(u) + COST_OF_SYNAPSE * m.sum()
    return body._replace(energy=jnp.minimum(budget, body.energy + digested - spent))


# --- weather


@checked
def weather(key: Key[Array, ""], steps: Count, regular: Number = 1.0) -> Float[Array, " steps"]:
    """Draw the outer heat (degrees a step): a day and a tide of random amplitude and phase.

    With `regular` below 1, irregular weather of the same variance replaces a part of it: a
    Gaussian process that is forgotten in MEMORY steps. Raises ValueError unless regular is from
    0 to 1.
    """
    by = "from 0 (by chance) to 1 (by the clock)"
    check_number(by, lambda value: 0 <= value <= 1, regular=regular)
    height_key, phase_key, first_key, noise_key = random.split(key, 4)
    low, high = HEIGHT_RANGE
    heights = random.uniform(height_key, (2,), minval=low, maxval=high) * jnp.array(HEIGHTS)
    phases = random.uniform(phase_key, (2,), maxval=2 * jnp.pi)
    t = jnp.arange(steps)[:, None]
    rhythm = (heights * jnp.cos(2 * jnp.pi * t / PERIODS[jnp.array([DAY, TIDE])] + phases)).sum(-1)
    keep = jnp.exp(-1 / MEMORY)

    def step(c, noise):
        c = keep * c + jnp.sqrt(1 - keep**2) * noise
        return c, c

    chance = lax.scan(step, random.normal(first_key), random.normal(noise_key, (steps,)))[1]
    spread = jnp.sqrt((heights**2).sum() / 2)
    return regular * rhythm + jnp.sqrt(1 - regular**2) * spread * chance


# --- life


def born(budget: Number) -> tuple[Body, Mind]:
    """A body at its set point with a full budget, and a mind that has learned nothing."""
    body = Body(jnp.zeros(()), jnp.asarray(budget, float), jnp.ones(()), jnp.zeros(LAG))
    return body, Mind(jnp.zeros(()), jnp.zeros((CLOCKS, 2)), jnp.full(CLOCKS, SIZE_AT_BIRTH))


@checked
def live(
    key: Key[Array, ""],
    heat: Float[Array, " steps"],
    food: Float[Array, " steps"],
    *,
    paces: Paces = PACES,
    noise: NotNegative = 0.1,
    budget: Number = 60.0,
    gain: Finite = 0.05,
    lethal: AboveZero = LETHAL,
    hurt: int = -1,
    cut: Float[Array, " clocks"] | None = None,
) -> tuple[Body, Mind, dict[str, Float[Array, "steps ..."]]]:
    """Live one life: returns body and mind at its end, and a record of every step.

    Args:
        key: of the noise of the sense.
        heat: the outer heat of each step, in degrees; the sense adds `noise` to it.
        food: the energy of each step's meal.
        paces: step sizes of inference, learning and selection.
        noise: standard deviation of the sense.
        budget: energy at birth, and the most that the body can hold.
        gain: of the reflex, in the command.
        lethal: degrees off beyond which the wall wears off; infinity for a wall that never does.
        hurt: the step at which the synapses where `cut` is 1 are removed; -1 for never.
        cut: 1 for each synapse to remove, 0 for the others; none by default.

    After death nothing changes. Raises ValueError for a budget that is not positive.
    """
    check_number("a positive number", lambda value: value > 0, budget=budget)
    cut = jnp.zeros(CLOCKS) if cut is None else cut
    check_length(CLOCKS, "one for each clock", cut=cut)

    def step(state, now):
        body, mind = state
        t, outer, meal, grain = now
        mind = remove_synapses(mind, (t == hurt) * cut)
        s, hands = outer + noise * grain, clocks(t)
        thought = flow(mind, s, hands, paces)
        u = control(body, thought, t, gain)
        after = metabolise(regulate(body, outer, u, lethal), meal, u, thought.m, budget)
        record = {"u": u, "F": free_energy(mind, s, hands)}
        state = while_alive(body.alive, (after, thought), (body, mind))
        return state, record | observe(*state)

    moments = (jnp.arange(float(len(heat))), heat, food, random.normal(key, (len(heat),)))
    (body, mind), diary = lax.scan(step, born(budget), moments)
    return body, mind, diary


def while_alive(
    alive: Bool[Array, ""], after: tuple[Body, Mind], before: tuple[Body, Mind]
) -> tuple[Body, Mind]:
    """The state after the step if the creature was alive before it, and the state before if not."""
    return jax.tree.map(lambda new, old: jnp.where(alive, new, old), after, before)


def observe(body: Body, mind: Mind) -> dict[str, Array]:
    """What the record of a step holds of body and mind."""
    seen = {"T": body.T, "energy": body.energy, "wall": body.wall, "alive": body.alive}
    return seen | {"m": mind.m, "x": mind.x}


# --- measures


@checked
def swing(height: Finite, period: Positive, gain: Finite) -> float:
    """Amplitude (degrees) of a body that acts by reflex alone, under a heat of one period.

    In the steady state of T(t + 1) = (1 - 1/tau) T(t) + d(t) - gain T(t - LAG),
    |d| / |e^iw - 1 + 1/tau + gain e^(-i w LAG)|, w = 2 pi / period.
    """
    w = 2 * np.pi / period
    return height / abs(np.exp(1j * w) - 1 + 1 / TAU + gain * np.exp(-1j * w * LAG))


@checked
def variety(values: Annotated[Float[np.ndarray, " n"], finite, some], width: Positive) -> float:
    """Entropy (bits) of numbers that are told apart to within `width`."""
    _, counts = np.unique(np.round(np.asarray(values) / width), return_counts=True)
    p = counts / counts.sum()
    return float(-(p * np.log2(p)).sum())
