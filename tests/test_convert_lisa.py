"""LISA in, TrackGPT out, and back: the same queries and masks, every bit kept, a few tensors in memory at a time."""

import json
import re
import subprocess
import sys
from pathlib import Path

import foreign_checkpoints as foreign
import pytest
import sentencepiece
import torch
from safetensors.torch import load_file
from test_sam_parity import build_sam, sam_model_registry
from tiny_models import frame, say, square
from torch import nn
from tracks import Track
from transformers import CLIPVisionModel, LlamaConfig, LlamaForCausalLM, SamModel

from trackgpt.config import BrainConfig, TrackGPTConfig
from trackgpt.conversion.lisa import convert_back, convert_lisa, our_names, renamed_token
from trackgpt.conversion.tensors import write_safetensors
from trackgpt.errors import ModelError, OutputError, UsageError
from trackgpt.hub import load_model
from trackgpt.perception.checkpoints import load_segmenter
from trackgpt.perception.encoders import normalise
from trackgpt.perception.sam_weights import sam_config
from trackgpt.reasoners.brain_weights import load_tokenizer
from trackgpt.systems.trackgpt import TrackGPT
from trackgpt.types import Prompt
from trackgpt.weights import Lazy, read_lazily

SAID = "Sure, it is <TK>."
SIZES = {"7B": {"hidden": 48, "layers": 2}, "13B": {"hidden": 80, "layers": 3}}


def apart(a, b):
    assert a.shape == b.shape
    return float((a - b).detach().abs().max())


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers") / "clip"
    foreign.clip(folder)
    return folder


@pytest.fixture
def lisa(tmp_path):
    """The folder of a merged LISA in one file, and its weights."""
    folder = tmp_path / "LISA"
    weights = foreign.lisa(folder)
    foreign.stored(folder, weights)
    return folder, weights


def converted(folder, clip, **options):
    out = folder.parent / "ours"
    report = convert_lisa(folder, out, clip, **options)
    return TrackGPT.from_pretrained(out), report


def with_lora(weights, rank=4):
    """Merged weights taken apart as training leaves them: peft's names, adapters of q_proj and v_proj beside."""
    torch.manual_seed(8)
    apart_, merged = {}, {}
    for name, value in weights.items():
        layer = name.removesuffix(".weight")
        if name.endswith(("q_proj.weight", "v_proj.weight")) and name.startswith("model.layers."):
            a, b = torch.randn(rank, value.shape[1]), 0.1 * torch.randn(value.shape[0], rank)
            apart_[f"base_model.model.{layer}.base_layer.weight"] = value
            apart_[f"base_model.model.{layer}.lora_A.default.weight"] = a
            apart_[f"base_model.model.{layer}.lora_B.default.weight"] = b
            merged[name] = value + 16 / rank * b @ a
        else:
            apart_[f"base_model.model.{name}"] = merged[name] = value
    return apart_, merged


def lisas_own(folder, weights, clip, ids, pixels, images):
    """Logits, [SEG] embedding, mask and score as LISA makes them: by transformers, torch and segment-anything alone.

    Args:
        ids: (l,) of the conversation up to its end, one placeholder in front of which the image goes, marked by -200.
        pixels: (1, 3, s, s) for the vision tower.
        images: (1, 3, s, s) for SAM, normalised.
    """
    described = json.loads((folder / "config.json").read_text())
    keys = set(LlamaConfig().to_dict()) - {"architectures", "model_type", "dtype", "transformers_version"}
    llama = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in described.items() if k in keys})).eval()
    llama.load_state_dict({k: v for k, v in weights.items() if k in llama.state_dict()})
    projector = nn.Linear(32, described["hidden_size"])
    projector.load_state_dict({k: weights[f"model.mm_projector.{k}"] for k in ("weight", "bias")})
    phi = nn.Sequential(
        nn.Linear(len(projector.bias), len(projector.bias)), nn.ReLU(), nn.Linear(len(projector.bias), 32)
    )
    phi.load_state_dict({k: weights[f"model.text_hidden_fcs.0.{k}"] for k in phi.state_dict()})
    sam = build_sam()
    for module in sam.mask_decoder.modules():
        if hasattr(module, "num_heads"):
            module.num_heads = 8
    sam.load_state_dict({k: weights[f"model.visual_model.{k}"] for k in sam.state_dict()})
    with torch.no_grad():
        cells = CLIPVisionModel.from_pretrained(clip).eval()(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        at = ids.index(-200)
        words = [torch.tensor([part]) for part in (ids[:at], ids[at + 1 :])]
        before, after = (llama.get_input_embeddings()(part) for part in words)
        done = llama(inputs_embeds=torch.cat([before, projector(cells), after], 1), output_hidden_states=True)
        seg = foreign.lisa_words().convert_tokens_to_ids("[SEG]")
        position = ids.index(seg) + cells.shape[1] - 1  # one placeholder became many; the one before [SEG] predicts it
        query = phi(done.hidden_states[-1])[0, position - 1][None]
        sparse, dense = query[:, None], sam.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1).expand(1, -1, 4, 4)
        mask, score = sam.mask_decoder(
            sam.image_encoder(images), sam.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=False
        )
    return done.logits[0], query, mask[:, 0], score[:, 0]


