"""Sets of classes and parts: ADE20K, COCO-Stuff, Mapillary Vistas, PACO-LVIS, Pascal-Part, PartImageNet.

Two forms. Label maps keep the class of every pixel in a PNG, opened when its image is asked for. Part sets keep all
annotations of a split in one COCO file, read whole at the start; each annotation is one expression.

Every set is read as LISA reads it (dvlab-research/LISA@3cb2d43 utils/sem_seg_dataset.py) unless its function says
otherwise; PartImageNet has no reader in LISA. An image may have nothing to ask for: LISA draws another one then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from trackgpt.data.class_names import ADE20K, COCO_STUFF
from trackgpt.data.image_trees import COCO_2017, TREES
from trackgpt.data.images import ImageSample, Segmentation, Segments
from trackgpt.data.trees import entries, find_tree, needed_folder, read_json
from trackgpt.data.videos import Expression, opened_image
from trackgpt.errors import InputError

IGNORED = 255
"""The index of pixels without a class in `LabelMap.labels`."""

_UNKNOWN = 254  # values that no label has; no set has as many as 254 classes

Named = tuple[str, str]
"""An object and its part, "" for the whole object."""


# Label maps


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Truth in a PNG of classes (`ImageTruth`): one expression for each class that some pixel has.

    Attributes:
        file: 8-bit, grey or indexed; the value of a pixel is its label.
        names: class by index; an expression's id is the index, its text the name.
        table: uint8 (256,), from a pixel's value to its index, 255 for ignored, 254 for values that no label has.
    """

    file: Path
    names: tuple[str, ...]
    table: np.ndarray

    @cached_property
    def labels(self) -> np.ndarray:
        """The index of every pixel, uint8 (height, width); 255 is ignored.

        Raises:
            InputError: the file is missing, damaged, no label map, or has a value that no label has.
        """
        values = _read_values(self.file)
        labels: np.ndarray = self.table[values]
        if (labels == _UNKNOWN).any():
            wrong = int(values[labels == _UNKNOWN].max())
            raise InputError(
                f"{self.file}: a pixel has the label {wrong}, but there are {len(self.names)} classes; "
                "is it of another version of the data set?"
            )
        return labels

    @property
    def size(self) -> tuple[int, int]:
        """See `ImageTruth.size`: that of the label map."""
        height, width = self.labels.shape
        return height, width

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """See `ImageTruth.expressions`: classes in the order of their indices."""
        found = np.flatnonzero(np.bincount(self.labels.ravel(), minlength=256)[:_UNKNOWN])
        return tuple(Expression(str(index), self.names[index], (str(index),)) for index in found)

    def mask(self, objects: Sequence[str]) -> np.ndarray:
        """See `ImageTruth.mask`; objects are class indices as text."""
        wanted = np.zeros(256, bool)
        wanted[[int(key) for key in objects]] = True
        covered: np.ndarray = wanted[self.labels]
        return covered

    def ignored(self) -> np.ndarray:
        """See `ImageTruth.ignored`: pixels without a class. LISA's loss counts them as "not this class"."""
        return self.labels == IGNORED


@dataclass(frozen=True, eq=False)
class LabelMapSet:
    """A split of a set of label maps (`ImageSet`); only file names are in memory.

    Attributes:
        name: of the set.
        names: class by index.
        table: see `LabelMap.table`.
        images: the folder of pictures, ``<stem>.jpg``.
        labels: the folder of label maps, ``<stem>.png``.
        stems: in the order of names.
    """

    name: str
    names: tuple[str, ...]
    table: np.ndarray
    images: Path
    labels: Path
    stems: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.stems)

    def __getitem__(self, index: int, /) -> ImageSample:
        stem = self.stems[index]
        truth = LabelMap(self.labels / f"{stem}.png", self.names, self.table)
        return ImageSample(stem, self.images / f"{stem}.jpg", truth)

    def __iter__(self) -> Iterator[ImageSample]:
        return (self[index] for index in range(len(self)))


