"""Long runs, really killed, damaged and starved of room: nothing is lost and nothing differs."""

import json
import os
import random
import shutil
import signal
import time

import numpy as np
import pytest
from running import FIVE, assert_bitwise, assert_same_to_rounding, epochs_kept, snapshot

from pcbook.emergence.energy_efficiency import SIZES, train
from pcbook.runs.checkpoints import Checkpoints

pytestmark = pytest.mark.slow


def test_twenty_kills_at_random_moments_end_bitwise_where_no_kill_does(runs):
    rng, kills, resumed = random.Random(0), 0, 0
    began = time.monotonic()
    assert runs.finish("again")[0] == 0
    seconds = time.monotonic() - began  # of a run, now that its programs are in the cache
    whole = runs.results("whole")
    assert_bitwise(runs.results("again"), whole)
    round = 0
    while kills < 20:
        round += 1
        name = f"killed-{round}"
        while True:
            resumed += bool(epochs_kept(runs.folder / name))
            process, log = runs.start(name)
            process.join(rng.uniform(0.1, 0.9) * seconds)
            if not process.is_alive():
                assert process.exitcode == 0, log.read_text(encoding="utf-8")
                break
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
        assert_bitwise(runs.results(name), whole)
        metrics = (runs.folder / name / "metrics.csv").read_text(encoding="utf-8")
        assert metrics == (runs.folder / "whole" / "metrics.csv").read_text(encoding="utf-8")
    assert resumed >= 5  # many of the kills came after a checkpoint


# --- stopped by a signal ---


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
def test_a_signal_stops_after_a_checkpoint_and_the_run_ends_bitwise(runs, name):
    process, log = runs.start(name, "--checkpoint-every", "1000")
    metrics = runs.folder / name / "metrics.csv"
    while not (metrics.exists() and len(metrics.read_text(encoding="utf-8").splitlines()) > 5):
        assert process.is_alive(), log.read_text(encoding="utf-8")
        time.sleep(0.002)
    os.kill(process.pid, getattr(signal, name))
    process.join(60)
    said = log.read_text(encoding="utf-8")
    assert process.exitcode == 75, said
    (epoch,) = epochs_kept(runs.folder / name)
    assert 2 <= epoch < 60
    assert said == (
        f"Stopped by {name}. The checkpoint of epoch {epoch} is whole. "
        "The same command goes on from there.\n"
    )
    assert len(metrics.read_text(encoding="utf-8").splitlines()) == 1 + 2 * epoch
    assert runs.finish(name)[0] == 0
    assert_bitwise(runs.results(name), runs.results("whole"))


@pytest.mark.parametrize("seconds", [0.2, 0.6, 1.2])
def test_a_signal_at_the_start_or_while_compiling_ends_with_one_sentence(runs, seconds, tmp_path):
    """The cache of compiled programs is empty, so that most of the time is compiling."""
    process, log = runs.start(f"early-{seconds}", signal_after=seconds, cache=str(tmp_path))
    process.join(120)
    said = log.read_text(encoding="utf-8")
    assert process.exitcode == 75, said
    assert len(said.splitlines()) == 1
    assert said.startswith("Stopped by SIGINT. ")


# --- what is refused, and why ---


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"jax_enable_x64": True}, "'x64': True"),
        ({"jax_default_prng_impl": "rbg"}, "'random numbers': 'rbg'"),
        ({"jax_threefry_partitionable": False}, "'partitionable': False"),
    ],
)
def test_another_arithmetic_is_refused_and_not_called_damage(runs, stopped, config, message):
    before = snapshot(runs.folder / stopped)
    code, said = runs.finish(stopped, **config)
    assert code == 1
    assert "holds a run with other settings" in said
    assert message in said
    assert "damaged" not in said
    assert snapshot(runs.folder / stopped) == before


def test_a_rate_at_which_every_network_diverges_stops_the_run(runs):
    code, said = runs.finish("lost", "--rate", "1e38")
    assert code == 1
    assert "every network has diverged by epoch" in said
    assert not (runs.folder / "lost/results.json").exists()


