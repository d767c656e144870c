"""The coordinator's line to the helper against servers that lie, stall and hang up."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fl_server.helper_https import HelperRefused, HttpsHelper, check_share
from fl_server.review.helper.home import HelperHome
from model.canonical import sha256_hex
from model.contract.caller import HEADER, caller_header, named_body
from model.contract.envelope import SigningKey, sign
from model.contract.masked import (
    BATCH_SCHEMA,
    REFUSAL_DOMAIN,
    SHARE_DOMAIN,
    BatchRequest,
    Refusal,
    Share,
    batch_digest,
    split_seeds,
)
from model.errors import ContractError, InputError, RoundError, SignatureError

PLAN = sign("plan/1", {"name": "any"}, [])
SEEDS = bytes(105) + b"\1" * 105
REQUEST = BatchRequest(BATCH_SCHEMA, PLAN.to_bytes(), 1, "train", "ab" * 32, 3, SEEDS)
SHARE = Share(PLAN.payload_digest, 1, "train", "ab" * 32, 3, batch_digest(split_seeds(SEEDS)), 2, 8.0, 1000, b"\2" * 12)
REFUSAL = Refusal(PLAN.payload_digest, 1, "train", "cd" * 32, "cohort", "a batch of 2 is too small", 5)
Reply = Callable[[ssl.SSLSocket], None]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> HelperHome:
    return HelperHome.init(tmp_path_factory.mktemp("made") / "helper")


@contextmanager
def answering(home: HelperHome, *replies: Reply, port: int = 0) -> Iterator[tuple[str, list[bytes]]]:
    """A TLS server that answers its connections by `replies`, in turn; gives its address and the requests it read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home.certificate, home.tls_key)
    seen: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", port))

    def answer(raw: socket.socket, reply: Reply) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(raw, server_side=True) as line:
            seen.append(_request(line))
            reply(line)

    def run() -> None:
        with contextlib.suppress(OSError):
            for reply in replies:
                threading.Thread(target=answer, args=(listener.accept()[0], reply), daemon=True).start()

    threading.Thread(target=run, daemon=True).start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}", seen
    finally:
        listener.close()


def _request(line: ssl.SSLSocket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        more = line.recv(1 << 16)
        if not more:
            raise ConnectionError("nothing was asked")
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    size = int(next(each for each in head.lower().split(b"\r\n") if b"content-length" in each).split(b":")[1])
    while len(body) < size:
        body += line.recv(1 << 16)
    return head + b"\r\n\r\n" + body


def http(body: bytes, status: str = "200 OK", length: int | None = None) -> Reply:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n".encode()
    return lambda line: line.sendall(head + body)


def lost(line: ssl.SSLSocket) -> None:
    """Hang up without a word."""


def stalled(line: ssl.SSLSocket) -> None:
    """Say nothing until the caller hangs up."""
    line.recv(1)


def drip(line: ssl.SSLSocket) -> None:
    """A byte now and then until the caller hangs up, two minutes long at most: each in time, the whole never."""
    for _ in range(2400):
        line.sendall(b"x")
        time.sleep(0.05)


def helper(home: HelperHome, url: str, **options: Any) -> HttpsHelper:
    return HttpsHelper(url, home.certificate.read_text(), home.signing.public_bytes, SigningKey.generate(), **options)


def signed(home: HelperHome, **changes: Any) -> Reply:
    return http(sign(SHARE_DOMAIN, replace(SHARE, **changes).to_dict(), [home.signing]).to_bytes())


def _refused(line: HttpsHelper, sentence: str) -> RoundError:
    with pytest.raises(RoundError, match=sentence) as told:
        line.share(REQUEST)
    return told.value


def test_a_share_for_just_this_batch_is_taken(home: HelperHome) -> None:
    with answering(home, signed(home)) as (url, seen):
        assert helper(home, url).share(REQUEST).domain == SHARE_DOMAIN
    assert seen[0].startswith(b"POST /v1/batch HTTP/1.1") and seen[0].endswith(REQUEST.to_bytes())


@pytest.mark.parametrize(
    "change",
    [
        {"plan_digest": "cd" * 32},
        {"round": 2},
        {"kind": "knots"},
        {"model_digest": "cd" * 32},
        {"dim": 4, "share": bytes(16)},
        {"batch_digest": "cd" * 32},
        {"phones": 3},
    ],
)
def test_a_share_for_anything_else_is_refused(home: HelperHome, change: dict[str, Any]) -> None:
    check_share(SHARE, REQUEST)
    with answering(home, signed(home, **change)) as (url, _seen), pytest.raises(ContractError, match="another plan"):
        helper(home, url).share(REQUEST)


def test_an_answer_by_another_key_or_of_another_kind_is_refused(home: HelperHome) -> None:
    stranger = http(sign(SHARE_DOMAIN, SHARE.to_dict(), [SigningKey.generate()]).to_bytes())
    other = http(sign("plan/1", SHARE.to_dict(), [home.signing]).to_bytes())
    for reply in (stranger, other):
        with answering(home, reply) as (url, _seen), pytest.raises(SignatureError):
            helper(home, url).share(REQUEST)


def test_a_refusal_is_kept_and_raised_with_its_sentence(home: HelperHome) -> None:
    no = sign(REFUSAL_DOMAIN, REFUSAL.to_dict(), [home.signing])
    kept: list[Any] = []
    with answering(home, http(no.to_bytes(), "409 Conflict")) as (url, _seen):
        line = helper(home, url, on_refusal=kept.append)
        told = _refused(line, "a batch of 2 is too small")
    assert kept == [no] and isinstance(told, HelperRefused) and told.refusal == REFUSAL


@pytest.mark.parametrize("first", [lost, stalled, http(b"half", length=1000)])
def test_a_lost_answer_is_asked_for_once_more_in_the_same_bytes(home: HelperHome, first: Reply) -> None:
    with answering(home, first, signed(home)) as (url, seen):
        seconds = 3.0 if first is stalled else 120.0  # the second answer has to come in as many
        assert helper(home, url, seconds=seconds).share(REQUEST).domain == SHARE_DOMAIN
    bodies = [each.partition(b"\r\n\r\n")[2] for each in seen]
    assert bodies == [REQUEST.to_bytes()] * 2


def test_two_lost_answers_are_enough(home: HelperHome) -> None:
    with answering(home, lost, lost, signed(home)) as (url, _seen):
        _refused(helper(home, url), "gave no answer twice")


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"HTTP/1.1 200 O", b""])
def test_case_28_a_helper_that_drips_ends(home: HelperHome, head: bytes) -> None:
    borne = []

    def slow(line: ssl.SSLSocket) -> None:
        line.sendall(head)
        drip(line)
        borne.append(line)

    with answering(home, slow, slow) as (url, _seen), pytest.raises(RoundError, match="gave no answer twice"):
        helper(home, url, seconds=0.3).share(REQUEST)
    assert borne == []  # it was the caller who hung up


