"""From PNGs to J and F: the numbers of the plain definition and of `sequence_scores` on stacks, to the last bit."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.metrics.masks import sequence_scores
from eval.metrics.plain_jf import plain_boundary, plain_boundary_accuracy, plain_disk, plain_label_maps
from eval.scorer import pairwise_label_maps, score_binary_masks, score_label_maps
from trackgpt.errors import InputError, UsageError
from trackgpt.geometry import jf


def label_maps(rng: np.random.Generator, frames: int, height: int, width: int, objects: int) -> np.ndarray:
    """Ellipses of every id, over each other and over the frame's border, some of them absent; noise in some frames."""
    yy, xx = np.ogrid[:height, :width]
    labels = np.zeros((frames, height, width), np.uint8)
    for t in range(frames):
        for label in rng.permutation(np.arange(1, objects + 1)):
            y, x, a, b = rng.integers(-6, height + 6), rng.integers(-6, width + 6), *rng.integers(1, 25, 2)
            if rng.random() < 0.85:
                labels[t][((yy - y) / a) ** 2 + ((xx - x) / b) ** 2 < 1] = label
        if rng.random() < 0.3:
            noise = rng.random((height, width)) < 0.02
            labels[t][noise] = rng.integers(0, objects + 1, noise.sum())
    return labels


