"""A whole TrackGPT: saved, loaded, folded and refused. The tracks themselves are in test_online.py."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import ANSWER, frame, say, square, tiny_trackgpt
from torch import nn
from tracks import Track

from trackgpt.errors import ModelError, UsageError
from trackgpt.hub import find, load_model
from trackgpt.memory import QueryMemory
from trackgpt.online import follow
from trackgpt.perception.encoders import ConvUnit
from trackgpt.systems.trackgpt import BrainReasoner, QueryPerception, TrackGPT, tied_names
from trackgpt.track import TrackState
from trackgpt.types import Prompt

KINDS = [("clip", "conv", False), ("clip", "sam_vit", False), ("conv", "conv", True)]
SAY = Prompt("track it")
NOTHING = TrackState(QueryMemory(), None)


def outputs(model):
    """Queries of a forced answer, and logits, score and online query of a frame decoded with them."""
    answer = model.brain.reason(square(model.brain), "track it", forced=ANSWER)
    with torch.no_grad():
        pixels = torch.from_numpy(frame(1, 64, 64)).permute(2, 0, 1)[None]
        decoded = model.segmenter.decode(model.segmenter.encode(pixels), answer.referring, None, answer.purport)
    return [answer.referring, answer.purport, decoded.logits, decoded.score, decoded.online]


def farthest(a, b):
    """The largest difference of two lists of tensors."""
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


def rewrite(folder, change):
    """Apply `change` to the weights of a saved model."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "model"
    tiny_trackgpt("conv", tied=True).save_pretrained(folder)
    return folder


# Saved and loaded


@pytest.mark.parametrize(("tower", "encoder", "tied"), KINDS)
def test_a_saved_model_comes_back_with_equal_outputs(tmp_path, tower, encoder, tied):
    model = tiny_trackgpt(tower, encoder, tied, seed=5)
    model.save_pretrained(tmp_path)
    again = TrackGPT.from_pretrained(tmp_path)
    assert again.config == model.config
    assert farthest(outputs(again), outputs(model)) == 0.0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_a_loaded_model_is_ready_for_inference_and_tracking_changes_nothing_in_it(saved):
    model = TrackGPT.from_pretrained(saved)
    assert not [name for name, module in model.named_modules() if module.training]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    say(model.brain, ANSWER)
    list(follow(model.tracker(), [frame(0), frame(1)], [SAY]))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items() if "lm_head" not in name)


def test_a_tied_output_layer_is_stored_once_and_tied_again(saved):
    names = load_file(saved / "model.safetensors").keys()
    assert [name for name in names if "lm_head" in name] == []
    llava = TrackGPT.from_pretrained(saved).brain.llava
    assert llava.lm_head.weight is llava.get_input_embeddings().weight
    embedding = "brain.llava.model.language_model.embed_tokens.weight"
    assert tied_names(tiny_trackgpt("conv", tied=True)) == {"brain.llava.lm_head.weight": embedding}
    assert tied_names(tiny_trackgpt("clip", tied=False)) == {}


def test_storing_in_bfloat16_halves_the_file_and_rounds_the_weights(tmp_path):
    model = tiny_trackgpt("clip")
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "half", dtype=torch.bfloat16)
    whole, half = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "half"))
    sizes = [sum(v.numel() * v.element_size() for v in weights.values()) for weights in (whole, half)]
    counters = sum(v.numel() * v.element_size() for v in whole.values() if not v.is_floating_point())
    assert sizes[1] - counters == (sizes[0] - counters) / 2
    files = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert 0.5 <= files[1] / files[0] < 0.53
    again = TrackGPT.from_pretrained(tmp_path / "half")
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    assert all(torch.equal(v, whole[k].bfloat16().to(v.dtype)) for k, v in again.state_dict().items() if k in whole)


