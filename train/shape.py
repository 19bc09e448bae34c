"""The size of a training sample."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """The size of a sample: square side in pixels, frames a clip is unrolled over, targets or instructions a clip."""

    side: int = 128
    frames: int = 3
    targets: int = 2
