"""`python -m eval corrections`: how many corrections a video needs from a simulated user."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from eval.report import table
from eval.run_folder import progress, write_text
from eval.trackers import Choice
from trackgpt.export.records import plain
from trackgpt.files import refuse_existing_file


class Says(StrEnum):
    """What the user says."""

    full = "full"
    short = "short"
    nothing = "nothing"


def command(
    model: Annotated[str, typer.Option(help="Shipped name or folder of a model, or imat:GROUNDER+SEGMENTER")],
    data: Annotated[Path, typer.Option(help="Sequences of InteractTrack, or the folder that holds them")] = Path(
        "data"
    ),
    says: Annotated[
        Says, typer.Option(help="'the red dog'; in few words 'no, the red one'; or nothing, for comparison")
    ] = Says.full,
    patience: Annotated[int, typer.Option(min=1, help="Frames in a row with IoU of 0.5 or less before it is said")] = 3,
    everything: Annotated[
        bool, typer.Option("--all", help="Say all of a script, questions and hints included")
    ] = False,
    limit: Annotated[int, typer.Option(min=0, help="Only the first so many sequences; 0 means all")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1")] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="Arithmetic threads; 0 leaves torch's choice")] = 1,
    variant: Annotated[str, typer.Option(help="Ablation, e.g. no-rethinking; a wrong name lists all")] = "full",
    settings: Annotated[list[str] | None, typer.Option("--set", help="Loop setting, e.g. --set cooldown=3")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write all videos and the figures to this JSON file")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace that file")] = False,
) -> None:
    """Corrections needed per video until IoU stays above 0.5, readings of the slow model, and frames per second.

    Example: python -m data_tools make --layout interacttrack --videos 20 -o interact;
    python -m eval corrections --model imat:nano+nano-memory --data interact
    """
    from eval.corrections import User, corrections_summary, watch_sequence
    from trackgpt.data.box_video import InteractiveBoxSequence, interacttrack

    if out:
        refuse_existing_file(out, overwrite, [])
    sequences = interacttrack(data, "test").sequences[: limit or None]
    tracker = Choice(model, variant, tuple(settings or ()), device, threads).load()
    user, videos = User(patience, says.value), []
    for sequence in progress(sequences, "corrections", len(sequences)):
        assert isinstance(sequence, InteractiveBoxSequence)
        videos.append(watch_sequence(tracker, sequence, user, everything))
    figures = corrections_summary(videos)
    typer.echo(table(["video", *figures], [_line(each.name, corrections_summary([each])) for each in videos]))
    if out:
        choice = {"model": model, "data": str(data), "variant": variant, "settings": settings or [], "all": everything}
        rows = [each.as_json() for each in videos]
        write_text(
            out, json.dumps({**choice, "user": asdict(user), "figures": plain(figures, 6), "videos": rows}) + "\n"
        )
    typer.echo(" ".join([f"{name}={value:.2f}" for name, value in figures.items()] + [f"videos={len(videos)}"]))


def _line(name: str, figures: Mapping[str, float]) -> list[str]:
    return [name, *(f"{value:.2f}" for value in figures.values())]
