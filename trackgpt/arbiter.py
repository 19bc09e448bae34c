"""When to ask the slow model again (Algorithm 1 of TrackGPT, and its options). Pure functions of a small record."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from trackgpt.config import RethinkConfig


@dataclass(frozen=True)
class Record:
    """What the arbiter needs to know of a track so far.

    Attributes:
        frame: frames tracked since the track began.
        first: float32 (k,), the purport scores that tau is a share of.
        last: float32 (k,), the scores of the previous frame.
        consulted: frame at which the brain last read a frame.
        rethinks: how often it was asked again.
        searching: nothing has been found yet.
    """

    frame: int = 0
    first: np.ndarray | None = None
    last: np.ndarray | None = None
    consulted: int = 0
    rethinks: int = 0
    searching: bool = False


class PurportArbiter:
    """tau = ratio x the first score; a previous score below it asks the brain to read the present frame."""

    def __init__(self, config: RethinkConfig) -> None:
        self.config = config

    def threshold(self, record: Record) -> np.ndarray:
        """tau per target, float32 (k,)."""
        if record.first is None:
            return np.zeros(0, np.float32)
        return np.maximum(self.config.ratio * record.first, self.config.floor).astype(np.float32)

    def due(self, record: Record) -> str:
        """Why the brain should read the present frame: "purport", "searching", or "" when it should not."""
        since = record.frame - record.consulted
        if record.searching:
            return "searching" if since >= self.config.search_every else ""
        if not self.config.enabled or record.last is None or since <= self.config.cooldown:
            return ""
        if not bool(np.any(record.last < self.threshold(record))):
            return ""
        return "purport" if self._within_budget(record) else ""

    def after(self, record: Record, scores: np.ndarray, consulted: bool, found: bool) -> Record:
        """The record after a frame with purport scores (k,).

        Args:
            record: before the frame.
            scores: of the frame.
            consulted: the brain read this frame and its answer was taken.
            found: some target is being tracked.
        """
        first = record.first
        fresh = first is None or len(first) != len(scores) or record.searching
        if found and (fresh or (consulted and self.config.rebase)):
            first = scores
        return replace(
            record,
            frame=record.frame + 1,
            first=first,
            last=scores if found else None,
            consulted=record.frame if consulted else record.consulted,
            searching=not found,
        )

    def _within_budget(self, record: Record) -> bool:
        """One more rethink on this frame leaves the share of rethought frames within the budget."""
        return record.rethinks + 1 <= max(1.0, self.config.budget * (record.frame + 1))
