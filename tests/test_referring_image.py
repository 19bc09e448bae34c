import io
import json
import os
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.image_writers import (
    polygons_of,
    rectangles_of,
    seam,
    write_grefcoco,
    write_reason_seg,
    write_refclef,
    write_refcoco,
    write_refcoco_plus,
    write_refcocog,
)
from trackgpt.data.images import Segments, segmentation_mask
from trackgpt.data.referring_image import (
    draw_shapes,
    grefcoco,
    read_plain_pickle,
    reason_seg,
    reason_seg_explanations,
    refcoco,
)
from trackgpt.data.trees import Tree, find_tree, read_json
from trackgpt.data.videos import Expression
from trackgpt.errors import InputError, UsageError
from trackgpt.geometry.masks import encode_rle
from trackgpt.synthtrack.clips import make_case

PARTS = {"train": ("train", range(3)), "valid": ("test", range(3)), "test": ("test", range(3, 6))}
WRITERS = {
    "refclef": write_refclef,
    "refcoco": write_refcoco,
    "refcoco+": write_refcoco_plus,
    "refcocog": write_refcocog,
}


def some(part: str) -> list:
    split, seeds = PARTS[part]
    return [make_case(seed, split, frames=1, longest=96) for seed in seeds]


CASES = {part: some(part) for part in PARTS}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("dataset")
    for part in PARTS:
        for write in (*WRITERS.values(), write_grefcoco, write_reason_seg):
            write(root, CASES[part], part)
    return root


def truth(case, targets) -> np.ndarray:
    return np.isin(case.clip.ids[0], targets)


def shape(label: str, *points: tuple[float, float]) -> dict:
    return {"label": label, "points": [list(point) for point in points]}


def square(label: str, first: int, last: int) -> dict:
    return shape(label, (first, first), (last, first), (last, last), (first, last))


def write_reason(root: Path, annotation: bytes, size=(20, 10)) -> Path:
    folder = root / "ReasonSeg/val"
    folder.mkdir(parents=True)
    Image.new("RGB", size).save(folder / "0.jpg")
    (folder / "0.json").write_bytes(annotation)
    return root


# ReasonSeg


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_smaller_polygon_overwrites_a_larger_one_in_whatever_order_they_are_listed(order):
    nested = [square("target", 0, 9), square("ignore this", 2, 7), square("target", 4, 5)]
    labels = draw_shapes([nested[index] for index in order], 10, 10)
    # 10 x 10 less 6 x 6, then 6 x 6 less 2 x 2, then 2 x 2: outlines included
    assert Counter(labels.ravel().tolist()) == {1: 100 - 36 + 4, 255: 36 - 4}
    assert labels[4, 4] == 1
    assert labels[2, 2] == 255


def test_of_two_equal_polygons_the_earlier_is_seen():
    assert (draw_shapes([square("target", 0, 3), square("ignore", 0, 3)], 4, 4) == 1).all()
    assert (draw_shapes([square("ignore", 0, 3), square("target", 0, 3)], 4, 4) == 255).all()


def test_flags_are_skipped_and_every_other_label_is_the_target():
    labels = draw_shapes([square("FLAG", 0, 9), square("the dog", 0, 1), square("Ignored", 8, 9)], 10, 10)
    assert Counter(labels.ravel().tolist()) == {0: 92, 1: 4, 255: 4}


def test_corners_are_cut_to_whole_pixels_and_parts_outside_do_not_count():
    labels = draw_shapes([shape("target", (1.9, 1.9), (3.9, 1.9), (3.9, 3.9), (1.9, 3.9))], 6, 6)
    assert np.argwhere(labels).min(axis=0).tolist() == [1, 1]
    assert int(labels.sum()) == 9
    # seen, the first covers 4 pixels and the second 9, so that the first is drawn last
    labels = draw_shapes([square("ignore", -8, 1), square("target", 0, 2)], 6, 6)
    assert Counter(labels.ravel().tolist()) == {0: 27, 1: 5, 255: 4}


