"""Paints SynthTrack's places: ground, sky, houses, lamps, stains, paths, the finish line, and the camera's view.

The background is drawn once per scene on a canvas that reaches 0.3 of a frame beyond every edge, then shifted by one
affine warp per frame.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np

from trackgpt.synthtrack.scene import Scene

REACH = 0.3  # how far the canvas goes beyond the frame on each side, in frame units
_SPAN = 1.0 + 2.0 * REACH

Rng = np.random.Generator
Palette = tuple[tuple[int, int, int], ...]

_PALETTES: dict[str, tuple[Palette, ...]] = {
    "meadow": (
        ((58, 84, 40), (92, 122, 58), (128, 150, 84)),
        ((84, 92, 48), (134, 136, 74), (170, 164, 104)),
        ((44, 74, 56), (78, 112, 86), (120, 146, 114)),
        ((96, 88, 58), (140, 128, 86), (112, 128, 76)),
    ),
    "sand": (
        ((168, 140, 104), (204, 178, 138), (226, 206, 170)),
        ((140, 104, 82), (180, 142, 112), (206, 176, 148)),
        ((150, 146, 138), (190, 186, 176), (214, 212, 204)),
        ((188, 196, 206), (216, 222, 230), (236, 240, 244)),
    ),
    "road": (
        ((62, 62, 66), (88, 88, 92), (112, 112, 114)),
        ((96, 92, 88), (124, 120, 114), (148, 144, 138)),
        ((54, 58, 70), (78, 84, 98), (104, 110, 122)),
    ),
    "water": (
        ((38, 76, 102), (66, 116, 142), (130, 172, 188)),
        ((30, 84, 84), (70, 132, 126), (140, 186, 176)),
        ((58, 70, 86), (98, 114, 130), (158, 170, 180)),
    ),
    "wood": (
        ((110, 78, 52), (150, 112, 78), (182, 146, 108)),
        ((156, 124, 92), (192, 162, 126), (216, 192, 158)),
        ((74, 56, 48), (102, 80, 68), (132, 108, 94)),
        ((128, 124, 118), (160, 156, 148), (190, 186, 178)),
    ),
    "brick": (
        ((124, 74, 58), (152, 98, 78), (172, 122, 100)),
        ((150, 138, 124), (182, 168, 150), (204, 192, 176)),
        ((86, 84, 90), (116, 112, 116), (144, 140, 142)),
    ),
    "sky": (
        ((92, 140, 190), (146, 184, 216), (222, 232, 240)),
        ((150, 120, 140), (220, 166, 140), (244, 212, 170)),
        ((110, 120, 134), (158, 166, 176), (206, 210, 214)),
    ),
    "wall": (
        ((186, 178, 162), (206, 200, 186), (222, 218, 208)),
        ((120, 142, 140), (144, 164, 162), (170, 186, 184)),
        ((164, 140, 140), (190, 168, 166), (210, 192, 190)),
        ((86, 92, 112), (110, 116, 136), (136, 142, 160)),
        ((150, 160, 120), (176, 184, 148), (200, 206, 176)),
    ),
    "night": (
        ((14, 18, 36), (34, 42, 70), (72, 78, 110)),
        ((22, 16, 30), (52, 40, 66), (98, 74, 96)),
        ((10, 24, 30), (28, 54, 62), (70, 100, 104)),
    ),
    "bokeh": (
        ((30, 34, 30), (64, 76, 58), (128, 140, 104)),
        ((44, 32, 28), (96, 70, 58), (176, 140, 110)),
        ((28, 34, 50), (62, 76, 104), (132, 148, 172)),
    ),
    "fabric": (
        ((92, 100, 118), (120, 128, 146), (148, 156, 172)),
        ((140, 116, 112), (170, 146, 140), (196, 176, 170)),
        ((96, 110, 92), (124, 138, 118), (154, 166, 146)),
        ((176, 172, 164), (200, 196, 188), (220, 218, 212)),
    ),
    "tiles": (
        ((170, 176, 178), (196, 200, 202), (218, 222, 222)),
        ((110, 126, 136), (140, 156, 164), (172, 186, 192)),
        ((164, 148, 126), (190, 176, 154), (212, 200, 182)),
    ),
}
_LAMPS: Palette = ((210, 190, 130), (170, 200, 210), (220, 160, 120), (150, 170, 120), (170, 150, 190))
_SKIES: Palette = ((150, 186, 216), (196, 206, 214), (226, 206, 186), (120, 138, 158), (96, 130, 174))


def _noise(rng: Rng, height: int, width: int, cells: tuple[int, int], octaves: int, fade: float = 0.55) -> np.ndarray:
    """Value noise of several octaves, float32 (height, width), about [0, 1].

    `cells` (rows, columns) of the coarsest octave; each octave doubles them and weighs `fade` of the one before. The
    random grids do not depend on the size asked for, so that a scene looks alike at every resolution.
    """
    rows, columns = cells
    total = rng.random((rows, columns), np.float32) - 0.5
    weight = 1.0
    for _ in range(octaves - 1):
        rows, columns, weight = 2 * rows, 2 * columns, weight * fade
        total = cv2.resize(total, (columns, rows), interpolation=cv2.INTER_LINEAR)
        total += weight * (rng.random((rows, columns), np.float32) - 0.5)
    total = cv2.resize(total, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(0.5 + total * 1.15, 0.0, 1.0)


def _paint(tone: np.ndarray, palette: Palette) -> np.ndarray:
    """Colours a tone map in [0, 1] with a palette from dark to light, uint8 (height, width, 3)."""
    at = np.linspace(0.0, 1.0, 256)
    stops = np.linspace(0.0, 1.0, len(palette))
    table = np.stack([np.interp(at, stops, channel) for channel in zip(*palette, strict=True)], axis=1)
    levels = cv2.convertScaleAbs(tone, alpha=255.0)
    return cv2.merge([cv2.LUT(levels, np.round(table[:, c]).astype(np.uint8)) for c in range(3)])


def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Canvas coordinates in [0, 1], float32 (height, 1) and (1, width)."""
    y = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height
    x = (np.arange(width, dtype=np.float32)[None] + 0.5) / width
    return y, x


