"""Domain-randomised clips, for masks of any object: shapes and textures of all sorts instead of SynthTrack's world.

They teach a tracker to carry a mask over real video without showing it any: people and animals that move their limbs,
look-alikes, occluders, a shaking camera. Real objects resemble none of these things, but differ from each other less
than these do.
"""

from __future__ import annotations

import numpy as np

from trackgpt.errors import UsageError
from trackgpt.synthtrack.painting import Staged, draw
from trackgpt.synthtrack.reenacted import Subject
from trackgpt.synthtrack.staging import stage
from trackgpt.synthtrack.textures import TextureWindow
from trackgpt.types import Clip

SHARES = (0.004, 0.6)
"""Least and largest share of frame 0 that the target may cover; the least holds for the other objects, too."""

MOST_TRIES = 500
"""Scenes of a seed that are made up; a drawn target is seen well in one of three."""
_RENEWAL = 32  # seeds for which a window of textures stays
_CLIPS = 103  # keeps the random numbers of clips and of textures apart


def _scene(seed: int, frames: int, side: int, subject: Subject | None) -> tuple[Staged, tuple[np.ndarray, np.ndarray]]:
    """The first scene of a seed whose target is seen well on frame 0, and that frame with its ids."""
    window = TextureWindow(seed // _RENEWAL)
    for attempt in range(MOST_TRIES):
        scene = stage(np.random.default_rng([seed, attempt, _CLIPS]), window, frames, side, subject)
        first = draw(scene, 0)
        share = float((first[1] == 1 + _index(scene)).mean())
        if SHARES[0] < share < SHARES[1]:
            return scene, first
    raise UsageError(f"clip {seed}: no scene of {MOST_TRIES} shows its target well; show another mask")


def _index(scene: Staged) -> int:
    """Position of the target among the layers."""
    return next(k for k, item in enumerate(scene.layers) if item is scene.target)


def _identities(scene: Staged, first: np.ndarray, objects: int) -> np.ndarray:
    """The id of each label of `draw`, uint8 (256,): the target, then a look-alike, then others seen on frame 0."""
    ids, index = np.zeros(256, np.uint8), _index(scene)
    shares = np.bincount(first.ravel(), minlength=256) / first.size
    others = [k for k in range(len(scene.layers)) if k != index and shares[k + 1] >= SHARES[0]]
    others.sort(key=lambda k: scene.layers[k] is not scene.look_alike)  # stable: the rest stay from far to near
    for number, k in enumerate([index, *others][:objects]):
        ids[k + 1] = number + 1
    return ids


def randomised_clip(seed: int, frames: int, side: int, objects: int = 2, subject: Subject | None = None) -> Clip:
    """A clip of made-up things, the same for the same arguments in every process and order.

    Neighbouring seeds are quicker than scattered ones, because they share textures in the cache.

    Args:
        seed: 0 or more; it decides on everything.
        frames: T, at least 1; from 5 on, the target leaves and returns in some clips.
        side: of the frames in pixels, at least 32.
        objects: how many things may have an id, the target included; 1 to 8.
        subject: of a picture, the target of every clip (see `trackgpt.synthtrack.reenacted`); None for drawn ones.

    Returns:
        frames uint8 (T, side, side, 3) and ids uint8 (T, side, side) of visible pixels: 1 is the target, which covers
        0.4 % to 60 % of frame 0; 2 and more are other moving things with at least 0.4 % of it, a look-alike first.

    Raises:
        UsageError: an argument out of its range.
    """
    if seed < 0 or frames < 1 or side < 32 or not 1 <= objects <= 8:
        raise UsageError(
            f"seed {seed}, {frames} frames, {side} px, {objects} objects: the seed must not be negative, and a clip "
            "has at least 1 frame, 32 px and 1 to 8 objects"
        )
    scene, first = _scene(seed, frames, side, subject)
    drawn = [first, *(draw(scene, k) for k in range(1, frames))]
    ids = _identities(scene, first[1], objects)
    return Clip(np.stack([f for f, _ in drawn]), ids[np.stack([i for _, i in drawn])], name=f"randomised-{seed}")
