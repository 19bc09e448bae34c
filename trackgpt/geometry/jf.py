"""J and F of masks: region similarity, boundary accuracy and the statistics DAVIS reports over them.

Masks are bool, shape (height, width), index [y, x] in pixels of the original frame. Every number equals the official
scorer's to the last bit (davis2017-evaluation, commit ac7c43f), because pixels are counted as integers and the few
float operations keep its order. What differs is the work: both masks are cropped to the box around them first.

Which frames, objects and expressions enter, and whether void pixels are left out or count as background, is the
protocol's choice, not this module's: the kits decide it and name it beside their numbers.

Sources: F. Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016,
section 4 (J, F, mean, recall, decay); J. Pont-Tuset et al., "The 2017 DAVIS Challenge", arXiv:1704.00675 (J&F).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from trackgpt.errors import InputError, UsageError

BoolArray = NDArray[np.bool_]
ByteArray = NDArray[np.uint8]
DecayMode = Literal["compat", "fixed"]

BOUND_TH = 0.008
RECALL_THRESHOLD = 0.5


class Scores(NamedTuple):
    """J and F of one object in every frame, float64 (T,) each."""

    j: NDArray[np.float64]
    f: NDArray[np.float64]


class Summary(NamedTuple):
    """Statistics of one measure: mean, share of frames above 0.5, loss from the first quarter to the last."""

    mean: float
    recall: float
    decay: float


class Overall(NamedTuple):
    """J&F of a set of objects, and the statistics of J and of F averaged over them."""

    jf: float
    j: Summary
    f: Summary


def region_similarity(prediction: BoolArray, truth: BoolArray, void: BoolArray | None = None) -> float:
    """J, the intersection over union of two masks.

    J = |P and G| / |P or G| over the pixels outside `void`.

    Args:
        prediction: bool (height, width).
        truth: bool (height, width).
        void: bool (height, width), pixels without a truth, which are left out; None for none.

    Returns:
        J in [0, 1]; 1 if neither mask has a pixel, 0 if only one of them has.

    Raises:
        InputError: a mask is not bool, not (height, width), or of another shape than the others.
    """
    found, wanted = _without_void(prediction, truth, void)
    return _jaccard(found, wanted)


def boundary_accuracy(
    prediction: BoolArray, truth: BoolArray, void: BoolArray | None = None, bound_th: float = BOUND_TH
) -> float:
    """F, the agreement of two mask boundaries within a tolerance.

    F = 2 P R / (P + R), where P is the share of predicted boundary pixels with a true one at a distance of at most r
    pixels, R the reverse, and r = ceil(bound_th * diagonal of the frame): 8 pixels at 480 x 854, 4 at 240 x 320.
    A pixel belongs to the boundary if it differs from its right, lower or lower-right neighbour, so the border of the
    frame is no boundary. Void pixels are background of both masks, so a mask cut by void has a boundary there.

    Args:
        prediction: bool (height, width).
        truth: bool (height, width).
        void: bool (height, width), pixels without a truth; None for none.
        bound_th: tolerance, below 1 as a fraction of the frame's diagonal, from 1 on in whole pixels.

    Returns:
        F in [0, 1]; 1 if neither mask has a boundary (empty, or covering the frame), 0 if only one of them has.

    Raises:
        InputError: a mask is not bool, not (height, width), or of another shape than the others.
        UsageError: bound_th is negative or not finite.
    """
    found, wanted = _without_void(prediction, truth, void)
    radius = _radius(wanted.shape, bound_th)
    box = _union_box(found, wanted)
    return _boundary_f(found[box], wanted[box], radius) if box else 1.0


def sequence_scores(
    predictions: BoolArray, truths: BoolArray, void: BoolArray | None = None, bound_th: float = BOUND_TH
) -> Scores:
    """J and F of one object in every frame of a sequence; equal to the functions of one frame, faster than both.

    Args:
        predictions: bool (T, height, width).
        truths: bool (T, height, width).
        void: bool (T, height, width), pixels without a truth; None for none.
        bound_th: tolerance of F, see `boundary_accuracy`.

    Returns:
        float64 (T,) J and F. No frame is dropped: a protocol that leaves out the first and the last passes [1:-1].

    Raises:
        InputError: the stacks are not bool, not (T, height, width), or of different shapes.
        UsageError: bound_th is negative or not finite.
    """
    _check(predictions, truths, void, ("T", "height", "width"))
    radius = _radius(truths.shape[1:], bound_th)
    scores = np.ones((2, len(truths)))
    for t, (prediction, truth) in enumerate(zip(predictions, truths, strict=True)):
        found, wanted = _masked(prediction, truth, None if void is None else void[t])
        if box := _union_box(found, wanted):
            scores[:, t] = _jaccard(found[box], wanted[box]), _boundary_f(found[box], wanted[box], radius)
    return Scores(*scores)


def summarise(values: ArrayLike, decay: DecayMode = "compat") -> Summary:
    """Mean, recall and decay of one object's J or F over its scored frames.

    mean = average over the values that are not NaN. recall = share of all values > 0.5: exactly 0.5 fails, and so does
    NaN. decay = mean of the first quarter - mean of the last, where the quarters of T values run, both ends included,
    between the frames round(linspace(1, T, 5)); neighbours share a frame.

    The official scorer keeps those frame numbers in 8 bits. From 257 frames on they wrap, and decay is NaN (T = 300)
    or compares the wrong frames (T = 400). "compat" does the same, "fixed" does not; up to 256 they are equal.
    (At T = 256 the official code itself answers NaN under numpy 2, whose 8-bit 255 + 1 is 0; "compat" is numpy 1.)

    Args:
        values: (T,) numbers.
        decay: "compat" or "fixed".

    Returns:
        float64 statistics, all NaN if there is no value.

    Raises:
        InputError: values are not one-dimensional.
        UsageError: decay is another word.
    """
    series = np.asarray(values, np.float64)
    if series.ndim != 1:
        raise InputError(f"summarise: values have the shape {series.shape}, wanted (T,); pass one object at a time")
    if decay not in ("compat", "fixed"):
        raise UsageError(f"summarise: decay is {decay!r}, wanted 'compat' or 'fixed'")
    if not series.size:
        return Summary(np.nan, np.nan, np.nan)
    edges = (np.round(np.linspace(1, len(series), 5) + 1e-10) - 1).astype(np.int64)
    if decay == "compat":
        edges %= 256
    first, last = series[edges[0] : edges[1] + 1], series[edges[3] : edges[4] + 1]
    return Summary(_nanmean(series), float(np.mean(series > RECALL_THRESHOLD)), _nanmean(first) - _nanmean(last))


def jf_mean(j_means: ArrayLike, f_means: ArrayLike) -> float:
    """J&F of a set of objects: half the sum of the mean of their J means and the mean of their F means.

    Args:
        j_means: (objects,) mean J of every object, in [0, 1].
        f_means: (objects,) mean F of the same objects.

    Returns:
        J&F in [0, 1]. Every object weighs the same, however long its sequence; a NaN among them makes it NaN.

    Raises:
        InputError: the two differ in shape, are not one-dimensional, or are empty.
    """
    j, f = np.asarray(j_means, np.float64), np.asarray(f_means, np.float64)
    if j.shape != f.shape or j.ndim != 1 or not j.size:
        raise InputError(f"jf_mean: shapes {j.shape} and {f.shape}, wanted twice (objects,) with one object or more")
    return float((np.mean(j) + np.mean(f)) / 2)


def over_objects(scores: Sequence[Scores], decay: DecayMode = "compat") -> Overall:
    """The row a dataset reports: every statistic per object first, then its mean over objects.

    Args:
        scores: one entry an object, of all sequences together.
        decay: see `summarise`; with "compat" one object of more than 256 frames can make the decay of all NaN.

    Returns:
        J&F and the mean, recall and decay of J and of F.

    Raises:
        InputError: there is no object.
    """
    if not scores:
        raise InputError("over_objects: no object was scored, wanted one or more; check the list of sequences")
    j = np.array([summarise(score.j, decay) for score in scores])
    f = np.array([summarise(score.f, decay) for score in scores])
    return Overall(jf_mean(j[:, 0], f[:, 0]), _column_means(j), _column_means(f))


def _column_means(rows: NDArray[np.float64]) -> Summary:
    return Summary(*(float(np.mean(np.ascontiguousarray(column))) for column in rows.T))


def _nanmean(values: NDArray[np.float64]) -> float:
    """Like numpy's, without its warning where there is nothing to average."""
    return np.nan if np.isnan(values).all() else float(np.nanmean(values))


