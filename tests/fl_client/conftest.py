"""A small real release, a lender and a device home for the tests of the device rooms."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_client.identity import LenderCard
from model.canonical import encode, sha256_hex
from model.contract.envelope import SigningKey, sign
from model.contract.sealed import RecipientKey
from model.risk.registry import default_schema
from model.risk.schema import Feature, Schema

NOW = 1_900_000_000
DAY = 86_400
PURPOSE = "personal loan"
PLAN_DIGEST = "ab" * 32


@dataclass(frozen=True)
class Release:
    """An ONNX file, its manifest as a dict, and the schema it was made for."""

    onnx: bytes
    manifest: dict[str, Any]
    schema: Schema


@dataclass(frozen=True)
class Lender:
    """A lender's private keys and its signed card."""

    hpke: RecipientKey
    signing: SigningKey
    card_bytes: bytes
    card: LenderCard


def make_lender(audience: str, *, name: str = "Test Lender", expires_at: int = NOW + 90 * DAY, **other: Any) -> Lender:
    hpke, signing = RecipientKey.generate(), SigningKey.generate()
    payload = {
        "name": name,
        "audience": audience,
        "hpke_public": hpke.public_bytes.hex(),
        "signing_public": signing.public_bytes.hex(),
        "purposes": [PURPOSE],
        "rate_card": {},
        "expires_at": expires_at,
        **other,
    }
    data = sign("lender/1", payload, [signing]).to_bytes()
    return Lender(hpke, signing, data, LenderCard.read(data, 0))


def make_release(schema: Schema, **changes: Any) -> Release:
    """An additive model with made-up weights: a feature's sign is followed, its missing flag raises the PD."""
    from model.contract.release import ReleaseManifest
    from model.risk.calibration import Platt
    from model.risk.export import export
    from model.risk.knots import Knots
    from model.risk.network import RiskNetwork

    values, mass, theta = [], [], [-2.0]
    for feature in schema.features:
        ends = range(min(feature.buckets, 3)) if feature.kind == "category" else (feature.lower, feature.upper)
        knots = tuple(float(np.float32(v)) for v in ends)
        values.append(knots)
        mass.append((*(0.8 / len(knots) for _ in knots), 0.2))
        slope = 0.6 * (feature.sign or 1)
        theta += [slope * (i / max(len(knots) - 1, 1) - 0.5) for i in range(len(knots))] + [0.9]
    network = RiskNetwork(schema, Knots(tuple(values), tuple(mass)))
    network.load_flat(np.array(theta, dtype=np.float32))
    onnx = export(network, Platt(1.0, 0.0), schema)
    raw = {
        "name": "test",
        "version": 1,
        "schema_digest": schema.digest,
        "plan_digest": PLAN_DIGEST,
        "model_digest": sha256_hex(onnx),
        "onnx_bytes": len(onnx),
        "epsilon": {
            "released_models": 1.0,
            "participation_viewer": 1.0,
            "coordinator": None,
            "coordinator_reason": "central mode",
            "helper": None,
            "helper_reason": "no helper",
            "condition": "",
            "delta": 1e-6,
            "relation": "zero-out",
            "unit": "phone",
        },
        "gate": {"private_auc": 0.7, "private_auc_se": 0.02, "private_ece": 0.01, "passed": True, "reasons": []},
        "policy_pack": "in-rbi-2025",
        "score": {"grid": 10, "days": 30, "base": 600, "odds": 8, "pdo": 60},
        "reasons": [feature.reason for feature in schema.features],
        "features": list(schema.names),
        "created_at": NOW - DAY,
        "expires_at": NOW + 60 * DAY,
        **changes,
    }
    return Release(onnx, ReleaseManifest.from_dict(raw).to_dict(), schema)


TABLE = Schema(
    "table",
    "1",
    (
        Feature("income", lower=0.0, upper=1e6, sign=-1, required=True, source="form", reason="The income is low."),
        Feature("late", lower=0.0, upper=10.0, grid="linear", sign=1, source="bill", reason="Bills were paid late."),
        Feature("tenure", lower=0.0, upper=100.0, grid="linear", sign=-1, source="own_app", reason="The app is new."),
        Feature("unspoken", lower=0.0, upper=1.0, grid="linear", sign=1, source="upi"),
        Feature("job", kind="category", buckets=3, source="form", reason="The occupation stated."),
    ),
)


@pytest.fixture(scope="session")
def table_release() -> Release:
    """For phones that keep a ready row: five features, one of them required."""
    return make_release(TABLE)


@pytest.fixture(scope="session")
def phone_release() -> Release:
    """For phones that keep raw events: the default schema."""
    return make_release(default_schema())


@pytest.fixture(scope="session")
def lender() -> Lender:
    """One lender."""
    return make_lender("lender-one")


@pytest.fixture(scope="session")
def lenders() -> Callable[..., Lender]:
    """More of them."""
    return make_lender


@pytest.fixture
def row() -> dict[str, float]:
    """A borrower with reasons: everything but the income speaks against them."""
    return {"income": 5e5, "late": 9.0, "tenure": 2.0, "unspoken": 1.0, "job": 2.0}


@dataclass(frozen=True)
class World:
    """A published release and the files `pocketscore-device init` needs."""

    repo: Path
    root: Path
    card: Path
    schema: Path
    lender: Lender
    release: Release


@pytest.fixture(scope="session")
def first_world(tmp_path_factory: pytest.TempPathFactory, table_release: Release, lender: Lender) -> World:
    """A repository in a folder, a root file, a lender's card, the schema of a table's phone; made once."""
    from fl_server.release import ReleaseKeys, publish
    from model.contract.release import ReleaseManifest

    folder = tmp_path_factory.mktemp("world")
    keys = ReleaseKeys(SigningKey.generate(), SigningKey.generate())
    manifest = ReleaseManifest.from_dict(table_release.manifest)
    published = publish(table_release.onnx, manifest, folder / "repo", keys, now=NOW)
    files = {"root.json": published.root, "lender.card": lender.card_bytes, "schema.cbor": encode(TABLE.to_dict())}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return World(folder / "repo", *(folder / name for name in files), lender, table_release)


@pytest.fixture
def world(tmp_path: Path, first_world: World) -> World:
    """A copy of it in this test's own folder."""
    shutil.copytree(first_world.repo.parent, tmp_path, dirs_exist_ok=True)
    paths = (first_world.repo, first_world.root, first_world.card, first_world.schema)
    return World(*(tmp_path / path.name for path in paths), first_world.lender, first_world.release)


@pytest.fixture(scope="session")
def first_home(tmp_path_factory: pytest.TempPathFactory, first_world: World) -> Path:
    """An initialised home with the release installed; made once."""
    from fl_client.home import DeviceHome

    home = DeviceHome.create(
        tmp_path_factory.mktemp("first") / "home",
        repo=str(first_world.repo),
        root=first_world.root.read_bytes(),
        cards=[first_world.lender.card_bytes],
        now=NOW,
        schema=first_world.release.schema,
    )
    home.trusted.update(first_world.repo, now=NOW)
    return home.path