def test_an_answer_beyond_the_limit_ends(home: HelperHome) -> None:
    def endless(line: ssl.SSLSocket) -> None:
        line.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(1000):
            line.sendall(bytes(1 << 16))

    with answering(home, endless) as (url, _seen), pytest.raises(RoundError, match="over 16777216 bytes"):
        helper(home, url).share(REQUEST)


def test_an_unsigned_no_is_one_sentence(home: HelperHome) -> None:
    with answering(home, http(b'{"detail":"sign\n it"}', "401 Unauthorized")) as (url, _seen):
        told = _refused(helper(home, url), r"HTTP 401: .*sign  it")
    assert "\n" not in str(told)


def test_another_certificate_is_refused_before_anything_is_sent(home: HelperHome, tmp_path: Path) -> None:
    other = HelperHome.init(tmp_path / "other")
    with answering(other, signed(home), signed(home)) as (url, seen):
        _refused(helper(home, url), "certificate")
    assert seen == []


def test_the_certificate_is_compared_whole_after_tls_took_it(home: HelperHome, monkeypatch: pytest.MonkeyPatch) -> None:
    line = helper(home, "https://127.0.0.1:1")
    monkeypatch.setattr(line, "_pinned", "ab" * 32)
    with answering(home, signed(home)) as (url, seen):
        monkeypatch.setattr(line, "_port", int(url.split(":")[-1]))
        _refused(line, "another certificate than")
    assert seen == []  # nothing was sent


def test_addresses_and_certificates_that_are_none(home: HelperHome) -> None:
    for url in ("http://127.0.0.1:1", "127.0.0.1:1", "https://"):
        with pytest.raises(InputError, match="https"):
            helper(home, url)
    for text in ("", "junk", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises(InputError, match="certificate"):
            HttpsHelper("https://h", text, home.signing.public_bytes, SigningKey.generate())


def test_nobody_there_is_one_sentence(home: HelperHome) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(RoundError, match="gave no answer twice"):
        helper(home, f"https://127.0.0.1:{port}").share(REQUEST)


def test_a_caller_signs_one_body_for_one_helper(home: HelperHome) -> None:
    key, mine, other = SigningKey.generate(), home.signing.public_bytes, SigningKey.generate().public_bytes
    header = caller_header(b"body", mine, key)
    assert named_body(header, mine, key.public_bytes) == sha256_hex(b"body") and len(header) < 1000 and HEADER.islower()
    with pytest.raises(ContractError, match="another helper"):
        named_body(header, other, key.public_bytes)
    with pytest.raises(SignatureError):
        named_body(header, mine, other)
    with pytest.raises(ContractError, match="not hex"):
        named_body("zz", mine, key.public_bytes)


def test_a_helper_that_is_being_started_is_waited_for(home: HelperHome) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    start = time.monotonic()
    with pytest.raises(RoundError, match="gave no answer twice"):
        helper(home, f"https://127.0.0.1:{port}", patience=0.6).share(REQUEST)
    assert time.monotonic() - start >= 0.6
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(helper(home, f"https://127.0.0.1:{port}", patience=30.0).share, REQUEST)
        time.sleep(0.3)
        with answering(home, signed(home), port=port):
            assert asked.result().domain == SHARE_DOMAIN
