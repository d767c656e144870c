"""Closing a phase of mode `helper`: from masked answers to the sum under the helper's noise (spec 13.4, 13.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fl_server import rounds
from fl_server.checkpoint import Checkpoint
from fl_server.helper import HelperRefused, SecondServer
from fl_server.rounds import Phase
from fl_server.sieve import Counts, Sieve
from model.canonical import decode, encode
from model.contract.masked import BATCH_SCHEMA, MAX_BATCH_BYTES, BatchRequest, read_residues
from model.contract.plan import TrainingPlan
from model.contract.record import Record
from model.contract.releases import share_sigma
from model.contract.update import norm_bound
from model.errors import ContractError, RoundError, RunError
from model.privacy.mechanism import GaussianRelease
from model.secagg.room import require_no_wrap
from model.secagg.two_server import add, message_id, unshield


class Garbage(RoundError):
    """A sum that lies outside what its phones and the noise can reach: some answer was not what it claimed to be."""


@dataclass(frozen=True)
class Batch(Record):
    """The answers of a phase as they were put to the helper: counts, refusals, masked sum and request."""

    phones: int
    asked: int
    replied: int
    refused: tuple[str, ...]
    vector: bytes
    request: bytes

    @classmethod
    def of(cls, sieve: Sieve, plan: bytes) -> Self:
        """The batch of what a sieve kept."""
        kept = [sieve.kept[node] for node in sorted(sieve.kept)]
        seeds = b"".join(seed for counted in kept for seed in counted.seeds)
        phase = sieve.phase
        request = BatchRequest(BATCH_SCHEMA, plan, phase.round, phase.kind, sieve.model_digest, sieve.dim, seeds)
        total = add([counted.vector for counted in kept], sieve.dim).astype("<u4").tobytes()
        return cls(*sieve.counts, total, request.to_bytes())

    @property
    def counts(self) -> Counts:
        """What the release will say of these answers."""
        return self.phones, self.asked, self.replied, self.refused

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of `encode(to_dict())`; ContractError for a damaged one."""
        return cls.from_dict(decode(data, max_bytes=2 * MAX_BATCH_BYTES))


@dataclass(frozen=True)
class Shielded:
    """The coordinator's half of two servers, for one run."""

    plan: TrainingPlan
    signed: bytes
    second: SecondServer
    checkpoint: Checkpoint

    @classmethod
    def of(cls, plan: TrainingPlan, signed: bytes, second: SecondServer | None, checkpoint: Checkpoint) -> Self | None:
        """What a plan of mode helper needs, None for other modes; RunError where the helper is missing.

        RoundError for a masked plan whose sums could wrap.
        """
        require_no_wrap(plan)
        if plan.privacy.mode != "helper":
            return None
        if second is None:
            raise RunError("the plan is of mode helper and no helper was named; start one and name its address")
        return cls(plan, signed, second, checkpoint)

    def close(self, sieve: Sieve) -> NDArray[np.int64]:
        """The sum (d,) of a sieve's answers under the helper's noise; what the helper cannot open is left out.

        RoundError when the helper gives no share, `Garbage` when the sum cannot be one of honest answers.
        """
        ids = {message_id(seed): node for node, counted in sieve.kept.items() for seed in counted.seeds}
        while True:
            batch = Batch.of(sieve, self.signed)
            self.checkpoint.collected(sieve.phase, encode(batch.to_dict()))
            try:
                return self.lift(sieve.phase, batch)
            except HelperRefused as refused:
                why = "the helper cannot count its message; ask this node what it answered"
                if not sieve.leave_out(refused.refusal.messages, ids, why):
                    raise
                sieve.require_cohort()

    def kept(self, phase: Phase) -> Batch | None:
        """The batch that a run which ended early had put together; None where there is none."""
        data = self.checkpoint.batch(phase)
        try:
            return Batch.from_bytes(data) if data is not None else None
        except ContractError as error:
            raise RunError(f"the kept batch of {phase.name} is damaged ({error}); delete it to ask again") from error

    def lift(self, phase: Phase, batch: Batch) -> NDArray[np.int64]:
        """Ask for the share of a batch, subtract it, and check that what is left is a sum (d,) of honest answers."""
        request = BatchRequest.from_bytes(batch.request)
        charge = _charge(phase)
        try:
            share = self.second.share(
                request,
                self.plan.digest,
                noise_multiplier=charge.noise_multiplier,
                sigma=share_sigma(self.plan, charge),
            )
        except HelperRefused as refused:
            if refused.final:
                self.checkpoint.drawing(phase)  # nothing else can come of this phase: a resumed run voids it
            self.checkpoint.forget(phase.round)
            raise
        total = unshield(read_residues(batch.vector, request.dim), share.residues())
        require_reached(self.plan, phase, total, batch.phones, 1)
        return total


def require_reached(plan: TrainingPlan, phase: Phase, total: NDArray[np.int64], phones: int, noisy: int) -> None:
    """`Garbage` where a sum (d,) is longer than `phones` honest answers under the noise of `noisy` parties can be."""
    dim = len(total)
    clean = norm_bound(rounds.reach(plan, phase.kind), plan.privacy.grid_scale, dim, phones)
    bound = clean + rounds.noise_reach(plan, phase, noisy, dim)
    norm = float(np.linalg.norm(total.astype(np.float64)))
    if not norm <= bound:
        raise Garbage(
            f"the sum of {phase.name} has norm {norm:.3g}, over the {bound:.3g} that its {phones} phones can reach, so "
            "an answer in it was no answer; nothing is released"
        )


def _charge(phase: Phase) -> GaussianRelease:
    if phase.charge is None:
        raise RoundError(f"{phase.name} is not charged, and a helper adds masks under noise alone; plan a charge")
    return phase.charge
