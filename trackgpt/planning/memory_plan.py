"""Memory of weights and of inference: arithmetic alone, nothing is allocated. Activations are traced (`inference`).

At inference a model holds its weights as the dtype stores them, and the larger of an answer's and a frame's
activations: one waits for the other. What an allocator rounds up is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

GIB = 2**30
DTYPES = ("float32", "bfloat16", "int8", "int4")
"""Of the weights at inference. In the last two the language model's matrices are quantised, the rest is bfloat16."""


@dataclass(frozen=True)
class Load:
    """Weights of a model in training.

    Attributes:
        trained: number of trainable parameters.
        frozen_bytes: bytes of the frozen ones.
        frozen: their number.
        unused: bytes of parameters that the training stage does not use; ZeRO does not shard them.
    """

    trained: int
    frozen_bytes: int
    frozen: int = field(default=0, compare=False)
    unused: int = 0


def load_of(parameters: Iterable[Any]) -> Load:
    """Weigh the parameters of a torch module; those of a model on the `meta` device do as well."""
    trained = frozen = others = 0
    for parameter in parameters:
        count = getattr(parameter, "ds_numel", parameter.numel())  # under ZeRO-3 only a shard is here
        if parameter.requires_grad:
            trained += count
        else:
            others += count
            frozen += count * parameter.element_size()
    return Load(trained, frozen, others)


def matrix_bytes(rows: int, columns: int, dtype: str) -> float:
    """Bytes of a language model's matrix as bitsandbytes stores it, or plain.

    int8 has one float32 scale per row. int4 (nf4, its scales quantised too) has one byte per 64 values and one float32
    per 256 of those.
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
        cache: its keys and values.
        answer: peak activations of reading a frame and answering.
        frame: peak activations of encoding and decoding a frame.
        stream: state of one stream between frames: queries, and frames encoded ahead.
        ahead: number of frames encoded ahead; above 0, one is encoded while another frame is tracked or read.
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
        """Peak of everything together."""
        encoded_ahead = self.frame if self.ahead else 0.0
        return sum(self.weights.values()) + max(self.cache + self.answer, self.frame) + encoded_ahead + self.stream

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
    """The plan as text: one column per dtype, GiB; * where all of it fits in `memory` GiB (0 marks nothing)."""
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
