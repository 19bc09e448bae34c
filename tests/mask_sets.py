"""A folder of real video with masks in miniature, in the layouts of DAVIS, YouTube-VOS and MOSE."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (48, 80)
"""Height and width of a frame."""


def frame_of(t: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture and label map of frame t: object 1 is red and moves to the right, object 2 is blue and stands still."""
    labels = np.zeros(SIZE, np.uint8)
    labels[10:26, 8 + 2 * t : 24 + 2 * t] = 1
    labels[30:44, 50:70] = 2
    picture = np.full((*SIZE, 3), 90, np.uint8)
    picture[labels == 1], picture[labels == 2] = (220, 30, 30), (30, 30, 220)
    return picture, labels


def write_sequence(pictures: Path, masks: Path, count: int = 8, every: int = 1, void: int = 0) -> None:
    """A sequence whose masks are there on every so many frames; `void` marks a corner as such."""
    pictures.mkdir(parents=True)
    masks.mkdir(parents=True)
    for t in range(count):
        picture, labels = frame_of(t)
        labels[:6, :6] = void
        Image.fromarray(picture).save(pictures / f"{t:05d}.jpg", quality=95)
        if t % every == 0:
            image = Image.fromarray(labels)
            image.putpalette([value // 3 for value in range(768)])
            image.save(masks / f"{t:05d}.png")


def write_davis(root: Path, names: tuple[str, ...] = ("bear", "goat"), size: str = "480p", count: int = 8) -> Path:
    """DAVIS with its list of training sequences, and one more sequence that is on the list of validation ones."""
    for name in (*names, "heldout"):
        write_sequence(root / "JPEGImages" / size / name, root / "Annotations" / size / name, count, void=255)
    lists = root / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(names) + "\n")
    (lists / "val.txt").write_text("heldout\n")
    return root


def write_vos(root: Path, every: int = 5, count: int = 16) -> Path:
    """YouTube-VOS (masks on every fifth frame) or MOSE (on every one), with its `train` and a `valid` beside it."""
    for name in ("0a1b", "0c2d"):
        write_sequence(root / "train/JPEGImages" / name, root / "train/Annotations" / name, count, every)
    write_sequence(root / "valid/JPEGImages/0e3f", root / "valid/Annotations/0e3f", 2)
    return root
