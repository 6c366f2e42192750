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
    few,
    fewer,
    random_like,
    use_float64,
)
from hypothesis import given
from jax import random
from jax.flatten_util import ravel_pytree

from pcbook import backprop, claims, inference_learning, predictive_coding, rules
from pcbook.core.network import Layer, activities, forward
from pcbook.foundations.predictive_coding import (
    energy,
    errors,
    infer,
    linear_energy,
    velocities,
    weight_gradients,
)
from pcbook.inference.inference_learning import (
    equilibrium_propagation,
    incremental_rule,
    linear_equilibrium,
    linear_targets,
    settle,
    target_alignment,
)


@pytest.fixture(autouse=True, scope="module")
def float64():
    with use_float64():
        yield


def linear(sizes, **options):
    """Biases as small as the activities, so that no layer dwarfs another."""
    return case(sizes, activation="identity", **options)


def orthogonal(width, depth, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Layer(
            jnp.asarray(np.linalg.qr(rng.normal(size=(width, width)))[0]),
            jnp.asarray(rng.normal(size=width)),
        )
        for _ in range(depth)
    ]


def speed(example, xs):
    """Of each sample: the length of dx/dt over the hidden layers."""
    es = errors(example.params, xs, example.y, **example.model)
    _, *vs = velocities(example.params, xs, es, example.activation)
    return np.sqrt(sum((v**2).sum(-1) for v in vs))


# --- The E-step


@pytest.mark.parametrize("activation", SMOOTH)
@pytest.mark.parametrize("tolerance", [0.3, 1e-2, 1e-6])
def test_every_sample_has_come_to_rest_and_had_not_a_step_before(activation, tolerance):
    example = case((3, 5, 4, 2), activation=activation)
    options = {"activation": activation, "rate": 0.05, "steps": 20_000}
    settled = settle(example.params, example.x, example.y, tolerance=tolerance, **options)
    xs, steps = settled.activities, settled.steps
    assert settled.converged
    first = speed(example, activities(example.params, example.x, activation)[:-1])
    assert (speed(example, xs) <= tolerance * first * (1 + 1e-9)).all()
    before = infer(
        example.params,
        example.x,
        example.y,
        steps=int(steps) - 1,
        rate=0.05,
        activation=activation,
    ).activities
    assert (speed(example, before) > tolerance * first * (1 - 1e-9)).any()


@fewer
@given(cases(least=3))
def test_settling_is_inference_for_as_many_steps_as_it_says(example):
    options = {"rate": 0.05, **example.model}
    settled = settle(
        example.params, example.x, example.y, tolerance=1e-9, steps=7, start=example.xs, **options
    )
    xs, steps = settled.activities, settled.steps
    assert steps <= 7
    if steps:
        assert_close(
            xs,
            infer(
                example.params,
                example.x,
                example.y,
                steps=int(steps),
                start=example.xs,
                **options,
            ).activities,
        )


def test_with_no_target_the_forward_pass_is_at_rest_already():
    example = case((3, 4, 2))
    settled = settle(example.params, example.x, None)
    assert settled.steps == 0 and settled.converged
    assert_close(settled.activities, activities(example.params, example.x)[:-1])


def test_a_clamped_input_does_not_move_and_a_free_one_comes_to_rest():
    example = linear((3, 4, 2))
    ask = {"tolerance": 1e-8, "steps": 50_000, "activation": "identity"}
    clamped = settle(example.params, example.x, example.y, **ask).activities
    free = settle(example.params, example.x, example.y, clamp_input=False, **ask).activities
    np.testing.assert_array_equal(clamped[0], example.x)
    slopes = jax.grad(lambda xs: energy(example.params, xs, example.y, "identity").sum())(free)
    assert max(float(jnp.abs(slope).max()) for slope in slopes) < 1e-6


@pytest.mark.parametrize("precision", [1.0, 0.2, 5.0])
@pytest.mark.parametrize("sizes", [(3, 2), (3, 4, 2), (2, 5, 4, 3)])
def test_closed_form_is_where_no_slope_of_the_energy_is_left(sizes, precision):
    example = linear(sizes, precision=precision)
    xs = linear_equilibrium(example.params, example.x, example.y, precision)
    slopes = jax.grad(lambda xs: energy(example.params, xs, example.y, **example.model).sum())(xs)
    assert_close(slopes[1:], [jnp.zeros_like(s) for s in slopes[1:]])
    F = energy(example.params, xs, example.y, **example.model)
    np.testing.assert_allclose(
        F, linear_energy(example.params, example.x, example.y, precision), rtol=1e-9
    )


