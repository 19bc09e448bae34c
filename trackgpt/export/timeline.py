"""The run on one picture: how sure the system was of each object, when it asked again and why, when all was away."""

from __future__ import annotations

import math
import warnings
from array import array
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trackgpt.export.overlay import colour_of
from trackgpt.export.records import EventRecord, events_of_take, read_tracks
from trackgpt.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (12.0, 4.2)
DPI = 100
INK, FAINT, AWAY, LINES = "#1f2630", "#7b8490", "#e9ecf0", "#d3d8de"
REASONS = {"purport": "low score", "searching": "still looking", "prompt": "new instruction"}
PRESENT = ("tracked", "suspect")
MOST_LABELS = 8
"""With more rethinks than this, their reasons are left to the legend."""


@dataclass
class _Curve:
    """One object over all frames since it first appeared, in flat arrays: a long run has many frames.

    `ratio` times its first score is its threshold; 0 where the system has none.
    """

    begin: int
    ratio: float = 0.0
    scores: array[float] = field(default_factory=lambda: array("d"))
    states: list[str] = field(default_factory=list)


def score_timeline(run: str | Path, ratio: float = 0.5) -> Path:
    """Draw timeline.png into a run folder, finished or cut: 1200 x 420 pixels.

    Curves are scores, with gaps where an object is absent; the dashed line of the same colour, drawn where scores are
    purport scores alone, is the threshold, `ratio` times the object's first score, under which the brain is asked
    again; a score that the words count in, too, has another one with every answer (see `events.jsonl`). Diamonds are
    where it was asked, with the reason, and the line to a diamond is the score before; upright lines are instructions.
    Grey is where nothing was seen. The strip below shows each object's state. Equal runs give equal bytes.

    Args:
        run: a run folder.
        ratio: the threshold's share of the first score.

    Returns:
        The file.

    Raises:
        InputError: the run is missing or damaged.
        OutputError: OUT02.
    """
    times, curves = _curves(Path(run), ratio)
    events = [event for event in events_of_take(run) if event.type in ("instruction", "rethink")]
    path = Path(run) / "timeline.png"
    with replacing(path) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = _figure(Path(run).resolve().name, times, curves, events)
        figure.savefig(part, format="png", metadata={"Software": None})
    return path


def _curves(run: Path, ratio: float) -> tuple[array[float], dict[int, _Curve]]:
    """The edges of all frames in seconds, one more than there are frames, and the objects' curves by id."""
    times, curves = array("d"), dict[int, _Curve]()
    for number, record in enumerate(read_tracks(run)):
        times.append(record.time)
        objects = {item.id: item for item in record.objects}
        for new in objects.keys() - curves.keys():
            one = objects[new]
            alone = "purport" in one.own_scores and one.own_scores["purport"] == one.score
            curves[new] = _Curve(number, ratio if alone else 0.0)
        for name, curve in curves.items():
            item = objects.get(name)
            shown = item is not None and item.state in PRESENT and item.score is not None
            curve.scores.append(item.score if shown else math.nan)  # type: ignore[union-attr, arg-type]
            curve.states.append("" if item is None else item.state)
    step = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
    times = times or array("d", [0.0])
    times.append(times[-1] + (step or 1.0))
    return times, dict(sorted(curves.items()))


