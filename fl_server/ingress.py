"""The one door for what phones send: bytes in, typed results out, or one sentence that says why not (spec 13.14).

Nothing here believes a length it is told. Every form has one size, known from the plan before anything is allocated; an
array's header is compared with the only one that fits, never parsed; nothing is unpacked, unpickled or cast.
Flower has read the message by then: its own limits are those of its transport.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from flwr.app import Array, RecordDict
from numpy.typing import NDArray

from fl_server.schedule import Phase, noise_reach, reach
from model.canonical import decode
from model.contract.masked import SEED_BYTES, MaskedHeader, read_residues, split_seeds
from model.contract.plan import TrainingPlan
from model.contract.update import (
    TASK_SCHEMA,
    PartialHeader,
    TaskHeader,
    check_answer,
    check_vector,
    norm_bound,
    read_vector,
)
from model.errors import ContractError, UpdateError
from model.secagg.room import MASKED

MAX_HEADER_BYTES = 4096
MAX_SENTENCE = 300
_HEADER_FIELDS = 16
_UNMASKED, _UNDER_MASKS = "partial", "masked"
_PARTS = {_UNMASKED: {"header"}, _UNDER_MASKS: {"header", "seeds"}}
_FORMS = {_UNMASKED: ("int64", "<i8", 8), _UNDER_MASKS: ("uint32", "<u4", 4)}


@dataclass(frozen=True)
class Parts:
    """A reply taken apart and not yet believed: header, and little-endian numbers; under masks also sealed seeds."""

    header: bytes
    vector: bytes
    seeds: bytes | None = None


@dataclass(frozen=True)
class Plain:
    """An unmasked answer that may be added: grid units (d,) int64 of `phones` phones. It has no seeds."""

    phones: int
    vector: NDArray[np.int64]
    seeds: tuple[()] = ()


@dataclass(frozen=True)
class Masked:
    """A masked answer that may be added: residues (d,) uint32 of `phones` phones, with a sealed seed for each."""

    phones: int
    vector: NDArray[np.uint32]
    seeds: tuple[bytes, ...]


@dataclass(frozen=True)
class OpenSum:
    """The sum that is open: one phase of `plan`, `dim` numbers, asked about the model of `model_digest`."""

    plan: TrainingPlan
    phase: Phase
    dim: int
    model_digest: str

    @property
    def most_phones(self) -> int:
        """Phones that one node may answer for: one in the field."""
        return 1 if self.plan.topology == "field" else self.phase.population

    def bound(self, phones: int) -> float:
        """Largest L2 norm, in grid units, of an honest unmasked answer; in mode local with the phones' own noise."""
        clean = norm_bound(reach(self.plan, self.phase.kind), self.plan.privacy.grid_scale, self.dim, phones)
        if self.plan.privacy.mode != "local":
            return clean
        return clean + noise_reach(self.plan, self.phase, phones, self.dim)


def take_apart(content: RecordDict, open_sum: OpenSum) -> Parts:
    """The bytes of a Flower reply. ContractError for any other record, key, array form or size (cases 5–14)."""
    name = _UNDER_MASKS if _UNDER_MASKS in content else _UNMASKED
    if not has_only(content, {name: _PARTS[name]}, {"sum": {"sum"}}):
        raise ContractError("a reply has other parts than spec 7.9 names; use the same release on both sides")
    parts = content.config_records[name]
    header = only_bytes(parts["header"], "header", MAX_HEADER_BYTES)
    seeds = None
    if name == _UNDER_MASKS:
        seeds = only_bytes(parts["seeds"], "sealed seeds", SEED_BYTES * open_sum.most_phones)
    return Parts(header, _numbers(content.array_records["sum"]["sum"], open_sum.dim, *_FORMS[name]), seeds)


def read(parts: Parts, open_sum: OpenSum) -> Plain | Masked:
    """What may be added of a reply to the open sum. ContractError or UpdateError, in one sentence, for anything else.

    A plan that masks takes no unmasked answer; nor does one of the field, unless its phones add their own noise or it
    is a simulation (3.6.5).
    """
    mode = open_sum.plan.privacy.mode
    if mode == "helper":
        return _masked(parts, open_sum)
    if mode in MASKED:
        raise UpdateError(f"an answer came outside the steps of mode {mode}; discard it and answer step by step")
    return _plain(parts, open_sum)


