"""Writing files so that a reader finds the old content or the new, never half of it, and that nobody loses what is his.

Commands look at what they are to write before they work, by the functions that begin with `refuse`: what is there
already needs --overwrite, which replaces what this package wrote, nothing else, and never what is read.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

from trackgpt.errors import OutputError


def write_whole(path: Path, parts: Iterable[str | bytes]) -> Path:
    """Write a file as a whole; see `replacing`. Gives `path`."""
    rest = iter(parts)
    first = next(rest, "")  # a run that cannot be read is found out before a file is made
    with replacing(path) as part, part.open("wb") as file:
        for text in chain([first], rest):
            file.write(text if isinstance(text, bytes) else text.encode("utf-8", "backslashreplace"))
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it becomes `path` at the end, so readers never see half a file.

    Raises:
        OutputError: OUT02; the temporary file is gone and what was at `path` before stays.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with writing(path):
            part.unlink(missing_ok=True)  # what an earlier writer left, or a link to somewhere else
            yield part
            os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system refuses into OUT02, in one line that names the file."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); free some space or choose another folder; "
            "what was written before stays valid",
            "OUT02",
        ) from error


def refuse_existing(out: Path, overwrite: bool) -> None:
    """Refuse a folder in use before anything slow is done for it.

    Raises:
        OutputError: OUT01, it is a file, or holds something and `overwrite` is off.
    """
    with writing(out):
        if os.path.lexists(out) and not out.is_dir():
            raise OutputError(f"{out}: is a file; wanted a folder", "OUT01")
        if not overwrite and out.is_dir() and any(out.iterdir()):
            raise OutputError(f"{out}: exists and is not empty; needs --overwrite, or another folder", "OUT01")


def refuse_existing_file(out: Path, overwrite: bool, reads: Iterable[Path] = ()) -> None:
    """Refuse a file that is there before anything slow is done for it.

    Args:
        out: the file.
        overwrite: it may be replaced.
        reads: files that the new one is made from, which may not.

    Raises:
        OutputError: OUT01, it exists and `overwrite` is off, or it is read, or is no file.
    """
    with writing(out):
        if not os.path.lexists(out):
            return
        if out.resolve() in [read.expanduser().resolve() for read in reads]:
            raise OutputError(f"{out}: is read; choose another name for the output", "OUT01")
        if out.exists() and not out.is_file():
            raise OutputError(f"{out}: is no file; wanted the name of one", "OUT01")
    if not overwrite:
        raise OutputError(f"{out}: exists; needs --overwrite, or another name", "OUT01")


def refuse_to_hold(out: Path, reads: Iterable[Path]) -> None:
    """Refuse an output folder that holds what is read, before anything in it is cleared or written.

    Raises:
        OutputError: OUT01; a file or folder that is read is the output folder itself or lies in it, links resolved.
    """
    folder = out.expanduser().resolve()
    for read in reads if folder.is_dir() else ():
        place = read.expanduser().resolve()
        if folder in (place, *place.parents):
            raise OutputError(f"{out}: holds {read}, which is read; choose another folder for the output", "OUT01")


def refuse_strangers(out: Path, made: Collection[str], marks: Collection[str], so: str = "it is no run") -> None:
    """Refuse a folder that holds files as a command would write them, but not those by which its own are known.

    Args:
        out: the folder; it may be missing.
        made: names that the command would replace.
        marks: names of which one is in every folder that the command has written to, the one to tell first.
        so: what follows when there is none of them, for the message.

    Raises:
        OutputError: OUT01.
    """
    with writing(out):
        present = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    found = present.intersection(made)
    if found and not present.intersection(marks):
        mark = next(iter(marks))
        raise OutputError(f"{out}: holds {min(found)} but no {mark}, so {so}; choose another folder", "OUT01")
