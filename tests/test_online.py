"""The online loop: Algorithm 1 with a scripted reasoner and perception, then with whole (tiny, random) models."""

import math
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_models import ANSWER, PAIR, frame, say, tiny_trackgpt
from tracks import Track

from trackgpt.arbiter import PurportArbiter, PurportRecord
from trackgpt.config import RethinkConfig
from trackgpt.errors import InputError, UsageError
from trackgpt.geometry.boxes import box_iou
from trackgpt.memory import QueryMemory
from trackgpt.online import Tracker, follow, follow_all
from trackgpt.track import TrackState
from trackgpt.types import Cue, Prediction, Prompt, Target, Verdict, VisualPrompt

SAY = Prompt("track it")


class ScriptedReasoner:
    """Finds `targets[n]` targets on its n-th reading (1 when the list is over); Q_R is the number of the frame."""

    def __init__(self, targets=()):
        self.targets, self.reads, self.texts = list(targets), [], []

    def reason(self, image, state, prompt):
        number = int(image[0, 0, 0])
        count = self.targets[len(self.reads)] if len(self.reads) < len(self.targets) else 1
        self.reads.append(number)
        self.texts.append(state.text if prompt is None else prompt.text)
        queries = np.full((count, 4), number, np.float32) + np.arange(count, dtype=np.float32)[:, None] / 10
        return Cue(f"read {number}", queries, -queries)


class ScriptedPerception:
    """Frame t has the purport scores `scores[t]`; targets lie at `boxes[t]` (x of a 10-pixel box; NaN is absent)."""

    def __init__(self, scores, places=None):
        self.scores = [np.atleast_1d(np.array(s, np.float32)) for s in scores]
        self.places = places or {}
        self.used, self.online = [], []

    def encode(self, images):
        return images

    def perceive(self, image, state, cued):
        t, k = int(image[0, 0, 0]), state.cue.targets
        self.used.append(None if k == 0 else float(state.cue.referring[0, 0]))
        self.online.append(None if state.memory.online is None else state.memory.online.copy())
        x = np.array(self.places.get(t, [20.0 * i for i in range(k)])[:k], np.float32)
        boxes = np.stack([x, x * 0, x + 10, x * 0 + 10], 1) if k else np.zeros((0, 4), np.float32)
        present = ~np.isnan(x)
        boxes[~present] = np.nan
        masks = np.zeros((k, 4, 4), bool)
        scores = np.resize(self.scores[t], k).astype(np.float32)
        online = QueryMemory(np.full((k, 4), t, np.float32)) if k else QueryMemory()
        return Prediction(boxes, masks, scores, present, np.arange(1, k + 1)), online


def numbered(t):
    """A frame that carries its number."""
    return np.full((4, 4, 3), t, np.uint8)


def scripted(scores, targets=(), places=None, **rethink):
    reasoner, perception = ScriptedReasoner(targets), ScriptedPerception(scores, places)
    parts = reasoner, perception, PurportArbiter(RethinkConfig(**rethink)), QueryMemory()
    return Tracker(*parts, kinds=(QueryMemory, PurportRecord))


def run(tracker, count):
    """The predictions of a track of so many frames, about which one thing is said at the beginning."""
    return list(follow(tracker, map(numbered, range(count)), [SAY]))


def after(tracker, count):
    """The track after so many frames, about which one thing is said at the beginning."""
    track = Track(tracker)
    for t in range(count):
        track.look(numbered(t), None if t else SAY)
    return track


def algorithm_1(scores, ratio=0.5):
    """Algorithm 1 of the paper on given purport scores: the frames read, and the queries in force on each frame."""
    reads, queries = [], []
    tau = score = None
    for t in range(len(scores)):
        if t == 0:
            reads.append(t)  # line 5: LVLM reason
        elif score < tau:
            reads.append(t)  # lines 8 to 10: rethinking, update queries
        queries.append(reads[-1])
        score = np.float32(scores[t])  # lines 6 and 12: predict results
        if t == 0:
            tau = ratio * score
    return reads, queries


# Algorithm 1


def test_a_low_score_makes_the_brain_read_the_next_frame_and_no_other():
    tracker = scripted([0.8, 0.7, 0.39, 0.7, 0.7, 0.41, 0.7])
    run(tracker, 7)
    assert tracker.reasoner.reads == [0, 3]
    assert tracker.perception.used == [0, 0, 0, 3, 3, 3, 3]


def test_tau_is_half_of_the_first_score_not_of_the_last():
    tracker = scripted([0.6, 0.31, 0.31, 0.29, 0.9, 0.4, 0.29, 0.9])
    run(tracker, 8)
    assert tracker.reasoner.reads == [0, 4, 7]


