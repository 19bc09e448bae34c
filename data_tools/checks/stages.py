"""Which data sets a stage of TrackGPT's recipe trains on: section 4.1 of the paper, with what this project adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class StageSets:
    """The data sets of a stage.

    Attributes:
        needed: those of the paper; a root without one of them is not ready.
        optional: those that may be added to the mixture, or that others are made from.
    """

    needed: tuple[str, ...]
    optional: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.needed, *self.optional)


STAGES: Mapping[str, StageSets] = {
    "stage1": StageSets(
        needed=(
            *("ade20k", "coco-stuff", "paco-lvis", "pascal-part", "part-imagenet"),
            *("refclef", "refcoco", "refcoco+", "refcocog", "llava-instruct", "reason-seg"),
        ),
        optional=("mapillary", "grefcoco"),
    ),
    "stage2": StageSets(needed=("refer-youtube-vos", "refer-davis17"), optional=("mevis", "revos")),
    "stage3": StageSets(needed=("instrack",), optional=("refer-davis17", "vipseg")),
}
