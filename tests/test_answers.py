"""Answers of vision-language models: what is read, what is repaired, what says nothing, and what is no answer."""

import json
import random
import time

import pytest
import torch
from transformers.models.florence2.processing_florence2 import Florence2PostProcessor
from transformers.models.kosmos2.processing_kosmos2 import clean_text_and_extract_entities_with_bboxes

from trackgpt.reasoners.answers import PARSERS, ParsedAnswer
from trackgpt.reasoners.coordinates import CONVENTIONS, Sizes, placed

BOX = (10.0, 20.0, 30.0, 40.0)
OTHER = (1.5, 2.0, 3.0, 4.0)


def read(name, text):
    """Numbers and labels, or None where the answer cannot be read."""
    answer = PARSERS[name](text)
    return [(region.numbers, region.label) for region in answer.regions] if answer.readable else None


# JSON


@pytest.mark.parametrize(
    "text",
    [
        '[{"bbox_2d": [10, 20, 30, 40], "label": "dog"}]',
        '{"label": "dog", "bbox_2d": [10, 20, 30, 40]}',
        '```json\n[{"bbox_2d": [10, 20, 30, 40], "label": "dog"}]\n```',
        '```\n[{"bbox_2d": [10, 20, 30, 40], "label": "dog"}]\n```\nThis is the dog of 3 years.',
        'Here it is:\n```json\n[{"bbox_2d": [10, 20, 30, 40], "label": "dog"}]',
        '[{"bbox_2d": ["10", "20", "30.0", " 40 "], "label": "dog"}]',
        '{"objects": {"found": [{"name": "dog", "bbox": [10.0, 2e1, 30, 40]}]}}',
        '[{"bbox_2d": [[10, 20], [30, 40]], "label": "dog"}]',
        "[{'bbox_2d': [10, 20, 30, 40], 'label': 'dog'}]",
        '[{"bbox_2d": [10, 20, 30, 40,], "label": "dog",},]',
        '[{"bbox_2d": [10, 20, 30, 40], "label": "dog"}, {"bbox_2d": [5, 6, 7, 4',
        'The object is {"bbox_2d": [10, 20, 30, 40], "label": "dog"}, I think.',
        "{bbox_2d: (10, 20, 30, 40), label: 'dog'}",
        '[1, 2, 3, 4] was wrong</think>[{"bbox_2d": [10, 20, 30, 40], "label": "dog"}]',
    ],
)
def test_one_dog_is_read_however_its_json_is_written(text):
    answer = PARSERS["json"](text)
    assert [(region.numbers, region.label) for region in answer.regions] == [(BOX, "dog")]
    first, last = answer.regions[0].span
    assert "40" in text[first:last]


def test_several_objects_keep_their_order_and_labels():
    text = '[{"bbox_2d": [10, 20, 30, 40], "label": "player 1"}, {"bbox_2d": [1.5, 2, 3, 4], "label": "it\'s \\u00e9"}]'
    assert read("json", text) == [(BOX, "player 1"), (OTHER, "it's é")]
    assert read("json", text[:-1]) == [(BOX, "player 1"), (OTHER, "it's \\u00e9")]  # cut off: as it stands
    assert [text[slice(*region.span)] for region in PARSERS["json"](text).regions] == [
        "[10, 20, 30, 40]",
        "[1.5, 2, 3, 4]",
    ]


def test_a_bare_list_and_a_list_of_lists_are_boxes_without_labels():
    assert read("json", "[10, 20, 30, 40]") == [(BOX, "")]
    assert read("json", "[[10, 20, 30, 40], [1.5, 2, 3, 4]]") == [(BOX, ""), (OTHER, "")]


@pytest.mark.parametrize("cut", range(len('[{"bbox_2d": [10, 20, 30, 40')))
def test_a_box_that_may_have_been_cut_is_never_guessed(cut):
    assert read("json", '[{"bbox_2d": [10, 20, 30, 40'[: cut + 1]) is None


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "null",
        "```json\n[]\n```",
        '{"bbox_2d": null, "label": "dog"}',
        '[{"bbox_2d": [], "label": "dog"}]',
        '[{"bbox_2d": [0, 0, 0, 0], "label": "dog"}]',
        '"none"',
        "None.",
        "There is no dog in this image.",
        "There are no such objects",
        "The dog is not visible.",
        "I can't find it.",
        "The image does not contain a dog",
        "No object matches the description.",
    ],
)
def test_an_answer_that_there_is_nothing_is_read_as_nothing(text):
    assert PARSERS["json"](text) == ParsedAnswer((), readable=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "dog",
        "The dog is at 10 20 30 40",
        "[10, 20, 30]",
        "[10, 20, 30, 40, 50]",
        '{"dog": true}',
        "[[[[",
        "There is no doubt that it is the one at 3",
        '{"bbox_2d": [true, false, true, false]}',
        "```json\n[",
        "<think>It may be [10, 20, 30, 40], or",
    ],
)
def test_an_answer_without_boxes_or_words_of_absence_cannot_be_read(text):
    assert not PARSERS["json"](text).readable


