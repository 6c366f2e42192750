"""pcbook.graph against jax.grad, closed forms and its own locality."""

import os
import subprocess
import sys
import time
from functools import partial

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import use_float64
from flax import nnx
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jax import lax, random
from jax.ad_checkpoint import checkpoint_name
from jax.flatten_util import ravel_pytree

from pcbook import data, fast_inference, graph, models, network, predictive_coding, rules
from pcbook.store import claims

KEY = random.key(0)
EXACT = ("z-il", "fixed-prediction")


@pytest.fixture(autouse=True, scope="module")
def in_float64():
    with use_float64():
        yield


def draw(shape, seed=0):
    return random.normal(random.key(seed), shape)


def distance(tree, other):
    """The largest relative distance between two leaves."""
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    return max(float(jnp.linalg.norm(a - b) / (jnp.linalg.norm(b) + 1e-30)) for a, b in pairs)


def cosine(a, b):
    a, b = jnp.ravel(a), jnp.ravel(b)
    return float(a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b))


def like(tree):
    return [(jnp.shape(x), jnp.result_type(x)) for x in jax.tree.leaves(tree)]


def assert_backprop(loss, *args, has_aux=False, argnums=0, tolerance=1e-10, **options):
    """Fixed prediction and Z-IL return what jax.value_and_grad returns."""
    methods = [
        jax.value_and_grad(loss, argnums, has_aux),
        *(
            graph.value_and_grad(loss, method=m, has_aux=has_aux, argnums=argnums, **options)
            for m in EXACT
        ),
    ]
    expected, *all_found = jax.jit(lambda *args: [learn(*args) for learn in methods])(*args)
    for method, found in zip(EXACT, all_found):
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        assert like(found) == like(expected)
        assert distance(found[0], expected[0]) < 1e-12
        assert distance(found[1], expected[1]) < tolerance, method


def squared(model):
    return lambda params, x, y: ((model.apply(params, x) - y) ** 2).sum() / 2


def labelled(model):
    def loss(params, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x), y).mean()

    return loss


def text(tokens=7, length=12, batch=3):
    x = random.randint(KEY, (batch, length + 1), 0, tokens)
    return x[:, :-1], x[:, 1:]


CASES = {
    "multilayer": lambda: (squared, models.mlp((6, 9, 7, 5, 3)), draw((4, 6)), draw((4, 3))),
    "convolutional": lambda: (labelled, models.cnn((1, 4, 6)), draw((5, 8, 8, 1)), jnp.arange(5)),
    "residual": lambda: (squared, models.residual(6, 8, 4, 3), draw((4, 6)), draw((4, 3))),
    "recurrent": lambda: (squared, models.rnn(3, 6, 2), draw((4, 20, 3)), draw((4, 20, 2))),
    "LSTM": lambda: (squared, models.lstm(3, 5, 2), draw((4, 8, 3)), draw((4, 8, 2))),
    "transformer": lambda: (labelled, models.transformer(7, 12, 16), *text()),
}


def case(name):
    loss, model, *data = CASES[name]()
    return loss(model), model.init(KEY), *data


# ------------------------------------------------------------------- exactly backprop


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_fixed_prediction_and_z_il_are_backprop(name):
    assert_backprop(*case(name))


def test_they_are_backprop_on_an_equinox_model():
    model = eqx.nn.MLP(5, 3, 8, 3, activation=jnp.tanh, key=KEY)
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    args = params, draw((6, 5)), draw((6, 3))

    def loss(params, x, y):
        return ((jax.vmap(eqx.combine(params, rest))(x) - y) ** 2).mean()

    assert_backprop(loss, *args)
    assert [v.depth for v in graph.trace(loss)(*args)] == [3, 2, 1, 0]


def test_they_are_backprop_on_a_flax_model_with_batch_norm_and_dropout():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.BatchNorm(use_running_average=False)(nn.Conv(4, (3, 3))(x)))
            x = nn.avg_pool(x, (2, 2), (2, 2)).reshape(len(x), -1)
            x = nn.Dropout(0.3, deterministic=False)(nn.Dense(8)(x))
            return nn.Dense(3)(nn.relu(x))

    x = draw((5, 8, 8, 1))
    variables = Model().init({"params": KEY, "dropout": KEY}, x)

    def loss(params, x, y, key):
        state = {"params": params, "batch_stats": variables["batch_stats"]}
        out, new = Model().apply(state, x, rngs={"dropout": key}, mutable=["batch_stats"])
        return ((out - y) ** 2).mean(), new

    args = variables["params"], x, draw((5, 3)), random.key(7)
    assert_backprop(loss, *args, has_aux=True)
    names = [v.name for v in graph.trace(loss, has_aux=True)(*args)]
    assert [n.split("/")[-1] for n in names] == ["Conv_0", "Dense_0", "Dense_1"]


def test_they_are_backprop_on_a_flax_lstm():
    model = nn.RNN(nn.OptimizedLSTMCell(6, param_dtype=jnp.float64))
    x, y = draw((3, 20, 4)), draw((3, 20, 6))
    params = model.init(KEY, x)
    assert_backprop(lambda params, x: ((model.apply(params, x) - y) ** 2).sum(), params, x)


@st.composite
def graphs(draw):
    """A random DAG of products, nonlinearities, sums, skips, shared weights and inner functions."""
    width, weights = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    kinds = st.sampled_from(
        ["product", "affine", "tanh", "sin", "times", "plus", "scan", "remat", "jit"]
    )
    nodes = [("product", 0, 0, 0)] + [
        (
            draw(kinds),
            draw(st.integers(0, i)),
            draw(st.integers(0, i)),
            draw(st.integers(0, weights - 1)),
        )
        for i in range(1, draw(st.integers(2, 12)))
    ]
    read = draw(st.lists(st.integers(0, len(nodes) - 1), min_size=1, max_size=3))
    return width, weights, nodes, read


def build(width, weights, nodes, read):
    def loss(params, x):
        values = [x]
        for kind, a, b, w in nodes:
            values.append(operation(kind, values[a], values[b], *params[w]))
        return sum((values[1 + r] ** 2).mean() for r in read) + (values[1] * values[-1]).mean()

    params = [
        (random.normal(k, (width, width)), random.normal(k, (width,)))
        for k in random.split(KEY, weights)
    ]
    return loss, params, random.normal(KEY, (3, width))


def operation(kind, a, b, W, c):
    match kind:
        case "product":
            return a @ W
        case "affine":
            return a @ W + c
        case "tanh":
            return jnp.tanh(a)
        case "sin":
            return jnp.sin(a + c)
        case "times":
            return jnp.tanh(a) * jnp.cos(b)
        case "plus":
            return a + b
        case "scan":
            return lax.scan(lambda h, _: (jnp.tanh(h @ W + b), None), a, None, 3)[0]
        case "remat":
            return jax.checkpoint(lambda a, W: jnp.tanh(jnp.sin(a @ W) @ W))(a, W)
        case "jit":
            return jax.jit(lambda a, b: jnp.cos(a @ W + b))(a, b)


def assert_near(update, expected, tolerance):
    """Equal up to `tolerance` of the whole gradient's length (or of one, if it vanishes)."""
    off = optax.global_norm(jax.tree.map(jnp.subtract, update, expected))
    assert off < tolerance * max(1, optax.global_norm(expected))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(graphs())
