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

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tried():
    """What comes of each bad input, in a process without jaxtyping's import hook.

    And the names of the functions that read their arguments by `arguments.checked`.
    """
    run = subprocess.run(
        [sys.executable, "tests/api/bad_inputs.py", "--json"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(run.stdout)
    found = {case: tuple(result) for case, result in answer["found"].items()}
    print(table(found))
    return found, set(answer["reads"])


def test_every_public_function_has_a_valid_call_or_a_reason_why_not():
    assert set(public()) == set(CALLS) | set(NOT_TRIED)
    assert not set(CALLS) & set(NOT_TRIED)


@pytest.mark.slow
def test_bad_inputs_are_refused_clearly_but_for_those_that_are_listed(tried):
    found, _ = tried
    unclear = {f"{result} {case}" for case, (result, _) in found.items()} - {
        f"{result} {case}" for case in found for result in ("clear", "right")
    }
    listed = set(read(NOT_YET))
    assert unclear - listed == set(), "not refused clearly any more"
    assert listed - unclear == set(), "refused clearly now: run bad_inputs.py --write"


@pytest.mark.slow
def test_of_what_reads_its_arguments_none_is_silent_and_at_most_a_twentieth_deep(tried):
    found, reads = tried
    results = Counter(result for case, (result, _) in found.items() if case.split(":")[0] in reads)
    assert results["silent"] == 0
    assert sum(results.values()) >= 500
    assert results["deep"] <= 0.05 * sum(results.values())
