"""The RefCOCO kit: RefCLEF, RefCOCO, RefCOCO+, RefCOCOg, and gRefCOCO with its sentences that mean nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from eval.kit import Reported, Row, percent_means
from eval.kits.images import ImageKit, overlaps
from eval.metrics.images import n_acc, t_acc
from trackgpt.data.images import ImageSample
from trackgpt.data.referring_image import SPLIT_BY, grefcoco, refcoco
from trackgpt.data.videos import Expression
from trackgpt.errors import UsageError

GENERAL = "grefcoco"
_TABLE = "GLaMM (Rasheed et al., CVPR 2024), table of referring expression segmentation"
_LISA = (74.9, 79.1, 72.3, 65.1, 70.8, 58.1, 67.9, 70.6)
_GLAMM = (79.5, 83.2, 76.9, 72.6, 78.7, 64.6, 74.2, 74.9)
_PRINTED = (
    *(f"{name}/{split}" for name in ("refcoco", "refcoco+") for split in ("val", "testA", "testB")),
    "refcocog/val",
    "refcocog/test",
)


class RefCoco(ImageKit):
    """Every sentence of a split of one of the sets.

    Attributes:
        split: SET/SPLIT, such as "refcoco+/testA", or SET/BY/SPLIT, such as "refcocog/google/val"; LISA writes
            "refcoco+|unc|testA".
    """

    name = "refcoco"
    printed = {
        split: (
            Reported("LISA-7B", {"cIoU": _LISA[place]}, _TABLE),
            Reported("GLaMM", {"cIoU": _GLAMM[place]}, _TABLE),
        )
        for place, split in enumerate(_PRINTED)
    }

    def __init__(self, root: Path, split: str) -> None:
        super().__init__(root, split)
        self.set, self.by, self.part = parse(split)
        if self.set == GENERAL:
            self.headline = ("gIoU", "cIoU", "N-acc")

    @property
    def protocol(self) -> str:
        """What is scored and how."""
        text = (
            "Protocol refcoco: one binary mask per sentence, every sentence weighs the same. gIoU: mean IoU over "
            "sentences, 1 where both masks are empty; cIoU (also called oIoU, what papers print of RefCOCO, RefCOCO+ "
            "and RefCOCOg): sum of intersections over sum of unions."
        )
        if self.set != GENERAL:
            return text
        return f"{text} N-acc: share of the sentences without a target that get an empty mask; T-acc: of the others."

    def items(self) -> Iterable[ImageSample]:
        """The split's images, in the order of the file."""
        if self.set == GENERAL:
            return grefcoco(self.root, self.part, self.by or "unc")
        return refcoco(self.root, self.set, self.part, self.by or None)

    def tags(self, expression: Expression) -> dict[str, list[str]]:
        """How many targets a sentence of gRefCOCO means: single, multi or none."""
        return {"kind": [expression.tags["kind"]]} if "kind" in expression.tags else {}

    def score(self, task: str, results: Path) -> list[Row]:
        """One row per sentence; of gRefCOCO also whether it was rightly answered with no mask, or with any."""
        rows = super().score(task, results)
        return [replace(row, figures={**row.figures, **silence(row)}) for row in rows] if self.set == GENERAL else rows

    def summarise(self, rows: Sequence[Row]) -> dict[str, float]:
        """GIoU and cIoU, and of gRefCOCO N-acc and T-acc."""
        return super().summarise(rows) | percent_means(rows, ("N-acc", "T-acc"))


def silence(row: Row) -> dict[str, float]:
    """N-acc of a sentence without a target, T-acc of one with a target."""
    mine = overlaps([row])
    return {"T-acc": t_acc(mine)} if row.figures["truth"] else {"N-acc": n_acc(mine)}


def parse(split: str) -> tuple[str, str, str]:
    """Set, whose splits ("" for the usual), and part.

    Raises:
        UsageError: it is written otherwise, or there is no such set.
    """
    parts = split.split("/")
    name = parts[0]
    if len(parts) not in (2, 3) or not all(parts) or name not in (*SPLIT_BY, GENERAL):
        raise UsageError(
            f"--split {split}: wanted SET/SPLIT or SET/BY/SPLIT, such as refcoco+/testA or refcocog/google/val; "
            f"sets are {', '.join((*SPLIT_BY, GENERAL))}"
        )
    return name, parts[1] if len(parts) == 3 else "", parts[-1]
