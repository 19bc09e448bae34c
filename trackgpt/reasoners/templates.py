"""Prompts and answers of the track tokens: what the brain is asked, what it should say, and how that is read.

A prompt and its parser live together so that training, inference and evaluation use the same object. The conversation
is LLaVA's, "USER: <image>\\n{instruction} ASSISTANT: {answer}</s>"; pieces are tokenised one by one and joined, so
that ids do not depend on what stands next to them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from trackgpt.errors import ModelError, UsageError

TRACK_TOKEN = "<TK>"
PURPORT_TOKEN = "<PO>"
IMAGE_TOKEN = "<image>"

_MARKUP = re.compile(r"<[^<>\s]{1,24}>|[\x00-\x1f\x7f-\x9f]")
_TOKENS = re.compile(rf"\s*({TRACK_TOKEN}|{PURPORT_TOKEN})\s*,?")


def clean_instruction(text: str) -> str:
    """The instruction as data: control characters and anything that looks like a special token are taken out.

    Raises:
        UsageError: NL01, nothing is left to say.
    """
    cleaned = " ".join(_MARKUP.sub(" ", text).split())
    if not cleaned:
        raise UsageError(f"the instruction {text!r} is empty; say what to track, e.g. -i 'the red car'", "NL01")
    return cleaned


def visible_answer(text: str) -> str:
    """The answer without the query tokens, as shown to a person."""
    shown = _TOKENS.sub("", text)
    return re.sub(r"\s+([.;,])", r"\1", shown).strip().rstrip(",").strip()


@dataclass(frozen=True)
class TrackTemplate:
    """Turns an instruction into ids and finds the query tokens in ids; knows one tokenizer.

    Attributes:
        tokenizer: a transformers tokenizer that has <TK>, <PO> and <image>, each as one id.
        image_tokens: how many ids one image takes after the vision tower.
    """

    tokenizer: Any
    image_tokens: int

    def __post_init__(self) -> None:
        for token in (TRACK_TOKEN, PURPORT_TOKEN, IMAGE_TOKEN):
            found = self.tokenizer.encode(token, add_special_tokens=False)
            if len(found) != 1 or found[0] == self.tokenizer.unk_token_id:
                raise ModelError(f"the tokenizer turns {token} into {found}; wanted one id; add it as a special token")

    @property
    def track_id(self) -> int:
        """The id of <TK>."""
        return int(self.tokenizer.convert_tokens_to_ids(TRACK_TOKEN))

    @property
    def purport_id(self) -> int:
        """The id of <PO>."""
        return int(self.tokenizer.convert_tokens_to_ids(PURPORT_TOKEN))

    @property
    def image_id(self) -> int:
        """The id of the image placeholder."""
        return int(self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))

    def encode(self, text: str) -> list[int]:
        """Ids of a piece of text, without begin and end tokens."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def prefix(self) -> list[int]:
        """Ids of everything before the instruction: begin token, "USER: ", the image, a line break."""
        begin = [self.tokenizer.bos_token_id] if self.tokenizer.bos_token_id is not None else []
        return begin + self.encode("USER: ") + [self.image_id] * self.image_tokens + self.encode("\n")

    def question(self, instruction: str) -> list[int]:
        """Ids of the instruction and the turn to the assistant."""
        return self.encode(f"{instruction} ASSISTANT:")

    def answer(self, text: str) -> list[int]:
        """Ids of an answer, closed by the end token."""
        return self.encode(f" {text}") + [self.tokenizer.eos_token_id]

    def decode(self, ids: list[int]) -> str:
        """Text of generated ids, query tokens kept, end token dropped."""
        kept = [i for i in ids if i != self.tokenizer.eos_token_id]
        return str(self.tokenizer.decode(kept, skip_special_tokens=False)).strip()
