"""Sessions: what is said when, what is recorded where, and that every way in gives the same run."""

import gc
import os
import weakref

import numpy as np
import pytest
from PIL import Image
from scripted_model import HEIGHT, WIDTH, ScriptedModel, film, picture, pictures
from scripted_model import folder as save_folder

import trackgpt
from trackgpt.errors import InputError, OutputError, UsageError
from trackgpt.export.records import read_events, read_run, read_tracks
from trackgpt.online import TrackState
from trackgpt.session.session import InstructionTracker
from trackgpt.video.source import open_source


@pytest.fixture
def tracker():
    return InstructionTracker(ScriptedModel(), "scripted")


@pytest.fixture(scope="module")
def tiny(tiny):
    """The small real model, loaded."""
    return trackgpt.load(tiny, device="cpu")


def follow(session, text="the red square", **when):
    """Say one thing and track to the end."""
    with session:
        session.say(text, **when)
        return list(session)


def kinds(run):
    """The events of a run as (frame, type)."""
    return [(event.index, event.type) for event in read_events(run)]


def lines(session):
    return (session.run.path / "tracks.jsonl").read_bytes()


# --- saying and watching ---


def test_a_reply_has_the_answer_and_the_targets_on_the_next_frame(tracker):
    with tracker.open(list(pictures())) as session:
        reply = session.say("the red square and the green square")
        session.close()
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
    assert results[0].objects[0].purport == pytest.approx(0.9)


def test_a_low_score_is_suspect_and_the_next_frame_is_rethought_with_old_and_new_score(tracker):
    session = tracker.open(list(pictures(6, unsure=(2,))))
    results = follow(session)
    assert [r.objects[0].state for r in results] == ["tracked", "tracked", "suspect", "tracked", "tracked", "tracked"]
    rethink = next(e for e in results[3].events if e.type == "rethink")
    assert rethink.data == {"reason": "purport", "old": [0.2], "new": [0.9], "threshold": [0.45]}
    assert session.rethinks == 1
    session.close()


def test_without_rethinking_the_brain_is_asked_once(tracker):
    session = tracker.open(list(pictures(6, unsure=(2, 3))), rethink=False)
    follow(session)
    assert (session.rethinks, tracker.model.heard) == (0, ["the red square"])
    session.close()


def test_leaving_and_returning_are_events_and_the_identity_stays(tracker):
    session = tracker.open(list(pictures(6, hidden=(2, 3))))
    results = follow(session)
    assert [o.state for r in results for o in r.objects] == ["tracked"] * 2 + ["absent"] * 2 + ["tracked"] * 2
    assert results[2].objects[0].box is None
    assert not results[2].objects[0].mask.any()
    assert [(i, kind) for i, kind in kinds(session.run.path) if kind in ("lost", "found")] == [
        (2, "lost"),
        (4, "found"),
    ]
    assert {o.id for r in results for o in r.objects} == {1}
    session.close()


def test_an_answer_without_targets_is_searched_on_and_then_found(tracker):
    brain = tracker.model
    session = tracker.open(list(pictures(10)))
    with session:
        assert session.say("the zebra").objects == ()
        original, brain.reason = brain.reason, lambda frame, *_: original(frame, trackgpt.Prompt("the square"))
        results = list(session)
    # `search_every` is 8: frame 8 is the first on which the brain is asked again.
    assert [len(r.objects) for r in results] == [0] * 8 + [1, 1]
    assert [e.type for e in results[8].events] == ["rethink", "answer", "found"]
    assert session.found
    session.close()


def test_nothing_found_on_any_frame_is_in_the_log(tracker):
    session = tracker.open(list(pictures(3)))
    follow(session, "the zebra")
    *_, error, done = read_events(session.run.path)
    assert not session.found
    assert (error.type, error.data["code"]) == ("error", "NL05")
    assert error.data["text"] == "nothing matched 'the zebra' on any of 3 frames"
    assert (done.type, done.data["frames"]) == ("done", 3)
    session.close()


def test_saying_something_while_iterating_changes_the_target_at_the_next_frame(tracker):
    with tracker.open(list(pictures(5))) as session:
        session.say("a square")
        results = []
        for result in session:
            results.append(result)
            if result.index == 1:
                assert session.say("the square and the square").text.startswith("You said")
    assert [[o.id for o in r.objects] for r in results] == [[1], [1], [2, 3], [2, 3], [2, 3]]
    assert [e.type for e in results[2].events] == ["instruction", "answer"]
    assert [p.kind for p in session.prompts] == ["init", "switch"]
    session.close()


