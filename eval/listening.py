"""A tracker to which a person speaks: every sentence is understood as a session understands it.

Beside a session this keeps no log, no takes and nothing to undo, so that what is timed is the tracker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from trackgpt.errors import UsageError
from trackgpt.online import Tracker
from trackgpt.session.conditionals import fallen_through, settled
from trackgpt.session.understanding import refuse_unheard, refuse_unknown, understood
from trackgpt.track import TrackState
from trackgpt.types import Prediction, Prompt


@dataclass(frozen=True)
class Heard:
    """How a sentence was understood.

    Attributes:
        kind: see `trackgpt.types.Prompt`; "conditional" where that is what was said, whatever it came to.
        refused: why it could not be done, in the words that a person reads; then the track goes on as if nothing had
            been said. Empty where it was done.
    """

    kind: str
    refused: str = ""


@dataclass(frozen=True)
class Listened:
    """One frame of a tracker that is spoken to.

    Attributes:
        seen: the prediction.
        heard: what was said about the frame, None where nothing was.
        seconds: that the frame took, and cpu_seconds: of this process's processors, which on a busy machine say more.
        readings: how often the slow model was asked on it.
    """

    seen: Prediction
    heard: Heard | None
    seconds: float
    cpu_seconds: float
    readings: int


def listen(tracker: Tracker, said: Callable[[int], str], frames: Iterable[np.ndarray]) -> Iterator[Listened]:
    """Follow frames, uint8 RGB (height, width, 3), while a person speaks.

    Args:
        tracker: the system.
        said: what is said about a frame, "" for nothing; asked once per frame, after the frame before was given back.
        frames: in order, from frame 0.

    Raises:
        UsageError: what begins the track is refused.
    """
    state = tracker.begin()
    for t, frame in enumerate(frames):
        text, began, spent = said(t), time.perf_counter(), time.process_time()
        state, seen, heard, tried = _step(tracker, state, frame, t, text)
        took, cost = time.perf_counter() - began, time.process_time() - spent
        yield Listened(seen, heard, took, cost, tried if tried > 1 else int(seen.reason != ""))


def _step(
    tracker: Tracker, state: TrackState, frame: np.ndarray, t: int, text: str
) -> tuple[TrackState, Prediction, Heard | None, int]:
    """One frame, and how many options of a conditional were tried on it."""
    prompt, heard = _understood(tracker, state, t, text) if text else (None, None)
    if prompt is not None and prompt.kind == "conditional":
        _, after, seen, tried = settled(tracker.step, state, frame, prompt)
        return after, seen, heard, tried
    if prompt is None and not state.prompts:
        return state, _nothing(), heard, 1
    after, seen = tracker.step(state, frame, prompt)
    instead = fallen_through(tracker.step, state, frame, seen, t) if prompt is None and seen.reason else None
    if instead is None:
        return after, seen, heard, 1
    return instead.state, instead.seen, heard, 1 + instead.tried


def _understood(tracker: Tracker, state: TrackState, t: int, text: str) -> tuple[Prompt | None, Heard]:
    """The prompt that the tracker is told, None where there is nothing to do; and how the words were understood."""
    prompt = replace(understood(text, state), frame=t)
    try:
        refuse_unheard(prompt, state, tracker.arbiter)
        refuse_unknown(prompt, state)
    except UsageError as error:
        if not state.prompts:
            raise
        return None, Heard(prompt.kind, str(error))
    return (None if prompt.kind == "question" else prompt), Heard(prompt.kind)


def _nothing() -> Prediction:
    """Of a track that has not begun."""
    none = np.zeros(0, np.float32)
    return Prediction(np.zeros((0, 4), np.float32), None, none, np.zeros(0, bool), np.zeros(0, np.int64))
