"""A tracker of another project, NanoTrack with no masks and no words, as the perception of the same loop."""

import json

import av
import cv2
import numpy as np
import pytest
import torch
from nanotrack_perception import NanoTrack, NanoTrackByWords
from PIL import Image
from scripted_model import hire
from toy_systems import ToyBoxTracker, scene
from tracks import Track

from data_tools.nanotrack import davis_sequences, nanotrack, track
from trackgpt.errors import OutputError, UsageError
from trackgpt.geometry.boxes import box_iou
from trackgpt.hub import load_grounder
from trackgpt.online import follow
from trackgpt.reasoners.expression import lasting
from trackgpt.reasoners.grounder import Candidate, Grounding
from trackgpt.session.playback import InstructionTracker
from trackgpt.track import TrackState
from trackgpt.types import Prompt, VisualPrompt

COUNT = 24
SEQUENCES = ("blackswan", "breakdance", "dog", "libby")
DETECTOR = "data/checkpoints/yolox_nano/yolox_nano.onnx"
WEIGHTS = "data/checkpoints/nanotrack/nanotrackv2"


class Told:
    """A grounder that has been told where the words are on every frame; by default nowhere."""

    name, licence, reads_motion, checks_every = "told", "", True, 0

    def __init__(self, frames, **places):
        self.frames = {frame.tobytes(): t for t, frame in enumerate(frames)}
        self.places = places
        self.asked = []

    def later(self, words):
        return lasting(words)

    def ground(self, image, words, nearby=()):
        t = self.frames[image.tobytes()]
        self.asked.append((t, words, len(nearby)))
        boxes = [self.places[word][t] for word in words.split() if word in self.places]
        return Grounding(tuple(Candidate(tuple(map(float, box)), 0.9) for box in boxes if not np.isnan(box).any()))


@pytest.fixture(scope="module")
def perception(shared):
    if not (shared / WEIGHTS).is_dir():
        pytest.skip(f"shared/{WEIGHTS} is not there")
    return NanoTrack(shared / WEIGHTS)


@pytest.fixture(scope="module")
def davis(shared):
    """The first frames of a sequence of DAVIS at 240p, and the true boxes: float32 (T, 4) xyxy."""
    known = {each.name: each for each in davis_sequences(shared / "data/davis", ["240p"])}

    def read(name, count=COUNT):
        pictures = [cv2.imread(str(path))[:, :, ::-1].copy() for path in known[name].images[:count]]
        return pictures, corners(known[name].boxes()[:count])

    return read


