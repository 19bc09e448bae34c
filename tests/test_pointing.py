"""Attention that is shown where to look: at which words, at which cells, and that it is the model's own attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import tiny_trackgpt

from trackgpt.synthtrack.language import Seen
from train.config import Shape
from train.engine import StageModule
from train.packing import Packed, pack, packed_hidden, project
from train.pointing import (
    Look,
    PointingStage,
    head_attention,
    layer_inputs,
    nouns,
    places,
    pointing_sample,
)

CPU = torch.device("cpu")


def seen(number: int, category: str, colour: str) -> Seen:
    return Seen(number, category, colour, "small", (0.1, 0.1, 0.3, 0.3), 0.03, 1.0)


def test_a_noun_means_the_things_of_that_kind_and_of_the_colour_in_front_of_it() -> None:
    there = [seen(1, "car", "red"), seen(2, "car", "blue"), seen(3, "dog", "red")]
    assert list(nouns("what is left of the red car?", there)) == [("car", (1,))]
    assert list(nouns("the car", there)) == [("car", (1, 2))]
    assert list(nouns("all the dogs, please", there)) == [("dogs", (3,))]
    assert list(nouns("the green dog", there)) == []  # there is none
    assert list(nouns("what barks?", there)) == []
    assert list(nouns("track the carrot", there)) == []


def test_looks_stand_at_the_noun_and_at_the_article_before_each_name() -> None:
    model = tiny_trackgpt("conv", tied=True)
    template = model.brain.template
    question, answer = "the car and the dog", "I track 2 objects: the car <TK>, <PO>; the dog <TK>, <PO>"
    batch = pack(template, [[((question, answer),)]])
    cells = np.ones(template.image_tokens, bool)
    found = places(batch, template, [[Look(1, -1, "dog", cells), Look(1, 0, "", cells), Look(1, 1, "", cells)]])
    ids = batch.ids[0]

    (noun,), articles = found["look_noun"][1].tolist(), found["look_name"][1].tolist()
    assert template.decode(ids[: noun + 1].tolist()).endswith("the car and the dog")
    rest = [template.decode(ids[at:].tolist()) for at in articles]
    assert [text.split(" <TK>")[0].split("<TK>")[0].strip() for text in rest] == ["the car", "the dog"]


def test_the_attention_that_is_taught_is_the_one_that_the_layer_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_trackgpt("conv", tied=True)
    brain = model.brain
    brain.language.config._attn_implementation = "eager"
    batch = pack(brain.template, [[(("the car", "Here. <TK>, <PO>"),), (("the dog", "I have it. <TK>, <PO>"),)]] * 2)
    frames = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    weights = []
    attention = brain.language.layers[1].self_attn
    hook = attention.register_forward_hook(lambda *given: weights.append(given[2][1]))
    with torch.no_grad(), monkeypatch.context() as patched, layer_inputs(brain.language, (1,)) as inputs:
        # Attention that returns its weights adds its mask.
        whom = batch.mask()
        patched.setattr(Packed, "mask", lambda _: torch.zeros(whom.shape).masked_fill(~whom, -torch.inf))
        packed_hidden(brain, batch, project(brain, brain.preprocess(frames)))
    hook.remove()
    row, at = torch.tensor([0, 1, 1]), torch.tensor([20, 25, 27])
    found = head_attention(brain.language.layers[1], *inputs[1], batch, row, at)
    assert torch.allclose(found, weights[0][row, 0, at], atol=1e-5)
    assert torch.allclose(found.sum(1), torch.ones(3))


def test_a_sample_looks_at_every_target_of_every_answer() -> None:
    sample = pointing_sample(4, 64, 4)
    wanted = [(number, k) for number, turn in enumerate(sample.turns, 1) for k in range(len(turn.targets))]
    assert [(look.turn, look.target) for look in sample.looks if look.target >= 0] == wanted
    assert all(look.cells.any() and look.cells.shape == (16,) for look in sample.looks)


def test_the_stage_teaches_words_and_attention_and_holds_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.pointing.NAME_LAYER", 1)  # the tiny model has two layers
    monkeypatch.setattr("train.pointing.NOUN_LAYER", 0)
    model = tiny_trackgpt("conv", tied=True, width=128, max_instruction_tokens=400)
    stage = PointingStage(model, Shape(side=64, targets=4), CPU)
    StageModule(stage, {}, False, CPU, touch=False)
    losses, figures = stage.losses([stage.sample(seed) for seed in (4, 5)])
    torch.stack([stage.weights[name] * loss for name, loss in losses.items()]).sum().backward()
    assert set(losses) == set(stage.weights)
    assert model.brain.language.layers[1].self_attn.q_proj.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.brain.vision.encoder.parameters())
    assert 0 < figures["look_name_share"] < 1
