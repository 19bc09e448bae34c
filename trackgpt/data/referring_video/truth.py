"""True masks that benchmarks keep in forms of their own; every class here is a `trackgpt.data.videos.MaskTruth`.

Nothing is opened before a mask is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from trackgpt.data.trees import read_json
from trackgpt.data.videos import LabelMasks, RleMasks, opened_image
from trackgpt.errors import InputError
from trackgpt.geometry.masks import is_size

FOREGROUND = "foreground"


@dataclass(frozen=True)
class DavisMasks:
    """Label maps of either DAVIS: those of 2017 hold object ids, those of 2016 are grey and 0 or 255 for all objects.

    Attributes:
        files: one PNG per frame.
    """

    files: tuple[Path, ...]

    def mask(self, objects: Sequence[str], t: int) -> np.ndarray:
        """See `MaskTruth.mask`; objects are label values as text ("255" is what DAVIS-2017 leaves out of scores)."""
        return LabelMasks(self.files, union=self.is_union(t)).mask(objects, t)

    def is_union(self, t: int) -> bool:
        """Whether frame t's map is one of DAVIS-2016: one mask for all objects."""
        return _is_binary(self.files[t])


def _is_binary(path: Path) -> bool:
    """Whether a map is grey and holds nothing but 0 and 255; an indexed one is only opened, not decoded."""
    with opened_image(path, "label map") as image:
        if image.mode == "P":
            return False
        values = np.asarray(image)
    return bool(((values == 0) | (values == 255)).all())


@dataclass(frozen=True)
class FolderMasks:
    """One folder of PNGs per object; any value but 0 is the object.

    Attributes:
        files: one PNG per frame, by object.
    """

    files: Mapping[str, tuple[Path, ...]]

    def mask(self, objects: Sequence[str], t: int) -> np.ndarray:
        """See `MaskTruth.mask`; objects are keys of `files`."""
        unknown = [key for key in objects if key not in self.files]
        if unknown or not self.files:
            raise InputError(f"object {', '.join(unknown)}: has no folder of masks; there are {sorted(self.files)}")
        first = next(iter(self.files))
        masks = [LabelMasks(self.files[key], union=True).mask((), t) for key in (objects or (first,))]
        covered: np.ndarray = np.any(masks, axis=0)
        return covered if objects else np.zeros_like(covered)


@dataclass(frozen=True)
class MaskDict:
    """Run lengths of one video in a `mask_dict.json`, which is read once, when a mask is first asked for, and kept.

    The file holds all videos of a part: `{annotation id: [{"size": [height, width], "counts": text} or null, ...]}`,
    one for each frame in the order of sorted names. That of MeViS has hundreds of megabytes; processes that are forked
    after the first mask share it.

    Attributes:
        file: the mask_dict.json.
        images: the video's frames; the first gives the size of a mask where no run lengths do.
        foreground: file and video of ReVOS' mask_dict_foreground.json, `{video: {"masks_rle": [...]}}`, the union of
            all annotated objects; None where there is none.
    """

    file: Path
    images: tuple[Path, ...]
    foreground: tuple[Path, str] | None = None

    def mask(self, objects: Sequence[str], t: int) -> np.ndarray:
        """See `MaskTruth.mask`; objects are annotation ids, or `FOREGROUND`."""
        runs = {key: self._runs(key, t) for key in objects}
        sizes = {self._size(one["size"]) for one in (found[t] for found in runs.values()) if one is not None}
        if len(sizes) > 1:
            raise InputError(f"{self.file}: masks {', '.join(objects)} of frame {t} have sizes {sorted(sizes)}")
        return RleMasks(runs, sizes.pop() if sizes else self._size_of_image()).mask(objects, t)

    def _runs(self, key: str, t: int) -> Sequence[Mapping[str, Any] | None]:
        """The run lengths of an object, of which frame t's are sound."""
        if key == FOREGROUND:
            if self.foreground is None:
                raise InputError(f"{self.file}: has no foreground beside it; only ReVOS does")
            file, name = self.foreground
            found = read_runs(file).get(name, {})
            runs = found.get("masks_rle") if isinstance(found, dict) else None
        else:
            file, name = self.file, f"annotation {key}"
            runs = read_runs(file).get(key)
        if not isinstance(runs, list) or len(runs) != len(self.images):
            found = f"{len(runs)} run lengths" if isinstance(runs, list) else "no run lengths"
            raise InputError(
                f"{file}: {found} of {name} for {len(self.images)} frames; is it the file of another release?"
            )
        if runs[t] is not None and not (isinstance(runs[t], dict) and {"size", "counts"} <= runs[t].keys()):
            raise InputError(f'{file}: {name}, frame {t}: wanted null or {{"size", "counts"}}; unpack it again')
        return runs

    def _size(self, size: Any) -> tuple[int, int]:
        if not isinstance(size, list) or not is_size(*size):
            raise InputError(f"{self.file}: a mask of size {size!r:.60}; wanted [height, width]; unpack it again")
        return size[0], size[1]

    def _size_of_image(self) -> tuple[int, int]:
        with opened_image(self.images[0]) as image:
            return image.height, image.width


def read_runs(file: Path) -> dict[str, Any]:
    """A mask_dict.json; the last few files read are kept, and read again when they change on disk.

    Raises:
        InputError: the file is missing, no JSON (with line and column), or no dict.
    """
    try:
        stamp = file.stat().st_mtime_ns
    except OSError:
        stamp = 0
    return _read_runs(file, stamp)


@lru_cache(maxsize=8)
def _read_runs(file: Path, stamp: int) -> dict[str, Any]:
    runs = read_json(file)
    if not isinstance(runs, dict):
        raise InputError(f"{file}: a {type(runs).__name__}; wanted {{annotation id: [run lengths or null]}}")
    return runs
