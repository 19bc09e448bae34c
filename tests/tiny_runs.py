"""Runs small enough to be killed and repeated, for tests of the trainer; as a program it is one process of such runs.

    torchrun --standalone --nproc_per_node 2 tests/tiny_runs.py FOLDER '{"name": "z2", "stage": "join", "zero": 2}' ...

Each run goes to FOLDER/name; what is not named here is a field of `Plan`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from tiny_models import ANSWER, square, tiny_trackgpt
from torch import nn

from trackgpt.config import LoraConfig
from trackgpt.reasoners.lora import add_lora
from train.assemble import Origin, recompute
from train.config import Shape
from train.loop import fit
from train.model_folder import export_model
from train.plan import Plan
from train.processes import Processes, join_processes
from train.stages import JoinStage

CPU = Processes(torch.device("cpu"))
SMALL = Shape(side=64, frames=2, targets=2)
QUIET = {"steps": 4, "batch": 3, "lr": 0.01, "warmup": 1, "workers": 0, "bf16": False, "log_every": 1}
TIMES = {"minutes", "rate", "wait", "memory"}


class Line:
    """Fits y = 2 x with dropout and normalisation: both would give away a resumed run that differs."""

    weights = {"error": 1.0}

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.seen: list[list[int]] = []

    def sample(self, seed: int) -> Any:
        x = torch.randn(4, generator=torch.Generator().manual_seed(seed))
        return seed, x, 2 * x.sum()

    def modules(self) -> list[nn.Module]:
        return [self.model]

    def losses(self, samples: list[Any]) -> Any:
        self.seen.append([seed for seed, _, _ in samples])
        x, y = (torch.stack([s[i] for s in samples]) for i in (1, 2))
        error = (self.model(x)[:, 0] - y).square().mean()
        return {"error": error}, {"size": float(len(samples))}


def plan(**fields: Any) -> Plan:
    """A plan of four quick steps that writes no TensorBoard."""
    return Plan(**{**QUIET, "tensorboard": False, **fields})


def run(
    stage: Any, folder: Path, processes: Processes = CPU, export: Any = None, validate: Any = None, **fields: Any
) -> int:
    """Train a stage by `plan(**fields)`."""
    return fit(stage, plan(**fields), folder, processes, export or (lambda step, engine: None), validate)


def tiny_join(base: Path | None = None) -> JoinStage:
    """The join stage on a tiny model; with `base` the model is written there first and then carries LoRA."""
    if base is None:
        model = tiny_trackgpt("conv", tied=True, width=128)
    else:
        model = tiny_trackgpt("conv", width=128, lora=LoraConfig(rank=2))
        model.save_pretrained(base)
        torch.manual_seed(1)
        add_lora(model.brain, model.config.brain.lora)
    torch.manual_seed(0)
    return JoinStage(model, SMALL, CPU.device)


def record(processes: Processes = CPU, **fields: Any) -> dict[str, Any]:
    """What a model card is made of."""
    config = {"stage": "join", "data": {"ratio": [9, 3, 3, 1]}, "plan": plan(**fields).__dict__}
    return {
        "step": 4,
        "config": config,
        "processes": processes.size,
        "device": "cpu",
        "versions": {"torch": "2.13.0"},
        "commit": "abc",
        "written": "today",
        "figures": {"mask": 0.5},
        "skipped": 0,
    }


def run_join(folder: Path, processes: Processes, stage: str = "join", **fields: Any) -> None:
    """Train the join stage (with adapters for "lora") and export its model to `folder`/model."""
    base = folder.parent / f"base_{folder.name}_{processes.rank}" if stage == "lora" else None
    join = tiny_join(base)
    if fields.get("checkpointing"):
        recompute(join.model)

    def export(step: int, engine: Any) -> None:
        about = {**record(processes, **fields), "step": step}
        export_model(join.model, Origin(str(base)), engine, folder / "model", about, processes)

    def validate(step: int) -> dict[str, float]:
        if processes.rank > 0:
            return {}  # one process may look at the model alone, whatever the others do
        answer = join.model.brain.reason(square(join.model.brain), "the red car", forced=ANSWER)
        return {"referring": answer.referring.norm().item()}

    run(join, folder, processes, export, validate, **fields)


def main() -> None:
    """One process: the runs of the command line, one after the other."""
    folder, *runs = sys.argv[1:]
    processes = join_processes("cpu", zero=1)
    for fields in map(json.loads, runs):
        run_join(Path(folder) / fields.pop("name"), processes, **fields)
    processes.sum(0)
    processes.leave()


if __name__ == "__main__":
    main()
