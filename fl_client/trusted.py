"""The release this phone trusts: update it over the network, verify the installed copy offline (spec 8.4, 8.5).

`HOME/tuf/anchor.cbor` holds the first root, the release name and the phone's own schema digest; `sync/` what python-tuf
keeps between updates; `installed.cbor` one whole verified release, replaced by a single rename. `update` alone uses the
network; `load` needs nothing but these files and the time, and verifies all of it again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.canonical import decode, encode, sha256_hex
from model.contract import envelope
from model.contract.release import DOMAIN, THRESHOLD, ReleaseManifest
from model.contract.repository import Repository, verify
from model.errors import ContractError, TrustError

if TYPE_CHECKING:
    from fl_client.fetching import Sync

MAX_INSTALLED_BYTES = 4 << 20
CLOCK_SKEW = 600  # seconds that a phone's clock may run behind
_PARTS = ("timestamp", "snapshot", "targets")


@dataclass(frozen=True)
class TrustedRelease:
    """A verified release: model bytes, manifest (spec 3.3), the manifest's digest, and when the first part expires."""

    onnx: bytes
    manifest: dict[str, Any]
    digest: str
    expires_at: int
    root_version: int


class Trusted:
    """The trust store under `home`/tuf. Every refusal is a TrustError (ModelError for the model's own form)."""

    def __init__(self, home: Path | str) -> None:
        self.folder = Path(home) / "tuf"

    def init(self, root: bytes, *, schema_digest: str, name: str = "") -> None:
        """Set the trust anchor once: first root, the digest of the schema this phone computes, and the release name.

        Without a name the repository must hold one release. TrustError when another anchor is set already.
        """
        anchor = encode({"root": root, "schema_digest": schema_digest, "name": name})
        path = self.folder / "anchor.cbor"
        if path.exists() and path.read_bytes() != anchor:
            raise TrustError(f"{self.folder} trusts another root or schema already; use a new home")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(path, anchor)

    def update(self, repository: str | Path, *, now: int) -> TrustedRelease:
        """Fetch, verify and install the newest release from an http(s) address or a folder (spec 8.5).

        A model not seen before runs once under limits first. On any refusal the installed release stays as it was.
        """
        from fl_client.fetching import Sync

        anchor = self._anchor()
        with self._locked():
            sync = Sync(str(repository), self.folder / "sync", anchor["root"], now)
            parts = {role: sync.metadata(role) for role in _PARTS}
            verified = self._verify(anchor, parts, now)
            name = anchor["name"] or _only_name(verified)
            parts |= {"name": name.encode(), **self._files(sync, verified, name)}
            release = _release(verified, parts, anchor, now)
            self._check_newer(release)
            self._probe(release)
            _replace(self.folder / "installed.cbor", encode({**parts, "synced_at": now}))
            return release

    def load(self, now: int) -> TrustedRelease:
        """The installed release, verified again at `now` from the bytes on this phone; nothing is fetched."""
        anchor, installed = self._anchor(), self._installed()
        if installed is None:
            raise TrustError("no release is installed on this phone; run update once while connected")
        if now < installed["synced_at"] - CLOCK_SKEW:
            raise TrustError("this phone's clock is behind its last update; set the clock, then run update")
        return _release(self._verify(anchor, installed, now), installed, anchor, now)

    def _verify(self, anchor: dict[str, Any], parts: dict[str, Any], now: int) -> Repository:
        roots = [anchor["root"], *self._later_roots()]
        return verify(roots, *(parts[role] for role in _PARTS), now=now)

    def _later_roots(self) -> list[bytes]:
        """Roots synced after the anchor, in order. A revocation counts from the moment it was seen."""
        history = self.folder / "sync" / "root_history"
        found = {int(path.name.split(".")[0]): path for path in history.glob("[0-9]*.root.json")}
        return [found[version].read_bytes() for version in sorted(found)[1:]]

    def _files(self, sync: Sync, verified: Repository, name: str) -> dict[str, bytes]:
        """Manifest and model, from the installed copy where it already has the bytes that are signed."""
        installed = self._installed() or {}
        files = {}
        for key, path in (("manifest", f"{name}/manifest.cbor"), ("onnx", f"{name}/model.onnx")):
            target, here = verified.targets.get(path), installed.get(key, b"")
            same = target is not None and sha256_hex(here) == target.sha256
            files[key] = here if same else sync.target(path)
        return files

    def _check_newer(self, release: TrustedRelease) -> None:
        """A publisher's own older version is refused too, though freshly signed metadata names it (case 44)."""
        last, new = self._installed_manifest(), release.manifest
        if last is not None and last["name"] == new["name"] and new["version"] < last["version"]:
            raise TrustError(
                f"release version {new['version']} is older than version {last['version']}, which is installed; keep it"
            )

    def _probe(self, release: TrustedRelease) -> None:
        from fl_client import hardened

        last = self._installed_manifest()
        hardened.check(release.onnx, len(release.manifest["features"]))
        if last is None or last["model_digest"] != release.manifest["model_digest"]:
            hardened.probe_in_subprocess(release.onnx)

    def _installed_manifest(self) -> dict[str, Any] | None:
        installed = self._installed()
        if installed is None:
            return None
        manifest: dict[str, Any] = decode(envelope.Signed.from_bytes(installed["manifest"]).payload)
        return manifest

    def _anchor(self) -> dict[str, Any]:
        found = _read(self.folder / "anchor.cbor", {"root", "schema_digest", "name"})
        if found is None:
            raise TrustError(f"{self.folder} has no trust anchor; run init with the publisher's root file")
        return found

    def _installed(self) -> dict[str, Any] | None:
        return _read(self.folder / "installed.cbor", {*_PARTS, "name", "manifest", "onnx", "synced_at"})

    @contextmanager
    def _locked(self) -> Iterator[None]:
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise TrustError("another update is running on this phone; wait for it to end") from error
            yield
        except OSError as error:
            raise TrustError(
                f"{self.folder} cannot be used ({error.strerror}); free space or check its owner"
            ) from error
        finally:
            os.close(handle)


