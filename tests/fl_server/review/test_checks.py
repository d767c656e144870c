"""Every check holds on a whole run, and each fails on the run that breaks it, also when the cheat signs it again."""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fl_server.log import Log
from fl_server.review import bundle
from fl_server.review.charges import Charge
from fl_server.review.checks import check_all, passed
from fl_server.review.evidence import Anchor
from fl_server.review.findings import Finding
from fl_server.review.observed import check_epsilon, said_of_observers
from model.canonical import decode, encode, sha256_hex
from model.contract.envelope import Signed, SigningKey, sign
from model.contract.merkle import leaf_hash
from model.contract.plan import ModelChoice, ServerOptimiser
from model.contract.promise import Neighbours, PrivacyPlan
from model.contract.watchers import lifetime_of, observers_of
from model.errors import InputError
from model.privacy.mechanism import GaussianRelease


def failures(made: Any, anchor: Anchor | None = None) -> dict[str, str]:
    """Check → sentence of what failed."""
    return {each.check: each.sentence for each in check_all(made.folder, anchor) if each.holds is False}


def test_a_whole_run_passes_every_check(whole_run: Any) -> None:
    findings = check_all(whole_run.folder)
    assert passed(findings), failures(whole_run)
    assert findings[0] == Finding(
        "identity", None, "self-signed, identity not established; pass --root to establish it"
    )
    names = {each.check for each in findings}
    assert names >= {"bundle", "plan", "policy", "ledger", "charged", "epsilon", "budget", "model", "figures", "gate"}
    assert names >= {"repository", "manifest", "log", "entries", "observers", "summary", "tags", "egress", "secrets"}
    assert {each.mark for each in findings} == {"✓", "!"}


@pytest.mark.parametrize("hidden", [(), (4,)])
@pytest.mark.parametrize("name", ["fedavg", "fedadam"])
def test_the_reviewers_own_arithmetic_gives_the_coordinators_model(
    tmp_path: Path, planned: Any, running: Any, name: str, hidden: tuple[int, ...]
) -> None:
    server = ServerOptimiser(name, 0.05 if name == "fedadam" else 2.0, 0.8, 1.0 if hidden else 0.3, 1e-3, 0.99, 1e-3)
    choice = ModelChoice("mlp" if hidden else "additive", hidden, 6)
    made = running(tmp_path, replace(planned(server=server, model=choice), response=0.7))
    (finding,) = [each for each in check_all(made.folder) if each.check == "model"]
    assert finding.holds and "byte for byte" in finding.sentence


