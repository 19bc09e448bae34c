"""nano's mask propagation network: a window of a frame, what was shown or remembered of a target, and its mask here.

Everything that is known of the target enters as maps: the last mask, clicks and boxes as they are; masks of earlier
frames **carried over** by likeness of learned keys (global and local matching, as in FEELVOS and CFBI); features and
masks of remembered frames **read** by attention over the same keys (space-time memory, as in STM and STCN). A small
convolutional decoder makes a mask of them. All steps work on n rows, one per target, with gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from trackgpt.config import MaskPropagationConfig
from trackgpt.perception.encoders import ConvEncoder

SURE = 10.0
"""The logit of a mask that was given, and the largest that is handed on."""
CARRIED, SHOWN = 6, 7
"""Channels of what is carried over (three for the last frame, three for the shown ones) and of what is shown."""


@dataclass(frozen=True)
class Maps:
    """What the encoder makes of n windows of side s.

    Attributes:
        two, four, eight, sixteen: (n, c, s/stride, s/stride).
        key: (n, k, s/8, s/8), unit vectors.
    """

    two: Tensor
    four: Tensor
    eight: Tensor
    sixteen: Tensor
    key: Tensor

    def of(self, index: Tensor) -> Maps:
        """The maps of some of the windows."""
        return Maps(*(getattr(self, each.name)[index] for each in fields(self)))


@dataclass(frozen=True)
class Reference:
    """A remembered frame of n targets: what its cells look like and which of them are the target's.

    Attributes:
        key: (n, k, h, w), unit vectors at stride 8.
        on, off: (n, 1, h, w), how much each cell is known to be of the target, or not to be of it, 0 to 1.
        value: (n, v, h/2, w/2), what the network wants to know of it.
        place: float (4,) x, y, width and height of its window in units of the present one, (0, 0, 1, 1) where both are
            the same.
    """

    key: Tensor
    on: Tensor
    off: Tensor
    value: Tensor
    place: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Shown:
    """What is shown of n targets on this frame.

    Attributes:
        last: (n, 1, s/4, s/4), logits of the last mask as seen through this window; 0 where there is none.
        box: (n, 1, s/4, s/4), 1 inside a box.
        on, off: (n, 1, s/4, s/4), bumps of height 1 at clicks on the target and beside it.
    """

    last: Tensor
    box: Tensor
    on: Tensor
    off: Tensor


@dataclass(frozen=True)
class Decoded:
    """Masks of n targets.

    Attributes:
        logits: (n, 1, s/2, s/2).
        coarse: (n, 1, s/8, s/8), the first guess that `logits` refines.
        iou, presence: (n,), logits of the expected IoU and of the target being in the window.
    """

    logits: Tensor
    coarse: Tensor
    iou: Tensor
    presence: Tensor


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))), with a 1 x 1 convolution in the shortcut where widths differ; no normalisation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.two = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, inputs, h, w) to (n, outputs, h, w)."""
        made: Tensor = self.shortcut(x) + self.two(F.relu(self.one(F.relu(x))))
        return made


