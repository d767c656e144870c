"""Mode helper at the coordinator: what enters a masked sum, what refusals and kills leave, when a round is void."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_server import rounds
from fl_server.budget import Budget
from fl_server.checkpoint import Checkpoint
from fl_server.coordinator import Answer, Coordinator, Question
from fl_server.helper import Beside, SecondServer
from fl_server.rounds import Release
from model.canonical import decode, encode
from model.contract.envelope import Signed, SigningKey, sign
from model.contract.masked import (
    MASKED_SCHEMA,
    REFUSAL_DOMAIN,
    SHARE_DOMAIN,
    BatchRequest,
    MaskedHeader,
    Refusal,
    Share,
    batch_digest,
    split_seeds,
)
from model.contract.plan import DOMAIN
from model.contract.releases import charge_of, share_sigma
from model.contract.sealed import RecipientKey
from model.contract.update import PARTIAL_SCHEMA, PartialHeader
from model.errors import RoundError, RunError
from model.privacy.noise import OsSource, SeededSource, discrete_gaussian
from model.secagg.context import Context
from model.secagg.two_server import Unopened, open_seeds, share_of, shield_sum
from simulation.small import small_dataset, small_plan

HPKE = RecipientKey.generate()
SIGNER = SigningKey.generate()
SMALL = small_plan(small_dataset(200, seed=1), rounds=2)
PLAN = replace(SMALL, privacy=replace(SMALL.privacy, mode="helper", helper_key=HPKE.public_bytes.hex()))
SIGNED = sign(DOMAIN, PLAN.to_dict(), [SigningKey.generate()])


class Killed(Exception):
    """The process ends here."""


@dataclass
class StubHelper:
    """A helper without a memory, but for what it answered: enough to see what the coordinator does with answers."""

    answers: dict[str, Signed] = field(default_factory=dict)
    asked: list[BatchRequest] = field(default_factory=list)
    refuse: str = ""
    changes: dict[str, Any] = field(default_factory=dict)
    key: SigningKey = SIGNER

    def answer(self, data: bytes) -> Signed:
        request = BatchRequest.from_bytes(data)
        self.asked.append(request)
        batch = batch_digest(split_seeds(request.seeds))
        if self.refuse:
            return self._refusal(request, batch, self.refuse)
        try:
            return self.answers.setdefault(batch, self._share(request, batch))
        except Unopened as error:
            return self._refusal(request, batch, "unopened", error.messages)

    def _share(self, request: BatchRequest, batch: str) -> Signed:
        charge = charge_of(PLAN, request.kind)
        assert charge is not None
        sigma, seeds = share_sigma(PLAN, charge), split_seeds(request.seeds)
        context = Context(PLAN.digest, request.kind, request.round, request.model_digest, request.dim)
        noise = discrete_gaussian(sigma, request.dim, SeededSource(0, "helper", request.round))
        raw = share_of(open_seeds(seeds, HPKE, context), noise).astype("<u4").tobytes()
        place = (PLAN.digest, request.round, request.kind, request.model_digest, request.dim)
        share = Share(*place, batch, len(seeds), charge.noise_multiplier, sigma, raw)
        return sign(SHARE_DOMAIN, {**share.to_dict(), **self.changes}, [self.key])

    def _refusal(self, request: BatchRequest, batch: str, code: str, messages: tuple[str, ...] = ()) -> Signed:
        refusal = Refusal(PLAN.digest, request.round, request.kind, batch, code, "no share for this.", 1, messages)
        return sign(REFUSAL_DOMAIN, refusal.to_dict(), [self.key])


@contextmanager
def running(folder: Path, stub: StubHelper, **options: object) -> Iterator[Coordinator]:
    folder.mkdir(exist_ok=True)
    second = SecondServer(Beside(stub.answer), {SIGNER.keyid: SIGNER.public_bytes}, folder / "refusals")
    with Budget(folder / "ledger.jsonl", PLAN) as budget, Checkpoint(folder / "releases", PLAN.digest) as checkpoint:
        yield Coordinator(SIGNED, PLAN, budget, checkpoint, second=second, **options)  # type: ignore[arg-type]


def asked(coordinator: Coordinator) -> Question:
    question = coordinator.open()
    assert question is not None
    return question


def answer(coordinator: Coordinator, question: Question, node: int = 2, phones: int = 50, **changes: Any) -> Answer:
    """A node's masked answer; `changes` replace fields of its context and header, `raw` the units under the mask."""
    phase = question.phase
    dim = rounds.dimension(PLAN, coordinator.state, phase.kind)
    raw = changes.pop("raw", np.arange(dim, dtype=np.int64) + node)
    context = Context(PLAN.digest, phase.kind, phase.round, changes.pop("mask_for", question.model_digest), dim)
    sent = shield_sum(raw, phones, changes.pop("to", HPKE.public_bytes), context, OsSource())
    names = {
        "plan_digest": PLAN.digest,
        "round": phase.round,
        "kind": phase.kind,
        "model_digest": question.model_digest,
    }
    header = {"schema": MASKED_SCHEMA, "phones": phones, "dim": dim, **names, **changes}
    return Answer(node, encode(header), sent.vector.astype("<u4").tobytes(), sent.seed)


