"""Releases as an observer sees them, trial after trial, made by the functions that make real ones (spec 13.12).

A trial is one release with or without the canary: a phone whose raw update is ten times the clip, against the same
phone answering zeros. All other phones are the observer's own. It gives the best that the observer can do: its view,
less all that it knows, along the canary, in clips. `Parts` are the functions on the way; a mutant replaces one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_client.phones import coins
from fl_client.update import Delta
from fl_server.aggregate import add, noised
from model.contract.sealed import RecipientKey
from model.privacy.mechanism import GaussianRelease
from model.privacy.noise import ByteSource, OsSource, discrete_gaussian, grid_sigma
from model.secagg import two_server
from model.secagg.context import Context
from model.secagg.fixedpoint import Ring
from simulation.redteam.bounds import Claim

Vector = NDArray[np.float64]
Units = NDArray[np.int64]
Ids = NDArray[np.uint64]
Flags = NDArray[np.bool_]
DIM, CLIP, LOUD, SCALE = 4, 1.0, 10.0, 1 << 20
# Along each coordinate and across all, so that a clip which overlooks some of them is seen.
AXES = np.vstack([np.eye(DIM), np.full(DIM, DIM**-0.5)])
OTHER = np.array([0.3, -0.2, 0.1, 0.4])
PLAN_SEED, ATTEMPTS, REUSE = 7, 2, 10


def encoded(values: Vector, clip: float, scale: int) -> Units:
    """A phone's own road: clip, then round to the grid, (d,) int64."""
    return Delta(values).clip(clip).encode(scale).units


def takes_part(phones: Ids, round_: int, attempt: int, participation: float) -> Flags:
    """The coins (P,) of phones (P,). They do not read `attempt`: asked again, they fall as before."""
    return coins(phones, PLAN_SEED, round_, participation)


Draw = Callable[[float, int, ByteSource], Units]


@dataclass(frozen=True)
class Parts:
    """The functions of which a release is made; what stands here is the real thing."""

    encode: Callable[[Vector, float, int], Units] = encoded
    coin: Callable[[Ids, int, int, float], Flags] = takes_part
    release: Callable[[Units, GaussianRelease | None, int, ByteSource], Units] = noised
    coordinator: Draw = discrete_gaussian
    helper: Draw = discrete_gaussian
    phone: Draw = discrete_gaussian


Trials = Callable[[bool, np.random.Generator, int], Vector]


@dataclass(frozen=True)
class Mechanism:
    """A mode under audit: what is claimed against each of `observers`, and how trials are made of `Parts`.

    Trials (present, generator, n) give (n, observers). The generator chooses what protects nobody: ids and contexts.
    """

    mode: str
    claim: Claim
    observers: tuple[str, ...]
    make: Callable[[Claim, Parts], Trials]


def charge_of(claim: Claim) -> GaussianRelease:
    """The charge of one release under which `claim` is made."""
    return GaussianRelease("training", 1 / claim.mu, CLIP, 1, claim.sampling, "train")


def _central(claim: Claim, parts: Parts) -> Trials:
    """The farm adds the phones that take part, the coordinator adds partial sums and the noise."""
    charge, source = charge_of(claim), OsSource()
    other = parts.encode(OTHER, CLIP, SCALE)

    def released(axis: Vector, present: bool, asked: bool) -> float:
        partials = [other, parts.encode(canary(axis, present), CLIP, SCALE)] if asked else [other]
        return along(axis, parts.release(add(partials, DIM), charge, SCALE, source) - other)

    def trials(present: bool, rng: np.random.Generator, count: int) -> Vector:
        phones, round_ = rng.integers(1 << 63, size=count, dtype=np.uint64), int(rng.integers(1, 1000))
        asked = [parts.coin(phones, round_, attempt, claim.sampling) for attempt in range(ATTEMPTS)]
        took_part = np.logical_or.reduce(asked)
        return np.array([[released(axis_of(i), present, bool(took_part[i]))] for i in range(count)])

    return trials


def _helper(claim: Claim, parts: Parts) -> Trials:
    """Rounds of two phones, one of them the observer's. REUSE trials share their messages and differ in the noise."""
    sigma, source, key = grid_sigma(charge_of(claim), SCALE), OsSource(), RecipientKey.generate()
    other = parts.encode(OTHER, CLIP, SCALE)

    def exchange(axis: Vector, present: bool, context: Context) -> tuple[Ring, Ring]:
        units = [parts.encode(canary(axis, present), CLIP, SCALE), other]
        sent = [two_server.shield(u, key.public_bytes, context, source) for u in units]
        masks = two_server.open_seeds([message.seed for message in sent], key, context)
        return two_server.add([message.vector for message in sent], DIM), masks

    def views(axis: Vector, total: Ring, masks: Ring) -> tuple[float, float]:
        noise = parts.helper(sigma, DIM, source)
        seen = two_server.unshield(total, two_server.share_of(masks, noise))
        released = seen + parts.coordinator(sigma, DIM, source)
        # The coordinator has the share; the helper has the release and knows the noise that it added itself.
        return along(axis, seen - other), along(axis, released + noise - other)

    def trials(present: bool, rng: np.random.Generator, count: int) -> Vector:
        rows = list[tuple[float, float]]()
        for i in range(0, count, REUSE):
            axis = axis_of(i // REUSE)
            total, masks = exchange(axis, present, fresh_context(rng))
            rows += [views(axis, total, masks) for _ in range(min(REUSE, count - i))]
        return np.array(rows)

    return trials


def axis_of(trial: int) -> Vector:
    """Each axis in turn: in equal shares, so that counts spread no more than a binomial (Hoeffding 1956)."""
    return np.asarray(AXES[trial % len(AXES)])


def canary(axis: Vector, present: bool) -> Vector:
    """The victim's raw update: far beyond the clip, or zeros."""
    return LOUD * CLIP * axis if present else np.zeros(DIM)


def along(axis: Vector, view: Units) -> float:
    """What is left of a view along the canary, in clips."""
    return float(axis @ view) / (CLIP * SCALE)


def fresh_context(rng: np.random.Generator) -> Context:
    """A context that no other trial has."""
    return Context(rng.bytes(32).hex(), "train", int(rng.integers(1, 1000)), "ab" * 32, DIM)


MECHANISMS = {
    m.mode: m
    for m in (
        Mechanism("central", Claim(1.0), ("public",), _central),
        Mechanism("sampled", Claim(2.0, 0.5), ("public",), _central),
        Mechanism("helper", Claim(1.0), ("coordinator", "helper"), _helper),
    )
}
