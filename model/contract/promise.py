"""The privacy part of a plan: what is promised, in which mode, and every release that is charged (spec 3.1, 13.1)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import cached_property

from model.contract.record import Record, require
from model.privacy.gaussian import composed_mu, gaussian_epsilon
from model.privacy.mechanism import GaussianRelease

MODES = ("helper", "pairwise", "central", "local", "off")
LEAST_UNITS = 2  # of noise on the grid; below, discrete noise is not accounted as Gaussian (6.5)
_HEX64 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Neighbours(Record):
    """The graph of pairwise masking: `degree` neighbours a phone, of whom `threshold` must answer to unmask.

    `corrupt` and `dropout` are the largest fractions of phones for which the graph's bound is to hold. All zeros in
    other modes.
    """

    degree: int = 0
    threshold: int = 0
    corrupt: float = 0.0
    dropout: float = 0.0

    def check(self) -> None:
        """ContractError for numbers out of their range; whether the bound holds is for `secagg.graph`."""
        require(0 <= self.degree <= 10_000, f"{self.degree} neighbours is outside 0 to 10000; choose another")
        fits = 0 < self.threshold <= self.degree or self.degree == self.threshold == 0
        require(fits, f"a threshold of {self.threshold} does not fit {self.degree} neighbours; choose 1 to all of them")
        rates = 0 <= self.corrupt < 1 and 0 <= self.dropout < 1
        require(rates, "the fractions of corrupt and lost phones must lie in 0 to 1; choose others")


@dataclass(frozen=True)
class PrivacyPlan(Record):
    """The promise: mode, δ, ε budget, neighbour relation, unit, and every release that will be charged.

    A charge's noise is the server's in mode central, each server's in helper, each phone's in local, and in pairwise
    that of `honest` phones together. `helper_key` is the helper's public HPKE key (X25519, hex). `coordinator_noise`
    (mode helper) is the coordinator's noise as a share of the helper's, which is the charge's: what protects a phone
    from the helper (13.16).
    """

    mode: str
    delta: float
    epsilon_budget: float
    relation: str
    unit: str
    charges: tuple[GaussianRelease, ...]
    noise_source: str = "os"
    grid_scale: int = 1 << 20
    helper_key: str = ""
    honest: int = 0
    neighbours: Neighbours = Neighbours()
    coordinator_noise: float = 1.0

    def weakest(self, charge: GaussianRelease) -> GaussianRelease:
        """A charge under the least noise that protects a phone from anyone the mode promises anything (13.16.4).

        In mode helper that is the coordinator's own: the helper meets no other. Elsewhere the charge's as it is.
        """
        return replace(charge, noise_multiplier=self.coordinator_noise * charge.noise_multiplier)

    @cached_property
    def helper_epsilon(self) -> float:
        """ε of all charges against the helper of mode helper, nothing amplified; 0 where no helper takes part."""
        if self.mode != "helper":
            return 0.0
        seen = [[self.weakest(c) for c in self.charges if c.split in (split, "all")] for split in ("train", "holdout")]
        mu = max(composed_mu(charges) for charges in seen)
        return gaussian_epsilon(mu, self.delta) if math.isfinite(mu) else math.inf

    def check(self) -> None:
        """ContractError for an unknown word, a part that is not of the mode, or a number out of its range."""
        require(self.mode in MODES, f"the privacy mode {self.mode!r} is unknown; use {', '.join(MODES)}")
        self._check_mode()
        require(0 < self.delta < 1, f"delta {self.delta} is outside 0 to 1; choose at most N to the power -1.1")
        require(self.epsilon_budget > 0, f"the epsilon budget {self.epsilon_budget} is not positive; choose another")
        require(self.relation == "zero-out", f"the relation {self.relation!r} is unknown; use zero-out")
        require(self.unit in ("phone", "row"), f"the privacy unit {self.unit!r} is unknown; use phone or row")
        require(self.noise_source in ("os", "test-seeded"), f"the noise source {self.noise_source!r} is odd; use os")
        require(1 <= self.grid_scale <= 1 << 40, f"the grid scale {self.grid_scale} is outside 1 to 2^40; use 2^20")
        require(bool(self.charges) or self.mode == "off", "a plan with privacy names no charges; list every release")

    def _check_mode(self) -> None:
        with_helper, pairwise = self.mode == "helper", self.mode == "pairwise"
        keyed = bool(_HEX64.fullmatch(self.helper_key)) if with_helper else not self.helper_key
        require(keyed, "mode helper needs the helper's public key in hex, and no other mode has one; set it again")
        honest = 1 <= self.honest <= 1 << 40 if pairwise else self.honest == 0
        require(honest, "mode pairwise needs a number of honest phones, and no other mode has one; set it again")
        require(
            pairwise == (self.neighbours.degree > 0), "mode pairwise, and no other, has a graph; set its neighbours"
        )
        self._check_share(with_helper)

    def _check_share(self, with_helper: bool) -> None:
        share = self.coordinator_noise
        fits = 0 < share <= 1 and (with_helper or share == 1)
        require(fits, f"a coordinator's noise of {share} is not above 0 and up to 1, or 1 outside mode helper; set it")
        least = min((self.weakest(c).sigma * self.grid_scale for c in self.charges), default=0.0)
        enough = share == 1 or least >= LEAST_UNITS
        require(enough, f"the coordinator's noise of {share} of a charge is below {LEAST_UNITS} grid units; raise it")
