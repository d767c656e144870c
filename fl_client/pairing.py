"""A node's phones in pairwise masking: five answers, and what they keep in between (spec 13.15).

A node carries one phone in the field and up to a thousand in simulation. Each phone's secrets of the attempt lie in the
node's drawer between messages and nowhere else; every message leaves through the egress, by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fl_client.answers import answer_size
from fl_client.egress import Egress
from fl_client.keystore import ROOT_BYTES, derive
from fl_client.local import own_noise
from fl_client.phones import Task
from model.canonical import decode, encode
from model.contract.envelope import SigningKey
from model.contract.pairing import PAIRING_SCHEMA, STEPS
from model.contract.record import require
from model.errors import PocketScoreError, RoundError
from model.privacy.noise import ByteSource, SeededSource
from model.secagg.context import Context
from model.secagg.pairwise_phone import PairwisePhone
from model.secagg.phone_state import PhoneState
from model.secagg.terms import ATTEMPTS, Terms

OPENED = ATTEMPTS  # the attempt that stands for "shares were revealed": none comes after it
MAX_KEPT = 1 << 28
log = logging.getLogger("pocketscore.node")


@runtime_checkable
class Members(Protocol):
    """The phones behind one node, one by one."""

    def members(self, task: Task) -> NDArray[np.uint64]:
        """Numbers (P,) of the phones that take part in a task's sum, before anything is computed of their data."""
        ...

    def each(self, task: Task) -> NDArray[np.int64]:
        """What each of them answers, (P, d) grid units."""
        ...


class Drawer(Protocol):
    """Where a node keeps its phones' secrets between messages; it never leaves the node."""

    def get(self) -> bytes:
        """What was put last; empty at first."""
        ...

    def put(self, data: bytes) -> None:
        """Keep this instead."""
        ...


@dataclass
class Sitting:
    """What a node's phones know between messages.

    `secret` (32 bytes) is what their identities come from; `last` says by sum which attempt was the latest, or OPENED;
    `context` and `attempt` are those of `states`, one a phone, in the order of its members.
    """

    secret: bytes
    last: dict[str, int] = field(default_factory=dict)
    context: Context | None = None
    attempt: int = 0
    states: list[PhoneState] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        """Canonical bytes."""
        context = self.context.to_dict() if self.context else {}
        states = [state.to_bytes() for state in self.states]
        return encode({**vars(self), "context": context, "states": states})

    @classmethod
    def from_bytes(cls, data: bytes) -> Sitting:
        """Inverse of `to_bytes`; ContractError for anything else."""
        raw = decode(data, max_bytes=MAX_KEPT)
        sound = isinstance(raw, dict) and raw.keys() == vars(cls(b"")).keys()
        require(sound, "what this node kept between messages is damaged; remove it and wait for another plan")
        context = Context.from_dict(raw["context"]) if raw["context"] else None
        return cls(**{**raw, "context": context, "states": [PhoneState.from_bytes(s) for s in raw["states"]]})


