"""Cognitive arbitration (IMAT section 4.3): when to ask the grounder about a track, and whom to believe.

Instructions are always put to the grounder. Without one it is asked where a track is in doubt: for two reasons on one
frame, or one on two frames in a row, and no more often than a budget allows. What is lost is searched for ever more
rarely. A grounder that costs little may check every track now and then, which is ours and not the paper's. All of it
is pure functions of a track's state and a small record.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from trackgpt.arbiter import PointedArbiter, archived
from trackgpt.errors import UsageError
from trackgpt.geometry.boxes import box_iou
from trackgpt.perception.identity_banks import contained
from trackgpt.track import TrackState
from trackgpt.types import SAME_TARGETS, Box, Cue, Prediction, Prompt, Target, Verdict, VisualPrompt


@dataclass(frozen=True)
class ArbitrationSettings:
    """When a grounder is asked, and when it is believed.

    Attributes:
        naive: any reason asks at once, and overlap alone decides (Table 3, naive IoU arbitration).
        tau_init: IoU with another target of the same words above which a box is that one again (IMAT: 0.3).
        tau_reinit: IoU of track and grounder from which on they agree (IMAT: 0.6); of boxes of targets that other
            words name, from which on they are the same thing.
        contained: share of a box within another from which on they are part and whole.
        jump: movement of the centre in target sizes (roots of areas) that is a reason to ask (delta_c of IMAT, open
            there; exceeded on 4 % of InteractTrack's frames).
        ratio: of the first score, below which the score is a reason (TrackGPT).
        margin: of the banks, below which it is a reason.
        confirm: frames in a row on which there must be a reason.
        cooldown: frames between two questions.
        budget: questions earned per frame (TrackGPT asks on 3 %).
        burst: questions that can be saved up.
        every: frames after which a track is checked without a reason, outside of the budget; 0 never does (the paper).
        apart: IoU up to which a track and a box are different things. Where there is no reason to doubt a track, such a
            box is believed only if `alike` or `insist` says so: a detector may see another thing of the same name and
            miss the target itself.
        alike: likeness to the target below which a track is given up for such a box.
        insist: checks in a row that must say so otherwise.
        search: frames from one question to the next while a target is lost; the last one repeats.
        search_first: the same while nothing has been found for an instruction, before `search`.
    """

    naive: bool = False
    tau_init: float = field(default=0.3, metadata={"range": (0.0, 1.0)})
    tau_reinit: float = field(default=0.6, metadata={"range": (0.0, 1.0)})
    contained: float = field(default=0.8, metadata={"range": (0.0, 1.0)})
    jump: float = field(default=0.5, metadata={"range": (0.0, 1e6)})
    ratio: float = field(default=0.5, metadata={"range": (0.0, 1e3)})
    margin: float = field(default=0.0, metadata={"range": (-2.0, 2.0)})
    confirm: int = field(default=2, metadata={"range": (1, 10**6)})
    cooldown: int = field(default=15, metadata={"range": (0, 10**9)})
    budget: float = field(default=0.03, metadata={"range": (0.0, 1.0)})
    burst: int = field(default=3, metadata={"range": (1, 10**6)})
    every: int = field(default=0, metadata={"range": (0, 10**9)})
    apart: float = field(default=0.1, metadata={"range": (0.0, 1.0)})
    alike: float = field(default=0.8, metadata={"range": (-1.0, 1.0)})
    insist: int = field(default=4, metadata={"range": (1, 10**6)})
    search: list[int] = field(default_factory=lambda: [15, 30, 60, 120, 300], metadata={"range": (1, 10**9)})
    search_first: list[int] = field(default_factory=lambda: [1, 2, 4, 8], metadata={"range": (1, 10**9)})


@dataclass(frozen=True)
class Watch:
    """What the arbiter keeps of one active target.

    Attributes:
        id: of the target.
        first: its score when it was last begun or found, NaN before it was seen.
        box: where it was on the last frame, or None.
        suspect: frames in a row with a reason to ask.
        lost: the frame of the track from which on it has been lost, -1 while it is seen.
        searched: questions since then.
        elsewhere: questions in a row whose answer lay apart from the track and was not believed.
        pointed: a person has last shown where it is, without a word: the words before do not count any more.
        hidden: the frame of the track from which on a person says that it is hidden, or leaves, or is gone; -1 once it
            has been found again, or where nobody says so.
    """

    id: int
    first: float = math.nan
    box: Box | None = None
    suspect: int = 0
    lost: int = -1
    searched: int = 0
    elsewhere: int = 0
    pointed: bool = False
    hidden: int = -1


@dataclass(frozen=True)
class Wanted:
    """Something that is to be added, or followed instead, and has not been found yet.

    Attributes:
        prompt: what was said.
        due: the frame of the track on which it is looked for next.
        searched: questions so far.
    """

    prompt: Prompt
    due: int
    searched: int = 0


@dataclass(frozen=True)
class ArbitrationRecord:
    """What the arbiter keeps of a track.

    Attributes:
        tokens: questions that may be asked at once.
        asked: the frame of the last question but for checks, -1 before.
        checked: the frame of the last check, -1 before.
        questions: asked without an instruction.
        searching: the frame from which on nothing has been found for the words in force, -1 where something has.
        searched: questions since then.
        look_again: the frame on which words about motion are read again, -1 for none.
        watches: of the active targets.
        wanted: what is to be added, or followed instead, once it is found.
    """

    tokens: float = 3.0
    asked: int = -1
    checked: int = -1
    questions: int = 0
    searching: int = -1
    searched: int = 0
    look_again: int = -1
    watches: tuple[Watch, ...] = ()
    wanted: tuple[Wanted, ...] = ()

    def wanted_on(self, frame: int) -> Wanted | None:
        """What is to be looked for on a frame of the track."""
        return next((one for one in self.wanted if one.due <= frame), None)


MOST_WANTED = 8
FREE = ("prompt", "searching", "wanted", "again", "check")
"""Reasons to ask that the budget does not count."""
GRAVEST = ("correct", "refine", "reinit", "found", "keep", "elsewhere", "duplicate")
"""Verdicts on one of several targets, by which one names that on all."""


class _Settled(NamedTuple):
    """The verdict on one target: where it was tracked, and where it was found."""

    id: int
    kind: str
    track: Box | None
    found: Box


class Arbitration:
    """The arbiter of a grounder and a memory segmenter; what is pointed at is believed, as `PointedArbiter` does.

    Args:
        name: of the model, for messages.
        settings: see there.
        look_again: frames after which words about motion, which the first frame says nothing of, are read again; 0 for
            a grounder that does not judge motion.
    """

    def __init__(self, name: str, settings: ArbitrationSettings = ArbitrationSettings(), look_again: int = 0) -> None:
        self.settings, self.look_again = settings, look_again
        self._pointed = PointedArbiter(name)

    def begin(self) -> ArbitrationRecord:
        """The record of a track that has not begun."""
        return ArbitrationRecord(tokens=float(self.settings.burst))

    def threshold(self, state: TrackState) -> np.ndarray:
        """`ratio` of the first score per active target, float32 (k,); 0 for one that was not seen yet."""
        first = {watch.id: watch.first for watch in state.record.watches}
        known = np.array([first.get(target.id, math.nan) for target in state.active], np.float32)
        return np.nan_to_num(known * np.float32(self.settings.ratio), nan=0.0)

    # --- when to ask ---

    def due(self, state: TrackState, prompt: Prompt | None) -> str:
        """Before looking: "prompt" for words where nothing is tracked, "searching" while nothing has been found.

        Raises:
            UsageError: see `PointedArbiter.due`, for what is not said in words; words correct a target that is not
                tracked, or one of several without a word of which; what is hidden is not known by words.
        """
        if prompt is not None:
            if prompt.kind == "absence":
                self._hidden(state, prompt)
                return ""
            if not _worded(prompt):
                if prompt.kind == "drop" and prompt.text and not prompt.ids and len(state.active) > 1:
                    listed = ", ".join(str(target.id) for target in state.active)
                    raise UsageError(f"drop {prompt.text!r:.40}: which of {listed}? Say so by ids")
                return self._pointed.due(state, prompt)
            self._refuse_unknown(state, prompt)
            return "prompt" if prompt.kind == "start" or not state.active else ""
        record: ArbitrationRecord = state.record
        if record.searching < 0 or state.active or not state.text:
            return ""
        schedule = [*self.settings.search_first, *self.settings.search]
        return "searching" if self._time_to_search(state.frame, record.asked, record.searched, schedule) else ""

    def _hidden(self, state: TrackState, prompt: Prompt) -> tuple[int, ...]:
        """The targets that are said to be hidden, or to leave, or to be gone: the only one, or those not seen."""
        active = {target.id: target for target in state.active}
        unseen = tuple(n for n, target in active.items() if target.last_seen < state.frame - 1)
        ids = prompt.ids or (tuple(active) if len(active) < 2 else unseen)
        if active and not ids:
            raise UsageError(f"absence: which of {', '.join(map(str, active))}? Say so by ids")
        for number in ids:
            if number not in active:
                raise UsageError(f"absence {number}: tracked are {', '.join(map(str, active)) or 'none'}")
            if not active[number].prompt.text:
                raise UsageError(f"absence {number}: it was shown and not named, so nothing can search for it")
        return ids

    def _refuse_unknown(self, state: TrackState, prompt: Prompt) -> None:
        active = [target.id for target in state.active]
        listed = ", ".join(map(str, active)) or "none"
        if prompt.kind == "correct" and (unknown := [number for number in prompt.ids if number not in active]):
            raise UsageError(f"correct {', '.join(map(str, unknown))}: tracked are {listed}")
        if prompt.kind == "correct" and not prompt.ids and len(active) > 1:
            raise UsageError(f"correct: which of {listed}? Say so by ids")
        if prompt.kind == "correct" and not state.prompts:
            raise UsageError("correct: nothing has been said that could be corrected")

    def doubts(self, state: TrackState, seen: Prediction, memory: object, prompt: Prompt | None) -> str:
        """After looking: "prompt" for words about what is tracked, or why to ask now, or "".

        The reasons: "motion", "score", "margin", several of them joined by "+"; "lost"; "check" where nothing is odd;
        "again" for words about motion; "wanted" for what an instruction named that was not found.
        """
        if prompt is not None:
            named = prompt.kind == "resume" and any(target.prompt.text for target in state.active)
            return "prompt" if _worded(prompt) or named else ""
        record: ArbitrationRecord = state.record
        how = self.settings
        if record.wanted_on(state.frame) is not None:
            return "wanted"
        watches = {watch.id: watch for watch in record.watches}
        worded = [
            (row, watches.get(target.id, Watch(target.id)))
            for row, target in enumerate(state.active)
            if target.prompt.text and not watches.get(target.id, Watch(target.id)).pointed
        ]
        if not worded:
            return ""
        if record.look_again == state.frame:
            return "again"
        whys = [self._why(state, seen, row, watch) for row, watch in worded]
        checked = how.every and state.frame - max(record.asked, record.checked) >= how.every
        return next((why for why in whys if why), "check" if checked else "")

    def _why(self, state: TrackState, seen: Prediction, row: int, watch: Watch) -> str:
        """Why to ask about one target now, or ""."""
        how, record = self.settings, state.record
        if not seen.present[row] or watch.hidden >= 0:
            begin = watch.hidden if watch.hidden >= 0 else watch.lost - 1
            since = max(begin, record.asked)
            due = (watch.lost >= 0 or watch.hidden >= 0) and self._time_to_search(
                state.frame, since, watch.searched, how.search
            )
            return "lost" if due and record.tokens + how.budget >= 1 else ""
        reasons = self._reasons(seen, row, watch)
        if how.naive:
            return "+".join(reasons)
        sure = len(reasons) > 1 or (bool(reasons) and watch.suspect + 1 >= how.confirm)
        rested = record.asked < 0 or state.frame - record.asked >= how.cooldown
        return "+".join(reasons) if sure and rested and record.tokens + how.budget >= 1 else ""

    def _reasons(self, seen: Prediction, row: int, watch: Watch) -> list[str]:
        """What is odd about a target that is seen."""
        how, margins = self.settings, seen.own_scores.get("margin")
        found = []
        if watch.box is not None and jump(watch.box, _box(seen.boxes[row])) > how.jump:
            found.append("motion")
        if float(seen.scores[row]) < how.ratio * watch.first:
            found.append("score")
        if margins is not None and float(margins[row]) < how.margin:
            found.append("margin")
        return found

    def _time_to_search(self, frame: int, since: int, count: int, schedule: Sequence[int]) -> bool:
        return bool(schedule) and frame - since >= schedule[min(count, len(schedule) - 1)]

    # --- whom to believe ---

    def judge(self, state: TrackState, seen: Prediction | None, cue: Cue | None, prompt: Prompt | None) -> Verdict:
        """Whom to believe (IMAT, Eq. 5 and 6).

        Before looking: what is pointed at, or new targets in the grounder's boxes. After looking: each target against
        its box, or what an instruction names against what is tracked.
        """
        if prompt is not None and prompt.kind == "absence":
            return Verdict("absence", hidden=self._hidden(state, prompt))
        if cue is None or cue.boxes is None:
            return Verdict() if prompt is None or _worded(prompt) else self._pointed.judge(state, None, cue, prompt)
        wanted = state.record.wanted_on(state.frame) if prompt is None and seen is not None else None
        if seen is not None and wanted is not None:
            return self._instructed(state, seen, cue, wanted.prompt)
        if prompt is None or prompt.kind == "resume":
            return self._begun(state, cue, state.prompt, "found") if seen is None else self._checked(state, seen, cue)
        if seen is None:
            return self._begun(state, cue, prompt, prompt.kind)
        return self._instructed(state, seen, cue, prompt)

    def _instructed(self, state: TrackState, seen: Prediction, cue: Cue, prompt: Prompt) -> Verdict:
        """What an instruction comes to beside what is tracked."""
        judged = self._added if prompt.kind == "add" else self._told
        return judged(state, seen, self._meant(state, seen, cue, prompt), prompt)

    def _begun(self, state: TrackState, cue: Cue, prompt: Prompt, kind: str) -> Verdict:
        """New targets, one in each box; former ones are archived, and forgotten by "start"."""
        boxes = [_box(box) for box in _rows(cue)]
        new = _named(state, prompt, len(boxes))
        former = () if kind == "start" else archived(state)
        return _shown(kind, cue, (*new, *former), [target.id for target in new], boxes)

    def _added(self, state: TrackState, seen: Prediction, cue: Cue, prompt: Prompt) -> Verdict:
        """New targets beside those that are tracked, but for boxes of these."""
        live = [box for box in _live(seen) if box is not None]
        boxes = [box for box in map(_box, _rows(cue)) if not self._same(box, live, self.settings.tau_reinit)]
        if not boxes:
            return Verdict("duplicate" if cue.targets else "absent")
        new = _named(state, prompt, len(boxes))
        former = tuple(target for target in state.targets if not target.active)
        return _shown("add", cue, (*state.active, *new, *former), [target.id for target in new], boxes)

    def _meant(self, state: TrackState, seen: Prediction, cue: Cue, prompt: Prompt) -> Cue:
        """The cue without what a person has ruled out: for the target that is wrong or not meant, the next rival.

        A part is looked for where the target is. A correction that names nothing but the target itself is left as it
        is, unless the words say that it is not meant. What is added is no target that is followed, where the words fit
        something else as well.
        """
        rows = zip(state.active, seen.boxes, seen.present, strict=True)
        live = {target.id: _box(box) for target, box, here in rows if here}
        own = tuple(target.id for target in state.active if not prompt.ids or target.id in prompt.ids)
        found, rivals = list(map(_box, _rows(cue))), [] if cue.rivals is None else list(map(_box, cue.rivals))
        if not found or prompt.chosen:
            return cue  # rivals are then anything that was seen, or what a person did not choose
        if prompt.kind == "refine" and len(own) == 1 and own[0] in live:
            parts = [box for box in (*found, *rivals) if self._part_and_whole(live[own[0]], box)]
            return _boxed(cue, parts[:1] or found)
        known = prompt.kind == "add" or (prompt.kind == "correct" and len(own) == 1)
        wrong = [live[number] for number in prompt.excluded or (own if known else ()) if number in live]
        left, alike, others = (
            [box for box in of if not self._same(box, wrong, self.settings.tau_reinit)]
            for of in (found, rivals[: cue.alike], rivals[cue.alike :])
        )
        if prompt.kind == "add" and not prompt.excluded:
            others = []  # what is followed already is what was meant, rather than something that fits less
        if not wrong or not (left or alike or others or prompt.excluded):
            return cue
        offered = [*alike, *others]
        if left:
            boxed = cue if len(left) == len(found) else _boxed(cue, left)
            return replace(boxed, rivals=_array(offered), alike=len(alike))
        return replace(_boxed(cue, offered[:1]), rivals=_array(offered[1:]), alike=max(0, len(alike) - 1))

    def _told(self, state: TrackState, seen: Prediction, cue: Cue, prompt: Prompt) -> Verdict:
        """An instruction about what is tracked: the same thing, its part or its whole, another place, another thing.

        Words for which nothing is found change nothing: a good track is worth more than an instruction that was not
        understood.
        """
        found, same = [_box(box) for box in _rows(cue)], prompt.kind in SAME_TARGETS
        rows = [row for row, target in enumerate(state.active) if target.id in prompt.ids or not prompt.ids]
        if not found:
            return Verdict("absent")
        if not same and (len(found) != 1 or len(rows) != 1):
            return self._begun(state, cue, prompt, prompt.kind)
        live, settled = _live(seen), []
        for row, box in _nearest([live[row] for row in rows], found):
            target, track = state.active[rows[row]], live[rows[row]]
            kind = self._verdict(track, box, [live[k] for k in range(len(live)) if k not in rows])
            kind = self._meaning(kind, track, box, prompt.kind)
            if kind == "new":
                return self._begun(state, cue, prompt, prompt.kind)
            settled.append(_Settled(target.id, kind, track, box))
        renamed = {one.id for one in settled}
        targets = tuple(replace(each, prompt=prompt) if each.id in renamed else each for each in state.targets)
        return self._settled(cue, targets, settled)

    def _meaning(self, kind: str, track: Box | None, box: Box, said: str) -> str:
        """What a verdict on a target means where something is said of it: "new" for another target."""
        if kind not in ("reinit", "found"):
            return kind
        if said == "state":  # how it is now, and not where
            return kind if track is None else "elsewhere"
        if said == "refine" or (track is not None and self._part_and_whole(track, box)):
            return "refine"
        return "correct" if said == "correct" else "new"

    def _checked(self, state: TrackState, seen: Prediction, cue: Cue) -> Verdict:
        """Every active target against the grounder's box of it; that others fit its words as well changes nothing."""
        cue = replace(cue, alike=0)
        watches = {watch.id: watch for watch in state.record.watches}
        live, settled = _live(seen), list[_Settled]()
        for row, (target, box) in enumerate(zip(state.active, _all_rows(cue, len(live)), strict=True)):
            watch = watches.get(target.id, Watch(target.id))
            if watch.pointed or np.isnan(box).any():
                continue  # what is not found does not end a track: detectors miss things
            found = _box(box)
            hidden = watch.hidden >= 0
            if hidden and live[row] is not None and self._why(state, seen, row, watch) != "lost":
                continue  # it was seen when that was said, and may be for a while
            others = [live[k] for k, other in enumerate(state.active) if k != row and _rivals(target, other)]
            given = [one.found for one in settled if one.kind in ("reinit", "found")]
            kind = self._verdict(live[row], found, [*others, *given])
            if kind == "reinit" and not hidden and self._trusted(seen, row, watch, found):
                kind = "elsewhere"
            settled.append(_Settled(target.id, kind, live[row], found))
        return self._settled(cue, state.targets, settled)

    def _settled(self, cue: Cue, targets: tuple[Target, ...], settled: Sequence[_Settled]) -> Verdict:
        """One verdict of those on several targets; its kind is the gravest of theirs."""
        kind = next((kind for kind in GRAVEST if any(one.kind == kind for one in settled)), "absent")
        confirmed = tuple(one.id for one in settled if one.kind == "keep")
        anew = [one for one in settled if one.kind in ("correct", "reinit", "found", "refine")]
        if not anew:
            return Verdict(kind, targets=targets, confirmed=confirmed)
        wrong = [self._failed(one) for one in anew]
        verdict = _shown(kind, cue, targets, [one.id for one in anew], [one.found for one in anew], wrong)
        rejected = tuple(one.id for one, track in zip(anew, wrong, strict=True) if track is not None)
        return replace(verdict, confirmed=confirmed, rejected=rejected)

    def _failed(self, one: _Settled) -> Box | None:
        """Where a target was tracked, if that was something else, and no part or whole of it."""
        if one.kind == "refine" or one.track is None or self._part_and_whole(one.track, one.found):
            return None
        return one.track

    def _verdict(self, track: Box | None, found: Box, others: Sequence[Box | None]) -> str:
        """What a box says about a track. A track that agrees is kept, even where another one is near (ours)."""
        if track is not None and _iou(track, found) >= self.settings.tau_reinit:
            return "keep"
        if not self.settings.naive and self._same(found, others, self.settings.tau_init):
            return "duplicate"
        return "found" if track is None else "reinit"

    def _trusted(self, seen: Prediction, row: int, watch: Watch, found: Box) -> bool:
        """Whether a track without fault, which still looks like its target, is believed against a box elsewhere."""
        how, likeness = self.settings, seen.own_scores.get("likeness")
        if how.naive or likeness is None or _iou(_box(seen.boxes[row]), found) > how.apart:
            return False
        faultless = not self._reasons(seen, row, watch) and float(likeness[row]) >= how.alike
        return faultless and watch.elsewhere + 1 < how.insist

    def _same(self, box: Box, others: Sequence[Box | None], bound: float) -> bool:
        return any(other is not None and _iou(box, other) > bound for other in others)

    def _part_and_whole(self, a: Box, b: Box) -> bool:
        return not self.settings.naive and max(contained(a, b), contained(b, a)) >= self.settings.contained

    # --- what is kept ---

    def after(self, state: TrackState, seen: Prediction, verdict: Verdict) -> ArbitrationRecord:
        """The record for the next frame."""
        how, before, frame, why = self.settings, state.record, state.frame, seen.reason
        earned = min(float(how.burst), before.tokens + how.budget)
        paid = why not in ("", *FREE) and not how.naive
        watches = {watch.id: watch for watch in before.watches}
        return replace(
            self._searching(state, seen, verdict),
            tokens=max(0.0, earned - paid),
            asked=frame if why not in ("", "check", "wanted") else before.asked,
            checked=frame if why == "check" else before.checked,
            questions=before.questions + (why not in ("", "prompt")),
            look_again=self._next_look(state, seen),
            wanted=self._still_wanted(state, seen, verdict),
            watches=tuple(
                self._watched(state, seen, row, watches.get(target.id, Watch(target.id)), verdict)
                for row, target in enumerate(state.active)
            )
            + tuple(watches[target.id] for target in state.targets if not target.active and target.id in watches),
        )

    def _searching(self, state: TrackState, seen: Prediction, verdict: Verdict) -> ArbitrationRecord:
        """The record with what is searched for: words for which nothing was found, while nothing is tracked."""
        before: ArbitrationRecord = state.record
        if state.active or verdict.kind == "drop":
            return replace(before, searching=-1, searched=0)
        if seen.reason == "prompt":
            return replace(before, searching=state.frame, searched=0)
        return replace(before, searched=before.searched + (seen.reason == "searching"))

    def _still_wanted(self, state: TrackState, seen: Prediction, verdict: Verdict) -> tuple[Wanted, ...]:
        """What instructions name that was not found, until it is or something else is meant."""
        if not state.active:
            return ()
        frame, said = state.frame, state.prompts[-1] if seen.reason == "prompt" else None
        asked = state.record.wanted_on(frame) if seen.reason == "wanted" else None
        kinds = {verdict.kind, "" if said is None else said.kind}
        wanted = [
            one for one in state.record.wanted if one is not asked and (said is None or one.prompt.text != said.text)
        ]
        if asked is None and kinds & {"start", "switch", "resume"}:
            wanted = []
        elif kinds & set(SAME_TARGETS):  # a person who goes on with what is followed means nothing else instead
            wanted = [one for one in wanted if one.prompt.kind != "switch"]
        schedule = [*self.settings.search_first, *self.settings.search]
        if asked is not None and verdict.kind == "absent":
            count = asked.searched + 1
            wanted.append(replace(asked, due=frame + schedule[min(count, len(schedule) - 1)], searched=count))
        elif said is not None and said.kind in ("add", "switch") and verdict.kind == "absent":
            wanted.append(Wanted(said, frame + schedule[0]))
        return tuple(wanted[-MOST_WANTED:])

    def _next_look(self, state: TrackState, seen: Prediction) -> int:
        """The frame on which words about motion are read again, -1 for none."""
        if seen.reason == "prompt":
            provisional = seen.cue is not None and seen.cue.provisional
            return int(state.frame) + self.look_again if provisional and self.look_again else -1
        return int(state.record.look_again) if state.record.look_again > state.frame else -1

    def _watched(self, state: TrackState, seen: Prediction, row: int, watch: Watch, verdict: Verdict) -> Watch:
        asked, score, shown = bool(seen.reason), float(seen.scores[row]), watch.id in verdict.cued
        pointed = _wordless(state, verdict, watch.id) if shown else watch.pointed
        if watch.id in verdict.hidden:
            watch = replace(watch, hidden=state.frame, searched=0)
        elif shown or watch.id in verdict.confirmed:
            watch = replace(watch, hidden=-1, searched=0)
        if not seen.present[row]:
            lost = state.frame if watch.lost < 0 else watch.lost
            searched = watch.searched + (seen.reason == "lost")
            return replace(watch, box=None, suspect=0, lost=lost, searched=searched, pointed=pointed)
        anew, box = math.isnan(watch.first) or shown, _box(seen.boxes[row])
        odd = not asked and bool(self._reasons(seen, row, watch))
        return Watch(
            watch.id,
            first=score if anew else watch.first,
            box=box,
            suspect=watch.suspect + 1 if odd else 0,
            searched=watch.searched + (seen.reason == "lost") if watch.hidden >= 0 else 0,
            elsewhere=0 if anew else self._elsewhere(state, seen, row, watch),
            pointed=pointed,
            hidden=watch.hidden,
        )

    def _elsewhere(self, state: TrackState, seen: Prediction, row: int, watch: Watch) -> int:
        """Questions in a row whose answer lay apart from a track; an instruction's answer has no row for it."""
        if seen.reason in ("", "prompt", "wanted") or seen.cue is None:
            return watch.elsewhere
        told = _all_rows(seen.cue, len(state.active))[row]
        apart = not np.isnan(told).any() and _iou(_box(seen.boxes[row]), _box(told)) <= self.settings.apart
        return watch.elsewhere + 1 if apart else 0


class FirstWords:
    """An arbiter to which nothing that is said counts once some target has been seen (Table 3, without language)."""

    def __init__(self, arbiter: Arbitration) -> None:
        self._arbiter = arbiter

    def due(self, state: TrackState, prompt: Prompt | None) -> str:
        """What the other one says, as long as nothing has been seen."""
        return "" if _has_seen(state) else self._arbiter.due(state, prompt)

    def doubts(self, state: TrackState, seen: Prediction, memory: object, prompt: Prompt | None) -> str:
        """Always ""."""
        return ""

    def judge(self, state: TrackState, seen: Prediction | None, cue: Cue | None, prompt: Prompt | None) -> Verdict:
        """What the other one says, as long as nothing has been seen; then what is said changes nothing."""
        return Verdict() if _has_seen(state) else self._arbiter.judge(state, seen, cue, prompt)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._arbiter, name)


