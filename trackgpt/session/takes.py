"""What a session needs to go back: what was said and the state before it, the takes, and states along the way."""

from __future__ import annotations

from dataclasses import dataclass, field

from trackgpt.export.records import Take
from trackgpt.session.choices import Ambiguity
from trackgpt.track import TrackState
from trackgpt.types import Prediction, Prompt

MOST_SAID = 64
"""Instructions that can be taken back."""
MOST_KEPT, MOST_BYTES = 32, 1 << 26
"""States along the way, and their bytes; when there are more, every second one is dropped."""


@dataclass(frozen=True)
class Said:
    """An instruction that can be taken back.

    Attributes:
        prompt: what was said.
        before: the state that it was said to.
        seen: which targets were on the frame before, by id; None where nothing was tracked.
        take: the one that was current.
        time: seconds of the source of its frame.
        looked: the frame and what was seen on it, where it had been looked at for an instruction before this one.
        choice: what could be chosen from before it.
    """

    prompt: Prompt
    before: TrackState
    seen: dict[int, bool] | None
    take: int
    time: float = 0.0
    looked: tuple[int, Prediction] | None = None
    choice: Ambiguity | None = None


@dataclass
class Takes:
    """The takes of a session; the first frame recorded after `branch` opens a new one.

    Attributes:
        opened: all takes that have frames, in order.
        said: what was said, oldest first; what of it can be taken back, the prompts of the present state tell.
    """

    opened: list[Take] = field(default_factory=lambda: [Take(1)])
    said: list[Said] = field(default_factory=list)
    _parent: int = 0
    _last: int = -1

    @property
    def following(self) -> int:
        """Number of the take that the next frame belongs to."""
        return self.opened[-1].number + (1 if self._parent else 0)

    @property
    def branching(self) -> bool:
        """The next frame opens a take."""
        return bool(self._parent)

    def add(self, said: Said) -> None:
        """Keep an instruction; the oldest one can no longer be taken back when there are too many."""
        self.said = [*self.said, said][-MOST_SAID:]

    def find(self, prompt: Prompt) -> Said | None:
        """The instruction of a prompt, if it was said here."""
        return next((said for said in reversed(self.said) if said.prompt is prompt), None)

    def branch(self, parent: int = 0) -> None:
        """Go on in a new take from an opened one, or from the last; where nothing was recorded there is none."""
        if self._last >= 0:
            known = {take.number for take in self.opened}
            self._parent = parent if parent in known else self._parent or self.opened[-1].number

    def record(self, index: int) -> tuple[int, int]:
        """The take of the next frame, and its parent where the frame opens it, else 0."""
        parent, self._parent, self._last = self._parent, 0, index
        if parent:
            self.opened.append(Take(self.opened[-1].number + 1, parent, index))
        return self.opened[-1].number, parent

    def recorded(self, index: int) -> bool:
        """Whether this frame or a later one has been recorded in the current take."""
        return self._last >= index and not self._parent


class Checkpoints:
    """States along one way through the video, by the frame they are about to look at, thinned out as they grow many."""

    def __init__(self) -> None:
        self._states: dict[int, TrackState] = {}
        self._every = 1
        self._count = 0
        self._last = -1

    def keep(self, index: int, state: TrackState) -> None:
        """Keep the state before frame `index`, if it is one of those to keep; the first one given of a frame counts."""
        if index <= self._last:
            return
        self._last = index
        if self._count % self._every == 0:
            self._states[index] = state
            if len(self._states) > max(2, min(MOST_KEPT, MOST_BYTES // max(1, state.nbytes))):
                self._states = dict(list(self._states.items())[::2])
                self._every *= 2
        self._count += 1

    def forget_after(self, index: int) -> None:
        """Forget the states after frame `index`, which is being tracked anew."""
        self._states = {at: state for at, state in self._states.items() if at <= index}
        self._last = index - 1

    def nearest(self, index: int) -> tuple[int, TrackState] | None:
        """The last frame not after `index` before which a state is kept, and that state."""
        known = [at for at in self._states if at <= index]
        return (known[-1], self._states[known[-1]]) if known else None
