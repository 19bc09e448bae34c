"""Sessions: what is said when, what is recorded where, going back, and that every way in gives the same run."""

import gc
import json
import os
import re
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scripted_model import HEIGHT, WIDTH, ScriptedModel, film, picture, pictures
from scripted_model import folder as save_folder
from tiny_models import frame as patches
from tiny_models import tiny_trackgpt

import trackgpt
from trackgpt.config import RethinkConfig
from trackgpt.errors import InputError, OutputError, UsageError
from trackgpt.export.records import RunFolder, Take, events_of_take, read_events, read_takes, read_tracks
from trackgpt.session.ahead import Lookahead
from trackgpt.session.playback import InstructionTracker
from trackgpt.session.results import Reply
from trackgpt.session.session import Session
from trackgpt.track import TrackState
from trackgpt.video.source import open_source


@pytest.fixture
def tracker():
    return InstructionTracker(ScriptedModel(), "scripted")


@pytest.fixture(scope="module")
def tiny(tiny):
    """The small real model, loaded."""
    return trackgpt.load(tiny, device="cpu")


def follow(playback, text="the red square", **when):
    """Say one thing and track to the end."""
    with playback:
        playback.say(text, **when)
        return list(playback)


def kinds(run):
    """The events of a run as (frame, type)."""
    return [(event.index, event.type) for event in read_events(run)]


def lines(playback):
    return (playback.run.path / "tracks.jsonl").read_bytes()


def described(run):
    return json.loads((Path(run) / "run.json").read_text())


# --- saying and watching ---


def test_a_reply_has_the_answer_and_the_targets_on_the_next_frame(tracker):
    with tracker.open(list(pictures())) as playback:
        reply = playback.say("the red square and the green square")
        playback.close()
    assert reply.text == "You said: the red square and the green square"
    assert [(o.id, o.box, o.state) for o in reply.objects] == [
        (1, (8, 24, 24, 40), "tracked"),
        (2, (72, 48, 88, 64), "tracked"),
    ]
    assert reply.objects[0].mask.sum() == 16 * 16


def test_one_result_a_frame_with_index_time_boxes_and_the_frame_itself(tracker):
    results = follow(tracker.open(list(pictures(4)), fps=10))
    assert [r.index for r in results] == [0, 1, 2, 3]
    assert [r.time for r in results] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert [r.objects[0].box for r in results] == [(8 + 4 * i, 24, 24 + 4 * i, 40) for i in range(4)]
    assert all(np.array_equal(r.frame, picture(r.index)) for r in results)
    assert results[0].objects[0].score == pytest.approx(0.9)
    assert results[0].objects[0].own_scores == {"purport": pytest.approx(0.9)}


def test_a_low_score_is_suspect_and_the_next_frame_is_rethought_with_old_and_new_score(tracker):
    playback = tracker.open(list(pictures(6, unsure=(2,))))
    results = follow(playback)
    assert [r.objects[0].state for r in results] == ["tracked", "tracked", "suspect", "tracked", "tracked", "tracked"]
    rethink = next(e for e in results[3].events if e.type == "rethink")
    scores = {"old": [0.2], "new": [0.9], "threshold": [0.45]}
    assert rethink.data == {"reason": "purport", "verdict": "rethink", **scores}
    assert playback.session.rethinks == 1
    playback.close()


def test_without_rethinking_the_brain_is_asked_once(tracker):
    playback = tracker.open(list(pictures(6, unsure=(2, 3))), rethink="off")
    follow(playback)
    assert (playback.session.rethinks, tracker.model.heard) == (0, ["the red square"])
    playback.close()


def test_leaving_and_returning_are_events_and_the_identity_stays(tracker):
    playback = tracker.open(list(pictures(6, hidden=(2, 3))))
    results = follow(playback)
    assert [o.state for r in results for o in r.objects] == ["tracked"] * 2 + ["absent"] * 2 + ["tracked"] * 2
    assert results[2].objects[0].box is None
    assert not results[2].objects[0].mask.any()
    assert [(i, kind) for i, kind in kinds(playback.run.path) if kind in ("lost", "found")] == [
        (2, "lost"),
        (4, "found"),
    ]
    assert {o.id for r in results for o in r.objects} == {1}
    playback.close()


def test_an_answer_without_targets_is_searched_on_and_then_found(tracker):
    brain = tracker.model
    playback = tracker.open(list(pictures(10)))
    with playback:
        assert playback.say("the zebra").objects == ()
        original, said = brain.reason, trackgpt.Prompt("the square")
        brain.reason = lambda frame, state, prompt: original(frame, state, said)
        results = list(playback)
    # `search_every` is 8: frame 8 is the first on which the brain is asked again.
    assert [len(r.objects) for r in results] == [0] * 8 + [1, 1]
    assert [e.type for e in results[8].events] == ["rethink", "answer", "found"]
    assert playback.session.found
    playback.close()


