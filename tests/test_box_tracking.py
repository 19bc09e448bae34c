"""Training of the box tracker: which frames and windows, which losses, and runs that stop and go on."""

import numpy as np
import pytest
import torch
from open_vocabulary_checkpoints import bert_words
from PIL import Image
from safetensors.torch import load_file
from tiny_boxes import tiny_network, written_tracker
from transformers import BertConfig, BertModel

from data_tools import box_writers
from trackgpt.errors import InputError, ModelError, UsageError
from trackgpt.hub import load_model, load_trackgpt
from trackgpt.perception.box_transformer import BoxMaps
from trackgpt.perception.search_window import SquareCrop
from trackgpt.synthtrack.clips import description, make_case
from trackgpt.synthtrack.wordings import REGIONS
from trackgpt.types import Prompt, VisualPrompt
from train.__main__ import run as train_config
from train.assemble import box_model, word_table
from train.box_tracking import (
    BoxTrackingStage,
    batch_words,
    box_losses,
    bump_radius,
    causal,
    corners,
    focal_loss,
    heatmap,
    jittered,
    open_box_sets,
    overlaps,
    spoilt,
)
from train.config import BoxConfig, TrainConfig
from train.model_folder import exported_step
from train.plan import Plan
from train.previews import draw_boxes


def stage(**box) -> BoxTrackingStage:
    return BoxTrackingStage(tiny_network().train(), BoxConfig(**box), torch.device("cpu"))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- samples ---


def test_frames_of_a_sample_are_visible_in_order_and_within_the_gap():
    seen = np.ones(60, bool)
    seen[10:20] = False
    for k in range(200):
        chosen = causal(rng(k), seen, 3, 2, 12)
        if chosen is not None:
            assert len(chosen) == 5
            assert all(seen[t] for t in chosen)
            assert all(0 < b - a <= 12 for a, b in zip(chosen, chosen[1:]))


def test_a_target_that_is_seen_too_rarely_or_hidden_for_too_long_gives_no_sample():
    assert causal(rng(), np.arange(40) < 4, 3, 2, 200) is None
    seen = np.isin(np.arange(300), (0, 1, 2, 298, 299))
    assert causal(rng(), seen, 3, 2, 200) is None
    assert causal(rng(), seen, 3, 2, 297) == [0, 1, 2, 298, 299]


def test_a_jittered_box_still_has_the_target_in_its_search_window():
    box, how = (100.0, 100.0, 140.0, 130.0), BoxConfig()
    inside = []
    for k in range(300):
        x1, y1, x2, y2 = SquareCrop.around(jittered(rng(k), box, how), 4.0).inside(box)
        inside.append(0 < (x1 + x2) / 2 < 1 and 0 < (y1 + y2) / 2 < 1)
    assert all(inside)
    still = BoxConfig(centre=0.0, scale=0.0)
    assert jittered(rng(), box, still) == pytest.approx(box)


def test_a_sample_of_a_scene_is_a_function_of_its_seed_and_its_box_is_the_target():
    made = stage(wordless=0.0)
    one, again, other = made.sample(3), made.sample(3), made.sample(4)
    assert np.array_equal(one.searches, again.searches)
    assert one.words == again.words != ""
    assert not np.array_equal(one.searches, other.searches)
    assert (one.templates.shape, one.searches.shape, one.boxes.shape) == ((3, 32, 32, 3), (2, 64, 64, 3), (2, 4))
    assert (one.boxes[:, 2:] > 0).all()
    assert stage(wordless=1.0).sample(3).words == ""


def test_a_description_says_what_the_target_is_and_where_it_is_now():
    case = make_case(777_777_0000, split="train", frames=16, longest=96)
    one = next(one for one in case.expressions if len(one.targets) == 1)
    said = [description(case, t, one.targets[0]) for t in (0, 15)]
    assert all(words.startswith("the ") and words.endswith(REGIONS) for words in said if words)
    assert any(said)
    assert description(case, 0, 200) == ""


def test_samples_in_a_row_share_a_scene_and_randomised_ones_have_no_words():
    made = stage(wordless=0.0, described=0.0)
    words = {made.sample(k).words for k in range(4)}
    told = {one.text for one in make_case(0, split="train", frames=16, longest=320).expressions}
    assert words <= told
    sample = stage(wordless=0.0, randomised=1.0).sample(0)
    assert sample.words == ""
    assert (sample.boxes[:, 2:] > 0).all()


