import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_trees import BENCHMARKS, change_json, copies, problems, run, some_cases, tree_fixture
from PIL import Image

from data_tools.check import Benchmark, check_tree
from data_tools.synthtrack import Layout, Split
from trackgpt.export.davis import PALETTE

broken = copies
youtube = tree_fixture(Layout.refer_youtube_vos)
davis = tree_fixture(Layout.refer_davis17)
mevis = tree_fixture(Layout.mevis)
revos = tree_fixture(Layout.revos)
lvvis = tree_fixture(Layout.lv_vis)
reason = tree_fixture(Layout.reason_vos)
instrack = tree_fixture(Layout.instrack)


def mask(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.mode == "P"
        assert bytes(picture.getpalette()) == PALETTE
        return np.array(picture)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_sound_tree_has_no_problems(name, request, capsys):
    root = request.getfixturevalue(name)
    assert problems(name, root) == []
    assert run("check", BENCHMARKS[name].value, root) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"layout={BENCHMARKS[name].value} problems=0 root={root}"


def test_counts_of_a_sound_tree_are_those_written(youtube):
    report = check_tree(Benchmark.refer_youtube_vos, youtube)
    assert report.counts["train"]["frames"] == report.counts["train"]["masks"] == 12
    assert (report.counts["valid"]["videos"], report.counts["test"]["videos"]) == (2, 3)
    assert report.counts["valid"]["frames"] == 4
    assert "5 videos - 3 of test = 2 valid" in report.notes[0]


@pytest.mark.parametrize("name", ["youtube", "davis"])
def test_a_missing_frame_and_a_missing_mask_are_found(name, broken):
    root = broken(name)
    (root / "train/JPEGImages/train-30000/00003.jpg").unlink()
    (root / "train/Annotations/train-30001/00002.png").unlink()
    assert problems(name, root) == [
        "train/JPEGImages/train-30000/00003.jpg: missing; wanted the frame that is listed",
        "train/Annotations/train-30001/00002.png: missing; wanted the mask of a frame that is listed",
    ]


@pytest.mark.parametrize(("folder", "kind"), [("Annotations", "png"), ("JPEGImages", "jpg")])
def test_a_truncated_picture_is_found(folder, kind, broken):
    root = broken("davis")
    path = root / f"valid/{folder}/test-30001/00004.{kind}"
    path.write_bytes(path.read_bytes()[:-60])
    (found,) = problems("davis", root)
    assert found.startswith(f"valid/{folder}/test-30001/00004.{kind}: damaged (")


def test_a_mask_that_is_not_indexed_is_found(broken):
    root = broken("youtube")
    path = root / "train/Annotations/train-30000/00001.png"
    Image.fromarray(mask(path)).save(path)
    assert problems("youtube", root) == [
        "train/Annotations/train-30000/00001.png: mode L; wanted mode P: an indexed PNG whose values are object ids"
    ]


@pytest.mark.parametrize(("name", "words"), [("youtube", "a palette of greys"), ("davis", "another palette")])
def test_a_mask_with_another_palette_is_found(name, words, broken):
    root = broken(name)
    path = root / "train/Annotations/train-30000/00001.png"
    picture = Image.fromarray(mask(path))
    picture.putpalette([level for value in range(256) for level in (value, value, value)])
    picture.save(path)
    (found,) = problems(name, root)
    assert found.startswith(f"train/Annotations/train-30000/00001.png: {words}; wanted ")


def test_a_palette_of_other_colours_is_right_for_youtube_alone(broken):
    for name, wrong in (("youtube", 0), ("davis", 1)):
        root = broken(name)
        path = root / "train/Annotations/train-30000/00001.png"
        picture = Image.fromarray(mask(path))
        picture.putpalette([0, 0, 0, *[level for value in range(1, 256) for level in (value, 9, 255 - value)]])
        picture.save(path)
        assert len(problems(name, root)) == wrong


def test_a_mask_of_another_size_is_found(broken):
    root = broken("davis")
    path = root / "train/Annotations/train-30000/00001.png"
    with Image.open(path) as picture:
        wide, high = picture.size
        smaller = picture.resize((wide - 1, high), Image.Resampling.NEAREST)
    smaller.save(path)
    (found,) = problems("davis", root)
    assert found == f"{path.relative_to(root)}: {wide - 1} x {high}; wanted {wide} x {high}, the size of its frame"


def test_frames_of_two_sizes_in_one_video_are_found(broken):
    root = broken("youtube")
    Image.new("RGB", (50, 40)).save(root / "valid/JPEGImages/test-30000/00005.jpg")
    (found,) = problems("youtube", root)
    assert found.startswith("valid/JPEGImages/test-30000/00005.jpg: 50 x 40; wanted ")
    assert found.endswith("as frame 00000")


@pytest.mark.parametrize("name", ["youtube", "davis"])
def test_an_expression_without_object_is_found(name, broken):
    root = broken(name)
    path = root / "meta_expressions/train/meta_expressions.json"
    change_json(path, lambda videos: videos["train-30000"]["expressions"]["1"].pop("obj_id"))
    assert problems(name, root)[0] == (
        "meta_expressions/train/meta_expressions.json: video train-30000, expression 1 names no object; "
        'wanted "obj_id": a string like "1"'
    )


@pytest.mark.parametrize("value", [1, "0", "01", "one", ["1"], ""])
def test_an_object_that_is_no_number_in_a_string_is_found(value, broken):
    root = broken("youtube")
    path = root / "meta_expressions/train/meta_expressions.json"
    change_json(path, lambda videos: videos["train-30000"]["expressions"]["1"].update(obj_id=value))
    (found,) = problems("youtube", root)
    assert f"expression 1 has obj_id {value!r}; wanted a string" in found


def test_an_object_that_no_mask_shows_is_found(broken):
    root = broken("youtube")
    path = root / "meta_expressions/train/meta_expressions.json"
    change_json(path, lambda videos: videos["train-30000"]["expressions"]["0"].update(obj_id="77"))
    in_masks, in_meta = problems("youtube", root)
    assert in_masks.startswith("train/Annotations/train-30000: no mask shows object 77 of expression 0; wanted ")
    assert in_meta.startswith("train/meta.json: video train-30000 lacks object 77; wanted ")


def test_an_object_in_the_blind_part_is_found(broken):
    root = broken("youtube")
    path = root / "meta_expressions/valid/meta_expressions.json"
    change_json(path, lambda videos: videos["test-30000"]["expressions"]["0"].update(obj_id="1"))
    (found,) = problems("youtube", root)
    assert found.endswith("video test-30000, expression 0 has obj_id '1'; wanted none: the part valid is blind")


@pytest.mark.parametrize(
    ("name", "file", "there"),
    [
        ("davis", "meta_expressions/valid/meta_expressions.json", "valid/JPEGImages"),
        ("instrack", "meta_expressions/test/meta_expressions.json", "test/JPEGImages"),
        ("mevis", "valid_u/meta_expressions.json", "valid_u/JPEGImages"),
    ],
)
def test_a_list_that_is_missing_beside_its_pictures_is_a_problem(name, file, there, broken):
    root = broken(name)
    (root / file).unlink()
    part = there.split("/")[0]
    assert problems(name, root) == [f"{file}: missing, but {there} is there; wanted the expressions of {part}"]
    shutil.rmtree(root / part)
    assert problems(name, root) == []


def test_without_the_test_file_valid_cannot_be_told_from_test(broken):
    root = broken("youtube")
    (root / "meta_expressions/test/meta_expressions.json").unlink()
    found = problems("youtube", root)
    assert found[0].startswith("meta_expressions/test/meta_expressions.json: missing; wanted the test expressions")
    assert [line.split(":")[0] for line in found[1:]] == [f"valid/JPEGImages/test-3000{k}" for k in (2, 3, 4)]


def test_a_test_video_that_valid_does_not_list_is_found(broken):
    root = broken("youtube")
    change_json(root / "meta_expressions/valid/meta_expressions.json", lambda videos: videos.pop("test-30003"))
    (found,) = problems("youtube", root)
    assert "video test-30003 is not in the valid file" in found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: e.pop("5"), "expressions of "),
        (lambda e: e.update({"99": e.pop("5")}), "lacks the expression 5; wanted ids 0 to "),
        (lambda e: (e["3"].update(obj_id="2"), e["4"].update(obj_id="1")), "expression 3 has obj_id '2'; wanted '1'"),
        (lambda e: e.update({"x": e.pop("5")}), "expression x is not numbered"),
        (lambda e: e["5"].update(exp=" "), "expression 5 has no text"),
    ],
)
def test_ids_out_of_the_object_major_order_are_found(change, words, broken):
    root = broken("davis")
    path = root / "meta_expressions/valid/meta_expressions.json"
    change_json(path, lambda videos: change(videos["test-30000"]["expressions"]))
    assert words in problems("davis", root)[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"videos": {', "cannot be read"),
        ("[]", "holds no videos"),
        ('{"videos": {"a": {"expressions": {"0": {"exp": "x", "obj_id": "1"}}}}}', "video a lists no frames"),
        ('{"videos": {"a": {"frames": ["00000"], "expressions": {}}}}', "video a has no expressions"),
        ('{"videos": {"a": 3}}', "video a lists no frames"),
    ],
)
def test_a_json_that_is_not_of_the_form_is_one_line(text, words, broken):
    root = broken("davis")
    (root / "meta_expressions/train/meta_expressions.json").write_text(text)
    (found,) = problems("davis", root)
    assert words in found
    assert found.startswith("meta_expressions/train/meta_expressions.json: ")


