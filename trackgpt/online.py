"""The one online loop: a slow reasoner, a fast perception, a memory, and an arbiter between them.

Every system is a composition of these four parts (`trackgpt.systems`). A step sees one frame and never looks ahead; it
is a pure function of state and frame, so undoing, rewinding and resuming are references to old states.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np

from trackgpt.errors import UsageError
from trackgpt.geometry.boxes import box_iou
from trackgpt.geometry.pointing import refuse_misplaced
from trackgpt.track import TrackState
from trackgpt.types import OUTSIDE_TRACK, Box, Cue, EncodedFrame, Prediction, Prompt, Target, Verdict

Frame: TypeAlias = np.ndarray | EncodedFrame
"""uint8 RGB (height, width, 3), or what `Perception.encode` made of it, which gives the same result."""


class Memory(Protocol):
    """What the perception hands on from frame to frame: a frozen dataclass, constant in size over a video."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        ...

    def heed(self, verdict: Verdict, cue: Cue | None, looked: Any = None) -> Memory:
        """What becomes of it by a verdict.

        Args:
            verdict: what was decided.
            cue: the answer that was judged, in force or not.
            looked: the memory that looking at the frame gave, where the frame is looked at again: this one is then from
                before the frame, so that no target sees it twice.
        """
        ...


class Reasoner(Protocol):
    """The slow model: reads one frame and what a person said."""

    def reason(self, frame: np.ndarray, state: TrackState, prompt: Prompt | None) -> Cue:
        """The cue for a frame, uint8 RGB (height, width, 3); a cue without targets means that nothing was found.

        Args:
            frame: the one to read; others that it needs (a first frame, a window) are in `state.memory`.
            state: the track so far, with all that was said and the cue in force.
            prompt: what is said about this very frame, or None where the words in force are read again: those of the
                active targets (`Target.prompt`), which are `state.text` where one instruction named all of them.
        """
        ...


@runtime_checkable
class BatchReasoner(Reasoner, Protocol):
    """A reasoner that reads a frame once for several prompts."""

    def reason_many(self, frame: np.ndarray, prompts: Sequence[Prompt]) -> list[Cue]:
        """The cues of prompts that each begin a track of their own, as if each were alone."""
        ...


class Perception(Protocol):
    """The fast model: finds on a frame what the state names. It holds weights, not state."""

    def encode(self, images: Sequence[np.ndarray]) -> Sequence[Frame]:
        """What does not depend on the track, of several frames at once: uint8 RGB (height, width, 3), of any sizes.

        A perception that has nothing to compute early returns the images.
        """
        ...

    def perceive(self, frame: Frame, state: TrackState, cued: tuple[int, ...]) -> tuple[Prediction, Memory]:
        """Prediction for the active targets, in their order, and what to remember for the next frame.

        Where the slow model is asked after looking and changes the cue, it is called again with the same frame, and
        with the memory from before the first look, as the verdict has it.

        Args:
            frame: to look at.
            state: the track, with the cue in force.
            cued: ids of the targets that the cue names on this very frame, a row each; empty on all other frames.
        """
        ...


class Arbiter(Protocol):
    """When to ask the slow model, and whom to believe."""

    def begin(self) -> Any:
        """The record of a track that has not begun."""
        ...

    def due(self, state: TrackState, prompt: Prompt | None) -> str:
        """Before looking: why to ask now, or "".

        Raises:
            UsageError: the system cannot do what the prompt wants.
        """
        ...

    def doubts(self, state: TrackState, seen: Prediction, memory: Any, prompt: Prompt | None) -> str:
        """After looking, where nothing was due: why to ask now, or ""."""
        ...

    def judge(self, state: TrackState, seen: Prediction | None, cue: Cue | None, prompt: Prompt | None) -> Verdict:
        """Whom to believe. It may be called twice per frame; the second verdict then decides what becomes of the frame.

        Args:
            state: the track; after looking, with the memory that looking gave.
            seen: what was seen on this frame, or None before looking.
            cue: the answer, or what the prompt points at; None where there is neither.
            prompt: what is said about this frame.
        """
        ...

    def after(self, state: TrackState, seen: Prediction, verdict: Verdict) -> Any:
        """The record for the next frame.

        Args:
            state: with targets and cue of this frame and the record of the one before.
            seen: with identities and with the reason why the slow model was asked, if it was.
            verdict: the last one of this frame.
        """
        ...

    def threshold(self, state: TrackState) -> np.ndarray:
        """The score below which an active target is suspect: float32 (k,), 0 where the system has none."""
        ...


