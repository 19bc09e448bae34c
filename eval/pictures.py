"""The pictures of a run, as PNG and SVG: what the tables say, for people who would rather look.

histogram      how many units got which score
reliability    what IoU a score is worth, and how often each score was given
success, precision, normalised_precision    share of frames within each threshold, mean over sequences
by_TAG         the main figure by every value of a tag (attribute, difficulty, kind, ...)

Bars are means, whiskers 95 % bootstrap intervals over tasks. Equal rows give equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eval.kit import Row, groups, interval, values, with_jf
from eval.metrics.calibration import expected_calibration_error, reliability, spearman
from eval.runner import scores_and_ious

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, LINES, AWAY = "#1f2630", "#6b7480", "#d3d8de", "#c3c9d1"
BLUE = "#0072b2"  # of Okabe and Ito's colours, which people with any colour vision tell apart
DPI = 150
MOST_BARS = 40
THRESHOLDS = {
    "success": (np.arange(21) / 20, "overlap threshold"),
    "precision": (np.arange(51.0), "centre error, pixels"),
    "normalised_precision": (np.arange(51) / 100, "centre error / box size"),
}
"""Curves that box kits keep in a row's series: their thresholds, and what these are."""


def draw(rows: Sequence[Row], main: str, folder: Path) -> list[Path]:
    """Write every picture that the rows allow.

    Args:
        rows: of a run.
        main: the figure that bars and the histogram show.
        folder: of the run.

    Raises:
        OutputError: OUT02.
    """
    from trackgpt.files import writing

    rows = [Row(r.task, r.unit, with_jf(dict(r.figures)), r.tags, r.series, r.said) for r in rows]
    makers: dict[str, Callable[[], Figure | None]] = {
        "histogram": lambda: histogram(rows, main),
        "reliability": lambda: reliability_curve(rows),
        **{name: _curve_maker(rows, name) for name in THRESHOLDS},
        **{f"by_{tag}": _bars_maker(rows, main, tag) for tag in sorted({tag for row in rows for tag in row.tags})},
    }
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, make in makers.items():
        figure = make()
        if figure is not None:
            paths += save(figure, folder / name)
    return paths


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG and SVG, without dates or random identifiers."""
    import matplotlib as mpl

    from trackgpt.files import replacing

    paths = [path.with_name(path.name + end) for end in (".png", ".svg")]
    with replacing(paths[0]) as part:
        figure.savefig(part, format="png", dpi=DPI, metadata={"Software": None})
    with mpl.rc_context({"svg.hashsalt": path.name}), replacing(paths[1]) as part:
        figure.savefig(part, format="svg", metadata={"Date": None})
    return paths


def _curve_maker(rows: Sequence[Row], name: str) -> Callable[[], Figure | None]:
    return lambda: threshold_curve(rows, name)


def _bars_maker(rows: Sequence[Row], main: str, tag: str) -> Callable[[], Figure | None]:
    return lambda: bars(rows, main, tag)


def histogram(rows: Sequence[Row], main: str) -> Figure | None:
    """How many units got which score, in steps of 5 percent; None without any."""
    found = 100 * values(rows, main)
    found = found[np.isfinite(found)]
    if not len(found):
        return None
    figure = _figure(4.6, 3.1)
    axis = figure.subplots()
    axis.hist(found, np.linspace(0, 100, 21), color=BLUE, alpha=0.9, rwidth=0.88)
    axis.axvline(float(found.mean()), color=INK, linewidth=1.4, linestyle=(0, (4, 2)))
    _title(axis, main, f"mean {found.mean():.1f} (dashed), n {len(found)}")
    _plain(axis, "y")
    axis.set_xlim(0, 100)
    axis.set_ylabel("units", color=INK, size=9)
    return figure


def threshold_curve(rows: Sequence[Row], name: str) -> Figure | None:
    """The mean curve of the sequences that have one; None without any."""
    curves = [row.series[name] for row in rows if name in row.series]
    if not curves:
        return None
    thresholds, what = THRESHOLDS[name]
    mean = 100 * np.mean(np.asarray(curves, np.float64), axis=0)
    figure = _figure(4.4, 3.4)
    axis = figure.subplots()
    axis.plot(thresholds, mean, color=BLUE, linewidth=1.8)
    axis.set_ylim(0, 102)
    axis.set_xlim(thresholds[0], thresholds[-1])
    axis.set_xlabel(what, color=INK, size=9)
    axis.set_ylabel("% of frames", color=INK, size=9)
    _title(axis, name.replace("_", " "), f"mean of the curve {mean.mean():.1f}, n {len(curves)}")
    _plain(axis, "both")
    return figure


def reliability_curve(rows: Sequence[Row], bins: int = 10) -> Figure | None:
    """Mean IoU against mean score in bins of equal width, with the counts below; None without scores."""
    scores, ious = scores_and_ious(rows)
    if not len(scores):
        return None
    table = reliability(scores, ious, bins)
    figure = _figure(4.4, 5.0)
    curve, counts = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3.2, 1]})
    used = table.counts > 0
    curve.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label="as good as it says")
    low, high = _spread(scores, ious, table.edges)
    style = {"color": BLUE, "alpha": 0.15, "linewidth": 0, "label": "middle half"}
    curve.fill_between(table.scores[used], low[used], high[used], **style)
    curve.plot(table.scores[used], table.ious[used], color=BLUE, marker="o", linewidth=1.6, label="mean")
    curve.set_ylim(0, 1.02)
    curve.set_ylabel("true IoU", color=INK, size=9)
    curve.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="upper left")
    rho, error = spearman(scores, ious), expected_calibration_error(scores, ious, bins)
    _title(curve, "score", f"Spearman {rho:.2f}, ECE {error:.3f}, {len(scores):,} frames")
    centres = (table.edges[1:] + table.edges[:-1]) / 2
    counts.bar(centres, 100 * table.counts / table.counts.sum(), width=0.88 / bins, color=AWAY)
    counts.set_ylabel("% of frames", color=INK, size=9)
    counts.set_xlabel("score", color=INK, size=9)
    counts.set_xlim(0, 1)
    for axis in (curve, counts):
        _plain(axis, "y")
    return figure


def _spread(scores: np.ndarray, ious: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and third quartile of the IoU in every bin of scores, NaN where a bin is empty."""
    place = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, len(edges) - 2)
    quartiles = np.full((2, len(edges) - 1), np.nan)
    for index in np.unique(place):
        quartiles[:, index] = np.quantile(ious[place == index], [0.25, 0.75])
    return quartiles[0], quartiles[1]


