"""What answers of a policy that tracks earn, by numbers worked out by hand, for each of the three sets of rewards."""

import json
import math

import numpy as np
import pytest

from trackgpt.errors import UsageError
from trackgpt.reasoners.coordinates import CONVENTIONS, Sizes
from trackgpt.reasoners.policy import LONGEST_ANSWER, Trajectories, render
from train.rewards import REWARDS, Expected, ReadAnswer, earned, motion_consistency, read_answer, reward_terms

PIXELS = Sizes((640, 480), (640, 480))
NAMES = ("reward", "tags", "format", "boxes", "motion")
STILL = 0.5 * math.exp(-1 / 1.62)
"""MCP of a box that does not move where the truth does."""


def walk(step: tuple[float, float], start: tuple[float, float], frames: int = 4) -> np.ndarray:
    """Boxes of 40 x 60 px, the first at `start`, xyxy."""
    corners = np.array(start) + np.arange(frames)[:, None] * np.array(step)
    return np.concatenate([corners, corners + (40, 60)], axis=1).astype(float)


TRUTH = np.stack([walk((10, 0), (20, 100)), walk((0, -8), (400, 300))])
"""Two objects on the reference and three frames after it."""


def asked(truth: np.ndarray = TRUTH, ids: tuple[int, ...] = (1, 2), view: Sizes = PIXELS, numbers: str = "pixels"):
    frames = tuple(range(1, truth.shape[1]))
    return Expected(frames, truth[:, 1:], truth[:, 0], view, CONVENTIONS[numbers], ids)


def said(boxes: np.ndarray, expected: Expected, ids: tuple[int, ...] = ()) -> str:
    numbers = ids or tuple(range(1, len(boxes) + 1))
    return render(Trajectories(expected.frames, numbers, boxes), expected.view, expected.convention)


def pay(rewards: str, text: str, expected: Expected) -> dict[str, float]:
    return earned(REWARDS[rewards], read_answer(text, expected), expected)


def last_of(truth: np.ndarray = TRUTH) -> Expected:
    """The paper's question: the last frame alone, motion from the true boxes of the frame before."""
    return Expected((1,), truth[:, -1:], truth[:, -2], PIXELS, CONVENTIONS["pixels"])


def listed(*boxes: list, key: str = "bbox_2d") -> str:
    return f"<think>it walks</think>\n<answer>{json.dumps([{key: box} for box in boxes])}</answer>"


# The maximum


@pytest.mark.parametrize("numbers", ["pixels", "seen_pixels", "thousandths"])
def test_the_right_answer_earns_the_maximum_in_every_family(numbers):
    expected = asked(view=Sizes((1000, 1000), (500, 250)), numbers=numbers)  # every edge falls on a whole number
    assert pay("ours", said(TRUTH[:, 1:], expected), expected) == dict.fromkeys(NAMES, 1.0)
    paper = last_of()
    assert pay("paper", listed(*TRUTH[:, -1].tolist()), paper)["reward"] == 1.0


def test_showing_the_frame_in_another_size_changes_no_reward():
    off = TRUTH[:, 1:] + 4.0
    whole, half = asked(), asked(view=Sizes((640, 480), (320, 240)), numbers="seen_pixels")
    assert pay("ours", said(off, half), half) == pay("ours", said(off, whole), whole)
    small = asked(TRUTH / 2, view=Sizes((320, 240), (320, 240)))
    scaled = pay("ours", said(off / 2, small), small)
    assert scaled == pytest.approx(pay("ours", said(off, whole), whole), abs=1e-12)


# Known values


def test_a_box_that_stays_earns_its_motion_a_fifth_of_a_still_box():
    expected = asked()
    found = pay("ours", said(np.repeat(TRUTH[:, :1], 3, axis=1), expected), expected)
    # Steps of 10 px on boxes of 40 x 60 overlap 30, 20, 10 of 50, 60, 70; steps of 8 px 52, 44, 36 of 68, 76, 84.
    overlaps = [30 / 50, 20 / 60, 10 / 70, 52 / 68, 44 / 76, 36 / 84]
    assert found["boxes"] == pytest.approx(np.mean(overlaps))
    assert found["motion"] == pytest.approx(0.2 * STILL)
    assert found["reward"] == pytest.approx((0.5 + 1 + 2.5 * np.mean(overlaps) + 0.2 * STILL) / 5)


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("", 0.0),
        ("I cannot see it move, but it may be near the left edge of the frame.", 0.0),
        ("<think></think><answer></answer>", 0.1),  # the tags
        ("<think></think><answer>[]</answer>", 0.3),  # the tags, and a list in which nothing is wrong
        ("[]", 0.0),
        ("<think></think><answer>[1, 2, 3, 4]</answer>", 0.1),
        ("<think>" + "so " * 100_000 + "</think><answer>[]</answer>", 0.0),  # more letters than are read
        ("<answer>" * 5000, 0.0),
        ("[" * 100_000, 0.0),
    ],
)
def test_an_answer_without_boxes_earns_its_form_alone(text, reward):
    assert pay("ours", text, asked())["reward"] == pytest.approx(reward)


