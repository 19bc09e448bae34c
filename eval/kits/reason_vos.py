"""The ReasonVOS kit: expressions that must be thought about, on videos of several sets."""

from __future__ import annotations

from eval.kit import Reported
from eval.kits.expressions import ExpressionKit
from trackgpt.data.videos import Expression, Video

_COLLECTED = "as printed in the system's own paper or table"


class ReasonVos(ExpressionKit):
    """Every expression; tables by its form and by the set that the video comes from."""

    name = "reason-vos"
    convention = (
        "Protocol reason-vos: MeViS-style. One binary mask per frame for every expression, all frames are scored, "
        "empty against empty is 1, means over expressions. An expression's id is its place in the list."
    )
    printed = {
        "valid": (
            Reported("VideoLISA-3.8B", {"J&F": 47.5}, _COLLECTED),
            Reported("GLUS-A 7B", {"J&F": 49.9}, _COLLECTED),
            Reported("Veason-R1 3B", {"J&F": 55.2}, _COLLECTED),
            Reported("Veason-R1 7B", {"J&F": 59.9}, _COLLECTED),
            Reported("AgentRVOS", {"J&F": 75.5}, _COLLECTED),
        )
    }

    def tags(self, video: Video, expression: Expression) -> dict[str, list[str]]:
        """Sentence or phrase, and the set that the video comes from."""
        form = {"form": [expression.tags["form"]]} if "form" in expression.tags else {}
        return {**form, **({"source": sorted(video.attributes)} if video.attributes else {})}
