"""Network streams and cameras: frames as they arrive, joined again when the sender drops."""

from __future__ import annotations

import glob
import itertools
import re
import sys
import time as wall
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Condition, Thread
from typing import Any

from trackgpt.errors import InputError, UsageError
from trackgpt.video.decoder import Clock, Decoder, believed_fps
from trackgpt.video.frames import FrameSource, RawFrame, ReadOptions, SourceFrame, SourceKind, listed, one_line

STREAM_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtp", "http", "https", "udp", "tcp", "srt")
RETRY_DELAYS = (0.5, 1.0, 2.0)
STREAM_TIMEOUT = 10.0


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
        options: ReadOptions,
        kind: SourceKind = "stream",
        sleep: Callable[[float], None] = wall.sleep,
    ) -> None:
        super().__init__(name, options)
        self.kind = kind
        self._opener = opener
        self._sleep = sleep
        self._container: Any = None
        self._newest: Newest | None = None
        self.frames_hint = options.count(options.end) if options.end is not None else None

    def close(self) -> None:
        """Disconnect; iteration ends."""
        super().close()
        self._hang_up()

    def leave_out_late(self) -> None:
        """From here on only the newest frame that has arrived is given; indices count all that came."""
        self._newest = Newest(self._frames)
        self._frames = iter(self._newest)

    def stop(self) -> None:
        """End a wait for data in another thread; iteration ends."""
        if self._newest is not None:
            self._newest.stop()

    def _hang_up(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def _describe(self) -> str:
        return f"{self.kind}, connected but silent"

    def _raw_frames(self) -> Iterator[RawFrame]:
        """Frames across reconnections; retries are counted anew after every frame that arrives.

        Raises:
            InputError: IN06 when the stream is lost and does not come back.
        """
        import av

        clock: Clock | None = None
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
                    yield RawFrame(raw.time, raw.load, "; ".join(part for part in (raw.problem, problem) if part))
                    failures, lost_at, problem = 0, 0.0, ""
                if self._container.duration:
                    return  # a recording served over the network, played to its end
                cause = "the sender ended it"
            except (av.error.FFmpegError, OSError, ValueError) as error:
                cause = one_line(error)
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

    def _new_clock(self, stream: Any) -> Clock:
        if self._options.fps is None:
            self.fps, self.fps_note = believed_fps(stream, [])
        return Clock(self.fps)

    def _joined(self, stream: Any, clock: Clock) -> Iterator[RawFrame]:
        """Frames from the first picture on: joining between two key frames is no damage."""
        frames = Decoder(self._container, stream, clock, self.name, self._options, regular=False)
        return itertools.dropwhile(lambda raw: raw.load is None, frames)

    def _gone(self, cause: str) -> InputError:
        after = f"lost after {self._seen} frames" if self._seen else "cannot be opened"
        tries = f"{len(RETRY_DELAYS)} retries"
        return InputError(f"{self.name}: the {self.kind} {after}, {tries} failed ({cause})", code="IN06")


class Newest:
    """An iterator over the newest of frames that come by themselves; a thread takes them as they come.

    What goes wrong with taking them is raised after the last one.
    """

    def __init__(self, frames: Iterator[SourceFrame]) -> None:
        self._frames = frames
        self._changed = Condition()
        self._last: SourceFrame | None = None
        self._failure: BaseException | None = None
        self._ended = False
        self._thread = Thread(target=self._take, name="trackgpt-newest", daemon=True)
        self._thread.start()

    def _take(self) -> None:
        try:
            for frame in self._frames:
                with self._changed:
                    self._last = frame
                    self._changed.notify()
                    if self._ended:
                        return
        except Exception as error:
            self._failure = error
        with self._changed:
            self._ended = True
            self._changed.notify()

    def __iter__(self) -> Iterator[SourceFrame]:
        return self

    def __next__(self) -> SourceFrame:
        with self._changed:
            self._changed.wait_for(lambda: self._last is not None or self._ended)
            frame, self._last = self._last, None
        if frame is not None:
            return frame
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        raise StopIteration

    def stop(self) -> None:
        """Take no more; waits for a frame that is being read."""
        with self._changed:
            self._ended, self._last = True, None
            self._changed.notify()
        self._thread.join(2 * STREAM_TIMEOUT)


def stream_source(url: str, options: ReadOptions) -> StreamSource:
    """The stream at an address; its name is the address without user and password.

    Raises:
        UsageError: the kind of address is not one of `STREAM_SCHEMES`.
    """
    scheme = url.partition("://")[0]
    if scheme.lower() not in STREAM_SCHEMES:
        raise UsageError(f"{url}: unknown kind of address {scheme}://, known: {', '.join(STREAM_SCHEMES)}")
    return StreamSource(_without_credentials(url), partial(_open_stream, url), options)


def _open_stream(url: str) -> Any:
    import av

    options = {"rtsp_transport": "tcp"} if url.lower().startswith("rtsp") else {}
    return av.open(url, options=options, timeout=STREAM_TIMEOUT)


def _without_credentials(url: str) -> str:
    return re.sub(r"(://)[^/@]*@", r"\1", url)


def camera_source(index: int, options: ReadOptions) -> StreamSource:
    """The camera with this index: /dev/videoN on Linux, device N of AVFoundation or DirectShow elsewhere.

    Raises:
        InputError: IN01 when Linux has no such device.
    """
    if index < 0:
        raise UsageError(f"camera index is {index}, wanted 0 or more")
    if sys.platform.startswith("linux") and not Path(f"/dev/video{index}").exists():
        devices = listed(sorted(glob.glob("/dev/video*"))) or "none"
        raise InputError(f"camera {index}: /dev/video{index} not found. Devices here: {devices}", code="IN01")
    return StreamSource(f"camera {index}", partial(_open_camera, index), options, kind="camera")


def _open_camera(index: int) -> Any:
    import av

    if sys.platform == "darwin":
        return av.open(str(index), format="avfoundation", options={"framerate": "30"})
    if sys.platform == "win32":
        return av.open(f"video={index}", format="dshow")
    return av.open(f"/dev/video{index}", format="v4l2")