def test_they_are_backprop_on_random_graphs(parts):
    loss, params, x = build(*parts)
    methods = [jax.value_and_grad(loss), *(graph.value_and_grad(loss, method=m) for m in EXACT)]
    (value, expected), *found = jax.jit(lambda *args: [learn(*args) for learn in methods])(
        params, x
    )
    for same_value, update in found:
        assert float(same_value) == pytest.approx(float(value), rel=1e-10)
        assert_near(update, expected, 1e-10)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(graphs(), st.sampled_from([0.3, 0.7]))
def test_at_any_rate_fixed_prediction_comes_to_rest_at_backprop(parts, rate):
    loss, params, x = build(*parts)
    learn = graph.value_and_grad(loss, method="fixed-prediction", rate=rate, steps=600)
    assert_near(jax.jit(learn)(params, x)[1], jax.grad(loss)(params, x), 1e-8)


# ------------------------------------------------------------------- depth and rate


@pytest.mark.parametrize("name", CASES)
def test_fixed_prediction_needs_as_many_steps_as_the_graph_is_deep_and_not_one_less(name):
    loss, *args = case(name)
    depth = graph.trace(loss)(*args).depth
    e = jax.jit(graph.errors(loss, steps=depth + 3))(*args)

    def off(moment):
        return distance([x[moment] for x in e], [x[-1] for x in e])

    assert off(depth - 1) > 1e-9
    assert off(depth) == off(depth + 1) == 0


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(4, 3, 5, 2), (2, 6, 4, 4, 3, 1)])
@settings(max_examples=20, deadline=None)
@given(rate=st.floats(0.05, 1.5))
def test_on_a_chain_z_il_scales_layer_k_below_the_top_by_rate_to_the_k(sizes, rate):
    model = models.mlp(sizes)
    args = model.init(KEY), draw((4, sizes[0])), draw((4, sizes[-1]))
    expected = jax.grad(squared(model))(*args)
    _, update = graph.value_and_grad(squared(model), rate=rate)(*args)
    for k, (found, backprop) in enumerate(zip(update[::-1], expected[::-1])):
        assert distance(found, jax.tree.map(lambda g, k=k: rate**k * g, backprop)) < 1e-10
        assert cosine(found.W, backprop.W) == pytest.approx(1)


def test_z_il_is_what_fixed_prediction_has_when_the_front_first_reaches_a_layer():
    loss, *args = case("multilayer")
    _, front = graph.value_and_grad(loss, rate=0.4)(*args)
    for k in range(1, 4):
        learn = graph.value_and_grad(loss, method="fixed-prediction", rate=0.4, steps=k)
        assert distance(learn(*args)[1][-1 - k], front[-1 - k]) < 1e-12


def test_a_vertex_that_the_loss_reads_beside_others_keeps_the_losss_error_whole():
    def loss(W, x):
        h = x @ W[0]
        return (h**2).sum() / 2 + ((jnp.tanh(h) @ W[1]) ** 2).sum() / 2

    W, x = [draw((3, 3)), draw((3, 3), 1)], draw((2, 3), 2)
    h, (slope_h, slope_y) = x @ W[0], (lambda h: (h, jnp.tanh(h) @ W[1]))(x @ W[0])
    sent = (slope_y @ W[1].T) * (1 - jnp.tanh(h) ** 2)
    _, update = graph.value_and_grad(loss, rate=0.3)(W, x)
    assert distance(update[0], x.T @ (slope_h + 0.3 * sent)) < 1e-12


def test_errors_are_minus_the_gradients_in_the_activities():
    loss, *args = case("residual")
    last = [e[-1] for e in graph.errors(loss)(*args)]
    vertices = graph.trace(loss)(*args)
    assert [e.shape for e in last] == [v.shape for v in vertices]

    def shifted(shifts):
        def apply(params, x):
            x = network.predict(params["in"], x) + shifts[0]
            for i, (up, down) in enumerate(params["blocks"]):
                h = jax.nn.relu(network.predict(up, x) + shifts[2 * i + 1])
                x = x + (network.predict(down, h) + shifts[2 * i + 2]) / 4
            return network.predict(params["out"], x) + shifts[-1]

        return squared(models.Model("shifted", None, apply))(*args)

    gradient = jax.grad(shifted)([jnp.zeros(v.shape) for v in vertices])
    assert distance(last, [-g for g in gradient]) < 1e-12


def scalar(v0, theta=2.0, target=1.0):
    """tan(sqrt(theta v0)) + sin(v0^2), a vertex an operation (Millidge et al. 2020)."""
    v0 = checkpoint_name(v0, "v0")
    v1 = checkpoint_name(theta * v0, "v1")
    v2 = checkpoint_name(jnp.sqrt(v1), "v2")
    v3 = checkpoint_name(jnp.tan(v2), "v3")
    v4 = checkpoint_name(v3 + jnp.sin(v0**2), "v4")
    return (v4 - target) ** 2 / 2


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5])
def test_on_the_scalar_graph_an_error_k_below_the_top_decays_as_k_lags_in_a_row(rate):
    es = graph.errors(scalar, vertices="named", steps=300, rate=rate)(5.0)
    lagged = jnp.zeros(301).at[:].set(es[4])
    for k, slope in ((3, 1.0), (2, 1 / jnp.cos(jnp.sqrt(10.0)) ** 2), (1, 1 / 2 / jnp.sqrt(10.0))):
        following = [0.0]
        for arrived in lagged[:-1]:
            following.append((1 - rate) * following[-1] + rate * float(slope * arrived))
        lagged = jnp.array(following)
        np.testing.assert_allclose(es[k], lagged, atol=1e-12)


@pytest.mark.parametrize(
    "vertices, rate, steps",
    [
        (("v0", "v3", "v4"), 0.02, 235),
        (("v0", "v3", "v4"), 0.1, 46),
        ("named", 0.02, 275),
        ("named", 0.1, 54),
        ("named", 1.0, 4),
    ],
)
def test_the_finer_the_scalar_graph_is_cut_the_longer_its_errors_travel(vertices, rate, steps):
    """Steps until the error of v0 is within one percent of backprop's gradient."""
    es = graph.errors(scalar, vertices=vertices, steps=400, rate=rate)(5.0)
    off = np.abs(es[0] / -jax.grad(scalar)(5.0) - 1)
    assert np.argmax(off < 0.01) == steps


# ------------------------------------------------------------------- locality


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_method_of_update_is_local(name):
    """A weight's update moves with its own two ends, and with nothing else."""
    loss, params, *data = case(name)
    vs, vertices = jax.jit(graph.activities(loss))(params, *data), graph.trace(loss)(params, *data)
    predict = graph.predictions(loss)
    es = [draw(v.shape, i) for i, v in enumerate(vs)]
    leaves = jax.tree.leaves(params)

    @jax.jit
    def update(vs, es):
        """(dmu/dW)^T e at the activities given, whatever they are."""
        _, back = jax.vjp(lambda p: predict(vs, p, *data)[1], params)
        return jax.tree.leaves(back(es)[0])

    def changed(a, b):
        return [bool(jnp.any(x != y)) for x, y in zip(a, b)]

    base = update(vs, es)
    owners = [[] for _ in leaves]
    for i in range(len(vs)):
        moved = [e + (j == i) for j, e in enumerate(es)]
        for leaf, is_changed in enumerate(changed(update(vs, moved), base)):
            if is_changed:
                owners[leaf].append(i)
    for leaf, (post, weights) in enumerate(zip(owners, leaves)):
        assert post, "every weight predicts some vertex"
        ends = set(post).union(*(vertices.parents[i] for i in post))
        elsewhere = [v if i in ends else v + draw(v.shape, 9) for i, v in enumerate(vs)]
        silent = [e if i in post else draw(e.shape, 8) for i, e in enumerate(es)]
        assert jnp.array_equal(update(elsewhere, silent)[leaf], base[leaf]), weights.shape


