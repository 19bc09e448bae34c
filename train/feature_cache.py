"""The frozen image encoder's features on disk: encoded once, read by the workers, so that training runs no encoder.

One file per picture, named by a hash of its path; the folder is named by a hash of the encoder's weights and the side
of the square, so that features of another encoder are never taken for this one's. Embeddings are stored as bfloat16
(SAM at 1024 pixels: 2 MiB per picture). `python -m train CONFIG --cache-features` prints the size, then fills the
folder; it may run on several processes, and again after it was killed.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trackgpt.data.videos import read_image
from trackgpt.errors import InputError, OutputError
from trackgpt.geometry.letterbox import fit
from trackgpt.perception.encoders import Features
from trackgpt.perception.segmenter import Segmenter

HEADER = 512
"""Bytes of a safetensors header, roughly."""


class FeatureCache:
    """Where features of one encoder lie.

    Attributes:
        folder: of this encoder and side.
    """

    def __init__(self, root: str | Path, segmenter: Segmenter) -> None:
        self.folder = Path(root) / f"{encoder_digest(segmenter)}-{segmenter.config.image_side}"

    def path(self, picture: str) -> Path:
        """The file of a picture, given by its path."""
        name = hashlib.sha256(picture.encode()).hexdigest()[:32]
        return self.folder / name[:2] / f"{name}.safetensors"

    def read(self, pictures: Sequence[str]) -> dict[str, Tensor]:
        """Features of pictures, stacked: "embedding" (t, c, h, w) and, where the encoder has them, "fine0", "fine1".

        Raises:
            InputError: a picture was not encoded, or its file is damaged.
        """
        found = []
        for picture in pictures:
            path = self.path(picture)
            try:
                found.append(load_file(path))
            except FileNotFoundError as error:
                raise InputError(
                    f"{picture}: its features are not in {self.folder}; run the same command with --cache-features"
                ) from error
            except (SafetensorError, OSError) as error:
                raise InputError(f"{path}: not a whole file of features ({error}); delete it and fill again") from error
        return {name: torch.stack([each[name] for each in found]) for name in found[0]}

    @torch.no_grad()
    def fill(self, pictures: Iterable[str], segmenter: Segmenter) -> int:
        """Encode the pictures that are not there yet; returns how many these were.

        Raises:
            InputError: a picture cannot be read.
            OutputError: the disk is full.
        """
        from trackgpt.files import replacing, writing

        segmenter = segmenter.eval()
        device = next(segmenter.parameters()).device
        made = 0
        for picture in pictures:
            path = self.path(picture)
            if path.exists():
                continue
            frame = read_image(Path(picture))
            square = fit(frame.shape[:2], segmenter.config.image_side).apply(frame)
            pixels = torch.from_numpy(square).permute(2, 0, 1)[None].to(device)
            with writing(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as part:
                save_file(stored(segmenter.encode(pixels)), part)
            made += 1
        return made

    def size(self, pictures: int, segmenter: Segmenter) -> int:
        """Bytes that so many pictures take."""
        side = segmenter.config.image_side
        device = next(segmenter.parameters()).device
        with torch.no_grad():
            one = stored(segmenter.eval().encode(torch.zeros(1, 3, side, side, dtype=torch.uint8, device=device)))
        return pictures * (HEADER + sum(value.nbytes for value in one.values()))

    def must_fit(self, size: int) -> None:
        """Check that the disk has room.

        Raises:
            OutputError: there is less room than `size`.
        """
        place = self.folder
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        if size > free:
            raise OutputError(
                f"{self.folder}: features take {size / 2**30:.1f} GiB, the disk has {free / 2**30:.1f} GiB left; name "
                "another folder in data.cache, or train without it",
                "OUT02",
            )


def stored(features: Features) -> dict[str, Tensor]:
    """Features of one picture as they lie on disk, bfloat16 on the CPU."""
    parts = {"embedding": features.embedding} | {f"fine{k}": part for k, part in enumerate(features.fine or ())}
    return {name: part[0].to("cpu", torch.bfloat16).contiguous() for name, part in parts.items()}


def as_features(parts: dict[str, Tensor], like: Tensor) -> Features:
    """What `FeatureCache.read` gave, on the device and in the type of a tensor."""
    moved = {name: part.to(like) for name, part in parts.items()}
    fine = (moved["fine0"], moved["fine1"]) if "fine0" in moved else None
    return Features(moved["embedding"], fine)


def encoder_digest(segmenter: Segmenter) -> str:
    """The first 12 digits of the SHA-256 over the image encoder's weights."""
    total = hashlib.sha256()
    for name, value in sorted(segmenter.image_encoder.state_dict().items()):
        total.update(name.encode() + value.detach().cpu().float().numpy().tobytes())
    return total.hexdigest()[:12]
