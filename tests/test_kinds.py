"""Every kind of instruction on IMAT and on TrackGPT: what becomes of the targets, or the line that refuses it."""

import re

import numpy as np
import pytest
from scripted_model import ScriptedModel, picture
from toy_memory import ColourNetwork
from toy_systems import box_named, scene

from trackgpt.errors import UsageError
from trackgpt.export.prompts import read_prompts
from trackgpt.export.records import RunFolder, read_events, read_tracks
from trackgpt.reasoners.grounder import Candidate, Grounding
from trackgpt.session.playback import InstructionTracker
from trackgpt.session.session import Session
from trackgpt.systems.imat import Imat
from trackgpt.track import TrackState
from trackgpt.types import PROMPT_KINDS

COLOURS = ("red", "green", "blue", "yellow")


class Colours:
    """A grounder that finds the colours that are named; the roof of one is its upper left quarter."""

    name, licence, checks_every, reads_motion = "colours", "", 0, False

    def __init__(self, every=0):
        self.checks_every, self.asked = every, []

    def later(self, words):
        return words

    def ground(self, image, words, nearby=()):
        self.asked.append(words)
        found = []
        for colour in (colour for colour in COLOURS if colour in words.split()):
            x1, y1, x2, y2 = box_named(image, colour).tolist()
            if not np.isnan(x1):
                box = (x1, y1, (x1 + x2) / 2, (y1 + y2) / 2) if "roof" in words else (x1, y1, x2, y2)
                found.append(Candidate(box, 0.9, colour))
        return Grounding(tuple(found))


def imat(grounder=None):
    return InstructionTracker(Imat(grounder or Colours(), ColourNetwork(), "imat:colours+toy"))


def told(session, frames, said):
    """The results of frames, on which things are said by their number."""
    results = []
    for t, frame in enumerate(frames):
        if t in said:
            session.say(said[t])
        results.append(session.step(frame))
    return results


def followed(result):
    """The targets that are seen, with the colours on which they are."""
    image = result.frame
    found = {}
    for one in result.objects:
        if one.box is not None:
            x, y = int(one.box[0]) + 2, int(one.box[1]) + 2
            found[one.id] = next((c for c in COLOURS if box_named(image, c)[:2].tolist() == [x - 2, y - 2]), "?")
    return found


FRAME = scene(red=(4, 8), green=(30, 8), yellow=(60, 40))

# What is said first and then, and what is followed after it; or what a refusal says.
TABLE = {
    "start": ("the red square", None, {1: "red"}, {1}),
    "correct": ("the red square", "no, the green square", {1: "green"}, {1}),
    "switch": ("the red square", "now the green square", {2: "green"}, {2}),
    "resume": ("the red square; now the green square", "back to the red square", {1: "red"}, {1}),
    "refine": ("the red square", "now only its roof", {1: "red"}, {1}),
    "state": ("the red square", "it is now lying down", {1: "red"}, {1}),
    "absence": ("the red square", "it is behind the bus", {1: "red"}, "takes no hint that a target is hidden or gone"),
    "conditional": ("the red square", "the blue one; if not visible, the yellow square", {2: "yellow"}, {2}),
    "add": (
        "the red square",
        "also the yellow square",
        {1: "red", 2: "yellow"},
        "cannot add targets; name all of them",
    ),
    "drop": ("the red square and the green square", "stop following number 2", {1: "red"}, {1}),
    "question": ("the red square", "why that one?", {1: "red"}, {1}),
}


def test_the_table_has_every_kind():
    assert set(TABLE) == set(PROMPT_KINDS)


@pytest.mark.parametrize("kind", TABLE)
def test_a_kind_on_imat(kind):
    first, then, wanted, _ = TABLE[kind]
    session, result = imat().session(), None
    for text in (*first.split("; "), *([then] if then else [])):
        assert session.read(text).kind == kind or text != (then or first)
        session.say(text)
        result = session.step(FRAME)
    assert followed(result) == wanted
    assert [event.type for event in result.events][:1] == ["instruction"]