def test_a_tree_in_a_folder_of_another_name_is_pointed_at(broken, tmp_path, capsys):
    root = broken("davis")
    (tmp_path / "outer").mkdir()
    root.rename(tmp_path / "outer/downloads")
    assert run("check", "refer-davis17", tmp_path / "outer") == 3
    line = capsys.readouterr().out.splitlines()[0]
    there = tmp_path / "outer/downloads/meta_expressions/train/meta_expressions.json"
    assert f"no refer-davis17, but {there} is there" in line
    assert line.endswith("give the folder that holds it")


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("youtube", "Ref-Youtube-VOS"),
        ("youtube", "rvos"),
        ("youtube", "ref_youtube_vos"),
        ("davis", "ref-davis"),
        ("davis", "DAVIS17"),
        ("mevis", "MeViS_release"),
        ("lvvis", "LVVIS"),
        ("revos", "revos/REVOS"),
    ],
)
def test_the_folder_above_will_do_when_the_tree_has_a_name_of_its_own(name, folder, broken, tmp_path):
    root = broken(name)
    (tmp_path / "data" / folder).parent.mkdir(parents=True)
    root.rename(tmp_path / "data" / folder)
    report = check_tree(BENCHMARKS[name], tmp_path / "data")
    assert report.problems == []
    assert report.notes[0] == f"{tmp_path / 'data'}: holds {BENCHMARKS[name]} in {folder}"


