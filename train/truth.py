"""True masks, at the resolution at which the losses compare them with what was decoded.

On the decoder's grid (256 x 256 for SAM) one block holds the masks of a whole batch. At the frames' own resolution, as
LISA does it, a block holds those of one sample, for sizes differ, and logits are brought there: the grid to the square,
the padding cut off, the rest to the frame, bilinear both times, in float32 (LISA, `postprocess_masks`).

The price of the frames' resolution, a mask of 1280 x 720: 0.9 MiB in the sample instead of 64 KiB, and 11.4 MiB that
the loss keeps for the backward pass instead of 0.8 MiB (both measured); on a CPU core also seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trackgpt.geometry.letterbox import Letterbox


@dataclass(frozen=True)
class TrueMasks:
    """Masks of targets of one size, over time.

    Attributes:
        masks, ignored: bool (n, t, h, w), False beyond a target's end.
        box: how their frames lie in the square; None where masks are on the decoder's grid.
    """

    masks: Tensor
    ignored: Tensor
    box: Letterbox | None = None

    def to(self, device: torch.device) -> TrueMasks:
        """The same on a device."""
        return TrueMasks(self.masks.to(device), self.ignored.to(device), self.box)

    def at(self, logits: Tensor) -> Tensor:
        """Logits (m, g, g) of the decoder's grid where these masks are: (m, h, w)."""
        return logits if self.box is None else enlarged(logits, self.box)


def enlarged(logits: Tensor, box: Letterbox) -> Tensor:
    """Logits (m, g, g) of a whole square padded below and to the right, to the frame: float32 (m, H, W)."""
    maps = logits.float().unsqueeze(1)
    if len(maps) == 0:
        return maps.sum() + maps.new_zeros(0, *box.source)  # interpolation refuses an empty batch
    square = F.interpolate(maps, (box.side, box.side), mode="bilinear", align_corners=False)
    frame = square[..., : box.height, : box.width]
    return F.interpolate(frame, box.source, mode="bilinear", align_corners=False).squeeze(1)