# The same numbers


@pytest.mark.parametrize("size", SIZES)
def test_a_converted_lisa_gives_lisas_own_logits_query_and_mask(tmp_path, clip, size):
    folder = tmp_path / "LISA"
    weights = foreign.lisa(folder, **SIZES[size])
    foreign.stored(folder, weights, shards=3)
    model, _ = converted(folder, clip)
    brain, template = model.brain, model.brain.template
    answer = brain.reason(square(brain), "the dog", forced=SAID)
    prompt = template.prefix() + template.question("the dog")
    image = [template.image_id] * template.image_tokens
    at = prompt.index(template.image_id)
    theirs = [*prompt[:at], -200, *prompt[at + len(image) :], *answer.ids]
    assert max(theirs) < len(foreign.lisa_words())  # [SEG]'s id is <TK>'s, and nothing new was said
    pixels, seen = brain.preprocess(square(brain)[None]), torch.rand(1, 3, 64, 64) * 255
    logits, query, mask, score = lisas_own(folder, weights, clip, theirs, pixels, normalise(seen))
    with torch.no_grad():
        hidden = brain.hidden(torch.tensor([prompt + answer.ids]), pixels)
        ours = brain.llava.lm_head(hidden)[0]
        decoded = model.segmenter.decode(model.segmenter.encode(seen), answer.referring, None, answer.purport)
    assert apart(ours[:, : logits.shape[1]], logits) <= 1e-5
    assert apart(answer.referring, query) <= 1e-5
    assert apart(decoded.logits, mask) <= 1e-5
    assert apart(decoded.score, score) <= 1e-5
    assert mask.std() > 0.01


def test_the_conversation_is_lisas(lisa, clip, tmp_path):
    model, _ = converted(lisa[0], clip)
    template = model.brain.template
    text = template.tokenizer.decode(template.prefix() + template.question("the dog") + template.answer("<TK>."))
    curious = "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful,"
    assert text.startswith(f"<s>{curious}")
    assert text.count("<image>") == template.image_tokens == 16
    assert re.sub("(<image>)+", "<image>", text).endswith(
        "USER: <im_start><image><im_end>\nthe dog ASSISTANT: <TK>.</s>"
    )
    convert_lisa(lisa[0], tmp_path / "llama-2", clip, conversation="lisa-llama-2")
    template = TrackGPT.from_pretrained(tmp_path / "llama-2").brain.template
    text = template.tokenizer.decode(template.prefix() + template.question("the dog"))
    assert text.startswith("<s>[INST] <<SYS>>\nYou are a helpful language and vision assistant.")
    assert text.endswith("<im_end>\nthe dog [/INST]")


def test_a_converted_lisa_tracks_at_once_and_asks_only_on_the_first_frame(lisa, clip):
    """LISA*: one [SEG] embedding for all frames, no <PO>, nothing propagated, and no answer is the dog of Fig. 1."""
    converted(lisa[0], clip)
    model = load_model(lisa[0].parent / "ours", device="cpu")
    say(model.brain, SAID)
    track = Track(model.tracker())
    assert track.look(frame(0), Prompt("the dog")).masks.shape == (1, 36, 64)
    assert not model.config.rethink.enabled
    before = model.segmenter.decode
    given = []
    model.segmenter.decode = lambda *parts, **how: given.append(parts) or before(*parts, **how)
    track.look(frame(1))
    track.look(frame(1))
    assert torch.equal(given[0][1], given[1][1])
    decoded = [
        before(parts[0], parts[1], online, None) for parts, online in ((given[0], None), (given[1], given[1][2]))
    ]
    assert apart(decoded[0].logits, decoded[1].logits) == 0


