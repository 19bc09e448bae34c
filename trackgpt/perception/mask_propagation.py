"""nano's mask propagation network: a window of a frame, what was shown or remembered of a target, and its mask here.

Everything that is known of the target enters as maps: the last mask, clicks and boxes as they are; masks of earlier
frames **carried over** by likeness of learned keys (global and local matching, as in FEELVOS and CFBI); features and
masks of remembered frames **read** by attention over the same keys (space-time memory, as in STM and STCN). A small
convolutional decoder makes a mask of them. All steps work on n rows, one per target, with gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trackgpt.config import MaskPropagationConfig
from trackgpt.errors import ModelError, UsageError
from trackgpt.perception.encoders import ConvEncoder, ConvUnit
from trackgpt.perception.model_folders import CONFIG_FILE, read_folder, write_folder
from trackgpt.settings import read_json

SURE = 10.0
"""The logit of a mask that was given, and the largest that is handed on."""
CARRIED, SHOWN = 6, 7
"""Channels of what is carried over (three for the last frame, three for the shown ones) and of what is shown."""


@dataclass(frozen=True)
class Maps:
    """What the encoder makes of n windows of side s.

    Attributes:
        two, four, eight: (n, c, s/stride, s/stride), as the decoder adds them.
        sixteen: (n, c, s/16, s/16).
        seen: (n, v, s/8, s/8), what of it may be remembered.
        key: (n, k, s/8, s/8), unit vectors.
    """

    two: Tensor
    four: Tensor
    eight: Tensor
    sixteen: Tensor
    seen: Tensor
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
        value: (n, v, h, w), what the network wants to know of it.
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
class Propagated:
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
    """Encoder, keys, values, decoder and scores. Holds weights, never state.

    Raises:
        UsageError: the side of its windows is no multiple of 16.
    """

    def __init__(self, config: MaskPropagationConfig) -> None:
        super().__init__()
        if config.side % 16:
            raise UsageError(f"side {config.side}: wanted a multiple of 16")
        self.config = config
        two, four, eight, _ = config.channels
        width, key, value = config.width, config.key, config.value
        self.encoder = ConvEncoder(config.channels, config.blocks, width)
        self.key_fine, self.key_coarse = nn.Conv2d(eight, key, 1), nn.Conv2d(width, key, 1)
        self.value_fine, self.value_coarse = nn.Conv2d(eight, value, 1), nn.Conv2d(width, value, 1)
        self.value = nn.Sequential(nn.Conv2d(value + 2, value, 3, padding=1), nn.ReLU(), nn.Conv2d(value, value, 1))
        self.nothing = nn.Parameter(torch.zeros(2, value))  # read where nothing is remembered
        self.sharpness = nn.Parameter(torch.tensor([3.0, 3.0]))  # logarithms, of the last frame and of shown ones
        self.reach = nn.Parameter(torch.tensor([-4.0, -1.5]))  # logarithms of squared distances, in windows
        self.unlike = nn.Parameter(torch.tensor([0.6, 0.6]))  # the cosine that a cell without a like competes with
        hints = CARRIED + SHOWN
        self.sixteen = nn.Sequential(ResidualBlock(width + 2 * value + hints, width), ResidualBlock(width, width))
        self.side_two, self.side_four, self.side_eight = (
            nn.Conv2d(inputs, outputs, 3, padding=1) for inputs, outputs in ((two, 16), (four, 32), (eight, 64))
        )
        self.hint_four, self.hint_eight = nn.Conv2d(4, 32, 3, padding=1), nn.Conv2d(hints, 64, 3, padding=1)
        self.down_eight, self.down_four, self.down_two = (
            nn.Conv2d(inputs, outputs, 1) for inputs, outputs in ((width, 64), (64, 32), (32, 16))
        )
        self.eight, self.four = ResidualBlock(64, 64), ResidualBlock(32, 32)
        self.two = nn.Conv2d(16, 16, 3, padding=1)
        self.coarse, self.fine = nn.Conv2d(64, 1, 1), nn.Conv2d(16, 1, 3, padding=1)
        self.scores = nn.Sequential(
            nn.Linear(2 * width + 2 * hints + 1, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 2)
        )
        for last in (self.fine, self.scores[-1]):
            nn.init.normal_(last.weight, std=1e-3)
            nn.init.zeros_(last.bias)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> MaskPropagation:
        """Read a folder of `save_pretrained`; in evaluation mode, not folded, in float32.

        Raises:
            ModelError: MD01 a file is missing; MD02 a file is damaged, or the weights do not fit the configuration.
        """
        return read_folder(Path(folder), MaskPropagationConfig, cls, "nano-memory")

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write config and weights to a folder; `dtype` stores floating weights smaller (as shipped: bf16).

        Raises:
            ModelError: the model is folded, so the folder could not be read back.
        """
        if any(isinstance(unit, ConvUnit) and unit.norm is None for unit in self.encoder.modules()):
            raise ModelError(f"{folder}: the model is folded for inference; save it before fold()")
        write_folder(Path(folder), self.config, self, dtype)

    def encode(self, pixels: Tensor) -> Maps:
        """Normalised windows (n, 3, s, s), s a multiple of 16."""
        two, four, eight, sixteen = self.encoder.pyramid(pixels)
        key = self.key_fine(eight) + up(self.key_coarse(sixteen))
        seen = self.value_fine(eight) + up(self.value_coarse(sixteen))
        sides = self.side_two(two), self.side_four(four), self.side_eight(eight)
        return Maps(*sides, sixteen, seen, F.normalize(key.float(), dim=1))

    def remember(self, maps: Maps, on: Tensor, off: Tensor) -> Reference:
        """What to remember of windows whose cells are known to be of the target, or not: on, off (n, 1, s/8, s/8)."""
        value = self.value(torch.cat([maps.seen, on.to(maps.seen.dtype), off.to(maps.seen.dtype)], 1))
        return Reference(maps.key, on, off, value)

    def recall(self, key: Tensor, references: Sequence[Reference], which: int) -> tuple[Tensor, Tensor]:
        """Attention of a frame's cells to those of remembered frames, by likeness of keys and by distance.

        All of it is one attention: the distance is a product of coordinates, and one more cell, as like as `unlike`,
        takes the weight of those that resemble nothing.

        Args:
            key: (n, k, h, w).
            references: frames that are matched together.
            which: 0 for the last frame, near cells count more; 1 for shown ones.

        Returns:
            (n, 3, h, w), masks carried over: log-odds of the target against the rest, of the target against nothing,
            and of the rest against nothing, a quarter of each; and (n, v, h, w), the values read.
        """
        n, _, h, w = key.shape
        scale, reach = self.sharpness[which].exp(), self.reach[which].exp()
        at = cells(h, w, (0.0, 0.0, 1.0, 1.0), key)
        square = (at**2).sum(1, keepdim=True)
        query = torch.cat(
            [
                key * scale,
                (torch.cat([2 * at, -square, -torch.ones_like(square)], 1) / reach).expand(n, -1, -1, -1),
                torch.ones_like(key[:, :1]),
            ],
            1,
        )
        keys, values = [self._alone(key, scale * self.unlike[which])], [key.new_zeros(n, 3 + self.config.value, 1)]
        values[0][:, 2] = 1
        for one in references:
            there = cells(h, w, one.place, key)
            square = (there**2).sum(1, keepdim=True)
            place = torch.cat([there, torch.ones_like(square), square, torch.zeros_like(square)], 1)
            keys.append(torch.cat([one.key, place.expand(n, -1, -1, -1)], 1).flatten(2))
            values.append(torch.cat([one.on, one.off, torch.zeros_like(one.on), one.value.float()], 1).flatten(2))
        found = attend(query.flatten(2), torch.cat(keys, 2), torch.cat(values, 2)).view(n, -1, h, w)
        on, off, none = (found[:, :3].float().clamp(min=0) + 1e-4).log().unbind(1)
        return torch.stack([on - off, on - none, off - none], 1) / 4, found[:, 3:]

    def _alone(self, key: Tensor, alike: Tensor) -> Tensor:
        """The key (n, k + 5, 1) of the cell that stands for nothing: as like as `alike` to every cell."""
        made = key.new_zeros(len(key), key.shape[1] + 4, 1)
        return torch.cat([made, alike.expand(len(key), 1, 1).to(key.dtype)], 1)

    def unread(self, maps: Maps, which: int) -> Tensor:
        """In the place of values where nothing is remembered."""
        n, _, h, w = maps.eight.shape
        return self.nothing[which].view(1, -1, 1, 1).expand(n, -1, h, w)

    def decode(self, maps: Maps, shown: Shown, carried: Tensor, read: Tensor) -> Propagated:
        """Masks and scores from all that is known.

        Args:
            maps: of the windows.
            shown: on this frame.
            carried: (n, 6, s/8, s/8), of the last frame and of the shown ones; 0 where there is none.
            read: (n, 2 v, s/8, s/8), values of the last frame and of the shown ones.
        """
        dtype = maps.sixteen.dtype
        last = torch.tanh(0.25 * shown.last)
        hints4 = torch.cat([last, shown.box, shown.on, shown.off], 1).to(dtype)
        used = [hint.flatten(1).abs().amax(1).gt(0).to(dtype) for hint in (shown.last, shown.box, shown.on)]
        half = F.avg_pool2d(hints4, 2)
        told = torch.stack(used, 1)[:, :, None, None].expand(-1, -1, *half.shape[2:])
        hints8 = torch.cat([carried.to(dtype), half, told], 1)
        hints16 = F.avg_pool2d(hints8, 2)
        x16 = self.sixteen(torch.cat([maps.sixteen, F.avg_pool2d(read.to(dtype), 2), hints16], 1))
        x8 = self.eight(up(self.down_eight(F.relu(x16))) + maps.eight + self.hint_eight(hints8))
        coarse = self.coarse(F.relu(x8))
        x4 = self.four(up(self.down_four(F.relu(x8))) + maps.four + self.hint_four(hints4))
        x2 = up(self.down_two(F.relu(x4))) + maps.two
        fine = self.fine(F.relu(self.two(F.relu(x2))))
        logits = fine.float() + F.interpolate(coarse.float(), scale_factor=4.0, mode="bilinear")
        weight = torch.sigmoid(F.avg_pool2d(coarse, 2))
        pooled = [x16.mean((2, 3)), weighted(x16, weight), weighted(hints16, weight), hints16.amax((2, 3))]
        scores = self.scores(torch.cat([*pooled, weight.mean((2, 3))], 1)).float()
        return Propagated(logits, coarse.float(), scores[:, 0], scores[:, 1])

    def fold(self) -> None:
        """Fold the encoder's units for inference (see `ConvUnit.fold`)."""
        self.encoder.fold()


