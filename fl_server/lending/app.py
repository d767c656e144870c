"""The lender's HTTP door on loopback: envelopes in, card and decisions out; bounded in bytes and time (spec 10.9)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from fl_server.lending.desk import signed_decision
from fl_server.lending.intake import MAX_ENVELOPE, Intake, Taken
from fl_server.lending.keys import LenderHome
from model.errors import ContractError

MAX_BATCH = 4096
MAX_BATCH_BYTES = 16 << 20
BODY_SECONDS = 10.0
CBOR = "application/cbor"


def make_app(home: LenderHome, intake: Intake, clock: Callable[[], float] = time.time) -> FastAPI:
    """The app of one lender; `clock` gives unix seconds."""
    app = FastAPI(title="PocketScore lender", docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/v1/envelopes")
    async def one(request: Request) -> JSONResponse:
        data = await body(request, MAX_ENVELOPE)
        (taken,) = await run_in_threadpool(intake.take_all, [data], int(clock()))
        return JSONResponse(asdict(taken), _status(taken))

    @app.post("/v1/envelopes/batch")
    async def many(request: Request) -> JSONResponse:
        data = await body(request, MAX_BATCH_BYTES)
        try:
            batch = split(data)
        except ContractError as error:
            raise HTTPException(400, str(error)) from error
        taken = await run_in_threadpool(intake.take_all, batch, int(clock()))
        return JSONResponse([asdict(each) for each in taken])

    @app.get("/v1/card")
    def card() -> Response:
        return Response(home.card(int(clock())).signed(home.signing).to_bytes(), media_type=CBOR)

    @app.get("/v1/decisions/{ref}")
    def decision(ref: str) -> Response:
        verdict = intake.book.find(ref)
        if verdict is None:
            raise HTTPException(404, "there is no decision under this reference yet; ask again later")
        return Response(signed_decision(verdict.document, home.signing).to_bytes(), media_type=CBOR)

    return app


async def body(request: Request, limit: int) -> bytes:
    """At most `limit` bytes of body within ten seconds; HTTP 413 or 408 otherwise, before more is held."""
    kept = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                kept += chunk
                if len(kept) > limit:
                    raise HTTPException(413, f"a body is over {limit} bytes; send a smaller one")
    except TimeoutError as error:
        raise HTTPException(408, "a body took over ten seconds; send it again") from error
    return bytes(kept)


def split(data: bytes) -> list[bytes]:
    """Envelopes of a batch, each after its length as four big-endian bytes; ContractError if it does not add up."""
    batch: list[bytes] = []
    place = 0
    while place < len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        end = place + 4 + size
        if place + 4 > len(data) or end > len(data) or size > MAX_ENVELOPE or len(batch) == MAX_BATCH:
            raise ContractError(f"a batch holds at most {MAX_BATCH} whole envelopes of {MAX_ENVELOPE} bytes; split it")
        batch.append(data[place + 4 : end])
        place = end
    return batch


def join(batch: list[bytes]) -> bytes:
    """Inverse of `split`."""
    return b"".join(len(data).to_bytes(4, "big") + data for data in batch)


def run(app: FastAPI, port: int) -> None:
    """Serve on loopback until interrupted; TLS and the outside belong to a proxy in front."""
    import uvicorn

    options: dict[str, Any] = {
        "h11_max_incomplete_event_size": 16_384,
        "timeout_keep_alive": 5,
        "limit_concurrency": 64,
    }
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", **options)


def _status(taken: Taken) -> int:
    codes = {"ReplayError": 409, "AudienceError": 403, "ConsentError": 403}
    return codes.get(taken.error, 400) if taken.status == "refused" else 200
