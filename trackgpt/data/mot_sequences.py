"""MOTChallenge trees: MOT15, MOT16, MOT17, MOT20, SportsMOT, DanceTrack.

    <root>/<split>/<sequence>/{seqinfo.ini,gt/gt.txt,img1}     a split may be called "sportsmot-val", "MOT17-train"
    <root>/seqmaps/<split>.txt                                  its names, where the authors list them

The files themselves are read by `trackgpt.data.mot_files`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trackgpt.data.mot_files import MotTruth, SequenceInfo, read_seqinfo, read_seqmap, read_truth
from trackgpt.data.trees import Tree, entries, find_tree, listing
from trackgpt.errors import InputError

SPLITS = ("train", "val", "test")
TREE = Tree(
    "mot",
    ("MOT15", "MOT16", "MOT17", "MOT20", "SportsMOT", "DanceTrack", "mot"),
    ("*/*/seqinfo.ini",),
    SPLITS,
)


@dataclass(frozen=True)
class MotSequence:
    """One sequence; its files are read when they are asked for.

    Attributes:
        name: of its folder, after which result files are named.
        folder: its folder.
    """

    name: str
    folder: Path

    def info(self) -> SequenceInfo:
        """seqinfo.ini.

        Raises:
            InputError: it is missing or malformed.
        """
        return read_seqinfo(self.folder / "seqinfo.ini")

    def truth(self) -> MotTruth:
        """gt/gt.txt.

        Raises:
            InputError: it is missing or malformed.
        """
        return read_truth(self.folder / "gt/gt.txt", self.info().frames)

    def images(self) -> tuple[Path, ...]:
        """The frames, in order.

        Raises:
            InputError: there are less or more than seqinfo.ini says.
        """
        info = self.info()
        folder = self.folder / info.image_folder
        found = entries(folder, f"*{info.image_suffix}")
        if len(found) != info.frames:
            raise InputError(f"{folder}: {len(found)} frames *{info.image_suffix}, wanted {info.frames}")
        return tuple(found)


@dataclass(frozen=True)
class MotPart:
    """A split.

    Attributes:
        sequences: those with a truth here, in the order of the sequence map, else by name.
        missing: in the sequence map, but without a truth here.
    """

    sequences: tuple[MotSequence, ...]
    missing: tuple[str, ...] = ()


def mot(root: str | Path, split: str) -> MotPart:
    """The sequences of a split.

    Args:
        root: the tree, or the folder above it.
        split: "train", "val" or "test".

    Raises:
        UsageError: another split.
        InputError: the tree or the split is missing, or none of its sequences has a truth.
    """
    TREE.check_part(split)
    top = find_tree(TREE, root)
    folders = [folder for folder in entries(top) if folder.is_dir() and _is(folder.name, split)]
    if len(folders) != 1:
        found = ", ".join(folder.name for folder in folders) or f"none among {listing(top)}"
        raise InputError(f"{top}: wanted one folder called {split} or ...-{split}, found {found}")
    here = {path.parents[1].name: path.parents[1] for path in entries(folders[0], "*/gt/gt.txt")}
    if not here:
        raise InputError(f"{folders[0]}: no sequence with gt/gt.txt; it holds {listing(folders[0])}")
    maps = [path for path in entries(top / "seqmaps", "*.txt") if _is(path.stem, split)]
    if len(maps) > 1:
        raise InputError(f"{maps[0]} and {maps[1].name} each list {split!r}; wanted one list; move the other away")
    names = read_seqmap(maps[0]) if maps else list(here)
    found_here = [name for name in names if name in here]
    if not found_here:
        raise InputError(f"{maps[0]}: none of its {len(names)} sequences is in {folders[0]}")
    return MotPart(tuple(MotSequence(n, here[n]) for n in found_here), tuple(n for n in names if n not in here))


def _is(name: str, split: str) -> bool:
    return name == split or name.endswith(f"-{split}")
