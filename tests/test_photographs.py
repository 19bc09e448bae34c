"""Photographs in domain-randomised clips: folders of pictures are read by what they are, where they are named."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from trackgpt.errors import InputError
from trackgpt.synthtrack.photographs import open_photographs
from trackgpt.synthtrack.randomised import randomised_clip
from trackgpt.synthtrack.silhouettes import CANVAS
from train.config import MemoryConfig, Shape
from train.memory_tracking import MemoryTrackingStage

ORANGE = (240, 120, 10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole orange picture, an orange disc of radius 40 on transparent black, and a picture too small to use."""
    Image.new("RGB", (200, 100), ORANGE).save(tmp_path / "wall.png")
    disc = np.zeros((100, 120, 4), np.uint8)
    cv2.circle(disc, (60, 50), 40, (*ORANGE, 255), -1)
    (tmp_path / "below").mkdir()
    Image.fromarray(disc).save(tmp_path / "below" / "disc.png")
    Image.new("RGB", (20, 20)).save(tmp_path / "small.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_a_picture_with_a_transparent_background_is_a_thing_and_others_are_grounds(folder):
    found = open_photographs((str(folder),))
    assert found.whole == ((folder / "wall.png",),)
    assert found.things == (folder / "below" / "disc.png",)


def test_a_picture_whose_alpha_hides_nothing_is_a_ground(tmp_path):
    Image.new("RGBA", (80, 80), (*ORANGE, 255)).save(tmp_path / "a.png")
    assert open_photographs((str(tmp_path),)).whole == ((tmp_path / "a.png",),)


def test_no_folder_is_no_photographs():
    assert open_photographs(()) is None


def test_a_thing_fills_its_canvas_and_keeps_its_colour_beyond_its_edge(folder):
    picture = open_photographs((str(folder),)).thing(np.random.default_rng(0))
    assert picture.shape == (CANVAS, CANVAS, 4)
    disc = np.pi * ((CANVAS - 12) / 2) ** 2
    assert (picture[..., 3] > 127).sum() == pytest.approx(disc, rel=0.03)
    assert not picture[[0, -1], :, 3].any()
    assert not picture[:, [0, -1], 3].any()
    middle = picture[CANVAS // 2, CANVAS // 2, :3].astype(int)
    edge = picture[(picture[..., 3] > 20) & (picture[..., 3] < 128)][:, :3].astype(int)
    assert np.abs(edge - middle).max() <= 12  # black of the hidden part would be 240 away


@pytest.mark.parametrize("side", [16, 256])
def test_a_ground_is_a_square_of_the_photograph(folder, side):
    cut = open_photographs((str(folder),)).ground(np.random.default_rng(0), 5, side)
    assert cut.shape == (side, side, 3)
    assert (cut == ORANGE).all()


def test_a_long_thin_photograph_gives_squares_as_high_as_it_is(tmp_path):
    Image.new("RGB", (7000, 48), ORANGE).save(tmp_path / "rope.png")  # 1024 x 7 when it is kept
    photographs = open_photographs((str(tmp_path),))
    for seed in range(5):
        assert (photographs.ground(np.random.default_rng(seed), 0, 64) == ORANGE).all()


def test_a_thing_of_which_little_is_seen_is_left_out(tmp_path):
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[10:20, 10:20] = 255
    Image.fromarray(picture).save(tmp_path / "speck.png")
    with pytest.raises(InputError, match="no usable photograph"):
        open_photographs((str(tmp_path),))


def test_clips_with_photographs_are_the_same_twice_and_show_them(folder):
    folders = (str(folder),)
    once = [randomised_clip(seed, 2, 64, photographs=folders) for seed in range(8)]
    again = [randomised_clip(seed, 2, 64, photographs=folders) for seed in reversed(range(8))][::-1]
    drawn = [randomised_clip(seed, 2, 64) for seed in range(8)]
    for a, b in zip(once, again, strict=True):
        assert np.array_equal(a.frames, b.frames)
        assert np.array_equal(a.ids, b.ids)
    hue = [cv2.cvtColor(np.concatenate(c.frames), cv2.COLOR_RGB2HSV) for clips in (once, drawn) for c in clips]
    orange = [((h[..., 0] > 8) & (h[..., 0] < 20) & (h[..., 1] > 180)).mean() for h in hue]
    assert np.mean(orange[:8]) > 0.15 > np.mean(orange[8:])


def test_the_memory_stage_draws_from_the_folders_of_its_config(folder):
    shape = Shape(side=64, frames=2, targets=1)
    stages = [
        MemoryTrackingStage(None, shape, MemoryConfig(photographs=named, echo=1), "cpu", steps=object())
        for named in ([str(folder)], [])
    ]
    with_them, without = (stage.sample(3)["frames"] for stage in stages)
    assert np.array_equal(with_them, randomised_clip(3, 2, 64, 1, (str(folder),)).frames)
    assert not np.array_equal(with_them, without)


def test_folders_that_are_missing_or_of_no_use_are_named(tmp_path):
    with pytest.raises(InputError, match="gone: no such folder"):
        open_photographs((str(tmp_path / "gone"),))
    Image.new("RGB", (20, 20)).save(tmp_path / "small.png")
    with pytest.raises(InputError, match="no usable photograph"):
        open_photographs((str(tmp_path),))


def test_a_damaged_picture_is_named(tmp_path):
    Image.new("RGBA", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with pytest.raises(InputError, match=r"a\.png: is no picture that can be read"):
        open_photographs((str(tmp_path),))
