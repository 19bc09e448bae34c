"""Masks at the frame's size, made where the logits are, and brought to the processor as one bit a pixel."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trackgpt.geometry.letterbox import Letterbox

BITS = (128, 64, 32, 16, 8, 4, 2, 1)
"""Of a byte, in the order of numpy's `unpackbits`."""


def masks_above(logits: Tensor, box: Letterbox, threshold: float) -> np.ndarray:
    """`Letterbox.crop_above` on the device of the logits; a mask of 1280 x 720 leaves it in 113 KiB.

    Sums are rounded in another order than there, so a pixel whose logit is the threshold within a part in a million
    may fall on the other side.

    Args:
        logits: (k, s, s) on any device, of any floating dtype, covering the whole square.
        box: how the frame lies in the square.
        threshold: what counts as foreground lies above it.

    Returns:
        bool (k, H, W), H and W of `box.source`.
    """
    x, y = (torch.from_numpy(places).to(logits.device) for places in box.places(logits.shape[-1]))
    wide = _interpolated(box.cut(logits.float()), y, 1)
    return unpacked(packed(_interpolated(wide, x, 2) > threshold), box.source)


def packed(masks: Tensor) -> Tensor:
    """Bool (k, h, w) as uint8 (k, ceil(h w / 8)), the first pixel in the highest bit."""
    flat = masks.flatten(1)
    whole = F.pad(flat, (0, -flat.shape[1] % len(BITS))).unflatten(1, (-1, len(BITS)))
    return (whole * torch.tensor(BITS, dtype=torch.uint8, device=masks.device)).sum(-1, dtype=torch.uint8)


def unpacked(bits: Tensor, size: tuple[int, int]) -> np.ndarray:
    """What `packed` made of masks of a size (height, width): bool (k, height, width)."""
    height, width = size
    flat = np.unpackbits(bits.cpu().numpy(), axis=1, count=height * width)
    return flat.view(bool).reshape(-1, height, width)


def _interpolated(maps: Tensor, places: Tensor, dim: int) -> Tensor:
    """Values of maps (k, h, w) between its rows (dim 1) or columns (dim 2); those at the edge go on beyond it."""
    last = maps.shape[dim] - 1
    at = places.clamp(0, last)
    low = at.floor().long()
    share = (at - low).view((-1, 1) if dim == 1 else (1, -1))
    return maps.index_select(dim, low).lerp(maps.index_select(dim, (low + 1).clamp(max=last)), share)
