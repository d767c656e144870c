"""What the borrower is told: the key fact statement of a loan, the notice of a decline (spec 10.6, 10.8)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fl_server.lending.card import LenderCard
from fl_server.lending.decision import Decision
from fl_server.lending.loan import PAISE, Loan, apr, effective_year, schedule
from model.contract.release import ReleaseManifest
from model.contract.score import MAX_REASONS, SCORE_MAX, SCORE_MIN
from model.errors import IntakeError, PolicyError

DISPUTE = (
    "You may dispute this decision and ask for a person to review it; write to the grievance officer within 60 days. "
    "Your phone keeps its own ordered list of what moved the score."
)


def key_facts(card: LenderCard, loan: Loan) -> dict[str, Any]:
    """The key fact statement: rupees and shares, APR by IRR with fees, cooling-off, and what is assumed (RBI 2024)."""
    payments = schedule(loan)
    repaid = sum(payments) / PAISE
    return {
        "lender": card.name,
        "amount": loan.amount,
        "months": loan.months,
        "paid_out": loan.amount - loan.fee,
        "rate_kind": "fixed, on the reducing balance",
        "monthly_rate": loan.monthly_rate,
        "nominal_year": round(12 * loan.monthly_rate, 6),
        "effective_year": round(effective_year(loan.monthly_rate), 6),
        "fees": [{"name": "processing", "rupees": loan.fee, "to": card.name}],
        "apr": round(apr(loan), 6),
        "apr_method": "12 × the monthly IRR of what is paid out after fees",
        "instalments": [payment / PAISE for payment in payments],
        "total_repaid": round(repaid, 2),
        "total_interest": round(repaid - loan.amount, 2),
        "penal_charge": "none is added to the balance; a late instalment costs the agreed rate on the days it is late",
        "cooling_off_days": card.rate_card.cooling_off_days,
        "cooling_off": "Within these days the loan ends by repaying the principal and the interest of the days used.",
        "limit_increase": "never without your request",
        "assumption": card.rate_card.assumption,
    }


def reason_sentences(ids: Collection[str], manifest: ReleaseManifest) -> list[str]:
    """Sentences of the release for reason ids, in the manifest's column order, so that their order tells nothing.

    IntakeError for more than four, or an id that is no reason of this model: a reason must be what was applied.
    """
    known = {name: text for name, text in zip(manifest.features, manifest.reasons, strict=True) if text}
    strangers = sorted(set(ids) - set(known))
    if strangers or len(set(ids)) > MAX_REASONS:
        wrong = f"names {strangers[0]!r}" if strangers else f"has {len(set(ids))}"
        raise IntakeError(f"an envelope {wrong} as reasons; send at most {MAX_REASONS} inputs of the released model")
    return [text for name, text in known.items() if name in set(ids)]


def adverse_action(decision: Decision, lender: str, score: int, scored_at: int, reasons: list[str]) -> dict[str, Any]:
    """The notice after a decline: score, range, date (unix s), at most four principal reasons, how to dispute.

    Without reasons it says how to get them. PolicyError for anything but a decline.
    """
    if decision.outcome != "decline" or len(reasons) > MAX_REASONS:
        raise PolicyError(f"an adverse-action notice follows a decline with ≤ {MAX_REASONS} reasons; send none here")
    ask = "" if reasons else "Your phone can show you up to four principal reasons and send them here if you agree."
    return {
        "lender": lender,
        "decision": decision.sentence,
        "score": score,
        "score_range": [SCORE_MIN, SCORE_MAX],
        "scored_at": scored_at,
        "principal_reasons": reasons,
        "to_get_reasons": ask,
        "dispute": DISPUTE,
    }
