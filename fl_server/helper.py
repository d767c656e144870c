"""The second server as the coordinator knows it: one question a sum, one signed share or one signed refusal (13.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fl_server.keys import replace_file
from model.contract.envelope import Signed, verify
from model.contract.masked import (
    MAX_BATCH_BYTES,
    REFUSAL_DOMAIN,
    SEED_BYTES,
    SHARE_DOMAIN,
    BatchRequest,
    Refusal,
    Share,
    batch_digest,
    split_seeds,
)
from model.errors import ContractError, RoundError

# Codes after which no batch of this release will ever get a share.
FINAL = ("batch", "model", "void")


class Helper(Protocol):
    """The helper, in this process or behind HTTPS."""

    def share(self, request: BatchRequest) -> Signed:
        """Its signed share or refusal (which may come as `HelperRefused`); RoundError where it cannot be reached.

        The same batch gets the same answer.
        """
        ...


@dataclass(frozen=True)
class Beside:
    """A helper in this process, such as `HelperDesk.share`: bytes in, signed answer out."""

    answer: Callable[[bytes], Signed]

    def share(self, request: BatchRequest) -> Signed:
        """What it answers."""
        return self.answer(request.to_bytes())


class HelperRefused(RoundError):
    """The helper's signed no. `refusal` has the code and the messages to leave out before asking again, if any."""

    def __init__(self, refusal: Refusal, signed: Signed) -> None:
        super().__init__(f"the helper refused {refusal.kind} round {refusal.round}: {refusal.sentence}")
        self.refusal, self.signed = refusal, signed

    @property
    def final(self) -> bool:
        """Whether no batch of this release will ever get a share."""
        return self.refusal.code in FINAL


@dataclass(frozen=True)
class SecondServer:
    """A helper, the keys whose signature its answers need (key id → public bytes), and where refusals are kept."""

    helper: Helper
    keyring: Mapping[str, bytes]
    log: Path

    def share(self, request: BatchRequest, plan_digest: str, *, noise_multiplier: float, sigma: int) -> Share:
        """The share of exactly this batch under exactly this noise.

        `HelperRefused` for a refusal, which is written to the log first; RoundError for an answer that is malformed,
        not the helper's, or to another question.
        """
        if len(request.seeds) + len(request.plan) + 4096 > MAX_BATCH_BYTES:
            raise RoundError("a batch is over the helper's limit of 16 MiB; ask fewer phones in a round")
        share, batch = self._answer(request), batch_digest(split_seeds(request.seeds))
        place = (share.plan_digest, share.round, share.kind, share.model_digest, share.dim)
        wanted = (plan_digest, request.round, request.kind, request.model_digest, request.dim)
        if place != wanted or (share.batch_digest, share.phones) != (batch, len(request.seeds) // SEED_BYTES):
            raise RoundError("the helper answered another batch than it was asked; check that it serves this run")
        if (share.noise_multiplier, share.sigma) != (noise_multiplier, sigma):
            raise RoundError(f"the helper's noise is {share.sigma} grid units, not the plan's {sigma}; stop the run")
        return share

    def _answer(self, request: BatchRequest) -> Share:
        try:
            signed = self.helper.share(request)
            if signed.domain == REFUSAL_DOMAIN:
                raise HelperRefused(Refusal.from_dict(verify(signed, REFUSAL_DOMAIN, self.keyring)), signed)
            return Share.from_dict(verify(signed, SHARE_DOMAIN, self.keyring))
        except ContractError as error:
            raise RoundError(f"the helper's answer is refused: {error}") from error
        except HelperRefused as refused:
            self._keep(refused.signed, refused.refusal)
            raise

    def _keep(self, signed: Signed, refusal: Refusal) -> None:
        try:
            self.log.mkdir(parents=True, exist_ok=True)
            name = f"refusal-{refusal.round:05d}-{signed.payload_digest[:16]}.cbor"
            replace_file(self.log / name, signed.to_bytes())
        except OSError as error:
            raise RoundError(f"{self.log} cannot keep the helper's refusal ({error.strerror}); free space") from error
