"""What a describer's answers earn: the known value of every trick, and that no string raises."""

import math
import time

import pytest

from trackgpt.errors import UsageError
from trackgpt.reasoners.describer import MOST_LETTERS, ParsedDescription, written
from train.description_rewards import (
    LONGEST_REWARDED,
    DescriptionCase,
    DescriptionText,
    all_tags,
    decision,
    decision_by_tracker,
    description_terms,
    gain,
    in_order,
    must_have_tracker,
    needs_tracker,
    overlap,
    words_tracked,
)
from train.rewards import earned

OLD, NEW = "the red car on the left", "the red car on the right"
RELEASED = {"overlap": 0.0, "decision": 0.15}


def pays(text: str, rewards: str, weights: dict[str, float], **case: object) -> float:
    terms = description_terms(rewards, weights)
    return earned(terms, DescriptionText.read(text), DescriptionCase(OLD, **case), LONGEST_REWARDED)["reward"]


TRICKS = {
    "right": written(True, NEW, "It moved."),
    "always no, copied": written(False, OLD, ""),
    "always yes, copied": written(True, OLD, ""),
    "empty": "",
    "10,000 letters": "x" * 10_000,
    "10,000 letters in form": written(True, "x" * 10_000, ""),
    "only tags": "<think><d><answer></answer></d></think>",
}


@pytest.mark.parametrize(
    ("trick", "released", "full", "ours"),
    [
        # The words are outdated; the tracker has IoU 0.5 with them, and 0.9 with the new ones.
        ("right", 0.35 / 0.35, (0.2 + 0.5 * 0.9 + 0.3) / 1.0, 0.2 + 0.5 * 0.7 + 0.3),
        ("always no, copied", 0.35 / 0.35, 0.2 + 0.5 * 0.25 + 0.3, 0.2 + 0.5 * 0.5),
        ("always yes, copied", 0.2 / 0.35, 0.2 + 0.5 * 0.25, 0.2 + 0.5 * 0.5),
        ("empty", 0.0, 0.0, 0.0),
        ("10,000 letters", 0.0, 0.0, 0.0),
        ("10,000 letters in form", 0.0, 0.0, 0.0),
        ("only tags", 0.1 / 0.35, 0.1, 0.1),
    ],
)
def test_every_trick_earns_its_known_value_where_words_are_outdated(trick, released, full, ours):
    text = TRICKS[trick]
    new = 0.9 if trick == "right" else 0.5
    case = {"outdated": True, "old": 0.5, "new": new}
    assert pays(text, "paper", RELEASED, **case) == pytest.approx(released)
    assert pays(text, "paper", {}, **case) == pytest.approx(full)
    assert pays(text, "ours", {}, **case) == pytest.approx(ours)


def test_by_the_released_weights_a_describer_that_never_changes_a_word_earns_everything():
    for old in (0.0, 0.3, 1.0):
        assert pays(TRICKS["always no, copied"], "paper", RELEASED, old=old, new=old) == 1.0
    half = [pays(TRICKS["always no, copied"], "ours", {}, outdated=o, old=0.5, new=0.5) for o in (True, False)]
    assert half == pytest.approx(
        [0.45, 0.75]
    )  # ours pays the right answer 0.9 where words gain 0.4 and 0.75 where none
    always = [pays(written(True, NEW, ""), "ours", {}, outdated=o, old=0.5, new=0.5) for o in (True, False)]
    assert always == pytest.approx([0.75, 0.45])


def test_words_that_are_known_to_hold_can_be_paid_for_in_the_place_of_the_gain():
    weights = {"gain": 0.0, "holds": 0.5}
    outdated, sound = {"outdated": True, "fitting": (NEW,)}, {"outdated": False, "fitting": (OLD,)}
    found = {
        trick: [pays(text, "ours", weights, **case) for case in (outdated, sound)] for trick, text in TRICKS.items()
    }
    assert found["right"] == pytest.approx([1.0, 0.2])  # new words, where the old ones held, mean something else
    assert found["always no, copied"] == pytest.approx([0.2, 1.0])
    assert found["always yes, copied"] == pytest.approx([0.2, 1.0])
    assert found["empty"] == found["10,000 letters"] == found["10,000 letters in form"] == [0.0, 0.0]
    assert pays(written(True, "the dog", ""), "ours", weights, **outdated) == pytest.approx(0.5)  # yes is right


