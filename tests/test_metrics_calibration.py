"""Calibration and resampling against numbers worked out by hand, scipy, and simulations with a known answer."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from eval.metrics.calibration import expected_calibration_error, reliability, spearman
from eval.metrics.intervals import bootstrap_mean, paired_bootstrap
from trackgpt.errors import InputError, UsageError

# --- rank correlation ---


def test_spearman_sees_the_order_and_not_the_distance():
    ious = [0.1, 0.2, 0.4, 0.9]
    assert spearman([0.0, 0.01, 0.02, 1.0], ious) == 1.0
    assert spearman([0.9, 0.5, 0.4, 0.3], ious) == -1.0
    assert spearman([0.2, 0.1, 0.3, 0.4], ious) == pytest.approx(0.8, abs=1e-15)  # 1 - 6 * (1 + 1) / (4 * 15)


def test_spearman_equals_scipy_with_ties():
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores, ious = rng.integers(0, 6, (2, 50)) / 5
        assert spearman(scores, ious) == pytest.approx(spearmanr(scores, ious).statistic, abs=1e-14)


def test_spearman_is_unknown_where_one_side_never_changes():
    assert np.isnan(spearman([0.5, 0.5, 0.5], [0.1, 0.2, 0.3]))
    assert np.isnan(spearman([0.1, 0.2, 0.3], [1, 1, 1]))
    assert np.isnan(spearman([0.5], [0.5]))
    assert np.isnan(spearman([], []))


# --- reliability ---


def test_each_bin_holds_the_mean_score_and_the_mean_iou_of_its_frames():
    table = reliability([0.1, 0.2, 0.6, 0.8], [0.3, 0.5, 0.5, 0.5], bins=4)
    assert table.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert table.counts.tolist() == [2, 0, 1, 1]
    assert table.scores[[0, 2, 3]] == pytest.approx([0.15, 0.6, 0.8], abs=1e-15)
    assert table.ious[[0, 2, 3]] == pytest.approx([0.4, 0.5, 0.5], abs=1e-15)
    assert table.gaps[[0, 2, 3]] == pytest.approx([-0.25, 0.1, 0.3], abs=1e-15)
    assert np.isnan([table.scores[1], table.ious[1], table.gaps[1]]).all()


def test_a_score_on_an_edge_counts_in_the_bin_above_and_one_in_the_last():
    for bins in (7, 10, 100):
        edges = [k / bins for k in range(bins)]
        assert reliability(edges, edges, bins).counts.tolist() == [1] * bins
    assert reliability([1.0, 1.0], [0.0, 1.0]).counts.tolist() == [0] * 9 + [2]
    assert reliability([0.3], [0.0]).counts[3] == 1  # 0.1 * 3 is a little more than 0.3


def test_expected_calibration_error_weighs_the_gaps_with_the_number_of_frames():
    scores, ious = [0.1, 0.2, 0.6, 0.8], [0.3, 0.5, 0.5, 0.5]
    expected = (2 * 0.25 + 1 * 0.1 + 1 * 0.3) / 4
    assert expected_calibration_error(scores, ious, bins=4) == pytest.approx(expected, abs=1e-15)
    # In a single bin the errors -0.2, -0.3, 0.1, 0.3 nearly cancel.
    assert expected_calibration_error(scores, ious, bins=1) == pytest.approx(0.1 / 4, abs=1e-15)


def test_expected_calibration_error_is_0_for_an_oracle_and_1_for_its_opposite():
    ious = np.linspace(0, 1, 101)
    assert expected_calibration_error(ious, ious) == 0.0
    assert expected_calibration_error(np.ones(50), np.zeros(50)) == 1.0
    assert expected_calibration_error(np.full(50, 0.9), np.full(50, 0.65)) == pytest.approx(0.25, abs=1e-15)


def test_without_frames_the_table_is_empty_and_the_error_unknown():
    assert reliability([], []).counts.tolist() == [0] * 10
    assert np.isnan(expected_calibration_error([], []))


@pytest.mark.parametrize(
    ("scores", "ious", "message"),
    [
        ([0.5, np.nan], [0.5, 0.5], "score 1 of 2 is nan"),
        ([0.5, 0.5], [0.5, np.nan], "IoU 1 of 2 is nan"),
        ([3.2, 0.5], [0.5, 0.5], "score 0 of 2 is 3.2"),  # a logit
        ([0.5, 0.5], [-0.1, 0.5], "IoU 0 of 2 is -0.1"),
        ([0.5, 0.5], [0.5], r"\(2,\) and IoUs \(1,\)"),
        ([[0.5]], [[0.5]], r"\(1, 1\)"),
    ],
)
def test_values_that_are_no_score_or_iou_are_refused(scores, ious, message):
    for measure in (spearman, reliability, expected_calibration_error):
        with pytest.raises(InputError, match=message):
            measure(scores, ious)


def test_a_table_without_bins_is_refused():
    with pytest.raises(UsageError, match="bins is 0"):
        expected_calibration_error([0.5], [0.5], bins=0)


# --- intervals ---


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values = np.random.default_rng(1).random(50)
    assert bootstrap_mean(values, seed=7) == bootstrap_mean(values, seed=7)
    assert bootstrap_mean(values, seed=7)[1:] != bootstrap_mean(values, seed=8)[1:]


def test_the_interval_is_as_wide_as_the_theory_of_the_mean_says():
    values = np.random.default_rng(2).normal(10, 2, 400)
    mean, low, high = bootstrap_mean(values, seed=0, draws=20_000)
    assert mean == values.mean()
    error = values.std() / np.sqrt(400)
    assert low == pytest.approx(mean - 1.96 * error, abs=0.06 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.06 * error)
    narrow = bootstrap_mean(values, seed=0, draws=20_000, level=0.5)
    assert narrow.high - narrow.low == pytest.approx(2 * 0.6745 * error, rel=0.04)


def test_nineteen_of_twenty_intervals_hold_the_true_mean():
    rng = np.random.default_rng(3)
    intervals = [bootstrap_mean(rng.beta(5, 2, 60), seed, draws=400) for seed in range(400)]
    covered = np.mean([low <= 5 / 7 <= high for _, low, high in intervals])
    assert 0.92 <= covered <= 0.97


def test_objects_of_one_video_are_drawn_together():
    # 20 videos of 10 equal objects carry the information of 20 values, not of 200.
    per_video = np.random.default_rng(4).random(20)
    objects, videos = np.repeat(per_video, 10), np.repeat([f"video {k}" for k in range(20)], 10)
    grouped, single = bootstrap_mean(objects, 0, groups=videos), bootstrap_mean(per_video, 0)
    assert grouped.high - grouped.low == pytest.approx(single.high - single.low, rel=0.1)
    naive = bootstrap_mean(objects, 0)
    assert (grouped.high - grouped.low) / (naive.high - naive.low) == pytest.approx(np.sqrt(10), rel=0.1)


def test_videos_of_different_sizes_weigh_by_their_objects():
    # Two videos, 1 and 3 objects: a draw is all of the first (0), all of the second (1), or both (3/4).
    interval = bootstrap_mean([0, 1, 1, 1], seed=0, groups=["a", "b", "b", "b"])
    assert interval == (0.75, 0.0, 1.0)
    middle = bootstrap_mean([0, 1, 1, 1], seed=0, groups=["a", "b", "b", "b"], level=0.4)
    assert (middle.low, middle.high) == (0.75, 0.75)  # half of all draws, from quantile 0.25 to 0.75


def test_one_video_alone_has_a_mean_and_no_interval():
    for interval in (bootstrap_mean([0.4], seed=0), bootstrap_mean([0.3, 0.5], seed=0, groups=[1, 1])):
        assert interval.mean == pytest.approx(0.4)
        assert np.isnan(interval[1:]).all()
    assert bootstrap_mean([0.5, 0.5, 0.5], seed=0) == (0.5, 0.5, 0.5)


def test_many_values_are_drawn_in_portions_from_one_stream():
    values = np.random.default_rng(5).random(3000)  # 2,000 draws of 3,000 values are six portions
    chosen = np.random.default_rng(6).integers(3000, size=(2000, 3000))
    low, high = np.quantile(values[chosen].mean(axis=1), [0.025, 0.975])
    assert bootstrap_mean(values, seed=6)[1:] == pytest.approx((low, high), abs=1e-12)


def test_a_small_steady_gain_is_seen_in_pairs_although_the_two_intervals_overlap():
    rng = np.random.default_rng(8)
    hardness = rng.uniform(0.2, 0.9, 40)
    a, b = hardness + 0.02 + rng.normal(0, 0.01, 40), hardness
    first, second, gain = bootstrap_mean(a, 0), bootstrap_mean(b, 0), paired_bootstrap(a, b, 0)
    assert first.low < second.high
    assert 0 < gain.low < gain.mean < gain.high
    assert gain.mean == pytest.approx(0.02, abs=0.005)
    lost = paired_bootstrap(b, a, 0)
    assert lost.mean == -gain.mean
    assert lost.high < 0


def test_a_system_compared_with_itself_has_no_difference():
    values = np.random.default_rng(9).random(30)
    assert paired_bootstrap(values, values, seed=0) == (0, 0, 0)


@pytest.mark.parametrize(
    ("values", "options", "error", "message"),
    [
        ([], {}, InputError, r"shape \(0,\)"),
        ([1.0, np.nan], {}, InputError, "not finite"),
        ([[1.0, 2.0]], {}, InputError, r"shape \(1, 2\)"),
        ([1.0, 2.0], {"groups": ["a"]}, InputError, r"groups have the shape \(1,\)"),
        ([1.0, 2.0], {"draws": 0}, UsageError, "draws is 0"),
        ([1.0, 2.0], {"level": 95}, UsageError, "level 95"),
    ],
)
def test_an_interval_of_nothing_or_of_nan_is_refused(values, options, error, message):
    with pytest.raises(error, match=message):
        bootstrap_mean(values, seed=0, **options)


def test_systems_scored_on_different_objects_cannot_be_paired():
    with pytest.raises(InputError, match=r"shapes \(3,\) and \(2,\)"):
        paired_bootstrap([1, 2, 3], [1, 2], seed=0)
