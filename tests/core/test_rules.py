import warnings
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
import scipy.stats
from cases import as_a_reader_runs_it, assert_close, random_like, use_float64
from jax import random

from pcbook import backprop, predictive_coding
from pcbook.core.models import mlp
from pcbook.core.network import LOSSES, Layer, forward, init
from pcbook.core.rules import (
    Comparison,
    Rule,
    accuracy,
    angle,
    compare,
    exceeds,
    fit,
    interval,
    learn,
    stateless,
    without_biases,
)
from pcbook.store.data import Dataset, digits


@pytest.fixture(autouse=True, scope="module")
def float64():
    with use_float64():
        yield


def blobs(train=30, test=12, classes=3, seed=0):
    """Points around one corner a class. The first feature is the number of the image."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, train + test)
    x = rng.normal(size=(train + test, 4)) / 3
    x[np.arange(len(x)), 1 + y] += 1
    x[:, 0] = np.arange(len(x))
    return Dataset(x[:train], y[:train], x[train:], y[train:])


BLOBS = blobs(60, 30)
CORNERS = replace(BLOBS, x_train=BLOBS.x_train[:, 1:], x_test=BLOBS.x_test[:, 1:])
SGD = optax.sgd(0.1)


def logging(rule, dataset, batch_size, epochs):
    """The rule, keeping in its state which images and which key it was given at each step."""
    steps = epochs * (len(dataset.x_train) // batch_size)

    def start(key, params):
        empty = (jnp.zeros((steps, batch_size), int), jnp.zeros((steps, 2), jnp.uint32))
        return jnp.array(0), empty, rule.init(key, params)

    def gradient(params, state, x, y, key):
        step, (rows, keys), own = state
        loss, update, own = rule.gradient(params, own, x.at[:, 0].set(0), y, key)
        log = rows.at[step].set(x[:, 0].astype(int)), keys.at[step].set(random.key_data(key))
        return loss, update, (step + 1, log, own)

    predict = lambda params, x: rule.predict(params, x.at[:, 0].set(0))  # noqa: E731
    return Rule(rule.name, start, gradient, predict)


def train(dataset=None, rule=None, *, optimizer=SGD, epochs=2, batch_size=7, key=0, params=None):
    return fit(
        backprop.rule() if rule is None else rule,
        init(random.key(1), (4, 5, 3)) if params is None else params,
        blobs() if dataset is None else dataset,
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        key=random.key(key),
    )


# --- fit


@pytest.mark.parametrize("optimizer", [SGD, optax.adamw(0.01, weight_decay=0.1)])
def test_fit_is_a_python_loop_of_value_and_grad_and_optax(optimizer):
    """Replayed in the order that `fit` drew: parameters, losses and accuracies are the same."""
    dataset, params, epochs = blobs(), init(random.key(1), (4, 5, 3)), 3
    rule = logging(backprop.rule(), dataset, 7, epochs)
    ours = train(dataset, rule, optimizer=optimizer, epochs=epochs, params=params)

    loss = lambda p, x, y: LOSSES["squared error"](forward(p, x), y).mean()  # noqa: E731
    memory, order = optimizer.init(params), np.asarray(ours.state[1][0]).reshape(epochs, -1, 7)
    clean = lambda x: jnp.asarray(x).at[:, 0].set(0)  # noqa: E731
    for epoch, batches in enumerate(order):
        losses = []
        for rows in batches:
            x, y = clean(dataset.x_train[rows]), jnp.eye(3)[dataset.y_train[rows]]
            value, update = jax.value_and_grad(loss)(params, x, y)
            update, memory = optimizer.update(update, memory, params)
            params = optax.apply_updates(params, update)
            losses.append(value)
        right = forward(params, clean(dataset.x_test)).argmax(1) == dataset.y_test
        # fit keeps its one-hot targets, and so its means, in the precision of the session.
        np.testing.assert_allclose(ours.history.loss[epoch], np.mean(losses), rtol=1e-6)
        np.testing.assert_allclose(ours.history.accuracy[epoch], right.mean(), rtol=1e-6)
    assert_close(ours.params, params)


@pytest.mark.parametrize("batch_size", [1, 7, 30])
def test_an_epoch_shows_every_image_at_most_once_and_leaves_out_less_than_a_batch(batch_size):
    dataset = blobs()
    rule = logging(backprop.rule(), dataset, batch_size, 3)
    step, (rows, _), _ = train(dataset, rule, epochs=3, batch_size=batch_size).state
    assert step == len(rows) == 3 * (30 // batch_size)
    epochs = np.asarray(rows).reshape(3, -1)
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch) > 30 - batch_size
    assert len({tuple(epoch) for epoch in epochs}) == 3, "each epoch is shuffled anew"


def test_every_step_gets_a_key_of_its_own():
    dataset = blobs()
    _, (_, keys), _ = train(dataset, logging(backprop.rule(), dataset, 5, 2), batch_size=5).state
    assert len({tuple(map(int, key)) for key in keys}) == len(keys) == 12


def test_state_of_a_rule_passes_from_step_to_step_and_out():
    counting = backprop.rule()._replace(
        init=lambda key, params: jnp.array(10),
        gradient=lambda p, s, x, y, k: (*backprop.rule().gradient(p, (), x, y, k)[:2], s + 1),
    )
    assert train(rule=counting, epochs=3).state == 10 + 3 * (30 // 7)


def test_rule_is_given_one_hot_targets():
    seen = backprop.rule()._replace(
        init=lambda key, params: jnp.zeros((30, 3)),
        gradient=lambda p, s, x, y, k: (
            *backprop.rule().gradient(p, (), x, y, k)[:2],
            s.at[x[:, 0].astype(int)].set(y),
        ),
    )
    dataset = blobs()
    np.testing.assert_array_equal(
        train(dataset, seen, batch_size=30).state, np.eye(3)[dataset.y_train]
    )


def test_same_key_same_result_other_key_another():
    assert_close(train(key=0), train(key=0), rtol=0, atol=0)
    assert not np.allclose(train(key=0).params[0].W, train(key=1).params[0].W)


def test_params_passed_in_are_unharmed():
    params = init(random.key(1), (4, 5, 3))
    before = jax.tree.map(np.array, params)
    first = train(params=params)
    assert_close(params, jax.tree.map(jnp.asarray, before), rtol=0, atol=0)
    assert_close(train(params=params).params, first.params, rtol=0, atol=0)


def test_what_a_rule_shares_with_others_survives_donation():
    """Feedback may be an array of the reader's own, or the weights that training starts from."""
    feedback, params = jnp.ones(3), init(random.key(1), (4, 5, 3))
    rule = backprop.rule()._replace(
        init=lambda key, params: (feedback, params),
        gradient=lambda p, s, x, y, k: (*backprop.rule().gradient(p, (), x, y, k)[:2], s),
    )
    kept, start = train(rule=rule, params=params).state
    np.testing.assert_array_equal(kept, feedback)
    assert_close(start, params, rtol=0, atol=0)


