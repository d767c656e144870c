"""From what the phone keeps to sealed bytes: what the lender gets, what the borrower keeps, what never leaves."""

import struct

import numpy as np
import pytest

from fl_client.device import Phone, explain_phone, features_of, own_copy, preview, score_phone
from fl_client.egress import MemoryEgress
from fl_client.events import COLUMNS
from fl_client.scoring import Scorer
from fl_client.store import SqliteStore
from model.contract.score import open_score
from model.contract.sealed import open_sealed
from model.errors import AudienceError, ConsentError, EgressError, InputError, NoScore
from model.risk.registry import default_schema

NOW = 1_900_000_000
PURPOSE = "personal loan"
START = 200  # the start day of the scored row
MARKER = 0x5AFEC0DE


@pytest.fixture(scope="module")
def table_scorer(table_release) -> Scorer:
    return Scorer(table_release.onnx, table_release.manifest, table_release.schema)


@pytest.fixture(scope="module")
def phone_scorer(phone_release) -> Scorer:
    return Scorer(phone_release.onnx, phone_release.manifest)


def agree(phone: Phone, lender, schema, denied=()) -> None:
    phone.consents(lender.card).give(
        schema, lender.card, purpose=PURPOSE, policy_pack="in-rbi-2025", now=NOW, denied=denied
    )


@pytest.fixture
def phone(lender, table_release, row) -> Phone:
    made = Phone.in_memory(row=row)
    agree(made, lender, table_release.schema)
    return made


def opened(sealed, lender, now=NOW):
    return open_score(sealed, lender.hpke, purpose=PURPOSE, audience=lender.card.audience, now=now)


def events(marker: int) -> dict[str, dict[str, np.ndarray]]:
    """Forty events of every type over the days 110 to 199; `marker` stands in every 32-bit amount and hash."""
    days = np.linspace(110, 199, 40).astype("<i4")
    found = {}
    for kind, columns in COLUMNS.items():
        table = {name: np.zeros(40, dtype=dtype) for name, dtype in columns.items()}
        for name, dtype in columns.items():
            if name in ("day", "due", "paid"):
                table[name] = days.copy()
            elif dtype == "<u4":
                table[name] = np.full(40, marker, dtype="<u4")
        if kind == "own_app":  # one event: the day observation begins
            table = {name: column[:1] for name, column in table.items()}
            table["install_day"][:] = 100
        found[kind] = table
    return found


def test_the_lender_opens_what_the_phone_scored(phone, table_scorer, lender):
    egress = MemoryEgress(NOW)
    done = score_phone(phone, table_scorer, lender.card, egress, now=NOW, ref="loan-17")
    envelope = opened(done.sealed, lender)
    own = done.own_copy
    assert (envelope.score, envelope.band, envelope.ref) == (own.score, own.band, "loan-17")
    assert envelope.model_digest == table_scorer.manifest["model_digest"]
    assert envelope.policy_pack == "in-rbi-2025"
    assert envelope.expires_at == NOW + 30 * 86_400
    assert envelope.consent_id == phone.consents(lender.card).current(PURPOSE, NOW).consent_id
    assert envelope.reasons == ()
    assert egress.summary() == {"score/1": {"messages": 1, "bytes": len(done.sealed)}}
    assert done.total_us > done.model_us > 0


def test_case_58_consent_withdrawn(phone, table_scorer, lender):
    egress = MemoryEgress(NOW)
    score_phone(phone, table_scorer, lender.card, egress, now=NOW)  # the control: with consent it scores
    phone.consents(lender.card).withdraw(PURPOSE, NOW + 1)
    with pytest.raises(ConsentError, match="withdrawn"):
        score_phone(phone, table_scorer, lender.card, egress, now=NOW + 2)
    with pytest.raises(ConsentError):
        explain_phone(phone, lender.card, egress, now=NOW + 2)
    assert len(egress.lines()) == 1


def test_without_consent_nothing_is_read(lender, table_scorer, row):
    class Closed(SqliteStore):
        def row(self):
            raise AssertionError("a feature was read before consent was checked")

    phone = Phone(Closed(":memory:", b"r" * 32), b"r" * 32)
    with pytest.raises(ConsentError):
        preview(phone, table_scorer, lender.card, now=NOW)


def test_counters_rise_and_every_envelope_is_new(phone, table_scorer, lender):
    egress = MemoryEgress(NOW)
    found = [opened(score_phone(phone, table_scorer, lender.card, egress, now=NOW).sealed, lender) for _ in range(3)]
    assert [envelope.counter for envelope in found] == [1, 2, 3]
    assert len({envelope.nonce for envelope in found}) == 3
    assert len({envelope.ref for envelope in found}) == 3
    assert len({envelope.device_key for envelope in found}) == 1


