"""What `trackgpt track` is pointed at: --box, --mask, --point and --drop, read as prompts in the order of their frames.

Each value may begin with "@FRAME:" or "@SECONDSs:", the moment it is about, and then "ID:", the target it is about.
Lengths are pixels of the frame as it is displayed, from its left upper corner.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trackgpt.data.videos import opened_image
from trackgpt.errors import InputError, UsageError
from trackgpt.export.davis import LARGEST
from trackgpt.types import Prompt, PromptKind, VisualPrompt

PLACED = re.compile(r"(?:@(?:(\d{1,15})|(\d{1,15}(?:\.\d+)?)s):)?(?:(\d{1,9}):)?(.*)", re.DOTALL)
BOX = "[@FRAME:][ID:]x,y,w,h"
MASK = "[@FRAME:][ID:]FILE.png"
POINT = "[@FRAME:][ID:]x,y or x,y,-"
DROP = "@FRAME:ID"
MOST_LABELS = 100
"""Targets in one label map; a picture of more values is none."""
VOID = 255


@dataclass(frozen=True)
class Pointing:
    """The options as they were typed."""

    box: tuple[str, ...] = ()
    mask: tuple[str, ...] = ()
    point: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.box or self.mask or self.point or self.drop)


@dataclass(frozen=True)
class Placed:
    """One thing that is shown, or a target that is dropped.

    Attributes:
        given: the option with its value, for messages.
        frame: index of the source frame.
        second: time of the source in its place, or None.
        id: of the target; None where it was left out.
        shown: what is shown of it; None where it is dropped.
    """

    given: str
    frame: int
    second: float | None
    id: int | None
    shown: VisualPrompt | None = None

    @property
    def moment(self) -> tuple[float, int]:
        """What orders moments: what is given a second comes after the first frame."""
        return -1.0 if self.second is None else self.second, self.frame


def read_pointing(pointing: Pointing, first: int) -> list[tuple[Prompt, float | None]]:
    """The prompts, at most one to drop and one to show per moment, in order.

    A box or mask without an id is a new target with the next number, from 1, that no target has had and none has on its
    frame; a label map's targets have their labels as ids. A point without an id belongs to the only target of its
    frame, or the only one so far. What is shown of one target on one frame belongs together.

    Args:
        pointing: the options.
        first: the frame that options without a moment are about.

    Returns:
        Each prompt with the second of the source that it is about, or None where its frame says it.

    Raises:
        UsageError: a value is malformed, belongs to no target, or is said twice; a target is dropped that is not there;
            some moments are frames and others seconds, whose order only the source knows.
        InputError: a mask cannot be read, or is none.
    """
    placed = list(_placed(pointing, first))
    _refuse_two_clocks(placed, first)
    prompts: list[tuple[Prompt, float | None]] = []
    followed: set[int] = set()
    known: set[int] = set()
    for moment in sorted({item.moment for item in placed}):
        here = [item for item in placed if item.moment == moment]
        frame, second = here[0].frame, here[0].second
        dropped = [item for item in here if item.shown is None]
        if dropped:
            ended = _dropped(dropped, followed)
            prompts.append((Prompt("", frame, "drop", ended), second))
            followed -= set(ended)
        shown = _joined([item for item in here if item.shown is not None], followed, known)
        if shown:
            later: PromptKind = "correct" if shown.keys() <= followed else "add"
            kind = later if prompts else "start"
            prompts.append((Prompt("", frame, kind, tuple(shown), tuple(shown.values())), second))
            followed |= shown.keys()
            known |= shown.keys()
    return prompts


def read_shown(option: str, text: str, followed: Collection[int]) -> Prompt:
    """What is shown of one target on the frame at hand, or the target that is dropped there.

    Args:
        option: box, mask or point.
        text: its value, without a moment in front.
        followed: the targets that are followed: they are corrected, others are added to them.

    Raises:
        UsageError: the value is malformed, or belongs to no target.
        InputError: a mask cannot be read, or is none.
    """
    name = f"--{option}"
    if text.startswith("@"):
        raise UsageError(f"{option} {text:.40}: has a moment; it is about the frame at hand")
    placed = list(_placed(replace(Pointing(), **{option: (text,)}), 0))
    if option == "point" and placed[0].id is None:
        if len(followed) > 1:
            raise UsageError(f"{name} {text:.40}: of which of {', '.join(map(str, sorted(followed)))}? Write ID:x,y")
        placed = [replace(placed[0], id=next(iter(followed), None))]
    named = {item.id for item in placed if item.id is not None}
    kind: PromptKind = "correct" if named and named <= set(followed) else "add" if followed else "start"
    shown = tuple(item.shown for item in placed if item.shown is not None)
    return Prompt("", 0, kind, tuple(item.id for item in placed if item.id is not None), shown)


def files_in(pointing: Pointing) -> list[Path]:
    """The files of masks."""
    return [Path(_place("--mask", text, 0, MASK)[1]).expanduser() for text in pointing.mask]


def _refuse_two_clocks(placed: Sequence[Placed], first: int) -> None:
    by_second = next((item for item in placed if item.second is not None), None)
    by_frame = next((item for item in placed if item.second is None and item.frame != first), None)
    if by_second and by_frame:
        both = f"{by_frame.given} beside {by_second.given}"
        raise UsageError(f"{both}: frames and seconds in one command; wanted one of the two after the first frame")


def _placed(pointing: Pointing, first: int) -> Iterator[Placed]:
    for text in pointing.box:
        item, rest = _place("--box", text, first, BOX)
        yield replace(item, shown=VisualPrompt(_box(item.given, rest)))
    for text in pointing.mask:
        item, rest = _place("--mask", text, first, MASK)
        for number, mask in masks_in(Path(rest).expanduser(), item.id):
            yield replace(item, id=number, shown=VisualPrompt(mask=mask))
    for text in pointing.point:
        item, rest = _place("--point", text, first, POINT)
        yield replace(item, shown=VisualPrompt(points=(_point(item.given, rest),)))
    for text in pointing.drop:
        item, rest = _place("--drop", f"{text}:", first, DROP)
        if item.id is None or rest or not text.startswith("@"):
            raise UsageError(f"{item.given}: wanted {DROP}, the target that ends and the frame, such as @300:2")
        yield item


def _place(option: str, text: str, first: int, wanted: str) -> tuple[Placed, str]:
    """Moment and id of a value, and the rest of it."""
    given = f"{option} {' '.join(text.removesuffix(':').split()):.60}"
    found = PLACED.fullmatch(text)
    assert found is not None
    frame, second, number, rest = found.groups()
    if rest.startswith("@") and ":" in rest:
        raise UsageError(f"{given}: no moment; wanted @FRAME: or @SECONDSs: in front, such as @240: or @8.5s:")
    if not rest and wanted != DROP:
        raise UsageError(f"{given}: wanted {wanted}")
    if number is not None and not 1 <= int(number) <= LARGEST:
        raise UsageError(f"{given}: target {number}; wanted an id from 1 to {LARGEST}, which indexed masks hold")
    moment = first if frame is None else int(frame), None if second is None else float(second)
    return Placed(given, *moment, None if number is None else int(number)), rest


def _box(given: str, text: str) -> tuple[float, float, float, float]:
    x, y, width, height = _numbers(text.split(","), 4)
    if not (math.isfinite(x + y + width + height) and width > 0 and height > 0):
        raise UsageError(f"{given}: wanted {BOX} in pixels, with w and h above 0")
    return x, y, x + width, y + height


def _point(given: str, text: str) -> tuple[float, float, int]:
    *place, last = text.split(",")
    positive = last != "-"
    x, y = _numbers([*place, last] if positive else place, 2)
    if not math.isfinite(x + y):
        raise UsageError(f"{given}: wanted {POINT} in pixels; - means that the target is not there")
    return x, y, int(positive)


def _numbers(texts: Sequence[str], count: int) -> tuple[float, ...]:
    """So many numbers, NaN where they are none."""
    try:
        numbers = tuple(map(float, texts))
    except ValueError:
        numbers = ()
    return numbers if len(numbers) == count else (math.nan,) * count


def _dropped(items: Sequence[Placed], followed: set[int]) -> tuple[int, ...]:
    for item in items:
        if item.id not in followed:
            there = ", ".join(map(str, sorted(followed))) or "none"
            raise UsageError(f"{item.given}: target {item.id} is not followed then; followed are {there}")
    return tuple(sorted({item.id for item in items if item.id is not None}))


def _joined(items: Sequence[Placed], followed: set[int], known: set[int]) -> dict[int, VisualPrompt]:
    """What is shown on one frame, by target; `known` are all that there were before, `followed` those still there."""
    whole = [item for item in items if item.shown is not None and not item.shown.points]
    points = [item for item in items if item.shown is not None and item.shown.points]
    taken = known | {item.id for item in whole}
    free = (number for number in itertools.count(1) if number not in taken)
    shown: dict[int, VisualPrompt] = {}
    for item in whole:
        _join(shown, next(free) if item.id is None else item.id, item)
    for item in points:
        if item.id is not None:
            _join(shown, item.id, item)
    unnamed = [item for item in points if item.id is None]
    for item in unnamed:
        choice = sorted(shown) or sorted(followed)
        if not choice and known and item.shown is not None and not item.shown.finds:
            ended = ", ".join(map(str, sorted(known)))
            raise UsageError(f"{item.given}: nothing is followed then; to resume {ended}, write ID:x,y,-")
        if len(choice) > 1:
            raise UsageError(f"{item.given}: of which of the targets {', '.join(map(str, choice))}? Write ID:x,y")
        _join(shown, choice[0] if choice else next(free), item)
    for number, each in shown.items():
        if number not in known and not each.finds:
            given = next(item.given for item in points if item.id in (number, None))
            raise UsageError(f"{given}: target {number} is new; show where it is, too, not only where it is not")
    return shown


def _join(shown: dict[int, VisualPrompt], number: int, item: Placed) -> None:
    """Add what is shown to what is known of a target on this frame."""
    before, more = shown.get(number, VisualPrompt()), item.shown or VisualPrompt()
    for name in ("box", "mask"):
        if getattr(before, name) is not None and getattr(more, name) is not None:
            when = f"on frame {item.frame}" if item.second is None else f"at second {item.second:g}"
            raise UsageError(f"{item.given}: a second {name} of target {number} {when}; wanted one")
    box = before.box if more.box is None else more.box
    mask = before.mask if more.mask is None else more.mask
    shown[number] = VisualPrompt(box, (*before.points, *more.points), mask)


def masks_in(path: Path, number: int | None = None) -> list[tuple[int | None, np.ndarray]]:
    """The targets of a mask file: bool (height, width) each, with their ids.

    Args:
        path: an image. An indexed or grey one with several values besides 0 is a label map: a target for each, the
            value its id; 255 beside others is void, as in DAVIS. An image of 0 and one other value is the mask of one
            target, whose id is that value where the image is indexed, and otherwise left open.
        number: the id of the only target.

    Raises:
        InputError: it cannot be read, is a colour image, shows nothing, or several targets where there is to be one.
    """
    values, indexed = _values(path)
    labels = [int(value) for value in np.unique(values) if value]
    if len(labels) > 1 and VOID in labels:
        labels.remove(VOID)
    if not labels:
        raise InputError(f"{path}: every pixel is 0; wanted another value where the target is")
    if len(labels) > MOST_LABELS or (len(labels) > 1 and labels[-1] > LARGEST):
        found = f"{len(labels)} values, up to {labels[-1]}"
        most = f"{MOST_LABELS} of them at most, up to {LARGEST}"
        raise InputError(f"{path}: holds {found}; wanted 0 and 255, or 0 and an id per target, {most}")
    if len(labels) == 1:
        own = labels[0] if indexed and labels[0] != VOID else None
        return [(own if number is None else number, values == labels[0])]
    if number is not None:
        shown = ", ".join(map(str, labels[:5])) + (", ..." if len(labels) > 5 else "")
        raise InputError(f"{path}: holds the targets {shown}, not {number} alone; leave the id out to follow all")
    return [(label, values == label) for label in labels]


def _values(path: Path) -> tuple[np.ndarray, bool]:
    """The values of an image, (height, width), and whether they are those of a palette."""
    with opened_image(path, "mask") as image:
        indexed, values = image.mode == "P", np.asarray(image)
    if values.ndim == 3:
        colours = values[:, :, : 3 if values.shape[2] > 2 else 1]  # without what is transparent
        if (colours != colours[:, :, :1]).any():
            raise InputError(f"{path}: a colour image; wanted a grey or indexed PNG, 0 where no target is")
        values = colours[:, :, 0]
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.integer) or values.min(initial=0) < 0:
        raise InputError(f"{path}: values of type {values.dtype}; wanted a grey or indexed PNG of whole numbers")
    return values, indexed


def refuse_missing_frames(shown: Sequence[int], reading: dict[str, object], frames: int | None) -> None:
    """Refuse what is shown on frames that are not read.

    Args:
        shown: the frames on which something is shown.
        reading: "start", "end" and "stride" of the source, where given.
        frames: how many are read, where that is certain.

    Raises:
        UsageError: a frame lies before the first or after the last one, or is left out by the stride.
    """
    start, end, stride = (int(str(reading.get(name) or 0)) for name in ("start", "end", "stride"))
    stride = max(stride, 1)
    last = start + (frames - 1) * stride if frames else end - 1 if end else None
    for frame in shown:
        if frame < start or (last is not None and frame > last):
            reach = f"{start} to {last}" if last is not None else f"{start} on"
            raise UsageError(f"@{frame}: no such frame; the frames that are read are {reach}")
        if (frame - start) % stride:
            near = frame - (frame - start) % stride
            raise UsageError(f"@{frame}: left out by --stride {stride}; wanted a frame such as {near}")
