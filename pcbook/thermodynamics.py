"""Thermodynamics: what computing costs, down to the physical limit.

To erase a bit is to halve the states that a thing may be in, and at temperature T the
least work that this takes is Landauer's bound,

    W >= kT ln 2.

Chapter: book/mortal/thermodynamics.ipynb
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import jax
from jax.extend.core import Literal, jaxpr_as_fun

from pcbook import backprop

BOLTZMANN = 1.380649e-23  # J/K, by definition of the kelvin
OPERATIONS_OF_A_TRANSCENDENTAL = 20  # a tanh or an exp, as the polynomials that compute it


class Prices(NamedTuple):
    """What a digital machine pays, in joules.

    `add` and `multiply` are for one operation on each kind of number, `memory` for one byte
    read from or written to each kind of memory. `source` says who measured it, and `process`
    in which technology: an operation of a newer one is cheaper, a wire hardly.
    """

    source: str
    process: str
    add: Mapping[str, float]
    multiply: Mapping[str, float]
    memory: Mapping[str, float]


HOROWITZ = Prices(
    source="Horowitz 2014, fig. 1.1.9; DRAM at the low end of what it gives",
    process="45 nm, 0.9 V",
    add={"float32": 0.9e-12, "float16": 0.4e-12, "int32": 0.1e-12, "int8": 0.03e-12},
    multiply={"float32": 3.7e-12, "float16": 1.1e-12, "int32": 3.1e-12, "int8": 0.2e-12},
    memory={
        "8 KB SRAM": 10e-12 / 8,
        "32 KB SRAM": 20e-12 / 8,
        "1 MB SRAM": 100e-12 / 8,
        "DRAM": 1280e-12 / 8,
    },
)


class Energy(NamedTuple):
    """What a computation takes, in joules: its `arithmetic`, and its traffic with the `memory`."""

    arithmetic: float
    memory: float

    @property
    def total(self) -> float:
        return self.arithmetic + self.memory

    def bits(self, temperature: float | int = 300) -> float:
        """The multiple of Landauer's bound: how many bits this could erase at `temperature` (K)."""
        return self.total / landauer(temperature)


def landauer(temperature: float | int = 300) -> float:
    """Landauer's bound kT ln 2, in joules: the least work to erase a bit at `temperature` (K).

    Raises ValueError for temperature <= 0.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature = {temperature}: must be a positive number of kelvins")
    return BOLTZMANN * temperature * math.log(2)


def energy_of(
    function, *args, memory: str = "DRAM", number: str = "float32", prices: Prices = HOROWITZ
) -> Energy:
    """The energy in joules of a call `function(*args)`: XLA's own count of it, times `prices`.

    Operations are charged as half additions, half multiplications of the kind `number`: so
    are matrix products. Every byte that one fused operation hands to another goes by way of
    the `memory`. What is not an argument is a constant, and what follows from constants alone
    is free. Raises ValueError for a memory or a number that has no price.
    """
    for argument, value, table in (
        ("memory", memory, prices.memory),
        ("number", number, prices.add),
    ):
        if value not in table:
            raise ValueError(
                f"{argument} = {value!r}: must be one of {', '.join(map(repr, table))}"
            )
    cost = count(function, *args)
    operation = (prices.add[number] + prices.multiply[number]) / 2
    operations = cost["flops"] + OPERATIONS_OF_A_TRANSCENDENTAL * cost["transcendentals"]
    return Energy(operations * operation, cost["bytes"] * prices.memory[memory])


def count(function, *args) -> dict[str, float]:
    """`backprop.cost`, with loops that decide for themselves when to stop.

    XLA cannot know how often such a loop turns, and counts it once. So `function(*args)` is
    run, and what its loops did beyond one turn is added. Of a branch the dearest counts.
    """
    total = backprop.cost(function, *args)
    with jax.disable_jit():
        program = jax.make_jaxpr(function)(*args)
    turns = {}
    if _has_loop(program):
        _run(program, jax.tree.leaves(args), turns)
    for body, inputs, beyond_one in turns.values():
        once = backprop.cost(jaxpr_as_fun(body), *inputs)
        total = {name: total[name] + beyond_one * once[name] for name in total}
    return total


def _has_loop(program) -> bool:
    return any(eqn.primitive.name == "while" for eqn in program.eqns)


@lru_cache(64)
def _compiled(program):
    return jax.jit(jaxpr_as_fun(program))


def _run(program, args, turns: dict) -> list:
    """Run a program, its loops in Python, and note how often each of them turned.

    `turns` holds the body of a loop, inputs of the kind that it takes, and the number of its
    turns less one for each time that it was come to.
    """
    if not _has_loop(program):
        return _compiled(program)(*args)
    values = dict(zip(program.jaxpr.constvars, program.consts))
    values |= zip(program.jaxpr.invars, args)

    def read(atom):
        return atom.val if isinstance(atom, Literal) else values[atom]

    for eqn in program.eqns:
        inputs = list(map(read, eqn.invars))
        if eqn.primitive.name == "while":
            outputs = _loop(eqn.params, inputs, turns)
        else:
            outputs = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
            outputs = outputs if eqn.primitive.multiple_results else [outputs]
        values |= zip(eqn.outvars, outputs)
    return list(map(read, program.jaxpr.outvars))


def _loop(params, inputs, turns: dict) -> list:
    condition, body = params["cond_jaxpr"], params["body_jaxpr"]
    n, m = params["cond_nconsts"], params["body_nconsts"]
    of_condition, of_body, state = inputs[:n], inputs[n : n + m], inputs[n + m :]
    beyond_one = -1
    while _run(condition, [*of_condition, *state], turns)[0]:
        state = _run(body, [*of_body, *state], turns)
        beyond_one += 1
    *_, before = turns.get(id(body), (0,))
    turns[id(body)] = body, [*of_body, *state], before + beyond_one
    return state
