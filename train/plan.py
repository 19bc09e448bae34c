"""Hyperparameters of a run: steps, batch, learning rate, checkpoints, logging, sharding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SEED_STRIDE = 100_000_000
"""Sample i of a run with seed s is number s * SEED_STRIDE + i."""


@dataclass
class Plan:
    """How a stage trains. A step sees `batch * accumulate * processes` samples.

    Attributes:
        steps: optimiser steps in all.
        batch: samples per process and forward pass.
        accumulate: batches per step on each process; every batch counts the same, as every process does.
            The update is that of one big batch where losses are means over samples; where they are means over words or
            masks, a batch of few words weighs as much as one of many.
        lr: peak learning rate, reached after `warmup` steps, held, then brought to zero over the last `decay` share.
        decay: 1.0 descends from the end of the warm-up on, as LISA does.
        beta2: of AdamW; LISA has 0.95.
        weight_decay: of matrices; biases, normalisations and scales have none.
        clip: largest norm of the gradient; 0 never clips.
        seed: sample i of a run, and the dropout on it, are functions of (seed, i) alone.
        minutes: stop (with a checkpoint) after so much wall time; 0 never does.
        save_minutes: minutes between checkpoints.
        save_every: steps between checkpoints, in addition to those by the clock; 0 leaves it to the clock.
        keep: number of checkpoints kept.
        log_every: steps per line of the log, which is their mean.
        validate_every: steps between calls of the validation hook; 0 never calls it.
        workers: processes that make samples, for each training process.
        max_skipped: share of samples that may be broken and replaced before the run stops.
        bf16: "auto" (or nothing) measures whether bfloat16 is the faster one here; true, false.
        checkpointing: recompute the language model's activations in the backward pass: slower, far less memory.
        zero: 0 keeps everything on every GPU; 1 shards the optimiser's state, 2 also gradients, 3 also weights.
        offload: "none", "optimizer" (its state to CPU memory), "parameters" (with zero=3: both).
        deepspeed: settings that win over those `train.engine.deepspeed_settings` writes, for those who know them.
        tensorboard: write `out/tensorboard` where TensorBoard is installed.
        wandb: a project of Weights & Biases; empty for none.
        loss_weights: weights of loss parts that win over the stage's own.
    """

    steps: int = field(default=1000, metadata={"range": (1, 10**8)})
    batch: int = field(default=32, metadata={"range": (1, 65_536)})
    accumulate: int = field(default=1, metadata={"range": (1, 65_536)})
    lr: float = field(default=1e-3, metadata={"range": (1e-12, 10.0)})
    warmup: int = field(default=100, metadata={"range": (0, 10**8)})
    decay: float = field(default=0.3, metadata={"range": (0.0, 1.0)})
    beta2: float = field(default=0.98, metadata={"range": (0.0, 0.999999)})
    weight_decay: float = field(default=0.02, metadata={"range": (0.0, 10.0)})
    clip: float = field(default=1.0, metadata={"range": (0.0, 1e6)})
    seed: int = field(default=0, metadata={"range": (0, 10**9)})
    minutes: float = field(default=0.0, metadata={"range": (0.0, 1e6)})
    save_minutes: float = field(default=3.0, metadata={"range": (0.0, 1e6)})
    save_every: int = field(default=0, metadata={"range": (0, 10**8)})
    keep: int = field(default=2, metadata={"range": (1, 1000)})
    log_every: int = field(default=20, metadata={"range": (1, 10**9)})
    validate_every: int = field(default=0, metadata={"range": (0, 10**8)})
    workers: int = field(default=1, metadata={"range": (0, 1024)})
    max_skipped: float = field(default=0.01, metadata={"range": (0.0, 1.0)})
    bf16: Any = field(default=None, metadata={"choices": ("auto", True, False, None)})
    checkpointing: bool = False
    zero: int = field(default=0, metadata={"range": (0, 3)})
    offload: str = field(default="none", metadata={"choices": ("none", "optimizer", "parameters")})
    deepspeed: dict[str, Any] = field(default_factory=dict)
    tensorboard: bool = True
    wandb: str = ""
    loss_weights: dict[str, float] = field(default_factory=dict, metadata={"range": (0.0, 1e6)})


def learning_rate(step: int, plan: Plan) -> float:
    """Linear warm-up, a plateau, a linear descent to zero at `plan.steps`; the descent never reaches into the warm-up.

    With `decay=1.0` there is no plateau: linear up, then linear to zero.
    """
    descent = max(1.0, min(plan.decay * plan.steps, plan.steps - plan.warmup))
    left = (plan.steps - step) / descent
    return plan.lr * min(1.0, (step + 1) / max(1, plan.warmup), max(0.0, left))
