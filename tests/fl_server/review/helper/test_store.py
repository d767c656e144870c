"""Kills, full disks and second processes: one draw a release or none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_server.review.helper import desk as desk_module
from fl_server.review.helper.ledger import spent_by_plan
from fl_server.review.helper.records import read_log, reading, select
from fl_server.review.helper.store import Store
from model.errors import RunError

from .conftest import NOW, Bench, events

KILLED = """
import os, signal, sys
from pathlib import Path
from fl_server.review.helper import desk as module
from fl_server.review.helper.home import HelperHome
from fl_server.review.helper.store import Store

def die(*_args, **_named):
    os.kill(os.getpid(), signal.SIGKILL)

home, request, where = HelperHome.open(Path(sys.argv[1])), Path(sys.argv[2]).read_bytes(), sys.argv[3]
if where == "before the noise":
    module.discrete_gaussian = die
elif where == "after the noise":
    Store.answered = die
elif where == "before the reservation":
    Store.reserve = die
module.HelperDesk(home, clock=lambda: 1_800_000_000).share(request)
die()
"""


def killed(bench: Bench, tmp_path: Path, request: bytes, where: str) -> None:
    """A process of its own that dies by SIGKILL at `where` in answering."""
    file = tmp_path / "request.cbor"
    file.write_bytes(request)
    done = subprocess.run([sys.executable, "-c", KILLED, str(bench.home.path), str(file), where], timeout=60)
    assert done.returncode == -9


@pytest.mark.parametrize("where", ["before the noise", "after the noise"])
def test_case_23_and_24_killed_after_the_reservation_the_release_is_void(
    bench: Bench, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = bench.plan()
    request = bench.request(plan).to_bytes()
    killed(bench, tmp_path, request, where)
    monkeypatch.setattr(desk_module, "discrete_gaussian", _no_noise)
    with bench.desk() as desk:
        assert bench.refusal(desk.share(request)).code == "void"
        assert bench.refusal(desk.share(bench.request(plan, count=31).to_bytes())).code == "batch"
        monkeypatch.undo()
        assert bench.share(desk.share(bench.request(plan, round=2).to_bytes())).round == 2  # the plan goes on
    assert events(bench) == ["reserved", "void", "refused", "refused", "reserved", "answered"]
    (spent,) = spent_by_plan(bench.home)
    assert (spent.answered, spent.void, spent.messages) == (1, 1, 60)
    assert spent.epsilon == pytest.approx(0.634, abs=0.001)  # what was reserved stays spent


def test_control_killed_before_the_reservation_or_after_the_answer(bench: Bench, tmp_path: Path) -> None:
    plan = bench.plan()
    first, second = (bench.request(plan, round=round_).to_bytes() for round_ in (1, 2))
    killed(bench, tmp_path, first, "before the reservation")
    killed(bench, tmp_path, second, "after the answer")
    with reading(bench.home.store) as db:
        (kept,) = select(db, "", ())
    with bench.desk() as desk:
        assert bench.share(desk.share(first)).round == 1
        assert desk.share(second).to_bytes() == kept.answer  # the very bytes that were kept
    assert "void" not in events(bench)


def test_case_25_a_full_disk_gives_no_answer_and_no_second_draw(bench: Bench) -> None:
    plan = bench.plan(phones=400)
    request = bench.request(plan, count=300).to_bytes()
    with bench.desk() as desk:
        pages = desk._store._db.execute("PRAGMA page_count").fetchone()[0]
        desk._store._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(RunError, match="cannot be written"):
            desk.share(request)
        assert desk._store.find(plan.digest, "train", 1) is None  # no half of a reservation
        desk._store._db.execute("PRAGMA max_page_count = 1000000")
        assert bench.share(desk.share(request)).round == 1
    assert events(bench) == ["reserved", "answered"]


def test_a_disk_full_after_the_noise_leaves_the_release_void(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    request = bench.request(bench.plan()).to_bytes()

    def full(*_args: Any) -> None:
        raise RunError("the helper's store cannot be written")

    with bench.desk() as desk:
        monkeypatch.setattr(Store, "answered", full)
        with pytest.raises(RunError):
            desk.share(request)
        monkeypatch.undo()
        assert bench.refusal(desk.share(request)).code == "void"  # in this process too


def test_the_table_itself_takes_a_message_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the check before ever fail, the reservation does, whole."""
    plan = bench.plan()
    request = bench.request(plan)
    monkeypatch.setattr(Store, "opened_before", lambda self, ids: [])
    monkeypatch.setattr(desk_module, "open_seeds", lambda seeds, key, context: np.zeros(context.dim, np.uint32))
    with bench.desk() as desk:
        assert bench.share(desk.share(request.to_bytes())).round == 1
        with pytest.raises(RunError, match="UNIQUE"):
            desk.share(bench.request(plan, round=2, seeds=request.seeds).to_bytes())
        assert desk._store.find(plan.digest, "train", 2) is None


def test_case_27_a_second_process_on_one_home(bench: Bench) -> None:
    with bench.desk(), pytest.raises(RunError, match="another process"):
        bench.desk()
    bench.desk().close()


def test_files_are_the_owners_alone(bench: Bench) -> None:
    bench.desk().close()
    for name in ("keys/signing.key", "keys/hpke.key", "keys/tls.key", "helper.sqlite", "settings.json", "trust.json"):
        assert (bench.home.path / name).stat().st_mode & 0o077 == 0, name


def test_the_log_is_read_beside_a_running_helper(bench: Bench) -> None:
    with bench.desk() as desk:
        desk.share(b"junk")
        assert events(bench) == ["refused"] and len(desk.head()) > 100
        assert spent_by_plan(bench.home) == []


def test_a_thousand_entries_are_one_chain(bench: Bench) -> None:
    store = Store(bench.home.store, bench.home.signing, NOW)
    for place in range(1000):
        store.note({"event": "refused", "phones": place})
    store.close()
    entries = read_log(bench.home.store, bench.home.signing.public_bytes)
    assert [each["phones"] for each in entries] == [*range(1000)]


def _no_noise(*_args: Any) -> Any:
    raise AssertionError("noise was drawn a second time")
