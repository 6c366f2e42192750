"""pcbook.models: shapes, and what each network may and may not see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
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
