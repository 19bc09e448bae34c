"""Image encoders behind one interface: a padded square of pixels in, an embedding at stride 16 out.

`SamViT` is the paper's encoder (SAM's ViT, frozen), `Sam2Hiera` that of SAM 2. `ConvEncoder` is nano's: plain 3x3
convolutions whose batch normalisation and identity branch fold into one convolution at load, which on a CPU is several
times as fast as a ViT of the same size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trackgpt.config import EncoderConfig
from trackgpt.errors import UsageError

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Features:
    """An encoder's output for b frames.

    Attributes:
        embedding: (b, c, h, w) at stride 16.
        fine: maps at stride 4 and stride 8 for the decoder's upscaling, or None.
    """

    embedding: Tensor
    fine: tuple[Tensor, Tensor] | None = None

    def of(self, index: Tensor) -> Features:
        """The features of some of the frames, e.g. one row repeated for several targets."""
        fine = None if self.fine is None else (self.fine[0][index], self.fine[1][index])
        return replace(self, embedding=self.embedding[index], fine=fine)

    def row(self, k: int) -> Features:
        """The features of frame k, as views."""
        fine = None if self.fine is None else (self.fine[0][k : k + 1], self.fine[1][k : k + 1])
        return replace(self, embedding=self.embedding[k : k + 1], fine=fine)

    def to(self, dtype: torch.dtype) -> Features:
        """The same maps in another dtype."""
        fine = None if self.fine is None else (self.fine[0].to(dtype), self.fine[1].to(dtype))
        return replace(self, embedding=self.embedding.to(dtype), fine=fine)

    def repeated(self, times: int) -> Features:
        """One frame's features for several targets, as views of the same memory."""
        fine = None if self.fine is None else (_rows(self.fine[0], times), _rows(self.fine[1], times))
        return replace(self, embedding=_rows(self.embedding, times), fine=fine)


def _rows(maps: Tensor, times: int) -> Tensor:
    return maps.expand(times, -1, -1, -1)


