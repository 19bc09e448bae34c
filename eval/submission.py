"""Zip files of a benchmark's server: packed from a run's results, and unpacked without trusting them."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path, PurePosixPath

from trackgpt.errors import InputError, OutputError

TOP = "Annotations"
"""The folder that submissions to Refer-YouTube-VOS begin with; others begin with the videos."""
MAX_FILES = 2_000_000
MAX_BYTES = 64 << 30
MAX_RATIO = 1000
"""Deflate reaches 1,032; a mask of a whole frame of one value comes near. What is beyond is no mask."""


def pack(results: Path, path: Path, top: str = "") -> Path:
    """Write every PNG below `results` to a zip, by relative name in sorted order; the same masks give the same bytes.

    Args:
        results: folder of result files.
        path: the zip.
        top: folder that all names in it begin with.

    Raises:
        OutputError: OUT02.
    """
    from trackgpt.files import replacing

    with replacing(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as file:
        for mask in sorted(results.rglob("*.png")):
            name = zipfile.ZipInfo(str(PurePosixPath(top, mask.relative_to(results))), (1980, 1, 1, 0, 0, 0))
            file.writestr(name, mask.read_bytes())
    return path


def beginning(folder: Path) -> Path:
    """Where results begin: the folder, or `Annotations` if that is all it holds, as a submission unpacked."""
    return folder / TOP if [entry.name for entry in folder.iterdir()] == [TOP] else folder


def unpack(path: Path, folder: Path) -> None:
    """Unpack a submission into a folder that is made anew.

    Names that leave the folder, links, and more than a submission can hold are refused before anything is written; a
    file that grows beyond what the zip's index says is cut there and refused.

    Raises:
        InputError: no zip, a damaged one, or one that is refused, with the entry.
        OutputError: OUT02.
    """
    try:
        with zipfile.ZipFile(path) as file:
            entries = [entry for entry in file.infolist() if not entry.is_dir()]
            _check(path, entries)
            shutil.rmtree(folder, ignore_errors=True)
            for entry in entries:
                _extract(file, entry, folder / entry.filename, path)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path}: not a readable zip ({error}); wanted a submission of PNG files") from error
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror})", "OUT02") from error


def _check(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    if not entries:
        raise InputError(f"{path}: the zip is empty; wanted a submission of PNG files")
    total = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_FILES or total > MAX_BYTES:
        most = f"{MAX_FILES} files of {MAX_BYTES >> 20} MiB in all"
        raise InputError(f"{path}: {len(entries)} files of {total >> 20} MiB; at most {most} are unpacked")
    for entry in entries:
        name = PurePosixPath(entry.filename)
        linked = entry.external_attr >> 28 == 0xA
        if name.is_absolute() or ".." in name.parts or "\\" in entry.filename or linked:
            raise InputError(f"{path}: the entry {entry.filename!r} leaves the folder or is a link; wanted plain names")
        if entry.file_size > MAX_RATIO * max(entry.compress_size, 1) + 4096:
            raise InputError(
                f"{path}: the entry {entry.filename!r} unpacks {entry.compress_size} bytes to {entry.file_size}; "
                "that is no mask"
            )


def _extract(file: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, path: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    left = entry.file_size
    with file.open(entry) as source, target.open("wb") as sink:
        while block := source.read(1 << 20):
            left -= len(block)
            if left < 0:
                raise InputError(f"{path}: the entry {entry.filename!r} is longer than the zip's index says")
            sink.write(block)
