"""Draws the scenes of domain-randomised clips: layers over a background, the light, and what a camera does to them.

Places, sizes and speeds are in frame sides (1 = the picture's side), with the origin at the upper left.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import cv2
import numpy as np

from trackgpt.synthtrack.silhouettes import CANVAS

_TILE = 1024  # side of the stored noise, in pixels
_GRID = 24  # side of the field that a wobble is drawn from
_INVERSE = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


@dataclass
class Layer:
    """A thing and its path over T frames.

    Attributes:
        pictures: uint8 (1 or T, CANVAS, CANVAS, 4) RGBA.
        place: float (T, 2), x and y of the canvas's middle.
        size: float (T,), side of the canvas.
        angle: float (T,), radians.
        wobble: float32 (T, g, g, 2), elastic displacement in canvas sides.
        known: it has an identity when it can be seen.
        velocity: float (T, 2) before the window follows, for motion blur.
    """

    pictures: np.ndarray
    place: np.ndarray
    size: np.ndarray
    angle: np.ndarray
    wobble: np.ndarray
    known: bool = True
    velocity: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))


@dataclass(frozen=True)
class Lens:
    """Light and camera.

    Attributes:
        gains: float (T, 3), brightness of each channel.
        shade: float32 (side, side, 3), light and shade that things move through, or None.
        sigma: of the sensor's noise, in grey levels.
        offsets: int (T, 2), where each frame's noise begins in the stored tile.
        blur: sigma of defocus, in pixels at 256 px.
        soft: sigma of the blur of things' edges, in pixels at 256 px.
        exposure: share of a frame's time for which motion blurs; 0 for sharp frames.
        quality: of JPEG, 1 to 100, or 0 for none.
        shadow: things throw a shadow.
    """

    gains: np.ndarray
    shade: np.ndarray | None
    sigma: float
    offsets: np.ndarray
    blur: float
    soft: float
    exposure: float
    quality: int
    shadow: bool


@dataclass
class Staged:
    """All that a clip's pixels depend on.

    Attributes:
        side: of the frames, in pixels.
        background: uint8 (2 x side, 2 x side, 3).
        moves: float (T, 2, 3), from pixels of a frame to pixels of the background.
        drift: float (T, 2), the background's velocity.
        layers: from far to near.
        target: the layer that the clip is about.
        look_alike: the layer that resembles it, or None.
    """

    side: int
    background: np.ndarray
    moves: np.ndarray
    drift: np.ndarray
    layers: list[Layer]
    target: Layer
    look_alike: Layer | None
    lens: Lens


@cache
def _noise_tile() -> np.ndarray:
    """Normal noise of sigma 1, float32 (_TILE, _TILE, 3)."""
    return np.random.default_rng(77).standard_normal((_TILE, _TILE, 3), np.float32)


def _smear(picture: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The picture averaged along a shift in pixels, x and y."""
    reach = int(np.ceil(np.abs(shift).max() / 2))
    kernel = np.zeros((2 * reach + 1,) * 2, np.float32)
    ends = [((reach + sign * shift / 2) * 16).astype(int).tolist() for sign in (-1, 1)]
    cv2.line(kernel, *ends, 1.0, 1, cv2.LINE_8, 4)
    return np.asarray(cv2.filter2D(picture, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE))


def _blur_shift(velocity: np.ndarray, lens: Lens, side: int) -> np.ndarray | None:
    """How far something moves while the shutter is open, in pixels, or None where that does not show."""
    shift = np.asarray(velocity) * (lens.exposure * side)
    length = float(np.hypot(*shift))
    if length < 1.5:
        return None
    return shift * min(1.0, 0.12 * side / length)


