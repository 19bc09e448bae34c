"""Sessions in odd orders: back twice, restored after undo, wrong values, closed playbacks. Logs stay readable."""

import numpy as np
import pytest
from scripted_model import ScriptedModel, picture, pictures
from toy_systems import ToyImat, scene

from trackgpt.errors import InputError, OutputError, UsageError
from trackgpt.export.records import read_events, read_takes, read_tracks
from trackgpt.online import Tracker
from trackgpt.session.playback import InstructionTracker
from trackgpt.track import TrackState
from trackgpt.types import Prompt, Verdict, VisualPrompt


@pytest.fixture
def tracker():
    return InstructionTracker(ScriptedModel(), "scripted")


def begun(tracker, frames=12, read=8, **options):
    """A playback of which some frames have been read, and its iterator."""
    playback = tracker.open(list(pictures(frames)), **options)
    playback.say("the red square")
    results = iter(playback)
    for _ in range(read):
        next(results)
    return playback, results


def takes(playback):
    return [(take.number, take.parent, take.start) for take in read_takes(playback.run.path)]


def test_going_back_twice_without_a_frame_in_between_opens_one_take(tracker):
    playback, _ = begun(tracker)
    playback.seek(5)
    playback.seek(2)
    list(playback)
    assert takes(playback) == [(1, 0, 0), (2, 1, 2)]
    assert [record.index for record in read_tracks(playback.run.path)] == list(range(12))
    playback.close()


def test_restoring_after_an_undo_brings_the_instruction_back_and_it_can_be_taken_back_again(tracker):
    session = tracker.session()
    session.say("the red square")
    for t in range(4):
        session.step(picture(t))
    state = session.snapshot()
    session.undo()
    session.say("the green square")
    session.step(picture(4))
    session.restore(state)
    assert [prompt.text for prompt in session.prompts] == ["the red square"]
    session.step(picture(5))
    assert session.undo().prompt.text == "the red square"
    assert session.prompts == ()
    other = tracker.session()
    other.restore(state)
    with pytest.raises(UsageError, match="nothing has been said here"):
        other.undo()


def test_what_was_said_to_another_video_is_not_said_again_when_going_back(tracker):
    first, _ = begun(tracker, 12, 7)
    first.say("the red square and the green square")
    list(first)
    state = first.snapshot()
    second, results = begun(tracker, 16, 3)
    second.restore(state)
    list(results)
    second.seek(12)
    assert [prompt.frame for prompt in second.session.prompts] == [0, 7]
    first.close()
    second.close()


def test_a_planned_instruction_that_is_refused_is_a_warning_and_its_frame_keeps_its_place(tracker):
    playback = tracker.open(list(pictures(8)))
    playback.say("the red square")
    playback.say("a square", frame=3)
    playback.say(kind="drop", ids=(1,), frame=5)
    assert [result.index for result in playback] == list(range(8))
    (warning,) = (event for event in read_events(playback.run.path) if event.type == "warn")
    assert (warning.index, warning.data["text"]) == (
        5,
        "frame 5: 'drop 1' was not heeded: drop [1]: tracked are [2]",
    )
    playback.close()


def test_undo_takes_back_what_is_planned_first(tracker):
    playback, results = begun(tracker, 10, 2)
    playback.say("a square and a square", frame=6)
    assert playback.undo() == "a square and a square"
    assert [len(result.objects) for result in results] == [1] * 8
    playback.close()


def test_a_time_that_has_passed_stays_passed_after_an_undo(tracker):
    playback, results = begun(tracker, 12, 6, fps=10)
    playback.say("a square")
    next(results)
    playback.undo()
    with pytest.raises(UsageError, match="second 0.3 has passed"):
        playback.say("a square", second=0.3)
    playback.say("a square", second=0.7)
    playback.close()


def test_a_closed_playback_says_that_it_is_closed(tracker):
    playback, _ = begun(tracker, 4, 2)
    playback.close()
    for act in (
        lambda: list(playback),
        lambda: playback.seek(0),
        playback.undo,
        lambda: playback.say("a square"),
        lambda: playback.restore(playback.session.state),
    ):
        with pytest.raises(UsageError, match="the playback is closed"):
            act()


def test_seeking_to_the_frame_that_comes_next_changes_nothing_with_a_stride_too(tracker):
    playback = tracker.open(list(pictures(10)), stride=3)
    playback.say("the red square")
    results = iter(playback)
    next(results)
    playback.seek(3)
    assert [result.index for result in results] == [3, 6, 9]
    for wrong in (12, 2.5, "3"):
        with pytest.raises(UsageError):
            playback.seek(wrong)
    assert takes(playback) == [(1, 0, 0)]
    playback.close()


def test_nothing_can_be_exported_before_a_frame_was_tracked(tracker, tmp_path):
    playback = tracker.open(list(pictures(3)))
    with pytest.raises(UsageError, match="no frame has been tracked yet"):
        playback.export(tmp_path / "out", ["davis", "mp4"])
    assert list(tmp_path.iterdir()) == []
    playback.close()


