"""The layouts that `make` can write: who writes each, which parts it has, which of a stage's folders it lies in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path

from data_tools import box_writers, image_writers
from data_tools.checks.stages import STAGES
from data_tools.label_map_writers import (
    InsTrackWriter,
    ReasonVosWriter,
    ReferDavis17Writer,
    ReferYoutubeVosWriter,
    VipSegWriter,
)
from data_tools.run_length_writers import LvVisWriter, MevisWriter, RevosWriter
from data_tools.writers import Counts, FolderWriter, LayoutWriter, Mp4Writer, single_target
from trackgpt.synthtrack.clips import Case


class Layout(StrEnum):
    """What `make` can write: a layout of one data set, or all that a stage of the recipe wants."""

    mp4 = "mp4"
    folder = "folder"
    refer_youtube_vos = "refer-youtube-vos"
    refer_davis17 = "refer-davis17"
    mevis = "mevis"
    revos = "revos"
    lv_vis = "lv-vis"
    reason_vos = "reason-vos"
    instrack = "instrack"
    vipseg = "vipseg"
    ade20k = "ade20k"
    coco_stuff = "coco-stuff"
    mapillary = "mapillary"
    paco_lvis = "paco-lvis"
    pascal_part = "pascal-part"
    part_imagenet = "part-imagenet"
    refclef = "refclef"
    refcoco = "refcoco"
    refcoco_plus = "refcoco+"
    refcocog = "refcocog"
    grefcoco = "grefcoco"
    reason_seg = "reason-seg"
    llava_instruct = "llava-instruct"
    lasot = "lasot"
    tnl2k = "tnl2k"
    tnllt = "tnllt"
    interacttrack = "interacttrack"
    rmot26 = "rmot26"
    mot = "mot"
    stage1 = "stage1"
    stage2 = "stage2"
    stage3 = "stage3"


class Split(StrEnum):
    """The two worlds of SynthTrack."""

    train = "train"
    test = "test"


Part = tuple[str, Split, float]
"""A part of a data set: its name, the split of its scenes, how many videos it has for each one that is asked for."""

TRAIN: Part = ("train", Split.train, 1.0)
VALID: Part = ("valid", Split.test, 1.0)
TEST: Part = ("test", Split.test, 1.0)
HELD = 32
"""Videos that are held in memory until they are written."""
WritePart = Callable[[Path, Iterable[Case], str], Counts]


@dataclass(frozen=True)
class Form:
    """How a layout is written.

    Attributes:
        writer: makes its writer for a folder.
        parts: those that the real set has.
        folder: where it lies below the root of a stage; "" where it shares the root with others.
        fits: whether a case says something that the layout can hold.
        one_frame: its cases are pictures, so no further frames are drawn.
        fewest: the frames that a video must have.
    """

    writer: Callable[[Path], LayoutWriter]
    parts: tuple[Part, ...]
    folder: str = ""
    fits: Callable[[Case], bool] = lambda case: True
    one_frame: bool = False
    fewest: int = 1


@dataclass
class PartsWriter:
    """Writes through a function that takes many cases of a part at once (`LayoutWriter`).

    Attributes:
        write_part: writes a part below a root.
        root: the root.
        held: cases of a part that are written together, for a function that adds to what is there; 0 for all of them,
            when it is closed.
    """

    write_part: WritePart
    root: Path
    held: int = 0
    counts: Counts = field(default_factory=Counts)
    cases: dict[str, list[Case]] = field(default_factory=dict)

    def write(self, case: Case, part: str) -> None:
        waiting = self.cases.setdefault(part, [])
        waiting.append(case)
        if len(waiting) == self.held:
            self._write_waiting(part)

    def close(self) -> None:
        for part in self.cases:
            self._write_waiting(part)

    def _write_waiting(self, part: str) -> None:
        waiting, self.cases[part] = self.cases[part], []
        if waiting:
            self.counts.add_all(self.write_part(self.root, waiting, part))


def _pictures(write_part: WritePart, *parts: Part) -> Form:
    return Form(partial(PartsWriter, write_part), parts, one_frame=True)


def _says_one(case: Case) -> bool:
    return bool(single_target(case))


def _sequences(write_part: WritePart, *parts: Part, fewest: int = 1) -> Form:
    return Form(partial(PartsWriter, write_part, held=HELD), parts, fits=_says_one, fewest=fewest)


FORMS: Mapping[Layout, Form] = {
    Layout.mp4: Form(Mp4Writer, (TRAIN, VALID)),
    Layout.folder: Form(FolderWriter, (TRAIN, VALID)),
    Layout.refer_youtube_vos: Form(
        ReferYoutubeVosWriter, (TRAIN, VALID, ("test", Split.test, 1.5)), "ref-youtube-vos", _says_one
    ),
    Layout.refer_davis17: Form(ReferDavis17Writer, (TRAIN, VALID), "ref-davis", _says_one),
    Layout.mevis: Form(
        MevisWriter,
        (TRAIN, ("valid_u", Split.test, 1.0), VALID),
        "mevis",
        lambda case: any(one.targets for one in case.expressions),
    ),
    Layout.revos: Form(RevosWriter, (TRAIN, VALID), "ReVOS"),
    Layout.lv_vis: Form(LvVisWriter, (TRAIN,), "lvvis"),
    Layout.reason_vos: Form(ReasonVosWriter, (VALID,), "ReasonVOS", _says_one),
    Layout.instrack: Form(InsTrackWriter, (TRAIN, TEST), "instrack", lambda case: bool(case.expressions)),
    Layout.vipseg: Form(VipSegWriter, (TRAIN, VALID), "VIPSeg", lambda case: bool(case.expressions)),
    Layout.ade20k: _pictures(image_writers.write_ade20k, TRAIN, VALID),
    Layout.coco_stuff: _pictures(image_writers.write_coco_stuff, TRAIN, VALID),
    Layout.mapillary: _pictures(image_writers.write_mapillary, TRAIN, VALID),
    Layout.paco_lvis: _pictures(image_writers.write_paco_lvis, TRAIN, VALID),
    Layout.pascal_part: _pictures(image_writers.write_pascal_part, TRAIN, VALID),
    Layout.part_imagenet: _pictures(image_writers.write_part_imagenet, TRAIN, VALID),
    Layout.refclef: _pictures(image_writers.write_refclef, TRAIN, VALID, TEST),
    Layout.refcoco: _pictures(image_writers.write_refcoco, TRAIN, VALID, TEST),
    Layout.refcoco_plus: _pictures(image_writers.write_refcoco_plus, TRAIN, VALID, TEST),
    Layout.refcocog: _pictures(image_writers.write_refcocog, TRAIN, VALID, TEST),
    Layout.grefcoco: _pictures(image_writers.write_grefcoco, TRAIN, VALID, TEST),
    Layout.reason_seg: _pictures(image_writers.write_reason_seg, TRAIN, VALID, TEST),
    Layout.llava_instruct: _pictures(image_writers.write_llava_instruct, TRAIN),
    Layout.lasot: _sequences(box_writers.write_lasot, TRAIN, TEST),
    Layout.tnl2k: _sequences(box_writers.write_tnl2k, TRAIN, TEST),
    Layout.tnllt: _sequences(box_writers.write_tnllt, TRAIN, TEST),
    Layout.interacttrack: _sequences(box_writers.write_interacttrack, TEST),
    Layout.rmot26: _sequences(box_writers.write_rmot26, TRAIN, TEST, fewest=box_writers.CLIP_FRAMES + 1),
    Layout.mot: _sequences(box_writers.write_mot, TRAIN, VALID, TEST),
}


def members(layout: Layout, root: Path) -> list[tuple[Layout, Path]]:
    """The layouts that an order for one means, with their folders: the members of a stage, or the layout itself.

    Below the root of a stage image sets lie as in LISA's ``dataset/``, video sets in folders of their own.
    """
    if layout not in STAGES:
        return [(layout, root)]
    return [(Layout(name), root / FORMS[Layout(name)].folder) for name in STAGES[layout].names]
