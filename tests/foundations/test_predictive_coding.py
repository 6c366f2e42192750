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
    fewer,
    random_like,
    slope_along,
    use_float64,
)
from hypothesis import given
from hypothesis import strategies as st
from jax import random
from jax.flatten_util import ravel_pytree

from pcbook import backprop, predictive_coding, rules
from pcbook.core.network import ACTIVATIONS, LOSSES, activities, forward
from pcbook.core.rules import accuracy, angle, fit
from pcbook.foundations.predictive_coding import (
    energy,
    errors,
    infer,
    infer_input,
    infer_size,
    linear_energy,
    velocities,
    weight_gradients,
)
from pcbook.store import claims
from pcbook.store.data import Dataset


@pytest.fixture(autouse=True, scope="module")
def float64():
    with use_float64():
        yield


def gradient(case, **inference):
    rule = predictive_coding.rule(**{"steps": 3, "rate": 0.2} | inference, **case.model)
    return rule.gradient(case.params, (), case.x, case.y, random.key(0))


def total_energy(case):
    return lambda xs: energy(case.params, xs, case.y, **case.model).sum()


def euler(case, steps, rate):
    """Inference written out: every hidden activity down `jax.grad` of the energy, step by step."""
    xs = activities(case.params, case.x, case.activation)[:-1]
    moments = [xs]
    for _ in range(steps):
        slopes = jax.grad(total_energy(case))(xs)
        xs = [xs[0]] + [x - rate * slope for x, slope in zip(xs[1:], slopes[1:], strict=True)]
        moments.append(xs)
    return moments


# --- Energy, errors, velocities, weight gradients, at any state of the network


@few
@given(cases())
def test_energy_is_half_of_every_squared_error_and_the_weighted_loss(case):
    es = errors(case.params, case.xs, case.y, **case.model)
    mu = predict_top(case)
    for sample in range(len(case.x)):
        hidden = sum(float(e) ** 2 for layer in es[:-1] for e in layer[sample]) / 2
        loss = LOSSES[case.loss](mu, case.y)[sample]
        ours = energy(case.params, case.xs, case.y, **case.model)[sample]
        np.testing.assert_allclose(ours, hidden + case.precision * loss, rtol=1e-9)


def predict_top(case):
    (W, b), x = case.params[-1], case.xs[-1]
    return (x if len(case.xs) == 1 else ACTIVATIONS[case.activation](x)) @ W.T + b


@few
@given(cases())
def test_velocity_is_minus_the_gradient_of_the_energy(case):
    vs = velocities(
        case.params, case.xs, errors(case.params, case.xs, case.y, **case.model), case.activation
    )
    assert_close(vs, jax.tree.map(jnp.negative, jax.grad(total_energy(case))(case.xs)))


@few
@given(cases(activations=SMOOTH))
def test_velocity_is_minus_the_finite_difference_of_the_energy(case):
    direction = random_like(case.xs)
    vs = velocities(
        case.params, case.xs, errors(case.params, case.xs, case.y, **case.model), case.activation
    )
    # Central differences with h = 1e-6 are good to about 1e-16 / h and h^2.
    difference = slope_along(total_energy(case), case.xs, direction)
    np.testing.assert_allclose(dot(vs, direction), -difference, 1e-6, 1e-7)


@few
@given(cases())
def test_weight_gradient_is_the_gradient_of_the_mean_energy(case):
    ours = weight_gradients(
        case.xs, errors(case.params, case.xs, case.y, **case.model), case.activation
    )
    assert_close(
        ours, jax.grad(lambda p: energy(p, case.xs, case.y, **case.model).mean())(case.params)
    )


@few
@given(cases())
def test_error_of_the_output_is_minus_the_gradient_of_the_weighted_loss(case):
    loss = lambda mu: case.precision * LOSSES[case.loss](mu, case.y).sum()  # noqa: E731
    ours = errors(case.params, case.xs, case.y, **case.model)[-1]
    assert_close(ours, -jax.grad(loss)(predict_top(case)))


@few
@given(cases())
def test_at_the_forward_pass_hidden_errors_vanish_and_the_energy_is_the_loss(case):
    xs = activities(case.params, case.x, case.activation)
    *hidden, _ = errors(case.params, xs[:-1], case.y, **case.model)
    assert_close(hidden, [jnp.zeros_like(x) for x in xs[1:-1]])
    loss = case.precision * LOSSES[case.loss](xs[-1], case.y)
    assert_close(energy(case.params, xs[:-1], case.y, **case.model), loss)


