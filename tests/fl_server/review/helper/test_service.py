"""The helper's door: who may ask, how much may be sent, how slowly; and a real process over HTTPS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import httpx
import pytest
from fastapi import HTTPException

from fl_server.helper_https import HelperRefused, HttpsHelper
from fl_server.review.helper import service
from fl_server.review.helper.certificate import self_signed
from fl_server.review.helper.desk import HelperDesk
from fl_server.review.helper.records import read_log
from fl_server.review.helper.service import make_app
from model.contract.caller import HEADER, caller_header
from model.contract.envelope import Signed, SigningKey
from model.contract.masked import MAX_BATCH_BYTES
from model.errors import RoundError

from .conftest import Bench


def post(bench: Bench, desk: HelperDesk, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    """One POST to the app in this process, signed by the coordinator unless `headers` say otherwise."""
    signed = {HEADER: caller_header(body, bench.home.signing.public_bytes, bench.coordinator)}

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=make_app(desk))
        async with httpx.AsyncClient(transport=transport, base_url="https://helper") as client:
            return await client.post("/v1/batch", content=body, headers=signed if headers is None else headers)

    return asyncio.run(send())


def test_a_share_is_200_and_a_refusal_409(bench: Bench, desk: HelperDesk) -> None:
    request = bench.request(bench.plan()).to_bytes()
    share, refusal = post(bench, desk, request), post(bench, desk, b"junk")
    assert (share.status_code, refusal.status_code) == (200, 409)
    assert bench.share(Signed.from_bytes(share.content)).phones == 30
    assert bench.refusal(Signed.from_bytes(refusal.content)).code == "malformed"


def test_a_stranger_neither_uses_a_round_up_nor_writes_the_log(bench: Bench, desk: HelperDesk) -> None:
    body = bench.request(bench.plan()).to_bytes()
    public = bench.home.signing.public_bytes
    bad = [
        {},
        {HEADER: "zz"},
        {HEADER: "00" * 8000},
        {HEADER: caller_header(body, public, SigningKey.generate())},
        {HEADER: caller_header(body, public, bench.reviewer)},
        {HEADER: caller_header(body, SigningKey.generate().public_bytes, bench.coordinator)},
        {HEADER: caller_header(body + b"x", public, bench.coordinator)},
    ]
    for headers in bad:
        assert post(bench, desk, body, headers).status_code == 401
    assert read_log(bench.home.store, public) == []
    assert post(bench, desk, body).status_code == 200


def test_case_11_an_oversized_body_is_refused_before_it_is_read(bench: Bench) -> None:
    class Unread:
        headers: ClassVar = {"content-length": str(MAX_BATCH_BYTES + 1)}

        async def stream(self) -> Any:
            raise AssertionError("it was read")
            yield b""

    with pytest.raises(HTTPException) as refused:
        asyncio.run(service.body(Unread(), MAX_BATCH_BYTES))  # type: ignore[arg-type]
    assert refused.value.status_code == 413


@pytest.mark.parametrize(
    ("announced", "sent", "status"),
    [("", b"abc", 411), ("-1", b"abc", 411), ("3x", b"abc", 411), ("2", b"abc", 400), ("3", b"abc", 0)],
)
def test_a_body_is_as_long_as_it_announces(announced: str, sent: bytes, status: int) -> None:
    class Given:
        headers: ClassVar = {"content-length": announced}

        async def stream(self) -> Any:
            yield sent

    if not status:
        assert asyncio.run(service.body(Given(), 10)) == sent  # type: ignore[arg-type]
        return
    with pytest.raises(HTTPException) as refused:
        asyncio.run(service.body(Given(), 10))  # type: ignore[arg-type]
    assert refused.value.status_code == status


def test_case_28_a_slow_body_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        headers: ClassVar = {"content-length": "9"}

        async def stream(self) -> Any:
            yield b"a"
            await asyncio.Event().wait()

    monkeypatch.setattr(service, "BODY_SECONDS", 0.01)
    with pytest.raises(HTTPException) as refused:
        asyncio.run(service.body(Slow(), 100))  # type: ignore[arg-type]
    assert refused.value.status_code == 408


def test_about_names_what_to_pin(bench: Bench, desk: HelperDesk) -> None:
    async def ask() -> dict[str, str]:
        transport = httpx.ASGITransport(app=make_app(desk))
        async with httpx.AsyncClient(transport=transport, base_url="https://helper") as client:
            return dict((await client.get("/v1/about")).json())

    desk.share(b"junk")
    told = asyncio.run(ask())
    assert told["helper_key"] == bench.home.hpke.public_bytes.hex()
    assert told["signing_key"] == bench.home.signing.public_bytes.hex()
    assert Signed.from_bytes(bytes.fromhex(told["log_head"])).domain == "helper-head/1"


SERVE = """
import sys
from pathlib import Path
from fl_server.review.helper import service
from fl_server.review.helper.desk import HelperDesk
from fl_server.review.helper.home import HelperHome
service.HEAD_SECONDS = service.BODY_SECONDS = 1.0
with HelperDesk(HelperHome.open(Path(sys.argv[1]))) as desk:
    for port in service.serve(desk, "127.0.0.1", 0):
        print(port, flush=True)
