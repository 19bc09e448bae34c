"""`trackgpt demo`: a synthetic clip made here and now, tracked by the shipped model, scored against its own truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trackgpt.errors import OutputError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from trackgpt.synthtrack.clips import Case
    from trackgpt.synthtrack.scene import SceneInstruction

FORMATS = ("mp4", "davis", "coco", "mot", "timeline", "jsonl")
LONGEST = 480
TITLE = "SynthTrack, drawn by trackgpt demo"
"""Of the clip, by which a later demo knows that it may replace it."""


def run(output: Path, seed: int, model: str, kind: str, frames: int = 48, overwrite: bool = False) -> int:
    """Make a held-out SynthTrack clip, track one instruction of a kind, print J&F in percent; returns the exit code.

    The clip lies beside the run folder, so that it can be tracked again with other words.

    Raises:
        UsageError: no such kind, or the clip has no instruction of it; a model that reads no words.
        ModelError: the model cannot be loaded.
        OutputError: OUT01, there is a run or a clip and `overwrite` is off, or one that is no demo's; OUT02.
    """
    from trackgpt.app.tracking import RunSummary, TrackRequest, track
    from trackgpt.export.records import refuse_taken
    from trackgpt.session.playback import InstructionTracker

    clip = output.parent / f"{output.name}-clip.mp4"
    refuse_taken(output, overwrite)
    _refuse_another_clip(clip, overwrite)
    tracker = InstructionTracker.from_pretrained(model)
    case, said = _case(seed, kind, frames)
    session = tracker.session()
    session.refuse(session.read(said.text))
    _film(case, clip)
    print(f"instruction: {said.text}", flush=True)
    words = ("\\" + said.text,)
    request = TrackRequest(str(clip), words, model, output, FORMATS, guess=True, overwrite=overwrite)
    outcome = RunSummary(output)
    track(request, outcome, tracker)
    if not outcome.found:
        # For the kind "none" this is right; for others the score says how wrong it is.
        print("nothing was found")
    value = _score(output, case, said)
    print(f"J&F={value:.1f} frames={outcome.frames} rethinks={outcome.rethinks} clip={clip} out={output}")
    return 0


def _refuse_another_clip(clip: Path, overwrite: bool) -> None:
    """Refuse a clip that is there, unless it may be replaced and an earlier demo drew it.

    Raises:
        OutputError: OUT01.
    """
    import av

    from trackgpt.files import refuse_existing_file

    refuse_existing_file(clip, overwrite)
    if not clip.exists():
        return
    try:
        with av.open(f"file:{clip}") as video:
            ours = video.metadata.get("title") == TITLE
    except (av.error.FFmpegError, OSError):
        ours = False
    if not ours:
        raise OutputError(f"{clip}: was not drawn by `trackgpt demo`; move it away, or choose another folder", "OUT01")


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
    with VideoWriter(path, case.clip.fps, (height, width), overwrite=True, title=TITLE) as video:
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
