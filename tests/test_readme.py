"""The README's commands run as written, in order, from the repository root; its outputs go to a temporary folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The demo itself, in the environment that runs these tests instead of one of its own.
DEMO = f"make -o {sys.prefix}/.installed demo VENV={sys.prefix} ARGS='--out runs/demo'"
INSTEAD = {"make demo": DEMO, "make test": None}


def commands(text: str) -> list[str]:
    """Commands of the bash blocks; a trailing backslash joins lines."""
    blocks = [body for language, body in BLOCK.findall(text) if language == "bash"]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip() and not line.startswith("#")]


def adapted(command: str, folder: Path) -> str | None:
    """The command with its outputs in `folder`; None for what this test stands in itself."""
    instead = INSTEAD.get(command, command)
    return None if instead is None else re.sub(r"\bruns/", f"{folder}/", instead)


def environment() -> dict[str, str]:
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": binaries, "COLUMNS": "200", "OMP_NUM_THREADS": "1"}


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def readme() -> str:
    return (ROOT / "README.md").read_text("utf-8")


def test_the_two_commands_come_first_and_nothing_is_run_by_another_language() -> None:
    assert commands(readme())[:2] == ["make demo", "make test"]
    assert {language for language, _ in BLOCK.findall(readme())} == {"bash", ""}


def test_every_door_is_shown() -> None:
    shown = {command.split()[0] for command in commands(readme())}
    assert {"pocketscore", "pocketscore-device", "pocketscore-server", "pocketscore-review"} <= shown


def test_commands_are_read_from_bash_blocks_alone() -> None:
    text = "```bash\n# why\na --out runs/x \\\n    b\nmake test\n```\n```\nno\n```\n```python\nno()\n```\n"
    assert commands(text) == ["a --out runs/x b", "make test"]
    assert adapted("a --out runs/x b", Path("/t")) == "a --out /t/x b"
    assert adapted("make test", Path("/t")) is None


@pytest.mark.integration
def test_every_command_runs_in_order(tmp_path: Path) -> None:
    for command in commands(readme()):
        ours = adapted(command, tmp_path)
        if ours is None:
            continue
        done = run(ours, tmp_path)
        assert done.returncode == 0, f"{ours}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert (tmp_path / "demo" / "report.html").stat().st_size > 10_000
    assert (tmp_path / "mine" / "summary.json").exists()


def test_a_command_that_fails_would_be_noticed(tmp_path: Path) -> None:
    assert run("pocketscore-review check there-is-no-such-run | cat", tmp_path).returncode == 2
