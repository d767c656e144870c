"""The ε ledger: every release is charged on disk before any noise is drawn for it (spec 6.8).

reserve → draw the noise → keep the noised result → commit. What is reserved is spent, whatever happens next: a
process that dies in between finds its reservation open and either resumes (publishes the very result it kept) or
voids it (publishes nothing, and the charge stays).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import TracebackType
from typing import Self

from fl_server.journal import Entry, Journal, Write, read_journal
from model.contract.plan import TrainingPlan
from model.errors import BudgetError, ContractError
from model.privacy.accountant import epsilon_by_split
from model.privacy.mechanism import GaussianRelease
from model.privacy.observers import as_promised, promised

SCHEMA = "pocketscore.ledger/1"


@dataclass(frozen=True)
class Reservation:
    """One charged release: `release.count` is 1; `state` is "reserved", "committed" or "void"."""

    index: int
    name: str
    round: int
    release: GaussianRelease
    state: str = "reserved"
    result: str = ""


class Budget:
    """The ledger at `path` of one plan, held by one process at a time.

    A new ledger opens with the plan's digest, and is refused for any other plan. `write` stands for os.write.
    BudgetError, and no line appended, when the file is in use, cut or edited, or belongs to another plan.
    """

    def __init__(self, path: str | os.PathLike[str], plan: TrainingPlan, *, write: Write = os.write) -> None:
        self.require(plan)
        self.plan = plan
        self._journal = Journal(path, write=write)
        try:
            self._open()
            self._reservations = {r.index: r for r in _replay(self._journal.entries)}
        except BudgetError:
            self.close()
            raise

    @staticmethod
    def require(plan: TrainingPlan) -> None:
        """BudgetError, in one sentence, when the plan's own charges would cost more than its budget."""
        if plan.privacy.mode == "off":
            return
        cost = promised(plan.privacy.charges, plan.privacy.delta, plan.privacy.mode)
        if not cost <= plan.privacy.epsilon_budget:
            raise BudgetError(
                f"plan {plan.name!r} would spend ε {cost:.4g} of a budget of {plan.privacy.epsilon_budget:g} at delta "
                f"{plan.privacy.delta:g}; add noise, take fewer rounds or raise the budget"
            )

    def reserve(self, name: str, round: int = 0) -> Reservation:
        """Charge one release of the plan's charge `name`; on disk when this returns.

        Call it before a byte of noise is drawn. BudgetError, with nothing charged, when the budget does not hold
        the release, the plan does not name it, or the same release is charged already and was not voided.
        """
        release = replace(self._charge(name), count=1)
        for other in self._reservations.values():
            if (other.name, other.round) == (name, round) and other.state != "void":
                raise BudgetError(f"release {name!r} of round {round} is already charged; resume it or void it")
        self._afford(release)
        entry = self._journal.append({"kind": "reserve", "name": name, "round": round, "release": release.to_dict()})
        return self._keep(Reservation(entry["index"], name, round, release))

    def commit(self, reservation: Reservation, result: str) -> Reservation:
        """Record that the release was made, with the digest of its noised `result`; BudgetError if it is not open."""
        return self._close_out(reservation, "commit", "committed", result)

    def void(self, reservation: Reservation) -> Reservation:
        """Record that nothing will be released for this charge; it stays spent. BudgetError if it is not open."""
        return self._close_out(reservation, "void", "void", "")

    @property
    def reservations(self) -> tuple[Reservation, ...]:
        """Every charge, oldest first, with its state."""
        return tuple(self._reservations.values())

    @property
    def unfinished(self) -> tuple[Reservation, ...]:
        """Charges neither committed nor voided: left by a process that died, to be resumed or voided."""
        return tuple(r for r in self.reservations if r.state == "reserved")

    def charges(self) -> tuple[GaussianRelease, ...]:
        """What was spent, as releases with their counts, in the order of first charge."""
        return merge(r.release for r in self.reservations)

    def total(self) -> float | None:
        """ε spent against the mode's strongest promised observer, from the reserved charges; None in mode "off"."""
        privacy = self.plan.privacy
        return None if privacy.mode == "off" else promised(self.charges(), privacy.delta, privacy.mode)

    def total_by_split(self) -> dict[str, float]:
        """ε spent by a phone of each split; empty in mode "off"."""
        privacy = self.plan.privacy
        if privacy.mode == "off":
            return {}
        return epsilon_by_split(as_promised(self.charges(), privacy.mode), privacy.delta)

    def close(self) -> None:
        """Release the lock."""
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _open(self) -> None:
        privacy = self.plan.privacy
        terms = {"delta": privacy.delta, "epsilon_budget": privacy.epsilon_budget, "mode": privacy.mode}
        promise = {"relation": privacy.relation, "unit": privacy.unit}
        body = {"kind": "open", "schema": SCHEMA, "plan_digest": self.plan.digest, **terms, **promise}
        if not self._journal.entries:
            self._journal.append(body)
        first = self._journal.entries[0]
        if {k: first.get(k) for k in body} != body:
            raise BudgetError(f"{self._journal.path} is the ledger of another plan; give this run its own folder")

    def _charge(self, name: str) -> GaussianRelease:
        found = [c for c in self.plan.privacy.charges if c.name == name]
        if len(found) != 1:
            raise BudgetError(f"the plan charges {len(found)} releases named {name!r}, not one; name it there first")
        return found[0]

    @cached_property
    def _planned(self) -> Counter[GaussianRelease]:
        counts: Counter[GaussianRelease] = Counter()
        for charge in self.plan.privacy.charges:
            counts[replace(charge, count=1)] += charge.count
        return counts

    def _afford(self, release: GaussianRelease) -> None:
        """ε grows with every charge, and the plan's own were priced in `require`: within them, no need to again."""
        privacy = self.plan.privacy
        spent = [*(r.release for r in self.reservations), release]
        if privacy.mode == "off" or Counter(spent) <= self._planned:
            return
        cost = promised(merge(spent), privacy.delta, privacy.mode)
        if not cost <= privacy.epsilon_budget:
            raise BudgetError(
                f"release {release.name!r} would bring ε to {cost:.4g} of a budget of {privacy.epsilon_budget:g}; "
                "the budget is exhausted, so nothing more may be released under this plan"
            )

    def _close_out(self, reservation: Reservation, kind: str, state: str, result: str) -> Reservation:
        current = self._reservations.get(reservation.index)
        if current is None or current.state != "reserved":
            raise BudgetError(
                f"release {reservation.name!r} of round {reservation.round} is not open; reserve it first"
            )
        self._journal.append({"kind": kind, "of": reservation.index, "result": result})
        return self._keep(replace(current, state=state, result=result))

    def _keep(self, reservation: Reservation) -> Reservation:
        self._reservations[reservation.index] = reservation
        return reservation


