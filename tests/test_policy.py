"""Questions to a policy and its answers as text: what is asked, what is read, what is repaired, what is no answer."""

import json
import random
import time

import numpy as np
import pytest

from trackgpt.reasoners import policy
from trackgpt.reasoners.coordinates import CONVENTIONS, Sizes
from trackgpt.reasoners.policy import PointTrack, Query, Trajectories, parse, render

PIXELS, QWEN3, QWEN25 = (CONVENTIONS[name] for name in ("pixels", "thousandths", "seen_pixels"))
VIEW = Sizes((200, 100), (56, 28))
BOX = (10.0, 20.0, 30.0, 40.0)
SPEAKING = ("pixels", "seen_pixels", "unit", "thousandths", "bins", "rows_first_1024")
ONE = '{"frame": 1, "object_id": 1, "bbox_2d": [10, 20, 30, 40]}'


def read(text, frames=(1, 2)):
    """Boxes by frame and object, and how they were read, of an answer in pixels."""
    found = parse(text, frames, VIEW, PIXELS)
    assert found.frames == tuple(frames)
    return {frame: found.at(frame) for frame in frames if found.at(frame)}, found.form


def drawn(seed, frames=(1, 2, 3), objects=4):
    """Random boxes of several objects, some of them not seen on some frames."""
    chance = random.Random(seed)
    boxes = {}
    for number in sorted(chance.sample(range(1, 10), objects)):
        for frame in frames:
            if chance.random() < 0.7:
                x1, y1 = chance.uniform(0, 150), chance.uniform(0, 70)
                box = (x1, y1, x1 + chance.uniform(8, 50), y1 + chance.uniform(8, 30))
                boxes.setdefault(number, {})[frame] = box
    return Trajectories.of(frames, boxes)


# What is written is read


@pytest.mark.parametrize("name", SPEAKING)
def test_what_is_written_is_read_again_to_the_bit(name):
    convention = CONVENTIONS[name]
    for seed in range(50):
        nearest = parse(render(drawn(seed), VIEW, convention), (1, 2, 3), VIEW, convention)
        again = parse(render(nearest, VIEW, convention), (1, 2, 3), VIEW, convention)
        assert (again.form, again.ids) == ("strict", nearest.ids)
        np.testing.assert_array_equal(again.boxes, nearest.boxes)


@pytest.mark.parametrize("name", SPEAKING)
def test_a_written_box_is_within_a_step_of_the_one_that_was_meant(name):
    convention, wanted = CONVENTIONS[name], drawn(0)
    found = parse(render(wanted, VIEW, convention), (1, 2, 3), VIEW, convention)
    assert found.ids == wanted.ids
    step = {"pixels": 0.5, "seen_pixels": 0.5 * 200 / 56}.get(name, 0.201)
    assert np.nanmax(np.abs(found.boxes - wanted.boxes)) <= step + 1e-9


def test_a_box_that_rounding_would_empty_is_one_step_wide():
    thin = Trajectories.of((1,), {1: {1: (199.9, 10.0, 200.0, 10.01)}})
    assert parse(render(thin, VIEW, QWEN3), (1,), VIEW, QWEN3).at(1)[1] == pytest.approx((199.8, 9.9, 200, 10.0))


@pytest.mark.parametrize("scale", [1, 2, 7])
def test_resizing_the_frame_changes_no_box(scale):
    """Boxes of a frame that is twice as large are twice as large, whatever copy of it the model saw."""
    wanted = drawn(3)
    large = Trajectories(wanted.frames, wanted.ids, wanted.boxes * scale)
    view = Sizes((200 * scale, 100 * scale), VIEW.seen)
    for convention in (QWEN25, QWEN3):
        small = parse(render(wanted, VIEW, convention), (1, 2, 3), VIEW, convention)
        assert render(large, view, convention) == render(wanted, VIEW, convention)
        np.testing.assert_allclose(
            parse(render(large, view, convention), (1, 2, 3), view, convention).boxes, small.boxes * scale
        )
    for seen in ((112, 56), (1008, 504)):  # of Qwen2.5-VL, whose numbers are pixels of the copy
        other = Sizes(VIEW.size, seen)
        found = parse(render(wanted, other, QWEN25), (1, 2, 3), other, QWEN25)
        assert np.nanmax(np.abs(found.boxes - wanted.boxes)) <= 0.5 * 200 / seen[0] + 1e-9


def test_the_papers_answer_holds_the_last_frame_and_numbers_objects_by_their_order():
    text = render(drawn(1, objects=3), VIEW, PIXELS, paper=True, thought="They <answer>move</answer> left.")
    assert policy.sections(text).tagged
    assert policy.sections(text).thought == "They move left."
    entries = json.loads(policy.sections(text).answer)
    assert {tuple(each) for each in entries} == {("bbox_2d",)}
    found = parse(text, (3,), VIEW, PIXELS)
    assert (found.form, found.ids) == ("strict", tuple(range(1, len(entries) + 1)))
    wanted = list(drawn(1, objects=3).at(3).values())
    np.testing.assert_allclose(found.boxes[:, 0], wanted, atol=0.5)


