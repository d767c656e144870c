"""Rounds of pairwise masking: exact sums or clean ends, whatever is lost; and what each party keeps to."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from model.contract.envelope import SigningKey
from model.contract.merkle import leaf_hash, root
from model.errors import ContractError, RoundError, SignatureError
from model.privacy.mechanism import GaussianRelease
from model.privacy.noise import SeededSource
from model.secagg.graph import failures
from model.secagg.honest import add_noise, phone_sigma
from model.secagg.messages import Upload
from model.secagg.openings import levels, opening, root_of
from model.secagg.pairwise import run_round
from model.secagg.pairwise_phone import PairwisePhone
from model.secagg.pairwise_server import PairwiseServer
from model.secagg.pairwise_steps import wide
from model.secagg.phone_state import PhoneState
from model.secagg.terms import SurvivorList
from model.secagg.witness import LocalWitness

STEPS = ("advertise", "share", "upload", "agree", "unmask")
MakeCast = Callable[..., Any]


def sign_again(cast: Any, attempt: int) -> None:
    """The same phones' adverts for another attempt, before the same witness."""
    place, terms = cast.server.context, cast.server.terms
    phones = {name: PairwisePhone(phone.identity, place, terms, attempt) for name, phone in cast.phones.items()}
    again = PairwiseServer(place, terms, cast.server.witness, attempt)
    again.place({name: phone.advertise() for name, phone in phones.items()})


@pytest.mark.parametrize(("phones", "degree", "threshold"), [(3, 2, 2), (8, 7, 5), (12, 6, 4), (13, 12, 7)])
def test_the_sum_is_exact(make_cast: MakeCast, phones: int, degree: int, threshold: int) -> None:
    cast = make_cast(phones, degree, threshold)
    total = run_round(cast.phones, cast.updates, cast.server)
    assert total.dtype == np.int64
    assert (total == sum(cast.updates.values())).all()
    assert sorted(cast.server.counted) == sorted(cast.phones)
    assert not cast.server.reports
    assert not cast.server.refusals


def test_one_driver_is_as_good_as_the_other(make_cast: MakeCast) -> None:
    one, two = make_cast(), make_cast()
    assert (one.run() == run_round(two.phones, two.updates, two.server)).all()


