"""Vision-language models as grounders: they are asked for boxes in words, and their answers are read.

What differs between families stands in one table, `DIALECTS`: the question, how boxes are written (`answers`), and in
which numbers (`coordinates`). A model of another family is described by a file with the same fields, `grounder.yaml` in
its folder. Decoding is greedy. A model's processor is its own, but for videos, which need torchvision.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trackgpt.errors import InputError, ModelError, UsageError
from trackgpt.reasoners.answers import PARSERS, ParsedAnswer, Region
from trackgpt.reasoners.brain_weights import CONFIG_FILE, IMAGE_FILES, TOKENIZER_FILES, load_vlm
from trackgpt.reasoners.coordinates import CONVENTIONS, Sizes, placed
from trackgpt.reasoners.expression import lasting_if_understood
from trackgpt.reasoners.grounder import Candidate, Grounding, Nearby
from trackgpt.reasoners.templates import clean_instruction
from trackgpt.settings import read, read_json
from trackgpt.weights import refuse_pointer

TEMPLATE_FILE = "grounder.yaml"
WORDS = "{words}"
MOST_SCORE = 0.999
"""No score is 1: a probability that rounds to it says nothing about whether the box is right."""


@dataclass(frozen=True)
class Dialect:
    """How a model is asked for boxes, and how its answer is to be read; also the schema of a template file.

    Attributes:
        prompt: the question, with {words} in the place of the person's words.
        chat: the question is put, behind the image, into the model's own chat template; where not, it is the whole
            text, with the placeholder of the image if the processor wants one.
        answer: how boxes are written, see `answers.PARSERS`.
        coordinates: in which numbers, see `coordinates.CONVENTIONS`.
        first_phrase: the answer goes through the phrases of the words; the boxes of the first one are meant.
        max_new_tokens: an answer is cut off after so many.
        max_seconds: no further token is begun after this time.
        licence: for people.
    """

    prompt: str = ""
    chat: bool = True
    answer: str = field(default="json", metadata={"choices": tuple(PARSERS)})
    coordinates: str = field(default="thousandths", metadata={"choices": tuple(CONVENTIONS)})
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
        return dialect
    if model_type not in DIALECTS:
        known = ", ".join(DIALECTS)
        advice = f"describe how it answers in a file {TEMPLATE_FILE} beside it"
        raise ModelError(f"{folder}: no grounder of the type {model_type!r} is known ({known}); {advice}", "MD06")
    return DIALECTS[model_type]


class _Piece(NamedTuple):
    """One token of an answer: where it stands in the text, and how probable it was."""

    first: int
    last: int
    probability: float


class VlmGrounder:
    """`Grounder` of a vision-language model. It holds weights, not state.

    A candidate's score is the mean probability of the tokens of its numbers: how sure the model is of what it wrote,
    not how often such a box is right. An answer that cannot be read leaves the words unjudged, and finds nothing; one
    that says that there is no such object only finds nothing.

    Args:
        model: filled, in evaluation mode, on its device.
        processor: the model's own.
        dialect: how it is asked.
        name: for people.
        settings: of generation, greedy.

    Attributes:
        name: for people and for run.json.
        licence: for people.
        reads_motion: it looks at one image.
    """

    reads_motion, checks_every = False, 0

    def __init__(self, model: Any, processor: Any, dialect: Dialect, name: str, settings: Any) -> None:
        self.model = model
        self.processor = processor
        self.dialect = dialect
        self.name = name
        self.licence = dialect.licence
        self._settings = settings

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
            ModelError: MD01 something is missing, named; MD02 it is damaged, or weights of the model are missing; MD06
                the model is of no known type, or its processor needs a package that is not here.
        """
        folder = Path(folder)
        dialect = find_dialect(folder, template)
        processor = _load_processor(folder)
        if dialect.chat:
            _check_chat(folder, processor)
        model, _ = load_vlm(folder, dtype)
        settings = _greedy(folder, model, processor.tokenizer, dialect)
        return cls(model.eval().to(device), processor, dialect, folder.resolve().name, settings)

    @torch.inference_mode()
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
        inputs = self._inputs(image, asked)
        ids, probabilities = self._generate(inputs)
        text, pieces = self._decode(ids, probabilities)
        answer = PARSERS[self.dialect.answer](text)
        view = Sizes((image.shape[1], image.shape[0]), self._seen(inputs))
        return self._grounding(answer, text, pieces, view, asked)

    def _inputs(self, image: np.ndarray, words: str) -> dict[str, Any]:
        text = self.dialect.prompt.replace(WORDS, words)
        if self.dialect.chat:
            text = _in_chat(self.processor, text)
        picture = _uncropped(Image.fromarray(image), self.processor.image_processor)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # PaliGemma's makes an array of a tensor
                given = self.processor(images=[picture], text=[text], return_tensors="pt")
        except ValueError as error:
            height, width = image.shape[:2]
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"{self.name} cannot take an image of {width} x {height} pixels: {reason}") from error
        return {name: self._moved(value) for name, value in given.items() if name != "labels"}

    def _moved(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.to(self.model.device, self.model.dtype if value.is_floating_point() else value.dtype)

    def _seen(self, inputs: dict[str, Any]) -> tuple[int, int]:
        """Width and height in pixels of what the network was given."""
        if "image_grid_thw" in inputs:
            _, rows, columns = inputs["image_grid_thw"][0].tolist()
            side = int(self.model.config.vision_config.patch_size)
            return columns * side, rows * side
        height, width = inputs["pixel_values"].shape[-2:]
        return int(width), int(height)

    def _generate(self, inputs: dict[str, Any]) -> tuple[list[int], list[float]]:
        """The ids of an answer without those that begin, end or fill it, and the probability of each."""
        from transformers import LogitsProcessorList

        watched = _Probabilities()
        made = self.model.generate(
            **inputs, generation_config=self._settings, logits_processor=LogitsProcessorList([watched])
        )
        answered = made[0, made.shape[1] - len(watched.seen) :].tolist()
        likely = torch.stack(watched.seen).tolist()
        words = self.processor.tokenizer
        frame = {words.bos_token_id, words.pad_token_id, *self._settings.eos_token_id}
        kept = [(i, p) for i, p in zip(answered, likely, strict=True) if i not in frame]
        return [i for i, _ in kept], [p for _, p in kept]

    def _decode(self, ids: list[int], probabilities: list[float]) -> tuple[str, list[_Piece]]:
        """The text of an answer, special tokens written out, and its tokens."""

        def text_of(some: list[int]) -> str:
            decode = self.processor.tokenizer.decode
            return str(decode(some, skip_special_tokens=False, clean_up_tokenization_spaces=False))

        ends = [len(text_of(ids[: i + 1])) for i in range(len(ids))]
        return text_of(ids), [_Piece(*each) for each in zip([0, *ends], ends, probabilities)]

    def _grounding(self, answer: ParsedAnswer, text: str, pieces: list[_Piece], view: Sizes, words: str) -> Grounding:
        convention = CONVENTIONS[self.dialect.coordinates]
        boxes = {}  # of equal ones, which a model that cannot end repeats, the first
        for region in answer.regions:
            if (box := placed(region.numbers, convention, view)) is not None and box not in boxes:
                boxes[box] = region
        if not boxes and (answer.regions or not answer.readable):
            return Grounding(unjudged=(words,), answer=text)
        meant = next(iter(boxes.values())).label if boxes and self.dialect.first_phrase else None
        found: list[Candidate] = []
        rivals: list[Candidate] = []
        for box, region in boxes.items():
            one = Candidate(box, _score(region, text, pieces), region.label or words)
            (found if meant is None or region.label == meant else rivals).append(one)
        return Grounding(_surest_first(found), _surest_first(rivals), answer=text)


def _score(region: Region, text: str, pieces: list[_Piece]) -> float | None:
    """Mean probability of the tokens of a box that have a digit."""
    first, last = region.span
    likely = [
        piece.probability
        for piece in pieces
        if piece.first < last and first < piece.last and re.search(r"\d", text[piece.first : piece.last])
    ]
    return min(sum(likely) / len(likely), MOST_SCORE) if likely else None


def _surest_first(candidates: list[Candidate]) -> tuple[Candidate, ...]:
    return tuple(sorted(candidates, key=lambda one: -(one.score or 0.0)))


class _Probabilities:
    """How probable the likeliest token was at each step, which greedy decoding takes.

    `generate` would keep the logits of all words for all steps instead.
    """

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        self.seen.append(scores[0].float().softmax(-1).max())
        return scores


def _uncropped(picture: Image.Image, image_processor: Any) -> Image.Image:
    """The image, squashed to a square where the processor would cut off its sides, which are looked at too."""
    size, crop = getattr(image_processor, "size", None) or {}, getattr(image_processor, "crop_size", None)
    if crop is None or not getattr(image_processor, "do_center_crop", False) or "shortest_edge" not in size:
        return picture
    return picture.resize((crop["width"], crop["height"]), Image.Resampling.BICUBIC)


def _in_chat(processor: Any, text: str) -> str:
    content = [{"type": "image"}, {"type": "text", "text": text}]
    messages = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


def _check_chat(folder: Path, processor: Any) -> None:
    """Raise ModelError where the model's chat template is missing (MD01) or cannot be filled (MD02)."""
    if not processor.chat_template:
        raise ModelError(f"{folder}: no chat template; wanted chat_template.jinja or chat_template.json", "MD01")
    try:
        filled = _in_chat(processor, "a question")
    except Exception as error:  # a template is a program
        raise ModelError(f"{folder}: the chat template fails ({_line(error)}); fetch it again", "MD02") from error
    if "a question" not in filled:
        raise ModelError(f"{folder}: the chat template leaves the question out; fetch it again", "MD02")


def _greedy(folder: Path, model: Any, tokenizer: Any, dialect: Dialect) -> Any:
    """Settings of generation: of the model's own, only what begins and ends an answer, and keeps it from going round.

    A penalty for every repetition, as Qwen has it, is left out: numbers repeat their digits.
    """
    from transformers import GenerationConfig

    own = model.generation_config
    if (folder / "generation_config.json").is_file():
        values = read_json(folder / "generation_config.json")
        own = GenerationConfig.from_dict(values)
    ends = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
    ends = list(dict.fromkeys(i for i in (*ends, tokenizer.eos_token_id) if i is not None))
    if not ends:
        raise ModelError(f"{folder}: no end token, so no answer would ever end", "MD02")
    kept = ("bos_token_id", "decoder_start_token_id", "forced_bos_token_id", "no_repeat_ngram_size")
    return GenerationConfig(
        **{name: getattr(own, name) for name in kept},
        eos_token_id=ends,
        pad_token_id=own.pad_token_id if own.pad_token_id is not None else ends[0],
        do_sample=False,
        num_beams=1,
        max_new_tokens=dialect.max_new_tokens,
        max_time=dialect.max_seconds,
    )


def _load_processor(folder: Path) -> Any:
    """The processor of a model for images and text alone.

    Raises:
        ModelError: MD01 a file is missing; MD02 one is damaged; MD06 the processor needs a package that is not here.
    """
    for names in (IMAGE_FILES, TOKENIZER_FILES):
        files = [folder / name for name in names if (folder / name).is_file()]
        if not files:
            raise ModelError(f"{folder}: wanted {' or '.join(names)}, which belongs to the model", "MD01")
        refuse_pointer(files[0])
    try:
        processor = _image_only(_processor_class(folder)).from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except ModelError:
        raise
    except ImportError as error:
        raise ModelError(
            f"{folder}: its processor needs a package that is not here ({_line(error)})", "MD06"
        ) from error
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the tokenizers library raises plain exceptions, and its panics not even these
        raise ModelError(
            f"{folder}: the processor's files are damaged ({_line(error)}); fetch them again", "MD02"
        ) from error
    return processor


def _processor_class(folder: Path) -> Any:
    """The class that the processor's files name, or else that of the model's type.

    `AutoProcessor` would give a tokenizer where the processor cannot be made, and say nothing.
    """
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    files = [folder / name for name in ("processor_config.json", "preprocessor_config.json")]
    named = [read_json(file).get("processor_class") for file in files if file.is_file()]
    known = PROCESSOR_MAPPING_NAMES.get(read_json(folder / CONFIG_FILE).get("model_type"))
    name = str(next((each for each in (*named, known) if each), ""))
    found = getattr(transformers, name, None)
    if not (isinstance(found, type) and issubclass(found, transformers.ProcessorMixin)):
        raise ModelError(f"{folder}: transformers has no processor {name!r} for images and text", "MD06")
    return found


def _image_only(kind: Any) -> Any:
    """A processor's class without its part for videos, which needs torchvision."""
    parts = kind.get_attributes()
    if "video_processor" not in parts:
        return kind

    def check(self: Any, name: str, value: Any) -> Any:
        return None if name == "video_processor" else kind.check_argument_for_proper_class(self, name, value)

    def remaining(cls: Any) -> list[str]:
        return [part for part in parts if part != "video_processor"]

    changes = {"get_attributes": classmethod(remaining), "check_argument_for_proper_class": check}
    return type(kind.__name__, (kind,), changes)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