def test_case_56_another_lender_cannot_open_it(phone, table_scorer, lender, lenders):
    sealed = score_phone(phone, table_scorer, lender.card, MemoryEgress(NOW), now=NOW).sealed
    with pytest.raises(AudienceError):
        opened(sealed, lenders("lender-two"))


def test_two_lenders_share_no_identifier(phone, table_scorer, table_release, lender, lenders):
    """Every text of the two envelopes but what is public about the release and the score itself."""
    other = lenders("lender-two")
    agree(phone, other, table_release.schema)
    seen = []
    for one in (lender, other):
        sealed = score_phone(phone, table_scorer, one.card, MemoryEgress(NOW), now=NOW).sealed
        seen.append(opened(sealed, one).to_dict())
    public = {"purpose", "score", "band", "model_digest", "policy_pack", "issued_at", "expires_at", "reasons"}
    private = [{name: value for name, value in raw.items() if name not in public} for raw in seen]
    same = {name for name in private[0] if private[0][name] == private[1][name]}
    assert same == {"counter"}  # both are 1: a count that every new phone has
    assert {"device_key", "consent_id", "ref", "nonce", "audience"} <= set(private[0])


def test_reasons_follow_a_decline_as_a_set(phone, table_scorer, lender):
    egress = MemoryEgress(NOW)
    done = score_phone(phone, table_scorer, lender.card, egress, now=NOW, ref="loan-17")
    shown = own_copy(phone, lender.card, "loan-17")
    later = explain_phone(phone, lender.card, egress, now=NOW + 9, ref="loan-17")
    first, second = opened(done.sealed, lender), opened(later.sealed, lender)
    ordered = [name for name, _ in shown.reasons]
    assert ordered and second.reasons == tuple(sorted(ordered)) == shown.lender_reasons
    assert (second.score, second.band, second.ref) == (first.score, first.band, first.ref)
    assert second.counter == first.counter + 1
    assert second.expires_at == first.expires_at
    assert all(sentence for _, sentence in shown.reasons)


def test_reasons_need_an_earlier_score_in_its_life(phone, table_scorer, lender):
    egress = MemoryEgress(NOW)
    with pytest.raises(InputError, match="keeps no score for Test Lender"):
        explain_phone(phone, lender.card, egress, now=NOW)
    done = score_phone(phone, table_scorer, lender.card, egress, now=NOW, ref="a")
    with pytest.raises(InputError, match="of application 'b'"):
        explain_phone(phone, lender.card, egress, now=NOW, ref="b")
    with pytest.raises(InputError, match="has expired"):
        explain_phone(phone, lender.card, egress, now=done.own_copy.expires_at, ref="a")
    with pytest.raises(InputError, match="has its score already"):
        score_phone(phone, table_scorer, lender.card, egress, now=NOW, ref="a")
    assert len(egress.lines()) == 1


def test_a_phone_without_a_fault_has_no_reason_to_send(lender, table_release, table_scorer):
    spotless = Phone.in_memory(row={"income": 1e6, "late": 0.0, "tenure": 100.0, "unspoken": 0.0, "job": 1.0})
    agree(spotless, lender, table_release.schema)
    egress = MemoryEgress(NOW)
    own = score_phone(spotless, table_scorer, lender.card, egress, now=NOW).own_copy
    if own.reasons:
        pytest.fail(f"the best row still has reasons {own.reasons}")
    with pytest.raises(InputError, match="no reason to send"):
        explain_phone(spotless, lender.card, egress, now=NOW)


def test_a_preview_leaves_nothing_and_says_the_same(phone, table_scorer, lender):
    shown = preview(phone, table_scorer, lender.card, now=NOW, ref="x")
    egress = MemoryEgress(NOW)
    done = score_phone(phone, table_scorer, lender.card, egress, now=NOW, ref="x")
    assert shown == done.own_copy
    assert opened(done.sealed, lender).counter == 1


def test_a_refused_egress_keeps_the_application_open(phone, table_scorer, lender, monkeypatch):
    egress = MemoryEgress(NOW)
    with monkeypatch.context() as patch:
        patch.setattr("fl_client.device.secrets.token_hex", lambda n: "not hex")
        with pytest.raises(EgressError):
            score_phone(phone, table_scorer, lender.card, egress, now=NOW, ref="x")
    assert egress.lines() == []
    done = score_phone(phone, table_scorer, lender.card, egress, now=NOW, ref="x")
    assert opened(done.sealed, lender).counter == 2  # the number is spent: it was durable before anything left


