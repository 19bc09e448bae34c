"""Points in targets over time and the words that name them: rows of MolmoPoint-TrackAny and Molmo 2's tracking sets.

As their dataset cards describe them (huggingface.co/datasets/allenai/MolmoPoint-TrackAny at 84cddff, Apache-2.0): an
expression about a video and, for each of its frames, a point in every target, in pixels of the video, with a mark where
the target is hidden. The cards offer Parquet; a file here is the same rows as JSON Lines, one per line, as
`datasets.Dataset.to_json` writes them. The videos are not among the rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trackgpt.errors import InputError
from trackgpt.files import write_whole
from trackgpt.settings import parse_json
from trackgpt.types import Prompt, VisualPrompt


@dataclass(frozen=True)
class TargetPoint:
    """Where a target is on a frame.

    Attributes:
        id: of the target, from 0, as the rows number them.
        x, y: of a point in it, pixels of the video.
        occluded: it is hidden there.
    """

    id: int
    x: float
    y: float
    occluded: bool = False


@dataclass(frozen=True)
class PointFrame:
    """The targets of a frame.

    Attributes:
        frame: from 0.
        time: seconds.
        points: one per target that is there.
    """

    frame: int
    time: float
    points: tuple[TargetPoint, ...]


@dataclass(frozen=True)
class PointTracks:
    """One row: an expression and its targets over a video.

    Attributes:
        id: of the row.
        video: the name of the video.
        expression: what names the targets.
        fps: frames per second of the video; sampling_fps: of those that the row is about.
        height, width: of the video, pixels.
        n_frames: of the video.
        frames: by frame.
        more: further fields, as they are.
    """

    id: str
    video: str
    expression: str
    fps: float
    sampling_fps: float
    height: int
    width: int
    n_frames: int
    frames: tuple[PointFrame, ...]
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def said(self) -> Prompt:
        """The expression, about the first frame on which a target can be seen."""
        return Prompt(self.expression, self._first.frame)

    @property
    def shown(self) -> Prompt:
        """The targets of that frame that can be seen, as a person points at them; their numbers are from 1."""
        seen = [point for point in self._first.points if not point.occluded]
        visual = tuple(VisualPrompt(points=((point.x, point.y, 1),)) for point in seen)
        return Prompt("", self._first.frame, ids=tuple(point.id + 1 for point in seen), visual=visual)

    @property
    def _first(self) -> PointFrame:
        return next(frame for frame in self.frames if any(not point.occluded for point in frame.points))

    def as_json(self) -> dict[str, Any]:
        """The row."""
        frames = [
            {
                "frame": each.frame,
                "time": each.time,
                "points": [{"id": p.id, "point": [p.x, p.y], "occluded": p.occluded} for p in each.points],
            }
            for each in self.frames
        ]
        own = {name: getattr(self, name) for name in _PLAIN}
        return {**own, "frame_trajectories": frames, **self.more}


_PLAIN: dict[str, type] = {
    **{"id": str, "video": str, "expression": str, "fps": float, "sampling_fps": float},
    **{"height": int, "width": int, "n_frames": int},
}


def read_point_tracks(path: str | Path) -> list[PointTracks]:
    """The rows of a file of JSON Lines; blank lines count for nothing.

    Raises:
        InputError: the file cannot be read, or a line is no row; the message names the line and what was wanted.
    """
    file = Path(path)
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); wanted JSON Lines, a row per line") from error
    places = ((line, f"{file}: line {number}") for number, line in enumerate(lines, 1) if line.strip())
    return [_row(parse_json(line, where), where) for line, where in places]


def write_point_tracks(path: str | Path, rows: Iterable[PointTracks]) -> Path:
    """Write rows as JSON Lines, which `read_point_tracks` reads back equal.

    Raises:
        OutputError: OUT02.
    """
    return write_whole(Path(path), (json.dumps(row.as_json(), ensure_ascii=False) + "\n" for row in rows))


def _row(values: Any, where: str) -> PointTracks:
    """A row of its values.

    Raises:
        InputError: a field is missing or of another type, or a point lies outside of its video.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where}: a {type(values).__name__}; wanted an object with {', '.join(_PLAIN)}")
    for name, kind in _PLAIN.items():
        found: Any = values.get(name)
        number = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found) and found > 0
        fits = isinstance(found, str) and found if kind is str else number and (kind is float or found == int(found))
        if not fits:
            wanted = {str: "text", float: "a number above 0", int: "a whole number above 0"}[kind]
            raise InputError(f"{where}: {name} is {found!r:.40}; wanted {wanted}")
    plain: dict[str, Any] = {name: kind(values[name]) for name, kind in _PLAIN.items()}
    try:
        frames = tuple(map(_frame, values["frame_trajectories"]))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        wanted = 'frame_trajectories, a list of {"frame", "time", "points": [{"id", "point": [x, y], "occluded"}]}'
        raise InputError(f"{where}: no points ({error!r:.60}); wanted {wanted}") from error
    more = {name: value for name, value in values.items() if name not in (*_PLAIN, "frame_trajectories")}
    row = PointTracks(**plain, frames=frames, more=more)
    _check(row, where)
    return row


def _frame(values: Mapping[str, Any]) -> PointFrame:
    points = []
    for each in values["points"]:
        x, y = map(float, each["point"])
        points.append(TargetPoint(int(each["id"]), x, y, bool(each.get("occluded", False))))
    return PointFrame(int(values["frame"]), float(values["time"]), tuple(points))


def _check(row: PointTracks, where: str) -> None:
    """Refuse points that cannot be.

    Raises:
        InputError: see `_row`.
    """
    numbers = [each.frame for each in row.frames]
    if numbers != sorted(set(numbers)) or not numbers or not 0 <= numbers[0] <= numbers[-1] < row.n_frames:
        raise InputError(f"{where}: frames {numbers!s:.40}; wanted some of 0 to {row.n_frames - 1}, in order")
    for each in row.frames:
        ids = [point.id for point in each.points]
        outside = [p for p in each.points if not (0 <= p.x <= row.width and 0 <= p.y <= row.height and p.id >= 0)]
        if outside or len(set(ids)) != len(ids):
            shown = f"{outside[0].x:g}, {outside[0].y:g} of target {outside[0].id}" if outside else f"targets {ids}"
            wanted = f"one point per target from 0 on, within {row.width} x {row.height}"
            raise InputError(f"{where}: frame {each.frame}: {shown}; wanted {wanted}")
    if not any(not point.occluded for each in row.frames for point in each.points):
        raise InputError(f"{where}: no target can be seen on any frame; wanted one that can")
