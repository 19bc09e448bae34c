"""The ReasonSeg kit: one question per image that must be thought about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from eval.kit import Reported
from eval.kits.images import ImageKit
from trackgpt.data.images import ImageSample
from trackgpt.data.referring_image import reason_seg
from trackgpt.data.videos import Expression

_TABLE = "LISA (Lai et al., CVPR 2024), Table 1"
_QUERIES = {"sentence": "long", "phrase": "short"}


class ReasonSeg(ImageKit):
    """The first text of every image, as LISA scores it."""

    name = "reason-seg"
    protocol = (
        "Protocol reason-seg: the first text of each image, one binary mask. Pixels labelled ignore belong to neither "
        "mask. gIoU: mean IoU over images, 1 where both masks are empty; cIoU: sum of intersections over sum of "
        "unions. LISA's validate adds constants of 1e-5, which changes neither by 0.0001 percent. Short queries are "
        "phrases, long ones sentences (is_sentence)."
    )
    printed = {
        "val": (
            Reported("LISA-7B", {"gIoU": 44.4, "cIoU": 46.0}, _TABLE),
            Reported("LISA-7B (ft)", {"gIoU": 52.9, "cIoU": 54.0}, _TABLE),
            Reported("LISA-13B", {"gIoU": 48.9, "cIoU": 46.9}, _TABLE),
            Reported("LISA-13B (ft)", {"gIoU": 56.2, "cIoU": 62.9}, _TABLE),
        ),
        "test": (
            Reported("LISA-7B", {"gIoU": 36.8, "cIoU": 34.1}, _TABLE),
            Reported("LISA-7B (ft)", {"gIoU": 47.3, "cIoU": 48.4}, _TABLE),
            Reported("LISA-13B", {"gIoU": 44.8, "cIoU": 45.8}, _TABLE),
            Reported("LISA-13B (ft)", {"gIoU": 51.7, "cIoU": 51.1}, _TABLE),
        ),
    }

    def items(self) -> Iterable[ImageSample]:
        """The split's images, by name."""
        return reason_seg(self.root, self.split)

    def expressions(self, sample: ImageSample) -> Sequence[Expression]:
        """The first one."""
        return sample.expressions[:1]

    def tags(self, expression: Expression) -> dict[str, list[str]]:
        """Short or long query."""
        return {"query": [_QUERIES[expression.tags["form"]]]}
