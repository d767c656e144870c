"""The command line in this process, and one small whole run that several tests look at."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from simulation import __main__ as command
from simulation.experiment.compose import Finished, execute
from simulation.experiment.request import Request
from simulation.planning import Options

BAR = "━━━"


@dataclass(frozen=True)
class Said:
    """What a command line came to."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one line of a refusal; more than one, or a traceback, fails here."""
        lines = [line for line in self.err.splitlines() if line.strip() and BAR not in line]
        assert self.code == 2 and len(lines) == 1 and lines[0].startswith("✗ "), self
        assert "Traceback" not in self.err and self.out == ""
        return lines[0]

    @property
    def summary(self) -> dict[str, Any]:
        """What --json printed."""
        assert self.code == 0, self
        found: dict[str, Any] = json.loads(self.out)
        return found


Cli = Callable[..., Said]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """`pocketscore` called as its console script calls it."""
    before = signal.getsignal(signal.SIGTERM)

    def call(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["pocketscore", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            command.main()
        printed = capsys.readouterr()
        return Said(int(left.value.code or 0), printed.out, printed.err)

    yield call
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """1,500 made-up phones, so little noise that this seed's model passes the gate, ten phones scored."""
    out = tmp_path_factory.mktemp("whole") / "run"
    options = Options(epsilon=100.0, rounds=3, seed=7)
    return execute(Request(1500, options=options, scored=10, baselines=False), out, lambda *step: None)


def left(folder: Path) -> list[str]:
    """What a refused run left in `folder`."""
    return sorted(path.name for path in folder.iterdir())
