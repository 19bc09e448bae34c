"""Several things fit what was said: numbered boxes, answers to them, and what undo, logs and scripts make of these."""

import contextlib
import io
import json
import os
import pty
import threading
from pathlib import Path

import numpy as np
import pytest
from ambiguous_squares import Squares, command_of, squares
from PIL import Image
from toy_memory import ColourNetwork
from toy_systems import scene

from trackgpt.app.choosing import answering, check_way
from trackgpt.app.live import Printer, progress
from trackgpt.errors import UsageError
from trackgpt.export.overlay import ASKED, Captions
from trackgpt.export.prompts import read_prompts
from trackgpt.export.records import EventRecord, TrackRecord, read_events, read_takes, read_tracks
from trackgpt.reasoners.choosing import numbers_of
from trackgpt.session.playback import InstructionTracker
from trackgpt.session.session import Session
from trackgpt.systems.imat import Imat
from trackgpt.types import VisualPrompt

RED, GREEN, BLUE = (4.0, 4.0, 16.0, 16.0), (60.0, 40.0, 72.0, 52.0), (30.0, 20.0, 42.0, 32.0)


def tracker_of(one=""):
    return InstructionTracker(Imat(Squares(one), ColourNetwork(), "imat:squares+toy"), "imat:squares+toy")


def opened(count=10, hidden=(), **how):
    return tracker_of().open(squares(count, hidden), **how)


def colours(run, take=None):
    """The colours that are followed on every frame, a letter each."""
    lines = []
    for record in read_tracks(run, take):
        pixels = [squares()[record.index][int(o.box[1]) + 3, int(o.box[0]) + 3] for o in record.objects if o.box]
        lines.append("".join("rgb"[int(pixel.argmax())] for pixel in pixels) or "-")
    return " ".join(lines)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("2", (2,)),
        ("#2", (2,)),
        ("number 3, please", (3,)),
        ("the second one", (2,)),
        ("1 and 3", (1, 3)),
        ("3, 1", (3, 1)),
        ("I mean the last one", (3,)),
        ("all of them", (1, 2, 3)),
        ("both", ()),
        ("7", (7,)),
        ("the second dog", ()),
        ("the left one", ()),
        ("", ()),
        ("not 2", ()),
        ("the one", ()),
    ],
)
def test_an_answer_by_number_is_told_from_other_words(text, numbers):
    assert numbers_of(text, 3) == numbers


def test_what_fits_alike_is_numbered_and_the_surest_is_followed_until_one_is_chosen(tmp_path):
    with opened(out=tmp_path / "run") as playback:
        reply = playback.say("the square")
        assert reply.needs_choice
        assert (reply.choice.boxes, reply.choice.followed) == ((RED, GREEN, BLUE), 1)
        assert reply.choice.text == (
            "3 things fit 'the square' about equally well: 1 at 4,4,12,12; 2 at 60,40,12,12; 3 at 30,20,12,12"
        )
        assert [one.box for one in reply.objects] == [RED]
        chosen = playback.choose(2)
        assert ([one.box for one in chosen.objects], chosen.text) == ([GREEN], "Chosen: 2 of 3.")
        assert not chosen.needs_choice
        list(playback)
    assert colours(tmp_path / "run") == " ".join("g" * 10)
    kinds = [event.type for event in read_events(tmp_path / "run")]
    assert kinds == ["start", "instruction", "answer", "choice", "instruction", "answer", "done"]


@pytest.mark.parametrize(
    ("answer", "followed"),
    [
        ({"text": "2"}, "g"),
        ({"text": "the third one"}, "b"),
        ({"choose": 2}, "g"),
        ({"choose": (1, 3)}, "rb"),
        ({"choose": VisualPrompt(points=((65, 45, 1),))}, "g"),
        ({"text": "all"}, "rgb"),
        ({"text": "the blue one"}, "b"),
    ],
)
def test_a_number_words_or_a_click_answer(tmp_path, answer, followed):
    with opened(4, out=tmp_path / "run") as playback:
        playback.say("the square")
        playback.say(**answer)
        list(playback)
    assert colours(tmp_path / "run") == " ".join([followed] * 4)


