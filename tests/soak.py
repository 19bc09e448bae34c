"""A long session: memory must not grow with the video.

    python tests/soak.py --frames 100000        # half an hour on one core; `make soak`

nano follows synthetic frames through a playback with its log, is told something new every 5,000 frames and takes every
third of these back. The last line of stdout is key=value, with the slope of the process's memory.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402

import trackgpt  # noqa: E402
from eval.speed.loop import memory_slope, resident_bytes  # noqa: E402
from trackgpt.synthtrack.clips import make_case  # noqa: E402

EVERY = 5000
"""Frames between two instructions."""


def frames(count: int) -> Iterator[np.ndarray]:
    """The frames of one clip, forwards and backwards in turns."""
    clip = make_case(8, split="test", frames=48, longest=240).clip.frames
    for index in range(count):
        place = index % (2 * len(clip) - 2)
        yield clip[min(place, 2 * len(clip) - 2 - place)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Follow, and print the slope."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100_000)
    options = parser.parse_args(arguments)
    resident: dict[int, int] = {}
    instructions = 0
    with trackgpt.load("nano", "cpu").open(frames(options.frames)) as playback:
        playback.say("the smallest thing")
        for number, _ in enumerate(playback, 1):
            if number % max(1, options.frames // 100) == 0:
                resident[number] = resident_bytes()
            if number % EVERY == 0 and number < options.frames:
                instructions += 1
                playback.say(("the red thing", "the biggest thing", "the smallest thing")[instructions % 3])
                if instructions % 3 == 0:
                    playback.undo()
            if number % (1000 if sys.stderr.isatty() else 10_000) == 0:
                end = "\r" if sys.stderr.isatty() else "\n"
                print(
                    f"{number} of {options.frames} frames, {resident_bytes() / 2**20:.1f} MiB", end=end, file=sys.stderr
                )
    state = playback.session.state.nbytes
    rethinks, takes = playback.session.rethinks, len(playback.session.takes)
    playback.close()
    slope = memory_slope(resident)
    print(
        f"frames={playback.session.frames} instructions={instructions} takes={takes} rethinks={rethinks} "
        f"state_bytes={state} rss_mib={resident[max(resident)] / 2**20:.1f} rss_slope_bytes_per_frame={slope:.1f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
