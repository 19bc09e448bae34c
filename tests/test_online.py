"""The online loop: Algorithm 1 with a scripted reasoner and perception, then with whole (tiny, random) models."""

import zipfile

import numpy as np
import pytest
import torch
from tiny_models import ANSWER, PAIR, frame, say, tiny_trackgpt

from trackgpt.arbiter import PurportArbiter
from trackgpt.config import RethinkConfig
from trackgpt.errors import InputError, UsageError
from trackgpt.geometry.boxes import box_iou
from trackgpt.memory import QueryMemory
from trackgpt.online import ReasoningTracker, TrackState
from trackgpt.types import Cue, Prediction, Prompt

SAY = Prompt("track it")


class ScriptedReasoner:
    """Finds `targets[n]` targets on its n-th reading (1 when the list is over); Q_R is the number of the frame."""

    def __init__(self, targets=()):
        self.targets, self.reads, self.texts = list(targets), [], []

    def reason(self, image, prompt, before=None):
        number = int(image[0, 0, 0])
        count = self.targets[len(self.reads)] if len(self.reads) < len(self.targets) else 1
        self.reads.append(number)
        self.texts.append(prompt.text)
        queries = np.full((count, 4), number, np.float32) + np.arange(count, dtype=np.float32)[:, None] / 10
        return Cue(f"read {number}", queries, -queries)


class ScriptedPerception:
    """Frame t has the purport scores `scores[t]`; targets lie at `boxes[t]` (x of a 10-pixel box; NaN is absent)."""

    def __init__(self, scores, places=None):
        self.scores = [np.atleast_1d(np.array(s, np.float32)) for s in scores]
        self.places = places or {}
        self.used, self.online = [], []

    def perceive(self, image, cue, memory):
        t, k = int(image[0, 0, 0]), cue.targets
        self.used.append(None if k == 0 else float(cue.referring[0, 0]))
        self.online.append(None if memory.online is None else memory.online.copy())
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
    return ReasoningTracker(reasoner, perception, PurportArbiter(RethinkConfig(**rethink)))


def run(tracker, count, start=0):
    out = [tracker.initialize(numbered(start), SAY)] if start == 0 else []
    return out + [tracker.track(numbered(t)) for t in range(max(1, start), count)]


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
    tracker.initialize(numbered(0), Prompt("who will win?"))
    tracker.track(numbered(1))
    tracker.track(numbered(2))
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
    run(tracker, 6)
    assert tracker.reasoner.reads == [0, 2, 5]
    assert tracker.state.record.first.tolist() == pytest.approx([0.3, 0.9])


def test_a_target_that_a_rethink_adds_has_a_tau_of_its_own_and_the_old_one_keeps_its():
    places = {t: [0.0] if t < 2 else [60.0, 0.0] for t in range(4)}
    tracker = scripted([0.8, 0.1, [0.5, 0.7], [0.3, 0.5]], targets=[1, 2], places=places)
    run(tracker, 4)
    assert tracker.state.record.first.tolist() == pytest.approx([0.5, 0.8])
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
    run(tracker, 3)
    prediction = tracker.track(numbered(3), Prompt("the other one", frame=3, kind="switch"))
    assert prediction.ids.tolist() == [3]
    assert (prediction.reason, prediction.cue.text) == ("prompt", "read 3")
    assert tracker.reasoner.texts[-1] == "the other one"
    assert tracker.perception.online[-1] is None
    assert tracker.track(numbered(4)).ids.tolist() == [3]
    assert tracker.state.record.frame == 2


def test_initialize_begins_again_from_id_one():
    tracker = scripted([0.8] * 3, targets=[2, 2])
    run(tracker, 2)
    assert tracker.initialize(numbered(2), SAY).ids.tolist() == [1, 2]


def test_tracking_before_a_track_has_begun_is_refused():
    with pytest.raises(UsageError, match="call initialize"):
        scripted([0.8]).track(numbered(0))
    with pytest.raises(UsageError, match="call initialize"):
        scripted([0.8]).track(numbered(0), SAY)


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
    tracker = model.tracker()
    straight = [tracker.initialize(frames[0], SAY)]
    states = [tracker.state]
    for image in frames[1:]:
        straight.append(tracker.track(image))
        states.append(tracker.state)
    assert {p.reason for p in straight} == {"prompt", "", "purport"}
    assert not same(straight[2], straight[3])
    assert straight[3].masks.any()
    states[3].save(tmp_path / "track.npz")
    other = whole(encoder=encoder, ratio=1.0, cooldown=1).tracker()
    other.state = TrackState.load(tmp_path / "track.npz")
    assert all(same(other.track(image), kept) for image, kept in zip(frames[4:], straight[4:]))
    tracker.state = states[1]
    assert all(same(tracker.track(image), kept) for image, kept in zip(frames[2:], straight[2:]))


def test_a_step_is_a_pure_function_of_state_and_frame():
    tracker = whole(ratio=1.0).tracker()
    state, _ = tracker.begin(frame(0), SAY, next_id=1)
    first, again = (tracker.step(state, frame(1))[1] for _ in range(2))
    assert same(first, again)
    assert tracker.step(state, frame(2))[0].record.frame == 2
    assert state.record.frame == 1


