import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.image_writers import (
    STUFF,
    part_masks,
    write_ade20k,
    write_coco_stuff,
    write_mapillary,
    write_paco_lvis,
    write_part_imagenet,
    write_pascal_part,
)
from trackgpt.data.class_names import ADE20K, COCO_STUFF
from trackgpt.data.images import ImageSet, one_of_each_text
from trackgpt.data.segmentation import (
    LabelMap,
    ade20k,
    coco_stuff,
    mapillary,
    paco_lvis,
    part_imagenet,
    pascal_part,
    wordings,
)
from trackgpt.data.videos import Expression
from trackgpt.errors import InputError, UsageError
from trackgpt.synthtrack.catalog import BY_NAME
from trackgpt.synthtrack.clips import make_case

PARTS = {"train": ("train", range(4)), "valid": ("test", range(2))}
CASES = {
    part: [make_case(seed, split, frames=1, longest=96) for seed in seeds] for part, (split, seeds) in PARTS.items()
}
WRITERS = (write_ade20k, write_coco_stuff, write_mapillary, write_paco_lvis, write_pascal_part, write_part_imagenet)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("dataset")
    for part, cases in CASES.items():
        for write in WRITERS:
            counts = write(root, cases, part)
            assert counts.frames == len(cases)
    return root


def things(case) -> dict[str, np.ndarray]:
    """What each category covers in the first frame of a case."""
    found: dict[str, np.ndarray] = {}
    for actor in case.scene.actors:
        mask = case.clip.ids[0] == actor.id
        if mask.any():
            found[actor.category] = mask | found.get(actor.category, False)
    return found


def masks(sample) -> dict[str, np.ndarray]:
    return {said.text: sample.mask(said) for said in sample.expressions}


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert sorted(found) == sorted(wanted)
    for name, mask in wanted.items():
        np.testing.assert_array_equal(found[name], mask, err_msg=name)


def label_map(folder: Path, values: list[list[int]], mode: str = "L") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.array(values, np.uint8))
    if mode == "P":
        picture.putpalette(list(range(256)) * 3)
    picture.save(folder / "1.png")
    return folder / "1.png"


def stuff_tree(root: Path, values: list[list[int]]) -> Path:
    label_map(root / "cocostuff/train2017", values)
    (root / "coco/train2017").mkdir(parents=True)
    (root / "coco/train2017/1.jpg").touch()
    return root


def ade_tree(root: Path, values: list[list[int]], mode: str = "L") -> Path:
    label_map(root / "ade20k/annotations/training", values, mode)
    (root / "ade20k/images/training").mkdir(parents=True)
    return root


# ADE20K


@pytest.mark.parametrize(("part", "split"), [("train", "training"), ("valid", "validation")])
def test_ade20k_comes_back_as_it_was_written(dataset, part, split):
    found = ade20k(dataset, split)
    by_name = {case.clip.name: case for case in CASES[part]}
    assert [sample.name for sample in found] == sorted(by_name)
    for sample in found:
        case = by_name[sample.name]
        assert_same(masks(sample), things(case))
        np.testing.assert_array_equal(sample.ignored(), case.clip.ids[0] == 0)
        assert sample.frame().shape[:2] == sample.size == case.clip.ids.shape[1:]


@pytest.mark.parametrize("mode", ["L", "P"])
def test_ade20k_label_0_is_ignored_and_label_1_is_the_first_class(tmp_path, mode):
    (sample,) = ade20k(ade_tree(tmp_path, [[0, 1, 150], [255, 1, 13]], mode))
    assert [(said.id, said.text) for said in sample.expressions] == [("0", "wall"), ("12", "person"), ("149", "flag")]
    assert [int(sample.mask(said).sum()) for said in sample.expressions] == [2, 1, 1]
    np.testing.assert_array_equal(sample.ignored(), [[True, False, False], [True, False, False]])


