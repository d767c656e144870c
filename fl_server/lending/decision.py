"""Approve, refer or decline, and the limit: one pure rule over a band and what the borrower declared (spec 10.5)."""

from __future__ import annotations

from dataclasses import dataclass

from fl_server.lending.card import RateCard
from fl_server.lending.loan import MAX_LIMIT, PAISE, Loan, schedule

MINIMUM_LOAN = 1_000
INCOME_SHARE = 0.4
DECLARE_FIRST = "age, occupation and income declared to the lender by the borrower before the agreement"


@dataclass(frozen=True)
class Application:
    """What the borrower tells the lender directly, never through the phone maker (RBI 2025 ¶7).

    Rupees throughout; None means not told. `current_limit` is the limit in force, `increase_requested` is
    true only where the borrower asked for more in so many words.
    """

    amount: int = MAX_LIMIT
    monthly_income: int | None = None
    current_limit: int | None = None
    increase_requested: bool = False


@dataclass(frozen=True)
class Decision:
    """The answer: `outcome`, a stable `code`, a sentence for the borrower, and the limit in rupees."""

    outcome: str
    code: str
    sentence: str
    limit: int = 0
    conditions: tuple[str, ...] = ()


def decide(band: str | None, card: RateCard, application: Application) -> Decision:
    """Decide on a band, or on its absence (`None`: the phone gave no score, which is never held against a person)."""
    if band is None:
        return Decision("refer", "insufficient_data", "There is too little data for a score; a person will look at it.")
    terms = card.terms(band)
    if terms.outcome == "decline":
        return Decision("decline", "band_declined", f"We make no offer for band {band} at present.")
    if terms.outcome == "refer":
        return Decision("refer", "band_in_person", f"For band {band} a person looks at the application.")
    limit = min(terms.limit, application.amount, MAX_LIMIT)
    affordable = _affordable(limit, card, terms.monthly_rate, application.monthly_income)
    if affordable < MINIMUM_LOAN:
        return Decision("refer", "income", "The instalment may not fit the declared income; a person will look at it.")
    return _approved(affordable, application)


def _approved(limit: int, application: Application) -> Decision:
    conditions = () if application.monthly_income is not None else (DECLARE_FIRST,)
    current = application.current_limit
    if current is not None and limit > current and not application.increase_requested:
        sentence = f"Your limit stays at Rs {current}; it rises only if you ask for it."
        return Decision("approve", "limit_kept", sentence, current, conditions)
    return Decision("approve", "approved", f"You may borrow up to Rs {limit}.", limit, conditions)


def _affordable(limit: int, card: RateCard, rate: float, income: int | None) -> int:
    """The limit at which an instalment is at most 40 % of the declared income, in whole hundreds of rupees."""
    if income is None or limit < MINIMUM_LOAN:
        return limit
    instalment = schedule(Loan(limit, card.months, rate))[0] / PAISE
    fitting = limit if instalment <= INCOME_SHARE * income else int(limit * INCOME_SHARE * income / instalment)
    return fitting if fitting == limit else fitting // 100 * 100