def merge(releases: Iterable[GaussianRelease]) -> tuple[GaussianRelease, ...]:
    """Equal releases as one, with their counts added."""
    counts: Counter[GaussianRelease] = Counter()
    for release in releases:
        counts[replace(release, count=1)] += release.count
    return tuple(replace(release, count=count) for release, count in counts.items())


def read_ledger(path: str | os.PathLike[str]) -> tuple[Reservation, ...]:
    """Every charge of a ledger that no process need hold open, after checking its chain; BudgetError if unsound."""
    return tuple(_replay(read_journal(path)))


def _replay(entries: Sequence[Entry]) -> list[Reservation]:
    """Reservations with the state that later lines gave them; BudgetError for a line with no meaning here."""
    found: dict[int, Reservation] = {}
    pending: dict[int, Reservation] = {}
    for entry in entries[1:]:
        try:
            if entry["kind"] == "reserve":
                release = GaussianRelease.from_dict(entry["release"])
                made = Reservation(entry["index"], entry["name"], entry["round"], release)
                found[made.index] = pending[made.index] = made
            else:
                state = {"commit": "committed", "void": "void"}[entry["kind"]]
                found[entry["of"]] = replace(pending.pop(entry["of"]), state=state, result=entry["result"])
        except (KeyError, TypeError, ContractError) as error:
            raise BudgetError(
                f"ledger line {entry['index'] + 1} has no known meaning; use the release that wrote it"
            ) from error
    return list(found.values())
