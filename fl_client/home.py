"""The folder of one device: settings, key, store, lenders' cards, trusted release, egress ledger (spec 9.1).

HOME/device.toml, key (0600), store.sqlite, schema.cbor (where it is not this code's own), lenders/*.card, tuf/,
egress.jsonl, outbox/. A home appears whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from fl_client.egress import Egress
from fl_client.identity import LenderCard
from fl_client.keystore import FileKeyStore, KeyStore, PassphraseKeyStore
from fl_client.ledger import Ledger
from fl_client.store import SqliteStore
from fl_client.trusted import Trusted
from model.canonical import decode, encode, sha256_hex
from model.errors import ContractError, InputError, SchemaError
from model.privacy.yearly import YEARLY_RHO
from model.risk.registry import default_schema
from model.risk.schema import Schema

RETENTION_DAYS = 365  # DPDP asks for a year of logs; features look back 90 days
SETTINGS = "device.toml"


@dataclass(frozen=True)
class Settings:
    """device.toml. `repo` is where `update` fetches from; `epoch_day` is the Unix day that events count as day 0."""

    repo: str
    key: str = "file"
    yearly_rho: float = YEARLY_RHO
    retention_days: int = RETENTION_DAYS
    min_observed_days: int = 30
    epoch_day: int = 0

    def to_toml(self) -> str:
        """Text of device.toml."""
        return "".join(f"{name} = {json.dumps(value)}\n" for name, value in asdict(self).items())

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Inverse of `to_toml`; InputError where the file is missing or malformed."""
        try:
            raw = cls(**tomllib.loads(path.read_text("utf-8")))
        except FileNotFoundError as error:
            raise InputError(f"{path.parent} is no device home; make one with pocketscore-device init") from error
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError) as error:
            raise InputError(f"{path} cannot be read as device settings ({error}); correct or restore it") from error
        if any(type(value) is not type(getattr(cls(""), name)) for name, value in vars(raw).items()):
            raise InputError(f"{path} has a setting of the wrong type; compare it with a fresh home's")
        return raw


class DeviceHome:
    """An opened home. Nothing is read before it is asked for."""

    def __init__(self, path: Path, passphrase: Callable[[], str] | None = None) -> None:
        """InputError where `path` is no device home."""
        self.path = path
        self.settings = Settings.read(path / SETTINGS)
        self._passphrase = passphrase

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        repo: str,
        root: bytes,
        cards: Sequence[bytes],
        now: int,
        passphrase: Callable[[], str] | None = None,
        schema: Schema | None = None,
        settings: Settings | None = None,
    ) -> DeviceHome:
        """Make a home with a fresh key. `root` is the TUF root the person trusts, `cards` the lenders' signed cards.

        With `passphrase` the key is wrapped under it. InputError where something stands at `path`; TrustError or
        SignatureError for a root or card that does not verify. Nothing is left behind on a refusal.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"{path} exists and is not empty; name a new folder for this device")
        settings = settings or Settings(repo, key="passphrase" if passphrase else "file")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror}); name a folder you may write to") from error
        try:
            (draft / SETTINGS).write_text(settings.to_toml(), "utf-8")
            if schema is not None:
                (draft / "schema.cbor").write_bytes(encode(schema.to_dict()))
            home = cls(draft, passphrase)
            SqliteStore(draft / "store.sqlite", home._keys().create()).close()
            for folder in ("lenders", "outbox"):
                (draft / folder).mkdir()
            for card in cards:
                home.add_lender(card, now)
            home.trusted.init(root, schema_digest=home.schema().digest)
            os.replace(draft, path)
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror}); name a folder you may write to") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return cls(path, passphrase)

    @cached_property
    def secret(self) -> bytes:
        """The root secret."""
        return self._keys().load()

    @cached_property
    def store(self) -> SqliteStore:
        """The encrypted store; InputError if its file is gone, for an empty one would count from 1 again."""
        path = self.path / "store.sqlite"
        if not path.exists():
            raise InputError(f"the phone's store {path} is gone; restore it from its copy or make a new home")
        return SqliteStore(path, self.secret)

    @property
    def trusted(self) -> Trusted:
        """The verified copy of the release repository."""
        return Trusted(self.path)

    @property
    def ledger(self) -> Ledger:
        """What the phone took part in, under the yearly cap of its settings."""
        return Ledger(self.store, self.settings.yearly_rho)

    def schema(self) -> Schema:
        """What this phone computes: the schema it was made with, or this code's own registry."""
        path = self.path / "schema.cbor"
        return read_schema(path) if path.exists() else default_schema()

    def add_lender(self, data: bytes, now: int) -> LenderCard:
        """Keep a lender's card. A card under a known audience must name the same signing key (InputError)."""
        card = LenderCard.read(data, now)
        path = self.path / "lenders" / f"{card.audience}.card"
        if path.exists() and LenderCard.read(path.read_bytes(), 0).signing_public != card.signing_public:
            raise InputError(f"another lender uses the id {card.audience!r} here already; ask which one is right")
        path.write_bytes(data)
        return card

    def lender(self, audience: str, now: int) -> LenderCard:
        """The card of `audience`, or of the only lender if that is empty; InputError if it is not clear which."""
        names = sorted(path.stem for path in (self.path / "lenders").glob("*.card"))
        if not names or (audience and audience not in names):
            raise InputError(f"no lender {audience or 'at all'!r} is known here; give its card with --lender")
        if not audience and len(names) > 1:
            raise InputError(f"several lenders are known here; choose one with --to: {', '.join(names)}")
        return LenderCard.read((self.path / "lenders" / f"{audience or names[0]}.card").read_bytes(), now)

    def egress(self, now: int) -> Egress:
        """The door."""
        return Egress(self.path, now)

    def post(self, kind: str, data: bytes) -> Path:
        """Put released bytes into the outbox, whole or not at all."""
        return write_whole(self.path / "outbox" / f"{kind}-{sha256_hex(data)[:16]}.sealed", data)

    def day(self, now: int) -> int:
        """Today, in the days that events count."""
        return now // 86_400 - self.settings.epoch_day

    def _keys(self) -> KeyStore:
        path = self.path / "key"
        if self.settings.key == "file":
            return FileKeyStore(path)
        if self.settings.key != "passphrase" or self._passphrase is None:
            raise InputError(f"the key of {self.path} is under a passphrase; give it")
        return PassphraseKeyStore(path, self._passphrase)


def write_whole(path: Path, data: bytes) -> Path:
    """Write a file by rename: whole or not at all; InputError if it cannot be."""
    draft = path.with_name(f".{path.name}.part")
    try:
        draft.write_bytes(data)
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written ({error.strerror}); name another place or free space") from error
    return path


def read_bytes(path: Path, what: str) -> bytes:
    """The bytes of a person's file, at most 1 MiB; InputError that names it otherwise."""
    try:
        with path.open("rb") as file:
            data = file.read((1 << 20) + 1)
    except OSError as error:
        raise InputError(f"the {what} {path} cannot be read ({error.strerror}); name another file") from error
    if len(data) > 1 << 20:
        raise InputError(f"the {what} {path} is over 1 MiB, which it never is; name another file")
    return data


def read_schema(path: Path) -> Schema:
    """A schema in canonical bytes; InputError if it is none."""
    try:
        return Schema.from_dict(decode(read_bytes(path, "schema")))
    except (ContractError, SchemaError, TypeError) as error:
        raise InputError(f"{path} is not a feature schema; take it from the run that made the release") from error
