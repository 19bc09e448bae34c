"""J and F as they are defined, computed step by step as the official tool does, without any optimisation.

`eval.scorer` is tested against this and measured against it, so it shares no code with it. A sequence is read whole
through Pillow into float64; the masks of its objects are the places where a stack filled with each object's id equals
it; then each object and frame gets its own boundary maps and its own dilation by a disk of all its pixels, over the
whole frame. `davis2017-evaluation` is described to work in the same steps; this is no copy of it, and how its time
compares is said in `eval.speed.scorer`.

Sources: F. Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016,
section 4; D. Martin et al., "Learning to Detect Natural Image Boundaries", TPAMI 26(5), 2004 (the measure's origin).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]


def plain_label_maps(
    truth_files: Sequence[str | Path],
    prediction_files: Sequence[str | Path],
    objects: Sequence[int],
    void: int | None = None,
    bound_th: float = 0.008,
) -> tuple[FloatArray, FloatArray]:
    """J and F of every object of a sequence of label maps; `score_label_maps` without its checks and its haste.

    Args:
        truth_files: label maps of one size.
        prediction_files: as many, of the same size.
        objects: ids.
        void: label of truth pixels that are left out; None for none.
        bound_th: tolerance, below 1 as a fraction of the frame's diagonal, from 1 on in whole pixels.

    Returns:
        float64 (objects, T) J and F.
    """
    truth_labels, found_labels = stacked(truth_files), stacked(prediction_files)
    voids = np.zeros(truth_labels.shape, bool) if void is None else truth_labels == void
    truths, predictions = separated(truth_labels, objects), separated(found_labels, objects)
    scores = np.empty((2, len(objects), len(truth_files)))
    for k in range(len(objects)):
        scores[0, k] = plain_region_similarity(predictions[k], truths[k], voids)
        for t in range(len(truth_files)):
            scores[1, k, t] = plain_boundary_accuracy(predictions[k, t], truths[k, t], voids[t], bound_th)
    return scores[0], scores[1]


def stacked(files: Sequence[str | Path]) -> FloatArray:
    """Label maps as float64 (T, height, width)."""
    labels = [np.array(Image.open(file)) for file in files]
    stack = np.zeros((len(files), *labels[0].shape))
    for t, label in enumerate(labels):
        stack[t] = label
    return stack


def separated(labels: FloatArray, objects: Sequence[int]) -> BoolArray:
    """bool (objects, T, height, width): where the labels are each object's id."""
    ids = np.ones((len(objects), *labels.shape)) * np.asarray(objects, np.float64)[:, None, None, None]
    return np.equal(ids, labels[None])


def plain_region_similarity(predictions: BoolArray, truths: BoolArray, voids: BoolArray) -> FloatArray:
    """J of every frame, float64 (T,), of bool (T, height, width): intersection over union, 1 where both are empty."""
    shared = np.sum(predictions & truths & ~voids, axis=(1, 2))
    union = np.sum((predictions | truths) & ~voids, axis=(1, 2))
    return np.where(union == 0, 1.0, shared / np.maximum(union, 1))


def plain_boundary_accuracy(prediction: BoolArray, truth: BoolArray, void: BoolArray, bound_th: float) -> float:
    """F of one frame, of bool (height, width): see `trackgpt.geometry.jf.boundary_accuracy` for the definition."""
    radius = bound_th if bound_th >= 1 else np.ceil(bound_th * np.linalg.norm(truth.shape))
    found, wanted = plain_boundary(prediction & ~void), plain_boundary(truth & ~void)
    disk = plain_disk(int(radius))
    near_found = cv2.dilate(found.astype(np.uint8), disk) > 0
    near_wanted = cv2.dilate(wanted.astype(np.uint8), disk) > 0
    pixels_found, pixels_wanted = np.sum(found), np.sum(wanted)
    if pixels_found == 0 or pixels_wanted == 0:
        return float(pixels_found == pixels_wanted)
    precision = np.sum(found & near_wanted) / float(pixels_found)
    recall = np.sum(wanted & near_found) / float(pixels_wanted)
    return float(2 * precision * recall / (precision + recall)) if precision + recall > 0 else 0.0


def plain_boundary(mask: BoolArray) -> BoolArray:
    """Where a pixel differs from its right, lower or lower-right neighbour; outside the frame nothing differs."""
    right, below, diagonal = mask.copy(), mask.copy(), mask.copy()
    right[:, :-1] = mask[:, 1:]
    below[:-1] = mask[1:]
    diagonal[:-1, :-1] = mask[1:, 1:]
    boundary = (mask ^ right) | (mask ^ below) | (mask ^ diagonal)
    boundary[-1] = mask[-1] ^ right[-1]
    boundary[:, -1] = mask[:, -1] ^ below[:, -1]
    return boundary


def plain_disk(radius: int) -> NDArray[np.uint8]:
    """Pixels at a distance of at most radius from the middle one, uint8 (2 * radius + 1, 2 * radius + 1)."""
    along = np.arange(-radius, radius + 1)
    return (along[:, None] ** 2 + along[None] ** 2 <= radius**2).astype(np.uint8)
