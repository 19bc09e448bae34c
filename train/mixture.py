"""Which item of which data set sample i of a run is: a function of the seed and of i alone.

LISA draws a type, a set and an item at random and ignores the index, so that ranks with equal seeds see the same data
and nothing can be resumed. Here the sets share every block of samples exactly by their weights, in an order drawn for
the block, and every set goes through all its items, in an order drawn for the pass, before one comes again. Ranks take
different i and so never the same sample; a run that was cut goes on with the i it stopped at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from trackgpt.errors import UsageError

BLOCK = 1000


class Draw(NamedTuple):
    """A sample: number of the set, number of the item in it, and how often the set has been gone through before."""

    source: int
    item: int
    round: int


@dataclass(frozen=True)
class Mixture:
    """A schedule over several sets.

    Attributes:
        sizes: items of every set.
        weights: share of every set, in any unit.
        seed: of the orders.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.sizes) != len(self.weights) or not self.sizes:
            raise UsageError(f"mixture: {len(self.sizes)} sets, {len(self.weights)} weights; wanted one weight per set")
        for size, weight in zip(self.sizes, self.weights, strict=True):
            if size < 1 or not weight > 0:
                raise UsageError(f"mixture: a set of {size} items with weight {weight}; wanted both above 0")

    @property
    def counts(self) -> np.ndarray:
        """Samples of every set in a block, int64 (sets,), at least one, in all `BLOCK`."""
        return _allotment(self.weights)

    def __call__(self, i: int) -> Draw:
        """Sample i, from 0 on."""
        block, place = divmod(i, BLOCK)
        source, before = (int(column[place]) for column in _block(self.weights, self.seed, block))
        rounds, item = divmod(block * int(self.counts[source]) + before, self.sizes[source])
        return Draw(source, int(_permutation(self.seed, source, rounds, self.sizes[source])[item]), rounds)


def shares(kinds: Mapping[str, tuple[float, Sequence[str]]]) -> dict[str, float]:
    """Weight of every set, where each kind has a weight that its sets share equally (LISA: 9, 3, 3, 1).

    Raises:
        UsageError: a set stands in two kinds, or a kind has none.
    """
    out: dict[str, float] = {}
    for kind, (weight, names) in kinds.items():
        if not names:
            raise UsageError(f"mixture: the kind {kind!r} has no sets; name some or leave it out")
        for name in names:
            if name in out:
                raise UsageError(f"mixture: {name!r} stands twice; every set has one place")
            out[name] = weight / len(names)
    return out


@lru_cache(maxsize=64)
def _allotment(weights: tuple[float, ...]) -> np.ndarray:
    """Whole numbers in the proportion of weights (largest remainders), none of them 0."""
    share = np.array(weights) / sum(weights) * BLOCK
    counts = np.maximum(np.floor(share), 1).astype(np.int64)
    for place in np.argsort(-(share - np.floor(share)), kind="stable"):
        if counts.sum() >= BLOCK:
            break
        counts[place] += 1
    counts[counts.argmax()] += BLOCK - counts.sum()
    return counts


@lru_cache(maxsize=8)
def _block(weights: tuple[float, ...], seed: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """The set of every place in a block, and how many places of the same set stand before it in the block."""
    counts = _allotment(weights)
    sources = np.random.default_rng([seed, 11, block]).permutation(np.repeat(np.arange(len(counts)), counts))
    before = np.zeros(BLOCK, np.int64)
    for source, count in enumerate(counts):
        before[sources == source] = np.arange(count)
    return sources, before


@lru_cache(maxsize=64)
def _permutation(seed: int, source: int, rounds: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, 12, source, rounds]).permutation(size)