# --- The rule


@pytest.mark.parametrize("activation", SMOOTH)
def test_update_is_the_gradient_of_the_energy_at_rest_by_the_envelope_theorem(activation):
    """The activities move with the weights too, but at rest that costs no energy."""
    example = case((3, 4, 2), activation=activation)
    rule = inference_learning.rule(tolerance=1e-10, steps=100_000, activation=activation)
    loss, ours, state = rule.gradient(example.params, (), example.x, example.y, random.key(0))

    def rested(params):
        options = {"tolerance": 1e-10, "steps": 100_000, "activation": activation}
        xs = settle(params, example.x, example.y, **options).activities
        return energy(params, xs, example.y, activation).mean()

    direction = random_like(example.params)
    ahead, behind = (
        jax.tree.map(lambda p, d, h=h: p + h * d, example.params, direction) for h in (1e-5, -1e-5)
    )
    slope = (rested(ahead) - rested(behind)) / 2e-5
    along = sum(
        (u * d).sum() for u, d in zip(*map(jax.tree.leaves, (ours, direction)), strict=True)
    )
    np.testing.assert_allclose(along, slope, rtol=1e-5)
    mu = forward(example.params, example.x, activation)
    np.testing.assert_allclose(loss, ((mu - example.y) ** 2).sum(1).mean() / 2)
    assert state == ()


def test_update_of_a_linear_network_is_the_gradient_of_the_closed_form():
    example = linear((3, 4, 4, 2))
    rule = inference_learning.rule(tolerance=1e-11, steps=200_000, rate=0.05, activation="identity")
    ours = rule.gradient(example.params, (), example.x, example.y, random.key(0))[1]
    closed = jax.grad(lambda p: linear_energy(p, example.x, example.y).mean())(example.params)
    assert_close(ours, closed, rtol=1e-7, atol=1e-9)


def test_neither_step_raises_the_energy():
    """Expectation maximisation, each E-step from where the last one ended."""
    example = case((3, 6, 4, 2), batch=8)
    params, xs = example.params, activities(example.params, example.x)[:-1]
    last = energy(params, xs, example.y).mean()
    for _ in range(20):
        xs = settle(params, example.x, example.y, start=xs, rate=0.05).activities
        expected = energy(params, xs, example.y).mean()
        slopes = weight_gradients(xs, errors(params, xs, example.y))
        params = jax.tree.map(lambda p, g: p - 0.02 * g, params, slopes)
        maximised = energy(params, xs, example.y).mean()
        assert maximised <= expected <= last
        last = maximised


# --- Weights that move at every step


@pytest.mark.parametrize("optimizer", [optax.sgd(0.05), optax.adam(0.01)])
def test_incremental_rule_is_a_loop_over_inference_and_learning(optimizer):
    example = case((3, 5, 4, 2), batch=4)
    rule = incremental_rule(optimizer, steps=6, rate=0.1)
    state = rule.init(random.key(0), example.params)
    loss, update, memory = rule.gradient(example.params, state, example.x, example.y, random.key(0))
    params, xs, expected = example.params, activities(example.params, example.x)[:-1], state
    for _ in range(6):
        slope_w = jax.grad(lambda p: energy(p, xs, example.y).mean())(params)  # noqa: B023
        slope_x = jax.grad(lambda xs: energy(params, xs, example.y).sum())(xs)  # noqa: B023
        move, expected = optimizer.update(slope_w, expected, params)
        params = optax.apply_updates(params, move)
        xs = [xs[0]] + [x - 0.1 * s for x, s in zip(xs[1:], slope_x[1:], strict=True)]
    assert_close(optax.apply_updates(example.params, jax.tree.map(jnp.negative, update)), params)
    assert_close(memory, expected)
    mu = forward(example.params, example.x)
    np.testing.assert_allclose(loss, ((mu - example.y) ** 2).sum(1).mean() / 2)


