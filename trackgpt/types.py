"""The nouns every part shares. Small, frozen, plain numpy: importing them costs nothing.

Boxes are ``xyxy`` float32 pixels of the original frame, with edges (a one-pixel mask at the origin has the box
0, 0, 1, 1). Frames are uint8 RGB, shape (height, width, 3). Masks are bool. Frame indices start at 0.
An object that was looked for and not seen has ``present == False``, an empty mask and a box of NaN, never a zero box.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

PromptKind = Literal["init", "correct", "switch", "refine", "resume", "absent"]


@dataclass(frozen=True)
class Prompt:
    """What a person says, at which frame, and how it relates to what is being tracked."""

    text: str
    frame: int = 0
    kind: PromptKind = "init"


@dataclass(frozen=True)
class Cue:
    """What the slow model tells the fast one; unused fields stay None.

    Attributes:
        text: the answer shown to the user, without the tokens that carry queries.
        referring: referring queries Q_R, one per target, float32 (targets, channels).
        purport: purport queries Q_p, one per target, float32 (targets, channels).
        boxes: grounded boxes, float32 (targets, 4), for reasoners that answer with boxes.
        reasoning: a chain of thought, for people.
        answer: the answer as the model wrote it; given back when it is asked again, it saves time.
    """

    text: str = ""
    referring: np.ndarray | None = None
    purport: np.ndarray | None = None
    boxes: np.ndarray | None = None
    reasoning: str = ""
    answer: str = ""

    @property
    def targets(self) -> int:
        """How many targets the answer names; 0 means the reasoner found nothing."""
        for values in (self.referring, self.boxes):
            if values is not None:
                return len(values)
        return 0


@dataclass(frozen=True)
class Prediction:
    """One frame's result for K targets.

    Attributes:
        boxes: float32 (K, 4) xyxy pixels; NaN where absent.
        masks: bool (K, height, width).
        scores: float32 (K,), the purport score S_p: the model's own estimate of its mask's IoU, in [0, 1].
        present: bool (K,).
        ids: int64 (K,), stable over a track, starting at 1.
        cue: the reasoner's message, on frames where it was consulted, else None.
        reason: why the reasoner was consulted ("prompt", "purport", "searching"), else "".
    """

    boxes: np.ndarray
    masks: np.ndarray
    scores: np.ndarray
    present: np.ndarray
    ids: np.ndarray
    cue: Cue | None = None
    reason: str = ""


@dataclass(frozen=True)
class EncodedFrame:
    """A frame and what the encoder says about it, which depends on nothing else and may therefore be made early.

    Attributes:
        image: uint8 RGB (height, width, 3), which the slow model reads.
        features: what the perception that made it decodes from.
    """

    image: np.ndarray
    features: Any = field(repr=False)


class Tracker(Protocol):
    """An online tracker: one call a frame, in order, no look-ahead, state of bounded size."""

    def initialize(self, frame: np.ndarray, prompt: Prompt, cue: Cue | None = None) -> Prediction:
        """Begin a new track on `frame` (uint8 RGB, height x width x 3).

        `cue` is the answer to the prompt, where it has been given already.
        """
        ...

    def track(self, frame: np.ndarray, prompt: Prompt | None = None) -> Prediction:
        """Carry on with the next frame; a prompt corrects or replaces what is tracked."""
        ...


@dataclass(frozen=True)
class Clip:
    """A short video with its truth, fully in memory: what SynthTrack makes and small tests use.

    Attributes:
        frames: uint8 (T, height, width, 3) RGB.
        ids: uint8 (T, height, width), 0 = background, otherwise the id of the visible object.
        fps: frames per second.
        name: a short identifier.
    """

    frames: np.ndarray
    ids: np.ndarray
    fps: float = 12.0
    name: str = ""
    meta: dict[str, object] = field(default_factory=dict)