def test_stage_2_starts_from_lisas_decoder_with_purport_and_propagation_on(lisa, clip):
    """The two traps of going on from LISA: its decoder is not SAM's again, and no loss weight is unset by a config."""
    folder, weights = lisa
    model, _ = converted(folder, clip, stage_2=True)
    decoder, config = model.config.perception.decoder, model.config
    assert (decoder.propagate, decoder.purport, config.rethink.enabled) == (True, True, True)
    token = model.segmenter.mask_decoder.mask_tokens.weight
    assert torch.equal(token, weights["model.visual_model.mask_decoder.mask_tokens.weight"])
    assert "weight" not in (folder.parent / "ours/config.json").read_text()
    assert "train_mask_decoder" not in (folder.parent / "ours/config.json").read_text()


# Llama's tokenizer.model alone, as LISA's folders have it


LISAS = ("[SEG]", "<im_start>", "<im_end>")


@pytest.fixture
def slow(tmp_path, clip):
    """A LISA with tokenizer.model and no tokenizer.json."""
    folder = tmp_path / "LISA"
    foreign.llama_words(folder, LISAS)
    foreign.stored(folder, foreign.lisa(folder, words=load_tokenizer(folder)))
    return folder


def lisas_ids(folder, prompt):
    """The ids of a prompt as the slow tokenizer of transformers 4.31, with which LISA was trained, makes them.

    Text is split at added tokens, which take away the spaces around them; sentencepiece tokenises each piece of text;
    and each part around <image> is a text of its own, without a begin token but at the very start.
    """
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    added = json.loads((folder / "added_tokens.json").read_text()) | {"</s>": 2}
    ids = [pieces.bos_id()]
    for number, part in enumerate(prompt.split("<image>")):
        ids += [-200] if number else []
        split = re.split(f"({'|'.join(map(re.escape, added))})", part)
        for i, text in enumerate(split):
            if text in added:
                ids.append(added[text])
                continue
            text = text.lstrip() if i and split[i - 1] in LISAS else text
            text = text.rstrip() if split[i + 1 :] and split[i + 1] in LISAS else text
            ids += pieces.encode(text) if text else []
    return ids


@pytest.mark.parametrize("conversation", ["lisa", "lisa-llama-2"])
def test_a_converted_lisa_is_asked_in_the_very_ids_that_it_was_trained_on(slow, clip, conversation):
    model, _ = converted(slow, clip, conversation=conversation)
    template = model.brain.template
    curious = (
        "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the human's questions. USER: {} ASSISTANT:"
    )
    helpful = (
        "[INST] <<SYS>>\nYou are a helpful language and vision assistant. You are able to understand the visual "
        "content that the user provides, and assist the user with a variety of tasks using natural language.\n"
        "<</SYS>>\n\n{} [/INST]"
    )
    talk = curious if conversation == "lisa" else helpful
    for said in ("the dog", "Who will win? Please output segmentation mask.", "Grüße, 物体"):
        asked = talk.format(f"<im_start><image><im_end>\n{said}")
        ids = template.prefix() + template.question(said)
        at = ids.index(template.image_id)
        assert [*ids[:at], -200, *ids[at + template.image_tokens :]] == lisas_ids(slow, asked)
        answered = lisas_ids(slow, f"{asked} Sure, it is [SEG].</s>")
        assert ids[at + template.image_tokens :] + template.answer("Sure, it is <TK>.") == answered[at + 1 :]
    assert template.track_id == 520
    again = load_model(slow.parent / "ours", device="cpu").brain.template
    assert again.question("the dog") == template.question("the dog")


