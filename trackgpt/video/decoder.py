"""Video files by PyAV: their frames, the rate and the times of frames, and what is left where a file is damaged.

Video without a colour matrix tag is read as BT.601, as FFmpeg and OpenCV do.
"""

from __future__ import annotations

import heapq
import itertools
import math
import statistics
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from trackgpt.errors import InputError
from trackgpt.video.frames import (
    DEFAULT_FPS,
    FrameSource,
    RawFrame,
    ReadOptions,
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


class ContainerSource(FrameSource):
    """A video in a container that PyAV has open.

    Args of the constructor:
        video: what `open_video` gives; closed with the source.
        times: see `_packet_times`; empty where the source cannot be read twice.
    """

    def __init__(self, name: str, video: tuple[Any, Any], options: ReadOptions, times: Sequence[float] = ()) -> None:
        super().__init__(name, options)
        self._container, self._stream = video
        context = self._stream.codec_context
        check_pixels(name, context.height, context.width, options.max_pixels)
        believed, note = believed_fps(self._stream, times) if _timed(self._container) else stated_fps(self._stream)
        if options.fps is None:
            self.fps, self.fps_note = believed, note
        self.pixel_aspect = pixel_aspect(self._stream)
        self.notes = _other_tracks(self._container, self._stream)
        self._clock = Clock(believed)
        regular = _is_regular(times, believed)
        self._decoder = Decoder(self._container, self._stream, self._clock, name, options, regular)

    def close(self) -> None:
        """Release the file; iteration ends."""
        super().close()
        self._container.close()

    def _begin(self) -> Self:
        super()._begin()
        if self._decoder.sideways:
            self.pixel_aspect = 1 / self.pixel_aspect
        return self

    def _describe(self) -> str:
        return f"container {self._container.format.name}, codec {self._stream.codec_context.name}"

    def _raw_frames(self) -> Iterator[RawFrame]:
        yield from self._decoder


class FileSource(ContainerSource):
    """A video file, decoded by PyAV."""

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self._path = path
        self._version = _version(path)
        super().__init__(path.name, _open_file(path), options, _packet_times(path))
        self._promised = self._stream.frames
        if hidden := _hidden(self._container, self._stream):
            self.notes.append(f"its edit list leaves out {hidden} of {self._promised} frames")
            self._promised -= hidden
        self._duration = _duration(self._container, self._stream)
        total = self._promised or (round(self._duration * self._clock.fps) if self._duration else 0)
        self.frames_hint = options.count(total) or None

    def digest(self) -> str:
        """sha256 of the file's bytes."""
        return sha256([self._path], with_names=False)

    def _raw_frames(self) -> Iterator[RawFrame]:
        yield from self._decoder
        if _version(self._path) != self._version:
            self.end_note = "the file changed while it was read: what was tracked may be neither the old nor the new"
        elif self._promised > self._seen:
            self.end_note = f"the header promises {self._promised} frames, the file holds {self._seen}"
        elif not self._promised and self._duration and self._clock.last + 2 / self._clock.fps + 0.5 < self._duration:
            self.end_note = f"the header promises {self._duration:.1f} s, the file ends after {self._clock.last:.1f} s"


def _open_file(path: Path) -> tuple[Any, Any]:
    # "file:" keeps FFmpeg from reading a colon in a name as a protocol.
    return open_video(f"file:{path}", path.name, lambda: _head(path))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(512)


def _version(path: Path) -> tuple[int, int] | None:
    """What changes when a file is written to; None where it has gone."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def open_video(target: Any, name: str, head: Callable[[], bytes]) -> tuple[Any, Any]:
    """The open container and its video stream.

    Args:
        target: what PyAV opens: a text or an object with `read`.
        name: of the source, for messages.
        head: gives the first bytes, which tell what it is instead of a video.

    Raises:
        InputError: IN02, it is no video.
    """
    import av

    try:
        # The whitelist keeps the file from pulling in others.
        container = av.open(target, options={"protocol_whitelist": "file"})
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _not_video(name, head(), error) from error
    if container.format.name in _NOT_VIDEO:
        container.close()
        raise InputError(f"{name}: no frames could be decoded (text or a playlist, not a video)", code="IN02")
    stream = default_track(container.streams.video)
    if stream is None or stream.codec_context is None:
        held = listed([f"{s.type} {s.codec_context.name if s.codec_context else '?'}" for s in container.streams])
        found = f"container {container.format.name}, {'codec unknown' if stream else 'no video stream'}: {held}"
        container.close()
        raise InputError(f"{name}: no frames could be decoded ({found}). Check that it plays", code="IN02")
    return container, stream


def default_track(tracks: Sequence[Any]) -> Any:
    """The track that a player shows: the first one marked as default, else the first; None without any.

    Cover pictures do not count, nor does a track of an unknown codec where there is another one.
    """
    from av.stream import Disposition

    shown = [track for track in tracks if not track.disposition & Disposition.attached_pic]
    known = [track for track in shown if track.codec_context is not None] or shown
    marked = [track for track in known if track.disposition & Disposition.default]
    return next(iter(marked or known), None)


def _other_tracks(container: Any, stream: Any) -> list[str]:
    """The sentence that says which video tracks are not read, if any."""
    from av.stream import Disposition

    others = [s for s in container.streams.video if s is not stream and not s.disposition & Disposition.attached_pic]
    if not others:
        return []
    return [f"it has {len(others) + 1} video tracks, of which number {stream.index} is read"]


def pixel_aspect(stream: Any) -> Fraction:
    """Width of a stored pixel as shown, by its height; 1 where the stream does not say."""
    found = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    return Fraction(found) if found and found > 0 else Fraction(1)


def _hidden(container: Any, stream: Any) -> int:
    """How many frames an mp4's edit list leaves out."""
    if not container.format.name.startswith("mov"):
        return 0
    return sum(entry.is_discard for entry in stream.index_entries)


def _not_video(name: str, head: bytes, error: Exception) -> InputError:
    if not head:
        found = "it is empty"
    elif all(byte in b"\t\r\n\f" or byte >= 32 for byte in head):
        found = "it holds text"
    else:
        found = f"not a video, or its index is missing: {one_line(error)}"
    return InputError(f"{name}: no frames could be decoded ({found}). Wanted a video, e.g. mp4", code="IN02")


def _duration(container: Any, stream: Any) -> float:
    """Seconds of video that the header promises; 0.0 where only a longer companion (audio) could have set it."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration and len(container.streams) == 1:
        return float(container.duration / 1_000_000)
    return 0.0


def _timed(container: Any) -> bool:
    """Whether the container has a clock at all: a stream as it left the encoder has none."""
    import av

    return not container.format.flags & av.format.Flags.no_timestamps.value


def stated_fps(stream: Any) -> tuple[float, str]:
    """Frames per second of a stream without timestamps: what its codec states, or a guess and the note that says so."""
    stated = _as_float(stream.codec_context.framerate)
    if 0 < stated <= 1000:
        return stated, ""
    guessed = _as_float(stream.guessed_rate)
    guess = guessed if 0 < guessed <= 1000 else DEFAULT_FPS
    return guess, f"no timestamps and no fps in the stream; {guess:g} is a guess, pass --fps"


def _has_timestamps(container: Any) -> bool:
    """AVI stores none: what FFmpeg reports there for packets is their order of decoding."""
    return container.format.name != "avi"


def _packet_times(path: Path) -> list[float]:
    """Times of the first packets in seconds, sorted, without decoding; empty where the container has none."""
    import av

    times: list[float] = []
    container, stream = _open_file(path)
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

    @property
    def sideways(self) -> bool:
        """Whether the last frame was turned by a quarter, so that its rows were columns."""
        return self._matrix is not None and abs(float(self._matrix[1])) > abs(float(self._matrix[0]))

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
        except (av.error.InvalidDataError, av.error.EOFError, av.error.MemoryError):
            # The container is cut or broken here, or names a size that cannot be; what comes before has been given.
            return
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
