import contextlib
import gzip
import hashlib
import io
import os
import pickle
import re
import subprocess
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer

import numpy as np
import pytest
from cases import as_a_reader_runs_it
from sklearn.datasets import load_digits

from pcbook import data
from pcbook.store.data import Dataset, cifar10, digits, fashion_mnist, mnist

# --- The digits that are always there


def test_digits_are_1297_and_500_images_of_64_pixels_in_0_to_1():
    found = digits()
    assert found.x_train.shape == (1297, 64)
    assert found.x_test.shape == (500, 64)
    assert found.x_train.dtype == found.x_test.dtype == np.float32
    images = np.concatenate([found.x_train, found.x_test])
    assert images.min() == 0
    assert images.max() == 1


def test_digits_are_scikit_learn_s_each_once_with_its_own_label():
    found = digits()
    images, labels = load_digits(return_X_y=True)
    original = sorted(zip(map(tuple, images), labels, strict=True))
    x, y = (
        np.concatenate([found.x_train, found.x_test]),
        np.concatenate([found.y_train, found.y_test]),
    )
    assert sorted(zip(map(tuple, x * 16.0), y, strict=True)) == original


def test_digits_are_split_with_the_same_share_of_each():
    found = digits()
    train, test = np.bincount(found.y_train), np.bincount(found.y_test)
    assert len(train) == len(test) == 10
    # Rounding a share to whole images moves it by less than one image.
    assert abs(test - (train + test) * 500 / 1797).max() < 1


def test_digits_of_a_seed_are_the_same_and_of_another_seed_others():
    np.testing.assert_array_equal(digits(seed=3).x_test, digits(seed=3).x_test)
    np.testing.assert_array_equal(digits().x_test, digits(seed=0).x_test)
    assert not np.array_equal(digits(seed=3).x_test, digits(seed=4).x_test)


# --- What a data set must be


def dataset(**changes):
    whole = {
        "x_train": np.zeros((4, 3), np.float32),
        "y_train": np.array([0, 1, 2, 0]),
        "x_test": np.zeros((2, 3), np.float32),
        "y_test": np.array([0, 1]),
    }
    return Dataset(**whole | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"x_train": np.zeros((0, 3)), "y_train": np.zeros(0, int)},
            "x_train has shape (0, 3): must be (images, pixels) with at least one image",
        ),
        (
            {"x_test": np.zeros((2, 3, 1))},
            "x_test has shape (2, 3, 1): must be (images, pixels) with at least one image",
        ),
        (
            {"x_train": np.array([[0, np.nan, np.inf]] * 4)},
            "x_train holds 8 values that are not finite: all must be",
        ),
        ({"x_test": np.full((2, 3), -np.inf)}, "x_test holds 6 values that are not finite"),
        (
            {"y_train": np.arange(3)},
            "y_train has shape (3,): must be (4,), one label for each image",
        ),
        ({"y_test": np.eye(2, dtype=int)}, "y_test has shape (2, 2): must be (2,), one label"),
        (
            {"y_train": np.array([0, -1, 0, 0])},
            "y_train is int64 from -1: must be integer labels from 0",
        ),
        (
            {"y_test": np.array([0.0, 1.0])},
            "y_test is float64 from 0.0: must be integer labels from 0",
        ),
        ({"x_test": np.zeros((2, 5))}, "x_test has 5 pixels: must be 3, as in x_train"),
    ],
)
def test_data_that_do_not_fit_are_named_with_what_would(changes, message):
    assert dataset().x_train.shape == (4, 3)
    with as_a_reader_runs_it(), pytest.raises(ValueError) as error:
        dataset(**changes)
    assert message in str(error.value)


def test_what_numpy_can_read_becomes_arrays_of_floats_and_labels():
    with as_a_reader_runs_it():
        found = dataset(x_train=[[0, 1, 2]] * 4, x_test=np.ones((2, 3), np.uint8), y_test=[0, 1])
    assert isinstance(found.x_train, np.ndarray)
    assert found.x_train.dtype == found.x_test.dtype == np.float32
    np.testing.assert_array_equal(found.x_train, [[0, 1, 2]] * 4)
    np.testing.assert_array_equal(found.y_test, [0, 1])


@pytest.mark.parametrize("kind", [str, complex, object])
def test_pixels_must_be_real_numbers(kind):
    with as_a_reader_runs_it(), pytest.raises(ValueError, match=r"x_test has dtype .*real numbers"):
        dataset(x_test=np.ones((2, 3)).astype(kind))


# --- Files, made here, of the formats that are downloaded


