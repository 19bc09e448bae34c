"""The folder of an evaluation run: what it was begun with, and files that are written whole or not at all.

run.json                settings: kit, protocol, model and its digest, split, seed
results/                the benchmark's own result files (with --model)
diagnostics/TASK.json   answers, scores, readings and times of a task; written last, so it marks it as done
rows.jsonl              one line per scored unit
summary.json, report.md, *.png, *.svg, submission.zip

Where some of these lie and no run.json, no run has made them, and they are left alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eval.kit import Row
from trackgpt.data.trees import read_object
from trackgpt.errors import InputError, UsageError
from trackgpt.files import refuse_strangers, write_whole, writing
from trackgpt.settings import parse_json

RUN, RESULTS, DIAGNOSTICS, ROWS = "run.json", "results", "diagnostics", "rows.jsonl"
MADE = re.compile(
    rf"{RESULTS}|{DIAGNOSTICS}|{ROWS}|summary\.json|report\.md|submission\.zip|rank\d+\.json"
    r"|(histogram|reliability|success|precision|normalised_precision|by_.+)\.(png|svg)"
)
"""Names of what a run writes after its run.json (the pictures are those of `eval.pictures`)."""


def rank() -> int:
    """Which process of `torchrun` this is; 0 without it."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes `torchrun` has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def open_run(out: Path, settings: Mapping[str, object], fills: bool = True) -> Iterator[None]:
    """Make the folder of a run, or see that the one there was begun with the same settings.

    Results of another model or seed under this one's name would be a wrong number that looks right. Under `torchrun`
    the first rank writes, for all begin with the same. When what is done in it fails before any task was tracked, all
    that was made is taken away again, so that the corrected command finds no other run in its way.

    Args:
        out: the folder.
        settings: of the run.
        fills: the run writes the folder's results, and is not to mix them with somebody else's.

    Raises:
        UsageError: the folder was begun with other settings.
        OutputError: OUT01, it holds files that a run would replace and no run has made; OUT02.
    """
    path = out / RUN
    if path.exists():
        found = read_object(path)
        other = [
            f"{key} {found.get(key)!r}, now {value!r}" for key, value in settings.items() if found.get(key) != value
        ]
        if other:
            raise UsageError(f"{out}: holds another run ({'; '.join(other)}); choose another --out or delete it")
    before = {out, *out.iterdir()} if out.is_dir() else set()
    replaced = {each.name for each in before - {out} if MADE.fullmatch(each.name)}
    refuse_strangers(out, replaced - (set() if fills else {RESULTS}), (RUN,))
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    if rank() == 0:
        write_json(path, settings)
    try:
        yield
    except BaseException:
        if rank() == 0 and path not in before and not (out / DIAGNOSTICS).exists():
            for made in [out] if out not in before else set(out.iterdir()) - before:
                if made in (out, path) or MADE.fullmatch(made.name):  # others may write there at the same time
                    shutil.rmtree(made) if made.is_dir() else made.unlink()
        raise


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """Write indented JSON, numbers that are not finite as null."""
    from trackgpt.export.records import plain

    write_text(path, json.dumps(plain(values), indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file, with its folder, as a whole or not at all."""
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, [text])


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON Lines; numbers that are not finite stand as NaN, which Python's reader takes back."""
    write_text(path, "".join(json.dumps(row.as_json()) + "\n" for row in rows))


def read_rows(path: Path) -> list[Row]:
    """The rows of a run folder, or of a file of `write_rows`.

    Raises:
        InputError: there is no such file, or a line of it is no row.
    """
    file = path / ROWS if path.is_dir() else path
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); wanted the --out folder of a run") from error
    return [row_of(parse_json(line, f"{file}: line {n}"), f"{file}: line {n}") for n, line in enumerate(lines, 1)]


def row_of(values: Any, where: str) -> Row:
    """A row from what `Row.as_json` gave; `where` begins messages.

    Raises:
        InputError: a field is missing, unknown or of another type.
    """
    wrong = [name for name, fits in _FITS.items() if not isinstance(values, dict) or not fits(values.get(name))]
    if wrong or len(values) != len(_FITS):
        raise InputError(f"{where} is no row ({', '.join(wrong) or 'unknown fields'}); run the evaluation again")
    return Row(**values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _lists(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _named(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


_FITS: Mapping[str, Callable[[Any], bool]] = {
    "task": _is_text,
    "unit": _is_text,
    "figures": _named(_is_number),
    "tags": _named(_lists(_is_text)),
    "series": _named(_lists(_is_number)),
    "said": _named(_is_text),
}


def digest(*places: Path) -> str:
    """The first 12 digits of the SHA-256 over a model's files: a name alone does not say which weights it had.

    Args:
        places: folders, whose own files count, or files; a brain and its perception are two.
    """
    total = hashlib.sha256()
    for place in places:
        for path in sorted(path for path in place.iterdir() if path.is_file()) if place.is_dir() else [place]:
            with path.open("rb") as file:
                total.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:12]


def commit() -> str:
    """The commit this code stands on, with a mark when files differ from it; "unknown" outside a repository."""
    root = Path(__file__).parents[1]
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        )
        dirty = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def progress(results: Iterable[Any], what: str, total: int) -> Iterable[Any]:
    """The results with a progress bar on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    return track(results, what, total, console=Console(stderr=True), disable=not sys.stderr.isatty())
