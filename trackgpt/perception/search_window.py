"""The part of a frame that a tracker looks at: where it lies, what the network sees of it, and its mask in the frame.

Boxes are xyxy pixels of the frame, with edges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from trackgpt.types import Box

SMALLEST = 48
"""Side of the smallest window, pixels: below it there is nothing to see but interpolation."""
TRIMMED = 0.005
"""Share of a mask's pixels that is left out at each side of its extent: a stray pixel must not move the window."""
FASTEST = (0.93, 1.08)
"""How much the size that a window follows may change from frame to frame."""


@dataclass(frozen=True)
class SearchWindow:
    """A rectangle of a frame that the network sees, resized to a square: x, y, width and height, whole pixels."""

    x: int
    y: int
    width: int
    height: int

    def cut(self, image: np.ndarray, side: int) -> np.ndarray:
        """The window of an image or a mask (height, width, ...), resized to (side, side, ...)."""
        how = cv2.INTER_AREA if max(self.width, self.height) > side else cv2.INTER_LINEAR
        part = image[self.y : self.y + self.height, self.x : self.x + self.width]
        return cv2.resize(part, (side, side), interpolation=how)

    def paste(self, logits: np.ndarray, height: int, width: int) -> np.ndarray:
        """Logits of the window, float32 (s, s), as the mask of a frame, bool (height, width)."""
        mask = np.zeros((height, width), bool)
        large = cv2.resize(logits, (self.width, self.height), interpolation=cv2.INTER_LINEAR)
        np.greater(large, 0, out=mask[self.y : self.y + self.height, self.x : self.x + self.width])
        return mask

    def seen_from(self, other: SearchWindow) -> tuple[float, float, float, float]:
        """x, y, width and height in units of another window."""
        return (
            (self.x - other.x) / other.width,
            (self.y - other.y) / other.height,
            self.width / other.width,
            self.height / other.height,
        )

    def moved(self, logits: np.ndarray, other: SearchWindow, outside: float) -> np.ndarray:
        """Logits of this window, float32 (s, s), as another one shows them; `outside` where this one shows nothing."""
        side = logits.shape[0]
        x, y, width, height = other.seen_from(self)
        move = np.array([[width, 0, x * side], [0, height, y * side]])
        move[:, 2] += 0.5 * (move[:, 0] + move[:, 1]) - 0.5  # cells are where their middles are
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(logits, move, (side, side), flags=how, borderValue=outside)


@dataclass(frozen=True)
class Gaze:
    """Where to look for a target next.

    Attributes:
        x, y: the middle of the target where it was last seen, pixels of the frame.
        size: its size, pixels.
        dx, dy: how it moved from the frame before, 0 where it was not seen.
    """

    x: float
    y: float
    size: float
    dx: float = 0.0
    dy: float = 0.0

    @classmethod
    def at(cls, box: Box) -> Gaze:
        """At a box."""
        x1, y1, x2, y2 = box
        return cls((x1 + x2) / 2, (y1 + y2) / 2, size_of(box))

    def following(self, box: Box | None, most: float) -> Gaze:
        """The next one: its size follows slowly, and grows up to `most` while nothing is seen."""
        if box is None:
            return Gaze(self.x, self.y, min(1.1 * self.size, most))
        size = self.size * float(np.clip(size_of(box) / self.size, *FASTEST))
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        return Gaze(x, y, size, x - self.x, y - self.y)

    def window(
        self, zoom: float, height: int, width: int, smallest: float = SMALLEST, lead: float = 0.0
    ) -> SearchWindow:
        """The window where it is expected, inside a frame.

        Args:
            zoom: its side in sizes of the target.
            height, width: of the frame.
            smallest: least side, pixels.
            lead: share of the last motion that is expected again, of half a size at the most.
        """
        side = round(max(smallest, zoom * self.size))
        w, h = min(side, width), min(side, height)
        ahead = np.clip([lead * self.dx, lead * self.dy], -self.size / 2, self.size / 2)
        x = int(np.clip(self.x + ahead[0] - w / 2, 0, width - w))
        y = int(np.clip(self.y + ahead[1] - h / 2, 0, height - h))
        return SearchWindow(x, y, w, h)


