"""Sums through the driver, phones lost at random at every step: the right sum or a clean end, never a wrong sum.

Two hundred such rounds of the protocol alone are in tests/model/secagg; here every step is a Flower message.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from flwr.app import Message

from fl_server import paired
from fl_server.paired import PairedStrategy, Talk, place_of
from model.contract.promise import Neighbours
from model.errors import RoundError

ROUNDS = 40
RATES = (0.0, 0.01, 0.03, 0.1)


class Telling(PairedStrategy):
    """Keeps its last attempt."""

    last: Talk

    def _talk(self, *told: Any) -> Talk:
        type(self).last = super()._talk(*told)
        return type(self).last


@pytest.mark.integration
def test_rounds_over_messages_with_drops_at_every_step(
    make_scene: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paired, "TRIES", 1)
    source, sums, ends = random.Random(11), 0, 0
    for trial in range(ROUNDS):
        rate = source.choice(RATES)

        def lost(node: int, message: Message, rate: float = rate) -> bool:
            return source.random() < rate

        graph = source.choice([Neighbours(8, 5, 0.0, 0.05), Neighbours(12, 8, 0.0, 0.05)])
        ways = {"lose": lost} if trial % 2 else {"mute": lost}
        scene = make_scene(33, graph, strategy=Telling, **ways)
        try:
            (release,) = scene.run()
        except RoundError:
            assert not list(scene.workspace.releases.glob("release-*"))
            ends += 1
            continue
        counted = sorted(place_of(name)[0] - 2 for name in Telling.last.server.counted)
        assert (release.noised == scene.right(release, counted)).all() and release.phones == len(counted) >= 30
        sums += 1
    assert sums > 8 and ends > 4