def _release(verified: Repository, parts: dict[str, Any], anchor: dict[str, Any], now: int) -> TrustedRelease:
    """Target files against metadata, manifest against its two keys, model and schema against the manifest."""
    name = parts["name"].decode()
    data = verified.check_target(f"{name}/manifest.cbor", parts["manifest"])
    onnx = verified.check_target(f"{name}/model.onnx", parts["onnx"])
    try:
        signed = envelope.Signed.from_bytes(data)
        threshold = max(THRESHOLD, verified.targets_threshold)
        payload = envelope.verify(signed, DOMAIN, verified.targets_keys, threshold=threshold)
        manifest = ReleaseManifest.from_dict(payload)
    except ContractError as error:
        raise TrustError(f"the release manifest is refused: {error}") from error
    _check_manifest(manifest, name, onnx, anchor, now)
    expires = min(verified.expires_at, manifest.expires_at)
    return TrustedRelease(onnx, payload, signed.payload_digest, expires, verified.root_version)


def _check_manifest(manifest: ReleaseManifest, name: str, onnx: bytes, anchor: dict[str, Any], now: int) -> None:
    if (anchor["name"] or name) != name or manifest.name != name:
        raise TrustError(f"the manifest is of release {manifest.name!r}, not {name!r}; run update again")
    if manifest.model_digest != sha256_hex(onnx) or manifest.onnx_bytes != len(onnx):
        raise TrustError("the model is not the one its manifest describes; run update again")
    if manifest.schema_digest != anchor["schema_digest"]:
        raise TrustError("the release was made for another feature schema; update this app, then run update")
    if not manifest.gate.passed:
        raise TrustError("the release did not pass its gate; keep the release in use and tell its publisher")
    if now >= manifest.expires_at:
        raise TrustError("the release has expired; run update")


def _only_name(verified: Repository) -> str:
    names = sorted(path.removesuffix("/manifest.cbor") for path in verified.targets if path.endswith("/manifest.cbor"))
    if len(names) != 1:
        raise TrustError(f"the repository holds {len(names)} releases; name one at init")
    return names[0]


def _read(path: Path, keys: set[str]) -> dict[str, Any] | None:
    """The map in `path` with exactly `keys`, None when there is no file, TrustError when it is damaged."""
    try:
        found = decode(path.read_bytes(), max_bytes=MAX_INSTALLED_BYTES)
    except FileNotFoundError:
        return None
    except (ContractError, OSError) as error:
        raise TrustError(f"the file {path} is damaged; delete it and run update") from error
    if not isinstance(found, dict) or set(found) != keys:
        raise TrustError(f"the file {path} is damaged; delete it and run update")
    return found


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
