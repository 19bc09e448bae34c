"""The one way in which every kit runs a tracker: frames and prompts in, predictions out, and a record of how it went.

The record is what the benchmark's result files have no place for: answers, scores, when the slow model was asked and
why, and how long each frame took. It is kept beside the results, by unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from eval.listening import Listened, listen
from trackgpt.errors import InputError
from trackgpt.online import Followed, Tracker, follow_all
from trackgpt.types import Prediction, Prompt


@dataclass
class UnitRecord:
    """How one unit was tracked.

    Attributes:
        text: the first instruction, or what was shown in words.
        answer: what the tracker said to it.
        refused: the answer named no target.
        score: the lowest score of a frame's targets of this unit, NaN where there was none; one per frame.
        purport: the same of the purport scores of a TrackGPT, NaN where a system has none.
        asked: (frame, reason) of every reading after the first.
        seconds: of every frame, tracker alone; what several units share counts for each.
    """

    text: str
    answer: str = ""
    refused: bool = False
    score: list[float] = field(default_factory=list)
    purport: list[float] = field(default_factory=list)
    asked: list[tuple[int, str]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, followed: Followed, target: int | None = None) -> None:
        """One more frame, of all targets or of one."""
        seen, t = followed.seen, len(self.score)
        mine = seen.ids == target if target is not None else np.ones(len(seen.ids), bool)
        self.seconds.append(followed.seconds)
        self.score.append(_lowest(seen.scores[mine]))
        self.purport.append(_lowest(seen.own_scores["purport"][mine]) if "purport" in seen.own_scores else np.nan)
        if t == 0:
            self.answer = seen.cue.text if seen.cue else ""
            self.refused = not mine.any()
        elif seen.reason:
            self.asked.append((t, seen.reason))

    def hear(self, listened: Listened) -> None:
        """One more frame of a tracker that is spoken to."""
        self.add(Followed(listened.seen, listened.seconds))
        self.asked += [(len(self.score) - 1, listened.seen.reason)] * max(listened.readings - 1, 0)

    def as_json(self) -> dict[str, Any]:
        """Plain values, times to the microsecond and scores to four digits."""
        digits = {"score": 4, "purport": 4, "seconds": 6}
        rounded = {name: [round(value, most) for value in getattr(self, name)] for name, most in digits.items()}
        return {**asdict(self), **rounded}


def _lowest(values: np.ndarray) -> float:
    return float(values.min()) if len(values) else np.nan


class Following:
    """A tracker that is run over the units of a task, with their records (`eval.kit.Follow`).

    Where a unit's first prompt names its targets by ids, each of them has a record, as UNIT/ID.

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
        records = [self._records(name, prompts) for name, prompts in said.items()]
        for followed in follow_all(self.tracker, frames, list(said.values())):
            for mine, one in zip(records, followed, strict=True):
                for target, record in mine.items():
                    record.add(one, target)
            yield tuple(one.seen for one in followed)

    def listen(self, name: str, said: Mapping[int, str], frames: Iterable[np.ndarray]) -> Iterator[Listened]:
        """See `eval.kit.Follow.listen`.

        Raises:
            InputError: nothing is said about frame 0.
            UsageError: see `eval.listening.listen`.
        """
        if 0 not in said:
            raise InputError(f"{name}: sentences at frames {sorted(said)}; wanted 0 first")
        record = self.records[name] = UnitRecord(said[0])
        for one in listen(self.tracker, lambda t: said.get(t, ""), frames):
            record.hear(one)
            yield one

    def _records(self, name: str, prompts: Sequence[Prompt]) -> dict[int | None, UnitRecord]:
        """New records of a unit, by target; None stands for all of them."""
        frames = [prompt.frame for prompt in prompts]
        if 0 not in frames or len(set(frames)) != len(frames):
            raise InputError(f"{name}: prompts at frames {frames}; wanted 0 first, one per frame")
        first = next(prompt for prompt in prompts if prompt.frame == 0)
        made: dict[int | None, UnitRecord] = {target: UnitRecord(first.summary) for target in first.ids or (None,)}
        for target, record in made.items():
            self.records[name if target is None else f"{name}/{target}"] = record
        return made
