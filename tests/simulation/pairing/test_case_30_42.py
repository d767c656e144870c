"""Cases 30 to 42 over real Flower messages: phones lost at every step, and a server that attacks through its strategy.

The server's own code is honest in `fl_server`; here it is replaced step by step. Every attack has its control: the same
scene without it succeeds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from flwr.app import Message

from fl_server.coordinator import Question
from fl_server.paired import TRIES, PairedStrategy, Talk, place_of
from fl_server.rounds import Release
from model.canonical import encode
from model.contract.envelope import SigningKey
from model.contract.pairing import PairingMessage
from model.contract.promise import Neighbours
from model.errors import RoundError
from model.secagg.circle import pack, unpack
from model.secagg.messages import (
    BOX,
    ENTRY,
    KEY,
    TAG,
    Advert,
    Agreement,
    Certificate,
    Deal,
    Delivery,
    Place,
    Reveal,
    Survivors,
    Upload,
)

pytestmark = pytest.mark.integration
MakeScene = Callable[..., Any]
Mail = dict[str, bytes]
Change = Callable[[Any, Mail], Mail]
VICTIM = "2/0"
KEYS = [SigningKey.from_private_bytes(bytes([7]) * 32), SigningKey.from_private_bytes(bytes([8]) * 32)]
EVERYONE = Neighbours(35, 20, 0.0, 0.05)  # 36 phones, all of them neighbours


@dataclass
class HostileTalk(Talk):
    """An attempt in which `changes`, by step, rewrite what phones are sent ("agree") or said ("agree answers")."""

    changes: Mapping[str, Change] = field(default_factory=dict)
    sent: dict[str, Mail] = field(default_factory=dict)
    heard: dict[str, Mail] = field(default_factory=dict)

    def ask(self, step: str, mail: Mapping[str, bytes]) -> dict[str, bytes]:
        changed = self.changes.get(step, lambda _, box: box)(self, dict(mail))
        self.sent[step] = changed
        answers = super().ask(step, changed)
        self.heard[step] = answers
        return self.changes.get(f"{step} answers", lambda _, box: box)(self, dict(answers))


def hostile(changes: Mapping[str, Change]) -> type[PairedStrategy]:
    """A strategy whose attempts are hostile; `talks` keeps them."""

    class Hostile(PairedStrategy):
        talks: ClassVar[list[HostileTalk]] = []

        def _talk(self, grid: Any, question: Question, nodes: Any, attempt: int) -> Talk:
            talk = HostileTalk(self, grid, question, nodes, attempt, changes=changes)
            self.talks.append(talk)
            return talk

    Hostile.talks = []
    return Hostile


def counted(scene: Any, gone: Iterable[int] = ()) -> list[int]:
    """Indices of the phones in the sum, when the nodes `gone` are not."""
    return [index for index in range(scene.nodes) if index + 2 not in set(gone)]


def right(scene: Any, release: Release, gone: Iterable[int] = (), attempt: int = 0) -> bool:
    """Whether a release is exactly what the phones without `gone` add up to, noise and all."""
    kept = counted(scene, gone)
    return release.phones == len(kept) and bool((release.noised == scene.right(release, kept, attempt)).all())


def at(step: str, nodes: Iterable[int]) -> Callable[[int, Message], bool]:
    lost = set(nodes)
    return lambda node, message: message.metadata.message_type == f"query.{step}" and node in lost


@pytest.mark.parametrize("graph", [None, EVERYONE], ids=["circle", "all"])
def test_control_nobody_is_lost_and_nobody_lies(make_scene: MakeScene, graph: Neighbours | None) -> None:
    scene = make_scene(graph=graph, strategy=hostile({}))
    (release,) = scene.run()
    assert right(scene, release) and release.refused == () and release.replied == 36


WAYS = pytest.mark.parametrize(("how", "graph"), [("lose", None), ("mute", EVERYONE)], ids=["question", "answer"])


def drop(make_scene: MakeScene, step: str, how: str, graph: Neighbours | None) -> None:
    """Three phones' questions, or answers, are lost: they are not counted, and the others' sum is exact."""
    gone = (3, 11, 20)
    scene = make_scene(graph=graph, **{how: at(step, gone)})
    (release,) = scene.run()
    assert right(scene, release, gone)


@WAYS
def test_case_30_drop_at_advertise(make_scene: MakeScene, how: str, graph: Neighbours | None) -> None:
    drop(make_scene, "advertise", how, graph)


@WAYS
def test_case_31_drop_at_share(make_scene: MakeScene, how: str, graph: Neighbours | None) -> None:
    drop(make_scene, "share", how, graph)


@WAYS
def test_case_32_drop_at_upload(make_scene: MakeScene, how: str, graph: Neighbours | None) -> None:
    drop(make_scene, "upload", how, graph)


@pytest.mark.parametrize("graph", [None, EVERYONE], ids=["circle", "all"])
@pytest.mark.parametrize("step", ["agree", "unmask"])
def test_case_33_drop_when_shares_are_asked_for(make_scene: MakeScene, step: str, graph: Neighbours | None) -> None:
    """A phone that uploaded is in the sum even if it is lost before it answers again."""
    scene = make_scene(graph=graph, mute=at(step, (3, 11, 20)))
    (release,) = scene.run()
    assert right(scene, release)


@pytest.mark.parametrize("step", ["share", "upload", "agree"])
def test_case_34_fewer_than_the_threshold(make_scene: MakeScene, step: str) -> None:
    """The attempts end, no phone is asked for a share, nothing is released, and ε stays reserved."""
    gone = range(4, 24)
    scene = make_scene(graph=EVERYONE, lose=at(step, gone))
    with pytest.raises(RoundError, match="no sum after its attempts"):
        scene.run()
    assert not scene.releases and not scene.grid.spoke("unmask")
    assert not list(scene.workspace.releases.glob("release-*"))
    scene.lose = None  # the control: with everyone there, the same phase goes on to its release, under the same ε
    (release,) = scene.run()
    assert right(scene, release, attempt=TRIES)


def test_case_34_lost_while_answering(make_scene: MakeScene) -> None:
    """After the witness signed, the sum is spent: no other attempt is made, and no share of too few opens it."""
    scene = make_scene(graph=EVERYONE, lose=at("unmask", range(4, 24)))
    with pytest.raises(RoundError, match="fewer than the threshold"):
        scene.run()
    scene.lose = None
    with pytest.raises(RoundError, match="void"):
        scene.run()


def test_an_attempt_that_fails_is_made_again_with_a_new_roster(make_scene: MakeScene) -> None:
    attempts: list[int] = []

    def lose(node: int, message: Message) -> bool:
        part = message.content.config_records["pairing"]
        attempts.append(int(part["attempt"]))
        return part["attempt"] == 0 and at("upload", range(4, 24))(node, message)

    scene = make_scene(graph=EVERYONE, lose=lose)
    (release,) = scene.run()
    assert set(attempts) == {0, 1} and right(scene, release, attempt=1)


def both_kinds(_: Talk, mail: Mail) -> Mail:
    """The list calls the first active phone dead as well."""

    def change(data: bytes) -> bytes:
        message = Survivors.from_bytes(data)
        return replace(message, dead=bytes([message.dead[0] | 1]) + message.dead[1:]).to_bytes()

    return {name: change(data) for name, data in mail.items()}


def test_case_35_both_kinds_of_share_asked(make_scene: MakeScene) -> None:
    scene = make_scene(strategy=hostile({"agree": both_kinds}))
    with pytest.raises(RoundError):
        scene.run()
    assert len(scene.grid.refused("agree")) == 36 and not scene.grid.spoke("agree") and not scene.grid.spoke("unmask")


@pytest.mark.parametrize("step", ["agree", "unmask", "upload"])
def test_case_35_a_step_is_answered_once(make_scene: MakeScene, step: str) -> None:
    """Asked again, with the same words or others, a phone that answered or refused has no answer."""
    again: list[dict[str, bytes]] = []

    def twice(talk: HostileTalk, answers: Mail) -> Mail:
        again.append(Talk.ask(talk, step, talk.sent[step]))
        return answers

    scene = make_scene(strategy=hostile({f"{step} answers": twice}))
    if step == "unmask":
        (release,) = scene.run()
        assert right(scene, release)
    else:  # asking again ended the attempt for every phone
        with pytest.raises(RoundError):
            scene.run()
    assert again and not any(again)


def test_case_35_one_of_the_two_lists_goes_to_a_few(make_scene: MakeScene) -> None:
    """Who is told that an active phone is dead, to get the other share from it, gives none: its list is not signed."""
    scene = make_scene(graph=EVERYONE)

    def split(talk: HostileTalk, mail: Mail) -> Mail:
        victim = talk.server._places[VICTIM][1]
        return {n: call_dead(d, victim, 36) if place_of(n)[0] in (5, 6) else d for n, d in mail.items()}

    scene.strategy = hostile({"agree": split, "unmask": lambda talk, mail: mail | {"5/0": mail["7/0"]}})
    (release,) = scene.run()
    assert right(scene, release)
    assert 5 not in scene.grid.spoke("unmask") and 7 in scene.grid.spoke("unmask")


def test_case_36_differing_survivor_lists(make_scene: MakeScene) -> None:
    """Half of the phones get one list, half another, and both sign: neither has the quorum the witness wants."""
    why: list[str] = []

    def split(talk: HostileTalk, mail: Mail) -> Mail:
        victim = talk.server._places[VICTIM][1]
        return {n: call_dead(d, victim, 36) if place_of(n)[0] % 2 else d for n, d in mail.items()}

    def both(talk: HostileTalk, answers: Mail) -> Mail:
        listed, victim = talk.server._circles[0].list, talk.server._places[VICTIM][1]
        other = replace(listed, active=listed.active.copy(), dead=listed.dead.copy())
        other.active[victim], other.dead[victim] = False, True
        signed = {talk.server._places[n][1]: Agreement.from_bytes(d).signature for n, d in answers.items()}
        for each in (listed, other):
            with pytest.raises(RoundError, match="signed the list, fewer than") as refusal:
                talk.witness.inner.sign_list(each, signed)
            why.append(str(refusal.value))
        return answers

    scene = make_scene(graph=EVERYONE, strategy=hostile({"agree": split, "agree answers": both}))
    with pytest.raises(RoundError):
        scene.run()
    assert why[0].startswith("18 phones") and why[1].startswith("18 phones")
    assert not scene.grid.spoke("unmask") and not scene.releases


def test_case_36_a_list_signed_by_the_witness_but_not_by_neighbours(make_scene: MakeScene) -> None:
    def forge(_: Talk, mail: Mail) -> Mail:
        read = {name: Certificate.from_bytes(data) for name, data in mail.items()}
        return {name: replace(m, tags=bytes(len(m.tags))).to_bytes() for name, m in read.items()}

    scene = make_scene(strategy=hostile({"unmask": forge}))
    with pytest.raises(RoundError):
        scene.run()
    assert len(scene.grid.refused("unmask")) == 36 and not scene.releases


def test_case_36_another_witness(make_scene: MakeScene) -> None:
    """A server that signs rosters by itself finds no phone that shares with it."""
    other = SigningKey.generate()

    def forge(talk: HostileTalk, mail: Mail) -> Mail:
        read = {name: Place.from_bytes(data) for name, data in mail.items()}
        return {name: replace(place, signature=other.sign(place.root)).to_bytes() for name, place in read.items()}

    scene = make_scene(strategy=hostile({"share": forge}))
    with pytest.raises(RoundError):
        scene.run()
    assert len(scene.grid.refused("share")) == 36


def swapped(talk: HostileTalk, mail: Mail) -> Mail:
    """Everyone is shown a key of the server's where its first neighbour's should be."""
    mine = X25519PrivateKey.generate().public_key().public_bytes_raw()
    return neighbour_keys(mail, lambda place, entry: entry[:KEY] + mine + entry[2 * KEY :])


def reflected(talk: HostileTalk, mail: Mail) -> Mail:
    """Everyone is shown its second neighbour's keys for its first's."""
    return neighbour_keys(mail, lambda place, entry: entry[:KEY] + place.neighbours[ENTRY + KEY : 2 * ENTRY])


def low_order(talk: HostileTalk, mail: Mail) -> Mail:
    """Everyone is shown a key whose secret with anyone is zero."""
    return neighbour_keys(mail, lambda place, entry: entry[:KEY] + bytes(KEY) + entry[2 * KEY :])


def neighbour_keys(mail: Mail, change: Callable[[Place, bytes], bytes]) -> Mail:
    found = {}
    for name, data in mail.items():
        place = Place.from_bytes(data)
        shown = change(place, place.neighbours[:ENTRY]) + place.neighbours[ENTRY:]
        found[name] = replace(place, neighbours=shown).to_bytes()
    return found


@pytest.mark.parametrize("trick", [swapped, reflected, low_order])
def test_case_37_keys_that_are_not_the_neighbours(make_scene: MakeScene, trick: Change) -> None:
    scene = make_scene(strategy=hostile({"share": trick}))
    with pytest.raises(RoundError):
        scene.run()
    assert len(scene.grid.refused("share")) == 36 and not scene.grid.spoke("upload")


@pytest.mark.parametrize("kind", ["copied", "low order", "swapped"])
def test_case_37_a_phone_advertises_another_ones_key(make_scene: MakeScene, kind: str) -> None:
    """Such a phone is left out, and the others' sum is exact; a key swapped on the way breaks its signature."""
    own = SigningKey.generate()

    def change(talk: HostileTalk, answers: Mail) -> Mail:
        from model.secagg.roster import signed_advert

        told, other = Advert.from_bytes(answers[VICTIM]), Advert.from_bytes(answers["3/0"])
        place, mask = talk.server.context, X25519PrivateKey.generate().public_key().public_bytes_raw()
        forged = {
            "copied": lambda: signed_advert(own, place, 0, other.channel, told.mask),
            "low order": lambda: signed_advert(own, place, 0, bytes(KEY), told.mask),
            "swapped": lambda: replace(told, mask=mask),
        }[kind]()
        rest = {name: data for name, data in answers.items() if name != VICTIM}
        return rest | {VICTIM: forged.to_bytes()}

    scene = make_scene(strategy=hostile({"advertise answers": change}))
    (release,) = scene.run()
    assert right(scene, release, [2]) and any("node 2" in why for why in release.refused)


