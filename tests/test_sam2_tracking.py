"""SAM 2 in training: its steps are those of stock streaming, and a run changes and exports what it says."""

import copy
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from foreign_checkpoints import sam2_video
from mask_sets import write_davis
from safetensors.torch import load_file, save_file
from transformers import Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from trackgpt.errors import ModelError, UsageError
from trackgpt.perception.encoders import normalise
from trackgpt.perception.memory_segmenter import Asked
from trackgpt.perception.sam2_memory import NEUTRAL, Sam2Memory
from trackgpt.types import VisualPrompt
from train.assemble import carries_lora
from train.config import MemoryConfig, Shape
from train.memory_tracking import MemoryTrackingStage, Prompted
from train.sam2_tracking import Sam2Steps, merged_weights, sam2_to_train

CPU = torch.device("cpu")
SIDE = 64
CLOSE = 1e-6
"""Roundings change masks by a fifth of this, memories without bfloat16's rounding by twice, no pointers by 70 times."""
MASKS = torch.zeros(3, SIDE, SIDE)
"""Of three targets of one clip."""
for number, (x1, y1, x2, y2) in enumerate(((10, 10, 35, 30), (25, 25, 55, 50), (4, 4, 25, 20))):
    MASKS[number, y1:y2, x1:x2] = 1
BOXES = torch.tensor([[10, 10, 35, 30], [25, 25, 55, 50], [4, 4, 25, 20]]) / SIDE
POINTS = torch.tensor([[[20.0, 20.0]], [[35.0, 35.0]], [[10.0, 10.0]]]) / SIDE
EVERY = torch.zeros(3, dtype=torch.int64)
NOWHERE = torch.full((3, 1, 2), torch.nan)


