"""Label-map protocols: what each convention does that the others do not, in numbers one can count on a small frame."""

import itertools

import numpy as np
import pytest

from eval.metrics.davis import (
    SequenceScores,
    TrackSummary,
    davis_semi,
    davis_unsupervised,
    over_sequences,
    ref_davis_compat,
    ref_davis_mean,
    ref_davis_strict,
    trackeval_combined,
    trackeval_jandf,
    trackeval_summary,
    vos_benchmark,
    vos_benchmark_overall,
    vos_benchmark_rows,
)
from eval.metrics.masks import Overall, Scores, Summary, sequence_scores
from trackgpt.errors import InputError

ALL = (davis_semi, davis_unsupervised, ref_davis_compat, ref_davis_strict, vos_benchmark, trackeval_jandf)


def row_of(*labels: int, frames: int = 1) -> np.ndarray:
    """The same one-pixel-high frame T times."""
    return np.tile(np.array(labels, np.uint8), (frames, 1, 1))


def two_squares(frames: int = 4) -> np.ndarray:
    """Objects 1 and 2, 4 x 4 pixels each, far apart in 20 x 20."""
    labels = np.zeros((frames, 20, 20), np.uint8)
    labels[:, 2:6, 2:6], labels[:, 12:16, 12:16] = 1, 2
    return labels


def relabelled(labels: np.ndarray, *new: int) -> np.ndarray:
    """Id 0 becomes new[0], id 1 becomes new[1], ..."""
    return np.array(new, np.uint8)[labels]


def wandering(rng: np.random.Generator, ids: int, frames: int = 5) -> np.ndarray:
    """Squares that jump about and hide each other."""
    labels = np.zeros((frames, 24, 30), np.uint8)
    for t, k in itertools.product(range(frames), range(1, ids + 1)):
        y, x = rng.integers(0, 18), rng.integers(0, 24)
        labels[t, y : y + 7, x : x + 7] = k
    labels[0, 0, : ids + 1] = range(ids + 1)
    return labels


def jf(scores: SequenceScores) -> float:
    return over_sequences([scores]).jf


# --- identity ---


def test_a_swapped_identity_scores_1_under_compat_and_0_under_strict():
    truth = two_squares()
    swapped = relabelled(truth, 0, 2, 1)
    assert jf(ref_davis_compat(swapped, truth)) == 1.0
    assert jf(ref_davis_strict(swapped, truth)) == 0.0
    assert jf(ref_davis_strict(truth, truth)) == 1.0


def test_rows_come_in_the_order_of_proposals_and_by_object_says_whose_they_are():
    truth = two_squares()
    prediction = relabelled(truth, 0, 2, 1)
    prediction[:, 2:4, 2:6] = 0  # half of the square that is object 1 and proposal 2
    scores = davis_unsupervised(prediction, truth)
    assert (scores.proposals, scores.objects) == ((1, 2), (2, 1))
    assert [row.j[0] for row in scores.rows] == [1.0, 0.5]
    assert {k: row.j[0] for k, row in scores.by_object.items()} == {1: 0.5, 2: 1.0}
    assert list(scores.by_object) == [1, 2]


@pytest.mark.parametrize("seed", range(4))
def test_the_matching_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    truth, prediction = wandering(rng, 3), wandering(rng, 4)
    quality = np.array(
        [[np.mean(sequence_scores(prediction == p, truth == k)) for k in (1, 2, 3)] for p in (1, 2, 3, 4)]
    )
    best = max(sum(quality[p, k] for k, p in enumerate(order)) for order in itertools.permutations(range(4), 3))
    assert 3 * jf(davis_unsupervised(prediction, truth)) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_renaming_proposals_changes_nothing_and_strict_is_never_above_compat(seed):
    rng = np.random.default_rng(seed)
    truth, prediction = wandering(rng, 3), wandering(rng, 3)
    compat = jf(ref_davis_compat(prediction, truth))
    for order in itertools.permutations((1, 2, 3)):
        renamed = relabelled(prediction, 0, *order)
        assert jf(ref_davis_compat(renamed, truth)) == pytest.approx(compat, abs=1e-12)
        assert jf(ref_davis_strict(renamed, truth)) <= compat + 1e-12