def test_case_38_a_corrupted_ciphertext_costs_its_sender(make_scene: MakeScene) -> None:
    """A phone whose boxes do not open is left out by all who were to open them; the sum is the others', exactly."""

    def spoil(_: Talk, answers: Mail) -> Mail:
        deal = Deal.from_bytes(answers[VICTIM])
        boxes = b"".join(
            bytes([deal.boxes[i] ^ 1]) + deal.boxes[i + 1 : i + BOX] for i in range(0, len(deal.boxes), BOX)
        )
        return answers | {VICTIM: replace(deal, boxes=boxes).to_bytes()}

    scene = make_scene(strategy=hostile({"share answers": spoil}))
    (release,) = scene.run()
    assert right(scene, release, [2])
    assert any("node 2" in why and "did not open" in why for why in release.refused)


def test_case_38_a_server_that_spoils_boxes_gains_nothing(make_scene: MakeScene) -> None:
    """Spoilt on the way to one phone, one box: the pair does not mask, one of both is left out, the sum is exact."""

    def spoil(_: Talk, mail: Mail) -> Mail:
        told = Delivery.from_bytes(mail[VICTIM])
        return mail | {VICTIM: replace(told, boxes=bytes([told.boxes[0] ^ 1]) + told.boxes[1:]).to_bytes()}

    scene = make_scene(strategy=hostile({"upload": spoil}))
    (release,) = scene.run()
    gone = set(range(2, 38)) - {place_of(name)[0] for name in scene.strategy.talks[0].server.counted}
    assert len(gone) == 1 and right(scene, release, gone)


