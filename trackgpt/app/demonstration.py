"""`trackgpt demo`: a synthetic clip made here and now, tracked by the shipped model, scored against its own truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trackgpt.errors import UsageError


def run(output: Path, seed: int, model: str, kind: str) -> int:
    """Make a held-out SynthTrack clip, track one instruction of a kind, print J&F in percent; returns the exit code."""
    from trackgpt.app.tracking import Request
    from trackgpt.app.tracking import run as track
    from trackgpt.data.synthtrack.clips import KINDS, make_case
    from trackgpt.errors import NothingFoundError
    from trackgpt.export.records import read_events, read_tracks
    from trackgpt.geometry.jf import sequence_scores
    from trackgpt.video.writer import VideoWriter

    if kind not in KINDS:
        raise UsageError(f"--kind {kind}: choose from {', '.join(KINDS)}")
    case = make_case(seed, split="test", frames=48, longest=480)
    said = [e for e in case.expressions if e.kind == kind]
    if not said:
        raise UsageError(f"--seed {seed}: this clip has no {kind} instruction; try another seed")
    output.mkdir(parents=True, exist_ok=True)
    clip = output.parent / f"{output.name}-clip.mp4"
    with VideoWriter(clip, case.clip.fps, case.clip.frames.shape[1:3]) as video:
        for t, frame in enumerate(case.clip.frames):
            video.write(frame, t / case.clip.fps)
    print(f"instruction: {said[0].text}", flush=True)
    request = Request(
        source=str(clip),
        instructions=("\\" + said[0].text,),
        model=model,
        output=output,
        formats=("mp4", "davis", "coco", "mot", "timeline", "jsonl"),
        overwrite=True,
    )
    try:
        track(request)
    except NothingFoundError:
        # For the "none" kind this is the right outcome; for others the score below says how wrong it is.
        print("nothing was found")
    truth = np.isin(case.clip.ids, np.array(said[0].targets, np.uint8))
    records = list(read_tracks(output))
    found = np.stack([record.masks().any(axis=0) for record in records])
    rethinks = sum(event.type == "rethink" for event in read_events(output))
    scores = sequence_scores(found, truth)
    value = 50 * float(scores.j.mean() + scores.f.mean())
    print(f"J&F={value:.1f} frames={len(records)} rethinks={rethinks} out={output}")
    return 0
