"""ReasoningTrack: when a target is described anew, which words are in force, and the whole system on real files."""

import numpy as np
import pytest
import tiny_vlms
from scripted_model import film
from tiny_boxes import tiny_tracker, written_tracker

from trackgpt.arbiter import ChangeArbiter, ChangeSettings
from trackgpt.errors import InputError, ModelError, UsageError
from trackgpt.export.records import read_events, read_tracks
from trackgpt.geometry.boxes import box_iou
from trackgpt.geometry.masks import box_of
from trackgpt.hub import load_model, load_trackgpt, parts_of
from trackgpt.online import Tracker, follow
from trackgpt.perception.box_tracker import FollowedBox
from trackgpt.perception.memory_segmenter import SegmenterMemory
from trackgpt.reasoners.describer import DescriberAnswer, ParsedDescription, VlmDescriber
from trackgpt.reasoners.grounder import Candidate, Grounding
from trackgpt.session.playback import InstructionTracker
from trackgpt.session.session import Session
from trackgpt.synthtrack.clips import make_case
from trackgpt.systems.reasoningtrack import BrainDescriber, ReasoningTrack, named_at
from trackgpt.track import TrackState
from trackgpt.types import Cue, Prediction, Prompt, VisualPrompt

BOX = (20.0, 16.0, 44.0, 40.0)
ELSEWHERE = (40.0, 30.0, 60.0, 50.0)
CHANGED = ("arbiter.every=2", "arbiter.shift=0", "arbiter.area=1")
"""With a random network a box moves on every frame: it is described anew on frames 3, 5, 7 and so on."""


class Scripted:
    """A describer that says what it is told to, and remembers what it was asked; "" says no."""

    name, licence, sees = "scripted", "", True

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = list(answers), []

    def describe(self, before, box, now, words, last):
        self.asked.append((before, box, now, words))
        words = self.answers.pop(0) if self.answers else ""
        return DescriberAnswer(
            ParsedDescription(bool(words), words, "because", True, True), f"answer {len(self.asked)}"
        )


class Pointing:
    """A grounder that finds its boxes on the frames on which it has any."""

    name, licence, reads_motion, checks_every = "pointing", "", False, 0

    def __init__(self, *found) -> None:
        self.found, self.asked = list(found), []

    def later(self, words):
        return words

    def ground(self, image, words, nearby=()):
        self.asked.append(words)
        box = self.found.pop(0) if self.found else None
        return Grounding((Candidate(box, 0.5, words),) if box else ())


def video(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 64, 80, 3), np.uint8))


def system(describer=None, grounder=None) -> ReasoningTrack:
    return ReasoningTrack(tiny_tracker(), describer or Scripted(), grounder, "tiny")


def shown(words: str = "the red car", frame: int = 0, **how) -> Prompt:
    return Prompt(words, frame, visual=(VisualPrompt(BOX),), **how)


def run(model, count=8, *settings, ablation="full", said=None):
    return list(follow(model.tracker(ablation, settings or CHANGED), video(count), said or [shown()]))


# --- when ---


class Placed:
    """A perception without a network: the target is where it is put, in frames of 320 x 640."""

    def __init__(self, moves) -> None:
        self.moves = dict(moves)

    def perceive(self, frame, state, cued):
        (target,) = state.active
        box = self.moves.get(state.frame, target.box or state.cue.visual[0].box)
        memory = FollowedBox(np.zeros((4, 4, 3), np.uint8), (), 1, 0, None, box, (320, 640))
        one = np.ones(1, np.float32)
        return Prediction(np.float32([box]), None, one, one > 0, np.array([1])), SegmenterMemory(((1, memory),))


