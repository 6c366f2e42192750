"""For every test run, of the package's tests and of the notebooks."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "tools"))
import settings

settings.apply()
