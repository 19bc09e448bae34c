"""The slow half: queries are read by id at the documented position, and forcing, generating and packing agree."""

import copy

import numpy as np
import pytest
import torch
from tiny_models import ANSWER, PAIR, Given, frame, say, square, tiny_brain, tiny_trackgpt
from torch import nn
from transformers import CLIPVisionModel, LlavaForConditionalGeneration

from trackgpt.config import LoraConfig
from trackgpt.errors import ModelError, UsageError
from trackgpt.memory import QueryMemory
from trackgpt.reasoners.brain import query_positions
from trackgpt.reasoners.conv_tower import ConvTower
from trackgpt.reasoners.families import image_tokens
from trackgpt.reasoners.lora import add_lora, merge_lora
from trackgpt.systems.trackgpt import BrainReasoner
from trackgpt.track import TrackState
from trackgpt.types import Prompt

TOWERS = ("clip", "conv")
TK, PO = 5, 6


def full_hidden(brain, pixels, instruction, answer):
    """Last hidden states (l, h) of one uncached pass over prompt and answer, and where the answer begins."""
    prompt = brain.template.prefix() + brain.template.question(instruction)
    ids = torch.tensor([prompt + answer])
    with torch.no_grad():
        return brain.hidden(ids, brain.preprocess(pixels[None]))[0], len(prompt)


def close(a, b, tolerance=1e-5):
    return a.shape == b.shape and bool((a - b).abs().max() <= tolerance)


# One forward, two ways


@pytest.mark.parametrize("tower", TOWERS)
def test_generated_and_forced_answers_give_the_same_queries(tower):
    brain = tiny_brain(tower)
    said = say(brain, PAIR)
    generated = brain.reason(square(brain), "track both")
    forced = brain.reason(square(brain), "track both", forced=PAIR)
    assert generated.ids == forced.ids == said
    assert generated.text == forced.text == PAIR
    assert generated.referring.shape == (2, 32)
    assert close(generated.referring, forced.referring)
    assert close(generated.purport, forced.purport)
    assert generated.referring.std() > 0.01


@pytest.mark.parametrize("tower", TOWERS)
def test_ids_that_a_model_chose_itself_give_the_same_queries_when_forced(tower):
    brain = tiny_brain(tower)
    free = brain.reason(square(brain), "track the dog")
    # Whatever it says, let its third token be read as <TK> and its fifth as <PO>.
    template = brain.template
    ids = [*free.ids[:2], template.track_id, free.ids[3], template.purport_id, *free.ids[5:]]
    brain.template = Given(template.tokenizer, template.image_tokens)
    forced = brain.reason(square(brain), "track the dog", forced=" ".join(map(str, ids)))
    say(brain, ids)
    generated = brain.reason(square(brain), "track the dog", draft="")
    assert generated.ids == forced.ids
    assert len(generated.referring) == ids.count(template.track_id) >= 1
    assert close(generated.referring, forced.referring)
    assert close(generated.purport, forced.purport)


@pytest.mark.parametrize("tower", TOWERS)
def test_cached_generation_equals_a_full_recompute_at_every_step(tower):
    brain = tiny_brain(tower, max_answer_tokens=8)
    brain.llava.lm_head.weight.data[brain.template.tokenizer.eos_token_id] = 0  # let it talk
    pixels = square(brain)
    answer = brain.reason(pixels, "track the dog").ids
    assert len(answer) == 8
    assert len(set(answer)) > 2
    hidden, start = full_hidden(brain, pixels, "track the dog", answer)
    greedy = brain.llava.lm_head(hidden[start - 1 : start + 7]).argmax(-1)
    assert greedy.tolist() == answer


@pytest.mark.parametrize("tower", TOWERS)
def test_queries_equal_those_of_one_uncached_pass(tower):
    brain = tiny_brain(tower)
    answer = brain.reason(square(brain), "track it", forced=ANSWER)
    hidden, start = full_hidden(brain, square(brain), "track it", answer.ids)
    at = start + answer.ids.index(brain.template.track_id) - 1
    assert close(answer.referring[0], brain.projection(hidden[at]))


