"""Rows of a describer's training: SynthTrack's pairs, released records, real video, and a tracker on what follows."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny_boxes
from PIL import Image

from data_tools import box_writers
from trackgpt.errors import InputError
from trackgpt.perception.box_tracker import FollowedBox
from trackgpt.perception.memory_segmenter import SegmenterMemory
from trackgpt.perception.search_window import SquareCrop
from trackgpt.reasoners.describer import DRAWN, parse, question, written
from trackgpt.synthtrack.clips import make_case
from trackgpt.track import TrackState
from trackgpt.types import Cue, Prompt, Target
from train.box_tracking import open_box_sets
from train.describer_score import scored
from train.description_rows import PairRows, VideoRows, record_rows
from train.synthtrack_pairs import scene_pair
from train.window_tracking import WindowTracker, mean_overlap

PLACE_WORDS = ("left", "right", "top", "bottom", "middle")


def pair_rows(total: int = 40, **more: object) -> PairRows:
    return PairRows(**{"total": total, "split": "train", "gap": 20, "follow": 3, "draw": True} | more)


# SynthTrack
def test_half_of_the_pairs_have_outdated_words_and_words_about_places_do_not_tell_which():
    pairs = [scene_pair(seed, "train", 20, 4) for seed in range(40)]
    assert [pair.outdated for pair in pairs] == [True, False] * 20
    for pair in pairs:
        assert 0 < pair.second - pair.first <= 20
        assert pair.scene.frames >= pair.second + 4
        assert (pair.words in pair.fitting) == (not pair.outdated)
        assert pair.renewed in pair.fitting
    kept = [pair for pair in pairs if not pair.outdated]
    about_places = [pair.words.startswith("the ") and pair.words.split()[-1] in PLACE_WORDS for pair in kept]
    assert 0.3 < sum(about_places) / len(kept) < 1.0
    again = scene_pair(7, "train", 20, 4)
    assert (again.words, again.first, again.second) == (pairs[7].words, pairs[7].first, pairs[7].second)


def test_the_right_answer_earns_its_form_and_says_what_is_so():
    rows = pair_rows()
    for number in range(6):
        row, pair = rows[number], scene_pair(number, "train", 20, 4)
        said = parse(row.completion())
        assert said.strict
        assert (said.update, said.words) == ((True, pair.renewed) if pair.outdated else (False, ""))
        before, now = pair.places
        assert ("still" in said.thought.split(". ")[0]) == (before == now)
        assert row.prompt()[0]["content"][-1]["text"] == question(row.words, drawn=True)
    with pytest.raises(IndexError):
        rows[40]


def test_the_target_is_boxed_on_the_first_frame_alone_and_where_it_is():
    row, plain = pair_rows()[0], pair_rows(draw=False)[0]
    (drawn, now), (bare, same) = row.frames(), plain.frames()
    assert np.array_equal(now, same)
    changed = (drawn != bare).any(-1)
    assert (drawn[changed] == DRAWN).all()
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    x1, y1, x2, y2 = scene_pair(0, "train", 20, 4).box
    assert rows[0] <= y1 <= y2 <= rows[-1] + 1
    assert columns[0] <= x1 <= x2 <= columns[-1] + 1
    assert [picture.size for picture in row.pictures()] == [now.shape[1::-1]] * 2


# Released records


def test_the_994_well_formed_records_of_997_are_rows_and_the_others_are_named(shared):
    rows, malformed = record_rows(shared / "data/tnllt/sft", "somewhere", draw=True)
    assert len(rows) == 994
    assert malformed == ["sft_dataset_GOT-10k.json:161", "sft_dataset_TNLLT.json:28", "sft_dataset_lasot.json:130"]
    assert sum(bool(row.outdated) for row in rows) == 697
    assert all(parse(row.completion()).strict for row in rows)
    with pytest.raises(InputError, match="somewhere/GOT-10k_RLsamples/sample0001/img1.jpg"):
        rows[0].pictures()


@pytest.fixture
def records(tmp_path):
    """Two records, the second without a decision; the first has images and a box."""
    folder = tmp_path / "images/set/sample0001"
    folder.mkdir(parents=True)
    for name in ("img1.jpg", "img2.jpg"):
        Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(folder / name)
    (folder / "data.json").write_text(json.dumps({"img1_groundtruth": "10,12,20,16"}))
    paths = [f"/your_root_path/set/sample0001/img{k}.jpg" for k in (1, 2)]
    good = "<think>a</think><d>no</d>\n<answer>the car</answer>"
    listed = [{"input": "<image><image>the car", "output": said, "images": paths} for said in (good, "<d>no</d>")]
    (tmp_path / "records").mkdir()
    (tmp_path / "records/rows.json").write_text(json.dumps(listed))
    return tmp_path


def test_a_record_with_a_box_beside_its_images_shows_it(records):
    (row,), malformed = record_rows(records / "records", records / "images", draw=True)
    assert malformed == ["rows.json:1"]
    assert (row.words, row.outdated, row.drawn) == ("the car", False, True)
    first, second = row.frames()
    assert (first[10:12, 10:30] == DRAWN).all()
    assert np.ptp(second) <= 2
    (plain,), _ = record_rows(records / "records", records / "images", draw=False)
    assert (plain.drawn, np.ptp(plain.frames()[0]) <= 2) == (False, True)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("records/rows.json", "{}", "wanted a list of records"),
        (
            "records/rows.json",
            '[{"input": "<image><image>a", "output": "<think>a</think><d>no</d><answer>a</answer>"}]',
            "`images`",
        ),
        ("images/set/sample0001/data.json", '{"img1_groundtruth": "1,2,3"}', "wanted x,y,w,h"),
    ],
)
def test_a_damaged_record_is_named(records, file, text, said):
    (records / file).write_text(text)
    with pytest.raises(InputError, match=said):
        record_rows(records / "records", records / "images", draw=True)
    with pytest.raises(InputError, match="no records"):
        record_rows(records / "images", "", draw=True)


# Real video


def video_rows(root, **more: object) -> VideoRows:
    cases = [make_case(seed, split="train", frames=12, longest=96) for seed in range(3)]
    box_writers.write_lasot(root / "lasot", cases, "train")
    sets = tuple(open_box_sets({"lasot": str(root / "lasot")}))
    return VideoRows(**{"sets": sets, "total": 20, "gap": 4, "follow": 3, "draw": True} | more)


def test_real_video_gives_two_frames_with_the_target_and_what_follows(tmp_path):
    rows = video_rows(tmp_path)
    for number in range(8):
        row = rows[number]
        assert (row.outdated, row.answer) == (None, "")
        assert row.words
        window = row.window()
        assert (len(window.frames), window.boxes.shape) == (3, (3, 4))
        first, second = row.frames()
        assert np.isfinite([*window.shown, *window.place]).all()
        assert not np.array_equal(first, window.first)  # it has the box
        assert second.shape == window.frames[0].shape
    assert rows[3].words == rows[3].words
    with pytest.raises(InputError, match="no target with words on two frames"):
        video_rows(tmp_path / "short", follow=11)[0]


# What follows


def test_windows_are_followed_together_as_the_tracker_follows_each_alone():
    tracker = tiny_boxes.tiny_tracker("store=0")
    windows = [pair_rows()[number].window() for number in (0, 1, 2)]
    words = ["the red car", "", "the dog in the top left of the frame"]
    together = WindowTracker(tracker).follow(windows, words)
    for window, said, found in zip(windows, words, together, strict=True):
        config = tracker.network.config
        view = SquareCrop.around(window.shown, config.template_factor).cut(window.first, config.template_side)
        memory = FollowedBox(view, (), 1, 0, None, window.place, window.first.shape[:2], said)
        state = TrackState(SegmenterMemory(((1, memory),)), None, 1, (Target(1, Prompt("it")),), Cue(said))
        for frame, box in zip(window.frames, found, strict=True):
            seen, kept = tracker.perceive(frame, state, ())
            state = replace(state, memory=kept)
            assert seen.boxes[0] == pytest.approx(box, abs=1e-2)


def test_a_window_leaves_nothing_behind_and_equal_words_gain_nothing():
    tracker = WindowTracker(tiny_boxes.tiny_tracker())
    one, other = pair_rows()[0], pair_rows()[1]
    alone = tracker.compared([one], ["the blue dog"])
    both = tracker.compared([one, other, one], ["the blue dog", other.words, one.words])
    assert both[0] == pytest.approx(alone[0], abs=1e-4)
    assert both[1][0] == both[1][1]
    assert both[2][0] == both[2][1] == both[0][0]
    assert tracker.compared([one], ["the blue dog"]) == alone


def test_words_change_where_a_tracker_goes_that_reads_them():
    windows = [pair_rows()[4].window()] * 2
    for setting, same in (("words=true", False), ("words=false", True)):
        one, other = WindowTracker(tiny_boxes.tiny_tracker(setting)).follow(windows, ["the blue dog", "it"])
        assert np.array_equal(one, other) == same


def test_the_overlap_is_a_mean_over_frames_on_which_the_target_is():
    window = pair_rows()[0].window()
    hidden = window.boxes.copy()
    hidden[1] = np.nan
    assert mean_overlap(window.boxes, window) == 1.0
    assert mean_overlap(np.zeros((3, 4), np.float32), window) == 0.0
    moved = hidden.copy()
    moved[0] = 0.0
    assert mean_overlap(np.nan_to_num(moved), window._replace(boxes=hidden)) == 0.5
    assert mean_overlap(window.boxes, window._replace(boxes=np.full((3, 4), np.nan))) == 0.0


# Scores


def test_right_answers_score_everything_and_words_that_never_change_are_true_of_half():
    rows = [pair_rows()[number] for number in range(8)]
    right = scored([row.answer for row in rows], rows, None)
    assert {name: sum(values) / 8 for name, values in right.items()} == {
        "form": 100.0,
        "decision": 100.0,
        "yes": 50.0,
        "true": 100.0,
    }
    kept = scored([written(False, row.words, "") for row in rows], rows, None)
    assert {name: sum(values) / 8 for name, values in kept.items()} == {
        "form": 100.0,
        "decision": 50.0,
        "yes": 0.0,
        "true": 50.0,
    }
    silent = scored([""] * 8, rows, WindowTracker(tiny_boxes.tiny_tracker()))
    assert (sum(silent["form"]), silent["gain"]) == (0.0, [0.0] * 8)
