"""Linear algebra of vectors that are lists of arrays, one array per layer, for each sample.

A vector v is a list of arrays (batch, n_l); the samples of a batch are independent.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from pcbook.core.network import Activities


def conjugate_gradients(
    times: Callable, b: Activities, tolerance: float = 0.3, steps: int = 12
) -> tuple[Activities, Array]:
    """Solve times(d) = b for every sample at once, and count the products.

    `times` is a symmetric positive definite linear map. Stops when the norm of the residual,
    over all samples, is at most `tolerance` times that of b, or after `steps` products.
    """

    def unfinished(state):
        *_, rr, count = state
        return (count < steps) & (rr.sum() > tolerance**2 * dot(b, b).sum())

    def step(state):
        d, residual, p, rr, count = state
        Ap = times(p)
        a = _ratio(rr, dot(p, Ap))
        d, residual = along(a, p, d), along(-a, Ap, residual)
        new = dot(residual, residual)
        return d, residual, along(_ratio(new, rr), p, residual), new, count + 1

    zero = jax.tree.map(jnp.zeros_like, b)
    d, *_, count = lax.while_loop(unfinished, step, (zero, b, b, dot(b, b), 0))
    return d, count


def dot(a: Activities, b: Activities) -> Float[Array, " batch"]:
    """The inner product of each sample."""
    return sum((u * v).sum(-1) for u, v in zip(a, b))


def along(length, direction: Activities, start: Activities) -> Activities:
    """Compute start + length * direction, with one `length` per sample or one for all."""
    return [s + jnp.reshape(length, (-1, 1)) * d for s, d in zip(start, direction)]


def _ratio(a, b):
    """Compute a / b where b > 0, and 0 elsewhere."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)
