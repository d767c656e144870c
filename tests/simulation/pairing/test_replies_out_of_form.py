"""What nodes answer out of form, or twice, in a pairwise sum: it costs them alone, and is named once in the release."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fl_server.paired import PairedStrategy
from model.canonical import decode, encode

pytestmark = pytest.mark.integration
MakeScene = Callable[..., Any]
Answers = Callable[[RecordDict], Sequence[RecordDict]]
NODE, STEPS = 5, ("advertise", "share", "upload", "agree", "unmask")
DEAF = ("advertise", "share", "upload")  # the steps after which a phone that is lost is not in the sum


def answering(step: str, change: Answers) -> type[PairedStrategy]:
    """A strategy to which NODE's answer to `step` comes as `change` gives it, once or more often."""

    class Spoilt(PairedStrategy):
        def ask(self, grid: Grid, messages: Sequence[Message]) -> list[Message]:
            replies, found = super().ask(grid, messages), list[Message]()
            asked = {m.metadata.message_id: m.metadata for m in messages}
            for reply in replies:
                told = asked[reply.metadata.reply_to_message_id]
                mine = told.dst_node_id == NODE and told.message_type == f"query.{step}"
                contents = change(reply.content) if mine else [reply.content]
                found += [_said(reply, content) for content in contents]
            return found

    return Spoilt


def _said(reply: Message, content: RecordDict) -> Message:
    return Message(content=content, metadata=reply.metadata)  # type: ignore[call-overload,no-any-return]


def others(scene: Any) -> list[int]:
    """Every phone but that of NODE; the first node is number 2."""
    return [index for index in range(scene.nodes) if index != NODE - 2]


def part(content: RecordDict) -> dict[str, Any]:
    return dict(content.config_records["pairing"])


def with_message(content: RecordDict, change: Callable[[bytes], Any]) -> RecordDict:
    fields = part(content)
    return RecordDict({"pairing": ConfigRecord({**fields, "messages": [change(fields["messages"][0])]})})


def with_field(name: str, value: object) -> Answers:
    return lambda content: [with_message(content, lambda data: encode({**decode(data), name: value}))]


def weighed(content: RecordDict) -> list[RecordDict]:
    return [RecordDict({**dict(content), "metrics": MetricRecord({"num-examples": 5})})]


def for_another(content: RecordDict) -> list[RecordDict]:
    return [RecordDict({"pairing": ConfigRecord({**part(content), "phones": [1]})})]


CASES: dict[str, tuple[Answers, str]] = {
    "noise": (lambda c: [with_message(c, lambda data: b"\x81" * 90)], "send|spec|map"),
    "text": (lambda c: [with_message(c, lambda data: "text")], "must be bytes"),
    "another attempt": (with_field("attempt", 1), "another step"),
    "another plan": (with_field("plan_digest", "00" * 32), "another step"),
    "a body of nothing": (with_field("body", b""), "ends|cut|short"),
    "a weight": (weighed, "other parts"),
    "another phone": (for_another, "not asked"),
    "lines": (with_field("x\ny", 1), "lacks or adds"),
    "too long": (lambda c: [with_message(c, lambda data: bytes(1 << 20))], "exceed"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_reply_out_of_form_costs_its_node_alone(make_scene: MakeScene, name: str) -> None:
    change, said = CASES[name]
    step = DEAF[list(CASES).index(name) % len(DEAF)]
    scene = make_scene(strategy=answering(step, change))
    (release,) = scene.run()
    np.testing.assert_array_equal(release.noised, scene.right(release, others(scene)))
    assert release.phones == scene.nodes - 1 and len(release.refused) == 1
    (why,) = release.refused
    assert why.startswith(f"node {NODE}: ") and why.isprintable() and len(why) < 330
    assert re.search(said, why)


@pytest.mark.parametrize("step", STEPS)
def test_the_same_answer_twice_counts_once(make_scene: MakeScene, step: str) -> None:
    scene = make_scene(strategy=answering(step, lambda content: [content, content]))
    (release,) = scene.run()
    np.testing.assert_array_equal(release.noised, scene.right(release, range(scene.nodes)))
    assert release.phones == scene.nodes and release.refused == ()


@pytest.mark.parametrize("step", DEAF)
def test_two_answers_that_differ_count_neither(make_scene: MakeScene, step: str) -> None:
    def both(content: RecordDict) -> list[RecordDict]:
        return [content, with_message(content, lambda data: encode({**decode(data), "attempt": 1}))]

    scene = make_scene(strategy=answering(step, both))
    (release,) = scene.run()
    np.testing.assert_array_equal(release.noised, scene.right(release, others(scene)))
    assert release.phones == scene.nodes - 1
    assert any("two different answers" in why for why in release.refused)
