"""What the pages need beyond Jupyter Book: their own scripts, cards, ledger.

The pages ask no third party for anything. MathJax is copied from the pinned
npm package, next to the book's own style and script.
"""

import html
import itertools
import json
import re
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path

import yaml
from docutils import nodes
from pcbook.store.claims import MIME, Claim, card_rows, ledger
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
STATIC = Path(__file__).with_name("static")

# What of the npm packages goes under `_static/`.
MATHJAX = ["tex-mml-chtml.js", "output/chtml/fonts", "input/tex/extensions"]
MATHJAX += ["a11y", "sre"]

# The entries of a bibliography are no list items, so it is no list; a fold
# is called what its own words say.
MISTOLD = {
    '<div role="list" class="citation-list">': "<div>",
    '<summary aria-label="Toggle hidden content">': "<summary>",
}

KINDS = {"holds": "pcbook-holds", "does not hold": "pcbook-fails"}
# What the ledger counts, `Claim.group`, and the heads of the columns.
GROUPS = {
    "holds": "holds",
    "holds if": "holds if",
    "does not hold": "does not hold",
    "under review": "under review",
    "identity": "identities",
}


# --- scripts ---


def bundle_scripts(app: Sphinx) -> None:
    """Copy the pages' scripts from `node_modules` into the built book."""
    if app.builder.format != "html":
        return
    packages = ROOT / "node_modules"
    if not packages.is_dir():
        raise ExtensionError("node_modules is missing: `make book` brings it")
    static = Path(app.outdir, "_static")
    copy(packages / "mathjax/es5", MATHJAX, static / "mathjax")


