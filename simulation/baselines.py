"""What the same rows allow without privacy: central, boosting, regional silos (all simulation_only; spec 12.4).

`central` is the better, by cross-validation on training rows, of the additive model with exact knots and a plain
logistic regression, L2 chosen by the same folds: a weak baseline would flatter the federated figure. It is fitted on
every training row, however many there are; what is chosen or fitted on a sample of whole phones says on how many rows.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from model.risk.knots import Knots
from model.risk.metrics import auc
from simulation.bylevel import histogram_by_level
from simulation.coded import Coded
from simulation.curves import Curve, Model, fit, knotted, straight
from simulation.dataset import Dataset

STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3)  # scikit-learn's C
FOLDS = 3
SILOS = 5
MIN_SILO_BAD = 5
ENOUGH_TO_STOP = 20  # of each class, so that the tenth set aside to stop early has some of both
CHOICE_ROWS = 60_000  # rows the folds share at most
BOOSTING_ROWS = 100_000
Curves = tuple[Curve, ...]


@dataclass(frozen=True)
class Baselines:
    """Exact AUC on held-out rows, None where it has no meaning; `central_model` names the winner.

    `rows`: how many training rows each was fitted on, "choice" those the folds shared; silo: the mean.
    """

    central: float | None
    central_model: str | None
    boosting: float | None
    silo: float | None
    rows: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, float | str | dict[str, int] | None]:
        """Plain values only."""
        return asdict(self)


def baselines(data: Dataset, *, knots: int, seed: int, silo_column: str | None = None) -> Baselines:
    """Fit on training rows (each phone weighs 1), score held-out rows. None where a split has one class."""
    train, held = coded_split(data)
    if not _both(train.y) or not _both(held.y):
        return Baselines(None, None, None, None)
    few = sample(train, CHOICE_ROWS, seed)
    candidates = designs(train, knots)
    strengths = {name: choose({name: curves}, few, seed)[1] for name, curves in candidates.items()}
    name, started = better(candidates, strengths, train, seed)
    curves, strength = candidates[name], strengths[name]
    central = _auc(_fit(curves, train, strength, started), held)
    silo, silo_rows = _silos(curves, train, held, silo_column, strength)
    some = sample(train, BOOSTING_ROWS, seed)
    rows = {"central": len(train.y), "choice": len(few.y), "boosting": len(some.y), "silo": silo_rows}
    return Baselines(central, name, _boosting(some, held, seed), silo, rows)


def coded_split(data: Dataset) -> tuple[Dataset, Dataset]:
    """(train, holdout) over the same levels; plain rows are coded without loss."""
    coded = data.x if isinstance(data.x, Coded) else Coded.exact(data.x)
    whole = Dataset(data.schema, data.ids, data.offsets, coded, data.y, data.protected, data.holdout)
    return whole.split()


def sample(data: Dataset, rows: int, seed: int) -> Dataset:
    """Whole phones, drawn at random, that hold about `rows` rows at most; all of them where those are few enough."""
    if len(data.y) <= rows:
        return data
    random = np.random.Generator(np.random.Philox([seed, rows]))
    return data.take(np.sort(random.choice(data.phones, data.phones * rows // len(data.y), replace=False)))


def designs(data: Dataset, knots: int) -> dict[str, Curves]:
    """The two candidates' inputs, made of these rows."""
    coded = rows_of(data)
    return {"additive": knotted(coded.levels, exact_knots(data, knots)), "logistic": straight(coded)}


def exact_knots(data: Dataset, most: int) -> Knots:
    """Knots of the rows themselves, without noise."""
    return Knots.from_histogram(histogram_by_level(rows_of(data), row_weights(data), data.schema), data.schema, most)


def rows_of(data: Dataset) -> Coded:
    """The rows, coded without loss where they are plain."""
    return data.x if isinstance(data.x, Coded) else Coded.exact(data.x)


def row_weights(data: Dataset) -> NDArray[np.float64]:
    """1/n_i for each row of phone i, so that a phone weighs 1."""
    return np.repeat(1.0 / np.maximum(data.counts, 1), data.counts)


