"""Rounds by the compiled kernel: a `Problem`'s arrays handed over as they lie, one call, one sum (spec 7.8)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_client.phones import Task
from model.errors import RoundError, RunError, UpdateError
from simulation.engine.inputs import problem_of
from simulation.engine.native.library import ISAS, Additive, Answer, Library, Local, Mlp, Phones, library
from simulation.engine.problem import Columns, Dense, Hats, Problem
from simulation.engine.protocol import Crowd, Trained
from simulation.processors import default_threads

Array = NDArray[Any]
MAX_FEATURES = 1 << 16


class NativeEngine:
    """All phones in one call. `isa` 0 baseline, 1 AVX2, 2 AVX-512; None is the best this processor has.

    RunError without the library, or for an instruction set the processor lacks.
    """

    name = "native"

    def __init__(self, threads: int | None = None, isa: int | None = None) -> None:
        self.library: Library = library()
        self.threads = threads or default_threads()
        self.isa = self.library.best_isa if isa is None else isa
        if not 0 <= self.isa <= self.library.best_isa:
            raise RunError(f"this processor has no instruction set {self.isa}; choose 0 to {self.library.best_isa}")

    def __str__(self) -> str:
        return f"{ISAS[self.isa]}, {self.threads} thread{'s' * (self.threads != 1)}"

    def train(self, crowd: Crowd, task: Task, sample: int = 0) -> Trained:
        """Sum of encoded updates; see `Engine.train`."""
        return self.solve(problem_of(crowd, task), sample)

    def solve(self, problem: Problem, sample: int = 0) -> Trained:
        """One round. UpdateError where an update is not finite, RoundError where the parts do not fit."""
        phones, d = len(problem.ids), len(problem.flat)
        shape = (min(sample, phones), d)
        total, norms = np.zeros(d, dtype=np.int64), np.zeros(phones)
        raw, units = np.zeros(shape), np.zeros(shape, dtype=np.int64)
        kept = {"sum": total, "norms": norms, "raw": raw, "units": units}
        self._run(problem, problem.scale, Answer(sample=shape[0], **_addresses(kept)))
        return Trained(total, norms, raw, units)

    def plain(self, problem: Problem) -> NDArray[np.float64]:
        """Sum of raw updates (d,), neither clipped nor on the grid: what privacy costs is measured against it."""
        total = np.zeros(len(problem.flat))
        self._run(problem, 0, Answer(plain=total.ctypes.data))
        return total

    def _run(self, problem: Problem, scale: int, answer: Answer) -> None:
        local = problem.local
        asked = Local(
            steps=local.local_steps,
            epochs=local.local_epochs,
            batch=local.batch_size,
            rate=local.learning_rate,
            prox=local.prox,
            clip=local.clip_norm,
            scale=scale,
            seed=problem.seed,
            round=problem.round,
        )
        who = {
            "ids": _as(problem.ids, np.uint64),
            "first": _as(problem.first, np.int64),
            "counts": _as(problem.counts, np.int64),
            "y": _as(problem.y, np.float32),
        }
        phones = Phones(count=len(problem.ids), rows=len(problem.y), **_addresses(who))
        arrays, numbers = _parts(problem)
        make = Mlp if problem.hidden else Additive
        model = make(**numbers, **_addresses(arrays))
        status = self.library.call(phones, asked, model, answer, self.threads, self.isa)
        _refuse(status, answer.failed)


def _parts(problem: Problem) -> tuple[dict[str, Array], dict[str, float]]:
    """A model's arrays and numbers by their names in round.hpp. RoundError unless every length agrees."""
    rows, flat = problem.rows, _as(problem.flat, np.float32)
    if isinstance(rows, Hats):
        arrays, numbers = _hats(rows)
    else:
        arrays, numbers = _dense(rows) if isinstance(rows, Dense) else _columns(rows)
        sizes = np.array([rows.width, *problem.hidden, 1], dtype=np.int32)
        arrays["sizes"] = sizes
        numbers |= {"width": rows.width, "layers": len(sizes) - 1}
    return arrays | {"flat": flat}, numbers | {"dimension": len(flat)}


def _dense(rows: Dense) -> tuple[dict[str, Array], dict[str, float]]:
    _need(rows.x.ndim == 2)
    return {"x": _as(rows.x, np.float32)}, {}


def _columns(rows: Columns) -> tuple[dict[str, Array], dict[str, float]]:
    arrays, numbers = _codes(rows.codes)
    arrays |= {
        "feature": _as(rows.feature, np.int32),
        "table": _as(rows.table, np.int64),
        "values": _as(rows.values, np.float32),
    }
    _need(arrays["feature"].shape == arrays["table"].shape == (rows.width,) and arrays["values"].ndim == 1)
    return arrays, numbers | {"value_count": len(rows.values)}


def _hats(rows: Hats) -> tuple[dict[str, Array], dict[str, float]]:
    arrays, numbers = _codes(rows.codes)
    features, levels = int(numbers["features"]), len(rows.hat)
    sizes = _as(rows.sizes, np.int32)
    weights = {"low": rows.low, "high": rows.high, "flag": rows.flag}
    arrays |= {name: _as(values, np.float32) for name, values in weights.items()}
    arrays |= {"start": _as(rows.start, np.int64), "hat": _as(rows.hat, np.int32), "sizes": sizes}
    arrays |= {"centre": _as(rows.centre, np.float64)}
    _need(all(arrays[name].shape == (levels,) for name in ("hat", *weights)))
    _need(arrays["start"].shape == sizes.shape == (features,) and len(rows.blocks) == features)
    _need(all(block.shape == (size + 1, size + 1) for block, size in zip(rows.blocks, sizes.tolist(), strict=True)))
    _need(arrays["centre"].shape == (int(sizes.sum()) + features,))
    arrays["blocks"] = np.concatenate([_as(block, np.float64).reshape(-1) for block in rows.blocks])
    return arrays, numbers | {"levels": levels, "bias": rows.bias}


def _codes(codes: Array) -> tuple[dict[str, Array], dict[str, float]]:
    _need(codes.ndim == 2 and 0 < codes.shape[1] <= MAX_FEATURES and codes.dtype in (np.uint8, np.uint16, np.uint32))
    laid = np.ascontiguousarray(codes)
    return {"codes": laid}, {"code_bytes": laid.itemsize, "features": laid.shape[1]}


def _need(fits: bool) -> None:
    if not fits:
        raise RoundError("the tables of a round do not fit one another; prepare the rows again")


def _as(values: Any, dtype: Any) -> Array:
    return np.ascontiguousarray(values, dtype=dtype)


def _addresses(arrays: dict[str, Array]) -> dict[str, int]:
    # Not `.ctypes.data`: that builds an object for each of a dozen arrays, a twentieth of a round of a hundred phones.
    return {name: values.__array_interface__["data"][0] for name, values in arrays.items()}


def _refuse(status: int, failed: int) -> None:
    if status == 1:
        raise UpdateError(f"the update of phone {failed} holds NaN or infinity; lower the local learning rate")
    if status == 2:
        raise RoundError("a code, a row or a table of this round lies outside its bounds; prepare the rows again")
    if status:
        raise RunError("the compiled kernel found no memory for this round; take fewer threads or a smaller model")