def test_the_loop_equals_a_transcription_of_algorithm_1_on_random_scores():
    rng = np.random.default_rng(0)
    rethinks = 0
    for _ in range(200):
        scores = rng.random(40) ** rng.choice([0.3, 1.0, 2.0])
        ratio = float(rng.choice([0.25, 0.5, 0.9]))
        tracker = scripted(scores, ratio=ratio)
        run(tracker, 40)
        reads, queries = algorithm_1(scores, ratio)
        assert tracker.reasoner.reads == reads
        assert tracker.perception.used == queries
        rethinks += len(reads) - 1
    assert rethinks > 500


def test_a_prediction_says_when_and_why_the_brain_was_asked():
    first, second, third, fourth = run(scripted([0.8, 0.3, 0.8, 0.8]), 4)
    assert (first.reason, first.cue.text) == ("prompt", "read 0")
    assert (second.reason, second.cue) == ("", None)
    assert (third.reason, third.cue.text) == ("purport", "read 2")
    assert (fourth.reason, fourth.cue) == ("", None)


def test_the_instruction_is_read_again_word_for_word():
    tracker = scripted([0.8, 0.1, 0.8])
    list(follow(tracker, map(numbered, range(3)), [Prompt("who will win?")]))
    assert tracker.reasoner.texts == ["who will win?"] * 2


def test_no_rethinking_reads_one_frame():
    tracker = scripted([0.8] + [0.0] * 20, enabled=False)
    run(tracker, 21)
    assert tracker.reasoner.reads == [0]


# Options


def test_the_online_query_is_handed_on_and_restarts_at_a_rethink():
    tracker = scripted([0.8, 0.8, 0.1, 0.8, 0.8])
    run(tracker, 5)
    online = [None if q is None else float(q[0, 0]) for q in tracker.perception.online]
    assert online == [None, 0, 1, None, 3]


def test_the_online_query_flows_on_where_the_config_says_so():
    tracker = scripted([0.8, 0.8, 0.1, 0.8, 0.8], reset_online=False)
    run(tracker, 5)
    assert [None if q is None else float(q[0, 0]) for q in tracker.perception.online] == [None, 0, 1, 2, 3]


def test_another_number_of_targets_always_restarts_the_online_queries():
    tracker = scripted([0.8, 0.1, 0.8], targets=[1, 2], reset_online=False)
    run(tracker, 3)
    assert tracker.perception.online[2] is None


def test_cooldown_budget_floor_and_rebase_reach_the_loop():
    low = [0.8] + [0.1] * 19
    for fields, reads in (
        ({"cooldown": 4}, [0, 5, 10, 15]),
        ({"rebase": True}, [0, 2]),
        ({"rebase": True, "floor": 0.2}, [0, *range(2, 20)]),
        ({"ratio": 0.1}, [0]),
    ):
        tracker = scripted(low, **fields)
        run(tracker, 20)
        assert tracker.reasoner.reads == reads, fields
    tracker = scripted([0.8] + [0.1] * 99, budget=0.05)
    run(tracker, 100)
    assert len(tracker.reasoner.reads) - 1 == 5


# Nothing found, and refusals


def test_while_nothing_is_found_the_brain_looks_every_few_frames_and_then_tracks():
    tracker = scripted([0.8] * 14, targets=[0, 0, 1], search_every=5)
    seen = run(tracker, 14)
    assert tracker.reasoner.reads == [0, 5, 10]
    assert [p.reason for p in seen] == ["prompt"] + [""] * 4 + ["searching"] + [""] * 4 + ["searching"] + [""] * 3
    assert [len(p.ids) for p in seen] == [0] * 10 + [1] * 4
    assert seen[10].ids.tolist() == [1]
    assert seen[5].cue.targets == 0


def test_a_refusal_during_a_rethink_keeps_the_old_queries():
    tracker = scripted([0.8, 0.1, 0.8, 0.1, 0.8], targets=[1, 0, 1])
    seen = run(tracker, 5)
    assert tracker.reasoner.reads == [0, 2, 4]
    assert tracker.perception.used == [0, 0, 0, 0, 4]
    assert [float(q[0, 0]) for q in tracker.perception.online[1:4]] == [0, 1, 2]
    assert (seen[2].reason, seen[2].cue.text, seen[2].cue.targets) == ("purport", "read 2", 0)
    assert [p.ids.tolist() for p in seen] == [[1]] * 5


def test_a_refusal_counts_for_the_cooldown():
    tracker = scripted([0.8] + [0.1] * 11, targets=[1] + [0] * 9, cooldown=3)
    run(tracker, 12)
    assert tracker.reasoner.reads == [0, 4, 8]


# Several targets and their identities


def test_ids_are_kept_over_a_rethink_with_swapped_order():
    places = {0: [0.0, 50.0], 1: [2.0, 52.0], 2: [53.0, 4.0], 3: [54.0, 5.0]}
    tracker = scripted([[0.8], [0.1], [0.8], [0.8]], targets=[2, 2], places=places)
    seen = run(tracker, 4)
    assert [p.ids.tolist() for p in seen] == [[1, 2], [1, 2], [2, 1], [2, 1]]


