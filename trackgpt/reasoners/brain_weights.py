"""A plain VLM checkpoint (transformers layout) as a brain: transformers loads it, two tokens and phi are added.

Where the tokenizer lacks <TK> and <PO> they are appended, and their rows of the embedding and of an untied output layer
start as the mean of all trained rows, so that neither is likelier than any word. phi starts at random.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer

from trackgpt.config import BrainConfig
from trackgpt.errors import ModelError
from trackgpt.reasoners.brain import Brain
from trackgpt.reasoners.families import Family, family_of
from trackgpt.reasoners.templates import PURPORT_TOKEN, TRACK_TOKEN
from trackgpt.settings import read_json
from trackgpt.weights import LoadReport

CONFIG_FILE = "config.json"
IMAGE_FILES = ("preprocessor_config.json", "processor_config.json")
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
    model, report = _load_model(folder, dtype)
    before = model.get_input_embeddings().weight.shape
    rows = add_query_tokens(model, tokenizer)
    resized = model.get_input_embeddings().weight.shape != before
    config = _brain_config(folder, model.config, mean, std, tokenizer)
    brain = Brain(config, model, tokenizer, query_dim)
    brain.projection.to(dtype)
    projection = [f"brain.projection.{name}" for name in brain.projection.state_dict()]
    return brain.eval(), report + LoadReport(
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
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / CONFIG_FILE}: cannot be read ({_line(error)}); fetch it again", "MD02") from error
    absent = [t for t in (TRACK_TOKEN, PURPORT_TOKEN) if t not in tokenizer.get_vocab()]
    text = config.get_text_config()
    text.vocab_size = max(text.vocab_size, len(tokenizer) + len(absent))
    return _brain_config(folder, config, mean, std, tokenizer)


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


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a checkpoint.

    Raises:
        ModelError: MD01 its files are missing, or need sentencepiece, which is not here; MD02 they are damaged.
    """
    files = ("tokenizer.json", "tokenizer.model", "vocab.json")
    if not any((folder / name).is_file() for name in files):
        raise ModelError(f"{folder}: no tokenizer; wanted one of {', '.join(files)}", "MD01")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except ImportError as error:
        advice = "pip install sentencepiece, or add the tokenizer.json of the same model"
        raise ModelError(f"{folder}: the tokenizer needs a package ({_line(error)}); {advice}", "MD01") from error
    except Exception as error:  # the tokenizers library raises plain exceptions
        raise ModelError(
            f"{folder}: the tokenizer's files are damaged ({_line(error)}); fetch them again", "MD02"
        ) from error
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{folder}: the tokenizer has no end token, so no answer would ever end", "MD02")
    return tokenizer


def _load_model(folder: Path, dtype: torch.dtype) -> tuple[Any, LoadReport]:
    try:
        model, info = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=dtype, output_loading_info=True, weights_only=True, local_files_only=True
        )
    except (SafetensorError, RuntimeError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(f"{folder}: the weights do not load ({_line(error)}); fetch them again", "MD02") from error
    except OSError as error:
        damaged = any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))
        code = "MD02" if damaged else "MD01"
        raise ModelError(f"{folder}: no whole weights there ({_line(error)})", code) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(f"{folder}: {len(missing)} weights are missing: {', '.join(missing[:3])}", "MD02")
    loaded = tuple(f"brain.llava.{name}" for name in sorted(model.state_dict()))
    return model, LoadReport(loaded=loaded, unexpected=tuple(sorted(info["unexpected_keys"])))


def _image_statistics(folder: Path) -> tuple[list[float], list[float]]:
    """Mean and deviation of the channels that the vision tower was trained with."""
    for name in IMAGE_FILES:
        if (folder / name).is_file():
            values = read_json(folder / name)
            values = values.get("image_processor", values)
            if "image_mean" in values and "image_std" in values:
                return [float(v) for v in values["image_mean"]], [float(v) for v in values["image_std"]]
    raise ModelError(f"{folder}: neither of {', '.join(IMAGE_FILES)} gives image_mean and image_std", "MD01")


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


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
