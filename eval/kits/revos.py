"""The ReVOS kit: referring and reasoning expressions, with the figures and the roundings of VISA's script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from eval.kit import Reported, Row, groups
from eval.kits.expressions import ExpressionKit
from eval.label_maps import read_mask
from eval.metrics.expressions import RevosRow, RevosScore, pixel_accuracy, revos_table, robustness
from trackgpt.data.referring_video import FOREGROUND
from trackgpt.data.videos import Expression, MaskTruth
from trackgpt.geometry.jf import Scores

_COLLECTED = "as printed in the system's own paper or table"
_KINDS = ("referring", "reasoning")


class Revos(ExpressionKit):
    """Every expression; referring and reasoning weigh half each, whatever their numbers."""

    name = "revos"
    headline = ("J&F", "J", "F", "A", "R")
    convention = (
        "Protocol revos: one binary mask per frame for every expression, all frames are scored, empty against empty is "
        "1. A: share of pixels where prediction and truth agree. R: 1 - predicted pixels outside the truth / annotated "
        "pixels of the whole video frame, 0 at least; it falls with what is hallucinated. Every expression's figures "
        "are rounded to 2 decimals of a percent, then averaged within referring and within reasoning expressions; J&F, "
        "J, F, A and R are the mean of the two. Expressions of type 2, which nothing matches, are left out."
    )
    printed = {
        "valid": (
            Reported("TrackGPT-7B", {"J&F": 43.6, "referring/J&F": 48.2, "reasoning/J&F": 39.0}, _COLLECTED),
            Reported("TrackGPT-13B", {"J&F": 45.0, "referring/J&F": 49.5, "reasoning/J&F": 40.5}, _COLLECTED),
            Reported("LISA-7B", {"J&F": 40.9}, _COLLECTED),
            Reported("VISA-7B", {"J&F": 46.9}, _COLLECTED),
            Reported("VISA-13B", {"J&F": 50.9}, _COLLECTED),
            Reported("VRS-HQ-7B", {"J&F": 59.1}, _COLLECTED),
            Reported("UniPixel-7B", {"J&F": 63.7}, _COLLECTED),
            Reported("VIRST", {"J&F": 68.4, "referring/J&F": 70.8, "reasoning/J&F": 66.1}, _COLLECTED),
        )
    }

    def measure(
        self, masks: MaskTruth, expression: Expression, files: Sequence[Path]
    ) -> tuple[Scores, dict[str, float]]:
        """J and F of every frame, and J, F, A and R of the expression."""
        scores, figures = super().measure(masks, expression, files)
        pairs = list(_accuracy_and_robustness(masks, expression, files))
        a, r = (float(np.mean(values)) for values in zip(*pairs, strict=True))
        return scores, {"J": figures["J"], "F": figures["F"], "A": a, "R": r}

    def summarise(self, rows: Sequence[Row]) -> dict[str, float]:
        """The script's rows; where all expressions are of one kind, J&F and the others are that kind's."""
        named = {kind: mine for kind, mine in groups(rows, "kind").items() if kind in _KINDS}
        wanted = [(kind, row) for kind in _KINDS for row in named.get(kind, ())]
        if not wanted:
            return {}
        scores = [RevosScore(*(row.figures[name] for name in "JFAR")) for _, row in wanted]
        table = revos_table(scores, [kind for kind, _ in wanted])
        whole = table.overall if len(named) == 2 else getattr(table, next(iter(named)))
        figures = _named(whole, "")
        for kind in _KINDS:
            if kind in named:
                figures |= _named(getattr(table, kind), f"{kind}/")
        return figures


def _accuracy_and_robustness(
    masks: MaskTruth, expression: Expression, files: Sequence[Path]
) -> Iterator[tuple[float, float]]:
    """A and R of every frame."""
    for t, file in enumerate(files):
        truth = masks.mask(expression.objects, t)
        prediction = read_mask(file, truth.shape)
        yield pixel_accuracy(prediction, truth), robustness(prediction, truth, masks.mask((FOREGROUND,), t))


def _named(row: RevosRow, prefix: str) -> dict[str, float]:
    values = {"J&F": row.jf, "J": row.j, "F": row.f, "A": row.a, "R": row.r}
    return {f"{prefix}{name}": value for name, value in values.items()}
