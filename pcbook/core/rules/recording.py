"""Compile once what computes the same, however often it is built anew.

`jax.jit` recognises a function by its identity, so a fresh `optax.adam(1e-3)`, rule or model
compiles its training again. A `Recording` is recognised by the operations that it records:
tracing takes some hundredths of a second where compiling takes seconds.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal, jaxpr_as_fun

# Functions that differentiate an operation: they differ at each trace, and are never called here.
_DERIVATIVES = re.compile(r"\b(jvp_jaxpr_fun|fwd_jaxpr_thunk|jvp|fwd|bwd)=<.* at 0x[0-9a-f]+>")


class Recording:
    """A function at arguments of given shapes, equal to every recording of the same operations.

    It is hashable, a static argument of `jax.jit`, and cannot be differentiated.
    """

    def __init__(self, function: Callable[..., Any], *args: Any):
        """Trace `function` at `args`: arrays, or anything with a shape and a dtype."""
        self._recorded, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        self._structure = jax.tree.structure(shape)
        text = _DERIVATIVES.sub(r"\1", str(self._recorded))
        self._key = (text, self._structure, tuple(_constants(self._recorded)))

    def __call__(self, *args: Any) -> Any:
        """Run the operations on arguments of the shapes that were recorded."""
        outputs = jaxpr_as_fun(self._recorded)(*jax.tree.leaves(args))
        return jax.tree.unflatten(self._structure, outputs)

    def __eq__(self, other):
        """Whether the other records the same operations, with the same constants."""
        return isinstance(other, Recording) and self._key == other._key

    def __hash__(self):
        """Equal for equal recordings."""
        return hash(self._key)


def _constants(jaxpr):
    """What the text of a jaxpr shows by shape or name only, at any nesting: arrays, callbacks."""
    for value in getattr(jaxpr, "consts", ()):
        yield _content(value)
    for eqn in jaxpr.eqns:
        for atom in eqn.invars:
            if isinstance(atom, Literal) and np.ndim(atom.val):
                yield _content(atom.val)
        if not eqn.primitive.name.startswith("custom_"):
            yield from (value for value in eqn.params.values() if callable(value))
        for inner in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda value: hasattr(value, "eqns")
        ):
            if hasattr(inner, "eqns"):
                yield from _constants(inner)


def _content(value):
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    return np.shape(value), str(value.dtype), np.asarray(value).tobytes()


@partial(jax.jit, static_argnums=0)
def run(recording: Recording, *args: Any) -> Any:
    """Run a recording, compiled once for all that are equal."""
    return recording(*args)
