"""The processes of one run: how they join, and what a lost one does to the others."""

import contextlib
import os
import signal
import socket
import sys
import threading
import warnings
from argparse import Namespace

from pcbook.runs import Lost, Refused
from pcbook.runs.stopping import EXIT_CODE, SIGNALS

JOIN_SECONDS = 90  # for all processes to come
SILENT_SECONDS = 60  # after which a process that sends nothing is taken for lost
LEAVE_SECONDS = 20  # for all processes to end together
LOST = (
    "a process of this run was lost or did not come: what it said last tells why. Start all of "
    "them again with the same command, and the run goes on from its last checkpoint."
)


def check_processes(options: Namespace) -> None:
    """Raise Refused for arguments of a distributed start that do not fit each other."""
    address, processes, number = (
        options.coordinator_address,
        options.num_processes,
        options.process_id,
    )
    if address is None:
        for name in ("num_processes", "process_id", "local_device_ids"):
            if getattr(options, name) not in (None, ()):
                option = "--" + name.replace("_", "-")
                raise Refused(f"{option} needs --coordinator-address HOST:PORT, or auto")
        return
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit() and 0 < int(port) < 65536):
        raise Refused(f"--coordinator-address {address}: must be HOST:PORT, or auto")
    if processes is None or number is None:
        raise Refused("--coordinator-address HOST:PORT needs --num-processes and --process-id")
    if not 0 <= number < processes:
        raise Refused(f"--process-id {number}: must be 0 to {processes - 1}")
    if number == 0:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("", int(port)))
            except OSError as error:
                raise Refused(
                    f"--coordinator-address {address}: port {port} is in use or not allowed "
                    f"({error.strerror}); choose another for all processes"
                ) from error


def join(options: Namespace) -> None:
    """Join the other processes of the run. Raises Refused, or Lost, if it cannot."""
    import jax

    address = options.coordinator_address
    try:
        jax.distributed.initialize(
            None if address == "auto" else address,
            options.num_processes,
            options.process_id,
            list(options.local_device_ids) or None,
            initialization_timeout=JOIN_SECONDS,
            heartbeat_timeout_seconds=SILENT_SECONDS,
            shutdown_timeout_seconds=LEAVE_SECONDS,
        )
    except Exception as error:  # of many kinds: of JAX, of gRPC, of the cluster's variables
        text = " ".join(str(error).split()) or type(error).__name__
        if "DEADLINE_EXCEEDED" in text or "UNAVAILABLE" in text:
            raise Lost(LOST) from error
        raise Refused(f"the processes could not join at {address}: {text}") from error


class Supervised:
    """The part of a process that computes: a child, so that its parent can say how it ended.

    JAX ends a process that has lost another by an abort with a stack of C++ calls. Standard
    error goes on for what Python writes; what libraries write there below Python is dropped.
    Without `os.fork`, as on Windows, nothing is done.
    """

    def __init__(self):
        self._say = None
        if not hasattr(os, "fork"):
            return
        alive, held = os.pipe()
        said, self._say = os.pipe()
        with warnings.catch_warnings():  # JAX warns of forks: nothing of it has run yet
            warnings.simplefilter("ignore")
            child = os.fork()
        if child:
            os.close(alive)
            os.close(self._say)
            _wait(child, said)
        os.close(held)
        os.close(said)
        threading.Thread(target=_end_with_parent, args=(alive,), daemon=True).start()
        _keep_stderr_for_python()

    def end(self, code: int, together: bool) -> None:
        """End with an exit code, once all has been said; with the others if all end `together`."""
        import jax

        sys.stdout.flush()
        sys.stderr.flush()
        if self._say is not None:
            os.write(self._say, bytes([code]))
        if together and jax.distributed.is_initialized():
            with contextlib.suppress(RuntimeError):
                jax.distributed.shutdown()
        os._exit(code)


def _wait(child, said):
    """Pass signals on to the child until it ends, and end as it did."""
    for name in SIGNALS:
        number = getattr(signal, name)
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: os.kill(child, number))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0 and (last := os.read(said, 1)):
        code = last[0]
    elif code in (-signal.SIGABRT, -signal.SIGSEGV):
        print(f"error: {LOST}", file=sys.stderr)
        code = EXIT_CODE
    sys.stderr.flush()
    os._exit(code if code >= 0 else 128 - code)


def _end_with_parent(alive):
    os.read(alive, 1)  # returns when the parent has ended
    os._exit(EXIT_CODE)


def _keep_stderr_for_python():
    if sys.stderr.fileno() == 2:
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="replace")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    os.close(nothing)
