"""One request over TLS to one certificate, known whole: dialled, compared, bounded, cut off (spec 13.7)."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time

from model.canonical import sha256_hex
from model.contract.masked import MAX_BATCH_BYTES
from model.errors import InputError, RoundError

MAX_ANSWER = MAX_BATCH_BYTES
CHUNK = 1 << 16
PAUSE_SECONDS = 0.5


def pinning(certificate_pem: str) -> tuple[ssl.SSLContext, str]:
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


def require_pinned(line: http.client.HTTPSConnection, pinned: str) -> None:
    """RoundError where the certificate shown is not the one of this digest, whoever vouches for it."""
    shown = line.sock.getpeercert(binary_form=True)
    if shown is None or sha256_hex(shown) != pinned:
        raise RoundError("the helper shows another certificate than the one pinned; find out who answers there")


def connect(line: http.client.HTTPSConnection, patient: float) -> None:
    """Connect, again while nobody listens until the moment `patient`."""
    while True:
        try:
            line.connect()
            return
        except ConnectionRefusedError:
            if time.monotonic() >= patient:
                raise
        time.sleep(PAUSE_SECONDS)


def cut(line: http.client.HTTPSConnection) -> None:
    """End a connection from outside the thread that waits on it, which then sees it end."""
    if line.sock is not None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(line.sock, socket.SHUT_RDWR)


def bounded(answer: http.client.HTTPResponse) -> bytes:
    """The whole body, at most MAX_ANSWER bytes."""
    kept = bytearray()
    while chunk := answer.read1(CHUNK):
        kept += chunk
        if len(kept) > MAX_ANSWER:
            raise RoundError(f"the helper's answer is over {MAX_ANSWER} bytes; find out who answers there")
    if answer.length:
        raise http.client.IncompleteRead(bytes(kept), answer.length)
    return bytes(kept)
