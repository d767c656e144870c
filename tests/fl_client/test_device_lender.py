"""The device and a lender's real intake, over the device's own bytes: accepted, declined, explained, withdrawn."""

import pytest

from fl_client.device import Phone, explain_phone, score_phone
from fl_client.egress import MemoryEgress
from fl_client.identity import LenderCard
from fl_client.scoring import Scorer
from fl_server.lending.desk import Desk
from fl_server.lending.intake import Intake
from fl_server.lending.keys import LenderHome
from model.contract.release import ReleaseManifest

NOW = 1_900_000_000
PURPOSE = "personal-loan"


@pytest.fixture
def bank(tmp_path, table_release):
    """(card as a phone reads it, intake, desk) of a lender's home."""
    home = LenderHome.init(tmp_path / "bank", "Bank", "bank-1", [PURPOSE])
    manifest = ReleaseManifest.from_dict(table_release.manifest)
    releases = {manifest.model_digest: manifest}
    from fl_server.lending.book import Book

    book = Book(home.database)
    intake = Intake(home.audience, home.purposes, home.hpke, releases, book)
    card = home.card(NOW)
    yield LenderCard.read(card.signed(home.signing).to_bytes(), NOW), intake, Desk([card], releases, book)
    book.close()


@pytest.fixture
def scorer(table_release) -> Scorer:
    return Scorer(table_release.onnx, table_release.manifest, table_release.schema)


def agree(phone, card, release, egress) -> bytes:
    consents = phone.consents(card)
    receipt = consents.give(release.schema, card, purpose=PURPOSE, policy_pack="in-rbi-2025", now=NOW, denied=["upi"])
    return consents.release(receipt, card, egress)


def test_a_lender_takes_what_the_device_sends(bank, scorer, table_release, row):
    card, intake, desk = bank
    phone, egress = Phone.in_memory(row=row), MemoryEgress(NOW)
    consent = agree(phone, card, table_release, egress)
    done = score_phone(phone, scorer, card, egress, now=NOW, ref="loan-17")
    early = explain_phone(phone, card, egress, now=NOW, ref="loan-17")
    answers = intake.take_all([consent, done.sealed], NOW)
    assert [answer.status for answer in answers] == ["consent", "accepted"], answers
    (refused,) = intake.take_all([early.sealed], NOW)
    assert refused.status == "refused"  # reasons before a decision
    (document,) = desk.decide_all({}, NOW)
    assert document["outcome"] == "decline"
    later = explain_phone(phone, card, egress, now=NOW + 5, ref="loan-17")
    (answer,) = intake.take_all([later.sealed], NOW + 5)
    assert answer.status == "accepted", answer
    (notice,) = desk.decide_all({}, NOW + 6)
    said = set(notice["notice"]["principal_reasons"])
    assert said == {sentence for _, sentence in done.own_copy.reasons}


def test_case_55_replayed_score_and_case_58_at_the_lender(bank, scorer, table_release, row):
    card, intake, _ = bank
    phone, egress = Phone.in_memory(row=row), MemoryEgress(NOW)
    consent = agree(phone, card, table_release, egress)
    first = score_phone(phone, scorer, card, egress, now=NOW)
    assert [a.status for a in intake.take_all([consent, first.sealed, first.sealed], NOW)][1:] == [
        "accepted",
        "duplicate",
    ]
    waiting = score_phone(phone, scorer, card, egress, now=NOW)
    receipt = phone.consents(card).withdraw(PURPOSE, NOW + 1)
    gone = phone.consents(card).release(receipt, card, egress)
    (taken,) = intake.take_all([gone], NOW + 2)
    assert taken.status == "consent"
    (late,) = intake.take_all([waiting.sealed], NOW + 3)
    assert (late.status, late.error) == ("refused", "ConsentError")
