"""Samples of any data set on disk for contact sheets: rows of videos, pictures of image sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data_tools import vipseg
from data_tools.contact_sheet import SheetLine, SheetRow, spread
from data_tools.image_sets import READERS as IMAGE_READERS
from data_tools.image_sets import part_of
from data_tools.layouts import Split
from data_tools.picture_sheet import Picture
from data_tools.writers import MANIFEST
from trackgpt.data.conversations import llava_instruct
from trackgpt.data.image_trees import TREES as IMAGE_TREES
from trackgpt.data.images import ImageSample
from trackgpt.data.referring_video import READERS, TREES
from trackgpt.data.trees import Tree, look_for_tree, read_object
from trackgpt.data.videos import Video, read_image
from trackgpt.errors import InputError, UsageError

LINES = 6  # shown of a video
PICTURE_SETS = tuple(IMAGE_TREES)
VIDEO_TREES: dict[str, Tree] = {**TREES, "vipseg": vipseg.TREE}
SETS = (*VIDEO_TREES, *PICTURE_SETS)


def picture_sets(root: Path) -> list[str]:
    """The image sets that are below a root."""
    return [name for name, tree in IMAGE_TREES.items() if look_for_tree(tree, root) is not None]


def video_sets(root: Path) -> list[str]:
    """The video sets that are below a root.

    Sets whose trees look alike are told apart by the names of folders, or by what `make` wrote next to them.

    Raises:
        UsageError: a folder could be several sets.
    """
    found: dict[Path, list[str]] = {}
    for name, tree in VIDEO_TREES.items():
        top = look_for_tree(tree, root)
        if top is not None:
            found.setdefault(top, []).append(name)
    return [_the_one(top, names) for top, names in found.items() if top != root or len(found) == 1]


def _the_one(top: Path, names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    if (top / MANIFEST).is_file():
        made = read_object(top / MANIFEST).get("layout")
        if made in names:
            return str(made)
    called = [name for name in names if look_for_tree(VIDEO_TREES[name], top.resolve().parent) == top.resolve()]
    if len(called) == 1:
        return called[0]
    raise UsageError(f"{top}: could be {', '.join(names)}; say which with --layout")


# Videos


def video_rows(name: str, root: Path, count: int, split: Split | None) -> Iterator[SheetRow]:
    """Rows of the first videos of a set.

    Args:
        name: of the set.
        root: its top folder, or one that holds it.
        count: how many.
        split: train or test; None for whichever part is there, train last.

    Raises:
        InputError: the set is not there, or a file of it is missing or damaged.
    """
    if name == "vipseg":
        yield from _panoptic_rows(root, count)
        return
    for video in _part(name, root, split)[:count]:
        yield _row(name, video)


def _part(name: str, root: Path, split: Split | None) -> list[Video]:
    """The videos with frames of the first part that is there."""
    order = {
        Split.train: ("train",),
        Split.test: ("valid_u", "valid", "test"),
        None: ("valid_u", "valid", "test", "train"),
    }
    refused: list[InputError] = []
    for part in (one for one in order[split] if one in TREES[name].parts):
        try:
            there = [video for video in READERS[name](root, part) if video.images[0].is_file()]
        except InputError as error:
            refused.append(error)
            continue
        if there:
            return there
    raise refused[-1] if refused else InputError(f"{root}: no part of {name} has frames here; run check")


def _row(name: str, video: Video) -> SheetRow:
    """A video of a set as a row; objects are numbered in the order in which the lines that are shown mean them."""
    height, width = read_image(video.images[0]).shape[:2]
    numbers: dict[str, int] = {}
    said = []
    for one in video.expressions:
        targets = tuple(numbers.setdefault(key, len(numbers) + 1) for key in one.objects)
        said.append(SheetLine(one.tags.get("kind", "expression"), one.text, one.tags.get("answer", ""), targets))
    lines, more = chosen_lines(said)
    wanted = {key: number for key, number in numbers.items() if any(number in line.targets for line in lines)}
    shown = spread(len(video), width / height)
    facts = [name, f"{len(video)} frames", f"{width} x {height}"]
    facts += ["no masks"] if video.masks is None else []
    facts += [f"{more} more expressions"] if more else []
    return SheetRow(
        title=video.name,
        difficulty="",
        facts=tuple(facts),
        frames=[video.frame(t) for t in shown],
        shown=shown,
        total=len(video),
        ids=_ids(video, wanted),
        lines=lines,
    )


def _ids(video: Video, numbers: dict[str, int]) -> np.ndarray | None:
    """The number of each pixel's object, uint8 (frames, height, width); of objects that overlap the last is seen."""
    if video.masks is None:
        return None
    maps = []
    for t in range(len(video)):
        drawn = np.zeros(video.masks.mask((), t).shape, np.uint8)
        for key, number in numbers.items():
            drawn[video.masks.mask((key,), t)] = number
        maps.append(drawn)
    return np.stack(maps)


