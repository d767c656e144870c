"""Which engine a run takes, and why, in one sentence (spec 7.8)."""

from __future__ import annotations

from model.errors import RunError
from simulation.engine.native.engine import NativeEngine
from simulation.engine.native.library import available
from simulation.engine.protocol import Engine

NAMES = ("auto", "reference", "batched", "native")


def choose(name: str = "auto") -> tuple[Engine, str]:
    """(engine, reason). `auto` is native if its kernel is there, else batched. RunError for one that is not."""
    if name not in NAMES:
        raise RunError(f"there is no engine {name!r}; choose one of {', '.join(NAMES)}")
    if name in ("auto", "native"):
        missing = available()
        if missing is None:
            engine = NativeEngine()
            return engine, f"native: compiled kernel, {engine}"
        if name == "native":
            raise RunError(missing)
    if name == "reference":
        from simulation.engine.reference import ReferenceEngine  # torch, which no other engine needs at once

        return ReferenceEngine(), "reference: the phone loop, as asked"
    from simulation.engine.batched import BatchedEngine

    return BatchedEngine(), f"batched: {missing}" if name == "auto" else "batched: as asked"
