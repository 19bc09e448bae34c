"""Rows of a policy's training: a question about frames of a clip, the answer that is right, and what it is judged by.

One clip of RMOT26 gives one row of our protocol, its reference with the frames after it, or one for every so many
frames as the reference; or, by the paper's, one row for every frame, shown beside the reference. Files are read when a
row is asked for. A tracker's next question knows what its last answer said: `jitter` shows a model places that are as
wrong as its own answers are.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trackgpt.data.query_clips import QueryClip, frame_number
from trackgpt.data.videos import read_image
from trackgpt.reasoners.coordinates import Convention, Sizes, placed
from trackgpt.reasoners.policy import Query, Trajectories, asked_frames, messages, render, written
from trackgpt.reasoners.templates import clean_instruction
from trackgpt.types import Box
from train.rewards import Expected

Size = tuple[int, int]
Boxes = dict[int, Box]


@dataclass(frozen=True)
class QueryRow:
    """One question.

    Attributes:
        images: files of the frames that are shown, the reference first.
        query: the words, and where their objects are on the reference, where that is said.
        expected: the truth, as exactly as the model can write it.
        ids: of its objects.
        paper: by the paper's protocol (see `trackgpt.reasoners.policy`).
        template: the model's own question, if it has one (see `trackgpt.reasoners.policy.messages`).
    """

    images: tuple[Path, ...]
    query: Query
    expected: Expected
    ids: tuple[int, ...]
    paper: bool
    template: str = ""

    @property
    def asked(self) -> str:
        """Its words."""
        return self.query.words

    def prompt(self) -> list[dict[str, Any]]:
        """The conversation that puts the question; its images are placeholders."""
        view, convention = self.expected.view, self.expected.convention
        return messages(len(self.images), self.query, view, convention, self.paper, self.template)

    def completion(self) -> str:
        """The answer that is right."""
        expected = self.expected
        tracks = Trajectories(expected.frames, self.ids, expected.truth)
        return render(tracks, expected.view, expected.convention, self.paper)

    def pictures(self) -> list[Image.Image]:
        """The frames.

        Raises:
            InputError: a file is missing or damaged.
        """
        return [Image.fromarray(read_image(path)) for path in self.images]


@dataclass(frozen=True)
class RowMaker:
    """How clips become rows.

    Attributes:
        convention: in which numbers the model writes boxes.
        view: of a frame's width and height in pixels, these and the size of the copy that the model sees.
        paper: by the paper's protocol.
        frames: most frames of a row after the reference; those that follow are left out. 0 asks about one frame alone.
        known: share of the questions that say where the objects are on the reference; none by the paper's protocol.
            Others ask about all frames; where some do and some do not, these show any number after the reference, also
            none, as a track begins with one frame.
        stride: frames from the reference of one row to that of the next; 0 for the clip's own reference alone. Words
            stay those that were said of the clip's own reference: where things have moved they may fit another.
        jitter: how far the places that a question says are off, as a share of a box's sides: the deviation of its
            centre and of the logarithm of its size. Truth stays as it is.
        template: see `QueryRow`.
        seed: of what is drawn.
    """

    convention: Convention
    view: Callable[[Size], Sizes]
    paper: bool = False
    frames: int = 8
    known: float = 1.0
    stride: int = 0
    jitter: float = 0.0
    template: str = ""
    seed: int = 0

    def rows(self, clips: Iterable[QueryClip]) -> list[QueryRow]:
        """All rows of some clips, in order; frames on which nothing is visible give none by the paper's protocol.

        Raises:
            InputError: a reference cannot be read.
        """
        return [row for clip in clips for row in (self._of_pairs(clip) if self.paper else self._of_windows(clip))]

    def _of_windows(self, clip: QueryClip) -> list[QueryRow]:
        window = _Window(clip, self)
        rng = np.random.default_rng([self.seed, zlib.crc32(clip.name.encode())])
        begins = range(0, max(len(window.images) - 1, 1), self.stride) if self.stride else (0,)
        return [self._of_window(window, begin, rng) for begin in begins]

    def _of_window(self, window: _Window, begin: int, rng: np.random.Generator) -> QueryRow:
        """The row whose reference is a frame of a window."""
        count = min(len(window.images) - begin, self.frames + 1)
        first = {each: window.boxes[begin].get(each) for each in window.ids}
        told = rng.random() < self.known and any(first.values())
        if not told and 0 < self.known < 1:
            count = int(rng.integers(1, count + 1))
        shown = {each: None if box is None else self._off(box, window.view, rng) for each, box in first.items()}
        query = Query(window.words, tuple(shown.items()) if told else ())
        frames = asked_frames(count, query)
        before = window.boxes[begin] if frames[0] else {}
        boxes = window.boxes[begin + frames[0] : begin + count]
        return window.row(list(range(begin, begin + count)), query, frames, boxes, before)

    def _off(self, box: Box, view: Sizes, rng: np.random.Generator) -> Box:
        """A box as wrong as `jitter` says, of which something is left on the frame."""
        if not self.jitter:
            return box
        corners = np.array(box)
        sides, centre = corners[2:] - corners[:2], (corners[:2] + corners[2:]) / 2
        centre = np.clip(centre + rng.normal(0, self.jitter, 2) * sides, 0, view.size)
        sides = sides * np.exp(rng.normal(0, self.jitter, 2)) / 2
        x1, y1 = np.maximum(centre - sides, 0)
        x2, y2 = np.minimum(centre + sides, view.size)
        return (float(x1), float(y1), float(x2), float(y2)) if x2 - x1 >= 1 and y2 - y1 >= 1 else box

    def _of_pairs(self, clip: QueryClip) -> list[QueryRow]:
        window = _Window(clip, self)
        query = Query(window.words)
        return [
            window.row([0, t], query, asked_frames(2, query, paper=True), window.boxes[t : t + 1], window.boxes[t - 1])
            for t in range(1, len(window.images))
            if window.boxes[t]
        ]


class _Window:
    """The frames of a clip with the true boxes of every object on each, as the model can write them."""

    def __init__(self, clip: QueryClip, maker: RowMaker) -> None:
        self.maker = maker
        self.words = clean_instruction(clip.question)
        self.images = clip.video().images
        height, width = read_image(self.images[0]).shape[:2]
        self.view = maker.view((width, height))
        self.ids = tuple(range(1, len(clip.objects) + 1))
        numbers = [frame_number(image) for image in self.images]
        self.boxes: list[Boxes] = [{} for _ in numbers]
        for each, found in zip(self.ids, clip.objects, strict=True):
            if found.initial_box is not None:
                self._put(0, each, found.initial_box)
            for number, box in zip(found.frames, found.boxes, strict=True):
                if number in numbers and np.isfinite(box).all():
                    self._put(numbers.index(number), each, box)

    def _put(self, frame: int, each: int, xywh: np.ndarray) -> None:
        x, y, w, h = map(float, xywh)
        width, height = self.view.size
        box = (max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height)))
        if box[0] >= box[2] or box[1] >= box[3]:
            return  # outside the image, where no answer can put it
        numbers = tuple(map(float, written(box, self.view, self.maker.convention)))
        self.boxes[frame][each] = placed(numbers, self.maker.convention, self.view) or box

    def row(
        self, shown: Sequence[int], query: Query, frames: tuple[int, ...], boxes: Sequence[Boxes], before: Boxes
    ) -> QueryRow:
        """A row that shows some frames, and asks for the boxes of objects on the last of them."""
        ids = tuple(each for each in self.ids if any(each in on for on in boxes))
        truth = np.array([[_or_nan(on, each) for on in boxes] for each in ids]).reshape(len(ids), len(frames), 4)
        start = np.array([_or_nan(before, each) for each in ids]).reshape(len(ids), 4)
        expected = Expected(frames, truth, start, self.view, self.maker.convention, ids if query.known else ())
        images = tuple(self.images[t] for t in shown)
        return QueryRow(images, query, expected, ids, self.maker.paper, self.maker.template)


def _or_nan(boxes: Mapping[int, Box], each: int) -> Sequence[float]:
    return boxes.get(each, (np.nan,) * 4)
