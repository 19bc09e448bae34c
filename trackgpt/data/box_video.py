"""Single-target box sets: LaSOT, TNL2K, TNLLT, OTB-lang, InteractTrack with its prompts, GOT-10k without words.

`lasot("data", "test")` gives the sequences of a part in the order of the benchmark's list. Opening a part reads that
list and looks which sequences are there; boxes, sentences and frames are read when they are asked for. Trees are
sequence folders, the annotation folders of the toolkits, or both
together. Frames may be missing, since a folder of result files can be scored from the annotations alone.

Benchmarks write boxes as x, y, w, h in pixels and disagree about what a flag of absence means (`LASOT_ABSENT`,
`TNL2K_ABSENT`, `TNLLT_ABSENT`) and about the number of the first pixel; all of it ends here. Only `BoxSequence.truth`
keeps the numbers as they are written, because the toolkits' figures depend on their last bit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trackgpt.data.box_files import (
    GOT10K_ABSENT,
    INTERACTTRACK_SCENES,
    LASOT_ABSENT,
    LASOT_ATTRIBUTES,
    TNL2K_ABSENT,
    TNL2K_ATTRIBUTES,
    TNLLT_ABSENT,
    TNLLT_ATTRIBUTES,
    read_absent,
    read_boxes,
    read_descriptions,
    read_flags,
    read_interacttrack_boxes,
    read_interacttrack_truth,
    read_names,
    read_scene,
)
from trackgpt.data.trees import Tree, entries, find_tree, listing, read_object
from trackgpt.data.videos import Expression, Video
from trackgpt.errors import InputError
from trackgpt.synthtrack.interaction import Script
from trackgpt.types import Prompt

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"))
"""Other files among the frames are no frames; TNL2K has a "00000492.pn_error"."""
INTERACTION = "interaction.json"
"""What SynthTrack-Interact says beside InteractTrack's files (`trackgpt.synthtrack.interaction.Script`)."""
LASOT_ORIGIN = 1
"""LaSOT counts pixels from 1: of 103,714 visible boxes none begins at 0, and 1,077 begin at x = 1. OTB is as old."""
OTB_FIRST_FRAMES = {"David": 300}
"""Number in the file's name of the first annotated frame, where frames before it are not annotated (OTB's own list)."""


@dataclass(frozen=True)
class BoxTruth:
    """Where the target is, as the benchmark's files say it.

    Attributes:
        boxes: float64 (T, 4) x, y, w, h in pixels, as written; anything where absent.
        absent: bool (T,), True = not visible, whatever the flag in the file.
        note: what had to be cut, for reports; "" if nothing.
        origin: the number of the first pixel, 0 or 1.
    """

    boxes: FloatArray
    absent: BoolArray
    note: str = ""
    origin: int = 0

    def xyxy(self) -> np.ndarray:
        """The boxes of the package: float32 (T, 4) xyxy pixels; NaN where absent, or where there is no area."""
        boxes = self.boxes.copy()
        boxes[:, :2] -= self.origin
        boxes[:, 2:] += boxes[:, :2]
        boxes[self.absent | ~(self.boxes[:, 2:] > 0).all(axis=1)] = np.nan
        return boxes.astype(np.float32)


