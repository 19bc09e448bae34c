"""The conversation: ids that do not depend on their neighbours, and instructions that are data, never template."""

import foreign_checkpoints as foreign
import pytest
from tiny_models import ANSWER, PAIR, tiny_tokenizer
from transformers import LlamaTokenizer, PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from trackgpt.errors import ModelError, UsageError
from trackgpt.hub import find
from trackgpt.reasoners.brain_weights import load_tokenizer
from trackgpt.reasoners.templates import (
    CONVERSATIONS,
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


def test_ids_of_a_turn_and_of_an_answer_do_not_depend_on_the_instruction():
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

    bare = Tokenizer(models.BPE(vocab={"<unk>": 0, "a": 1}, merges=[], unk_token="<unk>"))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    with pytest.raises(ModelError, match="the tokenizer turns <TK> into"):
        TrackTemplate(PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="<unk>"), 4)


def test_decoding_gives_the_answer_back_without_its_end():
    t = template()
    for text in (ANSWER, PAIR, "no such thing", "Grüße, 物体 <TK>, <PO>"):
        assert t.decode(t.answer(text)) == text


# The ids that the originals were trained on


SAID = ("the dog", "which car will win?", "Grüße, 物体", "[the] dog's car: 2 trees", "a" * 40)


def of_llava(prompt, tokenizer, image):
    """What LLaVA and LISA make of a prompt (`tokenizer_image_token`): each part around <image> is a text of its own."""
    begin, *parts = [tokenizer(part).input_ids for part in prompt.split(IMAGE_TOKEN)]
    assert begin[0] == tokenizer.bos_token_id
    return begin + [number for part in parts for number in [image, *part[1:]]]


def whole(template, instruction, answer=None):
    """The ids of a prompt with its image as one placeholder."""
    assert template.image_tokens == 1
    return template.prefix() + template.question(instruction) + (template.answer(answer) if answer is not None else [])


@pytest.fixture(params=["always", "first"])
def llama(request, tmp_path):
    """Llama's tokenizer on a real sentencepiece model; older ones put a space behind every added token, too."""
    foreign.llama_words(tmp_path)
    tokenizer = LlamaTokenizer.from_pretrained(tmp_path, legacy=request.param == "always")
    tokenizer.add_tokens([IMAGE_TOKEN, TRACK_TOKEN, PURPORT_TOKEN], special_tokens=True)
    return tokenizer


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("vicuna", "USER: <image>\n{} ASSISTANT:"),
        ("mistral", "[INST] <image>\n{} [/INST]"),
        (
            "lisa",
            "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
            "detailed, and polite answers to the human's questions. USER: <im_start><image><im_end>\n{} ASSISTANT:",
        ),
        (
            "lisa-llama-2",
            "[INST] <<SYS>>\nYou are a helpful language and vision assistant. You are able to understand the visual "
            "content that the user provides, and assist the user with a variety of tasks using natural language.\n"
            "<</SYS>>\n\n<im_start><image><im_end>\n{} [/INST]",
        ),
    ],
)
def test_a_prompt_has_the_ids_of_the_original_for_llava_and_lisa(llama, name, prompt):
    llama.add_tokens(["<im_start>", "<im_end>"], special_tokens=True)
    template = TrackTemplate(llama, 1, CONVERSATIONS[name])
    for said in SAID:
        asked = prompt.format(said)
        assert whole(template, said) == of_llava(asked, llama, template.image_id)
        for answer in ("Sure, it is <TK>.", ANSWER, "no such thing"):
            ids = of_llava(f"{asked} {answer}</s>", llama, template.image_id)
            assert whole(template, said, answer) == ids


def test_no_space_stands_between_the_line_break_and_the_instruction(llama):
    pieces = llama.convert_ids_to_tokens(TrackTemplate(llama, 1).question("the dog"))
    assert pieces == ["▁", "<0x0A>", "t", "he", "▁dog", "▁ASSISTANT", ":"]


