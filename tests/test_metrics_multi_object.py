"""HOTA, CLEAR and Identity on scenes small enough to be scored by hand."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eval.metrics.multi_object import (
    COMBINED,
    MotTruth,
    MultiObjectScores,
    Tracked,
    combined_scores,
    sequence_scores,
    tracker_scores,
)
from trackgpt.errors import InputError, UsageError

pytest.importorskip("trackeval", reason="trackeval is not installed (constraints.txt says how)")

BOX = [0, 0, 10, 10]
FAR = [100, 0, 10, 10]


def one_object(frames: int, box: list[float] = BOX, **more) -> MotTruth:
    return MotTruth([[1]] * frames, [[box]] * frames, **more)


def scores(truth: MotTruth, ids: list, boxes: list, **options) -> MultiObjectScores:
    return sequence_scores(truth, Tracked(ids, boxes), **options)


# --- what the numbers mean ---


def test_a_perfect_tracker_reaches_one_whatever_its_ids_are_called():
    truth = MotTruth([[1, 2]] * 3, [[BOX, FAR]] * 3)
    found = scores(truth, [[-7, 10**12]] * 3, [[BOX, FAR]] * 3)
    assert found.summary() == {
        "HOTA": 1.0,
        "DetA": 1.0,
        "AssA": 1.0,
        "LocA": 1.0,
        "MOTA": 1.0,
        "MOTP": 1.0,
        "IDSW": 0.0,
        "IDF1": 1.0,
    }
    assert found.hota["HOTA"].shape == (19,)
    assert found.count == {"Dets": 6, "GT_Dets": 6, "IDs": 2, "GT_IDs": 2, "Frames": 3}


def test_one_identity_switch_in_the_middle_costs_a_quarter_of_mota_and_half_of_idf1():
    found = scores(one_object(4), [[5], [5], [6], [6]], [[BOX]] * 4)
    assert found.clear["IDSW"] == 1
    assert found.clear["MOTA"] == 3 / 4  # (4 found - 0 false - 1 switch) / 4
    assert found.identity["IDF1"] == 2 / 4  # 2 frames under the better id, 2 missed and 2 false under the other
    # Every box is found, and each is linked to 2 of the 4 frames of its object: AssA = 2 / (2 + 2).
    assert found.hota["DetA"].tolist() == [1.0] * 19
    assert found.hota["AssA"].tolist() == [0.5] * 19
    assert found.hota["HOTA"].tolist() == [np.sqrt(0.5)] * 19


def test_a_switch_across_a_gap_counts_against_the_last_id_ever_matched():
    found = scores(one_object(3), [[5], [], [6]], [[BOX], [], [BOX]])
    assert (found.clear["IDSW"], found.clear["CLR_FN"], found.clear["MOTA"]) == (1, 1, 1 / 3)


def test_an_iou_of_exactly_one_half_is_a_match():
    found = scores(one_object(1), [[1]], [[[0, 0, 10, 5]]])
    assert (found.clear["CLR_TP"], found.clear["MOTP"], found.identity["IDTP"]) == (1, 0.5, 1)
    assert found.hota["HOTA_TP"].tolist() == [1.0] * 10 + [0.0] * 9  # thresholds 0.05 to 0.50
    less = scores(one_object(1), [[1]], [[[0, 0, 10, 4.99]]])
    assert (less.clear["CLR_TP"], less.clear["MOTA"], less.identity["IDTP"]) == (0, -1.0, 0)


def test_boxes_are_left_top_width_height_without_plus_one():
    found = scores(one_object(1, [10, 20, 4, 2]), [[1]], [[[12, 20, 4, 2]]])  # 2 x 2 of 2 * 8 - 4 pixels
    assert found.hota["LocA"][0] == pytest.approx(1 / 3, abs=1e-15)


def test_a_box_without_area_matches_nothing():
    found = scores(one_object(1, [0, 0, 0, 10]), [[1]], [[[0, 0, 0, 10]]])
    assert (found.clear["CLR_TP"], found.clear["CLR_FN"], found.clear["CLR_FP"]) == (0, 1, 1)


def test_a_tracker_that_finds_nothing_has_a_mota_of_zero():
    found = scores(one_object(3), [[], [], []], [[], [], []])
    assert (found.clear["MOTA"], found.clear["CLR_FN"], found.clear["CLR_Frames"]) == (0, 3, 0)
    assert found.summary()["HOTA"] == 0
    assert found.summary()["LocA"] == 1


def test_a_sequence_without_truth_counts_false_positives_alone():
    found = scores(MotTruth([[], []], [[], []]), [[1], [1]], [[BOX], [BOX]])
    assert (found.clear["CLR_FP"], found.identity["IDFP"], found.summary()["HOTA"]) == (2, 2, 0)
    assert scores(MotTruth([], []), [], []).count["Frames"] == 0


# --- preprocessing ---


def crossing(label: int) -> MotTruth:
    """A pedestrian, and beside it something of another class that is not to be scored."""
    return MotTruth([[1, 2]], [[BOX, FAR]], classes=[[1, label]], marks=[[1, 0]])


def test_a_detection_on_a_distractor_is_forgiven_only_with_preprocessing():
    for label in (2, 7, 8, 12):
        forgiven = scores(crossing(label), [[1, 2]], [[BOX, FAR]])
        assert (forgiven.count["Dets"], forgiven.clear["CLR_FP"], forgiven.clear["MOTA"]) == (1, 0, 1.0)
        counted = scores(crossing(label), [[1, 2]], [[BOX, FAR]], preprocess=False)
        assert (counted.count["Dets"], counted.clear["CLR_FP"], counted.clear["MOTA"]) == (2, 1, 0.0)


def test_a_vehicle_is_a_distractor_in_mot20_alone():
    assert scores(crossing(6), [[1, 2]], [[BOX, FAR]]).clear["CLR_FP"] == 1
    assert scores(crossing(6), [[1, 2]], [[BOX, FAR]], benchmark="MOT20").clear["CLR_FP"] == 0


def test_classes_do_not_matter_without_preprocessing_and_in_mot15():
    truth = MotTruth([[1]], [[BOX]], classes=[[80]])
    assert scores(truth, [[1]], [[BOX]], preprocess=False).clear["CLR_TP"] == 1
    assert scores(truth, [[1]], [[BOX]], benchmark="MOT15").clear["CLR_TP"] == 1
    with pytest.raises(InputError, match="frame 0: class 80, wanted 1 to 13"):
        scores(truth, [[1]], [[BOX]])


# --- several sequences ---


def test_all_sequences_together_pool_their_counts():
    # One found of one; three missed and one false. The mean of the two MOTA would be (1 - 1/3) / 2.
    found = tracker_scores(
        {
            "short": (one_object(1), Tracked([[1]], [[BOX]])),
            "long": (one_object(3), Tracked([[1], [], []], [[FAR], [], []])),
        }
    )
    assert list(found) == ["short", "long", COMBINED]
    assert (found["short"].clear["MOTA"], found["long"].clear["MOTA"]) == (1.0, -1 / 3)
    assert found[COMBINED].clear["MOTA"] == 0.0  # (1 - 1) / 4
    assert found[COMBINED].count == {"Dets": 2, "GT_Dets": 4, "IDs": 2, "GT_IDs": 2}


def test_the_order_of_sequences_does_not_change_a_bit():
    rng = np.random.default_rng(0)
    found = {}
    for name in "abcdefg":
        boxes = [[BOX + rng.normal(0, 1, 4)] for _ in range(5)]
        found[name] = sequence_scores(one_object(5), Tracked([[1]] * 5, boxes))
    forth, back = combined_scores(found), combined_scores(dict(reversed(found.items())))
    assert forth.clear == back.clear
    assert all(np.array_equal(forth.hota[field], back.hota[field]) for field in forth.hota)


# --- behaviour ---


def test_nothing_is_printed(capfd):
    tracker_scores({"a": (one_object(2), Tracked([[1]] * 2, [[BOX]] * 2))})
    assert capfd.readouterr() == ("", "")


def test_the_package_is_loaded_only_when_something_is_scored():
    program = "import sys, eval.metrics.multi_object, trackgpt.data.mot_files; print('trackeval' in sys.modules)"
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackeval", None)
    with pytest.raises(UsageError, match="pip install --no-deps -c constraints.txt trackeval tabulate"):
        scores(one_object(1), [[1]], [[BOX]])


@pytest.mark.parametrize(
    ("truth", "ids", "boxes", "message"),
    [
        (one_object(2), [[1]], [[BOX], [BOX]], "tracked.ids has 1 frames, wanted 2"),
        (one_object(1), [[1, 1]], [[BOX, FAR]], "tracked.ids, frame 0: id 1 stands there twice"),
        (MotTruth([[3, 3]], [[BOX, FAR]]), [[1]], [[BOX]], "truth.ids, frame 0: id 3 stands there twice"),
        (one_object(1), [[1]], [[BOX, FAR]], r"tracked.boxes, frame 0: the shape is \(2, 4\), wanted \(1, 4\)"),
        (one_object(1), [[1]], [[[0, 0, np.nan, 1]]], "tracked.boxes, frame 0: a value is not finite"),
        (one_object(1), [[1.5]], [[BOX]], "tracked.ids, frame 0: float64 of the shape .* wanted integers"),
        (one_object(1, marks=[[1, 0]]), [[1]], [[BOX]], "truth.marks, frame 0: 2 values, wanted 1"),
    ],
)
def test_what_does_not_fit_is_named(truth, ids, boxes, message):
    with pytest.raises(InputError, match=message):
        scores(truth, ids, boxes)


def test_requests_that_make_no_sense_are_refused():
    pair = one_object(1), Tracked([[1]], [[BOX]])
    with pytest.raises(UsageError, match="benchmark is 'MOT21', wanted one of MOT15"):
        sequence_scores(*pair, benchmark="MOT21")
    with pytest.raises(UsageError, match="no sequence is given"):
        tracker_scores({})
    with pytest.raises(UsageError, match="COMBINED_SEQ names all sequences together"):
        tracker_scores({COMBINED: pair})
    with pytest.raises(InputError, match="^street: tracked.ids has 0 frames"):
        tracker_scores({"street": (one_object(1), Tracked([], []))})
