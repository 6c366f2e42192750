"""The built book: its pages, its ledger, and what makes a chapter run again."""

import ast
import html
import importlib
import json
import re
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from pcbook.store.claims import MIME, Claim

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
def test_every_figure_and_image_of_a_page_says_what_it_shows(pages, document):
    panel = 0  # of a figure, whose first panel has the words for all
    for tag, attributes in Tags(pages / f"{document}.html").found:
        panel = 0 if tag == "figure" else panel + (tag == "img")
        if tag == "img":
            later = panel > 1 and "pcbook-figure" in attributes.get("class", "")
            assert attributes["alt"] if not later else attributes["alt"] == "", attributes


@each_document
def test_where_no_script_runs_every_figure_shows_its_start_and_its_caption(pages, document):
    page = (pages / f"{document}.html").read_text(encoding="utf-8")
    figures = re.findall('<figure class="pcbook-explore">.*?</figure>', page, re.DOTALL)
    for figure in figures:
        still = re.sub(r"<(script|style).*?</\1>", "", figure, flags=re.DOTALL)
        assert 'src="data:image/webp;base64,' in still
        assert re.search(r"<figcaption>[^<]{40,}</figcaption>", still)
        assert "<input" not in still
        if "<script" in figure:
            assert re.search(r'<p class="pcbook-values">[^<]+: [^<]+</p>', still)


@pytest.fixture(scope="module")
def anchors(pages):
    """The ids of each page of the book, by its path."""
    return {
        path: {attributes["id"] for _, attributes in Tags(path).found if "id" in attributes}
        for path in pages.rglob("*.html")
    }


@each_document
def test_links_within_the_book_lead_to_pages_and_places_that_are_there(pages, document, anchors):
    page = pages / f"{document}.html"
    for tag, attributes in Tags(page).found:
        address = attributes.get("href") or ""
        if tag != "a" or re.match(r"\w+:", address) or address.startswith("//"):
            continue
        path, _, anchor = address.partition("#")
        target = (page.parent / path.partition("?")[0]).resolve() if path else page.resolve()
        assert target.exists(), address
        if anchor and target in anchors:
            assert anchor in anchors[target], address


def test_cards_cite_with_links_in_the_chapters_and_in_the_ledger(pages):
    for document in DOCUMENTS:
        page = (pages / f"{document}.html").read_text(encoding="utf-8")
        for card in re.findall(r'<div class="pcbook-claim[^"]*".*?</div>', page, re.DOTALL):
            assert "(ours)" in card or re.search(r'href="[^"]*bibliography.html#', card), card[:300]
            assert "$" not in card


@each_document
def test_a_page_says_what_it_is_about(pages, document):
    named = {
        attributes.get("name") or attributes.get("property"): attributes.get("content")
        for tag, attributes in Tags(pages / f"{document}.html").found
        if tag == "meta"
    }
    assert 20 <= len(named["description"]) <= 300
    assert named["og:title"] and named["og:description"] == named["description"]


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


@pytest.fixture(scope="session")
def cards(pages):
    """The outputs with a claim's card in the executed chapters, with the chapters' names."""
    found = []
    for document in DOCUMENTS:
        executed = ROOT / f"_build/jupyter_execute/{document}.ipynb"
        if executed.exists():
            outputs = [o for c in nbformat.read(executed, 4).cells for o in c.get("outputs", ())]
            found += [(Path(document).name, o) for o in outputs if MIME in o.get("data", {})]
    return found


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim["id"])
def test_a_claim_has_one_card_in_its_chapter_with_the_verdict_of_the_ledger(cards, claim):
    own = [(name, output) for name, output in cards if output.data[MIME]["id"] == claim["id"]]
    ((chapter, output),) = own
    assert chapter == claim["chapter"]
    assert output.data[MIME]["verdict"] == claim["verdict"]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim["id"])
def test_a_claim_stands_in_the_ledger_with_what_was_measured(pages, cards, claim):
    page = (pages / "book/ledger.html").read_text(encoding="utf-8")
    assert f'id="{claim["id"]}"' in page
    said = words(re.sub(r"<[^>]*>|\s+", " ", page))
    (output,) = [output for _, output in cards if output.data[MIME]["id"] == claim["id"]]
    rows = output.metadata.get("pcbook", {}).get("rows")
    for text in [text for _, text in rows] if rows else [output.data[MIME]["measured"]]:
        assert words(text) in said


@pytest.fixture
def ledger_page(tmp_path, monkeypatch):
    """The ledger page of one claim whose every text is a script, as docutils sees it."""
    text = "<script>alert(1)</script> **bold** {eval-rst}`x`"
    claim = Claim("evil", text, "ours", "chapter", "measured", text, "holds", text, "{x}", text)
    source, built = tmp_path / "source", tmp_path / "html"
    (source / "part").mkdir(parents=True)
    (source / "index.md").write_text("# Ledger\n\n```{ledger}\n```\n", encoding="utf-8")
    (source / "part/chapter.md").write_text(
        "---\norphan: true\n---\n\n# A chapter\n", encoding="utf-8"
    )
    (source / "_toc.yml").write_text(
        "parts: [{caption: Part, chapters: [{file: part/chapter}]}]", encoding="utf-8"
    )
    glued = tmp_path / "jupyter_execute/part/chapter.glue.json"
    glued.parent.mkdir(parents=True)
    output = {
        "data": {MIME: {"verdict": "holds"}},
        "metadata": {"pcbook": {"rows": [["Measured", text], ["Survives", text]]}},
    }
    glued.write_text(json.dumps({"claim:evil": output}), encoding="utf-8")
    monkeypatch.syspath_prepend(ROOT / "book/_ext")
    pages = importlib.import_module("pages")
    monkeypatch.setattr(pages, "ledger", cache(lambda: {"evil": claim}))
    monkeypatch.setattr(pages, "ROOT", source)
    settings = {"extensions": ["myst_parser", "pages"]}
    with docutils_namespace():
        app = Sphinx(source, None, built, tmp_path / "trees", "xml", settings, status=None)
        app.build()
        doctree = app.env.get_and_resolve_doctree("index", app.builder)
    return doctree


def test_the_ledger_shows_the_words_of_a_claim_as_text(ledger_page):
    assert not list(ledger_page.findall(nodes.raw))
    shown = ledger_page.astext()
    assert shown.count("<script>alert(1)</script> **bold** {eval-rst}`x`") == 6


def test_the_ledger_opens_with_counts_by_part_and_links_to_each_claim(ledger_page):
    by_part, by_claim = ledger_page.findall(nodes.table)
    lines = [[e.astext() for e in line.findall(nodes.entry)] for line in by_part.findall(nodes.row)]
    assert lines[0] == [
        "part",
        *["holds", "holds if", "does not hold", "under review", "identities"],
    ]
    assert lines[1:] == [["Part", "1", "0", "0", "0", "0"], ["all", "1", "0", "0", "0", "0"]]
    assert "evil" in {link.get("refid") for link in by_claim.findall(nodes.reference)}
    assert any("evil" in card["ids"] for card in ledger_page.findall(nodes.container))


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