def idx(array):
    """The IDX format as its page describes it: 0, 0, type 8 (unsigned byte), rank, sizes, bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes())


RNG = np.random.default_rng(0)
IMAGES = {"train": RNG.integers(0, 256, (300, 4, 5)), "t10k": RNG.integers(0, 256, (7, 4, 5))}
LABELS = {"train": np.arange(300) % 10, "t10k": np.arange(7)}
FILES = {
    "train-images-idx3-ubyte.gz": idx(IMAGES["train"]),
    "train-labels-idx1-ubyte.gz": idx(LABELS["train"]),
    "t10k-images-idx3-ubyte.gz": idx(IMAGES["t10k"]),
    "t10k-labels-idx1-ubyte.gz": idx(LABELS["t10k"]),
}


def file_of(content):
    sums = (hashlib.new(name, content).hexdigest() for name in ("md5", "sha256"))
    return data.File(len(content), *sums)


class Mirror:
    """A web server on this machine that answers each name with some bytes, or with an error.

    `truncated` files are announced whole and cut off in the middle.
    """

    def __init__(self, files, truncated=()):
        mirror, self.asked = self, []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.rsplit("/", 1)[-1]
                mirror.asked.append(name)
                if name not in files:
                    return self.send_error(404)
                self.send_response(200)
                self.send_header("Content-Length", str(len(files[name])))
                self.end_headers()
                end = len(files[name]) // 2 if name in truncated else None
                self.wfile.write(files[name][:end])

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/data"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def mirror(monkeypatch):
    """Starts mirrors, and closes them at the end."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    started = []

    def start(*args, **keywords):
        started.append(Mirror(*args, **keywords))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and the checksums of the files made here in place of the real ones."""
    monkeypatch.delenv("PCBOOK_DATA", raising=False)
    monkeypatch.setattr(data, "CACHE", tmp_path / "cache")
    sums = {name: file_of(content) for name, content in FILES.items()}
    monkeypatch.setattr(data, "MNIST", sums)
    monkeypatch.setattr(data, "FASHION_MNIST", sums)
    return tmp_path / "cache"


def found_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def assert_is_what_was_made(found):
    for split, name in (("train", "train"), ("test", "t10k")):
        x, y = getattr(found, f"x_{split}"), getattr(found, f"y_{split}")
        assert x.dtype == np.float32
        assert np.issubdtype(y.dtype, np.integer)
        np.testing.assert_allclose(x, IMAGES[name].reshape(-1, 20) / 255, rtol=1e-6)
        np.testing.assert_array_equal(y, LABELS[name])


@pytest.mark.parametrize(
    ("load", "mirrors"), [(mnist, "MNIST_MIRRORS"), (fashion_mnist, "FASHION_MNIST_MIRRORS")]
)
def test_download_is_read_and_is_not_asked_for_again(load, mirrors, cache, mirror, monkeypatch):
    server = mirror(FILES)
    monkeypatch.setattr(data, mirrors, (server.address,))
    assert_is_what_was_made(load())
    assert sorted(server.asked) == sorted(FILES)
    assert_is_what_was_made(load())
    assert len(server.asked) == 4
    assert found_in(cache) == sorted(FILES)


IMAGES_FILE = "train-images-idx3-ubyte.gz"
BAD_MIRRORS = {
    "missing": ({}, ()),
    "wrong": ({name: content + b"!" for name, content in FILES.items()}, ()),
    "truncated": (FILES, tuple(FILES)),
}


@pytest.mark.parametrize("kind", BAD_MIRRORS)
def test_second_mirror_helps_out_where_the_first_is(kind, cache, mirror, monkeypatch):
    files, truncated = BAD_MIRRORS[kind]
    first, second = mirror(files, truncated), mirror(FILES)
    monkeypatch.setattr(data, "MNIST_MIRRORS", (first.address, second.address))
    assert_is_what_was_made(mnist())
    assert sorted(first.asked) == sorted(second.asked) == sorted(FILES)
    assert found_in(cache) == sorted(FILES)


@pytest.mark.parametrize("kind", BAD_MIRRORS)
def test_with_no_good_mirror_it_says_what_is_missing_where_it_looked_and_what_to_do(
    kind, cache, mirror, monkeypatch
):
    server = mirror(*BAD_MIRRORS[kind])
    closed = mirror({})
    closed.close()
    monkeypatch.setattr(closed, "close", lambda: None)
    monkeypatch.setattr(data, "MNIST_MIRRORS", (server.address, closed.address))
    with pytest.raises(OSError) as error:
        mnist()
    message = str(error.value)
    assert message.startswith(f"{IMAGES_FILE} of mnist is not whole in {cache / 'mnist'}")
    for address in (server.address, closed.address):
        assert f"{address}/{IMAGES_FILE}: " in message
    assert "Connect to a network and try again" in message
    assert "PCBOOK_DATA=" in message
    assert found_in(cache) == [], "nothing half-written stays"


def test_file_damaged_in_the_cache_is_replaced(cache, mirror, monkeypatch):
    monkeypatch.setattr(data, "MNIST_MIRRORS", (mirror(FILES).address,))
    (cache / "mnist").mkdir(parents=True)
    (cache / "mnist" / IMAGES_FILE).write_bytes(FILES[IMAGES_FILE][:100])
    assert_is_what_was_made(mnist())


# --- A folder of the reader's own


@pytest.fixture
def folder(cache, tmp_path, monkeypatch):
    """What PCBOOK_DATA names, with the files in it, where no mirror could help."""
    folder = tmp_path / "own"
    (folder / "mnist").mkdir(parents=True)
    for name, content in FILES.items():
        (folder / "mnist" / name).write_bytes(content)
    monkeypatch.setenv("PCBOOK_DATA", str(folder))
    monkeypatch.setattr(data.requests, "get", lambda *args, **keywords: pytest.fail("a download"))
    return folder


def test_files_in_the_folder_are_read_without_a_download(folder, cache):
    assert_is_what_was_made(mnist())
    assert not cache.exists()


def test_file_missing_in_the_folder_is_named_with_what_to_do(folder):
    missing = folder / "mnist" / "t10k-labels-idx1-ubyte.gz"
    missing.unlink()
    with pytest.raises(OSError) as error:
        mnist()
    assert str(error.value).startswith(f"{missing} is missing")
    assert "Put it there, or unset PCBOOK_DATA" in str(error.value)


@pytest.mark.parametrize("damage", [lambda content: content[:-5], lambda content: content + b"!"])
def test_damaged_file_in_the_folder_is_named_and_left_alone(folder, damage):
    damaged = folder / "mnist" / IMAGES_FILE
    damaged.write_bytes(damage(FILES[IMAGES_FILE]))
    with pytest.raises(OSError) as error:
        mnist()
    message = str(error.value)
    found, expected = file_of(damage(FILES[IMAGES_FILE])).md5, file_of(FILES[IMAGES_FILE]).md5
    assert message.startswith(f"{damaged} is damaged: its md5 is {found}, must be {expected}")
    assert "Replace it, or unset PCBOOK_DATA" in message
    assert damaged.exists()


# --- CIFAR-10


def test_cifar10_rows_are_images_of_32_by_32_by_3_in_the_order_of_the_batches(folder, monkeypatch):
    """In the file an image is its red plane, then green, then blue; here a pixel is its three."""
    name, archive = "cifar-10-python.tar.gz", io.BytesIO()
    batches = {}
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for i, batch in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
            pixels = RNG.integers(0, 256, (3, 3072), np.uint8)
            labels = [i, (i + 1) % 10, 9]
            batches[batch] = pixels, labels
            content = pickle.dumps({b"data": pixels, b"labels": labels})
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{batch}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    monkeypatch.setattr(data, "CIFAR10", {name: file_of(archive.getvalue())})
    (folder / "cifar10").mkdir()
    (folder / "cifar10" / name).write_bytes(archive.getvalue())

    found = cifar10()
    assert found.x_train.shape == (15, 3072)
    assert found.x_train.dtype == np.float32
    labels = np.concatenate([batches[f"data_batch_{n}"][1] for n in range(1, 6)])
    np.testing.assert_array_equal(found.y_train, labels)
    np.testing.assert_array_equal(found.y_test, batches["test_batch"][1])
    for x, (pixels, _) in (
        (found.x_train[6:9], batches["data_batch_3"]),
        (found.x_test, batches["test_batch"]),
    ):
        images = x.reshape(3, 32, 32, 3)
        for image, plane in zip(images, pixels.reshape(3, 3, 1024), strict=True):
            for colour in range(3):
                np.testing.assert_allclose(
                    image[..., colour].ravel(), plane[colour] / 255, rtol=1e-6
                )


def test_a_pickle_that_would_run_code_is_refused(folder, monkeypatch):
    """Its checksum is right, and what it would call leaves a trace."""
    name, archive, ran = "cifar-10-python.tar.gz", io.BytesIO(), folder / "ran"

    class Planted:
        def __reduce__(self):
            return os.mkdir, (str(ran),)

    content = pickle.dumps({b"data": Planted(), b"labels": [0]})
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        entry = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    monkeypatch.setattr(data, "CIFAR10", {name: file_of(archive.getvalue())})
    (folder / "cifar10").mkdir()
    (folder / "cifar10" / name).write_bytes(archive.getvalue())
    with pytest.raises(OSError, match=r"asks for (posix|nt)\.mkdir: only arrays are read"):
        cifar10()
    assert not ran.exists()


def test_every_download_has_two_checksums_and_a_size_and_mnist_two_mirrors():
    for files in (data.MNIST, data.FASHION_MNIST, data.CIFAR10):
        for file in files.values():
            assert re.fullmatch("[0-9a-f]{32}", file.md5)
            assert re.fullmatch("[0-9a-f]{64}", file.sha256)
            assert file.size > 4000
    assert len(data.MNIST_MIRRORS) == len(data.FASHION_MNIST_MIRRORS) == 2


# --- Mirrors that do not behave


class Sending(BaseHTTPRequestHandler):
    """Answers as `how` says: silent, drop by drop, or without end."""

    how, asked = "", 0

    def do_GET(self):
        type(self).asked += 1
        if self.how == "silent":
            time.sleep(1.5)
            return
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            if self.how == "drops":
                while True:
                    self.wfile.write(b"x")
                    time.sleep(0.05)
            self.wfile.write(bytes(10**7))

    def log_message(self, *_):
        pass


@pytest.fixture
def sending():
    servers = []

    def start(how):
        handler = type("Handler", (Sending,), {"how": how})
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        servers[-1].daemon_threads = True
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}", handler

    yield start
    for server in servers:
        server.shutdown()


@pytest.mark.parametrize("how", ["silent", "drops", "endless"])
def test_a_mirror_that_does_not_end_is_given_up_and_the_next_is_asked(
    how, cache, mirror, sending, monkeypatch
):
    monkeypatch.setattr(data, "SILENCE", 0.3)
    monkeypatch.setattr(data, "_silent", set())
    clock = time.monotonic
    monkeypatch.setattr(data.time, "monotonic", lambda: 100 * clock())  # a minute in 0.6 s
    address, handler = sending(how)
    monkeypatch.setattr(data, "MNIST_MIRRORS", (address, mirror(FILES).address))
    began = clock()
    assert_is_what_was_made(mnist())
    assert clock() - began < 20
    assert handler.asked == (1 if how == "silent" else 4)  # one that is silent is asked last
    assert found_in(cache) == sorted(FILES)


def test_what_is_endless_is_cut_off_at_the_size_of_the_file(sending):
    with pytest.raises(ValueError, match="sends more than the 5000 bytes of the file"):
        data._download(sending("endless")[0], data.File(5000, "", ""))


def test_a_wrong_sha256_is_refused_where_the_md5_is_right(folder, monkeypatch):
    sums = {name: file_of(content) for name, content in FILES.items()}
    sums[IMAGES_FILE] = sums[IMAGES_FILE]._replace(sha256="0" * 64)
    monkeypatch.setattr(data, "MNIST", sums)
    with pytest.raises(OSError, match=f"its sha256 is .*, must be {'0' * 64}"):
        mnist()


def test_a_kill_during_a_download_leaves_nothing(sending, tmp_path):
    address, handler = sending("drops")
    program = (
        "import sys; from pathlib import Path; from pcbook import data;"
        f"data.CACHE = Path({str(tmp_path)!r}); data.MNIST_MIRRORS = ({address!r},); data.mnist()"
    )
    environment = os.environ | {"NO_PROXY": "127.0.0.1"}
    environment.pop("PCBOOK_DATA", None)
    process = subprocess.Popen([sys.executable, "-c", program], env=environment)
    while not handler.asked:
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)
    process.kill()
    process.wait()
    assert found_in(tmp_path) == []


def test_what_a_kill_left_of_a_file_is_swept_away_after_an_hour(cache, mirror, monkeypatch):
    monkeypatch.setattr(data, "MNIST_MIRRORS", (mirror(FILES).address,))
    (cache / "mnist").mkdir(parents=True)
    left = cache / "mnist" / f".{IMAGES_FILE}.1.part"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    assert_is_what_was_made(mnist())
    assert found_in(cache) == sorted(FILES)


def test_a_cache_that_cannot_be_used_is_named_and_not_the_network(cache, mirror, monkeypatch):
    monkeypatch.setattr(data, "MNIST_MIRRORS", (mirror(FILES).address,))
    cache.write_bytes(b"a file in the way of the folder")
    with pytest.raises(OSError, match=r"cannot be used as the cache: .*set PCBOOK_DATA") as error:
        mnist()
    assert "network" not in str(error.value)
