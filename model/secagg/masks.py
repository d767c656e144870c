"""Masks: uniform residues that a 32-byte seed and a context stretch to (spec 13.3)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from model.errors import ContractError
from model.secagg.context import Context
from model.secagg.fixedpoint import Ring

SEED = 32
_ZERO = modes.CTR(bytes(16))


def expand(seed: bytes, context: Context, dim: int) -> Ring:
    """`dim` residues: the AES-256-CTR key stream from counter zero, as little-endian words, (dim,) uint32.

    The key is HKDF-SHA256 (RFC 5869, no salt) of the seed for `context.bytes()`, so a key is used for one stream.
    ContractError for a seed of another length, or a `dim` that is not the context's.
    """
    if dim != context.dim:
        raise ContractError(f"a mask of {dim} numbers was asked in a context of {context.dim}; use the context's")
    return _stream(seed, context.bytes(), bytes(4 * dim))


def mask_sum(seeds: Iterable[bytes], context: Context) -> Ring:
    """The sum of the seeds' masks modulo 2³², (context.dim,) uint32; zeros for no seeds."""
    total = np.zeros(context.dim, dtype=np.uint32)
    info, zeros = context.bytes(), bytes(4 * context.dim)
    for seed in seeds:
        total += _stream(seed, info, zeros)
    return total


def _stream(seed: bytes, info: bytes, zeros: bytes) -> Ring:
    if len(seed) != SEED:
        raise ContractError(f"a mask's seed is {SEED} bytes, not {len(seed)}; draw another")
    key = HKDF(SHA256(), SEED, salt=None, info=info).derive(seed)
    return np.frombuffer(Cipher(algorithms.AES256(key), _ZERO).encryptor().update(zeros), dtype="<u4")
