"""What every source of frames is: `SourceFrame` after `SourceFrame`, in order, with the source's own index and time.

Conventions: images are uint8 RGB, (height, width, 3), upright (rotation metadata applied); indices start at 0; times
are seconds since the source's first frame, strictly increasing, from timestamps where the source has them; sizes are
(height, width), and read "width x height" in messages.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from trackgpt.errors import InputError, UsageError

SourceKind = Literal["file", "folder", "animation", "pipe", "stream", "camera", "array"]

DEFAULT_FPS = 24.0
"""Frames per second of sources that have no clock (image folders, arrays) when the caller names none."""

HIGHEST_FPS = 10_000.0
"""Frames per second that can be asked for; the log keeps microseconds, the overlay video steps of 1/90,000 s."""

_LISTED = 3


@dataclass(frozen=True)
class SourceFrame:
    """One frame of a source.

    Attributes:
        index: position in the source, from 0; `start` and `stride` do not renumber it.
        time: seconds since the first frame of the source.
        image: uint8 RGB (height, width, 3), or None when this frame could not be decoded.
        problem: what is wrong with the frame, "" when nothing is. An image with a problem is still a valid image
            (the frame size changed, or a stream came back after a gap).
        name: file name, for folders.
        encoded: the perception's encoding, where it was computed ahead (see `trackgpt.session.ahead`), or None.
    """

    index: int
    time: float
    image: np.ndarray | None
    problem: str = ""
    name: str = ""
    encoded: Any = None


@dataclass(frozen=True)
class ReadOptions:
    """Which frames of a source are read, and how: the options of `open_source`, checked."""

    fps: float | None = None
    start: int = 0
    end: int | None = None
    stride: int = 1
    max_pixels: int = 64_000_000
    allow_gaps: bool = False

    def __post_init__(self) -> None:
        if self.fps is not None and not 1e-6 <= self.fps <= HIGHEST_FPS:
            raise UsageError(f"fps is {self.fps:g}, wanted frames per second, more than 0 and at most {HIGHEST_FPS:g}")
        if self.start < 0 or self.stride < 1 or (self.end is not None and self.end <= self.start):
            found = f"start {self.start}, end {self.end}, stride {self.stride}"
            raise UsageError(f"{found}: wanted start >= 0, end > start (end is not included), stride >= 1")

    def count(self, total: int) -> int:
        """How many of `total` frames are selected."""
        last = total if self.end is None else min(total, self.end)
        return len(range(self.start, last, self.stride))


@dataclass(frozen=True)
class RawFrame:
    """A frame before it becomes pixels, so that skipped frames are never converted.

    Attributes:
        time: seconds since the first frame.
        load: gives uint8 RGB (height, width, 3), or None where decoding has already failed.
        problem: see `SourceFrame`.
        name: see `SourceFrame`.
    """

    time: float
    load: Callable[[], np.ndarray] | None
    problem: str = ""
    name: str = ""


class FrameSource:
    """An open source: a one-pass iterator of `SourceFrame` and a context manager; made by `open_source`.

    Attributes:
        name: a short name for messages and folders (file name, folder name, address without credentials).
        kind: what sort of source it is.
        frames_hint: how many frames to expect, for a progress bar; None where unknown, and headers may lie.
        fps: frames per second: the caller's, the header's, or that of the timestamps.
        fps_note: says so when the header's rate was not believed or is a guess, else "".
        end_note: set once the source is exhausted and held less than its header promised, or has changed since it was
            opened, else "".
        warnings: what had to be assumed to read the source, or is left out although it may be wanted.
        notes: what is left out by the source's own word; no fault.
        size: (height, width) of the first frame that could be decoded.
        pixel_aspect: width of a pixel as shown, by its height.
    """

    kind: SourceKind = "file"

    def __init__(self, name: str, options: ReadOptions) -> None:
        self.name = name
        self.frames_hint: int | None = None
        self.fps = options.fps or DEFAULT_FPS
        self.fps_note = ""
        self.end_note = ""
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self.size = (0, 0)
        self.pixel_aspect = Fraction(1)
        self._options = options
        self._seen = 0
        self._first_problem = ""
        self._last_image_size: tuple[int, int] | None = None
        self._waiting: deque[SourceFrame] = deque()
        self._frames: Iterator[SourceFrame] = iter(())

    def __iter__(self) -> Iterator[SourceFrame]:
        return self

    def __next__(self) -> SourceFrame:
        if self._waiting:
            return self._waiting.popleft()
        return next(self._frames)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release files and devices; iteration ends. Closing twice is allowed."""
        self._waiting.clear()
        self._frames = iter(())

    @property
    def first(self) -> np.ndarray:
        """The first image, uint8 RGB (height, width, 3), as long as no frame has been taken."""
        image = self._waiting[-1].image
        assert image is not None
        return image

    @property
    def rereadable(self) -> bool:
        """Whether the same frames come when the source is opened again; an iterator of arrays does not know."""
        return self.kind not in ("pipe", "stream", "camera")

    def stop(self) -> None:
        """End a wait for data in another thread, so that closing does not wait with it; iteration ends."""

    def digest(self) -> str:
        """sha256 of the source's content as hexadecimal text; "" where there is nothing to read twice."""
        return ""

    def _raw_frames(self) -> Iterator[RawFrame]:
        """Every frame of the source in order of presentation."""
        raise NotImplementedError

    def _describe(self) -> str:
        """What was found in the source, for the message that nothing in it could be decoded."""
        return self.kind

    def _begin(self) -> Self:
        """Decode up to the first image, so that an unreadable source fails when it is opened.

        Raises:
            InputError: IN02 when no frame can be decoded, IN07 when the first one is too large.
        """
        self._frames = self._selected()
        try:
            for frame in self._frames:
                self._waiting.append(frame)
                if frame.image is not None:
                    self.size = (frame.image.shape[0], frame.image.shape[1])
                    return self
        except BaseException:
            self.close()
            raise
        self.close()
        raise InputError(self._why_empty(), code="IN02")

    def _why_empty(self) -> str:
        if self._seen and self._seen <= self._options.start:
            return f"{self.name}: start is {self._options.start}, but the source has only {self._seen} frames"
        cause = f"; first problem: {self._first_problem}" if self._first_problem else ""
        return (
            f"{self.name}: no frames could be decoded ({self._describe()}{cause}). "
            "Check that it plays, or convert it: ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4"
        )

    def _selected(self) -> Iterator[SourceFrame]:
        start, end, stride = self._options.start, self._options.end, self._options.stride
        for index, raw in enumerate(self._raw_frames()):
            self._seen = index + 1
            if index >= start and (index - start) % stride == 0:
                yield self._finished(index, raw)
            if end is not None and index + 1 >= end:
                return

    def _finished(self, index: int, raw: RawFrame) -> SourceFrame:
        """Turn a raw frame into pixels; a failure becomes its `problem`."""
        image, problem = None, raw.problem
        if raw.load is not None:
            try:
                image = raw.load()
            except InputError:
                raise
            except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
                problem = f"undecodable: {one_line(error)}"
        if image is not None:
            problem = "; ".join(part for part in (problem, self._size_change(image)) if part)
        elif not self._first_problem:
            self._first_problem = f"frame {index}: {problem}"
        time = index / self._options.fps if self._options.fps else raw.time
        return SourceFrame(index, time, image, problem, raw.name)

    def _size_change(self, image: np.ndarray) -> str:
        size = (image.shape[0], image.shape[1])
        previous, self._last_image_size = self._last_image_size, size
        if previous is None or previous == size:
            return ""
        return f"size changed {wxh(previous)} -> {wxh(size)}"


