"""What was said in a run, as its log keeps it: words, kind, identities, and what was shown, masks as run lengths.

Words that were written out are kept beside those that were said: "text":"the black dog","said":"no, the black one".
Where a person chose among several things that fit the words, "offered" has their boxes and "chosen" the numbers; such
an instruction stands in the place of the one about the same frame that it answers.

    {"type":"instruction", ..., "text":"","kind":"add","ids":[2],"visual":[{"box":[10,20,40,60],
     "points":[[30.5,40.5,1]],"mask":{"size":[480,854],"rle":"..."}}]}

Numbers of what was shown are kept exactly, so that what is read back and said again gives the same track.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trackgpt.errors import InputError, UsageError
from trackgpt.export.records import EventRecord, events_of_take, read_takes
from trackgpt.geometry.masks import decode_rle, encode_rle, is_size
from trackgpt.geometry.pointing import visual_prompts
from trackgpt.types import OUTSIDE_TRACK, PROMPT_KINDS, Box, Prompt, VisualPrompt


def written_prompt(prompt: Prompt) -> dict[str, Any]:
    """The fields of an "instruction" event; what is empty is left out, but for the words."""
    more = {
        "ids": list(prompt.ids),
        "visual": [_written(shown) for shown in prompt.visual],
        "said": prompt.said,
        "excluded": list(prompt.excluded),
        "instead": list(prompt.instead),
        "offered": [list(box) for box in prompt.offered],
        "chosen": list(prompt.chosen),
    }
    return {"text": prompt.text, "kind": prompt.kind} | {name: value for name, value in more.items() if value}


def _written(shown: VisualPrompt) -> dict[str, Any]:
    mask = None if shown.mask is None else {"size": list(shown.mask.shape), "rle": encode_rle(shown.mask)}
    values = {"box": shown.box and list(shown.box), "points": [list(point) for point in shown.points], "mask": mask}
    return {name: value for name, value in values.items() if value}


def prompt_of(event: EventRecord) -> Prompt:
    """The prompt of an "instruction" event.

    Raises:
        InputError: its fields are none of `written_prompt`.
    """
    return prompt_from(event.data, event.index, f"instruction of frame {event.index}")


def prompt_from(data: Mapping[str, Any], frame: int, where: str) -> Prompt:
    """The prompt of fields as `written_prompt` gives them; all may be left out.

    Args:
        data: the fields; others are not looked at.
        frame: the one that it is about.
        where: names them in a message.

    Raises:
        InputError: a field holds something else.
    """
    text, kind = data.get("text", ""), data.get("kind", "start")
    ids, shown = data.get("ids", []), data.get("visual", [])
    said, excluded, instead = data.get("said", ""), data.get("excluded", []), data.get("instead", [])
    if kind not in PROMPT_KINDS or not isinstance(text, str):
        raise InputError(f"{where}: kind {kind!r:.40}; wanted a text and one of {', '.join(PROMPT_KINDS)}")
    for name, numbers in (("ids", ids), ("excluded", excluded)):
        if not isinstance(numbers, list) or not all(type(number) is int and number >= 1 for number in numbers):
            raise InputError(f"{where}: {name} {numbers!r:.40}; wanted whole numbers from 1")
    if not isinstance(instead, list) or not all(isinstance(words, str) for words in (said, *instead)):
        raise InputError(f"{where}: said {said!r:.40}, instead {instead!r:.40}; wanted text, and a list of texts")
    if not isinstance(shown, list) or not all(isinstance(values, dict) for values in shown):
        raise InputError(f"{where}: visual {shown!r:.40}; wanted objects with box, points or mask")
    if ids and shown and len(ids) != len(shown):
        raise InputError(f"{where}: {len(ids)} ids for {len(shown)} visual; wanted one of each per target")
    try:
        visual = visual_prompts([_shown(values) for values in shown])
    except (InputError, UsageError) as error:
        raise InputError(f"{where}: {error.message}") from error
    offered, chosen = _offered(data, where)
    return Prompt(text, frame, kind, tuple(ids), visual, said, tuple(excluded), tuple(instead), offered, chosen)


def _offered(data: Mapping[str, Any], where: str) -> tuple[tuple[Box, ...], tuple[int, ...]]:
    """The boxes among which a person chose, and the numbers of those that were chosen."""
    boxes, numbers = data.get("offered", []), data.get("chosen", [])
    if not numbers and "chosen" not in data:
        return (), ()
    try:
        found = tuple(shown.box for shown in visual_prompts([VisualPrompt(box) for box in boxes]))
    except (TypeError, InputError, UsageError) as error:
        raise InputError(f"{where}: offered {boxes!r:.40}; wanted boxes x1, y1, x2, y2") from error
    whole = isinstance(numbers, list) and all(type(each) is int and 1 <= each <= len(found) for each in numbers)
    if not whole or not numbers or len(set(numbers)) != len(numbers):
        raise InputError(f"{where}: chosen {numbers!r:.40}; wanted numbers from 1 to {len(found)}, none twice")
    return tuple(box for box in found if box is not None), tuple(numbers)


def _shown(values: Mapping[str, Any]) -> VisualPrompt:
    mask = values.get("mask")
    if mask is not None:
        size = mask.get("size") if isinstance(mask, dict) else None
        if not isinstance(size, list) or not is_size(*size) or not isinstance(mask.get("rle"), str):
            raise InputError(f"mask {mask!r:.40}; wanted its size, [height, width], and its run lengths")
        mask = decode_rle(mask["rle"], *size)
    return VisualPrompt(values.get("box"), values.get("points", []), mask)


def read_prompts(run: str | Path, take: int | None = None) -> list[Prompt]:
    """What was said on the way through a take, the last one by default, as its frames were tracked; by frame.

    Said again to the same system about the same frames, it gives the same track (`trackgpt.online.follow`).

    Raises:
        InputError: the folder holds no run, or a damaged one.
        UsageError: there is no such take.
    """
    takes = read_takes(run)
    wanted = take if take is not None or not takes else takes[-1].number
    said: list[list[Prompt]] = []  # each with what was chosen in its place, the last of which holds
    for event in events_of_take(run, take):
        if event.type == "instruction":
            prompt = prompt_of(event)
            if said and answers(prompt, said[-1][-1]):
                said[-1].append(prompt)
            elif prompt.kind not in OUTSIDE_TRACK:
                said.append([prompt])
        elif event.type == "undo" and (event.take != wanted or not event.data.get("recorded")):
            taken_back = said[-1:] if said and said[-1][-1].frame == event.data.get("frame") else []
            for each in taken_back:
                each.pop()
            said = [each for each in said if each]
    return [each[-1] for each in said]


def answers(prompt: Prompt, other: Prompt) -> bool:
    """Whether a prompt says which of several things another one means, and stands in its place."""
    return bool(prompt.chosen) and (prompt.frame, prompt.kind, prompt.text) == (other.frame, other.kind, other.text)
