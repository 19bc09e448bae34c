"""When the slow model is asked again: the rule of Algorithm 1 and each of its options, on states written by hand."""

from dataclasses import replace

import numpy as np
import pytest

from trackgpt.arbiter import PurportArbiter, PurportRecord
from trackgpt.config import RethinkConfig
from trackgpt.memory import QueryMemory
from trackgpt.track import TrackState
from trackgpt.types import Cue, Prediction, Prompt, Target, Verdict

SAY = Prompt("track it")


def scores(*values):
    return np.array(values, np.float32)


def state(first, last, frame=5, **fields):
    """A track with first and last scores of its targets, ids from 1."""
    targets = tuple(Target(k + 1, SAY, score=score) for k, score in enumerate(last))
    record = PurportRecord(frame=frame, ids=np.arange(1, len(first) + 1), first=scores(*first), **fields)
    queries = np.zeros((len(last), 4), np.float32)
    return TrackState(QueryMemory(), record, frame, targets, Cue("", queries, queries))


def arbiter(**fields):
    return PurportArbiter(RethinkConfig(**fields))


def seen(last, reason=""):
    """Of targets with these scores, ids from 1."""
    k = len(last)
    boxes, ids = np.zeros((k, 4), np.float32), np.arange(1, k + 1)
    return Prediction(boxes, None, scores(*last), np.ones(k, bool), ids, reason=reason)


def advanced(rule, before, last, verdict):
    """The state after a frame with these scores, on which `verdict` was found."""
    reason = "" if verdict == Verdict() else "prompt" if verdict.kind == "start" else "purport"
    after = state(last, last)
    cue = after.cue if len(last) else Cue()
    now = replace(before, targets=after.targets, cue=cue)
    return replace(now, record=rule.after(now, seen(last, reason), verdict))


def walk(rule, sequence):
    """Frames on which the brain is asked when frame t has the purport score `sequence[t]`; frame 0 always is."""
    track, asked = TrackState(QueryMemory(), rule.begin()), []
    for t, score in enumerate(sequence):
        why = "prompt" if t == 0 else rule.due(track, None)
        if why:
            asked.append(t)
        kind = {"": "keep", "prompt": "start"}.get(why, "rethink")
        track = advanced(rule, track, [score], Verdict(kind, Cue() if why else None))
    return asked


def test_tau_is_half_the_first_score():
    assert arbiter().threshold(state([0.8, 0.5], [1, 1])).tolist() == pytest.approx([0.4, 0.25])


def test_the_brain_is_asked_when_the_previous_score_is_below_tau_and_not_when_it_is_equal():
    assert arbiter().due(state([0.8], [0.39]), None) == "purport"
    assert arbiter().due(state([0.8], [0.4]), None) == ""
    assert arbiter().due(state([0.8], [0.41]), None) == ""


def test_one_low_target_of_several_is_enough():
    assert arbiter().due(state([0.8, 0.6], [0.79, 0.29]), None) == "purport"
    assert arbiter().due(state([0.8, 0.6], [0.41, 0.31]), None) == ""


def test_a_first_score_that_is_already_low_lowers_tau_unless_there_is_a_floor():
    assert arbiter().due(state([0.1], [0.06]), None) == ""
    assert arbiter(floor=0.3).due(state([0.1], [0.06]), None) == "purport"
    assert arbiter(floor=0.3).threshold(state([0.1], [1])).tolist() == pytest.approx([0.3])
    assert arbiter(floor=0.3).threshold(state([0.8], [1])).tolist() == pytest.approx([0.4])


def test_nothing_is_due_before_the_first_frame_or_when_rethinking_is_off():
    nothing_said = TrackState(QueryMemory(), arbiter().begin())
    assert arbiter().due(nothing_said, None) == ""
    assert arbiter().threshold(nothing_said).shape == (0,)
    assert arbiter(enabled=False).due(state([0.8], [0.0]), None) == ""


def test_a_prompt_is_always_due_and_what_was_seen_is_never_doubted():
    for kind in ("start", "switch", "correct"):
        assert arbiter(enabled=False).due(state([0.8], [0.8]), Prompt("it", 5, kind)) == "prompt"
    assert arbiter().due(state([0.8], [0.8]), Prompt("", 5, "drop", ids=(1,))) == ""
    assert arbiter().doubts(state([0.8], [0.8]), seen([0.0]), QueryMemory(), None) == ""


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
    # Always one; the second where two are a tenth of the frames so far, 20.
    assert walk(arbiter(budget=0.1), [0.8] + [0.1] * 99) == [0, 2, 19, 29, 39, 49, 59, 69, 79, 89, 99]


def test_while_nothing_is_found_the_brain_is_asked_on_a_schedule():
    rule = arbiter(search_every=4)
    track, asked = advanced(rule, TrackState(QueryMemory(), rule.begin()), [], Verdict("start", Cue())), []
    for t in range(1, 14):
        why = rule.due(track, None)
        if why:
            asked.append((t, why))
        now = replace(track, cue=Cue())
        track = replace(now, record=rule.after(now, seen([], why), Verdict()))
    assert asked == [(4, "searching"), (8, "searching"), (12, "searching")]


def test_searching_goes_on_where_rethinking_is_off():
    nothing = TrackState(QueryMemory(), PurportRecord(frame=8, searching=True))
    assert arbiter(enabled=False).due(nothing, None) == "searching"


def test_the_first_score_of_a_target_that_was_found_late_is_the_reference():
    rule = arbiter()
    track = advanced(rule, TrackState(QueryMemory(), rule.begin()), [], Verdict("start", Cue()))
    assert track.record.searching
    track = advanced(rule, track, [0.6], Verdict("rethink", Cue()))
    assert not track.record.searching
    assert rule.threshold(track).tolist() == pytest.approx([0.3])


def test_records_are_not_changed_in_place():
    before = state([0.8], [0.7])
    after = arbiter().after(before, seen([0.2]), Verdict())
    assert (before.record.frame, after.frame) == (5, 6)
    assert before.record.first.tolist() == pytest.approx([0.8])
    assert after.first is before.record.first