def test_generation_stops_at_the_limit_and_a_query_token_at_the_limit_is_read():
    for read_at in ("predict", "token"):
        brain = tiny_brain(max_answer_tokens=4, read_at=read_at)
        template = brain.template
        say(brain, [60, template.track_id, 61, template.purport_id, 62, 63])
        answer = brain.reason(square(brain), "track it")
        assert answer.ids == [60, template.track_id, 61, template.purport_id]
        assert answer.purport.shape == (1, 32)
        assert bool(answer.purport.isfinite().all())


def test_a_forced_brain_answers_the_template_of_the_paper_without_generating():
    brain = tiny_brain(answer="forced")
    say(brain, "no such thing")  # which is what it would generate
    answer = brain.reason(square(brain), "track it")
    assert answer.text == "Sure, I track the object. <TK>, <PO>"
    assert answer.shown == "Sure, I track the object."
    assert len(answer.referring) == 1


# Which position


@pytest.mark.parametrize(("read_at", "offset"), [("predict", 1), ("token", 0)])
def test_the_read_position_is_the_documented_one(read_at, offset):
    brain = tiny_brain(read_at=read_at)
    answer = brain.reason(square(brain), "track it", forced=ANSWER)
    hidden, start = full_hidden(brain, square(brain), "track it", answer.ids)
    for query, token in ((answer.referring, brain.template.track_id), (answer.purport, brain.template.purport_id)):
        at = start + answer.ids.index(token) - offset
        assert close(query[0], brain.projection(hidden[at]))
        assert not close(query[0], brain.projection(hidden[at + 2 * offset - 1]), 1e-3)


def test_the_first_token_of_an_answer_may_be_the_query_token():
    brain = tiny_brain()
    say(brain, [brain.template.track_id, brain.template.purport_id, 2])
    answer = brain.reason(square(brain), "track it")
    hidden, start = full_hidden(brain, square(brain), "track it", answer.ids)
    assert close(answer.referring[0], brain.projection(hidden[start - 1]))  # the colon of "ASSISTANT:"


def test_phi_has_as_many_linear_layers_as_the_config_says():
    for depth in (1, 2, 3):
        layers = [m for m in tiny_brain(projection_depth=depth).projection if isinstance(m, nn.Linear)]
        assert [(m.in_features, m.out_features) for m in layers] == [(48, 48)] * (depth - 1) + [(48, 32)]


# Tokens found by id


def test_either_order_of_the_two_tokens_is_found():
    assert query_positions([9, TK, 8, PO, 2], TK, PO) == ([1], [3])
    assert query_positions([9, PO, 8, TK, 2], TK, PO) == ([3], [1])


def test_the_brain_reads_either_order():
    brain = tiny_brain()
    usual = brain.reason(square(brain), "track it", forced="the dog <TK>, <PO>")
    swapped = brain.reason(square(brain), "track it", forced="the dog <PO>, <TK>")
    # The first query token is predicted by the same prefix, whichever of the two it is.
    assert close(usual.referring, swapped.purport)
    assert not close(usual.referring, swapped.referring, 1e-3)


def test_several_pairs_are_matched_in_order_however_close_they_stand():
    assert query_positions([TK, 1, PO, 1, TK, 1, PO, 1, TK, 1, PO], TK, PO) == ([0, 4, 8], [2, 6, 10])
    assert query_positions([PO, 1, TK, 1, PO, 1, TK], TK, PO) == ([2, 6], [0, 4])
    assert query_positions([TK, 1, 1, 1, PO, TK, PO], TK, PO) == ([0, 5], [4, 6])


def test_a_missing_partner_is_the_nearest_one_and_a_lonely_track_token_is_its_own():
    assert query_positions([TK, 1, 1, TK, 1, PO], TK, PO) == ([0, 3], [5, 5])
    assert query_positions([TK, PO, 1, 1, 1, TK, 1, PO, PO], TK, PO) == ([0, 5], [1, 7])
    assert query_positions([9, TK, 8], TK, PO) == ([1], [1])


