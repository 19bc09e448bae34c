"""A memory segmenter with a bank of views per identity (IMAT's memory-augmented tracker, section 4.2).

Views that are sure and new are remembered for long, as if the target had been shown on their frames; hypotheses that
look like something else count for less. A view enters its bank one frame late, so that the arbiter, which may ask a
grounder about the frame, can still reject it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import cv2
import numpy as np

from trackgpt.geometry.boxes import box_iou
from trackgpt.online import Frame, image_of
from trackgpt.perception.identity_banks import (
    BankSettings,
    Identity,
    View,
    changes,
    likeness,
    margin,
    part_and_whole,
    trusted,
)
from trackgpt.perception.memory_segmenter import (
    Asked,
    Hypothesis,
    KeepingNetwork,
    Segmented,
    SegmenterMemory,
    prediction,
)
from trackgpt.track import TrackState
from trackgpt.types import Box, Cue, Prediction, Target, Verdict, VisualPrompt

MOST_AREAS = 10
"""Masks whose usual size is known."""
LARGEST_NEARBY = 480
"""The longer side of earlier frames that are kept, pixels."""


@dataclass(frozen=True)
class MotionSettings:
    """How far a target's own motion decides between hypotheses (SAMURAI).

    Attributes:
        weight: of the overlap with the box that motion foretells; 0 leaves motion out.
        stable: frames in a row on which it must have been seen before.
        gain: share of the surprise that changes the speed.
        overlap: with the box foretold, that a view needs to be kept.
    """

    weight: float = field(default=0.15, metadata={"range": (0.0, 1.0)})
    stable: int = field(default=15, metadata={"range": (1, 10**6)})
    gain: float = field(default=0.3, metadata={"range": (0.0, 1.0)})
    overlap: float = field(default=0.3, metadata={"range": (0.0, 1.0)})


@dataclass(frozen=True, eq=False)
class Motion:
    """Where a target goes: a filter of constant speed with a fixed gain.

    Attributes:
        box: where it was last seen, float32 (4,).
        speed: of the box's sides, pixels per frame, float32 (4,).
        stable: frames in a row on which it was seen.
    """

    box: np.ndarray
    speed: np.ndarray
    stable: int = 1

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self.box.nbytes + self.speed.nbytes)

    def after(self, box: Box | None, gain: float) -> Motion:
        """One frame later, on which it was seen in a box, or nowhere."""
        if box is None:
            return replace(self, box=self.box + self.speed, stable=0)
        seen = np.array(box, np.float32)
        speed = self.speed + np.float32(gain) * (seen - self.box - self.speed)
        return Motion(seen, speed, self.stable + 1)

    def overlap(self, box: Box | None) -> float:
        """IoU of a box with the one foretold."""
        if box is None:
            return 0.0
        return float(box_iou(np.array([box], np.float32), (self.box + self.speed)[None])[0, 0])


@dataclass(frozen=True, eq=False)
class EarlierFrame:
    """A frame that was seen, made smaller: uint8 RGB (height, width, 3), and its number in the track."""

    image: np.ndarray
    frame: int


@dataclass(frozen=True, eq=False)
class BankedMemory:
    """What is known of all targets, active or archived, by identity; bounded for a given number of them.

    Attributes:
        segmenter: of the memory network.
        identities: their banks.
        motions: of those that were seen.
        earlier: frames for words about motion, oldest first.
    """

    segmenter: SegmenterMemory = SegmenterMemory()
    identities: tuple[tuple[int, Identity], ...] = ()
    motions: tuple[tuple[int, Motion], ...] = ()
    earlier: tuple[EarlierFrame, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        views = sum(each.nbytes for _, each in self.identities) + sum(each.nbytes for _, each in self.motions)
        return self.segmenter.nbytes + views + sum(each.image.nbytes for each in self.earlier)

    def heed(self, verdict: Verdict, cue: Cue | None, looked: Any = None) -> BankedMemory:
        """Learn from a verdict: a view that was confirmed may be kept, one that was rejected is negative from now on.

        The network forgets a target that was rejected: what it remembers of it is of something else. Where the frame
        is looked at again, what was seen on it is in `looked`, and nothing is confirmed yet.
        """
        if verdict.kind == "start":
            return BankedMemory(earlier=self.earlier)
        seen: BankedMemory = self if looked is None else looked
        failed, kind = dict(seen.identities), "user" if verdict.kind == "correct" else "drift"
        there = {number for number, _ in self.identities}
        if verdict.targets is not None:
            there = {target.id for target in verdict.targets}
        identities = dict(self.identities)
        for number in verdict.confirmed if looked is None else ():
            if number in identities:
                identities[number] = identities[number].confirmed(verdict.frame)
        for number in verdict.rejected:
            if number in identities and (view := failed[number].last) is not None:
                identities[number] = replace(identities[number], candidate=None, mistaken=replace(view, kind=kind))
        known = [(number, memory) for number, memory in self.segmenter.targets if number not in verdict.rejected]
        return BankedMemory(
            SegmenterMemory(tuple(known)).heed(verdict, cue),
            tuple((number, each) for number, each in identities.items() if number in there),
            tuple((number, each) for number, each in self.motions if number in there),
            self.earlier,
        )


@dataclass(frozen=True)
class Looking:
    """Which earlier frames are kept.

    Attributes:
        count: how many, the present one included; 0 for none.
        apart: frames from one to the next.
    """

    count: int = field(default=0, metadata={"range": (0, 64)})
    apart: int = field(default=3, metadata={"range": (1, 1000)})


class BankedSegmenter:
    """A memory network and banks as the loop's perception.

    Args:
        network: gives hypotheses, and keeps frames when told to.
        banks, motion: see there.
        looking: how many earlier frames the slow model needs.
        agreement: IoU of a mask's box with the box that it came from, below which it is looked for again with a click
            in the middle of the box (tau_init of IMAT: 0.3).
    """

    def __init__(
        self,
        network: KeepingNetwork,
        banks: BankSettings,
        motion: MotionSettings,
        looking: Looking,
        agreement: float,
    ) -> None:
        self.network, self.banks, self.motion = network, banks, motion
        self.looking, self.agreement = looking, agreement

    @property
    def kinds(self) -> tuple[type, ...]:
        """The dataclasses of its memory, for `TrackState.load`."""
        return (BankedMemory, Identity, View, Motion, EarlierFrame, SegmenterMemory, *self.network.kinds)

    @property
    def early(self) -> bool:
        """Whether `encode` computes anything; where not, no thread is kept for it."""
        return getattr(self.network, "early", True)

    def encode(self, images: Sequence[np.ndarray]) -> Sequence[Frame]:
        """See `MemoryNetwork.encode`."""
        return self.network.encode(images)

    def perceive(self, frame: Frame, state: TrackState, cued: tuple[int, ...]) -> tuple[Prediction, BankedMemory]:
        """Segment every active target; those that the cue names on this frame with what it shows of them."""
        before: BankedMemory = state.memory
        active = [target.id for target in state.active]
        shown = dict(zip(cued, state.cue.visual, strict=True)) if cued else {}
        known, identities = dict(before.segmenter.targets), dict(before.identities)
        for number in active:
            known[number], identities[number] = self._admitted(known.get(number), identities.get(number), state.frame)
        negatives = {number: self._negatives(number, identities, state.targets) for number in active}
        motions = dict(before.motions)
        judges = {n: partial(self._judged, identities[n], negatives[n], motions.get(n)) for n in active}
        beside = self.banks.anchors
        found = self.network.segment(frame, [Asked(known.get(n), shown.get(n), judges[n], beside) for n in active])
        found = [self._agreeing(frame, known.get(n), shown.get(n), one) for n, one in zip(active, found, strict=True)]
        for number, one in zip(active, found, strict=True):
            identity, path = identities[number], motions.get(number)
            told, own = shown.get(number), negatives[number]
            learned = self._learned(identity, own, path, one, state.frame, told)
            if known.get(number) is not None and told is None and self._mistaken(one, identity, own):
                learned = replace(learned, candidate=None, last=None)  # the network does not remember this frame
            else:
                known[number] = one.memory
            identities[number] = learned
            box = one.hypotheses[0].box if one.mask.any() and one.hypotheses else None
            if box is not None or path is not None:
                motions[number] = self._moved(path, box, number in shown)
        seen = prediction(active, found, image_of(frame))
        margins = [identities[number].margin for number in active]
        alike = [_likeness(one, before, number) for number, one in zip(active, found, strict=True)]
        more = {"margin": np.array(margins, np.float32), "likeness": np.array(alike, np.float32)}
        seen = replace(seen, own_scores={**seen.own_scores, **more})
        memory = BankedMemory(
            SegmenterMemory(tuple(known.items())),
            tuple(identities.items()),
            tuple(motions.items()),
            self._looked_back(before.earlier, image_of(frame), state.frame),
        )
        return seen, memory

    # --- before looking ---

    def _admitted(self, memory: object, identity: Identity | None, frame: int) -> tuple[object, Identity]:
        """The memory and the banks of a target once its last view has entered, where it may."""
        if identity is None or memory is None:
            return memory, Identity() if identity is None else identity.rejecting(self.banks)
        identity, place = identity.rejecting(self.banks).aged(frame, self.banks).admitting(self.banks)
        return (memory if place is None else self.network.kept(memory, place)), identity

    def _negatives(
        self, number: int, identities: Mapping[int, Identity], targets: Sequence[Target]
    ) -> tuple[View, ...]:
        """What a target is not: what was mistaken for it, and all other identities, but not its parts or its whole."""
        if not self.banks.negatives:
            return ()
        boxes = {target.id: target.box for target in targets}
        others = (
            view
            for other, identity in identities.items()
            if other != number and not part_and_whole(boxes.get(number), boxes.get(other), self.banks)
            for view in identity.positive
        )
        return (*identities[number].negative, *others)

    def _judged(
        self,
        identity: Identity,
        negative: Sequence[View],
        motion: Motion | None,
        hypotheses: Sequence[Hypothesis],
    ) -> np.ndarray:
        """What banks and motion add to the expected IoU of hypotheses."""
        change = changes([one.embedding for one in hypotheses], identity.positive, negative, self.banks)
        if motion is not None and self.motion.weight and motion.stable >= self.motion.stable:
            expected = np.array([motion.overlap(one.box) - one.iou for one in hypotheses], np.float32)
            change = change + np.float32(self.motion.weight) * expected
        return change

    # --- after looking ---

    def _agreeing(self, frame: Frame, memory: object, shown: VisualPrompt | None, found: Segmented) -> Segmented:
        """The mask of a shown box; looked for again with a click where it lies elsewhere, and the better one taken."""
        if shown is None or shown.box is None or shown.mask is not None or shown.clicked:
            return found
        if _agreement(found, shown.box) >= self.agreement:
            return found
        x1, y1, x2, y2 = shown.box
        clicked = replace(shown, points=(*shown.points, ((x1 + x2) / 2, (y1 + y2) / 2, 1)))
        (again,) = self.network.segment(frame, [Asked(memory, clicked, _silent, self.banks.anchors)])
        return max(found, again, key=lambda one: _agreement(one, shown.box))

    def _learned(
        self,
        identity: Identity,
        negative: Sequence[View],
        motion: Motion | None,
        found: Segmented,
        frame: int,
        told: VisualPrompt | None,
    ) -> Identity:
        """The banks after a frame; `told` is what was shown of the target on it."""
        chosen, *others = found.hypotheses or (None,)
        look = None if chosen is None or not found.mask.any() else chosen.embedding
        view, area = None if look is None else View(look, frame), float(found.mask.sum())
        if told is not None:
            return identity.shown(self._anchor(found, view, told), area)
        known = replace(identity, candidate=None, last=view, margin=margin(look, identity.positive, negative))
        if chosen is None or not area:
            return known
        sure = trusted(found.iou, found.presence, area, identity, frame, self.banks) and self._foreseen(motion, chosen)
        known = replace(known, areas=(*identity.areas, area)[-MOST_AREAS:])
        rivalled = _ambiguous(chosen, others) if others or self.banks.anchors else True
        if view is None or not sure or known.margin < self.banks.margin or not rivalled:
            return known
        for rival in self._distractors(chosen, others, identity, frame):
            known = known.with_negative(rival, self.banks)
        return replace(known, candidate=view)

    def _anchor(self, found: Segmented, view: View | None, told: VisualPrompt) -> View | None:
        """The view of a target that was shown; none where its mask lies elsewhere than the box that it came from."""
        apart = told.box is not None and told.mask is None and _agreement(found, told.box) < self.agreement
        return None if view is None or apart else replace(view, kind="shown", verified=True)

    def _foreseen(self, motion: Motion | None, chosen: Hypothesis) -> bool:
        """Whether a target is where its motion foretells it, as far as that is known."""
        how = self.motion
        unknown = motion is None or not how.weight or motion.stable < how.stable
        return unknown or (motion is not None and motion.overlap(chosen.box) >= how.overlap)

    def _distractors(
        self, chosen: Hypothesis, others: Iterable[Hypothesis], identity: Identity, frame: int
    ) -> list[View]:
        """Views of hypotheses that were likely, lie elsewhere, and do not look like the target."""
        return [
            View(one.embedding, frame, "distractor")
            for one in others
            if one.embedding is not None
            and one.iou > 0.5
            and not (one.mask & chosen.mask).any()
            and likeness(one.embedding, identity.positive) < self.banks.novel
        ]

    def _mistaken(self, found: Segmented, identity: Identity, negative: Sequence[View]) -> bool:
        """Whether all of several hypotheses are more like something else: then this frame is not remembered."""
        margins = [margin(one.embedding, identity.positive, negative) for one in found.hypotheses]
        return len(margins) > 1 and all(each < self.banks.drifting for each in margins)

    def _moved(self, motion: Motion | None, box: Box | None, anew: bool) -> Motion:
        if motion is None or (anew and box is not None):
            assert box is not None
            return Motion(np.array(box, np.float32), np.zeros(4, np.float32))
        return motion.after(box, self.motion.gain)

    def _looked_back(
        self, earlier: tuple[EarlierFrame, ...], image: np.ndarray, frame: int
    ) -> tuple[EarlierFrame, ...]:
        """With this frame, where it is time for one, made smaller."""
        count, apart = self.looking.count, self.looking.apart
        if not count or (earlier and frame - earlier[-1].frame < apart):
            return earlier
        scale = min(1.0, LARGEST_NEARBY / max(image.shape[:2]))
        size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
        small = image.copy() if scale == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return (*earlier, EarlierFrame(np.asarray(small), frame))[-count:]


def _likeness(found: Segmented, before: BankedMemory, number: int) -> float:
    """How much a target looks like the views that were known of it; NaN where that cannot be said."""
    identity = dict(before.identities).get(number)
    look = found.hypotheses[0].embedding if found.hypotheses else None
    return float("nan") if identity is None or look is None else likeness(look, identity.positive)


def _silent(hypotheses: Sequence[Hypothesis]) -> np.ndarray:
    return np.zeros(len(hypotheses), np.float32)


def _agreement(found: Segmented, box: Box | None) -> float:
    """IoU of a mask's box with another box."""
    own = found.hypotheses[0].box if found.hypotheses and found.mask.any() else None
    if own is None or box is None:
        return 0.0
    return float(box_iou(np.array([own], np.float32), np.array([box], np.float32))[0, 0])


def _ambiguous(chosen: Hypothesis, others: Sequence[Hypothesis]) -> bool:
    """Whether some other hypothesis has a large piece elsewhere: a view is worth keeping when it shows a distractor.

    DAM4SAM's test: the box around the chosen mask and the largest connected piece of what another one adds to it
    overlaps the chosen mask's own box by an IoU of at most 0.7.
    """
    if chosen.box is None:
        return False
    ys, xs = np.nonzero(chosen.mask)
    own = np.array([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]], np.float32)
    for one in others:
        count, _, stats, _ = cv2.connectedComponentsWithStats((one.mask & ~chosen.mask).astype(np.uint8))
        if count < 2:
            continue
        x, y, width, height, _ = stats[1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())]
        piece = np.array([[x, y, x + width, y + height]], np.float32)
        both = np.concatenate([np.minimum(own, piece)[:, :2], np.maximum(own, piece)[:, 2:]], 1)
        if box_iou(own, both)[0, 0] <= 0.7:
            return True
    return False