def video(count, seed=1):
    """Frames uint8 (t, 3, s, s)."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return (255 * F.interpolate(coarse, (SIDE, SIDE), mode="bilinear")).to(torch.uint8)


@pytest.fixture(scope="module")
def model():
    return sam2_video()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("sam2") / "tiny"
    sam2_video(where)
    return where


def shown_as(kinds):
    kind = torch.tensor(kinds)
    boxes, points = BOXES.clone(), POINTS.clone()
    boxes[kind != 1], points[kind != 2] = torch.nan, torch.nan
    return Prompted(kind, boxes, points)


@torch.no_grad()
def unrolled(model, frames, kinds):
    """Logits of the tracked frames and object logits, of three targets at once, by the steps of training."""
    steps = Sam2Steps(model)
    maps = steps.encode(frames)
    track, found = steps.begin(maps.of(EVERY), shown_as(kinds), MASKS)
    given = track.given.view(-1, 1, 1, 1)
    kept = torch.where(given, steps.exact(MASKS), steps.handed_on(found))
    steps.remember(maps.of(EVERY), track, found, kept, kept, track.given | (found.presence > 0))
    logits = []
    for t in range(1, len(frames)):
        found = steps.follow(maps.of(EVERY + t), track)
        kept, seen = steps.handed_on(found), found.presence > 0
        steps.remember(maps.of(EVERY + t), track, found, kept, kept, seen)
        logits.append(torch.where(seen.view(-1, 1, 1), found.small[:, 0], torch.tensor(-1024.0)))
    return torch.stack(logits, 1)


@torch.no_grad()
def streamed(model, frames, kind, target):
    """The same of one target, by transformers."""
    held, logits = Sam2VideoInferenceSession(video_height=SIDE, video_width=SIDE, dtype=torch.float32), []
    held.obj_id_to_idx(1)
    held.obj_with_new_inputs = [1]
    if kind == 0:
        held.add_mask_inputs(0, 0, MASKS[target][None, None])
    else:
        points, labels = (BOXES[target].view(1, 1, 2, 2), [[[2, 3]]]) if kind == 1 else (POINTS[target][None], [[[1]]])
        inputs = {
            "point_coords": points.view(1, 1, -1, 2) * SIDE,
            "point_labels": torch.tensor(labels, dtype=torch.int32),
        }
        held.add_point_inputs(0, 0, inputs)
    for t, frame in enumerate(frames):
        out = model(inference_session=held, frame=normalise(frame[None])[0], frame_idx=t)
        if t:
            logits.append(out.pred_masks[0, 0])
    return torch.stack(logits)


@pytest.mark.parametrize(
    ("kinds", "count"),
    [([0, 0, 0], 4), ([1, 1, 1], 4), ([2, 2, 2], 4), ([2, 0, 1], 10)],
    ids=["masks", "boxes", "points", "all three, longer than the memory"],
)
def test_the_steps_of_training_are_stock_streaming(model, kinds, count):
    frames = video(count)
    found = unrolled(model, frames, kinds)
    for target, kind in enumerate(kinds):
        stock = streamed(model, frames, kind, target)
        assert stock.std() > 1e-3
        assert (found[target] - stock).abs().max() < CLOSE


def test_an_absent_target_is_remembered_as_stock_streaming_does(model):
    frames, model = video(8), copy.deepcopy(model)
    head = model.mask_decoder.pred_obj_score_head.proj_out
    with torch.no_grad():
        head.weight.mul_(1e4)
        head.bias.fill_(-12.09)  # with which targets come and go
    found = unrolled(model, frames, [0, 0, 0])
    gone = (found == -1024).flatten(2).all(2)
    assert gone.any()
    assert not gone.all()
    for target in range(3):
        assert (found[target] - streamed(model, frames, 0, target)).abs().max() < CLOSE


def test_a_click_on_a_tracked_frame_is_what_inference_makes_of_it(model, folder):
    frames, network = video(5), Sam2Memory.from_pretrained(folder, settings=NEUTRAL)
    steps, memory = Sam2Steps(model), None
    with torch.no_grad():
        maps = steps.encode(frames)
        track, found = steps.begin(maps.of(EVERY), shown_as([0, 0, 0]), MASKS)
        kept = steps.exact(MASKS)
        for t, frame in enumerate(frames):
            shown = {0: VisualPrompt(mask=MASKS[0].numpy() > 0), 2: VisualPrompt(points=((20.0, 44.0, 1),))}.get(t)
            (wanted,) = network.segment(frame.permute(1, 2, 0).numpy(), [Asked(memory, shown)])
            memory = wanted.memory
            if t:
                found = steps.follow(maps.of(EVERY + t), track)
                if t == 2:
                    click = torch.tensor([20.0, 44.0]).expand(3, 1, 2) / SIDE
                    found = steps.again(maps.of(EVERY + t), track, found, (click, NOWHERE))
                kept = steps.handed_on(found)
                assert (kept[0, 0] > 0).numpy().tolist() == wanted.mask.tolist()
                assert found.iou[0, 0].sigmoid().item() == pytest.approx(wanted.iou, abs=1e-6)
            steps.remember(maps.of(EVERY + t), track, found, kept, kept, torch.ones(3, dtype=torch.bool))
            newest = max((*memory.conditioning, *memory.recent), key=lambda entry: entry.frame)
            assert (track.frames[-1].pointer[0] - newest.pointer.flatten()).abs().max() < 1e-5
            assert (track.frames[-1].memory[:, 0] - newest.features[:, 0].float()).abs().max() < 0.02  # of bfloat16


def test_clicks_change_the_clicked_targets_alone_and_are_remembered_as_shown(model):
    frames, steps = video(3), Sam2Steps(model)
    with torch.no_grad():
        maps = steps.encode(frames)
        track, found = steps.begin(maps.of(EVERY), shown_as([0, 1, 2]), MASKS)
        click = NOWHERE.clone()
        click[0], click[1] = 0.3, 0.6
        assert steps.again(maps.of(EVERY), track, found, None) is None
        again = steps.again(maps.of(EVERY), track, found, (click, NOWHERE))
        changed = [(again.small[k] != found.small[k]).any().item() for k in range(3)]
        assert changed == [False, True, False]  # the first was given by its mask
        kept = steps.handed_on(again)
        steps.remember(maps.of(EVERY), track, again, kept, kept, torch.ones(3, dtype=torch.bool))
        found = steps.follow(maps.of(EVERY + 1), track)
        assert not track.shown
        again = steps.again(maps.of(EVERY + 1), track, found, (NOWHERE, click))
        assert [(again.small[k] != found.small[k]).any().item() for k in range(3)] == [True, True, False]
        assert track.shown


def test_what_is_learned_reaches_all_that_should_learn(folder):
    memory = MemoryConfig(spoil=0.5, click=1.0, refine=1.0, prompts=[0.3, 0.3, 0.4])
    parts = {
        "decoder-memory": (
            "mask_decoder",
            "prompt_encoder",
            "memory_attention",
            "memory_encoder",
            "object_pointer_proj",
        ),
        "lora": ("vision_encoder", "memory_attention"),
        "all": ("vision_encoder", "mask_decoder", "memory_attention", "memory_encoder"),
    }
    for learn, wanted in parts.items():
        model = sam2_to_train(folder, learn, SIDE).train()
        stage = MemoryTrackingStage(model, Shape(SIDE, 3, 2), memory, CPU, Sam2Steps(model), whole=True)
        samples = [clip(3, seed) for seed in range(3)]
        torch.manual_seed(1)
        losses, figures = stage.losses(samples)
        assert set(losses) == {"mask", "iou", "presence"}
        assert {"track", "again"} <= set(figures)
        sum(losses.values()).backward()
        moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        assert {name.split(".")[0] for name in moved} >= set(wanted)
        if learn == "lora":
            assert all("lora_" in name for name in moved)
        assert (learn == "decoder-memory") != any(name.startswith("vision_encoder") for name in moved)


def clip(frames, seed):
    """A sample of the stage, of two targets."""
    ids = np.zeros((frames, SIDE, SIDE), np.uint8)
    for t in range(frames):
        ids[t, 10 + t : 30 + t, 10:30], ids[t, 36:56, 32:52] = 1, 2
    return {"frames": video(frames, seed).permute(0, 2, 3, 1).numpy(), "ids": ids}


def test_merged_adapters_give_the_masks_of_the_adapted_model(folder):
    model = sam2_to_train(folder, "lora", SIDE).eval()
    assert not carries_lora(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.05)
    plain = sam2_video()
    before = unrolled(plain, video(3), [0, 1, 2])
    plain.load_state_dict(merged_weights(model))
    adapted, merged = unrolled(model, video(3), [0, 1, 2]), unrolled(plain, video(3), [0, 1, 2])
    assert (adapted - merged).abs().max() < 1e-4
    assert (adapted - before).abs().max() > 1e-3


@pytest.mark.parametrize(("wrong", "error"), [("side", UsageError), ("weights", ModelError), ("missing", ModelError)])
def test_a_model_that_cannot_be_trained_is_one_line(folder, tmp_path, wrong, error):
    copy = tmp_path / "sam2"
    shutil.copytree(folder, copy)
    if wrong == "weights":
        file = copy / "model.safetensors"
        file.write_bytes(file.read_bytes()[:1000])
    elif wrong == "missing":
        weights = load_file(copy / "model.safetensors")
        weights.pop("no_object_pointer")
        save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(error) as caught:
        sam2_to_train(copy, "all", 32 if wrong == "side" else SIDE)
    assert "\n" not in str(caught.value)


@pytest.fixture
def train_tiny(train_command, folder, tmp_path):
    """Runs two steps on a miniature of DAVIS, or as many as are given; returns the run's folder."""
    sets = write_davis(tmp_path / "davis", count=3)

    def go(learn, out="out", previews="false", **plan):
        settings = {"steps": 2, "batch": 1, "bf16": "false", "workers": 0, "tensorboard": "false", "warmup": 0, **plan}
        config = tmp_path / f"{out}.yaml"
        config.write_text(
            f"stage: memory\nbrain: {folder}\nout: {out}\npreviews: {previews}\n"
            f"shape: {{side: {SIDE}, frames: 2, targets: 1}}\n"
            f"memory: {{sets: [{sets}], learn: {learn}, click: 0.5}}\n"
            f"plan: {{{', '.join(f'{key}: {value}' for key, value in settings.items())}}}\n"
        )
        done = train_command(config)
        assert done.code == 0, done.err
        return tmp_path / out

    return go


