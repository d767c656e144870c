"""`report.html`: one static file a person can read on a phone, without scripts (spec 11.8)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fl_server.review import plots
from fl_server.review.bundle import NAME as BUNDLE
from fl_server.review.bundle import replace
from model.errors import InputError
from model.privacy.mechanism import GaussianRelease
from model.privacy.observers import PROMISED_TO
from model.privacy.yearly import said_of_cap

NAME = "report.html"
TEMPLATE = Path(__file__).with_name("page.html")


def write(folder: Path, out: Path | None = None) -> Path:
    """Write the report of a run, to `out` or DIR/report.html; returns where.

    InputError where the run cannot be read, or where a signed run would change: its page is part of the bundle.
    """
    text = render(folder).encode()
    path = out or folder / NAME
    if path == folder / NAME and (folder / BUNDLE).exists():
        if path.exists() and path.read_bytes() == text:
            return path
        raise InputError(f"{folder} is signed and its page would change; write the page elsewhere with --out FILE")
    replace(path, text)
    return path


def render(folder: Path) -> str:
    """The page from summary.json and figures.json; InputError where they are missing or malformed."""
    from jinja2 import Environment, StrictUndefined
    from jinja2.exceptions import UndefinedError
    from markupsafe import Markup

    summary, figures = _json(folder / "summary.json"), _json(folder / "figures.json")
    try:
        drawn = {name: Markup(svg) for name, svg in draw(summary, figures).items()}
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        environment.filters |= {"number": number, "percent": percent, "size": plots.bytes_text, "short": short}
        context = {
            "s": summary,
            "plots": drawn,
            "warnings": warnings(summary),
            "spent": spent(summary["epsilon"]),
            "against": PROMISED_TO.get(summary["epsilon"]["mode"], ""),
            "capped": capped(summary["epsilon"]),
            "decisions": figures.get("decisions") or {},
            "audit": figures.get("audit") or [],
            "reach": summary.get("reach"),
            "made": _made(folder),
            "name": folder.name.removesuffix(".partial"),
            "seconds": sorted(summary["seconds"].items(), key=lambda item: -float(item[1] or 0)),
        }
        return environment.from_string(TEMPLATE.read_text("utf-8")).render(context)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, UndefinedError) as error:
        raise InputError(f"{folder} lacks what its report needs ({error}); name the folder of a whole run") from error


def draw(summary: dict[str, Any], figures: dict[str, Any]) -> dict[str, str]:
    """Every plot's SVG by name, empty where its data is missing."""
    rounds = figures.get("rounds") or []
    return {
        "auc": plots.auc_plot(summary["auc"]),
        "calibration": plots.calibration_plot(figures.get("calibration"), figures.get("charged_calibration")),
        "scores": plots.score_plot(figures.get("score_hist")),
        "norms": plots.norm_plot(rounds, float(summary["clip"])),
        "rounds": plots.round_plot(rounds),
        "egress": plots.egress_plot(summary["egress"]["bytes_per_phone"]),
        "features": plots.feature_plot(figures.get("features") or []),
    }


def warnings(summary: dict[str, Any]) -> list[str]:
    """What must stand in red before anything else."""
    epsilon, found = summary["epsilon"], []
    if epsilon.get("noise_source", "os") != "os":
        found.append("Test-seeded noise. Anyone can compute it: this run protects nobody and must not be released.")
    if epsilon["released_models"] is None:
        found.append("No finite ε holds for this run: privacy is off.")
    if epsilon["mode"] == "local":
        found.append("Each phone adds its own noise: a demonstration of what that costs, not a way to train.")
    if summary["egress"]["undeclared"]:
        found.append(f"{summary['egress']['undeclared']} undeclared bytes left phones.")
    if summary["release"] is None:
        found.append("The gate refused this model: nothing was released.")
    return found


def spent(epsilon: dict[str, Any]) -> float | None:
    """ε that the budget bounds: against the coordinator where the mode promises it any, else against releases."""
    found: float | None = epsilon["released_models"] if epsilon["coordinator"] is None else epsilon["coordinator"]
    return found


def capped(epsilon: dict[str, Any]) -> str:
    """How often a year a phone takes part, in words; empty where a summary does not say by which noise it counts."""
    if "coordinator_noise" not in epsilon:
        return ""
    return said_of_cap([GaussianRelease.from_dict(each) for each in epsilon["charges"]], epsilon["coordinator_noise"])


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or an em dash where it has no meaning."""
    return "—" if value is None else f"{value:,.{digits}f}"


def percent(value: float) -> str:
    """A share as a percentage, at most 100."""
    return f"{min(100.0, 100 * value):.1f}"


def short(digest: str) -> str:
    """The first 16 characters of a digest."""
    return f"{digest[:16]}…"


def _made(folder: Path) -> str:
    """Date of the plan, so that the page says the same whenever it is made."""
    from model.canonical import decode
    from model.contract.envelope import MAX_SIGNED_BYTES, Signed

    path = folder / "plan.cbor"
    if not path.exists():
        return ""
    plan = decode(Signed.from_bytes(path.read_bytes()).payload, max_bytes=MAX_SIGNED_BYTES)
    return datetime.fromtimestamp(plan["created_at"], UTC).strftime("%-d %B %Y, %H:%M UTC")


def _json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read; name the folder of a whole run") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path} holds no JSON object; name the folder of a whole run")
    return raw
