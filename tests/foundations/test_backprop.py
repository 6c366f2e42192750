import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import (
    SMOOTH,
    as_a_reader_runs_it,
    assert_close,
    case,
    cases,
    dot,
    few,
    random_like,
    slope_along,
    use_float64,
)
from hypothesis import given
from jax import random

from pcbook import backprop
from pcbook.core.network import ACTIVATIONS, LOSSES, activities, forward, init
from pcbook.core.rules import angle


@pytest.fixture(autouse=True, scope="module")
def float64():
    with use_float64():
        yield


def gradient(case):
    rule = backprop.rule(case.activation, case.loss)
    return rule.gradient(case.params, (), case.x, case.y, jax.random.key(0))


def mean_loss(case):
    return lambda params: LOSSES[case.loss](forward(params, case.x, case.activation), case.y).mean()


@pytest.mark.slow
@few
@given(cases())
def test_gradient_is_what_value_and_grad_returns(case):
    value, update, state = gradient(case)
    assert_close((value, update), jax.value_and_grad(mean_loss(case))(case.params))
    assert state == ()


@few
@given(cases(activations=SMOOTH))
def test_gradient_is_the_finite_difference_of_the_loss(case):
    direction = random_like(case.params)
    difference = slope_along(mean_loss(case), case.params, direction)
    # Central differences with h = 1e-6 are good to about 1e-16 / h and h^2.
    np.testing.assert_allclose(dot(gradient(case)[1], direction), difference, 1e-6, 1e-7)


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_is_that_of_optax(loss):
    example = case((3, 4, 5), batch=6, loss=loss)
    labels = jax.nn.one_hot(jnp.arange(6) % 5, 5)
    mu = forward(example.params, example.x)
    plain = {
        "squared error": optax.l2_loss(mu, labels).sum(-1).mean(),
        "cross entropy": optax.softmax_cross_entropy(mu, labels).mean(),
    }[loss]
    np.testing.assert_allclose(gradient(example._replace(y=labels))[0], plain, rtol=1e-12)


@few
@given(cases())
def test_delta_is_the_derivative_of_the_loss_by_the_activity(case):
    """Move an activity, and let the layers above follow: so the loss changes."""
    xs = activities(case.params, case.x, case.activation)
    ds = backprop.deltas(case.params, xs, LOSSES[case.loss].slope(xs[-1], case.y), case.activation)
    phi = ACTIVATIONS[case.activation]
    assert len(ds) == len(case.params)
    for l, d in enumerate(ds, start=1):

        def loss_above(x, l=l):
            for layer in case.params[l:]:
                x = phi(x) @ layer.W.T + layer.b
            return LOSSES[case.loss](x, case.y).sum()

        assert_close(d, jax.grad(loss_above)(xs[l]))


@few
@given(cases())
def test_gradient_of_a_batch_is_the_mean_over_its_samples(case):
    samples = [
        gradient(case._replace(x=case.x[i : i + 1], y=case.y[i : i + 1]))[:2]
        for i in range(len(case.x))
    ]
    assert_close(gradient(case)[:2], jax.tree.map(lambda *g: sum(g) / len(g), *samples))


@few
@given(cases(least=3))
def test_update_of_a_layer_is_the_product_of_its_own_two_ends(case):
    xs, ds = random_like((case.xs, [p.b[None] + case.x[:, :1] for p in case.params]))
    xs = [*xs, ds[-1]]
    before = backprop.weight_gradients(xs, ds, case.activation)
    for l in range(len(case.params)):
        elsewhere_x = [x if k == l else x + 1 for k, x in enumerate(xs)]
        elsewhere_d = [d if k == l else d + 1 for k, d in enumerate(ds)]
        after = backprop.weight_gradients(elsewhere_x, elsewhere_d, case.activation)
        assert_close(after[l], before[l], rtol=0, atol=0)
        assert all(not np.allclose(after[k].b, before[k].b) for k in range(len(ds)) if k != l)


