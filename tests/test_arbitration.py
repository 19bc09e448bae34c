"""When the grounder is asked, and whom to believe: IMAT's arbitration on tracks written by hand."""

from dataclasses import replace

import numpy as np
import pytest

from trackgpt.arbitration import Arbitration, ArbitrationSettings, Watch, jump, negative_click
from trackgpt.errors import UsageError
from trackgpt.perception.banked_segmenter import BankedMemory
from trackgpt.track import TrackState
from trackgpt.types import Cue, Prediction, Prompt, Target

SAY = Prompt("the dog")
HERE, NEAR, FAR = (10.0, 10.0, 30.0, 30.0), (12.0, 10.0, 32.0, 30.0), (60.0, 10.0, 80.0, 30.0)
NOWHERE = (np.nan,) * 4


def rule(**how):
    return Arbitration("toy", ArbitrationSettings(**how))


def seen(*boxes, score=0.8, margin=np.nan, reason="", cue=None):
    """A prediction of targets 1, 2, ... in these boxes; None for one that is absent."""
    here = np.array([box is not None for box in boxes], bool)
    places = np.array([NOWHERE if box is None else box for box in boxes], np.float32).reshape(-1, 4)
    scores, margins = (np.full(len(boxes), value, np.float32) for value in (score, margin))
    ids = np.arange(1, len(boxes) + 1)
    return Prediction(places, None, scores, here, ids, {"margin": margins}, cue, reason)


def track(arbiter, *boxes, frame=40, prompts=None, **record):
    """A track whose targets were last seen in these boxes."""
    watches = tuple(Watch(k + 1, 0.8, box) for k, box in enumerate(boxes))
    said = prompts or [SAY] * len(boxes)
    targets = tuple(Target(k + 1, said[k], box) for k, box in enumerate(boxes))
    return TrackState(
        BankedMemory(),
        replace(arbiter.begin(), watches=watches, **record),
        frame,
        targets,
        prompts=tuple(dict.fromkeys(said)) or (SAY,),
        next_id=len(boxes) + 1,
    )


def answer(*boxes, **how):
    return Cue("found", boxes=np.array(boxes, np.float32).reshape(-1, 4), **how)


def told(arbiter, state, prediction, prompt, *boxes):
    return arbiter.judge(state, prediction, answer(*boxes), prompt)


# When to ask


def test_movement_is_measured_in_sizes_of_the_former_box():
    assert jump(HERE, (22.0, 10.0, 42.0, 30.0)) == pytest.approx(12 / 20)
    assert jump((0.0, 0.0, 10.0, 40.0), (20.0, 0.0, 30.0, 40.0)) == pytest.approx(1)  # root of 400
    assert jump((5.0, 5.0, 5.0, 5.0), (6.0, 5.0, 6.0, 5.0)) == 1  # at least a pixel


@pytest.mark.parametrize(
    ("box", "how", "wanted"),
    [
        (NEAR, {}, ""),
        (FAR, {}, ""),  # one reason, on one frame
        (FAR, {"score": 0.3}, "motion+score"),
        (NEAR, {"score": 0.3, "margin": -0.1}, "score+margin"),
        (NEAR, {"margin": 0.1}, ""),
    ],
)
def test_two_reasons_on_one_frame_ask_and_one_does_not(box, how, wanted):
    arbiter = rule()
    assert arbiter.doubts(track(arbiter, HERE), seen(box, **how), None, None) == wanted


def test_one_reason_asks_on_the_second_frame_in_a_row():
    arbiter, state = rule(), track(rule(), HERE)
    weak = seen(NEAR, score=0.3)
    assert arbiter.doubts(state, weak, None, None) == ""
    record = arbiter.after(state, weak, arbiter.judge(state, weak, None, None))
    assert record.watches[0].suspect == 1
    later = replace(state, record=record, frame=41)
    assert arbiter.doubts(later, weak, None, None) == "score"


