import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import SMOOTH, as_a_reader_runs_it, assert_close, case, cases, few, use_float64
from hypothesis import given
from hypothesis import strategies as st
from jax import random

from pcbook.core.network import (
    ACTIVATIONS,
    LOSSES,
    activities,
    firing,
    forward,
    hebbian,
    init,
)


@pytest.fixture(autouse=True, scope="module")
def float64():
    with use_float64():
        yield


# Written out here, so that a wrong formula in the package has nothing to agree with.
PLAIN = {
    "identity": lambda x: x,
    "tanh": lambda x: (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "leaky relu": lambda x: np.where(x > 0, x, 0.01 * x),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_its_textbook_formula(name):
    x = np.linspace(-3, 3, 41)
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(x)), PLAIN[name](x), rtol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slope_is_the_derivative_also_at_zero_and_far_out(name):
    phi = ACTIVATIONS[name]
    x = jnp.array([-100.0, -2.0, -0.3, 0.0, 0.3, 2.0, 100.0])
    np.testing.assert_allclose(
        phi.slope(x), jax.vmap(jax.grad(phi.value))(x), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("name", SMOOTH)
def test_slope_is_the_central_difference(name):
    phi, x, h = ACTIVATIONS[name], jnp.linspace(-2.0, 2.0, 9), 1e-5
    np.testing.assert_allclose(phi.slope(x), (phi(x + h) - phi(x - h)) / (2 * h), rtol=1e-8)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slope_keeps_the_type_of_the_activity(name):
    x = jnp.ones((2, 3), jnp.float32)
    assert ACTIVATIONS[name].slope(x).dtype == ACTIVATIONS[name](x).dtype == jnp.float32
    assert ACTIVATIONS[name].slope(x).shape == x.shape


def test_functions_carry_the_names_they_are_found_by():
    for table in (ACTIVATIONS, LOSSES):
        assert [function.name for function in table.values()] == list(table)


@few
@given(cases())
def test_squared_error_is_half_the_squared_distance(case):
    mu, y = np.asarray(case.y[::-1] * 2), np.asarray(case.y)
    expected = [
        sum((a - b) ** 2 for a, b in zip(m, t, strict=True)) / 2 for m, t in zip(mu, y, strict=True)
    ]
    np.testing.assert_allclose(
        LOSSES["squared error"](jnp.asarray(mu), case.y), expected, rtol=1e-12
    )


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_cross_entropy_is_optax_s_also_where_exp_overflows(scale):
    mu = scale * random.normal(random.key(0), (7, 4))
    y = jax.nn.one_hot(jnp.arange(7) % 4, 4)
    np.testing.assert_allclose(
        LOSSES["cross entropy"](mu, y), optax.softmax_cross_entropy(mu, y), rtol=1e-12
    )


@few
@given(cases())
def test_slope_of_a_loss_is_its_gradient_for_any_target(case):
    loss, mu = LOSSES[case.loss], 2 * case.y[:, ::-1] + 0.1
    assert_close(loss.slope(mu, case.y), jax.grad(lambda mu: loss(mu, case.y).sum())(mu))


@few
@given(cases())
def test_forward_pass_is_the_recursion_written_out_for_one_sample(case):
    xs = activities(case.params, case.x, case.activation)
    for sample in range(len(case.x)):
        x = np.asarray(case.x[sample])
        np.testing.assert_allclose(xs[0][sample], x)
        for l, (W, b) in enumerate(case.params, start=1):
            r = x if l == 1 else PLAIN[case.activation](x)
            x = np.array([sum(W[i, j] * r[j] for j in range(len(r))) + b[i] for i in range(len(b))])
            np.testing.assert_allclose(xs[l][sample], x, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(forward(case.params, case.x, case.activation), xs[-1])


def test_activities_are_one_for_each_layer_with_the_input_first():
    example = case((4, 3, 2), batch=5)
    assert [x.shape for x in activities(example.params, example.x)] == [(5, 4), (5, 3), (5, 2)]


@few
@given(cases())
def test_firing_is_phi_of_every_activity_but_the_input(case):
    first, *rest = firing(case.xs, case.activation)
    np.testing.assert_array_equal(first, case.xs[0])
    for r, x in zip(rest, case.xs[1:], strict=True):
        np.testing.assert_allclose(r, PLAIN[case.activation](np.asarray(x)), rtol=1e-12)


@few
@given(*[st.sampled_from((1, 3))] * 3, st.integers(0, 999))
def test_hebbian_is_the_mean_outer_product(n_out, n_in, batch, seed):
    rng = np.random.default_rng(seed)
    delta, r = rng.normal(size=(batch, n_out)), rng.normal(size=(batch, n_in))
    W, b = hebbian(jnp.asarray(delta), jnp.asarray(r))
    np.testing.assert_allclose(
        W, np.mean([np.outer(d, s) for d, s in zip(delta, r, strict=True)], 0), 1e-9, 1e-12
    )
    np.testing.assert_allclose(b, np.mean(delta, 0), 1e-9, 1e-12)


def test_init_draws_each_layer_with_variance_one_over_the_units_below():
    params = init(random.key(0), (300, 200, 100))
    for (W, b), n_in, n_out in zip(params, (300, 200), (200, 100), strict=True):
        assert W.shape == (n_out, n_in)
        assert not b.any()
        # The sample variance of N normal draws is off by sqrt(2 / N): five of these.
        assert abs(W.var() * n_in - 1) < 5 * np.sqrt(2 / W.size)
        assert abs(W.mean()) * np.sqrt(n_in) < 5 / np.sqrt(W.size)


def test_init_keeps_the_variance_of_an_activity_from_layer_to_layer():
    x = random.normal(random.key(1), (200, 400))
    for activity in activities(init(random.key(0), (400, 400, 400, 400)), x, "identity"):
        # 200 samples share 400 x 400 weights: a tenth is more than five standard errors.
        assert abs(activity.var() - 1) < 0.1


def test_same_key_same_network_and_no_two_layers_alike():
    same, again, other = (init(random.key(k), (3, 3, 3)) for k in (0, 0, 1))
    assert_close(same, again, rtol=0, atol=0)
    assert not np.array_equal(same[0].W, same[1].W)
    assert not np.array_equal(same[0].W, other[0].W)


@pytest.mark.parametrize("sizes", [(), (3,), (3, 0), (3, -1, 2)])
def test_sizes_must_be_two_layers_of_one_unit(sizes):
    with pytest.raises(ValueError, match=r"sizes.*must be (two|an integer of at least 1)"):
        init(random.key(0), sizes)


def test_an_unknown_name_is_answered_with_the_names_there_are():
    example = case((2, 3, 1))
    with pytest.raises(
        ValueError, match=r"activation = 'Tanh': must be one of 'identity', 'tanh', .*'leaky relu'"
    ):
        activities(example.params, example.x, "Tanh")
    with pytest.raises(ValueError, match=r"activation = 'gelu'"):
        firing(example.xs, "gelu")


@pytest.mark.parametrize(
    ("shape", "answer"),
    [
        ((3, 4), "x has shape (3, 4): must be (batch, 5), 5 being the width of the input"),
        ((5,), "x = array (5,) of float32: must be an array of numbers, (batch, n_0)"),
        ((2, 3, 5), "x = array (2, 3, 5) of float32: must be an array of numbers, (batch, n_0)"),
    ],
)
def test_an_input_that_does_not_fit_is_answered_with_the_shape_that_would(shape, answer):
    params = init(random.key(0), (5, 2))
    with as_a_reader_runs_it(), pytest.raises(ValueError) as error:
        forward(params, jnp.ones(shape, jnp.float32))
    assert answer in str(error.value)


def test_layers_that_do_not_fit_one_another_are_refused_and_named_by_their_shapes():
    params = init(random.key(0), (5, 4, 2))
    with pytest.raises(ValueError, match=r"params = \[Layer\(W=\(4, 5\).*each reads as many units"):
        forward([params[0], params[0]], jnp.ones((3, 5)))
    with pytest.raises(ValueError, match=r"params = \[\]"):
        forward([], jnp.ones((3, 5)))