def _ground(rng: Rng, height: int, width: int) -> np.ndarray:
    return _noise(rng, height, width, (3, 3), 7, 0.74)


def _grass(rng: Rng, height: int, width: int) -> np.ndarray:
    patches = _noise(rng, height, width, (3, 3), 4, 0.6)
    blades = _noise(rng, height, width, (18, 40), 3, 0.9)
    return np.clip(0.75 * patches + 0.42 * (blades - 0.5) + 0.1, 0.0, 1.0)


def _asphalt(rng: Rng, height: int, width: int) -> np.ndarray:
    patches = _noise(rng, height, width, (2, 3), 4, 0.6)
    grit = _noise(rng, height, width, (64, 64), 2, 1.0)
    return np.clip(0.6 * patches + 0.45 * grit - 0.05, 0.0, 1.0)


def _ripples(rng: Rng, height: int, width: int) -> np.ndarray:
    y, _ = _grid(height, width)
    waves = _noise(rng, height, width, (10, 3), 5, 0.6)
    return np.clip(0.65 * waves + 0.18 + 0.16 * np.sin(60.0 * y + 14.0 * waves), 0.0, 1.0)


def _planks(rng: Rng, height: int, width: int) -> np.ndarray:
    boards = int(rng.integers(5, 12))
    y, x = _grid(height, width)
    board = np.minimum((y * boards).astype(np.int32), boards - 1)
    shade = rng.random(boards, np.float32)[board] * 0.3
    grain = _noise(rng, height, width, (24, 2), 4, 0.7) * 0.55
    tone = grain + shade + 0.1
    edge = np.mod(y * boards, 1.0)
    joint = np.mod(x * 3 + rng.random(boards, np.float32)[board], 1.0)
    tone = tone - 0.35 * ((edge < 0.05) | (joint < 0.012))
    return np.clip(tone.T if height == width and rng.random() < 0.4 else tone, 0.0, 1.0)


def _blocks(rng: Rng, height: int, width: int, rows: int, columns: int, offset: float, gap: float) -> np.ndarray:
    """Rectangular blocks with joints, every second row shifted by `offset` of a block."""
    y, x = _grid(height, width)
    row = (y * rows).astype(np.int32)
    across = x * columns + offset * (row % 2)
    table = rng.random((rows + 1, columns + 2), np.float32)
    tone = 0.25 + 0.4 * table[np.broadcast_to(row, (height, width)), across.astype(np.int32)]
    tone = tone + 0.3 * (_noise(rng, height, width, (16, 16), 4, 0.8) - 0.5)
    joints = (np.mod(y * rows, 1.0) < gap) | (np.mod(across, 1.0) < gap * rows / columns * 0.6)
    return np.clip(np.where(joints, 0.95 if rng.random() < 0.5 else 0.05, tone), 0.0, 1.0)