def test_between_two_questions_are_15_frames_and_an_always_suspicious_video_of_3000_frames_gets_at_most_93():
    arbiter, frames = rule(), []
    state = track(arbiter, HERE, frame=0)
    for t in range(3000):
        box = HERE if t % 2 else FAR
        look = seen(box, score=0.1)
        why = arbiter.doubts(state, look, None, None)
        verdict = arbiter.judge(state, look, answer(box), None) if why else arbiter.judge(state, look, None, None)
        frames += [t] if why else []
        record = arbiter.after(state, replace(look, reason=why), verdict)
        state = replace(state, record=record, frame=t + 1)
    assert 60 <= len(frames) <= 93
    assert min(np.diff(frames)) >= 15
    assert state.record.questions == len(frames)


def test_a_quiet_video_asks_nothing():
    arbiter, asked = rule(), 0
    state = track(arbiter, HERE, frame=0)
    for t in range(1000):
        why = arbiter.doubts(state, seen(NEAR), None, None)
        asked += bool(why)
        record = arbiter.after(state, seen(NEAR), arbiter.judge(state, seen(NEAR), None, None))
        state = replace(state, record=record, frame=t + 1)
    assert asked == 0


def test_a_lost_target_is_searched_for_after_15_30_60_120_and_then_every_300_frames():
    arbiter, frames = rule(), []
    state = track(arbiter, HERE, frame=0)
    for t in range(1200):
        gone = seen(None)
        why = arbiter.doubts(state, gone, None, None)
        frames += [t] if why == "lost" else []
        cue = answer(NOWHERE) if why else None
        record = arbiter.after(state, replace(gone, reason=why, cue=cue), arbiter.judge(state, gone, cue, None))
        state = replace(state, record=record, frame=t + 1)
    assert np.diff([-1, *frames]).tolist() == [15, 30, 60, 120, 300, 300, 300]


def test_words_that_found_nothing_are_read_again_after_1_2_4_8_frames_and_then_as_for_what_is_lost():
    arbiter, frames = rule(), []
    state = replace(track(arbiter, frame=0), prompts=(SAY,))
    nothing = seen(reason="prompt", cue=answer())
    state = replace(state, record=arbiter.after(state, nothing, arbiter.judge(state, None, answer(), SAY)), frame=1)
    for t in range(1, 260):
        why = arbiter.due(state, None)
        frames += [t] if why == "searching" else []
        look = seen(reason=why, cue=answer() if why else None)
        record = arbiter.after(state, look, arbiter.judge(state, None, look.cue, None))
        state = replace(state, record=record, frame=t + 1)
    assert np.diff([0, *frames]).tolist() == [1, 2, 4, 8, 15, 30, 60, 120]


def test_a_cheap_grounder_checks_on_time_without_paying():
    arbiter = rule(every=8)
    assert arbiter.doubts(track(arbiter, HERE, asked=33), seen(NEAR), None, None) == ""
    assert arbiter.doubts(track(arbiter, HERE, asked=32), seen(NEAR), None, None) == "check"
    state = track(arbiter, HERE, asked=32, tokens=2.0)
    record = arbiter.after(state, seen(NEAR, reason="check"), arbiter.judge(state, None, None, None))
    assert (record.tokens, record.asked, record.checked) == (2.03, 32, 40)


def test_checks_do_not_put_off_what_there_is_a_reason_for():
    arbiter = rule(every=8)
    odd = seen(FAR, score=0.1)
    assert arbiter.doubts(track(arbiter, HERE, asked=20, checked=39), odd, None, None) == "motion+score"
    assert arbiter.doubts(track(arbiter, HERE, asked=30, checked=39), odd, None, None) == ""


def test_what_was_only_pointed_at_is_never_asked_about():
    arbiter = rule(every=1)
    state = track(arbiter, HERE, prompts=[Prompt("", visual=())])
    assert arbiter.doubts(state, seen(FAR, score=0.1), None, None) == ""


def test_words_are_read_before_looking_where_nothing_is_tracked_and_after_looking_where_something_is():
    arbiter = rule()
    switch = Prompt("the cat", kind="switch")
    assert arbiter.due(track(arbiter), SAY) == "prompt"
    assert arbiter.due(track(arbiter, HERE), switch) == ""
    assert arbiter.doubts(track(arbiter, HERE), seen(HERE), None, switch) == "prompt"
    assert arbiter.due(track(arbiter, HERE), SAY) == "prompt"  # "start" forgets what was tracked


# Whom to believe


