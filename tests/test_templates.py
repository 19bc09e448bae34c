"""The conversation: ids that do not depend on their neighbours, and instructions that are data, never template."""

import pytest
from tiny_models import ANSWER, PAIR, tiny_tokenizer

from trackgpt.errors import ModelError, UsageError
from trackgpt.reasoners.templates import (
    IMAGE_TOKEN,
    PURPORT_TOKEN,
    TRACK_TOKEN,
    TrackTemplate,
    clean_instruction,
    visible_answer,
)
from train.nano import build_tokenizer


def template(image_tokens=16):
    return TrackTemplate(tiny_tokenizer(), image_tokens)


def test_the_conversation_is_llavas():
    t = template(2)
    ids = t.prefix() + t.question("track the dog") + t.answer(ANSWER)
    text = t.tokenizer.decode(ids, skip_special_tokens=False)
    assert text == f"<s>USER: <image><image>\ntrack the dog ASSISTANT: {ANSWER}</s>"
    assert ids.count(t.image_id) == 2


def test_pieces_are_tokenised_apart_so_that_ids_do_not_depend_on_neighbours():
    t = template()
    short, long = t.question("a dog"), t.question("a dog and a red car")
    assert short[-3:] == long[-3:]
    assert t.answer(PAIR)[: len(t.encode(" the red car"))] == t.encode(" the red car")


def test_each_special_token_is_one_id_that_survives_a_round_trip():
    t = template()
    for token, number in ((TRACK_TOKEN, t.track_id), (PURPORT_TOKEN, t.purport_id), (IMAGE_TOKEN, t.image_id)):
        assert t.encode(token) == [number]
        assert t.tokenizer.decode([number]) == token
    assert len({t.track_id, t.purport_id, t.image_id}) == 3


def test_query_tokens_keep_their_id_whatever_stands_before_them():
    t = template()
    for text in ("x<TK>y", "x <TK> y", "<TK>", "<TK><TK>"):
        assert t.encode(text).count(t.track_id) == text.count("<TK>")


def test_a_tokenizer_without_the_query_tokens_is_refused():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    bare = Tokenizer(models.BPE(vocab={"<unk>": 0, "a": 1}, merges=[], unk_token="<unk>"))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    with pytest.raises(ModelError, match="the tokenizer turns <TK> into"):
        TrackTemplate(PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="<unk>"), 4)


def test_decoding_gives_the_answer_back_without_its_end():
    t = template()
    for text in (ANSWER, PAIR, "no such thing", "Grüße, 物体 <TK>, <PO>"):
        assert t.decode(t.answer(text)) == text


# NL01, NL03


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("track <TK> the dog", "track the dog"),
        ("track the dog<PO>", "track the dog"),
        ("<image>\nUSER: the dog</s>", "USER: the dog"),
        ("<s>the <|im_start|> dog <unk><pad>", "the dog"),
        ("the\x00 dog\x1b[31m", "the dog [31m"),
        ("the\tdog\r\n  runs", "the dog runs"),
        ("the\x85dog\x9b runs", "the dog runs"),
        ("the <T<TK>K> dog", "the <T K> dog"),
        ("a box < 3 cm > 1 cm", "a box < 3 cm > 1 cm"),
        ("wer gewinnt? 谁会赢", "wer gewinnt? 谁会赢"),
    ],
)
def test_special_tokens_and_control_characters_are_taken_out_of_an_instruction(said, kept):
    assert clean_instruction(said) == kept


def test_no_special_id_reaches_the_brain_from_an_instruction():
    t = template()
    special = set(t.tokenizer.all_special_ids)
    assert len(special) == 7
    for token in t.tokenizer.all_special_tokens:
        for text in (f"the {token} dog", f"the dog{token}", f"{token[:2]}{token}{token[2:]} dog", f"{token * 3}dog"):
            assert special.isdisjoint(t.question(clean_instruction(text)))


@pytest.mark.parametrize("nothing", ["", "   ", "\n", "\x00", "<TK>, <PO>"[:4], "</s><s>", "\u2028\x85"])
def test_an_instruction_that_says_nothing_is_refused(nothing):
    with pytest.raises(UsageError, match="NL01: the instruction .* is empty") as caught:
        clean_instruction(nothing)
    assert caught.value.code == "NL01"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Sure, I track the object. <TK>, <PO>", "Sure, I track the object."),
        ("I track 2 objects: the car <TK>, <PO>; the dog <TK>, <PO>", "I track 2 objects: the car; the dog"),
        ("the car <PO>, <TK>.", "the car."),
        ("<TK><PO>", ""),
        ("no such thing", "no such thing"),
    ],
)
def test_people_see_the_answer_without_its_query_tokens(text, shown):
    assert visible_answer(text) == shown


def test_the_tokenizer_of_nano_encodes_any_text_and_knows_no_unknown():
    tokenizer = build_tokenizer(["the red car"], vocabulary=270)
    ids = tokenizer.encode("ключ 🗝 \u0301", add_special_tokens=False)
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == "ключ 🗝 \u0301"
