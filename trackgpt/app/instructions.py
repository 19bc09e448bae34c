"""What is said on the command line and when: `-i`, and scripts, which are files of instructions.

A script is one of

    a JSONL file   {"frame": 240, "text": "the dog", "kind": "correct", "ids": [1], "visual": [{"box": [1, 2, 3, 4]}]}
                   a line each: fields as in `trackgpt.export.prompts`, all but one of text and visual may be left out,
                   "second" may stand for "frame"; an "instruction" line of a run's events.jsonl is taken as it is;
                   {"frame": 240, "choose": 2} says which of several things is meant that fit what was said before
                   about that frame: a number, [1, 3], or a point on it, "320,180"
    a .txt file    InteractTrack's description.txt: one line per frame, blank where nothing is said
    a run folder   everything that was said on the way through its last take
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trackgpt.data.box_files import read_descriptions
from trackgpt.errors import InputError, UsageError
from trackgpt.export.prompts import prompt_from, read_prompts
from trackgpt.settings import parse_json
from trackgpt.types import Prompt

# Without a space, digits after the colon are no instruction: "12:30 train" and "16:9" stay words.
AT_FRAME = re.compile(r"^(\d+):(?: +|(?=[^\s\d]))(.*)$", re.DOTALL)
AT_SECOND = re.compile(r"^@(\d+(?:\.\d+)?):(?: +|(?=[^\s\d]))(.*)$", re.DOTALL)
NO_MOMENT = re.compile(r"^(?:@[^:]*:|-\d+:|\d+:\s*$)")
"""What looks like the moment of an instruction and is none."""
WRITTEN = ("said", "excluded", "instead", "offered", "chosen")
"""Fields that an instruction of a log may have besides those that a person writes."""
FIELDS = ("frame", "second", "text", "kind", "ids", "visual", "choose", *WRITTEN)
LATEST = 10**12
"""No frame or second of a script is later: what a log can hold."""


@dataclass(frozen=True)
class TimedInstruction:
    """An instruction and when it is said: at a frame, or at a second, or at the beginning.

    Attributes:
        how: what is pointed at and what kind it is, as in `Session.say`.
        given: where it was given, for messages.
    """

    text: str
    frame: int | None = None
    second: float | None = None
    how: Mapping[str, Any] = field(default_factory=dict)
    given: str = field(default="", compare=False)


@dataclass(frozen=True)
class SpokenScript:
    """A file of instructions, in the order in which they are said.

    Attributes:
        path: as it was given; empty where there is no script.
    """

    path: str = ""
    said: tuple[TimedInstruction, ...] = ()


def parse_instruction(text: str) -> TimedInstruction:
    """Read "TEXT", "240: TEXT" (a frame) or "@8.5: TEXT" (a second); a leading backslash turns the prefix off.

    Raises:
        UsageError: what stands in front is no moment.
    """
    given = f"-i {text!r}"
    if text.startswith("\\"):
        return TimedInstruction(text[1:], given=given)
    if found := AT_FRAME.match(text):
        return TimedInstruction(found[2], frame=int(found[1]), given=given)
    if found := AT_SECOND.match(text):
        return TimedInstruction(found[2], second=float(found[1]), given=given)
    if NO_MOMENT.match(text):
        advice = "wanted 'FRAME: TEXT' or '@SECONDS: TEXT'; put \\ in front to say it literally"
        raise UsageError(f"-i {text!r}: no moment and words; {advice}")
    return TimedInstruction(text, given=given)


def read_script(path: Path) -> SpokenScript:
    """Read a script, strictly; see the module.

    Raises:
        InputError: it cannot be read, a line of it is no instruction, or it says nothing.
    """
    if not path.exists():
        wanted = "a JSONL file of instructions, a .txt file with a line per frame, or a run folder"
        raise InputError(f"{path}: no such file; wanted a script: {wanted}", "IN01")
    if path.is_dir():
        said = [_timed(prompt, f"{path}, frame {prompt.frame}") for prompt in read_prompts(path)]
    elif path.suffix.lower() == ".txt":
        lines = enumerate(read_descriptions(path))
        said = [TimedInstruction(text, t, given=f"{path}, line {t + 1}") for t, text in lines if text]
    else:
        said = [_of_line(line, f"{path}, line {number}") for number, line in _lines(path)]
    if not said:
        raise InputError(f"{path}: says nothing; wanted an instruction on one line at least")
    return SpokenScript(str(path), tuple(said))


def _lines(path: Path) -> list[tuple[int, bytes]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); wanted a script", "IN01") from error
    return [(number, line) for number, line in enumerate(data.splitlines(), 1) if line.strip()]


def _of_line(line: bytes, where: str) -> TimedInstruction:
    values = parse_json(line, where)
    if not isinstance(values, dict):
        raise InputError(f"{where}: a {type(values).__name__}; wanted an object with {', '.join(FIELDS)}")
    if "type" in values:
        values = _of_event(values, where)
    unknown = [name for name in values if name not in FIELDS]
    if unknown:
        raise InputError(f"{where}: no field {unknown[0]!r:.40}; wanted some of {', '.join(FIELDS)}")
    frame, second = values.pop("frame", None), values.pop("second", None)
    if frame is not None and second is not None:
        raise InputError(f"{where}: frame and second are two moments; wanted one of them")
    if frame is not None and (type(frame) is not int or not 0 <= frame <= LATEST):
        raise InputError(f"{where}: frame {frame!r:.40}; wanted a whole number from 0")
    if second is not None and (type(second) not in (int, float) or not 0 <= second <= LATEST):
        raise InputError(f"{where}: second {second!r:.40}; wanted a number from 0")
    prompt = prompt_from(values, frame or 0, where)
    if "choose" in values:
        return TimedInstruction("", frame, second, {"choose": _choice(values, where)}, where)
    if not (prompt.text.strip() or prompt.visual or prompt.ids or prompt.kind == "drop"):
        raise InputError(f"{where}: says nothing; wanted text, visual or ids")
    timed = _timed(prompt, where)
    how = {name: value for name, value in timed.how.items() if name != "kind" or "kind" in values}
    return TimedInstruction(prompt.text, frame, None if second is None else float(second), how, where)


def _of_event(values: dict[str, Any], where: str) -> dict[str, Any]:
    if values["type"] != "instruction":
        raise InputError(
            f"{where}: an event of type {values['type']!r:.40}; wanted instructions alone, or the run's folder"
        )
    return {"frame": values.get("i", 0)} | {name: value for name, value in values.items() if name in FIELDS}


def _choice(values: Mapping[str, Any], where: str) -> int | str | tuple[int, ...]:
    """Which of several things is meant."""
    chosen = values["choose"]
    if len(values) > 1 or not isinstance(chosen, int | str | list) or isinstance(chosen, bool):
        wanted = 'a number, a list of numbers or "x,y", and frame or second alone beside it'
        raise InputError(f"{where}: choose {chosen!r:.40}; wanted {wanted}")
    return tuple(chosen) if isinstance(chosen, list) else chosen


def _timed(prompt: Prompt, given: str) -> TimedInstruction:
    more = {name: getattr(prompt, name) for name in ("ids", "visual", *WRITTEN)}
    how = {"kind": prompt.kind} | {name: value for name, value in more.items() if value}
    return TimedInstruction(prompt.text, prompt.frame, None, how, given)