def _bricks(rng: Rng, height: int, width: int) -> np.ndarray:
    rows = int(rng.integers(12, 22))
    return _blocks(rng, height, width, rows, rows // 2, 0.5, 0.12)


def _tile_floor(rng: Rng, height: int, width: int) -> np.ndarray:
    rows = int(rng.integers(5, 11))
    return _blocks(rng, height, width, rows, rows, 0.0, 0.05)


def _clouds(rng: Rng, height: int, width: int) -> np.ndarray:
    y, _ = _grid(height, width)
    cloud = np.clip(1.9 * _noise(rng, height, width, (4, 3), 5, 0.55) - 0.55, 0.0, 1.0)
    return np.clip(0.35 * y + 0.75 * cloud, 0.0, 1.0)


def _plaster(rng: Rng, height: int, width: int) -> np.ndarray:
    y, x = _grid(height, width)
    slope = 0.5 + 0.45 * (rng.random() - 0.5) * (y - 0.5) * 2 + 0.45 * (rng.random() - 0.5) * (x - 0.5) * 2
    return np.clip(slope + 0.35 * (_noise(rng, height, width, (4, 4), 6, 0.75) - 0.5), 0.0, 1.0)


def _dark(rng: Rng, height: int, width: int) -> np.ndarray:
    y, _ = _grid(height, width)
    return np.clip(0.5 * y + 0.6 * _noise(rng, height, width, (3, 3), 5) - 0.1, 0.0, 1.0)


def _weave(rng: Rng, height: int, width: int) -> np.ndarray:
    y, x = _grid(height, width)
    threads = float(rng.integers(24, 60))
    plaid = np.sin(2 * np.pi * x * int(rng.integers(2, 9))) + np.sin(2 * np.pi * y * int(rng.integers(2, 9)))
    weave = np.sin(2 * np.pi * threads * x) * np.sin(2 * np.pi * threads * y)
    folds = _noise(rng, height, width, (3, 3), 3)
    return np.clip(0.5 + 0.14 * np.sign(plaid) * rng.random() + 0.1 * weave + 0.5 * (folds - 0.5), 0.0, 1.0)


_TONES: dict[str, Callable[[Rng, int, int], np.ndarray]] = {
    "meadow": _grass,
    "sand": _ground,
    "road": _asphalt,
    "water": _ripples,
    "wood": _planks,
    "brick": _bricks,
    "sky": _clouds,
    "wall": _plaster,
    "night": _dark,
    "bokeh": _dark,
    "fabric": _weave,
    "tiles": _tile_floor,
}


def _add_sky(rng: Rng, canvas: np.ndarray) -> None:
    """Puts a sky and a hazy ridge of hills over the upper part of the canvas, in place."""
    height, width = canvas.shape[:2]
    horizon = int(height * (REACH + 0.08 + 0.3 * rng.random()) / _SPAN)
    top = np.array(_SKIES[int(rng.integers(len(_SKIES)))], np.float32)
    ridge = _noise(rng, 1, width, (1, 3), 5, 0.5)[0] * 0.16 * height * rng.random()
    y = np.arange(horizon, dtype=np.float32)[:, None]
    cloud = np.clip(_noise(rng, horizon, width, (4, 3), 5) * 1.5 - 0.7, 0.0, 0.65)[..., None]
    sky = top * (0.8 + 0.25 * y / horizon)[..., None]
    sky = sky + (248.0 - sky) * cloud
    land = canvas[horizon : horizon + 8].mean(axis=(0, 1), dtype=np.float32)
    hill = (y > horizon - ridge)[..., None]
    haze = 0.55 * land + 0.45 * top
    canvas[:horizon] = np.clip(np.where(hill, haze, sky), 0, 255)
    thick = max(1, height // 200)
    band = canvas[max(horizon - 2 * thick, 0) : horizon + 2 * thick]
    band[:] = cv2.blur(band, (1, 2 * thick + 1))


def _add_skyline(rng: Rng, canvas: np.ndarray) -> None:
    """Puts stars and dark houses with lit windows on a night canvas, in place."""
    height, width = canvas.shape[:2]
    dot = max(1, round(height / 260))
    for x, y in rng.random((40, 2)):
        cv2.circle(canvas, (int(x * width), int(y * 0.6 * height)), dot, (190, 195, 205), -1, cv2.LINE_AA)
    left = 0.0
    while left < 1.0:
        wide, tall = 0.06 + 0.1 * rng.random(), 0.2 + 0.25 * rng.random()
        x0, x1, y0 = int(left * width), int((left + wide) * width), int((1.0 - tall) * height)
        shade = int(rng.integers(12, 40))
        cv2.rectangle(canvas, (x0, y0), (x1, height), (shade, shade, shade + 10), -1)
        lit = rng.random((int(tall / 0.03), max(2, int(wide / 0.022)))) < 0.35
        step_y, step_x = 0.03 * height, (x1 - x0) / lit.shape[1]
        for row, column in np.argwhere(lit):
            corner = (int(x0 + (column + 0.3) * step_x), int(y0 + (row + 0.35) * step_y))
            far = (int(corner[0] + 0.4 * step_x), int(corner[1] + 0.4 * step_y))
            cv2.rectangle(canvas, corner, far, (196, 172, 110), -1)
        left += wide + 0.02 * rng.random()


def _add_lights(rng: Rng, canvas: np.ndarray, count: int) -> None:
    """Lays blurred lamps, as a lens out of focus shows them, in place."""
    height, width = canvas.shape[:2]
    layer = canvas.copy()
    for x, y, size, tone in rng.random((count, 4)):
        lamp = _LAMPS[int(tone * len(_LAMPS))]
        radius = max(2, int((0.02 + 0.08 * size) * min(height, width)))
        cv2.circle(layer, (int(x * width), int(y * height)), radius, lamp, -1, cv2.LINE_AA)
    size = max(3, int(0.025 * min(height, width)) | 1)
    cv2.addWeighted(canvas, 0.5, cv2.blur(layer, (size, size)), 0.5, 0.0, dst=canvas)


def _add_blobs(rng: Rng, canvas: np.ndarray, count: int, palette: Palette) -> None:
    """Lays bushes, stains or stones: clusters of soft ellipses in tones near the palette, in place.

    The layer shows the ground's own texture through, as a shadow or a stain would.
    """
    height, width = canvas.shape[:2]
    cover = np.zeros((height, width), np.uint8)
    for x, y in rng.random((count, 2)):
        for dx, dy, size, turn in rng.random((4, 4)):
            radius = (0.015 + 0.05 * size) * min(height, width)
            place = (int((x + 0.09 * (dx - 0.5)) * width), int((y + 0.06 * (dy - 0.5)) * height))
            cv2.ellipse(cover, place, (int(radius) + 1, int(0.7 * radius) + 1), 180 * turn, 0, 360, 150, -1)
    size = max(3, int(0.018 * min(height, width)) | 1)
    cover = cv2.blur(cover, (size, size))
    tone = palette[int(rng.integers(len(palette)))]
    colour = np.clip(np.array(tone) * (0.5 + 0.9 * rng.random()) + rng.integers(-16, 17, 3), 0, 255)
    layer = cv2.addWeighted(canvas, 0.35, np.full_like(canvas, colour.astype(np.uint8)), 0.65, 0.0)
    keep = cv2.merge((cover, cover, cover))
    cv2.add(
        cv2.multiply(canvas, cv2.bitwise_not(keep), scale=1.0 / 255.0),
        cv2.multiply(layer, keep, scale=1.0 / 255.0),
        dst=canvas,
    )


def _add_strips(rng: Rng, canvas: np.ndarray, count: int, palette: Palette) -> None:
    """Lays paths, beams or lane marks across the canvas, in place."""
    height, width = canvas.shape[:2]
    layer = canvas.copy()
    for _ in range(count):
        tone = np.array(palette[int(rng.integers(len(palette)))]) * (0.75 + 0.5 * rng.random())
        ends = [(int(rng.random() * width), -5), (int(rng.random() * width), height + 5)]
        if rng.random() < 0.5:
            ends = [(-5, int(rng.random() * height)), (width + 5, int(rng.random() * height))]
        thick = max(1, int((0.01 + 0.06 * rng.random()) * min(height, width)))
        cv2.line(layer, *ends, tuple(float(v) for v in np.clip(tone, 0, 255)), thick, cv2.LINE_AA)
    cv2.addWeighted(canvas, 0.4, layer, 0.6, 0.0, dst=canvas)


def _add_finish(canvas: np.ndarray, finish: str, line: float) -> None:
    """Draws the checkered finish line across the canvas, in place."""
    turned = canvas if finish in ("right", "left") else canvas.transpose(1, 0, 2)
    height, width = turned.shape[:2]
    square = 0.03
    y, x = _grid(height, width)
    column = np.floor((x * _SPAN - REACH - line) / square + 1.0)
    dark = np.mod(np.floor(y * _SPAN / square) + column, 2.0) < 1.0
    band = np.flatnonzero((column[0] >= 0.0) & (column[0] <= 1.0))
    if len(band):
        part = slice(int(band[0]), int(band[-1]) + 1)
        turned[:, part] = np.where(dark[:, part, None], np.uint8(22), np.uint8(240))


@lru_cache(maxsize=16)
def _canvas(parameters: tuple[tuple[str, float | int | str], ...], height: int, width: int) -> np.ndarray:
    """The background of a scene with `REACH` around it, uint8 (canvas height, canvas width, 3); read-only."""
    values = dict(parameters)
    texture = str(values["texture"])
    rng = np.random.default_rng(int(values["seed"]))
    rows, columns = round(height * _SPAN), round(width * _SPAN)
    palettes = _PALETTES[texture]
    palette = palettes[int(rng.integers(len(palettes)))]
    jitter = rng.integers(-12, 13, 3)
    stops = np.clip(np.array(palette) + jitter, 0, 255).astype(int).tolist()
    palette = tuple((red, green, blue) for red, green, blue in stops)
    canvas = _paint(_TONES[texture](rng, rows, columns), palette)
    _furnish(rng, canvas, values, palette)
    canvas = cv2.multiply(canvas, _vignette(rows, columns), scale=float(values["light"]) / 255.0)
    canvas.setflags(write=False)
    return canvas


@lru_cache(maxsize=8)
def _vignette(height: int, width: int) -> np.ndarray:
    """Light falling off towards the corners, 255 in the middle, uint8 (height, width, 3)."""
    y, x = _grid(height, width)
    light = 255.0 * (1.0 - 0.7 * ((y - 0.5) ** 2 + (x - 0.5) ** 2))
    level = np.round(light).astype(np.uint8)
    return cv2.merge((level, level, level))


def _furnish(rng: Rng, canvas: np.ndarray, values: dict[str, float | int | str], palette: Palette) -> None:
    """Adds to a painted ground what its kind of place has: sky, houses, lamps, stains, paths, the finish line."""
    texture, blobs, strips = str(values["texture"]), int(values["blobs"]), int(values["strips"])
    if texture == "bokeh":
        _add_lights(rng, canvas, 8 + 5 * blobs)
    elif texture == "night":
        _add_skyline(rng, canvas)
    elif blobs and texture != "sky":
        _add_blobs(rng, canvas, blobs, palette)
    if strips and texture in ("meadow", "sand", "road", "wall", "fabric"):
        _add_strips(rng, canvas, strips, palette)
    if texture in ("meadow", "sand", "road", "water") and not values["finish"] and rng.random() < 0.45:
        _add_sky(rng, canvas)
    if values["finish"]:
        _add_finish(canvas, str(values["finish"]), float(values["line"]))


def background(scene: Scene, t: int, height: int, width: int) -> np.ndarray:
    """The background seen by the camera at frame t, uint8 (height, width, 3)."""
    canvas = _canvas(tuple(sorted(scene.background.items())), height, width)
    shift_x, shift_y, zoom, roll = (float(v) for v in scene.camera[t])
    cos, sin = np.cos(np.deg2rad(roll)) / zoom, np.sin(np.deg2rad(roll)) / zoom
    ratio = scene.aspect[0] / scene.aspect[1]
    # Frame units to world units undo `world.see`; pixels to units and back are scalings on either side.
    linear = np.array([[cos, -sin / ratio], [sin * ratio, cos]])
    inner = np.array([1.0 / width, 1.0 / height])
    outer = np.array([canvas.shape[1], canvas.shape[0]]) / _SPAN
    centre = np.array([0.5 + shift_x + REACH, 0.5 + shift_y + REACH])
    matrix = np.empty((2, 3))
    matrix[:, :2] = outer[:, None] * linear * inner
    matrix[:, 2] = outer * (centre + linear @ (0.5 * inner - 0.5)) - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(canvas, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
