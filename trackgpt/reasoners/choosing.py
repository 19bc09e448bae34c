"""Words that answer "which one?" by number: "2", "number 2", "the second one", "1 and 3", "both", "all"."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W_]+|#|[^\s\w]")
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
_SMALL = frozenset(
    {"the", "a", "one", "ones", "number", "numbers", "no", "nr", "box", "boxes", "#", ",", "."}
    | {"please", "and", "choose", "take", "pick", "it", "is", "i", "mean"}
)
_ALL = frozenset({"all", "both", "everything"})
_AFTER_ALL = frozenset({"of", "them"})
LONGEST = 200
"""Letters of an answer; longer ones name something."""


def numbers_of(text: str, count: int) -> tuple[int, ...]:
    """The numbers that words name, in their order and each once; empty where the words say anything else.

    Args:
        text: any; "the second dog" names a dog and no number.
        count: how many there are, for "all", "both" and "the last one".
    """
    words = _WORD.findall(text.casefold()) if len(text) <= LONGEST else []
    if any(word in _ALL for word in words):
        rest = [word for word in words if word not in _SMALL | _ALL | _AFTER_ALL]
        return tuple(range(1, count + 1)) if not rest and ("both" not in words or count == 2) else ()
    named = [word for word in words if word not in _SMALL]
    numbers = [_number(word, count) for word in named]
    return tuple(dict.fromkeys(numbers)) if numbers and all(numbers) else ()


def _number(word: str, count: int) -> int:
    """The number that a word names, 0 for none."""
    if word == "last":
        return count
    if word in _ORDINALS:
        return _ORDINALS.index(word) + 1
    return int(word) if word.isascii() and word.isdecimal() and len(word) < 9 else 0
