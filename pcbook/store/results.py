"""Results of long runs: numbers and arrays, with their settings and a record of what made them.

A result is NAME.json, with NAME.npz where it holds arrays. Beside the numbers the JSON holds

- `settings`: what the result depends on; reading and resuming under other settings is refused;
- `record`: for each start of a program that computed parts of it, the parts with the seconds they
  took, command, date, versions, commit and a digest of each source file (`code`);
- `digest`: a checksum of all the rest and of the arrays, by which damage is noticed.

`stored` reads a result of `results/`; `Parts` computes one part by part, and resumes it.
"""

import ast
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from pcbook.store import PACKAGE, shipped

RESULTS = shipped("results", "results")
ROOT = PACKAGE.parent
OWN_KEYS = ("settings", "record", "digest")
# Code that cannot change a number: the version with the names of the modules, the command line,
# and this module.
COMMAND_LINE = ("ending", "files", "parts", "processes", "report", "stopping")
NOT_RECORDED = (
    *("pcbook", "pcbook.__main__", "pcbook.runs", __name__),
    *(f"pcbook.runs.{module}" for module in COMMAND_LINE),
)
LIBRARIES = ("jax", "jaxlib", "numpy", "optax", "scikit-learn")


# --- reading and writing ---


def stored(name: str, **settings) -> dict:
    """Return the numbers and arrays of a result of `results/`, with its `settings` and `record`.

    Raises ValueError for a name that is not there, for a damaged file, and where the result was
    made under other `settings` than those given.
    """
    names = sorted(path.stem for path in RESULTS.glob("*.json"))
    if name not in names:
        raise ValueError(f"name = {name!r}: must be one of {', '.join(names)}")
    run = read(RESULTS / name)
    asked = _plain(settings)
    for key in asked:
        if key not in run["settings"]:
            allowed = ", ".join(run["settings"])
            raise ValueError(f"{key} = {asked[key]!r}: {name} has only the settings {allowed}")
    if differs := difference({key: run["settings"][key] for key in asked}, asked):
        raise ValueError(f"{name} was made with {differs}: compute it again, or ask for the former")
    return run


def read(path: Path) -> dict:
    """Return all of `path`.json and the arrays of `path`.npz, if there are any.

    Raises ValueError if they do not have the digest that they were written with.
    """
    file, arrays = _files(path)
    content, packed = file.read_bytes(), arrays.read_bytes() if arrays.exists() else None
    try:
        numbers, found = json.loads(content), {}
        if packed is not None:
            with np.load(io.BytesIO(packed)) as unpacked:
                found = dict(unpacked)
        whole = numbers["digest"] == digest(numbers, found)
    except Exception:  # what a damaged file raises depends on where the damage is
        whole = False
    if not whole:
        raise ValueError(
            f"{file} or {arrays.name} is damaged: restore both, or remove both and compute again"
        )
    return numbers | found


def write(path: Path, settings: dict, record: list[dict], numbers: dict, **arrays) -> None:
    """Write `path`.npz if there are arrays, then `path`.json, each of them whole.

    Raises ValueError for a name that stands for two things.
    """
    names = [*OWN_KEYS, *numbers, *arrays]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"names = {', '.join(sorted(twice))}: each must stand for one thing")
    content = _plain({"settings": settings, "record": record, "digest": ""} | numbers)
    content["digest"] = digest(content, arrays)
    file, packed = _files(path)
    if arrays:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_whole(packed, buffer.getvalue())
    write_whole(file, (_text(content) + "\n").encode())


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


def digest(content: dict, arrays: dict) -> str:
    """Return a checksum of `content` but for its own entry, and of the arrays by name."""
    rest = {key: value for key, value in content.items() if key != "digest"}
    sha = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        sha.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def difference(before: dict, now: dict) -> str:
    """Return the first setting that differs, with both values; an empty text if none does."""
    for key in {**before, **now}:
        if key not in before or key not in now or before[key] != now[key]:
            there, here = (repr(s[key]) if key in s else "nothing" for s in (before, now))
            return f"{key} = {there}, not {here}"
    return ""


def dates(run: dict) -> str:
    """Return the date on which the parts of a result were made, or the first and the last."""
    found = sorted({entry["date"] for entry in run["record"]})
    return " to ".join(sorted({found[0], found[-1]}))


def _files(path):
    return path.with_name(f"{path.name}.json"), path.with_name(f"{path.name}.npz")


def _plain(value):
    """Return `value` as it is after a way through JSON."""
    return json.loads(json.dumps(value))


def _text(value, indent="\n"):
    """Return JSON with a line for each entry; a list of numbers, or of such lists, is one line."""
    if isinstance(value, dict):
        lines = [f"{json.dumps(key)}: {_text(value[key], indent + ' ')}" for key in value]
        return f"{{{','.join(indent + ' ' + line for line in lines)}{indent}}}" if value else "{}"
    if not isinstance(value, list) or not value:
        return json.dumps(value)
    items = [_text(item, indent + " ") for item in value]
    if _depth(value) <= 2:
        return f"[ {', '.join(items)} ]"
    return f"[{','.join(indent + ' ' + item for item in items)}{indent}]"


def _depth(value):
    """Return how many lists are nested in `value`; a dictionary never fits on a line."""
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 3 if isinstance(value, dict) else 0


# --- what made a result ---


