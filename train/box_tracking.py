"""Training of the box tracker: templates and words of a target, and later search windows in which it is found.

Samples are causal: all templates are from frames before the first search window. Windows are jittered, as a tracker's
last box is never quite right. Losses are those of OSTrack: GIoU 2, L1 5, and CenterNet's focal loss 1, summed over the
search windows, between which the temporal tokens go on without a gradient. A frame that cannot be read is an error that
names its file; the loop replaces the sample and counts it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trackgpt.config import BoxTransformerConfig
from trackgpt.data.box_video import BoxSequence, got10k, lasot, otb_lang, tnl2k, tnllt
from trackgpt.data.videos import read_image
from trackgpt.errors import InputError, UsageError
from trackgpt.geometry.masks import box_of
from trackgpt.perception.box_tracker import cut_words
from trackgpt.perception.box_transformer import BoxMaps, BoxTransformer
from trackgpt.perception.encoders import normalise
from trackgpt.perception.search_window import SquareCrop
from trackgpt.synthtrack.clips import Case, description, make_case
from trackgpt.synthtrack.randomised import randomised_clip
from trackgpt.types import Box, Clip
from train.config import BoxConfig

SETS = {"lasot": lasot, "got10k": got10k, "tnl2k": tnl2k, "tnllt": tnllt, "otb-lang": otb_lang}
"""Readers of the layouts that are trained on; of each set only its part "train"."""
TRIES = 32
"""Sequences or scenes that are looked at for enough frames with a target before a sample is given up."""
FRAMES, LONGEST, FEWEST = 16, 320, 16
"""Of a SynthTrack scene: frames, longest side in pixels; and the pixels of a target that counts as visible."""
SIDE, SHARING = 256, 4
"""Side of a randomised clip, pixels; and samples in a row that are drawn from one scene or clip."""
OVERLAP = 0.7
"""IoU of two boxes of one size whose middles are a bump's radius apart (CenterNet)."""


@dataclass(frozen=True)
class BoxSample:
    """One target.

    Attributes:
        templates: uint8 (v, t, t, 3).
        searches: uint8 (k, s, s, 3).
        boxes: float32 (k, 4), cx, cy, w, h in sides of each search window.
        words: that mean it; may be empty.
    """

    templates: np.ndarray
    searches: np.ndarray
    boxes: np.ndarray
    words: str


