"""When to ask the slow model again, and whom to believe. Pure functions of a track's state and a small record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trackgpt.calibration import public_score
from trackgpt.config import RethinkConfig, ScoreConfig
from trackgpt.errors import UsageError
from trackgpt.track import TrackState
from trackgpt.types import SAME_TARGETS, Box, Cue, Prediction, Prompt, Target, Verdict, VisualPrompt


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
        score: how the model's public score is made of S_p. It rises with S_p, so that a score below that of tau is an
            S_p below tau.
    """

    def __init__(self, config: RethinkConfig, name: str = "TrackGPT", score: ScoreConfig | None = None) -> None:
        self.config = config
        self.name = name
        self.score = ScoreConfig() if score is None else score

    def begin(self) -> PurportRecord:
        """The record of a track that has not begun."""
        return PurportRecord()

    def threshold(self, state: TrackState) -> np.ndarray:
        """The public score that belongs to tau, per active target, float32 (k,)."""
        record: PurportRecord = state.record
        if record.first is None:
            return np.zeros(len(state.active), np.float32)
        tau = (self.config.ratio * record.first).astype(np.float32)
        return np.maximum(public_score(tau, state.cue.confidence, self.score), np.float32(self.config.floor))

    def due(self, state: TrackState, prompt: Prompt | None) -> str:
        """Why the brain should read the present frame: "prompt", "purport", "searching", or "" when it should not.

        Raises:
            UsageError: the prompt points at something, adds a target, says that one is hidden, drops one that is not
                tracked, or resumes what no instruction named, or several did.
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
        """Believe an answer that names targets; one that names none ends a track only where all begins anew."""
        if prompt is not None and prompt.kind == "drop":
            return _without(state, prompt.ids)
        assert cue is not None
        if prompt is not None and cue.targets == 0 and state.active and prompt.kind != "start":
            return Verdict("absent")
        anew = prompt is not None and (prompt.kind in ("start", "switch", "resume") or not state.active)
        if prompt is not None and anew and not _said_again(state, prompt):
            return self._begun(state, cue, prompt)
        if cue.targets == 0:
            return Verdict()
        goes_on = prompt is None and not self.config.reset_online and cue.targets == len(state.active)
        rows = tuple(range(cue.targets)) if goes_on else ()
        return Verdict("correct" if prompt is not None else "rethink", cue, rows=rows)

    def _begun(self, state: TrackState, cue: Cue, prompt: Prompt) -> Verdict:
        """The verdict that begins targets; those that are taken up again have their numbers, first ones first."""
        again = resumed(state, prompt)[: cue.targets] if prompt.kind == "resume" else ()
        named = again[0].prompt if again else prompt
        new = tuple(Target(state.next_id + k, named) for k in range(cue.targets - len(again)))
        ids = {target.id for target in again}
        former = () if prompt.kind == "start" else tuple(each for each in archived(state) if each.id not in ids)
        active = (*(replace(target, active=True) for target in again), *new)
        kind = prompt.kind if prompt.kind in ("switch", "resume") else "start"
        return Verdict(kind, cue, (*active, *former), tuple(target.id for target in active))

    def after(self, state: TrackState, seen: Prediction, verdict: Verdict) -> PurportRecord:
        """The record for the next frame: a target keeps its reference score over a rethink, a new one has its own."""
        anew = verdict.kind in ("start", "switch", "resume", "correct")
        before = PurportRecord() if anew else state.record
        found = state.cue.targets > 0
        taken = verdict.cue is not None and bool(seen.reason)
        ids, first = before.ids, before.first
        if found and (first is None or taken or len(first) != len(seen.ids)):
            known = {} if taken and self.config.rebase else dict(_references(before))
            purport = seen.own_scores.get("purport", seen.scores)
            first = np.array([known.get(int(i), s) for i, s in zip(seen.ids, purport)], np.float32)
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
        if prompt.kind == "add":
            raise UsageError(f"{self.name} cannot add targets; name all of them in one instruction")
        if prompt.kind == "resume" and len({target.prompt.text for target in resumed(state, prompt)}) > 1:
            raise UsageError(f"{self.name} reads one instruction at a time: resume one target, or name all of them")
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


def _said_again(state: TrackState, prompt: Prompt) -> bool:
    """Whether a switch names what is followed by just the words that are in force."""
    same = all(target.prompt.text == prompt.text for target in state.active)
    return prompt.kind == "switch" and bool(state.active) and same


def _references(record: PurportRecord) -> list[tuple[int, np.float32]]:
    """The reference scores by identity."""
    if record.ids is None or record.first is None or record.searching:
        return []
    return [(int(number), score) for number, score in zip(record.ids, record.first, strict=True)]


def _without(state: TrackState, ids: tuple[int, ...]) -> Verdict:
    """The verdict that ends targets, all if none is named: their rows leave cue and memory, and they are archived."""
    rows = tuple(k for k, target in enumerate(state.active) if ids and target.id not in ids)
    cue = state.cue
    each = (cue.referring, cue.purport, cue.confidence)
    referring, purport, sure = (None if values is None else values[list(rows)] for values in each)
    kept = {state.active[k].id for k in rows}
    former = tuple(target for target in archived(state) if target.id not in kept)
    targets = (*(state.active[k] for k in rows), *former)
    left = replace(cue, referring=referring, purport=purport, confidence=sure)
    return Verdict("drop", left, targets, rows=rows)


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


def archived(state: TrackState) -> tuple[Target, ...]:
    """All targets as former ones, those that were active last, and no more than are kept."""
    by_age = sorted(state.targets, key=lambda target: target.active)
    return tuple(replace(target, active=False) for target in by_age)[-MOST_ARCHIVED:]


def resumed(state: TrackState, prompt: Prompt) -> tuple[Target, ...]:
    """The former targets that a "resume" takes up again, in its order: the only one where it names none.

    Raises:
        UsageError: there is none of a number, or there are several and it names none.
    """
    former = {target.id: target for target in state.targets if not target.active}
    ids = _chosen(prompt, tuple(former), prompt.ids or _only(prompt, tuple(former)), "targets that were given up are")
    return tuple(former[number] for number in ids)


def words_to_read(state: TrackState, prompt: Prompt | None) -> str:
    """What the slow model reads: the words of a prompt, those of the targets that it takes up again without a word, or
    those in force where there is none.

    Raises:
        UsageError: see `resumed`.
    """
    if prompt is None:
        return state.text
    return resumed(state, prompt)[0].prompt.text if prompt.kind == "resume" and not prompt.text else prompt.text


class PointedArbiter:
    """The rule of a system that follows what it is shown: it never asks, and believes every visual prompt.

    Args:
        name: of the model, for messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def begin(self) -> Any:
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

    def after(self, state: TrackState, seen: Prediction, verdict: Verdict) -> Any:
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
        return tuple(target.id for target in resumed(state, prompt))
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


