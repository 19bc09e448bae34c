"""The InsTrack kit: instructions in six wordings each; how good a tracker is, and how much the wording moves it.

The layout is `eval/kits/INSTRACK.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from eval.kit import Reported, Row, percent_means, with_jf
from eval.kits.expressions import ExpressionKit
from trackgpt.data.videos import Expression, Video

_TABLE = "TrackGPT (Zhu et al., Tracking with Human-Intent Reasoning), Table 2"
_COLUMNS = ("J&F", "J", "F", "J-R", "F-R")


def _printed(system: str, *figures: float) -> Reported:
    return Reported(system, dict(zip(_COLUMNS, figures, strict=True)), _TABLE)


class InsTrack(ExpressionKit):
    """Every wording of every instruction, each predicted from its own text alone."""

    name = "instrack"
    headline = _COLUMNS
    convention = (
        "Protocol instrack, as we read the paper, which publishes no code: one binary mask per frame for every wording "
        "of an instruction, all frames are scored, empty against empty is 1. J-R and F-R are shares of an "
        "instruction's frames above 0.5. Means over wordings. worst/J&F: of every instruction the J&F of the wording "
        "that is understood worst; spread/J&F: best less worst wording; means over instructions."
    )
    printed = {
        "test": (
            _printed("TrackGPT-7B", 43.3, 42.1, 44.5, 47.4, 46.2),
            _printed("TrackGPT-13B", 50.5, 48.8, 52.1, 54.1, 58.0),
            _printed("TrackGPT-7B (IT)", 49.2, 48.9, 49.4, 55.9, 54.9),
            _printed("TrackGPT-13B (IT)", 54.9, 52.8, 56.9, 59.4, 62.9),
            _printed("LISA-7B by TrackGPT", 39.7, 38.5, 40.9, 37.0, 37.5),
            _printed("LISA-13B by TrackGPT", 45.2, 44.8, 45.7, 47.4, 44.7),
            _printed("OnlineRefer", 36.8, 33.8, 39.9, 38.6, 40.0),
            _printed("SgMg", 33.4, 31.9, 35.0, 34.6, 35.1),
            _printed("R2-VOS", 24.7, 21.1, 28.2, 21.6, 27.4),
            _printed("ReferFormer", 24.0, 22.9, 25.2, 24.7, 23.1),
        )
    }

    def tags(self, video: Video, expression: Expression) -> dict[str, list[str]]:
        """Which wording: 0 is the one that a person wrote."""
        return {"wording": [expression.tags["wording"]]} if "wording" in expression.tags else {}

    def score(self, task: str, results: Path) -> list[Row]:
        """One row per wording; the first one of an instruction also has the figures of all its wordings."""
        rows = super().score(task, results)
        groups: dict[str, list[int]] = {}
        for index, expression in enumerate(self.by_name[task].expressions):
            groups.setdefault(expression.tags.get("group", expression.id), []).append(index)
        for places in groups.values():
            first = rows[places[0]]
            rows[places[0]] = replace(first, figures={**first.figures, **over_wordings([rows[i] for i in places])})
        return rows

    def summarise(self, rows: Sequence[Row]) -> dict[str, float]:
        """Means over wordings, and over instructions for what is said of all wordings of one."""
        return with_jf(percent_means(rows, ("J", "F", "J-R", "F-R", "worst/J&F", "spread/J&F")))


def over_wordings(rows: Sequence[Row]) -> dict[str, float]:
    """J&F of the worst wording of an instruction, and the distance from the best one."""
    jf = np.array([(row.figures["J"] + row.figures["F"]) / 2 for row in rows])
    return {"worst/J&F": float(jf.min()), "spread/J&F": float(np.ptp(jf))}
