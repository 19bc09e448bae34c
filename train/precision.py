"""Whether a run trains in bfloat16; `trackgpt.precision` measures which is faster."""

from __future__ import annotations

from typing import Any

import torch

from trackgpt.errors import UsageError
from trackgpt.precision import bf16_is_faster


def use_bf16(wanted: Any, device: torch.device) -> bool:
    """What `plan.bf16` means on a device: true and false as they are; "auto" or nothing measures.

    Raises:
        UsageError: anything else.
    """
    if isinstance(wanted, bool):
        return wanted
    if wanted not in (None, "auto"):
        raise UsageError(f"plan.bf16: `{wanted}` is none of auto, true, false")
    return bf16_is_faster(device)
