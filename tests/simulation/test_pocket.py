"""Phones in plain memory score as devices do: same features, same score, same refusals."""

from __future__ import annotations

import numpy as np
import pytest

from fl_client.device import Phone, features_of
from fl_client.events import to_columns
from fl_client.store import PhoneStore, SqliteStore
from simulation.experiment import scoring
from simulation.experiment.request import Request
from simulation.experiment.sources import population_of
from simulation.planning import Options
from simulation.pocket import Pocket, pocketed
from simulation.population.generate import TODAY, events

REQUEST = Request(200, options=Options(seed=5))


def test_phones_made_together_have_the_features_a_device_takes_from_its_events() -> None:
    population = population_of(REQUEST)
    together = list(scoring._made_up(REQUEST, population.schema, 40, 60))
    different = 0
    for number, phone in enumerate(together, start=40):
        device = Phone.in_memory(events=to_columns(events(population, number)))
        one, many = (features_of(each.store, population.schema, TODAY) for each in (device, phone))
        np.testing.assert_array_equal(one, many)
        different += not np.array_equal(one, features_of(together[0].store, population.schema, TODAY), equal_nan=True)
    assert different >= 15  # the control: phones do differ
    assert len({phone.root for phone in together}) == len(together)


@pytest.mark.parametrize("make", [Pocket, lambda: SqliteStore(":memory:", bytes(32))])
def test_a_pocket_keeps_what_a_store_keeps(make: object) -> None:
    store: PhoneStore = make()  # type: ignore[operator]
    assert store.row() is None and store.entries("a") == [] and store.events() == {}
    store.append_events("app_session", {"day": np.array([1, 5]), "minute": np.array([2, 3])})
    store.append_events("app_session", {"day": np.array([9]), "minute": np.array([4])})
    store.append_events("charge", {"day": np.array([2]), "minute": np.array([1])})
    assert store.events()["app_session"]["day"].tolist() == [1, 5, 9]
    assert set(store.events(without=["charge"])) == {"app_session"}
    assert store.retain(5) == 2 and sorted(store.events()["app_session"]["day"].tolist()) == [5, 9]
    store.put_row({"a": 1.0, "b": float("nan")})
    row = store.row()
    assert row is not None and row["a"] == 1.0 and np.isnan(row["b"])
    store.append("a", {"n": 1})
    store.append("a", {"n": 2})
    assert store.entries("a") == [{"n": 1}, {"n": 2}] and store.entries("b") == []
    assert [store.next_number("x") for _ in range(3)] == [1, 2, 3] and store.next_number("y") == 1


def test_a_pocket_starts_with_nothing_but_its_row() -> None:
    phone = pocketed({"a": 2.0})
    assert phone.store.row() == {"a": 2.0} and phone.store.events() == {}
