"""pcbook.core.descent against dense linear algebra and functions whose minimum is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import use_float64

from pcbook.core.descent import Samples, conjugate_gradients, descend

ROWS = Samples((0, 1))  # of arrays (batch, 3) and (4, batch)


@pytest.fixture(autouse=True, scope="module")
def in_float64():
    with use_float64():
        yield


def quadratics(batch=5, seed=0):
    """Matrices A >= 1 and vectors b of many samples, and the energy x.A x / 2 - b.x of each."""
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(batch, 7, 7))
    A = jnp.asarray(np.eye(7) + roots @ roots.transpose(0, 2, 1))
    b = jnp.asarray(rng.normal(size=(batch, 7)))

    def slope(state):
        x = jnp.concatenate([state[0], state[1].T], 1)
        Ax = jnp.einsum("bij,bj->bi", A, x)
        g = Ax - b
        return (x * (Ax / 2 - b)).sum(1), [g[:, :3], g[:, 3:].T]

    return A, b, slope


def zeros(batch=5):
    return [jnp.zeros((batch, 3)), jnp.zeros((4, batch))]


def test_a_quadratic_is_solved_as_dense_algebra_solves_it():
    A, b, slope = quadratics()
    found = jax.jit(lambda x: descend(slope, x, ROWS, steps=500, tolerance=1e-10))(zeros())
    assert found.converged
    x = jnp.concatenate([found.state[0], found.state[1].T], 1)
    np.testing.assert_allclose(x, jnp.linalg.solve(A, b[..., None])[..., 0], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.memory.energy, slope(found.state)[0])


def test_a_sample_does_not_depend_on_the_others():
    _, _, slope = quadratics()

    def alone(state):
        filled = [
            jnp.zeros((5, 3)).at[0].set(state[0][0]),
            jnp.zeros((4, 5)).at[:, 0].set(state[1][:, 0]),
        ]
        energy, g = slope(filled)
        return energy[:1], [g[0][:1], g[1][:, :1]]

    together = descend(slope, zeros(), ROWS, steps=200, tolerance=1e-3).state
    first = descend(alone, zeros(1), ROWS, steps=200, tolerance=1e-3).state
    np.testing.assert_allclose(first[0][0], together[0][0], rtol=1e-9)
    np.testing.assert_allclose(first[1][:, 0], together[1][:, 0], rtol=1e-9)


@pytest.mark.parametrize("first", [0.1, 1.0, 100.0])
def test_no_energy_ends_above_its_beginning(first):
    """A landscape of many valleys, whose curvature goes from -100 to 100."""

    def slope(state):
        def energy(x):
            return jnp.sin(10 * x[0]).sum(1) + (x[0] ** 2).sum(1) / 2 + jnp.abs(x[1]).sum(0)

        return energy(state), jax.grad(lambda x: energy(x).sum())(state)

    rng = np.random.default_rng(1)
    start = [jnp.asarray(rng.normal(size=(50, 3))), jnp.asarray(rng.normal(size=(4, 50)))]
    for steps in (1, 2, 3, 30):
        found = descend(slope, start, ROWS, steps=steps, first=first)
        here = slope(found.state)[0]
        assert (here <= slope(start)[0] + 1e-10).all()  # to where a step went back to
        np.testing.assert_allclose(found.memory.energy, here, atol=1e-9)


def test_the_record_has_every_moment_and_its_last_is_the_end():
    _, _, slope = quadratics()
    found = descend(slope, zeros(), ROWS, steps=12, record=True)
    energy, size, sweeps, count = found.record
    assert count == 13
    np.testing.assert_allclose(energy[0], slope(zeros())[0].mean())
    np.testing.assert_allclose(energy[-1], slope(found.state)[0].mean())
    np.testing.assert_allclose(size[-1], jnp.sqrt(sum((g**2).sum() for g in slope(found.state)[1])))
    np.testing.assert_allclose(sweeps, np.arange(1, 14))


def test_without_samples_everything_takes_the_same_steps():
    A, b, slope = quadratics()

    def of_all(state):
        energy, g = slope(state)
        return energy.sum(), g

    found = descend(of_all, zeros(), Samples(None), steps=500, tolerance=1e-9)
    x = jnp.concatenate([found.state[0], found.state[1].T], 1)
    np.testing.assert_allclose(x, jnp.linalg.solve(A, b[..., None])[..., 0], rtol=1e-6, atol=1e-8)


def test_conjugate_gradients_solve_what_dense_algebra_solves():
    A, b, _ = quadratics()

    def times(d):
        product = jnp.einsum("bij,bj->bi", A, jnp.concatenate([d[0], d[1].T], 1))
        return [product[:, :3], product[:, 3:].T]

    split = [b[:, :3], b[:, 3:].T]
    d, count = conjugate_gradients(times, split, ROWS, tolerance=1e-12, steps=20)
    x = jnp.concatenate([d[0], d[1].T], 1)
    np.testing.assert_allclose(x, jnp.linalg.solve(A, b[..., None])[..., 0], rtol=1e-8)
    assert 7 <= count <= 20
    assert conjugate_gradients(times, split, ROWS, steps=2)[1] <= 2
