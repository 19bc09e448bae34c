"""Readers of the box benchmarks: what the writers wrote comes back, polarity, lists, real files, precise refusals."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from data_tools import box_writers
from data_tools.box_writers import boxes_of_object, one_based, targets_of
from trackgpt.data.box_files import INTERACTTRACK_SCENES, LASOT_ATTRIBUTES
from trackgpt.data.box_video import READERS, BoxTruth, interacttrack, lasot, otb_lang, tnl2k, tnllt
from trackgpt.data.mot_sequences import mot
from trackgpt.data.query_clips import boxes_of_trajectory, frame_number, rmot26
from trackgpt.errors import InputError, UsageError
from trackgpt.synthtrack.clips import make_case

NAMES = ("lasot", "tnl2k", "tnllt")
FRAMES = 12


@pytest.fixture(scope="module")
def cases():
    found = [make_case(30_000 + index, frames=FRAMES, longest=96) for index in range(5)]
    return [case for case in found if len(targets_of(case)) > 1][:2]


@pytest.fixture(scope="module")
def trees(cases, tmp_path_factory):
    """Every layout, in a folder with the name a project gives it, all below one root."""
    root = tmp_path_factory.mktemp("data")
    folders = {"lasot": "LaSOTBenchmark", "tnl2k": "TNL2K", "tnllt": "TNL2KLT", "interacttrack": "interact-track"}
    for name, folder in {**folders, "rmot26": "RMOT26", "mot": "MOT17"}.items():
        getattr(box_writers, f"write_{name}")(root / folder, cases, "test")
    return root


def shown(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("name", NAMES)
def test_what_was_written_is_read_as_xyxy_with_nan_where_absent(trees, cases, name):
    part = READERS[name](trees, "test")
    assert len(part.sequences) == len(cases)
    assert part.missing == ()
    for sequence, case in zip(part.sequences, cases):
        video, target = sequence.video(), targets_of(case)[0]
        wanted = np.where(target.absent[:, None], np.nan, target.boxes + np.pad(target.boxes[:, :2], ((0, 0), (2, 0))))
        assert video.boxes.dtype == np.float32
        np.testing.assert_array_equal(video.boxes, wanted.astype(np.float32))
        assert video.expressions[0].text == target.said.text
        assert len(video) == FRAMES
        assert video.frame(FRAMES - 1).shape == case.clip.frames.shape[1:]


def test_a_flag_of_1_means_absent_in_lasot_and_present_in_tnllt(tmp_path):
    shown(tmp_path / "LaSOT/annos/nlp/dog-1.txt", "a dog")
    shown(tmp_path / "LaSOT/annos/dog-1.txt", "1,1,5,5", "2,2,5,5")
    shown(tmp_path / "LaSOT/annos/absent/dog-1.txt", "1", "0")
    shown(tmp_path / "TNLLT/dog/groundtruth.txt", "1,1,5,5", "2,2,5,5")
    shown(tmp_path / "TNLLT/dog/absent_label.txt", "1", "0")
    assert lasot(tmp_path, "all").sequences[0].truth().absent.tolist() == [True, False]
    assert tnllt(tmp_path, "all").sequences[0].truth().absent.tolist() == [False, True]


def test_lasot_counts_pixels_from_1_and_the_others_from_0():
    boxes = np.array([[1.0, 1, 5, 5], [0, 0, 0, 0]])
    absent = np.array([False, True])
    assert BoxTruth(boxes, absent, origin=1).xyxy()[0].tolist() == [0, 0, 5, 5]
    assert BoxTruth(boxes, absent).xyxy()[0].tolist() == [1, 1, 6, 6]
    assert np.isnan(BoxTruth(boxes, absent).xyxy()[1]).all()
    assert one_based(np.array([[0.0, 0, 5, 5], [0, 0, 0, 0]])).tolist() == boxes.tolist()


def test_a_box_without_area_is_nan_even_where_no_flag_says_absent():
    truth = BoxTruth(np.array([[5.0, 5, 0, 4], [5, 5, 4, 4]]), np.array([False, False]))
    assert np.isnan(truth.xyxy()).all(axis=1).tolist() == [True, False]


def test_attributes_and_scenes_are_names(trees):
    for sequence in interacttrack(trees, "test").sequences:
        assert sequence.video().attributes & {"wildlife", "daily", "other"}
        assert sequence.attributes() <= set(INTERACTTRACK_SCENES)
    for sequence in lasot(trees, "test").sequences:
        assert sequence.attributes() <= set(LASOT_ATTRIBUTES)


def test_prompts_begin_on_frame_0_and_switch_where_the_file_has_the_old_targets_box(tmp_path):
    shown(tmp_path / "a/groundtruth.txt", *["1,1,5,5"] * 4)
    shown(tmp_path / "a/description.txt", "the dog", "", "no, the white one", "the cat")
    shown(tmp_path / "a/switch.txt", "", "", "", "2,2,5,5")
    (sequence,) = interacttrack(tmp_path, "test").sequences
    assert [(p.frame, p.kind) for p in sequence.prompts()] == [(0, "start"), (2, "correct"), (3, "switch")]
    assert sequence.script() is None  # only SynthTrack-Interact has one


def test_interacttrack_without_switch_and_scene_files_has_corrections_only(tmp_path):
    folder = tmp_path / "a"
    shown(folder / "groundtruth.txt", "1,1,5,5", "", "0", "2,2,5,5")
    shown(folder / "description.txt", "the dog", "", "no, the cat", "")
    sequence = interacttrack(tmp_path, "test").sequences[0]
    assert [prompt.kind for prompt in sequence.prompts()] == ["start", "correct"]
    assert sequence.truth().absent.tolist() == [False, True, True, False]
    assert sequence.attributes() == frozenset()
    video = sequence.video()
    assert (len(video), len(video.boxes)) == (0, 4)  # annotations alone
    shown(folder / "description.txt", "", "")
    with pytest.raises(InputError, match=r"description.txt: no line says anything"):
        sequence.prompts()


def test_sequences_come_in_the_order_of_the_list_and_those_that_are_not_here_are_named(tmp_path):
    for name in ("dog-2", "dog-10", "cat-1"):
        shown(tmp_path / f"annos/{name}.txt", "1,1,5,5")
        shown(tmp_path / f"annos/nlp/{name}.txt", name)
    assert [sequence.name for sequence in lasot(tmp_path, "all").sequences] == ["cat-1", "dog-2", "dog-10"]
    with pytest.raises(InputError, match=r"testing_set.txt: missing; wanted the names of the part 'test'"):
        lasot(tmp_path, "test")
    shown(tmp_path / "testing_set.txt", "dog-10", "bird-1", "cat-1")
    part = lasot(tmp_path, "test")
    assert [sequence.name for sequence in part.sequences] == ["dog-10", "cat-1"]
    assert part.missing == ("bird-1",)
    assert [sequence.name for sequence in lasot(tmp_path, "train").sequences] == ["dog-2"]
    shown(tmp_path / "testing_set.txt", "bird-1")
    with pytest.raises(InputError, match="none of 1 sequences of 'test' is here"):
        lasot(tmp_path, "test")
    with pytest.raises(UsageError, match="no part 'valid'"):
        lasot(tmp_path, "valid")


def test_boxes_and_flags_of_tnl2k_may_differ_by_one_line_and_are_cut(tmp_path):
    shown(tmp_path / "annos/gt_rect/a.txt", "1,1,5,5", "2,2,5,5")
    flags = shown(tmp_path / "annos/absent/a.txt", "0", "0", "0")
    sequence = tnl2k(tmp_path, "all").sequences[0]
    assert sequence.truth().note == "2 boxes and 3 flags: cut to 2"
    assert len(sequence.truth().boxes) == len(sequence.truth().absent) == 2
    shown(flags, "0", "0", "0", "0")
    with pytest.raises(InputError, match=r"a.txt: \[4\] flags for 2 boxes"):
        sequence.truth()


def test_frames_are_images_alone_and_may_not_be_less_than_boxes(tmp_path):
    from PIL import Image

    shown(tmp_path / "a/language.txt", "a boat", "a second line is not used")
    shown(tmp_path / "a/groundtruth.txt", "1,1,5,5", "2,2,5,5")
    (tmp_path / "a/imgs").mkdir()
    for name in ("00001.png", "00002.jpg", "00003.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / "a/imgs" / name)
    (tmp_path / "a/imgs/00000.pn_error").touch()
    sequence = tnl2k(tmp_path, "all").sequences[0]
    assert [image.name for image in sequence.video().images] == ["00001.png", "00002.jpg"]
    assert sequence.video().expressions[0].text == "a boat"
    (tmp_path / "a/imgs/00002.jpg").unlink()
    (tmp_path / "a/imgs/00003.png").unlink()
    with pytest.raises(InputError, match="1 frames for 2 boxes"):
        sequence.video()


def test_otb_has_sentences_beside_videos_and_two_targets_in_one_video(tmp_path):
    from PIL import Image

    for name, boxes in (("David", "groundtruth_rect.txt"), ("Jogging", "groundtruth_rect.2.txt")):
        shown(tmp_path / f"OTB_videos/{name}/{boxes}", "1\t1\t5\t5", "2 2 5 5")
    (tmp_path / "OTB_videos/David/img").mkdir()
    for number in (299, 300, 301):
        Image.new("RGB", (4, 4)).save(tmp_path / f"OTB_videos/David/img/{number:04d}.jpg")
    shown(tmp_path / "OTB_query_test/David.txt", "a man's face")
    shown(tmp_path / "OTB_query_test/Jogging-2.txt", "the second woman")
    shown(tmp_path / "OTB_query_test/Lost.txt", "nobody")
    part = otb_lang(tmp_path, "test")
    assert part.missing == ("Lost",)
    david, jogging = (sequence.video() for sequence in part.sequences)
    assert [image.stem for image in david.images] == ["0300", "0301"]
    assert david.boxes[0].tolist() == [0, 0, 5, 5]
    assert jogging.expressions[0].text == "the second woman"


def test_a_root_without_the_benchmark_says_what_is_wanted(tmp_path):
    for name, read in READERS.items():
        with pytest.raises(InputError, match=f"no {name} here; wanted"):
            read(tmp_path, "test")


# --- clips with questions ---


def test_clips_of_one_and_of_several_objects_come_back(trees, cases):
    clips = rmot26(trees, "test")
    assert [clip.kind for clip in clips] == ["single", "multi"] * len(cases)
    for clip, case in zip(clips[::2], cases):
        target, (each,) = targets_of(case)[0], clip.objects
        assert clip.question == target.said.text
        assert each.initial_box.tolist() == target.boxes[0].tolist()
        assert each.boxes.tolist() == target.boxes[list(each.frames)].tolist()
        video = clip.video()
        assert [frame_number(image) for image in video.images] == list(range(6))
        assert video.frame(0).shape == case.clip.frames.shape[1:]
    assert [each.key for each in clips[1].objects][:2] == ["object_1", "object_2"]


def test_clips_of_hidden_and_of_returning_objects_show_them_before_and_after(tmp_path):
    """Of 36 frames; a clip of an occlusion or of a re-entry lies where that happens."""
    drawn = [make_case(seed, longest=128) for seed in (50012, 50022)]
    box_writers.write_rmot26(tmp_path, drawn, "test")
    clips = rmot26(tmp_path, "test")
    by_video = {case.clip.name: case for case in drawn}
    assert {"crowd", "occlusion", "re-entry"} <= {clip.scenario for clip in clips}
    for clip in (each for each in clips if each.scenario in ("occlusion", "re-entry")):
        (each,) = clip.objects
        ids = by_video[clip.reference.parent.name].clip.ids
        places = [frame_number(image) for image in clip.video().images]
        areas = (ids[places] == int(each.track_id)).sum((1, 2))
        assert areas[0] >= 30
        assert areas[-1] >= areas[0] / 2
        assert areas[1:-1].min() < areas[0] / 2
        if clip.scenario == "re-entry":
            assert areas[1:-1].min() == 0
            assert len(each.frames) < len(places) - 1  # no entry where it is not seen
        assert each.initial_box.tolist() == boxes_of_object(ids, int(each.track_id))[places[0]].tolist()


def test_expected_output_may_be_a_list_or_a_string_and_questions_may_be_prompts(tmp_path):
    boxes = [{"frame": 7, "bbox": [1, 2, 3, 4]}, {"frame": 8, "bbox": None}, {"frame": 9, "bbox": [1, 2, 0, 4]}]
    item = {"id": "a", "ref_image": "x/000006.jpg", "images": ["x/000007.jpg"], "prompt": "Who?", "track_id": 3}
    for place, stored in enumerate(([item], {"data": [item]})):
        item["expected_output"] = boxes if place else json.dumps(boxes)
        shown(tmp_path / "test/annotations.json", json.dumps(stored))
        (clip,) = rmot26(tmp_path, "test")
        assert (clip.name, clip.question, clip.objects[0].frames) == ("a", "Who?", (7, 8, 9))
        assert np.isnan(clip.objects[0].boxes).all(axis=1).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expected_output": "[{"}, r"clip 0 \(id 1\): \"expected_output\" cannot be read"),
        ({"expected_output": [{"frame": 1, "bbox": [1, 2, 3]}]}, r"the box of entry 0 is \[1, 2, 3\]"),
        ({"expected_output": []}, "the object has no boxes"),
        ({"expected_output": 3}, "a int, wanted a list"),
        ({"id": "../x"}, "is no file name"),
        ({"question": None}, "no 'question' or 'prompt'"),
    ],
)
def test_a_clip_that_cannot_be_read_is_named_by_place_and_id(tmp_path, changes, message):
    item = {"id": 1, "ref_image": "a/1.jpg", "input_images": [], "question": "?", "track_id": 1}
    item["expected_output"] = [{"frame": 1, "bbox": [1, 2, 3, 4]}]
    item = {key: value for key, value in {**item, **changes}.items() if value is not None}
    path = shown(tmp_path / "test/annotations.json", json.dumps([item]))
    with pytest.raises(InputError, match=message) as caught:
        rmot26(tmp_path, "test")
    assert str(caught.value).startswith(f"{path}: clip 0")


def test_two_clips_of_one_id_and_names_without_numbers_are_refused(tmp_path):
    item = {"id": 1, "ref_image": "a/1.jpg", "input_images": [], "question": "?"}
    item["expected_output"] = [{"frame": 1, "bbox": [1, 2, 3, 4]}]
    shown(tmp_path / "test/annotations.json", json.dumps([item, item]))
    with pytest.raises(InputError, match="the id '1' is there more than once"):
        rmot26(tmp_path, "test")
    with pytest.raises(InputError, match="ends in no number"):
        frame_number(Path("last.jpg"))
    with pytest.raises(ValueError, match="entry 0"):
        boxes_of_trajectory([{"frame": "1"}])


# --- many objects ---


def test_a_mot_tree_comes_back(trees, cases):
    part = mot(trees, "test")
    for sequence, case in zip(part.sequences, cases):
        truth = sequence.truth()
        assert len(truth.ids) == len(sequence.images()) == FRAMES
        for t, (ids, boxes) in enumerate(zip(truth.ids, truth.boxes)):
            for key, box in zip(ids, boxes):
                assert box.tolist() == boxes_of_object(case.clip.ids[t : t + 1], key)[0].tolist()


def test_a_split_of_mot_must_be_one_folder_with_truth(trees, tmp_path):
    with pytest.raises(InputError, match="wanted one folder called val"):
        mot(trees, "val")
    shown(tmp_path / "MOT17/val/a/seqinfo.ini", "[Sequence]", "name=a", "seqLength=1")
    with pytest.raises(InputError, match=r"no sequence with gt/gt.txt; it holds a"):
        mot(tmp_path, "val")


# --- real files ---


def test_the_42_annotated_sequences_of_lasot_load(shared):
    part = lasot(shared / "data", "test")
    assert (len(part.sequences), len(part.missing)) == (42, 238)
    video = part.sequences[0].video()
    assert (video.name, video.expressions[0].text) == ("airplane-1", "white airplane landing on ground")
    assert video.boxes[0].tolist() == [366, 100, 407, 116]  # 367,101,41,16 counted from 1
    assert video.attributes == {"POC", "ROT", "SV", "LR"}


@pytest.fixture(scope="module")
def tnl2k_annotations(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tnl2k")
    with tarfile.open(shared / "data/tnl2k/annos/annos.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_the_700_test_sequences_of_tnl2k_load_and_one_is_cut(tnl2k_annotations, shared):
    names = (shared / "data/tnl2k/sequence_evaluation_config/TNL2K_testing_set.txt").read_text()
    shown(tnl2k_annotations / "TNL2K_testing_set.txt", *names.split())
    part = tnl2k(tnl2k_annotations, "test")
    assert (len(part.sequences), part.missing) == (700, ())
    truths = {sequence.name: sequence.truth() for sequence in part.sequences}
    cut = {name: truth.note for name, truth in truths.items() if truth.note}
    assert cut == {"advSamp_monitor_bikeyellow": "929 boxes and 930 flags: cut to 929"}
    assert sum(truth.absent.sum() for truth in truths.values()) == 65_253
    assert all((truth.absent == ~truth.boxes.any(axis=1)).all() for truth in truths.values())


def test_the_split_lists_of_tnllt_are_found_beside_its_sequences(shared, tmp_path):
    for part, count in (("test", 50), ("train", 150)):
        text = (shared / f"data/tnllt/scripts/TNL2KLTDataset/tnl_lt_{part}_split.txt").read_text()
        shown(tmp_path / f"scripts/TNL2KLTDataset/tnl_lt_{part}_split.txt", text.strip())
        name = text.split()[0]
        shown(tmp_path / name / "groundtruth.txt", "1,2,3,4")
        shown(tmp_path / name / "absent_label.txt", "1")
        found = tnllt(tmp_path, part)
        assert [sequence.name for sequence in found.sequences] == [name]
        assert len(found.missing) == count - 1


def test_a_sequence_of_sportsmot_loads_and_the_44_that_are_missing_are_named(shared):
    part = mot(shared / "data/mot/sportsmot", "val")
    assert ([s.name for s in part.sequences], len(part.missing)) == (["v_0kUtTtmLaJA_c005"], 44)
    assert len(part.sequences[0].truth().ids) == 349
