"""Frames from anywhere: a file, a folder, a glob, a camera, a stream or any iterator of arrays, decoded lazily.

Every source gives the same thing: `SourceFrame` after `SourceFrame`, in order, with the index and the time of the
source itself. A frame that cannot be decoded keeps its index and arrives without an image, so that labels and frames
never drift apart. Memory does not grow with the length of the source. PyAV decodes video; Pillow decodes images.

Conventions: images are uint8 RGB, (height, width, 3), upright (rotation metadata applied); indices start at 0; times
are seconds since the source's first frame, strictly increasing, from timestamps where the source has them; sizes are
(height, width), and read "width x height" in messages. Video without a colour matrix tag is read as BT.601, as FFmpeg
and OpenCV do.
"""

from __future__ import annotations

import difflib
import glob
import hashlib
import heapq
import itertools
import math
import os
import re
import statistics
import sys
import time as wall
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from trackgpt.errors import InputError, UsageError

SourceKind = Literal["file", "folder", "stream", "camera", "array"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
DEFAULT_FPS = 24.0
"""Frames per second of sources that have no clock (image folders, arrays) when the caller names none."""

STREAM_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtp", "http", "https", "udp", "tcp", "srt")
RETRY_DELAYS = (0.5, 1.0, 2.0)
STREAM_TIMEOUT = 10.0

# FFmpeg opens these as video although they are text that names other files or, for tty, any text at all.
_NOT_VIDEO = {"tty", "hls", "concat", "dash", "sdp"}
_FPS_PROBE_PACKETS = 240
_REORDER = 16  # the deepest reordering of H.264 and HEVC, in frames
_LONGEST_HOLE = 60.0  # seconds; a longer hole in damaged timestamps says more about the damage than about frames
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
class _Request:
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
class _RawFrame:
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

    def __init__(self, name: str, request: _Request) -> None:
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

    def _raw_frames(self) -> Iterator[_RawFrame]:
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

    def _finished(self, index: int, raw: _RawFrame) -> SourceFrame:
        """Turn a raw frame into pixels; a failure becomes its `problem`."""
        image, problem = None, raw.problem
        if raw.load is not None:
            try:
                image = raw.load()
            except InputError:
                raise
            except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
                problem = f"undecodable: {_one_line(error)}"
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
        return f"size changed {_wxh(previous)} -> {_wxh(size)}"


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
    request = _Request(fps, start, end, stride, max_pixels, allow_gaps)
    if isinstance(source, bool) or not isinstance(source, str | Path | int | Iterable):
        raise UsageError(f"source is {type(source).__name__}, wanted a path, a camera index, a URL or RGB arrays")
    if isinstance(source, int):
        return camera_source(source, request)._begin()
    if not isinstance(source, str | Path):
        return ArraySource(source, request)._begin()
    return _open_text(source, request)._begin()


def _open_text(source: str | Path, request: _Request) -> FrameSource:
    text = str(source)
    scheme, mark, _ = text.partition("://")
    if isinstance(source, str) and mark:
        if scheme.lower() not in STREAM_SCHEMES:
            raise UsageError(f"{text}: unknown kind of address {scheme}://, known: {', '.join(STREAM_SCHEMES)}")
        return StreamSource(_without_credentials(text), partial(_open_stream, text), request)
    path = Path(source).expanduser()
    if not path.exists():
        if isinstance(source, str) and text.isascii() and text.isdigit():
            return camera_source(int(text), request)
        if glob.has_magic(text):
            return _open_glob(path, request)
        raise _not_found(path)
    _check_readable(path)
    if path.is_dir():
        return FolderSource(path.resolve().name, _images_of(path), request)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return FolderSource(path.name, [path], request)
    return FileSource(path, request)


def _open_glob(pattern: Path, request: _Request) -> FrameSource:
    found = [Path(name) for name in glob.glob(str(pattern), recursive=True)]
    images = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if images:
        return FolderSource(str(pattern), sorted(images, key=natural_key), request)
    if len(found) == 1:
        return _open_text(found[0], request)
    if not found:
        raise InputError(f"{pattern}: matches no file; images are {', '.join(IMAGE_SUFFIXES)}", code="IN01")
    names = _listed([path.name for path in sorted(found, key=natural_key)])
    raise InputError(f"{pattern}: matches {len(found)} entries ({names}), wanted images or one video", code="IN01")


# --- video files ------------------------------------------------------------------------------------------------------


class FileSource(FrameSource):
    """A video file, decoded by PyAV."""

    kind: SourceKind = "file"

    def __init__(self, path: Path, request: _Request) -> None:
        super().__init__(path.name, request)
        self._path = path
        self._container, self._stream = _open_video(path)
        stream = self._stream
        self._summary = f"container {self._container.format.name}, codec {stream.codec_context.name}"
        _check_pixels(path.name, stream.codec_context.height, stream.codec_context.width, request.max_pixels)
        times = _packet_times(path)
        believed, note = _believed_fps(stream, times)
        self._clock_fps = believed
        self._regular = _is_regular(times, believed)
        if request.fps is None:
            self.fps, self.fps_note = believed, note
        self._duration = _duration(self._container, stream)
        total = stream.frames or (round(self._duration * believed) if self._duration else 0)
        self.frames_hint = request.count(total) or None

    def digest(self) -> str:
        """sha256 of the file's bytes."""
        return _sha256([self._path], with_names=False)

    def close(self) -> None:
        """Release the file; iteration ends."""
        super().close()
        self._container.close()

    def _describe(self) -> str:
        return self._summary

    def _raw_frames(self) -> Iterator[_RawFrame]:
        clock = _Clock(self._clock_fps)
        yield from _Decoder(self._container, self._stream, clock, self.name, self._request, self._regular)
        if self._stream.frames > self._seen:
            self.end_note = f"the header promises {self._stream.frames} frames, the file holds {self._seen}"
        elif not self._stream.frames and self._duration and clock.last + 2 / clock.fps + 0.5 < self._duration:
            self.end_note = f"the header promises {self._duration:.1f} s, the file ends after {clock.last:.1f} s"


def _open_video(path: Path) -> tuple[Any, Any]:
    """The open container and its first video stream that is not a cover picture."""
    import av

    try:
        # "file:" keeps FFmpeg from reading a colon in a name as a protocol; the whitelist keeps the file from
        # pulling in others.
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file"})
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _not_video(path, error) from error
    if container.format.name in _NOT_VIDEO:
        container.close()
        raise InputError(f"{path.name}: no frames could be decoded (text or a playlist, not a video)", code="IN02")
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams or streams[0].codec_context is None:
        held = _listed([f"{s.type} {s.codec_context.name if s.codec_context else '?'}" for s in container.streams])
        found = f"container {container.format.name}, {'codec unknown' if streams else 'no video stream'}: {held}"
        container.close()
        raise InputError(f"{path.name}: no frames could be decoded ({found}). Check that it plays", code="IN02")
    return container, streams[0]


def _not_video(path: Path, error: Exception) -> InputError:
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        found = "the file is empty"
    elif all(byte in b"\t\r\n\f" or byte >= 32 for byte in head):
        found = "the file holds text"
    else:
        found = f"not a video, or its index is missing: {_one_line(error)}"
    return InputError(f"{path.name}: no frames could be decoded ({found}). Wanted a video, e.g. mp4", code="IN02")


def _duration(container: Any, stream: Any) -> float:
    """Seconds of video that the header promises; 0.0 where only a longer companion (audio) could have set it."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration and len(container.streams) == 1:
        return float(container.duration / 1_000_000)
    return 0.0


def _has_timestamps(container: Any) -> bool:
    """AVI stores none: what FFmpeg reports there for packets is their order of decoding."""
    return container.format.name != "avi"


def _packet_times(path: Path) -> list[float]:
    """Times of the first packets in seconds, sorted, without decoding; empty where the container has none."""
    import av

    times: list[float] = []
    container, stream = _open_video(path)
    with container:
        try:
            for packet in itertools.islice(container.demux(stream), _FPS_PROBE_PACKETS):
                stamp = packet.pts if _has_timestamps(container) else packet.dts
                if packet.size and stamp is not None and packet.time_base:
                    times.append(float(stamp * packet.time_base))
        except (av.error.FFmpegError, OSError):
            pass  # a damaged start is met again, and reported, when frames are read
    return sorted(times)


def _believed_fps(stream: Any, times: Sequence[float]) -> tuple[float, str]:
    """Frames per second and a note when the header was not believed (IN04).

    The header holds unless it is no number, lies outside (0, 1000], or differs from the median interval of the
    timestamps by more than half.
    """
    header = _as_float(stream.average_rate if times else stream.guessed_rate)
    steps = [later - earlier for earlier, later in itertools.pairwise(times) if later > earlier]
    measured = 1 / statistics.median(steps) if steps else 0.0
    plausible = 0 < header <= 1000
    if plausible and (not measured or 2 / 3 <= measured / header <= 1.5):
        return header, ""
    found = f"fps in header is {header:g}" if not math.isnan(header) else "no fps in header"
    if measured and measured <= 1000:
        return measured, f"{found}; using timestamps ({measured:.4g})"
    return DEFAULT_FPS, f"{found} and there are no usable timestamps; using {DEFAULT_FPS:g}, or pass --fps"


def _is_regular(times: Sequence[float], fps: float) -> bool:
    """True when nearly all intervals of the timestamps are equal, up to their rounding (milliseconds in Matroska)."""
    # In order of decoding, the last packets of the probe may belong behind some that were not read.
    steps = [later - earlier for earlier, later in itertools.pairwise(times[:-16])]
    odd = sum(abs(step * fps - 1) > 0.25 for step in steps)
    return bool(steps) and odd <= 0.05 * len(steps)


def _as_float(rate: Fraction | None) -> float:
    return float(rate) if rate is not None else math.nan


class _Clock:
    """Turns timestamps into seconds since the first frame, strictly increasing.

    A missing stamp, or one that does not advance (joined files, a stream that was reconnected), counts as one frame
    interval after the previous frame, and later stamps follow from there.
    """

    def __init__(self, fps: float) -> None:
        self.fps = fps
        self.last = -math.inf
        self._origin: Fraction | None = None
        self._shift = 0.0

    def seconds(self, stamp: int | None, time_base: Fraction | None) -> float:
        """Seconds for a stamp in units of `time_base`."""
        following = self.last + 1 / self.fps if math.isfinite(self.last) else 0.0
        if stamp is None or not time_base:
            self.last = following
            return following
        exact = stamp * Fraction(time_base)
        if self._origin is None:
            self._origin, self._shift = exact, following
        value = float(exact - self._origin) + self._shift
        if value <= self.last:
            self._shift += following - value
            value = following
        self.last = value
        return value

    def resume_after(self, gap: float) -> None:
        """The next stamp starts a new count, `gap` seconds after the last frame."""
        self._origin = None
        self.last += max(gap - 1 / self.fps, 0.0)


class _Decoder:
    """Iterates over the frames of a stream; what never becomes a picture comes out without an image, in its place.

    A packet's timestamp waits until the decoder gives the frame that carries it. Around damage a decoder may give
    frames late and out of order, or never: a frame is then held back while an older stamp waits, for as many packets
    as a codec may reorder, after which the older stamp counts as a lost frame. Without damage frames pass at once and
    nothing counts as lost, because codecs also have packets that show nothing (VP8's alternate reference frames).
    Where damage has swallowed whole packets, the hole in the timestamps of a constant-rate stream tells how many.
    """

    def __init__(self, container: Any, stream: Any, clock: _Clock, name: str, request: _Request, regular: bool) -> None:
        self._container = container
        self._stream = stream
        self._clock = clock
        self._name = name
        self._max_pixels = request.max_pixels
        self._regular = regular
        self._stamped = _has_timestamps(container)
        self._packets = 0
        self._order: int | None = None
        self._waiting: list[int] = []
        self._held: list[tuple[int, int, int, Any]] = []  # stamp, packet count on arrival, order of arrival, frame
        self._tickets = itertools.count()
        self._given_up: deque[int] = deque(maxlen=4 * _REORDER)
        self._damage = ""
        self._damage_at = 0
        self._previous: int | None = None
        self._rotation: int | None = None
        self._matrix: np.ndarray | None = None

    def __iter__(self) -> Iterator[_RawFrame]:
        for packet, frames, error in _decoding_steps(self._container, self._stream):
            self._packets += 1
            if self._starts_anew(packet.dts):
                yield from self._released(everything=True)
                self._forget()
            stamp = packet.pts if self._stamped and packet.size and not packet.is_discard else None
            if stamp is not None:
                heapq.heappush(self._waiting, stamp)
            if error or packet.is_corrupt:
                self._damaged(error or "the packet is damaged", stamp)
                if error and stamp is None and packet.size:
                    yield self._lost(None)
            for frame in frames:
                yield from self._arrived(frame)
            yield from self._released(everything=False)
        yield from self._released(everything=True)
        while self._damage and self._waiting:
            yield self._lost(heapq.heappop(self._waiting))

    def _starts_anew(self, order: int | None) -> bool:
        """True when the order of decoding jumps back: joined files start their stamps again."""
        if order is None:
            return False
        previous, self._order = self._order, order
        return previous is not None and order < previous

    def _arrived(self, frame: Any) -> Iterator[_RawFrame]:
        stamp = frame.pts if self._stamped else frame.dts
        if frame.is_corrupt:
            self._damaged("parts of the picture are missing", stamp)
        if stamp is None:
            yield self._shown(frame, None)
        elif stamp in self._given_up:
            self._given_up.remove(stamp)  # its place has gone out already, without an image
        elif self._damage:
            heapq.heappush(self._held, (stamp, self._packets, next(self._tickets), frame))
        else:
            yield from self._passed(stamp, frame)

    def _released(self, *, everything: bool) -> Iterator[_RawFrame]:
        """Held frames that need not wait any longer."""
        while self._held:
            stamp, since, *_ = self._held[0]
            blocked = bool(self._waiting) and self._waiting[0] < stamp
            if blocked and not everything and self._packets - since < _REORDER:
                return
            yield from self._passed(stamp, heapq.heappop(self._held)[-1])

    def _forget(self) -> None:
        """Stamps start again. What still waits is in the decoder, and arrives between frames of the new count."""
        self._waiting.clear()
        self._given_up.clear()
        self._damage, self._damage_at, self._previous = "", 0, None

    def _passed(self, stamp: int, frame: Any) -> Iterator[_RawFrame]:
        """The frames lost before a frame, then the frame itself."""
        yield from self._lost_before(stamp)
        self._previous = stamp
        yield self._shown(frame, stamp)
        if frame.key_frame and stamp > self._damage_at:
            self._damage = ""

    def _shown(self, frame: Any, stamp: int | None) -> _RawFrame:
        if frame.is_corrupt:
            return self._lost(stamp)
        if frame.rotation != self._rotation:
            # Read once, not for each frame: PyAV's side data and its frame hold each other until the garbage collector
            # comes, and hundreds of frames would pile up in between.
            self._rotation, self._matrix = frame.rotation, _display_matrix(frame)
        time = self._clock.seconds(stamp, frame.time_base)
        return _RawFrame(time, partial(_pixels, frame, self._name, self._max_pixels, self._matrix))

    def _lost_before(self, stamp: int) -> Iterator[_RawFrame]:
        known = []
        while self._waiting and self._waiting[0] <= stamp:
            earlier = heapq.heappop(self._waiting)
            if self._damage and earlier < stamp:
                known.append(earlier)
        for later in [*known, stamp]:
            for _ in range(self._hole_before(later)):
                yield self._lost(None)
            if later < stamp:
                self._given_up.append(later)
                self._previous = later
                yield self._lost(later)

    def _hole_before(self, stamp: int) -> int:
        """How many frames of a constant-rate stream are missing between the previous stamp and this one."""
        if not (self._damage and self._regular and self._stamped) or self._previous is None:
            return 0
        seconds = float((stamp - self._previous) * self._stream.time_base)
        return max(round(seconds * self._clock.fps) - 1, 0) if seconds < _LONGEST_HOLE else 0

    def _damaged(self, cause: str, stamp: int | None) -> None:
        self._damage = cause
        self._damage_at = max(self._damage_at, stamp or 0)

    def _lost(self, stamp: int | None) -> _RawFrame:
        time = self._clock.seconds(stamp, self._stream.time_base)
        return _RawFrame(time, None, f"undecodable: {self._damage}")


def _decoding_steps(container: Any, stream: Any) -> Iterator[tuple[Any, list[Any], str]]:
    """Packets with the frames each one released, or the reason why the decoder refused it."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.error.InvalidDataError, av.error.EOFError):
            return  # the container is cut or broken here; what comes before it has been given
        if packet is None:
            return
        try:
            yield packet, packet.decode(), ""
        except av.error.EOFError:
            return
        except av.error.FFmpegError as error:
            yield packet, [], _one_line(error)


def _pixels(frame: Any, name: str, max_pixels: int, matrix: np.ndarray | None) -> np.ndarray:
    """A decoded frame as uint8 RGB (height, width, 3), upright."""
    _check_pixels(name, frame.height, frame.width, max_pixels)
    image = frame.to_ndarray(format="rgb24")
    return image if matrix is None else upright(image, matrix)


def _display_matrix(frame: Any) -> np.ndarray | None:
    matrix = frame.side_data.get("DISPLAYMATRIX")
    return None if matrix is None else np.frombuffer(bytes(matrix), np.int32)


def upright(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Turn and mirror an image as its display matrix says (ISO/IEC 14496-12, 8.2.2), in steps of 90 degrees.

    Args:
        image: (height, width, channels).
        matrix: 9 numbers a, b, u, c, d, v, x, y, w: a stored pixel (x, y) is shown at (ax + cy, bx + dy). Angles
            between the steps are rounded to the nearest step.
    """
    a, b, c, d = (float(matrix[i]) for i in (0, 1, 3, 4))
    if not (a or b or c or d):
        return image
    if abs(b) > abs(a):
        image = image.transpose(1, 0, 2)
        down, right = b, c
    else:
        down, right = d, a
    image = image[::-1] if down < 0 else image
    image = image[:, ::-1] if right < 0 else image
    return np.ascontiguousarray(image)


# --- folders of images ------------------------------------------------------------------------------------------------


class FolderSource(FrameSource):
    """Images in natural order of their names, each one a frame."""

    kind: SourceKind = "folder"

    def __init__(self, name: str, paths: Sequence[Path], request: _Request) -> None:
        super().__init__(name, request)
        self._paths = paths
        sizes = {path: _image_size(path, request.max_pixels) for path in paths}
        if not request.allow_gaps:
            faults = _mixed_sizes(sizes) + _number_gaps(paths)
            if faults:
                advice = "Make the frames even, or pass --allow-gaps"
                raise InputError(f"{name}: {'; '.join(faults)}. {advice}", code="IN08")
        self.frames_hint = request.count(len(paths)) or None

    def digest(self) -> str:
        """sha256 of the names and bytes of all images, in order."""
        return _sha256(self._paths, with_names=True)

    def _describe(self) -> str:
        return f"{len(self._paths)} image files, first {self._paths[0].name}"

    def _raw_frames(self) -> Iterator[_RawFrame]:
        for index, path in enumerate(self._paths):
            load = partial(_read_image, path, self._request.max_pixels)
            yield _RawFrame(index / self.fps, load, name=path.stem)


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sort key under which frame2.png stands before frame10.png, folders first."""
    parts = re.split(r"(\d+)", str(path).casefold())
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]


def _images_of(folder: Path) -> list[Path]:
    entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    images = [path for path in entries if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if images:
        return sorted(images, key=natural_key)
    held = _listed(sorted(path.name + ("/" if path.is_dir() else "") for path in entries)) or "nothing"
    wanted = f"wanted frames as {', '.join(IMAGE_SUFFIXES)}"
    raise InputError(f"{folder}: the folder holds no images ({wanted}); it holds {held}", code="IN02")


def _image_size(path: Path, max_pixels: int) -> tuple[int, int] | None:
    """(height, width) as displayed, from the header alone; None when the header cannot be read."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                width, height = image.size
                turned = image.getexif().get(0x0112, 1) >= 5
    except Image.DecompressionBombError as error:
        raise InputError(f"{path.name}: {_one_line(error)}", code="IN07") from error
    except (OSError, ValueError, SyntaxError, EOFError):
        return None
    _check_pixels(path.name, height, width, max_pixels)
    return (width, height) if turned else (height, width)


def _read_image(path: Path, max_pixels: int) -> np.ndarray:
    """An image file as uint8 RGB (height, width, 3), EXIF orientation applied."""
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as opened:
            _check_pixels(path.name, opened.height, opened.width, max_pixels)
            image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey at 255 instead of scaling it.
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.asarray(image.convert("RGB")).copy()


def _mixed_sizes(sizes: dict[Path, tuple[int, int] | None]) -> list[str]:
    known = [(path, size) for path, size in sizes.items() if size is not None]
    if not known:
        return []
    first, wanted = known[0]
    odd = [f"{path.name} is {_wxh(size)}" for path, size in known if size != wanted]
    return [f"mixed sizes: {first.name} is {_wxh(wanted)}, but {_listed(odd)}"] if odd else []


def _number_gaps(paths: Sequence[Path]) -> list[str]:
    """Breaks in the numbering of names that differ in one number only; a constant step other than 1 is no gap."""
    matches = [re.fullmatch(r"(.*?)(\d+)(\D*)", path.stem) for path in paths]
    numbered = [match for match in matches if match is not None]
    if len(numbered) < len(paths) or len({(match[1], match[3]) for match in numbered}) != 1:
        return []
    numbers = [int(match[2]) for match in numbered]
    steps = [later - earlier for earlier, later in itertools.pairwise(numbers)]
    if not steps:
        return []
    usual = max(statistics.mode(steps), 1)
    breaks = []
    for step, (before, after) in zip(steps, itertools.pairwise(paths), strict=True):
        if step == 0:
            breaks.append(f"{after.name} repeats the number of {before.name}")
        elif step != usual:
            breaks.append(f"after {before.name} comes {after.name}")
    return [f"gaps in the numbering (step {usual}): {_listed(breaks)}"] if breaks else []


# --- streams and cameras ----------------------------------------------------------------------------------------------


class StreamSource(FrameSource):
    """A network stream or a camera; reconnects when it drops.

    Args of the constructor:
        opener: opens the stream and returns a PyAV input container.
        sleep: waits; replaced in tests.
    """

    kind: SourceKind = "stream"

    def __init__(
        self,
        name: str,
        opener: Callable[[], Any],
        request: _Request,
        kind: SourceKind = "stream",
        sleep: Callable[[float], None] = wall.sleep,
    ) -> None:
        super().__init__(name, request)
        self.kind = kind
        self._opener = opener
        self._sleep = sleep
        self._container: Any = None
        self.frames_hint = request.count(request.end) if request.end is not None else None

    def close(self) -> None:
        """Hang up; iteration ends."""
        super().close()
        self._hang_up()

    def _hang_up(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def _describe(self) -> str:
        return f"{self.kind}, connected but silent"

    def _raw_frames(self) -> Iterator[_RawFrame]:
        """Frames across reconnections; retries are counted anew after every frame that arrives.

        Raises:
            InputError: IN06 when the stream is lost and does not come back.
        """
        import av

        clock: _Clock | None = None
        failures, lost_at, cause = 0, 0.0, ""
        while True:
            try:
                stream = self._connect()
                if clock is None:
                    clock = self._new_clock(stream)
                problem = ""
                if lost_at:
                    gap = wall.monotonic() - lost_at
                    clock.resume_after(gap)
                    problem = f"the stream was lost for {gap:.1f} s ({cause})"
                for raw in self._joined(stream, clock):
                    yield _RawFrame(raw.time, raw.load, "; ".join(part for part in (raw.problem, problem) if part))
                    failures, lost_at, problem = 0, 0.0, ""
                if self._container.duration:
                    return  # a recording served over the network, played to its end
                cause = "the sender ended it"
            except (av.error.FFmpegError, OSError, ValueError) as error:
                cause = _one_line(error)
            self._hang_up()
            lost_at = lost_at or wall.monotonic()
            if failures == len(RETRY_DELAYS):
                raise self._gone(cause)
            self._sleep(RETRY_DELAYS[failures])
            failures += 1

    def _connect(self) -> Any:
        self._container = self._opener()
        if not self._container.streams.video:
            raise ValueError("no video stream")
        return self._container.streams.video[0]

    def _new_clock(self, stream: Any) -> _Clock:
        if self._request.fps is None:
            self.fps, self.fps_note = _believed_fps(stream, [])
        return _Clock(self.fps)

    def _joined(self, stream: Any, clock: _Clock) -> Iterator[_RawFrame]:
        """Frames from the first picture on: joining between two key frames is no damage."""
        frames = _Decoder(self._container, stream, clock, self.name, self._request, regular=False)
        return itertools.dropwhile(lambda raw: raw.load is None, frames)

    def _gone(self, cause: str) -> InputError:
        after = f"lost after {self._seen} frames" if self._seen else "cannot be opened"
        tries = f"{len(RETRY_DELAYS)} retries"
        return InputError(f"{self.name}: the {self.kind} {after}, {tries} failed ({cause})", code="IN06")


def _open_stream(url: str) -> Any:
    import av

    options = {"rtsp_transport": "tcp"} if url.lower().startswith("rtsp") else {}
    return av.open(url, options=options, timeout=STREAM_TIMEOUT)


def _without_credentials(url: str) -> str:
    return re.sub(r"(://)[^/@]*@", r"\1", url)


def camera_source(index: int, request: _Request) -> StreamSource:
    """The camera with this index: /dev/videoN on Linux, device N of AVFoundation or DirectShow elsewhere.

    Raises:
        InputError: IN01 when Linux has no such device.
    """
    if index < 0:
        raise UsageError(f"camera index is {index}, wanted 0 or more")
    if sys.platform.startswith("linux") and not Path(f"/dev/video{index}").exists():
        devices = _listed(sorted(glob.glob("/dev/video*"))) or "none"
        raise InputError(f"camera {index}: /dev/video{index} not found. Devices here: {devices}", code="IN01")
    return StreamSource(f"camera {index}", partial(_open_camera, index), request, kind="camera")


def _open_camera(index: int) -> Any:
    import av

    if sys.platform == "darwin":
        return av.open(str(index), format="avfoundation", options={"framerate": "30"})
    if sys.platform == "win32":
        return av.open(f"video={index}", format="dshow")
    return av.open(f"/dev/video{index}", format="v4l2")


# --- arrays -----------------------------------------------------------------------------------------------------------


class ArraySource(FrameSource):
    """Any iterable of uint8 RGB arrays, taken one at a time; None stands for a frame that was lost."""

    kind: SourceKind = "array"

    def __init__(self, arrays: Iterable[np.ndarray | None], request: _Request) -> None:
        super().__init__("array", request)
        self._arrays = arrays
        total = len(arrays) if isinstance(arrays, Sized) else request.end
        self.frames_hint = request.count(total) or None if total is not None else None

    def _raw_frames(self) -> Iterator[_RawFrame]:
        for index, array in enumerate(self._arrays):
            if array is None:
                yield _RawFrame(index / self.fps, None, "the array source gave no image")
            else:
                yield _RawFrame(index / self.fps, partial(self._checked, index, array))

    def _checked(self, index: int, array: np.ndarray) -> np.ndarray:
        fits = isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3
        if not fits or not array.size:
            shape = f"{getattr(array, 'dtype', type(array).__name__)} {getattr(array, 'shape', '')}".strip()
            raise InputError(f"frame {index} of the arrays: found {shape}, wanted uint8 (height, width, 3) RGB")
        _check_pixels(f"frame {index} of the arrays", array.shape[0], array.shape[1], self._request.max_pixels)
        return array


# --- shared checks ----------------------------------------------------------------------------------------------------


def _check_pixels(name: str, height: int, width: int, max_pixels: int) -> None:
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


def _sha256(paths: Sequence[Path], *, with_names: bool) -> str:
    total = hashlib.sha256()
    for path in paths:
        if with_names:
            total.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def _listed(items: Sequence[str]) -> str:
    rest = len(items) - _LISTED
    return ", ".join(items[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def _wxh(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def _one_line(error: BaseException) -> str:
    """The system's own words for an error, without the path that the message names already."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())
