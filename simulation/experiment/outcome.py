"""What training and release came to, before anyone is scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fl_server.app import Result
from model.contract.plan import TrainingPlan
from model.privacy.observers import Observers
from simulation.dataset import Dataset
from simulation.experiment.figures import Exact
from simulation.experiment.folder import RunFolder
from simulation.experiment.releasing import Released
from simulation.experiment.request import Request
from simulation.experiment.sources import Source
from simulation.experiment.training import Record


@dataclass(frozen=True)
class Outcome:
    """A trained, judged and perhaps released model, with all that it came from."""

    request: Request
    source: Source
    place: RunFolder
    plan: TrainingPlan
    result: Result
    record: Record
    watchers: Observers
    held: Dataset
    found: Exact
    released: Released
    now: int
    notes: tuple[str, ...]
    reach: dict[str, Any] | None = None
