"""Box metrics against numbers worked out by hand, slow transcriptions, properties, and real annotations."""

import json
import tarfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from eval.metrics.box_conventions import (
    got10k_figures,
    got10k_overlaps,
    got10k_toolkit,
    interacttrack,
    lasot_matlab,
    pytracking,
    tnllt,
)
from eval.metrics.boxes import (
    CONVENTIONS,
    OVERLAP_THRESHOLDS,
    FrameErrors,
    SequenceResult,
    attribute_figures,
    figures,
    sequence_result,
    xywh,
)
from trackgpt.data.box_files import (
    LASOT_ABSENT,
    LASOT_ATTRIBUTES,
    TNL2K_ABSENT,
    TNL2K_ATTRIBUTES,
    read_absent,
    read_boxes,
    read_flags,
    read_names,
)
from trackgpt.errors import InputError, UsageError

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_lasot = pytest.mark.skipif(not (DATA / "lasot/annos").is_dir(), reason="LaSOT boxes (../shared/data) are absent")
needs_tnl2k = pytest.mark.skipif(
    not (DATA / "tnl2k/annos/annos.tar.gz").is_file(), reason="TNL2K boxes (../shared/data) are absent"
)
needs_tnllt = pytest.mark.skipif(not (DATA / "tnllt").is_dir(), reason="TNLLT lists (../shared/data) are absent")

BOX = [10.0, 10, 20, 20]
ALL_VISIBLE = [False, False, False]


def shifted(x: float = 0, y: float = 0, w: float = 0, h: float = 0) -> list[float]:
    """BOX with something added to each number."""
    return [10 + x, 10 + y, 20 + w, 20 + h]


def flags(*absent: int) -> np.ndarray:
    return np.array(absent, np.bool_)


def every_convention(predicted: object, truth: object, absent: np.ndarray) -> dict[str, FrameErrors]:
    """The same sequence in the eyes of every toolkit."""
    errors = [lasot_matlab(predicted, truth, absent), tnllt(predicted, truth, absent), got10k_toolkit(predicted, truth)]
    errors += [pytracking(predicted, truth, absent, dataset) for dataset in ("lasot", "otb", "uav", "tnl2k")]
    errors += [interacttrack(predicted, truth, absent, policy) for policy in ("released", "paper", "strict")]
    return {error.convention: error for error in errors}