def choose(candidates: Mapping[str, Curves], train: Dataset, seed: int) -> tuple[str, float]:
    """The (design, L2 strength) with the best cross-validated AUC; folds hold whole phones."""
    folds = np.random.Generator(np.random.Philox(seed)).integers(FOLDS, size=train.phones)
    scores = dict[tuple[str, float], list[float]]()
    for fold in range(FOLDS):
        inside, out = train.take(folds != fold), train.take(folds == fold)
        if not _both(inside.y) or not _both(out.y):
            continue
        for name, curves in candidates.items():
            model: Model | None = None
            for strength in STRENGTHS:
                model = _fit(curves, inside, strength, model)
                scores.setdefault((name, strength), []).append(_auc(model, out))
    if not scores:
        return next(iter(candidates)), STRENGTHS[0]
    return max(scores, key=lambda key: float(np.mean(scores[key])))


def better(
    candidates: Mapping[str, Curves], strengths: Mapping[str, float], train: Dataset, seed: int
) -> tuple[str, Model | None]:
    """The design that ranks a fold of all phones better, fitted on the others, and that fit: more rows, more curves."""
    out = np.random.Generator(np.random.Philox([seed, FOLDS])).integers(FOLDS, size=train.phones) == 0
    inside, outside = train.take(~out), train.take(out)
    if not _both(inside.y) or not _both(outside.y):
        return next(iter(candidates)), None
    models = {name: _fit(curves, inside, strengths[name]) for name, curves in candidates.items()}
    name = max(models, key=lambda name: _auc(models[name], outside))
    return name, models[name]


def _fit(curves: Curves, data: Dataset, strength: float, start: Model | None = None) -> Model:
    return fit(curves, rows_of(data), np.asarray(data.y), row_weights(data), strength, start=start)


def _auc(model: Model, held: Dataset) -> float:
    return auc(model.logits(rows_of(held)), held.y)


def _boosting(train: Dataset, held: Dataset, seed: int) -> float | None:
    x, outside = np.asarray(train.x[:]), held.x
    known = ~np.isnan(x).all(0)  # scikit-learn cannot bin a column without a value
    if not known.any() or not _both(train.y):
        return None
    model = HistGradientBoostingClassifier(
        learning_rate=0.06,
        max_iter=200,
        max_leaf_nodes=15,
        l2_regularization=1.0,
        early_stopping=bool(min(train.y.sum(), len(train.y) - train.y.sum()) >= ENOUGH_TO_STOP),
        random_state=seed,
    )
    model.fit(x[:, known], train.y, sample_weight=row_weights(train))
    parts = [
        model.decision_function(np.asarray(outside[at : at + CHOICE_ROWS])[:, known])
        for at in range(0, len(held.y), CHOICE_ROWS)
    ]
    return float(auc(np.concatenate(parts), held.y))


def _silo_of(train: Dataset, column: str | None) -> NDArray[np.int64]:
    """Which silo each phone belongs to: a protected column such as region, else shares of the ids."""
    if column is not None and column in train.protected:
        _, silo = np.unique(train.protected[column], return_inverse=True)
        return np.asarray(silo, np.int64)
    return np.arange(train.phones) % max(train.phones // 1200, 2)


def _silos(
    curves: Curves, train: Dataset, held: Dataset, column: str | None, strength: float
) -> tuple[float | None, int]:
    """Mean AUC on all held-out rows of models that saw one silo only (the first few silos), and their mean rows."""
    silo = _silo_of(train, column)
    found, rows = [], []
    for number in np.unique(silo)[:SILOS]:
        mine = train.take(silo == number)
        bad = int(mine.y.sum())
        if MIN_SILO_BAD <= bad <= len(mine.y) - MIN_SILO_BAD:
            found.append(_auc(_fit(curves, mine, strength), held))
            rows.append(len(mine.y))
    return (float(np.mean(found)), int(np.mean(rows))) if found else (None, 0)


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
