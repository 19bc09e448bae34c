"""Masks as run lengths, as boxes, at other sizes.

A mask is bool (height, width). Run lengths are COCO's: column by column, background first, packed into printable
characters by pycocotools; the text alone, without the size, is what the run log keeps. Boxes are xyxy float32 pixels
with edges: a one-pixel mask at the origin has the box 0, 0, 1, 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from trackgpt.errors import InputError

MAX_PIXELS = 2**26
"""Of a mask from a file of anybody's; a frame of 8K has half as many."""


def is_size(*size: object) -> bool:
    """Whether values from a file are height and width of a mask of 1 to `MAX_PIXELS` pixels."""
    if len(size) != 2 or not all(type(side) is int and 1 <= side <= MAX_PIXELS for side in size):
        return False
    return math.prod(size) <= MAX_PIXELS  # type: ignore[arg-type]


def encode_rle(mask: np.ndarray) -> str:
    """COCO's compressed run lengths of a mask.

    Args:
        mask: bool (height, width).

    Returns:
        ASCII text, the `counts` of a COCO segmentation; equal masks give equal text.
    """
    from pycocotools import mask as coco

    counts: bytes = coco.frPyObjects({"counts": _runs(mask), "size": mask.shape}, *mask.shape)["counts"]
    return counts.decode("ascii")


def _runs(mask: np.ndarray) -> list[int]:
    """Lengths of runs column by column, background first: found among the columns that hold any foreground."""
    height, width = mask.shape
    held = np.flatnonzero(mask.any(axis=0))
    if not len(held):
        return [height * width]
    first, last = int(held[0]), int(held[-1])
    columns = np.zeros((last - first + 1) * height + 2, bool)  # background at both ends
    columns[1:-1] = mask[:, first : last + 1].T.ravel()
    turns = np.flatnonzero(columns[1:] != columns[:-1]) + first * height
    runs = np.diff(turns, prepend=0, append=height * width).tolist()
    return runs if runs[-1] else runs[:-1]


def decode_rle(counts: str, height: int, width: int) -> np.ndarray:
    """The mask of COCO's compressed run lengths.

    Args:
        counts: ASCII text as `encode_rle` and COCO files hold it.
        height: rows of the mask.
        width: columns of the mask.

    Returns:
        bool (height, width).

    Raises:
        InputError: the text is no run-length code, or covers another number of pixels.
    """
    runs = check_rle(counts, height, width)
    # pycocotools' own decoder warns of deprecation under numpy 2, and the checked runs are all it would read.
    return mask_of_runs(runs, height, width)


def mask_of_runs(runs: np.ndarray, height: int, width: int) -> np.ndarray:
    """The mask, bool (height, width), of lengths of runs, int (runs,), column by column, background first.

    Their sum must be height * width.
    """
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height)
    return np.ascontiguousarray(columns.T)


def area_of_rle(counts: str, height: int, width: int) -> int:
    """Foreground pixels of COCO's compressed run lengths, without decoding the mask.

    Raises:
        InputError: as `decode_rle`.
    """
    return int(check_rle(counts, height, width)[1::2].sum())


def iou_of_rles(counts: Sequence[str], height: int, width: int) -> np.ndarray:
    """IoU of every two masks of a frame, float64 (masks, masks), from their compressed run lengths."""
    from pycocotools import mask as coco

    runs = [{"size": [height, width], "counts": text.encode("ascii")} for text in counts]
    return np.asarray(coco.iou(runs, runs, [0] * len(runs)), np.float64).reshape(len(runs), len(runs))


def check_rle(counts: str, height: int, width: int) -> np.ndarray:
    """The run lengths behind the text; refused unless they cover the mask exactly.

    pycocotools trusts its input: for text that is cut short it returns memory that it never wrote. Files may come from
    untrusted sources.

    The code, after pycocotools: a number is a little-endian string of 5-bit groups, each stored as one character from
    code 48 on; bit 5 of a group says that another follows, bit 4 of the last one is the sign. From the fourth number
    on, the difference to the number two places before is stored.

    Returns:
        int64 (runs,), background first.

    Raises:
        InputError: the text is no run-length code, or covers another number of pixels.
    """
    shown = f"run-length text {counts[:20]!r}"
    groups = np.frombuffer(counts.encode("ascii", "replace"), np.uint8).astype(np.int64) - 48
    if len(groups) == 0 or groups.min() < 0 or groups.max() > 63 or groups[-1] & 32:
        raise InputError(f"{shown} is damaged; wanted COCO's compressed counts")
    ends = np.flatnonzero((groups & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(groups)) - np.repeat(starts, ends - starts + 1)
    if place.max() > 6:
        raise InputError(f"{shown} holds a number beyond 32 bits; wanted COCO's compressed counts")
    numbers = np.add.reduceat((groups & 31) << (5 * place), starts)
    numbers -= np.where(groups[ends] & 16, np.int64(1) << (5 * (place[ends] + 1)), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    if not covers(numbers, height * width):
        found = sum(numbers.tolist())
        raise InputError(f"{shown} covers {found} pixels; wanted {height} x {width} = {height * width}")
    return numbers


def covers(lengths: np.ndarray, pixels: int) -> bool:
    """Whether lengths of runs, int64 (runs,), are sound and cover so many pixels; huge ones do not add up unnoticed."""
    return bool(len(lengths) and lengths.min() >= 0 and lengths.max() <= pixels and lengths.sum() == pixels)


def box_of(mask: np.ndarray) -> np.ndarray:
    """The tight box of a mask.

    Args:
        mask: bool (height, width).

    Returns:
        float32 (4,) xyxy with edges, NaN when the mask is empty.
    """
    return box_and_area(mask)[0]


def box_and_area(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The tight box of a mask (see `box_of`) and how many pixels it covers, of which only rows in the box are read."""
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows) == 0:
        return np.full(4, np.nan, np.float32), 0
    held = mask[rows[0] : rows[-1] + 1]
    columns = np.flatnonzero(held.any(axis=0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
    return box, int(np.count_nonzero(held))


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """The tight boxes, float32 (k, 4), of masks (k, height, width); see `box_of`."""
    return np.stack([box_of(mask) for mask in masks]) if len(masks) else np.zeros((0, 4), np.float32)


def union(masks: np.ndarray) -> np.ndarray:
    """What any of the masks covers.

    Args:
        masks: bool (k, height, width); k may be 0.

    Returns:
        bool (height, width).
    """
    covered: np.ndarray = np.any(masks, axis=0)
    return covered


def resize(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """The mask at another size: each new pixel takes the old one under its centre, so that edges stay where they were.

    Args:
        mask: bool (old height, old width).
        height: new rows.
        width: new columns.

    Returns:
        bool (height, width).
    """
    if mask.shape == (height, width):
        return mask.copy()
    old = np.ascontiguousarray(mask, dtype=np.uint8)
    return cv2.resize(old, (width, height), interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)
