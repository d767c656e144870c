"""Merkle tree hashes, inclusion and consistency proofs (RFC 6962 §2.1, RFC 9162 §2.1, spec 2.4).

`leaves` are always leaf *hashes* (32 bytes, from `leaf_hash`), so a verifier need not hold the entries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from model.errors import ContractError

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256 of 0x00 ‖ entry; the prefix keeps a leaf from passing for a node."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256 of 0x01 ‖ left ‖ right."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Tree head of the leaf hashes; of no leaves it is SHA-256 of nothing. ContractError for a hash not 32 bytes."""
    _check_leaves(leaves)
    return _root(leaves)


def inclusion_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Audit path of leaf `index` in the tree of all `leaves`, lowest sibling first."""
    _check_leaves(leaves)
    if not 0 <= index < len(leaves):
        raise ContractError(f"the log has {len(leaves)} entries and none at {index}; ask for an index below that")
    return _path(leaves, index)


def consistency_proof(leaves: Sequence[bytes], old_size: int) -> tuple[bytes, ...]:
    """Proof that the tree of the first `old_size` leaves is a prefix of the tree of all."""
    _check_leaves(leaves)
    if not 0 <= old_size <= len(leaves):
        raise ContractError(f"the log has {len(leaves)} entries, fewer than {old_size}; it was cut or is another log")
    return () if old_size in (0, len(leaves)) else _subproof(leaves, old_size, True)


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], head: bytes) -> bool:
    """Whether `proof` shows that leaf hash `leaf` stands at `index` in the tree of `size` leaves with root `head`."""
    if not 0 <= index < size or not _hashes(leaf, head, *proof):
        return False
    node, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            found = node_hash(sibling, found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and found == head


def verify_consistency(old_size: int, new_size: int, proof: Sequence[bytes], old_head: bytes, new_head: bytes) -> bool:
    """Whether `proof` shows that the new tree only appends to the old one. A fork or a shorter new tree is false."""
    if not 0 <= old_size <= new_size or not _hashes(old_head, new_head, *proof):
        return False
    if old_size == 0:
        return not proof and old_head == EMPTY_ROOT
    if old_size == new_size:
        return not proof and old_head == new_head
    return _replay(old_size, new_size, list(proof), old_head, new_head)


def _replay(old_size: int, new_size: int, proof: list[bytes], old_head: bytes, new_head: bytes) -> bool:
    """RFC 9162 §2.1.4.2, steps 3 to 7: both heads are rebuilt from one proof."""
    if not old_size & (old_size - 1):
        proof.insert(0, old_head)  # a whole old tree is itself the first node
    if not proof:
        return False
    node, last = old_size - 1, new_size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old, new = proof[0], proof[0]
    for sibling in proof[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and old == old_head and new == new_head


def _split(n: int) -> int:
    """Largest power of two below n (n ≥ 2)."""
    return 1 << ((n - 1).bit_length() - 1)


def _root(leaves: Sequence[bytes]) -> bytes:
    if len(leaves) < 2:
        return leaves[0] if leaves else EMPTY_ROOT
    k = _split(len(leaves))
    return node_hash(_root(leaves[:k]), _root(leaves[k:]))


def _path(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    if len(leaves) == 1:
        return ()
    k = _split(len(leaves))
    if index < k:
        return (*_path(leaves[:k], index), _root(leaves[k:]))
    return (*_path(leaves[k:], index - k), _root(leaves[:k]))


def _subproof(leaves: Sequence[bytes], old: int, whole: bool) -> tuple[bytes, ...]:
    if old == len(leaves):
        return () if whole else (_root(leaves),)
    k = _split(len(leaves))
    if old <= k:
        return (*_subproof(leaves[:k], old, whole), _root(leaves[k:]))
    return (*_subproof(leaves[k:], old - k, False), _root(leaves[:k]))


def _hashes(*values: bytes) -> bool:
    return all(isinstance(value, bytes) and len(value) == HASH_BYTES for value in values)


def _check_leaves(leaves: Sequence[bytes]) -> None:
    if not _hashes(*leaves):
        raise ContractError("a leaf is not a 32-byte hash; pass entries through leaf_hash first")