def normalise(frames: Tensor) -> Tensor:
    """uint8 or float RGB in 0..255, (b, 3, s, s), to zero-mean unit-variance float32 (SAM's constants)."""
    rows = frames.permute(0, 2, 3, 1)
    together = rows.is_contiguous()
    mean, std = (
        torch.from_numpy(_repeated(values, rows.shape[2] if together else 1)).to(frames.device)
        for values in (PIXEL_MEAN, PIXEL_STD)
    )
    if not together:
        return (frames.float() - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    # Pixels lie together: whole rows of them are three times as fast as three numbers at a time.
    flat = (rows.flatten(2).float() - mean).div_(std)
    return flat.view(rows.shape).permute(0, 3, 1, 2)


@lru_cache(maxsize=8)
def _repeated(values: tuple[float, ...], times: int) -> np.ndarray:
    """float32 (3 times,), the values again and again."""
    return np.tile(np.array(values, np.float32), times)


class ConvUnit(nn.Module):
    """relu(norm(conv3x3(x)) + x), the identity only where shapes allow; folds into relu(conv3x3(x)).

    Attributes:
        packed: the kernel lies as oneDNN computes with it, see `pack`.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm: nn.BatchNorm2d | None = nn.BatchNorm2d(outputs)
        self.residual = inputs == outputs and stride == 1
        self.packed = False

    def forward(self, x: Tensor) -> Tensor:
        """Maps (b, inputs, h, w) to (b, outputs, h / stride, w / stride)."""
        if self.packed:
            c = self.conv
            made: Tensor = torch.ops.mkldnn._convolution_pointwise(
                x, c.weight, c.bias, c.padding, c.stride, c.dilation, c.groups, "relu", [], ""
            )
            return made
        y = self.conv(x)
        if self.norm is not None:
            y = self.norm(y)
            if self.residual:
                y = y + x
        return F.relu(y, inplace=True)

    @torch.no_grad()
    def fold(self) -> None:
        """Merge normalisation and identity into the convolution; the unit computes the same and no longer trains."""
        if self.norm is None:
            return
        # In float32 whatever the weights are, which are rounded once, at the end.
        norm, old = self.norm.float(), self.conv
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        weight = old.weight.float() * scale.view(-1, 1, 1, 1)
        if self.residual:
            weight = weight + nn.init.dirac_(torch.empty_like(weight))
        self.conv = nn.Conv2d(
            old.in_channels, old.out_channels, 3, old.stride, 1, device=weight.device, dtype=old.weight.dtype
        )
        self.conv.weight.copy_(weight)
        self.conv.bias.copy_(norm.bias - norm.running_mean * scale)
        # The layout of the maps: kernels in the other one are rearranged at every call, a tenth of nano's encoder.
        self.conv.to(memory_format=torch.channels_last)
        self.norm = None

    @torch.no_grad()
    def pack(self, side: int) -> None:
        """Arrange the kernel of a folded unit, once, as oneDNN wants it for maps of a side; the same is computed.

        A kernel that lies as it is stored is arranged anew at every call: a tenth of nano's encoder in float32, a third
        of it in bfloat16 with AMX. The operators are those of torch.compile on a CPU.
        """
        if self.norm is not None or self.packed:
            raise ValueError("a unit is packed once, after it is folded")
        c = self.conv
        kernel = torch.ops.mkldnn._reorder_convolution_weight(
            c.weight.detach(), c.padding, c.stride, c.dilation, c.groups, [1, c.in_channels, side, side]
        )
        c.weight = nn.Parameter(kernel, requires_grad=False)
        self.packed = True


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this machine's PyTorch has what `ConvUnit.pack` needs; where not, kernels stay unpacked.

    Processors that are not x86 have their own kernels behind the same names, with which nothing was measured.
    """
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return False
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


class ConvEncoder(nn.Module):
    """A plain convolutional encoder with maps at strides 4, 8 and 16; `out_channels` wide after the neck."""

    def __init__(self, channels: list[int], blocks: list[int], out_channels: int | None = None) -> None:
        super().__init__()
        widths = [3, *channels]
        stages = []
        for inputs, outputs, count in zip(widths, widths[1:], blocks, strict=False):
            units = [ConvUnit(inputs, outputs, stride=2)] + [ConvUnit(outputs, outputs) for _ in range(count - 1)]
            stages.append(nn.Sequential(*units))
        self.stages = nn.ModuleList(stages)
        self.channels = list(channels)
        self.fine_channels = (channels[1], channels[2])
        self.neck = nn.Conv2d(channels[-1], out_channels, 1) if out_channels else None

    def forward(self, pixels: Tensor) -> Features:
        """Normalised pixels (b, 3, s, s), s a multiple of 16, to features."""
        _, four, eight, embedding = self.pyramid(pixels)
        return Features(embedding, (four, eight))

    def pyramid(self, pixels: Tensor) -> list[Tensor]:
        """Maps at strides 2, 4, 8 and, after the neck, 16, of normalised pixels (b, 3, s, s)."""
        maps = []
        x = pixels.contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps if self.neck is None else [*maps[:-1], self.neck(x)]

    def fold(self) -> None:
        """Fold every unit for inference (see `ConvUnit.fold`)."""
        for module in self.modules():
            if isinstance(module, ConvUnit):
                module.fold()

    def pack(self, side: int) -> None:
        """Pack every folded unit (see `ConvUnit.pack`) for squares of a side, where that can be done."""
        for stage in self.stages:
            for unit in stage:
                if can_pack(unit.conv.weight.dtype):
                    unit.pack(side)
                side //= unit.conv.stride[0]


class SamViT(nn.Module):
    """SAM's image encoder: transformers' `SamVisionModel`, with PyTorch's fused attention, frozen as in the paper."""

    fine_channels = None

    def __init__(self, sam: dict[str, Any] | None) -> None:
        super().__init__()
        from transformers import SamVisionConfig
        from transformers.models.sam.modeling_sam import SamVisionEncoder

        self.vision_encoder = SamVisionEncoder(SamVisionConfig(**(sam or {})))
        self.requires_grad_(False)

    def forward(self, pixels: Tensor) -> Features:
        """Normalised pixels (b, 3, s, s) to features (b, 256, s/16, s/16), without gradients."""
        with torch.no_grad():
            return Features(self.vision_encoder(pixels).last_hidden_state)

    def fold(self) -> None:
        """Nothing to fold in a ViT."""


class Sam2Hiera(nn.Module):
    """The image encoder of SAM 2 and 2.1: transformers' `Sam2VisionModel`, frozen.

    A single image has no memory, which its authors mark by an embedding that is added everywhere.
    """

    def __init__(self, sam: dict[str, Any] | None) -> None:
        super().__init__()
        from transformers import Sam2VisionConfig, Sam2VisionModel

        config = Sam2VisionConfig(**(sam or {}))
        self.vision_encoder = Sam2VisionModel(config)
        self.no_memory_embedding = nn.Parameter(torch.zeros(1, 1, config.fpn_hidden_size))
        self.fine_channels = (config.fpn_hidden_size, config.fpn_hidden_size)
        self.requires_grad_(False)

    def forward(self, pixels: Tensor) -> Features:
        """Normalised pixels (b, 3, s, s) to features with maps at strides 4 and 8, all 256 wide, without gradients."""
        with torch.no_grad():
            fine4, fine8, coarse = self.vision_encoder(pixels).fpn_hidden_states
            return Features(coarse + self.no_memory_embedding.view(1, -1, 1, 1), (fine4, fine8))

    def fold(self) -> None:
        """Nothing to fold."""


def build_encoder(config: EncoderConfig, out_channels: int) -> ConvEncoder | SamViT | Sam2Hiera:
    """The encoder a configuration names.

    Raises:
        UsageError: an unknown kind.
    """
    if config.kind == "conv":
        return ConvEncoder(config.channels, config.blocks, out_channels)
    if config.kind == "sam_vit":
        return SamViT(config.sam)
    if config.kind == "sam2":
        return Sam2Hiera(config.sam)
    raise UsageError(f"perception.encoder.kind: `{config.kind}` is not an encoder; choose sam_vit, sam2 or conv")