def test_ade20k_has_150_names_and_takes_the_first_synonym_of_its_own_file(tmp_path):
    assert (len(ADE20K), len(set(ADE20K)), ADE20K[0], ADE20K[89], ADE20K[149]) == (
        150,
        150,
        "wall",
        "television receiver",
        "flag",
    )
    root = ade_tree(tmp_path, [[2, 1]])
    file = root / "ade20k/objectInfo150.txt"
    file.write_text("Idx\tRatio\tTrain\tVal\tName\n1\t0.2\t3\t4\twall \n2 \t0.1\t1\t1\tbuilding, edifice\n")
    assert ade20k(root).names == ("wall", "building")
    file.write_text("Idx\tRatio\tTrain\tVal\tName\n1\t0.2\t3\t4\twall\n3\t0.1\t1\t1\tbuilding\n")
    with pytest.raises(InputError, match=r"objectInfo150\.txt: wanted rows 1, 2, \.\.\."):
        ade20k(root)


def test_a_label_that_no_class_has_is_refused(tmp_path):
    (sample,) = ade20k(ade_tree(tmp_path, [[0, 151, 200]]))
    with pytest.raises(InputError, match=r"1\.png: a pixel has the label 200, but there are 150 classes"):
        _ = sample.expressions


def test_a_picture_in_colour_is_no_label_map(tmp_path):
    root = ade_tree(tmp_path, [[0]])
    Image.new("RGB", (3, 2)).save(root / "ade20k/annotations/training/1.png")
    with pytest.raises(InputError, match=r"uint8 of shape \(2, 3, 3\); wanted one 8-bit label per pixel"):
        _ = ade20k(root)[0].size


def test_an_image_without_classes_has_nothing_to_ask_for(tmp_path):
    (sample,) = ade20k(ade_tree(tmp_path, [[0, 255]]))
    assert sample.expressions == ()
    assert sample.ignored().all()
    assert not sample.truth.mask(()).any()


def test_label_maps_are_listed_and_not_opened(tmp_path):
    root = ade_tree(tmp_path, [[1]])
    for name in ("0.png", "2.png"):
        (root / "ade20k/annotations/training" / name).write_text("no picture")
    found = ade20k(root)
    assert [found[index].name for index in range(len(found))] == ["0", "1", "2"]
    with pytest.raises(InputError, match=r"2\.png: not a readable label map"):
        found[2].ignored()


def test_every_root_of_ade20k_that_projects_use_will_do(tmp_path):
    root = ade_tree(tmp_path / "lisa", [[1]])
    (tmp_path / "glamm/Semantic_Segm").mkdir(parents=True)
    (tmp_path / "glamm/Semantic_Segm/ade20k").symlink_to(root / "ade20k")
    (tmp_path / "official").mkdir()
    (tmp_path / "official/ADEChallengeData2016").symlink_to(root / "ade20k")
    for place in (root, root / "ade20k", tmp_path / "glamm", tmp_path / "official"):
        assert len(ade20k(place)) == 1
    with pytest.raises(InputError, match="images/validation: no such folder; wanted ADE20K there"):
        ade20k(root, "validation")


# COCO-Stuff


@pytest.mark.parametrize(("part", "split"), [("train", "train2017"), ("valid", "val2017")])
def test_coco_stuff_comes_back_as_it_was_written(dataset, part, split):
    found = coco_stuff(dataset, split)
    assert len(found) == len(CASES[part])
    for sample, case in zip(found, CASES[part], strict=True):
        ground = STUFF[str(case.scene.background["texture"])].replace("sky-other", "sky")
        wanted = things(case)
        empty = case.clip.ids[0] == 0
        np.testing.assert_array_equal(sample.ignored(), empty & ("-" in ground))
        assert_same(masks(sample), wanted if "-" in ground else {**wanted, ground: empty})
        assert sample.frame().shape[:2] == sample.size


def test_coco_stuff_values_are_ids_less_one(tmp_path):
    # labels.txt: 1 person, 18 dog, 182 wood; 255 is unlabelled
    (sample,) = coco_stuff(stuff_tree(tmp_path, [[0, 17, 181, 255]]))
    assert [said.text for said in sample.expressions] == ["person", "dog", "wood"]
    assert sample.ignored().tolist() == [[False, False, False, True]]


