"""The report's plots as inline SVG: same data, same bytes; no script, no font file, no date (spec 11.8)."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec

INK, SOFT, GRID = "#1f2937", "#6b7280", "#e5e7eb"
GOOD, BAD, MAIN, PALE = "#0f766e", "#c2410c", "#1d4ed8", "#93c5fd"
SIZE = (4.7, 3.0)
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pocketscore",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.linewidth": 0.8,
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
AUC_NAMES = {
    "federated": "federated",
    "private": "federated, charged",
    "central": "central",
    "boosting": "boosting",
    "silo": "regional silo",
    "oracle": "oracle",
}
Row = Mapping[str, Any]
P = ParamSpec("P")


def styled(draw: Callable[P, str]) -> Callable[P, str]:
    """Draw under this page's style, whatever matplotlib is set to elsewhere, and leave that as it was."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> str:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


@styled
def auc_plot(auc: Row) -> str:
    """Every AUC on one line; the charged one with ± 1.96 standard errors. Empty where none is known."""
    known: list[tuple[str, float, float]] = []
    for key, name in AUC_NAMES.items():
        value, se = (auc[key]["value"], auc[key]["se"]) if key == "private" else (auc.get(key), 0.0)
        if value is not None:
            known.append((name, float(value), float(se or 0.0)))
    if not known:
        return ""
    figure, axes = _new((4.7, 0.34 * len(known) + 0.75))
    for place, (name, value, se) in enumerate(reversed(known)):
        ours = name.startswith("federated")
        axes.errorbar(value, place, xerr=1.96 * se or None, fmt="o", ms=6, color=MAIN if ours else SOFT, capsize=3)
        axes.annotate(f"{value:.3f}", (value, place), (0, 6), textcoords="offset points", ha="center", fontsize=8)
    axes.set_yticks(range(len(known)), [name for name, _, _ in reversed(known)])
    axes.set_ylim(-0.6, len(known) - 0.25)
    axes.margins(x=0.12)
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("area under the ROC curve")
    return _svg(figure, "auc")


@styled
def calibration_plot(curve: Row | None, charged: Row | None) -> str:
    """Observed default rate against mean PD: exact groups, and the charged cells beside them."""
    if not curve or not curve.get("mean_pd"):
        return ""
    figure, axes = _new(SIZE)
    top = 1.08 * max(*curve["mean_pd"], *curve["observed"])
    axes.plot([0, top], [0, top], color=GRID, lw=1.2, zorder=1)
    if charged and charged.get("mean_pd"):
        total = sum(max(count, 0) for count in charged["count"]) or 1
        kept = [
            row for row in zip(charged["mean_pd"], charged["observed"], charged["count"], strict=True) if row[2] > 0
        ]
        sizes = [12 + 600 * row[2] / total for row in kept]
        axes.scatter(
            [r[0] for r in kept], [r[1] for r in kept], s=sizes, color=PALE, alpha=0.7, label="charged, noised"
        )
    axes.plot(curve["mean_pd"], curve["observed"], "o-", ms=4, lw=1.2, color=MAIN, label="held-out rows (simulation)")
    axes.set(xlim=(0, top), ylim=(0, top), xlabel="mean predicted PD", ylabel="observed default rate")
    _legend(axes)
    return _svg(figure, "calibration")


@styled
def score_plot(hist: Row | None) -> str:
    """Share of repaid and of defaulted rows by score."""
    if not hist or not sum(hist["good"]) or not sum(hist["bad"]):
        return ""
    figure, axes = _new(SIZE)
    edges = hist["edges"]
    for name, color in (("good", GOOD), ("bad", BAD)):
        shares = [100 * count / sum(hist[name]) for count in hist[name]]
        label = "good outcome" if name == "good" else "bad outcome"
        axes.stairs(shares, edges, fill=True, color=color, alpha=0.25)
        axes.stairs(shares, edges, color=color, lw=1.3, label=label)
    axes.set(xlabel="score", ylabel="% of rows", xlim=(edges[0], edges[-1]))
    _legend(axes)
    return _svg(figure, "scores")


