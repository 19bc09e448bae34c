"""Several things that fit what was said about equally well: numbered boxes, and what answers which one is meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trackgpt.errors import UsageError
from trackgpt.reasoners.choosing import numbers_of
from trackgpt.track import TrackState
from trackgpt.types import Box, Cue, Prediction, Prompt, VisualPrompt
from trackgpt.video.frames import SourceFrame

_POINT = re.compile(r"(\d+(?:\.\d+)?), ?(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Ambiguity:
    """What a person may choose from.

    Attributes:
        prompt: what was said.
        boxes: of the things that fit, numbered from 1, surest first.
        followed: how many of them, the first ones, are followed until one is chosen.
        frame: the one that the boxes are of.
        before: the track's state before it.
        after: the state with which the surest are followed, and what it saw on the frame.
    """

    prompt: Prompt
    boxes: tuple[Box, ...]
    followed: int
    frame: SourceFrame = field(repr=False)
    before: TrackState = field(repr=False)
    after: tuple[TrackState, Prediction] = field(repr=False)

    @property
    def text(self) -> str:
        """All of them in a line, with x,y,w,h in pixels."""
        return alike_in_words(self.boxes, self.prompt.summary)

    def at(self, x: float, y: float) -> int:
        """The number of the box that a point lies in, of several the smallest one.

        Raises:
            UsageError: it lies in none.
        """
        areas = {
            (x2 - x1) * (y2 - y1): number
            for number, (x1, y1, x2, y2) in enumerate(self.boxes, 1)
            if x1 <= x <= x2 and y1 <= y <= y2
        }
        if not areas:
            raise UsageError(f"the point {x:g},{y:g} lies in none of the boxes; {self.text}")
        return areas[min(areas)]

    def answered(self, answer: Any, said: str = "") -> Prompt:
        """The prompt in which a person's choice stands.

        Args:
            answer: a number or several, words of these, or what is shown: a point on what is meant.
            said: the words of it, if it was said.

        Raises:
            UsageError: there is no such number, or the point lies in no box.
        """
        if isinstance(answer, str):
            if (found := self.understood(answer)) is None:
                raise UsageError(f"choose {answer!r:.40}: wanted numbers from 1 to {len(self.boxes)}; {self.text}")
            return found
        if isinstance(answer, VisualPrompt):
            answer = [self.at(x, y) for x, y, side in answer.points if side]
        numbers = tuple(dict.fromkeys([answer] if isinstance(answer, int) else answer))
        if not numbers or not all(type(number) is int and 1 <= number <= len(self.boxes) for number in numbers):
            given = ", ".join(map(str, numbers)) or "nothing"
            raise UsageError(f"choose {given:.40}: wanted numbers from 1 to {len(self.boxes)}; {self.text}")
        return replace(
            self.prompt, frame=self.frame.index, offered=self.boxes, chosen=numbers, said=said or self.prompt.said
        )

    def understood(self, text: str) -> Prompt | None:
        """The prompt of words that choose: "2", "the second one", or a point in pixels, "320,180".

        None where they say something else; two numbers are a point where one of them is none of the numbers.

        Raises:
            UsageError: there is no such number, or the point lies in no box.
        """
        text = " ".join(text.split())
        numbers = numbers_of(text, len(self.boxes))
        if (point := _POINT.fullmatch(text)) and not (numbers and max(numbers) <= len(self.boxes)):
            return self.answered(self.at(float(point[1]), float(point[2])), text)
        return self.answered(numbers, text) if numbers else None


def choice_of(
    prompt: Prompt, frame: SourceFrame, before: TrackState, after: TrackState, seen: Prediction
) -> Ambiguity | None:
    """What a person may choose from after something was looked for in words; None where there is no doubt."""
    cue = after.cue
    if cue is before.cue or not cue.alike or prompt.chosen or not after.active:
        return None
    found, alike = fitting(cue)
    return Ambiguity(prompt, (*found, *alike), len(found), frame, before, (after, seen))


def fitting(cue: Cue) -> tuple[tuple[Box, ...], tuple[Box, ...]]:
    """What was found, and what fits the words about as well."""
    found: Sequence[Any] = [] if cue.boxes is None else cue.boxes[~np.isnan(cue.boxes).any(axis=1)].tolist()
    rivals: Sequence[Any] = [] if cue.rivals is None else cue.rivals.tolist()
    return tuple(tuple(box) for box in found), tuple(tuple(box) for box in rivals[: cue.alike])


def alike_in_words(boxes: Sequence[Box], words: str) -> str:
    """Things that fit words about equally well in a line, numbered from 1, with x,y,w,h in pixels."""
    numbered = "; ".join(f"{number} at {xywh(box)}" for number, box in enumerate(boxes, 1))
    return f"{len(boxes)} things fit {words!r} about equally well: {numbered}"


def xywh(box: Sequence[float]) -> str:
    """A box for people: x,y,w,h in whole pixels."""
    x1, y1, x2, y2 = box
    return ",".join(f"{value:.0f}" for value in (x1, y1, x2 - x1, y2 - y1))