@dataclass(frozen=True)
class BoxSequence:
    """One sequence on disk; nothing of it is read before it is asked for.

    Attributes:
        name: as the benchmark calls it; result files are named after it.
        boxes: file of boxes, one per frame.
        images: folder of frames; need not be there.
        flags: files of absence flags, a frame is absent if one of them says so; empty: where the box has no area.
        absent_flag: which flag means absent.
        sentence: file whose first line describes the target; None where there is none.
        attribute_flags: file of flags; None where there is none.
        attribute_names: what its flags stand for.
        slack: by how many lines boxes and flags may differ; both are then cut to the shorter.
        origin: the number that boxes give the first pixel, 0 or 1.
    """

    name: str
    boxes: Path
    images: Path
    flags: tuple[Path, ...] = ()
    absent_flag: int = 1
    sentence: Path | None = None
    attribute_flags: Path | None = None
    attribute_names: tuple[str, ...] = ()
    slack: int = 0
    origin: int = 0

    def truth(self) -> BoxTruth:
        """Read boxes and absence.

        Raises:
            InputError: a file is missing or malformed, or their lengths differ by more than `slack`.
        """
        boxes = read_boxes(self.boxes)
        if not self.flags:
            return BoxTruth(boxes, np.asarray(~(boxes[:, 2:] > 0).all(axis=1), np.bool_), origin=self.origin)
        flags = [read_absent(path, self.absent_flag) for path in self.flags]
        lengths = [len(boxes), *map(len, flags)]
        frames = min(lengths)
        if max(lengths) - frames > self.slack:
            raise InputError(f"{self.flags[0]}: {lengths[1:]} flags for {lengths[0]} boxes of {self.boxes}")
        note = f"{lengths[0]} boxes and {lengths[1]} flags: cut to {frames}" if max(lengths) > frames else ""
        absent = np.stack([each[:frames] for each in flags]).any(axis=0)
        return BoxTruth(boxes[:frames], np.asarray(absent, np.bool_), note, self.origin)

    def frames(self) -> tuple[Path, ...]:
        """The frames in order of their names; empty where the folder is missing."""
        if not self.images.is_dir():
            return ()
        found = [path for path in entries(self.images) if path.suffix.lower() in IMAGE_SUFFIXES]
        first = OTB_FIRST_FRAMES.get(self.name) if self.boxes.name.startswith("groundtruth_rect") else None
        return tuple(path for path in found if first is None or int(path.stem) >= first)

    def text(self) -> str:
        """The first line that describes the target.

        Raises:
            InputError: there is no such file or no such line.
        """
        if self.sentence is None:
            raise InputError(f"{self.name}: no sentence here; beside the boxes lies {listing(self.boxes.parent)}")
        lines = read_descriptions(self.sentence)
        if not lines or not lines[0]:
            raise InputError(f"{self.sentence}: line 1 is empty, wanted a sentence about the target")
        return lines[0]

    def attributes(self) -> frozenset[str]:
        """What is said of the sequence; empty where the benchmark says nothing.

        Raises:
            InputError: the file is malformed.
        """
        if self.attribute_flags is None:
            return frozenset()
        flags = read_flags(self.attribute_flags, len(self.attribute_names))
        return frozenset(name for name, has in zip(self.attribute_names, flags, strict=True) if has)

    def prompts(self) -> tuple[Prompt, ...]:
        """What a person says while the video plays: nothing but the sentence here."""
        return ()

    def video(self) -> Video:
        """Everything but the frames' pixels: float32 (T, 4) xyxy boxes, sentence, attributes, and T frames or none.

        Raises:
            InputError: a file is malformed, or there are frames, but less than boxes.
        """
        truth, images = self.truth(), self.frames()
        if images and len(images) < len(truth.boxes):
            raise InputError(f"{self.images}: {len(images)} frames for {len(truth.boxes)} boxes; unpack it again")
        said = (Expression("0", self.text(), ("1",)),) if self.sentence is not None else ()
        return Video(
            self.name,
            images[: len(truth.boxes)],
            said,
            boxes=truth.xyxy(),
            prompts=self.prompts(),
            attributes=self.attributes(),
        )