def test_pictures_in_the_wrong_place_are_pointed_at(broken):
    root = broken("davis")
    (root / "valid/JPEGImages").rename(root / "JPEGImages_moved")
    (root / "frames").mkdir()
    (root / "JPEGImages_moved").rename(root / "frames/JPEGImages")
    (found,) = problems("davis", root)
    assert found.startswith(f"valid/JPEGImages: missing, but {root / 'frames/JPEGImages'} is there")
    assert found.endswith(f"move it to {root / 'valid/JPEGImages'}, or link to it")


def test_a_video_in_the_wrong_part_is_pointed_at(broken):
    root = broken("davis")
    (root / "valid/Annotations/test-30000").rename(root / "train/Annotations/test-30000")
    (found,) = problems("davis", root)
    place = root / "train/Annotations/test-30000"
    assert found == (
        f"valid/Annotations/test-30000: missing, but {place} is there; wanted a folder with 6 masks; move it"
    )


def test_many_problems_of_a_kind_are_five_lines_and_a_count(broken, capsys):
    root = broken("davis")
    for path in (root / "train/Annotations/train-30000").iterdir():
        path.write_bytes(b"")
    for path in (root / "train/JPEGImages/train-30000").iterdir():
        path.unlink()
    assert run("check", "refer-davis17", root) == 3
    short = capsys.readouterr().out.splitlines()
    assert run("check", "refer-davis17", root, "--every") == 3
    full = capsys.readouterr().out.splitlines()
    assert sum("JPEGImages/train-30000/" in line for line in short) == 5
    assert "train/JPEGImages/train-30000: 1 more such (--every lists them)" in "\n".join(short)
    assert sum("JPEGImages/train-30000/" in line for line in full) == 6
    assert short[-1] == full[-1] == f"layout=refer-davis17 problems=12 root={root}"


def test_a_root_that_is_not_there_is_an_error(tmp_path, capsys):
    assert run("check", "refer-davis17", tmp_path / "nowhere") == 3
    assert "no such folder; wanted the top folder" in capsys.readouterr().err


def test_the_real_mini_tree_is_sound(shared):
    report = check_tree(Benchmark.refer_davis17, shared / "data/refer_davis17/mini")
    assert report.problems == []
    assert report.counts["valid"] == {"videos": 5, "expressions": 5, "frames": 60, "masks": 60, "objects": 5}
    assert "5 videos have one expression of each object, not four" in report.notes[1]


