"""What the pages need beyond Jupyter Book: their own scripts, and the ledger.

The pages ask no third party for anything. MathJax and the widget manager are
copied from the pinned npm packages, next to the book's own style and script.
"""

import itertools
import json
import shutil
from pathlib import Path

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
STATIC = Path(__file__).with_name("static")

# What of the npm packages goes under `_static/`.
MATHJAX = ["tex-mml-chtml.js", "output/chtml/fonts", "input/tex/extensions"]
MATHJAX += ["a11y", "sre"]
WIDGETS = ["embed.js", "*.woff2"]

# The entries of a bibliography are no list items, so it is no list; a fold
# is called what its own words say.
MISTOLD = {
    '<div role="list" class="citation-list">': "<div>",
    '<summary aria-label="Toggle hidden content">': "<summary>",
}

CLAIM = "application/vnd.pcbook.claim+json"
KINDS = {"holds": "pcbook-holds", "does not hold": "pcbook-fails"}


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
    manager = packages / "@jupyter-widgets/html-manager/dist"
    copy(manager, WIDGETS, static / "widgets")


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


def add_static(app: Sphinx, config) -> None:
    """Let the pages have the book's own style and script."""
    config.html_static_path.append(str(STATIC))


# --- the claims ledger ---


class measured(nodes.General, nodes.Element):
    """The place in the ledger for what a chapter measured."""


class Ledger(SphinxDirective):
    """The claims of `book/claims.yml`, each with what we measured."""

    def run(self):
        claims = ROOT / "book/claims.yml"
        self.env.note_dependency(str(claims))
        return [
            self.card(claim)
            for claim in yaml.safe_load(claims.read_text(encoding="utf-8"))
        ]

    def card(self, claim: dict) -> nodes.Element:
        """The sentence, its source and criterion, and room for the result."""
        ending = f"/{claim['chapter']}"
        chapter = next(
            doc for doc in self.env.found_docs if doc.endswith(ending)
        )
        text = (
            f"**Claim.** {claim['sentence']} "
            f"{{cite:p}}`{claim['source']}`\n\n"
            f"**Criterion.** {claim['criterion']}\n\n"
            f"**Chapter.** [](/{chapter}.ipynb)"
        )
        card = nodes.container(classes=["pcbook-claim"])
        card += self.parse_text_to_nodes(text)
        card += measured(chapter=chapter, claim=claim["id"])
        return card


def fill_ledger(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put what the executed chapters measured where the ledger left room."""
    for place in list(doctree.findall(measured)):
        chapter, claim = place["chapter"], place["claim"]
        result = result_of(app, chapter, claim)
        if result is None:
            logger.warning("%s.ipynb never checks claim %r", chapter, claim)
            result = {"measured": "nothing yet", "verdict": "none"}
        kind = KINDS.get(result["verdict"], "pcbook-holds-if")
        place.parent["classes"].append(kind)
        rows = {
            "Measured.": result["measured"],
            "Verdict.": result["verdict"],
        }
        place.replace_self([row(name, text) for name, text in rows.items()])


def row(name: str, text: str) -> nodes.paragraph:
    """A line of a claim's card."""
    return nodes.paragraph(
        "", "", nodes.strong("", name), nodes.Text(f" {text}")
    )


def result_of(app: Sphinx, chapter: str, claim: str) -> dict | None:
    """What `chapter` says of `claim` in this build; None if nothing."""
    executed = Path(app.outdir).parent / "jupyter_execute"
    glued = executed / f"{chapter}.glue.json"
    if not glued.exists():
        return None
    output = json.loads(glued.read_text(encoding="utf-8")).get(
        f"claim:{claim}"
    )
    return output and output["data"][CLAIM]


def setup(app: Sphinx) -> dict:
    """Tell Sphinx of all this."""
    app.add_directive("ledger", Ledger)
    app.add_node(measured)
    app.connect("config-inited", add_static)
    app.connect("builder-inited", bundle_scripts)
    app.connect("html-page-context", drop_thebe)
    app.connect("html-page-context", mend_roles)
    app.connect("doctree-resolved", fill_ledger)
    app.add_css_file("pcbook.css")
    app.add_js_file("pcbook.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
