"""Who was reached in a run and what that put into the model: the `reach` section, simulation_only (spec 7.13, 12)."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_client.answers import score_rows
from fl_client.phones import coins
from model.contract.envelope import SigningKey
from model.contract.plan import TrainingPlan
from model.contract.promise import Neighbours, PrivacyPlan
from simulation import bias
from simulation.attendance import FATES, Virtual
from simulation.availability import HANDSET, tiers_of
from simulation.dataset import Dataset
from simulation.experiment.figures import network_of
from simulation.federate import federate
from simulation.planning import Options
from simulation.population.latents import HANDSETS
from simulation.workspace import Workspace

MOST_PHONES = 50_000  # of a larger run the first so many are trained twice; the shares are of all
KEPT = ("asked", *FATES, "duplicate")
LONG = ("rounds", "groups", "effect")
SHARES = ("column", "group", "phones", "share", "counted", "ratio")
CHANGES = ("gap_everyone", "gap_reached", "pd_change", "pd_change_ci", "auc_change", "auc_change_ci")


def measure(
    plan: TrainingPlan, data: Dataset, options: Options, tallies: Mapping[int, Mapping[str, Any]], folder: Path
) -> dict[str, Any] | None:
    """The section's figures; None where everybody answers. `folder` is for two trainings without noise, then removed.

    tallies: what the farms told of each round.
    """
    who = options.reach.attendance(options.seed)
    if who is None:
        return None
    rounds = [{"round": number, **told} for number, told in sorted(tallies.items())]
    train = [row for row in rounds if row["kind"] == "train"]
    asked = sum(row["asked"] for row in train)
    reach = options.reach
    return {
        "availability": reach.availability,
        "deadline_hours": reach.deadline,
        "over_select": reach.over_select,
        "faults": vars(reach.faults),
        "expected_response": plan.response,
        "response": sum(row["counted"] for row in train) / asked if asked else None,
        "fates": {name: sum(row[name] for row in train) for name in KEPT},
        "rounds": rounds,
        "groups": bias.shares(*counted_updates(plan, data, who)),
        "effect": paired(plan, data, who, folder),
    }


def counted_updates(
    plan: TrainingPlan, data: Dataset, who: Virtual
) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
    """The train split's audit columns, and how often each of its phones' updates entered a sum (P,)."""
    train = ~np.asarray(data.holdout)
    ids, tiers = np.asarray(data.ids)[train], tiers_of(data)[train]
    times = np.zeros(len(ids), dtype=np.int64)
    for number in range(1, plan.rounds + 1):
        asked = np.flatnonzero(coins(ids, plan.seed, number, plan.participation))
        times[asked] += who.roll(ids[asked], tiers[asked], number).counted
    return {name: column[train] for name, column in audited(data).items()}, times


def audited(data: Dataset) -> dict[str, NDArray[Any]]:
    """The audit columns (P,), with the handset, which availability follows, where a dataset has none of its own."""
    columns = {name: np.asarray(column) for name, column in data.protected.items()}
    return columns if HANDSET in columns else {**columns, HANDSET: np.array(HANDSETS)[tiers_of(data)]}


def paired(plan: TrainingPlan, data: Dataset, who: Virtual, folder: Path) -> dict[str, Any]:
    """The same plan without noise, trained by everyone and by the reached, compared by group on held-out rows."""
    shutil.rmtree(folder, ignore_errors=True)
    few = data if data.phones <= MOST_PHONES else data.take(np.arange(MOST_PHONES))
    held = np.asarray(few.holdout)
    quiet = replace(
        plan,
        phones=int((~held).sum()),
        holdout_phones=int(held.sum()),
        privacy=_off(plan.privacy),
    )
    few.save(folder / "data")
    rest = few.take(held)
    pds = []
    for name, answering, response in (("everyone", None, 1.0), ("reached", who, plan.response)):
        shared = Workspace(folder / name)
        shared.folder.mkdir()
        (shared.folder / "data").symlink_to(folder / "data")
        keys = [SigningKey.generate(), SigningKey.generate()]
        shared.prepare(few, replace(quiet, response=response), keys, answering)
        result = federate(shared)
        pds.append(result.platt.pd(score_rows(network_of(result), rest.x[:])))
    owner = np.repeat(np.arange(rest.phones), rest.counts)
    shutil.rmtree(folder)
    return {"phones": few.phones, "groups": bias.effect(bias.Held(rest.y, owner, audited(rest), rest.phones), *pds)}


def _off(privacy: PrivacyPlan) -> PrivacyPlan:
    """The same grid without noise, masks or promise."""
    return replace(
        privacy, mode="off", charges=(), helper_key="", coordinator_noise=1.0, honest=0, neighbours=Neighbours()
    )


def short(reach: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What of the section the summary keeps: settings, response, fates, and a line a group."""
    if reach is None:
        return None
    moved = {(row["column"], row["group"]): row for row in reach["effect"]["groups"]}
    lines = [
        {**{name: row[name] for name in SHARES}, **{name: moved[place][name] for name in CHANGES}}
        for row in reach["groups"]
        if (place := (row["column"], row["group"])) in moved
    ]
    return {**{name: value for name, value in reach.items() if name not in LONG}, "groups": lines}
