import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.__main__ import main
from data_tools.check import Benchmark, check_tree
from data_tools.contact_sheet import GAP, HEAD, MARGIN, PADDING, SIDE, TARGETS, Line, Row, columns, draw_sheet, spread
from data_tools.label_map_writers import InsTrackWriter, ReferDavis17Writer, object_major
from data_tools.synthtrack import Layout, Order, Split, cases, make, parts, scene_seed
from data_tools.view import rows_on_disk, synthetic_rows
from data_tools.writers import MANIFEST
from trackgpt.data.synthtrack.scene import Expression
from trackgpt.errors import InputError, OutputError, UsageError
from trackgpt.export.davis import PALETTE

VIDEOS, FRAMES, LONGEST, SEED = 2, 6, 96, 3
BENCHMARKS = {
    "youtube": Benchmark.refer_youtube_vos,
    "davis": Benchmark.refer_davis17,
    "mevis": Benchmark.mevis,
    "revos": Benchmark.revos,
    "lvvis": Benchmark.lv_vis,
    "reason": Benchmark.reason_vos,
    "instrack": Benchmark.instrack,
}


def order(layout: Layout, **changes: object) -> Order:
    values = {"videos": VIDEOS, "seed": SEED, "frames": FRAMES, "longest": LONGEST, **changes}
    return Order(layout, **values)


def made(layout: Layout, out: Path, **changes: object) -> Path:
    make(order(layout, **changes), out)
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made(Layout.folder, tmp_path_factory.mktemp("made") / "folder")


@pytest.fixture(scope="module")
def mp4(tmp_path_factory):
    return made(Layout.mp4, tmp_path_factory.mktemp("made") / "mp4")


@pytest.fixture(scope="module")
def youtube(tmp_path_factory):
    return made(Layout.refer_youtube_vos, tmp_path_factory.mktemp("made") / "youtube")


@pytest.fixture(scope="module")
def davis(tmp_path_factory):
    return made(Layout.refer_davis17, tmp_path_factory.mktemp("made") / "davis")


@pytest.fixture(scope="module")
def mevis(tmp_path_factory):
    return made(Layout.mevis, tmp_path_factory.mktemp("made") / "mevis")


@pytest.fixture(scope="module")
def revos(tmp_path_factory):
    return made(Layout.revos, tmp_path_factory.mktemp("made") / "revos")


@pytest.fixture(scope="module")
def lvvis(tmp_path_factory):
    return made(Layout.lv_vis, tmp_path_factory.mktemp("made") / "lvvis")


@pytest.fixture(scope="module")
def reason(tmp_path_factory):
    return made(Layout.reason_vos, tmp_path_factory.mktemp("made") / "reason")


@pytest.fixture(scope="module")
def instrack(tmp_path_factory):
    return made(Layout.instrack, tmp_path_factory.mktemp("made") / "instrack")


def some_cases(layout: Layout, split: Split, count: int = VIDEOS) -> list:
    return [case for _, case in zip(range(count), cases(order(layout), split), strict=False)]


def videos_of(root: Path, part: str) -> dict:
    return json.loads((root / "meta_expressions" / part / "meta_expressions.json").read_text())["videos"]


def mask(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.mode == "P"
        assert bytes(picture.getpalette()) == PALETTE
        return np.array(picture)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(one) for one in arguments])
    return stop.value.code


# make: what is written is what was drawn


def test_masks_and_expressions_come_back_from_a_folder_as_they_were(folder):
    videos = json.loads((folder / "expressions.json").read_text())["videos"]
    assert list(videos) == ["test-30000", "test-30001"]
    for case in some_cases(Layout.folder, Split.test):
        video = videos[case.clip.name]
        assert video["frames"] == ["00000", "00001", "00002", "00003", "00004", "00005"]
        masks = [mask(folder / f"Annotations/{case.clip.name}/{name}.png") for name in video["frames"]]
        assert np.array_equal(masks, case.clip.ids)
        back = [
            (entry["exp"], entry["kind"], entry["form"], tuple(entry["obj_id"]), entry["answer"])
            for _, entry in sorted(video["expressions"].items(), key=lambda item: int(item[0]))
        ]
        assert back == [(e.text, e.kind, e.form, e.targets, e.answer) for e in case.expressions]
        assert (video["seed"], video["split"]) == (case.scene.seed, "test")


