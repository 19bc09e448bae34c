"""Prompts and answers of the track tokens: what the brain is asked, what it should say, and how that is read.

A prompt and its parser live together so that training, inference and evaluation use the same object. How a family of
models is spoken to is a `ConversationFormat`; LLaVA's is "USER: <image>\\n{instruction} ASSISTANT: {answer}</s>".
The text on either side of the image is tokenised as a whole, as LLaVA, LISA and the processors of transformers do it:
sentencepiece puts a space in front of every text of its own, so that an instruction tokenised apart is none they know.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from trackgpt.errors import ModelError, UsageError

TRACK_TOKEN = "<TK>"
PURPORT_TOKEN = "<PO>"
IMAGE_TOKEN = "<image>"
ROLES = "<|im_start|>"
"""ChatML's token in front of a role."""

_MARKUP = re.compile(r"<[^<>\s]{1,24}>|[\x00-\x1f\x7f-\x9f]")
_TOKENS = re.compile(rf"(?:(?<!\s)\s+)?({TRACK_TOKEN}|{PURPORT_TOKEN})\s*,?")  # tries each run of spaces once


def clean_instruction(text: str, most: int | None = None) -> str:
    """The instruction as data: control characters and anything that looks like a special token are taken out.

    Args:
        text: as it was said.
        most: letters that it may have; None where the caller counts in another way.

    Raises:
        UsageError: NL01 nothing is left to say; NL02 it is too long.
    """
    cleaned = " ".join(_MARKUP.sub(" ", text).split())
    if not cleaned:
        raise UsageError(f"the instruction {text!r} is empty; say what to track, e.g. -i 'the red car'", "NL01")
    if most is not None and len(cleaned) > most:
        raise UsageError(f"the instruction has {len(cleaned)} letters; wanted at most {most}", "NL02")
    return cleaned


def visible_answer(text: str) -> str:
    """The answer without the query tokens, as shown to a person."""
    shown = _TOKENS.sub("", text)
    return re.sub(r"(?<!\s)\s+([.;,])", r"\1", shown).strip().rstrip(",").strip()


@dataclass(frozen=True)
class ConversationFormat:
    """The words around an image, an instruction and an answer; the tokenizer's begin and end tokens are not among them.

    Attributes:
        before: what stands before the image.
        after: what stands between image and instruction.
        turn: what stands between instruction and answer.
        lead: what an answer begins with.
        again: what stands before the instruction of a later round.
    """

    before: str = "USER: "
    after: str = "\n"
    turn: str = " ASSISTANT:"
    lead: str = " "
    again: str = "USER: "


_CURIOUS = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
_HELPFUL = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
_SEES, _SEEN = "<|vision_start|>", "<|vision_end|>"
_CHATML_TURN = f"<|im_end|>\n{ROLES}assistant\n"

CONVERSATIONS = {
    "vicuna": ConversationFormat(),
    "mistral": ConversationFormat("[INST] ", "\n", " [/INST]", again="[INST] "),
    "llava-chatml": ConversationFormat(
        f"{ROLES}system\nAnswer the questions.<|im_end|>{ROLES}user\n", "\n", f"<|im_end|>{ROLES}assistant\n", ""
    ),
    "lisa": ConversationFormat(f"{_CURIOUS} USER: <im_start>", "<im_end>\n"),
    "lisa-llama-2": ConversationFormat(
        f"[INST] <<SYS>>\n{_HELPFUL}\n<</SYS>>\n\n<im_start>", "<im_end>\n", " [/INST]", again="[INST] "
    ),
    "chatml": ConversationFormat(f"{ROLES}user\n{_SEES}", _SEEN, _CHATML_TURN, "", f"\n{ROLES}user\n"),
    "qwen": ConversationFormat(
        f"{ROLES}system\nYou are a helpful assistant.<|im_end|>\n{ROLES}user\n{_SEES}",
        _SEEN,
        _CHATML_TURN,
        "",
        f"\n{ROLES}user\n",
    ),
    "smolvlm": ConversationFormat(
        "User:<fake_token_around_image><global-img>",
        "<fake_token_around_image>",
        "<end_of_utterance>\nAssistant:",
        again="\nUser: ",
    ),
}
"""By the names of `BrainConfig.conversation`."""


@dataclass(frozen=True)
class TrackTemplate:
    """Turns an instruction into ids and finds the query tokens in ids; knows one tokenizer.

    Attributes:
        tokenizer: a transformers tokenizer that has <TK>, <PO> and the image token, each as one id.
        image_tokens: how many ids one image takes after the vision tower.
        conversation: the words around.
        image_token: the placeholder's name in the tokenizer.
    """

    tokenizer: Any
    image_tokens: int
    conversation: ConversationFormat = CONVERSATIONS["vicuna"]
    image_token: str = IMAGE_TOKEN

    def __post_init__(self) -> None:
        for token in (TRACK_TOKEN, PURPORT_TOKEN, self.image_token):
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
        return int(self.tokenizer.convert_tokens_to_ids(self.image_token))

    def encode(self, text: str) -> list[int]:
        """Ids of a piece of text, without begin and end tokens."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def prefix(self) -> list[int]:
        """Ids up to the image and with it, the same for every instruction: begin token, "USER: ", the image."""
        begin = [self.tokenizer.bos_token_id] if self.tokenizer.bos_token_id is not None else []
        return begin + self.encode(self.conversation.before) + [self.image_id] * self.image_tokens

    def question(self, instruction: str) -> list[int]:
        """Ids of what follows the image: a line break, the instruction, the turn to the assistant."""
        return self.encode(self.conversation.after + instruction + self.conversation.turn)

    def question_again(self, instruction: str) -> list[int]:
        """Ids of an instruction that follows an answer."""
        text = self.conversation.again + instruction + self.conversation.turn
        return self._following(self.tokenizer.eos_token, text)

    def answer(self, text: str) -> list[int]:
        """Ids of an answer, closed by the end token."""
        return [*self._following(self.conversation.turn, self.conversation.lead + text), self.tokenizer.eos_token_id]

    def _following(self, before: str, text: str) -> list[int]:
        """Ids of a text behind another one, where the two do not share an id."""
        first, both = self.encode(before), self.encode(before + text)
        return both[len(first) :] if both[: len(first)] == first else self.encode(text)

    def without_special(self, text: str) -> str:
        """The text without the names of the tokenizer's special tokens, so that none is read as one."""
        added = self.tokenizer.added_tokens_decoder.values()
        names = {*self.tokenizer.all_special_tokens, *(token.content for token in added if token.special)}
        return re.sub("|".join(map(re.escape, sorted(names, key=len, reverse=True))), " ", text)

    def decode(self, ids: list[int]) -> str:
        """Text of generated ids, query tokens kept, end token dropped."""
        kept = [i for i in ids if i != self.tokenizer.eos_token_id]
        return str(self.tokenizer.decode(kept, skip_special_tokens=False)).strip()
