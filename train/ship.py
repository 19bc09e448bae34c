"""`python -m train.ship FOLDER`: store a trained model as the nano inside the package, if it fits.

`python -m train.known_world` is to be run after it: what the old weights knew of their world goes with them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from trackgpt.errors import OutputError, TrackGPTError
from trackgpt.hub import ASSETS
from trackgpt.systems.trackgpt import TrackGPT

MOST_PARAMETERS = 9_000_000
MOST_BYTES = 16 * 2**20


def main(
    folder: Annotated[Path, typer.Argument(help="A model folder, e.g. runs/nano/join/model")],
    out: Annotated[Path, typer.Option(help="Where the package looks for it")] = ASSETS / "nano",
) -> None:
    """Write a model in bfloat16 to the package's assets; refuses one that is too large to ship."""
    try:
        count, size = ship(folder, out)
    except TrackGPTError as error:
        typer.echo(f"ship: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
    typer.echo(f"parameters={count} bytes={size} out={out}")


def ship(folder: Path, out: Path) -> tuple[int, int]:
    """Store `folder` in bfloat16 under `out`; returns parameters and bytes of the weights.

    Raises:
        OutputError: more than 9 M parameters or 16 MiB; nothing is left behind.
    """
    model = TrackGPT.from_pretrained(folder)
    count = sum(p.numel() for p in model.parameters())
    if count > MOST_PARAMETERS:
        raise OutputError(f"{folder}: {count} parameters; at most {MOST_PARAMETERS} ship inside the package")
    model.save_pretrained(out, torch.bfloat16)
    weights = out / "model.safetensors"
    size = weights.stat().st_size
    if size > MOST_BYTES:
        weights.unlink()
        raise OutputError(f"{folder}: {size} bytes of weights; at most {MOST_BYTES} ship inside the package")
    return count, size


if __name__ == "__main__":
    typer.run(main)