@pytest.mark.parametrize(
    "rule", [backprop.rule(), predictive_coding.rule(steps=5)], ids=lambda r: r.name
)
def test_every_rule_learns_what_can_be_learnt(rule):
    params = init(random.key(1), (3, 8, 3))
    history = train(CORNERS, rule, optimizer=optax.adam(0.03), epochs=15, params=params).history
    assert history.accuracy.shape == history.loss.shape == (15,)
    assert history.accuracy[-1] > 0.9
    assert history.loss[-1] < history.loss[0] / 2


def test_accuracy_is_the_share_of_images_whose_largest_output_is_the_label():
    outputs = jnp.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    predict = lambda params, x: outputs  # noqa: E731
    assert accuracy(predict, None, outputs, jnp.array([1, 0, 1, 1])) == 0.75


# --- learn


def sequence(batches=6, batch=5):
    x, y = random.normal(random.key(2), (2, batches, batch, 4))
    return x, y[..., :3]


def lived(every, rule=None, optimizer=SGD, **more):
    x, y = sequence()
    return learn(
        backprop.rule() if rule is None else rule,
        init(random.key(1), (4, 5, 3)),
        x,
        y,
        optimizer=optimizer,
        watch=lambda params: forward(params, x[0]),
        every=every,
        key=random.key(0),
        **more,
    )


