import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import SMOOTH, as_a_reader_runs_it, assert_close, case, cases, few, fewer, use_float64
from hypothesis import given
from jax import random
from jax.flatten_util import ravel_pytree

from pcbook import claims, cost, fast_inference, graph, predictive_coding
from pcbook.core.descent import Samples, conjugate_gradients
from pcbook.core.network import ACTIVATIONS, activities
from pcbook.core.rules import fit
from pcbook.inference.fast_inference import (
    METHODS,
    Problem,
    backprops,
    infer,
    init,
    residual,
    residual_rule,
)
from pcbook.store.data import Dataset

ITERATIVE = [name for name in METHODS if name != "closed form"]
each_method = pytest.mark.parametrize("method", ITERATIVE)


@pytest.fixture(autouse=True, scope="module")
def float64():
    with use_float64():
        yield


def problem(case):
    return Problem(case.params, case.y, case.activation, "squared error", case.precision)


def at_errors(case, zs):
    """Activities whose hidden errors are `zs`, written out."""
    xs = [case.x]
    phi = ACTIVATIONS[case.activation]
    for l, (layer, z) in enumerate(zip(case.params, zs)):
        xs.append((phi(xs[-1]) if l else xs[-1]) @ layer.W.T + layer.b + z)
    return xs


def energy_of_errors(case):
    def energy(zs):
        xs = at_errors(case, zs)
        precision = case.precision
        args = (case.params, xs, case.y, case.activation)
        return predictive_coding.energy(*args, precision=precision).sum()

    return energy


# --- Errors as coordinates


@few
@given(cases(SMOOTH, ("squared error",), least=3))
def test_the_pass_down_is_the_derivative_of_the_energy_by_the_errors(case):
    here = problem(case)
    es = here.errors(case.xs)
    slopes, _ = here.down(case.xs, es)
    assert_close(slopes, jax.grad(energy_of_errors(case))(es[:-1]))


@few
@given(cases(SMOOTH, ("squared error",), least=3))
def test_the_pass_up_undoes_the_errors(case):
    here = problem(case)
    es = here.errors(case.xs)
    _, branches = here.down(case.xs, es)
    xs, again = here.up(case.xs, es[:-1], branches)
    assert_close(xs, case.xs)
    assert_close(again, es)


@few
@given(cases(SMOOTH, ("squared error",), least=3))
def test_velocity_and_energy_are_those_of_predictive_coding(case):
    here = problem(case)
    es = here.errors(case.xs)
    theirs = predictive_coding.velocities(case.params, case.xs, es, case.activation)[1:]
    assert_close(here.velocities(case.xs, es), theirs)
    energy = predictive_coding.energy(
        case.params, case.xs, case.y, case.activation, precision=case.precision
    )
    assert_close(here.energy(case.xs, es), energy)


@fewer
@given(cases(SMOOTH, ("squared error",), least=3))
def test_curvature_is_the_identity_and_the_square_of_the_jacobian(case):
    here = problem(case)
    es = here.errors(case.xs)
    _, branches = here.down(case.xs, es)
    for sample in range(len(case.x)):
        flat, restore = ravel_pytree([e[sample] for e in es[:-1]])
        one = case._replace(x=case.x[sample : sample + 1])

        def output(flat, one=one, restore=restore):
            return output_from(one, [z[None] for z in restore(flat)])

        J = jax.jacobian(output)(flat)
        H = jnp.eye(len(flat)) + case.precision * J.T @ J
        moves = [jnp.cos(jnp.arange(e.size, dtype=float)).reshape(e.shape) for e in es[:-1]]
        ours = here.curvature(branches, moves, here.bend(case.xs))
        flat_move = ravel_pytree([m[sample] for m in moves])[0]
        assert_close(ravel_pytree([o[sample] for o in ours])[0], H @ flat_move)


def output_from(case, zs):
    """The output of the network with hidden errors `zs`."""
    *_, last = xs = at_errors(case, zs)
    phi = ACTIVATIONS[case.activation]
    layer = case.params[-1]
    return ((phi(last) if len(xs) > 1 else last) @ layer.W.T + layer.b)[0]