# What models write


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (f"[{ONE}]", "strict"),
        (f"<think>It is red.</think> <answer>[{ONE}]</answer>", "strict"),
        (f"[{ONE}, {ONE.replace('1,', '2,', 1).replace('[10, 20, 30, 40]', 'null')}]", "strict"),
        (f"```json\n[{ONE}]\n```", "repaired"),
        (f"The object: {ONE}", "repaired"),
        (f"[{ONE}, {ONE}]", "repaired"),  # twice
        (f"[{ONE}, {ONE.replace('20', '60')}]", "repaired"),  # the second one has its corners swapped
        (f"[{ONE}, " + '{"frame": 9, "object_id": 1, "bbox_2d": [1, 2, 3, 4]}]', "repaired"),
        (f"[{ONE}, " + '{"frame": 2, "object_id": 1, "bbox_2d": [1, 2, 3', "repaired"),  # cut off
        (f"<answer>[{ONE}", "repaired"),
        (ONE.replace('"', "'"), "repaired"),
        ("{frame: 1, object_id: 1, bbox: (10, 20, 30, 40)}", "repaired"),
        ('{"frame": "1", "track_id": "1", "box": ["10", "20", "30", "40"]}', "repaired"),
        ('{"frame": 1, "objects": [{"object_id": 1, "bbox_2d": [10, 20, 30, 40]}]}', "repaired"),
        ('{"object_1": {"trajectory": [{"bbox": [10, 20, 30, 40], "frame": 1}]}}', "repaired"),
        ('[{"frame": 1, "bbox_2d": [10, 20, 30, 40]}]', "strict"),  # the only object of its frame
    ],
)
def test_one_object_on_one_frame_is_read_however_it_is_written(text, form):
    assert read(text) == ({1: {1: BOX}}, form)


def test_entries_without_frames_are_in_order_where_there_are_as_many_as_frames():
    boxes = '[{"bbox_2d": [10, 20, 30, 40]}, {"bbox_2d": [11, 20, 30, 40]}]'
    assert read(boxes) == ({1: {1: BOX}, 2: {1: (11.0, 20.0, 30.0, 40.0)}}, "strict")
    assert read(boxes, frames=(5,)) == ({5: {1: BOX, 2: (11.0, 20.0, 30.0, 40.0)}}, "strict")
    assert read(boxes, frames=(1, 2, 3)) == ({}, "unreadable")


def test_a_box_stands_where_its_span_says():
    text = f"<think>[1, 2, 3, 4]</think><answer>[{ONE}]</answer>"
    found = parse(text, (1, 2), VIEW, PIXELS)
    assert text[slice(*found.spans[0, 0])] == "[10, 20, 30, 40]"
    assert found.spans[0, 1].tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("[]", "strict"),
        ("<think>Nobody is there.</think><answer>[]</answer>", "strict"),
        ('[{"frame": 1, "object_id": 1, "bbox_2d": null}]', "strict"),
        ("There is no such object.", "repaired"),
        ("{}", "repaired"),
        ("", "unreadable"),
        ("I will think about it.", "unreadable"),
        (f"<think>[{ONE}]", "unreadable"),  # a thought that was cut off
        ('[{"frame": 1, "object_id": 1, "bbox_2d": [1, 2, 3]}]', "unreadable"),
        ('[{"frame": 1, "object_id": 1, "bbox_2d": [NaN, 1, 2, 3]}]', "unreadable"),
        ('[{"frame": 1, "object_id": 1, "bbox_2d": [1e999, 1, 2, 3]}]', "unreadable"),
        ('[{"frame": 1, "object_id": 1, "bbox_2d": [0, 0, 0, 0]}]', "unreadable"),
        ('[{"frame": 1, "object_id": 1, "bbox_2d": [1000, 1000, 2000, 2000]}]', "unreadable"),
        ("\x00\ud800{[(" * 100, "unreadable"),
        (f"[{ONE}]" + " " * policy.LONGEST_ANSWER, "unreadable"),
    ],
)
def test_answers_without_a_box_say_nothing_or_cannot_be_read(text, form):
    assert read(text) == ({}, form)


def test_an_answer_that_repeats_itself_to_its_last_token_has_its_first_boxes():
    runaway = "[" + ", ".join([ONE] * 1500)
    assert read(runaway) == ({1: {1: BOX}}, "repaired")
    many = [{"frame": 1, "object_id": k, "bbox_2d": [10, 20, 30, 40]} for k in range(1, 1000)]
    assert len(parse(json.dumps(many), (1,), VIEW, PIXELS).ids) == policy.MOST_OBJECTS


