"""What may leave a phone in training: a task's header, the partial's header and its vector (spec 3.2)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.contract.record import Record, require
from model.errors import UpdateError

TASK_SCHEMA = "pocketscore.task/1"
PARTIAL_SCHEMA = "pocketscore.partial/1"
KINDS = ("knots", "train", "calibrate", "evaluate")
DTYPE = "<i8"
MAX_DIM = 1 << 20
MAX_PHONES = 1 << 40
_HEX64 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class TaskHeader(Record):
    """What the coordinator asks: one `kind` of sum in one `round` (0 … ) of the plan with `plan_digest`."""

    schema: str
    plan_digest: str
    round: int
    kind: str

    def check(self) -> None:
        """ContractError for another schema or kind, a negative round, or a digest that is none."""
        require(self.schema == TASK_SCHEMA, f"a task has schema {self.schema!r}, not {TASK_SCHEMA!r}; update one side")
        _check_place(self.plan_digest, self.round, self.kind)


@dataclass(frozen=True)
class PartialHeader(Record):
    """What a node answers: its `phones` (1 in the field) summed into one vector of `dim` integers.

    There is no weight: each phone counts once, and a message that names one is refused (case 14).
    """

    schema: str
    plan_digest: str
    round: int
    kind: str
    phones: int
    dim: int

    def check(self) -> None:
        """ContractError for a value out of its range."""
        require(self.schema == PARTIAL_SCHEMA, f"a partial has schema {self.schema!r}; use {PARTIAL_SCHEMA!r}")
        _check_place(self.plan_digest, self.round, self.kind)
        require(0 <= self.phones <= MAX_PHONES, f"a partial counts {self.phones} phones; send 0 or more")
        require(1 <= self.dim <= MAX_DIM, f"a partial has dimension {self.dim}, outside 1 to {MAX_DIM}; send it again")


def check_answer(task: TaskHeader, partial: PartialHeader, *, dim: int, max_phones: int, field: bool) -> None:
    """UpdateError unless `partial` answers `task`: same plan, round and kind, `dim` numbers, phones as assigned.

    `field` is the plan's topology: there a message carries exactly one phone.
    """
    if (partial.plan_digest, partial.round, partial.kind) != (task.plan_digest, task.round, task.kind):
        raise UpdateError(
            f"a partial for {partial.kind} round {partial.round} came while {task.kind} round {task.round} is open "
            "under this plan; fetch the current task"
        )
    if partial.dim != dim:
        raise UpdateError(f"a partial has {partial.dim} numbers where the plan has {dim}; fetch the current task")
    if partial.phones > max_phones or (field and partial.phones != 1):
        raise UpdateError(f"a partial counts {partial.phones} phones, not the {1 if field else max_phones} assigned")


def read_vector(data: bytes, dim: int) -> NDArray[np.int64]:
    """`dim` little-endian 64-bit integers from exactly 8·dim bytes, shape (dim,); UpdateError otherwise."""
    if not 1 <= dim <= MAX_DIM or len(data) != 8 * dim:
        raise UpdateError(f"an update of {len(data)} bytes is not {dim} 64-bit integers; send it again")
    return np.frombuffer(data, dtype=DTYPE).astype(np.int64, copy=False)


def check_vector(vector: Any, dim: int, bound: float) -> NDArray[np.int64]:
    """`vector` if it is an array of '<i8', shape (dim,), and L2 norm at most `bound` (grid steps); UpdateError else.

    All zeros pass. Nothing is cast or broadcast: floats (and so NaN), objects, other byte orders, and
    shapes (1,) or (dim, 1) are refused. `bound` is (phones × clip on the grid), see spec 3.2.4.
    """
    if not isinstance(vector, np.ndarray) or vector.dtype.str != DTYPE:
        kind = vector.dtype.str if isinstance(vector, np.ndarray) else type(vector).__name__
        raise UpdateError(f"an update is of type {kind}, not {DTYPE}; encode it on the plan's grid")
    if vector.shape != (dim,):
        raise UpdateError(f"an update has shape {vector.shape}, not ({dim},); fetch the current task")
    norm = float(np.linalg.norm(vector.astype(np.float64)))
    if not norm <= bound:
        raise UpdateError(f"an update has norm {norm:.6g} over its bound {bound:.6g}; clip it before it is sent")
    return vector


def norm_bound(sensitivity: float, scale: int, dim: int, phones: int) -> float:
    """Largest L2 norm, in grid steps, of a sum of `phones` vectors, each of norm ≤ sensitivity before rounding.

    Rounding to the grid moves each of `dim` numbers by at most half a step.
    """
    return phones * (sensitivity * scale + math.sqrt(dim) / 2)


def _check_place(plan_digest: str, round_: int, kind: str) -> None:
    require(bool(_HEX64.fullmatch(plan_digest)), "a header's plan digest is not 64 hex characters; send it again")
    require(0 <= round_ < 1 << 31, f"round {round_} is outside its range; send it again")
    require(kind in KINDS, f"the kind {kind!r} is none of {', '.join(KINDS)}; update one side")