def test_on_a_chain_each_weight_has_one_vertex_above_and_one_below():
    loss, *args = case("multilayer")
    found = graph.trace(loss)(*args)
    assert found.parents == [(), (0,), (1,), (2,)]
    assert found.read_by_loss == (3,)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_updates_of_all_methods_are_local_products_of_their_errors(name):
    """Z-IL and fixed prediction return (dmu/dW)^T e with their own errors, and no more."""
    loss, params, *data = case(name)

    @jax.jit
    def both(params):
        vs = graph.activities(loss)(params, *data)
        es = [e[-1] for e in graph.errors(loss)(params, *data)]
        _, back = jax.vjp(lambda p: graph.predictions(loss)(vs, p, *data), params)
        return back((jnp.array(-1.0), es))[0], [
            graph.value_and_grad(loss, method=m)(params, *data)[1] for m in EXACT
        ]

    local, updates = both(params)
    for update in updates:
        assert distance(update, jax.tree.map(jnp.negative, local)) < 1e-10


# ------------------------------------------------------------------- inference learning


@pytest.mark.parametrize("steps, rate", [(1, 0.1), (20, 0.1), (7, 0.3)])
def test_inference_learning_on_a_chain_is_the_predictive_coding_chapter(steps, rate):
    params, x, y = network.init(KEY, (5, 7, 6, 3)), draw((4, 5)), draw((4, 3))

    def loss(params, x, y):
        return ((network.forward(params, x) - y) ** 2).sum() / 2

    euler = {"method": "inference-learning", "inference": "activities"}
    _, found = graph.value_and_grad(loss, **euler, steps=steps, rate=rate)(params, x, y)
    xs = predictive_coding.infer(params, x, y, steps=steps, rate=rate).activities
    expected = predictive_coding.weight_gradients(xs, predictive_coding.errors(params, xs, y))
    assert distance(found, jax.tree.map(lambda g: 4 * g, expected)) < 1e-10


def test_inference_learning_is_not_backprop():
    loss, *args = case("multilayer")
    _, found = graph.value_and_grad(loss, method="inference-learning", steps=100, rate=0.1)(*args)
    assert cosine(found[0].W, jax.grad(loss)(*args)[0].W) < 0.99


def test_inference_learning_tends_to_backprop_as_the_loss_is_scaled_down():
    loss, *args = case("multilayer")
    expected = jax.grad(loss)(*args)

    def off(small):
        learn = graph.value_and_grad(
            lambda *a: small * loss(*a), method="inference-learning", steps=400, rate=0.1
        )
        return distance(jax.tree.map(lambda g: g / small, learn(*args)[1]), expected)

    far = [off(small) for small in (0.1, 0.01, 0.001)]
    assert far[0] > 5 * far[1] > 25 * far[2]


def test_inference_learning_through_a_scan_is_that_of_the_unrolled_loop():
    params, x = models.rnn(3, 4, 2).init(KEY), draw((2, 5, 3))

    def unrolled(params, x):
        h, total = jnp.zeros((2, 4)), 0.0
        for t in range(5):
            h = jnp.tanh(network.predict(params["cell"], jnp.concatenate([x[:, t], h], -1)))
            total += (network.predict(params["out"], h) ** 2).sum()
        return total

    def scanned(params, x):
        return (models.rnn(3, 4, 2).apply(params, x) ** 2).sum()

    a, b = (
        graph.value_and_grad(f, method="inference-learning", steps=10, rate=0.1)(params, x)
        for f in (unrolled, scanned)
    )
    assert distance(a, b) < 1e-12


@pytest.mark.parametrize("name", CASES)
def test_inference_learning_descends_the_energy_on_any_graph(name):
    loss, *args = case(name)
    learn = jax.jit(graph.value_and_grad(loss, method="inference-learning", steps=10, rate=0.02))
    value, update = learn(*args)
    assert value == pytest.approx(loss(*args))
    assert all(jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(update))


# ------------------------------------------------------------------- to the equilibrium


def per_sample(model):
    """The squared error of each sample, summed over all else."""

    def loss(params, x, y):
        return ((model.apply(params, x) - y) ** 2).reshape(len(x), -1).sum(1) / 2

    return loss


def small_text():
    x = random.randint(KEY, (3, 6), 0, 5)
    return x, jax.nn.one_hot(jnp.roll(x, -1, 1), 5)


DEEP = {
    "multilayer": lambda: (models.mlp((6, 9, 7, 5, 3)), draw((4, 6)), draw((4, 3))),
    "residual": lambda: (models.residual(6, 8, 4, 3), draw((4, 6)), draw((4, 3))),
    "LSTM": lambda: (models.lstm(3, 5, 2), draw((4, 8, 3)), draw((4, 8, 2))),
    "transformer": lambda: (models.transformer(5, 6, 8, layers=1), *small_text()),
    "20 layers": lambda: (models.mlp((8,) * 20 + (3,)), draw((4, 8)), draw((4, 3))),
}


def deep(name):
    model, *data = DEEP[name]()
    return per_sample(model), model.init(KEY), *data


def energy_by_predictions(loss, args):
    """The energy, from `graph.predictions`, over the activities that the loss does not read alone.

    Those that it does are at their predictions.
    """
    free = [vertex.depth > 0 for vertex in graph.trace(loss)(*args)]
    predict = graph.predictions(lambda *args: loss(*args).sum())

    def energy(held, all_vs):
        held = iter(held)
        vs = [next(held) if f else v for f, v in zip(free, all_vs)]
        _, mus = predict(vs, *args)
        vs = [v if f else mu for f, v, mu in zip(free, vs, mus)]
        value, mus = predict(vs, *args)
        return value + sum(((v - mu) ** 2).sum() for v, mu in zip(vs, mus)) / 2

    return energy, lambda vs: [v for f, v in zip(free, vs) if f]


def size(tree):
    return float(jnp.sqrt(sum((g**2).sum() for g in jax.tree.leaves(tree))))


SMOOTH = ["multilayer", "LSTM", "20 layers"]  # a relu has kinks, where no slope is zero


@pytest.mark.slow
@pytest.mark.parametrize("name", SMOOTH)
def test_the_slope_of_the_energy_is_zero_where_inference_in_errors_ends(name):
    loss, *args = deep(name)
    start = graph.activities(loss)(*args)
    found = jax.jit(graph.settle(loss, tolerance=1e-7, steps=400))(*args)
    assert found.converged and not found.diverged
    energy, held = energy_by_predictions(loss, args)
    slope = jax.jit(jax.grad(energy))
    assert size(slope(held(found.activities), found.activities)) < 1e-5 * size(
        slope(held(start), start)
    )
    assert energy(held(found.activities), found.activities) == pytest.approx(
        len(args[1]) * found.energy[int(found.steps)]
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DEEP.keys() - set(SMOOTH)))
def test_at_kinks_the_energy_ends_below_its_beginning_and_rest_is_not_claimed(name):
    loss, *args = deep(name)
    found = jax.jit(graph.settle(loss, tolerance=1e-7, steps=100))(*args)
    assert not found.diverged
    assert found.energy[int(found.steps)] < 0.9 * found.energy[0]
    assert bool(found.converged) == bool(found.residual <= 1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["multilayer", "LSTM"])
