"""Pipes and standard input: read once, from the first byte to the last, as they come."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from trackgpt.errors import InputError, UsageError
from trackgpt.video.decoder import ContainerSource, FileSource, open_video
from trackgpt.video.frames import RawFrame, ReadOptions, SourceKind

STDIN = "-"
_HEAD = 512
_PATIENCE = 0.2
"""Seconds after which a reader that waits looks whether anybody still wants the data."""


class PipeSource(ContainerSource):
    """A video that comes through a pipe; frames have the stream's own times.

    Args of the constructor:
        file: unbuffered, open for reading; closed with the source.
    """

    kind: SourceKind = "pipe"

    def __init__(self, name: str, file: IO[bytes], options: ReadOptions) -> None:
        self._reader = _Reader(file)
        try:
            video = open_video(self._reader, name, lambda: self._reader.head)
            super().__init__(name, video, options)
        except InputError as error:
            file.close()
            self._reader.check()
            raise InputError(f"{error.message}{self._advice()}", error.code) from error
        except BaseException:
            file.close()
            raise
        self.notes = ["read once, from a pipe: no checksum, no sound", *self.notes]
        self.frames_hint = options.count(options.end) if options.end is not None else None

    def _raw_frames(self) -> Iterator[RawFrame]:
        for raw in super()._raw_frames():
            self._reader.check()
            yield raw
        self._reader.check()

    def _advice(self) -> str:
        if self._reader.head[4:8] != b"ftyp":
            return ""
        return "; through a pipe an mp4 needs its index in front: ffmpeg -i IN -c copy -movflags +faststart OUT"

    def _describe(self) -> str:
        return super()._describe() + self._advice()

    def stop(self) -> None:
        """End a wait for data in another thread."""
        self._reader.stopped = True

    def close(self) -> None:
        """Close the pipe; iteration ends."""
        self.stop()
        super().close()
        self._reader.file.close()


class _Reader:
    """What PyAV reads from: no seeking, and a wait that ends when nobody wants the data any more.

    PyAV swallows Ctrl-C in here, so it is kept for `check`.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.head = b""
        self.stopped = self._interrupted = False

    def check(self) -> None:
        """Raise the interrupt that came while a read waited."""
        if self._interrupted:
            raise KeyboardInterrupt

    def read(self, size: int) -> bytes:
        """At most so many bytes, as soon as there are any; none at the end."""
        try:
            while sys.platform != "win32" and not self.stopped and not select.select([self.file], [], [], _PATIENCE)[0]:
                pass
            data = b"" if self.stopped else self.file.read(size)
        except KeyboardInterrupt:
            self.stopped = self._interrupted = True
            return b""
        if len(self.head) < _HEAD:
            self.head += data[: _HEAD - len(self.head)]
        return data


def pipe_source(path: Path, options: ReadOptions) -> PipeSource:
    """A named pipe; waits until somebody writes to it.

    Raises:
        InputError: IN02, what comes is no video.
    """
    return PipeSource(path.name, path.open("rb", buffering=0), options)


def stdin_source(options: ReadOptions) -> ContainerSource:
    """Standard input; a file that the shell has put there is read as a file.

    Raises:
        UsageError: it is a terminal.
        InputError: IN02, what comes is no video.
    """
    if os.isatty(0):
        raise UsageError("standard input is a terminal; pipe a video into it: cat race.ts | trackgpt track -")
    if sys.platform == "linux" and stat.S_ISREG(os.fstat(0).st_mode):
        return FileSource(Path("/dev/stdin"), options)
    return PipeSource("stdin", open(0, "rb", buffering=0, closefd=False), options)
