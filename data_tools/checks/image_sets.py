"""Checks of the image sets of stage 1: datasets.md, section 2.

A set is read by the reader that training uses, so that what passes here trains. Every file is looked for; of each part
only some pictures are opened, spread evenly (`Report.opened`), for there are a hundred thousand. Before reading, the
known ways to lay a set wrongly are looked for, and each is told with what to do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data_tools.checks.report import Report, TreeCheck
from data_tools.image_sets import READERS, REFERRING
from trackgpt.data.conversations import llava_instruct
from trackgpt.data.image_trees import COCO_2014, COCO_2017, TREES, captions
from trackgpt.data.images import ImageSample
from trackgpt.data.referring_image import SPLIT_BY, read_plain_pickle, reason_seg_explanations
from trackgpt.data.trees import Tree, listing, look_for_tree, read_json
from trackgpt.errors import InputError

_SHARED = "; coco-stuff, paco-lvis and llava-instruct share them"


@dataclass(frozen=True)
class Pieces:
    """What a set is made of.

    Attributes:
        name: of the set.
        of_part: files and folders of a part below the top folder; a part with none of them is not there, but the first
            one must be.
        pictures: the tree of pictures that it takes from COCO, if any.
        traps: records known ways to lay it wrongly.
        parts: the parts that are there, where `of_part` cannot tell.
    """

    name: str
    of_part: Callable[[Report, str], tuple[str, ...]]
    pictures: Tree | None = None
    traps: Callable[[Report], None] = lambda report: None
    parts: Callable[[Report], Iterable[str]] | None = None


def check_images(pieces: Pieces, report: Report) -> None:
    """The parts of a set: whether its pieces are there, then what its reader and its pictures say."""
    pieces.traps(report)
    if pieces.pictures is not None and not _has_pictures(report, pieces.pictures):
        return
    tree = TREES[pieces.name]
    known = set(tree.parts if pieces.parts is None else pieces.parts(report))
    for part in tree.parts:
        wanted = [report.root / piece for piece in pieces.of_part(report, part)]
        missing = [path for path in wanted if not path.exists()]
        absent = part not in known or (bool(wanted) and missing == wanted)
        if absent and part != tree.parts[0]:
            report.note(report.root, f"the part {part} is not there and is not checked")
            continue
        for path in missing:
            report_missing(report, path, part)
        if not missing:
            _check_part(report, pieces.name, part)


def report_missing(report: Report, path: Path, part: str) -> None:
    """A piece that is not there: what its folder holds instead, or where something of its name is."""
    folder = path.parent
    if path.suffix or not folder.is_dir() or folder == report.root:
        report.misplaced(path if path.suffix or folder == report.root else folder, f"{path.name}, of the part {part}")
        return
    held = "nothing" if not any(folder.iterdir()) else listing(folder)
    found = f'has no "{path.name}"; it holds {held}'
    report.problem(folder, found, f"the folder {path.name} in it", f"move what belongs to {part} to {path}")


def _has_pictures(report: Report, tree: Tree) -> bool:
    """Whether the pictures of COCO are where readers look: below the root that was given, or next to the set."""
    where = (report.root, report.given) if tree is COCO_2014 else (report.given,)
    if any(look_for_tree(tree, root) is not None for root in where):
        return True
    above = report.given.resolve().parent
    there = look_for_tree(tree, above)
    if there is not None:
        report.problem(report.given, f"no {tree.name}; they are in {there}", "both below one root", f"give {above}")
        return False
    wanted = f"{' or '.join(tree.marks)} in a folder called {', '.join(tree.folders)}"
    report.problem(report.given, f"no {tree.name}", wanted + (_SHARED if tree is COCO_2017 else ""))
    return False


def _check_part(report: Report, name: str, part: str) -> None:
    try:
        samples = READERS[name](report.given, part)
    except InputError as error:
        report.refused(error, report.root)
        return
    there = Listings()
    counted = TREES[name].units[1] if name not in ("ade20k", "coco-stuff", "mapillary") else ""
    present = []
    for index in range(len(samples)):
        try:
            sample = samples[index]
            if counted:
                report.count(part, **{counted: len(sample.expressions)})
        except InputError as error:
            report.refused(error, report.root)
            report.count_wrong(part, images=1)
            continue
        if there.has(sample.image):
            present.append(sample)
        else:
            report.problem(sample.image, "missing", f"the picture of {name}, {part}, that is annotated")
            report.count_missing(part, images=1)
        report.tick()
    wrong = _open(report, present)
    report.count(part, images=len(present) - wrong)
    report.count_wrong(part, images=wrong)
    if report.opened and len(present) > report.opened:
        report.note(report.root, f"{part}: {report.opened} of {len(present)} pictures were opened (--open 0 opens all)")


def _open(report: Report, samples: Sequence[ImageSample]) -> int:
    """Opens some pictures with their masks; gives how many are damaged or do not fit together."""
    wrong = 0
    for sample in report.some(samples):
        try:
            sample.frame()
            for said in sample.expressions:
                sample.mask(said)
        except InputError as error:
            report.refused(error, sample.image)
            wrong += 1
        report.tick()
    return wrong


class Listings:
    """Names of files by folder, each folder read once."""

    def __init__(self) -> None:
        self.names: dict[Path, frozenset[str]] = {}

    def has(self, path: Path) -> bool:
        """Whether there is a file."""
        if path.parent not in self.names:
            there = os.listdir(path.parent) if path.parent.is_dir() else ()
            self.names[path.parent] = frozenset(there)
        return path.name in self.names[path.parent]


# Label maps


def _ade20k_traps(report: Report) -> None:
    if (report.root / "index_ade20k.pkl").is_file():
        report.problem(
            report.root,
            "the full ADE20K, whose labels are thousands of names",
            "the release of the scene parsing challenge, 150 classes",
            "download ADEChallengeData2016.zip",
        )


def _stuff_traps(report: Report) -> None:
    for part in TREES["coco-stuff"].parts:
        found = next((report.root / part).glob("*_labelTrainIds.png"), None)
        if found is not None:
            report.problem(
                found,
                "a map of mmsegmentation's own labels among those of the release",
                "the maps of stuffthingmaps_trainval2017 alone",
                "move *_labelTrainIds.png elsewhere",
            )
        if next((report.root / part).glob("*.jpg"), None) is not None:
            report.problem(report.root / part, "holds pictures", "label maps (*.png)", f"pictures go to coco/{part}")
    for folder in sorted(report.root.glob("stuff_*_pixelmaps")):
        report.problem(folder, "maps of the stuff challenge, without things", "stuffthingmaps_trainval2017.zip")


def _mapillary_traps(report: Report) -> None:
    if not (report.root / "config_v2.0.json").is_file():
        old = report.root / "config_v1.2.json"
        found = "version 1.2 (config_v1.2.json)" if old.is_file() else "no config_v2.0.json"
        report.problem(report.root, found, "version 2.0, which has other labels", "download the release 2.0")
    for part in TREES["mapillary"].parts:
        labels = [report.root / part / name for name in ("v2.0/labels", "labels", "v1.2/labels")]
        old_labels = next((path for path in labels[1:] if path.is_dir()), None)
        if old_labels is not None and not labels[0].is_dir():
            report.problem(old_labels, "labels of version 1.2", f"{part}/v2.0/labels", "download the release 2.0")


# Parts


def _paco_traps(report: Report) -> None:
    for file in sorted(report.root.glob("paco_lvis_v1*.json")):
        report.problem(file, "one level too high", f"annotations/{file.name}", "move it there")
    if not (report.root / "annotations").is_dir() and (report.root / "paco_lvis_v1.zip").is_file():
        report.problem(report.root / "paco_lvis_v1.zip", "not unpacked", "annotations/paco_lvis_v1_train.json")


def _pascal_traps(report: Report) -> None:
    files = [report.root / f"{part}.json" for part in TREES["pascal-part"].parts]
    matlab = next((path for path in report.root.glob("**/Annotations_Part") if path.is_dir()), None)
    if matlab is not None and not any(path.is_file() for path in files):
        advice = "convert them with VLPart's tools/pascal_part_mat2json.py"
        report.problem(matlab, "annotations for MATLAB", "train.json and val.json in COCO's form", advice)
    newer = report.root / "VOCdevkit/VOC2012"
    if newer.is_dir() and not (report.root / "VOCdevkit/VOC2010/JPEGImages").is_dir():
        report.problem(newer, "pictures of VOC 2012", "VOCdevkit/VOC2010/JPEGImages, which Pascal-Part annotates")


def _part_imagenet_pieces(report: Report) -> Iterable[str]:
    """The parts that are there under either layout."""
    root = report.root
    for part in TREES["part-imagenet"].parts:
        names = (f"annotations/{part}/{part}.json", f"{part}_format.json", f"{part}.json")
        if any((root / name).is_file() for name in names):
            yield part


# Referring sets


def _refer_traps(name: str, report: Report) -> None:
    folder = report.root / name
    by = SPLIT_BY.get(name, "unc")
    wanted = folder / (f"grefs({by}).json" if name == "grefcoco" else f"refs({by}).p")
    others = sorted(path.name for path in folder.glob("*refs(*).*"))
    if not any(path.exists() for path in (wanted, wanted.with_suffix(".p"))) and others:
        report.problem(wanted, f"missing ({others[0]} is there)", f"the splits of {by}, which LISA uses")
    if name == "refclef":
        _saiapr_traps(report)
    if report.given.resolve() == report.root.resolve():
        report.note(report.root, "given itself; here that does, while LISA trains from the folder above")


def _saiapr_traps(report: Report) -> None:
    folder = report.root / "images/saiapr_tc-12"
    nested = next(folder.glob("*/images"), None)
    if nested is not None and next(folder.glob("*.jpg"), None) is None:
        report.problem(
            nested,
            "pictures of the whole SAIAPR TC-12, in numbered folders",
            "images/saiapr_tc-12/<number>.jpg",
            "download the subset of RefCLEF, or move them up",
        )


def _refer_parts(name: str, report: Report) -> Iterable[str]:
    """The splits that the file of phrases names."""
    by, folder = SPLIT_BY.get(name, "unc"), report.root / name
    file = folder / f"refs({by}).p" if name != "grefcoco" else folder / f"grefs({by}).json"
    captioned = [part for part in TREES[name].parts if (folder / f"instances_{name}_{part}.json").is_file()]
    if not file.is_file() and captioned:
        return captioned
    if not file.is_file():
        return TREES[name].parts[:1]
    try:
        refs = read_json(file) if file.suffix == ".json" else read_plain_pickle(file)
        found = {str(ref.get("split", "")) for ref in refs}
    except (InputError, AttributeError, TypeError):
        return TREES[name].parts[:1]  # the reader says what is wrong
    return [part for part in TREES[name].parts if any(_names(split, part) for split in found)]


def _names(split: str, part: str) -> bool:
    tests = part.startswith("test") and split.startswith("test")
    return part == split or (tests and (part == "test" or part[-1] in split[4:]))


def _refer_pieces(name: str, report: Report, part: str) -> tuple[str, ...]:
    """What a set of lichengunc/refer is made of, whatever the part; of ReferFormer's form one file per part."""
    captioned = f"{name}/instances_{name}_{part}.json"
    if (report.root / captioned).is_file():
        return (captioned,)
    file = "grefs(unc).json" if name == "grefcoco" else f"refs({SPLIT_BY[name]}).p"
    pictures = ("images/saiapr_tc-12",) if name == "refclef" else ()
    return (f"{name}/{file}", f"{name}/instances.json", *pictures)