def test_that_there_is_nothing_is_right_where_there_is_nothing():
    nothing = asked(np.zeros((0, 4, 4)), ids=())
    assert pay("ours", "<think></think>\n<answer>[]</answer>", nothing)["reward"] == 1.0
    assert pay("ours", "pick me", nothing)["reward"] == 0.0
    wrong = pay("ours", said(TRUTH[:1, 1:], nothing), nothing)
    assert (wrong["boxes"], wrong["format"]) == (0.0, 1.0)
    assert pay("paper", "<think></think><answer>[]</answer>", last_of(np.zeros((0, 4, 4))))["reward"] == 1.0


def test_more_boxes_than_objects_share_the_reward():
    paper = last_of()
    good = TRUTH[:, -1].tolist()
    assert pay("paper", listed(*good, *good), paper)["boxes"] == 0.5
    assert pay("paper", listed(*good, *good), paper)["motion"] == 0.5
    assert pay("paper", listed(good[0]), paper)["boxes"] == 0.5
    expected = asked(ids=())
    twice = said(np.concatenate([TRUTH[:, 1:]] * 2), expected)
    assert pay("ours", twice, expected)["boxes"] == 0.5
    assert pay("ours", twice, expected)["motion"] == 0.5


def test_ids_that_the_prompt_gave_must_be_kept_and_others_are_matched_by_overlap():
    swapped = TRUTH[::-1, 1:]
    assert pay("ours", said(swapped, asked()), asked())["boxes"] == 0.0
    strangers = pay("ours", said(TRUTH[:, 1:], asked(), ids=(3, 4)), asked())
    assert (strangers["boxes"], strangers["motion"], strangers["format"]) == (0.0, 0.0, 1.0)
    free = asked(ids=())
    assert pay("ours", said(swapped, free), free)["reward"] == 1.0


def test_right_boxes_under_numbers_that_the_prompt_did_not_give_earn_nothing_for_place_and_motion():
    found = pay("ours", said(TRUTH[:, 1:], asked(), ids=(8, 9)), asked())
    assert (found["boxes"], found["motion"]) == (0.0, 0.0)


def test_a_track_that_changes_its_object_half_way_loses_what_follows():
    free = asked(ids=())
    half = np.concatenate([TRUTH[:, 1:3], TRUTH[::-1, 3:]], axis=1)
    found = pay("ours", said(half, free), free)
    assert found["boxes"] == pytest.approx(2 / 3)
    assert found["motion"] < 1


def test_frames_on_which_an_object_is_hidden_want_no_box_and_no_motion():
    hidden = TRUTH.copy()
    hidden[0, 2] = np.nan  # on the second of the three frames that are asked of
    expected = asked(hidden)
    assert pay("ours", said(hidden[:, 1:], expected), expected)["reward"] == 1.0
    claimed = pay("ours", said(TRUTH[:, 1:], expected), expected)
    assert (claimed["boxes"], claimed["motion"]) == (5 / 6, 1.0)


def test_items_are_paid_for_numbers_that_mean_something():
    expected = asked()
    item = {"frame": 1, "object_id": 1, "bbox_2d": [30, 100, 70, 160]}
    wrong = [
        {"bbox_2d": ["30", 100, 70, 160]},
        {"bbox_2d": [70, 100, 30, 160]},  # corners swapped
        {"bbox_2d": [30, 100, 641, 160]},  # outside
        {"bbox_2d": [30, 100, 70]},
        {"bbox_2d": [True, 100, 70, 160]},
        {"bbox_2d": None},
        {"frame": 4},  # not asked of
        {"frame": "1"},
        {"object_id": [1]},
    ]

    def form(*items: dict) -> float:
        return pay("ours", f"<answer>{json.dumps(items)}</answer>", expected)["format"]

    assert form(item) == 1.0
    assert form(item, item) == 0.5  # the same object on the same frame
    assert [form(item, {**item, "frame": 2, **one}) for one in wrong] == [0.5] * len(wrong)
    assert pay("ours", '<answer>[{"bbox_2d": [1, 2, NaN, 4]}]</answer>', expected)["format"] == 0.0


# The paper and the released code


def test_the_papers_motion_has_its_constants():
    before, now = np.array([[0.0, 0, 40, 60]]), np.array([[10.0, 0, 50, 60]])

    def motion(dx: float, dy: float) -> float:
        return float(motion_consistency(before, before + [dx, dy, dx, dy], before, now)[0])

    assert motion(10, 0) == 1.0
    assert motion(0, 0) == pytest.approx(0.2 * STILL)  # still: a fifth
    assert motion(0.9, 0) == pytest.approx(0.2 * math.exp(-(9.1**2) / (2 * 9**2)))  # slower than a tenth
    assert motion(1.1, 0) == pytest.approx(math.exp(-(8.9**2) / (2 * 9**2)))
    assert motion(0, 10) == pytest.approx(0.5)
    assert motion(-10, 0) == 0.0
    assert motion_consistency(before, now + 99, before, before)[0] == 1.0  # a truth that rests asks for nothing
    assert motion_consistency(before, now, before, before, rests=0.01)[0] < 1e-9  # ours asks to rest, too


