"""A system that follows what it is shown: kinds of prompts and identities, refusals, sessions, takes, and the log."""

from dataclasses import replace

import numpy as np
import pytest
from foreign_checkpoints import sam2_video
from tiny_propagation import tiny_propagation
from toy_memory import NAME, hire, pointed
from toy_systems import scene
from tracks import Track

import trackgpt
from trackgpt.errors import InputError, ModelError, UsageError
from trackgpt.export.prompts import prompt_of, read_prompts, written_prompt
from trackgpt.export.records import EventRecord, read_events, read_tracks
from trackgpt.geometry.masks import box_of
from trackgpt.geometry.pointing import deepest_point
from trackgpt.hub import load_trackgpt
from trackgpt.online import follow
from trackgpt.session.contradictions import denied_points
from trackgpt.session.playback import InstructionTracker
from trackgpt.systems.pointed import Pointed
from trackgpt.track import TrackState
from trackgpt.types import Prompt, VisualPrompt

RED, GREEN, BLUE = (VisualPrompt((float(x), 8.0, float(x + 12), 20.0)) for x in (4, 24, 44))
"""Where the squares are on frame 0 of `moving`."""


def moving(count=8):
    """Three squares that move down by 2 pixels per frame."""
    return [scene(red=(4, 8 + 2 * t), green=(24, 8 + 2 * t), blue=(44, 8 + 2 * t)) for t in range(count)]


def at(shown, t):
    """A box of frame 0 on frame t."""
    x1, y1, x2, y2 = shown.box
    return VisualPrompt((x1, y1 + 2 * t, x2, y2 + 2 * t))


def run(*prompts, count=8):
    return list(follow(pointed().tracker(), moving(count), prompts))


def by_id(seen):
    """Left edges of the boxes by identity."""
    return {int(number): float(box[0]) for number, box in zip(seen.ids, seen.boxes, strict=True)}


def track_of(*prompts):
    """The track after frames 0 to n, on each of which something was said."""
    track = Track(pointed().tracker())
    for frame, prompt in zip(moving(), prompts):
        track.look(frame, prompt)
    return track


# Kinds and identities


def test_several_targets_of_one_prompt_are_followed_under_new_numbers_or_the_given_ones():
    for ids, wanted in (((), [1, 2]), ((7, 9), [7, 9])):
        seen = run(Prompt(ids=ids, visual=(RED, BLUE)))
        assert [p.ids.tolist() for p in seen] == [wanted] * 8
        assert seen[5].boxes.tolist() == [[4, 18, 16, 30], [44, 18, 56, 30]]
        assert seen[0].verdict == "start"
        assert {p.reason for p in seen} == {""}


def test_a_box_a_mask_and_points_may_be_mixed():
    mask = np.zeros((60, 80), bool)
    mask[8:20, 24:36] = True
    seen = run(Prompt(visual=(RED, VisualPrompt(mask=mask), VisualPrompt(points=((50.0, 14.0, 1),)))))
    assert by_id(seen[7]) == {1: 4, 2: 24, 3: 44}


def test_add_follows_a_new_target_and_corrects_one_that_is_followed():
    seen = run(
        Prompt(ids=(7,), visual=(RED,)),
        Prompt("", 2, "add", (9, 7), (at(GREEN, 2), at(BLUE, 2))),
        Prompt("", 4, "add", visual=(at(RED, 4),)),
    )
    assert [by_id(p) for p in seen[1:5]] == [{7: 4}, {7: 44, 9: 24}, {7: 44, 9: 24}, {7: 44, 9: 24, 10: 4}]


def test_a_correction_is_about_the_only_target_or_the_named_one_and_keeps_its_identity():
    seen = run(Prompt(visual=(RED,)), Prompt("", 2, "correct", visual=(at(GREEN, 2),)))
    assert [by_id(seen[t]) for t in (1, 2, 7)] == [{1: 4}, {1: 24}, {1: 24}]
    seen = run(Prompt(visual=(RED, GREEN)), Prompt("", 2, "correct", (2,), (at(BLUE, 2),)))
    assert by_id(seen[7]) == {1: 4, 2: 44}


