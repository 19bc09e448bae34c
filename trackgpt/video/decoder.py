"""Video files by PyAV: their frames, the rate and the times of frames, and what is left where a file is damaged.

Video without a colour matrix tag is read as BT.601, as FFmpeg and OpenCV do.
"""

from __future__ import annotations

import heapq
import itertools
import math
import statistics
from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trackgpt.errors import InputError
from trackgpt.video.frames import (
    DEFAULT_FPS,
    FrameSource,
    RawFrame,
    ReadOptions,
    SourceKind,
    check_pixels,
    listed,
    one_line,
    reformatter,
    sha256,
)

# FFmpeg opens these as video although they are text that names other files or, for tty, any text at all.
_NOT_VIDEO = {"tty", "hls", "concat", "dash", "sdp"}
_FPS_PROBE_PACKETS = 240
_REORDER = 16  # the deepest reordering of H.264 and HEVC, in frames
_LONGEST_HOLE = 60.0  # seconds; a longer hole in damaged timestamps says more about the damage than about frames


class FileSource(FrameSource):
    """A video file, decoded by PyAV."""

    kind: SourceKind = "file"

    def __init__(self, path: Path, options: ReadOptions) -> None:
        super().__init__(path.name, options)
        self._path = path
        self._container, self._stream = _open_video(path)
        stream = self._stream
        self._summary = f"container {self._container.format.name}, codec {stream.codec_context.name}"
        check_pixels(path.name, stream.codec_context.height, stream.codec_context.width, options.max_pixels)
        times = _packet_times(path)
        believed, note = believed_fps(stream, times)
        self._clock_fps = believed
        self._regular = _is_regular(times, believed)
        if options.fps is None:
            self.fps, self.fps_note = believed, note
        self._duration = _duration(self._container, stream)
        total = stream.frames or (round(self._duration * believed) if self._duration else 0)
        self.frames_hint = options.count(total) or None

    def digest(self) -> str:
        """sha256 of the file's bytes."""
        return sha256([self._path], with_names=False)

    def close(self) -> None:
        """Release the file; iteration ends."""
        super().close()
        self._container.close()

    def _describe(self) -> str:
        return self._summary

    def _raw_frames(self) -> Iterator[RawFrame]:
        clock = Clock(self._clock_fps)
        yield from Decoder(self._container, self._stream, clock, self.name, self._options, self._regular)
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
        held = listed([f"{s.type} {s.codec_context.name if s.codec_context else '?'}" for s in container.streams])
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
        found = f"not a video, or its index is missing: {one_line(error)}"
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


def believed_fps(stream: Any, times: Sequence[float]) -> tuple[float, str]:
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


class Clock:
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


class Decoder:
    """Iterates over the frames of a stream; what never becomes a picture comes out without an image, in its place.

    A packet's timestamp waits until the decoder gives the frame that carries it. Around damage a decoder may give
    frames late and out of order, or never: a frame is then held back while an older stamp waits, for as many packets
    as a codec may reorder, after which the older stamp counts as a lost frame. Without damage frames pass at once and
    nothing counts as lost, because codecs also have packets that show nothing (VP8's alternate reference frames).
    Where damage has swallowed whole packets, the hole in the timestamps of a constant-rate stream tells how many.
    """

    def __init__(
        self, container: Any, stream: Any, clock: Clock, name: str, options: ReadOptions, regular: bool
    ) -> None:
        self._container = container
        self._stream = stream
        self._clock = clock
        self._name = name
        self._max_pixels = options.max_pixels
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
        self._colours = reformatter()

    def __iter__(self) -> Iterator[RawFrame]:
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

    def _arrived(self, frame: Any) -> Iterator[RawFrame]:
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

    def _released(self, *, everything: bool) -> Iterator[RawFrame]:
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

    def _passed(self, stamp: int, frame: Any) -> Iterator[RawFrame]:
        """The frames lost before a frame, then the frame itself."""
        yield from self._lost_before(stamp)
        self._previous = stamp
        yield self._shown(frame, stamp)
        if frame.key_frame and stamp > self._damage_at:
            self._damage = ""

    def _shown(self, frame: Any, stamp: int | None) -> RawFrame:
        if frame.is_corrupt:
            return self._lost(stamp)
        if frame.rotation != self._rotation:
            # Read once, not for each frame: PyAV's side data and its frame hold each other until the garbage collector
            # comes, and hundreds of frames would pile up in between.
            self._rotation, self._matrix = frame.rotation, _display_matrix(frame)
        time = self._clock.seconds(stamp, frame.time_base)
        return RawFrame(time, partial(_pixels, frame, self._colours, self._name, self._max_pixels, self._matrix))

    def _lost_before(self, stamp: int) -> Iterator[RawFrame]:
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

    def _lost(self, stamp: int | None) -> RawFrame:
        time = self._clock.seconds(stamp, self._stream.time_base)
        return RawFrame(time, None, f"undecodable: {self._damage}")


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
            yield packet, [], one_line(error)


def _pixels(frame: Any, colours: Any, name: str, max_pixels: int, matrix: np.ndarray | None) -> np.ndarray:
    """A decoded frame as uint8 RGB (height, width, 3), upright."""
    check_pixels(name, frame.height, frame.width, max_pixels)
    image: np.ndarray = colours.reformat(frame, format="rgb24", threads=1).to_ndarray()
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
