"""Asking in the background: what a late answer changes, what it leaves, and that no delay gives the plain result."""

import json
import threading
from concurrent.futures import Executor, Future

import numpy as np
import pytest
from scripted_model import ScriptedModel, film, pictures
from test_imat import Squares, imat, moving
from tracks import Track

from trackgpt.arbiter import PurportArbiter, PurportRecord
from trackgpt.config import RethinkConfig
from trackgpt.errors import UsageError
from trackgpt.export.records import read_events, read_tracks
from trackgpt.memory import QueryMemory
from trackgpt.online import Tracker
from trackgpt.session.late import MOST_FRAMES, LateTracker
from trackgpt.session.playback import InstructionTracker
from trackgpt.session.session import Session
from trackgpt.types import Cue, Prediction, Prompt


class Delayed(Executor):
    """Runs a call after so many later ones were asked for by `pass_frame`; at once for a delay of 0."""

    def __init__(self, frames):
        self.frames, self.waiting = frames, []

    def submit(self, call, *args):
        future = Future()
        self.waiting.append([self.frames, future, call, args])
        self._run()
        return future

    def pass_frame(self):
        for each in self.waiting:
            each[0] -= 1
        self._run()

    def _run(self):
        for _, future, call, args in [each for each in self.waiting if each[0] <= 0]:
            future.set_result(call(*args))
        self.waiting = [each for each in self.waiting if each[0] > 0]


@pytest.fixture
def tracker():
    return InstructionTracker(ScriptedModel(), "scripted")


class Slow:
    """A brain that answers when it is let, and eyes whose score is low on frame 2; frames carry their number."""

    def __init__(self):
        self.may_answer, self.reads, self.fails = threading.Event(), [], False
        self.may_answer.set()

    def reason(self, image, state, prompt):
        assert self.may_answer.wait(10)
        self.reads.append(int(image[0, 0, 0]))
        if prompt is None and self.fails:
            raise UsageError("no words")
        queries = np.full((1, 4), self.reads[-1], np.float32)
        return Cue(f"read {self.reads[-1]}", queries, queries)

    def perceive(self, image, state, cued):
        score = np.array([0.1 if image[0, 0, 0] == 2 else 0.9], np.float32)
        box = np.array([[state.cue.referring[0, 0], 0, 100, 100]], np.float32)
        return Prediction(box, np.zeros((1, 4, 4), bool), score, np.ones(1, bool), np.ones(1, np.int64)), state.memory


def background():
    """A slow brain, its late tracker, and a track of it that has begun."""
    parts = Slow()
    arbiter = PurportArbiter(RethinkConfig())
    late = LateTracker(Tracker(parts, parts, arbiter, QueryMemory(), (QueryMemory, PurportRecord)))
    track = Track(late)
    track.look(numbered(0), Prompt("track it"))
    return parts, late, track


def numbered(t):
    return np.full((4, 4, 3), t, np.uint8)


def answered(late):
    """Wait until the brain has answered: its thread then has nothing left to do."""
    late.reading.submit(int).result(timeout=10)


def test_in_the_background_tracking_goes_on_with_the_old_queries_and_an_answer_amends_the_frames_since_the_question():
    parts, late, track = background()
    parts.may_answer.clear()
    used = [track.look(numbered(t)) for t in range(1, 6)]
    assert [(p.boxes[0, 0], p.reason) for p in used] == [(0, "")] * 5
    assert (track.state.record.rethinks, track.state.record.consulted, late.revision) == (0, 0, None)
    parts.may_answer.set()
    answered(late)
    now = track.look(numbered(6))
    assert (now.boxes[0, 0], now.reason) == (3, "")
    amended = [seen for _, seen in late.revision.again]
    assert late.revision.frame == 3
    assert [(p.boxes[0, 0], p.reason) for p in amended] == [(3, "purport"), (3, ""), (3, "")]
    assert (amended[0].verdict, amended[0].cue.text, late.revision.seen) == ("rethink", "read 3", amended[0])
    assert (track.state.record.rethinks, track.state.record.consulted) == (1, 3)
    assert (track.look(numbered(7)).reason, parts.reads, late.revision) == ("", [0, 3], None)
    assert now.ids.tolist() == [1]


def test_while_the_brain_reads_nothing_else_is_asked():
    parts, late, track = background()
    parts.may_answer.clear()
    for t in (1, 2, 3, 2, 2):  # the score of frame 2 is low every time
        assert track.look(numbered(t)).reason == ""
    assert parts.reads == [0]
    parts.may_answer.set()
    answered(late)
    assert parts.reads == [0, 3]
    track.look(numbered(4))  # the frames since are tracked again, and the low score among them asks
    answered(late)
    assert parts.reads == [0, 3, 2]