def test_the_outline_belongs_to_a_polygon_even_where_it_encloses_nothing():
    assert np.argwhere(draw_shapes([shape("target", (2, 1))], 4, 4)).tolist() == [[1, 2]]
    assert np.argwhere(draw_shapes([shape("target", (0, 3), (3, 3))], 4, 4)).tolist() == [[3, x] for x in range(4)]


@pytest.mark.parametrize("points", [[], [[1]], [[1, 2, 3]], "here", None, [[0, float("nan")]], [[0, 1e9], [1, 1]]])
def test_a_polygon_that_is_none_is_refused(points):
    with pytest.raises(InputError, match="shape 0 has the points"):
        draw_shapes([{"label": "target", "points": points}], 4, 4)


def test_a_shape_without_a_label_is_refused():
    with pytest.raises(InputError, match="shape 1 has the label None"):
        draw_shapes([square("target", 0, 1), {"points": [[0, 0]]}], 4, 4)


@pytest.mark.parametrize("part", PARTS)
def test_reason_seg_comes_back_as_it_was_written(dataset, part):
    samples = reason_seg(dataset, {"valid": "val"}.get(part, part))
    assert [sample.name for sample in samples] == [case.clip.name for case in CASES[part]]
    for sample, case in zip(samples, CASES[part], strict=True):
        (said,) = sample.expressions
        (meant,) = [one for one in case.expressions if one.kind == "implicit"]
        assert (said.id, said.text, said.tags["form"]) == ("0", meant.text, "sentence")
        target = truth(case, meant.targets)
        np.testing.assert_array_equal(sample.mask(said), target)
        np.testing.assert_array_equal(sample.ignored(), seam(target))
        assert sample.size == sample.frame().shape[:2] == target.shape


def test_reason_seg_opens_nothing_until_asked(dataset, tmp_path):
    folder = tmp_path / "val"
    folder.mkdir()
    for name in ("b.jpg", "a.jpg", "b.json", "a.json"):
        (folder / name).write_text("not what it is called")
    samples = reason_seg(tmp_path, "val")
    assert [sample.name for sample in samples] == ["a", "b"]
    with pytest.raises(InputError, match=r"a\.json: no JSON from line 1"):
        _ = samples[0].expressions
    with pytest.raises(InputError, match=r"a\.jpg: not a readable image"):
        _ = samples[0].size


def test_every_text_of_reason_seg_means_the_same_pixels(tmp_path):
    annotation = {"text": ["  the lamp ", "what gives light"], "is_sentence": False, "shapes": [square("target", 0, 1)]}
    (sample,) = reason_seg(write_reason(tmp_path, json.dumps(annotation).encode()), "val")
    assert [(said.text, said.tags["form"]) for said in sample.expressions] == [
        ("the lamp", "phrase"),
        ("what gives light", "phrase"),
    ]
    assert [int(sample.mask(said).sum()) for said in sample.expressions] == [4, 4]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_reason_seg_is_read_as_utf8_and_then_as_cp1252(tmp_path, encoding):
    text = '{"text": ["the café’s sign"], "is_sentence": false, "shapes": []}'
    (sample,) = reason_seg(write_reason(tmp_path, text.encode(encoding)), "val")
    assert sample.expressions[0].text == "the café’s sign"
    assert not sample.mask(sample.expressions[0]).any()


def test_a_turned_picture_has_a_turned_truth(tmp_path):
    root = write_reason(tmp_path, b'{"text": ["it"], "is_sentence": true, "shapes": []}')
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter
    Image.new("RGB", (20, 10)).save(root / "ReasonSeg/val/0.jpg", exif=exif)
    (sample,) = reason_seg(root, "val")
    assert sample.size == sample.frame().shape[:2] == (20, 10)