def ade20k(root: Path, split: str = "training") -> LabelMapSet:
    """ADE20K as the scene parsing challenge of 2016 cuts it: 150 classes.

    Label 0 ("other") is ignored and the others are shifted: label k is class k - 1; 255 is ignored. Names are the first
    synonyms of ``objectInfo150.txt`` where it lies beside, else `class_names.ADE20K`.

    Args:
        root: LISA's ``dataset/``, or ``ade20k`` or ``ADEChallengeData2016`` itself: ``images/<split>/*.jpg`` and
            ``annotations/<split>/*.png``.
        split: "training" (20,210 images) or "validation" (2,000).

    Returns:
        One sample a label map; nothing but folders and the names is read.

    Raises:
        InputError: folders or label maps are missing, or the file of names is damaged.
    """
    folder = find_tree(TREES["ade20k"], root)
    file = folder / "objectInfo150.txt"
    names = _ade_names(file) if file.exists() else ADE20K
    table = _table({value: value - 1 for value in range(1, len(names) + 1)}, ignored=(0, 255))
    return _label_maps("ADE20K", names, table, folder / "images" / split, folder / "annotations" / split)


def coco_stuff(root: Path, split: str = "train2017") -> LabelMapSet:
    """COCO-Stuff: things and stuff of COCO 2017, ``stuffthingmaps_trainval2017``.

    The value of a pixel is the id in ``labels.txt`` less one; 255 is unlabelled. Classes whose name has a hyphen
    ("wall-brick", "plant-other": 28 of 182) are ignored, but for "sky-other", which LISA's list calls "sky". Eleven
    names of the list ("street sign", "hat", ...) never occur.

    Args:
        root: LISA's ``dataset/``: ``cocostuff/<split>/*.png``, with ``labels.txt`` beside ``<split>`` or without, and
            pictures in ``coco/<split>/*.jpg``.
        split: "train2017" (118,287 images) or "val2017" (5,000).

    Returns:
        One sample a label map; nothing but folders and the names is read.

    Raises:
        InputError: folders or label maps are missing, or the file of names is damaged.
    """
    folder = find_tree(TREES["coco-stuff"], root)
    file = folder / "labels.txt"
    names = _stuff_names(file) if file.exists() else COCO_STUFF
    names = tuple("sky" if name == "sky-other" else name for name in names)
    skipped = {value for value, name in enumerate(names) if "-" in name}
    table = _table({value: value for value in range(len(names)) if value not in skipped}, ignored=(255, *skipped))
    images = find_tree(COCO_2017, root) / split
    return _label_maps("COCO-Stuff", names, table, images, folder / split)


def mapillary(root: Path, split: str = "training") -> LabelMapSet:
    """Mapillary Vistas v2.0: streets, 124 classes, whose names ``config_v2.0.json`` holds ("readable", lowered).

    "void--unlabeled" is ignored; LISA asks for "unlabeled" as for any other class. 255 is ignored.

    Args:
        root: LISA's ``dataset/`` or ``mapillary`` itself: ``config_v2.0.json``, ``<split>/images/*.jpg`` and
            ``<split>/v2.0/labels/*.png``. Version 1.2 has other labels and does not do.
        split: "training" (18,000 images) or "validation" (2,000).

    Returns:
        One sample a label map; nothing but folders and the names is read.

    Raises:
        InputError: folders, label maps or the configuration are missing or damaged.
    """
    folder = find_tree(TREES["mapillary"], root)
    file = folder / "config_v2.0.json"
    try:
        labels = read_json(file)["labels"]
        names = tuple(str(label["readable"]).lower() for label in labels)
        void = {value for value, label in enumerate(labels) if label["name"] == "void--unlabeled"}
    except (KeyError, TypeError) as error:
        raise InputError(f"{file}: {error!r}; wanted labels, each with name and readable") from error
    table = _table({value: value for value in range(len(names)) if value not in void}, ignored=(255, *void))
    return _label_maps("Mapillary Vistas", names, table, folder / split / "images", folder / split / "v2.0/labels")


def _read_values(file: Path) -> np.ndarray:
    """The pixels of a label map, uint8 (height, width)."""
    with opened_image(file, "label map") as image:
        values = np.asarray(image)
    if values.ndim != 2 or values.dtype != np.uint8:
        raise InputError(f"{file}: {values.dtype} of shape {values.shape}; wanted one 8-bit label per pixel")
    return values


def _table(indices: Mapping[int, int], ignored: Sequence[int]) -> np.ndarray:
    """From a pixel's value to its index: uint8 (256,)."""
    table = np.full(256, _UNKNOWN, np.uint8)
    table[list(ignored)] = IGNORED
    for value, index in indices.items():
        table[value] = index
    table.setflags(write=False)
    return table


