"""The relaxation loop against a Python loop, closed forms and its own promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import as_a_reader_runs_it, assert_close, use_float64
from jax import random

from pcbook.core.relaxation import UNROLLED, relax, relax_towards


@pytest.fixture(autouse=True, scope="module")
def float64():
    with use_float64():
        yield


START = {"x": np.array([[1.0, 2.0], [3.0, -1.0]]), "y": np.array([[5.0], [0.5]])}


def decay(state):
    return jax.tree.map(lambda a: -a, state)


@pytest.mark.parametrize("steps", [0, 1, UNROLLED, UNROLLED + 1, 30])
def test_it_takes_euler_steps(steps):
    settled = relax(decay, START, steps=steps, rate=0.1)
    assert_close(settled.state, jax.tree.map(lambda a: jnp.asarray(a * 0.9**steps), START))
    assert settled.steps == steps
    assert not settled.converged


def test_a_part_without_a_velocity_is_held():
    settled = relax(lambda s: {"x": -s["x"], "y": None}, START, steps=7, rate=0.1)
    assert_close(settled.state, {"x": START["x"] * 0.9**7, "y": START["y"]})


def test_the_path_holds_every_state_from_the_start_on():
    path = relax(decay, START, steps=6, rate=0.1, trajectory=True).path
    for moment in range(7):
        here = jax.tree.map(lambda a: a[moment], path)  # noqa: B023
        assert_close(here, jax.tree.map(lambda a: a * 0.9**moment, START))  # noqa: B023


def test_with_a_tolerance_it_ends_when_every_sample_is_that_much_slower():
    rates = jnp.array([[1.0], [0.5]])  # the second sample is the slower
    settled = relax(lambda x: -rates * x, jnp.ones((2, 1)), steps=1000, rate=0.1, tolerance=0.01)
    taken = int(settled.steps)
    assert settled.converged
    assert 0.95**taken <= 0.01 < 0.95 ** (taken - 1)


def test_without_enough_steps_it_is_told_that_it_did_not_converge():
    settled = relax(decay, START, steps=3, rate=0.1, tolerance=0.01)
    assert settled.steps == 3
    assert not settled.converged


def test_while_one_sample_still_moves_it_has_not_converged():
    speeds = jnp.array([[1.0], [0.01]])
    settled = relax(lambda x: -speeds * x, jnp.ones((2, 1)), steps=50, rate=0.1, tolerance=0.1)
    assert settled.state[0] < 0.1 < settled.state[1]
    assert not settled.converged


def test_a_relaxation_that_diverges_ends_and_has_not_converged():
    settled = relax(decay, jax.tree.map(jnp.float32, START), steps=10_000, rate=1e3, tolerance=0.1)
    assert settled.steps < 100
    assert not settled.converged


def test_a_state_at_rest_stays_and_has_converged():
    settled = relax(decay, jnp.zeros((2, 3)), steps=10, rate=0.1, tolerance=0.1)
    assert settled.steps == 0
    assert settled.converged


@pytest.mark.parametrize("tolerance", [None, 1e-9])
def test_memory_moves_along_with_the_state(tolerance):
    def velocity(x, memory):
        key, moves = memory
        key, now = random.split(key)
        return random.normal(now, x.shape), (key, moves + 1)

    begin = (random.key(0), 0)
    settled = relax(
        velocity, jnp.zeros((1, 2)), steps=9, rate=0.5, tolerance=tolerance, memory=begin
    )
    key, x = random.key(0), jnp.zeros((1, 2))
    for _ in range(9):
        key, now = random.split(key)
        x = x + 0.5 * random.normal(now, x.shape)
    assert_close(settled.state, x)
    assert settled.memory[1] == 9 + (tolerance is not None)  # the velocity at the end is known


@pytest.mark.parametrize("rate", [0.3, 1, 1.0])
def test_towards_a_target_is_the_relaxation_with_the_distance_to_it_as_velocity(rate):
    start = {"x": jnp.array([[1.0, 3.0]]), "y": jnp.array([[0.1]])}

    def target(state):
        return {"x": 0.5 * state["x"] + state["y"], "y": jnp.cos(state["y"])}

    def velocity(state):
        return jax.tree.map(jnp.subtract, target(state), state)

    found = relax_towards(target, start, steps=5, rate=rate, trajectory=True)
    expected = relax(velocity, start, steps=5, rate=rate, trajectory=True)
    jax.tree.map(assert_close, found.path, expected.path)
    jax.tree.map(assert_close, found.state, expected.state)


def test_a_step_of_rate_one_ends_on_the_target_exactly():
    start, target = jnp.array([[0.1, 1e20]]), jnp.array([[0.7, 0.3]])
    found = relax_towards(lambda x: target, start, steps=1, rate=1)
    np.testing.assert_array_equal(found.state, target)


def test_it_is_differentiable_and_takes_a_traced_rate():
    def end(rate):
        return relax(decay, jnp.ones((1, 1)), steps=8, rate=rate).state.sum()

    np.testing.assert_allclose(jax.grad(end)(0.1), -8 * 0.9**7)
    np.testing.assert_allclose(jax.vmap(end)(jnp.array([0.1, 0.2])), [0.9**8, 0.8**8])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": -1}, "steps = -1: must be an integer of at least 0"),
        ({"steps": 2.5}, "steps = 2.5: must be an integer of at least 0"),
        ({"rate": -1}, "rate = -1: must be a positive number"),
        ({"tolerance": 1.0}, "tolerance = 1.0: must be at least 0 and less than 1"),
        ({"tolerance": 0.1, "trajectory": True}, "trajectory = True: must be False with a tol"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, message):
    with as_a_reader_runs_it(), pytest.raises(ValueError, match=message):
        relax(decay, START, **{"steps": 5, "rate": 0.1} | wrong)
