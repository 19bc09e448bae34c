import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_trees import FRAMES, VIDEOS, made, order, run, some_cases, tree_fixture
from PIL import Image

from data_tools.check import Benchmark, check_tree
from data_tools.checks.stages import STAGES
from data_tools.image_sets import READERS
from data_tools.instructions import read_instructions
from data_tools.label_map_writers import InsTrackWriter, ReferDavis17Writer, object_major
from data_tools.layouts import FORMS, PartsWriter
from data_tools.synthtrack import Layout, Split, cases, make, parts, scene_seed
from data_tools.vipseg import number_of, open_video
from data_tools.writers import MANIFEST, Counts
from trackgpt.data.conversations import llava_instruct
from trackgpt.data.image_trees import TREES
from trackgpt.data.segmentation import ade20k
from trackgpt.errors import OutputError, UsageError
from trackgpt.export.davis import PALETTE
from trackgpt.synthtrack.scene import SceneInstruction

folder = tree_fixture(Layout.folder)
youtube = tree_fixture(Layout.refer_youtube_vos)
davis = tree_fixture(Layout.refer_davis17)
mevis = tree_fixture(Layout.mevis)
instrack = tree_fixture(Layout.instrack)


def videos_of(root: Path, part: str) -> dict:
    return json.loads((root / "meta_expressions" / part / "meta_expressions.json").read_text())["videos"]


