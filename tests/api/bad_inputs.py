"""Bad inputs for every public function, made from one valid call, and what comes of each.

- *clear*: a ValueError or TypeError raised in pcbook that names the argument;
- *right*: the right answer, as from a list of numbers for an array, or numbers that are visibly
  not finite where the input was not;
- *deep*: any other error;
- *silent*: an answer to a question that has none.

It runs without jaxtyping's import hook, as a user's program does:

    python tests/api/bad_inputs.py            the table, and what is not clear or right
    python tests/api/bad_inputs.py --write    keep that in not_yet_refused.txt
"""

import inspect
import json
import re
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from calls import ARGS, CALLS, call, comparable, public
from jax import random

from pcbook.core.arguments import checked

PACKAGE = str(Path(__file__).parents[2] / "pcbook")
NOT_YET = Path(__file__).with_name("not_yet_refused.txt")

# What has a right answer, though it looks bad: function, argument, kind of input.
ACCEPTED = Path(__file__).with_name("accepted.txt")


MISFITS = ("short", "long", "empty", "a row less", "a column less", "an axis more", "an axis less")


class Bad(NamedTuple):
    """An argument with a bad value; `same` where the answer may be that of the call `like`."""

    argument: str
    kind: str
    value: Any
    like: Any = None
    finite: bool = True  # whether the input is; where not, the answer need not be


def is_key(value) -> bool:
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def is_array(value) -> bool:
    return isinstance(value, np.ndarray | jax.Array) and not is_key(value)


def is_layers(value) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_leafy, value))


def _is_leafy(value) -> bool:
    return is_array(value) or (isinstance(value, tuple) and all(map(is_array, value)))


def bad_values(name: str, value) -> Iterator[Bad]:
    """Bad values for an argument whose valid value is given."""
    for kind, bad in (("a text", "nonsense"), ("None", None)):
        if not (kind == "None" and value is None):
            yield Bad(name, kind, bad)
    if is_key(value):
        yield Bad(name, "an integer", 0)
        yield Bad(name, "an array", jnp.zeros(3))
        yield Bad(name, "raw key", random.key_data(value), like=value)
    elif is_array(value):
        yield from _bad_arrays(name, value)
    elif isinstance(value, bool):
        yield Bad(name, "a number", 2.5)
    elif isinstance(value, int):
        for kind, bad in (("a fraction", value + 0.5), ("negative", -1), ("zero", 0)):
            yield Bad(name, kind, bad)
        yield Bad(name, "True", True)
        yield Bad(name, "NaN", float("nan"))
        yield Bad(name, "a float", float(value), like=value)
    elif isinstance(value, float):
        yield Bad(name, "True", True)
        yield Bad(name, "a list", [value])
        yield Bad(name, "negative", -abs(value) or -1.0)
        yield Bad(name, "infinite", float("inf"), finite=False)
        yield Bad(name, "NaN", float("nan"), finite=False)
    elif isinstance(value, str):
        yield Bad(name, "a number", 3)
    elif is_layers(value):
        yield from _bad_layers(name, value)
    elif isinstance(value, tuple) and all(isinstance(n, int) for n in value):
        for kind, bad in (("with zero", 0), ("with a negative", -1), ("with a fraction", 2.5)):
            yield Bad(name, kind, (*value[:-1], bad))
        yield Bad(name, "empty", ())
        yield Bad(name, "a number", 3)
        yield Bad(name, "a list", list(value), like=value)
    elif callable(value) and not isinstance(value, tuple):
        yield Bad(name, "a number", 0.1)
    else:
        yield Bad(name, "a number", 0.1)
        yield Bad(name, "uncalled", lambda: value)
        yield Bad(name, "a tuple", (jnp.ones(2), 3))


def _bad_arrays(name: str, value) -> Iterator[Bad]:
    yield Bad(name, "a list", value.tolist(), like=value)
    other = jnp.asarray if isinstance(value, np.ndarray) else np.asarray
    yield Bad(name, "another array", other(value), like=value)
    yield Bad(name, "an axis more", value[None])
    if value.ndim:
        yield Bad(name, "an axis less", value[0])
        yield Bad(name, "empty", value[:0], finite=False)
        yield Bad(name, "a row less", value[:-1])
        yield Bad(name, "a column less", value[..., :-1])
        yield Bad(name, "unequal rows", [[1.0, 2.0], [1.0]])
    if value.dtype.kind == "f":
        whole = value.round()
        yield Bad(name, "integers", whole.astype(int), like=whole)
        flat = np.array(value)
        flat.flat[:1] = np.nan
        yield Bad(name, "NaN", other(np.asarray(flat)), finite=False)
    else:
        yield Bad(name, "fractions", value + 0.5)
    if value.dtype.kind == "i":
        yield Bad(name, "negative", value - 1000)
        yield Bad(name, "too large", value + 1000)


