"""A run folder as a reviewer reads it, and the anchor a reviewer brings: no folder vouches for itself (spec 11.3)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fl_server.review import replay
from fl_server.review.charges import Charge, read_charges
from fl_server.review.replay import Recomputed, Sum
from model.canonical import decode
from model.contract.envelope import MAX_SIGNED_BYTES, Signed, keyid
from model.contract.plan import TrainingPlan
from model.contract.release import ReleaseManifest
from model.errors import ContractError, InputError

ROLES = ("coordinator", "reviewer", "release", "online", "log")
MAX_JSON = 64 << 20


@dataclass(frozen=True)
class Anchor:
    """What the reviewer already trusts: keys by role, keys without a role, or the bytes of a TUF root."""

    roles: Mapping[str, bytes]
    keys: frozenset[bytes]
    tuf_root: bytes | None = None

    @classmethod
    def read(cls, path: Path) -> Anchor:
        """A TUF root, or JSON of public keys: `{role: {"public": hex}}`, `{keyid: hex}` or `[hex]`; else InputError."""
        try:
            data = path.read_bytes()
            raw = json.loads(data)
            if isinstance(raw, dict) and isinstance(raw.get("signed"), dict):
                return cls({}, _tuf_keys(raw["signed"]), data)
            if isinstance(raw, dict) and all(isinstance(value, dict) for value in raw.values()):
                roles = {name: bytes.fromhex(value["public"]) for name, value in raw.items()}
                return cls(roles, frozenset(roles.values()))
            listed = raw.values() if isinstance(raw, dict) else raw
            return cls({}, frozenset(bytes.fromhex(key) for key in listed))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is no trust anchor; give the publisher's TUF root or a JSON of public keys"
            ) from error


@dataclass(frozen=True)
class Evidence:
    """One run folder. Reading is lazy and raises what its parsers raise; a check turns that into a finding."""

    folder: Path
    anchor: Anchor | None = None

    @cached_property
    def keys(self) -> dict[str, bytes]:
        """Public key by role, as the run itself declares them (keys.json)."""
        raw = self.json("keys.json")
        found = {str(name): bytes.fromhex(value["public"]) for name, value in raw.items()}
        if not set(ROLES) <= set(found) or any(keyid(key) != raw[name]["keyid"] for name, key in found.items()):
            raise ContractError("keys.json lacks a role or names a key by another key's id")
        return found

    def ring(self, *roles: str) -> dict[str, bytes]:
        """Key ring of some roles."""
        return {keyid(self.keys[role]): self.keys[role] for role in roles}

    @cached_property
    def signed_plan(self) -> Signed:
        """The plan as signed."""
        return Signed.from_bytes(self.bytes("plan.cbor"))

    @cached_property
    def plan(self) -> TrainingPlan:
        """The plan; whether it is well signed is a check's to say."""
        return TrainingPlan.from_dict(decode(self.signed_plan.payload, max_bytes=MAX_SIGNED_BYTES))

    @cached_property
    def summary(self) -> dict[str, Any]:
        """summary.json."""
        return self.json("summary.json")

    @cached_property
    def charges(self) -> list[Charge]:
        """The ε ledger's charges."""
        return read_charges(self.folder / "ledger.jsonl", self.plan)

    @cached_property
    def sums(self) -> list[Sum]:
        """The logged noised sums."""
        return replay.read_sums(self.folder / "rounds", self.plan)

    @cached_property
    def recomputed(self) -> Recomputed:
        """The model that the sums imply."""
        return replay.recompute(self.plan, self.sums)

    @property
    def released(self) -> bool:
        """Whether the run published a model; the gate may have refused it."""
        return (self.folder / "release" / "manifest.cbor").exists()

    @cached_property
    def signed_manifest(self) -> Signed:
        """The release manifest as signed."""
        return Signed.from_bytes(self.bytes("release/manifest.cbor"))

    @cached_property
    def manifest(self) -> ReleaseManifest:
        """The release manifest."""
        return ReleaseManifest.from_dict(decode(self.signed_manifest.payload))

    def bytes(self, name: str) -> bytes:
        """Bytes of a file of the run."""
        return (self.folder / name).read_bytes()

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object of the run; ContractError for another value."""
        path = self.folder / name
        raw = json.loads(path.read_bytes()) if path.stat().st_size <= MAX_JSON else None
        if not isinstance(raw, dict):
            raise ContractError(f"{name} holds no JSON object")
        return raw


def _tuf_keys(signed: Mapping[str, Any]) -> frozenset[bytes]:
    """Keys that a TUF root lets sign targets: the release key and the reviewer's."""
    names = signed["roles"]["targets"]["keyids"]
    return frozenset(bytes.fromhex(signed["keys"][name]["keyval"]["public"]) for name in names)
