"""Training of the memory segmenter: it is shown a target on the first frame of a clip and follows it, memory unrolled.

Clips are SynthTrack's domain-randomised ones (`trackgpt.synthtrack.randomised`), real ones (`train.memory_sets`), or
both. As at inference predicted masks are what is remembered, some of them damaged, and clicks correct some. The
unrolling and its losses are the same for every network; what a network does on a frame are its `MemorySteps`: nano's,
which sees a window that follows the target, are here, SAM 2.1's in `train.sam2_tracking`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eval.kits.davis import first_masks
from trackgpt.errors import UsageError
from trackgpt.perception.encoders import normalise
from trackgpt.perception.mask_propagation import (
    SURE,
    Maps,
    MaskPropagation,
    Propagated,
    Reference,
    Shown,
    bumps,
    filled,
)
from trackgpt.synthtrack.randomised import randomised_clip
from trackgpt.synthtrack.reenacted import Subject, subject_of
from trackgpt.video.source import open_source
from train.config import MemoryConfig, Shape
from train.memory_sets import RealClips

FEWEST_PIXELS = 12
"""Of a window on which a target counts as present."""


class Found(Protocol):
    """What a network says of n targets on a frame; of k masks, the first is the one that inference takes.

    Attributes:
        logits: (n, k, s/2, s/2).
        coarse: a first guess, (n, 1, s/8, s/8), or None.
        iou: logits of the expected IoU, (n,) or (n, k).
        presence: logits of the target being there, (n,).
    """

    @property
    def logits(self) -> Tensor: ...
    @property
    def coarse(self) -> Tensor | None: ...
    @property
    def iou(self) -> Tensor: ...
    @property
    def presence(self) -> Tensor: ...


class MemorySteps(Protocol):
    """What a network does when a clip is unrolled. It holds weights; what is known of n targets is in a track."""

    def encode(self, frames: Tensor) -> Any:
        """Maps of frames, uint8 (m, 3, s, s); their method `of` picks some by their index, int64 (n,)."""
        ...

    def begin(self, maps: Any, shown: Prompted, truth: Tensor) -> tuple[Any, Found]:
        """A new track of n targets by what is shown of them; truth float (n, s, s) is read where that is a mask."""
        ...

    def follow(self, maps: Any, track: Any) -> Found:
        """The next frame of a track, by what it remembers."""
        ...

    def again(self, maps: Any, track: Any, found: Any, clicks: tuple[Tensor, Tensor] | None) -> Found | None:
        """A second look at a frame, with clicks on what is missing and on what is wrong, (n, 1, 2), NaN for none.

        None where this network does not look again without clicks.
        """
        ...

    def exact(self, truth: Tensor) -> Tensor:
        """A true mask, float (n, s, s), as logits to be remembered, (n, 1, h, w)."""
        ...

    def handed_on(self, found: Any) -> Tensor:
        """A mask that was found, as logits to be remembered, (n, 1, h, w)."""
        ...

    def remember(self, maps: Any, track: Any, found: Any, logits: Tensor, kept: Tensor, seen: Tensor) -> None:
        """Take a frame into a track.

        Args:
            maps: of the frame.
            track: changes.
            found: on the frame.
            logits: the mask that the next frame is given, (n, 1, h, w).
            kept: the mask that is remembered, (n, 1, h, w); not the same on the first frame, where it may be damaged.
            seen: whether the target is there, bool (n,).
        """
        ...


class MemoryTrackingStage:
    """Clips to masks over time.

    Args:
        model: what learns.
        shape: of a clip.
        memory: how it is unrolled.
        device: where it computes.
        steps: of the model; nano's by default.
        whole: whether the network sees whole frames, and no windows.
    """

    weights = {"mask": 1.0, "coarse": 0.5, "iou": 0.5, "presence": 0.3}

    def __init__(
        self,
        model: nn.Module,
        shape: Shape,
        memory: MemoryConfig,
        device: torch.device,
        steps: MemorySteps | None = None,
        whole: bool = False,
    ) -> None:
        self.model, self.shape, self.memory, self.device = model, shape, memory, device
        self.steps = NanoSteps(model, memory.drop) if steps is None else steps
        self.real = RealClips(memory.sets, shape, whole) if memory.sets else None
        self.subject = open_subject(memory.shown)

    def sample(self, seed: int) -> dict[str, np.ndarray]:
        """A clip: frames uint8 (t, s, s, 3) and ids uint8 (t, s, s).

        Raises:
            InputError: a picture or mask of a real one is missing or damaged.
        """
        shape, echo = self.shape, self.memory.echo
        if self.real and np.random.default_rng([seed, 223]).random() < self.memory.share:
            return self.real.sample(seed)
        frames, ids = _drawn(seed // echo, shape.frames, shape.side, shape.targets, self.subject)
        return {"frames": frames, "ids": ids} if seed % echo == 0 else varied(frames, ids, seed)

    def modules(self) -> Iterable[nn.Module]:
        return [self.model]

    def losses(self, samples: list[Any]) -> tuple[dict[str, Tensor], dict[str, float]]:
        frames = torch.from_numpy(np.stack([s["frames"] for s in samples])).to(self.device)
        clip, truth = targets_of([s["ids"] for s in samples], self.shape.targets)
        return unroll(self.steps, frames, clip.to(self.device), truth.to(self.device), self.memory)


def open_subject(shown: list[str]) -> Subject | None:
    """The object of a picture, or of the first frame of a video, and a mask, by their files; None for none.

    Raises:
        UsageError: there are not two files, or the mask is empty or of another size.
        InputError: a file is missing or damaged.
    """
    if not shown:
        return None
    if len(shown) != 2:
        raise UsageError(f"memory.shown: wanted a picture and the mask of its object, found {len(shown)} files")
    masks = first_masks(Path(shown[1]))
    with open_source(shown[0]) as source:
        empty = np.zeros(source.first.shape[:2], bool)
        try:
            return subject_of(source.first, np.any(list(masks.values()), axis=0) if masks else empty)
        except UsageError as error:
            raise error.at(f"memory.shown: {shown[1]}") from error


@lru_cache(maxsize=2)
def _drawn(seed: int, frames: int, side: int, targets: int, subject: Subject | None) -> tuple[np.ndarray, np.ndarray]:
    clip = randomised_clip(seed, frames, side, targets, subject)
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


def unroll(
    steps: MemorySteps | MaskPropagation, frames: Tensor, clip: Tensor, truth: Tensor, memory: MemoryConfig
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Losses of n targets over t frames, and their IoU.

    Args:
        steps: of the network that learns; a network alone takes nano's.
        frames: uint8 (b, t, s, s, 3).
        clip: int64 (n,), the clip of each target.
        truth: float (n, t, s, s), 0 or 1.
        memory: how the unrolling goes.
    """
    if isinstance(steps, MaskPropagation):
        steps = NanoSteps(steps, memory.drop)
    t = frames.shape[1]
    maps = steps.encode(frames.flatten(0, 1).permute(0, 3, 1, 2))
    costs = Costs(truth)
    track = _begin(steps, maps.of(clip * t), costs, memory)
    for step in range(1, t):
        _follow(steps, maps.of(clip * t + step), track, step, costs, memory)
    return costs.result()


