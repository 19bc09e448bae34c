"""The DAVIS-text kit: one referring expression per object of DAVIS-2017's validation videos, J&F over all frames.

The expressions are those of M. Bellver et al., "RefVOS: A Closer Look at Referring Expressions for Video Object
Segmentation", arXiv:2010.00263 (DAVIS17_RE_categorization.csv, one annotator), not the four annotators of
Refer-DAVIS17, so the numbers are not those of that benchmark.

Masks are DAVIS-2017's (an id per pixel) or, where only those exist, DAVIS-2016's (0 and 255). A DAVIS-2016 mask is the
union of all objects, so it can score an expression only in a sequence with one object.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from eval.kits.davis import holds_one_mask
from eval.kits.expressions import ExpressionKit
from trackgpt.data.trees import entries
from trackgpt.data.videos import Expression, LabelMasks, MaskTruth, Video
from trackgpt.errors import InputError, UsageError
from trackgpt.geometry.jf import Scores

RESOLUTIONS = ("480p", "240p")
"""In the order of preference; 480p is what the benchmark uses, 240p what the sample has more of."""
_COLUMNS = ("video_id", "instance_id", "ref_exp", "ref_exp_difficulty")
_LAYOUT = "JPEGImages/480p/SEQUENCE/00000.jpg and Annotations/480p/SEQUENCE/00000.png"


class DavisText(ExpressionKit):
    """One expression per object on real DAVIS sequences (not Refer-DAVIS17)."""

    name = "davis-text"
    convention = (
        "Protocol davis-text: MeViS-style. An object's expression is one instruction about the first frame, its "
        "prediction one binary mask per frame, and every frame is scored, the first and the last included; nothing is "
        "matched after the fact. Void pixels are background. Means over expressions."
    )

    def __init__(self, root: Path, expressions: Path, resolution: str = "auto") -> None:
        super().__init__(root, resolution)
        if resolution not in ("auto", *RESOLUTIONS):
            raise UsageError(f"--resolution {resolution}: choose auto, {' or '.join(RESOLUTIONS)}")
        self.csv = expressions

    @cached_property
    def found(self) -> tuple[list[Video], list[str]]:
        """The sequences that are on disk and can be scored, and why others on disk were left out."""
        return find_sequences(self.root, read_expressions(self.csv), self.split)

    def items(self) -> Iterable[Video]:
        """The sequences that are on disk and can be scored, by name."""
        return self.found[0]

    @property
    def left_out(self) -> Sequence[str]:
        """See `eval.kit.LeavesOut`."""
        return self.found[1]

    def measure(
        self, masks: MaskTruth, expression: Expression, files: Sequence[Path]
    ) -> tuple[Scores, dict[str, float]]:
        """See `ExpressionKit.measure`.

        Raises:
            InputError: no mask shows the object, so that its number is wrong: an empty answer would score 1.
        """
        if not any(masks.mask(expression.objects, t).any() for t in range(len(files))):
            raise InputError(
                f"{self.csv}: object {', '.join(expression.objects)}, {expression.text!r}, is in none of the masks of "
                f"{files[0].parent.parent.name}; correct its instance_id"
            )
        return super().measure(masks, expression, files)


def read_expressions(path: Path) -> dict[str, tuple[Expression, ...]]:
    """The expressions of every sequence, by object id.

    Args:
        path: refvos's csv: `video_id;instance_id;ref_exp;ref_exp_difficulty;...`, UTF-8.

    Raises:
        InputError: the file is missing, has no such columns, or a line has no text or no number for its object.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter=";")
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{path}: no column {', '.join(missing)}; wanted {';'.join(_COLUMNS)};...")
            said = [_expression(path, number, line) for number, line in enumerate(reader, 2)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error}); wanted refvos's csv of expressions") from error
    by_sequence: dict[str, list[Expression]] = {}
    for name, expression in sorted(said, key=lambda pair: (pair[0], int(pair[1].id))):
        by_sequence.setdefault(name, []).append(expression)
    return {name: tuple(group) for name, group in by_sequence.items()}


def _expression(path: Path, number: int, line: dict[str, str]) -> tuple[str, Expression]:
    name, key, text, difficulty = ((line[column] or "").strip() for column in _COLUMNS)
    if not name or not text or not key.isdecimal() or int(key) < 1:
        raise InputError(
            f"{path}: line {number} reads {name!r}, {key!r}, {text!r}; wanted a video, an id from 1, a text"
        )
    return name, Expression(key, text, (key,), {"difficulty": difficulty})


def find_sequences(
    root: Path, said: dict[str, tuple[Expression, ...]], resolution: str = "auto"
) -> tuple[list[Video], list[str]]:
    """The sequences that are on disk and can be scored, by name, and why others on disk were left out.

    Args:
        root: a folder in DAVIS's layout; sequences may be missing.
        said: of `read_expressions`.
        resolution: "480p", "240p", or "auto": for every sequence the better one it has.

    Raises:
        InputError: the root is missing, or holds no sequence that can be scored.
    """
    wanted = RESOLUTIONS if resolution == "auto" else (resolution,)
    places = {
        folder.name: (size, folder)
        for size in reversed(wanted)
        for folder in entries(root / "JPEGImages" / size)
        if folder.is_dir()
    }
    if not places:
        raise InputError(f"{root}: no sequences of {' or '.join(wanted)}; --data is a folder with {_LAYOUT}")
    found, left_out = [], []
    for name, (size, folder) in sorted(places.items()):
        masks = root / "Annotations" / size / name
        union = _is_union(masks)
        if name not in said:
            left_out.append(f"{name}: no expression")
        elif union and len(said[name]) > 1:
            left_out.append(f"{name}: its DAVIS-2016 masks are the union of {len(said[name])} objects")
        else:
            found.append(_video(name, folder, masks, union, said[name]))
    if not found:
        raise InputError(f"{root}: none of its {len(places)} sequences can be scored ({'; '.join(left_out[:3])})")
    return found, left_out


def _video(name: str, frames: Path, masks: Path, union: bool, said: tuple[Expression, ...]) -> Video:
    images = tuple(entries(frames, "*.jpg"))
    files = tuple(masks / f"{image.stem}.png" for image in images)
    lacking = [file for file in files if not file.exists()]
    if not images or lacking:
        raise InputError(f"{lacking[0] if lacking else frames}: missing; wanted a mask for every frame of {frames}")
    return Video(name, images, said, LabelMasks(files, union))


def _is_union(folder: Path) -> bool:
    """Whether masks are DAVIS-2016's: grey images of 0 and 255, where DAVIS-2017's have a palette and ids."""
    masks = entries(folder, "*.png")
    if not masks:
        raise InputError(f"{folder}: no masks; wanted 00000.png, 00001.png, ... beside the frames")
    return holds_one_mask(masks[0])
