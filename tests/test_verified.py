"""One verified forward: a draft saves time and changes nothing: random models, every family, near ties."""

from dataclasses import replace

import foreign_checkpoints as foreign
import numpy as np
import pytest
import torch
from tiny_models import ANSWER, PAIR, Given, Script, frame, say, square, tiny_brain, tiny_trackgpt
from torch import nn
from tracks import Track
from transformers import DynamicCache

from trackgpt.config import RethinkConfig
from trackgpt.memory import QueryMemory
from trackgpt.reasoners import brain as brains
from trackgpt.reasoners.brain_weights import load_brain
from trackgpt.systems.trackgpt import BrainReasoner
from trackgpt.track import TrackState
from trackgpt.types import Prompt

SAY = "track the dog"
END = 2


def sliding_mistral(folder):
    """A LLaVA on a Mistral whose window of 8 tokens is shorter than the 16 of the image alone."""
    return foreign.llava(folder, mistral=True, window=8)


KINDS = {
    "llava": foreign.llava,
    "sliding": sliding_mistral,
    "llava_next": foreign.llava_next,
    "qwen2_5_vl": foreign.qwen2_5,
    "qwen3_vl": foreign.qwen3,
    "smolvlm": foreign.smolvlm,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("brains")
    for kind, write in KINDS.items():
        write(place / kind)
    return place


class Chatter(nn.Module):
    """An output layer that small differences of its input change a lot, so that a random model does not stammer."""

    def __init__(self, hidden, vocabulary):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.inner = torch.randn(hidden, 256, generator=generator)
        self.outer = torch.randn(256, vocabulary, generator=generator)
        self.outer[:, :8] = 0  # no end token: they come first in these vocabularies

    def forward(self, hidden):
        return torch.cos(10 * hidden @ self.inner) @ self.outer


def foreign_brain(folders, kind):
    brain, _ = load_brain(folders / kind, 32)
    brain.config.max_answer_tokens = 12
    brain.llava.lm_head = Chatter(brain.llava.config.get_text_config().hidden_size, 200)
    return brain


def reading(brain, track=0, purport=0):
    """Let drafts be ids, "5 17 2", and let two ids of our choice be read as <TK> and <PO>."""
    kind = type("Reading", (Given,), {"track_id": track, "purport_id": purport})
    brain.template = kind(
        brain.template.tokenizer, brain.template.image_tokens, brain.template.conversation, brain.template.image_token
    )


@torch.no_grad()
def greedy(brain, pixels, instruction=SAY):
    """The definition: one uncached pass over everything for each token; ids, last hidden states, where ids begin."""
    prompt = brain.template.prefix() + brain.template.question(instruction)
    ids: list[int] = []
    while True:
        hidden = brain.hidden(torch.tensor([prompt + ids]), brain.preprocess(pixels[None]))[0]
        if len(ids) == brain.config.max_answer_tokens or ids[-1:] == [brain.template.tokenizer.eos_token_id]:
            return ids, hidden, len(prompt)
        ids.append(int(brain.llava.lm_head(hidden[-1]).argmax()))


def spoken(ids):
    return " ".join(map(str, ids))


def lengths(brain):
    """A list that grows by the number of tokens of every forward of the model from here on."""
    seen = []
    brain.llava.model.register_forward_pre_hook(
        lambda module, args, given: seen.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    return seen


def apart(a, b):
    assert a.shape == b.shape
    return float((a - b).detach().abs().max()) if a.numel() else 0.0


def drafts_about(ids, vocabulary, generator):
    """Drafts of an answer: right, cut, gone on with, wrong in one place, ended early, and anything at all."""
    anything = torch.randint(0, vocabulary, (10,), generator=generator).tolist()
    place = int(torch.randint(0, len(ids), (), generator=generator))
    other = (ids[place] + 1) % vocabulary
    return {
        "right": ids,
        "shorter": ids[: place + 1],
        "longer": [*ids, 7, 8, 9],
        "immediately wrong": [(ids[0] + 1) % vocabulary, *ids[1:]],
        "one word changed": [*ids[:place], other, *ids[place + 1 :]],
        "one word missing": [*ids[:place], *ids[place + 1 :]] or anything,
        "ends early": [*ids[:place], END],
        "the end alone": [END],
        "anything": anything,
    }


@pytest.mark.parametrize("read_at", ["predict", "token"])
@pytest.mark.parametrize("seed", range(6))
def test_whatever_the_draft_the_answer_is_that_of_greedy_decoding(seed, read_at):
    """Ids are equal and queries within 1e-5; half of the models talk to the limit, the others may end."""
    brain = tiny_brain(("clip", "conv")[seed % 2], seed=seed, max_answer_tokens=14, read_at=read_at)
    if seed % 2:
        brain.llava.lm_head.weight.data[END] = 0
    pixels = square(brain, seed)
    ids, hidden, start = greedy(brain, pixels)
    track, purport = ids[0], ids[len(ids) // 2]
    reading(brain, track, purport)
    wanted = brain._answer(hidden, start, ids)
    assert len(wanted.referring) == ids.count(track)
    generator = torch.Generator().manual_seed(seed)
    drafts = drafts_about(ids, len(brain.template.tokenizer), generator) | {"none": []}
    for name, draft in drafts.items():
        answer = brain.reason(pixels, SAY, draft=spoken(draft))
        assert answer.ids == ids, name
        assert answer.text == wanted.text
        assert apart(answer.referring, wanted.referring) <= 1e-5
        assert apart(answer.purport, wanted.purport) <= 1e-5


def test_random_models_say_something_worth_testing():
    said = [
        tuple(greedy(tiny_brain(seed=seed, max_answer_tokens=14), square(tiny_brain(), seed))[0]) for seed in (0, 2)
    ]
    assert len(set(said)) == 2
    assert min(len(set(ids)) for ids in said) > 3


def test_a_right_draft_and_a_forced_answer_take_one_forward_and_no_draft_one_a_token():
    brain = tiny_brain()
    ids = say(brain, ANSWER)
    prompt = len(brain.template.prefix() + brain.template.question(SAY))
    seen = lengths(brain)
    assert brain.reason(square(brain), SAY, draft=ANSWER).ids == ids
    assert seen == [prompt + len(ids)]
    assert brain.reason(square(brain), SAY, forced=ANSWER).ids == ids
    assert seen[1:] == [prompt + len(ids)]
    assert brain.reason(square(brain), SAY, draft="").ids == ids
    assert seen[2:] == [prompt] + [1] * (len(ids) - 1)


def test_behind_other_words_the_rest_of_a_draft_is_guessed_again():
    """ "the <TK>, <PO>": what the template says behind the object is foreseen although the object is not."""
    brain = tiny_brain()
    ids = say(brain, "Sure, I track the red car. <TK>, <PO>")
    seen = lengths(brain)
    assert brain.reason(square(brain), SAY, draft="Sure, I track the object. <TK>, <PO>").ids == ids
    words = len(brain.template.encode(" red car."))
    assert len(seen) == 1 + words
    assert seen[-1] == 1 + len(brain.template.encode(" <TK>, <PO>")) + 1


def test_by_default_the_template_is_the_draft():
    brain = tiny_brain()
    ids = say(brain, brain.config.forced_answer)
    seen = lengths(brain)
    assert brain.reason(square(brain), SAY).ids == ids
    assert len(seen) == 1


def test_an_answer_at_the_limit_is_cut_there_whatever_the_draft():
    brain = tiny_brain(max_answer_tokens=4)
    ids = say(brain, ANSWER)
    for draft in (ANSWER, "Sure, I", ""):
        assert brain.reason(square(brain), SAY, draft=draft).ids == ids[:4]


# Rounding


class NearTie(Script):
    """Says `ids` where one token is read, and at place `tied` another token where several are read: rounding's work."""

    def __init__(self, ids, vocabulary, listens, tied, gap):
        super().__init__(ids, vocabulary, listens)
        self.tied, self.gap = tied, gap

    def forward(self, hidden):
        logits = super().forward(hidden).to(torch.bfloat16)
        other = (self.ids[self.tied] + 1) % logits.shape[-1]
        for row in logits:
            if int(row.argmax()) == self.ids[self.tied]:
                row[other] = 1.0
                row[self.ids[self.tied] if len(hidden) > 1 else other] = 1.0 - self.gap
        return logits


def near_tie(gap, ids=(60, 61, 62, 63, END), tied=2):
    brain = tiny_brain().to(torch.bfloat16)
    brain.llava.lm_head = NearTie(ids, len(brain.template.tokenizer), brain.llava.model, tied, gap)
    reading(brain)
    return brain, list(ids)


def test_a_near_tie_in_half_precision_is_decided_by_plain_decoding():
    """Two ones among 300 logits: a standard deviation of 0.08, so 16 epsilons of it are 0.010; the gap is 0.0078."""
    brain, ids = near_tie(gap=2**-7)
    seen = lengths(brain)
    assert brain.reason(square(brain), SAY, draft=spoken(ids)).ids == ids
    assert len(seen) == 1 + len(ids)
    assert seen[1:] == [seen[0] - len(ids)] + [1] * (len(ids) - 1)


def test_a_near_tie_behind_a_rejected_draft_starts_over_too():
    brain, ids = near_tie(gap=2**-7)
    assert brain.reason(square(brain), SAY, draft=spoken([ids[0], 99, 98])).ids == ids


def test_without_the_bound_that_near_tie_would_change_the_answer(monkeypatch):
    monkeypatch.setattr(brains, "LEAD", 0)
    monkeypatch.setattr(brains, "LEAST_LEAD", 0)
    brain, ids = near_tie(gap=2**-7)
    assert brain.reason(square(brain), SAY, draft=spoken(ids)).ids[:3] == [60, 61, 63]


def test_a_lead_beyond_the_bound_is_trusted():
    brain, ids = near_tie(gap=2**-5)
    assert brain.reason(square(brain), SAY, draft=spoken(ids)).ids[:3] == [60, 61, 63]


@pytest.mark.parametrize("seed", range(4))
def test_random_models_in_half_precision_say_what_they_say_plainly(seed):
    brain = tiny_brain(seed=seed, max_answer_tokens=14).to(torch.bfloat16)
    reading(brain)
    plain = brain.reason(square(brain, seed), SAY, draft="").ids
    generator = torch.Generator().manual_seed(seed)
    for draft in drafts_about(plain, len(brain.template.tokenizer), generator).values():
        assert brain.reason(square(brain, seed), SAY, draft=spoken(draft)).ids == plain


# Families and caches


@pytest.mark.parametrize("kind", KINDS)
def test_drafts_change_nothing_in_any_family(folders, kind):
    brain = foreign_brain(folders, kind)
    pixels = square(brain)
    ids, hidden, start = greedy(brain, pixels)
    assert len(set(ids)) > 6
    reading(brain, ids[1], ids[5])
    wanted = brain._answer(hidden, start, ids)
    generator = torch.Generator().manual_seed(0)
    for name, draft in (drafts_about(ids, 200, generator) | {"none": []}).items():
        answer = brain.reason(pixels, SAY, draft=spoken(draft))
        assert answer.ids == ids, name
        assert apart(answer.referring, wanted.referring) <= 1e-5
    forced = brain.reason(pixels, SAY, forced=spoken(ids))
    assert apart(forced.purport, wanted.purport) <= 1e-5
    assert wanted.referring.std() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_instructions_about_one_frame_are_answered_as_if_alone_and_the_image_is_read_once(folders, kind):
    brain = foreign_brain(folders, kind)
    pixels = square(brain)
    instructions = [SAY, "the one that runs, if any", "it"]
    first = brain.reason(pixels, SAY, draft="").ids
    reading(brain, first[1], first[2])
    brain.config.forced_answer = spoken(first)
    alone = [brain.reason(pixels, text) for text in instructions]
    seen = lengths(brain)
    together = brain.reason_many(pixels, instructions)
    assert seen[0] == len(brain.template.prefix())
    assert max(seen[1:]) < 120 < seen[0] + 110
    assert [answer.ids for answer in together] == [answer.ids for answer in alone]
    for ours, wanted in zip(together, alone, strict=True):
        assert apart(ours.referring, wanted.referring) <= 1e-5
        assert apart(ours.purport, wanted.purport) <= 1e-5


def test_no_instruction_is_answered_when_one_is_refused():
    brain = tiny_brain()
    seen = lengths(brain)
    with pytest.raises(brains.UsageError, match="NL01"):
        brain.reason_many(square(brain), [SAY, " "])
    assert seen == []


def test_the_placeholder_of_an_image_in_a_draft_or_a_forced_answer_asks_for_no_image():
    brain = tiny_brain()
    ids = say(brain, ANSWER)
    assert brain.reason(square(brain), SAY, draft=f"<image>{ANSWER}").ids == ids
    assert brain.template.image_id not in brain.reason(square(brain), SAY, forced=f"<image>{ANSWER}").ids


def test_a_cache_that_cannot_be_cropped_gets_no_draft(monkeypatch):
    brain = tiny_brain()
    ids = say(brain, ANSWER)
    monkeypatch.setattr(DynamicCache, "is_croppable", False)
    seen = lengths(brain)
    assert brain.reason(square(brain), SAY, draft=ANSWER).ids == ids
    assert seen[1:] == [1] * (len(ids) - 1)


# The loop


def test_a_rethink_is_drafted_with_the_answer_before(monkeypatch, tmp_path):
    model = tiny_trackgpt()
    model.config.rethink = RethinkConfig(ratio=1.0)
    model.config.min_area = 0.0
    say(model.brain, PAIR)
    drafts = []
    reason = model.brain.reason

    def noted(*args, **given):
        drafts.append(given.get("draft"))
        return reason(*args, **given)

    monkeypatch.setattr(model.brain, "reason", noted)
    track = Track(model.tracker())
    track.look(frame(0), Prompt(SAY))
    while len(drafts) < 2:
        track.look(frame(len(drafts)))
    assert drafts == [None, PAIR]
    track.state.save(tmp_path / "track.safetensors")
    assert TrackState.load(tmp_path / "track.safetensors", track.tracker.kinds).cue.answer == PAIR


def test_the_cue_in_force_changes_nothing_but_the_time():
    brain = tiny_brain()
    say(brain, ANSWER)
    reasoner, seen = BrainReasoner(brain), lengths(brain)
    said = TrackState(QueryMemory(), None, prompts=(Prompt(SAY),))
    first = reasoner.reason(frame(0), said, said.prompts[0])
    rounds = len(seen)
    again = reasoner.reason(frame(0), replace(said, cue=first), None)
    assert len(seen) == rounds + 1 < 2 * rounds
    assert again.text == first.text
    assert np.abs(again.referring - first.referring).max() <= 1e-5
    plain = reasoner.reason(frame(0), said, None)
    assert np.abs(plain.referring - first.referring).max() <= 1e-5


def test_a_forced_brain_reads_words_without_an_output_layer_in_one_forward():
    brain = tiny_brain(answer="forced")
    brain.llava.lm_head = nn.Identity()
    seen = lengths(brain)
    assert brain.reason(square(brain), SAY).shown == "Sure, I track the object."
    assert len(seen) == 1
