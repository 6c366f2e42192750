import gc
import warnings
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import psutil
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
    verify,
    without_biases,
)
from pcbook.core.rules.comparison import _grid
from pcbook.core.rules.recording import run
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


def train(dataset=None, rule=None, *, key=0, params=None, **settings):
    return fit(
        backprop.rule() if rule is None else rule,
        init(random.key(1), (4, 5, 3)) if params is None else params,
        blobs() if dataset is None else dataset,
        **{"optimizer": SGD, "epochs": 2, "batch_size": 7} | settings,
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
        np.testing.assert_allclose(ours.history.score[epoch], right.mean(), rtol=1e-6)
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
    assert history.score.shape == history.loss.shape == (15,)
    assert history.score[-1] > 0.9
    assert history.loss[-1] < history.loss[0] / 2


def test_accuracy_is_the_share_of_images_whose_largest_output_is_the_label():
    outputs = jnp.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    predict = lambda params, x: outputs  # noqa: E731
    assert accuracy(predict, None, outputs, jnp.array([1, 0, 1, 1])) == 0.75


# --- data in any form


def curve(n=48, seed=0):
    """A column of numbers and a column of their squares."""
    x = np.linspace(-1, 1, n)[:, None]
    return x, x**2


def batched(x, y, size=8):
    return [(x[n : n + size], y[n : n + size]) for n in range(0, len(x), size)]


class LikeTorch:
    """What NumPy can read, and nothing else."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.array, dtype)


class Loader:
    """A loader of batches, shuffled by itself, that begins anew at each epoch."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def regress(pairs, rule=None, *, optimizer=SGD, epochs=3, key=0, **more):
    params = init(random.key(1), (1, 8, 1))
    return fit(
        backprop.rule() if rule is None else rule,
        params,
        pairs,
        optimizer=optimizer,
        epochs=epochs,
        key=random.key(key),
        **more,
    )


def test_arrays_train_as_the_data_set_that_holds_them():
    params, pairs = init(random.key(1), (3, 5, 3)), (CORNERS.x_train, CORNERS.y_train)
    whole = train(CORNERS, params=params)
    arrays = train(pairs, params=params, validation=(CORNERS.x_test, CORNERS.y_test))
    assert_close(whole[:4], arrays[:4], rtol=0, atol=0)


@pytest.mark.parametrize(
    "form",
    [
        lambda batches: batches,
        Loader,
        lambda batches: lambda: (batch for batch in batches),
        lambda batches: [(LikeTorch(x), LikeTorch(y)) for x, y in batches],
        lambda batches: [(x.tolist(), y.tolist()) for x, y in batches],
    ],
    ids=["list", "loader", "generator function", "like torch", "lists"],
)
def test_batches_in_any_form_are_a_python_loop(form):
    batches = batched(*curve(44))  # the last has 4 samples
    ours = regress(form(batches))
    params, losses = init(random.key(1), (1, 8, 1)), []
    for x, y in 3 * batches:
        loss = lambda p: ((forward(p, jnp.asarray(x)) - y) ** 2).sum(1).mean() / 2  # noqa: B023, E731
        value, update = jax.value_and_grad(loss)(params)
        params = jax.tree.map(lambda p, u: p - 0.1 * u, params, update)
        losses.append(float(value))
    assert_close(ours.params, params)
    np.testing.assert_allclose(ours.history.loss, np.reshape(losses, (3, -1)).mean(1), rtol=1e-6)
    assert np.isnan(ours.history.score).all()


def test_a_generator_is_good_for_one_epoch_and_refused_for_more():
    batches = batched(*curve())
    assert_close(regress(iter(batches), epochs=1)[:3], regress(batches, epochs=1)[:3])
    refused("which can be read once: must be a list", lambda: regress(iter(batches), epochs=2))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((8, 1)), np.ones(8), "must be (8, 1), the shape of the output"),
        (np.ones((8, 1)), np.ones((8, 2)), "must be (8, 1), the shape of the output"),
        (np.ones((8, 1)), np.arange(8), "holds the label 7: must be 0 to 0"),
        (np.ones((8, 1)), np.ones((7, 1)), "must have one row for each"),
        (np.ones((0, 1)), np.ones((0, 1)), "must have one row for each"),
        (np.ones((8, 1)), np.full((8, 1), np.nan), "holds 8 values that are not finite"),
        (np.array([["a"]] * 8), np.ones((8, 1)), "has dtype <U1: must be an array of numbers"),
        (np.ones((8, 1)), None, "has dtype object: must be an array of numbers"),
    ],
)
def test_targets_that_do_not_fit_the_output_are_refused_and_never_broadcast(x, y, message):
    refused(message, lambda: regress((x, y), batch_size=4))
    refused(message, lambda: regress([(x, y)]))
    refused(message, lambda: regress([(np.ones((8, 1)),) * 2], validation=(x, y)))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (3, "data is int: must be a Dataset, a tuple"),
        ([3], "data holds int: each batch must be a pair"),
        ([], "data holds no batch"),
    ],
)
def test_what_is_no_data_is_refused(pairs, message):
    refused(message, lambda: regress(pairs))


