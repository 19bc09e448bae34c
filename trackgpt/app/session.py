"""A person, a tracker and a source: say something, watch results come, export. Every way in goes through here.

The command line, Python and evaluation of files share this class, which is why the same run gives the same
`tracks.jsonl` from a file, a folder and Python.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from trackgpt.errors import UsageError
from trackgpt.export.records import EventRecord, ObjectRecord, RunFolder, TrackRecord, export, record_of
from trackgpt.geometry.masks import decode_rle
from trackgpt.types import Prediction, Prompt
from trackgpt.video.source import FrameSource, SourceFrame, open_source

if TYPE_CHECKING:
    from trackgpt.online import ReasoningTracker, TrackState
    from trackgpt.systems.trackgpt import TrackGPT


@dataclass(frozen=True)
class Object:
    """One tracked object on one frame.

    Attributes:
        id: stable over the run, from 1.
        box: x1, y1, x2, y2 in pixels of the frame, or None when absent.
        purport: the model's own estimate of its mask's IoU, in [0, 1].
        state: "tracked", "suspect", "absent" or "searching".
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
        problem: why the frame could not be read, else "".
        frame: the frame itself, uint8 RGB (height, width, 3), or None when it could not be read.
        prediction: the same result with masks as arrays, or None when the frame could not be read.
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


class InstructionTracker:
    """A model ready to be told what to track; several sessions may share it, one after the other."""

    def __init__(self, model: TrackGPT, name: str = "trackgpt") -> None:
        self.model = model
        self.name = name

    @classmethod
    def from_pretrained(cls, model: str | Path = "nano", device: str = "auto") -> InstructionTracker:
        """Load a shipped model by name, or one from a folder (see `trackgpt.load`)."""
        from trackgpt.hub import load_model

        return cls(load_model(model, device), str(model))

    def open(self, source: str | Path | int | Iterable[np.ndarray], **options: Any) -> Session:
        """Open a video file, folder, glob, camera index, stream URL, or any iterable of uint8 RGB arrays.

        Args:
            source: see `trackgpt.video.source.open_source`, which also takes the options.
            options: `fps`, `start`, `end`, `stride`, `max_pixels`, `allow_gaps`; and `out`, `overwrite` for the folder
                the log is written to (a temporary one by default).

        Raises:
            InputError: the source cannot be read.
            OutputError: `out` exists or cannot be written.
        """
        out, overwrite = options.pop("out", None), bool(options.pop("overwrite", False))
        return Session(self, open_source(source, **options), out=out, overwrite=overwrite, reopen=(source, options))


