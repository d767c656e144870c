"""A helper asked who it is and whom it serves, before any data is made or any round is run (spec 13.7.6)."""

from __future__ import annotations

import json
from collections.abc import Mapping

from fl_server.helper_https import AGAIN, HttpsHelper
from model.contract.address import HelperAddress
from model.errors import InputError, RunError

MAX_ABOUT = 16_384
ROLES = ("coordinator", "reviewer")


def require_known(line: HttpsHelper, address: HelperAddress, signers: Mapping[str, bytes]) -> None:
    """Nothing, where the helper behind `line` is that of `address` and serves plans of these signers.

    `signers` maps coordinator and reviewer to public keys (32 bytes). RunError where nobody answers or the helper has
    other keys than its address; InputError where it trusts nobody yet, or others.
    """
    told = read_about(line.about())
    if (told["helper_key"], told["signing_key"]) != (address.helper_key, address.signing_key):
        raise RunError(f"the helper at {address.url} has other keys than its address names; {AGAIN}")
    if not all(told[role] for role in ROLES):
        raise InputError(
            f"the helper at {address.url} trusts nobody yet; its operator names these signers with "
            "`pocketscore-review helper trust HOME keys.json`"
        )
    others = [role for role in ROLES if told[role] != signers[role].hex()]
    if others:
        raise InputError(
            f"the helper at {address.url} trusts another {' and another '.join(others)} than --keys holds; "
            "give the keys that it was told of, or have a new home made for these"
        )


def read_about(data: bytes) -> dict[str, str]:
    """Both keys of a helper and the two it trusts, in hex and empty where there are none; RunError for anything else.

    What else it tells is left out.
    """
    names = ("helper_key", "signing_key", *ROLES)
    try:
        raw = json.loads(data) if len(data) <= MAX_ABOUT else None
    except (ValueError, RecursionError):  # bytes that are no UTF-8, or no JSON
        raw = None
    if not isinstance(raw, dict) or not all(isinstance(raw.get(name), str) for name in names):
        raise RunError("what answers does not say who it is, as a helper does; use the same release there")
    return {name: raw[name] for name in names}
