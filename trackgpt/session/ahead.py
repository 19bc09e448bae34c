"""Frames encoded before their turn. An encoder does not depend on the track, so results are those of frame by frame.

A background thread encodes ahead, and the consumer helps instead of idling. Each computes with half of PyTorch's
threads, because small convolutions on one thread each keep two cores busier than one convolution on two. A rethink on
the way costs nothing either: the slow model reads the image that travels with what was encoded of it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain, repeat
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from trackgpt.errors import UsageError
from trackgpt.video.frames import FrameSource, SourceFrame

AHEAD = 4
"""Frames read and encoded ahead by default, where a thread of its own pays."""

Encode = Callable[[Sequence[np.ndarray]], Sequence[Any]]


@dataclass(frozen=True)
class Lookahead:
    """How far reading and encoding may run before tracking; the first frame comes as soon as without.

    Attributes:
        batch: frames in one call of the encoder, after the first. Other numbers of frames may round otherwise: nano's
            features are equal to the bit on an AVX-512 CPU, else within 1e-5 of the largest. 1 changes nothing.
        frames: how many are read and encoded while others are tracked, in a thread of their own and wherever the next
            one would be waited for; 0 uses no thread. Otherwise PyTorch computes with half of its threads while a
            frame is worked on, which may round the brain's queries otherwise, by 1e-6 of the largest.
    """

    batch: int = 1
    frames: int = 0

    def __post_init__(self) -> None:
        if self.batch < 1 or self.frames < 0:
            raise UsageError(f"look-ahead: batch {self.batch}, frames {self.frames}; wanted batch >= 1, frames >= 0")

    def over(self, source: Iterator[SourceFrame], encode: Encode | None) -> EncodedSource:
        """The frames of a source, encoded where anything is done early; without `encode` they are read early alone."""
        return EncodedSource(source, encode, self)


def default_lookahead(source: FrameSource) -> Lookahead:
    """Encode ahead for a file or folder where there are two cores, and nothing for what is live; never batch.

    Measured by `python -m eval speed --only online`.
    """
    several = (os.cpu_count() or 1) > 1
    return Lookahead(frames=AHEAD if several and source.kind in ("file", "folder", "animation") else 0)


def lookahead_of(batch: int, frames: int | None) -> Lookahead | None:
    """The look-ahead that was asked for; None where nothing was, so that the source decides.

    Raises:
        UsageError: see `Lookahead`.
    """
    if batch == 1 and frames is None:
        return None
    return Lookahead(batch, frames or 0)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """This thread computes with so many PyTorch threads in here, and with as many as before outside."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Unit(NamedTuple):
    """Frames that go through the encoder together, in order, and what ended the reading after them, if anything did."""

    frames: list[SourceFrame]
    failure: Exception | None


class EncodedSource:
    """An iterator of frames that are encoded ahead, as a `Lookahead` says.

    Units are read one after the other and encoded by the thread or by the consumer. What goes wrong in reading or
    encoding is raised where the frame would have come, and ends the iteration.
    """

    def __init__(self, frames: Iterator[SourceFrame], encode: Encode | None, lookahead: Lookahead) -> None:
        self._frames = frames
        self._encode = encode if lookahead.batch > 1 or lookahead.frames else None
        self._sizes = chain([1], repeat(lookahead.batch))
        self._most = max(1, -(-lookahead.frames // lookahead.batch))
        self._reading = Lock()
        self._coming: deque[Future[Unit]] = deque()
        self._ready: deque[SourceFrame] = deque()
        self._failure: Exception | None = None
        self._ended = False
        self._thread: ThreadPoolExecutor | None = None
        self._lane: Future[None] | None = None
        self._share = 0
        if lookahead.frames:
            import torch

            # Where nothing is encoded early, the consumer alone computes.
            self._share = max(1, torch.get_num_threads() // (1 if encode is None else 2))
            self._thread = ThreadPoolExecutor(1, "trackgpt-ahead")

    def __iter__(self) -> Iterator[SourceFrame]:
        return self

    def __next__(self) -> SourceFrame:
        while not self._ready:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            unit = self._awaited()
            if unit is None:
                raise StopIteration
            self._ready.extend(unit.frames)
            self._failure = unit.failure
        return self._ready.popleft()

    def sharing(self) -> AbstractContextManager[None]:
        """Where the consumer computes, so that half of PyTorch's threads are left to the one that encodes ahead."""
        return nullcontext() if self._thread is None else threads(self._share)

    def close(self) -> None:
        """Stop reading; a frame that is being encoded is waited for. Closing twice is allowed."""
        self._ended = True
        self._ready.clear()
        self._failure = None
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        self._coming.clear()

    def _awaited(self) -> Unit | None:
        """The next unit, encoded; None at the end. Whoever waits for it encodes what comes after it."""
        while not (self._coming and self._coming[0].done()):
            if self._work():
                continue
            if not self._coming:
                return None
            self._coming[0].exception()  # waits
        try:
            unit = self._coming.popleft().result()
        except BaseException:
            self._ended = True
            self._coming.clear()
            raise
        if self._thread is not None and (self._lane is None or self._lane.done()):
            self._lane = self._thread.submit(self._work_while_there_is_room)
        return unit

    def _work_while_there_is_room(self) -> None:
        with threads(self._share):
            while self._work():
                pass

    def _work(self) -> bool:
        """Read and encode one more unit; False where the source has ended or enough is on its way."""
        with self._reading:
            if self._ended or len(self._coming) >= self._most:
                return False
            size = next(self._sizes)
            unit = _taken(self._frames, size)
            self._ended = self._ended or len(unit.frames) < size
            if not unit.frames and unit.failure is None:
                return False
            future: Future[Unit] = Future()
            self._coming.append(future)
        try:
            future.set_result(unit if self._encode is None else _encoded(unit, self._encode))
        except BaseException as error:
            future.set_exception(error)
            if not isinstance(error, Exception):
                raise  # an interrupt is meant now, not when the frame's turn comes
        return True


def _taken(frames: Iterator[SourceFrame], size: int) -> Unit:
    """Up to `size` frames, and what stopped the reading of more."""
    taken: list[SourceFrame] = []
    try:
        while len(taken) < size:
            taken.append(next(frames))
    except StopIteration:
        return Unit(taken, None)
    except Exception as failure:
        return Unit(taken, failure)
    return Unit(taken, None)


def _encoded(unit: Unit, encode: Encode) -> Unit:
    """The unit with what `encode` gives for its images."""
    images = [frame.image for frame in unit.frames if frame.image is not None]
    made = iter(encode(images) if images else ())
    frames = [frame if frame.image is None else replace(frame, encoded=next(made)) for frame in unit.frames]
    return unit._replace(frames=frames)