def _has_seen(state: TrackState) -> bool:
    return any(target.box is not None for target in state.targets)


def jump(before: Box, now: Box) -> float:
    """Movement of the centre in sizes of the former box, which are roots of areas of at least one pixel."""
    x, y = ((now[k] + now[k + 2] - before[k] - before[k + 2]) / 2 for k in (0, 1))
    size = math.sqrt(max(before[2] - before[0], 1.0) * max(before[3] - before[1], 1.0))
    return math.hypot(x, y) / size


def negative_click(failed: Box | None, found: Box) -> tuple[tuple[float, float, int], ...]:
    """A click that says "not here" in the middle of a failed box, where it lies beside the middle of the right one.

    In the box enlarged by a fifth, and outside of its inner half, which is likely to be the target itself.
    """
    if failed is None:
        return ()
    x, y = (failed[0] + failed[2]) / 2, (failed[1] + failed[3]) / 2
    across = abs(x - (found[0] + found[2]) / 2) / max(found[2] - found[0], 1e-6)
    down = abs(y - (found[1] + found[3]) / 2) / max(found[3] - found[1], 1e-6)
    return ((x, y, 0),) if 0.25 < max(across, down) <= 0.6 else ()


def _worded(prompt: Prompt) -> bool:
    """Whether words are all that says what is meant."""
    return bool(prompt.text) and not prompt.visual and prompt.kind not in ("drop", "resume", "absence")


