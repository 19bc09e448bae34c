"""Decoding the next frame before this one's scores are known, on the guess that they call for no rethink.

A score decides whether the brain reads the next frame, and it lies on the device: whoever waits for it leaves the
device idle meanwhile. Rethinks are few, so the next frame is launched with the queries in force, and launched again,
with new ones, where the guess was wrong. Results are those without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from trackgpt.online import Frame, Launched, ReasoningTracker, TrackState
from trackgpt.types import Prediction


class Guess(NamedTuple):
    """A frame that was launched early.

    Attributes:
        state: the track it was launched for, once the frame before has landed.
        frame: which one it is.
        launched: what the device makes of it.
    """

    state: TrackState
    frame: Frame
    launched: Launched


class SpeculatingTracker(ReasoningTracker):
    """A tracker that keeps the device one frame ahead of what is read from it.

    Args:
        parts: the tracker whose reasoner, perception and arbiter this one takes over.
        upcoming: gives the frame after the one that is tracked, or None where it is not at hand.

    Attributes:
        wrong: frames that were launched early for nothing.
    """

    def __init__(self, parts: ReasoningTracker, upcoming: Callable[[], Frame | None]) -> None:
        super().__init__(parts.reasoner, parts.perception, parts.arbiter)
        self._upcoming = upcoming
        self._guess: Guess | None = None
        self.wrong = 0

    def step(self, state: TrackState, frame: Frame) -> tuple[TrackState, Prediction]:
        """One frame, as `ReasoningTracker.step`; a guess that this frame was not made for is dropped."""
        guess, self._guess = self._guess, None
        if self.arbiter.due(state.record):
            self.wrong += guess is not None
            return super().step(state, frame)
        if guess is not None and guess.state is state and guess.frame is frame:
            launched = guess.launched
        else:
            self.wrong += guess is not None
            launched = self.perception.launch(frame, state.cue, state.memory)
        upcoming = self._upcoming()
        early = None if upcoming is None else self.perception.launch(upcoming, state.cue, launched)
        after, prediction = self._concluded(state, *launched.land(), consulted=False, reason="")
        if upcoming is not None and early is not None:
            self._guess = Guess(after, upcoming, early)
        return after, prediction