def corners(boxes):
    """xywh to xyxy."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1).astype(np.float32)


def overlaps(a, b):
    """IoU of two boxes per frame."""
    return np.diagonal(box_iou(np.float32(a), np.float32(b)))


def first_of(seen):
    return np.array([one.boxes[0] for one in seen])


def boxed(box, **how):
    return Prompt(visual=(VisualPrompt(tuple(map(float, box))),), **how)


def same(a, b):
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.scores, other.scores)
        np.testing.assert_array_equal(one.ids, other.ids)


# The tracker itself


def test_from_the_same_first_box_it_goes_where_opencvs_own_nanotrack_goes(shared, perception, davis):
    agreement, own, opencv = [], [], []
    tracker = nanotrack(shared / WEIGHTS)
    for name in SEQUENCES:
        frames, truth = davis(name)
        x1, y1, x2, y2 = (float(value) for value in truth[0])
        theirs = corners(np.array([box for box, _ in track(tracker, frames, np.array([x1, y1, x2 - x1, y2 - y1]))]))
        ours = first_of(follow(NanoTrackByWords(Told(frames), perception).tracker(), frames, [boxed(truth[0])]))
        agreement.append(overlaps(ours, theirs)[1:].mean())
        own.append(overlaps(ours, truth)[1:].mean())
        opencv.append(overlaps(theirs, truth)[1:].mean())
    # Measured .96 .94 .90 .88 on one processor and .96 .89 .85 .86 on another: OpenCV rounds boxes and windows to whole
    # pixels, and the last bits of two runtimes' arithmetic decide on which side of a half a pixel falls.
    assert min(agreement) > 0.8
    assert np.mean(agreement) > 0.85
    assert np.mean(own) > np.mean(opencv) - 0.02  # measured .74 and .74


def test_it_sees_every_frame_of_a_sequence_and_nothing_once_the_video_has_been_cut(perception, davis):
    (car, truth), (cat, _) = davis("car-shadow", 8), davis("libby", 8)
    seen = list(follow(NanoTrackByWords(Told([]), perception).tracker(), car + cat, [boxed(truth[0])]))
    assert [bool(one.present[0]) for one in seen] == [True] * 8 + [False] * 8
    assert seen[7].scores[0] > 0.9
    assert seen[8].scores[0] < 0.3
    assert np.isnan(seen[8].boxes).all()
    assert seen[0].masks is None


# By words, with the same arbiter


def test_words_begin_it_and_where_the_grounder_disagrees_later_it_is_begun_anew_from_the_grounders_box(
    perception, davis
):
    frames, truth = davis("blackswan")
    told = Told(frames, swan=truth.copy())
    told.places["swan"][0] = (0, 0, 60, 40)  # some bushes
    track = Track(NanoTrackByWords(told, perception).tracker(settings=["every=8"]))
    seen = [track.look(frame, Prompt("the swan") if t == 0 else None) for t, frame in enumerate(frames)]
    asked = [(t, one.reason, one.verdict) for t, one in enumerate(seen) if one.reason]
    assert asked == [(0, "prompt", "start"), (8, "check", "reinit"), (16, "check", "keep")]
    assert told.asked == [(0, "the swan", 0), (8, "swan", 0), (16, "swan", 0)]
    right = overlaps(first_of(seen), truth)
    assert right[:8].max() < 0.2
    assert right[8:].min() > 0.8
    assert {tuple(one.ids) for one in seen} == {(1,)}


def test_a_real_detector_finds_the_words_and_sets_the_track_right_where_it_leaves_the_dog(shared, perception, davis):
    if not (shared / DETECTOR).is_file():
        pytest.skip(f"shared/{DETECTOR} is not there")
    system = NanoTrackByWords(load_grounder(shared / DETECTOR, torch.device("cpu")), perception)
    frames, truth = davis("blackswan", 12)
    swan = list(follow(system.tracker(), frames, [Prompt("the swan")]))
    assert overlaps(first_of(swan), truth).mean() > 0.8  # measured .90
    frames, truth = davis("dog")
    dog = list(follow(system.tracker(), frames, [Prompt("the dog")]))
    shown = list(follow(system.tracker(), frames, [boxed(truth[0])]))
    asked = [(t, one.reason, one.verdict) for t, one in enumerate(dog) if one.reason]
    assert asked == [(0, "prompt", "start"), (8, "check", "keep"), (16, "check", "reinit")]
    assert overlaps(first_of(dog), truth).mean() > overlaps(first_of(shown), truth).mean() + 0.05  # .72 and .62


def test_two_targets_have_their_own_numbers_and_first_views_and_each_goes_where_it_goes_alone(perception, davis):
    frames, truth = davis("car-shadow", 12)
    told = Told(frames, car=truth, road=np.tile(np.float32([5, 150, 105, 230]), (12, 1)))
    track, alone = (Track(NanoTrackByWords(told, perception).tracker()) for _ in range(2))
    said = {0: Prompt("the car"), 3: Prompt("the road", kind="add"), 6: Prompt(kind="drop", ids=(1,))}
    said[9] = Prompt(kind="resume", ids=(1,))
    ids, overlap, views = [], [], []
    for t, frame in enumerate(frames):
        seen, one = track.look(frame, said.get(t)), alone.look(frame, said[0] if t == 0 else None)
        ids.append(seen.ids.tolist())
        views.append(dict(track.state.memory.targets)[1].template.tobytes())
        overlap.append(overlaps(seen.boxes[:1], one.boxes)[0])
    assert ids == [[1]] * 3 + [[1, 2]] * 3 + [[2]] * 3 + [[1]] * 3
    assert min(overlap[:3]) > 0.999  # then a frame is looked at twice, since words about a live track are read after
    assert min(overlap[3:6]) > 0.9
    assert set(views) == {views[0]}
    assert overlaps(seen.boxes, truth[11:])[0] > 0.7


def test_what_is_shown_by_a_click_alone_is_refused_in_a_line(perception, davis):
    frames, _ = davis("dog", 1)
    track = Track(NanoTrackByWords(Told(frames), perception).tracker())
    with pytest.raises(UsageError, match="box"):
        track.look(frames[0], Prompt(visual=(VisualPrompt(points=((100.0, 100.0, 1),)),)))


# A whole session


@pytest.fixture(scope="module")
def run(perception, davis, tmp_path_factory):
    """A run by words of a car that a cut hides for ten frames: its playback, results, frames and folder."""
    (car, truth), (cat, _) = davis("car-shadow", 14), davis("libby", 10)
    frames = car[:6] + cat + car[6:]
    places = np.concatenate([truth[:6], np.full((10, 4), np.nan, np.float32), truth[6:]])
    system = NanoTrackByWords(Told(frames, car=places), perception)
    out = tmp_path_factory.mktemp("run") / "out"
    with InstructionTracker(system).open(frames, out=out) as playback:
        playback.say("the car")
        yield playback, list(playback), frames, out


def test_a_session_logs_boxes_that_are_lost_and_found_and_no_run_lengths(run):
    _, results, _, out = run
    logged = [json.loads(line) for line in (out / "tracks.jsonl").read_text().splitlines()]
    assert [one["objs"][0]["state"] for one in logged] == ["tracked"] * 6 + ["absent"] * 10 + ["tracked"] * 8
    assert {one["objs"][0]["rle"] for one in logged} == {None}
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    kinds = [(event["type"], event["i"]) for event in events]
    assert {("instruction", 0), ("answer", 0), ("lost", 6), ("found", 16), ("done", 23)} <= set(kinds)
    assert not results[0].objects[0].mask.any()


def test_a_run_of_boxes_becomes_mot_coco_and_a_video_and_masks_are_refused_in_a_line(run, tmp_path):
    playback, results, frames, _ = run
    made = playback.export(tmp_path / "all", ["jsonl", "mot", "coco", "timeline", "mp4"])
    rows = np.loadtxt(made["mot"], delimiter=",")
    assert rows[:, 0].tolist() == [*range(1, 7), *range(17, 25)]
    seen = np.array([one.objects[0].box for one in results if one.objects[0].box])
    np.testing.assert_allclose(rows[:, 2:4], seen[:, :2], atol=0.006)
    document = json.loads(made["coco"].read_text())
    assert [each["segmentation"] for each in document["annotations"]] == [[]] * 14
    with av.open(str(made["mp4"])) as video:
        drawn = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(drawn) == len(frames)
    x1, y1, x2, y2 = (int(value) for value in results[3].objects[0].box)
    change = np.abs(drawn[3].astype(int)[: frames[3].shape[0], : frames[3].shape[1]] - frames[3])
    assert change[y1 - 1 : y1 + 2, x1:x2].mean() > 2 * change[y1 + 6 : y2 - 6, x1 + 6 : x2 - 6].mean()
    with pytest.raises(OutputError, match="davis.*masks.*mot"):
        playback.export(tmp_path / "masks", ["davis"])


def test_a_run_goes_back_to_a_frame_and_on_to_the_same_bits(perception, davis):
    frames, truth = davis("dog", 10)
    with InstructionTracker(NanoTrackByWords(Told(frames, dog=truth), perception)).open(frames) as playback:
        playback.say("the dog")
        before = [one.prediction for one in playback]
        playback.seek(4)
        same([one.prediction for one in playback], before[4:])


def test_a_saved_track_goes_on_to_the_same_bits(perception, davis, tmp_path):
    frames, truth = davis("dog", 10)
    tracker = NanoTrackByWords(Told(frames, dog=truth), perception).tracker()
    whole = list(follow(tracker, frames, [Prompt("the dog")]))
    track = Track(tracker)
    for t, frame in enumerate(frames[:5]):
        track.look(frame, Prompt("the dog") if t == 0 else None)
    track.state.save(tmp_path / "state")
    again = Track(tracker)
    again.state = TrackState.load(tmp_path / "state", tracker.kinds)
    same([again.look(frame) for frame in frames[5:]], whole[5:])
    same([track.look(frame) for frame in frames[5:]], whole[5:])


def test_the_state_is_12_kb_per_target_and_the_same_after_500_frames(perception, davis):
    frames, truth = davis("car-shadow", 20)
    told = Told(frames, car=truth)
    track = Track(NanoTrackByWords(told, perception).tracker(settings=["every=50"]))
    sizes, memories = [], []
    for t in range(500):
        track.look(frames[abs(t % 38 - 19)], Prompt("the car") if t == 0 else None)
        sizes.append(track.state.nbytes)
        memories.append(track.state.memory.nbytes)
    assert set(memories) == {48 * 8 * 8 * 4 + 4 * 8}
    assert set(sizes[1:]) == {sizes[1]}
    assert len(told.asked) > 5


def test_the_command_leaves_masks_out_and_says_so_and_a_repair_does_not_ask_for_them(command, monkeypatch, tmp_path):
    hire(monkeypatch, ToyBoxTracker())
    (tmp_path / "frames").mkdir()
    for t in range(4):
        Image.fromarray(scene(red=(4, 8 + 2 * t))).save(tmp_path / f"frames/{t:05d}.png")
    done = command("track", "frames", "-i", "the red one", "-m", "toy", "-o", "out")
    assert done.code == 0
    assert "masks/ is left out, since this model gives boxes without masks" in done.err
    made = {each.name for each in (tmp_path / "out").iterdir()}
    assert {"tracks.jsonl", "mot.txt", "coco.json", "timeline.png", "video.mp4"} <= made
    assert "masks" not in made
    assert command("repair", "out").values()["made"] == "nothing"