@dataclass(frozen=True)
class InteractiveBoxSequence(BoxSequence):
    """A sequence of InteractTrack.

    Attributes:
        description: file of prompts, one line per frame, blank where nothing is said.
        switches: file of the previous target's box at switches; None where it is missing (it ships separately).
        scene: file of six flags; None where it is missing.
        interaction: SynthTrack-Interact's own file of what the release has no place for; None for other data.
    """

    description: Path = Path("description.txt")
    switches: Path | None = None
    scene: Path | None = None
    interaction: Path | None = None

    def truth(self) -> BoxTruth:
        """Boxes and absence as the tracking loader sees them, with no frame cut at the front.

        A frame is visible if its line holds x >= 0, y >= 0, w > 0, h > 0 and, where both full_occlusion.txt and
        out_of_view.txt are there, neither has its flag. Boxes beyond the last frame are cut off, where there are
        frames (NorahGreen/InteractTrack@5f149d4, intdataset.py).

        Raises:
            InputError: a file is missing or malformed, or flags and boxes differ in number.
        """
        boxes, visible = read_interacttrack_truth(self.boxes)
        for path in self.flags:
            visible = visible & ~read_absent(path, self.absent_flag, len(boxes))
        frames = len(self.frames()) or len(boxes)
        note = f"{len(boxes)} boxes, {frames} frames: cut to the shorter" if frames < len(boxes) else ""
        return BoxTruth(boxes[:frames], ~visible[:frames], note)

    def written_boxes(self) -> FloatArray:
        """groundtruth.txt as the toolkit's interactive metrics read it: float64 (lines, 4) xywh, zeros for no box.

        Raises:
            InputError: the file is missing.
        """
        return read_interacttrack_boxes(self.boxes, ragged=True)

    def old_targets(self) -> FloatArray:
        """Boxes of the target before a switch: float64 (lines, 4) xywh, zeros elsewhere; (0, 4) without the file.

        Raises:
            InputError: the file cannot be read.
        """
        return np.zeros((0, 4)) if self.switches is None else read_interacttrack_boxes(self.switches, ragged=True)

    def prompted(self) -> BoolArray:
        """bool (lines,), True where a prompt is given.

        Raises:
            InputError: the file is missing.
        """
        return np.array([said != "" for said in read_descriptions(self.description)], np.bool_)

    def prompts(self) -> tuple[Prompt, ...]:
        """The prompts by frame; those with a box of the old target are switches, the others after the first correct.

        Raises:
            InputError: the file is missing, or says nothing at all.
        """
        said = [(t, text) for t, text in enumerate(read_descriptions(self.description)) if text]
        if not said:
            raise InputError(f"{self.description}: no line says anything, wanted a prompt on one line at least")
        switches = np.flatnonzero(self.old_targets().any(axis=1))
        first = said[0][0]
        return tuple(
            Prompt(text, t, "start" if t == first else "switch" if t in switches else "correct") for t, text in said
        )

    def script(self) -> Script | None:
        """What is said with its kinds, and all targets of every frame; None where nobody wrote that down.

        Raises:
            InputError: the file is malformed, or says other things than the description.
        """
        if self.interaction is None:
            return None
        values = read_object(self.interaction)
        try:
            script = Script.from_json(values)
        except InputError as error:
            raise InputError(f"{self.interaction}: {error}") from error
        if [(each.frame, each.text) for each in script.said] != [(each.frame, each.text) for each in self.prompts()]:
            raise InputError(f"{self.interaction}: says other things than {self.description}; make both anew")
        return script

    def text(self) -> str:
        """The first prompt."""
        return self.prompts()[0].text

    def attributes(self) -> frozenset[str]:
        """The scenes it belongs to: names of INTERACTTRACK_SCENES.

        Raises:
            InputError: the file is malformed.
        """
        flags = np.zeros(0, np.bool_) if self.scene is None else read_scene(self.scene)
        return frozenset(name for name, has in zip(INTERACTTRACK_SCENES, flags) if has)


@dataclass(frozen=True)
class BoxPart:
    """A part of a benchmark.

    Attributes:
        sequences: those that are here, in the order of the benchmark's list; by name where there is no list.
        missing: listed, but without boxes here.
    """

    sequences: tuple[BoxSequence, ...]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Layout:
    """Where the files of a sequence may lie below the top folder, first choice first.

    {name} is the sequence, {group} its name without the last "-k", {target} what follows it.
    """

    tree: Tree
    boxes: tuple[str, ...]
    images: tuple[str, ...]
    lists: Mapping[str, tuple[str, ...]]
    flags: tuple[tuple[str, ...], ...] = ()
    absent_flag: int = 1
    sentence: tuple[str, ...] = ()
    attribute_flags: tuple[str, ...] = ()
    attribute_names: tuple[str, ...] = ()
    slack: int = 0
    origin: int = 0

    def part(self, root: str | Path, part: str, make: Callable[[_Layout, Path, str], BoxSequence]) -> BoxPart:
        """The sequences of a part: those on its list, or, without one, all that are there."""
        self.tree.check_part(part)
        top = find_tree(self.tree, root)
        names = self._listed(top, part)
        here = [name for name in names if self.first(top, self.boxes, name) is not None]
        if not here:
            wanted = " or ".join(self.boxes)
            raise InputError(f"{top}: none of {len(names)} sequences of {part!r} is here; wanted {wanted}")
        there = set(here)
        return BoxPart(tuple(make(self, top, name) for name in here), tuple(n for n in names if n not in there))

    def _listed(self, top: Path, part: str) -> list[str]:
        lists = [top / place for place in self.lists.get(part, ())]
        there = [path for path in lists if path.is_file()]
        if there:
            return read_names(there[0])
        if part == "all" or not lists:
            return self._found(top)
        if part == "train" and any((top / place).is_file() for place in self.lists.get("test", ())):
            tested = set(self._listed(top, "test"))
            return [name for name in self._found(top) if name not in tested]
        raise InputError(f"{lists[0]}: missing; wanted the names of the part {part!r}; --split all takes what is there")

    def _found(self, top: Path) -> list[str]:
        """All sequences that have boxes here, by name."""
        found = set()
        for place in self.boxes:
            pattern = re.compile(re.escape(place).replace(r"\{name\}", "([^/]+)").replace(r"\{group\}", "[^/]+"))
            for path in entries(top, place.replace("{name}", "*").replace("{group}", "*")):
                match = pattern.fullmatch(path.relative_to(top).as_posix())
                if match:
                    found.add(match[1])
        return sorted(found, key=_by_number)

    def first(self, top: Path, places: tuple[str, ...], name: str) -> Path | None:
        """The first place that is there."""
        group, _, target = name.rpartition("-")
        paths = (top / place.format(name=name, group=group, target=target) for place in places)
        return next((path for path in paths if path.exists()), None)

    def sequence(self, top: Path, name: str) -> BoxSequence:
        """A sequence whose boxes are there."""
        group, _, target = name.rpartition("-")
        flags = [tuple(top / p.format(name=name, group=group, target=target) for p in places) for places in self.flags]
        return BoxSequence(
            name,
            boxes=self.first(top, self.boxes, name) or top / name,
            images=self.first(top, self.images, name) or top / self.images[0].format(name=name, group=group),
            flags=next((paths for paths in flags if all(path.exists() for path in paths)), ()),
            absent_flag=self.absent_flag,
            sentence=self.first(top, self.sentence, name),
            attribute_flags=self.first(top, self.attribute_flags, name),
            attribute_names=self.attribute_names,
            slack=self.slack,
            origin=self.origin,
        )


