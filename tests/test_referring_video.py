"""Readers of the referring-video benchmarks: SynthTrack in each layout reads back as it was; the traps of each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.run_length_writers import categories, revos_kind
from data_tools.synthtrack import Layout, Order, Split, cases, make
from trackgpt.data.referring_video import (
    FOREGROUND,
    READERS,
    TREES,
    find_root,
    instrack,
    lv_vis,
    mevis,
    reason_vos,
    refer_davis17,
    refer_youtube_vos,
    revos,
    truth,
)
from trackgpt.data.videos import Video
from trackgpt.errors import InputError, UsageError

VIDEOS, FRAMES, LONGEST, SEED = 2, 6, 96, 3
WRITTEN = [  # layout, part that can be read, scenes it is made of
    ("refer-youtube-vos", "train", Split.train),
    ("refer-youtube-vos", "valid", Split.test),
    ("refer-davis17", "train", Split.train),
    ("refer-davis17", "valid", Split.test),
    ("mevis", "train", Split.train),
    ("mevis", "valid_u", Split.test),
    ("revos", "train", Split.train),
    ("revos", "valid", Split.test),
    ("lv-vis", "train", Split.train),
    ("reason-vos", "valid", Split.test),
    ("instrack", "train", Split.train),
    ("instrack", "test", Split.test),
]


def order(layout: str) -> Order:
    return Order(Layout(layout), VIDEOS, SEED, frames=FRAMES, longest=LONGEST)


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> Callable[[str], Path]:
    """SynthTrack in a layout, made when it is first asked for; not to be changed."""
    folder = tmp_path_factory.mktemp("trees")

    def tree(layout: str) -> Path:
        if not (folder / layout).exists():
            make(order(layout), folder / layout)
        return folder / layout

    return tree


@pytest.fixture
def copy(trees, tmp_path) -> Callable[[str], Path]:
    """A copy of a tree, to be changed."""
    return lambda layout: Path(shutil.copytree(trees(layout), tmp_path / layout))


def written_cases(layout: str, part: str, split: Split) -> list:
    skip = VIDEOS if (layout, part) == ("mevis", "valid") else 0
    found = [case for _, case in zip(range(skip + VIDEOS), cases(order(layout), split), strict=False)]
    return found[skip:]


def said_of(layout: str, case) -> list[tuple[str, tuple[int, ...]]]:
    """What a layout keeps of a case: text and targets."""
    if layout == "lv-vis":
        return [(one.text.replace("_", " "), one.targets) for one in categories(case)]
    several, nothing = layout in ("mevis", "revos", "instrack"), layout == "revos"
    kept = {0: nothing, 1: True}
    return [(one.text, one.targets) for one in case.expressions if kept.get(len(one.targets), several)]


def change(path: Path, edit: Callable[[dict], object]) -> None:
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def mask(video: Video, expression: int, t: int = 0) -> np.ndarray:
    return video.masks.mask(video.expressions[expression].objects, t)


# What was written comes back


@pytest.mark.parametrize(("layout", "part", "split"), WRITTEN)
def test_every_layout_reads_back_with_the_masks_and_texts_that_were_drawn(layout, part, split, trees):
    videos = READERS[layout](trees(layout), part)
    drawn = written_cases(layout, part, split)
    shown = range(0, FRAMES, 5) if (layout, part) == ("refer-youtube-vos", "valid") else range(FRAMES)
    assert [video.name.split("/")[-1] for video in videos] == [case.clip.name for case in drawn]
    for video, case in zip(videos, drawn, strict=True):
        assert [path.stem for path in video.images] == [f"{t:05d}" for t in shown]
        wanted = said_of(layout, case)
        found = [one.text for one in video.expressions]
        assert (sorted(found) if layout == "refer-davis17" else found) == (
            sorted(text for text, _ in wanted) if layout == "refer-davis17" else [text for text, _ in wanted]
        )
        targets = dict(wanted)
        assert len(targets) == len(wanted)  # no sentence is said of two things
        for one in video.expressions:
            for place, t in enumerate(shown):
                truth = np.isin(case.clip.ids[t], targets[one.text])
                read = video.masks.mask(one.objects, place)
                assert read.dtype == bool
                assert np.array_equal(read, truth)


@pytest.mark.parametrize(("layout", "part", "split"), WRITTEN)
def test_frames_read_back_as_they_were_drawn(layout, part, split, trees):
    for video, case in zip(READERS[layout](trees(layout), part), written_cases(layout, part, split), strict=True):
        frame = video.frame(0)
        assert frame.shape == case.clip.frames[0].shape
        assert np.abs(frame.astype(np.float32) - case.clip.frames[0]).mean() < 8  # grey levels lost to JPEG


def test_a_part_is_read_without_opening_a_frame_or_a_mask_dict(copy):
    for layout, part, _ in WRITTEN:
        root = copy(layout)
        for path in root.rglob("*"):
            if path.suffix == ".jpg" or path.name.startswith("mask_dict"):
                path.write_bytes(b"")
        videos = READERS[layout](root, part)
        assert len(videos) == VIDEOS
        with pytest.raises(InputError, match="not a readable image"):
            videos[0].frame(0)
        if layout in ("mevis", "revos", "lv-vis"):
            with pytest.raises(InputError, match="no JSON from line 1"):
                mask(videos[0], 0)
        shutil.rmtree(root)


def test_a_mask_dict_is_read_once_for_all_videos_and_again_when_it_changes(copy, monkeypatch):
    root, read = copy("mevis"), []
    whole = truth.read_json
    monkeypatch.setattr(truth, "read_json", lambda path: read.append(path.name) or whole(path))
    videos = mevis(root, "train")
    assert read == []
    first = [mask(video, 0, t) for video in videos for t in range(FRAMES)]
    assert read == ["mask_dict.json"]
    assert any(one.any() for one in first)
    change(root / "train/mask_dict.json", lambda runs: runs.clear())
    with pytest.raises(InputError, match=r"mask_dict\.json: no run lengths of annotation"):
        mask(videos[0], 0)


# Refer-YouTube-VOS


def test_valid_is_the_valid_file_less_the_test_file(trees):
    assert [video.name for video in refer_youtube_vos(trees("refer-youtube-vos"), "valid")] == [
        "test-30000",
        "test-30001",
    ]


def real_lists(root: Path, listed: dict, test: dict | None) -> Path:
    for part, videos in (("valid", listed), ("test", test)):
        if videos is not None:
            path = root / "meta_expressions" / part / "meta_expressions.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps({"videos": videos}))
    (root / "valid/JPEGImages").mkdir(parents=True)
    return root


def test_of_the_real_507_videos_202_are_valid(shared, tmp_path):
    listed = json.loads((shared / "data/refer_ytvos/meta_expressions_valid507.json").read_text())["videos"]
    videos = refer_youtube_vos(real_lists(tmp_path, listed, dict(list(listed.items())[202:])), "valid")
    assert len(videos) == 202
    assert videos[0].name == "0062f687f1"
    assert videos[0].expressions[0].text == "a dog is with its puppies on the cloth"
    assert videos[0].expressions[0].objects == ()
    assert videos[0].masks is None
    assert videos[0].images[1] == tmp_path / "valid/JPEGImages/0062f687f1/00005.jpg"


@pytest.mark.parametrize(("test_videos", "words"), [(None, "only the keys of the test file tell"), (300, "leave 207")])
def test_507_videos_that_do_not_come_down_to_202_are_refused(test_videos, words, tmp_path):
    video = {"frames": ["00000"], "expressions": {"0": {"exp": "a dog"}}}
    listed = {f"v{k:03d}": video for k in range(507)}
    test = None if test_videos is None else dict(list(listed.items())[:test_videos])
    with pytest.raises(InputError, match=words):
        refer_youtube_vos(real_lists(tmp_path, listed, test), "valid")


def test_a_trimmed_valid_file_needs_no_test_file(copy):
    root = copy("refer-youtube-vos")
    shutil.rmtree(root / "meta_expressions/test")
    assert len(refer_youtube_vos(root, "valid")) == 5


def test_valid_has_no_masks_while_its_truth_is_not_there(copy):
    root = copy("refer-youtube-vos")
    shutil.rmtree(root / "valid_truth")
    for video in refer_youtube_vos(root, "valid"):
        assert video.masks is None
        assert {one.objects for one in video.expressions} == {()}


def test_the_truth_of_valid_may_be_label_maps_with_obj_id(copy):
    root = copy("refer-youtube-vos")
    shutil.rmtree(root / "valid_truth")
    (case,) = written_cases("refer-youtube-vos", "valid", Split.test)[:1]
    folder = root / "valid/Annotations" / case.clip.name
    folder.mkdir(parents=True)
    for t in (0, 5):
        Image.fromarray(case.clip.ids[t]).save(folder / f"{t:05d}.png")
    assert refer_youtube_vos(root, "valid")[0].masks is None  # nobody says whose they are
    targets = dict(said_of("refer-youtube-vos", case))

    def add(document):
        for entry in document["videos"][case.clip.name]["expressions"].values():
            entry["obj_id"] = str(targets[entry["exp"]][0])

    change(root / "meta_expressions/valid/meta_expressions.json", add)
    video, other = refer_youtube_vos(root, "valid")
    assert other.masks is None
    for index, one in enumerate(video.expressions):
        assert np.array_equal(mask(video, index, 1), np.isin(case.clip.ids[5], targets[one.text]))


@pytest.mark.parametrize("form", [str, int, lambda label: [label], lambda label: [int(label)]])
def test_an_object_may_be_text_a_number_or_a_list(form, copy):
    root = copy("refer-youtube-vos")
    before = refer_youtube_vos(root, "train")

    def edit(document):
        for video in document["videos"].values():
            for entry in video["expressions"].values():
                entry["obj_id"] = form(entry["obj_id"])

    change(root / "meta_expressions/train/meta_expressions.json", edit)
    after = refer_youtube_vos(root, "train")
    assert [one.objects for one in after[0].expressions] == [one.objects for one in before[0].expressions]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("0", "obj_id 0, which is background"),
        ("one", "obj_id 'one'; wanted a number"),
        (True, "obj_id True; wanted a number"),
        ([1.5], r"obj_id \[1.5\]; wanted a number"),
        (None, 'names no object; wanted "obj_id"'),
    ],
)
def test_an_object_that_can_be_none_is_refused_with_its_place(value, words, copy):
    root = copy("refer-youtube-vos")
    path = root / "meta_expressions/train/meta_expressions.json"
    change(path, lambda document: document["videos"]["train-30000"]["expressions"]["1"].update(obj_id=value))
    with pytest.raises(InputError, match=rf"meta_expressions\.json: video train-30000, expression 1 .*{words}"):
        refer_youtube_vos(root, "train")


def test_a_pickle_of_masks_is_refused(copy):
    for layout, reader in (("refer-youtube-vos", refer_youtube_vos), ("refer-davis17", refer_davis17)):
        root = copy(layout)
        shutil.rmtree(root / "train/Annotations")
        (root / "train/mask_dict.pkl").write_bytes(b"anything")
        with pytest.raises(InputError, match=r"mask_dict\.pkl: masks in a pickle.*PNGs.*train/Annotations.*rebuild"):
            reader(root, "train")


# Refer-DAVIS17


def test_tags_say_which_of_four_passes_an_expression_is_of(trees):
    for video in refer_davis17(trees("refer-davis17"), "valid"):
        objects = sorted({one.objects for one in video.expressions})
        for place, one in enumerate(video.expressions):
            assert one.id == str(place)
            assert one.objects == objects[place // 4]
            assert one.tags == {
                "annotator": str(place % 4),
                "said": ("first frame", "full video", "first frame", "full video")[place % 4],
            }


def davis_tree(root: Path, entries: dict, labels: np.ndarray) -> Path:
    path = root / "meta_expressions/valid/meta_expressions.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"videos": {"dog": {"frames": ["00000"], "expressions": entries}}}))
    (root / "valid/JPEGImages").mkdir(parents=True)
    (root / "valid/Annotations/dog").mkdir(parents=True)
    Image.fromarray(labels).save(root / "valid/Annotations/dog/00000.png")
    return root


def test_objects_of_davis_are_in_the_order_of_their_text(tmp_path):
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    objects = sorted(str(k) for k in range(1, 12))
    entries = {str(4 * place + k): {"exp": "it", "obj_id": objects[place]} for place in range(11) for k in range(4)}
    (video,) = refer_davis17(davis_tree(tmp_path, entries, labels), "valid")
    assert " ".join(one.objects[0] for one in video.expressions[::4]) == "1 10 11 2 3 4 5 6 7 8 9"
    assert np.array_equal(mask(video, 4), labels == 10)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"0": "1", "1": "1", "2": "1", "3": "1", "4": "1"}, "expression 4 means object 1"),
        (
            {"0": "2", "1": "2", "2": "2", "3": "2", "4": "1", "5": "1", "6": "1", "7": "1"},
            "expression 0 means object 2",
        ),
        ({"0": "1", "1": "1", "2": "1", "4": "1"}, "expression 3 is not there"),
        ({"0": "1", "1": "1"}, "expression 2 is not there"),
    ],
)
def test_ids_of_davis_out_of_order_are_refused(entries, words, tmp_path):
    entries = {key: {"exp": "it", "obj_id": label} for key, label in entries.items()}
    with pytest.raises(InputError, match=f"video dog: {words}; wanted ids 4"):
        refer_davis17(davis_tree(tmp_path, entries, np.ones((3, 4), np.uint8)), "valid")


def test_grey_masks_of_davis_2016_are_one_mask_for_all_objects(tmp_path):
    labels = np.array([[0, 255], [255, 0]], np.uint8)
    entries = {"0": {"exp": "a man", "obj_id": "1"}, "1": {"exp": "his dog", "obj_id": "2"}}
    (video,) = refer_davis17(davis_tree(tmp_path, entries, labels), "valid")
    assert np.array_equal(mask(video, 0), labels == 255)
    assert np.array_equal(mask(video, 1), labels == 255)
    assert [one.tags for one in video.expressions] == [{"annotator": "0"}] * 2


def test_grey_masks_with_ids_stay_apart(tmp_path):
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    entries = {"0": {"exp": "a man", "obj_id": "1"}, "1": {"exp": "his dog", "obj_id": "2"}}
    (video,) = refer_davis17(davis_tree(tmp_path, entries, labels), "valid")
    assert np.array_equal(mask(video, 1), labels == 2)
    assert np.array_equal(video.masks.mask(("255",), 0), labels == 255)  # what DAVIS leaves out of its scores


def test_frames_and_masks_of_davis_may_be_left_in_its_own_folder(copy):
    root = copy("refer-davis17")
    before = mask(refer_davis17(root, "valid")[0], 0)
    for kind, own in (("JPEGImages", "JPEGImages"), ("Annotations", "Annotations_unsupervised")):
        (root / "DAVIS" / own).mkdir(parents=True)
        (root / "valid" / kind).rename(root / "DAVIS" / own / "480p")
    after = refer_davis17(root, "valid")
    assert after[0].images[0] == root / "DAVIS/JPEGImages/480p/test-30000/00000.jpg"
    assert np.array_equal(mask(after[0], 0), before)


def test_the_real_mini_tree_reads(shared):
    videos = refer_davis17(shared / "data/refer_davis17/mini", "valid")
    assert [video.name for video in videos] == ["blackswan", "camel", "car-shadow", "dog", "goat"]
    swan = videos[0]
    assert len(swan) == 12
    assert swan.frame(0).shape == (240, 427, 3)
    assert swan.expressions[0].text == "a black feathered swan"
    assert int(mask(swan, 0).sum()) == 10343


# MeViS, ReVOS, LV-VIS


@pytest.mark.parametrize("part", ["train", "valid_u"])
def test_masks_are_counted_in_the_order_of_sorted_frames(part, copy):
    root = copy("mevis")
    before = mevis(root, part)
    for path in root.glob("*/meta_expressions.json"):
        change(path, lambda document: [video["frames"].reverse() for video in document["videos"].values()])
    after = mevis(root, part)
    assert after[0].images == before[0].images
    assert all(np.array_equal(mask(after[0], 0, t), mask(before[0], 0, t)) for t in range(FRAMES))


def test_valid_of_mevis_has_no_masks(trees):
    videos = mevis(trees("mevis"), "valid")
    assert [video.name for video in videos] == ["test-30002", "test-30003"]
    assert {video.masks for video in videos} == {None}
    assert videos[0].expressions[0].text


def test_an_expression_that_nothing_matches_has_an_empty_mask_of_the_size_of_the_video(trees):
    video = revos(trees("revos"), "valid")[0]
    (one,) = (one for one in video.expressions if one.tags["kind"] == "absent")
    assert one.objects == ()
    empty = video.masks.mask(one.objects, 0)
    assert empty.shape == video.frame(0).shape[:2]
    assert not empty.any()


def test_revos_says_of_what_type_an_expression_is_and_knows_the_foreground(trees):
    for video, case in zip(revos(trees("revos"), "valid"), written_cases("revos", "valid", Split.test), strict=True):
        assert [one.tags["kind"] for one in video.expressions] == [revos_kind(one) for one in case.expressions]
        named = {actor for one in case.expressions for actor in one.targets}
        for t in range(FRAMES):
            assert np.array_equal(video.masks.mask((FOREGROUND,), t), np.isin(case.clip.ids[t], list(named)))


def test_the_foreground_is_missed_only_when_it_is_asked_for(copy):
    root = copy("revos")
    (root / "mask_dict_foreground.json").unlink()
    video = revos(root, "valid")[0]
    assert mask(video, 0).any()
    with pytest.raises(InputError, match=r"mask_dict_foreground\.json: missing"):
        video.masks.mask((FOREGROUND,), 0)


def test_revos_may_lack_the_underscore_and_the_folder_of_frames(copy):
    root = copy("revos")
    (root / "meta_expressions_valid_.json").rename(root / "meta_expressions_valid.json")
    (root / "JPEGImages/SynthTrack").rename(root / "SynthTrack")
    (root / "JPEGImages").rmdir()
    assert revos(root, "valid")[0].frame(0).any()


def test_a_type_that_revos_does_not_have_is_refused(copy):
    root = copy("revos")
    change(
        root / "meta_expressions_valid_.json",
        lambda document: document["videos"]["SynthTrack/test-30000"]["expressions"]["0"].update(type_id=7),
    )
    with pytest.raises(InputError, match="SynthTrack/test-30000, expression 0 has type_id 7; wanted 0 referring"):
        revos(root, "valid")


def test_the_files_of_lv_vis_may_lie_above_train(copy):
    root = copy("lv-vis")
    before = lv_vis(root, "train")[0]
    shown = mask(before, 0)
    for name in ("mask_dict.json", "meta_expressions.json"):
        (root / "train" / name).rename(root / name)
    after = lv_vis(root, "train")[0]
    assert after.expressions == before.expressions
    assert np.array_equal(mask(after, 0), shown)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda runs, key: runs.pop(key), "no run lengths of annotation {key} for 6 frames; is it the file of another"),
        (lambda runs, key: runs.update({key: []}), "0 run lengths of annotation {key} for 6 frames"),
        (lambda runs, key: runs[key].append(None), "7 run lengths of annotation {key} for 6 frames"),
        (lambda runs, key: runs.update({key: ["x"] * 6}), "annotation {key}, frame 0: wanted null or"),
        (lambda runs, key: runs[key][0].update(counts="0"), "run-length text '0'"),
        (lambda runs, key: runs[key][0].update(size=[3]), r"a mask of size \[3\]; wanted"),
    ],
)
def test_an_annotation_that_has_no_sound_masks_is_refused_when_it_is_asked_for(edit, words, copy):
    root = copy("mevis")
    video = mevis(root, "train")[0]
    (key,) = video.expressions[0].objects
    change(root / "train/mask_dict.json", lambda runs: edit(runs, key))
    with pytest.raises(InputError, match=words.format(key=key)):
        mask(video, 0)


# ReasonVOS and InsTrack


def test_expressions_of_reason_vos_are_numbered_by_their_place(trees):
    video = reason_vos(trees("reason-vos"), "valid")[0]
    assert [one.id for one in video.expressions] == [str(k) for k in range(len(video.expressions))]
    assert {one.tags["form"] for one in video.expressions} <= {"sentence", "phrase"}
    assert [one.tags["exp_id"] for one in video.expressions] == [one.id for one in video.expressions]
    assert video.attributes == {"SynthTrack"}


def test_reason_vos_may_hold_a_folder_of_masks_a_video(copy):
    root = copy("reason-vos")
    (case,) = written_cases("reason-vos", "valid", Split.test)[:1]
    folder = root / "Annotations" / case.clip.name
    folder.mkdir()
    for t in range(FRAMES):
        Image.fromarray(case.clip.ids[t]).save(folder / f"{t:05d}.png")
    video = reason_vos(root, "valid")[0]
    for index, (_, targets) in enumerate(said_of("reason-vos", case)):
        assert np.array_equal(mask(video, index), np.isin(case.clip.ids[0], targets))

    def forget(document):
        for entry in document["videos"][case.clip.name]["expressions"]:
            del entry["obj_id"]

    change(root / "meta_expressions.json", forget)
    assert np.array_equal(mask(reason_vos(root, "valid")[0], 0), case.clip.ids[0] > 0)


def test_an_object_of_reason_vos_without_a_folder_is_refused(copy):
    root = copy("reason-vos")
    shutil.rmtree(root / "Annotations/SynthTrack_test-30000_1")
    with pytest.raises(InputError, match=r"SynthTrack_test-30000_1: missing; wanted the masks of object 1 of video"):
        reason_vos(root, "valid")


@pytest.mark.parametrize(("part", "split"), [("train", Split.train), ("test", Split.test)])
def test_instrack_says_each_instruction_in_six_wordings_that_mean_the_same(part, split, trees):
    for video, case in zip(instrack(trees("instrack"), part), written_cases("instrack", part, split), strict=True):
        for start in range(0, len(video.expressions), 6):
            six = video.expressions[start : start + 6]
            assert [one.tags["wording"] for one in six] == ["0", "1", "2", "3", "4", "5"]
            assert {one.tags["group"] for one in six} == {str(start // 6)}
            assert len({one.objects for one in six}) == 1
            assert len({one.text for one in six}) == 6
        assert [one.tags["answer"] for one in video.expressions] == [one.answer for one in case.expressions]


# Where a data set lies


@pytest.mark.parametrize(
    ("layout", "folder"), [(name, folder) for name, tree in TREES.items() for folder in tree.folders]
)
def test_a_tree_is_found_under_every_name_from_the_folder_above(layout, folder, trees, tmp_path):
    (tmp_path / folder.upper()).symlink_to(trees(layout))
    assert find_root(layout, tmp_path) == tmp_path / folder.upper()
    assert find_root(layout, trees(layout)) == trees(layout)


def test_a_tree_that_is_not_there_is_told_with_what_is(tmp_path):
    (tmp_path / "mevis").mkdir()
    with pytest.raises(InputError) as error:
        mevis(tmp_path, "train")
    assert str(error.value).startswith(f"{tmp_path}: no mevis here; wanted train/meta_expressions*.json or ")
    assert "called MeViS, MeViS_release; it holds mevis; give the folder" in str(error.value)
    with pytest.raises(InputError, match="no such folder; wanted the top folder of mevis"):
        mevis(tmp_path / "nowhere", "train")


def test_two_folders_that_could_be_meant_are_both_named(trees, tmp_path):
    (tmp_path / "rvos").symlink_to(trees("refer-youtube-vos"))
    (tmp_path / "ref-youtube-vos").symlink_to(trees("refer-youtube-vos"))
    assert find_root("refer-youtube-vos", tmp_path).name == "ref-youtube-vos"  # one tree under two names
    (tmp_path / "rvos").unlink()
    shutil.copytree(trees("refer-youtube-vos") / "meta_expressions", tmp_path / "rvos/meta_expressions")
    with pytest.raises(InputError, match=r"ref-youtube-vos, .*rvos could each be refer-youtube-vos"):
        find_root("refer-youtube-vos", tmp_path)


def test_names_and_parts_that_do_not_exist_are_refused(trees):
    with pytest.raises(UsageError, match="no referring-video benchmark 'davis'; choose one of refer-youtube-vos"):
        find_root("davis", trees("revos"))
    for name, reader in READERS.items():
        with pytest.raises(UsageError, match=f"{name} has no part 'val'; choose "):
            reader(trees(name), "val")


@pytest.mark.parametrize(("layout", "part"), [(layout, part) for layout, part, _ in WRITTEN])
def test_a_missing_folder_of_frames_is_told_with_what_lies_beside(layout, part, copy):
    root = copy(layout)
    for folder in list(root.glob("JPEGImages")) + list(root.glob("*/JPEGImages")):
        folder.rename(folder.with_name("frames"))
    with pytest.raises(InputError, match=rf"JPEGImages: missing; wanted a folder of frames for each video of {part}"):
        READERS[layout](root, part)


@pytest.mark.parametrize("layout", ["mevis", "revos", "lv-vis"])
def test_a_missing_mask_dict_is_told_when_the_part_is_opened(layout, copy):
    root = copy(layout)
    for path in root.rglob("mask_dict.json"):
        path.unlink()
    with pytest.raises(InputError, match=r"mask_dict\.json: missing; wanted the run lengths of the masks of train"):
        READERS[layout](root, "train")


# meta_expressions.json


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"videos": {\n "a": {"frames": [}', "no JSON from line 2, column 19 on"),
        ("[]", "holds no videos; wanted"),
        ('{"videos": {"a": {"expressions": {}}}}', "video a lists no frames"),
        ('{"videos": {"a": {"frames": ["0"]}}}', "video a has no expressions"),
        (
            '{"videos": {"a": {"frames": ["0"], "expressions": {"3": {"obj_id": "1"}}}}}',
            "video a, expression 3 has no text",
        ),
        (
            '{"videos": {"a": {"frames": ["0"], "expressions": {"3": {"exp": " "}}}}}',
            "video a, expression 3 has no text",
        ),
        ('{"videos": {"a": {"frames": ["0"], "expressions": ["dog"]}}}', "video a, expression 0 has no text"),
    ],
)
def test_a_file_that_is_not_of_the_form_is_refused_with_the_place(text, words, copy):
    root = copy("instrack")
    path = root / "meta_expressions/test/meta_expressions.json"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        instrack(root, "test")
    assert str(error.value).startswith(f"{path}: ")
    assert words in str(error.value)


def test_a_file_that_is_not_utf_8_or_not_there_is_refused(copy):
    root = copy("instrack")
    path = root / "meta_expressions/test/meta_expressions.json"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read .*wanted JSON in UTF-8"):
        instrack(root, "test")
    path.unlink()
    with pytest.raises(InputError, match=r"meta_expressions\.json: missing; .*meta_expressions/test holds nothing"):
        instrack(root, "test")


# Files that do not belong together


def shift_objects(root: Path, part: str, by: int) -> None:
    """Every `obj_id` of a part, off by some."""

    def edit(document: dict) -> None:
        for video in document["videos"].values():
            for entry in video["expressions"].values():
                listed = entry["obj_id"] if isinstance(entry["obj_id"], list) else [entry["obj_id"]]
                moved = [str(int(key) + by) for key in listed]
                entry["obj_id"] = moved if isinstance(entry["obj_id"], list) else moved[0]

    change(root / f"meta_expressions/{part}/meta_expressions.json", edit)


@pytest.mark.parametrize(
    ("layout", "part"), [("refer-youtube-vos", "train"), ("refer-davis17", "valid"), ("instrack", "test")]
)
def test_object_ids_that_are_off_are_refused_when_the_part_is_opened(layout, part, copy):
    root = copy(layout)
    shift_objects(root, part, 20)
    with pytest.raises(
        InputError,
        match=rf"meta_expressions\.json: names objects that are in none of their videos' masks: video \S+: object \d+ "
        rf"\(its masks show .*looked at {VIDEOS * FRAMES} masks of {VIDEOS} of {VIDEOS} videos; are the ids off by one",
    ):
        READERS[layout](root, part)


def test_an_object_may_come_late_and_a_mask_that_is_missing_is_named(copy):
    root = copy("instrack")
    file = root / "meta_expressions/test/meta_expressions.json"
    (name, video), *_ = json.loads(file.read_text())["videos"].items()
    folder = root / "test/Annotations" / name
    whole = np.array(Image.open(folder / "00003.png"))
    late = np.zeros_like(whole)
    late[0] = 99
    Image.fromarray(late).save(folder / "00003.png")
    first = next(iter(video["expressions"]))
    change(file, lambda document: document["videos"][name]["expressions"][first].update(obj_id=["99"]))
    assert instrack(root, "test")[0].expressions[0].objects == ("99",)
    (folder / "00000.png").unlink()
    with pytest.raises(InputError, match=r"00000\.png: missing; wanted the label map of a frame that is listed"):
        instrack(root, "test")


def test_a_part_that_was_looked_at_is_not_read_again(copy, monkeypatch):
    root, opened = copy("refer-davis17"), []
    refer_davis17(root, "valid")
    before = Image.open
    monkeypatch.setattr(Image, "open", lambda path: opened.append(Path(path).suffix) or before(path))
    refer_davis17(root, "valid")
    assert len(opened) == VIDEOS  # whether the first map of each video is one of DAVIS-2016


def test_objects_of_davis_that_nobody_names_and_videos_without_frames_are_warned_of(tmp_path, caplog):
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    entries = {"0": {"exp": "a man", "obj_id": "1"}}
    refer_davis17(davis_tree(tmp_path, entries, labels), "valid")
    assert "no expression names objects of first masks: video dog: 2; looked at 1 masks of 1 of 1 videos" in caplog.text
    assert "1 of 1 videos looked at have no folder of frames (dog); only results can be scored" in caplog.text


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda video: video["frames"].append(video["frames"][0]), "lists a frame twice; wanted each once"),
        (lambda video: video["frames"].append("../00000"), r"the name '\.\./00000'; wanted one that stays in its"),
        (lambda video: video["expressions"].update({"../0": {"exp": "it", "obj_id": "1"}}), r"the name '\.\./0'"),
    ],
)
def test_lists_that_cannot_be_meant_are_refused(edit, words, copy):
    root = copy("refer-youtube-vos")
    file = root / "meta_expressions/train/meta_expressions.json"
    change(file, lambda document: edit(next(iter(document["videos"].values()))))
    with pytest.raises(InputError, match=words):
        refer_youtube_vos(root, "train")
