"""The experiments on controls: what they store, and that a stop or a kill changes nothing."""

import os
import signal
import time

import numpy as np
import pytest
from running import assert_bitwise, epochs_kept, refused

from pcbook import results
from pcbook.emergence.energy_controls import VARIANTS, Conclusions, vary, watch
from pcbook.emergence.energy_efficiency import SIZES
from pcbook.runs.energy_controls import add_entries

pytestmark = pytest.mark.slow

BOTH = ["run", "energy-controls", "--quiet", "--seeds", "2", "--checkpoint-every", "2"]
STOPPING = [*BOTH, "--experiment", "stopping", "--epochs", "20", "--rate", "0.003", "0.01"]
FEW = [*BOTH, "--epochs", "10", "--only", "bias", "bias only"]


@pytest.fixture(scope="module")
def stopping(runs):
    code, said = runs.finish("stopping", settings=STOPPING)
    assert code == 0, said
    return results.read(runs.folder / "stopping/results")


@pytest.fixture(scope="module")
def few(runs):
    code, said = runs.finish("few", settings=FEW)
    assert code == 0, said
    return results.read(runs.folder / "few/results")


def test_a_watched_training_is_that_of_the_chapter(stopping):
    """To rounding: weights that differ by it move the share of a few test sequences."""
    digits = SIZES["digits"].load()
    for i, rate in enumerate((0.003, 0.01)):
        watched = watch(digits, epochs=20, rate=rate, seeds=range(2))
        np.testing.assert_array_equal(stopping["epochs"], watched.epochs)
        np.testing.assert_allclose(stopping["redrawn"][i], watched.redrawn, rtol=1e-3)
        np.testing.assert_allclose(stopping["fixed"][i], watched.fixed, rtol=1e-3)
        for field, values in enumerate(watched.conclusions):
            assert stopping["fields"][field] == Conclusions._fields[field]
            np.testing.assert_allclose(stopping["conclusions"][i, field], values, atol=2, rtol=0.02)


def test_the_variants_are_those_of_the_chapter(few):
    assert list(few["names"]) == ["bias", "bias only"]
    for name, rows in zip(few["names"], few["conclusions"]):
        network, order = VARIANTS[str(name)]
        found = vary(SIZES["digits"].load(), network, order, epochs=10, rate=3e-3, seeds=range(2))
        np.testing.assert_allclose(rows, np.stack(found), atol=2, rtol=0.02)


def test_the_result_says_what_made_it(few):
    assert few["settings"]["only"] == ["bias", "bias only"]
    assert few["settings"]["seeds"] == [0, 1]
    (entry,) = few["record"]
    assert entry["command"].startswith("python -m pcbook run energy-controls")
    assert list(entry["parts"]) == ["bias: epochs 1 to 10", "bias only: epochs 1 to 10"]
    assert "pcbook/runs/energy_controls.py" in entry["code"]
    assert few["summary"]["bias"].keys() == {n.replace("_", " ") for n in Conclusions._fields}


@pytest.mark.parametrize(
    ("settings", "name", "at"), [(STOPPING, "stopping", ""), (FEW, "few", "bias only")]
)
def test_a_kill_in_the_middle_ends_bitwise_where_no_kill_does(settings, name, at, runs, request):
    whole = request.getfixturevalue(name)
    again = runs.folder / f"{name}-killed"
    process, log = runs.start(again.name, settings=settings)
    while not epochs_kept(again / at):
        assert process.is_alive(), log.read_text(encoding="utf-8")
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (again / "results.json").exists()
    code, said = runs.finish(again.name, settings=settings)
    assert code == 0, said
    found = results.read(again / "results")
    arrays = {name for name, value in whole.items() if isinstance(value, np.ndarray)}
    assert_bitwise({n: found[n] for n in arrays}, {n: whole[n] for n in arrays})


def test_a_signal_stops_after_a_checkpoint(runs):
    process, log = runs.start("signalled", "--epochs", "5000", settings=STOPPING)
    while not epochs_kept(runs.folder / "signalled"):
        assert process.is_alive(), log.read_text(encoding="utf-8")
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGTERM)
    process.join(120)
    said = log.read_text(encoding="utf-8")
    assert process.exitcode == 75, said
    epoch = max(epochs_kept(runs.folder / "signalled"))
    assert f"Stopped by SIGTERM. The checkpoint of epoch {epoch} is whole." in said
    assert len(said.splitlines()) == 1


def test_variants_that_all_diverge_are_refused_and_no_result_is_written(runs):
    code, said = runs.finish("lost", "--rate", "1e38", settings=FEW)
    assert code == 1
    assert "every variant has diverged: choose a smaller --rate" in said
    assert not (runs.folder / "lost/results.json").exists()


def test_a_result_of_other_settings_is_not_overwritten(few, runs, capsys):
    arguments = [*FEW, "--out", runs.folder / "few", "--rate", "0.3"]
    assert "rates: [0.003] there, [0.3] now" in refused(arguments, capsys)
    assert results.read(runs.folder / "few/results")["digest"] == few["digest"]


def test_a_place_that_cannot_be_had_is_said_before_anything_is_computed(tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"")
    said = refused([*FEW, "--out", tmp_path / "file/few"], capsys)
    assert "A file stands where a folder must be" in said
    assert "Nothing was begun." in said


def test_epochs_that_are_no_multiple_of_the_evaluations_are_refused(tmp_path, capsys):
    arguments = [*STOPPING, "--epochs", "21", "--out", tmp_path / "x"]
    assert "--epochs 21: must be a multiple of 5" in refused(arguments, capsys)


def test_entries_of_one_start_are_put_together_and_those_of_two_are_not():
    record = []
    first, second = ({"command": name, "date": "today"} for name in ("run", "resume"))
    add_entries(record, "bias", [first | {"parts": {"epochs 1 to 4": 1}}])
    add_entries(record, "GRU", [second | {"parts": {"epochs 1 to 4": 2}}])
    add_entries(record, "bias", [second | {"parts": {"epochs 5 to 9": 3}}])
    assert record == [
        first | {"parts": {"bias: epochs 1 to 4": 1}},
        second | {"parts": {"GRU: epochs 1 to 4": 2, "bias: epochs 5 to 9": 3}},
    ]
