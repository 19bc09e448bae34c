"""Frames from anywhere: a file, a folder, a glob, a pipe, a camera, a stream or any iterator of arrays, decoded lazily.

Every source gives the same thing, `trackgpt.video.frames.SourceFrame` after `SourceFrame`. A frame that cannot be
decoded keeps its index and arrives without an image, so that labels and frames never drift apart. Memory does not grow
with the length of the source.
"""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Iterable, Iterator, Sized
from functools import partial
from pathlib import Path

import numpy as np

from trackgpt.errors import InputError, UsageError
from trackgpt.video.decoder import FileSource
from trackgpt.video.folder import FolderSource, image_source, images_of, is_image, matches_of
from trackgpt.video.frames import FrameSource, RawFrame, ReadOptions, SourceKind, check_pixels
from trackgpt.video.pipe import STDIN, pipe_source, stdin_source
from trackgpt.video.stream import camera_source, stream_source

_NEARBY = 3


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
        source: a video file, an image, a folder of images, a glob, a pipe ("-" is standard input), a camera index
            (0 or "0"), an address (rtsp://, http://, ...), or an iterable of uint8 RGB arrays (height, width, 3).
        fps: frames per second, at most 10,000; overrides the source's own, and then time = index / fps.
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
    options = ReadOptions(fps, start, end, stride, max_pixels, allow_gaps)
    if isinstance(source, bool) or not isinstance(source, str | Path | int | Iterable):
        raise UsageError(f"source is {type(source).__name__}, wanted a path, a camera index, a URL or RGB arrays")
    if isinstance(source, int):
        return camera_source(source, options)._begin()
    if not isinstance(source, str | Path):
        return ArraySource(source, options)._begin()
    return _open_text(source, options)._begin()


def _open_text(source: str | Path, options: ReadOptions) -> FrameSource:
    text = str(source)
    if source == "":
        raise UsageError("the source is empty; wanted a video, a folder of frames, a camera index or a URL")
    if source == STDIN:
        return stdin_source(options)
    if isinstance(source, str) and "://" in text:
        return stream_source(text, options)
    path = Path(source).expanduser()
    if not path.exists():
        if isinstance(source, str) and text.isascii() and text.isdigit():
            return camera_source(int(text), options)
        if glob.has_magic(text):
            return _open_glob(path, options)
        raise _not_found(path)
    _check_readable(path)
    if path.is_dir():
        return FolderSource(path.resolve().name, partial(images_of, path), options)
    if path.is_fifo():
        return pipe_source(path, options)
    if is_image(path):
        return image_source(path, options)
    if path.is_socket():
        raise InputError(f"{path}: is a socket; wanted a file, a folder or a pipe", code="IN01")
    return FileSource(path, options)


def _open_glob(pattern: Path, options: ReadOptions) -> FrameSource:
    found = matches_of(pattern)
    if is_image(found[0]):
        return FolderSource(str(pattern), partial(matches_of, pattern), options)
    return _open_text(found[0], options)


# --- arrays -----------------------------------------------------------------------------------------------------------


class ArraySource(FrameSource):
    """Any iterable of uint8 RGB arrays, taken one at a time; None stands for a frame that was lost."""

    kind: SourceKind = "array"

    def __init__(self, arrays: Iterable[np.ndarray | None], options: ReadOptions) -> None:
        super().__init__("array", options)
        self._arrays = arrays
        total = len(arrays) if isinstance(arrays, Sized) else options.end
        self.frames_hint = options.count(total) or None if total is not None else None

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
        check_pixels(f"frame {index} of the arrays", array.shape[0], array.shape[1], self._options.max_pixels)
        return array


# --- what is not there ------------------------------------------------------------------------------------------------


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
    close = difflib.get_close_matches(missing.name.casefold(), names, n=_NEARBY)
    nearby = f". Nearby: {', '.join(str(missing.parent / names[name]) for name in close)}" if close else ""
    what = "not found" if missing == path else f"not found, there is no folder {missing}"
    return InputError(f"{path}: {what}{nearby}", code="IN01")
