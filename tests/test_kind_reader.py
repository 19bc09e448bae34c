"""Kinds of instructions that no rule knows, read by a vision-language model whose answers are written for it."""

import numpy as np
import pytest
from tiny_vlms import WRITERS, say
from toy_memory import ColourNetwork
from toy_systems import box_named, scene

from trackgpt.reasoners.grounder import Candidate, Grounding
from trackgpt.reasoners.instructions import understand
from trackgpt.reasoners.kind_reader import ASKED_KINDS, kind_in, question
from trackgpt.reasoners.references import Called, Context
from trackgpt.reasoners.vlm import VlmGrounder
from trackgpt.session.playback import InstructionTracker
from trackgpt.systems.imat import Imat

FOLLOWED = Context((Called(1, "the red square"),), said=("the red square",), last=(1,))
FRAME = scene(red=(4, 8), green=(30, 8))


@pytest.mark.parametrize(
    ("text", "sure"),
    [
        ("no, the black one", True),
        ("the dog on the left", True),
        ("the cat and the dog", True),
        ("I was hoping for her sister", False),
        ("the winner would interest me more", False),
    ],
)
def test_the_rules_are_sure_of_kinds_they_know_and_of_plain_noun_phrases(text, sure):
    assert understand(text, FOLLOWED).sure == sure
    assert understand(text).sure  # what is said first begins the track


def test_an_answer_names_one_kind_or_says_nothing():
    assert kind_in("Correct.") == "correct"
    assert kind_in("<answer>add</answer>") == "add"
    assert [kind_in(text) for text in ("", "drop", "switch or add", "I cannot know")] == [None] * 4
    asked = question("I was hoping for the other", FOLLOWED)
    assert all(f"\n{kind}: " in asked for kind in ASKED_KINDS)
    assert 'follows: the red square. The person who watches now says: "I was hoping for the other"' in asked


@pytest.mark.parametrize(("answer", "wanted"), [("Correct.", "correct"), ("well, who knows", None)])
def test_a_vision_language_model_reads_a_kind_and_one_without_a_chat_is_not_asked(tmp_path, answer, wanted):
    WRITERS["qwen2_5_vl"](tmp_path / "qwen")
    grounder = VlmGrounder.from_pretrained(tmp_path / "qwen")
    say(grounder, answer)
    assert grounder.reader.kind_of("I was hoping for her sister", FOLLOWED, np.zeros((56, 56, 3), np.uint8)) == wanted
    WRITERS["florence2"](tmp_path / "florence")
    assert VlmGrounder.from_pretrained(tmp_path / "florence").reader is None


class Scripted:
    """A grounder of colours that also says of what kind a sentence is."""

    name, licence, checks_every, reads_motion = "scripted", "", 0, False

    def __init__(self, kind):
        self.kind, self.read, self.reader = kind, [], self

    def kind_of(self, text, context, frame):
        self.read.append((text, [one.words for one in context.tracked], frame.shape))
        return self.kind

    def later(self, words):
        return words

    def ground(self, image, words, nearby=()):
        box = box_named(image, words)
        return Grounding(() if np.isnan(box).any() else (Candidate(tuple(box.tolist()), 0.9),))


@pytest.mark.parametrize(
    ("kind", "ids"), [("correct", [1]), ("add", [1, 2]), ("switch", [2]), (None, [2]), ("question", [1])]
)
def test_a_session_takes_words_that_no_rule_knows_as_the_model_reads_them(kind, ids):
    grounder, words = Scripted(kind), "I was hoping for a green thing"
    session = InstructionTracker(Imat(grounder, ColourNetwork(), "imat:scripted+toy")).session()
    session.say("the red square")
    session.step(FRAME)
    session.say(words)
    result = session.step(FRAME)
    assert grounder.read == [(words, ["the red square"], FRAME.shape)]
    assert [one.id for one in result.objects] == ids
    assert session.read(words, kind="switch").kind == "switch"  # a person overrules it, and it is not asked
    session.say("now the red square")
    assert len(grounder.read) == 1  # of this the rules are sure


def test_the_kind_that_a_model_read_is_in_the_log_with_the_words_and_is_taken_back_to_the_bit():
    grounder = Scripted("correct")
    session = InstructionTracker(Imat(grounder, ColourNetwork(), "imat:scripted+toy")).session()
    session.say("the red square")
    session.step(FRAME)
    before = session.state
    session.say("I was hoping for a green thing")
    (said,) = (event.data for event in session.step(FRAME).events if event.type == "instruction")
    assert (said["kind"], said["said"]) == ("correct", "I was hoping for a green thing")
    session.undo()
    assert session.state is before
