"""Pickle functions that are made by calls: rules, energies and models, for other processes.

A rule is a tuple of functions that are made when it is, and Python pickles only functions that
stand in a module. `picklable` lets them pickle as the call that made them, which is made again
where they are loaded. The arguments of that call must pickle: a lambda or an optimiser does not.
"""

from collections.abc import Callable
from functools import update_wrapper, wraps
from importlib import import_module
from typing import Any, TypeVar

Maker = TypeVar("Maker", bound=Callable[..., Any])


def picklable(make: Maker) -> Maker:
    """Decorate what stands in a module and makes a function, or a named tuple of functions."""

    @wraps(make)
    def call(*args, **options):
        made = make(*args, **options)
        recipe = (make.__module__, make.__qualname__, args, options)
        if not isinstance(made, tuple):
            return _Made(made, recipe, None)
        fields = {name: getattr(made, name) for name in made._fields}
        return made._replace(**{n: _Made(f, recipe, n) for n, f in fields.items() if _is_local(f)})

    return call


def _is_local(function) -> bool:
    """Whether a function was made within another, so that no module holds it by its name."""
    return callable(function) and "<" in getattr(function, "__qualname__", "<")


class _Made:
    """A function that pickles as a field of what `recipe` makes, or as that itself."""

    def __init__(self, function: Callable[..., Any], recipe: tuple, field: str | None):
        """Hold the function, which may be one that another recipe made."""
        self._function = function._function if isinstance(function, _Made) else function
        self._recipe, self._field = recipe, field
        update_wrapper(self, self._function, updated=())

    def __call__(self, *args, **options):
        return self._function(*args, **options)

    def __reduce__(self):
        return _make_again, (*self._recipe, self._field)


def _make_again(module, name, args, options, field):
    made = getattr(import_module(module), name)(*args, **options)
    return made if field is None else getattr(made, field)