# --- shared by all kinds ----------------------------------------------------------------------------------------------


def check_pixels(name: str, height: int, width: int, max_pixels: int) -> None:
    """Refuse a frame that is too large (IN07)."""
    if height * width > max_pixels:
        raise InputError(f"{name}: frame {width}x{height} exceeds max_pixels ({max_pixels})", code="IN07")


def sha256(paths: Sequence[Path], *, with_names: bool) -> str:
    """One hexadecimal sha256 over the bytes of files in order, with or without their names and sizes.

    A file that has gone is left out.
    """
    total = hashlib.sha256()
    for path in paths:
        with suppress(OSError):
            if with_names:
                total.update(f"{path.name}\0{path.stat().st_size}\0".encode("utf-8", "backslashreplace"))
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    total.update(block)
    return total.hexdigest()


def listed(items: Sequence[str]) -> str:
    """The first few items for a message, and how many more there are."""
    rest = len(items) - _LISTED
    return ", ".join(items[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def wxh(size: tuple[int, int]) -> str:
    """A (height, width) as people write it: 640x480 is 640 wide."""
    return f"{size[1]}x{size[0]}"


def one_line(error: BaseException) -> str:
    """The system's own words for an error, without the path that the message names already."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())


def reformatter() -> Any:
    """PyAV's converter of colours, for all frames of a video: a frame's own is set up anew each time, with threads."""
    from av.video.reformatter import VideoReformatter

    return VideoReformatter()
