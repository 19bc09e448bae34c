"""Rows of a describer's training: two frames of a video, words for a target, and what is known of the right answer.

    records    of Event-AHU/Open_VLTrack: a teacher's answer about two frames. Where `data.json` lies beside the
               images, the target's box is drawn on the first frame
    pairs      of SynthTrack: the right decision, words that are true, and the frames that follow
    sets       real video with boxes and words, in the layouts of the box benchmarks: no answer is known, and what
               follows says whether new words are better

Frames are read or drawn when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from trackgpt.data.box_video import BoxSequence
from trackgpt.data.trees import entries, read_json, read_object
from trackgpt.data.videos import read_image
from trackgpt.errors import InputError
from trackgpt.reasoners.describer import TEMPLATE, DescriberTemplate, messages, record_of, with_box, written
from trackgpt.synthtrack.clips import frame_size
from trackgpt.synthtrack.render import boxes_of, render
from trackgpt.types import Box
from train.synthtrack_pairs import LONGEST_SIDE, ScenePair, scene_pair

PAIR_FILE = "data.json"
"""Beside the images of a record: boxes as "x,y,w,h"."""
REMEMBERED = 4096
"""SynthTrack's pairs that are kept, without their frames, once they are found."""
TRIES = 32
"""Sequences that are looked at for a pair with a target before it is given up."""


class TrackedWindow(NamedTuple):
    """What a tracker is given to follow a target behind the second frame of a pair.

    Attributes:
        first: uint8 RGB (height, width, 3), the first frame, which shows the target.
        shown: its box there, xyxy pixels.
        place: its box on the second frame, where it is looked for next.
        frames: uint8 RGB (height, width, 3) each, those after the second one.
        boxes: float32 (frames, 4), xyxy pixels on them; NaN where it is not visible.
    """

    first: np.ndarray
    shown: Box
    place: Box
    frames: tuple[np.ndarray, ...]
    boxes: np.ndarray


@dataclass(frozen=True)
class DescriptionRow:
    """One question.

    Attributes:
        words: the description so far.
        drawn: the target's box is drawn on the first frame.
        frames: gives the two frames as they are shown, uint8 RGB (height, width, 3).
        answer: that is right; empty where none is known.
        outdated: the words no longer hold; None where that is not known.
        fitting: words that hold on the second frame, as far as they are known.
        window: gives what follows; None where nothing does.
        template: how the model is asked.
    """

    words: str
    drawn: bool
    frames: Callable[[], tuple[np.ndarray, np.ndarray]]
    answer: str = ""
    outdated: bool | None = None
    fitting: tuple[str, ...] = ()
    window: Callable[[], TrackedWindow] | None = None
    template: DescriberTemplate = TEMPLATE

    @property
    def asked(self) -> str:
        """The description so far."""
        return self.words

    def prompt(self) -> list[dict[str, Any]]:
        """The conversation that puts the question; its images are placeholders."""
        return messages(self.words, self.drawn, self.template)

    def completion(self) -> str:
        """The answer that is right."""
        return self.answer

    def pictures(self) -> list[Image.Image]:
        """The two frames.

        Raises:
            InputError: a file is missing or damaged.
        """
        return [Image.fromarray(frame) for frame in self.frames()]


class AskedRows(Sequence[DescriptionRow]):
    """Rows as one model is asked them.

    Args:
        rows: of any.
        template: how.
    """

    def __init__(self, rows: Sequence[DescriptionRow], template: DescriberTemplate) -> None:
        self.rows, self.template = rows, template

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: Any) -> Any:
        """The row of a number."""
        return replace(self.rows[number], template=self.template)


# Released records


def record_rows(folder: str | Path, images: str | Path, draw: bool) -> tuple[list[DescriptionRow], list[str]]:
    """Rows of the released records, and the names of those whose answers have not the form that is asked for.

    Args:
        folder: with their files, *.json, each a list.
        images: the folder that holds what the records call "/your_root_path"; empty leaves paths as they are written.
        draw: draw boxes, where they are known.

    Raises:
        InputError: there are none, or one is no record.
    """
    files = entries(Path(folder), "*.json")
    if not files:
        raise InputError(f"{folder}: no records; wanted files *.json, as Event-AHU/Open_VLTrack has them")
    rows, malformed = [], []
    for file in files:
        listed = read_json(file)
        if not isinstance(listed, list):
            raise InputError(f"{file}: wanted a list of records")
        for number, record in enumerate(listed):
            where = f"{file.name}:{number}"
            words, parsed = record_of(record, where)
            if not parsed.strict:
                malformed.append(where)
                continue
            pair = [_moved(path, images) for path in _two_paths(record, where)]
            box = _first_box(pair[0].with_name(PAIR_FILE)) if draw else None
            frames = partial(_of_files, *pair, box)
            rows.append(DescriptionRow(words, box is not None, frames, record["output"].strip(), parsed.update))
    return rows, malformed


def _two_paths(record: Mapping[str, Any], where: str) -> list[str]:
    paths = record.get("images")
    if not (isinstance(paths, list) and len(paths) == 2 and all(isinstance(path, str) for path in paths)):
        raise InputError(f"{where}: wanted `images`, two paths")
    return paths