def test_each_pair_of_an_answer_has_its_own_queries():
    brain = tiny_brain()
    two = brain.reason(square(brain), "track both", forced=PAIR)
    one = brain.reason(square(brain), "track both", forced="the red car <TK>, <PO>")
    assert two.referring.shape == two.purport.shape == (2, 32)
    assert close(two.referring[:1], one.referring)
    assert not close(two.referring[0], two.referring[1], 1e-3)


def test_an_answer_without_a_track_token_names_no_target():
    assert query_positions([9, PO, 8], TK, PO) == ([], [])
    brain = tiny_brain()
    say(brain, "no such thing")
    answer = brain.reason(square(brain), "track the moon")
    assert answer.referring.shape == answer.purport.shape == (0, 32)
    cue = BrainReasoner(brain).reason(frame(), TrackState(QueryMemory(), None), Prompt("track the moon"))
    assert cue.targets == 0
    assert cue.text == "no such thing"


# The image


@pytest.mark.parametrize(("image", "cells"), [(56, 16), (84, 36)])
def test_an_image_of_any_size_needs_no_offset(image, cells):
    brain = tiny_brain(image=image)
    assert isinstance(brain.llava, LlavaForConditionalGeneration)
    assert isinstance(brain.llava.model.vision_tower, CLIPVisionModel)
    assert image_tokens(brain.llava.config) == cells
    assert brain.template.prefix().count(brain.template.image_id) == cells
    say(brain, ANSWER)
    generated = brain.reason(square(brain), "track it")
    forced = brain.reason(square(brain), "track it", forced=ANSWER)
    hidden, start = full_hidden(brain, square(brain), "track it", forced.ids)
    at = start + forced.ids.index(brain.template.track_id) - 1
    assert close(generated.referring, forced.referring)
    assert close(forced.referring[0], brain.projection(hidden[at]))


def test_the_class_token_counts_where_it_is_kept():
    config = copy.deepcopy(tiny_brain().llava.config)
    config.vision_feature_select_strategy = "full"
    assert image_tokens(config) == 17
    conv = tiny_brain("conv")
    assert isinstance(conv.llava.model.vision_tower, ConvTower)
    assert image_tokens(conv.llava.config) == 16  # strategy "full", but a convolution has no class token


def test_the_brain_sees_both_ends_of_a_wide_frame(monkeypatch):
    brain = tiny_brain()
    seen = []
    preprocess = brain.preprocess
    monkeypatch.setattr(brain, "preprocess", lambda pixels: seen.append(pixels) or preprocess(pixels))
    wide = np.full((90, 160, 3), 128, np.uint8)
    left, right = wide.copy(), wide.copy()
    left[40:50, :4] = 255
    right[40:50, -4:] = 255
    for frame_of_three in (wide, left, right):
        BrainReasoner(brain).reason(frame_of_three, TrackState(QueryMemory(), None), Prompt("the one at the edge"))
    plain, marked_left, marked_right = (pixels[0].float().mean(0) for pixels in seen)
    assert plain.shape == (56, 56)
    assert (marked_left - plain).abs().argmax() % 56 == 0
    assert (marked_right - plain).abs().argmax() % 56 == 55


@pytest.mark.parametrize("tower", TOWERS)
def test_a_brain_in_half_precision_reads_frames(tower):
    brain = tiny_brain(tower).to(torch.bfloat16)
    answer = brain.reason(square(brain), "track it", forced=ANSWER)
    assert answer.referring.dtype == torch.bfloat16
    assert bool(answer.referring.float().isfinite().all())


# What may be asked


def test_an_empty_instruction_is_refused():
    for nothing in ("", "  \n\t ", "<TK>", "\x00\x1b"):
        with pytest.raises(UsageError, match="NL01"):
            tiny_brain().reason(torch.zeros(3, 56, 56, dtype=torch.uint8), nothing)