def test_numbers_that_no_float_can_hold_are_kept_for_the_converter_to_drop():
    view = Sizes((100, 100), (100, 100))
    for number in ("NaN", "Infinity", "1" * 5000, "1e999", "-1e300"):
        for text in (f"[{number}, 20, 30, 40]", f"{{'bbox_2d': [10, 20, 30, {number}]}}"):
            regions = PARSERS["json"](text).regions
            assert all(placed(region.numbers, CONVENTIONS["pixels"], view) is None for region in regions)


def test_halves_of_characters_in_labels_can_be_written_to_a_file():
    [(_, label)] = read("json", '{"bbox_2d": [10, 20, 30, 40], "label": "a\\ud800b"}')
    assert label.encode("utf-8") == b"a?b"


# <box>


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("<ref>dog</ref><box>(10,20),(30,40)</box>", "dog"),
        ("<|object_ref_start|>dog<|object_ref_end|><|box_start|>(10,20),(30,40)<|box_end|><|im_end|>", "dog"),
        ("<ref>dog</ref><box>[[10, 20, 30, 40]]</box>", "dog"),
        ("<box>(10, 20) (30, 40)", ""),
        ("It is at (10, 20), (30, 40).", ""),
        ("[[10, 20, 30, 40]]", ""),
        ("(1,2),(3,4) it was, no: <box>(10,20),(30,40)</box>", ""),
    ],
)
def test_a_box_is_read_between_its_tags_or_without_them(text, label):
    assert read("box_tags", text) == [(BOX, label)]


def test_every_box_has_the_label_in_front_of_it():
    text = "<ref>two dogs</ref><box>(10,20),(30,40)</box><box>(1.5,2),(3,4)</box> and <ref>cat</ref><box>[10,20,30,40]"
    assert read("box_tags", text) == [(BOX, "two dogs"), (OTHER, "two dogs"), (BOX, "cat")]
    assert read("box_tags", "<box>(10,20),(30,4") is None
    assert read("box_tags", "There is no dog.") == []


# Location tokens


def test_florence_answers_are_read_as_transformers_reads_them():
    class Words:
        all_special_tokens = ()

    reference, side = Florence2PostProcessor({"phrase_grounding": {}}, Words()), 10_000  # whole pixels hide 1e-4 of it
    bins, view, rng = CONVENTIONS["bins"], Sizes((side, side), (side, side)), random.Random(0)
    for _ in range(200):
        text = "".join(
            rng.choice(("a dog", " the man on the left", "x")) + "".join(_loc(rng) for _ in range(rng.randint(4, 13)))
            for _ in range(rng.randint(1, 4))
        )
        found = reference(text=text, image_size=(side, side), parse_tasks="phrase_grounding")["phrase_grounding"]
        wanted = [(box, one["cat_name"]) for one in found for box in one["bbox"]]
        ours = PARSERS["florence"](text).regions
        assert [region.label for region in ours] == [label for _, label in wanted]
        for region, (box, _) in zip(ours, wanted, strict=True):
            assert bins.to_pixels(region.numbers, view) == pytest.approx(box, abs=1e-4 * side)


def _loc(rng):
    return f"<loc_{rng.randrange(1000)}>"


def test_florence_finds_nothing_where_no_phrase_has_a_location():
    assert read("florence", "") == []
    assert read("florence", "a dog<loc_1><loc_2><loc_3>") is None
    assert read("florence", "<loc_1><loc_2><loc_3><loc_4>") == [((1, 2, 3, 4), "")]


def test_paligemma_rows_come_first_and_labels_behind():
    text = "<loc0001><loc0002><loc0003><loc0004> dog ; <loc0256><loc0512><loc0768><loc1023><seg001><seg012> big cat"
    assert read("paligemma", text) == [((1, 2, 3, 4), "dog"), ((256, 512, 768, 1023), "big cat")]
    assert read("paligemma", "<loc0001><loc0002><loc0003>") is None
    assert read("paligemma", "") == []
    assert read("paligemma", "a brown dog") is None