def _begin(steps: MemorySteps, maps: Any, costs: Costs, memory: MemoryConfig) -> Any:
    truth = costs.truth[:, 0]
    shown = prompted(truth, memory.prompts)
    given = shown.kind == 0
    track, found = steps.begin(maps, shown, truth)
    costs.add(0, found, ~given, kinds=shown.kind)
    if not given.all() and torch.rand(()) < memory.refine:
        clicks = costs.errors(0, found) if torch.rand(()) < 0.5 else None
        found = _again(steps, maps, track, found, clicks, costs, 0, ~given)
    logits = torch.where(given.view(-1, 1, 1, 1), steps.exact(truth), steps.handed_on(found))
    seen = given | (found.presence.detach() > 0)
    steps.remember(maps, track, found, logits, damaged(logits, memory.spoil * 0.5), seen)
    return track


def _follow(steps: MemorySteps, maps: Any, track: Any, step: int, costs: Costs, memory: MemoryConfig) -> None:
    found = steps.follow(maps, track)
    costs.add(step, found)
    if torch.rand(()) < memory.click:
        found = _again(steps, maps, track, found, costs.errors(step, found), costs, step)
    truth = costs.truth[:, step]
    forced = (torch.rand(len(truth), device=truth.device) < memory.force).view(-1, 1, 1, 1)
    logits = torch.where(forced, steps.exact(truth), damaged(steps.handed_on(found), memory.spoil))
    seen = (found.presence.detach() > 0) if torch.rand(()) < 0.5 else costs.present[:, step]
    steps.remember(maps, track, found, logits, logits, seen)


