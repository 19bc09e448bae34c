"""Writes SynthTrack to disk: ``python -m data_tools make --layout refer-davis17 --videos 4 -o OUT``.

Scene number i of a run has the seed ``seed * 10000 + i``, so that runs with different seeds share no scene. Train parts
are made of scenes of the split "train", valid and test parts of the split "test" (unseen pairs and wordings).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from data_tools.checks.stages import STAGES
from data_tools.label_map_writers import ANNOTATIONS, WORDINGS
from data_tools.layouts import FORMS, Layout, Split, members
from data_tools.writers import MANIFEST, Counts, take_folder, write_json
from trackgpt.errors import UsageError
from trackgpt.files import writing
from trackgpt.synthtrack.clips import Case, frame_size, one_of_each_kind, scene_expressions, seen_actors
from trackgpt.synthtrack.language import Seen, expressions
from trackgpt.synthtrack.render import render_clip
from trackgpt.synthtrack.scene import Scene, SceneInstruction
from trackgpt.synthtrack.world import leader, make_scene

RUN = 10_000  # scenes that a run's seed may number
RANGES = {
    "videos": (1, RUN),
    "seed": (0, 10**9),
    "frames": (1, 10_000),
    "longest": (32, 8192),
    "instructions": (0, 10_000),
}
"""Of the numbers of an `Order`."""
ANNOTATED = {"train": (0, 1, 2, 3), "test": (0, 1, 2, 5)}  # wordings of four annotators; training never hears the last
_STREAM = 7  # of the scene's random numbers, for choosing what is said


@dataclass(frozen=True)
class Order:
    """What is asked of `make`.

    Attributes:
        layout: what to write.
        videos: how many of each part; of the test part of refer-youtube-vos, which is text alone, half as many more,
            as in the real set.
        seed: of the run, 0 or more.
        split: None for every part that the layout has; for mp4 and folder, None is "test".
        frames: of each scene; image sets show its first alone.
        longest: longer side of the frames in pixels.
        instructions: of a video of InsTrack's layout, at most; 0 for all. The published set has one.
    """

    layout: Layout
    videos: int
    seed: int = 0
    split: Split | None = None
    frames: int = 36
    longest: int = 320
    instructions: int = 0


def scene_seed(seed: int, index: int) -> int:
    """The seed of scene number `index` of a run.

    Raises:
        UsageError: the run has more scenes than its seed may number.
    """
    if index >= RUN:
        raise UsageError(f"seed {seed}: a run holds at most {RUN} scenes of a split; ask for fewer, or use more seeds")
    return seed * RUN + index


def parts(order: Order) -> list[tuple[str, Split, int]]:
    """The parts of the data set an order asks for: name, split of their scenes, number of videos.

    Raises:
        UsageError: the layout has no part of the split.
    """
    split = order.split or (Split.test if order.layout in (Layout.mp4, Layout.folder) else None)
    shares = FORMS[order.layout].parts
    found = [(part, of, math.ceil(order.videos * share)) for part, of, share in shares if split in (None, of)]
    if not found:
        raise UsageError(f"{order.layout} has no part of {split} scenes; leave --split out")
    return found


def orders(order: Order, out: Path) -> list[tuple[Order, Path]]:
    """An order for one layout each, with its folder: the members of a stage that have a part of the split, or itself.

    Raises:
        UsageError: as `parts`.
    """
    found = [(replace(order, layout=layout), folder) for layout, folder in members(order.layout, out)]
    if order.layout in STAGES and order.split is not None:
        return [(one, out) for one, out in found if any(of == order.split for _, of, _ in FORMS[one.layout].parts)]
    return found


def instructions(scene: Scene, seen: tuple[Seen, ...]) -> tuple[SceneInstruction, ...]:
    """What is said of frame 0: of every actor an explicit and an implicit expression if there is one, then at most one
    about several objects and one about none.
    """
    rng = np.random.default_rng([scene.seed, _STREAM])
    found = scene_expressions(scene, 0, seen, rng)
    said: list[SceneInstruction] = []
    for one in seen:
        said += one_of_each_kind([e for e in found if e.targets == (one.id,)], rng)
    return (*said, *one_of_each_kind([e for e in found if len(e.targets) != 1], rng))


def four_wordings(scene: Scene, seen: tuple[Seen, ...]) -> tuple[SceneInstruction, ...]:
    """What four annotators say of frame 0: of every actor that can be named one expression, in four wordings each."""
    passes = [_said(scene, seen, wording) for wording in ANNOTATED[scene.split]]
    rng = np.random.default_rng([scene.seed, _STREAM, ANNOTATIONS])
    said: list[SceneInstruction] = []
    for one in seen:
        options = [
            quadruple
            for form in _forms(passes[0], (one.id,))
            for quadruple in _in_all(passes, lambda e, form=form, one=one: e.form == form and e.targets == (one.id,))
        ]
        if options:
            said += options[int(rng.integers(len(options)))]
    return tuple(said)


def six_wordings(scene: Scene, seen: tuple[Seen, ...], most: int = 0) -> tuple[SceneInstruction, ...]:
    """Instructions about frame 0, each in six wordings in a row: of every actor that can be named one, implicit if it
    can be, and one about several actors if there is any; or at most so many of them, drawn.

    Training never hears the last wording; in its place stands another instruction that means the same objects.
    """
    heard = WORDINGS if scene.split == "test" else WORDINGS - 1
    passes = [_said(scene, seen, wording) for wording in range(heard)]
    rng = np.random.default_rng([scene.seed, _STREAM, WORDINGS])
    several = sorted({e.targets for e in passes[0] if len(e.targets) > 1})
    chosen = [(one.id,) for one in seen] + several[:1]
    said: list[SceneInstruction] = []
    for targets in chosen:
        options = _sixfold(passes, targets)
        implicit = [option for option in options if option[0].kind == "implicit"]
        if options:
            options = implicit or options
            said += options[int(rng.integers(len(options)))]
    groups = [said[start : start + WORDINGS] for start in range(0, len(said), WORDINGS)]
    kept = sorted(rng.permutation(len(groups))[: most or None].tolist())
    return tuple(one for place in kept for one in groups[place])


def _sixfold(passes: list[list[SceneInstruction]], targets: tuple[int, ...]) -> list[tuple[SceneInstruction, ...]]:
    """Instructions that mean these actors, each in six wordings; where passes lack one, another's stands in."""
    found = []
    for form in _forms(passes[0], targets):
        others = [e for e in passes[0] if e.targets == targets and e.form != form]
        for same in _in_all(passes, lambda e, form=form: e.form == form and e.targets == targets):
            if len(same) == WORDINGS:
                found.append(same)
            elif others:
                found.append((*same, replace(others[0], wording=WORDINGS - 1)))
    return found


