import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_trees import copies, problems, run, tree_fixture
from PIL import Image

from data_tools.check import check_tree
from data_tools.checks import CHECKS
from data_tools.checks.stages import STAGES
from data_tools.synthtrack import Layout
from trackgpt.data.image_trees import TREES

stage1 = tree_fixture(Layout.stage1)
vipseg = tree_fixture(Layout.vipseg)
broken = copies


def move(path: Path, to: Path) -> Path:
    to.parent.mkdir(parents=True, exist_ok=True)
    return path.rename(to)


# A sound tree


@pytest.mark.parametrize("name", TREES)
def test_a_sound_image_set_has_no_problems(name, stage1, capsys):
    report = check_tree(name, stage1)
    assert [str(problem) for problem in report.problems] == []
    first = TREES[name].parts[0]
    assert report.counts[first][TREES[name].units[0]] == 2
    assert run("check", name, stage1) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"layout={name} problems=0 root={stage1}"


def test_counts_stand_beside_those_that_were_published(stage1, capsys):
    assert run("check", "refcoco", stage1) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["train", "images", "2", "0", "0", "16994"] in rows
    (expressions,) = [row for row in rows if row[:2] == ["train", "expressions"]]
    assert expressions[-1] == "120624"


@pytest.mark.parametrize(
    ("name", "where", "alias"),
    [
        ("ade20k", "ade20k", "ADEChallengeData2016"),
        ("ade20k", "ade20k", "Semantic_Segm/ADE20K"),
        ("mapillary", "mapillary", "Mapillary-Vistas"),
        ("pascal-part", "vlpart/pascal_part", "pascal-part"),
        ("part-imagenet", "PartImageNet", "vlpart/partimagenet"),
        ("reason-seg", "reason_seg/ReasonSeg", "ReasonSeg"),
        ("refclef", "refer_seg", "Refer_Segm"),
    ],
)
def test_every_name_that_projects_use_is_taken(name, where, alias, stage1, tmp_path):
    (tmp_path / alias).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / alias).symlink_to(stage1 / where)
    assert problems(name, tmp_path) == []
    assert problems(name, tmp_path / alias) == []


def test_a_part_for_tests_that_is_not_there_is_a_note(broken):
    root = broken("stage1")
    shutil.rmtree(root / "reason_seg/ReasonSeg/test")
    report = check_tree("reason-seg", root)
    assert report.problems == []
    assert any("the part test is not there and is not checked" in note for note in report.notes)


def test_only_some_pictures_are_opened_when_there_are_many(broken):
    root = broken("stage1")
    folder = root / "ade20k"
    stem = sorted((folder / "images/training").iterdir())[0].stem
    for k in range(8):
        shutil.copy(folder / f"images/training/{stem}.jpg", folder / f"images/training/x{k}.jpg")
        shutil.copy(folder / f"annotations/training/{stem}.png", folder / f"annotations/training/x{k}.png")
    (folder / "images/training/x3.jpg").write_bytes(b"")
    assert len(problems("ade20k", root)) == 1
    report = check_tree("ade20k", root, opened=2)  # the first and the last
    assert report.problems == []
    assert "training: 2 of 10 pictures were opened (--open 0 opens all)" in report.notes[-1]


# What is wrong, and what to do


def test_ade20k_without_the_folder_training_is_told_where_its_pictures_belong(broken, capsys):
    root = broken("stage1")
    folder = root / "ade20k/images"
    for path in list((folder / "training").iterdir()):
        path.rename(folder / path.name)
    (folder / "training").rmdir()
    (found,) = problems("ade20k", root)
    assert found.startswith('images: has no "training"; it holds train-30000.jpg, train-30001.jpg, validation; wanted ')
    assert found.endswith(f"move what belongs to training to {folder / 'training'}")
    shutil.rmtree(folder)
    assert problems("ade20k", root) == [
        f"images: missing; wanted {part}, of the part {part}" for part in ("training", "validation")
    ]


def test_a_folder_of_the_name_of_a_set_is_looked_into_even_when_it_does_not_show_it(tmp_path):
    (tmp_path / "ade20k").mkdir()
    (tmp_path / "ade20k/index_ade20k.pkl").touch()
    first, second = problems("ade20k", tmp_path)
    assert first.startswith(f"{tmp_path / 'ade20k'}: has the name of ade20k, but holds index_ade20k.pkl; wanted ")
    assert "the full ADE20K" in second
    assert second.endswith("download ADEChallengeData2016.zip")


