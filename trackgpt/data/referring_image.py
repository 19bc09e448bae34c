"""Referring image sets: ReasonSeg, RefCLEF, RefCOCO, RefCOCO+, RefCOCOg, gRefCOCO, as LISA and its successors lay them.

Annotations of a split are read whole (they are one file); pictures, polygons and run lengths of an image are read when
asked for, but for ReasonSeg, which keeps one file per image and reads even the text then. Expressions are kept as
written, stripped; LISA lowers them when it fills its question.

Sources: dvlab-research/LISA@3cb2d43 utils/{data_processing,reason_seg_dataset,refer,refer_seg_dataset,grefer}.py,
lichengunc/refer@e3bbaa3, henghuiding/gRefCOCO, wjn922/ReferFormer@06fc218 datasets/refexp.py.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from trackgpt.data.image_trees import COCO_2014, TREES, captions
from trackgpt.data.images import Conversation, ImageSample, Round, Segmentation, Segments, image_size
from trackgpt.data.trees import entries, find_tree, look_for_tree, needed_folder, plain_name, read_json
from trackgpt.data.videos import Expression, answered
from trackgpt.errors import InputError, UsageError

ReferSet = Literal["refclef", "refcoco", "refcoco+", "refcocog"]

SPLIT_BY: Mapping[str, str] = {"refclef": "unc", "refcoco": "unc", "refcoco+": "unc", "refcocog": "umd"}
"""Who cut each set into splits, as LISA takes them: part of the name of the file, "refs(unc).p"."""

IGNORED = 255
"""The value of ReasonSeg's ignored pixels in `draw_shapes`."""

_TARGET = "target"
_FARTHEST = 1e5  # pixels; OpenCV draws in fixed point, which wild corners overflow


# ReasonSeg


@dataclass(frozen=True)
class ReasonSegTruth:
    """Truth in a ReasonSeg file (`ImageTruth`): every text of an image means the same pixels.

    Attributes:
        file: the JSON beside the image: {"text": [...], "is_sentence": bool, "shapes": [{"label", "points"}]}.
        image: the picture, whose size the masks have.
    """

    file: Path
    image: Path

    @cached_property
    def annotation(self) -> dict[str, Any]:
        """What the file says; utf-8, else cp1252.

        Raises:
            InputError: the file is missing, damaged, or lacks a field.
        """
        found = read_json(self.file, ("utf-8-sig", "cp1252"))
        if not isinstance(found, dict) or not {"text", "is_sentence", "shapes"} <= found.keys():
            raise InputError(f"{self.file}: wanted an object with text, is_sentence and shapes, as ReasonSeg has them")
        return found

    @cached_property
    def size(self) -> tuple[int, int]:
        """See `ImageTruth.size`: that of the picture."""
        return image_size(self.image)

    @cached_property
    def labels(self) -> np.ndarray:
        """uint8 (height, width) of `draw_shapes`.

        Raises:
            InputError: the picture or the annotation is missing or damaged.
        """
        try:
            return draw_shapes(self.annotation["shapes"], *self.size)
        except InputError as error:
            raise InputError(f"{self.file}: {error}") from error

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """See `ImageTruth.expressions`; the tag "form" is "sentence" or "phrase". LISA scores the first one alone."""
        texts = self.annotation["text"]
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise InputError(f"{self.file}: text is {str(texts)[:30]!r}; wanted a list of strings")
        tags = {"form": "sentence" if self.annotation["is_sentence"] else "phrase"}
        return tuple(Expression(str(index), text.strip(), (_TARGET,), tags) for index, text in enumerate(texts))

    def mask(self, objects: Sequence[str]) -> np.ndarray:
        """See `ImageTruth.mask`; the only object is "target"."""
        return self.labels == 1 if _TARGET in objects else np.zeros(self.size, bool)

    def ignored(self) -> np.ndarray:
        """See `ImageTruth.ignored`: what the shapes labelled "ignore" cover."""
        return self.labels == IGNORED


