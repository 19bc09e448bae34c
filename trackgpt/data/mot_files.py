"""Files of MOTChallenge: truth (`gt.txt`), results, `seqinfo.ini` and sequence maps.

    truth     frame,id,x,y,w,h,mark,class[,visibility]      MOT16, MOT17, MOT20, SportsMOT
              frame,id,x,y,w,h,mark,X,Y,Z                   MOT15: ten columns, no class
    results   frame,id,x,y,w,h[,score,...]                  what follows the box is not read

Frames count from 1 in files, ids from 0 or 1; x, y is the left top corner in pixels, w, h the size. Blanks may stand
around commas. Read here: frames count from 0 as positions of a list, rows of a frame stay in the order of the file.
"""

from __future__ import annotations

import configparser
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from trackgpt.data.trees import plain_name
from trackgpt.errors import InputError

_TRUTH = "frame,id,x,y,w,h,mark,class[,visibility], or ten columns as in MOT15"
_RESULTS = "frame,id,x,y,w,h[,score,...]"
_MOT15_COLUMNS = 10
_MOST_FRAMES = 10_000_000  # two days at 60 frames per second
_LARGEST = 2**53  # above it a float no longer tells integers apart


@dataclass(frozen=True)
class MotTruth:
    """Annotated boxes of one sequence, one entry per frame; every entry may be a list or an array.

    Attributes:
        ids: integers (objects,), unique within a frame, any value.
        boxes: float (objects, 4), xywh in pixels.
        classes: integers (objects,), MOTChallenge's classes 1 to 13; None: all are pedestrians (1).
        marks: integers (objects,), 0 for a box that is not to be scored; None: all are scored.
    """

    ids: Sequence[ArrayLike]
    boxes: Sequence[ArrayLike]
    classes: Sequence[ArrayLike] | None = None
    marks: Sequence[ArrayLike] | None = None


@dataclass(frozen=True)
class Tracked:
    """Boxes that a tracker reports for one sequence, one entry per frame; every entry may be a list or an array.

    Attributes:
        ids: integers (objects,), unique within a frame, any value.
        boxes: float (objects, 4), xywh in pixels.
    """

    ids: Sequence[ArrayLike]
    boxes: Sequence[ArrayLike]


@dataclass(frozen=True)
class SequenceInfo:
    """What `seqinfo.ini` says of a sequence.

    Attributes:
        name: of the sequence.
        frames: how many it has.
        width, height: of a frame in pixels; None where the file does not say.
        frame_rate: frames per second; None where the file does not say.
        image_folder: where frames lie, beside the file.
        image_suffix: of a frame's file, with the dot.
    """

    name: str
    frames: int
    width: int | None = None
    height: int | None = None
    frame_rate: float | None = None
    image_folder: str = "img1"
    image_suffix: str = ".jpg"


def read_truth(path: Path, frames: int) -> MotTruth:
    """Read `gt.txt`.

    Args:
        path: the file. Rows of 8 or 9 columns carry a class, rows of 10 (MOT15) count as pedestrians, class 1.
        frames: how many frames the sequence has, from `read_seqinfo`.

    Returns:
        Boxes of every frame, those marked 0 too; a file without rows gives frames without boxes.

    Raises:
        InputError: the file cannot be read; a row has another number of columns than wanted or than the first row,
            something else than a number, a frame outside 1 to `frames`, an id that is negative, not an integer or
            seen before in its frame. File and line are said.
    """
    table = _Table(path, frames, _TRUTH)
    for row in table.rows(fewest=8, most=_MOT15_COLUMNS):
        has_class = len(row.cells) < _MOT15_COLUMNS
        row.add(mark=row.integer(6, "mark"), label=row.integer(7, "class") if has_class else 1)
    ids, boxes, marks, labels = table.columns()
    return MotTruth(ids, boxes, classes=labels, marks=marks)


def read_results(path: Path, frames: int) -> Tracked:
    """Read what a tracker wrote.

    Args:
        path: the file; 6 columns or more.
        frames: how many frames the sequence has, from `read_seqinfo`.

    Returns:
        Boxes of every frame; an empty file gives frames without boxes.

    Raises:
        InputError: as in `read_truth`.
    """
    table = _Table(path, frames, _RESULTS)
    for row in table.rows(fewest=6, most=None):
        row.add()
    ids, boxes, _, _ = table.columns()
    return Tracked(ids, boxes)