@pytest.mark.parametrize("optimizer", [SGD, optax.adam(0.01)])
def test_learning_in_order_is_a_python_loop_of_grad_and_optax(optimizer):
    x, y = sequence()
    params, seen = init(random.key(1), (4, 5, 3)), []
    memory = optimizer.init(params)
    for batch, target in zip(x, y, strict=True):
        seen.append(forward(params, x[0]))
        slopes = jax.grad(lambda p: LOSSES["squared error"](forward(p, batch), target).mean())(  # noqa: B023
            params
        )
        update, memory = optimizer.update(slopes, memory, params)
        params = optax.apply_updates(params, update)
    ours, watched = lived(1, optimizer=optimizer)
    assert_close(ours, params)
    assert_close(watched, jnp.stack([*seen, forward(params, x[0])]))


def test_watching_less_often_sees_the_same_life():
    (often, all_of_it), (seldom, some) = lived(1), lived(3)
    assert_close(often, seldom)
    assert_close(all_of_it[::3], some)


@pytest.mark.parametrize("every", [0, -1, 4])
def test_every_must_divide_the_number_of_batches(every):
    with pytest.raises(ValueError, match=f"every = {every}: must divide 6, the number of batches"):
        lived(every)


def test_without_biases_weights_learn_and_biases_stay():
    x, y = sequence()
    plain, bare = backprop.rule(), without_biases(backprop.rule())
    params = init(random.key(1), (4, 5, 3))
    loss, update, state = plain.gradient(params, (), x[0], y[0], random.key(0))
    bare_loss, bare_update, bare_state = bare.gradient(params, (), x[0], y[0], random.key(0))
    assert (bare_loss, bare_state) == (loss, state)
    for a, b in zip(update, bare_update, strict=True):
        assert_close(a.W, b.W)
        assert not b.b.any()
    ours, _ = lived(1, rule=bare)
    assert not any(layer.b.any() for layer in ours)


# --- compare


def race(rules, dataset=CORNERS, sizes=(3, 6, 3), **settings):
    plan = {"rates": (1e-4, 0.03), "seeds": 2, "epochs": 3, "batch_size": 8, "key": random.key(0)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # two rates, few epochs
        return compare(rules, mlp(sizes), dataset, **plan | settings)


@cache
def reference():
    again = backprop.rule()._replace(name="again")
    return race([backprop.rule(), again, predictive_coding.rule(steps=3)])


@pytest.mark.slow
def test_comparison_has_a_cell_for_every_rule_rate_seed_and_epoch():
    assert reference().names == ("backprop", "again", "predictive coding")
    assert reference().rates == (1e-4, 0.03)
    assert reference().validation.shape == reference().test.shape == (3, 2, 2, 3)
    assert reference().curves().shape == (3, 2, 3)


def test_every_rule_starts_from_the_same_weights_and_sees_the_same_batches():
    np.testing.assert_array_equal(reference().test[0], reference().test[1])
    np.testing.assert_array_equal(reference().validation[0], reference().validation[1])


def test_same_key_same_cells_whatever_runs_beside_them():
    alone = race([backprop.rule()], rates=(0.03,))
    np.testing.assert_array_equal(reference().test[:1, 1:], alone.test)
    np.testing.assert_array_equal(reference().validation[:1, 1:], alone.validation)


def remembering():
    """A rule that learns which images it was shown: image i has feature i alone.

    Its answer to an image is class 1 if that was shown in training, or else class 0.
    """

    def gradient(params, state, x, y, key):
        shown = -10 * x.max(0)
        return jnp.array(0.0), [Layer(jnp.tile(shown, (2, 1)), jnp.zeros(2))], state

    def predict(params, x):
        shown = x @ params[0].W[0]
        return jnp.stack([jnp.full_like(shown, 5.0), shown], 1)

    return Rule("remembering", stateless, gradient, predict)


def test_a_fifth_of_the_images_is_held_out_and_never_shown():
    n = 50
    dataset = Dataset(np.eye(n), np.zeros(n, int), np.eye(n), np.ones(n, int))
    settings = {"sizes": (n, 2), "rates": (1.0,), "optimizer": optax.sgd, "batch_size": 1}
    result = race([remembering()], dataset, seeds=3, epochs=1, **settings)
    assert (result.validation == 1).all(), "no held-out image was shown"
    np.testing.assert_allclose(result.test, 0.8, rtol=1e-6)  # all the others were


def test_each_seed_has_weights_and_held_out_images_of_its_own():
    """At a rate of next to nothing, accuracy is that of the first weights."""
    result = race([backprop.rule()], rates=(1e-12,), seeds=6, epochs=2)
    assert len(set(result.test[0, 0, :, 0].tolist())) > 1
    np.testing.assert_array_equal(result.test[..., 0], result.test[..., 1])


def test_a_rule_draws_its_own_synapses_and_not_the_weights_again():
    """Feedback by chance has nothing in common with the weights: of 180, less than half."""
    rule, cosines = backprop.rule_with_feedback(0.0), []

    def spied(params, feedback, x, y, key):
        a, b = (jnp.concatenate([l.W.ravel() for l in layers]) for layers in (params, feedback))
        jax.debug.callback(cosines.append, a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b))
        return rule.gradient(params, feedback, x, y, key)

    race([rule._replace(gradient=spied)], sizes=(3, 30, 3), rates=(1e-12,), epochs=1)
    jax.effects_barrier()
    assert cosines
    assert max(map(abs, cosines)) < 0.5


