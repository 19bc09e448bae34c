"""The conventions of RMOT26 by numbers worked out by hand: motion, overlap, position, and what is read."""

import math

import numpy as np
import pytest

from eval.metrics.multi_object import MotTruth, Tracked, sequence_scores
from eval.metrics.query_mot import (
    box_iou,
    cle,
    clip_metrics,
    drift_rate_error,
    mcp,
    mcp_history,
    mota,
    mota_08,
    motion_recall,
    motp_08,
    motp_all,
    motp_clear,
    nde,
    robustness,
    static_box_baseline,
    velocity_error,
)
from eval.metrics.query_mot_answers import paired_by_position, parse_predicted_output
from trackgpt.errors import InputError, UsageError

FROZEN = 0.5 * math.exp(-1 / 1.62)


def walk(*steps: tuple[float, float], start: tuple[float, float] = (400, 300)) -> np.ndarray:
    """Boxes of 60 x 120 px, the first at `start`, each next one moved by a step."""
    corners = np.cumsum([start, *steps], axis=0)
    return np.hstack([corners, np.tile([60.0, 120.0], (len(corners), 1))])


RIGHT = walk(*[(7, 0)] * 5)


# --- motion ---


def test_a_frozen_box_scores_more_than_a_quarter():
    frozen = np.tile(RIGHT[0], (6, 1))
    assert mcp(RIGHT, frozen) == pytest.approx(FROZEN, abs=1e-15)
    assert round(FROZEN, 4) == 0.2697
    assert static_box_baseline(RIGHT) == mcp(RIGHT, frozen)


def test_the_same_motion_scores_one_wherever_it_happens():
    assert mcp(RIGHT, RIGHT) == 1.0
    assert mcp(RIGHT, RIGHT + [500, -90, 3, 3]) == 1.0


def test_motion_is_judged_by_direction_and_by_speed():
    assert mcp(RIGHT, walk(*[(-7, 0)] * 5)) == 0.0
    assert mcp(RIGHT, walk(*[(0, 7)] * 5)) == pytest.approx(0.5, abs=1e-15)
    assert mcp(RIGHT, walk(*[(14, 0)] * 5)) == pytest.approx(math.exp(-1 / 1.62), abs=1e-15)
    assert mcp(RIGHT, walk(*[(14, 0)] * 5), alpha=0.5) == pytest.approx(math.exp(-2), abs=1e-15)


def test_frames_whose_truth_rests_count_as_one_or_not_at_all():
    truth = walk((7, 0), (0, 0))
    frozen = np.tile(truth[0], (3, 1))
    assert mcp(truth, frozen) == pytest.approx((FROZEN + 1) / 2, abs=1e-15)
    assert mcp(truth, frozen, static="exclude") == pytest.approx(FROZEN, abs=1e-15)
    resting = np.tile(truth[0], (4, 1))
    assert mcp(resting, walk(*[(50, 0)] * 3)) == 1.0
    assert np.isnan(mcp(resting, resting, static="exclude"))
    assert static_box_baseline(resting) == 1.0


def test_the_metric_follows_the_centre():
    still = np.tile(RIGHT[0], (2, 1))
    grows = still.copy()
    grows[1, 2] += 14  # the corner stays, the centre moves by 7
    assert mcp(RIGHT[:2], grows) == 1.0


def test_a_missing_box_lies_in_the_corner_of_the_image():
    truth = walk((3, 4))
    assert mcp(truth, [truth[0], None]) < 1e-100  # it jumps there from (430, 360)
    assert mcp(truth, [truth[0], None]) == mcp(truth, [truth[0], [0, 0, 0, 0]]) == mcp(truth, [truth[0], [np.nan] * 4])


def test_motion_needs_two_frames():
    assert np.isnan(
        [mcp(RIGHT[:1], RIGHT[:1]), static_box_baseline(RIGHT[:1]), mcp_history(RIGHT[:1], RIGHT[:1])]
    ).all()


