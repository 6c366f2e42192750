"""Validation of arguments: every error names the argument, its value and what is allowed.

A number that JAX traces, under `jax.jit` or `jax.vmap`, has no value yet and is let through.
"""

import math
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Array

T = TypeVar("T")


def check_number(allowed: str, holds: Callable[[Any], Any], **named: Any) -> None:
    """Raise ValueError for a named number of which `holds` is false; `allowed` says which are."""
    for name, value in named.items():
        if not isinstance(value, jax.core.Tracer) and not _holds(holds, value):
            raise ValueError(f"{name} = {value!r}: must be {allowed}")


def _holds(holds, value) -> bool:
    """Whether it holds; of what cannot be compared with a number, it does not."""
    try:
        return bool(holds(value))
    except TypeError:
        return False


def is_integer(value: Any) -> bool:
    """Whether `value` is an integer, which True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_positive(**named: Any) -> None:
    """Raise ValueError for a named number that is not positive and finite."""
    check_number("a positive number", lambda value: 0 < value < math.inf, **named)


def check_count(**named: Any) -> None:
    """Raise ValueError for a named number that is not an integer of at least 1."""
    check_number(
        "an integer of at least 1",
        lambda value: is_integer(value) and value >= 1,
        **named,
    )


def check_share(**named: Any) -> None:
    """Raise ValueError for a named number outside [0, 1)."""
    check_number("at least 0 and less than 1", lambda value: 0 <= value < 1, **named)


def check_width(
    argument: str, array: Array, width: int, layer: str, batch: int | str = "batch"
) -> None:
    """Raise ValueError unless `array` has `width` columns and a row a sample."""
    if array.ndim != 2 or array.shape[1] != width or batch not in ("batch", len(array)):
        raise ValueError(
            f"{argument} has shape {array.shape}: must be ({batch}, {width}), "
            f"{width} being the width of the {layer} layer"
        )


def check_length(length: int, reason: str, /, **named: Any) -> None:
    """Raise ValueError for a named list without `length` entries; `reason` says why so many."""
    for name, value in named.items():
        if len(value) != length:
            raise ValueError(f"{name} has {len(value)} entries: must have {length}, {reason}")


def check_alike(what: str, model: Any, /, **named: Any) -> None:
    """Raise ValueError for a named tree without the shapes of `model`, which is `what`."""
    shapes = jax.tree.map(lambda leaf: leaf.shape, model)
    for name, value in named.items():
        found = jax.tree.map(lambda leaf: getattr(leaf, "shape", leaf), value)
        if found != shapes:
            raise ValueError(f"{name} has the shapes {found}: must be those of {what}, {shapes}")


def check_arrays(name: str, tree: Any) -> None:
    """Raise ValueError for a pytree without arrays, or with anything else in it."""
    leaves = jax.tree.leaves(tree)
    if not leaves or not all(isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves):
        raise ValueError(f"{name} = {tree!r}: must be arrays, or a pytree of them")


def check_labels(classes: int, /, **named: Any) -> None:
    """Raise ValueError for named labels outside of 0 to classes - 1."""
    for name, value in named.items():
        if isinstance(value, jax.core.Tracer):
            continue
        labels = np.asarray(value)  # while JAX traces, it traces comparisons of known arrays too
        if not np.all((0 <= labels) & (labels < classes)):
            outside = labels[(labels < 0) | (labels >= classes)][0]
            raise ValueError(f"{name} holds the label {outside}: must be 0 to {classes - 1}")


def lookup(table: Mapping[str, T], **named: str) -> T:
    """The entry of a table under the name given, as in `lookup(LOSSES, loss=loss)`.

    Raises ValueError, with the names there are, for any other.
    """
    ((argument, name),) = named.items()
    if name not in table:
        raise ValueError(f"{argument} = {name!r}: must be one of {', '.join(map(repr, table))}")
    return table[name]
