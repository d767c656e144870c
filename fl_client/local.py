"""Mode `local`: each phone's own noise, added before its answer leaves; a demonstration of what that costs (13.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.contract.plan import TrainingPlan
from model.contract.releases import charge_of, share_sigma
from model.errors import RoundError
from model.privacy.noise import ByteSource, discrete_gaussian

PHONES_A_DRAW = 64


def own_noise(plan: TrainingPlan, kind: str, phones: int, dim: int, source: ByteSource) -> NDArray[np.int64]:
    """The sum (dim,) of the noise of `phones` phones, each drawn by itself.

    RoundError for a kind that the plan does not charge or charges without noise: such an answer would be the record.
    """
    charge = charge_of(plan, kind)
    sigma = 0 if charge is None else share_sigma(plan, charge)
    if sigma == 0:
        raise RoundError(f"a phone in mode local has no noise for {kind}; plan a charge with noise")
    total = np.zeros(dim, dtype=np.int64)
    for first in range(0, phones, PHONES_A_DRAW):
        count = min(PHONES_A_DRAW, phones - first)
        total += discrete_gaussian(sigma, count * dim, source).reshape(count, dim).sum(axis=0)
    return total
