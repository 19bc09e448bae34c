"""Readers of box, flag and prompt files: what they accept, and how precisely they refuse the rest."""

from pathlib import Path

import numpy as np
import pytest

from trackgpt.data.box_files import (
    INTERACTTRACK_SCENES,
    LASOT_ABSENT,
    LASOT_ATTRIBUTES,
    TNL2K_ABSENT,
    TNL2K_ATTRIBUTES,
    TNLLT_ABSENT,
    TNLLT_ATTRIBUTES,
    first_visible,
    read_absent,
    read_boxes,
    read_descriptions,
    read_flags,
    read_interacttrack_boxes,
    read_interacttrack_truth,
    read_names,
    read_scene,
)
from trackgpt.errors import InputError


def written(folder: Path, text: str) -> Path:
    path = folder / "file.txt"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "1,2,3,4\n5,6,7,8\n",
        "1\t2\t3\t4\n5\t6\t7\t8\n",
        "1 2 3 4\n5 6  7 8",
        " 1, 2, 3, 4 \r\n5.0,6e0,7,8\r\n\r\n",
        "\ufeff1,2,3,4\n5,6,7,8\n\n\n",
    ],
    ids=["commas", "tabs", "spaces", "windows", "byte order mark"],
)
def test_boxes_are_four_numbers_a_line_between_commas_tabs_or_spaces(tmp_path, text):
    boxes = read_boxes(written(tmp_path, text))
    assert boxes.dtype == np.float64
    assert boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_nan_is_a_number_and_infinity_is_not(tmp_path):
    boxes = read_boxes(written(tmp_path, "1,2,3,4\nNaN,NaN,NaN,NaN\n"))
    assert np.isnan(boxes[1]).all()
    with pytest.raises(InputError, match=r"line 1 is '1,2,inf,4', wanted finite"):
        read_boxes(written(tmp_path, "1,2,inf,4\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3,4\n1,2,3\n", r"line 2 is '1,2,3', wanted four numbers x,y,w,h"),
        ("1,2,3,4,5\n", r"line 1 is '1,2,3,4,5'"),
        ("1,2,3,4\n\n1,2,3,4\n", "line 2 is ''"),
        ("1,2,3,4\n1,2,x,4\n", "line 2 is '1,2,x,4'"),
        ("\n \n", "empty"),
        ("", "empty"),
    ],
)
def test_a_line_that_is_no_box_is_named_with_file_and_number(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read_boxes(written(tmp_path, text))
    assert str(caught.value).startswith(str(tmp_path / "file.txt"))


@pytest.mark.parametrize("read", [read_boxes, read_flags, read_names, read_descriptions, read_interacttrack_boxes])
def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(InputError, match="absent.txt: cannot be read"):
        read(tmp_path / "absent.txt")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "file.txt"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="UTF-8"):
        read_boxes(path)


# --- flags ---


def test_flags_stand_one_a_line_or_all_on_one(tmp_path):
    for text in ("0\n1\n1\n", "0,1,1", "0 1\t1\n", "0\n1,1\n\n", "0.0\n1\n1.0\n"):
        assert read_flags(written(tmp_path, text)).tolist() == [False, True, True]


def test_a_flag_is_zero_or_one_and_their_number_is_checked(tmp_path):
    with pytest.raises(InputError, match="line 2 is '2', wanted flags 0 or 1"):
        read_flags(written(tmp_path, "1\n2\n"))
    with pytest.raises(InputError, match="line 2 is ''"):
        read_flags(written(tmp_path, "1\n\n1\n"))
    with pytest.raises(InputError, match="2 flags, wanted 3"):
        read_flags(written(tmp_path, "1\n0\n"), 3)


def test_one_means_absent_in_lasot_and_tnl2k_and_present_in_tnllt(tmp_path):
    path = written(tmp_path, "1\n1\n0\n")
    assert (LASOT_ABSENT, TNL2K_ABSENT, TNLLT_ABSENT) == (1, 1, 0)
    assert read_absent(path, LASOT_ABSENT).tolist() == [True, True, False]
    assert read_absent(path, TNL2K_ABSENT).tolist() == [True, True, False]
    assert read_absent(path, TNLLT_ABSENT).tolist() == [False, False, True]
    with pytest.raises(InputError, match="wanted 0 or 1"):
        read_absent(path, 2)


