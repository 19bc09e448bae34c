"""Memory of training on each GPU, before anything is loaded: weights by arithmetic, activations by tracing.

Trainable weights, their gradients and AdamW's two moments are float32; frozen weights are stored as they are.
DeepSpeed's ZeRO keeps one more float32 copy of the trainable weights, in shards. Stage 1 shards the optimiser's state,
2 gradients too, 3 all weights too. Activations are traced with fake tensors through the stage's own `batch_losses`. Not
counted: communication buffers, what an allocator rounds up, and under ZeRO-3 the weights of the layers being computed.

Batches of the foundation's stages are drawn and differ. What is traced is about the largest of 40 batches of each
configuration in every respect at once: tokens of a turn, targets of an instruction, cells with something to name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from trackgpt.errors import UsageError
from trackgpt.geometry.letterbox import fit
from trackgpt.perception.segmenter import STRIDE
from trackgpt.planning.inference import FRAME, PREFIX
from trackgpt.planning.memory_plan import GIB, Load, load_of
from trackgpt.planning.outline import ModelOutline
from trackgpt.planning.tracing import without_memory
from trackgpt.reasoners.brain import Brain
from train.assemble import freeze, recompute
from train.codes import WIDTH
from train.config import TrainConfig
from train.engine import StageModule
from train.packing import Packed
from train.stages import make_stage
from train.tracking import Targets, Unrolled, mask_losses
from train.truth import TrueMasks

ZERO_STAGES = (0, 1, 2, 3)
GPUS = (1, 4, 8)
CPU = torch.device("cpu")

VIEWS = 2
"""Frames of a scene whose cells are named."""
TURNS = 12
"""Of a frame that the brain reads in "language": 6 instructions, a question, 4 facts, a description."""
WORDS = {"tracking": 64, "language": 36, "join": 43}
"""Tokens of a turn, without `PREFIX`."""
TARGETS = 5 / 4
"""Mean targets of a SynthTrack instruction: some have several, some none."""
NAMED = {"category": 0.18, "colour": 0.18, "region": 0.83}
"""Share of cells that have a name."""


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


def share(load: Load, zero: int, gpus: int, offload: str = "none") -> Share:
    """What each GPU holds under a ZeRO stage.

    Args:
        load: the weights.
        zero: 0 to 3.
        gpus: their number.
        offload: "optimizer" puts its state and the master copy into CPU memory, "parameters" the weights as well.
    """
    four = 4.0 * load.trained
    optimizer = 2 * four / (gpus if zero >= 1 else 1)
    master = four / gpus if zero >= 1 else 0.0
    gradients = four / (gpus if zero >= 2 else 1)
    weights = (four + load.frozen_bytes) / (gpus if zero >= 3 else 1)
    if offload != "none":
        optimizer = master = 0.0
    if offload == "parameters":
        weights = 0.0
    return Share(weights + load.unused, gradients, optimizer, master)


@dataclass(frozen=True)
class Activations:
    """Peak bytes of a forward and backward pass, without weights and gradients.

    Attributes:
        plain: with all activations kept.
        checkpointed: with those of the language model recomputed.
        losses: peak bytes of the mask losses, counted in both. They are freed before the rest of the backward pass, and
            so add less than themselves to the peak.
        resolution: at which masks are compared, as text.
    """

    plain: float
    checkpointed: float
    losses: float = 0.0
    resolution: str = ""


def table(load: Load, offload: str = "none", activations: Activations | None = None, memory: float = 0.0) -> str:
    """One line per ZeRO stage and number of GPUs, GiB on each.

    Args:
        load: the weights.
        offload: see `share`.
        activations: adds two columns: the sum with all activations kept, and with the language model's recomputed.
        memory: GiB of a GPU; marks with a * what fits. 0 marks nothing.
    """
    heads = ["weights", "gradients", "optimizer", "master", "GiB each"]
    heads += ["+ kept", "+ redone"] if activations else []
    lines = [f"{'ZeRO':>4} {'GPUs':>4} " + " ".join(f"{head:>9}" for head in heads)]
    for zero in ZERO_STAGES:
        for gpus in GPUS:
            s = share(load, zero, gpus, offload)
            cells = [f"{v / GIB:.3f}" for v in (s.weights, s.gradients, s.optimizer, s.master, s.total)]
            for extra in (activations.plain, activations.checkpointed) if activations else ():
                cells.append(f"{(s.total + extra) / GIB:.3f}" + ("*" if s.total + extra <= memory * GIB else ""))
            lines.append(f"{zero:>4} {gpus:>4} " + " ".join(f"{cell:>9}" for cell in cells))
    return "\n".join(lines)


def fitting(load: Load, offload: str, activations: float, memory: float) -> list[str]:
    """Which ZeRO stages and numbers of GPUs fit in `memory` GiB each, as "2x4" for stage 2 on four."""
    sizes = [(zero, gpus) for zero in ZERO_STAGES for gpus in GPUS]
    return [f"{z}x{n}" for z, n in sizes if share(load, z, n, offload).total + activations <= memory * GIB]


@dataclass(frozen=True)
class BatchSize:
    """The largest batch of a stage on one GPU.

    Attributes:
        stage: its name.
        samples: of the batch.
        frames: of a sample.
        side: of the padded square, pixels.
        turns: instructions of a sample.
        words: tokens of a turn, instruction and answer together; 0 where nothing is read.
        targets: masks of the batch, per frame.
        frame: height and width in pixels at which masks are compared; None for the decoder's grid.
        own: a second pass reads the brain's own answers.
        cached: features come from a cache instead of the encoder.
    """

    stage: str
    samples: int
    frames: int
    side: int
    turns: int = 1
    words: int = 0
    targets: int = 0
    frame: tuple[int, int] | None = None
    own: bool = False
    cached: bool = False

    def __str__(self) -> str:
        reads = f", {self.turns} turn(s) of {self.words} tokens" if self.words else ""
        follows = f", {self.targets} target(s) in all" if self.targets else ""
        more = ", own answers" * self.own + ", cached features" * self.cached
        return f"batch {self.samples} of {self.frames} frame(s) of {self.side} px{reads}{follows}{more}"

    @property
    def resolution(self) -> str:
        """At which masks are compared, as text."""
        if self.frame is None:
            return f"on the decoder's grid of {self.side // 4} x {self.side // 4}"
        return f"in frames of {self.frame[1]} x {self.frame[0]}, assumed"


def batch_size(config: TrainConfig, outline: ModelOutline, words: int = 0, frame: tuple[int, int] = FRAME) -> BatchSize:
    """The largest batch of a configuration.

    Args:
        config: of the run.
        outline: of the model.
        words: tokens of a turn; 0 for those of `WORDS`.
        frame: height and width in pixels of the videos, read for `data.mask_loss: original` alone.
    """
    stage, batch, data, shape = config.stage, config.plan.batch, config.data, config.shape
    words = words if stage in WORDS and words else WORDS.get(stage, 0)
    if stage == "tracking":
        return BatchSize(
            stage, batch, data.frames, outline.config.perception.image_side, data.turns, words,
            batch * data.turns * data.targets, frame if data.mask_loss == "original" else None,
            data.own_answers > 0, bool(data.cache),
        )  # fmt: skip
    if stage in ("words", "language"):
        reads = stage == "language"
        return BatchSize(stage, batch, reads + VIEWS, shape.side, TURNS if reads else 1, words)
    targets = math.ceil(batch * shape.targets * (TARGETS if stage == "join" else 1))
    return BatchSize(stage, batch, shape.frames, shape.side, shape.targets, words, targets)


def plan_training(outline: ModelOutline, config: TrainConfig, size: BatchSize, bf16: bool) -> tuple[Load, Activations]:
    """Weights that learn, weights that do not, and activations on each GPU.

    Args:
        outline: of the model that learns.
        config: of the run.
        size: of its largest batch.
        bf16: autocast to bfloat16, with frozen matrices stored in it where there is LoRA.

    Raises:
        UsageError: the stage cannot learn with this model, or from squares of this size; see also `freeze`.
    """
    _check(outline, size)
    module = _learner(outline, config, bf16)
    load = replace(load_of(module.parameters()), unused=unused_bytes(module, module.stage.model))
    plain = _trace_step(module, size, checkpointing=False)
    checkpointed = _trace_step(_learner(outline, config, bf16), size, checkpointing=True)
    if not size.targets:
        return load, Activations(plain, checkpointed)
    return load, Activations(plain, checkpointed, trace_mask_losses(size, bf16), size.resolution)


def unused_bytes(module: nn.Module, model: nn.Module) -> int:
    """Bytes of a model's parameters that a stage's module does not have."""
    there = {id(parameter) for parameter in module.parameters()}
    return sum(parameter.nbytes for parameter in model.parameters() if id(parameter) not in there)


def _check(outline: ModelOutline, size: BatchSize) -> None:
    if size.stage == "tracking":
        return
    stage, brain, c = size.stage, outline.skeleton().brain, outline.config.perception.decoder.hidden_size
    if size.side % STRIDE:
        raise UsageError(f"shape.side: wanted a multiple of {STRIDE}, found {size.side}")
    if stage != "words" and c != WIDTH:
        raise UsageError(f"stage {stage}: its codes have {WIDTH} channels, the queries of {outline.name} {c}")
    cells = (brain.config.image_side // STRIDE) ** 2
    merged = stage == "join" and 4 * brain.family.image_tokens == cells
    if stage != "masks" and brain.family.image_tokens != cells and not merged:
        raise UsageError(
            f"stage {stage}: it names cells of {STRIDE} px, {cells} per image; "
            f"the brain of {outline.name} has {brain.family.image_tokens} tokens per image"
        )
    if stage == "language" and size.side != brain.config.image_side:
        raise UsageError(f"shape.side: {outline.name} reads squares of {brain.config.image_side}, not {size.side}")


def _learner(outline: ModelOutline, config: TrainConfig, bf16: bool) -> StageModule:
    """The stage on a model without numbers, prepared as `python -m train` prepares it."""
    model = outline.skeleton(adapters=True)
    freeze(model, config.frozen)
    # A cache is named by the encoder's weights, which are not there.
    config = replace(config, data=replace(config.data, cache=""))
    return StageModule(make_stage(config, model, CPU), {}, bf16, CPU, touch=False)


def _trace_step(module: StageModule, size: BatchSize, checkpointing: bool) -> int:
    """Peak bytes of a forward and backward pass; the module cannot be used afterwards."""
    stage: Any = module.stage
    model = stage.model
    if checkpointing:
        recompute(model, keep_random_state=False)  # it would be a fake tensor, too
    packed = _packed(size, model.brain)
    images = torch.ones(size.samples, 3, model.brain.config.image_side, model.brain.config.image_side)
    with without_memory(module) as live:
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
        arguments = _arguments(size, model, packed, images)
        live.restart()
        with module.autocast():
            losses, _ = stage.batch_losses(**arguments)
            total = torch.stack(list(losses.values())).sum()
        del arguments, losses
        total.backward()
        return live.peak


def _arguments(size: BatchSize, model: Any, packed: Packed, images: Tensor) -> dict[str, Any]:
    """What the stage's `batch_losses` takes, at its largest; masks are fake, indices and `images` real."""
    b, n, side, read = size.samples, size.targets, size.side, model.brain.config.image_side
    truth = _masks(n, size.frames, side // 4, side // 4)
    codes = torch.zeros(n, WIDTH)
    if size.stage == "words":
        return {"frames": _frames(b * VIEWS, side), "cells": _cells(b * VIEWS, side)}
    if size.stage == "masks":
        cells = torch.zeros(b * size.frames * (side // STRIDE) ** 2, dtype=torch.long)
        return {
            "frames": _frames(b * size.frames, side), "clip": packed.row, "truth": truth,
            "referring": codes, "purport": codes, "dense": {"dense_category": cells, "dense_colour": cells},
        }  # fmt: skip
    if size.stage == "language":
        codes = torch.zeros(len(packed.row), WIDTH)
        frames, cells = _frames(b * size.frames, side), _cells(b * size.frames, side)
        return {"batch": packed, "frames": frames, "cells": cells, "referring_code": codes, "purport_code": codes}
    if size.stage == "join":
        return {
            "batch": packed, "read": _frames(b, read), "cells": _named(b * model.brain.family.image_tokens),
            "frames": _frames(b * size.frames, side), "truth": truth,
            "misled": torch.zeros(n, dtype=torch.bool), "code": codes, "reread": _as_taught,
        }  # fmt: skip
    targets, features = _targets(size), None
    if size.cached:
        features = model.segmenter.encode(targets.frames)
    return {
        "batch": packed, "pixels": model.brain.family.arrange(images), "targets": targets, "cached": features,
        "reread": _as_taught,
    }  # fmt: skip


def trace_mask_losses(size: BatchSize, bf16: bool) -> int:
    """Peak bytes of the mask losses, forward and backward, without the logits that they read."""
    with without_memory(nn.Module()) as live:
        dtype = torch.bfloat16 if bf16 else torch.float32
        grid = size.side // 4
        logits = torch.zeros(size.targets, size.frames, grid, grid, dtype=dtype, requires_grad=True)
        scores = torch.zeros(size.targets, size.frames, requires_grad=True)
        begun = live.now
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            losses, _ = mask_losses(Unrolled(logits, scores), _targets(size, frames=False))
        torch.stack(list(losses.values())).sum().backward()
        return live.peak - begun


def _targets(size: BatchSize, frames: bool = True) -> Targets:
    """Targets with empty masks, shared equally among the samples; in frames each sample is compared alone."""
    n, t = size.targets, size.frames
    box = None if size.frame is None else fit(size.frame, size.side)
    masks, ignored = (
        _masks(n, t, *(size.frame or (size.side // 4, size.side // 4))).chunk(size.samples if box else 1)
        for _ in range(2)
    )
    truths = tuple(TrueMasks(*both, box) for both in zip(masks, ignored, strict=True))
    at, length = torch.zeros(n, dtype=torch.long), torch.full((n,), t)
    return Targets(_frames(size.samples * t if frames else 0, size.side), at, length, truths, t)


def _masks(*shape: int) -> Tensor:
    """Empty masks, made of bytes, for a bool that depends on nothing else would be real (see `planning.tracing`)."""
    return torch.zeros(shape, dtype=torch.uint8).view(torch.bool)


def _frames(n: int, side: int) -> Tensor:
    """Frames, uint8 (n, 3, side, side)."""
    return torch.zeros(n, side, side, 3, dtype=torch.uint8).permute(0, 3, 1, 2)


def _cells(images: int, side: int) -> dict[str, Tensor]:
    """Labels of the cells of images, int64; as many are named as usual."""
    return _named(images * (side // STRIDE) ** 2)


def _named(count: int) -> dict[str, Tensor]:
    return {key: (torch.arange(count) < math.ceil(part * count)).long() - 1 for key, part in NAMED.items()}


def _packed(size: BatchSize, brain: Brain) -> Packed:
    """Turns of the planned length about one image per row; half of their words are answers."""
    family, b, n = brain.family, size.samples, size.targets
    length, spoken = PREFIX + family.image_tokens + size.turns * size.words, size.turns * size.words // 2
    ids = torch.full((b, length), int(family.image_id == 0))
    ids[:, 1 : 1 + family.image_tokens] = family.image_id
    labels = torch.full((b, length), -100)
    labels[:, length - spoken :] = 0
    if size.stage == "language":
        n = math.ceil(b * TARGETS * TURNS / 2)
    row, at = torch.arange(n) % b, torch.ones(n, dtype=torch.long)
    positions = torch.arange(length).expand(b, -1)
    return Packed(ids, labels, torch.zeros_like(ids), positions, row, at, at)


def _as_taught(_: Brain, hidden: Tensor, batch: Packed, share: float) -> Tensor:
    """In the place of `own_answers`: the words given, for those that the brain would choose have no values here."""
    return batch.ids