@pytest.mark.parametrize("learn", ["decoder-memory", "lora", "all"])
def test_a_run_exports_a_whole_sam2_in_which_what_was_frozen_is_as_it_was(train_tiny, model, learn):
    out = train_tiny(learn, previews=str(learn == "all").lower())
    assert Sam2Memory.from_pretrained(out / "model")
    assert (out / "previews/000002.png").exists() == (learn == "all")
    trained, report = Sam2VideoModel.from_pretrained(out / "model", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    before, after = model.state_dict(), trained.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    encoder = {name for name in changed if name.startswith("vision_encoder.")}
    assert changed
    assert bool(encoder) == (learn != "decoder-memory")
    if learn == "lora":
        assert all(name.endswith(("proj.weight", "qkv.weight")) for name in changed)
        assert not any(name.startswith(("mask_decoder.", "memory_encoder.", "prompt_encoder.")) for name in changed)
    assert "stage memory, step 2 of 2" in (out / "model/README.md").read_text()
    assert '"architectures": [\n    "Sam2VideoModel"\n  ]' in (out / "model/config.json").read_text()


@pytest.mark.parametrize("learn", ["decoder-memory", "lora"])
def test_a_run_that_goes_on_ends_with_the_bits_of_one_that_never_stopped(train_tiny, learn):
    whole = train_tiny(learn, out="whole", save_every=1)
    parts = train_tiny(learn, out="parts", save_every=1)
    newest = parts / "checkpoints/000002"
    shutil.rmtree(newest)
    shutil.rmtree(parts / "model")
    (parts / "checkpoints/latest").write_text("000001\n")
    train_tiny(learn, out="parts", save_every=1)
    one, other = (folder / "model/model.safetensors" for folder in (whole, parts))
    assert one.read_bytes() == other.read_bytes()
