"""Golden vectors under tests/vectors: read by any implementation, reproduced byte for byte by this one.

`python tests/model/contract/test_vectors.py` writes them again after a deliberate change of the contract.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model import canonical
from model.contract import checkpoint, envelope, merkle, sealed, update
from model.contract.score import ScoreEnvelope
from model.errors import ContractError

FOLDER = Path(__file__).parents[2] / "vectors"
KEYS = [envelope.SigningKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2)]
RING = {key.keyid: key.public_bytes for key in KEYS}
RECIPIENT = sealed.RecipientKey.from_private_bytes(bytes([7]) * 32)
INFO = {"purpose": "loan", "audience": "lender-a"}
# Sealing is randomised, so one sealed message is kept: b"sealed once" to RECIPIENT under INFO.
SEALED_ONCE = bytes.fromhex(
    "706f636b657473636f72652f7365616c2f313a0020000100011e21d86dcfac697203419c56399fcd5f5aabf9bf"
    "35fc2ae08321db36118492496e1e37c878a763bd15ce5b1dedfe7a837e30e8981a801a2eb9a8d8"
)
LEAVES = [merkle.leaf_hash(bytes([n])) for n in range(7)]
HEAD = checkpoint.Checkpoint("pocketscore.example/log", 7, merkle.root(LEAVES))
SCORE = ScoreEnvelope(
    ref="r-1",
    purpose="loan",
    consent_id="c-1",
    score=640,
    band="B",
    model_digest="cc" * 32,
    policy_pack="in-rbi-2025",
    nonce="00ff",
    counter=1,
    issued_at=1_770_000_000,
    expires_at=1_772_592_000,
    audience="lender-a",
    device_key=KEYS[0].public_bytes.hex(),
)

Rows = list[dict[str, Any]]


def canonical_good() -> Rows:
    """Values as JSON and their canonical bytes."""
    values: list[Any] = [0, 23, 24, -1, -25, 65536, 1.0, 1.5, 0.1, 1e300, True, None, "", "ü", [], [1, [2]], {}]
    values += [{"b": 1, "aa": 2, "": 3}, {"plan_digest": "ab" * 32, "round": 3, "schema": update.TASK_SCHEMA}]
    return [{"value": v, "bytes": canonical.encode(v).hex(), "digest": canonical.digest(v)} for v in values]


def canonical_bad() -> Rows:
    """Bytes that a strict decoder refuses, and why."""
    cases = {
        "non-shortest integer": "1817",
        "non-shortest float": "fa3f800000",
        "indefinite list": "9f01ff",
        "unsorted keys": "a2616201616101",
        "duplicate key": "a2616101616102",
        "integer key": "a10101",
        "tag": "c100",
        "undefined": "f7",
        "not a number": "f97e00",
        "trailing byte": "0000",
        "cut text": "6261",
        "empty": "",
        "terabytes announced": "9b0000ffffffffffff",
        "17 deep": "81" * 17 + "00",
        "invalid UTF-8": "61ff",
    }
    return [{"why": why, "bytes": data} for why, data in cases.items()]


def envelope_good() -> Rows:
    """A plan-like payload signed by two keys, and a score envelope by one."""
    two = envelope.sign("plan/1", {"name": "demo"}, KEYS)
    one = envelope.sign("score/1", SCORE.to_dict(), KEYS[:1])
    keys = {name: public.hex() for name, public in RING.items()}
    return [
        {
            "domain": s.domain,
            "keys": keys,
            "threshold": len(s.signatures),
            "bytes": s.to_bytes().hex(),
            "digest": s.payload_digest,
        }
        for s in (two, one)
    ]


def envelope_bad() -> Rows:
    """Envelopes that do not verify for domain plan/1 with two of two keys."""
    good = envelope.sign("plan/1", {"name": "demo"}, KEYS)
    a, b = good.signatures
    cases = {
        "one of two": (good.domain, good.payload, (a,)),
        "one key twice": (good.domain, good.payload, (a, a)),
        "other domain": ("release/1", good.payload, (a, b)),
        "other payload": (good.domain, canonical.encode({"name": "dem0"}), (a, b)),
        "signatures exchanged": (good.domain, good.payload, ((a[0], b[1]), (b[0], a[1]))),
        "payload not canonical": (good.domain, b"\x18\x17", (a, b)),
    }
    return [{"why": why, "bytes": envelope.Signed(*parts).to_bytes().hex()} for why, parts in cases.items()]


def sealed_good() -> Rows:
    """A sealed message, the recipient's private key, and what it opens to."""
    opened = sealed.open_sealed(SEALED_ONCE, RECIPIENT, INFO)
    key = RECIPIENT.private_bytes().hex()
    return [{"private": key, "info": INFO, "bytes": SEALED_ONCE.hex(), "plaintext": opened.hex()}]


def sealed_bad() -> Rows:
    """Changed messages; the first three are the suite downgrades of case 57."""
    data, at = SEALED_ONCE, len(sealed.SUITE)
    cases = {
        "suite without encryption": data[: at - 2] + b"\xff\xff" + data[at:],
        "suite of another KEM": data[: at - 6] + b"\x00\x10" + data[at - 4 :],
        "no suite": data[at:],
        "tag changed": data[:-1] + bytes([data[-1] ^ 1]),
        "key changed": data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],
        "cut": data[:-1],
    }
    return [{"why": why, "bytes": raw.hex()} for why, raw in cases.items()]