def test_one_flipped_byte_anywhere_is_found(made: Any) -> None:
    names = bundle.covered(made.folder)
    assert {"report.html", "plan.cbor", "archive/updates.npz", "tuf/metadata/timestamp.json"} <= set(names)
    keyring = {key.keyid: key.public_bytes for key in [made.keys.load("reviewer")]}
    listed = bundle.read(made.folder, keyring)
    assert bundle.differences(made.folder, listed) == []
    for name in names:
        path = made.folder / name
        before = path.read_bytes()
        if not before:
            continue
        path.write_bytes(bytes([before[0] ^ 1]) + before[1:])
        assert bundle.differences(made.folder, listed) == [f"{name} was changed"]
        path.write_bytes(before)
    data = bytearray((made.folder / "bundle.cbor").read_bytes())
    data[len(data) // 2] ^= 1
    (made.folder / "bundle.cbor").write_bytes(bytes(data))
    assert "bundle" in failures(made)


def test_a_missing_an_extra_and_a_linked_file_are_found(made: Any, tmp_path: Path) -> None:
    (made.folder / "extra.txt").write_text("x")
    assert failures(made)["bundle"] == "extra.txt is not in the bundle"
    (made.folder / "extra.txt").unlink()
    (made.folder / "egress.json").rename(tmp_path / "egress.json")
    assert "egress.json is missing" in failures(made)["bundle"]
    (made.folder / "egress.json").symlink_to(tmp_path / "egress.json")
    assert "link" in failures(made)["bundle"]


def test_the_lenders_book_and_the_logs_are_not_covered(made: Any) -> None:
    for name in ("lender/book.sqlite", "logs/lender.log"):
        (made.folder / name).parent.mkdir(exist_ok=True)
        (made.folder / name).write_text("goes on changing")
    assert failures(made) == {}
    (made.folder / "tuf" / "logs").mkdir()
    (made.folder / "tuf" / "logs" / "x").write_text("only at the top")
    assert "bundle" in failures(made)


def test_many_differences_are_cut_short(made: Any) -> None:
    for number in range(25):
        (made.folder / f"extra-{number:02d}").write_text("x")
    sentences = [each.sentence for each in check_all(made.folder) if each.check == "bundle"]
    assert len(sentences) == 21 and sentences[-1] == "and 5 more files differ"


def test_a_bundle_that_leaves_out_more_is_refused(made: Any) -> None:
    signed = Signed.from_bytes((made.folder / "bundle.cbor").read_bytes())
    payload = {**decode(signed.payload), "uncovered": ["lender", "logs", "tuf"]}
    again = sign(bundle.DOMAIN, payload, [made.keys.load("reviewer")])
    (made.folder / "bundle.cbor").write_bytes(again.to_bytes())
    assert "leaves out" in failures(made)["bundle"]


def test_a_plan_without_the_reviewer_is_found(made: Any) -> None:
    signed = Signed.from_bytes((made.folder / "plan.cbor").read_bytes())
    alone = sign("plan/1", decode(signed.payload, max_bytes=1 << 22), [made.keys.load("coordinator")])
    (made.folder / "plan.cbor").write_bytes(alone.to_bytes())
    made.reseal()
    assert "signature" in failures(made)["plan"]


def test_a_plan_that_breaks_its_pack_is_found(tmp_path: Path, planned: Any, running: Any) -> None:
    made = running(tmp_path, planned(delta=1e-3))
    found = failures(made)
    assert "policy" in found and "[" in found["policy"]


def test_an_edited_ledger_is_found(made: Any) -> None:
    path = made.folder / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[2].replace(b'"kind":', b'"kind": '), *lines[3:]]))
    made.reseal()
    assert "edited" in failures(made)["ledger"]
    path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    made.reseal()
    assert "moved" in failures(made)["ledger"]
    path.write_bytes(b"".join(lines[:-2]))
    made.reseal()
    assert "cut off" in failures(made)["ledger"]


def test_a_release_that_was_not_charged_is_found(made: Any) -> None:
    path = made.folder / "rounds" / "release-00002.cbor"
    raw = decode(path.read_bytes(), max_bytes=1 << 26)
    vector = np.frombuffer(raw["noised"], "<i8").copy()
    vector[0] += 1 << 32
    path.write_bytes(encode({**raw, "noised": vector.tobytes()}))
    made.reseal()
    found = failures(made)
    assert "train 2 was not charged" in found["charged"]
    assert "another model" in found["model"]


def test_a_missing_round_is_found(made: Any) -> None:
    (made.folder / "rounds" / "release-00002.cbor").unlink()
    made.reseal()
    assert "sums" in failures(made)["model"]


@pytest.mark.parametrize("name", ["released_models", "participation_viewer", "replace_one", "helper", "alone_round"])
def test_a_smaller_epsilon_than_the_ledgers_is_found(made: Any, name: str) -> None:
    made.edit("summary.json", lambda raw: raw["epsilon"].update({name: 0.5}))
    assert "the summary says 0.5" in failures(made)["epsilon"]


def test_an_epsilon_for_the_coordinator_is_found(made: Any) -> None:
    made.edit("summary.json", lambda raw: raw["epsilon"].update({"coordinator": 1.5}))
    assert "coordinator is null from the ledger" in failures(made)["epsilon"]
    assert "epsilon.coordinator" in failures(made)["manifest"]