def test_frames_in_a_folder_look_like_those_drawn(folder):
    for case in some_cases(Layout.folder, Split.test):
        for index, frame in enumerate(case.clip.frames):
            with Image.open(folder / f"JPEGImages/{case.clip.name}/{index:05d}.jpg") as picture:
                error = np.abs(np.asarray(picture, np.float32) - frame).mean()
            assert error < 8  # grey levels; another frame of the same video differs by more than a compressed one


def test_every_kind_of_expression_is_written_where_the_layout_holds_it(folder):
    videos = json.loads((folder / "expressions.json").read_text())["videos"].values()
    entries = [entry for video in videos for entry in video["expressions"].values()]
    assert {entry["kind"] for entry in entries} == {"explicit", "implicit", "multi", "none"}
    assert {len(entry["obj_id"]) > 1 for entry in entries if entry["kind"] == "multi"} == {True}
    assert [entry["obj_id"] for entry in entries if entry["kind"] == "none"] == [[], []]


def test_an_mp4_has_a_frame_for_every_mask_and_even_sides(tmp_path):
    import av

    root = made(Layout.mp4, tmp_path / "mp4", videos=1, longest=97)
    case = next(iter(cases(order(Layout.mp4, longest=97), Split.test)))
    with av.open(str(root / f"videos/{case.clip.name}.mp4")) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(stream)]
    masks = [mask(path) for path in sorted((root / f"truth/{case.clip.name}").iterdir())]
    assert np.array_equal(masks, case.clip.ids)
    assert [frame.shape[:2] for frame in frames] == [one.shape for one in masks]
    assert np.array(masks).shape[1] % 2 == np.array(masks).shape[2] % 2 == 0
    assert np.abs(np.asarray(frames, np.float32) - case.clip.frames).mean() < 8


@pytest.mark.parametrize("layout", list(Layout))
def test_the_same_order_gives_the_same_bytes(layout, request, tmp_path):
    names = {value.value: name for name, value in BENCHMARKS.items()}
    first = request.getfixturevalue(names.get(layout.value, layout.value))
    again = made(layout, tmp_path / "again")
    files = [path.relative_to(first) for path in sorted(first.rglob("*")) if path.is_file()]
    assert files == [path.relative_to(again) for path in sorted(again.rglob("*")) if path.is_file()]
    assert [str(path) for path in files if (first / path).read_bytes() != (again / path).read_bytes()] == []


def test_seeds_of_runs_never_meet():
    assert scene_seed(3, 0) == 30_000
    assert scene_seed(3, 9_999) == 39_999
    with pytest.raises(UsageError, match="at most 10000 scenes"):
        scene_seed(3, 10_000)


def test_train_parts_hold_train_scenes_and_the_rest_test_scenes(youtube, davis):
    for root in (youtube, davis):
        assert list(videos_of(root, "train")) == ["train-30000", "train-30001"]
        assert all(name.startswith("test-") for name in videos_of(root, "valid"))


def test_a_split_alone_can_be_asked_for(tmp_path):
    train = made(Layout.refer_davis17, tmp_path / "train", split=Split.train, videos=1)
    valid = made(Layout.refer_youtube_vos, tmp_path / "valid", split=Split.test, videos=1)
    assert not (train / "valid").exists()
    assert (train / "meta_expressions/train/meta_expressions.json").exists()
    assert not (valid / "train").exists()
    assert check_tree(Benchmark.refer_davis17, train).problems == []
    assert check_tree(Benchmark.refer_youtube_vos, valid).problems == []


