"""What the literature claims, against what comes out here.

`book/claims.yml` lists the claims: id, sentence, source, chapter, criterion. A chapter
measures each of its own once and says so with `check`; the ledger page collects them.
A claim that fails here is a finding, and is shown as one.
"""

from functools import cache
from html import escape
from typing import NamedTuple

import yaml
from IPython.display import display

from pcbook.store import shipped

MIME = "application/vnd.pcbook.claim+json"


class Claim(NamedTuple):
    """A sentence of the literature, its `source` in references.bib, and what would bear it out."""

    id: str
    sentence: str
    source: str
    chapter: str
    criterion: str


@cache
def ledger() -> dict[str, Claim]:
    """Every claim of the book by its id, from the installed package or a checkout's book/."""
    text = shipped("claims.yml", "book/claims.yml").read_text(encoding="utf-8")
    return {entry["id"]: Claim(**entry) for entry in yaml.safe_load(text)}


def check(id: str, measured: str, *, holds: bool, condition: str = "") -> None:
    """Show the claim `id`, what was `measured` (rounded, with its spread) and the verdict.

    The verdict is "holds", "holds if `condition`", or "does not hold". Raises ValueError
    for an id that is not in the ledger.
    """
    if id not in ledger():
        raise ValueError(f"claim {id!r} is not in claims.yml: must be one of {', '.join(ledger())}")
    claim = ledger()[id]
    verdict = "does not hold" if not holds else f"holds if {condition}" if condition else "holds"
    rows = {
        "Claim": f"{claim.sentence} [{claim.source}]",
        "Criterion": claim.criterion,
        "Measured": measured,
        "Verdict": verdict,
    }
    display(
        {
            "text/plain": "\n".join(f"{name + ':':11}{text}" for name, text in rows.items()),
            "text/html": _card(rows, verdict),
            MIME: {"id": id, "measured": measured, "verdict": verdict},
        },
        raw=True,
        metadata={"scrapbook": {"name": f"claim:{id}", "mime_prefix": ""}},
    )


def _card(rows, verdict):
    lines = "".join(
        f"<p><strong>{name}.</strong> {escape(text)}</p>" for name, text in rows.items()
    )
    kind = {"holds": "holds", "does not hold": "fails"}.get(verdict, "holds-if")
    return f'<div class="pcbook-claim" data-verdict="{kind}">{lines}</div>'
