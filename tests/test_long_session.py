"""Holding a long session: the small version of `make talk`, on squares that a toy follows by their colours."""

import numpy as np
import pytest
from long_session import hold, turning
from toy_memory import ColourNetwork
from toy_systems import ToyImat, scene

from trackgpt.session.playback import InstructionTracker
from trackgpt.synthtrack.interaction import write_script
from trackgpt.synthtrack.language import Seen
from trackgpt.systems.imat import Imat, TrackerGrounder

FRAMES = 300
COLOURS = ("red", "green", "blue", "yellow")


@pytest.fixture(scope="module")
def held():
    """300 frames of four squares that move about; on every 6th of the first half another sentence is said."""
    places = turning(20, FRAMES)
    frames = (scene(red=(4 + t, 8), green=(56 - t, 44), blue=(30, 24 + t // 4), yellow=(60, 4)) for t in places)
    said = {0: "the red one"}
    for k, t in enumerate(range(6, FRAMES // 2, 6)):
        one, other = COLOURS[k % 4], COLOURS[(k + 1) % 4]
        kinds = (f"switch to the {one} one", f"no, the {other} one", f"also the {one} one", "why that one?")
        said[t] = (*kinds, f"back to the {other} one", "it is about to disappear", "forget number 99")[k % 7]
    session = InstructionTracker(Imat(TrackerGrounder(ToyImat(), "toy"), ColourNetwork(), "imat:toy+toy")).session()
    return session, said, hold(session, frames, FRAMES, said)


def test_every_instruction_of_a_session_can_be_taken_back_to_the_bit(held):
    session, _, came = held
    assert came.said == 25
    assert came.undone >= 12
    assert came.restored == came.undone
    assert session.prompts == ()


def test_what_a_session_cannot_do_is_refused_and_it_goes_on(held):
    _, said, came = held
    assert came.refused == sum("99" in text for text in said.values()) == 3
    assert len(came.boxes) == FRAMES


def test_the_state_of_a_session_does_not_grow_while_nothing_new_is_said(held):
    _, _, came = held
    assert came.state_bytes[0] < came.state_bytes[4]
    assert max(came.state_bytes[6:]) == came.state_bytes[5] > 0


def test_questions_that_nobody_asked_for_stay_within_their_budget(held):
    _, _, came = held
    assert came.budget == pytest.approx(3 + 0.03 * FRAMES)
    assert came.unasked <= came.budget


def test_a_clip_is_played_forwards_and_backwards_in_turns():
    assert turning(4, 9) == [0, 1, 2, 3, 2, 1, 0, 1, 2]


def test_a_script_says_as_much_as_its_gap_has_room_for():
    clear = {1: ("dog", "red", 0.05), 2: ("dog", "blue", 0.4), 3: ("clock", "green", 0.75)}
    frame = [Seen(n, *one[:2], "medium", (one[2], 0.4, one[2] + 0.15, 0.6), 0.03, 1.0) for n, one in clear.items()]
    for gap in ((5, 5), (8, 12), (1, 1)):
        script = write_script([frame] * 121, "free", [None] * 121, "test", np.random.default_rng(0), gap)
        apart = np.diff([each.frame for each in script.said])
        assert gap[0] <= apart.min()
        assert 120 // gap[1] - 2 <= len(script.said) <= 120 // gap[0] + 1