@dataclass
class Node:
    """One node's phones in the sums of signed plans. `entropy` gives keys, masks and noise.

    `live` is a memory beside the drawer, so that a process that stays need not read and check everything again.
    """

    phones: Members
    drawer: Drawer
    door: Egress
    witness: bytes
    entropy: ByteSource
    live: dict[bytes, list[PairwisePhone]] = field(default_factory=dict)

    def answer(self, step: str, task: Task, attempt: int, mail: Mapping[int, bytes]) -> dict[int, bytes]:
        """The messages of the phones that answer a step, by their number among the members.

        A phone that refuses is left out and its reason logged; where the node carries a single phone, it is raised.
        RoundError for a step of another sum or attempt, or for an attempt that is not a later one.
        """
        if task.plan.privacy.mode != "pairwise":
            raise RoundError(f"a plan of mode {task.plan.privacy.mode} has no masks among phones; ask for its answer")
        context = Context(task.plan.digest, task.kind, task.round, task.model_digest, answer_size(task))
        sitting, phones = self._seated(step, task, context, attempt)
        asked = dict.fromkeys(range(len(phones)), b"") if step == "advertise" else mail
        units = self._noised(task, attempt, phones, sorted(asked)) if step == "upload" else {}
        if step == "unmask":
            sitting.last[_name(context)] = OPENED
            self._keep(sitting, phones, spent=True)  # before anything leaves: never a second time
        answers, refusals = self._answers(step, phones, asked, units)
        if step != "unmask":
            self._keep(sitting, phones)  # also after a refusal: it ended the attempt for that phone
        if refusals and task.plan.topology == "field":
            raise refusals[0]
        return answers

    def _answers(
        self,
        step: str,
        phones: Sequence[PairwisePhone],
        asked: Mapping[int, bytes],
        units: Mapping[int, NDArray[np.int64]],
    ) -> tuple[dict[int, bytes], list[PocketScoreError]]:
        answers, refusals = dict[int, bytes](), list[PocketScoreError]()
        for number, data in asked.items():
            try:
                require(0 <= number < len(phones), f"this node has no phone {number}; ask those that advertised")
                answers[number] = self._leave(step, phones[number], _body(step, phones[number], data, units, number))
            except PocketScoreError as error:
                log.warning("a phone refused to %s: %s", step, error)
                refusals.append(error)
        return answers, refusals

    def _seated(self, step: str, task: Task, context: Context, attempt: int) -> tuple[Sitting, list[PairwisePhone]]:
        kept = self.drawer.get()
        sitting = Sitting.from_bytes(kept) if kept else Sitting(self.entropy.take(ROOT_BYTES))
        if step == "advertise":
            return self._begin(sitting, task, context, attempt)
        if (sitting.context, sitting.attempt) != (context, attempt) or not sitting.states:
            raise RoundError(f"a phone was asked to {step} in a sum that it has not joined; ask it to advertise first")
        phones = self.live.get(kept)
        if phones is None:
            phones = self._phones(sitting, task, context, [PhoneState(**vars(state)) for state in sitting.states])
        return sitting, phones

    def _begin(
        self, sitting: Sitting, task: Task, context: Context, attempt: int
    ) -> tuple[Sitting, list[PairwisePhone]]:
        """A new attempt; the secrets of any earlier one are gone."""
        before = sitting.last.get(_name(context), -1)
        if before == OPENED:
            raise RoundError("this sum was opened once, with this phone's shares; no other is opened in its place")
        if not before < attempt < ATTEMPTS:
            raise RoundError(f"attempt {attempt} does not come after attempt {before}; a phone joins each once")
        sitting.last[_name(context)], sitting.context, sitting.attempt = attempt, context, attempt
        return sitting, self._phones(sitting, task, context, None)

    def _phones(
        self, sitting: Sitting, task: Task, context: Context, states: Sequence[PhoneState] | None
    ) -> list[PairwisePhone]:
        terms, numbers = Terms.of(task.plan, self.witness), self.phones.members(task).tolist()
        if states is not None and len(states) != len(numbers):
            raise RoundError("other phones than advertised are behind this node now; start another attempt")
        found = []
        for at, number in enumerate(numbers):
            key = SigningKey.from_private_bytes(
                derive(sitting.secret, f"secagg/identity/{context.plan_digest}/{number}")
            )
            state = states[at] if states is not None else None
            found.append(PairwisePhone(key, context, terms, sitting.attempt, self.entropy, state))
        return found

    def _keep(self, sitting: Sitting, phones: Sequence[PairwisePhone], *, spent: bool = False) -> None:
        sitting.states = [] if spent else [phone.state for phone in phones]
        kept = sitting.to_bytes()
        self.drawer.put(kept)
        self.live.clear()
        if not spent:
            self.live[kept] = list(phones)

    def _noised(
        self, task: Task, attempt: int, phones: Sequence[PairwisePhone], asked: Sequence[int]
    ) -> dict[int, NDArray[np.int64]]:
        """The units (d,) of the phones asked, each with its own share of the noise."""
        numbers, units = self.phones.members(task).tolist(), self.phones.each(task)
        require(len(units) == len(numbers) == len(phones), "answers and phones differ in number; start again")
        dim, found = units.shape[1], [at for at in asked if 0 <= at < len(units)]
        return {at: units[at] + phone_noise(task, numbers[at], attempt, dim, self.entropy) for at in found}

    def _leave(self, step: str, phone: PairwisePhone, body: bytes) -> bytes:
        place = phone.context
        fields = {
            "schema": PAIRING_SCHEMA,
            "plan_digest": place.plan_digest,
            "round": place.round,
            "kind": place.kind,
            "attempt": phone.attempt,
            "step": step,
            "body": body,
        }
        return self.door.release(f"pairing-{step}/1", fields)


def phone_noise(task: Task, number: int, attempt: int, dim: int, entropy: ByteSource) -> NDArray[np.int64]:
    """One phone's share (dim,) of a sum's noise, z·S·scale/√h: from `entropy`, or seeded where a test says so."""
    plan = task.plan
    if plan.privacy.noise_source == "test-seeded":
        entropy = SeededSource(plan.seed, f"phone/{number}/{attempt}/{task.kind}", task.round)
    return own_noise(plan, task.kind, 1, dim, entropy)


def _body(step: str, phone: PairwisePhone, data: bytes, units: Mapping[int, NDArray[np.int64]], number: int) -> bytes:
    require(step in STEPS, f"{step!r} is no step of pairwise masking; use the same release on both sides")
    if step == "advertise":
        return phone.advertise()
    if step == "upload":
        return phone.upload(data, units[number])
    answer: bytes = getattr(phone, step)(data)
    return answer


def _name(context: Context) -> str:
    """The sum, whatever the model: another model for the same round is the same sum."""
    return f"{context.plan_digest}/{context.kind}/{context.round}"
