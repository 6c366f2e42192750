"""For every test run, of the package's tests and of the notebooks."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "tools"))
import settings

settings.apply()


def pytest_runtest_teardown(item, nextitem):
    """Free what the tests of a file compiled.

    Each compiled program takes some maps of memory, of which Linux grants a process 65,530; the
    tests of the package together reach that number, and XLA then ends in a segmentation fault.
    """
    if "jax" in sys.modules and (nextitem is None or nextitem.path != item.path):
        sys.modules["jax"].clear_caches()
