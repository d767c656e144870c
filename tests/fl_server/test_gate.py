"""The gate reads charged figures alone and passes only what is known to be good."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest

from fl_server.gate import ChargedFigures, Thresholds, decide
from model.contract.release import GateFigures

GOOD = ChargedFigures(private_auc=0.75, private_auc_se=0.01, private_ece=0.01, epsilon=1.4)
LIMITS = Thresholds(max_epsilon=2.0)


def test_good_figures_pass_without_reasons() -> None:
    verdict = decide(GOOD, LIMITS)
    assert verdict.passed and verdict.reasons == ()
    assert verdict.figures(GOOD) == GateFigures(0.75, 0.01, 0.01, True, ())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"private_auc": 0.5}, "is not above 0.55"),
        ({"private_auc_se": 0.2}, "with confidence"),
        ({"private_ece": 0.2}, "calibration error 0.2000 is above 0.05"),
        ({"epsilon": 2.5}, "above the budget of 2"),
        ({"private_auc": None}, "AUC or its standard error is not known"),
        ({"private_auc_se": None}, "AUC or its standard error is not known"),
        ({"private_ece": None}, "calibration error is not known"),
        ({"epsilon": None}, "no finite epsilon"),
        ({"epsilon": math.inf}, "no finite epsilon"),
        ({"private_auc": math.nan}, "not known"),
        ({"private_auc_se": -1.0}, "not known"),
        ({"private_ece": math.nan}, "not known"),
    ],
)
def test_each_bad_figure_fails_for_its_own_reason(change: dict[str, float | None], words: str) -> None:
    figures = replace(GOOD, **change)
    verdict = decide(figures, LIMITS)
    assert not verdict.passed
    assert len(verdict.reasons) == 1 and words in verdict.reasons[0]


def test_all_reasons_are_given_at_once() -> None:
    figures = ChargedFigures(None, None, None, None)
    verdict = decide(figures, LIMITS)
    assert len(verdict.reasons) == 3
    assert not verdict.figures(figures).passed


def test_no_field_can_carry_a_simulation_only_number() -> None:
    assert {field.name for field in fields(ChargedFigures)} == {
        "private_auc",
        "private_auc_se",
        "private_ece",
        "epsilon",
    }
