"""What sentences ask of a tracker, with traps that only look like a kind; and what a session makes of them."""

import random
import time
from dataclasses import replace

import numpy as np
import pytest
from scripted_model import ScriptedModel, picture
from toy_memory import ColourNetwork
from toy_systems import COLOURS, box_named, scene

from trackgpt.arbitration import Arbitration
from trackgpt.errors import InputError, UsageError
from trackgpt.export.prompts import prompt_of, read_prompts, written_prompt
from trackgpt.export.records import EventRecord, RunFolder, read_events, read_tracks
from trackgpt.online import follow
from trackgpt.perception.banked_segmenter import BankedMemory
from trackgpt.reasoners.grounder import Candidate, Grounding
from trackgpt.reasoners.instructions import understand
from trackgpt.reasoners.references import Called, Context, referred
from trackgpt.session.playback import InstructionTracker
from trackgpt.session.session import Session
from trackgpt.systems.imat import Imat
from trackgpt.track import TrackState
from trackgpt.types import PROMPT_KINDS, Cue, Prediction, Prompt, Target


def following(*words, former=(), last=None):
    """A track of targets 1, 2, ... of these words, after former ones."""
    first = len(former) + 1
    tracked = tuple(Called(first + k, each) for k, each in enumerate(words))
    gone = tuple(Called(k + 1, each) for k, each in enumerate(former))
    return Context(tracked, gone, (*former, *words), (tracked[-1].id,) if last is None else last)


CONTEXTS = {
    "nothing": Context(),
    "dog": following("the dog on the left"),
    "woman": following("track the woman in red"),
    "panda": following("the panda"),
    "player": following("the ball handler"),
    "head": following("the head of the woman in red"),
    "two": following("the brown dog", "the referee in black"),
    "back": following("the ball", former=("the rider in blue", "the white horse")),
    "thing": following("the biggest thing"),
    "shown": following(""),
    "sought": Context(said=("the dog on the left",)),
}

