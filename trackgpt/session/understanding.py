"""What a session knows when a person says something: what words mean and refer to, and what is replied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from trackgpt.errors import UsageError
from trackgpt.export.records import TrackRecord
from trackgpt.reasoners.instructions import understand
from trackgpt.reasoners.references import Called, Context, only_counts, referred
from trackgpt.session.choices import xywh
from trackgpt.track import TrackState
from trackgpt.types import OUTSIDE_TRACK, SAME_TARGETS, Prediction, Prompt, PromptKind, Target

if TYPE_CHECKING:
    from trackgpt.online import Arbiter

HIDDEN = "Nothing is learned of it until it is found again."
"""The answer to a hint that a target is hidden, or leaves, or is gone."""


UNANSWERED = ("absent", "unread")
"""Verdicts on an instruction for which nothing was found, or whose answer could not be read."""


def context_of(state: TrackState) -> Context:
    """What an instruction may refer to, on a track as it is."""
    last = tuple(target.id for target in state.active if state.prompts and target.prompt is state.prompts[-1])
    return Context(
        tuple(Called(target.id, target.prompt.text) for target in state.active),
        tuple(Called(target.id, target.prompt.text) for target in state.targets if not target.active),
        tuple(prompt.text for prompt in state.prompts if prompt.kind not in ("drop", "absence")),
        last,
    )


KindOf: TypeAlias = "Callable[[str, Context], PromptKind | None]"
"""What tells the kind of a sentence that no rule knows; None where it cannot say."""


def understood(
    text: str, state: TrackState, check: Callable[[str], str] = str, kind_of: KindOf | None = None
) -> Prompt:
    """What words say of what is tracked, written out.

    Args:
        text: as a person said it.
        state: the track that it is said to.
        check: gives words as the system will read them, or refuses them (`trackgpt.online.System.check`).
        kind_of: asked where the rules are not sure (`Understood.sure`).

    Raises:
        UsageError: see `check`.
    """
    context = context_of(state)
    found = understand(text, context)
    if not found.sure and kind_of is not None and (kind := kind_of(text, context)) not in (None, found.kind):
        return _of_kind(kind, check(text), context)
    wordless = found.kind in ("drop", "resume")
    words = check(found.words) if found.words else "" if wordless else text
    said = text if words != text else ""
    return Prompt(words, 0, found.kind, found.ids, (), said, found.excluded, found.instead)


def _of_kind(kind: PromptKind, words: str, context: Context) -> Prompt:
    """The prompt of words as they were said, of a kind that a model tells, about the target that "it" is."""
    about = () if context.focus is None else (context.focus.id,)
    wrong = about if kind == "correct" else ()
    ids = about if kind in (*SAME_TARGETS, "absence") else ()
    return Prompt(words, 0, kind, ids, (), words, wrong)


def referring(prompt: Prompt, state: TrackState) -> Prompt:
    """The prompt with the ids of what the words of a "drop" or "resume" refer to.

    A number or an order in the place of a description ("number 1") is not left to be looked for.
    """
    if prompt.kind not in ("drop", "resume") or not prompt.text or prompt.ids:
        return prompt
    context = context_of(state)
    meant = referred(prompt.text, context.tracked if prompt.kind == "drop" else context.former)
    found = replace(prompt, ids=tuple(one.id for one in meant))
    counted = meant and prompt.kind == "resume" and only_counts(prompt.text)
    return replace(found, text="", said=prompt.text) if counted else found


def refuse_unheard(prompt: Prompt, state: TrackState, arbiter: Arbiter) -> None:
    """Refuse what the system cannot do with a track as it is.

    Raises:
        UsageError: it cannot do what the prompt wants.
    """
    if prompt.kind == "conditional":
        prompt = replace(prompt, kind="switch" if state.prompts else "start", instead=())
    if prompt.kind not in OUTSIDE_TRACK:
        arbiter.due(state, prompt)


def refuse_unknown(prompt: Prompt, state: TrackState) -> None:
    """Refuse words for a target that is to end or to be taken up again, and is not there.

    Raises:
        UsageError: the words of a "drop" or "resume" refer to no target.
    """
    if prompt.kind not in ("drop", "resume") or not prompt.text or prompt.ids:
        return
    context = context_of(state)
    things = context.tracked if prompt.kind == "drop" else context.former
    there = "tracked are" if prompt.kind == "drop" else "targets that were given up are"
    raise UsageError(f"{prompt.kind} {prompt.text!r}: {there} {listed(things)}")


def listed(named: Sequence[Called]) -> str:
    """Targets for a message: "1 'the dog', 2"."""
    return ", ".join(f"{one.id} {one.words!r}" if one.words else str(one.id) for one in named) or "none"


def still_followed(state: TrackState) -> str:
    """What a person is told of the targets where an instruction changes nothing; empty where there are none."""
    return f"Still followed: {listed(context_of(state).tracked)}." if state.active else ""


def reply_to(prompt: Prompt, before: TrackState, state: TrackState, seen: Prediction) -> str:
    """What a person is told of an instruction, by the states before and after it and what was seen with it."""
    unheard = seen.verdict in UNANSWERED
    if prompt.kind == "resume" and not unheard:  # what a check saw beside it is no answer
        return f"Back to {listed(context_of(state).tracked)}."
    answer = HIDDEN if prompt.kind == "absence" else (seen.cue or state.cue).text
    if unheard and [each.id for each in state.active] == [each.id for each in before.active]:
        answer = f"{answer} {still_followed(state)}".strip()
    return answer


def answer_of(state: TrackState, last: TrackRecord | None) -> str:
    """What is followed, since when, by which words and how surely; and what was passed over for it."""
    if not state.prompts:
        return "Nothing has been said yet."
    if not state.active:
        return f"Nothing is followed. {state.cue.text}".strip()
    told = [f"{_followed(target, last)}." for target in state.active]
    rivals = np.zeros((0, 4)) if state.cue.rivals is None else state.cue.rivals
    passed = "; ".join(xywh(box) for box in rivals.tolist())
    if state.prompts[-1].kind == "resume":  # the last answer was about what was followed before
        return " ".join(told)
    return " ".join([*told, state.cue.text, f"Passed over: {passed}." if passed else ""]).strip()


def others_of(state: TrackState) -> str:
    """What else would fit the words, as it was seen where they were last read; nothing is looked for."""
    if not state.active:
        return "Nothing is followed."
    cue = state.cue
    if cue.boxes is None:
        return "The record has no other candidates: what is followed was shown, or the model names nothing beside it."
    rivals = [] if cue.rivals is None else [xywh(box) for box in cue.rivals.tolist()]
    alike, less = rivals[: cue.alike], rivals[cue.alike :]
    told = [f"As likely: {'; '.join(alike)}."] if alike else []
    told += [f"Seen beside it, and less likely: {'; '.join(less)}."] if less else []
    return " ".join(told) or "Nothing else that would fit was seen where the words were last read."


def _followed(target: Target, last: TrackRecord | None) -> str:
    prompt = target.prompt
    objects = () if last is None else last.objects
    seen = next((item for item in objects if item.id == target.id), None)
    where = "not on this frame" if seen is None or seen.box is None else f"{seen.state} at {xywh(seen.box)}"
    score = "" if seen is None or seen.score is None else f", score {seen.score:.2f}"
    words = f" {prompt.text!r}" if prompt.text else ""
    said = f' (said: "{prompt.said}")' if prompt.said else ""
    return f"#{target.id}{words}{said}, since frame {prompt.frame}: {where}{score}"
