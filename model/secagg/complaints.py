"""Whom to leave out where boxes between phones did not open (spec 13.9.7, case 38)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set


def uncover(pairs: Set[tuple[int, int]]) -> set[int]:
    """Phones without whom no pair (sealed by, not opened by) is left.

    Nobody but these two can tell who of a pair lies. Whoever is in the most pairs goes first, so that one who seals
    badly for many, or complains of many, goes alone; of a lone pair it is the one who sealed.
    """
    left, out = set(pairs), set[int]()
    while left:
        often = Counter(end for pair in left for end in pair)
        sender, receiver = max(left, key=lambda pair: (max(often[pair[0]], often[pair[1]]), pair))
        worst = receiver if often[receiver] > often[sender] else sender
        out.add(worst)
        left = {pair for pair in left if worst not in pair}
    return out