def test_an_answer_that_takes_longer_than_frames_are_kept_is_given_up_and_named_once():
    parts, late, track = background()
    parts.may_answer.clear()
    missed = []
    for t in (1, 2, *range(3, 3 + MOST_FRAMES + 20)):
        track.look(numbered(t))
        missed.append(late.missed)
    assert [number for number in missed if number >= 0] == [3]
    assert missed[2 + MOST_FRAMES] == 3
    parts.may_answer.set()
    answered(late)
    assert (track.look(numbered(200)).boxes[0, 0], late.revision) == (0, None)


def test_an_answer_about_a_track_that_was_replaced_is_dropped():
    parts, late, track = background()
    parts.may_answer.clear()
    for t in (1, 2, 3):
        track.look(numbered(t))
    parts.may_answer.set()
    answered(late)
    track.look(numbered(4), Prompt("another one", 4, "switch"))
    assert (track.look(numbered(5)).boxes[0, 0], parts.reads) == (4, [0, 3, 4])


def test_an_answer_to_a_question_that_was_rewound_is_dropped():
    parts, late, track = background()
    begun = track.state
    for t in (1, 2, 3):
        track.look(numbered(t))
    answered(late)
    track.state = begun
    assert [(p.reason, p.boxes[0, 0]) for p in (track.look(numbered(1)), track.look(numbered(3)))] == [("", 0)] * 2


def test_what_the_brain_raises_in_the_background_is_raised_where_its_answer_would_have_been_heeded():
    parts, late, track = background()
    parts.fails = True
    track.look(numbered(1))
    track.look(numbered(2))
    with pytest.raises(UsageError, match="no words"):
        _ = [(track.look(numbered(t)), answered(late)) for t in (3, 4)]  # on frame 3 already, if the thread was fast
    assert track.look(numbered(5)).reason == ""


def test_a_session_that_does_not_wait_logs_the_rethink_where_the_answer_comes_and_the_frames_since_in_a_new_take(
    tracker,
):
    with tracker.open(pictures(40, unsure=(2,)), rethink="async") as playback:
        playback.say("the red square")
        revised = {}
        for result in playback:
            revised |= {result.index: [one.index for one in result.revised]} if result.revised else {}
            if result.index != 3:
                answered(playback.session.tracker)
    assert revised in ({5: [3, 4]}, {4: [3]}, {})  # as fast as the thread answers
    events = {e.type: e for e in read_events(playback.run.path)}
    assert events["rethink"].data["reason"] == "purport"
    if revised:
        ((now, (first, *_, last)),) = ((now, [each[0], each[-1]]) for now, each in revised.items())
        assert (events["rethink"].index, events["rethink"].data["about"]) == (now, 3)
        assert (events["revise"].data["first"], events["revise"].data["last"]) == (first, last)
    assert playback.session.rethinks == 1
    assert [record.index for record in read_tracks(playback.run.path)] == list(range(40))
    playback.close()


def test_a_way_of_rethinking_that_does_not_exist_is_named(tracker):
    with pytest.raises(UsageError, match="rethink 'later': choose from auto, off, async"):
        tracker.open(list(pictures(2)), rethink="later")
    with pytest.raises(UsageError, match="rethink False"):
        tracker.session(rethink=False)


def test_rethinking_in_the_background_is_refused_for_files(command, model, tmp_path):
    done = command("track", film(tmp_path / "clip.mp4"), "-i", "a square", "-o", "out", "--rethink", "async")
    assert done.code == 2
    assert "--rethink async is for cameras and streams" in done.err


# --- a tracker that looks first and then asks ---


class Kept:
    """A log in memory: the last record of every frame, and all events."""

    def __init__(self):
        self.records, self.events = {}, []

    def track(self, record):
        self.records[record.index] = record

    def event(self, record):
        self.events.append(record)

    def boxes(self):
        return [[one.box for one in record.objects] for _, record in sorted(self.records.items())]


def session_of(tracker, frames, reading=None):
    """The log of a session that is told of the red one, and what it revised, by the frame on which it did."""
    log, revised = Kept(), {}
    session = Session(tracker if reading is None else LateTracker(tracker, reading), log=log)
    session.say("the red one")
    for frame in frames:
        result = session.step(frame)
        if result.revised:
            revised[result.index] = result.revised
        if reading is not None:
            reading.pass_frame()
    return log, revised, session