def test_incremental_rule_of_one_step_learns_the_readout_alone():
    """At the forward pass, the only error is at the output."""
    example = case((3, 5, 4, 2))
    rule = incremental_rule(optax.sgd(0.1), steps=1)
    state = rule.init(random.key(0), example.params)
    _, update, _ = rule.gradient(example.params, state, example.x, example.y, random.key(0))
    assert_close(update[:-1], [Layer(0 * W, 0 * b) for W, b in example.params[:-1]])
    assert jnp.abs(update[-1].W).max() > 1e-3


# --- Where the output goes


def test_a_step_straight_to_the_target_is_1_and_straight_away_from_it_minus_1():
    """A network of one layer, and one sample: gradient descent moves the output along its error."""
    example = case((4, 3), batch=1, activation="identity")
    update = jax.grad(lambda p: ((forward(p, example.x, "identity") - example.y) ** 2).sum() / 2)(
        example.params
    )
    ahead = target_alignment(example.params, update, example.x, example.y, 1e-3, "identity")
    behind = target_alignment(example.params, update, example.x, example.y, -1e-3, "identity")
    np.testing.assert_allclose([ahead[0], behind[0]], [1, -1], rtol=1e-9)


def test_alignment_is_the_cosine_of_way_and_journey():
    example = case((3, 5, 2))
    update = random_like(example.params)
    ours = target_alignment(example.params, update, example.x, example.y, 0.1)
    moved = [
        Layer(W - 0.1 * u.W, b - 0.1 * u.b)
        for (W, b), u in zip(example.params, update, strict=True)
    ]
    before, after = forward(example.params, example.x), forward(moved, example.x)
    for sample in range(len(example.x)):
        a, b = after[sample] - before[sample], example.y[sample] - before[sample]
        np.testing.assert_allclose(ours[sample], a @ b / np.sqrt((a @ a) * (b @ b)), rtol=1e-9)


@pytest.mark.parametrize("learn", [backprop.rule, inference_learning.rule])
def test_orthogonal_weights_align_both_rules(learn):
    """The output's error passes every layer unturned, so all of the update points the same way."""
    params = orthogonal(8, 6)
    x, y = random.normal(random.key(0), (2, 1, 8))
    rule = rules.without_biases(learn(activation="identity"))
    update = rule.gradient(params, (), x, y, random.key(0))[1]
    alignment = target_alignment(params, update, x, y, 1e-4, "identity")
    np.testing.assert_allclose(alignment, 1, atol=1e-3)


def test_the_bear_goes_on_smelling_salmon():
    """Song et al. 2024, figure 1, by hand: with e* = S^-1 e = (-2/3, 1/3) and h = 2/3."""
    bear = [Layer(jnp.ones((1, 1)), jnp.zeros(1)), Layer(jnp.ones((2, 1)), jnp.zeros(2))]
    x, y, rate = jnp.ones((1, 1)), jnp.array([[0.0, 1.0]]), 0.2
    smell = {}
    for learn in (backprop.rule, inference_learning.rule):
        rule = rules.without_biases(learn(activation="identity"))
        update = rule.gradient(bear, (), x, y, random.key(0))[1]
        moved = jax.tree.map(lambda p, u: p - rate * u, bear, update)
        smell[rule.name] = forward(moved, x, "identity")[0, 1]
    np.testing.assert_allclose(smell["backprop"], 1 - rate, rtol=1e-12)
    np.testing.assert_allclose(
        smell["inference learning"], (1 - rate / 3) * (1 + 2 * rate / 9), rtol=1e-3
    )


# --- Between backprop, target propagation and equilibrium propagation


@few
@given(cases(losses=("squared error",), activations=("identity",), least=3))
def test_targets_are_turned_into_the_output(example):
    params = orthogonal(3, len(example.params))
    y = random.normal(random.key(len(example.x)), (len(example.x), 3))
    ts = linear_targets(params, y)
    assert_close(activities(params, ts[0], "identity"), [*ts, y])


def test_a_free_input_rests_at_the_targets_of_target_propagation():
    params = orthogonal(5, 3)
    x, y = random.normal(random.key(0), (2, 4, 5))
    xs = settle(
        params, x, y, clamp_input=False, activation="identity", tolerance=1e-9, steps=20_000
    ).activities
    assert_close(xs, linear_targets(params, y), 1e-6, 1e-7)


def test_a_clamped_input_does_not():
    params = orthogonal(5, 3)
    x, y = random.normal(random.key(0), (2, 4, 5))
    xs = settle(params, x, y, activation="identity", tolerance=1e-9, steps=20_000).activities
    assert max(jnp.abs(a - b).max() for a, b in zip(xs, linear_targets(params, y))) > 0.1


