"""Whether a frame looks like the drawn world a model was trained on, by what its image encoder computes anyway.

A frame becomes the mean and the standard deviation of every channel of the encoder's maps at strides 4 and 8. A linear
discriminant, learned by `train.known_world` from drawn frames of two worlds and no photograph, tells how unlike the
model's own world that is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from trackgpt.errors import ModelError
from trackgpt.files import replacing
from trackgpt.geometry.letterbox import fit
from trackgpt.perception.encoders import ConvEncoder, Features, normalise
from trackgpt.weights import checked, read_lazily

KNOWN_WORLD_FILE = "known_world.safetensors"
"""In a model's folder; where it is missing, nothing is known of the model's world and no footage is refused."""
MOST_UNLIKE = 1.0
"""Unlikeness up to which a frame counts as one of the model's own world: one in a thousand of its frames exceeds it."""


@torch.inference_mode()
def encoded(encoder: ConvEncoder, side: int, frame: np.ndarray) -> Features:
    """What an encoder with maps at strides 4 and 8 computes of a frame in the upper left of a square.

    Args:
        encoder: of a vision tower.
        side: of the square, pixels.
        frame: uint8 RGB (height, width, 3).
    """
    square = np.empty((side, side, 3), np.uint8)
    fit(frame.shape[:2], side).apply(frame, square)
    like = next(encoder.parameters())
    features: Features = encoder(normalise(torch.from_numpy(square).permute(2, 0, 1)[None].to(like.device)).to(like))
    return features


def statistics(features: Features, size: tuple[int, int]) -> np.ndarray:
    """Mean and standard deviation of each channel over the part of the square that one frame fills.

    Args:
        features: of one frame, with maps at strides 4 and 8.
        size: (height, width) of the frame, pixels.

    Returns:
        float64 (d,), d twice the channels of the two maps.
    """
    assert features.fine is not None
    found = []
    for maps, stride in zip(features.fine, (4, 8), strict=True):
        box = fit(size, stride * maps.shape[-1])
        rows, columns = max(1, box.height // stride), max(1, box.width // stride)
        cells = maps[0, :, :rows, :columns].flatten(1).double()
        found += [cells.mean(1), cells.std(1, correction=0)]
    return torch.cat(found).cpu().numpy()


@dataclass(frozen=True)
class KnownWorld:
    """What frames look like that a model was trained on.

    Attributes:
        weights: float32 (d,), of `statistics`.
        offset: of their sum.
    """

    weights: np.ndarray
    offset: float

    def unlikeness(self, features: Features, size: tuple[int, int]) -> float:
        """How unlike a frame is: 0 for the mean frame of the model's world, above `MOST_UNLIKE` for another one.

        Args:
            features, size: see `statistics`.
        """
        return float(self.weights @ statistics(features, size)) - self.offset

    def write(self, path: Path) -> None:
        """Write the file.

        Raises:
            OutputError: OUT02.
        """
        tensors = {"weights": torch.tensor(self.weights), "offset": torch.tensor([self.offset])}
        with replacing(path) as part:
            save_file(tensors, part)

    @classmethod
    def read(cls, path: Path, channels: tuple[int, int] | None) -> KnownWorld:
        """Read the file of an encoder whose maps at strides 4 and 8 have so many channels; None has no such maps.

        Raises:
            ModelError: MD02, it is damaged, or of another encoder.
        """
        stored = read_lazily(path)
        wanted = {"weights": (2 * sum(channels or ()),), "offset": (1,)}
        found = {name: tensor.shape for name, tensor in stored.items()}
        if found != wanted or channels is None:
            raise ModelError(f"{path}: holds {found}, wanted {wanted}; delete it, or fetch it again", "MD02")
        weights, offset = (checked(path, name, stored[name].make()).float() for name in wanted)
        return cls(weights.numpy(), offset.item())