# ReasonSeg


def _reason_traps(report: Report) -> None:
    for part in TREES["reason-seg"].parts:
        folder, packed = report.root / part, report.root / f"{part}.zip"
        if packed.is_file() and not folder.is_dir():
            report.problem(packed, "not unpacked", f"the folder {part} beside it")
    if (report.root / "train").is_dir():
        try:
            explained = reason_seg_explanations(report.given)
            report.count("train", explanations=len(explained))
        except InputError as error:
            report.refused(error, report.root)


# Conversations


def check_conversations(report: Report) -> None:
    """LLaVA-Instruct: every record is a conversation, and its picture is there."""
    if not _has_pictures(report, COCO_2017):
        return
    try:
        found = llava_instruct(report.given)
    except InputError as error:
        report.refused(error, report.root)
        return
    there = Listings()
    for index in range(len(found)):
        try:
            conversation = found[index]
        except InputError as error:
            report.refused(error, found.file)
            report.count_wrong("train", conversations=1)
            continue
        report.count("train", conversations=1, questions=len(conversation.rounds))
        if conversation.image is not None and not there.has(conversation.image):
            report.problem(conversation.image, "missing", "the picture of a conversation")
            report.count_missing("train", images=1)
        report.tick()


def _llava_traps(report: Report) -> None:
    others = sorted(path.name for path in report.root.glob("*.json"))
    if others and not (report.root / "llava_instruct_150k.json").is_file():
        report.problem(report.root, f"holds {', '.join(others[:3])}", "llava_instruct_150k.json", "download it")


