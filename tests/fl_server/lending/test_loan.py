"""Instalments add up, and the APR is the IRR that RBI's illustration prints."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_server.lending.loan import Loan, apr, effective_year, monthly_irr, schedule
from model.errors import InputError


def test_the_apr_of_the_regulators_illustration() -> None:
    loan = Loan(20_000, 24, 0.15 / 12, fee=400)
    assert schedule(loan)[0] == pytest.approx(96_973, abs=1)
    assert apr(loan) == pytest.approx(0.1707, abs=5e-5)


def test_without_fees_the_apr_is_the_nominal_rate_and_a_fee_raises_it() -> None:
    assert apr(Loan(50_000, 12, 0.018)) == pytest.approx(0.216, abs=1e-5)
    assert apr(Loan(50_000, 12, 0.018, fee=1000)) > 0.25


def test_the_stated_month_rate_is_the_stated_year_rate() -> None:
    assert effective_year(0.018) == pytest.approx(0.239, abs=5e-4)


@given(st.integers(100, 100_000), st.integers(1, 60), st.floats(0, 0.05))
def test_a_schedule_repays_the_loan_at_its_own_rate(amount: int, months: int, rate: float) -> None:
    payments = schedule(Loan(amount, months, rate))
    assert len(payments) == months
    assert monthly_irr(amount * 100, payments) == pytest.approx(rate, abs=2e-4)
    assert sum(payments) >= amount * 100
    assert 0 <= payments[0] - payments[-1] <= 400


@pytest.mark.parametrize(
    "bad", [{"amount": 100_001}, {"amount": 0}, {"months": 0}, {"fee": 500}, {"monthly_rate": -0.1}]
)
def test_a_loan_outside_its_bounds_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Loan(**{"amount": 500, "months": 12, "monthly_rate": 0.018, **bad})  # type: ignore[arg-type]
