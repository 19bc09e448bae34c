"""Vision-language models as grounders: they are asked for boxes in words, and their answers are read.

What differs between families stands in one table, `DIALECTS`: the question, how boxes are written (`answers`), and in
which numbers (`coordinates`). A model of another family is described by a file with the same fields, `grounder.yaml` in
its folder. Decoding is greedy. A model's processor is its own, but for videos, which need torchvision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from trackgpt.errors import ModelError, UsageError
from trackgpt.reasoners.answers import PARSERS, ParsedAnswer
from trackgpt.reasoners.brain_weights import CONFIG_FILE
from trackgpt.reasoners.coordinates import CONVENTIONS, Sizes, placed
from trackgpt.reasoners.expression import lasting_if_understood
from trackgpt.reasoners.grounder import Candidate, Grounding, Nearby
from trackgpt.reasoners.kind_reader import VlmKindReader
from trackgpt.reasoners.policy import KNOWN, WORDS
from trackgpt.reasoners.templates import clean_instruction
from trackgpt.reasoners.vlm_model import AnswerLimits, Spoken, VlmModel
from trackgpt.settings import read, read_json

TEMPLATE_FILE = "grounder.yaml"


@dataclass(frozen=True)
class Dialect:
    """How a model is asked for boxes, and how its answer is to be read; also the schema of a template file.

    Attributes:
        prompt: the question, with {words} in the place of the person's words.
        chat: the question is put, behind the image, into the model's own chat template; where not, it is the whole
            text, with the placeholder of the image if the processor wants one.
        answer: how boxes are written, see `answers.PARSERS`.
        coordinates: in which numbers, see `coordinates.CONVENTIONS`.
        query: the question about several frames, where it is not that of `trackgpt.reasoners.policy.question`: with
            {words}, and {known} where the objects are on the first of them, as far as that is known.
        most_frames: of such a question; 0 for any number.
        first_phrase: the answer goes through the phrases of the words; the boxes of the first one are meant.
        max_new_tokens: an answer is cut off after so many.
        max_seconds: no further token is begun after this time.
        licence: for people.
    """

    prompt: str = ""
    chat: bool = True
    answer: str = field(default="json", metadata={"choices": tuple(PARSERS)})
    coordinates: str = field(default="thousandths", metadata={"choices": tuple(CONVENTIONS)})
    query: str = ""
    most_frames: int = field(default=0, metadata={"range": (0, 64)})
    first_phrase: bool = False
    max_new_tokens: int = field(default=256, metadata={"range": (1, 4096)})
    max_seconds: float = field(default=60.0, metadata={"range": (0.1, 3600.0)})
    licence: str = "not known; read the model's card"


_JSON = (
    "Find in the image: {words}. Answer with a JSON list that has one entry "
    '{"bbox_2d": [x1, y1, x2, y2], "label": "..."} for each object that is meant, and nothing else. '
    "If there is no such object, answer []."
)
_QWEN3 = Dialect(_JSON, licence="Apache-2.0")

DIALECTS: dict[str, Dialect] = {
    "qwen2_vl": Dialect(
        "Detect the bounding box of {words}.", answer="box_tags", licence="Apache-2.0 (2B, 7B); Qwen License (72B)"
    ),
    "qwen2_5_vl": Dialect(
        _JSON, coordinates="seen_pixels", licence="Apache-2.0 (7B, 32B); Qwen Research License, not commercial (3B)"
    ),
    "qwen3_vl": _QWEN3,
    "qwen3_vl_moe": _QWEN3,
    "florence2": Dialect(
        "<CAPTION_TO_PHRASE_GROUNDING>{words}",
        chat=False,
        answer="florence",
        coordinates="bins",
        first_phrase=True,
        licence="MIT, to be verified on the card",
    ),
    "paligemma": Dialect(
        "<image>detect {words}",
        chat=False,
        answer="paligemma",
        coordinates="rows_first_1024",
        licence="Gemma Terms of Use; gated",
    ),
    "kosmos-2": Dialect(
        "<grounding><phrase>{words}</phrase>",
        chat=False,
        answer="kosmos",
        coordinates="cells",
        licence="MIT, to be verified on the card",
    ),
}
"""By transformers' `model_type`. PaliGemma 2 has the type of the first."""


def is_vlm_grounder(folder: Path) -> bool:
    """Whether a folder holds a model of a family of `DIALECTS`, or one with a template file.

    Raises:
        ModelError: MD02, its config.json is damaged.
    """
    if not (folder / CONFIG_FILE).is_file():
        return False
    return (folder / TEMPLATE_FILE).is_file() or read_json(folder / CONFIG_FILE).get("model_type") in DIALECTS