@pytest.mark.parametrize("step", ["share", "unmask"])
def test_case_39_a_byzantine_share_is_detected_by_its_commitment(make_scene: MakeScene, step: str) -> None:
    """A share other than promised: at dealing its sender is left out, at revealing the share is not used."""

    def deals(_: Talk, answers: Mail) -> Mail:
        deal = Deal.from_bytes(answers[VICTIM])
        return answers | {VICTIM: replace(deal, commitments=bytes(len(deal.commitments))).to_bytes()}

    def reveals(_: Talk, answers: Mail) -> Mail:
        told = Reveal.from_bytes(answers[VICTIM])
        return answers | {VICTIM: replace(told, shares=bytes(len(told.shares))).to_bytes()}

    scene = make_scene(strategy=hostile({f"{step} answers": deals if step == "share" else reveals}))
    (release,) = scene.run()
    assert right(scene, release, [2] if step == "share" else [])
    assert any("node 2" in why for why in release.refused) == (step == "share" or bool(release.refused))


def test_case_39_a_share_that_decides_is_named(make_scene: MakeScene) -> None:
    """With as many phones left as needed, the lie is seen and the round ends rather than open to a wrong sum."""

    def reveals(_: Talk, answers: Mail) -> Mail:
        kept = dict(list(answers.items())[:21])
        first = next(iter(kept))
        told = Reveal.from_bytes(kept[first])
        return kept | {first: replace(told, shares=bytes(len(told.shares))).to_bytes()}

    scene = make_scene(graph=EVERYONE, strategy=hostile({"unmask answers": reveals}))
    with pytest.raises(RoundError, match="fewer than the threshold"):
        scene.run()
    assert any("not dealt" in why for why in scene.strategy.talks[0].server.reports.values())
    control = make_scene(graph=EVERYONE, strategy=hostile({"unmask answers": lambda _, a: dict(list(a.items())[:21])}))
    (release,) = control.run()
    assert right(control, release)


