"""Arguments of public functions, read by their annotations.

`@checked` reads what a function is called with, once, where the call enters the package. What
has the annotated meaning in another form is converted: a list or a NumPy array to an array,
integers and booleans, where floats are computed with, to floats of the type of the arrays that
come before. All else raises a ValueError
that names the argument, its value and what is allowed. Shapes are those of jaxtyping, where a
letter that occurs twice is one size, and `Annotated[hint, Allowed(words, holds)]` adds a range.

Under `jax.jit`, `jax.vmap` and `jax.grad` types and shapes are checked and values are not.
"""

import inspect
import math
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, wraps
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, TypeVar, Union

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import AbstractArray, Array, Float

Function = TypeVar("Function", bound=Callable[..., Any])


class Allowed(NamedTuple):
    """A range: the words for it, and whether a value, or each number of an array, is in it."""

    words: str
    holds: Callable[[Any], Any]


Scalar = float | int | Float[Array, ""]  # a constant, or one of many under jax.vmap

positive = Allowed("a positive number", lambda value: (value > 0) & (value < math.inf))
above_zero = Allowed("a number above 0", lambda value: value > 0)
not_negative = Allowed("a number of at least 0", lambda value: (value >= 0) & (value < math.inf))
share = Allowed("from 0 to 1", lambda value: (value >= 0) & (value <= 1))
finite = Allowed("finite", np.isfinite)
some = Allowed("at least one number", lambda value: value.size > 0)

Count = Annotated[int, Allowed("an integer of at least 1", lambda value: value >= 1)]
Index = Annotated[int, Allowed("an integer of at least 0", lambda value: value >= 0)]
Positive = Annotated[Scalar, positive]
NotNegative = Annotated[Scalar, not_negative]
Share = Annotated[Scalar, share]
Finite = Annotated[Scalar, finite]
Tolerance = Annotated[
    Scalar, Allowed("at least 0 and less than 1", lambda value: (value >= 0) & (value < 1))
]


def checked(function: Function) -> Function:
    """Decorate a public function to read its arguments by their annotations.

    What is not annotated is passed on as it is. A call with arguments that are missing or
    unknown raises TypeError, every other bad argument ValueError.
    """
    signature = inspect.signature(function)
    readers: dict[str, Callable] = {}

    @wraps(function)
    def call(*args, **keywords):
        if not readers:
            readers.update(_readers(function, signature))
        try:
            bound = signature.bind(*args, **keywords)
        except TypeError as error:
            names = ", ".join(signature.parameters)
            raise TypeError(f"{function.__name__}({names}): {error}") from None
        try:
            _read(bound.arguments, readers)
        except _Refused as refused:
            raise ValueError(*refused.args) from None
        return function(*bound.args, **bound.kwargs)

    return call


class _Known(NamedTuple):
    """What a call is known to hold: the size of each letter, and whose it is; types of floats."""

    sizes: dict[str, tuple[int, str]]
    floats: list[Any]


def _read(arguments: dict[str, Any], readers: Mapping[str, Callable]) -> None:
    """Put each argument in its form; sizes of one letter are equal."""
    known = _Known({}, [])
    for name, value in arguments.items():
        if name in readers:
            arguments[name] = readers[name](name, value, known)


def _readers(function, signature) -> dict[str, Callable]:
    """How to read each argument; one whose default is None may be None."""
    hints = typing.get_type_hints(function, include_extras=True)
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {
        name: _reader(hints[name])
        for name, parameter in signature.parameters.items()
        if name in hints and parameter.kind not in variable
    } or {"": _as_it_is}


class _Refused(ValueError):
    """A value that is not as annotated."""


def _refuse(name: str, value, allowed: str):
    raise _Refused(f"{name} = {_described(value)}: must be {allowed}")


def _is_array(value) -> bool:
    return isinstance(value, np.ndarray | jax.Array) and value.ndim > 0


def _described(value) -> str:
    """A value in few words: an array by its shape and type, a function by its name."""
    if _is_array(value):
        return f"array {value.shape} of {value.dtype}"
    if inspect.isroutine(value):
        return f"the function {value.__name__}"
    if isinstance(value, list | tuple):
        value = jax.tree.map(lambda leaf: jnp.shape(leaf) if _is_array(leaf) else leaf, value)
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:76]} ..."


# --- a reader for each kind of annotation: (name, value, known) -> the value to use