def test_events_become_features_and_a_score(lender, phone_scorer):
    phone = Phone.in_memory(events=events(100))
    agree(phone, lender, default_schema())
    x = features_of(phone.store, phone_scorer.schema, START)
    assert x[phone_scorer.schema.index("observed_days")] >= 30
    assert np.isfinite(x).sum() > 10
    done = score_phone(phone, phone_scorer, lender.card, MemoryEgress(NOW), now=NOW, start_day=START)
    assert 300 <= opened(done.sealed, lender).score <= 900


def test_later_events_do_not_move_the_features(phone_scorer):
    store = Phone.in_memory(events=events(100)).store
    before = features_of(store, phone_scorer.schema, START)
    late = {kind: {n: c[:1].copy() for n, c in columns.items()} for kind, columns in events(7).items()}
    for kind, columns in late.items():
        columns["day"][:] = START
        store.append_events(kind, columns)
    assert np.array_equal(features_of(store, phone_scorer.schema, START), before, equal_nan=True)
    assert not np.array_equal(features_of(store, phone_scorer.schema, START + 1), before, equal_nan=True)


def test_a_refused_source_is_not_even_decrypted(lender, phone_scorer):
    class Watched(SqliteStore):
        def _records(self, name):
            opened_tables.append(name)
            return super()._records(name)

    opened_tables: list[str] = []
    store = Watched(":memory:", b"r" * 32)
    for kind, columns in events(100).items():
        store.append_events(kind, columns)
    phone = Phone(store, b"r" * 32)
    agree(phone, lender, default_schema(), denied=["upi"])
    opened_tables.clear()
    own = preview(phone, phone_scorer, lender.card, now=NOW, start_day=START)
    assert "event/upi" not in opened_tables
    assert "event/bill" in opened_tables
    assert "upi_rate" in own.neutral


def test_a_phone_without_activity_has_no_score(lender, phone_scorer):
    phone = Phone.in_memory()
    agree(phone, lender, default_schema())
    with pytest.raises(NoScore) as refusal:
        score_phone(phone, phone_scorer, lender.card, MemoryEgress(NOW), now=NOW, start_day=START)
    assert refusal.value.code == "thin_file"
    young = Phone.in_memory(events=events(100))
    agree(young, lender, default_schema())
    with pytest.raises(NoScore, match="fewer than 30 days"):
        preview(young, phone_scorer, lender.card, now=NOW, start_day=139)
    assert preview(young, phone_scorer, lender.card, now=NOW, start_day=140).score >= 300


def test_canary_no_planted_value_leaves_the_phone(lender, phone_scorer):
    """Markers in every raw amount and hash, and a refused source; a control marker in a declared field."""
    phone = Phone.in_memory(events=events(MARKER))
    agree(phone, lender, default_schema(), denied=["topup"])
    egress = MemoryEgress(NOW)
    receipt = phone.consents(lender.card).current(PURPOSE, NOW)
    out = [phone.consents(lender.card).release(receipt, lender.card, egress)]
    options = {"now": NOW, "start_day": START}
    out.append(score_phone(phone, phone_scorer, lender.card, egress, ref="CONTROL-MARKER", **options).sealed)
    if own_copy(phone, lender.card).reasons:
        out.append(explain_phone(phone, lender.card, egress, now=NOW).sealed)
    plain = [open_sealed(one, lender.hpke, {"purpose": PURPOSE, "audience": "lender-one"}) for one in out]
    everything = b"|".join([*out, *plain, repr(egress.lines()).encode()])
    planted = [struct.pack("<I", MARKER), struct.pack(">I", MARKER), struct.pack(">f", MARKER), str(MARKER).encode()]
    planted += [struct.pack(">d", float(MARKER)), f"{MARKER:x}".encode(), b"topup"]
    assert [p for p in planted if p in everything] == []
    assert b"CONTROL-MARKER" in everything  # the search does see what leaves
    assert sum(line.bytes for line in egress.lines()) == sum(map(len, out))


def test_many_phones_are_scored_by_the_same_code(lender, table_release, table_scorer, row):
    rng = np.random.default_rng(7)
    egress = MemoryEgress(NOW)
    bands, keys = set(), set()
    for late, tenure in rng.uniform([0, 0], [10, 100], (60, 2)):
        phone = Phone.in_memory(row={**row, "late": late, "tenure": tenure})
        agree(phone, lender, table_release.schema)
        envelope = opened(score_phone(phone, table_scorer, lender.card, egress, now=NOW).sealed, lender)
        bands.add(envelope.band)
        keys.add(envelope.device_key)
    assert len(keys) == 60
    assert len(bands) > 1
    assert egress.summary()["score/1"]["messages"] == 60