def test_without_sentencepiece_the_package_to_install_is_named(slow, clip, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    said = refusal(slow, tmp_path / "out", clip)
    assert said.startswith(f"MD01: {slow / 'tokenizer.model'}: needs the package sentencepiece; ")
    assert "pip install 'trackgpt[sentencepiece]'" in said


def test_a_damaged_tokenizer_model_is_refused(slow, clip, tmp_path):
    (slow / "tokenizer.model").write_bytes((slow / "tokenizer.model").read_bytes()[:1000])
    assert refusal(slow, tmp_path / "out", clip).startswith(f"MD02: {slow}: the tokenizer's files are damaged")


# Every key


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_there_and_back_changes_no_bit_and_no_name(tmp_path, clip, suffix, dtype):
    folder = tmp_path / "LISA"
    weights = {name: value.to(dtype) for name, value in foreign.lisa(folder).items()}
    foreign.stored(folder, weights, shards=2, suffix=suffix)
    convert_lisa(folder, tmp_path / "ours", clip)
    report = convert_back(tmp_path / "ours", tmp_path / "again")
    again = load_file(tmp_path / "again/model.safetensors")
    assert set(again) == set(weights)
    assert all(again[name].dtype == dtype and torch.equal(again[name], value) for name, value in weights.items())
    for name in ("config.json", "tokenizer.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    assert "segmenter.mask_decoder.adapter.proj_in.weight" in report.skipped


def test_a_trained_model_goes_back_too_and_its_training_shows(lisa, clip, tmp_path):
    folder, weights = lisa
    model, _ = converted(folder, clip)
    with torch.no_grad():
        model.brain.projection[2].bias.add_(1)
    model.save_pretrained(tmp_path / "trained")
    (folder.parent / "ours/lisa").rename(tmp_path / "trained/lisa")
    convert_back(tmp_path / "trained", tmp_path / "again")
    again = load_file(tmp_path / "again/model.safetensors")
    changed = {name for name, value in weights.items() if not torch.equal(again[name], value)}
    assert changed == {"model.text_hidden_fcs.0.2.bias"}
    with torch.no_grad():
        model.brain.llava.model.multi_modal_projector.linear_2.weight.add_(0.1)
    model.save_pretrained(tmp_path / "trained")
    with pytest.raises(ModelError, match="MD02: .*the projector's second layer was trained"):
        convert_back(tmp_path / "trained", tmp_path / "never")


def test_the_report_names_every_weight_of_both_sides(lisa, clip):
    folder, weights = lisa
    extra = {"model.layers.0.odd.weight": torch.zeros(2)}
    foreign.stored(folder, weights | extra)
    model, report = converted(folder, clip)
    assert set(report.loaded) | set(report.new) == set(model.state_dict())
    assert not set(report.loaded) & set(report.new)
    assert report.unexpected == ("model.layers.0.odd.weight",)
    assert report.reshaped == tuple(
        f"brain.llava.{name}.weight" for name in ("lm_head", "model.language_model.embed_tokens")
    )
    assert {re.sub(r"\d+", "N", name) for name in report.skipped if "visual_model" not in name} == {
        "model.layers.N.self_attn.rotary_emb.inv_freq"
    }
    assert {name.split(".")[2] for name in report.skipped if "visual_model" in name} == {"prompt_encoder"} | {
        name for name in ("pixel_mean", "pixel_std") if f"model.visual_model.{name}" in weights
    }


def test_the_added_rows_are_means_and_seg_keeps_its_row(lisa, clip):
    folder, weights = lisa
    model, _ = converted(folder, clip)
    table, theirs = model.brain.llava.get_input_embeddings().weight, weights["model.embed_tokens.weight"]
    template, rows = model.brain.template, len(theirs)
    assert template.track_id == foreign.lisa_words().convert_tokens_to_ids("[SEG]")
    assert torch.equal(table[:rows], theirs)
    assert {template.image_id, template.purport_id} == {rows, rows + 1}
    assert apart(table[template.purport_id], theirs.mean(0)) <= 1e-6
    assert "[SEG]" not in template.tokenizer.get_vocab()


def test_adapters_are_fused(tmp_path, clip):
    taken_apart, merged = with_lora(foreign.lisa(tmp_path / "LISA"))
    foreign.stored(tmp_path / "LISA", taken_apart)
    model, report = converted(tmp_path / "LISA", clip)
    for layer in (0, 1):
        attention = model.brain.llava.model.language_model.layers[layer].self_attn
        for part in ("q_proj", "v_proj"):
            wanted = merged[f"model.layers.{layer}.self_attn.{part}.weight"]
            assert apart(getattr(attention, part).weight, wanted) <= 1e-5
            assert (
                apart(wanted, taken_apart[f"base_model.model.model.layers.{layer}.self_attn.{part}.base_layer.weight"])
                > 0.1
            )
    assert report.unexpected == ()
    convert_back(tmp_path / "ours", tmp_path / "again")
    assert set(load_file(tmp_path / "again/model.safetensors")) == set(merged)


def test_half_an_adapter_is_reported_and_not_used(tmp_path, clip):
    taken_apart, _ = with_lora(foreign.lisa(tmp_path / "LISA"))
    lost = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.default.weight"
    foreign.stored(tmp_path / "LISA", {name: value for name, value in taken_apart.items() if name != lost})
    _, report = converted(tmp_path / "LISA", clip)
    assert report.unexpected == ("model.layers.0.self_attn.q_proj.lora_A.default.weight",)


def test_alpha_is_read_where_the_folder_says_it(tmp_path, clip):
    weights = foreign.lisa(tmp_path / "LISA")
    taken_apart, merged = with_lora(weights)
    foreign.stored(tmp_path / "LISA", taken_apart)
    (tmp_path / "LISA/adapter_config.json").write_text(json.dumps({"lora_alpha": 32}))
    model, _ = converted(tmp_path / "LISA", clip)
    name = "model.layers.0.self_attn.q_proj.weight"
    doubled = weights[name] + 2 * (merged[name] - weights[name])
    assert apart(model.brain.llava.model.language_model.layers[0].self_attn.q_proj.weight, doubled) <= 1e-5


def test_the_layout_of_v0_with_sam_and_phi_in_files_of_their_own_loads(lisa, clip):
    folder, weights = lisa
    (folder / "pytorch_model.bin").unlink()
    parts = {"visual_model": {}, "text_hidden_fcs": {}, "00001-of-00001": {}}
    for name, value in weights.items():
        part = next((key for key in parts if name.startswith(f"model.{key}")), "00001-of-00001")
        parts[part][name if part[0] == "0" else name.removeprefix("model.")] = value
    for part, state in parts.items():
        torch.save(state, folder / f"pytorch_model-{part}.bin")
    model, report = converted(folder, clip)
    assert report.unexpected == ()
    assert torch.equal(model.brain.projection[0].weight, weights["model.text_hidden_fcs.0.0.weight"])
    convert_back(folder.parent / "ours", folder.parent / "again")
    again = load_file(folder.parent / "again/model.safetensors")
    assert set(again) == {name for state in parts.values() for name in state}


def test_a_projector_of_two_layers_and_a_tower_inside_are_used(tmp_path, clip):
    weights = foreign.lisa(tmp_path / "LISA", mlp=True)
    tower = {
        f"vision_model.{k.removeprefix('vision_model.')}": v
        for k, v in CLIPVisionModel.from_pretrained(clip).state_dict().items()
    }
    tower = {f"model.vision_tower.vision_tower.{name}": value + 1 for name, value in tower.items()}
    foreign.stored(tmp_path / "LISA", weights | tower)
    model, report = converted(tmp_path / "LISA", clip)
    assert model.config.brain.llava["projector_hidden_act"] == "gelu"
    ours = model.brain.llava.model.vision_tower.embeddings.class_embedding
    assert torch.equal(ours, tower["model.vision_tower.vision_tower.vision_model.embeddings.class_embedding"])
    assert not [name for name in report.new if "llava" in name]
    convert_back(tmp_path / "ours", tmp_path / "again")
    assert set(load_file(tmp_path / "again/model.safetensors")) == set(weights) | set(tower)


@pytest.mark.parametrize(("hidden", "mlp", "layers", "heads"), [(4096, 11008, 32, 32), (5120, 13824, 40, 40)])
def test_every_weight_of_the_published_lisas_has_its_place(hidden, mlp, layers, heads):
    """Names and shapes of 7B and 13B with SAM ViT-H and CLIP-L, without their memory."""
    words = foreign.lisa_words()
    text = {"vocab_size": 32003, "hidden_size": hidden, "intermediate_size": mlp, "num_hidden_layers": layers}
    text |= {"num_attention_heads": heads}
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    vision |= {"image_size": 224, "patch_size": 14, "model_type": "clip_vision_model"}
    with torch.device("meta"):
        theirs = LlamaForCausalLM(LlamaConfig(**text, tie_word_embeddings=False)).state_dict()
        sam = sam_model_registry["vit_h"]().state_dict()
        theirs |= {f"model.visual_model.{name}": value for name, value in sam.items()}
        phi = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 256))
        theirs |= {f"model.text_hidden_fcs.0.{name}": value for name, value in phi.state_dict().items()}
        projector = nn.Linear(1024, hidden).state_dict()
        theirs |= {f"model.mm_projector.{name}": value for name, value in projector.items()}
        llava = {"text_config": {"model_type": "llama", **text}, "vision_config": vision, "image_token_id": 3}
        brain = BrainConfig(llava={"model_type": "llava", **llava}, image_side=224, conversation="lisa")
        renamed = renamed_token(words, "[SEG]", "<TK>")
        renamed.add_tokens(["<PO>"], special_tokens=True)
        model = TrackGPT.from_config(TrackGPTConfig(brain=brain, perception=sam_config(sam)), renamed)
    names, skipped, unexpected = our_names(theirs, Path("LISA"))
    wanted = model.state_dict()
    assert unexpected == []
    assert all("prompt_encoder" in name for name in skipped)
    assert {ours: theirs[name].shape for name, ours in names.items()} == {
        name: value.shape for name, value in wanted.items() if name in names.values()
    }
    tower, added = (
        "brain.llava.model.vision_tower.",
        ("segmenter.mask_decoder.first_online.", "segmenter.mask_decoder.adapter."),
    )
    left = [name for name in set(wanted) - set(names.values()) if not name.startswith((tower, *added))]
    assert sorted(left) == [f"brain.llava.model.multi_modal_projector.linear_2.{part}" for part in ("bias", "weight")]