def test_a_picture_that_fits_only_unturned_is_given_unturned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "0.jpg", exif=exif)
    sample = reason_seg(write_reason(tmp_path / "set", b"{}"), "val")[0]
    stored = type(sample)("0", tmp_path / "0.jpg", Segments(tmp_path, (10, 20), (), {}))
    assert stored.frame().shape == (10, 20, 3)
    other = type(sample)("0", tmp_path / "0.jpg", Segments(tmp_path, (10, 21), (), {}))
    with pytest.raises(InputError, match="10 x 20 pixels; wanted 10 x 21"):
        other.frame()


def test_a_picture_without_its_json_is_named(tmp_path):
    root = write_reason(tmp_path, b"{}")
    (root / "ReasonSeg/val/0.json").rename(root / "ReasonSeg/val/1.json")
    with pytest.raises(InputError, match=r"0\.json: missing; wanted one beside each of 1 pictures"):
        reason_seg(root, "val")


def test_an_annotation_of_another_form_is_refused(tmp_path):
    (sample,) = reason_seg(write_reason(tmp_path, b'{"text": ["a"]}'), "val")
    with pytest.raises(InputError, match="wanted an object with text, is_sentence and shapes"):
        _ = sample.expressions


def test_explanations_belong_to_samples_of_train(dataset):
    explained = reason_seg_explanations(dataset)
    samples = {sample.name: sample for sample in reason_seg(dataset, "train")}
    assert explained.keys() == samples.keys()
    for name, conversation in explained.items():
        (said,) = conversation.rounds
        assert conversation.image == samples[name].image
        assert said.question == samples[name].expressions[0].text
        assert said.answer.startswith("Sure, I track the")
        assert "<TK>" not in said.answer


# RefCLEF, RefCOCO, RefCOCO+, RefCOCOg


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("part", PARTS)
def test_referring_sets_come_back_as_they_were_written(dataset, name, part):
    samples = refcoco(dataset, name, {"valid": "val"}.get(part, part))
    assert len(samples) == len(CASES[part]) == 3
    for sample, case in zip(samples, CASES[part], strict=True):
        single = [one for one in case.expressions if len(one.targets) == 1]
        assert [said.text for said in sample.expressions] == [one.text for one in single]
        categories = {actor.id: actor.category for actor in case.scene.actors}
        for said, meant in zip(sample.expressions, single, strict=True):
            np.testing.assert_array_equal(sample.mask(said), truth(case, meant.targets))
            assert said.tags["category"] == categories[meant.targets[0]]
        assert not sample.ignored().any()
        assert sample.frame().shape[:2] == sample.size == case.clip.ids.shape[1:]


def test_ids_are_unique_in_a_set(dataset):
    samples = [sample for split in ("train", "val", "test") for sample in refcoco(dataset, "refcoco", split)]
    ids = [said.id for sample in samples for said in sample.expressions]
    assert len(set(ids)) == len(ids)
    assert len({sample.name for sample in samples}) == 9


def test_tests_are_split_in_two_and_test_is_both(dataset):
    def names(split: str, name: str = "refcoco") -> list[str]:
        return [sample.name for sample in refcoco(dataset, name, split)]

    first, second, both = names("testA"), names("testB"), names("test")
    assert (len(first), len(second)) == (2, 1)
    assert sorted(first + second) == sorted(both)
    # the third picture of RefCLEF is in "testAB"
    assert (len(names("testA", "refclef")), len(names("testB", "refclef"))) == (2, 2)
    assert set(names("testA", "refclef")) & set(names("testB", "refclef")) == {names("test", "refclef")[2]}


def test_a_split_that_a_set_lacks_is_refused(dataset):
    with pytest.raises(InputError, match=r"refs\(umd\)\.p: nothing of the split 'testA'"):
        refcoco(dataset, "refcocog", "testA")


def test_an_unknown_set_is_refused(dataset):
    with pytest.raises(UsageError, match=r"refcoco, refcoco\+, refcocog"):
        refcoco(dataset, "refcoco-plus", "val")