def draw_shapes(shapes: Iterable[Mapping[str, Any]], height: int, width: int) -> np.ndarray:
    """ReasonSeg's polygons as a label map, drawn the largest first, so that a smaller one overwrites it.

    A shape covers its inside and its outline; corners are cut to whole pixels. Its area is what it covers of the image.
    Of two equal ones the earlier wins. "flag" in any case is skipped; a label that contains "ignore" is ignored;
    everything else is the target.

    Args:
        shapes: {"label": text, "points": [[x, y], ...]} in pixels, a pixel's centre at whole numbers.
        height: rows of the picture.
        width: columns of the picture.

    Returns:
        uint8 (height, width): 1 target, 255 ignored, 0 everything else.

    Raises:
        InputError: a shape lacks its label or has points that are no pairs of numbers.
    """
    drawn: list[tuple[int, np.ndarray, int]] = []
    for index, shape in enumerate(shapes):
        label = shape.get("label") if isinstance(shape, Mapping) else None
        if not isinstance(label, str):
            raise InputError(f"shape {index} has the label {label!r}; wanted text, such as target, ignore or flag")
        if label.lower() == "flag":
            continue
        corners = _corners(shape.get("points"), index)
        value = IGNORED if "ignore" in label.lower() else 1
        cover = cv2.fillPoly(np.zeros((height, width), np.uint8), [corners], color=1)
        drawn.append((int(np.count_nonzero(cover)), corners, value))
    labels = np.zeros((height, width), np.uint8)
    for place in np.argsort([area for area, _, _ in drawn], kind="stable")[::-1]:
        _, corners, value = drawn[place]
        cv2.fillPoly(labels, [corners], color=value)  # the outline included, so that LISA's second pass adds nothing
    return labels


def _corners(points: Any, index: int) -> np.ndarray:
    """The corners of a shape, int32 (n, 2)."""
    try:
        corners = np.asarray(points, np.float64)
    except (TypeError, ValueError):
        corners = np.zeros(0)
    if corners.ndim != 2 or corners.shape[1:] != (2,) or not (np.abs(corners) <= _FARTHEST).all():
        raise InputError(f"shape {index} has the points {str(points)[:30]!r}; wanted [[x, y], ...] in pixels")
    return corners.astype(np.int32)


def reason_seg(root: Path, split: str) -> tuple[ImageSample, ...]:
    """ReasonSeg: questions that must be thought about; 239 train, 200 val and 779 test images.

    Args:
        root: LISA's ``dataset/`` (with ``reason_seg/ReasonSeg``), ``ReasonSeg/`` itself, or what holds it.
        split: "train", "val" or "test": the folder of pictures and of JSON files with the same names.

    Returns:
        Samples in the order of their names. No file is opened; see `ReasonSegTruth`.

    Raises:
        InputError: there is no such folder, it has no pictures, or a picture has no JSON.
    """
    folder = needed_folder(find_tree(TREES["reason-seg"], root) / split, f"pictures and JSON files of {split}")
    present = {path.name for path in entries(folder)}
    stems = sorted(name[:-4] for name in present if name.endswith(".jpg"))
    if not stems:
        raise InputError(f"{folder}: no *.jpg; wanted the pictures of ReasonSeg, {split}; unpack {split}.zip there")
    lonely = [stem for stem in stems if f"{stem}.json" not in present]
    if lonely:
        raise InputError(f"{folder / lonely[0]}.json: missing; wanted one beside each of {len(stems)} pictures")
    return tuple(
        ImageSample(stem, folder / f"{stem}.jpg", ReasonSegTruth(folder / f"{stem}.json", image=folder / f"{stem}.jpg"))
        for stem in stems
    )


def reason_seg_explanations(root: Path) -> dict[str, Conversation]:
    """What ReasonSeg answers in words: ``explanatory/train.json``, a list of {"image", "query", "outputs"}.

    Args:
        root: as for `reason_seg`.

    Returns:
        {name of the sample in train: one round, the query and its answer}.

    Raises:
        InputError: the file is missing or has another form.
    """
    folder = find_tree(TREES["reason-seg"], root)
    file = folder / "explanatory/train.json"
    try:
        return {
            Path(item["image"]).stem: Conversation(
                Path(item["image"]).stem, folder / "train" / item["image"], (Round(item["query"], item["outputs"]),)
            )
            for item in read_json(file)
        }
    except (KeyError, TypeError) as error:
        raise InputError(f"{file}: {error!r}; wanted a list of objects with image, query and outputs") from error


# RefCLEF, RefCOCO, RefCOCO+, RefCOCOg


class _PlainUnpickler(pickle._Unpickler):
    """Reads lists, dicts, numbers and text; whatever names code is refused, so that none can run.

    It is the one in Python, three times slower: that in C makes room for as many objects as a number in the file says,
    64 GB at most.
    """

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which could run code")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to objects outside the file")


