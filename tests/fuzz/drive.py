"""Many inputs through one door: what came out, how long it took, how much memory it took."""

from __future__ import annotations

import math
import re
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from model.errors import PocketScoreError

from .doors import Door, Unwritable
from .mutate import MAX_INPUT, Mutator

BASE_BYTES = 1 << 18
MAX_SECONDS = 2.0
MAX_KEPT = 400


@dataclass(frozen=True)
class Finding:
    """An input that does what no input may."""

    door: str
    data: bytes
    what: str


@dataclass
class Hunt:
    """One door under fuzz. What an input was answered, digits apart, stands for the code it reached: inputs with a new
    answer are mutated further."""

    door: Door
    random: Random
    weigh: float = 0.1
    """The share of inputs whose memory is measured, which is slow."""
    seconds: float = math.inf
    """The most CPU time for an input; the command's alone to judge, no test's."""
    tried: int = 0
    answers: set[str] = field(default_factory=set)
    corpus: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.corpus += self.door.seeds or [b"\xa0"]
        self.largest = max(map(len, self.corpus))
        for seed in self.corpus:
            self.answers.add(examined(self.door, seed, memory=False))

    def step(self) -> Finding | None:
        """One more input."""
        choose = self.random.choice
        data = Mutator(self.random).mutated(choose(self.corpus), choose(self.corpus))[:MAX_INPUT]
        self.tried += 1
        try:
            answer = examined(self.door, data, memory=self.random.random() < self.weigh, seconds=self.seconds)
        except Broken as error:
            return Finding(self.door.name, data, str(error))
        if answer not in self.answers and len(self.corpus) < MAX_KEPT and len(data) < 4 * self.largest:
            self.answers.add(answer)
            self.corpus.append(data)
        return None

    def findings(self, seconds: float) -> Iterator[Finding]:
        """Everything found in so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.step()
            if found is not None:
                yield found


class Broken(Exception):
    """What an input did that none may: another exception, too much memory, too much time."""


def examined(door: Door, data: bytes, *, memory: bool = True, seconds: float = math.inf) -> str:
    """The door's answer to an input; Broken for one that no stranger's bytes may bring about.

    Time is this thread's on a processor, whatever else the machine does.
    """
    try:
        given = door.prepare(data)
    except Unwritable:
        return "unwritable"
    begun = time.thread_time()
    if memory:
        tracemalloc.start()
    try:
        answer = _answer(door, given)
        peak = tracemalloc.get_traced_memory()[1] if memory else 0
    finally:
        tracemalloc.stop()
    took = time.thread_time() - begun
    if peak > BASE_BYTES + door.times * len(data):
        raise Broken(f"{peak} bytes of memory for an input of {len(data)}")
    if took > seconds:
        raise Broken(f"{took:.1f} seconds for an input of {len(data)} bytes")
    return answer


def _answer(door: Door, given: object) -> str:
    try:
        door.call(given)
    except PocketScoreError as error:
        sentence = str(error)
        if not sentence.isprintable() or not sentence:
            raise Broken(f"a refusal is no printable sentence: {sentence[:80]!r}") from error
        return re.sub(r"[0-9]+|'.*'", "0", sentence)[:80]
    except Exception as error:
        if type(error).__name__ == "HTTPException":
            return str(error)[:20]
        raise Broken(f"{type(error).__name__}: {str(error)[:200]}") from error
    return "taken"
