"""Pictures of the things in domain-randomised clips: a silhouette of any kind with a filling of any kind.

A thing's pictures are uint8 (moments, CANVAS, CANVAS, 4) RGBA with straight alpha: one moment for a rigid thing, one
per frame for a figure whose limbs move. Colours go on beyond the silhouette, so that soft edges do not turn dark.
"""

from __future__ import annotations

import cv2
import numpy as np

from trackgpt.synthtrack.catalog import CATEGORIES, COLOURS, HELD_OUT_PAIRS
from trackgpt.synthtrack.figures import figure
from trackgpt.synthtrack.silhouettes import CANVAS, add_thin_parts, filled, outline, polygon, spread_colours
from trackgpt.synthtrack.sprites import NATURAL, sprite
from trackgpt.synthtrack.textures import TextureWindow

Rng = np.random.Generator
_LOOKS = tuple(
    (c.name, shade) for c in CATEGORIES for shade in (NATURAL, *COLOURS) if (c.name, shade) not in HELD_OUT_PAIRS
)


def rgba(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours and alpha as one picture, uint8 (height, width, 4)."""
    return np.asarray(cv2.merge([rgb, alpha]))


def _glyph(rng: Rng, window: TextureWindow) -> np.ndarray:
    """A SynthTrack sprite, some with a texture shining through, uint8 (CANVAS, CANVAS, 4)."""
    picture = cv2.resize(
        sprite(*_LOOKS[int(rng.integers(len(_LOOKS)))]), (CANVAS, CANVAS), interpolation=cv2.INTER_CUBIC
    )
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    rgb, alpha = np.ascontiguousarray(picture[..., :3]), np.ascontiguousarray(picture[..., 3])
    rgb = spread_colours(rgb, alpha)  # what lies outside is black in the atlas
    if rng.random() < 0.4:
        rgb = cv2.addWeighted(rgb, 0.5, window.piece(rng, CANVAS), 0.5, 0)
    return rgba(rgb, alpha)


def _blob(rng: Rng, window: TextureWindow) -> np.ndarray:
    """A blob or polygon, some with thin parts, some with patches like clothes, uint8 (CANVAS, CANVAS, 4)."""
    alpha = filled(outline(rng) if rng.random() < 0.65 else polygon(rng))
    if rng.random() < 0.2:
        add_thin_parts(rng, alpha)
    rgb = window.piece(rng, CANVAS)
    if rng.random() < 0.35:
        for _ in range(int(rng.integers(1, 4))):
            x, y = rng.uniform(-0.5, 0.5, 2).tolist()
            patch = filled(outline(rng) * rng.uniform(0.15, 0.5), (x, y))
            rgb = cv2.copyTo(window.piece(rng, CANVAS), patch, rgb)
    return rgba(rgb, alpha)


def _shaded(rng: Rng, pictures: np.ndarray) -> np.ndarray:
    """The pictures in soft light from a side, the same one in all of them."""
    light = cv2.resize(
        rng.uniform(0.5, 1.3, (3, 3)).astype(np.float32), (CANVAS, CANVAS), interpolation=cv2.INTER_CUBIC
    )
    light = cv2.merge([light, light, light, np.ones_like(light)])
    return np.stack([cv2.multiply(picture, light, dtype=cv2.CV_8U) for picture in pictures])


def _cut(pictures: np.ndarray, height: int) -> np.ndarray:
    """The used part of the pictures, at a height in pixels (less if it would be too wide), (moments, h, w, 4)."""
    seen = pictures[..., 3].max(0) > 0
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    part = pictures[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = min(height / part.shape[1], (CANVAS - 12) / part.shape[2])
    size = (max(4, int(part.shape[2] * scale)), max(4, int(part.shape[1] * scale)))
    return np.stack([cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in part])


def _union(rng: Rng, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Two things that move as one, like rider and mount, the upper one sunk into the lower and bobbing on it."""
    lower, upper = _cut(lower, int(CANVAS * rng.uniform(0.45, 0.65))), _cut(upper, int(CANVAS * rng.uniform(0.4, 0.6)))
    moments = max(len(lower), len(upper))
    y_low, x_low = CANVAS - 5 - lower.shape[1], (CANVAS - lower.shape[2]) // 2
    sunk = int(rng.uniform(0.2, 0.6) * lower.shape[1])
    bob, phase = rng.uniform(0, 4), rng.uniform(0, 6.28)
    room = (CANVAS - upper.shape[2]) // 2 - 4
    x_up = (CANVAS - upper.shape[2]) // 2 + int(np.clip(rng.normal(0, 0.12) * lower.shape[2], -room, room))
    behind = rng.random() < 0.3
    out = np.empty((moments, CANVAS, CANVAS, 4), np.uint8)
    for k in range(moments):
        out[k] = (*lower[0].mean((0, 1))[:3].astype(np.uint8), 0)
        y_up = int(np.clip(y_low + sunk - upper.shape[1] + bob * np.sin(phase + k), 4, CANVAS - 4 - upper.shape[1]))
        placed = [(lower[k % len(lower)], y_low, x_low), (upper[k % len(upper)], y_up, x_up)]
        for picture, y, x in reversed(placed) if behind else placed:
            part = out[k, y : y + picture.shape[0], x : x + picture.shape[1]]
            alpha = np.maximum(part[..., 3], picture[..., 3])
            part[picture[..., 3] > 100] = picture[picture[..., 3] > 100]
            part[..., 3] = alpha
    return out


def thing(rng: Rng, window: TextureWindow, frames: int, still: bool = False) -> np.ndarray:
    """The pictures of a thing of any kind.

    Args:
        rng: decides on everything.
        window: where its textures come from.
        frames: of the clip; a figure has a picture for each.
        still: part of the scenery: one picture only, and no union.

    Returns:
        uint8 (1 or frames, CANVAS, CANVAS, 4) RGBA.
    """
    kind = rng.random()
    if kind < 0.12 and not still:
        pair = [_single(rng, window, frames, rng.random(), still) for _ in range(2)]
        pictures = _union(rng, *pair)
    else:
        pictures = _single(rng, window, frames, rng.random(), still)
    return _shaded(rng, pictures) if rng.random() < 0.5 else pictures


def _single(rng: Rng, window: TextureWindow, frames: int, kind: float, still: bool) -> np.ndarray:
    if kind < 0.18:
        return _glyph(rng, window)[None]
    if kind < 0.52:
        return _blob(rng, window)[None]
    return figure(rng, window, frames, still)


def bars(rng: Rng, window: TextureWindow) -> np.ndarray:
    """One to four parallel bars as of a post or fence, uint8 (1, CANVAS, CANVAS, 4) RGBA."""
    count = int(rng.choice([1, 1, 1, 2, 3, 4]))
    alpha = np.zeros((CANVAS, CANVAS), np.uint8)
    width = int(rng.integers(10, 70) / count) + 3
    for k in range(count):
        middle = int(CANVAS * (k + 0.5) / count)
        alpha[2:-2, max(2, middle - width // 2) : min(CANVAS - 2, middle + width // 2 + 1)] = 255
    return rgba(window.piece(rng, CANVAS), alpha)[None]


def screen(rng: Rng, window: TextureWindow) -> np.ndarray:
    """A wall with nothing to see through, uint8 (1, CANVAS, CANVAS, 4) RGBA."""
    alpha = np.zeros((CANVAS, CANVAS), np.uint8)
    alpha[2:-2, 2:-2] = 255
    return rgba(window.piece(rng, CANVAS), alpha)[None]
