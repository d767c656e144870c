"""TUF metadata verified offline, at a given time, from bytes alone (TUF specification 1.0 §5, spec 8.4).

The rules, in order; the first broken one refuses the whole:
1. The first root is the trust anchor and meets its own root threshold.
2. Each next root has the next version and meets the root threshold of the one before it and its own.
3. The last root is not expired, and asks for at least two keys for `root` and `targets`.
4. The timestamp is signed by the last root's timestamp keys and not expired.
5. The snapshot has the length, hash and version the timestamp names, is signed, and not expired.
6. The targets have the length, hash and version the snapshot names, are signed, not expired, and delegate nothing.
7. A target file has the length and hash the targets name (`Repository.check_target`).

The networked update runs python-tuf's client; this is what a phone runs before every score, where importing that
client would cost more time and memory than the score itself (ADR 0060). Tests hold the two against each other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from model.canonical import sha256_hex
from model.contract.envelope import keyid
from model.errors import TrustError

MAX_METADATA_BYTES = 512 << 10
MAX_ROOTS = 256
MIN_THRESHOLD = 2


@dataclass(frozen=True)
class Target:
    """Length in bytes and SHA-256 (hex) of a target file."""

    length: int
    sha256: str


@dataclass(frozen=True)
class Repository:
    """What verified metadata vouches for. Times are Unix seconds; `targets_keys` maps key id to 32 public bytes."""

    root_version: int
    timestamp_version: int
    targets: Mapping[str, Target]
    targets_keys: Mapping[str, bytes]
    targets_threshold: int
    expires_at: int

    def check_target(self, path: str, data: bytes) -> bytes:
        """`data`, if it is the target `path`; TrustError otherwise."""
        target = self.targets.get(path)
        if target is None:
            raise TrustError(f"the signed metadata names no file {path!r}; run update again")
        if len(data) != target.length or sha256_hex(data) != target.sha256:
            raise TrustError(f"the file {path!r} is not the one that was signed; run update again")
        return data


def verify(roots: Sequence[bytes], timestamp: bytes, snapshot: bytes, targets: bytes, *, now: int) -> Repository:
    """The repository that these bytes describe at `now`; TrustError names the first rule broken."""
    root = _last_root(roots)
    _fresh(root, now)
    for role in ("root", "targets"):
        if root["roles"][role]["threshold"] < MIN_THRESHOLD:
            _refuse(f"root metadata lets fewer than {MIN_THRESHOLD} keys sign {role}")
    stamp = _signed(timestamp, "timestamp", root)
    _fresh(stamp, now)
    snap = _named(snapshot, "snapshot", stamp.get("meta"), root, now)
    top = _named(targets, "targets", snap.get("meta"), root, now)
    if "delegations" in top:
        _refuse("targets metadata delegates to other keys, which this phone does not follow")
    role = root["roles"]["targets"]
    return Repository(
        root["version"],
        stamp["version"],
        {path: Target(_number(info, "length"), _sha256(info)) for path, info in _map(top, "targets").items()},
        {key: public for key, public in _keys(root).items() if key in role["keyids"]},
        role["threshold"],
        min(_expires(part) for part in (root, stamp, snap, top)),
    )


def _refuse(what: str) -> NoReturn:
    raise TrustError(f"the release is not trusted: {what}; run update again, and tell its publisher if that fails")


def _last_root(roots: Sequence[bytes]) -> dict[str, Any]:
    if not 1 <= len(roots) <= MAX_ROOTS:
        _refuse(f"{len(roots)} root files")
    trusted: dict[str, Any] | None = None
    for data in roots:
        root = _parse(data, "root")[0]
        if trusted is not None:
            if root["version"] != trusted["version"] + 1:
                _refuse(f"root version {root['version']} follows version {trusted['version']}")
            _signed(data, "root", trusted)
        _signed(data, "root", root)
        trusted = root
    return trusted or {}


def _named(data: bytes, role: str, meta: Any, root: dict[str, Any], now: int) -> dict[str, Any]:
    """The signed part of `role`, as the metadata above it names it."""
    info = _map({"meta": meta}, "meta").get(f"{role}.json")
    if not isinstance(info, dict):
        _refuse(f"no {role} metadata is named by the metadata above it")
    if _number(info, "length") != len(data) or _sha256(info) != sha256_hex(data):
        _refuse(f"{role} metadata is not the file that the metadata above it names")
    part = _signed(data, role, root)
    if part["version"] != _number(info, "version"):
        _refuse(f"{role} metadata has version {part['version']}, not {info['version']}")
    _fresh(part, now)
    return part


def _parse(data: bytes, role: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """(signed part, signatures by key id) of one metadata file, its form checked and nothing verified."""
    if len(data) > MAX_METADATA_BYTES:
        _refuse(f"{role} metadata has {len(data)} bytes, over {MAX_METADATA_BYTES}")
    try:
        raw = json.loads(data, object_pairs_hook=_once, parse_float=_no_float, parse_constant=_no_float)
        signed, pairs = raw["signed"], _once([(str(s["keyid"]), bytes.fromhex(s["sig"])) for s in raw["signatures"]])
        if signed["_type"] != role or not str(signed["spec_version"]).startswith("1."):
            _refuse(f"a file is not {role} metadata of TUF 1")
        _number(signed, "version")
        _expires(signed)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrustError(f"{role} metadata is malformed ({type(error).__name__}); run update again") from error
    if role == "root":
        _check_root(signed)
    return signed, pairs


def _check_root(root: dict[str, Any]) -> None:
    known = _keys(root)
    for name in ("root", "timestamp", "snapshot", "targets"):
        role = _map(_map(root, "roles"), name)
        ids = role.get("keyids")
        if not isinstance(ids, list) or not all(isinstance(key, str) for key in ids) or len(set(ids)) != len(ids):
            _refuse(f"root metadata lists no distinct keys for {name}")
        if not set(ids) <= set(known) or not 1 <= _number(role, "threshold") <= len(ids):
            _refuse(f"root metadata asks for keys or a threshold for {name} that cannot be met")


def _keys(root: dict[str, Any]) -> dict[str, bytes]:
    """Ed25519 keys by id. The id must be our digest of the key, so one key cannot count under two names."""
    keys: dict[str, bytes] = {}
    for name, raw in _map(root, "keys").items():
        try:
            public = bytes.fromhex(raw["keyval"]["public"])
            plain = raw["keytype"] == raw["scheme"] == "ed25519"
        except (ValueError, KeyError, TypeError):
            _refuse("root metadata has a malformed key")
        if not plain or len(public) != 32 or keyid(public) != name:
            _refuse(f"root metadata has key {name[:32]!r}, which is not an Ed25519 key under its own digest")
        keys[name] = public
    return keys


def _signed(data: bytes, role: str, root: dict[str, Any]) -> dict[str, Any]:
    """The signed part of `data`, once enough distinct keys of `root` for `role` have signed it."""
    part, signatures = _parse(data, role)
    message, keys, rule = _canonical(part), _keys(root), root["roles"][role]
    good = sum(_valid(keys[key], signatures[key], message) for key in rule["keyids"] if key in signatures)
    if good < rule["threshold"]:
        _refuse(f"{role} metadata has {good} of {rule['threshold']} trusted signatures")
    return part


def _valid(public: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _canonical(part: dict[str, Any]) -> bytes:
    """OLPC canonical JSON, which TUF signs: sorted, compact, and only quote and backslash escaped."""
    text = json.dumps(part, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # `json` escapes control characters where OLPC does not: none belongs in metadata, so none is taken.
    if any(escape in text for escape in ("\\b", "\\t", "\\n", "\\f", "\\r", "\\u")):
        _refuse("metadata carries control characters")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        _refuse("metadata carries text that is not Unicode")


def _fresh(part: dict[str, Any], now: int) -> None:
    if now >= _expires(part):
        raise TrustError(f"the release's {part['_type']} metadata expired at {part['expires']}; run update")


def _expires(part: dict[str, Any]) -> int:
    text = str(part["expires"])
    if not text.endswith("Z"):
        raise ValueError("a time is not UTC")
    return int(datetime.fromisoformat(text).timestamp())


def _map(part: Any, name: str) -> dict[str, Any]:
    value = part.get(name) if isinstance(part, dict) else None
    if not isinstance(value, dict):
        _refuse(f"metadata lacks the map {name!r}")
    return value


def _number(part: Any, name: str) -> int:
    value = part.get(name) if isinstance(part, dict) else None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        _refuse(f"metadata lacks the number {name!r}")
    return value


def _sha256(info: Any) -> str:
    return str(_map(info, "hashes").get("sha256", ""))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"{text} is not an integer")