def near(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same objects a few pixels away, so that boundaries match in part."""
    return np.stack([np.roll(frame, rng.integers(-3, 4, 2), (0, 1)) for frame in labels])


def saved(folder: Path, labels: np.ndarray) -> list[Path]:
    folder.mkdir()
    files = [folder / f"{t:05d}.png" for t in range(len(labels))]
    for path, label in zip(files, labels, strict=True):
        Image.fromarray(label).save(path)
    return files


SIZES = [(1, 1), (1, 40), (40, 1), (2, 3), (37, 61), (64, 64), (120, 201)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("void", [None, 255])
@pytest.mark.parametrize("bound_th", [0.008, 0.05, 3])
def test_label_maps_score_as_the_definition_and_the_stacks_do(tmp_path, size, void, bound_th):
    rng = np.random.default_rng([*size, bound_th >= 1])
    truths = label_maps(rng, 6, *size, 4)
    predictions = near(truths, rng)
    predictions[4] = 0
    truths[rng.random(truths.shape) < 0.03] = 255
    truths[5] = 0
    files = saved(tmp_path / "truth", truths), saved(tmp_path / "prediction", predictions)
    objects = [3, 1, 9]  # 2 and 4 are background, 9 is nowhere
    scores = score_label_maps(*files, objects, void=void, bound_th=bound_th)
    j, f = plain_label_maps(*files, objects, void=void, bound_th=bound_th)
    assert np.array_equal(j, [score.j for score in scores])
    assert np.array_equal(f, [score.f for score in scores])
    left_out = None if void is None else truths == void
    for label, score in zip(objects, scores, strict=True):
        stacks = sequence_scores(predictions == label, truths == label, left_out, bound_th)
        assert np.array_equal(stacks, score)
    assert set(scores[2].j) == set(scores[2].f) == {1.0}
    assert scores[0].j.flags.c_contiguous
    assert scores[0].j.flags.owndata  # nothing keeps the scores of the other objects alive


@pytest.mark.parametrize("size", SIZES[1:])
@pytest.mark.parametrize("void", [None, 255])
def test_all_pairs_score_as_each_pair_does(tmp_path, size, void):
    rng = np.random.default_rng(size)
    truths = label_maps(rng, 4, *size, 10)
    predictions = near(truths, rng)
    truths[rng.random(truths.shape) < 0.03] = 255
    truths[2], predictions[2:] = 0, predictions[2:] // 2
    predictions[2] = 0
    files = saved(tmp_path / "truth", truths), saved(tmp_path / "prediction", predictions)
    objects, proposals = [2, 1, 10, 200, 3, 4, 5, 6, 7], list(range(1, 20))  # both more than fit a byte
    scores = pairwise_label_maps(*files, objects, proposals, void=void, bound_th=0.03)
    assert scores.j.shape == scores.f.shape == (19, 9, 4)
    left_out = None if void is None else truths == void
    for p, proposal in enumerate(proposals):
        for k, label in enumerate(objects):
            expected = sequence_scores(predictions == proposal, truths == label, left_out, bound_th=0.03)
            assert np.array_equal(scores.j[p, k], expected.j), (proposal, label)
            assert np.array_equal(scores.f[p, k], expected.f), (proposal, label)


def test_no_object_or_no_proposal_or_no_frame_gives_empty_arrays(tmp_path):
    files = saved(tmp_path / "a", np.ones((2, 6, 7), np.uint8))
    assert score_label_maps(files, files, []) == []
    assert pairwise_label_maps(files, files, [], [1, 2]).j.shape == (2, 0, 2)
    assert pairwise_label_maps(files, files, [1], []).f.shape == (0, 1, 2)
    assert [score.j.shape for score in score_label_maps([], [], [1, 2])] == [(0,), (0,)]
    assert score_binary_masks([], []).f.shape == (0,)


def test_binary_masks_score_as_the_stacks_from_arrays_and_from_files(tmp_path):
    rng = np.random.default_rng(5)
    truths, predictions = label_maps(rng, 5, 50, 70, 1) > 0, label_maps(rng, 5, 50, 70, 1) > 0
    expected = sequence_scores(predictions, truths)
    of_255 = saved(tmp_path / "255", predictions.astype(np.uint8) * 255)
    of_1 = saved(tmp_path / "1", predictions.astype(np.uint8))
    truth_files = saved(tmp_path / "truth", truths.astype(np.uint8) * 255)
    for truth, files in ((truths, of_255), (iter(truths), of_1), (truth_files, iter(of_255))):
        scores = score_binary_masks(truth, files)
        assert np.array_equal(scores, expected)
    assert np.array_equal(
        score_binary_masks(truths, of_1, bound_th=5).f, sequence_scores(predictions, truths, None, 5).f
    )


def test_a_missing_prediction_counts_as_empty(tmp_path):
    labels = np.zeros((2, 20, 20), np.uint8)
    labels[0, 5:9, 5:9] = 1
    files = saved(tmp_path / "a", labels)
    assert np.array_equal(score_label_maps(files, [None, None], [1])[0], [[0, 1], [0, 1]])
    assert np.array_equal(score_binary_masks(files, [None, None]), [[0, 1], [0, 1]])
    assert pairwise_label_maps(files, [None, None], [1], [1, 2]).j.tolist() == [[[0, 1]], [[0, 1]]]


def test_void_that_is_left_out_costs_nothing_and_void_that_is_background_does(tmp_path):
    truth, found = np.zeros((2, 1, 20, 30), np.uint8)
    truth[0, 5:10, 5:10] = 1
    truth[0, 5:10, 10:15] = 255
    found[0, 5:10, 5:15] = 1  # 50 pixels, 25 of them void
    files = saved(tmp_path / "a", truth), saved(tmp_path / "b", found)
    assert score_label_maps(*files, [1], void=255)[0].j == 1.0
    assert score_label_maps(*files, [1])[0].j == 0.5
    assert pairwise_label_maps(*files, [1], [1], void=255).j.item() == 1.0
    assert pairwise_label_maps(*files, [1], [1]).j.item() == 0.5


def test_one_frame_of_each_is_in_memory_at_a_time(tmp_path):
    """Binary masks are asked for one by one: the 3rd truth only after the 2nd prediction."""
    files = saved(tmp_path / "a", np.ones((4, 6, 7), np.uint8))
    order = []

    def noted(name, items):
        for item in items:
            order.append(name)
            yield item

    score_binary_masks(noted("t", files), noted("p", files))
    assert "".join(order) == "tptptptp"


@pytest.mark.parametrize("score", [lambda t, p: score_label_maps(t, p, [1]), score_binary_masks])
def test_files_that_do_not_fit_are_named(tmp_path, score):
    files = saved(tmp_path / "a", np.ones((3, 6, 7), np.uint8))
    small = saved(tmp_path / "b", np.ones((3, 5, 7), np.uint8))
    for truth, found, words in [
        (files, [*files[:2], small[2]], f"{small[2]}: 5 x 7 pixels (height x width), wanted the truth's 6 x 7"),
        ([files[0], small[1], files[2]], files, f"{small[1]}: 5 x 7 pixels"),
        (files, [*files[:2], tmp_path / "none.png"], "none.png: cannot be read"),
        (files, files[:2], "2 predictions and more truths"),
        (files[:1], files, "1 truths and more predictions"),
    ]:
        with pytest.raises(InputError) as caught:
            score(truth, found)
        assert words in str(caught.value)
    Image.new("RGB", (7, 6)).save(files[1])
    with pytest.raises(InputError, match=r"00001\.png: a RGB image"):
        score(files, files)


def test_truths_that_are_no_masks_are_refused(tmp_path):
    files = saved(tmp_path / "a", np.ones((2, 6, 7), np.uint8))
    for truth, words in [
        (np.ones((2, 6, 7), np.uint8), r"frame 0 is uint8 of shape \(6, 7\), wanted bool"),
        (np.ones((2, 1, 6, 7), bool), r"shape \(1, 6, 7\)"),
        ([np.ones((6, 7), bool), np.ones((7, 6), bool)], r"frame 1 is bool of shape \(7, 6\), wanted bool \(6, 7\)"),
    ]:
        with pytest.raises(InputError, match=words):
            score_binary_masks(truth, files)


@pytest.mark.parametrize(("ids", "words"), [([0], "0 is no"), ([256], "256"), ([1, 1], "twice"), ([255], "but 255")])
def test_ids_that_no_pixel_can_have_are_refused(ids, words):
    with pytest.raises(UsageError, match=f"objects: .*{words}"):
        score_label_maps([], [], ids, void=255)
    if ids != [255]:
        with pytest.raises(UsageError, match=f"proposals: .*{words}"):
            pairwise_label_maps([], [], [1], ids, void=255)


# The parts the speed comes from


@pytest.mark.parametrize("radius", [*range(23), 40, 75])
def test_the_shifts_of_a_dilation_make_the_disk_exactly(radius):
    stage, disk = {(0, 0)}, set()
    steps = jf._shifts(radius)
    for step in steps:
        disk |= {(y + dy, x + dx) for dy, dx in step.taken for y, x in stage}
        if step.grown is not None:
            stage |= {(y + step.grown[0], x + step.grown[1]) for y, x in stage}
    assert disk == {tuple(place) for place in np.argwhere(plain_disk(radius))}
    operations = sum(len(step.taken) for step in steps) + len(steps) - 1
    assert operations <= max(7, len(disk) / 2)
    if radius == 8:  # 480 x 854
        assert (len(disk), operations) == (197, 15)


def test_eight_masks_share_a_byte_and_stay_apart():
    rng = np.random.default_rng(6)
    masks = rng.random((8, 30, 41)) < np.linspace(0.001, 0.02, 8)[:, None, None]
    planes = np.packbits(masks, axis=0, bitorder="little")[0]
    scratch = jf.Scratch((30, 41), 3)
    outline = jf.boundaries(planes, scratch)
    for bit, mask in enumerate(masks):
        assert np.array_equal(outline.rows[:, :41] >> bit & 1, plain_boundary(mask))
    assert not outline.rows[:, 41:].any()
    near = jf.dilated(outline, scratch)[:, :41]
    yy, xx = np.mgrid[:30, :41]
    for bit, mask in enumerate(masks):
        places = np.argwhere(plain_boundary(mask))
        within = [((yy - y) ** 2 + (xx - x) ** 2 <= 9) for y, x in places]
        assert np.array_equal(near >> bit & 1, np.any(within, axis=0) if within else np.zeros((30, 41)))


def test_a_tolerance_beyond_the_frame_matches_everything():
    truth, found = np.zeros((2, 20, 30), bool)
    truth[0, 0] = found[19, 29] = True
    for bound_th in (36, 1e9):  # from corner to corner there are 34.7 pixels
        assert jf.boundary_accuracy(found, truth, bound_th=bound_th) == 1.0
    assert jf.boundary_accuracy(found, truth, bound_th=20) == 0.0


def test_the_plain_definition_gives_numbers_worked_out_by_hand():
    truth, found, nothing = np.zeros((3, 20, 20), bool)
    truth[-1, -1] = found[-2, -1] = True
    # Boundaries: (18,18), (18,19), (19,18), and (17,18), (17,19), (18,18), (18,19); in common two: P = 2/4, R = 2/3.
    assert plain_boundary_accuracy(found, truth, nothing, 0) == pytest.approx(4 / 7, abs=1e-15)
    assert plain_boundary_accuracy(nothing, truth, nothing, 0.008) == 0.0
    assert plain_boundary_accuracy(nothing, nothing, nothing, 0.008) == 1.0
    assert plain_disk(1).tolist() == [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
