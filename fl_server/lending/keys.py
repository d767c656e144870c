"""A lender's own home: name, keys (0600), trusted releases, book; nothing of it is shared with anyone (spec 10.1)."""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_server.keys import replace_file
from fl_server.lending.book import Book
from fl_server.lending.card import LenderCard, Pricing
from model.contract.envelope import Signed, SigningKey, keyid, verify
from model.contract.release import DOMAIN, THRESHOLD, ReleaseManifest
from model.contract.sealed import RecipientKey
from model.errors import ContractError, InputError, TrustError

CARD_DAYS = 90
DAY = 86_400
OWNER_ONLY = 0o600


@dataclass(frozen=True)
class LenderHome:
    """One lender's folder, opened: `audience` is the id that envelopes are addressed to."""

    path: Path
    name: str
    audience: str
    purposes: tuple[str, ...]
    database: str
    pricing: Pricing
    signing: SigningKey
    hpke: RecipientKey

    @classmethod
    def init(cls, path: Path, name: str, audience: str, purposes: Sequence[str]) -> LenderHome:
        """Make a home with fresh keys. It appears whole or not at all; InputError where one stands already."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"{path} exists and is not an empty folder; name a new folder for the lender's home")
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", audience) or not purposes or not name.strip():
            raise InputError("a lender needs a name, a purpose and an audience of letters, digits and . _ -")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
            _write_home(draft, name, audience, purposes)
            os.replace(draft, path)
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror}); name a folder you may write") from error
        return cls.open(path)

    @classmethod
    def open(cls, path: Path, database: str | None = None) -> LenderHome:
        """Open a home; `database` (an SQLAlchemy URL) stands before the one in lender.toml.

        InputError where it is no home or malformed, TrustError where a key is readable by others.
        """
        try:
            raw = tomllib.loads((path / "lender.toml").read_text("utf-8"))
            pricing: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in raw.get("pricing", {}).items()
            }
            return cls(
                path=path,
                name=raw["name"],
                audience=raw["audience"],
                purposes=tuple(raw["purposes"]),
                database=database or raw.get("database") or f"sqlite:///{(path / 'book.sqlite').resolve()}",
                pricing=Pricing(**pricing),
                signing=SigningKey.from_private_bytes(_read_key(path / "keys" / "signing.key")),
                hpke=RecipientKey.from_private_bytes(_read_key(path / "keys" / "hpke.key")),
            )
        except FileNotFoundError as error:
            raise InputError(f"{path} is no lender's home; make one with `pocketscore-server lender init`") from error
        except (OSError, KeyError, TypeError, ValueError, ContractError) as error:
            raise InputError(
                f"the lender's home {path} is malformed ({error}); mend lender.toml or restore it"
            ) from error

    def card(self, now: int) -> LenderCard:
        """The lender's card as of `now` (unix s), valid for 90 days."""
        hpke, signing = self.hpke.public_bytes.hex(), self.signing.public_bytes.hex()
        return LenderCard(
            self.name, self.audience, hpke, signing, self.purposes, self.pricing.card(), now + CARD_DAYS * DAY
        )

    def book(self) -> Book:
        """The lender's database, created 0600 where it is SQLite in this home."""
        if self.database.startswith("sqlite:///"):
            Path(self.database.removeprefix("sqlite:///")).touch(mode=0o600, exist_ok=True)
        return Book(self.database)

    def trust(self, manifest: Signed, keyring: Mapping[str, bytes] | None = None) -> ReleaseManifest:
        """Take a release manifest signed by two of the trusted keys; its model is known from then on.

        `keyring` (two keys or more, all required) is set once, with the first manifest, and never replaced by
        another one. TrustError or SignatureError where it does not hold.
        """
        held = self.path / "trust.json"
        trusted = self._keyring() if held.exists() or keyring is None else dict(keyring)
        if keyring is not None and dict(keyring) != trusted:
            raise TrustError("the lender already trusts other release keys; make a new home to change them")
        release = _verified(manifest, trusted)
        named = {name: key.hex() for name, key in sorted(trusted.items())}
        replace_file(held, json.dumps(named).encode(), OWNER_ONLY)
        folder = self.path / "releases"
        folder.mkdir(exist_ok=True)
        replace_file(folder / f"{release.model_digest}.cbor", manifest.to_bytes(), OWNER_ONLY)
        return release

    def releases(self) -> dict[str, ReleaseManifest]:
        """Trusted release manifests by model digest, verified again each time they are read."""
        files = sorted((self.path / "releases").glob("*.cbor"))
        keyring = self._keyring() if files else {}
        found = [_verified(Signed.from_bytes(file.read_bytes()), keyring) for file in files]
        return {release.model_digest: release for release in found}

    def cards(self, now: int) -> list[LenderCard]:
        """This lender's card and those of the others it shows beside its own (HOME/cards/*.cbor)."""
        files = sorted((self.path / "cards").glob("*.cbor"))
        return [self.card(now), *(LenderCard.opened(Signed.from_bytes(file.read_bytes()), now) for file in files)]

    def _keyring(self) -> dict[str, bytes]:
        try:
            raw = json.loads((self.path / "trust.json").read_text("utf-8"))
            return {name: bytes.fromhex(key) for name, key in raw.items()}
        except FileNotFoundError as error:
            raise TrustError("the lender trusts no release keys yet; run `lender trust` with --keyring") from error
        except (OSError, ValueError, AttributeError) as error:
            raise TrustError("the lender's trust.json is malformed; restore it from a copy") from error


def _verified(manifest: Signed, keyring: Mapping[str, bytes]) -> ReleaseManifest:
    if len(keyring) < THRESHOLD:
        raise TrustError("release keys must be two or more, the reviewer's among them; name both in --keyring")
    return ReleaseManifest.from_dict(verify(manifest, DOMAIN, keyring, threshold=THRESHOLD, required=keyring))


def read_keyring(path: Path) -> dict[str, bytes]:
    """Public keys by key id from a JSON file `{keyid: hex}` or a list of hex keys."""
    raw = read_json(path)
    try:
        keys = [bytes.fromhex(key) for key in (raw.values() if isinstance(raw, dict) else raw)]
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is no key ring; give a JSON file of public keys in hex") from error
    return {keyid(key): key for key in keys}


def read_json(path: Path) -> Any:
    """The value of a JSON file; InputError where it cannot be read."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON; name a JSON file") from error


def _write_home(home: Path, name: str, audience: str, purposes: Sequence[str]) -> None:
    quoted = [
        f"name = {json.dumps(name)}",
        f"audience = {json.dumps(audience)}",
        f"purposes = {json.dumps([*purposes])}",
    ]
    (home / "lender.toml").write_text("\n".join([*quoted, ""]), "utf-8")
    (home / "keys").mkdir(mode=0o700)
    replace_file(home / "keys" / "signing.key", SigningKey.generate().private_bytes(), OWNER_ONLY)
    replace_file(home / "keys" / "hpke.key", RecipientKey.generate().private_bytes(), OWNER_ONLY)


def _read_key(path: Path) -> bytes:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise TrustError(f"{path} can be read by others; run chmod 600 on it, or make new keys if it was exposed")
    return path.read_bytes()