def test_every_root_that_projects_use_will_do(dataset, tmp_path):
    def places(root: Path) -> set[Path]:
        return {sample.image.resolve() for sample in refcoco(root, "refcoco", "val")}

    wanted = places(dataset)
    assert places(dataset / "refer_seg") == wanted
    (tmp_path / "sa2va/ref_seg/coco2014").mkdir(parents=True)
    (tmp_path / "sa2va/ref_seg/refcoco").symlink_to(dataset / "refer_seg/refcoco")
    (tmp_path / "sa2va/ref_seg/coco2014/train2014").symlink_to(dataset / "refer_seg/images/mscoco/images/train2014")
    assert places(tmp_path / "sa2va") == wanted
    (tmp_path / "glamm/coco_2014").mkdir(parents=True)
    (tmp_path / "glamm/Refer_Segm").mkdir()
    (tmp_path / "glamm/Refer_Segm/refcoco").symlink_to(dataset / "refer_seg/refcoco")
    (tmp_path / "glamm/coco_2014/train2014").symlink_to(dataset / "refer_seg/images/mscoco/images/train2014")
    assert places(tmp_path / "glamm") == wanted


def test_the_captions_of_referformer_are_read(tmp_path):
    folder = tmp_path / "coco"
    (folder / "refcoco").mkdir(parents=True)
    (folder / "train2014").mkdir()
    entry = {"file_name": "COCO_train2014_000000000009.jpg", "height": 4, "width": 6}
    images = [{**entry, "id": 0, "caption": "left one "}, {**entry, "id": 1, "caption": "right one"}]
    polygons = [[[0, 0, 2, 0, 2, 2, 0, 2]], [[4, 0, 6, 0, 6, 1, 4, 1]]]
    annotations = [{"id": 7 + k, "image_id": k, "segmentation": polygon} for k, polygon in enumerate(polygons)]
    (folder / "refcoco/instances_refcoco_val.json").write_text(
        json.dumps({"images": images, "annotations": annotations})
    )
    (sample,) = refcoco(tmp_path, "refcoco", "val")
    assert sample.image == folder / "train2014/COCO_train2014_000000000009.jpg"
    assert [(said.text, int(sample.mask(said).sum())) for said in sample.expressions] == [
        ("left one", 4),
        ("right one", 2),
    ]


def test_a_missing_set_says_what_was_looked_for(tmp_path):
    with pytest.raises(
        InputError, match=r"no refcoco here; wanted refcoco/refs\(\*\)\.p in it, .* called refer_seg, ref_seg"
    ):
        refcoco(tmp_path, "refcoco", "val")
    with pytest.raises(InputError, match="no such folder"):
        refcoco(tmp_path / "nowhere", "refcoco", "val")


def test_missing_pictures_of_coco_are_said_at_once(dataset, tmp_path):
    (tmp_path / "refer_seg").mkdir()
    (tmp_path / "refer_seg/refcoco").symlink_to(dataset / "refer_seg/refcoco")
    with pytest.raises(
        InputError, match="no pictures of COCO 2014 here; wanted train2014 in it, .* called images/mscoco/images"
    ):
        refcoco(tmp_path, "refcoco", "val")


def test_files_of_two_releases_are_told(dataset, tmp_path):
    folder = tmp_path / "refer_seg"
    (folder / "refcoco").mkdir(parents=True)
    (folder / "images").symlink_to(dataset / "refer_seg/images")
    refs = (dataset / "refer_seg/refcoco/refs(unc).p").read_bytes()
    (folder / "refcoco/refs(unc).p").write_bytes(refs)
    empty = {"images": [], "annotations": [], "categories": []}
    (folder / "refcoco/instances.json").write_text(json.dumps(empty))
    with pytest.raises(InputError, match="are both files of one release"):
        refcoco(tmp_path, "refcoco", "val")


# gRefCOCO


