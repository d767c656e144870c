"""A lender that trusts one release, and a phone that can address it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from fl_server.lending.book import Book
from fl_server.lending.intake import Intake
from fl_server.lending.keys import LenderHome
from model.contract.consent import ConsentReceipt
from model.contract.envelope import Signed, SigningKey, sign
from model.contract.release import EpsilonCard, GateFigures, ReleaseManifest, ScoreScale
from model.contract.score import ScoreEnvelope, seal_score
from model.contract.sealed import seal
from model.risk.scorecard import band

NOW = 1_800_000_000
DAY = 86_400
PURPOSE = "personal-loan"
MODEL = "ab" * 32


def manifest(model_digest: str = MODEL, **changes: Any) -> ReleaseManifest:
    """A release of three features, the last of which can be no reason."""
    base = ReleaseManifest(
        name="pocketscore",
        version=1,
        schema_digest="01" * 32,
        plan_digest="02" * 32,
        model_digest=model_digest,
        onnx_bytes=20_000,
        epsilon=EpsilonCard(1.5, 1.5, None, "central mode: the coordinator sees sums", 1e-6, "zero-out", "phone"),
        gate=GateFigures(0.72, 0.01, 0.01, True, ()),
        policy_pack="in-rbi-2025",
        score=ScoreScale(grid=10, days=30),
        reasons=("Bills were paid late.", "Top-ups were irregular.", ""),
        features=("bill_delay", "topup_cv", "observed_days"),
        created_at=NOW - DAY,
        expires_at=NOW + 90 * DAY,
    )
    return replace(base, **changes)


@dataclass
class Phone:
    """A phone as one lender knows it."""

    lender: LenderHome
    key: SigningKey = field(default_factory=SigningKey.generate)
    counter: int = 0

    def consent(self, key: SigningKey | None = None, **changes: Any) -> bytes:
        """A sealed receipt."""
        receipt = ConsentReceipt(
            consent_id="c" * 32,
            purpose=PURPOSE,
            audience=self.lender.audience,
            data_categories=("score",),
            sources_allowed=(),
            sources_denied=(),
            policy_pack="in-rbi-2025",
            given_at=NOW - 60,
            expires_at=NOW + 365 * DAY,
            withdrawn_at=None,
            language="en",
            controller="the borrower's own phone",
        )
        made = sign("consent/1", replace(receipt, **changes).to_dict(), [key or self.key])
        return self.sealed(made)

    def sealed(self, signed: Signed) -> bytes:
        """Any signed message, sealed to the lender."""
        info = {"purpose": PURPOSE, "audience": self.lender.audience}
        return seal(signed.to_bytes(), self.lender.hpke.public_bytes, info)

    def envelope(self, score: int = 640, **changes: Any) -> ScoreEnvelope:
        """The next envelope."""
        self.counter += 1
        base = ScoreEnvelope(
            ref=f"ref-{self.key.keyid[:6]}-{self.counter}",
            purpose=PURPOSE,
            consent_id="c" * 32,
            score=score,
            band=band(score),
            model_digest=MODEL,
            policy_pack="in-rbi-2025",
            nonce=f"{self.counter:032x}",
            counter=self.counter,
            issued_at=NOW,
            expires_at=NOW + 30 * DAY,
            audience=self.lender.audience,
            device_key=self.key.public_bytes.hex(),
        )
        return replace(base, **changes)

    def score(self, score: int = 640, **changes: Any) -> bytes:
        """The next envelope, signed and sealed."""
        return self.seal(self.envelope(score, **changes))

    def seal(self, envelope: ScoreEnvelope) -> bytes:
        """This envelope, signed and sealed."""
        return seal_score(envelope, self.key, self.lender.hpke.public_bytes)


@dataclass(frozen=True)
class ReleaseKeys:
    """The publisher's key and the reviewer's."""

    release: SigningKey
    reviewer: SigningKey

    @property
    def ring(self) -> dict[str, bytes]:
        """Key id → public bytes."""
        return {key.keyid: key.public_bytes for key in (self.release, self.reviewer)}

    def sign(self, made: ReleaseManifest) -> Signed:
        """The manifest, signed by both."""
        return sign("release/1", made.to_dict(), [self.release, self.reviewer])


@pytest.fixture
def keys() -> ReleaseKeys:
    return ReleaseKeys(SigningKey.generate(), SigningKey.generate())


@pytest.fixture
def home(tmp_path: Path, keys: ReleaseKeys) -> LenderHome:
    made = LenderHome.init(tmp_path / "lender", "Example Finance", "example-finance", [PURPOSE])
    made.trust(keys.sign(manifest()), keys.ring)
    return made


@pytest.fixture
def book(home: LenderHome) -> Iterator[Book]:
    held = home.book()
    yield held
    held.close()


@pytest.fixture
def intake(home: LenderHome, book: Book) -> Intake:
    return Intake(home.audience, home.purposes, home.hpke, home.releases(), book)


@pytest.fixture
def phone(home: LenderHome) -> Phone:
    return Phone(home)


@pytest.fixture
def now() -> int:
    return NOW


@pytest.fixture
def make_manifest() -> Any:
    return manifest


@pytest.fixture
def make_phone(home: LenderHome) -> Any:
    return lambda: Phone(home)
