"""How many processors there are to work with: for engines' threads and for the processes that make phones."""

from __future__ import annotations

import os


def processors() -> int:
    """Those this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_threads() -> int:
    """The processors this process may use, and no more than OMP_NUM_THREADS, which holds every engine."""
    wished = os.environ.get("OMP_NUM_THREADS", "")
    return min(processors(), int(wished)) if wished.isdecimal() and int(wished) > 0 else processors()