def up(x: Tensor) -> Tensor:
    """Twice the size."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear")


def weighted(x: Tensor, weight: Tensor) -> Tensor:
    """Means (n, c) of maps (n, c, h, w) by weights (n, 1, h, w)."""
    return (x * weight).sum((2, 3)) / (weight.sum((2, 3)) + 1)


def cells(h: int, w: int, place: tuple[float, float, float, float], like: Tensor) -> Tensor:
    """The middles of a window's cells, (1, 2, h, w) of x and y, from the middle of the window that gives the units.

    Products of small numbers are what bfloat16 rounds least.

    Args:
        h, w: cells of the window.
        place: its x, y, width and height, in the units wanted.
        like: a tensor of the dtype and on the device wanted.
    """
    x, y, width, height = place
    across, down = (torch.arange(count, device=like.device, dtype=like.dtype) + 0.5 for count in (w, h))
    grid = torch.meshgrid(y + down * (height / h), x + across * (width / w), indexing="ij")
    return torch.stack(grid[::-1])[None] - 0.5


def attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """softmax(query keys^T) values of (n, c, q), (n, c, m) and (n, v, m): (n, v, q).

    PyTorch's fused kernels want equal widths of keys and values, so the narrower one is padded.
    """
    width = -(-max(query.shape[1], values.shape[1]) // 16) * 16
    dtype = torch.bfloat16 if torch.is_autocast_enabled(query.device.type) else query.dtype
    q, k, v = (F.pad(x.transpose(1, 2), (0, width - x.shape[1])).to(dtype).unsqueeze(1) for x in (query, keys, values))
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)[:, 0, :, : values.shape[1]].transpose(1, 2)


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


def is_nano_memory(folder: Path) -> bool:
    """Whether a folder holds a mask propagation network.

    Raises:
        ModelError: MD02, its config.json is damaged.
    """
    file = folder / CONFIG_FILE
    return file.is_file() and read_json(file).get("kind") == MaskPropagationConfig.kind