def test_a_correction_may_say_only_where_the_target_is_not():
    both = VisualPrompt((4.0, 8.0, 16.0, 20.0))
    track = track_of(Prompt(visual=(both,)))
    seen = track.look(moving()[1], Prompt("", 1, "correct", visual=(VisualPrompt(points=((6.0, 12.0, 0),)),)))
    assert seen.present.tolist() == [False]
    assert track.state.memory.targets[0][1].wrong.tolist() == [[230, 40, 40]]


def test_drop_ends_some_or_all():
    seen = run(Prompt(visual=(RED, GREEN, BLUE)), Prompt("", 2, "drop", (2,)), Prompt("", 4, "drop"))
    assert [p.ids.tolist() for p in seen] == [[1, 2, 3]] * 2 + [[1, 3]] * 2 + [[]] * 4


def test_a_switch_gives_the_old_targets_up_and_resume_returns_to_one_with_its_memory():
    track = track_of(
        Prompt(visual=(RED, GREEN)),
        Prompt("", 1, "switch", visual=(at(BLUE, 1),)),
        Prompt("", 2, "resume", (2,)),
    )
    assert [(target.id, target.active) for target in track.state.targets] == [(2, True), (1, False), (3, False)]
    assert by_id(track.look(moving()[3])) == {2: 24}
    memory = dict(track.state.memory.targets)
    assert sorted(memory) == [1, 2, 3]
    assert (memory[2].seen, memory[1].seen) == (3, 1)  # green was looked at on frames 0, 2 and 3, red on frame 0


def test_resume_may_show_where_the_target_is_now():
    track = track_of(Prompt(visual=(RED,)), Prompt("", 1, "drop"), Prompt("", 2, "resume", visual=(at(BLUE, 2),)))
    assert by_id(track.look(moving()[3])) == {1: 44}


def test_add_takes_up_a_former_target_beside_the_present_ones():
    seen = run(Prompt(visual=(RED, GREEN)), Prompt("", 1, "drop", (1,)), Prompt("", 3, "add", (1,)))
    assert [sorted(by_id(seen[t])) for t in (0, 1, 3)] == [[1, 2], [2], [1, 2]]
    assert by_id(seen[3])[1] == 4


def test_a_new_start_forgets_everything_and_a_number_may_be_given_again():
    track = track_of(Prompt(ids=(5,), visual=(RED,)), Prompt("", 1, "start", (5,), (at(BLUE, 1),)))
    assert track.state.memory.targets[0][1].seen == 1
    assert by_id(track.look(moving()[2])) == {5: 44}
    seen = run(Prompt(visual=(RED,)), Prompt("", 2, "start", visual=(at(BLUE, 2),)))
    assert by_id(seen[7]) == {2: 44}


def test_former_targets_are_forgotten_when_they_are_many_and_the_first_given_up_goes_first():
    track = Track(pointed().tracker())
    for _ in range(40):
        track.look(moving()[0], Prompt("", 0, "switch", visual=(RED,)))
    assert [target.id for target in track.state.targets] == [40, *range(24, 40)]
    assert sorted(number for number, _ in track.state.memory.targets) == list(range(24, 41))


def test_each_target_is_followed_as_if_it_were_alone():
    together = run(Prompt(visual=(RED, GREEN)))
    for k, shown in enumerate((RED, GREEN)):
        for one, both in zip(run(Prompt(visual=(shown,))), together, strict=True):
            assert np.array_equal(one.masks[0], both.masks[k])