def _check(prediction: BoolArray, truth: BoolArray, void: BoolArray | None, axes: tuple[str, ...]) -> None:
    named = {"prediction": prediction, "truth": truth} | ({} if void is None else {"void": void})
    for name, mask in named.items():
        if mask.dtype != np.bool_:
            raise InputError(f"{name} has the type {mask.dtype}, wanted bool; compare a label map with the object's id")
        if mask.ndim != len(axes) or mask.shape != truth.shape:
            wanted = f"({', '.join(axes)})" if mask is truth else f"the truth's {truth.shape}"
            raise InputError(f"{name} has the shape {mask.shape}, wanted {wanted}; resize masks to the truth first")


def _without_void(prediction: BoolArray, truth: BoolArray, void: BoolArray | None) -> tuple[ByteArray, ByteArray]:
    _check(prediction, truth, void, ("height", "width"))
    return _masked(prediction, truth, void)


def _masked(prediction: BoolArray, truth: BoolArray, void: BoolArray | None) -> tuple[ByteArray, ByteArray]:
    """Both masks as bytes of 0 and 1, which OpenCV reads, with void turned into background."""
    if void is not None:
        prediction, truth = prediction & ~void, truth & ~void
    return prediction.view(np.uint8), truth.view(np.uint8)


def _union_box(found: ByteArray, wanted: ByteArray) -> tuple[slice, slice] | None:
    """Rows and columns around both masks and one pixel more, None if both are empty.

    The crop is exact: boundary pixels lie at most one pixel outside a mask, dilated boundaries are only read at
    boundary pixels, and the pixel more keeps a mask's outline away from the crop's border unless it is the frame's.
    """
    height, width = wanted.shape
    x, y, columns, rows = cv2.boundingRect(found | wanted)
    if not columns:
        return None
    return slice(max(y - 1, 0), min(y + rows + 1, height)), slice(max(x - 1, 0), min(x + columns + 1, width))