def free_output(example, beta, steps=4000, rate=0.1):
    """Equilibrium propagation in full: the output is an activity, and nothing but `jax.grad`.

    Returns the gradient in the weights of the energy without the nudge, at rest.
    """

    def inner(params, xs):
        mus = [
            (xs[0] if l == 0 else jnp.tanh(xs[l])) @ layer.W.T + layer.b
            for l, layer in enumerate(params)
        ]
        return sum(((x - mu) ** 2).sum() / 2 for x, mu in zip(xs[1:], mus, strict=True))

    def nudged(xs):
        return inner(example.params, xs) + beta * ((example.y - xs[-1]) ** 2).sum() / 2

    @jax.jit
    def step(xs):
        return [xs[0]] + [x - rate * s for x, s in zip(xs[1:], jax.grad(nudged)(xs)[1:])]

    xs = activities(example.params, example.x)
    for _ in range(steps):
        xs = step(xs)
    return jax.tree.map(lambda g: g / len(example.x), jax.grad(inner)(example.params, xs))


def nudged_update(example, nudge, **options):
    rule = equilibrium_propagation(nudge, **options)
    return rule.gradient(example.params, (), example.x, example.y, random.key(0))[1]


@pytest.mark.parametrize("symmetric", [False, True])
def test_equilibrium_propagation_is_the_contrast_of_two_phases_of_a_free_output(symmetric):
    example, beta = case((3, 4, 2), scale=0.7), 0.2
    ahead, behind = free_output(example, beta), free_output(example, -beta if symmetric else 0.0)
    width = 2 * beta if symmetric else beta
    contrast = jax.tree.map(lambda a, b: (a - b) / width, ahead, behind)
    ours = nudged_update(example, beta, symmetric=symmetric, tolerance=1e-10, steps=100_000)
    assert_close(ours, contrast, 1e-6, 1e-8)


@pytest.mark.parametrize(("symmetric", "order"), [(False, 1), (True, 2)])
def test_bias_of_a_weak_nudge_falls_as_its_first_or_second_power(symmetric, order):
    example = case((3, 5, 2), scale=0.7)
    true, _ = ravel_pytree(
        backprop.rule().gradient(example.params, (), example.x, example.y, random.key(0))[1]
    )
    off = []
    for nudge in (0.02, 0.01):
        ours, _ = ravel_pytree(
            nudged_update(example, nudge, symmetric=symmetric, tolerance=1e-11, steps=100_000)
        )
        off.append(jnp.linalg.norm(ours - true) / jnp.linalg.norm(true))
    np.testing.assert_allclose(np.log2(off[0] / off[1]), order, atol=0.1)


@pytest.mark.parametrize("hidden", [2, 3])
def test_origin_is_a_strict_saddle_at_rest_and_none_of_the_loss(hidden):
    """Innocenti et al. 2024: the least curvature of a chain is -E[y^2]; the loss has none."""
    x = random.normal(random.key(0), (20, 1))
    y = -x

    def chain(ws):
        return [Layer(w.reshape(1, 1), jnp.zeros(1)) for w in ws]

    def loss(ws):
        return ((forward(chain(ws), x, "identity") - y) ** 2).mean() / 2

    def rested(ws):
        return linear_energy(chain(ws), x, y).mean()

    origin = jnp.zeros(hidden + 1)
    np.testing.assert_allclose(
        np.linalg.eigvalsh(jax.hessian(rested)(origin)).min(), -(y**2).mean(), rtol=1e-9
    )
    np.testing.assert_allclose(jax.hessian(loss)(origin), 0, atol=1e-12)


# --- What is refused

network = case((3, 4, 2))
calls = {
    "rule": inference_learning.rule,
    "settle": lambda **bad: settle(network.params, network.x, network.y, **bad),
    "nudge": lambda **bad: equilibrium_propagation(0.1, **bad),
}


@pytest.mark.parametrize("call", calls)
@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("tolerance", -1e-3),
        ("tolerance", 1.0),
        ("tolerance", float("nan")),
        ("steps", 0),
        ("rate", -0.1),
        ("rate", float("inf")),
    ],
)
def test_settling_that_cannot_be_is_refused(call, argument, value):
    with as_a_reader_runs_it(), pytest.raises(ValueError, match=f"{argument} = {value}: must be"):
        calls[call](**{argument: value})


