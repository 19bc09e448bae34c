"""Which arithmetic is the faster one on this machine: measured, because names of processors do not say.

bfloat16 is two to four times as fast as float32 on a CPU with avx512_bf16 or AMX, and ten times as slow on one without
(both may call themselves AVX-512). float16 is never used on a CPU: it is a hundred times slower.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

ROUNDED_ANYWAY = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
ROUNDS = 5
WORTH_IT = 0.9


def inference_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """What `Execution.dtype` means on a device: "auto" measures; the others as they are, quantised ones bfloat16."""
    if wanted == "auto":
        return torch.bfloat16 if bf16_is_faster(device) else torch.float32
    return torch.float32 if wanted == "float32" else torch.bfloat16


def bf16_is_faster(device: torch.device) -> bool:
    """A GPU that has bfloat16 is faster with it; a CPU is asked to show it; nothing else is."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and probe(torch.bfloat16) < WORTH_IT * probe(torch.float32)


def round_frozen(model: nn.Module) -> None:
    """Store frozen weights that autocast rounds to bfloat16 at every use in bfloat16: same numbers, half the memory."""
    for module in model.modules():
        if isinstance(module, ROUNDED_ANYWAY) and not any(p.requires_grad for p in module.parameters(recurse=False)):
            module.to(torch.bfloat16)


@torch.no_grad()
def probe(dtype: torch.dtype) -> float:
    """Seconds of a linear layer and a convolution of common sizes on this CPU, the fastest of a few rounds."""
    tokens, weight = torch.ones(256, 256, dtype=dtype), torch.ones(256, 256, dtype=dtype)
    maps, kernel = torch.ones(2, 32, 32, 32, dtype=dtype), torch.ones(32, 32, 3, 3, dtype=dtype)
    return min(_seconds(tokens, weight, maps, kernel) for _ in range(ROUNDS))


def _seconds(tokens: Tensor, weight: Tensor, maps: Tensor, kernel: Tensor) -> float:
    began = time.perf_counter()
    torch.nn.functional.linear(tokens, weight)
    torch.nn.functional.conv2d(maps, kernel, padding=1)
    return time.perf_counter() - began
