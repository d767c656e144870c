"""Features of small hand-made phones, computed by hand; refusal, thin files, and what may never be read."""

import subprocess
import sys

import numpy as np
import pytest

from fl_client.events import APP_CATEGORIES, COLUMNS, EventBatch, from_columns, to_columns
from fl_client.features import EXTRACTORS, extract, labelled_rows
from model.errors import InputError, SchemaError
from model.risk.registry import FEATURES, R_DEFAULT, default_schema
from model.risk.schema import Schema

SCHEMA = default_schema(R_DEFAULT)


def _events(name: str, **columns: object) -> dict[str, np.ndarray]:
    rows = max(np.size(values) for values in columns.values())
    filled = {column: np.zeros(rows, dtype=int) for column in COLUMNS[name]}
    filled.update({column: np.broadcast_to(values, rows) for column, values in columns.items()})
    return filled


def _phone(**types: dict[str, np.ndarray]) -> EventBatch:
    own = _events("own_app", day=0, install_day=-100)
    return from_columns({"own_app": own, **types})


def _values(batch: EventBatch, start: int = 90) -> dict[str, float]:
    return dict(zip(SCHEMA.names, extract(batch, SCHEMA, [start])[0].tolist(), strict=True))


def test_own_app_gives_observed_days_and_tenure():
    found = _values(_phone(), start=40)
    assert (found["observed_days"], found["app_tenure"]) == (40, 140)
    assert _values(_phone(), start=300)["observed_days"] == 90


def test_app_sessions_by_hand():
    codes = [APP_CATEGORIES.index(name) for name in ["loan"] * 4 + ["gambling"] * 2 + ["finance"] * 6 + ["news"] * 28]
    minute = [1380, 0, 299, 300, 1379] + [600] * 35
    found = _values(
        _phone(app_session=_events("app_session", day=5, category=codes, minute=minute, duration_s=[60, 180] * 20))
    )
    assert found["loan_app_share"] == pytest.approx(0.1)
    assert found["gambling_share"] == pytest.approx(0.05)
    assert found["finance_share"] == pytest.approx(0.15)
    assert found["night_share"] == pytest.approx(3 / 40)
    assert found["session_cv"] == pytest.approx(0.5)


def test_messages_by_hand():
    template = [0, 0, 0, 0, 2, 3, 3, 3]  # credits, a bounce, instalments
    day = [0, 30, 60, 61, 70, 10, 40, 70]
    amount = [1000, 3000, 2000, 200, 5, 300, 300, 20]
    sender = [1, 1, 1, 2, 3, 7, 7, 8]
    found = _values(_phone(sms=_events("sms", day=day, template=template, amount=amount, sender=sender)))
    assert found["salary_median"] == 2000
    assert found["salary_regularity"] == pytest.approx(2 / 3)  # 1000 is below half of 3000
    totals = np.array([1000, 3000, 2200])
    assert found["salary_volatility"] == pytest.approx(totals.std() / totals.mean())
    assert found["income_sources"] == 2
    assert found["bounces"] == pytest.approx(1 / 3)
    assert found["emi_burden"] == pytest.approx(620 / 6200)
    assert found["concurrent_lenders"] == 2


def test_payments_by_hand():
    # out: 2 to people, 5 to shops of which 2 return visits, 1 subscription, 1 failed; in: 1, which does not count
    kind = [0, 0, 1, 1, 1, 1, 1, 3, 1, 0]
    found = _values(
        _phone(
            upi=_events(
                "upi", day=[80] * 10, kind=kind, status=[0] * 8 + [1, 0], direction=[0] * 9 + [1],
                amount=[10, 20, 30, 40, 50, 60, 70, 80, 900, 900],
                counterparty_hash=[1, 2, 11, 11, 12, 12, 13, 20, 30, 40],
                counterparty_kind=[0, 0, 1, 1, 1, 1, 1, 1, 1, 0],
            )
        )
    )  # fmt: skip
    assert found["upi_rate"] == pytest.approx(8 / 90)
    assert found["upi_median"] == 45
    assert found["upi_fail"] == pytest.approx(1 / 9)
    assert found["p2p_share"] == pytest.approx(2 / 8)
    assert found["merchant_repeat"] == pytest.approx(2 / 6)
    assert found["wallet_counterparties"] == 6
    assert found["subscription_continuity"] == 1.0


def test_bills_topups_and_charges_by_hand():
    bill = _events("bill", day=[10, 20, 30, 44], paid=[10, 20, 30, 44], due=[12, 20, 28, 40])
    topup = _events("topup", day=[1, 2, 3], amount=[100, 200, 300])
    charge = _events("charge", day=[1] * 6, minute=[1380, 60, 1380, 60, 1380, 60], start_pct=[14, 15, 80, 5, 60, 50])
    found = _values(_phone(bill=bill, topup=topup, charge=charge))
    assert (found["bill_on_time"], found["bill_delay"]) == (0.5, 1.5)
    assert found["topup_mean"] == 200 and found["topup_rate"] == 1.0
    assert found["topup_cv"] == pytest.approx(np.std([1, 2, 3]) / 2)
    assert found["battery_low"] == pytest.approx(2 / 6)
    assert found["charge_hour_sd"] == pytest.approx(1.0, rel=0.01)  # around midnight the clock closes