def _bad_layers(name: str, value) -> Iterator[Bad]:
    yield Bad(name, "a number", 3)
    yield Bad(name, "short", value[:-1])
    yield Bad(name, "long", [*value, value[-1]])
    yield Bad(name, "empty", [])
    first = value[0]
    narrow = jax.tree.map(lambda a: a[..., :-1], first)
    yield Bad(name, "a column less", [narrow, *value[1:]])
    yield Bad(name, "NumPy", jax.tree.map(np.asarray, value), like=value)
    yield Bad(name, "lists", [jax.tree.map(lambda a: a.tolist(), first), *value[1:]], like=value)
    if jax.tree.leaves(first)[0].dtype.kind == "f":
        nan = jax.tree.map(lambda a: a * jnp.nan, first)
        yield Bad(name, "NaN", [nan, *value[1:]], finite=False)


def bad_calls(
    function: Callable, arguments: dict[str, Any]
) -> Iterator[tuple[str, str, dict, dict | None, bool]]:
    """Argument, kind, the bad arguments, those with the same answer, whether all is finite."""
    default = {p.name: p.default for p in inspect.signature(function).parameters.values()}
    for name, value in arguments.items():
        if name == ARGS:
            continue
        for bad in bad_values(name, value):
            if bad.value is None and default.get(name, ...) is None:
                continue
            like = None if bad.like is None else arguments | {name: bad.like}
            yield name, bad.kind, arguments | {name: bad.value}, like, bad.finite
    named = [(name, value) for name, value in arguments.items() if name != ARGS]
    for (one, a), (other, b) in pairwise(named):
        if type(a) is not type(b) or (is_array(a) and a.shape != b.shape):
            yield f"{one}, {other}", "swapped", arguments | {one: b, other: a}, None, True


def outcome(
    function: Callable, names: str, kind: str, arguments, like, finite: bool
) -> tuple[str, str]:
    """What comes of a call, and the error or answer in few words."""
    try:
        result = call(function, arguments)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1].filename
        ours = frame.startswith(PACKAGE) and isinstance(error, ValueError | TypeError)
        # That two arguments do not fit one another may be said of either.
        said = names.split(", ") if finite and kind not in MISFITS else list(arguments)
        named = any(re.search(rf"\b{name}\b", str(error)) for name in said if name != ARGS)
        told = f"{type(error).__name__}: {error}".split("\n")[0][:150]
        return "clear" if ours and named else "deep", told
    arrays = comparable(result)
    if like is not None and _equal(arrays, comparable(call(function, like))):
        return "right", ""
    floats = [a for a in arrays if a.dtype.kind == "f"]
    if kind == "empty" and arrays and not any(a.size for a in arrays):
        return "right", ""
    if not finite and floats and not all(np.isfinite(a).all() and a.size for a in floats):
        return "right", ""
    return "silent", repr(result)[:100].replace("\n", " ")


def _equal(one, other) -> bool:
    return len(one) == len(other) and all(
        a.shape == b.shape and np.allclose(a, b, 1e-4, 1e-5, equal_nan=True)
        for a, b in zip(one, other)
    )


def read(path: Path) -> list[str]:
    """The lines of a table that are not comments."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [line for line in lines if line and not line.startswith("#")]


def outcomes(names=None) -> dict[str, tuple[str, str]]:
    """What comes of each bad input: "function: argument: kind" -> (outcome, words)."""
    functions, accepted, found = public(), read(ACCEPTED), {}
    for name, arguments in CALLS.items():
        if name not in functions or (names and not any(fnmatch(name, n) for n in names)):
            continue
        for argument, kind, bad, like, finite in bad_calls(functions[name], arguments):
            case = f"{name}: {argument}: {kind}"
            result, words = outcome(functions[name], argument, kind, bad, like, finite)
            if result == "silent" and any(fnmatch(case, pattern) for pattern in accepted):
                result = "right"
            found[case] = (result, words)
    return found


def table(found: dict[str, tuple[str, str]]) -> str:
    """The counts by module."""
    kinds = ("clear", "right", "deep", "silent")
    counts = Counter((case.split(".")[0], result) for case, (result, _) in found.items())
    modules = sorted({module for module, _ in counts})
    lines = [f"{'':24}" + "".join(f"{kind:>8}" for kind in kinds)]
    for module in modules:
        lines.append(f"{module:24}" + "".join(f"{counts[module, kind]:8}" for kind in kinds))
    total = Counter(result for result, _ in found.values())
    lines.append(f"{len(found):<24}" + "".join(f"{total[kind]:8}" for kind in kinds))
    return "\n".join(lines)


def is_checked(function: Callable) -> bool:
    """Whether a function is decorated with `arguments.checked`; not seen beneath an import hook."""
    return getattr(function, "__code__", None) is checked(print).__code__


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    options = [option for option in sys.argv[1:] if option.startswith("--")]
    found = outcomes([name for name in sys.argv[1:] if not name.startswith("--")])
    failures = {case: result for case, result in found.items() if result[0] in ("deep", "silent")}
    if "--json" in options:
        reads = [name for name, function in public().items() if is_checked(function)]
        print(json.dumps({"found": found, "reads": reads}))
    else:
        print(*(f"{r:7}{case} -> {words}" for case, (r, words) in failures.items()), sep="\n")
        print(table(found))
    if "--write" in options:
        head = "# Bad inputs that are not refused clearly yet; see bad_inputs.py.\n"
        lines = [f"{result} {case}\n" for case, (result, _) in failures.items()]
        NOT_YET.write_text(head + "".join(sorted(lines)), encoding="utf-8")