@pytest.mark.parametrize("protocol", [davis_semi, ref_davis_strict, davis_unsupervised, trackeval_jandf, vos_benchmark])
def test_renaming_objects_in_both_maps_renames_the_scores(protocol):
    rng = np.random.default_rng(5)
    truth, prediction = wandering(rng, 3), wandering(rng, 3)
    before = protocol(prediction, truth).by_object
    after = protocol(relabelled(prediction, 0, 3, 1, 2), relabelled(truth, 0, 3, 1, 2)).by_object
    for old, new in ((1, 3), (2, 1), (3, 2)):
        assert np.array_equal(before[old], after[new])


def test_the_row_shared_by_absent_proposals_is_that_of_an_empty_mask():
    truth = two_squares()
    truth[2] = 0
    prediction = np.zeros_like(truth)
    prediction[:, 2:6, 2:6] = 5  # 1 to 4 are never there
    scores = davis_unsupervised(prediction, truth)
    assert scores.proposals == (1, 5)
    assert scores.rows[0].j.tolist() == [0, 0, 1, 0]  # right about frame 2 only
    assert scores.rows[1].j.tolist() == [1, 1, 0, 1]


# --- frames ---


def test_only_semi_leaves_out_the_first_and_the_last_frame():
    truth = two_squares(4)
    prediction = truth.copy()
    prediction[[0, -1]] = 0
    assert [len(row.j) for row in davis_semi(prediction, truth).rows] == [2, 2]
    assert jf(davis_semi(prediction, truth)) == 1.0
    assert jf(vos_benchmark(prediction, truth)) == 1.0
    for protocol in (davis_unsupervised, ref_davis_strict, trackeval_jandf):
        assert jf(protocol(prediction, truth)) == 0.5
    assert jf(vos_benchmark(prediction, truth, skip_first_and_last=False)) == 0.5


# --- void ---


def test_void_is_background_for_semi_left_out_by_unsupervised_and_an_object_for_vos_benchmark():
    truth, prediction = row_of(1, 1, 255, 0, frames=3), row_of(1, 1, 1, 0, frames=3)
    assert davis_semi(prediction, truth).rows[0].j.tolist() == [2 / 3]
    for protocol in (davis_unsupervised, ref_davis_strict, trackeval_jandf):
        assert protocol(prediction, truth).rows[0].j.tolist() == [1.0, 1.0, 1.0]
        assert protocol(prediction, truth).objects == (1,)
    assert davis_semi(prediction, truth).objects == (1,)
    scores = vos_benchmark(prediction, truth)
    assert scores.objects == (1, 255)
    assert vos_benchmark_rows(scores)[:, 1].tolist() == [2 / 3 * 100, 0.0]


def test_what_is_predicted_on_void_pixels_does_not_matter_where_they_are_left_out():
    rng = np.random.default_rng(1)
    truth, prediction = wandering(rng, 2), wandering(rng, 2)
    truth[:, 5:12, 5:20] = 255
    painted = np.where(truth == 255, rng.integers(0, 3, truth.shape), prediction).astype(np.uint8)
    for protocol in (davis_unsupervised, ref_davis_strict, trackeval_jandf):
        assert np.array_equal(protocol(painted, truth).rows, protocol(prediction, truth).rows)
    assert not np.array_equal(davis_semi(painted, truth).rows, davis_semi(prediction, truth).rows)


# --- which ids are objects ---


def test_an_object_that_appears_late_is_ignored_by_davis_and_scored_by_the_others():
    truth = two_squares(5)
    truth[:3][truth[:3] == 2] = 0
    prediction = np.where(truth == 2, 0, truth).astype(np.uint8)  # misses it in frames 3 and 4
    assert davis_semi(prediction, truth).objects == (1,)
    assert jf(davis_semi(prediction, truth)) == 1.0
    late = vos_benchmark(prediction, truth)
    assert late.objects == (1, 2)
    assert [row.j.tolist() for row in late.rows] == [[1, 1, 1], [0]]  # frames 1, 2, 3 and frame 3
    assert trackeval_jandf(prediction, truth).by_object[2].j.tolist() == [1, 1, 1, 0, 0]


def test_vos_benchmark_starts_an_object_where_the_prediction_shows_it_first():
    truth = two_squares(5)
    truth[:3][truth[:3] == 2] = 0
    prediction = two_squares(5)
    prediction[1][prediction[1] == 2] = 0
    scores = vos_benchmark(prediction, truth, skip_first_and_last=False)
    assert scores.by_object[2].j.tolist() == [0, 1, 0, 1, 1]  # seen in frame 0 by the prediction; both empty in frame 1
    prediction[0][prediction[0] == 2] = 0
    scores = vos_benchmark(prediction, truth, skip_first_and_last=False)
    assert scores.by_object[2].j.tolist() == [0, 1, 1]  # seen in frame 2


