"""Zips of a benchmark's server: packed from a run's results, and unpacked without trusting them."""

from __future__ import annotations

import shutil
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from trackgpt.data.trees import entries, is_junk
from trackgpt.errors import InputError, OutputError, TrackGPTError
from trackgpt.files import replacing, writing

TOP = "Annotations"
"""The folder that submissions to Refer-YouTube-VOS begin with; others begin with the videos."""
MAX_FILES = 2_000_000
MAX_BYTES = 64 << 30
MAX_RATIO = 1000
"""Deflate reaches 1,032; a mask of a whole frame of one value comes near. What is beyond is no mask."""
_PLAIN = (0x0, 0x4, 0x8)  # not said, a folder, a file: of a name's Unix mode in a zip


def pack(results: Path, path: Path, top: str = "") -> Path:
    """Write every PNG below `results` to a zip, by relative name in sorted order; the same masks give the same bytes.

    Junk of other systems (`trackgpt.data.trees.is_junk`) is left out.

    Args:
        results: folder of result files.
        path: the zip.
        top: folder that all names in it begin with.

    Raises:
        OutputError: OUT02.
    """
    with replacing(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as file:
        for mask in entries(results, "**/*.png"):
            name = zipfile.ZipInfo(str(PurePosixPath(top, mask.relative_to(results))), (1980, 1, 1, 0, 0, 0))
            file.writestr(name, mask.read_bytes())
    return path


def beginning(folder: Path) -> Path:
    """Where results begin: the folder, or `Annotations` in it or one level deeper, as submissions unpack.

    Files beside `Annotations` and junk of other systems do not count.

    Raises:
        InputError: folders lie beside `Annotations`, so that results could begin at either.
    """
    folders = [entry for entry in entries(folder) if entry.is_dir()]
    if folder.name != TOP and [each.name for each in folders] != [TOP] and any(each.name == TOP for each in folders):
        other = next(each for each in folders if each.name != TOP)
        raise InputError(f"{folder}: results may begin in {TOP} or beside it ({other.name}); move one of them away")
    inner = [folder / TOP, *(each / TOP for each in folders[:1] if len(folders) == 1)]
    return next((each for each in inner if each.is_dir()), folder)


def unpack(path: Path, folder: Path) -> None:
    """Unpack a submission into a folder that is made anew; Windows' separators are read as folders, junk is left out.

    Names that leave the folder, links, and more than a submission can hold are refused before anything is written; a
    file that grows beyond what the zip's index says is cut there and refused.

    Raises:
        InputError: no zip, a damaged one, or one that is refused, with the entry.
        OutputError: OUT02, or there is less space than it needs.
    """
    with _reading(path), zipfile.ZipFile(path) as file:
        found = _checked(path, file.infolist())
        with writing(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            free = shutil.disk_usage(folder).free
        total = sum(entry.file_size for entry in found.values())
        if total > free:
            needed = f"{path.name} needs {total >> 20} MiB, {free >> 20} are free"
            raise OutputError(f"{folder}: cannot be written ({needed}); choose another --out", "OUT02")
        for name, entry in found.items():
            _extract(file, entry, folder / name, path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what a damaged zip raises, which may be anything, into one line."""
    try:
        yield
    except TrackGPTError:
        raise
    except Exception as error:
        raise InputError(f"{path}: not a readable zip ({error!r}); wanted a submission of PNG files") from error


def _checked(path: Path, listed: list[zipfile.ZipInfo]) -> Mapping[str, zipfile.ZipInfo]:
    """The files to unpack by name, with "/" between folders."""
    total = sum(entry.file_size for entry in listed)
    if len(listed) > MAX_FILES or total > MAX_BYTES:
        most = f"{MAX_FILES} files of {MAX_BYTES >> 20} MiB in all"
        raise InputError(f"{path}: {len(listed)} files of {total >> 20} MiB; at most {most} are unpacked")
    found: dict[str, zipfile.ZipInfo] = {}
    names = Counter(PureWindowsPath(entry.filename) for entry in listed)
    for entry in listed:
        # Read as Windows does: it takes both separators, and knows drives.
        name, kind = PureWindowsPath(entry.filename), entry.external_attr >> 28
        if not name.parts or name.drive or name.root or ".." in name.parts or kind not in _PLAIN:
            raise InputError(f"{path}: the entry {entry.filename!r} leaves the folder or is a link; wanted plain names")
        if any(is_junk(part) for part in name.parts) or entry.filename.endswith(("/", "\\")):
            continue
        if names[name] > 1 or any(parent.as_posix() in found for parent in name.parents):
            raise InputError(f"{path}: the entry {entry.filename!r} is there twice; wanted each once")
        if entry.file_size > MAX_RATIO * max(entry.compress_size, 1) + 4096:
            raise InputError(
                f"{path}: the entry {entry.filename!r} unpacks {entry.compress_size} bytes to {entry.file_size}; "
                "that is no mask"
            )
        found[name.as_posix()] = entry
    if not found:
        raise InputError(f"{path}: the zip is empty; wanted a submission of PNG files")
    return found


def _extract(file: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, path: Path) -> None:
    left = entry.file_size
    with file.open(entry) as source:
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            sink = target.open("wb")
        with sink:
            while block := source.read(1 << 20):
                left -= len(block)
                if left < 0:
                    raise InputError(f"{path}: the entry {entry.filename!r} is longer than the zip's index says")
                with writing(target):
                    sink.write(block)