def test_an_instruction_that_is_too_long_is_refused_whole_and_one_at_the_limit_is_read_whole():
    brain = tiny_brain(max_instruction_tokens=12)
    text = "dog"
    while len(brain.template.encode(f"{text} dog")) <= 12:
        text += " dog"
    count = len(brain.template.encode(f"{text} dog"))
    with pytest.raises(UsageError, match=rf"NL02: the instruction has {count} tokens, the limit is 12"):
        brain.check(f"{text} dog")
    assert brain.check(text) == text


def test_nothing_of_an_instruction_is_cut():
    brain = tiny_brain(max_instruction_tokens=300)
    long = " ".join(f"word{i}" for i in range(40))
    last, other = (brain.reason(square(brain), f"{long} {word}", forced=ANSWER).referring for word in ("dog", "car"))
    assert not close(last, other, 1e-3)
    first, again = (brain.reason(square(brain), f"{word} {long}", forced=ANSWER).referring for word in ("dog", "car"))
    assert not close(first, again, 1e-3)


# LoRA


def adapted(tied=False, tower="clip"):
    model = tiny_trackgpt(tower, tied=tied)
    model.requires_grad_(True)
    model.segmenter.requires_grad_(False)
    names = add_lora(model.brain, LoraConfig(rank=4, alpha=8, dropout=0.05))
    return model, names


def text_and_query_step(model):
    """One large optimiser step on everything that trains, through the words and the queries of an answer."""
    brain = model.brain
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(2):  # LoRA's first matrix has no gradient while the second is zero
        optimiser.zero_grad()
        prompt = brain.template.prefix() + brain.template.question("track it")
        said = brain.template.answer(ANSWER)
        hidden = brain.hidden(torch.tensor([prompt + said]), brain.preprocess(square(brain)[None]))[0]
        words = nn.functional.cross_entropy(brain.llava.lm_head(hidden[len(prompt) - 1 : -1]), torch.tensor(said))
        queries = brain.queries(hidden, torch.tensor([len(prompt) + said.index(brain.template.track_id)]))
        features = model.segmenter.encode(square(brain)[None, :, :48, :48])
        decoded = model.segmenter.decode(features, queries, None, queries)
        (words + queries.square().mean() + decoded.logits.square().mean() + decoded.score.sum()).backward()
        optimiser.step()


@pytest.mark.parametrize("tower", TOWERS)
def test_lora_lies_on_the_language_models_attention_and_nowhere_else(tower):
    model, names = adapted(tower=tower)
    assert names == [
        f"model.language_model.layers.{layer}.self_attn.{part}" for layer in (0, 1) for part in ("q_proj", "v_proj")
    ]
    assert not [n for n, _ in model.brain.llava.model.vision_tower.named_modules() if "lora" in n]
    assert not [n for n, p in model.brain.llava.model.vision_tower.named_parameters() if p.requires_grad]


@pytest.mark.parametrize("tied", [False, True])
def test_only_lora_two_rows_and_phi_train(tied):
    model, _ = adapted(tied)
    train = {name for name, p in model.named_parameters() if p.requires_grad}
    kinds = {"lora_A", "lora_B", "trainable_tokens_delta", "brain.projection"}
    assert {kind for kind in kinds if any(kind in name for name in train)} == kinds
    assert not [name for name in train if not any(kind in name for kind in kinds)]
    # 2 layers x (q: 4 x 48 + 48 x 4, v: 4 x 48 + 24 x 4), 2 rows of 48 once or twice, phi 48 x 48 + 48 + 32 x 48 + 32
    wanted = 2 * (384 + 288) + 2 * 48 * (1 if tied else 2) + 2352 + 1568
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == wanted


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("decoder", [False, True])
def test_a_step_moves_only_what_trains_and_two_rows_of_the_embedding(tied, decoder):
    model, _ = adapted(tied)
    model.segmenter.mask_decoder.requires_grad_(decoder)
    brain = model.brain
    embedding, output = brain.llava.get_input_embeddings(), brain.llava.get_output_embeddings()
    rows = [brain.template.track_id, brain.template.purport_id]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tables = [layer.weight.detach().clone() for layer in (embedding, output)]
    text_and_query_step(model)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    kinds = ["lora_A", "lora_B", "trainable_tokens_delta", "brain.projection"] + ["mask_decoder"] * decoder
    assert {kind for kind in kinds if any(kind in name for name in changed)} == set(kinds)
    assert [name for name in changed if not any(kind in name for kind in kinds)] == []
    for layer, old in zip((embedding, output), tables):
        moved = (layer.weight != old).any(1).nonzero().flatten().tolist()
        assert moved == rows
    if tied:
        assert torch.equal(embedding.weight, output.weight)


