"""QTrack's released rewards by numbers worked out by hand, at both commits."""

import json
import math

import numpy as np
import pytest

from eval.metrics.query_mot_answers import paired_by_position, parse_predicted_output
from eval.metrics.query_mot_rewards import (
    RMOT26_FIRST,
    RMOT26_HEAD,
    accuracy_reward,
    format_reward,
    mcp_reward,
    total_reward,
)
from trackgpt.errors import InputError

PREVIOUS, CURRENT = [[1471, 419, 74, 176]], [[1465, 420, 74, 176]]


def answer(*boxes: list[float], key: str = "bbox_2d") -> str:
    return f"<think>it walks left</think>\n<answer>{json.dumps([{key: box} for box in boxes])}</answer>"


@pytest.mark.parametrize(
    ("box", "total"),
    [
        ([1465, 420, 74, 176], 5.00),  # perfect, as the data write it
        ([1465, 420, 1539, 596], 3.00),  # perfect, as the prompt asks for it: x1 y1 x2 y2
        ([1502, 508, 74, 176], 2.00),  # perfect, as the reward reads it: centre
        ([1471, 419, 74, 176], 4.02),  # the previous box once more
    ],
)
def test_what_the_released_reward_pays_for(box, total):
    assert round(total_reward(answer(box), PREVIOUS, CURRENT, RMOT26_HEAD), 2) == total


def test_a_box_that_stays_is_punished_at_both_commits():
    still = [PREVIOUS[0], CURRENT[0], PREVIOUS[0]]
    assert mcp_reward(*still, RMOT26_HEAD) == pytest.approx(0.5 * math.exp(-1 / 1.28) * 0.1, abs=1e-7)
    assert mcp_reward(*still, RMOT26_FIRST) == pytest.approx(0.5 * math.exp(-1 / 1.62) * 0.2, abs=1e-7)
    assert mcp_reward(PREVIOUS[0], PREVIOUS[0], [0, 0, 1, 1], RMOT26_HEAD) == 1.0  # the truth rests


def test_the_form_of_an_answer_earns_its_tags_and_its_items():
    assert format_reward(answer([1, 2, 3, 4], [1, 2, 3]), RMOT26_HEAD) == 1.5
    assert format_reward(answer([1, 2, 3, 4]) + " ", RMOT26_HEAD) == 1.0
    assert format_reward(answer([1, 2, 3, 4], key="bbox"), RMOT26_HEAD) == 1.0
    pointed = '<think></think><answer>[{"bbox_2d": [1, 2, 3, 4], "point_2d": [2, 3]}]</answer>'
    assert (format_reward(pointed, RMOT26_HEAD), format_reward(pointed, RMOT26_FIRST)) == (2.0, 3.0)


def test_accuracy_is_shared_out_over_the_larger_number_of_objects():
    a, b = [0, 0, 40, 40], [200, 200, 40, 40]
    assert accuracy_reward(answer(b, a), [a, b], RMOT26_HEAD) == 2.0
    assert accuracy_reward(answer(a), [a, b], RMOT26_HEAD) == accuracy_reward(answer(a, b), [a], RMOT26_HEAD) == 1.0
    # Half the height: IoU is 0.5 and not above it, the four numbers differ by 5 on average.
    assert accuracy_reward(answer([0, 0, 40, 20]), [a], RMOT26_HEAD) == 1.0
    assert accuracy_reward(answer(a, key="bbox"), [a], RMOT26_HEAD) == 2.0


def test_the_first_commit_rewards_corners_and_points():
    box, point = [100, 100, 139, 139], [120, 120]
    said = f'<answer>[{{"bbox_2d": {box}, "point_2d": [120, 150]}}]</answer>'
    assert accuracy_reward(said, [box], RMOT26_FIRST, [point]) == 2.0  # 30 px away, and outside the box
    assert accuracy_reward(said.replace("150", "130"), [box], RMOT26_FIRST, [point]) == 3.0
    assert accuracy_reward(said, [box], RMOT26_FIRST) == accuracy_reward(answer(box), [box], RMOT26_FIRST, [point]) == 0


BROKEN = [
    "",
    "no tags",
    "<answer>",
    "</answer><answer>",
    "<answer></answer>",
    "<answer>[]</answer>",
    "<answer>{}</answer>",
    "<answer>5</answer>",
    "<answer>null</answer>",
    '<answer>"bbox_2d"</answer>',
    '<answer>["bbox_2d", 5, null]</answer>',
    "<answer>" + "[" * 100_000 + "</answer>",
    answer([]),
    answer([1]),
    answer([1, 2, 3]),
    answer([1, 2, 3, 4, 5]),
    answer(["a", "b", "c", "d"]),
    answer([math.nan] * 4),
    answer([math.inf] * 4),
    answer([1e308, -1e308, 1e308, 1e308]),
    answer([[1, 2, 3, 4]]),
    answer([1, 2, 3, 4], [1, 2]),
    answer({"x": 1}),
    answer(key="bbox_2d"),
]


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_answer_raises_nothing_and_earns_no_more_than_a_good_one(text):
    for convention, most in ((RMOT26_HEAD, 5), (RMOT26_FIRST, 7)):
        assert 0 <= total_reward(text, PREVIOUS, CURRENT, convention, [[1500, 500]]) <= most
    assert paired_by_position(parse_predicted_output(text), 2).shape == (2, 4)


def test_without_truth_nothing_is_earned_but_the_form():
    nothing = np.zeros((0, 4))
    assert total_reward(answer([1, 2, 3, 4]), nothing, nothing, RMOT26_HEAD) == 2.0


def test_a_reward_of_motion_needs_boxes():
    with pytest.raises(InputError, match="mcp_reward: predicted is .* wanted four finite numbers"):
        mcp_reward([0, 0, 1, 1], [1, 1, 1, 1], [math.nan, 0, 1, 1], RMOT26_HEAD)