def test_data_sets_name_14_15_and_17_attributes_and_6_scenes():
    lists = (LASOT_ATTRIBUTES, TNLLT_ATTRIBUTES, TNL2K_ATTRIBUTES, INTERACTTRACK_SCENES)
    assert [len(set(names)) for names in lists] == [14, 15, 17, 6]


def test_a_scene_is_six_flags(tmp_path):
    assert read_scene(written(tmp_path, "0,1,0,0,0,0\n")).tolist() == [False, True, False, False, False, False]
    with pytest.raises(InputError, match="5 flags, wanted 6"):
        read_scene(written(tmp_path, "0 1 0 0 0"))


def test_a_list_holds_each_name_once(tmp_path):
    assert read_names(written(tmp_path, "b \na\n")) == ["b", "a"]
    with pytest.raises(InputError, match="line 2 is 'a', wanted one new sequence name"):
        read_names(written(tmp_path, "a\na\n"))


# --- InteractTrack ---


def test_a_blank_line_or_a_single_zero_or_nan_is_no_box(tmp_path):
    path = written(tmp_path, "1,2,3,4\n\n0\nNaN\n5\t6\t7\t8\n")
    assert read_interacttrack_boxes(path).tolist() == [[1, 2, 3, 4], [0] * 4, [0] * 4, [0] * 4, [5, 6, 7, 8]]
    assert read_interacttrack_boxes(written(tmp_path, "")).shape == (0, 4)
    assert read_interacttrack_boxes(written(tmp_path, "\n\n")).shape == (2, 4)  # every line is a frame


@pytest.mark.parametrize(
    ("line", "box"), [("1,2,3", [0] * 4), ("absent", [0] * 4), ("1,2,3,4,5", [1, 2, 3, 4]), ("1,2,3,4,x", [0] * 4)]
)
def test_a_ragged_line_is_refused_unless_the_toolkits_rule_is_asked_for(tmp_path, line, box):
    path = written(tmp_path, f"9,9,9,9\n{line}\n")
    with pytest.raises(InputError, match=r"line 2 is .* wanted x,y,w,h, a single 0, or a blank line"):
        read_interacttrack_boxes(path)
    assert read_interacttrack_boxes(path, ragged=True).tolist() == [[9, 9, 9, 9], box]


def test_four_written_nan_stay_nan(tmp_path):
    assert np.isnan(read_interacttrack_boxes(written(tmp_path, "nan,nan,nan,nan\n"))).all()


@pytest.mark.parametrize(
    ("line", "visible"),
    [
        ("1,2,3,4", True),
        ("0 0 3 4", True),
        ("1,2,3,4,x", True),
        ("-1,2,3,4", False),
        ("1,2,0,4", False),
        ("1,2,3,-4", False),
        ("nan,2,3,4", False),
        ("1,2,3,nan", False),
        ("1,2,3", False),
        ("7", False),
        ("word", False),
        ("", False),
    ],
)
def test_the_loader_sees_a_target_where_x_and_y_are_not_negative_and_sizes_positive(tmp_path, line, visible):
    boxes, seen = read_interacttrack_truth(written(tmp_path, line + "\n"))
    assert seen.tolist() == [visible]
    assert bool(boxes.any()) == visible


def test_tracking_begins_at_the_first_visible_frame():
    assert first_visible(np.array([False, True, False])) == 1
    with pytest.raises(InputError, match="visible in no frame"):
        first_visible(np.array([False, False]))


def test_a_description_is_a_line_a_frame_and_blank_lines_count(tmp_path):
    path = written(tmp_path, "the red car\n\n   \nno, the one in bl\u00fce\u2028indeed\n\n")
    assert read_descriptions(path) == ["the red car", "", "", "no, the one in bl\u00fce\u2028indeed", ""]
