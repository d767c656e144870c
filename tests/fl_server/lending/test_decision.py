"""Cards, decisions, offers and notices: bounds, prices, no silent increase, four reasons at most."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fl_server.lending.book import Book
from fl_server.lending.card import ASSUMPTION, BandTerms, LenderCard, Pricing, RateCard, pd_of
from fl_server.lending.decision import DECLARE_FIRST, Application, Decision, decide
from fl_server.lending.desk import Desk, signed_decision
from fl_server.lending.intake import Intake
from fl_server.lending.keys import LenderHome
from fl_server.lending.loan import Loan
from fl_server.lending.notice import adverse_action, key_facts, reason_sentences
from fl_server.lending.offers import match
from model.contract.envelope import Signed, SigningKey, verify
from model.errors import ContractError, InputError, IntakeError, PolicyError, SignatureError

CARD = Pricing().card()


def lender(name: str, purposes: tuple[str, ...] = ("personal-loan",), card: RateCard = CARD) -> LenderCard:
    return LenderCard(name, name.lower(), "00" * 32, "00" * 32, purposes, card, 2_000_000_000)


def test_the_base_odds_cost_the_stated_rate_and_the_price_is_capped() -> None:
    assert pd_of(600) == pytest.approx(1 / 9)
    assert Pricing().rate(pd_of(600)) == pytest.approx(0.018, abs=5e-5)
    assert Pricing().rate(0.9) == Pricing().cap
    assert "1.8 %" in ASSUMPTION and "23.9 %" in CARD.assumption


def test_better_bands_cost_less_and_may_borrow_more() -> None:
    rates = [terms.monthly_rate for terms in CARD.bands]
    limits = [terms.limit for terms in CARD.bands]
    assert rates == sorted(rates) and limits == sorted(limits, reverse=True)
    assert max(limits) == 100_000


def test_a_card_without_a_band_for_a_person_is_refused() -> None:
    two = tuple(replace(t, outcome="approve") if t.outcome == "refer" else t for t in CARD.bands)
    with pytest.raises(InputError, match="refer"):
        replace(CARD, bands=two)
    with pytest.raises(InputError, match="cooling-off"):
        replace(CARD, cooling_off_days=0)
    with pytest.raises(InputError, match="limit"):
        BandTerms("A", "approve", 100_001, 0.01)
    with pytest.raises(InputError, match="each of the bands"):
        Pricing(limits=(1,)).card()


def test_bands_are_approved_referred_or_declined() -> None:
    outcomes = [decide(terms.band, CARD, Application()).outcome for terms in CARD.bands]
    assert outcomes == ["approve", "approve", "approve", "refer", "decline"]
    with pytest.raises(ContractError):
        decide("Z", CARD, Application())


def test_no_score_is_referred_and_never_declined() -> None:
    decision = decide(None, CARD, Application())
    assert (decision.outcome, decision.code) == ("refer", "insufficient_data")


def test_a_limit_never_rises_by_itself() -> None:
    kept = decide("A", CARD, Application(current_limit=20_000))
    assert (kept.limit, kept.code) == (20_000, "limit_kept")
    asked = decide("A", CARD, Application(current_limit=20_000, increase_requested=True))
    assert asked.limit == 100_000  # control: it can rise
    assert decide("C", CARD, Application(current_limit=100_000)).limit == 50_000


def test_income_is_declared_to_the_lender_and_bounds_the_instalment() -> None:
    assert decide("A", CARD, Application()).conditions == (DECLARE_FIRST,)
    rich = decide("A", CARD, Application(monthly_income=90_000))
    assert (rich.limit, rich.conditions) == (100_000, ())
    modest = decide("A", CARD, Application(monthly_income=10_000))
    assert 1_000 <= modest.limit < 50_000 and modest.limit % 100 == 0
    assert decide("A", CARD, Application(monthly_income=100)).code == "income"


def test_all_offers_are_shown_cheapest_first_and_the_rest_are_named() -> None:
    dear = replace(CARD, fee_share=0.05)
    shy = replace(CARD, bands=tuple(replace(t, outcome="refer") if t.band == "C" else t for t in CARD.bands))
    stern = replace(
        CARD, bands=tuple(replace(t, outcome="decline" if t.band in "DE" else t.outcome) for t in shy.bands)
    )
    narrow = replace(CARD, bands=tuple(t for t in CARD.bands if t.band != "C"))
    cards = [lender("Dear", card=dear), lender("Cheap"), lender("Shy", card=shy), lender("Stern", card=stern)]
    cards += [lender("Cars", ("car-loan",)), lender("Narrow", card=narrow)]
    found = match(cards, "personal-loan", "C", 30_000)
    assert [offer.lender for offer in found.offers] == ["Cheap", "Dear"]
    assert {name for name, _ in found.unmatched} == {"Cars", "Narrow", "Shy", "Stern"}
    assert found.offers[0].amount == 30_000 and found.offers[0].cooling_off_days >= 1
    assert match(cards, "personal-loan", "E", 30_000).offers == ()
    assert match(list(reversed(cards)), "personal-loan", "C", 30_000) == found


def test_the_key_facts_hold_the_apr_with_fees_and_the_assumption() -> None:
    facts = key_facts(lender("Cheap"), Loan(50_000, 12, 0.018, fee=1_000))
    assert facts["paid_out"] == 49_000 and facts["nominal_year"] == 0.216
    assert facts["effective_year"] == pytest.approx(0.239, abs=5e-4)
    assert facts["apr"] > facts["nominal_year"]
    assert sum(facts["instalments"]) == pytest.approx(facts["total_repaid"])
    assert facts["assumption"] == ASSUMPTION and facts["cooling_off_days"] >= 1


def test_a_notice_only_follows_a_decline(make_manifest: Any) -> None:
    declined, approved = decide("E", CARD, Application()), decide("A", CARD, Application())
    notice = adverse_action(declined, "Cheap", 520, 1, ["Bills were paid late."])
    assert notice["score_range"] == [300, 900] and notice["to_get_reasons"] == ""
    assert adverse_action(declined, "Cheap", 520, 1, [])["to_get_reasons"]
    with pytest.raises(PolicyError):
        adverse_action(approved, "Cheap", 520, 1, [])
    with pytest.raises(PolicyError):
        adverse_action(declined, "Cheap", 520, 1, ["a", "b", "c", "d", "e"])


def test_reasons_are_inputs_of_the_model_at_most_four(make_manifest: Any) -> None:
    five = make_manifest(features=tuple("abcde"), reasons=tuple("ABCDE"))
    assert reason_sentences(["b", "a"], five) == ["A", "B"]
    with pytest.raises(IntakeError):
        reason_sentences(list("abcde"), five)
    with pytest.raises(IntakeError):
        reason_sentences(["score too low"], five)


def test_the_desk_decides_once_and_keeps_a_standing_limit(
    intake: Intake, home: LenderHome, book: Book, phone: Any, now: int
) -> None:
    intake.take(phone.consent(), now)
    intake.take(phone.score(610, ref="one"), now)
    desk = Desk([home.card(now), lender("Other")], home.releases(), book)
    (first,) = desk.decide_all({"one": Application(amount=20_000)}, now)
    assert first["limit"] == 20_000 and first["key_facts"]["amount"] == 20_000
    assert [offer["lender"] for offer in first["matching"]["offers"]] == ["Example Finance", "Other"]
    assert desk.decide_all({"one": Application(amount=20_000)}, now) == []
    intake.take(phone.score(700, ref="two"), now)
    (second,) = desk.decide_all({}, now + 1)
    assert (second["limit"], second["code"]) == (20_000, "limit_kept")
    (third,) = desk.decide_all({"paper": Application(amount=5_000)}, now + 2)
    assert (third["outcome"], third["code"]) == ("refer", "insufficient_data")
    assert book.summary()["decisions"] == {"approve": 2, "refer": 1}


def test_a_signed_decision_speaks_with_the_key_of_the_card(home: LenderHome, now: int) -> None:
    decision = Decision("decline", "band_declined", "No offer.")
    signed = signed_decision({"ref": "x", "outcome": decision.outcome}, home.signing)
    ring = {home.signing.keyid: home.signing.public_bytes}
    assert verify(signed, "decision/1", ring)["outcome"] == "decline"


def test_a_card_is_verified_by_the_key_it_names(home: LenderHome, now: int) -> None:
    card = home.card(now)
    signed = card.signed(home.signing)
    assert LenderCard.opened(Signed.from_bytes(signed.to_bytes()), now) == card
    with pytest.raises(SignatureError):
        LenderCard.opened(card.signed(SigningKey.generate()), now)
    with pytest.raises(ContractError, match="expired"):
        LenderCard.opened(signed, card.expires_at)
    with pytest.raises(ContractError):
        LenderCard.opened(Signed("lender/1", b"\xa0", ()), now)
    with pytest.raises(ContractError):
        RateCard.from_dict({"bands": []})