# --- The equilibrium


@pytest.mark.slow
@few
@given(cases(("identity",), ("squared error",), least=3))
def test_closed_form_is_at_rest_and_has_the_equilibrated_energy(case):
    options = {"activation": "identity", "precision": case.precision}
    end = infer(case.params, case.x, case.y, method="closed form", **options)
    theirs = predictive_coding.linear_energy(case.params, case.x, case.y, case.precision)
    np.testing.assert_allclose(end.energy[-1], theirs.mean(), rtol=1e-9, atol=1e-12)
    slopes = jax.grad(
        lambda xs: predictive_coding.energy(case.params, xs, case.y, **options).sum()
    )(end.activities)
    assert max(float(jnp.abs(slope).max()) for slope in slopes[1:]) < 1e-9


RATE = {"euler": 0.1, "momentum": 0.03, "nesterov": 0.03, "adam": 0.01, "gauss-newton": 1.0}


@each_method
def test_every_method_comes_to_the_same_equilibrium(method):
    net = case((6, 8, 8, 4), seed=3, scale=0.7)
    exact_end = infer(net.params, net.x, net.y, tolerance=1e-9, steps=200)
    assert exact_end.converged
    rate = RATE.get(method, 0.1)
    options = {"rate": rate, "tolerance": 1e-5, "steps": 20_000}
    end = infer(net.params, net.x, net.y, method=method, **options)
    assert end.converged and not end.diverged
    # Rest is a minimum of curvature of order one: the distance to it is of the order of the slope.
    for ours, theirs in zip(end.activities, exact_end.activities):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_euler_is_the_inference_of_predictive_coding():
    net = case((6, 8, 8, 4))
    options = {"method": "euler", "rate": 0.1, "tolerance": 0, "steps": 7}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = infer(net.params, net.x, net.y, **options).activities
    assert_close(
        ours, predictive_coding.infer(net.params, net.x, net.y, steps=7, rate=0.1).activities
    )


@fewer
@given(cases(("tanh", "sigmoid", "relu", "leaky relu"), ("squared error",), least=3))
def test_gauss_newton_never_lets_the_energy_rise(case):
    end = infer(
        case.params,
        case.x,
        case.y,
        activation=case.activation,
        precision=case.precision,
        tolerance=1e-6,
        steps=30,
    )
    assert (np.diff(end.energy) <= 1e-12 * end.energy[0]).all()
    assert not end.diverged


