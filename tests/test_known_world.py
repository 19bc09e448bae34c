"""Footage unlike the drawn world of nano is refused by the command line in one line; drawn footage is not."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from toy_systems import ToyImat
from typer.testing import CliRunner

from eval.__main__ import app
from eval.commands.known_world import auroc, through_a_film
from trackgpt import presets
from trackgpt.errors import ModelError
from trackgpt.hub import find, load_model, load_trackgpt
from trackgpt.perception.encoders import Features
from trackgpt.perception.known_world import KNOWN_WORLD_FILE, MOST_UNLIKE, KnownWorld, statistics
from trackgpt.reasoners.vlm_policy import VlmPolicy
from trackgpt.session import playback
from trackgpt.synthtrack.clips import make_case
from trackgpt.systems.trackgpt import TrackGPT
from train.brain_folder import write_brain
from train.known_world import _discriminant, drawn_frame, encoder_of, other_frame, tell_apart

SAY = ("-i", "the dog", "--format", "jsonl", "--end", "2")


@pytest.fixture(scope="module")
def unlikeness():
    """Of one image, to nano."""
    return load_trackgpt("nano", "cpu").unlikeness


def noise(height: int = 120, width: int = 160) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def frames_of(folder: Path, image: np.ndarray) -> Path:
    """A folder of two equal frames."""
    folder.mkdir()
    for name in ("00000.png", "00001.png"):
        Image.fromarray(image).save(folder / name)
    return folder


# --- what is known ---


def test_drawn_frames_of_unseen_scenes_pass_at_every_size_and_out_of_a_film(unlikeness):
    for seed, longest in ((8, 480), (90_002, 160)):  # the first is the clip of `trackgpt demo`
        frame = make_case(seed, split="test", frames=1, longest=longest).clip.frames[0]
        assert unlikeness(frame) < MOST_UNLIKE
        assert unlikeness(through_a_film(frame)) < MOST_UNLIKE
    assert max(unlikeness(drawn_frame(seed, "test")) for seed in range(90_010, 90_013)) < MOST_UNLIKE


def test_noise_is_unlike_a_drawn_scene(unlikeness):
    # Up to the side of the encoder's square: scaling down makes plain grey of larger noise.
    grey = np.repeat(noise()[..., :1], 3, axis=2)
    assert min(unlikeness(noise()), unlikeness(noise(192, 256)), unlikeness(grey)) > MOST_UNLIKE


def test_most_domain_randomised_frames_of_unseen_seeds_are_unlike_a_drawn_scene(unlikeness):
    found = np.array([unlikeness(other_frame(seed)) for seed in range(90_016, 90_026)])
    assert (found > MOST_UNLIKE).sum() >= 6


def test_statistics_are_means_and_deviations_over_the_part_that_the_frame_fills():
    four, eight = torch.zeros(1, 2, 64, 64), torch.zeros(1, 1, 32, 32)
    four[0, 0, :32], four[0, 1, :32, :32] = 3, 4  # a frame of 2:1 fills the upper half of the square
    eight[0, 0, 16:] = 9  # padding alone
    found = statistics(Features(torch.zeros(1, 1, 16, 16), (four, eight)), (100, 200))
    assert found == pytest.approx([3, 2, 0, 2, 0, 0])


def test_the_discriminant_is_0_at_the_mean_and_1_at_the_limit_of_its_own_world():
    rng = np.random.default_rng(0)
    own, others = rng.normal(0, 1, (4000, 3)), rng.normal((8, 0, 0), 1, (500, 3))
    known = tell_apart(own, others)
    found = own @ known.weights - known.offset
    assert abs(found.mean()) < 1e-5
    assert 1 <= (found > 1).sum() <= 8  # one in a thousand
    assert (others @ known.weights - known.offset > 1).mean() > 0.99
    direction = _discriminant(own, others)
    assert abs(direction[0]) > 10 * np.abs(direction[1:]).max()


# --- the file ---


def test_what_is_known_is_read_as_it_was_written_and_lost_when_a_model_is_saved(tmp_path, tiny):
    shutil.copytree(tiny, tmp_path / "model")
    model = TrackGPT.from_pretrained(tmp_path / "model")
    assert model.known_world is None
    channels = model.segmenter.image_encoder.fine_channels
    known = KnownWorld(np.arange(2 * sum(channels), dtype=np.float32), 0.5)
    known.write(tmp_path / "model" / KNOWN_WORLD_FILE)
    model = TrackGPT.from_pretrained(tmp_path / "model")
    assert np.array_equal(model.known_world.weights, known.weights)
    assert model.known_world.offset == 0.5
    model.save_pretrained(tmp_path / "model")
    assert TrackGPT.from_pretrained(tmp_path / "model").known_world is None


@pytest.mark.parametrize(
    "held",
    [
        {"weights": torch.zeros(3), "offset": torch.zeros(1)},
        {"weights": torch.zeros(12)},
        {"weights": torch.full((12,), float("nan")), "offset": torch.zeros(1)},
    ],
    ids=["of another encoder", "without its offset", "no numbers"],
)
def test_a_damaged_file_is_refused(tmp_path, held):
    save_file(held, tmp_path / KNOWN_WORLD_FILE)
    with pytest.raises(ModelError, match=f"MD02.*{KNOWN_WORLD_FILE}"):
        KnownWorld.read(tmp_path / KNOWN_WORLD_FILE, (2, 4))


def test_an_encoder_without_fine_maps_takes_no_such_file(tmp_path):
    KnownWorld(np.zeros(0, np.float32), 0.0).write(tmp_path / KNOWN_WORLD_FILE)
    with pytest.raises(ModelError, match="MD02"):
        KnownWorld.read(tmp_path / KNOWN_WORLD_FILE, None)


def test_a_policy_of_nanos_brain_knows_its_world_by_its_vision_tower(tmp_path):
    write_brain("nano", tmp_path / "policy")
    policy = VlmPolicy.from_pretrained(tmp_path / "policy")
    assert policy.unlikeness(noise()) is None
    encode = encoder_of(tmp_path / "policy")
    frames = [drawn_frame(seed) for seed in range(6)]
    values = np.array([statistics(encode(frame), frame.shape[:2]) for frame in frames])
    known = KnownWorld(values.mean(0).astype(np.float32), 2.0)
    known.write(tmp_path / "policy" / KNOWN_WORLD_FILE)
    system = load_model(f"qtrack:{tmp_path / 'policy'}")
    for frame in (frames[0], noise(), noise(90, 40)):
        assert system.unlikeness(frame) == pytest.approx(known.unlikeness(encode(frame), frame.shape[:2]), rel=1e-6)
    assert encode(noise()).embedding.shape == (1, 192, 16, 16)


# --- the command line ---


def test_a_real_video_is_refused_in_one_line_before_anything_is_written(command, shared):
    frames = shared / "data/davis/JPEGImages/240p/dog"
    if not frames.is_dir():
        pytest.skip("DAVIS is not there")
    done = command("track", frames, *SAY)
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith(
        "trackgpt: dog: nano was trained on drawn scenes alone and this footage is unlike them ("
    )
    assert f"trackgpt track {frames} -i 'the dog' --grounder FILE.onnx" in done.err
    assert done.err.endswith("--box 1:x,y,w,h; --guess goes on\n")
    assert os.listdir() == []


def test_the_best_preset_on_this_machine_reads_words_about_other_footage_unless_a_model_was_named(
    command, tmp_path, monkeypatch
):
    frames_of(tmp_path / "noise", noise())
    small = next(preset for preset in presets.PRESETS if preset.name == "small")
    monkeypatch.setattr(presets, "best_here", lambda: small)
    monkeypatch.setattr(playback.InstructionTracker, "from_pretrained", classmethod(instead(small.name)))
    done = command("track", "noise", *SAY, "-o", "out")
    assert "no drawn scene, so small reads the words; -m chooses another model" in done.err
    assert "toy" in Path("out/run.json").read_text()
    assert command("track", "noise", *SAY, "-o", "named", "-m", "nano").code == 2


def instead(name):
    """Loads a toy for a model of this name, and every other one as it is."""
    load = playback.InstructionTracker.from_pretrained.__func__

    def from_pretrained(cls, model, *how, **execution):
        return cls(ToyImat(), "toy") if model == name else load(cls, model, *how, **execution)

    return from_pretrained


def test_guess_goes_on_and_is_in_run_json(command, tmp_path):
    frames_of(tmp_path / "noise", noise())
    assert command("track", "noise", *SAY, "-o", "out").code == 2
    assert not Path("out").exists()
    assert command("track", "noise", *SAY, "-o", "out", "--guess").code in (0, 5)
    assert json.loads(Path("out/run.json").read_text())["guess"] is True


def test_drawn_footage_passes_without_a_word(command, tmp_path):
    frames_of(tmp_path / "drawn", make_case(90_001, frames=1).clip.frames[0])
    done = command("track", "drawn", *SAY, "-o", "out")
    assert done.code in (0, 5)
    assert "unlike" not in done.err
    assert done.values()["frames"] == "2"


def test_a_folder_of_nano_refuses_by_its_own_name_and_only_with_the_file(command, tmp_path):
    frames_of(tmp_path / "noise", noise())
    shutil.copytree(find("nano"), tmp_path / "mine")
    done = command("track", "noise", *SAY, "-m", "mine", "-o", "out")
    assert done.code == 2
    assert done.err.startswith("trackgpt: noise: mine was trained on drawn scenes alone")
    (tmp_path / "mine" / KNOWN_WORLD_FILE).unlink()
    assert command("track", "noise", *SAY, "-m", "mine", "-o", "out").code in (0, 5)


# --- the measurement ---


def test_auroc_is_the_share_of_pairs_in_order():
    assert auroc(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == 1
    assert auroc(np.array([0.0, 2.0]), np.array([1.0, 2.0])) == 0.625  # of four pairs two are in order, one is equal


def test_the_command_counts_what_is_refused(tmp_path):
    frames_of(tmp_path / "a", noise())
    Image.fromarray(noise()).save(tmp_path / "a" / "00000.jpg")
    done = CliRunner().invoke(app, ["known-world", str(tmp_path), "--videos", "2"])
    assert done.output.splitlines()[-1] == "auroc=1.0000 false_alarms=0.0 recognised=100.0 sequences=1 videos=2"
    done = CliRunner().invoke(app, ["known-world", str(tmp_path / "none"), "--videos", "1"])
    assert "holds no footage" in str(done.exception)
