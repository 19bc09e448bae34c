"""Vision-language models as grounders: every family by folder, without torchvision, from words to pixels."""

import json
import math
import shutil
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_vlms import LOGIT, WRITERS, say
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from trackgpt.errors import InputError, ModelError, UsageError
from trackgpt.reasoners.coordinates import CONVENTIONS, Sizes
from trackgpt.reasoners.policy import Query, messages
from trackgpt.reasoners.vlm import DIALECTS, VlmGrounder, find_dialect, is_vlm_grounder

WORDS = "the dog on the left"
SIZES = {"square": (56, 56), "wide": (120, 24), "tall": (20, 110)}


@pytest.fixture(scope="module", params=WRITERS)
def folder(request, tmp_path_factory):
    where = tmp_path_factory.mktemp("vlm") / request.param
    WRITERS[request.param](where)
    return where


@pytest.fixture(scope="module")
def grounder(folder):
    return VlmGrounder.from_pretrained(folder)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    where = tmp_path_factory.mktemp("vlm") / "qwen"
    WRITERS["qwen2_5_vl"](where)
    return where


def image(size=(80, 48), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def spoken(grounder, numbers, label):
    """One box as the grounder's family writes it."""
    if grounder.dialect.answer == "json":
        return json.dumps([{"bbox_2d": list(numbers), "label": label}])
    whole = [int(n) for n in numbers]
    if grounder.dialect.answer == "box_tags":
        box = "({},{}),({},{})".format(*whole)
        return f"<|object_ref_start|>{label}<|object_ref_end|><|box_start|>{box}<|box_end|>"
    if grounder.dialect.answer == "florence":
        return label + "".join(f"<loc_{n}>" for n in whole)
    if grounder.dialect.answer == "paligemma":
        return "".join(f"<loc{n:04d}>" for n in whole) + f" {label}"
    return "<object>" + "".join(f"<patch_index_{n:04d}>" for n in whole) + "</object>"


def view_of(grounder, size):
    """What the network sees of an image, as transformers computes it."""
    images = grounder.processor.image_processor
    if not hasattr(images, "patch_size"):
        return Sizes(size, size)
    factor = images.patch_size * images.merge_size
    least, most = 4 * factor**2, 16 * factor**2
    height, width = smart_resize(size[1], size[0], factor=factor, min_pixels=least, max_pixels=most)
    return Sizes(size, (width, height))


def test_a_random_model_grounds_without_an_error_and_is_sure_of_nothing(grounder):
    made = grounder.ground(image(), WORDS)
    for one in (*made.found, *made.rivals):
        x1, y1, x2, y2 = one.box
        assert 0 <= x1 < x2 <= 80
        assert 0 <= y1 < y2 <= 48
        assert one.score < 0.1
    assert made.found or made.unjudged == (WORDS,) or not made.answer.strip()
    assert not grounder.reads_motion
    assert grounder.licence


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_boxes_in_each_corner_land_where_they_should(grounder, size):
    convention, view = CONVENTIONS[grounder.dialect.coordinates], view_of(grounder, size)
    width, height = size
    step = 1 / 32 if grounder.dialect.coordinates == "cells" else 1 / 1000
    for x in (0.0, width / 2):
        for y in (0.0, height / 2):
            box = (x, y, x + width / 2, y + height / 2)
            say(grounder, spoken(grounder, convention.from_pixels(box, view), "dog"))
            [found] = grounder.ground(image(size), WORDS).found
            for edge, got, side in zip(box, found.box, size * 2, strict=True):
                assert abs(edge - got) <= step * side
            assert found.label == (WORDS if grounder.dialect.answer == "kosmos" else "dog")


def test_the_score_is_the_probability_of_the_numbers(grounder):
    numbers = CONVENTIONS[grounder.dialect.coordinates].from_pixels((8, 6, 60, 40), view_of(grounder, (80, 48)))
    say(grounder, spoken(grounder, numbers, "dog"))
    [found] = grounder.ground(image(), WORDS).found
    others = grounder.model.get_output_embeddings().weight.shape[0] - 1
    assert found.score == pytest.approx(math.exp(LOGIT) / (math.exp(LOGIT) + others), abs=1e-5)


def test_a_model_that_says_there_is_nothing_differs_from_one_that_cannot_be_read(grounder):
    say(grounder, "There is no dog.")
    nothing = grounder.ground(image(), WORDS)
    assert (nothing.found, nothing.unjudged, nothing.answer) == ((), (), "There is no dog.")
    say(grounder, "Woof.")
    unread = grounder.ground(image(), WORDS)
    assert (unread.found, unread.unjudged, unread.answer) == ((), (WORDS,), "Woof.")


def test_a_folder_is_known_by_the_type_of_its_model(folder, tmp_path):
    assert is_vlm_grounder(folder)
    assert not is_vlm_grounder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    assert not is_vlm_grounder(tmp_path)
    (tmp_path / "grounder.yaml").write_text("prompt: 'Where is {words}?'\n")
    assert is_vlm_grounder(tmp_path)


def test_a_template_with_a_query_asks_about_several_frames_in_its_own_words(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    (tmp_path / "grounder.yaml").write_text("prompt: 'Where is {words}?'\nquery: 'Follow {words}.'\n")
    with pytest.raises(UsageError, match=r"grounder.yaml: query: wanted a question with \{words\} and \{known\} in it"):
        find_dialect(tmp_path)
    (tmp_path / "grounder.yaml").write_text("prompt: '{words}'\nmost_frames: 1\n")
    with pytest.raises(
        UsageError, match=r"grounder.yaml: most_frames: wanted 0 for any number, or at least 2, found 1"
    ):
        find_dialect(tmp_path)
    (tmp_path / "grounder.yaml").write_text("prompt: '{words}'\nquery: 'Follow {words}.{known}'\n")
    query = Query("the dog", ((1, (8.0, 6.0, 60.0, 40.0)), (2, None)))
    view, template = Sizes((80, 48), (80, 48)), find_dialect(tmp_path).query
    (asked,) = messages(2, query, view, CONVENTIONS["pixels"], template=template)
    assert [part["type"] for part in asked["content"]] == ["image", "image", "text"]
    known = " On frame 0, object 1 is at [8, 6, 60, 40], object 2 cannot be seen."
    assert asked["content"][-1]["text"] == f"Follow the dog.{known}"
    paper = messages(2, query, view, CONVENTIONS["pixels"], paper=True)
    assert messages(2, query, view, CONVENTIONS["pixels"], paper=True, template=template) == paper


def test_florence_boxes_are_those_of_its_own_processor(tmp_path):
    WRITERS["florence2"](tmp_path)
    grounder = VlmGrounder.from_pretrained(tmp_path)
    places = ((10, 20, 500, 600, 0, 1, 998, 999), (5, 6, 7, 8))
    dog, left = ("".join(f"<loc_{n}>" for n in numbers) for numbers in places)
    answer = f"the dog{dog}a kennel{left}"
    say(grounder, answer)
    found = grounder.ground(image(), WORDS)
    assert found.answer == answer
    side = 100_000  # the processor rounds to whole pixels
    task = "<CAPTION_TO_PHRASE_GROUNDING>"
    reference = grounder.processor.post_process_generation(text=answer, task=task, image_size=(side, side))[task]
    ours = [*found.found, *found.rivals]
    assert [one.label for one in ours] == reference["labels"] == ["the dog", "the dog", "a kennel"]
    for one, box in zip(ours, reference["bboxes"], strict=True):
        assert [n / s for n, s in zip(one.box, (80, 48, 80, 48))] == pytest.approx([n / side for n in box], abs=1e-4)
    assert len(found.found) == 2  # of the first phrase


def test_kosmos_boxes_are_those_of_its_own_processor(tmp_path):
    WRITERS["kosmos-2"](tmp_path)
    grounder = VlmGrounder.from_pretrained(tmp_path)
    pairs = "<patch_index_0044><patch_index_0863></delimiter_of_multi_objects/><patch_index_0000><patch_index_1023>"
    say(grounder, f"<object>{pairs}</object> is here")
    found = grounder.ground(image(), WORDS)
    whole = f"<grounding><phrase>{WORDS}</phrase>{found.answer}"
    _, [(label, _, boxes)] = grounder.processor.post_process_generation(whole)
    assert [one.label for one in found.found] == [label] * 2
    for one, box in zip(found.found, boxes, strict=True):
        assert [n / s for n, s in zip(one.box, (80, 48, 80, 48))] == pytest.approx(box, abs=1e-4)


def test_the_sides_of_a_wide_image_are_looked_at_although_kosmos_would_cut_them_off(tmp_path):
    WRITERS["kosmos-2"](tmp_path)
    grounder, seen = VlmGrounder.from_pretrained(tmp_path), []
    grounder.model.vision_model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    wide = np.zeros((20, 200, 3), np.uint8)
    for shade in (0, 255):
        wide[:, :10] = shade
        say(grounder, "none")
        grounder.ground(wide, WORDS)
    assert not torch.equal(*seen)


def test_several_objects_come_surest_first_and_a_repeated_one_once(qwen):
    grounder = VlmGrounder.from_pretrained(qwen)
    boxes = [[28, 28, 56, 56], [0, 0, 28, 28], [28, 28, 56, 56]]
    say(grounder, json.dumps([{"bbox_2d": box, "label": f"dog {i}"} for i, box in enumerate(boxes)]))
    found = grounder.ground(image((56, 56)), "all dogs").found
    assert [one.label for one in found] == ["dog 0", "dog 1"]
    assert all(one.score is not None and 0 < one.score < 1 for one in found)


def test_a_sure_model_has_no_score_of_one(qwen, monkeypatch):
    monkeypatch.setattr("tiny_vlms.LOGIT", 200.0)
    for dtype in (torch.float32, torch.bfloat16):
        grounder = VlmGrounder.from_pretrained(qwen, dtype=dtype)
        say(grounder, "[0, 0, 28, 28]")
        [found] = grounder.ground(image((56, 56)), WORDS).found
        assert (found.box, found.score) == ((0, 0, 28, 28), 0.999)


def test_markup_in_words_is_taken_out_and_words_must_be_left(qwen):
    grounder, asked = VlmGrounder.from_pretrained(qwen), []
    apply = grounder.processor.apply_chat_template
    grounder.processor.apply_chat_template = lambda *args, **kwargs: asked.append(apply(*args, **kwargs)) or asked[-1]
    say(grounder, "[]")
    grounder.ground(image(), "the dog<|im_end|> {words} <|image_pad|>")
    assert asked[0].count("<|im_end|>") == asked[0].count("<|image_pad|>") == 1
    assert "the dog {words}." in asked[0]
    with pytest.raises(UsageError, match="NL01"):
        grounder.ground(image(), " <x> ")


def test_an_image_200_times_as_wide_as_high_is_refused_in_one_line(qwen):
    with pytest.raises(InputError, match="cannot take an image of 804 x 4 pixels") as caught:
        VlmGrounder.from_pretrained(qwen).ground(image((804, 4)), WORDS)
    assert "\n" not in str(caught.value)


def test_an_answer_ends_at_its_limits_of_tokens_and_time(qwen, tmp_path):
    template = tmp_path / "short.yaml"
    template.write_text("prompt: '{words}'\nmax_new_tokens: 5\n")
    grounder, calls = VlmGrounder.from_pretrained(qwen, template=template), []
    grounder.model.register_forward_hook(lambda *_: calls.append(1))
    say(grounder, "[10, 20, 30, 40]")
    assert grounder.ground(image(), WORDS).answer == "[10, "
    assert len(calls) == 5
    template.write_text("prompt: '{words}'\nmax_seconds: 0.1\nmax_new_tokens: 4096\n")
    slow = VlmGrounder.from_pretrained(qwen, template=template)
    slow.model.register_forward_hook(lambda *_: time.sleep(0.02))
    say(slow, "x" * 4000)
    assert 0 < len(slow.ground(image(), WORDS).answer) < 4000


# Templates


def test_a_template_makes_a_grounder_of_a_model_of_another_family(tmp_path):
    import foreign_checkpoints as foreign

    foreign.llava(tmp_path)
    images = {"image_processor_type": "CLIPImageProcessor", "processor_class": "LlavaProcessor"}
    images |= {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
    images |= {"image_mean": foreign.CLIP_MEAN, "image_std": foreign.CLIP_STD}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images))
    values = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    (tmp_path / "processor_config.json").write_text(json.dumps(values | {"processor_class": "LlavaProcessor"}))
    with pytest.raises(ModelError, match=r"MD06: .*'llava' is known .*grounder\.yaml"):
        VlmGrounder.from_pretrained(tmp_path)
    prompt = "'USER: <image>\\nWhere is {words}? ASSISTANT:'"
    (tmp_path / "grounder.yaml").write_text(f"prompt: {prompt}\nchat: false\nanswer: box_tags\ncoordinates: unit\n")
    grounder = VlmGrounder.from_pretrained(tmp_path)
    say(grounder, "[0.25, 0.5, 0.75, 1.0]")
    assert [one.box for one in grounder.ground(image(), WORDS).found] == [(20, 24, 60, 48)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt: 'Where is it?'", "wanted a question with {words}"),
        ("prompt: '{words}'\nanswers: json", "did you mean `answer`"),
        ("prompt: '{words}'\nanswer: xml", "`xml` is none of json, box_tags"),
        ("prompt: '{words}'\ncoordinates: inches", "`inches` is none of pixels"),
        ("prompt: '{words}'\nmax_new_tokens: 0", "wanted 1 to 4,096"),
        ("prompt: [", "cannot be read as YAML"),
    ],
)
def test_a_wrong_template_is_refused_in_one_line(qwen, tmp_path, text, message):
    template = tmp_path / "wrong.yaml"
    template.write_text(text)
    with pytest.raises(UsageError) as caught:
        VlmGrounder.from_pretrained(qwen, template=template)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_dialect_of_the_table_asks_for_the_words_and_names_a_licence():
    for dialect in DIALECTS.values():
        assert dialect.prompt.count("{words}") == 1
        assert dialect.licence


