"""Clips that reenact one picture: its object moves over its own surroundings, among drawn things.

A tracker that learns from them for a minute knows this object and what lies beside it before the video begins: the idea
of OSVOS (Caelles et al. 2017), which learns from the first frame, with the clips of lucid dreaming (Khoreva et al.
2017). Motions are those of the domain-randomised clips.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from trackgpt.errors import UsageError
from trackgpt.geometry.masks import box_of
from trackgpt.synthtrack.silhouettes import CANVAS, spread_colours

Rng = np.random.Generator
ROOM = 1.12
"""Side of the canvas in longer sides of the object."""
FARTHEST = 4.0
"""How far from the object's middle surroundings are kept, in canvases: what lies farther away is hardly in a clip."""
LEAST = 0.02
"""Share of its canvas that an object fills: of thinner ones, and of specks far apart, no clip shows enough."""


@dataclass(frozen=True, eq=False)
class Subject:
    """An object of a picture, and the picture without it.

    Attributes:
        pictures: uint8 (1, CANVAS, CANVAS, 4) RGBA, the object in the middle; colours go on beyond its edge.
        surroundings: uint8 (height, width, 3), at the same scale, what it hid filled in from around it.
        middle: of the object there, x and y in pixels.
    """

    pictures: np.ndarray
    surroundings: np.ndarray
    middle: tuple[float, float]

    def background(self, rng: Rng, side: int, size: float) -> np.ndarray:
        """What lies around the object, uint8 (2 x side, 2 x side, 3), mirrored beyond the picture's edge.

        Args:
            rng: decides how far from its place the object begins, often nowhere.
            side: of a clip's frames, pixels; the object's place comes to the middle.
            size: of its canvas, in frame sides.
        """
        scale = size * side / CANVAS
        away = rng.normal(0, rng.choice([0.0, 0.1, 0.5]), 2) * side
        move = np.array(
            [
                [scale, 0, side - scale * self.middle[0] + away[0]],
                [0, scale, side - scale * self.middle[1] + away[1]],
            ]
        )
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        filled = cv2.warpAffine(
            self.surroundings, move, (2 * side, 2 * side), flags=how, borderMode=cv2.BORDER_REFLECT_101
        )
        return np.asarray(filled)


def subject_of(picture: np.ndarray, mask: np.ndarray) -> Subject:
    """The object of a picture.

    Args:
        picture: uint8 RGB (height, width, 3).
        mask: bool (height, width), the object.

    Raises:
        UsageError: the mask is empty, of another size, or of something too thin.
    """
    if mask.shape != picture.shape[:2] or not mask.any():
        raise UsageError(
            f"a mask of {mask.shape[1]} x {mask.shape[0]} pixels, {int(mask.sum())} of them set, for a picture of "
            f"{picture.shape[1]} x {picture.shape[0]}; wanted the object on the same picture"
        )
    x1, y1, x2, y2 = box_of(mask)
    canvas = ROOM * max(x2 - x1, y2 - y1)
    left, top = (max(0, int((a + b) / 2 - FARTHEST * canvas)) for a, b in ((x1, x2), (y1, y2)))
    right, bottom = (int((a + b) / 2 + FARTHEST * canvas) + 1 for a, b in ((x1, x2), (y1, y2)))
    picture, mask = picture[top:bottom, left:right], mask[top:bottom, left:right]
    scale, middle = CANVAS / canvas, ((x1 + x2) / 2 - left, (y1 + y2) / 2 - top)
    cut = np.array([[scale, 0, CANVAS / 2 - scale * middle[0]], [0, scale, CANVAS / 2 - scale * middle[1]]])
    alpha = cv2.warpAffine(mask.astype(np.uint8) * 255, cut, (CANVAS, CANVAS), flags=cv2.INTER_LINEAR)
    share = float((alpha > 127).mean())
    if share < LEAST:
        raise UsageError(
            f"a mask that fills {100 * share:.1f} % of the square around it; wanted {100 * LEAST:g} % or more; take "
            "specks out of it"
        )
    rgb = cv2.warpAffine(picture, cut, (CANVAS, CANVAS), flags=cv2.INTER_LINEAR)
    rgb = spread_colours(rgb, alpha)
    without = _filled_in(picture, mask)
    shape = (max(2, round(picture.shape[1] * scale)), max(2, round(picture.shape[0] * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    surroundings = cv2.resize(without, shape, interpolation=how)
    return Subject(cv2.merge([*cv2.split(rgb), alpha])[None], surroundings, (middle[0] * scale, middle[1] * scale))


def _filled_in(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A picture without an object: what it hid, and a rim, filled in from around it, uint8 (height, width, 3)."""
    reach = max(3, round(0.02 * max(picture.shape[:2])))
    wide = cv2.dilate(mask.astype(np.uint8), np.ones((reach, reach), np.uint8))
    small = min(1.0, 480 / max(picture.shape[:2]))  # filling in is slow, and what it makes is smooth
    size = (max(1, round(picture.shape[1] * small)), max(1, round(picture.shape[0] * small)))
    hole = cv2.resize(wide, size, interpolation=cv2.INTER_NEAREST)
    patch = cv2.inpaint(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), hole, 3, cv2.INPAINT_TELEA)
    patch = cv2.resize(patch, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.where(wide[..., None] > 0, patch, picture)