# make: Refer-YouTube-VOS


def test_train_entries_name_one_object_as_a_string_that_masks_show(youtube):
    objects = json.loads((youtube / "train/meta.json").read_text())["videos"]
    for case in some_cases(Layout.refer_youtube_vos, Split.train):
        video = videos_of(youtube, "train")[case.clip.name]
        single = [one for one in case.expressions if len(one.targets) == 1]
        assert list(video["expressions"]) == [str(k) for k in range(len(single))]
        assert [e["obj_id"] for e in video["expressions"].values()] == [str(one.targets[0]) for one in single]
        assert [e["exp"] for e in video["expressions"].values()] == [one.text for one in single]
        masks = [mask(youtube / f"train/Annotations/{case.clip.name}/{name}.png") for name in video["frames"]]
        assert np.array_equal(masks, case.clip.ids)
        for actor in case.scene.actors:
            seen = [f"{t:05d}" for t in range(FRAMES) if (case.clip.ids[t] == actor.id).any()]
            if seen:
                entry = objects[case.clip.name]["objects"][str(actor.id)]
                assert entry == {"category": actor.category, "frames": seen}


def test_valid_minus_test_leaves_the_videos_that_have_frames(youtube):
    valid, test = videos_of(youtube, "valid"), videos_of(youtube, "test")
    assert (len(valid), len(test)) == (5, 3)  # as 507 and 305 in the real set
    there = sorted(path.name for path in (youtube / "valid/JPEGImages").iterdir())
    assert sorted(valid.keys() - test.keys()) == there == ["test-30000", "test-30001"]
    assert {name: valid[name] for name in test} == test


def test_valid_is_blind_and_every_fifth_frame(youtube):
    for video in videos_of(youtube, "valid").values():
        assert video["frames"] == ["00000", "00005"]
        assert all(entry.keys() == {"exp"} for entry in video["expressions"].values())
    assert not (youtube / "valid/Annotations").exists()
    for folder in (youtube / "valid/JPEGImages").iterdir():
        assert sorted(path.name for path in folder.iterdir()) == ["00000.jpg", "00005.jpg"]


def test_the_truth_of_valid_is_a_perfect_submission(youtube):
    for case in some_cases(Layout.refer_youtube_vos, Split.test):
        video = videos_of(youtube, "valid")[case.clip.name]
        single = [one for one in case.expressions if len(one.targets) == 1]
        assert [entry["exp"] for entry in video["expressions"].values()] == [one.text for one in single]
        for key, one in enumerate(single):
            for frame in (0, 5):
                path = youtube / f"valid_truth/Annotations/{case.clip.name}/{key}/{frame:05d}.png"
                with Image.open(path) as picture:
                    found = np.array(picture)
                assert np.array_equal(found, np.where(case.clip.ids[frame] == one.targets[0], 255, 0))


def test_expressions_that_do_not_name_one_object_are_counted(tmp_path):
    counts = make(order(Layout.refer_youtube_vos, split=Split.train), tmp_path / "out")
    both = some_cases(Layout.refer_youtube_vos, Split.train)
    assert counts.skipped == sum(len(one.targets) != 1 for case in both for one in case.expressions) > 0
    assert counts.expressions == sum(len(one.targets) == 1 for case in both for one in case.expressions)
    assert (counts.videos, counts.frames) == (2, 12)


# make: Refer-DAVIS17