def test_a_skipped_id_is_a_perfect_empty_object_in_davis_and_none_in_vos_benchmark():
    truth = relabelled(two_squares(), 0, 1, 3)
    prediction = np.where(truth == 3, 0, truth).astype(np.uint8)
    assert [row.j.mean() for row in davis_semi(prediction, truth).rows] == [1.0, 1.0, 0.0]
    assert jf(davis_semi(prediction, truth)) == pytest.approx(2 / 3)
    assert vos_benchmark(prediction, truth).objects == (1, 3)
    assert jf(vos_benchmark(prediction, truth)) == 0.5


def test_objects_that_are_not_predicted_score_as_empty_masks():
    truth = two_squares()
    nothing = np.zeros_like(truth)
    for protocol in ALL:
        scores = protocol(nothing, truth)
        assert len(scores.rows) == 2
        assert jf(scores) == 0.0


def test_a_hallucinated_proposal_costs_nothing_until_there_are_more_than_20():
    truth = two_squares()
    prediction = truth.copy()
    prediction[:, 0, 19] = 20
    assert jf(davis_unsupervised(prediction, truth)) == 1.0
    prediction[1, 0, 19] = 21
    with pytest.raises(InputError, match="frame 1: the id 21 is above 20, the number of proposals allowed"):
        davis_unsupervised(prediction, truth)
    assert jf(trackeval_jandf(prediction, truth)) == 1.0
    assert jf(vos_benchmark(prediction, truth)) == 1.0


def test_where_the_official_tool_exits_an_error_says_which_frame_and_id():
    truth = two_squares(4)
    prediction = truth.copy()
    prediction[[0, 3], 0, 0] = 3
    assert jf(davis_semi(prediction, truth)) == 1.0  # these two frames are not read
    prediction[2, 0, 0] = 3
    with pytest.raises(InputError, match="frame 2: the id 3 is above 2, the number of objects"):
        davis_semi(prediction, truth)
    with pytest.raises(InputError, match="frame 0: the id 3 is above 2"):
        ref_davis_strict(prediction, truth)


def test_a_sequence_without_objects_has_no_rows():
    nothing = np.zeros((3, 4, 5), np.uint8)
    for protocol in ALL:
        assert protocol(nothing, nothing).rows == ()
    with pytest.raises(InputError, match="no object"):
        over_sequences([davis_semi(nothing, nothing)])
    with pytest.raises(InputError, match="no object"):
        vos_benchmark_overall([vos_benchmark(nothing, nothing)])
    with pytest.raises(InputError, match="no object"):
        trackeval_summary(trackeval_jandf(nothing, nothing))


# --- statistics over sequences ---


def test_davis_and_vos_benchmark_average_objects_and_not_sequences():
    truth = two_squares()
    one = np.where(truth == 2, 0, truth).astype(np.uint8)
    found, missed = davis_semi(truth, truth), davis_semi(np.zeros_like(one), one)
    assert over_sequences([found, missed]).jf == pytest.approx(2 / 3)  # 1, 1 and 0
    percent = vos_benchmark_overall([vos_benchmark(truth, truth), vos_benchmark(np.zeros_like(one), one)])
    assert percent == pytest.approx((200 / 3, 200 / 3, 200 / 3))


def test_decay_of_a_long_sequence_is_nan_under_compat_and_right_under_fixed():
    truth = np.zeros((300, 4, 4), np.uint8)
    truth[:, 1:3, 1:3] = 1
    prediction = truth.copy()
    prediction[200:] = 0  # the first quarter is perfect, the last is lost
    scores = davis_unsupervised(prediction, truth)
    assert np.isnan(over_sequences([scores]).j.decay)
    assert over_sequences([scores], "fixed").j.decay == 1.0
    tracks = trackeval_jandf(prediction, truth)
    assert np.isnan(trackeval_summary(tracks).overall.j.decay)
    assert trackeval_summary(tracks, "fixed").overall.j.decay == 1.0


def test_refer_davis_is_the_mean_of_four_annotators_and_of_no_other_number():
    rows = [Overall(x, Summary(x, x, -x), Summary(2 * x, 1.0, 0.0)) for x in (0.25, 0.25, 0.5, 1.0)]
    assert ref_davis_mean(rows) == Overall(0.5, Summary(0.5, 0.5, -0.5), Summary(1.0, 1.0, 0.0))
    with pytest.raises(InputError, match="3 annotators, wanted 4"):
        ref_davis_mean(rows[:3])


