"""A request to stop, made by a signal and answered at the end of an epoch."""

import os
import signal
import time

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: start the same command again
# Windows has two of them.
SIGNALS = [s for s in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, s)]


class Stop:
    """The signals that ask a run to stop: `asked` is the name of the first, or empty.

    Their handler only sets `asked`, so that no code is interrupted, neither an import nor the
    compiler. A second SIGINT, more than a second after the first, ends the process at once. A
    signal that is ignored, as SIGHUP is under `nohup`, stays ignored.
    """

    def __init__(self):
        self.asked, self._since, self._before = "", 0.0, {}

    def __enter__(self):
        for name in SIGNALS:
            number = getattr(signal, name)
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.getsignal(number)
        self.listen()
        return self

    def __exit__(self, *error):
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def listen(self) -> None:
        """Handle the signals, also where a library has taken them since."""
        for number in self._before:
            signal.signal(number, self._note)

    def _note(self, number, frame):
        now = time.monotonic()
        if not self.asked:
            self.asked, self._since = signal.Signals(number).name, now
        elif number == signal.SIGINT and now - self._since > 1:
            os.write(2, b"\nStopped at once. The same command goes on from what was kept.\n")
            os._exit(EXIT_CODE)
