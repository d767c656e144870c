"""Where a helper answers and how it is known there: what its operator hands to a coordinator (spec 13.7.3).

All of it is public. Whoever swaps it for his own becomes the helper, so it is handed over as keys are: by a way that
both sides trust, or with the fingerprint read out over the telephone.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from model.canonical import sha256_hex
from model.contract.record import Record, require
from model.contract.sealed import seal
from model.errors import ContractError

ADDRESS_SCHEMA = "pocketscore.helper-address/1"
MAX_ADDRESS_BYTES = 16_384
_HEX64 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class HelperAddress(Record):
    """One helper: `url` (https), the plan's `helper_key` (X25519) and the `signing_key` (Ed25519) of its answers in
    hex, its `certificate` (PEM) and that one's SHA-256 over DER in hex, for people to compare."""

    schema: str
    url: str
    helper_key: str
    signing_key: str
    certificate: str
    certificate_sha256: str

    def check(self) -> None:
        """ContractError for a value out of its form, a low-order key, or a fingerprint not the certificate's."""
        require(self.schema == ADDRESS_SCHEMA, f"a helper's address has schema {self.schema!r}; use {ADDRESS_SCHEMA!r}")
        require(_is_https(self.url), f"{self.url!r} is no https address; give the helper's as https://host:port")
        hexes = (self.helper_key, self.signing_key, self.certificate_sha256)
        require(all(map(_HEX64.fullmatch, hexes)), "a helper's keys are 64 hex characters each; ask its operator again")
        seal(b"", bytes.fromhex(self.helper_key), {})  # refuses a low-order key, to which no phone could seal
        require(
            fingerprint(self.certificate) == self.certificate_sha256,
            "the helper's certificate is not the one of its fingerprint; ask its operator for the address again",
        )

    def to_json(self) -> str:
        """The address file's text."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Inverse of `to_json`; ContractError for anything else."""
        require(len(text) <= MAX_ADDRESS_BYTES, f"a helper's address is over {MAX_ADDRESS_BYTES} characters; ask again")
        try:
            return cls.from_dict(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise ContractError(f"a helper's address is no JSON ({error}); ask its operator for it again") from error


def fingerprint(certificate: str) -> str:
    """SHA-256 (hex) of a PEM certificate's DER form; ContractError where it is no X.509 certificate in PEM."""
    try:
        return sha256_hex(x509.load_pem_x509_certificate(certificate.encode()).public_bytes(Encoding.DER))
    except ValueError as error:
        raise ContractError(
            "a helper's certificate is no X.509 certificate in PEM; ask its operator for the address again"
        ) from error


def _is_https(url: str) -> bool:
    try:
        where = urlsplit(url)
        return where.scheme == "https" and bool(where.hostname) and (where.port is None or where.port > 0)
    except ValueError:  # a port that is no number
        return False