def checked(box, found, **how):
    arbiter = rule(**how)
    return arbiter.judge(track(arbiter, HERE), seen(box), answer(found), None)


def test_boxes_that_overlap_by_six_tenths_agree_and_the_track_is_confirmed():
    # 20 x 20 boxes moved by 4 and by 6 pixels: IoU 0.667 and 0.538
    verdict = checked(HERE, (14.0, 10.0, 34.0, 30.0))
    assert (verdict.kind, verdict.confirmed, verdict.cue) == ("keep", (1,), None)
    verdict = checked(HERE, (16.0, 10.0, 36.0, 30.0))
    assert (verdict.kind, verdict.cued, verdict.rejected) == ("reinit", (1,), (1,))
    assert verdict.cue.visual[0].box == (16.0, 10.0, 36.0, 30.0)


def test_a_mask_that_leaked_around_the_target_is_corrected_and_not_a_distractor():
    verdict = checked((0.0, 0.0, 60.0, 60.0), HERE)
    assert (verdict.kind, verdict.cued, verdict.rejected) == ("reinit", (1,), ())


def test_a_lost_target_is_found_where_the_grounder_sees_it_and_a_blind_grounder_ends_nothing():
    verdict = checked(None, FAR)
    assert (verdict.kind, verdict.cued, verdict.rejected) == ("found", (1,), ())
    verdict = checked(HERE, NOWHERE)
    assert (verdict.kind, verdict.cue, [target.active for target in verdict.targets]) == ("absent", None, [True])


def test_the_box_of_another_target_of_the_same_words_is_a_duplicate_and_that_of_other_words_is_not():
    arbiter = rule()
    near_two = (56.0, 10.0, 76.0, 30.0)  # IoU 0.667 with FAR, where target 2 is
    for prompts, wanted in (([SAY, SAY], "duplicate"), ([SAY, Prompt("the cat")], "reinit")):
        state = track(arbiter, HERE, FAR, prompts=prompts)
        verdict = arbiter.judge(state, seen(HERE, FAR), answer(near_two, NOWHERE), None)
        assert verdict.kind == wanted


def test_naive_arbitration_knows_overlap_alone():
    assert checked((0.0, 0.0, 60.0, 60.0), HERE, naive=True).rejected == (1,)
    arbiter = rule(naive=True)
    assert arbiter.doubts(track(arbiter, HERE, asked=39), seen(FAR), None, None) == "motion"


def test_an_instruction_about_the_thing_that_is_tracked_keeps_it_and_its_new_words_are_in_force():
    arbiter, prompt = rule(), Prompt("the brown dog", kind="switch")
    verdict = told(arbiter, track(arbiter, HERE), seen(HERE), prompt, NEAR)
    assert (verdict.kind, verdict.confirmed) == ("keep", (1,))
    assert verdict.targets[0].prompt == prompt


def test_a_part_refines_another_place_switches_and_a_correction_keeps_the_identity():
    arbiter, state = rule(), track(rule(), HERE)
    part = told(arbiter, state, seen(HERE), Prompt("its head", kind="switch"), (12.0, 10.0, 20.0, 18.0))
    assert (part.kind, part.cued, part.rejected) == ("refine", (1,), ())
    other = told(arbiter, state, seen(HERE), Prompt("the cat", kind="switch"), FAR)
    assert (other.kind, other.cued) == ("switch", (2,))
    assert [(target.id, target.active) for target in other.targets] == [(2, True), (1, False)]
    wrong = told(arbiter, state, seen(HERE), Prompt("no, the right one", kind="correct"), FAR)
    assert (wrong.kind, wrong.cued, wrong.rejected) == ("correct", (1,), (1,))


@pytest.mark.parametrize("kind", ["switch", "correct", "refine", "state", "add"])
def test_words_that_nothing_matches_change_nothing_of_what_is_followed(kind):
    arbiter, state = rule(), track(rule(), HERE)
    verdict = told(arbiter, state, seen(HERE), Prompt("the cat", kind=kind))
    assert (verdict.kind, verdict.targets, verdict.cue) == ("absent", None, None)


