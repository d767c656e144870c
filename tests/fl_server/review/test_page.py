"""The page: static, escaped, tagged, the same bytes each time, and never a silent change to a signed run."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fl_server.review import page, plots
from model.errors import InputError


class Seen(HTMLParser):
    """Tags, ids and what a browser would fetch or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.active: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            outward = name in ("src", "href", "xlink:href", "action") and not (value or "").startswith("#")
            if name.startswith("on") or outward:
                self.active.append(f"{name}={value}")


def without_plots(folder: Path) -> None:
    """Plots take most of a page's time; most tests look at its words."""
    (folder / "figures.json").write_text("{}")
    raw = json.loads((folder / "summary.json").read_text())
    raw["auc"] = dict.fromkeys(raw["auc"]) | {"private": {"value": None, "se": None}}
    raw["egress"]["bytes_per_phone"] = {}
    (folder / "summary.json").write_text(json.dumps(raw))


def changed(made: Any, change: Any, name: str = "summary.json") -> str:
    """The page of a run whose summary (or figures) was changed."""
    without_plots(made.folder)
    raw = json.loads((made.folder / name).read_text())
    change(raw)
    (made.folder / name).write_text(json.dumps(raw))
    return page.render(made.folder)


def test_the_page_is_one_static_file(whole_run: Any) -> None:
    text = (whole_run.folder / "report.html").read_text()
    seen = Seen(text)
    assert not {"script", "iframe", "object", "img", "link", "form"} & set(seen.tags)
    assert seen.active == [] and "@import" not in text and not re.search(r"url\((?!#)", text)
    assert len(seen.ids) == len(set(seen.ids))
    assert seen.tags.count("svg") == 7
    assert "default-src 'none'" in text and 'name="viewport"' in text


def test_the_page_is_the_same_each_time(whole_run: Any) -> None:
    assert page.write(whole_run.folder) == whole_run.folder / "report.html"


def test_a_signed_run_is_not_changed_by_its_page(made: Any, tmp_path: Path) -> None:
    before = (made.folder / "report.html").read_bytes()
    changed(made, lambda raw: raw.update({"ks": 0.5, "ece": 0.4}))
    with pytest.raises(InputError, match="--out"):
        page.write(made.folder)
    assert (made.folder / "report.html").read_bytes() == before
    assert page.write(made.folder, tmp_path / "elsewhere.html").read_bytes() != before
    (made.folder / "bundle.cbor").unlink()
    page.write(made.folder)  # control: unsigned, it is written
    assert (made.folder / "report.html").read_bytes() != before


def test_what_looks_at_single_phones_is_tagged(whole_run: Any) -> None:
    text = (whole_run.folder / "report.html").read_text()
    for title in ("Rank order", "Calibration", "Scores", "What clipping cuts", "Round by round"):
        assert re.search(rf"<h2>{title}<span class=\"tag sim\">simulation only</span>", text), title
    assert "null" in text and "no finite ε holds against the coordinator" in text
    assert 'class="warn"' not in text


def test_every_observer_and_the_years_are_on_the_page(made: Any) -> None:
    two = {"coordinator": 0.98, "coordinator_reason": "", "helper": 0.97, "helper_reason": "", "condition": "if apart"}
    text = changed(made, lambda raw: raw["epsilon"].update(two))
    assert "ε against the coordinator" in text and "0.98" in text and "ε against the helper" in text and "0.97" in text
    assert "These figures hold if apart." in text and "in one year and" in text and "no finite ε holds" not in text
    assert (
        f"{98 / json.loads((made.folder / 'summary.json').read_text())['epsilon']['budget']:.1f} % of the plan's budget"
        in text
    )
    assert "of the releases by replace-one)" in text
    assert "in one hand" not in text
    assert "both servers in one hand, so nothing was really held apart" in changed(
        made, lambda raw: raw.update({"one_hand": True})
    )
    many = changed(made, lambda raw: raw["epsilon"].update({"alone_round": 99.7, "lifetime": None}))
    assert "one phone alone leaves ε 99.7 a release" in many and "in one year and" not in many


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda raw: raw["epsilon"].update({"mode": "local"}), "Each phone adds its own noise"),
        (lambda raw: raw["epsilon"].update({"noise_source": "test-seeded"}), "Test-seeded noise"),
        (lambda raw: raw["epsilon"].update({"released_models": None, "participation_viewer": None}), "privacy is off"),
        (lambda raw: raw["egress"].update({"undeclared": 12}), "12 undeclared bytes"),
        (lambda raw: raw.update({"release": None}), "gate refused"),
    ],
    ids=["local", "seeded", "off", "undeclared", "refused"],
)
def test_what_must_be_seen_first_stands_in_red(made: Any, change: Any, says: str) -> None:
    text = changed(made, change)
    assert re.search(rf'class="warn" role="alert">[^<]*{says}', text)


