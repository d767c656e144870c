"""The door: only declared types, fields, values and sizes pass, and every byte that did is in the ledger."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_client.declared import DECLARED
from fl_client.egress import Egress, MemoryEgress, Recipient, summary
from model.canonical import decode, sha256_hex
from model.contract.consent import ConsentReceipt
from model.contract.envelope import Signed, SigningKey
from model.contract.score import ScoreEnvelope
from model.contract.sealed import RecipientKey, open_sealed
from model.contract.update import PartialHeader
from model.errors import EgressError

NOW = 1_900_000_000
INFO = {"purpose": "personal loan", "audience": "lender-one"}
KEY = SigningKey.generate()
LENDER = RecipientKey.generate()
TO = Recipient(LENDER.public_bytes, INFO)


def envelope(**changes):
    message = {
        "ref": "loan-17",
        "purpose": "personal loan",
        "consent_id": "ab" * 16,
        "score": 640,
        "band": "B",
        "model_digest": "cd" * 32,
        "policy_pack": "in-rbi-2025",
        "nonce": "ef" * 16,
        "counter": 1,
        "issued_at": NOW,
        "expires_at": NOW + 1,
        "audience": "lender-one",
        "device_key": KEY.public_bytes.hex(),
        "reasons": [],
    }
    return {**message, **changes}


def partial(**changes):
    return {
        "schema": "pocketscore.partial/1",
        "plan_digest": "ab" * 32,
        "round": 3,
        "kind": "train",
        "phones": 1,
        "dim": 4,
        "values": bytes(32),
        **changes,
    }


def send(egress: Egress, message, kind="score/1"):
    return egress.release(kind, message, consent_id="ab" * 16, key=KEY, to=TO)


def test_a_score_leaves_sealed_and_is_recorded(tmp_path):
    egress = Egress(tmp_path, NOW)
    first, second = send(egress, envelope()), send(egress, envelope(counter=2))
    inside = decode(Signed.from_bytes(open_sealed(first, LENDER, INFO)).payload)
    assert inside == envelope()
    lines = [json.loads(line) for line in (tmp_path / "egress.jsonl").read_text().splitlines()]
    assert [line["sha256"] for line in lines] == [sha256_hex(first), sha256_hex(second)]
    assert [line["bytes"] for line in lines] == [len(first), len(second)]
    assert {line["type"] for line in lines} == {"score/1"}
    assert {line["consent_id"] for line in lines} == {"ab" * 16}
    assert {line["schema"] for line in lines} == {DECLARED["score/1"].digest}
    assert egress.summary() == {"score/1": {"messages": 2, "bytes": len(first) + len(second)}}
    assert (tmp_path / "egress.jsonl").stat().st_mode & 0o777 == 0o600


def test_updates_and_analytics_leave_as_declared(tmp_path):
    egress = Egress(tmp_path, NOW)
    assert decode(egress.release("update/1", partial()))["values"] == bytes(32)
    egress.release("analytics/1", partial(kind="knots"))
    assert set(egress.summary()) == {"update/1", "analytics/1"}


BAD = {
    "an undeclared type": ("gps/1", envelope()),
    "an undeclared field": ("score/1", envelope(home_cell="x")),
    "a missing field": ("score/1", {k: v for k, v in envelope().items() if k != "band"}),
    "a wrong type": ("score/1", envelope(score="640")),
    "a boolean number": ("score/1", envelope(counter=True)),
    "a value out of range": ("score/1", envelope(score=901)),
    "text with room for more": ("score/1", envelope(ref="x" * 65)),
    "text of another form": ("score/1", envelope(band="B; income 12000")),
    "ordered reasons": ("score/1", envelope(reasons=["b", "a"])),
    "a repeated reason": ("score/1", envelope(reasons=["a", "a"])),
    "five reasons": ("score/1", envelope(reasons=list("abcde"))),
    "reasons that are no list": ("score/1", envelope(reasons="ab")),
    "an update under analytics": ("analytics/1", partial()),
    "a histogram under updates": ("update/1", partial(kind="knots")),
    "a weight (case 14)": ("update/1", partial(weight=3.0)),
    "an overlong vector": ("update/1", partial(values=bytes((8 << 20) + 1))),
}


@pytest.mark.parametrize("name", BAD)
def test_nothing_else_leaves(tmp_path, name):
    kind, message = BAD[name]
    egress = Egress(tmp_path, NOW)
    with pytest.raises(EgressError, match="nothing left the phone"):
        send(egress, message, kind)
    assert not (tmp_path / "egress.jsonl").exists()
    send(egress, envelope())  # the control: the door itself works
    assert len(egress.lines()) == 1


def test_a_message_over_its_budget_stays(tmp_path, monkeypatch):
    """Every field within its rule, and still too many bytes for the type."""
    tight = replace(DECLARED["update/1"], budget=100)
    monkeypatch.setattr("fl_client.egress.DECLARED", {**DECLARED, "update/1": tight})
    egress = Egress(tmp_path, NOW)
    with pytest.raises(EgressError, match="is over its 100; nothing left the phone"):
        egress.release("update/1", partial())
    with pytest.raises(EgressError, match="is over its 100; nothing left the phone"):
        egress.partial({k: v for k, v in partial().items() if k != "values"}, bytes(32))
    assert egress.lines() == []


def test_a_partial_leaves_as_header_and_vector(tmp_path):
    egress = Egress(tmp_path, NOW)
    header = PartialHeader("pocketscore.partial/1", "ab" * 32, 3, "train", 1, 4).to_dict()
    head, vector = egress.partial(header, bytes(32))
    assert (decode(head), vector) == (header, bytes(32))
    egress.partial({**header, "kind": "evaluate"}, bytes(32))
    assert egress.summary()["update/1"] == {"messages": 1, "bytes": len(head) + 32}
    assert egress.lines()[1].type == "analytics/1"
    for wrong, data in (
        (header, bytes(31)),
        ({**header, "weight": 2}, bytes(32)),
        ({**header, "kind": "x"}, bytes(32)),
    ):
        with pytest.raises(EgressError):
            egress.partial(wrong, data)
    assert len(egress.lines()) == 2


@pytest.mark.parametrize("missing", ["key", "to"])
def test_a_score_never_leaves_unsigned_or_unsealed(tmp_path, missing):
    options = {"key": KEY, "to": TO, missing: None}
    with pytest.raises(EgressError, match="signed and sealed only"):
        Egress(tmp_path, NOW).release("score/1", envelope(), **options)
    assert not (tmp_path / "egress.jsonl").exists()


@given(st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8), max_size=4))
def test_no_stray_field_ever_passes(extra):
    egress = MemoryEgress(NOW)
    message = {**envelope(), **extra}
    if message == envelope():
        return
    if set(extra) <= set(envelope()):
        return  # another value of a declared field may be legal
    with pytest.raises(EgressError):
        send(egress, message)
    assert egress.lines() == []


def test_declarations_follow_the_contract():
    """The door names exactly the fields of the contract's messages, so neither can grow alone."""
    assert set(DECLARED["score/1"].fields) == set(ScoreEnvelope.__dataclass_fields__)
    assert set(DECLARED["consent/1"].fields) == set(ConsentReceipt.__dataclass_fields__)
    for kind in ("update/1", "analytics/1"):
        assert set(DECLARED[kind].fields) == {*PartialHeader.__dataclass_fields__, "values"}


