"""A public SAM 2.1 as a memory network: boxes, points and masks in, masks on every later frame, on any image.

transformers' `Sam2VideoModel` with what it remembers outside (`sam2_session`), constant in size, and the targets of a
frame apart: nothing that is shown of one changes another. With `NEUTRAL` settings one target is tracked bit for bit as
transformers streams it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trackgpt.geometry.masks import box_of
from trackgpt.online import Frame, image_of
from trackgpt.perception.encoders import normalise
from trackgpt.perception.memory_segmenter import Asked, Hypothesis, Segmented, embedding_of
from trackgpt.perception.sam2_model import Points, Sam2Features, Sam2MemoryModel, Sam2Seen
from trackgpt.perception.sam2_session import Limits, Sam2FrameMemory, Sam2TargetMemory
from trackgpt.perception.sam2_video_weights import is_sam2_video, load_sam2_video
from trackgpt.types import Box, EncodedFrame, VisualPrompt

__all__ = ["DEFAULT", "NEUTRAL", "Sam2Memory", "Sam2Settings", "is_sam2_video"]

MOST_LOGIT = 32.0
"""Bound of the mask logits that clicks correct, as in SAM 2's own predictor (`add_new_points_or_box`)."""


@dataclass(frozen=True)
class Sam2Settings:
    """How the memory is kept, and how it is read.

    Attributes:
        conditioning: frames on which a target was shown that are remembered: the first and the newest others. Each
            makes memory attention a seventh slower.
        clamped: older conditioning frames count as 15 frames old; SAM 2 was never trained with larger distances.
        folded: memory attention in another order where that is faster, in float32 on a CPU; equal up to rounding.
        together: targets, or frames that are encoded ahead, in one batch. 0: one by one on a CPU, where a batch is
            slower and rounds by its size, and up to `MOST_TOGETHER` elsewhere.
    """

    conditioning: int = 4
    clamped: bool = True
    folded: bool = True
    together: int = 0


DEFAULT = Sam2Settings()
NEUTRAL = Sam2Settings(clamped=False, folded=False, together=1)
"""One target gives the bits of transformers' own streaming."""
MOST_TOGETHER = 16