@pytest.mark.parametrize(("part", "split"), [("train", Split.train), ("valid", Split.test)])
def test_ids_of_expressions_are_four_times_the_object_plus_the_annotation(davis, part, split):
    wordings = {"train": (0, 1, 2, 3), "valid": (0, 1, 2, 5)}[part]
    for case in some_cases(Layout.refer_davis17, split):
        entries = videos_of(davis, part)[case.clip.name]["expressions"]
        objects = sorted({entry["obj_id"] for entry in entries.values()})
        assert list(entries) == [str(k) for k in range(4 * len(objects))]
        assert [entry["obj_id"] for entry in entries.values()] == [one for one in objects for _ in range(4)]
        single = [one for one in case.expressions if len(one.targets) == 1]
        assert sorted(entry["exp"] for entry in entries.values()) == sorted(one.text for one in single)
        for place in range(0, len(single), 4):
            four = single[place : place + 4]
            assert tuple(one.wording for one in four) == wordings
            assert len({(one.form, one.targets) for one in four}) == 1


def test_objects_are_sorted_as_strings():
    said = [
        Expression(f"{actor} {k}", "explicit", "category", (actor,), "") for actor in range(1, 12) for k in range(4)
    ]
    entries = object_major(said, {actor: str(actor) for actor in range(1, 12)})
    assert " ".join(entries[str(4 * k)]["obj_id"] for k in range(11)) == "1 10 11 2 3 4 5 6 7 8 9"
    assert entries["7"] == {"exp": "10 3", "obj_id": "10"}


def test_masks_hold_the_objects_that_are_named_and_no_other(davis):
    for part in ("train", "valid"):
        for name, video in videos_of(davis, part).items():
            named = {int(entry["obj_id"]) for entry in video["expressions"].values()}
            masks = np.array([mask(davis / f"{part}/Annotations/{name}/{frame}.png") for frame in video["frames"]])
            assert set(np.unique(masks)) - {0} == named == set(range(1, len(named) + 1))
            listed = json.loads((davis / part / "meta.json").read_text())["videos"][name]["objects"]
            assert {int(one) for one in listed} == named


def test_labels_close_the_gap_that_an_object_without_expression_leaves(tmp_path):
    case = next(iter(cases(order(Layout.refer_davis17), Split.test)))
    kept = [one for one in case.expressions if one.targets != (1,)]
    writer = ReferDavis17Writer(tmp_path)
    writer.write(replace(case, expressions=tuple(kept)), "valid")
    first = mask(tmp_path / f"valid/Annotations/{case.clip.name}/00000.png")
    named = sorted({one.targets[0] for one in kept if len(one.targets) == 1})
    assert named[0] > 1
    for label, actor in enumerate(named, 1):
        assert np.array_equal(first == label, case.clip.ids[0] == actor)
    assert (first[case.clip.ids[0] == 1] == 0).all()


def test_a_label_shows_the_thing_that_its_expressions_mean(davis):
    for case in some_cases(Layout.refer_davis17, Split.test):
        entries = videos_of(davis, "valid")[case.clip.name]["expressions"]
        first = mask(davis / f"valid/Annotations/{case.clip.name}/00000.png")
        label = {entry["exp"]: int(entry["obj_id"]) for entry in entries.values()}
        for one in case.expressions:
            if len(one.targets) == 1:
                assert np.array_equal(first == label[one.text], case.clip.ids[0] == one.targets[0])


# make: MeViS, ReVOS, LV-VIS, ReasonVOS, InsTrack


def test_parts_of_a_layout_are_those_of_the_real_set():
    found = {layout: [(name, split.value) for name, split, _ in parts(order(layout))] for layout in Layout}
    train, valid, test = ("train", "train"), ("valid", "test"), ("test", "test")
    assert found[Layout.mevis] == [train, ("valid_u", "test"), valid]
    assert found[Layout.revos] == [train, valid]
    assert found[Layout.lv_vis] == [train]
    assert found[Layout.reason_vos] == [valid]
    assert found[Layout.instrack] == [train, test]
    assert found[Layout.refer_youtube_vos] == [train, valid, test]


@pytest.mark.parametrize(("layout", "split"), [(Layout.lv_vis, Split.test), (Layout.reason_vos, Split.train)])
def test_a_split_that_a_layout_does_not_have_is_refused(layout, split, tmp_path):
    with pytest.raises(UsageError, match=f"{layout} has no part of {split} scenes"):
        make(order(layout, split=split), tmp_path / "out")