@few
@given(cases())
def test_with_no_target_the_output_has_no_error_and_adds_no_energy(case):
    es = errors(case.params, case.xs, None, **case.model)
    assert_close(es[:-1], errors(case.params, case.xs, case.y, **case.model)[:-1])
    assert_close(es[-1], jnp.zeros_like(case.y))
    hidden = sum(((e**2).sum(-1) / 2 for e in es[:-1]), jnp.zeros(len(case.x)))
    assert_close(energy(case.params, case.xs, None, **case.model), hidden)


@few
@given(cases(least=3))
def test_update_of_a_layer_uses_only_its_own_two_ends(case):
    es = random_like([layer.b + case.x[:, :1] for layer in case.params])
    before = weight_gradients(case.xs, es, case.activation)
    for l in range(len(es)):
        elsewhere_x = [x if k == l else x + 1 for k, x in enumerate(case.xs)]
        elsewhere_e = [e if k == l else e + 1 for k, e in enumerate(es)]
        after = weight_gradients(elsewhere_x, elsewhere_e, case.activation)
        assert_close(after[l], before[l], rtol=0, atol=0)
        assert all(not np.allclose(after[k].b, before[k].b) for k in range(len(es)) if k != l)


@few
@given(cases(least=4))
def test_velocity_of_a_layer_uses_only_its_error_and_the_one_above(case):
    es = random_like([layer.b + case.x[:, :1] for layer in case.params])
    before = velocities(case.params, case.xs, es, case.activation)
    for l in range(1, len(case.xs)):
        elsewhere = [e if k in (l, l + 1) else e + 1 for k, e in enumerate(es, start=1)]
        after = velocities(case.params, case.xs, elsewhere, case.activation)
        assert_close(after[l], before[l], rtol=0, atol=0)


# --- Inference


@fewer
@given(cases(least=3), st.integers(1, 4), st.sampled_from((0.05, 0.3)))
def test_inference_is_so_many_euler_steps_down_the_energy(case, steps, rate):
    ours = infer(case.params, case.x, case.y, steps=steps, rate=rate, **case.model).activities
    assert_close(ours, euler(case, steps, rate)[-1])


@fewer
@given(cases(least=3), st.integers(1, 4))
def test_trajectory_is_every_moment_from_the_forward_pass_to_the_end(case, steps):
    ours = infer(
        case.params, case.x, case.y, steps=steps, rate=0.2, trajectory=True, **case.model
    ).path
    moments = euler(case, steps, 0.2)
    assert len(moments) == steps + 1
    assert_close(ours, [jnp.stack(layer) for layer in zip(*moments, strict=True)])


def test_inference_goes_on_from_where_it_is_told_to_start():
    example = case((3, 4, 4, 2))
    whole = infer(example.params, example.x, example.y, steps=7).activities
    half = infer(example.params, example.x, example.y, steps=3).activities
    assert_close(infer(example.params, example.x, example.y, steps=4, start=half).activities, whole)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_energy_falls_at_every_step_of_a_small_rate(activation, loss):
    example = case((3, 5, 4, 2), activation=activation, loss=loss)
    path = infer(
        example.params, example.x, example.y, steps=30, rate=0.02, trajectory=True, **example.model
    ).path
    energies = jax.vmap(lambda xs: energy(example.params, xs, example.y, **example.model))(path)
    assert (np.diff(energies, axis=0) < 0).all()


@fewer
@given(cases(least=3))
def test_input_stays_clamped(case):
    path = infer(case.params, case.x, case.y, steps=3, rate=0.5, trajectory=True, **case.model).path
    np.testing.assert_array_equal(path[0], jnp.broadcast_to(case.x, (4, *case.x.shape)))


@fewer
@given(cases(least=3))
def test_with_no_target_the_forward_pass_is_already_the_answer(case):
    """Why a prediction needs no inference: without a target, no error moves anything."""
    rest = activities(case.params, case.x, case.activation)[:-1]
    assert_close(infer(case.params, case.x, None, steps=3, rate=0.5, **case.model).activities, rest)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_with_no_target_inference_returns_from_anywhere_to_the_forward_pass(activation):
    example = case((3, 4, 4, 2), activation=activation)
    free = infer(
        example.params, example.x, None, steps=600, activation=activation, start=example.xs
    ).activities
    assert_close(free, activities(example.params, example.x, activation)[:-1], atol=1e-9)