def _reader(hint) -> Callable:
    """The reader of an annotation."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _ranged(hint, [a for a in inner[1:] if isinstance(a, Allowed)])
    if origin in (Union, UnionType):
        return _either(inner)
    if origin is tuple and Ellipsis not in inner:
        return _fixed([_reader(hint) for hint in inner])
    if origin in (list, tuple, Sequence, Iterable):
        return _sequence(origin, _reader(inner[0]))
    if origin in (dict, Mapping):
        return _mapping(_reader(inner[1]))
    if hint is Callable or origin is Callable or getattr(hint, "_is_protocol", False):
        return _callable
    if hint is NoneType:
        return _none
    if hint in _SCALARS:
        return _SCALARS[hint]
    if hint in (jax.Array, np.ndarray) or _is_array_hint(hint):
        return _array(hint)
    if hint in (Any, object, inspect.Parameter.empty) or not isinstance(hint, type):
        return _as_it_is
    return _instance(hint)


def _words(hint) -> str:
    """What an annotation allows."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return ", ".join(a.words for a in inner[1:] if isinstance(a, Allowed)) or _words(inner[0])
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_words, inner)))
    if origin in (list, tuple, Sequence, Iterable):
        return f"a sequence of which each is {_words(inner[0])}" if inner else "a sequence"
    if hint is Callable or origin is Callable:
        return "a function"
    if _is_array_hint(hint):
        kind = _kind(hint)
        if kind == "Key":
            return "a key, as jax.random.key(0) makes it"
        numbers = {"Int": "integers", "Bool": "booleans"}.get(kind, "numbers")
        if not hint.dim_str.strip():
            return f"a {numbers.removesuffix('s')}"
        shape = ", ".join(hint.dim_str.split())
        return f"an array of {numbers}, ({shape})"
    names = {float: "a number", int: "a number", str: "a text", bool: "True or False"}
    return names.get(hint) or ("None" if hint is NoneType else f"a {_named(hint)}")


def _named(hint) -> str:
    return getattr(hint, "__name__", str(hint))


def _as_it_is(name, value, known):
    return value


def _ranged(hint, ranges):
    reader, words = _reader(typing.get_args(hint)[0]), _words(hint)

    def read(name, value, known):
        try:
            value = reader(name, value, known)
        except _Refused:
            if _is_scalar(hint):
                _refuse(name, value, words)
            raise
        for allowed in ranges:
            if not _holds(allowed, value):
                _refuse(name, value, allowed.words)
        return value

    return read


def _holds(allowed: Allowed, value) -> bool:
    """Whether a value is in its range; one that JAX traces, or has elsewhere, is not known."""
    if isinstance(value, jax.core.Tracer):
        return True
    if isinstance(value, jax.Array):
        if not value.is_fully_addressable:
            return True
        value = np.asarray(value)  # while JAX traces, it traces comparisons of known arrays too
    return bool(np.all(allowed.holds(value)))


def _either(hints):
    """The first annotation that fits; of arrays, first those that need not be converted."""
    words = " or ".join(dict.fromkeys(map(_words, hints)))
    hints = sorted(hints, key=lambda hint: hint is not NoneType)  # None, and then the others
    choices = [(_array_type(hint), hint, _reader(hint)) for hint in hints]
    arrays = tuple(kind for kinds, *_ in choices for kind in kinds)
    alone = len(hints) == 2 and hints[0] is NoneType

    def read(name, value, known):
        is_array = bool(arrays) and isinstance(value, np.ndarray | jax.Array)
        first = sorted(choices, key=lambda choice: not isinstance(value, choice[0]))
        for kinds, hint, reader in first if is_array else choices:
            if not is_array or kinds:
                try:
                    return reader(name, value, known)
                except _Refused as refused:
                    reason = refused if reader is not _none else None
                    if _is_about(hint, value):
                        raise
        if reason and (is_array or alone):
            raise reason
        _refuse(name, value, words)

    return read


def _is_about(hint, value) -> bool:
    """Whether an annotation says what lists, or numbers, are allowed: one is no array then."""
    if isinstance(value, list | tuple):
        return typing.get_origin(hint) in (list, tuple, Sequence, Iterable)
    return isinstance(value, Real) and typing.get_origin(hint) is Annotated and _is_scalar(hint)


def _is_scalar(hint) -> bool:
    """Whether an annotation is of a number."""
    inner = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    return inner in (int, float, Scalar)


