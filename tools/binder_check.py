"""Run every chapter as Binder would, and say what each one costs.

A fresh environment with the packages of `binder/`, of the Python that it names (or of this
one, where that is not installed), two cores, and 2 GB of memory: a chapter that takes more
is stopped. Nothing has been compiled before. Seconds and peak memory are those of the whole
of Jupyter's processes. A chapter must take at most 60 s and 1.5 GB.

    python tools/binder_check.py
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from book import chapters, enter_root

CORES = 2
MEMORY = 2e9  # bytes that Binder gives
SECONDS_ALLOWED, MEMORY_ALLOWED = 60, 1.5e9


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/compiled"
        enter_root()
        python = environment(Path(folder))
        print(f"{'chapter':<45}{'seconds':>10}{'peak GB':>10}", flush=True)
        within = [report(python, chapter, folder) for chapter in chapters()]
    if not all(within):
        limits = f"{SECONDS_ALLOWED} s and {MEMORY_ALLOWED / 1e9} GB"
        sys.exit(f"{within.count(False)} of {len(within)} notebooks failed or took over {limits}.")


def environment(folder: Path) -> Path:
    """A new environment with the pinned packages, as Binder makes it; its Python."""
    wanted = Path("binder/runtime.txt").read_text(encoding="utf-8").strip().removeprefix("python-")
    base = installed(wanted)
    if base is None:
        base = sys.executable
        print(f"Python {wanted} is not here: trying {sys.version.split()[0]} instead")
    print(f"installing the pinned packages for {base}", flush=True)
    subprocess.run([base, "-m", "venv", folder / "env"], check=True)
    python = folder / "env" / "bin" / "python"
    pip = [python, "-m", "pip", "--quiet", "install"]
    subprocess.run([*pip, "-r", "binder/requirements.txt"], check=True)
    activated = os.environ | {"PATH": f"{python.parent}:{os.environ['PATH']}"}
    subprocess.run(["binder/postBuild"], env=activated, check=True, stdout=subprocess.DEVNULL)
    return python


def installed(version: str) -> str | None:
    """A Python of that version that starts, from the PATH or from pyenv's folder."""
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for python in [shutil.which(f"python{version}"), *map(str, pyenv)]:
        if python and subprocess.run([python, "--version"], capture_output=True).returncode == 0:
            return python
    return None


def report(python: Path, chapter: Path, folder: str) -> bool:
    """Run the chapter, print what it cost, and tell whether that is within the limits."""
    start, peak, stopped = time.monotonic(), 0, ""
    command = [python, "-m", "nbconvert", "--to", "notebook", "--execute", "--output-dir", folder]
    log = Path(folder, "log")
    with log.open("w", encoding="utf-8") as output:
        run = psutil.Popen([*command, chapter], stdout=output, stderr=output, preexec_fn=two_cores)
        while run.poll() is None:
            used = memory(run)
            peak = max(peak, used)
            if used > MEMORY:
                stopped = " stopped: more than 2 GB"
                stop(run)
            time.sleep(0.1)
    seconds = time.monotonic() - start
    failed = "" if run.returncode == 0 or stopped else " failed\n" + log.read_text(encoding="utf-8")
    print(f"{chapter!s:<45}{seconds:>10.0f}{peak / 1e9:>10.2f}{stopped}{failed}", flush=True)
    return run.returncode == 0 and seconds <= SECONDS_ALLOWED and peak <= MEMORY_ALLOWED


def two_cores() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def family(run: psutil.Popen) -> list[psutil.Process]:
    return [run, *run.children(recursive=True)]


def memory(run: psutil.Popen) -> int:
    """Bytes that the process and its descendants hold in memory."""
    total = 0
    for process in family(run):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def stop(run: psutil.Popen) -> None:
    for process in reversed(family(run)):
        process.kill()


if __name__ == "__main__":
    main()
