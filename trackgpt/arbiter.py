"""When to ask the slow model again, and whom to believe. Pure functions of a track's state and a small record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trackgpt.config import RethinkConfig
from trackgpt.errors import UsageError
from trackgpt.track import TrackState
from trackgpt.types import Cue, Prediction, Prompt, Target, Verdict


@dataclass(frozen=True)
class PurportRecord:
    """What Algorithm 1 of TrackGPT and its options keep of a track since the last instruction that began it anew.

    Attributes:
        frame: frames tracked since then.
        ids: int64 (k,), the targets that `first` is of.
        first: float32 (k,), the purport scores that tau is a fraction of.
        consulted: frame on which the brain was last asked.
        rethinks: how often it was asked again.
        searching: nothing has been found yet.
    """

    frame: int = 0
    ids: np.ndarray | None = None
    first: np.ndarray | None = None
    consulted: int = 0
    rethinks: int = 0
    searching: bool = False


class PurportArbiter:
    """TrackGPT's rule: tau = ratio x the first score; a previous score below it has the brain read the present frame.

    It asks before looking, believes every answer that names a target, and never doubts what it has seen.
    """

    def __init__(self, config: RethinkConfig) -> None:
        self.config = config

    def begin(self) -> PurportRecord:
        """The record of a track that has not begun."""
        return PurportRecord()

    def threshold(self, state: TrackState) -> np.ndarray:
        """tau per active target, float32 (k,)."""
        record: PurportRecord = state.record
        if record.first is None:
            return np.zeros(len(state.active), np.float32)
        return np.maximum(self.config.ratio * record.first, self.config.floor).astype(np.float32)

    def due(self, state: TrackState, prompt: Prompt | None) -> str:
        """Why the brain should read the present frame: "prompt", "purport", "searching", or "" when it should not.

        Raises:
            UsageError: the prompt points at something, resumes or adds a target, or drops one that is not tracked.
        """
        if prompt is not None:
            return self._due_to(prompt, state)
        record: PurportRecord = state.record
        since = record.frame - record.consulted
        if record.searching:
            return "searching" if since >= self.config.search_every else ""
        if not self.config.enabled or not state.active or since <= self.config.cooldown:
            return ""
        last = np.array([target.score for target in state.active], np.float32)
        if not bool(np.any(last < self.threshold(state))):
            return ""
        return "purport" if self._within_budget(record) else ""

    def doubts(self, state: TrackState, seen: Prediction, memory: object, prompt: Prompt | None) -> str:
        """Always "": TrackGPT acts on a low score one frame later (Algorithm 1, line 8)."""
        return ""

    def judge(self, state: TrackState, seen: Prediction | None, cue: Cue | None, prompt: Prompt | None) -> Verdict:
        """Believe an answer that names targets; one that names none ends a track only if it was asked for anew."""
        if prompt is not None and prompt.kind == "drop":
            return _without(state, prompt.ids)
        assert cue is not None
        if prompt is not None and (prompt.kind in ("start", "switch") or not state.active):
            targets = tuple(Target(state.next_id + k, prompt) for k in range(cue.targets))
            kind = "switch" if prompt.kind == "switch" else "start"
            return Verdict(kind, cue, targets, tuple(target.id for target in targets))
        if cue.targets == 0:
            return Verdict()
        goes_on = prompt is None and not self.config.reset_online and cue.targets == len(state.active)
        rows = tuple(range(cue.targets)) if goes_on else ()
        return Verdict("correct" if prompt is not None else "rethink", cue, rows=rows)

    def after(self, state: TrackState, seen: Prediction, verdict: Verdict) -> PurportRecord:
        """The record for the next frame: a target keeps its reference score over a rethink, a new one has its own."""
        anew = verdict.kind in ("start", "switch", "correct")
        before = PurportRecord() if anew else state.record
        found = state.cue.targets > 0
        taken = verdict.cue is not None and bool(seen.reason)
        ids, first = before.ids, before.first
        if found and (first is None or taken or len(first) != len(seen.ids)):
            known = {} if taken and self.config.rebase else dict(_references(before))
            first = np.array([known.get(int(i), s) for i, s in zip(seen.ids, seen.scores)], np.float32)
            ids = seen.ids
        if not found:
            ids = first = None
        asked = bool(seen.reason)
        return replace(
            before,
            frame=before.frame + 1,
            ids=ids,
            first=first,
            consulted=before.frame if asked else before.consulted,
            rethinks=before.rethinks + int(asked and seen.reason != "prompt"),
            searching=not found and (anew or before.searching) and verdict.kind != "drop",
        )

    def _due_to(self, prompt: Prompt, state: TrackState) -> str:
        if prompt.visual:
            raise UsageError("TrackGPT is told what to track in words; leave boxes, points and masks out")
        if prompt.kind in ("resume", "add"):
            raise UsageError(f"TrackGPT cannot {prompt.kind} targets; name all of them in one instruction")
        known = {target.id for target in state.active}
        if prompt.kind == "correct" and prompt.ids and set(prompt.ids) != known:
            raise UsageError(f"TrackGPT corrects all targets at once, which are {sorted(known)}; leave ids out")
        if prompt.kind != "drop":
            return "prompt"
        if not set(prompt.ids) <= known:
            raise UsageError(f"drop {sorted(set(prompt.ids) - known)}: tracked are {sorted(known)}")
        return ""

    def _within_budget(self, record: PurportRecord) -> bool:
        """One more rethink on this frame leaves the share of rethought frames within the budget."""
        return record.rethinks + 1 <= max(1.0, self.config.budget * (record.frame + 1))


def _references(record: PurportRecord) -> list[tuple[int, np.float32]]:
    """The reference scores by identity."""
    if record.ids is None or record.first is None or record.searching:
        return []
    return [(int(number), score) for number, score in zip(record.ids, record.first, strict=True)]


def _without(state: TrackState, ids: tuple[int, ...]) -> Verdict:
    """The verdict that ends targets, all if none is named: their rows leave cue and memory."""
    rows = tuple(k for k, target in enumerate(state.active) if ids and target.id not in ids)
    cue = state.cue
    referring, purport = (None if q is None else q[list(rows)] for q in (cue.referring, cue.purport))
    targets = tuple(state.active[k] for k in rows)
    return Verdict("drop", replace(cue, referring=referring, purport=purport), targets, rows=rows)


class Unasked:
    """An arbiter that asks only when something is said, and delegates everything else to the one it stands for."""

    def __init__(self, arbiter: Any) -> None:
        self._arbiter = arbiter

    def due(self, state: TrackState, prompt: Prompt | None) -> str:
        """What the other one says, where something is said."""
        return "" if prompt is None else str(self._arbiter.due(state, prompt))

    def doubts(self, state: TrackState, seen: Prediction, memory: Any, prompt: Prompt | None) -> str:
        """What the other one says, where something is said."""
        return "" if prompt is None else str(self._arbiter.doubts(state, seen, memory, prompt))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._arbiter, name)
