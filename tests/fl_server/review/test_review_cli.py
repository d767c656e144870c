"""`pocketscore-review`: exit 0 only when every check holds; updates and page; one sentence a mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from fl_server.review.__main__ import app, main
from fl_server.review.evidence import Evidence
from fl_server.review.updates import read
from model.errors import InputError, PolicyError

ROOT = Path(__file__).resolve().parents[3]


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_check_says_each_finding_and_exits_zero(whole_run: Any) -> None:
    done = run("check", whole_run.folder)
    assert done.exit_code == 0
    assert "! identity: self-signed, identity not established" in done.output
    assert "every check holds" in done.output and "✗" not in done.output


def test_check_exits_one_on_one_flipped_byte(made: Any) -> None:
    path = made.folder / "egress.json"
    path.write_text(path.read_text().replace("2900", "2901"))
    done = run("check", made.folder)
    assert done.exit_code == 1 and "✗ bundle: egress.json was changed" in done.output
    raw = json.loads(run("check", made.folder, "--json").output)
    assert raw["passed"] is False and {"check", "holds", "sentence"} == set(raw["findings"][0])


def test_check_with_a_root(whole_run: Any) -> None:
    inside = whole_run.folder / "tuf/metadata/1.root.json"
    own = whole_run.folder.parent / "my-root.json"
    own.write_bytes(inside.read_bytes())
    done = run("check", whole_run.folder, "--root", own)
    assert done.exit_code == 0 and "✓ identity" in done.output
    circular = run("check", whole_run.folder, "--root", inside)
    assert circular.exit_code != 0 and "hold yourself" in str(circular.exception)


def test_updates_shows_each_stage_and_its_tag(whole_run: Any) -> None:
    done = run("updates", whole_run.folder)
    assert done.exit_code == 0 and "simulation only" in done.output and "sampled phone 3" in done.output
    raw = json.loads(run("updates", whole_run.folder, "--json").output)
    assert raw["simulation_only"] is True and [each["round"] for each in raw["rounds"]] == [1, 2, 3]
    assert raw["rows"] == [100, 5000, 900]


def test_stages_follow_one_another(whole_run: Any) -> None:
    for stages in read(Evidence(whole_run.folder)).rounds:
        assert stages.clipped == tuple(min(norm, 1.0) for norm in stages.raw)
        assert stages.encoded == pytest.approx(stages.clipped, abs=1e-5)
        assert stages.alignment == pytest.approx([1.0] * 3, abs=1e-5)
        assert 0 < stages.noise_norm < stages.sum_norm


def test_updates_of_a_field_run_are_refused(tmp_path: Path, planned: Any, running: Any) -> None:
    made = running(tmp_path, planned(simulation=False))
    with pytest.raises(PolicyError, match="no simulation"):
        read(Evidence(made.folder))


def test_a_run_without_a_sample_says_so(made: Any) -> None:
    np.savez(made.folder / "archive" / "updates.npz", **{"norms-0001": np.zeros(0), "norms-0009": np.zeros(0)})
    (bare,) = read(Evidence(made.folder)).rounds
    assert bare.norms == () and bare.raw == ()
    (made.folder / "archive" / "updates.npz").unlink()
    with pytest.raises(InputError, match="sample"):
        read(Evidence(made.folder))


def test_page_names_the_file(whole_run: Any, tmp_path: Path) -> None:
    done = run("page", whole_run.folder, "--out", tmp_path / "p.html")
    assert done.exit_code == 0 and (tmp_path / "p.html").exists()


@pytest.mark.parametrize("command", ["check", "updates", "page"])
def test_a_mistake_is_one_sentence(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(lambda: app([command, str(tmp_path / "nowhere")], standalone_mode=False))
    assert end.value.code == 2 and "no folder" in capsys.readouterr().err


def test_the_bench_imports_nothing_of_what_it_reviews() -> None:
    rooms = ", ".join(f"fl_server.review.{room}" for room in ("__main__", "checks", "updates", "page", "bundle"))
    code = f"import sys, {rooms}\nfound = {{name for name in sys.modules if name.startswith(('fl_', 'simulation'))}}\n"
    code += "ours = sorted(name for name in found if not name.startswith('fl_server.review') and name != 'fl_server')\n"
    code += "print(ours, 'matplotlib' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] False False"