@dataclass(frozen=True)
class SquareCrop:
    """A square around a box that may reach beyond the frame, as trackers of the Siamese line look at it.

    Its side is `factor` times the root of the box's area, in whole pixels; what lies outside of the frame is black.

    Attributes:
        x, y: of its upper left corner, whole pixels of the frame; may be negative.
        side: whole pixels, at least 1.
    """

    x: int
    y: int
    side: int

    @classmethod
    def around(cls, box: Box, factor: float) -> SquareCrop:
        """The crop of a box."""
        x1, y1, x2, y2 = box
        side = max(1, math.ceil(factor * math.sqrt(max(x2 - x1, 1e-3) * max(y2 - y1, 1e-3))))
        return cls(round((x1 + x2 - side) / 2), round((y1 + y2 - side) / 2), side)

    def cut(self, image: np.ndarray, side: int) -> np.ndarray:
        """The crop of an image (height, width, 3), resized to (side, side, 3)."""
        height, width = image.shape[:2]
        left, top = np.clip(self.x, 0, width), np.clip(self.y, 0, height)
        right, bottom = np.clip(self.x + self.side, 0, width), np.clip(self.y + self.side, 0, height)
        square = np.zeros((self.side, self.side, 3), image.dtype)
        square[top - self.y : bottom - self.y, left - self.x : right - self.x] = image[top:bottom, left:right]
        return cv2.resize(square, (side, side), interpolation=cv2.INTER_LINEAR)

    def inside(self, box: Box) -> Box:
        """A box of the frame in units of the crop, xyxy."""
        x1, y1, x2, y2 = box
        return (
            (x1 - self.x) / self.side,
            (y1 - self.y) / self.side,
            (x2 - self.x) / self.side,
            (y2 - self.y) / self.side,
        )

    def outside(self, box: Box) -> Box:
        """A box in units of the crop in pixels of the frame, xyxy."""
        x1, y1, x2, y2 = (self.side * value for value in box)
        return self.x + x1, self.y + y1, self.x + x2, self.y + y2


def size_of(box: Box) -> float:
    """The size of a box that a window is measured by, pixels: long ones count as larger than their area."""
    width, height = box[2] - box[0], box[3] - box[1]
    return max(math.sqrt(width * height), 0.75 * max(width, height), 1.0)


def extent(mask: np.ndarray) -> Box | None:
    """The box of a mask, bool (height, width), without its outermost pixels (see `TRIMMED`); None where it is empty."""
    found = []
    for counts in (mask.sum(0), mask.sum(1)):
        total = int(counts.sum())
        if not total:
            return None
        part = np.cumsum(counts) / total
        found.append((float(np.searchsorted(part, TRIMMED)), float(np.searchsorted(part, 1 - TRIMMED) + 1)))
    (x1, x2), (y1, y2) = found
    return x1, y1, x2, y2


def without_strays(logits: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Logits, float32 (s, s), without the pieces that lie apart from the last mask's logits.

    The piece that overlaps the last mask most always stays; where none does, as after an absence, the largest one.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats((logits > 0).astype(np.uint8), connectivity=8)
    if count <= 2:
        return logits
    side = logits.shape[0]
    near = cv2.resize(last, (side, side), interpolation=cv2.INTER_LINEAR) > 0
    reach = 2 * (side // 24) + 1
    near = cv2.dilate(near.astype(np.uint8), np.ones((reach, reach), np.uint8))
    shared = np.bincount(labels.ravel(), weights=near.ravel(), minlength=count)[1:]
    areas = stats[1:, cv2.CC_STAT_AREA]
    keep = shared >= 0.25 * areas
    keep[int(np.argmax(shared if shared.any() else areas))] = True
    return np.where(np.concatenate([[False], ~keep])[labels], np.float32(-10), logits)