def test_descending_the_update_lowers_the_loss():
    example = case((3, 5, 2), batch=4)
    value, update, _ = gradient(example)
    nearby = jax.tree.map(lambda p, u: p - 1e-3 * u, example.params, update)
    assert mean_loss(example)(nearby) < value


def test_at_the_target_nothing_changes():
    example = case((3, 4, 2))
    at_rest = example._replace(y=forward(example.params, example.x))
    value, update, _ = gradient(at_rest)
    assert value == 0
    assert all(not leaf.any() for leaf in jax.tree.leaves(update))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_update_has_the_shapes_and_types_of_the_parameters_in_float32(activation, loss):
    with use_float64(False):
        value, update, _ = gradient(case((3, 4, 2), activation=activation, loss=loss))
        assert value.dtype == jnp.float32
        assert [(W.shape, b.shape) for W, b in update] == [((4, 3), (4,)), ((2, 4), (2,))]
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(update))


def test_prediction_is_the_forward_pass():
    example = case((3, 4, 2), activation="sigmoid")
    assert_close(
        backprop.rule("sigmoid").predict(example.params, example.x),
        forward(example.params, example.x, "sigmoid"),
    )


def test_names_are_checked_when_the_rule_is_made():
    with pytest.raises(ValueError, match="activation = 'swish': must be one of 'identity'"):
        backprop.rule("swish")
    with pytest.raises(ValueError, match="loss = 'l1': must be one of 'squared error'"):
        backprop.rule(loss="l1")


def test_input_and_target_that_do_not_fit_are_named():
    example = case((3, 4, 2), batch=5)
    with as_a_reader_runs_it():
        with pytest.raises(
            ValueError,
            match=r"x has shape \(5, 7\): must be \(batch, 3\), 3 being the width of the input",
        ):
            gradient(example._replace(x=jnp.ones((5, 7))))
        with pytest.raises(
            ValueError,
            match=r"y has shape \(5, 1\): must be \(5, 2\), 2 being the width of the output",
        ):
            gradient(example._replace(y=jnp.ones((5, 1))))
        with pytest.raises(ValueError, match=r"y has shape \(5,\): must be \(5, 2\)"):
            gradient(example._replace(y=jnp.ones(5)))
        with pytest.raises(ValueError, match=r"y has shape \(4, 2\): must be \(5, 2\)"):
            gradient(example._replace(y=jnp.ones((4, 2))))


# --- What a brain cannot do, and what comes of it


@pytest.fixture
def example():
    return case((3, 6, 5, 2), batch=4)


def update_with(rule, example, seed=0):
    state = rule.init(random.key(seed), example.params)
    loss, update, kept = rule.gradient(example.params, state, example.x, example.y, None)
    assert_close(kept, state, rtol=0, atol=0)  # feedback, and the share, never change
    return loss, update


def test_the_baseline_changes_the_last_layer_as_backprop_does_and_no_other(example):
    loss, update = update_with(backprop.rule_for_last_layer(), example)
    assert_close((loss, update[-1]), (gradient(example)[0], gradient(example)[1][-1]))
    assert not any(leaf.any() for leaf in jax.tree.leaves(update[:-1]))


def test_feedback_through_the_transpose_is_backprop(example):
    assert_close(update_with(backprop.rule_with_feedback(1.0), example), gradient(example)[:2])


def test_random_feedback_from_the_key_of_the_weights_is_not_the_weights():
    key = random.key(0)
    params = init(key, (64, 32, 10))
    feedback = backprop.rule_with_feedback(0.0).init(key, params)
    found = [float(angle(w.W, b.W)) for w, b in zip(params, feedback, strict=True)]
    assert all(80 < degrees < 100 for degrees in found)


@pytest.mark.parametrize("agreement", [-1.0, 0.0, 0.4])
def test_the_last_layer_needs_no_feedback(agreement, example):
    loss, update = update_with(backprop.rule_with_feedback(agreement), example)
    assert_close((loss, update[-1]), (gradient(example)[0], gradient(example)[1][-1]))
    assert not np.allclose(update[-2].W, gradient(example)[1][-2].W)


