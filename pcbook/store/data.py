"""Images with labels: an embedded set that needs no network, and verified downloads.

`digits()` is in scikit-learn and always there. `mnist()`, `fashion_mnist()` and
`cifar10()` are read from the folder that the environment variable PCBOOK_DATA names,
if it does, or else downloaded once into the user's cache. Either way a file is used
only if its checksum is right.
"""

import codecs
import contextlib
import gzip
import hashlib
import os
import pickle
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import platformdirs
import requests
from jaxtyping import Float, Int
from tqdm import tqdm
from urllib3.exceptions import HTTPError

__all__ = [
    "Dataset",
    "cifar10",
    "digits",
    "fashion_mnist",
    "mnist",
]

CACHE = Path(platformdirs.user_cache_dir("pcbook"))


class File(NamedTuple):
    """A file that is downloaded: its size in bytes and two checksums, which must both be right."""

    size: int
    md5: str
    sha256: str


MNIST = {
    "train-images-idx3-ubyte.gz": File(
        9_912_422,
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    "train-labels-idx1-ubyte.gz": File(
        28_881,
        "d53e105ee54ea40749a09fcbcd1e9432",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    "t10k-images-idx3-ubyte.gz": File(
        1_648_877,
        "9fb629c4189551a2d022fa330f9573f3",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    "t10k-labels-idx1-ubyte.gz": File(
        4_542,
        "ec29112dd5afa0611ce80d1b7f02629c",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
}
MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
)
FASHION_MNIST = {
    "train-images-idx3-ubyte.gz": File(
        26_421_880,
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    ),
    "train-labels-idx1-ubyte.gz": File(
        29_515,
        "25c81989df183df01b3e8a0aad5dffbe",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    ),
    "t10k-images-idx3-ubyte.gz": File(
        4_422_102,
        "bef4ecab320f06d8554ea6380940ec79",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    ),
    "t10k-labels-idx1-ubyte.gz": File(
        5_148,
        "bb300cfdad3c16e7a12a480ee83cd310",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
}
FASHION_MNIST_MIRRORS = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
)
CIFAR10 = {
    "cifar-10-python.tar.gz": File(
        170_498_071,
        "c58f30108f718f92721af3b95e74349a",
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    )
}
CIFAR10_MIRRORS = ("https://www.cs.toronto.edu/~kriz",)

SILENCE = 20.0  # seconds after which a mirror that sends nothing is given up
SLOWEST = 50_000  # bytes a second: a mirror may take a minute, and as long as this needs
_silent: set[str] = set()  # mirrors that did not answer, which are asked last


@dataclass(frozen=True)
class Dataset:
    """Images flattened to rows of pixels in [0, 1], with the label of each row.

    Lists, data frames and the like become NumPy arrays, and integer pixels float32, as they
    are: divide 0 to 255 by 255. Raises ValueError for an empty set, values that are not finite,
    widths or numbers of rows that differ, and labels that are not integers from 0.
    """

    x_train: Float[np.ndarray, "train pixels"]
    y_train: Int[np.ndarray, " train"]
    x_test: Float[np.ndarray, "test pixels"]
    y_test: Int[np.ndarray, " test"]

    def __post_init__(self):
        for split in ("train", "test"):
            x, y = (np.asarray(getattr(self, f"{name}_{split}")) for name in "xy")
            x = x.astype(np.float32) if x.dtype.kind in "biu" else x
            check_split(split, x, y)
            object.__setattr__(self, f"x_{split}", x)
            object.__setattr__(self, f"y_{split}", y)
        if self.x_train.shape[1] != self.x_test.shape[1]:
            raise ValueError(
                f"x_test has {self.x_test.shape[1]} pixels: must be {self.x_train.shape[1]}, "
                "as in x_train"
            )


def check_split(split: str, x, y) -> None:
    """Raise ValueError unless `x` are finite rows of pixels and `y` labels that fit them.

    `split` is "train" or "test", by which the error names the arrays.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or len(x) == 0:
        raise ValueError(
            f"x_{split} has shape {x.shape}: must be (images, pixels) with at least one image"
        )
    if x.dtype.kind not in "biuf":
        raise ValueError(f"x_{split} has dtype {x.dtype}: must be real numbers")
    if not np.isfinite(x).all():
        raise ValueError(
            f"x_{split} holds {(~np.isfinite(x)).sum()} values that are not finite: all must be"
        )
    if y.shape != x.shape[:1]:
        raise ValueError(
            f"y_{split} has shape {y.shape}: must be ({len(x)},), one label for each image"
        )
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0:
        raise ValueError(f"y_{split} is {y.dtype} from {y.min()}: must be integer labels from 0")


def digits(seed: int = 0) -> Dataset:
    """The 1,797 handwritten digits of 8x8 pixels in scikit-learn: no network needed.

    1,297 train and 500 test, each with the same share of every digit, drawn by `seed`
    (Alpaydin & Kaynak 1998).
    """
    from sklearn.datasets import load_digits  # takes longer to import than all the rest
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    split = train_test_split(
        (images / 16).astype(np.float32), labels, test_size=500, stratify=labels, random_state=seed
    )
    x_train, x_test, y_train, y_test = split
    return Dataset(x_train, y_train, x_test, y_test)


def mnist() -> Dataset:
    """60,000 train and 10,000 test digits of 28x28 pixels, 12 MB (LeCun et al. 1998).

    Raises OSError if a file is missing and cannot be downloaded, or is damaged.
    """
    return _idx_dataset("mnist", MNIST, MNIST_MIRRORS)


def fashion_mnist() -> Dataset:
    """60,000 train and 10,000 test garments of 28x28 pixels, 31 MB (Xiao et al. 2017).

    Raises OSError if a file is missing and cannot be downloaded, or is damaged.
    """
    return _idx_dataset("fashion_mnist", FASHION_MNIST, FASHION_MNIST_MIRRORS)


def cifar10() -> Dataset:
    """50,000 train and 10,000 test photographs of 32x32x3 pixels, 170 MB (Krizhevsky 2009).

    A row holds the image as (32, 32, 3). Raises OSError if the file is missing and
    cannot be downloaded, or is damaged.
    """
    ((name, file),) = CIFAR10.items()
    with tarfile.open(_fetch("cifar10", name, file, CIFAR10_MIRRORS)) as archive:
        train = [_cifar_batch(archive, f"data_batch_{i}") for i in range(1, 6)]
        x_test, y_test = _cifar_batch(archive, "test_batch")
    x_train, y_train = (np.concatenate(parts) for parts in zip(*train))
    return Dataset(x_train, y_train, x_test, y_test)


# What a pickle of NumPy arrays calls, under the names of NumPy 1 and 2.
IN_ARRAYS = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
    ("_codecs", "encode"): codecs.encode,
}


class _Arrays(pickle.Unpickler):
    """Reads NumPy arrays in plain containers; whatever else a pickle calls is refused."""

    def find_class(self, module, name):
        if (module, name) not in IN_ARRAYS:
            raise OSError(f"the file asks for {module}.{name}: only arrays are read from it")
        return IN_ARRAYS[module, name]


def _cifar_batch(archive, name):
    member = archive.extractfile(f"cifar-10-batches-py/{name}")
    batch = _Arrays(member, encoding="bytes").load()
    images = batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return _pixels(images), np.array(batch[b"labels"])


def _idx_dataset(folder, files, mirrors):
    arrays = [_idx(_fetch(folder, name, file, mirrors)) for name, file in files.items()]
    x_train, y_train, x_test, y_test = arrays
    return Dataset(_pixels(x_train), y_train.astype(int), _pixels(x_test), y_test.astype(int))


def _idx(path):
    """The array in an IDX file: two zeros, type, rank, big-endian sizes, then bytes."""
    content = gzip.decompress(path.read_bytes())
    rank = content[3]
    shape = np.frombuffer(content, ">i4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _pixels(images):
    return images.reshape(len(images), -1).astype(np.float32) / 255


def _fetch(folder, name, file, mirrors):
    """The path of a file that is right: in PCBOOK_DATA if that is set, else the cache."""
    if root := os.environ.get("PCBOOK_DATA"):
        return _local(Path(root).expanduser() / folder / name, file)
    path = CACHE / folder / name
    try:
        if path.is_file() and _wrong(path.read_bytes(), file) is None:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        for part in path.parent.glob(f".{name}.*.part"):  # of a process that was killed
            if time.time() - part.stat().st_mtime > 3600:
                part.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(
            f"{path.parent} cannot be used as the cache: {error}. {OWN_FOLDER}"
        ) from error
    failures = []
    for mirror in sorted(mirrors, key=lambda mirror: mirror in _silent):
        try:
            content = _download(f"{mirror}/{name}", file)
        except (requests.RequestException, HTTPError, ValueError) as error:
            if isinstance(error, requests.ConnectionError | requests.Timeout):
                _silent.add(mirror)
            failures.append(f"  {mirror}/{name}: {error}")
            continue
        _keep(path, content)
        return path
    raise OSError(
        f"{name} of {folder} is not whole in {path.parent} and could not be downloaded from\n"
        + "\n".join(failures)
        + f"\nConnect to a network and try again, or put the file into FOLDER/{folder}/ and set "
        "PCBOOK_DATA=FOLDER."
    )


OWN_FOLDER = "Mend that, or put the files into a folder of your own and set PCBOOK_DATA to it."


def _download(url, file):
    """The content of a file, right and whole. It is held in memory, so that nothing is left over.

    Raises ValueError for more than its size, for a wrong checksum and for a slow mirror.
    """
    end, content = time.monotonic() + 60 + file.size / SLOWEST, bytearray()
    with requests.get(url, stream=True, timeout=SILENCE) as response:
        response.raise_for_status()
        with tqdm(total=file.size, unit="B", unit_scale=True, desc=url, leave=False) as bar:
            while chunk := response.raw.read1(2**16, decode_content=True):
                content += chunk
                bar.update(len(chunk))
                if len(content) > file.size:
                    raise ValueError(f"sends more than the {file.size} bytes of the file")
                if time.monotonic() > end:
                    raise ValueError(f"too slow: {len(content)} of {file.size} bytes")
    if wrong := _wrong(content, file):
        raise ValueError(wrong)
    return bytes(content)


def _wrong(content, file):
    """What is wrong with the content of a file; None if nothing is."""
    for algorithm in ("md5", "sha256"):
        found, expected = hashlib.new(algorithm, content).hexdigest(), getattr(file, algorithm)
        if found != expected:
            return f"its {algorithm} is {found}, must be {expected}"
    return None


def _keep(path, content):
    """Write a file into the cache, whole or not at all, also where others write it too."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        raise OSError(f"{path} was downloaded and cannot be kept: {error}. {OWN_FOLDER}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _local(path, file):
    if not path.is_file():
        raise OSError(
            f"{path} is missing, where PCBOOK_DATA says that it is. "
            "Put it there, or unset PCBOOK_DATA to download it."
        )
    if wrong := _wrong(path.read_bytes(), file):
        raise OSError(
            f"{path} is damaged: {wrong}. Replace it, or unset PCBOOK_DATA to download it again."
        )
    return path
