"""What a check says: one line that holds, does not, or is a remark (spec 11.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fl_server.review.evidence import Evidence

TOLERANCE = 1e-9


@dataclass(frozen=True)
class Finding:
    """One line: the check, whether it holds (None: a remark, which fails nothing), and what was found."""

    check: str
    holds: bool | None
    sentence: str

    @property
    def mark(self) -> str:
        """✓, ✗, or ! for a remark."""
        return "!" if self.holds is None else "✓" if self.holds else "✗"


Check = Callable[[Evidence], Iterator[Finding]]


def close(one: float | None, other: float | None, tolerance: float = TOLERANCE) -> bool:
    """Equal to a relative (and absolute) `tolerance`, or both null."""
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)


def shown(value: float | None) -> str:
    """Four digits, or null."""
    return "null" if value is None else f"{value:.4g}"