def _patch(item: Layer, k: int, side: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """A layer's pixels in a box x0, y0, x1, y1 of the frame, uint8 (y1 - y0, x1 - x0, 4)."""
    x0, y0, x1, y1 = box
    size, (px, py) = float(item.size[k]) * side, item.place[k] * side
    rgba, n = item.pictures[k % len(item.pictures)], CANVAS
    if size < CANVAS / 2:  # shrink first, against aliasing
        n = max(8, int(size * 1.2))
        rgba = cv2.resize(rgba, (n, n), interpolation=cv2.INTER_AREA)
        rgba[[0, -1], :, 3] = 0  # the border is repeated outwards
        rgba[:, [0, -1], 3] = 0
    c, s = np.cos(item.angle[k]) * n / size, np.sin(item.angle[k]) * n / size
    dx, dy = x0 - px, y0 - py
    if not item.wobble[k].any():
        move = np.array([[c, s, c * dx + s * dy + n / 2], [-s, c, c * dy - s * dx + n / 2]])
        flags = {"flags": _INVERSE, "borderMode": cv2.BORDER_REPLICATE}
        return np.asarray(cv2.warpAffine(rgba, move, (x1 - x0, y1 - y0), **flags))
    x, y = np.arange(x1 - x0) + dx, (np.arange(y1 - y0) + dy)[:, None]
    mx, my = (c * x + s * y + n / 2).astype(np.float32), (c * y - s * x + n / 2).astype(np.float32)
    field_ = cv2.resize(item.wobble[k] * n, (_GRID, _GRID), interpolation=cv2.INTER_CUBIC)
    scale = _GRID / (1.6 * size)
    to_field = np.array([[scale, 0, scale * dx + _GRID / 2], [0, scale, scale * dy + _GRID / 2]])
    shift = cv2.warpAffine(field_, to_field, (x1 - x0, y1 - y0), flags=_INVERSE, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(
        cv2.remap(rgba, mx + shift[..., 0], my + shift[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    )


def _darken(region: np.ndarray, alpha: np.ndarray, size: float) -> np.ndarray:
    """The region under a soft shadow of a thing of that size in pixels, to the lower right of it."""
    d = 0.06 * size + 1
    small = cv2.resize(alpha, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    move = np.array([[1, 0, d / 4], [0, 1, d / 4]])
    small = cv2.warpAffine(small, move, (small.shape[1], small.shape[0]))
    dark = 1 - 0.45 * cv2.GaussianBlur(small, (0, 0), 0.0125 * size + 0.3)
    dark = cv2.resize(dark, (region.shape[1], region.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.multiply(region, cv2.merge([dark] * 3), dtype=cv2.CV_8U))


def paint(frame: np.ndarray, ids: np.ndarray, item: Layer, k: int, label: int, lens: Lens) -> None:
    """Draw a layer into a frame and its label into the ids, where it covers more than half of a pixel.

    Args:
        frame: uint8 (side, side, 3), changed.
        ids: uint8 (side, side), changed.
        item: the layer.
        k: index of the frame.
        label: what to write.
        lens: its `soft`, `exposure` and `shadow`.
    """
    side = len(frame)
    size, (px, py) = float(item.size[k]) * side, item.place[k] * side
    shift = _blur_shift(item.velocity[k], lens, side) if lens.exposure else None
    half = int(size * 0.8) + 2 + (0 if shift is None else int(np.abs(shift).max() / 2))
    x0, x1 = max(0, int(px) - half), min(side, int(px) + half)
    y0, y1 = max(0, int(py) - half), min(side, int(py) + half)
    if x1 - x0 < 3 or y1 - y0 < 3:
        return
    patch = _patch(item, k, side, (x0, y0, x1, y1))
    if shift is not None:
        patch = _smear(patch, shift)
    alpha = cv2.extractChannel(patch, 3).astype(np.float32) * np.float32(1 / 255)
    if lens.soft:
        alpha = cv2.GaussianBlur(alpha, (0, 0), lens.soft * side / 256)
    region = frame[y0:y1, x0:x1]
    under = _darken(region, alpha, size) if lens.shadow else np.ascontiguousarray(region)
    region[:] = cv2.blendLinear(under, cv2.cvtColor(patch, cv2.COLOR_RGBA2RGB), 1 - alpha, alpha)
    ids[y0:y1, x0:x1][alpha > 0.5] = label


def _through(lens: Lens, frame: np.ndarray, k: int) -> np.ndarray:
    """The frame as the camera gives it back: defocus, light, noise, compression; uint8 (side, side, 3)."""
    side = len(frame)
    if lens.blur:
        frame = cv2.GaussianBlur(frame, (0, 0), lens.blur * side / 256)
    if lens.shade is not None:
        frame = cv2.multiply(frame, lens.shade, dtype=cv2.CV_8U)
    table = np.clip(np.arange(256)[:, None] * lens.gains[k], 0, 255).astype(np.uint8)
    frame = cv2.LUT(frame, table[:, None, :])
    if lens.sigma:
        y, x = lens.offsets[k].tolist()
        tile = _noise_tile()
        repeats = -(-(side + max(y, x)) // _TILE)
        if repeats > 1:
            tile = np.tile(tile, (repeats, repeats, 1))
        grain = cv2.multiply(tile[y : y + side, x : x + side], (lens.sigma,) * 4, dtype=cv2.CV_16S)
        frame = cv2.add(frame, grain, dtype=cv2.CV_8U)
    if lens.quality:
        frame = cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, lens.quality])[1], 1)
    return np.asarray(frame)


def draw(scene: Staged, k: int) -> tuple[np.ndarray, np.ndarray]:
    """One frame.

    Args:
        scene: what to draw.
        k: index of the frame.

    Returns:
        uint8 (side, side, 3) RGB and uint8 (side, side): 0 for background and things without identity, else 1 + index
        of the visible layer.
    """
    side, lens = scene.side, scene.lens
    frame = cv2.warpAffine(
        scene.background, scene.moves[k], (side, side), flags=_INVERSE, borderMode=cv2.BORDER_REFLECT
    )
    shift = _blur_shift(scene.drift[k], lens, side) if lens.exposure else None
    if shift is not None:
        frame = _smear(frame, shift)
    ids = np.zeros((side, side), np.uint8)
    for index, item in enumerate(scene.layers):
        paint(frame, ids, item, k, index + 1 if item.known else 0, lens)
    return _through(lens, frame, k), ids