class BoxTrackingStage:
    """Search windows to boxes.

    Args:
        model: what learns.
        box: how samples are made.
        device: where it computes.

    Raises:
        UsageError, InputError: see `open_box_sets`.
    """

    weights = {"giou": 2.0, "l1": 5.0, "focal": 1.0}

    def __init__(self, model: BoxTransformer, box: BoxConfig, device: torch.device) -> None:
        self.model, self.box, self.device = model, box, device
        self.sets = open_box_sets(box.sets)
        if box.hold_stem:
            model.stem.requires_grad_(False)

    def sample(self, seed: int) -> BoxSample:
        """A sample, the same for the same seed.

        Raises:
            InputError: a file is missing or damaged, or no target was found that is visible on enough frames.
        """
        rng = np.random.default_rng([seed, 307])
        if self.sets and rng.random() < self.box.share:
            made = self._of_sets(rng)
        elif self.box.randomised and rng.random() < self.box.randomised:
            made = self._of_randomised(rng, seed)
        else:
            made = self._of_scene(rng, seed)
        words = "" if rng.random() < self.box.wordless else made.words
        if words and rng.random() < self.box.spoilt:
            return replace(made, templates=spoilt(rng, made.templates))
        return replace(made, words=words)

    def modules(self) -> Iterable[nn.Module]:
        return [self.model]

    def losses(self, samples: list[Any]) -> tuple[dict[str, Tensor], dict[str, float]]:
        n, views = len(samples), len(samples[0].templates)
        templates = self._pixels([view for one in samples for view in one.templates]).view(
            n, views, 3, *self._side("template")
        )
        words = batch_words([one.words for one in samples], self.model)
        given = None if words is None else (words[0].to(self.device), words[1].to(self.device))
        sums: dict[str, Tensor] = {}
        shown = self.model.views(templates)
        overlaps, temporal = [], None
        for k in range(len(samples[0].searches)):
            truth = torch.from_numpy(np.stack([one.boxes[k] for one in samples])).to(self.device)
            maps = self.model.look(shown, self._pixels([one.searches[k] for one in samples]), given, temporal)
            temporal = None if maps.temporal is None else maps.temporal.detach()
            parts, overlap = box_losses(maps, truth)
            sums = {name: sums.get(name, 0.0) + value for name, value in parts.items()}
            overlaps.append(overlap)
        iou = torch.cat(overlaps)
        return sums, {"iou": iou.mean().item(), "found": (iou > 0.5).float().mean().item()}

    def _pixels(self, squares: Sequence[np.ndarray]) -> Tensor:
        return normalise(torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).to(self.device))

    def _side(self, kind: str) -> tuple[int, int]:
        side = getattr(self.model.config, f"{kind}_side")
        return side, side

    def _of_sets(self, rng: np.random.Generator) -> BoxSample:
        """A sample of real video; every set is as likely as another, and so is every sequence of a set."""
        sequence = None
        for _ in range(TRIES):
            sequences = self.sets[int(rng.integers(len(self.sets)))]
            sequence = sequences[int(rng.integers(len(sequences)))]
            video = sequence.video()
            if not video.images or video.boxes is None:
                raise InputError(f"{sequence.images}: no frames; unpack them to train on them")
            seen = np.isfinite(video.boxes).all(axis=1)
            if (chosen := causal(rng, seen, self.model.config.templates, self.box.searches, self.box.gap)) is not None:
                frames = [read_image(video.images[t]) for t in chosen]
                words = video.expressions[0].text if video.expressions else ""
                return self._cut(rng, frames, video.boxes[chosen], words)
        raise InputError(f"{sequence.boxes if sequence else ''}: no target on enough frames in {TRIES} sequences")

    def _of_scene(self, rng: np.random.Generator, seed: int) -> BoxSample:
        """A sample of SynthTrack's train split: one target, with the words of an instruction or of a description."""
        needed = self.model.config.templates + self.box.searches
        for k in range(TRIES):
            case = _scene(seed // SHARING * TRIES + k, max(FRAMES, 2 * needed))
            said = [one for one in case.expressions if len(one.targets) == 1]
            if not said:
                continue
            one = said[int(rng.integers(len(said)))]
            boxes = id_boxes(case.clip.ids, one.targets[0])
            seen = np.isfinite(boxes).all(axis=1)
            if (chosen := causal(rng, seen, self.model.config.templates, self.box.searches, self.box.gap)) is not None:
                last = chosen[self.model.config.templates - 1]
                words = description(case, last, one.targets[0]) if rng.random() < self.box.described else ""
                return self._cut(rng, [case.clip.frames[t] for t in chosen], boxes[chosen], words or one.text)
        raise InputError(f"SynthTrack scene {seed * TRIES}: no target of its own words in {TRIES} scenes")

    def _of_randomised(self, rng: np.random.Generator, seed: int) -> BoxSample:
        """A sample of a domain-randomised clip, without words."""
        needed = self.model.config.templates + self.box.searches
        for k in range(TRIES):
            clip = _randomised(seed // SHARING * TRIES + k, 2 * needed)
            keys = [int(key) for key in np.unique(clip.ids) if key]
            if not keys:
                continue
            boxes = id_boxes(clip.ids, keys[int(rng.integers(len(keys)))])
            seen = np.isfinite(boxes).all(axis=1)
            if (chosen := causal(rng, seen, self.model.config.templates, self.box.searches, self.box.gap)) is not None:
                return self._cut(rng, [clip.frames[t] for t in chosen], boxes[chosen], "")
        raise InputError(f"randomised clip {seed // SHARING * TRIES}: no target on enough frames in {TRIES} clips")

    def _cut(self, rng: np.random.Generator, frames: list[np.ndarray], boxes: np.ndarray, words: str) -> BoxSample:
        """Templates around the true boxes, and search windows around jittered ones."""
        config, first = self.model.config, len(frames) - self.box.searches
        places: list[Box] = [(float(a), float(b), float(c), float(d)) for a, b, c, d in boxes]
        templates = [
            SquareCrop.around(place, config.template_factor).cut(frame, config.template_side)
            for frame, place in zip(frames[:first], places[:first], strict=True)
        ]
        searches, truth = [], []
        for frame, place in zip(frames[first:], places[first:], strict=True):
            crop = SquareCrop.around(jittered(rng, place, self.box), config.search_factor)
            searches.append(crop.cut(frame, config.search_side))
            x1, y1, x2, y2 = crop.inside(place)
            truth.append([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
        return BoxSample(np.stack(templates), np.stack(searches), np.array(truth, np.float32), words)


def open_box_sets(folders: Mapping[str, str]) -> list[tuple[BoxSequence, ...]]:
    """The training sequences of sets, by the names of their layouts.

    Raises:
        UsageError: there is no such layout.
        InputError: a set is not there, is laid out otherwise, or lacks its list of training sequences.
    """
    for name in folders:
        if name not in SETS:
            raise UsageError(f"sets: layout `{name}` is none of {', '.join(SETS)}")
    return [SETS[name](folder, "train").sequences for name, folder in folders.items()]


def causal(rng: np.random.Generator, seen: np.ndarray, templates: int, searches: int, gap: int) -> list[int] | None:
    """Frames of a sample in order of time, templates first; None where the target is visible on too few.

    The first template is drawn from all that leave enough frames behind them; every later frame is one of those that
    are visible within `gap` of the one before.

    Args:
        seen: bool (frames,), where the target is visible.
        templates, searches: how many of each.
        gap: most frames from one to the next.
    """
    visible, wanted = np.flatnonzero(seen), templates + searches
    if len(visible) < wanted:
        return None
    place = int(rng.integers(len(visible) - wanted + 1))
    chosen = [int(visible[place])]
    for left in range(wanted - 1, 0, -1):
        within = int(np.searchsorted(visible, visible[place] + gap, side="right")) - 1
        last = min(within, len(visible) - left)
        if last <= place:
            return None  # it is hidden for longer than the gap
        place = int(rng.integers(place + 1, last + 1))
        chosen.append(int(visible[place]))
    return chosen


def spoilt(rng: np.random.Generator, views: np.ndarray) -> np.ndarray:
    """Views of a target, uint8 (v, s, s, 3), that tell less of it: blurred, without colour, shifted, or blank."""
    way, side = int(rng.integers(4)), views.shape[1]
    if way == 0:
        few = max(2, side // int(rng.integers(8, 25)))
        small = [cv2.resize(view, (few, few), interpolation=cv2.INTER_AREA) for view in views]
        return np.stack([cv2.resize(view, (side, side), interpolation=cv2.INTER_LINEAR) for view in small])
    if way == 1:
        return np.repeat(views.mean(-1, keepdims=True), 3, -1).astype(np.uint8)
    if way == 2:
        angle, far = rng.random() * 2 * math.pi, side * (0.3 + 0.2 * rng.random())
        return np.roll(views, (round(far * math.sin(angle)), round(far * math.cos(angle))), (1, 2))
    return np.full_like(views, rng.integers(256, size=3, dtype=np.uint8))


def jittered(rng: np.random.Generator, box: Box, how: BoxConfig) -> Box:
    """A box as a tracker might have left it: of another size, and elsewhere."""
    x1, y1, x2, y2 = box
    width, height = np.array([x2 - x1, y2 - y1]) * np.exp(how.scale * np.clip(rng.normal(size=2), -2, 2))
    reach = math.sqrt(width * height) * how.centre
    x, y = np.array([x1 + x2, y1 + y2]) / 2 + reach * (rng.random(2) - 0.5)
    return float(x - width / 2), float(y - height / 2), float(x + width / 2), float(y + height / 2)


@lru_cache(maxsize=2)
def _scene(seed: int, frames: int) -> Case:
    """A scene of the train split, which a few samples share, as drawing it takes longer than cutting a sample."""
    return make_case(seed, split="train", frames=frames, longest=LONGEST)


@lru_cache(maxsize=2)
def _randomised(seed: int, frames: int) -> Clip:
    """A domain-randomised clip, which a few samples share."""
    return randomised_clip(seed, frames, SIDE)


def id_boxes(ids: np.ndarray, key: int) -> np.ndarray:
    """Boxes of a target's visible part, float32 (T, 4) xyxy pixels; NaN where there is too little of it.

    Args:
        ids: whose pixel it is, (T, height, width).
        key: the target's.
    """
    boxes = np.full((len(ids), 4), np.nan, np.float32)
    for t, frame in enumerate(ids):
        mask = frame == key
        if mask.sum() >= FEWEST:
            boxes[t] = box_of(mask)
    return boxes


def batch_words(words: Sequence[str], model: BoxTransformer) -> tuple[Tensor, Tensor] | None:
    """Word pieces int64 (n, m) and which of them count, bool (n, m); None where nobody says anything."""
    config: BoxTransformerConfig = model.config
    if not config.words or not any(words):
        return None
    pieces = [cut_words(model.tokenizer.encode(one), config.words) if one else [] for one in words]
    longest = max(map(len, pieces))
    ids = torch.tensor([[*one, *[0] * (longest - len(one))] for one in pieces])
    return ids, torch.tensor([[k < len(one) for k in range(longest)] for one in pieces])


def box_losses(maps: BoxMaps, truth: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Loss parts, means over n windows, and the IoU (n,) of the boxes found.

    Args:
        maps: what was found.
        truth: boxes (n, 4), cx, cy, w, h in sides of the window.
    """
    found, _ = maps.boxes()
    a, b = corners(found.float()), corners(truth)
    iou, giou = overlaps(a, b)
    heat = heatmap(truth, maps.score.shape[-1])
    parts = {"giou": (1 - giou).mean(), "l1": F.l1_loss(a, b), "focal": focal_loss(maps.score.float(), heat)}
    return parts, iou.detach()


def corners(boxes: Tensor) -> Tensor:
    """cx, cy, w, h to xyxy, (n, 4)."""
    return torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)


def overlaps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (n,) of xyxy boxes (n, 4) (Rezatofighi et al., CVPR 2019)."""
    sizes = [(each[:, 2:] - each[:, :2]).prod(1) for each in (a, b)]
    both = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    around = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1).clamp(min=1e-9)
    either = (sizes[0] + sizes[1] - both).clamp(min=1e-9)
    return both / either, both / either - (around - either) / around


def heatmap(boxes: Tensor, side: int) -> Tensor:
    """Bumps of height 1 at the cells of the boxes' middles, (n, side, side); no bump where that is outside.

    A bump is a Gaussian whose deviation is a third of the radius within which a box of the same size still overlaps by
    `OVERLAP` (CornerNet; CenterNet and OSTrack solve two of its three equations with another denominator, which makes
    their bumps larger).

    Args:
        boxes: (n, 4), cx, cy, w, h in sides of the map.
    """
    cell = (boxes[:, :2] * side).floor()
    width, height = (boxes[:, 2:] * side).unbind(1)
    deviation = (2 * bump_radius(width, height).floor().clamp(min=0) + 1) / 6
    at = torch.arange(side, device=boxes.device, dtype=torch.float32)
    square = (at[None, None, :] - cell[:, :1, None]) ** 2 + (at[None, :, None] - cell[:, 1:, None]) ** 2
    made = torch.exp(-square / (2 * deviation[:, None, None] ** 2))
    inside = ((cell >= 0) & (cell < side)).all(1)
    return made * inside[:, None, None]


def bump_radius(width: Tensor, height: Tensor) -> Tensor:
    """The least of the three radii by which corners may be off (CornerNet, section 3.2), cells."""
    both, area = width + height, width * height
    inner = (both - (both**2 - 4 * area * (1 - OVERLAP) / (1 + OVERLAP)).clamp(min=0).sqrt()) / 2
    smaller = (2 * both - (4 * both**2 - 16 * (1 - OVERLAP) * area).clamp(min=0).sqrt()) / 8
    larger = (-2 * OVERLAP * both + (4 * OVERLAP**2 * both**2 + 16 * OVERLAP * (1 - OVERLAP) * area).sqrt()) / (
        8 * OVERLAP
    )
    return torch.stack([inner, smaller, larger]).amin(0)


def focal_loss(score: Tensor, heat: Tensor) -> Tensor:
    """CenterNet's focal loss, alpha 2 and beta 4, over the number of middles.

    Args:
        score: (n, g, g), inside of (0, 1).
        heat: (n, g, g), 1 at middles.
    """
    middle = heat.eq(1).float()
    hit = (score.log() * (1 - score) ** 2 * middle).sum()
    miss = ((1 - score).log() * score**2 * (1 - heat) ** 4 * (1 - middle)).sum()
    return -(hit + miss) / middle.sum().clamp(min=1)
