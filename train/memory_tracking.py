"""Training of the memory segmenter: it is shown a target on the first frame of a clip and follows it, memory unrolled.

Clips are SynthTrack's domain-randomised ones (`trackgpt.synthtrack.randomised`). As at inference the network sees a
window that follows the target, predicted masks are what is remembered, some of them damaged, and clicks correct some.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trackgpt.perception.encoders import normalise
from trackgpt.perception.mask_propagation import (
    SURE,
    Decoded,
    Maps,
    MaskPropagation,
    Reference,
    Shown,
    bumps,
    filled,
)
from trackgpt.synthtrack.randomised import randomised_clip
from train.config import MemoryConfig, Shape

FEWEST_PIXELS = 12
"""Of a window on which a target counts as present."""


class MemoryTrackingStage:
    """Clips of domain-randomised objects to masks over time."""

    weights = {"mask": 1.0, "coarse": 0.5, "iou": 0.5, "presence": 0.3}

    def __init__(self, model: MaskPropagation, shape: Shape, memory: MemoryConfig, device: torch.device) -> None:
        self.model, self.shape, self.memory, self.device = model, shape, memory, device

    def sample(self, seed: int) -> dict[str, np.ndarray]:
        """A clip: frames uint8 (t, s, s, 3) and ids uint8 (t, s, s)."""
        shape, echo = self.shape, self.memory.echo
        frames, ids = _drawn(seed // echo, shape.frames, shape.side, shape.targets)
        return {"frames": frames, "ids": ids} if seed % echo == 0 else varied(frames, ids, seed)

    def modules(self) -> Iterable[nn.Module]:
        return [self.model]

    def losses(self, samples: list[Any]) -> tuple[dict[str, Tensor], dict[str, float]]:
        frames = torch.from_numpy(np.stack([s["frames"] for s in samples])).to(self.device)
        clip, truth = targets_of([s["ids"] for s in samples], self.shape.targets)
        return unroll(self.model, frames, clip.to(self.device), truth.to(self.device), self.memory)


@lru_cache(maxsize=2)
def _drawn(seed: int, frames: int, side: int, targets: int) -> tuple[np.ndarray, np.ndarray]:
    clip = randomised_clip(seed, frames, side, targets)
    return clip.frames, clip.ids


def varied(frames: np.ndarray, ids: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """A clip mirrored, in other colours, and backwards where every target of the first frame is on the last one."""
    rng = np.random.default_rng(seed)
    frames, ids = frames[:, :, ::-1, rng.permutation(3)], ids[:, :, ::-1]
    if all((ids[-1] == number).mean() > 0.004 for number in np.unique(ids[0]) if number):
        frames, ids = frames[::-1], ids[::-1]
    return {"frames": np.ascontiguousarray(frames), "ids": np.ascontiguousarray(ids)}


def targets_of(ids: list[np.ndarray], most: int) -> tuple[Tensor, Tensor]:
    """The targets of clips: the clip of each, int64 (n,), and their masks, float32 (n, t, s, s).

    Args:
        ids: uint8 (t, s, s) per clip; those below `most` that cover 0.4 % of the first frame are targets.
        most: of a clip.
    """
    clips, masks = [], []
    for clip, numbers in enumerate(ids):
        for number in range(1, most + 1):
            mask = numbers == number
            if number == 1 or mask[0].mean() >= 0.004:
                clips.append(clip)
                masks.append(mask)
    return torch.tensor(clips), torch.from_numpy(np.stack(masks)).float()


@dataclass(frozen=True)
class Prompted:
    """How n targets are shown on the first frame, in windows of side 1.

    Attributes:
        kind: int64 (n,), 0 a mask, 1 a box, 2 a point.
        boxes: (n, 4) xyxy, NaN for none.
        points: (n, 1, 2), NaN for none.
    """

    kind: Tensor
    boxes: Tensor
    points: Tensor


def prompted(truth: Tensor, shares: list[float]) -> Prompted:
    """Draw a prompt for each target: masks (n, s, s) of the first frame; shares of masks, boxes and points."""
    n, side = len(truth), truth.shape[-1]
    kind = torch.multinomial(torch.tensor(shares), n, replacement=True)
    boxes, points = torch.full((n, 4), torch.nan), torch.full((n, 1, 2), torch.nan)
    for k, mask in enumerate(truth.cpu().numpy() > 0.5):
        if kind[k] == 1:
            boxes[k] = jittered_box(mask)
        elif kind[k] == 2:
            points[k, 0] = click_in(mask, middle=bool(torch.rand(()) < 0.5))
    return Prompted(kind.to(truth.device), (boxes / side).to(truth.device), (points / side).to(truth.device))


def jittered_box(mask: np.ndarray, jitter: float = 0.04) -> Tensor:
    """The box (4,) of a mask, xyxy in pixels, each side moved by about a share of the size."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=torch.float32)
    span = (box[2:] - box[:2]).repeat(2)
    return box + span * (jitter * torch.randn(4)).clamp(-2 * jitter, 2 * jitter)


