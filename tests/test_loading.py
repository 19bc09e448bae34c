"""Other people's brains and SAMs, by name: the same numbers as their own classes give, and one clear line otherwise."""

import json
import logging
from pathlib import Path

import foreign_checkpoints as foreign
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from test_sam_parity import HEADS, build_sam
from tiny_models import frame, say, square
from tracks import Track
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

import trackgpt
from trackgpt.errors import ModelError, UsageError
from trackgpt.hub import find, load_model, load_reported, pair
from trackgpt.online import follow
from trackgpt.perception.checkpoints import load_segmenter
from trackgpt.perception.encoders import normalise
from trackgpt.reasoners.brain_weights import load_brain
from trackgpt.reasoners.families import FAMILIES
from trackgpt.reasoners.lora import add_lora, merge_lora
from trackgpt.reasoners.vlm import find_dialect
from trackgpt.settings import to_dict
from trackgpt.systems.trackgpt import TrackGPT
from trackgpt.types import Prompt
from trackgpt.weights import LoadReport

KINDS = {
    "llava": foreign.llava,
    "llava_next": foreign.llava_next,
    "qwen2_5_vl": foreign.qwen2_5,
    "qwen3_vl": foreign.qwen3,
    "smolvlm": foreign.smolvlm,
}
ANSWER = "Sure. <TK>, <PO>"


def apart(a, b):
    assert a.shape == b.shape
    return float((a - b).detach().abs().max())


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Each family's folder and its model, by transformers' name."""
    place = tmp_path_factory.mktemp("brains")
    return {kind: (place / kind, write(place / kind)) for kind, write in KINDS.items()}


@pytest.fixture(scope="module")
def pth(tmp_path_factory):
    """A SAM's original file, with the heads that no shape shows."""
    path = tmp_path_factory.mktemp("sam") / "sam_vit_tiny.pth"
    torch.save(build_sam().state_dict(), path)
    return path