SENTENCES = """
nothing | the red car | start | the red car
nothing | track the dog on the left | start | track the dog on the left
nothing | who will win the race? | start | who will win the race?
nothing | which car is the fastest? | start | which car is the fastest?
nothing | what would you drink from? | start | what would you drink from?
nothing | the other dog | start | the other dog
nothing | stop sign | start | stop sign
nothing | the stop sign behind the bus | start | the stop sign behind the bus
nothing | the man with no hat | start | the man with no hat
nothing | back of the car | start | back of the car
nothing | the man with his back to the camera | start | the man with his back to the camera
nothing | no, the black one | start | no, the black one
nothing | the lost dog | start | the lost dog
nothing | the man or the woman | start | the man or the woman
nothing | why is the man running? | start | why is the man running?
nothing | now the cat | start | now the cat
nothing | the panda is now lying down | start | the panda is now lying down
nothing | a person is riding a horse in the water | start | a person is riding a horse in the water
nothing | also the referee | start | the referee
nothing | switch to the cat | start | the cat

dog | the cat | switch | the cat
dog | the second dog from the right | switch | the second dog from the right
dog | track the man with no hat | switch | track the man with no hat
dog | back of the car | switch | back of the car
dog | the back of the bus | switch | the back of the bus
dog | stop sign | switch | stop sign
dog | a drop of water | switch | a drop of water
dog | the man who stops the car | switch | the man who stops the car
dog | why is the man running? | switch | why is the man running?
dog | who is holding the ball? | switch | who is holding the ball?
dog | which animal is the fastest? | switch | which animal is the fastest?
dog | the lost cat | switch | the lost cat
dog | the man leaving the room | switch | the man leaving the room
dog | the dog that is leaving | switch | the dog that is leaving
dog | the dog the man is holding | switch | the dog the man is holding
dog | a dog is sitting in the basket | switch | a dog is sitting in the basket
dog | the man is running | switch | the man is running
dog | the man with the hidden face | switch | the man with the hidden face
dog | no one wears the hat | switch | no one wears the hat
dog | the man and the dog | switch | the man and the dog
dog | number 7 in white | switch | number 7 in white
dog | not moving car | switch | not moving car
dog | the dog with a ball in front of it | switch | the dog with a ball in front of it
dog | a hand is touching the cat near to him | switch | a hand is touching the cat near to him
dog | the woman with a bag next to her | switch | the woman with a bag next to her
dog | the also barking dog | switch | the also barking dog
dog | the wrong-way driver | switch | the wrong-way driver
dog | back to back dancers | switch | back to back dancers
dog | two men on the right | switch | two men on the right

dog | switch to the cat | switch | the cat
dog | Switch target to player #24 | switch | player #24
dog | change target to the man in blue, please | switch | the man in blue
dog | now the cat | switch | the cat
dog | now track the man in the hat | switch | the man in the hat
dog | ok, now follow the woman | switch | the woman
dog | the cat instead | switch | the cat
dog | actually, the cat | switch | the cat
dog | the black one | switch | the black dog
dog | track the black one | switch | the black dog
dog | the one behind it | switch | the dog behind the dog on the left
dog | the man next to it | switch | the man next to the dog on the left
dog | the other one | switch | the other dog
dog | the other dog | switch | the other dog
dog | another one | switch | another dog
dog | go to the one on the right | switch | the dog on the right
woman | his dog | switch | the dog of the woman in red
woman | now her dog | switch | the dog of the woman in red
woman | the man behind her | switch | the man behind the woman in red
thing | the smallest thing | switch | the smallest thing
thing | the red one | switch | the red one
shown | the black one | switch | the black one
sought | the cat | switch | the cat
sought | no, the black one | switch | the black dog

dog | no, the black one | correct | the black dog
dog | No. The black one! | correct | the black dog
dog | no the black one | correct | the black dog
dog | nope, the left one | correct | the left dog
dog | no, the one on the right | correct | the dog on the right
dog | no, on the right | correct | the dog on the right
dog | no, the cat | correct | the cat
dog | no, the other one | correct | the other dog
dog | no, the other dog | correct | the other dog
dog | no, the other | correct | the other dog
dog | no, another one | correct | another dog
dog | no, the one behind it | correct | the dog behind the dog on the left
dog | no, the black | correct | the black dog
dog | no, the second one from the left | correct | the second dog from the left
dog | no, I meant the black one | correct | the black dog
dog | I mean the cat | correct | the cat
dog | i said the white one | correct | the white dog
dog | not that one, the black one | correct | the black dog
dog | not the dog, the cat | correct | the cat
dog | not this but the black one | correct | the black dog
dog | that's not it | correct | the dog on the left
dog | that is not the dog | correct | the dog on the left
dog | it isn't the right one, the white one | correct | the white dog
dog | wrong | correct | the dog on the left
dog | no | correct | the dog on the left
dog | wrong dog | correct | the dog on the left
dog | the wrong dog, track the white one | correct | the white dog
dog | that's the wrong one | correct | the dog on the left
dog | you are tracking the wrong dog | correct | the dog on the left
dog | no, not that one, the black one | correct | the black dog
dog | no, that's wrong, the other one | correct | the other dog
dog | it's the black one | correct | the black dog
dog | oh no, the white dog | correct | the white dog
dog | no, please track the one in front | correct | the dog in front
woman | no, the one who is in blue | correct | the woman in blue
woman | no, the one wearing a hat | correct | the woman wearing a hat
woman | no, her dog | correct | the dog of the woman in red
two | no, the tall one | correct | the tall referee
two | no, the white dog | correct | the white dog

woman | now only her head | refine | the head of the woman in red
woman | Now only focus on her head | refine | the head of the woman in red
woman | only the head | refine | the head of the woman in red
woman | just her face | refine | the face of the woman in red
woman | focus on her left hand | refine | the left hand of the woman in red
woman | zoom in on the face | refine | the face of the woman in red
woman | her hat | refine | the hat of the woman in red
woman | the woman's face | refine | the woman's face
dog | the tail of the dog | refine | the tail of the dog
dog | now its tail | refine | the tail of the dog on the left
head | return to the full body | refine | the woman in red
head | now the whole body | refine | the woman in red
head | the whole woman again | refine | the woman in red
head | all of her | refine | the woman in red
woman | the head of a lion | switch | the head of a lion
woman | a hand | switch | a hand
woman | the man with the red face | switch | the man with the red face

back | Back to the rider who is in blue | resume | the rider in blue
back | back to the first one | resume | the rider in blue
back | go back to the horse | resume | the white horse
back | return to the rider | resume | the rider in blue
back | please go back to the white horse | resume | the white horse
back | resume the horse | resume | the white horse
back | the rider again | resume | the rider in blue
back | track the horse again | resume | the white horse
back | back to number 1 | resume | the rider in blue
back | switch back to the previous one | resume | the white horse
back | switch to number 2 | resume | the white horse
back | back to the young rider | resume | the rider in blue
back | go back | resume | the white horse
back | no, back to the horse | resume | the white horse
back | back to the woman in green | switch | the woman in green
back | the back of the horse | switch | the back of the horse
dog | back to the rider who is in blue | switch | the rider in blue

panda | the panda is now lying down | state | the panda lying down
panda | The panda is lying down now. | state | the panda lying down now
panda | it is now lying down | state | the panda lying down
panda | it's climbing a tree | state | the panda climbing a tree
panda | it turned around | state | the panda turned around
panda | it isn't moving | state | the panda not moving
dog | he is standing up | state | the dog standing up
dog | the dog is running | state | the dog running
dog | now it is behind the tree | absence |
woman | she has turned around | state | the woman in red turned around
woman | the woman in red is now sitting | state | the woman in red sitting
dog | yes, that one | state | the dog on the left
dog | that's right | state | the dog on the left

dog | it is about to leave | absence |
dog | it's about to move out of view | absence |
dog | The dog is about to move out of view | absence |
dog | the dog is leaving | absence |
dog | the dog is gone | absence |
dog | it has left the frame | absence |
dog | it disappeared | absence |
dog | it is hidden | absence |
dog | it's no longer visible | absence |
dog | he is not visible | absence |
dog | keep searching | absence |
dog | Keep looking for it | absence |
dog | keep looking for the dog | absence |
dog | dog lost. Keep searching | absence |
dog | target lost | absence |
dog | wait for it | absence |
dog | Dice with number 6 lost. Keep searching | absence |
woman | she will leave | absence |

nothing | track the ball handler; if not visible, the ball | conditional | the ball handler / the ball
nothing | Track the ball handler; if not visible, track the ball only | conditional | the ball handler / the ball
nothing | the man, otherwise the dog | conditional | the man / the dog
nothing | the man or else the dog | conditional | the man / the dog
nothing | if you can't see the man, track the dog | conditional | the man / the dog
nothing | if the man is not visible, follow the dog | conditional | the man / the dog
nothing | if there is no man, the dog | conditional | man / the dog
nothing | the dog if the man is hidden | conditional | the man / the dog
nothing | the man, or the dog if he is not there | conditional | the man / the dog
nothing | the man if visible, otherwise the dog | conditional | the man / the dog
dog | if it is hidden, track the cat | conditional | the dog on the left / the cat
dog | the black one; if not visible, the white one | conditional | the black dog / the white dog
dog | the man walking as if drunk | switch | the man walking as if drunk
dog | the otherwise white cat | switch | the otherwise white cat

dog | also the referee | add | the referee
dog | Also track the cat, please | add | the cat
dog | can you also follow the cat? | add | the cat
dog | track also the black one | add | the black dog
dog | and the cat | add | the cat
dog | and also the man in red | add | the man in red
dog | the cat, too | add | the cat
dog | the cat as well | add | the cat
dog | track the cat in addition | add | the cat
dog | add the cat | add | the cat
dog | plus the man | add | the man
dog | add the other one | add | the other dog
woman | also her dog | add | the dog of the woman in red

two | stop following the dog | drop | 1
two | stop tracking the referee | drop | 2
two | forget number 2 | drop | 2
two | forget the dog | drop | 1
two | drop #1 | drop | 1
two | remove the one in black | drop | 2
two | please stop tracking the brown dog now | drop | 1
two | don't track the dog any more | drop | 1
two | no longer follow the referee | drop | 2
two | drop the first one | drop | 1
two | ignore the referee | drop | 2
two | no, stop following the dog | drop | 1
two | stop tracking it | drop | 2
dog | stop tracking | drop |
dog | stop | drop |
dog | forget it | drop |
two | drop both | drop |
two | forget everything | drop |
two | stop following the horse | drop | the horse

dog | why that one? | question |
dog | Why? | question |
dog | why not the other one? | question |
dog | why this dog? | question |
dog | what are you tracking? | question |
dog | which one are you following? | question |
dog | who are you tracking | question |
dog | where is it? | question |
dog | what is that? | question |
dog | how sure are you? | question |
dog | are you sure? | question |
dog | is that the black dog? | question |
dog | why did you switch? | question |
dog | what is number 1? | question |
nothing | what are you tracking? | question |
dog | what do you see? | question |
dog | is there another one that fits? | question |
dog | are there any others like it? | question |
dog | is there a dog that fits the box? | switch | is there a dog that fits the box?
dog | is there another dog? | question |
dog | are there more dogs? | question |
dog | any others? | question |
dog | does anything else match? | question |
dog | what else do you see? | question |
nothing | is there another one that fits? | start | is there another one that fits?

panda | at the moment it is in the middle | state | the panda in the middle
panda | you should see it in the middle | state | the panda in the middle
panda | by now the panda has come to be in the middle | state | the panda in the middle
panda | you see the dog | switch | you see the dog
panda | only a part of it can be seen | absence |
panda | not all of it is visible right now | absence |
panda | you will lose sight of it soon | absence |
panda | it is on its way out, be ready | absence |
panda | part of the wall can be seen | switch | part of the wall can be seen

player | follow the dog, and the cat whenever it is out of sight | conditional | the dog / the cat
player | stay with the dog; while it cannot be seen, take the cat | conditional | the dog / the cat
player | keep to the dog, but follow the cat while it is gone | conditional | the dog / the cat
player | the dog as long as it is there, otherwise the cat | conditional | the dog / the cat
player | the man who waves while the dog is running | switch | the man who waves while the dog is running
player | the dog while it is gone | switch | the dog while it is gone

two | leave the brown dog out | drop | 1
two | the referee does not matter any more | drop | 2
two | the dog is no longer needed | drop | 1
two | leave that one and track the cat | switch | the cat
two | from now on the cat | switch | the cat
two | in addition keep an eye on the cat | add | the cat
"""
ROWS = [tuple(cell.strip() for cell in line.split("|")) for line in SENTENCES.splitlines() if line.strip()]


