"""The helper's door: HTTPS, a signed batch in, a signed answer out; bounded in bytes, time and callers (spec 13.6.5).

A caller shows the coordinator's signature over the body's digest before a byte of the body is read. So a stranger, who
can seal seeds of his own to the public key, can neither use up a round nor fill the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from starlette.concurrency import run_in_threadpool
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from fl_server.review.helper.desk import HelperDesk
from fl_server.review.helper.home import ROLES, HelperHome
from model.canonical import sha256_hex
from model.contract.caller import HEADER, named_body
from model.contract.masked import MAX_BATCH_BYTES, SHARE_DOMAIN
from model.errors import ContractError, InputError, RunError

CBOR = "application/cbor"
HEAD_SECONDS = 10.0
BODY_SECONDS = 60.0
CONNECTIONS = 64


def make_app(desk: HelperDesk) -> FastAPI:
    """POST /v1/batch and GET /v1/about of one desk."""
    app = FastAPI(title="PocketScore helper", docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/v1/batch")
    async def batch(request: Request) -> Response:
        named = _named(request.headers.get(HEADER, ""), desk.home)
        data = await body(request, MAX_BATCH_BYTES)
        if sha256_hex(data) != named:
            raise HTTPException(401, "the body is not the one that its caller signed; sign it again")
        try:
            signed = await run_in_threadpool(desk.share, data)
        except RunError as error:
            raise HTTPException(500, str(error)) from error
        return Response(signed.to_bytes(), 200 if signed.domain == SHARE_DOMAIN else 409, media_type=CBOR)

    @app.get("/v1/about")
    def about() -> dict[str, str]:
        trusted = {role: desk.home.trust.get(role, b"").hex() for role in ROLES}
        return {**desk.home.about(), **trusted, "log_head": desk.head().hex()}

    return app


def _named(header: str, home: HelperHome) -> str:
    """The digest of the body that the coordinator signed in `header`; HTTP 401 where it did not."""
    try:
        return named_body(header, home.signing.public_bytes, home.trust["coordinator"])
    except (KeyError, ContractError) as error:
        raise HTTPException(401, "only the coordinator that this helper trusts may ask; sign the request") from error


async def body(request: Request, limit: int) -> bytes:
    """The announced body; HTTP 411, 413, 400 or 408 where it is unannounced, over `limit` bytes, longer or slow.

    What is announced is checked before anything is read, what comes while it is read.
    """
    announced = request.headers.get("content-length", "")
    if not announced.isdecimal():
        raise HTTPException(411, "a batch announces its length; send Content-Length")
    if len(announced) > 20 or int(announced) > limit:  # more digits than any length has are not worth reading
        raise HTTPException(413, f"a batch is over {limit} bytes; send a smaller one")
    kept = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                kept += chunk
                if len(kept) > int(announced):
                    raise HTTPException(400, "a batch is longer than it announced; send it again")
    except TimeoutError as error:
        raise HTTPException(408, f"a batch took over {BODY_SECONDS:g} seconds; send it again") from error
    return bytes(kept)


class Bounded(H11Protocol):
    """Uvicorn's own protocol, except that a caller who sends no whole request head in time is cut off (case 28).

    Every response closes its connection, so there is no second head to be slow with.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        super().connection_made(transport)
        self._clock = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop it."""
        self._clock.cancel()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        if getattr(self, "cycle", None) is None:  # uvicorn types it as never None
            self.transport.abort()


def serve(desk: HelperDesk, host: str, port: int) -> Iterator[int]:
    """Listen, give the port (`port` 0 lets the system choose), then serve until interrupted; InputError if taken."""
    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        raise InputError(f"{host}:{port} cannot be listened on ({error.strerror}); choose another port") from error
    with contextlib.closing(listener):
        yield listener.getsockname()[1]
        Server(_config(desk)).run(sockets=[listener])


def _config(desk: HelperDesk) -> Config:
    options: dict[str, Any] = {"h11_max_incomplete_event_size": 16_384, "timeout_graceful_shutdown": 10}
    return Config(
        make_app(desk),
        http=Bounded,
        ws="none",
        lifespan="off",
        log_level="warning",
        server_header=False,
        headers=[("Connection", "close")],
        ssl_certfile=str(desk.home.certificate),
        ssl_keyfile=str(desk.home.tls_key),
        limit_concurrency=CONNECTIONS,
        **options,
    )
