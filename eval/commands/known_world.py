"""`python -m eval known-world FOLDER`: drawn scenes that a model refuses, and real footage that it takes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy.stats import rankdata

from eval.run_folder import progress
from trackgpt.errors import InputError, ModelError
from trackgpt.perception.known_world import MOST_UNLIKE

Look = Callable[[np.ndarray], float]
FRAMES = 36
SIDES = {"as drawn, 320 px": (320, False), "H.264, 320 px": (320, True), "H.264, 854 px": (854, True)}
"""Forms of a drawn frame: its longest side in pixels, and whether it went through an mp4."""
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm")
PICTURES = (".jpg", ".jpeg")


@dataclass(frozen=True)
class Unlikenesses:
    """Of one kind of footage.

    Attributes:
        kind: for people.
        values: of `trackgpt.perception.known_world.KnownWorld.unlikeness`, one per frame.
    """

    kind: str
    values: np.ndarray

    @property
    def refused(self) -> float:
        """Share of the frames, in percent."""
        return 100 * float((self.values > MOST_UNLIKE).mean())


def command(
    folder: Annotated[Path, typer.Argument(help="Real footage: videos, folders of JPEGs, and folders of these")],
    model: Annotated[str, typer.Option(help="Shipped name or folder")] = "nano",
    seed: Annotated[int, typer.Option(help="Chooses the drawn scenes, as in the kit synthtrack")] = 1,
    videos: Annotated[int, typer.Option(help="How many are drawn, of the test split")] = 200,
    stride: Annotated[int, typer.Option(help="Of real sequences then every so manieth frame")] = 10,
    every: Annotated[bool, typer.Option("--every", help="List every real sequence")] = False,
) -> None:
    """Which first frames are refused as unlike the model's world: drawn ones wrongly, real ones rightly."""
    look = unlikeness_of(model)
    found = [Unlikenesses(kind, drawn(look, kind, seed, videos)) for kind in SIDES]
    sequences = {name: np.array(values) for name, values in real(look, folder, stride)}
    if not sequences:
        raise InputError(f"{folder}: holds no footage; wanted videos or folders of JPEGs")
    first = np.array([values[0] for values in sequences.values()])
    found += [Unlikenesses("real, first frames", first)]
    found += [Unlikenesses(f"real, every {stride}th frame", np.concatenate(list(sequences.values())))]
    if every:
        for name, values in sequences.items():
            typer.echo(f"{name}: {values[0]:.2f}, least {values.min():.2f} of {len(values)}")
    show(found)
    typer.echo(
        f"auroc={auroc(found[0].values, first):.4f} false_alarms={found[0].refused:.1f} "
        f"recognised={found[-2].refused:.1f} sequences={len(first)} videos={videos}"
    )


def unlikeness_of(model: str) -> Look:
    """What a model says of an image, uint8 RGB (height, width, 3).

    Raises:
        ModelError: it does not say what its world looks like.
    """
    from trackgpt.hub import load_trackgpt

    loaded = load_trackgpt(model)
    if loaded.known_world is None:
        raise ModelError(f"{model}: does not say what its world looks like; run python -m train.known_world {model}")
    return lambda image: loaded.unlikeness(image) or 0.0


def drawn(look: Look, kind: str, seed: int, videos: int) -> np.ndarray:
    """The unlikeness of the first frames of videos of the kit synthtrack, float64 (videos,), in one of `SIDES`."""
    from trackgpt.synthtrack.clips import frame_size
    from trackgpt.synthtrack.render import render
    from trackgpt.synthtrack.world import make_scene

    longest, filmed = SIDES[kind]
    values = []
    for number in progress(range(videos), kind, videos):
        scene = make_scene(seed * 10_000 + number, split="test", frames=FRAMES)
        frame, _ = render(scene, 0, *frame_size(scene.aspect, longest))
        values.append(look(through_a_film(frame) if filmed else frame))
    return np.array(values)


def through_a_film(frame: np.ndarray) -> np.ndarray:
    """A frame, uint8 RGB (height, width, 3), as it comes out of an mp4 with its sides made even."""
    from trackgpt.video.source import open_source
    from trackgpt.video.writer import VideoWriter

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.mp4"
        with VideoWriter(path, 12.0, (frame.shape[0], frame.shape[1])) as film:
            film.write(frame, 0.0)
        with open_source(path) as source:
            return source.first


def real(look: Look, folder: Path, stride: int) -> Iterator[tuple[str, Sequence[float]]]:
    """Name and unlikeness of every sequence below a folder: of its first frame, then of every `stride`-th."""
    from trackgpt.video.source import open_source

    places = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (*VIDEOS, *PICTURES))
    sources = sorted({path if path.suffix.lower() in VIDEOS else path.parent / f"*{path.suffix}" for path in places})
    for place in progress(sources, "real", len(sources)):
        with open_source(place, stride=stride, allow_gaps=True) as source:
            yield str(place.relative_to(folder)), [look(frame.image) for frame in source if frame.image is not None]


def auroc(low: np.ndarray, high: np.ndarray) -> float:
    """Probability that one of `high` (n,) is above one of `low` (m,), equal ones counted half."""
    ranks = rankdata(np.concatenate([low, high]))[len(low) :]
    return float((ranks.sum() - len(high) * (len(high) + 1) / 2) / (len(low) * len(high)))


def show(found: Sequence[Unlikenesses]) -> None:
    """Print a table: how many frames of each kind, the share refused, and distances by the limit."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("frames", "n", "refused, %", "least", "median", "largest"):
        table.add_column(heading, justify="left" if heading == "frames" else "right")
    for each in found:
        spread = (each.values.min(), np.median(each.values), each.values.max())
        table.add_row(each.kind, str(len(each.values)), f"{each.refused:.1f}", *(f"{value:.2f}" for value in spread))
    Console(width=120).print(table)
