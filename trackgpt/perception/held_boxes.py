"""Boxes that are answered and held until the next answer, and the frames that a policy is shown.

QTrack has no fast model: its cue is the answer. `HeldBoxes` shows it. `FrameKeeper` is put around any perception, so
that the slow model sees a reference frame, with what was predicted on it, and frames after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from trackgpt.geometry.masks import box_of
from trackgpt.online import Frame, Perception, image_of
from trackgpt.track import TrackState
from trackgpt.types import PROMPT_KINDS, Box, Cue, Prediction, Verdict, VisualPrompt

FADING = np.float32(0.9)
"""What a box's score is multiplied by on every frame on which it is held."""
UNKNOWN_SCORE = np.float32(0.5)
"""Of a box of which a policy cannot say how sure it is."""


class HeldBoxes:
    """The boxes of the cue on the frames that it is about; on others the ones before, ever less sure. No masks.

    A target that an answer leaves out is absent until the next answer that has it. It remembers nothing of its own.
    """

    kinds: tuple[type, ...] = ()
    early = False

    def encode(self, images: Sequence[np.ndarray]) -> Sequence[Frame]:
        """The images."""
        return images

    def perceive(self, frame: Frame, state: TrackState, cued: tuple[int, ...]) -> tuple[Prediction, None]:
        """See `Perception.perceive`."""
        told = dict(zip(cued, _told(state.cue), strict=True)) if cued else {}
        count = len(state.active)
        boxes, scores = np.full((count, 4), np.nan, np.float32), np.zeros(count, np.float32)
        for row, target in enumerate(state.active):
            if target.id in told:
                boxes[row], scores[row] = told[target.id]
            elif target.box is not None and target.last_seen == state.frame - 1:
                boxes[row], scores[row] = target.box, np.float32(target.score) * FADING
        present = np.asarray(np.isfinite(boxes).all(axis=1))
        ids = np.array([target.id for target in state.active], np.int64)
        return Prediction(boxes, None, scores * present, present, ids), None


def _told(cue: Cue) -> list[tuple[np.ndarray, np.float32]]:
    """Box and score of each target of a cue; what a person shows is sure."""
    if cue.boxes is None:
        return [(_shown(one), np.float32(1)) for one in cue.visual]
    scores = np.full(len(cue.boxes), np.nan, np.float32) if cue.scores is None else cue.scores
    return [(box, UNKNOWN_SCORE if np.isnan(score) else score) for box, score in zip(cue.boxes, scores, strict=True)]


def _shown(shown: VisualPrompt) -> np.ndarray:
    """The box of what a person shows, float32 (4,): NaN where it is neither a box nor a mask."""
    if shown.box is not None:
        return np.array(shown.box, np.float32)
    return np.full(4, np.nan, np.float32) if shown.mask is None else box_of(shown.mask)


@dataclass(frozen=True, eq=False)
class KeptFrame:
    """A frame that was seen, and where the targets were on it.

    Attributes:
        image: uint8 RGB (height, width, 3), at most as large as `FrameKeeper.longest`.
        frame: its number in the track.
        places: by identity, xyxy in pixels of the frame as it came; only of those that were present.
    """

    image: np.ndarray
    frame: int
    places: tuple[tuple[int, Box], ...] = ()


@dataclass(frozen=True, eq=False)
class KeeperMemory:
    """The memory of a perception, and the frames that a policy is shown.

    Attributes:
        inner: of the perception; None where it has none.
        frames: the reference, and frames since, oldest first.
        newest: the last frame, which becomes the reference where an answer about it is believed.
        fixed: the reference is the first frame of the track, whatever is answered later.
    """

    inner: Any = None
    frames: tuple[KeptFrame, ...] = ()
    newest: KeptFrame | None = None
    fixed: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        kept = (*self.frames, *(() if self.newest is None else (self.newest,)))
        return sum(each.image.nbytes for each in kept) + (0 if self.inner is None else int(self.inner.nbytes))

    def heed(self, verdict: Verdict, cue: Cue | None, looked: Any = None) -> KeeperMemory:
        """A frame that was answered about is the reference from there on, and so is one on which something is shown.

        Before the frame is looked at, or looked at again, there is none yet: it becomes the first one that is kept.
        """
        inner = self.inner
        if inner is not None:
            inner = inner.heed(verdict, cue, None if looked is None else looked.inner)
        said = verdict.kind in PROMPT_KINDS and bool(verdict.cued)
        if not said and (self.fixed or cue is None or cue.boxes is None):
            return replace(self, inner=inner)
        seen = verdict.cue is None and looked is None and self.newest is not None
        return replace(self, inner=inner, frames=(self.newest,) if seen and self.newest is not None else ())


class FrameKeeper:
    """Any perception, and beside it the frames that the slow model is shown with the present one.

    Args:
        inner: the perception.
        count: frames that are kept, the reference included, at least 1.
        apart: frames from one to the next.
        longest: longer side of what is kept, pixels.
    """

    def __init__(self, inner: Perception, count: int, apart: int, longest: int) -> None:
        self.inner, self.count, self.apart, self.longest = inner, count, apart, longest

    @property
    def kinds(self) -> tuple[type, ...]:
        """The dataclasses of its memory, for `TrackState.load`."""
        return (KeeperMemory, KeptFrame, *getattr(self.inner, "kinds", ()))

    @property
    def early(self) -> bool:
        """Whether `encode` computes anything; where not, no thread is kept for it."""
        return getattr(self.inner, "early", True)

    def encode(self, images: Sequence[np.ndarray]) -> Sequence[Frame]:
        """See `Perception.encode`."""
        return self.inner.encode(images)

    def perceive(self, frame: Frame, state: TrackState, cued: tuple[int, ...]) -> tuple[Prediction, KeeperMemory]:
        """See `Perception.perceive`."""
        before: KeeperMemory = state.memory
        seen, inner = self.inner.perceive(frame, replace(state, memory=before.inner), cued)
        newest = self._kept(image_of(frame), state, seen)
        return seen, replace(before, inner=inner, frames=self._with(before.frames, newest), newest=newest)

    def _kept(self, image: np.ndarray, state: TrackState, seen: Prediction) -> KeptFrame:
        places = tuple(
            (target.id, (float(x1), float(y1), float(x2), float(y2)))
            for target, (x1, y1, x2, y2), present in zip(state.active, seen.boxes, seen.present, strict=True)
            if present
        )
        return KeptFrame(np.array(smaller(image, self.longest)), state.frame, places)

    def _with(self, frames: tuple[KeptFrame, ...], newest: KeptFrame) -> tuple[KeptFrame, ...]:
        """The reference and the last ones since, with the newest where it is time for one."""
        if not frames:
            return (newest,)
        if self.count == 1 or newest.frame - frames[-1].frame < self.apart:
            return frames
        return (frames[0], *(*frames[1:], newest)[-(self.count - 1) :])


def smaller(image: np.ndarray, longest: int) -> np.ndarray:
    """An image, uint8 (height, width, 3), whose longer side has at most so many pixels."""
    scale = longest / max(image.shape[:2])
    if scale >= 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.shape[1::-1])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
