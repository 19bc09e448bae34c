"""LaSOT: 280 long sequences with one sentence each."""

from __future__ import annotations

from eval.kits.box_sequences import BoxSequenceKit
from eval.metrics.box_conventions import lasot_matlab, pytracking


class Lasot(BoxSequenceKit):
    """See the module."""

    name = "lasot"
    about = (
        "Protocol lasot: the box of the first frame is replaced by the truth, "
        "as every toolkit does. Two conventions, never mixed: lasot_matlab (HengLan/LaSOT_Evaluation_Toolkit@95bf38a) "
        "and pytracking_lasot (visionml/pytracking@7eb9e74, float32). In both, frames without target stay in the "
        "denominator and fail. They differ on visible truths with a number <= 0: failures in pytracking, hits in "
        "Matlab's precision. AUC: mean over the thresholds 0, 0.05, ..., 1 of the share of frames with IoU above it, "
        "20/21 at most; P@20: centre error of at most 20 px; NP@0.20: at most 0.2 box sizes. Means over sequences."
    )
    headline = ("lasot_matlab/AUC", "lasot_matlab/P@20", "lasot_matlab/NP@0.20", "pytracking_lasot/AUC")
    conventions = {
        "lasot_matlab": lambda found, truth: lasot_matlab(found, truth.boxes, truth.absent),
        "pytracking_lasot": lambda found, truth: pytracking(found, truth.boxes, truth.absent, "lasot"),
    }
