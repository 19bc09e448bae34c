"""The tables of interactive tracking: systems and ablations side by side, on the same sequences of InteractTrack.

One table is the benchmark with all that is said; the other has a user who corrects, and what that costs. Whole
sequences are resampled for intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.corrections import Watched, corrections_summary
from eval.kit import Row
from eval.kits.interacttrack import aligned_answers
from eval.metrics.interactive import OVERLAP_WANTED, PaperValues, paper_values
from eval.metrics.intervals import Interval, bootstrap_mean, paired_bootstrap
from eval.report import table


@dataclass(frozen=True)
class Compared:
    """A row of the tables.

    Attributes:
        name: for people.
        key: for folders and options.
        model: see `trackgpt.hub.load_model`.
        variant: of the model.
        hears: later sentences count; where not, correcting it changes nothing, and it is not in the second table.
    """

    name: str
    key: str
    model: str
    variant: str = "full"
    hears: bool = True


def compared_systems(model: str, alone: str) -> list[Compared]:
    """The rows of the paper's Table 3, and what of its Table 2 there is here, the whole system last.

    Args:
        model: an IMAT, imat:GROUNDER+SEGMENTER.
        alone: a TrackGPT for a row of its own; "" for none.
    """
    rows = [
        Compared("plain memory", "plain-memory", model, "plain-memory", hears=False),
        Compared("DAM4SAM-like memory", "distractor-aware", model, "distractor-aware", hears=False),
        *([Compared("TrackGPT alone", "alone", alone)] if alone else []),
        Compared("w/o IPM (no language)", "no-language", model, "no-language", hears=False),
        Compared("w/o memory", "no-memory", model, "no-memory"),
        Compared("w/o CAM", "no-arbitration", model, "no-arbitration"),
        Compared("naive IoU arbitration", "naive-arbitration", model, "naive-arbitration"),
    ]
    return [*rows, Compared("IMAT", "full", model)]


Values = Callable[[PaperValues], Sequence[float]]

_PAPER: Mapping[str, Values] = {
    "Interactive": lambda values: [float(np.mean(values.segments))] if values.segments else [],
    "Responsiveness": lambda values: [float(each) for each in values.answered],
    "Accuracy": lambda values: [float(each > OVERLAP_WANTED) for each in values.overlaps],
    "Precision": lambda values: values.overlaps,
}
"""What a figure is the mean of, of one sequence."""
TRACKING = {"AUC": "interacttrack_paper/AUC", "P@20": "interacttrack_paper/P@20"}
"""Figures of rows, one per sequence."""


def benchmark_table(runs: Mapping[str, Sequence[Sequence[Row]]], draws: int = 2000) -> str:
    """Four dimensions of the benchmark by the paper's formulas, in percent with 95 % intervals.

    Args:
        runs: of each system the rows of every tree (seed) of sequences, the same trees for all; the last is compared
            with the others.
        draws: of the bootstrap.

    Returns:
        Markdown: every figure, the Interactive Score by the strict policy of absence and tree by tree, and by how much
        the last system's is above, paired by sequence.
    """
    reference = [row for rows in list(runs.values())[-1] for row in rows]
    head = ["system", *_PAPER, "Interactive, strict", *TRACKING, "Interactive, seed by seed", "IMAT is above by"]
    lines = []
    for name, trees in runs.items():
        rows = [row for tree in trees for row in tree]
        cells = [_cell(figure(rows, each, draws)) for each in _PAPER]
        strict = _cell(figure(rows, "Interactive", draws, strict=True))
        tracking = [_cell(_mean(rows, key, draws)) for key in TRACKING.values()]
        seeds = ", ".join(f"{100 * figure(tree, 'Interactive').mean:.1f}" for tree in trees)
        last = "" if name == list(runs)[-1] else _difference(reference, rows, draws)
        lines.append([name, *cells, strict, *tracking, seeds, last])
    return table(head, lines)


def figure(rows: Sequence[Row], name: str, draws: int = 2000, strict: bool = False) -> Interval:
    """A figure of the paper's form as a share, a missing prediction counted as 0; NaN where nothing can be averaged.

    Args:
        rows: of the InteractTrack kit.
        name: of the figure, e.g. "Responsiveness".
        draws: of the bootstrap, over sequences.
        strict: frames without the target count, 1 without a box and 0 with one.
    """
    found, tasks = [], []
    for row in rows:
        values = _PAPER[name](paper_values(aligned_answers(row), absent="strict" if strict else "paper"))
        found += values
        tasks += [row.task] * len(values)
    return bootstrap_mean(found, 0, draws, groups=tasks) if found else Interval(np.nan, np.nan, np.nan)


def _mean(rows: Sequence[Row], key: str, draws: int) -> Interval:
    found = [row.figures[key] for row in rows if key in row.figures]
    return bootstrap_mean(found, 0, draws) if found else Interval(np.nan, np.nan, np.nan)


def _difference(reference: Sequence[Row], rows: Sequence[Row], draws: int) -> str:
    """Of the Interactive Score, over sequences that both have."""
    mine, other = ({row.task: figure([row], "Interactive", 1).mean for row in of} for of in (reference, rows))
    tasks = [task for task in mine if task in other and not np.isnan(mine[task] + other[task])]
    if not tasks:
        return ""
    return _cell(paired_bootstrap([mine[t] for t in tasks], [other[t] for t in tasks], 0, draws), sign=True)


def _cell(found: Interval, sign: bool = False) -> str:
    mean, low, high = (100 * value for value in found)
    shown = f"{mean:+.1f}" if sign else f"{mean:.1f}"
    return f"{shown} ({low:.1f} to {high:.1f})"


CORRECTED = {
    "corrections per video": "corrections",
    "settled, %": "settled",
    "IoU > 0.5, % of frames": "right",
    "refused, %": "refused",
    "groundings per video": "groundings",
    "of these unasked": "rethinks",
    "tracker fps": "tracker_fps_cpu",
    "end-to-end fps": "end_to_end_fps_cpu",
}
"""Columns of the second table, and figures of `corrections_summary`; frames per second of processor time."""


def corrections_table(runs: Mapping[str, Sequence[Watched]], draws: int = 2000) -> str:
    """What a user has to correct, with 95 % intervals of the number of corrections, and what the system costs.

    Args:
        runs: the videos of each system.
        draws: of the bootstrap.
    """
    lines = []
    for name, videos in runs.items():
        figures = corrections_summary(videos)
        found = bootstrap_mean([len(video.corrections) for video in videos], 0, draws)
        first = f"{found.mean:.2f} ({found.low:.2f} to {found.high:.2f})"
        lines.append([name, first, *(f"{figures[key]:.1f}" for key in list(CORRECTED.values())[1:])])
    return table(["system", *CORRECTED], lines)
