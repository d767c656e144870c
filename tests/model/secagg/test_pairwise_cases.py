"""Cases 30 to 42 by unit: what phones, witness and server do when others drop, lie or tamper; each with its control."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from model.contract.envelope import SigningKey
from model.errors import ContractError, RoundError
from model.secagg import pairs, pairwise_phone
from model.secagg.circle import pack, unpack
from model.secagg.messages import BOX, SHARE, TAG, Advert, Certificate, Deal, Delivery, Place, Reveal, Survivors, Upload
from model.secagg.pairwise_phone import PairwisePhone
from model.secagg.pairwise_server import PairwiseServer
from model.secagg.pairwise_steps import slots
from model.secagg.roster import signed_advert
from model.secagg.terms import SurvivorList

MakeCast = Callable[..., Any]
Box = dict[str, bytes]


def survives(cast: Any, step: str, lost: set[str]) -> None:
    cast.drops[step] = lost
    total = cast.run()
    assert (total == cast.right()).all()


@pytest.mark.parametrize(("degree", "threshold"), [(9, 6), (6, 4)])
def test_case_30_drop_at_advertise(make_cast: MakeCast, degree: int, threshold: int) -> None:
    cast = make_cast(10, degree, threshold)
    survives(cast, "advertise", {"p0", "p1"})
    assert len(cast.server.counted) == 8


@pytest.mark.parametrize(("degree", "threshold"), [(9, 6), (6, 4)])
def test_case_31_drop_at_share(make_cast: MakeCast, degree: int, threshold: int) -> None:
    cast = make_cast(10, degree, threshold)
    survives(cast, "share", {"p0", "p1"})
    assert len(cast.server.counted) == 8


@pytest.mark.parametrize(("degree", "threshold"), [(9, 6), (6, 4)])
def test_case_32_drop_at_upload(make_cast: MakeCast, degree: int, threshold: int) -> None:
    cast = make_cast(10, degree, threshold)
    survives(cast, "upload", {"p0", "p1"})
    assert len(cast.server.counted) == 8


@pytest.mark.parametrize("step", ["agree", "unmask"])
@pytest.mark.parametrize(("degree", "threshold"), [(9, 6), (6, 4)])
def test_case_33_drop_at_unmask(make_cast: MakeCast, degree: int, threshold: int, step: str) -> None:
    """A phone that uploaded is in the sum even if it is lost before it answers again."""
    cast = make_cast(10, degree, threshold)
    survives(cast, step, {"p0", "p1"})
    assert len(cast.server.counted) == 10


@pytest.mark.parametrize("step", ["upload", "agree"])
def test_case_34_fewer_than_the_threshold(make_cast: MakeCast, step: str) -> None:
    """Below it the attempt ends before any phone has been asked for a share."""
    cast = make_cast(10, 9, 8)
    asked: list[str] = []
    cast.changes["unmask"] = lambda _, inbox: asked.extend(inbox) or inbox
    cast.drops[step] = {"p0", "p1", "p2"}
    with pytest.raises(RoundError, match="below the threshold"):
        cast.run()
    assert not asked


def test_case_34_lost_while_answering(make_cast: MakeCast) -> None:
    cast = make_cast(10, 9, 8)
    cast.drops["unmask"] = {"p0", "p1", "p2"}
    with pytest.raises(RoundError, match="fewer than the threshold"):
        cast.run()


def both_kinds(_: Any, inbox: Box) -> Box:
    """The list calls the first active phone dead as well."""
    changed = {}
    for name, data in inbox.items():
        message = Survivors.from_bytes(data)
        dead = bytearray(message.dead)
        dead[0] |= 1
        changed[name] = replace(message, dead=bytes(dead)).to_bytes()
    return changed


def test_case_35_both_kinds_of_share_asked(make_cast: MakeCast) -> None:
    cast = make_cast()
    cast.changes["agree"] = both_kinds
    with pytest.raises(RoundError):
        cast.run()
    assert len(cast.server.refusals) == 8
    assert all("both kinds" in why for why in cast.server.refusals.values())


def test_case_35_a_second_unmask(make_cast: MakeCast) -> None:
    """Whatever a phone is sent after it answered, or after it refused, it has no answer."""
    cast = make_cast()
    seen: dict[str, Box] = {}
    for step in ("agree", "unmask"):
        cast.changes[step] = lambda _, inbox, step=step: seen.setdefault(step, inbox)
    cast.run()
    for step in ("agree", "unmask", "agree"):
        with pytest.raises(RoundError, match="next step is over"):
            cast.ask("p0", step, seen[step]["p0"])


def test_case_35_the_kinds_are_told_apart_by_the_list(make_cast: MakeCast) -> None:
    """The control: what is revealed is the seed's share of an active phone and the key's of a dead one, no other."""
    cast = make_cast(8, 7, 5)
    cast.drops["upload"] = {"p7"}
    revealed: Box = {}
    cast.changes["unmask answers"] = lambda _, answers: revealed.update(answers) or answers
    cast.run()
    circle = cast.server._circles[0]
    for name, data in revealed.items():
        message, position = Reveal.from_bytes(data), cast.server._places[name][1]
        given = slots(unpack(message.given, circle.circle.degree))
        for i, slot in enumerate(given):
            dealer = circle.circle.neighbours(position)[slot]
            dead = bool(circle.list.dead[dealer])
            at = 32 * (circle.circle.degree - 1 - slot) + 16 * dead
            share = message.shares[i * SHARE : (i + 1) * SHARE]
            assert pairs.commitment(share) == circle.deals[dealer].commitments[at : at + 16]


def test_case_36_differing_survivor_lists(make_cast: MakeCast) -> None:
    """Four phones sign one list, four another: neither has a quorum before the witness; all eight under one do."""
    cast = make_cast()
    cast.changes["agree"] = lambda _, inbox: {}
    with pytest.raises(RoundError):
        cast.run()
    circle, witness = cast.server._circles[0], cast.server.witness
    identities = {place[1]: cast.phones[name].identity for name, place in cast.server._places.items()}
    without = circle.list.active.copy()
    without[0] = False
    for active in (without, circle.list.active):
        listed = SurvivorList(circle.context, circle.root, 0, active, ~active)
        signed = {p: identities[p].sign(listed.signed_bytes()) for p in range(8)}
        with pytest.raises(RoundError, match="signed the list, fewer than"):
            witness.sign_list(listed, {p: signed[p] for p in range(1, 5)})
        with pytest.raises(RoundError, match="signed the list, fewer than"):
            witness.sign_list(listed, {p: signed[(p + 1) % 8] for p in range(8)})
    assert witness.sign_list(listed, signed)


def test_case_36_a_phone_refuses_a_certificate_for_another_list(make_cast: MakeCast) -> None:
    """p1 is told that p0 is dead, and then shown the witness's signature over the others' list."""
    cast = make_cast(8, 7, 5)

    def split(cast: Any, inbox: Box) -> Box:
        victim = cast.server._places["p0"][1]
        return inbox | {"p1": call_dead(inbox["p1"], victim)}

    cast.changes["agree"] = split
    cast.changes["unmask"] = lambda _, inbox: inbox | {"p1": inbox["p2"]}
    total = cast.run()
    assert (total == cast.right()).all()
    assert "signature does not fit" in cast.server.refusals["p1"]


def test_case_36_a_phone_refuses_without_its_neighbours(make_cast: MakeCast) -> None:
    """Even under the witness's signature, a phone wants a threshold of neighbours to have signed its list."""
    cast = make_cast(8, 7, 5)

    def forge(cast: Any, inbox: Box) -> Box:
        return {name: replace(m := Certificate.from_bytes(data), tags=bytes(len(m.tags))).to_bytes()
                for name, data in inbox.items()}  # fmt: skip

    cast.changes["unmask"] = forge
    with pytest.raises(RoundError):
        cast.run()
    assert all("only 0 neighbours signed" in why for why in cast.server.refusals.values())


