"""Instructions with a condition, "the dog; if it is gone, the cat": what they may come to, now and later.

What is followed is the first of the options that is found. Where it has been lost for `PATIENCE` frames, the others are
looked for, in order, on the frames on which the system asks for it again anyway and does not find it either; what is
found is followed from then on. It is not left for an earlier option that comes back: that is said in words.
"""

from __future__ import annotations

from dataclasses import replace

from trackgpt.track import TrackState
from trackgpt.types import Prediction, Prompt, PromptKind

PATIENCE = 15
"""Frames for which something must have been lost before something else is followed (IMAT's first search)."""
REPLACING = ("start", "switch", "correct", "resume", "add", "drop")
"""Kinds of instructions after which an earlier condition no longer holds."""


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
