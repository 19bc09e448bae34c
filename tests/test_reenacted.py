"""Clips that reenact one picture: the object of a mask over its own surroundings, and what cannot be a subject."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from trackgpt.errors import InputError, UsageError
from trackgpt.geometry.masks import box_of
from trackgpt.synthtrack.randomised import randomised_clip
from trackgpt.synthtrack.reenacted import subject_of
from trackgpt.synthtrack.silhouettes import CANVAS
from train.config import MemoryConfig, Shape
from train.first_frames import app
from train.memory_tracking import MemoryTrackingStage, open_subject

ORANGE, GREEN = (240, 120, 10), (20, 160, 60)


def disc(width: int = 160, height: int = 120, radius: int = 25) -> tuple[np.ndarray, np.ndarray]:
    """A picture of an orange disc on green, and the disc's mask."""
    picture = np.full((height, width, 3), GREEN, np.uint8)
    mask = np.zeros((height, width), np.uint8)
    cv2.circle(mask, (60, 50), radius, 1, -1)
    picture[mask > 0] = ORANGE
    return picture, mask > 0


@pytest.mark.parametrize("scale", [1, 6])
def test_a_subject_fills_its_canvas_and_its_surroundings_show_nothing_of_it(scale):
    picture, mask = (np.repeat(np.repeat(part, scale, 0), scale, 1) for part in disc())
    subject = subject_of(picture, mask)
    alpha = subject.pictures[0, ..., 3] > 127
    assert subject.pictures.shape == (1, CANVAS, CANVAS, 4)
    assert alpha.sum() == pytest.approx(np.pi * (CANVAS / 1.12 / 2) ** 2, rel=0.05)
    inside = cv2.erode(alpha.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    assert np.abs(subject.pictures[0][inside][:, :3].astype(int) - ORANGE).max() <= 3
    assert np.abs(subject.surroundings.astype(int) - GREEN).max() <= 15  # of 220, where the picture was shrunk
    per_pixel = subject.surroundings.shape[1] / 160
    assert subject.middle == pytest.approx((60.5 * per_pixel, 50.5 * per_pixel), rel=0.01)


@pytest.mark.parametrize("radius", [2, 6, 25])
def test_surroundings_are_kept_as_far_as_clips_may_show_them_however_small_the_object(radius):
    picture, mask = disc(2000, 1000, radius)
    assert max(subject_of(picture, mask).surroundings.shape) <= 8.2 * CANVAS
    assert randomised_clip(0, 2, 64, 1, subject_of(picture, mask)).ids.any()


def test_a_thin_line_and_specks_far_apart_are_refused():
    picture, line = disc(1200, 600)
    line = np.zeros_like(line)
    line[300, 100:1100] = True
    specks = np.zeros_like(line)
    specks[[100, 500], [100, 1100]] = True
    for mask in (line, specks):
        with pytest.raises(UsageError, match="of the square around it; wanted 2 % or more; take specks"):
            subject_of(picture, mask)


def test_the_target_of_every_clip_is_the_subject():
    subject = subject_of(*disc())
    for seed in range(6):
        clip = randomised_clip(seed, 3, 96, objects=1, subject=subject)
        first = clip.frames[0][clip.ids[0] == 1].astype(float).mean(0)
        tone = first / np.linalg.norm(first)
        assert tone @ (np.array(ORANGE) / np.linalg.norm(ORANGE)) > 0.9  # but for the light of the clip and occluders
        again = randomised_clip(seed, 3, 96, objects=1, subject=subject_of(*disc()))
        assert np.array_equal(clip.frames, again.frames)
    assert not np.array_equal(randomised_clip(0, 2, 96).frames, randomised_clip(0, 2, 96, subject=subject).frames)


def test_the_memory_stage_reenacts_the_picture_that_its_config_shows(tmp_path):
    picture, mask = disc()
    Image.fromarray(picture).save(tmp_path / "frame.png")
    Image.fromarray(mask.astype(np.uint8)).save(tmp_path / "mask.png")
    shown = [str(tmp_path / "frame.png"), str(tmp_path / "mask.png")]
    stage = MemoryTrackingStage(None, Shape(side=64, frames=2, targets=1), MemoryConfig(shown=shown), "cpu", object())
    assert np.array_equal(stage.sample(6)["frames"], randomised_clip(3, 2, 64, 1, subject_of(picture, mask)).frames)


def test_what_cannot_be_a_subject_is_named(tmp_path):
    picture, mask = disc()
    with pytest.raises(UsageError, match="a mask of 160 x 120 pixels, 0 of them set"):
        subject_of(picture, np.zeros_like(mask))
    with pytest.raises(UsageError, match="a mask of 80 x 120 pixels, .* for a picture of 160 x 120"):
        subject_of(picture, mask[:, :80])
    with pytest.raises(UsageError, match="memory.shown: wanted a picture and the mask of its object, found 1 files"):
        open_subject(["frame.jpg"])
    with pytest.raises(InputError, match=r"gone\.png"):
        open_subject(["frame.jpg", str(tmp_path / "gone.png")])
    Image.fromarray(mask.astype(np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"gone\.jpg"):
        open_subject([str(tmp_path / "gone.jpg"), str(tmp_path / "mask.png")])
    Image.fromarray(picture[:60]).save(tmp_path / "half.png")
    with pytest.raises(UsageError, match=r"^memory.shown: .*mask\.png: a mask of 160 x 120 pixels"):
        open_subject([str(tmp_path / "half.png"), str(tmp_path / "mask.png")])


def test_an_object_at_the_edge_of_its_picture_is_one():
    picture, mask = disc()
    subject = subject_of(picture[:, 40:], mask[:, 40:])
    x1, _, x2, _ = box_of(subject.pictures[0, ..., 3] > 127)
    assert (x1 + x2) / 2 == pytest.approx(CANVAS / 2, abs=2)


@pytest.mark.parametrize("prompt", ["mask", "box"])
def test_each_sequence_of_davis_is_followed_by_a_network_that_learned_from_its_first_frame(tmp_path, prompt):
    picture, mask = disc()
    for t in range(4):
        for kind, part, name in (("JPEGImages", picture, f"{t:05}.jpg"), ("Annotations", mask * 255, f"{t:05}.png")):
            place = tmp_path / "DAVIS" / kind / "240p" / "disc"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.roll(part, (0, 3 * t), (0, 1)).astype(np.uint8)).save(place / name)
    small = [f"--set={each}" for each in ("plan.steps=1", "plan.batch=1", "shape.side=64", "shape.frames=2")]
    asked = ["--resolution", "240p", "--prompt", prompt, "--out", str(tmp_path / "out"), *small]
    done = CliRunner().invoke(app, ["--data", str(tmp_path / "DAVIS"), *asked], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    last = dict(each.split("=") for each in done.stdout.splitlines()[-1].split() if "=" in each)
    assert float(last["J"]) > 60
    learned = np.asarray(Image.open(tmp_path / "out/models/disc.png"))
    assert (learned > 0).sum() == pytest.approx(mask.sum(), rel=0.2)
    assert (tmp_path / "out/models/disc/model/model.safetensors").exists()