def test_a_later_instruction_is_heard_at_its_frame_with_new_identities(tracker):
    session = tracker.open(list(pictures(6)))
    with session:
        session.say("a square")
        assert session.say("a square and a square", frame=3).text == ""
        results = list(session)
    assert [[o.id for o in r.objects] for r in results] == [[1]] * 3 + [[2, 3]] * 3
    said = [(i, kind) for i, kind in kinds(session.run.path) if kind in ("instruction", "answer")]
    assert said == [(0, "instruction"), (0, "answer"), (3, "instruction"), (3, "answer")]
    session.close()


def test_a_second_means_the_first_frame_that_is_not_before_it(tracker):
    for second, frame in ((0.25, 3), (0.26, 4), (0.0, 0)):
        session = tracker.open(list(pictures(6)), fps=12)
        follow(session, second=second)
        assert [p.frame for p in session.prompts] == [frame]
        session.close()


def test_a_stride_that_leaves_the_wanted_frame_out_gives_the_next_one(tracker):
    session = tracker.open(list(pictures(9)), stride=4)
    results = follow(session, frame=3)
    assert [(r.index, len(r.objects)) for r in results] == [(0, 0), (4, 1), (8, 1)]
    session.close()


def test_frames_before_the_first_instruction_are_recorded_without_objects(tracker):
    session = tracker.open(list(pictures(5)))
    follow(session, frame=3)
    assert [len(record.objects) for record in read_tracks(session.run.path)] == [0, 0, 0, 1, 1]
    assert kinds(session.run.path)[:2] == [(0, "start"), (3, "instruction")]
    session.close()


def test_an_instruction_behind_the_end_is_a_warning(tracker):
    session = tracker.open(list(pictures(3)))
    with session:
        session.say("a square")
        session.say("never", frame=50)
        list(session)
    warning = next(e for e in read_events(session.run.path) if e.type == "warn")
    assert warning.data["text"] == "the source ended before frame 50, so 'never' was never read"
    assert session.warnings == 1
    session.close()


def test_a_frame_that_has_passed_cannot_be_spoken_about(tracker):
    with tracker.open(list(pictures(4))) as session:
        session.say("a square")
        for result in session:
            if result.index == 2:
                with pytest.raises(UsageError, match="frame 2 has passed"):
                    session.say("a square", frame=2)
                with pytest.raises(UsageError, match="second 0 has passed"):
                    session.say("a square", second=0.0)
                with pytest.raises(UsageError, match="two moments"):
                    session.say("a square", frame=3, second=0.1)
            if result.index == 3:
                with pytest.raises(UsageError, match="no frame left"):
                    session.say("a square")
    session.close()


def test_iterating_before_anything_is_said_is_refused_with_an_example(tracker):
    session = tracker.open(list(pictures(2)))
    with pytest.raises(UsageError, match=r"session.say\('the red car'\)"):
        next(iter(session))
    session.close()


def test_an_empty_instruction_is_refused_and_the_session_goes_on(tracker):
    session = tracker.open(list(pictures(2)))
    with session:
        with pytest.raises(UsageError, match="NL01"):
            session.say("  <TK> ")
        session.say("a square")
        assert len(list(session)) == 2
    session.close()


def test_a_break_can_be_followed_by_more_iterating_and_the_end_is_recorded_once(tracker):
    session = tracker.open(list(pictures(5)))
    with session:
        session.say("a square")
        for result in session:
            if result.index == 1:
                break
        assert [r.index for r in session] == [2, 3, 4]
        assert list(session) == []
    assert [kind for _, kind in kinds(session.run.path)].count("done") == 1
    session.close()


def test_every_event_reaches_the_listener_in_order(tracker):
    heard = []
    session = tracker.open(list(pictures(4, unsure=(1,))))
    session.on_event = heard.append
    follow(session)
    assert heard == list(read_events(session.run.path))
    session.close()


# --- odd frames ---