def bars(rows: Sequence[Row], main: str, tag: str) -> Figure | None:
    """The main figure by every value of a tag, best first; None for fewer than two values, or too many to read."""
    found = {name: mine for name, mine in groups(rows, tag).items() if len(values(mine, main))}
    if not 2 <= len(found) <= MOST_BARS:
        return None
    order = sorted(found, key=lambda name: -float(np.mean(values(found[name], main))))
    figure = _figure(5.2, 1.1 + 0.25 * len(order))
    axis = figure.subplots()
    for y, name in enumerate(order):
        axis.barh(y, 100 * float(np.mean(values(found[name], main))), height=0.72, color=BLUE, alpha=0.9)
        low, high = interval(found[name], main)
        if np.isfinite(low):
            axis.plot([100 * low, 100 * high], [y, y], color=INK, linewidth=1.1, solid_capstyle="butt")
    axis.set_yticks(range(len(order)), [f"{name}  ({len(found[name])})" for name in order])
    axis.set_ylim(len(order) - 0.4, -0.6)
    axis.set_xlim(0, 100)
    axis.set_xlabel(f"{main}, mean and 95 % interval", color=INK, size=9)
    _title(axis, f"by {tag}", "")
    _plain(axis, "x")
    axis.tick_params(axis="y", length=0)
    return figure


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _title(axis: Axes, text: str, note: str) -> None:
    axis.set_title(text, loc="left", color=INK, size=11, weight="bold")
    axis.set_title(note, loc="right", color=FAINT, size=8.5)


def _plain(axis: Axes, grid: str) -> None:
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(LINES)
    axis.grid(axis=grid, color=LINES, linewidth=0.6, alpha=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(colors=FAINT, labelcolor=INK, labelsize=8.5, length=3)