# Refusals


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (Prompt("the red one"), "toy-memory follows what it is shown, not words: point at the target with --box"),
        (Prompt("the red one", kind="switch"), "not words"),
        (Prompt("", kind="add", ids=(3,)), "not words"),
        (Prompt("", 0, "correct", (3,), (RED,)), "correct 3: tracked are 1, 2"),
        (Prompt("", 0, "correct", visual=(RED,)), "correct: which of 1, 2[?] Say so by ids"),
        (Prompt("", 0, "correct", (1, 2), (RED,)), "correct 1, 2: 1 visual prompts; wanted one for each of 1, 2"),
        (Prompt("", 0, "drop", (3,)), "drop 3: tracked are 1, 2"),
        (Prompt("", 0, "drop", (1,), (RED,)), "drop 1: 1 visual prompts; wanted no visual prompt"),
        (Prompt("", 0, "resume", (1,)), "resume 1: targets that were given up are none"),
        (Prompt("", 0, "resume"), "resume: targets that were given up are none"),
        (Prompt("", 0, "switch", (2,), (RED,)), "switch to 2: known already; give new ids"),
        (
            Prompt("", 0, "add", visual=(VisualPrompt(points=((5.0, 9.0, 0),)),)),
            "target 3 is new, and it is only",
        ),
        (Prompt("", 0, "add", visual=(VisualPrompt((80.0, 0.0, 90.0, 9.0)),)), "box from 80,0 to 90,9 lies outside"),
        (
            Prompt("", 0, "add", (8,), (VisualPrompt(points=((5.0, 60.0, 1),)),)),
            "target 8: the point 5,60 lies",
        ),
        (
            Prompt("", 0, "add", visual=(VisualPrompt(mask=np.ones((60, 81), bool)),)),
            "the mask is 81 pixels wide and 60 high; wanted the size of the frame, which is 80 pixels wide and 60 high",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_and_the_track_stays_as_it_is(prompt, said):
    track = track_of(Prompt(visual=(RED, GREEN)))
    before = track.state
    with pytest.raises(UsageError, match=said):
        track.look(moving()[0], prompt)
    assert track.state is before
    assert by_id(track.look(moving()[1])) == {1: 4, 2: 24}


@pytest.mark.parametrize(
    ("kind", "ids", "said"),
    [
        ("correct", (1,), "correct 1: no longer followed; to resume it, add it with its id"),
        ("correct", (), "correct 1: no longer followed; to resume it, add it with its id"),
        ("add", (), "target 2 is new, .* show where it is, too; to resume 1, which was dropped, add it with its id"),
    ],
)
def test_only_where_it_is_not_after_a_drop_says_how_to_resume_the_target(kind, ids, said):
    track = track_of(Prompt(visual=(RED,)), Prompt("", 1, "drop"))
    away = (VisualPrompt(points=((50.0, 14.0, 0),)),)
    with pytest.raises(UsageError, match=said):
        track.look(moving()[2], Prompt("", 2, kind, ids, away))
    track.look(moving()[2], Prompt("", 2, "add", (1,), away))
    assert by_id(track.look(moving()[3])) == {1: 4}


def test_a_box_that_reaches_over_the_edge_of_the_frame_is_taken():
    seen = run(Prompt(visual=(VisualPrompt((-30.0, 8.0, 16.0, 20.0)),)), count=2)
    assert seen[1].boxes.tolist() == [[4, 10, 16, 22]]


def test_ablations_and_settings_are_those_of_the_network():
    seen = list(follow(pointed().tracker("no-memory"), moving(3), [Prompt(visual=(RED,))]))
    assert [bool(p.present[0]) for p in seen] == [True, False, False]
    assert pointed().tracker(settings=["near=5"]).perception.network.near == 5
    with pytest.raises(UsageError, match="not one of full, no-memory"):
        pointed().tracker("no-window")

    class Plain:
        kinds = ()

    for wrong in ({"ablation": "no-window"}, {"settings": ["near=5"]}):
        with pytest.raises(UsageError, match="plain has none"):
            Pointed(Plain(), "plain").tracker(**wrong)


# Sessions


@pytest.fixture
def tracker():
    return InstructionTracker(pointed(), NAME)


def test_a_playback_is_told_in_the_short_form_by_visual_prompts_or_by_a_whole_prompt(tracker):
    told = (
        lambda playback: playback.say(box=(4, 8, 16, 20)),
        lambda playback: playback.say(visual=VisualPrompt((4, 8, 16, 20))),
        lambda playback: playback.say(visual=[VisualPrompt(points=[(5, 9, 1)])], ids=[1]),
        lambda playback: playback.say(Prompt(visual=(VisualPrompt((4, 8, 16, 20)),))),
        lambda playback: playback.say(mask=moving()[0][:, :, 0] > 200),
    )
    for tell in told:
        with tracker.open(moving()) as playback:
            assert [(o.id, o.box) for o in tell(playback).objects] == [(1, (4, 8, 16, 20))]
            assert [r.objects[0].box[1] for r in playback] == [8 + 2 * t for t in range(8)]
        playback.close()


def test_empty_points_are_named_and_beside_a_box_they_are_none(tracker):
    session = tracker.session()
    for points in ([], ()):
        with pytest.raises(UsageError, match="points is empty; wanted x, y in pixels and 1 .on the target. or 0 "):
            session.say(points=points)
    session.say(box=(4, 8, 16, 20), points=[])
    assert session.step(moving()[0]).objects[0].box == (4, 8, 16, 20)


def boxed(*lefts):
    """Boxes as one prompt, by their left edges, of the squares of frame 0."""
    return [VisualPrompt((float(x), 8.0, float(x + 12), 20.0)) for x in lefts]


def test_two_targets_on_one_object_are_a_warning_once_until_they_part(tracker):
    session = tracker.session()
    session.say(visual=boxed(4, 4))
    for frame in moving():
        session.step(frame)
    session.say(visual=boxed(24), kind="correct", ids=(2,))
    session.step(moving()[0])
    session.say(visual=boxed(4), kind="correct", ids=(2,))
    for frame in moving():
        session.step(frame)
    warnings = [(event.index, event.data["text"]) for event in session.events() if event.type == "warn"]
    text = "targets 1 and 2 have been on one object for 5 frames; show one of them again, or drop it"
    assert warnings == [(4, f"frame 4: {text}"), (13, f"frame 13: {text}")]
    assert session.warnings == 2


def test_objects_that_touch_are_no_warning(tracker):
    session = tracker.session()
    session.say(visual=boxed(4, 24, 44))
    for frame in moving():
        session.step(frame)
    assert session.warnings == 0


def test_points_that_the_mask_of_their_box_denies_are_named(tracker):
    session = tracker.session()
    red, green = boxed(4, 24)
    inside, outside = (10.0, 14.0), (50.0, 14.0)
    session.say(visual=[replace(red, points=((*inside, 1), (*outside, 0))), green], ids=(7, 9))
    session.step(moving()[0])
    assert session.warnings == 0
    session.say(visual=[replace(green, points=((*outside, 1), (30.0, 14.0, 1)))], ids=(9,), kind="correct")
    session.step(moving()[0])
    (warning,) = (event for event in session.events() if event.type == "warn")
    denied = "the point 50,14 is on the target and outside of its box and its mask; look at its mask, and show a box"
    assert warning.data["text"] == f"frame 1: target 9: {denied} or a mask where it is wrong"
    shown = Prompt(ids=(9,), visual=(replace(green, points=((30.0, 14.0, 0), (5.0, 5.0, 0))),))
    (line,) = denied_points(shown, [7, 9], np.stack([np.zeros((60, 80), bool), np.ones((60, 80), bool)]))
    assert line.startswith(
        "target 9: the point 30,14 is not on the target and inside of its mask; the point 5,5 is not"
    )


def test_a_whole_prompt_may_say_its_frame(tracker):
    with tracker.open(moving()) as playback:
        playback.say(box=(4, 8, 16, 20))
        playback.say(Prompt("", 3, "add", (7,), (at(BLUE, 3),)))
        assert [[o.id for o in r.objects] for r in playback] == [[1]] * 3 + [[1, 7]] * 5
    playback.close()


def test_undo_takes_back_what_was_shown_and_says_what_it_was(tracker):
    with tracker.open(moving()) as playback:
        playback.say(box=(4, 8, 16, 20))
        results = iter(playback)
        for _ in range(3):
            next(results)
        state = playback.snapshot()
        playback.say(box=at(BLUE, 3).box, ids=(4,), kind="add")
        next(results)
        assert playback.undo() == "add 4: box"
        assert playback.snapshot() is state
        assert [[o.id for o in r.objects] for r in playback] == [[1]] * 5
    assert [e.data["text"] for e in read_events(playback.run.path) if e.type == "undo"] == ["add 4: box"]
    assert [prompt.summary for prompt in read_prompts(playback.run.path)] == ["start box"]
    assert [prompt.summary for prompt in read_prompts(playback.run.path, take=1)] == ["start box", "add 4: box"]
    playback.close()


def test_seeking_and_saved_states_give_the_same_frames_again(tracker, tmp_path):
    mask = moving()[0][:, :, 1] > 200
    playback = tracker.open(moving())
    with playback:
        playback.say(visual=[RED, VisualPrompt(mask=mask)])
        playback.say(visual=[at(BLUE, 4)], kind="add", frame=4)
        first = []
        for result in playback:
            first.append(result.objects)
            if result.index == 5:
                playback.snapshot().save(tmp_path / "state")
        playback.seek(3)
        assert [r.objects for r in playback] == [objects[:2] for objects in first[3:]]  # nothing is said again
    playback.close()
    state = TrackState.load(tmp_path / "state", pointed().tracker().kinds)
    assert np.array_equal(state.prompts[0].visual[1].mask, mask)
    session = tracker.session()
    session.restore(state)
    again = [session.step(frame, index=t) for t, frame in enumerate(moving()) if t > 5]
    assert [r.objects for r in again] == first[6:]


def test_what_is_shown_outside_of_the_frame_is_not_in_the_log_and_a_planned_one_is_a_warning(tracker):
    playback = tracker.open(moving())
    with playback:
        with pytest.raises(UsageError, match="the box from 90,8 to 99,20 lies outside of the frame"):
            playback.say(box=(90, 8, 99, 20))
        playback.say(box=(4, 8, 16, 20))
        playback.say(points=[(200, 3, 1)], kind="add", frame=3)
        assert len(list(playback)) == 8
    events = list(read_events(playback.run.path))
    assert [event.index for event in events if event.type == "instruction"] == [0]
    (warning,) = (event for event in events if event.type == "warn")
    assert warning.data["text"].startswith("frame 3: 'add 1 point' was not heeded: the point 200,3 lies outside of the")
    playback.close()


def test_a_pushed_session_hears_what_is_shown_on_the_next_frame(tracker):
    session = tracker.session()
    session.say(box=(4, 8, 16, 20))
    frames = moving()
    assert session.step(frames[0]).objects[0].box == (4, 8, 16, 20)
    session.say(box=(500, 8, 512, 20), kind="add")
    with pytest.raises(UsageError, match="lies outside of the frame"):
        session.step(frames[1])
    assert [o.box for o in session.step(frames[1]).objects] == [(4, 10, 16, 22)]


def test_frames_are_encoded_once_and_ahead_only_while_something_is_followed(tracker):
    from trackgpt.session.ahead import Lookahead

    with tracker.open(moving(), lookahead=Lookahead(2, 2)) as playback:
        playback.say(box=(4, 8, 16, 20), frame=3)
        results = list(playback)
    assert [len(r.objects) for r in results] == [0] * 3 + [1] * 5
    assert 0 < tracker.model.network.encoded <= 5
    playback.close()


# The log


def test_what_was_said_is_in_the_log_and_said_again_gives_the_same_run(tracker):
    mask = moving()[0][:, :, 1] > 200
    playback = tracker.open(moving())
    with playback:
        playback.say(visual=[VisualPrompt((4.1234567, 8, 16, 20), [(9, 9, 1), (50, 30, 0)]), VisualPrompt(mask=mask)])
        playback.say(kind="drop", ids=(1,), frame=3)
        playback.say(box=at(BLUE, 5).box, kind="add", ids=(8,), frame=5)
        list(playback)
    said = read_prompts(playback.run.path)
    assert said == list(playback.session.prompts)
    assert said[0].visual[0].box[0] == 4.1234567
    assert np.array_equal(said[0].visual[1].mask, mask)
    logged = list(read_tracks(playback.run.path))
    for seen, record in zip(follow(pointed().tracker(), moving(), said), logged, strict=True):
        assert seen.ids.tolist() == [item.id for item in record.objects]
        assert not len(seen.ids) or np.array_equal(seen.masks, record.masks())
    playback.close()


@pytest.mark.parametrize(
    "data",
    [
        {"kind": "follow"},
        {"ids": [0]},
        {"ids": 3},
        {"ids": [1, 2], "visual": [{"box": [1, 2, 3, 4]}]},
        {"visual": {"box": [1, 2, 3, 4]}},
        {"visual": [{}]},
        {"visual": [{"box": [4, 4, 1, 1]}]},
        {"visual": [{"points": [[1, 2]]}]},
        {"visual": [{"mask": "rle"}]},
        {"visual": [{"mask": {"size": [4, 4], "rle": "?"}}]},
        {"visual": [{"mask": {"size": 4, "rle": "0"}}]},
        {"visual": [{"mask": {"size": [4, 10**9], "rle": "0"}}]},
    ],
)
def test_a_damaged_instruction_in_a_log_is_an_input_error_with_its_frame(data):
    event = EventRecord.of(0, "instruction", 240, 10.0, text="", **data)
    with pytest.raises(InputError, match="instruction of frame 240: "):
        prompt_of(event)


def test_an_instruction_comes_back_from_a_line_of_the_log():
    prompt = Prompt("the dog", 5, "add", (2,), (VisualPrompt((0.1, 1.0, 2.0, 3.0), ((0.3, 0.7, 1),), np.eye(4) > 0),))
    event = EventRecord.of(0, "instruction", 5, 0.2, **written_prompt(prompt))
    back = prompt_of(EventRecord.from_json(event.to_json()))
    assert back == prompt
    assert np.array_equal(back.visual[0].mask, prompt.visual[0].mask)
    assert list(written_prompt(Prompt("the dog"))) == ["text", "kind"]


# Loading


def test_a_memory_network_is_loaded_by_a_shipped_name_or_a_folder_and_run_where_it_is_wanted(monkeypatch, tmp_path):
    folder = hire(monkeypatch, tmp_path / "toy")
    for name in ("nano-memory", folder):
        tracker = trackgpt.load(name, device="cpu")
        assert isinstance(tracker.model, Pointed)
        assert (tracker.model.config.name, tracker.model.config.network) == (str(name), "ColourNetwork")
    with pytest.raises(UsageError, match="nano-memory computes in float32; leave the dtype bfloat16 out"):
        trackgpt.load("nano-memory", "cpu", dtype="bfloat16")
    for wrong in ({"compile": True}, {"backend": "onnxruntime"}):
        with pytest.raises(UsageError, match="a memory segmenter runs in torch, not compiled"):
            trackgpt.load("nano-memory", "cpu", **wrong)
    with pytest.raises(UsageError, match="nano-memory is no TrackGPT, such as nano"):
        load_trackgpt("nano-memory", "cpu")


def test_doctor_shows_a_memory_network_a_box_and_demo_refuses_one_that_reads_no_words(command, monkeypatch, tmp_path):
    hire(monkeypatch, tmp_path / "toy")
    done = command("doctor", "-m", "nano-memory", "--device", "cpu")
    assert (done.code, done.values()["failed"]) == (0, "0"), done.out
    assert "self-test              5 frames in" in done.out
    done = command("demo", "-m", "nano-memory", "--frames", "4")
    assert (done.code, "nano-memory follows what it is shown, not words" in done.err) == (2, True)
    assert not (tmp_path / "runs").exists()


def test_a_shipped_network_that_is_not_there_is_named(monkeypatch, tmp_path):
    folder = hire(monkeypatch, tmp_path / "toy")
    folder.rename(tmp_path / "gone")
    with pytest.raises(ModelError, match="MD01: nano-memory: .* is missing; reinstall the package"):
        trackgpt.load("nano-memory", "cpu")


def saved_network(kind, folder):
    """A folder of one of the two networks, small and random."""
    if kind == "sam2":
        sam2_video(folder)
    else:
        tiny_propagation().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["nano", "sam2"])