def test_errors_and_gauss_newton_and_small_steps_of_activities_end_at_one_equilibrium(name):
    loss, *args = deep(name)
    options = {"tolerance": 1e-8, "steps": 20_000}
    ways = {"errors": {}, "gauss-newton": {}, "activities": {"rate": 0.02}}
    found = [graph.settle(loss, inference=i, **options, **o)(*args) for i, o in ways.items()]
    assert all(f.converged for f in found)
    for other in found[1:]:
        assert distance(other.activities, found[0].activities) < 1e-6
    updates = [
        graph.value_and_grad(loss, method="inference-learning", inference=i, **options, **o)(*args)
        for i, o in ways.items()
    ]
    assert distance(updates[1], updates[0]) < 1e-5 > distance(updates[2], updates[0])


def test_a_linear_program_settles_where_linear_equations_say():
    """Three products with a skip; the energy is quadratic, so its Hessian is exact."""
    Ws, x, y = draw((3, 4, 4)), draw((2, 4), 1), draw((2, 4), 2)

    def loss(Ws, x, y):
        h = x @ Ws[0]
        return ((h @ Ws[1] @ Ws[2] + h - y) ** 2).sum(1) / 2

    found = graph.settle(loss, tolerance=1e-10)(Ws, x, y)
    start = graph.activities(loss)(Ws, x, y)
    energy, held = energy_by_predictions(loss, (Ws, x, y))
    flat, restore = ravel_pytree(held(start))
    of_flat = lambda flat: energy(restore(flat), start)  # noqa: E731
    exact = flat - jnp.linalg.solve(jax.hessian(of_flat)(flat), jax.grad(of_flat)(flat))
    assert distance(held(found.activities), restore(exact)) < 1e-8


def test_a_sample_settles_as_it_does_alone():
    loss, params, x, y = deep("multilayer")
    _, together = graph.value_and_grad(loss, method="inference-learning")(params, x, y)
    alone = [
        graph.value_and_grad(loss, method="inference-learning")(params, x[i : i + 1], y[i : i + 1])
        for i in range(len(x))
    ]
    mean = jax.tree.map(lambda *updates: sum(updates) / len(x), *(u for _, u in alone))
    assert distance(together, mean) < 1e-10


@pytest.mark.parametrize("size", [1.0, 4.0])
@pytest.mark.parametrize("first", [0.1, 5.0])
def test_in_errors_the_energy_never_ends_above_its_beginning(size, first):
    model = models.mlp((8,) * 12 + (3,))
    loss, x, y = per_sample(model), draw((4, 8)), draw((4, 3))
    params = jax.tree.map(lambda w: size * w, model.init(KEY))
    for steps in (1, 2, 5, 20):
        found = jax.jit(graph.settle(loss, steps=steps, rate=first))(params, x, y)
        assert found.energy[-1] <= found.energy[0] and not found.diverged


def test_activities_at_a_large_rate_diverge_with_a_warning_that_names_the_largest_stable_rate():
    loss, *args = deep("multilayer")
    stable = float(graph.largest_stable_rate(loss)(*args))
    start = graph.activities(loss)(*args)
    energy, held = energy_by_predictions(loss, args)
    flat, restore = ravel_pytree(held(start))
    hessian = jax.hessian(lambda flat: energy(restore(flat), start))(flat)
    assert stable == pytest.approx(2 / np.linalg.eigvalsh(hessian)[-1], rel=0.02)
    options = {"inference": "activities", "steps": 60}
    with pytest.warns(RuntimeWarning, match=f"largest stable rate .* is {stable:.3g}"):
        assert graph.settle(loss, rate=2 * stable, **options)(*args).diverged
    with pytest.warns(RuntimeWarning, match="inference = 'activities' at rate"):
        learn = graph.value_and_grad(loss, method="inference-learning", rate=2 * stable, **options)
        learn(*args)
    assert not graph.settle(loss, rate=0.8 * stable, **options)(*args).diverged


def test_of_a_loss_of_each_sample_all_methods_take_the_mean():
    loss, *args = deep("multilayer")
    mean = jax.value_and_grad(lambda *args: loss(*args).mean())(*args)
    for method in EXACT:
        found = graph.value_and_grad(loss, method=method)(*args)
        assert distance(found, mean) < 1e-12
    small = graph.value_and_grad(loss, method="inference-learning", precision=1e-6)(*args)
    assert distance(jax.tree.map(lambda u: 1e6 * u, small[1]), mean[1]) < 1e-4
    assert small[0] == pytest.approx(mean[0])


def test_a_loss_that_mixes_its_samples_takes_one_step_for_all():
    """Less the mean over the batch, an output depends on all samples."""
    W, x = draw((2, 3, 3)), draw((5, 3), 1)

    def loss(W, x):
        h = jnp.tanh(x @ W[0])
        return (jnp.tanh((h - h.mean(0)) @ W[1]) ** 2).sum()

    found = graph.settle(loss, tolerance=1e-8)(W, x)
    energy, held = energy_by_predictions(lambda *args: loss(*args)[None], (W, x))
    start = graph.activities(loss)(W, x)
    slope = jax.grad(energy)
    assert found.converged
    assert size(slope(held(found.activities), start)) < 1e-6 * size(slope(held(start), start))


# ------------------------------------------------------------------- composition


@st.composite
def stages(draw):
    """A program from (batch, 3) to (batch, 3): products and what is done between them."""
    kinds = st.sampled_from(["product", "tanh", "skip", "scan", "sin"])
    return draw(st.lists(kinds, min_size=0, max_size=4)), draw(st.integers(0, 9))


def stage(kinds, seed):
    """The function of a list of weights and an input, and the weights; it begins with a product."""
    Ws = list(random.normal(random.key(seed), (len(kinds) + 1, 3, 3)) / 2)

    def run(Ws, x):
        h = x @ Ws[0]
        for kind, W in zip(kinds, Ws[1:]):
            match kind:
                case "product":
                    h = h @ W
                case "tanh":
                    h = jnp.tanh(h) @ W
                case "skip":
                    h = h + jnp.tanh(h @ W)
                case "scan":
                    h = lax.scan(lambda h, _, W=W: (jnp.tanh(h @ W), None), h, None, 2)[0]
                case "sin":
                    h = jnp.sin(h)
        return h

    return run, Ws


