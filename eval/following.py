"""The one way in which every kit runs a tracker: frames and prompts in, predictions out, and a record of how it went.

The record is what the benchmark's result files have no place for: answers, purport scores, when the brain was asked
and why, and how long each frame took. It is kept beside the results, by unit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from trackgpt.errors import InputError
from trackgpt.types import Cue, EncodedFrame, Prediction, Prompt, Tracker


class Shared(Protocol):
    """What several units may share of a frame; see `eval.trackers.Contestant`."""

    def encode(self, frames: Sequence[np.ndarray]) -> Sequence[EncodedFrame]:
        """See `trackgpt.online.Perception.encode`."""
        ...

    def reason_many(self, frame: np.ndarray, prompts: Sequence[Prompt]) -> Sequence[Cue]:
        """The brain's answers to several prompts about one frame."""
        ...


@dataclass
class Record:
    """How one unit was tracked.

    Attributes:
        text: the first instruction.
        answer: what the tracker said to it.
        refused: the answer named no target.
        purport: the lowest score of a frame's targets, NaN where there was none; one a frame.
        asked: (frame, reason) of every reading after the first.
        seconds: of every frame, tracker alone; what several units share counts for each.
    """

    text: str
    answer: str = ""
    refused: bool = False
    purport: list[float] = field(default_factory=list)
    asked: list[tuple[int, str]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Plain values, times to the microsecond and scores to four digits."""
        rounded = {"purport": [round(p, 4) for p in self.purport], "seconds": [round(s, 6) for s in self.seconds]}
        return {**asdict(self), **rounded}


class Following:
    """Trackers with their records, a unit each (`eval.kit.Follow`).

    Args:
        tracker: makes a fresh one.
        shared: does once for several units what they have in common; None lets each work alone.
    """

    def __init__(self, tracker: Callable[[], Tracker], shared: Shared | None = None) -> None:
        self.tracker, self.shared = tracker, shared
        self.records: dict[str, Record] = {}

    def __call__(
        self, said: Mapping[str, Sequence[Prompt]], frames: Iterable[np.ndarray]
    ) -> Iterator[tuple[Prediction, ...]]:
        """See `eval.kit.Follow`.

        Raises:
            InputError: a unit's first prompt is not about frame 0, or two are about the same frame.
        """
        units = [self._unit(name, prompts) for name, prompts in said.items()]
        shared = self.shared if len(units) > 1 else None
        for t, frame in enumerate(frames):
            began, look, cues = time.perf_counter(), frame, [None] * len(units)
            if shared:
                look = shared.encode([frame])[0]
                cues = cues if t else shared.reason_many(frame, [unit.said[0] for unit in units])
            seconds = time.perf_counter() - began
            yield tuple(unit.see(t, look, cue, seconds) for unit, cue in zip(units, cues, strict=True))

    def _unit(self, name: str, prompts: Sequence[Prompt]) -> _Unit:
        by_frame = {prompt.frame: prompt for prompt in prompts}
        if 0 not in by_frame or len(by_frame) != len(prompts):
            raise InputError(f"{name}: prompts at frames {[p.frame for p in prompts]}; wanted 0 first, one a frame")
        self.records[name] = Record(by_frame[0].text)
        return _Unit(self.tracker(), by_frame, self.records[name])


@dataclass(frozen=True)
class _Unit:
    """A tracker on its way through a video: its prompts by frame, and its record."""

    tracker: Tracker
    said: Mapping[int, Prompt]
    record: Record

    def see(self, t: int, frame: Any, cue: Cue | None, seconds: float) -> Prediction:
        """The prediction of frame t, to whose time `seconds` are added; `cue` is the answer to the first prompt."""
        began, record = time.perf_counter(), self.record
        if t == 0:
            prediction = self.tracker.initialize(frame, self.said[0], cue)
        else:
            prediction = self.tracker.track(frame, self.said.get(t))
        record.seconds.append(seconds + time.perf_counter() - began)
        record.purport.append(float(prediction.scores.min()) if len(prediction.scores) else np.nan)
        if t == 0:
            record.answer = prediction.cue.text if prediction.cue else ""
            record.refused = len(prediction.ids) == 0
        elif prediction.reason:
            record.asked.append((t, prediction.reason))
        return prediction
