"""How much memory training and inference take: arithmetic alone, nothing is allocated.

Training, on each GPU: trained weights, their gradients and AdamW's two moments are float32; frozen weights are stored
as they are. DeepSpeed's ZeRO keeps one more float32 copy of the trained weights, in shards. Stage 1 shards the
optimiser's state, 2 gradients too, 3 all weights too. Activations come from `planning.inference`. What the plan leaves
out: communication buffers, what an allocator rounds up, and under ZeRO-3 the weights of the layers being computed.

Inference: weights as the dtype stores them, and the larger of what an answer and what a frame holds beside them, since
one waits for the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

GIB = 2**30
STAGES = (0, 1, 2, 3)
SIZES = (1, 4, 8)
DTYPES = ("float32", "bfloat16", "int8", "int4")
"""Of the weights at inference. In the last two the language model's matrices are quantised, the rest is bfloat16."""


@dataclass(frozen=True)
class Load:
    """What a model weighs.

    Attributes:
        trained: number of parameters that learn.
        frozen_bytes: of those of the stage that do not.
        frozen: their number.
        beside: bytes of what the stage does not touch; no stage of ZeRO shards it.
    """

    trained: int
    frozen_bytes: int
    frozen: int = field(default=0, compare=False)
    beside: int = 0


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
    trained = frozen = others = 0
    for parameter in parameters:
        count = getattr(parameter, "ds_numel", parameter.numel())  # under ZeRO-3 a shard is what is here
        if parameter.requires_grad:
            trained += count
        else:
            others += count
            frozen += count * (frozen_bits // 8 or parameter.element_size())
    return Load(trained, frozen, others)


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
    weights += load.beside
    return Share(weights, gradients, optimizer, master)


@dataclass(frozen=True)
class Activations:
    """Bytes that a forward and backward pass holds at most, weights and gradients aside.

    Attributes:
        plain: with all that the backward pass reads kept.
        checkpointed: with the language model's computed again.
        losses: what the mask losses hold at most, counted in both: logits where they are compared, their gradients, the
            truth. It is given back before the rest of the backward pass, and so adds less than itself to the peak.
        compared: where that is, for people.
    """

    plain: float
    checkpointed: float
    losses: float = 0.0
    compared: str = ""


def table(
    load: Load,
    offload: str = "none",
    activations: Activations | None = None,
    memory: float = 0.0,
    stages: Iterable[int] = STAGES,
    sizes: Iterable[int] = SIZES,
) -> str:
    """The plan for people: one line a ZeRO stage and number of GPUs, GiB on each.

    Args:
        load: see `load_of`.
        offload: see `share`.
        activations: adds two columns, everything with all activations kept, and with the language model's redone.
        memory: GiB of a GPU; marks with a * what fits. 0 marks nothing.
        stages, sizes: the lines.
    """
    heads = ["weights", "gradients", "optimizer", "master", "GiB each"]
    heads += ["+ kept", "+ redone"] if activations else []
    lines = [f"{'ZeRO':>4} {'GPUs':>4} " + " ".join(f"{head:>9}" for head in heads)]
    for zero in stages:
        for size in sizes:
            s = share(load, zero, size, offload)
            cells = [_gib(v) for v in (s.weights, s.gradients, s.optimizer, s.master, s.total)]
            for extra in (activations.plain, activations.checkpointed) if activations else ():
                cells.append(_gib(s.total + extra) + ("*" if s.total + extra <= memory * GIB else ""))
            lines.append(f"{zero:>4} {size:>4} " + " ".join(f"{cell:>9}" for cell in cells))
    return "\n".join(lines)


def fitting(load: Load, offload: str, activations: float, memory: float) -> list[str]:
    """Which ZeRO stages and numbers of GPUs fit in `memory` GiB each, as "2x4" for stage 2 on four."""
    return [
        f"{zero}x{size}"
        for zero in STAGES
        for size in SIZES
        if share(load, zero, size, offload).total + activations <= memory * GIB
    ]


def matrix_bytes(rows: int, columns: int, dtype: str) -> float:
    """Bytes of a language model's matrix as bitsandbytes stores it, or plain.

    int8 has one float32 scale a row. int4 (nf4, its scales quantised too) has one byte a 64 values and one float32 a
    256 of those.
    """
    count = rows * columns
    if dtype == "int8":
        return count + 4 * rows
    if dtype == "int4":
        return count / 2 + count / 64 + 4 * count / 64 / 256
    return count * plain_bytes(dtype)


def plain_bytes(dtype: str) -> int:
    """Bytes of a weight that is not quantised."""
    return 4 if dtype == "float32" else 2


@dataclass(frozen=True)
class Inference:
    """Bytes of a model that tracks, in one dtype.

    Attributes:
        weights: by part.
        length: tokens of a conversation, the image's included.
        cache: keys and values of it.
        answer: the most that reading a frame and answering holds beside them.
        frame: the most that encoding and decoding a frame holds.
        stream: what stays from frame to frame, for one stream: queries, and frames encoded ahead.
        ahead: how many those are; where there are any, one is encoded while another frame is tracked or read.
    """

    weights: Mapping[str, float]
    length: int
    cache: float
    answer: float
    frame: float
    stream: float
    ahead: int = 0

    @property
    def total(self) -> float:
        """At most, all at a time."""
        beside = self.frame if self.ahead else 0.0
        return sum(self.weights.values()) + max(self.cache + self.answer, self.frame) + beside + self.stream

    def rows(self) -> dict[str, float]:
        """Everything by name; `total` takes the larger of an answer and a frame, and one more frame ahead."""
        return {
            **self.weights,
            "weights": sum(self.weights.values()),
            f"cache of {self.length} tokens": self.cache,
            "an answer's activations": self.answer,
            "a frame's activations": self.frame,
            f"a stream, {self.ahead} frames ahead": self.stream,
            "at most at a time": self.total,
        }


def inference_table(plans: Mapping[str, Inference], memory: float = 0.0) -> str:
    """The plan for people: one column a dtype, GiB; * where all of it fits in `memory` GiB (0 marks nothing)."""
    lines = [f"{'':<28}" + "".join(f"{dtype:>12}" for dtype in plans)]
    rows = {dtype: plan.rows() for dtype, plan in plans.items()}
    for name in next(iter(rows.values())):
        lines.append(f"{name:<28}" + "".join(f"{_gib(rows[dtype][name]):>12}" for dtype in plans))
    if memory:
        marks = ("*" if plan.total <= memory * GIB else "-" for plan in plans.values())
        lines.append(f"{f'fits in {memory:g} GiB':<28}" + "".join(f"{mark:>12}" for mark in marks))
    return "\n".join(lines)


def _gib(value: float) -> str:
    return f"{value / GIB:.3f}"