def _again(
    steps: MemorySteps,
    maps: Any,
    track: Any,
    found: Found,
    clicks: tuple[Tensor, Tensor] | None,
    costs: Costs,
    step: int,
    learn: Tensor | None = None,
) -> Found:
    """What is found at a second look, if the network takes one."""
    again = steps.again(maps, track, found, clicks)
    if again is None:
        return found
    costs.add(step, again, learn, weight=0.5)
    return again


@dataclass
class _Track:
    """What nano knows of n targets between two frames; what is shown is that of the last frame looked at."""

    shown: Shown
    last: Tensor
    recent: list[Reference]
    first: Reference | None = None


class NanoSteps:
    """Steps of nano's mask propagation network in windows that are taken to stand still from frame to frame.

    Args:
        model: learns.
        drop: share of targets without each of the last mask, what is carried over, and what is read.
    """

    def __init__(self, model: Any, drop: float) -> None:
        self.model, self.drop = model, drop

    def encode(self, frames: Tensor) -> Maps:
        maps: Maps = self.model.encode(normalise(frames))
        return maps

    def begin(self, maps: Maps, shown: Prompted, truth: Tensor) -> tuple[_Track, Propagated]:
        quarter = truth.shape[-1] // 4
        box, on = filled(shown.boxes, quarter), bumps(shown.points, quarter)
        inside = F.avg_pool2d(box, 2)
        clicked = (shown.kind == 2).view(-1, 1, 1, 1)
        likely = torch.where(clicked, F.avg_pool2d(on, 2), inside)
        start = self.model.remember(maps, likely, torch.where(clicked, torch.zeros_like(likely), 1 - inside))
        blank = torch.zeros_like(on)
        track = _Track(Shown(blank, box, on, blank), blank, [])
        return track, self._decode(maps, track.shown, [start], [start], False, 0.0)

    def follow(self, maps: Maps, track: _Track) -> Propagated:
        assert track.first is not None
        blank = torch.zeros_like(track.last)
        hinted = (torch.rand(len(blank), device=blank.device) >= self.drop).view(-1, 1, 1, 1)
        track.shown = Shown(torch.where(hinted, track.last, blank), blank, blank, blank)
        return self._decode(maps, track.shown, track.recent[-1:], [track.first], True, self.drop)

    def again(
        self, maps: Maps, track: _Track, found: Propagated, clicks: tuple[Tensor, Tensor] | None
    ) -> Propagated | None:
        """From the mask of the first look."""
        made = handed_on(found.logits)
        on, off = track.shown.on, track.shown.off
        if clicks is not None:
            missing, wrong = clicks
            on, off = torch.maximum(on, bumps(missing, on.shape[-1])), torch.maximum(off, bumps(wrong, on.shape[-1]))
        here = replace(track.shown, last=made, on=on, off=off)
        reference = self._reference(maps, made)
        first = reference if track.first is None else track.first
        return self._decode(maps, here, [reference], [first], track.first is not None, 0.0)

    def exact(self, truth: Tensor) -> Tensor:
        """At stride 4, -`SURE` to `SURE`."""
        return 2 * SURE * F.avg_pool2d(F.avg_pool2d(truth[:, None], 2), 2) - SURE

    def handed_on(self, found: Propagated) -> Tensor:
        return handed_on(found.logits)

    def remember(
        self, maps: Maps, track: _Track, found: Propagated, logits: Tensor, kept: Tensor, seen: Tensor
    ) -> None:
        """Where a target is not seen, the last frame on which it was stays remembered, and the mask is empty."""
        reference = self._reference(maps, kept)
        if track.first is None:
            track.last, track.recent, track.first = logits, [reference], reference
            return
        rows = (seen & (logits > 0).flatten(1).any(1)).view(-1, 1, 1, 1)
        track.recent = [*track.recent[-2:], _chosen(rows, reference, track.recent[-1])]
        track.last = torch.where(rows, logits, torch.full_like(logits, -SURE))

    def _decode(
        self,
        maps: Maps,
        shown: Shown,
        last: list[Reference],
        first: list[Reference],
        read: bool,
        drop: float,
    ) -> Propagated:
        """Decode with what is carried over and read; each is left out for a share `drop` of the targets."""
        n = len(shown.last)
        carried, values = [], []
        for which, references in enumerate((last, first)):
            masks, found = self.model.recall(maps.key, references, which)
            carried.append(_kept(n, drop, masks) * masks)
            keep = _kept(n, drop, found) if read else torch.zeros_like(found[:, :1])
            values.append(keep * found + (1 - keep) * self.model.unread(maps, which).to(found.dtype))
        decoded: Propagated = self.model.decode(maps, shown, torch.cat(carried, 1), torch.cat(values, 1))
        return decoded

    def _reference(self, maps: Maps, logits: Tensor) -> Reference:
        on = F.avg_pool2d(torch.sigmoid(logits), 2)
        reference: Reference = self.model.remember(maps, on, 1 - on)
        return reference