def test_a_target_that_a_rethink_adds_has_a_new_id_and_one_that_it_drops_takes_its_id_along():
    places = {0: [0.0], 1: [0.0], 2: [60.0, 1.0], 3: [60.0, 1.0], 4: [61.0]}
    tracker = scripted([0.8, 0.1, 0.8, 0.1, 0.8], targets=[1, 2, 1], places=places)
    assert [p.ids.tolist() for p in run(tracker, 5)] == [[1], [1], [2, 1], [2, 1], [2]]


def test_each_target_keeps_its_own_tau_over_a_rethink_with_swapped_order():
    # Target 1 began at 0.9 (tau 0.45), target 2 at 0.3 (tau 0.15); the rethink at frame 2 names them in the other
    # order. On frame 4 target 1 falls to 0.4, which is low; the 0.2 of target 2 never is.
    places = {t: [0.0, 50.0] if t < 2 else [50.0, 0.0] for t in range(6)}
    scores = [[0.9, 0.3], [0.1, 0.3], [0.3, 0.9], [0.2, 0.5], [0.2, 0.4], [0.3, 0.9]]
    tracker = scripted(scores, targets=[2] * 9, places=places)
    track = after(tracker, 6)
    assert tracker.reasoner.reads == [0, 2, 5]
    assert track.state.record.first.tolist() == pytest.approx([0.3, 0.9])


def test_a_target_that_a_rethink_adds_has_a_tau_of_its_own_and_the_old_one_keeps_its():
    places = {t: [0.0] if t < 2 else [60.0, 0.0] for t in range(4)}
    tracker = scripted([0.8, 0.1, [0.5, 0.7], [0.3, 0.5]], targets=[1, 2], places=places)
    assert after(tracker, 4).state.record.first.tolist() == pytest.approx([0.5, 0.8])
    assert tracker.reasoner.reads == [0, 2]


def test_a_target_that_is_hidden_during_a_rethink_keeps_its_id():
    nan = np.nan
    places = {0: [0.0, 50.0], 1: [0.0, nan], 2: [0.0, nan], 3: [0.0, nan], 4: [0.0, 51.0]}
    tracker = scripted([[0.8, 0.8], [0.8, 0.1], [0.8, 0.1], [0.8, 0.1], 0.8], targets=[2] * 9, places=places)
    seen = run(tracker, 5)
    assert tracker.reasoner.reads == [0, 2, 3, 4]
    assert [p.ids.tolist() for p in seen] == [[1, 2]] * 5


def test_a_single_target_keeps_its_id_however_far_it_moved():
    tracker = scripted([0.8, 0.1, 0.8], places={0: [0.0], 1: [0.0], 2: [500.0]})
    assert [p.ids.tolist() for p in run(tracker, 3)] == [[1]] * 3


def test_box_iou_is_zero_for_boxes_that_are_not_there():
    boxes = np.array([[0, 0, 10, 10], [np.nan] * 4], np.float32)
    assert box_iou(boxes, np.array([[5, 0, 15, 10]], np.float32)).tolist() == [[pytest.approx(1 / 3)], [0.0]]
    assert box_iou(boxes, boxes[:0]).shape == (2, 0)


# Prompts mid-video


def test_a_prompt_mid_video_starts_over_with_fresh_ids():
    tracker = scripted([0.8] * 6, targets=[2, 1])
    track = after(tracker, 3)
    seen = track.look(numbered(3), Prompt("the other one", frame=3, kind="switch"))
    assert seen.ids.tolist() == [3]
    assert (seen.reason, seen.verdict, seen.cue.text) == ("prompt", "switch", "read 3")
    assert tracker.reasoner.texts[-1] == "the other one"
    assert tracker.perception.online[-1] is None
    assert track.look(numbered(4)).ids.tolist() == [3]
    assert track.state.record.frame == 2


def test_every_track_begins_from_id_one():
    tracker = scripted([0.8] * 2, targets=[2, 2])
    assert [run(tracker, 1)[0].ids.tolist() for _ in range(2)] == [[1, 2], [1, 2]]


def test_a_frame_before_anything_was_said_shows_nothing_and_asks_nothing():
    tracker = scripted([0.8] * 3)
    track = Track(tracker)
    assert [track.look(numbered(t)).ids.tolist() for t in (0, 1)] == [[], []]
    assert tracker.reasoner.reads == []
    assert track.look(numbered(2), SAY).ids.tolist() == [1]