@pytest.mark.parametrize(("tower", "encoder", "tied"), KINDS)
def test_a_model_can_run_in_bfloat16(tmp_path, tower, encoder, tied):
    tiny_trackgpt(tower, encoder, tied).save_pretrained(tmp_path)
    model = TrackGPT.from_pretrained(tmp_path, dtype=torch.bfloat16).fold()
    model.brain.config.answer = "forced"
    track = Track(model.tracker())
    assert track.look(frame(0), SAY).masks.shape == (1, 36, 64)
    assert np.isfinite(track.look(frame(1)).scores).all()
    assert track.state.memory.online.dtype == np.float32


# Folded


@pytest.mark.parametrize(("tower", "encoder", "tied"), KINDS)
def test_folding_changes_nothing_but_the_layers(tower, encoder, tied):
    model = tiny_trackgpt(tower, encoder, tied)
    before = outputs(model)
    units = [m for m in model.modules() if isinstance(m, ConvUnit)]
    assert len(units) == 4 * [tower, encoder].count("conv")
    assert model.fold() is model
    assert not [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert farthest(outputs(model), before) <= 1e-4
    folded = outputs(model)
    assert farthest(outputs(model.fold()), folded) == 0.0


def test_loading_by_folder_folds_and_gives_the_same_outputs(saved):
    plain, ready = TrackGPT.from_pretrained(saved), load_model(saved, device="cpu")
    assert not [m for m in ready.modules() if isinstance(m, nn.BatchNorm2d)]
    assert farthest(outputs(plain), outputs(ready)) <= 1e-4


# Refused


def test_a_name_or_a_device_that_is_not_there_is_named(saved, tmp_path):
    with pytest.raises(ModelError, match="MD01: no_such: not a model on this machine; shipped: nano"):
        find("no_such")
    assert find(tmp_path) == tmp_path
    with pytest.raises(ModelError, match="MD04: device warp: .*--device cpu always works"):
        load_model(saved, device="warp")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(ModelError, match=f"MD01: .*model: {name} is missing") as caught:
        TrackGPT.from_pretrained(saved)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("keep", [0, 4, 1000, 100_000])
def test_a_truncated_weights_file_is_refused(saved, keep):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="MD02: .*model.safetensors: not a whole safetensors file"):
        TrackGPT.from_pretrained(saved)


@pytest.mark.parametrize(("text", "said"), [("{", "Expecting"), ("[1]", ""), ('{"nme": "x"}', "did you mean `name`")])
def test_a_damaged_configuration_is_refused(saved, text, said):
    (saved / "config.json").write_text(text)
    with pytest.raises(ModelError, match=f"MD02: .*config.json: not a (mapping|configuration of TrackGPT) .*{said}"):
        TrackGPT.from_pretrained(saved)


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("brain", {"pixel_std": [0.0, 1.0, 1.0]}),
        ("brain", {"pixel_mean": [0.5]}),
        ("brain", {"projection_depth": 10**9}),
        ("brain", {"image_side": 10**9}),
        ("brain", {"llava": None}),
        ("brain", {"max_answer_tokens": 0}),
        ("perception", {"image_side": 0}),
        ("perception", {"image_side": 10**9}),
        ("perception", {"decoder": {"multimask": 10**9}}),
        ("perception", {"decoder": {"hidden_size": 10**9}}),
        ("perception", {"decoder": {"heads": 7}}),
        ("perception", {"encoder": {"blocks": [10**9, 1, 1, 1]}}),
        ("perception", {"encoder": {"kind": "sam_vit", "sam": {"image_size": 10**9}}}),
        ("rethink", {"search_every": 0}),
    ],
)
def test_a_configuration_that_makes_no_sense_is_one_line(saved, part, values):
    described = json.loads((saved / "config.json").read_text())
    for key, value in values.items():
        old = described[part].get(key)
        described[part][key] = old | value if isinstance(old, dict) and isinstance(value, dict) else value
    (saved / "config.json").write_text(json.dumps(described))
    with pytest.raises(ModelError, match="^MD02: .*config.json: ") as caught:
        TrackGPT.from_pretrained(saved)
    assert "\n" not in str(caught.value)


