"""Fit a frame of any shape into a square, and bring masks back.

The slow model and the fast model both look at a square; only this file knows how a frame lies in it. Pixel (x, y)
covers the area from its edge (x, y) to (x + 1, y + 1), so an edge at `x` in the frame is at `left + x * width / w` in
the square, and the same rule moves masks and pixel centres.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from trackgpt.errors import InputError

MEAN_GREY = (124, 116, 104)  # the mean ImageNet colour, RGB: after normalisation the padding is close to zero
STRIP = 1 << 14  # pixels; arrays of several hundred KiB are fetched from the system anew each time, page by page


@dataclass(frozen=True)
class Letterbox:
    """How one size of frame is scaled and padded to a square.

    Attributes:
        source: (height, width) of the original frame, pixels.
        side: side of the square, pixels.
        scale: square pixels per frame pixel, `side / max(source)`. The two axes may differ from it by the rounding to
            whole pixels; the methods use what was really done.
        top: padding above the frame, square pixels.
        left: padding left of the frame, square pixels.
        height: rows of the square that the frame fills, at least 1.
        width: columns of the square that the frame fills, at least 1.
    """

    source: tuple[int, int]
    side: int
    scale: float
    top: int
    left: int
    height: int
    width: int

    def apply(self, frame: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Scale and pad a frame.

        Args:
            frame: uint8 (H, W, 3) RGB, of size `source`.
            out: uint8 (side, side, 3), where the square is written; a new array by default.

        Returns:
            uint8 (side, side, 3) RGB, padded with MEAN_GREY.

        Raises:
            InputError: the frame has another size than `source`.
        """
        if frame.shape != (*self.source, 3):
            raise InputError(
                f"letterbox: got a frame of shape {frame.shape}, wanted {(*self.source, 3)}; "
                "frames of one video must share a size: fit a new letterbox or resize them"
            )
        square = np.empty((self.side, self.side, 3), np.uint8) if out is None else out
        bottom, right = self.top + self.height, self.left + self.width
        grey = _grey(self.side)  # copying it is many times as fast as filling with a colour
        square[: self.top], square[bottom:] = grey[: self.top], grey[bottom:]
        square[self.top : bottom, : self.left] = grey[self.top : bottom, : self.left]
        square[self.top : bottom, right:] = grey[self.top : bottom, right:]
        square[self.top : bottom, self.left : right] = scaled(frame, self.height, self.width)
        return square

    def crop_mask(self, logits: np.ndarray) -> np.ndarray:
        """Cut the padding off masks of the square and scale them to the frame, in one bilinear step.

        The masks may be of any resolution (a decoder's are usually a quarter of `side`); the padding need not end on
        one of their pixels.

        Args:
            logits: float32 (K, s, s), covering the whole square.

        Returns:
            float32 (K, H, W), H and W of `source`.
        """
        height, width = self.source
        masks = np.empty((len(logits), height, width), np.float32)
        x, y = self.places(logits.shape[-1])
        for mask, out in zip(self.cut(logits), masks, strict=True):
            _sample(mask, x, y, out)
        return masks

    def crop_above(self, logits: np.ndarray, threshold: float) -> np.ndarray:
        """`crop_mask(logits) > threshold`, bit for bit, computed only where it can be true.

        Args:
            logits: float32 (K, s, s), covering the whole square.
            threshold: what counts as foreground lies above it.

        Returns:
            bool (K, H, W), H and W of `source`.
        """
        height, width = self.source
        masks = np.zeros((len(logits), height, width), bool)
        x, y = self.places(logits.shape[-1])
        for mask, out in zip(self.cut(logits), masks, strict=True):
            # A sample is a mean of four neighbours: it lies above the threshold only if one of them does, give or take
            # its rounding, which a part in a million of the largest value covers. What cannot be compared may be above.
            maybe = ~(mask <= threshold - 1e-6 * np.abs(mask).max())
            columns, rows = _reach(maybe.any(axis=0), x), _reach(maybe.any(axis=1), y)
            for strip in _strips(rows, columns):
                near = np.empty((strip.stop - strip.start, columns.stop - columns.start), np.float32)
                np.greater(_sample(mask, x[columns], y[strip], near), threshold, out=out[strip, columns])
        return masks

    def cut(self, logits: np.ndarray) -> np.ndarray:
        """The whole mask pixels that hold some of the frame: what the model thinks of the padding must not bleed in."""
        zoom = logits.shape[-1] / self.side
        x0, y0 = math.floor(self.left * zoom), math.floor(self.top * zoom)
        x1, y1 = math.ceil((self.left + self.width) * zoom), math.ceil((self.top + self.height) * zoom)
        return logits[:, y0:y1, x0:x1]

    @lru_cache(maxsize=8)  # noqa: B019 - a letterbox is a few numbers
    def places(self, s: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the centres of the frame's columns and rows lie in `cut` of masks of side s: float32 (W,) and (H,).

        Rounded as OpenCV's affine warp rounds them on x86-64: once for a column, after each operation for a row.
        """
        zoom = s / self.side
        height, width = self.source
        step_x, step_y = self.width / width * zoom, self.height / height * zoom  # mask pixels per frame pixel
        # Centre to centre: pixel i has its centre at i + 0.5 on both sides.
        first_x = self.left * zoom % 1 + (step_x - 1) / 2
        first_y = self.top * zoom % 1 + (step_y - 1) / 2
        x = np.arange(width) * np.float64(np.float32(step_x)) + np.float64(np.float32(first_x))
        y = np.arange(height, dtype=np.float32) * np.float32(step_y) + np.float32(first_y)
        return x.astype(np.float32), y


def scaled(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """A frame at another size: bilinear, over all pixels that a new one covers where it shrinks.

    It is what segment-anything does to its images, by Pillow, within a level or two of 255, and on one thread twice as
    fast as OpenCV's mean over areas.

    Args:
        frame: uint8 (H, W, 3).
        height: rows wanted.
        width: columns wanted.

    Returns:
        uint8 (height, width, 3).
    """
    pixels = torch.from_numpy(np.require(frame, requirements=["C", "W"])).permute(2, 0, 1).unsqueeze(0)
    small = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    return small[0].permute(1, 2, 0).numpy()


def _sample(mask: np.ndarray, x: np.ndarray, y: np.ndarray, out: np.ndarray) -> np.ndarray:
    """A mask at the places x (w,) by y (h,), bilinear, the border continued: into `out`, float32 (h, w)."""
    across, down = np.empty_like(out), np.empty_like(out)
    across[:], down[:] = x, y[:, None]
    return cv2.remap(mask, across, down, cv2.INTER_LINEAR, dst=out, borderMode=cv2.BORDER_REPLICATE)


def _reach(wanted: np.ndarray, places: np.ndarray) -> slice:
    """The ascending places whose sample has a wanted mask pixel, of bool (n,), among its neighbours."""
    pixels = np.flatnonzero(wanted)
    if not len(pixels):
        return slice(0, 0)
    # The outermost pixels also stand for what lies beyond them.
    low = -np.inf if pixels[0] == 0 else pixels[0] - 1
    high = np.inf if pixels[-1] == len(wanted) - 1 else pixels[-1] + 1
    return slice(int(np.searchsorted(places, low)), int(np.searchsorted(places, high, side="right")))


def _strips(rows: slice, columns: slice) -> Iterator[slice]:
    """Rows in strips of about `STRIP` pixels; none where there are no columns."""
    width = columns.stop - columns.start
    height = max(1, STRIP // max(1, width))
    for top in range(rows.start, rows.stop if width else rows.start, height):
        yield slice(top, min(rows.stop, top + height))


@lru_cache(maxsize=8)
def _grey(side: int) -> np.ndarray:
    """A square of padding."""
    return np.full((side, side, 3), MEAN_GREY, np.uint8)


def fit(source: tuple[int, int], side: int, centre: bool = False) -> Letterbox:
    """Scale the longest side of a frame to `side`, keep its aspect, pad the rest.

    Args:
        source: (height, width) of the frame, pixels.
        side: side of the square, pixels.
        centre: pad on both sides instead of only below and to the right (as SAM does).

    Raises:
        InputError: the frame or the square is empty.
    """
    h, w = source
    if min(h, w, side) < 1:
        raise InputError(
            f"letterbox: cannot fit a frame of {w}x{h} pixels into a square of side {side}; "
            "every side must be at least 1 pixel: check that the frame was decoded"
        )
    scale = side / max(h, w)
    # Half up, as segment-anything rounds; a sliver keeps one row so that nothing of the frame is lost.
    height, width = (max(1, int(length * scale + 0.5)) for length in (h, w))
    top, left = ((side - height) // 2, (side - width) // 2) if centre else (0, 0)
    return Letterbox((h, w), side, scale, top, left, height, width)