def test_a_correction_keeps_identities_and_restarts_online_queries_and_tau():
    # Two targets at 0 and 50 begin at 0.8 (tau 0.4). The correction on frame 2 names them in the other order, and both
    # at 0.3 there, the new reference of tau (0.15): the 0.2 of frame 3 is good enough, the 0.1 of frame 4 is not.
    places = {t: [0.0, 50.0] if t < 2 else [50.0, 0.0] for t in range(6)}
    tracker = scripted([0.8, 0.8, 0.3, 0.2, 0.1, 0.3], targets=[2] * 9, places=places)
    track = after(tracker, 2)
    corrected = track.look(numbered(2), Prompt("the smaller ones", 2, "correct"))
    assert (corrected.reason, corrected.verdict) == ("prompt", "correct")
    assert corrected.ids.tolist() == [2, 1]
    assert tracker.perception.online[2] is None
    assert track.state.record.first.tolist() == pytest.approx([0.3, 0.3])
    assert [track.look(numbered(t)).ids.tolist() for t in (3, 4, 5)] == [[2, 1]] * 3
    assert tracker.reasoner.reads == [0, 2, 5]
    assert tracker.reasoner.texts[-1] == "the smaller ones"
    assert track.state.next_id == 3


def test_a_correction_that_finds_nothing_keeps_the_old_targets():
    tracker = scripted([0.8] * 5, targets=[2, 0])
    track = after(tracker, 2)
    seen = track.look(numbered(2), Prompt("no, the blue ones", 2, "correct"))
    assert (seen.ids.tolist(), seen.reason, seen.cue.targets, seen.verdict) == ([1, 2], "prompt", 0, "absent")
    assert track.look(numbered(3)).ids.tolist() == [1, 2]
    assert tracker.perception.used == [0, 0, 0, 0]
    assert [q is None for q in tracker.perception.online] == [True, False, False, False]
    assert track.state.record.first.tolist() == pytest.approx([0.8, 0.8])


def test_a_switch_that_finds_nothing_keeps_the_old_targets_and_asks_no_more():
    tracker = scripted([0.8] * 9, targets=[2, 0, 1], search_every=3)
    track = after(tracker, 2)
    seen = track.look(numbered(2), Prompt("the cat", 2, "switch"))
    assert (seen.ids.tolist(), seen.verdict) == ([1, 2], "absent")
    assert [track.look(numbered(t)).ids.tolist() for t in range(3, 7)] == [[1, 2]] * 4
    assert tracker.reasoner.reads == [0, 2]


def test_dropping_one_of_two_leaves_the_other_as_it_is_and_asks_nobody():
    scores = [[0.9, 0.5], [0.8, 0.5], [0.7, 0.4], [0.7, 0.3], [0.6, 0.4]]
    tracker = scripted(scores, targets=[2])
    track = after(tracker, 2)
    kept = track.state
    both = [track.look(numbered(t)) for t in (2, 3, 4)]
    track.state = kept
    tracker.perception.scores = [np.array(pair[1:], np.float32) for pair in scores]
    tracker.perception.places = {t: [20.0] for t in range(5)}
    alone = [track.look(numbered(t), Prompt("", 2, "drop", ids=(1,)) if t == 2 else None) for t in (2, 3, 4)]
    assert [p.ids.tolist() for p in alone] == [[2]] * 3
    for one, two in zip(alone, both):
        assert np.array_equal(one.boxes, two.boxes[1:])
        assert np.array_equal(one.scores, two.scores[1:])
    assert (alone[0].reason, alone[0].cue, alone[0].verdict) == ("", None, "drop")
    assert tracker.reasoner.reads == [0]
    # Target 2 keeps its tau of 0.25, and target 1 nothing.
    assert tracker.arbiter.threshold(track.state).tolist() == [0.25]
    assert track.state.memory.online.shape == (1, 4)


def test_a_low_score_of_a_dropped_target_asks_nobody_any_more():
    tracker = scripted([[0.9, 0.5], [0.1, 0.5], [0.5], [0.5]], targets=[2])
    track = after(tracker, 2)
    track.look(numbered(2), Prompt("", 2, "drop", ids=(1,)))
    track.look(numbered(3))
    assert tracker.reasoner.reads == [0]


def test_the_words_of_a_drop_are_not_read_again():
    tracker = scripted([0.8, 0.8, 0.8, 0.1, 0.8], targets=[2, 1])
    track = after(tracker, 2)
    track.look(numbered(2), Prompt("forget the left one", 2, "drop", ids=(1,)))
    assert track.look(numbered(3)).reason == ""
    assert track.look(numbered(4)).reason == "purport"
    assert tracker.reasoner.texts == [SAY.text, SAY.text]


