"""Writes the first frames of SynthTrack cases in the layouts of the image sets of stage 1: miniatures for tests.

`trackgpt/data/{segmentation,referring_image,conversations}` read them. Every function writes one part below a root
shaped like LISA's ``dataset/``, so that all of them can share one. A part is "train", "valid" or "test" and becomes
what the real set calls it; writing further parts of a set adds to its files.

Where the real set says more than SynthTrack knows, a rule stands in: a part of a thing is a band of it, the ground is
called after its texture, what is ignored is a seam around the target.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from data_tools.writers import JPEG_QUALITY, Counts, write_json
from trackgpt.data.referring_image import read_plain_pickle
from trackgpt.data.trees import read_json
from trackgpt.errors import UsageError
from trackgpt.geometry.masks import box_of, encode_rle
from trackgpt.synthtrack.catalog import BY_NAME, CATEGORIES
from trackgpt.synthtrack.clips import Case
from trackgpt.synthtrack.scene import Actor, SceneInstruction

# The textures of backgrounds as stuff; COCO-Stuff's reader skips those with a hyphen, but for the sky.
STUFF = {
    **{"meadow": "grass", "sand": "sand", "road": "road", "water": "water-other", "wood": "wood"},
    **{"brick": "wall-brick", "sky": "sky-other", "wall": "wall-other", "night": "fog", "bokeh": "light"},
    **{"fabric": "textile-other", "tiles": "floor-tile"},
}

_IDS = {category.name: place for place, category in enumerate(CATEGORIES, 1)}
_ADE = {"train": "training", "valid": "validation", "test": "validation"}
_COCO = {"train": "train2017", "valid": "val2017", "test": "val2017"}
_SHORT = {"train": "train", "valid": "val", "test": "test"}
_TRAIN2014 = "images/mscoco/images/train2014"

Mask = tuple[str, np.ndarray]
"""A category and what it covers, bool (height, width)."""


# Label maps


def write_ade20k(root: Path, cases: Iterable[Case], part: str) -> Counts:
    """ADE20K: ``ade20k/{images,annotations}/{training,validation}`` and ``objectInfo150.txt`` with SynthTrack's names.

    Label k is category k of the catalog; the ground is 0, "other".

    Args:
        root: LISA's ``dataset/``.
        cases: their first frames are written.
        part: "train", "valid" or "test"; the last two are "validation".

    Returns:
        How much was written.
    """
    folder, split, counts = root / "ade20k", _named(_ADE, part), Counts()
    for case in cases:
        _write_picture(folder / "images" / split / f"{case.clip.name}.jpg", case)
        _write_labels(folder / "annotations" / split / f"{case.clip.name}.png", _labels(case, _IDS, 0))
        counts.frames += 1
    rows = [f"{_IDS[one.name]}\t0.0100\t1\t1\t{one.name}, {one.plural}" for one in CATEGORIES]
    _write_text(folder / "objectInfo150.txt", ["Idx\tRatio\tTrain\tVal\tName", *rows])
    return counts


def write_coco_stuff(root: Path, cases: Iterable[Case], part: str) -> Counts:
    """COCO-Stuff: ``cocostuff/{train,val}2017/*.png`` with ``labels.txt``, pictures in ``coco/{train,val}2017``.

    Things have the ids of the catalog, the ground that of its texture among `STUFF`; a pixel has its id less one.

    Args:
        root: LISA's ``dataset/``.
        cases: their first frames are written.
        part: "train", "valid" or "test"; the last two are "val2017".

    Returns:
        How much was written.
    """
    split, counts = _named(_COCO, part), Counts()
    names = [*_IDS, *STUFF.values()]
    values = {name: value for value, name in enumerate(names)}
    for case in cases:
        stem = f"{_number(case):012d}"
        ground = values[STUFF[str(case.scene.background["texture"])]]
        _write_picture(root / "coco" / split / f"{stem}.jpg", case)
        _write_labels(root / "cocostuff" / split / f"{stem}.png", _labels(case, values, ground))
        counts.frames += 1
    rows = [f"{place}: {name}" for place, name in enumerate(["unlabeled", *names])]
    _write_text(root / "cocostuff/labels.txt", rows)
    return counts


def write_mapillary(root: Path, cases: Iterable[Case], part: str) -> Counts:
    """Mapillary Vistas v2.0: ``mapillary/config_v2.0.json``, ``{training,validation}/{images,v2.0/labels}``.

    Labels are the places of the catalog from 0; the ground is the last one, "void--unlabeled".

    Args:
        root: LISA's ``dataset/``.
        cases: their first frames are written.
        part: "train", "valid" or "test"; the last two are "validation".

    Returns:
        How much was written.
    """
    folder, split, counts = root / "mapillary", _named(_ADE, part), Counts()
    values = {name: place - 1 for name, place in _IDS.items()}
    for case in cases:
        _write_picture(folder / split / "images" / f"{case.clip.name}.jpg", case)
        labels = _labels(case, values, len(values))
        _write_labels(folder / split / "v2.0/labels" / f"{case.clip.name}.png", labels)
        counts.frames += 1
    groups = [(f"object--{one.group}--{one.name.replace(' ', '-')}", one.name.title()) for one in CATEGORIES]
    write_json(
        folder / "config_v2.0.json",
        {
            "labels": [
                {"name": name, "readable": readable, "evaluate": name != "void--unlabeled", "color": [0, 0, place]}
                for place, (name, readable) in enumerate([*groups, ("void--unlabeled", "Unlabeled")])
            ]
        },
    )
    return counts


def _labels(case: Case, values: dict[str, int], ground: int) -> np.ndarray:
    """The label of every pixel of the first frame, uint8 (height, width)."""
    table = np.full(256, ground, np.uint8)
    for actor in case.scene.actors:
        table[actor.id] = values[actor.category]
    labels: np.ndarray = table[case.clip.ids[0]]
    return labels


# Parts


def write_paco_lvis(root: Path, cases: Iterable[Case], part: str) -> Counts:
    """PACO-LVIS: ``vlpart/paco/annotations/paco_lvis_v1_{train,val,test}.json``, pictures in ``coco/{train,val}2017``.

    Things and their parts (`part_masks`), spelt as there: "fire_engine", "fire_engine:ladder", "dog_(animal)"; masks
    are run lengths.

    Args:
        root: LISA's ``dataset/``.
        cases: their first frames are written.
        part: "train", "valid" or "test".

    Returns:
        How much was written; an expression is an annotation.
    """
    book = CocoBook(lambda mask: {"size": list(mask.shape), "counts": encode_rle(mask)})
    file = root / f"vlpart/paco/annotations/paco_lvis_v1_{_named(_SHORT, part)}.json"
    for case in cases:
        name = f"{_named(_COCO, part)}/{_number(case):012d}.jpg"
        _write_picture(root / "coco" / name, case)
        whole = [(_paco_name(actor.category), mask) for actor, mask in _things(case)]
        parts = [(_paco_name(thing, name), mask) for thing, name, mask in part_masks(case)]
        book.add(case, name, [*whole, *parts])
    book.write(file)
    return book.counts


def write_pascal_part(root: Path, cases: Iterable[Case], part: str) -> Counts:
    """Pascal-Part after VLPart: ``vlpart/pascal_part/{train,val,test}.json`` and the pictures of VOC 2010.

    Parts alone, "dog:four legs"; masks are polygons here, run lengths there, and both are read.

    Args:
        root: LISA's ``dataset/``.
        cases: their first frames are written.
        part: "train", "valid" or "test".

    Returns:
        How much was written; an expression is an annotation.
    """
    folder, book = root / "vlpart/pascal_part", CocoBook(polygons_of)
    for case in cases:
        name = f"2010_{_number(case):06d}.jpg"
        _write_picture(folder / "VOCdevkit/VOC2010/JPEGImages" / name, case)
        book.add(case, name, [(f"{thing}:{part_name}", mask) for thing, part_name, mask in part_masks(case)])
    book.write(folder / f"{_named(_SHORT, part)}.json")
    return book.counts


def write_part_imagenet(root: Path, cases: Iterable[Case], part: str) -> Counts:
    """PartImageNet: ``PartImageNet/annotations/<split>/<split>.json`` and ``PartImageNet/images/<split>``.

    Parts alone; the group of a thing is its first word, "Fire Ladder"; masks are polygons.

    Args:
        root: a folder of data sets.
        cases: their first frames are written.
        part: "train", "valid" or "test".

    Returns:
        How much was written; an expression is an annotation.
    """
    folder, split, book = root / "PartImageNet", _named(_SHORT, part), CocoBook(polygons_of)
    for case in cases:
        name = f"n00000000_{_number(case)}.JPEG"
        _write_picture(folder / "images" / split / name, case)
        masks = [(f"{thing.split()[0]} {part_name}".title(), mask) for thing, part_name, mask in part_masks(case)]
        book.add(case, name, masks)
    book.write(folder / "annotations" / split / f"{split}.json")
    return book.counts


@dataclass
class CocoBook:
    """Gathers images and annotations in COCO's form.

    Attributes:
        pack: a mask, bool (height, width), as a COCO segmentation.
        counts: what was gathered; an expression is an annotation.
    """

    pack: Callable[[np.ndarray], Any]
    counts: Counts = field(default_factory=Counts)
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    categories: dict[str, int] = field(default_factory=dict)

    def add(self, case: Case, file_name: str, masks: Iterable[Mask]) -> None:
        """Add the first frame of a case and what is seen in it."""
        height, width = case.clip.ids.shape[1:]
        self.images.append({"id": _number(case), "file_name": file_name, "height": height, "width": width})
        self.counts.frames += 1
        for name, mask in masks:
            category = self.categories.setdefault(name, len(self.categories) + 1)
            self.annotations.append(
                _annotation(len(self.annotations) + 1, _number(case), category, mask, self.pack(mask))
            )
            self.counts.expressions += 1

    def write(self, file: Path) -> None:
        """Write the file of the annotations."""
        categories = [
            {"id": key, "name": name, "supercategory": name.split()[0]} for name, key in self.categories.items()
        ]
        write_json(file, {"images": self.images, "annotations": self.annotations, "categories": categories})


def part_masks(case: Case) -> list[tuple[str, str, np.ndarray]]:
    """The parts of what is seen in the first frame: category, part, bool (height, width).

    SynthTrack knows which parts a thing has, not where: the n parts are n bands of its box from top to bottom. A band
    in which nothing is seen is left out.
    """
    found = []
    for actor, mask in _things(case):
        names = BY_NAME[actor.category].parts
        rows = np.flatnonzero(mask.any(axis=1))
        edges = np.linspace(rows[0], rows[-1] + 1, len(names) + 1).round().astype(int)
        for name, top, bottom in zip(names, edges[:-1], edges[1:], strict=True):
            band = np.zeros_like(mask)
            band[top:bottom] = mask[top:bottom]
            if band.any():
                found.append((actor.category, name, band))
    return found


def polygons_of(mask: np.ndarray) -> list[list[float]]:
    """Polygons that cover exactly a mask, holes and all: the rectangles of `rectangles_of`, as COCO has them.

    Args:
        mask: bool (height, width).

    Returns:
        [[x, y, x, y, x, y, x, y], ...] in pixels with edges.
    """
    return [[x1, y1, x2, y1, x2, y2, x1, y2] for x1, y1, x2, y2 in rectangles_of(mask)]


def rectangles_of(mask: np.ndarray) -> list[tuple[float, float, float, float]]:
    """Rectangles xyxy with edges that together cover exactly a mask, one for equal runs of neighbouring rows."""
    done: list[tuple[float, float, float, float]] = []
    growing: dict[tuple[int, int], int] = {}
    padded = np.pad(mask.astype(np.int8), ((0, 1), (1, 1)))
    for y, row in enumerate(padded):
        change = np.diff(row)
        runs = set(zip(np.flatnonzero(change == 1).tolist(), np.flatnonzero(change == -1).tolist(), strict=True))
        for x1, x2 in sorted(growing.keys() - runs):
            done.append((float(x1), float(growing.pop((x1, x2))), float(x2), float(y)))
        for run in runs - growing.keys():
            growing[run] = y
    return done


def _paco_name(thing: str, part: str = "") -> str:
    kind = "_(animal)" if BY_NAME[thing].group == "animal" else ""
    name = thing.replace(" ", "_") + kind
    return f"{name}:{part.replace(' ', '_')}" if part else name


# Referring sets


def write_refclef(root: Path, cases: Iterable[Case], part: str) -> Counts:
    """RefCLEF: ``refer_seg/refclef``, its pictures in ``images/saiapr_tc-12``, its masks lists of run lengths.

    Args:
        root: LISA's ``dataset/``.
        cases: their first frames and their expressions with one target are written.
        part: "train", "valid" (val) or "test" (testA, testB and testAB by turns).

    Returns:
        How much was written; expressions with several targets or none are skipped.
    """
    return _write_refer(root / "refer_seg", cases, part, "refclef", _runs_list)


def write_refcoco(root: Path, cases: Iterable[Case], part: str) -> Counts:
    """RefCOCO: ``refer_seg/refcoco/{refs(unc).p,instances.json}``, pictures of COCO 2014, masks polygons.

    Args:
        root: LISA's ``dataset/``.
        cases: their first frames and their expressions with one target are written.
        part: "train", "valid" (val) or "test" (testA and testB by turns).

    Returns:
        How much was written; expressions with several targets or none are skipped.
    """
    return _write_refer(root / "refer_seg", cases, part, "refcoco", polygons_of)


def write_refcoco_plus(root: Path, cases: Iterable[Case], part: str) -> Counts:
    """RefCOCO+: as `write_refcoco`, in ``refer_seg/refcoco+``."""
    return _write_refer(root / "refer_seg", cases, part, "refcoco+", polygons_of)


def write_refcocog(root: Path, cases: Iterable[Case], part: str) -> Counts:
    """RefCOCOg: as `write_refcoco`, in ``refer_seg/refcocog``; the file is ``refs(umd).p``, its one test "test"."""
    return _write_refer(root / "refer_seg", cases, part, "refcocog", polygons_of)


def write_grefcoco(root: Path, cases: Iterable[Case], part: str) -> Counts:
    """The set gRefCOCO: ``refer_seg/grefcoco/{grefs(unc).json,instances.json}``, pictures of COCO 2014.

    Args:
        root: LISA's ``dataset/``.
        cases: their first frames and all their expressions are written; no target is the annotation -1.
        part: "train", "valid" (val) or "test" (testA and testB by turns).

    Returns:
        How much was written.
    """
    folder = root / "refer_seg"
    file = folder / "grefcoco/grefs(unc).json"
    refs = read_json(file) if file.exists() else []
    counts = _write_refs(folder, cases, part, "grefcoco", refs, polygons_of)
    write_json(file, refs)
    return counts


def _write_refer(
    folder: Path, cases: Iterable[Case], part: str, name: str, pack: Callable[[np.ndarray], Any]
) -> Counts:
    """One of the sets whose expressions are in a pickle."""
    file = folder / name / f"refs({'umd' if name == 'refcocog' else 'unc'}).p"
    refs = read_plain_pickle(file) if file.exists() else []
    counts = _write_refs(folder, cases, part, name, refs, pack)
    file.write_bytes(pickle.dumps(refs, protocol=2))
    return counts


def _write_refs(
    folder: Path,
    cases: Iterable[Case],
    part: str,
    name: str,
    refs: list[dict[str, Any]],
    pack: Callable[[np.ndarray], Any],
) -> Counts:
    """Writes pictures and ``instances.json``, and adds expressions to `refs`; both go on where the files end."""
    file, counts = folder / name / "instances.json", Counts()
    book = read_json(file) if file.exists() else {"images": [], "annotations": []}
    book["categories"] = [{"id": key, "name": category} for category, key in _IDS.items()]
    for index, case in enumerate(cases):
        entry = _image_entry(case, name)
        pictures = "images/saiapr_tc-12" if name == "refclef" else _TRAIN2014
        _write_picture(folder / pictures / entry["file_name"], case)
        book["images"].append(entry)
        keys = {}
        for actor, mask in _things(case):
            keys[actor.id] = len(book["annotations"]) + 1
            category = _IDS[actor.category]
            book["annotations"].append(_annotation(keys[actor.id], entry["id"], category, mask, pack(mask)))
        categories = {actor.id: _IDS[actor.category] for actor in case.scene.actors}
        for said in case.expressions:
            if name != "grefcoco" and len(said.targets) != 1:
                counts.skipped += 1
                continue
            split = _refer_split(part, name, index)
            refs.append(_ref(said, len(refs) + 1, entry, keys, categories, split, general=name == "grefcoco"))
            counts.expressions += 1
        counts.frames += 1
    write_json(file, book)
    return counts


def _ref(
    said: SceneInstruction,
    key: int,
    image: dict[str, Any],
    keys: dict[int, int],
    categories: dict[int, int],
    split: str,
    general: bool,
) -> dict[str, Any]:
    """One expression; of gRefCOCO its objects are a list, [-1] for none. Those of train carry their answer."""
    objects: Any = [keys[target] for target in said.targets] or [-1]
    kinds: Any = [categories[target] for target in said.targets] or [-1]
    sentence = {"sent_id": key, "sent": said.text, "raw": said.text, "tokens": said.text.split()}
    if split == "train":
        sentence["answer"] = said.answer
    ref = {
        **{"ref_id": key, "image_id": image["id"], "file_name": image["file_name"], "split": split},
        **{"ann_id": objects if general else objects[0], "category_id": kinds if general else kinds[0]},
        **{"sent_ids": [key], "sentences": [sentence]},
    }
    return {**ref, "no_target": not said.targets} if general else ref


def _refer_split(part: str, name: str, index: int) -> str:
    """What a set calls a part; tests take turns among its tests."""
    tests = {"refcocog": ("test",), "refclef": ("testA", "testB", "testAB")}.get(name, ("testA", "testB"))
    return _named({"train": "train", "valid": "val", "test": tests[index % len(tests)]}, part)


def _image_entry(case: Case, name: str) -> dict[str, Any]:
    height, width = case.clip.ids.shape[1:]
    key = _number(case)
    file_name = f"{key}.jpg" if name == "refclef" else f"COCO_train2014_{key:012d}.jpg"
    return {"id": key, "file_name": file_name, "height": height, "width": width}


def _runs_list(mask: np.ndarray) -> list[dict[str, Any]]:
    return [{"size": list(mask.shape), "counts": encode_rle(mask)}]


def write_reason_seg(root: Path, cases: Iterable[Case], part: str) -> Counts:
    """ReasonSeg: ``reason_seg/ReasonSeg/{train,val,test}`` and, with "train", ``explanatory/train.json``.

    Of each case the first implicit expression with targets is written, else the first with any; its shapes are
    rectangles, a seam one pixel wide around the target is "ignore", and a "flag" stands by. Cases without a target
    are skipped. What is asked and answered is kept among the explanations.

    Args:
        root: LISA's ``dataset/``.
        cases: their first frames are written.
        part: "train", "valid" (val) or "test".

    Returns:
        How much was written.
    """
    folder, counts = root / "reason_seg/ReasonSeg", Counts()
    explained = []
    for case in cases:
        said = _reasoned(case)
        if said is None:
            counts.skipped += 1
            continue
        stem = folder / _named(_SHORT, part) / case.clip.name
        _write_picture(stem.with_name(f"{stem.name}.jpg"), case)
        target = np.isin(case.clip.ids[0], said.targets)
        written = {"text": [said.text], "is_sentence": " " in said.text, "shapes": reason_shapes(target)}
        write_json(stem.with_name(f"{stem.name}.json"), written)
        answer = said.answer.replace("<TK>, <PO>", "").strip()
        explained.append({"image": f"{stem.name}.jpg", "query": said.text, "outputs": answer})
        counts.frames += 1
        counts.expressions += 1
    if part == "train":
        write_json(folder / "explanatory/train.json", explained)
    return counts


def reason_shapes(target: np.ndarray) -> list[dict[str, Any]]:
    """ReasonSeg's shapes of a target, bool (height, width): what they draw is `target` and, as ignored, its `seam`."""
    height, width = target.shape
    corner = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
    shapes: list[dict[str, Any]] = [{"label": "flag", "points": corner}]
    for label, mask in (("target", target), ("ignore", seam(target))):
        # Outlines belong to a shape here, so that a rectangle ends at the centre of its last pixel.
        shapes += [
            {"label": label, "points": [[x1, y1], [x2 - 1, y1], [x2 - 1, y2 - 1], [x1, y2 - 1]]}
            for x1, y1, x2, y2 in rectangles_of(mask)
        ]
    return shapes


def seam(target: np.ndarray) -> np.ndarray:
    """The pixels that touch a target and are none of it: bool (height, width)."""
    grown = cv2.dilate(target.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    around: np.ndarray = grown & ~target
    return around


def _reasoned(case: Case) -> SceneInstruction | None:
    """What ReasonSeg would ask of a case."""
    named = [said for said in case.expressions if said.targets]
    return next((said for said in named if said.kind == "implicit"), named[0] if named else None)


# Conversations


def write_llava_instruct(root: Path, cases: Iterable[Case], part: str) -> Counts:
    """LLaVA-Instruct: ``llava_dataset/llava_instruct_150k.json``, pictures in ``coco/train2017``.

    Two rounds a case: what is seen, from left to right, and how many things that is. There are no splits; further
    parts are added.

    Args:
        root: LISA's ``dataset/``.
        cases: their first frames are written.
        part: "train", "valid" or "test".

    Returns:
        How much was written; an expression is a question with its answer.
    """
    _named(_SHORT, part)
    file, counts = root / "llava_dataset/llava_instruct_150k.json", Counts()
    records = read_json(file) if file.exists() else []
    for case in cases:
        stem = f"{_number(case):012d}"
        _write_picture(root / "coco/train2017" / f"{stem}.jpg", case)
        rounds = questions(case)
        # The placeholder of the picture comes first or last, as there.
        first = f"<image>\n{rounds[0][0]}" if len(records) % 2 else f"{rounds[0][0]}\n<image>"
        asked = [first, *(question for question, _ in rounds[1:])]
        turns = [(speaker, text) for q, (_, a) in zip(asked, rounds, strict=True) for speaker, text in _turns(q, a)]
        said = [{"from": speaker, "value": text} for speaker, text in turns]
        records.append({"id": stem, "image": f"{stem}.jpg", "conversations": said})
        counts.frames += 1
        counts.expressions += len(rounds)
    write_json(file, records)
    return counts


def questions(case: Case) -> list[tuple[str, str]]:
    """Questions about the first frame, with their answers."""
    seen = sorted(_things(case), key=lambda found: float(box_of(found[1])[0]))
    names = [_described(actor) for actor, _ in seen]
    listed = ", ".join(names) if names else "Nothing"
    count = f"{len(names)} thing{'' if len(names) == 1 else 's'}"
    return [("What is in the picture, from left to right?", f"{listed}."), ("How many things is that?", f"{count}.")]


def _described(actor: Actor) -> str:
    return actor.category if actor.colour == "natural" else f"{actor.colour} {actor.category}"


def _turns(question: str, answer: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("human", question), ("gpt", answer)


# What all of them share


def _named(names: dict[str, str], part: str) -> str:
    """What a set calls a part."""
    if part not in names:
        raise UsageError(f"part {part!r} is unknown; take one of {', '.join(names)}")
    return names[part]


def _number(case: Case) -> int:
    """A number for a picture, different for every scene: the splits of SynthTrack number theirs alike."""
    return 2 * case.scene.seed + (case.scene.split == "test")


def _things(case: Case) -> list[tuple[Actor, np.ndarray]]:
    """The actors of which a pixel is seen in the first frame, with their masks, bool (height, width)."""
    masks = [(actor, case.clip.ids[0] == actor.id) for actor in case.scene.actors]
    return [(actor, mask) for actor, mask in masks if mask.any()]


def _annotation(key: int, image: int, category: int, mask: np.ndarray, segmentation: Any) -> dict[str, Any]:
    """An annotation in COCO's form; its box is xywh."""
    x1, y1, x2, y2 = (float(value) for value in box_of(mask))
    return {
        **{"id": key, "image_id": image, "category_id": category, "iscrowd": 0, "area": int(mask.sum())},
        **{"bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": segmentation},
    }


def _write_picture(file: Path, case: Case) -> None:
    """Write the first frame as JPEG."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(case.clip.frames[0]).save(file, "JPEG", quality=JPEG_QUALITY)


def _write_labels(file: Path, labels: np.ndarray) -> None:
    """Write a label map, uint8 (height, width), as an 8-bit PNG."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(file)


def _write_text(file: Path, rows: Iterable[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