def asked_at(every=10, moves=(), frames=45, **how) -> list[int]:
    """Frames on which the rule asks, of a target of 20 x 20 pixels that goes where `moves` says."""

    class Keeping:
        def reason(self, frame, state, prompt):
            return Cue(state.cue.text, visual=(VisualPrompt(state.active[0].box),))

    arbiter = ChangeArbiter("tiny", ChangeSettings(every=every, **how), False)
    tracker = Tracker(Keeping(), Placed(moves), arbiter, SegmenterMemory())
    said = [Prompt("it", visual=(VisualPrompt((100.0, 100.0, 120.0, 120.0)),))]
    seen = follow(tracker, [np.zeros((320, 640, 3), np.uint8)] * frames, said)
    return [t for t, one in enumerate(seen) if one.reason]


def test_a_target_that_stays_as_it_is_is_never_described_anew():
    assert asked_at() == []


def test_a_corner_that_moves_by_more_than_a_32nd_of_the_frame_is_described_on_the_frame_after_the_tenth():
    assert asked_at(moves=[(4, (121, 100, 141, 120))]) == [11]  # 21 of 640 pixels to the right: 1 / 30.5
    assert asked_at(moves=[(4, (119, 100, 139, 120))]) == []  # 19: 1 / 33.7
    assert asked_at(moves=[(4, (100, 111, 120, 131))]) == [11]  # 11 of 320 down
    assert asked_at(moves=[(14, (200, 100, 220, 120))]) == [21]
    assert asked_at(moves=[(4, (200, 100, 220, 120)), (12, (300, 100, 320, 120))]) == [11, 21]


def test_a_target_that_shrinks_to_less_than_95_percent_of_its_area_is_described_and_a_growing_one_is_not():
    assert asked_at(moves=[(4, (100, 100, 118, 120))]) == [11]
    assert asked_at(moves=[(4, (100, 100, 119.5, 120))]) == []
    assert asked_at(moves=[(4, (100, 100, 125, 120))]) == []


def test_the_last_time_counts_and_not_the_beginning():
    away, back = (4, (200, 100, 220, 120)), (15, (100, 100, 120, 120))
    assert asked_at(moves=[away, back]) == [11, 21]
    assert asked_at(moves=[away, (8, (100, 100, 120, 120))]) == []
    assert asked_at(every=5, moves=[away], frames=30) == [6]


# --- words ---


def test_a_describer_is_asked_about_the_last_described_frame_and_this_one_and_its_words_are_followed():
    describer = Scripted("a blue car", "", "a car behind a tree")
    seen = run(system(describer), 9)
    assert [(t, p.reason, p.verdict) for t, p in enumerate(seen) if t and p.reason] == [
        (3, "describe", "describe"),
        (5, "describe", "keep"),
        (7, "describe", "describe"),
    ]
    frames = video(9)
    before, box, now, words = describer.asked[0]
    assert np.array_equal(before, frames[0])
    assert np.array_equal(now, frames[3])
    assert (box, words) == (BOX, "the red car")
    assert np.array_equal(describer.asked[1][0], frames[3])
    assert [words for *_, words in describer.asked] == ["the red car", "a blue car", "a blue car"]
    assert [p.cue.text for p in seen if p.reason == "describe"] == ["a blue car", "a blue car", "a car behind a tree"]
    assert seen[3].cue.reasoning == "because"
    assert all(p.ids.tolist() == [1] for p in seen)
    still = run(system(Scripted()), 9)
    assert np.array_equal(still[3].boxes, seen[3].boxes) is False
    assert np.array_equal(still[2].boxes, seen[2].boxes)


def test_with_the_papers_fallback_no_returns_to_the_words_of_the_instruction():
    describer = Scripted("a blue car", "", "a car behind a tree")
    seen = run(system(describer), 9, *CHANGED, "arbiter.fallback=initial")
    assert [p.cue.text for p in seen if p.reason == "describe"] == ["a blue car", "the red car", "a car behind a tree"]
    assert [words for *_, words in describer.asked] == ["the red car"] * 3