def test_spoilt_views_are_blurred_grey_shifted_or_blank_and_their_words_stay():
    views = rng(5).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    made = [spoilt(rng(seed), views) for seed in range(40)]
    assert all(one.shape == views.shape and one.dtype == np.uint8 for one in made)
    grey = [one for one in made if (one == one[..., :1]).all() and one.std() > 0]
    blank = [one for one in made if (one == one[:1, :1, :1]).all()]
    shifted = [one for one in made if np.array_equal(np.sort(one.ravel()), np.sort(views.ravel()))]
    blurred = len(made) - len(grey) - len(blank) - len(shifted)
    assert min(len(grey), len(blank), len(shifted), blurred) >= 4
    sample = stage(wordless=0.0, spoilt=1.0).sample(3)
    plain = stage(wordless=0.0).sample(3)
    assert sample.words == plain.words
    assert np.array_equal(sample.searches, plain.searches)
    assert not np.array_equal(sample.templates, plain.templates)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Trees of SynthTrack in the layouts of the benchmarks, and one of GOT-10k."""
    root = tmp_path_factory.mktemp("sets")
    cases = [make_case(seed, split="train", frames=8, longest=96) for seed in (1, 2)]
    for name in ("lasot", "tnl2k", "tnllt"):
        getattr(box_writers, f"write_{name}")(root / name, cases, "train")
    folder = root / "GOT-10k/train/GOT-10k_Train_000001"
    folder.mkdir(parents=True)
    (folder.parent / "list.txt").write_text(f"{folder.name}\n")
    for t in range(8):
        Image.fromarray(cases[0].clip.frames[t]).save(folder / f"{t + 1:08d}.jpg")
    (folder / "groundtruth.txt").write_text("".join(f"{11 + t}.0000,21.0000,20.0000,16.0000\n" for t in range(8)))
    (folder / "absence.label").write_text("0\n" * 6 + "1\n0\n")
    return {name: str(root / name) for name in ("lasot", "tnl2k", "tnllt")} | {"got10k": str(root / "GOT-10k")}


@pytest.mark.parametrize("name", ["lasot", "tnl2k", "tnllt", "got10k"])
def test_every_layout_gives_samples_with_its_words(name, sets):
    sample = stage(sets={name: sets[name]}, wordless=0.0).sample(0)
    assert sample.searches.shape == (2, 64, 64, 3)
    assert (sample.words == "") is (name == "got10k")


def test_got_10k_counts_pixels_from_1_and_says_where_a_target_is_absent(sets):
    ((sequence,),) = open_box_sets({"got10k": sets["got10k"]})
    video = sequence.video()
    assert len(video.images) == 8
    assert video.boxes[0].tolist() == [10, 20, 30, 36]
    assert np.flatnonzero(np.isnan(video.boxes[:, 0])).tolist() == [6]


def test_a_frame_that_cannot_be_read_is_an_error_that_names_it(sets, tmp_path):
    ((sequence,),) = open_box_sets({"got10k": sets["got10k"]})
    made = stage(sets={"got10k": sets["got10k"]})
    kept = [path.read_bytes() for path in sequence.frames()]
    try:
        for path in sequence.frames():
            path.write_bytes(b"no picture")
        with pytest.raises(InputError, match=r"0000000\d\.jpg"):
            made.sample(0)
    finally:
        for path, data in zip(sequence.frames(), kept, strict=True):
            path.write_bytes(data)


def test_sets_of_no_known_layout_or_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(UsageError, match="none of lasot, got10k"):
        open_box_sets({"davis": str(tmp_path)})
    with pytest.raises(InputError):
        open_box_sets({"tnllt": str(tmp_path)})


def test_words_of_a_batch_are_filled_up_and_those_who_say_nothing_have_none():
    model = tiny_network()
    said = ["the red car", "", "a dog"]
    ids, counts = batch_words(said, model)
    assert ids.shape == counts.shape
    assert counts.sum(1).tolist() == [
        len(model.tokenizer.encode(text)) if text else 0 for text in ("the red car", "", "a dog")
    ]
    assert batch_words(["", ""], model) is None
    assert batch_words(["red " * 80], model)[0].shape == (1, 40)


# --- losses ---


def test_overlaps_of_boxes_that_are_equal_shifted_and_apart():
    a = torch.tensor([[0.0, 0, 2, 2]] * 3)
    b = torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [4, 0, 6, 2]])
    iou, giou = overlaps(a, b)
    assert iou.tolist() == pytest.approx([1, 1 / 3, 0])
    assert giou.tolist() == pytest.approx([1, 1 / 3, -1 / 3])  # 8 of 12 around, 4 of them empty


def test_a_bump_is_1_at_the_cell_of_the_middle_and_wider_for_larger_boxes():
    boxes = torch.tensor([[0.5, 0.26, 0.2, 0.2], [0.5, 0.26, 0.8, 0.8], [1.5, 0.5, 0.2, 0.2]])
    heat = heatmap(boxes, 16)
    assert [divmod(int(each.argmax()), 16) for each in heat[:2]] == [(4, 8)] * 2
    assert heat[:2].flatten(1).amax(1).tolist() == [1, 1]
    assert heat[0].sum() < heat[1].sum()
    assert heat[2].sum() == 0


def test_within_a_bumps_radius_boxes_of_one_size_overlap_by_0_7():
    width, height = torch.tensor([10.0, 40.0]), torch.tensor([10.0, 10.0])
    radius = bump_radius(width, height)
    corner = torch.stack([radius, radius, radius + width, radius + height], 1)
    iou, _ = overlaps(torch.stack([0 * width, 0 * width, width, height], 1), corner)
    assert (iou >= 0.7 - 1e-5).all()
    assert iou.min() < 0.75


def test_the_focal_loss_of_one_cell_is_what_its_formula_says():
    score, heat = torch.full((1, 2, 2), 0.5), torch.zeros(1, 2, 2)
    heat[0, 0, 0], heat[0, 0, 1] = 1.0, 0.5
    wanted = -np.log(0.5) * 0.25 * (1 + 0.5**4 + 1 + 1)
    assert focal_loss(score, heat).item() == pytest.approx(wanted)


def test_a_map_that_says_where_the_target_is_costs_nothing_but_a_little_focal_loss():
    truth = torch.tensor([[0.3, 0.6, 0.2, 0.4]])
    score, offset = torch.full((1, 4, 4), 1e-4), torch.zeros(1, 2, 4, 4)
    score[0, 2, 1] = 1 - 1e-4
    offset[0, :, 2, 1] = torch.tensor([0.2, 0.4])
    size = torch.tensor([0.2, 0.4]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    parts, iou = box_losses(BoxMaps(score, size, offset, None), truth)
    assert iou.item() == pytest.approx(1, abs=1e-5)
    assert [parts[name].item() for name in ("giou", "l1")] == pytest.approx([0, 0], abs=1e-5)
    assert parts["focal"].item() < 1e-3
    assert corners(truth)[0].tolist() == pytest.approx([0.2, 0.4, 0.4, 0.8])


def test_every_part_of_the_network_learns_and_steps_on_one_batch_lower_the_loss():
    torch.manual_seed(0)
    made = stage(wordless=0.0)
    samples = [made.sample(k) for k in (1, 2)]
    optimiser = torch.optim.AdamW(made.model.parameters(), lr=3e-3)
    totals = []
    for _ in range(12):
        parts, figures = made.losses(samples)
        total = sum(made.weights[name] * value for name, value in parts.items())
        optimiser.zero_grad()
        total.backward()
        if not totals:
            unmoved = [n for n, p in made.model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
            assert unmoved == []
        optimiser.step()
        totals.append(total.item())
    assert totals[-1] < 0.8 * totals[0]
    assert 0 <= figures["iou"] <= 1


# --- runs ---


def configured(out, brain, steps, **box) -> TrainConfig:
    plan = Plan(steps=steps, batch=2, warmup=0, workers=0, log_every=1, tensorboard=False, bf16=False, lr=1e-3)
    return TrainConfig("box", str(out), str(brain), box=BoxConfig(**box), device="cpu", previews=False, plan=plan)


def test_two_steps_and_a_resumed_one_equal_three_straight_and_the_model_tracks(tmp_path, monkeypatch, sets):
    monkeypatch.setattr("train.report.draw_curves", lambda out: None)
    tiny = written_tracker(tmp_path / "tiny")
    chosen = {"sets": {"tnllt": sets["tnllt"]}}
    train_config(configured(tmp_path / "straight", tiny, 3, **chosen))
    train_config(configured(tmp_path / "twice", tiny, 2, **chosen))
    torch.manual_seed(99)
    train_config(configured(tmp_path / "twice", tiny, 3, **chosen))
    one, other = (load_file(tmp_path / name / "model/model.safetensors") for name in ("straight", "twice"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert not torch.equal(one["norm.weight"], load_file(tiny / "model.safetensors")["norm.weight"])
    folder = tmp_path / "twice/model"
    assert exported_step(folder) == 3
    assert '"reasoningtrack:" + folder' in (folder / "README.md").read_text()
    tracker = load_model(f"reasoningtrack:{folder}", "cpu").tracker()
    frame = np.zeros((64, 80, 3), np.uint8)
    box = (20.0, 16.0, 44.0, 40.0)
    _, seen = tracker.step(tracker.begin(), frame, Prompt("the red car", visual=(VisualPrompt(box),)))
    assert seen.boxes.tolist() == [list(box)]


def test_a_new_tracker_is_nano_with_nanos_word_pieces():
    model = box_model(TrainConfig("box"))
    assert sum(p.numel() for p in model.parameters()) < 9e6
    assert model.config.vocabulary == len(model.tokenizer) == 1536


def test_a_new_tracker_may_begin_with_the_cells_of_nano_and_hold_them():
    model = box_model(TrainConfig("box", box=BoxConfig(stem="nano")))
    tower = load_trackgpt("nano", "cpu")
    pixels = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before = model.stem(pixels)
        assert torch.equal(model.train().stem(pixels), before)
        model.fold()
        assert model.stem(pixels).shape == (1, 192, 4, 4)
        assert torch.allclose(model.stem(pixels), before, atol=1e-3)
        assert torch.allclose(before, tower.brain.vision.encoder(pixels).embedding, atol=1e-2)
    for layer in model.layers:
        assert torch.equal(layer.attention.q_proj.weight, layer.attention.k_proj.weight)
    with pytest.raises(UsageError, match="box.stem: nano has no convolutions of the shape"):
        box_model(TrainConfig("box", box=BoxConfig(size="b-256", stem="nano")))


def test_a_stem_that_is_held_learns_nothing_and_everything_else_does():
    torch.manual_seed(0)
    network = tiny_network(stem="convolutions", stem_blocks=[1] * 4, stem_channels=[8, 8, 16, 32]).train()
    made = BoxTrackingStage(network, BoxConfig(wordless=0.0, hold_stem=True), torch.device("cpu"))
    before = {name: value.clone() for name, value in network.stem.state_dict().items()}
    parts, _ = made.losses([made.sample(1), made.sample(2)])
    sum(parts.values()).backward()
    assert all(torch.equal(value, before[name]) for name, value in network.stem.state_dict().items())
    assert {n.split(".")[0] for n, p in network.named_parameters() if p.grad is None} == {"stem"}


def test_a_new_tracker_may_begin_with_the_words_of_another_language_model(tmp_path):
    tokenizer = bert_words()
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}
    bert = BertModel(BertConfig(vocab_size=len(tokenizer), **shape))
    bert.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    model = box_model(TrainConfig("box", box=BoxConfig(words=str(tmp_path / "bert"))))
    assert torch.equal(model.words.table.weight, bert.embeddings.word_embeddings.weight)
    assert model.tokenizer.encode("the dog") == tokenizer.encode("the dog")
    with pytest.raises(ModelError, match="word tables: none"):
        word_table(written_tracker(tmp_path / "tiny"))
    with pytest.raises(UsageError, match="box.words: .* has its own already"):
        box_model(TrainConfig("box", brain=str(tmp_path / "tiny"), box=BoxConfig(words=str(tmp_path / "bert"))))


def test_a_preview_of_a_tracker_that_learns_is_a_picture_of_clips(tmp_path, monkeypatch):
    monkeypatch.setattr("train.previews.SEEDS", (900_000_001,))
    draw_boxes(tiny_network(), tmp_path / "preview.png")
    assert np.asarray(Image.open(tmp_path / "preview.png")).shape == (240, 960, 3)
