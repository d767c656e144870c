"""Golden vectors of pairwise masking: shares, order, keys, and one whole round; and messages that are refused.

`PYTHONPATH=. python tests/model/secagg/test_pairwise_vectors.py` writes them again after a deliberate change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from model.canonical import encode
from model.contract.envelope import SigningKey
from model.contract.promise import Neighbours
from model.errors import ContractError
from model.privacy.noise import SeededSource
from model.secagg import messages
from model.secagg.circle import circles, order_seed
from model.secagg.context import Context
from model.secagg.pairs import channel, commitment, mask_seed, seed_hash
from model.secagg.pairwise import run_round
from model.secagg.pairwise_phone import PairwisePhone
from model.secagg.pairwise_server import PairwiseServer
from model.secagg.shares import combine, deal
from model.secagg.terms import Terms
from model.secagg.witness import LocalWitness

FOLDER = Path(__file__).parents[2] / "vectors"
CONTEXT = Context("ab" * 32, "train", 3, "cd" * 32, 3)
WITNESS = SigningKey.from_private_bytes(bytes([9]) * 32)
ROOT = hashlib.sha256(b"root").digest()
Rows = list[dict[str, Any]]


def parts() -> Rows:
    """The pieces: shares, order, a pair's keys."""
    secret = hashlib.sha256(b"secret").digest()
    dealt = [one for (one,) in deal((secret,), 3, 5, SeededSource(1))]
    private = [X25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2)]
    public = [key.public_key().public_bytes_raw() for key in private]
    pair = channel(private[0], *public, CONTEXT.bytes() + ROOT)
    order = circles(order_seed(ROOT, bytes(64)), 12, 4)[0]
    return [
        {"what": "shares", "secret": secret.hex(), "threshold": 3, "shares": [share.hex() for share in dealt]},
        {"what": "commitments", "share": dealt[0].hex(), "commitment": commitment(dealt[0]).hex(),
         "seed": secret.hex(), "seed_hash": seed_hash(secret).hex()},
        {"what": "order", "root": ROOT.hex(), "signature": bytes(64).hex(), "phones": 12, "members": order.members,
         "degree": 4, "neighbours_of_0": order.neighbours(0)},
        {"what": "pair", "private": [(bytes([n]) * 32).hex() for n in (1, 2)], "root": ROOT.hex(),
         "context": CONTEXT.to_dict(), "seal": pair.seal_key.hex(), "open": pair.open_key.hex(),
         "tag": pair.tag_key.hex(), "box": pair.seal((dealt[0], dealt[1])).hex(),
         "mask_seed": mask_seed(private[0], *public, ROOT).hex()},
    ]  # fmt: skip


def transcript() -> tuple[Rows, dict[str, bytes]]:
    """Every message of p0 in a round of five, of whom p4 is lost at upload; and the sum."""
    terms = Terms(Neighbours(4, 3, 0.0, 0.0), 3, 1, WITNESS.public_bytes)
    said: dict[str, bytes] = {}

    class Loud(PairwisePhone):
        """Writes down what it hears and says."""

    def loud(step: str) -> Callable[..., bytes]:
        inner = getattr(PairwisePhone, step)

        def method(self: PairwisePhone, *args: Any) -> bytes:
            answer: bytes = inner(self, *args)
            if self is phones["p0"]:
                said[f"{step} in"], said[f"{step} out"] = (args[0] if args else b""), answer
            return answer

        return method

    for step in ("advertise", "share", "upload", "agree", "unmask"):
        setattr(Loud, step, loud(step))
    keys = [SigningKey.from_private_bytes(bytes([n + 1]) * 32) for n in range(5)]
    phones: dict[str, PairwisePhone] = {
        f"p{n}": Loud(key, CONTEXT, terms, 0, SeededSource(n, "vector")) for n, key in enumerate(keys)
    }
    updates = {name: np.array([n, -n, 10 * n]) for n, name in enumerate(phones)}
    server = PairwiseServer(CONTEXT, terms, LocalWitness(WITNESS, terms))
    total = run_round(phones, updates, server, {"upload": {"p4"}})
    rows: Rows = [{"message": name, "bytes": data.hex()} for name, data in said.items() if data]
    return [*rows, {"message": "sum", "units": total.tolist()}], said


def good() -> Rows:
    """Pieces and transcript."""
    return parts() + transcript()[0]


def bad() -> Rows:
    """Messages that do not parse, and why."""
    said = transcript()[1]
    kinds = {"advertise out": "Advert", "share in": "Place", "agree in": "Survivors", "unmask out": "Reveal"}
    rows: Rows = [{"why": "cut short", "kind": kind, "bytes": said[name][:-1].hex()} for name, kind in kinds.items()]
    rows += [{"why": "a byte behind", "kind": kind, "bytes": said[name].hex() + "00"} for name, kind in kinds.items()]
    advert = messages.Advert.from_bytes(said["advertise out"])
    extra = {"schema": advert.SCHEMA, **advert.to_dict()}
    place = messages.Place.from_bytes(said["share in"])
    rows += [
        {"why": "another schema", "kind": "Advert", "bytes": said["unmask out"].hex()},
        {"why": "a field too many", "kind": "Advert", "bytes": encode(extra | {"age": 40}).hex()},
        {"why": "no schema", "kind": "Advert", "bytes": encode(advert.to_dict()).hex()},
        {"why": "a short key", "kind": "Advert", "bytes": encode(extra | {"mask": bytes(31)}).hex()},
        {"why": "no map", "kind": "Advert", "bytes": "80"},
        {"why": "an index beyond the roster", "kind": "Place",
         "bytes": encode({"schema": place.SCHEMA, **place.to_dict(), "index": 5}).hex()},
        {"why": "half a hash", "kind": "Place",
         "bytes": encode({"schema": place.SCHEMA, **place.to_dict(), "proof": bytes(16)}).hex()},
    ]  # fmt: skip
    return rows


BUILDERS: dict[str, Callable[[], Rows]] = {"pairwise": good, "bad_pairwise": bad}


def text_of(name: str) -> str:
    """The file's text."""
    return json.dumps(BUILDERS[name](), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


@pytest.mark.parametrize("name", BUILDERS)
def test_vectors_regenerate_byte_for_byte(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == text_of(name)


def test_the_kept_sum_is_that_of_the_four() -> None:
    rows = json.loads((FOLDER / "pairwise.json").read_text(encoding="utf-8"))
    assert rows[-1]["units"] == [0 + 1 + 2 + 3, -6, 60]
    shares = {x: bytes.fromhex(rows[0]["shares"][x - 1]) for x in (1, 4, 5)}
    assert combine(shares, 3).hex() == rows[0]["secret"]


def test_bad_vectors_are_refused() -> None:
    for row in json.loads((FOLDER / "bad_pairwise.json").read_text(encoding="utf-8")):
        with pytest.raises(ContractError):
            getattr(messages, row["kind"]).from_bytes(bytes.fromhex(row["bytes"]))


def test_a_changed_byte_would_be_found() -> None:
    _, said = transcript()
    upload = messages.Upload.from_bytes(said["upload out"])
    assert replace(upload, tags=bytes(len(upload.tags))).to_bytes() != said["upload out"]


if __name__ == "__main__":
    for vector in BUILDERS:
        (FOLDER / f"{vector}.json").write_text(text_of(vector), encoding="utf-8")
