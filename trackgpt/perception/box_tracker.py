"""Boxes by a one-stream transformer as the perception of the shared loop: templates, words, a search window, no masks.

All that is known of a target is a frozen `FollowedBox` in the track, so that one network follows any number of targets
and tracks, whatever came in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from trackgpt.errors import UsageError
from trackgpt.geometry.masks import box_of
from trackgpt.online import Frame, image_of
from trackgpt.perception.box_transformer import STRIDE, BoxTransformer
from trackgpt.perception.encoders import normalise
from trackgpt.perception.held_boxes import smaller
from trackgpt.perception.memory_segmenter import SegmenterMemory
from trackgpt.perception.search_window import SquareCrop
from trackgpt.settings import read, to_dict
from trackgpt.track import TrackState
from trackgpt.types import Box, Cue, Prediction, VisualPrompt

PAPER_WORDS = 16
"""Word pieces that DUTrack reads, the two around them and those that fill up included."""


@dataclass(frozen=True)
class BoxSettings:
    """How the network is used. These change what is computed, and need no training.

    Attributes:
        hann: prefer the middle of the search window.
        gate: least score of a view that becomes a template.
        every: frames between two candidates of templates, while there are few; it doubles whenever the store is full.
        store: candidates that are kept beside the first view; templates are taken from them, evenly over time.
        paper: exactly 16 word pieces are read, and those that fill up are attended to, as DUTrack does; off reads as
            many as there are, up to the network's limit.
        words: read words.
        temporal: hand temporal tokens on.
        smallest: least width and height of a box, pixels.
        absent: the score below which a target counts as absent; with 0, as in the papers, it never does.
        kept_side: longest side of the frames that are kept for a describer, pixels; 0 keeps none.
    """

    hann: bool = True
    gate: float = field(default=0.5, metadata={"range": (0.0, 1.0)})
    every: int = field(default=10, metadata={"range": (1, 10**6)})
    store: int = field(default=8, metadata={"range": (0, 256)})
    paper: bool = False
    words: bool = True
    temporal: bool = True
    smallest: float = field(default=2.0, metadata={"range": (0.0, 1e4)})
    absent: float = field(default=0.0, metadata={"range": (0.0, 1.0)})
    kept_side: int = field(default=640, metadata={"range": (0, 8192)})


@dataclass(frozen=True, eq=False)
class DescribedFrame:
    """A frame of the past, for what compares it with the present one.

    Attributes:
        image: uint8 RGB (height, width, 3), not larger than `BoxSettings.kept_side`.
        box: of the target on it, in its pixels.
    """

    image: np.ndarray
    box: Box


@dataclass(frozen=True, eq=False)
class FollowedBox:
    """What is known of one target; its size does not grow with the video.

    Attributes:
        first: its first view, or the newest one that a person showed, uint8 (s, s, 3).
        views: later ones, oldest first, uint8 (s, s, 3) each.
        every: frames between two of them.
        waited: frames since one was taken or looked at.
        temporal: what the last frame handed on, float32 (t, c), or None.
        box: where it was last found, in pixels of the frame.
        size: height and width of the frame, pixels.
        words: that describe it.
        kept: the frame on which it was last described, or None where none is kept.
    """

    first: np.ndarray
    views: tuple[np.ndarray, ...]
    every: int
    waited: int
    temporal: np.ndarray | None
    box: Box
    size: tuple[int, int]
    words: str = ""
    kept: DescribedFrame | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays held."""
        arrays = [self.first, *self.views, self.temporal, None if self.kept is None else self.kept.image]
        return sum(array.nbytes for array in arrays if array is not None)