@pytest.mark.parametrize("part", PARTS)
def test_grefcoco_has_expressions_of_one_several_and_no_objects(dataset, part):
    found = [grefcoco(dataset, split) for split in {"valid": ["val"], "test": ["testA", "testB"]}.get(part, [part])]
    samples = {sample.name: sample for group in found for sample in group}
    assert len(samples) == 3
    kinds = Counter()
    for sample, case in zip((samples[name] for name in sorted(samples)), CASES[part], strict=True):
        for said, meant in zip(sample.expressions, case.expressions, strict=True):
            assert said.text == meant.text
            assert len(said.objects) == len(meant.targets)
            np.testing.assert_array_equal(sample.mask(said), truth(case, meant.targets))
            kinds[said.tags["kind"]] += 1
            assert said.tags["kind"] == {0: "none", 1: "single"}.get(len(meant.targets), "multi")
    assert set(kinds) == {"none", "single", "multi"}


def test_crowds_do_not_count_in_grefcoco(dataset, tmp_path):
    (tmp_path / "grefcoco").mkdir()
    (tmp_path / "images").symlink_to(dataset / "refer_seg/images")
    refs = read_json(dataset / "refer_seg/grefcoco/grefs(unc).json")
    book = read_json(dataset / "refer_seg/grefcoco/instances.json")
    several = next(ref for ref in refs if len(ref["ann_id"]) == 2)
    next(one for one in book["annotations"] if one["id"] == several["ann_id"][0])["iscrowd"] = 1
    (tmp_path / "grefcoco/grefs(unc).json").write_text(json.dumps([several]))
    (tmp_path / "grefcoco/instances.json").write_text(json.dumps(book))
    (sample,) = grefcoco(tmp_path, several["split"])
    assert sample.expressions[0].objects == (str(several["ann_id"][1]),)
    assert sample.expressions[0].tags["kind"] == "single"


# Pickles


class Runs:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run_it(tmp_path, protocol):
    trace = tmp_path / "trace"
    file = tmp_path / "refs(unc).p"
    file.write_bytes(pickle.dumps([{"ref_id": Runs(f"touch {trace}")}], protocol))
    with pytest.raises(InputError, match=r"refused \(it asks for (posix|nt)\.system, which could run code\)"):
        read_plain_pickle(file)
    assert not trace.exists()


@pytest.mark.parametrize("value", [Counter("ab"), Path("a"), np.zeros(2), Expression("0", "a")])
def test_a_pickle_of_anything_but_plain_data_is_refused(tmp_path, value):
    (tmp_path / "a.p").write_bytes(pickle.dumps([value]))
    with pytest.raises(InputError, match="wanted a pickle of lists, dicts, numbers and text"):
        read_plain_pickle(tmp_path / "a.p")


def test_a_pickle_that_points_elsewhere_is_refused(tmp_path):
    class Pointing(pickle.Pickler):
        def persistent_id(self, obj: object) -> object:
            return "elsewhere" if obj == "x" else None

    buffer = io.BytesIO()
    Pointing(buffer).dump(["x"])
    (tmp_path / "a.p").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="objects outside the file"):
        read_plain_pickle(tmp_path / "a.p")


def test_pickles_of_python_2_are_read(tmp_path):
    # what Python 2.7 writes of [{'sent': 'caf\xe9', u'n': 3L}] with protocols 0 and 2
    old = b"(lp0\n(dp1\nS'sent'\np2\nS'caf\\xe9'\np3\nsVn\np4\nL3L\nsa."
    new = b"\x80\x02]q\x01}q\x02(U\x04sentq\x03U\x04caf\xe9q\x04X\x01\x00\x00\x00nq\x05\x8a\x01\x03ua."
    for data in (old, new):
        (tmp_path / "a.p").write_bytes(data)
        assert read_plain_pickle(tmp_path / "a.p") == [{"sent": "café", "n": 3}]


@pytest.mark.parametrize("data", [b"", b"\x80\x02]q\x00(", b"<html>not found</html>", b"\x80\x02.", b"K", b"\x8e\xff"])
def test_a_damaged_pickle_is_refused(tmp_path, data):
    (tmp_path / "a.p").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.p: refused"):
        read_plain_pickle(tmp_path / "a.p")
    with pytest.raises(InputError, match=r"b\.p: missing"):
        read_plain_pickle(tmp_path / "b.p")


