"""Phones for a run, made up or from a table, as one dataset on disk that farms and baselines share."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fl_server.keys import replace_file
from model.risk.metrics import auc
from simulation.dataset import Dataset, holdout_by_id, holdout_share
from simulation.experiment.folder import BLOCKS
from simulation.experiment.request import Progress, Request
from simulation.population.generate import PROTECTED_VALUES, Population
from simulation.population.rest import at_rest
from simulation.processors import processors
from simulation.table import read_table

ABOUT = "source.json"


@dataclass(frozen=True)
class Source:
    """A dataset, the privacy unit, and what only the maker of the phones knows (`oracle`: simulation_only)."""

    data: Dataset
    unit: str
    notes: tuple[str, ...] = ()
    oracle: float | None = None
    silo_column: str | None = None


def prepare(request: Request, folder: Path, progress: Progress) -> Source:
    """The source of `request`, read back from `folder` if an interrupted run left it there."""
    about = folder.with_name(ABOUT)
    if about.exists() and folder.exists():
        return _again(folder, about)
    blocks = folder.with_name(BLOCKS)
    made = _population(request, blocks, progress) if request.table is None else _table(request)
    shutil.rmtree(folder, ignore_errors=True)
    made.data.save(folder)
    facts = {"unit": made.unit, "notes": made.notes, "oracle": made.oracle, "silo_column": made.silo_column}
    replace_file(about, json.dumps(facts).encode())
    shutil.rmtree(blocks, ignore_errors=True)
    return _again(folder, about)


def population_of(request: Request) -> Population:
    """The made-up population of a request without a table."""
    return Population(seed=request.options.seed, phones=request.phones or 1, regime=request.regime)


def _again(folder: Path, about: Path) -> Source:
    facts = json.loads(about.read_text("utf-8"))
    return Source(Dataset.load(folder), facts["unit"], tuple(facts["notes"]), facts["oracle"], facts["silo_column"])


def _population(request: Request, blocks: Path, progress: Progress) -> Source:
    population = population_of(request)
    made = at_rest(population, blocks, processes(), lambda done: progress("phones", done, population.phones))
    held = holdout_by_id(made.ids, holdout_share(len(made.ids)), request.options.seed)
    protected = {name: np.array(PROTECTED_VALUES[name])[codes] for name, codes in made.protected.items()}
    data = Dataset(population.schema, made.ids, made.offsets, made.x, made.y, protected, held)
    of_held = np.repeat(held, np.diff(made.offsets))
    truth = made.y[of_held]
    oracle = auc(made.oracle_pd[of_held], truth) if 0 < truth.sum() < len(truth) else None
    return Source(data, "phone", (), oracle, "region")


def processes() -> int:
    """How many processes make phones: one a core this process may use, at least two."""
    return max(processors(), 2)


def _table(request: Request) -> Source:
    if request.table is None:
        raise ValueError("a request without a table has a population")
    table = read_table(request.table, split_seed=request.options.seed)
    return Source(table.dataset, table.unit, table.notes)