def _check(pieces: Pieces) -> TreeCheck:
    other = captions(pieces.name) if pieces.name in REFERRING else None
    return TreeCheck(TREES[pieces.name], partial(check_images, pieces), pieces.traps, other)


_SETS = (
    Pieces("ade20k", lambda report, part: (f"images/{part}", f"annotations/{part}"), traps=_ade20k_traps),
    Pieces("coco-stuff", lambda report, part: (part,), COCO_2017, _stuff_traps),
    Pieces("mapillary", lambda report, part: (f"{part}/images", f"{part}/v2.0/labels"), traps=_mapillary_traps),
    Pieces("paco-lvis", lambda report, part: (f"annotations/paco_lvis_v1_{part}.json",), COCO_2017, _paco_traps),
    Pieces("pascal-part", lambda report, part: (f"{part}.json",), traps=_pascal_traps),
    Pieces("part-imagenet", lambda report, part: (), parts=_part_imagenet_pieces),
    *(
        Pieces(
            name,
            partial(_refer_pieces, name),
            None if name == "refclef" else COCO_2014,
            partial(_refer_traps, name),
            partial(_refer_parts, name),
        )
        for name in (*REFERRING, "grefcoco")
    ),
    Pieces("reason-seg", lambda report, part: (part,), traps=_reason_traps),
)
CHECKS = (*(_check(pieces) for pieces in _SETS), TreeCheck(TREES["llava-instruct"], check_conversations, _llava_traps))
