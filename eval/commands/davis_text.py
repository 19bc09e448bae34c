"""`python -m eval davis-text`: referring expressions on real DAVIS sequences."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from eval.commands.kits import Asked, Device, Jobs, Limit, Model, Out, Partial, Results, Set, Threads, Variant, evaluate
from eval.kits.davis_text import DavisText


def command(
    data: Annotated[Path, typer.Option(help="DAVIS: JPEGImages/480p/SEQUENCE, Annotations/480p/SEQUENCE (or 240p)")],
    expressions: Annotated[Path, typer.Option(help="refvos's DAVIS17_RE_categorization.csv")],
    model: Model = "",
    results: Results = None,
    resolution: Annotated[str, typer.Option(help="480p, 240p, or auto: the better one a sequence has")] = "auto",
    out: Out = None,
    jobs: Jobs = 1,
    threads: Threads = 1,
    limit: Limit = 0,
    partial_: Partial = False,
    device: Device = "auto",
    variant: Variant = "full",
    set_: Set = None,
) -> None:
    """One expression an object on real DAVIS sequences (not Refer-DAVIS17)."""
    asked = Asked(model, results, out, jobs, threads, limit, partial_, device, variant, tuple(set_ or ()))
    chosen = {"data": str(data), "expressions": str(expressions), "resolution": resolution}
    kit = DavisText(data, expressions, resolution)
    for reason in kit.found[1]:
        typer.echo(f"left out: {reason}", err=True)
    evaluate(partial(DavisText, data, expressions, resolution), asked, chosen)