def noise_of(release: Release) -> np.ndarray:
    charge = charge_of(PLAN, release.kind)
    assert charge is not None
    sigma, size = share_sigma(PLAN, charge), len(release.noised)
    own = discrete_gaussian(sigma, size, SeededSource(PLAN.seed, release.kind, release.round))
    return np.asarray(own - discrete_gaussian(sigma, size, SeededSource(0, "helper", release.round)))


def first(tmp_path: Path, stub: StubHelper, *make: Any) -> Release:
    """The first phase closed with two good nodes and what `make` gives."""
    with running(tmp_path, stub) as coordinator:
        question = asked(coordinator)
        answers = [answer(coordinator, question, node) for node in (2, 3)]
        answers += [each(coordinator, question) for each in make]
        return coordinator.close(question, [2, 3, 4], answers)


def test_two_good_nodes_are_summed_under_both_noises(tmp_path: Path) -> None:
    stub = StubHelper()
    release = first(tmp_path, stub)
    expected = 2 * np.arange(len(release.noised)) + 5
    np.testing.assert_array_equal(release.noised - noise_of(release), expected)
    assert (release.phones, release.replied, release.refused) == (100, 2, ()) and len(stub.asked) == 1


BAD = {
    "case_40_it_says_another_model": ({"model_digest": "ab" * 32}, "another model"),
    "case_14_a_weight": ({"weight": 2}, "lacks or adds"),
    "case_15_another_round": ({"round": 1}, "fetch the current task"),
    "case_05_another_length": ({"dim": 5}, "5 numbers"),
    "more_phones_than_seeds": ({"phones": 51}, "one a phone"),
    "an_unmasked_schema": ({"schema": PARTIAL_SCHEMA}, "schema"),
}


