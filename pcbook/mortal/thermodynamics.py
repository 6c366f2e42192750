"""Thermodynamics: what computing costs, down to the physical limit.

A bit is a particle in one of two wells, shaken by heat. Its position x drifts down the
slope of the potential U and diffuses; the work is what the hand that changes U puts in,

    dx = -dU/dx dt + sqrt(2) dB,        dW = (dU/dt) dt.

To erase a bit is to halve the states that it may be in. At temperature T that takes a work
of at least kT ln 2 (Landauer 1961), and only slow hands come near. Fast ones waste, but the
waste obeys a law, with dF the change of free energy (Jarzynski 1997, eq. 2):

    <exp(-W / kT)> = exp(-dF / kT).

A computer pays for its operations, and for moving the numbers to where they are done:

    energy = operations x price + bytes x price,        XLA's count, and a table of prices.

Units: energy in kT, length in half the distance d of the wells, time in (d/2)^2 / D, D being
the particle's diffusivity. Joules where a computer pays.

Chapter: book/mortal/thermodynamics.ipynb
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array, ArrayLike, Float, Key
from scipy.special import logsumexp

from pcbook.core.arguments import Finite, checked, share
from pcbook.core.checks import check_number, check_positive
from pcbook.core.cost import count
from pcbook.core.relaxation import Number
from pcbook.store.claims import Measurement, criterion

Numbers = float | int | Float[Array, "..."]

BOLTZMANN = 1.380649e-23  # J/K, by definition of the kelvin
OPERATIONS_OF_A_TRANSCENDENTAL = 20  # a tanh or an exp, as the polynomials that compute it

# Millions of small steps want a fast program, even where others should compile fast. JAX lets
# such a one be called under vmap, but not within another jit.
optimised = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 3})


# ---------------------------------------------------------------------------- erasing a bit


class Erasure(NamedTuple):
    """Many bits on their way to being erased, at equal steps in the time of the protocol.

    `x` is where each particle is, and `work` what was done on it so far, in kT.
    """

    x: Float[Array, "moments particles"]
    work: Float[Array, "moments particles"]

    @property
    def success(self) -> Float[Array, ""]:
        """The share of bits that end at the right, as they should."""
        return (self.x[-1] > 0).mean()


@checked
def protocol(s: Annotated[float | int | Float[Array, "..."], share]) -> tuple[Array, Array]:
    """The `wall` between the wells, 1 to 0, and the `tilt`, 0 to 1, at the share s of the time.

    A quarter each: take the wall away; tilt to the right; put the wall back; tilt back. At the
    end the potential is what it was at the beginning.
    """
    quarters = jnp.linspace(0, 1, 5)
    wall = jnp.interp(s, quarters, jnp.array([1.0, 0.0, 0.0, 1.0, 1.0]))
    tilt = jnp.interp(s, quarters, jnp.array([0.0, 0.0, 1.0, 1.0, 0.0]))
    return wall, tilt


@checked
def potential(
    x: Numbers, wall: Numbers, tilt: Numbers, height: Finite = 10.0, force: Finite = 4.0
) -> Numbers:
    """U = height (x^4 - 2 wall x^2) - force tilt x, in kT.

    With the wall up and no tilt there are wells at -1 and 1, `height` kT deep; without it
    there is one at 0.
    """
    return height * (x**4 - 2 * wall * x**2) - force * tilt * x


@checked
def erase(
    key: Key[Array, ""],
    time: Number,
    *,
    particles: int = 1000,
    moments: int = 9,
    height: Number = 10.0,
    force: Number = 4.0,
    dt: Number = 1e-3,
) -> Erasure:
    """Erase `particles` bits, none of them known, by the `protocol` stretched over the `time`.

    Each starts in equilibrium, left or right by chance, and takes Euler's steps of at most `dt`.
    Raises ValueError for less than one particle, less than two moments, and for a time, height,
    force or dt that is not positive.
    """
    _at_least(1, particles=particles)
    _at_least(2, moments=moments)
    check_positive(time=time, height=height, force=force, dt=dt)
    return _erase(key, time, height, force, dt, particles, moments)


@partial(optimised, static_argnames=("particles", "moments"))
def _erase(key, time, height, force, dt, particles, moments):
    start_key, key = random.split(key)
    grid = jnp.linspace(-2, 2, 4001)
    likely = jnp.cumsum(jnp.exp(-potential(grid, 1.0, 0.0, height)))
    x = jnp.interp(random.uniform(start_key, (particles,)), likely / likely[-1], grid)
    slope = jax.grad(lambda x, wall, tilt: potential(x, wall, tilt, height, force).sum())
    steps = jnp.ceil(time / dt / (moments - 1)).astype(int)  # from one moment to the next
    total = steps * (moments - 1)

    def step(i, state):
        x, work = state
        before, now = protocol(i / total), protocol((i + 1) / total)
        work += potential(x, *now, height, force) - potential(x, *before, height, force)
        kick = random.normal(random.fold_in(key, i), x.shape)
        dt = time / total
        return x - slope(x, *now) * dt + jnp.sqrt(2 * dt) * kick, work

    def moment(state, m):
        state = lax.fori_loop(m * steps, (m + 1) * steps, step, state)
        return state, state

    start = x, jnp.zeros_like(x)
    _, path = lax.scan(moment, start, jnp.arange(moments - 1))
    return Erasure(*(jnp.concatenate([a[None], b]) for a, b in zip(start, path)))


@checked
def least_work(success: Number) -> float:
    """Landauer's bound for an erasure that does not always succeed, in kT.

    ln 2, less the entropy of the bit that is left: ln 2 if `success` is 1, nothing if it
    is 1/2. Raises ValueError outside 0 to 1.
    """
    if not 0 <= success <= 1:
        raise ValueError(f"success = {success}: must be a probability, 0 to 1")
    left = -sum(p * math.log(p) for p in (float(success), 1 - float(success)) if p > 0)
    return math.log(2) - left


# ---------------------------------------------------------------------------- Jarzynski's equality


@checked
def stiffen(
    key: Key[Array, ""],
    time: Number,
    *,
    particles: int,
    steps: int = 100,
    start: Number = 1.0,
    end: Number = 4.0,
) -> Float[Array, " particles"]:
    """The work on each particle, in kT, as a trap k x^2 / 2 goes from k = `start` to `end`.

    The stiffness rises in `steps` jumps, evenly over the `time`, and the particle relaxes after
    each by the exact solution of its equation: no step is too large. Raises ValueError for a time
    below 0, a stiffness that is not positive, and less than one particle or step.
    """
    _at_least(1, particles=particles, steps=steps)
    _at_least(0, time=time)
    check_positive(start=start, end=end)
    return _stiffen(key, time, start, end, particles, steps)


@partial(optimised, static_argnames=("particles", "steps"))
def _stiffen(key, time, start, end, particles, steps):
    ks = jnp.linspace(start, end, steps + 1)
    start_key, key = random.split(key)

    def jump(state, now):
        x, work = state
        k, k_next, key = now
        work += (k_next - k) * x**2 / 2
        stays = jnp.exp(-k_next * time / steps)
        kick = jnp.sqrt((1 - stays**2) / k_next) * random.normal(key, x.shape)
        return (stays * x + kick, work), None

    x = random.normal(start_key, (particles,)) / jnp.sqrt(start)
    each = (ks[:-1], ks[1:], random.split(key, steps))
    return lax.scan(jump, (x, jnp.zeros_like(x)), each)[0][1]


@checked
def mean_work(
    time: float | int, *, steps: int = 100, start: float | int = 1.0, end: float | int = 4.0
) -> float:
    """The mean work of `stiffen`, in kT, in closed form.

    <W> = sum (k' - k) <x^2> / 2, the variance relaxing to 1 / k' at twice the particle's speed:
    (end - start) / (2 start) in no time, and nearly dF = ln(end / start) / 2 in all the time.
    Raises ValueError where `stiffen` does.
    """
    _at_least(1, steps=steps)
    _at_least(0, time=time)
    check_positive(start=start, end=end)
    ks = np.linspace(start, end, steps + 1)
    variance, work = 1 / ks[0], 0.0
    for k, k_next in pairwise(ks):
        work += (k_next - k) * variance / 2
        variance = 1 / k_next + (variance - 1 / k_next) * math.exp(-2 * k_next * time / steps)
    return float(work)


@checked
def free_energy(work: Float[ArrayLike, "... samples"]) -> float | Float[np.ndarray, "..."]:
    """Jarzynski's estimate -ln <exp(-W)> of the change of free energy, in kT."""
    work = np.asarray(work, float)
    return np.log(work.shape[-1]) - logsumexp(-work, axis=-1)


def _at_least(least: int, **named: Number) -> None:
    check_number(f"at least {least}", lambda value: least <= value < math.inf, **named)


# ---------------------------------------------------------------------------- joules


class Prices(NamedTuple):
    """What a digital machine pays, in joules.

    `add` and `multiply` are for one operation on each kind of number, `memory` for one byte
    read from or written to each kind of memory. `source` says who measured it, and `process`
    in which technology: an operation of a newer one is cheaper, a wire hardly.
    """

    source: str
    process: str
    add: Mapping[str, float]
    multiply: Mapping[str, float]
    memory: Mapping[str, float]


HOROWITZ = Prices(
    source="Horowitz 2014, fig. 1.1.9; DRAM at the low end of what it gives",
    process="45 nm, 0.9 V",
    add={"float32": 0.9e-12, "float16": 0.4e-12, "int32": 0.1e-12, "int8": 0.03e-12},
    multiply={"float32": 3.7e-12, "float16": 1.1e-12, "int32": 3.1e-12, "int8": 0.2e-12},
    memory={
        "8 KB SRAM": 10e-12 / 8,
        "32 KB SRAM": 20e-12 / 8,
        "1 MB SRAM": 100e-12 / 8,
        "DRAM": 1280e-12 / 8,
    },
)


class Energy(NamedTuple):
    """What a computation takes, in joules: its `arithmetic`, and its traffic with the `memory`."""

    arithmetic: float
    memory: float

    @property
    def total(self) -> float:
        return self.arithmetic + self.memory

    def bits(self, temperature: float | int = 300) -> float:
        """The multiple of Landauer's bound: how many bits this could erase at `temperature` (K)."""
        return self.total / landauer(temperature)


@checked
def landauer(temperature: float | int = 300) -> float:
    """Landauer's bound kT ln 2, in joules: the least work to erase a bit at `temperature` (K).

    Raises ValueError for temperature <= 0.
    """
    check_positive(temperature=temperature)
    return BOLTZMANN * temperature * math.log(2)


@checked
def energy_of(
    function: Callable,
    *args,
    memory: str = "DRAM",
    number: str = "float32",
    prices: Prices = HOROWITZ,
) -> Energy:
    """The energy of a call `function(*args)`, in joules: XLA's `count` of it at its `price`.

    What is not an argument is a constant, and what follows from constants alone is free.
    Raises ValueError for a memory or a number that has no price.
    """
    return price(count(function, *args), memory=memory, number=number, prices=prices)


@checked
def price(
    cost: Mapping[str, float | int],
    *,
    memory: str = "DRAM",
    number: str = "float32",
    prices: Prices = HOROWITZ,
) -> Energy:
    """The energy of what was counted, in joules.

    Operations are charged as half additions, half multiplications of the kind `number`: so
    are matrix products. Every byte that one fused operation hands to another goes by way of
    the `memory`. Raises ValueError for a memory or a number that has no price.
    """
    for argument, value, table in (
        ("memory", memory, prices.memory),
        ("number", number, prices.add),
    ):
        if value not in table:
            raise ValueError(
                f"{argument} = {value!r}: must be one of {', '.join(map(repr, table))}"
            )
    operation = (prices.add[number] + prices.multiply[number]) / 2
    operations = cost["flops"] + OPERATIONS_OF_A_TRANSCENDENTAL * cost["transcendentals"]
    return Energy(operations * operation, cost["bytes"] * prices.memory[memory])


# --- criteria of the claims


@criterion("landauer-erasure")
def costs_a_bit(m: Measurement) -> bool:
    """Whether no work is below the bound, by 3 standard errors, and the slowest is near kT ln 2."""
    above = (m["work"] >= m["bound"] - 3 * m["error"]).all()
    return bool(above and m["work"][-1] < 1.1 * math.log(2))


@criterion("landauer-excess")
def falls_as_one_over_time(m: Measurement) -> bool:
    """Whether the excess falls with an exponent of -1.2 to -0.8."""
    return bool(-1.2 < m["exponent"] < -0.8)


@criterion("jarzynski-trap")
def knows_the_difference(m: Measurement) -> bool:
    """Whether the mean estimate at each speed is within 2% of dF, and every mean work above it."""
    near = (abs(m["estimate"].mean(1) / m["dF"] - 1) < 0.02).all()
    return bool(near and (m["work"] > m["dF"]).all())


@criterion("jarzynski-convergence")
def grows_faster_than_the_square(m: Measurement) -> bool:
    """Whether three times the traps take more than nine times the trials."""
    return bool(m["twelve"] > 9 * m["four"])


@criterion("memory-dominates")
def moves_more_than_it_computes(m: Measurement) -> bool:
    """Whether more than half of the energy is traffic with the memory, at every batch."""
    return bool((m["share"] > 0.5).all())


@criterion("local-learning-in-memory")
def is_cheaper_at_small_batches(m: Measurement) -> bool:
    """Whether learning at the weights costs less than backprop from afar at batches of 1 and 16."""
    return bool((m["ratio"][:2] < 1).all())
