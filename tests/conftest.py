"""What the tests share: the built book, and a loud word about what could not be tested."""

from pathlib import Path

import pytest
from missing import missing

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "_build" / "html"


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
