"""A plain VLM checkpoint (transformers layout) as a brain: transformers loads it, two tokens and phi are added.

Where the tokenizer lacks <TK> and <PO> they are appended, and their rows of the embedding and of an untied output layer
start as the mean of all trained rows, so that neither is likelier than any word. phi starts at random.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AddedToken,
    AutoConfig,
    AutoTokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerFast,
)
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from trackgpt.config import BrainConfig
from trackgpt.errors import ModelError
from trackgpt.reasoners.brain import Brain
from trackgpt.reasoners.families import Family, family_of
from trackgpt.reasoners.templates import PURPORT_TOKEN, TRACK_TOKEN
from trackgpt.settings import read_json
from trackgpt.weights import (
    Lazy,
    LoadReport,
    checked,
    describing,
    read_lazily,
    refuse_oversized,
    refuse_pointer,
    some,
)

CONFIG_FILE = "config.json"
IMAGE_FILES = ("preprocessor_config.json", "processor_config.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
SAMPLES = 256
"""Numbers of a weight that are compared with the file after loading: enough to tell any two trained weights apart."""
LARGE = 100_000_000
"""Parameters from which on a model takes so long to load that a bar is drawn."""
_COUNTERS = ("position_ids", "num_batches_tracked")
_OF_NO_USE = ("transformers_version", "architectures", "_name_or_path", "dtype", "torch_dtype")


def load_brain(folder: str | Path, query_dim: int, dtype: torch.dtype = torch.float32) -> tuple[Brain, LoadReport]:
    """Read a folder of transformers' layout (what a hub holds), on the CPU, in evaluation mode.

    Args:
        folder: with config.json, weights, the tokenizer's files and the image processor's.
        query_dim: channels of the queries, the width of the mask decoder.
        dtype: of the weights in memory, whatever they are stored as.

    Raises:
        ModelError: MD01 something is not in the folder; MD02 it is damaged or does not fit together; MD06 the model is
            of a type for which `trackgpt.reasoners.families` has no entry.
    """
    folder = Path(folder)
    _family(folder)
    mean, std = _image_statistics(folder)
    tokenizer = load_tokenizer(folder)
    model, report = load_vlm(folder, dtype)
    before = model.get_input_embeddings().weight.shape
    rows = add_query_tokens(model, tokenizer)
    resized = model.get_input_embeddings().weight.shape != before
    with describing(folder / CONFIG_FILE):
        config = _brain_config(folder, model.config, mean, std, tokenizer)
        brain = Brain(config, model, tokenizer, query_dim)
    brain.projection.to(dtype)
    projection = [f"brain.projection.{name}" for name in brain.projection.state_dict()]
    return brain.eval(), report.under("brain.llava.") + LoadReport(
        loaded=(),
        new=tuple(sorted([*rows, *projection])),
        reshaped=tuple(sorted({name.partition("[")[0] for name in rows})) if resized else (),
    )


def described_brain(folder: str | Path) -> BrainConfig:
    """The configuration of `load_brain`'s brain, from everything in the folder but the weights.

    Raises:
        ModelError: see `load_brain`.
    """
    folder = Path(folder)
    _family(folder)
    mean, std = _image_statistics(folder)
    tokenizer = load_tokenizer(folder)
    config = _config(folder)
    absent = [t for t in (TRACK_TOKEN, PURPORT_TOKEN) if t not in tokenizer.get_vocab()]
    with describing(folder / CONFIG_FILE):
        text = config.get_text_config()
        text.vocab_size = max(text.vocab_size, len(tokenizer) + len(absent))
        return _brain_config(folder, config, mean, std, tokenizer)


def _config(folder: Path) -> Any:
    """transformers' configuration of the model in a folder."""
    with describing(folder / CONFIG_FILE):
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _family(folder: Path) -> type[Family]:
    """The family of the model in a folder."""
    values = read_json(folder / CONFIG_FILE)
    if "mm_vision_tower" in values and "text_config" not in values:
        advice = "use the one of llava-hf, and for a LISA: trackgpt convert lisa DIR OUT"
        raise ModelError(f"{folder}: this is a LLaVA in its original layout; {advice}", "MD06")
    return family_of(str(values.get("model_type")), str(folder / CONFIG_FILE))


def _brain_config(folder: Path, config: Any, mean: list[float], std: list[float], tokenizer: Any) -> BrainConfig:
    family = _family(folder)
    return BrainConfig(
        llava=config_values(config),
        image_side=family.side_of(config),
        pixel_mean=mean,
        pixel_std=std,
        conversation=family.conversation(config, tokenizer),
    )


