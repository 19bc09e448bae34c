"""Shows data to a person: ``python -m data_tools view --seed 3 -o sheet.png``.

Without a root, SynthTrack scenes are drawn anew, the same ones that `make` writes for the seed; with one, what lies on
disk is shown.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from data_tools.contact_sheet import Line, Row, draw_sheet, spread
from data_tools.synthtrack import Split, scene_seed
from trackgpt.data.synthtrack.clips import Case, make_case
from trackgpt.errors import InputError, UsageError
from trackgpt.export.records import replacing
from trackgpt.video.source import open_source

LINES = 6  # shown of a video on disk
LONGEST = 480
MOTION = {"free": "free motion", "race": "a race"}
SUBTITLE = "Outlines and numbers: what is asked for. Bars: when it is in sight. Ticks: what happens to it."


def synthetic_rows(seed: int, videos: int, split: Split, frames: int) -> Iterator[Row]:
    """Rows of scenes that are drawn now, with one instruction of each kind."""
    for index in range(videos):
        yield row_of(make_case(scene_seed(seed, index), split.value, frames, LONGEST))


def row_of(case: Case) -> Row:
    """A case as a row of a sheet."""
    scene, clip = case.scene, case.clip
    total, height, width = clip.ids.shape
    shown = spread(total, width / height)
    return Row(
        title=f"seed {scene.seed}",
        difficulty=scene.difficulty,
        facts=(
            MOTION[scene.kind],
            f"{len(scene.actors)} things, {scene.background['texture']}",
            f"{total} frames, {scene.fps:g} a second",
        ),
        frames=[clip.frames[index] for index in shown],
        shown=shown,
        total=total,
        ids=clip.ids,
        lines=tuple(Line(said.kind, said.text, said.answer, said.targets) for said in case.expressions),
        events=scene.events,
    )


def rows_on_disk(root: Path, videos: int, split: Split | None) -> Iterator[Row]:
    """Rows of the first videos of a tree: one that `make` writes, or a real one of the same form.

    Args:
        root: its top folder.
        videos: how many.
        split: train, or test for the part that is called valid; None for whichever is there, valid first.

    Raises:
        InputError: there is no such tree, or a file of it is missing or damaged.
    """
    own = root / "expressions.json"
    if own.is_file():
        pictures, masks = ("videos", "truth") if (root / "videos").is_dir() else ("JPEGImages", "Annotations")
        for name, video in list(_videos(own).items())[:videos]:
            yield _row_on_disk(name, video, root / pictures / name, root / masks / name)
        return
    wanted = {Split.train: ["train"], Split.test: ["valid"], None: ["valid", "train"]}[split]
    for part in wanted:
        path = root / "meta_expressions" / part / "meta_expressions.json"
        if path.is_file():
            folder = root / part
            there = {name: video for name, video in _videos(path).items() if (folder / "JPEGImages" / name).is_dir()}
            for name, video in list(there.items())[:videos]:
                yield _row_on_disk(name, video, folder / "JPEGImages" / name, folder / "Annotations" / name)
            return
    raise InputError(
        f"{root}: neither expressions.json nor meta_expressions/{wanted[0]}/meta_expressions.json is there; "
        "wanted the top folder of a tree that `make` writes or `check` knows"
    )


def _videos(path: Path) -> dict[str, Any]:
    try:
        videos: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["videos"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be read ({error}); wanted expressions by video; run check") from error
    return videos


def _row_on_disk(name: str, video: dict[str, Any], pictures: Path, masks: Path) -> Row:
    names = video["frames"]
    (height, width), read = _reader(pictures, names)
    shown = spread(len(names), width / height)
    frames = read(shown)
    ids = _ids(masks, names, (height, width)) if masks.is_dir() else None
    lines, more = _lines(video["expressions"])
    facts = [MOTION[video["scene"]]] if video.get("scene") in MOTION else []
    facts += [f"{len(names)} frames", f"{width} x {height}"]
    if ids is None:
        facts.append("no masks")
    if more:
        facts.append(f"{more} more expressions")
    return Row(
        title=name,
        difficulty=str(video.get("difficulty", "")),
        facts=tuple(facts),
        frames=frames,
        shown=shown,
        total=len(names),
        ids=ids,
        lines=lines,
        events=tuple((int(frame), str(what), int(actor)) for frame, what, actor in video.get("events", [])),
    )


def _lines(entries: dict[str, dict[str, Any]]) -> tuple[tuple[Line, ...], int]:
    """Instructions to show, one of each kind first, then of other targets; and how many are left out."""
    lines: list[Line] = []
    for entry in entries.values():
        named = entry.get("obj_id", [])
        targets = tuple(int(one) for one in (named if isinstance(named, list) else [named]))
        lines.append(Line(entry.get("kind", "expression"), entry["exp"], entry.get("answer", ""), targets))
    ranks: list[tuple[int, int]] = []
    said: Counter[object] = Counter()
    for line in lines:
        ranks.append((said[line.kind, line.targets], said[line.kind]))
        said.update([(line.kind, line.targets), line.kind])
    first = sorted(range(len(lines)), key=ranks.__getitem__)[:LINES]
    return tuple(lines[k] for k in first), max(len(lines) - LINES, 0)


def _reader(pictures: Path, names: list[str]) -> tuple[tuple[int, int], Callable[[list[int]], list[np.ndarray]]]:
    """The (height, width) of a video's frames, from a folder or the mp4 of its name, and a function that reads some."""
    video = pictures.with_name(f"{pictures.name}.mp4")
    if not video.is_file():
        return (
            _open(pictures / f"{names[0]}.jpg").shape[:2],
            lambda shown: [_open(pictures / f"{names[index]}.jpg") for index in shown],
        )
    with open_source(video) as source:
        frames = [frame.image for frame in source if frame.image is not None]
    if len(frames) != len(names):
        raise InputError(f"{video}: holds {len(frames)} frames, wanted the {len(names)} of expressions.json")
    return frames[0].shape[:2], lambda shown: [frames[index] for index in shown]