def test_the_deleted_code_skips_resting_frames_and_gives_zero_if_all_rest():
    truth = walk((7, 0), (0, 0))
    assert mcp_history(truth, np.tile(truth[0], (3, 1))) == pytest.approx(FROZEN, abs=1e-8)
    assert mcp_history(RIGHT, RIGHT) == pytest.approx(1, abs=1e-7)
    assert mcp_history(RIGHT, RIGHT) < 1  # 1e-6 in the denominator of the cosine
    resting = np.tile(truth[0], (3, 1))
    assert mcp_history(resting, resting) == 0.0


def test_velocity_error_and_motion_recall():
    assert velocity_error(RIGHT, walk(*[(4, 4)] * 5)) == pytest.approx(5, abs=1e-12)  # (3, 4) too little
    assert motion_recall(walk((7, 0), (7, 0), (0, 0)), walk((0, 7), (0, 1), (9, 9))) == 0.5  # 1 px is not yet motion
    assert motion_recall(np.tile(RIGHT[0], (3, 1)), RIGHT[:3]) == 1.0
    assert motion_recall(RIGHT[:1], RIGHT[:1]) == velocity_error(RIGHT[:1], RIGHT[:1]) == 0.0


# --- overlap ---

TRUTH = np.array([[0.0, 0, 100, 100], [0, 0, 100, 100], [0, 0, 100, 100]])
MIXED = [[0, 0, 100, 100], [0, 0, 100, 60], None]  # IoU 1, 0.6, nothing


def test_each_motp_has_its_own_name_and_value():
    assert motp_all(TRUTH, MIXED) == pytest.approx((1 + 0.6 + 0) / 3, abs=1e-9)
    assert motp_clear(TRUTH, MIXED) == pytest.approx((1 + 0.6) / 2, abs=1e-9)
    assert motp_08(TRUTH, MIXED) == 1.0
    nothing = [None, None, None]
    assert motp_all(TRUTH, nothing) == motp_clear(TRUTH, nothing) == motp_08(TRUTH, nothing) == 0.0


def test_the_deleted_mota_counts_a_wrong_box_twice_and_a_missing_one_once():
    assert mota(TRUTH, MIXED) == 2 / 3  # 2 found at IoU 0.5, none false
    assert mota_08(TRUTH, MIXED) == 0.0  # 1 - (2 missed + 1 false) / 3
    assert mota(TRUTH, TRUTH) == mota_08(TRUTH, TRUTH) == 1.0
    away = TRUTH + [500, 0, 0, 0]
    assert mota(TRUTH, away) == mota_08(TRUTH, away) == -1.0


def test_robustness_drift_and_missing_frames_sum_to_one():
    predicted = [[90, 90, 50, 50], [100, 0, 10, 10], None]  # a corner, an edge, nothing
    assert robustness(TRUTH, predicted) == drift_rate_error(TRUTH, predicted) == 1 / 3


def test_the_released_iou_adds_a_millionth_to_the_union():
    assert box_iou([0, 0, 10, 10], [0, 0, 10, 10]) == 100 / (100 + 1e-6)
    assert box_iou([0, 0, 10, 10], [[0, 0, 10, 5], [10, 0, 5, 5]]).tolist() == [50 / (100 + 1e-6), 0]
    assert box_iou([0, 0, 0, 0], [0, 0, 0, 0]) == 0


def test_one_target_in_a_clip_scores_as_in_trackeval():
    pytest.importorskip("trackeval", reason="trackeval is not installed (constraints.txt says how)")
    predicted = RIGHT + [[0, 0, 0, 0], [9, 9, 0, 0], [30, 70, 0, 0], [0, 0, 9, -9], [0, 0, 0, 0], [500, 0, 0, 0]]
    found = sequence_scores(MotTruth([[1]] * 6, RIGHT[:, None]), Tracked([[1]] * 6, predicted[:, None]))
    assert mota(RIGHT, predicted) == found.clear["MOTA"]
    assert motp_clear(RIGHT, predicted) == pytest.approx(found.clear["MOTP"], abs=1e-9)


# --- position ---


