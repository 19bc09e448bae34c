"""ReasonVOS."""

from __future__ import annotations

from pathlib import Path

from trackgpt.data.referring_video.agreement import agreeing
from trackgpt.data.referring_video.meta_expressions import Entry, ListedVideo, read_videos
from trackgpt.data.referring_video.parts import BenchmarkPart, label_maps, video_of
from trackgpt.data.referring_video.truth import FolderMasks
from trackgpt.data.trees import needed_folder
from trackgpt.data.videos import Expression, LabelMasks, MaskTruth, Video


def reason_vos(root: str | Path, part: str) -> tuple[Video, ...]:
    """ReasonVOS: datasets.md, section 3.3, and showlab/VideoLISA@6625d43:benchmark_check.py.

    Expressions are a list whose places are the ids; their text is `exp_text`. An object has a folder of binary masks,
    `Annotations/<source>_<video>_<obj_id>` (`FolderMasks`); a tree with `Annotations/<video>` holds label maps, or,
    where entries name no object, one mask for all. Tags: "form" is "sentence" or "phrase" (`is_sent`), "exp_id" the
    file's own id. The video's attribute is the set that it comes from ("VIPSeg", "BURST", ...).

    Args:
        root: the tree, or the folder above it.
        part: "valid", all there is.

    Returns:
        Videos in the order of the file.

    Raises:
        UsageError: another part.
        InputError: a file or folder is missing or damaged; an object has no folder of masks; as `agreeing`.
    """
    here = BenchmarkPart.of("reason-vos", root, part)
    file = here.root / "meta_expressions.json"
    listed = read_videos(file)
    pictures = here.pictures(here.root / "JPEGImages")
    labels = here.labels(here.root / "Annotations")
    return agreeing(
        here.root / "meta_expressions.json", (_reasoned(video, pictures, labels) for video in listed.values())
    )


def _reasoned(listed: ListedVideo, pictures: Path, labels: Path) -> Video:
    found = {entry.id: entry.keys("obj_id") for entry in listed.entries}
    said = [Expression(entry.id, entry.text, found[entry.id] or (), _tags(listed, entry)) for entry in listed.entries]
    masks: MaskTruth
    if (labels / listed.name).is_dir():
        masks = LabelMasks(label_maps(listed, labels), union=None in found.values())
    else:
        objects = sorted({key for keys in found.values() for key in keys or ()})
        masks = FolderMasks({key: listed.files(object_folder(listed, labels, key), ".png") for key in objects})
    source = str(listed.fields.get("source", ""))
    return video_of(listed, pictures, said, masks, frozenset((source,)) if source else frozenset())


def object_folder(listed: ListedVideo, labels: Path, key: str) -> Path:
    """The folder of masks of an object; its source may be written in lower case.

    Raises:
        InputError: it is missing.
    """
    source = str(listed.fields.get("source", ""))
    folders = [labels / f"{name}_{listed.name}_{key}" for name in (source, source.lower())]
    there = [folder for folder in folders if folder.is_dir()]
    return there[0] if there else needed_folder(folders[0], f"the masks of object {key} of video {listed.name}")


def _tags(listed: ListedVideo, entry: Entry) -> dict[str, str]:
    sentence = entry.fields.get("is_sent", listed.fields.get("is_sent"))
    tags = {} if sentence is None else {"form": "sentence" if sentence else "phrase"}
    return tags if "exp_id" not in entry.fields else {**tags, "exp_id": str(entry.fields["exp_id"])}
