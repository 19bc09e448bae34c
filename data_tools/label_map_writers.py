"""Writes SynthTrack in the layouts whose masks are pictures: Refer-YouTube-VOS, Refer-DAVIS17, ReasonVOS, InsTrack,
VIPSeg.

`eval/kits/INSTRACK.md` describes InsTrack, `data_tools/vipseg.py` VIPSeg, `trackgpt/data/referring_video` the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_tools.instructions import Instruction, write_instructions
from data_tools.vipseg import INSTANCES
from data_tools.writers import (
    JPEG_QUALITY,
    Counts,
    single_target,
    stem,
    write_binary_masks,
    write_frames,
    write_json,
    write_masks,
)
from trackgpt.errors import UsageError
from trackgpt.synthtrack.catalog import CATEGORIES
from trackgpt.synthtrack.clips import Case
from trackgpt.synthtrack.scene import SceneInstruction

ANNOTATIONS = 4  # expressions of an object in Refer-DAVIS17
STRIDE = 5  # of the valid frames of Refer-YouTube-VOS
WORDINGS = 6  # of an instruction of InsTrack
TEXTURES = ("meadow", "sand", "road", "water", "wood", "brick", "sky", "wall", "night", "bokeh", "fabric", "tiles")
# Numbers of the categories of VIPSeg's writer: the ground first, from 1, then things.
STUFF_NUMBERS = {name: number for number, name in enumerate(TEXTURES, 1)}
THING_NUMBERS = {category.name: number for number, category in enumerate(CATEGORIES, len(TEXTURES) + 1)}


@dataclass
class ReferYoutubeVosWriter:
    """Refer-YouTube-VOS as ReferFormer and its successors read it: datasets.md, section 3.1.

    * train: every frame with its mask; expressions with `obj_id`, a string; ``meta.json`` with each object's category
      and the frames that show it.
    * valid: frames 0, 5, 10 and on, no masks; expressions without `obj_id`. As in the real file, the videos of the test
      set are listed among them, and nothing but the keys of the test file tells the two apart.
    * test: expressions alone; the frames of its videos are not written.

    An entry names one object: expressions with several targets or none do not fit and are skipped, which
    `counts.skipped` counts. Beyond the real tree, expressions of train carry `answer`, what a tracker should say, and
    ``valid_truth/Annotations/<video>/<exp_id>/<frame>.png`` holds the truth of valid in the form of a submission
    (binary, 0 or 255), so that scores can be computed.
    """

    root: Path
    counts: Counts = field(default_factory=Counts)
    expressions: dict[str, dict[str, Any]] = field(default_factory=dict)
    objects: dict[str, Any] = field(default_factory=dict)

    def write(self, case: Case, part: str) -> None:
        clip, said = case.clip, single_target(case)
        shown = range(0, len(clip.frames), 1 if part == "train" else STRIDE)
        if part != "test":
            write_frames(self.root / part / "JPEGImages" / clip.name, clip.frames, shown)
        if part == "train":
            write_masks(self.root / "train" / "Annotations" / clip.name, clip.ids, shown)
            self.objects[clip.name] = {"objects": seen_objects(case)}
        if part == "valid":
            self._write_truth(clip.name, clip.ids, said, shown)
        entries = {str(index): {"exp": one.text} for index, one in enumerate(said)}
        if part == "train":
            for index, one in enumerate(said):
                entries[str(index)] |= {"obj_id": str(one.targets[0]), "answer": one.answer}
        video = {"expressions": entries, "frames": [stem(index) for index in shown]}
        for listed in ("valid", "test") if part == "test" else (part,):
            self.expressions.setdefault(listed, {})[clip.name] = video
        written = 0 if part == "test" else len(shown)
        skipped = len(case.expressions) - len(said)
        self.counts.add(videos=1, frames=written, expressions=len(said), skipped=skipped)

    def _write_truth(self, name: str, ids: np.ndarray, said: list[SceneInstruction], shown: range) -> None:
        for index, one in enumerate(said):
            folder = self.root / "valid_truth" / "Annotations" / name / str(index)
            write_binary_masks(folder, ids == one.targets[0], shown)

    def close(self) -> None:
        for part, videos in self.expressions.items():
            write_json(self.root / "meta_expressions" / part / "meta_expressions.json", {"videos": videos})
        if self.objects:
            write_json(self.root / "train" / "meta.json", {"videos": self.objects})


def seen_objects(case: Case) -> dict[str, Any]:
    """Category and frames of every object that is ever seen, as the meta.json of YouTube-VOS has them."""
    found = {}
    for actor in case.scene.actors:
        frames = [stem(int(index)) for index in np.flatnonzero((case.clip.ids == actor.id).any(axis=(1, 2)))]
        if frames:
            found[str(actor.id)] = {"category": actor.category, "frames": frames}
    return found


@dataclass
class ReferDavis17Writer:
    """Refer-DAVIS17 as converted by ReferFormer's tool: datasets.md, section 3.2.

    ``{train,valid}/{JPEGImages,Annotations}/<video>/%05d.*``, ``{train,valid}/meta.json`` and
    ``meta_expressions/{train,valid}/meta_expressions.json``. Each object has four expressions, one for each annotation
    pass, with the id 4 * (place of the object in the string sort of `obj_id`) + k; here they are four wordings of one
    expression. Objects that no expression names become background, and the others are numbered 1, 2, ... without a
    gap, for the evaluation of DAVIS takes the place in that order for the label.

    Expressions with several targets or none do not fit and are skipped (`counts.skipped`). ``DAVIS/``, the second
    copy that the official evaluation reads, is not written.
    """

    root: Path
    counts: Counts = field(default_factory=Counts)
    expressions: dict[str, dict[str, Any]] = field(default_factory=dict)
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)

    def write(self, case: Case, part: str) -> None:
        clip = case.clip
        labels = self._labels(case)
        table = np.zeros(256, np.uint8)
        for actor, label in labels.items():
            table[actor] = int(label)
        every = range(len(clip.frames))
        write_frames(self.root / part / "JPEGImages" / clip.name, clip.frames, every)
        write_masks(self.root / part / "Annotations" / clip.name, table[clip.ids], every)
        entries = object_major(single_target(case), labels)
        video = {"expressions": entries, "frames": [stem(index) for index in every]}
        self.expressions.setdefault(part, {})[clip.name] = video
        categories = {actor.id: actor.category for actor in case.scene.actors}
        named = {label: {"category": categories[actor]} for actor, label in labels.items()}
        self.objects.setdefault(part, {})[clip.name] = {"objects": named}
        skipped = len(case.expressions) - len(entries)
        self.counts.add(videos=1, frames=len(every), expressions=len(entries), skipped=skipped)

    @staticmethod
    def _labels(case: Case) -> dict[int, str]:
        """The label of every actor that expressions name, in the order of actors."""
        said = [one.targets[0] for one in single_target(case)]
        wrong = [actor for actor in sorted(set(said)) if said.count(actor) != ANNOTATIONS]
        if wrong:
            raise UsageError(
                f"{case.clip.name}: object {wrong[0]} has {said.count(wrong[0])} expressions; "
                f"refer-davis17 wants {ANNOTATIONS} of each object that is named at all"
            )
        return {actor: str(place) for place, actor in enumerate(sorted(set(said)), 1)}

    def close(self) -> None:
        for part, videos in self.expressions.items():
            write_json(self.root / "meta_expressions" / part / "meta_expressions.json", {"videos": videos})
            write_json(self.root / part / "meta.json", {"videos": self.objects[part]})


def object_major(said: list[SceneInstruction], labels: dict[int, str]) -> dict[str, dict[str, str]]:
    """Entries by id, 4 * (place of the label in the string sort) + k."""
    by_label = {label: [one.text for one in said if one.targets[0] == actor] for actor, label in labels.items()}
    return {
        str(ANNOTATIONS * place + k): {"exp": by_label[label][k], "obj_id": label}
        for place, label in enumerate(sorted(by_label))
        for k in range(ANNOTATIONS)
    }


@dataclass
class ReasonVosWriter:
    """ReasonVOS as its authors release it: datasets.md, section 3.3, and showlab/VideoLISA@6625d43:benchmark_check.py.

    ``JPEGImages/<video>/%05d.jpg``, ``Annotations/<source>_<video>_<obj_id>/%05d.png`` (binary, 0 or 255) and
    ``meta_expressions.json``, whose expressions are a list. There is one part. Expressions with several targets or none
    do not fit and are skipped (`counts.skipped`).
    """

    root: Path
    counts: Counts = field(default_factory=Counts)
    videos: dict[str, Any] = field(default_factory=dict)

    def write(self, case: Case, part: str) -> None:
        clip, said = case.clip, single_target(case)
        every = range(len(clip.frames))
        write_frames(self.root / "JPEGImages" / clip.name, clip.frames, every)
        for actor in sorted({one.targets[0] for one in said}):
            folder = self.root / "Annotations" / f"SynthTrack_{clip.name}_{actor}"
            write_binary_masks(folder, clip.ids == actor, every)
        entries = [
            {"exp_id": index, "exp_text": one.text, "obj_id": one.targets[0], "is_sent": one.wording > 0}
            for index, one in enumerate(said)
        ]
        frames = [stem(index) for index in every]
        self.videos[clip.name] = {"source": "SynthTrack", "frames": frames, "expressions": entries}
        self.counts.add(videos=1, frames=len(every), expressions=len(said), skipped=len(case.expressions) - len(said))

    def close(self) -> None:
        write_json(self.root / "meta_expressions.json", {"videos": self.videos})


@dataclass
class InsTrackWriter:
    """InsTrack in the layout that this project proposes: `eval/kits/INSTRACK.md`.

    ``{train,test}/{JPEGImages,Annotations}/<video>/%05d.*`` and
    ``meta_expressions/{train,test}/meta_expressions.json``. A case holds its instructions one after another, each in
    six wordings.
    """

    root: Path
    counts: Counts = field(default_factory=Counts)
    expressions: dict[str, dict[str, Any]] = field(default_factory=dict)

    def write(self, case: Case, part: str) -> None:
        clip, every = case.clip, range(len(case.clip.frames))
        entries = {str(index): self._entry(case, index) for index in range(len(case.expressions))}
        write_frames(self.root / part / "JPEGImages" / clip.name, clip.frames, every)
        write_masks(self.root / part / "Annotations" / clip.name, clip.ids, every)
        frames = [stem(index) for index in every]
        self.expressions.setdefault(part, {})[clip.name] = {"expressions": entries, "frames": frames}
        self.counts.add(videos=1, frames=len(every), expressions=len(entries))

    @staticmethod
    def _entry(case: Case, index: int) -> dict[str, Any]:
        group, wording = divmod(index, WORDINGS)
        one = case.expressions[index]
        alike = case.expressions[WORDINGS * group : WORDINGS * (group + 1)]
        if len(alike) != WORDINGS or {other.targets for other in alike} != {one.targets}:
            raise UsageError(
                f"{case.clip.name}: instruction {group} has {len(alike)} wordings of objects "
                f"{sorted({other.targets for other in alike})}; instrack wants {WORDINGS} of the same objects"
            )
        return {
            "exp": one.text,
            "obj_id": [str(actor) for actor in one.targets],
            "group": group,
            "wording": wording,
            "answer": one.answer,
        }

    def close(self) -> None:
        for part, videos in self.expressions.items():
            write_json(self.root / "meta_expressions" / part / "meta_expressions.json", {"videos": videos})


@dataclass
class VipSegWriter:
    """VIPSeg: ``imgs/<video>/%08d.jpg``, ``panomasks/<video>/%08d.png`` (16 bit), lists of videos and categories.

    The ground is stuff, called after its texture; things have the value 100 x number + instance. Frames are called by
    their number in a film of which every tenth is kept. The part "valid" is listed in ``val.txt``.

    Beyond the real tree, ``instructions.jsonl`` holds one instruction about each video, implicit if there is one, in
    the form that `build-instrack` reads; those of valid are for InsTrack's test part.
    """

    root: Path
    counts: Counts = field(default_factory=Counts)
    videos: dict[str, list[str]] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)

    def write(self, case: Case, part: str) -> None:
        clip, values = case.clip, self._values(case)
        table = np.full(256, STUFF_NUMBERS[str(case.scene.background["texture"])], np.uint16)
        for actor, value in values.items():
            table[actor] = value
        for kind in ("imgs", "panomasks"):
            (self.root / kind / clip.name).mkdir(parents=True, exist_ok=True)
        for index, frame in enumerate(clip.frames):
            name = f"{10 * index:08d}"
            Image.fromarray(frame).save(self.root / "imgs" / clip.name / f"{name}.jpg", quality=JPEG_QUALITY)
            Image.fromarray(table[clip.ids[index]]).save(self.root / "panomasks" / clip.name / f"{name}.png")
        said = min(case.expressions, key=lambda one: (one.kind != "implicit", not one.targets))
        objects = tuple(values[target] for target in said.targets)
        split = "train" if part == "train" else "test"
        self.instructions.append(Instruction("vipseg", clip.name, objects, split, said.text, said.answer))
        self.videos.setdefault("train" if part == "train" else "val", []).append(clip.name)
        self.counts.add(videos=1, frames=len(clip.frames), expressions=1, skipped=len(case.expressions) - 1)

    @staticmethod
    def _values(case: Case) -> dict[int, int]:
        """The value of every actor: instances of a category are counted from 0."""
        values: dict[int, int] = {}
        for actor in case.scene.actors:
            first = INSTANCES * THING_NUMBERS[actor.category]
            values[actor.id] = first + sum(first <= other < first + INSTANCES for other in values.values())
        return values

    def close(self) -> None:
        categories = [(name, 0) for name in STUFF_NUMBERS] + [(name.replace(" ", "_"), 1) for name in THING_NUMBERS]
        rows = [
            {"id": place, "name": name, "isthing": thing, "color": [place, 255 - place, 128]}
            for place, (name, thing) in enumerate(categories)
        ]
        write_json(self.root / "panoVIPSeg_categories.json", rows)
        for part, names in self.videos.items():
            (self.root / f"{part}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        write_instructions(self.root / "instructions.jsonl", self.instructions)
