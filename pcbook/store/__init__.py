"""What is kept: data sets, results of long runs, claims."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def shipped(installed: str, checkout: str) -> Path:
    """A file or folder that comes with the package: in the package, or in a checkout beside it."""
    path = PACKAGE / installed
    return path if path.exists() else PACKAGE.parent / checkout