def _moved(path: str, images: str | Path) -> Path:
    """A path of a record below another root: set, sample and file are kept."""
    return Path(images, *Path(path).parts[-3:]) if images else Path(path)


def _first_box(file: Path) -> Box | None:
    if not file.is_file():
        return None
    said = read_object(file).get("img1_groundtruth")
    try:
        x, y, w, h = (float(part) for part in str(said).split(","))
    except ValueError as error:
        raise InputError(f"{file}: img1_groundtruth is {said!r}; wanted x,y,w,h") from error
    return x, y, x + w, y + h


def _of_files(before: Path, now: Path, box: Box | None) -> tuple[np.ndarray, np.ndarray]:
    first = read_image(before)
    return first if box is None else with_box(first, box), read_image(now)


# SynthTrack


@dataclass(frozen=True)
class PairRows(Sequence[DescriptionRow]):
    """Rows of SynthTrack's pairs; each is found when it is asked for.

    Attributes:
        total: rows.
        split: "train" or "test".
        gap: most frames from the first to the second.
        follow: frames of a window.
        draw: draw boxes.
    """

    total: int
    split: str
    gap: int
    follow: int
    draw: bool

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, number: Any) -> Any:
        """The row of a number.

        Raises:
            InputError: no scene has a pair for it.
        """
        if not 0 <= number < self.total:
            raise IndexError(number)
        pair = _kept_pair(number, self.split, self.gap, self.follow)
        return DescriptionRow(
            pair.words,
            self.draw,
            partial(_of_scene, pair, self.draw),
            written(pair.outdated, pair.renewed, pair.thought()),
            pair.outdated,
            pair.fitting,
            partial(_after_scene, pair, self.follow),
        )


@lru_cache(REMEMBERED)
def _kept_pair(seed: int, split: str, gap: int, follow: int) -> ScenePair:
    return scene_pair(seed, split, gap, follow + 1)


def _of_scene(pair: ScenePair, draw: bool) -> tuple[np.ndarray, np.ndarray]:
    first, second = pair.frames()
    return with_box(first, pair.box) if draw else first, second


def _after_scene(pair: ScenePair, follow: int) -> TrackedWindow:
    size = frame_size(pair.scene.aspect, LONGEST_SIDE)
    drawn = [render(pair.scene, t, *size) for t in range(pair.second, pair.second + follow + 1)]
    boxes = [boxes_of(ids).get(pair.target, (np.nan,) * 4) for _, ids in drawn]
    frames = tuple(frame for frame, _ in drawn[1:])
    first, _ = pair.frames()
    return TrackedWindow(first, pair.box, boxes[0], frames, np.array(boxes[1:], np.float32))


# Real video


@dataclass(frozen=True)
class VideoRows(Sequence[DescriptionRow]):
    """Rows of real video, drawn anew for each number; each is found when it is asked for.

    Attributes:
        sets: sequences of each set; every set is as likely as another.
        total, gap, follow, draw: see `PairRows`.
    """

    sets: tuple[tuple[BoxSequence, ...], ...]
    total: int
    gap: int
    follow: int
    draw: bool

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, number: Any) -> Any:
        """The row of a number.

        Raises:
            InputError: a file is missing or damaged, or no target with words is visible on two frames.
        """
        if not 0 <= number < self.total:
            raise IndexError(number)
        rng = np.random.default_rng([number, 919])
        sequence = None
        for _ in range(TRIES):
            sequences = self.sets[int(rng.integers(len(self.sets)))]
            sequence = sequences[int(rng.integers(len(sequences)))]
            video = sequence.video()
            if not video.images or video.boxes is None:
                raise InputError(f"{sequence.images}: no frames; unpack them to train on them")
            words = video.expressions[0].text.strip() if video.expressions else ""
            chosen = self._chosen(rng, np.isfinite(video.boxes).all(axis=1))
            if words and chosen is not None:
                return self._row(words, video.images, video.boxes, *chosen)
        raise InputError(f"{sequence.boxes if sequence else ''}: no target with words on two frames in {TRIES} tries")

    def _chosen(self, rng: np.random.Generator, seen: np.ndarray) -> tuple[int, int] | None:
        """Two frames on which the target is visible, with a whole window behind them."""
        visible = np.flatnonzero(seen[: len(seen) - self.follow])
        if len(visible) < 2:
            return None
        place = int(rng.integers(len(visible) - 1))
        last = int(np.searchsorted(visible, visible[place] + self.gap, side="right")) - 1
        return None if last <= place else (int(visible[place]), int(visible[rng.integers(place + 1, last + 1)]))

    def _row(self, words: str, images: Sequence[Path], boxes: np.ndarray, first: int, second: int) -> DescriptionRow:
        shown, place = (tuple(float(side) for side in boxes[t]) for t in (first, second))
        after = slice(second + 1, second + 1 + self.follow)
        window = partial(_of_video, images[first], shown, place, tuple(images[after]), boxes[after])
        frames = partial(_of_files, images[first], images[second], shown if self.draw else None)
        return DescriptionRow(words, self.draw, frames, window=window)


def _of_video(first: Path, shown: Box, place: Box, frames: tuple[Path, ...], boxes: np.ndarray) -> TrackedWindow:
    return TrackedWindow(read_image(first), shown, place, tuple(read_image(path) for path in frames), boxes)