def test_nothing_found_on_any_frame_is_in_the_log(tracker):
    playback = tracker.open(list(pictures(3)))
    follow(playback, "the zebra")
    *_, error, done = read_events(playback.run.path)
    assert not playback.session.found
    assert (error.type, error.data["code"]) == ("error", "NL05")
    assert error.data["text"] == "nothing matched 'the zebra' on any of 3 frames"
    assert (done.type, done.data["frames"]) == ("done", 3)
    playback.close()


def test_saying_something_while_iterating_changes_the_target_at_the_next_frame(tracker):
    with tracker.open(list(pictures(5))) as playback:
        playback.say("a square")
        results = []
        for result in playback:
            results.append(result)
            if result.index == 1:
                assert playback.say("the square and the square").text.startswith("You said")
    assert [[o.id for o in r.objects] for r in results] == [[1], [1], [2, 3], [2, 3], [2, 3]]
    assert [e.type for e in results[2].events] == ["instruction", "answer"]
    assert [p.kind for p in playback.session.prompts] == ["start", "switch"]
    playback.close()


def test_a_later_instruction_is_heard_at_its_frame_with_new_identities(tracker):
    playback = tracker.open(list(pictures(6)))
    with playback:
        playback.say("a square")
        assert playback.say("a square and a square", frame=3).text == ""
        results = list(playback)
    assert [[o.id for o in r.objects] for r in results] == [[1]] * 3 + [[2, 3]] * 3
    said = [(i, kind) for i, kind in kinds(playback.run.path) if kind in ("instruction", "answer")]
    assert said == [(0, "instruction"), (0, "answer"), (3, "instruction"), (3, "answer")]
    playback.close()


def test_a_second_means_the_first_frame_that_is_not_before_it(tracker):
    for second, frame in ((0.25, 3), (0.26, 4), (0.0, 0)):
        playback = tracker.open(list(pictures(6)), fps=12)
        follow(playback, second=second)
        assert [p.frame for p in playback.session.prompts] == [frame]
        playback.close()


def test_a_stride_that_leaves_the_wanted_frame_out_gives_the_next_one(tracker):
    playback = tracker.open(list(pictures(9)), stride=4)
    results = follow(playback, frame=3)
    assert [(r.index, len(r.objects)) for r in results] == [(0, 0), (4, 1), (8, 1)]
    playback.close()


def test_frames_before_the_first_instruction_are_recorded_without_objects(tracker):
    playback = tracker.open(list(pictures(5)))
    follow(playback, frame=3)
    assert [len(record.objects) for record in read_tracks(playback.run.path)] == [0, 0, 0, 1, 1]
    assert kinds(playback.run.path)[:2] == [(0, "start"), (3, "instruction")]
    playback.close()


def test_an_instruction_behind_the_end_is_a_warning(tracker):
    playback = tracker.open(list(pictures(3)))
    with playback:
        playback.say("a square")
        playback.say("never", frame=50)
        list(playback)
    warning = next(e for e in read_events(playback.run.path) if e.type == "warn")
    assert warning.data["text"] == "the source ended before frame 50, so 'never' was never read"
    assert playback.session.warnings == 1
    playback.close()


def test_a_frame_that_has_passed_cannot_be_spoken_about(tracker):
    with tracker.open(list(pictures(4))) as playback:
        playback.say("a square")
        for result in playback:
            if result.index == 2:
                with pytest.raises(UsageError, match="frame 2 has passed"):
                    playback.say("a square", frame=2)
                with pytest.raises(UsageError, match="second 0 has passed"):
                    playback.say("a square", second=0.0)
                with pytest.raises(UsageError, match="two moments"):
                    playback.say("a square", frame=3, second=0.1)
            if result.index == 3:
                with pytest.raises(UsageError, match="no frame left"):
                    playback.say("a square")
    playback.close()


def test_iterating_before_anything_is_said_is_refused_with_an_example(tracker):
    playback = tracker.open(list(pictures(2)))
    with pytest.raises(UsageError, match=r"playback.say\('the red car'\)"):
        next(iter(playback))
    playback.close()


def test_an_empty_instruction_is_refused_and_the_session_goes_on(tracker):
    playback = tracker.open(list(pictures(2)))
    with playback:
        with pytest.raises(UsageError, match="NL01"):
            playback.say("  <TK> ")
        playback.say("a square")
        assert len(list(playback)) == 2
    playback.close()


