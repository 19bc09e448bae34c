"""The one visible training loop: load, step, log, save; every stage goes through it.

Sample i of a run is a function of (seed, i) alone, so that a run that was killed continues with the samples it would
have seen. `train.jsonl` holds one line a logged step; `state.pt` holds everything needed to go on.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from trackgpt.errors import TrackGPTError
from train.stages import Stage


@dataclass
class Plan:
    """How long and how fast a stage trains.

    Attributes:
        steps: optimiser steps in all.
        batch: samples a step.
        lr: peak learning rate, reached after `warmup` steps, held, then brought to zero over the last `decay` share.
        minutes: stop (with a checkpoint) after so much wall time; 0 never does.
        save_minutes: minutes between checkpoints.
        workers: processes that render.
    """

    steps: int = 1000
    batch: int = 32
    lr: float = 1e-3
    warmup: int = 100
    decay: float = 0.3
    weight_decay: float = 0.02
    clip: float = 1.0
    seed: int = 0
    minutes: float = 0.0
    save_minutes: float = 3.0
    log_every: int = 20
    workers: int = 1
    bf16: bool = True
    loss_weights: dict[str, float] = field(default_factory=dict)


class _Samples(Dataset[Any]):
    def __init__(self, stage: Stage, seed: int, first: int, count: int) -> None:
        self.stage, self.seed, self.first, self.count = stage, seed, first, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.stage.sample(self.seed * 100_000_000 + self.first + index)


def _identity(samples: list[Any]) -> list[Any]:
    return samples


def _quiet_worker(_: int) -> None:
    torch.set_num_threads(1)


def batches(stage: Stage, plan: Plan, start: int) -> Iterator[list[Any]]:
    """Batches from step `start` on, rendered by worker processes in order."""
    # Here and not in the workers: OpenCV's threads do not live on in a fork, where setting their number waits for them.
    cv2.setNumThreads(1)
    count = max(0, plan.steps - start) * plan.batch
    loader: DataLoader[Any] = DataLoader(
        _Samples(stage, plan.seed, start * plan.batch, count),
        batch_size=plan.batch,
        shuffle=False,
        num_workers=plan.workers,
        collate_fn=_identity,
        worker_init_fn=_quiet_worker,
        prefetch_factor=4 if plan.workers else None,
    )
    return iter(loader)


def learning_rate(step: int, plan: Plan) -> float:
    """Linear warm-up, a plateau, a linear descent to zero."""
    left = (plan.steps - step) / max(1.0, plan.decay * plan.steps)
    return plan.lr * min(1.0, (step + 1) / max(1, plan.warmup), max(0.0, left))


def fit(stage: Stage, plan: Plan, folder: Path, device: torch.device, export: Callable[[int], object]) -> int:
    """Train a stage, going on from `folder/state.pt` where there is one; returns the step reached.

    `export` is called after every checkpoint: it writes what people look at (the model folder, curves, previews).

    Raises:
        TrackGPTError: the loss or its gradient is not a number; the last checkpoint stays as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trained = nn.ModuleList(stage.modules()).train()
    parameters = [p for p in trained.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(_groups(parameters, plan.weight_decay), lr=plan.lr, betas=(0.9, 0.98))
    start = reached = _resume(folder / "state.pt", trained, optimiser)
    began = saved = time.monotonic()
    sums: dict[str, list[float]] = {}
    with (folder / "train.jsonl").open("a") as log:
        for step, samples in enumerate(batches(stage, plan, start), start=start):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, plan)
            torch.manual_seed(plan.seed * 100_000_000 + step)  # dropout, too, is a function of seed and step alone
            with torch.autocast(device.type, torch.bfloat16, enabled=plan.bf16):
                losses, figures = stage.losses(samples)
            weights = {**stage.weights, **plan.loss_weights}
            total = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
            _must_be_finite("loss", total.item(), step, folder)
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            norm = nn.utils.clip_grad_norm_(parameters, plan.clip).item()
            _must_be_finite("gradient's norm", norm, step, folder)
            optimiser.step()
            reached = step + 1

            for key, value in {**{k: v.item() for k, v in losses.items()}, **figures, "grad": norm}.items():
                sums.setdefault(key, []).append(value)
            if reached % plan.log_every == 0:
                minutes = (time.monotonic() - began) / 60
                line = {"step": reached, "minutes": round(minutes, 2), "lr": learning_rate(step, plan)}
                line |= {k: round(sum(v) / len(v), 4) for k, v in sums.items()}
                log.write(json.dumps(line) + "\n")
                log.flush()
                sums = {}
            if time.monotonic() - saved > plan.save_minutes * 60:
                _save(folder / "state.pt", reached, trained, optimiser)
                export(step + 1)
                saved = time.monotonic()
            if plan.minutes and time.monotonic() - began > plan.minutes * 60:
                break
    if reached > start:
        _save(folder / "state.pt", reached, trained, optimiser)
        export(step + 1)
    return reached


def _must_be_finite(name: str, value: float, step: int, folder: Path) -> None:
    if not math.isfinite(value):
        raise TrackGPTError(f"{folder}: the {name} is {value} at step {step}; the last checkpoint is intact")


def _groups(parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    matrices = [p for p in parameters if p.dim() > 1]
    rest = [p for p in parameters if p.dim() <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def _save(path: Path, step: int, trained: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Write beside, then rename: a crash in between leaves the previous checkpoint whole."""
    beside = path.with_suffix(".tmp")
    torch.save({"step": step, "model": trained.state_dict(), "optimiser": optimiser.state_dict()}, beside)
    os.replace(beside, path)


def _resume(path: Path, trained: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location="cpu")
    trained.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])