def compared(validation, test=None, names=("rule",), rates=(0.1, 0.2, 0.3), work=None, patience=1):
    """A comparison of made-up accuracies (rules, rates, seeds, epochs), 10 updates an epoch."""
    validation = np.array(validation, float)
    test = validation if test is None else np.array(test, float)
    work = np.ones(len(names)) if work is None else np.array(work, float)
    return Comparison(names, rates, validation, test, work, 10, patience)


def test_best_rate_has_the_best_validation_whatever_the_test_says():
    validation = np.array([[0.2, 0.9, 0.5]]).reshape(1, 3, 1, 1)
    result = compared(validation, 1 - validation)
    assert result.best == [1]
    np.testing.assert_allclose(result.curves(), [[[0.1]]])
    np.testing.assert_allclose(result.reached(), [[0.1]])


def test_each_training_is_judged_at_its_best_epoch_and_a_rate_by_the_mean_over_seeds():
    validation = [[[[0.5, 0.1], [0.1, 0.5]], [[0.1, 0.8], [0.1, 0.0]], [[0.1, 0.3], [0.1, 0.6]]]]
    test = [[[[0.3, 0.9], [0.9, 0.4]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]]]
    result = compared(validation, test)
    assert result.best == [0]  # .5 and .5, against .8 and .1, and .3 and .6
    np.testing.assert_allclose(result.reached(), [[0.3, 0.4]])


def test_a_rate_at_which_a_seed_diverged_comes_last_and_is_called_diverged():
    validation = [[[[0.9, 0.9], [0.9, np.nan]], [[0.2, 0.3], [0.2, 0.3]], [[0.1, 0.2], [0.1, 0.2]]]]
    result = compared(validation)
    assert result.best == [1]
    np.testing.assert_array_equal(result.diverged[0], [[False, True], [False] * 2, [False] * 2])
    assert "diverged" in result.table().splitlines()[1]


def test_a_training_that_diverges_is_reported_as_nan_and_never_as_an_accuracy():
    result = race([backprop.rule()], rates=(0.03, 1e300), optimizer=optax.sgd, epochs=3)
    assert result.diverged[0].tolist() == [[False, False], [True, True]]
    assert np.isnan(result.final[0, 1]).all()


@pytest.mark.parametrize(("best", "edge"), [(0, True), (1, False), (2, True)])
def test_a_best_rate_on_the_edge_of_the_grid_is_warned_of(best, edge):
    validation = np.full((1, 3, 1, 2), 0.1)
    validation[0, best] = 0.9
    warned = [w for w in compared(validation).warnings() if "edge of the grid" in w]
    assert bool(warned) == edge


@pytest.mark.parametrize(("patience", "plateau"), [(1, True), (2, False)])
def test_a_curve_that_still_rose_within_the_patience_is_no_plateau(patience, plateau):
    rising = compared([[[[0.1, 0.2, 0.5, 0.4]]] * 3], patience=patience)
    assert rising.plateau.all() == plateau
    assert any("still improving" in w for w in rising.warnings()) != plateau


def test_comparison_warns_as_it_is_made():
    with pytest.warns(RuntimeWarning, match=r"backprop: the best rate, .*edge of the grid"):
        compare(
            [backprop.rule()], mlp((3, 6, 3)), CORNERS, rates=(0.03,), epochs=1, key=random.key(0)
        )