def _by_number(name: str) -> tuple[tuple[int, int | str], ...]:
    """A key that sorts "a-2" before "a-10"."""
    return tuple((0, int(piece)) if piece.isdigit() else (1, piece) for piece in re.split(r"(\d+)", name) if piece)


_LASOT = _Layout(
    Tree(
        "lasot",
        ("LaSOT", "LaSOTBenchmark", "LaSOTTesting", "LaSOTTest", "LaSOT_Evaluation_Toolkit"),
        ("annos/nlp/*.txt", "*/*-*/nlp.txt", "*-*/nlp.txt"),
        ("test", "train", "all"),
        {"test": (280, 280), "all": (1400, 1400)},
    ),
    boxes=("annos/{name}.txt", "{group}/{name}/groundtruth.txt", "{name}/groundtruth.txt"),
    images=("{group}/{name}/img", "{name}/img"),
    flags=(
        ("annos/absent/{name}.txt",),
        ("{group}/{name}/full_occlusion.txt", "{group}/{name}/out_of_view.txt"),
        ("{name}/full_occlusion.txt", "{name}/out_of_view.txt"),
    ),
    absent_flag=LASOT_ABSENT,
    sentence=("annos/nlp/{name}.txt", "{group}/{name}/nlp.txt", "{name}/nlp.txt"),
    attribute_flags=("annos/att/{name}.txt",),
    attribute_names=LASOT_ATTRIBUTES,
    origin=LASOT_ORIGIN,
    lists={
        "test": ("sequence_evaluation_config/testing_set.txt", "testing_set.txt"),
        "train": ("training_set.txt",),
        "all": (),
    },
)
_TNL2K_FOLDERS = ("{name}", "TNL2K_test_subset/{name}", "TNL2K_train_subset/{name}", "test/{name}", "train/{name}")
_TNL2K = _Layout(
    Tree(
        "tnl2k",
        ("TNL2K", "TNL2K_CVPR2021", "TNL2K_test_subset", "TNL2K_evaluation_toolkit"),
        ("annos/gt_rect/*.txt", "*/language.txt", "TNL2K_test_subset/*/language.txt", "test/*/language.txt"),
        ("test", "train", "all"),
        {"test": (700, 700), "train": (1300, 1300)},
    ),
    boxes=("annos/gt_rect/{name}.txt", *(f"{folder}/groundtruth.txt" for folder in _TNL2K_FOLDERS)),
    images=tuple(f"{folder}/imgs" for folder in _TNL2K_FOLDERS),
    flags=(("annos/absent/{name}.txt",),),
    absent_flag=TNL2K_ABSENT,
    sentence=tuple(f"{folder}/language.txt" for folder in _TNL2K_FOLDERS),
    attribute_flags=("annos/att/{name}_attribute.txt",),
    attribute_names=TNL2K_ATTRIBUTES,
    slack=1,
    lists={
        "test": ("sequence_evaluation_config/TNL2K_testing_set.txt", "TNL2K_testing_set.txt"),
        "train": ("sequence_evaluation_config/TNL2K_train_set.txt", "TNL2K_train_set.txt"),
        "all": (),
    },
)
_TNLLT_FOLDERS = ("{name}", "TNLLT/{name}", "test/{name}", "train/{name}")
_TNLLT = _Layout(
    Tree(
        "tnllt",
        ("TNLLT", "TNL2KLT", "TNL2KLTDataset", "TNL-LT", "TNLLT_Evaluation_Toolkit"),
        ("*/absent_label.txt", "test/*/absent_label.txt", "train/*/absent_label.txt"),
        ("test", "train", "all"),
        {"test": (50, 50), "train": (150, 150)},
    ),
    boxes=tuple(f"{folder}/groundtruth.txt" for folder in _TNLLT_FOLDERS),
    images=tuple(f"{folder}/imgs" for folder in _TNLLT_FOLDERS),
    flags=tuple((f"{folder}/absent_label.txt",) for folder in _TNLLT_FOLDERS),
    absent_flag=TNLLT_ABSENT,
    sentence=tuple(f"{folder}/language.txt" for folder in _TNLLT_FOLDERS),
    attribute_flags=tuple(f"{folder}/attributes.txt" for folder in _TNLLT_FOLDERS),
    attribute_names=TNLLT_ATTRIBUTES,
    lists={
        "test": (
            "tnl_lt_test_split.txt",
            "testing_set.txt",
            "sequence_evaluation_config/testing_set.txt",
            "scripts/TNL2KLTDataset/tnl_lt_test_split.txt",
        ),
        "train": ("tnl_lt_train_split.txt", "scripts/TNL2KLTDataset/tnl_lt_train_split.txt"),
        "all": (),
    },
)
_OTB_LANG = _Layout(
    Tree(
        "otb-lang",
        ("OTB_lang", "OTB99_lang", "OTB_sentences", "OTB99"),
        ("OTB_query_test/*.txt", "OTB_query_train/*.txt"),
        ("test", "train"),
        {"test": (48, 48), "train": (51, 51)},
    ),
    boxes=("OTB_videos/{name}/groundtruth_rect.txt", "OTB_videos/{group}/groundtruth_rect.{target}.txt"),
    images=("OTB_videos/{name}/img", "OTB_videos/{group}/img"),
    origin=LASOT_ORIGIN,
    lists={},
)
_GOT10K_FOLDERS = ("train/{name}", "val/{name}", "{name}")
_GOT10K = _Layout(
    Tree(
        "got10k",
        ("GOT-10k", "GOT10k", "full_data"),
        ("train/*/absence.label", "val/*/absence.label", "*/absence.label"),
        ("train", "val"),
        {"train": (9335, 9335), "val": (180, 180)},
    ),
    boxes=tuple(f"{folder}/groundtruth.txt" for folder in _GOT10K_FOLDERS),
    images=_GOT10K_FOLDERS,
    flags=tuple((f"{folder}/absence.label",) for folder in _GOT10K_FOLDERS),
    absent_flag=GOT10K_ABSENT,
    origin=LASOT_ORIGIN,
    lists={"train": ("train/list.txt", "list.txt"), "val": ("val/list.txt", "list.txt")},
)
_INTERACTTRACK = _Layout(
    Tree("interacttrack", ("InteractTrack",), ("*/description.txt",), ("test",), {"test": (150, None)}),
    boxes=("{name}/groundtruth.txt",),
    images=("{name}/imgs",),
    flags=(("{name}/full_occlusion.txt", "{name}/out_of_view.txt"),),
    absent_flag=LASOT_ABSENT,
    lists={},
)


