"""gIoU, cIoU, N-acc and T-acc on masks of four pixels."""

import numpy as np
import pytest

from eval.metrics.images import Overlap, ciou, giou, lisa, n_acc, overlap, t_acc
from trackgpt.errors import InputError


def mask(*pixels: int) -> np.ndarray:
    """2 x 2 pixels, row by row."""
    return np.array(pixels, bool).reshape(2, 2)


def truth(*pixels: int) -> np.ndarray:
    return np.array(pixels, np.uint8).reshape(2, 2)


NOTHING = overlap(mask(0, 0, 0, 0), truth(0, 0, 0, 0))
HALLUCINATED = overlap(mask(1, 1, 1, 0), truth(0, 0, 0, 0))
MISSED = overlap(mask(0, 0, 0, 0), truth(1, 0, 0, 0))
HALF = overlap(mask(1, 0, 0, 0), truth(1, 1, 0, 0))
WHOLE = overlap(mask(1, 1, 1, 1), truth(1, 1, 1, 1))


def test_pixels_are_counted():
    assert overlap(mask(1, 1, 0, 0), truth(1, 0, 1, 0)) == Overlap(intersection=1, union=3, prediction=2, truth=2)


def test_giou_averages_images_and_ciou_pixels():
    assert giou([HALF, WHOLE]) == 0.75  # 1/2 and 1
    assert ciou([HALF, WHOLE]) == 5 / 6  # 1 + 4 of 2 + 4 pixels


def test_an_empty_truth_wants_silence():
    assert giou([NOTHING]) == 1.0
    assert giou([HALLUCINATED]) == 0.0
    assert giou([MISSED]) == 0.0


def test_in_ciou_silence_on_an_empty_truth_earns_nothing_and_a_hallucination_costs_its_pixels():
    assert ciou([WHOLE, NOTHING]) == ciou([WHOLE]) == 1.0
    assert ciou([WHOLE, HALLUCINATED]) == 4 / 7
    assert np.isnan(ciou([NOTHING]))


def test_pixels_of_the_ignore_label_belong_to_neither_mask():
    assert overlap(mask(1, 1, 0, 0), truth(1, 255, 255, 0)) == Overlap(1, 1, 1, 1)
    assert overlap(mask(0, 1, 0, 0), truth(0, 255, 0, 0)) == NOTHING
    rng = np.random.default_rng(0)
    labels = rng.choice(np.array([0, 1, 255], np.uint8), (20, 30))
    prediction, other = rng.random((2, 20, 30)) < 0.5
    painted = np.where(labels == 255, other, prediction)
    assert overlap(painted, labels) == overlap(prediction, labels)


def test_a_bool_truth_is_one_without_ignored_pixels():
    assert overlap(mask(1, 0, 0, 0), mask(1, 1, 0, 0)) == HALF


def test_turning_the_image_changes_nothing():
    rng = np.random.default_rng(1)
    labels, prediction = rng.integers(0, 2, (20, 30)).astype(np.uint8), rng.random((20, 30)) < 0.5
    assert overlap(prediction[::-1].T, labels[::-1].T) == overlap(prediction, labels)


def test_lisa_differs_from_the_definition_by_its_constants_only():
    score = lisa([HALF, WHOLE, NOTHING, HALLUCINATED])
    assert score.giou == (1 / (2 + 1e-5) + 4 / (4 + 1e-5) + 1 + 0) / (4 + 1e-5)
    assert score.ciou == 5 / (9 + 1e-10)
    assert score.giou == pytest.approx(giou([HALF, WHOLE, NOTHING, HALLUCINATED]), abs=1e-5)
    assert lisa([WHOLE]).giou < 1.0
    assert lisa([NOTHING]).ciou == 0.0


def test_n_acc_asks_the_sentences_without_a_target_and_t_acc_the_others():
    rows = [NOTHING, NOTHING, HALLUCINATED, NOTHING, MISSED, HALF]
    assert n_acc(rows) == 0.75
    assert t_acc(rows) == 0.5
    assert np.isnan(n_acc([HALF]))
    assert np.isnan(t_acc([NOTHING]))


@pytest.mark.parametrize("measure", [giou, ciou, lisa, n_acc, t_acc])
def test_a_mean_over_no_images_is_refused(measure):
    with pytest.raises(InputError, match=f"{measure.__name__}: no sentence was scored"):
        measure([])


@pytest.mark.parametrize(
    ("prediction", "labels", "message"),
    [
        (truth(1, 0, 0, 0), truth(1, 0, 0, 0), "prediction is uint8"),
        (mask(1, 0, 0, 0)[:1], truth(1, 0, 0, 0), r"prediction is bool \(1, 2\), wanted bool \(2, 2\)"),
        (mask(1, 0, 0, 0)[None], truth(1, 0, 0, 0)[None], r"prediction is bool \(1, 2, 2\)"),
        (mask(1, 0, 0, 0), truth(1, 0, 0, 0).astype(int), "truth has the type int64"),
        (mask(1, 0, 0, 0), truth(2, 0, 0, 0), r"truth has the labels \[0, 2\]"),
    ],
)
def test_masks_that_would_give_a_wrong_number_are_refused(prediction, labels, message):
    with pytest.raises(InputError, match=message):
        overlap(prediction, labels)
