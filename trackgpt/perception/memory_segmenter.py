"""A fast model that follows what it was shown: from a box, a mask or points to masks on every later frame, online.

`MemorySegmenter` is the perception of the shared loop: several targets with identities, added, corrected and dropped at
any frame. What it computes with is a `MemoryNetwork`: the shipped `nano-memory` (`trackgpt.perception.nano_memory`) or
a public SAM 2.1 (`trackgpt.perception.sam2_memory`). All state is in the frozen memory of each target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from trackgpt.geometry.masks import box_of
from trackgpt.online import Frame
from trackgpt.track import TrackState
from trackgpt.types import Cue, Prediction, Verdict, VisualPrompt


class TargetMemory(Protocol):
    """What a network remembers of one target: a frozen dataclass of plain values and arrays, bounded in size."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        ...


class Asked(NamedTuple):
    """One target to segment on a frame: what is remembered of it (None: it begins here), what is shown of it here."""

    memory: Any
    shown: VisualPrompt | None


class Segmented(NamedTuple):
    """One target on one frame.

    Attributes:
        mask: bool (height, width) in pixels of the frame; empty where it is absent.
        iou: the IoU that the network expects of the mask, 0 to 1.
        presence: the probability that the target is on the frame, 0 to 1.
        memory: for the next frame.
    """

    mask: np.ndarray
    iou: float
    presence: float
    memory: Any


class MemoryNetwork(Protocol):
    """What a memory segmenter computes with. It holds weights, not state.

    Attributes:
        kinds: every dataclass that a target's memory consists of, for `TrackState.load`.
    """

    kinds: tuple[type, ...]

    def encode(self, images: Sequence[np.ndarray]) -> Sequence[Frame]:
        """What does not depend on a track, of frames uint8 RGB (height, width, 3); may return them unchanged."""
        ...

    def segment(self, frame: Frame, asked: Sequence[Asked]) -> list[Segmented]:
        """All targets of a frame at once, each as if it were alone."""
        ...


@dataclass(frozen=True)
class SegmenterMemory:
    """The memories of all targets, active or archived, by identity."""

    targets: tuple[tuple[int, Any], ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes held: constant over a video for a given number of targets."""
        return sum(memory.nbytes for _, memory in self.targets)

    def heed(self, verdict: Verdict, cue: Cue | None) -> SegmenterMemory:
        """Forget targets that are no more; a new beginning forgets all, also those whose numbers are given again."""
        if verdict.kind == "start":
            return SegmenterMemory()
        if verdict.targets is None:
            return self
        kept = {target.id for target in verdict.targets}
        return SegmenterMemory(tuple((number, memory) for number, memory in self.targets if number in kept))


class MemorySegmenter:
    """A memory network as the loop's perception: masks, boxes and scores in pixels of the original frame."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network

    @property
    def kinds(self) -> tuple[type, ...]:
        """The dataclasses of its memory, for `TrackState.load`."""
        return (SegmenterMemory, *self.network.kinds)

    @property
    def early(self) -> bool:
        """Whether `encode` computes anything; where not, no thread is kept for it."""
        return getattr(self.network, "early", True)

    def encode(self, images: Sequence[np.ndarray]) -> Sequence[Frame]:
        """See `MemoryNetwork.encode`."""
        return self.network.encode(images)

    def perceive(self, frame: Frame, state: TrackState, cued: tuple[int, ...]) -> tuple[Prediction, SegmenterMemory]:
        """Segment every active target; those that the cue names on this frame with what it shows of them."""
        known = dict(state.memory.targets)
        shown = dict(zip(cued, state.cue.visual, strict=True)) if cued else {}
        active = [target.id for target in state.active]
        found = self.network.segment(frame, [Asked(known.get(number), shown.get(number)) for number in active])
        known.update(zip(active, (one.memory for one in found), strict=True))
        return prediction(active, found), SegmenterMemory(tuple(known.items()))


def prediction(ids: Sequence[int], found: Sequence[Segmented]) -> Prediction:
    """The prediction of targets on a frame; `score` is presence times expected IoU."""
    masks = np.stack([one.mask for one in found]) if found else None
    present = np.array([one.mask.any() for one in found], bool)
    nowhere = np.full(4, np.nan, np.float32)
    boxes = [np.float32(box_of(one.mask)) if seen else nowhere for one, seen in zip(found, present, strict=True)]
    iou, presence = (np.array([getattr(one, name) for one in found], np.float32) for name in ("iou", "presence"))
    return Prediction(
        np.stack(boxes) if boxes else np.zeros((0, 4), np.float32),
        masks,
        iou * presence,
        present,
        np.array(ids, np.int64),
        {"iou": iou, "presence": presence},
    )
