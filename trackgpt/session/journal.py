"""What a session writes down: a record of every frame and an event for whatever happens, in takes.

What was written of the last frames is kept, because an answer that comes late may change it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from trackgpt.export.records import EventRecord, EventType, ObjectRecord, State, TrackRecord, record_of
from trackgpt.session.contradictions import LONG, Meetings
from trackgpt.session.late import MOST_FRAMES
from trackgpt.session.results import Result, objects_of
from trackgpt.session.takes import Takes
from trackgpt.types import Cue, Prediction
from trackgpt.video.frames import SourceFrame

MOST_SHOWN = 4 * MOST_FRAMES
"""Recorded frames that a late answer may change, those that were not tracked included."""
MOST_EVENTS = 1000
"""Events that wait for `Session.events`."""


class Log(Protocol):
    """Where a session's records go, as they happen; `trackgpt.export.records.RunFolder` is one."""

    def track(self, record: TrackRecord) -> None:
        """One frame."""
        ...

    def event(self, record: EventRecord) -> None:
        """One event."""
        ...


class _NoLog:
    def track(self, record: TrackRecord) -> None:
        """Keep nothing."""

    def event(self, record: EventRecord) -> None:
        """Keep nothing."""


class RecordedFrame(NamedTuple):
    """A frame that has been recorded, which a late answer may change.

    Attributes:
        frame: of the track (`TrackState.frame` before it), or -1 where it was not tracked.
        present: which targets were on the frame before, by id.
        record: of it.
    """

    frame: int
    present: dict[int, bool] | None
    record: TrackRecord


