"""Checks trees of real data sets: ``python -m data_tools check refer-davis17 ROOT``.

A problem is one line: the path, what is there, what was wanted. The forms checked are those of
`shared/reference/datasets.md`, sections 3.1 and 3.2, as ReferFormer and its successors read them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from trackgpt.errors import InputError
from trackgpt.export.davis import PALETTE

ANNOTATIONS = 4
MOST = 5  # lines of one kind about one folder
PARTS = ("train", "valid", "test")
Size = tuple[int, int]


class Benchmark(StrEnum):
    """What `check` knows."""

    refer_youtube_vos = "refer-youtube-vos"
    refer_davis17 = "refer-davis17"


_META = '{"videos": {name: {"objects": {"1": {"category": word}}}}}'
PUBLISHED = {
    Benchmark.refer_youtube_vos: "202 valid videos; the valid file lists 507, 305 of them test, with 2096 expressions",
    Benchmark.refer_davis17: "60 train and 30 valid videos",
}


@dataclass(frozen=True)
class Problem:
    """A fault of a file or folder; `path` starts at the root, where it lies below it."""

    path: Path
    found: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.path}: {self.found}; wanted {self.wanted}"


@dataclass
class Report:
    """What was found below a root.

    Attributes:
        root: the folder checked.
        problems: one line each when written as text.
        notes: what is worth knowing and no fault.
        counts: videos, frames, masks, expressions and objects by part.
    """

    root: Path
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    def problem(self, path: Path, found: str, wanted: str) -> None:
        """Record a fault of a file or folder."""
        self.problems.append(Problem(self._short(path), found, wanted))

    def note(self, path: Path, found: str) -> None:
        """Record something that is no fault."""
        self.notes.append(f"{self._short(path)}: {found}")

    def count(self, part: str, **more: int) -> None:
        """Add to the counts of a part."""
        counts = self.counts.setdefault(part, {})
        for name, number in more.items():
            counts[name] = counts.get(name, 0) + number

    def _short(self, path: Path) -> Path:
        return path.relative_to(self.root) if path.is_relative_to(self.root) and path != self.root else path


def check_tree(benchmark: Benchmark, root: Path) -> Report:
    """Check a tree.

    Args:
        benchmark: which form it should have.
        root: its top folder.

    Returns:
        What was found; the tree is sound when `problems` is empty.

    Raises:
        InputError: the root is no folder.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; wanted the top folder of a {benchmark} tree")
    report = Report(root)
    files = {part: root / "meta_expressions" / part / "meta_expressions.json" for part in PARTS}
    if not any(path.is_file() for path in files.values()):
        found = _elsewhere(root, "meta_expressions")
        report.problem(root / "meta_expressions", found, "{train,valid}/meta_expressions.json below the root")
        return report
    if benchmark is Benchmark.refer_youtube_vos:
        _check_youtube_vos(report, files)
    else:
        _check_davis17(report, files)
    return report


def _elsewhere(root: Path, name: str) -> str:
    """What to say of a missing folder: whether one of its name lies up to three levels below the root, or beside it."""
    found = [path for depth in ("*/", "*/*/", "*/*/*/") for path in sorted(root.glob(depth + name))]
    found = [path for path in found if path.parent not in [root / part for part in PARTS]]
    beside = root.resolve().parent / name
    found += [beside] if beside.exists() else []
    return f"missing, but {found[0]} is there: another root, or unpacked one level off" if found else "missing"


def _check_youtube_vos(report: Report, files: dict[str, Path]) -> None:
    """The tree of datasets.md, section 3.1: masks and `obj_id` in train alone, valid = valid file minus test file."""
    if files["train"].is_file():
        videos = _Expressions(report, files["train"], "train", named=True).read()
        _check_part(report, "train", videos, masks=True, davis_palette=False)
        _check_categories(report, "train", videos)
    else:
        report.note(files["train"], "not there; the part train is not checked")
    if not files["valid"].is_file():
        report.note(files["valid"], "not there; the part valid is not checked")
        return
    listed = _Expressions(report, files["valid"], "valid", named=False).read()
    valid = listed
    if files["test"].is_file():
        test = _Expressions(report, files["test"], "test", named=False).read()
        for name in sorted(test.keys() - listed.keys()):
            report.problem(files["test"], f"video {name} is not in the valid file", "test videos to be listed in both")
        valid = {name: video for name, video in listed.items() if name not in test}
        report.note(files["valid"], f"{len(listed)} videos - {len(listed) - len(valid)} of test = {len(valid)} valid")
        if not valid:
            report.problem(files["valid"], "every video is one of test", "valid videos beside those of test")
    else:
        report.problem(
            files["test"], "missing", "the test expressions: the valid file lists test videos too, only these keys tell"
        )
    report.counts.pop("valid", None)
    for video in valid.values():
        report.count("valid", videos=1, expressions=len(video["expressions"]))
    _check_part(report, "valid", valid, masks=False, davis_palette=False)