@pytest.mark.parametrize(("context", "sentence", "kind", "words"), ROWS, ids=[f"{row[0]}: {row[1]}" for row in ROWS])
def test_a_sentence_has_a_kind_and_its_words_are_written_out(context, sentence, kind, words):
    found = understand(sentence, CONTEXTS[context])
    named = " / ".join(map(str, (*found.ids, found.words) if kind == "drop" else (found.words, *found.instead)))
    assert (found.kind, named.removesuffix(" / ").strip()) == (kind, words)


def test_there_are_more_than_150_sentences_and_all_kinds_are_among_them():
    assert len(ROWS) > 200
    assert {row[2] for row in ROWS} == set(PROMPT_KINDS)


# Any text


def test_what_words_refer_to_is_found_by_number_by_order_and_by_name_and_several_by_a_plural_alone():
    dogs = (Called(1, "the brown dog"), Called(4, "the white dog"), Called(5, "the cat"))
    wanted = {
        **{"number 4": [4], "#5": [5], "the second one": [4], "the white one": [4], "the dogs": [1, 4]},
        **{"the dog": [], "all": [1, 4, 5], "the horse": [], "": []},
    }
    assert {words: [one.id for one in referred(words, dogs)] for words in wanted} == wanted


@pytest.mark.parametrize("text", [", ?", ", ;", ". .", "? ! ,", "again", "again , ?", ", again"])
def test_signs_alone_are_read_as_they_are_written(text):
    for context in CONTEXTS.values():
        assert understand(text, context).kind in PROMPT_KINDS