def _figure(name: str, times: array[float], curves: dict[int, _Curve], events: list[EventRecord]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(SIZE, DPI, facecolor="white")
    FigureCanvasAgg(figure)
    strip = min(0.3, 0.045 * max(1, len(curves)))
    grid = {"height_ratios": [1 - strip, strip], "left": 0.055, "right": 0.985, "top": 0.815, "bottom": 0.125}
    axes, states = figure.subplots(2, 1, sharex=True, gridspec_kw=grid | {"hspace": 0.06})
    _frame(axes, states, times)
    for start, end in _away(times, curves):
        axes.axvspan(start, end, color=AWAY, linewidth=0, zorder=0)
    for number, curve in curves.items():
        _draw_curve(axes, times, number, curve)
    _draw_states(states, times, curves)
    _draw_rethinks(axes, [event for event in events if event.type == "rethink"])
    _draw_instructions(axes, states, [event for event in events if event.type == "instruction"])
    figure.text(0.055, 0.935, "Score", color=INK, size=13, weight="bold")
    short = name if len(name) <= 60 else f"{name[:59]}…"
    figure.text(0.985, 0.028, short, color=FAINT, size=9, ha="right", parse_math=False)
    _legend(figure, curves, events)
    return figure


def _frame(axes: Axes, states: Axes, times: array[float]) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for spine in (*states.spines.values(), axes.spines["left"], axes.spines["bottom"]):
        spine.set_color(LINES)
    axes.set_ylim(0, 1.04)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    axes.grid(axis="y", color=LINES, linewidth=0.6, alpha=0.7)
    axes.set_axisbelow(True)
    axes.set_xlim(times[0], times[-1])
    for each in (axes, states):
        each.tick_params(colors=FAINT, labelcolor=INK, labelsize=9.5, length=3)
    axes.tick_params(axis="x", length=0)
    states.set_xlabel("time in the source, " + ("minutes" if times[-1] > 120 else "seconds"), color=INK, size=10)
    if times[-1] > 120:
        states.xaxis.set_major_formatter(lambda seconds, _: f"{int(seconds // 60)}:{seconds % 60:02.0f}")


def _draw_curve(axes: Axes, times: array[float], number: int, curve: _Curve) -> None:
    colour = _hex(number)
    end = curve.begin + len(curve.scores)
    when = times[curve.begin : end]
    first = next((score for score in curve.scores if math.isfinite(score)), None)
    if first is None:
        return
    axes.plot(when, curve.scores, color=colour, linewidth=1.9, solid_joinstyle="round", zorder=3)
    # A frame between two absences makes no line; a dot shows it.
    lone = [k for k, score in enumerate(curve.scores) if math.isfinite(score) and _alone(curve.scores, k)]
    axes.plot([when[k] for k in lone], [curve.scores[k] for k in lone], ".", color=colour, markersize=4, zorder=3)
    if curve.ratio:
        level = curve.ratio * first
        axes.hlines(level, when[0], times[end], colors=colour, linestyles=(0, (5, 3)), linewidth=1.1, zorder=2)


def _alone(scores: array[float], k: int) -> bool:
    return not any(0 <= j < len(scores) and math.isfinite(scores[j]) for j in (k - 1, k + 1))


def _draw_states(axes: Axes, times: array[float], curves: dict[int, _Curve]) -> None:
    """One row per object: solid where tracked, pale where suspect, grey where absent."""
    for row, (number, curve) in enumerate(curves.items()):
        place = curve.begin
        for state, frames in groupby(curve.states):
            first, place = place, place + len(list(frames))
            if not state:
                continue
            colour = _hex(number) if state in PRESENT else LINES
            pale = 0.4 if state == "suspect" else 1.0
            axes.broken_barh(
                [(times[first], times[place] - times[first])],
                (row - 0.36, 0.72),
                facecolor=colour,
                alpha=pale,
                linewidth=0,
            )
    axes.set_ylim(max(len(curves), 1) - 0.5, -0.5)
    axes.set_yticks(range(len(curves)), [str(number) for number in curves])
    axes.tick_params(axis="y", length=0, labelsize=min(9.5, 76 / max(1, len(curves))))


def _draw_rethinks(axes: Axes, rethinks: list[EventRecord]) -> None:
    few = len(rethinks) <= MOST_LABELS
    start, end = axes.get_xlim()
    free = [start, start]
    for event in rethinks:
        colour = INK if event.id is None else _hex(event.id)
        old, new = _level(event.data["old"]), _level(event.data["new"])
        levels = [level for level in (new, old) if level is not None] or [0.0]
        if len(levels) == 2:
            axes.vlines(event.time, old, new, colors=INK, linewidth=1.1, linestyles=":", zorder=4)
        style: dict[str, Any] = {"markersize": 9 if few else 7, "markeredgecolor": INK, "clip_on": False}
        axes.plot([event.time], levels[:1], "D", color=colour, zorder=6, **style)
        # Two neighbours have their reasons above and below; a third has no room.
        side = next((side for side in (0, 1) if few and event.time >= free[side]), None)
        if side is not None:
            free[side] = event.time + 0.09 * (end - start)
            _label(axes, event, min(levels) if side else levels[0], bool(side))


def _label(axes: Axes, event: EventRecord, level: float, below: bool) -> None:
    """The reason above the point, or below it when asked or where the picture ends."""
    reason, (start, end) = str(event.data["reason"]), axes.get_xlim()
    place = (event.time - start) / (end - start)
    text = axes.annotate(
        REASONS.get(reason, reason),
        (event.time, level),
        xytext=(0, -17 if below or level > 0.92 else 8),
        textcoords="offset points",
        ha="left" if place < 0.05 else "right" if place > 0.95 else "center",
        color=INK,
        size=9,
        zorder=7,
        bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1},
    )
    text.set_parse_math(False)


