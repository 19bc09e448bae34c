"""Referring-video benchmarks, for evaluation kits and for training: videos, what is said of them, and the true masks.

`refer_davis17("data", "valid")` gives the videos of a part in the order of the benchmark's file. Opening a part reads
one JSON and a few masks (see `agreement`); frames, other masks and mask_dict.json are opened when they are asked for.
A tree may go by any of the names that projects give it; `python -m data_tools check` says what is wrong with one. Every
reader raises `UsageError` for a part that its benchmark does not have, and `InputError` for a file or folder that is
missing or damaged, or for files that do not belong together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from trackgpt.data.referring_video.davis17 import refer_davis17
from trackgpt.data.referring_video.instructions import instrack
from trackgpt.data.referring_video.parts import TREES, find_root
from trackgpt.data.referring_video.reasoning import reason_vos
from trackgpt.data.referring_video.run_lengths import lv_vis, mevis, revos
from trackgpt.data.referring_video.truth import FOREGROUND
from trackgpt.data.referring_video.youtube_vos import refer_youtube_vos
from trackgpt.data.videos import Video

__all__ = [
    "FOREGROUND",
    "READERS",
    "TREES",
    "find_root",
    "instrack",
    "lv_vis",
    "mevis",
    "reason_vos",
    "refer_davis17",
    "refer_youtube_vos",
    "revos",
]

READERS: Mapping[str, Callable[[str | Path, str], tuple[Video, ...]]] = {
    "refer-youtube-vos": refer_youtube_vos,
    "refer-davis17": refer_davis17,
    "mevis": mevis,
    "revos": revos,
    "lv-vis": lv_vis,
    "reason-vos": reason_vos,
    "instrack": instrack,
}