def checked(frames_until_right=1):
    """IMAT with a check every four frames, whose grounder takes green for red when it is first asked."""
    return imat(Squares(mistaken=frames_until_right)).tracker(settings=["arbiter.every=4"])


def test_with_no_delay_the_result_is_the_one_of_a_tracker_that_waits_to_the_bit(tmp_path):
    waiting, _, one = session_of(checked(), moving(24, step=1))
    late, revised, other = session_of(checked(), moving(24, step=1), Delayed(0))
    assert [event.type for event in late.events].count("rethink") == 5
    assert [event.to_json() for event in late.events] == [event.to_json() for event in waiting.events]
    assert list(late.records.values()) == list(waiting.records.values())
    one.state.save(tmp_path / "one")
    other.state.save(tmp_path / "other")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert revised == {}


@pytest.mark.parametrize("delay", [1, 2, 3])
def test_an_answer_that_comes_late_leads_to_the_same_boxes_as_one_that_was_waited_for(delay):
    waiting, _, _ = session_of(checked(), moving(24, step=1))
    late, revised, _ = session_of(checked(), moving(24, step=1), Delayed(delay))
    assert late.boxes() == waiting.boxes()
    assert waiting.boxes()[15:17] == [[(60, 40, 72, 52)], [(4, 24, 16, 36)]]  # green, and at the fourth check red
    told = [(e.index, e.data["about"], e.data["verdict"]) for e in late.events if e.type == "rethink"]
    assert told[:4] == [(4 * k + delay, 4 * k, "elsewhere" if k < 4 else "reinit") for k in (1, 2, 3, 4)]
    assert {now: [one.index for one in again] for now, again in revised.items()} == {
        16 + delay: [*range(16, 16 + delay)]
    }
    (event,) = [event for event in late.events if event.type == "revise"]
    assert (event.index, dict(event.data)) == (
        16 + delay,
        {"first": 16, "last": 15 + delay, "reason": "check", "verdict": "reinit"},
    )
    assert [(e.index, e.take, e.data["parent"]) for e in late.events if e.type == "take"] == [(16, 2, 1)]


def test_an_unreadable_frame_among_those_that_are_tracked_again_keeps_its_place():
    frames = moving(24, step=1)
    frames[17] = None
    late, revised, session = session_of(checked(), frames, Delayed(3))
    ((now, again),) = revised.items()
    assert (now, [(one.index, one.problem != "") for one in again]) == (
        19,
        [(16, False), (17, True), (18, False)],
    )
    assert [objects[0] for objects in late.boxes()[16:20]] == [(4, 24, 16, 36), None, (4, 26, 16, 38), (4, 27, 16, 39)]
    assert sorted(late.records) == list(range(24))


def test_what_is_said_while_the_slow_model_reads_is_heeded_at_once_and_its_answer_is_dropped():
    log, reading = Kept(), Delayed(5)
    session = Session(LateTracker(checked(), reading), log=log)
    session.say("the red one")
    for t, frame in enumerate(moving(24, step=1)):
        if t == 6:
            session.say("the green one", kind="switch")
        session.step(frame)
        reading.pass_frame()
    assert "about" not in json.dumps([dict(e.data) for e in log.events if e.index in range(6, 11)])
    assert log.boxes()[6] == [(60, 40, 72, 52)]
    assert [e.data["text"] for e in log.events if e.type == "instruction"] == ["the red one", "the green one"]


def test_masks_written_on_the_way_and_the_log_of_a_camera_show_what_was_amended(tmp_path):
    from trackgpt.app.live import Outputs

    playback = InstructionTracker(imat(Squares(mistaken=1)), "toy").open(moving(24, step=1), out=tmp_path / "run")
    reading = Delayed(3)
    playback.session.tracker = LateTracker(checked(), reading)
    with playback, Outputs(playback, ("davis", "mot")) as outputs:
        playback.say("the red one")
        for result in playback:
            outputs.write(result)
            reading.pass_frame()
    records = list(read_tracks(tmp_path / "run"))
    assert [record.objects[0].box[1] for record in records[14:20]] == [40, 40, 24, 25, 26, 27]
    assert [record.take for record in records[14:18]] == [1, 1, 2, 2]
    assert [event.type for event in read_events(tmp_path / "run") if event.type == "revise"] == ["revise"]
    mot = (tmp_path / "run" / "mot.txt").read_text().splitlines()
    assert float(mot[17].split(",")[3]) == 25.0
    from PIL import Image

    mask = np.array(Image.open(tmp_path / "run" / "masks" / "00017.png"))
    assert np.argwhere(mask).min(axis=0).tolist() == [25, 4]