class Sam2Memory:
    """`MemoryNetwork` of SAM 2 and 2.1. It holds weights, not state.

    Args:
        model: filled, in evaluation mode.
        settings: see there.
    """

    kinds: tuple[type, ...] = (Sam2TargetMemory, Sam2FrameMemory)

    def __init__(self, model: Sam2MemoryModel, settings: Sam2Settings = DEFAULT) -> None:
        self.model = model
        self.settings = settings
        config, bound = model.config, model.config.max_cond_frame_num
        conditioning = settings.conditioning if bound < 1 else min(settings.conditioning, bound)
        self.limits = Limits(conditioning, config.num_maskmem - 1, config.max_object_pointers_in_encoder - 1)
        self.to(self.device)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, dtype: torch.dtype = torch.float32, settings: Sam2Settings = DEFAULT
    ) -> Sam2Memory:
        """The network of a folder as a hub holds it, e.g. of facebook/sam2.1-hiera-tiny, on the CPU.

        Args:
            folder: config.json of the type sam2_video, and model.safetensors.
            dtype: of encoder and memory attention, in which nearly all time goes; the rest stays float32.
            settings: see there.

        Raises:
            ModelError: MD01 it is not there; MD02 it is damaged; MD06 it is a relative that cannot be loaded, with what
                to use instead, or the installed transformers is another one than was tested.
        """
        return cls(load_sam2_video(Path(folder), dtype), settings)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = self.model.no_memory_embedding.device
        return device

    def to(self, device: str | torch.device) -> Sam2Memory:
        """The same network, moved."""
        self.model.to(device)
        on_cpu = self.device.type == "cpu"
        half = self.model.memory_attention.layer_norm.weight.dtype != torch.float32
        self.model.clamped = self.settings.clamped
        self.model.memory_attention.folded = self.settings.folded and on_cpu and not half
        self._together = self.settings.together or (1 if on_cpu else MOST_TOGETHER)
        return self

    @torch.inference_mode()
    def encode(self, images: Sequence[np.ndarray]) -> list[EncodedFrame]:
        """Features of frames, uint8 RGB (height, width, 3) of any sizes."""
        features: list[Sam2Features] = []
        for first in range(0, len(images), self._together):
            some = images[first : first + self._together]
            squares = torch.cat([square(image, self.model.image_size, self.device) for image in some])
            features += self.model.encode(normalise(squares))
        return [EncodedFrame(image, each) for image, each in zip(images, features, strict=True)]

    @torch.inference_mode()
    def segment(self, frame: Frame, asked: Sequence[Asked]) -> list[Segmented]:
        """All targets of a frame.

        A mask says it all, and a box or points beside it are not read. A target that is remembered is tracked first,
        whatever is shown of it; then points correct what was tracked, and a box or a mask replaces it. Where nothing is
        remembered and nothing shown, a target is absent.

        Args:
            frame: the frame, or what `encode` made of it.
            asked: targets; boxes and points in pixels of the frame, masks of its size.
        """
        encoded = frame if isinstance(frame, EncodedFrame) else self.encode([frame])[0]
        features: Sam2Features = encoded.features
        size = image_of(frame).shape[:2]
        offered: dict[int, list[Hypothesis]] = {}
        found = dict(self._tracked(features, asked, size, offered))
        for number, each in enumerate(asked):
            if is_shown(each.shown):
                found[number] = self._prompted(features, each, found.get(number), size)
                offered.pop(number, None)
        return [
            self._segmented(features, found.get(number), each, size, offered.get(number))
            for number, each in enumerate(asked)
        ]

    def kept(self, memory: Sam2TargetMemory, place: int) -> Sam2TargetMemory:
        """See `KeepingNetwork.kept`: the newest frame becomes a conditioning frame."""
        return memory.keeping(place)

    def _tracked(
        self,
        features: Sam2Features,
        asked: Sequence[Asked],
        size: tuple[int, int],
        offered: dict[int, list[Hypothesis]],
    ) -> Iterator[tuple[int, Sam2Seen]]:
        """Every remembered target, by its number, found by its memory alone."""
        known = [number for number, each in enumerate(asked) if each.memory is not None and each.memory.conditioning]
        begun = self.model.begin_attention(features) if known else None
        alike: dict[tuple[int, int], list[int]] = {}
        for number in known:
            alike.setdefault(asked[number].memory.tokens, []).append(number)
        for numbers in alike.values():
            for first in range(0, len(numbers), self._together):
                some = numbers[first : first + self._together]
                choose = self._chooser({number: asked[number] for number in some}, features, size, offered)
                seen = self.model.track(features, begun, [asked[number].memory for number in some], choose)
                yield from ((number, seen.of(row)) for row, number in enumerate(some))

    def _prompted(
        self, features: Sam2Features, each: Asked, tracked: Sam2Seen | None, size: tuple[int, int]
    ) -> Sam2Seen:
        """One target by what is shown of it."""
        shown = each.shown
        assert shown is not None
        conditioned = self.model.without_memory(features) if tracked is None else tracked.conditioned
        if shown.mask is not None:
            return self.model.shown(features, conditioned, self._mask(shown.mask))
        corrected = None
        if tracked is not None and shown.box is None and tracked.presence[0] > 0:
            corrected = tracked.logits.clamp(-MOST_LOGIT, MOST_LOGIT)
        points = self._points(shown, size)
        return self.model.prompted(features, conditioned, points, tracked is None, corrected, best_of)

    def _segmented(
        self,
        features: Sam2Features,
        seen: Sam2Seen | None,
        each: Asked,
        size: tuple[int, int],
        offered: list[Hypothesis] | None,
    ) -> Segmented:
        """One target as the loop sees it, at the size of the frame (height, width)."""
        memory = Sam2TargetMemory() if each.memory is None else each.memory
        if seen is None:
            return Segmented(np.zeros(size, bool), 0.0, 0.0, memory)
        memory = memory.after(seen.features, seen.pointer, is_shown(each.shown), self.limits)
        mask = F.interpolate(seen.logits, size, mode="bilinear", align_corners=False)[0, 0] > 0
        if each.judge is not None and offered is None:
            offered = self._hypotheses(features, seen.logits[0], seen.iou[:1], size)
        return Segmented(
            mask.cpu().numpy(), float(seen.iou), float(seen.presence.sigmoid()), memory, tuple(offered or ())
        )

    def _chooser(
        self,
        some: dict[int, Asked],
        features: Sam2Features,
        size: tuple[int, int],
        offered: dict[int, list[Hypothesis]],
    ) -> Any:
        """The choice of the best hypothesis, in which judges have a say; what they saw goes to `offered`."""
        if all(each.judge is None for each in some.values()):
            return best_of

        def choose(masks: Tensor, iou: Tensor, tokens: Tensor, presence: Tensor) -> tuple[Tensor, ...]:
            scores = iou.clone()
            for row, (number, each) in enumerate(some.items()):
                if each.judge is not None:
                    seen = self._hypotheses(features, masks[row, 0], iou[row, 0], size)
                    scores[row, 0] += torch.from_numpy(np.asarray(each.judge(seen))).to(scores)
                    best = int(scores[row, 0].argmax())
                    offered[number] = [seen[best], *seen[:best], *seen[best + 1 :]]
            return best_of(masks, iou, tokens, presence, scores)

        return choose

    def _hypotheses(
        self, features: Sam2Features, masks: Tensor, iou: Tensor, size: tuple[int, int]
    ) -> list[Hypothesis]:
        """Masks, logits (k, h, w) at stride 4, as a judge sees them; iou (k,)."""
        map_ = self.model.map_of(features)
        pooled = F.avg_pool2d(masks.float()[None], masks.shape[-1] // map_.shape[-1])[0]
        found = []
        for logits, small, expected in zip(masks, pooled, iou.tolist(), strict=True):
            mask = (logits > 0).cpu().numpy()
            found.append(Hypothesis(mask, _box_in(mask, size), expected, embedding_of(map_, small.sigmoid())))
        return found

    def _points(self, shown: VisualPrompt, size: tuple[int, int]) -> Points:
        """Corners of the box, then points, on the model's square (`Sam2VideoProcessor`'s order and labels)."""
        x1, y1, x2, y2 = shown.box or (0.0,) * 4
        places = [(x1, y1, 2), (x2, y2, 3)] if shown.box is not None else []
        values = torch.tensor([*places, *shown.points], dtype=torch.float32)
        scale = torch.tensor([self.model.image_size / size[1], self.model.image_size / size[0]])
        coordinates, labels = values[:, :2] * scale, values[:, 2].to(torch.int32)
        return Points(coordinates[None, None].to(self.device), labels[None, None].to(self.device))

    def _mask(self, mask: np.ndarray) -> Tensor:
        """A mask, bool (height, width), on the model's square, as `Sam2VideoProcessor` scales it: (1, 1, s, s)."""
        side = (self.model.image_size, self.model.image_size)
        given = torch.from_numpy(np.ascontiguousarray(mask)).to(self.device, torch.float32)[None, None]
        if mask.shape == side:
            return given
        scaled = F.interpolate(given, side, mode="bilinear", align_corners=False, antialias=True)
        return (scaled >= 0.5).float()


def _box_in(mask: np.ndarray, size: tuple[int, int]) -> Box | None:
    """The box of a mask (h, w) in pixels of a frame of a size (height, width)."""
    if not mask.any():
        return None
    x1, y1, x2, y2 = box_of(mask).tolist()
    across, down = size[1] / mask.shape[1], size[0] / mask.shape[0]
    return x1 * across, y1 * down, x2 * across, y2 * down


def is_shown(prompt: VisualPrompt | None) -> bool:
    """Whether a prompt shows anything."""
    return prompt is not None and (prompt.box is not None or bool(prompt.points) or prompt.mask is not None)


def best_of(
    masks: Tensor, iou: Tensor, tokens: Tensor, presence: Tensor, scores: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The hypothesis with the highest predicted IoU, or score where they are given: see `sam2_model.Choice`."""
    best = (iou if scores is None else scores)[:, 0].argmax(-1)
    order = (best[:, None] + torch.arange(iou.shape[-1], device=best.device)) % iou.shape[-1]
    rows = torch.arange(len(best), device=best.device)[:, None]
    masks, iou, tokens = (x[rows, 0, order][:, None] for x in (masks, iou, tokens))
    return masks, iou, tokens, presence


def square(image: np.ndarray, side: int, device: torch.device) -> Tensor:
    """A frame, uint8 RGB (height, width, 3), squashed to uint8 (1, 3, side, side).

    As `Sam2ImageProcessor` does through torchvision: bilinear with antialiasing, rounded to whole grey levels, which
    torchvision leaves to this very function of PyTorch.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None]
    if device.type == "cpu":
        return F.interpolate(pixels, (side, side), mode="bilinear", align_corners=False, antialias=True)
    scaled = F.interpolate(pixels.float(), (side, side), mode="bilinear", align_corners=False, antialias=True)
    return scaled.round_().clamp_(0, 255).to(torch.uint8)
