"""gIoU and cIoU of single images: ReasonSeg, RefCOCO, RefCOCO+, RefCOCOg, and gRefCOCO's no-target figures.

One mask per sentence. `overlap` counts the pixels of one, the rest are sums over many, so that a data set is never held
in memory. A truth is uint8 (height, width): 0 background, 1 target, 255 pixels that are left out; masks are in pixels
of the original image.

Which number a paper means: ReasonSeg reports gIoU and cIoU, RefCOCO's family cIoU (also called oIoU), gRefCOCO gIoU,
cIoU, N-acc and T-acc. cIoU favours large objects, since they bring most of the pixels, and moves with a few of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trackgpt.errors import InputError

IGNORE = 255


class Overlap(NamedTuple):
    """Pixels of one sentence's masks, those of the label 255 not counted."""

    intersection: int
    union: int
    prediction: int
    truth: int


class LisaScore(NamedTuple):
    """What LISA prints."""

    giou: float
    ciou: float


def overlap(prediction: NDArray[np.bool_], truth: NDArray[np.uint8] | NDArray[np.bool_]) -> Overlap:
    """Count the pixels of one prediction and its truth.

    Args:
        prediction: bool (height, width).
        truth: uint8 (height, width) of 0, 1 and 255, or bool where nothing is left out.

    Returns:
        Sizes in pixels; a prediction that lies only where the truth is 255 is an empty one.

    Raises:
        InputError: the prediction is not bool, the truth has another type or another label, or the shapes differ.
    """
    if prediction.dtype != np.bool_ or prediction.ndim != 2 or prediction.shape != truth.shape:
        raise InputError(
            f"prediction is {prediction.dtype} {prediction.shape}, wanted bool {truth.shape}; "
            "resize it to the image and threshold it"
        )
    if truth.dtype not in (np.bool_, np.uint8):
        raise InputError(f"truth has the type {truth.dtype}, wanted uint8 of 0, 1 and 255, or bool")
    wanted, ignored = truth == 1, truth == IGNORE
    if not np.array_equal(wanted | ignored, truth != 0):
        labels = np.unique(truth)
        raise InputError(f"truth has the labels {labels.tolist()}, wanted 0, 1 and 255; a mask of 0 and 255 is not one")
    found = prediction & ~ignored
    return Overlap(_pixels(found & wanted), _pixels(found | wanted), _pixels(found), _pixels(wanted))


def giou(overlaps: Sequence[Overlap]) -> float:
    """gIoU, the mean over sentences of the IoU of their masks (g for generalised; not the gIoU of boxes).

    An empty truth has IoU 1 with an empty prediction and 0 with any other.

    Args:
        overlaps: one entry a sentence, or an image where each has one sentence, as in ReasonSeg.

    Returns:
        gIoU in [0, 1]; above LISA's by less than 1e-5 a sentence (see `lisa`).

    Raises:
        InputError: there is no entry.

    Source: C. Liu et al., "GRES: Generalized Referring Expression Segmentation", CVPR 2023; X. Lai et al., "LISA:
    Reasoning Segmentation via Large Language Model", CVPR 2024.
    """
    _check(overlaps, "giou")
    return float(np.mean([row.intersection / row.union if row.union else 1.0 for row in overlaps]))


def ciou(overlaps: Sequence[Overlap]) -> float:
    """cIoU, the sum of all intersections over the sum of all unions (c for cumulative).

    An empty truth with an empty prediction changes nothing; with any other prediction it adds that prediction's pixels
    to the unions. So silence on absent targets earns nothing here, and a hallucination costs as much as it is large.

    Args:
        overlaps: one entry a sentence.

    Returns:
        cIoU in [0, 1]; NaN if no mask has a pixel.

    Raises:
        InputError: there is no entry.

    Source: as `giou`.
    """
    _check(overlaps, "ciou")
    union = sum(row.union for row in overlaps)
    return sum(row.intersection for row in overlaps) / union if union else float("nan")


def lisa(overlaps: Sequence[Overlap]) -> LisaScore:
    """gIoU and cIoU as LISA's `validate` computes them, with its small constants.

    gIoU = sum of I / (U + 1e-5), or 1 where U = 0, over (sentences + 1e-5). cIoU = sum of I / (sum of U + 1e-10). Every
    sentence weighs the same, also where an image has several. A pixel of the truth with the label 255 belongs to
    neither mask; a pixel is predicted where its logit is above 0. An empty truth has IoU 1 with an empty prediction,
    0 with any other; in cIoU the first adds nothing and the second adds the prediction to the sum of unions.

    Here the sums are float64. LISA's pass through float32 when its processes exchange them, so its own figures agree
    with these to about 6 digits, not to the last.

    Args:
        overlaps: one entry a sentence.

    Returns:
        gIoU and cIoU in [0, 1]; cIoU is 0 if no mask has a pixel.

    Raises:
        InputError: there is no entry.

    Source: dvlab-research/LISA, `validate` of train_ds.py (read at 2261509), `intersectionAndUnionGPU` and
    `AverageMeter` of utils/utils.py (37531c5); not checked against its output.
    """
    _check(overlaps, "lisa")
    ious = sum(row.intersection / (row.union + 1e-5) if row.union else 1.0 for row in overlaps)
    intersection, union = sum(row.intersection for row in overlaps), sum(row.union for row in overlaps)
    return LisaScore(ious / (len(overlaps) + 1e-5), intersection / (union + 1e-10))


def n_acc(overlaps: Sequence[Overlap]) -> float:
    """N-acc of gRefCOCO: the share of the sentences without a target that get an empty mask.

    A model that says "no target" by other means passes an empty mask for it. Some papers also call masks of fewer than
    50 pixels empty; that is the caller's to do and to say.

    Args:
        overlaps: one entry a sentence.

    Returns:
        N-acc in [0, 1]; NaN if every sentence has a target.

    Raises:
        InputError: there is no entry.

    Source: henghuiding/ReLA, gres_model/evaluation/refer_evaluation.py (1e6e888), which asks the model's own no-target
    label in the place of an empty mask; GRES, CVPR 2023.
    """
    _check(overlaps, "n_acc")
    return _share([not row.prediction for row in overlaps if not row.truth])


def t_acc(overlaps: Sequence[Overlap]) -> float:
    """T-acc of gRefCOCO: the share of the sentences with a target that get a mask of any size.

    Args:
        overlaps: one entry a sentence.

    Returns:
        T-acc in [0, 1]; NaN if no sentence has a target.

    Raises:
        InputError: there is no entry.

    Source: as `n_acc`.
    """
    _check(overlaps, "t_acc")
    return _share([bool(row.prediction) for row in overlaps if row.truth])


def _pixels(mask: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(mask))


def _share(successes: Sequence[bool]) -> float:
    return sum(successes) / len(successes) if successes else float("nan")


def _check(overlaps: Sequence[Overlap], where: str) -> None:
    if not overlaps:
        raise InputError(f"{where}: no sentence was scored, wanted one or more; check the list of images")
