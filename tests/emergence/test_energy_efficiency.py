import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import as_a_reader_runs_it, use_float64
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import random

from pcbook import data, rules
from pcbook.emergence.energy_efficiency import (
    COSTS,
    RECURRENT,
    SIZES,
    bounds,
    claims,
    correlation,
    decode,
    drive,
    energies,
    energy,
    gradient,
    in_wrong_context,
    init,
    interval,
    lesion,
    lesion_others,
    measure,
    measure_all,
    medians,
    pooled,
    preactivations,
    prediction_units,
    probe,
    rule,
    run,
    sequences,
    train,
)
from pcbook.store.data import Dataset

few = settings(max_examples=12, deadline=None)  # a new shape is compiled anew
LOSSES = tuple(COSTS)


@pytest.fixture(scope="module")
def digits():
    return data.digits()


def small(units=5, steps=4, batch=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(units, units)) / 2, rng.uniform(size=(steps, batch, units))


def small32(**sizes):
    return (jnp.asarray(a, jnp.float32) for a in small(**sizes))


# --- sequences ---


def labels_of(counts, seed=0):
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))


counts = st.sampled_from([(4, 7), (5, 4, 9), (6, 6, 6, 6), (12, 4, 8, 5, 11, 7)])


@few
@given(counts, st.sampled_from((1, 3, 4, 11)), st.integers(0, 99))
def test_ascending_sequences_count_on_by_one_and_start_over(counts, steps, seed):
    turns = -(-steps // len(counts))
    assume(turns <= min(counts))
    labels = labels_of(counts, seed)
    rows = np.asarray(sequences(random.key(seed), labels, steps=steps))
    assert rows.shape == (steps, min(counts) // turns)
    assert (np.diff(labels[rows], axis=0) % len(counts) == 1 % len(counts)).all()


@pytest.mark.slow
@few
@given(counts, st.sampled_from((2, 7)), st.sampled_from(("ascending", "either way", "random")))
def test_no_image_is_dealt_twice(counts, steps, order):
    assume(-(-steps // len(counts)) <= min(counts))
    labels = labels_of(counts)
    rows = np.asarray(sequences(random.key(1), labels, steps=steps, order=order)).ravel()
    assert len(set(rows)) == len(rows)
    assert rows.min() >= 0
    assert rows.max() < len(labels)


def test_every_class_starts_equally_often_and_every_image_has_its_turn(digits):
    deals = [np.asarray(sequences(random.key(k), digits.y_train)) for k in range(40)]
    for rows in deals:
        starts = np.bincount(digits.y_train[rows[0]])
        assert starts.max() - starts.min() <= 1
    # A deal leaves out at most one image in twenty of a class: forty deals reach all.
    assert len(np.unique(deals)) == len(digits.y_train)


def test_sequences_are_as_many_as_the_rarest_class_of_mnist_allows():
    train = np.repeat(np.arange(10), [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])
    test = np.repeat(np.arange(10), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009])
    assert sequences(random.key(0), train).shape[1] // 32 == 169
    assert sequences(random.key(0), test).shape == (10, 892)


def test_either_way_takes_two_images_to_know_the_third(digits):
    rows = np.asarray(sequences(random.key(0), digits.y_train, order="either way"))
    way = np.diff(digits.y_train[rows], axis=0) % 10
    assert set(way.ravel()) == {1, 9}
    assert (way == way[0]).all()  # the first two say the way, and it is kept
    assert abs((way[0] == 1).mean() - 0.5) < 0.01


def test_random_order_says_nothing_of_what_comes(digits):
    rows = [np.asarray(sequences(random.key(k), digits.y_train, order="random")) for k in range(20)]
    classes = digits.y_train[np.concatenate(rows, 1)]
    follows = np.histogram2d(classes[:-1].ravel(), classes[1:].ravel(), bins=10)[0]
    expected = follows.sum(1, keepdims=True) * follows.sum(0) / follows.sum()
    chi2 = ((follows - expected) ** 2 / expected).sum()
    assert chi2 < 81 + 4 * np.sqrt(2 * 81)  # 81 degrees of freedom


@pytest.mark.parametrize(
    ("labels", "keywords", "message"),
    [
        ([0, 1, 1], {"order": "descending"}, "order = 'descending': must be one of 'ascending'"),
        ([0, 1, 1], {"steps": 0}, "steps = 0: must be"),
        ([0, 2, 2], {"steps": 3}, "class 1 0 times: must be at least 1"),
        ([], {}, "labels: must be"),
        ([0, -1], {}, "labels: must be"),
    ],
)
def test_sequences_say_what_is_wrong(labels, keywords, message):
    with as_a_reader_runs_it(), pytest.raises(ValueError, match=message):
        sequences(random.key(0), np.array(labels, int), **keywords)


# --- the network ---


def test_two_units_by_hand():
    W = np.array([[0.5, -1.0], [0.25, 2.0]], np.float32)
    x = np.array([[[1.0, 0.0]], [[0.0, 0.5]], [[0.25, 0.0]]], np.float32)
    # a1 = (1, 0); a2 = (.5, -1 + .5); a3 = (.5 * .5 + .25, .5 * -1).
    by_hand = jnp.array([[[1.0, 0.0]], [[0.5, -0.5]], [[0.5, -0.5]]])
    np.testing.assert_allclose(preactivations(W, x), by_hand)
    np.testing.assert_allclose(drive(W, x), [[[0, 0]], [[0.5, -1.0]], [[0.25, -0.5]]])
    assert energy(by_hand, W, "pre") == 0.5 + 0.5 + 0.5
    assert energy(by_hand, W, "post") == 0.5 + 0.25 + 0.25
    weights = 3 * 3708 * (0.25 + 1 + 0.0625 + 4) / 4
    np.testing.assert_allclose(energy(by_hand, W, "post+weights"), 1 + weights, rtol=1e-6)


def test_gradient_of_one_unit_by_hand():
    # a1 = x1; a2 = w x1 + x2 > 0; a3 = w a2 + x3 < 0.
    # d|a2|/dw = x1; d|a3|/dw = -(a2 + w x1).
    W, x = np.array([[-0.5]], np.float32), np.array([[[1.0]], [[0.75]], [[0.0]]], np.float32)
    a2 = -0.5 * 1 + 0.75
    loss, dW = gradient(W, x, "pre")
    assert loss == 1 + a2 + 0.5 * a2
    assert dW == 1 - (a2 - 0.5 * 1)


by_hand = jax.jit(gradient, static_argnums=2)
by_jax = jax.jit(
    jax.value_and_grad(lambda W, x, loss: energy(preactivations(W, x), W, loss)), static_argnums=2
)


@pytest.mark.parametrize("loss", LOSSES)
@few
@given(st.sampled_from([(1, 1, 1), (1, 3, 2), (3, 2, 1), (6, 5, 4)]), st.integers(0, 999))
def test_gradient_is_jax_grad_of_the_energy(loss, sizes, seed):
    with use_float64():
        W, x = (jnp.asarray(a) for a in small(*sizes, seed))
        value, ours = by_hand(W, x, loss)
        expected, theirs = by_jax(W, x, loss)
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_is_the_central_difference(loss):
    with use_float64():
        W, x = (jnp.asarray(a) for a in small(seed=3))
        direction = np.random.default_rng(1).normal(size=W.shape)
        ahead, behind = (
            energy(preactivations(W + h * direction, x), W + h * direction, loss)
            for h in (1e-6, -1e-6)
        )
        _, dW = gradient(W, x, loss)
        np.testing.assert_allclose((dW * direction).sum(), (ahead - behind) / 2e-6, rtol=1e-5)


def test_without_weights_the_image_is_left_as_it_is():
    _, x = small32()
    np.testing.assert_array_equal(preactivations(jnp.zeros((5, 5)), x), x)
    cost = energies(jnp.zeros((5, 5)), x)
    np.testing.assert_allclose(cost.preactivation, np.abs(x).mean((1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(cost.transmission, np.zeros(4))


def test_lesioning_every_unit_is_having_no_weights_and_lesioning_none_changes_nothing():
    W, x = small32()
    np.testing.assert_array_equal(preactivations(W, x, lesion(jnp.ones(5, bool))), x)
    intact = preactivations(W, x, lesion(jnp.zeros(5, bool)))
    np.testing.assert_array_equal(intact, preactivations(W, x))


def test_lesion_silences_what_a_unit_sends_and_not_what_it_receives():
    W, x = small32()
    lesioned = preactivations(W, x, lesion(jnp.arange(5) == 2))
    np.testing.assert_allclose(lesioned, preactivations(W.at[2].set(0), x), rtol=1e-6)


def test_run_of_the_recurrent_network_is_preactivations():
    W, x = small32(units=7, steps=6)
    transmit = lesion(jnp.arange(7) == 3)
    ours = run(RECURRENT, W, x, transmit)
    np.testing.assert_allclose(ours, preactivations(W, x, transmit), rtol=1e-5, atol=1e-5)


def test_first_weights_are_uniform_within_one_over_root_units():
    W = np.asarray(init(random.key(0), 100))
    assert np.abs(W).max() <= 0.1
    np.testing.assert_allclose([W.mean(), W.std()], [0, 0.1 / np.sqrt(3)], atol=2e-3)


# --- what is measured ---


def test_transmission_is_the_sum_over_single_synapses():
    W, x = small32()
    h = np.maximum(preactivations(W, x), 0)
    synapses = np.abs(h[:, :, :, None]) * np.abs(W)  # steps, batch, from, to
    cost = energies(W, x)
    np.testing.assert_allclose(cost.transmission, synapses.sum(2).mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(cost.total, cost.activity / 3 + 2 * cost.transmission / 3, rtol=1e-6)


def six_images():
    x = np.array([[0, 0.2], [0, 0.4], [0, 0.9], [1, 0.2], [1, 0.4], [1, 0.9]], np.float32)
    y = np.array([0, 0, 0, 1, 1, 1])
    return Dataset(x, y, x, y)


def test_bounds_of_six_images_by_hand():
    # The median of all is (.5, .4), of a class (0 or 1, .4); |x - .4| is .2, 0 and .5 in both.
    expected = [(0.5 + 0.5) / 2, (0.5 + 0.7 / 3) / 2, (0 + 0.7 / 3) / 2]
    np.testing.assert_allclose(bounds(six_images()), expected, rtol=1e-6)
    fitted = medians(six_images().x_train, six_images().y_train)
    np.testing.assert_allclose(fitted, [[0, 0.4], [1, 0.4]])


def test_bounds_count_every_class_alike():
    x, y = np.array([[0.0], [0.0], [0.0], [1.0]], np.float32), np.array([0, 0, 0, 1])
    twice = Dataset(x[[0, 3]], y[[0, 3]], x[[0, 3]], y[[0, 3]])
    assert bounds(Dataset(twice.x_train, twice.y_train, x, y)) == bounds(twice) == (0.5, 0.5, 0)


@few
@given(st.integers(0, 9999))
def test_no_guess_is_better_than_the_median_of_the_same_images(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(size=(40, 3)).astype(np.float32), np.arange(40) % 4
    found = bounds(Dataset(x, y, x, y))
    assert found.median <= np.abs(x - rng.uniform(size=3)).mean()
    assert found.category <= found.median <= found.none


def test_prediction_units_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    a, classes = rng.normal(size=(90, 8)), np.arange(90) % 3
    a[:, 0] += 10 * (classes == 1)
    a[:, 1] -= 10 * (classes == 2)
    expected = np.zeros((3, 8), int)
    for c in range(3):
        for unit in range(8):
            values = a[classes == c, unit]
            median = np.median(values)
            deviation = np.median(np.abs(values - median)) * 1.4826
            expected[c, unit] = np.sign(median) * (abs(median) > 2.576 * deviation)
    found = np.asarray(prediction_units(a, classes, 3))
    np.testing.assert_array_equal(found, expected)
    assert found[1, 0] == 1
    assert found[2, 1] == -1


def test_a_unit_that_never_moves_from_zero_predicts_nothing():
    assert not np.asarray(prediction_units(np.zeros((6, 2)), np.arange(6) % 2, 2)).any()


@few
@given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(0, 99))
def test_control_lesion_takes_as_many_others(units, seed):
    units = np.array(units)
    others = np.asarray(lesion_others(random.key(seed), units)) == 0
    assert not (units & others).any()
    assert others.sum() == min(units.sum(), (~units).sum())


def test_correlation_is_numpy_s_and_zero_for_a_constant():
    a, b = np.random.default_rng(0).normal(size=(2, 3, 9))
    np.testing.assert_allclose(correlation(a, b), np.corrcoef(a, b)[:3, 3:], atol=1e-6)
    assert (np.asarray(correlation(np.ones((1, 9)), b)) == 0).all()


def test_decode_reads_minus_the_median_through_scale_and_offset(digits):
    templates = medians(digits.x_train, digits.y_train)
    np.testing.assert_array_equal(decode(0.1 - 0.3 * templates, templates), np.arange(10))
    assert not (np.asarray(decode(templates, templates)) == np.arange(10)).any()


def test_wrong_context_keeps_the_image_and_gives_it_a_history_that_leads_elsewhere(digits):
    rows = np.asarray(sequences(random.key(0), digits.y_test))
    wrong = np.asarray(in_wrong_context(rows, digits.y_test[rows[-1]]))
    np.testing.assert_array_equal(wrong[-1], rows[-1])
    assert sorted(wrong[0]) == sorted(rows[0])  # every history once
    led_to = (digits.y_test[wrong[-2]] + 1) % 10
    assert (led_to != digits.y_test[wrong[-1]]).all()


def test_without_recurrence_there_is_no_surprise(digits):
    found = measure(jnp.zeros((64, 64)), probe(digits, random.key(0)), random.key(1))
    assert found.expected == found.unexpected
    np.testing.assert_array_equal(found.preactivation, found.lesioned)
    np.testing.assert_array_equal(found.likeness, np.zeros((10, 10)))


def test_a_network_told_the_answer_reaches_the_category_bound_and_is_read_without_error():
    """One-hot images: W[c, c + 1] = -1 cancels the coming image exactly, and nothing is left."""
    x, y = np.tile(np.eye(4, dtype=np.float32), (8, 1)), np.tile(np.arange(4), 8)
    known = Dataset(x, y, x, y)
    W = -np.roll(np.eye(4, dtype=np.float32), 1, axis=1)
    found = measure(W, probe(known, random.key(0), steps=2), random.key(1))
    np.testing.assert_allclose(found.preactivation, [0.25, bounds(known).category], atol=1e-7)
    assert found.decoded[1] == 1
    np.testing.assert_allclose(np.diag(found.likeness), 1, rtol=1e-5)
    assert found.unexpected == 0.5  # what came was not cancelled, what was cancelled did not come


def test_interval_of_the_mean_is_that_of_theory():
    values = np.random.default_rng(0).normal(5, 2, size=400)
    theory = values.mean() + np.array([-1.96, 1.96]) * values.std() / 20
    np.testing.assert_allclose(interval(values), theory, atol=0.01)
    np.testing.assert_array_equal(interval(np.full((5, 2), 3.0)), np.full((2, 2), 3.0))


# --- training ---


def test_first_step_of_adam_is_the_sign_of_the_gradient_times_the_rate():
    """One batch holds all three sequences of the six images, so one epoch is one step."""
    x, y = six_images().x_train, six_images().y_train
    trained = train(x, y, epochs=1, rate=0.01, steps=2, batch_size=3)
    before, after = trained.path[:, 0]
    along = [(np.abs(after - before)[i, j]) for i in range(2) for j in range(2)]
    assert all(
        step == pytest.approx(0, abs=1e-6) or step == pytest.approx(0.01, abs=1e-5)
        for step in along
    )
    assert max(along) > 0.009


def test_training_takes_the_step_that_all_trainings_take():
    """The sequences of one epoch, learned by `rules.step` from what `rules.begin` makes."""
    x, y = six_images().x_train, six_images().y_train
    trained = train(x, y, epochs=1, rate=0.01, steps=2, batch_size=3)
    learner, optimizer = rule(RECURRENT), optax.adam(0.01)
    carry = rules.begin(learner, optimizer, jnp.asarray(trained.path[0, 0]), random.key(0))
    rows = sequences(random.fold_in(random.key(0), 1), y, steps=2)
    carry, loss = rules.step(learner.gradient, optimizer)(carry, (x[rows], None, None))
    np.testing.assert_allclose(carry[0], trained.params[0], rtol=1e-6)
    np.testing.assert_allclose(loss, trained.loss[0, 0], rtol=1e-6)


def test_a_seed_gives_the_same_alone_and_beside_others(digits):
    setup = {"epochs": 3, "rate": 1e-3, "steps": 3}
    alone = train(digits.x_train, digits.y_train, seeds=[4], **setup)
    beside = train(digits.x_train, digits.y_train, seeds=[7, 4, 2], **setup)
    np.testing.assert_allclose(alone.params[0], beside.params[1], atol=1e-5)
    np.testing.assert_allclose(alone.loss[:, 0], beside.loss[:, 1], rtol=1e-5)
    assert np.abs(beside.params[0] - beside.params[1]).max() > 0.01


def test_rates_and_seeds_train_side_by_side_as_alone(digits):
    setup = {"epochs": 3, "steps": 3}
    both = train(digits.x_train, digits.y_train, rate=[1e-2, 1e-3], seeds=[4, 4], **setup)
    np.testing.assert_array_equal(both.path[0, 0], both.path[0, 1])
    alone = train(digits.x_train, digits.y_train, rate=1e-3, seeds=[4], **setup)
    np.testing.assert_allclose(alone.params[0], both.params[1], atol=1e-5)
    assert np.abs(both.params[0] - both.params[1]).max() > 0.01


def test_stages_do_not_change_the_training(digits):
    setup = {"epochs": 4, "rate": 1e-3, "steps": 3}
    whole = train(digits.x_train, digits.y_train, **setup)
    stages = train(digits.x_train, digits.y_train, every=2, **setup)
    np.testing.assert_array_equal(stages.epochs, [0, 2, 4])
    assert stages.path.shape == (3, 1, 64, 64)
    np.testing.assert_allclose(whole.params, stages.params, atol=1e-5)
    np.testing.assert_allclose(whole.loss, stages.loss, rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_hand_written_gradient_trains_as_jax_s_does(digits, loss):
    setup = {"epochs": 3, "rate": 1e-3, "loss": loss, "steps": 3}
    by_jax = RECURRENT._replace(gradient=None)
    ours = train(digits.x_train, digits.y_train, **setup)
    theirs = train(digits.x_train, digits.y_train, network=by_jax, **setup)
    np.testing.assert_allclose(ours.loss, theirs.loss, rtol=1e-4)


@pytest.mark.slow
def test_saving_energy_predicts_where_there_is_an_order_and_not_where_there_is_none(digits):
    setup = {"epochs": 400, "rate": 3e-3, "seeds": range(3)}
    found = {}
    for order in ("ascending", "random"):
        trained = train(digits.x_train, digits.y_train, order=order, **setup)
        test = probe(digits, random.key(9), times=4, order=order)
        found[order] = measure_all(trained.params, test, random.key(0))
    slope = {name: m.preactivation[:, 1] - m.preactivation[:, 9] for name, m in found.items()}
    ascending, none = found["ascending"], found["random"]
    # Even a fixed guess takes some images to build up, so the fall is compared, not held to zero.
    assert slope["ascending"].min() > slope["random"].max()
    assert ((ascending.units > 0).any(1).sum(1) >= 3).all()
    assert (ascending.lesioned[:, -1] > 1.15 * ascending.preactivation[:, -1]).all()
    assert (ascending.unexpected > 1.2 * ascending.expected).all()
    assert (np.abs(none.unexpected / none.expected - 1) < 0.05).all()
    assert (ascending.decoded[:, -1] > 0.5).all()
    chance, sequences = 0.1, 4 * (500 // 10 - 2)
    assert (none.decoded[:, -1] < chance + 4 * np.sqrt(chance / sequences)).all()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"epochs": 0}, "epochs = 0: must be an integer of at least 1"),
        ({"rate": 0.0}, "rate = 0.0: must be a positive number"),
        ({"rate": float("nan")}, "rate = nan: must be a positive number"),
        ({"loss": "mean"}, "loss = 'mean': must be one of 'pre', 'post', 'post[+]weights'"),
        ({"batch_size": 4}, "batch_size = 4: must be 1 to 3"),
        ({"every": 2, "epochs": 3}, "every = 2: must be a divisor of epochs = 3"),
        ({"seeds": ()}, "seeds = ..: must be at least one"),
    ],
)
def test_train_says_what_is_wrong(keywords, message):
    x, y = six_images().x_train, six_images().y_train
    setup = {"epochs": 1, "rate": 0.1, "steps": 2, "batch_size": 3} | keywords
    with as_a_reader_runs_it(), pytest.raises(ValueError, match=message):
        train(x, y, **setup)


def test_train_refuses_images_that_are_not_finite():
    x, y = six_images().x_train.copy(), six_images().y_train
    x[0, 0] = np.nan
    with pytest.raises(ValueError, match="1 values that are not finite"):
        train(x, y, epochs=1, rate=0.1, steps=2, batch_size=3)


def test_pooled_pixels_are_means_of_blocks_channel_by_channel():
    x = np.arange(2 * 4 * 4 * 3, dtype=np.float32).reshape(2, 48)
    large = Dataset(x, np.array([0, 1]), x, np.array([0, 1]))
    small = pooled(large, 2, 3).x_train.reshape(2, 2, 2, 3)
    image = x.reshape(2, 4, 4, 3)
    np.testing.assert_allclose(small[1, 0, 1], image[1, :2, 2:].mean((0, 1)))
    with pytest.raises(ValueError, match="side = 3: must be a divisor of 4"):
        pooled(large, 3, 3)


def test_the_embedded_size_needs_no_network(monkeypatch):
    monkeypatch.setattr(data, "_fetch", None)
    assert SIZES["digits"].load().x_train.shape == (1297, 64)


# --- what is known beforehand, and what is new each time


def test_medians_are_those_of_the_training_images_for_bounds_and_probe():
    known, shown = six_images(), np.array([[0.0, 0.0]] * 3 + [[0.5, 0.5]] * 3, np.float32)
    dataset = Dataset(known.x_train, known.y_train, shown, known.y_test)
    # Of all (.5, .4), of the classes (0, .4) and (1, .4); the test images are 0 and 1/2.
    expected = [0.25, (0.5 + 0.4 + 0 + 0.1) / 4, (0 + 0.4 + 0.5 + 0.1) / 4]
    np.testing.assert_allclose(bounds(dataset), expected, rtol=1e-6)
    test = probe(dataset, random.key(0), steps=2)
    np.testing.assert_allclose(test.medians, [[0, 0.4], [1, 0.4]])
    assert set(np.unique(test.x)) == {0, 0.5}


def test_every_epoch_deals_new_sequences(digits):
    """Weights that hardly change cost something else on other sequences."""
    trained = train(digits.x_train, digits.y_train, epochs=3, rate=1e-12, steps=3)
    assert len(set(trained.loss[:, 0].tolist())) == 3


# --- the criteria of the claims ---

CURVE = np.linspace(0.17, 0.15, 10)[:, None] + np.zeros(5)
ONES = np.ones(5)


def one(value, rest):
    """Five networks of which the first differs."""
    return np.array([value, *4 * [rest]])


@pytest.mark.parametrize(
    ("criterion", "meets", "fails"),
    [
        (
            claims.is_below_median,
            {"preactivation": np.vstack([0.3 * ONES, CURVE[1:]]), "median": 0.18},
            {"preactivation": np.vstack([CURVE[:9], one(0.19, 0.15)]), "median": 0.18},
        ),
        (
            claims.falls_on,
            {"preactivation": CURVE},
            {"preactivation": np.vstack([CURVE[:9], one(0.16, 0.15)])},
        ),
        (
            claims.closes_most_of_the_gap,
            {"small": 60 * ONES, "full": 90 * ONES},
            {"small": 60 * ONES, "full": one(101, 90)},
        ),
        (
            claims.closes_most_of_the_gap,
            {"small": 51 * ONES, "full": 90 * ONES},
            {"small": one(49, 60), "full": 90 * ONES},
        ),
        (
            claims.resembles_the_coming_digit,
            {"own": 0.95 * ONES, "others": 0.6 * ONES},
            {"own": one(0.8, 0.95), "others": 0.6 * ONES},
        ),
        (
            claims.resembles_the_coming_digit,
            {"own": 0.95 * ONES, "others": 0.6 * ONES},
            {"own": 0.95 * ONES, "others": one(0.8, 0.6)},
        ),
        (
            claims.announces_the_coming_digit,
            {"decoded": 60 * ONES, "untrained": 10},
            {"decoded": one(40, 60), "untrained": 10},
        ),
        (
            claims.announces_the_coming_digit,
            {"decoded": 60 * ONES, "untrained": 10},
            {"decoded": 60 * ONES, "untrained": 30},
        ),
        (
            claims.are_at_the_edge,
            {"quiet": 0.05 * ONES, "typical": 0.28},
            {"quiet": one(0.1, 0.05), "typical": 0.28},
        ),
        (
            claims.saves_no_more_when_lesioned,
            {"intact": 0.02 * ONES, "lesioned": 0.001 * ONES},
            {"intact": 0.02 * ONES, "lesioned": one(0.003, 0.001)},
        ),
        (claims.changes_nothing, {"more": one(0.4, -0.4)}, {"more": one(-0.6, 0)}),
        (
            claims.is_surprised,
            {"more": 30 * ONES, "untrained": -2 * ONES},
            {"more": one(10, 30), "untrained": -2 * ONES},
        ),
        (
            claims.is_surprised,
            {"more": 30 * ONES, "untrained": -2 * ONES},
            {"more": 30 * ONES, "untrained": one(-6, 0)},
        ),
        (
            claims.grows_within_a_quarter,
            {"begun": 10, "done": 30, "epochs": 100},
            {"begun": 10, "done": 35, "epochs": 100},
        ),
        (claims.ends_at_the_published_share, {"ratio": 0.85 * ONES}, {"ratio": one(0.87, 0.8)}),
        (claims.has_as_many_units_as_published, {"units": one(25, 30)}, {"units": one(31, 28)}),
        (
            claims.is_silenced,
            {"ratio": 4 * ONES, "fires": 0.3 * ONES},
            {"ratio": one(2, 4), "fires": 0.3 * ONES},
        ),
        (
            claims.is_silenced,
            {"ratio": 4 * ONES, "fires": 0.3 * ONES},
            {"ratio": 4 * ONES, "fires": one(0.4, 0.3)},
        ),
    ],
)
def test_each_criterion_can_be_met_and_can_fail(criterion, meets, fails):
    assert criterion(meets)
    assert not criterion(fails)
