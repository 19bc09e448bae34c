"""The one way in which every kit runs a tracker: frames and prompts in, predictions out, and a record of how it went.

The record is what the benchmark's result files have no place for: answers, purport scores, when the brain was asked
and why, and how long each frame took. It is kept beside the results, by unit.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from trackgpt.errors import InputError
from trackgpt.types import Prediction, Prompt, Tracker


@dataclass
class Record:
    """How one unit was tracked.

    Attributes:
        text: the first instruction.
        answer: what the tracker said to it.
        refused: the answer named no target.
        purport: the lowest score of a frame's targets, NaN where there was none; one a frame.
        asked: (frame, reason) of every reading after the first.
        seconds: of every frame, tracker alone.
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
    """A tracker with its records, a unit each (`eval.kit.Follow`)."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.records: dict[str, Record] = {}

    def __call__(self, unit: str, frames: Iterable[np.ndarray], prompts: Sequence[Prompt]) -> Iterator[Prediction]:
        """See `eval.kit.Follow`.

        Raises:
            InputError: the first prompt is not about frame 0, or two are about the same frame.
        """
        said = {prompt.frame: prompt for prompt in prompts}
        if 0 not in said or len(said) != len(prompts):
            raise InputError(f"{unit}: prompts at frames {[p.frame for p in prompts]}; wanted 0 first, one a frame")
        record = self.records[unit] = Record(said[0].text)
        for t, frame in enumerate(frames):
            began = time.perf_counter()
            if t == 0:
                prediction = self.tracker.initialize(frame, said[0])
            else:
                prediction = self.tracker.track(frame, said.get(t))
            record.seconds.append(time.perf_counter() - began)
            record.purport.append(float(prediction.scores.min()) if len(prediction.scores) else np.nan)
            if t == 0:
                record.answer = prediction.cue.text if prediction.cue else ""
                record.refused = len(prediction.ids) == 0
            elif prediction.reason:
                record.asked.append((t, prediction.reason))
            yield prediction
