"""What a run refuses before it trains, and the sentence that says why."""

import errno
import os
import signal
import socket

import numpy as np
import pytest
from running import refused

from pcbook.runs import Refused
from pcbook.runs.checkpoints import room_to_write
from pcbook.runs.own import check_classes, load_data
from pcbook.runs.stopping import Stop
from pcbook.store.data import Dataset

ENERGY = ["run", "energy-efficiency"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-processes", "2"], "--num-processes needs --coordinator-address"),
        (["--local-device-ids", "7"], "--local-device-ids needs --coordinator-address"),
        (["--coordinator-address", "host"], "--coordinator-address host: must be HOST:PORT"),
        (["--coordinator-address", "host:1"], "needs --num-processes and --process-id"),
        (
            ["--coordinator-address", "host:1", "--num-processes", "2", "--process-id", "5"],
            "--process-id 5: must be 0 to 1",
        ),
        (
            ["--coordinator-address", "host:1", "--num-processes", "2", "--process-id", "-1"],
            "--process-id -1: must be 0 to 1",
        ),
    ],
)
def test_arguments_of_a_distributed_start_that_do_not_fit(arguments, message, tmp_path, capsys):
    assert message in refused([*ENERGY, "--out", tmp_path / "x", *arguments], capsys)


def test_a_port_in_use_is_named(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        join = ["--coordinator-address", f"localhost:{port}", "--num-processes", "2"]
        arguments = [*ENERGY, "--out", tmp_path / "x", *join, "--process-id", "0"]
        assert f"port {port} is in use" in refused(arguments, capsys)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permissions"),
        (errno.ENOTDIR, "A file stands where a folder must be"),
        (errno.ENAMETOOLONG, "name is too long"),
    ],
)
@pytest.mark.parametrize("kind", [OSError, ValueError])
def test_a_failed_write_is_told_with_its_own_remedy(number, remedy, kind, tmp_path):
    """Orbax raises ValueError with the system's words."""
    text = os.strerror(number)
    error = OSError(number, text) if kind is OSError else ValueError(f"INTERNAL: {text} [x]")
    with pytest.raises(Refused, match=remedy), room_to_write(tmp_path / "gone" / "x", ""):
        raise error


def test_an_error_that_is_no_failed_write_is_not_blamed_on_the_disk(tmp_path):
    with pytest.raises(Refused) as caught, room_to_write(tmp_path, "Epoch 4 is whole."):
        raise RuntimeError("a peer is gone")
    assert "a peer is gone\nEpoch 4 is whole." in str(caught.value)
    assert "room" not in str(caught.value)


def test_an_out_below_a_file_is_refused_with_its_cause(tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"")
    arguments = [*ENERGY, "--steps", "4", "--out", tmp_path / "file" / "run"]
    assert "A file stands where a folder must be" in refused(arguments, capsys)


GOOD = {
    "x_train": np.full((4, 6), 9, np.uint8),
    "y_train": np.arange(4),
    "x_test": np.full((4, 6), 9, np.uint8),
    "y_test": np.arange(4),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_test": np.full((4, 6), 0.5)}, "must both be integers or both floats"),
        ({"x_train": np.full((4, 6), 300, np.int64)}, "within 0 and 255"),
        ({"x_train": np.full((4, 6), 9.0), "x_test": np.ones((4, 6))}, "within 0 and 1"),
        ({"x_train": np.ones((4, 6), complex)}, "must be real numbers"),
        ({"x_train": np.float32(1)}, "must be real numbers"),
        ({"y_train": np.arange(4) + 0.7}, "must be integer labels"),
        ({"y_train": np.arange(4) + 5 * 10**9}, "must be integer labels from 0 below 10,000"),
    ],
)
def test_own_data_that_would_be_misread_are_refused(change, message, tmp_path):
    np.savez(tmp_path / "own.npz", **GOOD | change)
    with pytest.raises(ValueError, match=message):
        load_data(str(tmp_path / "own.npz"))


def test_integers_of_any_width_are_read_as_pixels_up_to_255(tmp_path):
    wide = {name: a.astype(np.int64) for name, a in GOOD.items()}
    np.savez(tmp_path / "own.npz", **wide)
    np.testing.assert_allclose(load_data(str(tmp_path / "own.npz")).x_train, 9 / 255, rtol=1e-6)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_npz_is_refused(content, tmp_path):
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"is not a whole \.npz file of numbers"):
        load_data(str(tmp_path / "own.npz"))


def test_a_class_without_training_images_is_refused():
    x = np.ones((4, 6), np.float32)
    with pytest.raises(ValueError, match="y_test holds 4: must be among the labels of y_train"):
        check_classes(Dataset(x, np.arange(4), x, np.arange(1, 5)))


@pytest.mark.parametrize("rate", ["1e-300", "1e300"])
def test_a_rate_that_float32_cannot_hold_is_refused(rate, tmp_path, capsys):
    arguments = [*ENERGY, "--out", tmp_path / "x", "--rate", rate]
    assert "must be positive and finite in float32" in refused(arguments, capsys)


def test_a_signal_only_sets_a_flag_and_one_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.asked == ""
            os.kill(os.getpid(), signal.SIGUSR1)
            assert stop.asked == "SIGUSR1"
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