def _open(path: Path, mode: str = "RGB") -> np.ndarray:
    """A picture in a mode, or as its values for mode "P"."""
    try:
        with Image.open(path) as picture:
            return np.array(picture if mode == "P" else picture.convert(mode))
    except (OSError, SyntaxError) as error:
        raise InputError(f"{path}: cannot be read ({error}); wanted a picture; run check") from error


def _ids(folder: Path, names: list[str], size: tuple[int, int]) -> np.ndarray:
    """The id maps of a video, uint8 (frames, height, width), each at the size of the frames."""
    maps = [_open(folder / f"{name}.png", "P") for name in names]
    for name, found in zip(names, maps, strict=True):
        if found.shape != size:
            raise InputError(f"{folder / name}.png: {found.shape}, wanted an id map of {size}; run check")
    return np.stack(maps)


def command(
    out: Annotated[Path, typer.Option("-o", "--out", help="The picture to write, sheet.png")],
    seed: Annotated[int, typer.Option(help="Run seed, as of make")] = 0,
    videos: Annotated[int, typer.Option(help="How many videos")] = 5,
    split: Annotated[Split | None, typer.Option(help="train or test; without it test")] = None,
    frames: Annotated[int, typer.Option(help="Frames of each scene")] = 48,
    layout_root: Annotated[Path | None, typer.Option(help="Show this tree instead of drawing scenes")] = None,
) -> None:
    """Draw a contact sheet of videos, their targets, and what is said about them."""
    if videos < 1:
        raise UsageError(f"--videos is {videos}; wanted 1 or more")
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UsageError(f"{out}: wanted a name that ends in .png or .jpg")
    if layout_root is None:
        part = split or Split.test
        rows = list(synthetic_rows(seed, videos, part, frames))
        title, subtitle = f"SynthTrack, split {part.value}, seed {seed}", f"{SUBTITLE} Instructions are about frame 0."
    else:
        rows = list(rows_on_disk(layout_root, videos, split))
        title, subtitle = layout_root.resolve().name, SUBTITLE
    sheet = draw_sheet(title, subtitle, rows)
    with replacing(out) as part_path:
        sheet.save(part_path, "PNG" if out.suffix.lower() == ".png" else "JPEG", quality=92)
    print(f"videos={len(rows)} width={sheet.width} height={sheet.height} out={out}")
