"""Rows of MolmoPoint-TrackAny: read as the dataset's card shows them, written back equal, refused by line and field."""

import json

import pytest

from trackgpt.data.point_tracks import TargetPoint, read_point_tracks, write_point_tracks
from trackgpt.errors import InputError

ROW = {
    "id": "yt-vis_track_7",
    "video": "31c53703e5",
    "expression": "surfboard",
    "fps": 12,
    "sampling_fps": 2,
    "height": 360,
    "n_frames": 54,
    "width": 640,
    "task": "track",
    "frame_trajectories": [
        {"frame": 0, "time": 0, "points": [{"id": 0, "point": [415, 245], "occluded": True}]},
        {
            "frame": 6,
            "time": 0.5,
            "points": [
                {"id": 0, "point": [407.5, 240], "occluded": False},
                {"id": 1, "point": [12, 30], "occluded": True},
                {"id": 2, "point": [640, 360], "occluded": False},
            ],
        },
    ],
    "mask_id": ["0", "1", "2"],
    "obj_id": [4065, 4066, 4067],
}


def written(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    return path


def test_rows_are_read_and_written_back_equal(tmp_path):
    rows = read_point_tracks(written(tmp_path / "a.jsonl", ROW, {**ROW, "expression": "das weiße Brett"}))
    again = write_point_tracks(tmp_path / "b.jsonl", rows)
    assert read_point_tracks(again) == rows
    assert [json.loads(line) for line in again.read_text().splitlines()] == [
        ROW,
        {**ROW, "expression": "das weiße Brett"},
    ]
    assert rows[0].frames[1].points[2] == TargetPoint(2, 640.0, 360.0)
    assert rows[0].more == {"task": "track", "mask_id": ["0", "1", "2"], "obj_id": [4065, 4066, 4067]}


def test_words_and_clicks_begin_a_track_where_a_target_is_first_seen(tmp_path):
    (row,) = read_point_tracks(written(tmp_path / "a.jsonl", ROW))
    assert (row.said.text, row.said.frame) == ("surfboard", 6)
    assert (row.shown.text, row.shown.frame, row.shown.ids) == ("", 6, (1, 3))
    assert [one.points for one in row.shown.visual] == [((407.5, 240.0, 1),), ((640.0, 360.0, 1),)]


def moved(**fields):
    """The row with another point on its first frame."""
    return {**ROW, "frame_trajectories": [{"frame": 0, "time": 0, "points": [{"id": 0, "point": [1, 1], **fields}]}]}


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ([], "a list; wanted an object with id, video"),
        ({**ROW, "expression": ""}, "expression is ''; wanted text"),
        ({**ROW, "fps": "12"}, "fps is '12'; wanted a number above 0"),
        ({**ROW, "n_frames": 1.5}, "n_frames is 1.5; wanted a whole number above 0"),
        ({**ROW, "height": True}, "height is True; wanted a whole number above 0"),
        ({**ROW, "n_frames": 6}, r"frames \[0, 6\]; wanted some of 0 to 5, in order"),
        ({**ROW, "frame_trajectories": []}, r"frames \[\]; wanted some"),
        ({**ROW, "frame_trajectories": None}, "no points"),
        (moved(point=[1]), "no points .*; wanted frame_trajectories"),
        (moved(point=[641, 1]), "frame 0: 641, 1 of target 0; wanted one point per target from 0 on, within 640 x 360"),
        (moved(point=[float("nan"), 1]), "frame 0: nan, 1 of target 0"),
        (moved(id=-1), "of target -1; wanted one point"),
        (moved(occluded=True), "no target can be seen on any frame"),
    ],
)
def test_what_is_no_row_is_refused_by_its_line(tmp_path, row, wanted):
    path = written(tmp_path / "a.jsonl", ROW, row)
    with pytest.raises(InputError, match=f"^{path}: line 3: .*{wanted}"):
        read_point_tracks(path)


def test_what_is_no_file_of_rows_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_point_tracks(tmp_path / "missing.jsonl")
    (tmp_path / "a.jsonl").write_bytes(b"{\n")
    with pytest.raises(InputError, match="a.jsonl: line 1"):
        read_point_tracks(tmp_path / "a.jsonl")
