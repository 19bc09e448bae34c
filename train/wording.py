"""What is asked and answered while the three stages train: our own words for LISA's and TrackGPT's kinds of turns.

One target is answered with one <TK>, <PO>; several with one pair each, in the order of the objects; none with words
alone. A set that brings its own answers (InsTrack) is answered with these. Where a configuration says `echo`, the
answer to a class or a phrase repeats it: a small brain finds a thing by the noun that it has just written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from trackgpt.reasoners.templates import PURPORT_TOKEN, TRACK_TOKEN

PAIR = f"{TRACK_TOKEN}, {PURPORT_TOKEN}"
CLASS_QUESTIONS = (
    "Can you mark the {} in this picture?",
    "Please mark every pixel of the {}.",
    "Where is the {} in this picture? Answer with a mask.",
    "Show me the {} as a mask.",
)
PHRASE_QUESTIONS = (
    "Can you track the {} in the video?",
    "Please follow the {}.",
    "Track this: the {}.",
    "Find the {} and stay on it.",
)
SENTENCE_QUESTIONS = ("{} Please answer with a mask.", "{} Mark it in the picture.")
WHY_QUESTIONS = ("{} Please mark it and say why.", "{} Mark it, and explain your choice.")
ANSWERS = (f"Sure, I track the object. {PAIR}", f"I have it. {PAIR}", f"Here it is. {PAIR}", PAIR)
NONE_ANSWERS = ("I see no such object here.", "There is nothing of that kind in the picture.")
COUNTS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


_IMPERATIVES = frozenset(
    ("track", "follow", "find", "show", "mark", "segment", "watch", "keep", "locate", "select", "pick", "highlight")
    + ("please", "can", "could", "would", "will", "i")
)
_ARTICLE = re.compile(r"^(the|an|a)\s+", re.IGNORECASE)


def is_instruction(text: str) -> bool:
    """Whether a person would say this as it is: a question or a command, where others are names of things."""
    words = text.lower().split()
    return text.rstrip().endswith("?") or bool(words) and words[0].strip(",") in _IMPERATIVES


def ask(templates: Sequence[str], text: str, rng: np.random.Generator) -> str:
    """One of the templates around a class, a phrase or a sentence; the first two in lower case, as LISA has them."""
    template = templates[int(rng.integers(len(templates)))]
    sentence = template.startswith("{}")
    return template.format(text.strip() if sentence else bare(text))


def bare(text: str) -> str:
    """A class or phrase without article and full stop, in lower case."""
    return _ARTICLE.sub("", text.strip().rstrip(".?!").lower())


def answer(targets: int, rng: np.random.Generator, named: str = "") -> str:
    """What to say to an instruction that means so many targets; one target may be called by a name."""
    if targets == 0:
        return NONE_ANSWERS[int(rng.integers(len(NONE_ANSWERS)))]
    if targets == 1 and named:
        return f"Sure, I track the {bare(named)}. {PAIR}"
    if targets == 1:
        return ANSWERS[int(rng.integers(len(ANSWERS)))]
    pairs = " and ".join([PAIR] * targets)
    return f"I track {COUNTS.get(targets, str(targets))} objects: {pairs}"


def with_reason(reason: str) -> str:
    """An answer that marks one target and says why."""
    return f"{PAIR} {reason.strip()}"
