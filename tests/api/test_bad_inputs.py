"""Every public function, tried with bad inputs made from a valid call: see bad_inputs.py."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from bad_inputs import NOT_YET, read, table
from calls import CALLS, NOT_TRIED, public

from pcbook.core.arguments import checked

ROOT = Path(__file__).parents[2]


def is_checked(function):
    """Whether a function is decorated with `arguments.checked`."""
    return getattr(function, "__code__", None) is checked(print).__code__


@pytest.fixture(scope="module")
def found():
    """What comes of each bad input, in a process without jaxtyping's import hook."""
    run = subprocess.run(
        [sys.executable, "tests/api/bad_inputs.py", "--json"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = {case: tuple(result) for case, result in json.loads(run.stdout).items()}
    print(table(found))
    return found


def test_every_public_function_has_a_valid_call_or_a_reason_why_not():
    assert set(public()) == set(CALLS) | set(NOT_TRIED)
    assert not set(CALLS) & set(NOT_TRIED)


@pytest.mark.slow
def test_bad_inputs_are_refused_clearly_but_for_those_that_are_listed(found):
    unclear = {f"{result} {case}" for case, (result, _) in found.items()} - {
        f"{result} {case}" for case in found for result in ("clear", "right")
    }
    listed = set(read(NOT_YET))
    assert unclear - listed == set(), "not refused clearly any more"
    assert listed - unclear == set(), "refused clearly now: run bad_inputs.py --write"


@pytest.mark.slow
def test_of_what_reads_its_arguments_none_is_silent_and_at_most_a_twentieth_deep(found):
    reads = {name for name, function in public().items() if is_checked(function)}
    results = Counter(result for case, (result, _) in found.items() if case.split(":")[0] in reads)
    assert results["silent"] == 0
    assert sum(results.values()) >= 500
    assert results["deep"] <= 0.05 * sum(results.values())