def test_a_break_can_be_followed_by_more_iterating_and_the_end_is_recorded_once(tracker):
    playback = tracker.open(list(pictures(5)))
    with playback:
        playback.say("a square")
        for result in playback:
            if result.index == 1:
                break
        assert [r.index for r in playback] == [2, 3, 4]
        assert list(playback) == []
    assert [kind for _, kind in kinds(playback.run.path)].count("done") == 1
    playback.close()


def test_every_event_reaches_the_listener_in_order(tracker):
    heard = []
    playback = tracker.open(list(pictures(4, unsure=(1,))))
    playback.on_event = heard.append
    follow(playback)
    assert heard == list(read_events(playback.run.path))
    playback.close()


# --- odd frames ---


def test_an_unreadable_frame_keeps_its_place_and_the_track_goes_on(tracker):
    frames = [*pictures(3), None, picture(4)]
    playback = tracker.open(frames)
    results = follow(playback)
    assert [r.index for r in results] == [0, 1, 2, 3, 4]
    assert (results[3].frame, results[3].prediction) == (None, None)
    assert [(o.id, o.box, o.state) for o in results[3].objects] == [(1, None, "absent")]
    assert results[4].objects[0].box == (24, 24, 40, 40)
    record = list(read_tracks(playback.run.path))[3]
    assert (record.problem, record.size) == ("the array source gave no image", (HEIGHT, WIDTH))
    assert [e.data["code"] for e in results[3].events] == ["IN03"]
    playback.close()


def test_unreadable_frames_at_the_beginning_are_recorded_and_the_reply_is_about_the_first_readable_one(tracker):
    playback = tracker.open([None, None, picture(2), picture(3)])
    with playback:
        reply = playback.say("the red square")
        results = list(playback)
    assert reply.objects[0].box == (16, 24, 32, 40)
    assert [(r.index, len(r.objects)) for r in results] == [(0, 0), (1, 0), (2, 1), (3, 1)]
    order = kinds(playback.run.path)
    assert order == sorted(order, key=lambda event: event[0])
    playback.close()


def test_a_planned_instruction_waits_for_a_readable_frame(tracker):
    playback = tracker.open([picture(0), None, picture(2)])
    results = follow(playback, frame=1)
    assert [len(r.objects) for r in results] == [0, 0, 1]
    playback.close()


def test_a_change_of_frame_size_is_a_warning_and_every_record_has_its_own_size(tracker):
    frames = [picture(0), picture(1), np.ascontiguousarray(picture(2)[:60, :80])]
    playback = tracker.open(frames)
    results = follow(playback)
    assert [record.size for record in read_tracks(playback.run.path)] == [(72, 96), (72, 96), (60, 80)]
    warning = next(e for e in results[2].events if e.type == "warn")
    assert warning.data == {"code": "IN05", "text": "frame 2: size changed 96x72 -> 80x60"}
    playback.close()


# --- the same from everywhere ---


def test_a_real_model_gives_equal_logs_from_file_folder_and_arrays_and_twice(tiny, tmp_path):
    clip = film(tmp_path / "clip.mp4", 6)
    with open_source(clip) as source:
        decoded = [frame.image for frame in source]
    frames = tmp_path / "frames"
    frames.mkdir()
    for index, image in enumerate(decoded):
        Image.fromarray(image).save(frames / f"{index:05d}.png")
    logs = []
    for source in (clip, frames, decoded, iter(decoded), clip):
        playback = tiny.open(source, fps=12)
        results = follow(playback)
        logs.append(lines(playback))
        playback.close()
    assert any(o.box is not None for r in results for o in r.objects)
    assert logs[1].count(b',"name":"0000') == 6  # the folder's frames have files of their own, and nothing else differs
    logs[1] = re.sub(rb',"name":"\d{5}.png"', b"", logs[1])
    assert logs == [logs[0]] * 5


def test_a_snapshot_continues_exactly_in_another_session_and_through_a_file(tiny, tmp_path):
    frames = list(pictures(8))
    playback = tiny.open(frames)
    whole, state = [], None
    with playback:
        playback.say("the red square")
        for result in playback:
            whole.append(result.objects)
            if result.index == 3:
                playback.snapshot().save(tmp_path / "track.safetensors")
                state = playback.snapshot()
    playback.close()
    kinds = tiny.model.tracker().kinds
    for kept in (state, TrackState.load(tmp_path / "track.safetensors", kinds)):
        playback = tiny.open(frames, start=4)
        with playback:
            playback.restore(kept)
            assert [r.objects for r in playback] == whole[4:]
        assert playback.session.prompts[0].text == "the red square"
        playback.close()


def test_restoring_in_the_same_session_rewinds_the_track(tiny):
    same = [picture(0)] * 6
    with tiny.open(same) as playback:
        playback.say("the red square")
        results = iter(playback)
        next(results)
        state = playback.snapshot()
        first = [next(results).objects for _ in range(2)]
        playback.restore(state)
        assert [next(results).objects for _ in range(2)] == first
    playback.close()