@pytest.mark.parametrize(("changes", "said"), BAD.values(), ids=BAD)
def test_a_bad_header_leaves_its_node_out_before_the_helper_is_asked(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    stub = StubHelper()

    def bad(coordinator: Coordinator, question: Question) -> Answer:
        good = answer(coordinator, question, 4)
        header = {**MaskedHeader.from_dict(decode(good.header)).to_dict(), **changes}
        return replace(good, header=encode(header))

    release = first(tmp_path, stub, bad)
    assert release.phones == 100 and len(release.refused) == 1 and said in release.refused[0]
    assert "node 4" in release.refused[0] and len(stub.asked) == 1


def test_case_40_a_forged_digest_does_not_open_and_costs_only_its_node(tmp_path: Path) -> None:
    """The node was sent another model, masked for it, and says it was ours."""
    stub = StubHelper()
    release = first(tmp_path, stub, lambda c, q: answer(c, q, 4, mask_for="ab" * 32))
    np.testing.assert_array_equal(release.noised - noise_of(release), 2 * np.arange(len(release.noised)) + 5)
    assert release.phones == 100 and "node 4" in release.refused[0]
    assert [len(split_seeds(r.seeds)) for r in stub.asked] == [150, 100]
    assert len(list((tmp_path / "refusals").iterdir())) == 1


def test_a_seed_for_another_helper_costs_only_its_node(tmp_path: Path) -> None:
    other = RecipientKey.generate().public_bytes
    release = first(tmp_path, StubHelper(), lambda c, q: answer(c, q, 4, to=other))
    assert release.phones == 100 and "node 4" in release.refused[0]


def test_an_unmasked_answer_is_refused_and_a_masked_one_where_none_is_due(tmp_path: Path) -> None:
    def plain(coordinator: Coordinator, question: Question) -> Answer:
        dim = rounds.dimension(PLAN, coordinator.state, "knots")
        header = PartialHeader(PARTIAL_SCHEMA, PLAN.digest, 0, "knots", 10, dim)
        return Answer(4, encode(header.to_dict()), bytes(8 * dim))

    release = first(tmp_path / "helper", StubHelper(), plain)
    assert "without a mask" in release.refused[0] and release.phones == 100
    folder = tmp_path / "central"
    folder.mkdir()
    with Budget(folder / "ledger.jsonl", SMALL) as budget, Checkpoint(folder / "r", SMALL.digest) as checkpoint:
        central = Coordinator(sign(DOMAIN, SMALL.to_dict(), [SIGNER]), SMALL, budget, checkpoint)
        with pytest.raises(RoundError, match="masked answer came"):
            central.close(asked(central), [2], [answer(central, asked(central))])


def test_a_farm_where_nobody_takes_part_adds_nothing(tmp_path: Path) -> None:
    with running(tmp_path, StubHelper()) as coordinator:
        question = asked(coordinator)
        dim = rounds.dimension(PLAN, coordinator.state, "knots")
        empty = answer(coordinator, question, 3, phones=0, raw=np.zeros(dim, dtype=np.int64))
        loud = answer(coordinator, question, 4, phones=0)
        release = coordinator.close(question, [2, 3, 4], [answer(coordinator, question), empty, loud])
        assert (release.phones, release.replied) == (50, 2) and "no phones" in release.refused[0]
        np.testing.assert_array_equal(release.noised - noise_of(release), np.arange(dim) + 2)


def test_a_seed_that_comes_twice_counts_once(tmp_path: Path) -> None:
    with running(tmp_path, StubHelper()) as coordinator:
        question = asked(coordinator)
        good = answer(coordinator, question, 2)
        release = coordinator.close(question, [2, 3], [good, replace(good, node=3)])
        assert release.phones == 50 and "twice" in release.refused[0]


@pytest.mark.parametrize("kind", ["train", "knots"])
def test_case_40_a_sum_that_is_none_is_flagged_and_void(tmp_path: Path, kind: str) -> None:
    """One vector under the wrong mask makes the sum uniform: far outside what phones can reach."""
    with running(tmp_path, StubHelper()) as coordinator:
        if kind == "train":
            question = asked(coordinator)
            coordinator.close(question, [2], [answer(coordinator, question)])
        question = asked(coordinator)
        good, bad = answer(coordinator, question, 2), answer(coordinator, question, 3)
        bad = replace(bad, vector=np.random.default_rng(0).bytes(len(bad.vector)))
        if kind == "knots":
            with pytest.raises(RoundError, match="nothing is released"):
                coordinator.close(question, [2, 3], [good, bad])
            return
        release = coordinator.close(question, [2, 3], [good, bad])
        assert release.void and "no answer" in release.refused[-1] and not release.noised.any()
        following = asked(coordinator)
        assert (following.phase.kind, following.phase.round) == ("train", 2)


def test_a_refusal_is_kept_and_nothing_is_released(tmp_path: Path) -> None:
    stub = StubHelper(refuse="budget")
    with pytest.raises(RoundError, match="no share for this"):
        first(tmp_path, stub)
    (kept,) = (tmp_path / "refusals").iterdir()
    assert Signed.from_bytes(kept.read_bytes()).domain == REFUSAL_DOMAIN
    assert not list((tmp_path / "releases").glob("release-*")) and not list((tmp_path / "releases").glob("batch-*"))
    stub.refuse = ""
    with running(tmp_path, stub) as coordinator:  # it was temporary: phones are asked again
        question = asked(coordinator)
        assert not coordinator.close(question, [2], [answer(coordinator, question)]).void


def test_a_final_refusal_voids_the_round_for_the_run_that_resumes(tmp_path: Path) -> None:
    stub = StubHelper()
    with running(tmp_path, stub) as coordinator:
        question = asked(coordinator)
        coordinator.close(question, [2], [answer(coordinator, question)])
        stub.refuse, question = "void", asked(coordinator)
        with pytest.raises(RoundError, match="refused train"):
            coordinator.close(question, [2], [answer(coordinator, question)])
    stub.refuse = ""
    with running(tmp_path, stub) as coordinator:
        assert coordinator.releases[-1].void and asked(coordinator).phase.round == 2


LIES = [{"sigma": 3}, {"noise_multiplier": 0.1}, {"phones": 3}, {"round": 1}, {"batch_digest": "ab" * 32}]


@pytest.mark.parametrize("changes", LIES, ids=lambda lie: next(iter(lie)))
def test_an_answer_to_another_question_or_under_less_noise_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(RoundError, match="helper"):
        first(tmp_path, StubHelper(changes=changes))
    assert not list((tmp_path / "releases").glob("release-*"))


def test_an_answer_that_is_not_the_helpers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RoundError, match="trusted signatures"):
        first(tmp_path, StubHelper(key=SigningKey.generate()))