def test_a_mask_dict_has_null_where_an_object_is_not_seen(mevis):
    runs = json.loads((mevis / "valid_u/mask_dict.json").read_text())
    videos = json.loads((mevis / "valid_u/meta_expressions.json").read_text())["videos"]
    assert list(runs) == [str(k) for k in range(len(runs))]
    for case in some_cases(Layout.mevis, Split.test):
        for entry, one in zip(
            videos[case.clip.name]["expressions"].values(),
            [one for one in case.expressions if one.targets],
            strict=True,
        ):
            for key, actor in zip(entry["anno_id"], one.targets, strict=True):
                seen = (case.clip.ids == actor).any(axis=(1, 2))
                assert [found is not None for found in runs[str(key)]] == seen.tolist()
    assert not (mevis / "valid/mask_dict.json").exists()


def test_training_never_hears_the_last_wording(instrack):
    for part, split in (("train", Split.train), ("test", Split.test)):
        videos = videos_of(instrack, part)
        for case in some_cases(Layout.instrack, split):
            entries = list(videos[case.clip.name]["expressions"].values())
            assert len(entries) % 6 == 0
            for start in range(0, len(entries), 6):
                same = {one.form for one in case.expressions[start : start + 6]}
                assert len(same) == (1 if part == "test" else 2)  # in train another instruction stands in for the sixth


def test_an_instruction_without_six_wordings_does_not_fit(tmp_path):
    case = next(iter(cases(order(Layout.instrack), Split.test)))
    with pytest.raises(UsageError, match="instruction 0 has 5 wordings of objects .*; instrack wants 6"):
        InsTrackWriter(tmp_path).write(replace(case, expressions=case.expressions[:5]), "test")


# make: the folder written to


def test_a_folder_that_is_not_empty_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="OUT01: .*not empty.*--overwrite"):
        make(order(Layout.folder), tmp_path)
    assert run("make", "-o", tmp_path, "--videos", 1, "--frames", 2, "--longest", 64) == 6
    assert capsys.readouterr().err.startswith("data_tools: OUT01: ")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_overwrite_takes_away_what_make_wrote_and_nothing_else(tmp_path):
    out = made(Layout.refer_davis17, tmp_path / "out", videos=1, frames=2)
    (out / "notes.txt").write_text("mine")
    make(order(Layout.folder, videos=1, frames=2), out, overwrite=True)
    wanted = ["Annotations", "JPEGImages", "expressions.json", "notes.txt", MANIFEST]
    assert sorted(path.name for path in out.iterdir()) == sorted(wanted)
    assert (out / "notes.txt").read_text() == "mine"


