"""Writes SynthTrack cases in the layouts of real data; `shared/reference/datasets.md` is their source.

Every writer takes cases one by one and writes its JSON when closed. Pictures are JPEG of quality 92, masks indexed PNG
with the palette of DAVIS, JSON is indented by one space; the same cases give the same bytes.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from trackgpt.data.synthtrack.clips import Case
from trackgpt.data.synthtrack.scene import Expression
from trackgpt.errors import OutputError, UsageError
from trackgpt.export.davis import PALETTE

ANNOTATIONS = 4
JPEG_QUALITY = 92
MANIFEST = "synthtrack.json"
STRIDE = 5  # of the valid frames of Refer-YouTube-VOS
_MADE = frozenset(
    ("videos", "truth", "expressions.json", "JPEGImages", "Annotations")
    + ("meta_expressions", "train", "valid", "valid_truth")
)


@dataclass
class Counts:
    """What a writer has written; `skipped` expressions did not fit its format."""

    videos: int = 0
    frames: int = 0
    expressions: int = 0
    skipped: int = 0


class LayoutWriter(Protocol):
    """Writes cases below a folder."""

    counts: Counts

    def write(self, case: Case, part: str) -> None:
        """Write one video into a part of the data set: "train", "valid" or "test"."""
        ...

    def close(self) -> None:
        """Write what describes all videos."""
        ...


def stem(index: int) -> str:
    """The name of a frame, "00007" for frame 7."""
    return f"{index:05d}"


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented by one space, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_frames(folder: Path, frames: np.ndarray, indices: range) -> None:
    """Write `folder`/%05d.jpg of some frames of a video, uint8 (T, height, width, 3)."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in indices:
        Image.fromarray(frames[index]).save(folder / f"{stem(index)}.jpg", quality=JPEG_QUALITY)


def write_masks(folder: Path, ids: np.ndarray, indices: range) -> None:
    """Write `folder`/%05d.png, indexed with the palette of DAVIS, of some id maps, uint8 (T, height, width)."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in indices:
        picture = Image.fromarray(ids[index])
        picture.putpalette(PALETTE)
        picture.save(folder / f"{stem(index)}.png")


def take_folder(out: Path, overwrite: bool) -> None:
    """Make a folder to write into, or empty one that `make` wrote before.

    Only names that writers make are removed, and only beside a manifest: a stranger's files stay.

    Raises:
        OutputError: OUT01, there is a file, or a folder that is not empty and may not or must not be replaced.
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; wanted a folder; choose another name", "OUT01")
    present = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    if present and not overwrite:
        raise OutputError(f"{out}: exists and is not empty; needs --overwrite, or another folder", "OUT01")
    if present and MANIFEST not in present:
        raise OutputError(
            f"{out}: holds {min(present)} but no {MANIFEST}, so it was not made by `data_tools make`; "
            "choose another folder",
            "OUT01",
        )
    out.mkdir(parents=True, exist_ok=True)
    for name in sorted(present & _MADE):
        entry = out / name
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def single_target(case: Case) -> list[Expression]:
    """The expressions of a case that mean exactly one object, all that an `obj_id` can say."""
    return [expression for expression in case.expressions if len(expression.targets) == 1]


def described(case: Case) -> dict[str, Any]:
    """Everything that is known of a case, for `expressions.json`.

    The form is that of section 1 of datasets.md, with a list as `obj_id` as MeViS has it: several targets in reading
    order, or none. The rest (kind, form, answer, events, objects) is ours.
    """
    scene, (frames, height, width) = case.scene, case.clip.ids.shape
    return {
        "seed": scene.seed,
        "split": scene.split,
        "scene": scene.kind,
        "difficulty": scene.difficulty,
        "fps": scene.fps,
        "size": [width, height],
        "frames": [stem(index) for index in range(frames)],
        "objects": {
            str(actor.id): {"category": actor.category, "colour": actor.colour, "size": actor.size}
            for actor in scene.actors
        },
        "events": [[frame, what, actor] for frame, what, actor in scene.events],
        "expressions": {
            str(index): {
                "exp": said.text,
                "obj_id": list(said.targets),
                "kind": said.kind,
                "form": said.form,
                "answer": said.answer,
            }
            for index, said in enumerate(case.expressions)
        },
    }


