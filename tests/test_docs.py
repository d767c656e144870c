"""The documents name tests, decisions and files that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TEST = re.compile(r"\btest_\w+\b(?!\.py)")
DECISION = re.compile(r"\bADRs? 0*(\d+)\b")
LINK = re.compile(r"\[[^\]]*\]\((?!https?://|#)([^)#]+)")


def defined() -> set[str]:
    """Names of all test functions of the repository."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        found |= set(re.findall(r"^\s*def (test_\w+)\(", path.read_text("utf-8"), re.MULTILINE))
    return found


def unknown_tests(text: str) -> list[str]:
    return sorted(set(TEST.findall(text)) - defined() - {path.stem for path in (ROOT / "tests").rglob("test_*.py")})


def broken_links(page: Path, text: str) -> list[str]:
    return [target for target in LINK.findall(text) if not (page.parent / target).exists()]


def test_the_threat_model_names_tests_that_exist() -> None:
    text = (DOCS / "threat-model.md").read_text("utf-8")
    assert len(set(TEST.findall(text))) > 30
    assert unknown_tests(text) == []


def test_a_test_that_does_not_exist_would_be_found() -> None:
    assert unknown_tests("as `test_there_is_no_such_test` shows") == ["test_there_is_no_such_test"]


def test_every_decision_is_in_the_index() -> None:
    index = (DOCS / "adr" / "README.md").read_text("utf-8")
    pages = {path.name for path in (DOCS / "adr").glob("[0-9]*.md")}
    assert pages and {name for name in pages if f"({name})" not in index} == set()


def test_every_decision_that_is_cited_exists() -> None:
    known = {int(path.name[:4]) for path in (DOCS / "adr").glob("[0-9]*.md")}
    places = [DOCS, *(ROOT / name for name in ("model", "fl_client", "fl_server", "simulation", "benchmarks"))]
    files = [path for place in places for path in place.rglob("*") if path.suffix in {".py", ".md"}]
    cited = {(path.name, int(number)) for path in files for number in DECISION.findall(path.read_text("utf-8"))}
    assert cited and {each for each in cited if each[1] not in known} == set()


def test_links_lead_somewhere() -> None:
    pages = [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    assert {str(page.relative_to(ROOT)): broken_links(page, page.read_text("utf-8")) for page in pages} == {
        str(page.relative_to(ROOT)): [] for page in pages
    }


def test_a_broken_link_would_be_found() -> None:
    assert broken_links(ROOT / "README.md", "see [this](docs/nowhere.md) and [that](LICENSE)") == ["docs/nowhere.md"]
