"""Fixed codes for prompts: what a query means before any brain has learned to write one.

SAM learned its decoder from point and box prompts, encoded as fixed random Fourier features. The foundation
stage does the same for language queries: a target's code is a fixed function of its box, category and colour. The
decoder learns to read codes while the brain, in another process, learns to write them; neither waits for the other.

Code layout (128): 48 Fourier features of the centre, 16 of the size, 40 for the category, 24 for the colour.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trackgpt.synthtrack.catalog import CATEGORIES, COLOURS

WIDTH = 128
PLACE, EXTENT, CATEGORY, COLOUR = slice(0, 48), slice(48, 64), slice(64, 104), slice(104, 128)
COLOUR_NAMES = (*COLOURS, "natural")
CATEGORY_NAMES = tuple(category.name for category in CATEGORIES)


class Codes:
    """Codes of targets; the tables are drawn once from a fixed seed and never change."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(20231)
        self.frequencies = torch.randn(2, 24, generator=generator) * 0.7
        self.category = _spread(len(CATEGORY_NAMES), 40, generator)
        self.colour = _spread(len(COLOUR_NAMES), 24, generator)

    def referring(self, boxes: Tensor, category: Tensor, colour: Tensor) -> Tensor:
        """Codes (n, 128) of boxes (n, 4), xyxy in [0, 1] of the square, with category and colour indices (n,)."""
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        phase = 2 * math.pi * ((2 * centre - 1) @ self.frequencies)
        place = torch.cat([phase.sin(), phase.cos()], dim=1)
        side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0.01).log()
        angle = side.unsqueeze(-1) * torch.tensor([0.5, 1.0, 1.5, 2.0])
        extent = torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(1)
        return torch.cat([place, extent, self.category[category], self.colour[colour]], dim=1)

    def align(self, positional: Tensor) -> None:
        """Put the codes' frequencies first among those of the image grid's encoding (2, n), in place.

        Codes and grid then speak of places in the same features, as SAM's point prompts and its grid do.
        """
        with torch.no_grad():
            positional[:, : self.frequencies.shape[1]] = self.frequencies

    def purport(self, category: Tensor, colour: Tensor) -> Tensor:
        """What the target is, not where: (n, 128), one where nothing is said, so that it multiplies neutrally."""
        code = torch.ones(len(category), WIDTH)
        code[:, CATEGORY] += self.category[category]
        code[:, COLOUR] += self.colour[colour]
        return code


def _spread(count: int, width: int, generator: torch.Generator) -> Tensor:
    vectors = torch.randn(count, width, generator=generator)
    return 0.7 * math.sqrt(width) * vectors / vectors.norm(dim=1, keepdim=True)
