"""What a kit is: one benchmark's tasks, its official result format, and its way from result files to figures.

A kit runs a tracker by letting it write the benchmark's own result files, and scores nothing but such files. So a model
of this package and a folder from any other tracker are scored by the same code, a run is resumed by what is on disk,
and processes or nodes merge exactly. `eval.runner` does the rest: it chooses tasks, resumes, and gathers rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np

from eval.listening import Listened
from eval.metrics.intervals import bootstrap_mean
from trackgpt.errors import InputError
from trackgpt.types import Prediction, Prompt


@dataclass(frozen=True)
class Row:
    """One scored unit: an object, an expression, a sequence, a segment.

    Attributes:
        task: the unit of work it belongs to (a video); intervals draw whole tasks.
        unit: its own name, unique in the run; a tracker's diagnostics carry the same name.
        figures: what is averaged or counted, in the metric's own unit (shares in [0, 1], pixels, counts).
        tags: what tables are broken down by; a unit may belong to several groups of one tag.
        series: numbers per frame ("iou", "score") or per threshold ("success"); NaN where there is none.
        said: texts for people: the instruction, the tracker's answer.
    """

    task: str
    unit: str
    figures: Mapping[str, float]
    tags: Mapping[str, Sequence[str]] = field(default_factory=dict)
    series: Mapping[str, Sequence[float]] = field(default_factory=dict)
    said: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class Follow(Protocol):
    """Runs the tracker over frames; what kits get instead of a tracker (see `eval.following`)."""

    def __call__(
        self, said: Mapping[str, Sequence[Prompt]], frames: Iterable[np.ndarray]
    ) -> Iterator[tuple[Prediction, ...]]:
        """For each frame, one prediction per unit; units are independent.

        Args:
            said: the prompts of each unit, whose name is that of the row that its predictions will give. By frame; the
                first begins the track and must be about frame 0, later ones are said on the way.
            frames: uint8 RGB (height, width, 3), in order, from frame 0.
        """
        ...

    def listen(self, name: str, said: Mapping[int, str], frames: Iterable[np.ndarray]) -> Iterator[Listened]:
        """One unit to which a person speaks: what kind of instruction a sentence is, the tracker finds out.

        Args:
            name: of the unit.
            said: the words by frame, the first about frame 0.
            frames: as above.
        """
        ...


def alone(predictions: Iterable[tuple[Prediction, ...]]) -> Iterator[Prediction]:
    """The predictions of the only unit of a `Follow`."""
    return (prediction for (prediction,) in predictions)


class MissingResultError(InputError):
    """A task has no result files at all; `eval.runner` counts these, where a malformed file stops the run."""


class Reported(NamedTuple):
    """A row of a paper's table, for the column that stands beside ours.

    Attributes:
        system: as the paper calls it.
        figures: as printed, by our names.
        source: paper and table.
    """

    system: str
    figures: Mapping[str, float]
    source: str


class Kit(Protocol):
    """One benchmark. Cheap to open; `tasks` reads the benchmark's lists, and nothing else is read before it is needed.

    Attributes:
        name: of the command, e.g. "refer-davis17".
        protocol: one paragraph for the report: what is scored and how, in every convention that the figures name.
        headline: names of the figures on the last line of stdout, main one first.
        pixels: names of figures that are no percentages.
        layout: of result files, for people: "VIDEO/EXPRESSION/FRAME.png, 0 and 255".
        reported: what papers print.
        baselines: by name, what writes a task's result files without any model.
    """

    name: str
    protocol: str
    headline: tuple[str, ...]
    pixels: frozenset[str]
    layout: str
    reported: tuple[Reported, ...]
    baselines: Mapping[str, Callable[[str, Path], None]]

    def tasks(self) -> Sequence[str]:
        """Names of the units of work, in the benchmark's order; each is a relative path of result files.

        Raises:
            InputError: the data are not where they should be.
        """
        ...

    def run(self, task: str, follow: Follow, results: Path) -> None:
        """Track a task and write its result files below `results` in the benchmark's own format."""
        ...

    def score(self, task: str, results: Path) -> list[Row]:
        """The rows of a task from its result files.

        Raises:
            MissingResultError: the task has no result file at all.
            InputError: a result or truth file is missing or malformed: file, line, and what was wanted.
        """
        ...

    def summarise(self, rows: Sequence[Row]) -> dict[str, float]:
        """All figures of a run, as printed: percent, but for `pixels`."""
        ...


