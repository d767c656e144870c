"""What a lender offers, by band: price, limit and outcome, published as a signed card (spec 10.2, 10.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fl_server.lending.loan import MAX_LIMIT
from model.canonical import decode
from model.contract.envelope import Signed, SigningKey, keyid, sign, verify
from model.contract.release import ScoreScale
from model.contract.score import SCORE_MAX, SCORE_MIN
from model.errors import ContractError, InputError, SignatureError
from model.risk.scorecard import band

DOMAIN = "lender/1"
SCALE = ScoreScale(grid=10, days=30)
OUTCOMES = ("approve", "refer", "decline")
ASSUMPTION = (
    "1.8 % is taken as a month's interest on the reducing balance: 21.6 % nominal and 23.9 % effective a year; "
    "its source gives no period."
)


@dataclass(frozen=True)
class BandTerms:
    """What one band gets: an outcome, a limit in rupees, a monthly rate on the reducing balance."""

    band: str
    outcome: str
    limit: int
    monthly_rate: float

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES or not 0 <= self.limit <= MAX_LIMIT or not 0 <= self.monthly_rate < 1:
            raise InputError(f"band {self.band!r} needs an outcome of {OUTCOMES}, a limit ≤ {MAX_LIMIT} and a rate < 1")


@dataclass(frozen=True)
class RateCard:
    """Terms by band from best to worst, and what all bands share.

    Between approve and decline stands at least one band that is referred to a person, so that noise in a
    score never turns an approval into a decline. `cooling_off_days` is at least 1.
    """

    months: int
    fee_share: float
    cooling_off_days: int
    bands: tuple[BandTerms, ...]
    assumption: str = ASSUMPTION
    currency: str = "INR"

    def __post_init__(self) -> None:
        order = [OUTCOMES.index(terms.outcome) for terms in self.bands]
        if order != sorted(order) or set(order) != {0, 1, 2}:
            raise InputError(
                "a rate card goes from approve over refer to decline, with each of them; reorder its bands"
            )
        if self.cooling_off_days < 1 or not 0 <= self.fee_share < 0.2 or not 1 <= self.months <= 60:
            raise InputError("a rate card needs a cooling-off of 1 day or more, a fee below 20 % and 1 to 60 months")

    def terms(self, name: str) -> BandTerms:
        """The terms of one band; ContractError where the card does not know it."""
        for terms in self.bands:
            if terms.band == name:
                return terms
        raise ContractError(f"the rate card has no band {name!r}; ask for a score of this release")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for canonical encoding."""
        return {**asdict(self), "bands": [asdict(terms) for terms in self.bands]}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> RateCard:
        """Inverse of `to_dict`; ContractError on missing or unknown keys."""
        try:
            return cls(**{**raw, "bands": tuple(BandTerms(**terms) for terms in raw["bands"])})
        except (KeyError, TypeError) as error:
            raise ContractError(f"a rate card is malformed ({error}); ask the lender for it again") from error


@dataclass(frozen=True)
class Pricing:
    """A lender's costs, all shares a month of the outstanding balance but `lgd`, the share lost on default.

    The defaults are assumptions of this project: they price the scale's base odds of 8:1 at 1.8 % a month.
    """

    funding: float = 0.0075
    cost: float = 0.0028
    lgd: float = 0.45
    cap: float = 0.03
    months: int = 12
    fee_share: float = 0.02
    cooling_off_days: int = 3
    limits: tuple[int, ...] = (100_000, 75_000, 50_000, 25_000, 0)
    outcomes: tuple[str, ...] = ("approve", "approve", "approve", "refer", "decline")

    def rate(self, pd: float) -> float:
        """Funding + expected loss + cost, capped, to six decimals.

        The loss `pd · lgd` of the principal is spread over the (months + 1) / 2 months for which it is lent on average.
        """
        expected_loss = pd * self.lgd / ((self.months + 1) / 2)
        return round(min(self.cap, self.funding + expected_loss + self.cost), 6)

    def card(self) -> RateCard:
        """The rate card these costs give over the bands of the score scale."""
        bands = band_scores()
        if not len(bands) == len(self.limits) == len(self.outcomes):
            raise InputError(f"pricing needs a limit and an outcome for each of the bands {', '.join(bands)}")
        rows = [
            BandTerms(name, outcome, limit, self.rate(sum(map(pd_of, scores)) / len(scores)))
            for (name, scores), outcome, limit in zip(bands.items(), self.outcomes, self.limits, strict=True)
        ]
        return RateCard(self.months, self.fee_share, self.cooling_off_days, tuple(rows))


def band_scores() -> dict[str, list[int]]:
    """The scores (ten points apart) of each band, best band first."""
    found: dict[str, list[int]] = {}
    for score in range(SCORE_MAX, SCORE_MIN - 1, -10):
        found.setdefault(band(score), []).append(score)
    return found


def pd_of(score: float, scale: ScoreScale = SCALE) -> float:
    """The PD a score stands for: 600 points at 8:1 good odds, 60 points double the odds."""
    return float(1 / (1 + scale.odds * 2 ** ((score - scale.base) / scale.pdo)))


@dataclass(frozen=True)
class LenderCard:
    """A lender as phones see it: who, where to seal, for what, at which terms, until when (unix s)."""

    name: str
    audience: str
    hpke_public: str
    signing_public: str
    purposes: tuple[str, ...]
    rate_card: RateCard
    expires_at: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for canonical encoding."""
        return {**asdict(self), "purposes": list(self.purposes), "rate_card": self.rate_card.to_dict()}

    def signed(self, key: SigningKey) -> Signed:
        """The card in domain `lender/1`, signed with the key it names."""
        return sign(DOMAIN, self.to_dict(), [key])

    @classmethod
    def opened(cls, signed: Signed, now: int) -> LenderCard:
        """Verify a card by the key it names; whether that key is the lender's is for the reader to know.

        SignatureError for a wrong signature, ContractError for a malformed or expired card.
        """
        try:
            named = bytes.fromhex(_peek(signed)["signing_public"])
            raw = verify(signed, DOMAIN, {keyid(named): named})
            card = RateCard.from_dict(raw["rate_card"])
            opened = cls(**{**raw, "purposes": tuple(raw["purposes"]), "rate_card": card})
        except (KeyError, TypeError, ValueError) as error:
            raise ContractError(f"a lender card is malformed ({error}); ask the lender for it again") from error
        if opened.expires_at <= now:
            raise ContractError(f"the card of {opened.name} has expired; ask the lender for a new one")
        return opened


def _peek(signed: Signed) -> dict[str, Any]:
    raw = decode(signed.payload)
    if not isinstance(raw, dict):
        raise SignatureError("a lender card carries no map; ask the lender for it again")
    return raw
