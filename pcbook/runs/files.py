"""Files that are written whole or not at all."""

import csv
import io
import json
from pathlib import Path

import numpy as np

from pcbook.store.results import write_whole


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
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
