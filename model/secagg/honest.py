"""Noise that phones make themselves, enough as long as `honest` of them add theirs (spec 13.9.8)."""

from __future__ import annotations

import math

from model.errors import BudgetError
from model.privacy.mechanism import GaussianRelease
from model.privacy.noise import MAX_SIGMA, ByteSource, discrete_gaussian
from model.secagg.fixedpoint import Units


def phone_sigma(release: GaussianRelease, scale: int, honest: int) -> int:
    """A phone's whole standard deviation in grid units: ⌈z·sensitivity·scale/√honest⌉ + 1.

    So `honest` phones have the charge's variance together; one unit more pays for the grid, as in spec 6.5. How far a
    sum of discrete Gaussians is from one is the accountant's. BudgetError for fewer than 2 units or no honest phone.
    """
    if honest < 1:
        raise BudgetError("noise by phones needs at least one honest phone; plan how many there are")
    sigma = release.sigma * scale / math.sqrt(honest)
    if not 2 <= sigma < MAX_SIGMA:
        raise BudgetError(f"release {release.name!r} gives a phone {sigma:g} grid units of noise; use a finer grid")
    return math.ceil(sigma) + 1


def add_noise(units: Units, release: GaussianRelease, scale: int, honest: int, source: ByteSource) -> Units:
    """`units` (d,) int64 with this phone's share of the release's noise, to be masked next; `source` is the system's
    generator outside of tests."""
    noised: Units = units + discrete_gaussian(phone_sigma(release, scale, honest), units.size, source)
    return noised
