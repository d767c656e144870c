"""Publishing: versions go up, files appear whole, the two keys differ, the gate has spoken; keys stay private."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata

from fl_server import release, repository
from fl_server.keys import KeyRing, load_key, replace_file, save_key
from fl_server.release import DAY, Lifetimes, ReleaseKeys
from model.canonical import sha256_hex
from model.contract import envelope
from model.contract.envelope import SigningKey
from model.contract.release import EpsilonCard, GateFigures, ReleaseManifest, ScoreScale
from model.contract.repository import Repository, verify
from model.errors import InputError, RunError, TrustError

NOW = 1_800_000_000
ONNX = b"any bytes: the repository does not read them"


def key(byte: int) -> SigningKey:
    return SigningKey.from_private_bytes(bytes([byte]) * 32)


KEYS = ReleaseKeys(release=key(1), reviewer=key(2))


def manifest(version: int = 1, onnx: bytes = ONNX, **changes: Any) -> ReleaseManifest:
    fields: dict[str, Any] = {
        "name": "demo",
        "version": version,
        "schema_digest": "5c" * 32,
        "plan_digest": "9a" * 32,
        "model_digest": sha256_hex(onnx),
        "onnx_bytes": len(onnx),
        "epsilon": EpsilonCard(
            1.5, None, None, "central mode: the coordinator adds the noise", 1e-6, "zero-out", "phone"
        ),
        "gate": GateFigures(0.75, 0.01, 0.01, True, ()),
        "policy_pack": "in-rbi-2025",
        "score": ScoreScale(10, 30),
        "reasons": ("income varies",),
        "features": ("income",),
        "created_at": NOW,
        "expires_at": NOW + 60 * DAY,
    }
    return ReleaseManifest(**{**fields, **changes})


def publish(folder: Path, version: int = 1, keys: ReleaseKeys = KEYS, **changes: Any) -> release.Published:
    return release.publish(ONNX, manifest(version, **changes), folder, keys, now=NOW)


def newest(folder: Path) -> Repository:
    """What a phone would see now, following `timestamp.json` down."""
    metadata = folder / "metadata"
    stamp = (metadata / "timestamp.json").read_bytes()
    snapshot = Metadata.from_bytes(stamp).signed.snapshot_meta.version  # type: ignore[attr-defined]
    body = (metadata / f"{snapshot}.snapshot.json").read_bytes()
    targets = Metadata.from_bytes(body).signed.meta["targets.json"].version  # type: ignore[attr-defined]
    roots = sorted(metadata.glob("*.root.json"), key=lambda path: int(path.name.split(".")[0]))
    top = (metadata / f"{targets}.targets.json").read_bytes()
    return verify([path.read_bytes() for path in roots], stamp, body, top, now=NOW)


def test_a_release_is_signed_by_both_and_found(tmp_path: Path) -> None:
    done = publish(tmp_path)
    found = newest(tmp_path)
    assert done.root == release.bootstrap_root(tmp_path)
    assert set(found.targets) == {"demo/model.onnx", "demo/manifest.cbor"}
    assert found.targets_threshold == 2 and set(found.targets_keys) == {key(1).keyid, key(2).keyid}
    found.check_target("demo/model.onnx", ONNX)
    found.check_target("demo/manifest.cbor", done.manifest)
    with pytest.raises(TrustError, match="not the one that was signed"):
        found.check_target("demo/model.onnx", ONNX + b"!")
    with pytest.raises(TrustError, match="names no file"):
        found.check_target("demo/other", ONNX)
    signed = envelope.Signed.from_bytes(done.manifest)
    payload = envelope.verify(signed, "release/1", found.targets_keys, threshold=2)
    assert ReleaseManifest.from_dict(payload) == manifest() and signed.payload_digest == done.digest
    assert (tmp_path / "targets" / "demo" / f"{sha256_hex(ONNX)}.model.onnx").read_bytes() == ONNX


def test_versions_increment_and_other_releases_stay(tmp_path: Path) -> None:
    publish(tmp_path)
    publish(tmp_path, 1, name="second")
    publish(tmp_path, 2)
    names = {path.name for path in (tmp_path / "metadata").iterdir()}
    assert {"1.root.json", "3.targets.json", "3.snapshot.json", "timestamp.json"} <= names
    assert "2.root.json" not in names
    assert {path.split("/")[0] for path in newest(tmp_path).targets} == {"demo", "second"}
    assert newest(tmp_path).timestamp_version == 3


def test_same_inputs_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        publish(tmp_path / name)
    for path in sorted((tmp_path / "a").rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_what_is_not_published(tmp_path: Path) -> None:
    refused = GateFigures(0.5, 0.01, 0.01, False, ("the private AUC 0.5 is too low",))
    with pytest.raises(TrustError, match=r"the gate refused this model .the private AUC"):
        publish(tmp_path, gate=refused)
    with pytest.raises(TrustError, match="does not describe this model"):
        release.publish(b"other", manifest(), tmp_path, KEYS, now=NOW)
    with pytest.raises(TrustError, match="second person"):
        publish(tmp_path, keys=ReleaseKeys(key(1), key(1)))
    assert not any(tmp_path.iterdir())
    publish(tmp_path, 4)
    before = newest(tmp_path)
    for version in (3, 4):
        with pytest.raises(TrustError, match="publish version 5 or above"):
            publish(tmp_path, version)
    assert newest(tmp_path) == before


def test_a_crash_before_the_timestamp_leaves_the_old_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path)
    before = newest(tmp_path)

    def crash(path: Path, data: bytes, mode: int = 0o644) -> None:
        if path.name == "timestamp.json":
            raise OSError(28, "No space left on device")
        replace_file(path, data, mode)

    with monkeypatch.context() as patch:
        patch.setattr(repository, "replace_file", crash)
        with pytest.raises(OSError, match="No space"):
            publish(tmp_path, 2)
    assert newest(tmp_path) == before
    assert not list(tmp_path.rglob(".*"))  # no half-written file stays
    publish(tmp_path, 3)
    assert newest(tmp_path).timestamp_version == 2


def test_refresh_moves_the_expiry_alone(tmp_path: Path) -> None:
    publish(tmp_path)
    first = newest(tmp_path)
    release.refresh(tmp_path, key(1), now=NOW + 600, lifetimes=Lifetimes(timestamp=2 * DAY))
    second = newest(tmp_path)
    assert second.targets == first.targets
    assert (first.expires_at, second.expires_at) == (NOW + DAY, NOW + 600 + 2 * DAY)


def test_rotation_signs_everything_again(tmp_path: Path) -> None:
    publish(tmp_path)
    new = ReleaseKeys(key(4), key(5), key(6))
    root = release.rotate(tmp_path, KEYS, new, now=NOW)
    found = newest(tmp_path)
    assert found.root_version == 2 and set(found.targets_keys) == {key(4).keyid, key(5).keyid}
    assert root == (tmp_path / "metadata" / "2.root.json").read_bytes()
    publish(tmp_path, 2, keys=new)
    assert newest(tmp_path).timestamp_version == 3


def test_a_repository_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="publish a release first"):
        release.refresh(tmp_path / "none", key(1), now=NOW)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RunError, match="cannot be made"):
        publish(tmp_path / "file")
    publish(tmp_path / "ok")
    (tmp_path / "ok" / "metadata" / "timestamp.json").write_bytes(b"{")
    with pytest.raises(RunError, match=r"timestamp\.json is damaged"):
        publish(tmp_path / "ok", 2)


def test_keys_are_files_of_their_owner(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "keys")
    made = ring.ensure("release")
    path = tmp_path / "keys" / "release.key"
    assert path.stat().st_mode & 0o777 == 0o600 and (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert ring.ensure("release").keyid == made.keyid == ring.load("release").keyid
    assert ring.ensure("reviewer").keyid != made.keyid
    assert ring.names() == ("release", "reviewer")
    save_key(path, key(9))
    assert load_key(path).keyid == key(9).keyid


def test_key_files_that_are_refused(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "keys")
    ring.ensure("release")
    path = tmp_path / "keys" / "release.key"
    path.chmod(0o640)
    with pytest.raises(InputError, match="read by others"):
        ring.load("release")
    for content, words in ((b"hello", "not a PocketScore key"), (b"\xff", "cannot be read")):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(InputError, match=words):
            ring.load("release")
    for body in ("00", "zz" * 32):
        path.write_text(f"pocketscore-ed25519-private-key/1 {body}\n")
        with pytest.raises(InputError, match="damaged"):
            ring.load("release")
    with pytest.raises(InputError, match="restore it"):
        ring.load("absent")
    with pytest.raises(InputError, match="rename it"):
        ring.load("../release")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be made"):
        KeyRing(tmp_path / "file" / "keys").ensure("release")


def test_an_interrupted_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept"
    replace_file(path, b"old")

    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="Input/output"):
            replace_file(path, b"new")
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["kept"]