@pytest.mark.parametrize("tied", [False, True])
def test_merged_adapters_say_what_applied_ones_said(tied):
    model, _ = adapted(tied)
    brain = model.brain
    names = set(tiny_trackgpt(tied=tied).state_dict())
    plain = brain.reason(square(brain), "track it", forced=ANSWER)
    text_and_query_step(model)
    ids = torch.tensor([brain.template.answer(ANSWER)])
    applied = brain.reason(square(brain), "track it", forced=ANSWER)
    with torch.no_grad():
        logits = brain.llava.lm_head(brain.hidden(ids, None))
    merge_lora(brain)
    merged = brain.reason(square(brain), "track it", forced=ANSWER)
    assert close(merged.referring, applied.referring, 1e-6)
    assert close(merged.purport, applied.purport, 1e-6)
    assert close(brain.llava.lm_head(brain.hidden(ids, None)), logits, 1e-5 * float(logits.abs().max()))
    assert not close(merged.referring, plain.referring, 1e-3)
    assert set(model.state_dict()) == names
    assert (brain.llava.lm_head.weight is brain.llava.get_input_embeddings().weight) == tied


def test_a_merged_model_is_saved_and_loaded_like_any_other(tmp_path):
    model, _ = adapted()
    text_and_query_step(model)
    applied = model.brain.reason(square(model.brain), "track it", forced=ANSWER)
    merge_lora(model.brain)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).brain.reason(square(model.brain), "track it", forced=ANSWER)
    assert close(again.referring, applied.referring, 1e-6)


def test_fresh_adapters_change_nothing_and_follow_the_mode_of_the_brain():
    brain = tiny_brain()
    before = brain.reason(square(brain), "track it", forced=ANSWER)
    add_lora(brain, LoraConfig(rank=4, dropout=0.5))
    assert torch.equal(brain.reason(square(brain), "track it", forced=ANSWER).referring, before.referring)
    assert not [name for name, module in brain.named_modules() if module.training]
    dropouts = [module for module in brain.train().modules() if isinstance(module, nn.Dropout)]
    assert [(module.p, module.training) for module in dropouts] == [(0.5, True)] * 4


def test_rank_zero_leaves_the_brain_as_it_is():
    brain = tiny_brain()
    names = list(brain.state_dict())
    assert add_lora(brain, LoraConfig(rank=0)) == []
    merge_lora(brain)
    assert list(brain.state_dict()) == names
    assert all(p.requires_grad for p in brain.parameters())


def test_lora_cannot_be_added_twice():
    brain = tiny_brain()
    add_lora(brain, LoraConfig())
    with pytest.raises(ModelError, match="carries LoRA already; call merge_lora"):
        add_lora(brain, LoraConfig())
    merge_lora(brain)
    assert len(add_lora(brain, LoraConfig())) == 4


def test_a_language_model_without_the_two_projections_is_refused():
    brain = tiny_brain()
    for layer in brain.llava.model.language_model.layers:
        layer.self_attn = nn.Identity()
    with pytest.raises(ModelError, match="no layer matches"):
        add_lora(brain, LoraConfig())


def test_adapters_rows_of_new_tokens_and_phi_are_all_that_trains():
    model, _ = adapted()
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    parts = ("lora_", "trainable_tokens_delta", "projection.")
    assert [sum(n for name, n in trained.items() if part in name) for part in parts] == [1344, 192, 3920]
    assert sum(trained.values()) == 5456
