"""Markov blankets: what the inside and the outside of a creature share beyond its senses and acts.

Four variables, the outside, the senses, the actions and the inside, follow

    z(t + 1) = A z(t) + noise of variance 1,

where A couples inside and outside through senses and actions alone. The stationary covariance
solves C = A C A^T + I, and the information (nats) that inside a and outside b share, given the
blanket c, is that of Gaussian variables,

    I(a; b | c) = -ln(1 - r^2) / 2,        r the partial correlation of a and b given c.

For `MUTUAL` it vanishes given the present blanket alone (Friston 2013). In general the past of the
blanket must be given as well (Biehl et al. 2021; Aguilera et al. 2022).
"""

from typing import Annotated

import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array, Float, Key

from pcbook.core.arguments import Count, Finite, Index, checked, finite
from pcbook.core.checks import check_number

OUTSIDE, SENSE, ACT, INSIDE = range(4)
BURN_IN = 200  # steps after which the start is forgotten

# Couplings are symmetric. In C, what senses and actions carry in two steps cancels.
MUTUAL = np.array(
    [[0.7, 0.2, -0.2, 0.0], [0.2, 0.6, 0.0, 0.2], [-0.2, 0.0, -0.2, 0.2], [0.0, 0.2, 0.2, 0.7]]
)


@checked
def draw_couplings(rng: np.random.Generator, leak: Finite = 0.0) -> Float[np.ndarray, "4 4"]:
    """Draw the couplings A[i, j] from variable j to variable i one step later.

    The outside does not couple to inside or actions, nor the inside to outside or senses: they
    interact through the blanket alone, except for a `leak`, a coupling from outside to inside.
    The others are normal numbers. The largest eigenvalue has modulus 0.9.
    """
    A = rng.normal(size=(4, 4))
    A[[INSIDE, ACT, OUTSIDE, SENSE], [OUTSIDE, OUTSIDE, INSIDE, INSIDE]] = leak, 0, 0, 0
    return 0.9 * A / np.abs(np.linalg.eigvals(A)).max()


@checked
def wander(key: Key[Array, ""], A: Float[Array, "n n"], steps: Count) -> Float[Array, "steps n"]:
    """Simulate z(t + 1) = A z(t) + noise of variance 1, and drop the first BURN_IN steps."""

    def step(z, noise):
        z = A @ z + noise
        return z, z

    noises = random.normal(key, (steps + BURN_IN, len(A)))
    return lax.scan(step, jnp.zeros(len(A)), noises)[1][BURN_IN:]


@checked
def lagged(A: Annotated[Float[np.ndarray, "4 4"], finite], past: Index) -> Float[np.ndarray, "n n"]:
    """Stationary covariance of inside, outside, and the blanket now and up to `past` steps before.

    The order is that of `windows`. C_0 = A C_0 A^T + I, and C_h = A^h C_0 is the covariance of
    z(t) with z(t - h).
    """
    n = len(A)
    C = np.linalg.solve(np.eye(n * n) - np.kron(A, A), np.eye(n).ravel()).reshape(n, n)
    powers = [C]
    for _ in range(past):
        powers.append(A @ powers[-1])
    blocks = [
        [powers[j - i] if j >= i else powers[i - j].T for j in range(past + 1)]
        for i in range(past + 1)
    ]
    picked = [INSIDE, OUTSIDE, *(n * h + b for h in range(past + 1) for b in (SENSE, ACT))]
    return np.block(blocks)[np.ix_(picked, picked)]


@checked
def windows(
    z: Annotated[Float[np.ndarray, "steps 4"], finite], past: Index
) -> Float[np.ndarray, "samples n"]:
    """Inside and outside at each step, with the blanket then and `past` steps back."""
    check_number(f"less than {len(z)}, the number of steps", len(z).__gt__, past=past)
    blanket = z[:, [SENSE, ACT]]
    back = [blanket[past - h : len(z) - h] for h in range(past + 1)]
    return np.concatenate([z[past:, [INSIDE, OUTSIDE]], *back], 1)


@checked
def shared_information(C: Float[np.ndarray, "n n"]) -> float:
    """Information (nats) that the first two Gaussian variables share, given all the others.

    -ln(1 - r^2) / 2 with r their partial correlation, from the inverse of the covariance.
    """
    P = np.linalg.inv(C)
    return float(-np.log1p(-(P[0, 1] ** 2) / (P[0, 0] * P[1, 1])) / 2)
