"""What a check finds: problems, notes, and counts beside the published ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trackgpt.data.trees import Tree

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
        line = f"{self.path}: {self.found}; wanted {self.wanted}"
        return f"{line}; {self.advice}" if self.advice else line


@dataclass
class Report:
    """What was found below a root.

    Attributes:
        root: the top folder of the tree.
        problems: one line each when written as text.
        notes: what is worth knowing and no fault.
        counts: what was found and is sound, by part: videos, frames, masks, expressions and objects.
        missing: what is listed and not there, likewise.
        wrong: what is there and not as it should be, likewise.
    """

    root: Path
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    missing: dict[str, dict[str, int]] = field(default_factory=dict)
    wrong: dict[str, dict[str, int]] = field(default_factory=dict)

    def problem(self, path: Path, found: str, wanted: str, advice: str = "") -> None:
        """Record a fault of a file or folder, and what to do about it where that is not plain."""
        self.problems.append(Problem(self._short(path), found, wanted, advice))

    def note(self, path: Path, found: str) -> None:
        """Record something that is no fault."""
        self.notes.append(f"{self._short(path)}: {found}")

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
        """Something of a name that lies not where it belongs: up to three levels below the root, or beside it."""
        below = (path for depth in range(1, _DEEP + 1) for path in sorted(self.root.glob("*/" * depth + pattern)))
        parts = {self.root / part for part in ("train", "valid", "valid_u", "test")}
        beside = sorted(self.root.resolve().parent.glob(pattern))
        return next((path for path in (*below, *beside) if path.parent not in parts), None)

    def _short(self, path: Path) -> Path:
        return path.relative_to(self.root) if path.is_relative_to(self.root) and path != self.root else path


def _add(counts: dict[str, dict[str, int]], part: str, more: dict[str, int]) -> None:
    mine = counts.setdefault(part, {})
    for name, number in more.items():
        mine[name] = mine.get(name, 0) + number


@dataclass(frozen=True)
class Check:
    """How a data set is checked.

    Attributes:
        tree: its name, the names of its folder, what shows that a folder is it, and its published counts.
        run: looks at the tree at `report.root` and records what it finds; raises nothing for a fault of the data.
    """

    tree: Tree
    run: Callable[[Report], None]


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


def _table(report: Report, tree: Tree) -> Iterator[str]:
    """Counts by part: found, missing, wrong, and what the authors published where it is known."""
    rows = [("part", "", "found", "missing", "wrong", "published")]
    parts = list(dict.fromkeys((*tree.published, *report.counts, *report.missing, *report.wrong)))
    for part in parts:
        published = dict(zip(("videos", "expressions"), tree.published.get(part, (None, None)), strict=True))
        tables = [table.get(part, {}) for table in (report.counts, report.missing, report.wrong)]
        if not any(tables):
            yield f"{part}: not there"
            continue
        for thing in dict.fromkeys(("videos", "expressions", *(name for table in tables for name in table))):
            wanted = published.get(thing)
            numbers = (str(table.get(thing, 0)) for table in tables)
            rows.append((part, thing, *numbers, "" if wanted is None else str(wanted)))
    if len(rows) > 1:
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            left = (cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True))
            right = (cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True))
            yield "  ".join((*left, *right)).rstrip()
