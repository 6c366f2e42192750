"""A loss at its arguments as a graph, cut at its vertices."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pcbook.foundations.graph import dependencies, program
from pcbook.foundations.graph.choose import choose


class Graph:
    """A loss at its arguments, as a program, with its vertices.

    `values` are the arrays that are learned, `shapes` those of the vertices. `samples` is the
    length of a loss that returns a number for each sample, (samples,), or None. A function
    among what is learned, such as the activation of an equinox module, stays as it is.
    """

    def __init__(
        self,
        loss: Callable,
        args: tuple,
        kwargs: dict[str, Any],
        vertices: str | Sequence[str] = "products",
        has_aux: bool = False,
        argnums: int | Sequence[int] = 0,
    ):
        """Record the loss and choose its vertices. Raises ValueError as `value_and_grad` says."""
        _check(loss, vertices)
        numbers = _numbers(argnums, len(args))
        self._alone = isinstance(argnums, (int, np.integer))
        self._leaves, self._structure = jax.tree.flatten(tuple(args[n] for n in numbers))
        self.values = [leaf for leaf in self._leaves if not _is_function(leaf)]
        _check_learned(self.values, argnums)

        def flat(*values):
            learned = dict(zip(numbers, self._fill(values, lambda function: function)))
            out = loss(*(learned.get(n, arg) for n, arg in enumerate(args)), **kwargs)
            return _value_and_aux(out, has_aux)

        closed, (value, aux) = jax.make_jaxpr(flat, return_shape=True)(*self.values)
        self.samples = value.shape[0] if value.shape else None
        self._aux = jax.tree.structure(aux)
        self.program = program.read(closed)
        self.vertices = choose(self.program, vertices)
        self.shapes = program.shapes(self.program, self.vertices)

    def walk(self, inputs: list, feed: list, visit: Callable) -> tuple[list, list]:
        """Run the program, and `visit` each vertex: see `program.walk`."""
        return program.walk(self.program, self.vertices, inputs, feed, visit)

    def split(self, outs: list) -> tuple:
        """The loss and the auxiliary outputs, from the outputs of the program."""
        return outs[0], jax.tree.unflatten(self._aux, outs[1:])

    def as_learned(self, gradient: list):
        """A gradient in `values`, shaped as the arguments that are learned; None for functions."""
        shaped = self._fill(gradient, lambda function: None)
        return shaped[0] if self._alone else shaped

    def _fill(self, values, keep: Callable):
        """The learned arguments with other `values`, and `keep(function)` for each function."""
        values = iter(values)
        leaves = [keep(leaf) if _is_function(leaf) else next(values) for leaf in self._leaves]
        return jax.tree.unflatten(self._structure, leaves)

    @cached_property
    def depths(self) -> list[int]:
        """How many vertices lie between each vertex and the loss, on the longest way."""
        found = dependencies.depths(self.program, self.vertices)
        return [found[number] for number, _ in program.slots(self.program, self.vertices)]

    @property
    def depth(self) -> int:
        """The largest of the `depths`."""
        return max(self.depths)


def _check(loss, vertices) -> None:
    """Raise ValueError unless `loss` is a function and `vertices` a choice or names."""
    if not callable(loss):
        raise ValueError(f"loss = {loss!r}: must be a function")
    if vertices not in ("products", "named") and (isinstance(vertices, str) or not vertices):
        raise ValueError(
            f"vertices = {vertices!r}: must be 'products', 'named' or a tuple of names"
        )


def _numbers(argnums, count: int) -> list[int]:
    """The places of the learned arguments among `count`, from 0. Raises ValueError for others."""
    numbers = (argnums,) if isinstance(argnums, (int, np.integer)) else tuple(argnums)
    if not numbers or not all(
        isinstance(n, (int, np.integer)) and -count <= n < count for n in numbers
    ):
        raise ValueError(
            f"argnums = {argnums!r}: must name some of the {count} positional arguments"
        )
    return [n % count for n in numbers]


def _is_function(leaf) -> bool:
    """Whether a leaf is a function, and no array."""
    return callable(leaf) and not hasattr(leaf, "dtype")


def _check_learned(values: list, argnums) -> None:
    """Raise ValueError unless the learned values have derivatives."""
    for value in values:
        if not jnp.issubdtype(jnp.result_type(value), jnp.inexact):
            raise ValueError(
                f"argnums = {argnums!r}: what is learned must be real numbers, not {value!r}"
            )


def _value_and_aux(out, has_aux: bool) -> tuple:
    """What the loss returned, with None for the auxiliary outputs that it does not have.

    The value is one number, (), or one for each sample, (samples,).
    """
    if has_aux and not (isinstance(out, tuple) and len(out) == 2):
        raise ValueError(f"has_aux = True: loss must return a pair (value, aux), not {out!r}")
    value, aux = out if has_aux else (out, None)
    known = isinstance(value, (jax.Array, np.ndarray, np.generic, float))
    if not (known and np.ndim(value) <= 1 and jnp.issubdtype(jnp.result_type(value), jnp.floating)):
        raise ValueError(
            f"loss: must return one real number, or one for each sample, (batch,), not {value!r}"
        )
    return value, aux