@pytest.mark.parametrize("kind", TABLE)
def test_a_kind_on_trackgpt(kind):
    first, then, _, wanted = TABLE[kind]
    session = InstructionTracker(ScriptedModel(), "scripted").session()
    for t, text in enumerate(first.split("; ")):
        session.say(text)
        result = session.step(picture(t))
    before = session.state
    if isinstance(wanted, str):
        with pytest.raises(UsageError, match=re.escape(wanted)):
            session.say(then)
        assert session.state is before
        return
    if then:
        session.say(then)
        result = session.step(picture(5))
    assert {one.id for one in result.objects} == wanted
    assert all(one.box for one in result.objects)


# What is hidden


def test_of_a_target_that_is_said_to_be_hidden_nothing_is_learned_until_a_search_finds_it():
    grounder = Colours(every=4)
    session = imat(grounder).session()
    frames = [scene(red=(4, 8 + t)) for t in range(24)]
    session.say("the red square")
    session.step(frames[0])
    session.step(frames[1])
    ((_, known),) = session.state.memory.segmenter.targets
    session.say("it is behind the bus")
    answers = [event.data["text"] for event in session.step(frames[2]).events if event.type == "answer"]
    assert answers == ["Nothing is learned of it until it is found again."]
    frozen = [session.step(frame) for frame in frames[3:17]]
    assert [followed(result) for result in frozen] == [{1: "red"}] * 14  # it looks like the target, and is shown
    ((_, memory),) = session.state.memory.segmenter.targets
    assert memory.seen == known.seen == 2
    found = session.step(frames[17])  # the first search, 15 frames after it was said
    assert [(e.data["reason"], e.data["verdict"]) for e in found.events if e.type == "rethink"] == [("lost", "keep")]
    session.step(frames[18])
    ((_, memory),) = session.state.memory.segmenter.targets
    assert memory.seen == 3
    assert grounder.asked == ["the red square"] * 6  # said, checked on frames 4, 8, 12 and 16, and searched for


def test_what_does_not_look_like_a_hidden_target_is_not_taken_for_it():
    system = Imat(Colours(), ColourNetwork(near=200), "imat:colours+toy")
    session = Session(system.tracker(settings=["banks.recognised=0.9"]))  # the cosine of red and yellow is 0.82
    session.say("the red square")
    session.step(scene(red=(4, 8)))
    bus = scene(yellow=(4, 8))  # the network takes yellow for red
    assert session.step(bus).objects[0].box is not None
    session.say("it left")
    assert [session.step(bus).objects[0].state for _ in range(3)] == ["absent"] * 3
    assert session.step(scene(red=(40, 30))).objects[0].box == (40, 30, 52, 42)


def test_a_hint_is_taken_back_to_the_bit_and_a_saved_state_keeps_it(tmp_path):
    session = imat().session()
    told(session, [FRAME] * 2, {0: "the red square"})
    before = session.state
    session.say("it is about to leave")
    session.step(FRAME)
    session.state.save(tmp_path / "state")
    again = TrackState.load(tmp_path / "state", session.tracker.kinds)
    assert again.memory.identities[0][1].frozen
    assert again.record.watches[0].hidden == 2
    session.undo()
    assert session.state is before


def test_which_of_two_is_hidden_must_be_said_unless_one_is_not_seen():
    session = imat().session()
    both = "the red square and the green square"
    told(session, [FRAME], {0: both})
    with pytest.raises(UsageError, match=r"absence: which of 1, 2\? Say so by ids"):
        session.say("keep searching")
    session.say("keep searching", kind="absence", ids=(2,))
    session.step(FRAME)
    assert [watch.hidden for watch in session.state.record.watches] == [-1, 1]
    other = imat().session()
    told(other, [FRAME, scene(green=(30, 8)), scene(green=(30, 8))], {0: both, 2: "keep searching"})
    assert [watch.hidden for watch in other.state.record.watches] == [2, -1]
    shown = imat().session()
    shown.say(box=(4, 8, 16, 20))
    shown.step(FRAME)
    with pytest.raises(UsageError, match="absence 1: it was shown and not named"):
        shown.say("it left", kind="absence")


# What comes true later