def test_restoring_takes_back_what_was_said_about_the_next_frame(tracker):
    with tracker.open(list(pictures(4))) as playback:
        playback.say("a square")
        results = iter(playback)
        next(results)
        state = playback.snapshot()
        playback.say("a square and a square")
        playback.restore(state)
        assert [o.id for o in next(results).objects] == [1]
    playback.close()


def test_no_snapshot_between_an_instruction_and_its_frame(tracker):
    with tracker.open(list(pictures(3))) as playback:
        playback.say("a square")
        with pytest.raises(UsageError, match="take the snapshot after that frame"):
            playback.snapshot()
    playback.close()


def test_sessions_of_one_tracker_do_not_know_of_each_other(tiny):
    def fresh():
        playback = tiny.open(list(pictures(4)))
        follow(playback)
        log = lines(playback)
        playback.close()
        return log

    first = fresh()
    with tiny.open(list(pictures(6))) as other:
        other.say("something else")
        next(iter(other))
        assert fresh() == first
    other.close()


def test_frames_are_not_kept(tracker):
    made = []

    def endless():
        for index in range(200):
            frame = picture(index)
            made.append(weakref.ref(frame))
            yield frame

    with tracker.open(endless()) as playback:
        playback.say("the red square")
        most = 0
        for _ in playback:
            most = max(most, sum(frame() is not None for frame in made))
    playback.close()
    # The frame of the result at hand and the one being read.
    assert most <= 3


# --- folders ---


