"""What kind of instruction a sentence is, asked of a vision-language model where the rules do not know.

The rules (`trackgpt.reasoners.instructions`) are asked first, and are sure of nearly everything; a model is slow. Only
kinds are asked for whose words can be taken as they are: what is dropped or resumed must be one of the targets, and a
condition is read in parts, which the rules alone do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol, get_args

import numpy as np

from trackgpt.reasoners.references import Context
from trackgpt.reasoners.vlm_model import VlmModel
from trackgpt.types import PromptKind

ASKED_KINDS: Mapping[PromptKind, str] = {
    "switch": "follow something else instead",
    "correct": "what is followed is wrong, and this is meant",
    "add": "follow this as well",
    "refine": "go on with only a part of it",
    "state": "how it looks or moves by now",
    "absence": "it is hidden, or leaves, or is gone",
    "question": "a question about the tracking, which changes nothing",
}
"""What a model may answer, and what it is told of each."""
_WORD = re.compile(r"[a-z]+")


class KindReader(Protocol):
    """Tells kinds of instructions apart."""

    def kind_of(self, text: str, context: Context, frame: np.ndarray) -> PromptKind | None:
        """One of `ASKED_KINDS`; None where it cannot say.

        Args:
            text: the sentence.
            context: what is followed.
            frame: that the person looks at, uint8 RGB (height, width, 3).
        """
        ...


class VlmKindReader:
    """`KindReader` of a vision-language model that has a chat template; it decodes greedily.

    Args:
        vlm: the model.
    """

    def __init__(self, vlm: VlmModel) -> None:
        self._vlm = vlm

    def kind_of(self, text: str, context: Context, frame: np.ndarray) -> PromptKind | None:
        """See `KindReader.kind_of`; an answer that names no kind, or several, says nothing.

        Raises:
            InputError: the model cannot take a frame of this shape.
        """
        content = [{"type": "image"}, {"type": "text", "text": question(text, context)}]
        answer = self._vlm.ask([frame], self._vlm.in_chat([{"role": "user", "content": content}])).text
        return kind_in(answer)


def question(text: str, context: Context) -> str:
    """What a model is asked of a sentence."""
    followed = "; ".join(one.words or "something that was pointed at" for one in context.tracked) or "nothing"
    kinds = "\n".join(f"{kind}: {about}" for kind, about in ASKED_KINDS.items())
    return (
        f'A video tracker follows: {followed}. The person who watches now says: "{text}". '
        f"What does the person want? Answer with one of these words and nothing else.\n{kinds}"
    )


def kind_in(answer: str) -> PromptKind | None:
    """The one kind that an answer names; None where it names none, or several."""
    words = set(_WORD.findall(answer.casefold()))
    named = [kind for kind in get_args(PromptKind) if kind in ASKED_KINDS and kind in words]
    return named[0] if len(named) == 1 else None
