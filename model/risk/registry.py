"""Every feature PocketScore knows by name: the O and R it computes, the X it refuses (spec 4.1)."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from model.errors import SchemaError
from model.risk.schema import Feature, Schema

SCHEMA_NAME = "pocketscore-phone"
SCHEMA_VERSION = "1"
OCCUPATIONS = ("salaried", "self_employed", "gig", "student", "homemaker", "unemployed", "retired", "other")


def _number(
    profile: str,
    permission: str,
    name: str,
    source: str,
    bounds: tuple[float, float],
    unit: str,
    sign: int,
    reason: str,
) -> Feature:
    """A number on a linear grid, or on a signed-log grid where the public range spans more than two decades."""
    lower, upper = bounds
    grid = "signed_log" if upper > 100 else "linear"
    return Feature(
        name=name, kind="number", lower=lower, upper=upper, grid=grid, profile=profile, permission=permission,
        source=source, unit=unit, sign=sign, reason=reason,
    )  # fmt: skip


def _identity() -> Iterable[Feature]:
    def o(name: str, source: str, bounds: tuple[float, float], unit: str, sign: int, reason: str) -> Feature:
        return _number("identity", "O", name, source, bounds, unit, sign, reason)

    yield o("device_tier", "device", (0, 3), "tier", -1, "The price class of the phone in use.")
    yield o("os_age", "device", (0, 72), "months", 1, "The phone's system software has gone long without an update.")
    yield o("device_tenure", "device", (0, 2500), "days", -1, "This phone has been in use for a short time.")
    yield o("storage_free", "device", (0, 100), "percent", -1, "Little of the phone's storage is free.")
    yield o("form_typos", "form", (0, 30), "corrections", 1, "The application form needed many corrections.")
    yield o("observed_days", "own_app", (0, 90), "days", -1, "The app has few days of activity to look at.")


def _life_stage() -> Iterable[Feature]:
    def r(name: str, source: str, bounds: tuple[float, float], unit: str, sign: int, reason: str) -> Feature:
        return _number("life_stage", "R", name, source, bounds, unit, sign, reason)

    yield r(
        "salary_regularity", "sms", (0, 1), "share of months", -1, "The main monthly credit does not come every month."
    )
    yield r("salary_median", "sms", (0, 1e6), "INR", -1, "The main monthly credit is small.")
    yield r("salary_volatility", "sms", (0, 3), "ratio", 1, "Money received varies much from month to month.")
    yield r("income_sources", "sms", (0, 20), "senders", 0, "The number of different senders of money received.")
    yield Feature(
        name="occupation_declared", kind="category", lower=0, upper=7, grid="linear", buckets=len(OCCUPATIONS),
        values=OCCUPATIONS, profile="life_stage", permission="O", source="form", unit="code",
        reason="The occupation stated on the application form.",
    )  # fmt: skip
    yield r("education", "form", (0, 4), "level", -1, "The level of education stated on the application form.")


def _lifestyle() -> Iterable[Feature]:
    def use(name: str, upper: float, sign: int, reason: str, unit: str = "share of sessions") -> Feature:
        return _number("lifestyle", "R", name, "app_session", (0, upper), unit, sign, reason)

    yield use("night_share", 1, 1, "A large share of app use falls between 11 pm and 5 am.")
    yield use("session_cv", 4, 1, "The length of app sessions varies much.", unit="ratio")
    yield use("loan_app_share", 0.4, 1, "A large share of app use is in loan apps.")
    yield use("gambling_share", 0.4, 1, "A large share of app use is in betting apps.")
    yield use("finance_share", 0.5, -1, "A small share of app use is in banking and savings apps.")
    yield use("productivity_share", 0.6, -1, "A small share of app use is in work and study apps.")
    yield use("shopping_share", 0.6, 0, "The share of app use in shopping apps.")
    yield _number(
        "lifestyle", "O", "battery_low", "charge", (0, 1), "share of charges", 1,
        "Charging often starts with an almost empty battery.",
    )  # fmt: skip
    yield _number(
        "lifestyle", "O", "charge_hour_sd", "charge", (0, 12), "hours", 1, "The hour of charging varies much."
    )


def _social() -> Iterable[Feature]:
    def r(name: str, bounds: tuple[float, float], unit: str, sign: int, reason: str) -> Feature:
        return _number("social", "R", name, "upi", bounds, unit, sign, reason)

    yield r(
        "wallet_counterparties",
        (0, 300),
        "counterparties",
        -1,
        "The wallet is used with few different people and shops.",
    )
    yield r("p2p_share", (0, 1), "share of payments", 0, "The share of wallet payments made to people, not shops.")


def _payments() -> Iterable[Feature]:
    def o(name: str, source: str, bounds: tuple[float, float], unit: str, sign: int, reason: str) -> Feature:
        return _number("brand_loyalty", "O", name, source, bounds, unit, sign, reason)

    def r(name: str, bounds: tuple[float, float], unit: str, sign: int, reason: str) -> Feature:
        return _number("brand_loyalty", "R", name, "sms", bounds, unit, sign, reason)

    yield o("bill_on_time", "bill", (0, 1), "share of bills", -1, "Some recent bills were paid after their due date.")
    yield o("bill_delay", "bill", (0, 30), "days", 1, "Bills are paid many days after their due date on average.")
    yield o("upi_rate", "upi", (0, 20), "payments a day", -1, "The wallet is seldom used for payments.")
    yield o("upi_median", "upi", (0, 50_000), "INR", -1, "The typical wallet payment is small.")
    yield o("upi_fail", "upi", (0, 0.5), "share of payments", 1, "Many wallet payments failed.")
    yield o("topup_mean", "topup", (0, 5_000), "INR", -1, "The average prepaid recharge is small.")
    yield o("topup_rate", "topup", (0, 30), "recharges in 30 days", 1, "Prepaid recharges are very frequent.")
    yield o("topup_cv", "topup", (0, 3), "ratio", 1, "The amounts of prepaid recharges vary much.")
    yield o("merchant_repeat", "upi", (0, 1), "share of payments", -1, "Few wallet payments go to a shop paid before.")
    yield o(
        "subscription_continuity", "upi", (0, 1), "share of months", -1, "Subscriptions were not paid in every month."
    )
    yield o("app_tenure", "own_app", (0, 2500), "days", -1, "The app has been installed for a short time.")
    yield o("prior_on_time", "outcome", (0, 1), "share of loans", -1, "Earlier loans were not all repaid on time.")
    yield r("bounces", (0, 10), "messages in 30 days", 1, "Payments bounced for lack of funds.")
    yield r("emi_burden", (0, 2), "ratio", 1, "Loan instalments take a large part of the money received.")
    yield r("concurrent_lenders", (0, 12), "lenders", 1, "Instalments are being paid to several lenders at once.")


def _forbidden() -> Iterable[Feature]:
    def x(profile: str, name: str, source: str, sign: int) -> Feature:
        return _number(profile, "X", name, source, (0, 1e4), "", sign, "This feature is never used.")

    yield x("identity", "sim_swaps", "telephony", 1)
    yield x("identity", "language", "device", 0)
    yield x("life_stage", "job_change", "sms", 1)
    yield x("life_stage", "divorce_inferred", "sms", 1)
    yield x("lifestyle", "browser_mix", "browse", 0)
    yield x("lifestyle", "home_regularity", "mobility", -1)
    yield x("lifestyle", "cells_per_day", "mobility", 0)
    yield x("social", "contact_count", "contact", -1)
    yield x("social", "call_entropy", "call", -1)
    yield x("social", "sms_peers", "sms", -1)
    yield x("social", "defaulter_network", "contact", 1)


FEATURES: dict[str, Feature] = {
    feature.name: feature
    for group in (_identity, _life_stage, _lifestyle, _social, _payments, _forbidden)
    for feature in group()
}
"""All features by name, in schema order; X features stand here so that a plan naming one is refused with its rule."""

O_FEATURES: tuple[str, ...] = tuple(f.name for f in FEATURES.values() if f.permission == "O")
R_DEFAULT: tuple[str, ...] = tuple(f.name for f in FEATURES.values() if f.permission == "R")
X_FEATURES: tuple[str, ...] = tuple(f.name for f in FEATURES.values() if f.permission == "X")


def default_schema(review: Collection[str] = ()) -> Schema:
    """All O features and the R features named in `review`, in registry order.

    `review` is a set: its order does not change the schema or its digest. A plan that carries R features needs the
    reviewer's signature. SchemaError on a name that is not an R feature (an X feature has no way in here).
    """
    for name in review:
        if name not in FEATURES:
            raise SchemaError(f"there is no feature {name!r}; see model/risk/registry.py for the names")
        if FEATURES[name].permission != "R":
            raise SchemaError(
                f"feature {name!r} is {FEATURES[name].permission}, not R; name only R features for review"
            )
    wanted = {*O_FEATURES, *review}
    chosen = tuple(f for f in FEATURES.values() if f.name in wanted)
    return Schema(name=SCHEMA_NAME, version=SCHEMA_VERSION, features=chosen)