def _draw_instructions(axes: Axes, states: Axes, said: list[EventRecord]) -> None:
    """Upright lines with their words above the curves, cut to the room there is before the next one."""
    start, end = axes.get_xlim()
    edges = [*(event.time for event in said), end]
    for event, (here, following) in zip(said, pairwise(edges)):
        for each in (axes, states):
            each.axvline(event.time, color=INK, linewidth=1.2, zorder=5, clip_on=False)
        room = int(155 * (following - here) / (end - start)) - 2
        words = _cut(str(event.data["text"]), room)
        text = axes.text(event.time, 1.02, f" {words}", transform=axes.get_xaxis_transform(), color=INK, size=10)
        text.set_parse_math(False)
        text.set_clip_on(False)


def _cut(words: str, room: int) -> str:
    words = " ".join(words.split())
    if len(words) <= room:
        return f"“{words}”"
    return f"“{words[: room - 1].rstrip()}…”" if room > 4 else ""


def _legend(figure: Figure, curves: dict[int, _Curve], events: list[EventRecord]) -> None:
    from matplotlib.artist import Artist
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    # More objects than these are named by the rows of the strip alone.
    shown = list(curves) if len(curves) <= 3 else []
    entries: list[Artist] = []
    entries += [Line2D([], [], color=_hex(number), linewidth=2.4, label=f"object {number}") for number in shown]
    if ratio := max((curve.ratio for curve in curves.values()), default=0.0):
        label = f"threshold, {ratio:g} × first score"
        entries.append(Line2D([], [], color=FAINT, linewidth=1.2, linestyle=(0, (5, 3)), label=label))
    if any(event.type == "rethink" for event in events):
        style: dict[str, Any] = {"markeredgecolor": INK, "color": "white", "markersize": 7, "linestyle": ""}
        entries.append(Line2D([], [], marker="D", label="brain asked again", **style))
    if any("absent" in curve.states for curve in curves.values()):
        entries.append(Patch(facecolor=LINES, edgecolor=FAINT, lw=0, label="absent"))
    place: dict[str, Any] = {"loc": "upper right", "bbox_to_anchor": (0.99, 0.995), "ncols": 12}
    figure.legend(handles=entries, frameon=False, fontsize=9.5, labelcolor=INK, columnspacing=1.4, **place)


def _away(times: array[float], curves: dict[int, _Curve]) -> list[tuple[float, float]]:
    """The spans, in seconds, on which no object was there, though some were looked for."""
    seen, sought = bytearray(len(times) - 1), bytearray(len(times) - 1)
    for curve in curves.values():
        for frame, state in enumerate(curve.states, curve.begin):
            seen[frame] |= state in PRESENT
            sought[frame] |= state != ""
    spans, place = [], 0
    for away, frames in groupby(s and not p for s, p in zip(sought, seen)):
        first, place = place, place + len(list(frames))
        if away:
            spans.append((times[first], times[place]))
    return spans


def _level(value: Any) -> float | None:
    """A score to draw: of several targets the lowest, which is the one that made the brain be asked."""
    values = value if isinstance(value, list) else [value]
    numbers = [float(v) for v in values if isinstance(v, int | float)]
    return min(numbers, default=None)


def _hex(number: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour_of(number))
