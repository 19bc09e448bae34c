"""The public score: a good mask counts for less where the brain was not sure of its words; S_p and its rule stay."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import PAIR, frame, say, square, tiny_brain, tiny_trackgpt

from trackgpt.arbiter import PurportArbiter, PurportRecord
from trackgpt.calibration import public_score
from trackgpt.config import RethinkConfig, ScoreConfig
from trackgpt.errors import ModelError, UsageError
from trackgpt.hub import load_trackgpt
from trackgpt.memory import QueryMemory
from trackgpt.online import follow
from trackgpt.synthtrack.clips import make_case
from trackgpt.systems.trackgpt import BrainReasoner, TrackGPT
from trackgpt.track import TrackState
from trackgpt.types import Cue, Prediction, Prompt, Target, Verdict
from train import score_calibration
from train.assemble import assemble
from train.score_calibration import Observed, fitted

FITTED = ScoreConfig(bias=1.0, purport=0.5, words=1.0)
SAY = Prompt("track it")


def f32(*values):
    return np.array(values, np.float32)


# --- the arithmetic ---


def test_by_default_the_score_is_the_purport_score_to_the_bit():
    purport = f32(0.0, 0.3, 1.0)
    assert public_score(purport, f32(0.1, 0.1, 0.1), ScoreConfig()).tobytes() == purport.tobytes()
    assert public_score(purport, None, FITTED).tobytes() == purport.tobytes()


def test_the_score_is_a_sigmoid_of_bias_logit_and_log_probability():
    # logit(0.5) is 0 and logit(0.8) is ln 4, half of which is ln 2: sigmoid(1 - 1) and sigmoid(1 + ln 2 - 1) = 2/3.
    found = public_score(f32(0.5, 0.8), np.exp(f32(-1, -1)), FITTED)
    assert found.tolist() == pytest.approx([0.5, 2 / 3])
    assert found.dtype == np.float32


def test_the_score_rises_with_the_mask_and_with_the_words_and_stays_between_0_and_1():
    values = np.linspace(0, 1, 21, dtype=np.float32)
    by_mask, by_words = (
        public_score(*pair, FITTED) for pair in ((values, values * 0 + 0.5), (values * 0 + 0.5, values))
    )
    for found in (by_mask, by_words):
        assert (np.diff(found) > 0).all()
        assert 0 < found[0] < found[-1] < 1


# --- the rule of asking again ---


def state(first, last, confidence):
    """A track of one target with this first purport score and this last one."""
    queries = np.zeros((1, 4), np.float32)
    cue = Cue("", queries, queries, confidence=f32(confidence))
    target = Target(1, SAY, score=float(public_score(f32(last), cue.confidence, FITTED)[0]))
    return TrackState(QueryMemory(), PurportRecord(5, np.array([1]), f32(first)), 5, (target,), cue)


@pytest.mark.parametrize("confidence", [1e-9, 0.01, 0.5, 1.0])
def test_algorithm_1_asks_by_the_purport_score_however_sure_the_words_are(confidence):
    rule = PurportArbiter(RethinkConfig(), score=FITTED)
    for first in (0.2, 0.5, 0.9, 1.0):
        for last in (0.49, 0.5, 0.51):  # of the first one
            asked = rule.due(state(first, np.float32(last) * np.float32(first), confidence), None)
            assert bool(asked) == (last < 0.5), (first, last)


def test_a_floor_asks_where_the_public_score_is_low_though_the_purport_score_is_not():
    rule = PurportArbiter(RethinkConfig(floor=0.6, cooldown=2), score=FITTED)
    assert rule.due(state(0.8, 0.8, 1.0), None) == ""
    assert rule.due(state(0.8, 0.8, 0.1), None) == "purport"  # sigmoid(1 + ln 2 + ln 0.1) = 0.35
    low = state(0.8, 0.8, 0.1)
    assert rule.due(replace(low, record=replace(low.record, consulted=3)), None) == ""  # 2 frames ago


def test_the_reference_of_tau_is_a_purport_score():
    before, rule = state(0.8, 0.8, 0.1), PurportArbiter(RethinkConfig(), score=FITTED)
    seen = Prediction(
        np.zeros((1, 4)), None, f32(0.3), np.ones(1, bool), np.array([1]), {"purport": f32(0.7)}, reason="prompt"
    )
    record = rule.after(before, seen, Verdict("start", before.cue))
    assert record.first.tolist() == pytest.approx([0.7])


def test_dropping_a_target_leaves_the_other_its_confidence():
    queries = np.zeros((2, 4), np.float32)
    targets = (Target(1, SAY), Target(2, SAY))
    two = TrackState(
        QueryMemory(queries), PurportRecord(), 5, targets, Cue("", queries, queries, confidence=f32(0.2, 0.9))
    )
    verdict = PurportArbiter(RethinkConfig()).judge(two, None, None, Prompt("", 5, "drop", ids=(1,)))
    assert verdict.cue.confidence.tolist() == pytest.approx([0.9])


# --- the brain's confidence ---


def probabilities(brain, pixels, instruction, answer):
    """Of each of an answer's tokens, by one plain forward of the transformers model over question and answer."""
    prompt = brain.template.prefix() + brain.template.question(instruction)
    with torch.no_grad():
        ids = torch.tensor([prompt + answer])
        logits = brain.llava(input_ids=ids, pixel_values=brain.preprocess(pixels[None])).logits[0]
    return logits.softmax(-1)[torch.arange(len(prompt) - 1, ids.shape[1] - 1), torch.tensor(answer)]


