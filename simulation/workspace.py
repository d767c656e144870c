"""The folder a simulated federation lives in: dataset, signed plan, trusted keys, releases (spec 7.11).

Flower runs server and nodes as processes that share nothing but a path, so everything they need lies in one folder:
`data/` (memory-mapped), `plan.cbor` (signed), `trust.cbor` (public keys), `releases/`, `ledger.jsonl`,
`simulation_only/` (norms, samples and who was reached, written by farms, never sent), `attendance.json` (who answers;
absent where everybody does), `result.cbor`, or `failure` with why there is none. Where a plan is of mode helper, the
helper's home or address lies beside the folder (`simulation.second`) and what it refused in `refusals/`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fl_client.app import Trust
from fl_client.phones import Task
from fl_server.helper import SecondServer
from model.canonical import decode, encode
from model.contract.envelope import Signed, SigningKey, sign
from model.contract.plan import DOMAIN, TrainingPlan
from model.errors import RunError
from simulation.attendance import Virtual
from simulation.dataset import Dataset
from simulation.engine.choice import choose
from simulation.engine.protocol import Engine, Trained
from simulation.farm import Farm
from simulation.seat import WitnessHome
from simulation.second import Second

ATTENDANCE = "attendance.json"
NORMS_KEPT = 16_384  # a farm and round: a quantile of them is known to half a percent


@dataclass(frozen=True)
class Workspace:
    """Paths under one folder, and the objects they hold."""

    folder: Path

    @property
    def releases(self) -> Path:
        """Where the coordinator's checkpoint lies."""
        return self.folder / "releases"

    @property
    def ledger(self) -> Path:
        """The ε ledger."""
        return self.folder / "ledger.jsonl"

    @property
    def result(self) -> Path:
        """The released model, once the run is complete."""
        return self.folder / "result.cbor"

    @property
    def failure(self) -> Path:
        """Why the coordinator ended without a result, one sentence; absent where it has not."""
        return self.folder / "failure"

    @property
    def second(self) -> Second:
        """The helper of this workspace, in this process or another."""
        return Second(self.folder)

    @property
    def helper(self) -> Path:
        """The home of the helper in this process: beside the folder, for it outlives the federation."""
        return self.second.home

    def helper_key(self) -> str:
        """The helper's public key in hex, for the plan."""
        return self.second.key()

    @contextmanager
    def second_server(self, plan: TrainingPlan) -> Iterator[SecondServer | None]:
        """The helper of a plan of mode helper, ready to be asked; None for other modes."""
        if plan.privacy.mode != "helper":
            yield None
            return
        with self.second.open() as server:
            yield server

    @property
    def witness(self) -> WitnessHome:
        """The witness of a plan of mode pairwise."""
        return WitnessHome(self.folder)

    @property
    def expected_nodes(self) -> int:
        """How many nodes the coordinator waits for before it asks the first question."""
        path = self.folder / "nodes"
        return int(path.read_text()) if path.exists() else 1

    def expect(self, nodes: int) -> None:
        """Let the coordinator wait for this many nodes."""
        (self.folder / "nodes").write_text(str(nodes))

    @property
    def engine(self) -> str:
        """The engine that was asked for; "auto" where none was."""
        path = self.folder / "engine"
        return path.read_text("utf-8") if path.exists() else "auto"

    def take_engine(self, name: str) -> None:
        """Let every farm, in whatever process, train by this engine. RunError where it is not to be had."""
        choose(name)
        (self.folder / "engine").write_text(name, "utf-8")

    def prepare(
        self, data: Dataset, plan: TrainingPlan, keys: Sequence[SigningKey], attendance: Virtual | None = None
    ) -> None:
        """Save the dataset unless it is there; sign the plan by `keys` (coordinator, reviewer); note whom to trust.

        `attendance` says which phones answer in time; None: all of them. A helper in this process is told whose
        signatures to trust; RunError where the plan names another helper than `helper_key`.
        """
        if plan.privacy.mode == "helper":
            if plan.privacy.helper_key != self.helper_key():
                raise RunError("the plan names another helper than this workspace has; plan with its helper_key")
            self.second.trusting({"coordinator": keys[0].public_bytes, "reviewer": keys[1].public_bytes})
        if plan.privacy.mode == "pairwise":
            self.witness.take(keys[1])
        if not (self.folder / "data").exists():
            data.save(self.folder / "data")
        (self.folder / "plan.cbor").write_bytes(sign(DOMAIN, plan.to_dict(), keys).to_bytes())
        if attendance is not None:
            (self.folder / ATTENDANCE).write_text(json.dumps(attendance.to_dict()), "utf-8")
        (self.folder / "trust.cbor").write_bytes(encode({key.keyid: key.public_bytes for key in keys}))

    def signed(self) -> Signed:
        """The signed plan."""
        return Signed.from_bytes(self._bytes("plan.cbor"))

    def trust(self) -> Trust:
        """The keys whose signatures, all of them, nodes ask for."""
        keyring = decode(self._bytes("trust.cbor"))
        return Trust(keyring, tuple(sorted(keyring)), self.witness.public())

    def farm(self, index: int, count: int, *, engine: Engine | None = None, sample: int = 0) -> Farm:
        """The `index`-th of `count` farms, writing what only a simulation may show beside the data."""
        data = Dataset.load(self.folder / "data").part(index, count)
        shown = self.folder / "simulation_only"
        observer, teller = RecordTraining(shown, index), RecordAttendance(shown, index)
        return Farm(data, engine or choose(self.engine)[0], observer, sample, self.attendance(), teller, count == 1)

    def attendance(self) -> Virtual | None:
        """Who answers in time; None where everybody does."""
        path = self.folder / ATTENDANCE
        return Virtual.from_dict(json.loads(self._bytes(ATTENDANCE))) if path.exists() else None

    def _bytes(self, name: str) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except OSError as error:
            raise RunError(f"{self.folder} has no readable {name}; prepare the workspace first") from error


def spread(values: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """`most` of the values (P,) at most, at even distances."""
    return values if len(values) <= most else values[np.arange(most) * len(values) // most]


@dataclass(frozen=True)
class RecordTraining:
    """`simulation_only` figures of a farm, one .npz a round: norms of NORMS_KEPT phones at most, at even distances
    among those that took part, and the first phones' raw and encoded updates."""

    folder: Path
    index: int

    def __call__(self, task: Task, trained: Trained) -> None:
        """Write round `task.round`; the file appears by rename."""
        _require_simulation(task)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"round-{task.round:05d}-farm-{self.index:04d}.npz"
        temporary = path.with_name(f".{path.name}")
        with open(temporary, "wb") as file:
            np.savez(
                file, norms=spread(trained.norms, NORMS_KEPT).astype(np.float32), raw=trained.raw, units=trained.units
            )
        os.replace(temporary, path)


@dataclass(frozen=True)
class RecordAttendance:
    """`simulation_only`: how many of a farm's phones met which fate, one .json a round."""

    folder: Path
    index: int

    def __call__(self, task: Task, tally: Mapping[str, int]) -> None:
        """Write round `task.round`; the file appears by rename."""
        _require_simulation(task)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"attendance-{task.round:05d}-farm-{self.index:04d}.json"
        temporary = path.with_name(f".{path.name}")
        temporary.write_text(json.dumps({"kind": task.kind, "round": task.round, **tally}), "utf-8")
        os.replace(temporary, path)


def _require_simulation(task: Task) -> None:
    if not task.plan.simulation:
        raise RunError("this plan is no simulation, so no figure of single phones may be written; unset observe")