def other_model(step: str, nodes: Iterable[int]) -> type[PairedStrategy]:
    """From `step` on, these nodes are shown another model (inconsistent models, Pasquini et al., CCS 2022)."""
    shown, order = set(nodes), ("advertise", "share", "upload", "agree", "unmask")

    class TwoModels(PairedStrategy):
        def message(self, question: Question, node: int, name: str, parts: Any) -> Message:
            if node in shown and order.index(name) >= order.index(step):
                question = replace(question, knots=encode({"of": "another model"}))
                question = replace(question, knots=b"", flat=np.ones(1, np.float32))
            return super().message(question, node, name, parts)

    return TwoModels


def test_case_40_inconsistent_models_do_not_share_a_sum(make_scene: MakeScene) -> None:
    """Phones asked about another model sign other adverts: the server must leave them out, and they cost themselves."""
    scene = make_scene(strategy=other_model("advertise", (2, 3, 4)))
    (release,) = scene.run()
    assert right(scene, release, (2, 3, 4))
    assert sum("signature" in why for why in release.refused) == 3


@pytest.mark.parametrize("step", ["share", "upload", "agree", "unmask"])
def test_case_40_a_model_that_changes_under_way_is_refused(make_scene: MakeScene, step: str) -> None:
    scene = make_scene(strategy=other_model(step, (2, 3, 4)))
    (release,) = scene.run()
    assert right(scene, release, (2, 3, 4) if step in ("share", "upload") else ())
    assert {2, 3, 4} <= scene.grid.refused(step)


