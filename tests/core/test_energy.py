"""Every energy: its velocity and its update are the gradients of its value, by `jax.grad`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import assert_close, case, cases, fewer, use_float64
from hypothesis import given

from pcbook.core.energy import Clamps, contrast, define, settle, settle_then_learn
from pcbook.foundations.predictive_coding import chain
from pcbook.inference.queries_and_forgetting import hidden_causes


@pytest.fixture(autouse=True, scope="module")
def float64():
    with use_float64():
        yield


ENERGIES = {
    "chain, clamped": lambda c: chain(c.activation, c.loss),
    "chain, input free": lambda c: chain(c.activation, c.loss, prior=0.0),
    "chain, input near its prior": lambda c: chain(c.activation, c.loss, prior=0.7),
    "hidden causes": lambda c: hidden_causes(c.activation),
}


@pytest.mark.parametrize("name", ENERGIES)
@fewer
@given(c=cases(activations=("identity", "tanh", "sigmoid")))
def test_velocity_and_update_written_by_hand_are_the_gradients_of_the_value(name, c):
    by_hand = ENERGIES[name](c)
    derived = define(by_hand.value, by_hand.start)
    clamps = Clamps(c.x + 1, c.y, c.precision)
    expected = derived.velocity(c.params, c.xs, clamps)
    ours = by_hand.velocity(c.params, c.xs, clamps)
    assert [v is None for v in ours] == [name == "chain, clamped", *[False] * (len(ours) - 1)]
    for v, slope in zip(ours, expected, strict=True):
        if v is not None:
            assert_close(v, slope)
    xs = c.xs if ours[0] is not None else [clamps.x, *c.xs[1:]]
    assert_close(by_hand.update(c.params, xs, clamps), derived.update(c.params, xs, clamps))


@pytest.mark.parametrize("name", ENERGIES)
def test_the_start_is_a_state_of_which_the_energy_can_be_told(name):
    c = case((3, 4, 2))
    energy, clamps = ENERGIES[name](c), Clamps(c.x, c.y, 1.0)
    start = energy.start(c.params, clamps)
    assert energy.value(c.params, start, clamps).shape == (len(c.x),)
    assert len(start) == 2


def quadratic():
    """F = |s - W x|^2 / 2 + precision |s - y|^2 / 2: at rest s is between the two."""

    def value(W, s, clamps):
        x, y, precision = clamps
        return ((s - x @ W.T) ** 2).sum(-1) / 2 + precision * ((s - y) ** 2).sum(-1) / 2

    return define(value, lambda W, clamps: clamps.x @ W.T)


W, X, Y = (np.random.default_rng(n).normal(size=(n, m)) for n, m in [(2, 3), (5, 3), (6, 2)])
Y = Y[:5]
RELAXED = {"steps": 2000, "rate": 0.1, "tolerance": 1e-12}


def squared(mu, y):
    return ((y - mu) ** 2).sum(-1) / 2


def test_settling_finds_the_minimum():
    settled = settle(quadratic(), W, Clamps(X, Y, 3.0), **RELAXED)
    assert settled.converged
    assert_close(settled.state, (X @ W.T + 3 * Y) / 4, rtol=1e-8, atol=1e-9)


def test_settling_begins_where_it_is_told_to_and_else_where_the_energy_does():
    clamps, here = Clamps(X, Y, 3.0), jnp.ones((5, 2))
    assert_close(settle(quadratic(), W, clamps, start=here, steps=0, rate=0.1).state, here)
    assert_close(settle(quadratic(), W, clamps, steps=0, rate=0.1).state, jnp.asarray(X @ W.T))


def test_settle_then_learn_descends_the_energy_at_rest():
    rule = settle_then_learn(
        "quadratic", quadratic(), lambda W, x: x @ W.T, squared, precision=3.0, **RELAXED
    )
    loss, update, state = rule.gradient(W, (), X, Y, None)
    np.testing.assert_allclose(loss, squared(X @ W.T, Y).mean())
    assert_close(update, 0.75 * (X @ W.T - Y).T @ X / len(X), rtol=1e-8, atol=1e-9)
    assert state == ()


def test_without_a_loss_the_rule_tells_the_energy_at_rest():
    rule = settle_then_learn("quadratic", quadratic(), lambda W, x: x @ W.T, **RELAXED)
    rest = (X @ W.T + Y) / 2
    expected = quadratic().value(W, rest, Clamps(X, Y, 1.0)).mean()
    np.testing.assert_allclose(rule.gradient(W, (), X, Y, None)[0], expected, rtol=1e-8)


@pytest.mark.parametrize(("symmetric", "order"), [(False, 1), (True, 2)])
def test_contrast_comes_to_the_gradient_of_the_loss_by_the_order_of_the_nudge(symmetric, order):
    """At rest F(beta) = beta / (1 + beta) loss: the contrast is its slope in beta."""
    slope = jax.grad(lambda W: squared(X @ W.T, Y).mean())(W)

    def missed(nudge):
        rule = contrast(
            "quadratic",
            quadratic(),
            lambda W, x: x @ W.T,
            squared,
            nudged=Clamps,
            nudge=nudge,
            symmetric=symmetric,
            **RELAXED,
        )
        return jnp.linalg.norm(rule.gradient(W, (), X, Y, None)[1] - slope)

    assert abs(jnp.log10(missed(0.1) / missed(0.01)) - order) < 0.1