# Segmentations


def test_polygons_cover_pixels_with_edges_and_overlap_once():
    one, two = [1, 1, 4, 1, 4, 3, 1, 3], [3, 2, 5, 2, 5, 4, 3, 4]
    mask = segmentation_mask([one, two], 5, 6)
    assert int(mask.sum()) == 6 + 4 - 1
    assert mask.dtype == bool
    assert mask[1, 1:4].all()
    assert not mask[0].any()


def test_a_degenerate_polygon_does_not_turn_the_others_into_boxes():
    # pycocotools takes four numbers for x, y, width and height, and every polygon that follows as well
    assert int(segmentation_mask([[0, 0, 5, 5], [1, 1, 3, 1, 3, 3, 1, 3]], 6, 6).sum()) == 4


def test_run_lengths_come_as_text_bytes_numbers_or_a_list():
    mask = np.zeros((3, 4), bool)
    mask[1:, 2] = True
    text = encode_rle(mask)
    for counts in (text, text.encode(), [7, 2, 3]):
        np.testing.assert_array_equal(segmentation_mask({"size": [3, 4], "counts": counts}, 3, 4), mask)
        np.testing.assert_array_equal(segmentation_mask([{"size": [3, 4], "counts": counts}], 3, 4), mask)
    assert not segmentation_mask([], 3, 4).any()


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        ({"size": [4, 3], "counts": "0"}, r"an image of \[4, 3\]; wanted \[3, 4\]"),
        ({"counts": [5, 5]}, "cover 10 pixels; wanted 3 x 4 = 12"),
        ({"counts": [-1, 13]}, "run lengths cover"),
        ({"counts": None}, "wanted text or numbers"),
        ({"size": [3, 4], "counts": "~~"}, "damaged"),
        ([[0, 0, 1, 1, 2]], "wanted pairs"),
        ([[0, 0, 1e7, 0, 1, 1]], "wanted pairs of finite numbers"),
        ([[0, 0, float("nan"), 0, 1, 1]], "wanted pairs of finite numbers"),
        (["ab"], "wanted numbers"),
    ],
)
def test_damaged_segmentations_are_refused(segmentation, said):
    with pytest.raises(InputError, match=said):
        segmentation_mask(segmentation, 3, 4)


def test_an_error_in_a_segmentation_names_file_and_annotation(tmp_path):
    segments = Segments(tmp_path / "instances.json", (3, 4), (), {"17": {"counts": [5]}})
    with pytest.raises(InputError, match=r"instances\.json: annotation 17: run lengths cover 5"):
        segments.mask(["17"])
    with pytest.raises(InputError, match="no annotation 18 in this image"):
        segments.mask(["18"])


def test_rectangles_cover_a_mask_exactly_holes_and_all():
    rng = np.random.default_rng(0)
    for mask in (rng.random((13, 17)) < 0.4, np.ones((4, 5), bool), np.zeros((4, 5), bool)):
        np.testing.assert_array_equal(segmentation_mask(polygons_of(mask), *mask.shape), mask)
    assert rectangles_of(np.ones((4, 5), bool)) == [(0.0, 0.0, 5.0, 4.0)]


def test_a_named_folder_comes_before_the_root_and_an_earlier_root_before_a_later(tmp_path):
    letters = Tree("letters", ("b/Some-Letters",), ("x",), ())
    (tmp_path / "outer/x").mkdir(parents=True)
    assert find_tree(letters, tmp_path / "outer") == tmp_path / "outer"
    (tmp_path / "outer/B/some_letters/x").mkdir(parents=True)
    assert find_tree(letters, tmp_path / "outer") == tmp_path / "outer/B/some_letters"
    (tmp_path / "other/x").mkdir(parents=True)
    assert find_tree(letters, tmp_path / "other", tmp_path / "outer") == tmp_path / "other"
    with pytest.raises(
        InputError, match="no letters here; wanted x in it, or in a folder below it called b/Some-Letters"
    ):
        find_tree(letters, tmp_path)