CHAT = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for c in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for c in message['content'] | selectattr('type', 'equalto', 'text') %}{{ c['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""As llava-hf's LLaVA 1.5 and 1.6 have it."""
QWEN_CHAT = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% for c in message['content'] %}{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in c %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As Qwen2-VL and Qwen2.5-VL have it, for images."""


def rendered(chat, *texts):
    """The prompt of a chat template: a user with an image, an assistant, and so on."""
    roles = ("user", "assistant", "user")
    messages = [{"role": r, "content": [{"type": "text", "text": t}]} for r, t in zip(roles, texts, strict=False)]
    messages[0]["content"].insert(0, {"type": "image"})
    (prompt,), _ = render_jinja_template([messages], chat_template=chat, add_generation_prompt=True)
    return prompt


def test_a_prompt_has_the_ids_of_the_chat_template_for_llava_next(tmp_path):
    """The processor tokenises all at once; with the tokenizer.json of llava-hf this equals the parts around <image>."""
    foreign.llama_words(tmp_path)
    words = LlamaTokenizer.from_pretrained(tmp_path, legacy=True)
    words.add_tokens([IMAGE_TOKEN, TRACK_TOKEN, PURPORT_TOKEN], special_tokens=True)
    template = TrackTemplate(words, 1)
    for said in SAID:
        assert whole(template, said) == words(rendered(CHAT, said)).input_ids


def test_a_prompt_has_the_ids_of_the_chat_template_for_qwen():
    words = foreign.tokenizer(("<|im_start|>", *foreign.QWEN_TOKENS, TRACK_TOKEN, PURPORT_TOKEN), None, "<|im_end|>")
    template = TrackTemplate(words, 1, CONVERSATIONS["qwen"], "<|image_pad|>")
    for said in SAID:
        assert whole(template, said) == words(rendered(QWEN_CHAT, said)).input_ids
        again = whole(template, said, "Sure. <TK>, <PO>") + template.question_again("and now?")
        assert again == words(rendered(QWEN_CHAT, said, "Sure. <TK>, <PO>", "and now?")).input_ids


def test_a_tokenizer_keeps_its_ids_when_it_is_saved_and_read_as_our_own(llama, tmp_path):
    """transformers would make it anew and forget that it puts a space behind every added token."""
    llama.save_pretrained(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved", own=True)
    assert isinstance(again, PreTrainedTokenizerFast)
    text = "USER: <image>\nthe dog ASSISTANT: Sure, it is <TK>, <PO>. Yes"
    assert again(text).input_ids == llama(text).input_ids


def test_the_ids_of_nano_are_those_of_its_pieces_one_by_one():
    """It was trained on pieces that were tokenised apart; none of its ids may change."""
    words = load_tokenizer(find("nano"), own=True)
    template, talk = TrackTemplate(words, 64), CONVERSATIONS["vicuna"]
    for said in (*SAID, ": x", "don't", "...", "_x", "3 crabs, left!"):
        assert template.prefix() == [words.bos_token_id, *template.encode(talk.before), *[template.image_id] * 64]
        assert template.question(said) == template.encode("\n") + template.encode(said + talk.turn)
        assert template.question_again(said) == template.encode(talk.again + said + talk.turn)
        for answer in (f"Sure, I track {said}. <TK>, <PO>", said, "<TK>", ""):
            assert template.answer(answer) == [*template.encode(talk.lead + answer), words.eos_token_id]
    assert template.question("the dog") == [205, 331, 546, 227, 39, 57, 57, 47, 57, 58, 39, 52, 58, 32]
    assert template.answer(ANSWER) == [227, 281, 18, 282, 275, 265, 363, 431, 20, 227, 5, 18, 227, 6, 2]


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


def test_a_special_token_of_any_look_is_taken_out_of_an_instruction():
    words = foreign.tokenizer(("<image>", "[INST]", "<TK>", "<PO>"), "<s>", "</s>")
    t = TrackTemplate(words, 1)
    assert t.without_special("the [INST] dog [IN[INST]ST]") == "the   dog [IN ST]"
    assert set(words.all_special_ids).isdisjoint(t.question(clean_instruction(t.without_special("[INST]dog<s>"))))


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