def test_the_damaged_files_that_mutation_found_are_one_line(shared, tmp_path):
    for name, case in (("config.json", "mut_config_json-578cfe"), ("tokenizer.json", "mut_tokenizer_json-62fede")):
        for file in find("nano").iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        (tmp_path / name).write_bytes((shared / "cases/fuzz" / case).read_bytes())
        with pytest.raises(ModelError, match=f"^MD02: {tmp_path}") as caught:
            load_model(tmp_path, "cpu")
        assert caught.value.exit_code == 4
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_finite_number_is_named(saved, value):
    name = "segmenter.mask_decoder.iou_token.weight"
    rewrite(saved, lambda weights: weights[name].fill_(value))
    with pytest.raises(
        ModelError, match=f"MD02: .*model.safetensors: the weight {name} has values that are NaN or inf"
    ):
        TrackGPT.from_pretrained(saved)


def test_integers_where_floating_numbers_belong_are_refused(saved):
    name = "segmenter.mask_decoder.iou_token.weight"
    rewrite(saved, lambda weights: weights.update({name: weights[name].to(torch.int64)}))
    with pytest.raises(ModelError, match=f"MD02: .*the weight {name} is stored as int64, wanted floating numbers"):
        TrackGPT.from_pretrained(saved)
    counters = [n for n in load_file(saved / "model.safetensors") if n.endswith("num_batches_tracked")]
    rewrite(saved, lambda weights: weights.update({counters[0]: weights[counters[0]].float()}))
    with pytest.raises(ModelError, match="MD02: .*wanted (integers|floating numbers)"):
        TrackGPT.from_pretrained(saved)


def test_a_folder_whose_configuration_ties_what_its_file_holds_apart_is_refused(saved):
    """Which of the two was meant cannot be known; the same twice is no contradiction."""
    tied, embedding = "brain.llava.lm_head.weight", "brain.llava.model.language_model.embed_tokens.weight"
    rewrite(saved, lambda weights: weights.update({tied: weights[embedding].clone()}))
    TrackGPT.from_pretrained(saved)
    rewrite(saved, lambda weights: weights.update({tied: weights[embedding] + 1}))
    with pytest.raises(
        ModelError, match=f"MD02: .*two different values of the weight {tied}, which config.json ties to"
    ):
        TrackGPT.from_pretrained(saved)


def test_a_git_lfs_pointer_is_called_one(saved):
    for name in ("model.safetensors", "tokenizer.json"):
        whole = (saved / name).read_bytes()
        (saved / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        with pytest.raises(ModelError, match=f"MD01: .*{name}: a Git LFS pointer .*git lfs pull"):
            TrackGPT.from_pretrained(saved)
        (saved / name).write_bytes(whole)


def test_a_damaged_tokenizer_is_refused(saved):
    (saved / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="MD02: .*the tokenizer's files are damaged"):
        TrackGPT.from_pretrained(saved)


def test_missing_weights_are_named(saved):
    rewrite(saved, lambda weights: weights.pop("brain.projection.0.bias"))
    with pytest.raises(ModelError, match="MD02: .*the model lacks 1 weights: brain.projection.0.bias$"):
        TrackGPT.from_pretrained(saved)


def test_unknown_weights_are_named(saved):
    rewrite(saved, lambda weights: weights.update({f"brain.extra.{i}": torch.zeros(1) for i in range(5)}))
    with pytest.raises(ModelError, match=r"does not know 5 weights: brain.extra.0, .*1, .*2 \.\.\.$"):
        TrackGPT.from_pretrained(saved)


def test_reshaped_weights_are_named(saved):
    rewrite(saved, lambda weights: weights.update({"segmenter.no_mask_embed.weight": torch.zeros(1, 33)}))
    with pytest.raises(ModelError, match="differs in shape for 1 weights: segmenter.no_mask_embed.weight$"):
        TrackGPT.from_pretrained(saved)


def test_a_configuration_of_another_size_is_refused_by_the_weights(saved):
    config = json.loads((saved / "config.json").read_text())
    config["brain"]["projection_depth"] = 3
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="lacks 2 weights: brain.projection.4.bias, brain.projection.4.weight"):
        TrackGPT.from_pretrained(saved)