def read_plain_pickle(path: Path) -> Any:
    """The value of a pickle of plain data: lists, dicts, numbers, text. Text of Python 2 is taken for latin-1.

    Raises:
        InputError: the file is missing, cut off, no pickle, or holds anything that names code.
    """
    try:
        return _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except FileNotFoundError as error:
        raise InputError(f"{path}: missing; wanted a pickle of lists and dicts") from error
    except Exception as error:  # the documentation of pickle says that damaged data may raise anything
        wanted = "wanted a pickle of lists, dicts, numbers and text; download it again"
        raise InputError(f"{path}: refused ({error}); {wanted}") from error


def refcoco(root: Path, name: ReferSet, split: str, by: str | None = None) -> tuple[ImageSample, ...]:
    """RefCLEF, RefCOCO, RefCOCO+ or RefCOCOg: phrases that mean one object each.

    Args:
        root: LISA's ``dataset/`` (with ``refer_seg``), the folder ``refer_seg`` itself (``ref_seg`` of Sa2VA,
            ``Refer_Segm`` of GLaMM), or ReferFormer's data, which has ``coco/<name>/instances_<name>_<split>.json``.
            Pictures of COCO are looked for in ``images/mscoco/images/train2014`` and where others keep ``train2014``.
        name: which set; "refclef" has its pictures in ``images/saiapr_tc-12``.
        split: "train", "val", "testA" (people), "testB" (other things), "testC" (refclef), or "test" (every test).
        by: whose splits; None is `SPLIT_BY`. Files of ReferFormer know one alone.

    Returns:
        One sample an image that has a phrase in the split, in the order of the file. An expression is a sentence: its
        id the `sent_id`, its tags "ref" (the `ref_id`) and "category". LISA trains on three of an image's and scores
        all of them.

    Raises:
        UsageError: there is no such set.
        InputError: files are missing, damaged, refused, disagree, or hold nothing of the split.
    """
    if name not in SPLIT_BY:
        raise UsageError(f"referring set {name!r} is unknown; take one of {', '.join(SPLIT_BY)}")
    beside = look_for_tree(captions(name), root) if look_for_tree(TREES[name], root) is None else None
    if beside is not None:
        return _captioned(beside / f"{name}/instances_{name}_{split}.json", _coco_pictures(root, beside))
    folder = find_tree(TREES[name], root)
    file = folder / f"{name}/refs({by or SPLIT_BY[name]}).p"
    refs = [ref for ref in _refs(file) if _in_split(str(ref.get("split", "")), split)]
    if not refs:
        raise InputError(f"{file}: nothing of the split {split!r}; wanted train, val, testA, testB, ...")
    pictures = folder / "images/saiapr_tc-12" if name == "refclef" else _coco_pictures(root, folder)
    return _joined(refs, folder / f"{name}/instances.json", pictures)


def grefcoco(root: Path, split: str, by: str = "unc") -> tuple[ImageSample, ...]:
    """GRefCOCO: phrases that mean any number of objects, none included.

    Args:
        root: as for `refcoco`; files are ``grefcoco/grefs(unc).json`` (or ``.p``) and ``grefcoco/instances.json``.
        split: "train", "val", "testA", "testB".
        by: whose splits.

    Returns:
        As `refcoco`; the tag "kind" is "single", "multi" or "none". A phrase that means nothing (annotation id -1) has
        no objects, and its mask is empty. Crowds do not count, as in the published reader.

    Raises:
        InputError: as `refcoco`.
    """
    folder = find_tree(TREES["grefcoco"], root)
    plain = folder / f"grefcoco/grefs({by}).json"
    file = plain if plain.exists() else plain.with_suffix(".p")
    refs = [ref for ref in _refs(file) if _in_split(str(ref.get("split", "")), split)]
    if not refs:
        raise InputError(f"{file}: nothing of the split {split!r}; wanted train, val, testA or testB")
    return _joined(refs, folder / "grefcoco/instances.json", _coco_pictures(root, folder))


def _in_split(found: str, wanted: str) -> bool:
    """Whether a phrase belongs to a split; RefCLEF's may lie in two tests ("testAB")."""
    if wanted in ("testA", "testB", "testC"):
        return found.startswith("test") and wanted[-1] in found[4:]
    return found.startswith("test") if wanted == "test" else found == wanted