@pytest.mark.parametrize("ids", [(), (1, 2)])
def test_dropping_all_stops_tracking_and_asking(ids):
    tracker = scripted([0.8] * 2 + [0.1] * 20, targets=[2])
    track = after(tracker, 2)
    seen = [track.look(numbered(t), None if t > 2 else Prompt("", 2, "drop", ids=ids)) for t in range(2, 20)]
    assert [len(p.ids) for p in seen] == [0] * 18
    assert tracker.reasoner.reads == [0]
    assert tracker.arbiter.threshold(track.state).shape == (0,)  # one per active target
    assert track.look(numbered(20), Prompt("another", 20, "switch")).ids.tolist() == [3]


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (Prompt("a dog", 2, "add"), "TrackGPT cannot add targets; name all of them in one instruction"),
        (Prompt("", 2, "resume", ids=(1,)), "resume 1: targets that were given up are none"),
        (
            Prompt("it", 2, visual=(VisualPrompt((0, 0, 4, 4)),)),
            "in words; leave boxes, points and masks out",
        ),
        (Prompt("", 2, visual=(VisualPrompt(points=((1, 1, 1),)),)), "told what to track in words"),
        (Prompt("", 2, visual=(VisualPrompt(mask=np.ones((4, 4), bool)),)), "told what to track in words"),
        (Prompt("", 2, "correct", visual=(VisualPrompt((0, 0, 4, 4)),)), "told what to track in words"),
        (Prompt("", 2, "drop", ids=(2, 7)), r"drop \[7\]: tracked are \[1, 2\]"),
    ],
)
def test_what_trackgpt_cannot_do_is_refused_and_the_track_goes_on(prompt, said):
    tracker = scripted([0.8] * 4, targets=[2])
    track = after(tracker, 2)
    before = track.state
    with pytest.raises(UsageError, match=said):
        track.look(numbered(2), prompt)
    assert track.state is before
    assert track.look(numbered(2)).ids.tolist() == [1, 2]
    assert tracker.reasoner.reads == [0]


# Other rules, as other systems have them


class Doubter(PurportArbiter):
    """Asks after looking, where a score is below 0.5, and believes the answer where it names a target."""

    def due(self, state, prompt):
        return "prompt" if prompt is not None and not prompt.visual else ""

    def doubts(self, state, seen, memory, prompt):
        return "low" if prompt is None and (seen.scores < 0.5).any() else ""

    def judge(self, state, seen, cue, prompt):
        if prompt is not None:
            return super().judge(state, seen, cue, prompt)
        return Verdict("believe", cue, cued=(), rows=()) if cue.targets else Verdict("distrust")


def test_a_doubt_after_looking_is_settled_on_the_same_frame():
    tracker = scripted([0.8, 0.3, 0.8, 0.3], targets=[1, 1, 0])
    tracker = replace(tracker, arbiter=Doubter(RethinkConfig()))
    seen = run(tracker, 4)
    assert [p.reason for p in seen] == ["prompt", "low", "", "low"]
    assert [p.verdict for p in seen] == ["start", "believe", "", "distrust"]
    assert tracker.reasoner.reads == [0, 1, 3]
    # Frame 1 is looked at again with the new cue and without a memory, frame 3 is not.
    assert tracker.perception.used == [0, 0, 1, 1, 1]
    assert [None if q is None else float(q[0, 0]) for q in tracker.perception.online] == [None, 0, None, 1, 2]
    assert [p.ids.tolist() for p in seen] == [[1]] * 4


def test_what_a_prompt_points_at_is_the_cue_and_asks_nobody():
    tracker = replace(scripted([0.8, 0.8]), arbiter=Doubter(RethinkConfig()))
    track = Track(tracker)
    shown = VisualPrompt((1.0, 2.0, 3.0, 4.0)), VisualPrompt(points=((2.0, 3.0, 1),))
    looked = []

    def perceive(image, state, cued):
        looked.append((state, cued))
        return nothing_seen(2)

    tracker.perception.perceive = perceive
    seen = track.look(numbered(0), Prompt("this", visual=shown))
    assert tracker.reasoner.reads == []
    assert (seen.reason, seen.cue, seen.verdict, seen.ids.tolist()) == ("", None, "start", [1, 2])
    state, cued = looked[0]
    assert (state.cue.text, state.cue.visual, state.cue.boxes, cued) == ("this", shown, None, (1, 2))


def nothing_seen(count):
    """Perceived by a tracker of boxes: so many targets that are not on the frame."""
    absent, scores = np.full((count, 4), np.nan, np.float32), np.zeros(count, np.float32)
    return Prediction(absent, None, scores, np.zeros(count, bool), np.arange(count)), QueryMemory()


# Whole tracks


def test_following_equals_stepping_by_hand():
    said = [Prompt("one"), Prompt("two", 3, "switch"), Prompt("", 5, "drop", ids=(2,))]
    scores = [0.8, 0.8, 0.1, 0.8, 0.8, 0.8, 0.8]
    by_hand, tracker = Track(scripted(scores, targets=[1, 2])), scripted(scores, targets=[1, 2])
    followed = list(follow(tracker, map(numbered, range(7)), said))
    prompts = {prompt.frame: prompt for prompt in said}
    assert [p.ids.tolist() for p in followed] == [[1], [1], [1], [2, 3], [2, 3], [3], [3]]
    for t, seen in enumerate(followed):
        other = by_hand.look(numbered(t), prompts.get(t))
        assert same(seen, other)
        assert (seen.verdict, seen.cue is None) == (other.verdict, other.cue is None)