def _label_maps(name: str, names: tuple[str, ...], table: np.ndarray, images: Path, labels: Path) -> LabelMapSet:
    """The set of the label maps in a folder."""
    if len(names) >= _UNKNOWN:
        raise InputError(f"{labels}: {len(names)} classes; wanted fewer than {_UNKNOWN}, as 8 bits can tell apart")
    for folder in (images, labels):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; wanted {name} there; unpack it, or name the folder above it")
    stems = [path.stem for path in entries(labels, "*.png")]
    if not stems:
        raise InputError(f"{labels}: no *.png; wanted the label maps of {name}; unpack them there")
    return LabelMapSet(name, names, table, images, labels, tuple(stems))


def _ade_names(file: Path) -> tuple[str, ...]:
    """First synonyms of ``objectInfo150.txt``: tab-separated, a header, the label first and the synonyms last."""
    rows = [line.split("\t") for line in file.read_text("utf-8", errors="replace").splitlines()[1:] if line.strip()]
    names = tuple(re.split("[,;]", row[-1])[0].strip() for row in rows)
    if not names or [row[0].strip() for row in rows] != [str(label) for label in range(1, len(rows) + 1)]:
        raise InputError(f"{file}: wanted rows 1, 2, ... of tab-separated values, the names last")
    return names


def _stuff_names(file: Path) -> tuple[str, ...]:
    """Names of ``labels.txt``, "id: name" with ids 0 ("unlabeled"), 1, ..., without the first."""
    rows = [line.split(": ", 1) for line in file.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    if len(rows) < 2 or [row[0] for row in rows] != [str(label) for label in range(len(rows))]:
        raise InputError(f'{file}: wanted rows "0: unlabeled", "1: person", ...')
    return tuple(row[-1].strip() for row in rows[1:])


# Parts


@dataclass(frozen=True, eq=False)
class PartSet:
    """A split of a part set (`ImageSet`); its annotations are in memory, still packed.

    Attributes:
        name: of the set.
        file: the annotations.
        names: object and part by category id.
        images: entries of the file, in its order.
        annotations: those of each image id, in the order of the file.
        pictures: the folder that the entries' `file_name` starts from.
    """

    name: str
    file: Path
    names: Mapping[Any, Named]
    images: Sequence[Mapping[str, Any]]
    annotations: Mapping[Any, Sequence[Mapping[str, Any]]]
    pictures: Path

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int, /) -> ImageSample:
        entry = self.images[index]
        try:
            found = self.annotations.get(entry["id"], ())
            said = tuple(_part_expression(str(one["id"]), self.names[one["category_id"]]) for one in found)
            masks: dict[str, Segmentation] = {str(one["id"]): one["segmentation"] for one in found}
            path = _picture(self.pictures, str(entry["file_name"]))
            truth = Segments(self.file, (int(entry["height"]), int(entry["width"])), said, masks)
        except (KeyError, TypeError, ValueError, OverflowError, OSError) as error:
            raise InputError(
                f"{self.file}: image {index} and its annotations: {error!r}; wanted COCO's id, file_name, height, "
                "width, category_id and segmentation"
            ) from error
        return ImageSample(path.stem, path, truth)

    def __iter__(self) -> Iterator[ImageSample]:
        return (self[index] for index in range(len(self)))


def wordings(expression: Expression) -> tuple[str, ...]:
    """The ways to say an expression of these sets: "dog leg" and "the leg of the dog", of which LISA draws one.

    Whole objects and classes have one wording, their text.
    """
    if expression.tags.get("part"):
        return expression.text, f"the {expression.tags['part']} of the {expression.tags['object']}"
    return (expression.text,)


def paco_lvis(root: Path, split: str = "train") -> PartSet:
    """PACO-LVIS: objects of COCO 2017 and their parts.

    A category is an object ("trash_can") or an object and a part ("trash_can:lid"); what follows "_(" is left out, and
    the other underscores, which LISA keeps, become spaces.

    Args:
        root: LISA's ``dataset/``: ``vlpart/paco/annotations/paco_lvis_v1_<split>.json`` and pictures in
            ``coco/<file_name>``, whose name begins with ``train2017/`` or ``val2017/``.
        split: "train", "val" or "test".

    Returns:
        One sample an image of the file; see `wordings` and `images.one_of_each_text`.

    Raises:
        InputError: the file or the folder of pictures is missing, or the file is no COCO annotation.
    """
    file = find_tree(TREES["paco-lvis"], root) / f"annotations/paco_lvis_v1_{split}.json"
    pictures = find_tree(COCO_2017, root)
    return _part_set("PACO-LVIS", file, pictures, _colon_name)


