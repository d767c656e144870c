"""What two neighbours share: a channel and a mask (X25519, HKDF-SHA256, AES-256-GCM, HMAC-SHA256; spec 13.9.5)."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from model.errors import RoundError
from model.secagg.messages import BOX, TAG
from model.secagg.shares import SHARE

_CHANNEL, _MASK = b"pocketscore/channel/1\0", b"pocketscore/pair/1\0"
_COMMIT, _SEED = b"pocketscore/share-commitment/1\0", b"pocketscore/seed-hash/1\0"
# u-coordinates of the points of small order, as RFC 7748 §6.1 lets their outcome be checked; the top bit is ignored.
_P = 2**255 - 19
_ORDER_8 = (
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
)
_LOW = {u.to_bytes(32, "little") for u in (0, 1, _P - 1, _P, _P + 1)} | set(map(bytes.fromhex, _ORDER_8))
_ONCE = bytes(12)  # a key seals one box
KEYS = 96


@dataclass(frozen=True)
class Channel:
    """32-byte keys of one pair as one side sees them: to seal for the other, to open what it sealed, to tag."""

    seal_key: bytes
    open_key: bytes
    tag_key: bytes

    def seal(self, shares: tuple[bytes, ...]) -> bytes:
        """Both shares for the other side."""
        return AESGCM(self.seal_key).encrypt(_ONCE, b"".join(shares), None)

    def open(self, box: bytes) -> tuple[bytes, bytes] | None:
        """The two shares in a box, or None if it does not open (case 38)."""
        try:
            plain = AESGCM(self.open_key).decrypt(_ONCE, box, None) if len(box) == BOX else b""
        except InvalidTag:
            return None
        return (plain[:SHARE], plain[SHARE:]) if plain else None

    def tag(self, word: bytes, sender: bytes, data: bytes) -> bytes:
        """16 bytes of HMAC-SHA256: `sender` (its identity) says `data` in the sense of `word`."""
        return hmac.digest(self.tag_key, word + sender + data, "sha256")[:TAG]

    def says(self, tag: bytes, word: bytes, sender: bytes, data: bytes) -> bool:
        """Whether the tag fits."""
        return hmac.compare_digest(tag, self.tag(word, sender, data))

    def to_bytes(self) -> bytes:
        """Its 96 bytes."""
        return self.seal_key + self.open_key + self.tag_key

    @classmethod
    def from_bytes(cls, keys: bytes) -> Channel:
        """Inverse of `to_bytes`."""
        return cls(keys[:32], keys[32:64], keys[64:96])


def channel(private: X25519PrivateKey, own: bytes, other: bytes, bound: bytes) -> Channel:
    """The channel to whoever holds `other`, `bound` to this attempt; RoundError for a low-order key (case 37)."""
    low, high = sorted((own, other))
    keys = HKDF(SHA256(), KEYS, salt=None, info=_CHANNEL + bound + low + high).derive(agreed(private, other))
    first, second, tag_key = keys[:32], keys[32:64], keys[64:]
    return Channel(first, second, tag_key) if own == low else Channel(second, first, tag_key)


def mask_seed(private: X25519PrivateKey, own: bytes, other: bytes, root: bytes) -> bytes:
    """The seed of a pair's mask, which `masks.mask_sum` binds to the context; RoundError for a low-order key."""
    low, high = sorted((own, other))
    return HKDF(SHA256(), 32, salt=None, info=_MASK + root + low + high).derive(agreed(private, other))


def low_order(public: bytes) -> bool:
    """Whether an X25519 public key leads to the all-zero secret with every private key."""
    return public[:31] + bytes([public[31] & 0x7F]) in _LOW


def agreed(private: X25519PrivateKey, other: bytes) -> bytes:
    """X25519 (RFC 7748); its all-zero outcome of a low-order key is a RoundError."""
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError as error:
        raise RoundError("a neighbour's public key is of low order; nothing is shared with it") from error


def commitment(share: bytes) -> bytes:
    """16 bytes that hold a dealer to a share: a share is 256 random bits, and who only holds it cannot find another."""
    return hashlib.sha256(_COMMIT + share).digest()[:16]


def seed_hash(seed: bytes) -> bytes:
    """What a reconstructed self-mask seed is checked against."""
    return hashlib.sha256(_SEED + seed).digest()