def test_the_track_of_what_is_chosen_is_to_the_bit_as_if_it_alone_had_been_found(tmp_path):
    states = []
    for tracker, answers in ((tracker_of(), (2,)), (tracker_of("green"), ())):
        session = tracker.session()
        session.say("the square")
        if answers:
            session.on_choice = lambda choice: "2"
        for frame in squares():
            session.step(frame)
        states.append(session.state)
    a, b = states
    assert [(one.id, one.box, one.score) for one in a.targets] == [(one.id, one.box, one.score) for one in b.targets]
    assert (a.frame, a.record, len(a.prompts)) == (b.frame, b.record, 1)
    ((_, one),), ((_, other),) = a.memory.segmenter.targets, b.memory.segmenter.targets
    assert (one.colour == other.colour).all()
    assert one.seen == other.seen == 10


def test_a_choice_that_comes_late_goes_back_to_its_frame_in_a_new_take(tmp_path):
    with opened(out=tmp_path / "run") as playback:
        playback.say("the red square")
        results = iter(playback)
        for _ in range(3):
            next(results)
        playback.say("the green square or the blue one")
        for _ in range(4):
            next(results)
        playback.say("2")
        assert [result.index for result in results] == [3, 4, 5, 6, 7, 8, 9]
    assert [(take.number, take.parent, take.start) for take in read_takes(tmp_path / "run")] == [(1, 0, 0), (2, 1, 3)]
    assert colours(tmp_path / "run", 1) == "r r r g g g g"
    assert colours(tmp_path / "run", 2) == "r r r b b b b b b b"
    said = read_prompts(tmp_path / "run")
    assert [(prompt.frame, prompt.chosen) for prompt in said] == [(0, ()), (3, (2,))]


@pytest.mark.parametrize("late", [0, 4])
def test_a_choice_is_taken_back_to_the_bit_and_can_be_made_again(tmp_path, late):
    with opened(out=tmp_path / "run") as playback:
        playback.say("the square")
        state = playback.session.state
        results = iter(playback)
        for _ in range(late):
            next(results)
        playback.choose(2)
        for _ in range(3):
            next(results)
        assert playback.undo() == "the square: 2"
        assert playback.session.state is state
        assert playback.session.choice.boxes == (RED, GREEN, BLUE)
        assert next(results).objects[0].box == RED
        playback.choose(3)
        list(playback)
        playback.undo()
        playback.undo()
        assert playback.session.prompts == ()
        with pytest.raises(UsageError, match="nothing to choose from"):
            playback.choose(1)
    assert colours(tmp_path / "run").startswith("b b b")


def test_what_was_said_before_on_the_same_frame_holds_in_the_take_that_an_undo_opens(tmp_path):
    with opened(6, out=tmp_path / "run") as playback:
        playback.say("the square")
        playback.choose(2)
        list(playback)
        playback.undo()
        list(playback)
    assert colours(tmp_path / "run") == "r r r r r r"
    assert [prompt.chosen for prompt in read_prompts(tmp_path / "run")] == [()]
    assert [prompt.chosen for prompt in read_prompts(tmp_path / "run", 1)] == [(2,)]


def test_a_session_that_is_given_frames_chooses_after_its_frame_too():
    session = tracker_of().session()
    session.say("the square")
    frames = squares()
    result = session.step(frames[0])
    (event,) = (event for event in result.events if event.type == "choice")
    assert (event.data["boxes"], event.data["followed"]) == ([list(RED), list(GREEN), list(BLUE)], 1)
    session.step(frames[1])
    before = session.state
    assert session.choose(point=(65, 45)).objects[0].box == GREEN
    assert session.step(frames[2]).objects[0].box == GREEN
    session.undo()
    assert session.state is before
    assert session.step(frames[3]).objects[0].box == (13.0, 4.0, 25.0, 16.0)


def test_a_wrong_choice_says_what_there_is(tmp_path):
    with opened() as playback:
        playback.say("the square")
        with pytest.raises(UsageError, match=r"choose 7: wanted numbers from 1 to 3; 3 things fit"):
            playback.choose(7)
        with pytest.raises(UsageError, match="the point 1,1 lies in none of the boxes"):
            playback.choose(point=(1, 1))
        playback.say("the red square")
        with pytest.raises(UsageError, match="nothing to choose from"):
            playback.choose(1)