def test_centre_errors_of_a_three_four_five_triangle():
    truth, predicted = [[0, 0, 6, 8]] * 2, [[3, 4, 6, 8], [0, 0, 6, 8]]  # 5 px off, then right
    assert cle(truth, predicted) == 2.5
    assert nde(truth, predicted) == 0.25  # over the diagonal, 10
    assert nde(truth, predicted, "sqrt_area") == pytest.approx(2.5 / math.sqrt(48), abs=1e-15)
    assert nde(truth, predicted, "image_diagonal", (30, 40)) == 0.05
    assert cle([[0, 0, 6, 8]], [None]) == 5.0  # the centre (3, 4) from the corner of the image


def test_a_length_that_is_not_there_cannot_divide():
    with pytest.raises(InputError, match=r"truth, frame 0: a box of \[0.0, 0.0\], wanted w and h above 0"):
        nde([[5, 5, 0, 0]], [[0, 0, 1, 1]])
    with pytest.raises(UsageError, match="wanted 'box_diagonal', 'sqrt_area', or 'image_diagonal' with width"):
        nde(TRUTH, TRUTH, "image_diagonal")


# --- the clip ---


def test_no_mcp_without_the_static_box_beside_it():
    found = clip_metrics(RIGHT, RIGHT, (1280, 720))
    assert (found["MCP"], found["MCP_static_box"]) == (1.0, pytest.approx(FROZEN, abs=1e-15))
    assert found["IoU"] == found["MOTP_all"] == pytest.approx(1, abs=1e-9)
    assert {"MOTP_0.8", "MOTP_clear", "MOTA", "CLE", "NDE", "NDE_sqrtarea", "NDE_imgdiag"} <= set(found)
    assert "NDE_imgdiag" not in clip_metrics(RIGHT, RIGHT)


def test_a_clip_without_frames_has_no_numbers_and_no_warning():
    found = clip_metrics([], [], (1280, 720))
    assert all(np.isnan(found[name]) for name in ("MCP", "MOTP_all", "MOTP_clear", "MOTP_0.8", "MOTA", "CLE", "NDE"))


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        (TRUTH, TRUTH[:2], "truth has 3 frames and the prediction 2"),
        (TRUTH[:, :3], TRUTH[:, :3], r"truth: the shape is \(3, 3\), wanted \(frames, 4\)"),
        ([None], [None], "truth, frame 0: .* wanted a box"),
        (TRUTH, [[1, 2, np.nan, 4]] * 3, "predicted, frame 0: .* wanted four finite numbers, or None"),
        (TRUTH, ["abcd"] * 3, "predicted: .* wanted numbers"),
        (TRUTH, 5, "predicted: .* wanted numbers"),
    ],
)
def test_boxes_that_do_not_fit_are_named(truth, predicted, message):
    with pytest.raises(InputError, match=message):
        clip_metrics(truth, predicted)


def test_an_unknown_convention_is_refused():
    with pytest.raises(UsageError, match="static is 'zero', wanted 'one' or 'exclude'"):
        mcp(RIGHT, RIGHT, static="zero")


# --- the evaluator's reading ---


def test_an_answer_is_read_as_json_or_piece_by_piece():
    assert parse_predicted_output('[{"frame": 1, "bbox": [1, 2, 3, 4]}, {"frame": 2, "bbox_2d": [5, 6, 7, 8]}]') == [
        (1, [1, 2, 3, 4]),
        (2, [5, 6, 7, 8]),
    ]
    assert parse_predicted_output('I see {"frame": 3, "bbox": [1, 2, 3, 4.5]} there') == [(3, [1.0, 2.0, 3.0, 4.5])]
    assert parse_predicted_output('<answer>{"frame": 3, "bbox": [1, 2, left, 4]}</answer>') == []
    assert parse_predicted_output('[{"bbox": [1, 2, 3, 4]}]') == parse_predicted_output("") == []


def test_boxes_go_to_frames_by_position_whatever_their_number_says():
    found = paired_by_position([(9, [1, 2, 3, 4]), (1, ["5", 6, 7, 8]), (2, [1, 2, 3]), (3, "none")], 5)
    assert found[:2].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert np.isnan(found[2:]).all()
    assert paired_by_position([(0, [1, 2, 3, 4])] * 3, 1).tolist() == [[1, 2, 3, 4]]