def mask(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.mode == "P"
        assert bytes(picture.getpalette()) == PALETTE
        return np.array(picture)


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


@pytest.mark.parametrize("layout", [layout for layout in Layout if layout not in STAGES])
def test_the_same_order_gives_the_same_bytes(layout, tmp_path):
    first, again = made(layout, tmp_path / "first", videos=1), made(layout, tmp_path / "again", videos=1)
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
        SceneInstruction(f"{actor} {k}", "explicit", "category", (actor,), "")
        for actor in range(1, 12)
        for k in range(4)
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
    found = {layout: [(name, split.value) for name, split, _ in parts(order(layout))] for layout in FORMS}
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


def test_one_instruction_a_video_is_one_of_all_of_them_in_its_six_wordings():
    for split in Split:
        every = [case.expressions for case in some_cases(Layout.instrack, split)]
        wanted = cases(order(Layout.instrack, instructions=1), split)
        for all_said, case in zip(every, wanted, strict=False):
            groups = [all_said[start : start + 6] for start in range(0, len(all_said), 6)]
            assert len(case.expressions) == 6
            assert case.expressions in groups


def test_an_instruction_without_six_wordings_does_not_fit(tmp_path):
    case = next(iter(cases(order(Layout.instrack), Split.test)))
    with pytest.raises(UsageError, match="instruction 0 has 5 wordings of objects .*; instrack wants 6"):
        InsTrackWriter(tmp_path).write(replace(case, expressions=case.expressions[:5]), "test")


# make: VIPSeg, image sets and whole stages


def test_vipseg_has_16_bit_values_of_category_and_instance(tmp_path):
    root = made(Layout.vipseg, tmp_path / "out")
    names = {one["id"] + 1: one["name"] for one in json.loads((root / "panoVIPSeg_categories.json").read_text())}
    said = {one.video: one for one in read_instructions(root / "instructions.jsonl")}
    for split, list_name in ((Split.train, "train.txt"), (Split.test, "val.txt")):
        for case in some_cases(Layout.vipseg, split):
            assert case.clip.name in (root / list_name).read_text().split()
            video = open_video(root, case.clip.name)
            assert [path.stem for path in video.images] == [f"{10 * k:08d}" for k in range(FRAMES)]
            with Image.open(video.labels[0]) as picture:
                assert picture.mode.startswith("I;16")
            values, ids = video.values(0), case.clip.ids[0]
            for actor in case.scene.actors:
                found = set(values[ids == actor.id].tolist())
                assert {names[number_of(value)].replace("_", " ") for value in found} <= {actor.category}
                assert len(found) <= 1
                assert all(value >= 100 for value in found)
            assert all(value <= 124 for value in values[ids == 0])
            one = said[case.clip.name]
            meant = next(e for e in case.expressions if e.text == one.instruction)
            assert np.array_equal(np.isin(values, one.objects), np.isin(ids, meant.targets))
            assert one.split == split.value


def test_an_image_set_shows_the_first_frame_of_each_scene(tmp_path):
    root = made(Layout.ade20k, tmp_path / "out")
    assert len(list((root / "ade20k/images/training").iterdir())) == VIDEOS
    assert len(ade20k(root, "validation")) == VIDEOS
    cases_seen = some_cases(Layout.ade20k, Split.train)
    assert [case.clip.frames.shape[0] for case in cases_seen] == [1, 1]


def test_a_stage_is_one_root_that_every_reader_of_it_takes(tmp_path, capsys):
    root = tmp_path / "stage1"
    code = run("make", "--layout", "stage1", "--videos", 1, "--longest", 64, "-o", root)
    assert code == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("layout=stage1 videos=0 frames=31 ")
    for name, read in READERS.items():
        assert len(read(root, TREES[name].parts[0])) == 1, name
    assert len(llava_instruct(root)) == 1
    # one picture of COCO 2017 serves three sets
    assert [path.name for path in (root / "coco/train2017").iterdir()] == ["000000000000.jpg"]


def test_a_stage_of_a_split_leaves_out_what_has_none(tmp_path):
    root = made(Layout.stage2, tmp_path / "out", split=Split.train, videos=1, frames=2)
    assert sorted(path.name for path in root.iterdir()) == ["ReVOS", "mevis", "ref-davis", "ref-youtube-vos", MANIFEST]
    assert not (root / "ref-davis/valid").exists()
    make(order(Layout.stage3, videos=1, frames=2), root, overwrite=True)
    assert sorted(path.name for path in root.iterdir()) == ["VIPSeg", "instrack", "ref-davis", MANIFEST]
    assert (root / "ref-davis/valid").exists()


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


@pytest.mark.parametrize("layout", [Layout.lasot, Layout.tnl2k, Layout.tnllt, Layout.folder])
def test_overwrite_gives_the_same_files_again_and_spares_what_another_layout_would_be_called(tmp_path, layout):
    def files():
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    out = made(layout, tmp_path / "out", videos=1, frames=2)
    for name in ("train", "imgs", "notes"):
        (out / name).mkdir()
        (out / name / "mine.txt").write_text("mine")
    before = files()
    make(order(layout, videos=1, frames=2), out, overwrite=True)
    assert files() == before


def test_overwrite_spares_a_folder_that_make_did_not_write(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/label.txt").write_text("a week of work")
    with pytest.raises(OutputError, match=r"OUT01: .*no synthtrack\.json"):
        make(order(Layout.refer_davis17), tmp_path, overwrite=True)
    assert (tmp_path / "train/label.txt").exists()


@pytest.mark.parametrize("changes", [{"videos": 0}, {"frames": 0}, {"longest": 8}, {"seed": -1}, {"instructions": -1}])
def test_numbers_out_of_range_are_refused_before_anything_is_written(changes, tmp_path):
    with pytest.raises(UsageError, match=f"--{next(iter(changes))} is"):
        make(order(Layout.folder, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_layout_of_clips_says_how_many_frames_it_needs_before_anything_is_written(tmp_path, capsys):
    ask = ("make", "--layout", "rmot26", "--videos", 1, "--longest", 64, "-o", tmp_path / "out")
    assert run(*ask, "--frames", 4) == 2
    assert "--frames is 4; a video of rmot26 has 6 at least" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run(*ask, "--frames", 6) == 0


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


def test_cases_are_written_as_they_come_and_no_empty_batch_is(tmp_path):
    written: list[int] = []

    def write_part(root: Path, cases: list, part: str) -> Counts:
        written.append(len(cases))
        return Counts(videos=len(cases))

    writer = PartsWriter(write_part, tmp_path, held=2)
    for number in range(4):
        writer.write(number, "train")
        assert sum(written) == 2 * ((number + 1) // 2)  # what waits is fewer than two
    writer.close()
    assert (written, writer.counts.videos) == ([2, 2], 4)