def test_without_describing_and_without_words_nobody_is_asked():
    describer = Scripted("a blue car")
    plain = run(system(describer), 6, ablation="no-describing")
    wordless = run(system(describer), 6, ablation="no-words")
    assert describer.asked == []
    assert not any(p.reason for p in (*plain, *wordless))
    assert not np.array_equal(plain[5].boxes, wordless[5].boxes)
    assert np.array_equal(wordless[5].boxes, run(system(), 6, ablation="no-words", said=[shown("")])[5].boxes)


def test_a_person_corrects_the_box_or_the_words_and_switches_and_drops():
    model = system()
    said = [
        shown(),
        Prompt("it is blue now", 1, "state"),
        Prompt("", 2, "correct", visual=(VisualPrompt((0.0, 0.0, 20.0, 20.0)),)),
        Prompt("the dog", 3, "switch", visual=(VisualPrompt(BOX),)),
        Prompt("", 4, "drop"),
    ]
    tracker, states = model.tracker(), []
    state = tracker.begin()
    for frame, prompt in zip(video(6), [*said, None], strict=True):
        state, seen = tracker.step(state, frame, prompt)
        states.append((state.cue.text, seen.ids.tolist(), seen.boxes.round().tolist()))
    assert [words for words, _, _ in states][:4] == ["the red car", "it is blue now", "it is blue now", "the dog"]
    assert [ids for _, ids, _ in states] == [[1], [1], [1], [2], [], []]
    assert states[2][2] == [[0, 0, 20, 20]]


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (Prompt("the red car"), "begins with a box"),
        (shown(kind="add"), "follows one target"),
        (Prompt("", visual=(VisualPrompt(BOX), VisualPrompt(BOX))), "follows one target"),
        (Prompt("", visual=(VisualPrompt(points=((5.0, 5.0, 1),)),)), "points were given"),
    ],
)
def test_what_the_system_cannot_do_is_refused_in_a_line(prompt, said):
    tracker = system().tracker()
    with pytest.raises(UsageError, match=said):
        tracker.step(tracker.begin(), video(1)[0], prompt)


def test_words_alone_begin_a_track_where_a_grounder_finds_them_and_are_searched_until_then():
    model = system(grounder=Pointing(None, BOX))
    seen = run(model, 8, "arbiter.search_every=3", said=[Prompt("the red car")])
    assert [(t, p.reason) for t, p in enumerate(seen) if p.reason] == [(0, "prompt"), (3, "searching")]
    assert [len(p.ids) for p in seen] == [0, 0, 0, 1, 1, 1, 1, 1]
    assert seen[3].boxes.tolist() == [list(BOX)]


def test_a_switch_that_the_grounder_does_not_find_keeps_the_target_and_its_words():
    said = [Prompt("the red car"), Prompt("the dog", 3, "switch")]
    seen = run(system(grounder=Pointing(BOX, None)), 6, said=said)
    alone = run(system(grounder=Pointing(BOX)), 6, said=said[:1])
    assert seen[3].verdict == "absent"
    for one, other in zip(seen, alone, strict=True):
        assert one.ids.tolist() == other.ids.tolist() == [1]
        np.testing.assert_array_equal(one.boxes, other.boxes)


# --- words beside a box ---


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            (50.0, 44.0, 70.0, 60.0),
            ["the dog; the model finds 'the dog' at 50,44,20,16; what was shown is followed"],
        ),
        ((22.0, 16.0, 44.0, 40.0), ["the dog"]),
        (None, ["the dog"]),
    ],
)
def test_an_answer_says_where_the_words_beside_a_box_are_found_if_that_is_elsewhere(found, said):
    session = InstructionTracker(system(grounder=Pointing(found)), "tiny").session()
    session.say("the dog", box=BOX)
    result = session.step(video(1)[0])
    assert [event.data["text"] for event in result.events if event.type == "answer"] == said
    assert [one.box for one in result.objects] == [BOX]


