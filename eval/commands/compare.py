"""`python -m eval compare A B ...`: differences between runs of one kit, with paired intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from eval.kit import Row, with_jf
from eval.metrics.intervals import Interval, paired_bootstrap
from eval.report import table
from eval.run_folder import ROWS, RUN, read_rows, write_text
from trackgpt.data.trees import read_object
from trackgpt.errors import InputError, UsageError
from trackgpt.files import refuse_existing_file

SAME = ("kit", "data", "split", "seed")
"""What two runs must share for a comparison to mean anything."""


def command(
    runs: Annotated[
        list[str],
        typer.Argument(help="--out folders of runs of one kit, the reference first; seeds of one system by commas"),
    ],
    figure: Annotated[list[str] | None, typer.Option(help="Figures to compare; by default all they share")] = None,
    draws: Annotated[int, typer.Option(min=100, help="Resamples of the bootstrap")] = 2000,
    out: Annotated[Path | None, typer.Option(help="Also write the table to this Markdown file")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace that file")] = False,
) -> None:
    """Differences of runs on the same units, with 95 % paired bootstrap intervals over whole tasks.

    Runs joined by commas are one system trained from several seeds: every unit counts with its mean over them, and the
    last column has the difference seed by seed. The interval is about other videos, not about other seeds.

    Examples: python -m eval compare runs/synthtrack-nano runs/synthtrack-nano-first-frame;
    python -m eval compare runs/a0,runs/a1,runs/a2 runs/b0,runs/b1,runs/b2
    """
    if len(runs) < 2:
        raise UsageError("compare: give two or more run folders, the reference first")
    systems = [ComparedSystem.of(each) for each in runs]
    paths = [path for system in systems for path in system.paths]
    if out:
        refuse_existing_file(out, overwrite, [path / name for path in paths for name in (RUN, ROWS)])
    settings = _settings(paths)
    reference, rows = systems[0], [system.mean() for system in systems]
    wanted = figure or sorted(_shared_figures(rows))
    lines, last = [], {}
    for name in wanted:
        for system, mine in zip(systems[1:], rows[1:], strict=True):
            difference, pairs = paired(mine, rows[0], name, draws)
            seeds = system.by_seed(reference, name)
            lines.append([*_line(name, system.name, mine, rows[0], difference, pairs), seeds])
            last[name] = difference
    head = ["figure", "run", "its mean", "reference", "difference", "95 % interval", "units", "sure", "seed by seed"]
    several = any(line[-1] for line in lines)
    text = table(head if several else head[:-1], lines if several else [line[:-1] for line in lines])
    typer.echo(text)
    if out:
        write_text(out, text + "\n")
    headline = settings.get("headline")
    names = headline if isinstance(headline, list) else []
    main = next((name for name in names if isinstance(name, str) and name in last), wanted[0])
    found = last[main]
    typer.echo(f"figure={main} difference={found.mean:.4f} low={found.low:.4f} high={found.high:.4f}")


def _settings(paths: list[Path]) -> dict[str, Any]:
    """The settings of the first run.

    Raises:
        InputError: another run is of another benchmark.
    """
    settings = [read_object(path / RUN) for path in paths]
    for path, each in zip(paths[1:], settings[1:], strict=True):
        other = [key for key in SAME if each.get(key) != settings[0].get(key)]
        if other:
            raise InputError(f"{path}: {', '.join(other)} differ from {paths[0]}'s; wanted runs of the same benchmark")
    return settings[0]


@dataclass(frozen=True)
class ComparedSystem:
    """A system's runs, one per training seed: their folders, and the rows of each by unit."""

    paths: tuple[Path, ...]
    rows: tuple[dict[str, Row], ...]

    @classmethod
    def of(cls, folders: str) -> ComparedSystem:
        """Read the runs of folders joined by commas."""
        paths = tuple(Path(folder) for folder in folders.split(",") if folder)
        if not paths:
            raise UsageError(f"compare: {folders!r} names no run folder")
        return cls(paths, tuple(map(by_unit, paths)))

    @property
    def name(self) -> str:
        """For people."""
        more = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        return f"{self.paths[0].name}{more}"

    def mean(self) -> dict[str, Row]:
        """Rows whose figures are means over the runs; units and figures that a run lacks are left out."""
        first, *others = self.rows
        shared = [unit for unit in first if all(unit in rows for rows in others)]
        return {unit: _mean_row([rows[unit] for rows in self.rows]) for unit in shared}

    def by_seed(self, reference: ComparedSystem, figure: str) -> str:
        """Differences of the first runs, the second runs, ...; empty for single runs, or sides of different size."""
        if len(self.rows) == 1 or len(self.rows) != len(reference.rows):
            return ""
        pairs = zip(self.rows, reference.rows, strict=True)
        return ", ".join(f"{paired(mine, theirs, figure)[0].mean:+.3g}" for mine, theirs in pairs)


def _mean_row(rows: list[Row]) -> Row:
    shared = set.intersection(*(set(row.figures) for row in rows))
    figures = {name: float(np.mean([row.figures[name] for row in rows])) for name in sorted(shared)}
    return Row(rows[0].task, rows[0].unit, figures)


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


def _line(name: str, run: str, mine: dict[str, Row], theirs: dict[str, Row], found: Interval, pairs: int) -> list[str]:
    both = [unit for unit in mine if unit in theirs and _finite(mine[unit], name) and _finite(theirs[unit], name)]
    means = [float(np.mean([rows[unit].figures[name] for unit in both])) for rows in (mine, theirs)]
    sure = "yes" if found.low > 0 or found.high < 0 else "no"
    shown = [f"{value:.4g}" for value in (*means, found.mean)]
    return [name, run, *shown, f"{found.low:.4g} to {found.high:.4g}", str(pairs), sure]
