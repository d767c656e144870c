"""What the lender takes and refuses: cases 29, 55, 56, 57, consent, model, scale and reasons."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fl_server.lending.desk import Desk
from fl_server.lending.intake import MAX_ENVELOPE, Intake, Taken
from fl_server.lending.keys import LenderHome
from model.contract.envelope import SigningKey, sign
from model.contract.sealed import SUITE, seal
from model.errors import AudienceError, ConsentError, ContractError, IntakeError, ReplayError, SignatureError

DAY = 86_400


@pytest.fixture
def known(intake: Intake, phone: Any, now: int) -> Any:
    """A phone whose receipt has arrived."""
    intake.take(phone.consent(), now)
    return phone


def opened(intake: Intake) -> int:
    return int(intake.book.summary()["envelopes_opened"])


def test_a_consented_score_is_taken_once_and_kept_whole(intake: Intake, known: Any, now: int) -> None:
    data = known.score(640)
    assert intake.take(data, now).status == "accepted"
    assert opened(intake) == 1
    assert intake.book.summary()["devices"] == 1


def test_case_55_replayed_score(intake: Intake, known: Any, now: int) -> None:
    first = known.envelope(640)
    data = known.seal(first)
    assert intake.take(data, now).status == "accepted"
    assert intake.take(data, now + 5).status == "duplicate"  # the same bytes again: idempotent
    assert intake.take(known.seal(first), now).status == "duplicate"  # sealed anew, the same envelope
    same_counter = replace(first, score=660, band="A", nonce="f" * 32)
    same_nonce = replace(first, score=660, band="A", counter=99, ref="other")
    for other in (same_counter, same_nonce):
        with pytest.raises(ReplayError):
            intake.take(known.seal(other), now)
    assert opened(intake) == 1
    assert intake.take(known.score(650), now).status == "accepted"  # control: a fresh one still passes


def test_another_device_may_use_the_same_counter_and_nonce(
    intake: Intake, known: Any, make_phone: Any, now: int
) -> None:
    other = make_phone()
    intake.take(known.score(), now)
    intake.take(other.consent(), now)
    assert intake.take(other.score(), now).status == "accepted"


def test_case_55_of_two_at_once_one_is_taken(intake: Intake, known: Any, now: int) -> None:
    first = known.envelope(640)
    rivals = [known.seal(replace(first, score=640 + 10 * step, band="B" if step < 2 else "A")) for step in range(4)]
    answers: list[Taken] = []
    threads = [threading.Thread(target=lambda d=data: answers.extend(intake.take_all([d], now))) for data in rivals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.status for each in answers) == ["accepted", "refused", "refused", "refused"]
    assert {each.error for each in answers if each.error} == {"ReplayError"}


def test_case_56_wrong_audience(intake: Intake, known: Any, tmp_path: Path, now: int) -> None:
    elsewhere = LenderHome.init(tmp_path / "other", "Other", "other-lender", ["personal-loan"])
    sealed_to_other = type(known)(elsewhere, known.key).score()
    with pytest.raises(AudienceError):
        intake.take(sealed_to_other, now)
    # Sealed to this lender and addressed inside to another: the seal alone must not decide.
    stray = replace(known.envelope(), audience="other-lender")
    inner = sign("score/1", stray.to_dict(), [known.key])
    with pytest.raises(AudienceError):
        intake.take(known.sealed(inner), now)
    # Sealed under another purpose than this lender has.
    info = {"purpose": "insurance", "audience": intake.audience}
    with pytest.raises(AudienceError):
        intake.take(seal(inner.to_bytes(), known.lender.hpke.public_bytes, info), now)
    with pytest.raises(AudienceError):
        intake.take(known.consent(audience="other-lender"), now)
    assert opened(intake) == 0


def test_case_57_suite_downgrade(intake: Intake, known: Any, now: int) -> None:
    data = known.score()
    weaker = SUITE[:-1] + b"\x02" + data[len(SUITE) :]
    with pytest.raises(ContractError, match="suite"):
        intake.take(weaker, now)
    with pytest.raises(ContractError):
        intake.take(b"", now)
    assert opened(intake) == 0


def test_case_29_clock_skew(intake: Intake, known: Any, now: int) -> None:
    ahead = known.envelope(issued_at=now + 600, expires_at=now + DAY)
    assert intake.take(known.seal(ahead), now).status == "accepted"
    with pytest.raises(IntakeError, match="future"):
        intake.take(known.score(issued_at=now + 601, expires_at=now + DAY), now)
    with pytest.raises(IntakeError, match="expired"):
        intake.take(known.score(issued_at=now - DAY, expires_at=now), now)
    with pytest.raises(IntakeError, match="30 days"):
        intake.take(known.score(expires_at=now + 31 * DAY), now)


def test_a_forged_or_changed_envelope_is_refused(intake: Intake, known: Any, now: int) -> None:
    envelope = known.envelope()
    with pytest.raises(SignatureError):
        intake.take(known.sealed(sign("score/1", envelope.to_dict(), [SigningKey.generate()])), now)
    data = bytearray(known.seal(envelope))
    data[-1] ^= 1
    with pytest.raises(AudienceError):
        intake.take(bytes(data), now)
    with pytest.raises(ContractError):
        intake.take(b"x" * (MAX_ENVELOPE + 1), now)
    with pytest.raises(ContractError):
        intake.take(known.sealed(sign("other/1", {"a": 1}, [known.key])), now)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_digest": "cd" * 32}, "no release"),
        ({"score": 643}, "score, band"),
        ({"band": "A"}, "score, band"),
        ({"policy_pack": "us-ecoa"}, "policy pack"),
        ({"reasons": ("divorce_inferred",)}, "divorce_inferred"),
        ({"reasons": ("observed_days",)}, "observed_days"),
        ({"reasons": ("bill_delay",)}, "decline"),
    ],
)
def test_what_the_release_does_not_say_is_refused(
    intake: Intake, known: Any, now: int, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(IntakeError, match=says):
        intake.take(known.seal(replace(known.envelope(640), **changes)), now)
    assert opened(intake) == 0


def test_a_score_of_an_expired_release_is_refused(intake: Intake, known: Any, now: int) -> None:
    later = now + 91 * DAY
    with pytest.raises(IntakeError, match="had expired"):
        intake.take(known.score(issued_at=later, expires_at=later + DAY), later)


def test_without_a_receipt_nothing_is_taken(intake: Intake, phone: Any, now: int) -> None:
    data = phone.score()
    with pytest.raises(ConsentError):
        intake.take(data, now)
    intake.take(phone.consent(key=SigningKey.generate()), now)  # someone else's receipt does not help
    with pytest.raises(ConsentError):
        intake.take(data, now)
    intake.take(phone.consent(), now)
    assert intake.take(data, now).status == "accepted"


def test_a_withdrawn_receipt_ends_the_taking_for_good(intake: Intake, known: Any, now: int) -> None:
    intake.take(known.score(), now)
    intake.take(known.consent(withdrawn_at=now), now)
    intake.take(known.consent(), now)  # a late copy of the first receipt
    with pytest.raises(ConsentError, match="withdrawn"):
        intake.take(known.score(), now)
    intake.take(known.consent(consent_id="d" * 32), now)  # a new consent is a new receipt
    assert intake.take(known.score(consent_id="d" * 32), now).status == "accepted"


@pytest.mark.parametrize(
    "changes",
    [{"purpose": "credit-card"}, {"expires_at": 1_800_000_000}, {"policy_pack": "us-ecoa"}],
)
def test_a_receipt_must_cover_the_score(intake: Intake, phone: Any, now: int, changes: dict[str, Any]) -> None:
    intake.take(phone.consent(**changes), now)
    with pytest.raises(ConsentError):
        intake.take(phone.score(), now)


def test_receipts_of_the_future_or_with_two_signers_are_refused(intake: Intake, phone: Any, now: int) -> None:
    with pytest.raises(IntakeError, match="future"):
        intake.take(phone.consent(given_at=now + 601), now)
    two = sign("consent/1", {"a": 1}, [phone.key, SigningKey.generate()])
    with pytest.raises(ContractError, match="one signature"):
        intake.take(phone.sealed(two), now)


def test_a_known_keys_receipts_are_verified_on_arrival(intake: Intake, known: Any, now: int) -> None:
    intake.take(known.score(), now)
    good = sign("consent/1", {"a": 1}, [known.key])
    forged = type(good)(good.domain, b"\xa0", good.signatures)
    with pytest.raises(SignatureError):
        intake.take(known.sealed(forged), now)


def test_a_batch_takes_consents_first_and_logs_each_refusal_once(intake: Intake, phone: Any, now: int) -> None:
    score = phone.score()
    answers = intake.take_all([score, b"junk", phone.consent(), score], now)
    assert [each.status for each in answers] == ["accepted", "refused", "consent", "duplicate"]
    summary = intake.book.summary()
    assert summary["refused"] == {"ContractError": 1}
    assert summary["envelopes_opened"] == 1


def test_one_application_has_one_score(intake: Intake, known: Any, now: int) -> None:
    intake.take(known.score(ref="loan-1"), now)
    with pytest.raises(IntakeError, match="its score already"):
        intake.take(known.score(700, ref="loan-1"), now)


def test_reasons_follow_a_decline_and_belong_to_it(intake: Intake, known: Any, home: LenderHome, now: int) -> None:
    intake.take(known.score(500, ref="loan-1"), now)
    reasons = ("bill_delay", "topup_cv")
    with pytest.raises(IntakeError, match="decline"):
        intake.take(known.score(500, ref="loan-1", reasons=reasons), now)
    desk = Desk(home.cards(now), home.releases(), intake.book)
    (declined,) = desk.decide_all({}, now)
    assert declined["outcome"] == "decline" and declined["notice"]["principal_reasons"] == []
    with pytest.raises(IntakeError, match="another score"):
        intake.take(known.score(510, ref="loan-1", reasons=reasons), now)
    assert intake.take(known.score(500, ref="loan-1", reasons=reasons), now).status == "accepted"
    with pytest.raises(IntakeError, match="already"):
        intake.take(known.score(500, ref="loan-1", reasons=reasons), now)
    (explained,) = desk.decide_all({}, now)
    assert explained["notice"]["principal_reasons"] == ["Bills were paid late.", "Top-ups were irregular."]
    assert desk.decide_all({}, now) == []


def test_a_book_at_a_url_that_cannot_be_opened_says_so(home: LenderHome) -> None:
    from fl_server.lending.book import Book
    from model.errors import InputError

    with pytest.raises(InputError, match="database URL"):
        Book("sqlite:////nonexistent/folder/book.sqlite")
    with pytest.raises(InputError, match="database URL"):
        Book("no url")