def test_the_real_valid_file_is_read_whole(shared, tmp_path):
    real = shared / "data/refer_ytvos/meta_expressions_valid507.json"
    videos = json.loads(real.read_text())["videos"]
    for part, kept in (("valid", videos), ("test", dict(list(videos.items())[202:]))):
        (tmp_path / "meta_expressions" / part).mkdir(parents=True)
        text = json.dumps({"videos": kept})
        (tmp_path / "meta_expressions" / part / "meta_expressions.json").write_text(text)
    report = check_tree(Benchmark.refer_youtube_vos, tmp_path)
    assert [problem.path for problem in report.problems] == [Path("valid/JPEGImages")]
    assert "507 videos - 305 of test = 202 valid" in report.notes[1]
    assert sum(len(video["expressions"]) for video in videos.values()) == 2096


def test_counts_stand_beside_those_that_were_published(broken, capsys):
    root = broken("mevis")
    shutil.rmtree(root / "train/JPEGImages/train-30000")
    (root / "train/JPEGImages/train-30001/00001.jpg").write_bytes(b"")
    assert run("check", "mevis", root) == 3
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("train  ")]
    assert ["train", "videos", "1", "1", "0", "1662"] in rows
    assert ["train", "frames", "5", "6", "1"] in rows
    assert rows[1][:2] == ["train", "expressions"]
    assert rows[1][-1] == "23051"


def test_a_root_that_shows_nothing_is_told_with_what_it_holds(tmp_path, capsys):
    (tmp_path / "zip").mkdir()
    assert run("check", "lv-vis", tmp_path) == 3
    line, *table, last = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{tmp_path}: no lv-vis; it holds zip; wanted train/meta_expressions.json or ")
    assert line.endswith("may also go by the name LV-VIS")
    assert table == ["train: not there"]
    assert last == f"layout=lv-vis problems=1 root={tmp_path}"


def test_a_pickle_of_masks_is_pointed_at(broken):
    for name, part in (("youtube", "train"), ("davis", "valid")):
        root = broken(name)
        shutil.rmtree(root / part / "Annotations")
        (root / part / "mask_dict.pkl").write_bytes(b"")
        (found,) = problems(name, root)
        assert found.startswith(f"{part}/Annotations: missing ({part}/mask_dict.pkl is there, a pickle")


def test_grey_masks_of_davis_2016_are_no_fault(broken):
    root = broken("davis")
    for path in (root / "valid/Annotations/test-30000").iterdir():
        Image.fromarray(np.where(mask(path) > 0, np.uint8(255), np.uint8(0))).save(path)
    report = check_tree(Benchmark.refer_davis17, root)
    assert report.problems == []
    assert "valid/Annotations/test-30000: grey masks of DAVIS-2016, one for all objects of the video" in report.notes


def test_the_truth_of_valid_is_checked_where_it_is(broken):
    root = broken("youtube")
    (case,) = some_cases(Layout.refer_youtube_vos, Split.test, 1)
    videos = some_cases(Layout.refer_youtube_vos, Split.test)
    targets = {one.text: one.targets[0] for each in videos for one in each.expressions if len(one.targets) == 1}
    for each in videos:
        folder = root / "valid/Annotations" / each.clip.name
        folder.mkdir(parents=True)
        for t in (0, 5):
            picture = Image.fromarray(each.clip.ids[t])
            picture.putpalette(PALETTE)
            picture.save(folder / f"{t:05d}.png")
    report = check_tree(Benchmark.refer_youtube_vos, root)
    assert report.problems == []
    assert "not all expressions say whose masks these are" in report.notes[-1]

    def add(listed):
        for each in videos:
            for entry in listed[each.clip.name]["expressions"].values():
                entry["obj_id"] = str(targets[entry["exp"]])

    change_json(root / "meta_expressions/valid/meta_expressions.json", add)
    (root / "valid/Annotations" / case.clip.name / "00005.png").unlink()
    assert problems("youtube", root) == [
        f"valid/Annotations/{case.clip.name}/00005.png: missing; wanted the mask of a frame that is listed"
    ]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda runs: runs.pop("0"), "no annotation 0, of video train-30000; wanted every annotation that is named"),
        (lambda runs: runs["0"].pop(), "annotation 0, of video train-30000, has 5 masks; wanted 6, one per frame"),
        (lambda runs: runs["0"][0].update(counts="0"), "frame 0: run-length text '0'"),
        (lambda runs: runs["0"][0].pop("size"), "frame 0: 'size'; wanted"),
        (lambda runs: runs["0"][0].update(size=runs["0"][0]["size"][::-1]), "the size of the frames"),
    ],
)
@pytest.mark.parametrize("name", ["mevis", "revos", "lvvis"])
def test_run_lengths_that_are_not_sound_are_found(name, edit, words, broken):
    root = broken(name)
    path = next(path for path in (root / "train/mask_dict.json", root / "mask_dict.json") if path.is_file())
    runs = json.loads(path.read_text())
    edit(runs)
    path.write_text(json.dumps(runs))
    (found,) = problems(name, root)
    assert found.startswith(f"{path.relative_to(root)}: ")
    assert words.replace("train-30000", "SynthTrack/train-30000" if name == "revos" else "train-30000") in found


