"""Reads VIPSeg, the panoptic videos that most of InsTrack is taken from.

    imgs/<video>/<frame>.jpg            images/ after the authors' change2_720p.py
    panomasks/<video>/<frame>.png       16 bit, one value per pixel; frames are called by their number in the film
    panomasksRGB/<video>/<frame>.png    the same for COCO's tools, in colours; not used
    panoVIPSeg_categories.json          [{"id": 60, "name": "person", "isthing": 1, "color": [...]}, ...]
    train.txt, val.txt, test.txt        one video per line; masks of test are not public

A value is 0 for void, the category's number (1 to 124) for stuff, and number x 100 + instance for things: persons,
number 61, are 6100, 6101, ...; an instance keeps its value through the video. Ids in the file of categories are the
numbers less one. The release has the value 200 in a few masks of 353_-5sqmCF8OFU where 0 is meant (issue 1).

Source: VIPSeg-Dataset/VIPSeg-Dataset@2674d2e README.md, create_panoptic_video_labels.py,
change2_720p.py, issues 1 and 9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from trackgpt.data.trees import Tree, listing, needed_folder, read_json
from trackgpt.errors import InputError

TREE = Tree(
    "vipseg",
    ("VIPSeg", "vip_seg"),
    ("panomasks",),
    ("train", "val", "test"),
    {"train": (2806, None), "val": (343, None), "test": (387, None)},
)
INSTANCES = 100  # of a category; a thing's value is its category's number times this, plus its instance
_STUFF = 124  # the largest value of stuff
_MISTAKES = frozenset((200,))  # values of the release that stand for void


@dataclass(frozen=True)
class PanopticVideo:
    """A video of VIPSeg.

    Attributes:
        name: of its folders.
        images: its frames, in order.
        labels: a panoptic mask for each.
    """

    name: str
    images: tuple[Path, ...]
    labels: tuple[Path, ...]

    def values(self, t: int) -> np.ndarray:
        """The value of every pixel of frame t, int32 (height, width); void is 0.

        Raises:
            InputError: the mask is missing, damaged, or no picture of one value per pixel.
        """
        return read_panoptic(self.labels[t])


def read_panoptic(file: Path) -> np.ndarray:
    """A mask of `panomasks`, int32 (height, width); void is 0, the release's mistakes included.

    Raises:
        InputError: it is missing, damaged, or no picture of one value per pixel.
    """
    try:
        with Image.open(file) as picture:
            values = np.asarray(picture)
    except FileNotFoundError as error:
        raise InputError(f"{file}: missing; wanted a panoptic mask; unpack panomasks again") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{file}: not a readable mask ({error}); unpack panomasks again") from error
    if values.ndim != 2 or values.dtype.kind not in "iu":
        advice = "panomasksRGB holds colours, panomasks values"
        raise InputError(f"{file}: {values.dtype} of shape {values.shape}; wanted one whole number per pixel; {advice}")
    values = values.astype(np.int32)
    return np.where(np.isin(values, list(_MISTAKES)), 0, values)


def number_of(value: int) -> int:
    """The number of a value's category, 1 to 124."""
    return value if value <= _STUFF else value // INSTANCES


def read_categories(root: Path) -> Mapping[int, str]:
    """Names of categories by number; empty where the file is not there, as in early archives.

    Raises:
        InputError: it has another form.
    """
    file = root / "panoVIPSeg_categories.json"
    if not file.is_file():
        return {}
    try:
        return {int(one["id"]) + 1: str(one["name"]) for one in read_json(file)}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file}: {error!r}; wanted a list of categories with id and name; take the release's"
        ) from error


def described(values: Sequence[int], categories: Mapping[int, str]) -> str:
    """Values for a person: "6100 (person), 6101 (person), 29 (sky)"."""
    named = [f"{value} ({categories.get(number_of(value), 'unknown')})" for value in values]
    return ", ".join(named) or "nothing"


def pictures_of(root: Path) -> Path:
    """The folder of frames: `imgs`, or `images` of the 720P copy.

    Raises:
        InputError: neither is there.
    """
    there = [root / name for name in ("imgs", "images") if (root / name).is_dir()]
    return there[0] if there else needed_folder(root / "imgs", "a folder of frames for each video of VIPSeg")


def open_video(root: Path, name: str) -> PanopticVideo:
    """A video with masks.

    Args:
        root: the top folder of the tree.
        name: of the video.

    Raises:
        InputError: it has no frames or no masks, or a frame without a mask.
    """
    frames, masks = pictures_of(root) / name, root / "panomasks" / name
    for folder in (frames, masks):
        if not folder.is_dir():
            raise InputError(
                f"{folder}: missing; wanted the video {name}; {folder.parent} holds {listing(folder.parent)}"
            )
    images = tuple(sorted(path for path in frames.iterdir() if path.suffix == ".jpg"))
    labels = tuple(masks / f"{path.stem}.png" for path in images)
    if not images:
        raise InputError(f"{frames}: no *.jpg; wanted the frames of {name}; unpack them there")
    lacking = next((path for path in labels if not path.is_file()), None)
    if lacking is not None:
        raise InputError(f"{lacking}: missing; wanted a mask for each of {len(images)} frames; unpack panomasks again")
    return PanopticVideo(name, images, labels)