def test_an_image_and_a_label_map_that_do_not_pair_are_named(broken):
    root = broken("stage1")
    folder = root / "ade20k"
    (folder / "images/training/train-30000.jpg").unlink()
    label = folder / "annotations/training/train-30001.png"
    with Image.open(label) as picture:
        values = np.asarray(picture)
    Image.fromarray(values[:-1]).save(label)
    one, two = problems("ade20k", root)
    assert one.startswith("images/training/train-30000.jpg: missing; wanted the picture of ade20k, training")
    assert "train-30001.jpg" in two
    assert "are image and annotation of one release?" in two
    report = check_tree("ade20k", root)
    assert (report.counts["training"]["images"], report.missing["training"]["images"]) == (0, 1)
    assert report.wrong["training"]["images"] == 1


def test_a_truncated_png_and_a_label_that_no_class_has_are_named(broken):
    root = broken("stage1")
    first, second = sorted((root / "ade20k/annotations/training").iterdir())
    first.write_bytes(first.read_bytes()[:-40])
    Image.fromarray(np.full((96, 96), 200, np.uint8)).save(second)
    found = problems("ade20k", root)
    assert found[0].startswith(f"annotations/training/{first.name}: not a readable label map")
    assert found[1].startswith(f"annotations/training/{second.name}: a pixel has the label 200")


def test_mapillary_of_version_1_2_is_told_from_2_0(broken):
    root = broken("stage1")
    move(root / "mapillary/config_v2.0.json", root / "mapillary/config_v1.2.json")
    for part in ("training", "validation"):
        move(root / f"mapillary/{part}/v2.0/labels", root / f"mapillary/{part}/v1.2/labels")
    found = problems("mapillary", root)
    assert (
        f"{root / 'mapillary'}: version 1.2 (config_v1.2.json); wanted version 2.0, which has other labels" in found[1]
    )
    assert [line.split(";")[0] for line in found[2:]] == [
        f"{part}/v1.2/labels: labels of version 1.2" for part in ("training", "validation")
    ]


def test_pictures_of_coco_serve_three_sets_and_are_missed_by_each(broken):
    root = broken("stage1")
    move(root / "coco/train2017", root / "elsewhere/train2017")
    shutil.rmtree(root / "coco")
    for name in ("coco-stuff", "paco-lvis", "llava-instruct"):
        (found,) = problems(name, root)
        assert found.startswith(f"{root}: no pictures of COCO 2017; wanted train2017/*.jpg")
        assert found.endswith("coco-stuff, paco-lvis and llava-instruct share them")
    assert problems("ade20k", root) == []


def test_a_set_given_without_the_pictures_beside_it_is_told_to_give_the_folder_above(stage1):
    (found,) = problems("coco-stuff", stage1 / "cocostuff")
    assert f"no pictures of COCO 2017; they are in {stage1 / 'coco'}" in found
    assert found.endswith(f"give {stage1}")


def test_label_maps_of_other_programs_are_not_taken_for_those_of_coco_stuff(broken):
    root = broken("stage1")
    file = sorted((root / "cocostuff/train2017").iterdir())[0]
    shutil.copy(file, file.with_name(f"{file.stem}_labelTrainIds.png"))
    found = problems("coco-stuff", root)
    assert "a map of mmsegmentation's own labels" in found[0]
    assert found[0].endswith("move *_labelTrainIds.png elsewhere")
    file.with_name(f"{file.stem}_labelTrainIds.png").unlink()
    (root / "cocostuff/stuff_train2017_pixelmaps").mkdir()
    assert "without things" in problems("coco-stuff", root)[0]


def test_pascal_part_for_matlab_must_be_converted(broken):
    root = broken("stage1")
    folder = root / "vlpart/pascal_part"
    (folder / "train.json").unlink()
    (folder / "val.json").unlink()
    (folder / "Annotations_Part").mkdir()
    found = problems("pascal-part", root)
    assert found[0].startswith("Annotations_Part: annotations for MATLAB")
    assert found[0].endswith("convert them with VLPart's tools/pascal_part_mat2json.py")
    shutil.move(folder / "VOCdevkit/VOC2010", folder / "VOCdevkit/VOC2012")
    assert any("pictures of VOC 2012" in line for line in problems("pascal-part", root))


def test_paco_one_level_too_high_is_pointed_at(broken):
    root = broken("stage1")
    folder = root / "vlpart/paco"
    for file in list((folder / "annotations").iterdir()):
        file.rename(folder / file.name)
    (folder / "annotations").rmdir()
    found = problems("paco-lvis", root)
    assert any(
        line.endswith("one level too high; wanted annotations/paco_lvis_v1_train.json; move it there") for line in found
    )


