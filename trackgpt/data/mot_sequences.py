"""MOTChallenge trees: MOT15, MOT16, MOT17, MOT20, SportsMOT, DanceTrack.

    <root>/<split>/<sequence>/{seqinfo.ini,gt/gt.txt,img1}     a split may be called "sportsmot-val", "MOT17-train"
    <root>/seqmaps/<split>.txt                                  its names, where the authors list them
    <root>/<split>/<sequence>/queries.json                      ours: what is asked about it (`read_queries`)

The files themselves are read by `trackgpt.data.mot_files`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trackgpt.data.mot_files import MotTruth, SequenceInfo, read_seqinfo, read_seqmap, read_truth
from trackgpt.data.trees import Tree, entries, find_tree, listing, read_json
from trackgpt.errors import InputError

SPLITS = ("train", "val", "test")
TREE = Tree(
    "mot",
    ("MOT15", "MOT16", "MOT17", "MOT20", "SportsMOT", "DanceTrack", "mot"),
    ("*/*/seqinfo.ini",),
    SPLITS,
)


@dataclass(frozen=True)
class MotSequence:
    """One sequence; its files are read when they are asked for.

    Attributes:
        name: of its folder, after which result files are named.
        folder: its folder.
    """

    name: str
    folder: Path

    def info(self) -> SequenceInfo:
        """seqinfo.ini.

        Raises:
            InputError: it is missing or malformed.
        """
        return read_seqinfo(self.folder / "seqinfo.ini")

    def truth(self) -> MotTruth:
        """gt/gt.txt.

        Raises:
            InputError: it is missing or malformed.
        """
        return read_truth(self.folder / "gt/gt.txt", self.info().frames)

    def images(self) -> tuple[Path, ...]:
        """The frames, in order.

        Raises:
            InputError: there are less or more than seqinfo.ini says.
        """
        info = self.info()
        folder = self.folder / info.image_folder
        found = entries(folder, f"*{info.image_suffix}")
        if len(found) != info.frames:
            raise InputError(f"{folder}: {len(found)} frames *{info.image_suffix}, wanted {info.frames}")
        return tuple(found)


QUERIES = "queries.json"
SEGMENT = 30
"""Frames of a segment where nobody has said what to ask: a second of MOT17."""


@dataclass(frozen=True)
class QuerySegment:
    """A part of a sequence in which some of its objects are asked about (QTrack, appendix E).

    Attributes:
        sequence: it is of.
        frames: positions of its frames in the sequence, from 0; the first one is the reference.
        ids: of the objects that are meant.
        question: what is asked of the reference; empty where nobody has said it, and only boxes can begin a track.
    """

    sequence: MotSequence
    frames: range
    ids: tuple[int, ...]
    question: str = ""

    @property
    def name(self) -> str:
        """Usable as a file's name: the sequence, the reference counted from 1, and the objects."""
        return f"{self.sequence.name}-{self.frames[0] + 1:06d}-{'_'.join(map(str, self.ids))}"

    def truth(self) -> MotTruth:
        """The objects that are meant, in the frames of the segment.

        Raises:
            InputError: gt/gt.txt is missing or malformed.
        """
        whole = self.sequence.truth()
        ids, boxes = [], []
        for frame in self.frames:
            numbers = np.asarray(whole.ids[frame])
            meant = np.isin(numbers, self.ids)
            ids.append(numbers[meant])
            boxes.append(np.asarray(whole.boxes[frame])[meant])
        return MotTruth(ids, boxes)


def query_segments(sequence: MotSequence) -> tuple[QuerySegment, ...]:
    """What is asked about a sequence: as its `queries.json` says, or else an object of every `SEGMENT` frames.

    The real sets have no questions. An object is then the largest pedestrian that is to be scored, on the first frame
    of a segment, of those that are on the last one too; a segment without one is left out.

    Raises:
        InputError: a file is missing or malformed.
    """
    if (sequence.folder / QUERIES).is_file():
        return read_queries(sequence)
    truth, frames = sequence.truth(), sequence.info().frames
    found = []
    for begin in range(0, frames - SEGMENT + 1, SEGMENT):
        segment = range(begin, begin + SEGMENT)
        number = _largest(truth, segment)
        found += [] if number is None else [QuerySegment(sequence, segment, (number,))]
    return tuple(found)


