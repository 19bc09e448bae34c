"""Pictures of the things in SynthTrack: glyphs from the atlas and shapes drawn here, in any of the ten colours.

A coloured sprite keeps the light and shade of its natural picture and takes its hue from the colour: the picture's
luminance, stretched and centred, walks a ramp from a dark to a light tone of that colour. A thin rim, darker than the
body (lighter for black), holds the silhouette together on a background of the same colour. What has a front faces left.
"""

from __future__ import annotations

import json
from functools import cache, lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from trackgpt.errors import InputError, UsageError
from trackgpt.synthtrack.catalog import BY_NAME, COLOURS

CELL = 96
VARIANTS = 3
NATURAL = "natural"

_ASSETS = Path(__file__).parents[1] / "assets" / "synthtrack"
_FINE = 4 * CELL  # shapes are drawn at four times the size, then averaged
_STEEL = (120, 140, 150)
# Shades and lights that plain scaling would carry into another colour's name (a dark orange is a brown).
_SHADES = {
    "white": (128, 130, 138), "black": (2, 2, 4), "orange": (188, 82, 6), "yellow": (176, 138, 10),
    "pink": (184, 74, 126), "brown": (50, 30, 14),
}  # fmt: skip
_LIGHTS = {"black": (98, 98, 104), "white": (255, 255, 255), "brown": (168, 124, 84)}
_LEVELS = (96, 72, 54, 40, 30, 22, 16)


@cache
def _atlas() -> dict[str, np.ndarray]:
    """The glyph cells by category name, uint8 (96, 96, 4) RGBA."""
    try:
        index = json.loads((_ASSETS / "atlas.json").read_text(encoding="utf-8"))
        with Image.open(_ASSETS / "atlas.png") as picture:
            sheet = np.asarray(picture.convert("RGBA"))
    except OSError as error:
        raise InputError(
            f"{_ASSETS}: the sprite atlas cannot be read ({error}); reinstall the package or run data_tools.atlas"
        ) from error
    cell, columns = index["cell"], index["columns"]
    corners = [(k // columns * cell, k % columns * cell) for k in range(len(index["names"]))]
    return {
        name: np.ascontiguousarray(sheet[y : y + cell, x : x + cell])
        for name, (y, x) in zip(index["names"], corners, strict=True)
    }


def _star_points(points: int, outer: float, inner: float, turn: float = -90.0) -> np.ndarray:
    """Corners of a star (or, where inner == outer, of a polygon of 2 x points sides), float (2 x points, 2)."""
    angle = np.deg2rad(turn + np.arange(2 * points) * 180.0 / points)
    radius = np.where(np.arange(2 * points) % 2 == 0, outer, inner)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _heart_points() -> np.ndarray:
    """Outline of a heart in [-1, 1], y down."""
    t = np.linspace(0.0, 2.0 * np.pi, 120)
    x = 16.0 * np.sin(t) ** 3
    y = 13.0 * np.cos(t) - 5.0 * np.cos(2 * t) - 2.0 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x / 16.5, -(y + 2.5) / 15.5], axis=1)


_HALF = 0.34  # half the width of a bar of the cross
_OUTLINES: dict[str, np.ndarray] = {
    "square": np.array([(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)]),
    "triangle": np.array([(0.0, -0.9), (0.97, 0.8), (-0.97, 0.8)]),
    "star": _star_points(5, 0.99, 0.43) + np.array([0.0, 0.05]),
    "heart": _heart_points(),
    "diamond": np.array([(0.0, -0.98), (0.72, 0.0), (0.0, 0.98), (-0.72, 0.0)]),
    "hexagon": _star_points(3, 0.97, 0.97, 0.0),
    "cross": np.array(
        [
            (-_HALF, -0.95), (_HALF, -0.95), (_HALF, -_HALF), (0.95, -_HALF), (0.95, _HALF), (_HALF, _HALF),
            (_HALF, 0.95), (-_HALF, 0.95), (-_HALF, _HALF), (-0.95, _HALF), (-0.95, -_HALF), (-_HALF, -_HALF),
        ]
    ),
    "arrow": np.array(
        [(0.97, -0.3), (-0.05, -0.3), (-0.05, -0.8), (-0.98, 0.0), (-0.05, 0.8), (-0.05, 0.3), (0.97, 0.3)]
    ),
}  # fmt: skip


