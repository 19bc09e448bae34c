"""A brain in 8 or 4 bits: transformers' quantisation of the language model's matrices, by bitsandbytes, on a GPU.

Embedding and output layer, which hold the rows of <TK> and <PO>, the vision tower and the projector stay in bfloat16,
as do phi and the segmenter, which are no part of it.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from trackgpt.errors import UsageError
from trackgpt.reasoners.brain import Brain

BITS = {"int8": 8, "int4": 4}


def require_quantised(dtype: str, device: str) -> None:
    """Refuse, before anything is loaded, where quantised weights cannot run.

    Args:
        dtype: a key of `BITS`.
        device: where the model would run.

    Raises:
        UsageError: it is no GPU, or bitsandbytes is not installed.
    """
    if not device.startswith("cuda"):
        raise UsageError(
            f"dtype {dtype}: needs a CUDA GPU, and the device is {device}; choose --dtype bfloat16 or auto"
        )
    if find_spec("bitsandbytes") is None:
        raise UsageError(f"dtype {dtype}: needs bitsandbytes; pip install 'trackgpt[quantised]', or --dtype bfloat16")


def quantisation(llava: Any, dtype: str) -> Any:
    """transformers' configuration: the language model's matrices in 8 bits, or in 4 (nf4, scales quantised too)."""
    from transformers import BitsAndBytesConfig

    skipped = kept_whole(llava)
    if BITS[dtype] == 8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=skipped,
    )


def kept_whole(llava: nn.Module) -> list[str]:
    """Names of the linear layers outside the language model."""
    language = {id(module) for module in llava.model.get_decoder().modules()}
    return [
        name for name, module in llava.named_modules() if isinstance(module, nn.Linear) and id(module) not in language
    ]


def quantise(brain: Brain, dtype: str, device: torch.device) -> None:
    """Put a loaded brain's vision-language model on a GPU in 8 or 4 bits, in place; phi stays where it is.

    Args:
        brain: on the CPU, in bfloat16, without adapters.
        dtype: a key of `BITS`.
        device: the GPU.
    """
    whole = brain.llava
    brain.llava = (
        type(whole)
        .from_pretrained(
            None,
            config=whole.config,
            state_dict=whole.state_dict(),
            quantization_config=quantisation(whole, dtype),
            device_map={"": str(device)},
            dtype=torch.bfloat16,
        )
        .eval()
    )
