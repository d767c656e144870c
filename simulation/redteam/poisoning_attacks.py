"""What hostile phones send in place of their updates; those that respect the clip and those that do not (spec 13.13).

They know everything: every honest update of the round before they send their own, and one another. No real attacker
under masks does, so what survives these survives less; "ipm-guess" alone needs nothing but the hostile phones' rows.
Where a strength is named it is that of the paper's, or ten: at a tenth of hostile phones that is the least with which
the inner product turns round.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from fl_client.update import encode_rows
from model.errors import InputError

Matrix = NDArray[np.float64]
Ints = NDArray[np.int64]

SIGN = 4.0
INNER = 10.0
BACKDOOR = 10.0
ALIE_SEEN = 1.5  # z of Baruch et al. on MNIST, beyond what their own formula allows here


@dataclass(frozen=True)
class View:
    """What hostile phones see in a round, in model units: `own` (m, d) updates as their phones trained them, before the
    clip; of the honest updates as they will be sent, `mean` and `spread` (d,), the latter only for who needs it; the
    number of phones, the clip norm and the grid's scale."""

    own: Matrix
    mean: Matrix
    spread: Matrix
    phones: int
    clip: float
    scale: int

    @property
    def along(self) -> Matrix:
        """Unit vector of the honest mean, (d,); zeros where it vanishes."""
        length = float(np.linalg.norm(self.mean))
        return self.mean / length if length else self.mean


Forge = Callable[[View], Matrix]


@dataclass(frozen=True)
class Attack:
    """One way to lie. `poison` is what hostile phones train on ("labels" flipped, a "backdoor", or their own rows);
    `forge` gives what they send, (m, d) or one (d,) for all; `clipped`: whether they then clip as they should;
    `spread`: whether they must know how honest updates differ."""

    name: str
    says: str
    forge: Forge = field(default=lambda view: view.own)
    poison: str = ""
    clipped: bool = True
    spread: bool = False

    def units(self, view: View) -> Ints:
        """Grid units (m, d) int64 that the hostile phones send."""
        sent = np.array(np.broadcast_to(self.forge(view), view.own.shape), dtype=np.float64)
        if self.clipped:
            return encode_rows(sent, view.clip, view.scale)[0].astype(np.int64)
        return np.trunc(sent * float(view.scale)).astype(np.int64)


def alie_z(phones: int, hostile: int) -> float:
    """How many standard deviations hide among honest phones (Baruch et al., NeurIPS 2019, algorithm 3).

    z = Φ⁻¹((n - m - s)/(n - m)) with s = ⌊n/2 + 1⌋ - m honest supporters needed for a majority; 0 where none remain.
    """
    supporters = phones // 2 + 1 - hostile
    share = (phones - hostile - supporters) / (phones - hostile)
    return max(NormalDist().inv_cdf(share), 0.0) if 0 < share < 1 else 0.0


def _alie(view: View) -> Matrix:
    return view.mean - alie_z(view.phones, len(view.own)) * view.spread


def _loud(times: float) -> Forge:
    """`times` the clip norm, against the honest mean."""
    return lambda view: -times * view.clip * view.along


NONE = Attack("none", "no hostile phone")
ATTACKS: dict[str, Attack] = {
    attack.name: attack
    for attack in (
        Attack("sign-flip", f"its own update, turned round, ×{SIGN:g}, clipped", lambda view: -SIGN * view.own),
        Attack("label-flip", "trains as it should, on its rows with labels flipped", poison="labels"),
        Attack("alie", "honest mean - z · spread, z of Baruch et al. 2019", _alie, spread=True),
        Attack("alie-1.5", "the same with z = 1.5", lambda view: view.mean - ALIE_SEEN * view.spread, spread=True),
        Attack("ipm-1", "minus the honest mean (Xie et al. 2020)", lambda view: -view.mean),
        Attack("ipm-10", "minus ten times the honest mean, clipped", lambda view: -INNER * view.mean),
        Attack(
            "ipm-guess",
            "minus ten times what the hostile phones' own updates average to, clipped: no honest update need be seen",
            lambda view: -INNER * view.own.mean(axis=0),
        ),
        Attack("ipm-clip", "against the honest mean, as long as the clip allows", _loud(1.0)),
        Attack(
            "backdoor",
            f"trains on its rows with the trigger and a good label, ×{BACKDOOR:g}, clipped",
            lambda view: BACKDOOR * view.own,
            poison="backdoor",
        ),
        Attack("no-clip-10", "against the honest mean, 10 times the clip norm", _loud(10.0), clipped=False),
        Attack("no-clip-1000", "against the honest mean, 1,000 times the clip norm", _loud(1000.0), clipped=False),
    )
}


def attack_of(name: str) -> Attack:
    """By name. InputError for one that does not exist."""
    if name == NONE.name:
        return NONE
    if name not in ATTACKS:
        raise InputError(f"there is no attack {name!r}; choose among {', '.join(ATTACKS)}")
    return ATTACKS[name]


def require_share(share: float) -> None:
    """InputError for a share of hostile phones outside 0 to .5."""
    if not 0 <= share < 0.5:
        raise InputError(f"a hostile share of {share:g} is outside 0 to .5; use .1 or .2")


def hostile_of(phones: int, share: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """Which of `phones` are hostile, (phones,): the share of them, drawn without replacement, at least one.

    InputError for a share outside 0 to .5.
    """
    require_share(share)
    chosen = random.choice(phones, max(1, math.floor(share * phones)), replace=False)
    return np.isin(np.arange(phones), chosen)
