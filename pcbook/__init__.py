"""Learning without backprop: the package behind the book.

Import the modules by their own names, whatever the folder that they stand in:

    from pcbook import network, predictive_coding, rules

`core` holds what every chapter stands on, `store` what is kept, `show` what is drawn; then
comes a folder for each part of the book with a module for each chapter, and `runs` for long
runs. A module is imported when it is first used, so `import pcbook` costs next to nothing.
"""

from importlib import import_module
from pkgutil import iter_modules

__version__ = "0.1.0"

_FOLDERS = ("core", "store", "show", "foundations", "inference", "mortal", "emergence")
_HOME = {
    module.name: f"{__name__}.{folder}.{module.name}"
    for folder in _FOLDERS
    for module in iter_modules([f"{__path__[0]}/{folder}"])
    if not module.name.startswith("_")
} | {"exercises": f"{__name__}.exercises"}
__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _HOME:
        return import_module(_HOME[name])
    raise AttributeError(f"module 'pcbook' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__():
    return __all__