def test_batches_have_a_size_already_and_arrays_have_not():
    refused("batch_size = 4: must be left out", lambda: regress(batched(*curve()), batch_size=4))
    refused("batch_size = None: must be 1 to 48", lambda: regress(curve()))


def test_a_rule_that_is_not_called_and_an_optimiser_that_is_none_are_refused():
    refused("must be a Rule; call it", lambda: regress(curve(), backprop.rule))
    refused("optimizer = 0.1: must be a GradientTr", lambda: regress(curve(), optimizer=0.1))


def test_regression_is_scored_by_r_squared():
    x, y = curve()
    ours = regress((x, y), batch_size=48, epochs=2, validation=(x, y))
    left = ((y - forward(ours.params, jnp.asarray(x))) ** 2).sum()
    np.testing.assert_allclose(ours.history.score[-1], 1 - left / ((y - y.mean()) ** 2).sum())


# --- stopping, resuming


@pytest.mark.parametrize("form", ["data set", "batches"])
def test_resuming_is_not_having_stopped_to_the_last_bit(form):
    dataset = blobs()
    settings = {"optimizer": optax.adam(0.01), "rule": backprop.rule_with_feedback(0.0)}
    if form == "batches":
        settings |= {"batch_size": None, "validation": (dataset.x_test, dataset.y_test)}
        dataset = batched(dataset.x_train, dataset.y_train)
    whole = train(dataset, epochs=5, **settings)
    stopped = train(dataset, epochs=2, **settings)
    saved = jax.tree.map(np.asarray, stopped)  # as from a file
    assert len(saved.history.loss) == 2
    assert_close(train(dataset, epochs=3, resume=saved, **settings), whole, rtol=0, atol=0)


def test_patience_stops_and_the_best_parameters_are_kept():
    scores = iter([0.1, 0.5, 0.4, 0.5, 0.3, 0.9])
    kept = []

    def metric(predict, params, x, y):
        return jax.pure_callback(lambda: np.float64(next(scores)), jax.ShapeDtypeStruct((), float))

    x, y = curve()
    settings = {"batch_size": 48, "validation": (x, y), "metric": metric, "epochs": 6}
    ours = regress((x, y), patience=3, callback=lambda so_far: kept.append(so_far), **settings)
    np.testing.assert_array_equal(ours.history.score, [0.1, 0.5, 0.4, 0.5, 0.3])
    assert_close(ours.best, kept[1].params, rtol=0, atol=0)
    assert_close(ours.params, kept[4].params, rtol=0, atol=0)
    refused("patience = 2: must be left out", lambda: regress((x, y), batch_size=48, patience=2))


