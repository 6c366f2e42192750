"""Runs that the tests of this folder share."""

import os
import shutil
import signal
import time

import pytest
from running import FIVE, Runner, epochs_kept


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    runner = Runner(tmp_path_factory.mktemp("runs"))
    code, said = runner.finish("whole")
    assert code == 0, said
    return runner


@pytest.fixture
def stopped(runs):
    """A run that was killed after some checkpoints, to be spoiled by a test."""
    name = "stopped"
    shutil.rmtree(runs.folder / name, ignore_errors=True)
    process, _ = runs.start(name)
    while len(epochs_kept(runs.folder / name)) < 2:
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return name


@pytest.fixture(scope="session")
def one_device(runs):
    code, said = runs.finish("one", settings=FIVE)
    assert code == 0, said
    return runs.results("one")
