"""Sampled phones' updates at each stage, as a simulation kept them: what a clipped update still shows (spec 11.7).

Everything here is simulation_only. A clipped update without noise *is* the record it came from: from the field a
reviewer sees the sum and charged figures, never this.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_server.review.evidence import Evidence
from fl_server.review.replay import Sum
from model.contract.releases import noise_sd
from model.errors import InputError, PolicyError

NAME = "archive/updates.npz"
MAX_BYTES = 1 << 30
QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class Stages:
    """One round: norms of all phones before clipping, and of the sampled ones at each stage; then the released sum.

    `raw`, `clipped`, `encoded` are (sample,) L2 norms in model units, `stretch` the cosine of raw and encoded;
    `sum_norm` and `noise_norm` are the norms of the noised sum and of the noise expected in it.
    """

    round: int
    phones: int
    norms: tuple[float, ...]
    clip_rate: float
    raw: tuple[float, ...]
    clipped: tuple[float, ...]
    encoded: tuple[float, ...]
    alignment: tuple[float, ...]
    sum_norm: float
    noise_norm: float


@dataclass(frozen=True)
class Updates:
    """All rounds, and how many phones have how many rows (`rows[k]` phones with k rows)."""

    clip: float
    rows: tuple[int, ...]
    rounds: tuple[Stages, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, tagged."""
        return {
            "simulation_only": True,
            "clip": self.clip,
            "rows": list(self.rows),
            "rounds": [dict(vars(stages)) for stages in self.rounds],
        }


def read(evidence: Evidence) -> Updates:
    """The sample of a run. PolicyError for a run that is no simulation, InputError where it kept no sample."""
    if not (evidence.folder / "plan.cbor").exists():
        raise InputError(f"{evidence.folder} holds no plan.cbor; name the folder of a whole run")
    if not evidence.plan.simulation:
        raise PolicyError("this run is no simulation, so single phones' updates may not be looked at; read the sums")
    path = evidence.folder / NAME
    if not path.exists() or path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path} is missing or too large; run the simulation again to keep a sample")
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in kept.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged ({error}); run the simulation again to keep a sample") from error
    clip, scale = evidence.plan.local.clip_norm, evidence.plan.privacy.grid_scale
    sums = {each.round: each for each in evidence.sums if each.kind == "train"}
    noise = noise_sd(evidence.plan, "train")
    rounds = tuple(
        _stages(number, arrays, sums[number], clip, scale, noise)
        for number in sorted(int(name.removeprefix("norms-")) for name in arrays if name.startswith("norms-"))
        if number in sums
    )
    return Updates(clip, tuple(int(count) for count in arrays.get("rows", np.zeros(0))), rounds)


def _stages(number: int, arrays: dict[str, NDArray[Any]], logged: Sum, clip: float, scale: int, noise: float) -> Stages:
    norms = np.asarray(arrays[f"norms-{number:04d}"], dtype=np.float64)
    raw = np.asarray(arrays.get(f"raw-{number:04d}", np.zeros((0, 1))), dtype=np.float64)
    encoded = np.asarray(arrays.get(f"encoded-{number:04d}", np.zeros((0, 1))), dtype=np.float64) / scale
    before, after = _norms(raw), _norms(encoded)
    dot = (raw * encoded).sum(axis=1) / np.maximum(before * after, 1e-300)
    return Stages(
        round=number,
        phones=logged.phones,
        norms=tuple(float(q) for q in np.quantile(norms, QUANTILES)) if len(norms) else (),
        clip_rate=float((norms > clip).mean()) if len(norms) else 0.0,
        raw=tuple(before.tolist()),
        clipped=tuple(np.minimum(before, clip).tolist()),
        encoded=tuple(after.tolist()),
        alignment=tuple(np.where(before > 0, dot, 1.0).tolist()),
        sum_norm=float(np.linalg.norm(logged.noised.astype(np.float64) / scale)),
        noise_norm=noise * float(np.sqrt(logged.noised.size)),
    )


def _norms(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.linalg.norm(rows, axis=1)
    return found
