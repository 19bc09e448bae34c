"""Where a data set lies: the names its folder goes by, what shows that a folder is it, what is said when it is not.

Projects keep the same data under different names (`shared/reference/datasets.md`, sections 3.5 and 3.7), so a folder is
known by what it holds; names only tell which folder of many to look into.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trackgpt.errors import InputError, UsageError

_SHOWN = 8  # entries of a folder that an error lists


@dataclass(frozen=True)
class Tree:
    """A data set on disk.

    Attributes:
        name: what commands call it ("refer-youtube-vos").
        folders: what projects call its top folder; case, "-" and "_" do not count.
        marks: glob patterns below the top folder; a folder with a match of any of them is taken for the data set.
        parts: the parts that can be read.
        published: (videos, expressions) of parts as their authors count them; None for a number not known.
    """

    name: str
    folders: tuple[str, ...]
    marks: tuple[str, ...]
    parts: tuple[str, ...]
    published: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)

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


def find_tree(tree: Tree, root: str | Path) -> Path:
    """The top folder of a data set.

    Args:
        tree: the data set.
        root: its top folder, or one that holds it under one of its names (also one level deeper, as archives that
            repeat their name unpack).

    Raises:
        InputError: `root` is no folder, it is not there, or two folders below `root` could be meant.
    """
    found = look_for_tree(tree, root)
    if found is None:
        raise InputError(
            f"{root}: no {tree.name} here; wanted {' or '.join(tree.marks)} in it, or in a folder below it called "
            f"{', '.join(tree.folders)}; it holds {listing(Path(root))}; give the folder that holds them"
        )
    return found


def look_for_tree(tree: Tree, root: str | Path) -> Path | None:
    """As `find_tree`, None when it is not there.

    Raises:
        InputError: `root` is no folder, or two folders below it could be meant.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; wanted the top folder of {tree.name}, or the one above it")
    if tree.holds(root):
        return root
    found: dict[Path, Path] = {}  # by where they really are: links to one folder are no two
    for folder in _named(tree, root):
        if tree.holds(folder):
            found.setdefault(folder.resolve(), folder)
    if len(found) > 1:
        shown = ", ".join(str(folder) for folder in found.values())
        raise InputError(f"{root}: {shown} could each be {tree.name}; give the one that is meant")
    return next(iter(found.values()), None)


def _named(tree: Tree, root: Path) -> Iterator[Path]:
    """Folders below a root that go by a name of the data set, outer ones first."""
    names = {_plain(name) for name in tree.folders}
    outer = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and _plain(folder.name) in names]
    yield from outer
    for folder in outer:
        yield from (inner for inner in sorted(folder.iterdir()) if inner.is_dir() and _plain(inner.name) in names)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def listing(folder: Path) -> str:
    """What a folder holds, for an error: the first names, or that there is none."""
    if not folder.is_dir():
        return "nothing (no such folder)"
    names = sorted(entry.name for entry in folder.iterdir())
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


def read_json(path: Path) -> Any:
    """A JSON file in UTF-8.

    Raises:
        InputError: it is missing, is not UTF-8, or does not parse (with line and column).
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: missing; {path.parent} holds {listing(path.parent)}; unpack it there") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{path}: no JSON from {where} on ({error.msg}); copy or unpack it again") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); wanted JSON in UTF-8; copy or unpack it again") from error