def test_coco_stuff_names_with_a_hyphen_are_ignored_but_for_the_sky(tmp_path):
    assert (len(COCO_STUFF), len(set(COCO_STUFF))) == (182, 182)
    (sample,) = coco_stuff(stuff_tree(tmp_path, [list(range(182))]))
    assert len(sample.expressions) == 182 - 28
    assert int(sample.ignored().sum()) == 28
    named = {said.text: said.id for said in sample.expressions}
    assert named["sky"] == "156"
    assert not {"building-other", "wall-brick", "water-other", "sky-other"} & named.keys()
    # the whole of labels.txt, written as there, changes nothing
    rows = [f"{place}: {name}" for place, name in enumerate(("unlabeled", *COCO_STUFF))]
    (tmp_path / "cocostuff/labels.txt").write_text("\n".join(rows) + "\n")
    assert coco_stuff(tmp_path)[0].expressions == sample.expressions


def test_a_damaged_list_of_coco_stuff_is_refused(tmp_path):
    root = stuff_tree(tmp_path, [[0]])
    (root / "cocostuff/labels.txt").write_text("1: person\n2: bicycle\n")
    with pytest.raises(InputError, match=r'labels\.txt: wanted rows "0: unlabeled"'):
        coco_stuff(root)


def test_pictures_of_coco_are_not_taken_for_label_maps(tmp_path):
    (tmp_path / "train2017").mkdir()
    (tmp_path / "train2017/1.jpg").touch()
    with pytest.raises(InputError, match=r"no coco-stuff here; wanted train2017/\*\.png or "):
        coco_stuff(tmp_path)
    label_map(tmp_path / "cocostuff/train2017", [[0]])
    assert coco_stuff(tmp_path)[0].image == tmp_path / "train2017/1.jpg"


# Mapillary Vistas


@pytest.mark.parametrize(("part", "split"), [("train", "training"), ("valid", "validation")])
def test_mapillary_comes_back_as_it_was_written(dataset, part, split):
    found = mapillary(dataset, split)
    by_name = {case.clip.name: case for case in CASES[part]}
    assert (len(found), len(found.names), found.names[-1]) == (len(by_name), 65, "unlabeled")
    for sample in found:
        case = by_name[sample.name]
        assert_same(masks(sample), things(case))
        np.testing.assert_array_equal(sample.ignored(), case.clip.ids[0] == 0)


def test_mapillary_wants_version_2(tmp_path):
    (tmp_path / "mapillary").mkdir()
    (tmp_path / "mapillary/config_v1.2.json").write_text("{}")
    with pytest.raises(InputError, match=r"no mapillary here; wanted config_v2\.0\.json in it"):
        mapillary(tmp_path)
    (tmp_path / "mapillary/config_v2.0.json").write_text('{"labels": [{"name": "a"}]}')
    with pytest.raises(InputError, match="wanted labels, each with name and readable"):
        mapillary(tmp_path)
    (tmp_path / "mapillary/config_v2.0.json").write_text('{"labels": [{"name": "a", "readable": "A"}]}')
    with pytest.raises(InputError, match=r"training/images: no such folder"):
        mapillary(tmp_path)


# Parts


def parts_of(case) -> dict[str, np.ndarray]:
    """What each part covers, the parts of all things of a category joined."""
    found: dict[str, np.ndarray] = {}
    for thing, part, mask in part_masks(case):
        name = f"{thing} {part}"
        found[name] = mask | found.get(name, False)
    return found


def joined(sample) -> dict[str, np.ndarray]:
    return {said.text: sample.mask(said) for said in one_of_each_text(sample.expressions)}


@pytest.mark.parametrize(("part", "split"), [("train", "train"), ("valid", "val")])
def test_paco_comes_back_as_it_was_written(dataset, part, split):
    found = paco_lvis(dataset, split)
    assert len(found) == len(CASES[part])
    for sample, case in zip(found, CASES[part], strict=True):
        assert_same(joined(sample), {**things(case), **parts_of(case)})
        assert not sample.ignored().any()
        assert sample.frame().shape[:2] == sample.size == case.clip.ids.shape[1:]


