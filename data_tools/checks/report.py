"""What a check finds: problems, notes, and counts next to the published ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from trackgpt.data.trees import Tree
from trackgpt.errors import InputError

Item = TypeVar("Item")

MOST = 5  # lines of one kind about one folder
_DEEP = 3  # levels below a root, where a part that is missed is looked for


@dataclass(frozen=True)
class Problem:
    """A fault of a file or folder; `path` starts at the root, where it lies below it."""

    path: Path
    found: str
    wanted: str
    advice: str = ""

    def __str__(self) -> str:
        line = f"{self.path}: {self.found}; wanted {self.wanted}" if self.wanted else f"{self.path}: {self.found}"
        return f"{line}; {self.advice}" if self.advice else line


@dataclass
class Report:
    """What was found below a root.

    Attributes:
        root: the top folder of the tree.
        given: what a person called the root: `root`, or a folder above it.
        opened: how many pictures of a part of an image set are opened, spread evenly; 0 for all.
        tick: called after every picture that was looked at.
        problems: one line each when written as text.
        notes: what is worth knowing and no fault.
        counts: what was found and is sound, by part: videos, frames, masks, expressions and objects.
        missing: what is listed and not there, likewise.
        wrong: what is there and not as it should be, likewise.
    """

    root: Path
    given: Path = Path()
    opened: int = 0
    tick: Callable[[], None] = lambda: None
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    missing: dict[str, dict[str, int]] = field(default_factory=dict)
    wrong: dict[str, dict[str, int]] = field(default_factory=dict)

    def problem(self, path: Path, found: str, wanted: str, advice: str = "") -> None:
        """Record a fault of a file or folder, and what to do about it where that is not plain."""
        self.problems.append(Problem(self._short(path), found, wanted, advice))

    def refused(self, error: InputError, path: Path) -> None:
        """Record what a reader says of a file; `path` stands for it where the message names none."""
        where, colon, said = str(error).partition(": ")
        found, _, wanted = (said if colon else str(error)).partition("; wanted ")
        wanted, _, advice = wanted.partition("; ")
        self.problem(Path(where) if colon and "/" in where else path, found, wanted, advice)

    def some(self, items: Sequence[Item]) -> list[Item]:
        """The items that are to be opened: all, or `opened` of them from the first to the last."""
        if not self.opened or len(items) <= self.opened:
            return list(items)
        return [items[index] for index in np.linspace(0, len(items) - 1, self.opened).round().astype(int)]

    def note(self, path: Path, found: str) -> None:
        """Record something that is no fault."""
        self.notes.append(f"{self._short(path)}: {found}")

    def unlisted(self, part: str, path: Path, *beside: Path) -> None:
        """Record that the file which lists a part is missing: a fault where a folder of the part is there."""
        there = next((folder for folder in beside if folder.is_dir()), None)
        if there is None:
            self.note(path, f"not there; the part {part} is not checked")
        else:
            self.problem(path, f"missing, but {self._short(there)} is there", f"the expressions of {part}")

    def count(self, part: str, **more: int) -> None:
        """Add to what was found of a part."""
        _add(self.counts, part, more)

    def count_missing(self, part: str, **more: int) -> None:
        """Add to what is missing of a part."""
        _add(self.missing, part, more)

    def count_wrong(self, part: str, **more: int) -> None:
        """Add to what is wrong in a part."""
        _add(self.wrong, part, more)

    def misplaced(self, path: Path, wanted: str, pattern: str = "") -> None:
        """Record that a file or folder is missing, and where something of its name is instead, if anywhere near.

        Args:
            path: what is missing.
            wanted: what it should be.
            pattern: glob pattern of what to look for; the name of `path` without it.
        """
        there = self.elsewhere(pattern or path.name)
        if there is None:
            self.problem(path, "missing", wanted)
        else:
            found = f"missing, but {there} is there: another root, or unpacked one level off"
            self.problem(path, found, wanted, f"move it to {path}, or link to it" if not pattern else "")

    def elsewhere(self, pattern: str) -> Path | None:
        """A misplaced file or folder of a name: up to three levels below the root, or next to it."""
        below = (path for depth in range(1, _DEEP + 1) for path in sorted(self.root.glob("*/" * depth + pattern)))
        parts = {self.root / part for part in ("train", "valid", "valid_u", "test")}
        siblings = sorted(self.root.resolve().parent.glob(pattern))
        return next((path for path in (*below, *siblings) if path.parent not in parts), None)

    def _short(self, path: Path) -> Path:
        return path.relative_to(self.root) if path.is_relative_to(self.root) and path != self.root else path


def _add(counts: dict[str, dict[str, int]], part: str, more: dict[str, int]) -> None:
    mine = counts.setdefault(part, {})
    for name, number in more.items():
        mine[name] = mine.get(name, 0) + number


@dataclass(frozen=True)
class TreeCheck:
    """How a data set is checked.

    Attributes:
        tree: its name, the names of its folder, what shows that a folder is it, and its published counts.
        run: looks at the tree at `report.root` and records what it finds; raises nothing for a fault of the data.
        traps: looks at a folder of the set's name that does not show the set, and records known ways to lay it wrongly.
        other: another layout of the same set that its reader takes, None where there is one alone.
    """

    tree: Tree
    run: Callable[[Report], None]
    traps: Callable[[Report], None] = lambda report: None
    other: Tree | None = None


def lines(report: Report, tree: Tree, every: bool = False) -> Iterator[str]:
    """A report as text: problems, notes, a table of counts; unless `every`, `MOST` problems of a kind in a folder."""
    alike = Counter((problem.path.parent, problem.wanted) for problem in report.problems)
    told: Counter[tuple[Path, str]] = Counter()
    for problem in report.problems:
        kind = (problem.path.parent, problem.wanted)
        told[kind] += 1
        if every or told[kind] <= MOST:
            yield str(problem)
        elif told[kind] == alike[kind]:
            yield f"{problem.path.parent}: {alike[kind] - MOST} more such (--every lists them); wanted {kind[1]}"
    yield from (f"note: {note}" for note in report.notes)
    yield from _table(report, tree)


def _matters(unit: str, tree: Tree, named: list[str]) -> bool:
    """Whether a unit has a row in every part: it is of videos, or somebody counts it."""
    return tree.units[0] == "videos" or unit == tree.units[0] or unit in named


def _table(report: Report, tree: Tree) -> Iterator[str]:
    """Counts by part: found, missing, wrong, and what the authors published where it is known."""
    rows = [("part", "", "found", "missing", "wrong", "published")]
    parts = list(dict.fromkeys((*tree.published, *report.counts, *report.missing, *report.wrong)))
    for part in parts:
        published = dict(zip(tree.units, tree.published.get(part, (None, None)), strict=True))
        tables = [table.get(part, {}) for table in (report.counts, report.missing, report.wrong)]
        if not any(tables):
            yield f"{part}: not there"
            continue
        named = [name for table in tables for name in table]
        for thing in dict.fromkeys((*(unit for unit in tree.units if _matters(unit, tree, named)), *named)):
            wanted = published.get(thing)
            numbers = (str(table.get(thing, 0)) for table in tables)
            rows.append((part, thing, *numbers, "" if wanted is None else str(wanted)))
    if len(rows) > 1:
        yield from columns(rows, left=2)


def columns(rows: Sequence[tuple[str, ...]], left: int) -> Iterator[str]:
    """Rows as lines with their cells below one another; the first `left` cells begin a column, the others end it."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        texts = (cell.ljust(width) for cell, width in zip(row[:left], widths[:left], strict=True))
        numbers = (cell.rjust(width) for cell, width in zip(row[left:], widths[left:], strict=True))
        yield "  ".join((*texts, *numbers)).rstrip()