def test_either_network_of_a_folder_runs_from_prompt_to_log_and_a_saved_state_goes_on(kind, tmp_path):
    tracker = trackgpt.load(saved_network(kind, tmp_path / "model"), device="cpu")
    frames, states = moving(10), []
    playback = tracker.open(frames, out=tmp_path / "run")
    with playback:
        playback.say(visual=[RED, VisualPrompt(mask=frames[0][:, :, 1] > 200)], ids=(7, 9))
        playback.say(points=[(50, 20, 1), (2, 2, 0)], kind="add", frame=3)
        playback.say(kind="drop", ids=(7,), frame=5)
        playback.say(kind="resume", ids=(7,), frame=7)
        results = []
        for result in playback:
            results.append(result)
            states.append(playback.snapshot())
    ids = [[7, 9]] * 3 + [[7, 9, 10]] * 2 + [[9, 10]] * 2 + [[7]] * 3
    assert [[o.id for o in r.objects] for r in results] == ids
    assert not [event for event in read_events(tmp_path / "run") if event.type == "warn"]
    assert {tuple(o.own_scores) for r in results for o in r.objects} == {("iou", "presence")}
    states[4].save(tmp_path / "state")
    session = trackgpt.load(tmp_path / "model", device="cpu").session()
    session.load(tmp_path / "state")
    said = {prompt.frame: prompt for prompt in read_prompts(tmp_path / "run")}
    for t in range(5, 10):
        if t in said:
            session.say(said[t])
        assert session.step(frames[t], index=t).objects == results[t].objects