@dataclass(frozen=True)
class Tracker:
    """A system as the loop sees it: four parts over shared weights. Replace one, and it is an ablation.

    Attributes:
        memory: the one that every track begins with.
        kinds: every dataclass that memory and record consist of, for `TrackState.load`.
    """

    reasoner: Reasoner
    perception: Perception
    arbiter: Arbiter
    memory: Memory
    kinds: tuple[type, ...] = ()

    def begin(self) -> TrackState:
        """A track on which nothing has been said."""
        return TrackState(self.memory, self.arbiter.begin())

    def step(self, state: TrackState, frame: Frame, prompt: Prompt | None = None) -> tuple[TrackState, Prediction]:
        """See `trackgpt.online.step`."""
        return step(self, state, frame, prompt)


class System(Protocol):
    """A loaded model of one of the papers, as `trackgpt.hub.load_model` gives it.

    Attributes:
        config: a dataclass with the name of the model; it is written into run.json.
    """

    config: Any

    def check(self, text: str) -> str:
        """An instruction as the system will read it: without markup and control characters.

        Raises:
            UsageError: NL01 it is empty; NL02 it is too long.
        """
        ...

    def tracker(self, ablation: str = "full", settings: Sequence[str] = ()) -> Tracker:
        """An online tracker over the loaded weights; several may share them.

        Args:
            ablation: the whole system, or one part of it swapped, by the system's own names.
            settings: "key=value" of the system's rules of asking again.

        Raises:
            UsageError: there is no such ablation or setting.
        """
        ...


def step(
    parts: Tracker, state: TrackState, frame: Frame, prompt: Prompt | None = None
) -> tuple[TrackState, Prediction]:
    """One frame, and what is said about it: ask if that is due, look, ask if in doubt and look again.

    Raises:
        UsageError: the system cannot do what the prompt wants, or the prompt shows something outside of the frame.
    """
    why = _due(parts, state, frame, prompt)
    cue = parts.reasoner.reason(image_of(frame), state, prompt) if why else None
    return answered(parts, state, frame, prompt, why, cue)


def _due(parts: Tracker, state: TrackState, frame: Frame, prompt: Prompt | None) -> str:
    """Why to ask before looking, or "", of a prompt that fits the frame."""
    if prompt is not None:
        if prompt.kind in OUTSIDE_TRACK:
            raise UsageError(f"a tracker is told no {prompt.kind}; say it to a session")
        refuse_misplaced(prompt, image_of(frame).shape[:2])
    return parts.arbiter.due(state, prompt)


