"""Clips of real video with masks for the stage "memory": folders laid out as DAVIS, YouTube-VOS and MOSE are.

A folder holds JPEGImages and Annotations, or holds them in `train` (YouTube-VOS, MOSE); in DAVIS the sequences lie one
level deeper, in `480p` or `Full-Resolution`. Annotations are PNGs whose values are object ids. Only frames that have
both a picture and a mask are used: YouTube-VOS is annotated on every fifth frame.

Of DAVIS, only the sequences of its list ImageSets/2017/train.txt (else 2016) are used, so that nothing of its val and
test sets is trained on. A folder without such a list is used whole: give no folder of a set that you evaluate on.

Sources: davisvideochallenge/davis2017-evaluation (layout, void 255); youtube-vos.org and henghuiding/MOSE-api.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from eval.kits.davis import VOID, holds_one_mask
from eval.label_maps import read_label_map
from trackgpt.data.mot_files import read_seqmap
from trackgpt.data.trees import entries, listing, needed_folder
from trackgpt.data.videos import read_image
from trackgpt.errors import InputError
from trackgpt.perception.search_window import Gaze, extent
from train.config import Shape

LISTS = ("ImageSets/2017/train.txt", "ImageSets/2016/train.txt")
SIZES = ("480p", "Full-Resolution")
PICTURES = (".jpg", ".jpeg", ".png")
LEAST = 0.004
"""Share of the first window that a target covers at least."""
ZOOMS = (1.6, 3.0)
"""Least and largest side of a window, in sizes of the target."""
JITTER = 0.05
"""Standard deviation of a window's place in sizes of the target, and of the logarithm of its size."""
TRIES = 16
"""First frames that are looked at for a target before a sample is given up."""


@dataclass(frozen=True)
class MaskVideo:
    """One sequence: the folder of its pictures and that of its label maps."""

    pictures: Path
    masks: Path

    def frames(self) -> tuple[tuple[Path, Path], ...]:
        """Picture and label map of every frame that has both, in order.

        Raises:
            InputError: there are fewer than two.
        """
        return _frames(self.pictures, self.masks)


@lru_cache(maxsize=256)
def _frames(pictures: Path, masks: Path) -> tuple[tuple[Path, Path], ...]:
    there = {path.stem: path for path in entries(pictures) if path.suffix.lower() in PICTURES}
    found = tuple((there[path.stem], path) for path in entries(masks, "*.png") if path.stem in there)
    if len(found) < 2:
        raise InputError(
            f"{masks}: {len(found)} masks of pictures in {pictures}; wanted two or more of the same names; "
            "unpack the sequence again"
        )
    return found


def open_mask_videos(folder: str | Path) -> tuple[MaskVideo, ...]:
    """The sequences of a folder that may be trained on (see the module).

    Raises:
        InputError: it is not laid out so, has no sequences, or lacks one that its list names.
    """
    root = Path(folder)
    if (root / "train" / "JPEGImages").is_dir():
        root = root / "train"
    wanted = "JPEGImages and Annotations of DAVIS, YouTube-VOS or MOSE"
    pictures, masks = (needed_folder(root / name, wanted) for name in ("JPEGImages", "Annotations"))
    for size in SIZES:
        if (pictures / size).is_dir() and (masks / size).is_dir():
            pictures, masks = pictures / size, masks / size
            break
    names = _listed(root) or [path.name for path in entries(masks) if path.is_dir()]
    if not names:
        raise InputError(f"{masks}: no sequences; wanted SEQUENCE/00000.png; it holds {listing(masks)}")
    missing = [name for name in names if not ((pictures / name).is_dir() and (masks / name).is_dir())]
    if missing:
        raise InputError(
            f"{root}: {len(missing)} of {len(names)} sequences have no pictures or no masks, first "
            f"{missing[0]}; unpack both archives there"
        )
    return tuple(MaskVideo(pictures / name, masks / name) for name in names)


def _listed(root: Path) -> list[str]:
    """The names of DAVIS's list of training sequences; none where there is no list."""
    file = next((root / name for name in LISTS if (root / name).is_file()), None)
    return read_seqmap(file) if file else []


