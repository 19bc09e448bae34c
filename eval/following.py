"""The one way in which every kit runs a tracker: frames and prompts in, predictions out, and a record of how it went.

The record is what the benchmark's result files have no place for: answers, scores, when the slow model was asked and
why, and how long each frame took. It is kept beside the results, by unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from trackgpt.errors import InputError
from trackgpt.online import Followed, Tracker, follow_all
from trackgpt.types import Prediction, Prompt


@dataclass
class UnitRecord:
    """How one unit was tracked.

    Attributes:
        text: the first instruction.
        answer: what the tracker said to it.
        refused: the answer named no target.
        score: the lowest score of a frame's targets, NaN where there was none; one per frame.
        asked: (frame, reason) of every reading after the first.
        seconds: of every frame, tracker alone; what several units share counts for each.
    """

    text: str
    answer: str = ""
    refused: bool = False
    score: list[float] = field(default_factory=list)
    asked: list[tuple[int, str]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, followed: Followed) -> None:
        """One more frame."""
        seen, t = followed.seen, len(self.score)
        self.seconds.append(followed.seconds)
        self.score.append(float(seen.scores.min()) if len(seen.scores) else np.nan)
        if t == 0:
            self.answer = seen.cue.text if seen.cue else ""
            self.refused = len(seen.ids) == 0
        elif seen.reason:
            self.asked.append((t, seen.reason))

    def as_json(self) -> dict[str, Any]:
        """Plain values, times to the microsecond and scores to four digits."""
        rounded = {"score": [round(s, 4) for s in self.score], "seconds": [round(s, 6) for s in self.seconds]}
        return {**asdict(self), **rounded}


class Following:
    """A tracker that is run over the units of a task, with their records (`eval.kit.Follow`).

    Args:
        tracker: the system.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.records: dict[str, UnitRecord] = {}

    def __call__(
        self, said: Mapping[str, Sequence[Prompt]], frames: Iterable[np.ndarray]
    ) -> Iterator[tuple[Prediction, ...]]:
        """See `eval.kit.Follow`.

        Raises:
            InputError: a unit's first prompt is not about frame 0, or two are about the same frame.
        """
        records = [self._record(name, prompts) for name, prompts in said.items()]
        for followed in follow_all(self.tracker, frames, list(said.values())):
            for record, one in zip(records, followed, strict=True):
                record.add(one)
            yield tuple(one.seen for one in followed)

    def _record(self, name: str, prompts: Sequence[Prompt]) -> UnitRecord:
        frames = [prompt.frame for prompt in prompts]
        if 0 not in frames or len(set(frames)) != len(frames):
            raise InputError(f"{name}: prompts at frames {frames}; wanted 0 first, one per frame")
        self.records[name] = UnitRecord(next(prompt.text for prompt in prompts if prompt.frame == 0))
        return self.records[name]
