"""A computation as a list of operations: read it, run it, and follow dependencies through it.

`read` turns what JAX recorded (a jaxpr) into a `Program`: the same operations, with nested
`jit`s written out and the bodies of `scan` and `remat` kept as programs of their own.
`walk` runs a program and stops at each vertex, where the learning rule says what passes.
`forward` and `backward` follow something else than numbers from operation to operation, such
as what depends on what.
"""

import itertools
import linecache
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
from jax import lax
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal

from pcbook.core.jaxprs import closed, run_operation, scan_bounds

STOP = "stop_gradient"
WRITTEN_OUT = {"jit", "pjit", "closed_call", "core_call"}


class Op(NamedTuple):
    """One operation: what JAX recorded, the values it reads and writes, and what is inside.

    A value is known by its number; a literal stands for itself.
    """

    eqn: JaxprEqn
    ins: list
    outs: list
    inside: tuple

    @property
    def name(self) -> str:
        return self.eqn.primitive.name

    @property
    def walkable(self) -> bool:
        """Whether vertices may lie inside; every other operation is atomic."""
        return self.name in ("scan", "checkpoint", "remat", "remat2")


class Program(NamedTuple):
    """Operations in the order in which they run; inputs, outputs and constants by number."""

    ins: list
    ops: list
    outs: list
    consts: dict
    avals: dict


# ---------------------------------------------------------------------------- reading


def read(recorded: ClosedJaxpr, numbers=None) -> Program:
    """The program of a jaxpr. Every value of it, at any nesting, has a number of its own."""
    numbers = itertools.count() if numbers is None else numbers
    program = Program([], [], [], {}, {})

    def number(var):
        n = next(numbers)
        program.avals[n] = var.aval
        return n

    def write_out(jaxpr, consts, args):
        env = dict(zip(jaxpr.invars, args))
        for var, value in zip(jaxpr.constvars, consts):
            env[var] = number(var)
            program.consts[env[var]] = value

        def get(atom):
            return atom if isinstance(atom, Literal) else env[atom]

        for eqn in jaxpr.eqns:
            ins = [get(atom) for atom in eqn.invars]
            if eqn.primitive.name in WRITTEN_OUT:
                inner = closed(eqn.params.get("jaxpr") or eqn.params["call_jaxpr"])
                outs = write_out(inner.jaxpr, inner.consts, ins)
            else:
                outs = [number(var) for var in eqn.outvars]
                program.ops.append(Op(eqn, ins, outs, inside(eqn, numbers)))
            env.update(zip(eqn.outvars, outs))
        return [get(atom) for atom in jaxpr.outvars]

    program.ins.extend(number(var) for var in recorded.jaxpr.invars)
    program.outs.extend(write_out(recorded.jaxpr, recorded.consts, program.ins))
    return program


def inside(eqn, numbers) -> tuple:
    """The programs inside an operation through which an error can be followed."""
    name = eqn.primitive.name
    if name == "cond":
        return tuple(read(closed(branch), numbers) for branch in eqn.params["branches"])
    if name in ("scan", "checkpoint", "remat", "remat2"):
        return (read(closed(eqn.params["jaxpr"]), numbers),)
    return ()


def where(eqn) -> tuple[str, int, str]:
    """File, line and text of the user's code that asked for an operation."""
    found = re.match(r"(.*?):(\d+)(:\d+)?( \(.*\))?$", source_info_util.summarize(eqn.source_info))
    if not found:
        return "", 0, ""
    file, line = found[1], int(found[2])
    return file, line, linecache.getline(file, line).strip()


def place(eqn) -> str:
    file, line, code = where(eqn)
    return f"{eqn.primitive.name} at {file}:{line}" + (f" `{code}`" if code else "")


# ---------------------------------------------------------------------------- running


def walk(program: Program, vertices, args, feed, visit: Callable):
    """Run a program. At each vertex `visit(prediction, fed)` says `(activity, kept)`.

    The activity is what the rest of the program reads there. `feed` has one entry a vertex, in
    the order of `slots`, with a leading time axis for a vertex in a scan; so has what is kept.
    Returns the program's outputs and what was kept.
    """
    env = dict(program.consts)
    env.update(zip(program.ins, args))
    feed = list(feed)
    kept = []

    def get(atom):
        return atom.val if isinstance(atom, Literal) else env[atom]

    for op in program.ops:
        values = [get(atom) for atom in op.ins]
        count = len(slots(op.inside[0], vertices)) if op.walkable else 0
        if count:
            fed, feed = feed[:count], feed[count:]
            run = scan if op.name == "scan" else remat
            outs, sent = run(op, vertices, values, fed, visit)
            kept.extend(sent)
        else:
            outs = atomic(op.eqn, values)
        for number, value in zip(op.outs, outs):
            if number in vertices:
                value, sent = visit(value, feed.pop(0))
                kept.append(sent)
            env[number] = value
    return [get(atom) for atom in program.outs], kept


def atomic(eqn, values) -> list:
    """Run one operation as JAX does, and say where it stands if JAX cannot."""
    names = source_info_util.current_name_stack() + eqn.source_info.name_stack
    try:
        with (
            source_info_util.user_context(eqn.source_info.traceback, name_stack=names),
            eqn.ctx.manager,
        ):
            return run_operation(eqn, values)
    except (NotImplementedError, ValueError) as error:
        raise ValueError(f"{place(eqn)}: JAX cannot differentiate it ({error})") from error


