"""Checks of Refer-YouTube-VOS, Refer-DAVIS17 and InsTrack: parts listed apart from the folders that hold them.

`meta_expressions/<part>/meta_expressions.json`, `<part>/JPEGImages/<video>/<frame>.jpg`, and masks that are label maps:
datasets.md, sections 3.1, 3.2 and 4.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from data_tools.checks import expressions, pictures
from data_tools.checks.expressions import Videos, keys_of
from data_tools.checks.report import Report, TreeCheck
from trackgpt.data.referring_video import TREES

ANNOTATIONS = 4  # expressions of an object in Refer-DAVIS17
WORDINGS = 6  # of an instruction of InsTrack
_META = '{"videos": {name: {"objects": {"1": {"category": word}}}}}'


def _file(report: Report, part: str) -> Path:
    return report.root / "meta_expressions" / part / "meta_expressions.json"


def _is_there(report: Report, part: str) -> bool:
    if not _file(report, part).is_file():
        folder = report.root / part
        report.unlisted(part, _file(report, part), folder / "JPEGImages", folder / "Annotations")
    return _file(report, part).is_file()


def check_youtube_vos(report: Report) -> None:
    """Masks and `obj_id` in train; valid = valid file minus test file, blind unless its truth is there."""
    if _is_there(report, "train"):
        videos = expressions.read(report, _file(report, "train"), "train", expressions.one_label)
        _check_part(report, "train", videos, pictures.indexed)
        _check_categories(report, "train", videos)
    if not _is_there(report, "valid"):
        return
    truth = (report.root / "valid" / "Annotations").is_dir()
    fault = _either if truth else expressions.blind("valid")
    listed = expressions.read(report, _file(report, "valid"), "valid", fault)
    valid = _without_test(report, listed)
    report.counts.pop("valid", None)
    for video in valid.values():
        report.count("valid", videos=1, expressions=len(video["expressions"]))
    named = truth and all("obj_id" in entry for video in valid.values() for entry in video["expressions"].values())
    _check_part(report, "valid", valid, pictures.indexed if named else None)
    if truth and not named:
        report.note(report.root / "valid" / "Annotations", "not all expressions say whose masks these are (obj_id)")


def _either(entry: expressions.Entry) -> tuple[str, str] | None:
    return expressions.one_label(entry) if "obj_id" in entry else None


def _without_test(report: Report, listed: Videos) -> Videos:
    """The videos of the valid file that are valid's own."""
    valid_file, test_file = _file(report, "valid"), _file(report, "test")
    if not test_file.is_file():
        report.problem(
            test_file,
            "missing",
            "the test expressions: the valid file lists test videos too, only these keys tell",
            "it comes with the valid file, in meta_expressions of the same download",
        )
        return listed
    test = expressions.read(report, test_file, "test", expressions.blind("test"))
    for name in sorted(test.keys() - listed.keys()):
        report.problem(test_file, f"video {name} is not in the valid file", "test videos to be listed in both")
    valid = {name: video for name, video in listed.items() if name not in test}
    report.note(valid_file, f"{len(listed)} videos - {len(listed) - len(valid)} of test = {len(valid)} valid")
    if not valid:
        report.problem(valid_file, "every video is one of test", "valid videos beside those of test")
    if (report.root / "test" / "JPEGImages").is_dir():
        _check_part(report, "test", test, None)
    return valid


def check_davis17(report: Report) -> None:
    """Masks and `obj_id` everywhere, four expressions of every object."""
    for part in ("train", "valid"):
        if not _is_there(report, part):
            continue
        path = _file(report, part)
        videos = expressions.read(report, path, part, expressions.one_label)
        whole = report.root / "DAVIS"
        frames, masks = whole / "JPEGImages" / "480p", whole / "Annotations_unsupervised" / "480p"
        _check_part(report, part, videos, pictures.davis, frames, masks)
        _check_categories(report, part, videos)
        singles = [name for name, video in videos.items() if _check_numbers(report, path, name, video) == 1]
        if singles:
            report.note(path, f"{len(singles)} videos have one expression of each object, not four")


