"""Runs in processes of their own, for the tests of long runs."""

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import threading

import numpy as np
import pytest

from pcbook.__main__ import main

# A server that has imported everything forks each run: a start costs a second, not ten.
server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload(
    ["pcbook.runs.energy_controls", "pcbook.runs.training", "orbax.checkpoint", "sklearn.datasets"]
)

TINY = ["run", "energy-efficiency", "--quiet", "--steps", "4"]  # compiling steps takes seconds
SMALL = [*TINY, "--epochs", "60", "--seeds", "2", "--checkpoint-every", "2"]
FIVE = [*TINY, "--epochs", "6", "--seeds", "5"]


CACHE = os.environ["JAX_COMPILATION_CACHE_DIR"]


def child(arguments, log, cache, biggest_file=None, cpu_devices=1, signal_after=None, **config):
    """The command line in a process of its own."""
    sys.stdout = sys.stderr = open(log, "w", buffering=1, encoding="utf-8")  # noqa: SIM115
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):  # where tests run in the background,
        signal.signal(getattr(signal, name), signal.SIG_DFL)  # some of them are ignored
    import jax

    jax.config.update("jax_num_cpu_devices", cpu_devices)
    for name, value in config.items():
        jax.config.update(name, value)
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    if signal_after is not None:
        threading.Timer(signal_after, os.kill, (os.getpid(), signal.SIGINT)).start()
    if biggest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (biggest_file, biggest_file))
    main(arguments)


def everything(folder):
    """All arrays that a run leaves: weights, curves and measures."""
    with np.load(folder / "results.npz") as results, np.load(folder / "weights.npz") as weights:
        return dict(results) | dict(weights)


class Runner:
    """Starts runs in a folder of the test's."""

    def __init__(self, folder):
        self.folder, self.started = folder, 0

    def start(self, name, *more, settings=SMALL, cache=None, **keywords):
        out = [] if name is None else ["--out", str(self.folder / name)]
        arguments = [*settings, *out, *more]
        self.started += 1
        log = self.folder / f"{self.started}.log"
        process = server.Process(
            target=child,
            args=(arguments, str(log), cache or CACHE),
            kwargs=keywords,
        )
        process.start()
        return process, log

    def finish(self, name, *more, **keywords):
        """Run to the end: the exit code and what was printed."""
        process, log = self.start(name, *more, **keywords)
        process.join(900)
        return process.exitcode, log.read_text(encoding="utf-8")

    def results(self, name):
        return everything(self.folder / name)


def assert_bitwise(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype
        assert array.tobytes() == theirs[name].tobytes(), name


def epochs_kept(folder):
    with contextlib.suppress(FileNotFoundError):
        names = [path.name for path in (folder / "checkpoints").iterdir()]
        return sorted(int(name) for name in names if name.isdigit())
    return []


def snapshot(folder):
    """All that was written to its end: what a kill left half-written may be swept away."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path: path.read_bytes() for path in files if "checkpoint-tmp" not in str(path)}


def assert_same_to_rounding(ours, theirs):
    """Weights of about .1 to within 1e-5, energies to 1e-5 of themselves, after six epochs."""
    assert ours["weights"].shape == (5, 64, 64)
    np.testing.assert_allclose(ours["weights"], theirs["weights"], atol=1e-5)
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-5)
    np.testing.assert_allclose(ours["curve"], theirs["curve"], rtol=1e-5)


def refused(arguments, capsys, code=1) -> str:
    """What the command line says of arguments that end with this exit code."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert end.value.code == code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said
