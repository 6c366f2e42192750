"""What the literature claims, against what is measured here.

`book/claims.yml` lists the claims. A chapter's module defines for each of its claims a
criterion, a pure function of the measurement; the chapter's notebook measures, and calls
`check`, which applies the same criterion to the measurement and to a control that cannot
have the claimed property. The ledger page collects the results.
"""

import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from html import escape
from typing import Any, NamedTuple

import numpy as np
import yaml
from IPython.display import display

from pcbook.store import shipped

MIME = "application/vnd.pcbook.claim+json"
KINDS = ("measured", "identity")
UNVERIFIED = "place not verified"

# A number, a text, or an array with one number for each seed.
Measurement = Mapping[str, Any]
Criterion = Callable[[Measurement], bool]

_CRITERIA: dict[str, Criterion] = {}
_FIELD = re.compile(r"\{(?P<name>\w+)(?P<index>(\[\d+\])*)(:(?P<format>[^{}]*))?\}(?P<unit>%?)")


class Claim(NamedTuple):
    """An entry of the ledger.

    `source` is a key of references.bib, a comma and the place there, or "ours". `control`
    describes what cannot have the property, `measured` is the template of the card's
    numbers, `verdict` is the expected one, `changed` tells what was changed after the first
    measurement, and `review` why the claim is under review.
    """

    id: str
    sentence: str
    source: str
    chapter: str
    kind: str
    criterion: str
    verdict: str
    control: str = ""
    measured: str = ""
    changed: str = ""
    review: str = ""

    @property
    def group(self) -> str:
        """What the ledger counts the claim as: its verdict, "under review" or "identity"."""
        if self.review:
            return "under review"
        if self.kind == "identity":
            return "identity"
        return "holds if" if self.verdict.startswith("holds if") else self.verdict


# --- the ledger ---


@cache
def ledger() -> dict[str, Claim]:
    """Every claim of the book by its id, from the installed package or a checkout's book/."""
    return read_ledger(shipped("claims.yml", "book/claims.yml").read_text(encoding="utf-8"))


def read_ledger(text: str) -> dict[str, Claim]:
    """The claims of the YAML list `text` by their ids.

    Raises ValueError, with the claim and the field, for a field that is unknown, missing,
    empty or not allowed, and for an id that occurs twice.
    """
    claims: dict[str, Claim] = {}
    for entry in yaml.safe_load(text):
        claim = _read(entry)
        if claim.id in claims:
            raise ValueError(f"claim {claim.id!r}: id must not occur twice")
        claims[claim.id] = claim
    return claims


def _read(entry: dict) -> Claim:
    id = entry.get("id", "without an id")
    required = [name for name in Claim._fields if name not in Claim._field_defaults]
    for name in entry:
        if name not in Claim._fields:
            raise ValueError(f"claim {id!r}: {name} must be one of {', '.join(Claim._fields)}")
    for name in required:
        if name not in entry:
            raise ValueError(f"claim {id!r}: {name} is missing")
    for name, value in entry.items():
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"claim {id!r}: {name} = {value!r} must be a text and not empty")
    claim = Claim(**entry)
    allowed = {
        "id": r"[\w-]+",
        "source": r"ours|[\w-]+, \S.*",
        "kind": "|".join(KINDS),
        "verdict": "holds|holds if .+|does not hold",
    }
    for name, pattern in allowed.items():
        value = getattr(claim, name)
        if not re.fullmatch(pattern, value):
            raise ValueError(f"claim {id!r}: {name} = {value!r} must match {pattern}")
    if not claim.review:
        needed = ["measured"] + ["control"] * (claim.kind == "measured")
        for name in needed:
            if not getattr(claim, name):
                raise ValueError(f"claim {id!r}: {name} is missing, and review does not say why")
    return claim


def citation(claim: Claim) -> str:
    """The source of a claim as a card shows it."""
    return claim.source


def _find(id: str) -> Claim:
    if id not in ledger():
        raise ValueError(f"claim {id!r} is not in claims.yml: must be one of {', '.join(ledger())}")
    return ledger()[id]


# --- criteria ---


def criterion(id: str) -> Callable[[Criterion], Criterion]:
    """Register the decorated function, measurement -> bool, as the criterion of claim `id`.

    Raises ValueError if another function is the criterion of this claim already.
    """

    def register(function: Criterion) -> Criterion:
        known = _CRITERIA.get(id, function)
        if (known.__module__, known.__qualname__) != (function.__module__, function.__qualname__):
            raise ValueError(f"claim {id!r} has a criterion already, {known.__qualname__}")
        _CRITERIA[id] = function
        return function

    return register


def criteria() -> dict[str, Criterion]:
    """The criteria registered by the modules imported so far, by the ids of their claims."""
    return dict(_CRITERIA)


def _meets(id: str, measurement: Measurement) -> bool:
    """Whether `measurement` meets the criterion; one that diverged does not."""
    if id not in _CRITERIA:
        raise ValueError(f"claim {id!r} has no criterion: its chapter's module must define one")
    return not any(map(_diverged, measurement.values())) and bool(_CRITERIA[id](measurement))


# --- checking a claim ---