def test_no_bytes_without_their_line(tmp_path, monkeypatch):
    egress = Egress(tmp_path / "gone", NOW)
    with pytest.raises(EgressError, match="cannot be written"):
        send(egress, envelope())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fl_client.egress.os.fsync", full)
    with pytest.raises(EgressError, match="No space left"):
        send(Egress(tmp_path, NOW), envelope())


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: raw.replace(b"score/1", b"scorf/1", 1),
        lambda raw: b"".join(raw.splitlines(keepends=True)[1:]),
        lambda raw: raw + b"{}\n",
        lambda raw: b"not json\n",
    ],
    ids=["cut line", "edited", "first line gone", "foreign line", "garbage"],
)
def test_case_26_a_damaged_ledger_is_detected_and_not_appended(tmp_path: Path, damage):
    egress = Egress(tmp_path, NOW)
    for counter in (1, 2, 3):
        send(egress, envelope(counter=counter))
    path = tmp_path / "egress.jsonl"
    path.write_bytes(damage(path.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(EgressError):
        egress.lines()
    with pytest.raises(EgressError):
        send(egress, envelope(counter=4))
    assert path.read_bytes() == before


def test_a_line_of_no_declaration_is_counted_as_undeclared():
    egress = MemoryEgress(NOW)
    send(egress, envelope())
    (line,) = egress.lines()
    stray = type(line)(**{**vars(line), "schema": "0" * 64, "bytes": 7})
    assert summary([line])["score/1"]["bytes"] == line.bytes
    assert summary([line, stray])["undeclared"] == {"messages": 1, "bytes": 7}