def test_200_rounds_with_drops_at_every_phase(make_cast: MakeCast) -> None:
    """The right sum or a clean end, never a wrong sum."""
    source, sums, ends = random.Random(7), 0, 0
    for trial in range(200):
        phones = source.randint(3, 6)
        degree = source.choice([min(4, phones - 1), phones - 1])
        cast = make_cast(phones, degree, source.randint(degree // 2 + 1, degree), 2, dim=3, seed=trial)
        rate = source.choice([0.0, 0.05, 0.15, 0.4])
        drops = {step: {name for name in cast.phones if source.random() < rate} for step in STEPS}
        try:
            total = run_round(cast.phones, cast.updates, cast.server, drops)
        except (RoundError, ContractError):
            ends += 1
            continue
        assert (total == cast.right()).all()
        assert set(cast.server.counted) <= cast.phones.keys() - drops["upload"] - drops["share"] - drops["advertise"]
        sums += 1
    assert sums > 50
    assert ends > 20


@pytest.mark.parametrize(("lost", "ends"), [({0, 1, 2, 8, 9, 10}, True), ({0, 2, 8, 10}, False)])
def test_lost_phones_that_would_part_the_rest_end_the_round(make_cast: MakeCast, lost: set[int], ends: bool) -> None:
    """Two runs of degree/2 lost phones leave two halves, whose sums a server would get apart; as many others do not."""
    cast = make_cast(16, 6, 4)
    cast.changes["upload"] = lambda cast, inbox: {
        name: data for name, data in inbox.items() if cast.server._places[name][1] not in lost
    }
    if ends:
        with pytest.raises(RoundError, match="in a row"):
            cast.run()
    else:
        total = cast.run()
        assert (total == cast.right()).all()


def test_phones_look_at_the_list_themselves(make_cast: MakeCast, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same list past a server that does not mind: every phone refuses it."""
    cast = make_cast(16, 6, 4)

    class Careless(SurvivorList):
        """A list that its maker takes as it comes."""

        def require_sound(self, *_: object) -> None:
            """Nothing."""

    def lose(cast: Any, inbox: dict[str, bytes]) -> dict[str, bytes]:
        return {name: data for name, data in inbox.items() if cast.server._places[name][1] not in {0, 1, 2, 8, 9, 10}}

    cast.changes["upload"] = lose
    monkeypatch.setattr("model.secagg.circle_server.SurvivorList", Careless)
    monkeypatch.setattr("model.secagg.circle_server.CircleServer._require_answers", lambda *_: None)
    with pytest.raises(RoundError):
        cast.run()
    assert len(cast.server.refusals) == 10
    assert all("in a row" in why for why in cast.server.refusals.values())


def test_extreme_updates_come_through(make_cast: MakeCast) -> None:
    """Any residue survives; the sum is exact as long as it stays within 2^31, which the plan's grid sees to."""
    cast = make_cast()
    cast.updates = dict.fromkeys(cast.phones, np.array([-(2**28) + 1, 2**28 - 1, 0, 1]))
    assert (cast.run() == 8 * cast.updates["p0"]).all()


def test_what_is_uploaded_is_uniform_and_says_nothing_of_the_update(make_cast: MakeCast) -> None:
    cast = make_cast(dim=16_384)
    cast.updates = {name: np.full(16_384, 1000 * i) for i, name in enumerate(cast.phones)}
    seen: dict[str, bytes] = {}

    def look(_: object, answers: dict[str, bytes]) -> dict[str, bytes]:
        seen.update(answers)
        return answers

    cast.changes["upload answers"] = look
    cast.run()
    words = np.frombuffer(Upload.from_bytes(seen["p3"]).vector, "<u4")[:-2]
    cells = np.bincount(words >> 28, minlength=16)
    assert ((cells - 1024) ** 2 / 1024).sum() < 44.3  # 15 degrees of freedom, P < 10^-4
    assert abs(np.corrcoef(words, np.arange(words.size))[0, 1]) < 4 / 128


def test_groups_of_a_large_roster_add_up(make_cast: MakeCast, monkeypatch: pytest.MonkeyPatch) -> None:
    """With circles of at most 6, 14 phones are three groups; one that ends costs its own phones only."""
    for bounded in ("sizes", "circles"):
        monkeypatch.setattr(f"model.secagg.circle.{bounded}.__defaults__", (6,))
    failures.cache_clear()
    cast = make_cast(14, 13, 3, 3)
    assert (cast.run() == sum(cast.updates.values())).all()
    cast = make_cast(14, 13, 3, 3, seed=1)
    cast.changes["share"] = lambda cast, inbox: {
        name: data for name, data in inbox.items() if cast.server._places[name][0] != 1
    }
    total = cast.run()
    assert (total == cast.right()).all()
    assert list(cast.server.ended) == [1]
    assert len(cast.server.counted) == 9
    failures.cache_clear()


def test_steps_come_once_and_in_order(make_cast: MakeCast) -> None:
    cast = make_cast()
    phone = cast.phones["p0"]
    with pytest.raises(RoundError, match="next step is advertise"):
        phone.share(b"")
    with pytest.raises(RoundError, match="next step is over"):
        phone.advertise()


def test_a_phone_goes_on_from_what_it_kept(make_cast: MakeCast) -> None:
    """Each message may find another process: the state is bytes in between."""
    cast = make_cast()
    plain = cast.ask

    def asleep(name: str, step: str, data: bytes) -> bytes:
        kept = PhoneState.from_bytes(cast.phones[name].state.to_bytes())
        old = cast.phones[name]
        cast.phones[name] = PairwisePhone(old.identity, old.context, old.terms, 0, old.source, kept)
        return plain(name, step, data)

    cast.ask = asleep
    assert (cast.run() == sum(cast.updates.values())).all()


def test_secrets_are_gone_after_the_round(make_cast: MakeCast) -> None:
    cast = make_cast()
    cast.run()
    assert all(phone.state == PhoneState("over") for phone in cast.phones.values())


def test_the_witness_signs_one_roster_an_attempt_and_one_list_a_sum(make_cast: MakeCast) -> None:
    cast = make_cast()
    cast.run()
    witness, circle = cast.server.witness, cast.server._circles[0]
    with pytest.raises(RoundError, match="spent"):
        sign_again(cast, 1)
    circle.list.active[0] ^= True
    with pytest.raises(RoundError):
        witness.sign_list(circle.list, {})


def test_attempts_are_few_and_in_order(make_cast: MakeCast) -> None:
    cast = make_cast()
    for attempt in range(8):
        sign_again(cast, attempt)
    for attempt in (3, 8, 10):
        with pytest.raises(RoundError, match="another roster was signed" if attempt == 3 else "not the next"):
            sign_again(cast, attempt)


def test_only_the_enrolled(make_cast: MakeCast) -> None:
    cast = make_cast()
    known = [phone.identity.public_bytes for phone in cast.phones.values()][1:]
    cast.server.witness = LocalWitness(SigningKey.from_private_bytes(bytes([9]) * 32), cast.server.terms, known)
    with pytest.raises(RoundError, match="not enrolled"):
        cast.run()


def test_another_witness_is_not_believed(make_cast: MakeCast) -> None:
    cast = make_cast()
    cast.server.witness = LocalWitness(SigningKey.generate(), cast.server.terms)
    with pytest.raises(RoundError):
        cast.run()
    assert all("signature" in why for why in cast.server.refusals.values())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 21])
def test_openings_are_of_the_same_tree(size: int) -> None:
    leaves, source = [leaf_hash(bytes([i])) for i in range(size)], random.Random(size)
    tree = levels(leaves)
    assert tree[-1][0] == root(leaves)
    for _ in range(20):
        shown = source.sample(range(size), source.randint(1, size))
        proof = opening(tree, shown)
        assert root_of({i: leaves[i] for i in shown}, size, proof) == root(leaves)
        assert root_of({i: leaf_hash(b"other") for i in shown}, size, proof) != root(leaves)
        with pytest.raises(ContractError, match="too many"):
            root_of({i: leaves[i] for i in shown}, size, [*proof, leaves[0]])
        if proof:
            with pytest.raises(ContractError, match="lacks"):
                root_of({i: leaves[i] for i in shown}, size, proof[:-1])
    with pytest.raises(ContractError, match="no leaf"):
        root_of({size: leaves[0]}, size, [])


def test_noise_of_the_honest_suffices() -> None:
    """h phones of ⌈zS·scale/√h⌉ + 1 each have at least the charge's variance together."""
    release = GaussianRelease("train", 3.0, 1.5, 1, 1.0, "train")
    for honest in (1, 7, 400):
        assert honest * phone_sigma(release, 1 << 16, honest) ** 2 >= (3.0 * 1.5 * 2**16) ** 2
    units = np.zeros(40_000, np.int64)
    noised = add_noise(units, release, 1 << 6, 16, SeededSource(1))
    assert abs(noised.std() / phone_sigma(release, 1 << 6, 16) - 1) < 0.02
    assert not units.any()


def test_checks_ride_behind_the_vector(make_cast: MakeCast) -> None:
    assert wide(make_cast().server.context).dim == 6


def test_a_badly_signed_advert_is_left_out(make_cast: MakeCast) -> None:
    cast = make_cast()
    cast.changes["advertise answers"] = lambda _, box: box | {"p1": box["p1"][:-1] + bytes([box["p1"][-1] ^ 1])}
    assert (cast.run() == cast.right()).all()
    assert "p1" in cast.server.reports
    assert len(cast.server.counted) == 7


def test_signature_error_is_a_refusal() -> None:
    assert issubclass(SignatureError, ContractError)