def test_any_text_is_understood_the_same_way_twice_and_names_something_unless_its_kind_does_without():
    rng = random.Random(0)
    words = [word for row in ROWS for word in row[1].split()] + list(",.;:!?'’-#()\n\t") + ["", "é", "犬", "\x00", "12"]
    for _ in range(600):
        text = rng.choice(["", " "]).join(rng.choices(words, k=rng.randrange(12)))
        context = rng.choice(list(CONTEXTS.values()))
        found = understand(text, context)
        assert found == understand(text, context)
        assert found.kind in PROMPT_KINDS
        assert found.words or found.kind in ("drop", "resume", "question", "absence") or not text


def test_a_long_text_is_read_in_a_moment():
    began = time.process_time()
    for unit in ("no, the ", "if not visible, ", "the one behind it ", "not ", "'s ", "a", "back to "):
        for length in (3_900, 400_000):
            understand((unit * length)[:length], CONTEXTS["dog"])
    assert time.process_time() - began < 5


# In a session


class Squares:
    """A grounder that knows colours: what the words name is found, the sure colours first; all else are rivals."""

    name, licence, checks_every, reads_motion = "squares", "", 0, False

    def __init__(self):
        self.asked = []

    def later(self, words):
        return words

    def ground(self, image, words, nearby=()):
        self.asked.append(words)
        boxes = [(name, box_named(image, name)) for name in COLOURS]
        there = [Candidate(tuple(box.tolist()), 0.9, name) for name, box in boxes if not np.isnan(box).any()]
        if "corner" in words:
            x1, y1, x2, y2 = there[0].box
            return Grounding((Candidate((x1, y1, (x1 + x2) / 2, (y1 + y2) / 2), 0.8, "corner"),))
        named = [one for one in there if one.label in words.split()]
        fits = named or ([] if any(colour in words.split() for colour in COLOURS) else there)
        return Grounding(tuple(fits[:1]), tuple(one for one in there if one not in fits[:1]) if fits else ())