def test_difference_is_paired_over_seeds():
    one, other = np.array([0.9, 0.7, 0.8]), np.array([0.8, 0.65, 0.72])
    result = compared(
        np.stack([one, other]).reshape(2, 1, 3, 1), names=("one", "other"), rates=(0.1,)
    )
    found = result.difference("one", "other")
    expected = scipy.stats.ttest_rel(one, other).confidence_interval()
    np.testing.assert_allclose((found.low, found.high), expected)
    np.testing.assert_allclose(found.mean, (one - other).mean())
    np.testing.assert_allclose(found.sd, (one - other).std(ddof=1))
    with pytest.raises(ValueError, match=r"other = 'none': must be one of 'one', 'other'"):
        result.difference("one", "none")


def test_interval_covers_the_mean_as_often_as_it_says_with_five_seeds():
    draws = np.random.default_rng(0).normal(size=(4000, 5))
    found = [interval(row) for row in draws]
    covered = np.mean([low <= 0 <= high for _, low, high, _, _ in found])
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / len(draws))


@pytest.mark.parametrize(
    ("values", "least", "expected"),
    [
        ([3.0, 4.0, 5.0], 1, True),  # the standard error is 1 / sqrt(3)
        ([3.0, 4.0, 5.0], 4, False),
        ([-1.0, 2.0, 5.0], 1, False),  # a mean of 2 and a standard error of sqrt(3)
        ([2.0, float("nan"), 2.0], 1, False),
    ],
)
def test_a_mean_exceeds_a_threshold_and_two_standard_errors(values, least, expected):
    assert exceeds(np.array(values), least) is expected


def test_interval_of_one_value_is_refused():
    with pytest.raises(ValueError, match="values has 1 entries: must be at least 2"):
        interval(np.ones(1))


def test_work_is_counted_in_the_products_of_an_update():
    slow = predictive_coding.rule(steps=10)
    work = race([backprop.rule(), slow], epochs=1, batch_size=8).work
    # Forward 3x6 and 6x3, one product back through the last layer, two for the weights.
    assert work[0] == 8 * (18 + 18 + 18 + 36)
    assert work[1] > 3 * work[0]


def test_test_images_choose_nothing():
    """With wrong labels on the test images the same rate is chosen, for the same validation."""
    wrong = replace(CORNERS, y_test=(CORNERS.y_test + 1) % 3)
    fooled = race([backprop.rule()], wrong)
    np.testing.assert_array_equal(fooled.validation, reference().validation[:1])
    assert fooled.best == reference().best[0] == 1
    assert fooled.test[0, 1, :, -1].mean() < fooled.test[0, 0, :, -1].mean()


def test_compare_reaches_what_fit_reaches():
    result = race([backprop.rule()], rates=(0.03,), seeds=4, epochs=15)
    params = init(random.key(3), (3, 6, 3))
    one = train(CORNERS, optimizer=optax.adam(0.03), epochs=15, batch_size=8, params=params)
    assert result.test[0, 0, :, -1].min() > 0.9
    assert one.history.accuracy[-1] > 0.9


def test_table_has_a_row_a_rule_a_column_a_rate_and_a_star_at_the_best():
    validation = np.array([[[[0.5]], [[0.9]]], [[[0.9]], [[0.5]]]])
    test = np.array([[[[0.25]], [[0.75]]], [[[0.625]], [[0.5]]]])
    header, first, second = (
        compared(validation, test, ("one", "other"), (0.1, 1.0), work=[2, 6])
        .table()
        .splitlines()[:3]
    )
    assert header.split()[:2] == ["0.1", "1"]
    assert first.split() == ["one", "25.0", "75.0*", "75.0", "10", "1.00"]
    assert second.split() == ["other", "62.5*", "50.0", "62.5", "10", "3.00"]


def test_spread_is_the_standard_deviation_of_a_sample():
    validation = np.array([0.1, 0.3]).reshape(1, 1, 2, 1)
    assert f"20.0 ± {np.std([10, 30], ddof=1):.1f}" in compared(validation, rates=(0.1,)).table()


def test_plot_draws_each_rule_s_mean_in_percent_over_its_epochs():
    curves = np.array([[[[0.1, 0.4], [0.3, 0.6]]], [[[0.5, 0.9], [0.5, 0.9]]]])
    _, axes = plt.subplots()
    compared(curves, names=("one", "other"), rates=(0.1,)).plot(axes)
    one, other = axes.get_lines()
    np.testing.assert_allclose(one.get_xydata(), [[1, 20], [2, 50]])
    np.testing.assert_allclose(other.get_xydata(), [[1, 50], [2, 90]])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "other"]
    plt.close()