@pytest.mark.parametrize("name", ["coordinator_reason", "helper_reason", "condition"])
def test_other_words_for_what_holds_are_found(made: Any, name: str) -> None:
    made.edit("summary.json", lambda raw: raw["epsilon"].update({name: "trust us"}))
    assert f"{name} is not what holds in mode central" in failures(made)["observers"]
    assert f"epsilon.{name}" in failures(made)["manifest"]


@pytest.mark.parametrize(
    ("mode", "parts"),
    [
        ("helper", {"helper_key": "ab" * 32}),
        ("helper", {"helper_key": "ab" * 32, "coordinator_noise": 0.5}),
        ("pairwise", {"honest": 30, "neighbours": Neighbours(10, 6, 0.1, 0.1)}),
    ],
)
def test_a_mode_with_a_finite_coordinator_says_what_it_rests_on(mode: str, parts: dict[str, Any]) -> None:
    charge = GaussianRelease("training", 20.0, 1.0, 20, 1.0, "train")
    privacy = PrivacyPlan(mode, 1e-5, 2.0, "zero-out", "phone", (charge,), **parts)
    said = observers_of(privacy).to_dict()
    said["coordinator_reason"] = said.pop("reason")
    assert said_of_observers(privacy, said).holds
    for change in ({"condition": ""}, {"coordinator_reason": "none"}, {"helper": None, "helper_reason": ""}):
        assert not said_of_observers(privacy, {**said, **change}).holds


def test_a_helper_that_sees_more_than_the_coordinator_is_said_and_a_smaller_figure_for_it_is_found() -> None:
    """13.16.5: the budget bounds the coordinator's ε; the helper's stands beside it, recomputed, never hidden."""
    charge = GaussianRelease("training", 20.0, 1.0, 20, 1.0, "train")
    parts: dict[str, Any] = {"helper_key": "ab" * 32, "coordinator_noise": 0.5}
    privacy = PrivacyPlan("helper", 1e-5, 1.0, "zero-out", "phone", (charge,), **parts)

    spent = [Charge("training", round_, replace(charge, count=1)) for round_ in range(20)]

    def found(told: PrivacyPlan) -> list[Finding]:
        said = {**observers_of(told).to_dict(), "lifetime": lifetime_of(told)}
        evidence: Any = SimpleNamespace(plan=SimpleNamespace(privacy=privacy), charges=spent, summary={"epsilon": said})
        return list(check_epsilon(evidence))

    whole = found(privacy)
    assert not [f for f in whole if f.holds is False]
    (remark,) = [f.sentence for f in whole if f.holds is None]
    assert "ε 1.76 against the helper, which meets 0.5 of the noise" in remark
    assert [f.sentence for f in whole if f.check == "budget" and f.holds] == ["ε 0.8197 of a budget of 1 at δ 1e-05"]
    wrong = [f.sentence for f in found(replace(privacy, coordinator_noise=1.0)) if f.holds is False]
    for words in ("helper is 1.76 from the ledger", "the summary differs in one_year.helper"):
        assert [sentence for sentence in wrong if words in sentence], words


def test_smaller_figures_over_years_are_found(made: Any) -> None:
    made.edit("summary.json", lambda raw: raw["epsilon"]["lifetime"]["five_years"].update({"composed": 2.0}))
    assert "five_years.composed" in failures(made)["lifetime"]
    made.edit("summary.json", lambda raw: raw["epsilon"].update({"lifetime": None}))
    assert "missing" in failures(made)["lifetime"]


def test_a_better_private_auc_is_found(made: Any) -> None:
    made.edit("summary.json", lambda raw: raw["auc"]["private"].update({"value": 0.9}))
    assert "summary says 0.9" in failures(made)["figures"]


