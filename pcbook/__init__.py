"""Learning without backprop: the package behind the book.

Each chapter is a module: `pcbook.backprop` backs the chapter *backprop*, and so on.
They stand on a ground floor of `data`, `network`, `rules`, `explore`, `claims` and
`exercises`. A module is imported when it is first used, so `import pcbook` costs
little more than nothing.
"""

from importlib import import_module
from pkgutil import iter_modules

__version__ = "0.1.0"
__all__ = sorted(
    module.name for module in iter_modules(__path__) if not module.name.startswith("_")
)


def __getattr__(name):
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'pcbook' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__():
    return __all__