def test_an_unreadable_frame_keeps_its_place_and_the_track_goes_on(tracker):
    frames = [*pictures(3), None, picture(4)]
    session = tracker.open(frames)
    results = follow(session)
    assert [r.index for r in results] == [0, 1, 2, 3, 4]
    assert (results[3].frame, results[3].prediction) == (None, None)
    assert [(o.id, o.box, o.state) for o in results[3].objects] == [(1, None, "absent")]
    assert results[4].objects[0].box == (24, 24, 40, 40)
    record = list(read_tracks(session.run.path))[3]
    assert (record.problem, record.size) == ("the array source gave no image", (HEIGHT, WIDTH))
    assert [e.data["code"] for e in results[3].events] == ["IN03"]
    session.close()


def test_unreadable_frames_at_the_beginning_are_recorded_and_the_reply_is_about_the_first_readable_one(tracker):
    session = tracker.open([None, None, picture(2), picture(3)])
    with session:
        reply = session.say("the red square")
        results = list(session)
    assert reply.objects[0].box == (16, 24, 32, 40)
    assert [(r.index, len(r.objects)) for r in results] == [(0, 0), (1, 0), (2, 1), (3, 1)]
    order = kinds(session.run.path)
    assert order == sorted(order, key=lambda event: event[0])
    session.close()


def test_a_planned_instruction_waits_for_a_readable_frame(tracker):
    session = tracker.open([picture(0), None, picture(2)])
    results = follow(session, frame=1)
    assert [len(r.objects) for r in results] == [0, 0, 1]
    session.close()


def test_a_change_of_frame_size_is_a_warning_and_every_record_has_its_own_size(tracker):
    frames = [picture(0), picture(1), np.ascontiguousarray(picture(2)[:60, :80])]
    session = tracker.open(frames)
    results = follow(session)
    assert [record.size for record in read_tracks(session.run.path)] == [(72, 96), (72, 96), (60, 80)]
    warning = next(e for e in results[2].events if e.type == "warn")
    assert warning.data == {"code": "IN05", "text": "frame 2: size changed 96x72 -> 80x60"}
    session.close()


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
        session = tiny.open(source, fps=12)
        results = follow(session)
        logs.append(lines(session))
        session.close()
    assert any(o.box is not None for r in results for o in r.objects)
    assert logs == [logs[0]] * 5


def test_a_snapshot_continues_exactly_in_another_session_and_through_a_file(tiny, tmp_path):
    frames = list(pictures(8))
    session = tiny.open(frames)
    whole, state = [], None
    with session:
        session.say("the red square")
        for result in session:
            whole.append(result.objects)
            if result.index == 3:
                session.snapshot().save(tmp_path / "state.npz")
                state = session.snapshot()
    session.close()
    for kept in (state, TrackState.load(tmp_path / "state.npz")):
        session = tiny.open(frames, start=4)
        with session:
            session.restore(kept)
            assert [r.objects for r in session] == whole[4:]
        assert session.prompts[0].text == "the red square"
        session.close()


def test_restoring_in_the_same_session_rewinds_the_track(tiny):
    same = [picture(0)] * 6
    with tiny.open(same) as session:
        session.say("the red square")
        results = iter(session)
        next(results)
        state = session.snapshot()
        first = [next(results).objects for _ in range(2)]
        session.restore(state)
        assert [next(results).objects for _ in range(2)] == first
    session.close()


def test_restoring_takes_back_what_was_said_about_the_next_frame(tracker):
    with tracker.open(list(pictures(4))) as session:
        session.say("a square")
        results = iter(session)
        next(results)
        state = session.snapshot()
        session.say("a square and a square")
        session.restore(state)
        assert [o.id for o in next(results).objects] == [1]
    session.close()


def test_no_snapshot_between_an_instruction_and_its_frame(tracker):
    with tracker.open(list(pictures(3))) as session:
        session.say("a square")
        with pytest.raises(UsageError, match="take the snapshot after that frame"):
            session.snapshot()
    session.close()


def test_sessions_of_one_tracker_do_not_know_of_each_other(tiny):
    def fresh():
        session = tiny.open(list(pictures(4)))
        follow(session)
        log = lines(session)
        session.close()
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

    with tracker.open(endless()) as session:
        session.say("the red square")
        most = 0
        for _ in session:
            most = max(most, sum(frame() is not None for frame in made))
    session.close()
    # The frame of the result at hand and the one being read.
    assert most <= 3


# --- folders ---