def test_a_saved_state_comes_back_field_by_field(tmp_path):
    tracker = scripted([0.8, 0.1, 0.8], targets=[2, 2])
    tracker.initialize(numbered(0), Prompt("der mit dem “Hut”", 4, "switch"))
    tracker.track(numbered(1))
    for name in ("track.npz", "no_suffix", "track.state"):
        tracker.state.save(tmp_path / name)
        back = TrackState.load(tmp_path / name)
        assert back.prompt == tracker.state.prompt
        assert back.cue.text == "read 0"
        assert (back.next_id, back.record.frame, back.record.searching) == (3, 2, False)
        for a, b in (
            (back.memory.online, tracker.state.memory.online),
            (back.cue.purport, tracker.state.cue.purport),
            (back.record.first, tracker.state.record.first),
            (back.ids, tracker.state.ids),
            (back.boxes, tracker.state.boxes),
        ):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["no_suffix", "track.npz", "track.state"]


def test_a_state_that_is_still_searching_can_be_saved(tmp_path):
    tracker = scripted([0.8] * 9, targets=[0, 1], search_every=4)
    run(tracker, 3)
    tracker.state.save(tmp_path / "track.npz")
    tracker.state = TrackState.load(tmp_path / "track.npz")
    seen = [tracker.track(numbered(t)) for t in range(3, 6)]
    assert [p.reason for p in seen] == ["", "searching", ""]
    assert seen[1].ids.tolist() == [1]


def test_a_file_that_is_no_saved_track_is_refused(tmp_path):
    whole_file = tmp_path / "track.npz"
    tracker = scripted([0.8])
    run(tracker, 1)
    tracker.state.save(whole_file)
    data = whole_file.read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.save(tmp_path / "array.npy", np.zeros(3))
    with zipfile.ZipFile(whole_file) as source, zipfile.ZipFile(tmp_path / "less.npz", "w") as target:
        for name in source.namelist():
            if not name.startswith("ids"):
                target.writestr(name, source.read(name))
    for name in ("cut.npz", "empty.npz", "text.npz", "other.npz", "array.npy", "less.npz", "absent.npz"):
        with pytest.raises(InputError, match=f"{name}: not a saved track"):
            TrackState.load(tmp_path / name)


def test_the_state_does_not_grow_with_the_video():
    tracker = whole(ratio=0.9).tracker()
    tracker.initialize(frame(0), SAY)
    sizes = {}
    for t in range(1, 61):
        tracker.track(frame(t))
        sizes[t] = tracker.state.nbytes
    assert sizes[5] == sizes[60]
    # Two targets: Q_R, Q_p and Q_t of 32 channels, a box, an id (8 bytes), the first and the last score; float32.
    assert sizes[60] == 2 * (3 * 32 * 4 + 4 * 4 + 8 + 2 * 4)


# Several targets, with whole models


@pytest.mark.parametrize(("tower", "encoder"), [("clip", "conv"), ("clip", "sam_vit"), ("conv", "conv")])
def test_targets_of_one_frame_share_one_image_embedding_and_equal_single_target_tracks(tower, encoder):
    model = whole(tower=tower, encoder=encoder, enabled=False)
    calls = []
    model.segmenter.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    both = model.tracker()
    frames = [frame(seed) for seed in range(5)]
    seen = [both.initialize(frames[0], SAY)] + [both.track(image) for image in frames[1:]]
    assert len(calls) == 5
    cue = seen[0].cue
    for k in (0, 1):
        memory = QueryMemory()
        for image, prediction in zip(frames, seen):
            alone = Cue(cue.text, cue.referring[k : k + 1], cue.purport[k : k + 1])
            single, memory = both.perception.perceive(image, alone, memory)
            assert single.scores[0] == pytest.approx(prediction.scores[k], abs=1e-5)
            assert (single.masks[0] != prediction.masks[k]).mean() < 1e-3
        assert np.abs(memory.online[0] - both.state.memory.online[k]).max() <= 1e-5
    assert np.abs(both.state.memory.online[0] - both.state.memory.online[1]).max() > 1e-3


def test_masks_and_boxes_are_in_pixels_of_the_frame():
    model = whole(ANSWER)
    prediction = model.tracker().initialize(frame(0, 45, 80), SAY)
    assert prediction.masks.shape == (1, 45, 80)
    assert prediction.present.tolist() == [True]
    rows, columns = prediction.masks[0].any(1).nonzero()[0], prediction.masks[0].any(0).nonzero()[0]
    assert prediction.boxes[0].tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert 0 <= prediction.scores[0] <= 1


def test_a_mask_that_is_too_small_is_an_absent_target_with_a_box_of_nan():
    model = whole(ANSWER)
    model.config.min_area = 1.0
    prediction = model.tracker().initialize(frame(0), SAY)
    assert prediction.present.tolist() == [False]
    assert not prediction.masks.any()
    assert np.isnan(prediction.boxes).all()


def test_a_refusal_of_the_first_frame_runs_no_perception_and_gives_no_target():
    model = whole("no such thing", search_every=2)
    calls = []
    model.segmenter.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    tracker = model.tracker()
    prediction = tracker.initialize(frame(0), SAY)
    assert prediction.masks.shape == (0, 36, 64)
    assert prediction.boxes.shape == (0, 4)
    assert len(prediction.ids) == len(prediction.scores) == len(calls) == 0
    assert [tracker.track(frame(t)).reason for t in (1, 2, 3, 4)] == ["", "searching", "", "searching"]


def test_tracking_leaves_the_weights_as_they_are():
    model = whole(tower="conv")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tracker = model.tracker()
    tracker.initialize(frame(0), SAY)
    tracker.track(frame(1))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