@pytest.mark.slow
@settings(max_examples=5, deadline=None, phases=[Phase.generate])
@given(stages(), stages(), st.integers(0, 9))
def test_predictive_coding_of_a_composition_is_the_composition_of_predictive_codings(a, b, seed):
    """The second program sees the first through the value between them, and the first sees the
    second through what it sends back there, -dF/dx: the velocities and the updates of the two,
    joined so, are those of the whole. As in reverse mode, nothing else passes.
    """
    (f, W), (g, V) = stage(*a), stage(*b)
    x = draw((2, 3), seed)
    whole = lambda both, x: (g(both[1], f(both[0], x)) ** 2).sum() / 2  # noqa: E731
    last = lambda V, h: (g(V, h) ** 2).sum() / 2  # noqa: E731
    vs = graph.activities(whole)((W, V), x)
    vs = [v + draw(v.shape, i) / 3 for i, v in enumerate(vs)]
    count = len(graph.activities(lambda W: f(W, x).sum())(W))
    first, second = vs[:count], vs[count:]

    def energy(predict, vs, *args):
        value, mus = predict(vs, *args)
        return value + sum(((v - mu) ** 2).sum() for v, mu in zip(vs, mus)) / 2

    one = jax.grad(partial(energy, graph.predictions(whole)), (0, 1))(vs, (W, V), x)

    def below(vs, W, sent):
        """The energy of the first program, whose loss is linear: what comes back from above."""
        return energy(graph.predictions(lambda W: (f(W, x) * sent).sum()), vs, W)

    def between(vs, W):
        """The value that the first program hands up."""
        at = jax.grad(lambda sent: below(vs, W, sent))(jnp.zeros_like(x))
        return at

    above = graph.predictions(last, argnums=(0, 1))
    h = between(first, W)
    dsecond, dV, sent = jax.grad(partial(energy, above), (0, 1, 2))(second, V, h)
    dfirst, dW = jax.grad(below, (0, 1))(first, W, sent)
    assert distance(([*dfirst, *dsecond], (dW, dV)), one) < 1e-10


# ------------------------------------------------------------------- as a rule

LEARNERS = {
    "multilayer": lambda: (models.mlp((6, 5, 3)), draw((4, 6)), draw((4, 3))),
    "convolutional": lambda: (models.cnn((1, 2, 3), 4), draw((3, 64)), draw((3, 4))),
    "recurrent": lambda: (models.rnn(3, 4, 2), draw((3, 5, 3)), draw((3, 5, 2))),
    "LSTM": lambda: (models.lstm(3, 4, 2), draw((3, 5, 3)), draw((3, 5, 2))),
    "transformer": lambda: (models.transformer(5, 6, 8), text(5, 6)[0], draw((3, 6, 5))),
    "muPC": lambda: (fast_inference.residual(6, 5, 4, 3, "tanh"), draw((4, 6)), draw((4, 3))),
}


def step_down(params, update):
    return jax.tree.map(lambda p, u: p - 0.1 * u, params, update)


def taken(rule, params, x, y):
    """The loss, and the parameters after one step of gradient descent at rate 0.1."""
    carry = rules.begin(rule, optax.sgd(0.1), params, KEY)
    (params, *_), loss = rules.step(rule.gradient, optax.sgd(0.1))(carry, (x, y, KEY))
    return loss, params


@pytest.mark.parametrize("name", LEARNERS)
def test_a_step_of_the_rule_descends_what_value_and_grad_returns(name):
    model, x, y = LEARNERS[name]()
    inference = {"method": "inference-learning", "steps": 4, "rate": 0.05}
    inference["inference"] = "activities"

    def total(params):
        return ((model.apply(params, x) - y) ** 2).sum() / 2

    @jax.jit
    def both(params):
        ours = [taken(graph.rule(model, method=m), params, x, y) for m in EXACT]
        ours.append(taken(graph.rule(model, **inference), params, x, y))
        value, gradient = jax.value_and_grad(total)(params)
        _, inferred = graph.value_and_grad(total, **inference)(params)
        mean = [jax.tree.map(lambda u: u / len(x), u) for u in (gradient, gradient, inferred)]
        return ours, [(value / len(x), step_down(params, update)) for update in mean]

    ours, expected = both(model.init(KEY))
    assert distance(ours, expected) < 1e-12
    assert distance(ours[2][1], expected[0][1]) > 1e-6


def by_jax(model, loss):
    """The rule that descends `jax.value_and_grad` of the mean loss."""

    def gradient(params, state, x, y, key):
        mean = jax.value_and_grad(lambda params: loss(model.apply(params, x), y).mean())
        return *mean(params), state

    return rules.Rule("jax", rules.stateless, gradient, model.apply)


DIGITS = data.digits()
FEW = data.Dataset(
    *(DIGITS.x_train[:80].astype(float), DIGITS.y_train[:80]),
    *(DIGITS.x_test[:40].astype(float), DIGITS.y_test[:40]),
)
CLASSIFIERS = [models.mlp((64, 8, 10)), models.cnn((1, 2, 3))]


@pytest.mark.parametrize("model", CLASSIFIERS, ids=lambda model: model.name)
def test_fit_trains_a_model_by_the_rule(model):
    plan = {"optimizer": optax.adam(0.01), "epochs": 3, "batch_size": 16, "key": KEY}
    ours, theirs = (
        rules.fit(rule, model.init(KEY), FEW, **plan)
        for rule in (
            graph.rule(model, "cross entropy", method="z-il"),
            by_jax(model, network.LOSSES["cross entropy"]),
        )
    )
    assert distance(ours.params, theirs.params) < 1e-8
    assert ours.history.loss[-1] < 0.95 * ours.history.loss[0]


@pytest.mark.parametrize("model", CLASSIFIERS, ids=lambda model: model.name)
def test_compare_puts_the_rule_beside_others(model):
    trained = [
        by_jax(model, network.LOSSES["squared error"]),
        graph.rule(model, method="fixed-prediction"),
        graph.rule(model, method="inference-learning", steps=5, rate=0.1),
    ]
    plan = {"rates": (0.001, 0.01), "seeds": 2, "epochs": 2, "batch_size": 16, "key": KEY}
    found = rules.compare(trained, model, FEW, **plan)
    assert found.names[1:] == (
        f"fixed-prediction, {model.name}",
        f"inference-learning, {model.name}",
    )
    np.testing.assert_array_equal(found.test[0], found.test[1])
    assert not found.diverged.any()
    assert found.work[0] < found.work[1] < found.work[2]


def of_equinox():
    def build(key):
        return eqx.nn.MLP(64, 10, 8, 1, key=key)

    static = eqx.partition(build(KEY), eqx.is_array)[1]
    return models.Model(
        "equinox",
        lambda key: eqx.filter(build(key), eqx.is_array),
        lambda params, x: jax.vmap(eqx.combine(params, static))(x),
    )


def of_linen():
    module = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(10)])
    return models.Model("linen", lambda key: module.init(key, jnp.ones((1, 64))), module.apply)


def of_nnx():
    def build(key):
        rngs = nnx.Rngs(key)
        return nnx.Sequential(nnx.Linear(64, 8, rngs=rngs), nnx.relu, nnx.Linear(8, 10, rngs=rngs))

    definition = nnx.split(build(KEY))[0]
    return models.Model(
        "nnx",
        lambda key: nnx.split(build(key))[1],
        lambda params, x: nnx.merge(definition, params)(x),
    )


def of_plain_jax():
    def draw(key):
        a, b = random.split(key)
        return {"in": random.normal(a, (64, 8)) / 8, "out": random.normal(b, (8, 10)) / 3}

    return models.Model("plain", draw, lambda p, x: jax.nn.relu(x @ p["in"]) @ p["out"])