def asked_by_hand(kind, model, ids, pixels, side):
    """What each class of transformers is given by its own processor beside ids and pixels."""
    inputs = {"input_ids": ids, "pixel_values": pixels}
    if kind == "llava_next":
        inputs["image_sizes"] = torch.tensor([[side, side]])
    if kind.startswith("qwen"):
        cells = side // model.config.vision_config.patch_size
        inputs["image_grid_thw"] = torch.tensor([[1, cells, cells]])
        inputs["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
    return inputs


# Brains


@pytest.mark.parametrize("kind", KINDS)
def test_a_brain_computes_what_its_own_class_computes(checkpoints, kind):
    """Logits of every position, from one pass of transformers' class over the whole conversation."""
    folder, model = checkpoints[kind]
    brain, _ = load_brain(folder, 32)
    answer = brain.reason(square(brain), "track the dog", forced="it is the dog")  # no token that the model has not
    prompt = brain.template.prefix() + brain.template.question("track the dog")
    ids = torch.tensor([prompt + answer.ids])
    pixels = brain.preprocess(square(brain)[None])
    with torch.no_grad():
        theirs = model(**asked_by_hand(kind, model, ids, pixels, brain.config.image_side), output_hidden_states=True)
        ours = brain.hidden(ids, pixels)
        vocabulary = model.config.get_text_config().vocab_size
        assert apart(brain.llava.lm_head(ours)[..., :vocabulary], theirs.logits) <= 1e-5
    assert apart(ours, theirs.hidden_states[-1]) <= 1e-5
    assert theirs.logits.std() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_cached_forced_and_generated_answers_of_every_family_equal_one_uncached_pass(checkpoints, kind):
    brain, _ = load_brain(checkpoints[kind][0], 32)
    forced = brain.reason(square(brain), "track it", forced=ANSWER)
    prompt = brain.template.prefix() + brain.template.question("track it")
    with torch.no_grad():
        hidden = brain.hidden(torch.tensor([prompt + forced.ids]), brain.preprocess(square(brain)[None]))[0]
        at = len(prompt) + forced.ids.index(brain.template.track_id) - 1
        assert apart(brain.projection(hidden[at : at + 1]), forced.referring) <= 1e-5
    say(brain, ANSWER)
    generated = brain.reason(square(brain), "track it")
    assert generated.ids == forced.ids
    assert apart(generated.purport, forced.purport) <= 1e-5
    assert generated.shown == "Sure."


@pytest.mark.parametrize("kind", KINDS)
def test_another_brain_in_between_changes_nothing(checkpoints, kind):
    """Qwen's class remembers where the last image ended; two tracks must not hear of each other."""
    brain, _ = load_brain(checkpoints[kind][0], 32)
    first = brain.reason(square(brain), "track it", forced=ANSWER)
    brain.hidden(torch.tensor([brain.template.encode("words alone")]), None)
    assert apart(brain.reason(square(brain), "track it", forced=ANSWER).referring, first.referring) == 0
    assert apart(brain.reason(square(brain, 7), "track it", forced=ANSWER).referring, first.referring) > 1e-4
    assert getattr(brain.llava.model, "rope_deltas", None) is None


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_pixels_of_qwen_are_those_of_its_image_processor(checkpoints, kind):
    brain, _ = load_brain(checkpoints[kind][0], 32)
    side, vision = brain.config.image_side, brain.llava.config.vision_config
    assert side == 16 * 2 * vision.patch_size
    processor = Qwen2VLImageProcessorPil(
        patch_size=vision.patch_size,
        temporal_patch_size=vision.temporal_patch_size,
        merge_size=vision.spatial_merge_size,
        min_pixels=side * side,
        max_pixels=side * side,
        image_mean=brain.config.pixel_mean,
        image_std=brain.config.pixel_std,
    )
    given = processor(images=[Image.fromarray(frame(3, side, side))], return_tensors="pt")
    assert apart(brain.preprocess(square(brain, 3)[None]), given["pixel_values"]) <= 1e-5
    assert brain.family.image_tokens == int(given["image_grid_thw"].prod()) // 4 == 256


def test_tiles_of_llava_next_are_those_of_its_image_processor(checkpoints):
    brain, _ = load_brain(checkpoints["llava_next"][0], 32)
    processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": 56},
        crop_size={"height": 56, "width": 56},
        image_grid_pinpoints=brain.llava.config.image_grid_pinpoints,
        image_mean=brain.config.pixel_mean,
        image_std=brain.config.pixel_std,
    )
    given = processor(images=[Image.fromarray(frame(3, 112, 112))], return_tensors="pt")["pixel_values"]
    ours = brain.preprocess(square(brain, 3)[None])
    assert apart(ours[:, 1:], given[:, 1:]) <= 1e-5
    assert apart(ours[:, :1], given[:, :1]) <= 2 / 255 / 0.26  # it rounds to whole grey levels after scaling
    assert brain.family.image_tokens == 16 + 8 * 9


def test_every_family_speaks_as_it_was_trained(checkpoints, tmp_path):
    foreign.llava(tmp_path / "mistral", mistral=True)
    foreign.llava(tmp_path / "34b", special=("<|im_start|>", "<|im_end|>"))
    folders = {kind: folder for kind, (folder, _) in checkpoints.items()}
    folders |= {kind: tmp_path / kind for kind in ("mistral", "34b")}
    prompts = {}
    for kind, folder in folders.items():
        template = load_brain(folder, 32)[0].template
        one = template.prefix() + template.question("Hi")
        text = template.tokenizer.decode(one).replace(template.image_token * template.image_tokens, "IMAGE")
        prompts[kind] = text
    assert prompts == {
        "llava": "<s>USER: IMAGE\nHi ASSISTANT:",
        "llava_next": "<s>USER: IMAGE\nHi ASSISTANT:",
        "mistral": "<s>[INST] IMAGE\nHi [/INST]",
        "34b": "<s><|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\nIMAGE\nHi<|im_end|>"
        "<|im_start|>assistant\n",
        "qwen2_5_vl": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "<|vision_start|>IMAGE<|vision_end|>Hi<|im_end|>\n<|im_start|>assistant\n",
        "qwen3_vl": "<|im_start|>user\n<|vision_start|>IMAGE<|vision_end|>Hi<|im_end|>\n<|im_start|>assistant\n",
        "smolvlm": "<|im_start|>User:<fake_token_around_image><global-img>IMAGE<fake_token_around_image>Hi"
        "<end_of_utterance>\nAssistant:",
    }