def test_the_paper_pays_for_iou_and_for_nearness():
    truth = np.array([[[100.0, 100, 140, 160]] * 2])
    paper = last_of(truth)

    def boxes(box: list[float]) -> float:
        return pay("paper", listed(box), paper)["boxes"]

    assert boxes([100, 100, 140, 160]) == 1.0
    assert boxes([109, 109, 149, 169]) == 0.5  # near: 9 px on average; IoU 31 * 51 / (4800 - 1581) = 0.491
    assert boxes([100, 100, 140, 205]) == 0.5  # IoU 60 / 105; 11.25 px on average
    assert boxes([100, 100, 140, 221]) == 0.0
    assert pay("paper", listed([100, 100, 140, 160], key="bbox"), paper)["format"] == 1.0
    assert pay("paper", listed([100, 100, 140]), paper)["format"] == 0.0


def test_the_released_set_pays_nothing_for_the_boxes_that_its_prompt_asks_for():
    previous, current = np.array([1471.0, 419, 74, 176]), np.array([1465.0, 420, 74, 176])
    corners = [np.concatenate([box[:2], box[:2] + box[2:]]) for box in (previous, current)]
    expected = Expected((1,), corners[1][None, None], corners[0][None], PIXELS, CONVENTIONS["pixels"])

    def total(box: list[float]) -> float:
        text = f"<think>it walks left</think>\n<answer>{json.dumps([{'bbox_2d': box}])}</answer>"
        return round(5 * pay("released", text, expected)["reward"], 2)

    assert total([1465, 420, 74, 176]) == 5.00  # as the data write it
    assert total([1465, 420, 1539, 596]) == 3.00  # as the prompt asks for it
    assert total([1471, 419, 74, 176]) == 4.02  # the box before once more


# Any string


HOSTILE = [
    listed([1e308, -1e308, 1e308, 1e308]),
    listed([math.nan] * 4),
    listed([math.inf] * 4),
    listed([[1, 2, 3, 4]]),
    listed({"x": 1}),
    listed("1234"),
    listed([]),
    listed(*[[0, 0, 640, 480]] * 300),
    "<answer>null</answer>",
    "<answer>5</answer>",
    '<answer>{"bbox_2d": [1, 2, 3, 4]}</answer>',
    '<think></think><answer>[{"frame": 1, "object_id": 9223372036854775807, "bbox_2d": [1, 2, 3, 4]}]</answer>',
    '<answer>[{"frame": 1, "object_id": -1, "bbox_2d": [1, 2, 3, 4]}, null, [], "x", 5]</answer>',
    "\0\ud800<think>",
]


@pytest.mark.parametrize("rewards", REWARDS)
def test_every_string_earns_a_number_between_0_and_1(rewards):
    resting = np.repeat(TRUTH[:, :1], 4, axis=1)
    for expected in (asked(), asked(ids=()), asked(resting), asked(np.zeros((0, 4, 4)), ids=()), last_of()):
        for text in HOSTILE:
            found = pay(rewards, text, expected)
            assert all(0 <= value <= 1 and type(value) is float for value in found.values()), (text[:60], found)


def test_boxes_that_no_parser_gives_still_earn_a_number():
    expected = asked()
    for value in (math.inf, -math.inf, 1e308, math.nan):
        answer = ReadAnswer("", Trajectories(expected.frames, (1, 2), np.full((2, 3, 4), value)))
        assert all(0 <= earned(REWARDS[name], answer, expected)["reward"] <= 1 for name in REWARDS)


def test_weights_are_changed_by_name_and_must_leave_something_to_pay_for():
    expected = asked()
    still = read_answer(said(np.repeat(TRUTH[:, :1], 3, axis=1), expected), expected)
    alone = {"tags": 0, "format": 0, "boxes": 0}
    assert earned(reward_terms("ours", alone), still, expected)["reward"] == pytest.approx(0.2 * STILL)
    with pytest.raises(UsageError, match="`speed` is none of tags, format, boxes, motion"):
        reward_terms("ours", {"speed": 1})
    with pytest.raises(UsageError, match="all are 0"):
        reward_terms("ours", {**alone, "motion": 0})
    with pytest.raises(UsageError, match="rewards `theirs`: wanted one of paper, released, ours"):
        reward_terms("theirs", {})


def test_the_longest_answer_that_is_read_is_the_parsers():
    text = "<think>" + "x" * (LONGEST_ANSWER - 40) + "</think><answer>[]</answer>"
    assert pay("ours", text, asked())["tags"] == 1.0
    assert pay("ours", text + " " * 40, asked())["tags"] == 0.0