def scan(op, vertices, values, fed, visit):
    """A scan over a body with vertices: each of them exists once a step."""
    p = op.eqn.params
    n, m = scan_bounds(op.eqn)
    consts, carry, xs = values[:n], values[n:m], values[m:]

    def step(carry, now):
        x, fed = now
        outs, kept = walk(op.inside[0], vertices, [*consts, *carry, *x], fed, visit)
        return outs[: m - n], (outs[m - n :], kept)

    carry, (ys, kept) = lax.scan(
        step, carry, (xs, fed), length=p["length"], reverse=p["reverse"], unroll=p["unroll"]
    )
    return [*carry, *ys], kept


def remat(op, vertices, values, fed, visit):
    """A rematerialised block: still run again on the way back, vertices and all."""
    p = op.eqn.params

    def block(values, fed):
        return walk(op.inside[0], vertices, values, fed, visit)

    return jax.checkpoint(block, prevent_cse=p["prevent_cse"], policy=p["policy"])(values, fed)


def slots(program: Program, vertices, times=()) -> list:
    """`(number, leading times)` of every vertex in the order in which `walk` meets them."""
    found = []
    for op in program.ops:
        if op.walkable:
            inner = (*times, op.eqn.params["length"]) if op.name == "scan" else times
            found += slots(op.inside[0], vertices, inner)
        found += [(number, times) for number in op.outs if number in vertices]
    return found


def shapes(program: Program, vertices) -> list:
    """Shape and type of what each slot holds, leading times included."""
    avals = every_aval(program)
    return [
        jax.ShapeDtypeStruct((*times, *avals[number].shape), avals[number].dtype)
        for number, times in slots(program, vertices)
    ]


def every_program(program: Program) -> Iterator[Program]:
    """Yield the program and all programs inside its operations."""
    yield program
    for op in program.ops:
        for inner in op.inside:
            yield from every_program(inner)


def every_op(program: Program, atomic_too: bool = True) -> Iterator[Op]:
    """Yield the operations at any nesting, inner ones first; those inside atomic ones if asked."""
    for op in program.ops:
        if atomic_too or op.walkable:
            for inner in op.inside:
                yield from every_op(inner, atomic_too)
        yield op


def every_aval(program: Program) -> dict:
    """Shape and type of every value at any nesting, by number."""
    return {number: aval for p in every_program(program) for number, aval in p.avals.items()}


# ---------------------------------------------------------------------------- following


def forward(program: Program, ins, join: Callable, note: Callable) -> list:
    """Follow something from the inputs to the outputs.

    `join(list)` is what an operation passes on of what reached it (of nothing: what a constant
    has), `note(number, op, value)` may replace it at each value written.
    """
    env = dict(zip(program.ins, ins))

    def get(atom):
        return join([]) if isinstance(atom, Literal) else env.get(atom, join([]))

    for op in program.ops:
        values = [get(atom) for atom in op.ins]
        if op.name == "scan":
            outs = scan_forward(op, values, join, note)
        elif op.name == "cond":
            ways = [forward(branch, values[1:], join, note) for branch in op.inside]
            outs = [join([values[0], *out]) for out in zip(*ways)]
        elif op.inside:
            outs = forward(op.inside[0], values, join, note)
        else:
            outs = [join(values)] * len(op.outs)
        for number, value in zip(op.outs, outs):
            env[number] = note(number, op, value)
    return [get(atom) for atom in program.outs]


def scan_forward(op, values, join, note):
    p = op.eqn.params
    n, m = scan_bounds(op.eqn)
    carry = values[n:m]
    for _ in range(p["length"]):
        outs = forward(op.inside[0], [*values[:n], *carry, *values[m:]], join, note)
        after = [join([old, new]) for old, new in zip(carry, outs)]
        if after == carry:
            break
        carry = after
    return (
        [*carry, *outs[m - n :]] if p["length"] else [*carry, *[join([])] * (len(op.outs) - m + n)]
    )


def backward(program: Program, outs, join: Callable, note: Callable) -> list:
    """Follow something from the outputs to the inputs: as `forward`, the other way."""
    env = {}

    def put(atom, value):
        if not isinstance(atom, Literal):
            env[atom] = join([env.get(atom, join([])), value])

    for atom, value in zip(program.outs, outs):
        put(atom, value)
    for op in reversed(program.ops):
        values = [note(number, op, env.get(number, join([]))) for number in op.outs]
        if op.name == "scan":
            ins = scan_backward(op, values, join, note)
        elif op.name == "cond":
            ways = [backward(branch, values, join, note) for branch in op.inside]
            ins = [join(values), *(join(list(way)) for way in zip(*ways))]
        elif op.inside:
            ins = backward(op.inside[0], values, join, note)
        else:
            ins = [join(values)] * len(op.ins)
        for atom, value in zip(op.ins, ins):
            put(atom, value)
    return [env.get(number, join([])) for number in program.ins]


def scan_backward(op, values, join, note):
    p = op.eqn.params
    n, m = scan_bounds(op.eqn)
    carry, ys = values[: m - n], values[m - n :]
    ins = [join([])] * len(op.ins)
    for _ in range(p["length"]):
        now = backward(op.inside[0], [*carry, *ys], join, note)
        ins = [join([old, new]) for old, new in zip(ins, now)]
        if now[n:m] == carry:
            break
        carry = now[n:m]
    return [*ins[:n], *carry, *ins[m:]]