# What is pointed at


def test_the_deepest_point_of_a_mask_lies_inside_it():
    ring = np.zeros((40, 60), bool)
    ring[5:35, 5:55] = True
    ring[15:25, 15:45] = False
    x, y = deepest_point(ring)
    assert ring[int(y), int(x)]
    assert min(abs(y - 10), abs(y - 30), abs(x - 10), abs(x - 50)) <= 1
    assert deepest_point(np.ones((5, 5), bool)) == (2.5, 2.5)
    single = np.zeros((5, 5), bool)
    single[4, 0] = True
    assert deepest_point(single) == (0.5, 4.5)
    assert box_of(single).tolist() == [0, 4, 1, 5]


def test_a_summary_says_what_was_said_or_shown():
    points = VisualPrompt(points=((1.0, 1.0, 1), (2.0, 2.0, 0)))
    assert Prompt("the dog", visual=(points,)).summary == "the dog"
    assert Prompt(ids=(7, 9), visual=(RED, points)).summary == "start 7: box; 9: 2 points"
    assert Prompt(kind="drop", ids=(1, 2)).summary == "drop 1; 2"
    assert Prompt(kind="drop").summary == "drop"
    assert Prompt(visual=(VisualPrompt((0, 0, 1, 1), ((0, 0, 1),), np.ones((1, 1), bool)),)).summary == (
        "start box, mask, 1 point"
    )
