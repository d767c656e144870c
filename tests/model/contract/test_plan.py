"""The plan: exact fields, one digest, and what cannot be written down."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from model.canonical import decode, encode
from model.contract.envelope import Signed, SigningKey, sign, verify
from model.contract.plan import DOMAIN, LocalTraining, ModelChoice, ServerOptimiser, TrainingPlan
from model.contract.promise import Neighbours, PrivacyPlan
from model.errors import ContractError, PocketScoreError
from model.privacy.gaussian import gaussian_epsilon
from model.privacy.mechanism import GaussianRelease
from model.risk.schema import Feature, Schema

SCHEMA = Schema("s", "1", (Feature("age_of_phone"), Feature("tier", kind="category", buckets=3)))
CHARGE = GaussianRelease("training", 20.0, 1.0, 20, 1.0, "train")
PRIVACY = PrivacyPlan("central", 1e-5, 2.0, "zero-out", "phone", (CHARGE,))
LOCAL = LocalTraining(1, 0.5, 0, 0.0, 1.0)
SERVER = ServerOptimiser("fedavg", 1.0, 0.8, 0.5, 0.0, 0.99, 1e-8)
PLAN = TrainingPlan(
    name="demo",
    purpose="credit risk",
    created_at=1_770_000_000,
    schema=SCHEMA,
    review_features=(),
    policy_pack="in-rbi-2025",
    topology="farm",
    phones=1000,
    holdout_phones=250,
    min_cohort=30,
    rounds=20,
    participation=1.0,
    model=ModelChoice(),
    local=LOCAL,
    server=SERVER,
    privacy=PRIVACY,
)


def test_round_trip_keeps_the_digest() -> None:
    again = TrainingPlan.from_dict(decode(encode(PLAN.to_dict())))
    assert again == PLAN and again.digest == PLAN.digest
    assert PLAN.to_dict()["schema_digest"] == SCHEMA.digest
    assert PLAN.expected_cohort == 1000.0


def test_a_plan_travels_signed_by_two() -> None:
    keys = [SigningKey.generate(), SigningKey.generate()]
    signed = Signed.from_bytes(sign(DOMAIN, PLAN.to_dict(), keys).to_bytes())
    payload = verify(signed, DOMAIN, {k.keyid: k.public_bytes for k in keys}, threshold=2)
    assert TrainingPlan.from_dict(payload) == PLAN and signed.payload_digest == PLAN.digest


def test_one_value_has_one_digest() -> None:
    assert replace(PLAN, participation=1) == PLAN
    assert replace(PLAN, participation=1).digest == PLAN.digest
    assert replace(PLAN, review_features=[]).digest == PLAN.digest  # type: ignore[arg-type]
    assert replace(PLAN, rounds=21).digest != PLAN.digest


def test_every_field_is_needed_and_no_other_is_taken() -> None:
    raw = PLAN.to_dict()
    for name in raw:
        with pytest.raises(PocketScoreError):
            TrainingPlan.from_dict({key: value for key, value in raw.items() if key != name})
    with pytest.raises(ContractError, match="weight"):
        TrainingPlan.from_dict({**raw, "weight": 1})
    with pytest.raises(ContractError, match="schema_digest"):
        TrainingPlan.from_dict([])  # type: ignore[arg-type]
    assert TrainingPlan.from_dict(raw) == PLAN


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rounds", "20"),
        ("rounds", 20.0),
        ("rounds", True),
        ("name", 3),
        ("simulation", 1),
        ("participation", "1"),
        ("participation", float("nan")),
        ("review_features", "abc"),
        ("review_features", [1]),
        ("model", []),
        ("model", {}),
        ("privacy", None),
        ("schema", {"name": "s"}),
        ("schema", []),
    ],
)
def test_wrong_types_are_refused(field: str, value: Any) -> None:
    with pytest.raises(PocketScoreError):
        TrainingPlan.from_dict({**PLAN.to_dict(), field: value})


def test_a_schema_swapped_under_its_digest_is_refused() -> None:
    other = replace(SCHEMA, version="2")
    with pytest.raises(ContractError, match="digest"):
        TrainingPlan.from_dict({**PLAN.to_dict(), "schema": other.to_dict()})
    swapped = {**PLAN.to_dict(), "schema": other.to_dict(), "schema_digest": other.digest}
    assert TrainingPlan.from_dict(swapped).digest != PLAN.digest


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"name": ""}, "name"),
        ({"purpose": ""}, "purpose"),
        ({"topology": "cloud"}, "topology"),
        ({"phones": 0}, "phone"),
        ({"holdout_phones": -1}, "count"),
        ({"min_cohort": 0}, "cohort"),
        ({"rounds": 0}, "rounds"),
        ({"rounds": 10_001}, "rounds"),
        ({"participation": 0.0}, "participation"),
        ({"participation": 1.5}, "participation"),
        ({"response": 0.0}, "response"),
        ({"response": 1.01}, "response"),
        ({"score_grid": 0}, "grid"),
        ({"score_days": 0}, "score"),
        ({"min_observed_days": -1}, "score_days"),
        ({"seed": -1}, "seed"),
        ({"created_at": -1}, "created"),
        ({"review_features": ("nobody",)}, "nobody"),
    ],
)
def test_plan_ranges(change: dict[str, Any], word: str) -> None:
    with pytest.raises(ContractError, match=word):
        replace(PLAN, **change)


@pytest.mark.parametrize(
    ("field", "value"),
    [("source", 5), ("profile", None), ("reason", b""), ("buckets", 3.0), ("required", 1), ("values", [1, 2, 3])],
)
def test_a_feature_of_wrong_types_is_refused(field: str, value: Any) -> None:
    raw = PLAN.to_dict()
    raw["schema"]["features"][1][field] = value
    raw["schema_digest"] = Schema.from_dict(raw["schema"]).digest
    with pytest.raises(ContractError, match=f"Feature.{field}"):
        TrainingPlan.from_dict(raw)


HELPER = {"mode": "helper", "helper_key": "ab" * 32}
PAIRWISE = {"mode": "pairwise", "honest": 700, "neighbours": Neighbours(68, 43, 0.2, 0.1)}


@pytest.mark.parametrize(
    "change", [HELPER, {**HELPER, "coordinator_noise": 0.5}, PAIRWISE, {"mode": "local"}, {"mode": "central"}]
)
def test_every_mode_travels(change: dict[str, Any]) -> None:
    plan = replace(PLAN, privacy=replace(PRIVACY, **change))
    assert TrainingPlan.from_dict(plan.to_dict()) == plan


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "helper"},
        {"mode": "helper", "helper_key": "AB" * 32},
        {"helper_key": "ab" * 32},
        {**PAIRWISE, "helper_key": "ab" * 32},
        {**PAIRWISE, "honest": 0},
        {**PAIRWISE, "neighbours": Neighbours()},
        {"honest": 3},
        {"neighbours": Neighbours(68, 43, 0.2, 0.1)},
        {**HELPER, "honest": 3},
        {"coordinator_noise": 0.5},
        {**PAIRWISE, "coordinator_noise": 0.5},
        {**HELPER, "coordinator_noise": 0.0},
        {**HELPER, "coordinator_noise": -0.5},
        {**HELPER, "coordinator_noise": 1.5},
    ],
)
def test_a_part_of_another_mode_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ContractError, match="mode"):
        replace(PRIVACY, **change)


def test_a_plan_signed_before_the_coordinators_share_is_refused() -> None:
    raw = PLAN.to_dict()
    old = {name: value for name, value in raw["privacy"].items() if name != "coordinator_noise"}
    with pytest.raises(ContractError, match="coordinator_noise"):
        TrainingPlan.from_dict({**raw, "privacy": old})


def test_a_coordinators_share_of_noise_is_part_of_the_digest_and_of_what_is_weakest() -> None:
    equal, less = (replace(PRIVACY, **HELPER, coordinator_noise=share) for share in (1, 0.5))
    assert equal == replace(PRIVACY, **HELPER) and equal.digest != less.digest
    assert equal.weakest(CHARGE) == CHARGE == PRIVACY.weakest(CHARGE)
    assert less.weakest(CHARGE) == replace(CHARGE, noise_multiplier=10.0)
    assert less.helper_epsilon == pytest.approx(gaussian_epsilon(math.sqrt(20) / 10, 1e-5))
    assert equal.helper_epsilon == pytest.approx(gaussian_epsilon(math.sqrt(20) / 20, 1e-5))


def test_a_coordinators_noise_below_two_grid_units_is_refused() -> None:
    """20 · .1 is two units on a grid of one; below, and on a charge without noise, there is nothing to account."""
    coarse = replace(PRIVACY, **HELPER, grid_scale=1)
    assert replace(coarse, coordinator_noise=0.1).coordinator_noise == 0.1
    for wrong in (
        {"coordinator_noise": 0.099},
        {"coordinator_noise": 0.5, "charges": (replace(CHARGE, noise_multiplier=0),)},
    ):
        with pytest.raises(ContractError, match="2 grid units"):
            replace(coarse, **wrong)


@pytest.mark.parametrize(
    "numbers", [(-1, 0, 0, 0), (68, 0, 0, 0), (68, 69, 0, 0), (0, 1, 0, 0), (2, 1, 1.0, 0), (2, 1, 0, -0.1)]
)
def test_neighbours_out_of_range_are_refused(numbers: tuple[int, int, float, float]) -> None:
    with pytest.raises(ContractError):
        Neighbours(*numbers)


@pytest.mark.parametrize("aggregation", ["median", "trimmed-mean", "multikrum", "rfa"])
def test_robust_aggregation_needs_a_plaintext_simulation(aggregation: str) -> None:
    with pytest.raises(ContractError, match="clear"):
        replace(PLAN, aggregation=aggregation, simulation=True)
    off = replace(PRIVACY, mode="off", charges=())
    assert replace(PLAN, aggregation=aggregation, simulation=True, privacy=off).aggregation == aggregation
    with pytest.raises(ContractError, match="clear"):
        replace(PLAN, aggregation=aggregation, simulation=False, privacy=off)
    with pytest.raises(ContractError, match="aggregates"):
        replace(PLAN, aggregation="sum")


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "magic"},
        {"delta": 0.0},
        {"delta": 1.0},
        {"epsilon_budget": 0.0},
        {"relation": "add-remove"},
        {"unit": "token"},
        {"noise_source": "numpy"},
        {"grid_scale": 0},
        {"charges": ()},
    ],
)
def test_privacy_ranges(change: dict[str, Any]) -> None:
    with pytest.raises(ContractError):
        replace(PRIVACY, **change)


def test_only_mode_off_goes_without_charges() -> None:
    assert replace(PRIVACY, mode="off", charges=()).charges == ()


@pytest.mark.parametrize(
    ("good", "change"),
    [
        (ModelChoice(), {"kind": "forest"}),
        (ModelChoice(), {"kind": "mlp"}),
        (ModelChoice(), {"hidden": (8,)}),
        (ModelChoice("mlp", (64, 32)), {"hidden": (0,)}),
        (ModelChoice(), {"knots": 1}),
        (LOCAL, {"local_steps": 0}),
        (LOCAL, {"local_epochs": 1}),
        (LOCAL, {"local_steps": 0, "local_epochs": 101}),
        (LOCAL, {"learning_rate": 0.0}),
        (LOCAL, {"batch_size": -1}),
        (LOCAL, {"prox": -1.0}),
        (LOCAL, {"clip_norm": 0.0}),
        (LOCAL, {"clip_norm": float("inf")}),
        (SERVER, {"name": "sgd"}),
        (SERVER, {"learning_rate": 0.0}),
        (SERVER, {"momentum": 1.0}),
        (SERVER, {"average_from": 1.1}),
        (SERVER, {"l2": -1.0}),
        (SERVER, {"beta2": 1.0}),
        (SERVER, {"epsilon": -1.0}),
    ],
)
def test_part_ranges(good: Any, change: dict[str, Any]) -> None:
    with pytest.raises(ContractError):
        replace(good, **change)