def test_a_grounder_has_no_say_about_footage_that_is_unlike_its_world(monkeypatch):
    model = system(grounder=Pointing(ELSEWHERE))
    monkeypatch.setattr(model, "unlikeness", lambda frame: 1.1)
    assert not len(model.places(video(1)[0], "the dog"))
    monkeypatch.setattr(model, "unlikeness", lambda frame: 0.9)
    assert model.places(video(1)[0], "the dog").tolist() == [list(ELSEWHERE)]


# --- a return to a former target ---


def told(session, *said):
    """What a session answers to things that are said, each on a frame of its own."""
    results = []
    for frame, text in zip(video(len(said)), said, strict=True):
        if text:
            session.say(text)
        results.append(session.step(frame))
    return [[event.data["text"] for event in each.events if event.type == "answer"] for each in results]


def test_a_former_target_is_followed_again_under_its_number_where_the_grounder_finds_its_words():
    grounder = Pointing(BOX, ELSEWHERE, BOX, None)
    session = Session(system(grounder=grounder).tracker(), str)
    answers = told(session, "the red car", "now the dog", "back to the first one", "", "back to the dog")
    assert answers[2] == ["Back to 1 'the red car'."]
    assert session.last.objects[0].id == 1
    assert [(each.id, each.active) for each in session.state.targets] == [(1, True), (2, False)]
    assert answers[4] == ["Nothing on this frame is meant. Still followed: 1 'the red car'."]


@pytest.mark.parametrize("number", ["number 1", "the first one", "all"])
def test_a_return_by_number_or_order_looks_for_the_words_of_the_target(number):
    grounder = Pointing(BOX, BOX)
    session = Session(system(grounder=grounder).tracker(), str)
    told(session, "the red car", "stop")
    session.resume(number)
    session.step(video(1)[0])
    assert grounder.asked == ["the red car", "the red car"]
    assert session.state.prompts[-1].heard == number
    assert [one.id for one in session.state.active] == [1]


def test_a_grounder_that_cannot_read_a_frame_takes_nothing_back_that_was_said_with_a_box():
    class Blind(Pointing):
        def ground(self, image, words, nearby=()):
            raise InputError("this frame has one pixel")

    model = system(grounder=Blind())
    session = Session(model.tracker(), str, finder=model.places)
    session.say("the red car", box=BOX)
    assert [one.id for one in session.step(video(1)[0]).objects] == [1]
    assert [event.type for event in session.events()].count("answer") == 1


def test_a_return_that_finds_nothing_while_nothing_is_followed_is_searched_for():
    session = Session(system(grounder=Pointing(BOX, None, BOX)).tracker("full", ["arbiter.search_every=2"]), str)
    told(session, "the red car", "stop", "", "", "")
    assert session.state.active == ()
    session.resume(1)
    seen = [[one.id for one in session.step(frame).objects] for frame in video(4)]
    assert seen == [[], [], [1], [1]]


def test_what_is_searched_for_after_a_target_was_given_up_leaves_it_to_be_returned_to():
    grounder = Pointing(BOX, None, ELSEWHERE, BOX)
    session = Session(system(grounder=grounder).tracker("full", ["arbiter.search_every=2"]), str)
    told(session, "the red car", "stop", "now the dog", "", "")
    assert [each.id for each in session.state.active] == [2]
    assert told(session, "back to the first one") == [["Back to 1 'the red car'."]]


def test_a_return_to_what_was_shown_has_its_box_or_is_refused_in_a_line():
    session = Session(system().tracker(), str)
    frame = video(1)[0]
    for words, box in (("the red car", BOX), ("the dog", ELSEWHERE)):
        session.say(words, box=box, kind="switch" if session.state.prompts else "start")
        session.step(frame)
    with pytest.raises(UsageError, match=r"resume 1: tiny cannot find it again, .* last box; show where it is"):
        session.say("back to the first one")
    session.resume(1, box=(10.0, 10.0, 30.0, 30.0))
    assert [(one.id, one.box) for one in session.step(frame).objects] == [(1, (10.0, 10.0, 30.0, 30.0))]
    assert session.state.cue.text == "the red car"
    wordless = Session(system(grounder=Pointing()).tracker(), str)
    wordless.say(box=BOX)
    wordless.step(frame)
    wordless.say("stop")
    wordless.step(frame)
    with pytest.raises(UsageError, match="it was shown without words"):
        wordless.say("back to the first one")