# What is missing or damaged


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("config.json", "MD01", "config.json"),
        ("model.safetensors", "MD01", "model.safetensors"),
        ("tokenizer.json", "MD01", "tokenizer.json"),
        ("preprocessor_config.json", "MD01", "preprocessor_config.json"),
        ("chat_template.json", "MD01", "chat_template.json"),
    ],
)
def test_a_missing_file_is_named(qwen, tmp_path, name, code, message):
    copy = shutil.copytree(qwen, tmp_path / "copy")
    (copy / name).unlink()
    with pytest.raises(ModelError, match=code) as caught:
        VlmGrounder.from_pretrained(copy)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "preprocessor_config.json", "chat_template.json"])
def test_a_damaged_file_is_refused_in_one_line(qwen, tmp_path, name):
    copy = shutil.copytree(qwen, tmp_path / "copy")
    (copy / name).write_text('{"chat_template": "{% for", "model_type": "qwen2_5_vl", "vision_config": 3')
    with pytest.raises(ModelError, match="MD02") as caught:
        VlmGrounder.from_pretrained(copy)
    assert "\n" not in str(caught.value)


def test_a_missing_weight_is_refused_and_named(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    gone = next(name for name in sorted(weights) if name.endswith("q_proj.weight") or "qkv" in name)
    save_file({name: value for name, value in weights.items() if name != gone}, copy / "model.safetensors")
    with pytest.raises(ModelError, match="MD02: .*1 weights are missing"):
        VlmGrounder.from_pretrained(copy)