def load_tokenizer(folder: Path, own: bool = False, answers: bool = True) -> Any:
    """The tokenizer of a checkpoint.

    Args:
        folder: with its files.
        own: written by this package, so that tokenizer.json says all. transformers makes a tokenizer of the class that
            is named beside it anew instead, and forgets where that one puts a space.
        answers: its model writes answers, so that it must have an end token; BERT's has none.

    Raises:
        ModelError: MD01 its files are missing, are Git LFS pointers, or need a package that is not here; MD02 they are
            damaged.
    """
    files = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    if not files:
        raise ModelError(f"{folder}: no tokenizer; wanted one of {', '.join(TOKENIZER_FILES)}", "MD01")
    for file in files:
        refuse_pointer(file)
    sentencepiece = files[0].name == "tokenizer.model"  # and no tokenizer.json
    if sentencepiece:
        absent = [name for name in ("sentencepiece", "google") if find_spec(name) is None]
        if absent:
            needed = " and ".join(absent).replace("google", "protobuf")
            advice = "pip install 'trackgpt[sentencepiece]', or add the tokenizer.json of the same model"
            raise ModelError(f"{files[0]}: needs the package {needed}; {advice}", "MD01")
    try:
        if sentencepiece:
            tokenizer = _of_sentencepiece(folder)
        else:
            kind = PreTrainedTokenizerFast if own else AutoTokenizer
            tokenizer = kind.from_pretrained(folder, trust_remote_code=False)
    except ImportError as error:
        raise ModelError(f"{folder}: the tokenizer needs a package ({_line(error)}); install it", "MD01") from error
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the tokenizers library raises plain exceptions, and its panics not even these
        raise ModelError(
            f"{folder}: the tokenizer's files are damaged ({_line(error)}); fetch them again", "MD02"
        ) from error
    if answers and tokenizer.eos_token_id is None:
        raise ModelError(f"{folder}: the tokenizer has no end token, so no answer would ever end", "MD02")
    return tokenizer


def _of_sentencepiece(folder: Path) -> Any:
    """Llama's tokenizer from tokenizer.model alone, with the ids that it gave when such folders were written.

    Two defaults have changed since: every piece of text between added tokens begins with a space ("legacy"), and added
    tokens of which no more than the name is written, in added_tokens.json, take away the spaces on both sides.
    """
    described, names = (
        json.loads((folder / name).read_text(encoding="utf-8")) if (folder / name).is_file() else {}
        for name in ("tokenizer_config.json", "added_tokens.json")
    )
    tokenizer = LlamaTokenizer.from_pretrained(folder, legacy=described.get("legacy") is not False)
    if "added_tokens_decoder" not in described:
        tokenizer.add_tokens([AddedToken(name, lstrip=True, rstrip=True, normalized=False) for name in names])
    return tokenizer


class _Given:
    """A weight of a checkpoint as transformers takes it: it is checked, and a sample of it is kept, as it is taken."""

    def __init__(self, folder: Path, name: str, lazy: Lazy, samples: dict[str, Tensor]) -> None:
        self.folder, self.name, self.lazy, self.samples = folder, name, lazy, samples

    def get_shape(self) -> list[int]:
        """As the slices of safetensors have it."""
        return list(self.lazy.shape)

    def __getitem__(self, index: Any) -> Tensor:
        value = checked(self.folder, self.name, self.lazy.make(), not self.name.endswith(_COUNTERS))
        self.samples[self.name] = _sample(value).clone()
        return value[index]