def test_samples_of_a_batch_are_inferred_on_their_own():
    example = case((3, 4, 4, 2), batch=4)
    together = infer(example.params, example.x, example.y).activities
    for i in range(4):
        alone = infer(example.params, example.x[i : i + 1], example.y[i : i + 1]).activities
        assert_close(alone, [x[i : i + 1] for x in together])


def test_rates_can_be_vmapped():
    example = case((3, 4, 2))
    run = lambda rate: infer(example.params, example.x, example.y, steps=5, rate=rate).activities  # noqa: E731
    grid = jnp.array([0.05, 0.1, 0.2])
    assert_close(
        jax.vmap(run)(grid), [jnp.stack(x) for x in zip(*map(run, (0.05, 0.1, 0.2)), strict=True)]
    )


# --- The rule


@fewer
@given(cases(), st.integers(1, 4))
def test_update_is_the_gradient_of_the_energy_where_inference_ends(case, steps):
    xs = euler(case, steps, 0.2)[-1]
    expected = jax.grad(lambda p: energy(p, xs, case.y, **case.model).mean())(case.params)
    _, update, state = gradient(case, steps=steps)
    assert_close(update, expected)
    assert state == ()


@fewer
@given(cases())
def test_loss_is_that_of_the_prediction_made_before_the_target_is_seen(case):
    value, _, _ = gradient(case)
    mu = forward(case.params, case.x, case.activation)
    assert_close(value, LOSSES[case.loss](mu, case.y).mean())


@fewer
@given(cases())
def test_update_of_a_batch_is_the_mean_over_its_samples(case):
    run = jax.jit(lambda x, y: gradient(case._replace(x=x, y=y))[:2])
    samples = [run(case.x[i : i + 1], case.y[i : i + 1]) for i in range(len(case.x))]
    assert_close(run(case.x, case.y), jax.tree.map(lambda *g: sum(g) / len(g), *samples))


@fewer
@given(cases(least=2))
def test_without_hidden_layers_it_is_backprop_times_the_precision(case):
    case = case._replace(params=case.params[:1], xs=case.xs[:1], y=case.y[:, :1] * case.params[0].b)
    theirs = backprop.rule(case.activation, case.loss).gradient(
        case.params, (), case.x, case.y, None
    )
    assert_close(gradient(case)[1], jax.tree.map(lambda g: case.precision * g, theirs[1]))


def test_at_the_target_nothing_changes():
    example = case((3, 4, 2))
    value, update, _ = gradient(example._replace(y=forward(example.params, example.x)))
    assert value == 0
    assert max(abs(leaf).max() for leaf in jax.tree.leaves(update)) < 1e-14


def test_descending_the_update_lowers_the_loss():
    example = case((3, 5, 2), batch=4)
    value, update, _ = gradient(example)
    nearby = jax.tree.map(lambda p, u: p - 1e-3 * u, example.params, update)
    assert gradient(example._replace(params=nearby))[0] < value


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_update_has_the_shapes_and_types_of_the_parameters_in_float32(activation, loss):
    with use_float64(False):
        value, update, _ = gradient(case((3, 4, 2), activation=activation, loss=loss))
        assert value.dtype == jnp.float32
        assert [(W.shape, b.shape) for W, b in update] == [((4, 3), (4,)), ((2, 4), (2,))]
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(update))


# --- Label leakage


@pytest.mark.parametrize("loss", LOSSES)
def test_prediction_does_not_depend_on_the_label(loss):
    """Whatever the labels, the loss reported in training is that of one and the same prediction."""
    example = case((3, 5, 4), batch=4, loss=loss)
    mu = predictive_coding.rule(**example.model).predict(example.params, example.x)
    for labels in ([0, 1, 2, 3], [3, 3, 0, 1]):
        y = jax.nn.one_hot(jnp.array(labels), 4)
        assert_close(gradient(example._replace(y=y))[0], LOSSES[loss](mu, y).mean())


def test_on_labels_drawn_by_lot_accuracy_stays_at_chance():
    """A prediction that saw its label would be right far more often than by chance."""
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(1200, 8)), rng.integers(0, 4, 1200)
    dataset = Dataset(images[:200], labels[:200], images[200:], labels[200:])
    rule = predictive_coding.rule(steps=5)
    trained = fit(
        rule,
        case((8, 64, 4)).params,
        dataset,
        optimizer=optax.adam(0.01),
        epochs=30,
        batch_size=20,
        key=random.key(0),
    )
    # 1,000 fair draws of 1 in 4: five standard deviations are 0.07.
    assert abs(trained.history.score - 0.25).max() < 0.07
    learned = accuracy(
        rule.predict, trained.params, jnp.asarray(images[:200]), jnp.asarray(labels[:200])
    )
    assert learned > 0.5  # the control: it did learn the labels that it was shown


