"""Check of ReasonVOS: datasets.md, section 3.3, and showlab/VideoLISA@6625d43:benchmark_check.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_tools.checks import expressions, pictures
from data_tools.checks.expressions import Entry, keys_of
from data_tools.checks.report import Report, TreeCheck
from trackgpt.data.referring_video import TREES

PART = "valid"


def check_reason_vos(report: Report) -> None:
    """One part; a folder of binary masks for each object, or one of label maps for each video."""
    videos = expressions.read(report, report.root / "meta_expressions.json", PART, _fault)
    frames, masks = report.root / "JPEGImages", report.root / "Annotations"
    if not videos:
        return
    shown = pictures.check_folder(report, PART, frames, len(videos))
    if not shown:
        report.count(PART, videos=-len(videos))
    masked = pictures.check_folder(report, PART, masks, len(videos))
    for name, video in videos.items():
        sizes = pictures.check_frames(report, PART, frames / name, video["frames"]) if shown else {}
        if masked:
            _check_masks(report, masks, name, video, sizes)


def _fault(entry: Entry) -> tuple[str, str] | None:
    return expressions.some_labels({"obj_id": keys_of(entry, "obj_id")}) if "obj_id" in entry else None


def _check_masks(
    report: Report, masks: Path, name: str, video: dict[str, Any], sizes: dict[str, pictures.Size]
) -> None:
    keys = sorted({key for entry in video["expressions"].values() for key in keys_of(entry, "obj_id")})
    if (masks / name).is_dir():
        pictures.check_masks(report, PART, masks / name, video["frames"], sizes, pictures.binary)
        return
    if not keys:
        report.problem(masks / name, "missing", "a folder of masks, for the expressions name no object")
        return
    source = str(video.get("source", ""))
    for key in keys:
        folders = [masks / f"{word}_{name}_{key}" for word in (source, source.lower())]
        folder = next((one for one in folders if one.is_dir()), folders[0])
        seen = pictures.check_masks(report, PART, folder, video["frames"], sizes, pictures.binary)
        if seen is not None:
            report.count(PART, objects=1)
            if not seen:
                report.problem(folder, f"no mask shows object {key}", "it in some frame")


CHECKS = (TreeCheck(TREES["reason-vos"], check_reason_vos),)
