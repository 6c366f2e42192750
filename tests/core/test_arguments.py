from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Bool, Float, Int, Key

from pcbook.core.arguments import Count, Positive, checked, positive
from pcbook.core.checks import check_labels
from pcbook.core.network import Layer, Params
from pcbook.core.rules import Rule

KEY = jax.random.key(0)
X, Y = jnp.ones((4, 3)), jnp.ones((4, 2))
LABELS, MASK = jnp.arange(4), np.ones(2, bool)


@checked
def read(
    *,
    x: Float[Array, "batch n"] = X,
    y: Float[Array, "batch m"] | None = Y,
    labels: Int[Array, " batch"] = LABELS,
    mask: Bool[np.ndarray, " m"] = MASK,
    params: Params = [],  # noqa: B006
    rate: Positive = 0.1,
    steps: Count = 1,
    key: Key[Array, ""] = KEY,
    rule: Rule | None = None,
    loss: str = "cross entropy",
    function=None,
):
    return {**locals()}


def refused(**arguments):
    with pytest.raises(ValueError) as error:
        read(**{"x": X} | arguments)
    return str(error.value)


@pytest.mark.parametrize("x", [X.tolist(), np.ones((4, 3)), np.ones((4, 3), np.uint8), X > 0])
def test_numbers_in_another_form_become_an_array_of_floats(x):
    found = read(x=x)["x"]
    assert isinstance(found, jax.Array)
    assert jnp.issubdtype(found.dtype, jnp.floating)
    np.testing.assert_array_equal(found, X)


def test_what_fits_is_handed_on_as_it_is():
    params = [Layer(jnp.ones((2, 3)), jnp.ones(2))]
    found = read(x=X, params=params, rate=2)
    assert found["x"] is X
    assert found["params"][0] is params[0]
    assert found["rate"] == 2


def test_a_layer_in_a_list_is_read_field_by_field():
    found = read(params=[Layer(np.ones((2, 3)), [0, 0])])["params"][0]
    assert all(isinstance(leaf, jax.Array) and leaf.dtype == X.dtype for leaf in found)
    assert "params[0].b = array (3,)" in refused(params=[Layer(jnp.ones((2, 3)), jnp.ones(3))])


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("x", X[0], "an array of numbers, (batch, n)"),
        ("x", "abc", "an array of numbers"),
        ("x", [[1, 2], [3]], "an array of numbers"),
        ("x", None, "an array of numbers"),
        ("y", Y[:3], "batch = 4 as in x"),
        ("labels", jnp.ones(4), "an array of integers"),
        ("mask", [1, 0], "an array of booleans"),
        ("params", 3, "a list"),
        ("params", [X], "a Layer"),
        ("rate", 0.0, "a positive number"),
        ("rate", float("nan"), "a positive number"),
        ("rate", "0.1", "a positive number"),
        ("rate", True, "a positive number"),
        ("rate", jnp.float32(-1), "a positive number"),
        ("steps", 2.0, "an integer"),
        ("steps", True, "an integer"),
        ("steps", -1, "an integer of at least 1"),
        ("key", 0, "a key, as jax.random.key(0) makes it"),
        ("rule", read, "call it"),
        ("loss", 3, "a text"),
    ],
)
def test_an_error_names_the_argument_and_what_is_allowed(name, value, allowed):
    message = refused(**{name: value})
    assert message.startswith((f"{name} = ", f"{name}["))
    assert allowed in message


def test_missing_and_unknown_arguments_are_named():
    with pytest.raises(TypeError, match=r"^read\(.*speed"):
        read(speed=1)


def test_types_and_shapes_are_checked_where_values_are_traced():
    for transform in (jax.jit, jax.grad, lambda f: lambda a: jax.vmap(f)(a[None])):
        transform(lambda a: read(x=a * X, rate=a)["x"].sum() * a)(1.0 * jnp.ones(()))
        with pytest.raises(ValueError, match="x = "):
            transform(lambda a: read(x=a * X[0])["x"].sum() * a)(1.0 * jnp.ones(()))


def test_known_arrays_are_checked_while_jax_traces():
    """JAX traces comparisons of known arrays too, whose truth is then unknown."""

    @checked
    def total(x: Annotated[Float[Array, " n"], positive], labels: Int[Array, " n"]):
        check_labels(3, labels=labels)
        return x.sum()

    def traced(x, labels):
        return jax.jit(lambda z: z + total(x, labels))(1.0)

    x, labels = jnp.arange(1.0, 4), jnp.arange(3)
    assert traced(x, labels) == 7
    with pytest.raises(ValueError, match="must be a positive number"):
        traced(x - 1, labels)
    with pytest.raises(ValueError, match="labels holds the label 3"):
        traced(x, labels + 1)