@pytest.mark.parametrize(
    "how",
    [
        {"text": 5},
        {"text": "a", "ids": 1},
        {"text": "a", "ids": ("x",)},
        {"text": "a", "ids": (0,)},
        {"text": "a", "ids": (2, 2)},
        {"visual": (1, 2, 3, 4)},
        {"visual": 5},
        {"visual": [VisualPrompt()]},
        {"visual": VisualPrompt((1, 2, 3, 4)), "box": (1, 2, 3, 4)},
        {"visual": VisualPrompt((1, 2, 3, 4)), "ids": (1, 2)},
        {"text": Prompt("a"), "kind": "add"},
        {"text": Prompt("", visual=(VisualPrompt((4, 2, 3, 4)),))},
        {"box": ("a", 1, 2, 3)},
        {"box": (5, 5, 1, 1)},
        {"box": (0, 0, float("inf"), 4)},
        {"box": 3},
        {"points": (1, 2, 1)},
        {"points": [(1, 2, 7)]},
        {"points": 7},
        {"points": "xyz"},
        {"mask": np.zeros((4, 4), bool)},
        {"mask": np.ones((4, 4), np.uint8)},
        {"mask": "x"},
        {"text": "a", "kind": "follow"},
        {"text": "a", "about": picture(0)},
    ],
)
def test_a_wrong_value_is_an_error_of_ours(how):
    session = InstructionTracker(ToyImat(), "toy").session()
    with pytest.raises(UsageError, match="wanted"):
        session.say(**how)


def test_frames_come_in_order_and_are_pictures(tracker):
    session = tracker.session()
    session.step(picture(0), index=4)
    for wrong in ({"index": 4}, {"index": -1}, {"index": "a"}, {"time": float("nan")}):
        with pytest.raises(UsageError, match="wanted"):
            session.step(picture(1), **wrong)
    for wrong in ("abc", np.zeros((3, 3)), np.zeros((3, 3, 4), np.uint8)):
        with pytest.raises(UsageError, match=r"wanted uint8 \(height, width, 3\) RGB"):
            session.step(wrong)
    assert session.step(picture(1)).index == 5


def test_the_result_of_a_frame_that_was_asked_about_is_not_given_to_another_one():
    from trackgpt.video.frames import SourceFrame

    session = InstructionTracker(ToyImat(), "toy").session()
    session.say("the red one", about=SourceFrame(0, 0.0, scene(red=(4, 4))))
    session.step(None)
    assert session.step(scene(red=(44, 30))).objects[0].box == (44, 30, 56, 42)


def test_a_state_is_restored_only_by_the_system_it_is_of(tracker, tmp_path):
    session, toy = tracker.session(), InstructionTracker(ToyImat(), "toy").session()
    for wrong in (None, toy.snapshot(), TrackState(None, None, 3)):
        with pytest.raises(UsageError, match="not a state of this system"):
            session.restore(wrong)
    session.say("the red square")
    session.step(picture(0))
    session.snapshot().save(tmp_path / "state")
    other = tracker.session("async")
    other.load(tmp_path / "state")
    assert other.step(picture(1)).objects[0].box == (12, 24, 28, 40)
    with pytest.raises(InputError, match="not a saved track of this system"):
        toy.load(tmp_path / "state")
    with pytest.raises(OutputError, match="OUT02"):
        session.snapshot().save(tmp_path / "no" / "such" / "folder")


def test_two_prompts_with_masks_for_one_frame_are_both_heard():
    playback = InstructionTracker(ToyImat(), "toy").open([scene(red=(4, 4), green=(30, 30))] * 4)
    playback.say(box=(4, 4, 16, 16), frame=2)
    playback.say(box=(30, 30, 42, 42), kind="add", frame=2)
    assert [len(result.objects) for result in playback] == [0, 0, 2, 2]
    playback.close()


def test_two_verdicts_on_one_frame_give_no_identity_twice():
    class Doubting(ToyImat):
        """Leaves open who is who before looking, and asks again after it."""

        def due(self, state, prompt):
            return ""

        def judge(self, state, seen, cue, prompt):
            return Verdict("start", cue) if seen is None and cue is not None else Verdict()

        def doubts(self, state, seen, memory, prompt):
            return "check" if prompt is not None else ""

    toy = Doubting()
    parts: Tracker = toy.tracker()
    frame = scene(red=(4, 4), green=(50, 40))
    state, first = parts.step(
        parts.begin(), frame, Prompt("the red one", visual=(VisualPrompt((4.0, 4.0, 16.0, 16.0)),))
    )
    state, _ = parts.step(state, frame, Prompt("", kind="drop", ids=(1,)))
    state, second = parts.step(state, frame, Prompt("the green one", visual=(VisualPrompt((50.0, 40.0, 62.0, 52.0)),)))
    assert first.ids.tolist() == [1]
    assert state.next_id > max(target.id for target in state.targets)
    assert len({target.id for target in state.targets}) == len(state.targets)


@pytest.mark.parametrize("text", ["5:", "-3: the cow", "@x: the dog", "@-1: the dog", "@: the dog"])
def test_what_looks_like_a_moment_and_is_none_is_refused_unless_a_backslash_says_otherwise(text):
    from trackgpt.app.tracking import parse_instruction

    with pytest.raises(UsageError, match="put .* in front to say it literally"):
        parse_instruction(text)
    assert parse_instruction("\\" + text).text == text