FRAME = scene(red=(4, 8), green=(30, 8), yellow=(60, 40))
RED, GREEN, YELLOW = (4.0, 8.0, 16.0, 20.0), (30.0, 8.0, 42.0, 20.0), (60.0, 40.0, 72.0, 52.0)


def session_with(*words, log=None):
    """A session of an IMAT of toys that was told these things, one per frame; its grounder; and the last result."""
    grounder = Squares()
    tracker = InstructionTracker(Imat(grounder, ColourNetwork(), "imat:squares+toy"))
    session, result = Session(tracker.stepping("auto"), tracker.check, log), None
    for text in words:
        session.say(text)
        result = session.step(FRAME)
    return session, grounder, result


def found(result):
    return {one.id: one.box for one in result.objects}


def test_no_the_other_one_moves_the_target_to_the_next_best_and_it_stays_who_it_is():
    session, grounder, result = session_with("the square")
    assert found(result) == {1: RED}
    session.say("no, the other one")
    assert found(session.step(FRAME)) == {1: GREEN}
    assert grounder.asked == ["the square", "the other square"]
    said = session.prompts[-1]
    assert (said.kind, said.text, said.said, said.excluded) == (
        *("correct", "the other square", "no, the other one"),
        (1,),
    )
    session.undo()
    assert found(session.step(FRAME)) == {1: RED}


