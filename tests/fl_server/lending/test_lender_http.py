"""The HTTP door: bounds, statuses, the card, signed decisions; and a real server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import HTTPException
from hypothesis import given
from hypothesis import strategies as st

from fl_server.lending import app as door
from fl_server.lending.app import join, make_app, split
from fl_server.lending.card import LenderCard
from fl_server.lending.desk import Desk
from fl_server.lending.intake import MAX_ENVELOPE, Intake
from fl_server.lending.keys import LenderHome
from model.contract.envelope import Signed, verify
from model.errors import ContractError


class Client:
    """Requests to the app in this process."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, method: str, path: str, content: bytes = b"") -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://lender") as client:
                return await client.request(method, path, content=content)

        return asyncio.run(send())


@pytest.fixture
def client(home: LenderHome, intake: Intake, now: int) -> Client:
    return Client(make_app(home, intake, clock=lambda: now))


def test_an_envelope_is_accepted_repeated_and_refused_over_http(client: Client, phone: Any, home: LenderHome) -> None:
    assert client("POST", "/v1/envelopes", phone.consent()).json()["status"] == "consent"
    data = phone.score(ref="loan-1")
    assert client("POST", "/v1/envelopes", data).json()["status"] == "accepted"
    again = client("POST", "/v1/envelopes", data)
    assert (again.status_code, again.json()["status"]) == (200, "duplicate")
    phone.counter -= 1
    replayed = client("POST", "/v1/envelopes", phone.score(700))
    assert (replayed.status_code, replayed.json()["error"]) == (409, "ReplayError")
    assert client("POST", "/v1/envelopes", b"junk").status_code == 400


def test_bodies_are_bounded(client: Client) -> None:
    assert client("POST", "/v1/envelopes", b"x" * (MAX_ENVELOPE + 1)).status_code == 413
    assert client("POST", "/v1/envelopes/batch", b"\x00\x00\x00\xffx").status_code == 400


def test_case_28_a_slow_body_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        async def stream(self) -> Any:
            yield b"a"
            await asyncio.Event().wait()

    monkeypatch.setattr(door, "BODY_SECONDS", 0.01)
    with pytest.raises(HTTPException) as refused:
        asyncio.run(door.body(Slow(), 100))  # type: ignore[arg-type]
    assert refused.value.status_code == 408


def test_a_batch_answers_in_order(client: Client, phone: Any) -> None:
    answers = client("POST", "/v1/envelopes/batch", join([phone.score(), b"junk", phone.consent()])).json()
    assert [each["status"] for each in answers] == ["accepted", "refused", "consent"]


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_batches_come_back(batch: list[bytes]) -> None:
    assert split(join(batch)) == batch


@given(st.binary(min_size=1, max_size=64))
def test_any_bytes_are_a_batch_or_refused(data: bytes) -> None:
    with contextlib.suppress(ContractError):
        assert join(split(data)) == data


def test_card_and_decisions_are_signed(client: Client, intake: Intake, home: LenderHome, phone: Any, now: int) -> None:
    card = LenderCard.opened(Signed.from_bytes(client("GET", "/v1/card").content), now)
    assert card.audience == "example-finance"
    intake.take_all([phone.consent(), phone.score(640, ref="loan-1")], now)
    assert client("GET", "/v1/decisions/loan-1").status_code == 404
    Desk(home.cards(now), home.releases(), intake.book).decide_all({}, now)
    signed = Signed.from_bytes(client("GET", "/v1/decisions/loan-1").content)
    public = bytes.fromhex(card.signing_public)
    assert verify(signed, "decision/1", {home.signing.keyid: public})["outcome"] == "approve"


@pytest.mark.integration
def test_a_real_lender_process_takes_an_envelope(home: LenderHome, phone: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "fl_server", "lender", "serve", str(home.path), "--port", str(port)]
    server = subprocess.Popen(command, cwd=Path(__file__).resolve().parents[3], stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5) as client:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                try:
                    card = client.get("/v1/card")
                    break
                except httpx.ConnectError:
                    pass
            assert card.status_code == 200
            answer = client.post("/v1/envelopes/batch", content=join([phone.consent(), b"junk"]))
            assert [each["status"] for each in answer.json()] == ["refused", "refused"]  # its clock is years earlier
            assert json.loads(answer.text)[0]["error"] == "IntakeError"
    finally:
        server.terminate()
        server.wait(10)