@dataclass
class ChangeSettings:
    """When a target is described anew (ReasoningTrack), and which words are in force afterwards.

    Attributes:
        every: frames between two looks at its box.
        area: it has changed where its area is less than this share of that of the last time.
        shift: it has changed where a corner has moved by more than this share of the frame's width or height.
        fallback: after an answer that nothing must change, "latest" keeps the words in force, "initial" returns to
            those of the instruction, as the paper's release does.
        search_every: frames between two searches for words of which nothing has been found, where a grounder is there.
    """

    every: int = field(default=10, metadata={"range": (1, 10**9)})
    area: float = field(default=0.95, metadata={"range": (0.0, 1.0)})
    shift: float = field(default=1 / 32, metadata={"range": (0.0, 1.0)})
    fallback: str = field(default="latest", metadata={"choices": ("latest", "initial")})
    search_every: int = field(default=8, metadata={"range": (1, 10**9)})


@dataclass(frozen=True)
class ChangeRecord:
    """What is kept of the one target since it was shown.

    Attributes:
        began: the frame of the track on which it was shown.
        box: where it was when it was last shown or described.
        asked: the frame on which anybody was last asked.
        consultations: how often the describer was asked.
    """

    began: int = 0
    box: Box | None = None
    asked: int = 0
    consultations: int = 0