def test_new_tokens_start_as_the_mean_of_all_words_and_old_rows_stay(checkpoints):
    folder, model = checkpoints["llava"]
    brain, report = load_brain(folder, 32)
    for name, theirs, ours in (
        ("model.language_model.embed_tokens", model.get_input_embeddings(), brain.llava.get_input_embeddings()),
        ("lm_head", model.lm_head, brain.llava.lm_head),
    ):
        rows = len(theirs.weight)
        assert torch.equal(ours.weight[:rows], theirs.weight)
        assert len(ours.weight) == rows + 2
        assert apart(ours.weight[rows], theirs.weight.mean(0)) <= 1e-6
        assert f"brain.llava.{name}.weight[<TK>]" in report.new
        assert f"brain.llava.{name}.weight" in report.reshaped


def test_spare_rows_are_used_before_the_embedding_grows(tmp_path):
    model = foreign.llava(tmp_path / "spare", spare=8)
    brain, report = load_brain(tmp_path / "spare", 32)
    words = len(model.get_input_embeddings().weight) - 8
    weight = brain.llava.get_input_embeddings().weight
    assert (brain.template.track_id, brain.template.purport_id, len(weight)) == (words, words + 1, words + 8)
    assert apart(weight[words], model.get_input_embeddings().weight[:words].mean(0)) <= 1e-6
    assert report.reshaped == ()


def test_the_width_comes_from_the_language_model(tmp_path):
    """13B has 5120 channels and not 4096; here 80 and not 48."""
    foreign.llava(tmp_path / "wide", hidden=80, max_shard_size="50KB")
    assert len(list((tmp_path / "wide").glob("*.safetensors"))) > 2
    brain, _ = load_brain(tmp_path / "wide", 32)
    assert [tuple(layer.weight.shape) for layer in brain.projection if hasattr(layer, "weight")] == [(80, 80), (32, 80)]
    assert brain.reason(square(brain), "track it", forced=ANSWER).referring.shape == (1, 32)


@pytest.mark.parametrize("kind", KINDS)
def test_lora_finds_the_attention_of_every_language_model_and_of_no_tower(checkpoints, kind):
    brain, _ = load_brain(checkpoints[kind][0], 32)
    before = brain.reason(square(brain), "track it", forced=ANSWER)
    names = add_lora(brain, brain.config.lora)
    assert len(names) == 4
    assert not [name for name in names if "vis" in name]
    assert apart(brain.reason(square(brain), "track it", forced=ANSWER).referring, before.referring) == 0
    merge_lora(brain)
    assert not [name for name in brain.state_dict() if "lora" in name]


# Perception


def test_a_sam_file_gives_the_segmenter_of_its_size(pth):
    sam, (segmenter, report) = build_sam(), load_segmenter(pth)
    assert str(report) == "173 loaded, 7 new, 15 skipped, 0 reshaped"
    pixels = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        embedding = segmenter.encode(pixels).embedding
        assert apart(embedding, sam.image_encoder(normalise(pixels))) <= 1e-5
    assert not segmenter.training


def test_the_heads_of_a_hugging_face_sam_are_those_of_its_config(tmp_path):
    from test_sam_parity import hugging_face_folder

    hugging_face_folder(tmp_path)
    assert load_segmenter(tmp_path)[0].config.decoder.heads == HEADS


