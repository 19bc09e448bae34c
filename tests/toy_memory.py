"""A memory network without weights: it follows the colour of what it was shown, on frames of `toy_systems.scene`.

Its "weights" are a folder with the file toy.json, which `hire` lets the hub load, under `nano-memory` too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import trackgpt.hub
from trackgpt.errors import UsageError
from trackgpt.geometry.masks import box_of
from trackgpt.online import Frame, image_of
from trackgpt.perception.memory_segmenter import Asked, Hypothesis, Segmented
from trackgpt.systems.pointed import Pointed
from trackgpt.types import EncodedFrame, VisualPrompt

NAME = "toy-memory"


@dataclass(frozen=True)
class ColourMemory:
    """The colour that a target had where it was shown, and those that were shown not to be it, float64 (3,), (n, 3)."""

    colour: np.ndarray
    wrong: np.ndarray
    seen: int = 0

    @property
    def nbytes(self) -> int:
        return self.colour.nbytes + self.wrong.nbytes


class ColourNetwork:
    """See the module.

    Attributes:
        encoded: how many frames were encoded.
        forgetful: an ablation: nothing is seen but where something is shown.
    """

    kinds = (ColourMemory,)

    def __init__(self, forgetful: bool = False, near: int = 60) -> None:
        self.forgetful, self.near = forgetful, near
        self.encoded = 0

    @classmethod
    def from_pretrained(cls, folder: Path) -> "ColourNetwork":
        return cls(near=int((folder / "toy.json").read_text()))

    def encode(self, images: Sequence[np.ndarray]) -> Sequence[Frame]:
        self.encoded += len(images)
        return [EncodedFrame(image, image.astype(int)) for image in images]

    def segment(self, frame: Frame, asked: Sequence[Asked]) -> list[Segmented]:
        pixels = frame.features if isinstance(frame, EncodedFrame) else image_of(frame).astype(int)
        return [self._one(pixels, one) for one in asked]

    def _one(self, pixels: np.ndarray, asked: Asked) -> Segmented:
        memory = asked.memory if asked.shown is None else _learned(pixels, asked.memory, asked.shown)
        mask = self._like(pixels, memory.colour)
        for colour in memory.wrong:
            mask &= ~self._like(pixels, colour)
        if self.forgetful and asked.shown is None:
            mask[:] = False
        found = Segmented(mask, 0.9, float(mask.any()), replace(memory, seen=memory.seen + 1))
        if asked.judge is None:
            return found
        colour = pixels[mask].mean(0) if mask.any() else np.zeros(3)
        box = tuple(box_of(mask).tolist()) if mask.any() else None
        look = Hypothesis(mask, box, 0.9, np.float32(colour / np.linalg.norm(colour)) if mask.any() else None)
        return found._replace(hypotheses=(look,))

    def kept(self, memory: ColourMemory, place: int) -> ColourMemory:
        return memory

    def _like(self, pixels: np.ndarray, colour: np.ndarray) -> np.ndarray:
        return np.abs(pixels - colour).sum(axis=2) < self.near

    def ablated(self, name: str) -> "ColourNetwork":
        if name != "no-memory":
            raise UsageError(f"ablation {name}: not one of full, no-memory")
        return ColourNetwork(forgetful=True, near=self.near)

    def configured(self, settings: Sequence[str]) -> "ColourNetwork":
        ((key, value),) = (setting.split("=") for setting in settings)
        if key != "near":
            raise UsageError(f"no setting `{key}`; it has near")
        return ColourNetwork(self.forgetful, int(value))


def _learned(pixels: np.ndarray, memory: ColourMemory | None, shown: VisualPrompt) -> ColourMemory:
    here = np.zeros(pixels.shape[:2], bool) if shown.mask is None else shown.mask.copy()
    if shown.box is not None:
        x1, y1, x2, y2 = (max(0, round(v)) for v in shown.box)
        here[y1:y2, x1:x2] = True
    for x, y, side in shown.points:
        here[int(y), int(x)] |= bool(side)
    colour = np.median(pixels[here], axis=0) if here.any() else memory.colour
    others = [pixels[int(y), int(x)] for x, y, side in shown.points if not side]
    wrong = np.array([] if memory is None else memory.wrong, float).reshape(-1, 3)
    return ColourMemory(colour, np.concatenate([wrong, np.array(others, float).reshape(-1, 3)]))


def pointed() -> Pointed:
    """The network as a system."""
    return Pointed(ColourNetwork(), NAME)


def hire(monkeypatch, folder: Path) -> Path:
    """Let the hub load the network from a folder that is made here, and ship it as `nano-memory`."""
    folder.mkdir()
    (folder / "toy.json").write_text("60")
    (folder / "model.safetensors").write_bytes(bytes(1000))
    find_network = trackgpt.hub.find_network

    def find_toy(name: object) -> tuple[type, Path] | None:
        found = name != "nano" and "+" not in str(name) and (trackgpt.hub.find(name) / "toy.json").is_file()
        return (ColourNetwork, trackgpt.hub.find(name)) if found else find_network(name)

    shipped = trackgpt.hub.shipped()[0], trackgpt.hub.Shipped(trackgpt.hub.NANO_MEMORY, folder, "a toy")
    monkeypatch.setattr(trackgpt.hub, "find_network", find_toy)
    monkeypatch.setattr(trackgpt.hub, "shipped", lambda: shipped)
    return folder
