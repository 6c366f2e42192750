"""The plan of the house, held: what CONTRIBUTING says of the repository is so."""

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import nbformat
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from pcbook import claims

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
REPOSITORY = PYPROJECT["project"]["urls"]["Repository"]

SHARED = ("core", "store", "show")  # what serves every chapter
PAGES = sorted(path for path in (ROOT / "book").rglob("*.ipynb") if "_build" not in path.parts)
CHAPTERS = {
    f"{path.parent.name}/{path.stem}": path for path in PAGES if path.parent != ROOT / "book"
}
MODULES = {
    f"{path.parent.name}/{path.stem}"
    for path in [*(ROOT / "pcbook").glob("*/[!_]*.py"), *(ROOT / "pcbook").glob("*/[!_]*/")]
    if path.parent.name not in ("exercises", "runs")
}

# Tags of MyST-NB: what they fold, tools/notebooks.py folds for other readers too.
FOLDED_CODE = {"hide-input", "hide-cell", "remove-cell", "remove-input"}
FOLDED_OUTPUTS = {"hide-cell", "remove-cell"}

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
each_chapter = pytest.mark.parametrize("chapter", sorted(CHAPTERS))


def run(*command):
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )


def cells(page, kind="code"):
    return [c for c in nbformat.read(page, as_version=4).cells if c.cell_type == kind]


# --- rooms and floors ---


def test_every_chapter_has_a_module_of_its_path_and_the_other_way_round():
    assert {name for name in MODULES if not name.startswith(SHARED)} == set(CHAPTERS)


def test_every_chapter_stands_in_the_table_of_contents():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = {entry["file"] for part in toc["parts"] for entry in part["chapters"]}
    assert {str(p.relative_to(ROOT).with_suffix("")) for p in CHAPTERS.values()} <= files
    assert all(list(ROOT.glob(f"{file}.*")) for file in {toc["root"], *files})


@each_chapter
def test_a_modules_docstring_leads_to_its_chapter(chapter):
    module = ROOT / f"pcbook/{chapter}"
    file = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    assert f"Chapter: {CHAPTERS[chapter].relative_to(ROOT)}" in docstring


@each_chapter
def test_a_chapter_has_its_exercises_in_a_file_of_its_path(chapter):
    assert (ROOT / f"pcbook/exercises/{chapter}.py").exists()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_module_has_its_tests_in_a_file_of_its_path(module):
    folder, name = module.split("/")
    assert (ROOT / f"tests/{folder}/test_{name}.py").exists()


def test_the_ground_floor_imports_no_chapter_and_no_floor_a_higher_one():
    linted = run("-c", "from importlinter.cli import lint_imports_command as f; f()")
    assert linted.returncode == 0, linted.stdout


def test_importing_pcbook_imports_nothing_heavy():
    heavy = {"jax", "numpy", "matplotlib", "sklearn", "ipywidgets", "optax", "IPython"}
    code = "import sys, pcbook; print(*{name.partition('.')[0] for name in sys.modules})"
    imported = run("-c", code)
    assert imported.returncode == 0, imported.stderr
    assert not heavy & set(imported.stdout.split())


# --- claims ---


@pytest.fixture(scope="module")
def criteria():
    """The criteria that the chapters' modules register."""
    for chapter in CHAPTERS:
        importlib.import_module(f"pcbook.{chapter.replace('/', '.')}")
    return claims.criteria()


def test_every_claim_that_is_not_under_review_has_a_criterion(criteria):
    assert {id for id, claim in claims.ledger().items() if not claim.review} <= set(criteria)


def test_every_criterion_belongs_to_a_claim_of_its_module(criteria):
    for id, function in criteria.items():
        part = function.__module__.removeprefix("pcbook.").split(".")
        assert claims.ledger()[id].chapter == part[1]


