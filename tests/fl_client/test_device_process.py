"""`pocketscore-device score` as a process: what it imports, how much memory it takes, what a kill leaves."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fl_client.home import DeviceHome
from fl_server.release import ReleaseKeys, publish
from model.canonical import encode
from model.contract.envelope import SigningKey
from model.contract.release import ReleaseManifest

ROOT = Path(__file__).parents[2]
HEAVY = {
    "torch",
    "flwr",
    "dp_accounting",
    "scipy",
    "pandas",
    "onnx",
    "sklearn",
    "matplotlib",
    "typer",
    "tuf",
    "requests",
}


@pytest.fixture
def home(tmp_path, table_release, lender, row) -> Path:
    """A home under the real clock, ready to score."""
    now = int(time.time())
    raw = {**table_release.manifest, "created_at": now - 1, "expires_at": now + 86_400}
    keys = ReleaseKeys(SigningKey.generate(), SigningKey.generate())
    manifest = ReleaseManifest.from_dict(raw)
    root = publish(table_release.onnx, manifest, tmp_path / "repo", keys, now=now).root
    home = DeviceHome.create(
        tmp_path / "home",
        repo=str(tmp_path / "repo"),
        root=root,
        cards=[lender.card_bytes],
        now=now,
        schema=table_release.schema,
    )
    home.trusted.update(tmp_path / "repo", now=now)
    home.store.put_row(row)
    from fl_client.device import Phone

    phone = Phone(home.store, home.secret)
    phone.consents(lender.card).give(
        table_release.schema, lender.card, purpose="personal loan", policy_pack="in-rbi-2025", now=now
    )
    home.store.close()
    return home.path


def run(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code, *args], env=env, capture_output=True, text=True, check=False)


SCORE = """
import json, sys
from fl_client.__main__ import main
code = main(["score", sys.argv[1], "--json"])
print("\\nMODULES " + json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
sys.exit(code)
"""


def test_score_imports_neither_torch_nor_flwr(home):
    done = run(SCORE, str(home))
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout.split("MODULES ")[1]))
    assert {"onnxruntime", "numpy", "cryptography"} <= loaded  # it did score
    assert loaded & HEAVY == set()


def test_the_import_test_can_fail(home):
    done = run("import typer\n" + SCORE, str(home))
    assert "typer" in set(json.loads(done.stdout.split("MODULES ")[1])) & HEAVY


def test_nothing_heavy_is_loaded_for_help():
    done = run("import sys\nfrom fl_client.__main__ import build\nbuild().format_help()\nprint(*sys.modules)")
    assert done.returncode == 0
    assert {name.split(".")[0] for name in done.stdout.split()} & {*HEAVY, "numpy", "onnxruntime"} == set()


def bench(home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "device_score.py"), str(home), *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.mark.integration
def test_a_score_takes_100_mb_at_most(home):
    """The benchmark judges time as well, on a quiet machine; memory does not depend on what else runs."""
    done = bench(home, "--runs", "2", "--max-ms", "inf", "--max-ratio", "inf")
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["mib_peak"] <= 100
    less = bench(home, "--runs", "1", "--max-ms", "inf", "--max-ratio", "inf", "--max-mb", "20")  # the control
    assert less.returncode == 1 and "mib_peak" in less.stderr


def test_a_kill_after_the_number_never_uses_it_twice(home, lender):
    """The counter is durable before anything is released: killed in between, the next score takes the next number."""
    killed = run(
        "import os, sys\nimport fl_client.egress as e\n"
        "e.Egress.release = lambda *a, **k: os.kill(os.getpid(), 9)\n"
        "from fl_client.__main__ import main\nmain(['score', sys.argv[1]])",
        str(home),
    )
    assert killed.returncode == -9
    assert list((home / "outbox").iterdir()) == []
    done = run(SCORE, str(home))
    assert done.returncode == 0
    from model.contract.score import open_score

    (sealed,) = (home / "outbox").iterdir()
    now = int(time.time())
    envelope = open_score(sealed.read_bytes(), lender.hpke, purpose="personal loan", audience="lender-one", now=now)
    assert envelope.counter == 2


def test_a_schema_file_is_canonical(home, table_release):
    assert (home / "schema.cbor").read_bytes() == encode(table_release.schema.to_dict())