@dataclass
class FolderWriter:
    """Frames and masks as DAVIS keeps them: the per-video folders of datasets.md, sections 3.1 and 3.2.

    ``JPEGImages/<video>/%05d.jpg``, ``Annotations/<video>/%05d.png`` and ``expressions.json`` (see `described`).
    """

    root: Path
    counts: Counts = field(default_factory=Counts)
    videos: dict[str, Any] = field(default_factory=dict)

    def write(self, case: Case, part: str) -> None:
        clip = case.clip
        self.write_pictures(case)
        self.videos[clip.name] = described(case)
        self.counts.videos += 1
        self.counts.frames += len(clip.frames)
        self.counts.expressions += len(case.expressions)

    def write_pictures(self, case: Case) -> None:
        """Write a case's frames and masks."""
        every = range(len(case.clip.frames))
        write_frames(self.root / "JPEGImages" / case.clip.name, case.clip.frames, every)
        write_masks(self.root / "Annotations" / case.clip.name, case.clip.ids, every)

    def close(self) -> None:
        write_json(self.root / "expressions.json", {"videos": self.videos})


class Mp4Writer(FolderWriter):
    """One video file a scene, masks beside: no public set has this form, but it is what people bring.

    ``videos/<video>.mp4`` (H.264, yuv420p: sides must be even), ``truth/<video>/%05d.png`` as the Annotations of
    datasets.md, section 3.2, and ``expressions.json`` (see `described`).
    """

    def write_pictures(self, case: Case) -> None:
        """Write a case's video file and masks."""
        from trackgpt.video.writer import VideoWriter

        clip = case.clip
        path = self.root / "videos" / f"{clip.name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        with VideoWriter(path, clip.fps, clip.frames.shape[1:3]) as writer:
            for index, frame in enumerate(clip.frames):
                writer.write(frame, index / clip.fps)
        write_masks(self.root / "truth" / clip.name, clip.ids, range(len(clip.ids)))


@dataclass
class ReferYoutubeVosWriter:
    """Refer-YouTube-VOS as ReferFormer and its successors read it: datasets.md, section 3.1.

    * train: every frame with its mask; expressions with `obj_id`, a string; ``meta.json`` with each object's category
      and the frames that show it.
    * valid: frames 0, 5, 10 and on, no masks; expressions without `obj_id`. As in the real file, the videos of the test
      set are listed among them, and nothing but the keys of the test file tells the two apart.
    * test: expressions alone; the frames of its videos are not written.

    An entry names one object: expressions with several targets or none do not fit and are skipped, which
    `counts.skipped` counts. Beyond the real tree, ``valid_truth/Annotations/<video>/<exp_id>/<frame>.png`` holds the
    truth of valid in the form of a submission (binary, 0 or 255), so that scores can be computed.
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
            self.counts.frames += len(shown)
        if part == "train":
            write_masks(self.root / "train" / "Annotations" / clip.name, clip.ids, shown)
            self.objects[clip.name] = {"objects": _objects(case)}
        if part == "valid":
            self._write_truth(clip.name, clip.ids, said, shown)
        entries = {str(index): {"exp": one.text} for index, one in enumerate(said)}
        if part == "train":
            for index, one in enumerate(said):
                entries[str(index)]["obj_id"] = str(one.targets[0])
        video = {"expressions": entries, "frames": [stem(index) for index in shown]}
        for listed in ("valid", "test") if part == "test" else (part,):
            self.expressions.setdefault(listed, {})[clip.name] = video
        self.counts.videos += 1
        self.counts.expressions += len(said)
        self.counts.skipped += len(case.expressions) - len(said)

    def _write_truth(self, name: str, ids: np.ndarray, said: list[Expression], shown: range) -> None:
        for index, one in enumerate(said):
            folder = self.root / "valid_truth" / "Annotations" / name / str(index)
            folder.mkdir(parents=True, exist_ok=True)
            for frame in shown:
                mask = np.where(ids[frame] == one.targets[0], np.uint8(255), np.uint8(0))
                Image.fromarray(mask).save(folder / f"{stem(frame)}.png")

    def close(self) -> None:
        for part, videos in self.expressions.items():
            write_json(self.root / "meta_expressions" / part / "meta_expressions.json", {"videos": videos})
        if self.objects:
            write_json(self.root / "train" / "meta.json", {"videos": self.objects})


def _objects(case: Case) -> dict[str, Any]:
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
        self.counts.videos += 1
        self.counts.frames += len(every)
        self.counts.expressions += len(entries)
        self.counts.skipped += len(case.expressions) - len(entries)

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


def object_major(said: list[Expression], labels: dict[int, str]) -> dict[str, dict[str, str]]:
    """Entries by id, 4 * (place of the label in the string sort) + k."""
    by_label = {label: [one.text for one in said if one.targets[0] == actor] for actor, label in labels.items()}
    return {
        str(ANNOTATIONS * place + k): {"exp": by_label[label][k], "obj_id": label}
        for place, label in enumerate(sorted(by_label))
        for k in range(ANNOTATIONS)
    }
