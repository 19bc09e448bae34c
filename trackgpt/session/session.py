"""The core behind every entry point: say something, give it frames, get results. It reads no source and writes no file.

The command line, Python, evaluation of files and a page go through it, which is why the same run gives the same log
from a file, a folder, a stream and Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from trackgpt.errors import TrackGPTError, UsageError
from trackgpt.export.prompts import answers, written_prompt
from trackgpt.export.records import EventRecord, EventType, Take, TrackRecord
from trackgpt.geometry.pointing import refuse_misplaced
from trackgpt.reasoners.instructions import asks_for_others
from trackgpt.session.choices import Ambiguity, alike_in_words, choice_of, fitting
from trackgpt.session.conditionals import fallen_through, settled
from trackgpt.session.contradictions import denied_points, elsewhere
from trackgpt.session.given import given_frame, given_prompt, given_visual
from trackgpt.session.journal import Journal, Log, grounded, record_seen
from trackgpt.session.late import LateTracker, Revision
from trackgpt.session.results import Reply, Result, objects_of
from trackgpt.session.takes import Said
from trackgpt.session.understanding import (
    answer_of,
    others_of,
    referring,
    refuse_unheard,
    refuse_unknown,
    reply_to,
    understood,
)
from trackgpt.track import TrackState
from trackgpt.types import Box, Cue, Prediction, Prompt, PromptKind, Target, VisualPrompt
from trackgpt.video.frames import SourceFrame

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trackgpt.online import Arbiter, Frame
    from trackgpt.reasoners.kind_reader import KindReader
    from trackgpt.reasoners.references import Context


@dataclass(frozen=True)
class _Waiting:
    """An instruction about the next frame, as it was given and as it was read then."""

    given: str | Prompt
    how: Mapping[str, Any]
    prompt: Prompt


class Stepping(Protocol):
    """What a session steps with: a `trackgpt.online.Tracker`, or one that answers late."""

    @property
    def arbiter(self) -> Arbiter:
        """The system's arbiter."""
        ...

    @property
    def kinds(self) -> tuple[type, ...]:
        """See `trackgpt.online.Tracker`."""
        ...

    def begin(self) -> TrackState:
        """A track on which nothing has been said."""
        ...

    def step(self, state: TrackState, frame: Frame, prompt: Prompt | None = None) -> tuple[TrackState, Prediction]:
        """See `trackgpt.online.step`."""
        ...


