"""J and F against a slow transcription of the definition, numbers worked out by hand, and the official scorer."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from eval.metrics.masks import (
    Scores,
    boundary_accuracy,
    jf_mean,
    over_objects,
    region_similarity,
    sequence_scores,
    summarise,
)
from trackgpt.errors import InputError, UsageError

GOLDEN = Path(__file__).parents[2] / "shared" / "golden" / "vos_jf"
needs_golden = pytest.mark.skipif(
    not (GOLDEN / "expected.npz").is_file(), reason="stored values of the official scorer (../shared/golden) are absent"
)


# --- the definition, written down without any thought of speed ---


def boundary_reference(mask: np.ndarray) -> np.ndarray:
    """Coordinates (n, 2) of the pixels that differ from the right, lower or lower-right neighbour."""
    height, width = mask.shape
    pixels = []
    for y in range(height):
        for x in range(width):
            neighbours = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            if any(v < height and u < width and mask[v, u] != mask[y, x] for v, u in neighbours):
                pixels.append((y, x))
    return np.array(pixels).reshape(-1, 2)


def boundary_accuracy_reference(prediction, truth, void=None, bound_th=0.008) -> float:
    if void is not None:
        prediction, truth = prediction & ~void, truth & ~void
    radius = bound_th if bound_th >= 1 else np.ceil(bound_th * np.linalg.norm(truth.shape))
    found, wanted = boundary_reference(prediction), boundary_reference(truth)
    if len(found) == 0 or len(wanted) == 0:
        return float(len(found) == len(wanted))
    near = ((found[:, None] - wanted[None]) ** 2).sum(axis=2) <= radius**2
    precision, recall = near.any(axis=1).sum() / len(found), near.any(axis=0).sum() / len(wanted)
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def blobs(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """One to three ellipses, often over the frame's border, sometimes with noise."""
    yy, xx = np.ogrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for _ in range(rng.integers(1, 4)):
        y, x, a, b = rng.integers(-6, height + 6), rng.integers(-6, width + 6), *rng.integers(2, 18, 2)
        mask |= ((yy - y) / a) ** 2 + ((xx - x) / b) ** 2 < 1
    return mask ^ (rng.random(mask.shape) < 0.02) if rng.random() < 0.3 else mask


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1), (2, 2), (23, 40), (41, 24)])
@pytest.mark.parametrize("bound_th", [0.008, 0.05, 1, 4])
def test_boundary_accuracy_equals_the_definition_on_random_shapes(size, bound_th):
    rng = np.random.default_rng(size[1])
    for _ in range(6):
        prediction, truth = blobs(rng, *size), blobs(rng, *size)
        void = rng.random(size) < 0.1
        for a, b, v in [
            (prediction, truth, None),
            (prediction, truth, void),
            (np.ones(size, bool), truth, None),
            (~truth, truth, None),
        ]:
            assert boundary_accuracy(a, b, v, bound_th) == boundary_accuracy_reference(a, b, v, bound_th)


def test_region_similarity_counts_the_pixels_outside_void():
    prediction, truth, void = np.zeros((3, 4, 5), bool)
    prediction[0, :4] = truth[0, 1:] = True  # 3 pixels in common, 5 in the union
    assert region_similarity(prediction, truth) == 3 / 5
    void[0, 0] = True  # the pixel only the prediction has
    assert region_similarity(prediction, truth, void) == 3 / 4
    void[:] = True
    assert region_similarity(prediction, truth, void) == 1.0


# --- edge cases and numbers a reader can check ---


def test_two_empty_masks_agree_and_an_empty_mask_misses_any_other():
    empty, dot = np.zeros((2, 30, 40), bool)
    dot[12, 17] = True
    for measure in (region_similarity, boundary_accuracy):
        assert measure(empty, empty) == 1.0
        assert measure(dot, dot) == 1.0
        assert measure(dot, empty) == 0.0
        assert measure(empty, dot) == 0.0


def test_a_mask_that_covers_the_frame_has_no_boundary():
    full, square, empty = np.ones((30, 40), bool), np.zeros((30, 40), bool), np.zeros((30, 40), bool)
    square[10:20, 10:20] = True
    assert boundary_accuracy(full, full) == 1.0
    assert boundary_accuracy(square, full) == 0.0
    assert region_similarity(square, full) == 100 / 1200
    # No boundary on either side: F says they agree, only J sees that nothing does.
    assert (region_similarity(empty, full), boundary_accuracy(empty, full)) == (0.0, 1.0)


