"""Checks of MeViS, ReVOS and LV-VIS, whose masks are run lengths in mask_dict.json: datasets.md, section 3.3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_tools.checks import expressions, pictures
from data_tools.checks.expressions import Entry, Videos, keys_of
from data_tools.checks.report import Report, TreeCheck
from trackgpt.data.referring_video import TREES
from trackgpt.errors import InputError
from trackgpt.geometry.masks import area_of_rle, is_size

_RUNS = "{annotation id: [run lengths or null, one per frame]}"


def check_mevis(report: Report) -> None:
    """train and valid_u with mask_dict.json, valid and test without truth."""
    for part in TREES["mevis"].parts:
        folder = report.root / part
        path = _first(folder / "meta_expressions.json", folder / "meta_expressions_release.json")
        if not path.is_file():
            report.unlisted(part, path, folder / "JPEGImages")
        elif part in ("valid", "test"):
            videos = expressions.read(report, path, part, expressions.blind(part))
            _check_frames(report, part, folder / "JPEGImages", videos)
        else:
            videos = expressions.read(report, path, part, expressions.annotations)
            sizes = _check_frames(report, part, folder / "JPEGImages", videos)
            _check_runs(report, part, folder / "mask_dict.json", videos, sizes)


def check_lv_vis(report: Report) -> None:
    """train alone, its two JSON files in it (VISA) or above it (GLUS, UniPixel)."""
    folder = report.root / "train"
    path = _first(folder / "meta_expressions.json", report.root / "meta_expressions.json")
    videos = expressions.read(report, path, "train", expressions.annotations)
    sizes = _check_frames(report, "train", folder / "JPEGImages", videos)
    runs = _first(folder / "mask_dict.json", report.root / "mask_dict.json")
    _check_runs(report, "train", runs, videos, sizes)


def check_revos(report: Report) -> None:
    """Parts share JPEGImages and the mask dicts; file names end in an underscore; every expression has a type."""
    for part in ("train", "valid"):
        path = report.root / f"meta_expressions_{part}_.json"
        plain = report.root / f"meta_expressions_{part}.json"
        if not path.is_file() and plain.is_file():
            report.note(plain, f"published as {path.name}; other programs look for that name")
            path = plain
        if not path.is_file():
            report.unlisted(part, path)
            continue
        videos = expressions.read(report, path, part, _typed)
        bare = bool(videos) and (report.root / next(iter(videos))).is_dir()
        sizes = _check_frames(report, part, report.root if bare else report.root / "JPEGImages", videos)
        _check_runs(report, part, report.root / "mask_dict.json", videos, sizes)
        _check_foreground(report, part, videos, sizes)


def _typed(entry: Entry) -> tuple[str, str] | None:
    if entry.get("type_id") not in (0, 1, 2):
        return f"has type_id {entry.get('type_id')!r}", "0 referring, 1 reasoning or 2 absent"
    return expressions.annotations(entry)


def _first(*paths: Path) -> Path:
    return next((path for path in paths if path.is_file()), paths[0])


def _check_frames(report: Report, part: str, folder: Path, videos: Videos) -> dict[str, pictures.Size]:
    """The size (width, height) of each video whose frames are there."""
    if not videos:
        return {}
    if not pictures.check_folder(report, part, folder, len(videos)):
        report.count(part, videos=-len(videos))
        return {}
    found = {
        name: pictures.check_frames(report, part, folder / name, video["frames"]) for name, video in videos.items()
    }
    return {name: next(iter(sizes.values())) for name, sizes in found.items() if sizes}


def _check_runs(report: Report, part: str, path: Path, videos: Videos, sizes: dict[str, pictures.Size]) -> None:
    """Whether every annotation that an expression names has sound run lengths, one per frame."""
    if not videos:
        return
    if not path.is_file():
        pickle = path.with_suffix(".pkl")
        if pickle.is_file():
            report.problem(
                path, f"missing ({pickle.name} is there)", _RUNS, "no pickle is opened here; download the JSON"
            )
        else:
            report.misplaced(path, _RUNS)
        report.count_missing(part, objects=len({key for video in videos.values() for key in _annotations(video)}))
        return
    runs = expressions.load(report, path, _RUNS)
    if not isinstance(runs, dict):
        if runs is not None:
            report.problem(path, f"a {type(runs).__name__}", _RUNS)
        return
    for name, video in videos.items():
        for key in _annotations(video):
            fault = _fault(runs.get(key), len(video["frames"]), sizes.get(name))
            if key not in runs:
                report.problem(path, f"no annotation {key}, of video {name}", "every annotation that is named")
                report.count_missing(part, objects=1)
            elif fault is not None:
                report.problem(path, f"annotation {key}, of video {name}, {fault[0]}", fault[1])
                report.count_wrong(part, objects=1)
            else:
                report.count(part, objects=1, masks=sum(one is not None for one in runs[key]))


def _annotations(video: dict[str, Any]) -> list[str]:
    entries = video["expressions"].values()
    return list(dict.fromkeys(key for entry in entries for key in keys_of(entry, "anno_id")))


def _fault(runs: Any, frames: int, size: pictures.Size | None) -> tuple[str, str] | None:
    """What is wrong with the run lengths of an annotation, and what was wanted."""
    if not isinstance(runs, list) or len(runs) != frames:
        return f"has {len(runs) if isinstance(runs, list) else 'no'} masks", f"{frames}, one per frame"
    for frame, one in enumerate(runs):
        if one is None:
            continue
        try:
            if not is_size(*one["size"]):
                return f"frame {frame}: a mask of size {one['size']!r:.60}", "[height, width]"
            height, width = one["size"]
            area_of_rle(str(one["counts"]), height, width)
        except (InputError, KeyError, TypeError, ValueError) as error:
            return f"frame {frame}: {error}", '{"size": [height, width], "counts": text}'
        if size is not None and (width, height) != size:
            return f"frame {frame}: {width} x {height}", f"{size[0]} x {size[1]}, the size of the frames"
    return None


def _check_foreground(report: Report, part: str, videos: Videos, sizes: dict[str, pictures.Size]) -> None:
    """Whether ReVOS' foreground masks, which its robustness score alone needs, cover every video."""
    path = report.root / "mask_dict_foreground.json"
    if not videos:
        return
    if not path.is_file():
        report.note(path, "not there; the robustness score R cannot be computed")
        return
    document = expressions.load(report, path)
    known = document if isinstance(document, dict) else {}
    for name, video in videos.items():
        entry = known.get(name)
        fault = _fault(
            entry.get("masks_rle") if isinstance(entry, dict) else None, len(video["frames"]), sizes.get(name)
        )
        if fault is not None:
            report.problem(path, f"video {name} {fault[0]}", fault[1])


CHECKS = (
    TreeCheck(TREES["mevis"], check_mevis),
    TreeCheck(TREES["revos"], check_revos),
    TreeCheck(TREES["lv-vis"], check_lv_vis),
)
