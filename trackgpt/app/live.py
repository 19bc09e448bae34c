"""While a run goes: what is written with every frame, and what the person at the terminal sees."""

from __future__ import annotations

import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from trackgpt import ending
from trackgpt.files import writing

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from trackgpt.export.davis import DavisWriter
    from trackgpt.export.overlay import Captions
    from trackgpt.export.records import EventRecord, TrackRecord
    from trackgpt.session.playback import Playback
    from trackgpt.session.results import Result
    from trackgpt.video.writer import VideoWriter

FROM_LOG = ("coco", "mot", "interacttrack", "timeline")
"""Formats that are made at the end, from the log."""

MASKS = "masks"
WAITING = 2
"""Frames that may wait to be written while tracking goes on."""
MOST_WARNINGS = 5


class Outputs:
    """The formats of a run: the overlay video and the masks while frames come, the others from the log at the end.

    A thread draws, encodes and writes frames in order, at most `WAITING` behind, while the next ones are tracked.
    Leaving the block waits for it and makes all formats, also when the run was cut short; then what fails while
    cleaning up does not hide the first failure.

    Args:
        playback: the run; its folder is written to.
        formats: names of `EXPORTERS`.
        sound: a file whose sound the video gets, or None.
        tell: told what a person should know of the outputs, in a line.
    """

    def __init__(
        self,
        playback: Playback,
        formats: Sequence[str],
        sound: Path | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._playback = playback
        self._formats = formats
        self._sound = sound
        self._tell = tell or say
        self._captions: Captions | None = None
        self._masks: DavisWriter | None = None
        self._video: VideoWriter | None = None
        self._thread = ThreadPoolExecutor(1, "trackgpt-write")
        self._waiting: deque[Future[None]] = deque()
        self._failed = False

    def __enter__(self) -> Self:
        if "davis" in self._formats:
            from trackgpt.export.davis import DavisWriter

            self._masks = DavisWriter(self._playback.run.path / MASKS)
        return self

    def write(self, result: Result) -> None:
        """One frame into the masks and the video, soon.

        Raises:
            OutputError: OUT02, this frame or one before it cannot be written; none after that one is.
        """
        self._settle(WAITING)
        self._waiting.append(self._thread.submit(self._write, result))

    def _settle(self, most: int) -> None:
        """Wait until at most so many frames wait, and raise what went wrong with those that do not."""
        while self._waiting and (len(self._waiting) > most or self._waiting[0].done()):
            self._waiting.popleft().result()

    def _write(self, result: Result) -> None:
        if self._failed:
            return  # a hole would be worse than an end
        try:
            if self._masks is not None:
                for each in (*result.revised, result):
                    self._masks.write(each.record, *each.record.size)
            if "mp4" in self._formats:
                self._film(result)
        except BaseException:
            self._failed = True
            raise

    def _film(self, result: Result) -> None:
        from trackgpt.export.overlay import Captions, at_size
        from trackgpt.video.writer import VideoWriter

        self._captions = self._captions or Captions()
        self._captions.hear(result.time, result.events)
        if result.frame is None:
            return
        picture = self._captions.on(result.frame, result.record)
        if self._video is None:
            size = (picture.shape[0], picture.shape[1])
            source, path = self._playback.source, self._playback.run.path / "video.mp4"
            self._video = VideoWriter(path, source.fps, size, pixel_aspect=source.pixel_aspect)
            if self._sound is not None:
                self._video.copy_audio(self._sound)
        self._video.write(at_size(picture, self._video.size), result.time)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failure: Exception | None = None
        for finish in self._finishes():
            try:
                finish()
            except Exception as problem:
                failure = failure or problem
        if failure is not None and error is None:
            raise failure

    def _finishes(self) -> list[Callable[[], object]]:
        """What is left to do, each worth trying when another fails."""
        from trackgpt.export.exporting import export

        names = [name for name in FROM_LOG if name in self._formats] if self._playback.session.frames else []
        return [
            partial(self._settle, 0),
            self._thread.shutdown,
            self._close_video,
            self._report_masks,
            *(partial(export, self._playback.run.path, [name]) for name in names),
        ]

    def _close_video(self) -> None:
        if self._video is not None:
            self._video.close()
            if self._video.audio_note:
                self._tell(self._video.audio_note)

    def _report_masks(self) -> None:
        """Say what the masks could not hold; those of a model that gives boxes alone would all be empty."""
        from trackgpt.export.davis import boxes_alone
        from trackgpt.export.records import read_tracks

        if self._masks is None or not self._playback.session.frames:
            return
        if boxes_alone(read_tracks(self._playback.run.path)):
            with writing(self._masks.folder):
                shutil.rmtree(self._masks.folder)
            self._tell(f"{MASKS}/ is left out, since this model gives boxes without masks; mot and coco hold them")
        elif self._masks.frames_overlapping:
            count = self._masks.frames_overlapping
            self._tell(f"objects overlap on {count} frames; in {MASKS}/ the higher score has the pixel")


class Printer:
    """Prints a run's events: answers on stdout, warnings on stderr; as JSON, every event and frame on stdout.

    Args:
        quiet: no warnings and no notes; kept.
        as_json: print JSON lines instead of answers.

    Attributes:
        paused: a block in which nothing is drawn at the terminal, so that a person can be asked something.
    """

    def __init__(self, quiet: bool, as_json: bool) -> None:
        self.quiet = quiet
        self._as_json = as_json
        self.paused: Callable[[], AbstractContextManager[object]] = nullcontext
        self._warnings = 0
        self._begin = 0
        self._asked = False

    def event(self, event: EventRecord) -> None:
        """Print what a person should read of an event; an answer is shown when it is one to an instruction."""
        if self._as_json:
            print(event.to_json(), flush=True)
        elif event.type == "start":
            self._begin = event.index
            for text in event.data.get("notes", ()):
                self.note(text)
        elif event.type == "instruction":
            self._asked = True
            if "said" in event.data and "chosen" not in event.data:
                said, words = event.data["said"], event.data["text"]
                kind = event.data.get("meant", event.data["kind"])
                otherwise = "".join(f"; else {other}" for other in event.data.get("instead", ()))
                self.note(f'frame {event.index}: "{said}" is read as {kind}{f": {words}" if words else ""}{otherwise}')
        elif event.type == "answer" and self._asked:
            self._asked = False
            when = "" if event.index == self._begin else f"{event.index}: "
            if answer := " ".join(str(event.data["text"]).split()):  # what was pointed at has none
                print(when + answer, flush=True)
        elif event.type == "revise":
            self.note(f"frames {event.data['first']} to {event.data['last']} are amended: {event.data['verdict']}")
        elif event.type == "warn":
            self._warn(event)

    def note(self, text: str) -> None:
        """Print what is worth knowing and no reason to worry."""
        if not self.quiet:
            say(f"note: {text}")

    def frame(self, record: TrackRecord) -> None:
        """Print a frame's record, as JSON only."""
        if self._as_json:
            print(record.to_json(), flush=True)

    def _warn(self, event: EventRecord) -> None:
        self._warnings += 1
        if self.quiet or self._warnings > MOST_WARNINGS + 1:
            return
        code = f"{event.data['code']}: " if "code" in event.data else ""
        more = "more warnings are in events.jsonl"
        say(f"warning: {code}{event.data['text']}" if self._warnings <= MOST_WARNINGS else more)


def say(text: str) -> None:
    """One line of talk, on stderr."""
    ending.say("trackgpt", text)


@contextmanager
def progress(
    total: int | None, quiet: bool, console: Console | None = None, printer: Printer | None = None
) -> Iterator[Callable[[Result], None]]:
    """A bar on stderr with frames per second and the lowest score; only on a terminal.

    Args:
        total: how many frames to expect, or None.
        quiet: no bar.
        console: where to draw, stderr by default.
        printer: its `paused` takes the bar away for as long.

    Yields:
        what to call with every result.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn())
    console = console or Console(stderr=True)
    shown = console.is_terminal and not quiet
    # Rich would send what is printed to stdout to its own console, stderr: data must not go there.
    redirect = sys.stdout.isatty()
    with Progress(*columns, console=console, disable=not shown, redirect_stdout=redirect) as bar:
        task = bar.add_task("tracking", total=total, note="")
        if printer is not None:
            printer.paused = partial(_without, bar)

        def advance(result: Result) -> None:
            score = min((o.score for o in result.objects if o.score is not None), default=None)
            speed = bar.tasks[0].speed
            notes: list[Any] = [f"{speed:.0f} fps"] if speed else []
            notes += [f"score {score:.2f}"] if score is not None else []
            bar.update(task, advance=1, note="  ".join(notes))

        yield advance


@contextmanager
def _without(bar: Progress) -> Iterator[None]:
    bar.stop()
    try:
        yield
    finally:
        bar.start()