# --- The limit of backprop


def test_small_precision_gives_backprop_s_direction():
    """Whittington & Bogacz 2017: at 1/256 less than a degree, and falling with the precision."""
    example = case((10, 20, 20, 5), batch=8)
    _, theirs, _ = backprop.rule().gradient(example.params, (), example.x, example.y, None)
    ours = {
        precision: gradient(example._replace(precision=precision), steps=400, rate=0.1)[1]
        for precision in (1.0, 1 / 256, 1 / 1024)
    }
    degrees = {precision: float(angle(update, theirs)) for precision, update in ours.items()}
    assert degrees[1.0] > 10  # the control: at equal precision it is another rule
    assert degrees[1 / 256] < 1
    # To first order the angle is proportional to the precision; the next order is 1/256 of it.
    np.testing.assert_allclose(degrees[1 / 256] / degrees[1 / 1024], 4, rtol=0.05)
    # Divided by the precision it is backprop's update in size as well, up to the order of 1/1024.
    scaled = jax.tree.map(lambda u: u * 1024, ours[1 / 1024])
    assert_close(scaled, theirs, rtol=0, atol=0.02)


# --- Closed forms of linear networks


def linear(sizes, seed=0, precision=1.0):
    return case(sizes, seed=seed, activation="identity", precision=precision)


def hidden_equilibrium(example):
    """Where the energy of a linear network is least: one Newton step on a quadratic."""
    start = activities(example.params, example.x, "identity")[1:-1]
    flat, unravel = ravel_pytree(start)
    function = lambda flat: total_energy(example)([example.x, *unravel(flat)])  # noqa: E731
    return [
        example.x,
        *unravel(flat - jnp.linalg.solve(jax.hessian(function)(flat), jax.grad(function)(flat))),
    ]


@pytest.mark.parametrize("sizes", [(3, 2), (3, 4, 2), (2, 3, 5, 2), (1, 4, 4, 1), (3, 2, 4, 3, 2)])
@pytest.mark.parametrize("precision", [1.0, 0.2, 7.0])
def test_equilibrated_energy_is_the_least_energy_of_a_linear_network(sizes, precision):
    example = linear(sizes, precision=precision)

    @jax.jit
    def both(params, x, y):
        here = example._replace(params=params, x=x, y=y)
        least = energy(params, hidden_equilibrium(here), y, **example.model)
        return linear_energy(params, x, y, precision), least

    assert_close(*both(example.params, example.x, example.y))


@pytest.mark.parametrize("sizes", [(3, 4, 2), (2, 3, 5, 2)])
def test_linear_inference_reaches_the_closed_form_energy(sizes):
    example = linear(sizes)
    xs = infer(
        example.params, example.x, example.y, steps=2000, rate=0.1, activation="identity"
    ).activities
    ours = energy(example.params, xs, example.y, "identity")
    assert_close(ours, linear_energy(example.params, example.x, example.y))


def test_linear_inference_reaches_the_closed_form_activity():
    """x_1 = (I + W_2^T W_2)^-1 (W_1 x_0 + b_1 + W_2^T (y - b_2))."""
    example = linear((3, 4, 2))
    (W1, b1), (W2, b2) = example.params
    x1 = np.linalg.solve(np.eye(4) + W2.T @ W2, (example.x @ W1.T + b1 + (example.y - b2) @ W2).T).T
    xs = infer(
        example.params, example.x, example.y, steps=2000, rate=0.1, activation="identity"
    ).activities
    np.testing.assert_allclose(xs[1], x1, 1e-9, 1e-11)


def test_one_constraint_and_energy_falls_to_zero_two_constraints_and_they_balance():
    """A chain 1-1-1 of weights 1: with the input 0 and target 1, each error takes its half."""
    chain = case((1, 1, 1), activation="identity")
    params = [layer._replace(W=jnp.ones((1, 1)), b=jnp.zeros(1)) for layer in chain.params]
    x, y = jnp.zeros((1, 1)), jnp.ones((1, 1))
    both = infer(params, x, y, steps=300, activation="identity").activities
    assert_close(errors(params, both, y, "identity"), [jnp.array([[0.5]]), jnp.array([[0.5]])])
    assert_close(energy(params, both, y, "identity"), jnp.array([0.25]))
    one = infer(
        params, x, None, steps=300, activation="identity", start=[x, jnp.array([[3.0]])]
    ).activities
    assert_close(energy(params, one, None, "identity"), jnp.array([0.0]))