@pytest.mark.parametrize(("part", "split"), [("train", "train"), ("valid", "val")])
def test_pascal_part_comes_back_as_it_was_written(dataset, part, split):
    found = pascal_part(dataset, split)
    for sample, case in zip(found, CASES[part], strict=True):
        assert_same(joined(sample), parts_of(case))
        assert sample.frame().shape[:2] == sample.size
    assert any(sample.expressions for sample in found)


@pytest.mark.parametrize(("part", "split"), [("train", "train"), ("valid", "val")])
def test_part_imagenet_comes_back_as_it_was_written(dataset, part, split):
    for sample, case in zip(part_imagenet(dataset, split), CASES[part], strict=True):
        wanted: dict[str, np.ndarray] = {}
        for thing, part_name, mask in part_masks(case):
            name = f"{thing.split()[0]} {part_name}"
            wanted[name] = mask | wanted.get(name, False)
        assert_same(joined(sample), wanted)
        assert sample.frame().shape[:2] == sample.size


def test_a_part_is_a_band_of_its_thing():
    scene = CASES["train"][0].scene
    ids = np.zeros((1, 8, 8), np.uint8)
    ids[0, 2:8, 1:5] = scene.actors[0].id
    for category, bands in (("zebra", [8, 8, 8]), ("dog", [24]), ("soccer ball", [])):
        actor = replace(scene.actors[0], category=category)
        case = CASES["train"][0]
        case = replace(case, scene=replace(scene, actors=(actor,)), clip=replace(case.clip, ids=ids))
        found = part_masks(case)
        assert [name for _, name, _ in found] == list(BY_NAME[category].parts)
        assert [int(mask.sum()) for _, _, mask in found] == bands


