"""MeViS, LV-VIS and ReVOS, whose masks are run lengths by annotation id."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trackgpt.data.referring_video.agreement import agreeing
from trackgpt.data.referring_video.meta_expressions import Entry, ListedVideo, read_videos
from trackgpt.data.referring_video.parts import BenchmarkPart, first_file, needed, without_truth
from trackgpt.data.referring_video.truth import MaskDict
from trackgpt.data.videos import Expression, Video
from trackgpt.errors import InputError

REVOS_KINDS = {"0": "referring", "1": "reasoning", "2": "absent"}  # by type_id


def mevis(root: str | Path, part: str) -> tuple[Video, ...]:
    """MeViS: datasets.md, section 3.3.

    Objects are annotation ids of mask_dict.json (`MaskDict`), one or more, none when nothing matches. valid and test
    have no truth here (their server has it): `masks` is None.

    Args:
        root: the tree, or the folder above it.
        part: "train", "valid_u", "valid" or "test" (whose file may be called meta_expressions_release.json).

    Returns:
        Videos in the order of the file.

    Raises:
        UsageError: another part.
        InputError: a file or folder is missing or damaged.
    """
    here = BenchmarkPart.of("mevis", root, part)
    folder = here.root / part
    file = first_file(folder / "meta_expressions.json", folder / "meta_expressions_release.json")
    listed = read_videos(file)
    pictures = here.pictures(folder / "JPEGImages")
    if part in ("valid", "test"):
        return agreeing(file, (without_truth(video, pictures) for video in listed.values()))
    runs = here.run_lengths(folder / "mask_dict.json")
    return agreeing(file, (_with_runs(video, pictures, runs) for video in listed.values()))


def lv_vis(root: str | Path, part: str) -> tuple[Video, ...]:
    """LV-VIS with VISA's expressions, category names: datasets.md, sections 3.3 and 3.5.

    Objects are annotation ids of mask_dict.json (`MaskDict`). Names are LVIS', whose underscores become spaces here.
    The two JSON files lie in `train` (VISA) or above it (GLUS, UniPixel).

    Args:
        root: the tree, or the folder above it.
        part: "train".

    Returns:
        Videos in the order of the file.

    Raises:
        UsageError: another part.
        InputError: a file or folder is missing or damaged.
    """
    here = BenchmarkPart.of("lv-vis", root, part)
    folder = here.root / part
    file = first_file(folder / "meta_expressions.json", here.root / "meta_expressions.json")
    listed = read_videos(file)
    pictures = here.pictures(folder / "JPEGImages")
    runs = here.run_lengths(folder / "mask_dict.json", here.root / "mask_dict.json")
    return agreeing(file, (_with_runs(video, pictures, runs, text=_spaced) for video in listed.values()))


def _spaced(entry: Entry) -> str:
    return entry.text.replace("_", " ")


def revos(root: str | Path, part: str) -> tuple[Video, ...]:
    """ReVOS: datasets.md, section 3.3.

    Objects are annotation ids of mask_dict.json (`MaskDict`); none for an expression that nothing matches. Tag "kind",
    from `type_id`: "referring" (0), "reasoning" (1) or "absent" (2, left out of VISA's averages). The masks of a video
    also know the key `FOREGROUND`, all annotated objects, which the robustness score wants. Names of files end in an
    underscore, names of videos may hold "/", and Sa2VA and UniPixel keep the videos without `JPEGImages`.

    Args:
        root: the tree, or the folder above it.
        part: "train", "valid", or "train_sub", a smaller train file of the release.

    Returns:
        Videos in the order of the file.

    Raises:
        UsageError: another part.
        InputError: a file or folder is missing or damaged; a `type_id` is not one of the three.
    """
    here = BenchmarkPart.of("revos", root, part)
    names = (f"meta_expressions_{part}_.json", f"meta_expressions_{part}.json")
    file = first_file(*(here.root / name for name in names))
    listed = read_videos(file)
    bare = (here.root / next(iter(listed))).is_dir()
    pictures = here.root if bare else here.pictures(here.root / "JPEGImages")
    runs = here.run_lengths(here.root / "mask_dict.json")
    foreground = here.root / "mask_dict_foreground.json"
    return agreeing(file, (_with_runs(video, pictures, runs, foreground, tags=_kind) for video in listed.values()))


def _kind(entry: Entry) -> dict[str, str]:
    found = entry.fields.get("type_id")
    if str(found) not in REVOS_KINDS:
        raise InputError(f"{entry.where} has type_id {found!r}; wanted 0 referring, 1 reasoning or 2 absent")
    return {"kind": REVOS_KINDS[str(found)]}


def _with_runs(
    listed: ListedVideo,
    pictures: Path,
    runs: Path,
    foreground: Path | None = None,
    text: Callable[[Entry], str] = lambda entry: entry.text,
    tags: Callable[[Entry], dict[str, str]] = lambda entry: {},
) -> Video:
    said = [
        Expression(entry.id, text(entry), needed(entry.keys("anno_id"), entry, "anno_id"), tags(entry))
        for entry in listed.entries
    ]
    images = listed.files(pictures / listed.name, ".jpg")
    return Video(
        listed.name, images, tuple(said), MaskDict(runs, images, (foreground, listed.name) if foreground else None)
    )
