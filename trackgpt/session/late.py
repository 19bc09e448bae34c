"""Asking in the background, for live sources alone: tracking goes on meanwhile, and no two runs are alike.

An answer that changes nothing is credited to the frame that it is about. Any other one is applied there, on the state
that was kept, and the frames since are tracked again from a bounded ring; what was shown of them is then amended. With
no delay the result is the one of a tracker that waits.
"""

from __future__ import annotations

from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from trackgpt.arbiter import Unasked
from trackgpt.online import Arbiter, Frame, Tracker, image_of
from trackgpt.track import TrackState
from trackgpt.types import Cue, Prediction, Prompt, Verdict

MOST_FRAMES, MOST_BYTES = 90, 1 << 29
"""Frames that are kept while the slow model reads, and bytes of their images; an answer that takes longer is lost."""

Step: TypeAlias = tuple[TrackState, Prediction]
"""What a step gives."""


@dataclass(frozen=True, eq=False)
class Revision:
    """What a late answer came to.

    Attributes:
        frame: of the track, that the answer is about.
        before: the state before that frame.
        seen: on that frame with the answer: its prediction with `reason`, `cue` and `verdict`.
        state: to go on from, before the present frame.
        again: that frame and all since, tracked again; empty where the answer changes nothing of what was shown.
    """

    frame: int
    before: TrackState
    seen: Prediction
    state: TrackState
    again: tuple[Step, ...] = ()


@dataclass(frozen=True, eq=False)
class _Passed:
    """A frame since the question, uint8 RGB (height, width, 3), and what was made of it without an answer."""

    image: np.ndarray
    before: TrackState
    after: TrackState
    seen: Prediction


class LateTracker:
    """Goes on with the cue in force while the slow model reads, see `trackgpt.session.late`.

    Instructions are waited for, and so are the questions that they give rise to. While the slow model reads, nothing
    else is asked.

    Args:
        parts: the system.
        reading: where the slow model reads; a thread of its own by default.

    Attributes:
        reading: the executor; it runs calls in order.
        revision: what a late answer came to before the last step, or None.
        missed: the frame of the track whose answer was given up on the last step, since too many came after it, or -1.
    """

    def __init__(self, parts: Tracker, reading: Executor | None = None) -> None:
        self.parts = parts
        self.reading = reading or ThreadPoolExecutor(1, "trackgpt-rethink")
        self.revision: Revision | None = None
        self.missed = -1
        self._passed: list[_Passed] = []
        self._reading: Future[Cue] = Future()
        self._reading.set_result(Cue())

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

    def step(self, state: TrackState, frame: Frame, prompt: Prompt | None = None) -> Step:
        """One frame: heed an answer that has come, then look, and ask where that is due. Not a pure function.

        What the slow model raises is raised where its answer would have been heeded.
        """
        self.revision, self.missed = None, -1
        if prompt is not None or not self._passed or self._passed[-1].after is not state:
            self._passed = []  # the track has been told something else, or was rewound to before the question
        if prompt is not None:
            return self.parts.step(state, frame, prompt)
        if self._passed and self._reading.done():
            self.revision = self._settled()
            state = self.revision.state
        return self._look(state, frame)

    def _look(self, state: TrackState, frame: Frame) -> Step:
        """One frame without an answer. A question goes out where one is due and the slow model is free."""
        postponing = _Postponing(self.parts.arbiter)
        after, seen = replace(self.parts, arbiter=postponing).step(state, frame)
        if not self._passed:
            if postponing.asked is None or not self._reading.done():
                return after, seen
            self._reading = self.reading.submit(self.parts.reasoner.reason, image_of(frame), postponing.asked, None)
        self._passed.append(_Passed(image_of(frame), state, after, seen))
        if len(self._passed) == 1 and self._reading.done():
            settled = self._settled()
            return settled.state, settled.seen
        if len(self._passed) > MOST_FRAMES or sum(one.image.nbytes for one in self._passed) > MOST_BYTES:
            self.missed, self._passed = self._passed[0].before.frame, []
        return after, seen

    def _settled(self) -> Revision:
        """The answer on the frame that it is about, and the frames since: tracked again where it changes that frame."""
        first, *later = self._passed
        self._passed = []
        cue = self._reading.result()
        frame, listening = first.before.frame, _Listening(self.parts.arbiter)
        looking = _Recorded(self.parts.perception, first)
        known = replace(self.parts, reasoner=_Known(cue), perception=looking, arbiter=listening)
        state, seen = known.step(first.before, first.image)
        if not looking.again:
            verdict = replace(listening.verdict, frame=frame)
            return Revision(frame, first.before, seen, self._credited(state, later, verdict, cue))
        again = [(state, seen)]
        for one in later:
            again.append(self._look(again[-1][0], one.image))
        return Revision(frame, first.before, seen, again[-1][0], tuple(again))

    def _credited(self, state: TrackState, later: list[_Passed], verdict: Verdict, cue: Cue) -> TrackState:
        """The state with what the arbiter and the memory learn from an answer that changes nothing, without looking."""
        for one in later:
            looking = _Recorded(self.parts.perception, one)
            silent = replace(self.parts, perception=looking, arbiter=Unasked(self.parts.arbiter))
            state, _ = silent.step(state, one.image)
        return replace(state, memory=state.memory.heed(verdict, cue)) if later else state


@dataclass(frozen=True)
class _Known:
    """A slow model whose answer is there."""

    cue: Cue

    def reason(self, frame: np.ndarray, state: TrackState, prompt: Prompt | None) -> Cue:
        return self.cue


class _Postponing(Unasked):
    """An arbiter that asks nothing, and knows with which state it would have."""

    asked: TrackState | None = None

    def due(self, state: TrackState, prompt: Prompt | None) -> str:
        if self._arbiter.due(state, prompt):
            self.asked = state
        return ""

    def doubts(self, state: TrackState, seen: Prediction, memory: Any, prompt: Prompt | None) -> str:
        if self.asked is None and self._arbiter.doubts(state, seen, memory, prompt):
            self.asked = replace(state, memory=memory)
        return ""


class _Listening:
    """An arbiter whose last verdict is kept."""

    verdict = Verdict()

    def __init__(self, arbiter: Arbiter) -> None:
        self._arbiter = arbiter

    def judge(self, state: TrackState, seen: Prediction | None, cue: Cue | None, prompt: Prompt | None) -> Verdict:
        self.verdict = self._arbiter.judge(state, seen, cue, prompt)
        return self.verdict

    def __getattr__(self, name: str) -> Any:
        return getattr(self._arbiter, name)


class _Recorded:
    """A perception that gives what was seen on a frame already, unless it is asked to look for something else there."""

    def __init__(self, perception: Any, passed: _Passed) -> None:
        self._perception, self._passed = perception, passed
        self.again = False

    def encode(self, images: Any) -> Any:
        return self._perception.encode(images)

    def perceive(self, frame: Frame, state: TrackState, cued: tuple[int, ...]) -> tuple[Prediction, Any]:
        if not cued and state.cue is self._passed.before.cue:
            return self._passed.seen, self._passed.after.memory
        self.again = True
        return self._perception.perceive(frame, state, cued)
