"""TNL2K: 700 test sequences with one sentence each."""

from __future__ import annotations

from eval.kits.box_sequences import BoxSequenceKit
from eval.metrics.box_conventions import lasot_matlab, pytracking


class Tnl2k(BoxSequenceKit):
    """See the module."""

    name = "tnl2k"
    about = (
        "Protocol tnl2k: the box of the first frame is replaced by the truth. "
        "Two conventions, never mixed: pytracking_tnl2k, which papers of vision-language trackers print "
        "(visionml/pytracking@7eb9e74 and the trackers descended from it, float32, no flags: frames whose truth is not "
        "positive fail in success and precision and COUNT AS HITS in normalised precision), and lasot_matlab, TNL2K's "
        "own toolkit, a copy of LaSOT's (wangxiao5791509/TNL2K_evaluation_toolkit@1a96f6e: absent frames fail). Where "
        "boxes and flags differ by one line (advSamp_monitor_bikeyellow, 929 and 930), the sequence is cut to the "
        "shorter, and one line too many in a result is cut off. Means over sequences. The truth itself, as a result on "
        "the 700 sequences, reaches AUC 84.7 in both, and NP@0.20 100 and 91.7: absent frames and boxes that begin at "
        "x = 0 or y = 0 cannot be won."
    )
    headline = ("pytracking_tnl2k/AUC", "pytracking_tnl2k/P@20", "pytracking_tnl2k/NP@0.20", "lasot_matlab/AUC")
    conventions = {
        "pytracking_tnl2k": lambda found, truth: pytracking(found, truth.boxes, None, "tnl2k"),
        "lasot_matlab": lambda found, truth: lasot_matlab(found, truth.boxes, truth.absent),
    }
