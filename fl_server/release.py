"""Publish a released model as a TUF repository, targets and root signed 2-of-2 (TUF 1.0, spec 8.2).

    <repository>/metadata/  N.root.json  N.targets.json  N.snapshot.json  timestamp.json
    <repository>/targets/   <name>/<sha256>.model.onnx   <name>/<sha256>.manifest.cbor

Every file appears by atomic rename and `timestamp.json` last, so a reader sees one whole version or the one before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (  # type: ignore[attr-defined]
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from fl_server.keys import replace_file
from model.contract import envelope
from model.contract.canonical import decode, sha256_hex
from model.contract.envelope import SigningKey
from model.contract.release import DOMAIN, THRESHOLD, ReleaseManifest
from model.errors import RunError, TrustError

DAY = 86_400
T = TypeVar("T", Root, Targets, Snapshot, Timestamp)


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
class ReleaseKeys:
    """Who signs: release key and reviewer key for root, targets and manifest; `online` for snapshot and timestamp.

    Without `online` the release key signs those two as well.
    """

    release: SigningKey
    reviewer: SigningKey
    online: SigningKey | None = None

    @property
    def pair(self) -> tuple[SigningKey, SigningKey]:
        """The two keys that must both sign."""
        return (self.release, self.reviewer)

    @property
    def freshness(self) -> SigningKey:
        """The key of snapshot and timestamp."""
        return self.online or self.release


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
    repository = _Repository(folder)
    repository.check_newer(manifest)
    signed = envelope.sign(DOMAIN, manifest.to_dict(), keys.pair)
    files = {f"{manifest.name}/model.onnx": onnx, f"{manifest.name}/manifest.cbor": signed.to_bytes()}
    root = repository.ensure_root(keys, now + lives.root)
    kept = {path: info for path, info in repository.targets().items() if path not in files}
    repository.write_targets(files, kept, keys, now + lives.targets)
    repository.write_freshness(keys.freshness, now + lives.snapshot, now + lives.timestamp)
    return Published(root, signed.payload_digest, signed.to_bytes(), manifest.version)


def refresh(folder: Path, key: SigningKey, *, now: int, lifetimes: Lifetimes | None = None) -> None:
    """Sign a new snapshot and timestamp over the same targets: the daily job that keeps phones scoring."""
    lives = lifetimes or Lifetimes()
    _Repository(folder).write_freshness(key, now + lives.snapshot, now + lives.timestamp)


def rotate(folder: Path, old: ReleaseKeys, new: ReleaseKeys, *, now: int, lifetimes: Lifetimes | None = None) -> bytes:
    """Revoke `old` for `new`: a next root signed by both pairs, every release signed again; returns that root."""
    lives = lifetimes or Lifetimes()
    repository = _Repository(folder)
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
    return _Repository(folder).read("1.root")


def _check(onnx: bytes, manifest: ReleaseManifest, keys: ReleaseKeys) -> None:
    if not manifest.gate.passed:
        raise TrustError(
            f"the gate refused this model ({manifest.gate.reasons[0]}); train it longer or with more phones"
        )
    if manifest.model_digest != sha256_hex(onnx) or manifest.onnx_bytes != len(onnx):
        raise TrustError("the manifest does not describe this model; write it again from the exported bytes")
    if keys.release.keyid == keys.reviewer.keyid:
        raise TrustError("release key and reviewer key are the same; a second person must hold the reviewer key")


class _Repository:
    """The files of one repository, read and written through python-tuf's metadata objects."""

    def __init__(self, folder: Path) -> None:
        self.metadata, self.content = Path(folder) / "metadata", Path(folder) / "targets"
        try:
            self.metadata.mkdir(parents=True, exist_ok=True)
            self.content.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"the repository {folder} cannot be made ({error.strerror}); choose another") from error

    def version(self, role: str) -> int:
        """Newest version of `role` on disk, 0 when there is none."""
        if role == Timestamp.type:
            found = self._load(Timestamp, "timestamp") if (self.metadata / "timestamp.json").exists() else None
            return found.version if found else 0
        numbers = (path.name.split(".")[0] for path in self.metadata.glob(f"*.{role}.json"))
        return max((int(number) for number in numbers if number.isdecimal()), default=0)

    def read(self, name: str) -> bytes:
        """Bytes of `<name>.json`; RunError when it is missing."""
        try:
            return (self.metadata / f"{name}.json").read_bytes()
        except OSError as error:
            raise RunError(f"the repository lacks {name}.json ({error.strerror}); publish a release first") from error

    def targets(self) -> Mapping[str, TargetFile]:
        """Target files of the newest targets metadata."""
        version = self.version(Targets.type)
        return self._load(Targets, f"{version}.targets").targets if version else {}

    def files(self) -> dict[str, bytes]:
        """Path and bytes of every published target."""
        return {path: self._path(path, info.hashes["sha256"]).read_bytes() for path, info in self.targets().items()}

    def check_newer(self, manifest: ReleaseManifest) -> None:
        """TrustError unless `manifest.version` is above the one published under its name."""
        path = f"{manifest.name}/manifest.cbor"
        info = self.targets().get(path)
        if info is None:
            return
        signed = envelope.Signed.from_bytes(self._path(path, info.hashes["sha256"]).read_bytes())
        last = ReleaseManifest.from_dict(decode(signed.payload)).version
        if manifest.version <= last:
            raise TrustError(f"release {manifest.name} is at version {last}; publish version {last + 1} or above")

    def ensure_root(self, keys: ReleaseKeys, expires: int) -> bytes:
        """The bootstrap root, made the first time."""
        if not self.version(Root.type):
            self.write_root(keys, keys.pair, expires)
        return self.read("1.root")

    def write_root(self, keys: ReleaseKeys, signers: Sequence[SigningKey], expires: int) -> bytes:
        """The next root, naming `keys`, signed by `signers`."""
        root = Root(version=self.version(Root.type) + 1, expires=_time(expires), consistent_snapshot=True)
        for role, holders in (
            (Root.type, keys.pair),
            (Targets.type, keys.pair),
            (Snapshot.type, (keys.freshness,)),
            (Timestamp.type, (keys.freshness,)),
        ):
            root.roles[role] = Role([], len(holders))
            for key in holders:
                root.add_key(_public(key), role)
        return self._write(root, signers, f"{root.version}.root")

    def write_targets(
        self, files: Mapping[str, bytes], kept: Mapping[str, TargetFile], keys: ReleaseKeys, expires: int
    ) -> None:
        """Target files first, then the next targets metadata that names them."""
        named = dict(kept)
        for path, data in files.items():
            named[path] = TargetFile.from_data(path, data, ["sha256"])
            place = self._path(path, named[path].hashes["sha256"])
            place.parent.mkdir(parents=True, exist_ok=True)
            replace_file(place, data)
        version = self.version(Targets.type) + 1
        self._write(Targets(version=version, expires=_time(expires), targets=named), keys.pair, f"{version}.targets")

    def write_freshness(self, key: SigningKey, snapshot_expires: int, timestamp_expires: int) -> None:
        """The next snapshot and timestamp over the newest targets; the timestamp's rename is the moment of release."""
        top = self.version(Targets.type)
        meta = {"targets.json": _describe(top, self.read(f"{top}.targets"))}
        version = self.version(Snapshot.type) + 1
        snapshot = Snapshot(version=version, expires=_time(snapshot_expires), meta=meta)
        data = self._write(snapshot, [key], f"{version}.snapshot")
        stamp = Timestamp(version=self.version(Timestamp.type) + 1, expires=_time(timestamp_expires))
        stamp.snapshot_meta = _describe(version, data)
        self._write(stamp, [key], "timestamp")

    def _path(self, target: str, digest: str) -> Path:
        name, _, file = target.rpartition("/")
        return self.content / name / f"{digest}.{file}"

    def _load(self, kind: type[T], name: str) -> T:
        try:
            return Metadata[T].from_bytes(self.read(name)).signed
        except RepositoryError as error:
            raise RunError(f"the repository's {name}.json is damaged ({error}); restore it from a copy") from error

    def _write(self, part: T, signers: Sequence[SigningKey], name: str) -> bytes:
        metadata: Metadata[T] = Metadata(part)
        for key in {key.keyid: key for key in signers}.values():
            metadata.sign(_signer(key), append=True)
        data = metadata.to_bytes()
        replace_file(self.metadata / f"{name}.json", data)
        return data


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _describe(version: int, data: bytes) -> MetaFile:
    return MetaFile.from_data(version, data, ["sha256"])


def _public(key: SigningKey) -> SSlibKey:
    # TUF leaves the form of a key id open: ours is the envelope's, so one name serves metadata and manifest.
    return SSlibKey(key.keyid, "ed25519", "ed25519", {"public": key.public_bytes.hex()})


def _signer(key: SigningKey) -> CryptoSigner:
    return CryptoSigner(Ed25519PrivateKey.from_private_bytes(key.private_bytes()), _public(key))
