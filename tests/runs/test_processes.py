"""Runs of two processes on this machine: the same settings, the same end, and a lost process."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from running import FIVE, SMALL, assert_bitwise, assert_same_to_rounding, epochs_kept

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def start_two(runs, name, *more, second=(), **keywords):
    """Both processes of a run; the second with options of its own."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    join = ["--coordinator-address", f"localhost:{port}", "--num-processes", "2", "--process-id"]
    return [
        runs.start(name, *more, *own, *join, str(i), **keywords)
        for i, own in enumerate([(), second])
    ]


def await_epochs(folder, processes):
    """Return once some epochs have been trained."""
    metrics = folder / "metrics.csv"
    while not (metrics.exists() and len(metrics.read_text(encoding="utf-8").splitlines()) > 5):
        for process, log in processes:
            assert process.is_alive(), log.read_text(encoding="utf-8")
        time.sleep(0.01)


def test_two_processes_give_what_one_gives(runs, one_device):
    for process, log in start_two(runs, "two", settings=FIVE):
        process.join(900)
        assert process.exitcode == 0, log.read_text(encoding="utf-8")
    assert_same_to_rounding(runs.results("two"), one_device)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (["--first-seed", "7"], "seeds = [0, 1], not [7, 8]"),
        (["--loss", "post"], "loss = 'pre', not 'post'"),
        (["--checkpoint-every", "3"], "checkpoint_every = 2, not 3"),
    ],
)
def test_processes_with_other_settings_all_stop_and_say_what_differs(runs, second, message):
    name = f"differ-{second[0]}"
    for process, log in start_two(runs, name, second=second):
        process.join(120)
        said = log.read_text(encoding="utf-8")
        assert process.exitcode == 1
        assert message in said
    assert not (runs.folder / name).exists()


def test_a_signal_to_one_process_stops_both_at_the_same_epoch(runs):
    both = start_two(runs, "both", "--epochs", "5000", "--checkpoint-every", "5000")
    await_epochs(runs.folder / "both", both)
    os.kill(both[1][0].pid, signal.SIGTERM)
    said = []
    for process, log in both:
        process.join(60)
        said.append(log.read_text(encoding="utf-8"))
        assert process.exitcode == 75, said
    (epoch,) = epochs_kept(runs.folder / "both")
    assert f"Stopped by another process. The checkpoint of epoch {epoch}" in said[0]
    assert f"Stopped by SIGTERM. The checkpoint of epoch {epoch}" in said[1]


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_ends_the_other_within_two_minutes_with_one_sentence(lost, runs):
    name = f"lost-{lost}"
    both = start_two(runs, name, "--epochs", "50000")
    await_epochs(runs.folder / name, both)
    os.kill(both[lost][0].pid, signal.SIGKILL)
    began = time.monotonic()
    process, log = both[1 - lost]
    process.join(120)
    said = log.read_text(encoding="utf-8")
    assert process.exitcode == 75, said
    assert time.monotonic() - began < 120
    assert re.fullmatch(r"error: a process of this run was lost or did not come: .*\n", said), said
    kept = epochs_kept(runs.folder / name)
    both = start_two(runs, name, "--epochs", "50000")  # the same command goes on
    while epochs_kept(runs.folder / name) == kept:
        assert all(process.is_alive() for process, _ in both), both[0][1].read_text(
            encoding="utf-8"
        )
        time.sleep(0.01)
    os.kill(both[0][0].pid, signal.SIGTERM)
    for process, log in both:
        process.join(120)
        assert process.exitcode == 75, log.read_text(encoding="utf-8")


# --- the script for SLURM, with programs of the same names in the place of SLURM's ---

SRUN = """
#!{python}
# Starts two tasks as srun does. With a LIMIT, sends them the signal of --signal once they train.
import os, signal, subprocess, sys, time
from pathlib import Path

slurm = {{"SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_NODES": "1"}}
numbers = [{{"SLURM_PROCID": i, "SLURM_LOCALID": i}} for i in "01"]
tasks = [subprocess.Popen(sys.argv[1:], env=os.environ | slurm | n) for n in numbers]
metrics = Path("pre/metrics.csv")
while "LIMIT" in os.environ and all(task.poll() is None for task in tasks):
    if metrics.exists() and len(metrics.read_text().splitlines()) > 5:
        for task in tasks:
            task.send_signal(signal.SIGUSR1)
        break
    time.sleep(0.01)
sys.exit(max(task.wait() for task in tasks))
"""


@pytest.fixture
def slurm(tmp_path):
    """Runs the script of the book as a job of this number; the exit code and what was said."""
    page = (ROOT / "book/emergence/full_size.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^#!/bin/bash\n.*?(?=^```)", page, re.MULTILINE | re.DOTALL)
    assert "#SBATCH" in script
    assert "--signal=USR1@" in script
    script = script.replace("--data mnist --seeds 40", " ".join([*SMALL[2:], "--until", "30"]))
    (tmp_path / "job.sh").write_text(script, encoding="utf-8")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "srun").write_text(SRUN.format(python=sys.executable).lstrip(), encoding="utf-8")
    (programs / "scontrol").write_text('#!/bin/sh\necho "$@" >> requeued\n', encoding="utf-8")
    python = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
    (programs / "python").write_text(python, encoding="utf-8")
    for program in programs.iterdir():
        program.chmod(0o755)

    def run(number, **more):
        found = {"SLURM_JOB_ID": number, "PATH": f"{programs}:{os.environ['PATH']}"}
        found |= {"PYTHONPATH": str(ROOT)} | more
        done = subprocess.run(
            ["bash", "job.sh"],
            cwd=tmp_path,
            env=os.environ | found,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_the_script_for_slurm_requeues_itself_at_the_time_limit_and_ends_bitwise(slurm, tmp_path):
    code, said = slurm("4242", LIMIT="1")
    assert code == 75, said
    assert (tmp_path / "requeued").read_text(encoding="utf-8") == "requeue 4242\n"
    assert said.count("Stopped by SIGUSR1. The checkpoint of epoch") == 2, said
    code, said = slurm("4242")
    assert code == 0, said
    assert (tmp_path / "requeued").read_text(encoding="utf-8") == "requeue 4242\n"
    shutil.move(tmp_path / "pre", tmp_path / "resumed")
    code, said = slurm("4243")
    assert code == 0, said
    for name in ("results_until_30.npz", "weights_until_30.npz"):
        resumed, whole = (np.load(tmp_path / folder / name) for folder in ("resumed", "pre"))
        assert_bitwise(dict(resumed), dict(whole))
