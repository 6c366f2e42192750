"""How the values of a program depend on each other, on what is learned, and on the way to the loss.

The first output of a program is the loss; its inputs are what is learned.
"""

import jax.numpy as jnp

from pcbook.foundations.graph.program import STOP, Program, backward, forward


def relevant(program: Program) -> set:
    """The values that an error can matter to: the learned inputs change them, they the loss."""
    active, live = set(), set()

    def reached(number, op, value):
        value = value and op.name != STOP and inexact(op.eqn.outvars[op.outs.index(number)].aval)
        if value:
            active.add(number)
        return value

    def read_by_loss(number, op, value):
        if value:
            live.add(number)
        return value and op.name != STOP

    forward(program, [True] * len(program.ins), any, reached)
    backward(program, [True] + [False] * (len(program.outs) - 1), any, read_by_loss)
    return active & live


def inexact(aval) -> bool:
    """Whether a value is of a type that has derivatives."""
    return jnp.issubdtype(getattr(aval, "dtype", jnp.int32), jnp.inexact)


def downstream(program: Program, sources: set) -> set:
    """The values that depend on some of the `sources`, and these themselves."""
    found = set()

    def note(number, op, value):
        value = value or number in sources
        if value:
            found.add(number)
        return value

    forward(program, [False] * len(program.ins), any, note)
    return found


def depths(program: Program, vertices) -> dict:
    """How many vertices lie on the longest way from each vertex to the loss."""
    depth = {}

    def note(number, op, value):
        if number in vertices and value >= 0:
            depth[number] = max(depth.get(number, 0), value)
            value += 1
        return -1 if op.name == STOP else value

    def longest(values):
        return max(values, default=-1)  # -1: no way to the loss

    backward(program, [0] + [-1] * (len(program.outs) - 1), longest, note)
    return depth


def parents(program: Program, vertices) -> dict:
    """The vertices that each vertex reads; under None, those that the loss reads."""
    read_by = {}

    def note(number, op, value):
        if number not in vertices:
            return frozenset() if op.name == STOP else value
        read_by[number] = read_by.get(number, frozenset()) | value
        return frozenset([number])

    def union(sets):
        return frozenset().union(*sets)

    outs = forward(program, [frozenset()] * len(program.ins), union, note)
    return {**read_by, None: outs[0]}
