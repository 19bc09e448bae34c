"""Encoded videos as tests compare them."""

from pathlib import Path

import av
import numpy as np


def decoded(path: Path | str) -> tuple[list[float], list[np.ndarray]]:
    """The seconds and the pictures of a video, uint8 RGB (height, width, 3)."""
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
        return [float(frame.time) for frame in frames], [frame.to_ndarray(format="rgb24") for frame in frames]


def shows_the_same(one: Path | str, other: Path | str) -> bool:
    """Whether two videos have the same times and, but for the encoder's rounding, the same pictures.

    x264 does not always give the same bits twice: about one run in thirty differs by a byte, and by a few grey levels
    in some block. A line, a letter or a mask drawn elsewhere changes single pixels by far more than the bound.
    """
    times, pictures = decoded(one)
    other_times, other_pictures = decoded(other)
    differences = [np.abs(a.astype(int) - b) for a, b in zip(pictures, other_pictures, strict=False)]
    return times == other_times and all(each.max() <= 24 and each.mean() <= 0.5 for each in differences)
