"""ε against every observer and over years, computed again by the reviewer from the ledger (spec 11.4, 13.10)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from fl_server.review.charges import merged
from fl_server.review.evidence import Evidence
from fl_server.review.findings import Finding, close, shown
from model.contract.promise import PrivacyPlan
from model.contract.watchers import lifetime_of, observers_of
from model.privacy.mechanism import GaussianRelease
from model.privacy.observers import PROMISED_TO, promised

FIGURES = ("released_models", "participation_viewer", "coordinator", "helper", "alone_round", "replace_one")


def check_epsilon(evidence: Evidence) -> Iterator[Finding]:
    """ε of every observer, computed again from the ledger, is what the summary says, and within the plan's budget."""
    privacy, said = evidence.plan.privacy, evidence.summary["epsilon"]
    charges = merged(evidence.charges)
    seen = observers_of(privacy, charges)
    again = {name: getattr(seen, name) for name in FIGURES}
    if privacy.mode == "off":
        yield Finding("epsilon", None, "privacy is off: no ε holds against anyone")
    for name, value in again.items():
        same = close(value, said[name])
        words = f"{name} is {shown(value)} from the ledger"
        yield Finding("epsilon", same, words if same else f"{words}, but the summary says {shown(said[name])}")
    yield from _over_years(charges, privacy, said)
    yield from _share(privacy, said)
    spent = promised(charges, privacy.delta, privacy.mode)
    if math.isfinite(spent):
        within = spent <= privacy.epsilon_budget
        yield Finding(
            "budget", within, f"ε {spent:.4g} of a budget of {privacy.epsilon_budget:g} at δ {privacy.delta:g}"
        )
    if privacy.coordinator_noise < 1:
        words = f"ε {shown(seen.helper)} against the helper, which meets {privacy.coordinator_noise:.4g} of the noise"
        yield Finding("budget", None, f"{words} that the coordinator meets; the plan's budget does not bound it")
    if privacy.noise_source != "os":
        yield Finding("noise", None, "TEST-SEEDED NOISE: this run protects nobody and must not be released")


def said_of_observers(privacy: PrivacyPlan, said: Mapping[str, Any]) -> Finding:
    """Reasons and condition are the accountant's own words for the mode, and a null never stands without one."""
    mode = observers_of(privacy, ())
    charged = privacy.mode != "off" and all(c.noise_multiplier > 0 for c in privacy.charges)
    expected = {"coordinator_reason": mode.reason, "helper_reason": mode.helper_reason, "condition": mode.condition}
    wrong = [name for name, words in expected.items() if charged and said[name] != words]
    wrong += [who for who in ("coordinator", "helper") if said[who] is None and not said[f"{who}_reason"]]
    if wrong:
        return Finding("observers", False, f"{wrong[0]} is not what holds in mode {privacy.mode}")
    nulls = [who for who in ("coordinator", "helper") if said[who] is None]
    words = f"null, with its reason, for {' and '.join(nulls)}" if nulls else "a finite ε for coordinator and helper"
    return Finding("observers", True, words)


def _share(privacy: PrivacyPlan, said: Mapping[str, Any]) -> Iterator[Finding]:
    """The coordinator's share of noise, by which a page says how often a phone takes part; absent, it says nothing."""
    share = privacy.coordinator_noise
    if said.get("coordinator_noise", share) != share:
        words = f"the coordinator adds {share:.4g} of the helper's noise by the plan"
        yield Finding("epsilon", False, f"{words}, but the summary says {said['coordinator_noise']!r}")


def _over_years(
    charges: tuple[GaussianRelease, ...], privacy: PrivacyPlan, said: Mapping[str, Any]
) -> Iterator[Finding]:
    again = lifetime_of(privacy, charges)
    told = said["lifetime"]
    if again is None or told is None:
        yield Finding("lifetime", again is told, "no ε over years" if again is told else "ε over years is missing")
        return
    wrong = [f"{n}.{k}" for n, both in again.items() for k, v in both.items() if not close(v, told[n][k])]
    five = again["five_years"]
    words = f"every month for five years comes to ε {shown(five['composed'])} against {PROMISED_TO[privacy.mode]}"
    if privacy.coordinator_noise < 1:
        words += f", {shown(five['helper'])} against the helper"
    yield Finding("lifetime", not wrong, f"{words}, but the summary differs in {wrong[0]}" if wrong else words)