@pytest.mark.parametrize("call", ["rule", "settle"])
def test_precision_must_be_positive_and_names_known(call):
    with as_a_reader_runs_it(), pytest.raises(ValueError, match=r"precision = -1\.0: must be a"):
        calls[call](precision=-1.0)
    with pytest.raises(ValueError, match="loss = 'l1': must be one of 'squared error'"):
        calls[call](loss="l1")


def test_incremental_rule_refuses_what_inference_refuses():
    with as_a_reader_runs_it(), pytest.raises(ValueError, match="steps = 0: must be an integer"):
        incremental_rule(optax.sgd(0.1), steps=0)


@pytest.mark.parametrize("nudge", [0, -0.1, 1.0, float("nan")])
def test_nudge_must_be_between_0_and_1(nudge):
    with (
        as_a_reader_runs_it(),
        pytest.raises(ValueError, match=f"nudge = {nudge}: must be between 0 and 1"),
    ):
        equilibrium_propagation(nudge)


def test_target_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"y has shape \(3, 5\): must be \(3, 2\)"):
        settle(network.params, network.x, jnp.ones((3, 5)))


def test_rules_of_the_same_kind_are_the_same_rule():
    assert inference_learning.rule(tolerance=0.1) is inference_learning.rule(tolerance=0.1)


def test_inference_learning_is_predictive_coding_that_has_come_to_rest():
    example = case((3, 5, 2))
    ours, long = (
        rule.gradient(example.params, (), example.x, example.y, random.key(0))[1]
        for rule in (
            inference_learning.rule(tolerance=1e-9, steps=5000),
            predictive_coding.rule(steps=5000),
        )
    )
    assert_close(ours, long, 1e-6, 1e-8)


# --- The criteria of the claims

SURE, UNSURE = np.array([2.0, 2.1, 1.9]), np.array([-5.0, 2.0, 9.0])  # of a mean of 2 points


@pytest.mark.parametrize(
    ("claim", "meets", "fails"),
    [
        (
            "il-interference",
            {"inference": 0.07, "backprop": 0.24, "left": 0.01},
            [{"inference": 0.09}, {"left": 0.03}],
        ),
        (
            "il-target-alignment",
            {kind: np.array([[0.4, 0.5], [0.7, 0.8]]) for kind in ("random", "orthogonal")},
            [
                {"orthogonal": np.ones((2, 2))},
                {"random": np.array([[0.4, 0.5], [0.5, 0.7]])},
                {"random": np.array([[0.7, 0.8], [0.4, 0.5]])},
            ],
        ),
        ("il-online", {"ahead": SURE}, [{"ahead": SURE - 1.1}, {"ahead": UNSURE}]),
        ("il-drift", {"ahead": SURE}, [{"ahead": SURE - 1.1}, {"ahead": UNSURE}]),
        ("il-small-data", {"ahead": [SURE, SURE]}, [{"ahead": [SURE, UNSURE]}]),
        (
            "il-incremental",
            {"batches": [6.0, 7.0], "updates": [1.0, 2.0]},
            [{"batches": [4.0, 5.0]}, {"updates": [0.0, 1.0]}],
        ),
        (
            "il-target-propagation",
            {"orthogonal": [1e-6, 1e-5], "random": [1e-6, 1e-5]},
            [{"orthogonal": [1e-6, 1e-3]}, {"random": [1e-6, 1.0]}],
        ),
        ("il-critical-points", {"slope": [0.2, 0.9]}, [{"slope": [0.2, 1.1]}]),
        (
            "il-strict-saddle",
            {"energy": 1e-5, "loss": 1e-5},
            [{"energy": 1e-3}, {"loss": 1e-3}],
        ),
        ("il-escape", {"inference": 76, "backprop": 1006}, [{"inference": 336}]),
        (
            "il-equilibrium-propagation",
            {"one_sided": 1.0, "symmetric": 2.0},
            [{"one_sided": 0.0}, {"one_sided": 1.2}, {"symmetric": 1.0}, {"symmetric": 2.3}],
        ),
    ],
)
def test_a_criterion_can_be_met_and_can_fail(claim, meets, fails):
    criterion = claims.criteria()[claim]
    assert criterion(meets) is True
    assert [criterion(meets | change) for change in fails] == [False] * len(fails)
