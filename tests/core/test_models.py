"""pcbook.models: shapes, and what each network may and may not see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import use_float64
from jax import random

from pcbook import models

KEY = random.key(0)


@pytest.mark.parametrize(
    "model, x, shape",
    [
        (models.mlp((3, 4, 2)), jnp.ones((5, 3)), (5, 2)),
        (models.residual(3, 4, 2, 2), jnp.ones((5, 3)), (5, 2)),
        (models.cnn((1, 2, 3), classes=4), jnp.ones((5, 8, 8, 1)), (5, 4)),
        (models.rnn(3, 4, 2), jnp.ones((5, 6, 3)), (5, 6, 2)),
        (models.lstm(3, 4, 2), jnp.ones((1, 6, 3)), (1, 6, 2)),
        (models.transformer(7, 6, 8), jnp.ones((5, 6), int), (5, 6, 7)),
        (models.transformer(7, 6, 8), jnp.ones((5, 4), int), (5, 4, 7)),
    ],
)
def test_outputs_have_the_shapes_that_the_docstrings_promise(model, x, shape):
    assert model.apply(model.init(KEY), x).shape == shape


@pytest.mark.parametrize("model", [models.rnn(3, 4, 2), models.lstm(3, 4, 2)])
def test_a_recurrent_network_knows_the_past_and_not_the_future(model):
    x, params = random.normal(KEY, (2, 6, 3)), model.init(KEY)
    moved = jnp.any(model.apply(params, x.at[:, 3].add(1.0)) != model.apply(params, x), (0, 2))
    assert moved.tolist() == [False] * 3 + [True] * 3


def test_the_transformer_knows_the_past_and_not_the_future():
    model = models.transformer(7, 6, 8)
    x, params = random.randint(KEY, (2, 6), 0, 7), model.init(KEY)
    other = model.apply(params, x.at[:, 3].set((x[:, 3] + 1) % 7))
    moved = jnp.abs(other - model.apply(params, x)).max((0, 2)) > 1e-6
    assert moved.tolist() == [False] * 3 + [True] * 3


def test_the_lstm_is_its_equations_written_out():
    model, x = models.lstm(2, 3, 1), np.asarray(random.normal(KEY, (1, 4, 2)))
    params = jax.tree.map(np.asarray, model.init(KEY))
    h = c = np.zeros((1, 3))

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    for t in range(4):
        gates = np.concatenate([x[:, t], h], 1) @ params["cell"].W.T + params["cell"].b
        i, f, o, g = np.split(gates, 4, 1)
        c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        out = h @ params["out"].W.T + params["out"].b
        np.testing.assert_allclose(model.apply(params, x)[:, t], out, atol=1e-6)


def test_the_residual_network_is_its_equation_written_out():
    model, x = models.residual(3, 4, 2, 2), random.normal(KEY, (5, 3))
    params = model.init(KEY)
    first, last = params["in"], params["out"]
    stream = x @ first.W.T + first.b
    for up, down in params["blocks"]:
        inner = jnp.maximum(stream @ up.W.T + up.b, 0)
        stream = stream + (inner @ down.W.T + down.b) / 2
    np.testing.assert_allclose(model.apply(params, x), stream @ last.W.T + last.b, rtol=1e-5)


def test_the_convolutional_network_is_its_sums_and_maxima_written_out():
    model = models.cnn((2, 3), classes=4, size=4)
    params, x = model.init(KEY), np.asarray(random.normal(random.key(1), (5, 4, 4, 2)))
    (filters,), out = params["filters"], params["out"]
    filters = filters._replace(b=jnp.array([0.5, -0.5, 0.0]))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    maps = np.zeros((5, 4, 4, 3))
    for row, column in np.ndindex(4, 4):
        patch = padded[:, row : row + 3, column : column + 3]
        maps[:, row, column] = np.einsum("nijc,ocij->no", patch, filters.W) + filters.b
    pooled = np.maximum(maps, 0).reshape(5, 2, 2, 2, 2, 3).max((2, 4))
    expected = pooled.reshape(5, -1) @ np.asarray(out.W).T + out.b
    ours = model.apply({"filters": [filters], "out": out}, x)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("n_in", "n_out"), [(50, 400), (400, 50)])
def test_a_dense_layer_is_drawn_with_variance_one_over_its_inputs_and_no_bias(n_in, n_out):
    W, b = models.rnn(3, n_in, n_out).init(KEY)["out"]
    # The variance of 20,000 draws is known to sqrt(2 / 20,000) = 1 %: five of these.
    assert abs(n_in * W.var() - 1) < 0.05
    assert not b.any()


MADE = {
    "cnn": (lambda: models.cnn((1, 2), 3, size=4), (5, 16)),
    "rnn": (lambda: models.rnn(3, 4, 2), (5, 6, 3)),
    "lstm": (lambda: models.lstm(3, 4, 2), (5, 6, 3)),
    "residual": (lambda: models.residual(3, 4, 2, 2), (5, 3)),
    "multilayer": (lambda: models.mlp((3, 4, 2)), (5, 3)),
}


@pytest.mark.parametrize("name", MADE)
def test_inputs_of_any_type_give_the_outputs_of_the_same_numbers(name):
    make, shape = MADE[name]
    model, whole = make(), random.randint(KEY, shape, 0, 9)
    with use_float64():
        params = jax.tree.map(jnp.float64, model.init(KEY))
        exact = model.apply(params, jnp.asarray(whole, jnp.float64))
        for kind in (jnp.float32, jnp.uint8, int):
            ours = model.apply(params, whole.astype(kind))
            assert ours.dtype == jnp.float64
            np.testing.assert_allclose(ours, exact)
    half = jax.tree.map(jnp.bfloat16, model.init(KEY))
    assert model.apply(half, whole.astype(jnp.uint8)).dtype == jnp.bfloat16