class ChangeArbiter(PointedArbiter):
    """ReasoningTrack's rule: every few frames, if size or place have changed, the target is described anew.

    As in the release the box of one frame decides and the next frame is the one that is described. One target is
    followed. It begins with a box or a mask, or with words where a grounder finds them.

    Args:
        name: of the model, for messages.
        settings: the rule's numbers.
        grounds: words without a box are answered by a grounder.
    """

    def __init__(self, name: str, settings: ChangeSettings, grounds: bool) -> None:
        super().__init__(name)
        self.settings, self.grounds = settings, grounds

    def begin(self) -> ChangeRecord:
        """The record of a track that has not begun."""
        return ChangeRecord()

    def due(self, state: TrackState, prompt: Prompt | None) -> str:
        """Why to ask now: "prompt" or "searching" the grounder, "describe" the describer, or "".

        Raises:
            UsageError: the prompt is about several targets, has words alone where there is no grounder, or takes up a
                former target that nothing can find; see also `PointedArbiter.due`.
        """
        if prompt is not None:
            return self._due_to(state, prompt)
        if state.active:
            return "describe" if self._changed(state) else ""
        said = state.prompts and state.prompts[-1].kind != "drop"
        searched = self.grounds and said and words_to_read(state, state.prompt)
        return "searching" if searched and state.frame - state.record.asked >= self.settings.search_every else ""

    def judge(self, state: TrackState, seen: Prediction | None, cue: Cue | None, prompt: Prompt | None) -> Verdict:
        """What is shown is believed, and so is what the describer says; a grounder's surest box begins the track."""
        if prompt is not None and (prompt.visual or prompt.kind == "drop"):
            told = None if cue is None else replace(cue, text=self._words(state, prompt))
            return super().judge(state, seen, told, prompt)
        if prompt is not None and prompt.kind in SAME_TARGETS and state.active:
            return _redescribed(state, prompt.kind, Cue(prompt.text))
        assert cue is not None
        if prompt is None and state.active:
            kind = "keep" if cue.text == state.cue.text else "describe"
            return _redescribed(state, kind, replace(cue, visual=()))
        return self._grounded(state, cue, state.prompt if prompt is None else prompt)

    def after(self, state: TrackState, seen: Prediction, verdict: Verdict) -> ChangeRecord:
        """The record for the next frame."""
        record: ChangeRecord = state.record
        if seen.reason:
            record = replace(record, asked=state.frame)
        if seen.reason == "describe":
            record = replace(record, consultations=record.consultations + 1)
        if not verdict.cued or not len(seen.boxes):
            return record
        shown = state.cue.visual != ()
        record = replace(record, began=state.frame if shown else record.began)
        x1, y1, x2, y2 = (float(value) for value in seen.boxes[0])
        return replace(record, box=(x1, y1, x2, y2) if seen.present[0] else record.box)

    def _due_to(self, state: TrackState, prompt: Prompt) -> str:
        if prompt.kind == "add" or len(prompt.visual) > 1:
            raise UsageError(f"{self.name} follows one target; switch to another one with its box, or start anew")
        if any(shown.box is None and shown.mask is None for shown in prompt.visual):
            raise UsageError(f"{self.name} begins with a box or a mask, and points were given; draw a box around it")
        if prompt.kind == "resume" and not prompt.visual:
            return self._due_to_return(resumed(state, prompt))
        told = prompt.kind in SAME_TARGETS and state.active and prompt.text
        if prompt.visual or prompt.kind == "drop" or not (told or prompt.text):
            return super().due(state, prompt)
        if told:
            return ""
        if not self.grounds:
            raise UsageError(
                f"{self.name} begins with a box, and words were given alone: show it, too, with --box 1:x,y,w,h (in "
                "Python say(text, box=...), in a benchmark --prompt both), or name a grounder behind the describer, "
                "TRACKER+DESCRIBER+GROUNDER"
            )
        return "prompt"

    def _due_to_return(self, again: Sequence[Target]) -> str:
        """Why to ask about former targets that are not shown: the grounder looks for the words of the one there is."""
        if len(again) > 1:
            raise UsageError(f"{self.name} follows one target; resume one of {_listed([each.id for each in again])}")
        (target,) = again
        if self.grounds and target.prompt.text:
            return "prompt"
        why = "it was shown without words" if self.grounds else "a box tracker looks only around the last box"
        raise UsageError(
            f"resume {target.id}: {self.name} cannot find it again, since {why}; show where it is, in Python "
            f"resume({target.id}, box=...)"
        )

    def _words(self, state: TrackState, prompt: Prompt) -> str:
        """The words that a prompt with a box leaves in force."""
        if prompt.kind == "resume":
            return words_to_read(state, prompt)
        return prompt.text or (state.cue.text if prompt.kind in SAME_TARGETS else "")

    def _grounded(self, state: TrackState, cue: Cue, prompt: Prompt) -> Verdict:
        """What a grounder's answer begins, or takes up again: its surest box, or nothing."""
        kind = prompt.kind if prompt.kind in ("start", "resume") else "switch"
        again = resumed(state, prompt)[0] if kind == "resume" else None
        found = np.zeros((0, 4)) if cue.boxes is None else cue.boxes[~np.isnan(cue.boxes).any(1)]
        if not len(found) and (again is not None or (state.active and kind == "switch")):
            return Verdict("absent")
        target = Target(state.next_id, prompt) if again is None else replace(again, active=True)
        former = () if kind == "start" else tuple(each for each in archived(state) if each.id != target.id)
        if not len(found):
            return Verdict(kind, Cue(prompt.text), former)
        x1, y1, x2, y2 = (float(value) for value in found[0])
        told = Cue(target.prompt.text, visual=(VisualPrompt((x1, y1, x2, y2)),), answer=cue.answer)
        return Verdict(kind, told, (target, *former), (target.id,))

    def _changed(self, state: TrackState) -> bool:
        """Whether the last frame was one to look at, and the box on it has changed since the last time."""
        (target,), record = state.active, state.record
        since = state.frame - 1 - record.began
        if since < 1 or since % self.settings.every or target.last_seen != state.frame - 1:
            return False
        then, now = record.box, target.box
        if then is None or now is None:
            return False
        height, width = dict(state.memory.targets)[target.id].size
        moved = [abs(a - b) / side for a, b, side in zip(now, then, (width, height) * 2, strict=True)]
        return _area(now) < self.settings.area * _area(then) or max(moved) > self.settings.shift


def _redescribed(state: TrackState, kind: str, cue: Cue) -> Verdict:
    """The verdict that leaves a target where it is and gives it words."""
    return Verdict(kind, cue, state.targets, tuple(target.id for target in state.active))


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
