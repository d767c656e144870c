"""The phone's Flower side: a `ClientApp` that believes a message only by its signed plan (spec 7.9).

A node carries one phone in the field and a farm of thousands in simulation; the messages are the same.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from flwr.app import Array, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod

from fl_client.drawers import StoreDrawer
from fl_client.egress import Egress, MemoryEgress
from fl_client.joining import Clock, Joining, silent
from fl_client.ledger import Ledger
from fl_client.paired_app import StateDrawer, add_steps
from fl_client.pairing import Drawer, Members, Node
from fl_client.phones import Phone, Phones, Task
from fl_client.repeat import Kept
from fl_client.replies import reply_of
from model.canonical import decode
from model.contract.envelope import Signed, verify
from model.contract.plan import DOMAIN, TrainingPlan
from model.contract.update import TaskHeader
from model.errors import ContractError, PocketScoreError, RoundError, RunError
from model.policy.rules import load_pack, require_allowed
from model.privacy.noise import ByteSource, OsSource
from model.risk.knots import Knots
from model.secagg.context import model_digest
from model.secagg.pairwise_phone import PairwisePhone
from model.secagg.room import require_no_wrap

REFUSED = 0  # Flower's code for an unspecified error
MAX_HEADER_BYTES = 4096
MAX_KNOTS_BYTES = 1 << 22
MAX_FLAT = 1 << 20
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '<f4', 'fortran_order': False, 'shape': \((\d+),\), \} *\n", re.S
)
log = logging.getLogger("pocketscore.node")
_TASK_KEYS = {"header", "plan", "knots"}


@dataclass(frozen=True)
class Trust:
    """Whose signatures a plan needs: public keys by key id, all of `required` (coordinator and reviewer).

    `witness` is the reviewer's public key (32 bytes), which mode pairwise needs.
    """

    keyring: Mapping[str, bytes]
    required: tuple[str, ...]
    witness: bytes = b""

    def plan_of(self, data: bytes) -> TrainingPlan:
        """The plan in these bytes once every required key has signed it, its policy pack allows it and no sum wraps.

        SignatureError, ContractError, PolicyError or RoundError, in one sentence, otherwise.
        """
        return _believed(data, tuple(sorted(self.keyring.items())), self.required)


@lru_cache(maxsize=4)
def _believed(data: bytes, keyring: tuple[tuple[str, bytes], ...], required: tuple[str, ...]) -> TrainingPlan:
    # Every message carries its plan: believed bytes are kept, so each round does not judge them anew.
    threshold = max(2, len(required))
    payload = verify(Signed.from_bytes(data), DOMAIN, dict(keyring), threshold=threshold, required=required)
    plan = TrainingPlan.from_dict(payload)
    require_allowed(plan, load_pack(plan.policy_pack))
    require_no_wrap(plan)
    return plan


def make_client_app(
    load: Callable[[Context], Phones],
    trust: Callable[[Context], Trust],
    door: Callable[[Context], Egress] = lambda context: MemoryEgress(int(time.time())),
    entropy: ByteSource | None = None,
    mods: Sequence[Mod] = (),
    keeps: Callable[[Context], Kept] | None = None,
    drawer: Callable[[Context], Drawer] = StateDrawer,
) -> ClientApp:
    """A ClientApp over the phones that `load` finds for a node, the keys that `trust` finds, and their `door`.

    Every answer leaves through the egress, which checks it against its closed schema and byte budget and records it;
    a device's own keeps the ledger, a farm's is in memory. "train" and the queries "knots", "calibrate" and
    "evaluate" are answered with one vector and a header of counts, in mode helper with the sealed seeds of its masks,
    and nothing else. A refusal is an error reply with the name of the error's class; its sentence is logged. `entropy`
    is for masks and phones' own noise: the operating system's unless a test gives another. `mods` are Flower's.
    `keeps` finds where a phone's masked answers are kept, so that it gives one a sum; farms, which trust their run,
    need none. In mode pairwise five queries take the place of these (13.15); `drawer` finds where their secrets lie.
    """
    app, random = ClientApp(mods=list(mods)), entropy or OsSource()

    def answer(kind: str) -> Callable[[Message, Context], Message]:
        def handler(message: Message, context: Context) -> Message:
            try:
                task = read_task(message.content, trust(context), kind)
                if task.plan.privacy.mode == "pairwise":  # before anything is charged or computed
                    raise RoundError("under a plan of mode pairwise phones answer its five steps and nothing else")
                kept = keeps(context) if keeps else None
                return Message(reply_of(load(context), task, door(context), random, kept), reply_to=message)
            except PocketScoreError as error:
                # The sentence may speak of this phone, so it stays here; the coordinator learns its kind.
                log.warning("refused a %s task: %s", kind, error)
                return Message(Error(REFUSED, type(error).__name__), reply_to=message)

        return handler

    app.train()(answer("train"))
    for kind in ("knots", "calibrate", "evaluate"):
        app.query(kind)(answer(kind))

    def read(content: RecordDict, context: Context, kind: str) -> Task:
        return read_task(content, trust(context), kind)

    def node(context: Context, live: dict[bytes, list[PairwisePhone]]) -> Node:
        members = load(context)
        if not isinstance(members, Members):
            raise RunError("what this node carries cannot be asked phone by phone; choose another privacy mode")
        return Node(members, drawer(context), door(context), trust(context).witness, random, live)

    add_steps(app, read, node)
    return app


def make_phone_app(
    phone: Callable[[Context], Phone],
    trust: Callable[[Context], Trust],
    door: Callable[[Context], Egress],
    *,
    ledger: Callable[[Context], Ledger],
    agrees: Callable[[TrainingPlan, int], None],
    clock: Clock = time,
) -> ClientApp:
    """The field's ClientApp: the node's one phone and its door, as the device gives them when it is asked.

    Its owner's consent and its lifetime ledger are asked before its data, and no refusal can be told from absence
    (joining.py).
    """
    from fl_client.single import OnePhone  # torch: a farm's process does without (ADR 0054)

    def load(context: Context) -> Phones:
        one = phone(context)
        return Joining(OnePhone(one), "holdout" if one.holdout else "train", ledger(context), agrees, clock)

    def keeps(context: Context) -> Kept:
        return Kept(ledger(context).store)

    def drawer(context: Context) -> Drawer:
        return StoreDrawer(ledger(context).store)

    return make_client_app(load, trust, door, mods=[silent(clock)], keeps=keeps, drawer=drawer)


def read_task(content: RecordDict, trust: Trust, kind: str) -> Task:
    """The believed task in a message. ContractError for other keys or arrays; RoundError for another plan's round."""
    if not _has(content, {"task": _TASK_KEYS}, {"model": {"flat"}}):
        raise ContractError("a task message has other parts than spec 7.9 names; use the same release on both sides")
    parts, array = content.config_records["task"], content.array_records["model"]["flat"]
    signed, head, noted = (_bytes(parts[name]) for name in ("plan", "header", "knots"))
    plan = trust.plan_of(signed)
    header = TaskHeader.from_dict(decode(head, max_bytes=MAX_HEADER_BYTES))
    if header.plan_digest != plan.digest or header.kind != kind:
        raise RoundError(f"a {header.kind} task came as {kind}, or under another plan than it carries; ask again")
    if header.round > plan.rounds + 2:
        raise RoundError(f"round {header.round} lies beyond the plan's {plan.rounds}; ask the coordinator again")
    knots = _knots(noted) if noted else None
    flat = _read_flat(array)
    received = model_digest(np.ascontiguousarray(flat, dtype="<f4").tobytes(), noted)
    return Task(kind, header.round, plan, knots, flat, received)


