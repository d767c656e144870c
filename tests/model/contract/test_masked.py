"""The messages of mode `helper`: round trips, limits, and golden files that any implementation can read.

`python tests/model/contract/test_masked.py` writes the files again after a deliberate change of the contract. Sealing
is randomised, so the sealed seeds are kept: a regeneration takes them from the file as it is.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import canonical
from model.contract.envelope import Signed, SigningKey, sign, verify
from model.contract.masked import (
    BATCH_SCHEMA,
    MASKED_SCHEMA,
    MAX_BATCH_BYTES,
    REFUSAL_DOMAIN,
    SEED_BYTES,
    SHARE_DOMAIN,
    BatchRequest,
    MaskedHeader,
    Refusal,
    Share,
    batch_digest,
    read_residues,
    split_seeds,
)
from model.contract.sealed import RecipientKey
from model.errors import ContractError, PocketScoreError, UpdateError
from model.privacy.noise import SeededSource, discrete_gaussian
from model.secagg.context import Context, model_digest
from model.secagg.fixedpoint import from_ring, to_ring
from model.secagg.masks import expand
from model.secagg.two_server import add, open_seeds, share_of, shield, unshield

FOLDER = Path(__file__).parents[2] / "vectors"
HELPER = RecipientKey.from_private_bytes(bytes([7]) * 32)
SIGNER = SigningKey.from_private_bytes(bytes([3]) * 32)
HERE = Context("ab" * 32, "train", 3, model_digest(np.arange(3, dtype="<f4").tobytes(), b"\xa0"), 4)
SIGMA = 20
Rows = list[dict[str, Any]]


def kept_seeds() -> list[bytes]:
    """The sealed seeds in the file, or new ones where there is no file yet."""
    path = FOLDER / "two_server.json"
    if path.exists():
        return [bytes.fromhex(seed) for seed in json.loads(path.read_text())[0]["seeds"]]
    return [shield(u, HELPER.public_bytes, HERE, SeededSource(n, "phone")).seed for n, u in enumerate(units())]


def units() -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    """Three phones' updates, one of them zero."""
    return [np.array(row, dtype=np.int64) for row in ([5, -7, 0, 2**20], [0, 0, 0, 0], [-(2**20), 1, 1, 1])]


def header() -> MaskedHeader:
    """The header of one phone's message."""
    return MaskedHeader(MASKED_SCHEMA, HERE.plan_digest, HERE.round, HERE.kind, 1, HERE.dim, HERE.model_digest)


def request() -> BatchRequest:
    """The three phones' batch under a made-up plan."""
    plan = sign("plan/1", {"name": "demo"}, [SIGNER]).to_bytes()
    return BatchRequest(BATCH_SCHEMA, plan, HERE.round, HERE.kind, HERE.model_digest, HERE.dim, b"".join(kept_seeds()))


def shared() -> Share:
    """The helper's share of that batch."""
    noise = discrete_gaussian(SIGMA, HERE.dim, SeededSource(0, "helper"))
    raw = share_of(open_seeds(kept_seeds(), HELPER, HERE), noise).astype("<u4").tobytes()
    place = (HERE.plan_digest, HERE.round, HERE.kind, HERE.model_digest, HERE.dim)
    return Share(*place, batch_digest(kept_seeds()), 3, 1.5, SIGMA, raw)


def refused() -> Refusal:
    """A refusal that names one message."""
    sentence = "one sealed seed does not open; leave it out"
    digest = batch_digest(kept_seeds())
    return Refusal(HERE.plan_digest, HERE.round, HERE.kind, digest, "unopened", sentence, 1_790_000_000, ("12" * 32,))


def two_server_good() -> Rows:
    """A whole round: mask seeds, masked vectors, sealed seeds, share and result."""
    masks = [SeededSource(n, "phone").take(32) for n in range(3)]
    vectors = [to_ring(u) + expand(mask, HERE, HERE.dim) for u, mask in zip(units(), masks, strict=True)]
    seen = unshield(add(vectors, HERE.dim), shared().residues())
    return [
        {
            "context": HERE.to_dict(),
            "hkdf_info": HERE.bytes().hex(),
            "helper_private": HELPER.private_bytes().hex(),
            "units": [u.tolist() for u in units()],
            "mask_seeds": [mask.hex() for mask in masks],
            "vectors": [v.astype("<u4").tobytes().hex() for v in vectors],
            "seeds": [seed.hex() for seed in kept_seeds()],
            "batch_digest": batch_digest(kept_seeds()),
            "helper_noise": discrete_gaussian(SIGMA, HERE.dim, SeededSource(0, "helper")).tolist(),
            "share": shared().share.hex(),
            "sum_minus_helper_noise": seen.tolist(),
        }
    ]


def masked_good() -> Rows:
    """The messages' canonical bytes."""
    share = sign(SHARE_DOMAIN, shared().to_dict(), [SIGNER])
    refusal = sign(REFUSAL_DOMAIN, refused().to_dict(), [SIGNER])
    head = canonical.encode(header().to_dict())
    return [
        {"message": "header", "bytes": head.hex()},
        {"message": "batch", "bytes": request().to_bytes().hex()},
        {"message": SHARE_DOMAIN, "key": SIGNER.public_bytes.hex(), "bytes": share.to_bytes().hex()},
        {"message": REFUSAL_DOMAIN, "key": SIGNER.public_bytes.hex(), "bytes": refusal.to_bytes().hex()},
    ]