def test_kosmos_answers_are_read_as_transformers_reads_them():
    rng, cells, view = random.Random(0), CONVENTIONS["cells"], Sizes((1, 1), (1, 1))
    for _ in range(200):
        text = "<grounding> An image of" + "".join(
            rng.choice(("<phrase> a dog</phrase>", ""))
            + f"<object>{'</delimiter_of_multi_objects/>'.join(_pair(rng) for _ in range(rng.randint(1, 3)))}</object>."
            for _ in range(rng.randint(1, 4))
        )
        _, entities = clean_text_and_extract_entities_with_bboxes(text)
        wanted = [(box, "" if "patch" in name else name) for name, _, boxes in entities for box in boxes]
        ours = PARSERS["kosmos"](text).regions
        assert [region.label for region in ours] == [label for _, label in wanted]
        for region, (box, _) in zip(ours, wanted, strict=True):
            assert cells.to_pixels(region.numbers, view) == pytest.approx(box, abs=1e-9)


def _pair(rng):
    return "".join(f"<patch_index_{rng.randrange(1024):04d}>" for _ in range(2))


def test_a_kosmos_object_with_spaces_and_without_an_end_is_repaired():
    assert read("kosmos", "<object> <patch_index_0044> <patch_index_0863>") == [((44, 863), "")]
    assert read("kosmos", "<object><patch_index_0044>") is None


# All of them

PIECES = (
    *"[]{}()<>,:;\"'`-+.0123456789 \n",
    *("10", "1e9", "NaN", "null", "true", "é", "\ud800", "\x00", "```json", "```", "</think>", "<think>", "none"),
    *('"bbox_2d": [1, 2, 3, 4]', '"label": "dog"', "'label': '", 'label:"', '"label', '{"bbox_2d": [', "[1,2,3,"),
    *("<loc_12>", "<loc_1><loc_2><loc_3><loc_4>", "<loc0001>", "<loc0001><loc0002><loc0003><loc0004>", "<seg001>"),
    *("<patch_index_0044>", "<object>", "</object>", "<phrase>", "</phrase>", "</delimiter_of_multi_objects/>"),
    *("<box>", "</box>", "<ref>", "</ref>", "<|box_start|>", "(1,2),(3,4)", "(1,2),", "there is no dog"),
)


@pytest.mark.parametrize("name", PARSERS)
def test_10000_fuzzed_answers_raise_nothing_and_give_numbers(name):
    rng = random.Random(name)
    for _ in range(10_000):
        text = "".join(rng.choices(PIECES, k=rng.randint(0, 24)))
        answer = PARSERS[name](text)
        assert answer.readable or not answer.regions
        for numbers, label, (first, last) in answer.regions:
            assert len(numbers) == (2 if name == "kosmos" else 4)
            assert all(isinstance(n, float) for n in numbers)
            assert isinstance(label, str)
            assert 0 <= first < last <= len(text)


@pytest.mark.parametrize("name", PARSERS)
def test_eight_times_the_text_takes_less_than_24_times_as_long(name):
    attacks = [*PIECES, "[1,", "(1,2)", "[ ", '"label":"', "'label':'\"label\":\"", "<object><patch_index_0001>", "x"]
    worst = max(attacks, key=lambda piece: _seconds(name, piece * (20_000 // len(piece))))
    short, long = (_seconds(name, worst * (size // len(worst))) for size in (20_000, 160_000))
    assert long < 24 * short + 0.05, (worst, short, long)


def _seconds(name, text):
    """The least processor time of three."""
    times = []
    for _ in range(3):
        begun = time.process_time()
        PARSERS[name](text)
        times.append(time.process_time() - begun)
    return min(times)


def test_what_json_writes_is_what_is_read_for_500_random_lists():
    generator = torch.Generator().manual_seed(0)
    for boxes in torch.rand(500, 3, 4, generator=generator, dtype=torch.float64).tolist():
        text = json.dumps([{"bbox_2d": box, "label": f"object {i}"} for i, box in enumerate(boxes)])
        assert read("json", text) == [(tuple(box), f"object {i}") for i, box in enumerate(boxes)]
        assert read("json", text[:-1]) == read("json", text)