@lru_cache(maxsize=4)
def _knots(noted: bytes) -> Knots:
    # They come with every message of a run and stay the same from the first round on.
    return Knots.from_dict(decode(noted, max_bytes=MAX_KNOTS_BYTES))


def _has(content: RecordDict, configs: Mapping[str, set[str]], arrays: Mapping[str, set[str]]) -> bool:
    """Whether the records are exactly these, with exactly these keys (case 8)."""
    held = {name: set(record) for name, record in content.config_records.items()}
    stacked = {name: set(record) for name, record in content.array_records.items()}
    return (held, stacked, dict(content.metric_records)) == (configs, arrays, {})


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise ContractError("a task's header, plan and knots are bytes; use the same release on both sides")
    return value


def _read_flat(array: Array) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """A float32 vector from a Flower array, its size known from the bytes before anything is allocated (case 10)."""
    match = _NPY_HEADER.match(array.data[:256]) if array.stype == "numpy.ndarray" else None
    body = array.data[match.end() :] if match else b""
    if match is None or len(body) != 4 * int(match[1]) or len(body) > 4 * MAX_FLAT:
        raise ContractError("a task's model is not one little-endian float32 vector of the stated length; ask again")
    return np.frombuffer(body, dtype="<f4").astype(np.float32)