def read_seqinfo(path: Path) -> SequenceInfo:
    """Read `seqinfo.ini`: section Sequence with name and seqLength; the other keys may be missing.

    Raises:
        InputError: the file cannot be read, the section or one of the two keys is missing, or a number is none.
    """
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(_text(path))
        section = parser["Sequence"]
        info = SequenceInfo(
            name=section["name"],
            frames=int(section["seqLength"]),
            width=section.getint("imWidth"),
            height=section.getint("imHeight"),
            frame_rate=section.getfloat("frameRate"),
            image_folder=section.get("imDir", SequenceInfo.image_folder),
            image_suffix=section.get("imExt", SequenceInfo.image_suffix),
        )
    except (configparser.Error, KeyError, ValueError) as error:
        said = " ".join(str(error).split())
        raise InputError(f"{path}: {said}; wanted a section [Sequence] with name and seqLength") from error
    if not 1 <= info.frames <= _MOST_FRAMES:
        raise InputError(f"{path}: seqLength is {info.frames}, wanted 1 to {_MOST_FRAMES}")
    return info


def read_seqmap(path: Path) -> list[str]:
    """Read a sequence map: one name per line.

    A first line "name" is a heading and is left out, as are empty lines; a file without the heading (SportsMOT's
    splits) keeps its first line, which TrackEval would drop.

    Raises:
        InputError: the file cannot be read, names no sequence, or names one twice.
    """
    found = [line.strip() for line in _text(path).splitlines()]
    names = [name for name in (found[1:] if found[:1] == ["name"] else found) if name]
    if not names:
        raise InputError(f"{path}: no sequence is named, wanted one name per line")
    twice = next((name for name, times in Counter(names).items() if times > 1), "")
    if twice:
        raise InputError(f"{path}: {twice} is named twice, wanted once")
    return [plain_name(name, path) for name in names]


class _Table:
    """Rows of a file, sorted into frames."""

    def __init__(self, path: Path, frames: int, wanted: str) -> None:
        self.path, self.frames, self.wanted = path, frames, wanted
        self.entries: list[list[tuple[int, list[float], int, int]]] = [[] for _ in range(frames)]
        self.lines: dict[tuple[int, int], int] = {}

    def rows(self, fewest: int, most: int | None) -> list[_Row]:
        found: list[_Row] = []
        for number, line in enumerate(_text(self.path).splitlines(), 1):
            if not line.strip():
                continue
            row = _Row(self, number, [cell.strip() for cell in line.strip().rstrip(",").split(",")])
            count = len(row.cells)
            if count < fewest or (most is not None and count > most):
                raise row.error(f"{count} columns")
            if found and count != len(found[0].cells):
                raise row.error(f"{count} columns, and {len(found[0].cells)} in line {found[0].number}")
            found.append(row)
        return found

    def columns(self) -> tuple[list[np.ndarray], ...]:
        ids = [np.array([entry[0] for entry in entries], np.int64) for entries in self.entries]
        boxes = [np.array([entry[1] for entry in entries], np.float64).reshape(-1, 4) for entries in self.entries]
        marks = [np.array([entry[2] for entry in entries], np.int64) for entries in self.entries]
        labels = [np.array([entry[3] for entry in entries], np.int64) for entries in self.entries]
        return ids, boxes, marks, labels


@dataclass(frozen=True)
class _Row:
    table: _Table
    number: int
    cells: list[str]

    def add(self, mark: int = 1, label: int = 1) -> None:
        frame, identity = self.integer(0, "frame"), self.integer(1, "id")
        if not 1 <= frame <= self.table.frames:
            raise self.error(f"frame {frame} of a sequence whose frames are 1 to {self.table.frames}")
        if identity < 0:
            raise self.error(f"id {identity}: a detection without a track")
        before = self.table.lines.setdefault((frame, identity), self.number)
        if before != self.number:
            raise self.error(f"id {identity} in frame {frame} a second time, first in line {before}")
        box = [self.value(column, name) for column, name in enumerate("xywh", 2)]
        self.table.entries[frame - 1].append((identity, box, mark, label))

    def value(self, column: int, name: str) -> float:
        try:
            found = float(self.cells[column])
        except ValueError as error:
            raise self.error(f"{name} is {self.cells[column]!r}, no number") from error
        if not np.isfinite(found):
            raise self.error(f"{name} is {found}")
        return found

    def integer(self, column: int, name: str) -> int:
        found = self.value(column, name)
        if found != int(found) or abs(found) > _LARGEST:
            raise self.error(f"{name} is {found}, no integer")
        return int(found)

    def error(self, found: str) -> InputError:
        return InputError(f"{self.table.path}, line {self.number}: {found}; wanted {self.table.wanted}")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; wanted a text file of MOTChallenge") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not text ({error.reason}); wanted a text file of MOTChallenge") from error
