"""Every benchmark, one after the other: `make bench`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import energy
import graph
import import_time
import steps

sys.exit(not all([steps.main(), graph.main(), import_time.main(), energy.main()]))