# Reasoner and perception, as the loop sees them


def test_the_reasoner_gives_numpy_queries_and_words_for_people():
    model = tiny_trackgpt()
    say(model.brain, ANSWER)
    cue = BrainReasoner(model.brain).reason(frame(0), NOTHING, SAY)
    assert cue.text == "Sure, I track the red car."
    assert (cue.targets, cue.referring.dtype, cue.purport.shape) == (1, np.float32, (1, 32))


def test_the_threshold_of_the_mask_is_that_of_the_config():
    model = tiny_trackgpt()
    say(model.brain, ANSWER)
    cue = BrainReasoner(model.brain).reason(frame(0), NOTHING, SAY)
    areas = []
    for threshold in (-1e3, 0.0, 1e3):
        perception = QueryPerception(model.segmenter, threshold, 0.0)
        areas.append(perception.perceive(frame(0), replace(NOTHING, cue=cue), ())[0].masks.mean())
    assert areas[0] == 1.0
    assert 0 < areas[1] < 1
    assert areas[2] == 0.0


def test_several_trackers_share_one_model_without_sharing_state():
    model = tiny_trackgpt()
    say(model.brain, ANSWER)
    one, other, alone = (Track(model.tracker()) for _ in range(3))
    one.look(frame(0), SAY)
    other.look(frame(5), SAY)
    alone.look(frame(0), SAY)
    a = one.look(frame(1))
    other.look(frame(6))
    b, mixed = alone.look(frame(1)), one.look(frame(2))
    assert np.array_equal(a.masks, b.masks)
    assert np.array_equal(mixed.scores, alone.look(frame(2)).scores)


@pytest.mark.parametrize(
    ("ablation", "propagates", "asks", "searches"),
    [
        ("full", True, True, True),
        ("no-rethinking", True, False, False),
        ("no-propagation", False, True, True),
        ("first-frame", False, False, False),
    ],
)
def test_an_ablation_swaps_one_part_and_leaves_the_model_as_it_is(ablation, propagates, asks, searches):
    model = tiny_trackgpt()
    before = model.config.rethink.enabled, model.segmenter.mask_decoder.propagate
    tracker = model.tracker(ablation)
    rethink = tracker.arbiter.config
    assert (tracker.perception.propagate, rethink.enabled, rethink.search_every < 100) == (propagates, asks, searches)
    assert (model.config.rethink.enabled, model.segmenter.mask_decoder.propagate) == before == (True, True)


def test_without_propagation_a_frame_does_not_know_those_before_it():
    model = tiny_trackgpt()
    model.config.rethink.enabled = False
    say(model.brain, ANSWER)
    scores = {}
    for ablation in ("full", "no-propagation"):
        predictions = follow(model.tracker(ablation), [frame(0), frame(1), frame(0)], [SAY])
        scores[ablation] = [float(seen.scores[0]) for seen in predictions]
    first, _, again = scores["no-propagation"]
    assert first == again
    assert scores["full"][0] != scores["full"][2]


def test_settings_win_over_the_models_own_and_unknown_ones_are_named():
    model = tiny_trackgpt()
    model.config.rethink.ratio = 0.25
    arbiter = model.tracker(settings=["cooldown=3"]).arbiter
    assert (arbiter.config.cooldown, arbiter.config.ratio, model.config.rethink.cooldown) == (3, 0.25, 0)
    with pytest.raises(UsageError, match="did you mean `cooldown`"):
        model.tracker(settings=["cooldwn=3"])
    with pytest.raises(UsageError, match="ablation perfect: not one of full, no-rethinking, no-propagation, first-"):
        model.tracker("perfect")
