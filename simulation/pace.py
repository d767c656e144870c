"""How long a run over a real SuperLink takes, told before it begins (ADR 0106).

Flower starts a process a message and polls every three seconds, so a question costs seconds whatever is asked; pairwise
masking asks five a sum. Measured on two cores of a shared virtual machine with two SuperNodes: docs/adr/0106.
"""

from __future__ import annotations

import math

from model.errors import InputError
from simulation.processors import processors

BOOT_SECONDS = 30.0
POLLS_SECONDS = 7.0  # from a question to its answer, beside the node's process
PROCESS_SECONDS = 2.0  # a node's process, of one core
PHONE_SECONDS = 0.03  # all a phone's steps of one masked sum, and the server's part
STEPS = 5
BESIDE_TRAINING = 3  # knots, calibration, evaluation
MOST_SECONDS = 1800.0


def expected_seconds(mode: str, rounds: int, phones: int, farms: int) -> float:
    """Seconds, roughly, of a run with that many training rounds, phones in a sum and SuperNodes on this machine."""
    sums, question = rounds + BESIDE_TRAINING, POLLS_SECONDS + PROCESS_SECONDS * max(1.0, farms / processors())
    each = STEPS * question + PHONE_SECONDS * phones if mode == "pairwise" else question
    return BOOT_SECONDS + sums * each


def require_bearable(mode: str, rounds: int, phones: int, farms: int) -> None:
    """InputError for a run of mode pairwise that would take over MOST_SECONDS, with what it would take."""
    seconds = expected_seconds(mode, rounds, phones, farms)
    if mode == "pairwise" and seconds > MOST_SECONDS:
        raise InputError(
            f"{rounds + BESIDE_TRAINING} sums of --privacy pairwise over a SuperLink would take about "
            f"{math.ceil(seconds / 60)} minutes, more than {MOST_SECONDS / 60:.0f}; leave out --flower, or give fewer "
            "--rounds, --phones or --farms"
        )
