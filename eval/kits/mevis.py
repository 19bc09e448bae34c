"""The MeViS kit: motion expressions, scored on valid_u and packed for the server on valid and test."""

from __future__ import annotations

from eval.kit import Reported
from eval.kits.expressions import ExpressionKit

_COLLECTED = "as printed in the system's own paper or table"


class Mevis(ExpressionKit):
    """Every expression of the split; the truth is the union of the objects meant."""

    name = "mevis"
    convention = (
        "Protocol mevis: one binary mask per frame for every expression, its truth the union of the objects meant. All "
        "frames are scored, empty against empty is 1, means over expressions."
    )
    servers = {"valid": "", "test": ""}
    kept_back = "send submission.zip to the server (https://www.codabench.org/competitions/11420), or use valid_u"
    printed = {
        "valid_u": (
            Reported("LMPM", {"J&F": 40.23, "J": 36.51, "F": 43.90}, "henghuiding/MeViS@00691a1, README"),
            Reported("SAMWISE", {"J&F": 57.1}, _COLLECTED),
            Reported("Sa2VA-4B", {"J&F": 55.9}, _COLLECTED),
            Reported("Sa2VA-8B", {"J&F": 58.9}, _COLLECTED),
            Reported("Sa2VA-26B", {"J&F": 61.8}, _COLLECTED),
        )
    }