def one_line(error: Exception) -> str:
    """An error's sentence as a record keeps it: printable, and no longer than MAX_SENTENCE whatever it quotes."""
    text = "".join(c if c.isprintable() else " " for c in str(error)[: MAX_SENTENCE + 1])
    return text if len(text) <= MAX_SENTENCE else text[: MAX_SENTENCE - 1] + "…"


def flat_map(data: bytes, max_bytes: int) -> dict[str, Any]:
    """A canonical map of a few plain values, which is all that a header is; ContractError for anything else."""
    raw = decode(data, max_bytes=max_bytes, max_depth=1, max_items=2 * _HEADER_FIELDS)
    if not isinstance(raw, dict):
        raise ContractError("a header is not a map; use the same release on both sides")
    return raw


def _plain(parts: Parts, open_sum: OpenSum) -> Plain:
    plan = open_sum.plan
    if parts.seeds is not None:
        raise UpdateError(f"a masked answer came under a plan of mode {plan.privacy.mode}; send it unmasked")
    if plan.topology == "field" and plan.privacy.mode != "local" and not plan.simulation:
        raise UpdateError("an unmasked answer came from the field; discard it and run a plan of mode helper")
    header = PartialHeader.from_dict(flat_map(parts.header, MAX_HEADER_BYTES))
    _check_place(header, open_sum)
    vector = read_vector(parts.vector, open_sum.dim)
    return Plain(header.phones, check_vector(vector, open_sum.dim, open_sum.bound(header.phones)))


def _masked(parts: Parts, open_sum: OpenSum) -> Masked:
    if parts.seeds is None:
        raise UpdateError("an answer came without a mask under a plan of mode helper; discard it and mask the next")
    header = MaskedHeader.from_dict(flat_map(parts.header, MAX_HEADER_BYTES))
    _check_place(header.counted(), open_sum)
    if header.model_digest != open_sum.model_digest:
        raise UpdateError("the answer is about another model than this round sent; find out who sent that one")
    count = len(parts.seeds) // SEED_BYTES
    if count != header.phones:
        raise UpdateError(f"{count} sealed seeds came for {header.phones} phones; send one a phone")
    vector = read_residues(parts.vector, open_sum.dim)
    if not count and vector.any():
        raise UpdateError("an answer of no phones is not zero; send zeros where nobody takes part")
    return Masked(header.phones, vector, tuple(split_seeds(parts.seeds)))


def _check_place(header: PartialHeader, open_sum: OpenSum) -> None:
    plan, phase = open_sum.plan, open_sum.phase
    task = TaskHeader(TASK_SCHEMA, plan.digest, phase.round, phase.kind)
    check_answer(task, header, dim=open_sum.dim, max_phones=phase.population, field=plan.topology == "field")


def has_only(content: RecordDict, configs: Mapping[str, set[str]], arrays: Mapping[str, set[str]]) -> bool:
    """Whether the records are exactly these with exactly these keys; counted before any set of them is made."""
    expected = {**configs, **arrays}
    if len(content) != len(expected) or any(len(content.get(name, ())) != len(expected[name]) for name in expected):
        return False
    held = {name: set(record) for name, record in content.config_records.items()}
    stacked = {name: set(record) for name, record in content.array_records.items()}
    return (held, stacked) == (configs, arrays)


def only_bytes(value: object, what: str, most: int) -> bytes:
    """`value` if it is bytes, at most so many; ContractError otherwise."""
    if not isinstance(value, bytes):
        raise ContractError(f"a reply's {what} must be bytes; use the same release on both sides")
    if len(value) > most:
        raise ContractError(f"a reply's {what} of {len(value)} bytes exceed the {most} that fit the plan; send fewer")
    return value


def _numbers(array: Array, dim: int, dtype: str, descr: str, width: int) -> bytes:
    """The body of the one .npy file that holds `dim` such numbers: its header is compared, its length is known."""
    head, data = _npy_header(dim, descr), array.data
    named = (array.stype, array.dtype, tuple(array.shape)[:2]) == ("numpy.ndarray", dtype, (dim,))
    if not (named and len(data) == len(head) + width * dim and data.startswith(head)):
        raise ContractError(f"a sum is not one vector of {dim} {descr!r} numbers in {width * dim} bytes; encode it so")
    return data[len(head) :]


@lru_cache(maxsize=16)
def _npy_header(dim: int, descr: str) -> bytes:
    buffer = io.BytesIO()
    shape = {"descr": descr, "fortran_order": False, "shape": (dim,)}
    np.lib.format.write_array_header_1_0(buffer, shape)
    return buffer.getvalue()
