"""When to ask the slow model again, and whom to believe. Pure functions of a track's state and a small record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trackgpt.config import RethinkConfig
from trackgpt.errors import UsageError
from trackgpt.track import TrackState
from trackgpt.types import SAME_TARGETS, Cue, Prediction, Prompt, Target, Verdict


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

    Args:
        config: the rule's numbers.
        name: of the model, for messages.
    """

    def __init__(self, config: RethinkConfig, name: str = "TrackGPT") -> None:
        self.config = config
        self.name = name

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
            UsageError: the prompt points at something, resumes or adds a target, says that one is hidden, or drops one
                that is not tracked.
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
        if prompt.visual or prompt.chosen:
            raise UsageError(
                f"{self.name} is told what to track in words; leave boxes, points and masks out, or choose a model "
                "that follows them: -m nano-memory"
            )
        if prompt.kind in ("resume", "add"):
            raise UsageError(f"{self.name} cannot {prompt.kind} targets; name all of them in one instruction")
        if prompt.kind == "absence":
            raise UsageError(
                f"{self.name} takes no hint that a target is hidden or gone; it reads the frame again where its own "
                "score falls"
            )
        known = {target.id for target in state.active}
        if prompt.kind in SAME_TARGETS and prompt.ids and set(prompt.ids) != known:
            raise UsageError(f"{self.name} corrects all targets at once, which are {sorted(known)}; leave ids out")
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


MOST_ARCHIVED = 16
"""Former targets whose memory is kept for a return; the one that was given up first is forgotten first."""


class PointedArbiter:
    """The rule of a system that follows what it is shown: it never asks, and believes every visual prompt.

    Args:
        name: of the model, for messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def begin(self) -> None:
        """The record of a track that has not begun: none is kept."""

    def due(self, state: TrackState, prompt: Prompt | None) -> str:
        """Always "".

        Raises:
            UsageError: the prompt shows nothing where something must be shown, names targets that it cannot be about,
                or says of a new target only where it is not.
        """
        if prompt is not None:
            _named(self.name, state, prompt)
        return ""

    def doubts(self, state: TrackState, seen: Prediction, memory: object, prompt: Prompt | None) -> str:
        """Always ""."""
        return ""

    def judge(self, state: TrackState, seen: Prediction | None, cue: Cue | None, prompt: Prompt | None) -> Verdict:
        """What the prompt says: its targets begin, are corrected, taken up again or given up (see `Prompt.kind`)."""
        if prompt is None:
            return Verdict()
        ids = _named(self.name, state, prompt)
        known = {} if prompt.kind == "start" else {target.id: target for target in state.targets}
        followed = [target.id for target in state.active if target.id in known]
        if prompt.kind == "drop":
            following = [number for number in followed if number not in ids]
        elif prompt.kind == "add" or prompt.kind in SAME_TARGETS:
            following = [*followed, *(number for number in ids if number not in followed)]
        else:
            following = list(ids)
        active = [replace(known[n], active=True) if n in known else Target(n, prompt) for n in following]
        by_age = sorted(known.values(), key=lambda target: target.active)  # those given up now come last
        former = [replace(target, active=False) for target in by_age if target.id not in following]
        return Verdict(prompt.kind, cue, (*active, *former[-MOST_ARCHIVED:]), ids if prompt.visual else ())

    def after(self, state: TrackState, seen: Prediction, verdict: Verdict) -> None:
        """No record is kept."""

    def threshold(self, state: TrackState) -> np.ndarray:
        """0 for every active target: no score makes it ask."""
        return np.zeros(len(state.active), np.float32)


def _named(model: str, state: TrackState, prompt: Prompt) -> tuple[int, ...]:
    """The targets that a prompt is about, one for each of its visual prompts where it has any.

    Raises:
        UsageError: see `PointedArbiter.due`.
    """
    active = tuple(target.id for target in state.active)
    former = tuple(target.id for target in state.targets if not target.active)
    if prompt.kind == "drop":
        return _chosen(prompt, active, prompt.ids or active, "tracked are")
    if prompt.kind == "resume":
        return _chosen(prompt, former, prompt.ids or _only(prompt, former), "targets that were given up are")
    if prompt.kind == "absence":
        raise UsageError(f"{model} searches for nothing that is hidden or gone; show the target when it is back")
    again = prompt.kind == "add" and prompt.ids and set(prompt.ids) <= {*active, *former}
    if not prompt.visual and not again:
        raise UsageError(
            f"{model} follows what it is shown, not words: point at the target with --box ID:x,y,w,h, --mask FILE.png "
            "or --point ID:x,y (in Python say(box=...), in a benchmark --prompt), or choose a model that reads: -m nano"
        )
    if prompt.kind in SAME_TARGETS:
        ended = [number for number in former if number in prompt.ids or not active and not prompt.ids]
        if ended:
            raise UsageError(f"{prompt.kind} {_listed(ended)}: no longer followed; to resume it, add it with its id")
        return _chosen(prompt, active, prompt.ids or _only(prompt, active), "tracked are")
    known = () if prompt.kind == "start" else (*active, *former)
    ids = prompt.ids or tuple(range(state.next_id, state.next_id + len(prompt.visual)))
    taken = [number for number in ids if number in known]
    if prompt.kind == "switch" and taken:
        raise UsageError(f"switch to {_listed(taken)}: known already; give new ids, or resume or correct it instead")
    for number, shown in zip(ids, prompt.visual):
        if number not in known and not shown.finds:
            advice = f"; to resume {_listed(former)}, which was dropped, add it with its id" if former else ""
            raise UsageError(
                f"target {number} is new, and it is only shown where it is not; show where it is, too{advice}"
            )
    return ids


def _only(prompt: Prompt, among: Sequence[int]) -> tuple[int, ...]:
    """The only target that there is.

    Raises:
        UsageError: there are several.
    """
    if len(among) > 1:
        raise UsageError(f"{prompt.kind}: which of {_listed(among)}? Say so by ids")
    return tuple(among)


def _chosen(prompt: Prompt, among: Sequence[int], ids: tuple[int, ...], there: str) -> tuple[int, ...]:
    """The ids, which are all among those that there are.

    Raises:
        UsageError: some are not, none are, or their number is not that of what is shown.
    """
    unknown = [number for number in ids if number not in among]
    if unknown or not ids:
        what = f"{prompt.kind} {_listed(unknown)}" if unknown else prompt.kind
        raise UsageError(f"{what}: {there} {_listed(among)}")
    if prompt.visual and (prompt.kind == "drop" or len(ids) != len(prompt.visual)):
        wanted = "no visual prompt" if prompt.kind == "drop" else f"one for each of {_listed(ids)}"
        raise UsageError(f"{prompt.kind} {_listed(ids)}: {len(prompt.visual)} visual prompts; wanted {wanted}")
    return ids


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"
