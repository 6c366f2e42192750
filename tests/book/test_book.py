"""The built book: its pages, its ledger, and what makes a chapter run again."""

import ast
import html
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import book  # noqa: E402

TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
DOCUMENTS = [TOC["root"], *(c["file"] for part in TOC["parts"] for c in part["chapters"])]
CLAIMS = yaml.safe_load((ROOT / "book/claims.yml").read_text(encoding="utf-8"))

each_document = pytest.mark.parametrize("document", DOCUMENTS)


class Tags(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self, page: Path):
        super().__init__()
        self.found = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


# --- pages ---


@each_document
def test_a_page_names_no_script_style_or_image_of_a_third_party(pages, document):
    loading = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}
    for tag, attributes in Tags(pages / f"{document}.html").found:
        address = attributes.get(loading.get(tag), "") or ""
        assert not re.match("(https?:)?//", address), (tag, address)


@each_document
def test_every_image_of_a_page_says_what_it_shows(pages, document):
    for tag, attributes in Tags(pages / f"{document}.html").found:
        assert tag != "img" or attributes.get("alt"), attributes


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if (ROOT / f"{d}.ipynb").exists()])
def test_a_chapter_opens_in_binder_and_in_colab(pages, document):
    slug = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"][
        "url"
    ].split(".com/")[1]
    links = {attributes.get("href") for tag, attributes in Tags(pages / f"{document}.html").found}
    path = f"{document}.ipynb"
    assert f"https://mybinder.org/v2/gh/{slug}/main?urlpath=lab/tree/{path}" in links
    assert f"https://colab.research.google.com/github/{slug}/blob/main/{path}" in links


@each_document
def test_computed_words_stand_in_the_prose_as_they_were_computed(pages, document):
    page = (pages / f"{document}.html").read_text(encoding="utf-8")
    shown = {html.unescape(text) for text in re.findall(r'class="pasted-text">([^<]*)<', page)}
    kept = ROOT / f"_build/jupyter_execute/{document}.glue.json"
    data = (
        [entry["data"] for entry in json.loads(kept.read_text(encoding="utf-8")).values()]
        if shown
        else []
    )
    assert shown <= {ast.literal_eval(d["text/plain"]) for d in data if len(d) == 1}


# --- the ledger ---


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim["id"])
def test_a_claim_is_checked_in_its_chapter_and_stands_in_the_ledger(pages, claim):
    (chapter,) = [d for d in DOCUMENTS if d.endswith(f"/{claim['chapter']}")]
    said = json.loads(
        (ROOT / f"_build/jupyter_execute/{chapter}.glue.json").read_text(encoding="utf-8")
    )
    result = said[f"claim:{claim['id']}"]["data"]["application/vnd.pcbook.claim+json"]
    ledger = re.sub(r"<[^>]*>|\s+", " ", (pages / "book/ledger.html").read_text(encoding="utf-8"))
    for text in (result["measured"], result["verdict"]):
        assert words(text) in words(ledger)


def test_the_ledger_follows_the_book():
    chapters = [document.split("/")[-1] for document in DOCUMENTS]
    places = [chapters.index(claim["chapter"]) for claim in CLAIMS]
    assert places == sorted(places)


def words(text: str) -> str:
    """The letters and figures of a text, whatever the typography around them."""
    return " ".join(re.sub(r"&\w+;|[\W_]", " ", text).split())


# --- running again ---


@pytest.fixture
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def chapter(at_root):
    """A chapter that draws, and so stands on `explore` and on nothing else."""
    code = "from pcbook.show.explore import explore"
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])


def test_a_chapter_depends_on_what_it_imports_and_on_what_that_imports(at_root):
    def reached(code):
        return book.closure(book.imported(code))

    assert "pcbook.show.explore" in reached("from pcbook import explore")
    assert "pcbook.core.network" in reached("from pcbook.core.rules import fit")
    assert "pcbook.core.rules" not in reached("from pcbook.show.explore import explore")
    assert book.imported("import pcbook") == book.graph().modules
    named = book.imported("%matplotlib inline\nimport pcbook.store.data as d")
    assert named == {"pcbook.store.data"}


@pytest.mark.parametrize(
    ("file", "again"),
    [
        ("pcbook/show/explore.py", True),
        ("pcbook/__init__.py", True),
        ("pcbook/show/inks.mplstyle", True),
        ("requirements.txt", True),
        ("tools/settings.py", True),
        ("pcbook/core/rules.py", False),
        ("book/claims.yml", False),
        ("README.md", False),
    ],
)
def test_a_chapter_runs_again_when_a_file_it_depends_on_changes(chapter, monkeypatch, file, again):
    before = book.key(Path("book/scratch.ipynb"), chapter)
    changed = (ROOT / file).resolve()
    read_text, read_bytes = Path.read_text, Path.read_bytes

    def text(path, *args, **keywords):
        return read_text(path, *args, **keywords) + "\n" * (path.resolve() == changed)

    def octets(path):
        return read_bytes(path) + b"\n" * (path.resolve() == changed)

    monkeypatch.setattr(Path, "read_text", text)
    monkeypatch.setattr(Path, "read_bytes", octets)
    assert (book.key(Path("book/scratch.ipynb"), chapter) != before) == again


@pytest.mark.parametrize("code", ['run = results.stored(f"{a}_{b}")', "1 + 1"])
def test_a_chapter_runs_again_when_a_result_changes_if_it_reads_results(at_root, monkeypatch, code):
    cells = [nbformat.v4.new_code_cell(f"from pcbook.show.explore import explore\n{code}")]
    reading = nbformat.v4.new_notebook(cells=cells)
    before = book.key(Path("book/scratch.ipynb"), reading)
    monkeypatch.setattr(book, "stored_results", lambda: [Path("README.md")])
    assert (book.key(Path("book/scratch.ipynb"), reading) != before) == ("stored" in code)


def test_a_chapter_runs_again_when_its_module_reads_results(at_root):
    files = [path.read_text(encoding="utf-8") for path in Path("pcbook/show").glob("*.py")]
    assert not book.reads_results(files)
    assert book.reads_results([*files, "def found(name): return store.stored(name)"])


def test_a_chapter_runs_again_when_a_claim_of_its_own_changes(chapter, monkeypatch):
    own = Path(f"book/foundations/{CLAIMS[0]['chapter']}.ipynb")
    other = Path("book/foundations/of_another_name.ipynb")
    before = [book.key(own, chapter), book.key(other, chapter)]
    monkeypatch.setattr(book.yaml, "safe_load", lambda text: [CLAIMS[0] | {"criterion": "other"}])
    assert book.key(own, chapter) != before[0]
    assert book.key(other, chapter) == before[1]


def test_a_cell_that_fails_fails_the_build_with_its_traceback(tmp_path, monkeypatch, capsys):
    failing = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(book, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(book, "KEYS", tmp_path / "cache/keys.json")
    path = tmp_path / "failing.ipynb"
    nbformat.write(failing, path)
    with pytest.raises(SystemExit, match=r"ZeroDivisionError.*division by zero"):
        book.run_chapters([path])
    assert "failing.ipynb FAILED" in capsys.readouterr().out
