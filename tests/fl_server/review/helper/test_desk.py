"""What a helper answers, what it refuses in writing, and that the same request without the fault is answered."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fl_server.review.helper.desk import MAX_NUMBERS, HelperDesk
from fl_server.review.helper.records import read_log
from model.contract.envelope import SigningKey
from model.contract.masked import MAX_NAMED, SEED_BYTES, batch_digest, split_seeds
from model.contract.releases import share_sigma
from model.contract.sealed import RecipientKey
from model.privacy.mechanism import GaussianRelease
from model.privacy.noise import SeededSource, discrete_gaussian
from model.secagg.two_server import add, message_id, unshield

from .conftest import CLIP, DIM, MODEL, NOW, Bench


def answered(bench: Bench, desk: HelperDesk, **changes: Any) -> None:
    """The control of a refusal: the same request without the fault."""
    plan = bench.plan()
    assert bench.share(desk.share(bench.request(plan, **changes).to_bytes())).phones >= 30


def refused(bench: Bench, desk: HelperDesk, request: Any) -> Any:
    """The refusal of a request, which must also stand in the log."""
    data = request if isinstance(request, bytes) else request.to_bytes()
    signed = desk.share(data)
    told = bench.refusal(signed)
    last = read_log(bench.home.store, bench.home.signing.public_bytes)[-1]
    assert (last["event"], last["code"], last["answer"]) == ("refused", told.code, signed.payload_digest)
    assert last["sentence"] == told.sentence and told.when == NOW
    return told


def test_a_share_takes_the_masks_off_and_leaves_noise(bench: Bench, desk: HelperDesk) -> None:
    plan = bench.plan()
    messages = bench.phones(bench.context(plan))
    share = bench.share(desk.share(bench.request(plan, messages).to_bytes()))
    seen = unshield(add([each.vector for each in messages], DIM), share.residues())
    error = seen - sum(np.arange(DIM) + place for place in range(30))
    sigma = share_sigma(plan, plan.privacy.charges[1])
    assert (share.plan_digest, share.round, share.kind) == (plan.digest, 1, "train")
    assert (share.model_digest, share.dim, share.phones) == (MODEL, DIM, 30)
    assert share.batch_digest == batch_digest(each.seed for each in messages)
    assert (share.noise_multiplier, share.sigma) == (8.0, sigma)
    assert 0 < np.abs(error).max() < 8 * sigma and len(np.unique(error)) == DIM


def test_an_identical_request_gets_the_identical_bytes(bench: Bench, desk: HelperDesk) -> None:
    plan = bench.plan()
    messages = bench.phones(bench.context(plan))
    first = desk.share(bench.request(plan, messages).to_bytes())
    assert desk.share(bench.request(plan, messages).to_bytes()) == first
    assert desk.share(bench.request(plan, messages[::-1]).to_bytes()) == first  # the order of messages is no part
    events = [each["event"] for each in read_log(bench.home.store, bench.home.signing.public_bytes)]
    assert events == ["reserved", "answered", "repeated", "repeated"]


def test_many_askers_at_once_get_one_draw(bench: Bench, desk: HelperDesk) -> None:
    request = bench.request(bench.plan()).to_bytes()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(desk.share, [request] * 16))
    assert all(answer == answers[0] for answer in answers)
    events = [each["event"] for each in read_log(bench.home.store, bench.home.signing.public_bytes)]
    assert events == ["reserved", "answered", *["repeated"] * 15]


def test_a_request_that_is_none(bench: Bench, desk: HelperDesk) -> None:
    good = bench.request(bench.plan()).to_bytes()
    for bad in (b"", b"junk", good[:-1], good + b"\0", b"\xa0"):
        assert refused(bench, desk, bad).code == "malformed"
    answered(bench, desk)


def test_a_share_too_long_to_be_signed(bench: Bench, desk: HelperDesk) -> None:
    plan = bench.plan()
    assert refused(bench, desk, bench.request(plan, [], dim=MAX_NUMBERS + 1)).code == "malformed"
    messages = bench.phones(bench.context(plan, dim=MAX_NUMBERS))
    longest = bench.request(plan, messages, dim=MAX_NUMBERS).to_bytes()
    assert bench.share(desk.share(longest)) == bench.share(desk.share(longest))


@pytest.mark.parametrize("signers", [(), ("coordinator",), ("reviewer",), ("coordinator", "stranger")])
def test_a_plan_not_signed_by_both(bench: Bench, desk: HelperDesk, signers: tuple[str, ...]) -> None:
    keys = {"coordinator": bench.coordinator, "reviewer": bench.reviewer, "stranger": SigningKey.generate()}
    plan = bench.plan()
    envelope = bench.signed(plan, [keys[name] for name in signers])
    assert refused(bench, desk, bench.request(plan, signed=envelope)).code == "untrusted"
    answered(bench, desk)


def test_a_helper_that_trusts_nobody_yet(make: Any) -> None:
    bench = make("blank")
    (bench.home.path / "trust.json").unlink()
    alone = replace(bench, home=type(bench.home).open(bench.home.path))
    with alone.desk() as desk:
        assert refused(alone, desk, alone.request(alone.plan())).code == "untrusted"


def test_a_plan_of_another_mode_helper_or_pack(bench: Bench, desk: HelperDesk) -> None:
    other = RecipientKey.generate().public_bytes.hex()
    faults = [
        ("mode", bench.plan(mode="central", helper_key="")),
        ("helper", bench.plan(helper_key=other)),
        ("policy", bench.plan(min_cohort=29)),
        ("policy", bench.plan(simulation=False, noise_source="test-seeded")),
        ("noise", bench.plan(noise_source="test-seeded")),
    ]
    for code, plan in faults:
        assert refused(bench, desk, bench.request(plan)).code == code
    answered(bench, desk)


def test_a_release_that_the_plan_has_not(bench: Bench, desk: HelperDesk) -> None:
    plan = bench.plan()
    for kind, round_ in (("train", 0), ("train", 3), ("knots", 1), ("calibrate", 3), ("evaluate", 3)):
        assert refused(bench, desk, bench.request(plan, kind=kind, round=round_)).code == "round"
    for kind, round_ in (("knots", 0), ("train", 1), ("train", 2), ("evaluate", 4)):
        assert bench.share(desk.share(bench.request(plan, kind=kind, round=round_).to_bytes())).kind == kind


def test_a_charge_that_does_not_cover_its_release(bench: Bench, desk: HelperDesk) -> None:
    knots, training, _ = bench.plan().privacy.charges
    for bad in (
        replace(training, sensitivity=CLIP / 2, noise_multiplier=16.0),
        replace(training, count=3),
        replace(training, noise_multiplier=1e-9),
    ):
        plan = bench.plan(charges=(knots, bad), epsilon_budget=100.0 if bad.noise_multiplier > 1 else 1e9)
        assert refused(bench, desk, bench.request(plan)).code in ("charge", "budget")
    answered(bench, desk)


def test_case_41_a_plan_whose_sums_could_wrap(bench: Bench, desk: HelperDesk) -> None:
    plan = bench.plan(grid_scale=1 << 26)
    told = refused(bench, desk, bench.request(plan))
    assert told.code == "wrap" and "smaller grid scale" in told.sentence
    knots, training, _ = plan.privacy.charges
    for kind, round_ in (("knots", 0), ("train", 2), ("evaluate", 4)):  # whichever of its sums is asked for
        assert refused(bench, desk, bench.request(plan, kind=kind, round=round_)).code == "wrap"
    quiet = bench.plan(charges=(replace(knots, noise_multiplier=1e-9), training), epsilon_budget=1e30)
    assert refused(bench, desk, bench.request(quiet)).code in ("charge", "budget")  # of a sum not asked for
    answered(bench, desk)


def test_below_the_minimum_cohort_and_above_the_population(bench: Bench, desk: HelperDesk) -> None:
    plan = bench.plan()
    assert refused(bench, desk, bench.request(plan, count=29)).code == "cohort"
    assert refused(bench, desk, bench.request(plan, count=61)).code == "cohort"
    assert refused(bench, desk, bench.request(plan, kind="evaluate", round=4, count=36)).code == "cohort"
    assert bench.share(desk.share(bench.request(plan, count=60).to_bytes())).phones == 60
    assert bench.share(desk.share(bench.request(plan, kind="evaluate", round=4, count=35).to_bytes())).phones == 35


def test_a_message_twice_in_a_batch(bench: Bench, desk: HelperDesk) -> None:
    plan = bench.plan()
    messages = bench.phones(bench.context(plan), 31)
    told = refused(bench, desk, bench.request(plan, [*messages, messages[4]]))
    assert told.code == "twice" and told.messages == (message_id(messages[4].seed),)
    assert bench.share(desk.share(bench.request(plan, messages).to_bytes())).phones == 31


def test_case_42_cohorts_of_n_and_n_minus_1(bench: Bench, desk: HelperDesk) -> None:
    plan = bench.plan()
    messages = bench.phones(bench.context(plan), 31)
    first = desk.share(bench.request(plan, messages).to_bytes())
    assert bench.share(first).phones == 31
    assert refused(bench, desk, bench.request(plan, messages[:-1])).code == "batch"
    fresh = [bench.phone(bench.context(plan), 100 + place) for place in range(30)]
    assert refused(bench, desk, bench.request(plan, fresh)).code == "batch"
    assert desk.share(bench.request(plan, messages).to_bytes()) == first


def test_another_model_or_length_for_a_release_once_answered(bench: Bench, desk: HelperDesk) -> None:
    plan = bench.plan()
    answered(bench, desk)
    assert refused(bench, desk, bench.request(plan, model_digest="cd" * 32)).code == "model"
    assert refused(bench, desk, bench.request(plan, dim=DIM + 1)).code == "model"
    assert bench.share(desk.share(bench.request(plan, round=2, model_digest="cd" * 32).to_bytes())).round == 2


def test_case_40_seeds_for_another_sum_do_not_open(bench: Bench, desk: HelperDesk) -> None:
    plan = bench.plan()
    good = bench.phones(bench.context(plan))
    strays = [
        bench.phone(bench.context(plan, model_digest="cd" * 32), 50),
        bench.phone(bench.context(plan, round=2), 51),
        bench.phone(bench.context(plan, kind="knots"), 52),
        bench.phone(bench.context(plan, dim=DIM + 1), 53),
        bench.phone(bench.context(bench.plan(seed=9)), 54),
    ]
    told = refused(bench, desk, bench.request(plan, [*good, *strays]))
    assert told.code == "unopened" and told.sentence.startswith("5 of 35")
    assert told.messages == tuple(sorted(message_id(each.seed) for each in strays))
    # None of them counts as opened: without the strays the very same messages are answered.
    assert bench.share(desk.share(bench.request(plan, good).to_bytes())).phones == 30


def test_a_seed_changed_in_any_byte_is_no_second_message(bench: Bench, desk: HelperDesk) -> None:
    """A sealed seed that opened in another guise would be one phone's mask under two names."""
    plan = bench.plan(phones=2000, grid_scale=1 << 18)
    good = [each.seed for each in bench.phones(bench.context(plan))]
    number, bits = int.from_bytes(good[0], "big"), range(8 * SEED_BYTES)
    twins = [(number ^ 1 << bit).to_bytes(SEED_BYTES, "big") for bit in bits]
    told = refused(bench, desk, bench.request(plan, seeds=b"".join([*good, *twins])))
    assert told.messages == tuple(sorted(map(message_id, twins)))