def test_the_reference_box_on_every_frame_is_read_as_it_stands():
    static = Trajectories.of((1, 2), {1: {1: BOX, 2: BOX}})
    assert read(render(static, VIEW, PIXELS)) == ({1: {1: BOX}, 2: {1: BOX}}, "strict")


@pytest.mark.parametrize(
    "piece",
    [
        "{",
        '{"frame": 1, ',
        "[1, 2, 3, 4],",
        '"object_id": 1, ',
        "<think>",
        "<answer>",
        "[",
        "object_1: ",
        "frame",
        "(",
        "<tracks coords=",
    ],
)
def test_hostile_answers_take_time_in_proportion_to_their_length(piece):
    began = time.process_time()
    text = piece * (policy.LONGEST_ANSWER // len(piece))
    parse(text, (1, 2, 3), VIEW, PIXELS)
    policy.parse_tracks(text, (200, 100))
    assert time.process_time() - began < 2


def test_what_counts_as_tagged_is_one_thought_and_one_answer_and_nothing_else():
    assert policy.sections("<think>a</think>\n<answer>b</answer>").tagged
    for wrong in (
        "<think>a</think><answer>b</answer>.",
        "<answer>b</answer><think>a</think>",
        "<think>a</think> so <answer>b</answer>",
        "<think><think>a</think><answer>b</answer>",
        "<answer>b</answer>",
        "",
    ):
        assert not policy.sections(wrong).tagged


# What is asked


def asked(query, count=3, paper=False):
    (message,) = policy.messages(count, query, VIEW, PIXELS, paper)
    images = [part["type"] for part in message["content"]].count("image")
    return images, message["content"][-1]["text"]


def test_a_first_question_is_about_all_frames_and_a_later_one_says_where_objects_are_on_the_reference():
    first, later = Query("the red ones"), Query("the red ones", ((1, BOX), (4, None)))
    assert policy.asked_frames(3, first) == (0, 1, 2)
    assert policy.asked_frames(3, later) == (1, 2)
    assert policy.asked_frames(3, Query("x", ((1, None),))) == (0, 1, 2)
    assert policy.asked_frames(1, later) == (0,)
    images, words = asked(later)
    assert images == 3
    assert 'Follow "the red ones". On frame 0, object 1 is at [10, 20, 30, 40], object 4 cannot be seen.' in words
    assert "on each of the frames 1 to 2, " in words
    assert "the numbers from 5 on" in words
    assert "on frame 0, where" in asked(first, 1)[1]


def test_known_boxes_are_told_in_the_numbers_that_the_model_writes():
    query = Query("it", ((1, (100.0, 50.0, 200.0, 100.0)),))
    assert "[28, 14, 56, 28]" in policy.question(2, query, VIEW, QWEN25)
    assert "[500, 500, 1000, 1000]" in policy.question(2, query, VIEW, QWEN3)


def test_the_papers_question_has_two_images_no_initial_box_and_asks_for_the_last_frame():
    images, words = asked(Query("the red ones", ((1, BOX),)), 2, paper=True)
    assert images == 2
    assert '"the red ones"' in words
    assert "[10, 20, 30, 40]" not in words
    assert policy.asked_frames(2, Query("x", ((1, BOX),)), paper=True) == (1,)
    example = words[words.rindex("<think>") :]
    assert len(parse(example, (1,), Sizes((800, 800), (800, 800)), PIXELS).ids) == 2


# Molmo2


def test_tracks_of_points_are_read_and_written_as_molmo2_does():
    text = '<tracks coords="0.0 1 635 522;0.5 1 606 490 2 511 124;1.0 2 515 164;1.5 2 520 008">the dogs</tracks>'
    found = policy.parse_tracks(text, (2000, 1000))
    assert found == (
        PointTrack(1, (0.0, 0.5), ((1270.0, 522.0), (1212.0, 490.0))),
        PointTrack(2, (0.5, 1.0, 1.5), ((1022.0, 124.0), (1030.0, 164.0), (1040.0, 8.0))),
    )
    assert policy.render_tracks(found, (2000, 1000), "the  <dogs>") == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the dog",
        '<tracks coords="">',
        '<tracks coords="0.0 1 2000 5">',
        '<tracks coords="0.0 1 5">',
        '<tracks coords="a 1 5 5">',
    ],
)
def test_no_tracks_are_read_where_there_are_none(text):
    assert policy.parse_tracks(text, (100, 100)) == ()


def test_the_order_of_points_is_that_of_time_and_one_object_is_at_one_place():
    text = '<tracks coords="1.0 1 500 500;0.0 1 100 100;0.0 1 900 900">it</tracks>'
    assert policy.parse_tracks(text, (1000, 1000)) == (PointTrack(1, (0.0, 1.0), ((100.0, 100.0), (500.0, 500.0))),)
