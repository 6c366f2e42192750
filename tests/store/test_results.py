import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pcbook import results
from pcbook.runs import parts

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "experiments")]
import stale  # noqa: E402

NAMES = sorted(path.stem for path in results.RESULTS.glob("*.json"))
each_result = pytest.mark.parametrize("name", NAMES)
SETTINGS = {"seeds": 5, "rates": (0.1, 0.3)}
OLD = {
    "command": "python old.py",
    "date": "2020-01-01",
    "commit": "abc",
    "versions": {"jax": "0.1"},
}


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A program and a module of an otherwise empty checkout, and its folder of results."""
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()
    (tmp_path / "experiments").mkdir()
    (tmp_path / "module.py").write_text('"""Docs."""\nRATE = 0.1  # a comment\n', encoding="utf-8")
    path = tmp_path / "experiments/drift.py"
    path.write_text("import module\n", encoding="utf-8")
    return path


def code_of(program):
    """The record of the code of the program alone: the real pcbook is not in its checkout."""
    files = (program, program.parents[1] / "module.py")
    return {
        path.relative_to(results.ROOT).as_posix(): results.code_digest(
            path.read_text(encoding="utf-8"), path.name
        )
        for path in files
    }


def begin(program, settings=SETTINGS, **made):
    entry = OLD | {"code": code_of(program)} | made
    return results.Parts(results.RESULTS / program.stem, settings, entry)


ONE, TWO = ("error", "online", "backprop"), ("error", "drift", "backprop")


# --- what is stored in the book ---


@each_result
def test_a_stored_result_is_whole_and_every_part_says_what_made_it(name):
    run = results.stored(name)
    assert run["settings"]
    for entry in run["record"]:
        assert {"command", "date", "commit", "versions", "code", "parts"} <= set(entry)
        assert name.partition("_")[0] in entry["command"].replace("-", "_")
        assert entry["parts"]
        assert entry["code"] or "neither commit nor code" in entry["note"]


@each_result
def test_the_parts_of_a_record_are_the_numbers_of_the_file(name):
    run = results.stored(name)
    named = [part for entry in run["record"] for part in entry["parts"]]
    assert len(named) == len(set(named))
    if name.startswith("energy"):
        return  # one part, named by its epochs or its experiment
    for part in named:
        numbers = run
        for key in part.split("/"):
            numbers = numbers[key]
    tops = {key for key in run if key not in results.OWN_KEYS}
    assert {part.partition("/")[0] for part in named} == tops


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.py")), ids=lambda p: p.stem)
def test_an_experiment_has_the_settings_and_the_parts_of_its_result(path):
    experiment = __import__(path.stem)
    run = results.stored(path.stem, **experiment.SETTINGS)
    assert set(run["settings"]) == set(experiment.SETTINGS)
    stored = {part for entry in run["record"] for part in entry["parts"]}
    assert stored == {"/".join(part) for part in experiment.parts()}
    command = f"python experiments/{path.name}"
    assert command in experiment.__doc__


def test_a_result_that_was_not_stored_is_named_with_those_that_were():
    with pytest.raises(ValueError, match=r"name = 'hundred': must be one of .*hundred_layers"):
        results.stored("hundred")


# --- settings ---


def test_reading_under_the_settings_of_the_result_gives_all_of_it():
    run = results.stored("inference_learning", seeds=5, sizes=(64, 32, 32, 10))
    assert run["error"]["online"]["backprop"]["0.1"]["test"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": 10}, "seeds = 5, not 10"),
        ({"seeds": 5, "sizes": [64, 10]}, r"sizes = \[64, 32, 32, 10\], not \[64, 10\]"),
        ({"epochs": 3}, "epochs = 3: inference_learning has only the settings seeds, grid"),
    ],
)
def test_reading_under_other_settings_is_refused(settings, message):
    with pytest.raises(ValueError, match=message) as refusal:
        results.stored("inference_learning", **settings)
    assert "\n" not in str(refusal.value)


# --- damage ---


@pytest.fixture
def written(tmp_path):
    """A result with two arrays of the same shape."""
    first, second = np.arange(6.0).reshape(2, 3), np.ones((2, 3))
    numbers = {"accuracy": [[0.1, 0.2], [0.3, float("nan")]], "names": ["a  b", "[c]"]}
    path = tmp_path / "run0.001"
    results.write(
        path, SETTINGS, [OLD | {"parts": {"all": 3}}], numbers, first=first, second=second
    )
    return path


def beside(path, suffix):
    return path.with_name(path.name + suffix)


def assert_damaged(path):
    with pytest.raises(ValueError, match=r"is damaged: restore both, or remove both") as refusal:
        results.read(path)
    assert "\n" not in str(refusal.value)


def test_what_was_written_is_read_under_its_whole_name(written):
    assert beside(written, ".json").exists()
    run = results.read(written)
    assert run["settings"] == {"seeds": 5, "rates": [0.1, 0.3]}
    assert run["names"] == ["a  b", "[c]"]
    np.testing.assert_array_equal(run["accuracy"], [[0.1, 0.2], [0.3, np.nan]])
    np.testing.assert_array_equal(run["first"], np.arange(6.0).reshape(2, 3))


def test_two_swapped_arrays_are_noticed(written):
    run = results.read(written)
    np.savez_compressed(beside(written, ".npz"), first=run["second"], second=run["first"])
    assert_damaged(written)


@pytest.mark.parametrize("change", ["shape", "dtype", "value", "missing"])
def test_a_changed_array_is_noticed(written, change):
    run = results.read(written)
    first = {
        "shape": run["first"].T,
        "dtype": run["first"].astype("float32"),
        "value": run["first"] + 1e-9,
        "missing": None,
    }[change]
    arrays = {"second": run["second"]} | ({} if first is None else {"first": first})
    np.savez_compressed(beside(written, ".npz"), **arrays)
    assert_damaged(written)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("0.3, NaN", "0.4, NaN"),
        ('"seeds": 5', '"seeds": 10'),
        ('"date": "2020-01-01"', '"date": "2026-01-01"'),
        ('"digest"', '"digits"'),
        ("{", ""),
    ],
)
def test_a_changed_number_setting_or_date_is_noticed(written, before, after):
    file = beside(written, ".json")
    text = file.read_text(encoding="utf-8")
    assert before in text
    file.write_text(text.replace(before, after, 1), encoding="utf-8")
    assert_damaged(written)


@pytest.mark.parametrize("suffix", [".json", ".npz"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_file_cut_short_is_noticed(written, suffix, keep):
    content = beside(written, suffix).read_bytes()
    beside(written, suffix).write_bytes(content[: int(keep * len(content))])
    assert_damaged(written)


def test_every_flipped_byte_of_the_numbers_is_noticed(written):
    content = beside(written, ".npz").read_bytes()
    for place in range(60, len(content), 97):
        spoiled = bytearray(content)
        spoiled[place] ^= 0xFF
        beside(written, ".npz").write_bytes(bytes(spoiled))
        try:
            run = results.read(written)
        except ValueError:
            continue
        # What can be flipped unnoticed is what zip files keep beside their contents.
        np.testing.assert_array_equal(run["first"], np.arange(6.0).reshape(2, 3))


def test_one_name_for_two_things_is_refused(tmp_path):
    with pytest.raises(ValueError, match="names = record: each must stand for one thing"):
        results.write(tmp_path / "x", SETTINGS, [], {"record": 1})
    with pytest.raises(ValueError, match="names = a: each must stand for one thing"):
        results.write(tmp_path / "x", SETTINGS, [], {"a": 1}, a=np.ones(2))


def test_a_write_that_fails_leaves_what_was_there(written, monkeypatch):
    before = results.read(written)

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(results.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        results.write(written, SETTINGS, [], {"accuracy": 1}, first=np.zeros(1))
    assert results.read(written)["digest"] == before["digest"]
    assert not list(written.parent.glob("*.part"))


# --- resuming ---


def test_a_resumed_result_computes_only_what_is_missing(program):
    parts = begin(program)
    assert parts.resume([ONE, TWO], [ONE, TWO]) == [ONE, TWO]
    parts.add(ONE, [1, 2], 3.4)
    assert begin(program).resume([ONE, TWO], [ONE, TWO]) == [TWO]
    assert begin(program).resume([ONE, TWO], [ONE]) == []


def test_each_part_keeps_the_record_of_the_start_that_computed_it(program, monkeypatch):
    monkeypatch.setattr(results, "today", lambda: "2020-01-01")
    first = begin(program)
    first.add(ONE, [1, 2], 3.4)
    monkeypatch.setattr(results, "today", lambda: "2026-06-06")
    later = begin(program, versions={"jax": "0.9"}, command="python new.py", commit="def")
    assert later.resume([ONE, TWO], [ONE, TWO]) == [TWO]
    later.add(TWO, [3], 60.0)
    old, new = results.stored("drift")["record"]
    assert old["parts"] == {"error/online/backprop": 3}
    assert (old["date"], old["versions"], old["commit"]) == ("2020-01-01", {"jax": "0.1"}, "abc")
    assert new["parts"] == {"error/drift/backprop": 60}
    assert (new["date"], new["versions"], new["commit"]) == ("2026-06-06", {"jax": "0.9"}, "def")
    assert new["command"] == "python new.py"
    assert results.dates(results.stored("drift")) == "2020-01-01 to 2026-06-06"
    assert results.stored("drift")["error"] == {
        "online": {"backprop": [1, 2]},
        "drift": {"backprop": [3]},
    }


def test_parts_of_one_start_share_an_entry_and_a_part_after_midnight_has_its_own_date(
    program, monkeypatch
):
    monkeypatch.setattr(results, "today", lambda: "2026-06-06")
    parts = begin(program)
    parts.add(ONE, 1, 0.0)
    parts.add(TWO, 2, 0.0)
    assert len(parts.record) == 1
    monkeypatch.setattr(results, "today", lambda: "2026-06-07")
    parts.add(("error", "few", "backprop"), 3, 0.0)
    assert [entry["date"] for entry in parts.record] == ["2026-06-06", "2026-06-07"]


def test_resuming_under_other_settings_is_refused(program):
    begin(program).add(ONE, 1, 0.0)
    before = results.read(results.RESULTS / "drift")
    other = begin(program, SETTINGS | {"seeds": 10})
    for only in ([ONE, TWO], [TWO]):
        with pytest.raises(ValueError, match=r"made with seeds = 5, not 10: .* \(--again\)"):
            other.resume([ONE, TWO], only)
    with pytest.raises(ValueError, match="seeds = 5, not 10"):
        other.resume([ONE, TWO], [TWO], again=True)  # part one would stand under other settings
    assert results.read(results.RESULTS / "drift") == before


def test_all_parts_computed_again_may_have_other_settings(program):
    begin(program).add(ONE, 1, 0.0)
    other = begin(program, SETTINGS | {"seeds": 10})
    assert other.resume([ONE, TWO], [ONE, TWO], again=True) == [ONE, TWO]
    other.add(TWO, 2, 0.0)
    run = results.stored("drift", seeds=10)
    assert run["error"] == {"drift": {"backprop": 2}}


def test_resuming_with_other_code_is_refused_and_the_file_is_named(program):
    begin(program).add(ONE, 1, 0.0)
    (results.ROOT / "module.py").write_text("RATE = 0.2\n", encoding="utf-8")
    with pytest.raises(
        ValueError,
        match=r"'error/online/backprop' of drift was made by other code \(module.py changed since\)"
        ": compute it again, or return to the code of commit abc",
    ):
        begin(program).resume([ONE, TWO], [ONE, TWO])


def test_a_part_computed_again_has_the_code_of_today_and_the_others_keep_theirs(program):
    parts = begin(program)
    parts.add(ONE, 1, 0.0)
    parts.add(TWO, 2, 0.0)
    old = code_of(program)
    (results.ROOT / "module.py").write_text("RATE = 0.2\n", encoding="utf-8")
    again = begin(program)
    assert again.resume([ONE, TWO], [ONE], again=True) == [ONE]
    again.add(ONE, 10, 0.0)
    codes = {p: e["code"] for e in results.stored("drift")["record"] for p in e["parts"]}
    assert codes == {"error/online/backprop": code_of(program), "error/drift/backprop": old}
    assert old != code_of(program)


def test_a_part_by_code_that_is_not_recorded_is_not_resumed(program):
    begin(program, code=None).add(ONE, 1, 0.0)
    with pytest.raises(ValueError, match="made by code that is not recorded: compute it again"):
        begin(program).resume([ONE], [ONE])


# --- what made a result ---


@pytest.mark.parametrize(
    "same",
    [
        '"""Other docs."""\nRATE = 0.1\n',
        "# Another comment\n\n\nRATE = (\n    0.1\n)\n",
    ],
)
def test_comments_docstrings_and_layout_are_not_code(same):
    text = '"""Docs."""\nRATE = 0.1  # a comment\n'
    assert results.code_digest(text, "a.py") == results.code_digest(same, "a.py")
    assert results.code_digest(text, "a.txt") != results.code_digest(same, "a.txt")


@pytest.mark.parametrize(
    "other", ["RATE = 0.2\n", "RATE = 0.1\nSEED = 0\n", 'RATE = "0.1"\n', "rate = 0.1\n"]
)
def test_a_changed_number_name_or_line_is_code(other):
    assert results.code_digest("RATE = 0.1\n", "a.py") != results.code_digest(other, "a.py")


def test_the_code_of_a_result_is_the_program_and_the_modules_that_it_loads():
    show = (
        "import json\nfrom pcbook import data, results\n"
        "print(json.dumps(results.code('experiments/mortal_computer.py')))"
    )
    said = subprocess.run(
        [sys.executable, "-c", show], cwd=ROOT, capture_output=True, text=True, check=True
    )
    code = json.loads(said.stdout)
    assert {"experiments/mortal_computer.py", "pcbook/store/data.py"} <= set(code)
    assert not {"pcbook/store/results.py", "pcbook/__init__.py"} & set(code)
    assert not [name for name in code if "mortal/" in name]
    assert results.changed(code) == []


def test_a_record_says_command_date_versions_and_commit():
    made = results.made("python x.py", {"a.py": "0"})
    assert made["command"] == "python x.py"
    assert made["date"] == results.today()
    libraries = {"pcbook", "python", "jax", "jaxlib", "numpy", "optax", "scikit-learn"}
    assert libraries <= set(made["versions"])
    assert made["versions"]["numpy"] == np.__version__


def test_the_commit_is_that_of_the_checkout_dirty_if_its_code_is_changed(tmp_path):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", tmp_path, *who, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert results.commit(tmp_path) is None
    git("init")
    assert results.commit(tmp_path) is None  # no commit yet
    (tmp_path / "pcbook").mkdir()
    (tmp_path / "pcbook/rules.py").write_text("RATE = 1\n", encoding="utf-8")
    git("add", ".")
    git("commit", "-m", "Begin")
    head = git("rev-parse", "HEAD")
    assert results.commit(tmp_path) == head
    (tmp_path / "results.json").write_text("{}", encoding="utf-8")
    assert results.commit(tmp_path) == head  # results are no code
    (tmp_path / "pcbook/rules.py").write_text("RATE = 2\n", encoding="utf-8")
    assert results.commit(tmp_path) == f"{head}-dirty"
    assert results.commit(tmp_path / "pcbook") is None


# --- the command line of the experiments ---


def run_program(program, monkeypatch, *arguments, settings=SETTINGS, value=1):
    monkeypatch.setattr(sys, "argv", [str(program), *arguments])
    monkeypatch.setattr(results, "code", lambda *files: code_of(program))
    found = {ONE: lambda: [value], TWO: lambda: [value + 1]}
    reported = []
    parts.run(str(program), "Docs.", settings, lambda: found, reported.append)
    return reported


def test_a_program_stores_its_parts_with_its_command(program, monkeypatch):
    (numbers,) = run_program(program, monkeypatch, "--only", "online")
    assert numbers == {"error": {"online": {"backprop": [1]}}}
    (numbers,) = run_program(program, monkeypatch, value=5)
    assert numbers == {"error": {"online": {"backprop": [1]}, "drift": {"backprop": [6]}}}
    run = results.stored("drift", seeds=5, rates=(0.1, 0.3))
    commands = {e["command"]: list(e["parts"]) for e in run["record"]}
    assert commands == {
        "python experiments/drift.py --only online": ["error/online/backprop"],
        "python experiments/drift.py": ["error/drift/backprop"],
    }


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ([], SETTINGS | {"seeds": 1}, "error: drift was made with seeds = 5, not 1"),
        (["--only", "spikes"], SETTINGS, "error: --only 'spikes': must be among backprop, drift"),
    ],
)
def test_a_program_that_is_refused_ends_with_a_sentence(
    program, monkeypatch, arguments, settings, message, capsys
):
    run_program(program, monkeypatch)
    with pytest.raises(SystemExit, match="1"):
        run_program(program, monkeypatch, *arguments, settings=settings)
    assert message in capsys.readouterr().err


def test_again_computes_stored_parts_again(program, monkeypatch):
    run_program(program, monkeypatch)
    (numbers,) = run_program(program, monkeypatch, "--again", "--only", "drift", value=7)
    assert numbers["error"] == {"online": {"backprop": [1]}, "drift": {"backprop": [8]}}


# --- make stale ---


def test_stale_lists_what_changed_and_how_to_compute_it_again(program, capsys):
    parts = begin(program)
    parts.add(ONE, 1, 0.0)
    stale.main()
    assert capsys.readouterr().out == "drift\n  abc: as made\n"
    (results.ROOT / "module.py").write_text('"""Other docs."""\nRATE = 0.1\n', encoding="utf-8")
    stale.main()
    assert "as made" in capsys.readouterr().out
    (results.ROOT / "module.py").write_text("RATE = 0.2\n", encoding="utf-8")
    stale.main()
    assert capsys.readouterr().out == (
        "drift\n  abc: changed: module.py\n  > python experiments/drift.py --again\n"
    )
    (results.ROOT / "module.py").unlink()
    assert stale.report("drift")[1] == "  abc: changed: module.py"


def test_stale_lists_each_part_by_what_made_it(program):
    begin(program, code=None, commit=None).add(ONE, 1, 0.0)
    begin(program).add(TWO, 2, 0.0)
    assert stale.report("drift") == [
        "drift",
        "  no commit, 1 of 2 parts: not recorded",
        "  abc, 1 of 2 parts: as made",
        "  > python experiments/drift.py --again",
    ]


def test_a_result_of_the_command_line_is_computed_again_by_its_command(program):
    entry = OLD | {"code": None, "parts": {"epochs 1 to 3": 1}}
    results.write(results.RESULTS / "energy", SETTINGS, [entry], {})
    assert stale.report("energy")[-1] == "  > python old.py"
