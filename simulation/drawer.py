"""Where a simulated node keeps its phones' secrets of pairwise masking: a file of its own (spec 13.15).

Flower keeps a node's context in the SuperNode, which gets it after the answer has left and forgets it when it ends. A
phone's rule is the other way round: what it will never do again is on disk before it answers (ADR 102, ADR 106).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fl_server.keys import replace_file
from model.errors import RunError


@dataclass(frozen=True)
class FileDrawer:
    """A `Drawer` in the file `path` (0600), replaced whole. RunError where it cannot be read or written."""

    path: Path

    def get(self) -> bytes:
        """What was put last; empty at first."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise RunError(f"{self.path} cannot be read ({error.strerror}); this node answers nothing") from error

    def put(self, data: bytes) -> None:
        """Keep this instead; on disk when this returns."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self.path, data, mode=0o600)
        except OSError as error:
            raise RunError(f"{self.path} cannot be written ({error.strerror}); this node answers nothing") from error


def nodes_of(folder: Path) -> Path:
    """Where the nodes of the federation in `folder` keep what is theirs: beside it, for its server reads the folder."""
    return folder.with_name(f"{folder.name}.nodes")


def drawer_of(folder: Path, index: int, count: int) -> FileDrawer:
    """The drawer of the `index`-th of `count` nodes."""
    return FileDrawer(nodes_of(folder) / f"node-{index:03d}-of-{count:03d}")