def random_boxes(seed: int, frames: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate((rng.uniform(1, 60, (frames, 2)), rng.uniform(5, 40, (frames, 2))), axis=1)


# --- errors of one frame ---


def test_a_box_shifted_by_three_and_four_pixels_has_the_centre_error_five():
    for name, errors in every_convention([BOX, shifted(3, 4)], [BOX, BOX], flags(0, 0)).items():
        assert errors.centre.tolist() == [0, 5], name
        # 3 / 20 and 4 / 20 of the truth's size: 5 / 20. (17 * 16) / (2 * 400 - 272) overlap.
        assert errors.normalised[1] == pytest.approx(0.25, abs=1e-15), name
        assert errors.overlap.tolist() == pytest.approx([1, 272 / 528], abs=1e-15), name


def test_the_error_is_normalised_by_the_truth_and_not_by_the_prediction():
    errors = lasot_matlab([BOX, [1, 1, 40, 10]], [BOX, [1, 1, 20, 10]], flags(0, 0))
    assert errors.centre.tolist() == [0, 10]
    assert errors.normalised.tolist() == pytest.approx([0, 0.5], abs=1e-15)


def test_boxes_that_touch_share_a_pixel_column_only_where_one_pixel_is_added():
    # Pixels 10..29 and 30..49: x + w - 1 of the first is 29, so they share nothing under either rule.
    assert lasot_matlab([BOX, shifted(20)], [BOX, BOX], flags(0, 0)).overlap[1] == 0
    assert got10k_toolkit([BOX, shifted(20)], [BOX, BOX]).overlap[1] == 0
    # A box of half a pixel, 10 to 10.5, lies within under both.
    assert lasot_matlab([BOX, [10, 10, 0.5, 20]], [BOX, BOX], flags(0, 0)).overlap[1] == pytest.approx(10 / 400)


def test_overlap_and_errors_equal_a_slow_transcription_on_random_boxes():
    found, truth = random_boxes(1, 300), random_boxes(2, 300)
    found[0] = truth[0]
    errors = every_convention(found, truth, flags(*[0] * 300))
    for t in range(300):
        (x, y, w, h), (u, v, p, q) = found[t], truth[t]
        shared = max(0, min(x + w, u + p) - max(x, u)) * max(0, min(y + h, v + q) - max(y, v))
        away = np.hypot(x + w / 2 - u - p / 2, y + h / 2 - v - q / 2)
        relative = np.hypot((x + w / 2 - u - p / 2) / p, (y + h / 2 - v - q / 2) / q)
        for name, error in errors.items():
            assert error.overlap[t] == pytest.approx(shared / (w * h + p * q - shared), abs=1e-12), name
            assert error.centre[t] == pytest.approx(away, abs=1e-11), name
            assert error.normalised[t] == pytest.approx(relative, abs=1e-11), name


def test_moving_both_boxes_changes_nothing():
    found, truth, absent = random_boxes(3, 50), random_boxes(4, 50), flags(*[0] * 50)
    there = every_convention(found + [512, 256, 0, 0], truth + [512, 256, 0, 0], absent)
    for name, here in every_convention(found, truth, absent).items():
        assert there[name].overlap == pytest.approx(here.overlap, abs=1e-12)
        assert there[name].centre == pytest.approx(here.centre, abs=1e-10)


def test_the_first_prediction_is_replaced_by_the_truth():
    for name, errors in every_convention([[500, 500, 5, 5], BOX], [BOX, BOX], flags(0, 0)).items():
        assert errors.overlap.tolist() == [1, 1], name


def test_the_got10k_toolkit_divides_by_one_pixel_at_least():
    thin = [10, 10, 0.5, 20]
    assert got10k_toolkit([BOX, [13, 10, 0.5, 20]], [BOX, thin]).normalised[1] == 3
    assert lasot_matlab([BOX, [13, 10, 0.5, 20]], [BOX, thin], flags(0, 0)).normalised[1] == 6


# --- thresholds ---


def test_an_overlap_exactly_at_the_threshold_fails_and_an_error_exactly_at_it_passes():
    # Half the width covered: IoU 200 / 400. Shifted by 16 px: error 16 px, 16 / 64 of the truth's width.
    half = sequence_result(lasot_matlab([BOX, shifted(w=-10)], [BOX, BOX], flags(0, 0)))
    assert OVERLAP_THRESHOLDS[10] == 0.5
    assert half.success_hits[9:11] == (2, 1)
    wide = [10, 10, 64, 20]
    shift = sequence_result(lasot_matlab([wide, [26, 10, 64, 20]], [wide, wide], flags(0, 0)))
    assert shift.precision_hits[15:17] == (1, 2)
    assert shift.normalised_hits[24:26] == (1, 2)


def test_no_overlap_exceeds_one_so_the_best_auc_is_20_of_21():
    for name, errors in every_convention([BOX] * 3, [BOX] * 3, flags(*ALL_VISIBLE)).items():
        result = sequence_result(errors)
        assert result.success_hits == (3,) * 20 + (0,), name
        assert figures([result]).percent["AUC"] == pytest.approx(2000 / 21, rel=1e-6), name


def test_curves_are_monotone_and_within_their_range():
    absent = flags(*np.random.default_rng(7).random(80) < 0.2)
    for name, errors in every_convention(random_boxes(5, 80), random_boxes(6, 80), absent).items():
        result = sequence_result(errors)
        assert (np.diff(result.success) <= 0).all(), name
        assert (np.diff(result.precision) >= 0).all(), name
        assert (np.diff(result.normalised_precision) >= 0).all(), name
        for curve in (result.success, result.precision, result.normalised_precision):
            assert ((curve >= 0) & (curve <= 1)).all(), name
        assert figures([result]).auc / figures([result]).scale == pytest.approx(result.success.mean(), rel=1e-6)


# --- absent frames ---


def test_an_absent_frame_is_a_failure_in_success_whatever_is_predicted():
    for name, errors in every_convention([BOX] * 4, [BOX] * 4, flags(0, 0, 1, 0)).items():
        expected = {"got10k_toolkit": 4, "interacttrack_paper": 3}.get(name, 3)
        result = sequence_result(errors)
        assert result.success_hits[0] == expected, name
        assert result.frames == (3 if name == "interacttrack_paper" else 4), name


def test_an_absent_frame_is_a_hit_in_the_released_normalised_precision_and_not_in_the_fixed_one():
    predicted, truth, absent = [BOX, shifted(100), [0, 0, 1, 1]], [BOX, BOX, [0, 0, 0, 0]], flags(0, 0, 1)
    hits = {
        policy: sequence_result(interacttrack(predicted, truth, absent, policy)).normalised_hits[0]
        for policy in ("released", "strict", "paper")
    }
    assert hits == {"released": 2, "strict": 1, "paper": 1}
    curve = sequence_result(interacttrack(predicted, truth, absent, "paper")).normalised_precision
    assert curve[0] == 0.5  # one of the two frames that are there


def test_each_pytracking_mode_has_its_own_rule_for_absent_frames():
    truth, absent = [BOX, BOX, BOX], flags(0, 1, 0)
    errors = {mode: pytracking(truth, truth, absent, mode) for mode in ("lasot", "otb", "uav", "tnl2k")}
    assert {mode: error.centre[1] for mode, error in errors.items()} == {
        "lasot": np.inf,
        "otb": np.inf,
        "uav": -1,
        "tnl2k": np.inf,
    }
    assert {mode: error.normalised[1] for mode, error in errors.items()} == {
        "lasot": np.inf,
        "otb": -1,
        "uav": -1,
        "tnl2k": -1,
    }
    assert all(error.overlap[1] == -1 for error in errors.values())


def test_a_data_set_without_flags_judges_a_hidden_target_that_still_has_a_box():
    assert pytracking([BOX, BOX], [BOX, BOX], None, "otb").overlap.tolist() == [1, 1]
    with pytest.raises(InputError, match="full_occlusion"):
        pytracking([BOX, BOX], [BOX, BOX], None, "lasot")


def test_a_visible_truth_with_x_zero_fails_but_its_centre_is_a_hit_in_matlab_alone():
    edge = [0.0, 10, 20, 20]
    found = every_convention([BOX, edge], [BOX, edge], flags(0, 0))
    assert {name: (error.overlap[1], error.centre[1]) for name, error in found.items()} == {
        "lasot_matlab": (-1, -1),
        "tnllt": (-1, -1),
        "pytracking_lasot": (-1, np.inf),
        "pytracking_otb": (-1, np.inf),
        "pytracking_uav": (-1, -1),
        "pytracking_tnl2k": (-1, np.inf),
        "interacttrack_released": (1, 0),  # only width and height are tested
        "interacttrack_strict": (1, 0),
        "interacttrack_paper": (1, 0),
        "got10k_toolkit": (1, 0),
    }


def test_flags_must_be_bool_so_that_no_file_is_used_unconverted():
    with pytest.raises(InputError, match="wanted bool"):
        tnllt([BOX, BOX], [BOX, BOX], np.array([1, 1]))


def test_tnllt_is_lasot_once_the_flag_is_converted():
    found, truth, absent = random_boxes(8, 30), random_boxes(9, 30), flags(*[0, 0, 1] * 10)
    ours, other = tnllt(found, truth, absent), lasot_matlab(found, truth, absent)
    assert np.array_equal(ours.overlap, other.overlap)
    assert np.array_equal(ours.normalised, other.normalised)
    assert (ours.convention, other.convention) == ("tnllt", "lasot_matlab")


# --- bad predictions ---


@pytest.mark.parametrize("bad", [[np.nan] * 4, [5, 5, 0, 9], [5, 5, 9, -1]])
def test_matlab_repeats_the_last_good_row_for_a_bad_one(bad):
    errors = lasot_matlab([BOX, shifted(3, 4), bad, bad, BOX], [BOX] * 5, flags(*[0] * 5))
    assert errors.centre.tolist() == [0, 5, 5, 5, 0]


def test_the_row_that_is_repeated_is_the_predicted_first_one_and_not_the_truth():
    errors = lasot_matlab([shifted(3, 4), [0, 0, 0, 0]], [BOX, BOX], flags(0, 0))
    assert errors.centre.tolist() == [0, 5]


def test_pytracking_repeats_zero_sizes_and_refuses_nan_and_negative_sizes():
    repeated = pytracking([BOX, shifted(3, 4), [7, 7, 0, 7]], [BOX] * 3, flags(0, 0, 0), "tnl2k")
    assert repeated.centre.tolist() == [0, 5, 5]
    for bad in ([np.nan] * 4, [1, 1, -1, 5]):
        with pytest.raises(InputError, match="row 1 of the predictions"):
            pytracking([BOX, bad], [BOX, BOX], flags(0, 0), "tnl2k")


def test_interacttrack_refuses_only_what_makes_an_overlap_nan():
    assert interacttrack([BOX, [1, 1, -1, 5]], [BOX, BOX], flags(0, 0)).overlap[1] == 0
    hidden = interacttrack([BOX, [np.nan] * 4], [BOX, BOX], flags(0, 1))
    assert hidden.overlap.tolist() == [1, -1]
    with pytest.raises(InputError, match="overlap of frame 1 is NaN"):
        interacttrack([BOX, [np.nan] * 4], [BOX, BOX], flags(0, 0))


# --- lengths ---


def test_predictions_past_the_end_are_cut():
    for name, errors in every_convention([BOX] * 5, [BOX] * 3, flags(*ALL_VISIBLE)).items():
        assert sequence_result(errors).success_hits[0] == 3, name


def test_missing_predictions_are_refused_zero_boxes_or_the_last_box_by_convention():
    with pytest.raises(InputError, match="2 predictions for 3 frames"):
        lasot_matlab([BOX] * 2, [BOX] * 3, flags(*ALL_VISIBLE))
    with pytest.raises(InputError, match="2 predictions for 3 frames"):
        pytracking([BOX] * 2, [BOX] * 3, flags(*ALL_VISIBLE), "lasot")
    assert pytracking([BOX] * 2, [BOX] * 3, None, "otb").overlap.tolist() == [1, 1, 0]
    assert interacttrack([BOX] * 2, [BOX] * 3, flags(*ALL_VISIBLE)).overlap.tolist() == [1, 1, 1]
    assert got10k_toolkit([BOX] * 2, [BOX] * 3).frames == 2


def test_a_run_without_any_prediction_still_has_the_first_frame_where_it_is_filled_up():
    empty = np.zeros((0, 4))
    assert pytracking(empty, [BOX] * 2, None, "otb").overlap.tolist() == [1, 0]
    assert interacttrack(empty, [BOX] * 2, flags(0, 0)).overlap.tolist() == [1, 0]
    with pytest.raises(InputError, match="finish the run"):
        got10k_toolkit(empty, [BOX] * 2)


def test_a_truth_of_nan_is_left_out_failed_or_refused_by_convention():
    truth = [BOX, [np.nan] * 4, BOX]
    assert got10k_toolkit([BOX] * 3, truth).frames == 2
    assert lasot_matlab([BOX] * 3, truth, flags(0, 0, 0)).overlap.tolist() == [1, -1, 1]
    assert pytracking([BOX] * 3, truth, None, "uav").overlap.tolist() == [1, -1, 1]
    with pytest.raises(InputError, match="truth of frame 1"):
        pytracking([BOX] * 3, truth, None, "otb")
    with pytest.raises(InputError, match="truth of frame 1"):
        interacttrack([BOX] * 3, truth, flags(0, 0, 0))


@pytest.mark.parametrize(
    ("predicted", "truth", "absent", "message"),
    [
        ([[1, 2, 3]], [BOX], [False], r"predictions have the shape \(1, 3\)"),
        ([BOX], BOX, [False], r"truths have the shape \(4,\)"),
        (np.zeros((0, 4)), np.zeros((0, 4)), np.zeros(0, np.bool_), "without frames"),
        ([BOX, BOX], [BOX, BOX], [False], r"wanted bool \(2,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(predicted, truth, absent, message):
    with pytest.raises(InputError, match=message):
        lasot_matlab(predicted, truth, absent)


def test_unknown_modes_are_refused_by_name():
    with pytest.raises(UsageError, match="'nfs'"):
        pytracking([BOX], [BOX], None, "nfs")
    with pytest.raises(UsageError, match="'lenient'"):
        interacttrack([BOX], [BOX], flags(0), "lenient")


# --- means over sequences ---


def perfect(frames: int, hits: int, convention: str = "lasot_matlab") -> SequenceResult:
    """A sequence with `hits` exact frames, the others lost."""
    return SequenceResult(convention, frames, (hits,) * 20 + (0,), (hits,) * 51, (hits,) * 51, hits / frames)


def test_every_sequence_weighs_the_same_however_long_it_is():
    mean = figures([perfect(10, 10), perfect(1000, 500)])
    assert mean.op50 == 0.75
    assert mean.auc == pytest.approx(0.75 * 20 / 21, abs=1e-15)
    assert mean.percent == pytest.approx(
        {"AUC": 1500 / 21, "OP50": 75, "OP75": 75, "P@20": 75, "NP@0.20": 75}, abs=1e-12
    )


def test_matlab_drops_a_sequence_whose_curve_sums_to_zero_and_the_others_keep_it():
    lost = [perfect(10, 10), perfect(10, 0)]
    assert (figures(lost).op50, figures(lost).success_sequences) == (1, 1)
    kept = [perfect(10, 10, "pytracking_lasot"), perfect(10, 0, "pytracking_lasot")]
    assert (figures(kept).op50, figures(kept).success_sequences) == (50, 2)


def test_it_takes_an_absent_first_frame_to_lose_everything():
    result = sequence_result(lasot_matlab([BOX, shifted(500)], [BOX, BOX], flags(1, 0)))
    assert result.success_hits == (0,) * 21
    assert np.isnan(figures([result]).auc)
    assert figures([result]).success_sequences == 0
    assert figures([sequence_result(lasot_matlab([BOX, shifted(500)], [BOX, BOX], flags(0, 0)))]).op50 == 0.5


def test_a_matlab_sequence_of_one_frame_scores_a_little_less_than_one():
    assert perfect(1, 1).success[0] == 1 / (1 + 2**-52)
    assert perfect(2, 2).success[0] == 1


def test_float_widths_and_units_are_the_toolkits():
    for convention, arithmetic in CONVENTIONS.items():
        mean = figures([perfect(3, 1, convention), perfect(3, 1, convention)])
        width, scale = (np.float32, 100) if arithmetic == "torch" else (np.float64, 1)
        assert (mean.success.dtype, mean.scale) == (width, scale), convention
        assert mean.percent["P@20"] == pytest.approx(100 / 3, rel=1e-6), convention


def test_the_mean_of_the_normalised_curve_is_another_number_than_its_value_at_20():
    result = SequenceResult("got10k_toolkit", 1, (1,) * 21, (1,) * 51, (0,) * 20 + (1,) * 31, 1)
    assert figures([result]).normalised_precision_20 == 1
    assert figures([result]).normalised_precision_mean == 31 / 51


def test_two_conventions_are_never_averaged():
    with pytest.raises(UsageError, match="lasot_matlab and tnllt"):
        figures([perfect(2, 1), perfect(2, 1, "tnllt")])
    with pytest.raises(UsageError, match="'davis'"):
        figures([perfect(2, 1, "davis")])
    with pytest.raises(InputError, match="no sequences"):
        figures([])


def test_a_result_survives_json_unchanged():
    errors = lasot_matlab(random_boxes(10, 40), random_boxes(11, 40), flags(*[0] * 40))
    result = sequence_result(errors)
    kept = json.loads(json.dumps(asdict(result)))
    assert SequenceResult(**{k: tuple(v) if isinstance(v, list) else v for k, v in kept.items()}) == result


def test_a_convention_that_scores_no_frame_of_a_sequence_says_so():
    with pytest.raises(InputError, match="interacttrack_paper: a sequence without frames"):
        sequence_result(interacttrack([BOX], [BOX], flags(1), "paper"))


def test_mean_overlap_is_over_frames_with_a_truth():
    result = sequence_result(pytracking([BOX, shifted(w=-10), BOX], [BOX] * 3, flags(0, 0, 1), "tnl2k"))
    assert result.mean_overlap == 0.75
    assert np.isnan(sequence_result(pytracking([BOX], [BOX], flags(1), "tnl2k")).mean_overlap)


def test_an_attribute_is_averaged_over_the_sequences_that_have_it():
    results = [perfect(4, 4), perfect(4, 2), perfect(4, 1)]
    table = attribute_figures(results, [[1, 0, 1], [1, 0, 0], [0, 1, 1]], ["A", "B", "C"])
    assert {name: found.op50 for name, found in table.items()} == {"A": 0.75, "C": 0.625}
    alone = attribute_figures(results, [[1, 0, 1], [1, 0, 0], [0, 1, 1]], ["A", "B", "C"], at_least=1)
    assert alone["B"].op50 == 0.25
    with pytest.raises(InputError, match=r"wanted \(3, 2\)"):
        attribute_figures(results, [[1, 0, 1]] * 3, ["A", "B"])
    with pytest.raises(InputError, match="other values"):
        attribute_figures(results, [[2]] * 3, ["A"])
    with pytest.raises(UsageError, match="at_least"):
        attribute_figures(results, [[1]] * 3, ["A"], at_least=0)


# --- GOT-10k ---


def test_got10k_leaves_out_the_first_frame_and_frames_without_cover():
    overlaps = got10k_overlaps([shifted(500), BOX, BOX, shifted(w=-10)], [BOX] * 4, [8, 8, 0, 3], (640, 360))
    assert overlaps.tolist() == [1, 0.5]
    found = got10k_figures([overlaps])
    assert (found.frames, found.average_overlap, found.success_50, found.success_75) == (2, 0.75, 0.5, 0.5)
    assert found.success_curve[[0, 49, 50, 100]].tolist() == [1, 1, 0.5, 0]


def test_got10k_pools_frames_so_that_a_long_sequence_weighs_more():
    assert got10k_figures([np.ones(1), np.zeros(3)]).average_overlap == 0.25
    assert np.isnan(got10k_figures([np.zeros(0)]).average_overlap)
    with pytest.raises(InputError, match="no sequences"):
        got10k_figures([])


def test_got10k_clips_to_the_image_and_keeps_the_width_of_a_box_that_begins_outside():
    # Truth 0..20. Predicted -10..10 becomes 0..20 (moved, not cut): the overlap is 1.
    assert got10k_overlaps([BOX, [-10, 0, 20, 20]], [BOX, [0, 0, 20, 20]], [8, 8], (40, 40)).tolist() == [1]
    # 30..60 ends at 40 in both.
    assert got10k_overlaps([BOX, [30, 0, 30, 20]], [BOX, [30, 0, 10, 20]], [8, 8], (40, 40)).tolist() == [1]
    with pytest.raises(InputError, match="one of each per frame"):
        got10k_overlaps([BOX], [BOX, BOX], [8, 8], (40, 40))


# --- conversion ---


def test_xywh_subtracts_corners_and_keeps_nan():
    assert xywh([[1, 2, 4, 6], [0, 0, 1, 1]]).tolist() == [[1, 2, 3, 4], [0, 0, 1, 1]]
    assert np.isnan(xywh([np.nan] * 4)).all()
    boxes = np.array([1.0, 2, 4, 6])
    xywh(boxes)
    assert boxes.tolist() == [1, 2, 4, 6]
    with pytest.raises(InputError, match="left, top, right, bottom"):
        xywh([1, 2, 3])


# --- real files ---


@needs_lasot
def test_real_lasot_boxes_against_themselves_fail_only_where_the_target_is_absent():
    annos = DATA / "lasot/annos"
    names = sorted(path.stem for path in (annos / "absent").glob("*.txt"))
    results, table = [], []
    unusable = frames_absent = boxless = 0
    for name in names:
        truth = read_boxes(annos / f"{name}.txt")
        absent = read_absent(annos / f"absent/{name}.txt", LASOT_ABSENT, len(truth))
        result = sequence_result(lasot_matlab(truth, truth, absent))
        good = int((~absent & (truth > 0).all(1)).sum())
        assert result.success_hits == (good,) * 20 + (0,)
        assert result.precision_hits == (int((~absent).sum()),) * 51
        unusable += int((~absent).sum()) - good
        frames_absent += int(absent.sum())
        boxless += int((absent & (truth[:, 2:] <= 0).any(1)).sum())
        results.append(result)
        table.append(read_flags(annos / f"att/{name}.txt", len(LASOT_ATTRIBUTES)))
    assert len(names) == 42
    # 1 = absent: no visible frame but one is without box, and 876 of the absent ones are.
    assert (frames_absent, boxless, unusable) == (2418, 876, 1)
    assert figures(results).auc == pytest.approx(figures(results).op50 * 20 / 21, abs=1e-12)
    by_attribute = attribute_figures(results, np.stack(table), LASOT_ATTRIBUTES)
    assert by_attribute["SV"].success_sequences == 41
    assert list(by_attribute) == list(LASOT_ATTRIBUTES)
    whole = next(result for result in results if result.success_hits[0] == result.frames)
    assert figures([whole]).auc == pytest.approx(20 / 21, abs=1e-15)


@needs_tnl2k
def test_real_tnl2k_flags_say_one_for_absent_and_the_released_rule_rewards_absence(tmp_path):
    names = read_names(DATA / "tnl2k/sequence_evaluation_config/TNL2K_testing_set.txt")[:60]
    wanted = {f"annos/{place}.txt" for n in names for place in (f"gt_rect/{n}", f"absent/{n}", f"att/{n}_attribute")}
    with tarfile.open(DATA / "tnl2k/annos/annos.tar.gz") as archive:
        archive.extractall(tmp_path, [m for m in archive if m.name in wanted], filter="data")
    annos, plain, fixed, frames_absent = tmp_path / "annos", [], [], 0
    for name in names:
        truth = read_boxes(annos / f"gt_rect/{name}.txt")
        absent = read_absent(annos / f"absent/{name}.txt", TNL2K_ABSENT)[: len(truth)]
        assert np.array_equal(absent, (truth == 0).all(1)), name
        read_flags(annos / f"att/{name}_attribute.txt", len(TNL2K_ATTRIBUTES))
        frames_absent += int(absent.sum())
        plain.append(sequence_result(interacttrack(truth, truth, absent, "released")))
        fixed.append(sequence_result(interacttrack(truth, truth, absent, "strict")))
    assert frames_absent > 1000
    assert figures(plain).percent["NP@0.20"] == 100
    assert figures(fixed).percent["NP@0.20"] == figures(fixed).percent["OP50"] == figures(plain).percent["OP50"] < 99


@needs_tnllt
def test_real_tnllt_lists_hold_150_and_50_names():
    lists = DATA / "tnllt/scripts/TNL2KLTDataset"
    train, test = (read_names(lists / f"tnl_lt_{split}_split.txt") for split in ("train", "test"))
    assert (len(train), len(test), len({*train} & {*test})) == (150, 50, 0)
