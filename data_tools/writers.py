"""Writes SynthTrack cases to disk: what all layouts share, and the two that are no benchmark's.

The layouts of real data stand in `label_map_writers` and `run_length_writers`. Every writer takes cases one by one and
writes its JSON when closed. Pictures are JPEG of quality 92, masks indexed PNG with the palette of DAVIS, JSON is
indented by one space; the same cases give the same bytes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from trackgpt.data.trees import read_object
from trackgpt.errors import InputError
from trackgpt.export.davis import PALETTE
from trackgpt.files import refuse_existing, refuse_strangers
from trackgpt.synthtrack.clips import Case
from trackgpt.synthtrack.scene import SceneInstruction

JPEG_QUALITY = 92
MANIFEST = "synthtrack.json"
_MADE = frozenset(
    ("videos", "truth", "expressions.json", "JPEGImages", "Annotations")
    + ("meta_expressions", "train", "valid", "valid_truth", "valid_u", "test")
    + ("meta_expressions.json", "meta_expressions_train_.json", "meta_expressions_valid_.json")
    + ("mask_dict.json", "mask_dict_foreground.json")
    + ("imgs", "panomasks", "panoVIPSeg_categories.json", "train.txt", "val.txt", "instructions.jsonl")
    + ("ade20k", "coco", "cocostuff", "mapillary", "vlpart", "PartImageNet", "refer_seg", "reason_seg", "llava_dataset")
    + ("ref-youtube-vos", "ref-davis", "mevis", "ReVOS", "instrack", "VIPSeg")
)


@dataclass
class Counts:
    """What a writer has written; `skipped` expressions did not fit its format."""

    videos: int = 0
    frames: int = 0
    expressions: int = 0
    skipped: int = 0

    def add_all(self, other: Counts) -> None:
        """Count what another writer has written too."""
        self.add(other.videos, other.frames, other.expressions, other.skipped)

    def add(self, videos: int = 0, frames: int = 0, expressions: int = 0, skipped: int = 0) -> None:
        """Count what was written of one more case."""
        self.videos += videos
        self.frames += frames
        self.expressions += expressions
        self.skipped += skipped


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


def write_binary_masks(folder: Path, masks: np.ndarray, indices: range) -> None:
    """Write `folder`/%05d.png, grey, 0 or 255, of some masks of an object, bool (T, height, width)."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in indices:
        Image.fromarray(np.where(masks[index], np.uint8(255), np.uint8(0))).save(folder / f"{stem(index)}.png")


def take_folder(
    out: Path, overwrite: bool, made: Collection[str] = _MADE, manifest: str = MANIFEST, verb: str = "make"
) -> None:
    """Make a folder to write into, or empty one that a verb wrote before.

    Only what it wrote is removed, and only where there is its manifest: other files stay.

    Args:
        out: the folder.
        overwrite: it may be emptied.
        made: names that the verb makes in it, for a manifest that does not list them ("holds").
        manifest: a file that it writes before these.
        verb: of `python -m data_tools`.

    Raises:
        OutputError: OUT01, there is a file, or a folder that is not empty and may not or must not be replaced.
    """
    refuse_existing(out, overwrite)
    present = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    refuse_strangers(out, present, (manifest,), f"it was not made by `data_tools {verb}`")
    out.mkdir(parents=True, exist_ok=True)
    for name in sorted(present.intersection(_held(out / manifest) or made)):
        entry = out / name
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _held(manifest: Path) -> set[str]:
    """Names that a manifest lists as written beside it; none where it is missing or of a run that was cut short."""
    try:
        held = read_object(manifest).get("holds")
    except InputError:
        return set()
    return {name for name in held if isinstance(name, str)} if isinstance(held, list) else set()


def single_target(case: Case) -> list[SceneInstruction]:
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
        self.counts.add(videos=1, frames=len(clip.frames), expressions=len(case.expressions))

    def write_pictures(self, case: Case) -> None:
        """Write a case's frames and masks."""
        every = range(len(case.clip.frames))
        write_frames(self.root / "JPEGImages" / case.clip.name, case.clip.frames, every)
        write_masks(self.root / "Annotations" / case.clip.name, case.clip.ids, every)

    def close(self) -> None:
        write_json(self.root / "expressions.json", {"videos": self.videos})


class Mp4Writer(FolderWriter):
    """One video file per scene, with masks next to it: no public set has this form, but it is what people bring.

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
