"""Who puts a batch to the helper: the coordinator's signature over a body's digest, an HTTP header (spec 13.6.5)."""

from __future__ import annotations

from model.canonical import sha256_hex
from model.contract.envelope import Signed, SigningKey, keyid, sign, verify
from model.contract.record import require
from model.errors import ContractError

DOMAIN = "batch-caller/1"
HEADER = "pocketscore-caller"
MAX_HEADER = 4096


def caller_header(body: bytes, helper_public: bytes, key: SigningKey) -> str:
    """The header's value for `body`, sent to the helper whose signing key is `helper_public`: hex of a signed map."""
    payload = {"body": sha256_hex(body), "to": helper_public.hex()}
    return sign(DOMAIN, payload, [key]).to_bytes().hex()


def named_body(header: str, helper_public: bytes, coordinator: bytes) -> str:
    """The digest (hex) of the body that `coordinator` (32 public bytes) signed for this helper.

    ContractError, SignatureError among them, for another signer, another helper or another form.
    """
    try:
        signed = Signed.from_bytes(bytes.fromhex(header), max_bytes=MAX_HEADER)
    except ValueError as error:
        raise ContractError("a caller's header is not hex; sign the request") from error
    payload = verify(signed, DOMAIN, {keyid(coordinator): coordinator})
    require(payload.get("to") == helper_public.hex(), "a request was signed for another helper; send it there")
    return str(payload.get("body"))