def _check_numbers(report: Report, path: Path, name: str, video: dict[str, Any]) -> int:
    """Whether ids are 4 * (place of the object in the string sort) + k; gives the expressions of each object, or 0.

    A tree with one expression of each object is a known variant: the same rule with 1 instead of 4.
    """
    entries = video["expressions"]
    objects = sorted({entry["obj_id"] for entry in entries.values()})
    each = 1 if len(entries) == len(objects) else ANNOTATIONS
    if not entries:
        return 0
    if len(entries) != each * len(objects):
        found = f"video {name} has {len(entries)} expressions of {len(objects)} objects"
        report.problem(path, found, f"{ANNOTATIONS} of each object")
        return 0
    for place in range(len(entries)):
        wanted = objects[place // each]
        if str(place) not in entries:
            report.problem(path, f"video {name} lacks the expression {place}", f"ids 0 to {len(entries) - 1}")
            return 0
        found = entries[str(place)]["obj_id"]
        if found != wanted:
            report.problem(
                path,
                f"video {name}, expression {place} has obj_id {found!r}",
                f"{wanted!r}: ids are {each} * (place in the string sort of obj_id) + k",
            )
            return 0
    return each


def check_instrack(report: Report) -> None:
    """Masks and lists of objects everywhere, every instruction in six wordings: `eval/kits/INSTRACK.md`."""
    for part in ("train", "test"):
        if not _is_there(report, part):
            continue
        videos = expressions.read(report, _file(report, part), part, expressions.some_labels)
        _check_part(report, part, videos, pictures.indexed)
        for name, video in videos.items():
            _check_wordings(report, _file(report, part), name, video)


def _check_wordings(report: Report, path: Path, name: str, video: dict[str, Any]) -> None:
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in video["expressions"].values():
        groups.setdefault(str(entry.get("group")), []).append(entry)
    for group, entries in groups.items():
        found = Counter(entry.get("wording") for entry in entries)
        if found != Counter(range(WORDINGS)):
            shown = ", ".join(map(str, found.elements()))
            advice = "`data_tools rephrase` writes the others" if list(found.elements()) == [0] else ""
            report.problem(path, f"video {name}, group {group} has the wordings {shown}", "each of 0 to 5 once", advice)
        if len({tuple(keys_of(entry, "obj_id")) for entry in entries}) > 1:
            report.problem(path, f"video {name}, group {group} means several things", "one list of objects a group")


def _check_part(
    report: Report,
    part: str,
    videos: Videos,
    labels: pictures.Labels | None,
    other_frames: Path | None = None,
    other_masks: Path | None = None,
) -> None:
    """Frames and masks of the videos of a part; `labels` reads a mask, None where there is none to be read.

    `other_frames` and `other_masks` are used where the part's own folder is missing.
    """
    if not videos:
        return
    frames = _own_or(report.root / part / "JPEGImages", other_frames)
    masks = _own_or(report.root / part / "Annotations", other_masks)
    shown = pictures.check_folder(report, part, frames, len(videos))
    if not shown:
        report.count(part, videos=-len(videos))
    masked = labels is not None and pictures.check_folder(report, part, masks, len(videos))
    for name, video in videos.items():
        sizes = pictures.check_frames(report, part, frames / name, video["frames"]) if shown else {}
        if labels is not None and masked:
            seen = pictures.check_masks(report, part, masks / name, video["frames"], sizes, labels)
            if seen is not None:
                _check_objects(report, part, masks / name, video, seen)


def _own_or(own: Path, other: Path | None) -> Path:
    return other if other is not None and other.is_dir() and not own.is_dir() else own


def _check_objects(report: Report, part: str, folder: Path, video: dict[str, Any], seen: set[int]) -> None:
    """Whether every object that is talked about is seen in some mask."""
    report.count(part, objects=len(seen))
    if pictures.ANY in seen:
        report.note(folder, "grey masks of DAVIS-2016, one for all objects of the video")
        return
    for key, entry in video["expressions"].items():
        for label in keys_of(entry, "obj_id"):
            if int(label) not in seen:
                shown = ", ".join(map(str, sorted(seen))) or "nothing"
                found = f"no mask shows object {label} of expression {key}"
                report.problem(folder, found, f"it among the objects shown ({shown})")


def _check_categories(report: Report, part: str, videos: Videos) -> None:
    """Whether meta.json, which loaders take categories from, knows every object that is talked about."""
    path = report.root / part / "meta.json"
    if not videos:
        return
    if not path.is_file():
        report.problem(path, "missing", _META)
        return
    document = expressions.load(report, path, _META)
    if document is None:
        return
    try:
        known = document["videos"]
        objects = {name: set(known[name]["objects"]) for name in videos if name in known}
    except (KeyError, TypeError) as error:
        report.problem(path, f"cannot be read ({error!r})", _META)
        return
    for name, video in videos.items():
        lacking = {entry["obj_id"] for entry in video["expressions"].values()} - objects.get(name, set())
        if lacking:
            report.problem(path, f"video {name} lacks object {min(lacking)}", "every object that is talked about")


CHECKS = (
    TreeCheck(TREES["refer-youtube-vos"], check_youtube_vos),
    TreeCheck(TREES["refer-davis17"], check_davis17),
    TreeCheck(TREES["instrack"], check_instrack),
)
