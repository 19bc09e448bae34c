"""The stage that teaches the memory segmenter: samples, prompts, damage, losses, and whole runs of it."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_propagation import moving, square, tiny_propagation
from tiny_runs import CPU, TIMES, plan

from trackgpt.config import MaskPropagationConfig
from trackgpt.errors import UsageError
from trackgpt.perception.mask_propagation import SURE, MaskPropagation
from trackgpt.perception.nano_memory import NanoMemory
from trackgpt.synthtrack.randomised import randomised_clip
from trackgpt.systems.pointed import Pointed
from trackgpt.types import Prompt, VisualPrompt
from train.__main__ import run as train_config
from train.checkpoints import whole_checkpoints
from train.config import MemoryConfig, Shape, TrainConfig
from train.memory_tracking import (
    MemoryTrackingStage,
    click_in,
    damaged,
    handed_on,
    jittered_box,
    prompted,
    soft_iou,
    targets_of,
    unroll,
    varied,
)
from train.model_folder import exported_step
from train.report import read_log

SMALL = Shape(side=32, frames=2, targets=2)


def stage(shape=SMALL, **memory):
    return MemoryTrackingStage(tiny_propagation(side=shape.side), shape, MemoryConfig(**memory), CPU.device)


def disc(side, x, y, radius):
    """The mask of a disc around x, y in pixels, with edges."""
    at = np.arange(side) + 0.5
    return (at[None, :] - x) ** 2 + (at[:, None] - y) ** 2 <= radius**2


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


# Samples


def test_a_sample_is_a_function_of_its_seed_alone():
    one, other = stage(), stage()
    wanted = {seed: one.sample(seed) for seed in (6, 7, 2, 3)}
    for seed in (3, 7, 6, 2):
        assert same(other.sample(seed), wanted[seed])
    assert not same(wanted[6], wanted[2])
    assert wanted[6]["frames"].shape == (2, 32, 32, 3)
    assert wanted[6]["ids"].shape == (2, 32, 32)


def test_a_clip_is_drawn_once_and_used_twice_or_drawn_for_every_seed():
    clip = randomised_clip(3, 2, 32, 2)
    assert same(stage().sample(6), {"frames": clip.frames, "ids": clip.ids})
    assert same(stage().sample(7), varied(clip.frames, clip.ids, 7))
    assert same(stage(echo=1).sample(3), {"frames": clip.frames, "ids": clip.ids})


@pytest.mark.parametrize("stays", [True, False])
def test_a_varied_clip_is_mirrored_in_other_colours_and_runs_backwards_only_if_all_targets_stay(stays):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 20, 20, 3), np.uint8)
    ids = np.zeros((3, 20, 20), np.uint8)
    for t in range(3):
        ids[t, 2:6, 2 + t : 6 + t] = 1
        ids[t, 12:16, 12 - t : 16 - t] = 2
    if not stays:
        ids[2][ids[2] == 2] = 0
    made = varied(frames, ids, 5)
    order = slice(None, None, -1) if stays else slice(None)
    assert np.array_equal(made["ids"], ids[order, :, ::-1])
    mirrored = frames[order, :, ::-1]
    colours = [k for channel in range(3) for k in range(3) if (made["frames"][..., channel] == mirrored[..., k]).all()]
    assert sorted(colours) == [0, 1, 2]  # every channel is one of the clip's, on all frames
    assert made["frames"].flags.c_contiguous


def test_variations_differ_in_their_colours():
    frames, ids = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), np.uint8), np.ones((1, 8, 8), np.uint8)
    assert len({varied(frames, ids, seed)["frames"].tobytes() for seed in range(40)}) == 6


def test_targets_are_the_first_one_of_every_clip_and_those_that_are_seen_on_its_first_frame():
    ids = np.zeros((2, 2, 32, 32), np.uint8)
    ids[0, 0, :4, :4] = 1  # 1.6 % of the frame
    ids[0, 0, 8:10, 8:11] = 2  # 0.6 %
    ids[0, 0, 20, 20:24] = 3  # 0.39 %
    ids[1, 1, :4, :4] = 1  # only later, and yet a clip has its target
    ids[1, 1, 8:20, 8:20] = 2
    clips, masks = targets_of(list(ids), 3)
    assert clips.tolist() == [0, 0, 1]
    assert masks.shape == (3, 2, 32, 32)
    assert masks.sum((2, 3)).tolist() == [[16, 0], [6, 0], [0, 16]]
    assert targets_of(list(ids), 1)[0].tolist() == [0, 1]


# Prompts


def test_each_side_of_a_jittered_box_moves_by_at_most_8_percent_of_the_size_and_not_always_the_same():
    torch.manual_seed(0)
    mask = np.zeros((100, 100), bool)
    mask[20:70, 10:90] = True
    boxes = torch.stack([jittered_box(mask) for _ in range(300)])
    moved = (boxes - torch.tensor([10.0, 20.0, 90.0, 70.0])).abs()
    assert (moved <= torch.tensor([6.4, 4.0, 6.4, 4.0]) + 1e-4).all()
    assert (moved.mean(0) > torch.tensor([1.6, 1.0, 1.6, 1.0])).all()
    assert jittered_box(mask, 0.0).tolist() == [10, 20, 90, 70]


def test_a_click_lies_on_the_region_and_in_the_middle_of_a_disc():
    torch.manual_seed(0)
    region = disc(64, 40, 24, 12) | disc(64, 10, 50, 4)
    clicks = torch.stack([click_in(region, middle=False) for _ in range(200)])
    assert all(region[int(y), int(x)] for x, y in clicks.tolist())
    assert len({tuple(click) for click in clicks.tolist()}) > 100
    x, y = click_in(region, middle=True).tolist()
    assert max(abs(x - 40), abs(y - 24)) <= 1.5
    assert click_in(np.zeros((8, 8), bool), middle=True).isnan().all()


def test_a_click_in_the_middle_of_what_the_edge_of_the_frame_cuts_is_not_on_the_edge():
    x, y = click_in(np.ones((20, 40), bool), middle=True).tolist()
    assert 9 <= y <= 11
    assert 9 <= x <= 31


@pytest.mark.parametrize(("shares", "kind"), [([1.0, 0, 0], 0), ([0, 1.0, 0], 1), ([0, 0, 1.0], 2)])
def test_targets_are_shown_as_the_shares_say(shares, kind):
    torch.manual_seed(0)
    masks = torch.from_numpy(np.stack([disc(64, 40, 24, 12), disc(64, 20, 40, 8)])).float()
    shown = prompted(masks, shares)
    assert shown.kind.tolist() == [kind, kind]
    assert shown.boxes.isfinite().all() == (kind == 1)
    assert shown.points.isfinite().all() == (kind == 2)
    if kind == 1:
        wanted = torch.tensor([[28, 12, 52, 36], [12, 32, 28, 48]]) / 64
        assert (shown.boxes - wanted).abs().max() < 0.08 * 26 / 64
    if kind == 2:
        assert all(masks[k, int(64 * y), int(64 * x)] for k, (x, y) in enumerate(shown.points[:, 0].tolist()))


# Damage


def test_damage_changes_no_mask_a_share_of_them_or_most():
    torch.manual_seed(0)
    logits = torch.from_numpy(np.stack([disc(32, 16, 16, 8)] * 300)).float()[:, None] * 2 * SURE - SURE
    before = logits.clone()
    for share, least, most in ((0.0, 0, 0), (0.3, 50, 130), (1.0, 220, 300)):
        made = damaged(logits, share)
        changed = (made != logits).flatten(1).any(1)
        assert least <= int(changed.sum()) <= most
        assert made.abs().max() <= SURE
    assert torch.equal(logits, before)


# Losses


def clip_of(side, frames=3):
    """Two discs that move, as a sample: frames uint8 (t, s, s, 3) and ids uint8 (t, s, s)."""
    ids = np.zeros((frames, side, side), np.uint8)
    for t in range(frames):
        ids[t][disc(side, 0.3 * side + t, 0.3 * side, 0.15 * side)] = 1
        ids[t][disc(side, 0.7 * side - t, 0.7 * side, 0.2 * side)] = 2
    colours = np.array([(40, 90, 40), (220, 50, 50), (60, 60, 220)], np.uint8)
    return {"frames": colours[ids], "ids": ids}


@pytest.mark.parametrize(
    ("shares", "measured"), [([1.0, 0, 0], set()), ([0, 1.0, 0], {"box"}), ([0, 0, 1.0], {"point"})]
)
def test_losses_are_finite_and_those_of_the_stage_however_targets_are_shown(shares, measured):
    torch.manual_seed(0)
    one = stage(prompts=shares, click=1.0, refine=1.0, spoil=1.0, force=0.5)
    empty = clip_of(32)
    empty["ids"][1:] = 0  # both targets leave
    costs, figures = one.losses([clip_of(32), empty])
    assert costs.keys() == one.weights.keys()
    assert all(value.isfinite() and value >= 0 for value in costs.values())
    assert all(0 <= value <= 1 for value in figures.values())
    assert figures.keys() == {"track", "late", "here", "again"} | measured


def test_every_part_of_the_network_learns_from_three_frames():
    torch.manual_seed(0)
    one = stage(click=1.0, refine=1.0, drop=0.5)
    costs, _ = one.losses([clip_of(32), clip_of(32)])
    sum(costs.values()).backward()
    still = [name for name, value in one.model.named_parameters() if value.grad is None or not value.grad.any()]
    assert still == []
    assert all(value.grad.isfinite().all() for value in one.model.parameters())


def test_what_is_handed_on_is_the_mean_of_four_cells_bounded_and_without_a_gradient():
    logits = torch.tensor([[1.0, 3.0, 50.0, 50.0], [5.0, 7.0, 50.0, 50.0]], requires_grad=True).view(1, 1, 2, 4)
    assert handed_on(logits).tolist() == [[[[4.0, SURE]]]]
    assert not handed_on(logits).requires_grad


def test_iou_is_what_two_masks_share():
    found, truth = torch.zeros(3, 4, 4, dtype=torch.bool), torch.zeros(3, 4, 4, dtype=torch.bool)
    found[0, :2], truth[0, 1:3] = True, True  # 4 of 12
    found[1], truth[1] = True, True
    assert soft_iou(found, truth).tolist() == pytest.approx([1 / 3, 1, 0])


def test_ten_steps_on_one_batch_lower_the_loss():
    one = stage(prompts=[0.0, 1.0, 0.0], click=0.0, drop=0.0)
    one.model.train()
    optimizer = torch.optim.AdamW(one.model.parameters(), lr=2e-3)
    totals = []
    for _ in range(11):
        torch.manual_seed(0)
        costs, _ = one.losses([clip_of(32, 2), clip_of(32, 2)])
        total = sum(one.weights[name] * value for name, value in costs.items())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[10] < 0.8 * totals[0]
    assert min(totals) == min(totals[6:])


def test_a_target_without_a_neighbour_and_one_beside_another_have_the_same_losses():
    model = tiny_propagation(side=32)
    sample = clip_of(32, 2)
    frames = torch.from_numpy(sample["frames"])[None]
    clip, truth = targets_of([sample["ids"]], 2)
    memory = MemoryConfig(prompts=[1.0, 0.0, 0.0], refine=0.0, click=0.0, drop=0.0)
    parts = []
    with torch.no_grad():
        for rows in ([0, 1], [0], [1]):
            parts.append(unroll(model, frames, clip[rows], truth[rows], memory)[0])
    for name in ("mask", "coarse", "presence"):
        assert parts[0][name].item() == pytest.approx((parts[1][name] + parts[2][name]).item() / 2, rel=1e-4)


# Runs


@pytest.fixture
def _uncurved(monkeypatch):
    """Curves take longer to draw than these runs; tests of the report draw them."""
    monkeypatch.setattr("train.report.draw_curves", lambda out: None)


def configured(out, brain="", **fields):
    """Two frames of 32 pixels; `decay` 0 lets a run of two steps have the learning rates of one of four."""
    steps = plan(batch=2, lr=1e-3, **{"decay": 0.0, **fields})
    return TrainConfig("memory", str(out), str(brain), shape=SMALL, device="cpu", previews=False, plan=steps)


@pytest.fixture
def tiny(tmp_path):
    tiny_propagation().save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.mark.usefixtures("_uncurved")
def test_two_steps_and_a_resumed_two_equal_four_straight(tiny, tmp_path):
    train_config(configured(tmp_path / "straight", tiny, steps=4))
    train_config(configured(tmp_path / "twice", tiny, steps=2))
    assert exported_step(tmp_path / "twice/model") == 2
    torch.manual_seed(99)
    train_config(configured(tmp_path / "twice", tiny, steps=4))
    one, other = (load_file(tmp_path / name / "model/model.safetensors") for name in ("straight", "twice"))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    start = load_file(tiny / "model.safetensors")
    assert not torch.equal(one["coarse.weight"], start["coarse.weight"])
    moments = [
        torch.load(whole_checkpoints(tmp_path / name)[-1] / "optimizer_0.pt", weights_only=True)["state"]
        for name in ("straight", "twice")
    ]
    assert all(torch.equal(moments[0][i][name], moments[1][i][name]) for i in moments[0] for name in moments[0][i])
    lines = [
        [{key: value for key, value in line.items() if key not in TIMES} for line in read_log(tmp_path / name)]
        for name in ("straight", "twice")
    ]
    assert lines[0] == lines[1]
    assert [line["step"] for line in lines[0]] == [1, 2, 3, 4]


@pytest.mark.usefixtures("_uncurved")
def test_a_run_from_nothing_writes_a_nano_memory_that_tracks(tmp_path):
    train_config(configured(tmp_path / "run", steps=2))
    names = {path.name for path in (tmp_path / "run/model").iterdir()}
    assert {"config.json", "model.safetensors"} <= names
    network = NanoMemory.from_pretrained(tmp_path / "run/model")
    assert network.config == MaskPropagationConfig(side=32)
    tracker = Pointed(network, "nano-memory").tracker()
    state, seen = tracker.step(tracker.begin(), moving(1)[0], Prompt(visual=(VisualPrompt(mask=square()),)))
    assert np.array_equal(seen.masks[0], square())
    assert tracker.step(state, moving(2)[1])[1].masks.shape == (1, 90, 120)


@pytest.mark.usefixtures("_uncurved")
def test_a_run_goes_on_from_the_model_it_is_given_in_windows_of_its_own_side(tiny, tmp_path):
    train_config(configured(tmp_path / "run", tiny, steps=1))
    assert MaskPropagation.from_pretrained(tmp_path / "run/model").config.side == 32
    assert MaskPropagation.from_pretrained(tmp_path / "run/model").config.width == 32


def test_a_side_that_is_no_multiple_of_16_is_refused_before_anything_is_trained(tiny, tmp_path):
    config = configured(tmp_path / "run", tiny)
    config.shape = Shape(side=40)
    with pytest.raises(UsageError, match="shape.side 40: wanted a multiple of 16"):
        train_config(config)
