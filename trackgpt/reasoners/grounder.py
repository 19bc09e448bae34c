"""Words and an image in, boxes out: what every grounder gives, whatever finds them.

A grounder is the slow model of IMAT (`trackgpt.systems.imat`). It holds weights, not state: what it says depends on its
arguments alone. Boxes are xyxy pixels of the image it was given, whatever its network's own convention is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from trackgpt.geometry.boxes import box_iou
from trackgpt.types import Box

ALIKE = 0.5
"""A rival fits words about as well as what was found if it has at least this share of its score."""
SAME_PLACE = 0.3
"""IoU of two boxes from which on they may be of the same thing."""


@dataclass(frozen=True)
class Candidate:
    """A region of an image that may be meant.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the image.
        score: how sure the grounder is, 0 to 1; None where it cannot say, never a made-up number.
        label: what the grounder calls it; may be empty.
    """

    box: Box
    score: float | None = None
    label: str = ""


@dataclass(frozen=True)
class Grounding:
    """What a grounder makes of words on an image.

    Attributes:
        found: the regions that are meant, surest first: one for words that mean one thing, several for a plural ("all
            players"). Empty where nothing on the image is meant.
        rivals: others that the words fit about as well, or that came next; what a person may choose from.
        unjudged: words that it could not take into account, as they were written.
        answer: what a language model wrote, as it wrote it; empty from others.
        missing: parts of the words for which nothing was found, where something was found for others.
        alike: how many of the rivals, the first ones, fit the words about as well as what was found, so that a person
            may have meant them; 0 where the grounder cannot tell.
    """

    found: tuple[Candidate, ...] = ()
    rivals: tuple[Candidate, ...] = ()
    unjudged: tuple[str, ...] = ()
    answer: str = ""
    missing: tuple[str, ...] = ()
    alike: int = 0

    @property
    def text(self) -> str:
        """What was found, in a line for people."""
        counted = Counter(one.label or "a region" for one in self.found).items()
        names = ", ".join(name if count == 1 else f"{count} x {name}" for name, count in counted)
        said = [f"Found {names}." if self.found else "Nothing on this frame is meant."]
        if self.found and self.missing:
            said.append(f"Not found: {', '.join(self.missing)}.")
        if self.unjudged:
            said.append(f"Not taken into account: {', '.join(self.unjudged)}.")
        if self.rivals and self.found:
            said.append(f"{len(self.rivals)} more would fit.")
        return " ".join(said)


def as_likely(one: Candidate, found: Sequence[Candidate]) -> bool:
    """Whether a rival is another thing than those found, with at least `ALIKE` of the surest one's score."""
    best = found[0].score if found else None
    if best is None or one.score is None or one.score < ALIKE * best:
        return False
    others = np.array([other.box for other in found], np.float32)
    return bool(box_iou(np.array([one.box], np.float32), others).max() < SAME_PLACE)


class Nearby(NamedTuple):
    """Another frame of the same video, for words about motion.

    Attributes:
        image: uint8 RGB, of the same size as the one that is grounded.
        offset: how many frames it comes later; negative for an earlier one.
    """

    image: np.ndarray
    offset: int


class Grounder(Protocol):
    """Finds what words mean.

    Attributes:
        name: for people and for run.json.
        licence: of its weights, as their card or file says; empty where that is not known.
        reads_motion: whether it makes use of `nearby`; where not, nobody keeps frames for it.
        checks_every: frames after which it may as well be asked again, because it costs little beside tracking; 0 for a
            slow one, which is asked where there is a reason.
    """

    name: str
    licence: str
    reads_motion: bool
    checks_every: int

    def later(self, words: str) -> str:
        """What of words it is asked with later, about a target that it has found by them; empty for nothing.

        By then things have moved: who was on the left when that was said may be anywhere.
        """
        ...

    def ground(self, image: np.ndarray, words: str, nearby: Sequence[Nearby] = ()) -> Grounding:
        """What the words mean on an image, uint8 RGB (height, width, 3).

        Args:
            image: to look at.
            words: one referring expression in plain words, e.g. "the man on the left".
            nearby: other frames, in order of their offsets; may be empty, and then motion cannot be judged.
        """
        ...
