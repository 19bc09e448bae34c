"""The stage of the three-part recipe: it learns every kind of data set, unrolls as inference runs, and never waits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from small_sets import write_sets
from tiny_models import tiny_trackgpt
from torch import nn

from trackgpt.errors import InputError, OutputError
from trackgpt.types import Cue
from train.config import DataConfig, Kind
from train.losses import mask_iou, mask_loss
from train.sources import TrackingSample
from train.tracking import TrackingStage, Unrolled, mask_losses, targets_of, unroll

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_sets(tmp_path_factory.mktemp("sets"))


def stage(root: Path, *sets: str, frames: int = 1, **fields: object) -> TrackingStage:
    model = tiny_trackgpt("conv", "conv", tied=True, width=64, max_instruction_tokens=99).train()
    data = DataConfig(str(root), mixture={"all": Kind(1, list(sets))}, frames=frames, gap=2, **fields)
    return TrackingStage(model, data, CPU)


def parameters(tracking: TrackingStage) -> list[nn.Parameter]:
    return [p for module in tracking.modules() for p in module.parameters() if p.requires_grad]


def overfit(tracking: TrackingStage, iou: float) -> None:
    """Learn two samples until their IoU is above `iou` and every token is right, in 300 steps at most."""
    batch = [tracking.sample(i) for i in range(2)]
    optimiser = torch.optim.AdamW(parameters(tracking), lr=3e-3)
    for step in range(300):
        optimiser.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 20)
        losses, figures = tracking.losses(batch)
        if figures.get("iou", 0) > iou and figures["token_acc"] == 1:
            return
        optimiser.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(parameters(tracking), 1.0)
        optimiser.step()
    pytest.fail(f"after 300 steps {figures}")


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("ade20k", 1),
        ("paco-lvis", 1),
        ("refcoco", 1),
        ("grefcoco", 1),
        ("reason-seg", 1),
        ("refer-youtube-vos", 3),
        ("instrack", 3),
    ],
)
def test_overfitting_two_samples_brings_mask_iou_above_095_and_every_token_right(root, name, frames):
    overfit(stage(root, name, frames=frames, turns=1), 0.95)


def test_overfitting_at_the_original_resolution_brings_what_a_grid_a_quarter_as_fine_can_say(root):
    """Frames of 64 pixels and a grid of 16: outlines of small things are finer than it; IoU above 0.85 all the same."""
    overfit(stage(root, "refcoco", turns=1, mask_loss="original"), 0.85)


def test_images_clips_and_conversations_learn_in_one_batch(root):
    tracking = stage(root, "ade20k", "refer-davis17", "llava-instruct", frames=3)
    batch = [tracking.sample(i) for i in range(12)]
    lengths = {len(sample.frames) for sample in batch}
    assert lengths == {0, 1, 3}
    losses, _ = tracking.losses(batch)
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in parameters(tracking) if p.grad is not None)


@pytest.mark.parametrize("mask_loss", ["grid", "original"])
def test_a_batch_of_words_alone_runs_the_same_modules_as_one_with_masks(root, mask_loss):
    calls: dict[str, list[str]] = {}
    for name in ("llava-instruct", "refer-youtube-vos"):
        tracking = stage(root, name, frames=3, mask_loss=mask_loss)
        seen = calls.setdefault(name, [])
        for place, module in tracking.model.named_modules():
            if not list(module.children()) and list(module.parameters(recurse=False)):
                module.register_forward_hook(lambda *_, place=place, seen=seen: seen.append(place))
        losses, _ = tracking.losses([tracking.sample(i) for i in range(2)])
        sum(losses.values()).backward()
    assert calls["llava-instruct"] == calls["refer-youtube-vos"]


def test_masks_of_words_alone_cost_nothing(root):
    tracking = stage(root, "llava-instruct")
    losses, figures = tracking.losses([tracking.sample(0)])
    assert losses["mask"].item() == losses["purport"].item() == 0
    assert losses["text"].item() > 0
    assert "iou" not in figures


def test_unrolling_equals_the_online_loop_frame_by_frame():
    model = tiny_trackgpt("conv", "conv", tied=True)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (4, 64, 64, 3), np.uint8)
    referring, purport = rng.normal(size=(2, 1, 32)).astype(np.float32)
    sample = TrackingSample(frames, frames[0], (), np.ones((1, 4, 16, 16), bool), np.zeros((4, 16, 16), bool), "")
    targets = targets_of([sample], 4, CPU)
    queries = targets.with_queries(torch.from_numpy(referring), torch.from_numpy(purport))
    with torch.no_grad():
        found = unroll(model, model.segmenter.encode(targets.frames), queries)
    tracker = model.tracker()
    state = replace(tracker.begin(), cue=Cue("", referring, purport))
    for t, frame in enumerate(frames):
        prediction, memory = tracker.perception.perceive(frame, state, ())
        state = replace(state, memory=memory)
        assert found.scores[0, t].clamp(0, 1).item() == pytest.approx(float(prediction.scores[0]), abs=1e-6)
    assert found.logits.shape == (1, 4, 16, 16)


def test_a_target_whose_clip_is_shorter_is_not_scored_beyond_its_end():
    model = tiny_trackgpt("conv", "conv", tied=True)
    frames = np.zeros((3, 64, 64, 3), np.uint8)
    mask = np.ones((1, 3, 16, 16), bool)
    quiet = np.zeros((3, 16, 16), bool)
    long, short = (TrackingSample(frames[:t], frames[0], (), mask[:, :t], quiet[:t], "") for t in (3, 1))
    both = targets_of([long, short], 3, CPU)
    assert both.length.tolist() == [3, 1]
    assert both.first.tolist() == [0, 3]
    queries = both.with_queries(torch.ones(2, 32), torch.ones(2, 32))
    with torch.no_grad():
        found = unroll(model, model.segmenter.encode(both.frames), queries)
        together, _ = mask_losses(found, both)
    logits = torch.cat([found.logits[0], found.logits[1, :1]])
    assert together["mask"].item() == pytest.approx(mask_loss(logits, torch.ones(4, 16, 16) > 0).item(), rel=1e-6)


def test_ignored_pixels_change_neither_loss_nor_iou():
    logits = torch.tensor([[[3.0, -3.0], [-3.0, 3.0]]])
    truth = torch.tensor([[[True, False], [False, False]]])
    ignored = torch.tensor([[[False, False], [False, True]]])
    assert mask_iou(logits, truth, ignored).item() == 1.0
    assert mask_iou(logits, truth).item() == 0.5
    other = torch.where(ignored, -logits, logits)
    assert mask_loss(logits, truth, ignored=ignored).item() == mask_loss(other, truth, ignored=ignored).item()


def lisa(logits: torch.Tensor, truth: torch.Tensor, side: int) -> torch.Tensor:
    """LISA's losses of one image, plainly: SAM's postprocess_masks, BCE and Dice over masks (n, H, W)."""
    height, width = truth.shape[-2:]
    scale = side / max(height, width)
    inner = [int(length * scale + 0.5) for length in (height, width)]
    square = F.interpolate(logits[:, None].float(), (side, side), mode="bilinear", align_corners=False)
    whole = F.interpolate(square[..., : inner[0], : inner[1]], (height, width), mode="bilinear", align_corners=False)
    pred, target, n = whole[:, 0], truth.float(), len(truth)
    bce = F.binary_cross_entropy_with_logits(pred, target, reduction="none").flatten(1).mean(1).sum() / (n + 1e-8)
    prob, flat = pred.sigmoid().flatten(1), target.flatten(1)
    numerator = 2 * (prob / 1000 * flat).sum(-1)
    dice = 1 - (numerator + 1e-6) / ((prob / 1000).sum(-1) + (flat / 1000).sum(-1) + 1e-6)
    return 2.0 * bce + 0.5 * dice.sum() / (n + 1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_at_the_original_resolution_the_loss_is_lisas_on_odd_sizes_too(dtype):
    """Three masks of 61 x 97, two of 97 x 41 (portrait), one of 64 x 64; batch: the mean over all six."""
    rng, side = np.random.default_rng(0), 64
    samples, parts = [], []
    logits = torch.from_numpy(rng.normal(0, 4, (6, 1, 16, 16))).to(dtype)
    for own, size in ((slice(0, 3), (61, 97)), (slice(3, 5), (97, 41)), (slice(5, 6), (64, 64))):
        masks = rng.random((own.stop - own.start, 1, *size)) < 0.3
        frames = np.zeros((1, side, side, 3), np.uint8)
        samples.append(TrackingSample(frames, frames[0], (), masks, np.zeros((1, *size), bool), ""))
        parts.append(lisa(logits[own, 0], torch.from_numpy(masks[:, 0]), side) * len(masks))
    losses, _ = mask_losses(Unrolled(logits, torch.zeros(6, 1)), targets_of(samples, 1, CPU, original=True))
    assert losses["mask"].dtype == torch.float32
    assert losses["mask"].item() == pytest.approx((sum(parts) / 6).item(), rel=1e-6)


def test_pixels_ignored_in_the_frame_are_not_learned_at_its_resolution():
    """Noise, ignored from column 20 on: what the truth says there changes nothing, what it says before does."""
    logits = torch.linspace(-2, 2, 256).view(1, 1, 16, 16)
    frames, ignored = np.zeros((1, 64, 64, 3), np.uint8), np.zeros((1, 33, 50), bool)
    ignored[..., 20:] = True
    costs = []
    for first, last in ((4, 20), (4, 45), (4, 12)):
        masks = np.zeros((1, 1, 33, 50), bool)
        masks[..., 5:20, first:last] = True
        targets = targets_of([TrackingSample(frames, frames[0], (), masks, ignored, "")], 1, CPU, original=True)
        losses, figures = mask_losses(Unrolled(logits, torch.zeros(1, 1)), targets)
        costs.append((losses["mask"].item(), losses["purport"].item(), figures["iou"]))
    assert costs[0] == costs[1]
    assert costs[0] != costs[2]


def test_samples_at_the_original_resolution_carry_masks_of_their_frames_size(root):
    sizes = set()
    for name in ("ade20k", "refer-youtube-vos"):
        tracking = stage(root, name, frames=3, mask_loss="original")
        for sample in [tracking.sample(i) for i in range(6)]:
            with Image.open(sample.pictures[0]) as picture:
                assert sample.masks.shape[2:] == sample.ignored.shape[1:] == picture.size[::-1]
            sizes.add(sample.masks.shape[2:])
        assert tracking.picture([sample]).shape[2] == 3
    assert len(sizes) > 2


def test_at_the_original_resolution_kinds_learn_in_one_batch_with_the_masks_loss_of_each_alone(root):
    """Images of one frame, clips of three and words; the mask loss is the mean over the masks of all frames."""
    tracking = stage(root, "ade20k", "refer-davis17", "llava-instruct", frames=3, mask_loss="original")
    tracking.model.eval()
    batch = [tracking.sample(i) for i in range(12)]
    assert {len(sample.frames) for sample in batch} == {0, 1, 3}
    with torch.no_grad():
        together = tracking.losses(batch)[0]["mask"].item()
        alone = [tracking.losses([sample])[0]["mask"].item() for sample in batch]
    counts = [sample.masks.shape[0] * sample.masks.shape[1] for sample in batch]
    assert together == pytest.approx(np.dot(alone, counts) / sum(counts), rel=1e-4)


def test_a_detached_query_carries_no_gradient_to_the_frame_before(root):
    grads = {}
    for detach in (False, True):
        tracking = stage(root, "refer-youtube-vos", frames=3, turns=1, detach=detach)
        losses, _ = tracking.losses([tracking.sample(0)])
        losses["mask"].backward()
        adapter = next(p for n, p in tracking.model.named_parameters() if "adapter" in n)
        grads[detach] = 0.0 if adapter.grad is None else float(adapter.grad.abs().sum())
    assert grads[False] > 0
    assert grads[True] == 0


def test_cached_features_give_the_losses_of_the_encoder_within_bfloat16(root, tmp_path):
    plain = stage(root, "refer-youtube-vos", frames=3)
    cached = stage(root, "refer-youtube-vos", frames=3, cache=str(tmp_path))
    pictures = cached.samples.pictures()
    assert cached.cache.fill(pictures, cached.model.segmenter) == len(pictures) > 10
    assert cached.cache.fill(pictures, cached.model.segmenter) == 0
    cached.model.train()
    found, wanted = (each.losses([each.sample(i) for i in range(2)])[0] for each in (cached, plain))
    assert found["text"].item() == pytest.approx(wanted["text"].item(), rel=1e-6)
    assert found["mask"].item() == pytest.approx(wanted["mask"].item(), rel=0.02)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))
    assert cached.cache.size(len(pictures), cached.model.segmenter) == pytest.approx(size, rel=0.1)


def test_words_alone_need_no_encoder_where_features_are_cached(root, tmp_path):
    tracking = stage(root, "llava-instruct", "refcoco", cache=str(tmp_path))
    tracking.cache.fill(tracking.samples.pictures(), tracking.model.segmenter)
    words = [tracking.sample(i) for i in range(8) if not len(tracking.sample(i).frames)]
    tracking.model.segmenter.image_encoder.forward = None
    losses, _ = tracking.losses(words[:2])
    assert losses["mask"].item() == 0


def test_a_picture_that_was_not_encoded_and_a_full_disk_are_said(root, tmp_path):
    tracking = stage(root, "refcoco", cache=str(tmp_path))
    with pytest.raises(InputError, match="--cache-features"):
        tracking.sample(0)
    with pytest.raises(OutputError, match="GiB left"):
        tracking.cache.must_fit(2**60)