def answered(
    parts: Tracker, state: TrackState, frame: Frame, prompt: Prompt | None, why: str, cue: Cue | None
) -> tuple[TrackState, Prediction]:
    """The rest of a step, once it is settled what was due and what was answered."""
    arbiter, perception = parts.arbiter, parts.perception
    verdict, now = Verdict(), state
    if prompt is not None or why:
        told = pointed(prompt) if cue is None else cue
        verdict = arbiter.judge(state, None, told, prompt)
        now = _heeded(state, verdict, told, prompt)
    if prompt is not None:
        now = replace(now, prompts=(*state.prompts, prompt))
    seen, memory = perception.perceive(frame, now, _cued(now, verdict))
    now = _identified(state, now, seen, verdict)
    if not why and (why := arbiter.doubts(now, seen, memory, prompt)):
        looked = replace(now, memory=memory)
        cue = parts.reasoner.reason(image_of(frame), looked, prompt)
        verdict = arbiter.judge(looked, seen, cue, prompt)
        if verdict.cue is None:
            now = _heeded(looked, verdict, cue, prompt)
            memory = now.memory
        else:  # what is looked at again is looked at from what was known before, so that no target sees a frame twice
            before, now = now, _heeded(now, verdict, cue, prompt, memory)
            seen, memory = perception.perceive(frame, now, _cued(now, verdict))
            now = _identified(before, now, seen, verdict)
    ids = np.array([target.id for target in now.active], np.int64)
    decided = verdict.kind if prompt is not None or why else ""
    seen = replace(seen, ids=ids, cue=cue if why else None, reason=why, verdict=decided)
    record = arbiter.after(now, seen, verdict)
    return replace(_sighted(now, seen), memory=memory, record=record, frame=state.frame + 1), seen


class Followed(NamedTuple):
    """One frame of one of several tracks, and the seconds it took, work that tracks share counted for each."""

    seen: Prediction
    seconds: float


def follow(tracker: Tracker, frames: Iterable[Frame], prompts: Iterable[Prompt]) -> Iterator[Prediction]:
    """One prediction per frame.

    Args:
        tracker: the system.
        frames: in order, the first one is frame 0.
        prompts: what is said, at most one per frame.
    """
    return (one.seen for (one,) in follow_all(tracker, frames, [prompts]))


def follow_all(
    tracker: Tracker, frames: Iterable[Frame], said: Sequence[Iterable[Prompt]]
) -> Iterator[tuple[Followed, ...]]:
    """One prediction per frame for each of several tracks, which share nothing but work.

    Where there are several, a frame is encoded once for all and the first one is read once for all (`BatchReasoner`).

    Args:
        tracker: the system.
        frames: in order, the first one is frame 0.
        said: for each track what is said, at most one prompt per frame.
    """
    prompts = [{prompt.frame: prompt for prompt in each} for each in said]
    states = [tracker.begin()] * len(prompts)
    for t, frame in enumerate(frames):
        began, look = time.perf_counter(), frame
        if len(prompts) > 1:
            look = frame if isinstance(frame, EncodedFrame) else tracker.perception.encode([image_of(frame)])[0]
        first = _first_steps(tracker, states, look, [each.get(0) for each in prompts]) if t == 0 else None
        shared, followed = time.perf_counter() - began, []
        for unit, each in enumerate(prompts):
            began = time.perf_counter()
            if first is None:
                states[unit], seen = tracker.step(states[unit], look, each.get(t))
            else:
                states[unit], seen = first[unit]()
            followed.append(Followed(seen, shared + time.perf_counter() - began))
        yield tuple(followed)


def _first_steps(
    tracker: Tracker, states: Sequence[TrackState], frame: Frame, prompts: Sequence[Prompt | None]
) -> list[Callable[[], tuple[TrackState, Prediction]]] | None:
    """What is left of every track's first step once the frame has been read for all; None where each reads alone."""
    if len(prompts) < 2 or not isinstance(tracker.reasoner, BatchReasoner) or None in prompts:
        return None
    whys = [_due(tracker, state, frame, prompt) for state, prompt in zip(states, prompts, strict=True)]
    asked = [prompt for prompt, why in zip(prompts, whys, strict=True) if prompt is not None and why]
    cues = iter(tracker.reasoner.reason_many(image_of(frame), asked))
    return [
        partial(answered, tracker, state, frame, prompt, why, next(cues) if why else None)
        for state, prompt, why in zip(states, prompts, whys, strict=True)
    ]


def image_of(frame: Frame) -> np.ndarray:
    """The frame itself, uint8 RGB (height, width, 3)."""
    return frame.image if isinstance(frame, EncodedFrame) else frame


