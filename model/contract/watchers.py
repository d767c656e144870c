"""ε of a plan's charges against each observer, and over years, by the plan's own words (spec 13.10; 13.16).

Apart from `releases`, which a phone reads as well: the accountant that is asked here is not on a phone.
"""

from __future__ import annotations

from collections.abc import Sequence

from model.contract.promise import PrivacyPlan
from model.privacy.mechanism import GaussianRelease
from model.privacy.observers import Observers, lifetime, observers


def observers_of(privacy: PrivacyPlan, charges: Sequence[GaussianRelease] | None = None) -> Observers:
    """ε against each observer of a plan's mode: of all its charges, or of `charges` where those were spent."""
    counted = privacy.charges if charges is None else charges
    return observers(counted, privacy.delta, privacy.mode, privacy.honest, privacy.coordinator_noise)


def lifetime_of(
    privacy: PrivacyPlan, charges: Sequence[GaussianRelease] | None = None
) -> dict[str, dict[str, float | None]] | None:
    """ε over years, likewise (13.10.5)."""
    counted = privacy.charges if charges is None else charges
    return lifetime(counted, privacy.delta, privacy.mode, privacy.coordinator_noise)