def check(
    id: str,
    measurement: Measurement,
    *,
    control: Measurement | None = None,
    baselines: Mapping[str, Measurement] | None = None,
    survives: str = "",
) -> None:
    """Apply the claim's criterion to `measurement` and to `control`, and show the card.

    A measurement maps names to numbers, texts or arrays over seeds; the control's has the
    same names, a baseline's may lack some. `survives` says in one line which variations of
    the experiment the verdict survives, and which it does not or was not tried in. Raises
    ValueError for an unknown id, a claim without a criterion or a template, names that do
    not fit, and, unless the claim is under review, for a measured claim without a control
    and for a control that meets the criterion.
    """
    claim = _find(id)
    if not claim.measured:
        raise ValueError(f"claim {id!r}: measured is missing in claims.yml")
    met = _meets(id, measurement)
    control_met = _check_control(claim, measurement, control)
    verdict = "does not hold"
    if met:
        verdict = claim.verdict if claim.verdict.startswith("holds") else "holds"
    rows = {"Measured": _fill(claim, measurement)}
    if control is not None:
        note = "; meets the criterion" if control_met else ""
        rows["Control"] = f"{claim.control}: {_fill(claim, control)}{note}"
    for name, baseline in (baselines or {}).items():
        rows[f"Baseline {name}"] = _fill(claim, baseline, partial=True)
    if survives:
        rows["Survives"] = survives
    result = {"id": id, "kind": claim.kind, "verdict": verdict, "met": met}
    result |= {"control_met": control_met}
    _show(card_rows(claim, rows, verdict), result, rows)


def _check_control(claim: Claim, measurement, control) -> bool | None:
    """Whether the control meets the criterion, None without one."""
    if control is None:
        if claim.kind == "measured" and not claim.review:
            raise ValueError(f"claim {claim.id!r}: control is missing")
        return None
    if set(control) != set(measurement):
        names = ", ".join(measurement)
        raise ValueError(f"claim {claim.id!r}: control = {list(control)} must have {names}")
    if not claim.control:
        raise ValueError(f"claim {claim.id!r}: claims.yml does not describe its control")
    met = _meets(claim.id, control)
    if met and not claim.review:
        raise ValueError(f"claim {claim.id!r}: the control meets the criterion: {claim.control}")
    return met


# --- the card ---


def card_rows(claim: Claim, measured: Mapping[str, str], verdict: str) -> dict[str, str]:
    """The lines of a card by their names, with those that were `measured` in the middle."""
    rows = {
        "Claim": f"{claim.sentence} [{citation(claim)}]",
        "Criterion": claim.criterion,
        **measured,
        "Changed": claim.changed,
        "Verdict": verdict,
        "Identity": "checks the code" if claim.kind == "identity" else "",
        "Under review": claim.review,
    }
    return {name: text for name, text in rows.items() if text}


def _show(rows, result, measured):
    """Display a card. What was measured goes into the metadata, which nbval does not compare."""
    metadata = {"scrapbook": {"name": f"claim:{result['id']}", "mime_prefix": ""}}
    metadata["pcbook"] = {"rows": [list(row) for row in measured.items()]}
    display(
        {
            "text/plain": "\n".join(f"{name + ':':10} {text}" for name, text in rows.items()),
            "text/html": _html(rows, result["verdict"]),
            MIME: result,
        },
        raw=True,
        metadata=metadata,
    )


def _html(rows, verdict):
    lines = "".join(
        f"<p><strong>{escape(name)}.</strong> {escape(text)}</p>" for name, text in rows.items()
    )
    kind = {"holds": "holds", "does not hold": "fails"}.get(verdict, "holds-if")
    return f'<div class="pcbook-claim" data-verdict="{kind}">{lines}</div>'


def _fill(claim: Claim, measurement: Measurement, partial: bool = False) -> str:
    """The claim's template with the numbers of `measurement` in it.

    With `partial`, without those of its parts, set off by commas, whose names are lacking.
    """

    def number(field: re.Match) -> str:
        value = measurement[field["name"]]
        if isinstance(value, str):
            return value + field["unit"]
        value = np.asarray(value)[tuple(map(int, re.findall(r"\d+", field["index"])))]
        return _number(value, field["format"] or "", field["unit"])

    def lacking(text: str) -> list[str]:
        return [f["name"] for f in _FIELD.finditer(text) if f["name"] not in measurement]

    parts = claim.measured.split(", ")
    if partial:
        parts = [part for part in parts if not lacking(part)]
    template = ", ".join(parts)
    if lacking(template) or not template:
        names = ", ".join(lacking(template or claim.measured))
        raise ValueError(f"claim {claim.id!r}: measurement = {list(measurement)} lacks {names}")
    return _FIELD.sub(number, template)


def _number(value, form: str, unit: str) -> str:
    """A number, or the mean ± sd of one for each seed; those that diverged are counted."""
    value = np.asarray(value)
    if value.ndim > 1:
        raise ValueError(f"shape {value.shape}: a card shows a number, or one for each seed")
    if value.ndim == 0:
        return "diverged" if _diverged(value) else format(value.item(), form) + unit
    left = value[~np.isnan(value.astype(float))].astype(float)
    lost = len(value) - len(left)
    if not len(left):
        return f"diverged (n = {len(value)})"
    spread = f" ± {format(left.std(ddof=1).item(), form)}" if len(left) > 1 else ""
    n = f"n = {len(left)}" + (f", {lost} diverged" if lost else "")
    return f"{format(left.mean().item(), form)}{spread}{unit} ({n})"


def _diverged(value) -> bool:
    """Whether a NaN is among the numbers."""
    if isinstance(value, str):
        return False
    return any(math.isnan(number) for number in np.ravel(np.asarray(value, float)))
