"""Mask result files: the one loop in which mask kits run a tracker, and the PNGs it writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from eval.kit import Follow
from trackgpt.errors import InputError
from trackgpt.types import Prompt


def track_masks(
    follow: Follow, said: Mapping[str, str], frames: Iterable[np.ndarray], files: Mapping[str, Sequence[Path]]
) -> dict[str, list[float]]:
    """Track several units from the first frame on, and write each unit's mask, the union of its targets.

    Args:
        follow: runs the tracker.
        said: the instruction of each unit.
        frames: uint8 RGB (height, width, 3), in order.
        files: where each unit's masks go, one PNG per frame.

    Returns:
        By unit: the lowest score of each frame's targets, as diagnostics record it; NaN where there was none.

    Raises:
        InputError: the tracker gives boxes without masks.
        OutputError: OUT02.
    """
    scores: dict[str, list[float]] = {unit: [] for unit in said}
    prompts = {unit: [Prompt(text)] for unit, text in said.items()}
    for t, predictions in enumerate(follow(prompts, frames)):
        for unit, prediction in zip(said, predictions, strict=True):
            if prediction.masks is None:
                raise InputError(f"{unit}: the tracker gives boxes and no masks; this kit scores masks, use a box kit")
            scores[unit].append(float(prediction.scores.min()) if len(prediction.scores) else np.nan)
            write_mask(files[unit][t], prediction.masks.any(axis=0))
    return scores


def write_mask(file: Path, mask: np.ndarray) -> None:
    """Write a bool mask (height, width) as a PNG of 0 and 255, with its folder.

    Raises:
        OutputError: OUT02.
    """
    from PIL import Image

    from trackgpt.files import replacing, writing

    with writing(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as part:
        Image.fromarray(mask.astype(np.uint8) * 255).save(part, format="PNG", compress_level=1)