def _largest(truth: MotTruth, frames: range) -> int | None:
    """The object of a segment that nobody has asked about."""
    first, last = frames[0], frames[-1]
    ids, boxes = np.asarray(truth.ids[first]), np.asarray(truth.boxes[first]).reshape(-1, 4)
    scored = np.isin(ids, np.asarray(truth.ids[last]))
    for labels in (truth.classes, truth.marks):
        scored &= True if labels is None else np.asarray(labels[first]) == 1
    areas = np.where(scored, boxes[:, 2:].prod(axis=1), 0)
    return int(ids[areas.argmax()]) if len(areas) and areas.max() > 0 else None


def read_queries(sequence: MotSequence) -> tuple[QuerySegment, ...]:
    """`queries.json`: a list of {"question", "track_ids", "frame", "frames"}, the reference counted from 1.

    Raises:
        InputError: it is missing or no such list, or means frames or objects that are not there.
    """
    path = sequence.folder / QUERIES
    items, last = read_json(path), sequence.info().frames
    if not isinstance(items, list):
        raise InputError(f"{path}: holds a {type(items).__name__}, wanted a list of questions")
    return tuple(_segment(path, place, item, sequence, last) for place, item in enumerate(items))


def _segment(path: Path, place: int, item: Any, sequence: MotSequence, last: int) -> QuerySegment:
    values = item if isinstance(item, dict) else {}
    question, ids = values.get("question"), values.get("track_ids")
    frame, frames = values.get("frame"), values.get("frames")
    named = isinstance(ids, list) and bool(ids) and all(type(number) is int for number in ids)
    if (
        not isinstance(question, str)
        or not (isinstance(ids, list) and named and len(set(ids)) == len(ids))
        or not (isinstance(frame, int) and isinstance(frames, int) and 1 <= frame <= frame + frames - 1 <= last)
    ):
        wanted = f'{{"question": "...", "track_ids": [7, 9], "frame": 1, "frames": 2}} among frames 1 to {last}'
        raise InputError(f"{path}: question {place} is {str(item)[:80]}; wanted {wanted}")
    return QuerySegment(sequence, range(frame - 1, frame - 1 + frames), tuple(ids), question.strip())


@dataclass(frozen=True)
class MotPart:
    """A split.

    Attributes:
        sequences: those with a truth here, in the order of the sequence map, else by name.
        missing: in the sequence map, but without a truth here.
    """

    sequences: tuple[MotSequence, ...]
    missing: tuple[str, ...] = ()


def mot(root: str | Path, split: str) -> MotPart:
    """The sequences of a split.

    Args:
        root: the tree, or the folder above it.
        split: "train", "val" or "test".

    Raises:
        UsageError: another split.
        InputError: the tree or the split is missing, or none of its sequences has a truth.
    """
    TREE.check_part(split)
    top = find_tree(TREE, root)
    folders = [folder for folder in entries(top) if folder.is_dir() and _is(folder.name, split)]
    if len(folders) != 1:
        found = ", ".join(folder.name for folder in folders) or f"none among {listing(top)}"
        raise InputError(f"{top}: wanted one folder called {split} or ...-{split}, found {found}")
    here = {path.parents[1].name: path.parents[1] for path in entries(folders[0], "*/gt/gt.txt")}
    if not here:
        raise InputError(f"{folders[0]}: no sequence with gt/gt.txt; it holds {listing(folders[0])}")
    maps = [path for path in entries(top / "seqmaps", "*.txt") if _is(path.stem, split)]
    if len(maps) > 1:
        raise InputError(f"{maps[0]} and {maps[1].name} each list {split!r}; wanted one list; move the other away")
    names = read_seqmap(maps[0]) if maps else list(here)
    found_here = [name for name in names if name in here]
    if not found_here:
        raise InputError(f"{maps[0]}: none of its {len(names)} sequences is in {folders[0]}")
    return MotPart(tuple(MotSequence(n, here[n]) for n in found_here), tuple(n for n in names if n not in here))


def _is(name: str, split: str) -> bool:
    return name == split or name.endswith(f"-{split}")