def test_case_23_a_kill_before_the_share_asks_for_the_same_batch_again(tmp_path: Path) -> None:
    stub = StubHelper()
    real = stub.answer

    def dies(data: bytes) -> Signed:
        real(data)  # the helper has answered, and nobody heard it
        raise Killed

    stub.answer = dies  # type: ignore[method-assign]
    with running(tmp_path, stub) as coordinator:
        question = asked(coordinator)
        good = answer(coordinator, question)
        with pytest.raises(Killed):
            coordinator.close(question, [2], [good])
    stub.answer = real  # type: ignore[method-assign]
    with running(tmp_path, stub) as coordinator:
        (release,) = coordinator.releases
        np.testing.assert_array_equal(release.noised - noise_of(release), np.arange(len(release.noised)) + 2)
        assert stub.asked[0] == stub.asked[1] and len(stub.answers) == 1 and release.phones == 50
        assert asked(coordinator).phase.kind == "train"
    assert not list((tmp_path / "releases").glob("batch-*"))


def test_case_24_a_kill_after_the_noise_releases_nothing_twice(tmp_path: Path) -> None:
    stub = StubHelper()
    with running(tmp_path, stub) as coordinator:
        question = asked(coordinator)
        coordinator.close(question, [2], [answer(coordinator, question)])

    def dies(phase: object) -> SeededSource:
        raise Killed

    with running(tmp_path, stub, source=dies) as coordinator:
        question = asked(coordinator)
        with pytest.raises(Killed):
            coordinator.close(question, [2], [answer(coordinator, question)])
    with running(tmp_path, stub) as coordinator:
        assert coordinator.releases[-1].void and len(stub.asked) == 2


def test_a_damaged_batch_is_named(tmp_path: Path) -> None:
    with running(tmp_path, StubHelper()) as coordinator:
        asked(coordinator)
    (tmp_path / "releases" / "batch-00000.cbor").write_bytes(b"\x01")
    with pytest.raises(RunError, match="delete it"), running(tmp_path, StubHelper()):
        pass


def test_without_a_helper_no_run_starts(tmp_path: Path) -> None:
    ledger, place = tmp_path / "ledger.jsonl", tmp_path / "r"
    with Budget(ledger, PLAN) as budget, Checkpoint(place, PLAN.digest) as checkpoint, pytest.raises(RunError) as said:
        Coordinator(SIGNED, PLAN, budget, checkpoint)
    assert "no helper was named" in str(said.value)
