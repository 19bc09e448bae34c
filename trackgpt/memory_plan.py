"""How much memory training takes on each GPU before the first activation: arithmetic alone, nothing is allocated.

Trained weights, their gradients and AdamW's two moments are float32; frozen weights are stored as they are. DeepSpeed's
ZeRO keeps one more float32 copy of the trained weights, in shards. Stage 1 shards the optimiser's state, 2 gradients
too, 3 all weights too. What the plan leaves out: activations, communication buffers, and under ZeRO-3 the weights of
the layers being computed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

GIB = 2**30
STAGES = (0, 1, 2, 3)
SIZES = (1, 4, 8)


@dataclass(frozen=True)
class Load:
    """What a model weighs: parameters that learn (a number), and the others (bytes)."""

    trained: int
    frozen_bytes: int


@dataclass(frozen=True)
class Share:
    """Bytes on each GPU."""

    weights: float
    gradients: float
    optimizer: float
    master: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.weights + self.gradients + self.optimizer + self.master


def load_of(parameters: Iterable[Any], frozen_bits: int = 0) -> Load:
    """Weigh the parameters of a torch module; those of a model on the `meta` device do as well.

    Args:
        parameters: `module.parameters()`.
        frozen_bits: bits of a frozen weight, where it will be stored otherwise than it is now.
    """
    trained = frozen = 0
    for parameter in parameters:
        if parameter.requires_grad:
            trained += parameter.numel()
        else:
            frozen += parameter.numel() * (frozen_bits // 8 or parameter.element_size())
    return Load(trained, frozen)


def share(load: Load, zero: int, size: int, offload: str = "none") -> Share:
    """What each of `size` GPUs holds under a ZeRO stage.

    Args:
        load: see `load_of`.
        zero: 0 to 3.
        size: GPUs.
        offload: "optimizer" puts its state and the master copy into CPU memory, "parameters" the weights as well.
    """
    four = 4.0 * load.trained
    optimizer = 2 * four / (size if zero >= 1 else 1)
    master = four / size if zero >= 1 else 0.0
    gradients = four / (size if zero >= 2 else 1)
    weights = (four + load.frozen_bytes) / (size if zero >= 3 else 1)
    if offload != "none":
        optimizer = master = 0.0
    if offload == "parameters":
        weights = 0.0
    return Share(weights, gradients, optimizer, master)


def table(load: Load, offload: str = "none", stages: Iterable[int] = STAGES, sizes: Iterable[int] = SIZES) -> str:
    """The plan for people: one line a ZeRO stage and number of GPUs, GiB on each."""
    head = f"{'ZeRO':>4} {'GPUs':>4} {'weights':>9} {'gradients':>9} {'optimizer':>9} {'master':>9} {'GiB each':>9}"
    lines = [head]
    for zero in stages:
        for size in sizes:
            s = share(load, zero, size, offload)
            cells = (s.weights, s.gradients, s.optimizer, s.master, s.total)
            lines.append(f"{zero:>4} {size:>4} " + " ".join(f"{value / GIB:>9.3f}" for value in cells))
    return "\n".join(lines)