@pytest.mark.slow
@pytest.mark.parametrize("build", [of_equinox, of_linen, of_nnx, of_plain_jax])
def test_a_model_of_any_library_enters_fit_and_compare(build):
    model = build()
    rule = graph.rule(model, "cross entropy", method="z-il")
    theirs = by_jax(model, network.LOSSES["cross entropy"])
    plan = {"epochs": 2, "batch_size": 16, "key": KEY}
    fits = [
        rules.fit(each, model.init(KEY), FEW, optimizer=optax.adam(0.01), **plan)
        for each in (rule, theirs)
    ]
    assert distance(fits[0].params, fits[1].params) < 1e-5
    assert distance(fits[0].params, model.init(KEY)) > 1e-2
    found = rules.compare([rule, theirs], model, FEW, rates=(0.01,), seeds=2, **plan)
    np.testing.assert_array_equal(found.test[0], found.test[1])


@pytest.mark.parametrize("method", EXACT)
def test_a_module_that_holds_functions_learns_by_the_one_changed_line(method):
    module = eqx.nn.MLP(8, 2, 8, 2, activation=jax.nn.gelu, key=KEY)
    x = draw((4, 8))

    def loss(module, x):
        return (jax.vmap(module)(x) ** 2).sum()

    ours = graph.value_and_grad(loss, method=method)(module, x)
    theirs = eqx.filter_value_and_grad(loss)(module, x)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    assert distance(ours, theirs) < 1e-10
    assert eqx.apply_updates(module, ours[1]).activation is module.activation


def test_functions_among_several_arguments_stay_where_they_are():
    def loss(x, layers, scale):
        return (scale * layers["act"](x @ layers["W"])).sum()

    layers = {"act": jnp.tanh, "W": draw((3, 2))}
    _, (scale, update) = graph.value_and_grad(loss, argnums=(2, 1))(draw((4, 3)), layers, 2.0)
    weights = jax.grad(lambda W: loss(draw((4, 3)), layers | {"W": W}, 2.0))(layers["W"])
    assert update["act"] is None
    assert distance(update["W"], weights) < 1e-12
    assert distance(scale, loss(draw((4, 3)), layers, 1.0)) < 1e-12


# ------------------------------------------------------------------- what JAX functions may do


def chain(x, W, times=2):
    for _ in range(times):
        x = jnp.tanh(x @ W)
    return x


W3, X3 = (
    np.asarray(np.random.default_rng(0).normal(size=(3, 3))),
    np.asarray(np.random.default_rng(1).normal(size=(2, 3))),
)


def test_a_scan_stays_a_scan():
    def loss(W, x):
        return (lax.scan(lambda h, _: (jnp.tanh(h @ W), None), x, None, 50)[0] ** 2).sum()

    for method in EXACT:
        text = str(jax.make_jaxpr(graph.value_and_grad(loss, method=method, steps=None))(W3, X3))
        assert text.count("dot_general") < 12
        assert text.count("length=50") >= 2


def test_a_reversed_nested_scan_with_constants_and_inputs():
    def loss(W, x):
        def outer(h, x):
            h, ys = lax.scan(
                lambda h, y: (jnp.tanh(h @ W + y), h * y), h, jnp.stack([x, x + 1]), reverse=True
            )
            return h, ys.sum() + (h @ W).sum()

        h, sums = lax.scan(outer, x, jnp.stack([x, 2 * x, 3 * x]), unroll=2)
        return (h**2).sum() + (sums**2).sum()

    assert_backprop(loss, W3, X3)
    first, second = graph.trace(loss)(W3, X3)
    assert (first.steps, second.steps) == (6, 3)
    assert (first.depth, second.depth) == (6, 0)


def test_a_scan_of_no_steps():
    def loss(W, x):
        return ((lax.scan(lambda h, _: (h @ W, h), x, None, 0)[0] @ W) ** 2).sum()

    assert_backprop(loss, W3, X3)


def test_nested_jit_and_remat():
    def loss(W, x):
        return (jax.checkpoint(jax.jit(chain))(jax.jit(jax.checkpoint(chain))(x, W), W) ** 2).sum()

    assert_backprop(loss, W3, X3)
    assert graph.trace(loss)(W3, X3).depth == 3
    assert "remat" in str(jax.make_jaxpr(graph.value_and_grad(loss))(W3, X3))


def test_remat_with_a_policy():
    keep = jax.checkpoint_policies.dots_saveable

    def loss(W, x):
        return (jax.checkpoint(chain, policy=keep)(x, W) ** 2).sum()

    assert_backprop(loss, W3, X3)


def test_functions_with_their_own_derivative_are_atomic():
    @jax.custom_vjp
    def straight_through(x, W):
        return jnp.round(x @ W)

    straight_through.defvjp(
        lambda x, W: (jnp.round(x @ W), (x, W)), lambda r, g: (g @ r[1].T, r[0].T @ g)
    )

    @jax.custom_jvp
    def doubled(x):
        return 2 * x

    doubled.defjvp(lambda x, t: (2 * x[0], 5 * t[0]))

    def loss(W, x):
        return (doubled(straight_through(x @ W, W)) ** 2).sum()

    assert_backprop(loss, W3, X3)
    assert len(graph.trace(loss)(W3, X3)) == 1


def test_cond_and_switch_are_atomic():
    def loss(W, x, i):
        x = lax.cond(x.sum() > 0, lambda x: x @ W, lambda x: jnp.sin(x), x @ W)
        return (lax.switch(i, [jnp.tanh, jnp.cos, jnp.exp], x @ W) ** 2).sum()

    for i in range(3):
        assert_backprop(loss, W3, X3, i)
    assert len(graph.trace(loss)(W3, X3, 1)) == 2


def test_a_while_loop_is_refused_by_name_and_line():
    def loss(W, x):
        x = lax.while_loop(lambda s: s.sum() < 1, lambda s: s * 2, x @ W)  # this line
        return x.sum()

    with pytest.raises(
        ValueError, match=r"while at .*test_graph\.py:\d+ `x = lax.while_loop.*this line`"
    ):
        graph.value_and_grad(loss)(W3, X3)


def test_a_while_loop_within_a_cond_within_a_scan_is_refused_too():
    def loss(W, x):
        def step(h, _):
            return lax.cond(
                True,
                lambda h: lax.fori_loop(0, h.astype(int)[0, 0], lambda i, h: h * 2, h),
                jnp.sin,
                h,
            ), 0

        return (lax.scan(step, x @ W, None, 2)[0]).sum()

    with pytest.raises(ValueError, match=r"while at .*test_graph"):
        graph.value_and_grad(loss)(W3, X3)


def test_a_while_loop_beside_the_error_is_allowed():
    def loss(W, x):
        n = lax.while_loop(lambda n: n < 5, lambda n: n + 1, x[0, 0])
        turns = lax.while_loop(lambda n: n < W.sum(), lambda n: n + 1, 0)
        return ((x @ W) ** 2).sum() * n * (1 + turns)

    assert_backprop(loss, W3, X3)


def test_an_operation_without_a_derivative_is_refused_by_name_and_line():
    def loss(W, x):
        out = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(np.sin, out, x @ W).sum()  # this line

    with pytest.raises(
        ValueError, match=r"pure_callback at .*test_graph\.py:\d+ `return .*this line`"
    ):
        graph.value_and_grad(loss)(W3, X3)