class BoxTracker:
    """The perception (`trackgpt.online.Perception`). It holds weights, not state.

    Args:
        network: filled, in evaluation mode, on its device, with a tokenizer if it reads words.
        settings: see there.

    Attributes:
        window: by which scores are multiplied where `hann` is set, float32 (g, g).
    """

    kinds = (SegmenterMemory, FollowedBox, DescribedFrame)
    early = False

    def __init__(self, network: BoxTransformer, settings: BoxSettings = BoxSettings()) -> None:
        self.network, self.settings = network, settings
        side = network.config.search_side // STRIDE
        hann = torch.from_numpy(np.hanning(side + 2)[1:-1].astype(np.float32))
        self.window = torch.outer(hann, hann).to(self._device)

    def configured(self, settings: Sequence[str]) -> BoxTracker:
        """The same weights, used otherwise: "key=value" of `BoxSettings`.

        Raises:
            UsageError: there is no such setting, or not of this value.
        """
        own = [f"{key}={value}" for key, value in to_dict(self.settings).items()]
        return BoxTracker(self.network, read(BoxSettings, None, [*own, *settings]))

    def encode(self, images: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """The frames themselves: each target has a window of its own."""
        return images

    def perceive(self, frame: Frame, state: TrackState, cued: tuple[int, ...]) -> tuple[Prediction, SegmenterMemory]:
        """Find every active target.

        One that the cue names on this frame is taken up where it is shown, if it is shown; otherwise its words alone
        are new. A box that is shown is the answer of its frame, with the network's own score of it.
        """
        image = image_of(frame)
        known: Mapping[int, FollowedBox] = dict(state.memory.targets)
        shown = dict(zip(cued, state.cue.visual or [None] * len(cued), strict=True)) if cued else {}
        active, memories, scores = [target.id for target in state.active], dict(known), []
        for number in active:
            memory = known.get(number)
            if number in shown:
                memory = self._begun(image, memory, shown[number], state.cue)
            if memory is None:
                raise UsageError(f"target {number} was never shown; give its box")
            memories[number], score = self._found(image, memory, taken_up=shown.get(number) is not None)
            scores.append(score)
            if number in shown:
                memories[number] = self._keeping(image, memories[number])
        boxes = np.array([memories[number].box for number in active], np.float32).reshape(-1, 4)
        return self._prediction(active, boxes, scores), SegmenterMemory(tuple(memories.items()))

    def _prediction(self, ids: Sequence[int], boxes: np.ndarray, scores: Sequence[float]) -> Prediction:
        score = np.array(scores, np.float32)
        present = score >= self.settings.absent
        boxes[~present] = np.nan
        return Prediction(boxes, None, score, present, np.array(ids, np.int64), {"centre": score})

    def _begun(
        self, image: np.ndarray, memory: FollowedBox | None, shown: VisualPrompt | None, cue: Cue
    ) -> FollowedBox:
        """A target as it is shown on this frame: its old views are forgotten, its words only where there are new."""
        if shown is None:
            if memory is None:
                raise UsageError("a target is described that was never shown; give its box")
            return replace(memory, words=cue.text)
        box, config = shown_box(shown, image), self.network.config
        first = SquareCrop.around(box, config.template_factor).cut(image, config.template_side)
        words = cue.text or ("" if memory is None else memory.words)
        size = (image.shape[0], image.shape[1])
        return FollowedBox(first, (), self.settings.every, 0, None, box, size, words)

    @torch.inference_mode()
    def _found(self, image: np.ndarray, memory: FollowedBox, taken_up: bool) -> tuple[FollowedBox, float]:
        """The memory after a frame, and the score on it; where it was just taken up, or is not seen, it stays."""
        config, how = self.network.config, self.settings
        crop = SquareCrop.around(memory.box, config.search_factor)
        search = self._pixels([crop.cut(image, config.search_side)])
        temporal = None if memory.temporal is None else torch.from_numpy(memory.temporal)[None].to(self._device)
        maps = self.network(self._pixels(self._templates(memory))[None], search, self._read(memory.words), temporal)
        (found,), (score,) = maps.boxes(self.window if how.hann else None)
        if taken_up or float(score) < how.absent:
            return memory, float(score)
        cx, cy, w, h = (float(value) for value in found)
        box = inside_frame(crop.outside((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)), image, how.smallest)
        handed = maps.temporal[0].float().cpu().numpy() if maps.temporal is not None and how.temporal else None
        return self._stored(image, replace(memory, box=box, temporal=handed), float(score)), float(score)

    def _templates(self, memory: FollowedBox) -> list[np.ndarray]:
        """The first view, and the middle one of each of equal stretches of the later ones."""
        count = min(self.network.config.templates - 1, len(memory.views))
        chosen = [memory.views[(2 * k + 1) * len(memory.views) // (2 * count)] for k in range(count)]
        return [memory.first, *chosen]

    def _stored(self, image: np.ndarray, memory: FollowedBox, score: float) -> FollowedBox:
        """The memory with this frame's view, if one is due and good enough; a full store keeps every other one."""
        if memory.waited + 1 < memory.every or not self.settings.store or self.network.config.templates == 1:
            return replace(memory, waited=min(memory.waited + 1, memory.every))
        if score < self.settings.gate:
            return replace(memory, waited=0)
        config = self.network.config
        view = SquareCrop.around(memory.box, config.template_factor).cut(image, config.template_side)
        views = (*memory.views, view)
        if len(views) <= self.settings.store:
            return replace(memory, views=views, waited=0)
        return replace(memory, views=views[::2], every=2 * memory.every, waited=0)

    def _keeping(self, image: np.ndarray, memory: FollowedBox) -> FollowedBox:
        """The memory with this frame as the one on which the target was described."""
        if not self.settings.kept_side:
            return memory
        small = np.array(smaller(image, self.settings.kept_side))  # a source may write its next frame over this one
        across, down = small.shape[1] / image.shape[1], small.shape[0] / image.shape[0]
        x1, y1, x2, y2 = memory.box
        return replace(memory, kept=DescribedFrame(small, (across * x1, down * y1, across * x2, down * y2)))

    # --- what the network is given ---

    def _pixels(self, squares: Sequence[np.ndarray]) -> Tensor:
        """Normalised squares of one size, (n, 3, s, s)."""
        return normalise(torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).to(self._device))

    def _read(self, words: str) -> tuple[Tensor, Tensor] | None:
        """Word pieces and which of them count, (1, m) each; None where nothing is said, or nothing is read."""
        tokenizer, most = self.network.tokenizer, self.network.config.words
        if not most or not self.settings.words or not words:
            return None
        ids = cut_words(tokenizer.encode(words), PAPER_WORDS if self.settings.paper else most)
        if self.settings.paper:  # DUTrack's arithmetic: what fills up counts like words
            ids = [*ids, *[tokenizer.pad_token_id] * (PAPER_WORDS - len(ids))]
        given = torch.tensor([ids], device=self._device)
        return given, torch.ones_like(given, dtype=torch.bool)

    @property
    def _device(self) -> torch.device:
        return self.network.places["search"].device


def cut_words(ids: Sequence[int], most: int) -> list[int]:
    """Ids of words of which only so many are read; the last one, which closes them, stays."""
    return list(ids) if len(ids) <= most else [*ids[: most - 1], ids[-1]]


def shown_box(shown: VisualPrompt, image: np.ndarray) -> Box:
    """Where a target is shown on a frame, inside of it.

    Raises:
        UsageError: by points alone; the box or mask is empty, or lies beside the frame.
    """
    box = shown.box
    if shown.mask is not None:
        box = tuple(float(v) for v in box_of(shown.mask)) if shown.mask.any() else None  # type: ignore[assignment]
    elif box is None:
        raise UsageError("a box tracker begins with a box or a mask, and points were given; draw a box around it")
    if box is None:
        raise UsageError("the mask that was shown is empty; show where the target is")
    height, width = image.shape[:2]
    x1, y1, x2, y2 = max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height))
    if not (x2 > x1 and y2 > y1):
        raise UsageError(f"the box {box} holds nothing of the frame; show where the target is")
    return x1, y1, x2, y2


def inside_frame(box: Box, image: np.ndarray, smallest: float) -> Box:
    """A box moved and cut into a frame, uint8 (height, width, 3), at least `smallest` pixels wide and high."""
    height, width = image.shape[:2]
    sides = []
    for low, high, limit in ((box[0], box[2], width), (box[1], box[3], height)):
        least = min(smallest, float(limit))
        low = min(max(low, 0.0), limit - least)
        sides.append((low, max(min(max(high, least), float(limit)), low + least)))
    (x1, x2), (y1, y2) = sides
    return x1, y1, x2, y2