def test_another_cut_of_the_splits_is_told(broken):
    root = broken("stage1")
    move(root / "refer_seg/refcocog/refs(umd).p", root / "refer_seg/refcocog/refs(google).p")
    found = problems("refcocog", root)
    assert (
        found[0] == "refcocog/refs(umd).p: missing (refs(google).p is there); wanted the splits of umd, which LISA uses"
    )


def test_a_root_that_ends_in_refer_seg_does_and_other_sets_are_told_to_go_up(stage1):
    report = check_tree("refcoco", stage1 / "refer_seg")
    assert report.problems == []
    assert any("given itself; here that does, while LISA trains from the folder above" in note for note in report.notes)
    (found,) = problems("ade20k", stage1 / "refer_seg")
    assert f"no ade20k, but {stage1 / 'ade20k'} is there" in found
    assert found.endswith(f"give {stage1}")


def test_phrases_and_their_pictures_must_all_be_there(broken):
    root = broken("stage1")
    folder = root / "refer_seg"
    (folder / "refcoco/instances.json").unlink()
    assert problems("refcoco", root)[0].startswith("refcoco/instances.json: missing")
    missing = sorted((folder / "images/mscoco/images/train2014").iterdir())[0]
    missing.unlink()
    found = problems("refcoco+", root)
    assert len(found) == 1
    assert f"{missing.name}: missing; wanted the picture of refcoco+, train" in found[0]
    shutil.rmtree(folder / "images/mscoco")
    assert "no pictures of COCO 2014" in problems("grefcoco", root)[0]


def test_a_pickle_that_names_code_is_refused(broken):
    root = broken("stage1")
    (root / "refer_seg/refcoco/refs(unc).p").write_bytes(pickle.dumps([Path("a")]))
    (found,) = problems("refcoco", root)
    assert "refs(unc).p: refused" in found
    assert "which could run code" in found


def test_saiapr_in_numbered_folders_is_told(broken):
    root = broken("stage1")
    folder = root / "refer_seg/images/saiapr_tc-12"
    for file in list(folder.iterdir()):
        move(file, folder / f"00/images/{file.name}")
    found = problems("refclef", root)
    assert "pictures of the whole SAIAPR TC-12, in numbered folders" in found[0]


def test_the_captions_of_referformer_are_checked_too(stage1, tmp_path):
    (tmp_path / "coco/refcoco").mkdir(parents=True)
    (tmp_path / "coco/train2014").symlink_to(stage1 / "refer_seg/images/mscoco/images/train2014")
    book = json.loads((stage1 / "refer_seg/refcoco/instances.json").read_text())
    image, annotation = book["images"][0], book["annotations"][0]
    images = [{**image, "id": 0, "caption": "the thing"}]
    document = {"images": images, "annotations": [{**annotation, "image_id": 0}]}
    (tmp_path / "coco/refcoco/instances_refcoco_train.json").write_text(json.dumps(document))
    report = check_tree("refcoco", tmp_path)
    assert [str(problem) for problem in report.problems] == []
    assert report.counts == {"train": {"images": 1, "expressions": 1}}


def test_reason_seg_with_a_picture_without_json_or_without_explanations(broken):
    root = broken("stage1")
    folder = root / "reason_seg/ReasonSeg"
    sorted((folder / "train").glob("*.json"))[0].unlink()
    shutil.rmtree(folder / "explanatory")
    shutil.move(folder / "val", folder / "elsewhere")
    (folder / "val.zip").touch()
    found = problems("reason-seg", root)
    assert found[0] == "val.zip: not unpacked; wanted the folder val beside it"
    assert found[1].startswith("explanatory/train.json: missing")
    assert "train-30000.json: missing" in found[2]


def test_llava_of_another_name_and_a_record_that_is_no_conversation(broken):
    root = broken("stage1")
    file = root / "llava_dataset/llava_instruct_150k.json"
    records = json.loads(file.read_text())
    records[0]["conversations"] = records[0]["conversations"][:1]
    records[1]["image"] = "nowhere.jpg"
    file.write_text(json.dumps(records))
    first, second = problems("llava-instruct", root)
    assert "record 0, at byte 1" in first
    assert "nowhere.jpg: missing; wanted the picture of a conversation" in second
    move(file, file.with_name("llava_v1_5_mix665k.json"))
    found = problems("llava-instruct", root)
    assert "holds llava_v1_5_mix665k.json; wanted llava_instruct_150k.json" in found[1]