def chosen_lines(lines: Sequence[SheetLine]) -> tuple[tuple[SheetLine, ...], int]:
    """Instructions to show, one of each kind first, then of other targets; and how many are left out."""
    ranks: list[tuple[int, int]] = []
    said: Counter[object] = Counter()
    for line in lines:
        ranks.append((said[line.kind, line.targets], said[line.kind]))
        said.update([(line.kind, line.targets), line.kind])
    first = sorted(range(len(lines)), key=ranks.__getitem__)[:LINES]
    return tuple(lines[k] for k in first), max(len(lines) - LINES, 0)


def _panoptic_rows(root: Path, count: int) -> Iterator[SheetRow]:
    """Rows of VIPSeg: its things, one line per category."""
    top = look_for_tree(vipseg.TREE, root) or root
    categories = vipseg.read_categories(top)
    for folder in sorted(path for path in (top / "panomasks").iterdir() if path.is_dir())[:count]:
        video = vipseg.open_video(top, folder.name)
        values = np.stack([video.values(t) for t in range(len(video.images))])
        things = [int(value) for value in np.unique(values) if vipseg.number_of(int(value)) != value]
        numbers = {value: number for number, value in enumerate(things[:254], 1)}
        ids = np.zeros(values.shape, np.uint8)
        for value, number in numbers.items():
            ids[values == value] = number
        named: dict[str, list[int]] = {}
        for value, number in numbers.items():
            name = categories.get(vipseg.number_of(value), str(vipseg.number_of(value)))
            named.setdefault(f"{name}: {value}", []).append(number)
        lines, more = chosen_lines([SheetLine("expression", text, "", tuple(found)) for text, found in named.items()])
        height, width = values.shape[1:]
        shown = spread(len(values), width / height)
        facts = ("vipseg", f"{len(values)} frames", f"{width} x {height}", *((f"{more} more things",) if more else ()))
        frames = [read_image(video.images[t]) for t in shown]
        yield SheetRow(video.name, "", facts, frames, shown, len(values), ids, lines)


# Pictures


def some_pictures(name: str, root: Path, count: int, split: Split | None) -> Iterator[Picture]:
    """Samples of an image set, spread from its first to its last.

    Args:
        name: of the set.
        root: its top folder, or one that holds it.
        count: how many.
        split: train or test; None is train.

    Raises:
        InputError: the set is not there, or a file of it is missing or damaged.
    """
    if name == "llava-instruct":
        yield from _conversations(root, count)
        return
    samples = IMAGE_READERS[name](root, part_of(name, "valid" if split is Split.test else "train"))
    shown = _spread(len(samples), count)
    for k, index in enumerate(shown):
        yield _picture(samples[index], k / len(shown))


def _picture(sample: ImageSample, place: float) -> Picture:
    """A sample with the expression at a place in [0, 1) of its list."""
    said = sample.expressions
    if not said:
        return Picture(sample.name, "(nothing here has a name)", sample.frame(), ignored=sample.ignored())
    one = said[int(place * len(said))]
    more = f" (+{len(said) - 1})" if len(said) > 1 else ""
    text = one.text if one.objects else f"{one.text} (nothing matches)"
    return Picture(f"{sample.name}{more}", text, sample.frame(), sample.mask(one), sample.ignored())


def _conversations(root: Path, count: int) -> Iterator[Picture]:
    found = llava_instruct(root)
    for index in _spread(len(found), count):
        conversation, first = found[index], found[index].rounds[0]
        text = f"{first.question} - {first.answer}"
        blank = np.full((150, 200, 3), 235, np.uint8)
        image = blank if conversation.image is None else read_image(conversation.image)
        yield Picture(conversation.name, text, image)


def _spread(total: int, count: int) -> list[int]:
    return [int(index) for index in np.unique(np.linspace(0, total - 1, min(count, total)).round())] if total else []
