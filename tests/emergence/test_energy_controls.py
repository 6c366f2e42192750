import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import as_a_reader_runs_it
from jax import random

from pcbook import data
from pcbook.emergence.energy_controls import (
    BIAS_ONLY,
    BIASED,
    GRU,
    INHIBITORY,
    LSTM,
    TWO_LAYERS,
    VARIANTS,
    Conclusions,
    claims,
    conclude,
    early_stop,
    error_units,
    latent,
    leaky,
    surprise,
    swapped,
    table,
    vary,
    watch,
)
from pcbook.emergence.energy_efficiency import (
    RECURRENT,
    Measures,
    in_wrong_context,
    init,
    lesion,
    preactivations,
    probe,
    run,
)


@pytest.fixture(scope="module")
def digits():
    return data.digits()


@pytest.fixture(scope="module")
def shown(digits):
    return probe(digits, random.key(0), times=2)


X = jnp.asarray(np.random.default_rng(0).uniform(size=(6, 3, 5)), jnp.float32)
NETWORKS = {network.name: network for network, _ in VARIANTS.values()}


# --- what the published test sees ---


def test_swapped_changes_one_image_and_its_class(shown):
    rows = np.asarray(swapped(shown, 8))
    labels = dict(zip(np.ravel(shown.rows), np.ravel(shown.classes), strict=True))
    assert (np.delete(rows, 8, 0) == np.delete(np.asarray(shown.rows), 8, 0)).all()
    assert all(
        labels[row] != c for row, c in zip(rows[8], np.asarray(shown.classes[8]), strict=True)
    )
    assert sorted(rows[8]) == sorted(np.asarray(shown.rows[8]))


def test_error_units_are_those_of_a_two_sample_z_test(shown):
    W = jnp.asarray(np.random.default_rng(1).normal(size=(64, 64)) / 20, jnp.float32)
    usual = np.maximum(preactivations(W, shown.images[shown.rows])[8], 0)
    odd = np.maximum(preactivations(W, shown.images[swapped(shown, 8)])[8], 0)
    found = np.asarray(error_units(W, shown))
    agree = []
    for c in range(10):
        mine = np.asarray(shown.classes[8]) == c
        a, b = usual[mine], odd[mine]
        spread = np.sqrt(a.var(0, ddof=1) / len(a) + b.var(0, ddof=1) / len(b))
        z = (b.mean(0) - a.mean(0)) / np.where(spread > 0, spread, np.inf)
        agree.append((z >= 2.576) == found[c])
    assert np.mean(agree) > 0.998  # one unit in a thousand may lie on the threshold


def test_pixels_alone_make_error_units_and_no_surprise(shown):
    """Without recurrence nothing can be expected: yet most units pass the published test."""
    W = jnp.zeros((64, 64))
    assert error_units(W, shown).any(0).sum() > 32
    assert surprise(W, shown) == (0, 0)


def test_surprise_is_the_paired_effect(shown):
    W = jnp.asarray(np.random.default_rng(2).normal(size=(64, 64)) / 20, jnp.float32)
    right = np.abs(preactivations(W, shown.x)[-1]).mean(1)
    rows = in_wrong_context(shown.rows, shown.classes[-1])
    wrong = np.abs(preactivations(W, shown.images[rows])[-1]).mean(1)
    percent, effect = surprise(W, shown)
    np.testing.assert_allclose(percent, 100 * (wrong.mean() / right.mean() - 1), rtol=1e-3)
    np.testing.assert_allclose(effect, (wrong - right).mean() / (wrong - right).std(), rtol=1e-3)


def test_conclusions_by_hand():
    curve = jnp.array([[1.0, 0.5, 0.4]])
    found = Measures(
        curve,
        jnp.array([[1.0, 0.6, 0.6]]),
        curve,
        jnp.array([[[1, 0, -1], [1, 1, 0]]]),
        jnp.array([0.4]),
        jnp.array([0.5]),
        jnp.array([[0.0, 0.5, 0.9]]),
        jnp.zeros((1, 2, 2)),
    )
    expected = Conclusions(*np.array([[50.0], [20.0], [0.0], [50.0], [25.0], [90.0], [2.0]]))
    np.testing.assert_allclose(conclude(found), expected, rtol=1e-5, atol=1e-5)
    assert "25" in table({"by hand": expected}).split()
    two = Conclusions(*(np.append(v, v + 4) for v in expected))
    assert "27 ± 3" in table({"by hand": two})