def test_gauss_newton_solves_a_linear_network_in_as_many_products_as_outputs():
    """The curvature is the identity plus a term of the output's rank."""
    net = case((5, 9, 9, 2), activation="identity")
    here = problem(net)
    xs = activities(net.params, net.x, "identity")[:-1]
    slopes, branches = here.down(xs, here.errors(xs))
    target = [-s for s in slopes]
    times = lambda m: here.curvature(branches, m, here.bend(xs))  # noqa: E731
    d, count = conjugate_gradients(times, target, Samples((0,) * len(target)), 1e-10, 50)
    assert count <= 3
    closed = infer(net.params, net.x, net.y, method="closed form", activation="identity")
    assert_close(d, here.errors(closed.activities)[:-1], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("loss", ["squared error", "cross entropy"])
def test_barzilai_borwein_ends_where_gauss_newton_does_at_a_sweep_a_step(loss):
    net = case((6, 8, 8, 8, 4), seed=3, scale=0.7)
    y = jnp.abs(net.y) / jnp.abs(net.y).sum(1, keepdims=True)
    options = {"loss": loss, "tolerance": 1e-9, "steps": 300, "precision": 0.5}
    exact = infer(net.params, net.x, y, **options)
    found = infer(net.params, net.x, y, method="barzilai-borwein", **options)
    assert found.converged and exact.converged and not found.diverged
    assert_close(found.activities, exact.activities, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.sweeps, 1 + np.arange(len(found.sweeps)))
    assert found.energy[-1] == pytest.approx(exact.energy[-1])
    rules = [fast_inference.rule(m, **options) for m in ("barzilai-borwein", "gauss-newton")]
    ours, theirs = (rule.gradient(net.params, (), net.x, y, None) for rule in rules)
    assert_close(ours[:2], theirs[:2], rtol=1e-4, atol=1e-6)


# --- Kinks


def relu_at_rest():
    net = case((6, 12, 12, 4), batch=5, seed=1, activation="relu")
    end = infer(net.params, net.x, net.y, activation="relu", tolerance=1e-8, steps=100)
    assert end.converged
    return net, end.activities


def test_at_a_relus_equilibrium_no_unit_can_lower_the_energy_by_itself():
    """Finite steps to both sides of every unit: an oracle that knows no slope."""
    net, xs = relu_at_rest()

    def energies(xs):
        return predictive_coding.energy(net.params, xs, net.y, "relu")

    rest, h = energies(xs), 1e-5
    for l in range(1, len(xs)):
        for unit in range(xs[l].shape[1]):
            for side in (h, -h):
                moved = [x.at[:, unit].add(side) if k == l else x for k, x in enumerate(xs)]
                assert (energies(moved) >= rest - 1e-9).all()


def test_units_rest_on_the_kink_where_the_plain_slope_is_large():
    net, xs = relu_at_rest()
    on_kink = [x == 0 for x in xs[1:]]
    assert sum(int(k.sum()) for k in on_kink) > 0
    es = predictive_coding.errors(net.params, xs, net.y, "relu")
    plain = predictive_coding.velocities(net.params, xs, es, "relu")[1:]
    assert max(float(jnp.abs(jnp.where(k, v, 0)).max()) for k, v in zip(on_kink, plain)) > 1e-2
    assert max(float(jnp.abs(jnp.where(k, 0, v)).max()) for k, v in zip(on_kink, plain)) < 1e-6


# --- Work


def test_a_sweep_is_what_xla_counts():
    """One pass up and one down make the products of the layers from the second on, twice."""
    net = case((40, 50, 50, 50, 10), batch=20)
    here = problem(net)
    es = here.errors(net.xs)
    _, branches = here.down(net.xs, es)
    first, *rest = (layer.W.size for layer in net.params)
    product = 2 * len(net.x)
    arrays = (net.params, net.y, net.xs, es, branches)

    def on(function):
        def call(params, y, *rest):
            return function(Problem(params, y, "tanh", "squared error", 1.0), *rest)

        return call

    passes = {
        "up": (lambda here, xs, es, at: here.up(xs, es[:-1], at), first + sum(rest)),
        "down": (lambda here, xs, es, _: here.down(xs, es), sum(rest)),
        "look": (lambda here, xs, es, _: here.velocities(xs, es), sum(rest)),
        "curvature": (
            lambda here, xs, es, at: here.curvature(at, es[:-1], here.bend(xs)),
            2 * sum(rest),
        ),
        "errors": (lambda here, xs, es, _: here.errors(xs), first + sum(rest)),
    }
    for name, (function, weights) in passes.items():
        counted = cost.count(on(function), *arrays)["flops"]
        assert counted == pytest.approx(product * weights, rel=0.15), name


def test_backprops_counts_what_backprop_multiplies():
    params = case((3, 5, 4, 2)).params
    first, rest = 15, 20 + 8
    forward, blame, weights = first + rest, rest, first + rest
    assert backprops(params, 7.0) == pytest.approx(
        (first + 7 * 2 * rest) / (forward + blame + weights)
    )


@pytest.mark.parametrize(("method", "each"), [("euler", 1.0), ("errors", 1.5)])
def test_sweeps_are_billed_step_by_step(method, each):
    net = case((6, 8, 8, 4))
    end = infer(net.params, net.x, net.y, method=method, rate=0.01, tolerance=0, steps=4)
    np.testing.assert_allclose(end.sweeps, 1 + each * np.arange(5))


def test_a_gauss_newton_step_pays_a_sweep_for_each_product_with_the_curvature():
    """In a linear network the whole step is accepted, so there is one trial."""
    net = case((6, 8, 8, 4), activation="identity")
    here = problem(net)
    xs = activities(net.params, net.x, "identity")[:-1]
    slopes, branches = here.down(xs, here.errors(xs))
    times = lambda m: here.curvature(branches, m, here.bend(xs))  # noqa: E731
    _, products = conjugate_gradients(times, [-s for s in slopes], Samples((0, 0)))
    end = infer(net.params, net.x, net.y, activation="identity", tolerance=0, steps=1)
    down, trial_up, look_down = 0.5, 0.5, 0.5
    np.testing.assert_allclose(end.sweeps, [1, 1 + down + products + trial_up + look_down])


def test_a_warm_start_at_the_equilibrium_has_nothing_to_do():
    net = case((6, 8, 8, 4))
    cold = infer(net.params, net.x, net.y)
    warm = infer(net.params, net.x, net.y, start=cold.activities)
    assert warm.converged
    np.testing.assert_allclose(warm.sweeps, [2.0])


def test_distance_is_that_of_the_weight_update():
    net = case((6, 8, 8, 4))
    end = infer(net.params, net.x, net.y)
    es = predictive_coding.errors(net.params, end.activities, net.y)
    update = predictive_coding.weight_gradients(end.activities, es)
    again = infer(net.params, net.x, net.y, reference=update)
    assert again.distance[-1] < 1e-9 < again.distance[0]
    assert np.isnan(end.distance).all()


# --- What goes wrong is said


def test_an_energy_that_rises_is_warned_of():
    net = case((6, 8, 8, 4))
    with pytest.warns(RuntimeWarning, match="method 'euler' at rate 5"):
        end = infer(net.params, net.x, net.y, method="euler", rate=5, steps=50)
    assert end.diverged and not end.converged
    assert len(end.sweeps) < 51


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "magic"}, "method = 'magic': must be one of 'euler'"),
        ({"activation": "sine"}, "activation = 'sine'"),
        ({"rate": 0}, "rate = 0: must be a positive number"),
        ({"precision": -1.0}, "precision = -1.0: must be a positive number"),
        ({"steps": 0}, "steps = 0: must be an integer of at least 1"),
        ({"tolerance": 1.5}, "tolerance = 1.5: must be at least 0 and less than 1"),
        ({"method": "closed form"}, "activation = 'tanh': must be 'identity'"),
        ({"method": "barzilai-borwein", "activation": "relu"}, "must have no kink"),
        (
            {"method": "barzilai-borwein", "start": [np.ones((3, 6))]},
            "must be left out for barzilai",
        ),
        ({"y": jnp.ones((3, 7))}, "y has shape"),
        ({"x": jnp.ones((3, 5))}, "x has shape"),
    ],
)
def test_bad_input_is_named(options, words):
    net = case((6, 8, 4))
    x, y = options.pop("x", net.x), options.pop("y", net.y)
    with as_a_reader_runs_it(), pytest.raises(ValueError) as error:
        infer(net.params, x, y, **options)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "magic"}, "method = 'magic': must be one of 'euler'"),
        ({"activation": "sine"}, "activation = 'sine'"),
        ({"rate": 0}, "rate = 0: must be a positive number"),
        ({"precision": -1.0}, "precision = -1.0: must be a positive number"),
        ({"steps": -3}, "steps = -3: must be an integer of at least 1"),
        ({"tolerance": 7}, "tolerance = 7: must be at least 0 and less than 1"),
        ({"method": "closed form"}, "activation = 'tanh': must be 'identity'"),
    ],
)
def test_a_rule_refuses_what_inference_refuses(options, words):
    with pytest.raises(ValueError) as error:
        fast_inference.rule(**options)
    assert words in str(error.value)


