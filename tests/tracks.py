"""Following a track frame by frame, for tests that look at its state on the way; and a tracker that a test scripts."""

from collections.abc import Sequence

import numpy as np

from trackgpt.online import Frame
from trackgpt.session.session import Stepping
from trackgpt.types import Prediction, Prompt


class Track:
    """One track of a tracker; `state` is the one before the next frame, and may be replaced by any other."""

    def __init__(self, tracker: Stepping) -> None:
        self.tracker = tracker
        self.state = tracker.begin()

    def look(self, frame: Frame, prompt: Prompt | None = None) -> Prediction:
        """The next frame, and what is said about it."""
        self.state, seen = self.tracker.step(self.state, frame, prompt)
        return seen


class Showing:
    """A tracker that shows what a test makes of every frame: `see` gives frame `t` of a track that was told `text`."""

    reasoner = None

    def begin(self) -> tuple[int, str]:
        return 0, ""

    def step(
        self, state: tuple[int, str], frame: np.ndarray, prompt: Prompt | None = None
    ) -> tuple[tuple[int, str], Prediction]:
        t, text = state[0], state[1] if prompt is None else prompt.text
        return (t + 1, text), self.see(t, frame, text)

    def see(self, t: int, frame: np.ndarray, text: str) -> Prediction:
        raise NotImplementedError

    @property
    def perception(self) -> "Showing":
        return self

    def encode(self, images: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        return images
