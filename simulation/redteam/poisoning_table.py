"""Many poisoned trainings, seed by seed, and what they come to: AUC lost, backdoors, alarms (spec 13.13)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from simulation.dataset import Dataset
from simulation.engine.protocol import Engine
from simulation.redteam.poisoning import train
from simulation.redteam.poisoning_attacks import NONE, attack_of
from simulation.redteam.poisoning_scenes import Setting, scene

Progress = Callable[[int, int], None]
Load = Callable[[int], Dataset]
GATE = 0.02  # most AUC that phones which respect the clip may cost at a tenth of them
GATED = ("sign-flip", "label-flip", "alie", "ipm-10")


@dataclass(frozen=True)
class Cell:
    """One line of a table: how phones train, what the hostile ones do, and how many they are (0: one phone)."""

    setting: Setting
    attack: str
    share: float


@dataclass(frozen=True)
class Run:
    """One training of a cell. See `poisoning.Outcome`."""

    cell: Cell
    seed: int
    phones: int
    auc: float | None
    success: float | None
    hostile: int
    impossible: int
    unusual: int
    growth: float
    pull: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the cell's beside the figures."""
        raw = asdict(self)
        cell = raw.pop("cell")
        setting = {f"of_{name}" if name == "phones" else name: value for name, value in cell.pop("setting").items()}
        return {**setting, **cell, **raw}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Run:
        """Inverse of `to_dict`."""
        rest = dict(raw)
        given = {name: rest.pop(f"of_{name}" if name == "phones" else name) for name in Setting.__dataclass_fields__}
        setting = Setting(**given)
        return cls(Cell(setting, rest.pop("attack"), rest.pop("share")), **rest)


@dataclass(frozen=True)
class Line:
    """A cell's figures over seeds: mean and sample sd; `loss` is paired with the same seed's training without attack
    under the same setting. `flagged`: share of rounds with an impossible norm, `odd`: with an unusual one; `pull`: the
    mean over seeds."""

    cell: Cell
    runs: int
    phones: int
    auc: float
    auc_sd: float
    loss: float
    loss_sd: float
    success: float
    success_sd: float
    flagged: float
    odd: float
    growth: float
    pull: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values only."""
        return asdict(self)


def cells(setting: Setting, attacks: Iterable[str], shares: Sequence[float]) -> list[Cell]:
    """Every attack at every share under a setting, and the training without attack first."""
    return [Cell(setting, NONE.name, 0.0), *(Cell(setting, attack, share) for attack in attacks for share in shares)]


def sweep(
    load: Load,
    wanted: Sequence[Cell],
    seeds: Sequence[int],
    engine: Engine,
    progress: Progress = lambda done, total: None,
) -> Iterator[Run]:
    """Every cell under every seed: `load` gives a seed's split of the data; scenes are made once a seed."""
    total = len(wanted) * len(seeds)
    done = 0
    for seed in seeds:
        data, before = load(seed), None
        for cell in wanted:
            if before is None or before[0] != cell.setting:
                before = (cell.setting, scene(data, cell.setting, seed))
            found = train(before[1], attack_of(cell.attack), cell.share, seed, engine)
            done += 1
            progress(done, total)
            yield Run(cell, seed, before[1].train.phones, **asdict(found))


def lines(runs: Sequence[Run]) -> list[Line]:
    """A line a cell, in the order in which cells first appear. A model that left the finite numbers counts as .5."""
    by_cell: dict[Cell, list[Run]] = {}
    for run in runs:
        by_cell.setdefault(run.cell, []).append(run)
    clean = {(run.cell.setting, run.seed): _area(run) for run in runs if run.cell.attack == NONE.name}
    return [_line(cell, mine, clean) for cell, mine in by_cell.items()]


def missed(found: Sequence[Line], share: float = 0.1) -> list[Line]:
    """Lines that cost more than the gate allows: attacks that respect the clip, at this share, under the plain mean."""
    return [
        line
        for line in found
        if line.cell.attack in GATED
        and line.cell.setting.rule == "mean"
        and line.cell.share == share
        and line.loss > GATE
    ]


def _line(cell: Cell, runs: Sequence[Run], clean: dict[tuple[Setting, int], float]) -> Line:
    areas = np.array([_area(run) for run in runs])
    losses = np.array([clean.get((cell.setting, run.seed), np.nan) - _area(run) for run in runs])
    successes = np.array([np.nan if run.success is None else run.success for run in runs])
    rounds = cell.setting.rounds * len(runs)
    return Line(
        cell,
        len(runs),
        runs[0].phones,
        *_spread(areas),
        *_spread(losses),
        *_spread(successes),
        sum(run.impossible for run in runs) / rounds,
        sum(run.unusual for run in runs) / rounds,
        max(run.growth for run in runs),
        float(np.mean([run.pull for run in runs])),
    )


def _area(run: Run) -> float:
    return 0.5 if run.auc is None else run.auc


def _spread(values: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0