def test_a_callback_sees_each_epoch_and_may_stop():
    seen = []

    def callback(so_far):
        seen.append(len(so_far.history.loss))
        return len(seen) == 2

    assert len(regress(curve(), batch_size=48, epochs=5, callback=callback).history.loss) == 2
    assert seen == [1, 2]


@pytest.mark.parametrize("rate", [1e300, 5.0])
def test_divergence_stops_at_its_step_and_keeps_what_was_good(rate):
    """At 5 the loss of the linear network grows by a factor each step; at 1e300 it overflows."""
    x, y = curve()
    start = init(random.key(1), (1, 1))
    settings = {"optimizer": optax.sgd(rate), "batch_size": 12, "key": random.key(0)}
    with pytest.warns(RuntimeWarning, match=r"at step \d of epoch \d: training stopped"):
        found = fit(backprop.rule(), start, (x, y), epochs=40, **settings)
    epoch, _ = found.diverged
    assert len(found.history.loss) == epoch < 40
    assert np.isfinite(found.history.loss).all()
    if epoch:
        good = fit(backprop.rule(), start, (x, y), epochs=epoch, **settings)
        assert_close(found[:3], good[:3], rtol=0, atol=0)
    else:
        assert_close(found.params, start, rtol=0, atol=0)


# --- optimisers


def test_an_optimiser_that_asks_for_the_loss_is_given_it():
    plateau = optax.chain(optax.sgd(1e-9), optax.contrib.reduce_on_plateau(patience=1, rtol=0.5))
    ours = regress(curve(), optimizer=plateau, batch_size=48, epochs=6)
    assert ours.memory[1].scale < 1  # no batch was better by half
    assert regress(curve(), batch_size=48, epochs=6, optimizer=SGD).diverged is None


@pytest.mark.slow
def test_an_optimiser_may_search_along_the_loss():
    x, y = curve()
    found = regress((x, y), optimizer=optax.lbfgs(), batch_size=48, epochs=30, validation=(x, y))
    assert found.history.score[-1] > 0.99


def kolen_pollack(decay):
    """Feedback that changes as the forward weights do, and forgets what they differ by."""

    def follow(feedback, params, change):
        return jax.tree.map(lambda b, w, c: b + c + decay * (w - b), feedback, params, change)

    return backprop.rule_with_feedback(0.0)._replace(name="Kolen-Pollack", follow=follow)


