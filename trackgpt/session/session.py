"""A person, a tracker and a source: say something, watch results come, export. Every way in goes through here.

The command line, Python and evaluation of files share this class, which is why the same run gives the same
`tracks.jsonl` from a file, a folder and Python.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from trackgpt.errors import OutputError, UsageError
from trackgpt.export.exporting import check_formats, export
from trackgpt.export.records import (
    EVENTS,
    RUN,
    TRACKS,
    EventRecord,
    EventType,
    ObjectRecord,
    RunFolder,
    State,
    TrackRecord,
    record_of,
)
from trackgpt.files import writing
from trackgpt.geometry.masks import decode_rle
from trackgpt.session.ahead import Lookahead, default_lookahead, seen
from trackgpt.session.speculation import SpeculatingTracker
from trackgpt.settings import to_dict
from trackgpt.types import Prediction, Prompt
from trackgpt.version import installed
from trackgpt.video.frames import FrameSource, SourceFrame
from trackgpt.video.source import open_source

if TYPE_CHECKING:
    from trackgpt.online import ReasoningTracker, TrackState
    from trackgpt.systems.trackgpt import TrackGPT

CLOSE = 1e-6
"""Seconds by which the time of a frame may miss the time it was asked for."""

PACKAGES = ("torch", "transformers", "numpy", "opencv-python-headless", "av")


@dataclass(frozen=True)
class Object:
    """One tracked object on one frame.

    Attributes:
        id: stable over the run, from 1.
        box: x1, y1, x2, y2 in pixels of the frame, or None when absent.
        purport: the model's own estimate of its mask's IoU, in [0, 1].
        state: "tracked", "suspect" (below the threshold of rethinking) or "absent".
    """

    id: int
    box: tuple[float, float, float, float] | None
    purport: float | None
    state: str
    rle: str | None = field(repr=False)
    size: tuple[int, int] = field(repr=False)

    @property
    def mask(self) -> np.ndarray:
        """The mask, bool (height, width), decoded when asked for."""
        return np.zeros(self.size, bool) if self.rle is None else decode_rle(self.rle, *self.size)


@dataclass(frozen=True)
class Result:
    """One frame of a session.

    Attributes:
        index: of the source frame, from 0.
        time: seconds of the source.
        objects: what is tracked, present or not.
        events: what happened on this frame (answers, rethinks, lost, found, warnings).
        problem: why the frame could not be read, or what was odd about it, else "".
        frame: the frame itself, uint8 RGB (height, width, 3), or None when it could not be read.
        prediction: the same result with masks as arrays, or None when nothing is tracked yet.
    """

    index: int
    time: float
    objects: tuple[Object, ...]
    events: tuple[EventRecord, ...]
    problem: str = ""
    frame: np.ndarray | None = field(default=None, repr=False)
    prediction: Prediction | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Reply:
    """What the model says to an instruction.

    Attributes:
        text: the answer.
        objects: the targets it names, on the frame it was said about; empty when nothing was found.
    """

    text: str
    objects: tuple[Object, ...]


@dataclass(frozen=True)
class Planned:
    """An instruction for a frame still to come, by index or by second of the source."""

    text: str
    frame: int | None
    second: float | None

    def due(self, index: int, time: float) -> bool:
        """True on the wanted frame and after it: the frame itself may be unreadable, or left out by a stride."""
        if self.second is not None:
            return time >= self.second - CLOSE
        return index >= (self.frame or 0)

    def __str__(self) -> str:
        return f"frame {self.frame}" if self.second is None else f"second {self.second:g}"


class InstructionTracker:
    """A model ready to be told what to track; several sessions may share it."""

    def __init__(self, model: TrackGPT, name: str = "trackgpt") -> None:
        self.model = model
        self.name = name

    @classmethod
    def from_pretrained(cls, model: str | Path = "nano", device: str = "auto", **execution: Any) -> InstructionTracker:
        """Load a model by its name and say how it runs (see `trackgpt.hub.load_model`)."""
        from trackgpt.hub import load_model

        return cls(load_model(model, device, **execution), str(model))

    def check(self, text: str) -> str:
        """An instruction as the model will read it: without markup and control characters.

        Raises:
            UsageError: NL01 it is empty; NL02 it is too long.
        """
        return self.model.brain.check(text)

    def open(
        self,
        source: str | Path | int | Iterable[np.ndarray],
        *,
        out: str | Path | None = None,
        overwrite: bool = False,
        rethink: bool = True,
        lookahead: Lookahead | None = None,
        **reading: Any,
    ) -> Session:
        """Open a video file, folder, glob, camera index, stream URL, or any iterable of uint8 RGB arrays.

        Args:
            source: see `trackgpt.video.source.open_source`.
            out: the run folder for the log; a temporary one by default, deleted with the session.
            overwrite: replace a run that is there.
            rethink: False never asks the brain again, whatever the purport score.
            lookahead: how far reading and encoding run before tracking; see `default_lookahead`.
            reading: `fps`, `start`, `end`, `stride`, `max_pixels`, `allow_gaps` of `open_source`.

        Raises:
            InputError: the source cannot be read; no folder has been made then.
            OutputError: `out` exists or cannot be written.
        """
        frames = open_source(source, **reading)
        try:
            options: dict[str, Any] = {"overwrite": overwrite, "rethink": rethink, "lookahead": lookahead}
            return Session(self, frames, out=out, reopen=(source, reading), **options)
        except BaseException:
            frames.close()
            raise


class Session:
    """One pass over one source. Say at least one thing, then iterate; saying more in between changes the target.

    Made by `InstructionTracker.open`. One frame is held at a time, so memory does not grow with the source.

    Attributes:
        source: what is read.
        online: the loop, with the state of the track.
        lookahead: how far reading and encoding run before tracking.
        run: the folder the log is written to.
        on_event: called with every event as it happens; does nothing unless set.
        frames: how many frames have been recorded.
        rethinks: how often the brain was asked again.
        warnings: how many warnings the log holds.
        found: some target has been seen on some frame.
    """

    def __init__(
        self,
        tracker: InstructionTracker,
        source: FrameSource,
        *,
        out: str | Path | None = None,
        overwrite: bool = False,
        rethink: bool = True,
        lookahead: Lookahead | None = None,
        reopen: tuple[Any, dict[str, Any]] | None = None,
    ) -> None:
        self.source = source
        self.online: ReasoningTracker = tracker.model.tracker()
        if not rethink:
            self.online.arbiter.config = replace(self.online.arbiter.config, enabled=False)
        self.on_event: Callable[[EventRecord], None] = _ignore
        self.frames = self.rethinks = self.warnings = 0
        self.found = False
        self._tracker = tracker
        self._reopen = reopen
        self._scratch: weakref.finalize[..., Session] | None = None
        if out is None:
            folder = tempfile.mkdtemp(prefix="trackgpt-")
            self._scratch = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            out = Path(folder) / "run"
        self.run = RunFolder(out, overwrite)
        self.lookahead = default_lookahead(source) if lookahead is None else lookahead
        self._coming = self.lookahead.over(source, self._encoded)
        if self.lookahead.speculate:
            self.online = SpeculatingTracker(self.online, self._coming.at_hand)
        self._upcoming: SourceFrame | None = None
        self._ready: deque[Result] = deque()
        self._planned: list[Planned] = []
        self._pending: Prediction | None = None
        self._prompts: list[Prompt] = []
        self._present: dict[int, bool] | None = None
        self._events: list[EventRecord] = []
        self._given = (-1, -1.0)
        self._last: TrackRecord | None = None
        self._started = self._done = False

    # --- what a person does ---

    def say(self, text: str, frame: int | None = None, second: float | None = None) -> Reply:
        """Tell the tracker what to follow.

        Args:
            text: the instruction.
            frame: the index of a frame still to come that it is about; by default the next one.
            second: the same as a time of the source: the first frame that is not before it.

        Returns:
            The answer; for a frame still to come the answer is given when it is reached, and this one is empty.

        Raises:
            UsageError: NL01, NL02 the instruction is empty or too long; the frame has passed, none is left, or both
                `frame` and `second` are given.
        """
        cleaned = self._tracker.check(text)
        plan = Planned(cleaned, frame, second)
        timed = frame is not None or second is not None
        if frame is not None and second is not None:
            raise UsageError(f"frame {frame} and second {second:g} are two moments; give one of them")
        if timed and plan.due(*self._given):
            raise UsageError(f"{plan} has passed; say it about a frame to come")
        upcoming = self._readable()
        if upcoming is None:
            raise UsageError("the source has no frame left; say what to track before it ends")
        if cleaned != " ".join(text.split()):
            self._warn("NL03", upcoming, f"markup was taken out of the instruction, which is read as {cleaned!r}")
        if timed and not plan.due(upcoming.index, upcoming.time):
            self._planned.append(plan)
            return Reply("", ())
        return self._instruct(upcoming, cleaned)

    def __iter__(self) -> Iterator[Result]:
        """The frames from here on, one `Result` each.

        Raises:
            UsageError: nothing has been said.
            InputError: the source breaks off (IN06), or has a frame too large (IN07).
            OutputError: OUT02 the log cannot be written; what was written stays valid.
        """
        if not self._prompts and not self._planned:
            raise UsageError("nothing to track yet; say what to follow first: session.say('the red car')")
        while (result := self._next()) is not None:
            self._given = (result.index, result.time)
            yield result
        self._finish()

    def export(self, out: str | Path, formats: Sequence[str] = ("jsonl",), overwrite: bool = False) -> dict[str, Path]:
        """Write the run so far as a folder: the log and every format asked for ("mp4", "davis", "coco", "mot", ...).

        Raises:
            OutputError: the folder exists, or cannot be written.
            UsageError: a format does not exist, mp4 is asked of a source that cannot be read twice, or the session
                is closed and its log was temporary.
        """
        check_formats(formats)
        frames = self._frames_again() if "mp4" in formats else None
        if not self.run.path.is_dir():
            raise UsageError("the session is closed and its log is gone; export first, or open the source with out=...")
        if not (self.run.path / RUN).exists():
            self.describe()
        target = Path(out)
        if target.resolve() != self.run.path.resolve():
            RunFolder(target, overwrite).close()
            with writing(target):
                for file in (TRACKS, EVENTS, RUN):
                    shutil.copyfile(self.run.path / file, target / file)
        return export(target, formats, frames)

    def describe(self, **facts: Any) -> None:
        """Write run.json: versions, configuration and source, and what else is given."""
        model = {"name": self._tracker.name, "config": to_dict(self._tracker.model.config)}
        self.run.describe(_facts(self.source) | {"model": model} | facts)

    def snapshot(self) -> TrackState:
        """The track's state after the last frame: keep it, save it, or give it to `restore`.

        Raises:
            UsageError: nothing is tracked yet, or something has just been said about the next frame.
        """
        if self._pending is not None:
            raise UsageError("an instruction about the next frame is under way; take the snapshot after that frame")
        return self.online.state

    def restore(self, state: TrackState) -> None:
        """Go on from a snapshot with the next frame, in this session or in another one of the same model."""
        self.online.state = state
        self._pending = self._present = None
        if not self._prompts:
            self._prompts.append(state.prompt)

    def close(self) -> None:
        """Close the source and the log; a temporary log is deleted. Closing twice is allowed."""
        self._coming.close()
        self.source.close()
        self.run.close()
        if self._scratch is not None:
            self._scratch()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the source and the log's files; a temporary log stays until `close`, so that it can be exported."""
        if error is not None and not self._done:
            text = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
            with suppress(OutputError):
                self._event("error", self._last, text=text)
        self._coming.close()
        self.source.close()
        self.run.close()

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """Everything said so far, in order."""
        return tuple(self._prompts)

    @property
    def last_record(self) -> TrackRecord:
        """The log's record of the last frame."""
        if self._last is None:
            raise UsageError("no frame has been tracked yet")
        return self._last

    # --- reading ---

    def _next(self) -> Result | None:
        """The next frame's result; None at the end."""
        while not self._ready and self._upcoming is None:
            if not self._pull():
                return None
        if self._ready:
            return self._ready.popleft()
        frame, self._upcoming = self._upcoming, None
        assert frame is not None
        due = [plan for plan in self._planned if plan.due(frame.index, frame.time)]
        self._planned = [plan for plan in self._planned if plan not in due]
        for plan in due:
            self._instruct(frame, plan.text)
        return self._advance(frame)

    def _readable(self) -> SourceFrame | None:
        """The next frame that has an image; those before it are recorded on the way."""
        while self._upcoming is None and self._pull():
            pass
        return self._upcoming

    def _pull(self) -> bool:
        """Take one frame from the source; False when there is none."""
        frame = next(self._coming, None)
        if frame is None:
            return False
        if not self._started:
            self._start(frame)
        if frame.image is None:
            self._ready.append(self._unreadable(frame))
        else:
            self._upcoming = frame
        return True

    def _encoded(self, images: Sequence[np.ndarray]) -> Sequence[Any]:
        """What frames to come are tracked by: encoded ones, or plain ones while there is nothing to track."""
        tracked = self._prompts and self.online.state.cue.targets
        return self.online.perception.encode(images) if tracked else images

    def _start(self, frame: SourceFrame) -> None:
        self._started = True
        if self._scratch is None and not (self.run.path / RUN).exists():
            self.describe()
        self._event("start", frame, source=self.source.name, size=self.source.size)
        if self.source.fps_note:
            self._warn("IN04", frame, self.source.fps_note)

    def _finish(self) -> None:
        """What is said once the source has ended."""
        if self._done:
            return
        self._done = True
        for plan in self._planned:
            self._warn("", self._last, f"the source ended before {plan}, so {plan.text!r} was never read")
        if self.source.end_note:
            self._warn("IN04", self._last, self.source.end_note)
        if not self.found and self._prompts:
            text = f"nothing matched {self._prompts[-1].text!r} on any of {self.frames} frames"
            self._event("error", self._last, code="NL05", text=text)
        self._event("done", self._last, frames=self.frames)
        self.run.close()

    # --- one frame ---

    def _instruct(self, frame: SourceFrame, text: str) -> Reply:
        assert frame.image is not None
        prompt = Prompt(text, frame.index, "switch" if self._prompts else "init")
        self._event("instruction", frame, text=text)
        begin = self.online.track if self._prompts else self.online.initialize
        begun = begin(seen(frame), prompt)
        self._prompts.append(prompt)
        self._pending, self._present = begun, None
        answer = begun.cue.text if begun.cue is not None else ""
        self._event("answer", frame, text=answer, targets=len(begun.ids))
        return Reply(answer, _objects(self._record(frame, begun)))

    def _advance(self, frame: SourceFrame) -> Result:
        assert frame.image is not None
        if frame.problem:
            self._warn("IN06" if "lost" in frame.problem else "IN05", frame, f"frame {frame.index}: {frame.problem}")
        if not self._prompts:
            height, width = frame.image.shape[:2]
            return self._log(TrackRecord(frame.index, round(frame.time, 6), (height, width)), frame, None)
        prediction, self._pending = self._pending, None
        if prediction is None:
            prediction = self._track(frame)
        record = self._record(frame, prediction)
        self._notice(record)
        return self._log(record, frame, prediction)

    def _track(self, frame: SourceFrame) -> Prediction:
        before = self.online.state.record
        prediction = self.online.track(seen(frame))
        if not prediction.reason:
            return prediction
        self.rethinks += 1
        tau = self.online.arbiter.threshold(before)
        scores = {"old": before.last, "new": prediction.scores, "threshold": tau}
        self._event("rethink", frame, reason=prediction.reason, **scores)
        if prediction.cue is not None:
            self._event("answer", frame, text=prediction.cue.text, targets=prediction.cue.targets)
        return prediction

    def _record(self, frame: SourceFrame, prediction: Prediction) -> TrackRecord:
        tau = self.online.arbiter.threshold(self.online.state.record)
        states: list[State] = []
        for k, present in enumerate(prediction.present):
            low = k < len(tau) and prediction.scores[k] < tau[k]
            states.append("absent" if not present else "suspect" if low else "tracked")
        return record_of(frame.index, frame.time, prediction, states)

    def _notice(self, record: TrackRecord) -> None:
        """Events for what has come or gone since the frame before; the first frame of a track has neither."""
        here = {item.id: item.box is not None for item in record.objects}
        before = here if self._present is None else self._present
        for number in sorted(here.keys() | before.keys()):
            was, now = before.get(number, False), here.get(number, False)
            if was != now:
                self._event("found" if now else "lost", record, id=number)
        self.found = self.found or any(here.values())
        self._present = here

    def _unreadable(self, frame: SourceFrame) -> Result:
        """IN03: the frame keeps its place; what is followed is absent on it, and the track's state waits."""
        self._warn("IN03", frame, f"frame {frame.index}: {frame.problem}")
        size = self._last.size if self._last is not None else self.source.size
        objects = tuple(ObjectRecord(number, state="absent") for number in self._present or ())
        return self._log(TrackRecord(frame.index, round(frame.time, 6), size, objects, frame.problem), frame, None)

    def _log(self, record: TrackRecord, frame: SourceFrame, prediction: Prediction | None) -> Result:
        self.run.track(record)
        self.frames += 1
        self._last = record
        events, self._events = tuple(self._events), []
        return Result(record.index, record.time, _objects(record), events, frame.problem, frame.image, prediction)

    def _event(self, kind: EventType, at: SourceFrame | TrackRecord | None, **data: Any) -> None:
        index, time = (0, 0.0) if at is None else (at.index, at.time)
        event = self.run.event(kind, index, time, **data)
        self._events.append(event)
        self.on_event(event)

    def _warn(self, code: str, at: SourceFrame | TrackRecord | None, text: str) -> None:
        self.warnings += 1
        self._event("warn", at, **({"code": code} if code else {}), text=text)

    def _frames_again(self) -> Iterator[tuple[int, np.ndarray]]:
        once = self._reopen is None or isinstance(self._reopen[0], Iterator)
        if self._reopen is None or once or self.source.kind in ("stream", "camera"):
            raise UsageError(
                "mp4 needs the frames again, and this source can be read only once; export other formats, "
                "or write frames with trackgpt.video.writer while you iterate"
            )
        return _reread(*self._reopen)


def _reread(source: Any, reading: dict[str, Any]) -> Iterator[tuple[int, np.ndarray]]:
    with open_source(source, **reading) as again:
        for frame in again:
            if frame.image is not None:
                yield frame.index, frame.image


def _ignore(event: EventRecord) -> None:
    """What a session does with its events when nobody listens."""


def _facts(source: FrameSource) -> dict[str, Any]:
    """What run.json says of versions and source; together with configuration and words enough to run it again."""
    from trackgpt import __version__

    return {
        "schema": 1,
        "trackgpt": __version__,
        "versions": {"python": platform.python_version(), **{name: installed(name) for name in PACKAGES}},
        "source": {
            "name": source.name,
            "kind": source.kind,
            "sha256": source.digest(),
            "fps": source.fps,
            "fps_note": source.fps_note,
            "size": list(source.size),
        },
        "boxes": "xyxy pixels of the frame, edges",
    }


def _objects(record: TrackRecord) -> tuple[Object, ...]:
    return tuple(Object(o.id, o.box, o.purport, o.state, o.rle, record.size) for o in record.objects)
