"""What a training run begins with: which weights are drawn anew, and that all others are those of the model named."""

import pytest
import torch
from tiny_models import tiny_trackgpt

from train.__main__ import build
from train.config import TrainConfig
from train.plan import Plan
from train.processes import join_processes

ADDED = ("brain.projection.", "segmenter.mask_decoder.adapter.", "segmenter.mask_decoder.first_online.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("start")
    tiny_trackgpt("conv", "conv", tied=True).save_pretrained(made)
    return made


def started(folder, **asked):
    """The weights of a run that begins so, by name, and the model."""
    plan = Plan(seed=asked.pop("seed", 0))
    model = build(TrainConfig(brain=str(folder), device="cpu", plan=plan, **asked), join_processes("cpu", 0))
    return model, {name: value.clone() for name, value in model.state_dict().items()}


def changed(one, other):
    return {name for name in one if not torch.equal(one[name], other[name])}


def test_new_referring_draws_what_trackgpt_adds_and_two_rows_of_words_and_nothing_else(folder):
    model, before = started(folder)
    _, after = started(folder, new_referring=True)
    names = changed(before, after)
    embeddings = [name for name in names if name.endswith("embed_tokens.weight")]
    assert len(embeddings) == 1
    assert all(name.startswith(ADDED) for name in names - {*embeddings, "brain.llava.lm_head.weight"})
    assert {next(part for part in ADDED if name.startswith(part)) for name in names if "brain.llava" not in name} == {
        *ADDED
    }
    template = model.brain.template
    rows = (before[embeddings[0]] != after[embeddings[0]]).any(dim=1).nonzero().flatten().tolist()
    assert rows == sorted([template.track_id, template.purport_id])


def test_the_same_seed_begins_the_same_and_another_one_elsewhere(folder):
    _, first = started(folder, new_referring=True, seed=1)
    _, again = started(folder, new_referring=True, seed=1)
    _, other = started(folder, new_referring=True, seed=2)
    assert not changed(first, again)
    assert changed(first, other)


def test_a_random_encoder_is_the_only_part_that_is_random(folder):
    _, before = started(folder)
    _, after = started(folder, random_encoder=True)
    assert changed(before, after)
    assert all(name.startswith("segmenter.image_encoder.") for name in changed(before, after))


def test_a_run_without_propagation_says_so_in_the_model_it_will_export(folder):
    model, _ = started(folder, propagate=False)
    assert not model.segmenter.mask_decoder.propagate
    assert not model.config.perception.decoder.propagate
