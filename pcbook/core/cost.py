"""What a computation costs: operations and bytes as XLA counts them, and matrix products.

XLA counts the body of a loop once, however often it turns. `count` unrolls loops of a known
length and runs the program to learn how often the others turn. `products` counts the
multiplications in matrix products and convolutions alone: the work in which learning rules
are compared, whatever the compiler makes of them.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from pcbook.core.arguments import checked
from pcbook.core.jaxprs import run_operation, scan_bounds


@checked
def count(function: Callable, *args) -> dict[str, float]:
    """What `function(*args)` does, by XLA's count of the compiled program.

    `flops` are additions and multiplications, `transcendentals` functions such as tanh, and
    `bytes` what is read and written. Every loop is counted as often as it turns: if it decides
    for itself when to stop, the program is run. Of a branch the dearest counts.
    """
    with jax.disable_jit():
        program = jax.make_jaxpr(function)(*args)
    leaves = jax.tree.leaves(args)
    compiled = jax.jit(partial(_run, program)).lower(leaves).compile()
    total = _analysis(compiled)
    if bodies := _loops(program):
        _, turns = compiled(leaves)
        for body, beyond_one in zip(bodies, turns):
            inputs = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in body.in_avals]
            with jax.disable_jit():
                lowered = jax.jit(jaxpr_as_fun(body)).lower(*inputs)
            once = _analysis(lowered.compile())
            total = {name: total[name] + int(beyond_one) * once[name] for name in total}
    return total


def _analysis(compiled) -> dict[str, float]:
    """XLA's count of a compiled program, every loop counted once."""
    names = {"flops": "flops", "transcendentals": "transcendentals", "bytes": "bytes accessed"}
    analysis = compiled.cost_analysis()
    return {name: analysis.get(key, 0.0) for name, key in names.items()}


def _loops(program: ClosedJaxpr) -> list[ClosedJaxpr]:
    """What each loop of a program does in a turn, an outer loop before those within it."""
    bodies = (e.params["body_jaxpr"] for e in program.eqns if e.primitive.name == "while")
    return [loop for body in bodies for loop in (body, *_loops(body))]


def _run(program: ClosedJaxpr, args) -> tuple[list, list]:
    """Run a program. Returns its outputs, and a number for each of its `_loops`.

    That is its turns, less one for each time that the program came to it.
    """
    values = dict(zip(program.jaxpr.constvars, program.consts))
    values |= zip(program.jaxpr.invars, args)
    turns = []

    def read(atom):
        return atom.val if isinstance(atom, Literal) else values[atom]

    for eqn in program.eqns:
        inputs = list(map(read, eqn.invars))
        if eqn.primitive.name == "while":
            outputs, of_this = _loop(eqn.params, inputs)
            turns += of_this
        else:
            outputs = run_operation(eqn, inputs)
        values |= zip(eqn.outvars, outputs)
    return list(map(read, program.jaxpr.outvars)), turns


def _loop(params, inputs) -> tuple[list, list]:
    """Run one loop, and count."""
    body, condition = params["body_jaxpr"], jaxpr_as_fun(params["cond_jaxpr"])
    n, m = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    of_condition, of_body, state = inputs[:n], inputs[n:m], inputs[m:]

    def turn(carry):
        state, turns = carry
        state, within = _run(body, [*of_body, *state])
        return state, [a + b for a, b in zip(turns, [1, *within])]

    none = [jnp.zeros((), int)] * (1 + len(_loops(body)))
    state, (turns, *within) = lax.while_loop(
        lambda carry: condition(*of_condition, *carry[0])[0], turn, (state, none)
    )
    return state, [turns - 1, *within]


@checked
def products(function: Callable, *args) -> int:
    """Multiplications in the matrix products and convolutions of `function(*args)`.

    Loops count as often as they turn, a product of what does not change in a loop once, and
    what no output depends on not at all. Of a branch the dearest counts. The program is run if
    it holds a loop whose turns are not known beforehand.
    """
    program = jax.make_jaxpr(function)(*args)
    if not _holds_while(program.jaxpr):
        return sum(_products(program.jaxpr))
    with jax.disable_jit():
        program = jax.make_jaxpr(function)(*args)
    _, turns = jax.jit(partial(_run, program))(jax.tree.leaves(args))
    return sum(_products(program.jaxpr)) + _in_loops(program, map(int, turns), visits=1)


def _in_loops(program: ClosedJaxpr, beyond_one, visits: int) -> int:
    """Multiplications in the while loops of a program that is run `visits` times."""
    total = 0
    for eqn in program.eqns:
        if eqn.primitive.name == "while":
            body = eqn.params["body_jaxpr"]
            turns = next(beyond_one) + visits
            each, once = _products(body.jaxpr, constant=eqn.params["body_nconsts"])
            total += turns * each + visits * once + _in_loops(body, beyond_one, turns)
    return total


def _products(jaxpr, constant: int = 0) -> tuple[int, int]:
    """Multiplications of a program, those in its while loops left out.

    Those of what changes, and those of what follows from the first `constant` inputs alone.
    """
    changing, each, once = set(jaxpr.invars[constant:]), 0, 0
    for eqn in _needed(jaxpr):
        if changing.intersection(v for v in eqn.invars if not isinstance(v, Literal)):
            changing.update(eqn.outvars)
            each += _multiplications(eqn)
        else:
            once += _multiplications(eqn)
    return each, once


def _needed(jaxpr) -> list:
    """The operations on which the outputs depend, in their order."""
    live, needed = {v for v in jaxpr.outvars if not isinstance(v, Literal)}, []
    for eqn in reversed(jaxpr.eqns):
        if live.intersection(eqn.outvars) or eqn.effects:
            live.update(v for v in eqn.invars if not isinstance(v, Literal))
            needed.insert(0, eqn)
    return needed


def _multiplications(eqn) -> int:
    name, inner = eqn.primitive.name, _programs_within(eqn)
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        shape = eqn.invars[0].aval.shape
        return eqn.outvars[0].aval.size * math.prod(shape[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel = eqn.invars[1].aval
        outputs = kernel.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
        return eqn.outvars[0].aval.size * kernel.size // outputs
    if name == "cond":
        return max(sum(_products(branch)) for branch in inner)
    if name == "scan":
        (body,), length = inner, eqn.params["length"]
        each, once = _products(body, constant=scan_bounds(eqn)[0])
        return length * each + min(length, 1) * once
    return 0 if name == "while" else sum(sum(_products(program)) for program in inner)


def _holds_while(jaxpr) -> bool:
    return any(
        eqn.primitive.name == "while" or any(map(_holds_while, _programs_within(eqn)))
        for eqn in jaxpr.eqns
    )


def _programs_within(eqn) -> list:
    """The programs that an operation runs: a loop's body, a branch, a compiled function."""
    lists = [value if isinstance(value, tuple) else [value] for value in eqn.params.values()]
    programs = [getattr(value, "jaxpr", value) for values in lists for value in values]
    return [program for program in programs if hasattr(program, "eqns")]
