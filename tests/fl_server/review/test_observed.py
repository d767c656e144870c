"""What review says over years: against whom, the helper's figure where noises differ, and a summary's share of it."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from fl_server.review.charges import Charge
from fl_server.review.findings import Finding
from fl_server.review.observed import check_epsilon
from model.contract.promise import Neighbours, PrivacyPlan
from model.contract.watchers import lifetime_of, observers_of
from model.privacy.gaussian import gaussian_epsilon
from model.privacy.mechanism import GaussianRelease

TRAINING = GaussianRelease("training", 20.0, 1.0, 1, 1.0, "train")
HELPERS = f"{gaussian_epsilon(math.sqrt(60) / 10, 1e-5):.4g}"  # sixty releases at half of z 20
HELPER = {"helper_key": "ab" * 32}


def found(mode: str, parts: dict[str, Any], **changes: Any) -> list[Finding]:
    """All that is said of one training release of a mode, where the summary says `changes` beside what holds."""
    privacy = PrivacyPlan(mode, 1e-5, 1.0, "zero-out", "phone", (TRAINING,), **parts)
    said = {**observers_of(privacy).to_dict(), "lifetime": lifetime_of(privacy), **changes}
    evidence: Any = SimpleNamespace(
        plan=SimpleNamespace(privacy=privacy), charges=[Charge("training", 0, TRAINING)], summary={"epsilon": said}
    )
    return list(check_epsilon(evidence))


@pytest.mark.parametrize(
    ("mode", "parts", "end"),
    [
        ("central", {}, " against whoever reads releases"),
        ("local", {}, " against the coordinator"),
        ("pairwise", {"honest": 30, "neighbours": Neighbours(10, 6, 0.1, 0.1)}, " against the coordinator"),
        ("helper", HELPER, " against the coordinator"),
        ("helper", {**HELPER, "coordinator_noise": 0.5}, f" against the coordinator, {HELPERS} against the helper"),
    ],
)
def test_the_years_name_whom_they_are_against(mode: str, parts: dict[str, Any], end: str) -> None:
    (years,) = [f for f in found(mode, parts) if f.check == "lifetime"]
    assert years.holds and years.sentence.startswith("every month for five years comes to ε ")
    assert years.sentence.endswith(end)


def test_a_share_of_noise_that_is_not_the_plans_is_found() -> None:
    parts = {**HELPER, "coordinator_noise": 0.5}
    assert not [f for f in found("helper", parts, coordinator_noise=0.5) if f.holds is False]  # control
    (wrong,) = [f for f in found("helper", parts, coordinator_noise=1.0) if f.holds is False]
    assert "the coordinator adds 0.5 of the helper's noise by the plan, but the summary says 1.0" in wrong.sentence
