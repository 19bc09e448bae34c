"""What a person points at: made regular, refused where it cannot be meant; and the best point to point at in a mask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from trackgpt.errors import UsageError
from trackgpt.types import Box, Prompt, VisualPrompt


def visual_prompts(shown: Any) -> tuple[VisualPrompt, ...]:
    """Visual prompts with plain numbers, from one or a list of them; what does not depend on a frame is checked.

    Raises:
        UsageError: one shows nothing; a box or point is none; a mask is no bool array (height, width), or is empty.
    """
    given = [shown] if isinstance(shown, VisualPrompt) else shown
    if not isinstance(given, list | tuple) or not all(isinstance(each, VisualPrompt) for each in given):
        raise UsageError(f"visual {shown!r:.60}: wanted a VisualPrompt, or a list of them, one per target")
    return tuple(_regular(each) for each in given)


def _regular(shown: VisualPrompt) -> VisualPrompt:
    found = VisualPrompt(_box(shown.box), _points(shown.points), _mask(shown.mask))
    if found.box is None and found.mask is None and not found.points:
        raise UsageError("a visual prompt shows nothing; wanted a box, points or a mask of the target")
    return found


def _box(box: Any) -> Box | None:
    if box is None:
        return None
    x1, y1, x2, y2 = _numbers(box, 4)
    if not (math.isfinite(x1 + y1 + x2 + y2) and x1 < x2 and y1 < y2):
        raise UsageError(f"box {box!r:.60}: wanted x1, y1, x2, y2 in pixels with x1 < x2 and y1 < y2")
    return x1, y1, x2, y2


def _points(points: Any) -> tuple[tuple[float, float, int], ...]:
    wanted = "wanted a list of x, y in pixels and 1 (on the target) or 0 (not on it)"
    if not isinstance(points, Sequence | np.ndarray) or isinstance(points, str):
        raise UsageError(f"points {points!r:.60}: {wanted}")
    found = []
    for point in points:
        x, y, side = _numbers(point, 3)
        if not math.isfinite(x + y) or side not in (0, 1):
            raise UsageError(f"point {point!r:.60}: {wanted}")
        found.append((x, y, int(side)))
    return tuple(found)


def _mask(mask: Any) -> np.ndarray | None:
    if mask is None:
        return None
    if not (isinstance(mask, np.ndarray) and mask.dtype == bool and mask.ndim == 2):
        raise UsageError("mask: wanted a bool array (height, width)")
    if not mask.any():
        raise UsageError("mask: is empty; wanted True on the target, on one pixel at least")
    return mask


def _numbers(values: Any, count: int) -> tuple[float, ...]:
    """So many numbers, NaN where they are none."""
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        numbers = ()
    return numbers if len(numbers) == count else (math.nan,) * count


def refuse_misplaced(prompt: Prompt, size: Sequence[int]) -> None:
    """Refuse what lies outside of the frame that it is shown on.

    Args:
        prompt: what is shown.
        size: height and width of the frame, in pixels.

    Raises:
        UsageError: a box, shown or chosen, does not touch the frame or is not there, a point lies outside, or a mask
            has another size.
    """
    for k, shown in enumerate(prompt.visual):
        if problem := _misplaced(shown, *size):
            who = f"target {prompt.ids[k]}: " if prompt.ids else ""
            raise UsageError(f"{who}{problem}, which is {size[1]} pixels wide and {size[0]} high")
    for number in prompt.chosen:
        if not 1 <= number <= len(prompt.offered):
            raise UsageError(f"chosen {number}: wanted a number from 1 to {len(prompt.offered)}")
        if problem := _misplaced(VisualPrompt(prompt.offered[number - 1]), *size):
            raise UsageError(f"chosen {number}: {problem}, which is {size[1]} pixels wide and {size[0]} high")


def _misplaced(shown: VisualPrompt, height: int, width: int) -> str:
    """What is wrong, up to the size of the frame; empty where nothing is."""
    if shown.box is not None:
        x1, y1, x2, y2 = shown.box
        if not (x1 < width and y1 < height and x2 > 0 and y2 > 0):
            return f"the box from {x1:g},{y1:g} to {x2:g},{y2:g} lies outside of the frame"
    for x, y, _ in shown.points:
        if not (0 <= x < width and 0 <= y < height):
            return f"the point {x:g},{y:g} lies outside of the frame"
    if shown.mask is not None and shown.mask.shape != (height, width):
        high, wide = shown.mask.shape
        return f"the mask is {wide} pixels wide and {high} high; wanted the size of the frame"
    return ""


def deepest_point(mask: np.ndarray) -> tuple[float, float]:
    """The centre x, y of the pixel that lies farthest inside a mask, bool (height, width), of equal ones the first.

    The edges of the frame count as edges of the mask.
    """
    import cv2

    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(x) + 0.5, float(y) + 0.5
