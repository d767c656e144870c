"""Populations: the same phone alone or in a chunk, no look ahead, sensible sizes, and the statistics of the domain."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fl_client.events import COLUMNS, EventBatch, from_columns, to_columns
from fl_client.features import extract, labelled_rows
from model.errors import InputError
from model.risk.registry import FEATURES, R_DEFAULT
from simulation.population import generate
from simulation.population.compose import compose
from simulation.population.generate import (
    CHUNK,
    PROTECTED_VALUES,
    Population,
    Rows,
    events,
    events_range,
    rows,
)

POP = Population(seed=11, phones=2 * CHUNK + 40)
BIG = 6000


@pytest.fixture(scope="module")
def bulk() -> Rows:
    return rows(POP, 0, POP.phones)


@pytest.fixture(scope="module", params=["default", "weak"])
def regime(request: pytest.FixtureRequest) -> tuple[str, Rows]:
    return request.param, rows(Population(3, BIG, request.param), 0, BIG)


def _of(bulk: Rows, phone: int) -> np.ndarray:
    return bulk.x[bulk.offsets[phone] : bulk.offsets[phone + 1]]


@pytest.mark.parametrize("phone", [0, 7, CHUNK - 1, CHUNK, 2 * CHUNK + 39])
def test_a_phone_is_the_same_alone_and_in_any_chunk(bulk, phone):
    alone = rows(POP, phone, phone + 1)
    assert alone.x.tobytes() == _of(bulk, phone).tobytes()
    assert alone.y.tobytes() == bulk.y[bulk.offsets[phone] : bulk.offsets[phone + 1]].tobytes()
    shifted = rows(POP, max(phone - 3, 0), min(phone + 5, POP.phones))
    at = phone - max(phone - 3, 0)
    assert _of(shifted, at).tobytes() == alone.x.tobytes()
    assert _of(shifted, at).tobytes() != _of(bulk, 1).tobytes()


def test_every_phone_of_a_chunk_is_the_same_alone(bulk):
    parts = [rows(POP, phone, phone + 1) for phone in range(30)]
    assert generate.join(parts).x.tobytes() == bulk.x[: bulk.offsets[30]].tobytes()


def test_raw_events_of_one_phone_are_those_of_the_chunk():
    chunk = events_range(POP, 0, 100)
    for phone in (0, 42, 99):
        alone, slice_ = events(POP, phone), chunk.phone(phone)
        assert set(alone.tables) == set(COLUMNS)
        for name, columns in COLUMNS.items():
            for column, dtype in columns.items():
                found = alone.tables[name][column]
                assert found.dtype == np.dtype(dtype)
                assert np.array_equal(found, slice_.tables[name][column])


def test_a_store_round_trip_gives_the_bulk_rows(bulk):
    for phone in range(40):
        batch = from_columns(to_columns(events(POP, phone)))
        found = labelled_rows(batch)
        x = extract(batch, POP.schema, found.start_days, found.phone)
        assert x.tobytes() == _of(bulk, phone).tobytes()
        assert np.array_equal(found.y, bulk.y[bulk.offsets[phone] : bulk.offsets[phone + 1]])


def _edited(batch: EventBatch, day: int, later: bool) -> EventBatch:
    """Every event from `day` on (or before it) tripled, with other values."""
    stored = {}
    for name, columns in to_columns(batch).items():
        touched = columns["day"] >= day if later else columns["day"] < day
        if name == "own_app":
            touched &= later
        changed = {c: np.where(touched & (c not in ("day", "minute")), v // 2 + 1, v) for c, v in columns.items()}
        again = np.concatenate([np.arange(len(touched)), np.repeat(np.flatnonzero(touched), 2)])
        stored[name] = {column: values[again] for column, values in changed.items()}
    return from_columns(stored)


def test_later_events_change_nothing_and_earlier_ones_do():
    labelled = 0
    for phone in range(30):
        batch = events(POP, phone)
        for start in labelled_rows(batch).start_days:
            labelled += 1
            before = extract(batch, POP.schema, [start])
            assert extract(_edited(batch, start, later=True), POP.schema, [start]).tobytes() == before.tobytes()
            assert extract(_edited(batch, start, later=False), POP.schema, [start]).tobytes() != before.tobytes()
    assert labelled > 20


def test_sealed_events_exist_and_change_no_feature(bulk):
    batch = compose(POP.seed, POP.alpha, POP.regime, np.arange(50)).batch
    assert len(batch.tables["contact"]) and len(batch.tables["call"])
    found = labelled_rows(batch)
    bare = batch.without("contact", "call", "browse", "mobility")
    assert extract(bare, POP.schema, found.start_days, found.phone).tobytes() == bulk.x[: bulk.offsets[50]].tobytes()


def test_refusing_a_source_makes_its_features_missing_in_bulk():
    batch = compose(POP.seed, POP.alpha, POP.regime, np.arange(50)).batch
    found = labelled_rows(batch)
    x = extract(batch.without("sms"), POP.schema, found.start_days, found.phone)
    for column, name in enumerate(POP.schema.names):
        assert np.isnan(x[:, column]).all() == (FEATURES[name].source == "sms")


def test_about_1340_events_in_90_days():
    made = compose(5, 1.0, "default", np.arange(1500))
    whole = made.person.span == 90
    each = sum(np.diff(table.offsets) for table in made.batch.tables.values())
    assert 1200 < each[whole].mean() < 1480
    assert all((np.diff(t["day"])[np.diff(np.repeat(np.arange(1500), np.diff(t.offsets))) == 0] >= 0).all()
               for t in made.batch.tables.values())  # fmt: skip


def test_features_stay_within_their_public_bounds(bulk):
    for column, feature in enumerate(POP.schema.features):
        values = bulk.x[:, column][~np.isnan(bulk.x[:, column])]
        assert len(values) and values.min() >= feature.lower and values.max() <= feature.upper


def test_most_phones_have_one_row_some_many_some_none(regime):
    _, many = regime
    share = np.bincount(np.diff(many.offsets), minlength=25) / BIG
    assert share[1] > 0.55 and 0.08 < share[0] < 0.16 and share[24] > 0 and len(share) == 25
    assert np.isnan(many.x).mean() > 0.05
    assert many.start_days.min() >= 1 and many.start_days.max() <= 90 and len(np.unique(many.start_days)) > 60


def test_statistics_of_the_domain(regime):
    name, many = regime
    owner = np.repeat(np.arange(BIG), np.diff(many.offsets))
    train = owner < BIG // 2
    fit = make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression(C=0.02, max_iter=500))
    fit.fit(many.x[train], many.y[train])
    learned = roc_auc_score(many.y[~train], fit.decision_function(many.x[~train]))
    oracle = roc_auc_score(many.y, many.oracle_pd)
    assert 0.09 < many.y.mean() < 0.135
    assert many.y.mean() == pytest.approx(many.oracle_pd.mean(), abs=0.012)
    low, high = {"default": (0.72, 0.78), "weak": (0.62, 0.68)}[name]
    assert low < oracle < high
    low, high = {"default": (0.67, 0.75), "weak": (0.56, 0.66)}[name]
    assert low < learned < high and learned < oracle


def test_protected_attributes_are_kept_apart(bulk):
    assert set(bulk.protected) == {"gender", "age_band", "region", "handset"} == set(PROTECTED_VALUES)
    for name, codes in bulk.protected.items():
        assert name not in POP.schema.names
        assert len(codes) == POP.phones and codes.max() < len(PROTECTED_VALUES[name])


def test_regions_differ_more_as_alpha_falls():
    def spread(alpha: float) -> float:
        person = compose(2, alpha, "default", np.arange(2000)).person
        mixes = [np.bincount(person.tier[person.region == r], minlength=4) for r in range(12)]
        return float(np.std([m / m.sum() for m in mixes if m.sum() > 60], axis=0).mean())

    assert spread(0.1) > spread(1.0) > spread(float("inf"))


def test_seeds_and_regimes_differ(bulk):
    assert rows(Population(12, POP.phones), 0, 50).x.tobytes() != rows(POP, 0, 50).x.tobytes()
    assert rows(Population(11, POP.phones, "weak"), 0, 200).y.tobytes() != rows(POP, 0, 200).y.tobytes()


def test_own_app_schema_alone():
    pop = Population(1, 10, review=())
    assert rows(pop, 0, 10).x.shape[1] == len(pop.schema.names) == len(FEATURES) - len(R_DEFAULT) - 11


@pytest.mark.parametrize(
    "make",
    [
        lambda: Population(1, 0),
        lambda: Population(1, 5, "strong"),
        lambda: Population(1, 5, alpha=0.0),
        lambda: rows(Population(1, 5), 0, 6),
        lambda: events(Population(1, 5), 5),
        lambda: compose(1, 1.0, "default", np.arange(4097)),
    ],
)
def test_impossible_populations_are_refused_in_one_sentence(make):
    with pytest.raises(InputError, match=r"^[^.]*[^.]$|;"):
        make()


def test_generation_imports_no_torch():
    code = "import sys, simulation.population.rest; print({'torch', 'flwr', 'scipy', 'sklearn'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