def pascal_part(root: Path, split: str = "train") -> PartSet:
    """Pascal-Part as VLPart's ``pascal_part_mat2json.py`` writes it: 93 parts ("dog:paw") of 15 objects of VOC 2010.

    Args:
        root: LISA's ``dataset/``: ``vlpart/pascal_part/<split>.json`` and pictures in
            ``vlpart/pascal_part/VOCdevkit/VOC2010/JPEGImages``.
        split: "train" or "val": the name of the file.

    Returns:
        As `paco_lvis`.

    Raises:
        InputError: as `paco_lvis`.
    """
    folder = find_tree(TREES["pascal-part"], root)
    pictures = folder / "VOCdevkit/VOC2010/JPEGImages"
    return _part_set("Pascal-Part", folder / f"{split}.json", pictures, _colon_name)


def part_imagenet(root: Path, split: str = "train") -> PartSet:
    """PartImageNet: 40 parts ("Quadruped Head") of 11 groups of ImageNet's classes. LISA has no reader of it.

    The layout assumed is that of the authors' release (TACJu/PartImageNet): COCO annotations in
    ``annotations/<split>/<split>.json``, pictures in ``images/<split>/``. Its older one does as well: ``<split>.json``
    (or VLPart's ``<split>_format.json``) and ``<split>/<synset>/``. The first word of a category, which is its
    `supercategory`, is the object, the rest the part, both lowered; "tier" is read as the tire that is meant.

    Args:
        root: a folder with ``PartImageNet`` or ``partimagenet``, LISA's ``dataset/`` with ``vlpart/partimagenet``, or
            the set's own folder.
        split: "train" (16,540 images), "val" (2,957) or "test" (4,598).

    Returns:
        As `paco_lvis`.

    Raises:
        InputError: as `paco_lvis`.
    """
    folder = find_tree(TREES["part-imagenet"], root)
    names = (f"annotations/{split}/{split}.json", f"{split}_format.json", f"{split}.json")
    file = next((folder / name for name in names if (folder / name).exists()), folder / names[0])
    older = folder / split
    pictures = older if older.is_dir() else needed_folder(folder / "images" / split, f"the pictures of {split}")
    return _part_set("PartImageNet", file, pictures, _group_name)


def _picture(folder: Path, name: str) -> Path:
    """A picture by the name in its annotation; ImageNet's may lie in a folder for each synset."""
    flat = folder / name
    nested = folder / name.split("_")[0] / name
    return nested if not flat.exists() and nested.exists() else flat


def _part_set(name: str, file: Path, pictures: Path, named: Callable[[Mapping[str, Any]], Named]) -> PartSet:
    """Reads a COCO annotation; `named` takes a category apart."""
    found = read_json(file)
    annotations: dict[Any, list[Mapping[str, Any]]] = {}
    try:
        names = {category["id"]: named(category) for category in found["categories"]}
        for one in found["annotations"]:
            kept = {key: one[key] for key in ("id", "category_id", "segmentation")}
            annotations.setdefault(one["image_id"], []).append(kept)
        images = [{key: one[key] for key in ("id", "file_name", "height", "width")} for one in found["images"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{file}: {error!r}; wanted images, annotations and categories of {name}, as in COCO"
        ) from error
    return PartSet(name, file, names, images, annotations, pictures)


def _colon_name(category: Mapping[str, Any]) -> Named:
    """Object and part of "trash_can:lid" (trash can, lid) or "dog_(animal)" (dog, no part)."""
    thing, _, part = str(category["name"]).strip().partition(":")
    return _plain(thing), _plain(part)


def _group_name(category: Mapping[str, Any]) -> Named:
    """Object and part of "Car Side Mirror" (car, side mirror)."""
    thing, _, part = str(category["name"]).strip().lower().partition(" ")
    return thing, "tire" if part == "tier" else part


def _plain(name: str) -> str:
    return name.split("_(")[0].replace("_", " ").strip()


def _part_expression(key: str, named: Named) -> Expression:
    """One annotation as an expression, with object and part as tags."""
    thing, part = named
    return Expression(key, f"{thing} {part}".strip(), (key,), {"object": thing, "part": part})