def _check_davis17(report: Report, files: dict[str, Path]) -> None:
    """The tree of datasets.md, section 3.2: masks and `obj_id` everywhere, four expressions of every object."""
    for part in ("train", "valid"):
        if not files[part].is_file():
            report.note(files[part], f"not there; the part {part} is not checked")
            continue
        videos = _Expressions(report, files[part], part, named=True).read()
        _check_part(report, part, videos, masks=True, davis_palette=True)
        _check_categories(report, part, videos)
        singles = [name for name, video in videos.items() if _check_numbers(report, files[part], name, video) == 1]
        if singles:
            report.note(files[part], f"{len(singles)} videos have one expression of each object, not four")


def _check_numbers(report: Report, path: Path, name: str, video: dict[str, Any]) -> int:
    """Whether ids are 4 * (place of the object in the string sort) + k; gives the expressions of each object, or 0.

    A tree with one expression of each object is a known variant: the same rule with 1 instead of 4.
    """
    entries = video["expressions"]
    objects = sorted({entry["obj_id"] for entry in entries.values()})
    each = 1 if len(entries) == len(objects) else ANNOTATIONS
    if not entries:
        return 0
    if len(entries) != each * len(objects):
        found = f"video {name} has {len(entries)} expressions of {len(objects)} objects"
        report.problem(path, found, f"{ANNOTATIONS} of each object")
        return 0
    for place in range(len(entries)):
        wanted = objects[place // each]
        if str(place) not in entries:
            report.problem(path, f"video {name} lacks the expression {place}", f"ids 0 to {len(entries) - 1}")
            return 0
        found = entries[str(place)]["obj_id"]
        if found != wanted:
            report.problem(
                path,
                f"video {name}, expression {place} has obj_id {found!r}",
                f"{wanted!r}: ids are {each} * (place in the string sort of obj_id) + k",
            )
            return 0
    return each


@dataclass
class _Expressions:
    """Reads a meta_expressions.json; what is wrong in it is reported and left out.

    `named`: whether entries must carry an `obj_id`, or must not.
    """

    report: Report
    path: Path
    part: str
    named: bool

    def read(self) -> dict[str, dict[str, Any]]:
        """Sound videos by name: "frames" is a list of strings, "expressions" a dict of sound entries."""
        document = self._load()
        videos = document.get("videos") if isinstance(document, dict) else None
        if not isinstance(videos, dict) or not videos:
            if document is not None:
                self.report.problem(self.path, "holds no videos", '{"videos": {name: {"expressions", "frames"}}}')
            return {}
        sound = {}
        for name, video in videos.items():
            if self._is_sound(name, video):
                entries = {key: entry for key, entry in video["expressions"].items() if self._entry(name, key, entry)}
                sound[name] = {"frames": video["frames"], "expressions": entries}
                self.report.count(self.part, videos=1, expressions=len(entries))
        return sound

    def _load(self) -> Any:
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            self.report.problem(self.path, f"cannot be read ({error})", "a whole JSON file in UTF-8")
            return None

    def _is_sound(self, name: str, video: Any) -> bool:
        frames = video.get("frames") if isinstance(video, dict) else None
        if not isinstance(frames, list) or not frames or not all(isinstance(one, str) and one for one in frames):
            self.report.problem(self.path, f"video {name} lists no frames", '"frames": a list of names like "00000"')
            return False
        if len(set(frames)) < len(frames):
            self.report.problem(self.path, f"video {name} lists a frame twice", "each frame once")
        if frames != sorted(frames):
            self.report.problem(self.path, f"video {name} lists its frames out of order", "frames in order")
        if not isinstance(video.get("expressions"), dict) or not video["expressions"]:
            self.report.problem(self.path, f"video {name} has no expressions", '"expressions": {"0": {"exp": text}}')
            return False
        return True

    def _entry(self, name: str, key: str, entry: Any) -> bool:
        where = f"video {name}, expression {key}"
        text = entry.get("exp") if isinstance(entry, dict) else None
        if not isinstance(text, str) or not text.strip():
            self.report.problem(self.path, f"{where} has no text", '"exp": a sentence')
            return False
        if not _is_number(key):
            self.report.problem(self.path, f"{where} is not numbered", 'ids like "0", "1", "2"')
            return False
        return self._object(where, entry)

    def _object(self, where: str, entry: dict[str, Any]) -> bool:
        label = entry.get("obj_id")
        if not self.named:
            if label is not None:
                self.report.problem(self.path, f"{where} has obj_id {label!r}", f"none: the part {self.part} is blind")
            return True
        if label is None:
            self.report.problem(self.path, f"{where} names no object", '"obj_id": a string like "1"')
        elif not isinstance(label, str) or not _is_number(label) or label == "0":
            self.report.problem(self.path, f"{where} has obj_id {label!r}", 'a string like "1"')
        else:
            return True
        return False


def _is_number(text: str) -> bool:
    """Whether a text is a whole number as `str` writes it."""
    return len(text) < 10 and text.isascii() and text.isdigit() and str(int(text)) == text


def _check_part(report: Report, part: str, videos: dict[str, dict[str, Any]], masks: bool, davis_palette: bool) -> None:
    """Frames and masks of the videos of a part."""
    pictures, labels = report.root / part / "JPEGImages", report.root / part / "Annotations"
    for folder in (pictures, labels) if masks else (pictures,):
        if videos and not folder.is_dir():
            report.problem(folder, _elsewhere(report.root, folder.name), f"the folder {part}/{folder.name}")
    for name, video in videos.items():
        sizes = _check_frames(report, part, pictures / name, video["frames"]) if pictures.is_dir() else {}
        if masks and labels.is_dir():
            seen = _check_masks(report, part, labels / name, video["frames"], sizes, davis_palette)
            if seen is not None:
                _check_objects(report, part, labels / name, video, seen)


def _in_another_part(folder: Path) -> str:
    """What to say of a video that a part lacks: whether another part has it."""
    part, kind = folder.parents[1], folder.parent.name
    others = [part.with_name(other) / kind / folder.name for other in PARTS]
    return next((f"missing, but {other} is there" for other in others if other.is_dir()), "missing")


def _check_frames(report: Report, part: str, folder: Path, frames: list[str]) -> dict[str, Size]:
    """Sizes (width, height) of a video's listed frames by name; they must exist, be whole and of one size."""
    if not folder.is_dir():
        report.problem(folder, _in_another_part(folder), f"a folder with {len(frames)} frames")
        return {}
    sizes: dict[str, Size] = {}
    for frame in frames:
        path = folder / f"{frame}.jpg"
        if not path.is_file():
            others = [other.name for other in folder.glob(f"{frame}.*")]
            report.problem(path, f"missing ({others[0]} is there)" if others else "missing", "the frame that is listed")
            continue
        size = _size_of_jpeg(report, path)
        if size is None:
            continue
        first = next(iter(sizes.items()), (frame, size))
        if size != first[1]:
            report.problem(path, f"{size[0]} x {size[1]}", f"{first[1][0]} x {first[1][1]} as frame {first[0]}")
        sizes[frame] = size
    report.count(part, frames=len(sizes))
    return sizes


def _size_of_jpeg(report: Report, path: Path) -> Size | None:
    """The size of a whole JPEG; only one without an end mark is decoded, for decoding a large set takes an hour."""
    try:
        with Image.open(path) as picture:
            kind = picture.format
            with path.open("rb") as file:
                file.seek(-min(64, path.stat().st_size), 2)
                if b"\xff\xd9" not in file.read():
                    picture.load()
    except (OSError, SyntaxError, ValueError) as error:
        report.problem(path, f"damaged ({error})", "a whole JPEG")
        return None
    if kind != "JPEG":
        report.problem(path, f"a {kind} file under the name of a JPEG", "a JPEG")
    return picture.size


def _check_masks(
    report: Report, part: str, folder: Path, frames: list[str], sizes: dict[str, Size], davis_palette: bool
) -> set[int] | None:
    """All labels in a video's masks, None when none can be read.

    Each frame must have one, whole, indexed and of the frame's size.
    """
    if not folder.is_dir():
        report.problem(folder, _in_another_part(folder), f"a folder with {len(frames)} masks")
        return None
    read: list[set[int]] = []
    for frame in frames:
        path = folder / f"{frame}.png"
        if not path.is_file():
            report.problem(path, "missing", "the mask of a frame that is listed")
            continue
        found = _labels_of(report, path, sizes.get(frame), davis_palette)
        if found is not None:
            read.append(found)
            report.count(part, masks=1)
    return set().union(*read) if read else None


def _labels_of(report: Report, path: Path, size: Size | None, davis_palette: bool) -> set[int] | None:
    """The labels of a mask, without background and void; None when it cannot be read as labels."""
    try:
        with Image.open(path) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError) as error:
        report.problem(path, f"damaged ({error})", "a whole PNG")
        return None
    if picture.mode != "P":
        report.problem(path, f"mode {picture.mode}", "mode P: an indexed PNG whose values are object ids")
        return None
    if size is not None and picture.size != size:
        found = f"{picture.width} x {picture.height}"
        report.problem(path, found, f"{size[0]} x {size[1]}, the size of its frame")
    values = np.flatnonzero(np.bincount(np.asarray(picture).ravel(), minlength=256))
    _check_palette(report, path, picture, int(values.max()), davis_palette)
    return {int(value) for value in values} - {0, 255}