def test_confidence_is_the_probability_of_the_words_that_name_each_target():
    brain = tiny_brain()
    answer = brain.reason(square(brain), "track both", forced=PAIR)
    each = probabilities(brain, square(brain), "track both", answer.ids)
    starts = [k for k, token in enumerate(answer.ids) if token == brain.template.track_id]
    ends = [k for k, token in enumerate(answer.ids) if token == brain.template.purport_id]
    wanted = [each[: starts[0]].prod(), each[ends[0] + 1 : starts[1]].prod()]
    assert answer.confidence.tolist() == pytest.approx([float(value) for value in wanted], rel=1e-3)
    assert min(wanted) > 0


def test_nanos_confidence_is_the_same_with_a_draft_without_and_beside_other_questions():
    brain = load_trackgpt("nano", "cpu").brain
    pixels = BrainReasoner(brain).square(make_case(8, frames=1, longest=160).clip.frames[0])
    text = "track everything in the picture"
    usual, plain = brain.reason(pixels, text), brain.reason(pixels, text, draft="")
    beside = brain.reason_many(pixels, ["the red one", text])[1]
    each = probabilities(brain, pixels, text, usual.ids)
    first = usual.ids.index(brain.template.track_id)
    for answer in (usual, plain, beside):
        assert answer.ids == usual.ids
        assert len(answer.confidence) == len(answer.referring) >= 1
        assert float(answer.confidence[0]) == pytest.approx(float(each[:first].prod()), rel=1e-3)
        assert answer.confidence.tolist() == pytest.approx(usual.confidence.tolist(), rel=1e-3)


def test_an_answer_that_names_nothing_has_no_confidence():
    brain = tiny_brain()
    say(brain, "no such thing")
    assert brain.reason(square(brain), "track the dog").confidence.shape == (0,)


# --- the system ---


def test_calibration_changes_scores_and_neither_masks_nor_purport_scores():
    model = tiny_trackgpt()
    say(model.brain, PAIR)
    frames, said = [frame(k) for k in range(3)], [Prompt("track both")]
    plain = list(follow(model.tracker(), frames, said))
    model.config.score = FITTED
    sure = list(follow(model.tracker(), frames, said))
    for one, other in zip(plain, sure, strict=True):
        assert np.array_equal(one.masks, other.masks)
        assert one.own_scores["purport"].tobytes() == other.own_scores["purport"].tobytes() == one.scores.tobytes()
        confidence = other.own_scores["confidence"]
        assert other.scores.tobytes() == public_score(one.scores, confidence, FITTED).tobytes()


# --- fitting ---


def test_fitting_finds_the_weights_that_made_the_data():
    rng = np.random.default_rng(0)
    purport, confidence = rng.uniform(0.05, 0.95, 4000), rng.uniform(0.02, 1, 4000)
    iou = public_score(purport.astype(np.float32), confidence, ScoreConfig(0.8, 0.6, 1.2))
    found = fitted(Observed(purport, confidence, iou, np.ones(4000)))
    assert (found.bias, found.purport, found.words) == pytest.approx((0.8, 0.6, 1.2), abs=0.05)


def test_scores_that_say_the_opposite_are_refused():
    purport = np.linspace(0.1, 0.9, 50)
    with pytest.raises(UsageError, match=r"purport -.*wanted more than 0"):
        fitted(Observed(purport, np.ones(50), 1 - purport, np.ones(50)))
    with pytest.raises(UsageError, match="the model followed nothing"):
        fitted(Observed(*np.zeros((4, 0))))


def test_a_model_that_is_trained_further_forgets_what_its_scores_were_worth(tmp_path):
    model = tiny_trackgpt()
    model.config.score = FITTED
    model.save_pretrained(tmp_path / "fitted")
    assert TrackGPT.from_pretrained(tmp_path / "fitted").config.score == FITTED
    assert assemble(str(tmp_path / "fitted"), "", False, 0).config.score == ScoreConfig()


def test_a_video_gives_every_target_of_every_frame_and_frames_count_alike():
    model = tiny_trackgpt()
    say(model.brain, PAIR)
    rows = score_calibration.observed(model, 777_778, 1)
    assert len(rows.iou) == 3 * 36 * 2  # an explicit, an implicit and a several-target instruction, two targets each
    assert rows.share.sum() == pytest.approx(3 * 36)
    assert (rows.iou[::2] == rows.iou[1::2]).all()  # the IoU is that of both together
    assert 0 <= rows.iou.min() < rows.iou.max() <= 1


def test_the_command_writes_the_config_alone(tmp_path, monkeypatch):
    tiny_trackgpt().save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    purport = np.linspace(0.05, 0.95, 200)
    told = Observed(purport, np.full(200, 0.5), purport, np.ones(200))
    monkeypatch.setattr(score_calibration, "observed", lambda model, seed, videos: told)
    score_calibration.main(tmp_path, videos=7)
    after = TrackGPT.from_pretrained(tmp_path).config.score
    assert after == replace(fitted(told), fitted_on="SynthTrack, train split, seed 777778, 7 videos")
    assert after.purport > 0.5
    changed = {path.name for path in tmp_path.iterdir() if path.read_bytes() != before[path.name]}
    assert changed == {"config.json"}


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="MD01"):
        score_calibration.main(tmp_path)
