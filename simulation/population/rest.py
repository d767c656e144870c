"""A population at rest: coded rows, a byte a cell, in blocks made by several processes and gathered (spec 7.2).

A block appears by rename, so an interrupted generation goes on where it stopped. No process holds more than a block's
rows as float32. Nothing here imports torch: processes are forked while that is safe.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.canonical import encode
from model.errors import InputError
from simulation.coded import Coded, nearest, public_levels
from simulation.population.generate import BLOCK, PROTECTED_VALUES, Population, context, rows

OF = "population.cbor"
CODES = "codes.npy"


@dataclass(frozen=True)
class Rest:
    """P phones with R coded rows; arrays as in `generate.Rows`, x coded on `public_levels` and mapped from disk."""

    ids: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    x: Coded
    y: NDArray[np.float32]
    protected: dict[str, NDArray[np.uint8]]
    oracle_pd: NDArray[np.float64]


def at_rest(
    pop: Population, folder: Path, workers: int = 2, progress: Callable[[int], None] = lambda done: None
) -> Rest:
    """The population's rows, coded, in `folder`; blocks that lie there already are not made again.

    The same bytes for any number of workers. `progress` is called with the phones done so far.
    """
    if workers < 1:
        raise InputError(f"{workers} workers cannot make a population; give 1 or more")
    _claim(pop, folder)
    starts = range(0, pop.phones, BLOCK)
    missing = [start for start in starts if not _path(folder, start).exists()]
    done = len(starts) - len(missing)
    for _ in _made(pop, folder, missing, workers):
        done += 1
        progress(min(done * BLOCK, pop.phones))
    return _gathered(pop, folder, starts)


def block(pop: Population, folder: Path, start: int) -> None:
    """Make the block of phones from `start` on; it appears by rename."""
    found = rows(pop, start, min(start + BLOCK, pop.phones))
    path = _path(folder, start)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    arrays: dict[str, Any] = {f"protected-{name}": codes for name, codes in found.protected.items()}
    with open(temporary, "wb") as file:
        np.savez(
            file,
            codes=nearest(found.x, public_levels(pop.schema)).codes,
            sizes=np.diff(found.offsets),
            y=found.y.astype(np.uint8),
            oracle_pd=found.oracle_pd,
            **arrays,
        )
    os.replace(temporary, path)


def _claim(pop: Population, folder: Path) -> None:
    """Make the folder this population's: another's blocks are removed."""
    mine = encode({**asdict(pop), "review": list(pop.review), "schema": pop.schema.digest, "block": BLOCK})
    note = folder / OF
    if not note.exists() or note.read_bytes() != mine:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        note.write_bytes(mine)


def _made(pop: Population, folder: Path, starts: list[int], workers: int) -> Iterator[None]:
    if workers == 1 or len(starts) <= 1:
        for start in starts:
            block(pop, folder, start)
            yield
        return
    with _pool(min(workers, len(starts))) as pool:
        for future in as_completed([pool.submit(block, pop, folder, start) for start in starts]):
            future.result()
            yield


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that finish the block they are at and begin no other once the caller gives up."""
    pool = ProcessPoolExecutor(workers, mp_context=context())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _gathered(pop: Population, folder: Path, starts: range) -> Rest:
    """All blocks behind one another: the codes in a memory map, the rest in memory (some 20 bytes a row)."""
    sizes = np.concatenate([_read(folder, start, "sizes") for start in starts])
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    levels = public_levels(pop.schema)
    total = int(offsets[-1])
    codes = np.lib.format.open_memmap(folder / CODES, mode="w+", dtype=np.uint8, shape=(total, len(levels)))
    y, oracle = np.empty(total, np.float32), np.empty(total)
    protected = {name: np.empty(pop.phones, np.uint8) for name in PROTECTED_VALUES}
    for start in starts:
        last = min(start + BLOCK, pop.phones)
        mine = slice(int(offsets[start]), int(offsets[last]))
        with np.load(_path(folder, start), allow_pickle=False) as found:
            codes[mine], y[mine], oracle[mine] = found["codes"], found["y"], found["oracle_pd"]
            for name, column in protected.items():
                column[start:last] = found[f"protected-{name}"]
    codes.flush()
    return Rest(np.arange(pop.phones, dtype=np.uint64), offsets, Coded(codes, levels), y, protected, oracle)


def _read(folder: Path, start: int, name: str) -> NDArray[np.int64]:
    with np.load(_path(folder, start), allow_pickle=False) as found:
        return np.asarray(found[name], np.int64)


def _path(folder: Path, start: int) -> Path:
    return folder / f"block-{start // BLOCK:06d}.npz"
