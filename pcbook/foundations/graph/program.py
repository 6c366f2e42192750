"""A loss as a list of operations, and its vertices among them.

`read` turns what JAX recorded (a jaxpr) into a `Program`: the same operations, with nested
`jit`s written out and the bodies of `scan` and `remat` kept as programs of their own.
`choose` says which of its values are vertices. `walk` runs a program and stops at each
vertex, where the learning rule says what passes. `forward` and `backward` follow something
else than numbers along the wires: who depends on whom, and how deep.
"""

import itertools
import linecache
import os
import re
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal

from pcbook.core.jaxprs import closed, run_operation, scan_bounds

PRODUCTS = {"dot_general": "product", "conv_general_dilated": "convolution"}
NAME, STOP = "name", "stop_gradient"
WRITTEN_OUT = {"jit", "pjit", "closed_call", "core_call"}
SAME_NUMBERS = {"reshape", "transpose", "squeeze", "convert_element_type"}
SUMS = {"add", "add_any"}


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


class Vertex(NamedTuple):
    """A place where the graph is cut: it holds an activity and a prediction error.

    `depth` counts the vertices on the longest way from this one to the loss: 0 is read by the
    loss alone, and at rate 1 an error needs `depth` steps to come down here complete.
    `steps` is how often a scan goes through it (1 outside a scan); the shape is that of one time.
    """

    name: str
    shape: tuple
    depth: int
    steps: int
    line: int
    code: str
    file: str


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
    avals = {number: aval for p in every_program(program) for number, aval in p.avals.items()}
    return [
        jax.ShapeDtypeStruct((*times, *avals[number].shape), avals[number].dtype)
        for number, times in slots(program, vertices)
    ]


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


# ---------------------------------------------------------------------------- choosing


def choose(program: Program, vertices) -> dict:
    """The vertices of a program whose first output is the loss: number -> (name, operation).

    A vertex is cut only where an error can matter: what the inputs that are learned can change,
    and what can change the loss.
    """
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
    matter = active & live
    for op in every_op(program):
        if op.name == "while" and matter.intersection(op.outs):
            raise ValueError(
                f"{place(op.eqn)}: an error cannot go back through a while loop: its number of "
                "turns is not known beforehand; use lax.scan, or lax.fori_loop with fixed bounds"
            )
    if vertices == "products":
        chosen = products(program, matter)
    else:
        chosen = named(program, matter, vertices)
    if not chosen:
        raise ValueError(
            f"vertices = {vertices!r}: the loss has none (no matrix product or convolution that it "
            "depends on and that depends on what is learned); mark some with "
            'jax.ad_checkpoint.checkpoint_name(x, "...") and pass vertices="named"'
        )
    return unique(chosen)


def inexact(aval) -> bool:
    return jnp.issubdtype(getattr(aval, "dtype", jnp.int32), jnp.inexact)


def every_op(program: Program, atomic_too=True):
    for op in program.ops:
        if atomic_too or op.walkable:
            for inner in op.inside:
                yield from every_op(inner, atomic_too)
        yield op


def products(program: Program, matter) -> dict:
    """Every product and convolution, with the bias that is added to it straight away."""
    at_product = {
        number
        for op in every_op(program, False)
        if op.name in PRODUCTS
        for number in op.outs
        if number in matter
    }
    downstream = set()

    def after_a_product(number, op, value):
        if value or number in at_product:
            downstream.add(number)
        return value or number in at_product

    forward(program, [False] * len(program.ins), any, after_a_product)
    chosen = {}

    def look(program):
        readers = {}
        for op in program.ops:
            for atom in op.ins:
                if not isinstance(atom, Literal):
                    readers.setdefault(atom, []).append(op)
        for atom in program.outs:
            if not isinstance(atom, Literal):
                readers.setdefault(atom, []).append(None)

        def with_bias(number):
            place = number
            while len(readers.get(number, ())) == 1 and (op := readers[number][0]) is not None:
                if op.name in SUMS:
                    other = op.ins[1 if op.ins[0] is number else 0]
                    same_shape = op.eqn.outvars[0].aval.shape == program.avals[number].shape
                    if (not isinstance(other, Literal) and other in downstream) or not same_shape:
                        break
                    place = op.outs[0]
                elif op.name not in SAME_NUMBERS:
                    break
                number = op.outs[0]
            return place

        for op in program.ops:
            if op.walkable:
                look(op.inside[0])
            if op.name in PRODUCTS and op.outs[0] in matter:
                number = with_bias(op.outs[0])
                names = [
                    r.eqn.params["name"]
                    for r in readers.get(number, ())
                    if r is not None and r.name == NAME
                ]
                chosen[number] = (names[0] if names else label(op), op)

    look(program)
    return chosen


def label(op) -> str:
    return str(op.eqn.source_info.name_stack).strip("/") or PRODUCTS[op.name]


def named(program: Program, matter, wanted) -> dict:
    """The values that the user named with `checkpoint_name`."""
    names = {op.eqn.params["name"] for op in every_op(program, False) if op.name == NAME}
    if wanted == "named":
        wanted = names
    missing = sorted(set(wanted) - names)
    if missing:
        raise ValueError(
            f"vertices = {tuple(wanted)!r}: no value is called {missing[0]!r} (in a cond, a while "
            f"loop or a function with its own derivative a name is not seen); there are "
            f"{sorted(names)}"
        )
    return {
        op.outs[0]: (op.eqn.params["name"], op)
        for op in every_op(program, False)
        if op.name == NAME and op.eqn.params["name"] in wanted and op.outs[0] in matter
    }


def unique(chosen: dict) -> dict:
    """Number the names that occur more than once."""
    total = Counter(name for name, _ in chosen.values())
    seen = Counter()
    result = {}
    for number, (name, op) in chosen.items():
        seen[name] += 1
        result[number] = (
            f"{name} {seen[name]}" if total[name] > 1 or name in PRODUCTS.values() else name,
            op,
        )
    return result


# ---------------------------------------------------------------------------- describing


def depths(program: Program, vertices) -> dict:
    """How many vertices lie on the longest way from each value to the loss; -1: no way."""
    depth = {}

    def note(number, op, value):
        if number in vertices and value >= 0:
            depth[number] = max(depth.get(number, 0), value)
            value += 1
        return -1 if op.name == STOP else value

    backward(
        program, [0] + [-1] * (len(program.outs) - 1), lambda values: max(values, default=-1), note
    )
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


def describe(program: Program, vertices: dict) -> list[Vertex]:
    depth = depths(program, vertices)
    avals = {number: aval for p in every_program(program) for number, aval in p.avals.items()}
    described = []
    for number, times in slots(program, vertices):
        name, op = vertices[number]
        file, line, code = where(op.eqn)
        steps = 1
        for t in times:
            steps *= t
        described.append(
            Vertex(
                name,
                tuple(avals[number].shape),
                depth.get(number, 0),
                steps,
                line,
                code,
                os.path.basename(file),
            )
        )
    return described


def every_program(program: Program):
    yield program
    for op in program.ops:
        for inner in op.inside:
            yield from every_program(inner)
