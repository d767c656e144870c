"""Datasets: slices, splits, saving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.errors import InputError, RunError
from simulation.dataset import Dataset, holdout_by_id
from simulation.small import small_dataset


def rows_of(data: Dataset, phone: int) -> np.ndarray:
    return data.x[data.offsets[phone] : data.offsets[phone + 1]]


def test_parts_are_views_and_cover_everything() -> None:
    data = small_dataset(101)
    parts = [data.part(i, 4) for i in range(4)]
    np.testing.assert_array_equal(np.concatenate([p.ids for p in parts]), data.ids)
    np.testing.assert_array_equal(np.concatenate([p.y for p in parts]), data.y)
    assert all(np.shares_memory(p.x, data.x) for p in parts)
    np.testing.assert_array_equal(rows_of(parts[1], 0), rows_of(data, parts[0].phones))


def test_split_is_by_phone_and_by_id_alone() -> None:
    data = small_dataset(3000)
    train, holdout = data.split()
    assert not set(train.ids.tolist()) & set(holdout.ids.tolist())
    assert train.phones + holdout.phones == data.phones and abs(holdout.phones / 3000 - 0.2) < 0.03
    assert holdout_by_id(data.ids[7:8])[0] == data.holdout[7]
    assert (holdout_by_id(data.ids, salt=1) != data.holdout).any()


def test_take_keeps_each_phones_rows() -> None:
    data = small_dataset(50)
    taken = data.take(np.array([40, 3]))
    np.testing.assert_array_equal(rows_of(taken, 0), rows_of(data, 40))
    np.testing.assert_array_equal(rows_of(taken, 1), rows_of(data, 3))


def test_save_and_load_by_memory_map(tmp_path: Path) -> None:
    data = small_dataset(40)
    data = Dataset(data.schema, data.ids, data.offsets, data.x, data.y, {"a/b": np.arange(40)}, data.holdout)
    data.save(tmp_path / "d")
    back = Dataset.load(tmp_path / "d")
    assert isinstance(back.x.codes, np.memmap) and back.schema == data.schema
    np.testing.assert_array_equal(back.x, data.x)
    np.testing.assert_array_equal(back.protected["a/b"], np.arange(40))
    with pytest.raises(RunError, match="exists"):
        data.save(tmp_path / "d")


def test_a_missing_or_damaged_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="prepare it again"):
        Dataset.load(tmp_path)
    small_dataset(10).save(tmp_path / "d")
    (tmp_path / "d" / "codes.npy").write_bytes(b"\x80\x04pickle")
    with pytest.raises(RunError, match="prepare it again"):
        Dataset.load(tmp_path / "d")


def test_arrays_that_disagree_are_refused() -> None:
    data = small_dataset(10)
    with pytest.raises(InputError, match="offsets"):
        Dataset(data.schema, data.ids, data.offsets[:-1], data.x, data.y, {}, data.holdout)
    with pytest.raises(InputError, match="shape"):
        Dataset(data.schema, data.ids, data.offsets, data.x[:, :2], data.y, {}, data.holdout)
    with pytest.raises(InputError, match="part 4"):
        data.part(4, 4)