def call_dead(data: bytes, victim: int) -> bytes:
    """The list with one active phone called dead, and its statement taken out if it was a neighbour's."""
    message = Survivors.from_bytes(data)
    active, dead = unpack(message.active, 8), unpack(message.dead, 8)
    active[victim], dead[victim] = False, True
    rows = len(message.statements) // (1 + TAG)
    changed = Survivors(pack(active), pack(dead), message.statements[: (rows - 1) * (1 + TAG)])
    return changed.to_bytes()


def test_below_the_minimum_cohort_phones_refuse(make_cast: MakeCast) -> None:
    cast = make_cast(8, 7, 5, least=3)
    for phone in cast.phones.values():
        phone.terms = replace(phone.terms, min_cohort=8)
    cast.drops["upload"] = {"p0"}
    with pytest.raises(RoundError):
        cast.run()
    assert all("fewer than the 8" in why for why in cast.server.refusals.values())


def hiding(make_cast: MakeCast) -> tuple[Any, Box]:
    """The server hides p1's box from p0, so that these two do not mask alike, and excludes neither."""
    cast, revealed = make_cast(), {}

    def hide(cast: Any, inbox: Box) -> Box:
        group, position = cast.server._places["p0"]
        slot = cast.server._circles[group].circle.neighbours(position).index(cast.server._places["p1"][1])
        m = Delivery.from_bytes(inbox["p0"])
        present = unpack(m.present, 7)
        present[slot] = False
        less = Delivery(pack(present), cut(m.boxes, BOX, slot), cut(m.commitments, 32, slot))
        cast.server._circles[group]._excluded = set
        return inbox | {"p0": less.to_bytes()}

    cast.changes["upload"] = hide
    cast.changes["unmask answers"] = lambda _, answers: revealed.update(answers) or answers
    return cast, revealed


