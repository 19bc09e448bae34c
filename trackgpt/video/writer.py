"""H.264 video that plays everywhere, keeps its timestamps, and survives being killed.

While frames arrive they go into `<stem>.part.mp4`, a fragmented file that is readable up to its last full fragment
(about a second) even after kill -9. Closing copies the encoded packets, without encoding again, into an ordinary
faststart file, which then takes the final name in one step: under that name there is never half a video.

The same frames give the same pictures at the same times, and nearly always the same bytes: no dates, no B-frames, and
one encoder thread, because with several x264 places B-frames by how far its threads have come. Even so one run in
thirty or so differs in the last bits of some block.
"""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from trackgpt.errors import OutputError, UsageError
from trackgpt.video.decoder import default_track
from trackgpt.video.frames import reformatter

TIME_BASE = Fraction(1, 90_000)
_HD_HEIGHT = 720


@dataclass(frozen=True)
class _Colour:
    """How RGB becomes YUV: swscale's name of the matrix and the code points of ITU-T H.273 that tag the stream."""

    matrix: str
    code: int


_BT601 = _Colour("ITU601", 6)
_BT709 = _Colour("ITU709", 1)
_LIMITED_RANGE = 1


class VideoWriter:
    """Writes RGB frames as H.264 yuv420p in an mp4 file; a context manager.

    Leaving the block without an error publishes the file. Leaving it with one keeps what was written, readable, as
    `part_path`, and leaves the final name alone.

    Args:
        path: where the finished video goes; ends in .mp4.
        fps: nominal frames per second; sets the distance of key frames and the duration of the last frame. The times
            given to `write` decide when each frame is shown.
        size: (height, width) of the frames in pixels. Odd sides are padded to even ones by repeating the last row
            or column.
        pixel_aspect: width of a pixel as shown, by its height.
        crf: x264's constant quality, 0 (lossless) to 51.
        preset: x264's trade of speed against size.
        overwrite: replace an existing file when the new one is complete.
        title: what players show, and programs read; empty for none.

    Attributes:
        frames: how many frames were written.
        part_path: the file that grows while frames arrive.
        audio_note: which sound of the source was not copied, and why, else "".

    Raises:
        OutputError: OUT01 the file exists, OUT02 it cannot be written.
        UsageError: a size, rate or suffix that makes no video.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        size: tuple[int, int],
        *,
        pixel_aspect: Fraction = Fraction(1),
        crf: int = 18,
        preset: str = "veryfast",
        overwrite: bool = False,
        title: str = "",
    ) -> None:
        self.path = Path(path)
        self.part_path = self.path.with_name(f"{self.path.stem}.part.mp4")
        self.size = size
        self.frames = 0
        self.audio_note = ""
        self._title = title
        _check_request(self.path, fps, size, overwrite)
        self._rate = max(Fraction(fps).limit_denominator(1001), Fraction(1, 1001))
        self._first_time = 0.0
        self._last_time = -math.inf
        self._last_stamp = -1
        self._audio: Path | None = None
        self._colour = _BT709 if size[0] >= _HD_HEIGHT else _BT601
        self._container, self._stream = self._open_part(crf, preset, pixel_aspect)
        self._colours = reformatter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._close_part()

    def write(self, image: np.ndarray, time: float) -> None:
        """Append a frame.

        Args:
            image: uint8 RGB, (height, width, 3), of the writer's size.
            time: seconds, greater than that of the frame before. The first frame's time becomes the file's zero.

        Raises:
            OutputError: OUT02 the disk refuses.
            UsageError: the frame or its time does not fit.
        """
        import av

        if self._container is None:
            raise UsageError(f"{self.path.name}: the video is closed, no frame can follow")
        self._check_frame(image, time)
        if not self.frames:
            self._first_time = time
        stamp = max(round((time - self._first_time) / TIME_BASE), self._last_stamp + 1)
        picture = self._colours.reformat(
            av.VideoFrame.from_ndarray(_even(image), format="rgb24"),
            format="yuv420p",
            dst_colorspace=self._colour.matrix,
            dst_color_range="MPEG",
            threads=1,
        )
        picture.pts, picture.time_base = stamp, TIME_BASE
        self._encode(picture)
        self._last_stamp, self._last_time = stamp, time
        self.frames += 1

    def copy_audio(self, source_path: str | Path) -> None:
        """Take the sound of this file, without encoding it again, when the video is closed.

        The frame times must be those of the source (`SourceFrame.time` without an fps override): sound from the first
        frame's time to the end of the last frame is copied. Without sound in the source nothing happens; sound that
        mp4 cannot hold is left out and `audio_note` says so.
        """
        self._audio = Path(source_path)

    def close(self) -> None:
        """Finish the video and give it its final name. Closing twice is allowed.

        Raises:
            OutputError: OUT02 nothing was written, or the disk refuses; what was written stays in `part_path`.
        """
        if self._container is None:
            return
        self._close_part()
        if not self.frames:
            self.part_path.unlink(missing_ok=True)
            raise OutputError(f"{self.path}: no frame was written, so there is no video", code="OUT02")
        finished = self.path.with_name(f"{self.path.stem}.finished.mp4")
        try:
            self._publish(finished)
        finally:
            finished.unlink(missing_ok=True)

    def _publish(self, finished: Path) -> None:
        import av

        try:
            self._remux_with_sound(finished)
            os.replace(finished, self.path)
            self.part_path.unlink()
        except (av.error.FFmpegError, OSError) as error:
            raise self._refused(error, f"; the frames are kept in {self.part_path.name}") from error

    def _open_part(self, crf: int, preset: str, pixel_aspect: Fraction) -> tuple[Any, Any]:
        import av

        options = {
            "movflags": "frag_keyframe+empty_moov+default_base_moof",
            "fflags": "+bitexact",
            "flush_packets": "1",
        }
        x264 = {
            "preset": preset,
            "crf": str(crf),
            "threads": "1",
            "flags": "+bitexact",
            "x264-params": f"bframes=0:keyint={max(round(self._rate), 1)}:lookahead-threads=1",
        }
        try:
            container = av.open(f"file:{self.part_path}", "w", format="mp4", options=options)
            stream = container.add_stream("libx264", rate=self._rate, options=x264)
            height, width = self.size
            stream.height, stream.width = height + height % 2, width + width % 2
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            context.time_base = TIME_BASE
            context.colorspace = context.color_primaries = context.color_trc = self._colour.code
            context.color_range = _LIMITED_RANGE
            if pixel_aspect != 1:
                context.sample_aspect_ratio = pixel_aspect
            container.start_encoding()  # creates the file, so that a place that cannot be written is known now
        except (av.error.FFmpegError, OSError) as error:
            raise self._refused(error) from error
        return container, stream

    def _encode(self, picture: Any) -> None:
        import av

        try:
            for packet in self._stream.encode(picture):
                self._container.mux(packet)
        except (av.error.FFmpegError, OSError) as error:
            raise self._refused(error) from error

    def _close_part(self) -> None:
        """Empty the encoder and end the fragmented file."""
        if self._container is None:
            return
        try:
            if self.frames:
                self._encode(None)
        finally:
            self._container.close()
            self._container = None

    def _remux_with_sound(self, finished: Path) -> None:
        """The finished file with the wanted sound, or without when the sound cannot be read or held."""
        import av

        if self._audio is None:
            self._remux(finished, None)
            return
        try:
            with av.open(f"file:{self._audio}", options={"protocol_whitelist": "file"}) as sound:
                self._remux(finished, sound)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            # Some codecs are refused only by the muxer's header. If the disk is the cause, this fails too, and says so.
            self.audio_note = f"no sound copied from {self._audio.name}: {error}"
            self._remux(finished, None)

    def _remux(self, finished: Path, sound: Any) -> None:
        """Copy the packets of the part, and of the sound's default track if there is one, into a faststart file."""
        import av

        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        with av.open(f"file:{self.part_path}") as part, av.open(f"file:{finished}", "w", "mp4", options) as target:
            if self._title:
                target.metadata["title"] = self._title
            video = part.streams.video[0]
            tracks = [_packets(part, video, target.add_stream_from_template(video), 0.0, math.inf)]
            if sound is not None and sound.streams.audio:
                tracks.append(self._sound_packets(sound, target))
            for _, packet in heapq.merge(*tracks, key=lambda timed: timed[0]):
                target.mux(packet)

    def _sound_packets(self, sound: Any, target: Any) -> Iterator[tuple[float, Any]]:
        audio, video = default_track(sound.streams.audio), default_track(sound.streams.video)
        if len(sound.streams.audio) > 1:
            self.audio_note = f"of {len(sound.streams.audio)} sound tracks number {audio.index} is copied"
        copy = target.add_stream_from_template(audio)
        begin = self._first_time
        if video is not None and video.start_time is not None:
            begin += float(video.start_time * video.time_base)
        length = self._last_time - self._first_time + float(1 / self._rate)
        return _packets(sound, audio, copy, begin, length)

    def _check_frame(self, image: np.ndarray, time: float) -> None:
        if image.dtype != np.uint8 or image.shape != (*self.size, 3):
            raise UsageError(
                f"{self.path.name}: frame {self.frames} is {image.dtype} {image.shape}, wanted uint8 {(*self.size, 3)}"
            )
        if not math.isfinite(time) or time <= self._last_time:
            raise UsageError(
                f"{self.path.name}: frame {self.frames} has time {time}, wanted more than {self._last_time}"
            )

    def _refused(self, error: Exception, kept: str = "") -> OutputError:
        cause = getattr(error, "strerror", None) or str(error)
        return OutputError(f"{self.path}: cannot be written ({cause}){kept}. Check space and permissions", code="OUT02")