def test_a_target_is_added_unless_it_is_tracked_already():
    arbiter, state = rule(), track(rule(), HERE)
    added = told(arbiter, state, seen(HERE), Prompt("the cat", kind="add"), FAR)
    assert (added.kind, added.cued, [target.id for target in added.targets]) == ("add", (2,), [1, 2])
    assert told(arbiter, state, seen(HERE), Prompt("the cat", kind="add"), NEAR).kind == "duplicate"


def test_several_boxes_begin_several_targets():
    arbiter = rule()
    verdict = arbiter.judge(track(arbiter), None, answer(HERE, FAR), SAY)
    assert (verdict.kind, verdict.cued) == ("start", (1, 2))
    assert [shown.box for shown in verdict.cue.visual] == [HERE, FAR]


def test_a_failed_mask_gets_a_negative_click_beside_the_middle_of_the_right_box_and_not_in_it():
    found = (10.0, 10.0, 50.0, 50.0)
    assert negative_click((40.0, 20.0, 56.0, 40.0), found) == ((48.0, 30.0, 0),)
    assert negative_click((20.0, 20.0, 48.0, 40.0), found) == ()  # its middle is likely the target
    assert negative_click((80.0, 20.0, 96.0, 40.0), found) == ()  # far away there is nothing to tell apart
    assert negative_click(None, found) == ()


def test_a_correction_of_one_of_two_targets_leaves_the_other_and_must_say_which():
    arbiter, state = rule(), track(rule(), HERE, FAR)
    there = (60.0, 60.0, 80.0, 80.0)
    verdict = told(arbiter, state, seen(HERE, FAR), Prompt("the cat", kind="correct", ids=(2,)), there)
    assert (verdict.kind, verdict.cued, verdict.rejected) == ("correct", (2,), (2,))
    assert [(target.id, target.active, target.prompt.text) for target in verdict.targets] == [
        (1, True, "the dog"),
        (2, True, "the cat"),
    ]
    both = told(arbiter, state, seen(HERE, FAR), Prompt("the cats", kind="correct", ids=(1, 2)), FAR, there)
    assert (both.cued, [shown.box for shown in both.cue.visual], both.confirmed) == ((1,), [there], (2,))
    with pytest.raises(UsageError, match="which of 1, 2"):
        arbiter.due(state, Prompt("the cat", kind="correct"))
    with pytest.raises(UsageError, match="correct 7: tracked are 1, 2"):
        arbiter.due(state, Prompt("the cat", kind="correct", ids=(7,)))


def test_two_lost_targets_of_the_same_words_are_not_both_found_in_one_box():
    arbiter, state = rule(), track(rule(), HERE, FAR)
    verdict = arbiter.judge(state, seen(None, None), answer(NEAR, NEAR), None)
    assert (verdict.kind, verdict.cued) == ("found", (1,))


def test_a_part_that_becomes_the_whole_gets_no_negative_click():
    head, body = (20.0, 10.0, 30.0, 22.0), (10.0, 8.0, 40.0, 70.0)
    verdict = checked(head, body)
    assert (verdict.kind, verdict.rejected, verdict.cue.visual[0].points) == ("reinit", (), ())


def test_an_instruction_about_something_else_does_not_count_against_a_track():
    arbiter, state = rule(), track(rule(), HERE)
    add = Prompt("the cat", kind="add")
    verdict = told(arbiter, state, seen(HERE), add, FAR)
    after = arbiter.after(
        replace(state, targets=verdict.targets), seen(HERE, FAR, reason="prompt", cue=answer(FAR)), verdict
    )
    assert [watch.elsewhere for watch in after.watches] == [0, 0]
    look = replace(seen(HERE, reason="check", cue=answer(FAR)), own_scores={"likeness": np.float32([0.9])})
    verdict = arbiter.judge(state, look, look.cue, None)
    assert (verdict.kind, arbiter.after(state, look, verdict).watches[0].elsewhere) == ("elsewhere", 1)


def test_naive_arbitration_never_runs_out_of_questions():
    arbiter = rule(naive=True)
    state = track(arbiter, HERE, tokens=1.0)
    for _ in range(5):
        odd = seen(FAR, reason="motion", cue=answer(FAR))
        state = replace(state, record=arbiter.after(state, odd, arbiter.judge(state, odd, odd.cue, None)))
    assert state.record.tokens > 1
