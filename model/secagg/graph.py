"""How sure the neighbour graph is: union bounds over phones and hypergeometric tails (spec 13.8.3).

The conditions are those of Bell, Bonawitz, Gascón, Lepoint and Raykova, "Secure single-server aggregation with
(poly)logarithmic overhead", CCS 2020 (ePrint 2020/704): in a *good* graph no honest phone's neighbours can hand the
server both kinds of its shares, the honest survivors stay connected, and every phone keeps `threshold` neighbours who
answer. They prove that for a Harary graph on randomly placed phones; here the hypergeometric tails are summed exactly
for the plan's numbers, and no asymptotic bound is used.

Corrupt phones are fixed before the order is drawn. Lost phones are random in the two bounds of availability. Against a
server that *chooses* who is lost, knowing the graph, no such bound holds; there the phones themselves look at the one
survivor list and demand `window_floor` survivors in any degree/2 consecutive positions, so that an honest one is there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

from model.contract.promise import Neighbours
from model.errors import ContractError
from model.secagg.circle import degree_of, sizes

BITS = 40  # privacy
ANSWERS = 20  # availability: what is at stake is one more attempt
PRIVATE = ("both shares", "split")  # the plan's bounds on what privacy rests on


def require_bound(phones: int, neighbours: Neighbours, bits: int = BITS, answers: int = ANSWERS) -> None:
    """ContractError unless a roster of `phones` fails in privacy with at most 2^-bits and in answering 2^-answers."""
    for name in failures(phones, neighbours):
        _require(phones, neighbours, name, bits if name in PRIVATE else answers)


@lru_cache(maxsize=64)
def require_private(phones: int, neighbours: Neighbours, bits: int = BITS) -> None:
    """ContractError unless any phone's neighbours could hand out both its secrets with at most 2^-bits.

    What phones and the witness check of a roster by its size; that survivors stay connected they see on the list.
    """
    _require(phones, neighbours, "both shares", bits)


@lru_cache(maxsize=256)
def failures(phones: int, neighbours: Neighbours) -> Mapping[str, float]:
    """Upper bounds on the probability that anywhere in a roster of `phones`:

    - "both shares": an honest phone's corrupt neighbours, c of `degree`, reach 2·threshold − degree, so that threshold
      shares of either kind could be had (or, c ≥ threshold, all without anyone's help);
    - "split": degree/2 consecutive positions are all corrupt or lost, without which honest survivors stay connected;
    - "too few answers": a phone keeps fewer than `threshold` neighbours;
    - "window": honest phones find fewer than `window_floor` survivors in degree/2 consecutive positions and refuse.
    """
    size = min(sizes(phones))
    degree, threshold = degree_of(size, neighbours.degree), neighbours.threshold
    bad, lost = count(phones, neighbours.corrupt), count(phones, neighbours.dropout)
    short = tail(phones - 1, lost, degree, degree - threshold + 1)
    found = {
        "both shares": phones * tail(phones - 1, bad, degree, 2 * threshold - degree),
        "split": 0.0,
        "too few answers": phones * short,
        "window": 0.0,
    }
    if degree < size - 1:
        width, floor = degree // 2, window_floor(phones, neighbours)
        found["split"] = phones * tail(phones, min(bad + lost, phones), width, width)
        found["window"] = phones * tail(phones, lost, width, width - floor + 1)
    return {name: min(1.0, chance) for name, chance in found.items()}


@lru_cache(maxsize=256)
def window_floor(phones: int, neighbours: Neighbours, bits: int = BITS) -> int:
    """Survivors that a phone demands in any degree/2 consecutive positions; 0 where everyone is a neighbour.

    One more than the corrupt phones there, but with probability 2^-bits over all windows.
    """
    size = min(sizes(phones))
    degree = degree_of(size, neighbours.degree)
    if degree == size - 1:
        return 0
    width, bad = degree // 2, count(phones, neighbours.corrupt)
    return next((g for g in range(1, width) if phones * tail(phones, bad, width, g) <= 2.0**-bits), width)


def quorum(size: int, phones: int, corrupt: float, bits: int = BITS) -> int:
    """Signatures under one list of a circle of `size` that leave no room for a second list as well signed.

    Honest phones sign once, corrupt ones twice: above (size + corrupt phones in the circle)/2 two lists must share an
    honest signer.
    """
    return (size + most_corrupt(size, phones, corrupt, bits)) // 2 + 1


def most_corrupt(size: int, phones: int, corrupt: float, bits: int = BITS) -> int:
    """Corrupt phones that a circle of `size` cut from a roster of `phones` has at most, but with 2^-bits for any."""
    bad, groups = count(phones, corrupt), len(sizes(phones))
    return next(c for c in range(bad + 1) if groups * tail(phones, bad, size, c + 1) <= 2.0**-bits)


def choose(phones: int, corrupt: float, dropout: float, bits: int = BITS, answers: int = ANSWERS) -> Neighbours:
    """The least degree, and the least threshold with it, whose bound holds for `phones`; ContractError if none does."""
    smallest = min(sizes(phones))
    for degree in [*range(2, smallest - 1, 2), smallest - 1]:
        for threshold in range(degree // 2 + 1, degree + 1):
            if phones * tail(phones - 1, count(phones, corrupt), degree, 2 * threshold - degree) > 2.0**-bits:
                continue
            found = Neighbours(degree, threshold, corrupt, dropout)
            if _holds(phones, found, bits, answers):
                return found
            break  # a higher threshold only answers less often
    raise ContractError(
        f"no graph serves {phones} phones of whom {corrupt:.0%} are corrupt and {dropout:.0%} lost; expect fewer"
    )


def count(phones: int, fraction: float) -> int:
    """Whole phones in a fraction, rounded up."""
    return math.ceil(phones * fraction - 1e-9)


@lru_cache(maxsize=4096)
def tail(population: int, marked: int, drawn: int, least: int) -> float:
    """P(at least `least` marked among `drawn` of a population without replacement), summed exactly."""
    low, high = max(least, drawn - (population - marked), 0), min(marked, drawn)
    ways = sum(math.comb(marked, i) * math.comb(population - marked, drawn - i) for i in range(low, high + 1))
    return ways / math.comb(population, drawn)


def _holds(phones: int, neighbours: Neighbours, bits: int, answers: int) -> bool:
    found = failures(phones, neighbours)
    return all(chance <= 2.0 ** -(bits if name in PRIVATE else answers) for name, chance in found.items())


def _require(phones: int, neighbours: Neighbours, name: str, bits: int) -> None:
    chance = failures(phones, neighbours)[name]
    if chance > 2.0**-bits:
        raise ContractError(
            f"with {phones} phones the graph fails ({name}) with probability up to {chance:.2g}, above 2^-{bits}; plan "
            "more neighbours, another threshold, or fewer corrupt and lost phones"
        )