def lasot(root: str | Path, part: str) -> BoxPart:
    """LaSOT: `<class>/<class>-k/{img,groundtruth.txt,full_occlusion.txt,out_of_view.txt,nlp.txt}`, or the toolkit's
    `annos/<sequence>.txt` with `annos/{absent,att,nlp}` (HengLan/LaSOT_Evaluation_Toolkit@95bf38a), or both.

    Args:
        root: the tree, or the folder above it.
        part: "test" (280, from testing_set.txt), "train", or "all" that is there.

    Returns:
        The sequences; `missing` are listed and not here.

    Raises:
        UsageError: another part.
        InputError: the tree, the list or all of its sequences are missing.
    """
    return _LASOT.part(root, part, _Layout.sequence)


def tnl2k(root: str | Path, part: str) -> BoxPart:
    """TNL2K: `<sequence>/{imgs,groundtruth.txt,language.txt}`, also below `TNL2K_{test,train}_subset` or `test`,
    `train`, and the toolkit's `annos/{gt_rect,absent,att}` (wangxiao5791509/TNL2K_evaluation_toolkit@1a96f6e).

    Boxes and flags may differ by one line and are cut to the shorter (advSamp_monitor_bikeyellow: 929 and 930).
    Without `annos` a frame is absent where its box has no area: in the 700 test sequences that is where the flag says
    so. Args, returns and raises as for `lasot`; without a list "all" takes what is there.
    """
    return _TNL2K.part(root, part, _Layout.sequence)