class RealClips:
    """Clips of sets of sequences; every set is as likely as another, and so is every sequence of a set.

    Args:
        folders: of the sets.
        shape: of a clip.
        whole: show whole frames, squashed to the square as SAM 2 sees them, and not windows around the first target.

    Raises:
        InputError: see `open_mask_videos`.
    """

    def __init__(self, folders: Sequence[str], shape: Shape, whole: bool) -> None:
        self.sets = [open_mask_videos(folder) for folder in folders]
        self.shape, self.whole = shape, whole

    def sample(self, seed: int) -> dict[str, np.ndarray]:
        """A clip, the same for the same seed: frames uint8 (t, s, s, 3) and ids uint8 (t, s, s), 1 the first target.

        Frames are 1 to 3 apart, run forwards or backwards (back and forth where the sequence is too short), and half of
        the clips are mirrored.

        Raises:
            InputError: a picture or a mask is missing or damaged, or no first frame that was drawn has a target.
        """
        rng = np.random.default_rng([seed, 211])
        video = None
        for _ in range(TRIES):
            videos = self.sets[rng.integers(len(self.sets))]
            video = videos[rng.integers(len(videos))]
            frames = video.frames()
            chosen = [frames[t] for t in steps(rng, len(frames), self.shape.frames)]
            clip = self._clip(rng, chosen)
            if clip is not None:
                return clip
        raise InputError(
            f"{video.masks if video else ''}: no target of {100 * LEAST} % or more in {TRIES} first frames"
        )

    def _clip(self, rng: np.random.Generator, chosen: list[tuple[Path, Path]]) -> dict[str, np.ndarray] | None:
        """The clip of pictures and label maps; None where the first frame has no target."""
        one = holds_one_mask(chosen[0][1])
        first = _labels(chosen[0][1], one)
        there = [int(value) for value in rng.permutation(np.unique(first)) if value]
        if not there:
            return None
        if self.whole:
            there = [value for value in there if square_mask(first == value, self.shape.side).mean() >= LEAST]
        if not there:
            return None
        pictures = [read_image(picture) for picture, _ in chosen]
        labels = [_labels(file, one, picture.shape[:2]) for (_, file), picture in zip(chosen, pictures, strict=True)]
        made = self._whole(pictures, labels, there) if self.whole else self._windows(rng, pictures, labels, there)
        if made is None:
            return None
        frames, ids = made
        if rng.random() < 0.5:
            frames, ids = frames[:, :, ::-1], ids[:, :, ::-1]
        return {"frames": np.ascontiguousarray(frames), "ids": np.ascontiguousarray(ids)}

    def _whole(
        self, pictures: list[np.ndarray], labels: list[np.ndarray], there: list[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        side, kept = self.shape.side, there[: self.shape.targets]
        ids = np.zeros((len(labels), side, side), np.uint8)
        for t, values in enumerate(labels):
            for number, value in enumerate(kept, 1):
                ids[t][square_mask(values == value, side)] = number
        return np.stack([square_picture(picture, side) for picture in pictures]), ids

    def _windows(
        self, rng: np.random.Generator, pictures: list[np.ndarray], labels: list[np.ndarray], there: list[int]
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Windows that follow the first target one frame late, as at inference; None where it is too small in them."""
        side, zoom = self.shape.side, rng.uniform(*ZOOMS)
        box = extent(labels[0] == there[0])
        assert box is not None
        gaze = Gaze.at(box)
        frames, ids, kept = [], np.zeros((len(labels), side, side), np.uint8), there
        for t, (picture, values) in enumerate(zip(pictures, labels, strict=True)):
            height, width = values.shape
            if t:
                gaze = gaze.following(extent(labels[t - 1] == there[0]), max(height, width) / zoom)
            window = jittered(gaze, rng).window(zoom, height, width)
            frames.append(window.cut(picture, side))
            seen = {value: window.cut((values == value).astype(np.float32), side) > 0.5 for value in kept}
            if t == 0:
                kept = [value for value in there if seen[value].mean() >= LEAST][: self.shape.targets]
                if there[0] not in kept:
                    return None
            for number, value in enumerate(kept, 1):
                ids[t][seen[value]] = number
        return np.stack(frames), ids


def steps(rng: np.random.Generator, count: int, frames: int) -> list[int]:
    """Which of `count` frames a clip of `frames` shows, in its order."""
    stride = int(rng.integers(1, 4))
    while stride > 1 and (frames - 1) * stride >= count:
        stride -= 1
    span = (frames - 1) * stride
    at = int(rng.integers(max(1, count - span))) + stride * np.arange(frames)
    bounced = at % (2 * count - 2)
    found = np.where(bounced < count, bounced, 2 * count - 2 - bounced)
    return [int(t) for t in (found[::-1] if rng.random() < 0.5 else found)]


def jittered(gaze: Gaze, rng: np.random.Generator) -> Gaze:
    """A gaze that is a little off."""
    x, y, size = JITTER * np.clip(rng.normal(size=3), -2, 2)
    return Gaze(gaze.x + x * gaze.size, gaze.y + y * gaze.size, gaze.size * float(np.exp(size)))


def square_picture(picture: np.ndarray, side: int) -> np.ndarray:
    """A frame, uint8 (height, width, 3), squashed to (side, side, 3) as SAM 2's image processor does."""
    from trackgpt.perception.sam2_memory import square

    return np.asarray(square(np.array(picture), side, torch.device("cpu"))[0].permute(1, 2, 0).numpy())


def square_mask(mask: np.ndarray, side: int) -> np.ndarray:
    """A mask, bool (height, width), squashed to bool (side, side) as SAM 2's video processor does."""
    given = torch.from_numpy(mask.astype(np.float32))[None, None]
    scaled = F.interpolate(given, (side, side), mode="bilinear", align_corners=False, antialias=True)
    return np.asarray((scaled[0, 0] >= 0.5).numpy())


def _labels(file: Path, one: bool, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Object ids, uint8 (height, width), 0 where there is none; DAVIS's void is none, and `one` mask is object 1."""
    labels = read_label_map(file, shape)
    return (labels > 0).astype(np.uint8) if one else np.where(labels == VOID, 0, labels)
