"""Writing files so that a reader finds the old content or the new, never half of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
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