def find_dialect(folder: Path, template: Path | None = None) -> Dialect:
    """How the model of a folder is spoken to: as a template file says, or else as its family is.

    Args:
        folder: of the model; a `grounder.yaml` in it is such a file.
        template: another one, which is taken instead.

    Raises:
        UsageError: the template is not there, or does not follow the schema.
        ModelError: MD01 there is no config.json; MD06 the family is not known and there is no template.
    """
    model_type = str(read_json(folder / CONFIG_FILE).get("model_type"))
    inside = folder / TEMPLATE_FILE
    if template is None and inside.is_file():
        template = inside
    if template is not None:
        dialect = read(Dialect, template)
        if WORDS not in dialect.prompt:
            raise UsageError(f"{template}: prompt: wanted a question with {WORDS} in it, found {dialect.prompt!r}")
        if dialect.query and not all(part in dialect.query for part in (WORDS, KNOWN)):
            raise UsageError(
                f"{template}: query: wanted a question with {WORDS} and {KNOWN} in it, found {dialect.query!r}"
            )
        if dialect.most_frames == 1:
            raise UsageError(f"{template}: most_frames: wanted 0 for any number, or at least 2, found 1")
        return dialect
    if model_type == "None":
        raise ModelError(f"{folder}: is no vision-language model, as its config.json names no model_type", "MD06")
    if model_type not in DIALECTS:
        known = ", ".join(DIALECTS)
        advice = f"describe how it answers in a file {TEMPLATE_FILE} beside it"
        raise ModelError(f"{folder}: no grounder of the type {model_type!r} is known ({known}); {advice}", "MD06")
    return DIALECTS[model_type]


class VlmGrounder:
    """`Grounder` of a vision-language model. It holds weights, not state.

    A candidate's score is the mean probability of the tokens of its numbers: how sure the model is of what it wrote,
    not how often such a box is right. An answer that cannot be read leaves the words unjudged, and finds nothing; one
    that says that there is no such object only finds nothing.

    Args:
        vlm: the model.
        dialect: how it is asked.

    Attributes:
        name: for people and for run.json.
        licence: for people.
        reads_motion: it looks at one image.
    """

    reads_motion, checks_every = False, 0

    def __init__(self, vlm: VlmModel, dialect: Dialect) -> None:
        self._vlm, self.dialect = vlm, dialect
        self.model, self.processor, self.name = vlm.model, vlm.processor, vlm.name
        self.licence = dialect.licence

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        template: Path | None = None,
    ) -> VlmGrounder:
        """The grounder of a folder as a hub holds it: config.json, weights, and the processor's files.

        Args:
            folder: of the model.
            device: where it computes.
            dtype: of the weights in memory, whatever they are stored as.
            template: see `find_dialect`.

        Raises:
            UsageError: see `find_dialect`.
            ModelError: see `find_dialect` and `VlmModel.from_pretrained`.
        """
        dialect = find_dialect(Path(folder), template)
        limits = AnswerLimits(dialect.max_new_tokens, dialect.max_seconds)
        return cls(VlmModel.from_pretrained(Path(folder), device, dtype, limits, dialect.chat), dialect)

    @property
    def reader(self) -> VlmKindReader | None:
        """The same model asked for kinds of instructions; None for a family that answers no such question."""
        return VlmKindReader(self._vlm) if self.dialect.chat else None

    def later(self, words: str) -> str:
        """See `Grounder.later`."""
        return lasting_if_understood(words)

    def ground(self, image: np.ndarray, words: str, nearby: Sequence[Nearby] = ()) -> Grounding:
        """See `Grounder.ground`; markup in the words is taken out, and other frames are not looked at.

        Raises:
            UsageError: NL01, there are no words.
            InputError: the model cannot take an image of this shape.
        """
        asked = clean_instruction(words)
        text = self.dialect.prompt.replace(WORDS, asked)
        if self.dialect.chat:
            content = [{"type": "image"}, {"type": "text", "text": text}]
            text = self._vlm.in_chat([{"role": "user", "content": content}])
        spoken = self._vlm.ask([image], text)
        answer = PARSERS[self.dialect.answer](spoken.text)
        return self._grounding(answer, spoken, Sizes((image.shape[1], image.shape[0]), spoken.seen), asked)

    def _grounding(self, answer: ParsedAnswer, spoken: Spoken, view: Sizes, words: str) -> Grounding:
        convention = CONVENTIONS[self.dialect.coordinates]
        boxes = {}  # of equal ones, which a model that cannot end repeats, the first
        for region in answer.regions:
            if (box := placed(region.numbers, convention, view)) is not None and box not in boxes:
                boxes[box] = region
        if not boxes and (answer.regions or not answer.readable):
            return Grounding(unjudged=(words,), answer=spoken.text)
        meant = next(iter(boxes.values())).label if boxes and self.dialect.first_phrase else None
        found: list[Candidate] = []
        rivals: list[Candidate] = []
        for box, region in boxes.items():
            one = Candidate(box, spoken.certainty(region.span), region.label or words)
            (found if meant is None or region.label == meant else rivals).append(one)
        return Grounding(_surest_first(found), _surest_first(rivals), answer=spoken.text)


def _surest_first(candidates: list[Candidate]) -> tuple[Candidate, ...]:
    return tuple(sorted(candidates, key=lambda one: -(one.score or 0.0)))