"""


@contextmanager
def serving(bench: Bench, *, impatient: bool = False) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A helper's process and its port, killed (SIGKILL) at the end; `impatient` waits one second for anything."""
    command = [sys.executable, "-m", "fl_server.review", "helper", "serve", str(bench.home.path), "--port", "0"]
    if impatient:
        command = [sys.executable, "-c", SERVE, str(bench.home.path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline().split(":")[-1]), process
    finally:
        process.kill()
        process.communicate(timeout=20)


def client(bench: Bench, port: int, **options: Any) -> HttpsHelper:
    options = {"certificate_pem": bench.home.certificate.read_text(), "signing": bench.coordinator, **options}
    return HttpsHelper(f"https://127.0.0.1:{port}", helper_public=bench.home.signing.public_bytes, **options)


@pytest.mark.integration
def test_two_rounds_over_https_with_a_kill_between(bench: Bench) -> None:
    plan = bench.plan()
    first, second = bench.request(plan), bench.request(plan, round=2)
    kept: list[Signed] = []
    with serving(bench) as (port, process):
        share = client(bench, port).share(first)
        assert bench.share(share).round == 1
        again = subprocess.run(
            [sys.executable, "-m", "fl_server.review", "helper", "serve", str(bench.home.path), "--port", "0"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert again.returncode == 2 and "another process serves this helper's home" in again.stderr
        os.kill(process.pid, signal.SIGKILL)
    with serving(bench) as (port, process):
        line = client(bench, port, on_refusal=kept.append)
        assert line.share(first) == share  # the answer it gave before it was killed
        assert bench.share(line.share(second)).round == 2
        with pytest.raises(HelperRefused, match="another batch") as told:
            line.share(bench.request(plan, round=2, count=31))
        assert told.value.refusal.code == "batch" and bench.refusal(kept[0]) == told.value.refusal
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)


@pytest.mark.integration
def test_another_certificate_is_refused(bench: Bench) -> None:
    certificate, _ = self_signed(["127.0.0.1"])
    request = bench.request(bench.plan())
    with serving(bench) as (port, _process):
        with pytest.raises(RoundError, match=r"gave no answer twice.*certificate"):
            client(bench, port, certificate_pem=certificate.decode()).share(request)
        with pytest.raises(RoundError, match="HTTP 401"):
            client(bench, port, signing=SigningKey.generate()).share(request)
        assert bench.share(client(bench, port).share(request)).phones == 30


@pytest.mark.integration
def test_case_11_and_28_large_and_slow_callers_of_a_real_helper(bench: Bench) -> None:
    context = ssl.create_default_context(cadata=bench.home.certificate.read_text())

    def talk(port: int, data: bytes) -> bytes:
        """What comes back for `data` until the helper hangs up; TimeoutError if it never does."""
        said = b""
        raw = socket.create_connection(("127.0.0.1", port), 60)
        with raw, context.wrap_socket(raw, server_hostname="127.0.0.1") as line:
            line.sendall(data)
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while chunk := line.recv(1 << 16):
                    said += chunk
        return said

    body = bench.request(bench.plan()).to_bytes()
    signed = caller_header(body, bench.home.signing.public_bytes, bench.coordinator)
    head = f"POST /v1/batch HTTP/1.1\r\nHost: h\r\n{HEADER}: {signed}\r\nContent-Length: "
    with serving(bench) as (port, _process):  # one that waits ten seconds and a minute: none of these has to wait
        large = talk(port, f"{head}{1 << 40}\r\n\r\n".encode())
        assert large.startswith(b"HTTP/1.1 413")  # and no 408: the body was not waited for
        stranger = talk(port, b"POST /v1/batch HTTP/1.1\r\nHost: h\r\nContent-Length: 9999\r\n\r\n")
        assert stranger.startswith(b"HTTP/1.1 401")
        fine = talk(port, f"{head}{len(body)}\r\n\r\n".encode() + body)
        assert fine.startswith(b"HTTP/1.1 200")
    with serving(bench, impatient=True) as (port, _process):
        slow = talk(port, f"{head}{len(body)}\r\n\r\n".encode() + body[:10])
        assert slow.startswith(b"HTTP/1.1 408")
        for part in (b"", b"POST /v1/bat", b"GET / HTTP/1.1\r\nHost: h\r\nX-Slow: "):
            assert talk(port, part) == b""
