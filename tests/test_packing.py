"""Several turns behind one image equal as many separate conversations."""

import foreign_checkpoints as foreign
import pytest
import torch
from tiny_models import ANSWER, PAIR, square, tiny_brain

from trackgpt.errors import UsageError
from trackgpt.reasoners.brain_weights import load_brain
from trackgpt.reasoners.lora import add_lora
from train.packing import pack, packed_hidden, packed_logits, packed_queries, project

TURNS = [
    ("track the red car", ANSWER),
    ("what is there?", "a dog"),
    ("track both", PAIR),
    ("track the moon", "nothing"),
]


@pytest.fixture(params=foreign.FAMILIES)
def family_brain(request, tmp_path):
    """A brain of another family."""
    foreign.FAMILIES[request.param](tmp_path / "brain")
    return load_brain(tmp_path / "brain", 32)[0]


def alone(brain, pixels, question, answer):
    """Last hidden states (l, h) of one conversation, and the length of its prefix."""
    prefix = brain.template.prefix()
    ids = torch.tensor([prefix + brain.template.question(question) + brain.template.answer(answer)])
    return brain.hidden(ids, pixels)[0], len(prefix)


def single(turns):
    """Dialogues of one round each."""
    return [(turn,) for turn in turns]


def packed(brain, images, silent=None):
    batch = pack(brain.template, [single(turns) for turns in images], silent)
    pixels = brain.preprocess(torch.stack([square(brain, seed) for seed in range(len(images))]))
    with torch.no_grad():
        return batch, pixels, packed_hidden(brain, batch, project(brain, pixels))


def assert_packed_is_separate(brain):
    images = [TURNS, TURNS[2:3], TURNS[::-1]]
    batch, _, hidden = packed(brain, images)
    compared = 0
    for row, turns in enumerate(images):
        for k, (question, answer) in enumerate(turns, start=1):
            with torch.no_grad():
                single, prefix = alone(brain, brain.preprocess(square(brain, row)[None]), question, answer)
            here = hidden[row][batch.turn[row] == k]
            assert here.shape == single[prefix:].shape
            assert (here - single[prefix:]).abs().max() <= 1e-5
            assert (hidden[row][batch.turn[row] == 0] - single[:prefix]).abs().max() <= 1e-5
            compared += 1
    assert compared == 9


@pytest.mark.parametrize("tower", ["clip", "conv"])
def test_packed_turns_equal_separate_conversations(tower):
    assert_packed_is_separate(tiny_brain(tower))


def test_packed_turns_equal_separate_conversations_in_every_family(family_brain):
    assert_packed_is_separate(family_brain)


def test_every_family_learns_from_a_packed_batch(family_brain):
    """The loss of the words reaches LoRA in every layer."""
    brain = family_brain.train()
    names = add_lora(brain, brain.config.lora)
    batch = pack(brain.template, [single(TURNS)])
    hidden = packed_hidden(brain, batch, project(brain, brain.preprocess(square(brain)[None])))
    logits, labels = packed_logits(brain, hidden, batch)
    torch.nn.functional.cross_entropy(logits, labels).backward()
    for name in names:
        assert brain.llava.get_submodule(name).lora_B["default"].weight.grad.abs().max() > 0


def test_a_conversation_beyond_the_sliding_window_is_refused(tmp_path):
    """A window of 64 tokens, and 16 of the image with 100 behind them."""
    foreign.llava(tmp_path, mistral=True, window=64)
    brain, _ = load_brain(tmp_path, 32)
    with pytest.raises(UsageError, match=r"a conversation has \d+ tokens, and this language model's sliding window 64"):
        packed(brain, [[("track the red car", ANSWER * 2)]])
    foreign.llava(tmp_path / "wide", mistral=True, window=4096)
    assert_packed_is_separate(load_brain(tmp_path / "wide", 32)[0])


def test_packed_queries_are_those_of_the_brain():
    for read_at in ("predict", "token"):
        brain = tiny_brain(read_at=read_at)
        batch, _, hidden = packed(brain, [TURNS, TURNS[2:]])
        referring, purport = packed_queries(brain, hidden, batch)
        wanted = [
            brain.reason(square(brain, row), question, forced=answer)
            for row, turns in enumerate([TURNS, TURNS[2:]])
            for question, answer in turns
        ]
        assert batch.row.tolist() == [0, 0, 0, 1, 1]
        assert (referring - torch.cat([w.referring for w in wanted])).abs().max() <= 1e-5
        assert (purport - torch.cat([w.purport for w in wanted])).abs().max() <= 1e-5


