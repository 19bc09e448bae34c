"""Names to models: what ships inside the package, what lies in a folder, what a hub holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trackgpt.errors import ModelError

if TYPE_CHECKING:
    from trackgpt.systems.trackgpt import TrackGPT

ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class Shipped:
    """A model inside the package."""

    name: str
    folder: Path
    about: str


def shipped() -> tuple[Shipped, ...]:
    """The models that need no download."""
    return (Shipped("nano", ASSETS / "nano", "a whole TrackGPT of under 9 M parameters, trained on SynthTrack alone"),)


def find(name: str | Path) -> Path:
    """The folder of a model given by name or folder.

    Raises:
        ModelError: MD01, neither a shipped name nor a folder that holds a model.
    """
    for model in shipped():
        if str(name) == model.name:
            return model.folder
    folder = Path(name)
    if folder.is_dir():
        return folder
    names = ", ".join(model.name for model in shipped())
    raise ModelError(
        f"{name}: not a model on this machine; shipped: {names}; or pass a folder of save_pretrained", "MD01"
    )


def load_model(name: str | Path = "nano", device: str = "auto") -> TrackGPT:
    """A model ready for inference: folded, in evaluation mode, float32, on the device.

    Args:
        name: a shipped name or a folder.
        device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps".

    Raises:
        ModelError: MD01, MD02 (see `TrackGPT.from_pretrained`), MD04 the device is not there.
    """
    import torch

    from trackgpt.systems.trackgpt import TrackGPT

    model = TrackGPT.from_pretrained(find(name)).fold()
    place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        return model.to(place)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"device {place}: {reason}; --device cpu always works", "MD04") from error