def merkle_good() -> Rows:
    """Every inclusion and consistency proof of seven leaves."""
    heads = {str(n): merkle.root(LEAVES[:n]).hex() for n in range(8)}
    inclusion = [[p.hex() for p in merkle.inclusion_proof(LEAVES, i)] for i in range(7)]
    consistency = [[p.hex() for p in merkle.consistency_proof(LEAVES, m)] for m in range(8)]
    leaves = [leaf.hex() for leaf in LEAVES]
    return [{"leaves": leaves, "heads": heads, "inclusion": inclusion, "consistency": consistency}]


def merkle_bad() -> Rows:
    """Consistency proofs that do not hold: a fork (case 59) and a deleted entry (case 60)."""
    forked = [*LEAVES[:2], merkle.leaf_hash(b"forked"), *LEAVES[3:]]
    deleted = [*LEAVES[:2], *LEAVES[3:], merkle.leaf_hash(b"new")]
    return [
        {
            "why": why,
            "old_size": 4,
            "new_size": len(tree),
            "old_head": merkle.root(LEAVES[:4]).hex(),
            "new_head": merkle.root(tree).hex(),
            "proof": [p.hex() for p in merkle.consistency_proof(tree, 4)],
        }
        for why, tree in (("forked", forked), ("deleted", deleted))
    ]


def checkpoint_good() -> Rows:
    """A signed note of the seven leaves' head."""
    note = checkpoint.sign_note(HEAD, [("log", KEYS[0]), ("reviewer", KEYS[1])]).decode()
    names = {n: checkpoint.verifier_key(n, k.public_bytes) for n, k in zip(("log", "reviewer"), KEYS, strict=True)}
    return [{"note": note, "keys": names, "origin": HEAD.origin, "size": HEAD.size, "root": HEAD.root.hex()}]


def checkpoint_bad() -> Rows:
    """Notes that do not open."""
    note = checkpoint.sign_note(HEAD, [("log", KEYS[0])]).decode()
    cases = {"other size": note.replace("\n7\n", "\n6\n"), "unsigned": HEAD.text() + "\n", "cut": note[:-1]}
    return [{"why": why, "note": text} for why, text in cases.items()]


BUILDERS: dict[str, Callable[[], Rows]] = {
    "canonical": canonical_good,
    "bad_canonical": canonical_bad,
    "envelope": envelope_good,
    "bad_envelope": envelope_bad,
    "sealed": sealed_good,
    "bad_sealed": sealed_bad,
    "merkle": merkle_good,
    "bad_merkle": merkle_bad,
    "checkpoint": checkpoint_good,
    "bad_checkpoint": checkpoint_bad,
}


def text_of(name: str) -> str:
    """The file's text."""
    return json.dumps(BUILDERS[name](), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def read(name: str) -> Rows:
    """The file as it is kept."""
    rows: Rows = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return rows


@pytest.mark.parametrize("name", BUILDERS)
def test_vectors_regenerate_byte_for_byte(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == text_of(name)


def test_canonical_vectors() -> None:
    for row in read("canonical"):
        assert canonical.decode(bytes.fromhex(row["bytes"])) == row["value"]
    for row in read("bad_canonical"):
        with pytest.raises(ContractError):
            canonical.decode(bytes.fromhex(row["bytes"]))


def test_envelope_vectors() -> None:
    for row in read("envelope"):
        ring = {name: bytes.fromhex(public) for name, public in row["keys"].items()}
        signed = envelope.Signed.from_bytes(bytes.fromhex(row["bytes"]))
        payload = envelope.verify(signed, row["domain"], ring, threshold=row["threshold"])
        assert canonical.digest(payload) == row["digest"]
    for row in read("bad_envelope"):
        with pytest.raises(ContractError):
            envelope.verify(envelope.Signed.from_bytes(bytes.fromhex(row["bytes"])), "plan/1", RING, threshold=2)


def test_case_57_suite_downgrade_vectors() -> None:
    for row in read("sealed"):
        key = sealed.RecipientKey.from_private_bytes(bytes.fromhex(row["private"]))
        assert sealed.open_sealed(bytes.fromhex(row["bytes"]), key, row["info"]).hex() == row["plaintext"]
    for row in read("bad_sealed"):
        with pytest.raises(ContractError, match="suite" if "suite" in row["why"] else "does not open"):
            sealed.open_sealed(bytes.fromhex(row["bytes"]), RECIPIENT, INFO)


def test_merkle_vectors() -> None:
    (row,) = read("merkle")
    leaves, heads = (
        [bytes.fromhex(x) for x in row["leaves"]],
        {int(k): bytes.fromhex(v) for k, v in row["heads"].items()},
    )
    for i, path in enumerate(row["inclusion"]):
        assert merkle.verify_inclusion(leaves[i], i, 7, [bytes.fromhex(p) for p in path], heads[7])
    for m, path in enumerate(row["consistency"]):
        assert merkle.verify_consistency(m, 7, [bytes.fromhex(p) for p in path], heads[m], heads[7])
    for bad in read("bad_merkle"):
        proof = [bytes.fromhex(p) for p in bad["proof"]]
        old, new = bytes.fromhex(bad["old_head"]), bytes.fromhex(bad["new_head"])
        assert not merkle.verify_consistency(bad["old_size"], bad["new_size"], proof, old, new)


def test_checkpoint_vectors() -> None:
    verifiers = {"log": KEYS[0].public_bytes, "reviewer": KEYS[1].public_bytes}
    for row in read("checkpoint"):
        assert checkpoint.open_note(row["note"].encode(), verifiers, threshold=2) == HEAD
    for row in read("bad_checkpoint"):
        with pytest.raises(ContractError):
            checkpoint.open_note(row["note"].encode(), verifiers)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for vector in BUILDERS:
        (FOLDER / f"{vector}.json").write_text(text_of(vector), encoding="utf-8")