def test_a_track_is_saved_and_goes_on_with_the_same_bits(tmp_path):
    tracker = system(Scripted("a blue car")).tracker("full", CHANGED)
    state = tracker.begin()
    frames = video(6)
    for t in range(5):
        state, _ = tracker.step(state, frames[t], shown() if t == 0 else None)
    state.save(tmp_path / "track")
    again = TrackState.load(tmp_path / "track", tracker.kinds)
    assert again.record == state.record
    assert again.record.consultations == 1
    one, two = (tracker.step(each, frames[5])[1] for each in (state, again))
    assert np.array_equal(one.boxes, two.boxes)


def test_a_session_counts_consultations_and_logs_the_description_with_its_history():
    model = system(Scripted("a blue car"))
    session = Session(model.tracker("full", CHANGED), model.check)
    session.say("the red car", box=BOX)
    results = [session.step(frame) for frame in video(6)]
    assert session.rethinks == 2
    told = [(e.index, e.data["text"]) for r in results for e in r.events if e.type == "answer"]
    assert told == [(0, "the red car"), (3, "a blue car"), (5, "a blue car")]


# --- TrackGPT's brain as the describer ---


@pytest.mark.parametrize(
    ("scene", "words", "named"),
    [
        ("red dog top left; car middle", "it", "red dog"),
        ("red dog top left; blue dog top left", "the blue one", "blue dog"),
        ("red dog top left; blue dog top left", "the dog", ""),
        ("car middle", "the car", ""),
        ("nothing", "the car", ""),
    ],
)
def test_of_a_described_scene_the_thing_where_the_target_is_is_named(scene, words, named):
    assert named_at(scene, "top left", words) == named


def test_nanos_brain_names_a_thing_of_the_scene_at_its_place_where_there_is_no_vision_language_model():
    describer = BrainDescriber(load_trackgpt("nano", "cpu"), "nano")
    case = make_case(8, split="train", frames=1, longest=256)
    frame = case.clip.frames[0]
    height, width = frame.shape[:2]
    below = (0.4 * width, 0.8 * height, 0.6 * width, 0.95 * height)
    said = describer.describe(frame, BOX, frame, "it", below)
    assert said.parsed.update
    assert said.parsed.words.startswith("the ")
    assert said.parsed.words.endswith(" bottom")
    assert {one.category for one in case.scene.actors} & set(said.parsed.words.split())
    assert not describer.describe(frame, BOX, frame, said.parsed.words, below).parsed.update


# --- names and the command line ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return written_tracker(tmp_path_factory.mktemp("boxes") / "tracker")


def test_a_name_has_a_tracker_and_may_have_a_describer_and_a_grounder(folder, tmp_path):
    name = f"reasoningtrack:{folder}"
    model = load_model(name, "cpu")
    assert isinstance(model, ReasoningTrack)
    assert (model.config.describer, model.config.grounder) == ("template", "")
    assert load_model(f"{name}+http://localhost:1/v1#m", "cpu").config.describer == "http://localhost:1/v1#m"
    assert parts_of(f"{name}+template") == [str(folder)]
    model = load_model(f"{name}+nano+nano", "cpu")
    assert (model.config.describer, model.config.grounder) == ("nano", "nano")


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("reasoningtrack:", UsageError, "TRACKER"),
        ("reasoningtrack:{}+template+nano+nano", UsageError, "TRACKER"),
        ("reasoningtrack:nano", ModelError, "MD06"),
        ("reasoningtrack:{}+ftp://host", UsageError, "wanted an endpoint"),
        (
            "reasoningtrack:{}+none",
            ModelError,
            "MD01.*none: not a model .*; such a name is reasoningtrack:T",
        ),
        (
            "reasoningtrack:nope",
            ModelError,
            "MD01: reasoningtrack:nope: nope: .*; such a name is reasoningtrack:T",
        ),
    ],
)
def test_a_name_of_other_parts_is_refused(name, error, said, folder):
    with pytest.raises(error, match=said):
        load_model(name.format(folder), "cpu")


