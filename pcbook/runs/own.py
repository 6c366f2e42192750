"""What a user brings along: images in a file or a folder, and a network by its import path."""

import importlib
import importlib.util
import sys
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pcbook.emergence.energy_efficiency import SIZES
from pcbook.store.data import Dataset

GREY = ("1", "L", "LA")  # Pillow's modes of images without colour
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".pgm", ".ppm", ".tif", ".tiff")
EVERY = 5  # of a folder without train/ and test/, each fifth image of a class is for the test


def load_data(name: str) -> Dataset:
    """Return a dataset by the name of its size, from an .npz file, or from a folder of images.

    Raises ValueError, which names --data, for one that is not there or would be misread.
    """
    if name in SIZES:
        return SIZES[name].load()
    path = Path(name)
    if path.is_dir():
        arrays = _folder(name, path)
    elif path.suffix == ".npz" and path.is_file():
        arrays = _file(name, path)
    else:
        sizes = ", ".join(SIZES)
        raise ValueError(
            f"--data {name}: must be one of {sizes}, an .npz file, or a folder of images"
        )
    x = {split: _rows(name, f"x_{split}", arrays[f"x_{split}"]) for split in ("train", "test")}
    y = {split: _labels(name, f"y_{split}", arrays[f"y_{split}"]) for split in ("train", "test")}
    if len({arrays[f"x_{split}"].dtype.kind in "iu" for split in x}) == 2:
        raise ValueError(f"--data {name}: x_train and x_test must both be integers or both floats")
    return Dataset(x["train"], y["train"], x["test"], y["test"])


def _file(name, path):
    """The arrays of an .npz file, read without pickle."""
    try:
        with np.load(path) as file:
            arrays = dict(file)
    except (EOFError, TypeError, ValueError, zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"--data {name}: is not a whole .npz file of numbers") from error
    if missing := set(Dataset.__annotations__) - set(arrays):
        raise ValueError(f"--data {name}: lacks {', '.join(sorted(missing))}")
    return arrays


def _folder(name, path):
    """The arrays of a folder: train/CLASS/IMAGE and test/CLASS/IMAGE, or CLASS/IMAGE."""
    if (path / "train").is_dir() and (path / "test").is_dir():
        classes = [folder.name for folder in _folders(path / "train")]
        found = {split: _classes(name, path / split, classes) for split in ("train", "test")}
    else:
        every = _classes(name, path, [folder.name for folder in _folders(path)])
        found = {
            "train": [image for number, image in every if number % EVERY],
            "test": [image for number, image in every if not number % EVERY],
        }
        found = {split: list(enumerate(images)) for split, images in found.items()}
    files = [file for images in found.values() for _, (file, _) in images]
    colour = any(_mode(file) not in GREY for file in files)
    arrays, shapes = {}, {}
    for split, images in found.items():
        if not images:
            raise ValueError(f"--data {name}: no images for {split}: a folder for each class")
        pixels = [_pixels(name, file, colour, shapes) for _, (file, _) in images]
        arrays[f"x_{split}"] = np.stack(pixels)
        arrays[f"y_{split}"] = np.array([label for _, (_, label) in images])
    return arrays


def _folders(path):
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _classes(name, path, classes):
    """Each image file of a folder of classes with its label, numbered within its class."""
    found = []
    for folder in _folders(path):
        if folder.name not in classes:
            raise ValueError(f"--data {name}: the class {folder.name} is not in train")
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGES)
        found += [(i, (file, classes.index(folder.name))) for i, file in enumerate(files)]
    return found


def _mode(file):
    """The mode of an image, by Pillow's names; those of more than 8 bits are refused."""
    with _opened(file) as image:
        if image.mode[0] in "IF":
            raise ValueError(f"{file} has pixels of more than 8 bits: must have 8")
        return image.mode


@contextmanager
def _opened(file):
    try:
        with Image.open(file) as image:
            yield image
    except (OSError, SyntaxError) as error:  # what Pillow raises for damaged files
        raise ValueError(f"{file} is not an image that can be read: {error}") from error


def _pixels(name, file, colour, shapes):
    """The pixels of an image, 0 to 255; all must have the shape of the first."""
    with _opened(file) as image:
        pixels = np.asarray(image.convert("RGB" if colour else "L"))
    first, shape = shapes.setdefault("first", (file, pixels.shape))
    if pixels.shape != shape:
        raise ValueError(
            f"--data {name}: {file} has {pixels.shape[:2]} pixels, {first} has {shape[:2]}: "
            "all must have the same size"
        )
    return pixels


def _rows(data, name, images):
    """Rows of pixels in [0, 1] of images that are integers in 0..255 or floats in [0, 1]."""
    if images.ndim < 2 or images.dtype.kind not in "biuf":
        raise ValueError(
            f"--data {data}: {name} is {images.dtype} of shape {images.shape}: "
            "must be real numbers, an image in each row"
        )
    rows, top = images.reshape(len(images), -1), 255 if images.dtype.kind in "iu" else 1
    if rows.size and not (rows.min() >= 0 and rows.max() <= top):
        raise ValueError(
            f"--data {data}: {name} is {images.dtype} from {rows.min():g} to {rows.max():g}: "
            f"must be within 0 and {top}"
        )
    images = rows.astype(np.float32)
    return images if top == 1 else images / np.float32(255)


def _labels(data, name, labels):
    """Labels as integers; those that are not are refused."""
    if labels.dtype.kind not in "iu" or labels.size == 0 or labels.max() >= 10_000:
        raise ValueError(
            f"--data {data}: {name} is {labels.dtype}: must be integer labels from 0 below 10,000"
        )
    return labels.astype(int)


def check_classes(dataset: Dataset) -> None:
    """Raise ValueError if a class of the test images has no training image."""
    if missing := set(dataset.y_test.tolist()) - set(dataset.y_train.tolist()):
        raise ValueError(f"y_test holds {min(missing)}: must be among the labels of y_train")


def load_object(option: str, path: str, kind: type) -> tuple[Any, Path]:
    """Return the object at an import path, and the file that it comes from.

    `path` is `package.module:NAME` or `folder/file.py:NAME`. Raises ValueError, which names the
    `option`, if it cannot be imported or is not of the `kind`.
    """
    where, separator, name = path.rpartition(":")
    if not separator or not name.isidentifier():
        raise ValueError(f"{option} {path}: must be package.module:NAME or folder/file.py:NAME")
    try:
        module = _module(where)
    except Exception as error:  # whatever the user's own code raises
        raise ValueError(
            f"{option} {path}: importing {where} failed: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, name):
        raise ValueError(f"{option} {path}: {where} has no {name}")
    found = getattr(module, name)
    if not isinstance(found, kind):
        raise ValueError(
            f"{option} {path}: is a {type(found).__name__}, must be a "
            f"{kind.__module__}.{kind.__name__}"
        )
    return found, Path(module.__file__)


def _module(where):
    """Import a module by its name, from here too, or by its file."""
    if not where.endswith(".py"):
        if not {"", str(Path.cwd())} & set(sys.path):
            sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(where)
    path = Path(where).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"{where} is not there")
    specification = importlib.util.spec_from_file_location(f"_own_{path.stem}", path)
    module = importlib.util.module_from_spec(specification)
    sys.modules[module.__name__] = module  # dataclasses and the like look it up there
    specification.loader.exec_module(module)
    return module
