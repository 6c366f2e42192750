"""Counts against products worked out by hand, loops known and unknown."""

import jax
import jax.numpy as jnp
import pytest
from cases import case
from jax import lax, random

from pcbook import backprop, inference_learning, models
from pcbook import predictive_coding as pc
from pcbook.core.cost import count, products

KEY = random.key(0)


def test_a_product_is_counted_by_hand():
    a, b = jnp.ones((64, 32), jnp.float32), jnp.ones((32, 16), jnp.float32)
    cost = count(jnp.dot, a, b)
    assert cost["flops"] == 2 * 64 * 32 * 16
    assert cost["bytes"] == 4 * (64 * 32 + 32 * 16 + 64 * 16)
    assert products(jnp.dot, a, b) == 64 * 32 * 16


def turns(a, b, times):
    """`times` products by a; the number of turns is known to XLA only if it is a constant."""
    return lax.fori_loop(0, times, lambda _, b: jnp.tanh(a @ b), b)


A, B = jnp.eye(32) / 2, jnp.ones((32, 64))
ONE = 2 * 32 * 32 * 64


@pytest.mark.parametrize("times", [0, 1, 7])
def test_a_loop_that_knows_only_as_it_runs_is_counted_as_often_as_it_turns(times):
    cost = count(turns, A, B, times)
    assert cost["flops"] == pytest.approx(times * ONE, abs=100)
    assert cost["transcendentals"] == times * 32 * 64


def test_a_loop_of_known_length_costs_what_it_costs_written_out():
    def written(a, b):
        for _ in range(7):
            b = jnp.tanh(a @ b)
        return b

    known = count(lambda a, b: turns(a, b, 7), A, B)
    assert known["flops"] == count(written, A, B)["flops"] == 7 * ONE


def test_loops_within_loops_are_counted_turn_by_turn():
    def rows(a, b, times):
        return lax.fori_loop(0, times, lambda i, b: turns(a, b, i), b)

    cost = count(rows, A, B, 4)
    assert cost["transcendentals"] == (0 + 1 + 2 + 3) * 32 * 64


def test_two_loops_are_told_apart():
    def both(a, b, few, many):
        return turns(a, turns(a, b, few), many) + turns(a, b, 0)

    cost = count(both, A, B, 2, 5)
    assert cost["transcendentals"] == 7 * 32 * 64


def test_settling_costs_as_many_steps_as_it_took():
    example = case((6, 32, 32, 4), batch=16, activation="tanh")
    params, x, y = jax.tree.map(jnp.float32, (example.params, example.x, example.y))

    def settled(params, x, y):
        return inference_learning.settle(params, x, y, tolerance=0.1)

    taken = int(settled(params, x, y).steps)
    whole = count(settled, params, x, y)
    alone = count(lambda *a: pc.infer(*a, steps=taken).activities, params, x, y)
    assert taken > 3
    assert whole["flops"] == pytest.approx(alone["flops"], rel=0.3)


# --- products


@pytest.mark.parametrize("length", [0, 1, 5])
def test_products_in_a_scan_count_as_often_as_it_turns(length):
    def scanned(a, b):
        return lax.scan(lambda b, _: (jnp.tanh(a @ b), None), b, length=length)[0]

    assert products(scanned, A, B) == length * ONE // 2


def test_what_does_not_change_in_a_loop_is_made_once_and_what_nothing_needs_never():
    def scanned(a, b):
        def step(c, _):
            a @ c
            return jnp.tanh(c + a @ b), None

        return lax.scan(step, b, length=9)[0]

    assert products(scanned, A, B) == ONE // 2


@pytest.mark.parametrize("times", [0, 1, 7])
def test_products_in_a_loop_that_decides_as_it_runs_count_as_often_as_it_turns(times):
    assert products(turns, A, B, times) == times * ONE // 2


def test_products_in_loops_within_loops_count_turn_by_turn():
    def rows(a, b, times):
        return lax.fori_loop(0, times, lambda i, b: turns(a, b, i), b)

    assert products(rows, A, B, 4) == (0 + 1 + 2 + 3) * ONE // 2


def test_products_see_into_branches_and_compiled_functions_and_count_the_dearest_branch():
    def branch(a, b):
        return lax.cond(b.sum() > 0, lambda: jax.jit(jnp.dot)(a, a @ b), lambda: b)

    assert products(branch, A, B) == ONE


def test_products_of_a_convolution_are_those_of_its_outputs_and_its_kernel():
    model = models.cnn((2, 3), classes=5, size=4)
    params, x = model.init(KEY), jnp.ones((7, 4, 4, 2))
    by_hand = 7 * (4 * 4 * 3 * 9 * 2 + 2 * 2 * 3 * 5)
    assert products(model.apply, params, x) == by_hand


def test_products_of_predictive_coding_are_those_of_its_equations():
    """A step takes a product up and one down: that of the clamped input is made once."""
    params = models.mlp((6, 5, 4)).init(KEY)
    x, y = jnp.ones((3, 6)), jnp.ones((3, 4))
    first, last = 3 * 6 * 5, 3 * 5 * 4

    def work(steps):
        return products(pc.rule(steps=steps).gradient, params, (), x, y, KEY)

    assert work(7) - work(6) == 2 * last
    # Forward to the top and to the start, errors, weights, and the first product of the loop.
    assert work(7) == 5 * first + (2 * 7 + 3) * last
    assert products(backprop.rule().gradient, params, (), x, y, KEY) == 2 * first + 3 * last