def cut(data: bytes, width: int, at: int) -> bytes:
    return data[: at * width] + data[(at + 1) * width :]


def test_the_seed_of_a_phone_that_did_not_mask_with_all_stays_shut(make_cast: MakeCast) -> None:
    """A server that cuts edges of the graph one by one would cut out a part of the sum. Nobody gives p0's seed."""
    cast, revealed = hiding(make_cast)
    with pytest.raises(RoundError, match="fewer than the threshold"):
        cast.run()
    assert "did not mask with" in cast.server.refusals["p0"]
    assert not any(gives(cast, data, name, "p0") for name, data in revealed.items())


def test_without_statements_it_would_be_open(make_cast: MakeCast, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: phones that believe the list alone give it. The sum is garbage all the same, and flagged."""
    monkeypatch.setattr(
        pairwise_phone, "stated", lambda active, standing, channels, _: np.ones(len(channels), np.bool_)
    )
    cast, revealed = hiding(make_cast)
    with pytest.raises(RoundError, match="did not cancel"):
        cast.run()
    assert sum(gives(cast, data, name, "p0") for name, data in revealed.items()) == 7


def gives(cast: Any, data: bytes, holder: str, dealer: str) -> bool:
    """Whether a reveal of `holder` has a share of `dealer`."""
    circle = cast.server._circles[0].circle
    given = unpack(Reveal.from_bytes(data).given, circle.degree)
    near = circle.neighbours(cast.server._places[holder][1])
    return any(near[slot] == cast.server._places[dealer][1] for slot in slots(given))


def alter(name: str, kind: type, field: str, at: int = 0) -> Callable[[Any, Box], Box]:
    """A change of one byte of one field of one phone's message."""

    def change(_: Any, box: Box) -> Box:
        message = kind.from_bytes(box[name])
        data = bytearray(getattr(message, field))
        data[at] ^= 1
        return box | {name: replace(message, **{field: bytes(data)}).to_bytes()}

    return change


@pytest.mark.parametrize(
    ("kind", "field", "at", "why"),
    [
        (Place, "neighbours", 40, "not those of the signed roster"),
        (Place, "proof", 0, None),
        (Place, "root", 0, "signature"),
        (Place, "signature", 0, "signature"),
    ],
)
def test_case_37_swapped_keys(make_cast: MakeCast, kind: type, field: str, at: int, why: str | None) -> None:
    """A server that shows a phone other keys, or another roster, is refused by it; the rest goes on."""
    cast = make_cast(8, 4, 3)
    cast.changes["share"] = alter("p0", kind, field, at)
    total = cast.run()
    assert (total == cast.right()).all()
    assert "p0" not in cast.server.counted
    assert (why or "") in cast.server.refusals["p0"]


def test_case_37_someone_elses_place(make_cast: MakeCast) -> None:
    cast = make_cast(8, 4, 3)
    cast.changes["share"] = lambda _, inbox: inbox | {"p0": inbox["p1"]}
    cast.run()
    assert "p0" in cast.server.refusals


@pytest.mark.parametrize("keys", ["reflected", "own twice", "low order"])
def test_case_37_reflected_own_or_low_order_keys(make_cast: MakeCast, keys: str) -> None:
    """p7 advertises p0's keys as its own, one key twice, or a point of order 8; under its own good signature."""
    cast = make_cast()
    place, hostile = cast.server.context, cast.phones["p7"].identity

    def advertise(_: Any, answers: Box) -> Box:
        victim = Advert.from_bytes(answers["p0"])
        pair = {
            "reflected": (victim.channel, victim.mask),
            "own twice": (victim.identity[:31] + b"7",) * 2,
            "low order": (X25519PrivateKey.generate().public_key().public_bytes_raw(), sorted(pairs._LOW)[2]),
        }[keys]
        return answers | {"p7": signed_advert(hostile, place, 0, *pair).to_bytes()}

    cast.changes["advertise answers"] = advertise
    total = cast.run()
    assert (total == cast.right()).all()
    assert "p7" in cast.server.reports
    assert len(cast.server.counted) == 7


def test_case_37_phones_look_for_themselves(make_cast: MakeCast) -> None:
    """Server and witness let a low-order key in: its neighbours share nothing with it."""
    cast = make_cast()
    place, hostile = cast.server.context, cast.phones["p7"].identity
    weak = [signed_advert(hostile, place, 0, sorted(pairs._LOW)[0], bytes([7]) * 32)]
    with pytest.MonkeyPatch.context() as patch:
        for module in ("roster", "pairwise_server"):
            patch.setattr(f"model.secagg.{module}.low_order", lambda _: False)
        cast.changes["advertise answers"] = lambda _, answers: answers | {"p7": weak[0].to_bytes()}
        with pytest.raises(RoundError):
            cast.run()
    assert all("low order" in cast.server.refusals[f"p{i}"] for i in range(7))


@pytest.mark.parametrize("public", sorted(pairs._LOW))
def test_low_order_points_are_what_the_library_refuses(public: bytes) -> None:
    with pytest.raises(ValueError):
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(public))
    assert pairs.low_order(public[:31] + bytes([public[31] | 0x80]))
    assert not pairs.low_order(X25519PrivateKey.generate().public_key().public_bytes_raw())