def test_a_condition_that_comes_true_later_is_seen_where_what_was_lost_is_searched_for(tmp_path):
    frames = [scene(red=(4, 8), green=(30, 8))] * 5 + [scene(green=(30, 8))] * 25
    words = "if the red square is gone, follow the green square"
    grounder = Colours()
    tracker = imat(grounder)
    with RunFolder(tmp_path / "run") as log:
        session = Session(tracker.stepping("auto"), tracker.check, log)
        results = told(session, frames, {0: "the red square", 2: words})
        here = [followed(result) for result in results]
        assert here == [{1: "red"}] * 5 + [{}] * 14 + [{2: "green"}] * 11
        assert grounder.asked == [
            *("the red square", "the red square"),  # the instruction, and the condition, which does not hold
            *("the red square", "the green square"),  # the search 15 frames after it was lost
        ]
        session.undo()
        assert [prompt.text for prompt in session.prompts] == ["the red square", "the red square"]
    said = [event for event in read_events(tmp_path / "run") if event.type == "instruction"][-1]
    assert (said.index, said.data["kind"], said.data["text"]) == (19, "switch", "the green square")
    assert (said.data["said"], said.data["meant"]) == (words, "conditional")


def test_what_is_followed_and_seen_holds_a_condition_off_even_where_the_grounder_misses_it():
    class Blind(Colours):
        """Sees green alone."""

        def ground(self, image, words, nearby=()):
            return super().ground(image, words if len(self.asked) < 1 or "green" in words else "", nearby)

    session = imat(Blind()).session()
    results = told(session, [FRAME] * 4, {0: "the red square", 2: "if the red square is gone, the green square"})
    assert [followed(result) for result in results] == [{1: "red"}] * 4


def test_of_a_condition_of_which_nothing_is_there_the_first_that_appears_is_followed():
    frames = [scene(yellow=(4, 8))] * 5 + [scene(yellow=(4, 8), green=(30, 8))] * 5
    results = told(imat().session(), frames, {0: "the red square; if it is not visible, the green square"})
    assert [followed(result) for result in results] == [{}] * 7 + [{1: "green"}] * 3


def test_another_instruction_ends_a_condition():
    frames = [scene(red=(4, 8), green=(30, 8), yellow=(60, 40))] * 4 + [scene(green=(30, 8))] * 30
    said = {0: "the red square; if it is not visible, the green square", 2: "now the yellow square"}
    assert followed(told(imat().session(), frames, said)[-1]) == {}


def test_what_is_to_be_added_and_not_there_is_added_when_it_appears(tmp_path):
    frames = [scene(red=(4, 8))] * 6 + [scene(red=(4, 8), green=(30, 8))] * 14
    grounder = Colours()
    session = imat(grounder).session()
    results = told(session, frames, {0: "the red square", 2: "also the green square"})
    assert [followed(result) for result in results] == [{1: "red"}] * 9 + [{1: "red", 2: "green"}] * 11
    asked = [(e.index, e.data["reason"], e.data["verdict"]) for r in results for e in r.events if e.type == "rethink"]
    assert asked == [(3, "wanted", "absent"), (5, "wanted", "absent"), (9, "wanted", "add")]
    assert grounder.asked == ["the red square", *["also the green square"[5:]] * 4]
    assert session.state.targets[1].prompt.frame == 2
    session.undo()
    assert [prompt.kind for prompt in session.prompts] == ["start"]


@pytest.mark.parametrize("said", ["now the yellow square", "stop"])
def test_what_was_to_be_added_is_not_looked_for_after_something_else_is_said(said):
    grounder = Colours()
    results = told(imat(grounder).session(), [FRAME] * 20, {0: "the red square", 1: "also the blue square", 2: said})
    assert not any(event.type == "rethink" for result in results for event in result.events)


# Taking back what was asked


def test_undo_after_a_question_takes_back_the_question_and_then_the_instruction(tmp_path):
    with imat().open([FRAME] * 8, out=tmp_path / "run") as playback:
        playback.say("the red square")
        results = iter(playback)
        next(results)
        playback.say("now the green square")
        next(results)
        state = playback.session.state
        playback.say("why that one?")
        assert playback.undo() == "why that one?"
        assert playback.session.state is state
        assert [result.index for result in results] == list(range(2, 8))
        assert playback.undo() == "now the green square"
        list(playback)
    assert [prompt.text for prompt in read_prompts(tmp_path / "run")] == ["the red square"]
    assert [prompt.text for prompt in read_prompts(tmp_path / "run", 1)] == ["the red square", "the green square"]


def trackgpt():
    return InstructionTracker(ScriptedModel(), "scripted").session()