def _check_palette(report: Report, path: Path, picture: Image.Image, largest: int, davis: bool) -> None:
    """Whether ids have colours: those of DAVIS, or any, since YouTube-VOS has its own."""
    colours = bytes(picture.getpalette() or [])
    if davis:
        end = 3 * (largest + 1)
        if colours[:end].ljust(end, b"\0") != PALETTE[:end]:
            report.problem(path, "another palette", "that of DAVIS (1 dark red, 2 dark green), as results have it")
        return
    table = np.frombuffer(colours, np.uint8).reshape(-1, 3)
    if len(table) > 1 and (table == table[:, :1]).all():
        report.problem(path, "a palette of greys", "colours: a program has saved this mask anew, its values may differ")


def _check_objects(report: Report, part: str, folder: Path, video: dict[str, Any], seen: set[int]) -> None:
    """Whether every object that is talked about is seen in some mask."""
    report.count(part, objects=len(seen))
    for key, entry in video["expressions"].items():
        if int(entry["obj_id"]) not in seen:
            shown = ", ".join(map(str, sorted(seen))) or "nothing"
            found = f"no mask shows object {entry['obj_id']} of expression {key}"
            report.problem(folder, found, f"it among the objects shown ({shown})")


def _check_categories(report: Report, part: str, videos: dict[str, dict[str, Any]]) -> None:
    """Whether meta.json, which loaders take categories from, knows every object that is talked about."""
    path = report.root / part / "meta.json"
    if not videos:
        return
    if not path.is_file():
        report.problem(path, "missing", _META)
        return
    try:
        known = json.loads(path.read_text(encoding="utf-8"))["videos"]
        objects = {name: set(known[name]["objects"]) for name in videos if name in known}
    except (OSError, ValueError, KeyError, TypeError) as error:
        report.problem(path, f"cannot be read ({error!r})", _META)
        return
    for name, video in videos.items():
        lacking = {entry["obj_id"] for entry in video["expressions"].values()} - objects.get(name, set())
        if lacking:
            report.problem(path, f"video {name} lacks object {min(lacking)}", "every object that is talked about")