@pytest.mark.parametrize("boxes", [1, 7])
def test_case_38_corrupted_ciphertext(make_cast: MakeCast, boxes: int) -> None:
    """Whose box does not open for a neighbour is left out and named; the others' sum is right."""
    cast = make_cast()

    def spoil(_: Any, answers: Box) -> Box:
        for i in range(boxes):
            answers = alter("p2", Deal, "boxes", i * BOX)(_, answers)
        return answers

    cast.changes["share answers"] = spoil
    total = cast.run()
    assert (total == cast.right()).all()
    assert "p2" in cast.server.reports
    assert sorted(cast.server.counted) == [f"p{i}" for i in range(8) if i != 2]


def test_case_38_who_complains_of_everyone_is_left_out_itself(make_cast: MakeCast) -> None:
    cast = make_cast()

    def complain(cast: Any, answers: Box) -> Box:
        m = Upload.from_bytes(answers["p2"])
        return answers | {"p2": replace(m, kept=bytes([0b11111]), tags=m.tags[: 5 * TAG]).to_bytes()}

    cast.changes["upload answers"] = complain
    assert (cast.run() == cast.right()).all()
    assert list(cast.server.reports) == ["p2"]
    assert len(cast.server.counted) == 7


def test_case_39_byzantine_share(make_cast: MakeCast) -> None:
    """A share that was not dealt is known by its commitment, its sender named, the sum right without it."""
    cast = make_cast(8, 7, 5)
    cast.changes["unmask answers"] = alter("p2", Reveal, "shares", 20)
    total = cast.run()
    assert (total == cast.right()).all()
    assert len(cast.server.counted) == 8


def test_case_39_it_is_named(make_cast: MakeCast) -> None:
    cast = make_cast(8, 7, 7)
    cast.changes["unmask answers"] = alter("p2", Reveal, "shares", 20)
    with pytest.raises(RoundError, match="fewer than the threshold"):
        cast.run()
    assert "not dealt" in cast.server.reports["p2"]


