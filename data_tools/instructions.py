"""The annotation file that InsTrack is built from: one JSON object per line (see `data_tools/INSTRUCTIONS.md`)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trackgpt.errors import InputError
from trackgpt.files import write_whole, writing
from trackgpt.settings import parse_json

SOURCES = ("refer-davis17", "vipseg")
SPLITS = ("train", "test")
PARAPHRASES = 5  # of a seed instruction
_NEEDED = ("source", "video", "objects", "split", "instruction")
_FIELDS = (*_NEEDED, "answer", "paraphrases", "rephrased_by", "note")


@dataclass(frozen=True)
class Instruction:
    """What a person asks about a video, and what it means.

    Attributes:
        source: the data set that the video is from, one of `SOURCES`.
        video: its name there.
        objects: their values in the masks there; none when nothing in the video matches.
        split: the part of InsTrack that it goes to, one of `SPLITS`.
        instruction: the seed, as a person wrote it.
        answer: what a tracker should say, "" where nobody wrote one.
        paraphrases: of the seed: `PARAPHRASES`, or none yet.
        rephrased_by: the model that wrote them, "" for a person or unknown.
        note: anything; it is kept and not read.
        where: file and line, for errors.
    """

    source: str
    video: str
    objects: tuple[int, ...]
    split: str
    instruction: str
    answer: str = ""
    paraphrases: tuple[str, ...] = ()
    rephrased_by: str = ""
    note: str = ""
    where: str = field(default="", compare=False)

    def to_json(self) -> str:
        """One line, without fields that say nothing."""
        values: dict[str, Any] = {name: getattr(self, name) for name in _FIELDS}
        kept = {name: value for name, value in values.items() if name in _NEEDED or value}
        return json.dumps(kept, ensure_ascii=False)


def read_instructions(path: Path) -> tuple[Instruction, ...]:
    """An annotation file; blank lines are skipped.

    Raises:
        InputError: it is missing, empty, or a line is no annotation; file and line are named.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); wanted one JSON object per line, in UTF-8") from error
    lines = [(f"{path}:{number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise InputError(f"{path}: empty; wanted one JSON object per line (data_tools/INSTRUCTIONS.md)")
    return tuple(_instruction(where, line) for where, line in lines)


def write_instructions(path: Path, instructions: Iterable[Instruction]) -> None:
    """Write an annotation file as a whole.

    Raises:
        OutputError: OUT02, it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (f"{one.to_json()}\n" for one in instructions))


def _instruction(where: str, line: str) -> Instruction:
    values = parse_json(line, where)
    if not isinstance(values, dict):
        raise InputError(f"{where}: a {type(values).__name__}; wanted an object with {', '.join(_NEEDED)}")
    unknown, lacking = [name for name in values if name not in _FIELDS], [one for one in _NEEDED if one not in values]
    if unknown:
        raise InputError(f"{where}: unknown field {unknown[0]!r}; wanted some of {', '.join(_FIELDS)}")
    if lacking:
        raise InputError(f"{where}: lacks {lacking[0]!r}; wanted {', '.join(_NEEDED)}")
    return Instruction(
        source=_one_of(where, values, "source", SOURCES),
        video=_text(where, values, "video"),
        objects=_objects(where, values["objects"]),
        split=_one_of(where, values, "split", SPLITS),
        instruction=_text(where, values, "instruction"),
        answer=_text(where, values, "answer", ""),
        paraphrases=_paraphrases(where, values.get("paraphrases", [])),
        rephrased_by=_text(where, values, "rephrased_by", ""),
        note=_text(where, values, "note", ""),
        where=where,
    )


def _text(where: str, values: dict[str, Any], name: str, default: str | None = None) -> str:
    value = values.get(name, default)
    if not isinstance(value, str) or (default is None and not value.strip()):
        raise InputError(f"{where}: {name} is {value!r}; wanted text")
    return value.strip()


def _one_of(where: str, values: dict[str, Any], name: str, choices: tuple[str, ...]) -> str:
    value = values[name]
    if value not in choices:
        raise InputError(f"{where}: {name} is {value!r}; wanted {' or '.join(choices)}")
    return str(value)


def _objects(where: str, value: Any) -> tuple[int, ...]:
    listed = value if isinstance(value, list) else [value]
    if any(isinstance(one, bool) or not isinstance(one, int) or one < 1 for one in listed):
        raise InputError(f"{where}: objects is {value!r}; wanted a list of values of the masks, 1 or more")
    if len(set(listed)) < len(listed):
        raise InputError(f"{where}: objects is {value!r}; wanted each object once")
    return tuple(listed)


def _paraphrases(where: str, value: Any) -> tuple[str, ...]:
    sound = isinstance(value, list) and all(isinstance(one, str) and one.strip() for one in value)
    if not sound or len(value) not in (0, PARAPHRASES):
        raise InputError(f"{where}: paraphrases is {str(value)[:60]!r}; wanted {PARAPHRASES} texts, or no such field")
    return tuple(one.strip() for one in value)
