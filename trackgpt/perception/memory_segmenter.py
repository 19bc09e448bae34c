"""A fast model that follows what it was shown: from a box, a mask or points to masks on every later frame, online.

`MemorySegmenter` is the perception of the shared loop: several targets with identities, added, corrected and dropped at
any frame. What it computes with is a `MemoryNetwork`: the shipped `nano-memory` (`trackgpt.perception.nano_memory`) or
a public SAM 2.1 (`trackgpt.perception.sam2_memory`). All state is in the frozen memory of each target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from torch import Tensor

from trackgpt.geometry.masks import box_of
from trackgpt.online import Frame, image_of
from trackgpt.track import TrackState
from trackgpt.types import Box, Cue, Prediction, Verdict, VisualPrompt


class TargetMemory(Protocol):
    """What a network remembers of one target: a frozen dataclass of plain values and arrays, bounded in size."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        ...


class Hypothesis(NamedTuple):
    """A mask that a network offers for a target on a frame.

    Attributes:
        mask: bool (h, w), on a grid of the network's own.
        box: x1, y1, x2, y2 in pixels of the frame, or None where the mask is empty.
        iou: the IoU that the network expects of it, 0 to 1.
        embedding: what it looks like, float32 (c,) of length 1, from features of this frame alone; None where it is too
            small to tell.
    """

    mask: np.ndarray
    box: Box | None
    iou: float
    embedding: np.ndarray | None


Judge: TypeAlias = Callable[[Sequence[Hypothesis]], np.ndarray]
"""What to add to the expected IoU of each hypothesis, (n,), before the best one is taken."""


class Asked(NamedTuple):
    """One target to segment on a frame.

    Attributes:
        memory: what is remembered of it; None where it begins here.
        shown: what is shown of it here.
        judge: has a say in which hypothesis is taken, where it is tracked; with it, hypotheses are given back, and what
            is remembered for long is the judge's to say (see `KeepingNetwork.kept`).
        beside: the network goes on to choose by itself what else it remembers, beside what it is told to keep; and what
            it has left out of its mask as lying apart from the target is a hypothesis, too.
    """

    memory: Any
    shown: VisualPrompt | None
    judge: Judge | None = None
    beside: bool = False


class Segmented(NamedTuple):
    """One target on one frame.

    Attributes:
        mask: bool (height, width) in pixels of the frame; empty where it is absent.
        iou: the IoU that the network expects of the mask, 0 to 1.
        presence: the probability that the target is on the frame, 0 to 1.
        memory: for the next frame.
        hypotheses: the one that was taken, and then the others; empty where nobody judges.
    """

    mask: np.ndarray
    iou: float
    presence: float
    memory: Any
    hypotheses: tuple[Hypothesis, ...] = ()


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


@runtime_checkable
class KeepingNetwork(MemoryNetwork, Protocol):
    """A memory network that gives hypotheses where it is asked to, and that can be told what to remember for long."""

    def kept(self, memory: Any, place: int) -> Any:
        """A memory in which the newest frame is remembered for long, beside those that were shown.

        Args:
            memory: of a target that was seen on its newest frame.
            place: among the frames that are kept, whose one it takes; their number adds it.
        """
        ...


def embedding_of(features: Tensor, share: Tensor) -> np.ndarray | None:
    """The mean of features (c, h, w) over a mask, as a float32 (c,) of length 1; None for one of under four cells.

    Args:
        features: of one frame.
        share: how much of each cell the mask covers, float (h, w), 0 to 1.
    """
    if share.sum() < 4:
        return None
    mean = (features.float() * share.float()).sum((1, 2))
    return np.asarray((mean / mean.norm().clamp(min=1e-12)).cpu().numpy())


@dataclass(frozen=True)
class SegmenterMemory:
    """The memories of all targets, active or archived, by identity."""

    targets: tuple[tuple[int, Any], ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes held: constant over a video for a given number of targets."""
        return sum(memory.nbytes for _, memory in self.targets)

    def heed(self, verdict: Verdict, cue: Cue | None, looked: Any = None) -> SegmenterMemory:
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
        return prediction(active, found, image_of(frame)), SegmenterMemory(tuple(known.items()))


def prediction(ids: Sequence[int], found: Sequence[Segmented], image: np.ndarray) -> Prediction:
    """The prediction of targets on a frame, uint8 (height, width, 3); `score` is presence times expected IoU."""
    masks = np.stack([one.mask for one in found]) if found else np.zeros((0, *image.shape[:2]), bool)
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
