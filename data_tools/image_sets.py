"""The readers of the image sets by name, and what a set calls the parts that SynthTrack calls train, valid and test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import cast

from trackgpt.data.image_trees import TREES
from trackgpt.data.images import ImageSet
from trackgpt.data.referring_image import SPLIT_BY, ReferSet, grefcoco, reason_seg, refcoco
from trackgpt.data.segmentation import ade20k, coco_stuff, mapillary, paco_lvis, part_imagenet, pascal_part

REFERRING = tuple(SPLIT_BY)


def _referring(name: str, root: Path, part: str) -> ImageSet:
    return refcoco(root, cast(ReferSet, name), part)


READERS: Mapping[str, Callable[[Path, str], ImageSet]] = {
    "ade20k": ade20k,
    "coco-stuff": coco_stuff,
    "mapillary": mapillary,
    "paco-lvis": paco_lvis,
    "pascal-part": pascal_part,
    "part-imagenet": part_imagenet,
    **{name: partial(_referring, name) for name in REFERRING},
    "grefcoco": grefcoco,
    "reason-seg": reason_seg,
}
"""Every set whose truth is masks; LLaVA-Instruct has none."""


def part_of(name: str, part: str) -> str:
    """What a set calls "train", "valid" or "test"; the last part it has where it lacks one."""
    parts = TREES[name].parts
    return parts[min(("train", "valid", "test").index(part), len(parts) - 1)]