def test_a_sam_2_computes_what_its_own_class_computes(tmp_path):
    """Encoder, no-memory embedding, object token, high-resolution maps, and the sigmoid of the score."""
    model = foreign.sam2(tmp_path)
    segmenter, report = load_segmenter(tmp_path)
    pixels, prompts = torch.rand(1, 3, 64, 64) * 255, torch.randn(2, 1, 32)
    with torch.no_grad():
        fine4, fine8, embedding = model.get_image_embeddings(normalise(pixels))
        features = segmenter.encode(pixels)
        assert apart(features.embedding, embedding) <= 1e-5
        assert (
            apart(segmenter.positions(4, 4), model.get_image_wide_positional_embeddings()[None].reshape(1, 32, 4, 4))
            <= 1e-6
        )
        model.mask_decoder.dynamic_multimask_via_stability = False
        logits, score, _, _ = model.mask_decoder(
            embedding,
            segmenter.positions(4, 4),
            prompts[None],
            model.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1),
            False,
            [fine4, fine8],
        )
        segmenter.mask_decoder.propagate = False
        ours = segmenter.decode(features.of(torch.tensor([0, 0])), prompts[:, 0], None, torch.ones(2, 32))
    assert apart(ours.logits, logits[0, :, 0]) <= 1e-5
    assert apart(ours.score, score[0, :, 0]) <= 1e-5
    assert logits.std() > 0.01
    assert [
        name for name in report.new if not name.startswith(("mask_decoder.adapter.", "mask_decoder.first_online."))
    ] == []
    assert {name.split(".")[0] for name in report.skipped} == {"prompt_encoder", "mask_decoder"}
    assert all("pred_obj_score_head" in name for name in report.skipped if name.startswith("mask_decoder"))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["image_encoder.trunk.blocks.0.norm1.weight"],
            "SAM 2 in its original layout, and only Hugging Face's is read",
        ),
        (["image_encoder.trunk.body.stem.conv.weight"], "EdgeTAM, whose RepViT encoder needs timm"),
        (["image_encoder.patch_embed.seq.0.c.weight"], "MobileSAM, and transformers has no TinyViT encoder"),
        (["image_encoder.blocks.0.mlp.fc1.weight"], "EfficientSAM, and transformers has no class for its encoder"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_relatives_of_sam_are_refused_with_what_to_use_instead(tmp_path, names, said, wrapped):
    state = {name: torch.zeros(2) for name in names}
    torch.save({"model": state} if wrapped else state, tmp_path / "other.pt")
    with pytest.raises(ModelError, match="^MD06") as caught:
        load_segmenter(tmp_path / "other.pt")
    assert f"{tmp_path / 'other.pt'}: this is {said}" in str(caught.value)
    assert "; use " in str(caught.value)


@pytest.mark.parametrize(("kind", "said"), [("edgetam_video", "needs timm"), ("resnet", "use a SAM or a SAM 2.1")])
def test_folders_of_other_models_are_refused(tmp_path, kind, said):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(ModelError, match=f"^MD06: .*{said}"):
        load_segmenter(tmp_path)


def test_a_damaged_sam_2_is_refused(tmp_path):
    foreign.sam2(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(described | {"mask_decoder_config": {"hidden_size": 64}}))
    with pytest.raises(ModelError, match="^MD02: .*does not fit this segmenter"):
        load_segmenter(tmp_path)
    del described["vision_config"]
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(ModelError, match="^MD02: .*not the configuration of a SAM 2"):
        load_segmenter(tmp_path)


# What the files hold is what the model has


def rewritten(folder, where, change, **values):
    """A copy of a checkpoint with other weights and other values in its config.json."""
    changed(folder, where, **values)
    weights = load_file(where / "model.safetensors")
    change(weights)
    save_file(weights, where / "model.safetensors", metadata={"format": "pt"})
    return where


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_of_the_files_is_in_the_model_as_it_is_there(checkpoints, kind):
    _, report = load_brain(checkpoints[kind][0], 32)
    assert report.changed == report.unexpected == ()
    _, report = load_brain(checkpoints[kind][0], 32, torch.bfloat16)
    assert report.changed == ()


@pytest.mark.parametrize("kind", ["llava", "qwen2_5_vl"])
def test_the_output_layer_of_the_file_wins_over_a_configuration_that_ties_it(checkpoints, pth, tmp_path, kind):
    """Growing the embedding would tie the two again, over what the file holds."""
    folder, model = checkpoints[kind]
    head = torch.randn_like(model.lm_head.weight)
    text = json.loads((folder / "config.json").read_text())["text_config"] | {"tie_word_embeddings": True}
    tied = {"tie_word_embeddings": True, "text_config": text}

    def set_head(weights):
        weights[next((name for name in weights if "lm_head" in name), "lm_head.weight")] = head

    mine = rewritten(folder, tmp_path / "mine", set_head, **tied)
    brain, report = load_brain(mine, 32)
    assert report.changed == ()
    words = len(head)
    assert torch.equal(brain.llava.lm_head.weight[:words], head)
    assert torch.equal(brain.llava.get_input_embeddings().weight[:words], model.get_input_embeddings().weight)
    assert "brain.llava.lm_head.weight[<TK>]" in report.new
    load_reported(pair(mine, pth))[0].save_pretrained(tmp_path / "saved")
    again = TrackGPT.from_pretrained(tmp_path / "saved")
    assert torch.equal(again.brain.llava.lm_head.weight[:words], head)


def test_an_output_layer_that_equals_the_embedding_stays_tied(checkpoints, tmp_path):
    folder, model = checkpoints["qwen2_5_vl"]
    same = model.get_input_embeddings().weight.detach().clone()
    mine = rewritten(folder, tmp_path / "mine", lambda weights: weights.update({"lm_head.weight": same}))
    brain, _ = load_brain(mine, 32)
    assert brain.llava.lm_head.weight is brain.llava.get_input_embeddings().weight


def test_what_a_library_changed_while_it_loaded_stands_in_the_report(checkpoints, monkeypatch):
    kind = type(checkpoints["llava"][1])
    load = kind.from_pretrained.__func__

    def spoilt(cls, *args, **options):
        model, info = load(cls, *args, **options)
        torch.nn.init.zeros_(model.model.language_model.layers[1].mlp.up_proj.weight)
        return model, info

    monkeypatch.setattr(kind, "from_pretrained", classmethod(spoilt))
    _, report = load_brain(checkpoints["llava"][0], 32)
    (name,) = report.changed
    assert name.endswith(".layers.1.mlp.up_proj.weight")
    assert str(report).endswith(", 1 changed")
    assert report.lines()[-1] == f"changed: {name}"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_weight_that_is_no_finite_number_is_named(checkpoints, tmp_path, value, suffix):
    def spoil(weights):
        name = next(name for name in weights if name.endswith("layers.1.mlp.up_proj.weight"))
        weights[name][3, 2] = value

    mine = rewritten(checkpoints["llava"][0], tmp_path / "mine", spoil)
    if suffix == ".bin":
        torch.save(load_file(mine / "model.safetensors"), mine / "pytorch_model.bin")
        (mine / "model.safetensors").unlink()
    with pytest.raises(
        ModelError, match=r"^MD02: .*layers\.1\.mlp\.up_proj\.weight has values that are NaN or infinite"
    ):
        load_brain(mine, 32)


def test_integers_where_floating_numbers_belong_are_refused(checkpoints, pth, tmp_path):
    def spoil(weights):
        name = next(name for name in weights if name.endswith("layers.1.mlp.up_proj.weight"))
        weights[name] = weights[name].to(torch.int32)

    mine = rewritten(checkpoints["llava"][0], tmp_path / "mine", spoil)
    with pytest.raises(ModelError, match=r"^MD02: .*up_proj\.weight is stored as int32, wanted floating numbers"):
        load_brain(mine, 32)
    state = torch.load(pth, weights_only=True)
    name = "image_encoder.blocks.0.mlp.lin1.weight"
    torch.save(state | {name: state[name].to(torch.int64)}, tmp_path / "sam.pth")
    with pytest.raises(ModelError, match=r"^MD02: .*layers\.0\.mlp\.lin1\.weight is stored as int64"):
        load_segmenter(tmp_path / "sam.pth")


def test_a_sam_with_nan_is_refused_in_every_layout(pth, tmp_path):
    state = torch.load(pth, weights_only=True)
    state["mask_decoder.iou_token.weight"][0, 0] = float("nan")
    torch.save(state, tmp_path / "sam.pth")
    with pytest.raises(ModelError, match=r"^MD02: .*sam\.pth: the weight mask_decoder\.iou_token\.weight has values"):
        load_segmenter(tmp_path / "sam.pth")
    foreign.sam2(tmp_path / "sam2")
    weights = load_file(tmp_path / "sam2/model.safetensors")
    weights["no_memory_embedding"][:] = float("inf")
    save_file(weights, tmp_path / "sam2/model.safetensors")
    with pytest.raises(ModelError, match="^MD02: .*the weight image_encoder.no_memory_embedding has values"):
        load_segmenter(tmp_path / "sam2")


def test_a_sam_that_gives_one_table_under_two_names_must_give_it_twice_alike(tmp_path):
    from test_sam_parity import hugging_face_folder

    hugging_face_folder(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    table = weights["shared_image_embedding.positional_embedding"]
    for other, said in ((table.clone(), None), (table + 1, "^MD02: .*two different values of the weight shared_image")):
        both = weights | {"prompt_encoder.shared_embedding.positional_embedding": other}
        save_file(both, tmp_path / "model.safetensors")
        if said is None:
            load_segmenter(tmp_path)
        else:
            with pytest.raises(ModelError, match=said):
                load_segmenter(tmp_path)


# Both together


@pytest.mark.parametrize("kind", KINDS)
def test_a_brain_and_a_sam_make_a_trackgpt_that_tracks_and_is_saved(checkpoints, pth, tmp_path, kind):
    model, report = load_reported(pair(checkpoints[kind][0], pth))
    assert set(report.loaded) | {name.partition("[")[0] for name in report.new} >= set(model.state_dict())
    assert set(report.new) >= {"brain.projection.0.weight", "segmenter.mask_decoder.first_online.weight"}
    say(model.brain, ANSWER)
    assert Track(model.tracker()).look(frame(0), Prompt("track it")).masks.shape == (1, 36, 64)
    model, _ = load_reported(pair(checkpoints[kind][0], pth))
    model.save_pretrained(tmp_path / "mine")
    again = TrackGPT.from_pretrained(tmp_path / "mine")
    assert to_dict(again.config) == to_dict(model.config)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    first, second = (m.brain.reason(square(m.brain), "track it", forced=ANSWER) for m in (model, again))
    assert apart(first.referring, second.referring) <= 1e-6  # equal weights may lie differently in memory


def test_sam_2_makes_a_trackgpt_that_tracks_and_is_saved(checkpoints, tmp_path):
    foreign.sam2(tmp_path / "sam2")
    model, _ = load_reported(pair(checkpoints["llava"][0], tmp_path / "sam2"))
    model.save_pretrained(tmp_path / "mine")
    again = TrackGPT.from_pretrained(tmp_path / "mine")
    say(again.brain, ANSWER)
    _, second = follow(again.tracker(), [frame(0), frame(1)], [Prompt("track it")])
    assert second.masks.shape == (1, 36, 64)


def test_the_same_pair_is_the_same_model_twice_and_global_randomness_is_left_alone(checkpoints, pth):
    torch.manual_seed(11)
    wanted = torch.rand(3)
    torch.manual_seed(11)
    first, second = (load_reported(pair(checkpoints["llava"][0], pth))[0].state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert torch.equal(torch.rand(3), wanted)


def test_load_takes_a_perception_and_says_what_became_of_the_weights(checkpoints, pth, caplog):
    caplog.set_level(logging.INFO, logger="trackgpt.hub")
    tracker = trackgpt.load(checkpoints["llava"][0], device="cpu", perception=pth)
    assert tracker.name == f"{checkpoints['llava'][0]}+{pth}"
    assert caplog.messages[0].endswith(" loaded, 15 new, 15 skipped, 2 reshaped")
    assert "new: brain.projection.0.weight" in caplog.messages
    assert "skipped: prompt_encoder.point_embeddings.0.weight" in caplog.messages


def test_doctor_prints_the_report_of_a_pair(checkpoints, pth, command):
    done = command("doctor", "-m", checkpoints["llava"][0], "--perception", pth)
    assert "new: brain.llava.lm_head.weight[<TK>]" in done.out
    assert "sam_vit_tiny.pth: 0." in done.out
    assert done.last.startswith("ok=1 checks=7 failed=0"), done.out


def test_a_report_names_what_was_not_simply_loaded():
    one = LoadReport(("b", "a"), new=("c",), unexpected=("x",))
    both = one.under("part.") + LoadReport(("z",), skipped=("s",), reshaped=("z",))
    assert str(both) == "3 loaded, 1 new, 1 skipped, 1 reshaped, 1 unexpected"
    assert both.lines()[1:] == ["new: part.c", "skipped: s", "reshaped: z", "unexpected: x"]


# What is wrong, in words


def test_a_brain_alone_and_a_perception_too_many_are_usage_errors(checkpoints, pth, tiny):
    with pytest.raises(UsageError, match="is a brain alone; give it a SAM: --perception facebook/sam-vit-huge"):
        load_model(checkpoints["llava"][0])
    with pytest.raises(UsageError, match="is a whole model, and needs no perception beside it"):
        load_model(pair(tiny, pth))


def test_names_that_are_used_for_the_wrong_thing_say_what_they_are_for(tiny):
    with pytest.raises(UsageError, match="^policy-nano is a policy, which answers with boxes: use it as -m qtrack:pol"):
        load_model("policy-nano")
    with pytest.raises(
        ModelError,
        match="^MD01: qtrack-nano is a whole system, and no part of one; its own parts are qtrack:policy-nano",
    ):
        find("qtrack-nano")
    with pytest.raises(UsageError, match=r"settings: wanted a list of KEY=VALUE, such as \['cooldown=3'\]"):
        trackgpt.load(tiny, settings="cooldown=3")
    with pytest.raises(ModelError, match="is no vision-language model, as its config.json names no model_type"):
        find_dialect(tiny)


def test_a_hub_id_that_is_not_here_says_how_to_fetch_it():
    with pytest.raises(ModelError, match="^MD01: llava-hf/llava-1.5-7b-hf: .*models pull llava-hf/llava-1.5-7b-hf"):
        load_model(pair("llava-hf/llava-1.5-7b-hf", "facebook/sam-vit-huge"))


def test_a_hub_id_is_found_in_the_cache(checkpoints, pth, tmp_path, monkeypatch):
    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--llava-hf--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(revision)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / revision).symlink_to(checkpoints["llava"][0], target_is_directory=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert find("llava-hf/tiny").resolve() == checkpoints["llava"][0].resolve()
    assert load_reported(pair("llava-hf/tiny", pth))[0].config.name == f"llava-hf/tiny+{pth}"


def changed(folder: Path, where: Path, **values: object) -> Path:
    """A copy of a checkpoint with other values in its config.json."""
    where.mkdir()
    for file in folder.iterdir():
        (where / file.name).write_bytes(file.read_bytes())
    described = json.loads((where / "config.json").read_text()) | values
    (where / "config.json").write_text(json.dumps(described))
    return where


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"])
def test_a_missing_file_of_a_brain_is_md01(checkpoints, tmp_path, name):
    folder = changed(checkpoints["llava"][0], tmp_path / "brain")
    (folder / name).unlink()
    with pytest.raises(ModelError, match="^MD01") as caught:
        load_brain(folder, 32)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"])
def test_a_damaged_file_of_a_brain_is_md02(checkpoints, tmp_path, name):
    folder = changed(checkpoints["llava"][0], tmp_path / "brain")
    (folder / name).write_bytes((folder / name).read_bytes()[:50])
    with pytest.raises(ModelError, match="^MD02") as caught:
        load_brain(folder, 32)
    assert "\n" not in str(caught.value)


def test_a_brain_of_another_size_than_its_config_is_md02(checkpoints, tmp_path):
    described = json.loads((checkpoints["llava"][0] / "config.json").read_text())
    text = described["text_config"] | {"num_hidden_layers": 3}
    folder = changed(checkpoints["llava"][0], tmp_path / "deeper", text_config=text)
    with pytest.raises(ModelError, match=r"^MD02: .*9 weights are missing: model\.language_model\.layers\.2"):
        load_brain(folder, 32)
    folder = changed(
        checkpoints["llava"][0], tmp_path / "wider", text_config=described["text_config"] | {"hidden_size": 64}
    )
    with pytest.raises(ModelError, match="^MD02: .*the weights do not load"):
        load_brain(folder, 32)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 13476893696\n"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_git_lfs_pointer_in_a_brain_is_called_one(checkpoints, tmp_path, name):
    folder = changed(checkpoints["llava"][0], tmp_path / "brain")
    (folder / name).write_bytes(POINTER)
    with pytest.raises(ModelError, match=f"^MD01: .*{name}: a Git LFS pointer .*run `git lfs pull`"):
        load_brain(folder, 32)


@pytest.mark.parametrize("name", ["sam.pth", "sam.safetensors", "folder/model.safetensors"])
def test_a_git_lfs_pointer_of_a_sam_is_called_one(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(ModelError, match=f"^MD01: .*{name}: a Git LFS pointer .*run `git lfs pull`"):
        load_segmenter(tmp_path / name if name[0] == "s" else tmp_path / "folder")


def test_the_pointer_that_somebody_met_is_called_one(shared):
    with pytest.raises(ModelError, match="^MD01: .*a Git LFS pointer"):
        load_segmenter(shared / "cases/strangers/lfs_pointer/model.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"text_config": {"hidden_size": 10**12}},
        {"text_config": {"num_hidden_layers": 10**9}},
        {"text_config": {"vocab_size": "many"}},
        {"text_config": {"model_type": "no such thing"}},
        {"text_config": {"num_attention_heads": 0}},
        {"text_config": {"rope_parameters": [1, 2]}},
        {"vision_config": {"image_size": 10**9}},
        {"vision_config": {"patch_size": 0}},
        {"vision_config": {"num_channels": None}},
        {"text_config": 7},
        {"vision_config": []},
        {"vision_feature_layer": 99},
        {"image_token_id": 10**6},
        {"image_token_index": {}, "image_token_id": None},
        {"auto_map": {"AutoConfig": "evil.Config"}, "model_type": "llava"},
    ],
)
def test_a_configuration_that_makes_no_sense_is_one_line(checkpoints, tmp_path, change):
    described = json.loads((checkpoints["llava"][0] / "config.json").read_text())
    for key, value in change.items():
        part = described.get(key)
        described[key] = part | value if isinstance(part, dict) and isinstance(value, dict) and value else value
    folder = changed(checkpoints["llava"][0], tmp_path / "brain", **described)
    if "auto_map" in change:
        load_brain(folder, 32)  # code of the folder is not asked for
        return
    with pytest.raises(ModelError) as caught:
        load_brain(folder, 32)
    assert caught.value.code == "MD02"
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "values", [{"image_mean": 3}, {"image_mean": [0.5, 0.5]}, {"image_std": [0, 1, 1]}, {"image_std": ["a", "b", "c"]}]
)
def test_statistics_of_an_image_that_make_no_sense_are_one_line(checkpoints, tmp_path, values):
    folder = changed(checkpoints["llava"][0], tmp_path / "brain")
    good = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(good | values))
    with pytest.raises(ModelError, match="^MD02: .*preprocessor_config.json"):
        load_brain(folder, 32)


def test_a_sam_2_of_impossible_sizes_is_refused_before_it_is_made(tmp_path):
    foreign.sam2(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    for part, key, value in (
        ("mask_decoder_config", "num_multimask_outputs", 10**9),
        ("mask_decoder_config", "mlp_dim", 10**10),
        ("vision_config", "fpn_hidden_size", 10**8),
    ):
        wrong = described | {part: described[part] | {key: value}}
        (tmp_path / "config.json").write_text(json.dumps(wrong))
        with pytest.raises(ModelError, match="^MD02"):
            load_segmenter(tmp_path)


def test_a_family_without_an_adapter_is_md06_with_those_there_are(checkpoints, tmp_path):
    folder = changed(checkpoints["llava"][0], tmp_path / "brain", model_type="florence2")
    with pytest.raises(
        ModelError, match="^MD06: .*'florence2' is known here; there are llava, llava_next, qwen2_vl"
    ) as caught:
        load_brain(folder, 32)
    assert all(kind in str(caught.value) for kind in FAMILIES)


def test_llavas_original_layout_is_sent_to_the_right_place(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava", "mm_vision_tower": "openai/clip"}))
    with pytest.raises(ModelError, match="^MD06: .*original layout; .*trackgpt convert lisa"):
        load_brain(tmp_path, 32)


def test_a_side_that_a_family_cannot_take_is_refused(checkpoints):
    for kind, side, said in (
        ("llava", 84, "it takes 56"),
        ("qwen2_5_vl", 40, "multiples of 28"),
        ("llava_next", 56, "112"),
    ):
        config = load_brain(checkpoints[kind][0], 32)[0].llava.config
        with pytest.raises(UsageError, match=f"brain.image_side: {side} does not suit this {kind}: .*{said}"):
            FAMILIES[kind](config, side)