def test_stop_gradient_holds():
    def loss(W, x):
        return (lax.stop_gradient(x @ W) * (x @ W)).sum() + (lax.stop_gradient(x @ W) ** 2).sum()

    assert_backprop(loss, W3, X3)
    assert len(graph.trace(loss)(W3, X3)) == 1


def test_integers_booleans_keys_and_keywords():
    def loss(params, tokens, mask, key, *, scale):
        x = params["table"][tokens] * mask[:, None]
        keep = random.bernoulli(key, 0.7, x.shape)
        return scale * ((jnp.where(keep, x, 0) @ params["W"]) ** 2).sum(), {
            "kept": keep.sum(),
            "mask": mask,
        }

    args = (
        {"table": draw((5, 3)), "W": W3},
        jnp.array([0, 2, 2]),
        jnp.array([True, False, True]),
        KEY,
    )
    expected = jax.value_and_grad(loss, has_aux=True)(*args, scale=2.0)
    for method in EXACT:
        found = graph.value_and_grad(loss, method=method, has_aux=True)(*args, scale=2.0)
        assert like(found) == like(expected)
        assert distance(found[1], expected[1]) < 1e-12


def test_several_arguments_are_learned_and_counted_from_the_end():
    def loss(W, x, V):
        return ((jnp.tanh(x @ W) @ V) ** 2).sum()

    assert_backprop(loss, W3, X3, W3 + 1, argnums=(0, 2))
    assert_backprop(loss, W3, X3, W3 + 1, argnums=(-1, 0))
    assert_backprop(loss, W3, X3, W3 + 1, argnums=1)
    assert_backprop(loss, W3, X3, W3 + 1, argnums=[2])


def test_weights_that_the_loss_reads_itself():
    def loss(params, x):
        return (
            ((x @ params["W"]) ** 2).sum()
            + 0.1 * (params["W"] ** 2).sum()
            + params["unused"].sum() * 0
        )

    assert_backprop(loss, {"W": W3, "unused": np.ones(2)}, X3)


def test_half_precision_returns_half_precision():
    def loss(W, x):
        return ((jnp.tanh(x @ W) @ W).astype(jnp.float32) ** 2).sum()

    args = jnp.asarray(W3, jnp.bfloat16), jnp.asarray(X3, jnp.bfloat16)
    for method, options in (
        *((m, {}) for m in EXACT),
        ("inference-learning", {"steps": 5, "rate": 0.1}),
    ):
        value, update = graph.value_and_grad(loss, method=method, **options)(*args)
        assert (value.dtype, update.dtype) == (jnp.float32, jnp.bfloat16)


# ------------------------------------------------------------------- where it may be used

METHODS = [
    ("z-il", {}),
    ("z-il", {"rate": 0.5}),
    ("fixed-prediction", {}),
    ("inference-learning", {"steps": 5, "rate": 0.1}),
]


def recurrent(W, x):
    return (lax.scan(lambda h, _: (jnp.tanh(h @ W), None), x, None, 4)[0] ** 2).sum()


@pytest.mark.parametrize("method, options", METHODS)
def test_vmap_scan_and_jit_around_it_change_nothing(method, options):
    learn = jax.jit(graph.value_and_grad(recurrent, method=method, **options))
    xs = draw((3, 2, 3))
    alone = [learn(W3, x) for x in xs]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *alone)
    assert distance(jax.jit(jax.vmap(learn, (None, 0)))(W3, xs), stacked) < 1e-12
    assert distance(lax.scan(lambda c, x: (c, learn(W3, x)), None, xs)[1], stacked) < 1e-12
    assert distance(lax.map(lambda x: learn(W3, x), xs), stacked) < 1e-12


def test_it_trains_inside_a_scan_with_an_optimiser():
    optimizer = optax.adam(1e-2)

    def step(state, _):
        W, memory = state
        value, update = graph.value_and_grad(recurrent)(W, X3)
        update, memory = optimizer.update(update, memory)
        return (W + update, memory), value

    losses = jax.jit(lambda W: lax.scan(step, (W, optimizer.init(W)), None, 100)[1])(
        jnp.asarray(W3)
    )
    assert losses[-1] < 0.1 * losses[0]


def test_a_function_that_closes_over_traced_values():
    def outer(W, x):
        return graph.value_and_grad(lambda W: recurrent(W, x))(W)[1]

    assert distance(jax.jit(outer)(W3, X3), jax.grad(recurrent)(W3, X3)) < 1e-12
    assert (
        distance(jax.vmap(outer, (None, 0))(W3, X3[None]), jax.grad(recurrent)(W3, X3)[None])
        < 1e-12
    )


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from pcbook import graph, models
model = models.lstm(3, 4, 2)
params, x = model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (8, 6, 3))
loss = lambda params, x: (model.apply(params, x) ** 2).mean()
expected = jax.grad(loss)(params, x)
mesh = Mesh(np.array(jax.devices()), ("batch",))
spread = jax.device_put(x, NamedSharding(mesh, P("batch")))
def off(a):
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: float(abs(a - b).max()), a, expected)))
for method in ("z-il", "fixed-prediction", "inference-learning"):
    if method == "inference-learning":
        loss = lambda params, x: (model.apply(params, x) ** 2).sum((1, 2))
    learn = graph.value_and_grad(loss, method=method)
    if method == "inference-learning":
        expected = learn(params, x)[1]
    most = 1e-5 if method == "inference-learning" else 1e-6  # the rounding of many steps, or one
    print(off(jax.jit(learn)(params, spread)[1]) < most)
    part = jax.pmap(lambda p, x: jax.lax.pmean(learn(p, x)[1], "d"), "d", in_axes=(None, 0))
    print(off(jax.tree.map(lambda a: a[0], part(params, x.reshape(4, 2, 6, 3)))) < most)
    def each(p, x):
        return jax.lax.pmean(learn(p, x)[1], "batch")
    specs = {"in_specs": (P(), P("batch")), "out_specs": P(), "check_vma": False}
    whole = jax.shard_map(each, mesh=mesh, **specs)
    print(off(jax.jit(whole)(params, x)) < most)