def _said(scene: Scene, seen: tuple[Seen, ...], wording: int) -> list[SceneInstruction]:
    """All that can be said of frame 0, in one wording; every wording says the same things in the same order."""
    rng = np.random.default_rng([scene.seed, _STREAM])
    return expressions(seen, scene.kind, leader(scene, 0), scene.split, rng, wording)


def _forms(found: list[SceneInstruction], targets: tuple[int, ...]) -> list[str]:
    return sorted({e.form for e in found if e.targets == targets})


def _in_all(
    passes: list[list[SceneInstruction]], meant: Callable[[SceneInstruction], bool]
) -> list[tuple[SceneInstruction, ...]]:
    """The expressions that are meant, in the words of every pass; none where a pass has too few wordings for one."""
    same = [[e for e in found if meant(e)] for found in passes]
    return list(zip(*same, strict=True)) if len({len(found) for found in same}) == 1 else []


def cases(order: Order, split: Split) -> Iterator[Case]:
    """The cases of a split, without end, in the order of their seeds.

    Those with nothing to say that the layout can hold are passed over.
    """
    fits = FORMS[order.layout].fits
    index = 0
    while True:
        case = _case(order, scene_seed(order.seed, index), split)
        index += 1
        if fits(case):
            yield case


def _case(order: Order, seed: int, split: Split) -> Case:
    frames = 1 if FORMS[order.layout].one_frame else order.frames
    scene = make_scene(seed, split=split.value, frames=frames)
    height, width = frame_size(scene.aspect, order.longest)
    if order.layout is Layout.mp4:
        height, width = height + height % 2, width + width % 2
    clip = render_clip(scene, height, width)
    seen = seen_actors(scene, 0, clip.ids[0])
    said = instructions(scene, seen)
    if order.layout is Layout.refer_davis17:
        said = (*four_wordings(scene, seen), *(one for one in said if len(one.targets) != 1))
    if order.layout is Layout.instrack:
        said = six_wordings(scene, seen, order.instructions)
    return Case(scene, replace(clip, fps=scene.fps), said)


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
    wanted = orders(order, out)
    with writing(out):
        take_folder(out, overwrite)
        others = {entry.name for entry in out.iterdir()} | {MANIFEST}
        about = {"made by": "python -m data_tools make", **_plain(order)}
        write_json(out / MANIFEST, about)
        counts = Counts()
        for one, folder in wanted:
            counts.add_all(_write(one, folder, done))
        held = sorted(entry.name for entry in out.iterdir() if entry.name not in others)
        write_json(out / MANIFEST, about | {"holds": held})
    return counts