def test_tracks_that_are_followed_together_are_those_followed_alone():
    model = whole(ratio=1.0, cooldown=1)
    frames = [frame(seed) for seed in range(6)]
    said = [[SAY], [Prompt("the other one"), Prompt("a third", 3, "switch")], [Prompt("late", 2)]]
    together = list(follow_all(model.tracker(), frames, said))
    assert [[len(one.seen.ids) for one in each] for each in together[:3]] == [[2, 2, 0], [2, 2, 0], [2, 2, 2]]
    for unit, prompts in enumerate(said):
        for one, each in zip(follow(model.tracker(), frames, prompts), together, strict=True):
            assert np.array_equal(one.masks, each[unit].seen.masks)
            assert np.allclose(one.scores, each[unit].seen.scores, atol=1e-5)
            assert (one.ids.tolist(), one.reason) == (each[unit].seen.ids.tolist(), each[unit].seen.reason)


# State, with whole models


def same(a, b):
    """Whether two predictions are equal bit by bit."""
    names = ("masks", "present", "ids", "reason")
    exact = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)
    return exact and np.array_equal(a.scores, b.scores) and np.array_equal(a.boxes, b.boxes, equal_nan=True)


def whole(answer=PAIR, tower="clip", encoder="conv", **rethink):
    model = tiny_trackgpt(tower, encoder)
    say(model.brain, answer)
    model.config.min_area = 0.0
    model.config.rethink = RethinkConfig(**rethink)
    return model


@pytest.mark.parametrize("encoder", ["conv", "sam_vit"])
def test_a_state_that_is_saved_restored_and_rewound_continues_with_equal_bits(tmp_path, encoder):
    # At a ratio of 1 any score below the first one is low, and a random model's soon is.
    model = whole(encoder=encoder, ratio=1.0, cooldown=1)
    frames = [frame(seed) for seed in range(8)]
    track, straight, states = Track(model.tracker()), [], []
    for t, image in enumerate(frames):
        straight.append(track.look(image, None if t else SAY))
        states.append(track.state)
    assert {p.reason for p in straight} == {"prompt", "", "purport"}
    assert not same(straight[2], straight[3])
    assert straight[3].masks.any()
    states[3].save(tmp_path / "track.safetensors")
    other = Track(whole(encoder=encoder, ratio=1.0, cooldown=1).tracker())
    other.state = TrackState.load(tmp_path / "track.safetensors", other.tracker.kinds)
    assert all(same(other.look(image), kept) for image, kept in zip(frames[4:], straight[4:]))
    track.state = states[1]
    assert all(same(track.look(image), kept) for image, kept in zip(frames[2:], straight[2:]))


def test_a_step_is_a_pure_function_of_state_and_frame():
    tracker = whole(ratio=1.0).tracker()
    state, _ = tracker.step(tracker.begin(), frame(0), SAY)
    first, again = (tracker.step(state, frame(1))[1] for _ in range(2))
    assert same(first, again)
    assert tracker.step(state, frame(2))[0].record.frame == 2
    assert (state.record.frame, state.frame) == (1, 1)


def test_dropping_one_target_of_a_whole_model_leaves_the_other_as_it_is():
    tracker = whole(enabled=False).tracker()
    both, dropped = Track(tracker), Track(tracker)
    both.look(frame(0), SAY)
    dropped.state = both.state
    for t in range(1, 5):
        two, one = both.look(frame(t)), dropped.look(frame(t), Prompt("", 1, "drop", ids=(1,)) if t == 1 else None)
        assert one.ids.tolist() == [2]
        assert np.array_equal(one.masks[0], two.masks[1])
        assert np.array_equal(one.boxes[0], two.boxes[1], equal_nan=True)
        assert one.scores[0] == pytest.approx(two.scores[1], abs=1e-5)  # one row may be rounded otherwise than two


def test_a_saved_state_comes_back_field_by_field(tmp_path):
    track = Track(scripted([0.8, 0.1, 0.8], targets=[2, 2]))
    said = Prompt("der mit dem “Hut”", 4, "start", ids=(3,))
    track.look(numbered(0), said)
    track.look(numbered(1))
    state = track.state
    for name in ("track.safetensors", "no_suffix", "track.state"):
        state.save(tmp_path / name)
        back = TrackState.load(tmp_path / name, track.tracker.kinds)
        assert (back.prompts, back.targets, back.text) == ((said,), state.targets, said.text)
        assert [target.score for target in back.targets] == pytest.approx([0.1, 0.1])
        assert back.cue.text == "read 0"
        assert (back.next_id, back.frame, back.record.frame, back.record.searching) == (3, 2, 2, False)
        for a, b in (
            (back.memory.online, state.memory.online),
            (back.cue.purport, state.cue.purport),
            (back.record.first, state.record.first),
            (back.record.ids, state.record.ids),
        ):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["no_suffix", "track.safetensors", "track.state"]


