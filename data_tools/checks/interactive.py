"""Checks of InteractTrack: ``<sequence>/{imgs,groundtruth.txt,description.txt,switch.txt,scene.txt}``, datasets.md, 7.

A file of one line per frame that is shorter or longer shifts what is said against what is seen, and shows in no figure.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from data_tools.checks.report import Report, TreeCheck
from trackgpt.data.box_video import TREES, BoxSequence, InteractiveBoxSequence, interacttrack
from trackgpt.data.trees import entries
from trackgpt.errors import InputError

_LOSSES = {
    "imgs": "only result files can be scored",
    "switch.txt": "it ships separately; none of their switches is scored",
    "scene.txt": "they belong to no scenario",
}


def check_interacttrack(report: Report) -> None:
    """Every sequence: as many lines as frames, boxes within them, prompts on frames, switches on prompts."""
    for path in entries(report.root, "*/description.txt"):
        if not (path.parent / "groundtruth.txt").is_file():
            report.misplaced(path.parent / "groundtruth.txt", "x,y,w,h of the target, one line per frame")
    try:
        sequences = interacttrack(report.root, "test").sequences
    except InputError as error:
        report.refused(error, report.root)
        return
    for name, loss in _LOSSES.items():
        lack = [sequence for sequence in sequences if not (report.root / sequence.name / name).exists()]
        if lack:
            report.note(report.root, f"{len(lack)} of {len(sequences)} sequences lack {name} ({loss})")
    for sequence in sequences:
        before = len(report.problems)
        try:
            _check_sequence(report, sequence)
        except InputError as error:
            report.refused(error, sequence.boxes)
        if len(report.problems) > before:
            report.count_wrong("test", videos=1)


def _check_sequence(report: Report, sequence: BoxSequence) -> None:
    assert isinstance(sequence, InteractiveBoxSequence)
    images, boxes = sequence.frames(), sequence.written_boxes()
    prompts = sequence.prompts()
    report.count("test", videos=1, expressions=len(prompts), frames=len(images))
    if images and len(images) != len(boxes):
        report.problem(sequence.boxes, f"{len(boxes)} lines for {len(images)} frames", "a line for each frame")
    frames = len(images) or len(boxes)
    if prompts[-1].frame >= frames:
        report.problem(sequence.description, f"something is said on frame {prompts[-1].frame} of {frames}", "a frame")
    _check_switches(report, sequence, frames)
    if images:
        _check_places(report, sequence.boxes, boxes, images[0])
    sequence.attributes()
    script = sequence.script()
    if script is not None and len(script.followed) != frames:
        report.problem(sequence.boxes, f"a script of {len(script.followed)} for {frames} frames", "one of all frames")


def _check_switches(report: Report, sequence: InteractiveBoxSequence, frames: int) -> None:
    if sequence.switches is None:
        return
    at = np.flatnonzero(sequence.old_targets().any(axis=1))
    silent = [int(t) for t in at if t not in {prompt.frame for prompt in sequence.prompts()}]
    if silent:
        found = f"a switch on frame {silent[0]}, where nothing is said"
        report.problem(sequence.switches, found, "switches on prompts")
    if len(at) and at[-1] >= frames:
        report.problem(sequence.switches, f"a switch on frame {at[-1]} of {frames}", "a frame")


def _check_places(report: Report, path: Path, boxes: np.ndarray, image: Path) -> None:
    try:
        with Image.open(image) as picture:
            width, height = picture.size
    except OSError as error:
        report.problem(image, f"cannot be opened ({error})", "a picture")
        return
    out = (boxes[:, 0] >= width) | (boxes[:, 1] >= height) | ((boxes[:, :2] + boxes[:, 2:]) <= 0).any(axis=1)
    odd = np.flatnonzero(out & boxes.any(axis=1))
    if odd.size:
        found = f"line {odd[0] + 1}: a box outside of the frame, {width} x {height}"
        report.problem(path, found, "x,y,w,h in pixels", "are they boxes of frames of another size?")


CHECKS = (TreeCheck(TREES["interacttrack"], check_interacttrack),)
