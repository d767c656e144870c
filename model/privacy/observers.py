"""ε of a plan's releases against each observer in each privacy mode, and over years (spec 6.6, 13.10).

Who sees what. Whoever reads releases sees sums under all the noise that went into them. Whoever also sees who took
part gets the same sums without amplification by sampling. The coordinator and the helper see who took part, and each
sees the sum under the other's noise alone; the two need not be equal. In modes `pairwise` and `local` the noise is made
by phones, and with it goes whoever does not take part; so there no amplification is claimed for anyone.

Two noises. Let X, Y be independent discrete Gaussians of whole σ₁, σ₂ ≥ 3, S² = σ₁² + σ₂² and τ = σ₁σ₂/S. Completing
the square, P(X + Y = k) ∝ exp(-k²/2S²)·Σ_j exp(-(j - kσ₁²/S²)²/2τ²). By Poisson summation the second factor is
τ√(2π)·(1 + 2·Σ_m exp(-2π²τ²m²)·cos(2πmkσ₁²/S²)), the same for every k within 1 ± e, e = 2·Σ_m exp(-2π²τ²m²). τ² grows
with either σ and is at least 9/2, so e < 2⁻¹¹² for equal and unequal noises alike, and the sum is the discrete Gaussian
of S within a factor exp(±2⁻¹¹⁰) at every integer. Spec 6.5 prices that one as continuous noise of variance S² - 4, and
(s₁ + 1)² + (s₂ + 1)² - 4 ≥ s₁² + s₂² where s₁ + s₂ ≥ 1. So with z from the helper and r·z from the coordinator a
release is priced as a Gaussian of √(1 + r²)·z, √2·z where they are equal; sums of many phones' shares by the same
step, share by share (Kairouz et al., ICML 2021, bound the same sum by its divergence from the discrete Gaussian).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from model.errors import BudgetError
from model.privacy.accountant import released
from model.privacy.gaussian import gaussian_epsilon
from model.privacy.mechanism import MAX_COUNT, NO_HELPER, GaussianRelease
from model.privacy.yearly import plan_rho

MODES = ("helper", "pairwise", "central", "local", "off")
CENTRAL_REASON = "in mode central the coordinator sees sums before it adds the noise, so no finite ε holds against it"
OFF_REASON = "in mode off no noise is added, so no finite ε holds against anyone"
HELPER_CONDITION = (
    "as long as the two servers do not pool what they see and each really adds its noise: "
    "each meets the other's noise alone"
)
LESS_NOISE = (
    "; the coordinator adds {share:.4g} of the noise that the helper adds, so a phone is less hidden from the helper "
    "than from the coordinator"
)
CENTRAL_CONDITION = "as long as the coordinator, which sees every sum, keeps it and the noise to itself"
LOCAL_CONDITION = "whatever the others do: each phone relies on its own noise alone"
PROMISED_TO = {  # whom the figure of `promised` is against, in words, by mode
    "helper": "the coordinator",
    "pairwise": "the coordinator",
    "central": "whoever reads releases",
    "local": "the coordinator",
}
MONTHS = {"one_year": 12, "five_years": 60}
Charges = Sequence[GaussianRelease]


@dataclass(frozen=True)
class Observers:
    """ε against each observer; None means that no finite ε holds, and the reason beside it says why.

    `released_models` sees every release. `participation_viewer` also sees who took part, so that sampling
    amplifies nothing against it. `replace_one` is `released_models` under the replace-one relation. `condition` is
    what the figures rest on. `alone_round` (mode pairwise) is what the noise of one phone leaves of the costliest
    single release when every other phone is the coordinator's.
    """

    released_models: float | None
    participation_viewer: float | None
    coordinator: float | None
    reason: str
    replace_one: float | None
    helper: float | None = None
    helper_reason: str = NO_HELPER
    condition: str = ""
    alone_round: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values only."""
        return asdict(self)


def observers(
    charges: Charges, delta: float, mode: str = "central", honest: int = 0, coordinator_noise: float = 1.0
) -> Observers:
    """ε of `charges` against each observer in a privacy mode; `honest` is the plan's h in mode pairwise.

    `coordinator_noise` r: in mode helper the charge's noise is the helper's, the coordinator's is r times it (13.16).
    BudgetError for an unknown mode, a mode pairwise without honest phones, or another share than 0 < r ≤ 1.
    """
    if mode not in MODES:
        raise BudgetError(f"no accounting is written for the privacy mode {mode!r}; use {', '.join(MODES)}")
    if (mode == "pairwise") != (honest >= 1):
        raise BudgetError(f"{honest} honest phones do not fit mode {mode}; mode pairwise, and no other, counts them")
    if not 0 < coordinator_noise <= 1 or (mode != "helper" and coordinator_noise != 1):
        raise BudgetError(f"a coordinator's noise of {coordinator_noise!r} does not fit mode {mode}; use 1")
    return _helper(charges, delta, coordinator_noise) if mode == "helper" else _SEEN[mode](charges, delta, honest)


