"""`python -m train.ship FOLDER`: store a trained model (nano and others) inside the package, if it fits.

`python -m train.known_world` (nano, or the folder of the policy) and `python -m train.score_calibration nano` are to be
run after it: what the old weights knew of their world, and what their scores were worth, goes with them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from trackgpt import ending
from trackgpt.errors import OutputError
from trackgpt.files import refuse_existing, refuse_to_hold, writing
from trackgpt.hub import ASSETS, BOX_NANO, NANO_MEMORY, POLICY_NANO, refuse_to_replace
from trackgpt.perception.box_transformer import BoxTransformer, is_box_transformer
from trackgpt.perception.known_world import KNOWN_WORLD_FILE
from trackgpt.perception.mask_propagation import MaskPropagation, is_nano_memory
from trackgpt.reasoners.brain_weights import load_tokenizer, load_vlm
from trackgpt.reasoners.vlm import is_vlm_grounder
from trackgpt.systems.trackgpt import WEIGHTS_FILE, TrackGPT
from train.model_folder import copy_beside


@dataclass(frozen=True)
class ShippedKind:
    """A model that ships.

    Attributes:
        name: of it.
        is_one: whether a folder holds such a one.
        network: reads it, with `from_pretrained`, and writes it, with `save_pretrained`.
    """

    name: str
    is_one: Callable[[Path], bool]
    network: Any


class PolicyFolder:
    """The network of a policy with the other files of its folder, as a hub has them.

    Args:
        model: of transformers.
        folder: where it was read.
    """

    def __init__(self, model: Any, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.parameters = model.parameters

    @classmethod
    def from_pretrained(cls, folder: Path) -> PolicyFolder:
        """Read a folder; see `load_vlm`."""
        return cls(load_vlm(folder, torch.float32)[0], folder)

    def save_pretrained(self, out: str, dtype: torch.dtype) -> None:
        """Write a folder with the weights in a type."""
        copy_beside(self.folder, Path(out))
        self.model.to(dtype).save_pretrained(out)


KINDS = (
    ShippedKind(NANO_MEMORY, is_nano_memory, MaskPropagation),
    ShippedKind(BOX_NANO, is_box_transformer, BoxTransformer),
    ShippedKind(POLICY_NANO, is_vlm_grounder, PolicyFolder),
)
MOST_PARAMETERS = 9_000_000
MOST_BYTES = 16 * 2**20

app = typer.Typer(add_completion=False, context_settings=ending.HELP, pretty_exceptions_enable=False)


@app.command()
def main(
    folder: Annotated[Path, typer.Argument(help="A model folder, e.g. runs/nano/join/model")],
    out: Annotated[Path | None, typer.Option(help="Folder; else where the package looks for such a model")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model that is there")] = False,
) -> None:
    """Write a model in bfloat16 to the package's assets; refuses one that is too large to ship."""
    out = out or ASSETS / kind_of(folder).name
    count, size = ship(folder, out, overwrite)
    typer.echo(f"parameters={count} bytes={size} out={out}")


def ship(folder: Path, out: Path, overwrite: bool = False) -> tuple[int, int]:
    """Store `folder` in bfloat16 under `out`; returns parameters and bytes of the weights.

    Raises:
        OutputError: more than 9 M parameters or 16 MiB, or see `trackgpt.hub.refuse_to_replace`; what is in `out` stays
            as it is.
    """
    kind = kind_of(folder)
    if kind.network is TrackGPT:
        refuse_to_replace(out, overwrite, [folder])
    else:
        _refuse_other_kind(out, overwrite, folder, kind)
    model: Any = kind.network.from_pretrained(folder)
    if kind.network is BoxTransformer and model.config.words:
        model.tokenizer = load_tokenizer(folder, own=True, answers=False)
    count = sum(p.numel() for p in model.parameters())
    if count > MOST_PARAMETERS:
        raise OutputError(f"{folder}: {count} parameters; at most {MOST_PARAMETERS} ship inside the package")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as aside:
            model.save_pretrained(aside, torch.bfloat16)
            size = (Path(aside) / WEIGHTS_FILE).stat().st_size
            if size > MOST_BYTES:
                raise OutputError(f"{folder}: {size} bytes of weights; at most {MOST_BYTES} ship inside the package")
            for file in Path(aside).iterdir():
                os.replace(file, out / file.name)
        (out / KNOWN_WORLD_FILE).unlink(missing_ok=True)  # it was of the weights that lay there before
    return count, size


def kind_of(folder: Path) -> ShippedKind:
    """What a folder holds; a TrackGPT unless it says otherwise."""
    return next((kind for kind in KINDS if kind.is_one(folder)), ShippedKind("nano", lambda _: True, TrackGPT))


def _refuse_other_kind(out: Path, overwrite: bool, folder: Path, kind: ShippedKind) -> None:
    """Refuse a folder that holds anything but a model of a kind, or what is read."""
    refuse_existing(out, overwrite)
    refuse_to_hold(out, [folder])
    if out.is_dir() and any(out.iterdir()) and not kind.is_one(out):
        raise OutputError(f"{out}: holds something else than a {kind.name}, which is never replaced", "OUT01")


if __name__ == "__main__":
    ending.run("train.ship", lambda: app(prog_name="python -m train.ship", standalone_mode=False))