def test_case_40_a_sum_whose_masks_do_not_cancel_is_void_and_says_so(make_scene: MakeScene) -> None:
    """A vector swapped for garbage opens to no count of phones; knots cannot be void, so the run ends with nothing."""

    def garbage(_: Talk, answers: Mail) -> Mail:
        told = Upload.from_bytes(answers[VICTIM], 1 << 24)
        vector = np.random.default_rng(0).bytes(len(told.vector))
        return answers | {VICTIM: replace(told, vector=vector).to_bytes()}

    scene = make_scene(strategy=hostile({"upload answers": garbage}))
    with pytest.raises(RoundError, match="did not cancel"):
        scene.run()
    assert not scene.releases


def test_case_40_in_training_the_round_is_flagged_and_the_run_goes_on(make_scene: MakeScene) -> None:
    def garbage(talk: HostileTalk, answers: Mail) -> Mail:
        if talk.question.phase.kind != "train":
            return answers
        told = Upload.from_bytes(answers[VICTIM], 1 << 24)
        return answers | {VICTIM: replace(told, vector=bytes(len(told.vector))).to_bytes()}

    scene = make_scene(strategy=hostile({"upload answers": garbage}))
    knots, train = scene.run(2)
    assert right(scene, knots) and train.void and any("did not cancel" in why for why in train.refused)
    assert not train.noised.any()


def test_case_41_a_plan_that_could_wrap_is_refused_before_anything_is_asked(make_scene: MakeScene) -> None:
    """The static check of phone and coordinator; what it lets pass comes through (the control of this file)."""
    scene = make_scene()
    plan = replace(scene.plan, privacy=replace(scene.plan.privacy, grid_scale=1 << 27))
    with pytest.raises(RoundError, match="could wrap"):
        scene.workspace.prepare(scene.data, plan, KEYS)
        scene.workspace.trust().plan_of(scene.workspace.signed().to_bytes())


def test_case_42_a_second_list_over_one_phone_less(make_scene: MakeScene) -> None:
    """After a sum of n, a list of n − 1 for the same sum: no phone answers, and the witness signs none."""
    found: dict[str, Any] = {}

    def again(talk: HostileTalk, answers: Mail) -> Mail:
        circle = talk.server._circles[0]
        smaller = replace(circle.list, active=circle.list.active.copy(), dead=circle.list.dead.copy())
        smaller.active[0], smaller.dead[0] = False, True
        mail = {name: call_dead(data, 0, 36) for name, data in talk.sent["agree"].items()}
        found["answers"] = Talk.ask(talk, "agree", mail)
        with pytest.raises(RoundError):
            talk.witness.inner.sign_list(smaller, {})
        return answers

    scene = make_scene(graph=EVERYONE, strategy=hostile({"unmask answers": again}))
    (release,) = scene.run()
    assert right(scene, release) and found["answers"] == {}


