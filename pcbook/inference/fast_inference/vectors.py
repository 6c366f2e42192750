"""Linear algebra of vectors that are lists of arrays, one array per layer, for each sample.

A vector v is a list of arrays (batch, n_l); the samples of a batch are independent.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from pcbook.core.network import Activities


def dot(a: Activities, b: Activities) -> Float[Array, " batch"]:
    """The inner product of each sample."""
    return sum((u * v).sum(-1) for u, v in zip(a, b))


def along(length, direction: Activities, start: Activities) -> Activities:
    """Compute start + length * direction, with one `length` per sample or one for all."""
    return [s + jnp.reshape(length, (-1, 1)) * d for s, d in zip(start, direction)]