def coco_file(path: Path, categories: list[dict], file_name: str = "1.jpg") -> Path:
    """One image of 4 x 4 with an annotation of each category: pixel k of the first row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    annotations = [
        {"id": 10 + k, "image_id": 7, "category_id": one["id"], "segmentation": [[k, 0, k + 1, 0, k + 1, 1, k, 1]]}
        for k, one in enumerate(categories)
    ]
    images = [
        {"id": 7, "file_name": file_name, "height": 4, "width": 4},
        {"id": 8, "file_name": "2.jpg", "height": 4, "width": 4},
    ]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def test_names_of_paco_lose_their_explanation_and_underscores(tmp_path):
    names = ["trash_can", "dog_(animal)", "can:pull_tab", "bowl_(dish):inner_side_(wall)"]
    coco_file(
        tmp_path / "vlpart/paco/annotations/paco_lvis_v1_train.json",
        [{"id": k, "name": name} for k, name in enumerate(names)],
        "train2017/1.jpg",
    )
    (tmp_path / "coco/train2017").mkdir(parents=True)
    (tmp_path / "coco/train2017/1.jpg").touch()
    first, second = paco_lvis(tmp_path)
    assert [said.text for said in first.expressions] == ["trash can", "dog", "can pull tab", "bowl inner side"]
    assert first.expressions[2].tags == {"object": "can", "part": "pull tab"}
    assert [np.flatnonzero(first.mask(said)).tolist() for said in first.expressions] == [[0], [1], [2], [3]]
    assert first.image == tmp_path / "coco/train2017/1.jpg"
    assert (second.name, second.expressions, second.size) == ("2", (), (4, 4))


def test_a_part_is_said_in_two_ways_and_a_whole_in_one():
    leg = Expression("1", "dog leg", ("1",), {"object": "dog", "part": "leg"})
    whole = Expression("2", "dog", ("2",), {"object": "dog", "part": ""})
    assert wordings(leg) == ("dog leg", "the leg of the dog")
    assert wordings(whole) == ("dog",)
    assert wordings(Expression("0", "wall", ("0",))) == ("wall",)


def test_expressions_of_equal_text_are_joined(tmp_path):
    categories = [{"id": 1, "name": "dog:leg"}, {"id": 2, "name": "dog:head"}, {"id": 3, "name": "dog:leg"}]
    coco_file(tmp_path / "vlpart/pascal_part/train.json", categories)
    (tmp_path / "vlpart/pascal_part/VOCdevkit/VOC2010/JPEGImages").mkdir(parents=True)
    sample = pascal_part(tmp_path)[0]
    assert [said.text for said in sample.expressions] == ["dog leg", "dog head", "dog leg"]
    legs, head = one_of_each_text(sample.expressions)
    assert (legs.text, legs.objects, head.objects) == ("dog leg", ("10", "12"), ("11",))
    assert np.flatnonzero(sample.mask(legs)).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("annotations", "picture"),
    [
        ("annotations/train/train.json", "images/train/n01_5.JPEG"),
        ("train.json", "train/n01/n01_5.JPEG"),
        ("train_format.json", "images/train/n01/n01_5.JPEG"),
    ],
)
def test_both_layouts_of_part_imagenet_are_read(tmp_path, annotations, picture):
    root = tmp_path / "PartImageNet"
    categories = [
        {"id": 0, "name": "Car Side Mirror", "supercategory": "Car"},
        {"id": 1, "name": "Bicycle Tier", "supercategory": "Bicycle"},
    ]
    coco_file(root / annotations, categories, "n01_5.JPEG")
    (root / picture).parent.mkdir(parents=True)
    (root / picture).touch()
    sample = part_imagenet(tmp_path)[0]
    assert sample.image == root / picture
    # "tier" is how the data set spells tire
    assert [said.text for said in sample.expressions] == ["car side mirror", "bicycle tire"]


def test_a_missing_part_set_says_what_was_looked_for(tmp_path):
    for read, said in (
        (paco_lvis, r"annotations/paco_lvis_v1_\*\.json .* called vlpart/paco"),
        (pascal_part, "VOCdevkit/VOC2010/JPEGImages .* called vlpart/pascal_part"),
        (part_imagenet, "annotations/train/train.json .* called vlpart/partimagenet, PartImageNet"),
    ):
        with pytest.raises(InputError, match=f"wanted {said}.*; give the folder that holds them"):
            read(tmp_path)


def test_a_file_that_is_no_coco_annotation_is_refused(tmp_path):
    file = tmp_path / "vlpart/pascal_part/train.json"
    (tmp_path / "vlpart/pascal_part/VOCdevkit/VOC2010/JPEGImages").mkdir(parents=True)
    with pytest.raises(InputError, match=r"train\.json: missing; .* holds VOCdevkit; unpack it there"):
        pascal_part(tmp_path)
    for text in ('{"images": []}', "[]", '{"images": [{}], "annotations": [], "categories": []}'):
        file.write_text(text)
        with pytest.raises(InputError, match="wanted images, annotations and categories of Pascal-Part"):
            pascal_part(tmp_path)
    file.write_text('{"images": [')
    with pytest.raises(InputError, match=r"train\.json: no JSON from line 1, column 13 on"):
        pascal_part(tmp_path)


def test_a_category_that_is_not_listed_is_refused(tmp_path):
    file = coco_file(tmp_path / "vlpart/pascal_part/train.json", [{"id": 1, "name": "dog:leg"}])
    (tmp_path / "vlpart/pascal_part/VOCdevkit/VOC2010/JPEGImages").mkdir(parents=True)
    file.write_text(file.read_text().replace('"category_id": 1', '"category_id": 5'))
    with pytest.raises(InputError, match="image 0 and its annotations: KeyError"):
        _ = pascal_part(tmp_path)[0]


# What a trainer needs of all of them


def all_sets(root: Path) -> list[ImageSet]:
    return [ade20k(root), coco_stuff(root), mapillary(root), paco_lvis(root), pascal_part(root), part_imagenet(root)]


def test_sets_travel_to_worker_processes(dataset):
    for found in all_sets(dataset):
        copy = pickle.loads(pickle.dumps(found))
        assert len(copy) == len(found)
        assert copy[0].expressions == found[0].expressions
        assert [sample.name for sample in copy] == [sample.name for sample in found]


def test_a_sample_is_made_anew_so_that_no_label_map_stays_in_memory(dataset):
    found = ade20k(dataset)
    assert isinstance(found[0].truth, LabelMap)
    assert found[0].truth is not found[0].truth


def test_an_unknown_part_is_refused(tmp_path):
    with pytest.raises(UsageError, match="part 'val' is unknown; take one of train, valid, test"):
        write_paco_lvis(tmp_path, CASES["train"], "val")