@pytest.mark.parametrize("optimizer", [SGD, optax.adam(0.05)], ids=["sgd", "adam"])
def test_feedback_that_follows_comes_nearer_to_the_weights_at_each_step(optimizer):
    """By the factor 1 - decay whatever the optimiser does (Kolen & Pollack 1994)."""
    rule, params = kolen_pollack(0.1), init(random.key(1), (4, 5, 3))
    start = rule.init(random.split(random.key(0))[0], params)
    found = train(rule=rule, params=params, optimizer=optimizer, epochs=3)
    before, after = (
        jax.tree.map(jnp.subtract, weights, feedback)
        for weights, feedback in ((params, start), (found.params, found.state))
    )
    steps = 3 * (30 // 7)
    assert_close(after, jax.tree.map(lambda d: 0.9**steps * d, before), rtol=1e-6)


def test_a_rule_that_is_right_is_verified_and_its_angle_told():
    x, y = random.normal(random.key(2), (5, 4)), jnp.ones((5, 3))
    params = init(random.key(1), (4, 5, 3))
    for rule, low, high in (
        (backprop.rule(), 0, 1e-6),
        (backprop.rule_with_feedback(0.0), 1, 179),
        (backprop.rule_with_feedback(-1.0), 20, 179),
    ):
        assert low <= verify(rule, params, x, y, random.key(0)) <= high


WRONG = {
    "gradient returned list: must be three": lambda loss, update, state: [loss, update],
    "loss has shape (3,): must be ()": lambda loss, update, state: (jnp.ones(3), update, state),
    "update has shape": lambda loss, update, state: (loss, update[:1], state),
    "state has shape": lambda loss, update, state: (loss, update, jnp.ones(3)),
    "update holds numbers that are not finite": lambda loss, update, state: (
        loss,
        jax.tree.map(lambda u: u * jnp.nan, update),
        state,
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_rule_that_returns_something_else_is_told_what(message):
    right = backprop.rule()
    rule = right._replace(gradient=lambda *args: WRONG[message](*right.gradient(*args)))
    x, params = random.normal(random.key(2), (5, 4)), init(random.key(1), (4, 5, 3))
    refused(message, lambda: verify(rule, params, x, jnp.ones((5, 3)), random.key(0)))


# --- compiling


def compilations(call):
    """How many programs were compiled in a call."""
    caches = (run, _grid)
    before = [cache._cache_size() for cache in caches]
    call()
    return sum(cache._cache_size() - size for cache, size in zip(caches, before, strict=True))


def fresh_rule(scale=1.0):
    """A rule of its own at each call, that holds an array and a nonlinearity with a derivative."""
    weights = jnp.full((3,), scale)

    def gradient(params, state, x, y, key):
        loss = lambda p: (weights * (jax.nn.relu(forward(p, x)) - y) ** 2).mean()  # noqa: E731
        return *jax.value_and_grad(loss)(params), state

    return Rule("fresh", stateless, gradient, lambda params, x: forward(params, x))


def test_a_fresh_optimiser_and_a_fresh_rule_compile_nothing_anew():
    settings = {"dataset": blobs(), "epochs": 1}
    again = lambda: train(  # noqa: E731
        rule=fresh_rule(), optimizer=optax.adamw(optax.cosine_decay_schedule(0.01, 9)), **settings
    )
    assert compilations(again) > 0
    assert compilations(again) == 0


@pytest.mark.slow
def test_what_differs_in_a_constant_is_compiled_apart():
    one, other = (train(rule=fresh_rule(scale)).params for scale in (1.0, 2.0))
    assert not np.allclose(one[0].W, other[0].W)
    slow, fast = (train(optimizer=optax.sgd(rate)).params for rate in (0.1, 0.2))
    assert not np.allclose(slow[0].W, fast[0].W)


def test_callbacks_of_two_functions_are_not_taken_for_one():
    seen = []

    def spied(name):
        def gradient(params, state, x, y, key):
            jax.debug.callback(lambda: seen.append(name))
            return backprop.rule().gradient(params, state, x, y, key)

        return backprop.rule()._replace(gradient=gradient)

    for name in "ab":
        train(rule=spied(name), epochs=1, batch_size=30)
        jax.effects_barrier()
    assert seen == ["a", "b"]


@pytest.mark.slow
def test_comparing_again_compiles_nothing_anew():
    again = lambda: race([fresh_rule()], epochs=1, optimizer=lambda rate: optax.sgd(rate))  # noqa: E731
    assert compilations(again) > 0
    assert compilations(again) == 0


@pytest.mark.slow
def test_two_hundred_fits_leave_no_memory_behind():
    def once():
        train(rule=fresh_rule(), optimizer=optax.adam(0.01), epochs=1)

    for _ in range(20):
        once()
    process = psutil.Process()
    before = process.memory_info().rss
    for _ in range(200):
        once()
    gc.collect()
    assert process.memory_info().rss - before < 20e6


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
    with pytest.raises(ValueError, match=f"every = {every}: must (divide 6|be an int)"):
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


@pytest.mark.slow
def test_seeds_may_be_chosen_and_then_do_not_depend_on_the_others():
    both = race([backprop.rule()], seeds=[3, 8])
    np.testing.assert_array_equal(
        race([backprop.rule()], seeds=(8,)).test[:, :, 0], both.test[:, :, 1]
    )
    for bad in ([], [0.5], "12", [True], True):
        refused("must be", lambda bad=bad: race([backprop.rule()], seeds=bad))


def test_a_model_may_be_a_function_of_a_key_and_the_data_arrays():
    pairs = (CORNERS.x_train, CORNERS.y_train)
    plan = {"rates": (1e-4, 0.03), "seeds": 2, "epochs": 3, "batch_size": 8, "key": random.key(0)}
    found = compare(
        [backprop.rule()],
        lambda key: init(key, (3, 6, 3)),
        pairs,
        test=(CORNERS.x_test, CORNERS.y_test),
        **plan,
    )
    np.testing.assert_array_equal(found.test, reference().test[:1])
    message = "test = None: must be arrays (x, y)"
    refused(message, lambda: compare([backprop.rule()], mlp((3, 6, 3)), pairs, **plan))


@pytest.mark.slow
def test_regression_is_compared_by_r_squared_and_its_parameters_are_kept():
    x, _ = curve(60)
    found = compare(
        [backprop.rule(activation="identity")],
        mlp((1, 1)),
        (x, 3 * x + 1),
        test=(x, 3 * x + 1),
        optimizer=optax.sgd,
        rates=(0.01, 0.5),
        seeds=3,
        epochs=30,
        batch_size=8,
        key=random.key(0),
        keep_params=True,
    )
    assert (found.reached() > 0.999).all()
    np.testing.assert_allclose(found.params[0][0].W[1], np.full((3, 1, 1), 3), atol=0.05)
    assert found.params[0][0].W.shape == (2, 3, 1, 1)
    assert found.loss.shape == (1, 2, 3, 30)
    assert (found.loss[0, 1, :, -1] < found.loss[0, 1, :, 0] / 100).all()


def compared(validation, test=None, names=("rule",), rates=(0.1, 0.2, 0.3), work=None, patience=1):
    """A comparison of made-up accuracies (rules, rates, seeds, epochs), 10 updates an epoch."""
    validation = np.array(validation, float)
    test = validation if test is None else np.array(test, float)
    work = np.ones(len(names)) if work is None else np.array(work, float)
    return Comparison(names, rates, validation, test, 1 - validation, work, 10, patience)


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


def test_comparing_prints_nothing():
    with warnings.catch_warnings(action="error"):
        found = race([backprop.rule()], rates=(0.03,), epochs=1)
    assert "backprop: the best rate, 0.03, lies on the edge of the grid" in found.warnings()


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
        ([3.0, 4.0, 5.0], 1, True),  # the interval is 4 +- 4.30 / sqrt(3)
        ([3.0, 4.0, 5.0], 4, False),
        ([2.5, 4.0, 5.5], 1, True),  # 4 +- 3.73
        ([2.3, 4.0, 5.7], 1, False),  # 4 +- 4.22, though two standard errors are 1.96
        ([2.0, float("nan"), 2.0], 1, False),
    ],
)
def test_a_mean_exceeds_a_threshold_and_its_interval_zero(values, least, expected):
    assert exceeds(np.array(values), least) is expected
    if np.isfinite(values).all() and np.mean(values) > least:
        assert (scipy.stats.ttest_1samp(values, 0).confidence_interval().low > 0) == expected


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
    assert one.history.score[-1] > 0.9


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


def test_updates_of_other_shapes_have_no_angle():
    refused("must be those of update", lambda: angle(jnp.ones(3), jnp.ones(1)))
    refused("must be those of update", lambda: angle([jnp.ones(3)], [jnp.ones(3), jnp.ones(1)]))


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
    refused("rates", lambda: race([backprop.rule()], rates=rates))
    refused("positive number", lambda: race([backprop.rule()], rates=rates))


@pytest.mark.parametrize("seeds", [0, -2])
def test_seeds_must_be_at_least_1(seeds):
    message = f"seeds = {seeds}: must be an integer of at least 1"
    refused(message, lambda: race([backprop.rule()], seeds=seeds))


def test_rules_must_be_at_least_one():
    refused("rules = (): must be at least one rule", lambda: race([]))


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
    assert trained.history.score[-1] > 0.8  # chance is 0.1
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(trained.params))
