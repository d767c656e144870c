"""An attempt that no phone came to uses its number up, and not the sum (spec 13.9.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from model.contract.envelope import SigningKey
from model.errors import RoundError
from model.privacy.noise import OsSource
from model.secagg.context import Context
from model.secagg.messages import Advert
from model.secagg.pairwise_phone import PairwisePhone
from model.secagg.terms import ATTEMPTS, Terms
from model.secagg.witness import LocalWitness

PHONES = 36
PLACE = Context("ab" * 32, "train", 1, "cd" * 32, 4)


def attempt_of(message: Message) -> Any:
    return message.content.config_records["pairing"]["attempt"]


def test_all_phones_away_for_two_attempts(make_scene: Callable[..., Any]) -> None:
    scene = make_scene(lose=lambda node, message: attempt_of(message) < 2)
    (release,) = scene.run()
    assert release.phones == PHONES and not release.void
    np.testing.assert_array_equal(release.noised, scene.right(release, range(PHONES), attempt=2))


def test_a_run_that_was_cut_off_from_its_phones_goes_on(make_scene: Callable[..., Any]) -> None:
    """What an ended run leaves: attempts that its last seconds spent on nodes that were gone already."""
    scene = make_scene(lose=lambda node, message: attempt_of(message) < 4)
    with pytest.raises(RoundError, match="has no sum after its attempts"):
        scene.run()
    (release,) = scene.run()
    assert release.phones == PHONES and not release.void


def test_the_witness_signs_no_earlier_attempt_and_none_beyond_the_last(make_scene: Callable[..., Any]) -> None:
    key = SigningKey.generate()
    terms = Terms.of(make_scene().plan, key.public_bytes)
    witness, people = LocalWitness(key, terms), [SigningKey.generate() for _ in range(PHONES)]

    def sign(attempt: int) -> bytes:
        phones = [PairwisePhone(one, PLACE, terms, attempt, OsSource()) for one in people]
        return witness.sign_roster(PLACE, attempt, [Advert.from_bytes(phone.advertise()) for phone in phones])

    assert len({sign(0), sign(2), sign(5)}) == 3
    for attempt in (1, 4, ATTEMPTS, ATTEMPTS + 1):
        with pytest.raises(RoundError, match=f"attempt {attempt} is not the next"):
            sign(attempt)
