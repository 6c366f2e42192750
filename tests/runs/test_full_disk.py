"""A disk that is really too small, or read-only: one sentence that names the cause."""

import contextlib
import os
import re
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path):
    """Mount a disk in memory of so many kilobytes, and return its folder."""
    mounted = []

    def mount(kilobytes):
        place = tmp_path / f"disk{kilobytes}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("NOT TESTED, for want of a small disk: run as a user who may mount a tmpfs")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_that_cannot_hold_the_checkpoints_is_refused_before_the_first_epoch(disk, runs):
    place = disk(120)
    code, said = runs.finish(str(place / "run"))
    assert code == 1
    assert re.search(
        r"three checkpoints need [\d.]+ MB, 0\.\d MB are free there: make room", said
    ), said
    with contextlib.suppress(FileNotFoundError):
        assert not list((place / "run/checkpoints").glob("[0-9]*"))


def test_a_read_only_disk_is_called_so(disk, runs, stopped):
    place = disk(5000)
    shutil.copytree(runs.folder / stopped, place / "run")
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    code, said = runs.finish(str(place / "run"))
    assert code == 1
    assert "That file system is read-only: make it writable, or choose another --out." in said
    assert "Traceback" not in said