def _jaccard(found: ByteArray, wanted: ByteArray) -> float:
    union = cv2.countNonZero(found | wanted)
    return cv2.countNonZero(found & wanted) / union if union else 1.0


def _boundary_f(found: ByteArray, wanted: ByteArray, radius: int) -> float:
    edge_found, edge_wanted = _boundary(found), _boundary(wanted)
    pixels_found, pixels_wanted = cv2.countNonZero(edge_found), cv2.countNonZero(edge_wanted)
    if not pixels_found or not pixels_wanted:
        return float(pixels_found == pixels_wanted)
    disk = _disk(radius)
    precision = cv2.countNonZero(np.bitwise_and(edge_found, cv2.dilate(edge_wanted, disk))) / pixels_found
    recall = cv2.countNonZero(np.bitwise_and(edge_wanted, cv2.dilate(edge_found, disk))) / pixels_wanted
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _boundary(mask: ByteArray) -> ByteArray:
    """1 where a pixel differs from its right, lower or lower-right neighbour inside the frame, else 0."""
    edge = np.zeros_like(mask)
    inner = mask[:-1, :-1]
    edge[:-1, :-1] = (inner ^ mask[:-1, 1:]) | (inner ^ mask[1:, :-1]) | (inner ^ mask[1:, 1:])
    edge[-1, :-1] = mask[-1, :-1] ^ mask[-1, 1:]
    edge[:-1, -1] = mask[:-1, -1] ^ mask[1:, -1]
    return edge


def _radius(shape: tuple[int, ...], bound_th: float) -> int:
    if not (0 <= bound_th < np.inf):
        raise UsageError(f"bound_th is {bound_th}, wanted a fraction of the diagonal (below 1) or pixels (from 1 on)")
    return int(bound_th if bound_th >= 1 else np.ceil(bound_th * np.linalg.norm(shape)))


@lru_cache(maxsize=64)
def _disk(radius: int) -> ByteArray:
    """Structuring element x^2 + y^2 <= radius^2, uint8 (2 * radius + 1, 2 * radius + 1)."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(x * x + y * y <= radius * radius, np.uint8)
