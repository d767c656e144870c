"""What the same rows allow without privacy: central, boosting, regional silos (all simulation_only; spec 12.4).

`central` is the better, by cross-validation on training rows, of the additive model with exact knots and a plain
logistic regression, L2 chosen by the same folds: a weak baseline would flatter the federated figure.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from model.risk.knots import Knots, hats, rows_histogram
from model.risk.metrics import auc
from simulation.dataset import Dataset

STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3)  # scikit-learn's C
FOLDS = 3
SILOS = 5
MIN_SILO_BAD = 5
ENOUGH_TO_STOP = 20  # of each class, so that the tenth set aside to stop early has some of both
Matrix = NDArray[np.float32]
Rows = tuple[Matrix, NDArray[np.float32], NDArray[np.float64]]


@dataclass(frozen=True)
class Baselines:
    """Exact AUC on held-out rows, None where it has no meaning; `central_model` names the winner."""

    central: float | None
    central_model: str | None
    boosting: float | None
    silo: float | None

    def to_dict(self) -> dict[str, float | str | None]:
        """Plain values only."""
        return asdict(self)


def baselines(data: Dataset, *, knots: int, seed: int, silo_column: str | None = None) -> Baselines:
    """Fit on training rows (each phone weighs 1), score held-out rows. None where a split has one class."""
    train, held = data.split()
    if not _both(train.y) or not _both(held.y):
        return Baselines(None, None, None, None)
    exact = exact_knots(train, knots)
    rows, truth = _rows(train), held.y
    candidates = {"additive": design(train.x, exact), "logistic": plain(train.x, train.x)}
    outside = {"additive": design(held.x, exact), "logistic": plain(held.x, train.x)}
    name, strength = choose(candidates, rows, train, seed)
    central = auc(_fit(candidates[name], rows, strength).decision_function(outside[name]), truth)
    silo = _silos(candidates[name], rows, outside[name], truth, _silo_of(train, silo_column), strength)
    return Baselines(central, name, _boosting(train, held, seed), silo)


def exact_knots(data: Dataset, most: int) -> Knots:
    """Knots of the rows themselves, without noise."""
    return Knots.from_histogram(rows_histogram(data.x, row_weights(data), data.schema), data.schema, most)


def row_weights(data: Dataset) -> NDArray[np.float64]:
    """1/n_i for each row of phone i, so that a phone weighs 1."""
    return np.repeat(1.0 / np.maximum(data.counts, 1), data.counts)


def design(x: Matrix, knots: Knots) -> Matrix:
    """The additive model's inputs (R, D) float32: hats and missing flag of every feature."""
    parts = []
    for j, values in enumerate(knots.values):
        missing = np.isnan(x[:, j])
        filled = np.where(missing, values[0], x[:, j])
        basis = hats(values, filled) if len(values) > 1 else np.ones((len(x), 1))
        parts.append(np.column_stack([np.where(missing[:, None], 0, basis), missing]).astype(np.float32))
    return np.hstack(parts)


def plain(x: Matrix, train: Matrix) -> Matrix:
    """Signed-log values standardised by the training rows, missing cells at the mean with a flag."""
    squeezed, base = (np.sign(m) * np.log1p(np.abs(m)) for m in (x, train))
    known = ~np.isnan(base)
    count = np.maximum(known.sum(0), 1)
    mean = np.where(known, base, 0).sum(0) / count
    spread = np.sqrt(np.where(known, (base - mean) ** 2, 0).sum(0) / count)
    scaled = np.where(np.isnan(squeezed), 0, (squeezed - mean) / np.maximum(spread, 1e-9))
    return np.hstack([scaled, np.isnan(x)]).astype(np.float32)


def choose(candidates: Mapping[str, Matrix], rows: Rows, train: Dataset, seed: int) -> tuple[str, float]:
    """The (design, L2 strength) with the best cross-validated AUC; folds hold whole phones."""
    folds = np.repeat(np.random.Generator(np.random.Philox(seed)).integers(FOLDS, size=train.phones), train.counts)
    scores = {
        (name, strength): _validated(inputs, rows, folds, strength)
        for name, inputs in candidates.items()
        for strength in STRENGTHS
    }
    return max(scores, key=lambda key: scores[key])


def _validated(inputs: Matrix, rows: Rows, folds: NDArray[np.int64], strength: float) -> float:
    _, y, w = rows
    found = []
    for fold in range(FOLDS):
        inside, out = folds != fold, folds == fold
        if not _both(y[inside]) or not _both(y[out]):
            continue
        model = _fit(inputs[inside], (inputs, y[inside], w[inside]), strength)
        found.append(auc(model.decision_function(inputs[out]), y[out]))
    return float(np.mean(found)) if found else 0.5


def _fit(inputs: Matrix, rows: Rows, strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=300, tol=1e-3).fit(inputs, rows[1], sample_weight=rows[2])


def _boosting(train: Dataset, held: Dataset, seed: int) -> float | None:
    if np.isnan(train.x).all():
        return None
    model = HistGradientBoostingClassifier(
        learning_rate=0.06,
        max_iter=200,
        max_leaf_nodes=15,
        l2_regularization=1.0,
        early_stopping=bool(min(train.y.sum(), len(train.y) - train.y.sum()) >= ENOUGH_TO_STOP),
        random_state=seed,
    )
    known = ~np.isnan(train.x).all(0)  # scikit-learn cannot bin a column without a value
    model.fit(train.x[:, known], train.y, sample_weight=row_weights(train))
    return float(auc(model.decision_function(held.x[:, known]), held.y))


def _silo_of(train: Dataset, column: str | None) -> NDArray[np.int64]:
    """Which silo each row belongs to: a protected column such as region, else shares of the ids."""
    if column is not None and column in train.protected:
        _, silo = np.unique(train.protected[column], return_inverse=True)
    else:
        silo = np.arange(train.phones) % max(train.phones // 1200, 2)
    return np.repeat(silo, train.counts)


def _silos(
    inputs: Matrix,
    rows: Rows,
    outside: Matrix,
    truth: NDArray[np.float32],
    silo: NDArray[np.int64],
    strength: float,
) -> float | None:
    """Mean AUC on all held-out rows of models that saw one silo only (the first few silos)."""
    found = []
    for number in np.unique(silo)[:SILOS]:
        mine = silo == number
        bad = int(rows[1][mine].sum())
        if MIN_SILO_BAD <= bad <= int(mine.sum()) - MIN_SILO_BAD:
            model = _fit(inputs[mine], (inputs, rows[1][mine], rows[2][mine]), strength)
            found.append(auc(model.decision_function(outside), truth))
    return float(np.mean(found)) if found else None


def _rows(data: Dataset) -> Rows:
    return data.x, data.y, row_weights(data)


def _both(y: NDArray[np.float32]) -> bool:
    return bool(len(y)) and 0 < float(y.mean()) < 1


def main(arguments: Sequence[str]) -> None:
    """`python -m simulation.baselines FOLDER KNOTS SEED [SILO_COLUMN]`: a process beside the run; prints JSON."""
    began = time.perf_counter()
    folder, knots, seed, *column = arguments
    found = baselines(
        Dataset.load(Path(folder)), knots=int(knots), seed=int(seed), silo_column=column[0] if column else None
    )
    print(json.dumps({**found.to_dict(), "seconds": round(time.perf_counter() - began, 3)}))


if __name__ == "__main__":
    main(sys.argv[1:])