def test_a_network_that_diverges_is_reported_and_the_others_go_on(runs):
    code, said = runs.finish("half", "--rate", "0.003", "1e38")
    assert code == 0, said
    text = (runs.folder / "half/results.json").read_text(encoding="utf-8")
    note = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [(n["rate"], n["seed"]) for n in note["diverged"]] == [(1e38, 0), (1e38, 1)]
    assert f"rate 1e+38, seed 0 diverged in epoch {note['diverged'][0]['epoch']}" in said
    whole, half = runs.results("whole"), runs.results("half")
    np.testing.assert_allclose(half["loss"][:6, :2], whole["loss"][:6], rtol=1e-5)


def test_a_damaged_checkpoint_is_refused_and_the_one_before_goes_on(runs, stopped):
    folder = runs.folder / stopped
    latest = max(epochs_kept(folder))
    data = max((folder / f"checkpoints/{latest}").rglob("*"), key=lambda p: p.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 0xFF
    data.write_bytes(content)
    before = snapshot(folder)
    code, said = runs.finish(stopped)
    assert code == 1
    assert f"{latest} is damaged" in said
    assert "Nothing was changed" in said
    assert "Traceback" not in said
    assert snapshot(folder) == before
    shutil.rmtree(folder / f"checkpoints/{latest}")
    assert runs.finish(stopped)[0] == 0
    assert_bitwise(runs.results(stopped), runs.results("whole"))


def test_a_checkpoint_cut_short_is_refused(runs, stopped):
    folder = runs.folder / stopped
    latest = max(epochs_kept(folder))
    data = max((folder / f"checkpoints/{latest}").rglob("*"), key=lambda p: p.stat().st_size)
    data.write_bytes(data.read_bytes()[:100])
    code, said = runs.finish(stopped)
    assert code == 1
    assert f"{latest} is damaged" in said


def test_a_foreign_checkpoint_is_refused(runs, stopped):
    assert runs.finish("other", "--rate", "0.01", "--epochs", "4")[0] == 0
    folder = runs.folder / stopped
    shutil.copytree(runs.folder / "other/checkpoints/4", folder / "checkpoints/50")
    code, said = runs.finish(stopped)
    assert code == 1
    assert "is a checkpoint of another run" in said
    assert "rates: [0.01] there, [0.003] now" in said
    shutil.rmtree(folder / "checkpoints/50")
    assert runs.finish(stopped)[0] == 0
    assert_bitwise(runs.results(stopped), runs.results("whole"))


def test_a_checkpoint_made_by_other_code_is_refused(tmp_path):
    entry = {"commit": "abc", "code": {"pcbook/runs/energy.py": "another"}, "parts": {}}
    checkpoints = Checkpoints(tmp_path, {"seeds": [0]})
    checkpoints.save(4, {"params": np.ones(3)}, [entry])
    with pytest.raises(ValueError, match=r"4 was made by other code \(pcbook/runs/energy.py chang"):
        checkpoints.latest(lambda epoch: {"params": np.zeros(3)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--rate", "0.01"], "rates: [0.003] there, [0.01] now"),
        (["--seeds", "3"], "seeds: [0, 1] there, [0, 1, 2] now"),
        (["--loss", "post"], "loss: 'pre' there, 'post' now"),
    ],
)
def test_a_changed_setting_is_refused(runs, change, message):
    before = snapshot(runs.folder / "whole")
    code, said = runs.finish("whole", *change)
    assert code == 1
    assert message in said
    assert snapshot(runs.folder / "whole") == before


def test_a_folder_of_something_else_is_refused(runs):
    (runs.folder / "photos").mkdir()
    (runs.folder / "photos/cat.png").write_bytes(b"cat")
    code, said = runs.finish("photos")
    assert code == 1
    assert "is not empty and holds no run" in said


def test_no_room_left_is_said_and_the_run_goes_on_when_there_is(runs, stopped):
    kept = epochs_kept(runs.folder / stopped)
    code, said = runs.finish(stopped, biggest_file=3_000)
    assert code == 1
    assert "could not write to" in said
    assert "The file size is limited (ulimit -f)" in said
    assert set(kept) & set(epochs_kept(runs.folder / stopped))
    assert runs.finish(stopped)[0] == 0
    assert_bitwise(runs.results(stopped), runs.results("whole"))


def test_a_run_that_stops_to_be_measured_goes_on_to_the_same_end(runs):
    code, said = runs.finish("paused", "--until", "20")
    assert code == 0, said
    note = json.loads((runs.folder / "paused/results_until_20.json").read_text(encoding="utf-8"))
    assert note["epochs_trained"] == 20
    assert not (runs.folder / "paused/results.json").exists()
    assert runs.finish("paused")[0] == 0
    assert_bitwise(runs.results("paused"), runs.results("whole"))
    note = json.loads((runs.folder / "paused/results.json").read_text(encoding="utf-8"))
    starts = [(entry["command"], list(entry["parts"])) for entry in note["record"]]
    assert [parts for _, parts in starts] == [["epochs 1 to 20"], ["epochs 21 to 60"]]
    assert ["--until" in command for command, _ in starts] == [True, False]


def test_a_finished_run_that_was_damaged_is_not_called_done(runs):
    shutil.copytree(runs.folder / "whole", runs.folder / "spoiled")
    content = (runs.folder / "spoiled/results.npz").read_bytes()
    (runs.folder / "spoiled/results.npz").write_bytes(content[: len(content) // 2])
    code, said = runs.finish("spoiled")
    assert code == 1
    assert "results.npz is damaged: restore both, or remove both and compute again" in said
    for name in ("results.npz", "results.json"):
        (runs.folder / "spoiled" / name).unlink()
    assert runs.finish("spoiled")[0] == 0
    assert_bitwise(runs.results("spoiled"), runs.results("whole"))


def test_a_finished_run_is_left_alone(runs):
    before = snapshot(runs.folder / "whole")
    code, said = runs.finish("whole")
    assert code == 0
    assert "is done" in said
    assert snapshot(runs.folder / "whole") == before


def test_results_say_what_made_them(runs):
    note = json.loads((runs.folder / "whole/results.json").read_text(encoding="utf-8"))
    assert note["settings"]["seeds"] == [0, 1]
    assert note["settings"]["epochs"] == 60
    (entry,) = note["record"]
    assert entry["command"].startswith("python -m pcbook run energy-efficiency")
    assert {"jax", "numpy", "python", "pcbook"} <= entry["versions"].keys()
    assert {"pcbook/runs/energy.py", "pcbook/store/data.py"} <= entry["code"].keys()
    assert list(entry["parts"]) == ["epochs 1 to 60"]
    rows = (runs.folder / "whole/metrics.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + 60 * 2
    assert rows[0].startswith("epoch,rate,seed,loss,a1,")
    found = runs.results("whole")
    assert found["weights"].shape == (2, 64, 64)
    assert found["curve"].shape == (60, 2, 4)


# --- devices and processes ---


@pytest.mark.parametrize(("name", "more"), [("eight", []), ("pair", ["--devices", "2"])])
def test_eight_devices_give_what_one_gives(runs, one_device, name, more):
    code, said = runs.finish(name, *more, settings=FIVE, cpu_devices=8)
    assert code == 0, said
    note = json.loads((runs.folder / name / "results.json").read_text(encoding="utf-8"))
    assert note["record"][0]["devices"] == (2 if more else 5)  # five seeds keep five devices busy
    assert_same_to_rounding(runs.results(name), one_device)


def test_more_devices_than_there_are_is_refused(runs):
    code, said = runs.finish("many", "--devices", "99")
    assert code == 1
    assert "--devices 99: must be 1 to" in said


# --- what is trained on, and how


def test_a_run_trains_as_the_chapter_does(one_device):
    """The same sequences in every epoch, the same seeds and the same step size."""
    size = SIZES["digits"]
    digits = size.load()
    setup = {"rate": size.rate, "epochs": 6, "seeds": range(5), "steps": 4}
    trained = train(digits.x_train, digits.y_train, **setup)
    np.testing.assert_allclose(one_device["weights"], trained.params, atol=1e-5)
    np.testing.assert_allclose(one_device["loss"], trained.loss, rtol=1e-5)
