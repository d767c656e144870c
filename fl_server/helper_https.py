"""The coordinator's line to a helper over HTTPS: pinned certificate, signed request, verified answer (spec 13.7)."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from fl_server.helper import HelperRefused
from model.canonical import sha256_hex
from model.contract.caller import HEADER, caller_header
from model.contract.envelope import Signed, SigningKey, keyid, verify
from model.contract.masked import (
    MAX_BATCH_BYTES,
    REFUSAL_DOMAIN,
    SHARE_DOMAIN,
    BatchRequest,
    Refusal,
    Share,
    batch_digest,
    split_seeds,
)
from model.errors import ContractError, InputError, RoundError

MAX_ANSWER = MAX_BATCH_BYTES
CHUNK = 1 << 16
PAUSE_SECONDS = 0.5


class HttpsHelper:
    """A helper at `url`, known by its certificate (PEM) and its Ed25519 key; `signing` is the coordinator's own key.

    `seconds` bounds one exchange as a whole; while nobody listens there, as when the helper is being started again, it
    is tried again for `patience` seconds. `on_refusal` is given every signed refusal, to keep it. InputError for an
    address that is not https or a certificate that is none.
    """

    def __init__(
        self,
        url: str,
        certificate_pem: str,
        helper_public: bytes,
        signing: SigningKey,
        *,
        seconds: float = 120.0,
        patience: float = 0.0,
        on_refusal: Callable[[Signed], None] = lambda refusal: None,
    ) -> None:
        where = urlsplit(url)
        if where.scheme != "https" or not where.hostname:
            raise InputError(f"{url} is no https address; give the helper's as https://host:port")
        self._host, self._port = where.hostname, where.port or 443
        self._public, self._signing = helper_public, signing
        self._seconds, self._patience, self._on_refusal = seconds, min(patience, seconds), on_refusal
        self._context, self._pinned = _pinning(certificate_pem)

    def share(self, request: BatchRequest) -> Signed:
        """The signed share for a batch, verified to be for just that batch; `SecondServer` reads it.

        `HelperRefused` with the helper's sentence where it refuses; RoundError where no answer comes to two identical
        requests (the helper answers a batch once, so asking again costs nothing); SignatureError or ContractError for
        an answer that is not this helper's or is about something else.
        """
        body = request.to_bytes()
        answer = self._exchange(body)
        signed = Signed.from_bytes(answer, max_bytes=MAX_ANSWER)
        ring = {keyid(self._public): self._public}
        if signed.domain == REFUSAL_DOMAIN:
            refusal = Refusal.from_dict(verify(signed, REFUSAL_DOMAIN, ring))
            self._on_refusal(signed)
            raise HelperRefused(refusal, signed)
        check_share(Share.from_dict(verify(signed, SHARE_DOMAIN, ring)), request)
        return signed

    def _exchange(self, body: bytes) -> bytes:
        patient = time.monotonic() + self._patience
        try:
            return self._once(body, patient)
        except (OSError, http.client.HTTPException) as lost:
            first = _said(lost)
        try:
            return self._once(body, patient)
        except (OSError, http.client.HTTPException) as error:
            raise RoundError(
                f"the helper at {self._host}:{self._port} gave no answer twice ({first}; {_said(error)}); "
                "see that it runs and that its certificate is the one pinned"
            ) from error

    def _once(self, body: bytes, patient: float) -> bytes:
        """One request on a connection of its own; RoundError where the helper says no without signing it."""
        until = time.monotonic() + self._seconds
        line = http.client.HTTPSConnection(self._host, self._port, timeout=self._seconds, context=self._context)
        # A socket's timeout is for one read. The whole exchange ends here, however slowly it drips.
        clock = threading.Timer(self._seconds, _cut, [line])
        clock.start()
        try:
            _connect(line, patient)
            _require_pinned(line, self._pinned)
            headers = {HEADER: caller_header(body, self._public, self._signing), "Content-Type": "application/cbor"}
            line.request("POST", "/v1/batch", body, headers)
            answer = line.getresponse()
            told = _bounded(answer)
            if time.monotonic() > until:
                raise TimeoutError(f"it took over {self._seconds:g} seconds")
        finally:
            clock.cancel()
            line.close()
        if answer.status not in (200, 409):
            raise RoundError(f"the helper took no batch (HTTP {answer.status}: {_plain(told)}); correct it and resume")
        return told


def check_share(share: Share, request: BatchRequest) -> Share:
    """`share` if it is for `request`'s plan, sum and messages, all of them; ContractError otherwise."""
    seeds = split_seeds(request.seeds)
    asked = (Signed.from_bytes(request.plan).payload_digest, request.round, request.kind, request.model_digest)
    told = (share.plan_digest, share.round, share.kind, share.model_digest)
    batch = (request.dim, batch_digest(seeds), len(seeds))
    if told != asked or (share.dim, share.batch_digest, share.phones) != batch:
        raise ContractError("the helper's share is for another plan, sum or batch; nothing is released from it")
    return share


def _pinning(certificate_pem: str) -> tuple[ssl.SSLContext, str]:
    """A context that trusts this one certificate, and the digest of its DER form. Names in it do not matter."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    try:
        context.load_verify_locations(cadata=certificate_pem)
        return context, sha256_hex(ssl.PEM_cert_to_DER_cert(certificate_pem))
    except (ssl.SSLError, ValueError) as error:
        raise InputError(
            "the helper's certificate is no X.509 certificate in PEM; take tls.pem from the helper's home"
        ) from error


def _require_pinned(line: http.client.HTTPSConnection, pinned: str) -> None:
    shown = line.sock.getpeercert(binary_form=True)
    if shown is None or sha256_hex(shown) != pinned:
        raise RoundError("the helper shows another certificate than the one pinned; find out who answers there")


def _connect(line: http.client.HTTPSConnection, patient: float) -> None:
    """Connect, again while nobody listens until the moment `patient`."""
    while True:
        try:
            line.connect()
            return
        except ConnectionRefusedError:
            if time.monotonic() >= patient:
                raise
        time.sleep(PAUSE_SECONDS)


def _cut(line: http.client.HTTPSConnection) -> None:
    """End a connection from outside the thread that waits on it, which then sees it end."""
    if line.sock is not None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(line.sock, socket.SHUT_RDWR)


def _bounded(answer: http.client.HTTPResponse) -> bytes:
    """The whole body, at most MAX_ANSWER bytes."""
    kept = bytearray()
    while chunk := answer.read1(CHUNK):
        kept += chunk
        if len(kept) > MAX_ANSWER:
            raise RoundError(f"the helper's answer is over {MAX_ANSWER} bytes; find out who answers there")
    if answer.length:
        raise http.client.IncompleteRead(bytes(kept), answer.length)
    return bytes(kept)


def _plain(told: bytes) -> str:
    text = told[:300].decode("utf-8", "replace")
    return "".join(each if each.isprintable() else " " for each in text)


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