# --- TrackEval ---


def test_trackeval_matches_on_j_where_davis_weighs_the_boundary_too():
    truth = np.zeros((1, 100, 100), np.uint8)
    truth[:, 30:70, 30:70] = 1
    holes, shifted = truth == 1, np.roll(truth, 2, axis=2) == 1
    holes[:, 36:64:4, 36:64:4] = False  # 49 of 1600 pixels, but more boundary than the square has
    j_holes, f_holes = (x[0] for x in sequence_scores(holes, truth == 1))
    j_shifted, f_shifted = (x[0] for x in sequence_scores(shifted, truth == 1))
    assert (j_holes, j_shifted, f_shifted) == (1551 / 1600, 1520 / 1680, 1.0)
    assert f_holes < 0.7
    # Label maps cannot overlap, so the two proposals take turns: what each shows alone is in its own frames.
    truth = np.concatenate([truth, truth])
    prediction = np.concatenate([holes.astype(np.uint8), 2 * shifted.astype(np.uint8)])
    assert trackeval_jandf(prediction, truth).proposals == (1,)
    assert davis_unsupervised(prediction, truth).proposals == (2,)


@pytest.mark.parametrize("protocol", [trackeval_jandf, davis_unsupervised])
def test_the_matching_counts_rightly_empty_frames(protocol):
    truth, prediction = np.zeros((2, 3, 1, 8), np.uint8)
    truth[0, 0, :4] = 1
    prediction[0, 0, 0], prediction[0, 0, 1:4] = 1, 2  # J is 1/4 and 3/4, but proposal 2 stays when the object is gone
    prediction[1:, 0, 1:4] = 2
    scores = protocol(prediction, truth)
    assert scores.proposals == (1,)
    assert scores.rows[0].j.tolist() == [0.25, 1.0, 1.0]


def tracks_of(value: float, tracks: int) -> TrackSummary:
    row = Scores(np.full(4, value), np.full(4, value))
    return trackeval_summary(SequenceScores((row,) * tracks, tuple(range(tracks)), tuple(range(tracks))))


def test_trackeval_weighs_sequences_by_their_tracks():
    overall, tracks = trackeval_combined([tracks_of(0.0, tracks=1), tracks_of(1.0, tracks=3)])
    assert tracks == 4
    assert (overall.jf, overall.j.mean, overall.f.recall) == (0.75, 0.75, 0.75)
    with pytest.raises(InputError, match="no sequence"):
        trackeval_combined([])


def test_half_a_last_bit_above_one_half_is_a_success_for_davis_and_none_for_trackeval():
    values = np.array([np.nextafter(0.5, 1), 1.0])
    scores = SequenceScores((Scores(values, values),), (1,), (1,))
    assert over_sequences([scores]).f.recall == 1.0
    assert trackeval_summary(scores).overall.f.recall == 0.5


# --- what is refused, and what is left alone ---


@pytest.mark.parametrize("protocol", ALL)
def test_stacks_that_would_give_a_wrong_number_are_refused(protocol):
    truth = two_squares()
    with pytest.raises(InputError, match="prediction has the type bool, wanted uint8 label maps"):
        protocol(truth == 1, truth)
    with pytest.raises(InputError, match=r"prediction has the shape \(3, 20, 20\), wanted the truth's \(4, 20, 20\)"):
        protocol(truth[:3], truth)
    with pytest.raises(InputError, match=r"truth has the shape \(20, 20\), wanted \(T, height, width\)|prediction has"):
        protocol(truth[0], truth[0])
    with pytest.raises(InputError, match="has 0 frames"):
        protocol(truth[:0], truth[:0])


@pytest.mark.parametrize("protocol", [davis_semi, vos_benchmark])
def test_two_frames_leave_nothing_to_score(protocol):
    with pytest.raises(InputError, match="2 frames, wanted 3 or more"):
        protocol(two_squares(2), two_squares(2))


@pytest.mark.parametrize("protocol", ALL)
def test_scoring_leaves_the_label_maps_as_they_were(protocol):
    rng = np.random.default_rng(2)
    truth, prediction = wandering(rng, 2), wandering(rng, 2)
    truth[1, :3] = 255
    copies = truth.copy(), prediction.copy()
    protocol(prediction, truth)
    assert np.array_equal(copies, (truth, prediction))
