"""What the tests share: the built book, and a loud word about what could not be tested."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "_build" / "html"

IN_CI = os.environ.get("CI") == "true"


def missing(what: str, remedy: str):
    """In CI a failure; elsewhere a skip, repeated at the end of the run."""
    message = f"NOT TESTED, for want of {what}: {remedy}"
    pytest.fail(message) if IN_CI else pytest.skip(message)


@pytest.fixture(scope="session")
def pages() -> Path:
    """The folder of the built book."""
    if not (PAGES / "index.html").exists():
        missing("the built book", "run `make book` first")
    return PAGES


def pytest_terminal_summary(terminalreporter):
    skipped = {report.longrepr[2] for report in terminalreporter.stats.get("skipped", ())}
    for reason in sorted(reason for reason in skipped if "NOT TESTED" in reason):
        terminalreporter.write_line(reason.removeprefix("Skipped: "), red=True, bold=True)
