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


def read_json(path: Path):
    """What stands in a file; None where it is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def read_start(folder: Path) -> dict:
    """Return the `arguments` that began a run, and the `folder` in which they were given.

    Raises ValueError if `folder` holds no run that was begun by this program.
    """
    start = read_json(folder / "start.json")
    if not isinstance(start, dict) or set(start) != {"arguments", "folder"}:
        raise ValueError(f"{folder} holds no run, or its start.json is missing or damaged")
    return start


def shown(value) -> str:
    """A number, or a list of them, as a table shows it."""
    if isinstance(value, list):
        return "  ".join(map(shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