def test_a_session_without_a_folder_leaves_nothing_behind_when_closed_early(tracker, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    playback = tracker.open(list(pictures(5)))
    playback.say("a square")
    next(iter(playback))
    assert len(os.listdir(tmp_path)) == 1
    playback.close()
    playback.close()
    assert os.listdir(tmp_path) == []


def test_a_forgotten_session_takes_its_temporary_folder_with_it(tracker, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    playback = tracker.open(list(pictures(2)))
    follow(playback)
    assert len(os.listdir(tmp_path)) == 1
    del playback
    gc.collect()
    assert os.listdir(tmp_path) == []


def test_a_missing_source_makes_no_folder(tracker, tmp_path):
    with pytest.raises(InputError, match="IN01"):
        tracker.open(tmp_path / "no.mp4", out=tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_a_folder_in_use_is_refused_and_the_source_let_go(tracker, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    closed = []
    source = open_source(list(pictures(2)))
    source.close = lambda: closed.append(True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trackgpt.session.playback.open_source", lambda *_, **__: source)
        with pytest.raises(OutputError, match="OUT01"):
            tracker.open("x", out=tmp_path)
    assert closed == [True]
    assert os.listdir(tmp_path) == ["note.txt"]


def test_a_run_written_from_python_says_what_ran_on_what(tracker, tmp_path):
    clip = film(tmp_path / "clip.mp4", 3)
    follow(tracker.open(clip, out=tmp_path / "out"))
    facts = described(tmp_path / "out")
    assert facts["source"]["name"] == "clip.mp4"
    assert facts["source"]["size"] == [HEIGHT, WIDTH]
    assert len(facts["source"]["sha256"]) == 64
    assert facts["model"]["name"] == "scripted"
    assert facts["model"]["config"]["rethink"]["ratio"] == 0.5
    assert facts["versions"]["torch"]


def test_export_writes_every_format_after_the_session(tracker, tmp_path):
    clip = film(tmp_path / "clip.mp4", 4)
    playback = tracker.open(clip)
    follow(playback)
    made = playback.export(tmp_path / "out", ["mp4", "davis", "coco", "mot", "timeline", "jsonl"])
    assert sorted(os.listdir(tmp_path / "out")) == [
        "coco.json",
        "events.jsonl",
        "masks",
        "mot.txt",
        "run.json",
        "timeline.png",
        "tracks.jsonl",
        "video.mp4",
    ]
    with open_source(made["mp4"]) as video:
        assert [frame.time for frame in video] == pytest.approx([i / 12 for i in range(4)])
    assert lines(playback) == (tmp_path / "out" / "tracks.jsonl").read_bytes()
    with pytest.raises(OutputError, match="OUT01"):
        playback.export(tmp_path / "out")
    playback.export(tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "video.mp4").exists()
    playback.close()


def test_mp4_from_frames_that_can_be_read_only_once_is_refused_before_anything_is_written(tracker, tmp_path):
    playback = tracker.open(pictures(3))
    follow(playback)
    with pytest.raises(UsageError, match="read only once"):
        playback.export(tmp_path / "out", ["mot", "mp4"])
    assert os.listdir(tmp_path) == []
    playback.export(tmp_path / "out", ["mot"])
    playback.close()


def test_an_unknown_format_is_refused_before_anything_is_written(tracker, tmp_path):
    playback = tracker.open(list(pictures(2)))
    follow(playback)
    with pytest.raises(UsageError, match="did you mean coco"):
        playback.export(tmp_path / "out", ["mot", "koco"])
    assert os.listdir(tmp_path) == []
    playback.close()


def test_a_package_that_is_not_installed_is_said_so_in_run_json(tracker, tmp_path, monkeypatch):
    monkeypatch.setattr("trackgpt.session.playback.PACKAGES", ("numpy", "no-such-package"))
    with tracker.open(list(pictures(2)), out=tmp_path / "out") as playback:
        playback.describe(note="x")
    facts = described(tmp_path / "out")
    assert facts["versions"]["no-such-package"] == "not installed"
    assert facts["note"] == "x"


def test_mp4_from_a_list_or_one_array_of_frames_is_drawn(tracker, tmp_path):
    for name, frames in (("list", list(pictures(3))), ("array", np.stack(list(pictures(3))))):
        playback = tracker.open(frames)
        follow(playback)
        playback.export(tmp_path / name, ["mp4"])
        assert (tmp_path / name / "video.mp4").stat().st_size > 1000
        playback.close()


def test_export_after_closing_says_what_to_do(tracker, tmp_path):
    playback = tracker.open(list(pictures(2)))
    follow(playback)
    playback.close()
    with pytest.raises(UsageError, match="open the source with out="):
        playback.export(tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_an_error_in_the_block_is_the_last_event_and_the_log_stays_readable(tracker, tmp_path):
    playback = tracker.open(save_folder(tmp_path / "frames", 4), out=tmp_path / "out")

    def stumble():
        with playback:
            playback.say("a square")
            for result in playback:
                if result.index == 2:
                    raise LookupError("no such shelf")

    with pytest.raises(LookupError):
        stumble()
    assert len(list(read_tracks(tmp_path / "out"))) == 3
    assert list(read_events(tmp_path / "out"))[-1].data == {"text": "no such shelf"}


# --- the push core ---


def pushed(tracker, count=3, text="the red square", log=None, **odd):
    """A session that was told something and given the first frames, and their results."""
    session = Session(tracker.stepping("auto"), tracker.check, log)
    session.say(text)
    return session, [session.step(image) for image in pictures(count, **odd)]


def test_what_is_said_is_answered_in_the_events_of_the_next_frame(tracker):
    session = tracker.session()
    assert session.say("the red square") == Reply()
    result = session.step(picture(0))
    assert [(e.type, e.data.get("text")) for e in result.events] == [
        ("instruction", "the red square"),
        ("answer", "You said: the red square"),
    ]
    assert (result.objects[0].id, result.objects[0].box) == (1, (8, 24, 24, 40))
    assert [session.step(picture(t)).index for t in (1, 2)] == [1, 2]
    assert (session.frames, session.found, session.last.index) == (3, True, 2)


def test_a_session_without_a_word_records_frames_without_objects(tracker):
    session = tracker.session()
    result = session.step(picture(0))
    assert (result.objects, result.prediction, result.record.size) == ((), None, (HEIGHT, WIDTH))
    session.say("the red square")
    assert len(session.step(picture(1)).objects) == 1
    assert tracker.model.heard == ["the red square"]


def test_pushed_frames_give_the_log_of_a_source(tracker, tmp_path):
    frames = list(pictures(6, unsure=(2,), hidden=(4,)))
    with RunFolder(tmp_path / "pushed") as log:
        pushed(tracker, 6, log=log, unsure=(2,), hidden=(4,))
    follow(tracker.open(frames, fps=24, out=tmp_path / "read"))
    one, other = (list(read_tracks(tmp_path / name)) for name in ("pushed", "read"))
    assert one == other
    one, other = ([(e.index, e.type, e.id, e.data) for e in read_events(tmp_path / n)] for n in ("pushed", "read"))
    assert one == [event for event in other if event[1] not in ("start", "done")]


def test_events_are_given_once(tracker):
    session, _ = pushed(tracker, 3)
    assert [event.type for event in session.events()] == ["instruction", "answer"]
    assert session.events() == []
    session.step(picture(3, red=False))
    assert [(event.type, event.index) for event in session.events()] == [("lost", 3)]


def test_only_the_last_thousand_events_wait(tracker):
    session = tracker.session()
    for number in range(1005):
        session.warn("", None, str(number))
    heard = session.events()
    assert [heard[0].data["text"], heard[-1].data["text"], len(heard)] == ["5", "1004", 1000]
    assert session.warnings == 1005


def test_a_frame_that_is_none_keeps_its_place(tracker):
    session, _ = pushed(tracker, 2)
    result = session.step(None)
    assert (result.index, result.objects[0].state, result.problem) == (2, "absent", "no image was given")
    assert session.step(picture(3)).objects[0].box == (20, 24, 36, 40)
    assert session.warnings == 1


def test_frames_have_the_numbers_and_times_that_are_given_with_them(tracker):
    session = tracker.session()
    session.say("the red square")
    assert [session.step(picture(0), index=10, time=2.5).time, session.step(picture(1)).index] == [2.5, 11]
    assert session.step(picture(1), index=24).time == 1.0


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)])
def test_what_is_no_rgb_image_is_refused_and_the_session_goes_on(tracker, image):
    session, _ = pushed(tracker, 2)
    with pytest.raises(UsageError, match=r"wanted uint8 \(height, width, 3\) RGB"):
        session.step(image)
    assert session.step(picture(2)).index == 2


def test_what_the_system_cannot_do_is_refused_and_the_session_goes_on(tracker):
    for how in ({"kind": "add"}, {"box": (0, 0, 5, 5)}, {"points": [(1, 1, 1)]}):
        session, _ = pushed(tracker, 2)
        with pytest.raises(UsageError, match="TrackGPT"):
            session.say("a square", **how)
        assert [o.id for o in session.step(picture(2)).objects] == [1]
        assert [prompt.text for prompt in session.prompts] == ["the red square"]
    session = tracker.session()
    with pytest.raises(UsageError, match="NL01"):
        session.say("  ", kind="correct")
    with pytest.raises(UsageError, match=r"instruction is int; wanted text or a Prompt; targets are ids=\[2, 3\]"):
        session.say(99)


def test_a_target_is_dropped_and_taken_up_again_by_its_number(tracker):
    session, _ = pushed(tracker, 2, "the red square and the green square")
    with pytest.raises(UsageError, match=r"drop \[99\]: tracked are \[1, 2\]"):
        session.drop(99)
    session.drop(2)
    assert [o.id for o in session.step(picture(2)).objects] == [1]


def test_a_correction_keeps_the_identity_and_a_switch_does_not(tracker):
    session, _ = pushed(tracker, 2)
    session.say("no, that square", kind="correct")
    assert [o.id for o in session.step(picture(2)).objects] == [1]
    session.say("another square")
    assert [o.id for o in session.step(picture(3)).objects] == [2]
    assert [prompt.kind for prompt in session.prompts] == ["start", "correct", "switch"]


def test_dropping_one_of_two_shows_the_other_and_dropping_all_shows_none(tracker):
    session, _ = pushed(tracker, 2, "the red square and the green square")
    session.say(kind="drop", ids=[1])
    result = session.step(picture(2))
    assert [(o.id, o.box) for o in result.objects] == [(2, (72, 48, 88, 64))]
    session.say(kind="drop")
    assert [session.step(picture(t)).objects for t in (3, 4)] == [(), ()]
    assert len(tracker.model.heard) == 1


def test_dropping_two_of_two_at_once_shows_none(tracker):
    session, _ = pushed(tracker, 2, "the red square and the green square")
    session.say(kind="drop")
    assert [session.step(picture(t)).objects for t in (2, 3)] == [(), ()]


# --- taking back ---


def test_an_instruction_that_no_frame_has_heard_is_taken_back_without_a_trace(tracker):
    session, _ = pushed(tracker, 2)
    session.say("a square and a square")
    assert session.undo().prompt.text == "a square and a square"
    assert [o.id for o in session.step(picture(2)).objects] == [1]
    assert (session.takes, len(session.prompts)) == ((Take(1),), 1)


def test_with_nothing_said_there_is_nothing_to_take_back(tracker):
    session = tracker.session()
    with pytest.raises(UsageError, match="nothing has been said here that could be taken back"):
        session.undo()
    session, _ = pushed(tracker, 2)
    session.undo()
    with pytest.raises(UsageError, match="nothing has been said"):
        session.undo()
    with tracker.open(list(pictures(2))) as playback, pytest.raises(UsageError, match="nothing has been said"):
        playback.undo()


@pytest.fixture(scope="module")
def restless():
    """A small real model that finds every score low and asks its brain again on every fourth frame."""
    model = tiny_trackgpt("conv", "conv", tied=True, answer="forced").fold()
    model.config.rethink = RethinkConfig(ratio=2.0, cooldown=3)
    model.config.min_area = 0.0
    return InstructionTracker(model, "restless")


def shown(result):
    """What a result says of its frame, to the bit of the log and of the scores."""
    scores = () if result.prediction is None else result.prediction.scores.tolist()
    return result.index, result.objects, scores


def test_what_was_taken_back_leaves_no_trace_in_what_follows(restless, tmp_path):
    straight = restless.session()
    straight.say("the red square")
    wanted = [shown(straight.step(patches(t))) for t in range(10)]
    with RunFolder(tmp_path / "run") as log:
        session = Session(restless.stepping("auto"), restless.check, log)
        session.say("the red square")
        first = [shown(session.step(patches(t))) for t in range(4)]
        before = session.snapshot()
        session.say("the other one", kind="correct")
        corrected = [shown(session.step(patches(t))) for t in (4, 5)]
        assert session.undo().prompt.text == "the other one"
        assert session.state is before
        again = [shown(session.step(patches(t), index=t)) for t in range(4, 10)]
    assert first + again == wanted
    assert corrected != wanted[4:6]
    assert session.takes == tuple(read_takes(tmp_path / "run")) == (Take(1), Take(2, 1, 4))
    assert [r.index for r in read_tracks(tmp_path / "run", take=1)] == [0, 1, 2, 3, 4, 5]
    assert [(r.index, r.take) for r in read_tracks(tmp_path / "run")] == [(t, 1 if t < 4 else 2) for t in range(10)]
    assert [e.type for e in read_events(tmp_path / "run") if e.type in ("undo", "take")] == ["undo", "take"]
    assert "the other one" not in str(list(events_of_take(tmp_path / "run")))
    assert "the other one" in str(list(events_of_take(tmp_path / "run", 1)))


def test_instructions_are_taken_back_one_by_one(tracker):
    session, _ = pushed(tracker, 2)
    for text in ("a square and a square", "three square square square"):
        session.say(text)
        session.step(picture(2))
    assert [session.undo().prompt.text[:5] for _ in range(2)] == ["three", "a squ"]
    result = session.step(picture(3))
    assert [o.id for o in result.objects] == [1]
    assert session.takes == (Take(1), Take(2, 1, 4))


def test_taking_back_in_a_playback_goes_back_to_the_frame_it_was_about(restless):
    frames = [patches(t) for t in range(8)]
    straight = restless.open(frames)
    wanted = [shown(result) for result in follow(straight)]
    with restless.open(frames) as playback:
        playback.say("the red square")
        playback.say("something else", frame=3)
        results = [shown(result) for result in playback]
        assert results[:3] == wanted[:3]
        assert [objects[0].id for _, objects, _ in results] == [1] * 3 + [2] * 5
        assert playback.undo() == "something else"
        assert [shown(result) for result in playback] == wanted[3:]
    log = [record.objects for record in read_tracks(playback.run.path)]
    assert log == [record.objects for record in read_tracks(straight.run.path)]
    assert [(t.number, t.parent, t.start) for t in read_takes(playback.run.path)] == [(1, 0, 0), (2, 1, 3)]
    playback.close()
    straight.close()


def test_an_instruction_about_the_frame_at_hand_is_taken_back_before_it_is_recorded(tracker):
    with tracker.open(list(pictures(4))) as playback:
        playback.say("a square")
        results = iter(playback)
        next(results)
        playback.say("a square and a square")
        assert playback.undo() == "a square and a square"
        assert [[o.id for o in result.objects] for result in results] == [[1]] * 3
    assert read_takes(playback.run.path) == [Take(1)]
    playback.close()


def test_taking_back_goes_on_with_the_next_frame_where_there_is_no_way_back(tracker):
    with tracker.open(pictures(6)) as playback:
        playback.say("a square")
        playback.say("a square and a square", frame=2)
        results = iter(playback)
        seen = [[o.id for o in next(results).objects] for _ in range(4)]
        playback.undo()
        seen += [[o.id for o in result.objects] for result in results]
    assert seen == [[1], [1], [2, 3], [2, 3], [1], [1]]
    assert read_takes(playback.run.path) == [Take(1), Take(2, 1, 4)]
    playback.close()


# --- going back ---


@pytest.mark.parametrize("lookahead", [Lookahead(), Lookahead(1, 3)], ids=str)
def test_going_back_gives_the_same_frames_the_same_results(restless, tmp_path, lookahead):
    frames = tmp_path / "frames"
    frames.mkdir()
    for t in range(12):
        Image.fromarray(patches(t)).save(frames / f"{t:05d}.png")
    with restless.open(frames, lookahead=lookahead) as playback:
        playback.say("the red square")
        playback.say("the other one", frame=5)
        results = [shown(result) for result in playback]
        assert playback.session.rethinks >= 2
        said = [("the red square", 0), ("the other one", 5)]
        for back in (8, 3, 11, 5):
            playback.seek(back)
            assert [prompt.heard for prompt in playback.session.prompts] == [text for text, at in said if at < back]
            for text, at in said:
                if at >= back:  # what was said about this frame or later is not said again
                    playback.say(text, frame=at)
            assert [shown(result) for result in playback] == results[back:]
    assert [record.index for record in read_tracks(playback.run.path)] == list(range(12))
    assert [take.start for take in read_takes(playback.run.path)] == [0, 8, 3, 11, 5]
    playback.close()


def test_going_back_to_the_beginning_gives_the_identities_out_again(tracker):
    with tracker.open(list(pictures(4))) as playback:
        playback.say("a square")
        list(playback)
        playback.seek(0)
        assert playback.session.prompts == ()
        playback.say("a square and a square")
        assert [[o.id for o in result.objects] for result in playback] == [[1, 2]] * 4
    assert read_takes(playback.run.path) == [Take(1), Take(2, 1, 0)]
    playback.close()


def test_going_back_reads_a_long_track_again_from_the_nearest_state_that_was_kept(restless):
    frames = [patches(t) for t in range(80)]
    with restless.open(frames) as playback:
        playback.say("the red square")
        results = [shown(result) for result in playback]
        for back in (77, 41, 6):
            playback.seek(back)
            assert shown(next(iter(playback))) == results[back]
    playback.close()


def test_a_frame_that_has_not_come_yet_or_never_comes_cannot_be_sought(tracker):
    with tracker.open(list(pictures(9)), start=2) as playback:
        playback.say("a square")
        results = iter(playback)
        assert [next(results).index for _ in range(3)] == [2, 3, 4]
        playback.seek(5)  # the next one anyway
        with pytest.raises(UsageError, match="frame 7 has not been tracked yet; let frames pass until it comes"):
            playback.seek(7)
        with pytest.raises(UsageError, match="frame 1 lies before what was tracked"):
            playback.seek(1)
        assert [result.index for result in results] == [5, 6, 7, 8]
    assert read_takes(playback.run.path) == [Take(1, 0, 2)]
    playback.close()


def test_there_is_no_way_back_in_frames_that_can_be_read_only_once(tracker):
    with tracker.open(pictures(6)) as playback:
        playback.say("a square")
        results = iter(playback)
        next(results), next(results)
        with pytest.raises(UsageError, match="can be read only once, so there is no way back to frame 0"):
            playback.seek(0)
        assert [result.index for result in results] == [2, 3, 4, 5]
    playback.close()


def test_a_correction_after_going_back_opens_a_take_after_the_frames_of_its_parent(tracker):
    with tracker.open(list(pictures(8))) as playback:
        playback.say("a square")
        list(playback)
        playback.seek(4)
        playback.say("a square and a square", kind="correct")
        assert [[o.id for o in result.objects] for result in playback] == [[1, 2]] * 4
    takes = read_takes(playback.run.path)
    assert takes == [Take(1), Take(2, 1, 4)] == list(playback.session.takes)
    ids = {take: [[o.id for o in r.objects] for r in read_tracks(playback.run.path, take)] for take in (1, 2)}
    assert ids == {1: [[1]] * 8, 2: [[1]] * 4 + [[1, 2]] * 4}
    said = [(e.index, e.data["text"]) for e in events_of_take(playback.run.path) if e.type == "instruction"]
    assert said == [(0, "a square"), (4, "a square and a square")]
    playback.close()


def test_going_back_to_an_unreadable_frame_records_it_in_the_new_take(tracker):
    frames = [picture(0), picture(1), None, picture(3), picture(4)]
    with tracker.open(frames) as playback:
        playback.say("a square")
        list(playback)
        playback.seek(2)
        assert [(result.index, result.objects[0].state) for result in playback] == [
            (2, "absent"),
            (3, "tracked"),
            (4, "tracked"),
        ]
    for take in (1, 2):
        assert [record.index for record in read_tracks(playback.run.path, take)] == [0, 1, 2, 3, 4]
    playback.close()


def test_going_back_tells_again_what_left_on_the_frame(tracker):
    with tracker.open(list(pictures(6, hidden=(3,)))) as playback:
        playback.say("the red square")
        list(playback)
        playback.seek(3)
        again = [(result.index, event.type) for result in playback for event in result.events if event.id == 1]
    assert again == [(3, "lost"), (4, "found")]
    seen = [(e.index, e.type) for e in events_of_take(playback.run.path) if e.type in ("lost", "found")]
    assert seen == [(3, "lost"), (4, "found")]
    playback.close()


def test_restoring_takes_back_what_has_been_said_since(tracker):
    session, _ = pushed(tracker, 2)
    kept = session.snapshot()
    session.say("a square and a square")
    session.step(picture(2))
    assert len(session.prompts) == 2
    session.restore(kept)
    assert session.prompts == kept.prompts
    assert [prompt.text for prompt in session.prompts] == ["the red square"]
    assert [o.id for o in session.step(picture(3)).objects] == [1]
    assert session.undo().prompt.text == "the red square"
