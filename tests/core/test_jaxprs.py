import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from pcbook.core.jaxprs import run_operation, scan_bounds


def rnn(weights, start, xs):
    """A scan with two constants, three carried values and two scanned inputs."""

    def step(state, now):
        (a, count), b = state
        x, y = now
        a = jnp.tanh(a @ weights["a"] + b @ weights["b"] + x)
        return ((a, count + 1), b + y), a.sum()

    return lax.scan(step, ((start, 0), start), xs)


ARGUMENTS = (
    {"a": jnp.eye(3), "b": 2 * jnp.eye(3)},
    jnp.ones(3),
    (jnp.ones((4, 3)), jnp.arange(12.0).reshape(4, 3)),
)


def operation(function, *args, name):
    return next(e for e in jax.make_jaxpr(function)(*args).eqns if e.primitive.name == name)


def test_scan_bounds_divide_constants_carry_and_what_is_scanned():
    eqn = operation(rnn, *ARGUMENTS, name="scan")
    assert scan_bounds(eqn) == (2, 2 + 3)
    assert len(eqn.invars) == 2 + 3 + 2


def test_scan_bounds_hold_in_the_program_of_a_gradient():
    def loss(start):
        return rnn(ARGUMENTS[0], start, ARGUMENTS[2])[1].sum()

    forth = operation(jax.grad(loss), ARGUMENTS[1], name="scan")
    constants, carried = scan_bounds(forth)
    inputs, outputs = forth.params["jaxpr"].in_avals, forth.params["jaxpr"].out_avals
    assert carried + 2 == len(inputs)
    assert inputs[constants:carried] == outputs[: carried - constants]


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: x @ x, "dot_general"),
        (lambda x: lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x), "cond"),
        (jax.nn.relu, "custom_jvp_call"),
        (jax.jit(lambda x: 3 * x), "jit"),
        (lambda x: lax.fori_loop(0, x.astype(int)[0, 0], lambda _, y: 2 * y, x), "while"),
        (lambda x: lax.scan(lambda c, row: (c + row, c), x[0], x)[1], "scan"),
    ],
)
def test_an_operation_run_again_gives_what_the_function_gives(function, name):
    x = jnp.array([[2.0, -1.0], [0.5, 3.0]])
    program = jax.make_jaxpr(function)(x)
    values = {program.jaxpr.invars[0]: x}
    for eqn in program.eqns:
        inputs = [atom.val if hasattr(atom, "val") else values[atom] for atom in eqn.invars]
        outputs = run_operation(eqn, inputs)
        assert len(outputs) == len(eqn.outvars)
        values.update(zip(eqn.outvars, outputs))
    assert name in {eqn.primitive.name for eqn in program.eqns}
    np.testing.assert_array_equal(values[program.jaxpr.outvars[0]], function(x))
