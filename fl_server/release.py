"""Publish a released model as a TUF repository, targets and root signed 2-of-2 (TUF 1.0, spec 8.2).

    <repository>/metadata/  N.root.json  N.targets.json  N.snapshot.json  timestamp.json
    <repository>/targets/   <name>/<sha256>.model.onnx   <name>/<sha256>.manifest.cbor

Every file appears by atomic rename and `timestamp.json` last, so a reader sees one whole version or the one before.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fl_server.repository import ReleaseKeys, SignedRepository
from model.canonical import sha256_hex
from model.contract import envelope
from model.contract.release import DOMAIN, THRESHOLD, ReleaseManifest
from model.errors import TrustError

__all__ = ["DAY", "Lifetimes", "Published", "ReleaseKeys", "bootstrap_root", "publish", "refresh", "rotate"]

DAY = 86_400


@dataclass(frozen=True)
class Lifetimes:
    """Seconds until metadata expires. A phone that has not updated for `timestamp` seconds may not score.

    Root and targets follow the yearly and quarterly ceremonies of the public TUF repositories; `timestamp` is the
    longest that a phone can be kept on an old release (freeze).
    """

    root: int = 365 * DAY
    targets: int = 90 * DAY
    snapshot: int = 7 * DAY
    timestamp: int = DAY


@dataclass(frozen=True)
class Published:
    """`root`: the bytes a phone must be given to trust this repository; `digest`: of the manifest's payload."""

    root: bytes
    digest: str
    manifest: bytes
    version: int


def publish(
    onnx: bytes,
    manifest: ReleaseManifest,
    folder: Path,
    keys: ReleaseKeys,
    *,
    now: int,
    lifetimes: Lifetimes | None = None,
) -> Published:
    """Sign `manifest` 2-of-2 and publish it with its model; every TUF version goes up by one.

    TrustError when the gate refused, the manifest does not fit `onnx`, the two keys are one, or its version is not
    above the published one. RunError when the repository on disk cannot be used.
    """
    lives = lifetimes or Lifetimes()
    _check(onnx, manifest, keys)
    repository = SignedRepository(folder)
    repository.check_newer(manifest)
    signed = envelope.sign(DOMAIN, manifest.to_dict(), keys.pair)
    files = {f"{manifest.name}/model.onnx": onnx, f"{manifest.name}/manifest.cbor": signed.to_bytes()}
    root = repository.ensure_root(keys, now + lives.root)
    kept = {path: info for path, info in repository.targets().items() if path not in files}
    repository.write_targets(files, kept, keys, now + lives.targets)
    repository.write_freshness(keys.freshness, now + lives.snapshot, now + lives.timestamp)
    return Published(root, signed.payload_digest, signed.to_bytes(), manifest.version)


def refresh(folder: Path, key: envelope.SigningKey, *, now: int, lifetimes: Lifetimes | None = None) -> None:
    """Sign a new snapshot and timestamp over the same targets: the daily job that keeps phones scoring."""
    lives = lifetimes or Lifetimes()
    SignedRepository(folder).write_freshness(key, now + lives.snapshot, now + lives.timestamp)


def rotate(folder: Path, old: ReleaseKeys, new: ReleaseKeys, *, now: int, lifetimes: Lifetimes | None = None) -> bytes:
    """Revoke `old` for `new`: a next root signed by both pairs, every release signed again; returns that root."""
    lives = lifetimes or Lifetimes()
    repository = SignedRepository(folder)
    files = repository.files()
    for path in [path for path in files if path.endswith("/manifest.cbor")]:
        signed = envelope.Signed.from_bytes(files[path])
        ring = {key.keyid: key.public_bytes for key in old.pair}
        payload = envelope.verify(signed, DOMAIN, ring, threshold=THRESHOLD)
        files[path] = envelope.sign(DOMAIN, payload, new.pair).to_bytes()
    root = repository.write_root(new, [*old.pair, *new.pair], now + lives.root)
    repository.write_targets(files, {}, new, now + lives.targets)
    repository.write_freshness(new.freshness, now + lives.snapshot, now + lives.timestamp)
    return root


def bootstrap_root(folder: Path) -> bytes:
    """The first root of a repository: what a phone, or a reviewer, takes as its trust anchor."""
    return SignedRepository(folder).read("1.root")


def _check(onnx: bytes, manifest: ReleaseManifest, keys: ReleaseKeys) -> None:
    if not manifest.gate.passed:
        raise TrustError(
            f"the gate refused this model ({manifest.gate.reasons[0]}); train it longer or with more phones"
        )
    if manifest.model_digest != sha256_hex(onnx) or manifest.onnx_bytes != len(onnx):
        raise TrustError("the manifest does not describe this model; write it again from the exported bytes")
    if keys.release.keyid == keys.reviewer.keyid:
        raise TrustError("release key and reviewer key are the same; a second person must hold the reviewer key")