def test_a_correction_that_names_the_wrong_target_again_leaves_it_and_one_with_a_colour_moves_it():
    session, _, result = session_with("the red square", "no, the red one")
    assert found(result) == {1: GREEN}  # the next best: the person says that red is wrong
    session, _, result = session_with("the square", "no, the yellow one")
    assert found(result) == {1: YELLOW}


def test_there_and_back_again_in_words():
    _, grounder, result = session_with("the red square", "now the yellow one", "back to the first one")
    assert found(result) == {1: RED}
    assert grounder.asked[:2] == ["the red square", "the yellow square"]


def test_the_other_one_without_a_no_is_a_switch_to_somebody_new():
    session, _, result = session_with("the square", "the other one")
    assert found(result) == {2: GREEN}
    assert [target.id for target in session.state.targets if not target.active] == [1]


def test_one_more_and_one_less():
    session, _, result = session_with("the red square", "also the yellow one")
    assert found(result) == {1: RED, 2: YELLOW}
    session.say("and the other one, too")
    assert found(session.step(FRAME)) == {1: RED, 2: YELLOW, 3: GREEN}
    session.say("stop following the yellow square")
    assert found(session.step(FRAME)) == {1: RED, 3: GREEN}
    session.say("forget number 1")
    assert found(session.step(FRAME)) == {3: GREEN}
    with pytest.raises(UsageError, match="drop 'the horse': tracked are 3 'the other square'"):
        session.say("stop following the horse")


def test_a_part_is_shown_and_the_identity_stays_and_a_state_moves_nothing():
    _, grounder, result = session_with("the red square", "now only its corner")
    assert grounder.asked[-1] == "the corner of the red square"
    assert list(found(result)) == [1]
    session, grounder, _ = session_with("the red square")
    result_of = session.refine("the corner of the square")
    assert result_of.prompt is None  # about the next frame, which has not come
    session.step(FRAME)
    assert [target.id for target in session.state.active] == [1]
    assert session.state.prompt.kind == "refine"
    session, grounder, result = session_with("the red square", "it is now yellow")
    assert found(result) == {1: RED}
    assert (session.state.prompt.kind, session.state.text) == ("state", "the red square yellow")


def test_what_asks_changes_nothing_and_is_in_the_log(tmp_path):
    with RunFolder(tmp_path / "run") as log:
        session, grounder, result = session_with("the square", log=log)
        before = session.state
        told = session.say("why that one?")
        assert session.state is before
        assert session.ask().text == told.text
        after = session.step(FRAME)
    assert "#1 'the square', since frame 0: tracked at 4,8,12,12, score" in told.text
    assert "Passed over: 30,8,12,12; 60,40,12,12" in told.text
    assert (told.prompt.kind, [one.id for one in told.objects]) == ("question", [1])
    assert found(after) == found(result)
    said = [event for event in read_events(tmp_path / "run") if event.type == "instruction"]
    assert [event.data["kind"] for event in said] == ["start", "question", "question"]
    assert len(grounder.asked) == len(read_prompts(tmp_path / "run")) == 1


def test_a_question_before_anything_was_said_is_answered_too():
    session, _, _ = session_with()
    assert session.say("what are you tracking?").text == "Nothing has been said yet."


def test_of_a_conditional_the_first_that_is_found_is_followed(tmp_path):
    words = "track the blue square; if not visible, the yellow one"
    with RunFolder(tmp_path / "run") as log:
        session, grounder, result = session_with("the red square", words, log=log)
        session.undo()
        assert found(session.step(FRAME)) == {1: RED}
    assert found(result) == {2: YELLOW}
    assert grounder.asked[:3] == ["the red square", "the blue square", "the yellow square"]
    said = [event.data for event in read_events(tmp_path / "run") if event.type == "instruction"][-1]
    assert said == {
        **{"text": "the yellow square", "kind": "switch", "said": words},
        **{"instead": ["the blue square"], "meant": "conditional"},
    }


