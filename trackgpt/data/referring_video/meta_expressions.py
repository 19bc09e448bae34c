"""Reads `meta_expressions.json`, the file that all referring-video sets share in slightly different forms.

`{"videos": {name: {"frames": [name, ...], "expressions": {id: {"exp": text, "obj_id": ...}}}}}`; `expressions` may be a
list, then its places are the ids, and the text may be called `exp_text`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trackgpt.data.trees import plain_name, read_json
from trackgpt.errors import InputError

_FORM = '{"videos": {name: {"frames": [...], "expressions": {id: {"exp": text}}}}}'


@dataclass(frozen=True)
class Entry:
    """One expression as its file has it.

    Attributes:
        id: its key, or its place in a list, as text.
        text: what is said, without space around it.
        fields: all that the file says of it.
        where: file, video and expression, for errors.
    """

    id: str
    text: str
    fields: Mapping[str, Any]
    where: str

    def keys(self, name: str) -> tuple[str, ...] | None:
        """The objects under `name` as text, None when there is no such field.

        Sets write a string, a whole number, or a list of either (an empty one when nothing matches).

        Raises:
            InputError: it is something else.
        """
        value = self.fields.get(name)
        if value is None:
            return None
        values = value if isinstance(value, list) else [value]
        for one in values:
            if isinstance(one, bool) or not (isinstance(one, int) or (isinstance(one, str) and _is_number(one))):
                raise InputError(f"{self.where} has {name} {value!r}; wanted a number as text, or a list of them")
        return tuple(str(int(one)) for one in values)

    def labels(self) -> tuple[str, ...] | None:
        """`keys("obj_id")` where objects are values of label maps.

        Raises:
            InputError: as `keys`; or an object is 0, the value of the background.
        """
        found = self.keys("obj_id")
        if found is not None and "0" in found:
            raise InputError(f"{self.where} has obj_id 0, which is background in its masks; wanted 1 or more")
        return found


@dataclass(frozen=True)
class ListedVideo:
    """A video as a `meta_expressions.json` lists it.

    Attributes:
        name: its key.
        frames: names of its frames without suffix, sorted: mask_dict.json counts in this order, and some files list
            frames in another.
        entries: its expressions, in the order of the file.
        fields: all that the file says of it ("source", "height", ...).
        where: file and video, for errors.
    """

    name: str
    frames: tuple[str, ...]
    entries: tuple[Entry, ...]
    fields: Mapping[str, Any]
    where: str

    def files(self, folder: Path, suffix: str) -> tuple[Path, ...]:
        """A file for each frame: `folder`/<frame><suffix>; whether they exist is not looked at."""
        return tuple(folder / f"{frame}{suffix}" for frame in self.frames)


def read_videos(path: Path) -> dict[str, ListedVideo]:
    """The videos of a file by name, in its order.

    Raises:
        InputError: the file is missing or no JSON (with line and column), or does not have the form: a video without
            frames or expressions or with a frame twice, an expression without text.
    """
    document = read_json(path)
    videos = document.get("videos") if isinstance(document, dict) else None
    if not isinstance(videos, dict) or not videos:
        raise InputError(f"{path}: holds no videos; wanted {_FORM}; is it another file of that name?")
    return {name: _video(f"{path}: video {name}", name, video) for name, video in videos.items()}


def _video(where: str, name: str, video: Any) -> ListedVideo:
    frames = video.get("frames") if isinstance(video, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(one, str) and one for one in frames):
        raise InputError(f'{where} lists no frames; wanted "frames": names like "00000"; unpack the file again')
    if len(set(frames)) < len(frames):
        raise InputError(f"{where} lists a frame twice; wanted each once; unpack the file again")
    for one in (name, *frames):
        plain_name(one, where)
    return ListedVideo(name, tuple(sorted(frames)), tuple(_entries(where, video.get("expressions"))), video, where)


def _entries(where: str, expressions: Any) -> Iterator[Entry]:
    if isinstance(expressions, list):
        expressions = {str(place): entry for place, entry in enumerate(expressions)}
    if not isinstance(expressions, dict):
        raise InputError(f'{where} has no expressions; wanted "expressions": {{"0": {{"exp": text}}}}')
    for key, entry in expressions.items():
        said = f"{where}, expression {key}"
        fields = entry if isinstance(entry, dict) else {}
        text = fields.get("exp", fields.get("exp_text"))
        if not isinstance(text, str) or not text.strip():
            raise InputError(f'{said} has no text; wanted "exp": a sentence; unpack the file again, or take it out')
        yield Entry(plain_name(key, said), text.strip(), fields, said)


def _is_number(text: str) -> bool:
    return len(text) < 10 and text.isascii() and text.isdigit()
