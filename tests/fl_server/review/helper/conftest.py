"""A helper's home, a plan for it signed by both, and phones that send it sealed seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_server.review.helper.desk import HelperDesk
from fl_server.review.helper.home import HelperHome, Settings
from fl_server.review.helper.records import read_log
from model.contract.envelope import Signed, SigningKey, keyid, sign, verify
from model.contract.masked import BATCH_SCHEMA, REFUSAL_DOMAIN, SHARE_DOMAIN, BatchRequest, Refusal, Share
from model.contract.plan import DOMAIN, LocalTraining, ModelChoice, ServerOptimiser, TrainingPlan
from model.contract.promise import PrivacyPlan
from model.privacy.mechanism import GaussianRelease
from model.privacy.noise import SeededSource
from model.risk.knots import histogram_sensitivity
from model.risk.schema import Feature, Schema
from model.secagg.context import Context
from model.secagg.two_server import Shielded, shield

SCHEMA = Schema("table", "1", (Feature("income", lower=0.0, upper=1e6), Feature("delay", lower=0.0, upper=90.0)))
DIM = 20
MODEL = "ab" * 32
NOW = 1_800_000_000
CLIP = 0.5


@dataclass
class Bench:
    """A helper with those who ask it. `plan` and `request` make what is right; keywords put a fault in."""

    home: HelperHome
    coordinator: SigningKey = field(default_factory=SigningKey.generate)
    reviewer: SigningKey = field(default_factory=SigningKey.generate)
    clock: float = NOW

    def desk(self) -> HelperDesk:
        return HelperDesk(self.home, clock=lambda: self.clock)

    def plan(self, **changes: Any) -> TrainingPlan:
        """A plan of two rounds; keywords of its privacy part go there."""
        charges = (
            GaussianRelease("knots", 8.0, histogram_sensitivity(SCHEMA), 1, 1.0, "train"),
            GaussianRelease("training", 8.0, CLIP, 2, 1.0, "train"),
            GaussianRelease("evaluation", 8.0, 1.0, 1, 1.0, "holdout"),
        )
        privacy = PrivacyPlan(
            "helper", 1e-5, 4.0, "zero-out", "phone", charges, helper_key=self.home.hpke.public_bytes.hex()
        )
        known = {name for name in PrivacyPlan.__dataclass_fields__ if name in changes}
        privacy = replace(privacy, **{name: changes.pop(name) for name in known})
        plan = TrainingPlan(
            name="small",
            purpose="show what a helper does",
            created_at=NOW,
            schema=SCHEMA,
            review_features=(),
            policy_pack="in-rbi-2025",
            topology="farm",
            phones=60,
            holdout_phones=35,
            min_cohort=30,
            rounds=2,
            participation=1.0,
            model=ModelChoice("additive", (), 4),
            local=LocalTraining(1, 1.0, 0, 0.0, CLIP),
            server=ServerOptimiser("fedavg", 1.0, 0.8, 0.5, 0.0, 0.99, 1e-3),
            privacy=privacy,
            simulation=True,
        )
        return replace(plan, **changes)

    def signed(self, plan: TrainingPlan, keys: Sequence[SigningKey] | None = None) -> bytes:
        return sign(DOMAIN, plan.to_dict(), [self.coordinator, self.reviewer] if keys is None else keys).to_bytes()

    def context(self, plan: TrainingPlan, **changes: Any) -> Context:
        return Context(
            **{"plan_digest": plan.digest, "kind": "train", "round": 1, "model_digest": MODEL, "dim": DIM, **changes}
        )

    def phone(self, context: Context, place: int = 0) -> Shielded:
        """One phone's message, the same for the same context and place; its units are the integers from `place`."""
        units = np.arange(context.dim, dtype=np.int64) + place
        label = f"{context.digest}/{place}"
        return shield(units, self.home.hpke.public_bytes, context, SeededSource(1, label))

    def phones(self, context: Context, count: int = 30) -> list[Shielded]:
        return [self.phone(context, place) for place in range(count)]

    def request(self, plan: TrainingPlan, messages: Sequence[Shielded] | None = None, **changes: Any) -> BatchRequest:
        """A batch about train round 1; `seeds`, `signed` and `count` are faults beside the request's own fields."""
        place = {name: changes.pop(name) for name in ("kind", "round", "model_digest", "dim") if name in changes}
        context = self.context(plan, **place)
        if messages is None:
            messages = self.phones(context, changes.pop("count", 30))
        seeds = changes.pop("seeds", b"".join(each.seed for each in messages))
        envelope = changes.pop("signed", None) or self.signed(plan)
        return BatchRequest(
            BATCH_SCHEMA, envelope, context.round, context.kind, context.model_digest, context.dim, seeds
        )

    def share(self, signed: Signed) -> Share:
        return Share.from_dict(verify(signed, SHARE_DOMAIN, self.ring))

    def refusal(self, signed: Signed) -> Refusal:
        return Refusal.from_dict(verify(signed, REFUSAL_DOMAIN, self.ring))

    @property
    def ring(self) -> dict[str, bytes]:
        public = self.home.signing.public_bytes
        return {keyid(public): public}


def events(bench: Bench) -> list[str]:
    """What the log says happened, oldest first."""
    return [each["event"] for each in read_log(bench.home.store, bench.home.signing.public_bytes)]


Make = Callable[..., Bench]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Benches with settings of one's own."""

    def one(name: str = "helper", **settings: Any) -> Bench:
        coordinator, reviewer = SigningKey.generate(), SigningKey.generate()
        trust = {"coordinator": coordinator.public_bytes, "reviewer": reviewer.public_bytes}
        home = HelperHome.init(tmp_path / name, trust, Settings(**settings))
        return Bench(home, coordinator, reviewer)

    return one


@pytest.fixture
def bench(make: Make) -> Bench:
    return make()


@pytest.fixture
def desk(bench: Bench) -> Iterator[HelperDesk]:
    with bench.desk() as opened:
        yield opened