# Memory


WATCHED = """
import pathlib, re, sys, threading
from pathlib import Path
from trackgpt.conversion import lisa

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

def watch():
    while not done.wait(0.001):
        seen.append(anonymous())

done, seen = threading.Event(), [anonymous()]
watcher = threading.Thread(target=watch)
watcher.start()
lisa.convert_lisa(*map(Path, sys.argv[1:4]))
done.set()
watcher.join()
print((max(seen) - seen[0]) / 1024)
"""
"""Prints by how many MiB a conversion made memory grow that belongs to no file, in a process that has freed nothing."""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_a_conversion_takes_the_memory_of_few_tensors_and_not_of_a_checkpoint(tmp_path, clip, suffix):
    """Over 300 MiB in eight shards of over 40 MiB, whose largest tensors have 1 MiB; the rest is Python's own."""
    folder = tmp_path / "LISA"
    weights = foreign.lisa(folder, hidden=512, layers=1)
    text = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 60, "intermediate_size": 512}
    (folder / "config.json").write_text(json.dumps(text))
    layer = {name: value for name, value in weights.items() if name.startswith("model.layers.0.")}
    layer |= {f"model.layers.0.mlp.{part}_proj.weight": torch.rand(512, 512) for part in ("gate", "up", "down")}
    for i in range(60):
        weights |= {name.replace("layers.0.", f"layers.{i}."): value.clone() for name, value in layer.items()}
    sizes = [value.numel() * value.element_size() / 2**20 for value in weights.values()]
    assert (sum(sizes) > 300, max(sizes)) == (True, 1.0)
    foreign.stored(folder, with_lora(weights)[0], shards=8, suffix=suffix)
    arguments = [sys.executable, "-c", WATCHED, str(folder), str(tmp_path / "ours"), str(clip)]
    grown = subprocess.run(arguments, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert grown.returncode == 0, grown.stderr
    assert float(grown.stdout) < 24


def test_a_stream_equals_safetensors_own_writer(tmp_path):
    torch.manual_seed(0)
    tensors = {
        "matrix": torch.randn(3, 5),
        "column": torch.randn(4, 6).T,
        "half": torch.randn(7).to(torch.bfloat16),
        "number": torch.tensor(3),
        "empty": torch.zeros(0, 2),
        "truth": torch.tensor([True, False]),
    }
    lazy = {name: Lazy(value.dtype, tuple(value.shape), lambda value=value: value) for name, value in tensors.items()}
    write_safetensors(tmp_path / "ours.safetensors", lazy)
    found = load_file(tmp_path / "ours.safetensors")
    assert list(tmp_path.iterdir()) == [tmp_path / "ours.safetensors"]
    assert {name: value.dtype for name, value in found.items()} == {n: v.dtype for n, v in tensors.items()}
    assert all(torch.equal(found[name], value) for name, value in tensors.items())
    again = {name: value.make() for name, value in read_lazily(tmp_path / "ours.safetensors").items()}
    assert all(torch.equal(again[name], value) for name, value in tensors.items())


# What is wrong, in words


def refusal(folder, out, clip, **options):
    with pytest.raises(ModelError) as caught:
        convert_lisa(folder, out, clip, **options)
    assert "\n" not in str(caught.value)
    assert not out.exists()  # nothing is begun that cannot be finished
    return str(caught.value)


def test_missing_weights_are_named_and_nothing_is_written(lisa, clip, tmp_path):
    folder, weights = lisa
    for gone in ("model.layers.1.mlp.up_proj.weight", "lm_head.weight", "model.text_hidden_fcs.0.2.bias"):
        foreign.stored(folder, {name: value for name, value in weights.items() if name != gone})
        said = refusal(folder, tmp_path / "out", clip)
        assert said.startswith(f"MD02: {folder}: LISA lacks 1 weights: ")
        assert gone.split(".")[-2] in said


def test_what_is_no_lisa_is_refused(lisa, clip, tmp_path):
    folder, weights = lisa
    foreign.stored(folder, {name: value for name, value in weights.items() if "visual_model" not in name})
    assert "MD02" in refusal(folder, tmp_path / "out", clip)
    wrong = dict(weights)
    wrong["model.layers.0.mlp.up_proj.weight"] = torch.zeros(96, 47)
    foreign.stored(folder, wrong)
    assert "another shape of 1 weights" in refusal(folder, tmp_path / "out", clip)
    foreign.stored(folder, weights)
    foreign.tokenizer(("<unk>",), "<s>", "</s>").save_pretrained(folder)
    assert "no [SEG], <im_start>, <im_end>, so this is no LISA" in refusal(folder, tmp_path / "out", clip)


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_a_weight_that_is_no_finite_number_is_named_and_no_model_is_left(lisa, clip, tmp_path, suffix):
    folder, weights = lisa
    (folder / "pytorch_model.bin").unlink()
    for name, value in (("model.layers.1.mlp.up_proj.weight", float("nan")), ("model.mm_projector.bias", float("inf"))):
        spoilt = dict(weights) | {name: torch.full_like(weights[name], value)}
        foreign.stored(folder, spoilt, suffix=suffix)
        with pytest.raises(ModelError, match=f"^MD02: {folder}: the weight {name} has values that are NaN or infinite"):
            convert_lisa(folder, tmp_path / "out", clip)
        assert list((tmp_path / "out").iterdir()) == []


def test_two_values_of_one_weight_are_refused(lisa, clip, tmp_path):
    """Under two names that mean the same, and under one name in two files."""
    folder, weights = lisa
    name = "text_hidden_fcs.0.2.bias"
    foreign.stored(folder, weights | {name: weights[f"model.{name}"] + 1})
    assert f"two different values of the weight {name}" in refusal(folder, tmp_path / "out", clip)
    foreign.stored(folder, weights)
    torch.save({f"model.{name}": weights[f"model.{name}"] + 1}, folder / "pytorch_model-other.bin")
    assert f"two different values of the weight model.{name}" in refusal(folder, tmp_path / "out", clip)
    torch.save({f"model.{name}": weights[f"model.{name}"]}, folder / "pytorch_model-other.bin")
    convert_lisa(folder, tmp_path / "out", clip)


@pytest.mark.parametrize(
    "values",
    [
        {"hidden_size": 10**12},
        {"num_hidden_layers": 10**9},
        {"num_attention_heads": 0},
        {"rms_norm_eps": "small"},
    ],
)
def test_a_configuration_that_makes_no_sense_is_one_line(lisa, clip, tmp_path, values):
    folder, _ = lisa
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(described | values))
    assert refusal(folder, tmp_path / "out", clip).startswith("MD02: ")


