"""Releases of each privacy mode as an observer sees them, made by the functions that make real ones (spec 13.12)."""

from __future__ import annotations

from functools import partial

import numpy as np

from fl_server.aggregate import add
from model.contract.envelope import SigningKey
from model.contract.promise import Neighbours
from model.contract.releases import share_sigma
from model.contract.sealed import RecipientKey
from model.privacy.noise import OsSource
from model.secagg import pairwise, two_server
from model.secagg.context import Context
from model.secagg.fixedpoint import Ring
from model.secagg.pairwise_phone import PairwisePhone
from model.secagg.pairwise_server import PairwiseServer
from model.secagg.terms import Terms
from model.secagg.witness import LocalWitness
from simulation.redteam.bounds import Claim
from simulation.redteam.mutants import LESS
from simulation.redteam.trials import (
    AXES,
    CLIP,
    DIM,
    OTHER,
    SCALE,
    Mechanism,
    Parts,
    Trials,
    Units,
    Vector,
    along,
    answers,
    charge_of,
    fresh_context,
    plan_of,
)

ATTEMPTS = 2  # how often a round is asked for
N = len(AXES)
REUSE = 20  # trials that share their sealed messages
ABREAST = 250  # trials that stand side by side in one vector
PHONES, HONEST = 4, 2
GRAPH = Neighbours(PHONES - 1, PHONES - 1, 0.5, 0.0)
SERVERS = ("coordinator", "helper")

KEY = "ab" * 32  # a plan of mode helper names one; each set of trials makes its own


def _central(claim: Claim, parts: Parts) -> Trials:
    """The farm adds the phones that take part, the coordinator adds partial sums and the noise."""
    charge, source = charge_of(claim), OsSource()
    other = parts.encode(OTHER, CLIP, SCALE)

    def released(axis: int, victim: Units, asked: bool) -> float:
        partials = [other, victim] if asked else [other]
        return along(axis, parts.release(add(partials, DIM), charge, SCALE, source) - other)

    def trials(present: bool, rng: np.random.Generator, count: int) -> Vector:
        phones, round_ = rng.integers(1 << 63, size=count, dtype=np.uint64), int(rng.integers(1, 1000))
        asked = [parts.coin(phones, round_, attempt, claim.sampling) for attempt in range(ATTEMPTS)]
        took_part = np.logical_or.reduce(asked)
        victims = answers(parts, present)
        return np.array([[released(i % N, victims[i % N], bool(took_part[i]))] for i in range(count)])

    return trials


def _local(claim: Claim, parts: Parts) -> Trials:
    """The phone's answer as it leaves, under its own noise: whoever receives it sees it."""
    plan, source = plan_of(claim, "local"), OsSource()

    def trials(present: bool, rng: np.random.Generator, count: int) -> Vector:
        victims = answers(parts, present)
        sent = (victims[i % N] + parts.phone(plan, "train", 1, DIM, source) for i in range(count))
        return np.array([[along(i % N, vector)] for i, vector in enumerate(sent)])

    return trials


def _helper(claim: Claim, parts: Parts, coordinator_noise: float = 1.0) -> Trials:
    """Rounds of two phones, one of them the observer's. REUSE trials share their messages and differ in the noise."""
    charge, source, key = charge_of(claim), OsSource(), RecipientKey.generate()
    plan = plan_of(claim, "helper", helper_key=KEY, coordinator_noise=coordinator_noise)
    sigma, own = share_sigma(plan, charge), plan.privacy.weakest(charge)
    other = parts.encode(OTHER, CLIP, SCALE)

    def exchange(victim: Units, context: Context) -> tuple[Ring, Ring]:
        sent = [two_server.shield(units, key.public_bytes, context, source) for units in (victim, other)]
        masks = two_server.open_seeds([message.seed for message in sent], key, context)
        return two_server.add([message.vector for message in sent], DIM), masks

    def views(axis: int, total: Ring, masks: Ring) -> tuple[float, float]:
        noise = parts.helper(sigma, DIM, source)
        seen = two_server.unshield(total, two_server.share_of(masks, noise))
        released = parts.release(seen, own, SCALE, source)
        # The coordinator has the share; the helper has the release and knows the noise that it added itself.
        return along(axis, seen - other), along(axis, released + noise - other)

    def trials(present: bool, rng: np.random.Generator, count: int) -> Vector:
        rows, victims = list[tuple[float, float]](), answers(parts, present)
        for i in range(0, count, REUSE):
            axis = i // REUSE % N
            total, masks = exchange(victims[axis], fresh_context(rng))
            rows += [views(axis, total, masks) for _ in range(min(REUSE, count - i))]
        return np.array(rows)

    return trials


def _pairwise(claim: Claim, parts: Parts) -> Trials:
    """Whole rounds of PHONES phones, all but HONEST of them the coordinator's, which add no noise.

    A round is too dear for one trial: its vector holds ABREAST of them side by side, each a canary of its own numbers
    with its own clip, under noise that is drawn for every number apart.
    """
    plan, source = plan_of(claim, "pairwise", honest=HONEST, neighbours=GRAPH), OsSource()
    witness = SigningKey.generate()
    terms = Terms(GRAPH, PHONES, HONEST, witness.public_bytes)
    other = np.tile(parts.encode(OTHER, CLIP, SCALE), ABREAST)

    def total(victims: Units, context: Context) -> Units:
        dim = len(victims)
        names = [f"phone {i}" for i in range(PHONES)]
        phones = {name: PairwisePhone(SigningKey.generate(), context, terms) for name in names}
        updates = dict.fromkeys(names, other[:dim]) | {names[0]: victims}
        for honest in names[:HONEST]:
            updates[honest] = updates[honest] + parts.phone(plan, "train", 1, dim, source)
        server = PairwiseServer(context, terms, LocalWitness(witness, terms))
        return pairwise.run_round(phones, updates, server) - (PHONES - 1) * other[:dim]

    def trials(present: bool, rng: np.random.Generator, count: int) -> Vector:
        rows, victims = list[list[float]](), answers(parts, present)
        for first in range(0, count, ABREAST):
            abreast = [victims[i % N] for i in range(min(ABREAST, count - first))]
            seen = total(np.concatenate(abreast), fresh_context(rng, DIM * len(abreast)))
            rows += [[along(i % N, view)] for i, view in enumerate(seen.reshape(-1, DIM))]
        return np.array(rows)

    return trials


MECHANISMS = {
    m.mode: m
    for m in (
        Mechanism("central", Claim(1.0), ("public",), _central),
        Mechanism("sampled", Claim(2.0, 0.5), ("public",), _central),
        Mechanism("local", Claim(1.0), ("coordinator",), _local),
        Mechanism("helper", Claim(1.0), SERVERS, _helper),
        Mechanism("unequal", Claim(1.0), SERVERS, partial(_helper, coordinator_noise=LESS), LESS),
        Mechanism("pairwise", Claim(1.0), ("coordinator",), _pairwise),
    )
}
