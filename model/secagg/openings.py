"""Several leaves of one Merkle tree shown together, every needed hash once (RFC 6962 §2.1 tree, spec 13.8.4).

For 68 neighbours among 1,000 phones it is about 270 hashes, where single proofs take 680 and the whole roster 3,000.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from model.contract.merkle import node_hash
from model.errors import ContractError

Levels = list[list[bytes]]


def levels(leaves: Sequence[bytes]) -> Levels:
    """All hashes of the tree, the leaves first and the root last; a last one without a sibling is carried upward."""
    rows = [list(leaves)]
    while len(rows[-1]) > 1:
        row = rows[-1]
        pairs = [node_hash(row[i], row[i + 1]) for i in range(0, len(row) - 1, 2)]
        rows.append(pairs + row[2 * len(pairs) :])
    return rows


def opening(rows: Levels, indices: Iterable[int]) -> list[bytes]:
    """The hashes that together with the leaves at `indices` give the root, level by level from left to right."""
    known, proof = set(indices), []
    for row in rows[:-1]:
        proof += [row[i] for i in sorted({i ^ 1 for i in known} - known) if i < len(row)]
        known = {i >> 1 for i in known}
    return proof


def root_of(leaves: Mapping[int, bytes], size: int, proof: Sequence[bytes]) -> bytes:
    """The root of a tree of `size` leaves that holds `leaves` {index: leaf hash}, by their opening.

    ContractError for no leaves, an index outside the tree, and an opening with too few or too many hashes.
    """
    if not leaves or not all(0 <= i < size for i in leaves):
        raise ContractError("an opening shows no leaf of its tree; ask for it again")
    known, left = dict(leaves), list(reversed(proof))
    while size > 1:
        for i in sorted({i ^ 1 for i in known} - known.keys()):
            if i < size:
                if not left:
                    raise ContractError("an opening lacks hashes; ask for it again")
                known[i] = left.pop()
        known = {i: _parent(known, 2 * i) for i in {i >> 1 for i in known}}
        size = (size + 1) // 2
    if left:
        raise ContractError(f"an opening has {len(left)} hashes too many; ask for it again")
    return known[0]


def _parent(row: Mapping[int, bytes], left: int) -> bytes:
    return node_hash(row[left], row[left + 1]) if left + 1 in row else row[left]
