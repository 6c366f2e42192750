"""Long runs: checkpoints that survive a kill, and networks spread over devices and processes.

A run is a folder. `settings.json` says what it is, `metrics.csv` grows by a row for each
network and epoch, `checkpoints/` holds the last two states, and `weights.npz`, `results.npz` and,
written last, `results.json` stand there when it is done. An epoch depends on the seed, on its
number and on the state before it, and on nothing else: that is why a run that was killed ends, bit
for bit, where it would have ended.
"""


class Stopped(Exception):
    """A signal has stopped the run; the message says what is kept."""


class Refused(Exception):
    """The run cannot go on, and nothing was lost; the message says why and what to do."""


class Diverged(Refused):
    """No network of the run has a loss that is finite."""


class Lost(Exception):
    """Another process of the run is gone; the message says what to do."""