def test_annotations_that_do_not_fit_their_picture_are_named(broken):
    root = broken("stage1")
    file = root / "vlpart/paco/annotations/paco_lvis_v1_train.json"
    book = json.loads(file.read_text())
    book["annotations"][0]["segmentation"]["counts"] = "0"
    book["images"][1]["height"] += 1
    file.write_text(json.dumps(book))
    found = problems("paco-lvis", root)
    assert len(found) == 2
    assert "annotation 1: " in found[0]
    assert "are image and annotation of one release?" in found[1]


# VIPSeg


def test_a_sound_vipseg_has_no_problems(vipseg, capsys):
    assert problems("vipseg", vipseg) == []
    assert run("check", "vipseg", vipseg) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["train", "videos", "2", "0", "0", "2806"] in rows
    assert ["val", "videos", "2", "0", "0", "343"] in rows


def test_what_is_wrong_in_vipseg_is_named(broken):
    root = broken("vipseg")
    (root / "panomasks/train-30000/00000010.png").unlink()
    shutil.rmtree(root / "imgs/train-30001")
    mask = root / "panomasks/test-30000/00000000.png"
    with Image.open(mask) as picture:
        values = np.array(picture)
    values[0, 0] = 12_300
    Image.fromarray(values).save(mask)
    (root / "panoVIPSeg_categories.json").rename(root / "categories.json")
    found = problems("vipseg", root)
    assert found[0].startswith("panoVIPSeg_categories.json: missing; wanted the names of categories")
    assert found[1].startswith("panomasks/train-30000/00000010.png: missing; wanted a mask for each of 6 frames")
    assert found[2].startswith("imgs/train-30001: missing; wanted the video train-30001")
    (root / "categories.json").rename(root / "panoVIPSeg_categories.json")
    assert "a value of the category 123; wanted 1 to " in problems("vipseg", root)[2]


def test_the_test_part_of_vipseg_has_no_public_masks(broken):
    root = broken("vipseg")
    (root / "val.txt").rename(root / "test.txt")
    for name in ("test-30000", "test-30001"):
        shutil.rmtree(root / "panomasks" / name)
    report = check_tree("vipseg", root)
    assert report.problems == []
    assert report.counts["test"] == {"videos": 2}


# Stages


def test_every_set_of_a_stage_has_a_check():
    assert {name for stage in STAGES.values() for name in stage.names} <= CHECKS.keys()
    assert set(TREES) == {*STAGES["stage1"].names}


def test_a_stage_is_one_table(stage1, capsys):
    assert run("check", "stage1", stage1) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["set", "state", "part", "found", "missing", "wrong", "published"]
    assert lines[1].split() == ["ade20k", "ready", "training", "images", "2", "0", "0", "20210"]
    assert {line.split()[0] for line in lines[1:-1] if not line.startswith(" ")} == set(TREES)
    assert lines[-1] == f"layout=stage1 sets=13 problems=0 root={stage1}"


def test_a_stage_says_which_sets_are_not_ready(broken, capsys):
    root = broken("stage1")
    shutil.rmtree(root / "ade20k/images/training")
    shutil.rmtree(root / "PartImageNet")
    shutil.rmtree(root / "refer_seg/grefcoco")
    move(root / "mapillary/config_v2.0.json", root / "mapillary/config_v1.2.json")
    assert run("check", "stage1", root) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('ade20k: images: has no "training"; it holds validation')
    assert lines[1].startswith(f"part-imagenet: {root}: no part-imagenet; it holds ade20k, coco")
    table = {line.split()[0]: line for line in lines if line.split()[0] in TREES}
    assert " ".join(table["ade20k"].split()[:3]) == "ade20k 1 problem"
    assert " ".join(table["grefcoco"].split()) == "grefcoco optional, not there"
    assert "problems" in table["mapillary"]
    assert "ready" in table["refcoco"]
    assert lines[-1].startswith("layout=stage1 sets=12 problems=")


def test_a_stage_of_videos_is_checked_alike(tmp_path, capsys):
    assert run("make", "--layout", "stage3", "--videos", 1, "--frames", 2, "--longest", 64, "-o", tmp_path / "a") == 0
    assert run("check", "stage3", tmp_path / "a") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["instrack", "ready", "train", "videos", "1", "0", "0", "143"] for line in lines)
    shutil.rmtree(tmp_path / "a/instrack")
    assert run("check", "stage3", tmp_path / "a") == 3
    assert capsys.readouterr().out.startswith(f"instrack: {tmp_path / 'a'}: no instrack; it holds VIPSeg, ref-davis")