class Session:
    """One track and its takes, a frame at a time.

        session = trackgpt.load("nano").session()
        session.say("the red car")
        for image in camera:            # uint8 RGB (height, width, 3)
            result = session.step(image)

    Args:
        tracker: the system.
        check: gives an instruction as the system will read it, or refuses it.
        log: where every record goes.
        reader: tells the kind of what is said where no rule knows; None for the rules alone.
        finder: where words that come with one box or mask are found on its frame, uint8 RGB (height, width, 3), as
            float32 (n, 4), xyxy pixels; None believes what is shown without a word.

    Attributes:
        state: of the track.
        size: height and width that unreadable frames have, as long as none could be read.
        on_choice: called where several things fit what was said; gives what a person answers ("2", "all", other words),
            or "", and then the surest is followed and may be changed by `choose`. Always "" unless set.
        choice: what may be chosen from; None where what was said last fits one thing alone.
    """

    def __init__(
        self,
        tracker: Stepping,
        check: Callable[[str], str] = str,
        log: Log | None = None,
        reader: KindReader | None = None,
        finder: Callable[[np.ndarray, str], np.ndarray] | None = None,
    ) -> None:
        self.tracker = tracker
        self.size = (1, 1)
        self.state = tracker.begin()
        self.on_choice: Callable[[Ambiguity], str] = _undecided
        self.choice: Ambiguity | None = None
        self._check = check
        self._journal = Journal(log)
        self._reader, self._finder = reader, finder
        self._image: np.ndarray | None = None
        self._said: list[_Waiting] = []
        self._pending: tuple[int, Prediction] | None = None
        self._asked: Prompt | None = None
        self._several = False

    # --- what a person does ---

    def say(self, text: str | Prompt = "", *, about: SourceFrame | None = None, **how: Any) -> Reply:
        """Tell the tracker what to follow, in words or by pointing at it.

            session.say("the red car")
            session.say("no, the one behind it")                # a correction: "the car behind the red car"
            session.say("the one behind it", kind="add")        # said which kind, it is taken as it is
            session.say(box=(10, 20, 60, 90))                   # x1, y1, x2, y2
            session.say(points=[(30, 40, 0)], kind="correct")   # 0: not here
            session.say(visual=[VisualPrompt(box=a), VisualPrompt(mask=b)], ids=(7, 9))

        Two instructions about one frame are two steps over it, since the second is about what the first has led to. The
        frame is recorded once; in the track's own count of frames, by which searches and checks go, it is two.

        Args:
            text: the instruction, or a whole prompt, whose `frame` does not matter here.
            about: the frame of a source that is stepped next: it is looked at now, and the reply is about it. Without
                it the instruction is about the frame of the next `step`, whose events have the answer.
            how: `kind`, `ids`, `visual`, or `box`, `points` and `mask` of one target, or `choose`, see `read`.

        Raises:
            UsageError: see `read` and `refuse`; what is shown lies outside of the frame; no target is what the words of
                a "drop" or "resume" name.
        """
        prompt = self._taken(text, how)
        words = text.heard if isinstance(text, Prompt) else text
        if prompt.heard != " ".join(words.split()):
            markup = f"markup was taken out of the instruction, which is read as {prompt.heard!r}"
            self.warn("NL03", about or self.last, markup)
        if prompt.chosen and self._is_open(prompt):
            return self._chosen(prompt, about)
        if about is None:
            if prompt.kind == "question" and not self._said:
                return self._noted(self.last, prompt)
            self._said.append(_Waiting(text, how, prompt))
            return Reply()
        if not isinstance(about, SourceFrame) or about.image is None:
            raise UsageError("about: wanted the next frame of a source, with its image; else leave it out")
        return self._instruct(about, prompt)

    def correct(self, text: str = "", **how: Any) -> Reply:
        """What is followed is wrong: this is meant. As `say` with that kind, like the five that follow."""
        return self.say(text, kind="correct", **how)

    def switch(self, text: str = "", **how: Any) -> Reply:
        """Follow this instead."""
        return self.say(text, kind="switch", **how)

    def add(self, text: str = "", **how: Any) -> Reply:
        """Follow this, too."""
        return self.say(text, kind="add", **how)

    def drop(self, what: str | int = "", **how: Any) -> Reply:
        """No longer follow what words or a number mean, or these `ids`; without any of them, nothing of all."""
        return self._about("drop", what, how)

    def resume(self, what: str | int = "", **how: Any) -> Reply:
        """Return to a former target, by words or by its number, or to these `ids`."""
        return self._about("resume", what, how)

    def _about(self, kind: PromptKind, what: str | int, how: dict[str, Any]) -> Reply:
        if isinstance(what, int):
            return self.say(kind=kind, **{"ids": (what,)} | how)
        return self.say(what, kind=kind, **how)

    def refine(self, text: str = "", **how: Any) -> Reply:
        """Go on with this part of what is followed."""
        return self.say(text, kind="refine", **how)

    def choose(self, *numbers: int, point: tuple[float, float] | None = None) -> Reply:
        """Of several things that fit what was said, follow these, by their numbers or a point on one of them.

        It is an instruction in the place of that one: the track is as if these alone had been found on that frame, and
        `undo` brings the other one back. Frames that were recorded meanwhile stay as they are.

        Raises:
            UsageError: there is nothing to choose from, no such number, or no box at the point.
        """
        return self.say(choose=numbers if point is None else VisualPrompt(points=((*point, 1),)))

    def ask(self, text: str = "what are you tracking?") -> Reply:
        """A question, answered from the record: what is followed, since when, by which words and how surely."""
        return self.say(text, kind="question")

    def read(
        self,
        text: str | Prompt = "",
        *,
        kind: PromptKind | None = None,
        ids: Sequence[int] = (),
        visual: VisualPrompt | Sequence[VisualPrompt] = (),
        box: Box | None = None,
        points: Sequence[tuple[float, float, int]] | None = None,
        mask: np.ndarray | None = None,
        choose: int | str | Sequence[int] | VisualPrompt | None = None,
        **written: Any,
    ) -> Prompt:
        """The prompt of what is said, without saying it.

        Args:
            text: the instruction, or a whole prompt.
            kind: see `Prompt`; by default what the words say (`trackgpt.reasoners.instructions.understand`), which
                are then written out. Without words, or with ids or something shown, "start", or "switch" where
                something has been said before.
            ids: see `Prompt`; by default those that the words of a "drop" or "resume" refer to.
            visual: what is shown, one per target.
            box, points, mask: the short form for one target, see `VisualPrompt`.
            choose: which of several things that fit is meant: numbers, a point, or words of these (see
                `Ambiguity.understood`), which say so without `choose`, too, as long as there is a choice.
            written: further fields of a `Prompt`, of an instruction that was read before, with its `kind`.

        Raises:
            UsageError: NL01, NL02 the instruction is empty or too long; the kind does not exist; a box, point or mask
                is none; `points` is empty; ids and targets differ in number.
        """
        if choose is not None:
            return self._answer(choose)
        shown = given_visual(visual, box, points, mask)
        if not isinstance(text, Prompt):
            prompt = self._prompt(text, kind, ids, shown)
            if kind is None and prompt.text and not (prompt.ids or prompt.visual or written):
                chosen = self.choice and self.choice.understood(prompt.text)
                return chosen or self._understood(prompt.text)
            return replace(referring(prompt, self.state), **written)
        if kind is not None or ids != () or shown != ():
            raise UsageError("a whole Prompt and more beside it: wanted one of them")
        prompt = self._prompt(text.text, text.kind, text.ids, text.visual)
        return replace(text, text=prompt.text, frame=0, ids=prompt.ids, visual=prompt.visual)

    def _answer(self, choose: int | str | Sequence[int] | VisualPrompt) -> Prompt:
        if self.choice is None:
            raise UsageError("choose: there is nothing to choose from; what was said last fits one thing alone")
        return self.choice.answered(choose)

    def _prompt(self, text: Any, kind: Any, ids: Any, shown: Any) -> Prompt:
        begun = bool(self.state.prompts or self._said)
        return given_prompt(text, kind, ids, shown, begun, self._check)

    def _understood(self, text: str) -> Prompt:
        """What words say of what is tracked, written out."""
        prompt = understood(text, self.state, self._check, self._kind_of)
        return replace(prompt, kind="switch") if self._said and prompt.kind == "start" else prompt

    def _kind_of(self, text: str, context: Context) -> PromptKind | None:
        """The kind of words, by the model that reads kinds and the frame that was seen last; None without either."""
        if self._reader is None or self._image is None:
            return None
        return self._reader.kind_of(text, context, self._image)

    def _taken(self, given: str | Prompt, how: Mapping[str, Any]) -> Prompt:
        """What is said, with the refusal of words for a target that is to end or to be taken up again and is not there.

        A whole prompt is taken as it is: its words need not refer to anything.
        """
        prompt = self.read(given, **how)
        self.refuse(prompt)
        if not isinstance(given, Prompt):
            refuse_unknown(prompt, self.state)
        return prompt

    def refuse(self, prompt: Prompt) -> None:
        """Refuse what the system cannot do with the track as it is.

        Raises:
            UsageError: it cannot do what the prompt wants.
        """
        refuse_unheard(prompt, self.state, self.tracker.arbiter)

    def step(
        self, frame: np.ndarray | SourceFrame | None, index: int | None = None, time: float | None = None
    ) -> Result:
        """The next frame.

        Args:
            frame: uint8 RGB (height, width, 3), a frame of a source, or None for one that could not be read.
            index: its number, by default the next one.
            time: its seconds, by default those of 24 frames per second.
        """
        at = frame if isinstance(frame, SourceFrame) else self._numbered(frame, index, time)
        if at.image is None:
            self._pending = None
            return self._journal.unreadable(at, self.size)
        self._image = None if self._reader is None else at.image
        if at.problem:
            self.warn("IN06" if "lost" in at.problem else "IN05", at, f"frame {at.index}: {at.problem}")
        waiting, self._said = self._said, []
        for k, each in enumerate(waiting):  # what the first one led to, the words of the next one may refer to
            self._said = waiting[k + 1 :]
            self._instruct(at, self._taken(each.given, each.how) if k else each.prompt)
        if not self.state.prompts:
            height, width = at.image.shape[:2]
            return self._journal.untracked(TrackRecord(at.index, round(at.time, 6), (height, width)), at)
        pending, self._pending = self._pending, None
        prediction = pending[1] if pending is not None and pending[0] == at.index else self._track(at)
        return self._journal.tracked(self._record(at, prediction), at, prediction, self.state.frame - 1)

    def undo(self) -> Said:
        """Take back what was said last: after an instruction, the state is the one before it, to the bit.

        A question counts as said: taking it back changes nothing, and the instruction before it needs another `undo`.
        Frames recorded since stay in the log; the next one opens a new take.

        Raises:
            UsageError: there is nothing to take back.
        """
        if self._said:
            return Said(self._said.pop().prompt, self.state, self._journal.present, self._journal.takes.following)
        if self._asked is not None:
            asked, self._asked = self._asked, None
            self._event("undo", self.last, text=asked.summary)
            return Said(asked, self.state, self._journal.present, self._journal.takes.following)
        said = self._journal.takes.find(self.state.prompts[-1]) if self.state.prompts else None
        if said is None:
            raise UsageError("nothing has been said here that could be taken back")
        frame, recorded = said.prompt.frame, self._journal.takes.recorded(said.prompt.frame)
        self._event("undo", self.last, text=said.prompt.summary, frame=frame, recorded=recorded)
        self._go_to(said.before, said.seen)
        self._pending, self.choice = said.looked, said.choice
        if recorded:
            self._journal.takes.branch(said.take)
            self._say_again(frame, said.time)
        return said

    def go_back_to_choice(self) -> None:
        """Go back to the frame of what may be chosen from, which is the next one to come; it opens a new take."""
        choice = self.choice
        assert choice is not None
        self._journal.takes.branch()
        self._go_to(choice.after[0], None)
        self._pending, self.choice = (choice.frame.index, choice.after[1]), choice
        self._say_again(choice.frame.index, choice.frame.time)

    def _say_again(self, index: int, time: float) -> None:
        """Record what holds and was said about the first frame of a take in that take, too."""
        for prompt in self.state.prompts:
            if prompt.frame == index and self._journal.takes.find(prompt) is not None:
                self._event("instruction", SourceFrame(index, time, None), **written_prompt(prompt))

    @property
    def on_event(self) -> Callable[[EventRecord], None]:
        """Called with every event as it happens; does nothing unless set."""
        return self._journal.on_event

    @on_event.setter
    def on_event(self, listener: Callable[[EventRecord], None]) -> None:
        self._journal.on_event = listener

    @property
    def frames(self) -> int:
        """How many frames have been recorded."""
        return self._journal.frames

    @property
    def rethinks(self) -> int:
        """How often the slow model was asked again."""
        return self._journal.rethinks

    @property
    def warnings(self) -> int:
        """How many warnings there were."""
        return self._journal.warnings

    @property
    def found(self) -> bool:
        """Some target has been seen on some frame."""
        return self._journal.found

    @property
    def last(self) -> TrackRecord | None:
        """The record of the last frame, or None."""
        return self._journal.last

    @property
    def pending(self) -> bool:
        """The next frame has been looked at already, since something was said about it."""
        return self._pending is not None

    @property
    def takes(self) -> tuple[Take, ...]:
        """The ways through the video that were opened so far; the last one is current."""
        return tuple(self._journal.takes.opened)

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """Everything said on the way to the present state, in order."""
        return self.state.prompts

    def snapshot(self) -> TrackState:
        """The track's state after the last frame: keep it, save it, or give it to `restore`.

        Raises:
            UsageError: something has just been said about the next frame.
        """
        if self._pending is not None or self._said:
            raise UsageError("an instruction about the next frame is under way; take the snapshot after that frame")
        return self.state

    def restore(self, state: TrackState) -> None:
        """Go on from a snapshot with the next frame, in this session or in another one of the same system.

        What has been said about the next frame is dropped.

        Raises:
            UsageError: it is no state of this system.
        """
        fresh = self.tracker.begin()
        kinds = (type(fresh.memory), type(fresh.record))
        if not isinstance(state, TrackState) or (type(state.memory), type(state.record)) != kinds:
            raise UsageError(f"{type(state).__name__}: not a state of this system; wanted one of its snapshot()")
        self._said = []
        self._journal.takes.branch()
        self._go_to(state, {target.id: target.last_seen == state.frame - 1 for target in state.active} or None)

    def load(self, path: str | Path) -> None:
        """Go on from a state that was saved: `restore` of a file of `TrackState.save`.

        Raises:
            InputError: the file is no saved state of this system.
        """
        self.restore(TrackState.load(path, self.tracker.kinds))

    def go_on(self, state: TrackState, records: Iterable[TrackRecord], events: Iterable[EventRecord]) -> None:
        """Go on where a log of one take ends, as if this new session had written it; it is not written again.

        What was said before cannot be taken back.

        Args:
            state: after the last frame of the log.
            records, events: all of them.
        """
        for event in events:
            self._journal.count(event)
            self._several = bool(event.data.get("alike")) if event.type == "answer" else self._several
        self._journal.go_on_after(records, tracking=bool(state.prompts))
        self.state = state

    def heard(self, first: int, last: int) -> list[Prompt]:
        """What was said in this session, on the way to the present state, about the frames from `first` to `last`."""
        said = [prompt for prompt in self.state.prompts if self._journal.takes.find(prompt) is not None]
        return [prompt for prompt in said if first <= prompt.frame <= last]

    def events(self) -> list[EventRecord]:
        """What has happened since this was last asked, the last 1,000 events at most."""
        return self._journal.unheard()

    def warn(self, code: str, at: SourceFrame | TrackRecord | None, text: str) -> None:
        """Count and record a warning; the code may be empty."""
        self._journal.warn(code, at, text)

    def note(self, event_type: EventType, /, **data: Any) -> None:
        """Record an event on the last frame."""
        self._event(event_type, self.last, **data)

    def start(self, frame: SourceFrame, **data: Any) -> None:
        """Record that a source begins with this frame."""
        self._event("start", frame, **data)

    # --- one frame ---

    def _go_to(self, state: TrackState, present: dict[int, bool] | None) -> None:
        self.state, self._pending = state, None
        self._asked = self.choice = None
        self._several = False
        self._journal.go_to(present)

    def _numbered(self, image: np.ndarray | None, index: int | None, time: float | None) -> SourceFrame:
        number = (0 if self.last is None else self.last.index + 1) if index is None else index
        passed = -1 if self.last is None or self._journal.takes.branching else self.last.index
        return given_frame(image, number, passed, time)

    def _instruct(self, frame: SourceFrame, said: Prompt) -> Reply:
        assert frame.image is not None
        if said.chosen and self._is_open(said):
            return self._chosen(said, frame)
        prompt = replace(said, frame=frame.index)
        refuse_misplaced(prompt, frame.image.shape[:2])
        if prompt.kind == "question":
            return self._noted(frame, prompt)
        image = looked_at(frame)
        if prompt.kind == "conditional":
            done = settled(self.tracker.step, self.state, image, prompt)
            return self._do(frame, done.prompt, (done.state, done.seen), meant=prompt.kind)
        return self._do(frame, prompt, self.tracker.step(self.state, image, prompt))

    def _do(self, frame: SourceFrame, prompt: Prompt, stepped: tuple[TrackState, Prediction], **meant: str) -> Reply:
        """Go on with what a step with an instruction gave."""
        before = self.state
        self._event("instruction", frame, **written_prompt(prompt), **meant)
        reply, seen = self._heeded(frame, prompt, stepped)
        answered = self._offered(choice_of(prompt, frame, before, self.state, seen))
        return answered or replace(reply, choice=self.choice)

    def _offered(self, choice: Ambiguity | None) -> Reply | None:
        """Record that a person may choose, and do what is answered at once; None where nothing is."""
        self.choice = choice
        if choice is None:
            return None
        self._event("choice", choice.frame, text=choice.text, boxes=choice.boxes, followed=choice.followed)
        answer = self.on_choice(choice)
        return self.say(answer, about=choice.frame) if answer else None

    def _is_open(self, prompt: Prompt) -> bool:
        """Whether a choice answers what may be chosen from now."""
        choice = self.choice
        asked = choice and replace(choice.prompt, frame=prompt.frame)
        return choice is not None and prompt.offered == choice.boxes and answers(prompt, asked or prompt)

    def _chosen(self, prompt: Prompt, about: SourceFrame | None) -> Reply:
        """Step from before the frame of the choice again, with what was chosen."""
        choice = self.choice
        assert choice is not None
        frame = choice.frame
        if about is not None and about.index != frame.index:
            raise UsageError(f"choose: the boxes are of frame {frame.index}, and frame {about.index} comes next")
        prompt = replace(prompt, frame=frame.index)
        if self._journal.takes.recorded(frame.index):
            self._journal.takes.branch()
        self._event("instruction", frame, **written_prompt(prompt))
        reply, _ = self._heeded(frame, prompt, self.tracker.step(choice.before, looked_at(frame), prompt))
        self.choice = None
        return reply

    def _heeded(
        self, frame: SourceFrame, prompt: Prompt, stepped: tuple[TrackState, Prediction]
    ) -> tuple[Reply, Prediction]:
        """Go on from a step with an instruction; `undo` can bring back what is now. The answer, and what was seen."""
        now = self.state, self._journal.present, self._journal.takes.following, frame.time, self._pending, self.choice
        self.state, seen = stepped
        self._journal.takes.add(Said(prompt, *now))
        self._asked = None
        self._several = seen.cue is not None and seen.cue.alike > 0
        self._pending, self._journal.present = (frame.index, seen), None
        answer = reply_to(prompt, now[0], self.state, seen)
        if self._finder is not None and frame.image is not None and prompt.text and len(prompt.visual) == 1:
            # A mere hint: where the grounder cannot read the frame, the instruction still counts.
            with suppress(TrackGPTError):
                answer = "; ".join(filter(None, (answer, elsewhere(prompt, self._finder(frame.image, prompt.text)))))
        self._event("answer", frame, text=answer, targets=len(seen.ids), **grounded(seen.cue))
        if prompt.visual and seen.masks is not None:
            for text in denied_points(prompt, seen.ids.tolist(), seen.masks):
                self.warn("", frame, f"frame {frame.index}: {text}")
        return Reply(answer, objects_of(self._record(frame, seen)), prompt), seen

    def _noted(self, at: SourceFrame | TrackRecord | None, prompt: Prompt) -> Reply:
        """What changes nothing: a question is answered from the record, that of a frame that was looked at included."""
        self._event("instruction", at, **written_prompt(prompt))
        last = self.last
        if self._pending is not None and isinstance(at, SourceFrame) and self._pending[0] == at.index:
            last = self._record(at, self._pending[1])
        objects = () if last is None else objects_of(last)
        others = asks_for_others(prompt.heard)
        text = self._others() if others else answer_of(self.state, last)
        self._event("answer", at, text=text, targets=len(self.state.active))
        self._asked = prompt
        return Reply(text, objects, prompt)

    def _others(self) -> str:
        """What else would fit, by the record: what may be chosen from now, or what was seen where words were read."""
        return others_of(self.state) if self.choice is None else f"{self.choice.text}."

    def _track(self, frame: SourceFrame) -> Prediction:
        before = self.state
        self.state, prediction = self.tracker.step(before, looked_at(frame))
        asked = prediction
        if isinstance(self.tracker, LateTracker):
            revision = self._late(frame, self.tracker)
            before, asked = (revision.state, revision.seen) if revision is not None else (before, asked)
        if prediction.reason:
            self._rethought(frame, before, prediction)
        step, image = self.tracker.step, looked_at(frame)
        instead = fallen_through(step, before, image, asked, frame.index) if asked.reason else None
        if instead is not None:
            self.state = before
            self._do(frame, instead.prompt, (instead.state, instead.seen), meant="conditional")
        elif prediction.reason:
            newest = max(self.state.active, key=lambda target: target.id, default=Target(0, self.state.prompt))
            self._offered(choice_of(newest.prompt, frame, before, self.state, prediction))
        done, self._pending = self._pending, None
        return prediction if done is None else done[1]

    def _rethought(self, at: SourceFrame | TrackRecord, before: TrackState, seen: Prediction, **late: Any) -> None:
        """Events of a question that was asked without an instruction, and of its answer."""
        old = [target.score for target in before.active] or None
        scores = {"old": old, "new": seen.scores, "threshold": self.tracker.arbiter.threshold(before)}
        self._event("rethink", at, reason=seen.reason, verdict=seen.verdict, **scores, **late)
        if seen.cue is not None:
            self._event("answer", at, text=seen.cue.text, targets=seen.cue.targets, **grounded(seen.cue), **late)
            self._fit_by_now(at, before, seen.cue, **late)

    def _fit_by_now(self, at: SourceFrame | TrackRecord, before: TrackState, cue: Cue, **late: Any) -> None:
        """An event where a check sees others fit the words of what is followed as well, and the one before did not.

        What is followed goes on; where the answer changes that, a person may choose instead (see `_offered`).
        """
        offered = self.state.cue is not before.cue and self.state.cue.alike
        if cue.alike and not self._several and not offered:
            found, alike = fitting(cue)
            text = f"{alike_in_words((*found, *alike), before.prompt.summary)}; what is followed goes on"
            self._event("choice", at, text=text, boxes=(*found, *alike), followed=len(found), **late)
        self._several = cue.alike > 0

    def _late(self, frame: SourceFrame, tracker: LateTracker) -> Revision | None:
        """What an answer about an earlier frame came to; where it changes what was shown, that is recorded anew."""
        if missed := self._journal.since(tracker.missed):
            text = f"the answer about frame {missed[0].record.index} takes more than {len(missed)} frames"
            self.warn("", frame, f"{text}; it is not waited for")
        revision = tracker.revision
        if revision is not None and (passed := self._journal.since(revision.frame)):
            first, last = passed[0].record.index, passed[-1].record.index
            self._rethought(frame, revision.before, revision.seen, about=first)
            if revision.again:
                now = {"reason": revision.seen.reason, "verdict": revision.seen.verdict}
                self._event("revise", frame, first=first, last=last, **now)
                threshold = self.tracker.arbiter.threshold
                self._journal.revise(passed, [(seen, threshold(state)) for state, seen in revision.again])
        return revision

    def _record(self, frame: SourceFrame, prediction: Prediction) -> TrackRecord:
        assert frame.image is not None
        height, width = frame.image.shape[:2]
        threshold = self.tracker.arbiter.threshold(self.state)
        return record_seen(frame.index, frame.time, (height, width), prediction, threshold)

    def _event(self, event_type: EventType, at: SourceFrame | TrackRecord | None, /, **data: Any) -> None:
        self._journal.event(event_type, at, **data)


def looked_at(frame: SourceFrame) -> Any:
    """The frame as a tracker takes it: encoded where it has been, else its image."""
    return frame.image if frame.encoded is None else frame.encoded


def _undecided(choice: Ambiguity) -> str:
    """What a session does about a choice when nobody answers."""
    return ""