def test_every_claim_names_a_source_of_the_bibliography():
    keys = set(
        re.findall(r"@\w+\{([^,]+),", (ROOT / "book/references.bib").read_text(encoding="utf-8"))
    )
    assert {claim.source.partition(",")[0] for claim in claims.ledger().values()} <= keys | {"ours"}


@each_chapter
def test_the_cards_of_claims_with_a_criterion_are_compared(chapter):
    for cell in cells(CHAPTERS[chapter]):
        if "claims.check(" in cell.source:
            assert "nbval-ignore-output" not in cell.metadata.get("tags", ())


# --- code and notebooks ---


def test_code_and_notebooks_are_tidy():
    for command in (["check"], ["format", "--check"]):
        tidy = run("-m", "ruff", *command, ".")
        assert tidy.returncode == 0, tidy.stdout


def opens_text(call):
    """Whether a call reads or writes a file as text."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name != "open":
        return name in ("read_text", "write_text")
    mode = [*call.args[isinstance(call.func, ast.Name) :], None][0]
    if isinstance(mode, ast.Constant):
        return bool(re.fullmatch(r"[rwax]\+?", str(mode.value)))
    return mode is None and not call.keywords


def test_text_is_read_and_written_as_utf_8_whatever_the_locale():
    for folder in ("pcbook", "tests", "tools", "benchmarks", "experiments", "book/_ext"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and opens_text(node):
                    named = {keyword.arg for keyword in node.keywords}
                    assert named & {"encoding", None}, f"{file}:{node.lineno}"


@each_page
def test_a_committed_notebook_was_run_from_top_to_bottom(page):
    code = [cell for cell in cells(page) if cell.source.strip()]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


@each_page
def test_a_committed_notebook_holds_no_pictures_and_no_widget_state(page):
    text = page.read_text(encoding="utf-8")
    assert "widgets" not in json.loads(text)["metadata"]
    assert not re.search(r"image/(png|jpeg|svg|webp)|data:image|widget-state", text)
    assert len(text) < 150_000


def test_the_chapters_begin_with_one_and_the_same_cell():
    first = {json.dumps([cells(page)[0].source, cells(page)[0].metadata]) for page in PAGES}
    assert len(first) == 1
    (source, metadata) = json.loads(first.pop())
    assert f"git+{REPOSITORY}" in source
    assert metadata["tags"] == ["remove-cell"]


def test_the_first_cell_says_in_one_sentence_what_is_missing(monkeypatch):
    source = TransformerManager().transform_cell(cells(PAGES[0])[0].source)
    exec(compile(source, "first cell", "exec"), {})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"^This chapter needs pcbook: run `pip install"):
        exec(compile(source, "first cell", "exec"), {})


@each_page
def test_no_cell_that_a_reader_sees_installs_anything(page):
    for cell in cells(page):
        if "remove-cell" not in cell.metadata.get("tags", ()):
            assert not re.search(r"pip install|^\s*[!%]", cell.source, re.MULTILINE), cell.source


def figures(page):
    """The outputs that are figures, as they are committed."""
    outputs = [output.get("data", {}) for cell in cells(page) for output in cell.outputs]
    return [data for data in outputs if "pcbook-explore" in data.get("text/html", "")]


@each_page
def test_a_figure_that_was_not_run_says_so_and_keeps_its_caption_and_its_alt_text(page):
    for data in figures(page):
        assert "Run this cell to draw the figure." in data["text/html"]
        assert re.search(r"<figcaption>[^<]{40,}</figcaption>", data["text/html"])
        assert "<img" not in data["text/html"]
        first, alt = data["text/plain"].rsplit("\n", 1)
        assert first.startswith("Figure") and len(alt) > 20


@each_page
def test_a_visible_cell_has_at_most_twelve_lines(page):
    for cell in cells(page):
        if not FOLDED_CODE & set(cell.metadata.get("tags", ())):
            assert len(cell.source.splitlines()) <= 12, cell.source


@each_page
def test_what_a_page_folds_is_folded_in_jupyterlab_and_in_colab(page):
    for cell in cells(page):
        tags = set(cell.metadata.get("tags", ()))
        folded = cell.metadata.get("jupyter", {})
        assert folded.get("source_hidden", False) == bool(tags & FOLDED_CODE)
        assert folded.get("outputs_hidden", False) == bool(tags & FOLDED_OUTPUTS)
        assert (cell.metadata.get("cellView") == "form") == bool(tags & FOLDED_CODE)
        assert tags & FOLDED_OUTPUTS or "solution" not in tags


@each_chapter
def test_a_chapter_has_three_interactive_figures_and_four_exercises(chapter):
    code = cells(CHAPTERS[chapter])
    interactive = [
        d for d in figures(CHAPTERS[chapter]) if d["text/plain"].startswith("Figure with")
    ]
    assert len(interactive) >= 3
    assert sum("exercise" in cell.metadata.get("tags", ()) for cell in code) >= 4


# --- versions and addresses ---


def pins(file):
    """The version that a file of requirements pins of each package."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.lstrip().startswith("#")]
    assert all(re.fullmatch(r"==[^*]+", str(pin.specifier)) for pin in found)
    return {pin.name: str(pin.specifier).removeprefix("==") for pin in found}


