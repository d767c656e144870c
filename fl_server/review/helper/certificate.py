"""The certificate of a helper's door: self-signed, pinned by who dials it, of one P-256 key (spec 13.6.1)."""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from model.canonical import sha256_hex
from model.errors import InputError

CERTIFICATE_DAYS = 3650  # it is pinned, so it ends when the home does, not by the calendar
_HOST = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*", re.I | re.A
)


def self_signed(names: Sequence[str], days: int = CERTIFICATE_DAYS) -> tuple[bytes, bytes]:
    """A certificate for `names` that vouches for itself alone (no CA), and its P-256 key, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pocketscore helper")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM), private


def require_names(names: Sequence[str]) -> None:
    """InputError unless each is an address or a host name as a certificate may carry it (ASCII, RFC 1123)."""
    bad = [name for name in names if not _HOST.fullmatch(name) and not _is_address(name)]
    if bad or not names:
        raise InputError(f"{bad[0] if bad else ''!r} is no host name of ASCII letters; name one, or an IP address")


def require_pair(certificate: bytes, key: bytes) -> None:
    """ValueError unless the certificate (PEM) can be read and is of this private key (PEM)."""
    shown = x509.load_pem_x509_certificate(certificate).public_key()
    if shown != serialization.load_pem_private_key(key, None).public_key():
        raise ValueError("tls.pem is not the certificate of keys/tls.key")


def certificate_digest(pem: bytes) -> str:
    """SHA-256 (hex) of the DER form of a certificate in PEM; ValueError where it is none."""
    found = x509.load_pem_x509_certificate(pem)
    return sha256_hex(found.public_bytes(serialization.Encoding.DER))


def _is_address(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _name(name: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(name)) if _is_address(name) else x509.DNSName(name)
