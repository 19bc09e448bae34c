"""Rethinking in the background, for live sources alone: it changes results, and no two runs are alike."""

from __future__ import annotations

from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace

from trackgpt.arbiter import Unasked
from trackgpt.online import Arbiter, Frame, Tracker, answered, image_of
from trackgpt.track import TrackState
from trackgpt.types import Cue, Prediction, Prompt


class LateTracker:
    """Goes on with the cue in force while the slow model reads, and takes its answer on the first frame after it.

    Algorithm 1 waits instead, and has the answer on the frame that was read. Instructions are waited for here too, and
    so are questions that only looking gives rise to. While it reads, nothing else is asked.

    Args:
        parts: the system.
        reading: where the slow model reads; a thread of its own by default.

    Attributes:
        reading: the executor; it runs calls in order.
    """

    def __init__(self, parts: Tracker, reading: Executor | None = None) -> None:
        self.parts = parts
        self._unasked = replace(parts, arbiter=Unasked(parts.arbiter))
        self.reading = reading or ThreadPoolExecutor(1, "trackgpt-rethink")
        self._asked: tuple[TrackState, str, Future[Cue]] | None = None

    @property
    def arbiter(self) -> Arbiter:
        """The system's arbiter."""
        return self.parts.arbiter

    @property
    def kinds(self) -> tuple[type, ...]:
        """See `trackgpt.online.Tracker`."""
        return self.parts.kinds

    def begin(self) -> TrackState:
        """A track on which nothing has been said."""
        return self.parts.begin()

    def step(self, state: TrackState, frame: Frame, prompt: Prompt | None = None) -> tuple[TrackState, Prediction]:
        """One frame: heed an answer that has come, or ask where that is due; then look. Not a pure function.

        What the slow model raises is raised where its answer would have been heeded.
        """
        if prompt is not None:
            self._asked = None
            return self.parts.step(state, frame, prompt)
        if self._asked is None:
            why = self.parts.arbiter.due(state, None)
            if not why:
                return self.parts.step(state, frame)
            answer = self.reading.submit(self.parts.reasoner.reason, image_of(frame), state, None)
            self._asked = (state, why, answer)
            return self._unasked.step(state, frame)
        asked, why, answer = self._asked
        if asked.prompts != state.prompts or asked.frame > state.frame:
            self._asked = None  # about a track that has been replaced, or rewound to before the question
        elif answer.done():
            self._asked = None
            return answered(self.parts, state, frame, None, why, answer.result())
        return self._unasked.step(state, frame)
