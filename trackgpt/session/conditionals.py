"""Instructions with a condition, "the dog; if it is gone, the cat": what they may come to, now and later.

What is followed is the first of the options that is found. Where it has been lost for `PATIENCE` frames, the others are
looked for, in order, on the frames on which the system asks for it again anyway and does not find it either; what is
found is followed from then on. It is not left for an earlier option that comes back: that is said in words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from trackgpt.reasoners.references import referred
from trackgpt.session.understanding import UNANSWERED, context_of
from trackgpt.track import TrackState
from trackgpt.types import Prediction, Prompt, PromptKind

if TYPE_CHECKING:
    from trackgpt.online import Frame

Step: TypeAlias = "Callable[[TrackState, Frame, Prompt], tuple[TrackState, Prediction]]"
"""See `trackgpt.online.Tracker.step`."""

PATIENCE = 15
"""Frames for which something must have been lost before something else is followed (IMAT's first search)."""
REPLACING = ("start", "switch", "correct", "resume", "add", "drop")
"""Kinds of instructions after which an earlier condition no longer holds."""


class Settled(NamedTuple):
    """What an instruction with a condition has come to on a frame.

    Attributes:
        prompt: the one that is in force.
        state, seen: after the frame with it.
        tried: how many were tried for it.
    """

    prompt: Prompt
    state: TrackState
    seen: Prediction
    tried: int

    @property
    def found(self) -> bool:
        """Something was found for the words, and is seen."""
        return self.seen.verdict not in UNANSWERED and bool(self.seen.present.any())


def settled(step: Step, state: TrackState, frame: Frame, prompt: Prompt) -> Settled:
    """The first of its options of which something is found; where nothing is, the first one, which is searched.

    What is followed and was seen on the frame before needs not be found: a detector may miss it on this very frame.

    Args:
        step: of the tracker.
        state: the track that it is said to.
        frame: that it is about.
        prompt: the conditional.
    """
    options = options_of(prompt, state)
    followed = referred(prompt.text, context_of(state).tracked)
    there = [target.id for target in state.active if target.last_seen == state.frame - 1]
    if len(followed) == 1 and followed[0].id in there:
        going_on = replace(options[0], kind="state", ids=(followed[0].id,))
        return Settled(going_on, *step(state, frame, going_on), tried=1)
    tried = _tried(step, state, frame, options)
    return tried[-1] if tried[-1].found else tried[0]._replace(tried=len(tried))


def fallen_through(step: Step, before: TrackState, frame: Frame, asked: Prediction, index: int) -> Settled | None:
    """What is followed from now on in the place of what has been lost; None where nothing is.

    Args:
        step: of the tracker.
        before: the track before the frame.
        frame: that is looked at.
        asked: what was seen where the slow model was last asked again.
        index: of the frame.
    """
    options = [replace(option, frame=index) for option in options_left(before, asked)]
    tried = _tried(step, before, frame, options)
    return tried[-1] if tried and tried[-1].found else None


def _tried(step: Step, state: TrackState, frame: Frame, options: Sequence[Prompt]) -> list[Settled]:
    """Steps with the options in order, up to the first by which something is seen."""
    tried: list[Settled] = []
    for number, option in enumerate(options, 1):
        tried.append(Settled(option, *step(state, frame, option), tried=number))
        if tried[-1].found:
            break
    return tried


def options_of(prompt: Prompt, state: TrackState) -> list[Prompt]:
    """What a conditional may come to, in order, each with the others as what counts where it is not found."""
    kind: PromptKind = "switch" if state.prompts else "start"
    words = (prompt.text, *prompt.instead)
    settled = replace(prompt, kind=kind, said=prompt.heard, ids=())
    return [replace(settled, text=one, instead=tuple(each for each in words if each != one)) for one in words]


def options_left(before: TrackState, seen: Prediction) -> list[Prompt]:
    """What may be followed in the place of what has been lost, in order; empty where there is no condition.

    Args:
        before: the track before a frame.
        seen: what was seen on it, where the slow model was asked again.
    """
    condition = condition_of(before)
    last = max((target.last_seen for target in before.active), default=-PATIENCE)
    if condition is None or seen.present.any() or before.frame - last < PATIENCE:
        return []
    return options_of(condition, before)[1:]


def condition_of(state: TrackState) -> Prompt | None:
    """The instruction with a condition that is in force; None where there is none."""
    for prompt in reversed(state.prompts):
        if prompt.instead:
            return prompt
        if prompt.kind in REPLACING:
            return None
    return None
