"""Images with labels: an embedded set that needs no network, and verified downloads.

`digits()` is in scikit-learn and always there. `mnist()`, `fashion_mnist()` and
`cifar10()` are read from the folder that the environment variable PCBOOK_DATA names,
if it does, or else downloaded once into the user's cache. Either way a file is used
only if its checksum is right.
"""

import codecs
import gzip
import os
import pickle
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pooch
from jaxtyping import Float, Int

__all__ = [
    "Dataset",
    "cifar10",
    "digits",
    "fashion_mnist",
    "mnist",
]

CACHE = Path(pooch.os_cache("pcbook"))

MNIST = {
    "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
}
MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
)
FASHION_MNIST = {
    "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
}
FASHION_MNIST_MIRRORS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
)
CIFAR10 = {"cifar-10-python.tar.gz": "md5:c58f30108f718f92721af3b95e74349a"}
CIFAR10_MIRRORS = ("https://www.cs.toronto.edu/~kriz",)


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
    ((name, checksum),) = CIFAR10.items()
    with tarfile.open(_fetch("cifar10", name, checksum, CIFAR10_MIRRORS)) as archive:
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
    arrays = [_idx(_fetch(folder, name, checksum, mirrors)) for name, checksum in files.items()]
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


def _fetch(folder, name, checksum, mirrors):
    """The path of a file whose checksum is right: in PCBOOK_DATA if that is set, else the cache."""
    if root := os.environ.get("PCBOOK_DATA"):
        return _local(Path(root) / folder / name, checksum)
    failures = []
    for mirror in mirrors:
        try:
            return Path(
                pooch.retrieve(f"{mirror}/{name}", checksum, name, CACHE / folder, progressbar=True)
            )
        except (OSError, ValueError) as error:
            failures.append(f"  {mirror}/{name}: {error}")
    raise OSError(
        f"{name} of {folder} is not in {CACHE / folder} and could not be downloaded from\n"
        + "\n".join(failures)
        + "\nConnect to a network and try again, or put the file into FOLDER"
        f"/{folder}/ and set PCBOOK_DATA=FOLDER."
    )


def _local(path, checksum):
    if not path.is_file():
        raise OSError(
            f"{path} is missing, where PCBOOK_DATA says that it is. "
            "Put it there, or unset PCBOOK_DATA to download it."
        )
    algorithm, expected = checksum.split(":")
    if (found := pooch.file_hash(path, alg=algorithm)) != expected:
        raise OSError(
            f"{path} is damaged: its {algorithm} is {found}, must be {expected}. "
            "Replace it, or unset PCBOOK_DATA to download it again."
        )
    return path
