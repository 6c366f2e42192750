"""Training data: inputs with their targets, in any of the forms in which they come."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pcbook.core.checks import check_number, is_integer
from pcbook.core.rules.rule import Rule
from pcbook.store.data import Dataset


class Pairs(NamedTuple):
    """Inputs `x`, targets `y` in the shape of the output, and what a metric compares with.

    `answers` are integer labels, of which `y` are the one-hot codes, or else `y` itself.
    """

    x: Any
    y: Any
    answers: Any


def read(rule: Rule, params, x, y, names: tuple[str, str] = ("x", "y")) -> Pairs:
    """The pairs (x, y), with an output of the rule for each.

    Labels are integers with one axis less than the output; all other targets have its shape.
    Raises ValueError, by the `names`, for other shapes, for labels without an output, and for
    numbers that are not finite.
    """
    x, y = _array(names[0], x), _array(names[1], y)
    if np.ndim(x) == 0 or np.ndim(y) == 0 or len(x) == 0 or len(x) != len(y):
        raise ValueError(
            f"{names[0]} has shape {x.shape} and {names[1]} {y.shape}: "
            "must have one row for each of at least one sample"
        )
    output = jax.eval_shape(jax.jit(rule.predict), params, x)  # traced once for each shape
    labels = jnp.issubdtype(y.dtype, jnp.integer) and y.shape == output.shape[:-1]
    if labels:
        return Pairs(x, _one_hot(names[1], y, output.shape[-1]), y)
    if y.shape != output.shape:
        raise ValueError(
            f"{names[1]} has shape {y.shape} and dtype {y.dtype}: must be {output.shape}, "
            f"the shape of the output, or integer labels of shape {output.shape[:-1]}"
        )
    y = y if jnp.issubdtype(y.dtype, jnp.inexact) else jnp.asarray(y, output.dtype)
    return Pairs(x, y, y)


def read_pairs(rule: Rule, params, name: str, pair) -> Pairs:
    """The pairs in a tuple (x, y) that is the argument `name`. Raises ValueError as `read`."""
    if not is_pair(pair):
        raise ValueError(f"{name} is {type(pair).__name__}: must be a tuple (x, y) of arrays")
    return read(rule, params, *pair, (f"x of {name}", f"y of {name}"))


def read_dataset(rule: Rule, params, data: Dataset) -> tuple[Pairs, Pairs]:
    """The training and the test pairs of a data set. Raises ValueError as `read`."""
    return tuple(
        read(
            rule,
            params,
            getattr(data, f"x_{split}"),
            getattr(data, f"y_{split}"),
            (f"x_{split}", f"y_{split}"),
        )
        for split in ("train", "test")
    )


def is_pair(data) -> bool:
    """Whether `data` is a tuple (x, y) of arrays, and not of two batches."""
    return isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], tuple | list)


def iterators(data: Any, epochs: int) -> Callable[[], Iterator]:
    """A function that begins the batches anew, for each of several epochs.

    Raises ValueError for what has no batches, or cannot be begun again.
    """
    if callable(data):
        return lambda: iter(data())
    if not isinstance(data, Iterable):
        raise ValueError(
            f"data is {type(data).__name__}: must be a Dataset, a tuple (x, y) of arrays, or "
            "batches (x, y): a list, a loader, or a function that returns an iterator"
        )
    if isinstance(data, Iterator) and epochs > 1:
        raise ValueError(
            f"data is {type(data).__name__}, which can be read once: must be a list, a loader or "
            f"a function that returns a new iterator, for epochs = {epochs}"
        )
    return lambda: iter(data)


def read_batches(rule: Rule, params, batches: Iterator) -> Iterator[Pairs]:
    """Each batch as pairs. Raises ValueError as `read`, and if there is no batch."""
    empty = True
    for batch in batches:
        empty = False
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise ValueError(f"data holds {type(batch).__name__}: each batch must be a pair (x, y)")
        yield read(rule, params, *batch, ("x of a batch", "y of a batch"))
    if empty:
        raise ValueError("data holds no batch: must hold at least one in each epoch")


def check_batch_size(batch_size: Any, samples: int) -> None:
    """Raise ValueError unless there are as many samples to train on as in a batch."""
    check_number(
        f"1 to {samples}, the number of samples to train on",
        lambda value: is_integer(value) and 1 <= value <= samples,
        batch_size=batch_size,
    )


def _array(name, value):
    """`value` as an array of numbers, left where it is if JAX has it."""
    value = value if isinstance(value, jax.Array) else np.asarray(value)
    if value.dtype == object or value.dtype.kind in "SUmM":
        raise ValueError(f"{name} has dtype {value.dtype}: must be an array of numbers")
    if jnp.issubdtype(value.dtype, jnp.inexact) and (bad := int((~jnp.isfinite(value)).sum())):
        raise ValueError(f"{name} holds {bad} values that are not finite: all must be")
    return value


def _one_hot(name, labels, classes):
    for label in (labels.min(), labels.max()):
        if not 0 <= label < classes:
            raise ValueError(
                f"{name} holds the label {label}: must be 0 to {classes - 1}, one for each output"
            )
    return jax.nn.one_hot(labels, classes)
