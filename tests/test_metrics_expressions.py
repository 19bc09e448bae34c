"""One mask an expression: MeViS, Refer-DAVIS17 B, ReVOS, InsTrack, absent targets; numbers counted on 4 x 4 pixels."""

import numpy as np
import pytest

from eval.metrics.expressions import (
    ExpressionScore,
    InstructionScore,
    RevosScore,
    instrack,
    instrack_row,
    mevis,
    over_expressions,
    revos,
    revos_table,
    visa,
)
from trackgpt.errors import InputError, UsageError


def corner(frames: int = 1, rows: int = 2) -> np.ndarray:
    """`rows` x 2 pixels in the corner of 4 x 4."""
    masks = np.zeros((frames, 4, 4), bool)
    masks[:, :rows, :2] = True
    return masks


EMPTY = np.zeros((1, 4, 4), bool)


# --- MeViS and Refer-DAVIS17 B ---


@pytest.mark.parametrize("protocol", [mevis, visa])
def test_every_frame_counts_the_first_and_the_last_too(protocol):
    truth, prediction = corner(4), corner(4)
    prediction[[0, 3]] = False
    assert protocol(prediction, truth) == (0.5, 0.5)


@pytest.mark.parametrize("protocol", [mevis, visa])
def test_a_rightly_empty_frame_scores_1_and_a_wrongly_empty_one_0(protocol):
    truth = np.concatenate([corner(), EMPTY, EMPTY, corner()])
    prediction = np.concatenate([corner(), EMPTY, corner(), EMPTY])
    assert protocol(prediction, truth) == (0.5, 0.5)  # 1, 1, 0, 0


def test_half_a_mask_has_half_the_j():
    assert mevis(corner(rows=1), corner(rows=2)).j == 0.5


def test_the_order_of_frames_does_not_matter():
    rng = np.random.default_rng(0)
    prediction, truth = rng.random((2, 8, 12, 15)) < 0.5
    order = rng.permutation(8)
    assert mevis(prediction[order], truth[order]) == pytest.approx(mevis(prediction, truth), abs=1e-12)


def test_expressions_weigh_the_same_however_long_their_videos_are():
    long, short = mevis(corner(90), corner(90)), mevis(np.repeat(EMPTY, 10, 0), corner(10))
    assert over_expressions([long, short]) == (0.5, 0.5, 0.5)
    assert over_expressions([ExpressionScore(1.0, 0.5), ExpressionScore(0.5, 0.0)]) == (0.5, 0.75, 0.25)


# --- ReVOS ---


def test_a_is_the_share_of_right_pixels_and_r_what_is_hallucinated():
    truth, prediction = corner(rows=2), corner(rows=3)  # 4 pixels, and 2 more that are wrong
    foreground = corner(rows=4)  # 8 pixels
    score = revos(prediction, truth, foreground)
    assert (score.j, score.a) == (4 / 6, 14 / 16)
    assert score.r == 1 - 2 / (8 + 1e-6)


def test_r_is_1_for_silence_and_never_below_0():
    assert revos(EMPTY, corner(), corner()).r == 1.0
    assert revos(EMPTY, EMPTY, EMPTY) == (1.0, 1.0, 1.0, 1.0)
    assert revos(corner(), EMPTY, EMPTY).r == 0.0  # 4 wrong pixels, and nothing that could have been meant
    assert revos(~corner(), corner(), corner()).r == 0.0  # 12 wrong pixels against 4


def test_missing_pixels_cost_a_and_not_r():
    score = revos(corner(rows=1), corner(rows=2), corner(rows=2))
    assert (score.a, score.r) == (14 / 16, 1.0)


def test_a_foreground_of_two_layers_counts_a_pixel_twice():
    layers = 2 * corner(rows=2).astype(np.uint8)  # 4 pixels, two objects on each
    assert revos(corner(rows=3), corner(rows=2), layers).r == 1 - 2 / (8 + 1e-6)


def test_each_of_revos_two_groups_weighs_half():
    perfect, lost = RevosScore(1.0, 1.0, 1.0, 1.0), RevosScore(0.0, 0.5, 0.0, 0.0)
    table = revos_table([perfect, perfect, perfect, lost], ["referring"] * 3 + ["reasoning"])
    assert table.referring == (100, 100, 100, 100, 100)
    assert table.reasoning == (0, 50, 0, 0, 25)
    assert table.overall == (50, 75, 50, 50, 62.5)


def test_revos_rounds_every_expression_before_it_averages():
    thirds = [RevosScore(1 / 3, 2 / 3, 1 / 3, 1 / 3)] * 2
    table = revos_table(thirds, ["referring", "reasoning"])
    assert table.overall[:2] == (33.33, 66.67)
    assert table.overall.jf == 50.0
    # Halves are rounded as numpy rounds them: the script calls round() on numpy's floats, 1.115 becomes 1.12.
    j = 0.01115
    assert (100 * j, round(100 * j, 2)) == (1.115, 1.11)
    assert revos_table([RevosScore(j, j, j, j)] * 2, ["referring", "reasoning"]).overall.j == 1.12


def test_a_revos_group_without_expressions_is_not_a_zero():
    table = revos_table([RevosScore(1.0, 1.0, 1.0, 1.0)], ["referring"])
    assert table.referring.j == 100
    assert np.isnan(table.reasoning).all()
    assert np.isnan(table.overall).all()


# --- InsTrack ---


def test_recall_is_the_share_of_an_instructions_frames_above_one_half():
    truth, prediction = corner(4), corner(4)
    prediction[0] = False
    prediction[1, 0, :2] = False  # J is exactly 0.5, which fails
    score = instrack(prediction, truth)
    assert (score.j, score.j_recall) == ((0 + 0.5 + 1 + 1) / 4, 0.5)


def test_instrack_averages_recalls_over_instructions_and_not_over_frames():
    always, never = instrack(corner(90), corner(90)), instrack(np.repeat(EMPTY, 10, 0), corner(10))
    row = instrack_row([always, never])
    assert (row.jf, row.j, row.j_recall, row.f, row.f_recall) == (0.5, 0.5, 0.5, 0.5, 0.5)
    row = instrack_row([InstructionScore(1.0, 0.5, 0.25, 0.75)])
    assert row == (0.75, 1.0, 0.25, 0.5, 0.75)


# --- what is refused ---


@pytest.mark.parametrize("protocol", [mevis, visa, instrack, lambda p, t: revos(p, t, t)])
def test_masks_that_would_give_a_wrong_number_are_refused(protocol):
    with pytest.raises(InputError, match="prediction has the type uint8, wanted bool"):
        protocol(corner().astype(np.uint8) * 255, corner())
    with pytest.raises(InputError, match=r"prediction has the shape \(2, 4, 4\)"):
        protocol(corner(2), corner(3))
    with pytest.raises(InputError, match="no frame"):
        protocol(corner(0), corner(0))


def test_tables_of_nothing_and_words_that_are_no_group_are_refused():
    for table in (over_expressions, instrack_row):
        with pytest.raises(InputError, match="nothing was scored"):
            table([])
    score = RevosScore(1.0, 1.0, 1.0, 1.0)
    for scores, kinds in (([], []), ([score], ["referring", "reasoning"])):
        with pytest.raises(InputError, match="revos_table"):
            revos_table(scores, kinds)
    with pytest.raises(UsageError, match="'2', wanted 'referring' or 'reasoning'"):
        revos_table([score], ["2"])
    with pytest.raises(InputError, match=r"foreground is bool \(2, 4, 4\)"):
        revos(corner(), corner(), corner(2))