def made(command: str, code: dict[str, str]) -> dict:
    """Return what a record keeps of a program that starts now."""
    return {
        "command": command,
        "date": today(),
        "commit": commit(),
        "versions": versions(),
        "code": code,
    }


def today() -> str:
    """Return the date in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d")


def versions() -> dict[str, str]:
    """Return the versions that numbers may depend on, and the kind of machine."""
    import jax

    from pcbook import __version__

    return {
        "pcbook": __version__,
        "python": platform.python_version(),
        **{library: version(library) for library in LIBRARIES},
        "platform": f"{jax.default_backend()}, {platform.machine()}",
    }


def commit(root: Path = ROOT) -> str | None:
    """Return the commit of the checkout at `root`; None where there is none.

    It ends in `-dirty` if files of `pcbook/` or `experiments/` are not as committed.
    """
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD").strip()
        changes = _git(root, "status", "--porcelain", "--", "pcbook", "experiments")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}-dirty" if changes else head


def _git(root, *arguments):
    command = ["git", "-C", root, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def code(*files: Path | str) -> dict[str, str]:
    """Return digests of the modules of pcbook loaded now, and of the `files`, by path from ROOT."""
    loaded = [
        module.__file__
        for name, module in sys.modules.items()
        if name.partition(".")[0] == "pcbook" and name not in NOT_RECORDED and module.__file__
    ]
    paths = {Path(file).resolve() for file in [*loaded, *files]}
    names = {Path(os.path.relpath(path, ROOT)).as_posix(): path for path in paths}
    texts = {name: names[name].read_text(encoding="utf-8") for name in sorted(names)}
    return {name: code_digest(text, name) for name, text in texts.items()}


def code_digest(text: str, name: str) -> str:
    """Return a digest of what a source file does: its syntax tree without docstrings.

    Comments and the layout do not count. Of a file that is not Python, everything counts.
    """
    if name.endswith(".py"):
        text = repr(_tree(ast.parse(text)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _tree(node):
    """Return a syntax tree as nested lists that are the same in every Python we support."""
    if isinstance(node, list):
        return [_tree(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:]
    return [type(node).__name__, {k: _tree(v) for k, v in fields.items() if v not in (None, [])}]


def changed(code: dict[str, str]) -> list[str]:
    """Return the files of a record that are not now what they were, or are not there."""

    def now(name):
        path = ROOT / name
        return code_digest(path.read_text(encoding="utf-8"), name) if path.exists() else None

    return [name for name in code if now(name) != code[name]]


def check_code(entry: dict, what: str) -> None:
    """Raise ValueError unless the code that made an entry of a record is the code of today."""
    if entry["code"] is None:
        raise ValueError(f"{what} was made by code that is not recorded: compute it again")
    if files := changed(entry["code"]):
        raise ValueError(
            f"{what} was made by other code ({', '.join(files)} changed since): compute it again, "
            f"or return to the code of commit {entry['commit']}"
        )


# --- computing a result part by part ---


class Parts:
    """A result computed part by part: written after each part, and resumed where it stopped.

    A part is named by the keys that lead to its numbers. Each part keeps the record of the start
    that computed it.
    """

    def __init__(self, path: Path, settings: dict, made: dict):
        self.path, self.settings, self.made = path, _plain(settings), made
        self.record, self.numbers, self._before = [], {}, self.settings
        if _files(path)[0].exists():
            run = read(path)
            self.record, self._before = run["record"], run["settings"]
            self.numbers = {key: run[key] for key in run if key not in OWN_KEYS}

    def resume(self, parts: list[tuple], only: list[tuple], again: bool = False) -> list[tuple]:
        """Return those of `only` that are to be computed: the missing ones, or all of them `again`.

        Raises ValueError if a part that is kept was made under other settings, or if one of
        `only` that is kept was made by other code.
        """
        if again and only == parts:
            self.record, self.numbers = [], {}
        for part in only if again else ():
            self._remove(part)
        kept = {name: entry for entry in self.record for name in entry["parts"]}
        differs = difference(self._before, self.settings)
        if kept and differs:
            raise ValueError(
                f"{self.path.name} was made with {differs}: compute all of it again (--again)"
            )
        names = {"/".join(part): part for part in only}
        for name in names:
            if name in kept:
                check_code(kept[name], f"{name!r} of {self.path.name}")
        return [part for name, part in names.items() if name not in kept]

    def add(self, part: tuple, numbers, seconds: float) -> None:
        """Put the numbers of a part in their place, with what made them, and write the files."""
        self._remove(part)
        *above, last = part
        place = self.numbers
        for key in above:
            place = place.setdefault(key, {})
        place[last] = numbers
        self.record = add_parts(self.record, self.made, {"/".join(part): round(seconds)})
        write(self.path, self.settings, self.record, self.numbers)

    def _remove(self, part):
        *above, last = part
        place = self.numbers
        for key in above:
            place = place.get(key, {})
        place.pop(last, None)
        for entry in self.record:
            entry["parts"].pop("/".join(part), None)
        self.record = [entry for entry in self.record if entry["parts"]]


def add_parts(record: list[dict], made: dict, parts: dict) -> list[dict]:
    """Return the record with `parts`, name to seconds, computed today by what `made` describes."""
    made = made | {"date": today()}
    record = [entry | {"parts": dict(entry["parts"])} for entry in record]
    for entry in record:
        if {key: entry[key] for key in entry if key != "parts"} == made:
            entry["parts"] |= parts
            return record
    return [*record, made | {"parts": parts}]