def _shape_mask(name: str) -> np.ndarray:
    """Filled silhouette of a shape, uint8 (384, 384), 0 or 255; InputError for a name that is no shape."""
    mask = np.zeros((_FINE, _FINE), np.uint8)
    middle, reach = _FINE // 2, _FINE / 2 - 6
    if name in ("circle", "ring"):
        cv2.circle(mask, (middle, middle), int(0.95 * reach), 255, -1)
        if name == "ring":
            cv2.circle(mask, (middle, middle), int(0.52 * reach), 0, -1)
    elif name in _OUTLINES:
        cv2.fillPoly(mask, [np.round(_OUTLINES[name] * reach + middle).astype(np.int32)], 255)
    else:
        raise InputError(f"category {name!r} has neither a glyph in the atlas nor a drawn shape; rebuild the atlas")
    return mask


def _shape_shading(mask: np.ndarray, variant: int) -> np.ndarray:
    """Light and shade of a bevelled plate lit from the upper left, float32 (384, 384) in [0, 1].

    Variant 0 has a raised rim round a flat face, 1 a pillow-like face, 2 a groove along the outline.
    """
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    top = float(inside.max())
    width = {0: 0.22, 1: 0.85, 2: 0.3}[variant] * top
    height = np.sqrt(np.clip(inside / width, 0.0, 1.0)) * (14.0 if variant != 1 else 26.0)
    height = cv2.GaussianBlur(height.astype(np.float32), (0, 0), 5)
    slope_x, slope_y = cv2.Sobel(height, cv2.CV_32F, 1, 0) / 8.0, cv2.Sobel(height, cv2.CV_32F, 0, 1) / 8.0
    light = 0.56 + 0.62 * (slope_x * 0.55 + slope_y * 0.75)
    if variant == 2:
        light = light - 0.34 * np.exp(-(((inside - width) / (0.07 * top)) ** 2))
    ramp = np.linspace(0.09, -0.09, _FINE, dtype=np.float32)
    gloss = np.exp(-(((ramp[None] - 0.035) / 0.03) ** 2 + ((ramp[:, None] - 0.045) / 0.022) ** 2)) * 0.22
    return np.clip(light + ramp[:, None] + gloss, 0.0, 1.0).astype(np.float32)


@lru_cache(maxsize=64)
def _structure(category: str, variant: int) -> tuple[np.ndarray, np.ndarray]:
    """Luminance in [0, 1], centred on about 0.55 inside the silhouette, and alpha; float32 (96, 96) each."""
    cell = _atlas().get(category)
    if cell is None:
        mask = _shape_mask(category)
        light = cv2.resize(_shape_shading(mask, variant), (CELL, CELL), interpolation=cv2.INTER_AREA)
        alpha = cv2.resize(mask, (CELL, CELL), interpolation=cv2.INTER_AREA).astype(np.float32) / 255.0
        return light, alpha
    alpha = cell[..., 3].astype(np.float32) / 255.0
    light = cell[..., :3].astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255.0
    body = light[alpha > 0.5]
    low, high = np.percentile(body, (2.0, 98.0))
    light = np.clip((light - low) / max(float(high - low), 0.2), 0.0, 1.0)
    median = float(np.clip(np.median(light[alpha > 0.5]), 0.08, 0.92))
    light = light ** (np.log(0.55) / np.log(median))
    return light.astype(np.float32), alpha


def _ramp(colour: str) -> np.ndarray:
    """Tones of a colour from its shade (0) over itself (0.55) to its light (1), float32 (256, 3)."""
    base = np.array(COLOURS[colour], np.float32)
    shade = np.array(_SHADES.get(colour, base * 0.42), np.float32)
    tint = np.array(_LIGHTS.get(colour, base + (255.0 - base) * 0.45), np.float32)
    at = np.linspace(0.0, 1.0, 256)
    stops = (0.0, 0.5, 0.62, 1.0)
    return np.stack([np.interp(at, stops, tones) for tones in zip(shade, base, base, tint, strict=True)], axis=1)