def _write(order: Order, folder: Path, done: Callable[[], None]) -> Counts:
    """Write a layout that is no stage."""
    writer = FORMS[order.layout].writer(folder)
    streams = {split: cases(order, split) for split in Split}
    for part, split, count in parts(order):
        for _ in range(count):
            writer.write(next(streams[split]), part)
            done()
    writer.close()
    return writer.counts


def _check(order: Order) -> None:
    for name, (least, most) in RANGES.items():
        if not least <= (value := getattr(order, name)) <= most:
            raise UsageError(f"--{name} is {value}; wanted {least:,} to {most:,}")
    fewest = max(FORMS[layout].fewest for layout, _ in members(order.layout, Path()))
    if order.frames < fewest:
        raise UsageError(f"--frames is {order.frames}; a video of {order.layout} has {fewest} at least")


def _plain(order: Order) -> dict[str, object]:
    return {
        "layout": order.layout.value,
        "videos": order.videos,
        "seed": order.seed,
        "split": order.split.value if order.split else None,
        "frames": order.frames,
        "longest": order.longest,
        "instructions": order.instructions,
    }


def command(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write into")],
    layout: Annotated[
        Layout, typer.Option(help="What to write; stage1 to stage3 for all that a stage wants")
    ] = Layout.folder,
    videos: Annotated[int, typer.Option(help="Videos of each part")] = 4,
    seed: Annotated[int, typer.Option(help="Run seed; scene i has the seed 10000 * SEED + i")] = 0,
    split: Annotated[
        Split | None, typer.Option(help="Only this; without it test, or every part that the layout has")
    ] = None,
    frames: Annotated[int, typer.Option(help="Frames of each scene")] = 36,
    longest: Annotated[int, typer.Option(help="Longer side of the frames, pixels")] = 320,
    instructions: Annotated[int, typer.Option(help="Instructions of a video of instrack; 0 for all")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier make wrote there")] = False,
) -> None:
    """Write SynthTrack videos or pictures, with masks and words, in the layout of a real data set or a whole stage."""
    from rich.console import Console
    from rich.progress import Progress

    order = Order(layout, videos, seed, split, frames, longest, instructions)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(
            f"{layout}", total=sum(count for one, _ in orders(order, out) for *_, count in parts(one))
        )
        counts = make(order, out, overwrite, lambda: progress.advance(task))
    if counts.skipped:
        print(f"skipped {counts.skipped} expressions whose number of targets {layout} does not hold")
    print(f"layout={layout} videos={counts.videos} frames={counts.frames} expressions={counts.expressions} out={out}")
