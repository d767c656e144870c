"""The coordinator's line to a helper over HTTPS: pinned certificate, signed request, verified answer (spec 13.7)."""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from fl_server.helper import HelperRefused
from fl_server.pinned import MAX_ANSWER, bounded, connect, cut, pinning, require_pinned
from model.contract.caller import HEADER, caller_header
from model.contract.envelope import Signed, SigningKey, keyid, verify
from model.contract.masked import (
    REFUSAL_DOMAIN,
    SHARE_DOMAIN,
    BatchRequest,
    Refusal,
    Share,
    batch_digest,
    split_seeds,
)
from model.errors import ContractError, InputError, RoundError, RunError

AGAIN = "ask its operator for the address again"


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
        self._context, self._pinned = pinning(certificate_pem)

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

    def about(self) -> bytes:
        """What the helper says of itself, before it is asked for anything (GET /v1/about).

        RunError, at once, where nobody answers or another certificate is shown than the one pinned.
        """
        where = f"{self._host}:{self._port}"
        try:
            status, told = self._talk("GET", "/v1/about", None, {}, 0.0)
        except ssl.SSLCertVerificationError as error:
            raise RunError(f"the helper at {where} shows another certificate than its address; {AGAIN}") from error
        except (OSError, http.client.HTTPException) as error:
            raise RunError(
                f"no helper answers at {where} ({_said(error)}); start it with `pocketscore-review helper serve HOME`"
            ) from error
        if status != 200:
            raise RunError(f"the helper at {where} says nothing of itself (HTTP {status}); use the same release there")
        return told

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
        """One batch on a connection of its own; RoundError where the helper says no without signing it."""
        headers = {HEADER: caller_header(body, self._public, self._signing), "Content-Type": "application/cbor"}
        status, told = self._talk("POST", "/v1/batch", body, headers, patient)
        if status not in (200, 409):
            raise RoundError(f"the helper took no batch (HTTP {status}: {_plain(told)}); correct it and resume")
        return told

    def _talk(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], patient: float
    ) -> tuple[int, bytes]:
        """One request and its answer, (status, body); OSError or HTTPException where there is none in time."""
        until = time.monotonic() + self._seconds
        line = http.client.HTTPSConnection(self._host, self._port, timeout=self._seconds, context=self._context)
        # A socket's timeout is for one read. The whole exchange ends here, however slowly it drips.
        clock = threading.Timer(self._seconds, cut, [line])
        clock.start()
        try:
            connect(line, patient)
            require_pinned(line, self._pinned)
            line.request(method, path, body, dict(headers))
            answer = line.getresponse()
            told = bounded(answer)
            if time.monotonic() > until:
                raise TimeoutError(f"it took over {self._seconds:g} seconds")
        finally:
            clock.cancel()
            line.close()
        return answer.status, told


def check_share(share: Share, request: BatchRequest) -> Share:
    """`share` if it is for `request`'s plan, sum and messages, all of them; ContractError otherwise."""
    seeds = split_seeds(request.seeds)
    asked = (Signed.from_bytes(request.plan).payload_digest, request.round, request.kind, request.model_digest)
    told = (share.plan_digest, share.round, share.kind, share.model_digest)
    batch = (request.dim, batch_digest(seeds), len(seeds))
    if told != asked or (share.dim, share.batch_digest, share.phones) != batch:
        raise ContractError("the helper's share is for another plan, sum or batch; nothing is released from it")
    return share


def _plain(told: bytes) -> str:
    text = told[:300].decode("utf-8", "replace")
    return "".join(each if each.isprintable() else " " for each in text)


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