def promised(charges: Charges, delta: float, mode: str) -> float:
    """ε against the strongest observer that the mode promises anything: what a plan's budget bounds.

    The coordinator, which sees who took part, in modes helper, pairwise and local; whoever reads releases in mode
    central. inf in mode off.
    """
    if mode == "off":
        return math.inf
    return released(as_promised(charges, mode), delta)


def as_promised(charges: Charges, mode: str) -> Charges:
    """What `promised` counts: amplified by sampling in mode central, and in no other."""
    return charges if mode == "central" else full(charges)


def full(charges: Charges) -> tuple[GaussianRelease, ...]:
    """The same releases with every phone in each of them: nothing is amplified."""
    return tuple(replace(c, sampling=1.0) for c in charges)


def noisier(charges: Charges, factor: float) -> tuple[GaussianRelease, ...]:
    """The same releases under `factor` times the noise."""
    return tuple(replace(c, noise_multiplier=factor * c.noise_multiplier) for c in charges)


def lifetime(
    charges: Charges, delta: float, mode: str, coordinator_noise: float = 1.0
) -> dict[str, dict[str, float | None]] | None:
    """ε of a phone that is in this plan every month for one year and for five.

    "composed" is exact composition of all releases against `promised`'s observer, "helper" the same against the helper
    (None without one), "zcdp" what the phone's own ledger implies: ρ = Σ count/2(rz)², no amplification, r the
    coordinator's share of noise, ε = ρ + 2√(ρ ln 1/δ) (Bun and Steinke, TCC 2016, Proposition 1.3). The same δ
    throughout. None in mode off.
    """
    if mode == "off":
        return None
    found: dict[str, dict[str, float | None]] = {}
    for name, months in MONTHS.items():
        again = tuple(replace(c, count=min(c.count * months, MAX_COUNT)) for c in charges)
        weakest = noisier(again, coordinator_noise)
        rho = plan_rho(again, coordinator_noise)
        zcdp = rho + 2 * math.sqrt(rho * math.log(1 / delta))
        helper = _finite(released(full(weakest), delta)) if mode == "helper" else None
        found[name] = {"composed": _finite(promised(again, delta, mode)), "helper": helper, "zcdp": _finite(zcdp)}
    return found


def _helper(charges: Charges, delta: float, share: float) -> Observers:
    """z against the coordinator, r·z against the helper, √(1 + r²)·z in releases."""
    both = noisier(charges, math.hypot(1.0, share))
    coordinator = _finite(released(full(charges), delta))
    helper = _finite(released(full(noisier(charges, share)), delta))
    return Observers(
        released_models=_finite(released(both, delta)),
        participation_viewer=_finite(released(full(both), delta)),
        coordinator=coordinator,
        reason="" if coordinator is not None else OFF_REASON,
        replace_one=_finite(released(both, delta, relation="replace-one")),
        helper=helper,
        helper_reason="" if helper is not None else OFF_REASON,
        condition=HELPER_CONDITION + (LESS_NOISE.format(share=share) if share < 1 else ""),
    )


def _pairwise(charges: Charges, delta: float, honest: int) -> Observers:
    condition = (
        f"provided at least {honest:,} of the phones in every sum are honest, at most the plan's share of them is "
        "corrupt, and the witness does not collude with the server"
    )
    alone = max((_one(c, delta, honest) for c in charges), default=0.0)
    return replace(_local(charges, delta, honest), condition=condition, alone_round=_finite(alone))


def _central(charges: Charges, delta: float, honest: int) -> Observers:
    return Observers(
        released_models=_finite(released(charges, delta)),
        participation_viewer=_finite(released(full(charges), delta)),
        coordinator=None,
        reason=CENTRAL_REASON,
        replace_one=_finite(released(charges, delta, relation="replace-one")),
        condition=CENTRAL_CONDITION,
    )


def _local(charges: Charges, delta: float, honest: int) -> Observers:
    seen = full(charges)
    everyone = _finite(released(seen, delta))
    return Observers(
        released_models=everyone,
        participation_viewer=everyone,
        coordinator=everyone,
        reason="" if everyone is not None else OFF_REASON,
        replace_one=_finite(released(seen, delta, relation="replace-one")),
        condition=LOCAL_CONDITION,
    )


def _off(charges: Charges, delta: float, honest: int) -> Observers:
    return Observers(None, None, None, OFF_REASON, None, None, OFF_REASON)


def _one(charge: GaussianRelease, delta: float, honest: int) -> float:
    """ε of one release under one phone's own share of the noise, z/√h."""
    z = charge.noise_multiplier
    return gaussian_epsilon(math.sqrt(honest) / z, delta) if z else math.inf


def _finite(eps: float) -> float | None:
    return eps if math.isfinite(eps) else None


_SEEN: dict[str, Callable[[Charges, float, int], Observers]] = {
    "pairwise": _pairwise,
    "central": _central,
    "local": _local,
    "off": _off,
}