def test_overwrite_spares_a_folder_that_make_did_not_write(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/label.txt").write_text("a week of work")
    with pytest.raises(OutputError, match=r"OUT01: .*no synthtrack\.json"):
        make(order(Layout.refer_davis17), tmp_path, overwrite=True)
    assert (tmp_path / "train/label.txt").exists()


@pytest.mark.parametrize("changes", [{"videos": 0}, {"frames": 0}, {"longest": 8}, {"seed": -1}])
def test_numbers_out_of_range_are_refused_before_anything_is_written(changes, tmp_path):
    with pytest.raises(UsageError, match=f"--{next(iter(changes))} is"):
        make(order(Layout.folder, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_last_line_of_make_is_for_programs(tmp_path, capsys):
    out = tmp_path / "out"
    code = run("make", "--layout", "refer-davis17", "--videos", 1, "--frames", 2, "--longest", 64, "-o", out)
    last = capsys.readouterr().out.splitlines()[-1]
    values = dict(pair.split("=", 1) for pair in last.split(" "))
    assert code == 0
    assert list(values) == ["layout", "videos", "frames", "expressions", "out"]
    assert (values["layout"], values["videos"], values["frames"]) == ("refer-davis17", "2", "4")
    assert int(values["expressions"]) % 4 == 0
    assert values["out"] == str(out)


# check


@pytest.fixture
def broken(request, tmp_path):
    """A copy of a tree, to be damaged."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(request.getfixturevalue(name), tmp_path / name))

    return copy


def problems(name: str, root: Path) -> list[str]:
    return [str(problem) for problem in check_tree(BENCHMARKS[name], root).problems]


def change_json(path: Path, change) -> None:
    document = json.loads(path.read_text())
    change(document["videos"])
    path.write_text(json.dumps(document))


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
        (lambda runs: runs["0"].pop(), "annotation 0, of video train-30000, has 5 masks; wanted 6, one a frame"),
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
    assert "mask_dict_foreground.json: video SynthTrack/train-30001 has no masks; wanted 6, one a frame" in problems(
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


# view


def row(frame: int = 80, ids: bool = True, **changes: object) -> Row:
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
        "lines": (Line("multi", "track it", "Sure, I track 1 object: the box <TK>, <PO>", (7,)),),
        "events": ((6, "leaves", 7),),
        **changes,
    }
    return Row(**values)


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
    one = row(lines=(Line("explicit", "a", "", (7,)), Line("multi", "b", "", (2, 7))))
    assert one.numbers == {7: 1, 2: 2}
    assert has(draw_sheet("a", "b", [one]), TARGETS[1]) > 0


def test_a_long_instruction_takes_more_lines_and_none_is_cut():
    short = draw_sheet("a", "b", [row(lines=(Line("none", "track it", "I see no box here.", ()),))])
    long = draw_sheet("a", "b", [row(lines=(Line("none", "track it " * 60, "I see no box here.", ()),))])
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
    assert capsys.readouterr().out.startswith("videos=2 width=")
    with Image.open(out) as picture:
        assert picture.format == "PNG"
        assert picture.width > 1500
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


@pytest.mark.parametrize("name", ["folder", "mp4", "youtube", "davis"])
def test_every_layout_can_be_shown_from_disk(name, request, tmp_path):
    root = request.getfixturevalue(name)
    found = list(rows_on_disk(root, 5, None))
    assert [one.title for one in found] == ["test-30000", "test-30001"]
    assert all((one.ids is None) == (name == "youtube") for one in found)
    kinds = {line.kind for one in found for line in one.lines}
    assert kinds == ({"expression"} if name in ("youtube", "davis") else {"explicit", "implicit", "multi", "none"})
    assert run("view", "--layout-root", root, "--videos", 1, "-o", tmp_path / "sheet.jpg") == 0


def test_a_tree_on_disk_shows_the_pictures_that_were_drawn(folder, mp4):
    for layout, root in ((Layout.folder, folder), (Layout.mp4, mp4)):
        for case, one in zip(some_cases(layout, Split.test), rows_on_disk(root, 2, None), strict=True):
            assert np.array_equal(one.ids, case.clip.ids)
            assert one.events == case.scene.events
            for frame, index in zip(one.frames, one.shown, strict=True):
                assert np.abs(frame.astype(np.float32) - case.clip.frames[index]).mean() < 8


def test_a_folder_that_is_no_tree_cannot_be_shown(tmp_path):
    with pytest.raises(InputError, match=r"neither expressions\.json nor"):
        list(rows_on_disk(tmp_path, 1, None))


def test_a_damaged_tree_is_refused_in_one_line(broken, capsys, tmp_path):
    root = broken("davis")
    (root / "valid/Annotations/test-30000/00003.png").unlink()
    assert run("view", "--layout-root", root, "-o", tmp_path / "sheet.png") == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "00003.png: cannot be read" in error
    assert not (tmp_path / "sheet.png").exists()


def test_all_verbs_are_there(capsys):
    assert run("--help") == 0
    text = capsys.readouterr().out
    assert [verb for verb in ("make", "check", "view", "atlas") if f" {verb} " not in text] == []
