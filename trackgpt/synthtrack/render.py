"""Turns SynthTrack scenes into pixels: a frame and its map of visible ids, at any size, in about a millisecond.

Sprites are premultiplied RGBA, warped into their own region only and laid over the background from far to near.
A pixel belongs to the nearest actor whose alpha is above one half there.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import cv2
import numpy as np

from trackgpt.synthtrack.background import background
from trackgpt.synthtrack.scene import Actor, Scene
from trackgpt.synthtrack.sprites import VARIANTS, premultiplied
from trackgpt.types import Clip

_TILE_SIGMA = 40.0
_TILE_MARGIN = 61


def _patch(scene: Scene, actor: Actor, t: int, height: int, width: int) -> tuple[np.ndarray, int, int]:
    """A sprite as it stands at frame t: uint8 (rows, columns, 4) premultiplied RGBA, and its left and top pixel."""
    side = float(actor.extent[t]) * min(height, width)
    picture = premultiplied(actor.category, actor.colour, (scene.seed + actor.id) % VARIANTS, side)
    angle = np.deg2rad(float(actor.angle[t]))
    scale = side / len(picture)
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    half = 0.5 * side * (abs(np.cos(angle)) + abs(np.sin(angle))) + 1.0
    x, y = float(actor.centre[t, 0]) * width - 0.5, float(actor.centre[t, 1]) * height - 0.5
    left, top = int(np.floor(x - half)), int(np.floor(y - half))
    size = (int(np.ceil(x + half)) - left + 1, int(np.ceil(y + half)) - top + 1)
    mirror = -1.0 if actor.flip else 1.0
    middle = (len(picture) - 1) / 2
    a, b, c, d = cos * mirror, sin, -sin * mirror, cos
    matrix = np.array(
        [[a, b, x - left - (a + b) * middle], [c, d, y - top - (c + d) * middle]],
    )
    return cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_LINEAR), left, top


def _gain(scene: Scene, actor: Actor, t: int) -> float:
    """Brightness factor of an actor at frame t: its flicker, and its change of look if it has one."""
    effects = scene.effects
    jitter = effects["jitter"]
    gain = 1.0 + jitter * float(np.sin(1.7 * t + 2.1 * actor.id)) if jitter else 1.0
    if effects.get("look_id") == actor.id:
        done = (t - effects["look_start"]) / (effects["look_end"] - effects["look_start"])
        gain *= 1.0 + (effects["look_gain"] - 1.0) * float(np.clip(done, 0.0, 1.0))
    return gain


def _smear(scene: Scene, actor: Actor, t: int, patch: np.ndarray, frame_size: tuple[int, int]) -> np.ndarray:
    """Motion blur: averages the patch along its motion over a share of the frame's time; `frame_size` is (w, h)."""
    share = scene.effects["blur"]
    if share == 0.0 or t == 0:
        return patch
    step = (actor.centre[t] - actor.centre[t - 1]) * frame_size * share
    length = min(int(np.hypot(*step)), 9) | 1
    if length < 3:
        return patch
    kernel = np.zeros((length, length), np.float32)
    reach = step / max(float(np.hypot(*step)), 1e-6) * (length // 2)
    middle = length // 2
    start = (int(round(middle - reach[0])), int(round(middle - reach[1])))
    cv2.line(kernel, start, (int(round(middle + reach[0])), int(round(middle + reach[1]))), 1.0)
    return cv2.filter2D(patch, -1, kernel / kernel.sum(), borderType=cv2.BORDER_CONSTANT)


def _overlap(left: int, top: int, patch: np.ndarray, height: int, width: int) -> tuple[slice, slice, slice, slice]:
    """Rows and columns of the frame that a patch covers, and the same in the patch."""
    rows, columns = patch.shape[:2]
    y0, y1 = max(top, 0), min(top + rows, height)
    x0, x1 = max(left, 0), min(left + columns, width)
    return slice(y0, y1), slice(x0, x1), slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)


def _over(region: np.ndarray, colour: np.ndarray, alpha: np.ndarray) -> None:
    """Lays a premultiplied colour over a region of the frame, in place."""
    keep = cv2.bitwise_not(alpha)
    cv2.add(cv2.multiply(region, cv2.merge((keep, keep, keep)), scale=1.0 / 255.0), colour, dst=colour)
    region[:] = colour


