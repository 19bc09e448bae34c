"""Intervals by resampling: how far a mean would move if the benchmark had drawn other videos of the same kind.

Percentile bootstrap (B. Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7, 1979).
What is resampled must be independent. Frames of a video are not, and objects of one video hardly: give every video one
value, or name the video of every value in `groups`, and whole videos are drawn. The interval covers the choice of
videos only, not the seed of a training; with fewer than about 20 videos it is too narrow.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trackgpt.errors import InputError, UsageError

INDICES_AT_ONCE = 1 << 20


class Interval(NamedTuple):
    """A mean and the ends of its interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def bootstrap_mean(
    values: ArrayLike, seed: int, draws: int = 2000, level: float = 0.95, groups: ArrayLike | None = None
) -> Interval:
    """The mean of values and its percentile interval.

    Every draw takes as many groups as there are, with replacement, and averages all their values; the interval runs
    from the (1 - level) / 2 quantile of the draws to the (1 + level) / 2 quantile.

    Args:
        values: (n,) finite numbers.
        seed: of the draws; the same seed gives the same interval, whatever the order of earlier calls.
        draws: number of resamples.
        level: coverage wanted, between 0 and 1.
        groups: (n,) labels, for instance the video of each object; None if every value stands for itself.

    Returns:
        The plain mean of the values, and the ends; these are NaN for a single group, which says nothing of the spread.

    Raises:
        InputError: values are empty, not one-dimensional or not finite, or groups have another shape.
        UsageError: draws or level are out of range.
    """
    if draws < 1 or not 0 < level < 1:
        raise UsageError(f"bootstrap: draws is {draws} and level {level}, wanted 1 or more and a share between 0 and 1")
    series = np.asarray(values, np.float64)
    if series.ndim != 1 or not series.size or not np.isfinite(series).all():
        raise InputError(f"bootstrap: values have the shape {series.shape} or are not finite, wanted (n,) numbers")
    totals, sizes = _group_sums(series, groups)
    mean = float(series.mean())
    if len(totals) == 1:
        return Interval(mean, np.nan, np.nan)
    resampled = _resampled_means(totals, sizes, np.random.default_rng(seed), draws)
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, seed: int, draws: int = 2000, level: float = 0.95, groups: ArrayLike | None = None
) -> Interval:
    """The mean of a - b and its interval, for two systems scored on the same objects.

    Both systems are resampled together, so what is hard for both cancels: a difference can be sure although the two
    intervals of `bootstrap_mean` overlap. If 0 lies outside the interval, the better system is better at that level.

    Args:
        a: (n,) finite numbers.
        b: (n,) finite numbers, of the same objects in the same order.
        seed: of the draws.
        draws: number of resamples.
        level: coverage wanted, between 0 and 1.
        groups: (n,) labels, for instance the video of each object; None if every object stands for itself.

    Returns:
        Mean difference, above 0 where `a` is larger, and the ends of its interval.

    Raises:
        InputError: a and b differ in shape; otherwise as `bootstrap_mean`.
        UsageError: draws or level are out of range.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape:
        raise InputError(f"paired bootstrap: shapes {first.shape} and {second.shape}, wanted the same objects twice")
    return bootstrap_mean(first - second, seed, draws, level, groups)


def _group_sums(values: NDArray[np.float64], groups: ArrayLike | None) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Sum and number of the values of every group."""
    if groups is None:
        return values, np.ones(len(values), np.intp)
    labels = np.asarray(groups)
    if labels.shape != values.shape:
        raise InputError(f"bootstrap: groups have the shape {labels.shape}, values {values.shape}, wanted a label each")
    _, place, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    return np.bincount(place, weights=values).astype(np.float64), sizes


def _resampled_means(
    totals: NDArray[np.float64], sizes: NDArray[np.intp], generator: np.random.Generator, draws: int
) -> NDArray[np.float64]:
    """Mean of every draw, float64 (draws,), made in portions so that 100,000 values need no gigabytes."""
    groups, means = len(totals), []
    portion = max(1, INDICES_AT_ONCE // groups)
    for start in range(0, draws, portion):
        chosen = generator.integers(groups, size=(min(portion, draws - start), groups))
        means.append(totals[chosen].sum(axis=1) / sizes[chosen].sum(axis=1))
    return np.concatenate(means)
