"""Builds InsTrack from the data sets that its videos are from: ``python -m data_tools build-instrack``.

What is said of which video is in an annotation file (`data_tools/INSTRUCTIONS.md`); what is made is the tree of
`eval/kits/INSTRACK.md`. Frames are copied, masks are drawn anew: of a video's objects those that instructions mean are
numbered 1, 2, ... in the order of first mention, and everything else is background. A video is written to a temporary
folder and moved when it is complete; ``instrack_build.json`` records what was done, so that an interrupted build is
resumed. Only files that a build of this folder recorded are ever replaced.

InsTrack: TrackGPT, section 3.6: 143 videos for training and 40 for tests, 32 of Refer-DAVIS17 and 151 of VIPSeg, one
instruction each, written by a person and rephrased five times.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import typer
from PIL import Image

from data_tools import vipseg
from data_tools.instructions import PARAPHRASES, SPLITS, Instruction, read_instructions
from data_tools.writers import stem
from trackgpt.data.referring_video import TREES, refer_davis17
from trackgpt.data.trees import find_tree, listing, read_json
from trackgpt.data.videos import Video
from trackgpt.errors import InputError, OutputError
from trackgpt.export.davis import PALETTE
from trackgpt.files import replacing, writing

EXPECTED: Mapping[str, int] = {split: int(TREES["instrack"].published[split][0] or 0) for split in SPLITS}
RECORD = "instrack_build.json"


class SourceVideo(Protocol):
    """A video of a data set that InsTrack takes from."""

    @property
    def images(self) -> Sequence[Path]:
        """Its frames, in order."""
        ...

    def labels(self, objects: Sequence[int], t: int) -> np.ndarray:
        """Frame t: the place of each pixel's object in `objects`, from 1; 0 elsewhere: uint8 (height, width).

        Raises:
            InputError: the mask is missing or damaged.
        """
        ...

    def shown(self) -> str:
        """Which objects the first mask shows, for errors."""
        ...


@dataclass(frozen=True)
class DavisVideo:
    """A video of Refer-DAVIS17; objects are values of its label maps."""

    video: Video

    @property
    def images(self) -> Sequence[Path]:
        return self.video.images

    def labels(self, objects: Sequence[int], t: int) -> np.ndarray:
        assert self.video.masks is not None
        masks = [self.video.masks.mask((str(key),), t) for key in objects]
        drawn = np.zeros(self.video.masks.mask((), t).shape, np.uint8)
        for place, mask in enumerate(masks, 1):
            drawn[mask] = place
        return drawn

    def shown(self) -> str:
        seen = [value for value in range(1, 32) if self.labels([value], 0).any()]
        return ", ".join(map(str, seen)) or "nothing"


@dataclass(frozen=True)
class VipSegVideo:
    """A video of VIPSeg; objects are values of its panoptic masks."""

    video: vipseg.PanopticVideo
    categories: Mapping[int, str]

    @property
    def images(self) -> Sequence[Path]:
        return self.video.images

    def labels(self, objects: Sequence[int], t: int) -> np.ndarray:
        values = self.video.values(t)
        drawn = np.zeros(values.shape, np.uint8)
        for place, key in enumerate(objects, 1):
            drawn[values == key] = place
        return drawn

    def shown(self) -> str:
        values = np.unique(self.video.values(0))
        return vipseg.described([int(value) for value in values if value], self.categories)


OpenVideo = Callable[[str], SourceVideo]
"""A video of a data set by name; InputError when it is not there or not whole."""


def open_davis(root: Path) -> OpenVideo:
    """The videos of a Refer-DAVIS17 tree, of whichever parts it has.

    Raises:
        InputError: the tree is not there or damaged.
    """
    top = find_tree(TREES["refer-davis17"], root)
    parts = [path.parent.name for path in sorted(top.glob("meta_expressions/*/meta_expressions.json"))]
    videos = {video.name: video for part in parts for video in refer_davis17(top, part)}

    def open_video(name: str) -> SourceVideo:
        if name not in videos:
            raise InputError(f"{top}: no video {name} in its parts {', '.join(parts)}")
        lacking = [path for path in videos[name].images if not path.is_file()]
        if lacking:
            raise InputError(f"{lacking[0]}: missing; {lacking[0].parent} holds {listing(lacking[0].parent)}")
        return DavisVideo(videos[name])

    return open_video


def open_vipseg(root: Path) -> OpenVideo:
    """The videos of a VIPSeg tree.

    Raises:
        InputError: the tree is not there or damaged.
    """
    top = find_tree(vipseg.TREE, root)
    categories = vipseg.read_categories(top)
    return lambda name: VipSegVideo(vipseg.open_video(top, name), categories)


@dataclass(frozen=True)
class PlannedVideo:
    """A video of InsTrack that can be made.

    Attributes:
        split: the part it goes to.
        name: of the video, as in its source.
        instructions: about it, in the order of the file.
        video: where frames and masks come from.
    """

    split: str
    name: str
    instructions: tuple[Instruction, ...]
    video: SourceVideo

    @property
    def objects(self) -> tuple[int, ...]:
        """Values of the objects that are meant, in the order of first mention: number 1, 2, ... of InsTrack."""
        return tuple(dict.fromkeys(key for one in self.instructions for key in one.objects))

    @property
    def digest(self) -> str:
        """What its frames and masks depend on, in short."""
        facts = [self.instructions[0].source, self.name, self.objects, [path.name for path in self.video.images]]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def entry(self) -> dict[str, Any]:
        """What `meta_expressions.json` says of it."""
        numbers = {key: str(number) for number, key in enumerate(self.objects, 1)}
        expressions: dict[str, dict[str, Any]] = {}
        for group, one in enumerate(self.instructions):
            for wording, text in enumerate((one.instruction, *one.paraphrases)):
                said = {
                    "exp": text,
                    "obj_id": [numbers[key] for key in one.objects],
                    "group": group,
                    "wording": wording,
                }
                expressions[str(len(expressions))] = {**said, "answer": one.answer} if one.answer else said
        return {
            "source": self.instructions[0].source,
            "source_objects": {number: key for key, number in numbers.items()},
            "source_frames": [path.stem for path in self.video.images],
            "frames": [stem(index) for index in range(len(self.video.images))],
            "expressions": expressions,
        }


@dataclass(frozen=True)
class BuildPlan:
    """What an annotation file asks for: the videos that can be made, and one line for each that cannot."""

    videos: tuple[PlannedVideo, ...]
    missing: tuple[str, ...]

    def of(self, split: str) -> list[PlannedVideo]:
        """The videos of a part."""
        return [one for one in self.videos if one.split == split]

    @property
    def unrephrased(self) -> int:
        """How many instructions have no paraphrases."""
        return sum(not said.paraphrases for one in self.videos for said in one.instructions)


def plan(instructions: Sequence[Instruction], sources: Mapping[str, OpenVideo]) -> BuildPlan:
    """Look for the videos that instructions are about.

    Args:
        instructions: of an annotation file.
        sources: opens videos, by the name of their data set.

    Raises:
        InputError: a video is in both parts, or two data sets have one of the same name.
    """
    videos: list[PlannedVideo] = []
    missing: list[str] = []
    for name, said in _by_video(instructions).items():
        first = said[0]
        if first.source not in sources:
            missing.append(f"{first.where}: video {name}: no root of {first.source} was given; add --{first.source}")
            continue
        try:
            videos.append(PlannedVideo(first.split, name, said, sources[first.source](name)))
        except InputError as error:
            missing.append(f"{first.where}: video {name} of {first.source}: {error}")
    return BuildPlan(tuple(videos), tuple(missing))


def _by_video(instructions: Sequence[Instruction]) -> dict[str, tuple[Instruction, ...]]:
    found: dict[str, tuple[Instruction, ...]] = {}
    for one in instructions:
        first = found.get(one.video, (one,))[0]
        if (first.source, first.split) != (one.source, one.split):
            raise InputError(
                f"{one.where}: video {one.video} is of {one.source}, {one.split}, but of {first.source}, {first.split} "
                f"in {first.where}; wanted one source and one split of a video, or train and test would share it"
            )
        found[one.video] = (*found.get(one.video, ()), one)
    return found


def unseen_objects(planned: PlannedVideo) -> list[str]:
    """One line for each object that no mask of a video shows; reads masks only until all were seen.

    Raises:
        InputError: a mask is missing or damaged.
    """
    wanted = set(range(1, len(planned.objects) + 1))
    for t in range(len(planned.video.images)):
        if not wanted:
            return []
        wanted -= {int(value) for value in np.unique(planned.video.labels(planned.objects, t))}
    return [_unseen(planned, place) for place in sorted(wanted)]


def _unseen(planned: PlannedVideo, place: int) -> str:
    key = planned.objects[place - 1]
    one = next(said for said in planned.instructions if key in said.objects)
    shown = planned.video.shown()
    return f"{one.where}: no mask of video {planned.name} shows object {key}; its first mask shows {shown}"


class Build:
    """A tree of InsTrack in the making, and the record of what was done in it."""

    def __init__(self, out: Path) -> None:
        """Take a folder.

        Raises:
            InputError: the record is damaged.
            OutputError: OUT01, it is a file, or holds something that no build recorded.
        """
        self.out = out
        self.record: dict[str, dict[str, str]] = {"videos": {}, "files": {}}
        if out.exists() and not out.is_dir():
            raise OutputError(f"{out}: is a file; wanted a folder; choose another name", "OUT01")
        file = out / RECORD
        if file.is_file():
            self.record |= read_json(file)
        elif out.is_dir() and any(out.iterdir()):
            raise OutputError(f"{out}: holds {listing(out)} but no {RECORD}; choose another folder", "OUT01")

    def is_done(self, planned: PlannedVideo) -> bool:
        """Whether a video was made from the same frames and objects."""
        same = self.record["videos"].get(self._key(planned)) == planned.digest
        return same and all(folder.is_dir() for folder in self._folders(planned))

    def write(self, planned: PlannedVideo) -> None:
        """Make a video, in place of one that an earlier build made of other objects.

        Raises:
            InputError: a frame or mask is damaged, they differ in size, or no mask shows an object that is meant.
            OutputError: OUT01, there is a folder of its name that no build recorded; OUT02, it cannot be written.
        """
        for folder in self._folders(planned):
            if folder.exists() and self._key(planned) not in self.record["videos"]:
                raise OutputError(f"{folder}: exists, and no build recorded it; move it away", "OUT01")
        begun = self.out / ".building"
        with writing(self.out):
            shutil.rmtree(begun, ignore_errors=True)
            _copy_video(planned, begun / "JPEGImages", begun / "Annotations")
            self.record["videos"][self._key(planned)] = planned.digest
            self._keep_record()
            for folder in self._folders(planned):
                shutil.rmtree(folder, ignore_errors=True)
                folder.parent.mkdir(parents=True, exist_ok=True)
                os.replace(begun / folder.parent.name, folder)
            shutil.rmtree(begun, ignore_errors=True)

    def write_expressions(self, split: str, videos: Sequence[PlannedVideo]) -> None:
        """Write the `meta_expressions.json` of a part.

        Raises:
            OutputError: OUT01, there is one that was changed since a build wrote it; OUT02, it cannot be written.
        """
        name = f"meta_expressions/{split}/meta_expressions.json"
        file = self.out / name
        text = json.dumps({"videos": {one.name: one.entry() for one in videos}}, indent=1, ensure_ascii=False) + "\n"
        if file.is_file() and self.record["files"].get(name) != _digest(file.read_text(encoding="utf-8")):
            raise OutputError(f"{file}: was changed since a build wrote it; move it away, then build again", "OUT01")
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as part:
            part.write_text(text, encoding="utf-8")
        self.record["files"][name] = _digest(text)
        self._keep_record()

    def _folders(self, planned: PlannedVideo) -> tuple[Path, Path]:
        top = self.out / planned.split
        return top / "Annotations" / planned.name, top / "JPEGImages" / planned.name

    @staticmethod
    def _key(planned: PlannedVideo) -> str:
        return f"{planned.split}/{planned.name}"

    def _keep_record(self) -> None:
        with replacing(self.out / RECORD) as part:
            part.write_text(json.dumps(self.record, indent=1) + "\n", encoding="utf-8")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _copy_video(planned: PlannedVideo, frames: Path, masks: Path) -> None:
    """Copy frames and draw masks; frames are numbered from 0."""
    seen: set[int] = set()
    for folder in (frames, masks):
        folder.mkdir(parents=True)
    for t, image in enumerate(planned.video.images):
        labels = planned.video.labels(planned.objects, t)
        _check_size(image, labels)
        shutil.copyfile(image, frames / f"{stem(t)}.jpg")
        picture = Image.fromarray(labels)
        picture.putpalette(PALETTE)
        picture.save(masks / f"{stem(t)}.png")
        seen |= {int(value) for value in np.unique(labels)}
    unseen = sorted(set(range(1, len(planned.objects) + 1)) - seen)
    if unseen:
        raise InputError(_unseen(planned, unseen[0]))


def _check_size(image: Path, labels: np.ndarray) -> None:
    try:
        with Image.open(image) as picture:
            width, height = picture.size
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{image}: not a readable image ({error}); unpack it again") from error
    if labels.shape != (height, width):
        found = f"{labels.shape[1]} x {labels.shape[0]}"
        raise InputError(f"{image}: {width} x {height}, but its mask is {found}; are both of one copy of the data set?")


Progress = Callable[[Sequence[PlannedVideo]], Iterator[PlannedVideo]]


def build(planned: BuildPlan, out: Path, each: Progress = iter) -> int:
    """Make the tree, or go on with one that was cut short.

    Args:
        planned: what to make.
        out: the tree's top folder.
        each: goes through the videos, and may show how far it is.

    Returns:
        How many videos were made now; those that were there already are left alone.

    Raises:
        InputError: a frame or mask is damaged, or no mask shows an object that is meant.
        OutputError: OUT01, the folder holds what no build recorded; OUT02, it cannot be written.
    """
    tree = Build(out)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    undone = [one for one in planned.videos if not tree.is_done(one)]
    for one in each(undone):
        tree.write(one)
    for split in SPLITS:
        if planned.of(split):
            tree.write_expressions(split, planned.of(split))
    return len(undone)


def command(
    annotations: Annotated[Path, typer.Option(help="What is said of which video (data_tools/INSTRUCTIONS.md)")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to make the tree in")],
    davis: Annotated[Path | None, typer.Option("--refer-davis17", help="Refer-DAVIS17, as ReferFormer lays it")] = None,
    panoptic: Annotated[Path | None, typer.Option("--vipseg", help="VIPSeg: imgs and panomasks")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be made and what is missing")] = False,
    skip_missing: Annotated[bool, typer.Option("--skip-missing", help="Make what there is")] = False,
) -> None:
    """Build InsTrack from Refer-DAVIS17, VIPSeg and an annotation file; goes on where it was cut short."""
    sources: dict[str, OpenVideo] = {}
    if davis is not None:
        sources["refer-davis17"] = open_davis(davis)
    if panoptic is not None:
        sources["vipseg"] = open_vipseg(panoptic)
    planned = plan(read_instructions(annotations), sources)
    tree = Build(out)
    lacking = list(planned.missing)
    if dry_run:
        lacking += [line for one in _progress("looking for objects")(planned.videos) for line in unseen_objects(one)]
    for line in lacking:
        print(f"missing: {line}")
    for line in _described(planned, tree):
        print(line)
    made = 0
    if not dry_run and (skip_missing or not lacking):
        made = build(planned, out, _progress("videos"))
    counts = " ".join(f"{split}={len(planned.of(split))}" for split in SPLITS)
    print(f"layout=instrack {counts} made={made} missing={len(lacking)} out={out}")
    if lacking and not skip_missing:
        raise typer.Exit(InputError.exit_code)


def _described(planned: BuildPlan, tree: Build) -> Iterator[str]:
    """What is made, next to the numbers of the paper."""
    for split in SPLITS:
        videos = planned.of(split)
        done = sum(tree.is_done(one) for one in videos)
        wordings = sum(1 + len(said.paraphrases) for one in videos for said in one.instructions)
        yield (
            f"{split}: {len(videos)} videos of {EXPECTED[split]} in the paper, {done} made before; "
            f"{wordings} expressions of {EXPECTED[split] * (PARAPHRASES + 1)}"
        )
    if planned.unrephrased:
        yield f"{planned.unrephrased} instructions have no paraphrases; `data_tools rephrase` writes five of each"


def _progress(what: str) -> Progress:
    """Goes through videos with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return lambda videos: iter(track(videos, what, console=console, transient=True, disable=not console.is_terminal))
