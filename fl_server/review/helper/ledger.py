"""What a helper's releases cost, by plan: its own ε ledger, read from its store (spec 13.6.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from fl_server.review.helper.home import HelperHome
from fl_server.review.helper.records import Kept, read_all
from model.privacy.accountant import released
from model.privacy.mechanism import GaussianRelease


@dataclass(frozen=True)
class PlanSpent:
    """One plan: releases by state, messages opened, and the ε at `delta` that the helper's own noise leaves."""

    plan: str
    plan_digest: str
    answered: int
    reserved: int
    void: int
    messages: int
    epsilon: float
    budget: float
    delta: float


def spent_by_plan(home: HelperHome) -> list[PlanSpent]:
    """One line a plan, in order of first release; RunError where the store does not hold."""
    _, every = read_all(home.store, home.signing.public_bytes)
    plans = dict.fromkeys(kept.plan_digest for kept in every)
    return [_spent([kept for kept in every if kept.plan_digest == digest]) for digest in plans]


def merged(charges: Iterable[GaussianRelease]) -> list[GaussianRelease]:
    """Equal releases as one with their counts added."""
    counts = Counter(replace(charge, count=1) for charge in charges)
    return [replace(charge, count=count) for charge, count in counts.items()]


def _spent(releases: list[Kept]) -> PlanSpent:
    first, states = releases[0], Counter(kept.state for kept in releases)
    return PlanSpent(
        plan=first.plan_name,
        plan_digest=first.plan_digest,
        answered=states["answered"],
        reserved=states["reserved"],
        void=states["void"],
        messages=sum(kept.phones for kept in releases),
        epsilon=released(merged(kept.charge for kept in releases), first.delta),
        budget=first.budget,
        delta=first.delta,
    )
