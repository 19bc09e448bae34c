"""Masks at the frame's size, made where the logits are, and brought to the processor as one bit per pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trackgpt.geometry.letterbox import Letterbox

BITS = (128, 64, 32, 16, 8, 4, 2, 1)
"""Of a byte, in the order of numpy's `unpackbits`."""


@dataclass(frozen=True)
class ComingMasks:
    """Masks of a frame that a device may still be computing, and tensors sent with them; `land` waits for all.

    On the processor itself there is nothing to wait for, and masks are computed where they can be above the threshold
    alone (see `Letterbox.crop_above`).

    Attributes:
        box: how the frame lies in the square.
        threshold: what counts as foreground lies above it.
        made: logits (k, s, s) on the processor, bits as of `packed` from elsewhere; then what comes with them.
        event: of the device that has yet to copy them, or None.
    """

    box: Letterbox
    threshold: float
    made: tuple[Tensor, ...]
    event: torch.cuda.Event | None

    @classmethod
    def of(cls, logits: Tensor, box: Letterbox, threshold: float, *others: Tensor) -> ComingMasks:
        """Enqueue masks of logits (k, s, s), and the copy of them and of other tensors, without synchronising."""
        if logits.device.type == "cpu":
            return cls(box, threshold, (logits.float(), *others), None)
        sent = (bits_above(logits, box, threshold), *others)
        if logits.device.type != "cuda":
            return cls(box, threshold, tuple(tensor.cpu() for tensor in sent), None)
        arriving = tuple(tensor.to("cpu", non_blocking=True) for tensor in sent)  # into pinned memory
        event = torch.cuda.Event()
        event.record()
        return cls(box, threshold, arriving, event)

    def land(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """Wait for the masks, bool (k, H, W) with H and W of `box.source`, and for what was sent with them."""
        if self.event is not None:
            self.event.synchronize()
        made, *others = (tensor.numpy() for tensor in self.made)
        if made.dtype == np.uint8:
            return unpacked(made, self.box.source), others
        return self.box.crop_above(made, self.threshold), others


def bits_above(logits: Tensor, box: Letterbox, threshold: float) -> Tensor:
    """`Letterbox.crop_above` on the device of the logits, packed there; a mask of 1280 x 720 takes 113 KiB.

    Sums are rounded in another order than there, so a pixel whose logit is the threshold within a part in a million
    may fall on the other side.

    Args:
        logits: (k, s, s) on any device, of any floating dtype, covering the whole square.
        box: how the frame lies in the square.
        threshold: what counts as foreground lies above it.

    Returns:
        uint8 (k, ceil(H W / 8)), see `packed`; H and W of `box.source`.
    """
    x, y = (torch.from_numpy(places).to(logits.device) for places in box.places(logits.shape[-1]))
    wide = _interpolated(box.cut(logits.float()), y, 1)
    return packed(_interpolated(wide, x, 2) > threshold)


def packed(masks: Tensor) -> Tensor:
    """Bool (k, h, w) as uint8 (k, ceil(h w / 8)), the first pixel in the highest bit."""
    flat = masks.flatten(1)
    whole = F.pad(flat, (0, -flat.shape[1] % len(BITS))).unflatten(1, (-1, len(BITS)))
    return (whole * torch.tensor(BITS, dtype=torch.uint8, device=masks.device)).sum(-1, dtype=torch.uint8)


def unpacked(bits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What `packed` made of masks of a size (height, width): bool (k, height, width)."""
    height, width = size
    flat = np.unpackbits(bits, axis=1, count=height * width)
    return flat.view(bool).reshape(-1, height, width)


def _interpolated(maps: Tensor, places: Tensor, dim: int) -> Tensor:
    """Values of maps (k, h, w) between its rows (dim 1) or columns (dim 2); those at the edge go on beyond it."""
    last = maps.shape[dim] - 1
    at = places.clamp(0, last)
    low = at.floor().long()
    share = (at - low).view((-1, 1) if dim == 1 else (1, -1))
    return maps.index_select(dim, low).lerp(maps.index_select(dim, (low + 1).clamp(max=last)), share)
