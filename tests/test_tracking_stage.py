"""The stage of the three-part recipe: it learns every kind of data set, unrolls as inference runs, and never waits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_sets import write_sets
from tiny_models import tiny_trackgpt
from torch import nn

from trackgpt.errors import InputError, OutputError
from trackgpt.types import Cue
from train.data_config import DataConfig, Kind
from train.lessons import Lesson
from train.losses import mask_iou, mask_loss
from train.tracking import Tracking, mask_losses, targets_of, unroll

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_sets(tmp_path_factory.mktemp("sets"))


def stage(root: Path, *sets: str, frames: int = 1, **fields: object) -> Tracking:
    model = tiny_trackgpt("conv", "conv", tied=True, width=64, max_instruction_tokens=99).train()
    data = DataConfig(str(root), mixture={"all": Kind(1, list(sets))}, frames=frames, gap=2, **fields)
    return Tracking(model, data, CPU)


def parameters(tracking: Tracking) -> list[nn.Parameter]:
    return [p for module in tracking.modules() for p in module.parameters() if p.requires_grad]


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
    tracking = stage(root, name, frames=frames, turns=1)
    batch = [tracking.sample(i) for i in range(2)]
    optimiser = torch.optim.AdamW(parameters(tracking), lr=3e-3)
    for step in range(300):
        optimiser.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 20)
        losses, figures = tracking.losses(batch)
        if figures.get("iou", 0) > 0.95 and figures["token_acc"] == 1:
            return
        optimiser.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(parameters(tracking), 1.0)
        optimiser.step()
    pytest.fail(f"after 300 steps {figures}")


def test_images_clips_and_conversations_learn_in_one_batch(root):
    tracking = stage(root, "ade20k", "refer-davis17", "llava-instruct", frames=3)
    batch = [tracking.sample(i) for i in range(12)]
    lengths = {len(lesson.frames) for lesson in batch}
    assert lengths == {0, 1, 3}
    losses, _ = tracking.losses(batch)
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in parameters(tracking) if p.grad is not None)


def test_a_batch_of_words_alone_runs_the_same_modules_as_one_with_masks(root):
    calls: dict[str, list[str]] = {}
    for name in ("llava-instruct", "refer-youtube-vos"):
        tracking = stage(root, name, frames=3)
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
    lesson = Lesson(frames, frames[0], (), np.ones((1, 4, 16, 16), bool), np.zeros((4, 16, 16), bool), "")
    targets = targets_of([lesson], 4, CPU)
    queries = targets.with_queries(torch.from_numpy(referring), torch.from_numpy(purport))
    with torch.no_grad():
        found = unroll(model, model.segmenter.encode(targets.frames), queries)
    perception, memory = model.tracker().perception, None
    from trackgpt.memory import QueryMemory

    memory = QueryMemory()
    for t, frame in enumerate(frames):
        prediction, memory = perception.perceive(frame, Cue("", referring, purport), memory)
        assert found.scores[0, t].clamp(0, 1).item() == pytest.approx(float(prediction.scores[0]), abs=1e-6)
    assert found.logits.shape == (1, 4, 16, 16)


def test_a_target_whose_clip_is_shorter_is_not_scored_beyond_its_end():
    model = tiny_trackgpt("conv", "conv", tied=True)
    frames = np.zeros((3, 64, 64, 3), np.uint8)
    mask = np.ones((1, 3, 16, 16), bool)
    quiet = np.zeros((3, 16, 16), bool)
    long, short = (Lesson(frames[:t], frames[0], (), mask[:, :t], quiet[:t], "") for t in (3, 1))
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
    pictures = cached.lessons.pictures()
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
    tracking.cache.fill(tracking.lessons.pictures(), tracking.model.segmenter)
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