def test_a_mask_dict_in_the_wrong_place_or_a_pickle_of_it_is_pointed_at(broken):
    root = broken("mevis")
    (root / "train/mask_dict.json").rename(root / "train/JPEGImages/mask_dict.json")
    (found,) = problems("mevis", root)
    assert found.startswith(f"train/mask_dict.json: missing, but {root / 'train/JPEGImages/mask_dict.json'} is there")
    (root / "train/JPEGImages/mask_dict.json").rename(root / "train/mask_dict.pkl")
    (found,) = problems("mevis", root)
    assert found.startswith("train/mask_dict.json: missing (mask_dict.pkl is there); wanted ")


def test_what_revos_alone_has_is_checked(broken):
    root = broken("revos")
    path = root / "meta_expressions_valid_.json"
    change_json(path, lambda videos: videos["SynthTrack/test-30000"]["expressions"]["0"].update(type_id=5))
    assert problems("revos", root) == [
        "meta_expressions_valid_.json: video SynthTrack/test-30000, expression 0 has type_id 5; "
        "wanted 0 referring, 1 reasoning or 2 absent"
    ]
    root = Path(shutil.move(root, root.with_name("second")))
    path = root / "mask_dict_foreground.json"
    foreground = json.loads(path.read_text())
    del foreground["SynthTrack/train-30001"]
    path.write_text(json.dumps(foreground))
    assert "mask_dict_foreground.json: video SynthTrack/train-30001 has no masks; wanted 6, one per frame" in problems(
        "revos", root
    )
    path.unlink()
    (root / "meta_expressions_valid_.json").rename(root / "meta_expressions_valid.json")
    notes = check_tree(Benchmark.revos, root).notes
    assert "mask_dict_foreground.json: not there; the robustness score R cannot be computed" in notes
    assert any("published as meta_expressions_valid_.json" in note for note in notes)


def test_what_reason_vos_alone_has_is_checked(broken):
    root = broken("reason")
    folder = root / "Annotations/SynthTrack_test-30000_1"
    (folder / "00002.png").unlink()
    empty = np.zeros_like(np.asarray(Image.open(folder / "00000.png")))
    for path in (root / "Annotations/SynthTrack_test-30000_2").iterdir():
        Image.fromarray(empty).save(path)
    shutil.rmtree(root / "Annotations/SynthTrack_test-30001_1")
    assert problems("reason", root) == [
        "Annotations/SynthTrack_test-30000_1/00002.png: missing; wanted the mask of a frame that is listed",
        "Annotations/SynthTrack_test-30000_2: no mask shows object 2; wanted it in some frame",
        "Annotations/SynthTrack_test-30001_1: missing; wanted a folder with 6 masks",
    ]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda e: e["2"].update(wording=1), "group 0 has the wordings 0, 1, 1, 3, 4, 5; wanted each of 0 to 5 once"),
        (lambda e: e.pop("5"), "group 0 has the wordings 0, 1, 2, 3, 4; wanted"),
        (lambda e: e["2"].update(obj_id=["2"]), "group 0 means several things"),
        (lambda e: e["2"].update(obj_id=[]), "group 0 means several things"),
        (lambda e: e["2"].update(obj_id=["0"]), "expression 2 has obj_id ['0']; wanted"),
        (lambda e: e["2"].pop("obj_id"), "expression 2 names no object"),
        (lambda e: [one.update(obj_id=["77"]) for one in list(e.values())[:6]], "no mask shows object 77"),
    ],
)
def test_what_instrack_alone_has_is_checked(edit, words, broken):
    root = broken("instrack")
    path = root / "meta_expressions/train/meta_expressions.json"
    change_json(path, lambda videos: edit(videos["train-30000"]["expressions"]))
    assert words in problems("instrack", root)[0]
