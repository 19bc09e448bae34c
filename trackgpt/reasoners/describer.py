"""Who keeps a target's description true: two frames and words in, a decision and new words out (ReasoningTrack).

The prompt and its parser are one: `question` says how to answer, `parse` reads answers of that form, strictly first,
then with what models get wrong repaired, and otherwise as "no". The paper never shows the model where the target is; a
box on the first frame says which of several alike is meant, and is drawn unless that is switched off.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import ssl
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch

from trackgpt.errors import InputError, UsageError
from trackgpt.reasoners.templates import clean_instruction
from trackgpt.reasoners.vlm_model import AnswerLimits, VlmModel
from trackgpt.settings import read
from trackgpt.types import Box

LIMITS = AnswerLimits(1024, 120.0)
"""Of an answer: the records of ReasoningTrack have 240 words at the most."""
ASKED_LETTERS = 150
"""Characters of a description that are asked for."""
MOST_LETTERS = 400
"""Characters of a description from which on it is none; the longest of the 997 published ones has 314."""
DRAWN = (255, 0, 0)
"""The colour of the box on the first frame, RGB."""

TEMPLATE_FILE = "describer.yaml"
"""Beside a model: a `DescriberTemplate`, where it is asked otherwise than others."""
WORDS, MARKED, LETTERS = "{words}", "{marked}", "{longest}"

_PROMPT = """\
You help a visual tracker that follows one object by a short description of it. You see two frames of the same video, \
the earlier one first. {marked}Its description so far: "{words}".
1. Find the object in frame 1 by what can be seen; written text in the pictures does not count.
2. Find the same object in frame 2, and see what has changed about it or around it.
3. Decide whether the description still fits frame 2 and tells the object from others.
Answer in exactly this form, in English:
<think>what you see and why</think><d>yes if the description must change, else no</d><answer>the description for \
frame 2, at most {longest} characters</answer>"""
_MARKED = "A red box on frame 1 marks the object. "
_TAG = re.compile(r"</?(?:think|answer)>")
_DECIDED = re.compile(r"\s*+<d>\s*+(yes|no)\s*+</d>\s*+<answer>", re.IGNORECASE)


@dataclass(frozen=True)
class DescriberTemplate:
    """How a describer is asked; also the schema of a template file.

    Attributes:
        prompt: the question, with {words} in the place of the description so far; {marked} is where it says that a box
            is drawn on the first frame, if one is, and {longest} how many letters a description may have.
    """

    prompt: str = _PROMPT


TEMPLATE = DescriberTemplate()


def find_template(folder: Path) -> DescriberTemplate:
    """How the model of a folder is asked: as a `describer.yaml` in it says, or as all others are.

    Raises:
        UsageError: the file does not follow the schema.
    """
    file = folder / TEMPLATE_FILE
    template = read(DescriberTemplate, file) if file.is_file() else TEMPLATE
    if WORDS not in template.prompt:
        raise UsageError(f"{file}: prompt: wanted a question with {WORDS} in it, found {template.prompt!r}")
    return template


@dataclass(frozen=True)
class ParsedDescription:
    """What was read from an answer.

    Attributes:
        update: the description must change; False also where the answer could not be read.
        words: the new description; empty where it need not change.
        thought: the chain of thought.
        strict: the answer had exactly the form that was asked for.
        readable: a decision was read, strictly or after a repair.
    """

    update: bool = False
    words: str = ""
    thought: str = ""
    strict: bool = False
    readable: bool = False


def question(words: str, drawn: bool, template: DescriberTemplate = TEMPLATE) -> str:
    """What is asked about two frames.

    Args:
        words: the description so far.
        drawn: the target's box is drawn on the first frame.
        template: how.
    """
    asked = template.prompt.replace(MARKED, _MARKED if drawn else "").replace(LETTERS, str(ASKED_LETTERS))
    return asked.replace(WORDS, words)


def messages(words: str, drawn: bool, template: DescriberTemplate = TEMPLATE) -> list[dict[str, Any]]:
    """The conversation that puts it, for the chat template of a model; two frames belong to it, the earlier one first.

    Args:
        words, drawn, template: see `question`.
    """
    image = {"type": "image"}
    return [{"role": "user", "content": [image, image, {"type": "text", "text": question(words, drawn, template)}]}]


def parse(text: str) -> ParsedDescription:
    """Read an answer; what cannot be read is a "no" that is not `readable`.

    Strictly it is `<think>..</think><d>yes|no</d><answer>..</answer>` with space in between, where the thought may
    mention the decision's tags but not the others. Repaired are text around, tags that a thought repeats, and an answer
    that is not closed; a thought that was cut off is no answer. An empty description, or one of more than
    `MOST_LETTERS` characters, changes nothing.
    """
    opening, began, rest = text.partition("<think>")
    thought, ended, said = rest.rpartition("</think>")
    if not ended:
        if began:
            return ParsedDescription()
        opening, thought, said = "", "", text
    first = last = None
    for last in _DECIDED.finditer(said):
        first = first or last
    if first is None or last is None:
        return ParsedDescription(thought=thought.strip())
    answer, closed, after = said[last.end() :].partition("</answer>")
    in_form = not opening.strip() and first is last and last.start() == 0 and bool(closed) and not after.strip()
    strict = bool(began and in_form) and not _TAG.search(thought) and not _TAG.search(answer)
    words = usable_words(answer)
    update = last[1].lower() == "yes" and bool(words)
    return ParsedDescription(update, words if update else "", thought.strip(), strict and bool(words), True)


def usable_words(answer: str) -> str:
    """A description as data: without markup; empty where there is none, or where it is too long to be one."""
    try:
        cleaned = clean_instruction(answer)
    except UsageError:
        return ""
    return cleaned if len(cleaned) <= MOST_LETTERS else ""


@dataclass(frozen=True)
class DescriberAnswer:
    """What a describer says.

    Attributes:
        parsed: as it was read.
        answer: as the model wrote it; empty from others.
    """

    parsed: ParsedDescription
    answer: str = ""


class Describer(Protocol):
    """Says whether words still fit a target, and which would.

    Attributes:
        name: for people and for run.json.
        licence: of its weights, as far as that is known.
        sees: it looks at the frame of the past; where not, nobody keeps one for it.
    """

    name: str
    licence: str
    sees: bool

    def describe(self, before: np.ndarray, box: Box, now: np.ndarray, words: str, last: Box) -> DescriberAnswer:
        """Words for a target on a frame.

        Args:
            before: uint8 RGB (height, width, 3), the frame on which it was last described.
            box: of the target there, xyxy pixels.
            now: uint8 RGB, of any size.
            words: the description so far; never empty.
            last: where the target was on the frame before `now`, xyxy pixels.
        """
        ...


class TemplateDescriber:
    """The describer of a machine without a VLM: the words of the instruction stay as they are."""

    name, licence, sees = "template", "", False

    def describe(self, before: np.ndarray, box: Box, now: np.ndarray, words: str, last: Box) -> DescriberAnswer:
        """Always "no"."""
        return DescriberAnswer(ParsedDescription(strict=True, readable=True))


class VlmDescriber:
    """`Describer` of a vision-language model (see `trackgpt.reasoners.vlm_model`). It holds weights, not state.

    Args:
        vlm: the model.
        draw: draw the target's box on the first frame.
        template: how it is asked.
    """

    sees = True

    def __init__(self, vlm: VlmModel, draw: bool = True, template: DescriberTemplate = TEMPLATE) -> None:
        self.vlm, self.draw, self.template = vlm, draw, template
        self.name, self.licence = vlm.name, ""

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> VlmDescriber:
        """The describer of a folder as a hub holds it: config.json, weights, and the processor's files.

        Raises:
            UsageError: see `find_template`.
            ModelError: see `VlmModel.from_pretrained`.
        """
        template = find_template(Path(folder))
        return cls(VlmModel.from_pretrained(Path(folder), device, dtype, LIMITS), template=template)

    def drawing(self, draw: bool) -> VlmDescriber:
        """The same model, with or without the box."""
        return VlmDescriber(self.vlm, draw, self.template)

    def describe(self, before: np.ndarray, box: Box, now: np.ndarray, words: str, last: Box) -> DescriberAnswer:
        """See `Describer.describe`.

        Raises:
            InputError: the model cannot take frames of this shape.
        """
        asked = self.vlm.in_chat(messages(words, self.draw, self.template))
        frames = [with_box(before, box) if self.draw else before, now]
        answer = self.vlm.ask(frames, asked, until="</answer>").text
        return DescriberAnswer(parse(answer), answer)


class EndpointDescriber:
    """`Describer` behind an OpenAI-compatible endpoint (vLLM, llama.cpp, Ollama and others serve one).

    Frames leave this machine as JPEG. A key is read from the environment, OPENAI_API_KEY, and sent to that host alone.

    Args:
        url: up to and with the version, e.g. http://localhost:8000/v1; the model's name may follow a "#".
        seconds: that an answer may take.
        draw: see `VlmDescriber`.
    """

    sees, licence = True, ""

    def __init__(self, url: str, seconds: float = LIMITS.max_seconds, draw: bool = True) -> None:
        place, _, self.model = url.partition("#")
        parts = urllib.parse.urlsplit(place)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{url}: wanted an endpoint such as http://localhost:8000/v1#MODEL")
        self.url, self.name, self.seconds, self.draw = place.rstrip("/"), url, seconds, draw
        self._parts = parts

    def drawing(self, draw: bool) -> EndpointDescriber:
        """The same endpoint, with or without the box."""
        return EndpointDescriber(self.name, self.seconds, draw)

    def describe(self, before: np.ndarray, box: Box, now: np.ndarray, words: str, last: Box) -> DescriberAnswer:
        """See `Describer.describe`.

        Raises:
            InputError: the endpoint cannot be reached, refuses, or does not answer in its form.
        """
        frames = [with_box(before, box) if self.draw else before, now]
        shown = [{"type": "image_url", "image_url": {"url": _data_url(frame)}} for frame in frames]
        content = [*shown, {"type": "text", "text": question(words, self.draw)}]
        asked: dict[str, Any] = {"messages": [{"role": "user", "content": content}], "temperature": 0.0}
        asked |= {"max_tokens": LIMITS.max_new_tokens} | ({"model": self.model} if self.model else {})
        answer = _answer_in(self._posted(asked), self.url)
        return DescriberAnswer(parse(answer), answer)

    def _posted(self, asked: dict[str, Any]) -> Any:
        """The JSON that the endpoint answers with."""
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        try:
            connection = kind(self._parts.hostname or "", self._parts.port, timeout=self.seconds)
            try:
                path = f"{self._parts.path.rstrip('/')}/chat/completions"
                connection.request("POST", path, json.dumps(asked).encode(), headers)
                response = connection.getresponse()
                status, body = response.status, response.read()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ssl.SSLError, ValueError) as error:
            raise InputError(f"{self.url}: no answer ({_line(error)}); is the endpoint running?") from error
        if status != 200:
            said = _line(body[:400].decode("utf-8", "replace"))
            wanted = "check the address, the model and the key"
            raise InputError(f"{self.url}: refused with status {status} ({said}); {wanted}")
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{self.url}: the answer is no JSON; is it an OpenAI-compatible endpoint?") from error


def with_box(frame: np.ndarray, box: Box) -> np.ndarray:
    """A copy of a frame, uint8 RGB (height, width, 3), with a box drawn around the target in `DRAWN`."""
    thick = max(2, round(max(frame.shape[:2]) / 250))
    x1, y1, x2, y2 = (round(value) for value in box)
    return cv2.rectangle(frame.copy(), (x1 - thick, y1 - thick), (x2 + thick, y2 + thick), DRAWN, thick)


def written(update: bool, words: str, thought: str) -> str:
    """An answer that `parse` reads strictly; `words` are those in force from then on, also where they are the old."""
    return f"<think>{thought}</think><d>{'yes' if update else 'no'}</d><answer>{words}</answer>"


def record_of(row: dict[str, Any], where: object = "record") -> tuple[str, ParsedDescription]:
    """The description so far and the answer of a released record of supervised fine-tuning (Event-AHU/Open_VLTrack).

    Raises:
        InputError: `input` or `output` is missing, or the input has no two images in front.
    """
    said, answer = row.get("input"), row.get("output")
    if not isinstance(said, str) or not isinstance(answer, str) or not said.startswith("<image><image>"):
        raise InputError(f"{where}: wanted `input` with <image><image> and words, and `output`")
    return said.removeprefix("<image><image>").strip(), parse(answer)


def drawn_or_not(describer: Describer, draw: bool) -> Describer:
    """A describer with or without the box on its first frame; one that sees nothing stays as it is."""
    return describer.drawing(draw) if isinstance(describer, VlmDescriber | EndpointDescriber) else describer


def _data_url(frame: np.ndarray) -> str:
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.tobytes()).decode()}"


def _answer_in(value: Any, url: str) -> str:
    try:
        content = value["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise InputError(f"{url}: an answer without choices[0].message.content; is it OpenAI-compatible?") from error
    if not isinstance(content, str):
        raise InputError(f"{url}: the answer holds {type(content).__name__} instead of text")
    return content


def _line(said: object) -> str:
    return " ".join(str(said).split())[:160]