def _rim(alpha: np.ndarray) -> np.ndarray:
    """How much a pixel belongs to the outermost two pixels of the silhouette, float32 in [0, 1]."""
    solid = (alpha > 0.5).astype(np.uint8)
    core = cv2.erode(solid, np.ones((3, 3), np.uint8), iterations=2, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return cv2.GaussianBlur(1.0 - core.astype(np.float32), (3, 3), 0)


def _tinted(category: str, colour: str, variant: int) -> np.ndarray:
    """A picture in the tones of one colour, uint8 (96, 96, 4) RGBA."""
    light, alpha = _structure(category, variant)
    if colour == NATURAL:
        tones = np.linspace(0.35, 1.35, 256)[:, None] * np.array(_STEEL)
    else:
        tones = _ramp(colour)
    rgb = tones[np.round(light * 255.0).astype(np.uint8)]
    strength, rim_colour = {"white": (0.75, (96, 98, 108)), "black": (0.6, (128, 130, 140))}.get(
        colour, (0.45, tuple(tones[0] * 0.7))
    )
    amount = (_rim(alpha) * strength)[..., None]
    rgb = rgb * (1.0 - amount) + np.array(rim_colour) * amount
    return np.dstack([np.clip(np.round(rgb), 0, 255), np.round(alpha * 255.0)]).astype(np.uint8)


@lru_cache(maxsize=2048)
def sprite(category: str, colour: str, variant: int = 0) -> np.ndarray:
    """The picture of a category in a colour.

    Args:
        category: a name of `catalog.CATEGORIES`.
        colour: a key of `catalog.COLOURS`, or "natural" for the glyph's own colours (steel grey for a shape).
        variant: 0 to 2, the bevel of a drawn shape; glyphs have one picture only.

    Returns:
        uint8 (96, 96, 4), RGBA with straight alpha, read-only and shared between calls.

    Raises:
        UsageError: an unknown category, colour or variant.
        InputError: the atlas cannot be read.
    """
    if category not in BY_NAME:
        raise UsageError(f"category {category!r} is unknown; take a name of catalog.CATEGORIES")
    if colour not in COLOURS and colour != NATURAL:
        raise UsageError(f"colour {colour!r} is unknown; take one of {', '.join(COLOURS)} or {NATURAL!r}")
    if variant not in range(VARIANTS):
        raise UsageError(f"variant {variant} is unknown; take 0 to {VARIANTS - 1}")
    glyph = bool(BY_NAME[category].glyph)
    if glyph and variant:
        return sprite(category, colour, 0)
    if glyph and category not in _atlas():
        raise InputError(f"category {category!r} is not in the sprite atlas; run data_tools.atlas to rebuild it")
    picture = _atlas()[category].copy() if glyph and colour == NATURAL else _tinted(category, colour, variant)
    picture.setflags(write=False)
    return picture


@lru_cache(maxsize=4096)
def _level(category: str, colour: str, variant: int, side: int) -> np.ndarray:
    """One premultiplied size of a sprite, uint8 (side, side, 4)."""
    picture = sprite(category, colour, variant).astype(np.float32)
    picture[..., :3] *= picture[..., 3:] / 255.0
    if side != CELL:
        picture = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    out = np.round(picture).astype(np.uint8)
    out.setflags(write=False)
    return out


def premultiplied(category: str, colour: str, variant: int, pixels: float) -> np.ndarray:
    """The smallest stored size of a sprite that is still at least `pixels` wide, so that shrinking it does not alias.

    Args:
        category: as for `sprite`.
        colour: as for `sprite`.
        variant: as for `sprite`.
        pixels: side at which the sprite will be drawn.

    Returns:
        uint8 (side, side, 4) RGBA with the colours multiplied by alpha, read-only; side at most 96.
    """
    side = min((level for level in _LEVELS if level >= pixels), default=CELL)
    return _level(category, colour, variant, side)
