"""A node's own file: there after the process, of its owner alone, and apart from the folder that the server reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_client.pairing import Drawer
from model.errors import RunError
from simulation.drawer import FileDrawer, drawer_of, nodes_of


def test_what_was_put_last_is_there_for_the_next_process(tmp_path: Path) -> None:
    drawer: Drawer = drawer_of(tmp_path / "w", 0, 2)
    assert drawer.get() == b""
    drawer.put(b"one")
    drawer.put(b"two")
    assert drawer_of(tmp_path / "w", 0, 2).get() == b"two"
    assert drawer_of(tmp_path / "w", 1, 2).get() == drawer_of(tmp_path / "w", 0, 3).get() == b""


def test_it_is_its_owners_alone_and_not_in_the_servers_folder(tmp_path: Path) -> None:
    drawer = drawer_of(tmp_path / "w", 0, 1)
    drawer.put(b"secret")
    assert drawer.path.stat().st_mode & 0o777 == 0o600 and drawer.path.parent.stat().st_mode & 0o777 == 0o700
    assert nodes_of(tmp_path / "w").parent == tmp_path and not (tmp_path / "w").exists()


def test_what_cannot_be_kept_is_not_answered(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RunError, match=r"cannot be written .*; this node answers nothing"):
        FileDrawer(tmp_path / "file" / "node").put(b"x")
    with pytest.raises(RunError, match=r"cannot be read .*; this node answers nothing"):
        FileDrawer(tmp_path).get()