def test_the_lower_right_corner_pixel_is_seen_by_its_neighbours():
    corner, above = np.zeros((2, 20, 20), bool)
    corner[-1, -1] = above[-2, -1] = True
    assert boundary_accuracy(corner, corner, bound_th=0) == 1.0
    # The boundary of `corner` is (18,18), (18,19), (19,18), that of `above` (17,18), (17,19), (18,18), (18,19);
    # they share two pixels: P = 2/4, R = 2/3.
    assert boundary_accuracy(above, corner, bound_th=0) == pytest.approx(4 / 7, abs=1e-15)


@pytest.mark.parametrize(("size", "tolerance"), [((480, 854), 8), ((240, 320), 4), ((600, 800), 8), ((100, 100), 2)])
def test_the_tolerance_is_the_diagonal_times_0_008_rounded_up(size, tolerance):
    height, width = size
    truth, near, far = np.zeros((3, height, width), bool)
    truth[:, : width // 2] = True  # a straight edge from top to bottom
    near[:, : width // 2 + tolerance] = True
    far[:, : width // 2 + tolerance + 1] = True
    assert boundary_accuracy(near, truth) == 1.0
    assert boundary_accuracy(far, truth) == 0.0


def test_the_tolerance_is_a_disk_and_not_a_square():
    truth, diagonal = np.zeros((2, 60, 60), bool)
    truth[20, 20] = diagonal[24, 24] = True
    # The nearest of their 2 x 2 boundary pixels are (20, 20) and (23, 23): 4.24 pixels apart, 3 in each direction.
    assert boundary_accuracy(diagonal, truth, bound_th=4) == 0.0
    assert boundary_accuracy(diagonal, truth, bound_th=5) > 0.0


def test_a_sequence_scores_each_frame_as_the_functions_of_one_frame_do():
    rng = np.random.default_rng(3)
    predictions, truths = (np.stack([blobs(rng, 40, 60) for _ in range(8)]) for _ in range(2))
    predictions[2] = predictions[3] = truths[3] = False
    void = rng.random(truths.shape) < 0.1
    for v in (None, void):
        scores = sequence_scores(predictions, truths, v)
        each = [(p, t, None if v is None else v[i]) for i, (p, t) in enumerate(zip(predictions, truths, strict=True))]
        assert scores.j.tolist() == [region_similarity(*frame) for frame in each]
        assert scores.f.tolist() == [boundary_accuracy(*frame) for frame in each]
    assert sequence_scores(predictions[:0], truths[:0]).j.shape == (0,)


def test_masks_that_are_views_with_other_strides_score_the_same():
    rng = np.random.default_rng(4)
    prediction, truth = blobs(rng, 50, 70), blobs(rng, 50, 70)
    wide = np.repeat(prediction, 2, axis=1)
    assert boundary_accuracy(wide[:, ::2], truth) == boundary_accuracy(prediction, truth)
    transposed = boundary_accuracy(np.asfortranarray(prediction), np.asfortranarray(truth))
    assert transposed == boundary_accuracy(prediction, truth)
    assert region_similarity(prediction[::-1], truth[::-1]) == region_similarity(prediction, truth)


def test_scoring_leaves_the_masks_as_they_were():
    prediction, truth = np.random.default_rng(0).random((2, 20, 20)) < 0.5
    void = np.eye(20, dtype=bool)
    copies = prediction.copy(), truth.copy(), void.copy()
    boundary_accuracy(prediction, truth, void)
    sequence_scores(prediction[None], truth[None], void[None])
    assert all(np.array_equal(a, b) for a, b in zip((prediction, truth, void), copies, strict=True))


@pytest.mark.parametrize(
    ("prediction", "truth", "void", "message"),
    [
        (np.full((4, 4), 255, np.uint8), np.ones((4, 4), bool), None, "prediction has the type uint8, wanted bool"),
        (np.ones((4, 5), bool), np.ones((4, 4), bool), None, r"prediction has the shape \(4, 5\)"),
        (np.ones((1, 4, 4), bool), np.ones((1, 4, 4), bool), None, r"shape \(1, 4, 4\)"),
        (np.ones((4, 4), bool), np.ones((4, 4), bool), np.ones((4, 3), bool), r"void has the shape \(4, 3\)"),
        (np.ones((4, 4), bool), np.ones((4, 4), bool), np.ones((4, 4), np.uint8), "void has the type uint8"),
    ],
)
def test_masks_that_would_give_a_wrong_number_are_refused(prediction, truth, void, message):
    for measure in (region_similarity, boundary_accuracy):
        with pytest.raises(InputError, match=message):
            measure(prediction, truth, void)


def test_sequences_of_different_lengths_are_refused():
    with pytest.raises(InputError, match=r"prediction has the shape \(3, 4, 4\), wanted the truth's \(2, 4, 4\)"):
        sequence_scores(np.ones((3, 4, 4), bool), np.ones((2, 4, 4), bool))


@pytest.mark.parametrize("bound_th", [-0.1, float("nan"), float("inf")])
def test_a_tolerance_that_is_no_length_is_refused(bound_th):
    with pytest.raises(UsageError, match="bound_th"):
        boundary_accuracy(np.ones((4, 4), bool), np.ones((4, 4), bool), bound_th=bound_th)


# --- statistics ---


def test_recall_counts_values_above_one_half_and_not_one_half():
    summary = summarise([0.5, 0.5, 0.75, 1.0])
    assert (summary.mean, summary.recall) == (0.6875, 0.5)
    with_gap = summarise([np.nan, 1.0, 0.0, 1.0])
    assert (with_gap.mean, with_gap.recall) == (2 / 3, 0.5)  # NaN leaves the mean, but is no success


def test_decay_is_the_first_quarter_less_the_last_with_shared_ends():
    # 9 frames: quarters begin and end at frames 0, 2, 4, 6, 8, so the first is 0..2 and the last is 6..8.
    assert summarise([1, 1, 1, 0, 0, 0, 0.25, 0.25, 0.25]).decay == 0.75
    # 7 frames: they begin and end at 0, 1.5, 3, 4.5, 6, and halves are rounded up: 0, 2, 3, 5, 6.
    assert summarise([1, 1, 0.25, 0, 0, 0.5, 0]).decay == 0.75 - 0.25
    assert summarise([0.75]).decay == 0.0
    assert summarise([1.0, 0.25]).decay == 0.75  # the first quarter is frame 0, the last is frame 1


def test_fixed_decay_holds_beyond_256_frames_where_compat_wraps():
    for frames in (1, 5, 100, 256):
        values = np.linspace(1, 0, frames)
        assert summarise(values, "compat") == summarise(values, "fixed")
    falling = np.linspace(1, 0, 257)  # quarters of 65 frames: means 0.875 and 0.125
    assert summarise(falling, "fixed").decay == pytest.approx(0.75, abs=1e-12)
    assert np.isnan(summarise(falling, "compat").decay)
    # 400 frames: the frame numbers 0, 100, 200, 299, 399 wrap to 0, 100, 200, 43, 143.
    step = np.zeros(400)
    step[:101] = 1
    assert summarise(step, "fixed").decay == 1.0
    assert summarise(step, "compat").decay == 1 - 58 / 101


def test_an_object_without_scored_frames_has_no_statistics():
    assert np.isnan(summarise([])).all()
    unknown = summarise([np.nan, np.nan])
    assert np.isnan([unknown.mean, unknown.decay]).all()
    assert unknown.recall == 0


def test_summarise_refuses_what_it_cannot_mean():
    with pytest.raises(InputError, match=r"shape \(2, 3\)"):
        summarise(np.ones((2, 3)))
    with pytest.raises(UsageError, match="'exact'"):
        summarise([1.0], "exact")


def test_jf_mean_averages_objects_and_not_frames():
    assert jf_mean([1.0, 0.5], [0.5, 0.0]) == 0.5
    assert np.isnan(jf_mean([1.0, np.nan], [1.0, 1.0]))
    long, short = Scores(np.ones(90), np.ones(90)), Scores(np.zeros(10), np.full(10, 0.5))
    overall = over_objects([long, short])
    assert (overall.jf, overall.j.mean, overall.f.mean, overall.j.recall, overall.f.recall) == (
        0.625,
        0.5,
        0.75,
        0.5,
        0.5,
    )
    for j, f in (([], []), ([1.0], [1.0, 1.0])):
        with pytest.raises(InputError, match="jf_mean"):
            jf_mean(j, f)
    with pytest.raises(InputError, match="no object"):
        over_objects([])


# --- the official scorer, bit for bit ---


@pytest.fixture(scope="module")
def golden() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    with np.load(GOLDEN / "inputs.npz") as inputs, np.load(GOLDEN / "expected.npz") as expected:
        return dict(inputs), dict(expected)


def same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return np.array_equal(ours, theirs, equal_nan=True)


def named(expected: dict[str, np.ndarray], task: str) -> Iterator[str]:
    return (key.split("/")[2] for key in expected if key.startswith(f"davis/{task}/") and key.endswith("/J"))


def semi_supervised(inputs: dict[str, np.ndarray], name: str) -> list[Scores]:
    """DAVIS: void is background, objects are those of the first frame, the first and last frame are not scored."""
    truth, found = inputs[f"gt/{name}"].copy(), inputs[f"pred/{name}"]
    truth[truth == 255] = 0
    return [sequence_scores(found[1:-1] == k, truth[1:-1] == k) for k in range(1, truth[0].max() + 1)]


@needs_golden
def test_every_frame_and_statistic_of_davis_semi_supervised_is_equal(golden):
    inputs, expected = golden
    object_frames, everything = 0, {}
    for name in named(expected, "semi-supervised"):
        scores = everything[name] = semi_supervised(inputs, name)
        prefix = f"davis/semi-supervised/{name}"
        assert same(np.array([s.j for s in scores]), expected[f"{prefix}/J"]), name
        assert same(np.array([s.f for s in scores]), expected[f"{prefix}/F"]), name
        assert same(np.array([summarise(s.j) + summarise(s.f) for s in scores]), expected[f"{prefix}/stats"]), name
        object_frames += expected[f"{prefix}/J"].size
    assert object_frames == 512
    for key, left_out in (("GLOBAL", ()), ("GLOBAL_without_long300", ("long300",))):
        overall = over_objects([s for name, scores in everything.items() if name not in left_out for s in scores])
        assert same(np.array([overall.jf, *overall.j, *overall.f]), expected[f"davis/semi-supervised/{key}"])


@needs_golden
def test_every_frame_and_statistic_of_davis_unsupervised_is_equal(golden):
    """All frames, void left out, rows in the order of the proposals that are matched to objects."""
    inputs, expected = golden
    for name in named(expected, "unsupervised"):
        truth, found = inputs[f"gt/{name}"], inputs[f"pred/{name}"]
        void = truth == 255
        objects = range(1, truth[0][~void[0]].max() + 1)
        proposals = range(1, max(found.max(), len(objects)) + 1)
        table = [[sequence_scores(found == p, truth == k, void) for k in objects] for p in proposals]
        quality = np.array([[(s.j.mean() + s.f.mean()) / 2 for s in row] for row in table])
        matched = [table[p][k] for p, k in zip(*linear_sum_assignment(-quality), strict=True)]
        prefix = f"davis/unsupervised/{name}"
        assert same(np.array([s.j for s in matched]), expected[f"{prefix}/J"]), name
        assert same(np.array([s.f for s in matched]), expected[f"{prefix}/F"]), name
        assert same(np.array([summarise(s.j) + summarise(s.f) for s in matched]), expected[f"{prefix}/stats"]), name


@needs_golden
@pytest.mark.parametrize(("key", "name", "label"), [("specks1", "specks", 1), ("blobs3_2", "blobs3", 2)])
def test_every_tolerance_and_a_random_void_mask_are_equal(golden, key, name, label):
    inputs, expected = golden
    truth, found = inputs[f"gt/{name}"] == label, inputs[f"pred/{name}"] == label
    for bound_th in (0.004, 0.008, 0.02, 0.05, 1, 3, 10):
        scores = sequence_scores(found, truth, bound_th=bound_th)
        assert same(scores.f, expected[f"mask/{key}/F_bound_{bound_th}"]), bound_th
        assert same(scores.j, expected[f"mask/{key}/J"])
    if f"mask/{key}/J_void" in expected:
        scores = sequence_scores(found, truth, expected["mask/void"])
        assert same(scores.j, expected[f"mask/{key}/J_void"])
        assert same(scores.f, expected[f"mask/{key}/F_void"])


@needs_golden
def test_fixed_decay_differs_from_the_official_one_on_the_long_sequence_only(golden):
    inputs, expected = golden
    for name in named(expected, "semi-supervised"):
        stats = expected[f"davis/semi-supervised/{name}/stats"]
        fixed = np.array([summarise(s.j, "fixed") + summarise(s.f, "fixed") for s in semi_supervised(inputs, name)])
        assert same(fixed, stats) == (name != "long300")
        assert np.isfinite(fixed).all()
    long300 = semi_supervised(inputs, "long300")
    assert np.isnan(over_objects(long300).j.decay)
    assert over_objects(long300, "fixed").j == summarise(long300[0].j, "fixed")