# --- stopping ---


@pytest.mark.parametrize(
    ("losses", "patience", "expected"),
    [
        ([3, 2, 1], 1, (2, 2)),  # never worse: no stop
        ([3, 2, 4, 1], 1, (2, 1)),  # the first worse one stops it
        ([3, 2, 4, 1], 2, (3, 3)),  # patience is rewarded
        ([3, 2, 2, 2, 1], 2, (3, 1)),  # no lower is no better
        ([1], 3, (0, 0)),
    ],
)
def test_early_stop_by_hand(losses, patience, expected):
    assert early_stop(np.array(losses, float), patience) == expected


def test_early_stop_says_what_is_wrong():
    with as_a_reader_runs_it(), pytest.raises(ValueError, match="patience = 0: must be"):
        early_stop(np.ones(3), 0)


@pytest.mark.slow
def test_watch_holds_out_what_it_watches_and_judges_by_what_it_never_saw(digits):
    seen = watch(digits, epochs=10, every=5, rate=1e-3, seeds=[0, 1])
    np.testing.assert_array_equal(seen.epochs, [0, 5, 10])
    assert seen.redrawn.shape == seen.fixed.shape == (3, 2)
    assert seen.conclusions.surprise.shape == (3, 2)
    assert (seen.fixed[0] > seen.fixed[2]).all()
    np.testing.assert_allclose(seen.redrawn[0], seen.fixed[0])  # the first deal is the same


# --- other networks ---


@pytest.mark.parametrize("name", NETWORKS)
def test_pixels_drive_the_first_units_and_are_all_that_the_first_image_brings(name):
    network = NETWORKS[name]
    params = network.init(random.key(0), 5)
    a = run(network, params, X)
    assert a.shape[:2] == (6, 3)
    np.testing.assert_allclose(a[0, :, :5], X[0], atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"leak 0.5"}))