class MaskPropagation(nn.Module):
    """Encoder, keys, values, decoder and scores. Holds weights, never state."""

    def __init__(self, config: MaskPropagationConfig) -> None:
        super().__init__()
        self.config = config
        two, four, eight, _ = config.channels
        width, key, value = config.width, config.key, config.value
        self.encoder = ConvEncoder(config.channels, config.blocks, width)
        self.key_fine, self.key_coarse = nn.Conv2d(eight, key, 1), nn.Conv2d(width, key, 1)
        self.value = nn.Sequential(nn.Conv2d(width + 2, value, 1), ResidualBlock(value, value))
        self.nothing = nn.Parameter(torch.zeros(value))  # read where nothing is remembered
        self.sharpness = nn.Parameter(torch.tensor([3.0, 3.0, 3.0]))  # logarithms: last, shown, values
        self.reach = nn.Parameter(torch.tensor([-4.0, -1.5]))  # logarithms of squared distances, in windows
        hints = CARRIED + SHOWN
        self.sixteen = nn.Sequential(ResidualBlock(width + value + hints, width), ResidualBlock(width, width))
        self.down_eight, self.side_eight = nn.Conv2d(width, 64, 1), nn.Conv2d(eight + hints, 64, 3, padding=1)
        self.eight = ResidualBlock(64, 64)
        self.coarse = nn.Conv2d(64, 1, 1)
        self.down_four, self.side_four = nn.Conv2d(64, 32, 1), nn.Conv2d(four + 4, 32, 3, padding=1)
        self.four = ResidualBlock(32, 32)
        self.down_two, self.side_two = nn.Conv2d(32, 16, 1), nn.Conv2d(two, 16, 3, padding=1)
        self.two = nn.Conv2d(16, 16, 3, padding=1)
        self.fine = nn.Conv2d(16, 1, 3, padding=1)
        self.scores = nn.Sequential(
            nn.Linear(2 * width + 2 * hints + 1, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 2)
        )
        for last in (self.fine, self.scores[-1]):
            nn.init.normal_(last.weight, std=1e-3)
            nn.init.zeros_(last.bias)

    def encode(self, pixels: Tensor) -> Maps:
        """Normalised windows (n, 3, s, s), s a multiple of 16."""
        two, four, eight, sixteen = self.encoder.pyramid(pixels)
        key = self.key_fine(eight) + F.interpolate(self.key_coarse(sixteen), scale_factor=2.0, mode="bilinear")
        return Maps(two, four, eight, sixteen, F.normalize(key.float(), dim=1))

    def remember(self, maps: Maps, on: Tensor, off: Tensor) -> Reference:
        """What to remember of windows in which cells are known to be of the target, or not: on, off (n, 1, s/8, s/8)."""
        half = F.avg_pool2d(torch.cat([on, off], 1), 2)
        return Reference(maps.key, on, off, self.value(torch.cat([maps.sixteen, half.to(maps.sixteen.dtype)], 1)))

    def carried(self, key: Tensor, references: Sequence[Reference], which: int) -> Tensor:
        """Masks of remembered frames, carried over to the present one by likeness of keys.

        Args:
            key: (n, k, h, w).
            references: frames that are matched together.
            which: 0 for the last frame, near cells count more; 1 for shown ones.

        Returns:
            (n, 3, h, w): log-odds of the target against the rest, and how much each cell resembles either, each
            divided such that 1 is a lot.
        """
        n, _, h, w = key.shape
        scale = self.sharpness[which].exp()
        with torch.autocast(key.device.type, enabled=False):
            flat = rearrange(key.float(), "n k h w -> n (h w) k")
            likeness = [
                flat @ rearrange(r.key.float(), "n k h w -> n k (h w)") * scale
                - apart(h, w, r.place, key.device) / self.reach[which].exp()
                for r in references
            ]
            known = [rearrange(torch.cat([r.on, r.off], 1).float(), "n c h w -> n (h w) c") for r in references]
            alike = torch.cat(likeness, 2)
            most = alike.amax(2, keepdim=True).detach()
            found = torch.log(torch.exp(alike - most) @ torch.cat(known, 1) + 1e-6) + most
            on, off = found.unbind(2)
            out = torch.stack([(on - off).clamp(-SURE, SURE) / 4, on / scale, off / scale], 1)
        return out.view(n, 3, h, w)

    def read(self, key: Tensor, references: Sequence[Reference]) -> Tensor:
        """Values (n, v, h/2, w/2) of remembered frames by attention over keys at stride 16; `key` as in `carried`."""
        n, _, h, w = key.shape
        with torch.autocast(key.device.type, enabled=False):
            query, keys = (coarse_key(k) for k in (key, torch.cat([r.key for r in references], 3)))
            alike = query.transpose(1, 2) @ keys * self.sharpness[2].exp()
            value = torch.cat([r.value.float() for r in references], 3).flatten(2)
            found = torch.softmax(alike, 2) @ value.transpose(1, 2)
        return found.transpose(1, 2).reshape(n, -1, h // 2, w // 2)

    def unread(self, maps: Maps) -> Tensor:
        """In the place of `read` where nothing is remembered."""
        n, _, h, w = maps.sixteen.shape
        return self.nothing.view(1, -1, 1, 1).expand(n, -1, h, w)

    def decode(self, maps: Maps, shown: Shown, carried: Tensor, read: Tensor) -> Decoded:
        """Masks and scores from all that is known.

        Args:
            maps: of the windows.
            shown: on this frame.
            carried: (n, 6, s/8, s/8), of the last frame and of the shown ones; 0 where there is none.
            read: (n, v, s/16, s/16).
        """
        dtype = maps.sixteen.dtype
        last = torch.tanh(0.25 * shown.last)
        hints4 = torch.cat([last, shown.box, shown.on, shown.off], 1).to(dtype)
        used = [hint.flatten(1).abs().amax(1).gt(0).to(dtype) for hint in (shown.last, shown.box, shown.on)]
        half = F.avg_pool2d(hints4, 2)
        told = torch.stack(used, 1)[:, :, None, None].expand(-1, -1, *half.shape[2:])
        hints8 = torch.cat([carried.to(dtype), half, told], 1)
        hints16 = F.avg_pool2d(hints8, 2)
        x16 = self.sixteen(torch.cat([maps.sixteen, read.to(dtype), hints16], 1))
        x8 = self.eight(up(self.down_eight(x16)) + self.side_eight(torch.cat([maps.eight, hints8], 1)))
        coarse = self.coarse(F.relu(x8))
        x4 = self.four(up(self.down_four(F.relu(x8))) + self.side_four(torch.cat([maps.four, hints4], 1)))
        x2 = up(self.down_two(F.relu(x4))) + self.side_two(maps.two)
        fine = self.fine(F.relu(self.two(F.relu(x2))))
        logits = fine.float() + F.interpolate(coarse.float(), scale_factor=4.0, mode="bilinear")
        weight = torch.sigmoid(F.avg_pool2d(coarse, 2))
        pooled = [x16.mean((2, 3)), weighted(x16, weight), weighted(hints16, weight), hints16.amax((2, 3))]
        scores = self.scores(torch.cat([*pooled, weight.mean((2, 3))], 1)).float()
        return Decoded(logits, coarse.float(), scores[:, 0], scores[:, 1])

    def fold(self) -> None:
        """Fold the encoder's units for inference (see `ConvUnit.fold`)."""
        self.encoder.fold()


def up(x: Tensor) -> Tensor:
    """Twice the size."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear")


def weighted(x: Tensor, weight: Tensor) -> Tensor:
    """Means (n, c) of maps (n, c, h, w) by weights (n, 1, h, w)."""
    return (x * weight).sum((2, 3)) / (weight.sum((2, 3)) + 1)


def coarse_key(key: Tensor) -> Tensor:
    """Keys (n, k, h, w) at stride 8 as unit vectors (n, k, h/2 w/2) at stride 16."""
    return F.normalize(F.avg_pool2d(key.float(), 2), dim=1).flatten(2)


def apart(h: int, w: int, place: tuple[float, float, float, float], device: torch.device) -> Tensor:
    """Squared distances (h w, h w) from the cells of a window to those of another, in units of the first one's side.

    Args:
        h, w: cells of both windows.
        place: x, y, width and height of the other one in units of the first.
        device: of the result.
    """
    x, y, width, height = place
    across, down = (torch.arange(count, device=device) + 0.5 for count in (w, h))
    dx = (across[:, None] / w - x - across[None] * width / w) ** 2
    dy = (down[:, None] / h - y - down[None] * height / h) ** 2
    return (dy[:, None, :, None] + dx[None, :, None, :]).reshape(h * w, h * w)


def bumps(points: Tensor, side: int, radius: float = 0.03) -> Tensor:
    """Bumps of height 1 at points (n, m, 2) of x and y in windows, NaN for none: (n, 1, side, side)."""
    at = (torch.arange(side, device=points.device, dtype=torch.float32) + 0.5) / side
    away = [(at - points[..., k : k + 1].float()) ** 2 for k in (0, 1)]  # (n, m, side) each
    apart_ = away[1][..., :, None] + away[0][..., None, :]
    made = torch.exp(-apart_ / (2 * radius**2)).nan_to_num(0.0)
    if not made.shape[1]:
        return made.new_zeros(len(points), 1, side, side)
    return made.amax(1, keepdim=True)


def filled(boxes: Tensor, side: int) -> Tensor:
    """1 inside boxes (n, 4) xyxy in windows, NaN for none, else 0: (n, 1, side, side)."""
    at = (torch.arange(side, device=boxes.device, dtype=torch.float32) + 0.5) / side
    x1, y1, x2, y2 = boxes.float().unsqueeze(2).unbind(1)
    across, down = (at >= x1) & (at <= x2), (at >= y1) & (at <= y2)
    return (down[:, :, None] & across[:, None, :]).float().unsqueeze(1)

