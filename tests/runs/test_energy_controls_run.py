"""What the experiments on controls store, with training replaced by known numbers."""

import sys

import numpy as np
import pytest

from pcbook import results
from pcbook.__main__ import main
from pcbook.emergence.energy_controls import Conclusions, Stopping
from pcbook.runs import energy_controls


@pytest.fixture
def trained(monkeypatch):
    """Networks whose measures tell the rate, the field and the seed."""

    def conclusions(rate, *shape):
        return Conclusions(
            *(1000 * rate + 10 * i + np.zeros(shape) for i in range(len(Conclusions._fields)))
        )

    def watch(dataset, *, epochs, rate, seeds):
        moments, networks = np.arange(0, epochs, 5), len(seeds)
        shape = len(moments), networks
        return Stopping(
            moments, np.full(shape, rate), np.full(shape, -rate), conclusions(rate, *shape)
        )

    def vary(dataset, network, order, *, epochs, rate, seeds):
        return conclusions(len(order), len(seeds))

    monkeypatch.setattr(energy_controls, "watch", watch)
    monkeypatch.setattr(energy_controls, "vary", vary)


def command(out, *more):
    main(["energy-controls", "--out", str(out), "--seeds", "2", "--epochs", "20", *more])


def test_each_array_of_the_experiment_on_stopping_has_its_own_name(trained, tmp_path):
    command(tmp_path / "rate0.001", "--experiment", "stopping", "--rate", "0.001")
    run = results.read(tmp_path / "rate0.001")
    np.testing.assert_array_equal(run["epochs"], [0, 5, 10, 15])
    np.testing.assert_array_equal(run["redrawn"], np.full((1, 4, 2), np.float32(0.001)))
    np.testing.assert_array_equal(run["fixed"], -run["redrawn"])
    assert list(run["fields"]) == list(Conclusions._fields)
    np.testing.assert_allclose(run["conclusions"][0, :, 0, 0], 1 + 10 * np.arange(7), rtol=1e-6)


def test_each_row_of_the_experiment_on_variants_has_its_own_name(trained, tmp_path):
    command(tmp_path / "few", "--only", "recurrent", "recurrent, random")
    run = results.read(tmp_path / "few")
    assert list(run["names"]) == ["recurrent", "recurrent, random"]
    np.testing.assert_allclose(run["conclusions"][:, 0, 0], [1000 * len("ascending"), 6000])


def test_the_result_says_what_made_it(trained, tmp_path):
    command(tmp_path / "few", "--only", "bias")
    run = results.read(tmp_path / "few")
    assert run["settings"] == {
        "experiment": "variants",
        "data": "digits",
        "seeds": 2,
        "rate": None,
        "only": ["bias"],
        "epochs": 20,
    }
    (entry,) = run["record"]
    assert entry["command"].startswith("python -m pcbook energy-controls")
    assert "pcbook/runs/energy_controls.py" in entry["code"]


def test_results_whose_names_differ_after_a_dot_are_two(trained, tmp_path):
    command(tmp_path / "rate0.1", "--only", "bias", "--rate", "0.1")
    command(tmp_path / "rate0.3", "--only", "bias", "--rate", "0.3")
    assert len(list(tmp_path.glob("rate*.json"))) == 2
    assert len(list(tmp_path.glob("rate*.npz"))) == 2


def test_a_result_of_other_settings_is_not_overwritten(trained, tmp_path):
    command(tmp_path / "few", "--only", "bias", "--rate", "0.1")
    before = results.read(tmp_path / "few")["digest"]
    with pytest.raises(SystemExit, match=r"holds a result with rate = 0.1, not 0.3: choose"):
        command(tmp_path / "few", "--only", "bias", "--rate", "0.3")
    assert results.read(tmp_path / "few")["digest"] == before


def test_a_missing_folder_is_said_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(energy_controls, "vary", lambda *_, **__: sys.exit("computed"))
    with pytest.raises(SystemExit, match=r"the folder .*absent does not exist"):
        command(tmp_path / "absent/few")
