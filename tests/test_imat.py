"""IMAT from words to masks: a scripted grounder and a network that follows colours, and real networks in its place."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_checkpoints import sam2_video
from PIL import Image
from tiny_propagation import tiny_propagation
from toy_memory import ColourNetwork
from toy_systems import box_named, scene
from tracks import Track

from trackgpt import hub
from trackgpt.errors import UsageError
from trackgpt.export.records import read_events, read_tracks
from trackgpt.hub import grounded, load_model
from trackgpt.online import follow
from trackgpt.perception.memory_segmenter import SegmenterMemory
from trackgpt.perception.nano_memory import NanoMemory
from trackgpt.perception.sam2_memory import Sam2Memory
from trackgpt.reasoners.expression import lasting
from trackgpt.reasoners.grounder import Candidate, Grounding
from trackgpt.session.playback import InstructionTracker
from trackgpt.systems.imat import ABLATIONS, Imat
from trackgpt.track import TrackState
from trackgpt.types import Prompt, VisualPrompt

RED, GREEN = Prompt("the red one"), Prompt("the green one", kind="switch")


class Squares:
    """A grounder that sees the colours it is told of; the first so many times it is `mistaken`, and sees green."""

    name, licence, checks_every = "squares", "Apache-2.0", 0

    def __init__(self, reads_motion=False, mistaken=0):
        self.asked, self.nearby = [], []
        self.reads_motion, self.mistaken = reads_motion, mistaken

    def later(self, words):
        return lasting(words)

    def ground(self, image, words, nearby=()):
        self.asked.append(words)
        self.nearby.append([one.offset for one in nearby])
        found = []
        for phrase in words.split(" and ") if len(self.asked) > self.mistaken else ["green"]:
            box = box_named(image, phrase)
            if not np.isnan(box).any():
                found.append(Candidate(tuple(box.tolist()), 0.9, phrase))
        unjudged = ("fastest",) if self.reads_motion and not nearby and "fastest" in words else ()
        return Grounding(tuple(found), unjudged=unjudged)


def imat(grounder=None, **network):
    return Imat(grounder or Squares(), ColourNetwork(**network), "imat:squares+toy")


def moving(count=12, hidden=(), step=2):
    """A red square that goes down, and may be hidden, and a green one that stays."""
    frames = []
    for t in range(count):
        squares = {"green": (60, 40)} | ({} if t in hidden else {"red": (4, 8 + step * t)})
        frames.append(scene(**squares))
    return frames


def tops(seen):
    """The upper edge of the first target per frame, None where it is absent."""
    return [float(one.boxes[0, 1]) if len(one.ids) and one.present[0] else None for one in seen]


# From words to masks


def test_words_begin_a_track_that_the_network_follows_and_the_grounder_is_asked_once():
    grounder = Squares()
    seen = list(follow(imat(grounder).tracker(), moving(), [RED]))
    assert grounder.asked == ["the red one"]
    assert tops(seen) == [8.0 + 2 * t for t in range(12)]
    assert seen[0].masks[0].sum() == 144
    assert (seen[0].reason, seen[0].verdict) == ("prompt", "start")
    assert set(seen[0].own_scores) == {"iou", "presence", "margin", "likeness"}


def test_two_things_of_one_instruction_are_two_targets_each_as_if_alone():
    both = list(follow(imat().tracker(), moving(), [Prompt("the red one and the green one")]))
    alone = list(follow(imat().tracker(), moving(), [RED]))
    assert [one.ids.tolist() for one in both] == [[1, 2]] * 12
    for a, b in zip(both, alone, strict=True):
        np.testing.assert_array_equal(a.masks[0], b.masks[0])
        assert a.scores[0] == b.scores[0]


def test_words_that_nothing_matches_are_read_again_until_something_does():
    grounder = Squares()
    seen = list(follow(imat(grounder).tracker(), moving(20, hidden=range(6)), [RED]))
    assert [t for t, one in enumerate(seen) if one.reason] == [0, 1, 3, 7]
    assert [len(one.ids) for one in seen] == [0] * 7 + [1] * 13
    assert seen[7].verdict == "found"


def test_a_lost_target_is_searched_for_and_found_by_its_words():
    grounder = Squares()
    tracker = imat(grounder, forgetful=True).tracker()  # the network sees nothing but where something is shown
    seen = list(follow(tracker, moving(40, step=1), [RED]))
    assert [(t, one.reason, one.verdict) for t, one in enumerate(seen) if one.reason] == [
        (0, "prompt", "start"),
        (15, "lost", "found"),
        (30, "lost", "found"),
    ]
    assert [t for t, top in enumerate(tops(seen)) if top is not None] == [0, 15, 30]
    assert seen[39].ids.tolist() == [1]


def test_a_box_elsewhere_is_believed_at_the_fourth_check_and_what_was_shown_before_is_void():
    grounder = Squares(mistaken=1)  # takes green for red when it is first asked
    track = Track(imat(grounder).tracker(settings=["arbiter.every=4"]))
    seen = [track.look(frame, RED if t == 0 else None) for t, frame in enumerate(moving(20, step=1))]
    assert [(t, one.verdict) for t, one in enumerate(seen) if one.reason] == [
        (0, "start"),
        (4, "elsewhere"),
        (8, "elsewhere"),
        (12, "elsewhere"),
        (16, "reinit"),
    ]
    assert tops(seen)[14:18] == [40.0, 40.0, 24.0, 25.0]
    ((number, identity),) = track.state.memory.identities
    assert (number, seen[-1].ids.tolist()) == (1, [1])
    assert [view.frame for view in identity.positive] == [16]


def test_words_do_not_overrule_a_person_who_points():
    track = Track(imat().tracker(settings=["arbiter.every=2", "arbiter.insist=1"]))
    green = VisualPrompt((60.0, 40.0, 72.0, 52.0))
    said = {0: RED, 1: Prompt("", kind="correct", visual=(green,), ids=(1,))}
    seen = [track.look(frame, said.get(t)) for t, frame in enumerate(moving(12))]
    assert tops(seen)[1:] == [40.0] * 11
    assert not any(one.reason for one in seen[1:])


def test_a_switch_archives_the_old_target_whose_views_are_negative_then_and_a_resume_brings_it_back():
    track, frames = Track(imat().tracker()), moving()
    track.look(frames[0], RED)
    before = dict(track.state.memory.identities)[1]
    assert track.look(frames[1], GREEN).ids.tolist() == [2]
    margins = track.look(frames[2]).own_scores["margin"]
    assert 0 < margins[0] < 1  # green is more like green than like red
    back = track.look(frames[3], Prompt("", kind="resume", ids=(1,)))
    assert (back.ids.tolist(), tops([back])) == ([1], [14.0])
    after = dict(track.state.memory.identities)[1]
    assert after.positive[0].frame == before.positive[0].frame == 0
    assert [target.id for target in track.state.active] == [1]


@pytest.mark.parametrize("network", [ColourNetwork(), NanoMemory(tiny_propagation())])
def test_an_added_target_leaves_the_first_one_as_it_was_to_the_bit(network):
    alone, both = (Track(Imat(Squares(), network, "imat:squares+tiny").tracker()) for _ in range(2))
    for t, frame in enumerate(moving()):
        a = alone.look(frame, RED if t == 0 else None)
        b = both.look(frame, RED if t == 0 else Prompt("the green one", kind="add") if t == 3 else None)
        np.testing.assert_array_equal(a.masks[0], b.masks[0])
        assert a.own_scores["iou"][0] == b.own_scores["iou"][0]
    assert b.ids.tolist() == [1, 2]


def test_words_about_motion_are_read_again_once_there_is_motion_to_see():
    grounder = Squares(reads_motion=True)
    fastest = Prompt("the fastest red one")
    seen = list(follow(imat(grounder).tracker(), moving(20), [fastest]))
    assert [(t, one.reason) for t, one in enumerate(seen) if one.reason] == [(0, "prompt"), (12, "again")]
    assert grounder.nearby == [[], [-12, -9, -6, -3]]
    assert grounder.asked == ["the fastest red one"] * 2


def test_only_what_lasts_of_words_is_read_again_later():
    grounder = Squares()
    tracker = imat(grounder).tracker(settings=["arbiter.every=4"])
    list(follow(tracker, moving(6), [Prompt("the red one on the left")]))
    assert grounder.asked == ["the red one on the left", "red one"]


def test_what_is_pointed_at_is_followed_without_a_question_and_may_be_named():
    grounder = Squares()
    box = VisualPrompt((60.0, 40.0, 72.0, 52.0))
    seen = list(follow(imat(grounder).tracker(), moving(), [Prompt("", visual=(box,))]))
    assert grounder.asked == []
    assert tops(seen) == [40.0] * 12


# Ablations and settings


def test_every_ablation_runs_and_without_language_later_words_change_nothing():
    for name in ABLATIONS:
        assert len(list(follow(imat().tracker(name), moving(4), [RED]))) == 4
    said = [RED, replace(GREEN, frame=2)]
    ids = {name: [one.ids.tolist() for one in follow(imat().tracker(name), moving(4), said)] for name in ABLATIONS}
    assert ids["full"] == [[1], [1], [2], [2]]
    assert ids["no-language"] == [[1], [1], [1], [1]]


@pytest.mark.parametrize("setting", ["arbiter.search=[]", "banks.area=[1]", "looking.count=1000"])
def test_settings_that_cannot_be_are_refused_before_a_frame(setting):
    with pytest.raises(UsageError, match="wanted|range|looking"):
        imat().tracker(settings=[setting])


def test_a_track_that_jumps_to_a_rival_on_the_frame_that_asks_makes_the_rival_negative_and_keeps_its_own_look():
    system, frames = imat(), moving(8)
    track = Track(system.tracker(settings=["arbiter.every=4"]))
    for t, frame in enumerate(frames[:4]):
        track.look(frame, RED if t == 0 else None)
    red = dict(track.state.memory.identities)[1].positive[0]
    ((number, memory),) = track.state.memory.segmenter.targets  # jumps to green before the check on frame 4
    green = replace(memory, colour=np.array([40.0, 230.0, 40.0]))
    jumped = replace(track.state.memory, segmenter=SegmenterMemory(((number, green),)))
    track.state = replace(track.state, memory=jumped)
    seen = track.look(frames[4])
    assert (seen.verdict, tops([seen])) == ("reinit", [16.0])
    identity = dict(track.state.memory.identities)[1]
    assert [view.kind for view in identity.negative] == ["drift"]
    assert identity.negative[0].embedding @ red.embedding < 0.6
    assert identity.positive[0].frame == 0


def test_settings_are_read_strictly_and_those_of_the_network_reach_it():
    with pytest.raises(UsageError, match="tau"):
        imat().tracker(settings=["arbiter.tau=1"])
    with pytest.raises(UsageError, match="no-such"):
        imat().tracker("no-such")
    assert imat().tracker(settings=["network.near=5"]).perception.network.near == 5


# State


def test_a_saved_track_goes_on_bit_by_bit_and_a_rewound_one_too(tmp_path):
    system, frames = imat(Squares(reads_motion=True)), moving(16)
    whole, track = list(follow(system.tracker(), frames, [RED])), Track(system.tracker())
    for t, frame in enumerate(frames[:8]):
        track.look(frame, RED if t == 0 else None)
    kept = track.state
    kept.save(tmp_path / "state")
    for state in (kept, TrackState.load(tmp_path / "state", system.tracker().kinds)):
        track.state = state
        for frame, wanted in zip(frames[8:], whole[8:], strict=True):
            seen = track.look(frame)
            np.testing.assert_array_equal(seen.masks, wanted.masks)
            np.testing.assert_array_equal(seen.scores, wanted.scores)


def test_the_state_of_two_targets_does_not_grow_over_5000_frames():
    track = Track(imat(Squares(reads_motion=True)).tracker(settings=["arbiter.every=50"]))
    frames, sizes = moving(20, step=1), []
    for t in range(5000):
        track.look(frames[abs((t % 38) - 19)], Prompt("the red one and the green one") if t == 0 else None)
        sizes.append(track.state.nbytes)
    assert max(sizes[100:]) == min(sizes[100:])


# Real parts


@pytest.mark.parametrize("kind", ["nano-memory", "sam2"])
def test_either_network_keeps_views_in_the_banks_and_a_saved_state_goes_on(kind, tmp_path):
    if kind == "sam2":
        sam2_video(tmp_path / "sam2")
        network = Sam2Memory.from_pretrained(tmp_path / "sam2")
    else:
        network = NanoMemory(tiny_propagation())
    system = Imat(Squares(), network, "imat:squares+tiny")
    easy = ["banks.iou=0", "banks.area=[0,100]", "banks.gap=0", "banks.novel=1", "motion.overlap=0"]
    track, frames = Track(system.tracker(settings=easy)), moving(10)
    with torch.inference_mode():
        for t, frame in enumerate(frames):
            seen = track.look(frame, RED if t == 0 else None)
            if t == 6:
                track.state.save(tmp_path / "state")
        assert seen.masks.shape == (1, 60, 80)
        again = Track(system.tracker(settings=easy))
        again.state = TrackState.load(tmp_path / "state", system.tracker().kinds)
        for frame in frames[7:]:
            seen_again = again.look(frame)
    np.testing.assert_array_equal(seen.masks, seen_again.masks)
    ((_, identity),) = track.state.memory.identities
    ((_, memory),) = track.state.memory.segmenter.targets
    held = len(memory.kept)
    assert held == len(identity.kept)
    assert len(identity.positive) <= 4


def test_a_name_of_two_parts_loads_a_grounder_and_a_segmenter():
    name = grounded("nano", "nano-memory")
    assert name == "imat:nano+nano-memory"
    system = load_model(name)
    assert (system.config.grounder, system.config.network) == ("nano", "NanoMemory")
    assert imat().config.grounder_licence == "Apache-2.0"
    track = Track(system.tracker())
    assert track.look(scene(red=(30, 20)), Prompt("the red thing")).reason == "prompt"


def test_a_grounder_goes_with_nano_memory_unless_another_segmenter_is_named_and_never_with_a_preset():
    assert grounded("a.onnx", "nano") == grounded("a.onnx", "") == "imat:a.onnx+nano-memory"
    assert grounded("a.onnx", "sam2") == "imat:a.onnx+sam2"
    with pytest.raises(UsageError, match="small has a grounder already"):
        grounded("a.onnx", "small")


@pytest.mark.parametrize("name", ["imat:nano", "imat:+nano-memory", "imat:nano+nano"])
def test_a_name_without_a_segmenter_is_refused(name):
    with pytest.raises(UsageError, match="GROUNDER\\+SEGMENTER"):
        load_model(name)


def test_a_session_logs_questions_and_what_they_led_to():
    session = InstructionTracker(imat(forgetful=True)).session()
    session.say("the red one")
    events = [event for frame in moving(20, step=1) for event in session.step(frame).events]
    kinds = [event.type for event in events]
    assert kinds[:2] == ["instruction", "answer"]
    rethinks = [event for event in events if event.type == "rethink"]
    assert [(event.index, event.data["reason"], event.data["verdict"]) for event in rethinks] == [(15, "lost", "found")]


def test_the_command_line_takes_a_grounder_and_shows_what_it_chose_from(command, tmp_path, monkeypatch):
    for t, frame in enumerate(moving(9, step=1)):
        Image.fromarray(frame).save(tmp_path / f"{t:05d}.png")
    (tmp_path / "toy.onnx").touch()
    monkeypatch.setattr(hub, "load_grounder", lambda name, *how: Squares())
    done = command("track", tmp_path / "0*.png", "-i", "the red one", "--grounder", tmp_path / "toy.onnx", "-o", "out")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == "Found the red one."
    answer = next(event for event in read_events(Path("out")) if event.type == "answer")
    assert answer.data["boxes"] == [[4, 8, 16, 20]]
    assert answer.data["candidates"] == []
    assert "imat:" in Path("out/run.json").read_text()
    both = command(
        *("track", tmp_path / "0*.png", "-i", "the red one", "--grounder", tmp_path / "toy.onnx", "-o", "both"),
        *("--box", "2:60,40,12,12", "--strict"),
    )
    assert both.code == 0, both.err
    assert [len(record.objects) for record in read_tracks(Path("both"))] == [2] * 9
