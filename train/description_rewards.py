"""What an answer of a describer earns: terms of ReasoningTrack's rewards, as pure functions of any string.

    format      all three pairs of tags occur (paper, 0.1)
    order       they stand in the order that is asked for, and the decision is yes or no (0.1)
    overlap     mean IoU of the tracker with the answer's words over the window, halved up to 0.61 (paper alone, 0.5)
    gain        what the new words gain over the old ones in that IoU, 0.5 for nothing, 0 to 1 (ours, 0.5)
    decision    the answer is yes where the words must change (0.3)
    holds       the words, after the answer, mean the target and nothing else; known of SynthTrack alone (ours, 0)

In the release (Event-AHU/Open_VLTrack at fccc2c7) `overlap` weighs 0 and `decision` 0.15; 0.5 and 0.3 stand in a
comment there, and its window is one frame. Its decision is judged by the tracker: no is right unless the answer's words
track better, so that no with the words copied always earns it. Ours is judged by the truth where it is known, as it is
of SynthTrack; and yes with the old words, or with none, is a no.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trackgpt.errors import UsageError
from trackgpt.reasoners.describer import ParsedDescription, parse, usable_words
from train.rewards import Term, reward_terms

LONGEST_REWARDED = 5_000
"""Letters of an answer above which it earns nothing."""
FOUND = 0.61
"""Of the release: an overlap up to this one is halved."""
TAGS = ("think", "d", "answer")
_IN_ORDER = re.compile(r"(?>.*?<think>)(?>.*?</think>\s*+<d>\s*+(?:yes|no)\s*+</d>\s*+<answer>).*?</answer>", re.DOTALL)
"""The first of each that comes is as good as a later one: none is tried again, and long answers are read quickly."""


@dataclass(frozen=True)
class DescriptionCase:
    """What an answer is judged by.

    Attributes:
        words: the description so far.
        outdated: it no longer holds; None where that is not known.
        fitting: words that hold now, as far as they are known.
        old: mean IoU of a tracker that reads it, over a window; NaN where nothing was tracked.
        new: the same with the words that are to be compared (`words_tracked`).
    """

    words: str
    outdated: bool | None = None
    fitting: tuple[str, ...] = ()
    old: float = float("nan")
    new: float = float("nan")


@dataclass(frozen=True)
class DescriptionText:
    """What a describer wrote, any string, and what was read from it."""

    text: str
    parsed: ParsedDescription

    @classmethod
    def read(cls, text: str) -> DescriptionText:
        """Read any string."""
        return cls(text, parse(text) if len(text) <= LONGEST_REWARDED else ParsedDescription())


def all_tags(answer: DescriptionText, _: DescriptionCase) -> float:
    """1 if all three pairs of tags occur."""
    return float(all(f"<{tag}>" in answer.text and f"</{tag}>" in answer.text for tag in TAGS))


def in_order(answer: DescriptionText, _: DescriptionCase) -> float:
    """1 if thought, decision and answer follow one another in their tags, and the decision is yes or no."""
    return float(_IN_ORDER.match(answer.text) is not None)


def overlap(answer: DescriptionText, case: DescriptionCase) -> float:
    """The IoU with the answer's words, halved where it is at most `FOUND`; 0 for an answer that cannot be read."""
    if not answer.parsed.readable or math.isnan(case.new):
        return 0.0
    return case.new if case.new > FOUND else case.new / 2


def gain(answer: DescriptionText, case: DescriptionCase) -> float:
    """(1 + new IoU - old IoU) / 2; 0 for an answer that cannot be read."""
    known = answer.parsed.readable and not math.isnan(case.new - case.old)
    return (1 + case.new - case.old) / 2 if known else 0.0


def decision_by_tracker(answer: DescriptionText, case: DescriptionCase) -> float:
    """1 if the answer is yes and its words track better, or no and they do not; 0 if it cannot be read."""
    if not answer.parsed.readable:
        return 0.0
    return float(answer.parsed.update == (case.old < case.new))


def decision(answer: DescriptionText, case: DescriptionCase) -> float:
    """1 if the words are changed and had to be, or are left and did not have to be; 0 if it cannot be read.

    Where the truth is not known the tracker judges, see `decision_by_tracker`.
    """
    if case.outdated is None:
        return decision_by_tracker(answer, case)
    return float(answer.parsed.readable and changes(answer, case.words) == case.outdated)


def holds(answer: DescriptionText, case: DescriptionCase) -> float:
    """1 if the words, changed or left, are among those that are known to hold; 0 if the answer cannot be read."""
    words = answer.parsed.words if changes(answer, case.words) else case.words
    return float(answer.parsed.readable and words in case.fitting)


def changes(answer: DescriptionText, words: str) -> bool:
    """Whether an answer puts other words in the place of these."""
    return answer.parsed.update and answer.parsed.words != words


REWARDS: dict[str, tuple[Term, ...]] = {
    "paper": (
        Term("format", 0.1, all_tags),
        Term("order", 0.1, in_order),
        Term("overlap", 0.5, overlap),
        Term("decision", 0.3, decision_by_tracker),
    ),
    "ours": (
        Term("format", 0.1, all_tags),
        Term("order", 0.1, in_order),
        Term("gain", 0.5, gain),
        Term("decision", 0.3, decision),
        Term("holds", 0.0, holds),
    ),
}
"""By name. "reward" is their weighted mean: the released sum over the sum of its weights."""


def description_terms(rewards: str, weights: Mapping[str, float]) -> tuple[Term, ...]:
    """The terms of a set with other weights for some; see `train.rewards.reward_terms`.

    Raises:
        UsageError: there is no such set or term, or nothing is left to pay for.
    """
    return reward_terms(rewards, weights, REWARDS)


def needs_tracker(rewards: str, terms: Sequence[Term], truth: bool) -> str:
    """The first term that pays by what a tracker does, or "".

    Args:
        rewards: name of the set.
        terms: of it.
        truth: all questions come with the right decision.
    """
    tracked = {"overlap", "gain"} | ({"decision"} if rewards == "paper" or not truth else set())
    return next((term.name for term in terms if term.weight and term.name in tracked), "")


def words_tracked(answer: DescriptionText, words: str, rewards: str) -> str:
    """The words that a tracker reads if an answer is followed.

    By "paper" they are those between the answer's tags, whatever was decided; by "ours" the old ones unless they are
    changed. Where there are none they are the old ones.
    """
    if rewards == "paper" and answer.parsed.readable:
        between = answer.text.rpartition("<answer>")[2].partition("</answer>")[0]
        return usable_words(between) or words
    return answer.parsed.words if answer.parsed.update else words


def must_have_tracker(tracker: str, term: str) -> None:
    """Refuse rewards that need a tracker where none is given.

    Raises:
        UsageError: see there.
    """
    if term and not tracker:
        raise UsageError(
            f"describer.tracker: the reward `{term}` is what a box tracker gains by words; name one, or set "
            f"describer.reward_weights.{term}=0"
        )
