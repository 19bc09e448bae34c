"""InsTrack."""

from __future__ import annotations

from pathlib import Path

from trackgpt.data.referring_video.agreement import agreeing
from trackgpt.data.referring_video.meta_expressions import Entry, read_videos
from trackgpt.data.referring_video.parts import BenchmarkPart, label_maps, labelled, video_of
from trackgpt.data.videos import LabelMasks, Video


def instrack(root: str | Path, part: str) -> tuple[Video, ...]:
    """InsTrack in the layout that this project proposes, for want of a public one: `eval/kits/INSTRACK.md`.

    An expression may name several objects, values of the label maps in `<part>/Annotations` (`LabelMasks`), or none.
    Tags: "group", the instruction that six expressions word differently; "wording", "0" for the one a person wrote, "1"
    to "5" for its paraphrases; "answer", what a tracker should say, where the file has it.

    Args:
        root: the tree, or the folder above it.
        part: "train" or "test".

    Returns:
        Videos in the order of the file.

    Raises:
        UsageError: another part.
        InputError: a file or folder is missing or damaged; an expression names no object; as `agreeing`.
    """
    here = BenchmarkPart.of("instrack", root, part)
    listed = read_videos(here.listed_apart())
    pictures = here.pictures(here.root / part / "JPEGImages")
    labels = here.labels(here.root / part / "Annotations")
    videos = (
        video_of(
            video,
            pictures,
            (labelled(entry, _tags(entry)) for entry in video.entries),
            LabelMasks(label_maps(video, labels)),
        )
        for video in listed.values()
    )
    return agreeing(here.listed_apart(), videos)


def _tags(entry: Entry) -> dict[str, str]:
    return {name: str(entry.fields[name]) for name in ("group", "wording", "answer") if name in entry.fields}
