"""A vision-language model that is asked in words about images: how it is loaded, and what it writes.

What it is asked, and what its answers mean, is up to others: `trackgpt.reasoners.vlm` asks for boxes on an image,
`trackgpt.reasoners.vlm_policy` for trajectories. Decoding is greedy. A model's processor is its own, but for videos,
which need torchvision.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trackgpt.errors import InputError, ModelError
from trackgpt.reasoners.brain_weights import CONFIG_FILE, IMAGE_FILES, TOKENIZER_FILES, load_vlm
from trackgpt.settings import read_json
from trackgpt.weights import refuse_pointer

MOST_SCORE = 0.999
"""No score is 1: a probability that rounds to it says nothing about whether the box is right."""


class AnswerLimits(NamedTuple):
    """Where an answer ends at the latest.

    Attributes:
        max_new_tokens: it is cut off after so many.
        max_seconds: no further token is begun after this time.
    """

    max_new_tokens: int
    max_seconds: float


class AnswerToken(NamedTuple):
    """One token of an answer: where it stands in the text, and how probable it was."""

    first: int
    last: int
    probability: float


class Spoken(NamedTuple):
    """What a model wrote.

    Attributes:
        text: with special tokens written out, but for those that begin, end or fill an answer.
        tokens: of the text, in order.
        seen: width and height in pixels of the copy of the last image that the network was given.
    """

    text: str
    tokens: tuple[AnswerToken, ...]
    seen: tuple[int, int]

    def certainty(self, span: tuple[int, int]) -> float | None:
        """Mean probability of the tokens with a digit between two places of the text; None where there are none."""
        first, last = span
        likely = [
            token.probability
            for token in self.tokens
            if token.first < last and first < token.last and re.search(r"\d", self.text[token.first : token.last])
        ]
        return min(sum(likely) / len(likely), MOST_SCORE) if likely else None


class VlmModel:
    """A model of a folder as a hub holds it. It holds weights, not state.

    Args:
        model: filled, in evaluation mode, on its device.
        processor: the model's own.
        name: for people.
        settings: of generation, greedy.
    """

    def __init__(self, model: Any, processor: Any, name: str, settings: Any) -> None:
        self.model, self.processor, self.name = model, processor, name
        self._settings = settings

    @classmethod
    def from_pretrained(
        cls,
        folder: Path,
        device: str | torch.device,
        dtype: torch.dtype,
        limits: AnswerLimits,
        chat: bool = True,
    ) -> VlmModel:
        """The model of a folder: config.json, weights, and the processor's files.

        Args:
            folder: of the model.
            device: where it computes.
            dtype: of the weights in memory, whatever they are stored as.
            limits: of every answer.
            chat: it must have a chat template.

        Raises:
            ModelError: MD01 something is missing, named; MD02 it is damaged, or weights of the model are missing; MD06
                the model is of no known type, or its processor needs a package that is not here.
        """
        processor = _load_processor(folder)
        if chat:
            _check_chat(folder, processor)
        model, _ = load_vlm(folder, dtype)
        settings = _greedy(folder, model, processor.tokenizer, limits)
        return cls(model.eval().to(device), processor, folder.resolve().name, settings)

    def in_chat(self, messages: Sequence[dict[str, Any]]) -> str:
        """A conversation as the model's chat template writes it, up to where the model's answer begins."""
        return _in_chat(self.processor, messages)

    def seen(self, image: np.ndarray) -> tuple[int, int]:
        """Width and height in pixels of the copy of an image, uint8 RGB (height, width, 3), that the network is given.

        Raises:
            InputError: the model cannot take an image of this shape.
        """
        return self._seen(self._processed(self.processor.image_processor, [image]))

    @torch.inference_mode()
    def ask(self, images: Sequence[np.ndarray], text: str, until: str = "") -> Spoken:
        """What the model writes behind a text.

        Args:
            images: uint8 RGB (height, width, 3), in the order of their placeholders in the text.
            text: see there.
            until: where the answer ends, beside the model's own end.

        Raises:
            InputError: the model cannot take images of this shape.
        """
        inputs = self._processed(self.processor, images, text=[text])
        ids, probabilities = self._generate(inputs, until)
        return self._decoded(ids, probabilities, self._seen(inputs))

    def _processed(self, processor: Any, images: Sequence[np.ndarray], **more: Any) -> dict[str, Any]:
        pictures = [_uncropped(Image.fromarray(image), self.processor.image_processor) for image in images]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # PaliGemma's makes an array of a tensor
                given = processor(images=pictures, return_tensors="pt", **more)
        except ValueError as error:
            height, width = images[0].shape[:2]
            raise InputError(
                f"{self.name} cannot take an image of {width} x {height} pixels: {_line(error)}"
            ) from error
        return {name: self._moved(value) for name, value in given.items() if name != "labels"}

    def _moved(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.to(self.model.device, self.model.dtype if value.is_floating_point() else value.dtype)

    def _seen(self, inputs: dict[str, Any]) -> tuple[int, int]:
        if "image_grid_thw" in inputs:
            _, rows, columns = inputs["image_grid_thw"][-1].tolist()
            side = int(self.model.config.vision_config.patch_size)
            return columns * side, rows * side
        height, width = inputs["pixel_values"].shape[-2:]
        return int(width), int(height)

    def _generate(self, inputs: dict[str, Any], until: str) -> tuple[list[int], list[float]]:
        """The ids of an answer without those that begin, end or fill it, and the probability of each."""
        from transformers import LogitsProcessorList, StoppingCriteriaList

        watched, words = _Probabilities(), self.processor.tokenizer
        made = self.model.generate(
            **inputs,
            generation_config=self._settings,
            logits_processor=LogitsProcessorList([watched]),
            stopping_criteria=StoppingCriteriaList([_Ended(words, until)] if until else []),
        )
        answered = made[0, made.shape[1] - len(watched.seen) :].tolist()
        likely = torch.stack(watched.seen).tolist()
        frame = {words.bos_token_id, words.pad_token_id, *self._settings.eos_token_id}
        kept = [(i, p) for i, p in zip(answered, likely, strict=True) if i not in frame]
        return [i for i, _ in kept], [p for _, p in kept]

    def _decoded(self, ids: list[int], probabilities: list[float], seen: tuple[int, int]) -> Spoken:
        """The text of an answer, special tokens written out, and its tokens."""

        def text_of(some: list[int]) -> str:
            decode = self.processor.tokenizer.decode
            return str(decode(some, skip_special_tokens=False, clean_up_tokenization_spaces=False))

        ends = [len(text_of(ids[: i + 1])) for i in range(len(ids))]
        tokens = tuple(AnswerToken(*each) for each in zip([0, *ends], ends, probabilities))
        return Spoken(text_of(ids), tokens, seen)


class _Ended:
    """Whether an answer holds a text, which ends it. It is looked for in the last tokens alone.

    Args:
        tokenizer: of the model.
        text: see there.
    """

    def __init__(self, tokenizer: Any, text: str) -> None:
        self.tokenizer, self.text = tokenizer, text
        self.answered = 0

    def __call__(self, ids: Tensor, scores: Any, **more: Any) -> Tensor:
        self.answered += 1
        last = ids[0, -min(self.answered, len(self.text) + 1) :].tolist()  # a token has a letter at least
        return torch.tensor([self.text in self.tokenizer.decode(last)], device=ids.device)


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


def _in_chat(processor: Any, messages: Sequence[dict[str, Any]]) -> str:
    return str(processor.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False))


def _check_chat(folder: Path, processor: Any) -> None:
    """Raise ModelError where the model's chat template is missing (MD01) or cannot be filled (MD02)."""
    if not processor.chat_template:
        raise ModelError(f"{folder}: no chat template; wanted chat_template.jinja or chat_template.json", "MD01")
    content = [{"type": "image"}, {"type": "text", "text": "a question"}]
    try:
        filled = _in_chat(processor, [{"role": "user", "content": content}])
    except Exception as error:  # a template is a program
        raise ModelError(f"{folder}: the chat template fails ({_line(error)}); fetch it again", "MD02") from error
    if "a question" not in filled:
        raise ModelError(f"{folder}: the chat template leaves the question out; fetch it again", "MD02")


def _greedy(folder: Path, model: Any, tokenizer: Any, limits: AnswerLimits) -> Any:
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
        max_new_tokens=limits.max_new_tokens,
        max_time=limits.max_seconds,
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
