import shutil
from pathlib import Path

import numpy as np
import pytest
from made_trees import FRAMES, SEED, copies, run, some_cases, tree_fixture
from PIL import Image

from data_tools.contact_sheet import (
    GAP,
    HEAD,
    MARGIN,
    PADDING,
    SIDE,
    TARGETS,
    SheetLine,
    SheetRow,
    columns,
    draw_sheet,
    spread,
)
from data_tools.picture_sheet import Picture, draw_pictures
from data_tools.samples import some_pictures
from data_tools.synthtrack import Layout, Split
from data_tools.view import rows_on_disk, synthetic_rows
from data_tools.writers import MANIFEST
from trackgpt.data.referring_image import grefcoco

broken = copies
folder = tree_fixture(Layout.folder)
mp4 = tree_fixture(Layout.mp4)
youtube = tree_fixture(Layout.refer_youtube_vos)
davis = tree_fixture(Layout.refer_davis17)
mevis = tree_fixture(Layout.mevis)
revos = tree_fixture(Layout.revos)
lvvis = tree_fixture(Layout.lv_vis)
reason = tree_fixture(Layout.reason_vos)
instrack = tree_fixture(Layout.instrack)
vipseg = tree_fixture(Layout.vipseg)
stage1 = tree_fixture(Layout.stage1)


def row(frame: int = 80, ids: bool = True, **changes: object) -> SheetRow:
    maps = np.zeros((12, frame, frame), np.uint8)
    maps[:6, 20:50, 20:50] = 7
    pictures = [np.full((frame, frame, 3), 90, np.uint8)] * 3
    values = {
        "title": "seed 1",
        "difficulty": "hard",
        "facts": ("12 frames",),
        "frames": pictures,
        "shown": [0, 5, 11],
        "total": 12,
        "ids": maps if ids else None,
        "lines": (SheetLine("multi", "track it", "Sure, I track 1 object: the box <TK>, <PO>", (7,)),),
        "events": ((6, "leaves", 7),),
        **changes,
    }
    return SheetRow(**values)


def has(picture: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(picture) == colour).all(axis=2).sum())


def test_a_target_is_outlined_in_its_colour_while_it_is_in_sight():
    first, second = TARGETS[0], TARGETS[1]
    sheet = draw_sheet("a", "b", [row()])
    assert has(sheet, first) > 2000
    assert has(sheet, second) == 0
    unseen = draw_sheet("a", "b", [row(ids=False)])
    assert has(unseen, first) < has(sheet, first) / 5  # the number beside the text is left
    assert unseen.height < sheet.height


def test_a_frame_shows_the_outline_only_where_the_target_is():
    sheet = draw_sheet("a", "b", [row(total=12)])
    left, top = MARGIN + PADDING + SIDE, HEAD + PADDING
    size = int((1400 - 6 * GAP) / 7)  # seven square frames fill the width
    shown = [sheet.crop((left + k * (size + GAP), top, left + k * (size + GAP) + size, top + size)) for k in range(3)]
    counts = [has(one, TARGETS[0]) for one in shown]
    assert counts[0] == counts[1] > counts[2] + 200  # the last one shows the number alone


def test_two_targets_have_two_colours_in_the_order_of_mention():
    one = row(lines=(SheetLine("explicit", "a", "", (7,)), SheetLine("multi", "b", "", (2, 7))))
    assert one.numbers == {7: 1, 2: 2}
    assert has(draw_sheet("a", "b", [one]), TARGETS[1]) > 0


def test_a_long_instruction_takes_more_lines_and_none_is_cut():
    short = draw_sheet("a", "b", [row(lines=(SheetLine("none", "track it", "I see no box here.", ()),))])
    long = draw_sheet("a", "b", [row(lines=(SheetLine("none", "track it " * 60, "I see no box here.", ()),))])
    assert long.width == short.width
    assert long.height >= short.height + 4 * 26


def test_shown_frames_run_from_the_first_to_the_last():
    assert spread(48, 4 / 3) == [0, 9, 19, 28, 38, 47]
    assert spread(3, 4 / 3) == [0, 1, 2]
    assert spread(1, 4 / 3) == [0]
    assert [columns(aspect) for aspect in (16 / 9, 4 / 3, 1.0, 3 / 4)] == [5, 6, 7, 8]


def test_view_shows_the_scenes_that_make_writes():
    rows = list(synthetic_rows(SEED, 2, Split.train, FRAMES))
    assert [one.title for one in rows] == ["seed 30000", "seed 30001"]
    for one, case in zip(rows, some_cases(Layout.folder, Split.train), strict=True):
        assert one.events == case.scene.events
        assert {line.kind for line in one.lines} <= {"explicit", "implicit", "multi", "none"}


def test_view_writes_one_picture(tmp_path, capsys):
    out = tmp_path / "sheet.png"
    assert run("view", "--seed", SEED, "--videos", 2, "--frames", 6, "-o", out) == 0
    assert capsys.readouterr().out.startswith("samples=2 width=")
    with Image.open(out) as picture:
        assert picture.format == "PNG"
        assert picture.width > 1500
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


@pytest.mark.parametrize("name", ["folder", "mp4", "youtube", "davis", "mevis", "revos", "reason", "instrack"])
def test_every_video_layout_can_be_shown_from_disk(name, request, tmp_path):
    root = request.getfixturevalue(name)
    found = list(rows_on_disk(root, 5, None))
    assert [one.title.split("/")[-1] for one in found] == ["test-30000", "test-30001"]
    assert all(one.ids is not None and one.ids.any() for one in found)
    kinds = {line.kind for one in found for line in one.lines}
    if name in ("folder", "mp4"):
        assert kinds == {"explicit", "implicit", "multi", "none"}
    elif name == "revos":
        assert kinds == {"referring", "reasoning", "absent"}
    else:
        assert kinds == {"expression"}
    assert run("view", root, "--videos", 1, "-o", tmp_path / "sheet.jpg") == 0


