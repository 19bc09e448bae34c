"""LLaVA-Instruct-150k: conversations about pictures, in words alone.

The file is one JSON list of 150,000 records. It is scanned once for where each record begins and ends (two integers a
record are kept), and a record is parsed when it is asked for: training draws them at random, so a stream would not do.
Measured on 150,000 random records (125 MiB): the scan takes 3.8 s and the index 2.3 MiB, a record 0.08 ms; the process
grows by 2.9 MiB in all, where all conversations parsed take 230 MiB in every worker. The `datasets` library is not used
for this: it reads a JSON list whole before it cuts it, copies it into its own cache, and guesses a schema from the
first rows, while this takes a seek and a read, gives exactly the file's own records, and needs nothing installed.

Source: dvlab-research/LISA@3cb2d43 utils/vqa_dataset.py; the form is that of haotian-liu/LLaVA.
"""

from __future__ import annotations

import mmap
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trackgpt.data.image_trees import COCO_2017, TREES
from trackgpt.data.images import Conversation, Round
from trackgpt.data.trees import find_tree
from trackgpt.errors import InputError
from trackgpt.settings import parse_json

IMAGE_TOKEN = "<image>"
"""LLaVA's placeholder of the picture, first or last in the first question; readers take it out."""

_ROLES = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt"}
_STRING_OR_BRACE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[{}]', re.DOTALL)
"""A string that is not closed reaches to the end of the file, so that nothing is looked at twice."""


@dataclass(frozen=True, eq=False)
class ConversationFile:
    """Conversations of a JSON list, or of a file of one JSON object per line, parsed one by one when asked for.

    Attributes:
        file: the list of {"id", "image", "conversations": [{"from": "human" or "gpt", "value"}]}.
        images: the folder of the pictures; a record without "image" shows none.
        spans: int64 (records, 2), the first byte of each record and the one after its last.
    """

    file: Path
    images: Path
    spans: np.ndarray

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, index: int, /) -> Conversation:
        """One conversation.

        Raises:
            IndexError: there is no such record.
            InputError: the record is no conversation; its number and place are named.
        """
        begin, end = (int(place) for place in self.spans[index])
        try:
            with self.file.open("rb") as file:
                file.seek(begin)
                data = file.read(end - begin)
            return _conversation(parse_json(data, f"{self.file}: record {index}, at byte {begin}"), self.images)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{self.file}: record {index}, at byte {begin}: {error}; "
                "wanted id and conversations, questions of human and answers of gpt by turns"
            ) from error

    def __iter__(self) -> Iterator[Conversation]:
        return (self[index] for index in range(len(self)))


def llava_instruct(root: Path, name: str = "llava_instruct_150k") -> ConversationFile:
    """LLaVA-Instruct-150k, whose pictures are those of COCO's train2017.

    Args:
        root: LISA's ``dataset/``: ``llava_dataset/<name>.json`` and ``coco/train2017``. Sa2VA's ``llava_data`` does.
        name: of the file, without ".json".

    Returns:
        The conversations in the order of the file.

    Raises:
        InputError: the file or the folder of pictures is missing, or the file is cut off or no list of objects.
    """
    file = find_tree(replace(TREES["llava-instruct"], marks=(f"{name}.json",)), root) / f"{name}.json"
    images = find_tree(COCO_2017, root) / "train2017"
    return ConversationFile(file, images, record_spans(file))


def record_spans(file: Path) -> np.ndarray:
    """Where the objects of a JSON list (or of a file of one object per line) lie, without parsing them.

    Args:
        file: UTF-8.

    Returns:
        int64 (records, 2): the first byte of each object and the one after its last.

    Raises:
        InputError: the file is missing, empty, cut off, or holds no objects.
    """
    try:
        with file.open("rb") as opened:
            data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: not readable ({error}); wanted a JSON list of conversations") from error
    places, depth = array("q"), 0
    for found in _STRING_OR_BRACE.finditer(data):
        brace = data[found.start()]
        if brace == ord("{"):
            if depth == 0:
                places.append(found.start())
            depth += 1
        elif brace == ord("}"):
            depth -= 1
            if depth == 0:
                places.append(found.end())
    listed = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    closed = data[-64:].rstrip().endswith(b"]")
    if depth != 0 or listed != closed or len(places) % 2:
        raise InputError(f"{file}: the JSON is not closed; is it cut off? copy it again")
    if not places:
        raise InputError(f"{file}: no objects; wanted a JSON list of conversations")
    return np.array(places, np.int64).reshape(-1, 2)


def _conversation(record: Mapping[str, Any], images: Path) -> Conversation:
    """A record of LLaVA's form. What comes before the first question is left out, as LISA does."""
    turns = [(_ROLES[turn["from"]], str(turn["value"])) for turn in record["conversations"]]
    if turns and turns[0][0] != "human":
        turns = turns[1:]
    if not turns or [role for role, _ in turns] != ["human", "gpt"] * (len(turns) // 2):
        raise ValueError(f"speakers {[role for role, _ in turns][:4]}")
    texts = [text.replace(IMAGE_TOKEN, "").strip() for _, text in turns]
    image = record.get("image")
    return Conversation(str(record["id"]), images / image if image else None, _rounds(texts))


def _rounds(texts: Sequence[str]) -> tuple[Round, ...]:
    """Questions and answers by turns, in pairs."""
    return tuple(Round(question, answer) for question, answer in zip(texts[::2], texts[1::2], strict=True))
