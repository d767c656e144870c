"""The witness of a simulated pairwise run: the reviewer's desk, in this process, beside the workspace (spec 13.15)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fl_server.keys import load_key, save_key
from fl_server.review.witness import WitnessDesk
from fl_server.seat import Seat
from model.contract.envelope import SigningKey
from model.contract.plan import TrainingPlan
from model.errors import InputError, RunError

PUBLIC = "witness.pub"


@dataclass(frozen=True)
class WitnessHome:
    """Where the reviewer's key and what it signed lie: beside the folder of the federation, for they outlive it."""

    folder: Path

    @property
    def home(self) -> Path:
        """The desk's own folder, which no other party reads."""
        return self.folder.with_name(f"{self.folder.name}.witness")

    def take(self, key: SigningKey) -> None:
        """Keep the reviewer's key at its desk, and its public half where phones look."""
        self.home.mkdir(mode=0o700, exist_ok=True)
        save_key(self.home / "key", key)
        (self.folder / PUBLIC).write_bytes(key.public_bytes)

    def public(self) -> bytes:
        """The reviewer's public key; empty where no plan needed it."""
        path = self.folder / PUBLIC
        return path.read_bytes() if path.exists() else b""

    def seat(self, plan: TrainingPlan) -> Seat | None:
        """The witness of a plan of mode pairwise; None for other modes. RunError where its key is gone."""
        if plan.privacy.mode != "pairwise":
            return None
        try:
            key = load_key(self.home / "key")
        except InputError as error:
            raise RunError(f"{self.home} has no readable key; prepare the workspace first") from error
        return Seat(WitnessDesk(self.home / "signed", key, plan), key.public_bytes)
