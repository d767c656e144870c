"""Every lender's offer for one band, and every lender that makes none, by name (RBI 2025 ¶6; spec 10.7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fl_server.lending.card import LenderCard
from fl_server.lending.loan import Loan, apr


@dataclass(frozen=True)
class Offer:
    """One lender's terms: rupees, months, monthly rate, fee in rupees, APR as a share, cooling-off in days."""

    lender: str
    audience: str
    amount: int
    months: int
    monthly_rate: float
    fee: int
    apr: float
    cooling_off_days: int


@dataclass(frozen=True)
class Matching:
    """All offers, cheapest first by APR then name, and the unmatched lenders with why."""

    offers: tuple[Offer, ...]
    unmatched: tuple[tuple[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a report."""
        unmatched = [{"lender": name, "why": why} for name, why in self.unmatched]
        return {"offers": [asdict(offer) for offer in self.offers], "unmatched": unmatched}


def loan_of(card: LenderCard, band: str, amount: int) -> Loan:
    """The loan of `amount` rupees, or of the band's limit if that is less, at the card's terms."""
    terms = card.rate_card.terms(band)
    amount = min(amount, terms.limit)
    return Loan(amount, card.rate_card.months, terms.monthly_rate, round(amount * card.rate_card.fee_share))


def match(cards: Sequence[LenderCard], purpose: str, band: str, amount: int) -> Matching:
    """The same rule for every lender: purpose served, band approved, then the band's published terms.

    `amount` in rupees is what the person asks for; no lender can pay to be shown or to stand higher.
    """
    offers, unmatched = [], []
    for card in sorted(cards, key=lambda each: each.name):
        why = _unmatched(card, purpose, band)
        if why:
            unmatched.append((card.name, why))
            continue
        loan = loan_of(card, band, amount)
        days = card.rate_card.cooling_off_days
        terms = (loan.amount, loan.months, loan.monthly_rate, loan.fee, round(apr(loan), 6), days)
        offers.append(Offer(card.name, card.audience, *terms))
    return Matching(tuple(sorted(offers, key=lambda each: (each.apr, each.lender))), tuple(unmatched))


def _unmatched(card: LenderCard, purpose: str, band: str) -> str:
    if purpose not in card.purposes:
        return f"does not lend for {purpose}"
    names = {terms.band: terms for terms in card.rate_card.bands}
    if band not in names:
        return f"publishes no terms for band {band}"
    if names[band].outcome == "refer":
        return f"looks at band {band} in person before it offers"
    return "" if names[band].outcome == "approve" else f"makes no offer for band {band}"