def tnllt(root: str | Path, part: str) -> BoxPart:
    """TNLLT: `<sequence>/{imgs,groundtruth.txt,absent_label.txt,attributes.txt,language.txt}` and its split lists
    (Event-AHU/Open_VLTrack@fccc2c7). Its flag 1 means PRESENT. Args, returns and raises as for `lasot`.
    """
    return _TNLLT.part(root, part, _Layout.sequence)


def got10k(root: str | Path, part: str) -> BoxPart:
    """GOT-10k: `{train,val}/<sequence>/{00000001.jpg,groundtruth.txt,absence.label}` and `list.txt`; no sentences
    (got-10k/toolkit@956e728). Boxes count pixels from 1. Parts are "train" and "val". Returns and raises as `lasot`.
    """
    return _GOT10K.part(root, part, _Layout.sequence)


def otb_lang(root: str | Path, part: str) -> BoxPart:
    """OTB-lang (Z. Li et al., CVPR 2017): `OTB_videos/<sequence>/{img,groundtruth_rect.txt}`, sentences in
    `OTB_query_{test,train}/<sequence>.txt`, which name the sequences of a part. "Jogging-1" is the first target of
    `OTB_videos/Jogging` (groundtruth_rect.1.txt). Args and raises as for `lasot`, without "all".
    """
    _OTB_LANG.tree.check_part(part)
    folder = find_tree(_OTB_LANG.tree, root) / f"OTB_query_{part}"
    names = [path.stem for path in entries(folder, "*.txt")]
    here = [name for name in names if _OTB_LANG.first(folder.parent, _OTB_LANG.boxes, name) is not None]
    if not here:
        raise InputError(f"{folder}: {len(names)} sentences, none of a sequence in {folder.parent / 'OTB_videos'}")
    return BoxPart(tuple(_otb_sequence(folder, name) for name in here), tuple(n for n in names if n not in here))


def _otb_sequence(folder: Path, name: str) -> BoxSequence:
    return replace(_OTB_LANG.sequence(folder.parent, name), sentence=folder / f"{name}.txt")


def interacttrack(root: str | Path, part: str) -> BoxPart:
    """InteractTrack: `<sequence>/{imgs,groundtruth.txt,description.txt,switch.txt,scene.txt}`
    (NorahGreen/InteractTrack@5f149d4).

    Args:
        root: the tree, or the folder above it.
        part: "test", all there is. No list is published; a number belongs to the sequences that are there.

    Returns:
        `InteractiveBoxSequence` by name.

    Raises:
        UsageError: another part.
        InputError: the tree is missing.
    """
    return _INTERACTTRACK.part(root, part, _interactive)


def _interactive(layout: _Layout, top: Path, name: str) -> InteractiveBoxSequence:
    folder, plain = top / name, layout.sequence(top, name)
    return InteractiveBoxSequence(
        name,
        plain.boxes,
        plain.images,
        plain.flags,
        plain.absent_flag,
        sentence=folder / "description.txt",
        description=folder / "description.txt",
        switches=layout.first(top, ("{name}/switch.txt",), name),
        scene=layout.first(top, ("{name}/scene.txt",), name),
        interaction=layout.first(top, (f"{{name}}/{INTERACTION}",), name),
    )


READERS: Mapping[str, Callable[[str | Path, str], BoxPart]] = {
    "lasot": lasot,
    "tnl2k": tnl2k,
    "tnllt": tnllt,
    "otb-lang": otb_lang,
    "interacttrack": interacttrack,
}
TREES: Mapping[str, Tree] = {
    layout.tree.name: layout.tree for layout in (_LASOT, _TNL2K, _TNLLT, _OTB_LANG, _INTERACTTRACK)
}
