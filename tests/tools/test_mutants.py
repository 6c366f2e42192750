"""The list of defects: each can still be made, and every module has some."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import mutants  # noqa: E402

DEFECTS = mutants.read(mutants.DEFECTS.read_text(encoding="utf-8"))
MODULES = {
    f"{path.parent.name}/{path.stem}"
    for path in [*(ROOT / "pcbook").glob("*/[!_]*.py"), *(ROOT / "pcbook").glob("*/[!_]*/")]
    if path.parent.name not in ("exercises", "runs")
}
GROUP = "- module: core/rules\n  defects: [{name: a, right: b, wrong: c}]\n"


@pytest.mark.parametrize("defect", DEFECTS, ids=mutants.title)
def test_a_defect_has_one_place_is_code_and_names_its_tests(defect):
    file = mutants.place(defect)
    text = file.read_text(encoding="utf-8")
    wrong = text.replace(defect.right, defect.wrong)
    if file.suffix == ".py":
        assert ast.dump(ast.parse(wrong)) != ast.dump(ast.parse(text))
    assert all((ROOT / tests).is_file() for tests in defect.tests)


def test_every_module_has_defects_and_all_of_them_are_many():
    assert {"/".join(defect.module.split("/")[:2]) for defect in DEFECTS} >= MODULES
    assert "runs" in {defect.module for defect in DEFECTS}
    assert len(DEFECTS) >= 60


def test_a_defect_is_noticed_by_the_tests_of_its_chapter_unless_others_are_named():
    assert mutants.tests_of("foundations/graph/methods") == "tests/foundations/test_graph.py"
    (defect,) = mutants.read(GROUP)
    assert defect == mutants.Defect("a", "core/rules", "b", "c", ("tests/core/test_rules.py",))
    (other,) = mutants.read(GROUP + "  tests: [x.py, y.py]\n")
    assert other.tests == ("x.py", "y.py")


def test_two_defects_of_one_name_are_refused():
    with pytest.raises(ValueError, match="core/rules: a: must be the name of one defect"):
        mutants.read(GROUP + GROUP)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A module, and a package of two files, in an otherwise empty checkout."""
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    for name, text in {
        "core/rules.py": "one = 1\nsame = 3\nsame = 3\n",
        "core/graph/cut.py": "two = 2\n",
        "core/graph/walk.py": "three = 3\n",
    }.items():
        path = tmp_path / "pcbook" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "pcbook"


@pytest.mark.parametrize(
    ("module", "right", "file"),
    [
        ("core/rules", "one = 1", "core/rules.py"),
        ("core/graph", "two = 2", "core/graph/cut.py"),
        ("core/graph/walk", "three = 3", "core/graph/walk.py"),
    ],
)
def test_a_text_is_found_in_a_module_or_in_one_file_of_a_package(package, module, right, file):
    assert mutants.place(mutants.Defect("a", module, right, "", ())) == package / file


@pytest.mark.parametrize(("right", "times"), [("two", 0), ("same = 3", 2)])
def test_a_text_that_does_not_stand_exactly_once_is_refused(package, right, times):
    with pytest.raises(ValueError, match=f"core/rules: a: '{right}' stands {times} times: must"):
        mutants.place(mutants.Defect("a", "core/rules", right, "", ()))