def _kept(n: int, drop: float, like: Tensor) -> Tensor:
    return (torch.rand(n, 1, 1, 1, device=like.device) >= drop).to(like.dtype)


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


class Costs:
    """The losses and figures of an unrolled batch; truth is float (n, t, s, s)."""

    def __init__(self, truth: Tensor) -> None:
        self.truth = truth
        self.half = F.avg_pool2d(truth, 2)
        self.present = truth.flatten(2).sum(2) > FEWEST_PIXELS  # (n, t)
        self.sums: dict[str, Tensor] = {}
        self.weight = 0.0
        self.figures: dict[str, list[Tensor]] = {}

    def add(
        self,
        step: int,
        found: Found,
        learn: Tensor | None = None,
        weight: float = 1.0,
        kinds: Tensor | None = None,
    ) -> None:
        """Count what was found on a frame, of the targets in `learn` (n,) bool; all by default.

        Of several masks the best one learns, as in SAM's training; the expected IoU of each learns.
        """
        rows = torch.ones(len(self.truth), dtype=torch.bool, device=self.truth.device) if learn is None else learn
        if not rows.any():
            return
        truth, there = self.half[rows, step], self.present[rows, step].float()
        masks = found.logits[rows].unbind(1)
        with torch.no_grad():
            overlaps = torch.stack([soft_iou(logits > 0, truth > 0.5) for logits in masks], 1)
        expected = found.iou[rows].view(overlaps.shape).sigmoid()
        parts = {"mask": torch.stack([mask_costs(logits, truth, there) for logits in masks]).amin(0).mean()}
        if found.coarse is not None:
            eighth = F.avg_pool2d(truth[:, None], 4)[:, 0]
            parts["coarse"] = mask_costs(found.coarse[rows, 0], eighth, there).mean()
        parts["iou"] = (there[:, None] * (expected - overlaps) ** 2).sum() / there.sum().clamp(min=1) / len(masks)
        parts["presence"] = F.binary_cross_entropy_with_logits(found.presence[rows], there)
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + weight * value
        self.weight += weight
        self._figure(step, overlaps[:, 0], found.presence[rows] > 0, there > 0, weight, rows, kinds)

    def _figure(
        self, step: int, overlap: Tensor, said: Tensor, seen: Tensor, weight: float, rows: Tensor, kinds: Tensor | None
    ) -> None:
        if weight < 1:
            self._note("again", overlap[seen])
        elif step:
            self._note("track", overlap[seen])
            self._note("late" if step >= self.truth.shape[1] - 2 else "early", overlap[seen])
            self._note("here", (said == seen).float())
        elif kinds is not None:
            for kind, name in ((1, "box"), (2, "point")):
                self._note(name, overlap[kinds[rows] == kind])

    def errors(self, step: int, found: Found) -> tuple[Tensor, Tensor]:
        """A click in the largest error of each mask, in windows: on what is missing, or on what is wrong; (n, 1, 2)."""
        truth, made = self.half[:, step].cpu().numpy() > 0.5, (found.logits[:, 0] > 0).cpu().numpy()
        missing, wrong = torch.full((2, len(truth), 1, 2), torch.nan)
        for k, (a, b) in enumerate(zip(truth, made, strict=True)):
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


def mask_costs(logits: Tensor, truth: Tensor, present: Tensor) -> Tensor:
    """2 x cross-entropy, in which small targets count more, + Dice, (n,): of masks (n, h, w), present (n,).

    A mask without a target is scored by cross-entropy alone.
    """
    area = truth.mean((1, 2), keepdim=True)
    weight = 1 + truth * (0.25 / (area + 0.02) - 1).clamp(0, 6)
    entropy = (F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * weight).mean((1, 2))
    found = torch.sigmoid(logits)
    both, sizes = (found * truth).sum((1, 2)), found.sum((1, 2)) + truth.sum((1, 2))
    return 2 * entropy + present * (1 - (2 * both + 1) / (sizes + 1))


def soft_iou(found: Tensor, truth: Tensor) -> Tensor:
    """IoU (n,) of masks, bool (n, h, w)."""
    both, either = (found & truth).sum((1, 2)), (found | truth).sum((1, 2))
    return both / either.clamp(min=1)
