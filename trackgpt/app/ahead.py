"""Frames encoded before their turn. An encoder does not depend on the track, so results are those of frame by frame.

A rethink on the way costs nothing either: the brain reads the image that travels with what was encoded of it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import Any

import numpy as np

from trackgpt.errors import UsageError
from trackgpt.video.frames import FrameSource, SourceFrame

AHEAD = 2
"""Frames read and encoded ahead by default, where a thread of its own pays."""

Encode = Callable[[Sequence[np.ndarray]], Sequence[Any]]


@dataclass(frozen=True)
class Lookahead:
    """How far reading and encoding may run before tracking; the first frame comes as soon as without.

    Attributes:
        batch: frames in one call of the encoder, after the first. Other numbers of frames may round otherwise: nano's
            features are equal to the bit on an AVX-512 CPU, else within 1e-5 of the largest. 1 changes nothing.
        frames: how many are read and encoded in a thread of their own while others are tracked; 0 uses no thread.
    """

    batch: int = 1
    frames: int = 0

    def __post_init__(self) -> None:
        if self.batch < 1 or self.frames < 0:
            raise UsageError(f"look-ahead: batch {self.batch}, frames {self.frames}; wanted batch >= 1, frames >= 0")

    def over(self, source: FrameSource, encode: Encode) -> EncodedSource:
        """The frames of a source, encoded."""
        early = self.batch > 1 or self.frames > 0
        return EncodedSource(encoded(source, encode, self.batch) if early else source, self.frames)


def default_lookahead(source: FrameSource) -> Lookahead:
    """A thread for a file or folder where there is a core for it, and nothing for what is live; never batches.

    On two cores it makes PyTorch with one thread a fifth faster and PyTorch with two threads slower (`python -m eval
    speed --only online`).
    """
    import torch

    free = (os.cpu_count() or 1) > min(2, torch.get_num_threads())
    return Lookahead(frames=AHEAD if free and source.kind in ("file", "folder") else 0)


def seen(frame: SourceFrame) -> Any:
    """The frame as `ReasoningTracker` takes it: encoded where it has been, else its image."""
    return frame.image if frame.encoded is None else frame.encoded


class EncodedSource:
    """An iterator of frames that runs `frames` ahead in one thread, or not at all ahead for 0.

    What goes wrong in the thread is raised where the frame would have come.
    """

    def __init__(self, items: Iterator[SourceFrame], frames: int) -> None:
        self._items = items
        self._frames = frames
        self._thread = ThreadPoolExecutor(1, "trackgpt-ahead") if frames else None
        self._coming: deque[Future[SourceFrame]] = deque()

    def __iter__(self) -> Iterator[SourceFrame]:
        return self

    def __next__(self) -> SourceFrame:
        if self._thread is None:
            return next(self._items)
        while len(self._coming) <= self._frames:
            self._coming.append(self._thread.submit(next, self._items))
        return self._coming.popleft().result()

    def close(self) -> None:
        """Stop reading; a frame that is being encoded is waited for. Closing twice is allowed."""
        self._items = iter(())
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            self._thread = None


def encoded(frames: Iterator[SourceFrame], encode: Encode, batch: int) -> Iterator[SourceFrame]:
    """The first frame alone, then `batch` at a time, each with what `encode` gives for its image.

    When reading fails, the frames before the failure come first.
    """
    for size in chain([1], repeat(batch)):
        group, failure = _taken(frames, size)
        images = [frame.image for frame in group if frame.image is not None]
        made = iter(encode(images) if images else ())
        for frame in group:
            yield frame if frame.image is None else replace(frame, encoded=next(made))
        if failure is not None:
            raise failure
        if len(group) < size:
            return


def _taken(frames: Iterator[SourceFrame], size: int) -> tuple[list[SourceFrame], Exception | None]:
    """Up to `size` frames, and what stopped the reading of more."""
    group: list[SourceFrame] = []
    try:
        while len(group) < size:
            group.append(next(frames))
    except StopIteration:
        return group, None
    except Exception as failure:
        return group, failure
    return group, None