@pytest.mark.parametrize(("name", "value"), [("rounds", 4), ("clip", 9.0), ("phones", 1), ("release", None)])
def test_a_summary_of_another_run_is_found(made: Any, name: str, value: Any) -> None:
    made.edit("summary.json", lambda raw: raw.update({name: value}))
    assert repr(name) in failures(made)["summary"]


def test_an_untagged_figure_is_found(made: Any) -> None:
    made.edit("summary.json", lambda raw: raw.update({"simulation_only": []}))
    assert "auc.federated" in failures(made)["tags"]


def test_undeclared_bytes_and_types_are_found(made: Any) -> None:
    made.edit("summary.json", lambda raw: raw["egress"].update({"undeclared": 7}))
    assert "7 undeclared" in failures(made)["egress"]
    made.edit("summary.json", lambda raw: raw["egress"].update({"undeclared": 0, "bytes_per_phone": {"gossip/1": 1}}))
    assert "gossip/1" in failures(made)["egress"]


def test_another_model_under_the_same_manifest_is_found(made: Any) -> None:
    path = made.folder / "release" / "model.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    made.reseal()
    assert "release" in failures(made)


def test_a_manifest_signed_by_one_is_found(made: Any) -> None:
    path = made.folder / "release" / "manifest.cbor"
    payload = decode(Signed.from_bytes(path.read_bytes()).payload)
    path.write_bytes(sign("release/1", payload, [made.keys.load("release")]).to_bytes())
    made.reseal()
    assert "release" in failures(made)


def test_a_verdict_that_does_not_follow_is_found(made: Any) -> None:
    path = made.folder / "release" / "manifest.cbor"
    payload = decode(Signed.from_bytes(path.read_bytes()).payload)
    payload["gate"]["private_auc"] = 0.99
    path.write_bytes(sign("release/1", payload, [made.keys.load("release"), made.keys.load("reviewer")]).to_bytes())
    made.reseal()
    assert "does not follow" in failures(made)["gate"]


def test_expired_metadata_at_the_logged_time_is_found(made: Any) -> None:
    entries = Log(made.folder / "log").entries()
    for path in (made.folder / "log").iterdir():
        path.unlink()
    log = Log(made.folder / "log")
    for entry in entries:
        log.append({**entry, "at": entry["at"] + 10 * 86_400})
    log.checkpoint(made.keys.load("log"))
    made.reseal()
    assert "expired" in failures(made)["release"]


def test_case_60_an_edited_log_is_found(made: Any) -> None:
    path = made.folder / "log" / "entries"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    made.reseal()
    assert "edited" in failures(made)["log"]
    path.write_bytes(bytes(data[:50]))
    made.reseal()
    assert "log" in failures(made)


def test_a_log_under_another_head_is_found(made: Any) -> None:
    path = made.folder / "log" / "entries"
    entry = encode({"kind": "note", "at": 1})
    path.write_bytes(path.read_bytes() + struct.pack(">I32s", len(entry), leaf_hash(entry)) + entry)
    made.reseal()
    assert "head counts" in failures(made)["log"]


def test_private_keys_and_phone_stores_are_found(made: Any) -> None:
    for name, data in (
        ("lender/reviewer.key", b"x"),
        ("logs/note.txt", b"pocketscore-ed25519-private-key/1 00"),
        ("logs/raw.bin", made.keys.load("log").private_bytes()),
        ("logs/hex.json", json.dumps({"k": made.keys.load("release").private_bytes().hex()}).encode()),
        ("logs/store.sqlite", b"x"),
    ):
        path = made.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        assert name in failures(made)["secrets"], name
        path.unlink()
    assert "secrets" not in failures(made)


def test_test_seeded_noise_is_said_and_privacy_off_too(tmp_path: Path, planned: Any, running: Any) -> None:
    made = running(tmp_path, planned(noise_source="test-seeded"))
    remarks = [each.sentence for each in check_all(made.folder) if each.holds is None]
    assert any("TEST-SEEDED" in sentence for sentence in remarks)


