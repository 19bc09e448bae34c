"""A long session in words: 5,000 frames and 50 instructions of all kinds, and what they cost.

    python tests/long_session.py            # minutes on one core; `make talk`

Memory must not grow with the video, questions that nobody asked for stay within their budget, and at the end every
instruction is taken back: each time the track's state must be, to the bit, the one that the instruction was said to.
The last line of stdout is key=value.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402

import trackgpt  # noqa: E402
from eval.kits.box_sequences import OneTarget  # noqa: E402
from eval.speed.loop import memory_slope, resident_bytes  # noqa: E402
from trackgpt.arbitration import FREE, ArbitrationSettings  # noqa: E402
from trackgpt.errors import UsageError  # noqa: E402
from trackgpt.geometry.boxes import box_iou  # noqa: E402
from trackgpt.session.session import Session  # noqa: E402
from trackgpt.synthtrack.clips import make_case, seen_actors  # noqa: E402
from trackgpt.synthtrack.interaction import write_script  # noqa: E402
from trackgpt.synthtrack.render import boxes_of  # noqa: E402
from trackgpt.synthtrack.world import leader  # noqa: E402
from trackgpt.track import TrackState  # noqa: E402


@dataclass(frozen=True)
class LongSession:
    """What a session came to.

    Attributes:
        frames, said, refused: how many; what was refused is among what was said.
        undone: instructions that changed the track, all of which were taken back.
        restored: after how many of them the state was the one before, to the bit.
        unasked: questions that no words asked for and that the budget counts; budget: how many it allows.
        state_bytes: the most that a state held, after each tenth of the session.
        resident: bytes of the process by frame.
        boxes: float32 (frames, 4), of the target that is scored, NaN where it was absent.
    """

    frames: int
    said: int
    refused: int
    undone: int
    restored: int
    unasked: int
    budget: float
    state_bytes: tuple[int, ...]
    resident: Mapping[int, int]
    boxes: np.ndarray


def hold(session: Session, frames: Iterable[np.ndarray], count: int, said: Mapping[int, str]) -> LongSession:
    """Follow frames, uint8 RGB (height, width, 3), say what there is to say by frame, and take all of it back."""
    before: dict[int, str] = {}
    refused, unasked, sizes, resident, target, boxes = 0, 0, [0] * 10, {}, OneTarget(), []
    for t, frame in enumerate(frames):
        digest = digest_of(session.state) if t in said else ""
        try:
            session.say(said[t]) if t in said else None
        except UsageError:
            refused += 1
        told = len(session.prompts)
        result = session.step(frame)
        if len(session.prompts) > told:
            before[t] = digest
        unasked += sum(e.type == "rethink" and e.data["reason"] not in FREE for e in result.events)
        sizes[10 * t // count] = max(sizes[10 * t // count], session.state.nbytes)
        if t % max(1, count // 100) == 0:
            resident[t] = resident_bytes()
        seen = result.prediction
        boxes.append(np.full(4, np.nan) if seen is None else target.box(seen))
        if sys.stderr.isatty():
            print(f"{t + 1} of {count} frames", end="\r", file=sys.stderr)
    undone = restored = 0
    while session.prompts:
        frame_said = session.prompts[-1].frame
        session.undo()
        undone += 1
        restored += digest_of(session.state) == before[frame_said]
    how = ArbitrationSettings()
    budget = how.burst + how.budget * count
    everything = np.array(boxes, np.float32)
    counts = (count, len(said), refused, undone, restored, unasked, budget)
    return LongSession(*counts, tuple(sizes), resident, everything)


def digest_of(state: TrackState) -> str:
    """SHA-256 of a state as it is saved."""
    with tempfile.TemporaryDirectory() as folder:
        state.save(Path(folder) / "state")
        return hashlib.sha256((Path(folder) / "state").read_bytes()).hexdigest()


def turning(length: int, count: int) -> list[int]:
    """The places of a clip forwards and backwards in turns."""
    return [min(t % (2 * length - 2), 2 * length - 2 - t % (2 * length - 2)) for t in range(count)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Hold the session, and print what it came to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="imat:nano+nano-memory")
    parser.add_argument("--frames", type=int, default=5000)
    parser.add_argument("--instructions", type=int, default=50)
    parser.add_argument("--seed", type=int, default=8, help="of the SynthTrack scene")
    options = parser.parse_args(arguments)
    case = make_case(options.seed, frames=120)
    scene, ids = case.scene, case.clip.ids
    places, between = turning(len(ids), options.frames), options.frames // options.instructions
    seen = [seen_actors(scene, t, each) for t, each in enumerate(ids)]
    leaders = [leader(scene, t) for t in range(len(ids))]
    script = write_script(
        [seen[t] for t in places],
        scene.kind,
        [leaders[t] for t in places],
        "test",
        np.random.default_rng(options.seed),
        (max(1, between - 5), between + 5),
    )
    if script is None:
        parser.error(f"--seed {options.seed}: nothing can be named on the first frame; choose another")
    said = {each.frame: each.text for each in script.said[: options.instructions]}
    session = trackgpt.load(options.model, "cpu").session()
    came = hold(session, (case.clip.frames[t] for t in places), options.frames, said)
    boxes = [boxes_of(each) for each in ids]
    wanted = [boxes[t].get(followed[0]) for t, followed in zip(places, script.followed, strict=True)]
    shown = [(box, truth) for box, truth in zip(came.boxes, wanted, strict=True) if truth is not None]
    right = np.mean([box_iou(box[None], np.float32([truth]))[0, 0] > 0.5 for box, truth in shown])
    sizes = " ".join(f"{size / 2**20:.1f}" for size in came.state_bytes)
    print(f"most bytes of the state by tenths of the session, MiB: {sizes}")
    print(
        f"frames={came.frames} instructions={came.said} refused={came.refused} undone={came.undone} "
        f"restored={came.restored} unasked={came.unasked} budget={came.budget:.0f} right={100 * right:.1f} "
        f"rss_mib={came.resident[max(came.resident)] / 2**20:.0f} "
        f"rss_slope_bytes_per_frame={memory_slope(came.resident):.0f}"
    )
    return int(came.restored != came.undone or came.unasked > came.budget)


if __name__ == "__main__":
    sys.exit(main())