def test_a_kind_that_is_given_is_taken_as_it_is_and_the_words_too():
    session, grounder, _ = session_with("the red square")
    session.add("no, the yellow one")
    assert found(session.step(FRAME)) == {1: RED, 2: YELLOW}
    session.drop("the red square")
    assert found(session.step(FRAME)) == {2: YELLOW}
    session.resume("the red one")
    assert found(session.step(FRAME)) == {1: RED}
    session.switch("the green square")
    assert found(session.step(FRAME)) == {3: GREEN}
    session.correct("the yellow square")
    assert found(session.step(FRAME)) == {3: YELLOW}
    assert "no, the yellow one" in grounder.asked
    with pytest.raises(UsageError, match="drop 'the cat': tracked are 3 'the yellow square'"):
        session.drop("the cat")


def test_two_things_said_about_one_frame_are_understood_one_after_the_other():
    session, grounder, _ = session_with()
    session.say("the square")
    session.say("no, the other one")
    session.say("also the yellow one")
    result = session.step(FRAME)
    assert found(result) == {1: GREEN, 2: YELLOW}
    assert [prompt.kind for prompt in session.prompts] == ["start", "correct", "add"]


def test_what_is_planned_is_understood_when_its_frame_comes():
    said = {0: "the square", 2: "no, the other one", 4: "also the yellow one", 6: "stop following the yellow square"}
    with InstructionTracker(Imat(Squares(), ColourNetwork(), "imat:squares+toy")).open([FRAME] * 9) as playback:
        for frame, words in {**said, 8: "stop following the horse"}.items():
            playback.say(words, frame=frame)
        results = list(playback)
    assert [found(result) for result in results[1::2]] == [{1: RED}, {1: GREEN}, {1: GREEN, 2: YELLOW}, {1: GREEN}]
    (warning,) = (event for event in results[8].events if event.type == "warn")
    assert "drop 'the horse': tracked are 1 'the other square'" in warning.data["text"]
    playback.close()


def test_every_kind_is_taken_back_to_the_bit():
    for words in (row[1] for row in ROWS if row[0] == "dog"):
        session, _, _ = session_with("the red square")
        before = session.state
        try:
            session.say(words)
            session.step(FRAME)
        except UsageError:
            assert session.state is before
            continue
        if len(session.prompts) > 1:
            session.undo()
            assert session.state is before


def test_what_was_said_can_be_said_again_from_the_log_with_the_same_result(tmp_path):
    said = (
        "the square",
        "no, the other one",
        "also the yellow one",
        "forget number 1",
        "why?",
        "the blue one or else red",
    )
    said = (*said, "the blue square; if not visible, the red square", "back to the yellow one", "it is leaving")
    with RunFolder(tmp_path / "run") as log:
        session_with(*said, log=log)
    prompts, records = read_prompts(tmp_path / "run"), list(read_tracks(tmp_path / "run"))
    assert [prompt.heard for prompt in prompts] == [words for words in said if words != "why?"]
    tracker = Imat(Squares(), ColourNetwork(), "imat:squares+toy").tracker()
    for record, seen in zip(records, follow(tracker, [FRAME] * len(said), prompts), strict=True):
        assert [one.id for one in record.objects] == seen.ids.tolist()
        assert [one.box for one in record.objects] == [tuple(box) for box in seen.boxes.tolist()]
    with RunFolder(tmp_path / "again") as log:
        again, _, _ = session_with(log=log)
        for t in range(len(said)):
            for prompt in (one for one in prompts if one.frame == t):
                again.say(prompt)
            again.step(FRAME)
    assert (tmp_path / "again" / "tracks.jsonl").read_bytes() == (tmp_path / "run" / "tracks.jsonl").read_bytes()