# --- One neuron, and the network in reverse


def test_inferred_size_is_where_the_slope_of_the_posterior_vanishes():
    """Bogacz 2017, exercise 2: seen with light 2 and expected 3, the size is 1.6 (his figure 1)."""
    size = infer_size(2.0, steps=2000)
    roots = np.roots([2, 0, 1 - 2 * 2.0, -3.0])  # -(v - 3) + (2 - v^2) 2 v = 0
    (best,) = roots[np.isreal(roots)].real
    np.testing.assert_allclose(size[-1], best, rtol=1e-5)
    assert len(size) == 2001
    assert size[0] == 3


def test_size_moves_down_the_energy_of_prior_and_light():
    prior, spread, noise, light, rate = 2.0, 0.5, 0.7, 5.0, 0.01
    energy = lambda v: (v - prior) ** 2 / (2 * spread) + (light - v**2) ** 2 / (2 * noise)  # noqa: E731
    size = prior
    for moment in infer_size(
        light, prior_mean=prior, prior_variance=spread, light_variance=noise, steps=5, rate=rate
    ):
        np.testing.assert_allclose(moment, size, rtol=1e-6)
        size = size - rate * jax.grad(energy)(size)


@pytest.mark.parametrize("sizes", [(3, 2), (3, 4, 2), (2, 3, 4, 3)])
def test_linear_network_in_reverse_imagines_the_posterior_mean(sizes):
    """The prior is N(m, I) and y = M x_0 + noise of covariance S: m + M^T (M M^T + S)^-1 e."""
    example = linear(sizes)
    prior = example.x[0]
    M = S = np.eye(sizes[-1])
    for layer in example.params[:0:-1]:
        M = M @ layer.W
        S = S + M @ M.T
    M = M @ example.params[0].W
    e = example.y - forward(example.params, prior[None], "identity")
    mean = prior + np.linalg.solve(M @ M.T + S, e.T).T @ M
    ours = infer_input(
        example.params, example.y, prior, steps=4000, rate=0.1, activation="identity"
    )
    np.testing.assert_allclose(ours, mean, 1e-8, 1e-9)


def test_imagined_input_explains_the_output_better_than_the_prior_does():
    example = case((4, 8, 3), scale=2.0)
    prior = jnp.zeros(4)
    dreamt = infer_input(example.params, example.y, prior, steps=200, rate=0.05)
    before = LOSSES["squared error"](forward(example.params, jnp.zeros((3, 4))), example.y)
    after = LOSSES["squared error"](forward(example.params, dreamt), example.y)
    assert (after < before).all()


# --- What is refused


calls = {
    "rule": predictive_coding.rule,
    "infer": lambda **bad: infer(case((3, 4, 2)).params, jnp.ones((5, 3)), jnp.ones((5, 2)), **bad),
    "infer_input": lambda steps=1, rate=0.1: infer_input(
        case((3, 4, 2)).params, jnp.ones((5, 2)), jnp.ones(3), steps=steps, rate=rate
    ),
    "infer_size": lambda **bad: infer_size(2.0, **bad),
}


@pytest.mark.parametrize("call", calls)
@pytest.mark.parametrize("steps", [0, -3, 2.5, float("inf"), float("nan")])
def test_steps_must_be_an_integer_of_at_least_1(call, steps):
    with (
        as_a_reader_runs_it(),
        pytest.raises(ValueError, match=f"steps = {steps}: must be an integer of at least 1"),
    ):
        calls[call](steps=steps)


@pytest.mark.parametrize("call", calls)
@pytest.mark.parametrize("rate", [0, -0.1, float("inf"), float("nan")])
def test_rate_must_be_positive(call, rate):
    with (
        as_a_reader_runs_it(),
        pytest.raises(ValueError, match=f"rate = {rate}: must be a positive number"),
    ):
        calls[call](rate=rate)


@pytest.mark.parametrize("call", ["rule", "infer"])
@pytest.mark.parametrize("precision", [0, -1.0, float("inf")])
def test_precision_must_be_positive(call, precision):
    with (
        as_a_reader_runs_it(),
        pytest.raises(ValueError, match=f"precision = {precision}: must be a positive"),
    ):
        calls[call](precision=precision)