def ids_of(result):
    return [one.id for one in result.objects]


def test_trackgpt_takes_up_a_former_target_under_its_number_by_its_words_and_reads_one_instruction_at_a_time():
    session = trackgpt()
    told(session, [picture(t) for t in range(3)], {0: "the red square", 1: "now the green square", 2: "stop"})
    assert [(target.id, target.active) for target in session.state.targets] == [(1, False), (2, False)]
    session.resume(ids=(2,))
    assert ids_of(session.step(picture(3))) == [2]
    session.say("back to the red square")
    assert ids_of(session.step(picture(4))) == [1]
    session.drop()
    session.step(picture(5))
    with pytest.raises(UsageError, match="reads one instruction at a time: resume one target"):
        session.resume(ids=(1, 2))
    with pytest.raises(UsageError, match="resume 7: targets that were given up are"):
        session.resume(ids=(7,))


@pytest.mark.parametrize("begin", [trackgpt, lambda: imat().session()])
def test_after_undo_back_to_the_first_one_is_the_first_one_under_its_number(begin):
    session = begin()
    told(session, [FRAME] * 2, {0: "the red square", 1: "now the green square"})
    session.undo()
    session.step(FRAME)
    assert session.say("back to the first one") is not None
    assert ids_of(session.step(FRAME)) == [1]


def test_two_instructions_about_one_frame_are_two_steps_over_it_and_one_record(tmp_path):
    with RunFolder(tmp_path / "run") as log:
        session = Session(imat().stepping("auto"), str, log)
        session.say("the red square")
        session.say("also the green square")
        both = [session.step(FRAME), session.step(FRAME)]
    once = imat().session()
    once.say("the red square and the green square")
    same = [once.step(FRAME), once.step(FRAME)]
    assert (session.state.frame, once.state.frame) == (3, 2)
    assert [[(o.id, o.box) for o in r.objects] for r in both] == [[(o.id, o.box) for o in r.objects] for r in same]
    assert [record.index for record in read_tracks(tmp_path / "run")] == [0, 1]
    assert [event.index for event in read_events(tmp_path / "run") if event.type == "instruction"] == [0, 0]


# What is not there


NOWHERE = ("now the blue thing", "no, the blue thing", "now only the blue thing")


@pytest.mark.parametrize("begin", [trackgpt, lambda: imat().session()])
@pytest.mark.parametrize("words", NOWHERE)
def test_words_for_nothing_on_the_frame_leave_what_is_followed_and_say_so_once(begin, words):
    session = begin()
    told(session, [FRAME], {0: "the red square"})
    box = session.last.objects[0].box
    results = told(session, [FRAME] * 3, {0: words})
    assert [(ids_of(result), result.objects[0].box) for result in results] == [([1], box)] * 3
    answers = [e.data["text"] for result in results for e in result.events if e.type == "answer"]
    assert [text.endswith("Still followed: 1 'the red square'.") for text in answers].count(True) == 1


def test_imat_looks_for_what_a_switch_did_not_find_and_then_follows_it_alone():
    frames = [scene(red=(4, 8))] * 6 + [scene(red=(4, 8), green=(30, 8))] * 10
    session = imat().session()
    results = told(session, frames, {0: "the red square", 2: "now the green square"})
    assert [followed(result) for result in results] == [{1: "red"}] * 9 + [{2: "green"}] * 7
    assert [(target.id, target.active) for target in session.state.targets] == [(2, True), (1, False)]


@pytest.mark.parametrize("said", ["now the yellow square", "yes, that one", "no, the yellow square", "stop"])
def test_what_a_switch_did_not_find_is_not_looked_for_once_a_person_goes_on_with_something_else(said):
    frames = [FRAME] * 4 + [scene(red=(4, 8), green=(30, 8), yellow=(60, 40), blue=(30, 40))] * 12
    results = told(imat().session(), frames, {0: "the red square", 1: "now the blue square", 2: said})
    assert not any("blue" in followed(result).values() for result in results)


def test_of_a_condition_the_second_option_counts_though_something_else_is_still_followed():
    results = told(
        imat().session(), [FRAME] * 3, {0: "the red square", 1: "the blue one; if not visible, the green one"}
    )
    assert [followed(result) for result in results] == [{1: "red"}, {2: "green"}, {2: "green"}]