def test_more_strays_than_a_refusal_names(bench: Bench, desk: HelperDesk) -> None:
    plan = bench.plan(phones=2000, grid_scale=1 << 18)
    seeds = b"".join(place.to_bytes(SEED_BYTES, "big") for place in range(MAX_NAMED + 1))
    told = refused(bench, desk, bench.request(plan, seeds=seeds))
    assert told.sentence.startswith(f"{MAX_NAMED + 1} of") and len(told.messages) == MAX_NAMED


def test_a_message_is_opened_in_one_batch_ever(bench: Bench) -> None:
    plan = bench.plan()
    request = bench.request(plan)
    with bench.desk() as desk:
        assert bench.share(desk.share(request.to_bytes())).phones == 30
    old = split_seeds(request.seeds)
    with bench.desk() as desk:  # across restarts
        fresh = bench.phones(bench.context(plan, round=2))
        again = b"".join([old[3], *(each.seed for each in fresh)])
        told = refused(bench, desk, bench.request(plan, round=2, seeds=again))
        assert told.code == "replayed" and told.messages == (message_id(old[3]),)
        other = bench.plan(name="other")  # across plans
        told = refused(bench, desk, bench.request(other, seeds=request.seeds))
        assert told.code == "replayed" and len(told.messages) == 30
        assert bench.share(desk.share(bench.request(plan, fresh, round=2).to_bytes())).round == 2


