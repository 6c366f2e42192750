"""Which values of a program are vertices: its products with their biases, or named values."""

from collections import Counter

from jax.extend.core import Literal

from pcbook.foundations.graph.dependencies import downstream, relevant
from pcbook.foundations.graph.program import Op, Program, every_aval, every_op, every_program, place

PRODUCTS = {"dot_general": "product", "conv_general_dilated": "convolution"}
NAME = "name"
SAME_NUMBERS = {"reshape", "transpose", "squeeze", "convert_element_type"}
SUMS = {"add", "add_any"}


def choose(program: Program, vertices) -> dict:
    """The vertices of a program whose first output is the loss: number -> (name, operation).

    A vertex is cut only where an error can matter: what the inputs that are learned can change,
    and what can change the loss. Raises ValueError for a while loop that an error would have to
    pass, for an unknown name, and if there is no vertex.
    """
    matter = relevant(program)
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


def products(program: Program, matter: set) -> dict:
    """Every product and convolution, with the bias that is added to it straight away."""
    found = [
        op
        for op in every_op(program, atomic_too=False)
        if op.name in PRODUCTS and op.outs[0] in matter
    ]
    after_a_product = downstream(program, {op.outs[0] for op in found})
    read_by, avals = readers(program), every_aval(program)
    chosen = {}
    for op in found:
        number = with_bias(op.outs[0], read_by, avals, after_a_product)
        chosen[number] = (given_name(read_by.get(number, [])) or label(op), op)
    return chosen


def readers(program: Program) -> dict:
    """The operations that read each value, at any nesting; None stands for an output."""
    read_by = {}
    for part in every_program(program):
        reads = [(atom, op) for op in part.ops for atom in op.ins]
        for atom, op in [*reads, *((atom, None) for atom in part.outs)]:
            if not isinstance(atom, Literal):
                read_by.setdefault(atom, []).append(op)
    return read_by


def with_bias(number: int, read_by: dict, avals: dict, after_a_product: set) -> int:
    """The sum of a product and its biases; the product itself if it has none.

    A bias is added while nothing else reads the product, has no other product in it, and leaves
    the shape as it is. Reshaping and the like may come between.
    """
    total = number
    while (op := only_reader(read_by.get(number, []))) is not None:
        if op.name in SUMS:
            other = op.ins[1] if op.ins[0] is number else op.ins[0]
            same_shape = op.eqn.outvars[0].aval.shape == avals[number].shape
            if not same_shape or (not isinstance(other, Literal) and other in after_a_product):
                break
            total = op.outs[0]
        elif op.name not in SAME_NUMBERS:
            break
        number = op.outs[0]
    return total


def only_reader(ops: list) -> Op | None:
    """The operation that alone reads a value; None if there are several, or it is an output."""
    return ops[0] if len(ops) == 1 else None


def given_name(ops: list) -> str | None:
    """The name that `checkpoint_name` gives to a value read by these operations, if any."""
    return next((op.eqn.params["name"] for op in ops if op is not None and op.name == NAME), None)


def label(op: Op) -> str:
    """The name scope of a product, such as a Flax module; without one, its kind."""
    return str(op.eqn.source_info.name_stack).strip("/") or PRODUCTS[op.name]


def named(program: Program, matter: set, wanted) -> dict:
    """The values that the user named with `checkpoint_name`."""
    marks = [op for op in every_op(program, atomic_too=False) if op.name == NAME]
    names = {op.eqn.params["name"] for op in marks}
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
        for op in marks
        if op.eqn.params["name"] in wanted and op.outs[0] in matter
    }


def unique(chosen: dict) -> dict:
    """Number the names that occur more than once."""
    total = Counter(name for name, _ in chosen.values())
    seen = Counter()
    result = {}
    for number, (name, op) in chosen.items():
        seen[name] += 1
        numbered = total[name] > 1 or name in PRODUCTS.values()
        result[number] = (f"{name} {seen[name]}" if numbered else name, op)
    return result
