"""`python -m eval figures RUN`: pictures of a synthtrack run, for reports.

histogram.png      J&F of single instructions, one panel a kind, over the baseline's where the run has it
reliability.png    what IoU a purport score is worth, and how often each score was given
breakdown.png      J&F by form and by difficulty of the instructions of every kind
variants.png       the variants of the run beside each other

Bars are means, whiskers 95 % bootstrap intervals over instructions, each of another video.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from eval.commands.synthtrack import read_rows
from eval.kits.synthtrack import VARIANTS, Row
from eval.metrics.calibration import expected_calibration_error, reliability, spearman
from eval.metrics.intervals import Interval, bootstrap_mean
from trackgpt.errors import InputError, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("explicit", "implicit", "multi")
DIFFICULTIES = ("easy", "medium", "hard")
BASELINE = "random-object"
INK, FAINT, LINES, AWAY = "#1f2630", "#6b7480", "#d3d8de", "#c3c9d1"
# Okabe and Ito's colours, which people with any colour vision tell apart.
COLOURS = {"explicit": "#0072b2", "implicit": "#d55e00", "multi": "#009e73", "none": "#7a8490"}
DPI = 150


def command(
    run: Annotated[Path, typer.Argument(help="Folder of `python -m eval synthtrack`")],
    variant: Annotated[str, typer.Option(help="Whose histogram, reliability and breakdown to draw")] = "full",
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures; the run's own by default")] = None,
) -> None:
    """Draw histogram.png, reliability.png, breakdown.png and variants.png of a synthtrack run."""
    if not (run / "rows.jsonl").exists():
        raise InputError(f"{run}: no rows.jsonl; wanted the --out folder of `python -m eval synthtrack`")
    rows = read_rows(run)
    present = [name for name in VARIANTS if any(row.variant == name for row in rows)]
    if variant not in present:
        raise UsageError(f"--variant {variant}: the run has {', '.join(present) or 'no rows'}")
    folder = out or run
    paths = draw(rows, variant, folder)
    typer.echo(" ".join(f"{path.stem}={path}" for path in paths))


def draw(rows: Sequence[Row], variant: str, folder: Path) -> list[Path]:
    """Write every picture that the rows allow; equal rows give equal bytes.

    Raises:
        OutputError: OUT02.
    """
    from trackgpt.export.records import replacing, writing

    mine = [row for row in rows if row.variant == variant]
    pictures: dict[str, Callable[[], Figure | None]] = {
        "histogram": lambda: histogram(mine, [row for row in rows if row.variant == BASELINE != variant]),
        "reliability": lambda: reliability_curve(mine),
        "breakdown": lambda: breakdown(mine),
        "variants": lambda: variants(rows),
    }
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, make in pictures.items():
        figure = make()
        if figure is not None:
            paths.append(folder / f"{name}.png")
            with replacing(paths[-1]) as part:
                figure.savefig(part, format="png", dpi=DPI, metadata={"Software": None})
    return paths


def histogram(rows: Sequence[Row], baseline: Sequence[Row]) -> Figure | None:
    """How many instructions of each kind got which J&F, in steps of 5; None without any.

    For "none", where the truth is empty, J&F is the share of frames on which nothing was marked.
    """
    kinds = [kind for kind in COLOURS if any(row.kind == kind for row in rows)]
    if not kinds:
        return None
    figure = _figure(3.5 * len(kinds) + 0.4, 3.1)
    axes = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    edges = np.linspace(0, 100, 21)
    for axis, kind in zip(axes, kinds, strict=True):
        values = [100 * row.jf for row in rows if row.kind == kind]
        axis.hist(values, edges, color=COLOURS[kind], alpha=0.9, rwidth=0.88)
        chance = [100 * row.jf for row in baseline if row.kind == kind]
        axis.hist(chance, edges, histtype="step", color=INK, linewidth=1.0)
        note = f"mean {np.mean(values):.1f}" + (f", chance {np.mean(chance):.1f}" if chance else "")
        axis.axvline(float(np.mean(values)), color=INK, linewidth=1.4, linestyle=(0, (4, 2)))
        _title(axis, kind, f"{note}, n {len(values)}")
        _plain(axis, "y")
        axis.set_xlim(0, 100)
    axes[0].set_ylabel("instructions", color=INK, size=9)
    outline = f"; outline: chance ({BASELINE})" if baseline else ""
    figure.supxlabel(f"J&F of an instruction; dashed: mean{outline}", color=INK, size=9)
    return figure


def reliability_curve(rows: Sequence[Row], bins: int = 10) -> Figure | None:
    """Mean IoU against mean purport score in bins of equal width, with the counts below; None without scores."""
    scores = np.array([score for row in rows for score in row.scores])
    ious = np.array([iou for row in rows for iou in row.ious])
    if not len(scores):
        return None
    table = reliability(scores, ious, bins)
    figure = _figure(4.4, 5.0)
    curve, counts = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3.2, 1]})
    used = table.counts > 0
    curve.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label="as good as it says")
    low, high = _spread(scores, ious, table.edges)
    style = {"color": COLOURS["explicit"], "alpha": 0.15, "linewidth": 0, "label": "middle half"}
    curve.fill_between(table.scores[used], low[used], high[used], **style)
    curve.plot(table.scores[used], table.ious[used], color=COLOURS["explicit"], marker="o", linewidth=1.6, label="mean")
    curve.set_ylim(0, 1.02)
    curve.set_ylabel("true IoU", color=INK, size=9)
    curve.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="upper left")
    rho, error = spearman(scores, ious), expected_calibration_error(scores, ious, bins)
    _title(curve, "purport score", f"Spearman {rho:.2f}, ECE {error:.3f}, {len(scores):,} frames")
    centres = (table.edges[1:] + table.edges[:-1]) / 2
    counts.bar(centres, 100 * table.counts / table.counts.sum(), width=0.88 / bins, color=AWAY)
    counts.set_ylabel("% of frames", color=INK, size=9)
    counts.set_xlabel("purport score", color=INK, size=9)
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


def breakdown(rows: Sequence[Row]) -> Figure | None:
    """Mean J&F of every form of instruction, and of every difficulty, kind by kind; None without any."""
    forms = _groups(rows, "form")
    levels = _groups(rows, "difficulty")
    if not forms:
        return None
    figure = _figure(9.6, 1.3 + 0.235 * max(len(forms), 8))
    left, right = figure.subplots(1, 2, sharex=True, gridspec_kw={"width_ratios": [1.25, 1]})
    _bars(left, forms)
    _bars(right, levels)
    _title(left, "by form of the instruction", "")
    _title(right, "by difficulty of the video", "")
    for axis in (left, right):
        axis.set_xlim(0, 100)
        axis.set_xlabel("J&F, mean and 95 % interval", color=INK, size=9)
    return figure


def _groups(rows: Sequence[Row], key: str) -> list[tuple[str, str, list[float]]]:
    """(kind, value of the field, J&F in percent of each instruction); forms best first, difficulties in order."""
    found = []
    for kind in KINDS:
        values: dict[str, list[float]] = {}
        for row in rows:
            if row.kind == kind:
                values.setdefault(getattr(row, key), []).append(100 * row.jf)
        order = DIFFICULTIES if key == "difficulty" else sorted(values, key=lambda name: -float(np.mean(values[name])))
        found += [(kind, name, values[name]) for name in order if name in values]
    return found


def _bars(axis: Axes, groups: Sequence[tuple[str, str, list[float]]]) -> None:
    """Horizontal bars with intervals, a gap and a heading between kinds."""
    places, labels, y, before = [], [], 0.0, ""
    for kind, name, values in groups:
        if kind != before:
            y += 1.25 if before else 0.0
            axis.text(0, y - 0.08, kind, color=COLOURS[kind], size=9, weight="bold", va="center")
            y += 1.0
            before = kind
        interval = bootstrap_mean(np.array(values), seed=0)
        axis.barh(y, interval.mean, height=0.72, color=COLOURS[kind], alpha=0.9)
        _whisker(axis, interval, y)
        places.append(y)
        labels.append(f"{name}  ({len(values)})")
        y += 1
    axis.set_yticks(places, labels)
    axis.set_ylim(y - 0.2, -0.8)
    _plain(axis, "x")
    axis.tick_params(axis="y", length=0)


def _whisker(axis: Axes, interval: Interval, y: float) -> None:
    if np.isfinite(interval.low):
        axis.plot([interval.low, interval.high], [y, y], color=INK, linewidth=1.1, solid_capstyle="butt")


def variants(rows: Sequence[Row]) -> Figure | None:
    """Mean J&F of every variant of the run, kind by kind; None when there is only one."""
    names = [name for name in VARIANTS if any(row.variant == name for row in rows)]
    kinds = [kind for kind in KINDS if any(row.kind == kind for row in rows)]
    if len(names) < 2 or not kinds:
        return None
    figure = _figure(1.9 + 1.5 * len(names), 3.4)
    axis = figure.subplots()
    width = 0.8 / len(kinds)
    for i, kind in enumerate(kinds):
        for x, name in enumerate(names):
            values = [100 * row.jf for row in rows if row.variant == name and row.kind == kind]
            if not values:
                continue
            interval = bootstrap_mean(np.array(values), seed=0)
            place = x + (i - (len(kinds) - 1) / 2) * width
            axis.bar(place, interval.mean, 0.9 * width, color=COLOURS[kind], alpha=0.9, label=kind if x == 0 else None)
            if np.isfinite(interval.low):
                axis.plot([place, place], [interval.low, interval.high], color=INK, linewidth=1.1)
            top = interval.high if np.isfinite(interval.high) else interval.mean
            axis.text(place, top + 1.5, f"{interval.mean:.0f}", color=INK, size=8, ha="center")
    axis.set_xticks(range(len(names)), names)
    axis.set_ylim(0, 105)
    axis.set_ylabel("J&F, mean and 95 % interval", color=INK, size=9)
    figure.legend(frameon=False, fontsize=9, labelcolor=INK, ncols=len(kinds), loc="outside upper right")
    _plain(axis, "y")
    axis.tick_params(axis="x", length=0)
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
