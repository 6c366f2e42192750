"""The code is held to each line of book/conventions.md, in numbers that a reader can check by hand.

One chain of three neurons, 1-1-1, serves for most: x_0 = 2, W_1 = 3, b_1 = 1, W_2 = 5, b_2 = -1,
target 10. With no nonlinearity the forward pass is mu_1 = 7, mu_2 = 34.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import use_float64
from jax import random

from pcbook import backprop, predictive_coding
from pcbook.core.network import Layer, activities, firing, forward, init
from pcbook.core.rules import Comparison, accuracy, angle
from pcbook.foundations.predictive_coding import energy, errors, infer, velocities

PAGE = Path(__file__).parents[2] / "book" / "conventions.md"
HELD = set()


def holds(question):
    """Mark a test as the one that holds the code to a line of the page."""

    def mark(test):
        HELD.add(question)
        return test

    return mark


@pytest.fixture(autouse=True, scope="module")
def float64():
    with use_float64():
        yield


def row(*numbers):
    return jnp.array([numbers], float)


CHAIN = [(3.0, 1.0), (5.0, -1.0)]
X, Y = 2.0, 10.0


def chain():
    return [Layer(row(W), jnp.array([b])) for W, b in CHAIN]


def numbers(arrays):
    return [float(array.squeeze()) for array in arrays]


def test_every_line_of_the_page_has_its_test():
    table = PAGE.read_text(encoding="utf-8").split("## Choices")[1]
    questions = {line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")}
    assert questions - {"question", "---"} == HELD


@holds("Where does the nonlinearity act?")
def test_nonlinearity_acts_when_a_layer_is_read_and_not_on_input_or_output():
    mu_1 = 3 * X + 1
    mu_2 = 5 * np.tanh(mu_1) - 1
    np.testing.assert_allclose(numbers(activities(chain(), row(X), "tanh")), [X, mu_1, mu_2])
    np.testing.assert_allclose(numbers(firing([row(X), row(mu_1)], "tanh")), [X, np.tanh(mu_1)])


def test_weights_have_a_row_for_each_neuron_that_they_predict():
    params = init(random.key(0), (4, 3, 2))
    assert [layer.W.shape for layer in params] == [(3, 4), (2, 3)]
    x = jnp.arange(4.0)
    np.testing.assert_allclose(forward(params[:1], x[None])[0], params[0].W @ x)


@holds("What is the sign of an error?")
def test_error_is_actual_minus_predicted():
    assert numbers(errors(chain(), [row(X), row(9.0)], row(Y), "identity"))[0] == 9 - 7


@holds("Is there a half in the energy?")
def test_energy_has_halves_and_a_weighted_loss():
    # e_1 = 9 - 7 = 2 and y - mu_2 = 10 - 44 = -34.
    value = energy(chain(), [row(X), row(9.0)], row(Y), "identity", precision=0.1)
    np.testing.assert_allclose(value, [2**2 / 2 + 0.1 * 34**2 / 2])
    loss, _, _ = backprop.rule("identity").gradient(chain(), (), row(X), row(Y), None)
    assert loss == (10 - 34) ** 2 / 2


@holds("What is the error of the output?")
def test_error_of_the_output_is_the_weighted_pull_towards_the_target_or_zero_without_one():
    xs = [row(X), row(9.0)]
    np.testing.assert_allclose(
        numbers(errors(chain(), xs, row(Y), "identity", precision=0.1))[1], 0.1 * (10 - 44)
    )
    assert numbers(errors(chain(), xs, None, "identity"))[1] == 0
    # Two classes, outputs equal: softmax gives each 1/2, so the errors are 1/2 and -1/2.
    even = [Layer(jnp.zeros((2, 1)), jnp.zeros(2))]
    (e,) = errors(even, [row(X)], row(1, 0), loss="cross entropy")
    np.testing.assert_allclose(e, row(0.5, -0.5))


@holds("Sum or mean?")
def test_energy_sums_over_features_and_only_weight_updates_average_over_the_batch():
    params = init(random.key(0), (3, 4, 2))
    x, y = random.normal(random.key(1), (1, 3)), random.normal(random.key(2), (1, 2))
    rule = predictive_coding.rule(steps=3)
    value, update, _ = rule.gradient(params, (), x, y, None)
    twice, update_twice, _ = rule.gradient(
        params, (), jnp.tile(x, (2, 1)), jnp.tile(y, (2, 1)), None
    )
    np.testing.assert_allclose(twice, value)
    for one, two in zip(jax.tree.leaves(update), jax.tree.leaves(update_twice), strict=True):
        np.testing.assert_allclose(one, two)
    # Inference of a sample is the same in any company.
    alone = infer(params, x, y, steps=3).activities[1]
    np.testing.assert_allclose(
        infer(params, jnp.tile(x, (5, 1)), jnp.tile(y, (5, 1)), steps=3).activities[1][4:], alone
    )
    # Two outputs alike, each off by 3: the energy is the sum of both, not their mean.
    pair = [Layer(jnp.zeros((2, 1)), jnp.zeros(2))]
    np.testing.assert_allclose(energy(pair, [row(X)], row(3, 3)), [3**2 / 2 + 3**2 / 2])


@holds("Where does inference start?")
def test_inference_starts_at_the_forward_pass():
    path = infer(chain(), row(X), row(Y), steps=1, activation="identity", trajectory=True).path
    assert [float(layer[0, 0, 0]) for layer in path] == [X, 7]
    assert numbers(errors(chain(), [row(X), row(7.0)], row(Y), "identity"))[0] == 0


@holds("What are $T$ steps?")
def test_T_steps_are_T_updates_in_which_all_layers_move_at_once():
    # One step: dx_1/dt = -0 + 5 (10 - 34) = -120, so x_1 = 7 - 0.01 * 120.
    once = infer(chain(), row(X), row(Y), steps=1, rate=0.01, activation="identity").activities
    np.testing.assert_allclose(numbers(once), [X, 5.8])
    # A second: e_1 = -1.2, mu_2 = 28, dx_1/dt = 1.2 + 5 (10 - 28) = -88.8.
    twice = infer(chain(), row(X), row(Y), steps=2, rate=0.01, activation="identity").activities
    np.testing.assert_allclose(numbers(twice), [X, 5.8 - 0.888])
    # The news of the target goes down one layer a step.
    params = init(random.key(0), (2, 2, 2, 2, 2))
    path = infer(params, row(1, 2), row(3, 4), steps=3, trajectory=True).path
    moved = [[not np.array_equal(x[t], x[0]) for t in range(4)] for x in path[1:]]
    assert moved == [
        [False, False, False, True],
        [False, False, True, True],
        [False, True, True, True],
    ]


@holds("When do weights move?")
def test_weights_move_once_by_the_errors_after_the_last_step():
    # After one step x_1 = 5.8: e_1 = -1.2 and e_2 = 10 - 28 = -18.
    rule = predictive_coding.rule(steps=1, rate=0.01, activation="identity")
    _, update, _ = rule.gradient(chain(), (), row(X), row(Y), None)
    np.testing.assert_allclose(numbers(update[0]), [1.2 * X, 1.2])
    np.testing.assert_allclose(numbers(update[1]), [18 * 5.8, 18])


@holds("What does a rule return?")
@pytest.mark.parametrize(
    "rule",
    [backprop.rule("identity"), predictive_coding.rule(steps=1, rate=0.01, activation="identity")],
    ids=lambda rule: rule.name,
)
def test_rule_returns_the_loss_of_the_forward_pass_and_a_gradient_to_descend(rule):
    loss, update, _ = rule.gradient(chain(), (), row(X), row(Y), None)
    assert loss == (10 - 34) ** 2 / 2
    nearer = jax.tree.map(lambda p, u: p - 1e-4 * u, chain(), update)
    assert rule.gradient(nearer, (), row(X), row(Y), None)[0] < loss


def test_velocity_goes_down_the_energy():
    es = errors(chain(), [row(X), row(9.0)], row(Y), "identity")
    assert numbers(velocities(chain(), [row(X), row(9.0)], es, "identity")) == [3 * 2, -2 - 5 * 34]


@holds("How is a network drawn?")
def test_network_is_drawn_with_variance_one_over_the_inputs_and_no_bias():
    (W, b), *_ = init(random.key(0), (400, 100))
    # 40,000 draws: the variance is known to sqrt(2 / 40,000) = 0.7 %.
    assert abs(400 * W.var() - 1) < 0.04
    assert not b.any()


@holds("How is accuracy tested?")
@pytest.mark.parametrize(
    "rule",
    [backprop.rule("identity"), predictive_coding.rule(activation="identity")],
    ids=lambda rule: rule.name,
)
def test_accuracy_is_that_of_the_forward_pass(rule):
    params = init(random.key(0), (3, 5, 4))
    x = random.normal(random.key(1), (8, 3))
    mu = forward(params, x, "identity")
    np.testing.assert_array_equal(rule.predict(params, x), mu)
    assert accuracy(rule.predict, params, x, mu.argmax(1)) == 1


@holds("How are learning rates chosen?")
def test_each_rule_has_the_rate_that_is_best_on_images_held_out():
    validation = np.array([[0.1, 0.9], [0.9, 0.1]]).reshape(2, 2, 1, 1)
    test = 1 - validation
    result = Comparison(("one", "other"), (0.01, 0.1), validation, test, test, np.ones(2), 1, 1)
    assert list(result.best) == [1, 0]
    assert "0.01" in result.table()


@holds("What is the angle between two updates?")
def test_angle_is_that_of_all_weights_and_biases_as_one_vector():
    # (1, 1, 1, 0) and (1, 0, 0, 0): the cosine is 1 / sqrt(3). A mean of layers' angles is not.
    one = [Layer(row(1), jnp.array([1.0])), Layer(row(1), jnp.array([0.0]))]
    other = [Layer(row(1), jnp.array([0.0])), Layer(row(0), jnp.array([0.0]))]
    np.testing.assert_allclose(angle(one, other), np.degrees(np.arccos(1 / np.sqrt(3))))


def test_numbers_are_32_bit_floats():
    with use_float64(False):
        assert all(
            leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(init(random.key(0), (2, 2)))
        )