def test_what_was_corrected_or_is_followed_already_is_not_offered():
    session = tracker_of().session()
    session.on_choice = lambda choice: offered.append(choice.boxes) or ""
    offered, frame = [], squares()[0]
    for text in ("the red square", "no, the other one"):
        session.say(text)
        result = session.step(frame)
    assert offered == [(GREEN, BLUE)]
    assert [one.box for one in result.objects] == [GREEN]
    session.say("also the square")
    assert [one.box for one in session.step(frame).objects] == [GREEN, RED]
    assert offered[1:] == [(RED, BLUE)]


def test_what_is_found_later_may_be_chosen_from_as_well(tmp_path):
    with opened(hidden=range(3), out=tmp_path / "run") as playback:
        playback.on_choice = lambda choice: "3"
        playback.say("the square")
        list(playback)
    assert colours(tmp_path / "run") == "- - - b b b b b b b"
    assert [(prompt.frame, prompt.chosen) for prompt in read_prompts(tmp_path / "run")] == [(0, ()), (3, (3,))]


def checked(said, frames):
    """Events of a session whose grounder is asked again on every second frame."""
    system = Imat(Squares(), ColourNetwork(), "imat:squares+toy")
    session = Session(system.tracker(settings=["arbiter.every=2"]))
    session.say(said)
    return [event for frame in frames for event in session.step(frame).events], session


def test_that_something_else_fits_by_now_is_an_event_once_and_nothing_changes():
    alone, both = scene(red=(4, 4)), scene(red=(4, 4), blue=(30, 20))
    events, session = checked("the square", [alone] * 3 + [both] * 5 + [alone] * 3 + [both] * 3)
    told = [(event.index, event.data["text"]) for event in events if event.type == "choice"]
    text = "2 things fit 'the square' about equally well: 1 at 4,4,12,12; 2 at 30,20,12,12; what is followed goes on"
    assert told == [(4, text), (12, text)]
    assert session.choice is None
    assert [one.box for one in session.state.active] == [RED]
    counts = [event.data.get("alike", 0) for event in events if event.type == "answer"]
    assert counts == [0, 0, 1, 1, 0, 0, 1]


def test_what_a_person_chose_or_was_told_at_once_is_no_event_later():
    both = [scene(red=(4, 4), blue=(30, 20))] * 6
    events, _ = checked("the square", both)
    assert [event.index for event in events if event.type == "choice"] == [0]
    system = Imat(Squares(), ColourNetwork(), "imat:squares+toy")
    session = Session(system.tracker(settings=["arbiter.every=2"]))
    session.on_choice = lambda choice: "2"
    session.say("the square")
    assert sum(event.type == "choice" for frame in both for event in session.step(frame).events) == 1


def test_whether_another_one_fits_is_answered_from_the_record():
    _, session = checked("the square", squares(1))
    offered = session.ask("is there another one that fits?").text
    assert offered.startswith("3 things fit 'the square' about equally well: 1 at 4,4,12,12; 2 at 60,40,12,12;")
    session.choose(2)
    session.step(squares(2)[1])
    assert session.ask("what else fits?").text == "Seen beside it, and less likely: 4,4,12,12; 30,20,12,12."
    _, session = checked("the green square", squares(1))
    assert session.ask("any others?").text == "Nothing else that would fit was seen where the words were last read."
    assert session.ask("why that one?").text.startswith("#1 'the green square', since frame 0: tracked at 60,40,12,12")
    session.say(box=(4, 4, 16, 16), kind="start")
    session.step(squares(2)[1])
    assert session.ask("is there another one that fits?").text.startswith("The record has no other candidates")


# On the command line


@pytest.fixture
def ambiguous(command, tmp_path, monkeypatch):
    """See `ambiguous_squares.command_of`."""
    return command_of(command, tmp_path, monkeypatch)


class Typed(io.StringIO):
    """Lines that are typed at a terminal."""

    def isatty(self):
        return True