class Journal:
    """The records and events of a session, as they happen.

    Args:
        log: where each of them goes.

    Attributes:
        takes: the ways through the video that were opened so far.
        on_event: see `Session`.
        present: which targets were on the frame before, by id; None where nothing was tracked on it, and after an
            instruction, which may have changed what the ids mean.
        frames, rethinks, warnings, found, last: see `Session`.
    """

    def __init__(self, log: Log | None = None) -> None:
        self.takes = Takes()
        self.on_event: Callable[[EventRecord], None] = _ignore
        self.present: dict[int, bool] | None = None
        self.frames = self.rethinks = self.warnings = 0
        self.found = False
        self.last: TrackRecord | None = None
        self._log = log or _NoLog()
        self._meetings = Meetings()
        self._shown: deque[RecordedFrame] = deque(maxlen=MOST_SHOWN)
        self._revised: tuple[Result, ...] = ()
        self._events: list[EventRecord] = []
        self._unheard: deque[EventRecord] = deque(maxlen=MOST_EVENTS)
        self._seq = 0

    # --- events ---

    def event(self, event_type: EventType, at: SourceFrame | TrackRecord | None, /, **data: Any) -> None:
        """Record an event on a frame, or before all of them."""
        index, time = (0, 0.0) if at is None else (at.index, at.time)
        event = EventRecord.of(self._seq, event_type, index, time, self.takes.following, **data)
        self.count(event)
        self._log.event(event)
        self._events.append(event)
        self._unheard.append(event)
        self.on_event(event)

    def warn(self, code: str, at: SourceFrame | TrackRecord | None, text: str) -> None:
        """Record a warning; the code may be empty."""
        self.event("warn", at, **({"code": code} if code else {}), text=text)

    def unheard(self) -> list[EventRecord]:
        """What has happened since this was last asked."""
        heard = list(self._unheard)
        self._unheard.clear()
        return heard

    # --- frames ---

    def tracked(self, record: TrackRecord, frame: SourceFrame, prediction: Prediction, step: int) -> Result:
        """Record a frame that was tracked, in the track's step of this number."""
        before = self.present
        self._notice(record)
        for one, other in self._meetings.see(record):
            both = f"targets {one} and {other} have been on one object for {LONG} frames"
            self.warn("", record, f"frame {record.index}: {both}; show one of them again, or drop it")
        return self._recorded(record, frame, prediction, step, before)

    def untracked(self, record: TrackRecord, frame: SourceFrame) -> Result:
        """Record a frame on which nothing was tracked."""
        return self._recorded(record, frame, None, -1, self.present)

    def unreadable(self, frame: SourceFrame, size: tuple[int, int]) -> Result:
        """IN03: the frame keeps its place, and what is followed is absent on it.

        Args:
            frame: without an image.
            size: height and width, where no frame before it has told them.
        """
        self.warn("IN03", frame, f"frame {frame.index}: {frame.problem}")
        size = self.last.size if self.last is not None else size
        objects = tuple(ObjectRecord(number, state="absent") for number in self.present or ())
        return self.untracked(TrackRecord(frame.index, round(frame.time, 6), size, objects, frame.problem), frame)

    def _recorded(
        self,
        record: TrackRecord,
        frame: SourceFrame,
        prediction: Prediction | None,
        step: int,
        before: dict[int, bool] | None,
    ) -> Result:
        take, parent = self.takes.record(record.index)
        if parent:
            self.event("take", record, parent=parent)
        record = replace(record, take=take, parent=parent, name=frame.name)
        self._log.track(record)
        self._shown.append(RecordedFrame(step, before, record))
        self.frames += 1
        self.last = record
        events, self._events = tuple(self._events), []
        revised, self._revised = self._revised, ()
        found = objects_of(record)
        image = frame.image
        return Result(record.index, record.time, found, events, record, frame.problem, image, prediction, revised)

    def _notice(self, record: TrackRecord) -> None:
        """Events for what has come or gone since the frame before; the first frame of a track has neither."""
        here = _present_on(record)
        before = here if self.present is None else self.present
        for number in sorted(here.keys() | before.keys()):
            was, now = before.get(number, False), here.get(number, False)
            if was != now:
                self.event("found" if now else "lost", record, id=number)
        self.found = self.found or any(here.values())
        self.present = here

    # --- what was written before ---

    def since(self, step: int) -> tuple[RecordedFrame, ...]:
        """The recorded frames from a step of the track on; none where it is not among those that are kept.

        Frames that were not tracked have the step -1, which stands for no frame.
        """
        shown = {one.frame: k for k, one in enumerate(self._shown) if one.frame >= 0}
        return tuple(self._shown)[shown[step] :] if step in shown else ()

    def revise(self, passed: Sequence[RecordedFrame], seen: Iterable[tuple[Prediction, np.ndarray]]) -> None:
        """Record the last frames anew, in a take of their own.

        Args:
            passed: those frames.
            seen: for each that was tracked, what is seen on it now, and the threshold, see `record_seen`.
        """
        waiting, self._events = self._events, []
        self.takes.branch()
        for _ in passed:
            self._shown.pop()
        self.present, self._meetings = passed[0].present, Meetings()
        steps, revised = iter(seen), []
        for one in passed:
            old = one.record
            at = SourceFrame(old.index, old.time, None, old.problem, name=old.name)
            if one.frame < 0:
                revised.append(self.untracked(old, at))
                continue
            again, threshold = next(steps)
            record = record_seen(old.index, old.time, old.size, again, threshold)
            revised.append(self.tracked(record, at, again, one.frame))
        self._revised, self._events = tuple(revised), waiting

    def go_to(self, present: dict[int, bool] | None) -> None:
        """Forget the frames before, as the track goes on from another state: no late answer may change them any more.

        Args:
            present: which targets were on the frame before that state, by id.
        """
        self.present = present
        self._meetings = Meetings()
        self._shown.clear()

    def count(self, event: EventRecord) -> None:
        """Count an event, which may be one of a log that is gone on with."""
        self._seq = event.seq + 1
        self.rethinks += event.type == "rethink"
        self.warnings += event.type == "warn"

    def go_on_after(self, records: Iterable[TrackRecord], tracking: bool) -> None:
        """Go on behind the frames of a log of one take, which are not written again; `tracking` after them or not."""
        for record in records:
            self.takes.record(record.index)
            self.frames, self.last = self.frames + 1, record
            self.present = _present_on(record) if tracking else None
            self.found = self.found or any(_present_on(record).values())
            if not record.problem:
                self._meetings.see(record)


def record_seen(
    index: int, time: float, size: tuple[int, int], prediction: Prediction, threshold: np.ndarray
) -> TrackRecord:
    """The record of a frame on which targets with scores below a threshold, float32 (targets,), are suspect."""
    low = prediction.scores < threshold
    states: list[State] = [
        "absent" if not present else "suspect" if suspect else "tracked"
        for present, suspect in zip(prediction.present, low, strict=True)
    ]
    return record_of(index, time, size, prediction, states)


def grounded(cue: Cue | None) -> dict[str, Any]:
    """What a log keeps of an answer: boxes, their scores, others that would fit the words, and how many of them as well
    as what was found; a chain of thought.
    """
    if cue is None or cue.boxes is None:
        return {}
    found: dict[str, Any] = {"boxes": cue.boxes, "scores": cue.scores, "candidates": cue.rivals}
    found |= {"alike": cue.alike or None, "reasoning": cue.reasoning or None}
    return {name: value for name, value in found.items() if value is not None}


def _present_on(record: TrackRecord) -> dict[int, bool]:
    return {item.id: item.box is not None for item in record.objects}


def _ignore(event: EventRecord) -> None:
    """What a session does with its events when nobody listens."""
