"""The trees of the image sets: where LISA and its successors keep each, what shows that a folder is it, its counts.

A root may hold one set, or many side by side as LISA's ``dataset/``
does; the pictures of COCO serve several sets and have trees of their own, which no reader gives.

Counts are those of the authors' papers and repositories: ADE20K's challenge of 2016, COCO-Stuff, Mapillary Vistas v2.0,
facebookresearch/paco docs, TACJu/PartImageNet, lichengunc/refer, henghuiding/gRefCOCO (which splits as RefCOCO does),
LISA's paper; LLaVA-Instruct-150k by the length of its file.
"""

from __future__ import annotations

from collections.abc import Mapping

from trackgpt.data.trees import Tree

_IMAGES, _LABELLED = ("images", "expressions"), ("images", "annotations")
_REFER = ("refer_seg", "ref_seg", "Refer_Segm")


def _refer(name: str, parts: tuple[str, ...], published: dict[str, tuple[int | None, int | None]]) -> Tree:
    """A set of lichengunc/refer; its folder is the one that holds all of them and their pictures."""
    return Tree(name, _REFER, (f"{name}/refs(*).p",), parts, published, _IMAGES)


_COCO_TESTS = ("train", "val", "testA", "testB")

TREES: Mapping[str, Tree] = {
    tree.name: tree
    for tree in (
        Tree(
            "ade20k",
            ("ade20k", "ADEChallengeData2016", "Semantic_Segm/ade20k"),
            tuple(f"{kind}/{part}" for kind in ("annotations", "images") for part in ("training", "validation")),
            ("training", "validation"),
            {"training": (20210, None), "validation": (2000, None)},
            _IMAGES,
        ),
        Tree(
            "coco-stuff",
            ("cocostuff", "Semantic_Segm/coco_stuff", "cocostuff/stuffthingmaps", "stuffthingmaps"),
            ("train2017/*.png", "val2017/*.png"),  # pictures of COCO lie in folders of the same names
            ("train2017", "val2017"),
            {"train2017": (118287, None), "val2017": (5000, None)},
            _IMAGES,
        ),
        Tree(
            "mapillary",
            ("mapillary", "Semantic_Segm/mapillary", "mapillary-vistas"),
            ("config_v2.0.json",),
            ("training", "validation"),
            {"training": (18000, None), "validation": (2000, None)},
            _IMAGES,
        ),
        Tree(
            "paco-lvis",
            ("vlpart/paco", "paco", "Semantic_Segm/paco_lvis", "paco_lvis"),
            ("annotations/paco_lvis_v1_*.json",),
            ("train", "val", "test"),
            {"train": (45790, None), "val": (2410, None), "test": (9443, None)},
            _LABELLED,
        ),
        Tree(
            "pascal-part",
            ("vlpart/pascal_part", "pascal_part", "Semantic_Segm/pascal_part"),
            ("VOCdevkit/VOC2010/JPEGImages",),  # files called train.json are common
            ("train", "val"),
            {"train": (None, None), "val": (None, None)},
            _LABELLED,
        ),
        Tree(
            "part-imagenet",
            ("vlpart/partimagenet", "PartImageNet", "Semantic_Segm/partimagenet"),
            tuple(
                name.format(part=part)
                for part in ("train", "val", "test")
                for name in ("annotations/{part}/{part}.json", "{part}_format.json", "{part}.json")
            ),
            ("train", "val", "test"),
            {"train": (16540, None), "val": (2957, None), "test": (4598, None)},
            _LABELLED,
        ),
        _refer("refclef", ("train", "val", "testA", "testB", "testC"), {"train": (None, None), "val": (None, None)}),
        _refer(
            "refcoco",
            _COCO_TESTS,
            {"train": (16994, 120624), "val": (1500, 10834), "testA": (750, 5657), "testB": (750, 5095)},
        ),
        _refer(
            "refcoco+",
            _COCO_TESTS,
            {"train": (16992, 120191), "val": (1500, 10758), "testA": (750, 5726), "testB": (750, 4889)},
        ),
        _refer(
            "refcocog",
            ("train", "val", "test"),
            {"train": (21899, 80512), "val": (1300, 4896), "test": (2600, 9602)},
        ),
        Tree(
            "grefcoco",
            _REFER,
            ("grefcoco/grefs(*).json", "grefcoco/grefs(*).p"),
            _COCO_TESTS,
            {"train": (16994, None), "val": (1500, None), "testA": (750, None), "testB": (750, None)},
            _IMAGES,
        ),
        Tree(
            "reason-seg",
            ("reason_seg", "ReasonSeg"),
            ("train/*.jpg", "val/*.jpg", "test/*.jpg", "explanatory/train.json"),
            ("train", "val", "test"),
            {"train": (239, None), "val": (200, None), "test": (779, None)},
            _IMAGES,
        ),
        Tree(
            "llava-instruct",
            ("llava_dataset", "llava_data/LLaVA-Instruct-150K", "LLaVA-Instruct-150K"),
            ("llava_instruct_150k.json",),
            ("train",),
            {"train": (157712, None)},
            ("conversations", "questions"),
        ),
    )
}

COCO_2017 = Tree(
    "pictures of COCO 2017",
    ("coco", "coco2017", "coco/images", "llava_data/llava_images/coco"),
    ("train2017/*.jpg", "val2017/*.jpg"),
    ("train2017", "val2017"),
)
COCO_2014 = Tree(
    "pictures of COCO 2014",
    ("images/mscoco/images", "images", "coco2014", "coco"),
    ("train2014",),
    ("train2014",),
)


def captions(name: str) -> Tree:
    """RefCOCO, RefCOCO+ or RefCOCOg as ReferFormer keeps it: files in COCO's form, one phrase per entry."""
    return Tree(
        name, ("coco", *_REFER), (f"{name}/instances_{name}_*.json",), TREES[name].parts, TREES[name].published, _IMAGES
    )
