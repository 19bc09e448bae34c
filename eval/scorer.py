"""J and F from PNG files: label maps, binary masks, and all pairs of proposals and objects.

One frame of truth and one of prediction are in memory at a time, and the numbers are those of `sequence_scores` on the
stacked masks, bit for bit. What a benchmark means is told by plain arguments, because the benchmarks differ:

* which frames count is the caller's list of files (DAVIS semi-supervised drops the first and the last);
* which ids are objects is `objects` (DAVIS: 1 to the largest of the first truth that is not void); an id in neither
  file of a frame scores 1 there, as two empty masks do, and other ids are background;
* pixels of label `void` in the truth are left out of J and are background for F (DAVIS unsupervised); with None they
  are background of the truth, and a prediction there is wrong (DAVIS semi-supervised);
* a prediction that is missing is None in the list, and counts as empty; a path that does not exist is an error.

Source: see `trackgpt.geometry.jf`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from eval.label_maps import MAX_PIXELS, read_label_map, read_mask
from trackgpt.errors import InputError, UsageError
from trackgpt.geometry.jf import (
    BOUND_TH,
    FrameScorer,
    Scores,
    Scratch,
    boundaries,
    box_around,
    dilated,
    f_measure,
    tolerance,
)

ByteArray = NDArray[np.uint8]
BoolArray = NDArray[np.bool_]
CountArray = NDArray[np.int64]
Source = str | Path
Truth = TypeVar("Truth")
_PLANES = 8  # masks that share a byte
_NO_FRAME: Any = object()


class PairwiseScores(NamedTuple):
    """J and F of every proposal with every object, float64 (proposals, objects, T) each."""

    j: NDArray[np.float64]
    f: NDArray[np.float64]


def score_label_maps(
    truth_files: Sequence[Source],
    prediction_files: Sequence[Source | None],
    objects: Sequence[int],
    *,
    void: int | None = None,
    bound_th: float = BOUND_TH,
    max_pixels: int = MAX_PIXELS,
) -> list[Scores]:
    """J and F of every object of a sequence, from one label map of truth and one of prediction per frame.

    Args:
        truth_files: the frames to score, in order.
        prediction_files: as many; None where there is no prediction, which counts as empty.
        objects: ids, each in 1..255 and in truth and prediction the same.
        void: label of truth pixels to leave out, usually 255; None leaves none out.
        bound_th: tolerance of F, see `boundary_accuracy`.
        max_pixels: see `read_label_map`.

    Returns:
        One `Scores`, float64 (T,) each, for every object in the order given, as `over_objects` takes them.

    Raises:
        InputError: a file is missing, damaged, no label map, or of another size than the first truth; or there are
            more files of one kind.
        UsageError: an id is not in 1..255, is void, or comes twice; bound_th is negative or not finite.
    """
    _check_ids("objects", objects, void)
    scorer, scores = None, np.empty((len(truth_files), len(objects), 2))
    for t, (truths, predictions) in enumerate(_label_maps(truth_files, prediction_files, void, max_pixels)):
        scorer = scorer or FrameScorer(truths.shape, bound_th)
        scores[t] = np.reshape(scorer.of_labels(predictions, truths, objects), (-1, 2))
    return [Scores(scores[:, k, 0].copy(), scores[:, k, 1].copy()) for k in range(len(objects))]


def score_binary_masks(
    truths: Iterable[BoolArray | Source],
    prediction_files: Iterable[Source | None],
    *,
    bound_th: float = BOUND_TH,
    max_pixels: int = MAX_PIXELS,
) -> Scores:
    """J and F of one mask per frame, as benchmarks of expressions have them: any value but 0 is the object.

    Args:
        truths: the frames to score, in order: bool (height, width), or files. A generator is read one frame at a time.
        prediction_files: as many; None where there is no prediction, which counts as empty.
        bound_th: tolerance of F, see `boundary_accuracy`.
        max_pixels: see `read_mask`.

    Returns:
        float64 (T,) J and F.

    Raises:
        InputError: a file is missing, damaged, no mask, or of another size than the first truth; a truth is not bool
            (height, width); or there are more frames of one kind.
        UsageError: bound_th is negative or not finite.
    """
    scorer: FrameScorer | None = None
    scores: list[tuple[float, float]] = []
    for t, (source, file) in enumerate(_frame_by_frame(truths, prediction_files)):
        shape = None if scorer is None else scorer.shape
        truth = read_mask(source, shape, max_pixels) if isinstance(source, str | Path) else source
        if truth.dtype != np.bool_ or truth.ndim != 2 or truth.shape != (shape or truth.shape):
            wanted = shape or "(height, width)"
            raise InputError(f"truth of frame {t} is {truth.dtype} of shape {truth.shape}, wanted bool {wanted}")
        scorer = scorer or FrameScorer(truth.shape, bound_th)
        found = np.zeros_like(truth) if file is None else read_mask(file, truth.shape, max_pixels)
        scores.append(scorer.of_masks(found, truth))
    return Scores(*np.array(scores, np.float64).reshape(-1, 2).T.copy())


def pairwise_label_maps(
    truth_files: Sequence[Source],
    prediction_files: Sequence[Source | None],
    objects: Sequence[int],
    proposals: Sequence[int],
    *,
    void: int | None = None,
    bound_th: float = BOUND_TH,
    max_pixels: int = MAX_PIXELS,
) -> PairwiseScores:
    """J and F of every proposal with every object, for a protocol that matches them afterwards.

    Every boundary is found and dilated once per frame, eight masks at a time, whatever the number of pairs.

    Args:
        truth_files: the frames to score, in order.
        prediction_files: as many; None where there is no prediction, which counts as empty.
        objects: ids in the truth, each in 1..255.
        proposals: ids in the prediction, each in 1..255.
        void: label of truth pixels to leave out, usually 255; None leaves none out.
        bound_th: tolerance of F, see `boundary_accuracy`.
        max_pixels: see `read_label_map`.

    Returns:
        float64 (proposals, objects, T) J and F.

    Raises:
        InputError: as `score_label_maps`.
        UsageError: as `score_label_maps`, for objects and for proposals.
    """
    _check_ids("objects", objects, void)
    _check_ids("proposals", proposals, None)
    scores = np.ones((2, len(proposals), len(objects), len(truth_files)))
    scratch = None
    for t, (truths, predictions) in enumerate(_label_maps(truth_files, prediction_files, void, max_pixels)):
        scratch = scratch or Scratch(truths.shape, tolerance(truths.shape, bound_th))
        box = box_around(truths | predictions)
        if box is not None:
            scores[..., t] = _pairs(predictions[box], truths[box], proposals, objects, scratch)
    return PairwiseScores(*scores)


def _pairs(
    predictions: ByteArray, truths: ByteArray, proposals: Sequence[int], objects: Sequence[int], scratch: Scratch
) -> NDArray[np.float64]:
    """J and F, float64 (2, proposals, objects), of one frame."""
    table = _counts(predictions, truths)
    rows, columns = np.array(proposals, np.intp), np.array(objects, np.intp)
    shared = table[rows[:, None], columns]
    union = table[rows].sum(1)[:, None] + table[:, columns].sum(0) - shared
    j = np.divide(shared, union, out=np.ones(shared.shape), where=union > 0)
    found, wanted = _outlines(predictions, proposals, scratch), _outlines(truths, objects, scratch)
    of_found, of_wanted = _matched(found, wanted), _matched(wanted, found).T
    f = [
        [f_measure((found.pixels[p], wanted.pixels[k]), (of_found[p, k], of_wanted[p, k])) for k in range(len(objects))]
        for p in range(len(proposals))
    ]
    return np.stack([j, np.reshape(f, j.shape)])


def _counts(predictions: ByteArray, truths: ByteArray) -> CountArray:
    """Pixels that have both labels, int64 (256, 256): how often each of predictions meets each of truths."""
    codes = predictions.astype(np.uint16)
    codes <<= 8
    codes |= truths
    return np.bincount(codes.reshape(-1), minlength=65536).reshape(256, 256)


class _Outlines(NamedTuple):
    """Boundaries of several masks of one frame.

    Attributes:
        places: int64 (n,), where any of the masks has a boundary pixel, in rows of a dilation's stride.
        which: bool (n, masks), which of them it is.
        pixels: boundary pixels of every mask.
        dilated: for each eight masks, uint8 (height * stride,), one a bit.
    """

    places: CountArray
    which: BoolArray
    pixels: list[int]
    dilated: list[ByteArray]


def _outlines(labels: ByteArray, ids: Sequence[int], scratch: Scratch) -> _Outlines:
    rows, grown = [], []
    for first in range(0, len(ids), _PLANES):
        bits = np.zeros(256, np.uint8)
        for bit, label in enumerate(ids[first : first + _PLANES]):
            bits[label] = 1 << bit
        outline = boundaries(cv2.LUT(labels, bits).reshape(labels.shape), scratch)
        rows.append(outline.rows.reshape(-1).copy())
        grown.append(dilated(outline, scratch).reshape(-1).copy())
    if not rows:
        return _Outlines(np.empty(0, np.int64), np.empty((0, 0), bool), [], [])
    places = np.flatnonzero(np.bitwise_or.reduce(rows) != 0)
    which = _planes([row[places] for row in rows], len(ids))
    return _Outlines(places, which, [int(n) for n in which.sum(0)], grown)


def _planes(bits: list[ByteArray], masks: int) -> BoolArray:
    """bool (n, masks) of uint8 (n,) for each eight masks."""
    return np.unpackbits(np.stack(bits, 1), axis=1, count=masks, bitorder="little").view(np.bool_)


def _matched(edges: _Outlines, others: _Outlines) -> CountArray:
    """Boundary pixels of each of `edges` within the tolerance of each of `others`, int64 (edges, others)."""
    if not edges.pixels or not others.pixels:
        return np.zeros((len(edges.pixels), len(others.pixels)), np.int64)
    near = _planes([grown[edges.places] for grown in others.dilated], len(others.pixels))
    # float64 counts these exactly and multiplies matrices 10 times faster than integers do
    return (edges.which.T.astype(np.float64) @ near.astype(np.float64)).astype(np.int64)


def _label_maps(
    truth_files: Sequence[Source], prediction_files: Sequence[Source | None], void: int | None, max_pixels: int
) -> Iterator[tuple[ByteArray, ByteArray]]:
    """Truth and prediction of every frame, void pixels 0 in both, all of the first truth's size."""
    shape: tuple[int, ...] | None = None
    for truth_file, prediction_file in _frame_by_frame(truth_files, prediction_files):
        truths = read_label_map(truth_file, shape, max_pixels)
        shape = truths.shape
        if prediction_file is None:
            predictions = np.zeros(shape, np.uint8)
        else:
            predictions = read_label_map(prediction_file, shape, max_pixels)
        if void is not None and (left_out := truths == void).any():
            truths, predictions = np.where(left_out, 0, truths), np.where(left_out, 0, predictions)
        yield truths, predictions


def _frame_by_frame(
    truths: Iterable[Truth], predictions: Iterable[Source | None]
) -> Iterator[tuple[Truth, Source | None]]:
    for t, (truth, prediction) in enumerate(zip_longest(truths, predictions, fillvalue=_NO_FRAME)):
        if truth is _NO_FRAME or prediction is _NO_FRAME:
            more, fewer = ("predictions", "truths") if truth is _NO_FRAME else ("truths", "predictions")
            raise InputError(f"{t} {fewer} and more {more}; wanted one of each per frame, None for no prediction")
        yield truth, prediction


def _check_ids(name: str, ids: Sequence[int], void: int | None) -> None:
    for label in ids:
        if not 1 <= label <= 255 or label == void:
            raise UsageError(f"{name}: {label} is no object's id; wanted 1 to 255" + (f" but {void}" if void else ""))
    if len(set(ids)) != len(ids):
        raise UsageError(f"{name}: {list(ids)} has an id twice; wanted each once")
