"""Merkle proofs: the test data of Certificate Transparency, every small tree, and what does not verify."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.contract.merkle import (
    EMPTY_ROOT,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root,
    verify_consistency,
    verify_inclusion,
)
from model.errors import ContractError

# The eight inputs and roots that Certificate Transparency implementations share.
ENTRIES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]
sizes = st.integers(1, 40)


def _leaves(n: int) -> list[bytes]:
    return [leaf_hash(str(i).encode()) for i in range(n)]


@pytest.mark.parametrize(("size", "expected"), enumerate(ROOTS, start=1))
def test_known_roots(size: int, expected: str) -> None:
    assert root(LEAVES[:size]).hex() == expected


def test_the_empty_tree() -> None:
    assert root([]) == EMPTY_ROOT == hashlib.sha256(b"").digest()


def test_known_proofs() -> None:
    a, b, c, d = LEAVES[:4]
    assert inclusion_proof(LEAVES[:3], 0) == (b, c)
    assert inclusion_proof(LEAVES[:3], 2) == (node_hash(a, b),)
    assert inclusion_proof(LEAVES[:1], 0) == ()
    # RFC 6962 §2.1.3's example shapes, on 7 leaves.
    seven = LEAVES[:7]
    e, f, g = seven[4:]
    assert inclusion_proof(seven, 3) == (c, node_hash(a, b), node_hash(node_hash(e, f), g))
    assert consistency_proof(seven, 3) == (c, d, node_hash(a, b), node_hash(node_hash(e, f), g))
    assert consistency_proof(seven, 4) == (node_hash(node_hash(e, f), g),)


@given(sizes, st.data())
def test_every_leaf_verifies_and_only_in_its_place(n: int, data: st.DataObject) -> None:
    leaves, i = _leaves(n), data.draw(st.integers(0, n - 1))
    proof, head = inclusion_proof(leaves, i), root(leaves)
    assert verify_inclusion(leaves[i], i, n, proof, head)
    assert not verify_inclusion(leaf_hash(b"other"), i, n, proof, head)
    j = data.draw(st.integers(0, n - 1).filter(lambda j: j != i)) if n > 1 else 1
    assert not verify_inclusion(leaves[i], j, n, proof, head)
    assert not verify_inclusion(leaves[i], i, n, (*proof, leaves[0]), head)
    assert not proof or not verify_inclusion(leaves[i], i, n, proof[:-1], head)
    assert not verify_inclusion(leaves[i], i, n, proof, leaf_hash(head))


@given(sizes, sizes)
def test_every_prefix_is_consistent_and_no_other_tree(m: int, n: int) -> None:
    m, n = min(m, n), max(m, n)
    leaves = _leaves(n)
    proof, old, new = consistency_proof(leaves, m), root(leaves[:m]), root(leaves)
    assert verify_consistency(m, n, proof, old, new)
    assert not verify_consistency(m, n, (*proof, old), old, new)
    assert not proof or not verify_consistency(m, n, proof[:-1], old, new)
    assert not verify_consistency(m, n, proof, leaf_hash(old), new)
    assert not verify_consistency(m, n, proof, old, leaf_hash(new))


@given(st.integers(2, 40), st.data())
def test_case_59_forked_log(n: int, data: st.DataObject) -> None:
    m = data.draw(st.integers(1, n - 1))
    honest = _leaves(n)
    forked = [*honest[: m - 1], leaf_hash(b"forked"), *honest[m:]]
    assert verify_consistency(m, n, consistency_proof(honest, m), root(honest[:m]), root(honest))
    assert not verify_consistency(m, n, consistency_proof(forked, m), root(honest[:m]), root(forked))


@given(st.integers(2, 40), st.data())
def test_case_60_edited_or_deleted_entry(n: int, data: st.DataObject) -> None:
    honest, i = _leaves(n), data.draw(st.integers(0, n - 1))
    edited = [*honest[:i], leaf_hash(b"edited"), *honest[i + 1 :]]
    deleted = honest[:i] + honest[i + 1 :]
    assert len({root(honest), root(edited), root(deleted)}) == 3
    assert not verify_consistency(n, n - 1, (), root(honest), root(deleted))


def test_a_node_does_not_pass_for_a_leaf() -> None:
    a, b = LEAVES[:2]
    assert leaf_hash(a + b) != node_hash(a, b)
    assert root([node_hash(a, b)]) == root([a, b])  # leaves are hashes: the size in the checkpoint tells these apart
    assert not verify_inclusion(node_hash(a, b), 0, 2, (), root([a, b]))


def test_bounds_are_checked() -> None:
    assert verify_consistency(0, 3, (), EMPTY_ROOT, root(LEAVES[:3]))
    assert not verify_consistency(0, 3, (), LEAVES[0], root(LEAVES[:3]))
    assert not verify_consistency(-1, 3, (), EMPTY_ROOT, root(LEAVES[:3]))
    assert not verify_consistency(1, 2, (), LEAVES[0], LEAVES[0])
    assert not verify_consistency(3, 7, (), LEAVES[0], LEAVES[0])
    assert not verify_inclusion(b"short", 0, 1, (), b"short")
    for call in (lambda: inclusion_proof(LEAVES, 8), lambda: inclusion_proof(LEAVES, -1)):
        with pytest.raises(ContractError, match="none at"):
            call()
    with pytest.raises(ContractError, match="cut"):
        consistency_proof(LEAVES, 9)
    with pytest.raises(ContractError, match="leaf_hash"):
        root([b"not a hash"])
