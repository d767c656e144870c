"""A helper's address file: whole, public, and nothing else."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from model.canonical import sha256_hex
from model.contract.address import ADDRESS_SCHEMA, MAX_ADDRESS_BYTES, HelperAddress, fingerprint
from model.contract.sealed import RecipientKey
from model.errors import ContractError

JUNK = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
LOW_ORDER = ["00" * 32, "01" + "00" * 31, "ecffffff" + "ff" * 27 + "7f", "edffffff" + "ff" * 27 + "7f"]


def certificate(number: int) -> str:
    """A self-signed certificate (PEM) with that serial number."""
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "helper")])
    start, end = datetime.datetime(2026, 1, 1), datetime.datetime(2036, 1, 1)
    made = x509.CertificateBuilder(name, name, key.public_key(), number, start, end).sign(key, None)
    return made.public_bytes(Encoding.PEM).decode()


PEM, OTHER = certificate(1), certificate(2)
GOOD = HelperAddress(ADDRESS_SCHEMA, "https://helper.example:9443", "ab" * 32, "cd" * 32, PEM, fingerprint(PEM))


def test_it_comes_back_as_it_was() -> None:
    assert HelperAddress.from_json(GOOD.to_json()) == GOOD


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "pocketscore.helper-address/2"},
        {"url": "http://helper.example"},
        {"url": "https://"},
        {"url": "https://h:port"},
        {"url": "https://h:99999"},
        {"url": "https://[h"},
        {"helper_key": "AB" * 32},
        {"signing_key": "cd" * 31},
        {"certificate": "none"},
        {"certificate": OTHER},
        {"certificate": JUNK},
        {"certificate": JUNK, "certificate_sha256": sha256_hex(b"\0\0\0")},
        {"certificate": "é"},
        *({"helper_key": key} for key in LOW_ORDER),
        {"certificate_sha256": "00" * 32},
        {"url": 5},
        {"more": "x"},
    ],
)
def test_anything_else_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ContractError):
        HelperAddress.from_json(json.dumps({**GOOD.to_dict(), **change}))


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "[" * 16_000, " " * (MAX_ADDRESS_BYTES + 1)])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ContractError):
        HelperAddress.from_json(text)


def test_junk_in_pem_is_told_as_what_it_is() -> None:
    with pytest.raises(ContractError, match=r"no X\.509 certificate in PEM"):
        fingerprint(JUNK)


HEX = st.binary(min_size=32, max_size=32).map(bytes.hex)
X25519 = st.binary(min_size=32, max_size=32).map(lambda raw: RecipientKey.from_private_bytes(raw).public_bytes.hex())


@given(X25519, HEX, st.from_regex(r"[a-z][a-z0-9.-]{0,40}", fullmatch=True), st.integers(1, 65_535))
def test_every_address_comes_back(one: str, other: str, host: str, port: int) -> None:
    made = HelperAddress(ADDRESS_SCHEMA, f"https://{host}:{port}", one, other, PEM, fingerprint(PEM))
    assert HelperAddress.from_json(made.to_json()) == made
