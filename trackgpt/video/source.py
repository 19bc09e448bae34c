"""Frames from anywhere: a file, a folder, a glob, a camera, a stream or any iterator of arrays, decoded lazily.

Every source gives the same thing: `SourceFrame` after `SourceFrame`, in order, with the index and the time of the
source itself. A frame that cannot be decoded keeps its index and arrives without an image, so that labels and frames
never drift apart. Memory does not grow with the length of the source.

Conventions: images are uint8 RGB, (height, width, 3), upright (rotation metadata applied); indices start at 0; times
are seconds since the source's first frame, strictly increasing, from timestamps where the source has them; sizes are
(height, width), and read "width x height" in messages.
"""

from __future__ import annotations

import difflib
import glob
import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np

from trackgpt.errors import InputError, UsageError

SourceKind = Literal["file", "folder", "stream", "camera", "array"]

DEFAULT_FPS = 24.0
"""Frames per second of sources that have no clock (image folders, arrays) when the caller names none."""

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
        name: file stem, for folders.
    """

    index: int
    time: float
    image: np.ndarray | None
    problem: str = ""
    name: str = ""


@dataclass(frozen=True)
class Request:
    """The caller's options, checked."""

    fps: float | None = None
    start: int = 0
    end: int | None = None
    stride: int = 1
    max_pixels: int = 64_000_000
    allow_gaps: bool = False

    def __post_init__(self) -> None:
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise UsageError(f"fps is {self.fps}, wanted a positive number of frames per second")
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
        fps_note: says so when the header's rate was not believed, else "".
        end_note: set once the source is exhausted and held less than its header promised, else "".
        size: (height, width) of the first frame that could be decoded.
    """

    kind: SourceKind = "file"

    def __init__(self, name: str, request: Request) -> None:
        self.name = name
        self.frames_hint: int | None = None
        self.fps = request.fps or DEFAULT_FPS
        self.fps_note = ""
        self.end_note = ""
        self.size = (0, 0)
        self._request = request
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
        if self._seen and self._seen <= self._request.start:
            return f"{self.name}: start is {self._request.start}, but the source has only {self._seen} frames"
        cause = f"; first problem: {self._first_problem}" if self._first_problem else ""
        return (
            f"{self.name}: no frames could be decoded ({self._describe()}{cause}). "
            "Check that it plays, or convert it: ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4"
        )

    def _selected(self) -> Iterator[SourceFrame]:
        start, end, stride = self._request.start, self._request.end, self._request.stride
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
        time = index / self._request.fps if self._request.fps else raw.time
        return SourceFrame(index, time, image, problem, raw.name)

    def _size_change(self, image: np.ndarray) -> str:
        size = (image.shape[0], image.shape[1])
        previous, self._last_image_size = self._last_image_size, size
        if previous is None or previous == size:
            return ""
        return f"size changed {wxh(previous)} -> {wxh(size)}"


def open_source(
    source: str | Path | int | Iterable[np.ndarray],
    *,
    fps: float | None = None,
    start: int = 0,
    end: int | None = None,
    stride: int = 1,
    max_pixels: int = 64_000_000,
    allow_gaps: bool = False,
) -> FrameSource:
    """Open anything that holds frames; at least one frame has been decoded when this returns.

    Args:
        source: a video file, an image, a folder of images, a glob, a camera index (0 or "0"), an address
            (rtsp://, http://, ...), or an iterable of uint8 RGB arrays (height, width, 3).
        fps: frames per second; overrides the source's own, and then time = index / fps.
        start: index of the first frame wanted.
        end: index after the last frame wanted; None means all.
        stride: every stride-th frame from `start`; frames keep the index they have in the source.
        max_pixels: a larger frame is refused, where possible before it is decoded.
        allow_gaps: read image folders with mixed sizes or missing numbers instead of refusing them.

    Raises:
        InputError: IN01 not found or not readable, IN02 nothing decodable, IN06 a stream that cannot be reached or
            does not come back, IN07 a frame larger than `max_pixels`, IN08 an uneven image folder.
        UsageError: the options contradict each other or the source is of an unknown type.
    """
    request = Request(fps, start, end, stride, max_pixels, allow_gaps)
    if isinstance(source, bool) or not isinstance(source, str | Path | int | Iterable):
        raise UsageError(f"source is {type(source).__name__}, wanted a path, a camera index, a URL or RGB arrays")
    if isinstance(source, int):
        from trackgpt.video.stream import camera_source  # it builds on this module

        return camera_source(source, request)._begin()
    if not isinstance(source, str | Path):
        return ArraySource(source, request)._begin()
    return _open_text(source, request)._begin()


def _open_text(source: str | Path, request: Request) -> FrameSource:
    # These build on this module, so they cannot be imported before it.
    from trackgpt.video.decoder import FileSource
    from trackgpt.video.folder import IMAGE_SUFFIXES, FolderSource, images_of
    from trackgpt.video.stream import camera_source, stream_source

    text = str(source)
    if isinstance(source, str) and "://" in text:
        return stream_source(text, request)
    path = Path(source).expanduser()
    if not path.exists():
        if isinstance(source, str) and text.isascii() and text.isdigit():
            return camera_source(int(text), request)
        if glob.has_magic(text):
            return _open_glob(path, request)
        raise _not_found(path)
    _check_readable(path)
    if path.is_dir():
        return FolderSource(path.resolve().name, images_of(path), request)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return FolderSource(path.name, [path], request)
    return FileSource(path, request)


def _open_glob(pattern: Path, request: Request) -> FrameSource:
    from trackgpt.video.folder import FolderSource, is_image, matches_of

    found = matches_of(pattern)
    if is_image(found[0]):
        return FolderSource(str(pattern), found, request)
    return _open_text(found[0], request)


# --- arrays -----------------------------------------------------------------------------------------------------------


class ArraySource(FrameSource):
    """Any iterable of uint8 RGB arrays, taken one at a time; None stands for a frame that was lost."""

    kind: SourceKind = "array"

    def __init__(self, arrays: Iterable[np.ndarray | None], request: Request) -> None:
        super().__init__("array", request)
        self._arrays = arrays
        total = len(arrays) if isinstance(arrays, Sized) else request.end
        self.frames_hint = request.count(total) or None if total is not None else None

    def _raw_frames(self) -> Iterator[RawFrame]:
        for index, array in enumerate(self._arrays):
            if array is None:
                yield RawFrame(index / self.fps, None, "the array source gave no image")
            else:
                yield RawFrame(index / self.fps, partial(self._checked, index, array))

    def _checked(self, index: int, array: np.ndarray) -> np.ndarray:
        fits = isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3
        if not fits or not array.size:
            shape = f"{getattr(array, 'dtype', type(array).__name__)} {getattr(array, 'shape', '')}".strip()
            raise InputError(f"frame {index} of the arrays: found {shape}, wanted uint8 (height, width, 3) RGB")
        check_pixels(f"frame {index} of the arrays", array.shape[0], array.shape[1], self._request.max_pixels)
        return array


# --- shared checks ----------------------------------------------------------------------------------------------------


def check_pixels(name: str, height: int, width: int, max_pixels: int) -> None:
    """Refuse a frame that is too large (IN07)."""
    if height * width > max_pixels:
        raise InputError(f"{name}: frame {width}x{height} exceeds max_pixels ({max_pixels})", code="IN07")


def _check_readable(path: Path) -> None:
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise InputError(f"{path}: no permission to read it. Change its permissions or run as its owner", code="IN01")


def _not_found(path: Path) -> InputError:
    """IN01 with similar names beside the missing entry, or beside the first missing folder on the way to it."""
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    try:
        names = {entry.name.casefold(): entry.name for entry in missing.parent.iterdir()}
    except OSError:
        names = {}
    close = difflib.get_close_matches(missing.name.casefold(), names, n=_LISTED)
    nearby = f". Nearby: {', '.join(str(missing.parent / names[name]) for name in close)}" if close else ""
    what = "not found" if missing == path else f"not found, there is no folder {missing}"
    return InputError(f"{path}: {what}{nearby}", code="IN01")


def sha256(paths: Sequence[Path], *, with_names: bool) -> str:
    """One hexadecimal sha256 over the bytes of files in order, with or without their names and sizes."""
    total = hashlib.sha256()
    for path in paths:
        if with_names:
            total.update(f"{path.name}\0{path.stat().st_size}\0".encode())
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