def test_a_tree_on_disk_shows_the_pictures_that_were_drawn(folder, mp4):
    for layout, root in ((Layout.folder, folder), (Layout.mp4, mp4)):
        for case, one in zip(some_cases(layout, Split.test), rows_on_disk(root, 2, None), strict=True):
            assert np.array_equal(one.ids, case.clip.ids)
            assert one.events == case.scene.events
            for frame, index in zip(one.frames, one.shown, strict=True):
                assert np.abs(frame.astype(np.float32) - case.clip.frames[index]).mean() < 8


@pytest.mark.parametrize(("name", "layout"), [("lvvis", "lv-vis"), ("vipseg", "vipseg")])
def test_a_set_with_one_part_or_panoptic_masks_is_shown(name, layout, request, tmp_path):
    root = request.getfixturevalue(name)
    found = list(rows_on_disk(root, 5, None, layout))
    assert len(found) >= 2
    assert all(one.ids.any() and one.lines for one in found)
    assert run("view", root, "--layout", layout, "--videos", 1, "-o", tmp_path / "sheet.png") == 0


def test_the_rows_of_a_video_set_outline_what_its_expressions_mean(instrack):
    case = some_cases(Layout.instrack, Split.test, 1)[0]
    one = next(iter(rows_on_disk(instrack, 1, Split.test)))
    meant = {said.text: said.targets for said in case.expressions}
    for line in one.lines:
        covered = np.isin(one.ids, line.targets)
        assert np.array_equal(covered, np.isin(case.clip.ids, meant[line.text]))


def test_a_folder_that_could_be_several_sets_is_not_guessed(davis, tmp_path, capsys):
    root = Path(shutil.copytree(davis, tmp_path / "mine"))
    (root / MANIFEST).unlink()
    assert run("view", root, "-o", tmp_path / "sheet.png") == 2
    assert "could be refer-youtube-vos, refer-davis17, instrack; say which with --layout" in capsys.readouterr().err
    assert run("view", root, "--layout", "refer-davis17", "--videos", 1, "-o", tmp_path / "sheet.png") == 0
    root.rename(tmp_path / "ref-davis")
    assert run("view", tmp_path, "--videos", 1, "-o", tmp_path / "again.png") == 0  # its name tells


def test_a_folder_that_is_no_tree_cannot_be_shown(tmp_path, capsys):
    (tmp_path / "zip").mkdir()
    assert run("view", tmp_path, "-o", tmp_path / "sheet.png") == 3
    assert "neither expressions.json nor a data set that is known is there; it holds zip" in capsys.readouterr().err
    assert run("view", tmp_path, "--layout", "davis", "-o", tmp_path / "sheet.png") == 2


def test_a_damaged_tree_is_refused_in_one_line(broken, capsys, tmp_path):
    root = broken("davis")
    (root / "valid/Annotations/test-30000/00003.png").unlink()
    assert run("view", root, "-o", tmp_path / "sheet.png") == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "00003.png: missing; wanted a label map" in error
    assert not (tmp_path / "sheet.png").exists()


# view: pictures


def test_some_of_every_image_set_of_a_root_are_shown(stage1, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    assert run("view", stage1, "--videos", 2, "-o", out) == 0
    assert capsys.readouterr().out.startswith("samples=26 width=1712 ")  # two of each of 13
    with Image.open(out) as sheet:
        assert sheet.height > 13 * 250
        assert len(np.unique(np.asarray(sheet.reduce(8)).reshape(-1, 3), axis=0)) > 1000
        assert has(sheet, TARGETS[0]) > 5000
    assert run("view", stage1, "--layout", "refcoco+", "--videos", 2, "-o", out, "--overwrite") == 0
    assert capsys.readouterr().out.startswith("samples=2 ")


def test_samples_are_spread_and_so_are_their_expressions(stage1):
    first, second = some_pictures("grefcoco", stage1, 2, None)
    samples = grefcoco(stage1, "train")
    assert [one.name.split(" ")[0] for one in (first, second)] == [samples[0].name, samples[1].name]
    assert first.text == samples[0].expressions[0].text
    said = samples[1].expressions[len(samples[1].expressions) // 2]
    assert second.text == said.text
    assert np.array_equal(second.mask, samples[1].mask(said))


def test_a_picture_shows_its_outline_and_what_is_ignored():
    image, mask = np.full((60, 80, 3), 90, np.uint8), np.zeros((60, 80), bool)
    mask[20:40, 20:40] = True
    plain = draw_pictures("a", "b", [("set", [Picture("1", "the box", image)])])
    marked = draw_pictures("a", "b", [("set", [Picture("1", "the box", image, mask, ~mask)])])
    assert has(plain, TARGETS[0]) == 0
    assert has(marked, TARGETS[0]) > 300
    assert has(plain, (90, 90, 90)) > has(marked, (90, 90, 90)) + 5000  # hatched
    long = draw_pictures("a", "b", [("set", [Picture("1", "what is it? " * 50, image)])])
    assert plain.height < long.height < plain.height + 120  # five lines at most


def test_all_verbs_are_there(capsys):
    assert run("--help") == 0
    text = capsys.readouterr().out
    assert [
        verb for verb in ("make", "check", "view", "atlas", "build-instrack", "rephrase") if f" {verb} " not in text
    ] == []