def test_a_missing_tower_names_the_one_that_is_wanted(lisa, tmp_path):
    said = refusal(lisa[0], tmp_path / "out", None)
    assert said.startswith("MD01")
    assert "openai/clip-vit-large-patch14: --vision-tower DIR" in said
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama/config.json").write_text("{}")
    assert "MD02" in refusal(lisa[0], tmp_path / "out", tmp_path / "llama")


def test_missing_and_damaged_files_are_one_line(lisa, clip, tmp_path):
    folder, weights = lisa
    whole = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(whole[: len(whole) // 2])
    assert "MD02" in refusal(folder, tmp_path / "out", clip)
    (folder / "pytorch_model.bin").unlink()
    assert "MD01" in refusal(folder, tmp_path / "out", clip)
    foreign.stored(folder, weights, shards=3)
    (folder / "pytorch_model-00002-of-00003.bin").unlink()
    assert "shards that are not there: pytorch_model-00002-of-00003.bin" in refusal(folder, tmp_path / "out", clip)
    (folder / "config.json").unlink()
    assert "MD01" in refusal(folder, tmp_path / "out", clip)


class Hostile:
    """A pickle of this object would write a file when it is read by plain pickle."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_that_would_run_code_is_refused_and_not_run(lisa, clip, tmp_path):
    torch.save({"model.norm.weight": Hostile(tmp_path / "ran")}, lisa[0] / "pytorch_model.bin")
    assert "not a whole file of plain weights" in refusal(lisa[0], tmp_path / "out", clip)
    assert not (tmp_path / "ran").exists()


def test_a_folder_that_holds_something_is_not_written_to(lisa, clip, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").touch()
    with pytest.raises(OutputError, match="OUT01"):
        convert_lisa(lisa[0], tmp_path / "out", clip)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_an_unknown_conversation_is_a_usage_error(lisa, clip, tmp_path):
    with pytest.raises(UsageError, match="LISA's are lisa and lisa-llama-2"):
        convert_lisa(lisa[0], tmp_path / "out", clip, conversation="alpaca")


def test_back_needs_what_was_put_aside(lisa, clip, tmp_path):
    converted(lisa[0], clip)
    (lisa[0].parent / "ours/lisa/layout.json").unlink()
    with pytest.raises(ModelError, match="MD01: .*layout.json"):
        convert_back(lisa[0].parent / "ours", tmp_path / "again")


# The command, and SAM


def test_the_command_converts_there_and_back_and_ends_with_its_counts(lisa, clip, command):
    done = command("convert", "lisa", lisa[0], "ours", "--vision-tower", clip)
    assert done.code == 0, done.err
    assert re.fullmatch(r"loaded=\d+ new=9 skipped=\d+ reshaped=2 unexpected=0 out=ours", done.last)
    assert "new: segmenter.mask_decoder.first_online.weight" in done.err
    assert command("convert", "lisa", "ours", "again", "--back").code == 0
    assert command("convert", "lisa", "ours", "again", "--back").code == 6
    assert command("convert", "lisa", lisa[0], "more").code == 4


def test_a_converted_sam_is_transformers_own_and_computes_the_same(tmp_path, command):
    sam = build_sam()
    for module in sam.mask_decoder.modules():
        if hasattr(module, "num_heads"):
            module.num_heads = 8
    torch.save(sam.state_dict(), tmp_path / "sam.pth")
    assert command("convert", "sam", tmp_path / "sam.pth", "hf").last.endswith("unexpected=0 out=hf")
    theirs, info = SamModel.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    images, points = torch.rand(1, 3, 64, 64), torch.rand(1, 1, 1, 2) * 64
    with torch.no_grad():
        embedding = sam.image_encoder(images)
        assert apart(theirs.get_image_embeddings(images), embedding) <= 1e-5
        sparse, dense = sam.prompt_encoder((points[0], torch.ones(1, 1)), None, None)
        mask, score = sam.mask_decoder(embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense, True)
        labels = torch.ones(1, 1, 1, dtype=torch.long)
        done = theirs(image_embeddings=embedding, input_points=points, input_labels=labels)
    assert apart(done.pred_masks[0], mask) <= 1e-4 * float(mask.abs().max())
    assert apart(done.iou_scores[0], score) <= 1e-4
    ours, from_file = load_segmenter(tmp_path / "hf")[0], load_segmenter(tmp_path / "sam.pth")[0]
    kept = [name for name in from_file.state_dict() if "adapter" not in name and "first_online" not in name]
    assert all(torch.equal(ours.state_dict()[name], from_file.state_dict()[name]) for name in kept)


def test_what_is_no_sam_is_not_converted(tmp_path, command):
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "resnet.pth")
    done = command("convert", "sam", tmp_path / "resnet.pth", "hf")
    assert done.code == 4
    assert f"MD02: {tmp_path / 'resnet.pth'}: not a SAM" in done.err
    assert not (tmp_path / "hf").exists()
    assert "MD01" in command("convert", "sam", tmp_path / "no.pth", "hf").err