def _shown(
    kind: str,
    cue: Cue,
    targets: tuple[Target, ...],
    cued: Sequence[int],
    boxes: Sequence[Box],
    failed: Sequence[Box | None] = (),
) -> Verdict:
    """The verdict that shows targets in boxes, and what they are not."""
    wrong = [*failed, *([None] * (len(boxes) - len(failed)))]
    visual = tuple(VisualPrompt(box, negative_click(one, box)) for box, one in zip(boxes, wrong, strict=True))
    return Verdict(kind, replace(cue, visual=visual), targets, tuple(cued))


def _named(state: TrackState, prompt: Prompt, count: int) -> tuple[Target, ...]:
    """New targets, under the numbers that a prompt gives if they are as many and free, else under the next ones."""
    known = {target.id for target in state.targets} if prompt.kind != "start" else set()
    free = len(prompt.ids) == count and known.isdisjoint(prompt.ids)
    return tuple(Target(prompt.ids[k] if free else state.next_id + k, prompt) for k in range(count))


def _wordless(state: TrackState, verdict: Verdict, number: int) -> bool:
    """Whether a person has just shown where a target is, and not only where it is not, without a word."""
    if verdict.cue is None or verdict.cue.boxes is not None or not state.prompts or state.prompts[-1].text:
        return False
    return verdict.cue.visual[verdict.cued.index(number)].finds