@pytest.mark.parametrize(
    ("file", "extras"),
    [("requirements.txt", ("book", "test", "runs")), ("binder/requirements.txt", ("book",))],
)
def test_requirements_pin_what_pyproject_asks_for(file, extras):
    pinned = pins(file)
    wanted = [*PYPROJECT["project"]["dependencies"]]
    for extra in extras:
        wanted += PYPROJECT["project"]["optional-dependencies"][extra]
    for need in (Requirement(line) for line in wanted if not line.startswith("pcbook")):
        assert need.specifier.contains(pinned[need.name]), need


def test_binder_has_the_versions_of_the_tests_and_none_of_the_tests_packages():
    binders, ours = pins("binder/requirements.txt"), pins("requirements.txt")
    assert binders.items() <= ours.items()
    assert not {"pytest", "flax", "selenium", "orbax-checkpoint"} & set(binders)


def test_no_pinned_file_names_an_address_to_fetch_from():
    assert not re.search(
        r"https?:|index-url", (ROOT / "requirements.txt").read_text(encoding="utf-8")
    )
    lock = json.loads((ROOT / "package-lock.json").read_text(encoding="utf-8"))
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]


def test_binders_python_is_one_that_we_support():
    version = (
        (ROOT / "binder/runtime.txt").read_text(encoding="utf-8").strip().removeprefix("python-")
    )
    assert SpecifierSet(PYPROJECT["project"]["requires-python"]).contains(version)


def test_the_repositorys_address_is_the_same_everywhere():
    slug = REPOSITORY.removeprefix("https://github.com/")
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert config["repository"]["url"] == citation["repository-code"] == REPOSITORY
    assert f"mybinder.org/v2/gh/{slug}/" in readme
    assert f"colab.research.google.com/github/{slug}/" in readme
    for file in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]:
        named = set(re.findall(r"github\.com/([\w.-]+/pcbook)\b", file.read_text(encoding="utf-8")))
        assert named <= {slug}, file


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    version = re.search(
        '__version__ = "(.*)"', (ROOT / "pcbook/__init__.py").read_text(encoding="utf-8")
    )[1]
    assert citation["version"] == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_wheel_carries_the_claims_the_inks_and_the_results(tmp_path):
    built = run("-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path))
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {
        "pcbook/claims.yml",
        "pcbook/py.typed",
        "pcbook/show/inks.mplstyle",
        "pcbook/results/hundred_layers.json",
    } <= set(names)
    assert not [name for name in names if not name.startswith(("pcbook/", "pcbook-"))]


def test_help_tells_of_every_command():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = re.search(r"\.PHONY: (.*)", makefile)[1].split()
    told = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split()[0] for line in told.stdout.splitlines()] == commands
