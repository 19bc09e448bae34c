"""Clips of real video with masks for the stage "memory", and what its unrolling makes of nano."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from mask_sets import SIZE, write_davis, write_sequence, write_vos
from PIL import Image

from trackgpt.config import MaskPropagationConfig
from trackgpt.errors import InputError
from trackgpt.perception.mask_propagation import MaskPropagation
from train.config import MemoryConfig, Shape
from train.memory_sets import RealClips, open_mask_videos, steps
from train.memory_tracking import MemoryTrackingStage

SHAPE = Shape(side=32, frames=4, targets=2)
CPU = torch.device("cpu")


def tiny():
    """A small network with random weights."""
    torch.manual_seed(0)
    return MaskPropagation(
        MaskPropagationConfig(channels=[8, 8, 16, 16], blocks=[1, 1, 1, 1], width=32, key=16, value=16, side=32)
    )


def names(folder):
    return [video.masks.name for video in open_mask_videos(folder)]


def same(one, other):
    return all(np.array_equal(one[key], other[key]) for key in ("frames", "ids"))


@pytest.mark.parametrize("size", ["480p", "Full-Resolution"])
def test_of_davis_only_the_sequences_of_its_training_list_are_used(tmp_path, size):
    assert names(write_davis(tmp_path, size=size)) == ["bear", "goat"]


def test_a_folder_without_a_list_is_used_whole(tmp_path):
    root = write_davis(tmp_path)
    (root / "ImageSets/2017/train.txt").unlink()
    assert names(root) == ["bear", "goat", "heldout"]


@pytest.mark.parametrize(("every", "frames"), [(5, 4), (1, 16)], ids=["YouTube-VOS", "MOSE"])
def test_of_youtube_vos_and_mose_the_training_part_is_used_and_of_it_the_frames_that_have_masks(
    tmp_path, every, frames
):
    root = write_vos(tmp_path, every)
    assert names(root) == names(root / "train") == ["0a1b", "0c2d"]
    for video in open_mask_videos(root):
        found = video.frames()
        assert len(found) == frames
        assert [picture.stem for picture, _ in found] == [mask.stem for _, mask in found]


@pytest.mark.parametrize("whole", [False, True], ids=["windows", "whole frames"])
def test_a_clip_is_a_function_of_its_seed_alone(tmp_path, whole):
    root = str(write_davis(tmp_path))
    one, other = (RealClips([root], SHAPE, whole) for _ in range(2))
    clips = [one.sample(seed) for seed in range(8)]
    assert all(same(other.sample(seed), clips[seed]) for seed in (5, 0, 7))
    assert not all(same(clips[0], clip) for clip in clips[1:])


@pytest.mark.parametrize("whole", [False, True], ids=["windows", "whole frames"])
def test_masks_lie_on_the_objects_whose_they_are_and_void_is_none(tmp_path, whole):
    clips = RealClips([str(write_davis(tmp_path))], SHAPE, whole)
    seen = set()
    for seed in range(12):
        clip = clips.sample(seed)
        assert clip["frames"].shape == (4, 32, 32, 3)
        assert (clip["ids"][0] == 1).mean() >= 0.004
        seen |= set(np.unique(clip["ids"]).tolist())
        for number in set(np.unique(clip["ids"]).tolist()) - {0}:
            colours = clip["frames"][clip["ids"] == number].reshape(-1, 3).mean(0)
            assert max(colours[0], colours[2]) - min(colours[0], colours[2]) > 60
    assert seen == ({0, 1, 2} if whole else seen | {0, 1})


def test_a_window_is_some_sizes_of_the_target_wide_and_follows_it(tmp_path):
    write_sequence(tmp_path / "JPEGImages/a", tmp_path / "Annotations/a", count=12)
    clips = RealClips([str(tmp_path)], replace(SHAPE, side=64, frames=8, targets=1), whole=False)
    for seed in range(8):
        ids = clips.sample(seed)["ids"]
        assert 0.04 < (ids[0] == 1).mean() < 0.7
        assert all((each == 1).any() for each in ids)


def test_a_sequence_that_is_too_short_runs_back_and_forth(tmp_path):
    for seed in range(20):
        found = steps(np.random.default_rng(seed), 3, 8)
        assert len(found) == 8
        assert set(found) == {0, 1, 2}
        assert all(abs(a - b) == 1 for a, b in zip(found, found[1:], strict=False))
        long = steps(np.random.default_rng(seed), 100, 8)
        apart = np.diff(long)
        assert len(set(apart.tolist())) == 1
        assert abs(apart[0]) in (1, 2, 3)


def test_one_mask_of_0_and_255_is_one_object(tmp_path):
    write_sequence(tmp_path / "JPEGImages/a", tmp_path / "Annotations/a", count=4)
    for file in (tmp_path / "Annotations/a").iterdir():
        Image.fromarray(np.where(np.asarray(Image.open(file)) == 1, 255, 0).astype(np.uint8)).save(file)
    clip = RealClips([str(tmp_path)], SHAPE, whole=True).sample(0)
    assert set(np.unique(clip["ids"]).tolist()) == {0, 1}


@pytest.mark.parametrize("damage", ["cut off", "another size", "picture cut off", "missing"])
def test_a_broken_or_missing_mask_or_picture_is_an_input_error(tmp_path, damage):
    write_sequence(tmp_path / "JPEGImages/a", tmp_path / "Annotations/a", count=3)
    clips = RealClips([str(tmp_path)], SHAPE, whole=True)
    assert clips.sample(0)
    for file in (tmp_path / "Annotations/a").iterdir():
        picture = tmp_path / "JPEGImages/a" / f"{file.stem}.jpg"
        if damage == "cut off":
            file.write_bytes(file.read_bytes()[:-30])
        elif damage == "another size":
            Image.open(file).resize((SIZE[1] // 2, SIZE[0] // 2)).save(file)
        elif damage == "picture cut off":
            picture.write_bytes(picture.read_bytes()[:200])
        else:
            file.unlink()
    with pytest.raises(InputError):
        clips.sample(0)


@pytest.mark.parametrize("lacks", ["JPEGImages", "Annotations", "Annotations/480p/goat", "everything"])
def test_a_folder_that_is_no_such_set_is_one_line(tmp_path, lacks):
    root = write_davis(tmp_path / "davis")
    if lacks == "everything":
        root = tmp_path
    else:
        (root / lacks).rename(root / "away")
    with pytest.raises(InputError) as caught:
        open_mask_videos(root)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_share_of_the_clips_is_real_and_the_others_are_drawn(tmp_path):
    root = str(write_davis(tmp_path))
    seeds = (9, 12, 13, 14, 15, 16)

    def clips(**memory):
        stage = MemoryTrackingStage(tiny(), SHAPE, MemoryConfig(**memory), CPU)
        return [stage.sample(seed) for seed in seeds]

    real, drawn, both = clips(sets=[root]), clips(), clips(sets=[root], share=0.5)
    from_sets = [same(a, b) for a, b in zip(both, real, strict=True)]
    assert all(same(a, b) for a, b, real_one in zip(both, drawn, from_sets, strict=True) if not real_one)
    assert from_sets == [True, True, True, False, False, False]


def test_a_run_of_nano_on_real_clips_replaces_a_sample_whose_mask_is_broken(train_command, tmp_path):
    root = write_davis(tmp_path / "davis", names=("bear", "goat", "lion"))
    for file in (root / "Annotations/480p/bear").iterdir():
        file.write_bytes(file.read_bytes()[:-30])
    tiny().save_pretrained(tmp_path / "tiny")
    shape, memory = "{side: 32, frames: 2, targets: 1}", f"{{sets: [{root}]}}"
    plan = "{steps: 2, batch: 3, bf16: false, workers: 0, tensorboard: false, log_every: 1}"
    config = tmp_path / "nano.yaml"
    config.write_text(
        f"stage: memory\nbrain: tiny\nout: out\npreviews: false\nshape: {shape}\nmemory: {memory}\nplan: {plan}\n"
    )
    done = train_command(config)
    assert done.code == 0, done.err
    skipped = [json.loads(line) for line in (tmp_path / "out/skipped.jsonl").read_text().splitlines()]
    assert skipped
    assert all("Annotations/480p/bear" in line["reason"] for line in skipped)
    assert MaskPropagation.from_pretrained(tmp_path / "out/model")


def test_a_set_that_is_not_there_is_said_before_anything_is_written(train_command, tmp_path):
    config = tmp_path / "nano.yaml"
    config.write_text("stage: memory\nout: out\nmemory: {sets: [nowhere]}\n")
    done = train_command(config)
    assert (done.code, len(done.err.splitlines())) == (3, 1)
    assert "nowhere/JPEGImages: missing" in done.err
    assert not (tmp_path / "out").exists()


# The unrolling is the same for all networks; nano's losses are those of the code before it was (commit 0c7266e), where
# they were equal bit by bit.
@pytest.mark.parametrize(
    ("memory", "losses"),
    [
        (
            {},
            {
                "mask": "0x1.9f427e0000000p+0",
                "coarse": "0x1.9d43640000000p+0",
                "iou": "0x1.f95a840000000p-4",
                "presence": "0x1.62e2cc0000000p-1",
            },
        ),
        (
            {"refine": 1.0, "click": 0.5, "force": 0.3, "spoil": 0.5},
            {
                "mask": "0x1.9a92ba0000000p+0",
                "coarse": "0x1.9885a00000000p+0",
                "iou": "0x1.d005940000000p-4",
                "presence": "0x1.62e4a40000000p-1",
            },
        ),
    ],
    ids=["plain", "with all that happens"],
)
def test_the_losses_of_nano_are_what_they_were(memory, losses):
    torch.manual_seed(5)
    model = MaskPropagation(MaskPropagationConfig()).train()
    stage = MemoryTrackingStage(model, Shape(64, 4, 2), MemoryConfig(**memory), CPU)
    samples = [stage.sample(seed) for seed in (6, 7)]
    torch.manual_seed(11)
    found, _ = stage.losses(samples)
    assert list(found) == list(losses)  # their sum depends on the order
    for name, value in losses.items():
        assert found[name].item() == pytest.approx(float.fromhex(value), rel=1e-5)
