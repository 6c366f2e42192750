"""Thermodynamics against master equations, closed forms, and prices worked out by hand."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from scipy import integrate, linalg, stats

from pcbook import thermodynamics as td

KEY = random.key(0)


def near(joules, rel=1e-6):
    """About so many: by itself pytest.approx allows 1e-12, more than an operation takes."""
    return pytest.approx(joules, rel=rel, abs=0)


def standard_error(sample):
    return float(np.std(sample)) / math.sqrt(len(sample))


# --- erasing a bit ---


def master_equation(time, steps=1000, height=10.0, force=4.0):
    """Mean work and success of the erasure, by hops between 161 places: no noise, no particles.

    Places hop to their neighbours at rates in detailed balance with the potential, which moves
    in `steps` jumps; an implicit step follows each.
    """
    x = np.linspace(-1.6, 1.6, 161)
    knots = np.linspace(0, 1, 5)

    def U(s):
        wall, tilt = np.interp(s, knots, [1, 0, 0, 1, 1]), np.interp(s, knots, [0, 0, 1, 1, 0])
        return height * (x**4 - 2 * wall * x**2) - force * tilt * x

    p, work = np.exp(-U(0)) / np.exp(-U(0)).sum(), 0.0
    for s in range(steps):
        before, now = U(s / steps), U((s + 1) / steps)
        work += p @ (now - before)
        up = np.exp(-np.diff(now) / 2) / (x[1] - x[0]) ** 2
        down = np.exp(np.diff(now) / 2) / (x[1] - x[0]) ** 2
        leave = np.append(up, 0) + np.append(0, down)
        rates = np.array([np.append(0, down), -leave, np.append(up, 0)])  # above, on, below
        p = linalg.solve_banded((1, 1), [[0], [1], [0]] - time / steps * rates, p)
    return work, p[x > 0].sum()


@pytest.mark.parametrize("time", [0.3, 3.0])
def test_work_and_success_of_an_erasure_are_those_of_the_master_equation(time):
    erased = td.erase(KEY, time, particles=2000)
    work, success = master_equation(time)
    assert abs(erased.work[-1].mean() - work) < 4 * standard_error(erased.work[-1]) + 0.03 * work
    assert abs(erased.success - success) < 4 * math.sqrt(success * (1 - success) / 2000) + 0.005


def test_a_bit_is_unknown_before_it_is_erased_and_known_after():
    erased = td.erase(KEY, 5.0, particles=2000)
    assert abs((erased.x[0] > 0).mean() - 0.5) < 0.05
    assert erased.success > 0.95
    assert not erased.work[0].any()


def test_particles_start_in_equilibrium():
    x = np.asarray(td.erase(KEY, 0.01, particles=2000).x[0])
    grid = np.linspace(-2, 2, 2001)
    p = np.exp(-10 * (grid**4 - 2 * grid**2))
    cdf = np.cumsum(p) / p.sum()
    assert stats.kstest(x, lambda at: np.interp(at, grid, cdf)).pvalue > 1e-4


def test_the_potential_ends_as_it_began():
    x = jnp.linspace(-2, 2, 9)
    np.testing.assert_allclose(
        td.potential(x, *td.protocol(1.0)), td.potential(x, *td.protocol(0.0))
    )


def test_the_wall_is_as_high_as_it_is_said_to_be():
    at_wall, in_well = td.potential(0.0, 1, 0, 7.0), td.potential(1.0, 1, 0, 7.0)
    assert at_wall - in_well == pytest.approx(7)


def test_a_slow_erasure_costs_less_than_a_fast_one_and_no_less_than_its_bound():
    fast, slow = (td.erase(KEY, time, particles=2000) for time in (1.0, 10.0))
    assert slow.work[-1].mean() < fast.work[-1].mean() / 2
    for erased in (fast, slow):
        bound = td.least_work(erased.success)
        assert erased.work[-1].mean() > bound - 3 * standard_error(erased.work[-1])


def test_a_finer_step_gives_the_same_work():
    coarse = td.erase(KEY, 1.0, particles=2000).work[-1]
    fine = td.erase(random.key(1), 1.0, particles=2000, dt=2e-4).work[-1]
    allowed = 4 * math.hypot(standard_error(coarse), standard_error(fine))
    assert abs(coarse.mean() - fine.mean()) < allowed + 0.03 * float(fine.mean())


def test_a_bit_that_is_surely_erased_costs_ln_2_and_one_that_is_not_erased_nothing():
    assert td.least_work(1) == td.least_work(0) == pytest.approx(math.log(2))
    assert td.least_work(0.5) == pytest.approx(0)
    entropy = stats.entropy([0.9, 0.1])
    assert td.least_work(0.9) == pytest.approx(math.log(2) - entropy)


def test_landauers_bound_at_room_temperature_in_joules():
    assert td.landauer(300) == near(2.87e-21, rel=1e-3)
    assert td.landauer(600) == near(2 * td.landauer(300))


@pytest.mark.parametrize("temperature", [0, -1, math.inf, math.nan])
def test_a_temperature_that_is_none_is_named(temperature):
    with pytest.raises(ValueError, match=r"temperature = .*: must be a positive number"):
        td.landauer(temperature)


def test_a_success_that_is_no_probability_is_named():
    with pytest.raises(ValueError, match=r"success = 1.5: must be a probability"):
        td.least_work(1.5)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"time": 0.0}, "time = 0.0: must be a positive number"),
        ({"time": math.nan}, "time = nan: must be a positive number"),
        ({"time": 1.0, "dt": -1.0}, "dt = -1.0: must be a positive number"),
        ({"time": 1.0, "height": 0}, "height = 0: must be a positive number"),
        ({"time": 1.0, "particles": 0}, "particles = 0: must be at least 1"),
        ({"time": 1.0, "moments": 1}, "moments = 1: must be at least 2"),
    ],
)
def test_an_erasure_that_cannot_be_is_named(given, words):
    with pytest.raises(ValueError, match=words):
        td.erase(KEY, **given)


# --- Jarzynski's equality ---


def test_sudden_work_is_three_halves_of_the_square_of_a_normal():
    work = np.asarray(td.stiffen(KEY, 0.0, particles=20_000, steps=20))
    assert stats.kstest(work / 1.5, stats.chi2(1).cdf).pvalue > 1e-4


@pytest.mark.parametrize("time", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("steps", [4, 100])
def test_mean_work_is_that_of_the_closed_form(time, steps):
    work = td.stiffen(KEY, time, particles=20_000, steps=steps)
    assert abs(work.mean() - td.mean_work(time, steps=steps)) < 4 * standard_error(work)


def test_mean_work_is_the_integral_of_the_variances_equation():
    time, rise = 2.0, (4 - 1) / 2.0

    def variance(t, v):
        return 2 - 2 * (1 + rise * t) * v

    path = integrate.solve_ivp(variance, (0, time), [1.0], dense_output=True, rtol=1e-8)
    work = integrate.quad(lambda t: rise * path.sol(t)[0] / 2, 0, time)[0]
    assert td.mean_work(time, steps=20_000) == pytest.approx(work, rel=1e-4)


def test_mean_work_goes_from_that_of_a_sudden_hand_to_the_free_energy():
    assert td.mean_work(0.0) == pytest.approx((4 - 1) / 2)
    assert td.mean_work(1e4, steps=10_000) == pytest.approx(math.log(4) / 2, rel=1e-3)
    assert td.mean_work(0.0, start=2, end=6) == pytest.approx(1)


@pytest.mark.parametrize("time", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("steps", [20, 100])
def test_jarzynskis_equality_holds_at_any_speed_and_in_steps_of_any_size(time, steps):
    work = np.asarray(td.stiffen(KEY, time, particles=20_000, steps=steps), float)
    allowed = 4 * standard_error(np.exp(-work))
    assert abs(np.exp(-work).mean() - math.sqrt(1 / 4)) < allowed


def test_softening_gives_the_free_energy_back():
    work = td.stiffen(KEY, 20.0, particles=20_000, start=4.0, end=1.0)
    assert td.free_energy(work) == pytest.approx(-math.log(4) / 2, abs=0.02)


def test_free_energy_of_normal_works_is_their_mean_less_half_their_variance():
    quantiles = (np.arange(100_000) + 0.5) / 100_000
    work = stats.norm(3, 0.7).ppf(quantiles)
    assert td.free_energy(work) == pytest.approx(3 - 0.7**2 / 2, rel=1e-3)
    assert td.free_energy(np.stack([work, work + 1])).shape == (2,)


def test_free_energy_of_great_works_does_not_overflow():
    assert td.free_energy(np.array([1e4, 1e4])) == pytest.approx(1e4)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"time": -1.0}, "time = -1.0: must be at least 0"),
        ({"time": 1.0, "steps": 0}, "steps = 0: must be at least 1"),
        ({"time": 1.0, "start": 0.0}, "start = 0.0: must be a positive number"),
        ({"time": 1.0, "end": math.inf}, "end = inf: must be a positive number"),
    ],
)
def test_a_trap_that_cannot_be_is_named(given, words):
    with pytest.raises(ValueError, match=words):
        td.stiffen(KEY, **given, particles=1)
    with pytest.raises(ValueError, match=words):
        td.mean_work(**given)


# --- prices ---


def test_a_product_is_priced_by_hand():
    a, b = jnp.ones((64, 32), jnp.float32), jnp.ones((32, 16), jnp.float32)
    energy = td.energy_of(jnp.dot, a, b)
    assert energy.arithmetic == near(64 * 32 * 16 * 4.6e-12)
    assert energy.memory == near((64 * 32 + 32 * 16 + 64 * 16) * 640e-12)
    assert energy.total == near(energy.arithmetic + energy.memory)


def test_a_multiply_add_is_sixteen_hundred_million_times_landauers_bound():
    pair = {"flops": 2, "transcendentals": 0, "bytes": 0}
    assert td.price(pair).bits(300) == pytest.approx(1.6e9, rel=0.01)
    assert td.price(pair).bits(150) == pytest.approx(3.2e9, rel=0.01)


def test_a_transcendental_is_not_free():
    x = jnp.ones(1000)
    assert td.energy_of(jnp.tanh, x).arithmetic > td.energy_of(jnp.negative, x).arithmetic


def test_a_nearer_memory_changes_the_traffic_alone_and_smaller_numbers_the_arithmetic():
    cost = {"flops": 10, "transcendentals": 0, "bytes": 10}
    far, close = td.price(cost), td.price(cost, memory="8 KB SRAM")
    assert close.arithmetic == far.arithmetic
    assert far.memory == near(128 * close.memory)
    small = td.price(cost, number="int8")
    assert small.memory == far.memory
    assert small.arithmetic == near(far.arithmetic * 0.23 / 4.6)


def test_the_table_can_be_replaced():
    free = td.Prices("nobody", "none", {"float32": 0.0}, {"float32": 2.0}, {"air": 3.0})
    cost = {"flops": 10, "transcendentals": 0, "bytes": 10}
    assert td.price(cost, memory="air", prices=free) == (10, 30)


def test_every_number_and_every_memory_has_a_price_above_nothing():
    table = td.HOROWITZ
    assert set(table.add) == set(table.multiply)
    assert all(0 < table.add[number] < table.multiply[number] for number in table.add)
    assert sorted(table.memory.values()) == list(table.memory.values())


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"memory": "tape"}, "memory = 'tape': must be one of '8 KB SRAM'"),
        ({"number": "float8"}, "number = 'float8': must be one of 'float32'"),
    ],
)
def test_what_has_no_price_is_named(names, words):
    with pytest.raises(ValueError, match=words):
        td.energy_of(jnp.dot, jnp.ones(2), jnp.ones(2), **names)


# --- criteria of the claims


def test_criteria_can_be_met_and_can_fail():
    bound, error = np.full(6, 0.69), np.full(6, 0.01)
    found = {"bound": bound, "error": error}
    assert td.costs_a_bit(found | {"work": np.linspace(10, 0.7, 6)})
    assert not td.costs_a_bit(found | {"work": np.full(6, 10.0)})
    assert not td.costs_a_bit(found | {"work": np.full(6, 0.5)})
    assert td.falls_as_one_over_time({"exponent": -1.0})
    assert not td.falls_as_one_over_time({"exponent": -0.5})
    works = {"work": np.array([1.4, 0.8]), "dF": 0.69}
    assert td.knows_the_difference(works | {"estimate": np.full((2, 10), 0.69)})
    assert not td.knows_the_difference(works | {"estimate": np.full((2, 10), 0.8)})
    assert td.grows_faster_than_the_square({"four": 20, "twelve": 600})
    assert not td.grows_faster_than_the_square({"four": 2, "twelve": 6})
    assert td.moves_more_than_it_computes({"share": np.array([0.9, 0.8, 0.6])})
    assert not td.moves_more_than_it_computes({"share": np.array([0.9, 0.4, 0.1])})
    assert td.is_cheaper_at_small_batches({"ratio": np.array([0.1, 0.3, 1.4])})
    assert not td.is_cheaper_at_small_batches({"ratio": np.array([3.0, 5.0, 6.0])})


PICOJOULES = {  # Horowitz 2014, fig. 1.1.9: an addition and a multiplication
    "int8": (0.03, 0.2),
    "int32": (0.1, 3.1),
    "float16": (0.4, 1.1),
    "float32": (0.9, 3.7),
}
PICOJOULES_FOR_64_BITS = {"8 KB SRAM": 10, "32 KB SRAM": 20, "1 MB SRAM": 100, "DRAM": 1280}


@pytest.mark.parametrize("number", td.HOROWITZ.add)
def test_operations_cost_what_the_source_says(number):
    add, multiply = PICOJOULES[number]
    assert td.HOROWITZ.add[number] == near(add * 1e-12)
    assert td.HOROWITZ.multiply[number] == near(multiply * 1e-12)


@pytest.mark.parametrize("memory", td.HOROWITZ.memory)
def test_a_byte_costs_an_eighth_of_the_access_to_64_bits_that_the_source_prices(memory):
    access = td.price({"flops": 0, "transcendentals": 0, "bytes": 8}, memory=memory)
    assert access.total == near(PICOJOULES_FOR_64_BITS[memory] * 1e-12)