def _packets(container: Any, stream: Any, target: Any, begin: float, length: float) -> Iterator[tuple[float, Any]]:
    """Packets of a stream between `begin` and `begin + length` seconds, moved to zero, with their time in seconds."""
    base = stream.time_base
    shift = round(begin / base)
    for packet in container.demux(stream):
        if packet.pts is None or packet.dts is None or packet.pts < shift:
            continue
        if float((packet.pts - shift) * base) >= length:
            return
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        packet.stream = target
        yield float(packet.dts * base), packet


def _even(image: np.ndarray) -> np.ndarray:
    """Pad height and width to even numbers by repeating the edge; yuv420p halves its colour planes."""
    odd_height, odd_width = image.shape[0] % 2, image.shape[1] % 2
    if not (odd_height or odd_width):
        return np.ascontiguousarray(image)
    return np.pad(image, ((0, odd_height), (0, odd_width), (0, 0)), mode="edge")


def _check_request(path: Path, fps: float, size: tuple[int, int], overwrite: bool) -> None:
    if path.suffix.lower() != ".mp4":
        raise UsageError(f"{path}: H.264 video is written as mp4, wanted a name that ends in .mp4")
    if not (math.isfinite(fps) and fps > 0):
        raise UsageError(f"{path.name}: fps is {fps}, wanted a positive number of frames per second")
    if min(size) < 1:
        raise UsageError(f"{path.name}: size is {size}, wanted a height and a width of at least 1")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}", code="OUT02")
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists already. Choose another name or pass --overwrite", code="OUT01")