@runtime_checkable
class Submits(Protocol):
    """A kit whose benchmark has a server that scores, or scored, what is sent to it."""

    def submit(self, results: Path, out: Path) -> Path | None:
        """Write the zip that the server takes into the run's folder `out`; None where the split has no server."""
        ...


@runtime_checkable
class LeavesOut(Protocol):
    """A kit that cannot score all that is on disk.

    Attributes:
        left_out: what is left out and why, one text each.
    """

    @property
    def left_out(self) -> Sequence[str]: ...


@runtime_checkable
class Tabulates(Protocol):
    """A kit whose report has tables beside those of figures."""

    def tables(self, rows: Sequence[Row]) -> Sequence[str]:
        """Markdown, one text per table with its title; none where there is nothing to show."""
        ...


class Named(Protocol):
    """Something of a data set that has a name there."""

    @property
    def name(self) -> str: ...


Item = TypeVar("Item", bound=Named)


class SplitKit(Generic[Item]):
    """A kit over a split of a data set whose tasks are named items: videos, images, sequences, clips.

    Attributes:
        root: folder of the data set.
        split: part of it, as the data set names it.
        printed: what papers print, by split.
    """

    pixels: frozenset[str] = frozenset()
    printed: Mapping[str, tuple[Reported, ...]] = {}

    def __init__(self, root: Path, split: str) -> None:
        self.root, self.split = root, split

    def items(self) -> Iterable[Item]:
        """The split's items, in the benchmark's order."""
        raise NotImplementedError

    @cached_property
    def by_name(self) -> dict[str, Item]:
        """The items by name."""
        return {item.name: item for item in self.items()}

    def tasks(self) -> Sequence[str]:
        """One task per item."""
        return list(self.by_name)

    @property
    def reported(self) -> tuple[Reported, ...]:
        """What papers print of this split."""
        return self.printed.get(self.split, ())

    @property
    def baselines(self) -> Mapping[str, Callable[[str, Path], None]]:
        """None, unless a kit has some."""
        return {}


def values(rows: Iterable[Row], figure: str) -> np.ndarray:
    """A figure of all rows that have it, float64 (n,)."""
    return np.array([row.figures[figure] for row in rows if figure in row.figures], np.float64)


def percent_means(rows: Sequence[Row], figures: Iterable[str]) -> dict[str, float]:
    """Means over the rows that have a figure, in percent; a figure that no row has is left out."""
    found = {figure: values(rows, figure) for figure in figures}
    return {figure: 100 * float(np.mean(series)) for figure, series in found.items() if series.size}


def with_jf(figures: dict[str, float], prefix: str = "") -> dict[str, float]:
    """The figures with J&F = (J + F) / 2 in front, where both are there."""
    j, f = figures.get(f"{prefix}J"), figures.get(f"{prefix}F")
    return figures if j is None or f is None else {f"{prefix}J&F": (j + f) / 2, **figures}


def groups(rows: Iterable[Row], tag: str) -> dict[str, list[Row]]:
    """Rows by the value of a tag, values in alphabetical order; a row stands in every group it belongs to."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        for value in row.tags.get(tag, ()):
            found.setdefault(value, []).append(row)
    return dict(sorted(found.items()))


def interval(rows: Sequence[Row], figure: str) -> tuple[float, float]:
    """Ends of the 95 % bootstrap interval of a figure's mean over whole tasks; NaN for a single task."""
    mine = [row for row in rows if figure in row.figures and np.isfinite(row.figures[figure])]
    if not mine:
        return np.nan, np.nan
    found = bootstrap_mean(values(mine, figure), seed=0, groups=[row.task for row in mine])
    return found.low, found.high
