"""Every clause that the code cites as "spec N.M" stands in docs/spec.md, once and in order."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = ("model", "fl_client", "fl_server", "simulation", "tests", "benchmarks", "examples", "docs")
SUFFIXES = {".py", ".toml", ".html", ".md"}
NUMBER = r"\d+(?:\.\d+)*"
CITATION = re.compile(rf"\bspec ({NUMBER}(?:(?:, ?| and |–|-){NUMBER})*)")
CLAUSE = re.compile(rf"^(?:## ({NUMBER})\.|(?:- )?\*\*({NUMBER})\b)", re.MULTILINE)


def clauses(spec: str) -> list[str]:
    """Numbers of sections and clauses, in the order of the page."""
    return [section or clause for section, clause in CLAUSE.findall(spec)]


def cited(text: str) -> list[str]:
    """Clause numbers that a text names; of a range, both ends."""
    return [number for found in CITATION.findall(text) for number in re.findall(NUMBER, found)]


def files(folder: Path) -> Iterator[Path]:
    """Files below a folder; hidden folders, such as environments that benchmarks make, are not ours."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__pycache__"))]
        yield from (Path(parent) / name for name in names)


def citations() -> Iterator[tuple[Path, str]]:
    """(file, clause number) of every citation in the repository but those of this test."""
    for place in PLACES:
        for path in sorted(files(ROOT / place)):
            if path.suffix in SUFFIXES and path != Path(__file__):
                for number in cited(path.read_text("utf-8")):
                    yield path.relative_to(ROOT), number


def unknown(found: Iterator[tuple[Path, str]], known: list[str]) -> list[str]:
    return sorted({f"{path}: spec {number}" for path, number in found if number not in known})


def spec() -> str:
    return (ROOT / "docs" / "spec.md").read_text("utf-8")


def test_every_clause_the_code_cites_exists() -> None:
    assert unknown(citations(), clauses(spec())) == []


def test_a_citation_of_no_clause_would_be_found() -> None:
    invented = [(Path("x.py"), number) for number in cited("as in spec 6.2, 99.1 and of spec 8.1–8.77")]
    assert unknown(iter(invented), clauses(spec())) == ["x.py: spec 8.77", "x.py: spec 99.1"]


def test_the_code_does_cite_the_spec() -> None:
    assert len({number for _, number in citations()}) > 60


def test_clauses_are_numbered_once_and_in_order() -> None:
    numbers = [tuple(map(int, number.split("."))) for number in clauses(spec())]
    assert numbers == sorted(set(numbers))


def test_a_clause_out_of_order_would_be_found() -> None:
    assert clauses("## 2. Forms\n\n**2.2** *b.*\n- **2.2.1** c\n\n**2.1 a.** See **2.2** and spec 2.9.\n") == [
        "2",
        "2.2",
        "2.2.1",
        "2.1",
    ]
