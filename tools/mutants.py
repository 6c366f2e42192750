"""Do the tests notice a mistake? Make each of the mistakes that this subject invites, and see.

`defects.yml`, beside this file, lists the defects. Each replaces a text that stands exactly once
in a module of the package, or in the files of a module that is a package. It is made in a copy of
the checkout, never here, and the tests of the module run on the copy until the first one fails.
A defect that no test notices survives, and a survivor is an error.

    python tools/mutants.py [word]

With a word, only the defects that have it in "module: name". All take some hours on two cores.
Compiled programs are kept in `_build/compiled`, so a second run compiles only what differs.
"""

import contextlib
import io
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DEFECTS = Path(__file__).with_name("defects.yml")
PROCESSES = 2


class Defect(NamedTuple):
    """A mistake: `wrong` in the place of `right` in a `module`, named relative to pcbook.

    `tests` are the test files that must notice it: those of the module, unless the list of
    defects names others.
    """

    name: str
    module: str
    right: str
    wrong: str
    tests: tuple[str, ...]


def read(text: str) -> list[Defect]:
    """Return the defects of a YAML list of modules.

    Raises ValueError if two defects of a module have the same name.
    """
    found = []
    for group in yaml.safe_load(text):
        module = group["module"]
        tests = tuple(group.get("tests") or [tests_of(module)])
        found += [Defect(module=module, tests=tests, **entry) for entry in group["defects"]]
    names = [title(defect) for defect in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{', '.join(sorted(twice))}: must be the name of one defect")
    return found


def tests_of(module: str) -> str:
    """Return the test file of a module, such as core/rules, or of a file of its package."""
    part, name, *_ = module.split("/")
    return f"tests/{part}/test_{name}.py"


def title(defect: Defect) -> str:
    """Return how a defect is listed, and what a word on the command line is looked for in."""
    return f"{defect.module}: {defect.name}"


def place(defect: Defect) -> Path:
    """Return the file in which the right text stands.

    Raises ValueError unless it stands exactly once in the module or package.
    """
    module = ROOT / "pcbook" / defect.module
    files = sorted(module.rglob("*.py")) if module.is_dir() else [module.with_suffix(".py")]
    times = {file: file.read_text(encoding="utf-8").count(defect.right) for file in files}
    if (total := sum(times.values())) != 1:
        raise ValueError(
            f"{title(defect)}: {defect.right!r} stands {total} times: must stand exactly once"
        )
    return max(files, key=times.__getitem__)


def main() -> None:
    """Try the defects, print a line for each, and exit with 1 unless all are noticed."""
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [
        defect for defect in read(DEFECTS.read_text(encoding="utf-8")) if word in title(defect)
    ]
    if not chosen:
        sys.exit(f"word = {word!r}: no defect has it")
    for defect in chosen:
        place(defect)
    with processes() as pool:
        unsound = dict(failing(pool, chosen))
        tried = [defect for defect in chosen if defect.tests not in unsound]
        print(f"{'module':<31}{'defect':<52}noticed by")
        survivors = 0
        for defect, test in zip(tried, pool.map(noticed_by, tried)):
            survivors += test is None
            print(f"{defect.module:<31}{defect.name:<52}{test or 'NO TEST'}", flush=True)
    print(f"{len(tried) - survivors} of {len(chosen)} defects are noticed.")
    if len(tried) < len(chosen):
        print(f"{len(chosen) - len(tried)} were not tried: mend their tests first.")
    sys.exit(survivors > 0 or len(tried) < len(chosen))


def failing(
    pool: ProcessPoolExecutor, defects: list[Defect]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the test files in which a test fails without any defect, with that test."""
    tests = sorted({defect.tests for defect in defects})
    for files, test in zip(tests, pool.map(first_failure, tests)):
        if test:
            print(f"{test} of {', '.join(files)} fails without any defect.", flush=True)
            yield files, test


def processes() -> ProcessPoolExecutor:
    """A new process for each defect, with JAX imported already and compiled programs shared."""
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / "_build" / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "TQDM_DISABLE": "1",
    }
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["jax", "optax", "hypothesis", "beartype", "pytest"])
    return ProcessPoolExecutor(PROCESSES, server, max_tasks_per_child=1)


def noticed_by(defect: Defect) -> str | None:
    """The first test that fails on a copy of the checkout with the defect in it."""
    file = place(defect)
    text = file.read_text(encoding="utf-8").replace(defect.right, defect.wrong)
    return first_failure(defect.tests, {file.relative_to(ROOT): text})


def first_failure(tests: tuple[str, ...], changed: dict[Path, str] | None = None) -> str | None:
    """The first test that fails on a copy of the checkout in which some files are changed."""
    first, output = FirstFailure(), io.StringIO()
    with tempfile.TemporaryDirectory() as copy:
        copy_checkout(Path(copy))
        for file, text in (changed or {}).items():
            (Path(copy) / file).write_text(text, encoding="utf-8")
        os.chdir(copy)
        sys.path.insert(0, copy)
        os.environ["PYTHONPATH"] = copy  # for the processes that tests start
        with contextlib.redirect_stdout(output):
            code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests], [first])
        os.chdir(ROOT)
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        if changed:  # a module that cannot be imported is noticed
            return "collecting the tests"
        raise RuntimeError(f"No test of {', '.join(tests)} ran:\n{output.getvalue()[-2000:]}")
    return first.test


class FirstFailure:
    """A plugin of pytest that keeps the name of the first test that fails."""

    test = None

    def pytest_runtest_logreport(self, report):
        if report.failed and self.test is None:
            self.test = report.nodeid.split("::")[-1]


def copy_checkout(folder: Path) -> None:
    """Copy all files of the checkout but those that git ignores."""
    command = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


if __name__ == "__main__":
    main()
