"""The helper at work: one batch in, one signed share or one signed refusal out (spec 13.6).

Order of a share: judge → open the seeds and add their masks → reserve, durably → draw the noise → sign → keep → answer.
A release is answered once: the same batch again gets the same bytes, any other batch for it is refused.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from fl_server.review.helper import judge
from fl_server.review.helper.answers import NONE, Asked, entry, one_line, signed_refusal, signed_share
from fl_server.review.helper.home import HelperHome
from fl_server.review.helper.judge import Refused, Wanted
from fl_server.review.helper.records import Kept
from fl_server.review.helper.store import Store
from model.contract.envelope import MAX_SIGNED_BYTES, Signed
from model.contract.masked import BatchRequest, batch_digest, split_seeds
from model.contract.plan import TrainingPlan
from model.errors import ContractError
from model.privacy.noise import ByteSource, OsSource, SeededSource, discrete_gaussian
from model.secagg.context import Context
from model.secagg.fixedpoint import Ring
from model.secagg.two_server import Unopened, open_seeds, share_of

YEAR = 365 * 86_400
MAX_NUMBERS = (MAX_SIGNED_BYTES - 4096) // 4  # what a signed share holds beside its other fields


class HelperDesk:
    """The desk of one home, open in one process at a time; `clock` gives unix seconds. RunError where it is in use."""

    def __init__(self, home: HelperHome, *, clock: Callable[[], float] = time.time) -> None:
        self.home = home
        self._clock = clock
        self._guard = threading.Lock()
        self._store = Store(home.store, home.signing, int(clock()))

    def share(self, request: bytes) -> Signed:
        """The signed share (SHARE_DOMAIN) for a batch, or the signed refusal (REFUSAL_DOMAIN); both are in the log.

        RunError, and no answer at all, where the store cannot be written.
        """
        with self._guard:
            asked = Asked()
            try:
                batch = _read(request)
                seeds = split_seeds(batch.seeds)
                asked = Asked(_plan_digest(batch.plan), batch.kind, batch.round, batch_digest(seeds), len(seeds))
                return self._answer(batch, seeds, asked)
            except Refused as refused:
                return self._refuse(asked, refused)

    def head(self) -> bytes:
        """The signed head of the log, for whoever wants to hold the helper to it; empty before the first entry."""
        return self._store.head()

    def close(self) -> None:
        """Close the store and release its lock."""
        with self._guard:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _answer(self, batch: BatchRequest, seeds: list[bytes], asked: Asked) -> Signed:
        plan = judge.admit(batch.plan, self.home.trust, self.home.hpke.public_bytes.hex())
        want = judge.wanted(plan, batch.kind, batch.round)
        asked = replace(asked, plan_digest=plan.digest)
        before = self._store.find(plan.digest, batch.kind, batch.round)
        if before is not None:
            return self._again(before, batch, asked)
        source = self._source(plan, want)
        ids = [hashlib.sha256(seed).digest() for seed in seeds]
        self._judge(plan, want, ids)
        context = Context(plan.digest, batch.kind, batch.round, batch.model_digest, batch.dim)
        masks = self._open(seeds, context)
        kept = self._reserve(plan, want, batch, asked, ids)
        return self._draw(kept, want, masks, source, asked)

    def _judge(self, plan: TrainingPlan, want: Wanted, ids: list[bytes]) -> None:
        judge.require_batch(plan, want, ids)
        used = sorted(each.hex() for each in self._store.opened_before(ids))
        if used:
            raise Refused("replayed", f"{len(used)} messages were opened in an earlier batch; leave them out", used)
        judge.require_budget(plan, want, self._store.spent(plan.digest))
        since = int(self._clock()) - YEAR
        judge.require_yearly(plan, want, self._store.spent_since(plan.name, since), self.home.settings.yearly_epsilon)

    def _open(self, seeds: list[bytes], context: Context) -> Ring:
        try:
            return open_seeds(seeds, self.home.hpke, context)
        except Unopened as error:
            sentence = f"{len(error.messages)} of {len(seeds)} sealed seeds do not open for this sum; leave them out"
            raise Refused("unopened", sentence, sorted(error.messages)) from error

    def _reserve(self, plan: TrainingPlan, want: Wanted, batch: BatchRequest, asked: Asked, ids: list[bytes]) -> Kept:
        kept = Kept(
            plan_digest=plan.digest,
            plan_name=plan.name,
            delta=plan.privacy.delta,
            budget=plan.privacy.epsilon_budget,
            kind=batch.kind,
            round=batch.round,
            model_digest=batch.model_digest,
            dim=batch.dim,
            batch_digest=asked.batch_digest,
            phones=len(ids),
            charge=want.charge,
            reserved_at=int(self._clock()),
        )
        self._store.reserve(kept, ids, self._entry("reserved", asked))
        return kept

    def _draw(self, kept: Kept, want: Wanted, masks: Ring, source: ByteSource, asked: Asked) -> Signed:
        """Noise, signature, and both on disk before anybody sees them. Whatever ends this early leaves it void."""
        residues = share_of(masks, discrete_gaussian(want.sigma, kept.dim, source))
        signed = signed_share(self.home.signing, kept, want, residues)
        answer = signed.to_bytes()
        self._store.answered(kept, answer, self._entry("answered", asked, answer=signed.payload_digest))
        return signed

    def _again(self, before: Kept, batch: BatchRequest, asked: Asked) -> Signed:
        """A second request for a release: the first one's answer, if it is the same batch for the same model."""
        name = f"{before.kind} round {before.round}"
        if (batch.model_digest, batch.dim) != (before.model_digest, before.dim):
            raise Refused("model", f"{name} was asked for another model or length before; one model has one sum")
        if asked.batch_digest != before.batch_digest:
            raise Refused("batch", f"{name} had another batch before; a release has one batch, so none can be compared")
        if before.state != "answered":
            raise Refused("void", f"{name} was reserved and its noise is lost; it is void and never drawn again")
        signed = Signed.from_bytes(before.answer)
        self._store.note(self._entry("repeated", asked, answer=signed.payload_digest))
        return signed

    def _source(self, plan: TrainingPlan, want: Wanted) -> ByteSource:
        if plan.privacy.noise_source == "os":
            return OsSource()
        if not (plan.simulation and self.home.settings.allow_test_noise):
            raise Refused("noise", "the plan asks for seeded test noise, which protects nobody; plan the source os")
        return SeededSource(plan.seed, f"helper/{want.kind}", want.round)

    def _refuse(self, asked: Asked, refused: Refused) -> Signed:
        signed = signed_refusal(self.home.signing, asked, refused, int(self._clock()))
        told = {"code": refused.code, "sentence": one_line(str(refused)), "answer": signed.payload_digest}
        self._store.note(self._entry("refused", asked, **told))
        return signed

    def _entry(self, event: str, asked: Asked, **told: str) -> dict[str, Any]:
        return entry(event, asked, int(self._clock()), **told)


def _read(request: bytes) -> BatchRequest:
    try:
        batch = BatchRequest.from_bytes(request)
    except ContractError as error:
        raise Refused("malformed", f"the request is no batch: {error}") from error
    if batch.dim > MAX_NUMBERS:
        raise Refused(
            "malformed", f"a share of {batch.dim} numbers is too long to be signed; {MAX_NUMBERS} is the most"
        )
    return batch


def _plan_digest(envelope: bytes) -> str:
    """What the plan in an envelope calls itself, whoever signed it; zeros where there is none to read."""
    try:
        return Signed.from_bytes(envelope).payload_digest
    except ContractError:
        return NONE