def test_an_older_log_is_read_and_a_damaged_one_is_refused():
    old = EventRecord.of(0, "instruction", 3, 0.1, text="the dog", kind="switch")
    assert prompt_of(old) == Prompt("the dog", 3, "switch")
    whole = Prompt("the black dog", 3, "correct", said="no, the black one", excluded=(1,), instead=("the cat",))
    written = EventRecord.of(0, "instruction", 3, 0.1, **written_prompt(whole))
    assert prompt_of(EventRecord.from_json(written.to_json())) == whole
    for name, value in (("said", 3), ("excluded", ["a"]), ("excluded", 1), ("instead", "the cat"), ("instead", [1])):
        with pytest.raises(InputError, match=name):
            prompt_of(replace(written, data={**written.data, name: value}))


def test_a_brain_gets_the_words_written_out_and_what_it_cannot_do_is_refused():
    tracker = InstructionTracker(ScriptedModel(), "scripted")
    session = tracker.session()
    for t, words in enumerate(("the red square", "no, the green one", "now only its edge", "the square is now blue")):
        session.say(words)
        session.step(picture(t))
    assert tracker.model.heard[:2] == ["the red square", "the green square"]
    assert session.prompts[1].kind == "correct"
    with pytest.raises(UsageError, match="TrackGPT cannot add targets|scripted cannot add targets"):
        session.say("also the green one")
    session.say("back to the first one")
    assert [one.id for one in session.step(picture(4)).objects] == [1]
    assert tracker.model.heard[-1] == "the green square"  # as which it was given up


def test_a_tracker_is_told_no_question():
    tracker = Imat(Squares(), ColourNetwork(), "imat:squares+toy").tracker()
    with pytest.raises(UsageError, match="told no question; say it to a session"):
        list(follow(tracker, [FRAME], [Prompt("why?", kind="question")]))


# Whom the arbiter believes


def corrected(prompt, boxes, rivals=(), tracked=RED):
    """The verdict on a prompt about target 1, where it is tracked and what the grounder sees."""
    rule = Arbitration("toy")
    state = TrackState(BankedMemory(), rule.begin(), targets=(Target(1, Prompt("the square"), tracked),))
    here = tracked is not None
    places = np.array([tracked or (np.nan,) * 4], np.float32)
    seen = Prediction(places, None, np.float32([0.9]), np.array([here]), np.array([1]))
    cue = Cue("", boxes=np.float32(boxes).reshape(-1, 4), rivals=np.float32(rivals).reshape(-1, 4))
    verdict = rule.judge(state, seen, cue, prompt)
    shown = () if verdict.cue is None else tuple(one.box for one in verdict.cue.visual)
    return verdict.kind, shown, verdict.rejected


def test_a_correction_passes_over_the_target_that_is_wrong():
    wrong = Prompt("the square", kind="correct")
    assert corrected(wrong, [], [GREEN]) == ("absent", (), ())  # nothing was found, and rivals are anything then
    assert corrected(wrong, [RED], [RED, GREEN, YELLOW]) == ("correct", (GREEN,), (1,))
    assert corrected(wrong, [GREEN], [RED]) == ("correct", (GREEN,), (1,))
    assert corrected(wrong, [RED])[0] == "keep"
    assert corrected(replace(wrong, excluded=(1,)), [RED]) == ("absent", (), ())


def test_a_switch_passes_over_what_is_excluded_and_without_that_keeps_it():
    switch = Prompt("the other square", kind="switch", excluded=(1,))
    assert corrected(switch, [RED], [GREEN]) == ("switch", (GREEN,), ())
    assert corrected(replace(switch, excluded=()), [RED], [GREEN])[0] == "keep"
    assert corrected(switch, [RED]) == ("absent", (), ())


def test_a_part_is_looked_for_in_the_target_and_a_state_moves_a_lost_target_alone():
    part = (6.0, 10.0, 10.0, 14.0)
    assert corrected(Prompt("its head", kind="refine"), [GREEN], [part]) == ("refine", (part,), ())
    state = Prompt("the square lying down", kind="state")
    assert corrected(state, [GREEN])[:2] == ("elsewhere", ())
    assert corrected(state, [GREEN], tracked=None) == ("found", (GREEN,), ())
    assert corrected(state, [])[0] == "absent"