@pytest.mark.parametrize("call", ["rule", "infer"])
def test_names_must_be_known(call):
    with pytest.raises(ValueError, match="activation = 'swish': must be one of 'identity'"):
        calls[call](activation="swish")
    with pytest.raises(ValueError, match="loss = 'l1': must be one of 'squared error'"):
        calls[call](loss="l1")


@pytest.mark.parametrize(
    "call", [gradient, lambda example: infer(example.params, example.x, example.y).activities]
)
def test_input_and_target_that_do_not_fit_are_named(call):
    example = case((3, 4, 2), batch=5)
    with as_a_reader_runs_it():
        with pytest.raises(
            ValueError, match=r"x has shape \(5, 7\): must be \(batch, 3\), 3 being"
        ):
            call(example._replace(x=jnp.ones((5, 7))))
        for shape in ((5, 3), (5,), (4, 2)):
            with pytest.raises(ValueError) as error:
                call(example._replace(y=jnp.ones(shape)))
            said = f"y has shape {shape}: must be (5, 2)", f"y = array {shape} of"
            assert str(error.value).startswith(said)


# --- The criteria of the claims, and their controls


@pytest.mark.parametrize(
    ("claim", "meets", "fails"),
    [
        ("pc-equilibrated-energy", {"distance": [1e-6, 1e-5]}, [{"distance": [1e-6, 1e-3]}]),
        (
            "pc-as-accurate-as-backprop",
            {"backprop": [95.0, 97.0], "coding": [95.0, 96.0]},
            [{"coding": [94.0, 95.0]}],
        ),
        (
            "pc-variance-ratio",
            {"at_256": 0.3, "slope": -1.0},
            [{"at_256": 2.0}, {"slope": -0.7}, {"slope": -1.3}],
        ),
        ("pc-label-leakage", {"accuracy": [10.0, 12.0]}, [{"accuracy": [90.0, 95.0]}]),
    ],
)
def test_a_criterion_can_be_met_and_can_fail(claim, meets, fails):
    criterion = claims.criteria()[claim]
    assert criterion(meets) is True
    assert [criterion(meets | change) for change in fails] == [False] * len(fails)


def test_the_exponent_is_that_of_the_medians_from_16_to_256():
    ratios = (1, 16, 64, 256, 1024)
    angles = jnp.array([[40.0, 40.0, 40.0], *([8 / r, 16 / r, 900 / r] for r in ratios[1:])])
    found = predictive_coding.measure_fall(ratios, angles)
    assert found["slope"] == pytest.approx(-1)
    assert (found["at_1"], found["at_256"]) == (40, 16 / 256)


def test_the_rule_of_the_last_layer_leaves_the_others_alone():
    example = case((3, 4, 2))
    rule = predictive_coding.last_layer_rule()
    ours = rule.gradient(example.params, (), example.x, example.y, random.key(0))
    theirs = backprop.rule().gradient(example.params, (), example.x, example.y, random.key(0))
    assert ours[0] == theirs[0]
    assert not ours[1][0].W.any()
    assert not ours[1][0].b.any()
    assert_close(ours[1][1], theirs[1][1])


def test_the_nearest_mean_is_that_of_the_training_images():
    x_train = np.array([[0, 0], [0, 2], [10, 0], [10, 2]], np.float32)
    x_test = np.array([[1, 1], [9, 1], [2, 5], [6, 1]], np.float32)
    labels, answers = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    dataset = Dataset(x_train, labels, x_test, answers)
    assert predictive_coding.nearest_mean(dataset) == 0.75


def test_a_rule_stands_beside_backprop_in_percent_with_the_interval_of_the_difference():
    accuracies = np.array([[[[0.9], [0.8]]], [[[0.8], [0.6]]]])  # (rules, rates, seeds, epochs)
    names, work = ("backprop", "coding"), np.ones(2)
    compared = rules.Comparison(names, (0.1,), accuracies, accuracies, accuracies, work, 1, 3)
    found = predictive_coding.beside_backprop(compared, "coding")
    np.testing.assert_allclose(found["backprop"], [90, 80])
    np.testing.assert_allclose(found["coding"], [80, 60])
    mean, half = -15, 12.7062 * np.std([10, 20], ddof=1) / np.sqrt(2)
    np.testing.assert_allclose((found["low"], found["high"]), (mean - half, mean + half), 1e-4)
