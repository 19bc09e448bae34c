"""A parity check: our figures against those an official toolkit printed for the same inputs, compared with `==`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Comparison:
    """One comparison.

    Attributes:
        source: the toolkit whose stored output is the truth, e.g. "davis2017-evaluation".
        name: what was compared, e.g. "semi-supervised/blobs3/J".
        values: how many numbers were compared.
        differing: how many of them are not equal (NaN equals NaN), shapes that differ count as one.
        example: the first difference in words, "" where there is none.
    """

    source: str
    name: str
    values: int
    differing: int
    example: str = ""


class Checks(Protocol):
    """What each other module of this folder offers: all comparisons that a folder of golden vectors allows."""

    def __call__(self, folder: Path) -> Iterable[Comparison]:
        """Yield the checks of `folder`; InputError if a file is missing or is not of that layout."""
        ...


def compared(source: str, name: str, ours: ArrayLike, wanted: ArrayLike, dtype: Any = np.float64) -> Comparison:
    """Compare numbers bit for bit.

    Args:
        source, name: see `Comparison`.
        ours: any shape.
        wanted: of the same shape.
        dtype: both sides are cast to it first; float32 for toolkits that keep no more.
    """
    found, truth = np.asarray(ours, dtype), np.asarray(wanted, dtype)
    if found.shape != truth.shape:
        return Comparison(source, name, truth.size, 1, f"shape {found.shape}, wanted {truth.shape}")
    differs = ~((found == truth) | (np.isnan(found) & np.isnan(truth)))
    example = ""
    if differs.any():
        place = tuple(int(i) for i in np.argwhere(differs)[0])
        example = f"at {list(place)}: {found[place]!r}, wanted {truth[place]!r}"
    return Comparison(source, name, truth.size, int(differs.sum()), example)
