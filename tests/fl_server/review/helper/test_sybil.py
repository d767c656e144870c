"""Every other phone is the coordinator's own and the coordinator lies: it gets the victim under noise, and once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from model.contract.envelope import Signed
from model.contract.masked import REFUSAL_DOMAIN
from model.contract.releases import share_sigma
from model.privacy.noise import SeededSource, discrete_gaussian
from model.secagg.context import Context
from model.secagg.fixedpoint import from_ring
from model.secagg.masks import mask_sum
from model.secagg.two_server import Shielded, shield, unshield

from .conftest import DIM, Bench

SECRET = np.arange(DIM, dtype=np.int64) * 1000 - 7  # the victim's update, in grid units


@dataclass
class Liar:
    """A coordinator that made every phone but one: it knows the Sybils' updates (zeros) and their seeds' masks."""

    bench: Bench
    desk: Any
    plan: Any

    def victim(self, context: Context) -> Shielded:
        """What the victim sends for a sum: its secret under a mask that only the helper can make."""
        return shield(SECRET, self.bench.home.hpke.public_bytes, context, SeededSource(9, context.digest))

    def sybils(self, context: Context, count: int) -> tuple[list[Shielded], Any]:
        """`count` messages of zeros, and the sum of their masks."""
        sources = [SeededSource(5, f"{context.digest}/{place}") for place in range(count)]
        seeds = [SeededSource(5, f"{context.digest}/{place}").take(32) for place in range(count)]
        zeros = np.zeros(context.dim, np.int64)
        made = [shield(zeros, self.bench.home.hpke.public_bytes, context, source) for source in sources]
        return made, mask_sum(seeds, context)

    def ask(self, messages: list[Shielded], **changes: Any) -> Signed:
        return self.desk.share(self.bench.request(self.plan, messages, **changes).to_bytes())  # type: ignore[no-any-return]


@pytest.fixture
def liar(make: Any) -> Any:
    bench = make(allow_test_noise=True)
    with bench.desk() as desk:
        yield Liar(bench, desk, bench.plan(noise_source="test-seeded"))


def test_all_it_can_subtract_is_not_the_noise(liar: Liar) -> None:
    """What remains of the victim after every known mask is taken off is its update minus one draw of the helper."""
    context = liar.bench.context(liar.plan)
    victim, (sybils, known) = liar.victim(context), liar.sybils(context, 29)
    share = liar.bench.share(liar.ask([victim, *sybils]))
    seen = unshield(victim.vector, share.residues() - known)
    draw = discrete_gaussian(share.sigma, DIM, SeededSource(liar.plan.seed, "helper/train", 1))
    assert (seen == SECRET - draw).all()
    assert share.sigma == share_sigma(liar.plan, liar.plan.privacy.charges[1]) and np.abs(draw).max() > share.sigma


def test_control_without_the_helpers_noise_it_reads_the_victim(liar: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = lambda sigma, size, source: np.zeros(size, np.int64)  # noqa: E731
    monkeypatch.setattr("fl_server.review.helper.desk.discrete_gaussian", nothing)
    context = liar.bench.context(liar.plan)
    victim, (sybils, known) = liar.victim(context), liar.sybils(context, 29)
    share = liar.bench.share(liar.ask([victim, *sybils]))
    assert (unshield(victim.vector, share.residues() - known) == SECRET).all()


def test_asking_twice_gives_the_same_draw(liar: Liar) -> None:
    """Two draws of one sum would average: the noise of the mean of n answers falls by the root of n."""
    context = liar.bench.context(liar.plan)
    messages = [liar.victim(context), *liar.sybils(context, 29)[0]]
    first = liar.ask(messages)
    assert all(liar.ask(order) == first for order in (messages, messages[::-1], messages[7:] + messages[:7]))


def test_case_42_differencing_and_replays_get_nothing(liar: Liar) -> None:
    """With and without the victim, in another cohort, round, kind, model, length or plan: one share names it, ever."""
    context = liar.bench.context(liar.plan)
    victim, (sybils, _known) = liar.victim(context), liar.sybils(context, 33)
    first = liar.ask([victim, *sybils[:30]])
    assert liar.bench.share(first).phones == 31
    later = liar.bench.context(liar.plan, round=2)
    own = liar.sybils(later, 30)[0]
    tries: list[tuple[str, Signed]] = [
        ("batch", liar.ask(sybils[:30])),
        ("batch", liar.ask([victim, *sybils[:29]])),
        ("batch", liar.ask([victim, *sybils[:31]])),
        ("model", liar.ask([victim, *sybils[:30]], model_digest="cd" * 32)),
        ("model", liar.ask([victim, *sybils[:30]], dim=DIM - 1)),
        ("replayed", liar.ask([victim, *own], round=2)),
        ("replayed", liar.ask([victim, *own], kind="knots", round=0)),
        ("replayed", liar.ask([victim, *own], kind="evaluate", round=4)),
    ]
    liar.plan, honest = liar.bench.plan(noise_source="test-seeded", name="again"), liar.plan
    tries.append(("replayed", liar.ask([victim, *own])))
    liar.plan = honest
    for code, answer in tries:
        assert answer.domain == REFUSAL_DOMAIN and liar.bench.refusal(answer).code == code
    assert liar.ask([victim, *sybils[:30]]) == first  # and what it had it still has, once


def test_another_model_for_the_victim_alone_opens_nothing(liar: Liar) -> None:
    """The victim was sent a model of its own (Pasquini, CCS 2022): its seed names that one, the Sybils' the other."""
    context = liar.bench.context(liar.plan)
    victim = liar.victim(liar.bench.context(liar.plan, model_digest="cd" * 32))
    told = liar.bench.refusal(liar.ask([victim, *liar.sybils(context, 30)[0]]))
    assert told.code == "unopened" and len(told.messages) == 1


def test_the_victims_message_is_noise_without_the_helper(liar: Liar) -> None:
    """A vector lifted without its mask says nothing of the secret: 20 numbers of which none is near."""
    victim = liar.victim(liar.bench.context(liar.plan))
    assert np.abs(from_ring(victim.vector) - SECRET).min() > 1 << 16


def test_rounds_of_one_victim_have_independent_draws(liar: Liar) -> None:
    draws = []
    for round_ in (1, 2):
        context = liar.bench.context(liar.plan, round=round_)
        victim, (sybils, known) = liar.victim(context), liar.sybils(context, 29)
        share = liar.bench.share(liar.ask([victim, *sybils], round=round_))
        draws.append(SECRET - unshield(victim.vector, share.residues() - known))
    assert (draws[0] != draws[1]).all()
