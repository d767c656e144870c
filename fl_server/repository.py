"""The files of a TUF repository, written through python-tuf's metadata objects (TUF 1.0 §4, spec 8.2)."""

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
from model.canonical import decode
from model.contract import envelope
from model.contract.envelope import SigningKey
from model.contract.release import ReleaseManifest
from model.errors import RunError, TrustError

T = TypeVar("T", Root, Targets, Snapshot, Timestamp)


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


class SignedRepository:
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
        root = Root(version=self.version(Root.type) + 1, expires=utc(expires), consistent_snapshot=True)
        for role, holders in (
            (Root.type, keys.pair),
            (Targets.type, keys.pair),
            (Snapshot.type, (keys.freshness,)),
            (Timestamp.type, (keys.freshness,)),
        ):
            root.roles[role] = Role([], len(holders))
            for key in holders:
                root.add_key(public_key(key), role)
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
        self._write(Targets(version=version, expires=utc(expires), targets=named), keys.pair, f"{version}.targets")

    def write_freshness(self, key: SigningKey, snapshot_expires: int, timestamp_expires: int) -> None:
        """The next snapshot and timestamp over the newest targets; the timestamp's rename is the moment of release."""
        top = self.version(Targets.type)
        meta = {"targets.json": describe(top, self.read(f"{top}.targets"))}
        version = self.version(Snapshot.type) + 1
        snapshot = Snapshot(version=version, expires=utc(snapshot_expires), meta=meta)
        data = self._write(snapshot, [key], f"{version}.snapshot")
        stamp = Timestamp(version=self.version(Timestamp.type) + 1, expires=utc(timestamp_expires))
        stamp.snapshot_meta = describe(version, data)
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
            metadata.sign(signer(key), append=True)
        data = metadata.to_bytes()
        replace_file(self.metadata / f"{name}.json", data)
        return data


def utc(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def describe(version: int, data: bytes) -> MetaFile:
    return MetaFile.from_data(version, data, ["sha256"])


def public_key(key: SigningKey) -> SSlibKey:
    # TUF leaves the form of a key id open: ours is the envelope's, so one name serves metadata and manifest.
    return SSlibKey(key.keyid, "ed25519", "ed25519", {"public": key.public_bytes.hex()})


def signer(key: SigningKey) -> CryptoSigner:
    return CryptoSigner(Ed25519PrivateKey.from_private_bytes(key.private_bytes()), public_key(key))
