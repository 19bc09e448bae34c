"""`trackgpt demo`: a synthetic clip made here and now, tracked by the shipped model, scored against its own truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trackgpt.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from trackgpt.synthtrack.clips import Case
    from trackgpt.synthtrack.scene import SceneInstruction

FORMATS = ("mp4", "davis", "coco", "mot", "timeline", "jsonl")
LONGEST = 480


def run(output: Path, seed: int, model: str, kind: str, frames: int = 48) -> int:
    """Make a held-out SynthTrack clip, track one instruction of a kind, print J&F in percent; returns the exit code.

    The clip lies beside the run folder, so that it can be tracked again with other words.

    Raises:
        UsageError: no such kind, or the clip has no instruction of it.
        ModelError: the model cannot be loaded.
        OutputError: the run folder holds something that is no run, or cannot be written.
    """
    from trackgpt.app.tracking import RunSummary, TrackRequest, refuse_existing, track
    from trackgpt.session.playback import InstructionTracker

    refuse_existing(output, overwrite=(output / "tracks.jsonl").exists())
    tracker = InstructionTracker.from_pretrained(model)
    case, said = _case(seed, kind, frames)
    clip = output.parent / f"{output.name}-clip.mp4"
    _film(case, clip)
    print(f"instruction: {said.text}", flush=True)
    request = TrackRequest(str(clip), ("\\" + said.text,), model, output, FORMATS, guess=True, overwrite=True)
    outcome = RunSummary(output)
    track(request, outcome, tracker)
    if not outcome.found:
        # For the kind "none" this is right; for others the score says how wrong it is.
        print("nothing was found")
    value = _score(output, case, said)
    print(f"J&F={value:.1f} frames={outcome.frames} rethinks={outcome.rethinks} clip={clip} out={output}")
    return 0


def _case(seed: int, kind: str, frames: int) -> tuple[Case, SceneInstruction]:
    from trackgpt.synthtrack.clips import KINDS, make_case

    if kind not in KINDS:
        raise UsageError(f"--kind {kind}: choose from {', '.join(KINDS)}")
    if frames < 1:
        raise UsageError(f"--frames {frames}: wanted at least 1")
    case = make_case(seed, split="test", frames=frames, longest=LONGEST)
    said = [expression for expression in case.expressions if expression.kind == kind]
    if not said:
        raise UsageError(f"--seed {seed}: this clip has no {kind} instruction; try another seed")
    return case, said[0]


def _film(case: Case, path: Path) -> None:
    from trackgpt.files import writing
    from trackgpt.video.writer import VideoWriter

    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    height, width = case.clip.frames.shape[1:3]
    with VideoWriter(path, case.clip.fps, (height, width), overwrite=True) as video:
        for t, frame in enumerate(case.clip.frames):
            video.write(frame, t / case.clip.fps)


def _score(output: Path, case: Case, said: SceneInstruction) -> float:
    """J&F in percent over all frames, of everything found taken together against the targets taken together."""
    import numpy as np

    from trackgpt.export.records import read_tracks
    from trackgpt.geometry.jf import sequence_scores

    truth: np.ndarray = np.isin(case.clip.ids, np.array(said.targets, np.uint8))
    height, width = truth.shape[1:]
    # Video has even sides: an odd clip was padded by a row or a column.
    found = np.stack([np.any(record.masks(), axis=0)[:height, :width] for record in read_tracks(output)])
    scores = sequence_scores(found, truth)
    return 50 * float(scores.j.mean() + scores.f.mean())
