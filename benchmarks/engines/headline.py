"""W and its tiny variant: our engines and the peers in turn on the same file, each peer at its best setting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines.ours import Ours, Peak, engine, population
from engines.peers import Kind, Peer, PeerError
from engines.timing import Pace, Rate, alternate
from engines.verify import controls, distance, losses, reference, trains
from engines.workload import Data, Workload, draw, repeated

CHECKED = 20  # phones of the exact check
NEAR = 0.85  # of the best rate at a small cohort: such a setting may be the best one at a large cohort


@dataclass(frozen=True)
class Plan:
    """What to run: engines and peers by name, quick or in full, and where data files lie."""

    engines: tuple[str, ...]
    peers: tuple[Kind, ...]
    quick: bool
    folder: Path

    @property
    def pace(self) -> Pace:
        """Blocks of a section with peers."""
        return Pace(0.3, 3, 6.0) if self.quick else Pace(1.5, 5, 40.0)

    def settings(self, kind: Kind) -> tuple[str, ...]:
        """Settings to try."""
        return kind.quick if self.quick else kind.settings


@dataclass
class Found:
    """Rates by runner at each (workload, cohort), each peer's best setting, and what the checks said."""

    rates: dict[str, dict[str, Rate]] = field(default_factory=dict)
    best: dict[str, list[str]] = field(default_factory=dict)
    checks: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    flops: dict[str, float] = field(default_factory=dict)


def measure(plan: Plan) -> Found:
    """Check the peers, find their best settings, measure."""
    found = Found()
    check(plan, found)
    kinds = [kind for kind in plan.peers if kind.name not in found.failed]
    w, tiny = draw(Workload(1000)), draw(Workload(1000, rows=8.0))
    first = [(kind, setting) for kind in kinds for setting in plan.settings(kind)]
    with running(plan, w, "w", first, found) as peers:
        at(plan, found, "W, C = 100", w, 100, peers)
        choose(found, kinds, "W, C = 100", NEAR)
        kept = [p for p in peers if not plan.quick or p.setting in found.best.get(p.kind.name, [])]
        at(plan, found, "W, C = 1,000", w, 1000, kept)
        choose(found, kinds, "W, C = 1,000")
        descended(found, w, kept)
    best = [(kind, setting) for kind in kinds for setting in found.best.get(kind.name, [])]
    with running(plan, tiny, "tiny", best, found) as peers:
        for size in (1000,) if plan.quick else (100, 1000):
            at(plan, found, f"tiny, C = {size:,}", tiny, size, peers)
    if not plan.quick and any(kind.name == "flower" for kind in kinds):
        many = draw(Workload(10_000))
        with running(plan, many, "many", [(k, s) for k, s in best if k.name == "flower"], found) as peers:
            at(plan, found, "W, N = 10,000, C = 100", many, 100, peers)
    return found


def at(plan: Plan, found: Found, title: str, data: Data, cohort: int, peers: Sequence[Peer]) -> None:
    """One section: everybody in turn, with the peak among them."""
    everyone = population(data)
    ours: list[Any] = [Ours(name, engine(name), everyone, data.cohort) for name in plan.engines]
    if "native" in plan.engines:
        ours.append(Peak())
    try:
        found.rates[title] = alternate([*ours, *peers], cohort, plan.pace)
    except PeerError as error:
        found.failed[title] = str(error)
        found.rates[title] = alternate(ours, cohort, plan.pace)
    sizes = [data.counts[data.cohort(cohort, turn)].mean() for turn in range(20)]
    found.flops[title] = float(sum(sizes) / len(sizes)) * data.workload.flops_a_row


def choose(found: Found, kinds: Sequence[Kind], title: str, near: float = 1.0) -> None:
    """The fastest setting of each peer, those that reach `near` of it, and pfl's fastest with two processes."""
    rates = found.rates[title]
    for kind in kinds:
        mine = sorted((n for n in rates if n.startswith(f"{kind.name} ")), key=lambda n: -rates[n].middle)
        names = [n for n in mine if rates[n].middle >= near * rates[mine[0]].middle]
        double = [n for n in mine if n.startswith("pfl 2,")]
        names += [n for n in sorted(double, key=lambda n: -rates[n].middle)[:1] if n not in names]
        found.best[kind.name] = [name.partition(" ")[2] for name in names]


def check(plan: Plan, found: Found) -> None:
    """One round of each peer against the reference, where shuffles do not matter. A wrong peer is left out."""
    path, data = plan.folder / "check.npz", repeated(Workload(CHECKED))
    data.save(path)
    found.checks["controls"] = controls(data)
    right = reference(data)
    for name in plan.engines:
        run = Ours(name, engine(name), population(data, clip=64.0), data.cohort, noise=0)
        found.checks[name] = {"distance": distance(data, run.run(1, CHECKED), right)}
    for kind in plan.peers:
        found.checks[kind.name] = {}
        for setting in plan.settings(kind) if not plan.quick else kind.quick[:1]:
            peer = Peer(kind, setting, path, CHECKED, fresh=True)
            try:
                peer.start()
                peer.ready()
                peer.go(1, CHECKED)
                model = peer.model()
            except PeerError as error:
                found.failed[kind.name] = str(error)
                continue
            finally:
                peer.close()
            found.checks[kind.name][setting] = distance(data, model, right)
            if not trains(data, model, right):
                found.failed[kind.name] = f"{kind.title} ({setting}) does not train: its round is not the reference's"


def descended(found: Found, data: Data, peers: Sequence[Peer]) -> None:
    """What the timed rounds did to the loss on all rows. One that did not lower it did not train."""
    for peer in peers:
        before, after = losses(data, peer.model())
        found.checks[peer.kind.name][f"loss, {peer.setting}"] = [before, after]
        if not after < before:
            found.failed[peer.kind.name] = f"{peer.kind.title} ({peer.setting}) left the loss at {after:.4f}"


@contextmanager
def running(
    plan: Plan, data: Data, name: str, wanted: Sequence[tuple[Kind, str]], found: Found
) -> Iterator[list[Peer]]:
    """Peers that have loaded and warmed up; all are ended in the end, whatever happens."""
    path = plan.folder / f"{name}.npz"
    if wanted:
        data.save(path)
    peers = [Peer(kind, setting, path, 100) for kind, setting in wanted]
    try:
        able = []
        for peer in peers:
            try:
                peer.start()
                peer.ready()
                able.append(peer)
            except PeerError as error:
                found.failed[peer.name] = str(error)
        yield able
    finally:
        for peer in peers:
            peer.close()
        path.unlink(missing_ok=True)
