"""Loan arithmetic in whole paise: instalments on the reducing balance, and the APR as an IRR (spec 10.6)."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache

from model.errors import InputError

MAX_LIMIT = 100_000
PAISE = 100
RATE_STEP = Decimal("0.000001")


@dataclass(frozen=True)
class Loan:
    """`amount` and `fee` in rupees, `monthly_rate` a share of the outstanding balance, equal monthly instalments."""

    amount: int
    months: int
    monthly_rate: float
    fee: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.amount <= MAX_LIMIT:
            raise InputError(f"a loan of Rs {self.amount} is outside 1 to {MAX_LIMIT}; ask for an amount within it")
        if not 1 <= self.months <= 60 or not 0 <= self.monthly_rate < 1 or not 0 <= self.fee < self.amount:
            raise InputError("a loan needs 1 to 60 months, a monthly rate below 1 and a fee below its amount")


@lru_cache(4096)
def schedule(loan: Loan) -> tuple[int, ...]:
    """Instalments in paise, one a month; all are equal but the last, which settles the rounding.

    The rate counts to six decimals (a ten-thousandth of a percent).
    """
    rate = Decimal(loan.monthly_rate).quantize(RATE_STEP)
    principal = Decimal(loan.amount * PAISE)
    growth = (1 + rate) ** loan.months
    exact = principal * rate * growth / (growth - 1) if rate else principal / loan.months
    level = int(exact.to_integral_value(ROUND_CEILING))
    balance = principal
    for _ in range(loan.months - 1):
        balance = balance * (1 + rate) - level
    last = int((balance * (1 + rate)).to_integral_value(ROUND_CEILING))
    return (level,) * (loan.months - 1) + (last,)


def monthly_irr(net: int, payments: tuple[int, ...]) -> float:
    """The monthly rate at which `payments` (paise, months 1…n) are worth `net` (paise) today; by bisection."""
    low, high = 0.0, 10.0
    for _ in range(200):
        middle = (low + high) / 2
        value = sum(paid / (1 + middle) ** month for month, paid in enumerate(payments, 1))
        low, high = (middle, high) if value > net else (low, middle)
    return (low + high) / 2


@lru_cache(4096)
def apr(loan: Loan) -> float:
    """Annual percentage rate as a share: 12 × the IRR of what is paid out after fees (RBI KFS circular, April 2024).

    RBI's own illustration (Rs 20,000, 15 % a year, 24 months, Rs 400 of fees) gives 17.07 % this way.
    """
    return 12 * monthly_irr((loan.amount - loan.fee) * PAISE, schedule(loan))


def effective_year(monthly: float) -> float:
    """What a monthly rate compounds to in a year: 1.8 % a month is 23.9 %."""
    return float((1 + monthly) ** 12 - 1)
