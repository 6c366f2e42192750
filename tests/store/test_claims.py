import pytest
import yaml

from pcbook import claims
from pcbook.store.claims import Claim

SURE = Claim("sure", "Energy < 0 & rising.", "someone2024", "chapter", "It is below zero.")


@pytest.fixture
def shown(monkeypatch):
    """What `check` displays, as a list of (bundle, metadata), with a ledger of one claim."""
    shown = []
    monkeypatch.setattr(claims, "ledger", lambda: {"sure": SURE})
    monkeypatch.setattr(
        claims, "display", lambda bundle, raw, metadata: shown.append((bundle, metadata))
    )
    return shown


@pytest.mark.parametrize(
    ("holds", "condition", "verdict"),
    [
        (True, "", "holds"),
        (True, "the network is linear", "holds if the network is linear"),
        (False, "", "does not hold"),
        (False, "the network is linear", "does not hold"),
    ],
)
def test_card_says_the_claim_its_criterion_what_was_measured_and_the_verdict(
    shown, holds, condition, verdict
):
    claims.check("sure", "-0.3 ± 0.1", holds=holds, condition=condition)
    ((bundle, metadata),) = shown
    assert bundle["text/plain"].splitlines() == [
        "Claim:     Energy < 0 & rising. [someone2024]",
        "Criterion: It is below zero.",
        "Measured:  -0.3 ± 0.1",
        f"Verdict:   {verdict}",
    ]
    assert bundle[claims.MIME] == {"id": "sure", "measured": "-0.3 ± 0.1", "verdict": verdict}
    assert metadata["scrapbook"]["name"] == "claim:sure"


def test_card_survives_signs_that_mean_something_to_a_browser(shown):
    claims.check("sure", "<b>1</b>", holds=True)
    page = shown[0][0]["text/html"]
    assert "Energy &lt; 0 &amp; rising." in page
    assert "<b>" not in page


def test_an_unknown_id_is_answered_with_those_there_are(shown):
    with pytest.raises(
        ValueError, match=r"claim 'shure' is not in claims.yml: must be one of sure"
    ):
        claims.check("shure", "1", holds=True)
    assert not shown


def test_ledger_reads_every_field_of_every_claim(tmp_path, monkeypatch):
    (tmp_path / "claims.yml").write_text(yaml.safe_dump([SURE._asdict()]), encoding="utf-8")
    monkeypatch.setattr(claims.resources, "files", lambda package: tmp_path)
    claims.ledger.cache_clear()
    try:
        assert claims.ledger() == {"sure": SURE}
    finally:
        claims.ledger.cache_clear()


def test_ledger_of_the_book_has_an_id_a_claim_and_nothing_empty():
    ledger = claims.ledger()
    assert ledger
    assert all(key == claim.id and all(claim) for key, claim in ledger.items())
