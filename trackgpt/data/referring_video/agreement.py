"""Whether the files of a part agree with one another, looked at when it is opened: masks with what expressions name,
folders of frames with the list.

At most `VIDEOS` videos of a part, spread evenly, are looked at: of each as many label maps as it takes to see every
object that is named, usually one; all of them, up to `MASKS`, before an object is said to be in none. What was read is
kept, so that opening a part again reads nothing. `python -m data_tools check` looks at everything.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from trackgpt.data.referring_video.truth import DavisMasks
from trackgpt.data.videos import LabelMasks, Video
from trackgpt.errors import InputError

VIDEOS, MASKS = 256, 500
_NAMED = 3  # offenders in a message
_NO_OBJECT = frozenset((0, 255))  # background and void

logger = logging.getLogger(__name__)


def agreeing(file: Path, videos: Iterable[Video], all_named: bool = False) -> tuple[Video, ...]:
    """The videos of a part, after a look at some of them.

    Args:
        file: lists them; begins messages.
        videos: of the part.
        all_named: every object of a video's first mask has an expression.

    Raises:
        InputError: an expression names an object that is in none of its video's masks, so that any score of it would
            be wrong; or one of the masks is missing or damaged.
    """
    every = tuple(videos)
    places = np.unique(np.linspace(0, len(every) - 1, min(len(every), VIDEOS)).round().astype(int)) if every else ()
    looked_at = [every[place] for place in places]
    _check_objects(file, looked_at, len(every), all_named)
    without = [video.name for video in looked_at if not video.images[0].parent.is_dir()]
    if without:
        said = f"{len(without)} of {len(looked_at)} videos looked at have no folder of frames"
        logger.warning("%s: %s (%s); only results can be scored without", file, said, _some(without))
    return every


def _check_objects(file: Path, videos: Sequence[Video], total: int, all_named: bool) -> None:
    lost: list[str] = []
    unsure: list[str] = []
    unnamed: list[str] = []
    read = 0
    for video in videos:
        files = _label_maps(video)
        named = {int(key) for expression in video.expressions for key in expression.objects}
        if not files or not named:
            continue
        seen = set(values_of(files[0]))
        unnamed += [f"video {video.name}: {key}" for key in sorted(seen - named - _NO_OBJECT)] if all_named else []
        read += 1
        for path in _spread(files[1:])[: MASKS - 1]:
            if named <= seen:
                break
            seen |= values_of(path)
            read += 1
        shown = ", ".join(map(str, sorted(seen - _NO_OBJECT))) or "none"
        told = [f"video {video.name}: object {key} (its masks show {shown})" for key in sorted(named - seen)]
        (lost if len(files) <= MASKS else unsure).extend(told)
    looked_at = f"looked at {read} masks of {len(videos)} of {total} videos"
    if lost:
        raise InputError(
            f"{file}: names objects that are in none of their videos' masks: {_some(lost)}; {looked_at}; are the ids "
            "off by one, or of another release? `python -m data_tools check` lists all"
        )
    if unsure:
        logger.warning("%s: names objects that are in none of the first masks: %s; %s", file, _some(unsure), looked_at)
    if unnamed:
        logger.warning("%s: no expression names objects of first masks: %s; %s", file, _some(unnamed), looked_at)
    if read:
        logger.info("%s: %s", file, looked_at)


def _label_maps(video: Video) -> tuple[Path, ...]:
    """The label maps of a video whose values are objects; none where it has one mask for all, or another form."""
    masks = video.masks
    if isinstance(masks, DavisMasks):
        return () if masks.is_union(0) else masks.files
    return masks.files if isinstance(masks, LabelMasks) and not masks.union else ()


def _spread(files: Sequence[Path]) -> list[Path]:
    """The files, the last and the middle one first: objects come and go."""
    first = [files[-1], files[len(files) // 2]] if files else []
    return list(dict.fromkeys((*first, *files)))


def values_of(file: Path) -> frozenset[int]:
    """The values in a label map.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        stamp = file.stat().st_mtime_ns
    except OSError as error:
        raise InputError(f"{file}: missing; wanted the label map of a frame that is listed") from error
    return _values_of(file, stamp)


@lru_cache(maxsize=8192)
def _values_of(file: Path, stamp: int) -> frozenset[int]:
    return frozenset(np.unique(LabelMasks((file,)).labels(0)).tolist())


def _some(names: Sequence[str]) -> str:
    return "; ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