class Session:
    """One pass over one source. Say at least one thing, then iterate; saying more in between changes the target."""

    def __init__(
        self,
        tracker: InstructionTracker,
        source: FrameSource,
        out: str | Path | None = None,
        overwrite: bool = False,
        reopen: tuple[Any, dict[str, Any]] | None = None,
    ) -> None:
        self.source = source
        self.online: ReasoningTracker = tracker.model.tracker()
        self._temporary = None if out is not None else tempfile.TemporaryDirectory(prefix="trackgpt-")
        self.run = RunFolder(Path(self._temporary.name) / "run" if self._temporary else Path(out or ""), overwrite)
        self._reopen = reopen
        self._frames = iter(source)
        self._ahead: SourceFrame | None = None
        self._planned: dict[int, list[str]] = {}
        self._pending: Prediction | None = None
        self._prompts: list[Prompt] = []
        self._present: dict[int, bool] = {}
        self._events: list[EventRecord] = []
        self._last: TrackRecord | None = None
        self._last_size: tuple[int, int] | None = None
        self.rethinks = 0
        self.found = False

    def say(self, text: str, frame: int | None = None) -> Reply:
        """Tell the tracker what to follow.

        Args:
            text: the instruction.
            frame: the frame it is about: None for the next one to be read, or the index of one still to come.

        Returns:
            The answer; for a frame still to come the answer is given when it is reached, and this one is empty.

        Raises:
            UsageError: NL01, NL02 the instruction is empty or too long; the frame has passed.
            InputError: the source has no frame left.
        """
        self._check(text)
        upcoming = self._peek()
        if frame is not None and upcoming is not None and frame > upcoming.index:
            self._planned.setdefault(frame, []).append(text)
            return Reply("", ())
        if upcoming is None or (frame is not None and frame < upcoming.index):
            raise UsageError(f"frame {frame if frame is not None else ''} has passed; say it about a frame to come")
        return self._instruct(upcoming, text)

    def __iter__(self) -> Iterator[Result]:
        if not self._prompts and not self._planned:
            raise UsageError("nothing to track yet; say what to follow first: session.say('the red car')")
        while (frame := self._peek()) is not None:
            for text in self._planned.pop(frame.index, []):
                if frame.image is None:
                    self._planned.setdefault(frame.index + 1, []).append(text)
                else:
                    self._instruct(frame, text)
            self._ahead = None
            yield self._advance(frame)
        self._event(
            "done", self._last.index if self._last else 0, self._last.time if self._last else 0.0, frames=self._count
        )
        self.run.close()

    def export(self, out: str | Path, formats: Sequence[str] = ("jsonl",), overwrite: bool = False) -> dict[str, Path]:
        """Write a finished run as a folder: the log and every format asked for ("mp4", "davis", "coco", "mot", ...).

        Raises:
            OutputError: the folder exists, or cannot be written.
            UsageError: a format does not exist, or mp4 is asked of a source that cannot be read twice.
        """
        target = Path(out)
        if target.resolve() != self.run.path.resolve():
            RunFolder(target, overwrite).close()
            for file in ("tracks.jsonl", "events.jsonl", "run.json"):
                if (self.run.path / file).exists():
                    shutil.copyfile(self.run.path / file, target / file)
        frames = self._again() if "mp4" in formats else None
        return export(target, formats, frames)

    def snapshot(self) -> TrackState:
        """The track's state: keep it, save it, or give it to `restore`."""
        return self.online.state

    def restore(self, state: TrackState) -> None:
        """Go on from a snapshot with the next frame."""
        self.online.state = state

    def close(self) -> None:
        """Close the source and the log; a temporary log is deleted."""
        self.source.close()
        self.run.close()
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
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

    # --- one frame ---

    @property
    def _count(self) -> int:
        return 0 if self._last is None else self._last.index + 1

    def _check(self, text: str) -> None:
        from trackgpt.systems.trackgpt import BrainReasoner

        if isinstance(self.online.reasoner, BrainReasoner):
            self.online.reasoner.brain.check(text)

    def _peek(self) -> SourceFrame | None:
        """The next frame to be tracked; frames before the first instruction that cannot be read are passed over."""
        if self._ahead is None:
            self._ahead = next(self._frames, None)
        return self._ahead

    def _instruct(self, frame: SourceFrame, text: str) -> Reply:
        if frame.image is None:
            self._planned.setdefault(frame.index + 1, []).append(text)
            return Reply("", ())
        if not self._prompts:
            self._event("start", frame.index, frame.time, source=self.source.name, size=frame.image.shape[:2])
        prompt = Prompt(text, frame.index, "switch" if self._prompts else "init")
        self._prompts.append(prompt)
        self._event("instruction", frame.index, frame.time, text=text)
        begun = (
            self.online.track(frame.image, prompt)
            if len(self._prompts) > 1
            else self.online.initialize(frame.image, prompt)
        )
        self._pending = begun
        self._present = {}
        answer = begun.cue.text if begun.cue is not None else ""
        self._event("answer", frame.index, frame.time, text=answer, targets=len(begun.ids))
        return Reply(answer, _objects(self._record(frame, begun)))

    def _advance(self, frame: SourceFrame) -> Result:
        if frame.image is None:
            return self._unreadable(frame)
        if frame.problem:
            self._event("warn", frame.index, frame.time, text=frame.problem)
        if not self._prompts:
            record = TrackRecord(frame.index, round(frame.time, 6), frame.image.shape[:2])
            return self._log(record, frame, None)
        prediction = self._pending if self._pending is not None else self._track(frame)
        self._pending = None
        record = self._record(frame, prediction)
        self._presence(record)
        return self._log(record, frame, prediction)

    def _track(self, frame: SourceFrame) -> Prediction:
        assert frame.image is not None
        before = self.online.state.record
        prediction = self.online.track(frame.image)
        if prediction.reason:
            self.rethinks += 1
            self._event(
                "rethink",
                frame.index,
                frame.time,
                reason=prediction.reason,
                old=before.last,
                new=prediction.scores,
                threshold=self.online.arbiter.threshold(before),
            )
            if prediction.cue is not None:
                self._event("answer", frame.index, frame.time, text=prediction.cue.text, targets=prediction.cue.targets)
        return prediction

    def _record(self, frame: SourceFrame, prediction: Prediction) -> TrackRecord:
        tau = self.online.arbiter.threshold(self.online.state.record)
        states = []
        for k, present in enumerate(prediction.present):
            low = k < len(tau) and prediction.scores[k] < tau[k]
            states.append("absent" if not present else "suspect" if low else "tracked")
        return record_of(frame.index, frame.time, prediction, states)  # type: ignore[arg-type]

    def _presence(self, record: TrackRecord) -> None:
        for item in record.objects:
            here = item.box is not None
            self.found = self.found or here
            if here != self._present.get(item.id, here):
                self._event("found" if here else "lost", record.index, record.time, id=item.id)
            self._present[item.id] = here

    def _unreadable(self, frame: SourceFrame) -> Result:
        self._event("warn", frame.index, frame.time, text=frame.problem)
        record = TrackRecord(frame.index, round(frame.time, 6), self._last_size or self.source.size, (), frame.problem)
        return self._log(record, frame, None)

    def _log(self, record: TrackRecord, frame: SourceFrame, prediction: Prediction | None) -> Result:
        self.run.track(record)
        self._last, self._last_size = record, record.size
        events, self._events = tuple(self._events), []
        return Result(record.index, record.time, _objects(record), events, record.problem, frame.image, prediction)

    def _event(self, kind: Any, index: int, time: float, id: int | None = None, **data: Any) -> None:  # noqa: A002
        self._events.append(self.run.event(kind, index, time, id, **data))

    def _again(self) -> Iterator[tuple[int, np.ndarray]]:
        if self._reopen is None or self.source.kind in ("stream", "camera"):
            raise UsageError("mp4 needs the frames again and this source cannot be read twice; track it with `out` set")
        source, options = self._reopen
        with open_source(source, **options) as again:
            for frame in again:
                if frame.image is not None:
                    yield frame.index, frame.image


def _objects(record: TrackRecord) -> tuple[Object, ...]:
    return tuple(_object(item, record.size) for item in record.objects)


def _object(item: ObjectRecord, size: tuple[int, int]) -> Object:
    return Object(item.id, item.box, item.purport, item.state, item.rle, size)