def _refs(file: Path) -> list[dict[str, Any]]:
    """The phrases of a set, {"ref_id", "ann_id", "image_id", "split", "sentences": [{"sent_id", "sent"}], ...}."""
    refs = read_json(file) if file.suffix == ".json" else read_plain_pickle(file)
    if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
        raise InputError(f"{file}: wanted a list of referring expressions; is it another file of the set?")
    return refs


def _coco_pictures(root: Path, folder: Path) -> Path:
    """The folder train2014 of COCO, below the set's folder or the root."""
    return find_tree(COCO_2014, folder, root) / "train2014"


def _joined(refs: list[dict[str, Any]], file: Path, pictures: Path) -> tuple[ImageSample, ...]:
    """Phrases and their objects, joined through the ids of ``instances.json``."""
    instances = read_json(file)
    by_image: dict[Any, list[dict[str, Any]]] = {}
    try:
        for ref in refs:
            by_image.setdefault(ref["image_id"], []).append(ref)
        images = {image["id"]: image for image in instances["images"]}
        named = {key for ref in refs for key in _objects(ref)}
        annotations = {one["id"]: one for one in instances["annotations"] if one["id"] in named}
        categories = {one["id"]: str(one["name"]) for one in instances["categories"]}
        return tuple(
            _sample(images[key], said, annotations, categories, file, pictures) for key, said in by_image.items()
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{file}: {error!r} not found; wanted the images and annotations that the referring expressions name; "
            "are both files of one release?"
        ) from error


def _objects(ref: Mapping[str, Any]) -> list[Any]:
    """The annotations that a phrase means; -1 stands for none."""
    keys = ref["ann_id"] if isinstance(ref["ann_id"], list) else [ref["ann_id"]]
    return [key for key in keys if key != -1]


def _sample(
    image: Mapping[str, Any],
    refs: Sequence[Mapping[str, Any]],
    annotations: Mapping[Any, Mapping[str, Any]],
    categories: Mapping[Any, str],
    file: Path,
    pictures: Path,
) -> ImageSample:
    """An image with everything that is said of it."""
    said: list[Expression] = []
    segmentations: dict[str, Segmentation] = {}
    for ref in refs:
        general = isinstance(ref["ann_id"], list)
        meant = [key for key in _objects(ref) if not (general and annotations[key].get("iscrowd"))]
        segmentations |= {str(key): annotations[key]["segmentation"] for key in meant}
        tags = {"ref": str(ref["ref_id"])}
        if general:
            tags["kind"] = "none" if not meant else "single" if len(meant) == 1 else "multi"
        elif meant:
            tags["category"] = categories.get(annotations[meant[0]].get("category_id"), "")
        said += [
            Expression(
                plain_name(str(one["sent_id"]), file),
                str(one["sent"]).strip(),
                tuple(map(str, meant)),
                tags | answered(one),
            )
            for one in ref["sentences"]
        ]
    size = (int(image["height"]), int(image["width"]))
    path = pictures / str(image["file_name"])
    return ImageSample(path.stem, path, Segments(file, size, tuple(said), segmentations))


def _captioned(file: Path, pictures: Path) -> tuple[ImageSample, ...]:
    """ReferFormer's form: COCO's, an entry of `images` a phrase, which is its `caption`."""
    found = read_json(file)
    meant: dict[Any, list[Mapping[str, Any]]] = {}
    entries: dict[str, list[Mapping[str, Any]]] = {}
    try:
        for annotation in found["annotations"]:
            meant.setdefault(annotation["image_id"], []).append(annotation)
        for entry in found["images"]:
            entries.setdefault(entry["file_name"], []).append(entry)
        samples = []
        for name, group in entries.items():
            size = (int(group[0]["height"]), int(group[0]["width"]))
            objects = {one["id"]: [str(part["id"]) for part in meant.get(one["id"], ())] for one in group}
            said = tuple(
                Expression(plain_name(str(one["id"]), file), str(one["caption"]).strip(), tuple(objects[one["id"]]))
                for one in group
            )
            masks = {str(part["id"]): part["segmentation"] for one in group for part in meant.get(one["id"], ())}
            path = pictures / name
            samples.append(ImageSample(path.stem, path, Segments(file, size, said, masks)))
        return tuple(samples)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{file}: {error!r}; wanted images with a caption and annotations, as in COCO") from error