def test_a_tokenizer_that_knows_more_than_the_model_is_refused(folder, tmp_path):
    tiny_tracker(vocabulary=100).network.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="1,536 word pieces, and the model knows 100"):
        load_model(f"reasoningtrack:{tmp_path}", "cpu")
    with pytest.raises(UsageError, match="not compiled"):
        load_model(f"reasoningtrack:{folder}", "cpu", compile=True)


def test_the_command_line_follows_a_box_with_words_and_writes_what_was_said(folder, command, tmp_path, monkeypatch):
    """The tracker is tiny and random, and so is the describer, which is made to write two answers."""
    tiny_vlms.qwen2_5(tmp_path / "vlm")
    load = VlmDescriber.from_pretrained.__func__
    answers = ["yes</d><answer>a bright square</answer>", "no</d><answer></answer>"]

    def scripted(cls, *args, **how):
        describer = load(cls, *args, **how)
        ask = describer.vlm.ask

        def writes():
            return tiny_vlms.say(describer.vlm, "<think>x</think><d>" + (answers.pop(0) if answers else "no</d>"))

        describer.vlm.ask = lambda *a, **k: (writes(), ask(*a, **k))[1]
        return describer

    monkeypatch.setattr(VlmDescriber, "from_pretrained", classmethod(scripted))
    clip = film(tmp_path / "clip.mp4", 24)
    name = f"reasoningtrack:{folder}+{tmp_path / 'vlm'}"
    done = command(
        "track", clip, "-m", name, "-i", "the square", "--box", "1:10,10,20,20", "-o", "out", "--format", "mp4,mot"
    )
    assert done.code == 0, done.err
    tracks = list(read_tracks("out"))
    assert len(tracks) == 24
    assert all(track.objects[0].id == 1 for track in tracks)
    told = [event.data["text"] for event in read_events("out") if event.type == "answer"]
    assert told[0] == "the square"
    assert done.values()["rethinks"] == str(len(told) - 1)
    assert "a bright square" in told
    assert (tmp_path / "out/video.mp4").stat().st_size > 0


def test_words_alone_are_refused_by_the_command_line_before_anything_is_written(folder, command, tmp_path):
    clip = film(tmp_path / "clip.mp4", 3)
    done = command("track", clip, "-m", f"reasoningtrack:{folder}", "-i", "the square", "-o", "out")
    assert done.code == 2
    assert "begins with a box" in done.err
    assert not (tmp_path / "out").exists()


def test_the_system_that_ships_follows_the_true_box_of_a_drawn_thing_and_renews_its_words():
    case = make_case(7, frames=24)
    one = next(said for said in case.expressions if len(said.targets) == 1)
    truth = [box_of(ids == one.targets[0]) for ids in case.clip.ids]
    x1, y1, x2, y2 = (float(value) for value in truth[0])
    model = load_model("reasoningtrack-nano", "cpu")
    assert model.config.name == "reasoningtrack:box-nano+nano+nano"
    prompt = Prompt(one.text, visual=(VisualPrompt((x1, y1, x2, y2)),))
    seen = list(follow(model.tracker(), case.clip.frames, [prompt]))
    shown = [t for t, box in enumerate(truth) if np.isfinite(box).all()]
    overlap = [box_iou(seen[t].boxes, np.array([truth[t]], np.float32))[0, 0] for t in shown]
    assert np.mean(overlap) > 0.5


def test_a_box_tracker_by_itself_is_refused_with_the_name_that_it_goes_by():
    with pytest.raises(UsageError, match="-m reasoningtrack:box-nano, or, with nano's brain to describe"):
        load_model("box-nano", "cpu")