def at_a_terminal(monkeypatch, *lines):
    monkeypatch.setattr("sys.stdin", Typed("".join(f"{line}\n" for line in lines)))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)


def yellow(picture):
    """How many pixels have about the colour of what is asked."""
    return int((np.abs(picture - np.array(ASKED)).max(axis=2) < 40).sum())


NUMBERED = "1 at 4,4,12,12; 2 at 60,40,12,12; 3 at 30,20,12,12"
SAY = "-i", "the square"


def test_the_best_is_followed_by_default_which_is_said_once_and_the_log_has_all_boxes(ambiguous):
    done = ambiguous(*SAY)
    assert (done.code, colours("out")) == (0, "r r r r r r")
    told = f"frame 0: 3 things fit 'the square' about equally well: {NUMBERED}; the first one is followed"
    advice = "say which one is meant, or use --on-ambiguous all, ask or fail"
    assert done.err == f"trackgpt: note: {told}; {advice}\n"
    (event,) = (event for event in read_events("out") if event.type == "choice")
    assert event.data["boxes"] == [list(RED), list(GREEN), list(BLUE)]


def test_all_are_followed_where_that_is_asked_for(ambiguous):
    done = ambiguous(*SAY, "--on-ambiguous", "all")
    assert (done.code, colours("out")) == (0, "rgb rgb rgb rgb rgb rgb")
    assert done.err.endswith(f"{NUMBERED}; all are followed\n")


def test_it_is_asked_at_a_terminal_until_there_is_an_answer(ambiguous, monkeypatch):
    at_a_terminal(monkeypatch, "7", "90,1", "the nice one", "65,45")
    done = ambiguous(*SAY, "--on-ambiguous", "ask")
    assert (done.code, colours("out")) == (0, "g g g g g g"), done.err
    assert done.err.count("which one? number, numbers, all, or x,y [1]: ") == 4
    assert "  out/picture.png\n" in done.err
    assert yellow(np.asarray(Image.open("out/picture.png"))) > 50
    at_a_terminal(monkeypatch, "")
    assert ambiguous(*SAY, "--on-ambiguous", "ask", "--overwrite").code == 0
    assert colours("out") == "r r r r r r"


@pytest.mark.parametrize(("typed", "answer", "asked"), [("9\nno\n2\n", "2", 3), ("\n", "", 1), ("\x04", "", 1)])
def test_a_real_terminal_asks_below_the_bar_and_takes_what_is_typed(monkeypatch, tmp_path, typed, answer, asked):
    keyboard, slave = pty.openpty()
    screen = bytearray()
    reading = threading.Thread(target=lambda: _read_all(keyboard, screen), daemon=True)
    reading.start()
    with open(slave, encoding="utf-8", closefd=False) as stdin, open(slave, "w", encoding="utf-8") as stderr:
        monkeypatch.setattr("sys.stdin", stdin)
        monkeypatch.setattr("sys.stderr", stderr)
        check_way("ask")
        session = tracker_of().session()
        session.say("the square")
        session.step(squares(1)[0])
        printer = Printer(quiet=False, as_json=False)
        with progress(4, quiet=False, printer=printer):
            os.write(keyboard, typed.encode())
            assert answering("ask", printer, tmp_path)(session.choice) == answer
    reading.join(5)
    shown = screen.decode()
    assert shown.count("which one? number, numbers, all, or x,y [1]: ") == asked
    assert "frame 0: 3 things fit 'the square' about equally well" in shown
    assert shown.index("0/4") < shown.index("which one?") < shown.rindex("0/4")  # the bar comes back afterwards


def _read_all(terminal, into):
    """Everything that a terminal shows until nobody writes to it any more."""
    with contextlib.suppress(OSError):
        while data := os.read(terminal, 65536):
            into += data


def test_without_a_terminal_there_is_nobody_to_ask(ambiguous):
    nobody = "asks at a terminal, and there is none; choose best, all or fail"
    for way, words in (("ask", nobody), ("maybe", "best, all")):
        done = ambiguous(*SAY, "--on-ambiguous", way)
        assert (done.code, len(done.err.splitlines())) == (2, 1)
        assert words in done.err
        assert not Path("out").exists()


