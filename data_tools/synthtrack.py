"""Writes SynthTrack to disk: ``python -m data_tools make --layout refer-davis17 --videos 4 -o OUT``.

Scene number i of a run has the seed ``seed * 10000 + i``, so that runs with different seeds share no scene. Train parts
are made of scenes of the split "train", valid and test parts of the split "test" (unseen pairs and wordings).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from data_tools.writers import (
    ANNOTATIONS,
    MANIFEST,
    Counts,
    FolderWriter,
    LayoutWriter,
    Mp4Writer,
    ReferDavis17Writer,
    ReferYoutubeVosWriter,
    single_target,
    take_folder,
    write_json,
)
from trackgpt.data.synthtrack.clips import Case, frame_size, one_of_each_kind, scene_expressions, seen_actors
from trackgpt.data.synthtrack.language import Seen, expressions
from trackgpt.data.synthtrack.render import render_clip
from trackgpt.data.synthtrack.scene import Expression, Scene
from trackgpt.data.synthtrack.world import leader, make_scene
from trackgpt.errors import UsageError
from trackgpt.export.records import writing

RUN = 10_000  # scenes that a run's seed may number
WORDINGS = {"train": (0, 1, 2, 3), "test": (0, 1, 2, 5)}  # of the four annotations; training never hears wording 5
_STREAM = 7  # of the scene's random numbers, for choosing what is said


class Layout(StrEnum):
    """What `make` can write."""

    mp4 = "mp4"
    folder = "folder"
    refer_youtube_vos = "refer-youtube-vos"
    refer_davis17 = "refer-davis17"


class Split(StrEnum):
    """The two worlds of SynthTrack."""

    train = "train"
    test = "test"


@dataclass(frozen=True)
class Order:
    """What is asked of `make`.

    Attributes:
        layout: what to write.
        videos: how many of each part; of the test part of refer-youtube-vos, which is text alone, half as many more,
            as in the real set.
        seed: of the run, 0 or more.
        split: None for every part that the layout has; for mp4 and folder, None is "test".
        frames: of each scene.
        longest: longer side of the frames in pixels.
    """

    layout: Layout
    videos: int
    seed: int = 0
    split: Split | None = None
    frames: int = 36
    longest: int = 320


def scene_seed(seed: int, index: int) -> int:
    """The seed of scene number `index` of a run.

    Raises:
        UsageError: the run has more scenes than its seed may number.
    """
    if index >= RUN:
        raise UsageError(f"seed {seed}: a run holds at most {RUN} scenes of a split; ask for fewer, or use more seeds")
    return seed * RUN + index


def parts(order: Order) -> list[tuple[str, Split, int]]:
    """The parts of the data set an order asks for: name, split of their scenes, number of videos."""
    train, valid = ("train", Split.train, order.videos), ("valid", Split.test, order.videos)
    if order.layout in (Layout.mp4, Layout.folder):
        return [train] if order.split is Split.train else [valid]
    unseen = [valid]
    if order.layout is Layout.refer_youtube_vos:
        unseen.append(("test", Split.test, (3 * order.videos + 1) // 2))
    if order.split is None:
        return [train, *unseen]
    return [train] if order.split is Split.train else unseen


def instructions(scene: Scene, seen: tuple[Seen, ...]) -> tuple[Expression, ...]:
    """What is said of frame 0: of every actor an explicit and an implicit expression if there is one, then at most one
    about several objects and one about none.
    """
    rng = np.random.default_rng([scene.seed, _STREAM])
    found = scene_expressions(scene, 0, seen, rng)
    said: list[Expression] = []
    for one in seen:
        said += one_of_each_kind([e for e in found if e.targets == (one.id,)], rng)
    return (*said, *one_of_each_kind([e for e in found if len(e.targets) != 1], rng))


def four_wordings(scene: Scene, seen: tuple[Seen, ...]) -> tuple[Expression, ...]:
    """What four annotators say of frame 0: of every actor that can be named one expression, in four wordings each."""
    passes = [
        expressions(
            seen, scene.kind, leader(scene, 0), scene.split, np.random.default_rng([scene.seed, _STREAM]), wording
        )
        for wording in WORDINGS[scene.split]
    ]
    rng = np.random.default_rng([scene.seed, _STREAM, ANNOTATIONS])
    said: list[Expression] = []
    for one in seen:
        options = [quadruple for form in _forms(passes[0], one.id) for quadruple in _in_all(passes, form, one.id)]
        if options:
            said += options[int(rng.integers(len(options)))]
    return tuple(said)


def _forms(found: list[Expression], actor: int) -> list[str]:
    return sorted({e.form for e in found if e.targets == (actor,)})


def _in_all(passes: list[list[Expression]], form: str, actor: int) -> list[tuple[Expression, ...]]:
    """The expressions of one form about one actor, in the words of every pass; none of a form that a pass lacks.

    Passes hold the same expressions in the same order, but for those that have too few wordings.
    """
    same = [[e for e in found if e.form == form and e.targets == (actor,)] for found in passes]
    return list(zip(*same, strict=True)) if len({len(found) for found in same}) == 1 else []


def cases(order: Order, split: Split) -> Iterator[Case]:
    """The cases of a split, without end, in the order of their seeds.

    Those with nothing to say about a single object are passed over where the layout holds such expressions alone.
    """
    benchmark = order.layout in (Layout.refer_youtube_vos, Layout.refer_davis17)
    index = 0
    while True:
        case = _case(order, scene_seed(order.seed, index), split)
        index += 1
        if single_target(case) or not benchmark:
            yield case


def _case(order: Order, seed: int, split: Split) -> Case:
    scene = make_scene(seed, split=split.value, frames=order.frames)
    height, width = frame_size(scene.aspect, order.longest)
    if order.layout is Layout.mp4:
        height, width = height + height % 2, width + width % 2
    clip = render_clip(scene, height, width)
    seen = seen_actors(scene, 0, clip.ids[0])
    said = instructions(scene, seen)
    if order.layout is Layout.refer_davis17:
        said = (*four_wordings(scene, seen), *(one for one in said if len(one.targets) != 1))
    return Case(scene, replace(clip, fps=scene.fps), said)


_WRITERS: dict[Layout, Callable[[Path], LayoutWriter]] = {
    Layout.mp4: Mp4Writer,
    Layout.folder: FolderWriter,
    Layout.refer_youtube_vos: ReferYoutubeVosWriter,
    Layout.refer_davis17: ReferDavis17Writer,
}


def make(order: Order, out: Path, overwrite: bool = False, done: Callable[[], None] = lambda: None) -> Counts:
    """Write a data set; the same order gives the same files.

    Args:
        order: what to write.
        out: folder to write into; made when missing.
        overwrite: replace what an earlier `make` wrote there.
        done: called after every video.

    Raises:
        UsageError: a number of the order is out of range.
        OutputError: OUT01, the folder is taken; OUT02, it cannot be written.
    """
    _check(order)
    with writing(out):
        take_folder(out, overwrite)
        write_json(out / MANIFEST, {"made by": "python -m data_tools make", **_plain(order)})
        writer = _WRITERS[order.layout](out)
        streams = {split: cases(order, split) for split in Split}
        for part, split, count in parts(order):
            for _ in range(count):
                writer.write(next(streams[split]), part)
                done()
        writer.close()
    return writer.counts


def _check(order: Order) -> None:
    for name, value, least in (
        ("videos", order.videos, 1),
        ("seed", order.seed, 0),
        ("frames", order.frames, 1),
        ("longest", order.longest, 32),
    ):
        if value < least:
            raise UsageError(f"--{name} is {value}; wanted {least} or more")


def _plain(order: Order) -> dict[str, object]:
    return {
        "layout": order.layout.value,
        "videos": order.videos,
        "seed": order.seed,
        "split": order.split.value if order.split else None,
        "frames": order.frames,
        "longest": order.longest,
    }


def command(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write into")],
    layout: Annotated[Layout, typer.Option(help="What to write")] = Layout.folder,
    videos: Annotated[int, typer.Option(help="Videos of each part")] = 4,
    seed: Annotated[int, typer.Option(help="Run seed; scene i has the seed 10000 * SEED + i")] = 0,
    split: Annotated[
        Split | None, typer.Option(help="Only this; without it test, or every part that the layout has")
    ] = None,
    frames: Annotated[int, typer.Option(help="Frames of each scene")] = 36,
    longest: Annotated[int, typer.Option(help="Longer side of the frames, pixels")] = 320,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier make wrote there")] = False,
) -> None:
    """Write SynthTrack videos with masks and expressions in the layout of a real data set."""
    from rich.console import Console
    from rich.progress import Progress

    order = Order(layout, videos, seed, split, frames, longest)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"{layout}", total=sum(count for *_, count in parts(order)))
        counts = make(order, out, overwrite, lambda: progress.advance(task))
    if counts.skipped:
        print(f"skipped {counts.skipped} expressions with several targets or none: {layout} holds one object each")
    print(f"layout={layout} videos={counts.videos} frames={counts.frames} expressions={counts.expressions} out={out}")