def copy(source: Path, patterns: list[str], target: Path) -> None:
    """Copy what matches in `source`, files and folders, each to its place."""
    for found in itertools.chain(*map(source.glob, patterns)):
        place = target / found.relative_to(source)
        if found.is_dir():
            shutil.copytree(found, place, dirs_exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(found, place)


def drop_thebe(app, pagename, templatename, context: dict, doctree) -> None:
    """Leave out the script that would run cells on somebody else's server.

    What has a type is no script but data: the widgets', whose pictures in
    base64 may spell any word.
    """

    def is_thebe(script) -> bool:
        if "type" in script.attributes:
            return False
        body = script.attributes.get("body") or ""
        return "thebe" in f"{script.filename} {body}".lower()

    scripts = context["script_files"]
    context["script_files"] = [s for s in scripts if not is_thebe(s)]


def mend_roles(app, pagename, templatename, context: dict, doctree) -> None:
    """Say what things are: a screen reader is told otherwise."""
    body = context.get("body", "")
    for wrong, right in MISTOLD.items():
        body = body.replace(wrong, right)
    context["body"] = body


def describe(app, pagename, templatename, context: dict, doctree) -> None:
    """Say what the page is about to search engines and previews."""
    if doctree is None:
        return
    paragraphs = (p.astext() for p in doctree.findall(nodes.paragraph))
    plain = (
        text for text in paragraphs if len(text) > 40 and "\\" not in text
    )
    title = doctree.next_node(nodes.title)
    name = title.astext() if title else app.config.html_title
    first = next(plain, f"{name}: a page of {app.config.html_title}.")
    text = html.escape(textwrap.shorten(first, 250, placeholder=" …"))
    context["metatags"] = context.get("metatags", "") + (
        f'<meta name="description" content="{text}">'
        f'<meta property="og:title" content="{html.escape(name)}">'
        f'<meta property="og:description" content="{text}">'
        '<meta property="og:type" content="article">'
    )


def add_static(app: Sphinx, config) -> None:
    """Let the pages have the book's own style and script."""
    config.html_static_path.append(str(STATIC))


# --- the claims ledger ---


class counts(nodes.General, nodes.Element):
    """The place in the ledger for the counts and for the table of claims."""


class measured(nodes.General, nodes.Element):
    """The place in the ledger for what a chapter measured."""


class Ledger(SphinxDirective):
    """The claims of `book/claims.yml`, each with what we measured.

    Their words go onto the page as text, never as markup.
    """

    def run(self):
        ledger.cache_clear()
        self.env.note_dependency(str(ROOT / "book/claims.yml"))
        return [counts(), *map(self.card, ledger().values())]

    def card(self, claim: Claim) -> nodes.Element:
        """The sentence, its source, and room for the result."""
        card = nodes.container(classes=["pcbook-claim"], ids=[claim.id])
        text = f"{claim.sentence} [{claim.source}]"
        card += claim_row(text, self.cited)
        card += measured(claim=claim.id)
        return card

    def cited(self, key: str) -> list[nodes.Node]:
        """A citation, which also brings its source into the bibliography."""
        return self.parse_text_to_nodes(f"{{cite:p}}`{key}`")[0].children


def fill_ledger(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put what the executed chapters measured where the ledger left room."""
    for place in list(doctree.findall(measured)):
        claim = ledger()[place["claim"]]
        rows, verdict = result_of(app, claim)
        kind = KINDS.get(verdict, "pcbook-holds-if")
        place.parent["classes"].append(kind)
        shown = card_rows(claim, rows, verdict)
        del shown["Claim"]
        link = nodes.paragraph("", "", nodes.strong("", "Chapter."))
        link += [
            nodes.Text(" "),
            link_to(app, docname, chapter_of(app, claim)),
        ]
        lines = [row(name, text) for name, text in shown.items()]
        place.replace_self([*lines, link])
    for place in list(doctree.findall(counts)):
        place.replace_self(summary(app, docname))


def summary(app: Sphinx, docname: str) -> list[nodes.Element]:
    """Two tables: how the claims of each part came out, and all claims."""
    claims = ledger().values()
    outcomes = {claim.id: outcome(app, claim) for claim in claims}
    numbers = []
    for part in parts():
        own = [
            outcomes[claim.id]
            for claim in claims
            if chapter_of(app, claim) in part["chapters"]
        ]
        if own:
            numbers.append([part["caption"], *map(own.count, GROUPS)])
    total = ["all", *map(list(outcomes.values()).count, GROUPS)]
    by_part = [
        [nodes.Text(str(cell)) for cell in line] for line in [*numbers, total]
    ]
    by_claim = [
        [
            nodes.reference(
                "", claim.sentence, refid=claim.id, internal=True
            ),
            link_to(app, docname, chapter_of(app, claim)),
            nodes.Text(outcomes[claim.id]),
        ]
        for claim in claims
    ]
    return [
        table(["part", *GROUPS.values()], by_part),
        table(["claim", "chapter", "outcome"], by_claim),
    ]


def outcome(app: Sphinx, claim: Claim) -> str:
    """What a claim counts as, by the verdict of this build."""
    _, verdict = result_of(app, claim)
    return claim._replace(verdict=verdict).group


def parts() -> list[dict]:
    """The parts of the table of contents: their captions and documents."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [
        {
            "caption": part["caption"],
            "chapters": {chapter["file"] for chapter in part["chapters"]},
        }
        for part in toc["parts"]
    ]


def chapter_of(app: Sphinx, claim: Claim) -> str:
    """The document that measures the claim."""
    ending = f"/{claim.chapter}"
    return next(doc for doc in app.env.found_docs if doc.endswith(ending))


def link_to(app: Sphinx, docname: str, chapter: str) -> nodes.reference:
    """A link from `docname` to a chapter, with the chapter's title."""
    address = app.builder.get_relative_uri(docname, chapter)
    title = app.env.titles[chapter].astext()
    return nodes.reference("", title, refuri=address, internal=True)


def table(heads: list[str], lines: list[list[nodes.Node]]) -> nodes.table:
    """A table with a row of `heads` and one of each of `lines`."""
    group = nodes.tgroup("", cols=len(heads))
    group += [nodes.colspec("", colwidth=1) for _ in heads]
    group += nodes.thead("", line_of([nodes.Text(head) for head in heads]))
    group += nodes.tbody("", *map(line_of, lines))
    return nodes.table("", group)


def line_of(cells: list[nodes.Node]) -> nodes.row:
    """A row of a table."""
    return nodes.row(
        "",
        *[nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells],
    )


def row(name: str, text: str) -> nodes.paragraph:
    """A line of a claim's card."""
    return nodes.paragraph(
        "", "", nodes.strong("", f"{name}."), nodes.Text(" "), *inline(text)
    )


def inline(text: str) -> list[nodes.Node]:
    """Text as nodes, with what stands between dollar signs as mathematics."""
    parts = re.split(r"\$([^$]+)\$", text)
    kinds = itertools.cycle((nodes.Text, lambda tex: nodes.math(tex, tex)))
    return [
        kind(part) for kind, part in zip(kinds, parts, strict=False) if part
    ]


# --- the cards in the chapters ---


class ClaimCards(SphinxPostTransform):
    """Give the cards in the chapters the look that they have in the ledger.

    What a notebook shows is HTML, which knows no citations. It comes here
    after MyST-NB has chosen it and before citations become links.
    """

    default_priority = 5
    formats = ("html",)

    def run(self, **_):
        for raw in list(self.document.findall(nodes.raw)):
            if raw.astext().startswith('<div class="pcbook-claim"'):
                raw.replace_self(self.card(raw.astext()))

    def card(self, page: str) -> nodes.container:
        """The card that `claims.check` showed as HTML, as nodes."""
        kind = re.search('data-verdict="([^"]*)"', page)[1]
        classes = ["pcbook-claim", f"pcbook-{kind}"]
        card = nodes.container(classes=classes, is_div=True)
        rows = re.findall(
            r"<p><strong>(.*?)\.</strong> (.*?)</p>", page, re.DOTALL
        )
        for name, text in (map(html.unescape, line) for line in rows):
            card += (
                claim_row(text, self.cited)
                if name == "Claim"
                else row(name, text)
            )
        return card

    def cited(self, key: str) -> addnodes.pending_xref:
        """What becomes a link to an entry of the bibliography."""
        return addnodes.pending_xref(
            "",
            nodes.inline("", key),
            refdomain="cite",
            reftype="p",
            reftarget=key,
            refdoc=self.env.docname,
            refwarn=True,
            refexplicit=False,
        )


def claim_row(text: str, cited: Callable) -> nodes.paragraph:
    """The line of a card with the claim and, at its end, [source, place]."""
    sentence, key, place = re.fullmatch(
        r"(.*) \[([\w-]+)(?:, (.*))?\]", text, re.DOTALL
    ).groups()
    line = row("Claim", f"{sentence} ")
    if key == "ours":
        line += nodes.Text("(ours)")
    else:
        line += cited(key)
        line += inline(f" {place}" if place else "")
    return line


def result_of(app: Sphinx, claim: Claim) -> tuple[dict[str, str], str]:
    """What the claim's chapter measured in this build, and the verdict."""
    chapter = chapter_of(app, claim)
    executed = Path(app.outdir).parent / "jupyter_execute"
    glued = executed / f"{chapter}.glue.json"
    said = (
        json.loads(glued.read_text(encoding="utf-8"))
        if glued.exists()
        else {}
    )
    if f"claim:{claim.id}" not in said:
        logger.warning("%s.ipynb never checks claim %r", chapter, claim.id)
        return {"Measured": "nothing yet"}, "none"
    output = said[f"claim:{claim.id}"]
    result = output["data"][MIME]
    rows = output["metadata"].get("pcbook", {}).get("rows")
    rows = rows or [["Measured", result["measured"]]]
    return dict(rows), result["verdict"]


def setup(app: Sphinx) -> dict:
    """Tell Sphinx of all this."""
    app.add_directive("ledger", Ledger)
    app.add_post_transform(ClaimCards)
    app.add_node(counts)
    app.add_node(measured)
    app.connect("config-inited", add_static)
    app.connect("builder-inited", bundle_scripts)
    app.connect("html-page-context", drop_thebe)
    app.connect("html-page-context", mend_roles)
    app.connect("html-page-context", describe)
    app.connect("doctree-resolved", fill_ledger)
    app.set_html_assets_policy(
        "always"
    )  # a ledger's formulas are not seen by Sphinx
    app.add_css_file("pcbook.css")
    app.add_js_file("pcbook.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
