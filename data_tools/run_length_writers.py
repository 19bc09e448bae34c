"""Writes SynthTrack cases in the layouts whose masks are run lengths: MeViS, ReVOS, LV-VIS.

`trackgpt/data/referring_video` reads them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.writers import Counts, stem, write_frames, write_json
from trackgpt.geometry.masks import encode_rle
from trackgpt.synthtrack.clips import Case
from trackgpt.synthtrack.scene import SceneInstruction

TYPES = {"referring": 0, "reasoning": 1, "absent": 2}  # type_id of ReVOS


@dataclass
class MaskDictFile:
    """A mask_dict.json in the making: `{annotation id: [run lengths or null, one per frame]}`, ids counting up."""

    runs: dict[str, list[dict[str, Any] | None]] = field(default_factory=dict)

    def add(self, masks: np.ndarray) -> int:
        """Take in the masks of an object, bool (T, height, width); gives its annotation id."""
        key = len(self.runs)
        self.runs[str(key)] = [run_lengths(mask) if mask.any() else None for mask in masks]
        return key


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """A mask, bool (height, width), as COCO's run lengths with their size."""
    return {"size": list(mask.shape), "counts": encode_rle(mask)}


@dataclass
class MevisWriter:
    """MeViS: ``{train,valid_u,valid}/{JPEGImages,meta_expressions.json}``, and ``mask_dict.json`` but in valid.

    Entries list their objects (`obj_id`, places among the video's own) and annotation ids. Expressions that nothing
    matches do not fit and are skipped (`counts.skipped`).
    """

    root: Path
    counts: Counts = field(default_factory=Counts)
    expressions: dict[str, dict[str, Any]] = field(default_factory=dict)
    masks: dict[str, MaskDictFile] = field(default_factory=dict)

    def write(self, case: Case, part: str) -> None:
        clip, every = case.clip, range(len(case.clip.frames))
        said = [one for one in case.expressions if one.targets]
        write_frames(self.root / part / "JPEGImages" / clip.name, clip.frames, every)
        videos = self.expressions.setdefault(part, {})
        entries: dict[str, dict[str, Any]] = {str(index): {"exp": one.text} for index, one in enumerate(said)}
        if part != "valid":
            objects = annotate(self.masks.setdefault(part, MaskDictFile()), case, said)
            for index, one in enumerate(said):
                entries[str(index)] |= named(one.targets, objects)
        frames = [stem(index) for index in every]
        videos[clip.name] = {"vid_id": len(videos), "frames": frames, "expressions": entries}
        self.counts.add(videos=1, frames=len(every), expressions=len(said), skipped=len(case.expressions) - len(said))

    def close(self) -> None:
        for part, videos in self.expressions.items():
            write_json(self.root / part / "meta_expressions.json", {"videos": videos})
        for part, masks in self.masks.items():
            write_json(self.root / part / "mask_dict.json", masks.runs)


def annotate(masks: MaskDictFile, case: Case, said: list[SceneInstruction]) -> dict[int, tuple[int, int]]:
    """Add the actors that are talked about to a mask_dict: (place in the video, annotation id) by actor."""
    actors = sorted({actor for one in said for actor in one.targets})
    return {actor: (place, masks.add(case.clip.ids == actor)) for place, actor in enumerate(actors)}


def named(targets: tuple[int, ...], objects: dict[int, tuple[int, int]]) -> dict[str, list[int]]:
    """`obj_id` and `anno_id` of an entry."""
    return {"obj_id": [objects[one][0] for one in targets], "anno_id": [objects[one][1] for one in targets]}


@dataclass
class RevosWriter:
    """ReVOS: ``JPEGImages``, ``meta_expressions_{train,valid}_.json`` and two mask dicts for both parts.

    Names of videos hold a "/", as those of the real set do. `type_id` is 1 where a fact about the world decides, 2
    where nothing matches, otherwise 0. ``mask_dict_foreground.json`` holds the union of a video's annotated objects.
    """

    root: Path
    counts: Counts = field(default_factory=Counts)
    expressions: dict[str, dict[str, Any]] = field(default_factory=dict)
    masks: MaskDictFile = field(default_factory=MaskDictFile)
    foreground: dict[str, Any] = field(default_factory=dict)

    def write(self, case: Case, part: str) -> None:
        clip, every = case.clip, range(len(case.clip.frames))
        name = f"SynthTrack/{clip.name}"
        write_frames(self.root / "JPEGImages" / name, clip.frames, every)
        objects = annotate(self.masks, case, list(case.expressions))
        union = np.isin(clip.ids, list(objects))
        self.foreground[name] = {
            "masks_rle": [run_lengths(mask) for mask in union],
            "foreground_ratio": [float(mask.mean()) for mask in union],
        }
        entries = {
            str(index): {"exp": one.text, **named(one.targets, objects), "type_id": TYPES[revos_kind(one)]}
            for index, one in enumerate(case.expressions)
        }
        self.expressions.setdefault(part, {})[name] = {
            "vid_id": len(self.foreground) - 1,
            "height": clip.ids.shape[1],
            "width": clip.ids.shape[2],
            "frames": [stem(index) for index in every],
            "expressions": entries,
        }
        self.counts.add(videos=1, frames=len(every), expressions=len(entries))

    def close(self) -> None:
        for part, videos in self.expressions.items():
            write_json(self.root / f"meta_expressions_{part}_.json", {"videos": videos})
        write_json(self.root / "mask_dict.json", self.masks.runs)
        write_json(self.root / "mask_dict_foreground.json", self.foreground)


def revos_kind(said: SceneInstruction) -> str:
    """What ReVOS calls an expression: "referring", "reasoning" or "absent"."""
    if not said.targets:
        return "absent"
    return "reasoning" if said.kind == "implicit" or said.form == "all-fact" else "referring"


@dataclass
class LvVisWriter:
    """LV-VIS with VISA's expressions: ``train/{JPEGImages,mask_dict.json,meta_expressions.json}``.

    An expression is a category of things in the video, written as LVIS does ("fire_engine"), and means all of them;
    what is said of the case is not used.
    """

    root: Path
    counts: Counts = field(default_factory=Counts)
    videos: dict[str, Any] = field(default_factory=dict)
    masks: MaskDictFile = field(default_factory=MaskDictFile)

    def write(self, case: Case, part: str) -> None:
        clip, every = case.clip, range(len(case.clip.frames))
        write_frames(self.root / part / "JPEGImages" / clip.name, clip.frames, every)
        said = categories(case)
        objects = annotate(self.masks, case, said)
        entries = {str(index): {"exp": one.text, **named(one.targets, objects)} for index, one in enumerate(said)}
        frames = [stem(index) for index in every]
        self.videos[clip.name] = {"vid_id": len(self.videos), "frames": frames, "expressions": entries}
        self.counts.add(videos=1, frames=len(every), expressions=len(entries))

    def close(self) -> None:
        write_json(self.root / "train" / "meta_expressions.json", {"videos": self.videos})
        write_json(self.root / "train" / "mask_dict.json", self.masks.runs)


def categories(case: Case) -> list[SceneInstruction]:
    """A case's categories as LV-VIS says them, each meaning all its things that are ever seen."""
    seen = [actor for actor in case.scene.actors if (case.clip.ids == actor.id).any()]
    names = sorted({actor.category for actor in seen})
    return [
        SceneInstruction(
            text=name.replace(" ", "_"),
            kind="explicit",
            form="category",
            targets=tuple(actor.id for actor in seen if actor.category == name),
            answer="",
        )
        for name in names
    ]
