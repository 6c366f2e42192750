"""The images to train on, at several sizes."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pcbook.core.arguments import Count, checked
from pcbook.core.checks import check_number
from pcbook.store import data
from pcbook.store.data import Dataset


class Size(NamedTuple):
    """Images to train on, with settings that suffice for them."""

    load: Callable[[], Dataset]
    rate: float
    epochs: int


@checked
def pooled(dataset: Dataset, side: Count, channels: Count = 1) -> Dataset:
    """Average square images over blocks of pixels, down to `side` x `side`.

    Raises ValueError if `side` does not divide the side of the images.
    """
    x_train, x_test = (_block_means(x, side, channels) for x in (dataset.x_train, dataset.x_test))
    return Dataset(x_train, dataset.y_train, x_test, dataset.y_test)


def _block_means(x, side, channels):
    width = round((x.shape[1] / channels) ** 0.5)
    check_number(
        f"a divisor of {width}, the side of the images",
        lambda value: value >= 1 and width % value == 0,
        side=side,
    )
    block = width // side
    x = x.reshape(len(x), side, block, side, block, channels)
    return x.mean((2, 4), dtype=np.float32).reshape(len(x), -1)


SIZES = {
    "digits": Size(data.digits, 3e-3, 1500),
    "mnist14": Size(lambda: pooled(data.mnist(), 14), 1e-3, 150),
    "mnist": Size(data.mnist, 1e-4, 200),
    "fashion14": Size(lambda: pooled(data.fashion_mnist(), 14), 1e-3, 150),
    "fashion": Size(data.fashion_mnist, 1e-4, 200),
    "cifar8": Size(lambda: pooled(data.cifar10(), 8, 3), 1e-3, 150),
    "cifar16": Size(lambda: pooled(data.cifar10(), 16, 3), 1e-4, 300),
}
