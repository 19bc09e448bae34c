"""How far a tracker's own scores can be trusted: rank correlation, reliability table, expected calibration error.

The purport score S_p of a frame is an estimate of the IoU its mask would get. So, unlike in classification, a score
is compared with a number in [0, 1] and not with right or wrong: a calibrated tracker that says 0.7 has an IoU of 0.7
on average. One score and one IoU per frame and object; frames without a truth do not belong here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from trackgpt.errors import InputError, UsageError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """Table of a reliability diagram, one row a bin of scores; bins are [low, high), the last one [low, 1].

    Attributes:
        edges: float64 (bins + 1,), from 0 to 1, equally spaced.
        counts: int64 (bins,), how many frames have a score in the bin.
        scores: float64 (bins,), their mean score; NaN in an empty bin.
        ious: float64 (bins,), their mean IoU; NaN in an empty bin.
    """

    edges: FloatArray
    counts: NDArray[np.int64]
    scores: FloatArray
    ious: FloatArray

    @property
    def gaps(self) -> FloatArray:
        """float64 (bins,): mean score - mean IoU, above 0 where the tracker trusts itself too much."""
        return self.scores - self.ious


def spearman(scores: ArrayLike, ious: ArrayLike) -> float:
    """Spearman's rank correlation of scores and IoUs: does a higher score mean a better mask?

    rho = Pearson's correlation of the ranks, equal values sharing the mean of their ranks
    (C. Spearman, American Journal of Psychology 15, 1904).

    Args:
        scores: (frames,) in [0, 1].
        ious: (frames,) in [0, 1].

    Returns:
        rho in [-1, 1]; NaN if fewer than two frames are given or if one side never changes.

    Raises:
        InputError: shapes differ, or a value is NaN or outside [0, 1].
    """
    score, iou = _paired(scores, ious)
    if score.size < 2 or np.ptp(score) == 0 or np.ptp(iou) == 0:
        return np.nan
    rank_score, rank_iou = rankdata(score) - (score.size + 1) / 2, rankdata(iou) - (iou.size + 1) / 2
    spread = np.sqrt(np.dot(rank_score, rank_score) * np.dot(rank_iou, rank_iou))
    return float(np.clip(np.dot(rank_score, rank_iou) / spread, -1, 1))


def reliability(scores: ArrayLike, ious: ArrayLike, bins: int = 10) -> Reliability:
    """Mean score against mean IoU in bins of equal width.

    Args:
        scores: (frames,) in [0, 1].
        ious: (frames,) in [0, 1].
        bins: number of bins; a score on an edge counts in the bin above it, a score of 1 in the last.

    Returns:
        The table; a bin without frames has the count 0 and means of NaN.

    Raises:
        InputError: shapes differ, or a value is NaN or outside [0, 1].
        UsageError: bins is less than 1.
    """
    if bins < 1:
        raise UsageError(f"reliability: bins is {bins}, wanted 1 or more")
    score, iou = _paired(scores, ious)
    edges = np.arange(bins + 1) / bins  # k / bins is the double nearest to the decimal a person writes; linspace is not
    place = np.minimum(np.searchsorted(edges, score, side="right") - 1, bins - 1)
    counts = np.bincount(place, minlength=bins)
    divisor = np.where(counts, counts, np.nan)
    means = (np.bincount(place, weights=values, minlength=bins) / divisor for values in (score, iou))
    return Reliability(edges, counts, *means)


def expected_calibration_error(scores: ArrayLike, ious: ArrayLike, bins: int = 10) -> float:
    """Mean distance of score and IoU after averaging in bins.

    ECE = sum over bins of n_b / n * |mean score of b - mean IoU of b|, as in C. Guo et al., "On Calibration of Modern
    Neural Networks", ICML 2017, eq. 3, with the IoU in the place of the accuracy. Errors of opposite sign within a bin
    cancel, so ECE never exceeds the mean absolute error, and it depends on `bins`: report both numbers together.

    Args:
        scores: (frames,) in [0, 1].
        ious: (frames,) in [0, 1].
        bins: number of bins of equal width.

    Returns:
        ECE in [0, 1]; NaN without frames.

    Raises:
        InputError: shapes differ, or a value is NaN or outside [0, 1].
        UsageError: bins is less than 1.
    """
    table = reliability(scores, ious, bins)
    frames = int(table.counts.sum())
    return float(np.nansum(table.counts * np.abs(table.gaps)) / frames) if frames else np.nan


def _paired(scores: ArrayLike, ious: ArrayLike) -> tuple[FloatArray, FloatArray]:
    score, iou = np.asarray(scores, np.float64), np.asarray(ious, np.float64)
    if score.ndim != 1 or score.shape != iou.shape:
        raise InputError(f"scores have the shape {score.shape} and IoUs {iou.shape}, wanted twice (frames,)")
    for name, values in (("score", score), ("IoU", iou)):
        bad = np.flatnonzero(~((values >= 0) & (values <= 1)))
        if bad.size:
            raise InputError(
                f"{name} {bad[0]} of {values.size} is {values[bad[0]]}, wanted [0, 1]; leave out frames without a truth"
            )
    return score, iou
