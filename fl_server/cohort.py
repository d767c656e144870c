"""Who is asked in a round, and whether enough answered (spec 7.6)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from model.contract.plan import TrainingPlan
from model.errors import RoundError


def select(nodes: Iterable[int], plan: TrainingPlan, round_: int, participation: float) -> tuple[int, ...]:
    """The nodes asked in `round_`, ascending.

    Farms are all asked: each of their phones flips its own coin. In the field a node is a phone, and its coin is
    flipped here, by a hash of (plan, round, node): asking again asks the same phones, so a retry is no new sample.
    """
    every = sorted(set(nodes))
    if plan.topology == "farm" or participation >= 1.0:
        return tuple(every)
    return tuple(node for node in every if _coin(plan.digest, round_, node) < participation)


def _coin(plan_digest: str, round_: int, node: int) -> float:
    """Uniform in [0, 1) from a counter: SHA-256 of the plan, the round and the node."""
    hashed = hashlib.sha256(f"pocketscore/coin\0{plan_digest}\0{round_}\0{node}".encode()).digest()
    return int.from_bytes(hashed[:8], "little") / 2**64


def minimum(plan: TrainingPlan, population: int, participation: float) -> int:
    """Fewest phones a round may close with: the plan's minimum cohort, wherever the population allows as many.

    RoundError where even the expected cohort (asked × expected to answer) lies below it: such a plan must not start
    (case 21).
    """
    expected = population * participation * plan.response
    if expected < plan.min_cohort:
        raise RoundError(
            f"{expected:.0f} phones are expected in a round and the plan asks for at least {plan.min_cohort}; "
            "raise the participation or wait for more phones"
        )
    return plan.min_cohort


def require_cohort(phones: int, least: int, population: int, what: str, refused: Sequence[str] = ()) -> None:
    """RoundError, and nothing is released, when fewer than `least` or more than `population` phones answered.

    The first of the sentences `refused` is given as the reason.
    """
    if phones < least:
        why = f" (first refusal: {refused[0]})" if refused else ""
        raise RoundError(f"{what} has {phones} phones, below the minimum cohort of {least}; nothing was released{why}")
    if phones > population:
        raise RoundError(f"{what} counts {phones} phones where the plan knows {population}; find who counts twice")
