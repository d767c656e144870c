"""A helper's address file: whole, public, and nothing else."""

from __future__ import annotations

import json
import ssl
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.contract.address import ADDRESS_SCHEMA, MAX_ADDRESS_BYTES, HelperAddress, fingerprint
from model.errors import ContractError

PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
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
        {"certificate": PEM.replace("AAAA", "AAAB")},
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


HEX = st.binary(min_size=32, max_size=32).map(bytes.hex)


@given(HEX, HEX, st.from_regex(r"[a-z][a-z0-9.-]{0,40}", fullmatch=True), st.integers(1, 65_535), st.binary(min_size=1))
def test_every_address_comes_back(one: str, other: str, host: str, port: int, der: bytes) -> None:
    pem = ssl.DER_cert_to_PEM_cert(der)
    made = HelperAddress(ADDRESS_SCHEMA, f"https://{host}:{port}", one, other, pem, fingerprint(pem))
    if len(made.to_json()) <= MAX_ADDRESS_BYTES:
        assert HelperAddress.from_json(made.to_json()) == made
