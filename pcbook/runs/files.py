"""Files that are written whole or not at all, and what made a result."""

import csv
import io
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import jax
import numpy as np


def versions() -> dict[str, str]:
    """What made a result."""
    import jaxlib
    import optax

    from pcbook import __version__

    return {
        "pcbook": __version__,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "numpy": np.__version__,
        "optax": optax.__version__,
        "platform": f"{jax.default_backend()}, {platform.machine()}",
    }


def today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole, or as it was before."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, content) -> None:
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


def write_npz(path: Path, **arrays) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_whole(path, buffer.getvalue())


class Metrics:
    """`metrics.csv`: a row for each epoch and network, to be plotted while the run goes on."""

    def __init__(self, path: Path, columns: list[str]):
        self.path, self.columns = path, columns

    def rewrite(self, rows) -> None:
        """Begin again from the rows that the checkpoint knows."""
        text = io.StringIO()
        csv.writer(text).writerows([self.columns, *rows])
        write_whole(self.path, text.getvalue().encode())

    def append(self, rows) -> None:
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows(rows)
