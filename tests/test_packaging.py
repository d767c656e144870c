"""The wheel claims exactly four packages, carries their data, and opens four doors."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"fl_client", "fl_server", "model", "simulation"}
DOORS = {
    "pocketscore": "simulation.__main__:main",
    "pocketscore-device": "fl_client.__main__:main",
    "pocketscore-server": "fl_server.__main__:main",
    "pocketscore-review": "fl_server.review.__main__:main",
}
DATA = {
    "fl_server/review/page.html",
    "model/policy/packs/eu-2026.toml",
    "model/policy/packs/house.toml",
    "model/policy/packs/id-ojk.toml",
    "model/policy/packs/in-rbi-2025.toml",
    "model/policy/packs/us-ecoa.toml",
}

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel of a copy, so that no build folder of the checkout, old or new, has a part in it."""
    folder = tmp_path_factory.mktemp("packaging")
    source = folder / "source"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in [*PACKAGES, "tests", "docs", "examples", "benchmarks"]:
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--wheel-dir"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", str(source), *options, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def about(wheel: zipfile.ZipFile, name: str) -> str:
    (path,) = (each for each in wheel.namelist() if each.endswith(f".dist-info/{name}"))
    return wheel.read(path).decode()


def test_it_claims_exactly_four_packages(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" not in name}
    assert tops == PACKAGES
    assert set(about(wheel, "top_level.txt").split()) == PACKAGES


def test_every_module_and_data_file_is_in_it(wheel: zipfile.ZipFile) -> None:
    modules = {path.relative_to(ROOT).as_posix() for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    assert modules | DATA <= set(wheel.namelist())
    packs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "model" / "policy" / "packs").iterdir()}
    assert packs == {name for name in DATA if name.endswith(".toml")}


def test_it_opens_four_doors(wheel: zipfile.ZipFile) -> None:
    doors = configparser.ConfigParser(delimiters="=")
    doors.read_string(about(wheel, "entry_points.txt"))
    assert dict(doors["console_scripts"]) == DOORS


def test_it_carries_its_licence(wheel: zipfile.ZipFile) -> None:
    metadata = Parser().parsestr(about(wheel, "METADATA"))
    assert (metadata["Name"], metadata["License-Expression"]) == ("pocketscore", "Apache-2.0")
    assert "Apache License" in about(wheel, "licenses/LICENSE")