def _array_type(hint) -> tuple:
    """The kinds of array that an annotation is about, () if it is about none."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _array_type(inner[0])
    if origin in (Union, UnionType):
        return tuple(kind for hint in inner for kind in _array_type(hint))
    if hint in (jax.Array, np.ndarray):
        return (hint,)
    return (hint.array_type,) if _is_array_hint(hint) else ()


def _sequence(origin, reader):
    make = list if origin is list else tuple

    def read(name, value, known):
        fits = isinstance(value, Iterable) and not isinstance(value, str | Mapping)
        if not fits or (isinstance(value, jax.Array) and not value.ndim):
            _refuse(name, value, f"a {make.__name__}")
        return make(reader(f"{name}[{i}]", item, known) for i, item in enumerate(value))

    return read


def _fixed(readers):
    def read(name, value, known):
        if not isinstance(value, list | tuple) or len(value) != len(readers):
            _refuse(name, value, f"a tuple of {len(readers)}")
        each = zip(readers, value)
        return tuple(r(f"{name}[{i}]", item, known) for i, (r, item) in enumerate(each))

    return read


def _mapping(reader):
    def read(name, value, known):
        if not isinstance(value, Mapping):
            _refuse(name, value, "a mapping, such as a dict")
        return {key: reader(f"{name}[{key!r}]", item, known) for key, item in value.items()}

    return read


def _callable(name, value, known):
    return value if callable(value) else _refuse(name, value, "a function")


def _scalar(kind, words):
    def read(name, value, known):
        if not isinstance(value, kind) or isinstance(value, bool | np.bool_):
            _refuse(name, value, words)
        return value

    return read


def _none(name, value, known):
    return value if value is None else _refuse(name, value, "None")


def _truth(name, value, known):
    return value if isinstance(value, bool | np.bool_) else _refuse(name, value, "True or False")


_SCALARS = {
    float: _scalar(Real, "a number"),
    int: _scalar(Integral, "an integer"),
    str: _scalar(str, "a text"),
    bool: _truth,
}


def _instance(kind):
    """Instances of a class; the fields of a NamedTuple are read by their own annotations."""

    @cache
    def fields():
        return {
            name: _reader(hint)
            for name, hint in typing.get_type_hints(kind, include_extras=True).items()
            if name in getattr(kind, "_fields", ())
        }

    def read(name, value, known):
        if not isinstance(value, kind):
            call = "; call it, as in f()" if inspect.isroutine(value) else ""
            _refuse(name, value, f"a {kind.__name__}{call}")
        if not hasattr(kind, "_fields"):
            return value
        own = _Known({}, known.floats)
        new = {
            field: reader(f"{name}.{field}", getattr(value, field), own)
            for field, reader in fields().items()
        }
        changed = any(new[field] is not getattr(value, field) for field in new)
        return value._replace(**new) if changed else value

    return read


# --- arrays


def _is_array_hint(hint) -> bool:
    return isinstance(hint, type) and issubclass(hint, AbstractArray)


def _kind(hint) -> str:
    return hint.dtype.__name__ if _is_array_hint(hint) else "Shaped"


def _array(hint):
    kind, shape = _kind(hint), hint.dim_str if _is_array_hint(hint) else "..."
    array_type = _array_type(hint)[0]
    words = _words(hint) if _is_array_hint(hint) else "an array"
    any_shape = hint.dtype[array_type, "..."] if _is_array_hint(hint) else array_type
    convert = np.asarray if array_type is np.ndarray else jnp.asarray

    def read(name, value, known):
        array = value
        if not isinstance(value, array_type):
            array = _from_list(value)
            if array is None or kind == "Key":
                _refuse(name, value, words)
            array = convert(array)
        if kind in ("Float", "Inexact"):
            array = _as_float(array, known.floats)
        fits = _fits(name, array.shape, shape.split(), known.sizes)
        if not isinstance(array, any_shape) or not fits:
            _refuse(name, array, words + _sizes_known(name, shape, known.sizes))
        return array

    return read


def _as_float(array, floats: list):
    """Integers and booleans as floats, of the type of the first that the call brings."""
    in_jax = isinstance(array, jax.Array)
    if getattr(array.dtype, "kind", "") in tuple("iub"):
        array = array.astype(floats[0] if in_jax and floats else float)
    if in_jax:
        floats.append(array.dtype)
    return array


def _fits(name: str, shape: tuple[int, ...], letters: list[str], sizes) -> bool:
    """Whether a shape is as annotated; a letter that is new gets its size, and whose it is."""
    for i, letter in enumerate(letters):
        if letter == "..." or letter.startswith("*"):  # any number of axes
            after = len(letters) - i - 1
            if len(shape) < i + after:
                return False
            shape, letters = shape[:i] + shape[len(shape) - after :], letters[:i] + letters[i + 1 :]
            break
    if len(shape) != len(letters):
        return False
    for size, letter in zip(shape, letters):
        named = letter.isidentifier() and not letter.startswith("_")
        known = sizes.setdefault(letter, (size, name))[0] if named else size
        if size != (int(letter) if letter.isdigit() else known):
            return False
    return True


def _from_list(value):
    """Numbers that are not in an array yet, None if that is not what they are."""
    if isinstance(value, bool | str | NoneType | Mapping) or inspect.isroutine(value):
        return None
    if not isinstance(value, list | tuple | Real) and not hasattr(value, "__array__"):
        return None
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, jax.errors.JAXTypeError):
        # Unequal lengths; numbers that JAX traces.
        return jnp.stack(value) if _any_traced(value) else None
    return array if array.dtype.kind in "fiubV" else None


def _any_traced(value) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def _sizes_known(name: str, shape: str, sizes) -> str:
    own = (0, name)
    others = [letter for letter in shape.split() if sizes.get(letter, own)[1] != name]
    known = [f"{letter} = {sizes[letter][0]} as in {sizes[letter][1]}" for letter in others]
    return f", {' and '.join(known)}" if known else ""
