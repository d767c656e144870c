"""Populations at rest: a phone's codes alone and among others, resumed generation, public levels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model.errors import InputError
from model.risk.grid import grid_centers
from model.risk.schema import Feature, Schema
from simulation.coded import nearest, public_levels
from simulation.population import rest
from simulation.population.generate import BLOCK, Population, rows
from simulation.population.rest import at_rest

POP = Population(4, BLOCK + 300)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> rest.Rest:
    return at_rest(POP, tmp_path_factory.mktemp("rest") / "blocks", workers=1)


def alone(phone: int) -> np.ndarray:
    return nearest(rows(POP, phone, phone + 1).x, public_levels(POP.schema)).codes


@pytest.mark.parametrize("phone", [0, 7, BLOCK - 1, BLOCK, POP.phones - 1])
def test_a_phones_codes_are_those_it_has_alone(made: rest.Rest, phone: int) -> None:
    mine = made.x.codes[made.offsets[phone] : made.offsets[phone + 1]]
    np.testing.assert_array_equal(mine, alone(phone))
    other = rows(Population(5, POP.phones), phone, phone + 1).x
    assert nearest(other, made.x.levels).codes.tobytes() != mine.tobytes() or not len(mine)  # the control


def test_the_rest_is_what_the_rows_say(made: rest.Rest) -> None:
    whole = rows(POP, 0, POP.phones)
    np.testing.assert_array_equal(made.offsets, whole.offsets)
    np.testing.assert_array_equal(made.y, whole.y)
    np.testing.assert_array_equal(made.oracle_pd, whole.oracle_pd)
    np.testing.assert_array_equal(made.ids, whole.ids)
    for name, column in made.protected.items():
        np.testing.assert_array_equal(column, whole.protected[name])
    assert isinstance(made.x.codes, np.memmap) and made.x.codes.dtype == np.uint8


def test_levels_are_public_few_and_half_a_cell_from_every_value(made: rest.Rest) -> None:
    x, levels = rows(POP, 0, 1024).x, public_levels(POP.schema)
    assert max(map(len, levels)) <= 255 and all(np.isnan(level[-1]) for level in levels)
    coded = nearest(x, levels)[:]
    np.testing.assert_array_equal(np.isnan(coded), np.isnan(x))
    for j, (feature, level) in enumerate(zip(POP.schema.features, levels, strict=True)):
        known, inside = level[:-1].astype(np.float64), np.clip(x[:, j], feature.lower, feature.upper)
        if feature.kind == "category":
            np.testing.assert_array_equal(known, np.arange(feature.buckets))
            continue
        assert len(known) >= len(grid_centers(feature)), feature.name  # no coarser than what knots are counted on
        at = np.clip(np.searchsorted(known, inside), 1, len(known) - 1)
        cell = known[at] - known[at - 1]
        error = np.abs(coded[:, j] - inside)
        assert np.nanmax(error - cell / 2, initial=-1) <= 1e-6 * max(abs(feature.upper), 1), feature.name


def test_a_category_beyond_a_byte_is_refused() -> None:
    with pytest.raises(InputError, match="more than 254 values"):
        public_levels(Schema("wide", "1", (Feature("kind", kind="category", buckets=300),)))


def test_an_interrupted_generation_goes_on_where_it_stopped(
    tmp_path: Path, made: rest.Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real, seen = tmp_path / "blocks", rest.block, []

    def dies(pop: Population, where: Path, start: int) -> None:
        seen.append(start)
        if len(seen) == 2:
            (where / ".block-000001.npz.1.part").write_bytes(b"half")
            raise KeyboardInterrupt
        real(pop, where, start)

    monkeypatch.setattr(rest, "block", dies)
    with pytest.raises(KeyboardInterrupt):
        at_rest(POP, folder, workers=1)
    kept = folder / "block-000000.npz"
    before = kept.stat().st_mtime_ns
    done: list[int] = []
    again = at_rest(POP, folder, workers=1, progress=done.append)
    assert seen == [0, BLOCK, BLOCK] and kept.stat().st_mtime_ns == before and done == [POP.phones]
    assert again.x.codes.tobytes() == made.x.codes.tobytes() and again.y.tobytes() == made.y.tobytes()


def test_another_populations_blocks_are_not_taken(tmp_path: Path) -> None:
    first, second = Population(1, 50), Population(2, 50)
    one = np.array(at_rest(first, tmp_path / "blocks", workers=1).x.codes)
    two = np.array(at_rest(second, tmp_path / "blocks", workers=1).x.codes)
    assert one.tobytes() != two.tobytes()
    np.testing.assert_array_equal(two, nearest(rows(second, 0, 50).x, public_levels(second.schema)).codes)


def test_no_worker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 workers"):
        at_rest(Population(1, 5), tmp_path / "blocks", workers=0)


@pytest.mark.integration
@pytest.mark.parametrize("blocker", ["", "import torch; "])
def test_two_processes_make_the_same_rows(tmp_path: Path, blocker: str) -> None:
    code = (
        blocker + "from pathlib import Path; from simulation.population.rest import *\n"
        "if __name__ == '__main__':\n"
        f"    pop, seen, here = Population(4, 5000), [], Path({str(tmp_path)!r})\n"
        "    two, one = at_rest(pop, here / 'two', 2, seen.append), at_rest(pop, here / 'one', 1)\n"
        "    assert seen[-1] == 5000 and len(seen) == 3, seen\n"
        "    pairs = [(two.x.codes, one.x.codes), (two.y, one.y), (two.offsets, one.offsets)]\n"
        "    print(all(a.tobytes() == b.tobytes() for a, b in pairs))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert found.stdout.strip() == "True", found.stderr