def _cast_shadow(frame: np.ndarray, alpha: np.ndarray, left: int, top: int) -> None:
    """Darkens the ground below and to the right of a sprite, softly, in place."""
    height, width = frame.shape[:2]
    reach = max(2, len(alpha) // 14)
    rows, columns, part_rows, part_columns = _overlap(left + reach, top + reach, alpha, height, width)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    soft = cv2.blur(alpha, (2 * reach + 1, 2 * reach + 1))[part_rows, part_columns]
    keep = cv2.convertScaleAbs(soft, alpha=-0.42, beta=0.0)
    keep = cv2.bitwise_not(keep)
    region = frame[rows, columns]
    region[:] = cv2.multiply(region, cv2.merge((keep, keep, keep)), scale=1.0 / 255.0)


def _far_to_near(scene: Scene, t: int) -> Iterator[Actor]:
    """The actors that the scene shows at frame t, farthest first."""
    return (actor for actor in sorted(scene.actors, key=lambda one: (one.depth, one.id)) if actor.visible[t])


def _draw_actor(scene: Scene, actor: Actor, t: int, frame: np.ndarray, ids: np.ndarray) -> None:
    """Lays one actor and its id over what is drawn so far, in place."""
    height, width = ids.shape
    patch, left, top = _patch(scene, actor, t, height, width)
    rows, columns, part_rows, part_columns = _overlap(left, top, patch, height, width)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    alpha = cv2.extractChannel(patch, 3)
    ids[rows, columns][alpha[part_rows, part_columns] > 127] = actor.id
    if scene.effects["shadow"]:
        _cast_shadow(frame, alpha, left, top)
    part = np.ascontiguousarray(_smear(scene, actor, t, patch, (width, height))[part_rows, part_columns])
    colour = cv2.cvtColor(part, cv2.COLOR_RGBA2RGB)
    gain = _gain(scene, actor, t)
    if gain != 1.0:
        colour = cv2.convertScaleAbs(colour, alpha=gain)
    _over(frame[rows, columns], colour, cv2.extractChannel(part, 3))


@lru_cache(maxsize=8)
def _noise_tile(height: int, width: int) -> np.ndarray:
    """Gaussian noise about 128, a little larger than the frame, uint8 (height + 61, width + 61, 3); read-only."""
    rng = np.random.default_rng(np.random.SeedSequence([height, width]))
    size = (height + _TILE_MARGIN, width + _TILE_MARGIN, 3)
    tile = np.clip(np.round(128.0 + _TILE_SIGMA * rng.standard_normal(size, np.float32)), 0, 255).astype(np.uint8)
    tile.setflags(write=False)
    return tile


def _lens(scene: Scene, t: int, frame: np.ndarray) -> np.ndarray:
    """What camera and codec do to a frame: contrast, noise, JPEG compression."""
    effects = scene.effects
    contrast, noise = effects["contrast"], effects["noise"] / _TILE_SIGMA
    height, width = frame.shape[:2]
    if noise or contrast != 1.0:
        y = (scene.seed * 31 + t * 17) % _TILE_MARGIN
        x = (scene.seed * 13 + t * 29) % _TILE_MARGIN
        tile = _noise_tile(height, width)[y : y + height, x : x + width]
        frame = cv2.addWeighted(frame, contrast, tile, noise, 128.0 * (1.0 - contrast) - 128.0 * noise)
    if effects["jpeg"]:
        options = [cv2.IMWRITE_JPEG_QUALITY, int(effects["jpeg"])]
        _, code = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), options)
        frame = cv2.cvtColor(cv2.imdecode(code, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return frame


def render(
    scene: Scene, t: int, height: int, width: int, ground: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one frame of a scene.

    Args:
        scene: what to draw.
        t: frame index, 0 to `scene.frames` - 1.
        height: rows of the frame.
        width: columns of the frame.
        ground: uint8 (height, width, 3), in the place of the scene's background, which takes most of the time to draw.

    Returns:
        The frame, uint8 (height, width, 3) RGB, and its id map, uint8 (height, width): 0 where the background or only
        the faint edge of a sprite is seen, otherwise the id of the nearest actor whose alpha is above one half.
    """
    frame = background(scene, t, height, width) if ground is None else ground.copy()
    ids = np.zeros((height, width), np.uint8)
    for actor in _far_to_near(scene, t):
        _draw_actor(scene, actor, t, frame, ids)
    return _lens(scene, t, frame), ids


def render_clip(scene: Scene, height: int, width: int) -> Clip:
    """Draws a whole scene.

    Args:
        scene: what to draw.
        height: rows of every frame.
        width: columns of every frame.

    Returns:
        The clip, named "split-seed", with the scene itself under `meta["scene"]`.
    """
    frames = np.empty((scene.frames, height, width, 3), np.uint8)
    ids = np.empty((scene.frames, height, width), np.uint8)
    for t in range(scene.frames):
        frames[t], ids[t] = render(scene, t, height, width)
    return Clip(frames, ids, scene.fps, f"{scene.split}-{scene.seed}", {"scene": scene})


def boxes_of(ids: np.ndarray) -> dict[int, tuple[float, float, float, float]]:
    """The box of every id that is seen.

    Args:
        ids: uint8 (height, width).

    Returns:
        id -> (x1, y1, x2, y2) in pixels with edges: one pixel at the origin has the box 0, 0, 1, 1.
    """
    boxes = {}
    for label in np.flatnonzero(np.bincount(ids.ravel(), minlength=1)[1:]) + 1:
        x, y, width, height = cv2.boundingRect(cv2.compare(ids, float(label), cv2.CMP_EQ))
        boxes[int(label)] = (float(x), float(y), float(x + width), float(y + height))
    return boxes


def visible_fractions(scene: Scene, t: int, height: int, width: int, ids: np.ndarray) -> dict[int, float]:
    """How much of each actor is seen.

    Args:
        scene: the scene drawn.
        t: frame index.
        height: rows of the frame.
        width: columns of the frame.
        ids: the id map of that frame, uint8 (height, width).

    Returns:
        id -> visible area over the area that the actor would have were nothing before it and the frame endless;
        0 for an actor that is not there.
    """
    seen = np.bincount(ids.ravel(), minlength=len(scene.actors) + 1)
    fractions = {actor.id: 0.0 for actor in scene.actors}
    for actor in _far_to_near(scene, t):
        patch, _, _ = _patch(scene, actor, t, height, width)
        whole = int(np.count_nonzero(patch[..., 3] > 127))
        fractions[actor.id] = float(seen[actor.id]) / whole if whole else 0.0
    return fractions
