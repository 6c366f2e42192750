"""The networks that the tests draw: any size, batch, activation, loss and weights.

A `Case` is a network at an arbitrary point of its state space: biases are not zero,
activities are not those of the forward pass, targets are any numbers. An identity that
holds there holds.
"""

from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st

from pcbook.core.network import ACTIVATIONS, LOSSES, Layer

# A case is small as it stands, and shrinking one would compile for minutes.
few = settings(max_examples=25, deadline=None, phases=[Phase.reuse, Phase.generate])
fewer = settings(few, max_examples=10)  # where each example compiles a loop of its own

SMOOTH = ("identity", "tanh", "sigmoid")


class Case(NamedTuple):
    """A network, a batch, activities x_0..x_{L-1} that are not at rest, and the names to use."""

    params: list
    x: jax.Array
    y: jax.Array
    xs: list
    activation: str
    loss: str
    precision: float

    @property
    def model(self):
        return {"activation": self.activation, "loss": self.loss, "precision": self.precision}


def case(
    sizes, batch=3, seed=0, *, activation="tanh", loss="squared error", precision=1.0, scale=1.0
) -> Case:
    """Weights of about `scale` / sqrt(n_{l-1}), and everything else of about 1."""
    normal = np.random.default_rng(seed).normal
    params = [
        Layer(jnp.asarray(scale * normal(size=(m, n)) / np.sqrt(n)), jnp.asarray(normal(size=m)))
        for n, m in pairwise(sizes)
    ]
    xs = [jnp.asarray(normal(size=(batch, n))) for n in sizes[:-1]]
    y = jnp.asarray(normal(size=(batch, sizes[-1])))
    return Case(params, xs[0], y, xs, activation, loss, precision)


def cases(activations=tuple(ACTIVATIONS), losses=tuple(LOSSES), precisions=(1.0, 0.3), least=2):
    """Cases of `least` to 5 layers of 1 or 3 units, in batches of 1 or 3.

    Two widths make every mistake of shape that many would, and XLA, which compiles
    each operation anew for each shape, has few of them to compile.
    """
    return st.builds(
        case,
        st.lists(st.sampled_from((1, 3)), min_size=least, max_size=5),
        st.sampled_from((1, 3)),
        st.integers(0, 2**32 - 1),
        activation=st.sampled_from(activations),
        loss=st.sampled_from(losses),
        precision=st.sampled_from(precisions),
    )


@contextmanager
def use_float64(on: bool = True):
    """Numbers in float64, or in float32 (`jax.enable_x64` is missing before JAX 0.8)."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", on)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


@contextmanager
def as_a_reader_runs_it():
    """Without the tests' own check of annotations, so that the package's errors are seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def assert_close(ours, theirs, rtol=1e-9, atol=1e-11):
    """Equal as trees of float64: 1e-9 allows for rounding in another order, and nothing more."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol, atol)


def slope_along(function, point, direction, h=1e-6):
    """Central difference of a number-valued function of a tree, in float64: error about h^2."""
    ahead = jax.tree.map(lambda p, d: p + h * d, point, direction)
    behind = jax.tree.map(lambda p, d: p - h * d, point, direction)
    return (function(ahead) - function(behind)) / (2 * h)


def dot(a, b):
    return sum((u * v).sum() for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def random_like(tree, seed=1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), tree)
