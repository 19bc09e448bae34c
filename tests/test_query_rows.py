"""Rows of a policy's training: what is shown, asked and expected of a clip; and the right answer earns the maximum."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trackgpt.data.query_clips import QueryClip, read_clips
from trackgpt.errors import InputError
from trackgpt.reasoners.coordinates import CONVENTIONS, Sizes
from train.query_rows import RowMaker
from train.rewards import REWARDS, earned, read_answer

SIZE = (100, 80)
LEFT = [[10.0 + 3 * t, 20, 30, 40] for t in range(4)]
LATE = [None, None, [60.0, 30, 20, 20], [58.0, 30, 20, 20]]
"""Boxes of two objects on a reference and three frames after it, xywh; the second is hidden at first."""


@pytest.fixture
def clip(tmp_path) -> QueryClip:
    for t in range(4):
        Image.new("RGB", SIZE).save(tmp_path / f"{t:06d}.png")
    paths = [
        {"track_id": number, "trajectory": [{"frame": t, "bbox": boxes[t]} for t in range(1, 4)]}
        for number, boxes in ((7, LEFT), (9, LATE))
    ]
    item = {
        "id": "c0",
        "ref_image": "000000.png",
        "input_images": ["000001.png", "000002.png", "000003.png"],
        "question": "the two that walk",
        "objects": [{"object_id": 1, "initial_bbox": LEFT[0]}, {"object_id": 2}],
        "expected_output": {"object_1": paths[0], "object_2": paths[1]},
    }
    (tmp_path / "annotations.json").write_text(json.dumps([item]))
    (found,) = read_clips(tmp_path / "annotations.json", tmp_path)
    return found


def maker(numbers: str = "pixels", **options) -> RowMaker:
    return RowMaker(CONVENTIONS[numbers], lambda size: Sizes(size, (56, 28)), **options)


def corners(box: list[float] | None) -> list[float]:
    return [np.nan] * 4 if box is None else [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def test_a_window_says_where_objects_are_and_asks_for_the_frames_after(clip):
    (row,) = maker().rows([clip])
    assert [path.name for path in row.images] == [f"{t:06d}.png" for t in range(4)]
    assert row.query.known == ((1, (10.0, 20.0, 40.0, 60.0)), (2, None))
    assert row.expected.frames == (1, 2, 3)
    assert row.expected.ids == row.ids == (1, 2)
    np.testing.assert_allclose(row.expected.truth[0], [corners(box) for box in LEFT[1:]], atol=1e-9)
    np.testing.assert_allclose(row.expected.truth[1], [corners(box) for box in LATE[1:]], atol=1e-9)
    np.testing.assert_allclose(row.expected.before, [corners(LEFT[0]), corners(None)], atol=1e-9)
    (message,) = row.prompt()
    assert [part["type"] for part in message["content"]].count("image") == len(row.pictures()) == 4
    assert "object 1 is at [10, 20, 40, 60], object 2 cannot be seen" in message["content"][-1]["text"]


def test_a_window_is_cut_to_its_first_frames_and_drops_objects_that_are_not_on_them(clip):
    (row,) = maker(frames=1).rows([clip])
    assert (len(row.images), row.expected.frames, row.ids) == (2, (1,), (1,))


def test_without_known_places_all_frames_are_asked_of(clip):
    (row,) = maker(known=False).rows([clip])
    assert row.query.known == ()
    assert (row.expected.frames, row.expected.ids) == ((0, 1, 2, 3), ())
    assert np.isnan(row.expected.before).all()


def test_every_frame_may_be_the_reference_of_a_row(clip):
    rows = maker(frames=1, stride=1).rows([clip])
    shown = [[path.stem for path in row.images] for row in rows]
    assert shown == [["000000", "000001"], ["000001", "000002"], ["000002", "000003"]]
    assert [row.ids for row in rows] == [(1,), (1, 2), (1, 2)]  # the second object comes on the third frame
    assert rows[1].query.known == ((1, (13.0, 20.0, 43.0, 60.0)), (2, None))
    np.testing.assert_allclose(rows[2].expected.before, [corners(LEFT[2]), corners(LATE[2])], atol=1e-9)
    assert len(maker(frames=3, stride=2).rows([clip])) == 2


def test_one_frame_alone_is_asked_about_where_no_further_ones_are_wanted(clip):
    rows = maker(frames=0, known=0.0, stride=1).rows([clip])
    assert [[path.stem for path in row.images] for row in rows] == [["000000"], ["000001"], ["000002"]]
    assert all((row.expected.frames, row.query.known) == ((0,), ()) for row in rows)
    np.testing.assert_allclose(rows[1].expected.truth[:, 0], [corners(LEFT[1])], atol=1e-9)


def test_a_share_of_the_rows_says_where_objects_are_and_others_may_show_one_frame_alone(clip):
    clips = [replace(clip, name=f"c{number}") for number in range(400)]
    rows = maker(frames=1, known=0.7).rows(clips)
    told = [row for row in rows if row.query.known]
    alone = [row for row in rows if len(row.images) == 1]
    assert len(told) / len(rows) == pytest.approx(0.7, abs=0.06)
    assert len(alone) / (len(rows) - len(told)) == pytest.approx(0.5, abs=0.12)
    assert {(row.expected.frames, row.expected.ids) for row in alone} == {((0,), ())}
    assert {row.expected.frames for row in told} == {(1,)}


def test_places_that_a_question_says_are_off_by_the_jitter_and_the_truth_is_not(clip):
    clips = [replace(clip, name=f"c{number}") for number in range(400)]
    rows = maker(frames=1, jitter=0.1).rows(clips)
    said = np.array([row.query.known[0][1] for row in rows])
    centres, sides = (said[:, :2] + said[:, 2:]) / 2, said[:, 2:] - said[:, :2]
    assert ((centres - [25, 40]) / [30, 40]).std(0) == pytest.approx([0.1, 0.1], abs=0.02)
    assert np.log(sides / [30, 40]).std(0) == pytest.approx([0.1, 0.1], abs=0.02)
    for row in rows:
        np.testing.assert_allclose(row.expected.truth[0], [corners(LEFT[1])], atol=1e-9)
        np.testing.assert_allclose(row.expected.before[0], corners(LEFT[0]), atol=1e-9)
    again = maker(frames=1, jitter=0.1).rows(clips)
    assert [row.query for row in again] == [row.query for row in rows]


def test_the_papers_rows_pair_every_frame_with_the_reference(clip):
    rows = maker(paper=True).rows([clip])
    assert [[path.stem for path in row.images] for row in rows] == [["000000", f"{t:06d}"] for t in (1, 2, 3)]
    assert all(row.expected.frames == (1,) and not row.query.known for row in rows)
    np.testing.assert_allclose(rows[2].expected.truth[:, 0], [corners(LEFT[3]), corners(LATE[3])], atol=1e-9)
    np.testing.assert_allclose(
        rows[2].expected.before, [corners(LEFT[2]), corners(LATE[2])], atol=1e-9
    )  # one frame before it
    assert rows[0].ids == (1,)


@pytest.mark.parametrize("numbers", ["pixels", "seen_pixels", "thousandths"])
@pytest.mark.parametrize(("rewards", "paper"), [("ours", False), ("paper", True)])
def test_the_right_answer_earns_the_maximum_however_coarse_the_numbers_are(clip, numbers, rewards, paper):
    for row in maker(numbers, paper=paper).rows([clip]):
        found = earned(REWARDS[rewards], read_answer(row.completion(), row.expected), row.expected)
        assert found["reward"] == pytest.approx(1.0, abs=1e-12)


def test_a_reference_that_is_missing_is_named(clip):
    Path(clip.reference).unlink()
    with pytest.raises(InputError, match=r"000000\.png"):
        maker().rows([clip])
