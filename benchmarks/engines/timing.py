"""Fair turns: every runner runs a block, one after the other, again and again; medians of updates a second."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Protocol

MOST_ROUNDS = 20_000


class Runner(Protocol):
    """Something that runs rounds and says how long they took."""

    @property
    def name(self) -> str: ...

    def go(self, rounds: int, cohort: int) -> float: ...


@dataclass(frozen=True)
class Pace:
    """`seconds` a block, `turns` blocks a runner, and no more blocks for one that has used `budget` seconds."""

    seconds: float
    turns: int
    budget: float


@dataclass(frozen=True)
class Rate:
    """Updates a second, one figure a turn, in the order of the turns."""

    each: tuple[float, ...]

    @property
    def middle(self) -> float:
        """The median."""
        return median(self.each)

    def over(self, other: Rate) -> float:
        """Median of the ratios turn by turn, or the ratio of the medians if one had fewer turns."""
        if len(self.each) != len(other.each):
            return self.middle / other.middle
        return median(a / b for a, b in zip(self.each, other.each, strict=True))

    def to_dict(self) -> dict[str, object]:
        """Numbers for the JSON."""
        numbers = {"median": self.middle, "lowest": min(self.each), "highest": max(self.each)}
        return {name: round(number, 2) for name, number in numbers.items()} | {"turns": len(self.each)}


def alternate(runners: Iterable[Runner], cohorts: Mapping[str, int] | int, pace: Pace) -> dict[str, Rate]:
    """Rates by name. The first, shorter block of each runner finds how many rounds fill a block and is not counted,
    unless it was already longer than the budget allows."""
    order = list(runners)
    size = {r.name: cohorts if isinstance(cohorts, int) else cohorts[r.name] for r in order}
    rounds, used, rates = {}, {}, {r.name: [] for r in order}  # type: ignore[var-annotated]
    for runner in order:
        first = _settled(runner, size[runner.name], pace)
        rounds[runner.name] = max(1, min(MOST_ROUNDS, round(pace.seconds / first)))
        used[runner.name] = first if first > pace.seconds else 0.0
        if first * 2 > pace.budget:
            rates[runner.name].append(size[runner.name] / first)
            used[runner.name] = pace.budget
    for _ in range(pace.turns):
        for runner in order:
            if used[runner.name] < pace.budget:
                taken = runner.go(rounds[runner.name], size[runner.name])
                used[runner.name] += taken
                rates[runner.name].append(rounds[runner.name] * size[runner.name] / taken)
    return {name: Rate(tuple(each)) for name, each in rates.items()}


def _settled(runner: Runner, cohort: int, pace: Pace) -> float:
    """Seconds a round, once for a slow runner, later of several rounds for a fast one."""
    first = runner.go(1, cohort)
    if first < pace.seconds / 10:
        count = max(2, min(MOST_ROUNDS, round(pace.seconds / 5 / max(first, 1e-6))))
        first = runner.go(count, cohort) / count
    return max(first, 1e-7)
