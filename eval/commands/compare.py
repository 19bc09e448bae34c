"""`python -m eval compare A B ...`: runs of one kit beside each other, with paired intervals of their differences."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from eval.kit import Row, with_jf
from eval.metrics.intervals import Interval, paired_bootstrap
from eval.report import table
from eval.run_folder import read_json, read_rows, write_text
from trackgpt.errors import InputError, UsageError

SAME = ("kit", "data", "split", "seed")
"""What two runs must share for a comparison to mean anything."""


def command(
    runs: Annotated[list[Path], typer.Argument(help="--out folders of runs of one kit; the first is the reference")],
    figure: Annotated[list[str] | None, typer.Option(help="Figures to compare; by default all they share")] = None,
    draws: Annotated[int, typer.Option(min=100, help="Resamples of the bootstrap")] = 2000,
    out: Annotated[Path | None, typer.Option(help="Also write the table to this Markdown file")] = None,
) -> None:
    """Differences of runs on the same units, with 95 % paired bootstrap intervals over whole tasks.

    Example: python -m eval compare runs/synthtrack-nano runs/synthtrack-nano-first-frame
    """
    if len(runs) < 2:
        raise UsageError("compare: give two or more run folders, the reference first")
    settings = [read_json(path / "run.json") for path in runs]
    for path, each in zip(runs[1:], settings[1:], strict=True):
        other = [key for key in SAME if each.get(key) != settings[0].get(key)]
        if other:
            raise InputError(f"{path}: {', '.join(other)} differ from {runs[0]}'s; wanted runs of the same benchmark")
    rows = [by_unit(path) for path in runs]
    wanted = figure or sorted(_shared_figures(rows))
    lines, last = [], {}
    for name in wanted:
        for path, mine in zip(runs[1:], rows[1:], strict=True):
            difference, pairs = paired(mine, rows[0], name, draws)
            lines.append(_line(name, path, runs[0], mine, rows[0], difference, pairs, settings[0]))
            last[name] = difference
    head = ["figure", "run", "its mean", "reference", "difference", "95 % interval", "units", "sure"]
    text = table(head, lines)
    typer.echo(text)
    if out:
        write_text(out, text + "\n")
    main = next((name for name in settings[0].get("headline", ()) if name in last), wanted[0])
    found = last[main]
    typer.echo(f"figure={main} difference={found.mean:.4f} low={found.low:.4f} high={found.high:.4f}")


def by_unit(path: Path) -> dict[str, Row]:
    """The rows of a run, each with its own J&F, by unit."""
    return {row.unit: Row(row.task, row.unit, with_jf(dict(row.figures))) for row in read_rows(path)}


def _shared_figures(runs: list[dict[str, Row]]) -> set[str]:
    each = [{name for row in rows.values() for name in row.figures} for rows in runs]
    shared = set.intersection(*each)
    if not shared:
        raise InputError("compare: the runs share no figure")
    return shared


def paired(mine: dict[str, Row], reference: dict[str, Row], figure: str, draws: int = 2000) -> tuple[Interval, int]:
    """The mean of mine - reference over units that both have, its interval over tasks, and the number of units.

    Raises:
        InputError: they share no unit with a finite value of the figure.
    """
    units = [
        unit
        for unit, row in mine.items()
        if unit in reference and _finite(row, figure) and _finite(reference[unit], figure)
    ]
    if not units:
        raise InputError(f"compare: no unit of both runs has a figure {figure!r}")
    a, b = (np.array([rows[unit].figures[figure] for unit in units]) for rows in (mine, reference))
    return paired_bootstrap(a, b, 0, draws, groups=[mine[unit].task for unit in units]), len(units)


def _finite(row: Row, figure: str) -> bool:
    return math.isfinite(row.figures.get(figure, math.nan))


def _line(
    name: str,
    path: Path,
    reference: Path,
    mine: dict[str, Row],
    theirs: dict[str, Row],
    found: Interval,
    pairs: int,
    settings: dict[str, Any],
) -> list[str]:
    both = [unit for unit in mine if unit in theirs and _finite(mine[unit], name) and _finite(theirs[unit], name)]
    means = [float(np.mean([rows[unit].figures[name] for unit in both])) for rows in (mine, theirs)]
    sure = "yes" if found.low > 0 or found.high < 0 else "no"
    shown = [f"{value:.4g}" for value in (*means, found.mean)]
    return [name, path.name, *shown, f"{found.low:.4g} to {found.high:.4g}", str(pairs), sure]