def test_a_plan_that_costs_more_than_its_budget_without_amplification(bench: Bench, desk: HelperDesk) -> None:
    knots, training, evaluation = bench.plan().privacy.charges
    sampled = (knots, replace(training, sampling=0.6), evaluation)
    plan = bench.plan(charges=sampled, participation=0.6, epsilon_budget=0.7)
    assert refused(bench, desk, bench.request(plan)).code == "budget"
    enough = replace(plan, privacy=replace(plan.privacy, epsilon_budget=4.0))
    assert bench.share(desk.share(bench.request(enough).to_bytes())).phones == 30


def test_the_helpers_own_ledger_ends_a_plan(bench: Bench) -> None:
    plan = bench.plan()
    with bench.desk() as desk:
        assert bench.share(desk.share(bench.request(plan).to_bytes())).round == 1
    much = GaussianRelease("training", 0.3, CLIP, 1, 1.0, "train")
    with bench.desk() as desk:
        desk._store.spent = lambda plan_digest: [much]  # type: ignore[method-assign]
        assert refused(bench, desk, bench.request(plan, round=2)).code == "budget"
    with bench.desk() as desk:
        assert bench.share(desk.share(bench.request(plan, round=2).to_bytes())).round == 2


def test_a_yearly_cap_over_plans_of_one_name(make: Any) -> None:
    bench = make(yearly_epsilon=0.5)
    first, second = bench.plan(), bench.plan(created_at=NOW + 1)
    with bench.desk() as desk:
        assert bench.share(desk.share(bench.request(first).to_bytes())).round == 1
        assert refused(bench, desk, bench.request(second)).code == "yearly"
        other = bench.plan(name="other")
        assert bench.share(desk.share(bench.request(other).to_bytes())).round == 1
        bench.clock = NOW + 366 * 86_400
        assert bench.share(desk.share(bench.request(second).to_bytes())).round == 1


def test_test_noise_needs_the_plan_the_simulation_and_the_home(make: Any) -> None:
    bench = make(allow_test_noise=True)
    plan = bench.plan(noise_source="test-seeded")
    messages = bench.phones(bench.context(plan))
    with bench.desk() as desk:
        share = bench.share(desk.share(bench.request(plan, messages).to_bytes()))
        drawn = discrete_gaussian(share.sigma, DIM, SeededSource(plan.seed, "helper/train", 1))
        seen = unshield(add([each.vector for each in messages], DIM), share.residues())
        assert (seen + drawn == sum(np.arange(DIM) + place for place in range(30))).all()
