"""Shows data to a person: ``python -m data_tools view --seed 3 -o sheet.png``, ``... view ROOT -o sheet.png``.

Without a root, SynthTrack scenes are drawn anew, the same ones that `make` writes for the seed; with one, what lies on
disk is shown: a row for each video, a picture for each sample of an image set, some of every set that is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from data_tools.contact_sheet import SheetLine, SheetRow, draw_sheet, spread, stacked
from data_tools.layouts import Split
from data_tools.picture_sheet import draw_pictures
from data_tools.samples import (
    PICTURE_SETS,
    SETS,
    chosen_lines,
    picture_sets,
    some_pictures,
    video_rows,
    video_sets,
)
from data_tools.synthtrack import RANGES, scene_seed
from trackgpt.data.trees import listing, read_object
from trackgpt.errors import InputError, OutputError, UsageError
from trackgpt.files import refuse_existing_file, replacing
from trackgpt.synthtrack.clips import Case, make_case
from trackgpt.video.source import open_source

LONGEST = 480
MOTION = {"free": "free motion", "race": "a race"}
PICTURES = "Outlines: what is asked for. Hatched: what is not scored."
SUBTITLE = "Outlines and numbers: what is asked for. Bars: when it is in sight. Ticks: what happens to it."


def synthetic_rows(seed: int, videos: int, split: Split, frames: int) -> Iterator[SheetRow]:
    """Rows of scenes that are drawn now, with one instruction of each kind."""
    for index in range(videos):
        yield row_of(make_case(scene_seed(seed, index), split.value, frames, LONGEST))


def row_of(case: Case) -> SheetRow:
    """A case as a row of a sheet."""
    scene, clip = case.scene, case.clip
    total, height, width = clip.ids.shape
    shown = spread(total, width / height)
    return SheetRow(
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
        lines=tuple(SheetLine(said.kind, said.text, said.answer, said.targets) for said in case.expressions),
        events=scene.events,
    )


def rows_on_disk(root: Path, videos: int, split: Split | None, layout: str = "") -> Iterator[SheetRow]:
    """Rows of the first videos of a tree: one of `make`'s own layouts, or a video set that `check` knows.

    Args:
        root: its top folder, or one that holds it.
        videos: how many.
        split: train, or test for the part that is called valid; None for whichever is there, valid first.
        layout: the video set; "" for the one that is there.

    Raises:
        UsageError: it could be several sets.
        InputError: there is no such tree, or a file of it is missing or damaged.
    """
    own = root / "expressions.json"
    if own.is_file() and not layout:
        pictures, masks = ("videos", "truth") if (root / "videos").is_dir() else ("JPEGImages", "Annotations")
        for name, video in list(_videos(own).items())[:videos]:
            yield _row_on_disk(name, video, root / pictures / name, root / masks / name)
        return
    for name in [layout] if layout else video_sets(root):
        yield from video_rows(name, root, videos, split)


def _videos(path: Path) -> dict[str, Any]:
    try:
        return dict(read_object(path)["videos"])
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: {error!r}; wanted expressions by video; run check") from error


def _row_on_disk(name: str, video: dict[str, Any], pictures: Path, masks: Path) -> SheetRow:
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
    return SheetRow(
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


def _lines(entries: dict[str, dict[str, Any]]) -> tuple[tuple[SheetLine, ...], int]:
    """Instructions to show, and how many are left out."""
    return chosen_lines(
        [
            SheetLine(
                entry.get("kind", "expression"), entry["exp"], entry.get("answer", ""), tuple(entry.get("obj_id", ()))
            )
            for entry in entries.values()
        ]
    )


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


def sheet_of_tree(root: Path, count: int, split: Split | None, layout: str) -> tuple[Image.Image, int]:
    """A sheet of what lies on disk, pictures above videos, and how many samples it shows.

    Raises:
        UsageError: it could be several sets.
        InputError: nothing that is known lies there, or a file is missing or damaged.
    """
    pictures = [name for name in picture_sets(root) if layout in ("", name)]
    groups = [(name, list(some_pictures(name, root, count, split))) for name in pictures]
    title, sheets = root.resolve().name, []
    if groups:
        sheets.append(draw_pictures(title, PICTURES, groups))
    rows = [] if layout in PICTURE_SETS else list(rows_on_disk(root, count, split, layout))
    if rows:
        sheets.append(draw_sheet(title, SUBTITLE, rows))
    if not sheets:
        raise InputError(
            f"{root}: neither expressions.json nor {layout or 'a data set'} that is known is there; it holds "
            f"{listing(root)}; wanted the top folder of a tree that `make` writes or `check` knows"
        )
    return stacked(sheets), len(rows) + sum(len(found) for _, found in groups)


def _refuse_data(out: Path, root: Path | None) -> None:
    """Refuse a picture that is there, below a folder of the tree that is shown; beside these folders a sheet may lie.

    Raises:
        OutputError: OUT01.
    """
    if root is not None and out.exists() and root.resolve() in list(out.resolve().parents)[1:]:
        raise OutputError(f"{out}: lies in the data that is shown; choose another name", "OUT01")


def command(
    out: Annotated[Path, typer.Option("-o", "--out", help="The picture to write, sheet.png")],
    root: Annotated[Path | None, typer.Argument(help="Show what lies here instead of drawing scenes")] = None,
    seed: Annotated[int, typer.Option(help="Run seed, as of make")] = 0,
    videos: Annotated[int, typer.Option(help="How many videos, or pictures of each set")] = 5,
    split: Annotated[Split | None, typer.Option(help="train or test; without it test")] = None,
    frames: Annotated[int, typer.Option(help="Frames of each scene")] = 48,
    layout: Annotated[str, typer.Option(help="Show this data set of the folder alone; names are those of check")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the picture to write")] = False,
) -> None:
    """Draw a contact sheet of videos or pictures, their targets, and what is said about them."""
    for name, value in (("videos", videos), ("seed", seed), ("frames", frames)):
        least, most = RANGES[name]
        if not least <= value <= most:
            raise UsageError(f"--{name} is {value}; wanted {least:,} to {most:,}")
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UsageError(f"{out}: wanted a name that ends in .png or .jpg")
    if layout and layout not in SETS:
        raise UsageError(f"--layout {layout}: no such data set; choose one of {', '.join(SETS)}")
    refuse_existing_file(out, overwrite)
    _refuse_data(out, root)
    if root is None:
        part = split or Split.test
        rows = list(synthetic_rows(seed, videos, part, frames))
        title, subtitle = f"SynthTrack, split {part.value}, seed {seed}", f"{SUBTITLE} Instructions are about frame 0."
        sheet, count = draw_sheet(title, subtitle, rows), len(rows)
    else:
        sheet, count = sheet_of_tree(root, videos, split, layout)
    with replacing(out) as part_path:
        sheet.save(part_path, "PNG" if out.suffix.lower() == ".png" else "JPEG", quality=92)
    print(f"samples={count} width={sheet.width} height={sheet.height} out={out}")
