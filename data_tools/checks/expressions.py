"""Checks of `meta_expressions.json`: what is wrong in one is reported and left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.checks.report import Report
from trackgpt.data.trees import read_json
from trackgpt.errors import InputError

Entry = dict[str, Any]
Videos = dict[str, dict[str, Any]]
Fault = Callable[[Entry], tuple[str, str] | None]  # what is wrong with an entry, and what was wanted


def load(report: Report, path: Path, wanted: str = "a whole JSON file in UTF-8") -> Any:
    """A JSON document; None, and a problem, when it cannot be read."""
    try:
        return read_json(path, ("utf-8",))
    except InputError as error:
        report.problem(path, f"cannot be read ({str(error).removeprefix(f'{path}: ')})", wanted)
        return None


def read(report: Report, path: Path, part: str, fault: Fault) -> Videos:
    """The sound videos of a file by name.

    Args:
        report: takes problems, and counts of videos and expressions.
        path: the file.
        part: to count them under.
        fault: what is wrong with the objects of an entry, if anything.

    Returns:
        What the file says of each video, where "frames" is a sorted list of strings and "expressions" a dict of sound
        entries; a list of expressions becomes one whose keys are its places.
    """
    return _Expressions(report, path, part, fault).read()


@dataclass
class _Expressions:
    report: Report
    path: Path
    part: str
    fault: Fault

    def read(self) -> Videos:
        document = load(self.report, self.path)
        videos = document.get("videos") if isinstance(document, dict) else None
        if not isinstance(videos, dict) or not videos:
            if document is not None:
                self.report.problem(self.path, "holds no videos", '{"videos": {name: {"expressions", "frames"}}}')
            return {}
        sound = {}
        for name, video in videos.items():
            if not self._is_sound(name, video):
                self.report.count_wrong(self.part, videos=1)
                continue
            listed = video["expressions"]
            listed = {str(k): entry for k, entry in enumerate(listed)} if isinstance(listed, list) else listed
            entries = {key: entry for key, entry in listed.items() if self._entry(name, key, entry)}
            sound[name] = {**video, "frames": sorted(video["frames"]), "expressions": entries}
            self.report.count(self.part, videos=1, expressions=len(entries))
            if len(entries) < len(listed):
                self.report.count_wrong(self.part, expressions=len(listed) - len(entries))
        return sound

    def _is_sound(self, name: str, video: Any) -> bool:
        frames = video.get("frames") if isinstance(video, dict) else None
        if not isinstance(frames, list) or not frames or not all(isinstance(one, str) and one for one in frames):
            self.report.problem(self.path, f"video {name} lists no frames", '"frames": a list of names like "00000"')
            return False
        if len(set(frames)) < len(frames):
            self.report.problem(self.path, f"video {name} lists a frame twice", "each frame once")
        if frames != sorted(frames):
            self.report.note(self.path, f"video {name} lists its frames out of order; readers sort them")
        if not isinstance(video.get("expressions"), dict | list) or not video["expressions"]:
            self.report.problem(self.path, f"video {name} has no expressions", '"expressions": {"0": {"exp": text}}')
            return False
        return True

    def _entry(self, name: str, key: str, entry: Any) -> bool:
        where = f"video {name}, expression {key}"
        text = entry.get("exp", entry.get("exp_text")) if isinstance(entry, dict) else None
        if not isinstance(text, str) or not text.strip():
            self.report.problem(self.path, f"{where} has no text", '"exp": a sentence')
            return False
        if not is_number(key):
            self.report.problem(self.path, f"{where} is not numbered", 'ids like "0", "1", "2"')
            return False
        found = self.fault(entry)
        if found is not None:
            self.report.problem(self.path, f"{where} {found[0]}", found[1])
        return found is None


def one_label(entry: Entry) -> tuple[str, str] | None:
    """Fault of an entry that must name one object of label maps, as text."""
    label = entry.get("obj_id")
    if label is None:
        return "names no object", '"obj_id": a string like "1"'
    if not isinstance(label, str) or not is_number(label) or label == "0":
        return f"has obj_id {label!r}", 'a string like "1"'
    return None


def some_labels(entry: Entry) -> tuple[str, str] | None:
    """Fault of an entry that must list objects of label maps."""
    return _listed(entry, "obj_id", least=1)


def annotations(entry: Entry) -> tuple[str, str] | None:
    """Fault of an entry that must list annotations of a mask_dict.json."""
    return _listed(entry, "anno_id", least=0)


def _listed(entry: Entry, name: str, least: int) -> tuple[str, str] | None:
    keys, wanted = entry.get(name), f'"{name}": a list of numbers from {least} on, empty when nothing matches'
    if keys is None:
        return "names no object", wanted
    sound = isinstance(keys, list) and all(is_number(str(key)) and int(key) >= least for key in keys)
    return None if sound else (f"has {name} {keys!r}", wanted)


def blind(part: str) -> Fault:
    """Fault of an entry of a part whose truth its authors keep: it names an object."""

    def fault(entry: Entry) -> tuple[str, str] | None:
        label = entry.get("obj_id")
        return None if label is None else (f"has obj_id {label!r}", f"none: the part {part} is blind")

    return fault


def is_number(text: str) -> bool:
    """Whether a text is a whole number as `str` writes it."""
    return len(text) < 10 and text.isascii() and text.isdigit() and str(int(text)) == text


def keys_of(entry: Entry, name: str) -> list[str]:
    """The objects of a sound entry as text, whether it has one or a list."""
    value = entry.get(name, [])
    return [str(one) for one in (value if isinstance(value, list) else [value])]
