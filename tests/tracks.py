"""Following a track frame by frame, for tests that look at its state on the way."""

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