# --- Learning


def test_the_rule_updates_by_the_errors_of_the_equilibrium():
    net = case((6, 8, 8, 4))
    rule = fast_inference.rule(tolerance=1e-8, steps=100)
    loss, update, _ = rule.gradient(net.params, (), net.x, net.y, None)
    xs = predictive_coding.infer(net.params, net.x, net.y, steps=8000, rate=0.05).activities
    es = predictive_coding.errors(net.params, xs, net.y)
    assert_close(update, predictive_coding.weight_gradients(xs, es), rtol=1e-4, atol=1e-6)
    assert_close(loss, ((net.y - rule.predict(net.params, net.x)) ** 2).sum(-1).mean() / 2)


def test_a_network_learns_at_its_equilibrium():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(96, 2))
    labels = (x[:, 0] * x[:, 1] > 0).astype(int)
    dataset = Dataset(x, labels, x, labels)
    learned = fit(
        fast_inference.rule(),
        init(random.key(0), (2, 16, 2)),
        dataset,
        optimizer=optax.adam(0.03),
        epochs=30,
        batch_size=32,
        key=random.key(1),
    )
    assert learned.history.score[-1] > 0.8  # a linear classifier gets about half


def test_relus_get_larger_weights_and_keep_the_size_of_what_passes():
    sizes = (64,) * 12
    x = random.normal(random.key(1), (50, 64))
    params = init(random.key(0), sizes, "relu")
    plain = init(random.key(0), sizes)
    np.testing.assert_allclose(params[3].W, np.sqrt(2) * plain[3].W)
    size = [float((xs**2).mean()) for xs in (activities(p, x, "relu")[-1] for p in (params, plain))]
    assert size[0] > 0.1 > 0.01 > size[1]  # halved eleven times without


