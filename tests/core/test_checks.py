import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import as_a_reader_runs_it

from pcbook.core.checks import (
    check_alike,
    check_count,
    check_labels,
    check_length,
    check_number,
    check_positive,
    check_share,
    check_width,
    lookup,
)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "0.1", None, [1]])
def test_what_is_no_positive_number_is_named_with_its_value(value):
    with pytest.raises(ValueError) as error:
        check_positive(rate=value)
    assert str(error.value) == f"rate = {value!r}: must be a positive number"


@pytest.mark.parametrize("value", [0, -3, 1.5, 2.0, "2", None, True, float("nan")])
def test_what_is_no_count_is_named_with_its_value(value):
    with pytest.raises(ValueError) as error:
        check_count(steps=value)
    assert str(error.value) == f"steps = {value!r}: must be an integer of at least 1"


@pytest.mark.parametrize("value", [-0.1, 1, 7, float("nan")])
def test_a_share_is_at_least_0_and_less_than_1(value):
    with pytest.raises(ValueError, match=r"tolerance = .*: must be at least 0 and less than 1"):
        check_share(tolerance=value)


def test_good_numbers_pass_whatever_their_kind():
    check_positive(rate=1, precision=jnp.array(0.5))
    check_count(steps=np.int64(3))
    check_share(tolerance=0)


def test_a_traced_number_has_no_value_and_passes():
    jax.jit(lambda rate: check_positive(rate=rate))(-1.0)


def test_the_first_that_does_not_hold_is_named():
    with pytest.raises(ValueError, match="b = 2: must be odd"):
        check_number("odd", lambda value: value % 2, a=1, b=2)


def test_lookup_finds_a_name_and_answers_another_with_those_there_are():
    table = {"tanh": 1, "relu": 2}
    assert lookup(table, activation="relu") == 2
    with pytest.raises(ValueError) as error:
        lookup(table, activation="rely")
    assert str(error.value) == "activation = 'rely': must be one of 'tanh', 'relu'"


@pytest.mark.parametrize(
    ("shape", "batch", "needed"),
    [
        ((4, 3), "batch", "(batch, 2)"),
        ((4,), "batch", "(batch, 2)"),
        ((4, 1, 2), "batch", "(batch, 2)"),
        ((4, 2), 5, "(5, 2)"),
    ],
)
def test_an_array_has_a_row_for_each_sample_and_the_width_of_its_layer(shape, batch, needed):
    check_width("y", jnp.ones((4, 2)), 2, "output")
    check_width("y", jnp.ones((4, 2)), 2, "output", 4)
    with as_a_reader_runs_it(), pytest.raises(ValueError) as error:
        check_width("y", jnp.ones(shape), 2, "output", batch)
    message = f"y has shape {shape}: must be {needed}, 2 being the width of the output layer"
    assert str(error.value) == message


def test_a_list_of_another_length_is_named_with_the_reason():
    check_length(2, "one for each layer", xs=[1, 2])
    with pytest.raises(ValueError, match="xs has 1 entries: must have 2, one for each layer"):
        check_length(2, "one for each layer", xs=[1])


@pytest.mark.parametrize("mask", [[np.ones((2, 3))], [np.ones(2), np.ones(3)], 3, None])
def test_a_tree_of_other_shapes_is_named(mask):
    model = [np.ones((2, 3)), np.ones(3)]
    check_alike("the weights", model, mask=[np.zeros((2, 3)), np.zeros(3)])
    with pytest.raises(ValueError, match=r"^mask has the shapes .*: must be those of the weights"):
        check_alike("the weights", model, mask=mask)


@pytest.mark.parametrize("labels", [[0, 3], [-1, 2]])
def test_a_label_without_a_class_is_named(labels):
    check_labels(4, labels=np.array([0, 3]))
    with pytest.raises(ValueError, match=r"labels holds the label (3|-1): must be 0 to 2"):
        check_labels(3, labels=np.array(labels))
