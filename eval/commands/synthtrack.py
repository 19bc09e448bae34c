"""`python -m eval synthtrack`: the kit that needs no data."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from eval.commands.kits import (
    Asked,
    Device,
    Dtype,
    Jobs,
    Limit,
    Model,
    Out,
    Partial,
    Results,
    Set,
    Threads,
    Variant,
    evaluate,
)
from eval.kits.synthtrack import SynthTrack


def command(
    model: Model = "",
    results: Results = None,
    seed: Annotated[int, typer.Option(help="Chooses the videos")] = 1,
    videos: Annotated[int, typer.Option(min=1, max=10_000, help="How many videos")] = 200,
    split: Annotated[str, typer.Option(help="test, or train for choosing settings without touching test")] = "test",
    out: Out = None,
    jobs: Jobs = 1,
    threads: Threads = 1,
    limit: Limit = 0,
    partial_: Partial = False,
    device: Device = "cpu",
    variant: Variant = "full",
    set_: Set = None,
    dtype: Dtype = "float32",
) -> None:
    """Instructions of every kind on held-out synthetic videos; --model random-object is the baseline."""
    asked = Asked(model, results, out, jobs, threads, limit, partial_, device, variant, tuple(set_ or ()), dtype)
    chosen = {"seed": seed, "videos": videos, "split": split}
    evaluate(partial(SynthTrack, seed, videos, split), asked, chosen)
