"""The numbers in which each family of vision-language models writes a box, to xyxy pixels of the image and back.

Every family has a convention of its own, and none says which in its answer. A number is either a distance, of the image
or of the copy that the network sees, or a cell of a grid over it. Where a grid is used, what comes back is the box up
to one step of the grid.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, floor, isfinite
from typing import NamedTuple, TypeAlias

from trackgpt.types import Box

Numbers: TypeAlias = tuple[float, ...]
"""One box as it is written: as many numbers, and in the order, as the convention has them."""

PATCHES = 32
"""Cells along each side of Kosmos-2's grid."""
SQUARE = 200
"""Steps along each side of the padded square of nano's policies, each of which is a word of their vocabulary."""


class Sizes(NamedTuple):
    """An image and the copy of it that the network sees.

    Attributes:
        size: width and height of the image in pixels.
        seen: width and height of the copy in pixels; nothing is cut off and nothing is added.
    """

    size: tuple[int, int]
    seen: tuple[int, int]


class Convention(NamedTuple):
    """How a box is written.

    Attributes:
        takes: how many numbers a box has.
        to_pixels: of finite numbers; the box may lie outside the image.
        from_pixels: of a box inside the image.
        digits: decimals that models of the convention write.
    """

    takes: int
    to_pixels: Callable[[Numbers, Sizes], Box]
    from_pixels: Callable[[Box, Sizes], Numbers]
    digits: int = 0


def _along(
    sides: Callable[[Sizes], tuple[float, float]],
    most: int | None = None,
    offset: float = 0.0,
    rows_first: bool = False,
    digits: int = 0,
) -> Convention:
    """Four numbers, each a distance along a side of the image.

    Args:
        sides: how many units the image is wide and high.
        most: numbers are integers from 0 to this one; None where they are not whole.
        offset: where in its unit an integer stands.
        rows_first: y stands in front of x.
        digits: see `Convention`.
    """

    def to_pixels(numbers: Numbers, view: Sizes) -> Box:
        y1, x1, y2, x2 = numbers if rows_first else (numbers[1], numbers[0], numbers[3], numbers[2])
        (width, height), (across, down) = view.size, sides(view)
        x1, x2 = ((x + offset) / across * width for x in (x1, x2))
        y1, y2 = ((y + offset) / down * height for y in (y1, y2))
        return x1, y1, x2, y2

    def from_pixels(box: Box, view: Sizes) -> Numbers:
        (width, height), (across, down) = view.size, sides(view)
        x1, x2 = (x / width * across - offset for x in (box[0], box[2]))
        y1, y2 = (y / height * down - offset for y in (box[1], box[3]))
        numbers = (y1, x1, y2, x2) if rows_first else (x1, y1, x2, y2)
        return numbers if most is None else tuple(min(max(floor(n + 0.5), 0), most) for n in numbers)

    return Convention(4, to_pixels, from_pixels, digits)


def _cells_to_pixels(numbers: Numbers, view: Sizes) -> Box:
    """Corners are the centres of their cells; a box of one row or column of cells is those cells to their edges."""
    (top, left), (bottom, right) = (divmod(n, PATCHES) for n in numbers)
    inset = 0.0 if top == bottom or left == right else 0.5
    width, height = (side / PATCHES for side in view.size)
    return (
        (left + inset) * width,
        (top + inset) * height,
        (right + 1 - inset) * width,
        (bottom + 1 - inset) * height,
    )


def _cells_from_pixels(box: Box, view: Sizes) -> Numbers:
    """The cells in which the first and the last pixel of the box lie."""
    x1, y1, x2, y2 = (value / view.size[i % 2] * PATCHES for i, value in enumerate(box))
    first = (floor(x1), floor(y1))
    last = (max(ceil(x2) - 1, first[0]), max(ceil(y2) - 1, first[1]))
    return tuple(float(row * PATCHES + column) for column, row in (first, last))


def _square_to_pixels(numbers: Numbers, view: Sizes) -> Box:
    """Along the square around the image, in the middle of which it lies."""
    side, (left, top) = max(view.size), _margins(view)
    x1, y1, x2, y2 = (value / SQUARE * side for value in numbers)
    return x1 - left, y1 - top, x2 - left, y2 - top


def _square_from_pixels(box: Box, view: Sizes) -> Numbers:
    side, (left, top) = max(view.size), _margins(view)
    shifted = (edge + margin for edge, margin in zip(box, (left, top, left, top), strict=True))
    return tuple(float(min(max(floor(edge / side * SQUARE + 0.5), 0), SQUARE)) for edge in shifted)


def _margins(view: Sizes) -> tuple[float, float]:
    """What a square has left of the image and above it, in pixels."""
    side = max(view.size)
    return (side - view.size[0]) / 2, (side - view.size[1]) / 2


CONVENTIONS: dict[str, Convention] = {
    "pixels": _along(lambda view: view.size),
    "seen_pixels": _along(lambda view: view.seen),
    "unit": _along(lambda view: (1.0, 1.0), digits=4),
    "thousandths": _along(lambda view: (1000.0, 1000.0), most=1000),
    "bins": _along(lambda view: (1000.0, 1000.0), most=999, offset=0.5),
    "rows_first_1024": _along(lambda view: (1024.0, 1024.0), most=1023, rows_first=True),
    "square": Convention(4, _square_to_pixels, _square_from_pixels),
    "cells": Convention(2, _cells_to_pixels, _cells_from_pixels),
}
"""By name:

    pixels            x1 y1 x2 y2 in pixels of the image
    seen_pixels       x1 y1 x2 y2 in pixels of the copy that the network sees (Qwen2.5-VL)
    unit              x1 y1 x2 y2 from 0 to 1
    thousandths       x1 y1 x2 y2 from 0 to 1000 (Qwen2-VL, Qwen3-VL, InternVL)
    bins              x1 y1 x2 y2 as 1000 bins, each meaning its middle (Florence-2)
    rows_first_1024   y1 x1 y2 x2 from 0 to 1024 (PaliGemma)
    square            x1 y1 x2 y2 from 0 to 200 along the square that an image is padded to (policy-nano)
    cells             the first and the last cell of a grid of 32 by 32, counted row by row (Kosmos-2)
"""


def placed(numbers: Numbers, convention: Convention, view: Sizes) -> Box | None:
    """The box that numbers of an answer mean, clipped to the image; None where they mean none.

    They mean none where there are too few or too many, where one is NaN or infinite, where the box is empty or its
    corners are swapped, where nothing of it is on the image, and where an edge lies more than one width or height
    outside, because such numbers were written in another convention.
    """
    if len(numbers) != convention.takes or not all(isfinite(n) for n in numbers):
        return None
    box = convention.to_pixels(numbers, view)
    sides = view.size * 2
    if not all(-side <= edge <= 2 * side for edge, side in zip(box, sides)):
        return None
    x1, y1, x2, y2 = (min(max(edge, 0.0), float(side)) for edge, side in zip(box, sides))
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None
