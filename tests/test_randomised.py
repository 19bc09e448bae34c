"""Domain-randomised clips: a pure function of their arguments, whose ids tell the truth about the pixels."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest

from trackgpt.errors import UsageError
from trackgpt.synthtrack import figures, textures
from trackgpt.synthtrack.painting import Staged, draw
from trackgpt.synthtrack.randomised import SHARES, randomised_clip
from trackgpt.synthtrack.staging import stage
from trackgpt.synthtrack.textures import TextureWindow
from trackgpt.types import Clip


def _digest(clip: Clip) -> str:
    return hashlib.sha256(clip.frames.tobytes() + clip.ids.tobytes()).hexdigest()


def _scene(seed: int) -> Staged:
    """A scene of 3 frames of 64 px through a clear lens that casts no shadow."""
    scene = stage(np.random.default_rng(seed), TextureWindow(0), 3, 64)
    scene.lens = replace(scene.lens, shade=None, sigma=0, blur=0, soft=0, exposure=0, quality=0, shadow=False)
    return scene


def _target_label(scene: Staged) -> int:
    return 1 + next(k for k, item in enumerate(scene.layers) if item is scene.target)


def test_the_same_arguments_give_the_same_bits_in_another_order_and_with_empty_caches() -> None:
    seeds = (5, 6, 40)
    before = {seed: _digest(randomised_clip(seed, 5, 48)) for seed in seeds}
    textures.texture.cache_clear()
    textures.plain.cache_clear()
    assert {seed: _digest(randomised_clip(seed, 5, 48)) for seed in reversed(seeds)} == before
    assert len(set(before.values())) == len(seeds)


def test_another_process_draws_the_same_bits() -> None:
    program = (
        "import hashlib; from trackgpt.synthtrack.randomised import randomised_clip; c = randomised_clip(9, 2, 48); "
        "print(hashlib.sha256(c.frames.tobytes() + c.ids.tobytes()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == _digest(randomised_clip(9, 2, 48))


@pytest.mark.parametrize(("frames", "side", "objects"), [(1, 32, 1), (4, 64, 2), (6, 48, 4)])
def test_a_clip_has_the_asked_shapes_and_ids(frames: int, side: int, objects: int) -> None:
    for seed in range(8):
        clip = randomised_clip(seed, frames, side, objects)
        assert clip.frames.shape == (frames, side, side, 3)
        assert clip.ids.shape == (frames, side, side)
        assert clip.frames.dtype == clip.ids.dtype == np.uint8
        assert set(np.unique(clip.ids)) <= set(range(objects + 1))


def test_every_object_with_an_id_is_seen_well_on_the_first_frame() -> None:
    more = 0
    for seed in range(40):
        clip = randomised_clip(seed, 2, 48, objects=3)
        shares = np.bincount(clip.ids[0].ravel(), minlength=4) / clip.ids[0].size
        assert SHARES[0] < shares[1] < SHARES[1]
        later = [number for number in (2, 3) if (clip.ids == number).any()]
        assert all(shares[number] >= SHARES[0] for number in later)
        more += bool(later)
    assert more > 10


def test_asking_for_more_objects_changes_no_pixel_and_no_earlier_id() -> None:
    for seed in range(6):
        few, many = randomised_clip(seed, 3, 48, objects=1), randomised_clip(seed, 3, 48, objects=4)
        assert np.array_equal(few.frames, many.frames)
        assert np.array_equal(few.ids == 1, many.ids == 1)


def test_the_targets_colours_show_inside_its_mask_and_nowhere_else() -> None:
    for seed in range(12):
        scene = _scene(seed)
        frame, ids = draw(scene, 1)
        other = scene.target.pictures.copy()
        other[..., :3] = np.where(other[..., :3] > 127, 0, 255)
        scene.target.pictures = other
        changed = (draw(scene, 1)[0] != frame).any(-1)
        mask = (ids == _target_label(scene)).astype(np.uint8)
        assert changed[mask > 0].sum() >= 0.95 * mask.sum()
        assert changed[cv2.dilate(mask, np.ones((5, 5), np.uint8)) == 0].mean() <= 0.01


def test_what_lies_in_front_hides_the_target() -> None:
    scene = _scene(3)
    before = draw(scene, 0)[1] == _target_label(scene)
    assert before.any()
    front = replace(scene.target, known=False)
    scene.layers.append(front)
    assert not (draw(scene, 0)[1] == _target_label(scene)).any()


def test_in_some_of_a_hundred_clips_the_target_disappears_and_returns() -> None:
    returns = 0
    for seed in range(100):
        seen = (randomised_clip(seed, 5, 32).ids == 1).any((1, 2))
        gone = np.flatnonzero(~seen)
        returns += bool(len(gone) and seen[gone[0] :].any())
    assert 3 <= returns <= 40


def test_limbs_move_while_the_body_stays() -> None:
    changes = []
    for seed in range(6):
        pictures = figures.figure(np.random.default_rng(seed), TextureWindow(0), 4)
        assert pictures.shape[0] == 4
        masks = pictures[..., 3] > 127
        union, common = masks.any(0).sum(), masks.all(0).sum()
        assert common > 0.15 * union
        changes.append(1 - common / union)
    assert np.median(changes) > 0.1


def test_figures_fit_their_pictures() -> None:
    for seed in range(12):
        alpha = figures.figure(np.random.default_rng(seed), TextureWindow(0), 3)[..., 3]
        assert not alpha[:, [0, -1]].any()
        assert not alpha[:, :, [0, -1]].any()


def test_a_texture_is_its_numbers_alone_and_cannot_be_spoilt() -> None:
    first = textures.texture(7).copy()
    textures.texture.cache_clear()
    textures.plain.cache_clear()
    assert np.array_equal(textures.texture(7), first)
    assert not np.array_equal(textures.texture(7), textures.texture(8))
    assert not textures.texture(7).flags.writeable


@pytest.mark.parametrize("arguments", [(-1, 4, 64, 2), (0, 0, 64, 2), (0, 4, 16, 2), (0, 4, 64, 0), (0, 4, 64, 9)])
def test_senseless_arguments_are_refused(arguments: tuple[int, int, int, int]) -> None:
    with pytest.raises(UsageError, match="the seed must not be negative"):
        randomised_clip(*arguments)
