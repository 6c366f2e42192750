import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from nbval.plugin import get_sanitize_patterns

from pcbook import claims
from pcbook.store.claims import Claim, read_ledger

SURE = Claim(
    id="sure",
    sentence="Energy < 0 & rising.",
    source="someone2024, fig. 3",
    chapter="chapter",
    kind="measured",
    criterion="It is below zero.",
    verdict="holds if the network is linear",
    control="an untrained network",
    measured="energy {energy:.1f}%, start {start}",
)
BELOW = {"energy": -1.0, "start": 2}
ABOVE = {"energy": 0.5, "start": 2}


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, as a list of (bundle, metadata), with a ledger of claims on an energy."""
    shown = []
    known = {
        "sure": SURE,
        "identity": SURE._replace(id="identity", kind="identity", verdict="holds"),
        "reviewed": SURE._replace(id="reviewed", review="unfair to its source"),
        "refuted": SURE._replace(id="refuted", verdict="does not hold"),
        "no-criterion": SURE._replace(id="no-criterion"),
    }
    below = {id: lambda m: bool(np.mean(m["energy"]) < 0) for id in known if id != "no-criterion"}
    monkeypatch.setattr(claims, "ledger", lambda: known)
    monkeypatch.setattr(claims, "_CRITERIA", below)
    monkeypatch.setattr(
        claims, "display", lambda bundle, raw, metadata: shown.append((bundle, metadata))
    )
    return shown


# --- verdicts, controls ---


def test_card_says_what_was_claimed_measured_and_controlled(shown):
    baseline = {"nearest mean": {"start": 7}}
    claims.check("sure", BELOW, control=ABOVE, baselines=baseline, survives="a smaller step")
    ((bundle, metadata),) = shown
    assert bundle["text/plain"].splitlines() == [
        "Claim:     Energy < 0 & rising. [someone2024, fig. 3]",
        "Criterion: It is below zero.",
        "Measured:  energy -1.0%, start 2",
        "Control:   an untrained network: energy 0.5%, start 2",
        "Baseline nearest mean: start 7",
        "Survives:  a smaller step",
        "Verdict:   holds if the network is linear",
    ]
    assert bundle[claims.MIME] == {
        "id": "sure",
        "kind": "measured",
        "verdict": "holds if the network is linear",
        "met": True,
        "control_met": False,
    }
    assert metadata["scrapbook"]["name"] == "claim:sure"
    assert metadata["pcbook"]["rows"][0] == ["Measured", "energy -1.0%, start 2"]


@pytest.mark.parametrize(
    ("id", "measurement", "verdict"),
    [
        ("sure", BELOW, "holds if the network is linear"),
        ("sure", ABOVE, "does not hold"),
        ("refuted", BELOW, "holds"),
        ("refuted", ABOVE, "does not hold"),
    ],
)
def test_the_criterion_decides_the_verdict_and_not_the_ledger(shown, id, measurement, verdict):
    claims.check(id, measurement, control=ABOVE)
    assert shown[0][0][claims.MIME]["verdict"] == verdict


def test_a_control_that_meets_the_criterion_raises(shown):
    with pytest.raises(ValueError, match=r"'sure': the control meets .*an untrained network"):
        claims.check("sure", BELOW, control=BELOW)
    assert not shown


def test_a_measured_claim_without_a_control_raises(shown):
    with pytest.raises(ValueError, match="'sure': control is missing"):
        claims.check("sure", BELOW)


def test_under_review_a_control_may_meet_the_criterion_and_the_card_says_so(shown):
    claims.check("reviewed", BELOW, control=BELOW)
    claims.check("reviewed", BELOW)
    met, without = (bundle for bundle, _ in shown)
    assert "untrained network: energy -1.0%, start 2; meets the criterion" in met["text/plain"]
    assert [b[claims.MIME]["control_met"] for b in (met, without)] == [True, None]
    assert met["text/plain"].endswith("Under review: unfair to its source")


def test_an_identity_needs_no_control_and_says_what_it_is(shown):
    claims.check("identity", BELOW)
    assert "Identity:  checks the code" in shown[0][0]["text/plain"]


@pytest.mark.parametrize(
    ("energy", "said"),
    [
        (np.nan, "energy diverged"),
        (np.array([-1, np.nan, -3]), "energy -2.0 ± 1.4% (n = 2, 1 diverged)"),
        (np.array([np.nan, np.nan]), "energy diverged (n = 2)"),
    ],
)
def test_what_diverged_is_reported_and_meets_nothing(shown, monkeypatch, energy, said):
    monkeypatch.setitem(claims._CRITERIA, "sure", lambda m: True)
    monkeypatch.setitem(claims._CRITERIA, "refuted", lambda m: True)
    diverged = {"energy": energy, "start": 2}
    claims.check("sure", diverged, control=diverged)
    assert said in shown[0][0]["text/plain"]
    assert shown[0][0][claims.MIME]["verdict"] == "does not hold"


@pytest.mark.parametrize(
    ("id", "arguments", "message"),
    [
        (
            "shure",
            {"measurement": BELOW},
            "claim 'shure' is not in claims.yml: must be one of sure",
        ),
        ("no-criterion", {"measurement": BELOW, "control": ABOVE}, "has no criterion"),
        ("sure", {"measurement": BELOW, "control": {"energy": 1}}, "control = .* must have energy"),
        ("sure", {"measurement": {"energy": 1}, "control": {"energy": 1}}, "lacks start"),
        ("identity", {"measurement": BELOW, "baselines": {"x": {"y": 1}}}, "lacks energy, start"),
    ],
)
def test_what_does_not_fit_is_named(shown, id, arguments, message):
    with pytest.raises(ValueError, match=message):
        claims.check(id, **arguments)
    assert not shown


def test_a_claim_has_one_criterion(shown):
    def first(m):
        return True

    def second(m):
        return False

    claims.criterion("new")(first)
    claims.criterion("new")(first)  # as when a module is loaded again
    with pytest.raises(ValueError, match=r"claim 'new' has a criterion already, .*first"):
        claims.criterion("new")(second)
    assert claims.criteria()["new"] is first


# --- numbers ---


@pytest.mark.parametrize(
    ("template", "value", "text"),
    [
        ("{x:.2f} m", 1.234, "1.23 m"),
        ("{x} runs", 3, "3 runs"),
        ("{x:.1f}%", [1, 2, 3], "2.0 ± 1.0% (n = 3)"),
        ("{x:.1f} m", [1.0], "1.0 (n = 1) m"),
        ("{x[1]:.0f} and {x[0]:.0f}", [[1, 1], [5, 5]], "5 ± 0 (n = 2) and 1 ± 0 (n = 2)"),
        ("{x}", "of two", "of two"),
    ],
)
def test_a_number_is_shown_plainly_and_an_array_over_seeds_with_its_spread(template, value, text):
    assert claims._fill(SURE._replace(measured=template), {"x": value}) == text


def test_a_card_shows_no_matrix():
    with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
        claims._fill(SURE._replace(measured="{x}"), {"x": np.eye(2)})


# --- signs that mean something to a browser, and what nbval compares ---


def test_no_text_of_a_claim_reaches_the_page_as_markup(shown):
    script = "<script>alert(1)</script>"
    texts = dict.fromkeys(("sentence", "criterion", "control", "changed", "review"), script)
    claims.ledger()["evil"] = SURE._replace(id="evil", measured=f"{script} {{x}}", **texts)
    claims._CRITERIA["evil"] = lambda m: True
    baselines = {script: {"x": script}}
    claims.check("evil", {"x": script}, control={"x": 1}, baselines=baselines, survives=script)
    page = shown[0][0]["text/html"]
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 12


def test_nbval_compares_the_verdict_of_a_card_and_not_its_numbers(shown):
    patterns = get_sanitize_patterns(
        (Path(__file__).parents[1] / "nbval.cfg").read_text(encoding="utf-8")
    )

    def compared(bundle):
        texts = [bundle["text/plain"], bundle["text/html"], json.dumps(bundle[claims.MIME])]
        for pattern, replacement in patterns:
            texts = [re.sub(pattern, replacement, text) for text in texts]
        return texts

    other = {"energy": -2.0, "start": 3}
    for measurement in (BELOW, other, ABOVE):
        baselines = {"zero": measurement}
        claims.check("sure", measurement, control=ABOVE, baselines=baselines, survives="a run")
    committed, same, flipped = (compared(bundle) for bundle, _ in shown)
    assert committed == same
    assert all(a != b for a, b in zip(committed, flipped))


# --- the ledger ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, "'sure': colour must be one of id, sentence, source"),
        ({"verdict": None}, "'sure': verdict = None must be a text"),
        ({"sentence": " "}, "'sure': sentence = ' ' must be a text and not empty"),
        ({"kind": "guessed"}, r"'sure': kind = 'guessed' must match measured\|identity"),
        ({"source": "someone2024"}, "'sure': source = 'someone2024' must match"),
        ({"verdict": "holds mostly"}, "'sure': verdict = 'holds mostly' must match"),
        ({"control": ...}, "'sure': control is missing, and review does not say why"),
        ({"measured": ...}, "'sure': measured is missing, and review does not say why"),
        ({"criterion": ...}, "'sure': criterion is missing"),
    ],
)
def test_an_entry_that_is_not_of_the_form_is_refused(changes, message):
    entry = {name: value for name, value in (SURE._asdict() | changes).items() if value != ""}
    entry = {name: value for name, value in entry.items() if value is not ...}
    with pytest.raises(ValueError, match=message):
        read_ledger(yaml.safe_dump([entry]))


def test_every_field_of_every_claim_is_read():
    entry = {name: value for name, value in SURE._asdict().items() if value}
    assert read_ledger(yaml.safe_dump([entry])) == {"sure": SURE}
    with pytest.raises(ValueError, match="'sure': id must not occur twice"):
        read_ledger(yaml.safe_dump([entry, entry]))


@pytest.mark.parametrize(
    ("changes", "group"),
    [
        ({"verdict": "holds"}, "holds"),
        ({}, "holds if"),
        ({"verdict": "does not hold"}, "does not hold"),
        ({"kind": "identity"}, "identity"),
        ({"kind": "identity", "review": "unfair"}, "under review"),
    ],
)
def test_a_claim_is_counted_once(changes, group):
    assert SURE._replace(**changes).group == group


def test_ledger_of_the_book_is_of_the_form():
    ledger = claims.ledger()
    assert ledger
    assert all(key == claim.id for key, claim in ledger.items())
