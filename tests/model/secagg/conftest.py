"""A cast for rounds of pairwise masking: phones with updates, a witness, a server, and a driver that may be hostile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from model.contract.envelope import SigningKey
from model.contract.promise import Neighbours
from model.errors import ContractError, RoundError
from model.privacy.noise import SeededSource
from model.secagg.context import Context
from model.secagg.fixedpoint import Units
from model.secagg.pairwise_phone import PairwisePhone
from model.secagg.pairwise_server import PairwiseServer
from model.secagg.terms import Terms
from model.secagg.witness import LocalWitness

WITNESS = SigningKey.from_private_bytes(bytes([9]) * 32)
Change = Callable[["Cast", dict[str, bytes]], dict[str, bytes]]


def context(dim: int = 4, round_number: int = 0, model: str = "cd") -> Context:
    return Context("ab" * 32, "train", round_number, model * 32, dim)


@dataclass
class Cast:
    """Everyone in one attempt. `changes` rewrite what the server hands on, by the step it is sent for."""

    phones: dict[str, PairwisePhone]
    updates: dict[str, Units]
    server: PairwiseServer
    changes: dict[str, Change] = field(default_factory=dict)
    drops: dict[str, set[str]] = field(default_factory=dict)

    def run(self) -> Units:
        """As `run_round`, with changes in between."""
        inbox = dict.fromkeys(self.phones, b"")
        server = self.server
        for step, serve in (
            ("advertise", server.place),
            ("share", server.deliver),
            ("upload", server.survivors),
            ("agree", server.certify),
            ("unmask", None),
        ):
            inbox = self.changes.get(step, lambda _, box: box)(self, inbox)
            answers = {}
            for name, data in inbox.items():
                if name in self.drops.get(step, ()):
                    continue
                try:
                    answers[name] = self.ask(name, step, data)
                except (RoundError, ContractError) as refusal:
                    server.refusals[name] = str(refusal)
            answers = self.changes.get(f"{step} answers", lambda _, box: box)(self, answers)
            inbox = serve(answers) if serve else {}
        return server.unmask(answers)

    def ask(self, name: str, step: str, data: bytes) -> bytes:
        phone = self.phones[name]
        if step == "advertise":
            return phone.advertise()
        return phone.upload(data, self.updates[name]) if step == "upload" else getattr(phone, step)(data)

    def right(self) -> Units:
        """What the sum of the counted phones is."""
        return np.sum([self.updates[name] for name in self.server.counted], axis=0)


def cast(
    phones: int = 8,
    degree: int = 7,
    threshold: int = 5,
    least: int = 3,
    dim: int = 4,
    seed: int = 0,
    corrupt: float = 0.0,
) -> Cast:
    """`phones` phones p0, p1, … with small updates, and everything seeded."""
    terms = Terms(Neighbours(degree, threshold, corrupt, 0.0), least, 1, WITNESS.public_bytes)
    place, numbers = context(dim, seed), np.random.default_rng(seed)
    identities = [SigningKey.from_private_bytes(bytes([1, i % 256, i // 256]) + bytes(29)) for i in range(phones)]
    cast_phones = {
        f"p{i}": PairwisePhone(identity, place, terms, source=SeededSource(seed, "phone", i))
        for i, identity in enumerate(identities)
    }
    updates = {name: numbers.integers(-1000, 1000, dim) for name in cast_phones}
    return Cast(cast_phones, updates, PairwiseServer(place, terms, LocalWitness(WITNESS, terms)))


@pytest.fixture
def make_cast() -> Callable[..., Cast]:
    return cast