def test_case_39_without_commitments_the_sum_would_be_wrong(
    make_cast: MakeCast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with every commitment taken for good, the secret is another, which its own hash still shows."""
    monkeypatch.setattr("model.secagg.unmasking.commitment", lambda share: AnyBytes())
    cast = make_cast(8, 7, 7)
    cast.changes["unmask answers"] = alter("p2", Reveal, "shares", 20)
    with pytest.raises(RoundError, match=r"something else than its seed|do not belong together"):
        cast.run()


class AnyBytes:
    """Equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def test_case_39_a_dealer_of_broken_shares_is_left_out(make_cast: MakeCast) -> None:
    """A share that is not the one committed to is a box that does not open: its dealer is out before anyone masks."""
    cast = make_cast()
    cast.changes["share answers"] = alter("p2", Deal, "commitments", 0)
    total = cast.run()
    assert (total == cast.right()).all()
    assert "p2" not in cast.server.counted


def test_case_40_inconsistent_models(make_cast: MakeCast) -> None:
    """A phone handed another model after it shared: its masks fit nobody's, the checks do not count, no sum."""
    cast = make_cast()

    def swap(cast: Any, inbox: Box) -> Box:
        phone = cast.phones["p3"]
        phone.context = replace(phone.context, model_digest="ef" * 32)
        return inbox

    cast.changes["upload"] = swap
    cast.changes["agree"] = lambda cast, inbox: restore(cast, inbox)
    with pytest.raises(RoundError, match="did not cancel"):
        cast.run()


def restore(cast: Any, inbox: Box) -> Box:
    cast.phones["p3"].context = cast.server.context
    return inbox


def test_case_40_another_model_from_the_start(make_cast: MakeCast) -> None:
    """Its advert is signed for another sum, so it cannot enter the roster."""
    cast = make_cast()
    old = cast.phones["p3"]
    other = replace(old.context, model_digest="ef" * 32)
    cast.phones["p3"] = PairwisePhone(old.identity, other, old.terms)
    total = cast.run()
    assert (total == cast.right()).all()
    assert "p3" not in cast.server.counted
    assert "p3" in cast.server.reports


def test_case_42_differencing_cohorts(make_cast: MakeCast) -> None:
    """After one list the sum is spent: no list without p0, and no further attempt."""
    cast = make_cast()
    cast.run()
    circle, witness = cast.server._circles[0], cast.server.witness
    active = circle.list.active.copy()
    active[cast.server._places["p0"][1]] = False
    without = SurvivorList(circle.context, circle.root, 0, active, ~active)
    identities = {place[1]: cast.phones[name].identity for name, place in cast.server._places.items()}
    signed = {p: key.sign(without.signed_bytes()) for p, key in identities.items() if active[p]}
    with pytest.raises(RoundError, match="another list was signed"):
        witness.sign_list(without, signed)
    again = {name: PairwisePhone(p.identity, p.context, p.terms, 1) for name, p in cast.phones.items()}
    server = PairwiseServer(cast.server.context, cast.server.terms, witness, 1)
    with pytest.raises(RoundError, match="spent"):
        server.place({name: phone.advertise() for name, phone in again.items()})


def test_case_42_the_first_list_may_be_any(make_cast: MakeCast) -> None:
    """The control: the same list and signatures pass before another was signed."""
    cast = make_cast()
    cast.drops["upload"] = {"p0"}
    assert (cast.run() == cast.right()).all()
    assert len(cast.server.counted) == 7


@pytest.mark.parametrize("kind", [Place, Deal, Delivery, Upload, Survivors, Certificate, Reveal])
def test_messages_are_bounded_and_strict(kind: type) -> None:
    with pytest.raises(ContractError, match="over its limit"):
        kind.from_bytes(bytes(kind.MAX + 1))
    for odd in (b"", b"\xa0", b"\x80", b"\xff", Advert(bytes(32), bytes(32), bytes(32), bytes(64)).to_bytes()):
        with pytest.raises(ContractError):
            kind.from_bytes(odd)


@pytest.mark.parametrize("step", ["share", "upload", "agree", "unmask"])
def test_garbage_ends_the_attempt_for_the_phone(make_cast: MakeCast, step: str) -> None:
    cast = make_cast()
    cast.changes[step] = lambda _, inbox: inbox | {"p0": b"\xff\x00"}
    assert (cast.run() == cast.right()).all()
    assert cast.phones["p0"].state.step == "over"


@pytest.mark.parametrize("step", ["advertise", "share", "upload", "agree", "unmask"])
def test_garbage_from_a_phone_costs_only_that_phone(make_cast: MakeCast, step: str) -> None:
    cast = make_cast()
    cast.changes[f"{step} answers"] = lambda _, answers: answers | {"p0": b"\xff\x00"}
    assert (cast.run() == cast.right()).all()
    assert "p0" in cast.server.reports


def test_signing_keys_in_the_roster_are_the_phones(make_cast: MakeCast) -> None:
    """p7 signs an advert that shows p0's identity."""
    cast = make_cast()
    forged = SigningKey.generate()

    def forge(_: Any, answers: Box) -> Box:
        stolen = signed_advert(forged, cast.server.context, 0, bytes([5]) * 32, bytes([6]) * 32)
        return answers | {"p7": replace(stolen, identity=cast.phones["p0"].identity.public_bytes).to_bytes()}

    cast.changes["advertise answers"] = forge
    assert (cast.run() == cast.right()).all()
    assert "p7" in cast.server.reports