def test_a_yes_with_the_old_words_is_a_no():
    yes = DescriptionText.read(written(True, OLD, ""))
    assert decision(yes, DescriptionCase(OLD, outdated=True)) == 0.0
    assert decision(yes, DescriptionCase(OLD, outdated=False)) == 1.0
    assert decision(DescriptionText.read(written(True, NEW, "")), DescriptionCase(OLD, outdated=True)) == 1.0


def test_where_no_truth_is_known_the_tracker_judges_the_decision():
    yes, no = (DescriptionText.read(written(update, NEW, "")) for update in (True, False))
    for old, new, right in ((0.2, 0.3, yes), (0.3, 0.3, no), (0.3, 0.2, no)):
        case = DescriptionCase(OLD, old=old, new=new)
        assert [decision(answer, case) for answer in (yes, no)] == [float(right is yes), float(right is no)]
        assert decision_by_tracker(right, case) == 1.0


def test_the_overlap_is_halved_up_to_sixty_one_hundredths():
    answer = DescriptionText.read(written(True, NEW, ""))
    found = [overlap(answer, DescriptionCase(OLD, old=0.0, new=new)) for new in (0.0, 0.61, 0.62, 1.0, math.nan)]
    assert found == [0.0, 0.305, 0.62, 1.0, 0.0]


def test_a_gain_of_nothing_is_a_half():
    answer = DescriptionText.read(written(True, NEW, ""))
    cases = [DescriptionCase(OLD, old=old, new=new) for old, new in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0))]
    assert [gain(answer, case) for case in cases] == [1.0, 0.5, 0.0]
    assert gain(answer, DescriptionCase(OLD)) == 0.0  # nothing was tracked
    assert gain(DescriptionText.read("yes"), cases[0]) == 0.0


@pytest.mark.parametrize(
    ("text", "tags", "order"),
    [
        (TRICKS["right"], 1, 1),
        (f"Well: {TRICKS['right']} Done.", 1, 1),
        ("<d>yes</d><think></think><answer>a</answer>", 1, 0),
        ("<think></think><d>perhaps</d><answer>a</answer>", 1, 0),
        ("<think></think><d>no</d>", 0, 0),
        ("<think>" * 700, 0, 0),
    ],
)
def test_tags_and_their_order_are_two_things(text, tags, order):
    answer = DescriptionText.read(text)
    assert (all_tags(answer, DescriptionCase(OLD)), in_order(answer, DescriptionCase(OLD))) == (tags, order)


@pytest.mark.parametrize("piece", ["<think></think><d>yes</d><answer>", "<think>", "<think></think>", "</think> <d> "])
def test_any_answer_that_is_read_is_judged_quickly(piece):
    answer = DescriptionText(("<think>" + piece * LONGEST_REWARDED)[:LONGEST_REWARDED], ParsedDescription())
    began = time.process_time()
    assert in_order(answer, DescriptionCase(OLD)) == 0
    assert time.process_time() - began < 0.1


def test_which_words_a_tracker_would_read():
    no = DescriptionText.read(written(False, NEW, ""))
    yes = DescriptionText.read(written(True, NEW, ""))
    assert (words_tracked(no, OLD, "ours"), words_tracked(yes, OLD, "ours")) == (OLD, NEW)
    assert (words_tracked(no, OLD, "paper"), words_tracked(yes, OLD, "paper")) == (NEW, NEW)
    for text in ("", "x", written(True, "", ""), written(True, "x" * (MOST_LETTERS + 1), "")):
        assert {words_tracked(DescriptionText.read(text), OLD, rewards) for rewards in ("ours", "paper")} == {OLD}


@pytest.mark.parametrize(
    ("rewards", "weights", "truth", "term"),
    [
        ("ours", {}, True, "gain"),
        ("ours", {"gain": 0.0}, True, ""),
        ("ours", {"gain": 0.0}, False, "decision"),
        ("paper", RELEASED, True, "decision"),
        ("paper", {"overlap": 0.0, "decision": 0.0}, True, ""),
    ],
)
def test_a_tracker_is_asked_for_where_a_term_pays_by_it(rewards, weights, truth, term):
    needed = needs_tracker(rewards, description_terms(rewards, weights), truth)
    assert needed == term
    must_have_tracker("tracker", needed)
    if term:
        with pytest.raises(UsageError, match=f"describer.tracker: the reward `{term}` is what a box tracker gains"):
            must_have_tracker("", needed)