@dataclass(frozen=True)
class Bank:
    """A memory of every kind of value that a system may keep."""

    entries: tuple = ()
    rows: list | None = None
    named: dict | None = None
    half: torch.Tensor | None = None
    number: np.float32 | None = None
    odd: float = math.nan
    inner: QueryMemory | None = None

    nbytes = 0

    def heed(self, verdict, cue, looked=None):
        return self


def test_a_memory_of_any_shape_is_saved_and_restored(tmp_path):
    view = torch.arange(100, dtype=torch.bfloat16).reshape(10, 10).T[::3]
    array = np.arange(6, dtype=np.int16).reshape(2, 3).T
    bank = Bank(
        entries=((1, (array, None), ()), ("a", True, (-math.inf, math.inf))),
        rows=[[np.zeros((0, 4), np.float32)], [], [None, np.array(3, np.uint8)]],
        named={1: "one", "two": (2.5, np.ones(2, bool)), (3, 4): {}},
        half=view,
        number=np.float32(0.25),
        inner=QueryMemory(np.array([[np.nan, np.inf]], np.float32)),
    )
    mask = np.eye(3, dtype=bool)
    pointed = Prompt("", 3, "add", (2,), (VisualPrompt((0.5, 1, 2, 3), ((1.5, 2, 0),), mask),))
    targets = (Target(1, SAY, None), Target(2, pointed, (0.0, 0.0, 1.0, 1.0), 4, False, 0.5))
    state = TrackState(bank, PurportRecord(3), 5, targets, Cue("yes"), (SAY, pointed), 9)
    path = tmp_path / "track.safetensors"
    state.save(path)
    back = TrackState.load(path, (Bank, QueryMemory, PurportRecord))
    kept = back.memory
    (one, (first, nothing), empty), (letter, true, infinities) = kept.entries
    assert (one, nothing, empty, letter, true, infinities) == (1, None, (), "a", True, (-math.inf, math.inf))
    assert (first.dtype, first.tolist()) == (np.int16, array.tolist())
    assert (kept.rows[0][0].shape, kept.rows[1], kept.rows[2][0]) == ((0, 4), [], None)
    assert (kept.rows[2][1].shape, int(kept.rows[2][1])) == ((), 3)
    assert (kept.named[1], kept.named["two"][0], kept.named[3, 4]) == ("one", 2.5, {})
    assert kept.named["two"][1].tolist() == [True, True]
    assert kept.half.dtype == torch.bfloat16
    assert torch.equal(kept.half, view)
    assert (type(kept.number), float(kept.number), math.isnan(kept.odd)) == (np.float32, 0.25, True)
    assert np.array_equal(kept.inner.online, bank.inner.online, equal_nan=True)
    assert (back.record, back.frame, back.next_id, back.prompts) == (PurportRecord(3), 5, 9, (SAY, pointed))
    assert np.array_equal(back.prompts[1].visual[0].mask, mask)
    assert (back.targets[1], math.isnan(back.targets[0].score)) == (targets[1], True)
    assert path.stat().st_size < 6000  # a view does not drag its whole storage along
    state.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_a_value_that_cannot_be_saved_is_named_and_leaves_no_file(tmp_path):
    state = TrackState(Bank(entries=({1, 2},)), None)
    with pytest.raises(TypeError, match="a set cannot be saved with a track; wanted dataclasses, arrays or plain"):
        state.save(tmp_path / "track.safetensors")
    with pytest.raises(TypeError, match="a mappingproxy cannot be saved"):
        replace(state, memory=Bank(named=MappingProxyType({}))).save(tmp_path / "track.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_a_class_that_was_not_named_is_refused(tmp_path):
    TrackState(Bank(), PurportRecord()).save(tmp_path / "track.safetensors")
    for kinds in ((), (PurportRecord, QueryMemory)):
        with pytest.raises(InputError, match="not a saved track of this system .*it holds a Bank, which is none of"):
            TrackState.load(tmp_path / "track.safetensors", kinds)


def test_a_state_that_is_still_searching_can_be_saved(tmp_path):
    tracker = scripted([0.8] * 9, targets=[0, 1], search_every=4)
    track = after(tracker, 3)
    track.state.save(tmp_path / "track.safetensors")
    track.state = TrackState.load(tmp_path / "track.safetensors", tracker.kinds)
    seen = [track.look(numbered(t)) for t in range(3, 6)]
    assert [p.reason for p in seen] == ["", "searching", ""]
    assert seen[1].ids.tolist() == [1]


def test_a_file_that_is_no_saved_track_is_refused(tmp_path):
    tracker = scripted([0.8])
    after(tracker, 1).state.save(tmp_path / "track.safetensors")
    data = (tmp_path / "track.safetensors").read_bytes()
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    (tmp_path / "short").write_bytes(data[:-4])
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("hello")
    (tmp_path / "folder").mkdir()
    np.savez(tmp_path / "before.npz", a=np.zeros(3))
    save_file({"a": torch.zeros(3)}, tmp_path / "weights")
    described = {
        "none": "{}",
        "list": "[]",
        "prompt": '{"version": 2, "state": {"class": "Prompt", "fields": {"text": "x"}}}',
        "fields": '{"version": 2, "state": {"class": "TrackState", "fields": {"colour": 1}}}',
        "absent_array": '{"version": 2, "state": {"array": "7"}}',
        "odd": '{"version": 2, "state": {"heap": "7"}}',
        "newer": '{"version": 3, "state": null}',
    }
    for name, text in described.items():
        save_file({"0": torch.zeros(3)}, tmp_path / name, {"trackgpt": text})
    names = ("cut", "short", "empty", "text", "folder", "before.npz", "weights", *described, "nowhere")
    for name in names:
        with pytest.raises(InputError, match=f"{name}: not a saved track"):
            TrackState.load(tmp_path / name, tracker.kinds)
    with pytest.raises(InputError, match="version 3, this trackgpt reads 2"):
        TrackState.load(tmp_path / "newer", tracker.kinds)


def test_the_state_does_not_grow_with_the_video():
    track, sizes = Track(whole(ratio=0.9).tracker()), {}
    for t in range(61):
        track.look(frame(t), None if t else SAY)
        sizes[t] = track.state.nbytes
    assert sizes[5] == sizes[60]
    # Two targets: Q_R, Q_p and Q_t of 32 channels, the first score and the confidence (float32), an id (8 bytes).
    assert sizes[60] == 2 * (3 * 32 * 4 + 4 + 4 + 8)
    assert len(track.state.targets) == 2


# Several targets, with whole models


@pytest.mark.parametrize(("tower", "encoder"), [("clip", "conv"), ("clip", "sam_vit"), ("conv", "conv")])
def test_targets_of_one_frame_share_one_image_embedding_and_equal_single_target_tracks(tower, encoder):
    model = whole(tower=tower, encoder=encoder, enabled=False)
    calls = []
    model.segmenter.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    track = Track(model.tracker())
    frames = [frame(seed) for seed in range(5)]
    seen = [track.look(image, None if t else SAY) for t, image in enumerate(frames)]
    assert len(calls) == 5
    cue, online = seen[0].cue, track.state.memory.online
    perception = track.tracker.perception
    for k in (0, 1):
        alone = replace(track.tracker.begin(), cue=Cue("", cue.referring[k : k + 1], cue.purport[k : k + 1]))
        for image, prediction in zip(frames, seen):
            single, memory = perception.perceive(image, alone, ())
            alone = replace(alone, memory=memory)
            assert single.scores[0] == pytest.approx(prediction.scores[k], abs=1e-5)
            assert (single.masks[0] != prediction.masks[k]).mean() < 1e-3
        assert np.abs(memory.online[0] - online[k]).max() <= 1e-5
    assert np.abs(online[0] - online[1]).max() > 1e-3


def test_masks_and_boxes_are_in_pixels_of_the_frame():
    model = whole(ANSWER)
    prediction = Track(model.tracker()).look(frame(0, 45, 80), SAY)
    assert prediction.masks.shape == (1, 45, 80)
    assert prediction.present.tolist() == [True]
    rows, columns = prediction.masks[0].any(1).nonzero()[0], prediction.masks[0].any(0).nonzero()[0]
    assert prediction.boxes[0].tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert 0 <= prediction.scores[0] <= 1


def test_a_mask_that_is_too_small_is_an_absent_target_with_a_box_of_nan():
    model = whole(ANSWER)
    model.config.min_area = 1.0
    prediction = Track(model.tracker()).look(frame(0), SAY)
    assert prediction.present.tolist() == [False]
    assert not prediction.masks.any()
    assert np.isnan(prediction.boxes).all()


def test_a_refusal_of_the_first_frame_runs_no_perception_and_gives_no_target():
    model = whole("no such thing", search_every=2)
    calls = []
    model.segmenter.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    track = Track(model.tracker())
    prediction = track.look(frame(0), SAY)
    assert prediction.masks.shape == (0, 36, 64)
    assert prediction.boxes.shape == (0, 4)
    assert len(prediction.ids) == len(prediction.scores) == len(calls) == 0
    assert [track.look(frame(t)).reason for t in (1, 2, 3, 4)] == ["", "searching", "", "searching"]


def test_tracking_leaves_the_weights_as_they_are():
    model = whole(tower="conv")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    list(follow(model.tracker(), [frame(0), frame(1)], [SAY]))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
