"""Refer-YouTube-VOS."""

from __future__ import annotations

import logging
from pathlib import Path

from trackgpt.data.referring_video.agreement import agreeing
from trackgpt.data.referring_video.meta_expressions import ListedVideo, read_videos
from trackgpt.data.referring_video.parts import BenchmarkPart, video_of, with_label_maps, without_truth
from trackgpt.data.referring_video.truth import FolderMasks
from trackgpt.data.videos import Expression, Video
from trackgpt.errors import InputError

LISTED, VALID = 507, 202  # videos in the real valid file, and those of them that are valid's own

logger = logging.getLogger(__name__)


def refer_youtube_vos(root: str | Path, part: str) -> tuple[Video, ...]:
    """Refer-YouTube-VOS: datasets.md, section 3.1.

    * train: an expression names one object, a value of the label maps in `train/Annotations` (`LabelMasks`).
    * valid: the file lists 507 videos; those of the test file are taken out, which leaves 202. Its frames are every
      fifth of the film; names, not places, are their numbers. Its truth has been public since 2026-03; where
      `valid/Annotations` holds it, either as label maps and the expressions carry `obj_id`, or as one folder of binary
      masks an expression (`<video>/<expression>/<frame>.png`, as a submission; also below `valid_truth`, where
      SynthTrack writes it), it is given; otherwise `masks` is None and `objects` is empty.
    * test: without truth; frames in `test/JPEGImages`.

    Args:
        root: the tree, or the folder above it.
        part: "train", "valid" or "test".

    Returns:
        Videos in the order of the file.

    Raises:
        UsageError: another part.
        InputError: a file or folder is missing or damaged; the test file is missing beside a full valid file; masks
            are in a pickle; as `agreeing`.
    """
    here = BenchmarkPart.of("refer-youtube-vos", root, part)
    listed = _valid(here) if part == "valid" else list(read_videos(here.listed_apart()).values())
    pictures = here.pictures(here.root / part / "JPEGImages")
    if part == "train":
        labels = here.labels(here.root / part / "Annotations")
        return agreeing(here.listed_apart(), (with_label_maps(video, pictures, labels) for video in listed))
    truth = (here.root / part / "Annotations", here.root / f"{part}_truth" / "Annotations")
    return agreeing(here.listed_apart(), (_unseen(video, pictures, truth) for video in listed))


def _valid(here: BenchmarkPart) -> list[ListedVideo]:
    """The videos of the valid file without those of the test file."""
    file, beside = here.listed_apart(), here.listed_apart("test")
    listed = read_videos(file)
    full = len(listed) == LISTED
    if full and not beside.is_file():
        raise InputError(
            f"{beside}: missing; the valid file lists {LISTED} videos, {LISTED - VALID} of which are test's, and only "
            "the keys of the test file tell which; put it there"
        )
    test = read_videos(beside) if beside.is_file() else {}
    valid = [video for name, video in listed.items() if name not in test]
    if not valid or (full and len(valid) != VALID):
        raise InputError(
            f"{file}: {len(listed)} videos less those of test leave {len(valid)}; wanted {VALID if full else 'some'}; "
            "the two files are of different releases: take both from one"
        )
    return valid


def _unseen(listed: ListedVideo, pictures: Path, truth: tuple[Path, ...]) -> Video:
    """A video of valid or test, with truth where there is any."""
    for labels in truth:
        folder = labels / listed.name
        if not folder.is_dir():
            continue
        if all("obj_id" in entry.fields for entry in listed.entries):
            return with_label_maps(listed, pictures, labels)
        if all((folder / entry.id).is_dir() for entry in listed.entries):
            said = [Expression(entry.id, entry.text, (entry.id,)) for entry in listed.entries]
            files = {entry.id: listed.files(folder / entry.id, ".png") for entry in listed.entries}
            return video_of(listed, pictures, said, FolderMasks(files))
        # The valid part of YouTube-VOS comes with masks of first frames alone: no truth, and no fault either.
        logger.info("%s: masks, but no obj_id says whose; taken as a video without truth", folder)
    return without_truth(listed, pictures)
