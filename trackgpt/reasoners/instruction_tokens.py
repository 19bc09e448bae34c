"""A sentence as tokens, and the phrases of a table (`trackgpt.reasoners.instruction_words`) in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from trackgpt.reasoners import instruction_words as tables


class Token(NamedTuple):
    """A word or a sign, folded and as it was written."""

    word: str
    said: str


Tokens = Sequence[Token]
_TOKEN = re.compile(r"[^\W_]+(?:-[^\W_]+)*(?:['’](?!s\b)[^\W_]+)*|['’]s\b|[^\w\s]|_")


def tokens_of(text: str) -> tuple[Token, ...]:
    """The words and signs of a text."""
    found = (each.group() for each in _TOKEN.finditer(text))
    return tuple(Token(said.casefold().replace("’", "'"), said) for said in found)


def text_of(tokens: Iterable[Token]) -> str:
    """Tokens as text."""
    text = ""
    for token in tokens:
        glued = not text or token.word in {"'s", ",", ".", ";", ":", "!", "?", ")", "%"} or text[-1] in "#(-–"
        glued = glued or token.word in {"-", "–"}
        text += token.said if glued else f" {token.said}"
    return text


def phrase_at(tokens: Tokens, k: int, phrases: frozenset[str]) -> int:
    """How many tokens the longest phrase of a table has that stands at a place; 0 where none does."""
    for length in range(min(tables.LONGEST_PHRASE, len(tokens) - k), 0, -1):
        if " ".join(token.word for token in tokens[k : k + length]) in phrases:
            return length
    return 0


def after_phrase(tokens: Tokens, phrases: frozenset[str]) -> Tokens | None:
    """What follows a phrase at the beginning, or None."""
    length = phrase_at(tokens, 0, phrases)
    return tokens[length:] if length else None


def without_leading(tokens: Tokens, leading: frozenset[str] = tables.LEADING) -> Tokens:
    """Without what leads up to the words that name something."""
    k = 0
    while k < len(tokens) and (length := 1 if tokens[k].word in tables.BREAKS else phrase_at(tokens, k, leading)):
        k += length
    return tokens[k:]


def without_trailing(tokens: Tokens, trailing: frozenset[str] = tables.TRAILING) -> Tokens:
    """Without what comes after the words that name something."""
    end = len(tokens)
    while end:
        lengths = (n for n in range(3, 0, -1) if n <= end and phrase_at(tokens[end - n : end], 0, trailing) == n)
        length = 1 if tokens[end - 1].word in tables.BREAKS else next(lengths, 0)
        if not length:
            break
        end -= length
    return tokens[:end]


def bare(tokens: Tokens) -> Tokens:
    """Without what stands before and after the words that name something."""
    return without_trailing(without_leading(tokens))


def is_phrase(tokens: Tokens, phrases: frozenset[str]) -> bool:
    """Whether tokens, but for breaks, are a phrase of a table."""
    kept = [token for token in tokens if token.word not in tables.BREAKS]
    return bool(kept) and phrase_at(kept, 0, phrases) == len(kept)


def past_break(tokens: Tokens, k: int) -> int:
    """Where the words go on after the next break."""
    stops = (at + 1 for at in range(k, len(tokens)) if tokens[at].word in tables.BREAKS or tokens[at].word == "but")
    return next(stops, len(tokens))
