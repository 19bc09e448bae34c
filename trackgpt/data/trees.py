"""Where a data set lies: the names its folder goes by, what shows that a folder is it, what is said when it is not.

Projects keep the same data under different names, so a folder is
known by what it holds; names only tell which folder of many to look into.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trackgpt.errors import InputError, UsageError
from trackgpt.settings import parse_json

_JUNK = frozenset(("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"))
_UNPRINTABLE = re.compile(r"[\x00-\x1f\ud800-\udfff]")  # control characters, and halves of characters
_LONGEST = 240  # bytes of a name, to which suffixes are added
_SHOWN = 8  # entries of a folder that an error lists


@dataclass(frozen=True)
class Tree:
    """A data set on disk.

    Attributes:
        name: what commands call it ("refer-youtube-vos").
        folders: what projects call its top folder, or where below a common root they keep it ("vlpart/paco"); case, "-"
            and "_" do not count.
        marks: glob patterns below the top folder; a folder with a match of any of them is taken for the data set.
        parts: the parts that can be read.
        published: how many of each of the `units` a part has, as its authors count them; None for a number not known.
        units: what is counted.
    """

    name: str
    folders: tuple[str, ...]
    marks: tuple[str, ...]
    parts: tuple[str, ...]
    published: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)
    units: tuple[str, str] = ("videos", "expressions")

    def holds(self, folder: Path) -> bool:
        """Whether a folder is a top folder of this data set."""
        return any(next(folder.glob(mark), None) is not None for mark in self.marks)

    def check_part(self, part: str) -> None:
        """Refuse a part that the data set does not have.

        Raises:
            UsageError: with the parts that there are.
        """
        if part not in self.parts:
            raise UsageError(f"{self.name} has no part {part!r}; choose {' or '.join(self.parts)}")


def find_tree(tree: Tree, *roots: str | Path) -> Path:
    """The top folder of a data set.

    Args:
        tree: the data set.
        roots: its top folder, or one that holds it under one of its names (also one level deeper, as archives that
            repeat their name unpack); with several, the first that shows it counts.

    Raises:
        InputError: a root is no folder, it is not there, or two folders below a root could be meant.
    """
    for root in roots:
        found = look_for_tree(tree, root)
        if found is not None:
            return found
    looked = " and ".join(str(root) for root in dict.fromkeys(roots))
    raise InputError(
        f"{looked}: no {tree.name} here; wanted {' or '.join(tree.marks)} in it, or in a folder below it called "
        f"{', '.join(tree.folders)}; it holds {listing(Path(roots[-1]))}; give the folder that holds them"
    )


def look_for_tree(tree: Tree, root: str | Path) -> Path | None:
    """As `find_tree` of one root, None when it is not there.

    A folder that goes by a name of the data set comes before the root itself: marks of several sets are alike, and a
    root of many sets may show those of another.

    Raises:
        InputError: `root` is no folder, or two folders below it could be meant.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; wanted the top folder of {tree.name}, or the one above it")
    found: dict[Path, Path] = {}  # by where they really are: links to one folder are no two
    for folder in named_folders(tree, root):
        if tree.holds(folder):
            found.setdefault(folder.resolve(), folder)
    if len(found) > 1:
        shown = ", ".join(str(folder) for folder in found.values())
        raise InputError(f"{root}: {shown} could each be {tree.name}; give the one that is meant, or move the other")
    return next(iter(found.values()), root if tree.holds(root) else None)


def named_folders(tree: Tree, root: Path) -> list[Path]:
    """Folders below a root that go by a name of the data set, whatever they hold; outer ones first."""
    outer = [folder for name in tree.folders for folder in _below(root, name)]
    names = {_plain(Path(name).name) for name in tree.folders}
    inner = [path for folder in outer for path in sorted(folder.iterdir()) if _plain(path.name) in names]
    return list(dict.fromkeys((*outer, *(path for path in inner if path.is_dir()))))


def _below(root: Path, name: str) -> Iterator[Path]:
    """Folders at a path below a root, each step of it spelt in any way."""
    first, _, rest = name.partition("/")
    for path in sorted(root.iterdir()):
        if _plain(path.name) == _plain(first) and path.is_dir():
            yield from _below(path, rest) if rest else (path,)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def plain_name(name: str, where: object) -> str:
    """A name from a file of anybody's that becomes a path below a folder: of a video, a frame, an expression.

    Raises:
        InputError: it is empty, absolute, leads out of the folder, or is longer than systems allow.
    """
    parts = name.split("/")
    long = any(len(part.encode("utf-8", "replace")) > _LONGEST for part in parts)
    if {"", ".", ".."} & set(parts) or "\\" in name or long or _UNPRINTABLE.search(name):
        raise InputError(f"{where}: the name {name[:40]!r}; wanted one that stays in its folder")
    return name


def is_junk(name: str) -> bool:
    """Whether a file or folder is what a system leaves beside a person's files: of macOS and of Windows."""
    return name in _JUNK or name.startswith("._")


def entries(folder: Path, pattern: str = "*") -> list[Path]:
    """What a folder holds and a glob pattern matches, sorted, without junk; nothing where there is no such folder."""
    return sorted(
        path for path in folder.glob(pattern) if not any(is_junk(part) for part in path.relative_to(folder).parts)
    )


def listing(folder: Path) -> str:
    """What a folder holds, for an error: the first names, or that there is none."""
    if not folder.is_dir():
        return "nothing (no such folder)"
    names = [entry.name for entry in entries(folder)]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) + more) or "nothing"


def needed_folder(folder: Path, what: str) -> Path:
    """A folder that must be there.

    Raises:
        InputError: it is not; says what it should hold and what lies beside it.
    """
    if folder.is_dir():
        return folder
    near = folder.parent
    while not near.is_dir() and near != near.parent:
        near = near.parent
    raise InputError(
        f"{folder}: missing; wanted {what}; {near} holds {listing(near)}; "
        "unpack it there, or link to where it is (`python -m data_tools check` looks for it)"
    )


def read_json(path: Path, encodings: Sequence[str] = ("utf-8-sig",)) -> Any:
    """The value of a JSON file.

    Args:
        path: the file.
        encodings: tried in this order; the default takes a byte order mark for what it is.

    Raises:
        InputError: it is missing, or as `trackgpt.settings.parse_json`.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: missing; {path.parent} holds {listing(path.parent)}; unpack it there") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); wanted JSON; copy or unpack it again") from error
    return parse_json(data, path, encodings)


def read_object(path: Path) -> dict[str, Any]:
    """The mapping of a JSON file.

    Raises:
        InputError: as `read_json`, or it holds something else.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds a {type(found).__name__}, wanted an object")
    return found