"""


@pytest.mark.slow
def test_sharded_over_four_devices_it_is_the_same():
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", SHARDED], env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["True"] * 9, done.stderr


# ------------------------------------------------------------------- vertices


def test_a_vertex_is_a_product_with_its_bias_and_tells_where_it_stands():
    def loss(params, x):
        h = jnp.tanh(x @ params["W"] + params["b"])  # here
        return (h @ params["W"]).sum()

    first, second = graph.trace(loss)({"W": W3, "b": np.ones(3)}, X3)
    assert (first.name, first.shape) == ("product 1", (2, 3))
    assert (first.depth, second.depth, first.steps) == (1, 0, 1)
    assert first.code.endswith("# here")
    assert first.file == "test_graph.py"
    assert second.line == first.line + 1


def test_only_what_an_error_can_matter_to_is_a_vertex():
    def loss(W, x):
        unused = x @ W
        return ((x @ x.T) @ (x @ W)).sum(), unused @ W

    assert len(graph.trace(loss, has_aux=True)(W3, X3)) == 2


def test_vertices_by_name():
    def loss(W, x):
        h = checkpoint_name(jnp.tanh(x @ W), "hidden")
        return (checkpoint_name(h @ W, "out") ** 2).sum()

    args = W3, X3
    assert [v.name for v in graph.trace(loss)(*args)] == ["product 1", "out"]
    assert [v.name for v in graph.trace(loss, vertices="named")(*args)] == ["hidden", "out"]
    assert [v.name for v in graph.trace(loss, vertices=("hidden",))(*args)] == ["hidden"]
    assert_backprop(loss, *args, vertices="named")
    assert_backprop(loss, *args, vertices=("hidden",))


def test_names_that_repeat_are_numbered():
    def loss(W, x):
        for _ in range(3):
            x = checkpoint_name(jnp.tanh(x @ W), "h")
        return x.sum()

    assert [v.name for v in graph.trace(loss, vertices="named")(W3, X3)] == ["h 1", "h 2", "h 3"]


def test_parents_through_skips_and_time():
    def loss(W, x):
        a = x @ W
        b = jnp.tanh(a) @ W
        h, _ = lax.scan(lambda h, _: (jnp.tanh(h @ W), None), b + a, None, 3)
        return (h + a).sum()

    found = graph.trace(loss)(W3, X3)
    assert found.parents == [(), (0,), (0, 1, 2)]
    assert found.read_by_loss == (0, 1, 2)
    assert [v.depth for v in found] == [4, 3, 2]


def test_a_graph_of_a_thousand_vertices_is_traced_in_five_seconds_of_work():
    start = time.process_time()
    found = graph.trace(lambda W, x: (chain(x, W, 1000) ** 2).sum())(W3, X3)
    assert (len(found), found.depth) == (1000, 999)
    assert time.process_time() - start < 5


def test_the_table_and_the_picture():
    loss, *args = case("LSTM")
    found = graph.trace(loss)(*args)
    assert repr(found).splitlines()[1].split("  ")[:2] == ["product 1", "4 x 20, 8 times"]
    es = [e[3] for e in graph.errors(loss)(*args)]
    assert graph.draw(found, es).axes
    assert graph.draw(graph.trace(case("transformer")[0])(*case("transformer")[1:])).axes


# ------------------------------------------------------------------- bad input


def fine(W, x):
    return ((x @ W) ** 2).sum()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"method": "backprop"}, "method = 'backprop': must be one of"),
        ({"method": "fixed-prediction", "steps": 0}, "steps = 0: must be an integer of at least 1"),
        ({"method": "inference-learning", "steps": 0}, "steps = 0: must be an integer of at least"),
        (
            {"method": "inference-learning", "inference": "euler"},
            "inference = 'euler': must be one",
        ),
        ({"method": "inference-learning", "tolerance": 1.5}, "tolerance = 1.5: must be at least 0"),
        ({"tolerance": 0.1}, "tolerance = 0.1: must be left out for z-il"),
        ({"precision": -1.0}, "precision = -1.0: must be a positive number"),
        ({"steps": 3}, "steps = 3: must be left out for z-il"),
        ({"rate": 0.0}, "rate = 0.0: must be a positive number"),
        ({"rate": float("nan")}, "rate = nan: must be a positive number"),
        (
            {"vertices": "dots"},
            "vertices = 'dots': must be 'products', 'named' or a tuple of names",
        ),
        ({"vertices": ()}, "vertices = (): must be"),
        ({"vertices": "named"}, "vertices = 'named': "),
        ({"vertices": ("h",)}, "vertices = ('h',): no value is called 'h'"),
        ({"argnums": 2}, "argnums = 2: must name some of the 2 positional arguments"),
        ({"argnums": ()}, "argnums = (): must name some"),
        ({"has_aux": True}, "has_aux = True: loss must return a pair"),
    ],
)
def test_bad_arguments_are_refused_by_name_value_and_what_is_allowed(options, message):
    with pytest.raises(ValueError) as raised:
        graph.value_and_grad(fine, **options)(W3, X3)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    "loss, args, message",
    [
        (lambda W, x: x @ W, (W3, X3), "loss: must return one real number"),
        (lambda W, x: (x @ W).sum() > 0, (W3, X3), "loss: must return one real number"),
        (lambda W, x: W.sum(), (W3, X3), "vertices = 'products': the loss has none"),
        (
            lambda W, x: (x @ W).sum(),
            (np.arange(3), X3),
            "argnums = 0: what is learned must be real",
        ),
    ],
)
def test_losses_that_cannot_be_learned_are_refused(loss, args, message):
    with pytest.raises(ValueError) as raised:
        graph.value_and_grad(loss)(*args)
    assert str(raised.value).startswith(message)


def test_a_name_within_an_atomic_operation_is_refused():
    def loss(W, x):
        return lax.cond(True, lambda x: checkpoint_name(x @ W, "inner"), lambda x: x, x @ W).sum()

    with pytest.raises(ValueError, match="no value is called 'inner'"):
        graph.value_and_grad(loss, vertices=("inner",))(W3, X3)


# ------------------------------------------------------------------- the criteria of the claims

HIGH, LOW = [95.0, 96.0], [90.0, 91.0]


@pytest.mark.parametrize(
    ("claim", "meets", "fails"),
    [
        (
            "graph-fixed-prediction",
            {"graphs": 1e-16, "chain": 1e-6},
            [{"graphs": 1e-9}, {"chain": 1e-4}],
        ),
        ("graph-hundredfold", {"ratio": 100.0}, [{"ratio": 30.0}, {"ratio": 300.0}]),
        (
            "graph-z-il",
            {"graphs": 0.0, "scaled": 0.0, "cosine": 1.0},
            [{"graphs": 1e-9}, {"scaled": 1e-9}, {"cosine": 0.999}],
        ),
        ("graph-lower-bound", {"least": 1.0}, [{"least": 0.9}]),
        (
            "graph-strict-is-not-backprop",
            {"cosine": np.array([[1.0, 1.0], [0.7, 0.9]])},
            [{"cosine": np.array([[1.0, 1.0], [0.7, 1.2]])}],
        ),
        ("graph-infinitesimal", {"slope": 1.0}, [{"slope": 0.8}, {"slope": 1.2}]),
        (
            "graph-trains-as-well",
            {"backprop": [HIGH, LOW], "accuracy": [HIGH, LOW]},
            [{"accuracy": [HIGH, HIGH]}, {"accuracy": [LOW, LOW]}],
        ),
    ],
)
def test_a_criterion_can_be_met_and_can_fail(claim, meets, fails):
    criterion = claims.criteria()[claim]
    assert criterion(meets) is True
    assert [criterion(meets | change) for change in fails] == [False] * len(fails)


def test_cosines_are_those_of_each_layer_and_network():
    layers = [draw((5, 3)), draw((5, 7), 1)], [draw((5, 3), 2), draw((5, 7), 3)]
    found = graph.claims.cosines(*layers)
    assert found.shape == (2, 5)
    for l in range(2):
        for i in range(5):
            assert found[l, i] == pytest.approx(cosine(layers[0][l][i], layers[1][l][i]))


def test_the_exponent_is_that_of_the_medians_from_a_tenth_to_a_thousandth():
    scales = (1.0, 0.1, 0.01, 0.001)
    errors = np.array([[9.0, 9.0, 9.0], *(s**1.5 * np.array([1, 2, 50.0]) for s in scales[1:])])
    found = graph.claims.measure_limit(scales, errors)
    assert found["slope"] == pytest.approx(1.5)
    assert found["at_thousandth"] == pytest.approx(2 * 0.001**1.5)