def test_a_field_run_may_not_show_single_phones(tmp_path: Path, planned: Any, running: Any) -> None:
    made = running(tmp_path, planned(simulation=False))
    assert "field run" in failures(made)["tags"]


def test_the_root_establishes_identity(made: Any, tmp_path: Path) -> None:
    root = made.folder / "tuf" / "metadata" / "1.root.json"
    ring = tmp_path / "ring.json"
    ring.write_text((made.folder / "keys.json").read_text())
    listed = tmp_path / "listed.json"
    listed.write_text(json.dumps([made.keys.load(name).public_bytes.hex() for name in ("release", "reviewer")]))
    for path in (root, ring, listed):
        findings = check_all(made.folder, Anchor.read(path))
        assert passed(findings) and findings[0].holds is True


def test_a_run_by_other_keys_fails_under_the_reviewers_root(
    made: Any, tmp_path: Path, planned: Any, running: Any
) -> None:
    other = running(tmp_path, planned(), name="other")
    root = Anchor.read(made.folder / "tuf" / "metadata" / "1.root.json")
    assert passed(check_all(other.folder))  # whole by itself …
    found = failures(other, root)
    assert set(found) >= {"identity", "release"}  # … and not who it claims to be
    ring = tmp_path / "ring.json"
    ring.write_text((made.folder / "keys.json").read_text())
    assert "coordinator key" in failures(other, Anchor.read(ring))["identity"]


def test_a_root_without_a_release_key_says_that_it_lacks_one(made: Any, tmp_path: Path) -> None:
    ring = tmp_path / "signers.json"  # what `pocketscore keys` writes
    held = json.loads((made.folder / "keys.json").read_text())
    ring.write_text(json.dumps({role: held[role] for role in ("coordinator", "reviewer")}))
    assert "names no release key" in failures(made, Anchor.read(ring))["identity"]


def test_under_a_root_the_reviewers_key_must_sign_the_bundle(made: Any) -> None:
    bundle.write(made.folder, made.keys.load("coordinator"), 1)
    assert failures(made) == {}
    root = Anchor.read(made.folder / "tuf" / "metadata" / "1.root.json")
    assert "bundle" in failures(made, root)
    bundle.write(made.folder, SigningKey.generate(), 1)
    assert "bundle" in failures(made)


def test_an_anchor_that_is_none_says_so(tmp_path: Path) -> None:
    for text in ("3", "{", '["zz"]', '{"a": {"b": 1}}'):
        (tmp_path / "root").write_text(text)
        with pytest.raises(InputError, match="trust anchor"):
            Anchor.read(tmp_path / "root")


def test_a_folder_cannot_stop_its_own_review(made: Any) -> None:
    for name in ("keys.json", "summary.json", "plan.cbor", "log/entries", "ledger.jsonl.head"):
        (made.folder / name).write_bytes(b"[]")
    findings = check_all(made.folder)
    assert not passed(findings)
    assert any("cannot be checked" in each.sentence for each in findings)


def test_a_refused_model_is_a_run_too(made: Any) -> None:
    entries = Log(made.folder / "log").entries()
    model = sha256_hex((made.folder / "release" / "model.onnx").read_bytes())
    for name in ("release", "tuf", "log"):
        shutil.rmtree(made.folder / name)
    log = Log(made.folder / "log")
    for entry in entries[:-1]:
        log.append(entry)
    log.append({"kind": "release", "at": entries[-1]["at"], "digest": "", "model": model, "passed": False})
    log.checkpoint(made.keys.load("log"))
    made.edit("summary.json", lambda raw: raw.update({"release": None}))
    found = failures(made)
    assert set(found) == {"gate"}  # its charged figures pass, so refusing it does not follow
    assert any(each.sentence == "nothing was released" for each in check_all(made.folder))