def test_padding_and_an_image_without_turns_bring_no_nan():
    brain = tiny_brain()
    batch, _, hidden = packed(brain, [TURNS, TURNS[1:2], []])
    assert (batch.turn[2] == -1).sum() > 50
    assert bool(hidden.isfinite().all())
    brain.train()
    loss = packed_hidden(brain, batch, project(brain, brain.preprocess(torch.stack([square(brain)] * 3))))[
        batch.turn > 0
    ].sum()
    loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in brain.parameters() if p.grad is not None)


def test_the_mask_keeps_turns_apart_and_lets_all_see_the_image():
    brain = tiny_brain()
    batch = pack(brain.template, [single(TURNS[:2]), single(TURNS[1:2])])
    seen = batch.mask()[0, 0]
    image, first, second = ((batch.turn[0] == k).nonzero().flatten() for k in (0, 1, 2))
    assert bool(seen[first][:, image].all())
    assert bool(seen[second][:, image].all())
    assert not bool(seen[second][:, first].any())
    assert not bool(seen[image][:, first].any())
    assert not bool(torch.triu(seen, 1).any())
    padding = (batch.turn[1] == -1).nonzero().flatten()
    assert len(padding) > 10
    assert bool(batch.mask()[1, 0].any(1).all())  # a row that sees nothing would be NaN
    assert not bool(batch.mask()[1, 0][batch.turn[1] >= 0][:, padding].any())


def test_positions_of_every_turn_start_where_the_image_ends():
    template = tiny_brain().template
    batch = pack(template, [single(TURNS)])
    prefix = len(template.prefix())
    for k in range(1, 5):
        own = batch.positions[0][batch.turn[0] == k].tolist()
        assert own == list(range(prefix, prefix + len(own)))


def test_labels_cover_the_answers_and_their_end_alone():
    brain = tiny_brain()
    template = brain.template
    batch = pack(template, [single(TURNS), single(TURNS[:1])])
    answers = [template.answer(answer) for _, answer in TURNS]
    assert batch.labels[0][batch.labels[0] >= 0].tolist() == sum(answers, [])
    assert batch.labels[1][batch.labels[1] >= 0].tolist() == answers[0]
    assert torch.equal(batch.labels[batch.labels >= 0], batch.ids[batch.labels >= 0])


def test_logits_stand_one_position_before_their_labels():
    brain = tiny_brain()
    batch, _, hidden = packed(brain, [TURNS[:1]])
    logits, labels = packed_logits(brain, hidden, batch)
    assert labels.tolist() == brain.template.answer(ANSWER)
    first = int((batch.labels[0] >= 0).nonzero()[0])
    assert (logits[0] - brain.llava.lm_head(hidden[0, first - 1])).abs().max() <= 1e-5
    assert (logits[0] - brain.llava.lm_head(hidden[0, first])).abs().max() > 0.1


def test_silent_turns_have_no_labels_but_their_queries_are_read():
    brain = tiny_brain()
    images = [TURNS[:3], TURNS[2:]]
    loud = pack(brain.template, [single(turns) for turns in images])
    quiet = pack(brain.template, [single(turns) for turns in images], [[True, False, True], [False, True]])
    assert torch.equal(quiet.ids, loud.ids)
    assert torch.equal(quiet.track, loud.track)
    assert torch.equal(quiet.purport, loud.purport)
    spoken = {(row, turn) for row in (0, 1) for turn in quiet.turn[row][quiet.labels[row] >= 0].tolist()}
    assert spoken == {(0, 2), (1, 1)}


def test_a_batch_without_a_single_target_has_no_queries():
    brain = tiny_brain()
    batch, _, hidden = packed(brain, [TURNS[1:2]])
    referring, purport = packed_queries(brain, hidden, batch)
    assert referring.shape == purport.shape == (0, 32)


def test_a_dialogue_is_one_turn_whose_rounds_see_each_other():
    brain = tiny_brain()
    template = brain.template
    rounds = [("what is there?", "a dog"), ("track it", ANSWER)]
    batch = pack(template, [[rounds, (TURNS[0],)]])
    first = template.question("what is there?") + template.answer("a dog")
    second = template.encode("USER: track it ASSISTANT:") + template.answer(ANSWER)
    assert batch.ids[0][batch.turn[0] == 1].tolist() == first + second
    learned = batch.labels[0][(batch.turn[0] == 1) & (batch.labels[0] >= 0)].tolist()
    assert learned == template.answer("a dog") + template.answer(ANSWER)
    whole = torch.tensor([template.prefix() + first + second])
    pixels = brain.preprocess(square(brain)[None])
    with torch.no_grad():
        alone_ = brain.hidden(whole, pixels)[0][len(template.prefix()) :]
        together = packed_hidden(brain, batch, project(brain, pixels))[0][batch.turn[0] == 1]
    assert (alone_ - together).abs().max() <= 1e-5
    assert batch.row.tolist() == [0, 0]
