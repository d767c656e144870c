"""A helper's own folder: keys and certificate (0600), whom it trusts, what it allows; none of it shared (spec 13.6.1).

`keys/` holds signing.key (Ed25519), hpke.key (X25519) and tls.key; beside it stand tls.pem, settings.json, trust.json
and helper.sqlite. The home appears whole or not at all.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm

from fl_server.review.durable import replace_file
from fl_server.review.helper.certificate import certificate_digest, require_names, require_pair, self_signed
from model.contract.envelope import SigningKey
from model.contract.sealed import RecipientKey
from model.errors import ContractError, InputError

ROLES = ("coordinator", "reviewer")
NAMES = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class Settings:
    """`allow_test_noise` admits simulations with seeded noise; `yearly_epsilon` caps ε a plan name and year."""

    allow_test_noise: bool = False
    yearly_epsilon: float | None = None

    def __post_init__(self) -> None:
        """InputError for a value of another type, and for a cap that caps nothing (NaN, negative, infinite)."""
        if not isinstance(self.allow_test_noise, bool):
            raise InputError(f"allow_test_noise is {self.allow_test_noise!r}; use true or false")
        cap = self.yearly_epsilon
        if cap is not None and (isinstance(cap, bool) or not isinstance(cap, int | float) or not 0 <= cap < math.inf):
            raise InputError(f"the yearly ε is {cap!r}; use a number from 0, or leave it out for no cap")


@dataclass(frozen=True)
class HelperHome:
    """One helper's folder, opened. `trust` holds the public keys of coordinator and reviewer, or nothing yet."""

    path: Path
    signing: SigningKey
    hpke: RecipientKey
    settings: Settings
    trust: Mapping[str, bytes]

    @classmethod
    def init(
        cls,
        path: Path,
        trust: Mapping[str, bytes] | None = None,
        settings: Settings | None = None,
        names: Sequence[str] = NAMES,
    ) -> HelperHome:
        """Make a home with fresh keys and a certificate for `names`; InputError where something stands already.

        Whatever ends this early leaves no file behind: a draft holds private keys.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"{path} exists and is not an empty folder; name a new folder for the helper's home")
        require_names(names)
        named = _trust_text(trust) if trust else b""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
            try:
                _write_home(draft, named, settings or Settings(), names)
                os.replace(draft, path)
            finally:
                shutil.rmtree(draft, ignore_errors=True)  # nothing is there once it has become the home
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror}); name a folder you may write") from error
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> HelperHome:
        """The home in `path`; InputError where it is none, is malformed, or has a key that others can read."""
        try:
            settings = Settings(**json.loads((path / "settings.json").read_text("utf-8")))
            signing = SigningKey.from_private_bytes(_read_private(path / "keys" / "signing.key"))
            hpke = RecipientKey.from_private_bytes(_read_private(path / "keys" / "hpke.key"))
            require_pair((path / "tls.pem").read_bytes(), _read_private(path / "keys" / "tls.key"))
        except FileNotFoundError as error:
            if (path / "settings.json").exists():
                raise InputError(f"the helper's home {path} lacks {error.filename}; make a new home") from error
            raise InputError(f"{path} is no helper's home; make one with `pocketscore-review helper init`") from error
        except (OSError, TypeError, ValueError, RecursionError, UnsupportedAlgorithm, ContractError) as error:
            raise InputError(f"the helper's home {path} is malformed ({error}); make a new one") from error
        held = path / "trust.json"
        return cls(path, signing, hpke, settings, read_trust(held) if held.exists() else {})

    def trusting(self, trust: Mapping[str, bytes]) -> HelperHome:
        """This home once it trusts these keys, which are set once; InputError where it trusts others already."""
        if self.trust and dict(self.trust) != dict(trust):
            raise InputError("the helper already trusts other keys; make a new home for another coordinator")
        replace_file(self.path / "trust.json", _trust_text(trust))
        return HelperHome.open(self.path)

    @property
    def store(self) -> Path:
        """The SQLite file of its releases, messages and log."""
        return self.path / "helper.sqlite"

    @property
    def certificate(self) -> Path:
        """The certificate (PEM) that a coordinator pins."""
        return self.path / "tls.pem"

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the certificate's DER form."""
        return certificate_digest(self.certificate.read_bytes())

    def about(self) -> dict[str, str]:
        """What a plan and a coordinator must name, in hex: both public keys and the certificate's fingerprint."""
        keys = {"helper_key": self.hpke.public_bytes.hex(), "signing_key": self.signing.public_bytes.hex()}
        return {**keys, "certificate_sha256": self.fingerprint}

    @property
    def tls_key(self) -> Path:
        """The certificate's private key (PEM, 0600)."""
        return self.path / "keys" / "tls.key"


def read_trust(path: Path) -> dict[str, bytes]:
    """Public keys by role from a run's keys.json, `{role: {"public": hex}}`; InputError without both roles."""
    try:
        raw = json.loads(path.read_text("utf-8"))
        found = {role: bytes.fromhex(raw[role]["public"]) for role in ROLES}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} names no public keys of {' and '.join(ROLES)}; give the run's keys.json") from error
    _trust_text(found)
    return found


def _write_home(home: Path, trust: bytes, settings: Settings, names: Sequence[str]) -> None:
    (home / "keys").mkdir(mode=0o700)
    replace_file(home / "keys" / "signing.key", SigningKey.generate().private_bytes())
    replace_file(home / "keys" / "hpke.key", RecipientKey.generate().private_bytes())
    certificate, key = self_signed(names)
    replace_file(home / "keys" / "tls.key", key)
    replace_file(home / "tls.pem", certificate, 0o644)
    replace_file(home / "settings.json", json.dumps(asdict(settings), indent=2).encode())
    if trust:
        replace_file(home / "trust.json", trust)


def _trust_text(trust: Mapping[str, bytes]) -> bytes:
    """What trust.json says; InputError for one key in both roles, whose two signatures would be one pair of eyes."""
    if set(trust) != set(ROLES) or len(set(trust.values())) != 2 or any(len(key) != 32 for key in trust.values()):
        raise InputError("a helper trusts two different keys of 32 bytes, a coordinator's and a reviewer's; name both")
    return json.dumps({role: {"public": trust[role].hex()} for role in ROLES}, indent=2).encode()


def _read_private(path: Path) -> bytes:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise InputError(f"{path} can be read by others; run chmod 600 on it, or make a new home if it was exposed")
    return path.read_bytes()
