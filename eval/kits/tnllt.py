"""TNLLT, the benchmark of ReasoningTrack: 50 test sequences with one sentence each."""

from __future__ import annotations

from eval.kits.box_sequences import BoxSequenceKit
from eval.metrics.box_conventions import pytracking, tnllt


class Tnllt(BoxSequenceKit):
    """See the module."""

    name = "tnllt"
    about = (
        "Protocol tnllt: the box of the first frame is replaced by the truth. "
        "Two conventions, never mixed: tnllt, the benchmark's Matlab toolkit (Event-AHU/Open_VLTrack@fccc2c7), LaSOT's "
        "arithmetic with the flag of absence turned around (1 = present): absent frames fail; and pytracking_tnl2k, "
        "pytracking's rules for sets other than LaSOT (float32; absent frames COUNT AS HITS in normalised precision). "
        "Means over sequences. No table of the ReasoningTrack paper could be read, so nothing is reported beside ours."
    )
    headline = ("tnllt/AUC", "tnllt/P@20", "tnllt/NP@0.20", "pytracking_tnl2k/AUC")
    conventions = {
        "tnllt": lambda found, truth: tnllt(found, truth.boxes, truth.absent),
        "pytracking_tnl2k": lambda found, truth: pytracking(found, truth.boxes, truth.absent, "tnl2k"),
    }
