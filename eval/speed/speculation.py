"""Decoding the next frame before this one's scores are known, on the guess that they call for no rethink.

A score decides whether the brain reads the next frame, and it lies on the device: whoever waits for it leaves the
device idle meanwhile. Rethinks are few, so the next frame is decoded with the queries in force, and decoded again, with
new ones, where the guess was wrong. Results are those without. It stays a bench until a GPU shows that it pays: on the
CPUs measured it is slower than encoding ahead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from trackgpt.memory import QueryMemory
from trackgpt.online import Frame, Tracker
from trackgpt.perception.packed_masks import ComingMasks
from trackgpt.systems.trackgpt import QueryPerception
from trackgpt.track import TrackState
from trackgpt.types import Cue, Prediction


class Guess(NamedTuple):
    """A frame that was decoded early, with which cue and memory, and its Q_{t+1} where the device keeps it."""

    frame: Frame
    cue: Cue
    memory: QueryMemory
    coming: ComingMasks
    online: Tensor


class SpeculatingPerception(QueryPerception):
    """A perception that keeps the device one frame ahead of what is read from it.

    Args:
        of: the perception whose weights and settings this one takes over.
        upcoming: gives the frame after the one that is looked at, or None where it is not at hand.

    Attributes:
        wrong: frames that were decoded early for nothing.
    """

    def __init__(self, of: QueryPerception, upcoming: Callable[[], Frame | None]) -> None:
        super().__init__(of.segmenter, of.mask_threshold, of.min_area, of.score)
        self._upcoming = upcoming
        self._guess: Guess | None = None
        self.wrong = 0

    def perceive(self, frame: Frame, state: TrackState, cued: tuple[int, ...]) -> tuple[Prediction, QueryMemory]:
        """As `QueryPerception.perceive`; a guess that was made for another frame, cue or memory is dropped."""
        guess, self._guess = self._guess, None
        if not state.cue.targets:
            return super().perceive(frame, state, cued)
        fits = guess is not None and (guess.frame is frame, guess.cue is state.cue, guess.memory is state.memory)
        if guess is not None and fits and all(fits):
            coming, online = guess.coming, guess.online
        else:
            self.wrong += guess is not None
            coming, online = self.decode(frame, state.cue, state.memory.online)
        upcoming = self._upcoming()
        early = None if upcoming is None else self.decode(upcoming, state.cue, online)
        prediction, memory = self.land(coming, state.cue)
        if upcoming is not None and early is not None:
            self._guess = Guess(upcoming, state.cue, memory, *early)
        return prediction, memory


def speculating(tracker: Tracker, upcoming: Callable[[], Frame | None]) -> Tracker:
    """The system with a perception that decodes one frame ahead."""
    assert isinstance(tracker.perception, QueryPerception)
    return replace(tracker, perception=SpeculatingPerception(tracker.perception, upcoming))