# --- A residual network that can be deep


def test_residual_network_is_the_formula():
    model = residual(5, 7, 4, 3, "tanh")
    params = model.init(random.key(0))
    x = random.normal(random.key(1), (2, 5))
    h = x @ params["first"].T / np.sqrt(5)
    for W in params["hidden"]:
        h = h + jnp.tanh(h) @ W.T / np.sqrt(7 * 4)
    out = h @ params["last"].T / 7
    assert_close(model.apply(params, x), out)
    assert params["hidden"].shape == (2, 7, 7)  # L = 4: one in, two between, one out


def test_residual_rule_is_predictive_coding_along_the_graph():
    """Errors as coordinates and activities as coordinates: the same rest, the same update."""
    model = residual(5, 7, 5, 3, "tanh")
    params = model.init(random.key(0))
    x, y = random.normal(random.key(1), (2, 5)), random.normal(random.key(2), (2, 3))
    rule = residual_rule(steps=100, rate=0.3)
    loss, update, _ = rule.gradient(params, (), x, y, None)
    options = {"method": "inference-learning", "steps": 1000, "rate": 0.2, "vertices": "named"}
    value, theirs, _ = graph.rule(model, **options).gradient(params, (), x, y, None)
    assert_close(loss, value)
    assert_close(update, theirs, rtol=1e-6, atol=1e-8)


def test_too_shallow_a_residual_network_is_named():
    with pytest.raises(ValueError, match="depth = 2: must be an integer of at least 3"):
        residual(5, 7, 2, 3)


# --- The criteria of the claims

WIDTHS = np.array([[0.4, 0.5], [0.8, 0.9], [0.99, 1.0]])


@pytest.mark.parametrize(
    ("claim", "meets", "fails"),
    [
        (
            "fast-signal-decay",
            {"rest": 1.0, "activities": 1e-6, "errors": 0.995},
            [{"rest": 0.9}, {"activities": 1e-3}, {"errors": 0.98}, {"errors": 1.02}],
        ),
        (
            "fast-hundredfold",
            {"tanh": [50.0, 60.0], "relu": [90.0, 70.0]},
            [{"tanh": [15.0, 16.0]}, {"relu": [45.0, 50.0]}],
        ),
        (
            "fast-mupc-width",
            {"cosine": WIDTHS},
            [{"cosine": WIDTHS[[1, 0, 2]]}, {"cosine": WIDTHS[:2]}],
        ),
    ],
)
def test_a_criterion_can_be_met_and_can_fail(claim, meets, fails):
    criterion = claims.criteria()[claim]
    assert criterion(meets) is True
    assert [criterion(meets | change) for change in fails] == [False] * len(fails)