def test_everything_from_the_run_is_escaped(made: Any) -> None:
    evil = "<script>alert(1)</script>"
    text = changed(made, lambda raw: raw["engine"].update({"name": evil}))
    assert evil not in text and "&lt;script&gt;" in text
    text = changed(made, lambda raw: raw.update({"decisions": {evil: 3}, "features": [{"feature": evil, "sd": 1}]}),
                   "figures.json")  # fmt: skip
    assert "<script" not in text
    text = changed(made, lambda raw: raw["epsilon"].update({"coordinator_reason": evil}))
    assert "<script" not in text


def test_missing_figures_leave_their_plots_out(made: Any) -> None:
    assert Seen(changed(made, lambda raw: raw.clear(), "figures.json")).tags.count("svg") == 0
    one = changed(made, lambda raw: raw["egress"].update({"bytes_per_phone": {"score/1": 528}}))
    assert Seen(one).tags.count("svg") == 1


def test_a_folder_that_is_no_run_is_one_sentence(made: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="whole run"):
        page.render(tmp_path)
    (made.folder / "figures.json").write_text("[]")
    with pytest.raises(InputError, match="no JSON object"):
        page.render(made.folder)
    (made.folder / "figures.json").write_text("{}")
    with pytest.raises(InputError, match="lacks what its report needs"):
        changed(made, lambda raw: raw.pop("epsilon"))


def test_plots_leave_the_global_style_alone() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    assert plots.egress_plot({"update/1": 1200.0, "score/1": 3e6, "none": 0}).startswith("<svg")
    assert dict(matplotlib.rcParams) == before
    assert (plots.bytes_text(12), plots.bytes_text(1200), plots.bytes_text(3e6)) == ("12 B", "1.2 KB", "3.0 MB")


def test_the_page_says_against_whom_what_the_budget_bounds_and_how_often_a_phone_takes_part(made: Any) -> None:
    two = {"mode": "helper", "coordinator": 0.98, "coordinator_reason": "", "helper": 1.97, "helper_reason": ""}
    charge = {"name": "training", "noise_multiplier": 1.0, "sensitivity": 1.0, "count": 1, "sampling": 1.0}
    charges = [charge | {"split": "train"}]

    def said(**more: Any) -> str:
        return changed(made, lambda raw: raw["epsilon"].update(two | {"charges": charges} | more))

    less = said(coordinator_noise=0.5)
    assert "in five against the coordinator, against the helper" in less
    assert "which bounds ε against the coordinator and not the ε 1.97 against the helper" in less
    assert "A phone with the usual yearly cap (ρ .5) would not take part: one plan costs it ρ 2." in less
    assert re.search(r"Noise z is the helper(&#39;|')s noise, as its standard deviation", less)
    assert "the coordinator adds 0.5000 times that." in less
    equal = said(coordinator_noise=1.0, helper=0.98)
    assert "takes part once a year" in equal and "the coordinator adds as much again." in equal
    assert "which bounds ε" not in equal and "against the helper" in equal
    central = said(mode="central", helper=None, helper_reason="none takes part", coordinator_noise=1.0)
    assert "in five against whoever reads releases" in central and "the coordinator adds" not in central


def test_a_summary_that_does_not_say_the_share_of_noise_is_not_guessed_at(made: Any) -> None:
    text = changed(
        made, lambda raw: raw["epsilon"].update({"mode": "helper"}) or raw["epsilon"].pop("coordinator_noise")
    )
    assert "yearly cap" not in text and "the coordinator adds its own." in text