@styled
def norm_plot(rounds: Sequence[Row], clip: float) -> str:
    """Quantiles of update norms before clipping, by round, and the share that was clipped."""
    rows = [row for row in rounds if row.get("norm_quantiles")]
    if not rows:
        return ""
    figure, axes = _new(SIZE)
    x = [row["round"] for row in rows]
    quantiles = list(zip(*(row["norm_quantiles"] for row in rows), strict=True))
    axes.fill_between(x, quantiles[0], quantiles[4], color=PALE, alpha=0.35, lw=0, label="5–95 % of phones")
    axes.fill_between(x, quantiles[1], quantiles[3], color=PALE, alpha=0.7, lw=0, label="25–75 %")
    axes.plot(x, quantiles[2], color=MAIN, lw=1.4, label="median")
    axes.axhline(clip, color=BAD, lw=1, ls="--")
    axes.annotate(f"clip {clip:g}", (x[0], clip), (2, 3), textcoords="offset points", color=BAD, fontsize=8)
    axes.set(xlabel="round", ylabel="update norm before clipping", ylim=(0, 1.12 * max(clip, *quantiles[4])))
    _whole(axes, x)
    _legend(axes)
    return _svg(figure, "norms")


@styled
def round_plot(rounds: Sequence[Row]) -> str:
    """Clip rate and exact AUC by round."""
    clipped = [(row["round"], 100 * row["clip_rate"]) for row in rounds if row.get("clip_rate") is not None]
    areas = [(row["round"], row["auc"]) for row in rounds if row.get("auc") is not None]
    if not clipped and not areas:
        return ""
    figure, axes = _new(SIZE)
    if clipped:
        axes.bar(*zip(*clipped, strict=True), color=PALE, width=0.7)
        axes.set_ylim(0, max(1.0, 1.25 * max(rate for _, rate in clipped)))
        axes.set_ylabel("% of updates clipped")
    if areas:
        right = axes.twinx()
        right.plot(*zip(*areas, strict=True), "o-", ms=3, lw=1.3, color=MAIN)
        right.grid(visible=False)
        right.locator_params(axis="y", nbins=6)
        right.set_ylabel("AUC on held-out rows", color=MAIN)
    axes.set_xlabel("round")
    _whole(axes, [number for number, _ in clipped or areas])
    return _svg(figure, "rounds")


@styled
def egress_plot(sizes: Mapping[str, float]) -> str:
    """Bytes a phone sends over the whole run, by message type (logarithmic)."""
    rows = [(name, float(size)) for name, size in sizes.items() if size > 0]
    if not rows:
        return ""
    figure, axes = _new((4.7, 0.42 * len(rows) + 0.75))
    names, values = zip(*reversed(rows), strict=True)
    axes.barh(names, values, color=PALE, height=0.55)
    for place, value in enumerate(values):
        axes.annotate(bytes_text(value), (value, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 4, max(values) * 6)
    axes.xaxis.set_major_formatter(lambda value, _: bytes_text(value))
    axes.minorticks_off()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("bytes a phone")
    return _svg(figure, "egress")


@styled
def feature_plot(features: Sequence[Row], most: int = 12) -> str:
    """How far each feature moves the logit (standard deviation over the released histogram), largest first."""
    rows = [row for row in features if row["sd"] > 0][:most]
    if not rows:
        return ""
    figure, axes = _new((4.7, 0.24 * len(rows) + 0.75))
    names = [row["feature"] if len(row["feature"]) <= 26 else row["feature"][:25] + "…" for row in reversed(rows)]
    axes.barh(range(len(rows)), [row["sd"] for row in reversed(rows)], color=PALE, height=0.6)
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.grid(visible=False, axis="y")
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("moves the logit by (sd)")
    return _svg(figure, "features")


def bytes_text(size: float) -> str:
    """Bytes for people."""
    for unit, scale in (("MB", 1e6), ("KB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size:.0f} B"


def _new(size: tuple[float, float]) -> tuple[Any, Any]:
    """A figure of its own on a transparent ground."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    return figure, axes


def _legend(axes: Any) -> None:
    """Above the axes, where it covers nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, columnspacing=1.2, handlelength=1.4)


def _whole(axes: Any, numbers: Sequence[int]) -> None:
    step = max(1, round(len(numbers) / 8))
    axes.set_xticks(list(numbers)[::step])


def _svg(figure: Any, name: str) -> str:
    """The SVG element alone: scaled by its box, ids of its own, so that several stand in one page."""
    held = io.StringIO()
    with warnings.catch_warnings():  # text stays text in the SVG, so a reader's own fonts draw what ours lacks
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(held, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = held.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :].strip(), flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    return re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2).replace("<svg", '<svg role="img"', 1)
