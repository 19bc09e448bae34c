"""When the slow model is asked again: the rule of Algorithm 1 and each of its options, on records written by hand."""

from dataclasses import replace

import numpy as np
import pytest

from trackgpt.arbiter import PurportArbiter, Record
from trackgpt.config import RethinkConfig


def scores(*values):
    return np.array(values, np.float32)


def record(first, last, frame=5, **fields):
    return Record(frame=frame, first=scores(*first), last=scores(*last), **fields)


def arbiter(**fields):
    return PurportArbiter(RethinkConfig(**fields))


def walk(rule, sequence, found=True):
    """Frames that are consulted when frame t has the purport score `sequence[t]`; frame 0 always is."""
    state, asked = Record(), []
    for t, score in enumerate(sequence):
        consulted = t == 0 or rule.due(state) != ""
        if consulted:
            asked.append(t)
        state = rule.after(state, scores(score), consulted, found)
    return asked


def test_tau_is_half_the_first_score():
    assert arbiter().threshold(record([0.8, 0.5], [1, 1])).tolist() == pytest.approx([0.4, 0.25])


def test_the_brain_is_asked_when_the_previous_score_is_below_tau_and_not_when_it_is_equal():
    assert arbiter().due(record([0.8], [0.39])) == "purport"
    assert arbiter().due(record([0.8], [0.4])) == ""
    assert arbiter().due(record([0.8], [0.41])) == ""


def test_one_low_target_of_several_is_enough():
    assert arbiter().due(record([0.8, 0.6], [0.79, 0.29])) == "purport"
    assert arbiter().due(record([0.8, 0.6], [0.41, 0.31])) == ""


def test_a_first_score_that_is_already_low_lowers_tau_unless_there_is_a_floor():
    assert arbiter().due(record([0.1], [0.06])) == ""
    assert arbiter(floor=0.3).due(record([0.1], [0.06])) == "purport"
    assert arbiter(floor=0.3).threshold(record([0.1], [1])).tolist() == pytest.approx([0.3])
    assert arbiter(floor=0.3).threshold(record([0.8], [1])).tolist() == pytest.approx([0.4])


def test_nothing_is_due_before_the_first_frame_or_when_rethinking_is_off():
    assert arbiter().due(Record()) == ""
    assert len(arbiter().threshold(Record())) == 0
    assert arbiter(enabled=False).due(record([0.8], [0.0])) == ""


def test_the_reference_of_tau_stays_that_of_the_first_frame_unless_rebased():
    #            t: 0    1    2    3    4
    sequence = [0.8, 0.3, 0.5, 0.3, 0.3]
    assert walk(arbiter(), sequence) == [0, 2, 4]
    # Rebased at frame 2, tau is 0.25, and 0.3 is good enough.
    assert walk(arbiter(rebase=True), sequence) == [0, 2]


def test_a_cooldown_is_the_number_of_frames_between_two_rethinks():
    low = [0.8] + [0.1] * 11
    assert walk(arbiter(), low) == [0, *range(2, 12)]
    assert walk(arbiter(cooldown=1), low) == [0, 2, 4, 6, 8, 10]
    assert walk(arbiter(cooldown=3), low) == [0, 4, 8]


def test_a_budget_bounds_the_share_of_frames_that_are_rethought():
    state, asked, rule = Record(), [], arbiter(budget=0.1)
    for t in range(100):
        consulted = t == 0 or rule.due(state) != ""
        if consulted and t:
            asked.append(t)
            state = replace(state, rethinks=len(asked))
        state = rule.after(state, scores(0.8 if t == 0 else 0.1), consulted, True)
    # Always one; the second where two are a tenth of the frames so far, 20.
    assert asked == [2, 19, 29, 39, 49, 59, 69, 79, 89, 99]


def test_while_nothing_is_found_the_brain_is_asked_on_a_schedule():
    state, asked, rule = Record(), [], arbiter(search_every=4)
    for t in range(14):
        consulted = t == 0 or rule.due(state) != ""
        if t and consulted:
            assert rule.due(state) == "searching"
        asked += [t] * consulted
        state = rule.after(state, scores(), consulted, found=False)
    assert asked == [0, 4, 8, 12]


def test_searching_goes_on_where_rethinking_is_off():
    assert arbiter(enabled=False).due(Record(frame=8, searching=True)) == "searching"


def test_the_first_score_of_a_target_that_was_found_late_is_the_reference():
    rule = arbiter()
    state = rule.after(Record(), scores(), consulted=True, found=False)
    assert state.searching
    state = rule.after(state, scores(0.6), consulted=True, found=True)
    assert not state.searching
    assert rule.threshold(state).tolist() == pytest.approx([0.3])


def test_records_are_not_changed_in_place():
    before = record([0.8], [0.7])
    after = arbiter().after(before, scores(0.2), consulted=False, found=True)
    assert (before.frame, after.frame) == (5, 6)
    assert before.last.tolist() == pytest.approx([0.7])
    assert after.first is before.first
