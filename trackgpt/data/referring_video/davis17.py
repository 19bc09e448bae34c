"""Refer-DAVIS17."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trackgpt.data.referring_video.agreement import agreeing
from trackgpt.data.referring_video.meta_expressions import ListedVideo, read_videos
from trackgpt.data.referring_video.parts import BenchmarkPart, label_maps, labelled, video_of
from trackgpt.data.referring_video.truth import DavisMasks
from trackgpt.data.videos import Expression, Video
from trackgpt.errors import InputError

ANNOTATIONS = 4  # expressions of an object


def refer_davis17(root: str | Path, part: str) -> tuple[Video, ...]:
    """Refer-DAVIS17 as ReferFormer's tool converts it: datasets.md, section 3.2.

    An expression names one object, a value of the label maps (`DavisMasks`; grey maps of DAVIS-2016 with 0 and 255 hold
    one mask for all objects). Its id is 4 * (place of the object in the string sort of `obj_id`) + k. Tags: "annotator"
    is k, "0" to "3", the pass that ReferFormer writes to `anno_<k>`; "said" is what the annotator had seen, "first
    frame" (k = 0, 2) or "full video" (k = 1, 3). Where a tree has one expression of each object, "annotator" is "0" and
    there is no "said". Frames and masks may also lie in `DAVIS/JPEGImages/480p` and
    `DAVIS/Annotations_unsupervised/480p`.

    Args:
        root: the tree, or the folder above it.
        part: "train" or "valid".

    Returns:
        Videos in the order of the file.

    Raises:
        UsageError: another part.
        InputError: a file or folder is missing or damaged; ids are out of order; masks are in a pickle; as `agreeing`.
    """
    here = BenchmarkPart.of("refer-davis17", root, part)
    listed = read_videos(here.listed_apart())
    whole = here.root / "DAVIS"
    pictures = here.pictures(here.root / part / "JPEGImages", whole / "JPEGImages" / "480p")
    labels = here.labels(here.root / part / "Annotations", whole / "Annotations_unsupervised" / "480p")
    videos = (
        video_of(video, pictures, _annotated(video), DavisMasks(label_maps(video, labels))) for video in listed.values()
    )
    return agreeing(here.listed_apart(), videos, all_named=True)


def _annotated(listed: ListedVideo) -> Iterator[Expression]:
    """The expressions of a video, tagged by annotator."""
    said = {entry.id: labelled(entry) for entry in listed.entries}
    objects = sorted({one.objects for one in said.values()})
    each = 1 if len(said) == len(objects) else ANNOTATIONS
    wanted = {str(each * place + k): key for place, key in enumerate(objects) for k in range(each)}
    for key in wanted | said:
        if key not in said or said[key].objects != wanted.get(key):
            found = "is not there" if key not in said else f"means object {', '.join(said[key].objects)}"
            raise InputError(
                f"{listed.where}: expression {key} {found}; wanted ids {each} * (place of the object in the string "
                "sort of obj_id) + annotator; convert the set again"
            )
    for one in said.values():
        k = int(one.id) % each
        tags = {"annotator": str(k), "said": "full video" if k % 2 else "first frame"}
        yield Expression(one.id, one.text, one.objects, tags if each == ANNOTATIONS else {"annotator": "0"})
