"""What the book's pages need beyond Jupyter Book: their own scripts, and the claims ledger.

The pages ask no third party for anything. MathJax and the widget manager are
copied out of the pinned npm packages, next to the book's own style and script.
"""

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

# What of the npm packages goes where under `_static/`.
MATHJAX = ["tex-mml-chtml.js", "output/chtml/fonts", "input/tex/extensions", "a11y", "sre"]
WIDGETS = ["embed.js", "*.woff2"]

KINDS = {"holds": "pcbook-holds", "does not hold": "pcbook-fails"}
CLAIM = "application/vnd.pcbook.claim+json"


def bundle_scripts(app: Sphinx) -> None:
    """Copy the pages' scripts from `node_modules` into the built book."""
    if app.builder.format != "html":
        return
    packages = ROOT / "node_modules"
    if not packages.is_dir():
        raise ExtensionError("node_modules is missing: run `npm ci`, or `make book`, which does")
    static = Path(app.outdir, "_static")
    copy(packages / "mathjax/es5", MATHJAX, static / "mathjax")
    copy(packages / "@jupyter-widgets/html-manager/dist", WIDGETS, static / "widgets")


def copy(source: Path, patterns: list[str], target: Path) -> None:
    """Copy the files and folders of `source` that match, keeping their places."""
    for found in (path for pattern in patterns for path in source.glob(pattern)):
        place = target / found.relative_to(source)
        if found.is_dir():
            shutil.copytree(found, place, dirs_exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(found, place)


def drop_thebe(app: Sphinx, pagename, templatename, context: dict, doctree) -> None:
    """Leave out the script that Jupyter Book adds to run cells on somebody else's server."""
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in f"{script.filename} {script.attributes.get('body', '')}".lower()
    ]


class measured(nodes.General, nodes.Inline, nodes.Element):
    """The place in the ledger where what a chapter measured will stand."""


class Ledger(SphinxDirective):
    """```{ledger}```: every claim of `book/claims.yml`, what we measured, and the verdict."""

    def run(self):
        claims = ROOT / "book/claims.yml"
        self.env.note_dependency(str(claims))
        return [node for claim in yaml.safe_load(claims.read_text()) for node in self.entry(claim)]

    def entry(self, claim: dict) -> list[nodes.Node]:
        """A claim as a definition: the sentence and its source, then what was measured."""
        chapter = next(doc for doc in self.env.found_docs if doc.endswith("/" + claim["chapter"]))
        text = (
            f"{claim['sentence']} {{cite:p}}`{claim['source']}`\n\n"
            f"*Holds if:* {claim['criterion']} &ensp; [Chapter](/{chapter}.ipynb)"
        )
        card = nodes.container(classes=["pcbook-claim"])
        card += self.parse_text_to_nodes(text)
        card += nodes.paragraph("", "", measured(chapter=chapter, claim=claim["id"]))
        return [card]


def fill_ledger(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put what the executed chapters measured where the ledger left room for it."""
    for place in list(doctree.findall(measured)):
        result = result_of(app, place["chapter"], place["claim"])
        if result is None:
            logger.warning("%s.ipynb never checks claim %r", place["chapter"], place["claim"])
            result = {"measured": "", "verdict": "not measured"}
        card = place.parent.parent
        card["classes"].append(KINDS.get(result["verdict"], "pcbook-holds-if"))
        place.replace_self(
            [nodes.strong("", result["verdict"].capitalize()), nodes.Text(f": {result['measured']}")]
        )


def result_of(app: Sphinx, chapter: str, claim: str) -> dict | None:
    """What `chapter`, as executed in this build, says of `claim`; None if it says nothing."""
    glued = Path(app.outdir).parent / "jupyter_execute" / f"{chapter}.glue.json"
    if not glued.exists():
        return None
    output = json.loads(glued.read_text()).get(f"claim:{claim}")
    return output and output["data"][CLAIM]


def setup(app: Sphinx) -> dict:
    app.add_directive("ledger", Ledger)
    app.add_node(measured)
    app.connect("builder-inited", bundle_scripts)
    app.connect("doctree-resolved", fill_ledger)
    app.connect("html-page-context", drop_thebe)
    app.connect("config-inited", lambda app, config: config.html_static_path.append(str(STATIC)))
    app.add_css_file("pcbook.css")
    app.add_js_file("pcbook.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
