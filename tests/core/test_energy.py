"""Every energy: its velocity and its update are the gradients of its value, by `jax.grad`."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import as_a_reader_runs_it, assert_close, case, cases, fewer, use_float64
from hypothesis import given
from jax.sharding import Mesh, PartitionSpec

from pcbook import backprop, fast_inference, inference_learning, queries_and_forgetting, substrate
from pcbook import predictive_coding as pc
from pcbook.core.energy import (
    Clamps,
    contrast,
    define,
    largest_stable_rate,
    settle,
    settle_then_learn,
)
from pcbook.core.network import Function, Layer
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
        x, y, precision, _ = clamps
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


# --- Precisions, functions, biases and weights of a researcher's own


def own_activation(x):
    return x / jnp.sqrt(1 + x**2)


def own_loss(mu, y):
    return jnp.log(jnp.cosh(y - mu)).sum(-1)


SIZES, BATCH = (3, 5, 4, 2), 3
PRECISIONS = {
    "a number": 0.3,
    "each output": jnp.array([0.3, 2.0]),
    "each output of each sample, some of them unknown": jnp.array([[0, 2.0], [1, 0], [0.5, 3]]),
    "each layer": (2.0, 0.5, 3.0),
    "each unit": [jnp.arange(1.0, 6), 0.5, jnp.array([0.3, 2.0])],
}


def with_kept_biases(params, kept):
    return [p if k else Layer(p.W, None) for p, k in zip(params, kept, strict=True)]


@pytest.mark.parametrize("kept", [(True, True, True), (False, True, False)])
@pytest.mark.parametrize("precision", PRECISIONS.values(), ids=PRECISIONS)
@pytest.mark.parametrize("prior", [None, 0.7])
def test_precisions_and_missing_biases_are_in_energy_velocity_and_update(precision, kept, prior):
    c = case(SIZES, BATCH)
    params, weight = with_kept_biases(c.params, kept), jnp.array([0.5, 0.0, 2.0])
    by_hand = chain(own_activation, prior=prior)
    derived = define(by_hand.value, by_hand.start)
    clamps = Clamps(c.x, c.y, precision, weight)
    _, *expected = derived.velocity(params, c.xs, clamps)
    assert_close(by_hand.velocity(params, c.xs, clamps)[1:], expected)
    assert_close(by_hand.update(params, c.xs, clamps), derived.update(params, c.xs, clamps))


@pytest.mark.parametrize("precision", [(2.0, 0.5, 3.0), (2.0, 0.5, jnp.array([[1.0], [2], [3]]))])
@pytest.mark.parametrize("loss", ["cross entropy", own_loss])
def test_any_loss_takes_a_precision_for_each_layer_and_each_sample(loss, precision):
    c = case(SIZES, BATCH)
    by_hand, clamps = chain("sigmoid", loss), Clamps(c.x, c.y, precision)
    derived = define(by_hand.value, by_hand.start)
    expected = derived.velocity(c.params, c.xs, clamps)[1:]
    assert_close(by_hand.velocity(c.params, c.xs, clamps)[1:], expected)
    assert_close(by_hand.update(c.params, c.xs, clamps), derived.update(c.params, c.xs, clamps))


def test_the_energy_with_precisions_is_that_of_gaussians_written_out():
    c, pis = case(SIZES, BATCH), [jnp.arange(1.0, 6), 0.5, jnp.array([0.3, 2.0])]
    expected, rs = 0, [c.x, *map(jnp.tanh, c.xs[1:])]
    for (W, b), r, x, pi in zip(c.params, rs, [*c.xs[1:], c.y], pis, strict=True):
        expected += (pi * (x - (r @ W.T + b)) ** 2).sum(1) / 2
    assert_close(pc.energy(c.params, c.xs, c.y, precision=pis), expected)
    parts = pc.energies(c.params, c.xs, c.y, precision=pis)
    assert_close(sum(parts), expected)


@pytest.mark.parametrize("precision", [*[*PRECISIONS.values()][3:], 4.0], ids=str)
def test_a_linear_network_rests_where_its_linear_system_says(precision):
    """The minimum of the quadratic energy over all hidden activities, by one dense solve."""
    c = case(SIZES, 1, activation="identity", precision=precision)
    pis = precision if isinstance(precision, list | tuple) else (1.0, 1.0, precision)

    def F(flat):
        xs = [c.x, flat[None, :5], flat[None, 5:]]
        mus = [x @ W.T + b for x, (W, b) in zip(xs, c.params, strict=True)]
        ends = zip([*xs[1:], c.y], mus, pis, strict=True)
        return sum((pi * (x - mu) ** 2).sum() / 2 for x, mu, pi in ends)

    flat = jnp.linalg.solve(jax.hessian(F)(jnp.zeros(9)), -jax.grad(F)(jnp.zeros(9)))
    rest = [c.x, flat[None, :5], flat[None, 5:]]
    assert_close(inference_learning.linear_equilibrium(c.params, c.x, c.y, precision), rest)
    assert_close(pc.linear_energy(c.params, c.x, c.y, precision), F(flat)[None])
    options = {"activation": "identity", "precision": precision}
    for method in ("closed form", "gauss-newton", "errors"):
        rate = {"rate": 0.02} if method == "errors" else {}
        found = fast_inference.infer(
            c.params, c.x, c.y, method=method, tolerance=1e-10, steps=20_000, **options, **rate
        )
        assert_close(found.activities, rest, 1e-6, 1e-7)
    found = inference_learning.settle(
        c.params, c.x, c.y, tolerance=1e-10, steps=20_000, rate=0.05, **options
    )
    assert_close(found.activities, rest, 1e-6, 1e-7)


@pytest.mark.parametrize("method", ["euler", "errors", "gauss-newton"])
@pytest.mark.parametrize("loss", ["squared error", "cross entropy", own_loss])
def test_every_method_of_fast_inference_finds_the_rest_of_any_energy(method, loss):
    c, y = case(SIZES, BATCH), jnp.eye(2)[jnp.array([0, 1, 1])]
    energy = {"activation": own_activation, "loss": loss, "precision": (2.0, 0.5, 1.5)}
    rate = {} if method == "gauss-newton" else {"rate": 0.05}
    limits = {"tolerance": 1e-9, "steps": 20_000}
    found = fast_inference.infer(c.params, c.x, y, method=method, **energy, **limits, **rate)
    slopes = jax.grad(lambda xs: pc.energy(c.params, xs, y, **energy).sum())(found.activities)
    assert found.converged
    assert max(float(jnp.abs(s).max()) for s in slopes[1:]) < 1e-7


ENERGETIC = {
    "predictive coding": lambda **energy: pc.rule(steps=4000, rate=0.05, **energy),
    "inference learning": lambda **energy: inference_learning.rule(
        tolerance=1e-10, steps=20_000, rate=0.05, **energy
    ),
    "fast": lambda **energy: fast_inference.rule("gauss-newton", None, 1e-10, 200, **energy),
}
OWN = {"activation": own_activation, "loss": own_loss, "precision": (2.0, 0.5, 1.5)}


def weigh_first(x, y):
    return jnp.arange(1.0, len(x) + 1)


@pytest.mark.parametrize("name", ENERGETIC)
def test_every_rule_to_rest_is_the_gradient_of_its_own_energy_at_rest(name):
    c, y = case(SIZES, BATCH), jnp.eye(2)[jnp.array([0, 1, 1])]
    params = with_kept_biases(c.params, (True, False, True))
    rule = ENERGETIC[name](**OWN, sample_weight=weigh_first)
    loss, update, _ = rule.gradient(params, (), c.x, y, jax.random.key(0))
    rest = fast_inference.infer(params, c.x, y, tolerance=1e-11, steps=200, **OWN).activities
    weight = jnp.arange(1.0, 4)

    def F(params):
        return (weight * pc.energy(params, rest, y, **OWN)).mean()

    assert_close(update, jax.grad(F)(params), 1e-6, 1e-8)
    mu = pc.forward(params, c.x, own_activation)
    np.testing.assert_allclose(loss, (weight * own_loss(mu, y)).mean())


def test_spikes_of_a_vanishing_threshold_are_the_same_energy():
    c, y = case(SIZES, BATCH), jnp.eye(2)[jnp.array([0, 1, 1])]
    rule = substrate.spiking(
        steps=20_000, rate=0.02, threshold=1e-3, sample_weight=weigh_first, **OWN
    )
    theirs = ENERGETIC["fast"](**OWN, sample_weight=weigh_first)
    updates = [r.gradient(c.params, (), c.x, y, jax.random.key(0))[1] for r in (rule, theirs)]
    assert_close(*updates, 0, 0.01)


@pytest.mark.parametrize("own", [OWN, OWN | {"loss": "squared error"}])
def test_equilibrium_propagation_of_a_weak_nudge_is_backprop_of_the_loss_in_any_energy(own):
    c, y = case(SIZES, BATCH), jnp.eye(2)[jnp.array([0, 1, 1])]
    rule = inference_learning.equilibrium_propagation(
        1e-4, tolerance=1e-12, steps=50_000, rate=0.05, **own
    )
    ours = rule.gradient(c.params, (), c.x, y, jax.random.key(0))[1]
    theirs = backprop.rule(own_activation, own["loss"]).gradient(c.params, (), c.x, y, None)[1]
    assert_close(ours, theirs, 1e-4, 1e-5)


def test_a_weight_of_zero_leaves_a_sample_out_and_two_count_it_twice():
    c = case(SIZES, BATCH)
    for rule in (pc.rule, queries_and_forgetting.rule, inference_learning.rule):
        weighed = rule(sample_weight=lambda x, y: jnp.array([1.0, 0.0, 2.0]))
        twice = jnp.array([0, 2, 2])
        ours = weighed.gradient(c.params, (), c.x, c.y, None)[:2]
        theirs = rule().gradient(c.params, (), c.x[twice], c.y[twice], None)[:2]
        assert_close(ours, theirs)


def test_learned_precisions_descend_the_energy_with_its_log_determinant():
    """Of a linear network that has come to rest: minus the log-likelihood, up to a constant."""
    c = case((3, 4, 2), 5, activation="identity")
    start = pc.with_precision(c.params, [0.7, jnp.array([0.5, 3.0])])
    rule = pc.rule(
        steps=20_000, rate=0.05, tolerance=1e-11, activation="identity", precision="learned"
    )
    ours = rule.gradient(start, (), c.x, c.y, None)[1]

    def surprise(p):
        """-log N(y; mu_L, S) of each sample, and what inference does not integrate over."""
        pi, top = map(jnp.exp, p.log_precision)
        W = p.layers[1].W
        S = jnp.diag(1 / top) + W @ W.T / pi
        e = c.y - pc.forward(p.layers, c.x, "identity")
        quadratic = (e * jnp.linalg.solve(S, e.T).T).sum(1).mean()
        return (quadratic - jnp.log(top).sum() - 4 * jnp.log(pi)) / 2

    assert_close(ours, jax.grad(surprise)(start), 1e-6, 1e-8)
    assert_close(rule.predict(start, c.x), pc.forward(c.params, c.x, "identity"))


def test_a_learned_precision_comes_to_one_over_the_mean_squared_error():
    c = case((3, 2), 50)
    learned, rule = pc.with_precision(c.params, [jnp.ones(2)]), pc.rule(precision="learned")
    for _ in range(300):
        update = rule.gradient(learned, (), c.x, c.y, None)[1]
        logs = [p - 0.3 * u for p, u in zip(learned.log_precision, update.log_precision)]
        learned = learned._replace(log_precision=logs)
    squares = ((c.y - pc.forward(c.params, c.x)) ** 2).mean(0)
    assert_close(jnp.exp(learned.log_precision[0]), 1 / squares, 1e-6)


def test_the_slope_of_an_own_function_is_taken_if_it_is_given():
    doubled = Function("doubled", jnp.tanh, lambda x: 2 * (1 - jnp.tanh(x) ** 2))
    c = case(SIZES, BATCH)
    es = pc.errors(c.params, c.xs, c.y)
    pulled = pc.velocities(c.params, c.xs, [0 * es[0], *es[1:]], doubled)[1]
    assert_close(pulled, 2 * pc.velocities(c.params, c.xs, [0 * es[0], *es[1:]])[1])


def test_a_function_of_the_table_is_the_one_by_name():
    assert pc.rule(activation=jax.nn.relu).predict is not None
    c = case(SIZES, BATCH, activation="relu")
    for activation in ("relu", jax.nn.relu):
        held = fast_inference.infer(c.params, c.x, c.y, activation=activation, tolerance=1e-6)
        assert held.converged


@pytest.mark.parametrize("c", [lambda: pc.chain(jax.nn.softmax), lambda: backprop.rule(jnp.sort)])
def test_an_activation_that_mixes_units_is_refused(c):
    with pytest.raises(ValueError, match=r"activation = .*: must act on each element alone"):
        c()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"precision": (1.0, 1.0)}, r"precision has 2 entries: must have 3"),
        ({"precision": (1.0, 0.0, 1.0)}, r"precision.* = 0\.0: must be a positive number"),
        ({"precision": jnp.array([1.0, -1.0])}, "must be .*finite numbers of at least 0"),
        ({"precision": jnp.ones(2), "loss": "cross entropy"}, "which does not add up over outputs"),
        (
            {"loss": lambda mu, y: ((y - mu) ** 2).sum()},
            r"loss returns the shape \(\): must be \(3",
        ),
    ],
)
@pytest.mark.parametrize("method", ["infer", "settle", "fast"])
def test_what_is_no_energy_is_refused(method, wrong, message):
    c = case(SIZES, BATCH)
    calls = {"infer": pc.infer, "settle": inference_learning.settle, "fast": fast_inference.infer}
    with pytest.raises(ValueError, match=message):
        calls[method](c.params, c.x, c.y, **wrong)


@pytest.mark.parametrize("wrong", [{"loss": "cross entropy"}, {"precision": "taught"}])
def test_a_precision_is_learned_of_gaussians_alone(wrong):
    with pytest.raises(ValueError, match=r"precision = .* with loss = .*: must be a number, or 'l"):
        pc.rule(**{"precision": "learned"} | wrong)


def test_weights_of_samples_that_do_not_fit_are_refused():
    c = case(SIZES, BATCH)
    with pytest.raises(ValueError, match=r"sample_weight returns the shape \(2,\): must be \(3,\)"):
        pc.rule(sample_weight=lambda x, y: jnp.ones(2)).gradient(c.params, (), c.x, c.y, None)


@pytest.mark.parametrize("arrays", ["xs", "es"])
def test_a_short_list_is_refused(arrays):
    c = case(SIZES, BATCH)
    es = pc.errors(c.params, c.xs, c.y)
    short = {"xs": c.xs, "es": es} | {arrays: {"xs": c.xs, "es": es}[arrays][:-1]}
    with pytest.raises(ValueError, match=f"{arrays} has 2 entries: must have 3"):
        pc.velocities(c.params, **short)
    with pytest.raises(ValueError, match=r"xs has \d entries: must have"):
        pc.weight_gradients(**short)


def test_numbers_may_be_arrays_and_traced_in_a_rule():
    c = case(SIZES, BATCH)

    def update(rate, precision):
        rule = pc.rule(rate=rate, precision=precision)
        return rule.gradient(c.params, (), c.x, c.y, None)[1]

    plain = update(0.1, 0.5)
    assert_close(update(jnp.array(0.1), jnp.array(0.5)), plain)
    both = jax.vmap(update, (0, None))(jnp.array([0.1, 0.2]), 0.5)
    assert_close(jax.tree.map(lambda u: u[0], both), plain)


# --- What inference says of itself

EVERY = {
    "steps": lambda c, **options: pc.infer(c.params, c.x, c.y, **options),
    "tolerance": lambda c, **options: inference_learning.settle(c.params, c.x, c.y, **options),
    "fast": lambda c, **options: fast_inference.infer(
        c.params, c.x, c.y, method="euler", **{"steps": 1000} | options
    ),
    "no clock": lambda c, **options: substrate.infer_without_clock(
        c.params,
        c.x,
        c.y,
        key=jax.random.key(0),
        **{"rate": 0.1, "chance": 1.0, "steps": 30} | options,
    ),
}


@pytest.mark.parametrize("name", EVERY)
def test_every_inference_says_where_it_ended_and_how(name):
    c = case(SIZES, BATCH)
    found = EVERY[name](c)
    value = lambda xs: pc.energy(c.params, xs, c.y).mean()  # noqa: E731
    start = pc.activities(c.params, c.x)[:-1]
    np.testing.assert_allclose(found.energy[0], value(start))
    np.testing.assert_allclose(found.energy[-1], value(found.activities))

    def speed(xs):
        _, *slopes = jax.grad(lambda xs: pc.energy(c.params, xs, c.y).sum())(xs)
        return np.sqrt(sum((s**2).sum() for s in slopes))

    np.testing.assert_allclose(found.velocity[0], speed(start))
    np.testing.assert_allclose(found.velocity[-1], speed(found.activities), rtol=1e-6)
    np.testing.assert_allclose(found.residual, found.velocity[-1] / found.velocity[0], rtol=1e-6)
    assert found.converged == (name in ("tolerance", "fast"))
    assert not found.diverged
    assert found.steps > 0


def test_a_path_is_told_moment_by_moment():
    c = case(SIZES, BATCH)
    found = pc.infer(c.params, c.x, c.y, steps=6, trajectory=True)
    energies = [
        pc.energy(c.params, [x[moment] for x in found.path], c.y).mean() for moment in range(7)
    ]
    np.testing.assert_allclose(found.energy, energies)
    assert found.velocity.shape == (7,)


@pytest.mark.parametrize("name", EVERY)
def test_divergence_is_told_and_is_not_convergence(name):
    c = case(SIZES, BATCH)
    with pytest.warns(RuntimeWarning, match="at rate 5"):
        found = EVERY[name](c, rate=5.0)
    assert found.diverged
    assert not found.converged


@pytest.mark.parametrize("name", EVERY)
def test_one_sample_that_diverges_among_many_is_told(name):
    c = case(SIZES, BATCH, activation="identity")
    loud = c._replace(params=[*c.params[:2], c.params[2]], x=c.x * 0, y=c.y.at[0].add(1e3))
    with pytest.warns(RuntimeWarning, match="at rate 5"):
        assert EVERY[name](loud, rate=5.0, activation="identity").diverged


def test_a_sample_that_chatters_about_a_kink_has_not_diverged():
    c = case((6, 12, 12, 4), 5, seed=1, activation="relu")
    rest = fast_inference.infer(c.params, c.x, c.y, activation="relu", tolerance=1e-8, steps=100)
    options = {"activation": "relu", "start": rest.activities, "rate": 0.01, "steps": 200}
    found = pc.infer(c.params, c.x, c.y, **options)
    last, first = (
        pc.energy(c.params, xs, c.y, "relu") for xs in (found.activities, rest.activities)
    )
    assert (last > first + 1e-9).any()
    assert not found.diverged


@pytest.mark.parametrize("name", EVERY)
def test_an_energy_that_is_no_number_is_looked_for_in_the_arguments(name):
    c = case(SIZES, BATCH)
    with pytest.warns(RuntimeWarning, match="the energy is nan at the start: look for it in x, y"):
        found = EVERY[name](c._replace(y=c.y * jnp.nan))
    assert found.diverged
    assert not found.converged


@pytest.mark.parametrize("activation", ["identity", "tanh"])
def test_the_largest_stable_rate_is_2_over_the_largest_curvature(activation):
    c = case(SIZES, BATCH, activation=activation, scale=2.0)
    start = pc.activities(c.params, c.x, activation)[:-1]
    curvatures = []
    for i in range(BATCH):

        def F(flat, i=i):
            xs = [c.x[i : i + 1], flat[None, :5], flat[None, 5:]]
            return pc.energy(c.params, xs, c.y[i : i + 1], activation).sum()

        at = jnp.concatenate([x[i] for x in start[1:]])
        curvatures.append(np.linalg.eigvalsh(jax.hessian(F)(at)).max())
    clamps = Clamps(c.x, c.y)
    ours = largest_stable_rate(chain(activation), c.params, clamps, products=2000)
    np.testing.assert_allclose(ours, 2 / max(curvatures), rtol=1e-6)


def test_above_the_largest_stable_rate_inference_diverges_and_below_it_does_not():
    c = case(SIZES, BATCH, activation="identity")
    rate = float(largest_stable_rate(chain("identity"), c.params, Clamps(c.x, c.y)))
    run = jax.jit(
        lambda rate: pc.infer(c.params, c.x, c.y, steps=3000, rate=rate, activation="identity")
    )
    assert not run(0.98 * rate).diverged
    assert run(1.02 * rate).diverged


@pytest.mark.parametrize("dtype", [int, "uint8", bool])
def test_integers_and_truth_values_are_numbers(dtype):
    c = case(SIZES, BATCH)
    x, y = (c.x > 0).astype(dtype), jnp.eye(2)[jnp.array([0, 1, 1])].astype(dtype)
    whole, real = c._replace(x=x, y=y), c._replace(x=x.astype(float), y=y.astype(float))
    with as_a_reader_runs_it(), warnings.catch_warnings():
        warnings.simplefilter("error")
        for run in EVERY.values():
            ours, theirs = run(whole), run(real)
            assert_close(ours.activities, theirs.activities)
            assert_close(jnp.asarray(ours.energy), jnp.asarray(theirs.energy))
        for rule in (
            pc.rule(),
            inference_learning.rule(),
            inference_learning.equilibrium_propagation(0.1),
            fast_inference.rule(),
            fast_inference.rule("euler"),
            queries_and_forgetting.rule(),
            substrate.spiking(),
            backprop.rule(),
        ):
            updates = [rule.gradient(c.params, (), a.x, a.y, None)[:2] for a in (whole, real)]
            assert_close(*updates)


@pytest.mark.parametrize("name", ["steps", "tolerance", "fast", "no clock"])
def test_inference_works_under_jit_and_vmap(name):
    c = case(SIZES, BATCH)
    alone = EVERY[name](c)

    def run(x, y):
        found = EVERY[name](c._replace(x=x, y=y))
        return found.activities, found.steps, found.converged, found.diverged, found.residual

    expected = (alone.activities, *map(jnp.asarray, alone[1:4]), jnp.asarray(alone.residual))
    assert_close(jax.tree.map(jnp.asarray, jax.jit(run)(c.x, c.y)), expected)
    each = jax.vmap(run)(jnp.stack([c.x, c.x]), jnp.stack([c.y, c.y]))
    assert_close(jax.tree.map(lambda a: jnp.asarray(a)[1], each), expected)


@pytest.mark.parametrize("name", ["steps", "tolerance", "fast"])
def test_inference_works_in_shard_map(name):
    c = case(SIZES, BATCH)
    mesh, rows = Mesh(np.array(jax.devices()[:1]), ("batch",)), PartitionSpec("batch")
    run = lambda x, y: EVERY[name](c._replace(x=x, y=y)).activities  # noqa: E731
    apart = jax.shard_map(run, mesh=mesh, in_specs=(rows, rows), out_specs=rows)
    assert_close(jax.jit(apart)(c.x, c.y), EVERY[name](c).activities)


def test_inference_can_be_differentiated_in_reverse_without_a_tolerance_and_forward_with_one():
    c = case(SIZES, BATCH)
    total = lambda x, **how: sum(a.sum() for a in pc.infer(c.params, x, c.y, **how).activities)  # noqa: E731
    h = 1e-6 * jnp.ones_like(c.x)
    for how in ({"steps": 7}, {"steps": 50, "tolerance": 0.1}):
        difference = (total(c.x + h, **how) - total(c.x - h, **how)) / 2e-6
        forward = jax.jvp(lambda x: total(x, **how), (c.x,), (jnp.ones_like(c.x),))[1]  # noqa: B023
        np.testing.assert_allclose(forward, difference, rtol=1e-6)
    reverse = jax.grad(lambda x: total(x, steps=7))(c.x).sum()
    np.testing.assert_allclose(
        reverse, (total(c.x + h, steps=7) - total(c.x - h, steps=7)) / 2e-6, rtol=1e-6
    )


TAKES_A_TARGET = {
    "energy": lambda c, y: pc.energy(c.params, c.xs, y),
    "errors": lambda c, y: pc.errors(c.params, c.xs, y),
    "closed-form energy": lambda c, y: pc.linear_energy(c.params, c.x, y),
    "closed-form activities": lambda c, y: inference_learning.linear_equilibrium(c.params, c.x, y),
    "target alignment": lambda c, y: inference_learning.target_alignment(
        c.params, c.params, c.x, y, 0.1
    ),
    "spikes": lambda c, y: substrate.settle_by_spikes(c.params, c.x, y),
    "fast rule": lambda c, y: fast_inference.rule().gradient(c.params, (), c.x, y, None),
    "equilibrium propagation": lambda c, y: inference_learning.equilibrium_propagation(
        0.1
    ).gradient(c.params, (), c.x, y, None),
} | {name: lambda c, y, run=run: run(c._replace(y=y)) for name, run in EVERY.items()}


@pytest.mark.parametrize("shape", [(3,), (1, 1), (3, 3)])
@pytest.mark.parametrize("name", TAKES_A_TARGET)
def test_a_target_is_never_broadcast(name, shape):
    c = case((3, 5, 1), 3)
    with (
        as_a_reader_runs_it(),
        pytest.raises(ValueError, match=r"y has shape .*must be \(3, 1\)|y = array .*batch, n_L"),
    ):
        TAKES_A_TARGET[name](c, jnp.ones(shape))


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (slice(0, 2), r"start has 2 entries: must have 3, x_0\.\.x_\{L-1\}"),
        (slice(None, None, -1), r"start\[0\] has shape \(3, 4\): must be \(3, 3\)"),
    ],
)
@pytest.mark.parametrize("name", ["steps", "tolerance", "fast"])
def test_a_start_that_does_not_fit_is_named(name, start, message):
    c = case(SIZES, BATCH)
    with pytest.raises(ValueError, match=message):
        EVERY[name](c, start=c.xs[start])