def _sample(value: Tensor) -> Tensor:
    flat = value.detach().reshape(-1)
    return flat[:: max(1, len(flat) // SAMPLES)]


def load_vlm(folder: Path, dtype: torch.dtype) -> tuple[Any, LoadReport]:
    """The model of a folder as transformers has it, on the CPU.

    Raises:
        ModelError: MD01 there is no config.json or no weights; MD02 they are damaged, do not fit together, or do not
            fill the model.
    """
    config, weights = _config(folder), read_lazily(folder, standard=True)
    with describing(folder / CONFIG_FILE):
        kind = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
        _untie(config, weights)
        refuse_oversized(config.to_dict(), weights, lambda: kind(config), folder / CONFIG_FILE)
    samples: dict[str, Tensor] = {}
    try:
        with _progress_of(sum(math.prod(lazy.shape) for lazy in weights.values())):
            model, info = kind.from_pretrained(
                None,
                config=config,
                state_dict={name: _Given(folder, name, lazy, samples) for name, lazy in weights.items()},
                dtype=dtype,
                output_loading_info=True,
            )
    except ModelError:
        raise
    except Exception as error:  # transformers fails in many ways
        raise ModelError(f"{folder}: the weights do not load ({_line(error)}); fetch them again", "MD02") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(f"{folder}: {len(missing)} weights are missing: {some(missing)}", "MD02")
    return model, LoadReport(
        loaded=tuple(sorted(model.state_dict())),
        unexpected=tuple(sorted(info["unexpected_keys"])),
        changed=_changed(model, samples),
    )


@contextmanager
def _progress_of(parameters: int) -> Iterator[None]:
    """Let transformers draw its bar where loading takes long, and not for a model that is there at once."""
    if parameters >= LARGE or not is_progress_bar_enabled():
        yield
        return
    disable_progress_bar()
    try:
        yield
    finally:
        enable_progress_bar()


def _untie(config: Any, weights: Mapping[str, Lazy]) -> None:
    """Let the weights decide whether the output layer is the embedding, where a configuration says it is."""
    ends = ("lm_head.weight", "embed_tokens.weight")
    head, embedding = ([lazy.make() for name, lazy in weights.items() if name.endswith(end)] for end in ends)
    if len(head) == len(embedding) == 1 and not torch.equal(head[0], embedding[0]):
        config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = False


def _changed(model: nn.Module, samples: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of the weights that are nowhere in the model as they were taken from the file, but for rounding."""
    held: dict[tuple[int, torch.dtype], list[Tensor]] = {}
    for value in model.state_dict().values():
        sample = _sample(value)
        held.setdefault((len(sample), sample.dtype), []).append(sample)
    tables = {key: torch.stack(rows) for key, rows in held.items()}
    return tuple(
        sorted(
            name
            for name, sample in samples.items()
            if not any(
                bool((table == sample.to(dtype)).all(1).any())
                for (length, dtype), table in tables.items()
                if length == len(sample)
            )
        )
    )


def _image_statistics(folder: Path) -> tuple[list[float], list[float]]:
    """Mean and deviation of the channels that the vision tower was trained with."""
    for name in IMAGE_FILES:
        if (folder / name).is_file():
            values = read_json(folder / name)
            values = values.get("image_processor", values)
            with describing(folder / name):
                if "image_mean" in values and "image_std" in values:
                    mean, std = ([float(v) for v in values[key]] for key in ("image_mean", "image_std"))
                    check_statistics(mean, std)
                    return mean, std
    raise ModelError(f"{folder}: neither of {', '.join(IMAGE_FILES)} gives image_mean and image_std", "MD01")


def check_statistics(mean: list[float], std: list[float]) -> None:
    """Raise ModelError MD02 where these are not the mean and the deviation of three channels."""
    if len(mean) != 3 or len(std) != 3 or not all(map(isfinite, mean + std)) or min(std) <= 0:
        raise ModelError(f"mean {mean} and deviation {std}; wanted three finite numbers each, deviations > 0", "MD02")


@torch.no_grad()
def add_query_tokens(model: Any, tokenizer: Any) -> list[str]:
    """Give model and tokenizer <TK> and <PO> where they are absent, in place; returns what is new, by name."""
    absent = [t for t in (TRACK_TOKEN, PURPORT_TOKEN) if t not in tokenizer.get_vocab()]
    if not absent:
        return []
    trained = min(len(tokenizer), model.get_input_embeddings().weight.shape[0])
    tokenizer.add_tokens(absent, special_tokens=True)
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        # Several checkpoints have spare rows, and then nothing changes its size.
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    tables = {id(layer.weight): layer.weight for layer in (model.get_input_embeddings(), model.get_output_embeddings())}
    ids = tokenizer.convert_tokens_to_ids(absent)
    for weight in tables.values():
        weight[ids] = weight[:trained].mean(0)
    return [f"brain.llava.{_name_of(model, weight)}[{token}]" for weight in tables.values() for token in absent]


def _name_of(model: nn.Module, weight: nn.Parameter) -> str:
    return next(name for name, parameter in model.named_parameters() if parameter is weight)


def config_values(config: Any) -> dict[str, Any]:
    """transformers' configuration as plain values, from which `families.build` makes the same model."""
    values = dict(json.loads(config.to_json_string(use_diff=False)))
    return {key: value for key, value in values.items() if key not in _OF_NO_USE}


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