def pointed(prompt: Prompt | None) -> Cue | None:
    """What a prompt points at, as a cue; None where it has words alone, or there is none."""
    return Cue(prompt.text, visual=prompt.visual) if prompt is not None and prompt.visual else None


def _heeded(
    state: TrackState, verdict: Verdict, cue: Cue | None, prompt: Prompt | None, looked: Any = None
) -> TrackState:
    """The state with which perception looks, as the verdict has it; for `looked` see `Memory.heed`."""
    state = replace(state, memory=state.memory.heed(verdict, cue, looked))
    if verdict.cue is not None:
        state = replace(state, cue=verdict.cue)
    if verdict.targets is not None:
        following = max([state.next_id, *(target.id + 1 for target in verdict.targets)])
        return replace(state, targets=verdict.targets, next_id=following)
    if verdict.cue is not None:
        # Who is who shows when they have been seen; until then every target of the cue is somebody new.
        named = state.prompt if prompt is None else prompt
        new = tuple(Target(state.next_id + k, named) for k in range(verdict.cue.targets))
        return replace(state, targets=(*new, *(target for target in state.targets if not target.active)))
    return state


def _cued(now: TrackState, verdict: Verdict) -> tuple[int, ...]:
    """Ids of the targets that the cue names on this frame: all, where who is who is still to be seen."""
    if verdict.cue is None or verdict.targets is not None:
        return verdict.cued
    return tuple(target.id for target in now.active)


def _identified(before: TrackState, now: TrackState, seen: Prediction, verdict: Verdict) -> TrackState:
    """Hand identities from the active targets of before to those of a new cue, by where they are seen.

    A target that matches no old one gets a new identity; an old one that is not matched ends. Archived ones stay.
    """
    if verdict.cue is None or verdict.targets is not None:
        return now
    old = before.active
    origins = np.zeros(1, int) if len(seen.ids) == len(old) == 1 else _origins(old, seen)
    targets, following = [], before.next_id
    for new, origin in zip(now.active, origins, strict=True):
        if origin >= 0:
            targets.append(replace(old[origin], prompt=new.prompt))
        else:
            targets.append(replace(new, id=following))
            following += 1
    archived = (target for target in before.targets if not target.active)
    return replace(now, targets=(*targets, *archived), next_id=following)


def _origins(old: Sequence[Target], seen: Prediction) -> np.ndarray:
    """Which old target each new one is, by best overlap of boxes: int64 (k,), -1 for none.

    A target that is hidden on this frame overlaps nothing, and being hidden is what most rethinks are about: it takes
    an old target that is left over.
    """
    from scipy.optimize import linear_sum_assignment

    origins = np.full(len(seen.boxes), -1)
    places = np.array([target.box or (np.nan,) * 4 for target in old], np.float32).reshape(-1, 4)
    overlap = box_iou(seen.boxes, places)
    for i, j in zip(*linear_sum_assignment(-overlap), strict=True):
        if overlap[i, j] > 0:
            origins[i] = j
    hidden = np.flatnonzero((origins < 0) & ~seen.present)
    left = np.setdiff1d(np.arange(len(old)), origins)
    for i, j in zip(hidden, left, strict=False):
        origins[i] = j
    return origins


def _sighted(state: TrackState, seen: Prediction) -> TrackState:
    """The state with where each active target was seen, and how sure the system is of it."""
    rows = iter(zip(seen.boxes, seen.present, seen.scores, strict=True))
    targets = []
    for target in state.targets:
        if target.active:
            box, present, score = next(rows)
            target = replace(target, score=float(score))
            if present:
                x1, y1, x2, y2 = (float(v) for v in np.asarray(box, np.float32))
                place: Box = (x1, y1, x2, y2)
                target = replace(target, box=place, last_seen=state.frame)
        targets.append(target)
    return replace(state, targets=tuple(targets))