def click_in(region: np.ndarray, middle: bool) -> Tensor:
    """A click (2,), x and y in pixels, on a region, bool (h, w): in its middle or anywhere; NaN if it is empty."""
    if not region.any():
        return torch.full((2,), torch.nan)
    if middle:
        deep = cv2.distanceTransform(np.pad(region, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
        at = int(deep.argmax())
    else:
        inside = np.flatnonzero(region)
        at = int(inside[int(torch.randint(len(inside), ()))])
    y, x = divmod(at, region.shape[1])
    return torch.tensor([x + 0.5, y + 0.5])


@dataclass
class _Track:
    """What is known of n targets between two frames of the unrolled clip."""

    last: Tensor
    recent: list[Reference]
    first: Reference


def unroll(
    model: MaskPropagation, frames: Tensor, clip: Tensor, truth: Tensor, memory: MemoryConfig
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Losses of n targets over t frames, and their IoU.

    Args:
        model: learns.
        frames: uint8 (b, t, s, s, 3).
        clip: int64 (n,), the clip of each target.
        truth: float (n, t, s, s), 0 or 1.
        memory: how the unrolling goes.
    """
    b, t = frames.shape[:2]
    maps = model.encode(normalise(frames.flatten(0, 1).permute(0, 3, 1, 2)))
    costs = _Costs(truth)
    here = maps.of(clip * t)
    track = _begin(model, here, prompted(truth[:, 0], memory.prompts), costs, memory)
    for step in range(1, t):
        here = maps.of(clip * t + step)
        _follow(model, here, track, step, costs, memory)
    return costs.result()


def _begin(model: MaskPropagation, maps: Maps, shown: Prompted, costs: _Costs, memory: MemoryConfig) -> _Track:
    exact = costs.exact(0)
    given = (shown.kind == 0).view(-1, 1, 1, 1)
    quarter = exact.shape[-1]
    box, on = filled(shown.boxes, quarter), bumps(shown.points, quarter)
    inside = F.avg_pool2d(box, 2)
    clicked = (shown.kind == 2).view(-1, 1, 1, 1)
    likely = torch.where(clicked, F.avg_pool2d(on, 2), inside)
    start = model.remember(maps, likely, torch.where(clicked, torch.zeros_like(likely), 1 - inside))
    here = Shown(torch.zeros_like(exact), box, on, torch.zeros_like(on))
    learn = ~given.flatten()
    decoded = _decode(model, maps, here, [start], [start], None)
    costs.add(0, decoded, learn, kinds=shown.kind)
    if learn.any() and torch.rand(()) < memory.refine:
        decoded = _again(model, maps, here, decoded, costs, 0, learn, clicks=bool(torch.rand(()) < 0.5))
    logits = torch.where(given, exact, handed_on(decoded.logits))
    reference = _reference(model, maps, damaged(logits, memory.spoil * 0.5))
    return _Track(logits, [reference], reference)


def _follow(model: MaskPropagation, maps: Maps, track: _Track, step: int, costs: _Costs, memory: MemoryConfig) -> None:
    n = len(track.last)
    device = track.last.device
    blank = torch.zeros_like(track.last)
    hinted = (torch.rand(n, device=device) >= memory.drop).view(-1, 1, 1, 1)
    here = Shown(torch.where(hinted, track.last, blank), blank, blank, blank)
    decoded = _decode(model, maps, here, track.recent[-1:], [track.first], track, memory.drop)
    costs.add(step, decoded)
    if torch.rand(()) < memory.click:
        decoded = _again(model, maps, here, decoded, costs, step, None, clicks=True, track=track)
    exact, made = costs.exact(step), handed_on(decoded.logits)
    forced = (torch.rand(n, device=device) < memory.force).view(-1, 1, 1, 1)
    logits = torch.where(forced, exact, damaged(made, memory.spoil))
    seen = (decoded.presence.detach() > 0) if torch.rand(()) < 0.5 else costs.present[:, step]
    seen = (seen & (logits > 0).flatten(1).any(1)).view(-1, 1, 1, 1)
    reference = _reference(model, maps, logits)
    kept = track.recent[-1]
    track.recent = [*track.recent[-2:], _chosen(seen, reference, kept)]
    track.last = torch.where(seen, logits, torch.full_like(logits, -SURE))


def _decode(
    model: MaskPropagation,
    maps: Maps,
    shown: Shown,
    last: list[Reference],
    first: list[Reference],
    track: _Track | None,
    drop: float = 0.0,
) -> Decoded:
    """Decode with what is carried over and read; each is left out for a share `drop` of the targets."""
    n = len(shown.last)
    carried, read = [], []
    for which, references in enumerate((last, first)):
        masks, values = model.recall(maps.key, references, which)
        keep = _kept(n, drop, masks)
        carried.append(keep * masks)
        keep = _kept(n, drop, values) if track else torch.zeros_like(values[:, :1])
        read.append(keep * values + (1 - keep) * model.unread(maps, which).to(values.dtype))
    return model.decode(maps, shown, torch.cat(carried, 1), torch.cat(read, 1))


def _kept(n: int, drop: float, like: Tensor) -> Tensor:
    return (torch.rand(n, 1, 1, 1, device=like.device) >= drop).to(like.dtype)


def _again(
    model: MaskPropagation,
    maps: Maps,
    shown: Shown,
    decoded: Decoded,
    costs: _Costs,
    step: int,
    learn: Tensor | None,
    clicks: bool,
    track: _Track | None = None,
) -> Decoded:
    """A second look at a frame, from the mask of the first, with a click where that is most wrong if `clicks`."""
    made = handed_on(decoded.logits)
    on, off = shown.on, shown.off
    if clicks:
        missing, wrong = costs.errors(step, decoded)
        on, off = torch.maximum(on, bumps(missing, on.shape[-1])), torch.maximum(off, bumps(wrong, on.shape[-1]))
    here = replace(shown, last=made, on=on, off=off)
    reference = _reference(model, maps, made)
    first = [track.first] if track else [reference]
    again = _decode(model, maps, here, [reference], first, track)
    costs.add(step, again, learn, weight=0.5)
    return again


def _reference(model: MaskPropagation, maps: Maps, logits: Tensor) -> Reference:
    on = F.avg_pool2d(torch.sigmoid(logits), 2)
    return model.remember(maps, on, 1 - on)


def _chosen(rows: Tensor, new: Reference, old: Reference) -> Reference:
    pairs = ((new.key, old.key), (new.on, old.on), (new.off, old.off), (new.value, old.value))
    return Reference(*(torch.where(rows, a, b) for a, b in pairs))


def handed_on(logits: Tensor) -> Tensor:
    """Logits (n, 1, s/2, s/2) as the next frame is given them: (n, 1, s/4, s/4), bounded, without a gradient."""
    return F.avg_pool2d(logits.detach(), 2).clamp(-SURE, SURE)


def damaged(logits: Tensor, share: float) -> Tensor:
    """Logits (n, 1, h, w) in which a share of the masks has a piece too much, a piece missing, or a shift."""
    out = logits.clone()
    side = out.shape[-1]
    for k in torch.nonzero(torch.rand(len(out)) < share).flatten().tolist():
        kind = float(torch.rand(()))
        if kind < 0.25:
            shift = torch.randint(-side // 20, side // 20 + 1, (2,)).tolist()
            out[k] = out[k].roll(tuple(shift), (1, 2))
            continue
        blot = np.zeros((side, side), np.uint8)
        inside = torch.nonzero(out[k, 0] > 0)
        if len(inside) and torch.rand(()) < 0.7:
            centre = inside[int(torch.randint(len(inside), ()))].flip(0).float().cpu() + 0.1 * side * torch.randn(2)
        else:
            centre = side * torch.rand(2)
        axes = (side * (0.02 + 0.23 * torch.rand(2))).int().clamp(min=1).tolist()
        cv2.ellipse(blot, centre.int().tolist(), axes, float(180 * torch.rand(())), 0, 360, 1, -1)
        out[k, 0][torch.from_numpy(blot).to(out.device) > 0] = 8.0 if kind < 0.7 else -8.0
    return out


class _Costs:
    """The losses and figures of an unrolled batch; truth is float (n, t, s, s)."""

    def __init__(self, truth: Tensor) -> None:
        self.truth = truth
        self.half = F.avg_pool2d(truth, 2)
        self.present = truth.flatten(2).sum(2) > FEWEST_PIXELS  # (n, t)
        self.sums: dict[str, Tensor] = {}
        self.weight = 0.0
        self.figures: dict[str, list[Tensor]] = {}

    def exact(self, step: int) -> Tensor:
        """The true mask as logits, (n, 1, s/4, s/4)."""
        return 2 * SURE * F.avg_pool2d(self.half[:, step : step + 1], 2) - SURE

    def add(
        self,
        step: int,
        decoded: Decoded,
        learn: Tensor | None = None,
        weight: float = 1.0,
        kinds: Tensor | None = None,
    ) -> None:
        """Count what was decoded on a frame, of the targets in `learn` (n,) bool; all by default."""
        rows = torch.ones(len(self.truth), dtype=torch.bool, device=self.truth.device) if learn is None else learn
        if not rows.any():
            return
        truth, there = self.half[rows, step], self.present[rows, step].float()
        with torch.no_grad():
            overlap = soft_iou(decoded.logits[rows, 0] > 0, truth > 0.5)
        eighth = F.avg_pool2d(truth[:, None], 4)[:, 0]
        parts = {
            "mask": mask_cost(decoded.logits[rows, 0], truth, there),
            "coarse": mask_cost(decoded.coarse[rows, 0], eighth, there),
            "iou": (there * (decoded.iou[rows].sigmoid() - overlap) ** 2).sum() / there.sum().clamp(min=1),
            "presence": F.binary_cross_entropy_with_logits(decoded.presence[rows], there),
        }
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + weight * value
        self.weight += weight
        seen = there > 0
        if weight < 1:
            self._note("again", overlap[seen])
        elif step:
            self._note("track", overlap[seen])
            self._note("late" if step >= self.truth.shape[1] - 2 else "early", overlap[seen])
            self._note("here", ((decoded.presence[rows] > 0) == seen).float())
        elif kinds is not None:
            for kind, name in ((1, "box"), (2, "point")):
                self._note(name, overlap[kinds[rows] == kind])

    def errors(self, step: int, decoded: Decoded) -> tuple[Tensor, Tensor]:
        """A click in the largest error of each mask, in windows: on what is missing, or on what is wrong; (n, 1, 2)."""
        truth, found = self.half[:, step].cpu().numpy() > 0.5, (decoded.logits[:, 0] > 0).cpu().numpy()
        missing, wrong = torch.full((2, len(truth), 1, 2), torch.nan)
        for k, (a, b) in enumerate(zip(truth, found, strict=True)):
            lacks, extra = a & ~b, b & ~a
            if max(lacks.sum(), extra.sum()) < 8:
                continue
            one, where = (missing, lacks) if lacks.sum() >= extra.sum() else (wrong, extra)
            one[k, 0] = click_in(where, middle=True) / truth.shape[-1]
        return missing.to(self.truth.device), wrong.to(self.truth.device)

    def result(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Mean losses over what was counted, and figures."""
        figures = {name: torch.cat(values) for name, values in self.figures.items()}
        return (
            {name: value / max(self.weight, 1e-9) for name, value in self.sums.items()},
            {name: values.mean().item() for name, values in figures.items() if len(values)},
        )

    def _note(self, name: str, values: Tensor) -> None:
        self.figures.setdefault(name, []).append(values.float().flatten())


def mask_cost(logits: Tensor, truth: Tensor, present: Tensor) -> Tensor:
    """2 x cross-entropy, in which small targets count more, + Dice: mean over masks (n, h, w), present (n,).

    A mask without a target is scored by cross-entropy alone.
    """
    area = truth.mean((1, 2), keepdim=True)
    weight = 1 + truth * (0.25 / (area + 0.02) - 1).clamp(0, 6)
    entropy = (F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * weight).mean((1, 2))
    found = torch.sigmoid(logits)
    both, sizes = (found * truth).sum((1, 2)), found.sum((1, 2)) + truth.sum((1, 2))
    return (2 * entropy + present * (1 - (2 * both + 1) / (sizes + 1))).mean()


def soft_iou(found: Tensor, truth: Tensor) -> Tensor:
    """IoU (n,) of masks, bool (n, h, w)."""
    both, either = (found & truth).sum((1, 2)), (found | truth).sum((1, 2))
    return both / either.clamp(min=1)
