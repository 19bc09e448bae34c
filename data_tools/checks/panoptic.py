"""Check of VIPSeg, whose tree `data_tools.vipseg` describes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_tools import vipseg
from data_tools.checks.pictures import size_of_jpeg
from data_tools.checks.report import Report, TreeCheck
from trackgpt.errors import InputError


def check_vipseg(report: Report) -> None:
    """Frames and masks of the listed videos; categories; masks of test are not public and may be missing."""
    try:
        categories = vipseg.read_categories(report.root)
        pictures = vipseg.pictures_of(report.root)
    except InputError as error:
        report.refused(error, report.root)
        return
    if not categories:
        path = report.root / "panoVIPSeg_categories.json"
        report.problem(path, "missing", "the names of categories", "it is in the repository VIPSeg-Dataset")
    for part, names in _listed(report, pictures).items():
        for name in names:
            if part == "test" and not (report.root / "panomasks" / name).is_dir():
                report.count(part, videos=int((pictures / name).is_dir()))
                continue
            _check_video(report, part, name, set(categories))


def _listed(report: Report, pictures: Path) -> dict[str, list[str]]:
    """Videos by part, as the lists have them; without lists all that have frames, as train."""
    files = {part: report.root / f"{part}.txt" for part in vipseg.TREE.parts}
    there = {part: file for part, file in files.items() if file.is_file()}
    if not there:
        report.note(report.root, "no train.txt, val.txt or test.txt; all videos are counted as train")
        return {"train": sorted(path.name for path in pictures.iterdir() if path.is_dir())}
    return {part: file.read_text("utf-8").split() for part, file in there.items()}


def _check_video(report: Report, part: str, name: str, numbers: set[int]) -> None:
    try:
        video = vipseg.open_video(report.root, name)
    except InputError as error:
        report.refused(error, report.root)
        report.count_missing(part, videos=1)
        return
    report.count(part, videos=1)
    pairs = list(zip(video.images, video.labels, strict=True))
    for image, mask in report.some(pairs) if report.opened else pairs:
        _check_frame(report, part, image, mask, numbers)
        report.tick()


def _check_frame(report: Report, part: str, image: Path, mask: Path, numbers: set[int]) -> None:
    size = size_of_jpeg(report, image)
    try:
        values = vipseg.read_panoptic(mask)
    except InputError as error:
        report.refused(error, mask)
        report.count_wrong(part, masks=1)
        return
    found = {vipseg.number_of(int(value)) for value in np.unique(values)} - {0}
    if size is not None and values.shape != size[::-1]:
        shape = f"{values.shape[1]} x {values.shape[0]}"
        report.problem(mask, shape, f"{size[0]} x {size[1]}, the size of its frame")
    elif numbers and found - numbers:
        wanted = f"1 to {max(numbers)}, or 100 times one of them plus an instance"
        report.problem(mask, f"a value of the category {min(found - numbers)}", wanted)
    report.count(part, frames=int(size is not None), masks=1)


CHECKS = (TreeCheck(vipseg.TREE, check_vipseg),)