def _live(seen: Prediction) -> list[Box | None]:
    """Where each target is seen."""
    return [_box(box) if here else None for box, here in zip(seen.boxes, seen.present, strict=True)]


def _rivals(target: Target, other: Target) -> bool:
    """Whether a box of one target may be the other one's: it has the same words, or was pointed at without any."""
    return other.prompt.text in ("", target.prompt.text)


def _nearest(tracks: Sequence[Box | None], found: Sequence[Box]) -> list[tuple[int, Box]]:
    """Which box is whose: positions among tracks, each with a box, by best overlap of all together."""
    places = np.array([track or (np.nan,) * 4 for track in tracks], np.float32).reshape(-1, 4)
    overlap = box_iou(places, np.array(found, np.float32))
    return [(int(i), found[int(j)]) for i, j in zip(*linear_sum_assignment(-overlap), strict=True)]


def _rows(cue: Cue) -> np.ndarray:
    """The boxes that were found, float32 (n, 4)."""
    boxes = np.zeros((0, 4), np.float32) if cue.boxes is None else cue.boxes
    return boxes[~np.isnan(boxes).any(1)]


def _boxed(cue: Cue, boxes: Sequence[Box]) -> Cue:
    """The cue with these boxes instead, without scores, and in no doubt."""
    return replace(cue, boxes=_array(boxes), scores=None, alike=0)


def _array(boxes: Sequence[Box]) -> np.ndarray:
    return np.array(boxes, np.float32).reshape(-1, 4)


def _all_rows(cue: Cue, count: int) -> np.ndarray:
    """The box of each of so many targets, NaN where there is none."""
    boxes = np.full((count, 4), np.nan, np.float32)
    if cue.boxes is not None:
        boxes[: len(cue.boxes)] = cue.boxes[:count]
    return boxes


def _box(box: np.ndarray) -> Box:
    x1, y1, x2, y2 = (float(value) for value in box)
    return x1, y1, x2, y2


def _iou(a: Box, b: Box) -> float:
    return float(box_iou(np.array([a], np.float32), np.array([b], np.float32))[0, 0])