def test_with_every_unit_silent_only_the_pixels_are_left(name):
    network = NETWORKS[name]
    params = network.init(random.key(0), 5)
    units = run(network, params, X).shape[2]
    silent = run(network, params, X, lesion(jnp.ones(units, bool)))
    np.testing.assert_allclose(silent[..., :5], X, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_later_image_changes_nothing_before_it(name):
    network = NETWORKS[name]
    params = network.init(random.key(0), 5)
    a, b = run(network, params, X), run(network, params, X.at[4].add(1))
    np.testing.assert_array_equal(a[:4], b[:4])
    assert not np.allclose(a[4], b[4])


def test_a_leak_of_one_no_bias_and_no_latent_units_are_the_recurrent_network():
    W = init(random.key(1), 5)
    expected = run(RECURRENT, W, X)
    unbiased = {"W": W, "b": jnp.zeros(5)}
    for network, params in ((leaky(1.0), W), (BIASED, unbiased), (latent(0), W)):
        np.testing.assert_allclose(run(network, params, X), expected, rtol=1e-5, atol=1e-6)


def test_bias_only_is_a_fixed_guess():
    a = run(BIAS_ONLY, {"b": jnp.arange(5.0)}, X)
    np.testing.assert_allclose(a, X + np.arange(5), rtol=1e-6)


def test_inhibition_never_raises_a_unit_above_its_pixel():
    assert (run(INHIBITORY, init(random.key(0), 5), X) <= X).all()


def test_a_gru_with_open_gates_is_the_recurrent_network_at_half_speed():
    """Gate weights of zero give z = r = 1/2: by hand for one unit."""
    params = {"W": jnp.full((1, 1), -0.4), "z": jnp.zeros((1, 1)), "r": jnp.zeros((1, 1))}
    a = run(GRU, params, jnp.ones((3, 1, 1)))
    h1 = 0.5 * 1
    a2 = 1 - 0.4 * 0.5 * h1
    h2 = 0.5 * h1 + 0.5 * a2
    np.testing.assert_allclose(a[:, 0, 0], [1, a2, 1 - 0.4 * 0.5 * h2], rtol=1e-6)


def test_an_lstm_with_half_open_gates_by_hand():
    params = {name: jnp.zeros((1, 1)) for name in "ifo"} | {"W": jnp.full((1, 1), -0.4)}
    a = run(LSTM, params, jnp.ones((3, 1, 1)))
    c1 = 0.5 * 1
    a2 = 1 - 0.4 * 0.5 * c1
    c2 = 0.5 * c1 + 0.5 * a2
    np.testing.assert_allclose(a[:, 0, 0], [1, a2, 1 - 0.4 * 0.5 * c2], rtol=1e-6)


def test_two_layers_by_hand():
    W = {"a": -0.1, "b": -0.2, "c": 0.5, "d": 0.3}
    a = run(TWO_LAYERS, {k: jnp.full((1, 1), v) for k, v in W.items()}, jnp.ones((2, 1, 1)))
    up1 = 0.5 * 1
    low2 = 1 - 0.1 * 1 - 0.2 * up1
    np.testing.assert_allclose(a[:, 0], [[1, up1], [low2, 0.5 * low2 + 0.3 * up1]], rtol=1e-6)


def test_vary_concludes_and_random_order_leaves_no_surprise(digits):
    found = vary(digits, RECURRENT, "random", epochs=200, rate=3e-3, seeds=[0, 1])
    assert (np.abs(found.surprise) < 3).all()
    assert (found.decoded < 25).all()
    assert (found.fast > 20).all()


@pytest.mark.slow
def test_gradients_of_every_variant_are_finite():
    for network in NETWORKS.values():
        params = network.init(random.key(0), 5)
        slope = jax.grad(lambda p, n=network: jnp.abs(run(n, p, X)).mean())(params)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


# --- what a table says, and what is held out


def test_the_table_gives_the_mean_and_the_standard_deviation_over_networks():
    """Of a hundred networks at 0 and at 40 by turns; their variance is 400."""
    values = np.tile([0.0, 40.0], 50)
    assert "20 ± 20" in table({"by turns": Conclusions(*[values] * 7)})


def test_watch_trains_on_four_fifths_of_every_class_and_on_no_image_twice(digits, monkeypatch):
    class Trained(Exception):
        pass

    def spied(images, labels, **_):
        raise Trained(images, labels)

    monkeypatch.setattr(sys.modules[watch.__module__], "train", spied)
    with pytest.raises(Trained) as stopped:
        watch(digits, epochs=5, rate=1e-3)
    images, labels = map(np.asarray, stopped.value.args)
    shares = np.bincount(labels) / np.bincount(digits.y_train)
    np.testing.assert_allclose(shares, 0.8, atol=0.02)
    twice = len(digits.x_train) - len(np.unique(digits.x_train, axis=0))
    assert len(images) - len(np.unique(images, axis=0)) <= twice


# --- the criteria of the claims ---

ONES = np.ones(5)
NONE = dict.fromkeys(claims.CANNOT_PREDICT, 0.1 * ONES)


@pytest.mark.parametrize(
    ("criterion", "meets", "fails"),
    [
        (
            claims.has_twice_as_many_error_units,
            {"trained": 50 * ONES, "unconnected": 25 * ONES},
            {"trained": 50 * ONES, "unconnected": 25 * ONES + (np.arange(5) == 0)},
        ),
        (
            claims.tells_those_that_predict,
            {"trained": ONES, **NONE},
            {"trained": ONES - 0.3 * (np.arange(5) == 0), **NONE},
        ),
        *(
            (
                claims.tells_those_that_predict,
                {"trained": ONES, **NONE},
                {"trained": ONES, **NONE, name: -0.3 * ONES},
            )
            for name in claims.CANNOT_PREDICT
        ),
        (
            claims.are_rare_in_random_order,
            {"trained": 12 * ONES, "random": 3 * ONES},
            {"trained": 12 * ONES, "random": 4 * ONES},
        ),
        (
            claims.saves_nothing_without_units,
            {"left": 20 * ONES},
            {"left": 20 * ONES + 10 * (np.arange(5) == 0)},
        ),
        (
            claims.stops_before_half,
            {"stopped": 4 * ONES, "full": 9 * ONES},
            {"stopped": 5 * ONES, "full": 9 * ONES},
        ),
        (
            claims.predict_alike,
            {"surprise": 11, "decoded": 51},
            {"surprise": 11, "decoded": 49},
        ),
        (
            claims.predict_alike,
            {"surprise": 11, "decoded": 51},
            {"surprise": 9, "decoded": 51},
        ),
    ],
)
def test_each_criterion_can_be_met_and_can_fail(criterion, meets, fails):
    assert criterion(meets)
    assert not criterion(fails)
