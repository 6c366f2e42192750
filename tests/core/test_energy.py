"""Every energy: its velocity and its update are the gradients of its value, by `jax.grad`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import assert_close, case, cases, fewer, use_float64
from hypothesis import given

from pcbook import backprop, fast_inference, inference_learning, queries_and_forgetting, substrate
from pcbook import predictive_coding as pc
from pcbook.core.energy import Clamps, contrast, define, settle, settle_then_learn
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
    assert_close(inference_learning.equilibrium(c.params, c.x, c.y, precision), rest)
    assert_close(pc.equilibrated_energy(c.params, c.x, c.y, precision), F(flat)[None])
    options = {"activation": "identity", "precision": precision}
    for method in ("closed form", "gauss-newton", "errors"):
        rate = {"rate": 0.02} if method == "errors" else {}
        found = fast_inference.infer(
            c.params, c.x, c.y, method=method, tolerance=1e-10, most=20_000, **options, **rate
        )
        assert_close(found.xs, rest, 1e-6, 1e-7)
    found = inference_learning.settle(
        c.params, c.x, c.y, tolerance=1e-10, steps=20_000, rate=0.05, **options
    )
    assert_close(found.state, rest, 1e-6, 1e-7)


@pytest.mark.parametrize("method", ["euler", "errors", "gauss-newton"])
@pytest.mark.parametrize("loss", ["squared error", "cross entropy", own_loss])
def test_every_method_of_fast_inference_finds_the_rest_of_any_energy(method, loss):
    c, y = case(SIZES, BATCH), jnp.eye(2)[jnp.array([0, 1, 1])]
    energy = {"activation": own_activation, "loss": loss, "precision": (2.0, 0.5, 1.5)}
    rate = {} if method == "gauss-newton" else {"rate": 0.05}
    limits = {"tolerance": 1e-9, "most": 20_000}
    found = fast_inference.infer(c.params, c.x, y, method=method, **energy, **limits, **rate)
    slopes = jax.grad(lambda xs: pc.energy(c.params, xs, y, **energy).sum())(found.xs)
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
    rest = fast_inference.infer(params, c.x, y, tolerance=1e-11, most=200, **OWN).xs
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
    rule = pc.rule(20_000, 0.05, "identity", precision="learned", tolerance=1e-11)
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
        ({"precision": (1.0, 1.0)}, r"precision has length 2: must be 3, the layers 1\.\.L"),
        ({"precision": (1.0, 0.0, 1.0)}, r"precision = 0\.0: must be a positive number"),
        ({"precision": jnp.array([1.0, -1.0])}, "must be finite numbers of at least 0"),
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
    with pytest.raises(ValueError, match=f"{arrays} has length 2: must be 3"):
        pc.velocities(c.params, **short)
    with pytest.raises(ValueError, match="xs has length"):
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