def lines(report: Report, benchmark: Benchmark, every: bool = False) -> Iterator[str]:
    """A report as text: problems, notes, counts by part; unless `every`, `MOST` problems of a kind in a folder."""
    alike = Counter((problem.path.parent, problem.wanted) for problem in report.problems)
    told: Counter[tuple[Path, str]] = Counter()
    for problem in report.problems:
        kind = (problem.path.parent, problem.wanted)
        told[kind] += 1
        if every or told[kind] <= MOST:
            yield str(problem)
        elif told[kind] == alike[kind]:
            yield f"{problem.path.parent}: {alike[kind] - MOST} more such (--every lists them); wanted {kind[1]}"
    yield from (f"note: {note}" for note in report.notes)
    for part, counts in report.counts.items():
        yield f"{part}: " + ", ".join(f"{number} {name}" for name, number in counts.items())
    yield f"published: {PUBLISHED[benchmark]}"


def command(
    name: Annotated[Benchmark, typer.Argument(help="Which form the tree should have")],
    root: Annotated[Path, typer.Argument(help="Its top folder")],
    every: Annotated[bool, typer.Option("--every", help="List all problems, not five of a kind")] = False,
) -> None:
    """Check a data set on disk: one line for each problem, then counts; exit code 3 when something is wrong."""
    report = check_tree(name, root)
    for line in lines(report, name, every):
        print(line)
    print(f"layout={name} problems={len(report.problems)} root={root}")
    if report.problems:
        raise typer.Exit(InputError.exit_code)