def test_a_session_without_a_folder_leaves_nothing_behind_when_closed_early(tracker, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    session = tracker.open(list(pictures(5)))
    session.say("a square")
    next(iter(session))
    assert len(os.listdir(tmp_path)) == 1
    session.close()
    session.close()
    assert os.listdir(tmp_path) == []


def test_a_forgotten_session_takes_its_temporary_folder_with_it(tracker, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    session = tracker.open(list(pictures(2)))
    follow(session)
    assert len(os.listdir(tmp_path)) == 1
    del session
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
        patch.setattr("trackgpt.session.session.open_source", lambda *_, **__: source)
        with pytest.raises(OutputError, match="OUT01"):
            tracker.open("x", out=tmp_path)
    assert closed == [True]
    assert os.listdir(tmp_path) == ["note.txt"]


def test_a_run_written_from_python_says_what_ran_on_what(tracker, tmp_path):
    clip = film(tmp_path / "clip.mp4", 3)
    follow(tracker.open(clip, out=tmp_path / "out"))
    facts = read_run(tmp_path / "out")
    assert facts["source"]["name"] == "clip.mp4"
    assert facts["source"]["size"] == [HEIGHT, WIDTH]
    assert len(facts["source"]["sha256"]) == 64
    assert facts["model"]["name"] == "scripted"
    assert facts["model"]["config"]["rethink"]["ratio"] == 0.5
    assert facts["versions"]["torch"]


def test_export_writes_every_format_after_the_session(tracker, tmp_path):
    clip = film(tmp_path / "clip.mp4", 4)
    session = tracker.open(clip)
    follow(session)
    made = session.export(tmp_path / "out", ["mp4", "davis", "coco", "mot", "timeline", "jsonl"])
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
    assert lines(session) == (tmp_path / "out" / "tracks.jsonl").read_bytes()
    with pytest.raises(OutputError, match="OUT01"):
        session.export(tmp_path / "out")
    session.export(tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "video.mp4").exists()
    session.close()


def test_mp4_from_frames_that_can_be_read_only_once_is_refused_before_anything_is_written(tracker, tmp_path):
    session = tracker.open(pictures(3))
    follow(session)
    with pytest.raises(UsageError, match="read only once"):
        session.export(tmp_path / "out", ["mot", "mp4"])
    assert os.listdir(tmp_path) == []
    session.export(tmp_path / "out", ["mot"])
    session.close()


def test_an_unknown_format_is_refused_before_anything_is_written(tracker, tmp_path):
    session = tracker.open(list(pictures(2)))
    follow(session)
    with pytest.raises(UsageError, match="did you mean coco"):
        session.export(tmp_path / "out", ["mot", "koco"])
    assert os.listdir(tmp_path) == []
    session.close()


def test_a_package_that_is_not_installed_is_said_so_in_run_json(tracker, tmp_path, monkeypatch):
    monkeypatch.setattr("trackgpt.session.session.PACKAGES", ("numpy", "no-such-package"))
    with tracker.open(list(pictures(2)), out=tmp_path / "out") as session:
        session.describe(note="x")
    facts = read_run(tmp_path / "out")
    assert facts["versions"]["no-such-package"] == "not installed"
    assert facts["note"] == "x"


def test_mp4_from_a_list_or_one_array_of_frames_is_drawn(tracker, tmp_path):
    for name, frames in (("list", list(pictures(3))), ("array", np.stack(list(pictures(3))))):
        session = tracker.open(frames)
        follow(session)
        session.export(tmp_path / name, ["mp4"])
        assert (tmp_path / name / "video.mp4").stat().st_size > 1000
        session.close()


def test_export_after_closing_says_what_to_do(tracker, tmp_path):
    session = tracker.open(list(pictures(2)))
    follow(session)
    session.close()
    with pytest.raises(UsageError, match="open the source with out="):
        session.export(tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_an_error_in_the_block_is_the_last_event_and_the_log_stays_readable(tracker, tmp_path):
    session = tracker.open(save_folder(tmp_path / "frames", 4), out=tmp_path / "out")

    def stumble():
        with session:
            session.say("a square")
            for result in session:
                if result.index == 2:
                    raise LookupError("no such shelf")

    with pytest.raises(LookupError):
        stumble()
    assert len(list(read_tracks(tmp_path / "out"))) == 3
    assert list(read_events(tmp_path / "out"))[-1].data == {"text": "no such shelf"}