# --- angle


def test_angle_is_0_along_180_against_and_90_across():
    update = [Layer(jnp.array([[3.0, 0.0]]), jnp.array([4.0]))]
    across = [Layer(jnp.array([[0.0, 7.0]]), jnp.array([0.0]))]
    # In float64 rounding is about 1e-16, in radians.
    assert angle(update, jax.tree.map(lambda u: 5 * u, update)) < 1e-13
    np.testing.assert_allclose(angle(update, jax.tree.map(jnp.negative, update)), 180)
    np.testing.assert_allclose(angle(update, across), 90)


@pytest.mark.parametrize("degrees", [1e-7, 0.01, 1, 60, 90, 135, 179.9999])
def test_angle_is_exact_however_small(degrees):
    radians = np.radians(degrees)
    update, turned = (
        [Layer(jnp.eye(1), jnp.zeros(1))],
        [Layer(jnp.array([[2 * np.cos(radians)]]), jnp.array([2 * np.sin(radians)]))],
    )
    np.testing.assert_allclose(angle(update, turned), degrees, rtol=1e-6)


def test_angle_is_that_of_the_arccosine():
    one, other = (
        random_like(init(random.key(0), (3, 4, 2)), 1),
        random_like(init(random.key(0), (3, 4, 2)), 2),
    )
    a, b = (np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(t)]) for t in (one, other))
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    np.testing.assert_allclose(angle(one, other), np.degrees(np.arccos(cosine)), rtol=1e-9)


# --- What is refused


def refused(message, call):
    with as_a_reader_runs_it(), pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)


@pytest.mark.parametrize("epochs", [0, -1])
def test_epochs_must_be_at_least_1(epochs):
    message = f"epochs = {epochs}: must be an integer of at least 1"
    refused(message, lambda: train(epochs=epochs))
    refused(message, lambda: race([backprop.rule()], epochs=epochs))


@pytest.mark.parametrize("batch_size", [0, -1, 31])
def test_batch_size_must_fit_the_images(batch_size):
    message = f"batch_size = {batch_size}: must be 1 to 30, the number of"
    refused(message, lambda: train(batch_size=batch_size))


def test_batch_size_must_fit_the_images_that_are_not_held_out():
    message = "batch_size = 49: must be 1 to 48, the number of"
    refused(message, lambda: race([backprop.rule()], batch_size=49))


@pytest.mark.parametrize("label", [3, 7])
@pytest.mark.parametrize("split", ["train", "test"])
def test_labels_must_each_have_an_output(split, label):
    labels = getattr(CORNERS, f"y_{split}").copy()
    labels[3] = label
    bad = replace(CORNERS, **{f"y_{split}": labels})
    message = f"y_{split} holds the label {label}: must be 0 to 2, one for each output"
    refused(message, lambda: train(bad, params=init(random.key(0), (3, 3))))
    refused(message, lambda: race([backprop.rule()], bad))


def test_images_must_be_as_wide_as_the_input():
    params = init(random.key(0), (5, 3))
    refused("must be (batch, 5), 5 being the width of the input", lambda: train(params=params))
    refused("must be (batch, 5), 5 being the width", lambda: race([backprop.rule()], sizes=(5, 3)))


@pytest.mark.parametrize("rates", [(), (0.1, 0.0), (-0.1,), (float("nan"),), (float("inf"),)])
def test_rates_must_be_positive_numbers(rates):
    message = f"rates = {rates}: must be one or more positive numbers"
    refused(message, lambda: race([backprop.rule()], rates=rates))


@pytest.mark.parametrize("seeds", [0, -2])
def test_seeds_must_be_at_least_1(seeds):
    message = f"seeds = {seeds}: must be an integer of at least 1"
    refused(message, lambda: race([backprop.rule()], seeds=seeds))


def test_rules_must_be_at_least_one():
    refused("rules = []: must be at least one rule", lambda: race([]))


# --- The real thing


def test_predictive_coding_learns_the_digits_in_float32():
    with use_float64(False):
        trained = fit(
            predictive_coding.rule(steps=8),
            init(random.key(0), (64, 32, 10)),
            digits(),
            optimizer=optax.adam(0.003),
            epochs=5,
            batch_size=32,
            key=random.key(1),
        )
    assert trained.history.accuracy[-1] > 0.8  # chance is 0.1
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(trained.params))