@pytest.mark.parametrize(("choose", "followed"), [([1, 3], "rb"), ("65,45", "g"), ("the last one", "b")])
def test_a_script_chooses_and_the_run_is_a_script_itself(ambiguous, tmp_path, choose, followed):
    lines = {"frame": 2, "text": "the square"}, {"frame": 2, "choose": choose}
    (tmp_path / "said.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    done = ambiguous("--script", tmp_path / "said.jsonl")
    assert done.code == 0, done.err
    assert colours("out") == " ".join(["-"] * 2 + [followed] * 4)
    first = Path("out/tracks.jsonl").read_bytes()
    log = [event.to_json() for event in read_events("out") if event.type == "instruction"]
    Path("out").rename("first")
    for script in ("first", "log.jsonl"):
        Path("log.jsonl").write_text("".join(f"{line}\n" for line in log))
        assert ambiguous("--script", script, "--overwrite").code == 0
        assert Path("out/tracks.jsonl").read_bytes() == first


def test_a_choice_where_there_is_none_is_a_warning_and_a_wrong_one_in_a_script_is_refused(ambiguous, tmp_path):
    script = tmp_path / "said.jsonl"
    script.write_text('{"text": "the red square"}\n{"frame": 2, "choose": 2}\n')
    done = ambiguous("--script", script)
    assert (done.code, colours("out")) == (0, "r r r r r r")
    assert "warning: frame 2: 'choose 2' was not heeded: choose: there is nothing to choose from" in done.err
    for line in ('{"choose": 1.5}', '{"choose": 2, "text": "it"}', '{"text": "it", "chosen": [3], "offered": []}'):
        script.write_text(line)
        assert ambiguous("--script", script, "--overwrite").code == 3


def test_a_run_that_is_cut_after_a_choice_goes_on_to_the_same_bytes(ambiguous, command, tmp_path, monkeypatch):
    script = tmp_path / "said.jsonl"
    script.write_text('{"text": "the square"}\n{"frame": 0, "choose": 3}\n')
    assert ambiguous("--script", script).code == 0
    whole = Path("out/tracks.jsonl").read_bytes()
    segment, looked = ColourNetwork.segment, []

    def stop(self, frame, asked):
        looked.append(frame)
        if len(looked) == 5:
            raise KeyboardInterrupt
        return segment(self, frame, asked)

    monkeypatch.setattr(ColourNetwork, "segment", stop)
    assert ambiguous("--script", script, "--overwrite").code == 130
    monkeypatch.setattr(ColourNetwork, "segment", segment)
    frames = tmp_path / "0*.png"
    assert command("track", frames, "--resume", "out").code == 0
    assert Path("out/tracks.jsonl").read_bytes() == whole


def test_in_a_chat_the_frames_wait_and_a_number_answers(ambiguous, monkeypatch):
    lines = "the square\n2\n@2\n:choose 1\n:undo\n:choose 1 3\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    done = ambiguous(verb="chat")
    assert done.code == 0, done.err
    told = done.out.splitlines()
    assert told[0] == f"     0  choice        3 things fit 'the square' about equally well: {NUMBERED}"
    assert "  Chosen: 2 of 3.  #1 60,40,12,12" in told
    assert "  ! choose: there is nothing to choose from; what was said last fits one thing alone" in told
    assert colours("out").split()[-1] == "rb"


def test_a_choice_is_drawn_on_its_frame_with_a_number_in_every_box_and_soon_gone():
    frame, record = np.full((240, 320, 3), 60, np.uint8), TrackRecord(0, 0.0, (240, 320))
    boxes = [[40, 40, 120, 200], [200, 40, 280, 200]]
    captions = Captions()
    captions.hear(0.0, [EventRecord.of(0, "choice", 0, 0.0, text="two", boxes=boxes)])
    drawn = captions.on(frame, record)
    assert yellow(drawn[60:90, 40:41]) == 30
    assert yellow(drawn[100:140, 70:90]) > 100
    assert (drawn[:, 130:190] == 60).all()
    captions.hear(1.0, [])
    assert (captions.on(frame, record) == 60).all()