def test_latest_record_counts_and_receipts_by_hand():
    device = _events(
        "device", day=[0, 50, 95], tier=[1, 2, 3], os_month=[-5, -2, 9], storage=[10, 20, 90], since_day=-30
    )
    form = _events("form", day=0, typos=3, occupation=2, education=4)
    outcome = _events("outcome", day=[20, 30, 60, 91], late=[0, 1, 0, 1], start_day=-9)
    found = _values(_phone(device=device, form=form, outcome=outcome))
    assert (found["device_tier"], found["os_age"], found["storage_free"]) == (2, 5, 20)
    assert found["device_tenure"] == 120
    assert (found["form_typos"], found["occupation_declared"], found["education"]) == (3, 2, 4)
    assert found["prior_on_time"] == pytest.approx(2 / 3)


def test_refused_sources_are_missing_and_others_are_untouched():
    batch = _phone(bill=_events("bill", day=[1], paid=[1], due=[1]), topup=_events("topup", day=[1], amount=[5]))
    whole, part = _values(batch), _values(batch.without("bill"))
    assert np.isnan(part["bill_on_time"]) and whole["bill_on_time"] == 1.0
    assert part["topup_mean"] == whole["topup_mean"] == 5.0
    assert not np.isnan(_values(batch.without("own_app"))["topup_rate"])


def test_thin_files_are_missing_not_zero():
    topup = _events("topup", day=[1, 2], amount=[5, 9])
    found = _values(_phone(topup=topup), start=5)
    assert np.isnan(found["topup_cv"]) and np.isnan(found["topup_rate"]) and found["topup_mean"] == 7
    assert np.isnan(_values(_phone())["upi_rate"])


def test_a_phone_without_a_single_event_has_no_feature():
    nothing = from_columns({name: {column: [] for column in columns} for name, columns in COLUMNS.items()})
    assert np.isnan(extract(nothing, SCHEMA, [90])).all()
    assert extract(nothing, SCHEMA, [], phone=[]).shape == (0, len(SCHEMA.names))


def test_values_are_clipped_to_public_bounds():
    found = _values(_phone(topup=_events("topup", day=[1], amount=[4_000_000_000])))
    assert found["topup_mean"] == FEATURES["topup_mean"].upper


def test_no_feature_reads_a_sealed_or_unused_type():
    unused = {"contact", "call", "browse", "mobility"}
    assert unused.isdisjoint(EXTRACTORS)
    assert {FEATURES[name].source for name in SCHEMA.names} == set(EXTRACTORS)


def test_a_forbidden_feature_is_refused():
    schema = Schema("bad", "1", (FEATURES["upi_rate"], FEATURES["contact_count"]))
    with pytest.raises(SchemaError, match="contact_count"):
        extract(_phone(), schema, [90])
    assert extract(_phone(), Schema("good", "1", (FEATURES["upi_rate"],)), [90]).shape == (1, 1)


def test_one_start_day_a_row():
    with pytest.raises(SchemaError, match="start day"):
        extract(_phone(), SCHEMA, [90, 91])
    assert extract(_phone(), SCHEMA, [90, 91], phone=[0, 0]).shape == (2, len(SCHEMA.names))


def test_labelled_rows_are_the_loans_begun_under_observation():
    outcome = _events("outcome", day=[70, 80, 130, 140], late=[0, 1, 1, 0], start_day=[0, -4, 60, 30])
    found = labelled_rows(_phone(outcome=outcome))
    assert found.start_days.tolist() == [30, 60] and found.y.tolist() == [0.0, 1.0]
    assert len(labelled_rows(_phone(outcome=outcome).without("outcome")).y) == 0


def test_store_columns_round_trip_and_are_sorted():
    batch = _phone(topup=_events("topup", day=[9, 3, 5], amount=[1, 2, 3]))
    assert batch.tables["topup"]["day"].tolist() == [3, 5, 9]
    again = from_columns(to_columns(batch))
    assert all(
        np.array_equal(again.tables[name][column], batch.tables[name][column])
        for name in batch.tables
        for column in COLUMNS[name]
    )
    with pytest.raises(InputError, match="one phone"):
        to_columns(EventBatch(2, {}))


@pytest.mark.parametrize(
    ("stored", "word"),
    [
        ({"photo": {"day": [1]}}, "photo"),
        ({"topup": {"day": [1]}}, "columns"),
        ({"topup": {"day": [1, 2], "minute": [0], "amount": [5]}}, "length"),
        ({"topup": {"day": [1], "minute": [0], "amount": [-5]}}, "amount"),
        ({"topup": {"day": [1], "minute": [0], "amount": [0.5]}}, "amount"),
    ],
)
def test_malformed_columns_are_refused_in_one_sentence(stored, word):
    with pytest.raises(InputError, match=word):
        from_columns(stored)


def test_features_import_no_heavy_library():
    code = "import sys, fl_client.features; print({'torch', 'flwr', 'scipy', 'pandas'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
