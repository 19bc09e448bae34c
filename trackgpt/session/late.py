"""Rethinking in the background, for live sources alone: it changes results, and no two runs are alike."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from trackgpt.online import Frame, ReasoningTracker, TrackState, image_of
from trackgpt.types import Cue, Prediction


class BackgroundTracker(ReasoningTracker):
    """Goes on with the old queries while the brain reads, and takes the new ones on the first frame after its answer.

    Algorithm 1 waits instead, and has the answer on the frame that was read. Instructions are waited for here too.

    Args:
        parts: the tracker whose reasoner, perception and arbiter this one takes over.
    """

    def __init__(self, parts: ReasoningTracker) -> None:
        super().__init__(parts.reasoner, parts.perception, parts.arbiter)
        self._thread = ThreadPoolExecutor(1, "trackgpt-rethink")
        self._reading: tuple[TrackState, str, Future[Cue]] | None = None

    def step(self, state: TrackState, frame: Frame) -> tuple[TrackState, Prediction]:
        """One frame: heed an answer that has come, or ask where the score is low; then perceive. Not a pure function.

        What the brain raises is raised where its answer would have been heeded.
        """
        if self._reading is None:
            state = self._ask_where_due(state, frame)
            return self._perceive(state, frame, consulted=False, reason="")
        asked, why, answer = self._reading
        if asked.prompt is not state.prompt or asked.record.frame > state.record.frame:
            self._reading = None  # about a track that has been replaced, or rewound to before the question
        elif answer.done():
            self._reading = None
            return self.heed(state, frame, answer.result(), why)
        return self._perceive(state, frame, consulted=False, reason="")

    def _ask_where_due(self, state: TrackState, frame: Frame) -> TrackState:
        why = self.arbiter.due(state.record)
        if not why:
            return state
        answer = self._thread.submit(self.reasoner.reason, image_of(frame), state.prompt, state.cue)
        record = replace(state.record, consulted=state.record.frame, rethinks=state.record.rethinks + 1)
        state = replace(state, record=record)
        self._reading = (state, why, answer)
        return state