def test_feedback_of_the_wrong_sign_turns_the_blame_around_at_every_layer(example):
    _, update = update_with(backprop.rule_with_feedback(-1.0), example)
    first, second, _ = gradient(example)[1]
    assert_close(update[:2], [first, jax.tree.map(jnp.negative, second)])


@pytest.mark.parametrize("agreement", [-0.8, 0.0, 0.5])
def test_feedback_agrees_with_the_weights_as_much_as_is_asked(agreement):
    example = case((200, 100, 150), batch=1)
    feedback = backprop.rule_with_feedback(agreement).init(random.key(0), example.params)
    for ours, theirs in zip(feedback, example.params, strict=True):
        correlation = np.corrcoef(ours.W.ravel(), theirs.W.ravel())[0, 1]
        # 15,000 pairs or more: a correlation is known to 1 / sqrt(15,000) = 0.008.
        assert abs(correlation - agreement) < 0.04
        np.testing.assert_allclose(ours.W.std(), theirs.W.std(), rtol=0.04)


@pytest.mark.parametrize("agreement", [1.5, -1.01, float("nan")])
def test_agreement_must_be_a_correlation(agreement):
    with pytest.raises(ValueError, match=f"agreement = {agreement}: must be -1 to 1"):
        backprop.rule_with_feedback(agreement)


def test_without_pause_but_with_nothing_overwritten_it_is_backprop(example):
    assert_close(update_with(backprop.rule_without_pause(0.0), example), gradient(example)[:2])


def test_when_all_is_overwritten_each_blame_meets_the_activity_of_another_image(example):
    loss, update = update_with(backprop.rule_without_pause(1.0), example)
    xs = activities(example.params, example.x)
    ds = backprop.deltas(example.params, xs, xs[-1] - example.y)
    r, expected = example.x, []
    for d, x in zip(ds, xs[1:], strict=True):
        pairs = [np.outer(d[i], r[i - 1]) for i in range(4)]
        expected.append((np.mean(pairs, axis=0), d.mean(0)))
        r = np.tanh(x)
    for ours, theirs in zip(update, expected, strict=True):
        np.testing.assert_allclose(ours.W, theirs[0], rtol=1e-9)
        np.testing.assert_allclose(ours.b, theirs[1], rtol=1e-9)
    assert_close(loss, gradient(example)[0])


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_the_share_overwritten_must_be_a_share(share):
    with pytest.raises(ValueError, match=f"overwritten = {share}: must be 0 to 1"):
        backprop.rule_without_pause(share)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_a_layer_works_twice_while_the_others_wait(depth):
    work = backprop.timeline(depth)
    assert work.shape == (depth, 2 * depth)
    assert ((work != backprop.IDLE).sum(0) == 1).all(), "one layer works at a time"
    for l, ticks in enumerate(work):
        assert list(np.flatnonzero(ticks == backprop.FORWARD)) == [l]
        assert list(np.flatnonzero(ticks == backprop.BACKWARD)) == [2 * depth - 1 - l]


def test_reach_of_an_update_that_reads_only_its_own_weights_is_itself(example):
    """Its size is that of the change, relative to what it was."""
    own = backprop.reach(
        lambda params: [layer._replace(W=2 * layer.W) for layer in params],
        example.params,
        random.key(0),
    )
    assert ((own > 0) == np.eye(3, dtype=bool)).all()
    W = example.params[0].W
    redrawn = random.permutation(random.fold_in(random.key(0), 0), W.ravel()).reshape(W.shape)
    np.testing.assert_allclose(own[0, 0], np.linalg.norm(redrawn - W) / np.linalg.norm(W))


def test_backprop_reaches_every_layer_from_every_layer_above(example):
    reach = backprop.reach(
        lambda params: gradient(example._replace(params=params))[1], example.params, random.key(0)
    )
    assert (reach > 0.01).all()