@pytest.mark.parametrize("noted", [True, False], ids=["as it is", "without the note"])
def test_case_42_a_second_attempt_over_one_phone_less(
    make_scene: MakeScene, noted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a sum of n a roster of n − 1 for the same sum: phones that gave shares stay out, the witness signs none."""
    found: dict[str, Any] = {}
    if not noted:  # the control: phones that do not note what they opened would join again
        names = itertools.count()
        monkeypatch.setattr("fl_client.pairing._name", lambda context: str(next(names)))

    def again(talk: HostileTalk, answers: Mail) -> Mail:
        second = Talk(talk.strategy, talk.grid, talk.question, talk.nodes[1:], talk.attempt + 1)
        found["joined"] = second.ask("advertise", {f"{node}/0": b"" for node in talk.nodes[1:]})
        fresh = [Advert.from_bytes(data) for data in talk.heard["advertise"].values()]
        with pytest.raises(RoundError, match="spent"):
            talk.witness.inner.sign_roster(talk.server.context, talk.attempt + 1, adverts(talk, fresh))
        return answers

    scene = make_scene(strategy=hostile({"unmask answers": again}))
    (release,) = scene.run()
    assert right(scene, release) and len(found["joined"]) == (0 if noted else 35)


def test_case_42_an_attempt_that_opened_nothing_may_be_made_again_without_a_phone(make_scene: MakeScene) -> None:
    """The control: nothing was revealed of the first, so the second says nothing of the difference; noise is new."""
    scene = make_scene(mute=at("upload", range(4, 24)))
    seen: list[dict[str, bytes]] = []

    def lose(node: int, message: Message) -> bool:
        late = message.content.config_records["pairing"]["attempt"] > 0
        scene.mute = None if late else scene.mute
        return late and node == 2

    scene.lose = lose
    scene.strategy = hostile({"upload answers": lambda _, answers: seen.append(answers) or answers})
    (release,) = scene.run()
    assert right(scene, release, [2], attempt=1)
    first, second = (Upload.from_bytes(box["30/0"], 1 << 24).vector for box in (scene_vectors(scene, 0), seen[-1]))
    assert np.mean(np.frombuffer(first, "<u4") == np.frombuffer(second, "<u4")) < 0.01


def test_case_42_an_old_attempt_is_not_taken_up_again(make_scene: MakeScene) -> None:
    """Once a phone has joined a later attempt, the secrets of the earlier are gone, whatever it is asked."""
    found: dict[str, Any] = {}

    def back(talk: HostileTalk, mail: Mail) -> Mail:
        if talk.attempt == 0:
            found["places"] = mail
            return {}
        old = scene.strategy.talks[0]
        found["old"] = Talk.ask(old, "share", found["places"])
        found["older"] = Talk.ask(old, "advertise", dict.fromkeys(found["places"], b""))
        return mail

    scene = make_scene(strategy=hostile({"share": back}))
    (release,) = scene.run()
    assert len(found["places"]) == 36 and found["old"] == found["older"] == {}
    assert right(scene, release, attempt=1)


def scene_vectors(scene: Any, attempt: int) -> Mail:
    """What the phones uploaded in an attempt, whether it arrived or not."""
    found = {}
    for step, node, reply in scene.grid.said:
        if step == "upload" and reply.has_content():
            part = reply.content.config_records["pairing"]
            if part["attempt"] == attempt:
                found[f"{node}/0"] = PairingMessage.from_bytes(part["messages"][0], "upload").body
    return found


def adverts(talk: Talk, told: list[Advert]) -> list[Advert]:
    """Adverts as good as new for the next attempt, from keys of the server's own: Sybils."""
    from model.secagg.roster import signed_advert

    def key() -> bytes:
        return X25519PrivateKey.generate().public_key().public_bytes_raw()

    return [signed_advert(SigningKey.generate(), talk.server.context, talk.attempt + 1, key(), key()) for _ in told]


def call_dead(data: bytes, victim: int, size: int) -> bytes:
    """A list with one active phone called dead, and as many statements as are then left of neighbours."""
    message = Survivors.from_bytes(data)
    active, dead = unpack(message.active, size), unpack(message.dead, size)
    active[victim], dead[victim] = False, True
    row = -(-(size - 1) // 8) + TAG
    kept = message.statements[: max(len(message.statements) - row, 0)]
    return Survivors(pack(active), pack(dead), kept).to_bytes()
