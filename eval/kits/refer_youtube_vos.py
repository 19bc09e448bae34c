"""The Refer-YouTube-VOS kit: a zip for the server that is gone, and scores where the truth is on disk."""

from __future__ import annotations

from eval.kit import Reported
from eval.kits.expressions import ExpressionKit
from eval.submission import TOP

_TABLE = "TrackGPT (Zhu et al., Tracking with Human-Intent Reasoning), Table 1"


class ReferYoutubeVos(ExpressionKit):
    """Every expression of the 202 validation videos, on every fifth frame."""

    name = "refer-youtube-vos"
    layout = "VIDEO/EXPRESSION/FRAME.png, 0 and 255, named like the frames; or a zip of Annotations/VIDEO/..."
    convention = (
        "Protocol refer-youtube-vos: one binary mask per frame for every expression, J and F over the frames that the "
        "set lists, empty against empty is 1, means over expressions. The valid file lists 507 videos; the 305 of the "
        "test file are taken out. The server's own program is not public: this is MeViS-style scoring."
    )
    servers = {"valid": TOP, "test": TOP}
    kept_back = (
        "submission.zip has the form that the CodaLab server took, which is gone; the validation truth has been public "
        "since 2026-03 (skynbe/Refer-Youtube-VOS, issues 7 and 8): put it into valid/Annotations and score again"
    )
    printed = {
        "valid": (
            Reported("TrackGPT-7B", {"J&F": 56.4, "J": 55.3, "F": 57.4}, _TABLE),
            Reported("TrackGPT-13B", {"J&F": 59.5, "J": 58.1, "F": 60.8}, _TABLE),
            Reported("LISA-7B by TrackGPT", {"J&F": 50.2, "J": 49.7, "F": 50.6}, _TABLE),
            Reported("LISA-13B by TrackGPT", {"J&F": 52.6, "J": 52.1, "F": 53.0}, _TABLE),
            Reported("ReferFormer", {"J&F": 62.9, "J": 61.3, "F": 64.6}, _TABLE),
            Reported("SgMg", {"J&F": 65.7, "J": 63.9, "F": 67.4}, _TABLE),
            Reported("OnlineRefer (online)", {"J&F": 63.5, "J": 61.6, "F": 65.5}, _TABLE),
        )
    }