def masked_bad() -> Rows:
    """Messages that are refused, and why."""
    head, batch, share, refusal = header().to_dict(), request().to_dict(), shared().to_dict(), refused().to_dict()
    cases: list[tuple[str, str, dict[str, Any]]] = [
        ("header", "a weight", {**head, "weight": 2}),
        ("header", "an unmasked schema", {**head, "schema": "pocketscore.partial/1"}),
        ("header", "no model digest", {**head, "model_digest": ""}),
        ("header", "a trillion numbers", {**head, "dim": 10**12}),
        ("header", "a negative count", {**head, "phones": -1}),
        ("batch", "a cut seed", {**batch, "seeds": batch["seeds"][:-1]}),
        ("batch", "another kind", {**batch, "kind": "norms"}),
        ("batch", "a private key", {**batch, "key": bytes(32)}),
        (SHARE_DOMAIN, "a short share", {**share, "share": share["share"][:-4]}),
        (SHARE_DOMAIN, "noise of no number", {**share, "sigma": -1}),
        (REFUSAL_DOMAIN, "no sentence", {**refusal, "sentence": ""}),
        (REFUSAL_DOMAIN, "two lines", {**refusal, "sentence": "no\nshare"}),
        (REFUSAL_DOMAIN, "an odd code", {**refusal, "code": "Not opened!"}),
    ]
    return [{"message": what, "why": why, "bytes": canonical.encode(raw).hex()} for what, why, raw in cases]


BUILDERS = {"two_server": two_server_good, "masked": masked_good, "bad_masked": masked_bad}
READERS = {"header": MaskedHeader, "batch": BatchRequest, SHARE_DOMAIN: Share, REFUSAL_DOMAIN: Refusal}


def text_of(name: str) -> str:
    """The file's text."""
    return json.dumps(BUILDERS[name](), indent=1, sort_keys=True) + "\n"


def read(name: str) -> Rows:
    """The file as it is kept."""
    rows: Rows = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return rows


@pytest.mark.parametrize("name", BUILDERS)
def test_vectors_regenerate_byte_for_byte(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == text_of(name)


def test_the_good_messages_are_read() -> None:
    ring = {SIGNER.keyid: SIGNER.public_bytes}
    for row in read("masked"):
        data = bytes.fromhex(row["bytes"])
        signed = "/" in row["message"]
        raw = verify(Signed.from_bytes(data), row["message"], ring) if signed else canonical.decode(data)
        assert READERS[row["message"]].from_dict(raw).to_dict() == raw


@pytest.mark.parametrize("row", read("bad_masked"), ids=lambda row: row["why"].replace(" ", "_"))
def test_the_bad_messages_are_refused(row: dict[str, Any]) -> None:
    with pytest.raises(PocketScoreError):
        READERS[row["message"]].from_dict(canonical.decode(bytes.fromhex(row["bytes"])))


def test_the_round_in_the_file_comes_out() -> None:
    (row,) = read("two_server")
    noise = np.array(row["helper_noise"], dtype=np.int64)
    expected = np.sum(row["units"], axis=0) - noise
    assert row["sum_minus_helper_noise"] == expected.tolist()
    assert from_ring(read_residues(bytes.fromhex(row["share"]), 4)).shape == (4,)


@given(st.integers(0, 5), st.binary(max_size=SEED_BYTES - 1))
def test_seeds_are_whole(count: int, rest: bytes) -> None:
    seeds = [bytes([n]) * SEED_BYTES for n in range(count)]
    assert split_seeds(b"".join(seeds)) == seeds
    if rest:
        with pytest.raises(ContractError, match="whole number"):
            split_seeds(b"".join(seeds) + rest)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=9))
def test_residues_round_trip(values: list[int]) -> None:
    raw = np.array(values, dtype="<u4").tobytes()
    assert read_residues(raw, len(values)).tolist() == values
    for data, dim in ((raw[:-1], len(values)), (raw, len(values) + 1), (b"", 0)):
        with pytest.raises(UpdateError):
            read_residues(data, dim)


def test_case_11_a_batch_over_its_limit_is_refused_before_it_is_read() -> None:
    assert BatchRequest.from_bytes(request().to_bytes()) == request()
    with pytest.raises(ContractError, match="over its limit"):
        BatchRequest.from_bytes(bytes(MAX_BATCH_BYTES + 1))
    with pytest.raises(ContractError, match="not a map"):
        BatchRequest.from_bytes(b"\x80")


def test_a_masked_header_counts_as_an_unmasked_one() -> None:
    assert header().counted().phones == 1
    assert replace(header(), phones=7).counted().phones == 7


if __name__ == "__main__":
    for vector in BUILDERS:
        (FOLDER / f"{vector}.json").write_text(text_of(vector), encoding="utf-8")
