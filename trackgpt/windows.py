"""When a policy is asked about its targets again, and what becomes of its answer: the rules of QTrack.

A policy is asked once per window. Its answer has a row for every target that is followed, NaN where it is not seen,
and behind these rows for further objects that their words mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from trackgpt.arbiter import PointedArbiter, archived
from trackgpt.arbitration import Arbitration
from trackgpt.errors import UsageError
from trackgpt.geometry.boxes import box_iou
from trackgpt.track import TrackState
from trackgpt.types import SAME_TARGETS, Cue, Prediction, Prompt, Target, Verdict, VisualPrompt

SAME = 0.6
"""IoU from which on two boxes are the same thing (IMAT's tau_reinit)."""


@dataclass(frozen=True)
class WindowRecord:
    """What the arbiter keeps of a track.

    Attributes:
        asked: the frame of the last question, -1 before, and where one is due on the next frame.
    """

    asked: int = -1


class WindowArbiter:
    """The rule of a policy alone: it is asked before looking, once per window, and every answer is believed.

    What is pointed at is believed, too, as `PointedArbiter` does; a box and words together begin a track of which the
    policy is asked by these words later. An answer that could not be read changes nothing.

    Args:
        name: of the model, for messages.
        every: frames from one question to the next.
        most: targets that are followed at once.
    """

    def __init__(self, name: str, every: int, most: int) -> None:
        self.name, self.every, self.most = name, every, most
        self._pointed = PointedArbiter(name)

    def begin(self) -> WindowRecord:
        """The record of a track that has not begun."""
        return WindowRecord()

    def threshold(self, state: TrackState) -> np.ndarray:
        """0 for every active target: no score makes it ask."""
        return np.zeros(len(state.active), np.float32)

    def due(self, state: TrackState, prompt: Prompt | None) -> str:
        """Why to ask: "prompt" for words, "window" where a window ends, "searching" there while nothing has been found.

        Raises:
            UsageError: see `PointedArbiter.due`; words are about a target that is not followed; a target is shown by
                points alone, which say nothing of its box.
        """
        if prompt is not None:
            return self._due_to(state, prompt)
        if state.record.asked >= 0 and state.frame - state.record.asked < self.every:
            return ""
        if any(target.prompt.text for target in state.active):
            return "window"
        searched = state.prompts and state.prompts[-1].kind != "drop" and state.text
        return "searching" if searched and not state.active else ""

    def _due_to(self, state: TrackState, prompt: Prompt) -> str:
        if not _worded(prompt):
            if any(shown.box is None and shown.mask is None for shown in prompt.visual):
                raise UsageError(f"{self.name} follows boxes, and points say nothing of them: show a box or a mask")
            return self._pointed.due(state, prompt)
        if prompt.kind in SAME_TARGETS:
            _meant(state, prompt)
        return "prompt"

    def doubts(self, state: TrackState, seen: Prediction, memory: object, prompt: Prompt | None) -> str:
        """Always ""."""
        return ""

    def judge(self, state: TrackState, seen: Prediction | None, cue: Cue | None, prompt: Prompt | None) -> Verdict:
        """What becomes of targets: those of an answer are where it says, or absent where it leaves them out."""
        if prompt is not None and not _worded(prompt):
            return self._pointed.judge(state, None, cue, prompt)
        if cue is None or cue.boxes is None:
            return self._unread(state, prompt)
        if prompt is None:
            return self._window(state, cue)
        if prompt.kind in SAME_TARGETS and state.active:
            return _corrected(state, cue, prompt)
        rows = [row for row in range(len(cue.boxes)) if not np.isnan(cue.boxes[row]).any()]
        if prompt.kind == "add":
            live = np.array([target.box or (np.nan,) * 4 for target in state.active], np.float32).reshape(-1, 4)
            rows = _unlike(cue.boxes, rows, live)[: max(0, self.most - len(state.active))]
            kept, former = state.active, tuple(target for target in state.targets if not target.active)
        else:
            rows, kept = rows[: self.most], ()
            former = () if prompt.kind == "start" else archived(state)
        if not rows and prompt.kind != "start" and state.active:
            return Verdict("absent" if np.isnan(cue.boxes).any(axis=1).all() else "duplicate")
        new = _begun(state, [prompt] * len(rows), () if prompt.kind == "start" else state.targets, prompt.ids)
        return Verdict(prompt.kind, _only(cue, rows), (*kept, *new, *former), tuple(target.id for target in new))

    def _unread(self, state: TrackState, prompt: Prompt | None) -> Verdict:
        """Nothing changes, but that a new beginning ends what was followed."""
        if prompt is None or (prompt.kind != "start" and (prompt.kind != "switch" or state.active)):
            return Verdict("unread")
        return Verdict("unread", Cue(), () if prompt.kind == "start" else archived(state))

    def _window(self, state: TrackState, cue: Cue) -> Verdict:
        """All targets that were asked about, in the order of the answer's rows, and further ones."""
        assert cue.boxes is not None
        rows, new = further(state, cue, cue.boxes[: len(state.active)], self.most)
        named = [row for row, target in enumerate(state.active) if target.prompt.text]  # others were only pointed at
        former = tuple(target for target in state.targets if not target.active)
        ids = (*(state.active[row].id for row in named), *(target.id for target in new))
        kind = "window" if state.active or not new else "found"
        return Verdict(kind, _only(cue, [*named, *rows]), (*state.active, *new, *former), ids)

    def after(self, state: TrackState, seen: Prediction, verdict: Verdict) -> WindowRecord:
        """The record for the next frame; who was taken up again is asked about there."""
        if seen.reason:
            return WindowRecord(state.frame)
        return WindowRecord() if verdict.kind == "resume" else state.record


class WindowArbitration:
    """The rule of a policy with a memory segmenter: IMAT's arbitration, and further objects of an answer are begun.

    Args:
        arbitration: says when to ask, and whom to believe about a target that is followed.
        most: targets that are followed at once.
    """

    def __init__(self, arbitration: Arbitration, most: int) -> None:
        self._arbitration, self.most = arbitration, most

    def judge(self, state: TrackState, seen: Prediction | None, cue: Cue | None, prompt: Prompt | None) -> Verdict:
        """What IMAT's arbitration says of the targets that are followed, and new ones beside them."""
        verdict = self._arbitration.judge(state, seen, cue, prompt)
        if prompt is not None or seen is None or cue is None or cue.boxes is None:
            return verdict
        rows, new = further(state, cue, np.concatenate([seen.boxes, cue.boxes[: len(state.active)]]), self.most)
        if not new:
            return verdict
        shown = tuple(VisualPrompt((float(x1), float(y1), float(x2), float(y2))) for x1, y1, x2, y2 in cue.boxes[rows])
        before = () if verdict.cue is None else verdict.cue.visual
        former = tuple(target for target in state.targets if not target.active)
        return replace(
            verdict,
            kind=verdict.kind if verdict.cue is not None else "found",
            cue=replace(cue, visual=(*before, *shown)),
            targets=(*state.active, *new, *former),
            cued=(*verdict.cued, *(target.id for target in new)),
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._arbitration, name)


def further(state: TrackState, cue: Cue, known: np.ndarray, most: int) -> tuple[list[int], tuple[Target, ...]]:
    """Rows of an answer behind those of the targets that are followed, and the new targets that they are.

    Args:
        state: the track.
        cue: the answer.
        known: float32 (n, 4), boxes of targets that are followed: one of these is nothing new.
        most: targets that are followed at once.
    """
    assert cue.boxes is not None
    rows = [row for row in range(len(state.active), len(cue.boxes)) if not np.isnan(cue.boxes[row]).any()]
    rows = _unlike(cue.boxes, rows, known)[: max(0, most - len(state.active))]
    by_words = {target.prompt.text: target.prompt for target in reversed(state.active)}
    prompts = [by_words.get(cue.words[row] if row < len(cue.words) else "", state.prompt) for row in rows]
    return rows, _begun(state, prompts, state.targets)


def _worded(prompt: Prompt) -> bool:
    """Whether words are all that says what is meant."""
    return bool(prompt.text) and not prompt.visual and prompt.kind not in ("drop", "resume")


def _meant(state: TrackState, prompt: Prompt) -> list[int]:
    """Rows of the targets that a correction is about.

    Raises:
        UsageError: nothing has been said, one is not followed, or it is not said which.
    """
    followed = [target.id for target in state.active]
    listed = ", ".join(map(str, followed)) or "none"
    if not state.prompts:
        raise UsageError(f"{prompt.kind}: nothing has been said that could be corrected")
    if unknown := [number for number in prompt.ids if number not in followed]:
        raise UsageError(f"{prompt.kind} {', '.join(map(str, unknown))}: tracked are {listed}")
    if not prompt.ids and len(followed) > 1:
        raise UsageError(f"{prompt.kind}: which of {listed}? Say so by ids")
    return [row for row, number in enumerate(followed) if not prompt.ids or number in prompt.ids]


def _corrected(state: TrackState, cue: Cue, prompt: Prompt) -> Verdict:
    """Targets stay who they are, and are where the answer says: each in the nearest box, others in what is left over.

    An answer without any box changes nothing.
    """
    assert cue.boxes is not None
    rows, found = _meant(state, prompt), np.flatnonzero(~np.isnan(cue.boxes).any(axis=1))
    if not len(found):
        return Verdict("absent")
    places = np.array([state.active[row].box or (np.nan,) * 4 for row in rows], np.float32).reshape(-1, 4)
    overlap = box_iou(places, cue.boxes[found])
    matched = [(rows[i], int(found[j])) for i, j in zip(*linear_sum_assignment(-overlap), strict=True)]
    named = {row for row, _ in matched}
    active = tuple(replace(t, prompt=prompt) if row in named else t for row, t in enumerate(state.active))
    former = tuple(target for target in state.targets if not target.active)
    ids = tuple(state.active[row].id for row, _ in matched)
    return Verdict(prompt.kind, _only(cue, [j for _, j in matched]), (*active, *former), ids)


def _begun(
    state: TrackState, prompts: Sequence[Prompt], known: Sequence[Target], ids: Sequence[int] = ()
) -> tuple[Target, ...]:
    """New targets, under these numbers if they are as many and free, else under the next ones."""
    free = len(ids) == len(prompts) and {target.id for target in known}.isdisjoint(ids)
    return tuple(Target(ids[k] if free else state.next_id + k, prompt) for k, prompt in enumerate(prompts))


def _unlike(boxes: np.ndarray, rows: Sequence[int], known: np.ndarray) -> list[int]:
    """The rows whose boxes are none of those that are known, nor one before them."""
    kept: list[int] = []
    for row in rows:
        others = np.concatenate([known, boxes[kept]]) if kept else known
        if not len(others) or not (np.nan_to_num(box_iou(boxes[row][None], others)) >= SAME).any():
            kept.append(row)
    return kept


def _only(cue: Cue, rows: Sequence[int]) -> Cue:
    """The cue with these rows alone."""
    assert cue.boxes is not None
    picked = list(rows)
    scores = None if cue.scores is None else cue.scores[picked]
    return replace(cue, boxes=cue.boxes[picked], scores=scores, words=())
